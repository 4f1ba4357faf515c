"""``bench kv``: key-value stores compared on this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from minicluster.cli import complete
from minicluster.cli.help import Group
from minicluster.cli.options import Output, numbers, output_option, pairs, pairs_option, quiet_option
from minicluster.cli.output import columns, paint, plain_data, print_json
from minicluster.cli.progress import listening
from minicluster.errors import UsageError

if TYPE_CHECKING:
    from minicluster.benchmark.report import Load, Report

bench = Group("bench", help="Compare cluster systems on this machine.")


def _whole(_ctx: click.Context, param: click.Parameter, words: str) -> list[int]:
    """A callback: numbers with commas between them."""
    found = []
    for word in words.split(","):
        if not (word.isascii() and word.isdecimal() and 0 < int(word) <= 1024):
            raise UsageError(f"{param.opts[0]} {words}: must be numbers from 1 to 1024, with commas between them")
        found.append(int(word))
    return list(dict.fromkeys(found))


def _operations(_ctx: click.Context, param: click.Parameter, words: str) -> list[str]:
    known = ("put", "get", "mixed")
    if unknown := [word for word in words.split(",") if word not in known]:
        raise UsageError(f"{param.opts[0]} {words}: {unknown[0]!r} is not one of {', '.join(known)}")
    return list(dict.fromkeys(words.split(",")))


def _size(ctx: click.Context, param: click.Parameter, words: Sequence[str]) -> int:
    found = numbers(1)(ctx, param, words)
    if unknown := [name for name in found if name != "kv"]:
        raise UsageError(f"--size {unknown[0]}: must be kv=N", "", "It is the number of nodes that store the data.")
    return found.get("kv", 3)


@bench.command()
@click.argument(
    "profiles",
    nargs=-1,
    metavar="[PROFILE...]",
    help="Profiles to compare (default: all)",
    shell_complete=complete.profiles,
)
@pairs_option("--size", metavar="kv=N", callback=_size, help="Nodes of each that store the data (default: 3)")
@pairs_option(
    "--set", "settings", metavar="[PROFILE:]PATH=VALUE", callback=pairs, help="Override a setting, of all or of one"
)
@click.option(
    "--operations", default="put,get,mixed", metavar="LIST", callback=_operations, help="Default: put,get,mixed"
)
@click.option(
    "--clients", default="1,16,64", metavar="LIST", callback=_whole, help="Clients at the same time (default: 1,16,64)"
)
@click.option(
    "--connections",
    default="1,16",
    metavar="LIST",
    callback=_whole,
    help="Connections that they share (default: 1,16); never more than clients",
)
@click.option("--seconds", default=3.0, type=click.FloatRange(0.5, 600), metavar="S", help="Of a round (default: 3)")
@click.option("--warmup", default=1.0, type=click.FloatRange(0, 600), metavar="S", help="Before the first (default: 1)")
@click.option("--rounds", default=3, type=click.IntRange(1, 100), metavar="N", help="For each load (default: 3)")
@click.option("--keys", default=1000, type=click.IntRange(1, 1_000_000), metavar="N", help="Keys (default: 1000)")
@click.option(
    "--value", default=1024, type=click.IntRange(1, 500_000), metavar="BYTES", help="Size of values (default: 1024)"
)
@click.option("--kill-leader", is_flag=True, help="Kill the leader in every round, and measure how long writes stop")
@click.option("--chart", metavar="FILE", help="Write a chart, SVG")
@output_option
@quiet_option
def kv(
    profiles: tuple[str, ...],
    size: int,
    settings: dict[str, str],
    operations: list[str],
    clients: list[int],
    connections: list[int],
    seconds: float,
    warmup: float,
    rounds: int,
    keys: int,
    value: int,
    kill_leader: bool,
    chart: str | None,
    output: Output,
    quiet: bool,
) -> None:
    """Compare key-value stores: a cluster of each, one after the other, under the same load.

    With --kill-leader: puts by the largest number of clients, in rounds of at least 8 seconds.
    """
    from minicluster.benchmark import run
    from minicluster.benchmark.report import Load
    from minicluster.paths import expanded

    pairs_ = [(c, n) for c in clients for n in connections if n <= c]
    if not pairs_:
        raise UsageError("--connections: each number is greater than that of clients")
    loads = [Load(operation, *pair) for operation in operations for pair in pairs_]
    if kill_leader:
        loads, seconds = [Load("put", *max(pairs_))], max(seconds, 8.0)
    options = run.Options(size, tuple(loads), seconds, warmup, rounds, keys, value, kill_leader)
    file = expanded(chart) if chart else None
    if file and not file.parent.is_dir():
        raise UsageError(f"--chart {chart}: no such folder: {file.parent}")
    with listening(quiet, several=True) as listener:
        report = run.run(profiles, options, _by_profile(settings), listener)
    if file:
        from minicluster.benchmark import chart as drawing

        try:
            file.write_text(drawing.draw(report), encoding="utf-8")
        except OSError as error:
            print(f"Note: cannot write {file}: {error.strerror}", file=sys.stderr)
    if output is Output.json:
        print_json(_data(report))
    else:
        print(text(report))


def _by_profile(settings: dict[str, str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for path, value in settings.items():
        profile, colon, rest = path.partition(":")
        found.setdefault(profile if colon else "", {})[rest if colon else path] = value
    return found


def _data(report: Report) -> dict[str, object]:
    """The report as JSON has it, with what is computed of rounds."""
    data: dict[str, object] = plain_data(report)
    for system, its in zip(report.systems, data["systems"], strict=True):  # type: ignore[call-overload]
        for point, one in zip(system.points, its["points"], strict=True):
            one |= {"rate": point.middle("rate"), "spread": list(point.spread), "client_bound": point.client_bound}
            for found, round_ in zip(point.rounds, one["rounds"], strict=True):
                round_ |= {"rate": found.rate, "client_bound": found.client_bound}
    return data


def text(report: Report) -> str:
    """The report for a terminal, at most 80 columns where names are short."""
    from minicluster.benchmark import report as reading

    lines = []
    for load in reading.loads(report):
        lines += [paint(_title(load), "bold"), (_gaps if report.bucket else _rates)(report, load), ""]
    lines += _about(report)
    return "\n".join(lines)


def _title(load: Load) -> str:
    clients, connections = load.clients, load.connections
    plural = f"client{'' if clients == 1 else 's'} on {connections} connection{'' if connections == 1 else 's'}"
    return f"{load.operation}, {clients} {plural}"


def _rates(report: Report, load: Load) -> str:
    from minicluster.benchmark.report import name_of

    rows = []
    for system in report.systems:
        for point in system.points:
            if point.load == load:
                low, high = point.spread
                rank = report.ranks.get(name_of(load), {}).get(system.profile)
                client = f"{point.middle('client_share'):.0%}"
                bound = sum(one.client_bound for one in point.rounds)
                client += f" bound {bound}/{len(point.rounds)}" if bound else ""
                times = [f"{point.middle(name):.2f}" for name in ("p50", "p95", "p99")]
                row = [str(rank or "-"), system.label, f"{point.middle('rate'):.0f}", f"{low:.0f}-{high:.0f}"]
                rows.append([*row, *times, client, str(point.errors or "")])
    rows.sort(key=lambda row: -float(row[2]))
    head = ["RANK", "SYSTEM", "PER S", "ROUNDS", "P50 MS", "P95", "P99", "CLIENT", "ERRORS"]
    return columns(*_without_empty(rows, head), indent="  ")


def _without_empty(rows: list[list[str]], head: list[str]) -> tuple[list[list[str]], list[str]]:
    """Without the last column, where nothing is in it."""
    if any(row[-1] for row in rows):
        return rows, head
    return [row[:-1] for row in rows], head[:-1]


def _gaps(report: Report, load: Load) -> str:
    rows = []
    for system in report.systems:
        for point in system.points:
            if point.load == load:
                gaps = sorted(one.gap for one in point.rounds)
                row = [system.label, f"{point.middle('gap'):.2f}", f"{gaps[0]:.2f}-{gaps[-1]:.2f}"]
                rows.append([*row, f"{point.middle('rate'):.0f}", str(point.errors)])
    rows.sort(key=lambda row: float(row[1]))
    return columns(rows, ["SYSTEM", "NO WRITE FOR S", "ROUNDS", "PER S", "ERRORS"], indent="  ")


def _about(report: Report) -> list[str]:
    from minicluster.model.naming import size

    machine = report.machine
    lines = [
        f"Machine: {machine.cpus} processors, {size(machine.memory)}, {machine.engine}, {machine.storage}; "
        "nodes and clients share it.",
        f"Values of {report.value} bytes, {report.keys} keys; {report.rounds} rounds of {report.seconds:g} s after "
        f"{report.warmup:g} s of warm-up; the median.",
    ]
    if report.busy:
        lines.append(f"The machine was busy with something else: load {machine.load_before} before the first round.")
    if not report.bucket:
        share = f"{report.client_bound:.0%}"
        lines.append(f"bound: rounds whose client took over {share} of the processor time; they are not ranked.")
        lines.append("Systems whose rounds overlap share a rank.")
    for system in report.systems:
        lines += ["", f"{system.label}, {system.nodes} nodes"]
        lines += [f"  writes: {system.writes}", f"  reads:  {system.reads}"]
        lines += [f"  set:    {name}={value}" for name, value in system.set.items()]
    return [*lines, "", "Not compared:", *(f"  {one}" for one in report.not_compared)]
