"""What there is of a cluster: on the engine, and by its own software's list of members."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from minicluster.engine import discover
from minicluster.errors import NotFound
from minicluster.model import labels
from minicluster.model.local_registry import CA, NAME, LocalRegistry
from minicluster.model.membership import Member, Quorum
from minicluster.model.naming import container_name
from minicluster.operations.stored_authority import read_authority
from minicluster.plan.observed import Observed, observe

if TYPE_CHECKING:
    from minicluster import pki
    from minicluster.engine.protocol import Cancel, Container, Engine, Network, Volume
    from minicluster.model.spec import Spec

    Labelled: TypeAlias = Container | Network | Volume

_ELECTION = 2.0  # seconds that voters have to elect a leader
_SETTLING = 5.0  # seconds that voters have to be ready again before a change that needs a quorum
_DECIDING = 20.0  # seconds that voters have to elect a leader where a plan needs their answer; Swarm takes ten and more
_MEMBERS_TIMEOUT = 10.0  # seconds that a node has to answer: a slow machine takes some for a command in it


def look(engine: Engine, name: str) -> Observed:
    """Everything on the engine that carries a cluster's name."""
    found = observe(name, engine.containers(name), engine.networks(name), engine.volumes(name))
    if not engine.hosts:
        return found
    having = dict.fromkeys(node.host for node in found.spec.nodes) if found.spec else {}
    unasked = [host for host in having if host not in engine.hosts and host not in engine.gone]
    given_up = [host for host in unasked if not discover.known_hosts([host])]
    gone = {**engine.gone, **dict.fromkeys(given_up, "it has no docker context")}
    return replace(found, hosts=frozenset(engine.hosts), gone=gone)


def look_within(
    engine: Engine, observed: Observed, before: Spec | None, wanted: Spec, authority: pki.Authority | None = None
) -> tuple[Observed, pki.Authority]:
    """Adds what else a plan for ``wanted`` depends on: the members, the images that the engine has, the authority.

    Args:
        authority: the cluster's; None: it is read from a node, or new where the cluster has none.

    Returns:
        The authority as well.
    """
    from concurrent.futures import ThreadPoolExecutor

    from minicluster import pki

    ask = settled_members if wanted != before else known_members  # removing voters needs a stable list
    with ThreadPoolExecutor(2) as pool:  # the members take longest to answer
        reading = pool.submit(read_authority, engine, before) if before and not authority else None
        looking = pool.submit(local_registry, engine) if any(node.local_registry for node in wanted.nodes) else None
        counted = ask(engine, before, observed.containers)[0] if before else None
    lacking = _lacking(engine, wanted)
    refs = {image.ref for image in wanted.images.values()} - lacking.keys()
    there = frozenset(ref for ref in refs if engine.hosts or engine.has_image(ref))
    authority = authority or (reading.result() if reading else None) or pki.Authority()
    found = looking.result() if looking else None
    observed = replace(
        observed, authority=authority.identity, members=counted, images=there, registry=found, lacking=lacking
    )
    return observed, authority


def _lacking(engine: Engine, wanted: Spec) -> dict[str, tuple[str, ...]]:
    """Image -> the hosts whose nodes need it and that do not have it; empty where there is one engine."""
    on = ((wanted.images[node.image].ref, node.host) for node in wanted.nodes)
    needed = [(ref, host) for ref, host in dict.fromkeys(on) if host in engine.hosts]
    if not needed:
        return {}
    from minicluster.executor.parallel import at_once

    there = at_once([partial(engine.hosts[host].has_image, ref) for ref, host in needed])
    lacking: dict[str, tuple[str, ...]] = {}
    for (ref, host), has in zip(needed, there, strict=True):
        if not has:
            lacking[ref] = (*lacking.get(ref, ()), host)
    return lacking


def local_registry(engine: Engine) -> LocalRegistry | None:
    """The engine's local registry, whether it runs or not; None where there is none."""
    container = engine.container(NAME)
    port = container.labels.get(labels.REGISTRY, "") if container else ""
    if container is None or not port.isdecimal():
        return None
    try:
        ca = engine.get_file(NAME, CA).decode()
    except NotFound:  # it is being created or removed
        return None
    return LocalRegistry(int(port), ca, container.networks)


def everything(engine: Engine, name: str | None = None) -> list[Labelled]:
    """All containers, networks and volumes of a cluster, or of every cluster."""
    return [*engine.containers(name), *engine.networks(name), *engine.volumes(name)]


def by_cluster(things: Iterable[Labelled]) -> dict[str, list[Labelled]]:
    """Groups what the engine lists by cluster, sorted by the clusters' names."""
    grouped: dict[str, list[Labelled]] = {}
    for thing in things:
        grouped.setdefault(thing.labels[labels.CLUSTER], []).append(thing)
    return dict(sorted(grouped.items()))


