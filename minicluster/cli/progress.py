"""Who shows what happens: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from minicluster.cli.board import Line, ProgressState, with_subject
from minicluster.cli.failures import terminable
from minicluster.cli.output import on_terminal
from minicluster.model.events import Event, Listener, ignore

#: Seconds between two lines of a long step's progress where it is written into a log.
PAUSE = 5.0


def plain(stream: TextIO, clock: Callable[[], float] = time.monotonic) -> Listener:
    """Writes what a log should have: the headline, each node that gets where it should be or fails, notes, and of
    what takes long a sign of life every now and then."""
    lock = threading.Lock()
    board = ProgressState(clock)
    said: dict[str, float] = {}  # about whom -> when the last line of its progress was written

    def listen(event: Event) -> None:
        with lock:
            line = board.apply(event)
            about = event.subject or event.phase
            if event.kind == "progress":
                if not event.text or board.clock() - said.get(about, -PAUSE) < PAUSE:
                    return
                said[about] = board.clock()
            text = _plain(event, line)
            if text:
                print(text, file=stream, flush=True)

    return listen


def _plain(event: Event, line: Line | None) -> str:
    """An event as a line of a log; empty where it is worth none."""
    if event.kind in ("plan", "note", "preflight", "rollback"):
        return with_subject(event)
    if event.kind == "failed":
        return f"{event.subject or 'cluster'}: failed" + (f": {event.text}" if event.text else "")
    if event.kind == "progress":
        return f"{event.subject or event.phase or 'cluster'}: {event.text}"
    if event.kind == "done" and event.subject and line and line.state == "done":
        return f"{event.subject}: {line.phase} ({line.seconds:.1f} s)"
    return ""


@contextmanager
def listening(quiet: bool = False) -> Iterator[Listener]:
    """The listener for a command that changes something. It writes to stderr: stdout is for the command's answer."""
    with terminable():
        if quiet:
            yield ignore
        elif on_terminal(sys.stderr):
            from minicluster.cli.live import live

            with live() as listener:
                yield listener
        else:
            yield plain(sys.stderr)
