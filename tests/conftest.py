"""For all tests."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Makes Ctrl-C heard: a shell that starts the tests in the background lets them, and all they start, ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
