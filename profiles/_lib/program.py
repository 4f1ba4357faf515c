"""What the Python programs in nodes share.

They run under Debian's python3-minimal, which has only a part of the standard library. They start often, and each
import takes time.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False  # typing takes longer to import than the rest
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from typing import NoReturn, TypeVar

    T = TypeVar("T")
    Item = TypeVar("Item")


class NotYet(Exception):
    """Something is not as it should be yet, or cannot be known yet; the message says what."""


def fail(message: str) -> NoReturn:
    """Ends the program with an error message."""
    print(f"{os.path.basename(sys.argv[0])}: {message}", file=sys.stderr)
    sys.exit(1)


def retry(seconds: float, interval: float, action: Callable[[], T]) -> T:
    """Runs an action every ``interval`` seconds until it neither raises ``NotYet`` nor ``OSError``.

    After ``seconds`` the program ends with that error.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return action()
        except (NotYet, OSError) as error:
            if time.monotonic() >= deadline:
                fail(str(error))
        time.sleep(interval)


def connect(host: str, port: int, seconds: float) -> socket.socket:
    """A TCP connection. The error names the address; its type stays, since callers tell time-outs apart."""
    import socket

    try:
        return socket.create_connection((host, port), timeout=seconds)
    except OSError as error:
        raise type(error)(f"{host}:{port} does not answer: {error.strerror or error}") from None


def at_once(action: Callable[[Item], T], items: Sequence[Item]) -> list[T]:
    """Runs an action, which must not raise, for each item in a thread of its own. Returns the results in order."""
    import threading  # most programs do not need it

    results: dict[int, T] = {}

    def run(index: int) -> None:
        results[index] = action(items[index])

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(items))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[index] for index in range(len(items))]
