"""The command line: typer and rich, and nothing else of this package imports them. It shows; it decides nothing."""

from __future__ import annotations

import gc
import time

BEGUN = time.monotonic()  #: when the command began, but for Python's own start: every other import is still to come


def main() -> None:
    """The entry point ``minicluster``."""
    # What is imported stays: looking for garbage in it took a twelfth of the time of `up`.
    gc.set_threshold(50_000)
    try:
        from minicluster.cli.app import run

        run()
    except KeyboardInterrupt:  # so early that no command was there to hear it
        raise SystemExit(130) from None
