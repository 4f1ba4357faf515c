"""The user's kubeconfig as a file: locked as kubectl locks it (client-go, ``tools/clientcmd``), replaced as a whole."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from minicluster.errors import MiniclusterError
from minicluster.executor.signals import shielded

PATIENCE = 5.0  # seconds to wait for the lock
_INTERVAL = 0.05  # seconds between two attempts to take it


def write(file: Path, content: str) -> None:
    """Replaces a file atomically; if it is a link, the file that it leads to."""
    real = Path(os.path.realpath(file))
    part = ""
    try:
        descriptor, part = tempfile.mkstemp(dir=real.parent, prefix=f".{real.name}.")  # readable by its owner only
        with os.fdopen(descriptor, "wb") as new:
            with contextlib.suppress(FileNotFoundError), open(real, "r+b") as old:  # a read-only file is not replaced
                before = os.fstat(old.fileno())
                os.fchmod(new.fileno(), before.st_mode & 0o7777)
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    with contextlib.suppress(PermissionError):  # root keeps the owner
                        os.fchown(new.fileno(), before.st_uid, before.st_gid)
            new.write(content.encode())
        os.replace(part, real)
    except BaseException as error:
        if part:
            with contextlib.suppress(OSError):
                os.unlink(part)
        if isinstance(error, OSError):
            raise MiniclusterError(f"{file} cannot be written", str(error)) from None
        raise


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Holds kubectl's lock of a file, FILE.lock, whether the file exists or not; for a link, also its target's."""
    real = os.path.realpath(file)
    named = os.path.join(os.path.realpath(file.parent), file.name)
    held: list[str] = []
    try:
        for lock in sorted({f"{named}.lock", f"{real}.lock"}):  # always in the same order
            _take(lock, file, held)
        yield
    finally:
        for lock in held:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(lock)


def _take(lock: str, file: Path, held: list[str]) -> None:
    end = time.monotonic() + PATIENCE
    try:
        os.makedirs(os.path.dirname(lock), mode=0o700, exist_ok=True)
        while not _create(lock, held):
            if time.monotonic() >= end:
                raise MiniclusterError(
                    f"{file} is locked by another process",
                    f"{lock} has existed for at least {PATIENCE:g} s.",
                    "If no kubectl is running, one was killed while it held the lock: remove the lock file.",
                )
            time.sleep(_INTERVAL)
    except OSError as error:
        raise MiniclusterError(f"{file} cannot be locked", str(error)) from None


def _create(lock: str, held: list[str]) -> bool:
    with shielded():  # Ctrl-C between the two would leave the lock
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return False
        held.append(lock)
    return True
