"""Asks calls that are under way in other threads to end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Cancel:
    """Asks running calls to end. Thread-safe; once set, it stays set."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: dict[object, Callable[[], None]] = {}

    def set(self) -> None:
        """Asks all calls to end."""
        with self._lock:
            self._event.set()
            callbacks = list(self._callbacks.values())
        for callback in callbacks:
            callback()

    def is_set(self) -> bool:
        """Whether :meth:`set` was called."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleeps, but only until :meth:`set` is called; returns whether it was."""
        return self._event.wait(seconds)

    @contextmanager
    def calls(self, callback: Callable[[], None]) -> Iterator[None]:
        """Within the block, :meth:`set` calls ``callback``, which unblocks what the block waits for."""
        key = object()
        with self._lock:
            self._callbacks[key] = callback
            asked = self._event.is_set()
        try:
            if asked:
                callback()
            yield
        finally:
            with self._lock:
                del self._callbacks[key]
