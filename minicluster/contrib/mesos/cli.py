"""``minicluster mesos state|ps|logs|drain|reactivate|install|update|uninstall``."""

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
    """List tasks: framework, task, state, agent's node, port."""
    from minicluster.cluster import Cluster
    from minicluster.contrib.mesos import reach

    tasks = reach.mesos(Cluster.open(cluster)).tasks(ended=all_)
    if output is Output.json:
        print_json(tasks)
    elif tasks:
        rows = [(t.framework, t.id, t.state, t.node or "-", ",".join(map(str, t.ports)) or "-") for t in tasks]
        print(columns(rows, ("FRAMEWORK", "TASK", "STATE", "AGENT", "PORT")))
    else:
        print("No tasks.", file=sys.stderr)


@app.command()
@click.argument("task", metavar="TASK", help="A task ID or part of one")
@click.argument("file", required=False, metavar="[FILE]", help="A path in the task's sandbox; default: stdout")
@cluster_option
@click.option("--stderr", is_flag=True, help="Print standard error instead")
@click.option("-f", "--follow", is_flag=True, help="Print what is added until the task ends")
def logs(task: str, file: str | None, cluster: str | None, stderr: bool, follow: bool) -> None:
    """Print a task's standard output, or another file of its sandbox."""
    from minicluster.cluster import Cluster
    from minicluster.contrib.mesos import reach

    if file and stderr:
        raise UsageError("--stderr and FILE cannot be used together", "", "Name one file.")
    mesos, path = reach.mesos(Cluster.open(cluster)), (file or ("stderr" if stderr else "stdout")).lstrip("/")
    for chunk in mesos.follow(task, path) if follow else mesos.log(task, path)[1]:
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()


agent_argument = click.argument("agent", metavar="AGENT", help="A node of role agent", shell_complete=complete.nodes)


@app.command()
@agent_argument
@cluster_option
@click.option(
    "--grace-period", type=click.FloatRange(min=0), metavar="S", help="Seconds that a task has to end at most"
)
@click.option("--no-wait", is_flag=True, help="Do not wait until the tasks have ended")
@timeout_option(300.0, "Time limit for the tasks to end")
@quiet_option
def drain(
    agent: str, cluster: str | None, grace_period: float | None, no_wait: bool, timeout: float, quiet: bool
) -> None:
    """End an agent's tasks and offer it no more.

    Frameworks start the tasks elsewhere. Waits until they have ended. Needs Mesos 1.9 or newer.
    """
    from minicluster.cluster import Cluster
    from minicluster.contrib.mesos import reach

    opened = Cluster.open(cluster)
    mesos, address = reach.mesos(opened), reach.agent(opened, agent)
    begun = time.monotonic()
    mesos.drain(address, grace_period=grace_period)
    if not no_wait:
        mesos.wait_drained(address, timeout=timeout)
    if not quiet:
        done = f"Drained {agent} in {time.monotonic() - begun:.1f} s."
        print(f"Draining {agent} started." if no_wait else paint(done, "bold"))


@app.command()
@agent_argument
@cluster_option
@quiet_option
def reactivate(agent: str, cluster: str | None, quiet: bool) -> None:
    """Offer a drained agent to frameworks again."""
    from minicluster.cluster import Cluster
    from minicluster.contrib.mesos import reach

    opened = Cluster.open(cluster)
    reach.mesos(opened).reactivate(reach.agent(opened, agent))
    if not quiet:
        print(f"Reactivated {agent}.")


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
