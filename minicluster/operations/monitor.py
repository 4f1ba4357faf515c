"""``top`` and ``events``: what a running cluster uses, and what happens to it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from minicluster.errors import MiniclusterError, NodeFailed, NoEngine
from minicluster.model import labels
from minicluster.model.fault import ActiveFault
from minicluster.model.membership import Member, Quorum
from minicluster.model.results import ClusterEvent, ClusterUsage, NodeUsage
from minicluster.operations import observe as observing
from minicluster.operations.nodes import Nodes, node_names
from minicluster.plan.observed import observe, records

if TYPE_CHECKING:
    from minicluster.engine.protocol import Cancel, Container, Engine, EngineEvent, Sample
    from minicluster.model.spec import NodeSpec, Spec

PERIOD = 1.0  #: seconds between two samples
_MEMBERS_TIMEOUT = 3.0  # seconds that members have to answer: as long as they take to notice that others are dead
_LIST = "`minicluster ls` lists the clusters."
_FINAL_WAIT = 0.3  # seconds to wait for the engine's last events once the cluster is removed


def usage(engine: Engine, spec: Spec, words: Nodes) -> ClusterUsage:
    """What nodes use now, by name or role.

    Raises:
        NodeFailed: another process removed the cluster.
    """
    for one in usages(engine, spec, words):
        return one
    raise NodeFailed(f"cluster {spec.cluster} no longer exists", "Another process removed it.", _LIST)


def usages(engine: Engine, spec: Spec, words: Nodes = (), period: float = PERIOD) -> Iterator[ClusterUsage]:
    """What nodes use, by name or role, once a period, the first time after one period; ends with the cluster.

    Nodes that are added later are included.

    Raises:
        UsageError: a word is no node or role.
    """
    wanted = [words] if isinstance(words, str) else [*words]
    node_names(spec, wanted)
    return _usages(engine, spec, lambda n: not wanted or n.name in wanted or n.role in wanted, period)


def _usages(engine: Engine, spec: Spec, wanted: Callable[[NodeSpec], bool], period: float) -> Iterator[ClusterUsage]:
    """It compares samples instead of reading the engine's stream: a sample costs milliseconds, and a node that is
    removed blocks nothing.
    """
    before: Mapping[str, Sample] | None = None
    from concurrent.futures import ThreadPoolExecutor  # imports logging: only where it is needed

    with ThreadPoolExecutor(32) as pool:
        while True:
            begun = time.monotonic()
            current, containers = _now(engine, spec)
            if current is None:
                return
            spec = current
            nodes = [node for node in spec.nodes if wanted(node)]
            running = [c for node in nodes if (c := containers.get(node.name)) and c.state in ("running", "paused")]
            taken = pool.map(lambda c: _sample(engine, c), running)
            samples = {c.id: sample for c, sample in zip(running, taken, strict=True) if sample}
            if before is not None:
                rows = tuple(_usage(node, containers.get(node.name), before, samples) for node in nodes)
                yield ClusterUsage(spec.cluster, round(time.time(), 3), rows)
            before = samples
            time.sleep(max(0.0, begun + period - time.monotonic()))


def _now(engine: Engine, spec: Spec) -> tuple[Spec | None, Mapping[str, Container]]:
    """The cluster's newest spec, None once nothing is left of it; and its containers by node."""
    volumes, containers = engine.volumes(spec.cluster), engine.containers(spec.cluster)
    if not volumes and not containers and not engine.networks(spec.cluster):
        return None, {}
    found = records(volumes)
    return (found[-1].spec if found else None) or spec, observe(spec.cluster, containers, [], []).containers


def current_spec(engine: Engine, spec: Spec) -> Spec | None:
    """A cluster's newest spec; None once nothing is left of it."""
    return _now(engine, spec)[0]


def _sample(engine: Engine, container: Container) -> Sample | None:
    try:
        return engine.sample(container.id)
    except NoEngine:
        raise
    except MiniclusterError:  # it has just been removed
        return None


def cpu_percent(before: Sample, after: Sample) -> float | None:
    """Percent of one processor that was used between two samples, computed as ``docker stats`` does.

    The share of all processors' time, times their number, times 100: ``calculateCPUPercentUnix`` in
    cli/command/container/stats_helpers.go of docker/cli. None where the container was restarted in between.
    """
    used, available = after.cpu - before.cpu, after.system - before.system
    return round(used / available * after.cpus * 100, 2) if used >= 0 and available > 0 else None


def _usage(
    node: NodeSpec, container: Container | None, before: Mapping[str, Sample], after: Mapping[str, Sample]
) -> NodeUsage:
    usage = NodeUsage(node.name, node.role, container.state if container else "missing")
    now = after.get(container.id) if container else None
    if container is None or now is None:
        return usage
    return replace(
        usage,
        cpu=cpu_percent(before[container.id], now) if container.id in before else None,
        memory=now.memory,
        memory_limit=now.memory_limit,
        pids=now.pids,
        received=now.received,
        sent=now.sent,
        read=now.read,
        written=now.written,
    )


