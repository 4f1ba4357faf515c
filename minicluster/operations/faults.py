"""Faults on purpose: applied by a helper container, listed by its label, and healed (:mod:`.heal`) by ending it.

The helper (``profiles/_fault``) changes nothing in a node's container: it enters the network name spaces of nodes, adds
packet filters and queues of its own there, and removes them when it is told to end or its time is over. So a fault
ends in time even if this process is killed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeAlias

from minicluster.errors import Conflict, EngineError, MiniclusterError, NodeFailed, NoEngine, NotFound, UsageError
from minicluster.executor import helper
from minicluster.leases import lock
from minicluster.model import labels
from minicluster.model.events import Listener, ignore
from minicluster.model.fault import ActiveFault, Fault
from minicluster.model.naming import container_name, fault_name
from minicluster.model.results import FaultInfo
from minicluster.operations import images
from minicluster.operations.observe import members
from minicluster.plan import faults as planning
from minicluster.plan.observed import observe, records

if TYPE_CHECKING:
    from collections.abc import Mapping

    from minicluster.engine.protocol import Attached, Container, Engine, Job, Sandbox
    from minicluster.model.membership import Member
    from minicluster.model.spec import Spec

#: A fault, its helper containers (one on each host that has nodes of it), and a connection to each.
_Begun: TypeAlias = tuple[ActiveFault, Sequence[str], Sequence["Attached"]]

_FIX = "`minicluster heal` removes what is left of faults."


class Target:
    """A cluster as faults see it: what is asked of the engine once, when it is needed."""

    def __init__(self, engine: Engine, spec: Spec, *, seed: int | None = None, listener: Listener = ignore) -> None:
        self.engine = engine
        self.listener = listener
        self.spec = spec
        self.pick = random.Random(seed)
        self._sandboxes: dict[str, Sandbox] | None = None

    def look(self) -> None:
        """Asks the engine for what every fault needs: all at the same time."""
        if self.engine.hosts:  # a container may have another name there
            return
        from minicluster.executor.parallel import at_once

        found: dict[str, Sandbox | None] = {}

        def inspect(node: str) -> None:
            found[node] = self.engine.sandbox(container_name(self.spec.cluster, node))

        def listing() -> None:
            _ = self._found

        asking: list[Callable[[], None]] = [listing, *(partial(inspect, node.name) for node in self.spec.nodes)]
        at_once(asking)
        self._sandboxes = {node: it for node, it in found.items() if it}

    @cached_property
    def _found(self) -> list[Container]:
        return self.engine.containers(self.spec.cluster)

    @cached_property
    def containers(self) -> Mapping[str, Container]:
        """The nodes' containers, by node."""
        return observe(self.spec.cluster, self._found, [], []).containers

    @cached_property
    def helpers(self) -> list[Container]:
        """Our helper containers."""
        return [c for c in self._found if labels.FAULT in c.labels]

    @cached_property
    def members(self) -> Mapping[str, Member] | None:
        """The members by the cluster's own software; None where none answers."""
        return members(self.engine, self.spec, self.containers)[0]

    def beside(self, host: str) -> str:
        """A container of a node that runs on a host ("" is any): one whose network a helper can have; "" for none."""
        alive = [c for c in self.containers.values() if c.state in ("running", "paused")]
        return next((c.name for c in alive if host in ("", c.host)), "")

    def nodes(self, words: Sequence[str]) -> list[str]:
        """The nodes that words mean, once each, in order. A selector is resolved now, and never again.

        Raises:
            UsageError: a word means no node.
        """
        known = self.members if planning.needs_members(self.spec, words) else None
        found = [node for word in words for node in planning.select(self.spec, word, known, self.pick)]
        return list(dict.fromkeys(found))

    def active(self) -> list[ActiveFault]:
        """The faults that helpers hold, in the order in which they were applied."""
        found = {}  # the helpers of a fault on several hosts have the same label
        for holder in self.helpers:
            fault = held_by(holder)
            # One that is only created is about to be started, or its minicluster was killed.
            if fault and holder.state == "running" and fault.fault.kind != "kill":
                found[fault.identity] = fault
        return sorted(found.values(), key=lambda fault: int(fault.id))

    def sandboxes(self) -> dict[str, Sandbox]:
        """Every node whose container runs, as the engine's machine sees it."""
        if self._sandboxes is not None:
            return self._sandboxes
        from minicluster.executor.parallel import at_once

        alive = [(node, c.name) for node, c in self.containers.items() if c.state in ("running", "paused")]
        found = at_once([partial(self.engine.sandbox, name) for _node, name in alive])
        return {node: it for (node, _name), it in zip(alive, found, strict=True) if it}


def isolate(target: Target, who: str, *, one_way: bool = False, clients: bool = False) -> Fault:
    """A partition of a node, or of a minority or majority of the voters, from all others.

    Raises:
        UsageError: there is no such node, or too few voters.
    """
    known = target.members if who in ("minority", "majority") or planning.needs_members(target.spec, [who]) else None
    groups = planning.isolated(target.spec, who, known, target.pick)
    return planning.partition(groups, one_way=one_way, clients=clients)


