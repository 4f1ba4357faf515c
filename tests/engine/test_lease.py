"""Leases on a real engine: clusters are removed with their owner; later commands remove what has expired."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.conftest import Shell, eventually, remains

NAME = "t-lease"

#: A program that has a cluster of its own, says so, and waits.
OWNER = f"""
from minicluster import Cluster, Lease
cluster = Cluster.up("etcd", name="{NAME}", size={{"kv": 1}}, lease=Lease.owned())
print(cluster.node("kv-1").exec("etcdctl put a b").stdout, flush=True)
input()
"""


@pytest.fixture(autouse=True)
def leaves_nothing(outer: Shell) -> Iterator[None]:
    yield
    if remains(outer, NAME):
        outer.minicluster("down", NAME, ok=False)


def owner(shell: Shell, program: str = OWNER) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | shell.env,
        start_new_session=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "OK\n"
    return process


def reapers(of: subprocess.Popen[str]) -> list[int]:
    words = ["pgrep", "-P", str(of.pid), "-f", "minicluster/operations/reaper_process.py"]
    return [int(pid) for pid in subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()]


@pytest.mark.parametrize("end", ["kill -9", "kill -9 of its group", "by itself"])
def test_a_cluster_ends_with_its_owner(outer: Shell, end: str) -> None:
    process = owner(outer)
    (reaper,) = reapers(process)
    listed = outer.minicluster("ls", "-o", "json").json
    assert [c["lease"] for c in listed if c["cluster"] == NAME] == [f"process {process.pid}"]
    if end == "by itself":
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    elif end == "kill -9":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    eventually(lambda: not remains(outer, NAME), within=30)
    eventually(lambda: not Path(f"/proc/{reaper}").exists(), within=30)


def test_killed_in_the_middle_of_up(outer: Shell) -> None:
    program = OWNER.replace("cluster =", "print('OK', flush=True); cluster =")
    process = owner(outer, program)
    eventually(lambda: remains(outer, NAME).get("containers"), within=30)
    process.kill()
    process.communicate(timeout=30)
    eventually(lambda: not remains(outer, NAME), within=30)


def test_a_cluster_without_a_lease_is_never_removed(outer: Shell) -> None:
    outer.minicluster("up", "etcd", "--name", NAME, "--size", "kv=1")
    program = OWNER.replace('print(cluster.node("kv-1").exec("etcdctl put a b").stdout, flush=True)\n', "")
    refused = outer.run(sys.executable, "-c", program, ok=False)
    assert refused.code == 1
    assert "It has no lease." in refused.err
    assert outer.minicluster("gc", "-o", "json").json == []
    assert remains(outer, NAME)["containers"] == [f"{NAME}-kv-1"]
