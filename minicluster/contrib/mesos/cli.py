"""``minicluster mesos state|ps|logs|install|update|uninstall``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minicluster.cli import complete
from minicluster.cli.help import Command, Group
from minicluster.cli.options import ClusterOption, Output, OutputOption, QuietOption, check_timeout
from minicluster.cli.output import columns, paint, print_json
from minicluster.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from minicluster.contrib.mesos.marathon import Definition, Deployment, Marathon

app = typer.Typer(
    cls=Group,
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    help="Mesos: state, tasks, and applications on Marathon.",
)

FileArgument = Annotated[
    str, typer.Argument(metavar="FILE|-", help="Marathon JSON of an application or group; - reads standard input.")
]
WaitOption = Annotated[bool, typer.Option("--no-wait", help="Do not wait for the deployment to finish.")]
PatienceOption = Annotated[
    float,
    typer.Option("--timeout", metavar="S", help="Maximum time to wait for the deployment, in seconds (default: 300)."),
]
ForcedOption = Annotated[bool, typer.Option("--force", help="Cancel a deployment that is in progress.")]


@app.command(cls=Command)
def state(
    cluster: ClusterOption = None,
    agent: Annotated[
        str | None,
        typer.Option(
            "--agent", metavar="NODE", help="Print the state of this agent instead.", autocompletion=complete.nodes
        ),
    ] = None,
) -> None:
    """Print the leading master's state as JSON."""
    from minicluster.cluster import Cluster
    from minicluster.contrib.mesos import reach

    opened = Cluster.open(cluster)
    mesos = reach.mesos(opened)
    print_json(mesos.agent_state(reach.agent(opened, agent)) if agent else mesos.state())


@app.command(cls=Command)
def ps(
    cluster: ClusterOption = None,
    all_: Annotated[bool, typer.Option("--all", help="Include tasks that have ended.")] = False,
    output: OutputOption = Output.text,
) -> None:
    """List tasks: framework, task, state, port."""
    from minicluster.cluster import Cluster
    from minicluster.contrib.mesos import reach

    tasks = reach.mesos(Cluster.open(cluster)).tasks(ended=all_)
    if output is Output.json:
        print_json(tasks)
    elif tasks:
        rows = [(t.framework, t.id, t.state, ",".join(map(str, t.ports)) or "-") for t in tasks]
        print(columns(rows, ("FRAMEWORK", "TASK", "STATE", "PORT")))
    else:
        print("No tasks.", file=sys.stderr)


@app.command(cls=Command)
def logs(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task ID or part of one.")],
    cluster: ClusterOption = None,
    stderr: Annotated[bool, typer.Option("--stderr", help="Print standard error instead.")] = False,
) -> None:
    """Print a task's standard output."""
    from minicluster.cluster import Cluster
    from minicluster.contrib.mesos import reach

    _, content = reach.mesos(Cluster.open(cluster)).log(task, "stderr" if stderr else "stdout")
    for chunk in content:
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


@app.command(cls=Command)
def install(
    file: FileArgument,
    cluster: ClusterOption = None,
    no_wait: WaitOption = False,
    timeout: PatienceOption = 300.0,
    output: OutputOption = Output.text,
    quiet: QuietOption = False,
) -> None:
    """Run an application or group on Marathon.

    Waits until it is deployed. Variables of 'minicluster env', such as ${MINICLUSTER_MASTER_IP}, are expanded in FILE.
    """
    _deploy("Installed", lambda m, it: m.install(it), file, cluster, no_wait, timeout, output, quiet)


@app.command(cls=Command)
def update(
    file: FileArgument,
    cluster: ClusterOption = None,
    force: ForcedOption = False,
    no_wait: WaitOption = False,
    timeout: PatienceOption = 300.0,
    output: OutputOption = Output.text,
    quiet: QuietOption = False,
) -> None:
    """Update an application or group on Marathon.

    Creates it if it does not exist. Waits until the change is deployed.
    """
    _deploy("Updated", lambda m, it: m.update(it, force=force), file, cluster, no_wait, timeout, output, quiet)


@app.command(cls=Command)
def uninstall(
    file: FileArgument,
    cluster: ClusterOption = None,
    force: ForcedOption = False,
    no_wait: WaitOption = False,
    timeout: PatienceOption = 300.0,
    output: OutputOption = Output.text,
    quiet: QuietOption = False,
) -> None:
    """Remove an application or group from Marathon.

    Waits until it is removed. Only the id in FILE is used.
    """
    _deploy("Uninstalled", lambda m, it: m.uninstall(it, force=force), file, cluster, no_wait, timeout, output, quiet)


def _deploy(
    done: str,
    act: Callable[[Marathon, Definition], Deployment],
    file: str,
    name: str | None,
    no_wait: bool,
    timeout: float,
    output: Output,
    quiet: bool,
) -> None:
    check_timeout(timeout)
    from minicluster.cluster import Cluster
    from minicluster.contrib.mesos import marathon, reach

    text = _text(file)
    opened = Cluster.open(name)
    reached = reach.marathon(opened)
    it = marathon.read(text, opened.env(), "standard input" if file == "-" else file)
    begun = time.monotonic()
    change = act(reached, it)
    if not no_wait:
        reached.wait(change, timeout=timeout)
    seconds = time.monotonic() - begun
    if output is Output.json:
        print_json({"kind": it.kind, "id": it.id, "deployment": change.deployment, "seconds": round(seconds, 1)})
    elif not quiet:
        what = f"{it.kind} {it.id}"
        print(f"Deployment of {what} started." if no_wait else paint(f"{done} {what} in {seconds:.1f} s.", "bold"))


def _text(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read", str(error)) from None
