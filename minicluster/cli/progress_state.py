"""What a plan's events add up to: where every node stands."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from minicluster.model.events import Event

#: Phases in which nothing more is to happen with a node; others, such as "created", are on the way to one.
SETTLED = frozenset({"ready", "joined", "running", "removed", "stopped", "paused", "killed", "loaded", "reset"})


@dataclass
class Line:
    """What one node is doing, or one thing that is the whole cluster's."""

    name: str
    phase: str = ""
    text: str = ""  #: the last word of a long step, such as a line of an image build's output
    state: str = "pending"  #: pending, busy, done or failed
    began: float = 0.0  #: on the clock, when its first step started
    seconds: float = 0.0  #: how long it took, once it is done or failed


@dataclass
class ProgressState:
    """Where everything stands. Not locked: its owner is."""

    clock: Callable[[], float] = time.monotonic
    headline: str = ""
    began: float = 0.0
    nodes: dict[str, Line] = field(default_factory=dict)
    whole: dict[str, Line] = field(default_factory=dict)  #: by phase: images, network, record; only while under way

    def apply(self, event: Event) -> Line | None:
        """Takes an event in and returns the line that it is about."""
        now = self.clock()
        if event.kind == "plan":
            self.headline, self.began, self.whole = event.text, now, {}
            self.nodes = {name: Line(name) for name in event.nodes}
            return None
        if event.kind == "rollback" and not event.subject:
            # What got ready is on its way out again: only what failed is still worth its line.
            self.headline, self.began, self.whole = event.text or "rolling back", now, {}
            self.nodes = {name: line for name, line in self.nodes.items() if line.state == "failed"}
            return None
        if event.kind not in ("start", "progress", "done", "failed", "rollback"):
            return None
        lines, key = (self.nodes, event.subject) if event.subject else (self.whole, event.phase)
        line = lines.setdefault(key, Line(event.subject))
        if line.state == "pending":
            line.began = now
        line.phase = "failed" if event.kind == "failed" else event.phase or line.phase
        # The text that a step starts with is its name, which for a node says no more than its phase does.
        line.text = event.text if event.kind in ("progress", "failed") or not event.subject else ""
        line.state = "failed" if event.kind == "failed" else "busy"
        if event.kind in ("done", "failed"):
            line.seconds = event.seconds or now - line.began
        if event.kind == "done":
            if not event.subject:
                del self.whole[key]
            line.state = "done" if not event.subject or line.phase in SETTLED else "busy"
        return line

    def finish(self) -> None:
        """The plan was carried out: what was busy is done, whatever the word for its last phase."""
        self.whole.clear()
        for line in self.nodes.values():
            if line.state == "busy":
                line.state, line.seconds = "done", line.seconds or self.clock() - line.began


def with_subject(event: Event) -> str:
    """An event's text, which says whom it is about."""
    if not event.text or not event.subject or event.text.startswith(event.subject):
        return event.text
    return f"{event.subject}: {event.text}"
