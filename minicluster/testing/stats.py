"""How many clusters a run created, repaired, reset and removed, and how long that took."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

OPERATIONS = ("created", "repaired", "recreated", "checked", "reset", "removed")


@dataclass
class PoolStats:
    """What a run did with clusters: counts and seconds by operation."""

    counts: Counter[str] = field(default_factory=Counter)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextlib.contextmanager
    def timed(self, operation: str) -> Iterator[None]:
        """Counts and measures an operation, a failed one too."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.counts[operation] += 1
            self.seconds[operation] += time.monotonic() - begun

    def add(self, other: Mapping[str, Mapping[str, float]]) -> None:
        """Adds the figures of another process, as :meth:`dump` returned them."""
        self.counts.update({what: int(n) for what, n in other["counts"].items()})
        for what, n in other["seconds"].items():
            self.seconds[what] += n

    def dump(self) -> dict[str, dict[str, float]]:
        """As plain data."""
        return {"counts": dict(self.counts), "seconds": dict(self.seconds)}

    def __str__(self) -> str:
        """ "3.5 s on clusters: 2 created in 3.1 s, 5 reset in 0.4 s"; empty if nothing was done."""
        parts = [
            f"{self.counts[what]} {what} in {self.seconds[what]:.1f} s" for what in OPERATIONS if self.counts[what]
        ]
        return f"{sum(self.seconds.values()):.1f} s on clusters: {', '.join(parts)}" if parts else ""
