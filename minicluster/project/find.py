"""Which project file is used: the one that is named, or the nearest one in this folder and those above it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from minicluster import paths
from minicluster.errors import UsageError
from minicluster.paths import expanded

NAME = "minicluster.yaml"
VARIABLE = "MINICLUSTER_FILE"  #: names the file; -f sets it for a command
NONE = "none"  #: in its place: no file is used


def find(start: Path | None = None, named: str | None = None) -> tuple[Path, bool] | None:
    """The file to use, and whether it was named by -f or $MINICLUSTER_FILE; None if there is none.

    Args:
        start: the folder to search from, the current one by default.
        named: the file that the user names; by default that of $MINICLUSTER_FILE.

    Raises:
        UsageError: the named file does not exist, or others may write the one that was found.
    """
    named = named or os.environ.get(VARIABLE)
    if named == NONE:
        return None
    if named:
        path = expanded(named)
        path = path / NAME if path.is_dir() else path
        if not path.is_file():
            fix = "`minicluster init` writes one."
            raise UsageError(f"no project file {path}", f"-f or ${VARIABLE} names it.", fix)
        return _placed(path), True
    found = search(start)
    if found:
        check_trusted(found)
    return (_placed(found), False) if found else None


def _placed(path: Path) -> Path:
    """The one path of a file: relative paths begin in its folder, also where it is a link."""
    return path.parent.resolve() / path.name


def search(start: Path | None = None) -> Path | None:
    """The nearest file in a folder and those above it, up to the home folder and within one file system."""
    try:
        folder = (start or Path.cwd()).resolve()
        device = folder.stat().st_dev
    except OSError:  # the current folder was removed
        return None
    try:
        home = paths.home().resolve()
    except UsageError:  # nothing but the file system's boundary ends the search
        home = None
    for one in (folder, *folder.parents):
        try:
            if one.stat().st_dev != device:
                return None
            if (one / NAME).is_file():
                return one / NAME
        except OSError:
            return None
        if one == home:
            return None
    return None


def check_trusted(path: Path, beside: Path | None = None) -> None:
    """Refuses a file that another user could have written: it says what runs on this machine.

    Args:
        beside: the project file that it belongs to, if it is another one.

    Raises:
        UsageError: neither this user nor root owns it, its folder, or where a link leads; or others may write one.
    """
    real = path.resolve()
    for one in dict.fromkeys((path.parent, real.parent, real)):
        try:
            about = one.stat()
        except OSError as error:
            raise UsageError(f"{one}: cannot be read", str(error.strerror), "Make it readable.") from None
        why = ""
        if about.st_uid not in (os.getuid(), 0):
            why = f"{one} belongs to another user."
        elif about.st_mode & stat.S_IWOTH or (about.st_mode & stat.S_IWGRP and not _own_group(about.st_gid)):
            why = f"Other users may write {one}."
        if why:
            raise UsageError(
                f"{path} is not used",
                why,
                f"To use it anyway: `-f {beside or path}`. Without a project file: `-f {NONE}`.",
            )


def _own_group(group: int) -> bool:
    """A group that has this user's name and no other member, as many systems give every user; or root's."""
    import grp
    import pwd

    try:
        found, user = grp.getgrgid(group), pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return False
    return found.gr_name == user and set(found.gr_mem) <= {user}
