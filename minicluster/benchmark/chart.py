"""Draws a comparison as SVG, by the template beside this file."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minicluster.benchmark.report import Load, Point, Report, System, loads, name_of
from minicluster.model.naming import count, size

#: Of systems, in their order; readable on white, and apart for those who see fewer colours.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
_WIDTH, _LEFT, _RIGHT = 900, 90, 20
_HEIGHT, _TOP, _BETWEEN = 170, 85, 70  #: of a panel; of the title; between panels
_LINE, _COLUMNS = 16, 150  #: of the notes below


@dataclass(frozen=True)
class _Bar:
    x: float
    y: float
    width: float
    height: float
    low: float  #: y of the slowest round
    high: float
    color: str
    bound: bool  #: client-bound
    text: str
    title: str


@dataclass(frozen=True)
class _Panel:
    title: str
    y: float
    bottom: float
    ticks: tuple[tuple[float, str], ...]
    groups: tuple[tuple[float, str], ...] = ()
    bars: tuple[_Bar, ...] = ()
    line: str = ""  #: points of a timeline
    color: str = ""
    killed: float = 0
    gap: tuple[float, float, str] | None = None  #: x, width, text


def draw(report: Report) -> str:
    """The chart, an SVG document: a panel for each operation, or one for each system whose leader was killed."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    panels = _timelines(report) if report.bucket else _bars(report)
    colors = {system.profile: _COLORS[i % len(_COLORS)] for i, system in enumerate(report.systems)}
    notes = [line for note in _notes(report) for line in textwrap.wrap(note, _COLUMNS)]
    bottom = panels[-1].bottom + _BETWEEN if panels else _TOP
    folder = Path(__file__).parent
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("chart.svg.j2").render(
        title="Writes while the leader dies"
        if report.bucket
        else "Key-value stores: answers per second (more is better)",
        panels=panels,
        systems=[(system.label, colors[system.profile]) for system in report.systems],
        notes=notes,
        width=_WIDTH,
        height=bottom + _LINE * (len(notes) + 1),
        left=_LEFT,
        right=_WIDTH - _RIGHT,
        bottom=bottom,
        line=_LINE,
    )


def _bars(report: Report) -> list[_Panel]:
    panels: list[_Panel] = []
    every = loads(report)
    for n, operation in enumerate(dict.fromkeys(load.operation for load in every)):
        top = _TOP + n * (_HEIGHT + _BETWEEN)
        here = [load for load in every if load.operation == operation]
        points = {(s.profile, p.load): p for s in report.systems for p in s.points if p.load in here}
        most = _round_up(max(point.spread[1] for point in points.values()))
        group = (_WIDTH - _LEFT - _RIGHT) / len(here)
        width = min(60.0, group * 0.8 / len(report.systems))
        bars, groups = [], []
        for i, load in enumerate(here):
            first = _LEFT + group * (i + 0.5) - width * len(report.systems) / 2
            groups.append((_LEFT + group * (i + 0.5), f"{load.clients} x {load.connections}"))
            for j, system in enumerate(report.systems):
                if point := points.get((system.profile, load)):
                    bars.append(
                        _bar(report, system, point, first + j * width, width, top, most, _COLORS[j % len(_COLORS)])
                    )
        panels.append(_Panel(operation, top, top + _HEIGHT, _ticks(most, top), tuple(groups), tuple(bars)))
    return panels


def _bar(
    report: Report, system: System, point: Point, x: float, width: float, top: float, most: float, color: str
) -> _Bar:
    def y(rate: float) -> float:
        return round(top + _HEIGHT * (1 - rate / most), 1)

    rate, (low, high) = point.middle("rate"), point.spread
    rank = report.ranks.get(name_of(point.load), {}).get(system.profile)
    latency = f"p50 {point.middle('p50'):.2f} ms, p99 {point.middle('p99'):.2f} ms"
    ranked = f"rank {rank}" if rank else "client-bound: no rank"
    title = f"{system.label}, {_said(point.load)}: {rate:.0f}/s ({low:.0f} to {high:.0f}), {latency}, {ranked}"
    at, height = y(rate), round(_HEIGHT * rate / most, 1)
    return _Bar(
        round(x, 1), at, round(width - 3, 1), height, y(low), y(high), color, point.client_bound, _short(rate), title
    )


