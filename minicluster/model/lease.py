"""Whose a cluster is, and until when: what belongs to nobody any more may be removed by anybody.

A cluster made at a terminal has no lease and stays until somebody takes it down. One made by a test belongs to a
process; it is over when that process is. The lease stands in a label of everything that is made for the cluster, so
that whoever meets its remains can tell. A label cannot change: a lease that is renewed is a *term*, the label of a
small volume of its own, and the newest term counts.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import Any

from minicluster.host.processes import Process
from minicluster.model.durations import span

#: Seconds between two renewals of what belongs to a living process.
RENEW_INTERVAL = 20.0

#: Seconds without a renewal after which a process counts as gone for those who cannot look whether it lives: it is on
#: another machine, or in a container. Long enough for a machine that is slow, or asleep for a moment.
GRACE = 600.0


@dataclass(frozen=True)
class Lease:
    """How long a cluster is wanted: as long as a process lives, or until a time, or, with neither, for ever."""

    owner: Process | None = None
    until: float | None = None  #: seconds since 1970. With an owner: when it counts as gone for who cannot see it

    @classmethod
    def owned(cls, owner: Process | None = None) -> Lease:
        """Until a process ends, however it ends; the one that asks by default."""
        return cls(owner or Process.this(), time.time() + GRACE)

    @classmethod
    def lasting(cls, seconds: float) -> Lease:
        """For so many seconds from now."""
        return cls(None, time.time() + seconds)

    @classmethod
    def parse(cls, text: str) -> Lease:
        """What :meth:`encode` made of a lease.

        Raises:
            ValueError: it is none; a newer minicluster may have made it.
        """
        try:
            data = json.loads(text)
            owner = Process(**data["owner"]) if data.get("owner") else None
            until = data.get("until")
            return cls(owner, None if until is None else float(until))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"no lease: {text!r}") from error

    def encode(self) -> str:
        """The lease as the text of a label."""
        data: dict[str, Any] = {}
        if self.owner:
            data["owner"] = vars(self.owner)
        if self.until is not None:
            data["until"] = round(self.until)
        return json.dumps(data)

    def renewed(self) -> Lease:
        """The same for a while longer, its owner having been seen to live."""
        return replace(self, until=time.time() + GRACE)

    def over(self, now: float | None = None) -> str:
        """Why nobody wants the cluster any more; "" where it is wanted, or where that cannot be told.

        Args:
            now: seconds since 1970; the present by default.
        """
        lives = self.owner.lives() if self.owner else None
        if lives is not None:
            return "" if lives else f"its owner, {self.owner}, is gone"
        late = (time.time() if now is None else now) - self.until if self.until is not None else 0
        if late <= 0:
            return ""
        if self.owner:
            return f"its owner, {self.owner} elsewhere, has not been heard of for {span(late + GRACE)}"
        return f"its time was over {span(late)} ago"

    def __str__(self) -> str:
        """For people: "process 4711", "1 h 50 min left"."""
        if self.owner:
            return str(self.owner)
        return "" if self.until is None else f"{span(max(0.0, self.until - time.time()))} left"
