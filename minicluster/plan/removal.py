"""Plans the removal of a whole cluster, and of single nodes that leave one that stays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from minicluster.model.naming import container_name
from minicluster.plan.builder import Steps, ready
from minicluster.plan.steps import DisconnectNetwork, Plan, RemoveContainer, RemoveNetwork, RemoveVolume, RunHook

if TYPE_CHECKING:
    from minicluster.model.spec import NodeSpec, Spec
    from minicluster.plan.observed import Observed


def remove(observed: Observed) -> Plan:
    """The plan that leaves nothing of a cluster behind."""
    steps = Steps()
    cause = "remove the cluster"
    for helper in observed.faults:
        steps.add(f"remove {helper}", "", RemoveContainer(helper), cause)
    strays = [name for its in observed.strays.values() for name in its]
    gone = [steps.add(f"remove {stray}", "", RemoveContainer(stray), cause) for stray in strays]
    running = [node for node, container in observed.containers.items() if container.alive]
    # The swarm of several hosts keeps a network for nodes on one that does not answer. It stays, and so do the records,
    # which say what is left there.
    waits = bool(observed.gone)
    for network in () if waits else observed.networks:
        # The engine keeps a network that a container is connected to. Nodes are disconnected before they are killed,
        # which is the quicker half of their removal: then the network is removed while they are. One after the other,
        # as the engine does it anyway: asked for several at once, it sometimes miscounts the connected containers, and
        # keeps the network until it is restarted.
        freed: list[str] = []
        for node in running:
            out = DisconnectNetwork(network, observed.containers[node].name)
            why = "lets the network be removed while the node is"
            freed.append(steps.add(f"disconnect {node} {network}", node, out, why, freed[-1:]))
        # Stopped containers of others could not start without it.
        others = [
            steps.add(
                f"disconnect {other} {network}",
                "",
                DisconnectNetwork(network, other),
                "this container is not part of the cluster and stays",
            )
            for other in observed.attached.get(network, ())
        ]
        steps.add(f"remove network {network}", "", RemoveNetwork(network), cause, [*freed, *others, *gone])
    removed = [
        steps.add(
            f"remove {node}",
            node,
            RemoveContainer(container.name),
            cause,
            if_planned=[f"disconnect {node} {network}" for network in observed.networks],
        )
        for node, container in observed.containers.items()
    ]
    for volume in observed.volumes:
        owner = "" if "@" in volume else _owner(observed, volume)
        needs = [f"remove {owner}"] if owner else [*removed, *gone]
        steps.add(f"remove volume {volume}", owner, remove_volume(observed, volume), cause, needs)
    everything = steps.ids
    # Last, so that an interrupted `down` can still be found and finished, by any process.
    for generation in observed.generations:
        steps.add(
            f"remove volume {generation}", "", RemoveVolume(generation), "nothing is left of the cluster", everything
        )
    for record in () if waits else observed.records:
        action = RemoveVolume(record.volume)
        steps.add(f"remove record {record.revision}", "", action, "nothing is left of the cluster", everything)
    return steps.plan(observed.cluster, f"remove cluster {observed.cluster}")


def remove_volume(observed: Observed, volume: str) -> RemoveVolume:
    """The action that removes a volume of a node."""
    return RemoveVolume(volume, disk=volume in observed.disks)


def _owner(observed: Observed, volume: str) -> str:
    return next((n for n in observed.containers if volume.startswith(f"{observed.cluster}-{n}-")), "")


def remove_members(steps: Steps, spec: Spec, observed: Observed, leaving: Sequence[str], force: bool) -> list[str]:
    """Removes nodes one after the other: each change of a quorum must be complete before the next.

    Returns:
        ids of the steps after which all of them are removed.
    """
    if not leaving:
        return []
    cause = "the spec no longer has this node"
    last = [id for node in spec.nodes for id in ready(node.name) if id in steps]
    for name in leaving:
        container = observed.containers.get(name)
        node = observed.recorded(name)
        member = (observed.members or {}).get(name)
        # Without a `members` hook, a node that a complete `up` had is taken for a member.
        applied = observed.last_applied if spec.members is None else None
        hooks = node.leave if node and (observed.members or applied) else ()
        # A node that is not a member yet may be about to become one, if the change that added it is undone. So others
        # are asked to remove it when it can no longer register: its container is removed after the last hook that
        # runs in it. A member's is removed after all of them: its pods, tasks or vote move elsewhere first. So is that
        # of a node which may have got a vote meanwhile: the others may need it in order to remove it.
        removed_after = len(hooks)
        joined = member or (applied and applied.node(name))
        if not joined and node and not _votes(node.role, observed):
            removed_after = max((i for i, hook in enumerate(hooks, 1) if hook.on == "node"), default=0)
        remove = f"remove {name}"
        for i, hook in enumerate(hooks, 1):
            if container and i > removed_after and remove not in steps:
                last = [steps.add(remove, name, RemoveContainer(container.name), cause, last)]
            if hook.on == "node":
                on = container.name if container and container.state == "running" else ""
            else:
                on = _remaining(hook.on, observed, spec)
            if on:
                # What other nodes do to remove a voter must succeed: its vote must not outlive it.
                best_effort = force or hook.on == "node" or not (member and member.voter)
                action = RunHook(on, tuple(hook.run), best_effort=best_effort, phase="leaving")
                last = [steps.add(f"leave {name} {i}", name, action, cause, last)]
        if container and remove not in steps:
            last = [steps.add(remove, name, RemoveContainer(container.name), cause, last)]
        for volume in observed.volumes:
            if volume.startswith(f"{observed.cluster}-{name}-"):
                steps.add(f"remove volume {volume}", name, remove_volume(observed, volume), cause, last)
    return last


def _votes(role: str, observed: Observed) -> bool:
    return any(member.voter and member.role == role for member in (observed.members or {}).values())


def _remaining(role: str, observed: Observed, spec: Spec) -> str:
    """A container of a role that stays: one that the cluster counts as ready, one that runs, or one that is started."""
    members = observed.members or {}
    nodes = [n for n in spec.of_role(role) if n.name in observed.containers]

    def order(node: NodeSpec) -> tuple[bool, bool]:
        healthy = node.name in members and members[node.name].ready
        return (not healthy, node.name not in observed.running)

    return container_name(spec.cluster, min(nodes, key=order).name) if nodes else ""
