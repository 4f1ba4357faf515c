"""A cluster as pages show it: what was observed and answered, as JSON data. All pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from minicluster.model.membership import Member, Quorum
from minicluster.model.naming import listed
from minicluster.operations.status import summary

if TYPE_CHECKING:
    from minicluster.model.fault import ActiveFault, Fault
    from minicluster.model.results import ClusterStatus, ClusterUsage, NodeStatus
    from minicluster.model.spec import Spec
    from minicluster.model.workload import Workload
    from minicluster.plan.observed import Observed


@dataclass(frozen=True)
class Seen:
    """What is known of a cluster now. Each part is as old as the last answer to its question."""

    spec: Spec
    observed: Observed
    members: Mapping[str, Member] | None = None
    known: Mapping[str, Member] = field(default_factory=dict)  #: members that a node knows of, where none tells them
    why: str = ""  #: why members are None
    asked: bool = False  #: the members were asked for at least once
    workload: tuple[Workload, ...] | None = ()
    workload_why: str = ""  #: why the workload is None
    faults: tuple[ActiveFault, ...] = ()
    lost: Mapping[str, Collection[str]] = field(default_factory=dict)  #: fault -> nodes where it is no longer in force


def picture(seen: Seen) -> dict[str, Any]:
    """The data of a cluster's part of the page."""
    spec, containers = seen.spec, seen.observed.containers
    said = {}
    for node in spec.nodes:
        container = containers.get(node.name)
        state = container.state if container else "missing"
        probe = "ok" if state == "running" else (container.status or state) if container else "its container is missing"
        said[node.name] = (probe, None)
    # Without an answer that a node gave, what runs counts as running: no more is known of it.
    asked = spec.members is None or (seen.asked and bool(seen.members is not None or seen.known))
    members = seen.members if asked else {node.name: Member(node.name, ready=True) for node in spec.nodes}
    status = summary(spec, seen.observed, members, seen.why, said, seen=seen.known)
    faults = [one for one in seen.faults if one.fault.kind != "kill"]
    return {
        "name": spec.cluster,
        "profile": spec.profile,
        "phase": _phase(status, seen, asked),
        "notes": [*status.notes],
        "quorums": [_quorum(role, quorum) for role, quorum in status.quorums.items()] if asked else [],
        "roles": [{"name": role, "count": len(spec.of_role(role))} for role in spec.roles],
        "nodes": [_node(node, asked, faults, seen.lost) for node in status.nodes],
        "links": links(faults, seen.lost),
        "faults": [
            {"id": one.id, "text": one.fault.text, "since": one.since, "seconds": one.fault.seconds} for one in faults
        ],
        "workload": {
            "rows": _rows(seen.workload or ()),
            "why": seen.workload_why,
            "exists": spec.workload is not None,
        },
    }


def _rows(workload: Sequence[Workload]) -> list[dict[str, Any]]:
    """Rows with a key each, by which a page knows them again: names need not be unique, as pods' are not."""
    known: Counter[str] = Counter()
    rows = []
    for row in workload:
        known[row.name] += 1
        again = f" {known[row.name]}" if known[row.name] > 1 else ""
        rows.append({"key": row.name + again, **asdict(row)})
    return rows


def _phase(status: ClusterStatus, seen: Seen, asked: bool) -> str:
    """The cluster's state in a word or two."""
    if status.quorum and status.quorum.lost:
        return "quorum lost"
    return "unknown" if seen.asked and not asked and status.phase in ("ready", "degraded") else status.phase


def _quorum(role: str, quorum: Quorum) -> dict[str, Any]:
    if quorum.lost:
        text = f"quorum lost: {quorum.healthy} of {quorum.voters} voters healthy, {quorum.needed} needed"
    else:
        losses = f"{quorum.survives or 'no'} more loss{'' if quorum.survives < 2 else 'es'}"
        text = f"{quorum.healthy} of {quorum.voters} voters healthy, survives {losses}"
    return {"role": role, "lost": quorum.lost, "leader": quorum.leader, "text": text}


def state_of(node: NodeStatus, asked: bool) -> str:
    """A node's state in a word or two."""
    if node.phase in ("exited", "dead", "removing"):
        return "down"
    if node.phase != "running":
        return node.phase
    if not asked:
        return "running"
    return "ready" if node.ready else "not ready"


def _node(
    node: NodeStatus, asked: bool, faults: Sequence[ActiveFault], lost: Mapping[str, Collection[str]]
) -> dict[str, Any]:
    return {
        "name": node.name,
        "role": node.role,
        "address": node.address,
        "state": state_of(node, asked),
        "leader": bool(node.leader) and node.phase == "running",
        "voter": bool(node.voter),
        "detail": node.detail,
        "why": "" if node.ready else " ".join(node.probe.split()),
        "effects": [
            text for one in faults if node.name not in lost.get(one.id, ()) for text in effect(one.fault, node.name)
        ],
    }


def effect(fault: Fault, node: str) -> list[str]:
    """What a fault means for one node, in words; nothing where it does not concern it."""
    if fault.kind == "partition":
        group = next((group for group in fault.groups if node in group), None)
        if group is None:
            return []
        others = [other for one in fault.groups if one is not group for other in one]
        away = [other for other in others if fault.cut(node, other) or fault.cut(other, node)]
        return [f"cut off from {listed(away)}"] if away else []
    if node in fault.nodes:
        return [" ".join(word for word in fault.text.split() if word not in fault.nodes)]
    return []


def links(faults: Sequence[ActiveFault], lost: Mapping[str, Collection[str]]) -> list[dict[str, Any]]:
    """The pairs of nodes between which packets are lost or slow, one each: a cut counts before anything else."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for one in faults:
        fault, without = one.fault, lost.get(one.id, ())
        if fault.kind == "partition":
            pairs = [
                (a, b) for i, group in enumerate(fault.groups) for a in group for g in fault.groups[i + 1 :] for b in g
            ]
        else:
            pairs = [(a, b) for a in fault.nodes for b in fault.to]
        for a, b in pairs:
            if a in without and b in without:
                continue
            cut = fault.cut(a, b) or fault.cut(b, a)
            if fault.kind == "partition" and not cut:
                continue
            one_way = not (fault.cut(a, b) and fault.cut(b, a)) if cut else True
            key = (min(a, b), max(a, b))
            if cut or key not in found:
                found[key] = {"from": a, "to": b, "kind": "cut" if cut else "slow", "one_way": one_way}
    return list(found.values())


def usage(used: ClusterUsage) -> dict[str, Any]:
    """What the nodes use, by name."""
    return {n.name: {"cpu": n.cpu, "memory": n.memory, "limit": n.memory_limit} for n in used.nodes}
