"""The heart: what is there and what shall be -> the steps from the one to the other, each with its cause."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from minicluster.engine.protocol import ContainerConfig
from minicluster.errors import MiniclusterError
from minicluster.model import labels
from minicluster.model.codec import node_hash
from minicluster.model.deferred import fill
from minicluster.model.membership import Member, Quorum
from minicluster.model.naming import container_name, network_name, volume_name
from minicluster.model.spec import FileSpec, HookSpec, NodeSpec, Spec, volumes
from minicluster.plan.observed import Observed
from minicluster.plan.steps import (
    Action,
    ConnectNetwork,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    DisconnectNetwork,
    Plan,
    ProvideImage,
    PutFiles,
    Record,
    RemoveContainer,
    RemoveNetwork,
    RemoveVolume,
    RunHook,
    StartContainer,
    Step,
    UpdateContainer,
    WaitMembers,
    WaitReady,
)
from minicluster.profile.addressing import dynamic_range


@dataclass
class Steps:
    """Collects steps; what a step needs may be given loosely, since needs that are no steps are dropped."""

    steps: dict[str, Step] = field(default_factory=dict)

    def add(self, id: str, node: str, action: Action, cause: str, needs: Iterable[str] = ()) -> str:
        self.steps[id] = Step(id, node, action, cause, tuple(n for n in dict.fromkeys(needs) if n in self.steps))
        return id


def create(spec: Spec, observed: Observed, *, force: bool = False) -> Plan:
    """The plan that makes what is there into what the spec says. Empty where it is so already.

    Raises:
        MiniclusterError: the change would lose the quorum, and there is no ``force``; or the data of too many are lost.
    """
    steps = Steps()
    node_action = {node.name: _node_action(spec, node, observed) for node in spec.nodes}
    _check_data(spec, observed)
    leaving = _leaving(spec, observed, force)
    _provide_network(steps, spec, observed)
    if leaving:
        # What stays and is merely stopped comes back first: the more vote, the safer is it to let one go.
        for node in spec.nodes:
            if node_action[node.name].starts:
                _provide_node(steps, spec, node, observed, node_action[node.name], [])
    left = _remove_nodes(steps, spec, observed, leaving, force)
    for image in spec.images.values():
        wanted = any(spec.images[n.image] is image and node_action[n.name].creates for n in spec.nodes)
        if wanted and image.ref not in observed.images:
            cause = {
                "build": "nodes run it, and it is not built yet",
                "image": "the profile names it",
                "override": "--image names it",
            }
            steps.add(f"image {image.name}", "", ProvideImage(image), cause[image.source])
    rolling = _one_at_a_time(spec, observed, node_action)
    first = _initial_member(spec, observed) if spec.init else None
    if first and node_action[first.name].creates and first not in rolling:
        # The node that the others join has the longest way to go: it forms the cluster while they boot. Given the
        # engine to itself it is sooner there, and so is the whole.
        _provide_node(steps, spec, first, observed, node_action[first.name], left)
    for node in spec.nodes:
        if f"start {node.name}" not in steps.steps and node not in rolling:
            after = [f"start {first.name}"] if first else []
            _provide_node(steps, spec, node, observed, node_action[node.name], left, after)
    former = _join(steps, spec, observed, left)
    if rolling:
        # What is missing or stopped is a member again before another one goes: it may be a voter too.
        back = [n for n in spec.nodes if n not in rolling and any(s.node == n.name for s in steps.steps.values())]
        if back:
            former = [*left, _wait_converged(steps, spec, observed, _initial_member(spec, observed), back, former)]
    for i, node in enumerate(rolling):
        _provide_node(steps, spec, node, observed, node_action[node.name], former)
        begun = [*left, f"ready {node.name}", f"start {node.name}"]
        former = [*left, _wait_converged(steps, spec, observed, node, [*back, *rolling[: i + 1]], begun)]
    _finish(steps, spec, observed, former)
    stale = [v for v in observed.volumes if v not in _wanted_volumes(spec) and f"volume {v} away" not in steps.steps]
    for volume in stale:
        steps.add(f"volume {volume} away", "", RemoveVolume(volume), "no node of the spec has it")
    return _recorded(steps, spec, observed)


def _check_data(spec: Spec, observed: Observed) -> None:
    """Refuses to go on where so many voters lost their data that those left can never agree again.

    A voter that has forgotten what it voted for must not vote in its old place: acknowledged writes could be lost.
    """
    if observed.last_applied is None and observed.members is not None and _bootstrap_changed(spec, observed):
        raise MiniclusterError(
            f"cluster {spec.cluster} was formed by an `up` that did not come to its end, and not as it is wanted now",
            "Its voters know each other already.",
            f"Finish that first (`minicluster up --name {spec.cluster}` with what it was given), or take it `down`.",
        )
    if observed.last_applied is None or observed.members is not None:
        return
    specs = [record.spec for record in observed.records if record.spec]
    bootstrap_nodes = [
        n for n in observed.last_applied.nodes if n.bootstraps and n.volumes and all(s.node(n.name) for s in specs)
    ]
    lost = [n.name for n in bootstrap_nodes if _is_new(n, observed.last_applied, observed)]
    if lost and len(bootstrap_nodes) - len(lost) < len(bootstrap_nodes) // 2 + 1:
        raise MiniclusterError(
            f"cluster {spec.cluster} has lost the data of {', '.join(lost)}",
            f"Voters: {len(bootstrap_nodes)}; too few are left to agree on anything, and nobody can take in others.",
            f"`minicluster down {spec.cluster}`, then `up`, makes an empty one.",
        )


def _leaving(spec: Spec, observed: Observed, force: bool) -> list[str]:
    """The nodes that the spec has no more, in the order in which they go: those that the cluster can spare best first.

    One that does not work is no loss; taken out first, it does not count when the next one goes.
    """
    members = observed.members or {}
    # A member may have lost its container; its vote is still there.
    names = [name for name in dict.fromkeys([*observed.containers, *members]) if spec.node(name) is None]
    names = [name for name in names if name in observed.containers or _known(name, observed)]
    known = [name for name in names if (node := _known(name, observed)) and node.leave]
    # Taken out unasked, a voter would count for the quorum for ever, so no `force` helps here. Where nothing was
    # complete, nobody is a member.
    if known and spec.members and observed.members is None and observed.last_applied is not None:
        raise MiniclusterError(
            f"{', '.join(sorted(known))} cannot leave cluster {spec.cluster} now",
            "Its own software does not say who its members are: too few of its nodes run, or it is choosing a leader.",
            f"Mend it at its present size first (`minicluster start -c {spec.cluster}`), or take it `down`.",
        )

    def order(name: str) -> tuple[bool, str, int, str]:
        node = _known(name, observed)
        healthy = name in members and members[name].ready
        return (healthy, node.role if node else "", -node.index if node else 0, name)

    names.sort(key=order)
    if not force:
        _keep_quorum(spec, members, names)
    return names


def _keep_quorum(spec: Spec, members: Mapping[str, Member], leaving: Sequence[str]) -> None:
    """Refuses where the voters that stay could not agree after one of these steps."""
    all_voters = {name: member for name, member in members.items() if member.voter}
    for name in leaving:
        if name not in all_voters:
            continue
        role = all_voters.pop(name).role
        voters = {voter: member.ready for voter, member in all_voters.items() if member.role == role}
        healthy, needed = sum(voters.values()), len(voters) // 2 + 1
        if healthy < needed:
            down = [voter for voter, ready in voters.items() if not ready]
            why = f"Without {name} {healthy} of {len(voters)} voters would be healthy, and {needed} are needed"
            raise MiniclusterError(
                f"removing {name} would lose the quorum of cluster {spec.cluster}",
                f"{why}: {', '.join(down)} {'is' if len(down) == 1 else 'are'} not ready." if down else f"{why}.",
                f"Mend it first: `minicluster up --name {spec.cluster}`. `--force` goes on all the same.",
            )


def _one_at_a_time(spec: Spec, observed: Observed, node_action: Mapping[str, NodeAction]) -> list[NodeSpec]:
    """Of nodes that are made anew those that must not all be away at once, in order: none where that helps nobody.

    A voter that does not work goes first, the leader last.
    """
    members = observed.members or {}
    quorums = Quorum.by_role(members.values())
    if any(quorum.lost for quorum in quorums.values()) or observed.last_applied is None:
        return []
    if not any(quorum.voters >= 3 for quorum in quorums.values()):
        return []
    alone = {role for role, quorum in quorums.items() if quorum.voters < 3}
    replaced = [n for n in spec.nodes if node_action[n.name].replaces and n.name in members and n.role not in alone]
    return sorted(replaced, key=lambda n: (members[n.name].ready, members[n.name].leader))


def _wait_converged(
    steps: Steps, spec: Spec, observed: Observed, node: NodeSpec | None, back: Sequence[NodeSpec], needs: Sequence[str]
) -> str:
    """Waits until the cluster counts those who are back, of whom ``node`` is the last, and lost nobody else."""
    assert spec.members
    asked = node if node and node.role == spec.members.on else _initial_member(spec, observed)
    assert asked
    there = {name for name, member in (observed.members or {}).items() if member.ready} | {n.name for n in back}
    last = back[-1].name
    cause = "the next one goes only when this one is back"
    return steps.add(f"settled {last}", last, wait_members(spec, asked, there), cause, needs)


def wait_members(spec: Spec, asked: NodeSpec, names: Collection[str]) -> WaitMembers:
    """A wait until one node counts these as ready, in the spec's order."""
    assert spec.members
    wanted = tuple(node.name for node in spec.nodes if node.name in names)
    return WaitMembers(container_name(spec.cluster, asked.name), spec.members.run, wanted)


