"""Which clusters this machine put on several hosts: where commands look for them.

It is no more than that: what a cluster is, and which hosts it has, is in labels on each host. On another machine, or
where the file is lost, `--hosts` or a docker context of one of the hosts tell where to look.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from minicluster import paths
from minicluster.errors import MiniclusterError


def write(cluster: str, hosts: Sequence[str]) -> None:
    """Notes the hosts of a cluster. Raises ``MiniclusterError`` where that cannot be written."""
    path = paths.hosts_directory() / cluster
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = path.with_name(f".{cluster}.{os.getpid()}")
        new.write_text(",".join(hosts) + "\n", encoding="utf-8")
        new.replace(path)
    except OSError as error:
        raise MiniclusterError(f"cannot write {path}", str(error), "Free disk space, or make it writable.") from None


def read(cluster: str) -> tuple[str, ...]:
    """The hosts of a cluster; () where none are noted."""
    with contextlib.suppress(OSError, ValueError):
        text = (paths.hosts_directory() / cluster).read_text(encoding="utf-8").strip()
        return tuple(filter(None, text.split(",")))
    return ()


def clusters() -> dict[str, tuple[str, ...]]:
    """All clusters that are noted, and their hosts."""
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(paths.hosts_directory()) if not name.startswith(".")]
        return {name: hosts for name in sorted(names) if (hosts := read(name))}
    return {}


def forget(cluster: str) -> None:
    """Removes the note of a cluster; no error where there is none."""
    with contextlib.suppress(OSError):
        (paths.hosts_directory() / cluster).unlink()
