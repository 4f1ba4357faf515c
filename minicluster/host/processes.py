"""Processes of this machine: starting detached ones, and identifying one so that no other is ever taken for it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any


@dataclass(frozen=True)
class Process:
    """Identifies a process so that no other one is ever taken for it, even if it gets the same number later."""

    machine: str  #: one boot of one machine
    namespace: str  #: of process IDs: every container counts its own
    pid: int
    started: str  #: when it started, in a format of the operating system's

    @classmethod
    def this(cls) -> Process:
        """The calling process."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has this ID now."""
        return cls(_machine(), _namespace(), pid, _started(pid) or "")

    def lives(self) -> bool | None:
        """Whether it still runs; None where that cannot be seen from here."""
        if (self.machine, self.namespace) != (_machine(), _namespace()) or not self.started:
            return None
        started = _started(self.pid)
        return None if started is None else started == self.started

    def __str__(self) -> str:
        return f"process {self.pid}"


def start_detached(
    argv: Sequence[str],
    *,
    stdin: int | IO[Any] = subprocess.DEVNULL,
    stdout: int | IO[Any] = subprocess.DEVNULL,
    stderr: int | IO[Any] | None = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Starts a process that neither Ctrl-C nor the end of the terminal reaches, and that keeps no folder in use.

    It runs in a session of its own, in the folder ``/``, without input or output unless given. ``stderr=None`` is ours.
    """
    return subprocess.Popen(
        argv, stdin=stdin, stdout=stdout, stderr=stderr, env=env, cwd="/", start_new_session=True
    )  # fmt: skip


def _machine() -> str:
    if sys.platform.startswith("linux"):
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text().strip()  # man 4 random
        except OSError:
            return os.uname().nodename  # hidden by a sandbox
    return _output("sysctl", "-n", "kern.bootsessionuuid")


def _namespace() -> str:
    # man 7 pid_namespaces; only Linux has them.
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def _started(pid: int) -> str | None:
    """When a process started, as the system prints it; "" where there is none; None where that cannot be seen."""
    if not _may_exist(pid):
        return ""
    if sys.platform.startswith("linux"):
        try:
            # Where /proc is another namespace's, its IDs are not ours.
            stat = Path(f"/proc/{pid}/stat").read_text() if os.readlink("/proc/self") == str(os.getpid()) else ""
        except OSError:
            stat = ""  # it ended meanwhile, or /proc hides other users' (its option hidepid)
        if not stat:
            return None if _may_exist(pid) else ""
        # man 5 proc: the name, in parentheses, may hold anything; after it come the state (field 3) and, in ticks since
        # the boot, the start (22).
        fields = stat.rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    return _output("ps", "-o", "lstart=", "-p", str(pid)) or None


def _may_exist(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's
    return True


def _output(*argv: str) -> str:
    # In a fixed language and time zone, since the outputs that two processes got are compared.
    env = os.environ | {"LC_ALL": "C", "TZ": "UTC"}
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=env).stdout.strip()
