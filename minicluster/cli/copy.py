"""The command ``cp``."""

from __future__ import annotations

import sys

import click

from minicluster.cli import complete
from minicluster.cli.help import Command
from minicluster.cli.options import Output, cluster_option, output_option, quiet_option
from minicluster.cli.output import print_json
from minicluster.cli.target import of_nodes
from minicluster.errors import UsageError
from minicluster.model.naming import count, size

_NOTES = 5  # skipped files that get a line each


@click.command(cls=Command)
@click.argument("source", metavar="SOURCE", help="PATH or NODE:PATH", shell_complete=complete.places)
@click.argument(
    "destination",
    metavar="DESTINATION",
    help="PATH, NODE:PATH, or ROLE:PATH for all nodes of a role",
    shell_complete=complete.places,
)
@cluster_option
@quiet_option
@output_option
def cp(source: str, destination: str, cluster: str | None, quiet: bool, output: Output) -> None:
    """Copy files between this machine and nodes.

    As with docker cp: a folder is copied into an existing folder, or becomes DESTINATION; SOURCE/. means the contents
    of the folder. Write a local path with a colon as ./PATH or /PATH.
    """
    taken, given = _node(source), _node(destination)
    if taken and given:
        raise UsageError("cannot copy from node to node", fix="Copy to this machine first.")
    if not taken and not given:
        raise UsageError("SOURCE or DESTINATION must be NODE:PATH")
    opened, _ = of_nodes(cluster, [node for node, _ in filter(None, (taken, given))], "cp", "SOURCE DESTINATION")
    if taken:
        done = [opened.copy_from(*taken, destination)]
    else:
        assert given
        done = list(opened.copy_to(source, *given))
    left_out = list(dict.fromkeys(left for copied in done for left in copied.left_out))
    for left in left_out[:_NOTES]:
        print(f"Note: skipped {left}", file=sys.stderr)
    if left_out[_NOTES:]:
        print(f"Note: skipped {len(left_out) - _NOTES} more; list them with -o json", file=sys.stderr)
    if output is Output.json:
        print_json(done)
    elif not quiet:
        for copied in done:
            print(f"{count(copied.files, 'file')}, {size(copied.bytes)}: {copied.source} -> {copied.destination}")


def _node(word: str) -> tuple[str, str] | None:
    """The node and the path of ``NODE:PATH``; None for a local path."""
    node, colon, path = word.partition(":")
    if not colon or not node or word.startswith((".", "/", "~")):
        return None
    if not path:
        raise UsageError(f"{word} has no path", fix=f"Write {node}:/PATH.")
    return node, path