def refuse(target: Target, fault: Fault) -> None:
    """Refuses a fault that cannot be applied now.

    Raises:
        UsageError: it contradicts a fault in force, or a node that it is about does not run.
    """
    planning.refuse_conflict(fault, target.active(), target.spec.cluster)
    for node in dict.fromkeys([*fault.nodes, *fault.to]):
        container = target.containers.get(node)
        if container is None or container.state not in ("running", "paused"):
            state = container.state if container else "missing"
            fix = f"`minicluster start {node} -c {target.spec.cluster}` starts it."
            raise UsageError(f"{fault.text}: {node} is not running", f"Its container is {state}.", fix)
        known = target.spec.node(node)
        if fault.kind == "disk-full" and known and not known.disks:
            raise UsageError(
                f"{fault.text}: {node} has no file system of its own",
                "Its data lie on the engine's, which is never filled.",
                f"Create a cluster with one: `minicluster up {target.spec.profile} --name NAME "
                f"--disk {known.role}=1GiB`.",
            )


def cost(target: Target, fault: Fault) -> tuple[str, bool]:
    """What a fault costs, for people; and whether a quorum is lost by it."""
    if fault.kind in ("partition", "hang", "kill", "disk-full") or (fault.kind == "loss" and fault.percent >= 100):
        return planning.cost(fault, target.active(), target.members)
    return "", False


def apply(
    engine: Engine,
    spec: Spec,
    fault: Fault,
    listener: Listener = ignore,
    confirm: Callable[[], object] | None = None,
) -> ActiveFault:
    """Applies a fault, and returns once it is in force on all of its nodes.

    Args:
        confirm: is called while its helper starts. Nothing is applied before it returns, nor if it raises.

    Raises:
        UsageError: as :func:`refuse` does.
        NodeFailed: the kernel or the engine refuses it; nothing of it is left.
    """
    _copy_image(engine, spec, fault, listener)
    with lock.injecting(spec.cluster):
        target = Target(engine, spec, listener=listener)
        target.look()
        refuse(target, fault)
        active, holders, connections = _confirmed(target, fault, confirm) if confirm else _begin(target, fault)
        with _ended_on_failure(engine, holders), _closed(connections):
            if confirm:
                for said in connections:
                    said.write(helper.WORD)
            for said in connections:
                if why := helper.failure(said.lines()):
                    raise NodeFailed(f"cannot apply: {fault.text}", *_reason(why, fault))
    if fault.kind == "kill":
        for holder in holders:
            engine.remove_container(holder)
    return active


def _copy_image(engine: Engine, spec: Spec, fault: Fault, listener: Listener) -> None:
    """Gives the helper's image to the hosts of a fault's nodes that lack it."""
    named = {*fault.nodes, *fault.to}
    for host in dict.fromkeys(node.host for node in spec.nodes if node.name in named):
        if host in engine.hosts and not engine.hosts[host].has_image(helper.image().ref):
            engine.hosts[host].load_images(engine.save_image(images.provide_helper(engine, listener)))


def on_host(spec: Spec, host: str) -> dict[str, str]:
    """The labels of a helper on a host; none where the cluster is on one engine."""
    return {labels.HOST: host, labels.HOSTS: ",".join(spec.hosts)} if host else {}


def _confirmed(target: Target, fault: Fault, confirm: Callable[[], object]) -> _Begun:
    """Starts helpers that wait for word, while the user is asked whether to give it."""
    from concurrent.futures import ThreadPoolExecutor

    from minicluster.executor.signals import shielded

    with ThreadPoolExecutor(1) as pool:
        beginning = pool.submit(_begin, target, fault, waits=True)
        try:
            confirm()
        except BaseException:
            with suppress(MiniclusterError), shielded():
                _active, holders, connections = beginning.result()
                with _closed(connections):
                    end_helpers(target.engine, holders)
            raise
        return beginning.result()


def _begin(target: Target, fault: Fault, *, waits: bool = False) -> _Begun:
    """Creates and starts helpers; they wait for word, or apply the fault at once."""
    from minicluster.executor.parallel import at_once

    active, holders = _create(target, fault, waits=waits)
    engine, cluster = target.engine, target.spec.cluster
    connections: list[Attached] = []
    with _ended_on_failure(engine, holders):
        try:
            for holder in holders:
                connections.append(engine.attach(holder))
            at_once([partial(engine.start_container, holder) for holder in holders])
            # A removal looks for helpers once more after it has removed the records.
            if not records(engine.volumes(cluster)):
                raise NodeFailed(f"cluster {cluster} no longer exists", "Another process removed it.")
        except BaseException as error:
            with _closed(connections):
                pass
            if isinstance(error, EngineError) and "not permitted" in error.why:  # it has too few capabilities itself
                raise NodeFailed(f"cannot apply: {fault.text}", *_reason(error.why, fault)) from error
            raise
        return active, holders, connections


@contextmanager
def _closed(connections: Sequence[Attached]) -> Iterator[None]:
    try:
        yield
    finally:
        for said in connections:
            said.close()


