"""The command line: it parses and prints, and makes no decisions. Besides contrib's commands, only it imports click."""

from __future__ import annotations

import gc
import time

BEGUN = time.monotonic()  #: start of the command: after Python's own start, before all other imports


def main() -> None:
    """The entry point ``minicluster``."""
    # Imported modules are never garbage: collecting among them took a twelfth of the time of `up`.
    gc.set_threshold(50_000)
    try:
        from minicluster.cli.app import run

        run()
    except KeyboardInterrupt:  # before a command could handle it
        raise SystemExit(130) from None
