"""What needs an engine that no other test uses: it restarts, and expired clusters stay until the next command."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from minicluster.engine.private import daemon
from tests.engine.checker import store_of, writing
from tests.engine.conftest import VERSION, Shell, eventually, remains, swarm_client
from tests.engine.kubernetes.kubelife import Kube
from tests.engine.test_lease import NAME as LEASED, owner, reapers
from tests.engine.test_swarm import ready

STORES = ("etcd", "zookeeper", "consul", "kubernetes")
NAMES = {profile: f"t-again-{profile}" for profile in (*STORES, "swarm")}
SIZES = {
    **VERSION,
    "swarm": ("--size", "master=3", "--size", "agent=1"),
    "kubernetes": ("--size", "kv=3", "--size", "master=3", "--size", "agent=1", "--set", "failover=quick"),
}


@pytest.fixture(scope="module")
def own(outer: Shell) -> Iterator[Shell]:
    """minicluster with a private engine of its own, with every profile's image and a cluster of each."""
    if daemon.obstacle():
        pytest.skip(f"no private engine can be started here: {daemon.obstacle()}")
    built = [outer.minicluster("image", "build", p, *VERSION.get(p, ()), timeout=900).out for p in NAMES]
    images = [ref for out in built for ref in out.split()]
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
        at_once(shell, *(["up", profile, "--name", name, *SIZES.get(profile, ())] for profile, name in NAMES.items()))
        yield shell
        shell.minicluster("down", "--all")
        assert remains(shell) == {}
    finally:
        starter.minicluster("engine", "stop", "--remove-data", ok=False)
        shutil.rmtree(folder, ignore_errors=True)


def at_once(shell: Shell, *commands: Sequence[str]) -> None:
    """Runs independent commands concurrently: they mostly wait."""
    processes = [shell.start(*words) for words in commands]
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(said)


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


@pytest.mark.long
def test_every_cluster_starts_again_and_nothing_is_lost(own: Shell) -> None:
    with contextlib.ExitStack() as stack:
        for profile in STORES:
            stack.enter_context(writing(store_of(profile, own, NAMES[profile])))
        restart_engine(own)
        assert {c["phase"] for c in own.minicluster("ls", "-o", "json").json} == {"stopped"}
        at_once(own, *(["start", "-c", name] for name in NAMES.values()))
        for name in NAMES.values():
            is_ready(own, name)
    assert ready(swarm_client(own, NAMES["swarm"])) == {"master-1", "master-2", "master-3", "agent-1"}
    pods_work(own)


def pods_work(shell: Shell) -> None:
    kube = Kube(shell, NAMES["kubernetes"])
    kube.furnish("agent-1")
    kube.canary("agent-1", "agent-1")


@pytest.mark.long
def test_nodes_with_a_restart_policy_start_with_the_engine(own: Shell) -> None:
    at_once(own, *(["up", "--name", name, "--restart", "unless-stopped"] for name in NAMES.values()))
    with contextlib.ExitStack() as stack:
        for profile in STORES:
            stack.enter_context(writing(store_of(profile, own, NAMES[profile])))
        restart_engine(own)
        for name in NAMES.values():
            is_ready(own, name)
    assert ready(swarm_client(own, NAMES["swarm"])) == {"master-1", "master-2", "master-3", "agent-1"}
    pods_work(own)


@pytest.mark.long
def test_a_test_run_survives_an_engine_restart(own: Shell, tmp_path: Path) -> None:
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
    assert "1 created" in answer.out
    assert "1 repaired" in answer.out
    assert own.docker("ps", "-aq", "--filter", "label=io.minicluster.lease").out == ""


# Nobody else is at work on this engine, who would remove what is over first


@pytest.mark.long
def test_without_a_reaper_the_next_command_removes_the_cluster(own: Shell) -> None:
    process = owner(own)
    (watcher,) = reapers(process)
    os.kill(watcher, signal.SIGKILL)
    process.kill()
    process.communicate(timeout=30)
    dry = own.minicluster("gc", "--dry-run").out
    assert f"Would remove cluster {LEASED} (etcd): its owner, process {process.pid}, has exited" in dry
    assert remains(own, LEASED)
    answer = own.minicluster("ls")
    assert f"Removed cluster {LEASED}: its owner, process {process.pid}, has exited." in answer.err
    assert remains(own, LEASED) == {}


@pytest.mark.long
def test_a_time_to_live(own: Shell) -> None:
    own.minicluster("up", "etcd", "--name", LEASED, "--size", "kv=1", "--ttl", "1h")
    listed = {c["cluster"]: c["lease"] for c in own.minicluster("ls", "-o", "json").json}
    assert listed[LEASED].startswith(("1 h left", "59 min"))
    assert own.minicluster("gc", "-o", "json").json == []
    again = own.minicluster("up", "etcd", "--name", LEASED, "--ttl", "1s", "-o", "json").json
    assert again["summary"] == {"create-volume": 1}
    eventually(lambda: [c["cluster"] for c in own.minicluster("gc", "--dry-run", "-o", "json").json] == [LEASED])
    found = own.minicluster("gc", "-o", "json").json
    assert [(c["cluster"], c["removed"], c["error"]) for c in found] == [(LEASED, True, "")]
    assert remains(own, LEASED) == {}