def remove(observed: Observed) -> Plan:
    """The plan that leaves nothing of a cluster behind."""
    steps = Steps()
    cause = "the cluster goes down"
    running = [node for node, container in observed.containers.items() if container.alive]
    for network in observed.networks:
        # The engine keeps a network that a container is connected to. Nodes are taken out of it before they end, since
        # that is the quicker half of what ending them takes: then the network goes while they do. One after the other,
        # as the engine does it anyway: asked for several at once, it loses count now and then of who is connected, and
        # keeps the network until it is started again.
        freed: list[str] = []
        for node in running:
            out = DisconnectNetwork(network, observed.containers[node].name)
            why = "the network can go while the node does"
            freed.append(steps.add(f"disconnect {node} {network}", node, out, why, freed[-1:]))
        # Others that have been stopped could not start without it.
        left = [
            steps.add(
                f"disconnect {other} {network}",
                "",
                DisconnectNetwork(network, other),
                "it is not the cluster's, and stays",
            )
            for other in observed.attached.get(network, ())
        ]
        steps.add(f"network {network} away", "", RemoveNetwork(network), cause, [*freed, *left])
    gone = [
        steps.add(
            f"remove {node}",
            node,
            RemoveContainer(container.name),
            cause,
            [f"disconnect {node} {network}" for network in observed.networks],
        )
        for node, container in observed.containers.items()
    ]
    for volume in observed.volumes:
        owner = _owner(observed, volume)
        needs = [f"remove {owner}"] if owner else gone
        steps.add(f"volume {volume} away", owner, RemoveVolume(volume), cause, needs)
    everything = list(steps.steps)
    # Last, so that a `down` that was cut short can still be found and finished, by whoever may.
    for generation in observed.generations:
        steps.add(f"volume {generation} away", "", RemoveVolume(generation), "nothing is left to be wanted", everything)
    for record in observed.records:
        steps.add(
            f"record {record.revision} away", "", RemoveVolume(record.volume), "nothing is left to describe", everything
        )
    return Plan(observed.cluster, f"remove cluster {observed.cluster}", tuple(steps.steps.values()))


