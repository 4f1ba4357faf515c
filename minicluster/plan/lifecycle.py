"""Plans of the verbs on existing nodes: stop, start, restart, pause, unpause, kill. Pure.

They do not change the desired state of a cluster, so nothing is recorded: `up` starts again what a verb has stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from minicluster.errors import NodeFailed
from minicluster.model.membership import Member, Quorum
from minicluster.model.naming import container_name, listed
from minicluster.plan.builder import Steps, dependencies_ready, wait_members
from minicluster.plan.steps import KillContainer, PauseContainer, Plan, StartContainer, StopContainer, WaitReady

if TYPE_CHECKING:
    from minicluster.model.spec import NodeSpec, Spec
    from minicluster.plan.observed import Observed

#: Verb -> the states that a node may be in for it, and the word for its state afterwards.
_APPLIES = {
    "stop": (("running", "paused", "restarting"), "stopped"),
    "start": (("exited", "paused"), "running"),
    "restart": (("running", "paused", "exited", "restarting"), "running"),
    "pause": (("running",), "paused"),
    "unpause": (("paused",), "running"),
    "kill": (("running", "paused", "restarting"), "killed"),
}
_CAUSE = "requested"


def stop(spec: Spec, observed: Observed, names: Sequence[str]) -> Plan:
    """Stops nodes, all at once."""
    steps = Steps()
    for node in nodes_for("stop", spec, observed, names):
        stop_node(steps, spec, observed, node, _CAUSE)
    return plan_of("stop", spec, steps)


def start(spec: Spec, observed: Observed, names: Sequence[str]) -> Plan:
    """Starts nodes that do not run, all at once, and waits for them if enough voters run then."""
    return _started("start", spec, observed, names)


def restart(spec: Spec, observed: Observed, names: Sequence[str]) -> Plan:
    """Stops and starts nodes, all at once."""
    return _started("restart", spec, observed, names)


def _started(verb: str, spec: Spec, observed: Observed, names: Sequence[str]) -> Plan:
    """Starts nodes; of a restart, each after its stop."""
    steps = Steps()
    nodes = nodes_for(verb, spec, observed, names)
    unready = _unready_roles(spec, observed, nodes)
    for node in nodes:
        stopped = stop_node(steps, spec, observed, node, _CAUSE) if verb == "restart" else []
        start_node(steps, spec, node, _CAUSE, stopped, waits=node.role not in unready)
    _wait(steps, spec, observed, nodes, unready)
    return plan_of(verb, spec, steps)


def pause(spec: Spec, observed: Observed, names: Sequence[str]) -> Plan:
    """Freezes all processes of nodes."""
    return _each("pause", spec, observed, names, PauseContainer)


def unpause(spec: Spec, observed: Observed, names: Sequence[str]) -> Plan:
    """Resumes paused nodes."""
    return _each("unpause", spec, observed, names, StartContainer)


def kill(spec: Spec, observed: Observed, names: Sequence[str]) -> Plan:
    """Kills nodes (SIGKILL), as a crash would."""
    return _each("kill", spec, observed, names, KillContainer)


def _each(
    verb: str,
    spec: Spec,
    observed: Observed,
    names: Sequence[str],
    action: Callable[[str], PauseContainer | StartContainer | KillContainer],
) -> Plan:
    steps = Steps()
    for node in nodes_for(verb, spec, observed, names):
        steps.add(f"{verb} {node.name}", node.name, action(container_name(spec.cluster, node.name)), _CAUSE)
    return plan_of(verb, spec, steps)


# Quorums


def depends_on_voters(verb: str, spec: Spec, observed: Observed, names: Sequence[str]) -> bool:
    """Whether a verb needs the voters: afterwards some nodes run, and of some role fewer than a quorum of its nodes."""
    touched = [node.name for node in spec.nodes if not names or node.name in names]
    running = _running_after(verb, observed, touched)
    if spec.members is None or not running:
        return False
    as_if = Quorum.if_running([Member(node.name, False, voter=True) for node in spec.nodes], running)
    return any(quorum.lost for quorum in as_if.values())


def aftermath(verb: str, spec: Spec, observed: Observed, plan: Plan) -> str:
    """What a user should know once a verb is carried out; "" if there is nothing to say."""
    touched = [step.node for step in plan.steps if step.node]
    running = _running_after(verb, observed, touched)
    if not plan or not running or not spec.members:
        return ""
    for role, quorum in _quorums(spec, observed, running).items():
        count = f"{quorum.healthy} of {quorum.voters} {role} nodes running"
        if quorum.lost and observed.members is not None:
            return f"Warning: quorum lost: {count}, {quorum.needed} needed"
        if quorum.lost and verb in ("start", "restart"):
            return f"Not waiting for the cluster: {count}, a quorum needs {quorum.needed}"
    return ""


def _running_after(verb: str, observed: Observed, touched: Collection[str]) -> frozenset[str]:
    there = observed.containers.keys() & {*touched}
    return observed.running | there if verb in ("start", "restart", "unpause") else observed.running - there


def _quorums(spec: Spec, observed: Observed, running: Collection[str]) -> dict[str, Quorum]:
    """The quorums if only these nodes run.

    If no node reports the voters, those that could are counted as if all of them did. That is good enough to
    decide what not to wait for, and no ground for a warning or a refusal.
    """
    if observed.members is not None:
        return Quorum.if_running(observed.members.values(), running)
    candidates = spec.of_role(spec.members.on) if spec.members else ()
    return Quorum.if_running([Member(node.name, False, voter=True) for node in candidates], running)


def _unready_roles(spec: Spec, observed: Observed, starting: Sequence[NodeSpec]) -> set[str]:
    """The roles whose nodes cannot get ready by starting these: too few voters run, of theirs or of one they depend on.

    A wait for them would end in a time-out.
    """
    running = observed.running | {node.name for node in starting}
    unready = {role for role, quorum in _quorums(spec, observed, running).items() if quorum.lost}
    for node in spec.nodes:  # a role depends on roles before it
        if unready & {*node.depends_on}:
            unready.add(node.role)
    return {*spec.roles} if spec.members and spec.members.on in unready else unready


# Steps


def nodes_for(verb: str, spec: Spec, observed: Observed, names: Sequence[str]) -> list[NodeSpec]:
    """The nodes that a verb applies to: of those named each must be in a state for it; without names all that are.

    Raises:
        NodeFailed: a named node is missing, or not in a state for the verb.
    """
    states, after = _APPLIES[verb]
    nodes = []
    for node in spec.nodes:
        container = observed.containers.get(node.name)
        state = container.state if container else "missing"
        if names and node.name not in names:
            continue
        if state in states:
            nodes.append(node)
        elif state == "missing" and node.host in observed.gone:
            if names:
                raise NodeFailed(
                    f"cannot {verb} {node.name}: host {node.host} does not answer",
                    observed.gone[node.host],
                    f"Start its engine; or `minicluster up --name {spec.cluster}` puts the node on another host.",
                )
        elif state in ("missing", "created", "dead", "removing") and (names or verb in ("start", "restart")):
            why = {
                "missing": "Its container was removed, not by minicluster.",
                "created": "Its creation was interrupted.",
            }
            raise NodeFailed(
                f"{node.name} is {state}",
                why.get(state, "The engine could not remove its container."),
                f"`minicluster up --name {spec.cluster}` recreates it.",
            )
        elif names and verb in ("pause", "unpause", "kill") and state != after:
            fix = f"{verb} applies to nodes that are {' or '.join(states)}: see `minicluster status {spec.cluster}`."
            raise NodeFailed(f"cannot {verb} {node.name}", f"It is {'stopped' if state == 'exited' else state}.", fix)
    return nodes


def stop_node(
    steps: Steps, spec: Spec, observed: Observed, node: NodeSpec, cause: str, needs: Sequence[str] = ()
) -> list[str]:
    """Adds the steps that stop a node; returns the ids to wait for."""
    container = container_name(spec.cluster, node.name)
    state = observed.containers[node.name].state
    if state == "exited":
        return list(needs)
    if state == "paused":
        why = "a paused process cannot stop"
        needs = [steps.add(f"unpause {node.name}", node.name, StartContainer(container), why, needs)]
    return [steps.add(f"stop {node.name}", node.name, StopContainer(container, node.stop_timeout), cause, needs)]


def start_node(
    steps: Steps, spec: Spec, node: NodeSpec, cause: str, needs: Sequence[str], *, waits: bool = True
) -> None:
    """Adds the steps that start a node and wait for its probe."""
    container = container_name(spec.cluster, node.name)
    before = dependencies_ready(spec, node)
    started = steps.add(f"start {node.name}", node.name, StartContainer(container), cause, needs, if_planned=before)
    if node.ready and waits:
        wait = WaitReady(container, node.ready)
        steps.add(f"ready {node.name}", node.name, wait, "wait until the node is ready", [started])


def _wait(steps: Steps, spec: Spec, observed: Observed, nodes: Sequence[NodeSpec], unready: Collection[str]) -> None:
    """Waits until the cluster counts all running nodes as ready members, except those of roles that cannot be."""
    running = observed.running | {node.name for node in nodes}
    names = [node.name for node in spec.nodes if node.name in running and node.role not in unready]
    if nodes and spec.members and (asked := any_node(spec, names)):
        wait = wait_members(spec, asked, names)
        steps.add("members", "", wait, "wait until every running node is a ready member", steps.ids)


def any_node(spec: Spec, running: Collection[str]) -> NodeSpec | None:
    """A node that can be asked for the members."""
    assert spec.members
    return next((n for n in spec.of_role(spec.members.on) if n.name in running), None)


def plan_of(verb: str, spec: Spec, steps: Steps, how: str = "") -> Plan:
    """The plan with these steps, with a headline that names the nodes."""
    names = steps.nodes
    what = f"{verb} {listed(names)} of cluster {spec.cluster}{how}" if names else f"nothing to {verb}"
    return steps.plan(spec.cluster, what)
