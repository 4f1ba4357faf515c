"""Waiting for what is eventually so. One loop, for every probe."""

from __future__ import annotations

import time
from collections.abc import Callable

from minicluster.engine.protocol import Cancel
from minicluster.errors import Interrupted, NotReady

INTERVAL = 0.05  #: seconds between two tries; short, since a probe may itself wait in the node


def poll(
    check: Callable[[], str],
    *,
    what: str,
    deadline: float,
    cancel: Cancel,
    interval: float = INTERVAL,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Calls a check until it answers with nothing.

    Args:
        check: returns "" when all is well, else what is not yet; raises where waiting longer is in vain.
        what: what is waited for, for the error.
        deadline: on the clock, in seconds.
        cancel: sleeps between tries, and ends the wait when set.

    Raises:
        NotReady: at the deadline, with the last answer.
        Interrupted: when cancelled.
    """
    while True:
        answer = check()
        if not answer:
            return
        if clock() >= deadline:
            raise NotReady(f"{what} is not ready in time", f"Its last answer: {answer}")
        if cancel.wait(interval):
            raise Interrupted(f"stopped waiting for {what}")
