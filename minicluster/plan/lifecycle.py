"""Verbs on nodes that are there: stop, start, restart, pause, unpause, kill -> the steps of each. Pure.

What a cluster shall be does not change by these, so nothing is recorded: `up` brings back what a verb took away.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from minicluster.errors import MiniclusterError, NodeFailed
from minicluster.model.membership import Quorum
from minicluster.model.naming import container_name
from minicluster.model.spec import NodeSpec, Spec
from minicluster.plan.observed import Observed
from minicluster.plan.reconcile import Steps, ready_before, wait_members
from minicluster.plan.steps import KillContainer, PauseContainer, Plan, StartContainer, StopContainer, WaitReady

#: Verb -> the states that a node may be in for it, and the word for what it then is.
_APPLIES = {
    "stop": (("running", "paused", "restarting"), "stopped"),
    "start": (("exited", "paused"), "running"),
    "restart": (("running", "paused", "exited", "restarting"), "running"),
    "pause": (("running",), "paused"),
    "unpause": (("paused",), "running"),
    "kill": (("running", "paused", "restarting"), "killed"),
}


def stop(spec: Spec, observed: Observed, names: Sequence[str]) -> Plan:
    """Stops nodes, all at once."""
    steps = Steps()
    for node in _nodes("stop", spec, observed, names):
        _stop(steps, spec, observed, node, "it was asked for")
    return _plan("stop", spec, steps)


def start(spec: Spec, observed: Observed, names: Sequence[str]) -> Plan:
    """Starts nodes that do not run, all at once, and waits for them where enough voters run then to agree."""
    steps = Steps()
    nodes = _nodes("start", spec, observed, names)
    for node in nodes:
        _start(steps, spec, node, "it was asked for", [])
    _wait(steps, spec, observed, nodes)
    return _plan("start", spec, steps)


def restart(spec: Spec, observed: Observed, names: Sequence[str]) -> Plan:
    """Stops and starts nodes, all at once."""
    steps = Steps()
    nodes = _nodes("restart", spec, observed, names)
    for node in nodes:
        _start(steps, spec, node, "it was asked for", _stop(steps, spec, observed, node, "it shall start anew"))
    _wait(steps, spec, observed, nodes)
    return _plan("restart", spec, steps)


def roll(spec: Spec, observed: Observed, names: Sequence[str], *, force: bool = False) -> Plan:
    """Stops and starts one node after the other, each when the one before is back and has caught up; the leader last.

    Raises:
        MiniclusterError: the cluster could not spare one of these nodes, and there is no ``force``.
    """
    steps = Steps()
    nodes = _nodes("restart", spec, observed, names)
    members = observed.members or {}
    quorums = Quorum.by_role(members.values())
    quorum = Quorum.of(members.values())
    if spec.members and force and (quorum is None or quorum.lost):
        return restart(spec, observed, names)  # there is nothing to keep up, and nobody could say that a node is back
    if spec.members and not force:
        if quorum is None:
            raise MiniclusterError(
                f"a rolling restart of cluster {spec.cluster} cannot begin",
                "Its own software does not say who its members are: it has no quorum.",
                f"Mend it first: `minicluster up --name {spec.cluster}`. `--force` goes on all the same.",
            )
        away = {n.name for n in spec.nodes if n.name not in members or not members[n.name].ready}
        # One that is away already is no further loss.
        costly = [n.name for n in nodes if n.name not in away and n.name in members and members[n.name].voter]
        for name in costly:
            among = quorums[members[name].role]
            if among.voters > 1 and among.survives < 1:
                raise MiniclusterError(
                    f"restarting {name} would lose the quorum of cluster {spec.cluster}",
                    f"{among.healthy} of {among.voters} voters are healthy, and {among.needed} are needed.",
                    f"Mend it first: `minicluster up --name {spec.cluster}`. `--force` goes on all the same.",
                )

    def order(node: NodeSpec) -> tuple[bool, bool]:
        member = members.get(node.name)
        return (bool(member and member.ready), bool(member and member.leader))

    last: list[str] = []
    done: list[NodeSpec] = []
    for node in sorted(nodes, key=order):
        down = _stop(steps, spec, observed, node, "its turn has come", last)
        _start(steps, spec, node, "its turn has come", down or last)
        done.append(node)
        last = [f"ready {node.name}", f"start {node.name}"]
        if spec.members:
            there = {name for name, member in members.items() if member.ready} | {n.name for n in done}
            asked = node if node.role == spec.members.on else _someone(spec, observed, there)
            if asked:
                cause = "the next one goes only when this one is back"
                wait = wait_members(spec, asked, there)
                last = [steps.add(f"settled {node.name}", node.name, wait, cause, last)]
    return _plan("restart", spec, steps, " one by one")


def pause(spec: Spec, observed: Observed, names: Sequence[str]) -> Plan:
    """Freezes every process of nodes."""
    return _each("pause", spec, observed, names, PauseContainer)


def unpause(spec: Spec, observed: Observed, names: Sequence[str]) -> Plan:
    """Lets paused nodes go on."""
    return _each("unpause", spec, observed, names, StartContainer)


def kill(spec: Spec, observed: Observed, names: Sequence[str]) -> Plan:
    """Ends nodes at once (SIGKILL), as a crash would."""
    return _each("kill", spec, observed, names, KillContainer)


def _each(
    verb: str,
    spec: Spec,
    observed: Observed,
    names: Sequence[str],
    action: Callable[[str], PauseContainer | StartContainer | KillContainer],
) -> Plan:
    steps = Steps()
    for node in _nodes(verb, spec, observed, names):
        steps.add(f"{verb} {node.name}", node.name, action(container_name(spec.cluster, node.name)), "it was asked for")
    return _plan(verb, spec, steps)


def aftermath(verb: str, spec: Spec, observed: Observed, plan: Plan) -> str:
    """What a user should know once a verb is carried out: that some nodes run, and too few voters among them."""
    touched = {step.node for step in plan.steps if step.node}
    running = {name for name, c in observed.containers.items() if c.state == "running"}
    running = running | touched if verb in ("start", "restart", "unpause") else running - touched
    return without_quorum(spec, running) if running and plan else ""


def without_quorum(spec: Spec, running: Collection[str]) -> str:
    """Says what a cluster cannot do when only these nodes run; "" where they are enough."""
    voters = spec.of_role(spec.members.on) if spec.members else ()
    there = sum(node.name in running for node in voters)
    needed = len(voters) // 2 + 1
    if not voters or there >= needed:
        return ""
    return f"{there} of {len(voters)} nodes of role {voters[0].role} run: without {needed} there is no quorum"


def _nodes(verb: str, spec: Spec, observed: Observed, names: Sequence[str]) -> list[NodeSpec]:
    """The nodes that a verb is for: of those named each must be fit for it; without names all that are.

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
        elif state in ("missing", "created", "dead", "removing") and (names or verb in ("start", "restart")):
            why = {"missing": "Something else than minicluster removed its container.", "created": "It is half-made."}
            raise NodeFailed(
                f"{node.name} is {state}",
                why.get(state, "The engine could not remove its container."),
                f"`minicluster up --name {spec.cluster}` makes it anew.",
            )
        elif names and verb in ("pause", "unpause", "kill") and state != after:
            raise NodeFailed(f"cannot {verb} {node.name}", f"It is {'stopped' if state == 'exited' else state}.")
    return nodes


