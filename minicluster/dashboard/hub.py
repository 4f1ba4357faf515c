"""What pages are told: the newest of each topic, and the last events. Watching threads write, connections read."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

_EVENTS = 200  # that a new page is told of


@dataclass(frozen=True)
class News:
    """What is new since a version."""

    version: int
    topics: dict[str, Any]  #: None for what is gone
    events: list[Any]  #: oldest first


class Hub:
    """Thread-safe. A slow reader gets what is newest when it reads, not all that was in between."""

    def __init__(self) -> None:
        self.watched = threading.Event()  #: a page is open: only then nodes are asked anything
        self._lock = threading.Lock()
        self._version = 0
        self._topics: dict[str, tuple[int, str]] = {}
        self._events: deque[tuple[int, Any]] = deque(maxlen=_EVENTS)
        self._listeners: list[Callable[[], None]] = []

    def put(self, topic: str, data: Any) -> None:
        """The newest of a topic; None: it is gone. Nothing is told where it is what it was."""
        text = json.dumps(data)
        with self._lock:
            known = self._topics.get(topic)
            if known and known[1] == text:
                return
            self._version += 1
            self._topics[topic] = (self._version, text)
        self.wake()

    def happened(self, event: Any) -> None:
        """One more event."""
        with self._lock:
            self._version += 1
            self._events.append((self._version, event))
        self.wake()

    def since(self, version: int) -> News:
        """What is new since a version; everything there is since version 0."""
        with self._lock:
            fresh = {topic: text for topic, (changed, text) in self._topics.items() if changed > version}
            events = [event for happened, event in self._events if happened > version]
            now = self._version
        found = {topic: json.loads(text) for topic, text in fresh.items()}
        if version == 0:
            found = {topic: data for topic, data in found.items() if data is not None}
        return News(now, found, events)

    @contextmanager
    def listening(self, callback: Callable[[], None]) -> Iterator[None]:
        """Calls a function, from any thread, whenever there is something new; a page is open meanwhile."""
        with self._lock:
            self._listeners.append(callback)
            self.watched.set()
        try:
            yield
        finally:
            with self._lock:
                self._listeners.remove(callback)
                if not self._listeners:
                    self.watched.clear()

    def wake(self) -> None:
        """Lets readers look whether there is something new."""
        with self._lock:
            listeners = [*self._listeners]
        for callback in listeners:
            callback()
