"""The last check of the suite: whatever the tests before did, nothing of it is left."""

from __future__ import annotations

import os
from pathlib import Path

from minicluster import paths
from tests.engine.conftest import PREFIX, Shell, Snapshot, eventually, remains


def test_nothing_is_left(outer: Shell, at_first: Snapshot) -> None:
    assert remains(outer) == {}
    after = eventually(lambda: _same(Snapshot.take(outer), at_first), within=10, what="containers, networks, volumes")
    assert after
    clients = paths.data_home() / "clusters"
    assert not clients.exists() or not [p.name for p in clients.iterdir() if p.name.startswith(PREFIX)]
    locks = paths.data_home() / "locks"
    assert not locks.exists() or not [p.name for p in locks.iterdir() if p.name.startswith(PREFIX)]
    assert _children() == []


def _same(now: Snapshot, before: Snapshot) -> bool:
    return now == before


def _children() -> list[str]:
    """Commands of processes that a test of this session started and did not wait for."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == os.getpid() and fields[0] != "Z":
                command = (stat.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                if "dockerd" not in command:  # the private engine of this session ends after this check
                    found.append(command)
        except (OSError, ValueError):
            continue
    return found
