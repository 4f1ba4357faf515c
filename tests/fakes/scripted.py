"""Calls that are recorded, and fail where a test wants them to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class _Failure:
    kind: str
    error: BaseException | Callable[[], None]
    nth: int
    match: str
    seen: int = 0


class Scripted:
    """Records calls; :meth:`fail` makes one of them fail."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []  #: kind of call and what it was about, of changes and commands only
        self._failures: list[_Failure] = []
        self._lock = threading.RLock()

    def fail(self, kind: str, error: BaseException | Callable[[], None], *, nth: int = 1, match: str = "") -> None:
        """Makes the n-th call of a kind (a method's name; "" is any) about something with ``match`` in its name raise.

        A function is called in place of raising: it may change the world, and raise or not.
        """
        self._failures.append(_Failure(kind, error, nth, match))

    def heal(self) -> None:
        """Nothing fails any more that has not yet."""
        self._failures.clear()

    def did(self, kind: str) -> list[str]:
        """What the calls of a kind were about, in their order."""
        return [about for called, about in self.calls if called == kind]

    def _call(self, kind: str, about: str) -> None:
        with self._lock:
            self.calls.append((kind, about))
            due = None
            for failure in self._failures:
                if failure.kind in ("", kind) and failure.match in about:
                    failure.seen += 1
                    due = failure if failure.seen == failure.nth else due
        if due:
            if isinstance(due.error, BaseException):
                raise due.error
            due.error()
