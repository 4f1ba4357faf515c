"""Temporary files for what may be large, such as an image: where /tmp is small, in /var/tmp."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from typing import IO

from minicluster.errors import UsageError

_PLACES = ("/var/tmp",)  # beside the usual one
_VARIABLES = ("TMPDIR", "TEMP", "TMP")  # with which the user chooses


def folder() -> str:
    """The usual folder for temporary files if the user has chosen one, else the one with the most space.

    Raises:
        UsageError: there is none that can be written.
    """
    try:
        usual = tempfile.gettempdir()
    except FileNotFoundError as error:
        raise UsageError(
            "no folder for temporary files can be written", f"{error.strerror or error}.", "Set TMPDIR to one."
        ) from None
    if any(os.environ.get(name) for name in _VARIABLES):
        return usual
    return max((usual, *_PLACES), key=_free)


def temporary() -> IO[bytes]:
    """A file without a name, which is gone once it is closed.

    Raises:
        UsageError: it cannot be made.
    """
    with writing():
        return tempfile.TemporaryFile(dir=folder())  # the caller closes it


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Within the block, an error that there is no room for a file is told as one of the user's machine.

    Raises:
        UsageError: there is no room.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
            raise
        raise UsageError(
            "a temporary file cannot be written",
            f"{folder()}: {error.strerror}.",
            "Free disk space, or set TMPDIR to another folder.",
        ) from None


def _free(place: str) -> int:
    try:
        facts = os.statvfs(place)
    except OSError:
        return -1
    return facts.f_bavail * facts.f_frsize if os.access(place, os.W_OK | os.X_OK) else -1
