"""The engine restarts under a cluster: on a private engine of the test's own, since others have theirs to keep."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicluster.engine import private
from tests.engine.checker import store_of, writing
from tests.engine.conftest import Shell, eventually, remains, swarm_client
from tests.engine.test_swarm import ready

STORES = ("etcd", "zookeeper", "consul")
NAMES = {profile: f"t-again-{profile}" for profile in (*STORES, "swarm")}


@pytest.fixture(scope="module")
def own(outer: Shell) -> Iterator[Shell]:
    """minicluster with a private engine of its own that has every profile's image; four clusters are up."""
    if private.obstacle():
        pytest.skip(f"no private engine can be started here: {private.obstacle()}")
    images = [outer.minicluster("image", "build", profile, timeout=600).out.split()[-1] for profile in NAMES]
    folder = Path(tempfile.mkdtemp(prefix="mc-", dir="/var/tmp"))
    shell = Shell(
        {
            "XDG_DATA_HOME": str(folder),
            "DOCKER_HOST": f"unix://{folder}/minicluster/engine/docker.sock",
        }
    )
    starter = Shell({"XDG_DATA_HOME": str(folder), "DOCKER_HOST": "", "DOCKER_CONTEXT": ""})
    try:
        starter.minicluster("engine", "start")
        save = subprocess.Popen(["docker", "save", *images], env=os.environ | outer.env, stdout=subprocess.PIPE)
        load = ["docker", "load"]
        subprocess.run(load, env=os.environ | shell.env, stdin=save.stdout, check=True, capture_output=True)
        assert save.wait() == 0
        for profile, name in NAMES.items():
            sizes = ["--size", "master=3", "--size", "agent=1"] if profile == "swarm" else []
            shell.minicluster("up", profile, "--name", name, *sizes)
        yield shell
        shell.minicluster("down", "--all")
        assert remains(shell) == {}
    finally:
        starter.minicluster("engine", "stop", "--remove-data", ok=False)
        shutil.rmtree(folder, ignore_errors=True)


def restart_engine(shell: Shell) -> None:
    starter = Shell(shell.env | {"DOCKER_HOST": "", "DOCKER_CONTEXT": ""})
    starter.minicluster("engine", "stop")
    starter.minicluster("engine", "start")


def is_ready(shell: Shell, name: str) -> None:
    eventually(
        lambda: shell.minicluster("status", name, "-o", "json").json["phase"] == "ready",
        within=120,
        what=f"{name} is ready",
    )


def test_start_brings_every_cluster_back_and_nothing_is_lost(own: Shell) -> None:
    with contextlib.ExitStack() as stack:
        for profile in STORES:
            stack.enter_context(writing(store_of(profile, own, NAMES[profile])))
        restart_engine(own)
        assert {c["phase"] for c in own.minicluster("ls", "-o", "json").json} == {"stopped"}
        for name in NAMES.values():
            own.minicluster("start", "-c", name)
            is_ready(own, name)
    assert ready(swarm_client(own, NAMES["swarm"])) == {"master-1", "master-2", "master-3", "agent-1"}


def test_nodes_that_were_asked_to_come_back_by_themselves(own: Shell) -> None:
    for name in NAMES.values():
        own.minicluster("up", "--name", name, "--restart", "unless-stopped")
    with contextlib.ExitStack() as stack:
        for profile in STORES:
            stack.enter_context(writing(store_of(profile, own, NAMES[profile])))
        restart_engine(own)
        for name in NAMES.values():
            is_ready(own, name)
    assert ready(swarm_client(own, NAMES["swarm"])) == {"master-1", "master-2", "master-3", "agent-1"}


def test_a_run_of_pytest_goes_on(own: Shell, tmp_path: Path) -> None:
    """The engine restarts between two tests that share a cluster."""
    (tmp_path / "test_it.py").write_text(
        textwrap.dedent(
            """
            import os, subprocess, sys

            def test_before(minicluster):
                minicluster("etcd", size={"kv": 1})
                engine = [sys.executable, "-m", "minicluster", "engine"]
                env = os.environ | {"DOCKER_HOST": "", "DOCKER_CONTEXT": ""}
                subprocess.run([*engine, "stop"], check=True, env=env)
                subprocess.run([*engine, "start"], check=True, env=env)

            def test_after(minicluster):
                cluster = minicluster("etcd", size={"kv": 1})
                assert cluster.node("kv-1").exec("etcdctl put a b").stdout == "OK\\n"
            """
        )
    )
    answer = own.run(sys.executable, "-m", "pytest", "-q", str(tmp_path), cwd=tmp_path, ok=False)
    assert "2 passed" in answer.out, answer.out
    assert "1 made" in answer.out
    assert "1 mended" in answer.out
    assert own.docker("ps", "-aq", "--filter", "label=io.minicluster.lease").out == ""
