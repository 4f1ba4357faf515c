"""The time of an ``up``, by phase."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minicluster import cli
from minicluster.cli.output import columns

if TYPE_CHECKING:
    from minicluster.model.events import Event, Listener


@dataclass
class Phase:
    """A phase: from the start of its first step to the end of its last one. Phases overlap."""

    phase: str
    begin: float  #: seconds since the command began
    end: float
    seconds: float
    steps: int  #: how many have ended
    last: str  #: the node whose step ended last; "" for a step of the whole cluster


class Timings:
    """A listener that measures phases and passes events on. The time before and after the plan are phases too."""

    def __init__(
        self, listener: Listener, begun: float = cli.BEGUN, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._listener = listener
        self._begun = begun
        self._clock = clock
        self._lock = threading.Lock()
        self._planned: float | None = None
        self._phases: dict[str, Phase] = {}

    def __call__(self, event: Event) -> None:
        """Handles an event."""
        with self._lock:
            now = self._clock() - self._begun
            if event.kind == "plan" and self._planned is None:
                self._planned = now
            elif event.kind == "start":
                self._phases.setdefault(event.phase, Phase(event.phase, now, now, 0.0, 0, ""))
            elif event.kind == "end" and event.phase in self._phases:
                phase = self._phases[event.phase]
                phase.end, phase.last, phase.steps = now, event.subject, phase.steps + 1
        self._listener(event)

    def phases(self) -> list[Phase]:
        """All phases in the order of their start, up to now."""
        now = self._clock() - self._begun
        steps = sorted(self._phases.values(), key=lambda phase: phase.begin)
        planned = now if self._planned is None else self._planned
        found = [("before the plan", 0.0, planned, 0, "")]
        found += [(p.phase, p.begin, p.end, p.steps, p.last) for p in steps]
        if self._planned is not None:
            found.append(("after the plan", max((p.end for p in steps), default=planned), now, 0, ""))
        return [
            Phase(name, round(begin, 3), round(end, 3), round(end - begin, 3), count, last)
            for name, begin, end, count, last in found
        ]


def table(phases: list[Phase]) -> str:
    """Phases as a table."""
    rows = [
        (p.phase, f"{p.begin:7.2f}", f"{p.end:7.2f}", f"{p.seconds:7.2f}", f"{p.steps or '':>5}", p.last)
        for p in phases
    ]
    return columns(rows, ("PHASE", "  BEGIN", "    END", "SECONDS", "STEPS", "LAST"))
