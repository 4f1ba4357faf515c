"""Chooses how progress is shown: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TextIO

from minicluster.cli import verbose
from minicluster.cli.output import on_terminal
from minicluster.cli.progress_state import Line, ProgressState, with_subject
from minicluster.cli.termination import terminable
from minicluster.model.events import Event, Listener, ignore
from minicluster.model.naming import printable

#: Seconds between two progress lines of one step.
PAUSE = 5.0


def plain(stream: TextIO, clock: Callable[[], float] = time.monotonic) -> Listener:
    """Writes lines for a log: headlines, notes, each node that is done or failed, and every few seconds the progress of
    long steps."""
    lock = threading.Lock()
    state = ProgressState(clock)
    written: dict[str, float] = {}  # node or phase -> time of its last progress line

    def listen(event: Event) -> None:
        with lock:
            line = state.apply(event)
            about = event.subject or event.phase
            if event.kind == "progress":
                if not event.text or state.clock() - written.get(about, -PAUSE) < PAUSE:
                    return
                written[about] = state.clock()
            text = _plain(event, line)
            if text:
                print(text, file=stream, flush=True)

    return listen


def _plain(event: Event, line: Line | None) -> str:
    """An event as a line of a log; empty if it gets none."""
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
def listening(quiet: bool = False, *, several: bool = False) -> Iterator[Listener]:
    """The listener for a command that changes something. It writes to stderr: stdout is for the command's answer.

    Args:
        several: clusters change at the same time; the live view shows one.
    """
    with terminable():
        if quiet:
            yield _verbose(ignore)
        elif on_terminal(sys.stderr) and not verbose.enabled() and not several:
            from minicluster.cli.live import live

            with live() as listener:
                yield _printable(listener)
        else:
            yield _printable(_verbose(plain(sys.stderr)))


def notices() -> Listener:
    """A listener that writes only notes and what takes long to stderr; with -v, steps are logged too."""
    write = plain(sys.stderr)
    return _printable(_verbose(lambda event: write(event) if event.takes_long else None))


def _printable(listener: Listener) -> Listener:
    """Builds and pulls report what other programs print, with colours and moves of the cursor."""

    def listen(event: Event) -> None:
        text = printable(event.text)
        listener(event if text == event.text else replace(event, text=text))

    return listen


def _verbose(listener: Listener) -> Listener:
    return verbose.log_events(listener) if verbose.enabled() else listener
