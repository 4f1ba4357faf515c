"""The command ``cp``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from minicluster.cli import complete
from minicluster.cli.options import ClusterOption, Output, OutputOption, QuietOption
from minicluster.cli.output import print_json, size
from minicluster.errors import UsageError

_NOTES = 5  # that are worth a line each


def cp(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="What to copy: PATH or NODE:PATH.", autocompletion=complete.places),
    ],
    destination: Annotated[
        str,
        typer.Argument(
            metavar="DESTINATION",
            help="Where to: NODE:PATH, ROLE:PATH (all its nodes) or PATH.",
            autocompletion=complete.places,
        ),
    ],
    cluster: ClusterOption = None,
    quiet: QuietOption = False,
    output: OutputOption = Output.text,
) -> None:
    """Copy files and folders between this machine and nodes.

    As with docker cp: a folder goes into a folder that is there, else it becomes DESTINATION; SOURCE/. is what is in
    the folder. A path of this machine that has a colon begins with ./ or /.
    """
    from minicluster.cluster import Cluster

    taken, given = _node(source), _node(destination)
    if taken and given:
        raise UsageError("cp does not copy from node to node.", fix="Copy it to this machine, then from there.")
    if not taken and not given:
        raise UsageError("cp needs a node on one side.", fix="Write NODE:PATH for what is in a node.")
    opened = Cluster.open(cluster)
    if taken:
        done = [opened.copy_from(*taken, destination)]
    else:
        assert given
        done = list(opened.copy_to(source, *given))
    left_out = list(dict.fromkeys(left for copied in done for left in copied.left_out))
    for left in left_out[:_NOTES]:
        print(f"Note: left out: {left}", file=sys.stderr)
    if left_out[_NOTES:]:
        print(f"Note: left out: {len(left_out) - _NOTES} more; -o json names them", file=sys.stderr)
    if output is Output.json:
        print_json(done)
    elif not quiet:
        for copied in done:
            files = "1 file" if copied.files == 1 else f"{copied.files} files"
            print(f"{files}, {size(copied.bytes)}: {copied.source} -> {copied.destination}")


def _node(word: str) -> tuple[str, str] | None:
    """The node and the path of ``NODE:PATH``; None for a path of this machine."""
    node, colon, path = word.partition(":")
    if not colon or not node or word.startswith((".", "/", "~")):
        return None
    if not path:
        raise UsageError(f"{word} names no path.", fix=f"Write {node}:/PATH.")
    return node, path
