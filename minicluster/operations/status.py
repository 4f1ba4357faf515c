"""``status``: what the engine, every node's probe and the cluster's own software report."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from minicluster.errors import MiniclusterError
from minicluster.executor.waiting import last_line, memory_limit_hit
from minicluster.host import kernel
from minicluster.model.membership import Member, Quorum
from minicluster.model.naming import container_name, listed
from minicluster.model.results import ClusterStatus, FaultInfo, NodeStatus
from minicluster.operations.observe import look, members_after_election
from minicluster.plan.placement import immovable

if TYPE_CHECKING:
    from minicluster.engine.protocol import Cancel, Container, Engine
    from minicluster.model.spec import NodeSpec, Spec
    from minicluster.plan.observed import Observed

_PROBE_TIMEOUT = 10.0  # seconds: a slow machine takes some for a command in a node


def examine(engine: Engine, spec: Spec, *, memory: bool = True) -> ClusterStatus:
    """The status of a cluster. All nodes are asked at once.

    Args:
        memory: report the memory that nodes use. The engine measures once a second, and may take that long to answer.
    """
    observed = look(engine, spec.cluster)
    containers = observed.containers
    from concurrent.futures import ThreadPoolExecutor  # imports logging: only where it is needed

    from minicluster.engine.protocol import Cancel

    stop = Cancel()
    seen: dict[str, Member] = {}
    with ThreadPoolExecutor(32) as pool:
        asked = pool.submit(members_after_election, engine, spec, containers, stop, seen)
        gone = observed.gone
        probes = {n.name: pool.submit(_probe, engine, n, containers.get(n.name), stop, gone) for n in spec.nodes}
        used = {n.name: pool.submit(_memory, engine, containers.get(n.name) if memory else None) for n in spec.nodes}
        try:
            found, why = asked.result()
            said = {name: (probes[name].result(), used[name].result()) for name in probes}
        except BaseException:  # Ctrl-C does not wait for nodes that hang
            stop.set()
            raise
    faults: tuple[FaultInfo, ...] = ()
    if observed.faults:
        from minicluster.operations.faults import listing  # only where there are any

        faults = listing(engine, spec)
    return summary(spec, observed, found, why, said, seen=seen, faults=faults)


def summary(
    spec: Spec,
    observed: Observed,
    found: Mapping[str, Member] | None,
    why: str,
    said: Mapping[str, tuple[str, int | None]],
    *,
    seen: Mapping[str, Member],
    faults: tuple[FaultInfo, ...] = (),
) -> ClusterStatus:
    """A cluster's status by what was observed and answered.

    Args:
        found, why: the members; or None and why nobody tells them.
        said: node -> what its probe says, and the memory that it uses.
        seen: the members that a node knows of all the same, where ``found`` is None.
    """
    containers = observed.containers
    known = seen if found is None else found
    quorums = Quorum.by_role(known.values())
    quorum = Quorum.weakest(quorums.values())
    if quorum and quorum.lost and found is None:
        why = "the quorum is lost"
    nodes = tuple(
        _node_status(spec, n, containers.get(n.name), *said[n.name], found, known, why, observed.gone)
        for n in spec.nodes
    )
    notes = [why] if why and not (quorum and quorum.lost) and any(n.phase == "running" for n in nodes) else []
    notes += [member.alarm for member in known.values() if member.alarm]
    notes += _of_hosts(spec, observed)
    notes += [f"{name} exists but is not in the spec" for name in containers if spec.node(name) is None]
    unknown_members = [m.name for m in known.values() if m.voter and m.name not in containers]
    notes += [f"{name} is a voter but is not in the spec" for name in unknown_members if spec.node(name) is None]
    phase = _phase(nodes, quorum, observed.converged)
    return ClusterStatus(spec.cluster, spec.profile, phase, quorum, nodes, tuple(notes), quorums, faults)


def kernel_notes(engine: Engine, spec: Spec) -> list[str]:
    """What does not work because the kernel lacks it, or has too little of it for so many nodes.

    Nothing where the engine has another kernel.
    """
    if not engine.local:
        return []
    missing = [text for feature, text in spec.kernel.items() if kernel.has(feature) is False]
    nested = sum(node.nested for node in spec.nodes)
    low = {name: now for name, now in kernel.limits().items() if now < nested * kernel.LIMITS[name].per_node}
    return missing + [f"{kernel.enough_for(name, now)}. `minicluster doctor` has the fix" for name, now in low.items()]


def _probe(engine: Engine, node: NodeSpec, container: Container | None, cancel: Cancel, gone: Mapping[str, str]) -> str:
    """ "ok", or why a node is not ready. ``gone``: hosts that do not answer, and why."""
    if container is None and node.host in gone:
        return f"host {node.host} does not answer"
    if container is None:
        return "its container is missing"
    if container.state == "exited" and (how := memory_limit_hit(engine, container.name)):
        return f"{how}: {container.status}"
    if container.state != "running":
        return container.status or container.state
    if not node.ready:
        return "ok"
    try:
        result = engine.exec(container.name, node.ready, timeout=_PROBE_TIMEOUT, cancel=cancel)
    except TimeoutError:
        return f"no answer within {_PROBE_TIMEOUT:g} s"
    except MiniclusterError as error:
        return error.why or error.what
    said = (
        last_line(result.stderr or result.stdout) or f"`{' '.join(node.ready)}` exited with status {result.exit_code}"
    )
    return "ok" if result.exit_code == 0 else said


def _memory(engine: Engine, container: Container | None) -> int | None:
    if container is None or container.state != "running":
        return None
    with contextlib.suppress(MiniclusterError):
        return engine.sample(container.name).memory
    return None


def _node_status(
    spec: Spec,
    node: NodeSpec,
    container: Container | None,
    probe: str,
    memory: int | None,
    members: Mapping[str, Member] | None,
    known: Mapping[str, Member],
    why: str,
    gone: Mapping[str, str],
) -> NodeStatus:
    member = known.get(node.name)
    if probe == "ok" and spec.members is not None:
        if members is None:
            probe = why or "no list of members"
        elif member is None:
            probe = "not a member of the cluster"
        elif not member.ready:
            probe = "not ready according to the cluster"
    return NodeStatus(
        name=node.name,
        role=node.role,
        address=node.address,
        phase=container.state if container else "unknown" if node.host in gone else "missing",
        ready=probe == "ok",
        leader=member.leader if member and members is not None else None,
        probe=probe,
        memory=memory,
        container=container_name(spec.cluster, node.name),
        detail=member.detail if member else "",
        voter=member.voter if member else None,
        host=node.host,
    )


def _of_hosts(spec: Spec, observed: Observed) -> list[str]:
    """What a user should know of a cluster's hosts: those that do not answer and what that costs, and what is left."""
    notes = []
    stuck = immovable(spec, [node.name for node in spec.nodes if node.host in observed.gone])
    for host, why in observed.gone.items():
        lost = [node.name for node in spec.nodes if node.host == host]
        costs = f"{listed(lost)} cannot be reached" if lost else "it has no node"
        if here := [name for name in lost if name in stuck]:
            costs += f"; {listed(here)} cannot be moved to other hosts: start the engine of this one"
        elif lost and not stuck:
            costs += f"; `minicluster up --name {spec.cluster}` puts them on other hosts"
        notes.append(f"host {host} does not answer ({why}): {costs}")
    for name, containers in observed.strays.items():
        where = ", ".join(container.partition("@")[2] for container in containers)
        notes.append(f"host {where} still has a former {name}; `minicluster up --name {spec.cluster}` removes it")
    return notes


def _phase(nodes: Sequence[NodeStatus], quorum: Quorum | None, converged: bool) -> str:
    if not converged:
        return "bootstrapping"
    if quorum and quorum.lost:
        return "broken"
    if all(node.ready for node in nodes):
        return "ready"
    if all(node.phase in ("exited", "missing", "unknown", "created") for node in nodes):
        return "stopped"
    return "degraded" if any(node.ready for node in nodes) else "broken"
