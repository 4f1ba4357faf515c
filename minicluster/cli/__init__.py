"""The command line: it parses and prints, and makes no decisions. Besides contrib's commands, only it imports click."""

from __future__ import annotations

import gc
import os
import sys
import time

BEGUN = time.monotonic()  #: start of the command: after Python's own start, before all other imports


def main() -> None:
    """The entry point ``minicluster``."""
    _open_streams()
    # Imported modules are never garbage: collecting among them took a twelfth of the time of `up`.
    gc.set_threshold(50_000)
    try:
        from minicluster.cli.app import run

        run()
    except KeyboardInterrupt:  # before a command could handle it
        raise SystemExit(130) from None
    finally:
        gc.freeze()  # the last collection, at the end of the process, finds nothing to look at


def _open_streams() -> None:
    """Gives what was started with closed standard streams (``minicluster up >&-``) the null device for them.

    Otherwise Python has none, and the next file that is opened would get their numbers: a lock, or the engine's socket.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115  # for good
