"""Locks of clusters and images: one process changes a cluster at a time, and tests share clusters or have them alone.

A lock ends with its process, however that ends.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from minicluster import paths
from minicluster.errors import Interrupted, MiniclusterError
from minicluster.host import flock
from minicluster.host.flock import Held

if TYPE_CHECKING:
    from minicluster.engine.protocol import Cancel


@contextmanager
def changing(cluster: str) -> Iterator[None]:
    """Holds the lock of a cluster's name within the block, so that one process of a user changes it at a time.

    Raises:
        MiniclusterError: another process holds it, or the folder for locks cannot be written.
    """
    held = flock.take(_path(cluster, "lock"))
    if isinstance(held, str):
        raise MiniclusterError(
            f"cluster {cluster} is being changed by another minicluster process",
            f"Process {held or '?'} is changing it.",
            "Wait until it ends, or interrupt it (Ctrl-C there rolls back).",
        )
    with held:
        held.write(str(os.getpid()))
        yield


@contextmanager
def injecting(cluster: str) -> Iterator[None]:
    """Holds the lock of a cluster's faults within the block: one is applied at a time, and others wait for it.

    It is another lock than that of changes, since faults are applied during changes, too.
    """
    held = flock.wait(_path(cluster, "fault"))
    assert held
    with held:
        yield


@contextmanager
def building(image: str, cancel: Cancel, waiting: Callable[[], None]) -> Iterator[None]:
    """Holds the lock of an image within the block, so that one process builds it at a time.

    Args:
        image: its reference.
        cancel: ends the wait for another process.
        waiting: called once where another process holds the lock.

    Raises:
        Interrupted: cancelled.
        MiniclusterError: the folder for locks cannot be written.
    """
    path, reported = _path(re.sub(r"[^a-z0-9.-]", "_", image), "build"), False

    def pause(seconds: float) -> None:
        nonlocal reported
        if not reported:
            waiting()
            reported = True
        if cancel.wait(seconds):
            raise Interrupted(f"stopped: waiting for image {image}")

    held = flock.wait(path, pause=pause)
    assert held
    with held:
        yield


@contextmanager
def building_any(cancel: Cancel, *, alone: bool = False) -> Iterator[None]:
    """Holds the lock of all builds within the block, shared with other builds or alone.

    Raises:
        Interrupted: cancelled while it waits for others.
        MiniclusterError: the folder for locks cannot be written.
    """

    def pause(seconds: float) -> None:
        if cancel.wait(seconds):
            raise Interrupted("stopped: waiting for other builds")

    held = flock.wait(_path("all", "build"), shared=not alone, pause=pause)
    assert held
    with held:
        yield


def using(cluster: str, *, alone: bool, timeout: float) -> Held:
    """Takes a cluster to work with, shared with other processes or alone, and waits for those that use it.

    Args:
        alone: no other process works with it at the same time.
        timeout: seconds.

    Raises:
        MiniclusterError: others use it for longer than that, or the folder for locks cannot be written.
    """
    end = time.monotonic() + timeout
    # A process that waits holds the gate, so that a stream of sharing processes does not starve it.
    with _wait(cluster, "gate", False, end, timeout):
        return _wait(cluster, "use", not alone, end, timeout)


def _wait(cluster: str, kind: str, shared: bool, end: float, timeout: float) -> Held:
    held = flock.wait(_path(cluster, kind), shared=shared, until=end)
    if held is None:
        raise MiniclusterError(
            f"cluster {cluster} is in use" + (f" by other processes for {timeout:g} s" if timeout else ""),
            "A test is using it.",
            "Wait until the test ends, or give each test a cluster of its own.",
        )
    return held


def forget(cluster: str) -> None:
    """Removes lock files that killed processes left of a cluster that no longer exists; locks that are held stay."""
    for kind in ("lock", "use", "gate", "fault"):
        path = _path(cluster, kind)
        if path.exists() and isinstance(held := flock.take(path), Held):
            held.release()


def place() -> str:
    """Identifies the processes that share locks; other users and other containers have another place."""
    folder = paths.data_home() / "locks"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    stat = folder.stat()
    return f"{os.uname().nodename} {stat.st_dev} {stat.st_ino}"


def _path(name: str, kind: str) -> Path:
    return paths.data_home() / "locks" / f"{name}.{kind}"
