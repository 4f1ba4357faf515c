"""Processes of this machine, identified such that no other process is ever taken for one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


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