def _stop(
    steps: Steps, spec: Spec, observed: Observed, node: NodeSpec, cause: str, needs: Sequence[str] = ()
) -> list[str]:
    container = container_name(spec.cluster, node.name)
    state = observed.containers[node.name].state
    if state == "exited":
        return list(needs)
    if state == "paused":  # a frozen process does not hear that it is to end
        needs = [steps.add(f"unpause {node.name}", node.name, StartContainer(container), "it is paused", needs)]
    return [steps.add(f"stop {node.name}", node.name, StopContainer(container), cause, needs)]


def _start(steps: Steps, spec: Spec, node: NodeSpec, cause: str, needs: Sequence[str]) -> None:
    container = container_name(spec.cluster, node.name)
    needs = [*needs, *ready_before(spec, node)]
    started = steps.add(f"start {node.name}", node.name, StartContainer(container), cause, needs)
    if node.ready:
        wait = WaitReady(container, node.ready)
        steps.add(f"ready {node.name}", node.name, wait, "done is when it serves", [started])


def _wait(steps: Steps, spec: Spec, observed: Observed, nodes: Sequence[NodeSpec]) -> None:
    """Waits for the cluster's own word on nodes that start; not where too few voters run for it to have one."""
    names = {node.name for node in nodes}
    running = {name for name, c in observed.containers.items() if c.state == "running"} | names
    if not nodes or not spec.members:
        return
    if without_quorum(spec, running):
        # Their probes may never pass, through no fault of theirs.
        for node in nodes:
            steps.steps.pop(f"ready {node.name}", None)
        for step in steps.steps.values():
            kept = tuple(need for need in step.needs if need in steps.steps)
            steps.steps[step.id] = replace(step, needs=kept)
        return
    asked = _someone(spec, observed, running)
    assert asked  # enough voters run
    steps.add(
        "members",
        "",
        wait_members(spec, asked, running),
        "done is when the cluster itself counts every node",
        list(steps.steps),
    )


def _someone(spec: Spec, observed: Observed, running: Collection[str]) -> NodeSpec | None:
    """A node that can be asked for the members."""
    assert spec.members
    return next((n for n in spec.of_role(spec.members.on) if n.name in running), None)


def _plan(verb: str, spec: Spec, steps: Steps, how: str = "") -> Plan:
    names = list(dict.fromkeys(step.node for step in steps.steps.values() if step.node))
    what = f"{verb} {', '.join(names)} of cluster {spec.cluster}{how}" if names else f"nothing to {verb}"
    return Plan(spec.cluster, what, tuple(steps.steps.values()))
