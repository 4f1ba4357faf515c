"""``minicluster mesos state|ps|logs|install|update|uninstall``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minicluster.cli import complete
from minicluster.cli.help import Group
from minicluster.cli.options import (
    Output,
    cluster_argument,
    cluster_option,
    combined,
    output_option,
    quiet_option,
    timeout_option,
)
from minicluster.cli.output import columns, paint, print_json
from minicluster.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from minicluster.contrib.mesos.marathon import Definition, Deployment, Marathon

app = Group("mesos", help="Mesos: state, tasks, and applications on Marathon.")

file_argument = click.argument(
    "file", metavar="FILE|-", help="Marathon JSON of an application or group; - reads standard input"
)
wait_option = click.option("--no-wait", is_flag=True, help="Do not wait for the deployment to finish")
deployment_timeout_option = timeout_option(300.0, "Time limit for the deployment")
deployment_options = combined(
    file_argument, cluster_option, wait_option, deployment_timeout_option, output_option, quiet_option
)
cancel_option = click.option("--force", is_flag=True, help="Cancel a deployment that is in progress")


@app.command()
@cluster_argument
@click.option("--agent", metavar="NODE", help="Print the state of this agent instead", shell_complete=complete.nodes)
def state(cluster: str | None, agent: str | None) -> None:
    """Print the leading master's state as JSON."""
    from minicluster.cluster import Cluster
    from minicluster.contrib.mesos import reach

    opened = Cluster.open(cluster)
    mesos = reach.mesos(opened)
    print_json(mesos.agent_state(reach.agent(opened, agent)) if agent else mesos.state())


@app.command()
@cluster_argument
@click.option("--all", "all_", is_flag=True, help="Include tasks that have ended")
@output_option
def ps(cluster: str | None, all_: bool, output: Output) -> None:
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


@app.command()
@click.argument("task", metavar="TASK", help="A task ID or part of one")
@cluster_option
@click.option("--stderr", is_flag=True, help="Print standard error instead")
def logs(task: str, cluster: str | None, stderr: bool) -> None:
    """Print a task's standard output."""
    from minicluster.cluster import Cluster
    from minicluster.contrib.mesos import reach

    _, content = reach.mesos(Cluster.open(cluster)).log(task, "stderr" if stderr else "stdout")
    for chunk in content:
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


@app.command()
@deployment_options
def install(**deployment: Any) -> None:
    """Run an application or group on Marathon.

    Waits until it is deployed. Variables of 'minicluster env', such as ${MINICLUSTER_MASTER_IP}, are expanded in FILE.
    """
    _deploy("Installed", lambda m, it: m.install(it), **deployment)


@app.command()
@deployment_options
@cancel_option
def update(force: bool, **deployment: Any) -> None:
    """Update an application or group on Marathon.

    Creates it if it does not exist. Waits until the change is deployed.
    """
    _deploy("Updated", lambda m, it: m.update(it, force=force), **deployment)


@app.command()
@deployment_options
@cancel_option
def uninstall(force: bool, **deployment: Any) -> None:
    """Remove an application or group from Marathon.

    Waits until it is removed. Only the id in FILE is used.
    """
    _deploy("Uninstalled", lambda m, it: m.uninstall(it, force=force), **deployment)


def _deploy(
    done: str,
    act: Callable[[Marathon, Definition], Deployment],
    file: str,
    cluster: str | None,
    no_wait: bool,
    timeout: float,
    output: Output,
    quiet: bool,
) -> None:
    from minicluster.cluster import Cluster
    from minicluster.contrib.mesos import marathon, reach

    text = _text(file)
    opened = Cluster.open(cluster)
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
