"""Handles SIGTERM and SIGHUP like Ctrl-C: a KeyboardInterrupt, on which a change is rolled back."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def repeated(seconds: float = 0.01) -> Iterator[Callable[[], bool]]:
    """Raises again, after this many seconds, an interrupt that Python dropped; yields whether there was one.

    Python drops exceptions in finalizers, and in callbacks from compiled code such as pydantic's.
    """
    before = sys.unraisablehook
    threads: list[threading.Thread] = []
    over = threading.Event()

    def hook(dropped: Any) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            before(dropped)
            return
        # Processes that a shell starts in the background ignore SIGINT: then it was another signal.
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        number = signal.SIGTERM if ignored else signal.SIGINT
        returning = threading.Event()  # inside this hook Python would drop the new interrupt too

        def interrupt() -> None:
            returning.wait()
            if not over.wait(seconds):
                os.kill(os.getpid(), number)

        threads.append(threading.Thread(target=interrupt, daemon=True))
        try:
            threads[-1].start()
        finally:
            returning.set()

    sys.unraisablehook = hook
    try:
        yield lambda: bool(threads)
    finally:
        sys.unraisablehook = before
        over.set()
        for thread in threads:
            thread.join()  # too late to cancel: the interrupt is raised here


@contextmanager
def terminable() -> Iterator[None]:
    """Handles SIGTERM and SIGHUP like Ctrl-C, so that a change is rolled back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # SIGHUP: the terminal was closed. Under nohup it is ignored, and stays so.
    handled = (n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN)
    before = {number: signal.signal(number, interrupt) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is interrupt:
                signal.signal(number, handler)
