"""The owner of a cluster, and its end: a cluster whose lease has ended may be removed by any process.

A cluster created at a terminal has no lease and stays until it is removed. One created by a test belongs to a
process, and its lease ends with that process. The lease is a label of everything that is created for the cluster, so
that incomplete clusters have it too. Labels cannot change: a renewed lease is a new *generation*, the label of a small
volume of its own, and the newest generation counts.
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

#: Seconds without a renewal after which a process on another machine or in a container, which cannot be observed,
#: counts as ended. Long enough for a machine that is slow or suspended for a moment.
GRACE = 600.0


@dataclass(frozen=True)
class Lease:
    """How long a cluster is kept: as long as a process runs, or until a time, or, with neither, without end."""

    owner: Process | None = None
    until: float | None = None  #: seconds since 1970. Of an owner that cannot be observed: when it counts as ended

    @classmethod
    def owned(cls, owner: Process | None = None) -> Lease:
        """Until a process ends, however it ends; by default the current one."""
        return cls(owner or Process.this(), time.time() + GRACE)

    @classmethod
    def lasting(cls, seconds: float) -> Lease:
        """For so many seconds from now."""
        return cls(None, time.time() + seconds)

    @classmethod
    def parse(cls, text: str) -> Lease:
        """Reads what :meth:`encode` wrote.

        Raises:
            ValueError: the text is not a lease; a newer minicluster may have written it.
        """
        try:
            data = json.loads(text)
            owner = Process(**data["owner"]) if data.get("owner") else None
            until = data.get("until")
            return cls(owner, None if until is None else float(until))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a lease: {text!r}") from error

    def encode(self) -> str:
        """The lease as the text of a label."""
        data: dict[str, Any] = {}
        if self.owner:
            data["owner"] = vars(self.owner)
        if self.until is not None:
            data["until"] = round(self.until)
        return json.dumps(data)

    def renewed(self) -> Lease:
        """The same for a while longer, for an owner that is observed to be running."""
        return replace(self, until=time.time() + GRACE)

    def over(self, now: float | None = None) -> str:
        """Why the lease has ended; "" where it has not, or where that is unknown.

        Args:
            now: seconds since 1970; the present by default.
        """
        lives = self.owner.lives() if self.owner else None
        if lives is not None:
            return "" if lives else f"its owner, {self.owner}, has exited"
        late = (time.time() if now is None else now) - self.until if self.until is not None else 0
        if late <= 0:
            return ""
        if self.owner:
            return f"its owner, {self.owner} on another machine, has not renewed its lease for {span(late + GRACE)}"
        return f"its lease expired {span(late)} ago"

    def __str__(self) -> str:
        """For people: "process 4711", "1 h 50 min left"."""
        if self.owner:
            return str(self.owner)
        return "" if self.until is None else f"{span(max(0.0, self.until - time.time()))} left"
