"""Commands that look at a cluster for a while: ``top``, ``events``."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from minicluster.cli.options import ClusterOption, NodesArgument, Output, OutputOption
from minicluster.cli.output import columns, on_terminal, paint, plain_data, print_json, size
from minicluster.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from minicluster.model.results import ClusterEvent, ClusterUsage

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_COLOURS = {
    "die": "red", "oom": "red", "kill": "red", "unready": "red", "quorum-lost": "red", "unknown": "red",
    "start": "green", "ready": "green", "quorum": "green", "known": "green", "leader": "cyan",
}  # fmt: skip


def top(
    words: NodesArgument = None,
    cluster: ClusterOption = None,
    once: Annotated[bool, typer.Option("--once", help="Look once rather than every second.")] = False,
    output: OutputOption = Output.text,
) -> None:
    """Show what nodes use: CPU, memory, network, disk.

    Every second, on a terminal; else once. With -o json an object a line every second, unless --once.
    """
    from minicluster.cluster import Cluster

    opened = Cluster.open(cluster)
    try:
        if output is Output.json and not once:
            for usage in opened.usages(words or []):
                _print_line(usage)
        elif output is Output.json:
            print_json(opened.usage(words or []))
        elif once or not on_terminal(sys.stdout):
            print(_table(opened.usage(words or [])))
        else:
            _live(opened.usages(words or []))
    except KeyboardInterrupt:
        if once:
            raise
        raise typer.Exit(130) from None  # the usual end of watching, and nothing to make words about


def _live(usages: Iterable[ClusterUsage]) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(highlight=False), auto_refresh=False) as view:
        for usage in usages:
            view.update(Text.from_ansi(_table(usage), no_wrap=True, overflow="ellipsis"), refresh=True)


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
    return columns(
        rows, ("NODE", "ROLE", "PHASE", "CPU", "MEMORY / LIMIT", "PIDS", "NET IN / OUT", "DISK READ / WRITTEN")
    )


def events(
    cluster: ClusterOption = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Begin with what happened in the last 90s, 10m, 2h or 1d."),
    ] = None,
    output: OutputOption = Output.text,
) -> None:
    """Tell what happens to a cluster, as it happens.

    By the engine (start, die, pause, ...), and by the cluster's own software: ready, unready, leader, quorum-lost,
    quorum, and unknown while none of its members answers. Ends when the cluster is gone.
    """
    from minicluster.cluster import Cluster

    begin = None if since is None else time.time() - _seconds(since)
    opened = Cluster.open(cluster)
    width = max(map(len, opened.node_names()), default=1)
    try:
        for event in opened.events(since=begin):
            if output is Output.json:
                _print_line(event)
            else:
                print(_line(event, width), flush=True)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _seconds(word: str) -> float:
    number, unit = (word[:-1], _UNITS[word[-1]]) if word[-1:] in _UNITS else (word, 1)
    if not (number.isascii() and number.isdecimal()):
        raise UsageError(f"--since {word}: this is not a time.", fix="Write a number and s, m, h or d, such as 10m.")
    return float(number) * unit


def _line(event: ClusterEvent, width: int) -> str:
    milliseconds = int(event.time * 1000)
    clock = f"{time.strftime('%H:%M:%S', time.localtime(milliseconds // 1000))}.{milliseconds % 1000:03}"
    word = f"{event.event:<11}"
    colour = _COLOURS.get(event.event)
    detail = " ".join(f"{key}={value}" for key, value in event.detail.items())
    return f"{clock}  {event.node or '-':<{width}}  {paint(word, colour) if colour else word}  {detail}".rstrip()


def _print_line(value: ClusterUsage | ClusterEvent) -> None:
    import json

    print(json.dumps(plain_data(value), ensure_ascii=False), flush=True)
