"""A small process that outlives the one it watches, and removes the clusters that belonged to it.

The process that makes a cluster of its own starts one watcher and tells it, a line each, which clusters it holds and
which it holds no more. The watcher waits for the end of their owner, however that comes, and takes them down; till then
it renews their leases now and then, for those who cannot see the owner. It needs no container, and no port.

Run as a script without the ``site`` module it is there within 20 ms and takes 10 MB: what takes clusters down is
imported once it is needed.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path[:] = json.loads(sys.argv[1])  # the path of the process that started it: -S leaves out site-packages

import select
import signal
import subprocess
import threading
import time
from pathlib import Path

from minicluster.host.processes import Process, start_detached
from minicluster.model.lease import RENEW_INTERVAL, Lease

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine

_LOOK = 0.5  # seconds between two looks at an owner, where the kernel cannot tell when a process ends
_TRIES, _PAUSE = 20, 1.0  # at removing: a call that the owner made last may still be at work in the engine


class _Watcher:
    """This process's own watcher."""

    def __init__(self) -> None:
        home = str(Path(__file__).parents[2])
        self.pid = os.getpid()
        self.process = start_detached(
            [sys.executable, "-I", "-S", __file__, json.dumps([home, *(p or os.getcwd() for p in sys.path)])],
            stdin=subprocess.PIPE,
        )

    def tell(self, **message: Any) -> bool:
        """Whether it heard: it may have been ended."""
        assert self.process.stdin
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError):
            return False
        return True


_watcher: _Watcher | None = None
_held: dict[tuple[str, str], dict[str, Any]] = {}  # what it was told: another one in its place has to be told as well
_lock = threading.Lock()


def hold(engine: Engine, cluster: str, lease: Lease) -> None:
    """Has a cluster taken down when its owner ends."""
    global _watcher
    assert lease.owner
    message = {"engine": engine.reference, "cluster": cluster, "owner": vars(lease.owner)}
    with _lock:
        if _watcher and _watcher.pid != os.getpid():  # after a fork the parent's watcher is not the child's
            _watcher = None
            _held.clear()
        _held[engine.reference, cluster] = message
        if not (_watcher and _watcher.tell(**message)):
            _watcher = _Watcher()
            for each in _held.values():
                _watcher.tell(**each)


def drop(engine: Engine, cluster: str) -> None:
    """Leaves a cluster to itself again; nothing happens where it was not held."""
    with _lock:
        if _watcher and _watcher.pid == os.getpid() and _held.pop((engine.reference, cluster), None):
            _watcher.tell(engine=engine.reference, cluster=cluster)


def _main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.set_blocking(0, False)
    held: dict[tuple[str, str], Process] = {}
    ends: dict[Process, int | None] = {}  # a descriptor that can be read once the process has ended
    heard, open_, next_beat = b"", True, time.monotonic() + RENEW_INTERVAL
    while held or open_:
        sources = [0] if open_ else []
        sources += [fd for fd in ends.values() if fd is not None]
        patience = next_beat - time.monotonic() if all(fd is not None for fd in ends.values()) else _LOOK
        ready, _, _ = select.select(sources, [], [], max(0.0, patience))
        if 0 in ready:
            chunk = os.read(0, 65536)
            open_ = bool(chunk)
            *lines, heard = (heard + chunk).split(b"\n")
            for line in lines:
                message = json.loads(line)
                key = message["engine"], message["cluster"]
                if "owner" in message:
                    owner = held[key] = Process(**message["owner"])
                    if owner not in ends:
                        ends[owner] = _end_of(owner)
                else:
                    held.pop(key, None)
        for owner in [owner for owner in ends if owner.lives() is False]:
            fd = ends.pop(owner)
            if fd is not None:
                os.close(fd)
            for key in [key for key, its in held.items() if its == owner]:
                _take_down(*key)
                del held[key]
        if time.monotonic() >= next_beat:
            next_beat = time.monotonic() + RENEW_INTERVAL
            for key, owner in list(held.items()):
                if not _beat(*key, owner):
                    del held[key]


def _end_of(owner: Process) -> int | None:
    """A descriptor that can be read once a process has ended; None where the kernel has none (man 2 pidfd_open)."""
    if not owner.lives():
        return None  # its number may be another's
    try:
        return os.pidfd_open(owner.pid)
    except (AttributeError, OSError):
        return None


# Whatever goes wrong below, there may be other clusters to look after, and somebody may come by and do it later.


def _take_down(reference: str, cluster: str) -> None:
    """Removes a cluster, and what came to be a moment later; gives up where that fails for long."""
    quiet = 0  # looks in a row that found nothing
    for _ in range(_TRIES):
        try:
            from minicluster.engine.discover import reach
            from minicluster.model.events import ignore
            from minicluster.operations import up

            quiet = quiet + 1 if up.collect(reach(reference), cluster, ignore) is None else 0
        except Exception:
            quiet = 0
        if quiet == 2:
            return
        time.sleep(_PAUSE)


def _beat(reference: str, cluster: str, owner: Process) -> bool:
    """Renews a lease. Whether the cluster is still its owner's."""
    try:
        from minicluster.engine.discover import reach
        from minicluster.operations import up

        return up.renew_owned(reach(reference), cluster, owner)
    except Exception:
        return True  # the engine may be back by the next time


if __name__ == "__main__":
    _main()
