"""A plan as a table and as JSON: each step with its number, its action, its reason and the steps it waits for."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from minicluster.cli.options import Output
from minicluster.cli.output import columns, on_terminal, plain_data, print_json
from minicluster.model import labels
from minicluster.model.naming import count
from minicluster.model.redact import Redactor, readable_words
from minicluster.plan import steps as m

if TYPE_CHECKING:
    from minicluster.plan.steps import Action, Plan, Step

#: The actions whose phrase is a verb and the name of their object.
_VERBS: dict[type[Action], str] = {
    m.CreateVolume: "create volume",
    m.StartContainer: "start",
    m.StopContainer: "stop",
    m.KillContainer: "kill",
    m.PauseContainer: "pause",
    m.RemoveContainer: "remove container",
    m.RemoveVolume: "remove volume",
    m.RemoveNetwork: "remove network",
}

_MOST_RUNS = 8  # runs of numbers in a cell of AFTER

HEAD = ("#", "WHAT", "WHY", "AFTER")


def what(action: Action) -> str:
    """A step's action and its object, as a phrase."""
    match action:
        case m.ProvideImage(image, hosts):
            on = f" on {image.overlay_on}" if image.overlay_on else ""
            given = f", if it is missing, and copy it to {', '.join(hosts)}" if hosts else ""
            return f"{'build' if image.build else 'pull'} image {image.ref}{on}{given}"
        case m.Record(volume, spec=spec):
            return f"save {'the spec' if spec else 'the empty starting state'} in volume {volume}"
        case m.CreateNetwork(name, subnet):
            return f"create network {name} ({subnet})"
        case m.ConnectNetwork(network, container, aliases):
            return " ".join(
                ["connect", container, "to network", network, *(["as", ", ".join(aliases)] if aliases else [])]
            )
        case m.DisconnectNetwork(network, container):
            return f"disconnect {container} from network {network}"
        case m.CreateContainer(config):
            host = config.labels.get(labels.HOST)
            return f"create container {config.name} ({config.address}){f' on {host}' if host else ''}"
        case m.PutFiles(container, files, certificates, authority):
            parts = [count(len(files), "file")] if files else []
            parts += [count(len(certificates), "certificate")] if certificates else []
            parts += ["the authority"] if authority else []
            return f"write {', '.join(parts)} into {container}"
        case m.WaitReady(container, command):
            return f"wait for {container}: {_shortened(command)}"
        case m.RunHook(container, command):
            return f"run in {container}: {_shortened(command)}"
        case m.SaveImage(ref):
            return f"save image {ref}"
        case m.CopyImage(ref, container, path):
            return f"copy image {ref} to {container}:{path}"
        case m.RemoveFile(container, path):
            return f"remove {container}:{path}"
        case m.WaitMembers(container, _command, names):
            return f"wait for {count(len(names), 'member')}, as seen by {container}"
        case m.ForgetHost(host):
            return f"remove host {host} from the swarm"
        case m.UpdateContainer(name, restart):
            return f"set restart policy of {name} to {restart}"
        case (
            m.CreateVolume(name)
            | m.StartContainer(name)
            | m.StopContainer(name)
            | m.KillContainer(name)
            | m.PauseContainer(name)
            | m.RemoveContainer(name)
            | m.RemoveVolume(name)
            | m.RemoveNetwork(name)
        ):
            return f"{_VERBS[type(action)]} {name}"


def _shortened(command: tuple[str, ...], limit: int = 48) -> str:
    line = " ".join(" ".join(readable_words(command)).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def rows(plan: Plan) -> list[tuple[str, str, str, str]]:
    """One row per step; AFTER lists the steps that it waits for."""
    number = {step.id: i for i, step in enumerate(plan.steps, 1)}
    return [
        (str(number[s.id]), what(s.action), s.cause, _ranges([number[n] for n in s.needs if n in number]))
        for s in plan.steps
    ]


def _ranges(numbers: list[int]) -> str:
    """Numbers with runs abbreviated: the last steps of a plan need nearly all others.

    >>> _ranges([1, 2, 3, 7])
    '1-3,7'
    """
    runs: list[list[int]] = []
    for n in sorted(numbers):
        if runs and runs[-1][-1] == n - 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    parts = [str(r[0]) if len(r) == 1 else f"{r[0]}{',' if len(r) == 2 else '-'}{r[-1]}" for r in runs]
    if len(parts) > _MOST_RUNS:
        return f"{parts[0]},…,{parts[-1]} ({len(numbers)} steps)"
    return ",".join(parts)


def show_plan(plan: Plan, output: Output) -> None:
    """Answers ``--dry-run``."""
    if output is Output.json:
        print_json(plan_data(plan))
    else:
        print_plan(plan)


def show_plans(plans: Sequence[Plan], output: Output) -> None:
    """Answers ``--dry-run`` of a command that carries out several plans; as JSON, an array."""
    if output is Output.json:
        print_json([plan_data(plan) for plan in plans])
    else:
        for plan in plans:
            print_plan(plan)


def print_plan(plan: Plan) -> None:
    """The plan as a table: wrapped to the window on a terminal, one line per step elsewhere."""
    print(plan.headline)
    if not plan:
        return
    table = rows(plan)
    text = columns(table, HEAD)
    if on_terminal(sys.stdout) and max(map(len, text.splitlines())) > shutil.get_terminal_size().columns:
        _print_wrapped(table)
    else:
        print(text)


def _print_wrapped(table: list[tuple[str, str, str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(*HEAD, box=None, padding=(0, 2, 0, 0), pad_edge=False)
    shown.columns[0].no_wrap = True
    shown.columns[1].overflow = "fold"
    shown.columns[3].max_width = 12
    shown.columns[1].ratio, shown.columns[2].ratio = 3, 2
    for row in table:
        shown.add_row(*map(Text, row))
    Console(highlight=False).print(shown)


def plan_data(plan: Plan) -> dict[str, Any]:
    """The plan as documented in docs/cli-output.md."""
    return {
        "cluster": plan.cluster,
        "headline": plan.headline,
        "steps": [_step_data(step) for step in plan.steps],
    }


def _step_data(step: Step) -> dict[str, Any]:
    return {
        "id": step.id,
        "node": step.node,
        "action": step.kind,
        "cause": step.cause,
        "needs": list(step.needs),
        "detail": _detail(step.action),
    }


def _detail(action: Action) -> dict[str, Any]:
    """The fields of an action, without the long ones: a record's spec, the contents of files."""
    data: dict[str, Any] = plain_data(action)
    if isinstance(action, m.CreateContainer):
        if not data["config"]["local_ports"]:
            del data["config"]["local_ports"]
        data["config"] = {**Redactor().data(data["config"]), "command": readable_words(action.config.command)}
        data["config"]["entrypoint"] = readable_words(action.config.entrypoint)
    if isinstance(action, (m.RunHook, m.WaitReady, m.WaitMembers)):
        data["command"] = readable_words(action.command)
    if isinstance(action, m.ProvideImage) and not action.hosts:
        del data["hosts"]
    if isinstance(action, m.Record):
        del data["spec"]
    if isinstance(action, m.PutFiles):
        data["files"] = [
            {"path": f.path, "mode": f"{f.mode:04o}", "bytes": len(f.content.encode())} for f in action.files
        ]
    return data
