"""What the planners share: a collection of steps that checks their needs, and steps that several plans have."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from minicluster.model.naming import container_name
from minicluster.plan.steps import Action, Plan, Step, WaitMembers

if TYPE_CHECKING:
    from minicluster.model.spec import NodeSpec, Spec


class Steps:
    """Collects the steps of a plan, in an order that respects their needs."""

    def __init__(self) -> None:
        self._steps: dict[str, Step] = {}

    def add(
        self,
        id: str,
        node: str,
        action: Action,
        cause: str,
        needs: Iterable[str] = (),
        *,
        if_planned: Iterable[str] = (),
        cleanup: bool = False,
    ) -> str:
        """Adds a step and returns its id.

        Args:
            needs: ids of the steps that must be done before; each must have been added already.
            if_planned: likewise, but those that have not been added are ignored.
            cleanup: the step is carried out even if one before it failed.

        Raises:
            ValueError: there is a step of that id already, or none of an id in ``needs``.
        """
        needs = [*needs]
        if id in self._steps:
            raise ValueError(f"there are two steps {id!r}")
        if unknown := [need for need in needs if need not in self._steps]:
            raise ValueError(f"step {id!r} needs {unknown[0]!r}, which is not an earlier step")
        planned = [need for need in if_planned if need in self._steps]
        self._steps[id] = Step(id, node, action, cause, tuple(dict.fromkeys([*needs, *planned])), cleanup)
        return id

    def __contains__(self, id: str) -> bool:
        return id in self._steps

    def __bool__(self) -> bool:
        return bool(self._steps)

    @property
    def ids(self) -> list[str]:
        """The ids of all steps, in order."""
        return [*self._steps]

    @property
    def nodes(self) -> list[str]:
        """The nodes that steps are about, each once, in order."""
        return list(dict.fromkeys(step.node for step in self._steps.values() if step.node))

    def all(self) -> tuple[Step, ...]:
        """The steps, in order."""
        return tuple(self._steps.values())

    def plan(self, cluster: str, headline: str) -> Plan:
        """The plan of these steps."""
        return Plan(cluster, headline, self.all())


def ready(name: str) -> list[str]:
    """The steps after which a node is ready, if it has such: with a probe, and without."""
    return [f"start {name}", f"ready {name}"]


def planned(steps: Steps, nodes: Iterable[NodeSpec]) -> list[str]:
    """The steps, as far as they are planned, after which these nodes are ready."""
    return [id for node in nodes for id in ready(node.name) if id in steps]


def dependencies_ready(spec: Spec, node: NodeSpec) -> list[str]:
    """The steps, if planned, after which the nodes that this one depends on are ready."""
    return [id for role in node.depends_on for other in spec.of_role(role) for id in ready(other.name)]


def wait_members(spec: Spec, asked: NodeSpec, names: Collection[str]) -> WaitMembers:
    """A wait until one node counts these as ready, in the spec's order."""
    if spec.members is None:
        raise ValueError(f"profile {spec.profile} has no members hook")
    wanted = tuple(node.name for node in spec.nodes if node.name in names)
    return WaitMembers(container_name(spec.cluster, asked.name), spec.members.run, wanted)