def _said(load: Load) -> str:
    return f"{load.operation}, {count(load.clients, 'client')}, {count(load.connections, 'connection')}"


def _timelines(report: Report) -> list[_Panel]:
    panels = []
    longest = max((len(r.timeline) for s in report.systems for p in s.points for r in p.rounds), default=1)
    step = (_WIDTH - _LEFT - _RIGHT) / longest
    shown = [(i, s, p) for i, s in enumerate(report.systems) for p in s.points]
    for n, (i, system, point) in enumerate(shown):
        top = _TOP + n * (_HEIGHT + _BETWEEN)
        # The round whose gap is the median one.
        one = sorted(point.rounds, key=lambda r: r.gap)[len(point.rounds) // 2]
        rates = [answers / report.bucket for answers in one.timeline]
        most = _round_up(max(rates, default=1))
        dots = [
            f"{_LEFT + step * (k + 0.5):.1f},{top + _HEIGHT * (1 - rate / most):.1f}" for k, rate in enumerate(rates)
        ]
        second = step / report.bucket
        gaps = [r.gap for r in point.rounds]
        text = f"no answer for {one.gap:.2f} s (of {len(gaps)} rounds: {min(gaps):.2f} to {max(gaps):.2f} s)"
        marks = tuple((_LEFT + second * t, f"{t} s") for t in range(int(longest * report.bucket) + 1))
        panels.append(
            _Panel(
                f"{system.label}: {_said(point.load)}; {one.killed} is killed",
                top,
                top + _HEIGHT,
                _ticks(most, top),
                marks,
                line=" ".join(dots),
                color=_COLORS[i % len(_COLORS)],
                killed=round(_LEFT + second * one.killed_at, 1),
                gap=(round(_LEFT + second * one.gap_begin, 1), round(second * one.gap, 1), text),
            )
        )
    return panels


def _notes(report: Report) -> Sequence[str]:
    machine = report.machine
    processor = f" ({machine.processor})" if machine.processor else ""
    shown = "that of the median gap" if report.bucket else "the median, and a line from the slowest to the fastest"
    notes = [
        f"{report.began} UTC, minicluster {report.minicluster}, {machine.engine}, {machine.storage}, "
        f"Linux {machine.kernel}; {machine.cpus} processors{processor}, {size(machine.memory)}",
        f"Values of {report.value} bytes, {report.keys} keys; {report.rounds} rounds of {report.seconds:g} s after "
        f"{report.warmup:g} s of warm-up: {shown}.",
    ]
    if not report.bucket:
        notes.append(
            "Below the bars: clients x connections. Hatched: the load generator took over "
            f"{report.client_bound:.0%} of the processor time; no rank."
        )
    if report.busy:
        notes.append(f"The machine was busy with something else (load {machine.load_before}).")
    for system in report.systems:
        options = "".join(f", {name}={value}" for name, value in system.set.items() if len(value) < 20)
        notes.append(f"{system.label}, {system.nodes} nodes{options}. Writes: {system.writes}. Reads: {system.reads}.")
    return [*notes, "Not compared: " + " ".join(report.not_compared[1:])]


def _round_up(value: float) -> float:
    """The next number with one digit and zeros, or with a 5 behind it: where an axis ends."""
    if value <= 0:
        return 1.0
    unit = 10 ** math.floor(math.log10(value))
    return float(next(unit * step for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if unit * step >= value))


def _ticks(most: float, top: float) -> tuple[tuple[float, str], ...]:
    return tuple((top + _HEIGHT * (1 - part), _short(most * part)) for part in (0, 0.5, 1))


def _short(rate: float) -> str:
    return f"{rate / 1000:.3g}k" if rate >= 1000 else f"{rate:.3g}"
