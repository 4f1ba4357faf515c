"""Where minicluster keeps files on the host, following the XDG base directory specification."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

from minicluster.errors import UsageError

AnyPath: TypeAlias = str | os.PathLike[str]  #: as the user gives it


def home() -> Path:
    """The user's home directory.

    Raises:
        UsageError: HOME is not set, and the system has no user of this process's number, as in some CI containers.
    """
    try:
        return Path.home()
    except RuntimeError:
        raise UsageError(
            "this user has no home directory",
            f"HOME is not set, and the system knows no user with the number {os.getuid()}.",
            "Set HOME to a directory that can be written.",
        ) from None


def expanded(path: AnyPath) -> Path:
    """A path that the user wrote, with ``~`` and ``~USER`` replaced by a home directory.

    Raises:
        UsageError: there is no such user, or the user has no home directory.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        user = Path(path).parts[0]
        why = "HOME is not set." if user == "~" else f"This machine knows no user {user[1:]}."
        raise UsageError(f"no home directory for {user} in {path}", why, "Write the whole path.") from None


def data_home() -> Path:
    """``$XDG_DATA_HOME/minicluster`` (default ``~/.local/share/minicluster``)."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else home() / ".local" / "share") / "minicluster"


def config_home() -> Path:
    """``$XDG_CONFIG_HOME/minicluster`` (default ``~/.config/minicluster``)."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else home() / ".config") / "minicluster"


def cache_home() -> Path:
    """``$XDG_CACHE_HOME/minicluster`` (default ``~/.cache/minicluster``): what may be deleted at any time."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else home() / ".cache") / "minicluster"


def client_directory(cluster: str) -> Path:
    """The folder of a cluster's client certificate and key: 0700, and gone after ``down``."""
    return clients_directory() / cluster


def clients_directory() -> Path:
    """The folder with one folder for each cluster's client."""
    return data_home() / "clusters"


def hosts_directory() -> Path:
    """The folder with a file for each cluster on several hosts: their names. It says where to look for the cluster."""
    return data_home() / "hosts"


def ssh_directory() -> Path:
    """The folder with a socket for each machine that ``ssh`` is connected to."""
    return data_home() / "ssh"


def engine_directory() -> Path:
    """The folder of the private engine: data root, socket, pid file, log."""
    return data_home() / "engine"
