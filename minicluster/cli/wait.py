"""``wait``."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from minicluster.cli.help import Command
from minicluster.cli.options import Output, cluster_argument, output_option, quiet_option, timeout_option
from minicluster.cli.output import paint, print_json

if TYPE_CHECKING:
    from minicluster.model.events import Event

_CONDITIONS = "ready|quorum|members=N"


@click.command(cls=Command)
@cluster_argument
@click.option(
    "--for",
    "condition",
    default="ready",
    metavar=_CONDITIONS,
    help="Every node is ready; the voters have a quorum and a leader; at least N nodes are ready (default: ready)",
    shell_complete=lambda _ctx, _param, word: [w for w in ("ready", "quorum", "members=") if w.startswith(word)],
)
@timeout_option(help="Time limit")
@output_option
@quiet_option
def wait(cluster: str | None, condition: str, timeout: float, output: Output, quiet: bool) -> None:
    """Wait until a cluster is ready.

    The exit status is 4 if it is not in time.
    """
    from minicluster.cluster import Cluster

    def tell(event: Event) -> None:
        if not quiet:
            print(event.text, file=sys.stderr, flush=True)

    begun = time.monotonic()
    opened = Cluster.open(cluster)
    answer = opened.wait(condition, timeout=timeout, listener=tell)
    if output is Output.json:
        print_json(answer)
    elif not quiet:
        met = {"ready": "is ready", "quorum": "has a quorum"}.get(
            condition, f"has {condition.partition('=')[2]} ready nodes"
        )
        print(paint(f"Cluster {answer.cluster} {met} ({time.monotonic() - begun:.1f} s).", "bold"))