def _owner(observed: Observed, volume: str) -> str:
    return next((n for n in observed.containers if volume.startswith(f"{observed.cluster}-{n}-")), "")


@dataclass(frozen=True)
class NodeAction:
    """What is to happen to a node: at most one of these, and why."""

    cause: str = ""
    creates: bool = False
    replaces: bool = False  #: the container that is there must go first
    empties: bool = False  #: so must its data
    starts: bool = False


def _node_action(spec: Spec, node: NodeSpec, observed: Observed) -> NodeAction:
    container = observed.containers.get(node.name)
    if node.bootstraps and observed.last_applied is None and _bootstrap_changed(spec, observed):
        # Whom a founder counts as voters is in its data from its first moment.
        cause = "it was to found another cluster, which was never complete"
        return NodeAction(cause, creates=True, replaces=container is not None, empties=True)
    if container is None:
        before = observed.spec is not None and observed.spec.node(node.name) is not None
        return NodeAction(
            "it is gone" if before and observed.converged else "there is no container of it", creates=True
        )
    if network_name(spec.cluster) not in observed.networks:
        return NodeAction("its network is gone", creates=True, replaces=True)
    if container.state == "created":
        return NodeAction("it was left half-made", creates=True, replaces=True)
    if network_name(spec.cluster) not in container.networks:  # a `down` that was cut short leaves that
        return NodeAction("it was taken out of the cluster's network", creates=True, replaces=True)
    if container.state in ("dead", "removing"):
        return NodeAction(f"its container is {container.state}", creates=True, replaces=True)
    if container.labels.get(labels.SPEC) != node_hash(spec, node, observed.authority):
        return NodeAction("it is not what the spec says now", creates=True, replaces=True)
    if container.state in ("exited", "paused"):
        return NodeAction("it is stopped" if container.state == "exited" else "it is paused", starts=True)
    return NodeAction()


