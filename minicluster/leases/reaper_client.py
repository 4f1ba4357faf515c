"""The reaper: a small process that outlives the process it watches, and removes the clusters that belonged to it.

A process that creates clusters of its own starts one reaper and sends it, a line each, which clusters it holds and
which it has dropped. The reaper waits for the end of their owner, however it ends, and removes the clusters; until then
it renews their leases periodically, for processes that cannot observe the owner. It needs no container and no port.

The process runs :mod:`minicluster.operations.reaper_process`: removing a cluster is an operation.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicluster.host.processes import start_detached

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine
    from minicluster.model.lease import Lease

_PACKAGE = Path(__file__).parents[1]
_PROGRAM = str(_PACKAGE / "operations" / "reaper_process.py")


class _Reaper:
    """This process's reaper."""

    def __init__(self) -> None:
        home = str(_PACKAGE.parent)
        self.pid = os.getpid()
        self.process = start_detached(
            [sys.executable, "-I", "-S", _PROGRAM, json.dumps([home, *(p or os.getcwd() for p in sys.path)])],
            stdin=subprocess.PIPE,
        )

    def send(self, **message: Any) -> bool:
        """Sends a message; False where the reaper no longer runs."""
        assert self.process.stdin
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError):
            return False
        return True


_reaper: _Reaper | None = None
_held: dict[tuple[str, str], dict[str, Any]] = {}  # what was sent to it: a reaper that replaces it gets it again
_lock = threading.Lock()


def hold(engine: Engine, cluster: str, lease: Lease) -> None:
    """Has a cluster removed when its owner ends."""
    global _reaper
    assert lease.owner
    message = {"engine": engine.reference, "cluster": cluster, "owner": vars(lease.owner)}
    with _lock:
        if _reaper and _reaper.pid != os.getpid():  # after a fork: the reaper is the parent's
            _reaper = None
            _held.clear()
        _held[engine.reference, cluster] = message
        if not (_reaper and _reaper.send(**message)):
            _reaper = _Reaper()
            for each in _held.values():
                _reaper.send(**each)


def follow(engine: Engine, cluster: str, lease: Lease) -> None:
    """Holds a cluster, or drops it, as its new lease says."""
    if lease.owner:
        hold(engine, cluster, lease)
    else:
        drop(engine, cluster)


def drop(engine: Engine, cluster: str) -> None:
    """Stops watching a cluster; nothing happens where it was not held."""
    with _lock:
        if _reaper and _reaper.pid == os.getpid() and _held.pop((engine.reference, cluster), None):
            _reaper.send(engine=engine.reference, cluster=cluster)
