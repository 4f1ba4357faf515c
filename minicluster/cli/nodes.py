"""Commands on single nodes: ``logs``, ``exec``, ``shell``."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from minicluster.cli import complete
from minicluster.cli.help import Command
from minicluster.cli.options import Output, cluster_option, nodes_argument, output_option
from minicluster.cli.output import answer, paint
from minicluster.cli.progress import listening
from minicluster.cli.target import of_nodes
from minicluster.errors import MiniclusterError, UsageError
from minicluster.model.naming import count

if TYPE_CHECKING:
    from minicluster.cluster import Cluster

_PALETTE = ("cyan", "yellow", "green", "red")
# Everything after NODE belongs to the command, even if it looks like an option of minicluster.
_VERBATIM = {"allow_interspersed_args": False, "ignore_unknown_options": True}
# The best shell of the node; ash and dash are called sh.
_SHELL = ("sh", "-c", "exec $(command -v bash || echo sh)")


@click.command(cls=Command)
@nodes_argument
@cluster_option
@click.option("-f", "--follow", is_flag=True, help="Follow the logs")
@click.option("-n", "--tail", type=click.IntRange(min=0), metavar="N", help="Print only the last N lines of each node")
@click.option(
    "--export",
    "directory",
    metavar="DIR",
    help="Write logs, status, spec, plan, events, engine and doctor into a new folder, without secrets",
)
@output_option
def logs(
    nodes: tuple[str, ...],
    cluster: str | None,
    follow: bool,
    tail: int | None,
    directory: str | None,
    output: Output,
) -> None:
    """Print the logs of nodes, or export all that a bug report needs."""
    if directory and follow:
        raise UsageError("--export and --follow cannot be used together")
    opened, nodes = of_nodes(cluster, nodes, "logs", whole=True)
    if directory:
        with listening(quiet=output is Output.json) as listener:
            files = opened.export(directory, nodes, tail=tail, listener=listener)
        answer(
            {"directory": directory, "files": files}, f"Exported {count(len(files), 'file')} to {directory}.", output
        )
        return
    names = opened.node_names(nodes)
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
        raise click.exceptions.Exit(130) from None  # the usual end of following: no message


@click.command("exec", cls=Command, context_settings=_VERBATIM)
@click.argument("node", metavar="NODE", help="Node, or a role with one node", shell_complete=complete.nodes)
@click.argument("command", nargs=-1, required=True, metavar="-- COMMAND...", help="Command and its arguments")
@cluster_option
@click.option("-i", "--interactive", is_flag=True, help="Pass standard input to the command")
@click.option("-t", "--tty", is_flag=True, help="Give the command a terminal, if this is one")
def exec_(node: str, command: tuple[str, ...], cluster: str | None, interactive: bool, tty: bool) -> None:
    """Run a command in a node.

    Exits with the command's exit status. Without -i standard input is not read; -it runs an interactive program.
    """
    argv = command[1:] if command[0] == "--" else command
    if not argv:
        raise UsageError("exec needs a command", fix="minicluster exec NODE -- COMMAND")
    opened, (node,) = of_nodes(cluster, [node], "exec", f"NODE -- {shlex.join(argv)}")
    if tty and not _on_terminal():
        print("Note: no terminal for the command, since input or output is not one", file=sys.stderr)
    _become(opened, node, argv, tty=tty and _on_terminal(), stdin=interactive)


@click.command(cls=Command)
@click.argument(
    "node", required=False, metavar="[NODE]", help="Node (default: the first)", shell_complete=complete.nodes
)
@cluster_option
def shell(node: str | None, cluster: str | None) -> None:
    """Open a shell in a node."""
    opened, words = of_nodes(cluster, [node] if node else [], "shell", whole=True)
    _become(opened, words[0] if words else opened.node_names([])[0], _SHELL, tty=_on_terminal(), stdin=True)


def _on_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _become(cluster: Cluster, node: str, argv: Sequence[str], *, tty: bool, stdin: bool) -> None:
    """Replaces this process by the engine's own client, which handles signals, terminal, pipes and exit status."""
    line, env = cluster.exec_argv(node, argv, tty=tty, stdin=stdin)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvpe(line[0], line, {**os.environ, **env})
    except FileNotFoundError:
        if tty or stdin:
            raise MiniclusterError(
                f"{line[0]} is not installed",
                "It is needed to pass standard input or a terminal to a command in a node.",
                f"Install {line[0]}, or use `minicluster exec` without -i and -t.",
            ) from None
    result = cluster.exec(node, argv)  # without input no client is needed
    sys.stdout.write(result.stdout)
    sys.stderr.write(result.stderr)
    raise click.exceptions.Exit(result.exit_code)