def _bootstrap_changed(spec: Spec, observed: Observed) -> bool:
    """An attempt that was cut short told its bootstrap_nodes of others."""

    def told(it: Spec) -> dict[str, list[FileSpec]]:
        return {node.name: [f for f in node.files if f.bootstrap] for node in it.nodes if node.bootstraps}

    return any(record.spec and told(record.spec) != told(spec) for record in observed.records)


def _provide_network(steps: Steps, spec: Spec, observed: Observed) -> None:
    name = network_name(spec.cluster)
    if name not in observed.networks:
        about = {labels.CLUSTER: spec.cluster, labels.PROFILE: spec.profile}
        action = CreateNetwork(name, spec.subnet, spec.gateway, dynamic_range(spec.subnet), about)
        steps.add(f"network {name}", "", action, f"the nodes get fixed addresses in {spec.subnet}")
    own_container = observed.own_container
    if own_container and (name not in observed.networks or name not in own_container.networks):
        cause = "this minicluster runs in that container, and is to reach the nodes"
        steps.add(
            f"connect {own_container.name}", "", ConnectNetwork(name, own_container.name), cause, [f"network {name}"]
        )


def _wanted_volumes(spec: Spec) -> set[str]:
    return {volume for node in spec.nodes for volume in volumes(spec, node).values()}


