"""How a cluster is doing: what the engine, every node's probe and the cluster's own software say of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from minicluster.errors import MiniclusterError
from minicluster.host import kernel
from minicluster.model.membership import Member, Quorum
from minicluster.model.naming import container_name
from minicluster.model.results import ClusterStatus, NodeStatus
from minicluster.model.spec import NodeSpec, Spec

if TYPE_CHECKING:
    from minicluster.engine.protocol import Cancel, Container, Engine

_ELECTION = 2.0  # seconds that voters have to choose a leader
_PATIENCE = 10.0  # seconds that a node has to answer: a slow machine takes some for a command in it


def examine(engine: Engine, spec: Spec, *, memory: bool = True) -> ClusterStatus:
    """The status of a cluster, every node asked at once.

    Args:
        memory: tell what nodes use. The engine counts that once a second, and may have the asker wait for so long.
    """
    from minicluster.plan.observed import observe

    observed = observe(spec.cluster, engine.containers(spec.cluster), [], engine.volumes(spec.cluster))
    containers = observed.containers
    with ThreadPoolExecutor(32) as pool:
        asked = pool.submit(members_after_election, engine, spec, containers)
        probes = {n.name: pool.submit(_probe, engine, spec, n, containers.get(n.name)) for n in spec.nodes}
        used = {n.name: pool.submit(_memory, engine, containers.get(n.name) if memory else None) for n in spec.nodes}
        found, why = asked.result()
        nodes = tuple(
            _node_status(spec, n, containers.get(n.name), probes[n.name].result(), used[n.name].result(), found, why)
            for n in spec.nodes
        )
    quorum = Quorum.of((found or {}).values())
    notes = [why] if why and any(n.phase == "running" for n in nodes) else []
    notes += [f"{name} runs and is not in the spec" for name in containers if spec.node(name) is None]
    strangers = [m.name for m in (found or {}).values() if m.voter and m.name not in containers]
    notes += [f"{name} has a vote and is not in the spec" for name in strangers if spec.node(name) is None]
    phase = _phase(nodes, quorum, observed.converged)
    quorums = Quorum.by_role((found or {}).values())
    return ClusterStatus(spec.cluster, spec.profile, phase, quorum, nodes, tuple(notes), quorums)


def kernel_notes(engine: Engine, spec: Spec) -> list[str]:
    """What does not work since the kernel lacks something; nothing where the kernel is another machine's."""
    if not spec.kernel or not engine.local:
        return []
    return [text for feature, text in spec.kernel.items() if not kernel.has(feature)]


def members(
    engine: Engine,
    spec: Spec,
    containers: Mapping[str, Container],
    cancel: Cancel | None = None,
    patience: float = _PATIENCE,
) -> tuple[Mapping[str, Member] | None, str]:
    """The cluster's own list of members by the first node that knows; or None and why not.

    One is asked first, and all the others at once where it fails or takes its time. Asking ends when ``cancel`` is set,
    which the first answer does too.
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
    return ask_any(engine, able, hook.run, timeout=patience, cancel=cancel)


def members_after_election(
    engine: Engine, spec: Spec, containers: Mapping[str, Container]
) -> tuple[Mapping[str, Member] | None, str]:
    """As :func:`members`, but voters that are choosing a leader get the time for it.

    Where enough of them run there will be one in a moment; what they say till then would be alarming, and no news.
    """
    end = time.monotonic() + _ELECTION
    while True:
        found, why = members(engine, spec, containers)
        if not _choosing(spec, containers, found) or time.monotonic() > end:
            return found, why
        time.sleep(0.1)


def _choosing(spec: Spec, containers: Mapping[str, Container], found: Mapping[str, Member] | None) -> bool:
    """No leader is known, or too few voters are healthy, and yet most of the voters run."""
    if spec.members is None:
        return False
    if found is None:
        groups = [[node.name for node in spec.of_role(spec.members.on)]]
    else:
        undecided = {role for role, q in Quorum.by_role(found.values()).items() if q.lost or not q.leader}
        groups = [[m.name for m in found.values() if m.voter and m.role == role] for role in undecided]
    running = {node for node, container in containers.items() if container.state == "running"}
    return any(len(running.intersection(voters)) >= Quorum.needed_for(len(voters)) for voters in groups)


def _probe(engine: Engine, spec: Spec, node: NodeSpec, container: Container | None) -> str:
    """ "ok", or why a node is not ready."""
    if container is None:
        return "its container is gone"
    if container.state != "running":
        return container.status or container.state
    if not node.ready:
        return "ok"
    try:
        result = engine.exec(container.name, node.ready, timeout=_PATIENCE)
    except TimeoutError:
        return f"no answer within {_PATIENCE:g} s"
    except MiniclusterError as error:
        return error.why or error.what
    lines = (result.stderr or result.stdout).strip().splitlines()
    said = lines[-1] if lines else f"`{' '.join(node.ready)}` ended with {result.exit_code}"
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
    why: str,
) -> NodeStatus:
    member = members.get(node.name) if members is not None else None
    if probe == "ok" and spec.members is not None:
        if members is None:
            probe = why or "the members cannot be asked"
        elif member is None:
            probe = "it is no member of the cluster"
        elif not member.ready:
            probe = "the cluster counts it as not ready"
    return NodeStatus(
        name=node.name,
        role=node.role,
        address=node.address,
        phase=container.state if container else "missing",
        ready=probe == "ok",
        leader=member.leader if member else None,
        probe=probe,
        memory=memory,
        container=container_name(spec.cluster, node.name),
        detail=member.detail if member else "",
    )


def _phase(nodes: Sequence[NodeStatus], quorum: Quorum | None, converged: bool) -> str:
    if not converged:
        return "forming"
    if quorum and quorum.lost:
        return "broken"
    if all(node.ready for node in nodes):
        return "ready"
    if all(node.phase in ("exited", "missing", "created") for node in nodes):
        return "stopped"
    return "degraded" if any(node.ready for node in nodes) else "broken"
