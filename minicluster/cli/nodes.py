"""Commands about nodes: ``logs``, ``exec``, ``shell``, ``load``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from minicluster.cli import complete
from minicluster.cli.options import ClusterOption, DryRunOption, NodesArgument, Output, OutputOption, QuietOption
from minicluster.cli.output import paint
from minicluster.cli.progress import listening
from minicluster.errors import MiniclusterError, UsageError

if TYPE_CHECKING:
    from minicluster.cluster import Cluster

_PALETTE = ("cyan", "yellow", "green", "red")
# Whatever shell is the best that a node has; ash and dash are there as sh.
_SHELL = ("sh", "-c", "exec $(command -v bash || echo sh)")


def logs(
    words: NodesArgument = None,
    cluster: ClusterOption = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with what comes.")] = False,
    tail: Annotated[
        int | None, typer.Option("-n", "--tail", min=0, metavar="N", help="Only the last N lines of each node.")
    ] = None,
    output: OutputOption = Output.text,
) -> None:
    """Print what nodes wrote."""
    from minicluster.cluster import Cluster

    opened = Cluster.open(cluster)
    names = opened.node_names(words or [])
    width = max(map(len, names), default=0)
    try:
        for node, line in opened.logs(names, follow=follow, tail=tail):
            if output is Output.json:
                import json

                text = json.dumps({"node": node, "line": line}, ensure_ascii=False)
            elif len(names) == 1:
                text = line
            else:
                colour = _PALETTE[names.index(node) % len(_PALETTE)] if node in names else "dim"
                text = f"{paint(f'{node:<{width}} |', colour)} {line}"
            print(text, flush=follow)
    except KeyboardInterrupt:
        if not follow:
            raise
        raise typer.Exit(130) from None  # the usual end of following, and nothing to make words about


def exec_(
    node: Annotated[str, typer.Argument(metavar="NODE", help="The node.", autocompletion=complete.nodes)],
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="The command and its arguments.")],
    cluster: ClusterOption = None,
) -> None:
    """Run a command in a node.

    It gets this terminal, or what is piped in, and its exit status is passed on.
    """
    from minicluster.cluster import Cluster

    argv = command[1:] if command[0] == "--" else command
    if not argv:
        raise UsageError("exec needs a command.", fix="Write minicluster exec NODE -- COMMAND.")
    opened = Cluster.open(cluster)
    _become(opened, _one(opened, node), argv)


def shell(
    node: Annotated[
        str | None,
        typer.Argument(
            metavar="[NODE]", show_default=False, help="The node; the first by default.", autocompletion=complete.nodes
        ),
    ] = None,
    cluster: ClusterOption = None,
) -> None:
    """Open a shell in a node."""
    from minicluster.cluster import Cluster

    opened = Cluster.open(cluster)
    _become(opened, _one(opened, node) if node else opened.node_names([])[0], _SHELL)


def _one(cluster: Cluster, word: str) -> str:
    """The node that a word means; a role will do where it has one node."""
    names = cluster.node_names([word])
    if len(names) != 1:
        raise UsageError(f"{word} is {len(names)} nodes.", fix=f"Name one of {', '.join(names)}.")
    return names[0]


def _become(cluster: Cluster, node: str, argv: list[str] | tuple[str, ...]) -> None:
    """Lets the engine's own client take this process over: its signals, terminal, pipes and exit status are ours."""
    tty = sys.stdin.isatty() and sys.stdout.isatty()
    line, env = cluster.exec_argv(node, argv, tty=tty)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvpe(line[0], line, {**os.environ, **env})
    except FileNotFoundError:
        if tty:
            raise MiniclusterError(
                f"{line[0]} is not installed.",
                f"A command with a terminal in a node needs the engine's own client, {line[0]}.",
                f"Install {line[0]}, or run the command without a terminal: add '| cat'.",
            ) from None
    result = cluster.exec(node, argv)  # a command without input needs no client
    sys.stdout.write(result.stdout)
    sys.stderr.write(result.stderr)
    raise typer.Exit(result.exit_code)


def load(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Images that the engine has.")],
    cluster: ClusterOption = None,
    words: Annotated[
        list[str] | None,
        typer.Option(
            "--node",
            metavar="NODE",
            help="Only into this node or role. May be repeated.",
            autocompletion=complete.nodes,
        ),
    ] = None,
    dry_run: DryRunOption = False,
    quiet: QuietOption = False,
) -> None:
    """Give images of this machine to the nodes of a cluster."""
    from minicluster.cluster import Cluster

    opened = Cluster.open(cluster)
    names = opened.node_names(words) if words else []  # none: all that hold images
    if dry_run:
        from minicluster.cli.planned import show_plan
        from minicluster.operations.load_images import plan_load

        for image in images:
            show_plan(plan_load(opened.engine, opened.spec, image, names), Output.text)
        return
    with listening(quiet) as listener:
        for image in images:
            opened.load(image, names, listener=listener)
