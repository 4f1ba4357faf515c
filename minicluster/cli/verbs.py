"""What is done to a cluster that is there: ``stop``, ``start``, ``restart``, ``pause``, ``kill``, ``scale``, …"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from minicluster.cli import complete
from minicluster.cli.options import (
    DEFAULT_TIMEOUT,
    ClusterArgument,
    ClusterOption,
    DryRunOption,
    ForceOption,
    NodesArgument,
    Output,
    OutputOption,
    QuietOption,
    TimeoutOption,
    check_timeout,
    numbers,
)
from minicluster.cli.output import paint, print_json
from minicluster.cli.progress import listening
from minicluster.errors import UsageError

if TYPE_CHECKING:
    from minicluster.cluster import Cluster
    from minicluster.model.events import Listener
    from minicluster.model.results import Change

NamedNodesArgument = Annotated[
    list[str], typer.Argument(metavar="NODE...", help="Nodes or roles.", autocompletion=complete.nodes)
]


def stop(
    words: NodesArgument = None,
    cluster: ClusterOption = None,
    output: OutputOption = Output.text,
    quiet: QuietOption = False,
) -> None:
    """Stop nodes; they keep their addresses, ports and data."""
    _do(cluster, lambda c, hear: c.stop(words or [], listener=hear), "stopped", output, quiet)


def start(
    words: NodesArgument = None,
    cluster: ClusterOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    output: OutputOption = Output.text,
    quiet: QuietOption = False,
) -> None:
    """Start nodes that are stopped or paused, and wait until they serve."""
    check_timeout(timeout)
    _do(cluster, lambda c, hear: c.start(words or [], timeout=timeout, listener=hear), "started", output, quiet)


def restart(
    words: NodesArgument = None,
    cluster: ClusterOption = None,
    rolling: Annotated[
        bool, typer.Option("--rolling", help="One node at a time, each when the one before has caught up.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --rolling: go on where the cluster can spare no node.")
    ] = False,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    output: OutputOption = Output.text,
    quiet: QuietOption = False,
) -> None:
    """Stop and start nodes, all at once or one by one."""
    check_timeout(timeout)
    if force and not rolling:
        raise UsageError("--force is for --rolling alone.", "Without it all nodes restart at once anyway.")

    def act(c: Cluster, hear: Listener) -> Change:
        return c.restart(words or [], rolling=rolling, force=force, timeout=timeout, listener=hear)

    _do(cluster, act, "restarted", output, quiet)


def pause(
    words: NodesArgument = None,
    cluster: ClusterOption = None,
    output: OutputOption = Output.text,
    quiet: QuietOption = False,
) -> None:
    """Freeze nodes, as a machine that hangs."""
    _do(cluster, lambda c, hear: c.pause(words or [], listener=hear), "paused", output, quiet)


def unpause(
    words: NodesArgument = None,
    cluster: ClusterOption = None,
    output: OutputOption = Output.text,
    quiet: QuietOption = False,
) -> None:
    """Let paused nodes go on."""
    _do(cluster, lambda c, hear: c.unpause(words or [], listener=hear), "unpaused", output, quiet)


def kill(
    words: NamedNodesArgument,
    cluster: ClusterOption = None,
    output: OutputOption = Output.text,
    quiet: QuietOption = False,
) -> None:
    """End nodes at once, as a crash would."""
    _do(cluster, lambda c, hear: c.kill(words, listener=hear), "killed", output, quiet)


def scale(
    sizes: Annotated[
        list[str],
        typer.Argument(metavar="ROLE=N...", help="How many nodes a role shall have.", autocompletion=complete.roles),
    ],
    cluster: ClusterOption = None,
    force: ForceOption = False,
    keep: Annotated[bool, typer.Option("--keep", help="After a failure leave what there is, to look at.")] = False,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    output: OutputOption = Output.text,
    quiet: QuietOption = False,
) -> None:
    """Change how many nodes roles have; members join and leave in order."""
    check_timeout(timeout)
    counts = numbers("scale", "ROLE=N", sizes, 0, 1000)

    def act(c: Cluster, hear: Listener) -> Change:
        return c.scale(counts, force=force, keep=keep, timeout=timeout, listener=hear)

    _do(cluster, act, "scaled", output, quiet)


def reset(
    name: ClusterArgument = None,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", help="Seconds that it may take; 120 by default.")
    ] = DEFAULT_TIMEOUT,
    dry_run: DryRunOption = False,
    output: OutputOption = Output.text,
    quiet: QuietOption = False,
) -> None:
    """Remove what users put into a cluster; its nodes and members stay."""
    check_timeout(timeout)
    if dry_run:
        from minicluster.cli.planned import show_plan
        from minicluster.cluster import Cluster
        from minicluster.operations.reset import plan_reset

        opened = Cluster.open(name)
        show_plan(plan_reset(opened.engine, opened.spec), output)
        return
    _do(name, lambda c, hear: c.reset(timeout=timeout, listener=hear), "reset", output, quiet)


def _do(name: str | None, act: Callable[[Cluster, Listener], Change], done: str, output: Output, quiet: bool) -> None:
    from minicluster.cluster import Cluster

    opened = Cluster.open(name)
    with listening(quiet) as listener:
        change = act(opened, listener)
    if output is Output.json:
        print_json(change)
    elif not quiet:
        text = f"Cluster {change.cluster}: {done}, in {change.seconds:.1f} s."
        print(paint(text, "bold") if change.changed else f"Cluster {change.cluster}: there was nothing to do.")
