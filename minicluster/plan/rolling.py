"""Nodes that are restarted or replaced one at a time, so that the cluster keeps its quorum; the leader last. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from minicluster.errors import MiniclusterError
from minicluster.model.membership import Quorum, leader_last
from minicluster.plan.builder import Steps, ready, wait_members
from minicluster.plan.lifecycle import any_node, nodes_for, plan_of, restart, start_node, stop_node
from minicluster.plan.safety import NO_MEMBERS

if TYPE_CHECKING:
    from minicluster.model.spec import NodeSpec, Spec
    from minicluster.plan.observed import Observed
    from minicluster.plan.steps import Plan


def one_at_a_time(spec: Spec, observed: Observed, replaced: Collection[str]) -> list[NodeSpec]:
    """Those of the replaced nodes that must not be down at the same time, in order: none if no quorum is kept by that.

    A voter that is not ready comes first, the leader last.
    """
    members = observed.members or {}
    quorums = Quorum.by_role(members.values())
    if any(quorum.lost for quorum in quorums.values()) or observed.last_applied is None:
        return []
    if not any(quorum.voters >= 3 for quorum in quorums.values()):
        return []
    too_few = {role for role, quorum in quorums.items() if quorum.voters < 3}
    nodes = [n for n in spec.nodes if n.name in replaced and n.name in members and members[n.name].role not in too_few]
    return sorted(nodes, key=lambda n: leader_last(members[n.name]))


def rolling_restart(spec: Spec, observed: Observed, names: Sequence[str], *, force: bool = False) -> Plan:
    """Stops and starts one node after the other, each when the one before is a ready member again; the leader last.

    Raises:
        MiniclusterError: the cluster cannot spare one of these nodes, and there is no ``force``.
    """
    steps = Steps()
    nodes = nodes_for("restart", spec, observed, names)
    members = observed.members or {}
    quorums = Quorum.by_role(members.values())
    if spec.members and force and (observed.members is None or any(quorum.lost for quorum in quorums.values())):
        return restart(spec, observed, names)  # no quorum to keep, and no node could report that another is back
    if spec.members and not force:
        _check_spare(spec, observed, nodes)

    cause = "rolling restart, one node at a time"
    last: list[str] = []
    done: set[str] = set()
    for node in sorted(nodes, key=lambda node: leader_last(members.get(node.name))):
        stopped = stop_node(steps, spec, observed, node, cause, last)
        start_node(steps, spec, node, cause, stopped or last)
        done.add(node.name)
        last = [id for id in ready(node.name) if id in steps]
        if spec.members:
            expected = {name for name, member in members.items() if member.ready} | done
            asked = node if node.role == spec.members.on else any_node(spec, expected)
            if asked:
                why = "the next node restarts only when this one is a ready member"
                wait = wait_members(spec, asked, expected)
                last = [steps.add(f"converged {node.name}", node.name, wait, why, last)]
    return plan_of("restart", spec, steps, " one by one")


def _check_spare(spec: Spec, observed: Observed, nodes: Sequence[NodeSpec]) -> None:
    """Refuses a rolling restart that loses a quorum."""
    fix = f"Repair it first: `minicluster up --name {spec.cluster}`. `--force` continues anyway."
    if observed.members is None:
        raise MiniclusterError(
            f"a rolling restart of cluster {spec.cluster} cannot begin",
            NO_MEMBERS,
            fix,
        )
    quorums = Quorum.by_role(observed.members.values())
    for node in nodes:
        member = observed.members.get(node.name)
        if not (member and member.voter and member.ready):  # a voter that is not ready is no further loss
            continue
        quorum = quorums[member.role]
        if quorum.voters > 1 and quorum.survives < 1:
            raise MiniclusterError(
                f"restarting {node.name} would lose the quorum of cluster {spec.cluster}",
                f"{quorum.healthy} of {quorum.voters} voters are healthy, and {quorum.needed} are needed.",
                fix,
            )