def events(engine: Engine, spec: Spec, since: float | None = None, period: float = PERIOD) -> Iterator[ClusterEvent]:
    """What happens to a cluster, as its engine and its own software report it; ends once nothing is left of it.

    Raises:
        NoEngine: the engine stopped answering.
    """
    from minicluster.engine.protocol import Cancel

    received: queue.SimpleQueue[ClusterEvent | BaseException | None] = queue.SimpleQueue()
    stop = Cancel()

    def safely(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                received.put(error)

        return run

    def receive() -> None:
        for event in engine.events(spec.cluster, since=since, cancel=stop):
            if told := from_engine(spec.cluster, event):
                received.put(told)

    def ask() -> None:
        for event in _from_members(engine, spec, stop, period):
            received.put(event)
        stop.wait(_FINAL_WAIT)
        received.put(None)

    for work in (receive, ask):
        threading.Thread(target=safely(work), daemon=True).start()
    try:
        while (item := received.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()


def from_engine(cluster: str, event: EngineEvent) -> ClusterEvent | None:
    """What an event of the engine means; None where it is nothing to tell, as the end of a fault's helper may be."""
    about = event.labels
    if about.get(labels.FAULT) is not None:
        return _of_fault(cluster, event)
    detail = {**({} if event.kind == "container" else {event.kind: event.name}), **event.detail}
    return ClusterEvent(
        event.time, cluster, about.get(labels.NODE, ""), about.get(labels.ROLE, ""), event.action, detail
    )


def _of_fault(cluster: str, event: EngineEvent) -> ClusterEvent | None:
    """What the events of a fault's helper mean."""
    word = {"start": "fault", "die": "healed"}.get(event.action)
    try:
        fault = ActiveFault.parse(event.labels[labels.FAULT]).fault
    except ValueError:
        return None
    if word is None or (word == "healed" and fault.kind == "kill"):
        return None
    return ClusterEvent(event.time, cluster, "", "", word, {"fault": fault.text})


@dataclass(frozen=True)
class Seen:
    """What was known of the members at the last sample."""

    members: Mapping[str, Member]  #: by the last answer
    known: bool = True  #: they answered at the last sample
    lost: bool = False  #: there was no quorum


def _from_members(engine: Engine, spec: Spec, stop: Cancel, period: float) -> Iterator[ClusterEvent]:
    """Asks the cluster's own software once a period, and reports changes; ends with the cluster, or when stopped."""
    seen: Seen | None = None
    while not stop.is_set():
        begun = time.monotonic()
        current, containers = _now(engine, spec)
        if current is None:
            return
        spec = current
        if spec.members is not None:
            found, why = observing.members(engine, spec, containers, stop, _MEMBERS_TIMEOUT)
            if stop.is_set():
                return
            running = {name for name, c in containers.items() if c.state == "running"}
            seen, changes = compare(seen, found, why, running)
            roles = {node.name: node.role for node in spec.nodes}
            for event, node, detail in changes:
                yield ClusterEvent(round(time.time(), 3), spec.cluster, node, roles.get(node, ""), event, detail)
        stop.wait(max(0.0, begun + period - time.monotonic()))


def compare(
    seen: Seen | None, found: Mapping[str, Member] | None, why: str, running: set[str]
) -> tuple[Seen, list[tuple[str, str, Mapping[str, str | int]]]]:
    """The state now, and what has changed, as event, node and detail.

    The first sample reports only that no member answers, or that there is no quorum.

    Args:
        found: the members' answer; None (and ``why``) where none of them answers.
        running: nodes whose containers run: other voters cannot be part of a quorum.
    """
    changes: list[tuple[str, str, Mapping[str, str | int]]] = []
    before = seen or Seen(found or {})
    after = found if found is not None else before.members
    counted = list(after.values())
    if found is None:  # the last answer, less what does not run any more
        counted = [replace(member, ready=member.ready and member.name in running) for member in counted]
    quorum = Quorum.weakest(Quorum.by_role(counted).values())
    # Where enough of them run and none answers, the state before may still hold.
    lost = bool(quorum and (quorum.lost or (found is None and before.lost)))
    if found is None and before.known:
        changes.append(("unknown", "", {"why": why}))
    if found is not None and not before.known:
        changes.append(("known", "", {}))
    for name in dict.fromkeys([*before.members, *after]):
        was, is_ = (name in m and m[name].ready for m in (before.members, after))
        if was != is_:
            changes.append(("ready" if is_ else "unready", name, {}))
    if lost != before.lost and quorum:
        changes.append(("quorum-lost" if lost else "quorum", "", {"healthy": quorum.healthy, "needed": quorum.needed}))
    for role in dict.fromkeys(m.role for m in (*before.members.values(), *after.values())):
        old, new = (
            next((m.name for m in members.values() if m.leader and m.role == role), "")
            for members in (before.members, after)
        )
        if old != new:
            changes.append(("leader", new, {"from": old, "to": new}))
    return Seen(after, found is not None, lost), changes
