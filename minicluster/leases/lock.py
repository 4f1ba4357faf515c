"""Locks that go with their process, however that ends: for whoever changes a cluster, and for whoever works with it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from minicluster import paths
from minicluster.errors import Interrupted, MiniclusterError

if TYPE_CHECKING:
    from minicluster.engine.protocol import Cancel

_LOOK = 0.05  # seconds between two tries at a lock that others hold


@contextlib.contextmanager
def changing(cluster: str) -> Iterator[None]:
    """Holds the lock of a cluster's name within the block: one change at a time by one user of a machine.

    Raises:
        MiniclusterError: another process holds it, or the folder for locks cannot be written.
    """
    held = _take(cluster, "lock", fcntl.LOCK_EX)
    if isinstance(held, str):
        raise MiniclusterError(
            f"cluster {cluster} is being changed by another minicluster",
            f"Process {held or '?'} is at work on it.",
            "Wait until it is done, or end it (Ctrl-C there cleans up).",
        )
    os.truncate(held.descriptor, 0)
    os.write(held.descriptor, str(os.getpid()).encode())
    try:
        yield
    finally:
        held.release()


@contextlib.contextmanager
def building(image: str, cancel: Cancel, waiting: Callable[[], None]) -> Iterator[None]:
    """Holds the lock of an image within the block, so that nobody builds what another one is building already.

    Args:
        image: its reference.
        cancel: ends the wait for who is at it.
        waiting: called once where somebody is.

    Raises:
        Interrupted: cancelled.
        MiniclusterError: the folder for locks cannot be written.
    """
    name, told = re.sub(r"[^a-z0-9.-]", "_", image), False
    while isinstance(held := _take(name, "build", fcntl.LOCK_EX), str):
        if not told:
            waiting()
            told = True
        if cancel.wait(_LOOK):
            raise Interrupted(f"stopped: waiting for image {image}")
    with held:
        yield


def using(cluster: str, *, alone: bool, timeout: float) -> Held:
    """Takes a cluster to work with, together with others or alone, and waits for those who are at it.

    Args:
        alone: nobody else is to work with it meanwhile.
        timeout: seconds.

    Raises:
        MiniclusterError: others are at it for longer than that, or the folder for locks cannot be written.
    """
    end = time.monotonic() + timeout
    # Who waits holds the gate: no others come in before him, however many there are that share.
    with _wait(cluster, "gate", fcntl.LOCK_EX, end, timeout):
        return _wait(cluster, "use", fcntl.LOCK_EX if alone else fcntl.LOCK_SH, end, timeout)


def _wait(cluster: str, kind: str, mode: int, end: float, timeout: float) -> Held:
    while isinstance(held := _take(cluster, kind, mode), str):
        if time.monotonic() >= end:
            raise MiniclusterError(
                f"cluster {cluster} is in use" + (f" by other processes for {timeout:g} s" if timeout else ""),
                "A test is at work with it.",
                "Wait until it is done, or let each have a cluster of its own.",
            )
        time.sleep(_LOOK)
    return held


def forget(cluster: str) -> None:
    """Removes what somebody who was killed left of his locks on a cluster that is gone; what is held stays."""
    for kind in ("lock", "use", "gate"):
        if _path(cluster, kind).exists() and isinstance(held := _take(cluster, kind, fcntl.LOCK_EX), Held):
            held.release()


def place() -> str:
    """Tells those who share locks from those who do not: other users, and other containers."""
    folder = paths.data_home() / "locks"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    stat = folder.stat()
    return f"{os.uname().nodename} {stat.st_dev} {stat.st_ino}"


class Held:
    """A lock that is held."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_error: object) -> None:
        self.release()

    def release(self) -> None:
        """Lets go of it; the last one leaves no file behind."""
        with contextlib.suppress(OSError):
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(self.path)
        os.close(self.descriptor)


def _path(cluster: str, kind: str) -> Path:
    return paths.data_home() / "locks" / f"{cluster}.{kind}"


def _take(cluster: str, kind: str, mode: int) -> Held | str:
    """A lock, or what its holder wrote of himself."""
    path = _path(cluster, kind)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(descriptor, 20).decode()
                os.close(descriptor)
                return holder
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                    return Held(path, descriptor)
            os.close(descriptor)  # its last holder removed the file between our open and our lock: again
    except OSError as error:
        raise MiniclusterError(f"cannot lock {cluster}", str(error), "Check $XDG_DATA_HOME and $HOME.") from None