def _provide_node(
    steps: Steps,
    spec: Spec,
    node: NodeSpec,
    observed: Observed,
    node_action: NodeAction,
    left: Sequence[str],
    after: Sequence[str] = (),
) -> None:
    name = node.name
    container = container_name(spec.cluster, name)
    about = {labels.CLUSTER: spec.cluster, labels.PROFILE: spec.profile, labels.ROLE: node.role, labels.NODE: name}
    # The engine looks for a container's network when it starts it, not when it creates it.
    network = f"network {network_name(spec.cluster)}"
    needs = [f"image {node.image}", *after]
    if node_action.creates:
        mounted = volumes(spec, node)
        own = {path: mounted[path] for path in node.volumes}
        if node_action.replaces:
            action = RemoveContainer(observed.containers[name].name)
            needs.append(steps.add(f"remove {name}", name, action, node_action.cause, [f"image {node.image}", *left]))
        for path in node.shared:
            if mounted[path] not in observed.volumes:
                common = CreateVolume(mounted[path], {labels.CLUSTER: spec.cluster, labels.PROFILE: spec.profile})
                cause = f"nodes have {path} in common"
                needs.append(steps.add(f"volume {mounted[path]}", "", common, cause))
        for path, volume in own.items():
            gone: list[str] = []
            if node_action.empties and volume in observed.volumes:
                emptied = RemoveVolume(volume)
                gone = [steps.add(f"volume {volume} away", name, emptied, node_action.cause, [f"remove {name}"])]
            if gone or volume not in observed.volumes:
                made = CreateVolume(volume, about)
                needs.append(steps.add(f"volume {volume}", name, made, f"{path} outlives the container", gone))
        config = ContainerConfig(
            name=container,
            image=spec.images[node.image].ref,
            hostname=name,
            network=network_name(spec.cluster),
            address=node.address,
            labels=about | {labels.SPEC: node_hash(spec, node, observed.authority)},
            entrypoint=node.entrypoint,
            command=node.command,
            env=node.env,
            volumes=mounted,
            tmpfs=node.tmpfs,
            ports={e.port: e.host_port for e in node.endpoints},
            bind_address=spec.bind_address,
            memory=node.memory,
            nested=node.nested,
            capabilities=node.capabilities,
            stop_timeout=node.stop_timeout,
            restart=spec.restart,
        )
        steps.add(f"create {name}", name, CreateContainer(config), node_action.cause, needs)
        files = tuple(file for file in node.files if not file.bootstrap or observed.last_applied is None)
        if files or node.certificates or node.authority:
            put = PutFiles(container, files, node.certificates, node.authority)
            steps.add(f"files {name}", name, put, "it is configured before it starts", [f"create {name}"])
        begins = [network, f"create {name}", f"files {name}", *ready_before(spec, node)]
        begins += _connect(steps, spec, node, observed, node_action)
        steps.add(f"start {name}", name, StartContainer(container), "it shall run", begins)
    elif any(record.spec and record.spec.restart != spec.restart for record in observed.records):
        update = UpdateContainer(container, spec.restart)
        needs.append(steps.add(f"update {name}", name, update, f"it shall restart by itself: {spec.restart}", left))
    if not node_action.creates:
        needs += _connect(steps, spec, node, observed, node_action)
    if node_action.starts:
        before = [network, *needs, *ready_before(spec, node)]
        steps.add(f"start {name}", name, StartContainer(container), node_action.cause, before)
    if node.ready and (node_action.creates or node_action.starts):
        ready = WaitReady(container, node.ready)
        steps.add(f"ready {name}", name, ready, "what follows needs it to serve", [f"start {name}"])


def _connect(steps: Steps, spec: Spec, node: NodeSpec, observed: Observed, node_action: NodeAction) -> list[str]:
    """Connects a node to the further networks that it lacks, and takes it out of those that are wanted no more.

    A new node is connected before it starts: when it starts again later, the engine gives it its networks then, too.
    """
    name, container = node.name, container_name(spec.cluster, node.name)
    there = frozenset() if node_action.creates else observed.containers[name].networks
    done = []
    for network in spec.networks:
        if network not in there:
            # NODE is a container's host name, which engines make a name on every network anyway. So it is not one
            # cluster's alone where two of them join a network; CLUSTER-NODE always is.
            action = ConnectNetwork(network, container, (name, container))
            cause = "it is to be reached by its name there"
            done.append(steps.add(f"connect {name} {network}", name, action, cause, [f"create {name}"]))
    former = {network for record in observed.records if record.spec for network in record.spec.networks}
    for network in sorted(former & there - {*spec.networks}):
        gone = DisconnectNetwork(network, container)
        done.append(steps.add(f"disconnect {name} {network}", name, gone, "the spec has that network no more"))
    return done


