"""Plans a reset: the hooks of a profile that remove what users put into a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minicluster.errors import NodeFailed, UsageError
from minicluster.model.naming import container_name
from minicluster.plan.builder import Steps
from minicluster.plan.steps import Fallback, Plan, RunHook

if TYPE_CHECKING:
    from minicluster.model.spec import HookSpec, Spec
    from minicluster.plan.observed import Observed

_PHASE = "resetting"


def reset(spec: Spec, observed: Observed) -> Plan:
    """The plan that runs a profile's reset hooks one after the other: on all nodes at once, or on one node of a role.

    Raises:
        UsageError: the profile has none.
        NodeFailed: a node that a hook needs does not run.
    """
    if not spec.reset:
        raise UsageError(
            f"cluster {spec.cluster} cannot be reset",
            f"Its profile {spec.profile} has no reset hook.",
            f"`minicluster down {spec.cluster}` and `minicluster up {spec.source} --name {spec.cluster}` recreate it. "
            "See docs/profiles.md, hooks.",
        )
    if any(hook.on == "node" for hook in spec.reset):
        _check_all_run(spec, observed)
    steps = Steps()
    last: list[str] = []
    for i, hook in enumerate(spec.reset, 1):
        if hook.on == "node":
            cause = "the profile resets every node"
            last = [
                steps.add(f"reset {node.name} {i}", node.name, _hook(spec, hook, node.name), cause, last)
                for node in spec.nodes
            ]
        else:
            cause = f"the profile resets the cluster from one {hook.on} node"
            last = [steps.add(f"reset {i}", "", _on_one(spec, observed, hook), cause, last)]
    return steps.plan(spec.cluster, f"reset cluster {spec.cluster}")


def _hook(spec: Spec, hook: HookSpec, name: str, fallback: Fallback | None = None) -> RunHook:
    return RunHook(container_name(spec.cluster, name), hook.run, phase=_PHASE, fallback=fallback)


def _check_all_run(spec: Spec, observed: Observed) -> None:
    """A node that does not run cannot be reset, and would bring back its data when it starts."""
    idle = [node.name for node in spec.nodes if node.name not in observed.running]
    if idle:
        raise NodeFailed(
            f"cluster {spec.cluster} cannot be reset",
            f"{', '.join(idle)} {'is' if len(idle) == 1 else 'are'} not running, so their data would stay.",
            f"`minicluster up --name {spec.cluster}` starts stopped nodes.",
        )


def _on_one(spec: Spec, observed: Observed, hook: HookSpec) -> RunHook:
    able = [node.name for node in spec.of_role(hook.on) if node.name in observed.running]
    if not able:
        raise NodeFailed(
            f"cluster {spec.cluster} cannot be reset",
            f"No {hook.on} node is running.",
            f"`minicluster up --name {spec.cluster}` starts stopped nodes.",
        )
    if len(able) == 1:
        return _hook(spec, hook, able[0])
    members = spec.members
    asked = [node.name for node in spec.of_role(members.on) if node.name in observed.running] if members else []
    containers = tuple(container_name(spec.cluster, name) for name in asked)
    return _hook(spec, hook, able[0], Fallback(tuple(able[1:]), containers, members.run if members else ()))
