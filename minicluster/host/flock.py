"""Locks on files that end with their process, however it ends (man 2 flock)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

from minicluster.errors import MiniclusterError, UsageError

_POLL = 0.05  # seconds between two attempts at a lock that another process holds


class Held:
    """A lock that this process holds."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_error: object) -> None:
        self.release()

    def release(self) -> None:
        """Releases the lock; the last holder removes the file."""
        with contextlib.suppress(OSError):
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.stat(self.path), os.fstat(self.descriptor)):  # else its folder was removed meanwhile
                os.unlink(self.path)
        os.close(self.descriptor)

    def write(self, text: str) -> None:
        """Leaves a text in the file for those who find it locked."""
        os.truncate(self.descriptor, 0)
        os.pwrite(self.descriptor, text.encode(), 0)


def take(path: Path, *, shared: bool = False) -> Held | str:
    """Takes a lock at once, or returns what its holder wrote into the file.

    Args:
        path: the file; it and its folder (0700) are created as needed.
        shared: other holders may share it.

    Raises:
        MiniclusterError: the file cannot be created or locked.
    """
    try:
        return _take(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    except OSError as error:
        # The usual causes are a home that cannot be written, as in CI, and a wrong variable.
        kind = UsageError if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT) else MiniclusterError
        fix = "Set XDG_DATA_HOME or HOME to a folder that can be written."
        raise kind(f"cannot lock {path}", error.strerror or str(error), fix) from None


def _take(path: Path, mode: int) -> Held | str:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace")
            os.close(descriptor)
            return holder
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                return Held(path, descriptor)
        os.close(descriptor)  # the last holder removed the file between our open and our lock: try again


def wait(
    path: Path,
    *,
    shared: bool = False,
    until: float | None = None,
    pause: Callable[[float], object] = time.sleep,
) -> Held | None:
    """Takes a lock, and waits while other processes hold it; None where they still do at the end.

    Args:
        path, shared: as for :func:`take`.
        until: the end, on the monotonic clock; None: there is no end.
        pause: called with the seconds between two attempts.

    Raises:
        MiniclusterError: as for :func:`take`.
    """
    while isinstance(held := take(path, shared=shared), str):
        if until is not None and time.monotonic() >= until:
            return None
        pause(_POLL)
    return held
