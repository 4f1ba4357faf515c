"""Commands that watch a cluster: ``top``, ``events``."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from minicluster.cli.help import Command
from minicluster.cli.options import Output, cluster_argument, cluster_option, nodes_argument, output_option
from minicluster.cli.output import columns, on_terminal, paint, plain_data, print_json
from minicluster.cli.target import of_nodes
from minicluster.errors import UsageError
from minicluster.model.naming import size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from minicluster.model.results import ClusterEvent, ClusterUsage

_COLOURS = {
    "die": "red", "oom": "red", "kill": "red", "unready": "red", "quorum-lost": "red", "unknown": "red",
    "start": "green", "ready": "green", "quorum": "green", "known": "green", "leader": "cyan",
}  # fmt: skip


@click.command(cls=Command)
@nodes_argument
@cluster_option
@click.option("--once", is_flag=True, help="Print once instead of every second")
@click.option("-w", "--watch", is_flag=True, help="Print every second where stdout is no terminal, too")
@output_option
def top(nodes: tuple[str, ...], cluster: str | None, once: bool, watch: bool, output: Output) -> None:
    """Show CPU, memory, network and disk usage of nodes.

    Updates every second on a terminal; prints once elsewhere. With -o json it prints an object per line every second,
    unless --once is given.
    """
    if once and watch:
        raise UsageError("--once and --watch cannot be used together", "", "Use either.")
    opened, nodes = of_nodes(cluster, nodes, "top", whole=True)
    try:
        if output is Output.json and not once:
            for usage in opened.usages(nodes):
                print_line(usage)
        elif output is Output.json:
            print_json(opened.usage(nodes))
        elif once or not (watch or on_terminal(sys.stdout)):
            print(_table(opened.usage(nodes)))
        else:
            live(map(_table, opened.usages(nodes)))
    except KeyboardInterrupt:
        if once:
            raise
        raise click.exceptions.Exit(130) from None  # the usual end of watching: no message


def live(texts: Iterable[str]) -> None:
    """Shows texts in the place of each other on a terminal; elsewhere one after the other."""
    if not on_terminal(sys.stdout):
        for number, text in enumerate(texts):
            print(f"\n{text}" if number else text, flush=True)
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(highlight=False), auto_refresh=False) as view:
        for text in texts:
            view.update(Text.from_ansi(text, no_wrap=True, overflow="ellipsis"), refresh=True)


def _table(usage: ClusterUsage) -> str:
    rows = []
    for node in usage.nodes:
        cpu = "-" if node.cpu is None else f"{node.cpu:.1f} %"
        pids = "-" if node.pids is None else str(node.pids)
        memory = "-" if node.memory is None else f"{size(node.memory)} / {size(node.memory_limit)}"
        net, disk = (
            "-" if pair[0] is None else f"{size(pair[0])} / {size(pair[1])}"
            for pair in ((node.received, node.sent), (node.read, node.written))
        )
        phase = paint(node.phase, "green" if node.phase == "running" else "yellow")
        rows.append((node.name, node.role, phase, cpu, memory, pids, net, disk))
    return columns(rows, ("NODE", "ROLE", "PHASE", "CPU", "MEMORY / LIMIT", "PIDS", "NET I/O", "DISK I/O"))


def _seconds(_ctx: click.Context, param: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    from minicluster.model.durations import seconds

    return seconds(text, param.opts[0])


@click.command(cls=Command)
@cluster_argument
@click.option("--since", metavar="TIME", callback=_seconds, help="Start with the events of the last 90s, 10m, 2h or 1d")
@output_option
def events(cluster: str | None, since: float | None, output: Output) -> None:
    """Stream cluster events.

    From the engine: start, die, pause and others. From the cluster itself: ready, unready, leader, quorum-lost,
    quorum; unknown while no member answers. Ends when the cluster is removed.
    """
    from minicluster.cluster import Cluster

    begin = None if since is None else time.time() - since
    opened = Cluster.open(cluster)
    width = max(map(len, opened.node_names()), default=1)
    try:
        for event in opened.events(since=begin):
            if output is Output.json:
                print_line(event)
            else:
                print(_line(event, width), flush=True)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None


def _line(event: ClusterEvent, width: int) -> str:
    milliseconds = int(event.time * 1000)
    clock = f"{time.strftime('%H:%M:%S', time.localtime(milliseconds // 1000))}.{milliseconds % 1000:03}"
    word = f"{event.event:<11}"
    colour = _COLOURS.get(event.event)
    detail = (
        "out of memory" if event.event == "oom" else " ".join(f"{key}={value}" for key, value in event.detail.items())
    )
    return f"{clock}  {event.node or '-':<{width}}  {paint(word, colour) if colour else word}  {detail}".rstrip()


def print_line(value: object) -> None:
    """Prints a value as JSON in a line of its own."""
    import json

    print(json.dumps(plain_data(value), ensure_ascii=False), flush=True)
