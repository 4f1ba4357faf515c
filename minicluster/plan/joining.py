"""Plans how nodes become members of their cluster: which of them have to join, and which member they join by. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from minicluster.errors import UsageError
from minicluster.model.deferred import fill
from minicluster.model.naming import container_name
from minicluster.plan.builder import Steps, planned
from minicluster.plan.several_hosts import out_of_reach
from minicluster.plan.steps import RunHook

if TYPE_CHECKING:
    from minicluster.model.spec import HookSpec, NodeSpec, Spec
    from minicluster.plan.observed import Observed


def join_all(
    steps: Steps,
    spec: Spec,
    observed: Observed,
    empty: Collection[str],
    rolling: Sequence[NodeSpec],
    left: Sequence[str],
) -> list[str]:
    """Makes members of the nodes that are not.

    Args:
        empty: names of the nodes that start without data.
        rolling: nodes that are replaced one at a time afterwards, and may have to join then: see :func:`join_one`.
        left: steps after which all nodes that leave have left.

    Returns:
        The steps after which all nodes should be ready members.

    Raises:
        UsageError: a join hook is on a role without nodes.
    """
    member = initial_member(spec, observed, empty)
    # Where those lost their data whom all others joined, the others' cluster may not exist any more.
    lost = bool(spec.init and member and observed.last_applied and member.name in empty)
    joining = [n for n in spec.nodes if (n.join if lost else n not in rolling and joins(n, observed, empty))]
    waits = [*planned(steps, spec.nodes), *left]
    if joining and member:
        waits += _run_hooks(steps, spec, joining, member, empty, planned(steps, spec.nodes if lost else [member]))
    return waits


def join_one(
    steps: Steps, spec: Spec, observed: Observed, node: NodeSpec, empty: Collection[str], needs: Sequence[str]
) -> list[str]:
    """Makes a member of a node that was replaced while the others stayed, by one of these.

    Args:
        empty: as for :func:`join_all`, with this node.
        needs: steps after which it is ready.

    Returns:
        The steps after which it should be a ready member.

    Raises:
        UsageError: as :func:`join_all` does.
    """
    member = initial_member(spec, observed, empty)
    return _run_hooks(steps, spec, [node], member, empty, needs, f" for {node.name}") if member else [*needs]


def _run_hooks(
    steps: Steps,
    spec: Spec,
    joining: Sequence[NodeSpec],
    member: NodeSpec,
    empty: Collection[str],
    needs: Sequence[str],
    turn: str = "",
) -> list[str]:
    """Runs the init hooks, and for each node that joins its own.

    Args:
        member: the initial member, which does not join.
        needs: steps after which that can begin.
        turn: the end of the ids of init hooks, which may run several times.
    """
    values: dict[str, str | list[str]] = {
        "initial_member.name": member.name,
        "initial_member.address": member.address,
        "joining": [node.name for node in joining if node is not member],
        "kept": [node.address for node in spec.nodes if node is not member and node.name not in empty],
    }
    initialized = [*needs]
    for i, hook in enumerate(spec.init, 1):
        on = container_name(spec.cluster, member.name)
        init = RunHook(on, tuple(fill(hook.run, values)), hook.capture, phase="initializing")
        initialized = [steps.add(f"init {i}{turn}", member.name, init, "initialize the cluster", initialized)]
    waits = [*initialized]
    for node in joining:
        if node is member:
            continue
        last = [*planned(steps, [node]), *initialized]
        for i, hook in enumerate(node.join, 1):
            on_node = _runs_on(hook, node, spec, member)
            last += planned(steps, [on_node]) if on_node not in (node, member) else []
            join = RunHook(container_name(spec.cluster, on_node.name), tuple(fill(hook.run, values)), hook.capture)
            last = [steps.add(f"join {node.name} {i}", node.name, join, "the node is not a member yet", last)]
        waits += last
    return waits


def joins(node: NodeSpec, observed: Observed, empty: Collection[str]) -> bool:
    """It has to be made a member. A node whose data are on an existing volume comes back as the member it was."""
    if not node.join or (node.bootstraps and observed.last_applied is None) or out_of_reach(node, observed):
        return False
    former = observed.last_applied.node(node.name) if observed.last_applied else None
    if former and former.host != node.host:  # an interrupted move may have made its volume already
        return True
    if node.name in empty:
        return True
    if observed.members is not None:
        return node.name not in observed.members
    return observed.last_applied is None or observed.last_applied.node(node.name) is None


def initial_member(spec: Spec, observed: Observed, empty: Collection[str]) -> NodeSpec | None:
    """The node that ``init`` hooks run on and that others join: a member that is ready, else the first of the role.

    Of ready ones those come first that vote: a user may have taken the vote from one of the role.

    Args:
        empty: names of the nodes that start without data, which are members only later.
    """
    roles = [hook.on for hook in (*spec.init, *([spec.members] if spec.members else []))]
    candidates = spec.of_role(roles[0]) if roles else ()
    members = observed.members or {}
    kept = [n for n in candidates if n.name in observed.containers and n.name not in empty]
    running = [n for n in kept if n.name in observed.running]
    healthy = [n for n in running if n.name in members and members[n.name].ready]
    healthy.sort(key=lambda n: not members[n.name].voter)
    return next(iter([*healthy, *running, *kept, *candidates]), None)


def _runs_on(hook: HookSpec, node: NodeSpec, spec: Spec, member: NodeSpec) -> NodeSpec:
    """The node that a join hook runs on."""
    if hook.on == "node":
        return node
    nodes = (member,) if member.role == hook.on else spec.of_role(hook.on)
    if not nodes:
        raise UsageError(
            f"{node.name} cannot join cluster {spec.cluster}: role {hook.on} has no nodes",
            f"The join hook `{hook.run[0]}` of role {node.role} runs on {hook.on}.",
            f"Ask for one: --size {hook.on}=1.",
        )
    return nodes[0]