@contextmanager
def _ended_on_failure(engine: Engine, holders: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        from minicluster.executor.signals import shielded

        with shielded():
            end_helpers(engine, holders)
        raise


def _create(target: Target, fault: Fault, *, waits: bool) -> tuple[ActiveFault, list[str]]:
    """The containers of the helpers, which are not started yet."""
    sandboxes = target.sandboxes()
    processes = {name: it.pid for name, it in sandboxes.items()}
    taken = [number(holder) for holder in target.helpers]  # also of those whose labels nobody can read
    last = max((int(word) for word in taken if word.isdecimal()), default=0)
    commands = _by_host(target, fault, sandboxes)
    while True:
        last += 1
        active = ActiveFault(str(last), fault, time.time(), processes)
        made: list[str] = []
        try:
            with _ended_on_failure(target.engine, made):
                for host, command in commands.items():
                    job = _job(target, active, host, command, waits=waits)
                    try:
                        target.engine.create_job(job)
                    except NotFound:  # nearly always the image is there: it is not asked for before
                        images.provide_helper(target.engine, target.listener)
                        target.engine.create_job(job)
                    made.append(job.name)
            return active, made
        except Conflict:  # another user's process has just applied one
            continue


def _by_host(target: Target, fault: Fault, sandboxes: Mapping[str, Sandbox]) -> dict[str, list[str]]:
    """The command of the helper on each host; the host is "" where the cluster is on one engine."""
    spec = target.spec
    named = {*fault.nodes, *fault.to}
    found = {}
    for host in dict.fromkeys(node.host for node in spec.nodes if node.name in named):
        here = {node.name for node in spec.nodes if node.host == host}
        if (operations := planning.operations(fault, sandboxes, spec, here)) or not host:
            its = {name: it for name, it in sandboxes.items() if name in here}
            found[host] = [*operations, "--", *planning.sweep(its)]
    return found


def _job(target: Target, active: ActiveFault, host: str, command: Sequence[str], *, waits: bool) -> Job:
    """The helper on a host."""
    from minicluster.engine.protocol import Job

    spec = target.spec
    return Job(
        fault_name(spec.cluster, active.id, host),
        helper.image().ref,
        ("fault", f"{active.fault.seconds:g}", *command),
        {"FAULT": active.id, **({helper.WAITS: "1"} if waits else {})},
        {},
        (),
        {
            labels.CLUSTER: spec.cluster,
            labels.PROFILE: spec.profile,
            labels.FAULT: active.dump(),
            **on_host(spec, host),
        },
        on_containers=True,
        beside=target.beside(host),
        stdin=True,
    )


def _reason(said: str, fault: Fault) -> tuple[str, str]:
    """Why a fault could not be applied, and what to do."""
    if "qdisc kind is unknown" in said or "netem" in said:
        why = f"The kernel of the engine's machine has no network emulator (module sch_netem): {said}"
        return why, "Load it there (`modprobe sch_netem`), or use a fault that needs none: partition, loss, rate, hang."
    if "not permitted" in said:
        return said, "The engine grants no NET_ADMIN or SYS_ADMIN: faults need an engine that does."
    if said.startswith("no process"):
        return f"{said[0].upper()}{said[1:]}.", f"Name one of them: fault {fault.kind} NODE PROCESS."
    return f"{said[0].upper()}{said[1:]}.", _FIX


def listing(engine: Engine, spec: Spec) -> tuple[FaultInfo, ...]:
    """The faults of a cluster, each with the nodes in which it is no longer in force."""
    target = Target(engine, spec)
    active = target.active()
    sandboxes = target.sandboxes() if active else {}
    found = []
    away = {node.name for node in spec.nodes if node.host in engine.gone}  # they may run there all the same
    for one in active:
        lost = tuple(node for node in planning.gone(one, sandboxes) if node not in away)
        until = one.since + one.fault.seconds if one.fault.seconds else None
        found.append(FaultInfo(one.id, one.fault.kind, one.fault.text, one.fault.nodes, one.since, until, lost))
    return tuple(found)


def held_by(holder: Container) -> ActiveFault | None:
    """The fault that a helper holds; None where its label cannot be read."""
    try:
        return ActiveFault.parse(holder.labels[labels.FAULT])
    except ValueError:
        return None


def number(holder: Container) -> str:
    """The number of the fault that a helper holds; some other word of one that holds none."""
    return holder.name.partition("@")[0].rpartition(".")[2]


def end_helpers(engine: Engine, holders: Sequence[str]) -> None:
    """Lets helpers, by their names or IDs, undo their fault, and end."""
    from minicluster.executor.parallel import at_once

    at_once([partial(end_helper, engine, holder) for holder in holders])


def end_helper(engine: Engine, holder: str, signal: str = "TERM") -> None:
    """Sends a helper a signal at which it undoes its fault and ends; it may be on a host that stops answering now."""
    try:
        engine.end_job(holder, signal)
    except NoEngine:
        if not engine.gone:
            raise
