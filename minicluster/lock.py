"""One change of a cluster at a time by one user of a machine; the lock goes with its process, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from minicluster import paths
from minicluster.errors import MiniclusterError


@contextlib.contextmanager
def changing(cluster: str) -> Iterator[None]:
    """Holds the lock of a cluster's name within the block. Leaves no file behind.

    Raises:
        MiniclusterError: another process holds it, or the folder for locks cannot be written.
    """
    path = paths.data_home() / "locks" / f"{cluster}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(descriptor, 20).decode() or "?"
                os.close(descriptor)
                raise MiniclusterError(
                    f"cluster {cluster} is being changed by another minicluster",
                    f"Process {holder} is at work on it.",
                    "Wait until it is done, or end it (Ctrl-C there cleans up).",
                ) from None
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                    break
            os.close(descriptor)  # its last holder removed the file between our open and our lock: again
    except OSError as error:
        raise MiniclusterError(
            f"cannot lock cluster {cluster}", str(error), "Check $XDG_DATA_HOME and $HOME."
        ) from None
    os.truncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        os.close(descriptor)
