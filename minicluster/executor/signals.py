"""Ignores Ctrl-C where it must not interrupt: during clean-up, and once all work is done."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Within the block neither Ctrl-C nor SIGTERM ends the process.

    Does nothing outside of the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignored() -> None:
    """From now on neither Ctrl-C nor SIGTERM ends the process. For the end of a command whose work is done.

    A signal now is too late to undo anything, and an exit status of 130 would say that nothing is left.
    """
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
