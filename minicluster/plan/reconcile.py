"""Computes the plan from the observed to the desired state of a cluster: its steps, each with its cause."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from minicluster.engine.protocol import ContainerConfig
from minicluster.model import labels, local_registry
from minicluster.model.codec import node_hash
from minicluster.model.naming import container_name, network_name
from minicluster.model.spec import LOCALHOST, NodeSpec, Spec, disks, volumes
from minicluster.plan.builder import Steps, dependencies_ready, planned, wait_members
from minicluster.plan.differences import difference
from minicluster.plan.joining import initial_member, join_all, join_one, joins
from minicluster.plan.records import recorded
from minicluster.plan.removal import remove_members, remove_volume
from minicluster.plan.rolling import one_at_a_time
from minicluster.plan.safety import check_data, leaving_order
from minicluster.plan.several_hosts import host_label, out_of_reach, remove_strays
from minicluster.plan.steps import (
    ConnectNetwork,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    DisconnectNetwork,
    Plan,
    ProvideImage,
    PutFiles,
    RemoveContainer,
    RemoveVolume,
    RunHook,
    StartContainer,
    UpdateContainer,
    WaitReady,
)
from minicluster.profile.addressing import dynamic_range

if TYPE_CHECKING:
    from minicluster.plan.observed import Observed


def reconcile(spec: Spec, observed: Observed, *, force: bool = False) -> Plan:
    """The plan from the observed state to what the spec says. Empty if nothing has to change.

    Raises:
        MiniclusterError: the change would lose the quorum, and there is no ``force``; or too many nodes lost their
            data.
    """
    steps = Steps()
    actions = {node.name: _node_action(spec, node, observed) for node in spec.nodes}
    check_data(spec, observed)
    leaving = leaving_order(spec, observed, force)
    _provide_network(steps, spec, observed)
    remove_strays(steps, spec, observed)
    if leaving:
        # Nodes that stay and are merely stopped start first: the more of them vote, the safer it is to remove one.
        for node in spec.nodes:
            if actions[node.name].starts:
                _provide_node(steps, spec, node, observed, actions[node.name], [])
    left = remove_members(steps, spec, observed, leaving, force)
    _provide_images(steps, spec, observed, actions)
    rolling = one_at_a_time(spec, observed, {name for name, action in actions.items() if action.replaces})
    new = {node.name for node in spec.nodes if _starts_empty(node, observed, actions[node.name])}
    empty = new - {node.name for node in rolling}  # which have their data until it is their turn
    first = initial_member(spec, observed, empty) if spec.init else None
    if first and actions[first.name].creates and first not in rolling:
        # The node that others join takes the longest: it initializes the cluster while they boot. It is ready sooner
        # if the engine starts it before all others, and so is the cluster.
        _provide_node(steps, spec, first, observed, actions[first.name], left)
    for node in spec.nodes:
        if f"start {node.name}" not in steps and node not in rolling:
            after = [f"start {first.name}"] if first else []
            _provide_node(steps, spec, node, observed, actions[node.name], left, after)
    last = join_all(steps, spec, observed, empty, rolling, left)
    if rolling:
        # Nodes that were missing or stopped are members again before another one is replaced: they may vote too.
        changed = steps.nodes
        back = [node for node in spec.nodes if node not in rolling and node.name in changed]
        if back:
            asked = initial_member(spec, observed, empty)
            last = [*left, _wait_until_back(steps, spec, observed, empty, asked, back, last)]
    for i, node in enumerate(rolling):
        _provide_node(steps, spec, node, observed, actions[node.name], last)
        started = [*left, *planned(steps, [node])]
        if joins(node, observed, new):
            started = join_one(steps, spec, observed, node, {*empty, node.name}, started)
        last = [*left, _wait_until_back(steps, spec, observed, empty, node, [*back, *rolling[: i + 1]], started)]
    _wait_for_all(steps, spec, observed, empty, last)
    used = {v for node in spec.nodes for v in (*volumes(spec, node).values(), *disks(spec, node).values())}
    unused = [v for v in observed.volumes if v not in used and f"remove volume {v}" not in steps]
    everything = steps.ids  # a container may have it mounted until then; and if the plan fails, its data are needed
    for volume in unused:
        remove = remove_volume(observed, volume)
        steps.add(f"remove volume {volume}", "", remove, "no node uses this volume", everything)
    return recorded(steps, spec, observed)


def _wait_until_back(
    steps: Steps,
    spec: Spec,
    observed: Observed,
    empty: Collection[str],
    node: NodeSpec | None,
    back: Sequence[NodeSpec],
    needs: Sequence[str],
) -> str:
    """Waits until the cluster counts these nodes, of which ``node`` is the last, and all others that were ready."""
    assert spec.members
    asked = node if node and node.role == spec.members.on else initial_member(spec, observed, empty)
    assert asked
    expected = {name for name, member in (observed.members or {}).items() if member.ready} | {n.name for n in back}
    last = back[-1].name
    cause = "the next node is replaced only when this one is a ready member"
    return steps.add(f"converged {last}", last, wait_members(spec, asked, expected), cause, needs)


#: How the engine lists a container's image whose name is another image's by now.
_ID = re.compile(r"(sha256:)?[0-9a-f]{12,64}")


@dataclass(frozen=True)
class NodeAction:
    """What happens to a node: at most one of these, and why."""

    cause: str = ""
    creates: bool = False
    replaces: bool = False  #: the existing container is removed first
    empties: bool = False  #: so are its data
    starts: bool = False


def _node_action(spec: Spec, node: NodeSpec, observed: Observed) -> NodeAction:
    """What happens to a node, and where it is created why there."""
    action = _local_action(spec, node, observed)
    if action.creates and node.host:
        why = observed.placement.get(node.name, "")
        return replace(action, cause=f"{action.cause}; on {node.host}{why and f': {why}'}")
    return action


def _local_action(spec: Spec, node: NodeSpec, observed: Observed) -> NodeAction:
    container = observed.containers.get(node.name)
    if node.bootstraps and observed.last_applied is None and observed.bootstrap_differs(spec):
        # An initial member stores the other voters in its data from its first start.
        cause = "an interrupted bootstrap gave it other initial members"
        return NodeAction(cause, creates=True, replaces=container is not None, empties=True)
    if out_of_reach(node, observed):
        return NodeAction()
    if container is None:
        before = observed.spec is not None and observed.spec.node(node.name) is not None
        return NodeAction(
            "its container no longer exists" if before and observed.converged else "the node does not exist yet",
            creates=True,
        )
    if network_name(spec.cluster) not in observed.networks:
        return NodeAction("the cluster's network no longer exists", creates=True, replaces=True)
    if container.state == "created":
        return NodeAction("its creation was interrupted", creates=True, replaces=True)
    if network_name(spec.cluster) not in container.networks:  # an interrupted `down` leaves that
        return NodeAction("it is disconnected from the cluster's network", creates=True, replaces=True)
    if container.state in ("dead", "removing"):
        return NodeAction(f"its container is {container.state}", creates=True, replaces=True)
    if container.labels.get(labels.SPEC) != node_hash(spec, node, observed.authority):
        changed = difference(observed.last_applied, spec, node)
        return NodeAction(f"its spec has changed{changed and f': {changed}'}", creates=True, replaces=True)
    ref = spec.images[node.image].ref
    if _ID.fullmatch(container.image) and container.image != ref and ref in observed.images:
        return NodeAction(f"{ref} is another image now", creates=True, replaces=True)
    if container.state in ("exited", "paused"):
        return NodeAction("the node is stopped" if container.state == "exited" else "the node is paused", starts=True)
    return NodeAction()


def _starts_empty(node: NodeSpec, observed: Observed, action: NodeAction) -> bool:
    """Nothing is left of what a node had stored, so it has to join again; without volumes that is in its container."""
    if observed.lacks_data(node) or node.volumes:
        return observed.lacks_data(node)
    if action.creates:
        return True
    # A change that was interrupted may have replaced it, and have come to nothing more.
    applied, member = observed.last_applied, (observed.members or {}).get(node.name)
    if observed.converged or (member and member.ready) or not (applied and (former := applied.node(node.name))):
        return False
    return observed.containers[node.name].labels.get(labels.SPEC) != node_hash(applied, former, observed.authority)


def _provide_images(steps: Steps, spec: Spec, observed: Observed, actions: Mapping[str, NodeAction]) -> None:
    cause = {
        "build": "nodes use this image, and it is not built yet",
        "image": "the profile names this image",
        "override": "--image names this image",
    }
    for image in spec.images.values():
        used = any(spec.images[n.image] is image and actions[n.name].creates for n in spec.nodes)
        if used and image.ref not in observed.images:
            hosts = observed.lacking.get(image.ref, ())
            why = f"{', '.join(hosts)} lack{'s' * (len(hosts) == 1)} this image" if hosts else cause[image.source]
            steps.add(f"image {image.name}", "", ProvideImage(image, hosts), why)


def _provide_network(steps: Steps, spec: Spec, observed: Observed) -> None:
    name = network_name(spec.cluster)
    if name not in observed.networks:
        about = {labels.CLUSTER: spec.cluster, labels.PROFILE: spec.profile}
        about |= {labels.ENCRYPTED: "yes"} if spec.overrides.encrypt else {}
        action = CreateNetwork(name, spec.subnet, spec.gateway, dynamic_range(spec.subnet), about)
        steps.add(f"create network {name}", "", action, f"nodes get fixed addresses in {spec.subnet}")
    own = observed.own_container
    if own and (name not in observed.networks or name not in own.networks):
        cause = "minicluster runs in this container and must reach the nodes"
        network = [f"create network {name}"]
        steps.add(f"connect {own.name}", "", ConnectNetwork(name, own.name), cause, if_planned=network)
    if observed.registry and (name not in observed.networks or name not in observed.registry.networks):
        connect, network = ConnectNetwork(name, local_registry.NAME), [f"create network {name}"]
        cause = f"nodes pull images named {observed.registry.host}/... from the local registry"
        steps.add(f"connect {local_registry.NAME}", "", connect, cause, if_planned=network)


def _provide_node(
    steps: Steps,
    spec: Spec,
    node: NodeSpec,
    observed: Observed,
    action: NodeAction,
    left: Sequence[str],
    after: Sequence[str] = (),
) -> None:
    """Adds the steps that create, update or start a node.

    Args:
        left: steps that must be done before its container is removed or changed.
        after: steps, if planned, that must be done before it is created.
    """
    name, container = node.name, container_name(spec.cluster, node.name)
    # The engine looks for a container's network when it starts it, not when it creates it.
    started_after = [f"create network {network_name(spec.cluster)}", *dependencies_ready(spec, node)]
    image = f"image {node.image}"
    if action.creates:
        needs = []
        if action.replaces:
            remove = RemoveContainer(observed.containers[name].name)
            needs.append(steps.add(f"remove {name}", name, remove, action.cause, left, if_planned=[image]))
        needs += _provide_volumes(steps, spec, node, observed, action)
        config = CreateContainer(_config(spec, node, observed))
        strays = [f"remove {stray}" for stray in observed.strays.get(name, ())]
        strays += [f"forget {host}" for host in observed.forgotten]
        made = [steps.add(f"create {name}", name, config, action.cause, needs, if_planned=[image, *after, *strays])]
        files = tuple(file for file in node.files if not file.bootstrap or observed.last_applied is None)
        files += observed.registry.files(node) if observed.registry else ()
        if files or node.certificates or node.authority:
            put = PutFiles(container, files, node.certificates, node.authority)
            made.append(steps.add(f"files {name}", name, put, "configure the node before it starts", made))
        made += _connect(steps, spec, node, observed, action)
        start = StartContainer(container)
        steps.add(f"start {name}", name, start, "run the node", made, if_planned=started_after)
    else:
        needs = []
        if any(record.spec and record.spec.restart != spec.restart for record in observed.records):
            update, cause = UpdateContainer(container, spec.restart), f"set the restart policy to {spec.restart}"
            needs.append(steps.add(f"update {name}", name, update, cause, left))
        needs += _connect(steps, spec, node, observed, action)
        needs += _tell_of_registry(steps, spec, node, observed)
        if action.starts:
            start = StartContainer(container)
            before = [image, *after, *started_after]
            steps.add(f"start {name}", name, start, action.cause, needs, if_planned=before)
    if node.ready and (action.creates or action.starts):
        wait = WaitReady(container, node.ready)
        steps.add(f"ready {name}", name, wait, "wait until the node is ready", [f"start {name}"])


def _provide_volumes(steps: Steps, spec: Spec, node: NodeSpec, observed: Observed, action: NodeAction) -> list[str]:
    """Creates the volumes of a node that do not exist, or must be empty. Returns the steps after which they do."""
    mounted, backing, done = volumes(spec, node), disks(spec, node), []
    common = {labels.CLUSTER: spec.cluster, labels.PROFILE: spec.profile}
    about = common | {labels.ROLE: node.role, labels.NODE: node.name} | host_label(node)
    for path in node.shared:
        volume = mounted[path]
        if volume not in observed.volumes:
            if f"create volume {volume}" not in steps:
                steps.add(f"create volume {volume}", "", CreateVolume(volume, common), f"nodes share {path}")
            done.append(f"create volume {volume}")
    for path in node.volumes:
        volume = mounted[path]
        removed: list[str] = []
        stale = f"{volume}@{node.host}"
        if stale in observed.volumes:
            gone, cause = [f"remove {stray}" for stray in observed.strays.get(node.name, ())], "it is of a former node"
            removed = [steps.add(f"remove volume {stale}", node.name, RemoveVolume(stale), cause, if_planned=gone)]
        for old in (volume, *(file for at, file in backing.items() if at == path)) if action.empties else ():
            if old in observed.volumes:
                remove, gone = remove_volume(observed, old), [f"remove {node.name}"]
                removed.append(steps.add(f"remove volume {old}", node.name, remove, action.cause, if_planned=gone))
        if removed or volume not in observed.volumes:
            create = CreateVolume(volume, about, node.disks.get(path, 0))
            cause = f"keep {path} when the container is replaced"
            done.append(steps.add(f"create volume {volume}", node.name, create, cause, removed))
    return done


def _config(spec: Spec, node: NodeSpec, observed: Observed) -> ContainerConfig:
    about = {labels.CLUSTER: spec.cluster, labels.PROFILE: spec.profile, labels.ROLE: node.role}
    return ContainerConfig(
        name=container_name(spec.cluster, node.name),
        image=spec.images[node.image].ref,
        hostname=node.name,
        network=network_name(spec.cluster),
        address=node.address,
        labels=about
        | {labels.NODE: node.name, labels.SPEC: node_hash(spec, node, observed.authority)}
        | host_label(node),
        entrypoint=node.entrypoint,
        command=node.command,
        env=node.env,
        volumes=volumes(spec, node),
        tmpfs=node.tmpfs,
        mounts=node.mounts,
        ports={f"{e.port}/{e.protocol}": e.host_port for e in node.endpoints},
        bind_address=spec.hosts.get(node.host, spec.bind_address),
        local_ports=tuple(
            f"{e.port}/{e.protocol}" for e in node.endpoints if node.host and spec.published_on(node, e) == LOCALHOST
        ),
        memory=node.memory,
        cpus=node.cpus,
        nested=node.nested,
        privileged=node.privileged,
        capabilities=node.capabilities,
        stop_timeout=node.stop_timeout,
        restart=spec.restart,
    )


def _connect(steps: Steps, spec: Spec, node: NodeSpec, observed: Observed, action: NodeAction) -> list[str]:
    """Connects a node to the further networks that it lacks, and disconnects it from those that the spec has dropped.

    A new node is connected before it starts: the engine then connects it again whenever it starts.
    """
    name, container = node.name, container_name(spec.cluster, node.name)
    connected = frozenset() if action.creates else observed.containers[name].networks
    done = []
    for network in spec.networks:
        if network not in connected:
            # NODE is a container's host name, which engines make a name on every network anyway. So it is ambiguous
            # where two clusters join a network; CLUSTER-NODE never is.
            connect, cause = ConnectNetwork(network, container, (name, container)), "make the node known there by name"
            created = [f"create {name}"]
            done.append(steps.add(f"connect {name} {network}", name, connect, cause, if_planned=created))
    former = {network for record in observed.records if record.spec for network in record.spec.networks}
    for network in sorted(former & connected - {*spec.networks}):
        disconnect, cause = DisconnectNetwork(network, container), "the spec no longer has this network"
        done.append(steps.add(f"disconnect {name} {network}", name, disconnect, cause))
    return done


def _tell_of_registry(steps: Steps, spec: Spec, node: NodeSpec, observed: Observed) -> list[str]:
    """Tells a node that exists of a local registry that has not joined the cluster: it was started meanwhile."""
    registry, container = observed.registry, container_name(spec.cluster, node.name)
    if not registry or network_name(spec.cluster) in registry.networks or not node.local_registry:
        return []
    put, cause = PutFiles(container, registry.files(node), (), False), "tell the node of the local registry"
    done = [steps.add(f"files {node.name}", node.name, put, cause)]
    if node.registry_hook and node.name in observed.running:
        hook = RunHook(container, node.registry_hook, best_effort=True, phase="configuring")
        done.append(steps.add(f"registry {node.name}", node.name, hook, cause, done))
    return done


def _wait_for_all(steps: Steps, spec: Spec, observed: Observed, empty: Collection[str], needs: Sequence[str]) -> None:
    """Waits until the cluster's own software counts every node as a ready member."""
    asked = initial_member(spec, observed, empty)
    if spec.members and asked and (steps or not _all_ready(spec, observed)):
        wait = wait_members(spec, asked, [n.name for n in spec.nodes if not out_of_reach(n, observed)])
        steps.add("members", "", wait, "wait until every node is a ready member", needs)


def _all_ready(spec: Spec, observed: Observed) -> bool:
    members = observed.members or {}
    return all(node.name in members and members[node.name].ready for node in spec.nodes)
