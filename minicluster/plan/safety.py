"""What a plan refuses to do: lose data or the quorum of a cluster; and in which order nodes can leave safely."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from minicluster.errors import MiniclusterError
from minicluster.model.membership import Quorum

if TYPE_CHECKING:
    from minicluster.model.spec import Spec
    from minicluster.plan.observed import Observed

NO_MEMBERS = "No node reports the cluster's members: too few nodes run, or they are electing a leader."


def check_data(spec: Spec, observed: Observed) -> None:
    """Refuses to continue if so many voters lost their data that the rest can never have a quorum again.

    A voter without its data must not vote in its old place: acknowledged writes could be lost.

    Raises:
        MiniclusterError: the data are lost; or an interrupted bootstrap used other members than these.
    """
    before = observed.last_applied
    if before is None and observed.members is not None and observed.bootstrap_differs(spec):
        raise MiniclusterError(
            f"cluster {spec.cluster} was bootstrapped by an interrupted `up` with other initial members",
            "Its voters have already formed a quorum.",
            f"Finish that `up` first (`minicluster up --name {spec.cluster}` with its options), "
            f"or delete the cluster: `minicluster down {spec.cluster}`.",
        )
    if before is None or observed.members is not None:
        return
    specs = [record.spec for record in observed.records if record.spec]
    bootstrapped = [n for n in before.nodes if n.bootstraps and n.volumes and all(s.node(n.name) for s in specs)]
    lost = [node.name for node in bootstrapped if observed.lacks_data(node)]
    needed = Quorum.needed_for(len(bootstrapped))
    if lost and len(bootstrapped) - len(lost) < needed:
        raise MiniclusterError(
            f"cluster {spec.cluster} has lost the data of {', '.join(lost)}",
            f"{len(bootstrapped) - len(lost)} of {len(bootstrapped)} initial members still have their data, and "
            f"{needed} are needed for a quorum.",
            f"`minicluster down {spec.cluster}`, then `up`, creates an empty cluster.",
        )


def leaving_order(spec: Spec, observed: Observed, force: bool) -> list[str]:
    """The nodes that the spec no longer has, in the order in which they leave: those that can be spared best first.

    A node that is not ready is no loss; removed first, it no longer counts when the next one leaves.

    Raises:
        MiniclusterError: no node reports the members; or the quorum would be lost, and there is no ``force``.
    """
    members = observed.members or {}
    # A member may have lost its container and still have its vote. Without a `members` hook, others may know it.
    applied = observed.last_applied if spec.members is None else None
    known_to_others = [*members, *(node.name for node in applied.nodes if node.leave)] if applied else [*members]
    names = [name for name in dict.fromkeys([*observed.containers, *known_to_others]) if spec.node(name) is None]
    names = [name for name in names if name in observed.containers or observed.recorded(name)]
    known = [name for name in names if (node := observed.recorded(name)) and node.leave]
    # Removed without leaving, a voter would count for the quorum forever, so `force` does not help here. Before a
    # first `up` was complete, no node is a member.
    if known and spec.members and observed.members is None and observed.last_applied is not None:
        raise MiniclusterError(
            f"{', '.join(sorted(known))} cannot leave cluster {spec.cluster} now",
            NO_MEMBERS,
            f"Start its stopped nodes first (`minicluster start -c {spec.cluster}`), "
            f"or delete it: `minicluster down {spec.cluster}`.",
        )

    def order(name: str) -> tuple[bool, str, int, str]:
        node = observed.recorded(name)
        healthy = name in members and members[name].ready
        return (healthy, node.role if node else "", -node.index if node else 0, name)

    names.sort(key=order)
    if not force:
        _check_quorum(spec, observed, names)
    return names


def _check_quorum(spec: Spec, observed: Observed, leaving: Sequence[str]) -> None:
    """Refuses if the voters that stay had no quorum after one of these has left."""
    left = dict(observed.members or {})
    for name in leaving:
        member = left.pop(name, None)
        if member is None or not member.voter:
            continue
        quorum = Quorum.by_role(left.values()).get(member.role)
        healthy, voters = (quorum.healthy, quorum.voters) if quorum else (0, 0)
        needed = Quorum.needed_for(voters)
        if healthy >= needed:
            continue
        down = [m.name for m in left.values() if m.voter and m.role == member.role and not m.ready]
        why = f"Without {name} {healthy} of {voters} voters would be healthy, and {needed} are needed"
        raise MiniclusterError(
            f"removing {name} would lose the quorum of cluster {spec.cluster}",
            f"{why}: {', '.join(down)} {'is' if len(down) == 1 else 'are'} not ready." if down else f"{why}.",
            f"Repair it first: `minicluster up --name {spec.cluster}`. `--force` continues anyway.",
        )