def members(
    engine: Engine,
    spec: Spec,
    containers: Mapping[str, Container],
    cancel: Cancel | None = None,
    timeout: float = _MEMBERS_TIMEOUT,
    seen: dict[str, Member] | None = None,
    stuck: list[str] | None = None,
) -> tuple[Mapping[str, Member] | None, str]:
    """The cluster's own list of members from the first node that answers; or None and the reason.

    One node is asked first, and all the others at once where it fails or is slow. ``cancel`` ends the commands.
    For ``seen`` and ``stuck`` see :func:`~minicluster.executor.waiting.ask_any`.
    """
    if spec.members is None:
        return None, ""
    from minicluster.executor.waiting import ask_any

    hook = spec.members
    names = [container_name(spec.cluster, node.name) for node in spec.of_role(hook.on)]
    running = {c.name for c in containers.values() if c.state == "running"}
    able = [name for name in names if name in running]
    if not able:
        return None, f"no {hook.on} node is running"
    found, why = ask_any(engine, able, hook.run, timeout=timeout, cancel=cancel, seen=seen, stuck=stuck)
    if found == {} and len(able) < len(names):  # one that is stopped may know the others
        return None, f"the {hook.on} nodes that run are in no cluster"
    return found, why


def members_after_election(
    engine: Engine,
    spec: Spec,
    containers: Mapping[str, Container],
    cancel: Cancel | None = None,
    seen: dict[str, Member] | None = None,
) -> tuple[Mapping[str, Member] | None, str]:
    """As :func:`members`, but waits for an election that is under way.

    Where a majority of the voters runs, a missing leader or quorum lasts a moment only, and is not worth reporting.
    """
    ask = partial(members, engine, spec, containers, cancel, seen=seen)
    return _members_once(ask, lambda found: not _electing(spec, containers, found), _ELECTION, cancel)


def settled_members(
    engine: Engine, spec: Spec, containers: Mapping[str, Container]
) -> tuple[Mapping[str, Member] | None, str]:
    """As :func:`members_after_election`, for a change that is refused, or done otherwise, where it loses the quorum.

    A voter that runs and is not ready is asked again: it may only have answered late, or have just started.
    """
    running = {node for node, container in containers.items() if container.state == "running"}

    def settled(found: Mapping[str, Member] | None) -> bool:
        late = [m for m in (found or {}).values() if m.voter and not m.ready and m.name in running]
        return not late and not _electing(spec, containers, found)

    found, why = _members_once(partial(members, engine, spec, containers), settled, _SETTLING)
    return (found, why) if found is not None else known_members(engine, spec, containers)


def known_members(
    engine: Engine, spec: Spec, containers: Mapping[str, Container]
) -> tuple[Mapping[str, Member] | None, str]:
    """As :func:`members`, but where a majority of the voters runs it waits until one of them tells the members.

    A leader may have left the cluster, and without the members nobody knows that it has to join again.
    """
    stuck: list[str] = []
    seen: dict[str, Member] = {}
    running = {node for node, container in containers.items() if container.state == "running"}

    def known(found: Mapping[str, Member] | None) -> bool:
        # Those asked may be no voters: Kubernetes' masters wait for an etcd that is to be started first.
        lost = any(quorum.lost for quorum in Quorum.if_running(seen.values(), running).values())
        return found is not None or bool(stuck) or lost or not _electing(spec, containers, None)

    return _members_once(partial(members, engine, spec, containers, seen=seen, stuck=stuck), known, _DECIDING)


def _members_once(
    ask: Callable[[], tuple[Mapping[str, Member] | None, str]],
    good: Callable[[Mapping[str, Member] | None], bool],
    patience: float,
    cancel: Cancel | None = None,
) -> tuple[Mapping[str, Member] | None, str]:
    """Asks until the answer is good, or for so many seconds."""
    end = time.monotonic() + patience
    while True:
        found, why = ask()
        if good(found) or time.monotonic() > end or (cancel and cancel.is_set()):
            return found, why
        time.sleep(0.1)


def _electing(spec: Spec, containers: Mapping[str, Container], found: Mapping[str, Member] | None) -> bool:
    """No leader is known, or too few voters are healthy, although a majority of the voters runs."""
    if spec.members is None:
        return False
    if found is None:
        groups = [[node.name for node in spec.of_role(spec.members.on)]]
    else:
        undecided = {role for role, q in Quorum.by_role(found.values()).items() if q.lost or not q.leader}
        groups = [[m.name for m in found.values() if m.voter and m.role == role] for role in undecided]
    running = {node for node, container in containers.items() if container.state == "running"}
    return any(len(running.intersection(voters)) >= Quorum.needed_for(len(voters)) for voters in groups)
