"""The state of a running plan, built from its events."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minicluster.model.events import Event

#: Final phases of a node; others, such as "created", are intermediate.
FINAL = frozenset({"ready", "joined", "running", "removed", "stopped", "paused", "killed", "loaded", "reset"})


@dataclass
class Line:
    """The state of one node, or of one phase of the whole cluster."""

    name: str
    phase: str = ""
    text: str = ""  #: the latest output of a long step, such as an image build
    state: str = "pending"  #: pending, busy, done or failed
    began: float = 0.0  #: clock time at which its first step started
    seconds: float = 0.0  #: duration, once it is done or failed


@dataclass
class ProgressState:
    """The nodes and the phases of a plan. Not thread-safe: the owner locks it."""

    clock: Callable[[], float] = time.monotonic
    headline: str = ""
    began: float = 0.0
    nodes: dict[str, Line] = field(default_factory=dict)
    phases: dict[str, Line] = field(default_factory=dict)  #: running ones of the whole cluster: images, network, record

    def apply(self, event: Event) -> Line | None:
        """Applies an event and returns the line that it changed."""
        now = self.clock()
        if event.kind == "plan":
            self.headline, self.began, self.phases = event.text, now, {}
            self.nodes = {name: Line(name) for name in event.nodes}
            return None
        if event.kind == "rollback" and not event.subject:
            # Nodes that were ready are being removed: only failed ones keep their lines.
            self.headline, self.began, self.phases = event.text or "rolling back", now, {}
            self.nodes = {name: line for name, line in self.nodes.items() if line.state == "failed"}
            return None
        if event.kind not in ("start", "progress", "done", "failed", "rollback"):
            return None
        lines, key = (self.nodes, event.subject) if event.subject else (self.phases, event.phase)
        line = lines.setdefault(key, Line(event.subject))
        if line.state == "pending":
            line.began = now
        line.phase = "failed" if event.kind == "failed" else event.phase or line.phase
        # A step's first text is its name; for a node it repeats the phase.
        line.text = event.text if event.kind in ("progress", "failed") or not event.subject else ""
        line.state = "failed" if event.kind == "failed" else "busy"
        if event.kind in ("done", "failed"):
            line.seconds = event.seconds or now - line.began
        if event.kind == "done":
            if not event.subject:
                del self.phases[key]
            line.state = "done" if not event.subject or line.phase in FINAL else "busy"
        return line

    def finish(self) -> None:
        """Marks busy nodes as done: the plan has ended without an error."""
        self.phases.clear()
        for line in self.nodes.values():
            if line.state == "busy":
                line.state, line.seconds = "done", line.seconds or self.clock() - line.began


def with_subject(event: Event) -> str:
    """An event's text, prefixed with its node unless it starts with it."""
    if not event.text or not event.subject or event.text.startswith(event.subject):
        return event.text
    return f"{event.subject}: {event.text}"
