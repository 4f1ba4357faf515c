"""Commands that change a running cluster: ``stop``, ``start``, ``restart``, ``pause``, ``kill``, ``scale``, …"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from minicluster.cli import complete
from minicluster.cli.help import Command
from minicluster.cli.options import (
    Output,
    cluster_argument,
    cluster_option,
    combined,
    dry_run_option,
    force_option,
    keep_option,
    nodes_argument,
    numbers,
    output_option,
    quiet_option,
    timeout_option,
)
from minicluster.cli.output import paint, print_json
from minicluster.cli.progress import listening
from minicluster.cli.target import of_nodes, of_project
from minicluster.errors import UsageError
from minicluster.model.naming import count

if TYPE_CHECKING:
    from minicluster.model.events import Listener
    from minicluster.model.results import Change


def _node_command(
    verb: str,
    help: str,
    done: str,
    counted: str,
    *,
    nodes: Callable[[Any], Any] = nodes_argument,
    waits: bool = False,
    whole: bool = False,
    asks: bool = False,
) -> click.Command:
    """The command for a method of :class:`~minicluster.cluster.Cluster` that takes nodes.

    Args:
        verb: the names of the command and of the method.
        done: how its answer begins.
        counted: the action of the plan (``X-container``) whose steps are the nodes in its answer.
        nodes: its argument.
        waits: it takes ``--timeout``.
        whole: a cluster in place of a node means all of its nodes.
        asks: users of other tools expect it to ask, and give ``--force``.
    """
    needed = "NODE" if nodes is _named_nodes else ""
    more = [*([timeout_option()] if waits else []), *([_unasked_option] if asks else [])]

    @combined(nodes, cluster_option, *more, output_option, quiet_option)
    def command(nodes: tuple[str, ...], cluster: str | None, output: Output, quiet: bool, **options: float) -> None:
        opened, names = of_nodes(cluster, nodes, verb, needed, whole=whole)

        def act(listener: Listener) -> Change:
            change: Change = getattr(opened, verb)(names, listener=listener, **options)
            return change

        _on_nodes(act, done, counted, output, quiet)

    return click.command(verb, cls=Command, help=help)(command)


_named_nodes = click.argument(
    "nodes", nargs=-1, required=True, metavar="NODE...", help="Nodes or roles", shell_complete=complete.nodes
)

_unasked_option = click.option(
    "--force", is_flag=True, expose_value=False, help="Accepted for scripts: no question is asked anyway"
)

stop = _node_command(
    "stop", "Stop nodes; keep their addresses, ports and data.", "Stopped", "stop", whole=True, asks=True
)
start = _node_command(
    "start", "Start stopped or paused nodes and wait until they are ready.", "Started", "start", waits=True, whole=True
)
pause = _node_command("pause", "Pause all processes of nodes.", "Paused", "pause")
unpause = _node_command("unpause", "Resume paused nodes.", "Resumed", "start")
kill = _node_command("kill", "Kill nodes at once, like a crash.", "Killed", "kill", nodes=_named_nodes, asks=True)


@click.command(cls=Command)
@nodes_argument
@cluster_option
@click.option("--rolling", is_flag=True, help="One node at a time; wait until each has caught up")
@click.option("--force", is_flag=True, help="With --rolling: continue even if quorum is lost")
@timeout_option()
@output_option
@quiet_option
def restart(
    nodes: tuple[str, ...],
    cluster: str | None,
    rolling: bool,
    force: bool,
    timeout: float,
    output: Output,
    quiet: bool,
) -> None:
    """Restart nodes, all at once or one by one."""
    if force and not rolling:
        raise UsageError("--force needs --rolling", "Without --rolling all nodes restart at once anyway.")

    opened, names = of_nodes(cluster, nodes, "restart")

    def act(listener: Listener) -> Change:
        return opened.restart(names, rolling=rolling, force=force, timeout=timeout, listener=listener)

    _on_nodes(act, "Restarted", "start", output, quiet)


@click.command(cls=Command)
@click.argument(
    "sizes",
    nargs=-1,
    required=True,
    metavar="ROLE=N...",
    callback=numbers(0),
    help="New number of nodes of a role",
    shell_complete=complete.cluster_roles,
)
@cluster_option
@force_option
@keep_option
@timeout_option()
@output_option
@quiet_option
def scale(
    sizes: dict[str, int], cluster: str | None, force: bool, keep: bool, timeout: float, output: Output, quiet: bool
) -> None:
    """Change the number of nodes of roles.

    Members join and leave the cluster in order.
    """

    opened = of_project(cluster)

    def act(listener: Listener) -> Change:
        return opened.scale(sizes, force=force, keep=keep, timeout=timeout, listener=listener)

    _on_cluster(act, "Scaled", output, quiet)


@click.command(cls=Command)
@cluster_argument
@timeout_option(help="Time limit")
@dry_run_option
@output_option
@quiet_option
def reset(cluster: str | None, timeout: float, dry_run: bool, output: Output, quiet: bool) -> None:
    """Delete what users created; nodes and members stay."""
    opened = of_project(cluster)
    if dry_run:
        from minicluster.cli.planned import show_plan

        show_plan(opened.plan_reset(), output)
        return
    _on_cluster(lambda listener: opened.reset(timeout=timeout, listener=listener), "Reset", output, quiet)


Act = Callable[["Listener"], "Change"]


def _on_nodes(act: Act, done: str, verb: str, output: Output, quiet: bool) -> None:
    change = _do(act, output, quiet)
    if change:
        nodes = count(change.summary.get(f"{verb}-container", 0), "node")
        print(paint(f"{done} {nodes} of cluster {change.cluster} in {change.seconds:.1f} s.", "bold"))


def _on_cluster(act: Act, done: str, output: Output, quiet: bool) -> None:
    change = _do(act, output, quiet)
    if change:
        print(paint(f"{done} cluster {change.cluster} ({change.seconds:.1f} s).", "bold"))


def _do(act: Act, output: Output, quiet: bool) -> Change | None:
    """Carries out a change; returns it if there is still a sentence about it to print."""
    with listening(quiet) as listener:
        change = act(listener)
    if output is Output.json:
        print_json(change)
    elif not quiet and change.changed:
        return change
    elif not quiet:
        print(f"Cluster {change.cluster}: nothing to do.")
    return None
