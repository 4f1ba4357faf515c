"""Whose a cluster is, and until when: what belongs to nobody any more may be removed by anybody.

A cluster made at a terminal has no lease and stays until somebody takes it down. One made by a test belongs to a
process; it is over when that process is. The lease stands in a label of everything that is made for the cluster, so
that whoever meets its remains can tell. A label cannot change: a lease that is renewed is a *term*, the label of a
small volume of its own, and the newest term counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minicluster.errors import UsageError

#: Seconds between two renewals of what belongs to a living process.
BEAT = 20.0

#: Seconds without a renewal after which a process counts as gone for those who cannot look whether it lives: it is on
#: another machine, or in a container. Long enough for a machine that is slow, or asleep for a moment.
GRACE = 600.0

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Process:
    """A process of a machine, such that no other one is ever taken for it."""

    machine: str  #: one boot of one machine
    namespace: str  #: of process ids: within a container they are counted anew
    pid: int
    started: str  #: when, in a form of the system's own

    @classmethod
    def this(cls) -> Process:
        """The process that asks."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has this number now."""
        return cls(_machine(), _namespace(), pid, _started(pid) or "")

    def lives(self) -> bool | None:
        """Whether it is still there; None where that cannot be seen from here."""
        if (self.machine, self.namespace) != (_machine(), _namespace()) or not self.started:
            return None
        started = _started(self.pid)
        return None if started is None else started == self.started

    def __str__(self) -> str:
        return f"process {self.pid}"


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


def seconds(text: str) -> float:
    """A span of time as a user writes it: "90s", "15m", "2h", "1h30m", "7d".

    >>> seconds("1h30m")
    5400.0

    Raises:
        UsageError: it is none.
    """
    total = 0.0
    if re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        total = sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)([smhd])", text))
    if total <= 0:
        raise UsageError(f"{text!r} is no span of time", "", "Write a number and s, m, h or d, such as 30m or 2h.")
    return total


def span(seconds: float) -> str:
    """A span of time for people, in its two greatest units.

    >>> span(5400)
    '1 h 30 min'
    """
    whole = round(seconds)
    units = [(86400, "d"), (3600, "h"), (60, "min"), (1, "s")]
    first = next((i for i, (size, _unit) in enumerate(units) if whole >= size), len(units) - 1)
    parts: list[str] = []
    for size, unit in units[first : first + 2]:
        count, whole = divmod(whole, size)
        if count or not parts:
            parts.append(f"{count} {unit}")
    return " ".join(parts)


def _machine() -> str:
    if sys.platform.startswith("linux"):
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text().strip()  # man 4 random
        except OSError:
            return os.uname().nodename  # a sandbox that hides it
    return _said("sysctl", "-n", "kern.bootsessionuuid")


def _namespace() -> str:
    # man 7 pid_namespaces; only Linux has them.
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def _started(pid: int) -> str | None:
    """When a process started, in the system's own words; "" where there is none; None where that cannot be seen."""
    if not _can_be_there(pid):
        return ""
    if sys.platform.startswith("linux"):
        try:
            # Where the file systems of another namespace are mounted, their numbers are others.
            stat = Path(f"/proc/{pid}/stat").read_text() if os.readlink("/proc/self") == str(os.getpid()) else ""
        except OSError:
            stat = ""  # it ended meanwhile, or /proc hides other users' (its option hidepid)
        if not stat:
            return None if _can_be_there(pid) else ""
        # man 5 proc: the name, in parentheses, may hold anything; after it come the state (field 3) and, in ticks since
        # the boot, the start (22).
        fields = stat.rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    return _said("ps", "-o", "lstart=", "-p", str(pid)) or None


def _can_be_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's
    return True


def _said(*argv: str) -> str:
    # In one language and time zone, since what two processes were told is compared.
    env = os.environ | {"LC_ALL": "C", "TZ": "UTC"}
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=env).stdout.strip()
