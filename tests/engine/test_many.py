"""Many clusters at once, and one again and again: no clash, no leak, no growth."""

from __future__ import annotations

import gc
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicluster.cluster import Cluster
from minicluster.engine.protocol import Engine
from tests.engine.conftest import Shell, remains

CLUSTERS = 20
TIMES = 100
NAMES = [f"t-many-{n}" for n in range(1, CLUSTERS + 1)]

pytestmark = pytest.mark.long


@pytest.fixture
def gone(outer: Shell) -> Iterator[None]:
    yield
    left = {c["cluster"] for c in outer.minicluster("ls", "-o", "json").json} & set(NAMES)
    if left:
        outer.minicluster("down", *sorted(left), ok=False)


@pytest.mark.usefixtures("gone")
def test_twenty_clusters_at_once(outer: Shell) -> None:
    outer.minicluster("image", "build", "etcd", timeout=600)
    outcome = _all([outer.start("up", "etcd", "--name", name, "--size", "kv=1") for name in NAMES])
    assert not outcome
    listed = [c for c in outer.minicluster("ls", "-o", "json").json if c["cluster"] in NAMES]
    assert [c["phase"] for c in listed] == ["running"] * CLUSTERS
    assert len({c["subnet"] for c in listed}) == CLUSTERS
    urls = {outer.minicluster("info", name, "-o", "json").json["endpoints"][0]["url"] for name in NAMES[:5]}
    assert len(urls) == 5
    assert not _all([outer.start("down", name) for name in NAMES])
    assert remains(outer, "t-many") == {}


def _all(processes: list[subprocess.Popen[str]]) -> dict[int, str]:
    """Waits for processes that run at once; what those said that failed."""
    failed = {}
    for number, process in enumerate(processes):
        said = process.communicate(timeout=300)[0]
        if process.returncode:
            failed[number] = said
    return failed


def test_a_hundred_times_up_and_down(engine: Engine, outer: Shell) -> None:
    name = "t-hundred"
    figures = []
    for round in range(TIMES):
        cluster = Cluster.up("etcd", name=name, size={"kv": 1}, engine=engine)
        cluster.down()
        if round in (9, TIMES - 1):
            gc.collect()
            figures.append((len(os.listdir("/proc/self/fd")), threading.active_count(), _resident()))
    (files, threads, memory), (files_after, threads_after, memory_after) = figures
    assert files_after <= files + 2
    assert threads_after <= threads
    assert memory_after - memory < 8 << 20, f"{(memory_after - memory) >> 20} MiB more after {TIMES} rounds"
    assert remains(outer, name) == {}


def _resident() -> int:
    """Bytes of memory that this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
