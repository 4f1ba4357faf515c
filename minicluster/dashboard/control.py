"""What users do to nodes on the page: first what it costs, then the deed, by the same operations as the commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minicluster import discovery
from minicluster.errors import MiniclusterError, UsageError
from minicluster.model.fault import Fault
from minicluster.model.naming import count, listed, size
from minicluster.operations import faults, heal, lifecycle, up
from minicluster.operations.up_options import UpOptions
from minicluster.plan import faults as planning

if TYPE_CHECKING:
    from minicluster.dashboard.watch import Watch
    from minicluster.engine.protocol import Engine
    from minicluster.model.events import Event
    from minicluster.model.spec import Spec
    from minicluster.model.workload import Workload

#: Verb -> what the page's log says of it.
VERBS = {
    "kill": "killed",
    "pause": "paused",
    "unpause": "resumed",
    "start": "started",
    "partition": "cut off",
    "heal": "healed",
    "scale": "scaled",
}
_STOPS = ("kill", "pause")


@dataclass(frozen=True)
class Wish:
    """What a user asks for on the page."""

    cluster: str
    verb: str  #: one of :data:`VERBS`
    node: str = ""
    others: tuple[str, ...] = ()  #: of a partition: the nodes that it is cut off from
    role: str = ""  #: of scale
    count: int = 0  #: of scale
    fault: str = ""  #: of heal: its number

    @classmethod
    def parse(cls, data: Any) -> Wish:
        """A wish by what the page sends.

        Raises:
            UsageError: it is none.
        """
        if not isinstance(data, Mapping) or data.get("verb") not in VERBS:
            raise UsageError("not a change that the dashboard can make", "", f"It takes {listed(VERBS)}.")
        texts = {name: data.get(name, "") for name in ("cluster", "verb", "node", "role", "fault")}
        others, number = data.get("others", []), data.get("count", 0)
        if not all(isinstance(text, str) for text in texts.values()) or not isinstance(others, list):
            raise UsageError("not a change that the dashboard can make", "A field has another type.")
        if not all(isinstance(other, str) for other in others) or type(number) is not int or number < 0:
            raise UsageError("not a change that the dashboard can make", "A field has another type.")
        wish = cls(**texts, others=tuple(others), count=number)
        needed = {"scale": wish.role, "heal": wish.fault, "partition": wish.node and wish.others}
        if not wish.cluster or not needed.get(wish.verb, wish.node):
            raise UsageError("not a change that the dashboard can make", "A field is missing.")
        return wish


@dataclass(frozen=True)
class Cost:
    """What a wish costs, said before it is carried out."""

    text: str
    severe: bool = False  #: a quorum is lost by it


def cost(watch: Watch, wish: Wish) -> Cost:
    """What a wish costs.

    Raises:
        UsageError: it is not possible now.
        MiniclusterError: it cannot be done.
    """
    engine = watch.engine
    spec = discovery.find(engine, wish.cluster)
    if wish.verb == "scale":
        return Cost(_cost_of_scale(engine, spec, wish))
    if wish.verb == "heal":
        active = next((one for one in faults.Target(engine, spec).active() if one.id == wish.fault), None)
        if active is None:
            raise UsageError(f"cluster {spec.cluster} has no fault {wish.fault!r}", "It has ended.")
        return Cost(f"Ends fault {active.id}: {active.fault.text}.")
    if spec.node(wish.node) is None:
        raise UsageError(f"cluster {spec.cluster} has no node {wish.node!r}")
    if wish.verb in ("start", "unpause"):
        return Cost(f"{'Starts' if wish.verb == 'start' else 'Resumes'} {wish.node}.")
    target = faults.Target(engine, spec)
    if wish.verb == "partition":
        wanted = _partition(spec, wish)
        faults.refuse(target, wanted)
        text, severe = faults.cost(target, wanted)
    else:
        down = Fault("kill", (wish.node,), f"{wish.verb} {wish.node}")
        faults.refuse(target, down)
        text, severe = planning.cost(down, target.active(), target.members)
        text = text.replace(" until healed", "")  # it is no fault that could be healed
    said = [f"{text[0].upper()}{text[1:]}." if text else "No quorum depends on it."]
    if spec.members is not None and target.members is None:
        said = ["The members do not answer: what it does to a quorum is not known."]
    followed = watch.followed.get(wish.cluster)
    rows = followed.seen.workload if followed and followed.seen else ()
    if wish.verb in _STOPS:
        said += _on_node(rows or (), wish.node)
        said.append("The engine does not restart it." if wish.verb == "kill" else "All its processes stand still.")
    return Cost(" ".join(said), severe)


def _on_node(rows: tuple[Workload, ...], node: str) -> list[str]:
    """What runs on a node: what has a state does, numbers of keys have none."""
    names = [row.name for row in rows if row.node == node and row.state]
    return [f"Runs {listed(names)}."] if names else []


def _partition(spec: Spec, wish: Wish) -> Fault:
    for other in wish.others:
        if spec.node(other) is None:
            raise UsageError(f"cluster {spec.cluster} has no node {other!r}")
    return planning.partition([[wish.node], list(wish.others)])


def _cost_of_scale(engine: Engine, spec: Spec, wish: Wish) -> str:
    nodes = spec.of_role(wish.role)
    if wish.role not in spec.roles:
        raise UsageError(f"cluster {spec.cluster} has no role {wish.role!r}")
    if wish.count == len(nodes):
        raise UsageError(f"role {wish.role} has {count(wish.count, 'node')} already")
    planned = up.plan(engine, spec.cluster, _options(wish))
    leaving, added = nodes[wish.count :], planned.spec.of_role(wish.role)[len(nodes) :]
    if leaving:
        names = listed(node.name for node in leaving)
        said = f"Removes {names} with all data on {'it' if len(leaving) == 1 else 'them'}."
    else:
        memory = sum(node.footprint for node in added)
        said = f"Adds {listed(node.name for node in added)}{f', about {size(memory)} of memory' if memory else ''}."
    mentioned = {node.name for node in (*leaving, *added)}
    started = [
        step.node for step in planned.plan.steps if step.kind == "start-container" and step.node not in mentioned
    ]
    return f"{said} Starts {listed(dict.fromkeys(started))} as well." if started else said


def _options(wish: Wish) -> UpOptions:
    return UpOptions(name=wish.cluster, size={wish.role: wish.count})


def carry_out(watch: Watch, wish: Wish) -> str:
    """Does it, and returns what was done, for people. It takes as long as the command does.

    Raises:
        MiniclusterError: it failed.
    """
    engine, notes = watch.engine, []

    def listen(event: Event) -> None:
        if event.kind == "note":
            notes.append(event.text)

    spec = discovery.find(engine, wish.cluster)
    if wish.verb == "scale":
        up.up(engine, wish.cluster, _options(wish), listen)
        done = f"{wish.role}: {count(wish.count, 'node')}"
    elif wish.verb == "heal":
        heal.heal(engine, spec, [wish.fault])
        done = f"fault {wish.fault} healed"
    elif wish.verb == "partition":
        faults.apply(engine, spec, _partition(spec, wish), listen)
        done = f"{wish.node} cut off from {listed(wish.others)}"
    else:
        lifecycle.operate(engine, spec, wish.verb, [wish.node], listener=listen)
        done = f"{wish.node} {VERBS[wish.verb]}"
    return ". ".join([done, *notes])


def told(error: MiniclusterError) -> str:
    """An error as one text."""
    return " ".join(part for part in (f"{error.what}.", error.why, error.fix) if part)
