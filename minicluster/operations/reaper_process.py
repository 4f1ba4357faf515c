"""The reaper's process: waits for the end of processes that own clusters, and removes these clusters.

:mod:`minicluster.leases.reaper_client` starts it as a script without the ``site`` module, so that it starts within
20 ms and takes 10 MiB: what removes clusters is imported when it is needed.
"""

from __future__ import annotations

import json
import os
import sys

if __name__ == "__main__":
    sys.path[:] = json.loads(sys.argv[1])  # the path of the process that started it: -S leaves out site-packages

import select
import signal
import time

from minicluster.host.processes import Process
from minicluster.model.lease import RENEW_INTERVAL

_POLL = 0.5  # seconds between two checks of an owner, where the kernel has no pidfd
_ATTEMPTS, _PAUSE = 20, 1.0  # at removing: the engine may still carry out a call that the owner made last


def _main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.set_blocking(0, False)
    held: dict[tuple[str, str], Process] = {}
    ends: dict[Process, int | None] = {}  # a descriptor that becomes readable when the process ends
    heard, open_, next_renewal = b"", True, time.monotonic() + RENEW_INTERVAL
    while held or open_:
        sources = [0] if open_ else []
        sources += [fd for fd in ends.values() if fd is not None]
        timeout = next_renewal - time.monotonic() if all(fd is not None for fd in ends.values()) else _POLL
        ready, _, _ = select.select(sources, [], [], max(0.0, timeout))
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
                _remove(*key)
                del held[key]
        if time.monotonic() >= next_renewal:
            next_renewal = time.monotonic() + RENEW_INTERVAL
            for key, owner in list(held.items()):
                if not _renew(*key, owner):
                    del held[key]


def _end_of(owner: Process) -> int | None:
    """A descriptor that becomes readable when a process ends; None where the kernel has none (man 2 pidfd_open)."""
    if not owner.lives():
        return None  # its number may belong to another process
    try:
        return os.pidfd_open(owner.pid)
    except (AttributeError, OSError):
        return None


# Whatever fails below: other clusters still have to be watched, and the next command collects what is left.


def _remove(reference: str, cluster: str) -> None:
    """Removes a cluster, and what appears a moment later; gives up where that keeps failing."""
    quiet = 0  # consecutive attempts that found nothing to remove
    for _ in range(_ATTEMPTS):
        try:
            from minicluster.engine.discover import reach
            from minicluster.model.events import ignore
            from minicluster.operations.remove_expired import remove_ended

            quiet = 0 if remove_ended(reach(reference), cluster, ignore) else quiet + 1
        except Exception:
            quiet = 0
        if quiet == 2:
            return
        time.sleep(_PAUSE)


def _renew(reference: str, cluster: str, owner: Process) -> bool:
    """Renews a lease; False where the cluster no longer belongs to that owner."""
    try:
        from minicluster.engine.discover import reach
        from minicluster.leases.renew import renew_owned

        return renew_owned(reach(reference), cluster, owner)
    except Exception:
        return True  # the engine may answer again next time


if __name__ == "__main__":
    _main()
