"""Commands that change a running cluster: ``stop``, ``start``, ``restart``, ``pause``, ``kill``, ``scale``, …"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from minicluster.cli import complete
from minicluster.cli.help import Command
from minicluster.cli.options import (
    Output,
    cluster_argument,
    cluster_option,
    dry_run_option,
    force_option,
    keep_option,
    nodes_argument,
    numbers,
    output_option,
    quiet_option,
    timeout_option,
)
from minicluster.cli.output import count, paint, print_json
from minicluster.cli.progress import listening
from minicluster.errors import UsageError

if TYPE_CHECKING:
    from minicluster.cluster import Cluster
    from minicluster.model.events import Listener
    from minicluster.model.results import Change


@click.command(cls=Command)
@nodes_argument
@cluster_option
@output_option
@quiet_option
def stop(nodes: tuple[str, ...], cluster: str | None, output: Output, quiet: bool) -> None:
    """Stop nodes; keep their addresses, ports and data."""
    _on_nodes(cluster, lambda c, listener: c.stop(nodes, listener=listener), "Stopped", "stop", output, quiet)


@click.command(cls=Command)
@nodes_argument
@cluster_option
@timeout_option()
@output_option
@quiet_option
def start(nodes: tuple[str, ...], cluster: str | None, timeout: float, output: Output, quiet: bool) -> None:
    """Start stopped or paused nodes and wait until they are ready."""

    def act(c: Cluster, listener: Listener) -> Change:
        return c.start(nodes, timeout=timeout, listener=listener)

    _on_nodes(cluster, act, "Started", "start", output, quiet)


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

    def act(c: Cluster, listener: Listener) -> Change:
        return c.restart(nodes, rolling=rolling, force=force, timeout=timeout, listener=listener)

    _on_nodes(cluster, act, "Restarted", "start", output, quiet)


@click.command(cls=Command)
@nodes_argument
@cluster_option
@output_option
@quiet_option
def pause(nodes: tuple[str, ...], cluster: str | None, output: Output, quiet: bool) -> None:
    """Pause all processes of nodes."""
    _on_nodes(cluster, lambda c, listener: c.pause(nodes, listener=listener), "Paused", "pause", output, quiet)


@click.command(cls=Command)
@nodes_argument
@cluster_option
@output_option
@quiet_option
def unpause(nodes: tuple[str, ...], cluster: str | None, output: Output, quiet: bool) -> None:
    """Resume paused nodes."""
    _on_nodes(cluster, lambda c, listener: c.unpause(nodes, listener=listener), "Resumed", "start", output, quiet)


@click.command(cls=Command)
@click.argument(
    "nodes", nargs=-1, required=True, metavar="NODE...", help="Nodes or roles", shell_complete=complete.nodes
)
@cluster_option
@output_option
@quiet_option
def kill(nodes: tuple[str, ...], cluster: str | None, output: Output, quiet: bool) -> None:
    """Kill nodes at once, like a crash."""
    _on_nodes(cluster, lambda c, listener: c.kill(nodes, listener=listener), "Killed", "kill", output, quiet)


@click.command(cls=Command)
@click.argument(
    "sizes",
    nargs=-1,
    required=True,
    metavar="ROLE=N...",
    callback=numbers(0, 1000),
    help="New number of nodes of a role",
    shell_complete=complete.roles,
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

    def act(c: Cluster, listener: Listener) -> Change:
        return c.scale(sizes, force=force, keep=keep, timeout=timeout, listener=listener)

    _on_cluster(cluster, act, "Scaled", output, quiet)


@click.command(cls=Command)
@cluster_argument
@timeout_option(help="Time limit")
@dry_run_option
@output_option
@quiet_option
def reset(cluster: str | None, timeout: float, dry_run: bool, output: Output, quiet: bool) -> None:
    """Delete what users created; nodes and members stay."""
    if dry_run:
        from minicluster.cli.planned import show_plan
        from minicluster.cluster import Cluster
        from minicluster.operations.reset import plan_reset

        opened = Cluster.open(cluster)
        show_plan(plan_reset(opened.engine, opened.spec), output)
        return
    _on_cluster(cluster, lambda c, listener: c.reset(timeout=timeout, listener=listener), "Reset", output, quiet)


Act = Callable[["Cluster", "Listener"], "Change"]


def _on_nodes(name: str | None, act: Act, done: str, verb: str, output: Output, quiet: bool) -> None:
    change = _do(name, act, output, quiet)
    if change:
        nodes = count(change.summary.get(f"{verb}-container", 0), "node")
        print(paint(f"{done} {nodes} of cluster {change.cluster} in {change.seconds:.1f} s.", "bold"))


def _on_cluster(name: str | None, act: Act, done: str, output: Output, quiet: bool) -> None:
    change = _do(name, act, output, quiet)
    if change:
        print(paint(f"{done} cluster {change.cluster} ({change.seconds:.1f} s).", "bold"))


def _do(name: str | None, act: Act, output: Output, quiet: bool) -> Change | None:
    """Carries out a change; returns it if there is still a sentence about it to print."""
    from minicluster.cluster import Cluster

    opened = Cluster.open(name)
    with listening(quiet) as listener:
        change = act(opened, listener)
    if output is Output.json:
        print_json(change)
    elif not quiet and change.changed:
        return change
    elif not quiet:
        print(f"Cluster {change.cluster}: nothing to do.")
    return None