def ready_before(spec: Spec, node: NodeSpec) -> list[str]:
    """The steps after which the nodes that this one is to find serve."""
    return [
        f"{verb} {other.name}"
        for role in node.depends_on
        for other in spec.of_role(role)
        for verb in ("start", "ready")
    ]


def _join(steps: Steps, spec: Spec, observed: Observed, left: Sequence[str]) -> list[str]:
    """Makes members of the nodes that are none. Returns what is to be waited for."""
    joining = [n for n in spec.nodes if _joins(n, spec, observed)]
    initial_member = _initial_member(spec, observed)
    waits: list[str] = [f"{verb} {node.name}" for node in spec.nodes for verb in ("ready", "start")]
    waits += left
    if not (joining and initial_member):
        return waits
    values: dict[str, str | list[str]] = {
        "initial_member.name": initial_member.name,
        "initial_member.address": initial_member.address,
        "joining": [node.name for node in joining if node is not initial_member],
    }
    after = [f"ready {initial_member.name}", f"start {initial_member.name}"]
    for i, hook in enumerate(spec.init, 1):
        action = RunHook(container_name(spec.cluster, initial_member.name), tuple(fill(hook.run, values)), hook.capture)
        after = [steps.add(f"form {i}", initial_member.name, action, "the nodes shall be one cluster", after)]
    waits += after
    for node in joining:
        if node is initial_member:
            continue
        last = [f"ready {node.name}", f"start {node.name}", *after]
        for i, hook in enumerate(node.join, 1):
            on = _runs_on(hook, node, spec, initial_member)
            joined = RunHook(container_name(spec.cluster, on.name), tuple(fill(hook.run, values)), hook.capture)
            last = [steps.add(f"join {node.name} {i}", node.name, joined, "it is no member yet", last)]
        waits += last
    return waits


def _joins(node: NodeSpec, spec: Spec, observed: Observed) -> bool:
    """It is to be made a member. A node whose data are on a volume that is still there comes back as the one it was."""
    if not node.join or (node.bootstraps and observed.last_applied is None):
        return False
    if _is_new(node, spec, observed):
        return True
    if observed.members is not None:
        return node.name not in observed.members
    return observed.last_applied is None or observed.last_applied.node(node.name) is None


def _finish(steps: Steps, spec: Spec, observed: Observed, needs: Sequence[str]) -> None:
    """Waits until the cluster's own software counts every node."""
    initial_member = _initial_member(spec, observed)
    if spec.members and initial_member and (steps.steps or not _all_ready(spec, observed)):
        wait = wait_members(spec, initial_member, [node.name for node in spec.nodes])
        steps.add("members", "", wait, "done is when the cluster itself counts every node", needs)


def _is_new(node: NodeSpec, spec: Spec, observed: Observed) -> bool:
    """The node's data are gone, so what the cluster remembers under its name is another's."""
    if not node.volumes:
        return node.name not in observed.containers
    return any(volume_name(spec.cluster, node.name, path) not in observed.volumes for path in node.volumes)


def _all_ready(spec: Spec, observed: Observed) -> bool:
    members = observed.members or {}
    return all(node.name in members and members[node.name].ready for node in spec.nodes)


def _initial_member(spec: Spec, observed: Observed) -> NodeSpec | None:
    """The node that ``formed`` hooks run on and that others join: a member that is up, else the first of the role."""
    roles = [hook.on for hook in (*spec.init, *([spec.members] if spec.members else []))]
    candidates = spec.of_role(roles[0]) if roles else ()
    members = observed.members or {}
    kept = [n for n in candidates if n.name in observed.containers and not _is_new(n, spec, observed)]
    running = [n for n in kept if observed.containers[n.name].state == "running"]
    ready = [n for n in running if n.name in members and members[n.name].ready]
    return next(iter([*ready, *running, *kept, *candidates]), None)


def _runs_on(hook: HookSpec, node: NodeSpec, spec: Spec, initial_member: NodeSpec) -> NodeSpec:
    if hook.on == "node":
        return node
    return initial_member if initial_member.role == hook.on else spec.of_role(hook.on)[0]


