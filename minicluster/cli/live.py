"""The live view: a headline, a line for the whole cluster, a line per node. Imported only on a terminal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from minicluster.cli.progress_state import Line, ProgressState, with_subject
from minicluster.model.naming import count

if TYPE_CHECKING:
    from minicluster.model.events import Event, Listener

REFRESH = 10  #: times a second
CELL = 30  #: least width of a node's line, in columns
MANY = 10  #: up to this many nodes, each keeps its line at the end


class View:
    """Draws a plan's state at the size of the window. Without rich's table, which takes several times the CPU time."""

    def __init__(self, state: ProgressState, lock: threading.Lock, *, ascii_only: bool = False) -> None:
        self.state = state
        self.lock = lock
        self.frames = "-\\|/" if ascii_only else "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
        self.marks = {"pending": " ", "done": "+" if ascii_only else "✓", "failed": "x" if ascii_only else "✗"}
        self.styles = {"pending": "dim", "busy": "", "done": "green", "failed": "red"}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with self.lock:
            yield from self.lines(options.max_width, options.size.height)

    def lines(self, width: int, height: int) -> list[Text]:
        """The view as fewer than ``height`` lines of at most ``width`` columns."""
        state = self.state
        now = state.clock()
        if not state.headline and not state.nodes and not state.phases:
            return []
        mark = " " if self._over() else self._spinner(now)
        shown = [
            _cut(Text.assemble((f"{mark} ", "cyan"), (state.headline, "bold"), f"  {now - state.began:.1f} s"), width)
        ]
        # The latest phase only, so that the nodes below stay where they are.
        shown += [self._line(line, now, width, 0) for line in list(state.phases.values())[-1:]]
        return shown + self._nodes(list(state.nodes.values()), now, width, max(height - len(shown) - 2, 3))

    def _over(self) -> bool:
        nodes = self.state.nodes.values()
        return bool(nodes) and not self.state.phases and all(line.state == "done" for line in nodes)

    def _nodes(self, lines: list[Line], now: float, width: int, height: int) -> list[Text]:
        most = max(width // CELL, 1)
        if len(lines) > height * most:
            return self._folded(lines, now, width, height)
        across = max(-(-len(lines) // height), 1)
        rows = -(-len(lines) // across) if lines else 0
        pad = max((len(line.name) for line in lines), default=0)
        cell = width // across
        # Column by column, as `ls` does, so that a node stays where it is.
        texts = [self._line(line, now, cell - (2 if across > 1 else 0), pad) for line in lines]
        return [_joined(texts[row::rows], cell) for row in range(rows)]

    def _folded(self, lines: list[Line], now: float, width: int, height: int) -> list[Text]:
        """More nodes than fit: the number of those that are done, and as many of the others as fit."""
        order = {"failed": 0, "busy": 1, "pending": 2}
        rest = sorted((line for line in lines if line.state != "done"), key=lambda line: order[line.state])
        done = len(lines) - len(rest)
        pad = max(len(line.name) for line in lines)
        shown = [Text(f"{self.marks['done']} {done} of {count(len(lines), 'node')}", style="green")]
        fit = height - 1 if len(rest) < height else height - 2
        shown += [self._line(line, now, width, pad) for line in rest[:fit]]
        return shown if len(rest) <= fit else [*shown, Text(f"  and {len(rest) - fit} more", style="dim")]

    def _line(self, line: Line, now: float, width: int, pad: int) -> Text:
        mark = self._spinner(now) if line.state == "busy" else self.marks[line.state]
        seconds = now - line.began if line.state == "busy" and line.began else line.seconds
        clock = f" {seconds:.1f}s" if seconds >= 0.05 else ""
        text = Text(no_wrap=True)
        text.append(f"{mark} ", style=self.styles[line.state] or "cyan")
        if line.name:
            text.append(line.name.ljust(pad) + "  ")
        text.append(line.phase or ("waiting" if line.name else ""), style=self.styles[line.state])
        text.append(clock, style="dim")
        if line.text and line.text != line.phase:
            text.append(("  " if line.name or line.phase else "") + " ".join(line.text.split()), style="dim")
        return _cut(text, width)

    def _spinner(self, now: float) -> str:
        return self.frames[int(now * REFRESH) % len(self.frames)]

    def closing(self) -> list[str]:
        """What stays on the screen: a line per node, or per role if there are many nodes."""
        lines = list(self.state.nodes.values())
        if len(lines) <= MANY:
            pad = max((len(line.name) for line in lines), default=0)
            return [f"{self.marks[n.state]} {n.name:<{pad}}  {n.phase} {n.seconds:.1f}s" for n in lines if _is_final(n)]
        groups: dict[tuple[str, str, str], list[Line]] = {}
        for line in filter(_is_final, lines):
            groups.setdefault((line.state, line.name.rpartition("-")[0] or line.name, line.phase), []).append(line)
        return [
            f"{self.marks[state]} {len(group)} {role}  {phase} in {_range([line.seconds for line in group])} s"
            for (state, role, phase), group in groups.items()
        ]


def _is_final(line: Line) -> bool:
    return line.state in ("done", "failed")


def _range(seconds: list[float]) -> str:
    low, high = f"{min(seconds):.1f}", f"{max(seconds):.1f}"
    return low if low == high else f"{low}-{high}"


def _cut(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    return text


def _joined(cells: list[Text], width: int) -> Text:
    line = Text(no_wrap=True)
    for i, cell in enumerate(cells):
        if i < len(cells) - 1:
            cell.pad_right(width - cell.cell_len)
        line.append_text(cell)
    return line


@contextmanager
def live(console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> Iterator[Listener]:
    """Shows events while the block runs, then leaves a few lines on the screen."""
    console = console or Console(stderr=True, highlight=False)
    state, lock = ProgressState(clock), threading.Lock()
    view = View(state, lock, ascii_only=console.options.ascii_only)

    def keep() -> None:
        with lock:
            closing = view.closing()
        if closing:
            failed = view.marks["failed"]
            lines = (Text(line, style="red" if line.startswith(failed) else "green") for line in closing)
            console.print(Text("\n").join(lines))

    def listen(event: Event) -> None:
        if event.kind in ("note", "preflight"):
            console.print(Text(with_subject(event)))
            return
        if event.kind == "plan":  # the plan of the next cluster, or of a rollback
            keep()
        with lock:
            state.apply(event)

    try:
        with Live(view, console=console, refresh_per_second=REFRESH, transient=True, redirect_stdout=False):
            yield listen
        with lock:
            state.finish()
    finally:
        keep()