def _remove_nodes(steps: Steps, spec: Spec, observed: Observed, leaving: list[str], force: bool) -> list[str]:
    """Takes nodes out one after the other, voters included: each change of a quorum must settle before the next."""
    cause = "the spec has it no more"
    last = [f"{step} {node.name}" for node in spec.nodes for step in ("ready", "start")]
    for name in leaving:
        container = observed.containers.get(name)
        node = _known(name, observed)
        member = (observed.members or {}).get(name)
        # One that is no member yet may be on its way to become one, where a change is undone that was adding it.
        for i, hook in enumerate(node.leave if node and observed.members is not None else (), 1):
            if hook.on == "node":
                on = container.name if container and container.state == "running" else ""
            else:
                on = _staying(hook.on, observed, spec)
            if on:
                # What the others do to let a voter go has to succeed: its vote must not outlive it.
                best_effort = force or hook.on == "node" or not (member and member.voter)
                action = RunHook(on, tuple(hook.run), best_effort=best_effort)
                last = [steps.add(f"leave {name} {i}", name, action, cause, last)]
        if container:
            last = [steps.add(f"remove {name}", name, RemoveContainer(container.name), cause, last)]
        for volume in observed.volumes:
            if volume.startswith(f"{observed.cluster}-{name}-"):
                steps.add(f"volume {volume} away", name, RemoveVolume(volume), cause, last)
    return last if leaving else []


def _known(name: str, observed: Observed) -> NodeSpec | None:
    specs = [record.spec for record in reversed(observed.records) if record.spec]
    return next((node for spec in specs if (node := spec.node(name))), None)


def _staying(role: str, observed: Observed, spec: Spec) -> str:
    """A container of a role that stays: one that the cluster counts as ready, one that runs, or one that is started."""
    members = observed.members or {}
    nodes = [n for n in spec.of_role(role) if n.name in observed.containers]

    def order(node: NodeSpec) -> tuple[bool, bool]:
        ready = node.name in members and members[node.name].ready
        return (not ready, observed.containers[node.name].state != "running")

    return container_name(spec.cluster, min(nodes, key=order).name) if nodes else ""


def _recorded(steps: Steps, spec: Spec, observed: Observed) -> Plan:
    """Puts the record around the steps: what shall be is written before anything is done, what was goes at the end."""
    unchanged = observed.spec == spec
    if unchanged and observed.converged and not steps.steps:
        return Plan(spec.cluster, f"cluster {spec.cluster} is up to date", ())
    before = Steps()
    outdated = {record.revision: record.volume for record in observed.records}

    def record(revision: int, spec_then: Spec | None, cause: str, needs: list[str]) -> list[str]:
        volume = f"{spec.cluster}-spec-{revision}"
        outdated[revision] = volume
        about = {labels.CLUSTER: spec.cluster, labels.PROFILE: spec.profile}
        return [before.add(f"record {revision}", "", Record(volume, revision, about, spec_then), cause, needs)]

    written: list[str] = []
    if not observed.records:
        written = record(0, None, "there is nothing yet: what is cut short goes back to that", [])
    current = max(outdated)
    if not unchanged:
        current += 1
        written = record(current, spec, "what shall be: a change that is cut short can be finished", written)
    for step in steps.steps.values():
        before.steps[step.id] = replace(step, needs=step.needs or tuple(written))
    everything = list(before.steps)
    for revision, volume in sorted(outdated.items()):
        if revision != current:
            before.add(f"record {revision} away", "", RemoveVolume(volume), "the change is complete", everything)
    kind = "create" if not observed else "change"
    sizes = {role: len(spec.of_role(role)) for role in spec.roles}
    counts = ", ".join(f"{count} {role}{'s' if count > 1 else ''}" for role, count in sizes.items())
    return Plan(spec.cluster, f"{kind} cluster {spec.cluster} ({spec.profile}): {counts}", tuple(before.steps.values()))
