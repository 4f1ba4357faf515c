"""Nodes on file systems of their own, which are filled; each system's own client is the witness."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicluster.cluster import Cluster
from minicluster.engine.private import daemon
from minicluster.engine.protocol import Engine
from minicluster.errors import UsageError
from minicluster.executor import disks, helper
from minicluster.model.spec import disks as disks_of
from tests.engine.conftest import VERSION, Shell, eventually, remains

pytestmark = pytest.mark.long

SIZE = "256MiB"
LARGE = "$(head -c 90000 /dev/zero | tr '\\0' x)"
#: Profile -> role, what writes with the stock client in a node (a key and a value), what reads it, and options of up.
SYSTEMS = {
    "etcd": ("kv", "etcdctl put {key} {value} --command-timeout=3s", "etcdctl get {key} --print-value-only", ()),
    "zookeeper": (
        "kv",
        "timeout 20 zkCli.sh -server 127.0.0.1:2181 create /{key} {value}",
        "timeout 20 zkCli.sh -server 127.0.0.1:2181 get /{key}",
        (),
    ),
    "consul": ("master", "timeout 5 consul kv put {key} {value}", "consul kv get {key}", ("--size", "agent=0")),
}


def loops(name: str) -> list[str]:
    """The loop devices of this machine that have a file of a cluster, and names that lead to them."""
    files = [path for path in Path("/sys/block").glob("loop*/loop/backing_file") if f"{name}-" in path.read_text()]
    return [*map(str, files), *(str(path) for path in Path("/dev").glob(f"minicluster-{name}-*"))]


@pytest.fixture(params=SYSTEMS)
def system(request: pytest.FixtureRequest, outer: Shell, engine: Engine) -> Iterator[tuple[str, Cluster]]:
    """One node with a file system of its own."""
    profile, name = request.param, f"t-disk-{request.param}"
    role, _put, _get, more = SYSTEMS[profile]
    size = ("--size", f"{role}=1", "--disk", f"{role}={SIZE}")
    try:
        outer.minicluster("up", profile, "--name", name, *size, *more, *VERSION.get(profile, ()), timeout=600)
        yield profile, Cluster.open(name, engine=engine)
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}
    assert loops(name) == []


def test_a_full_disk_stops_writes_until_it_is_healed(outer: Shell, engine: Engine, system: tuple[str, Cluster]) -> None:
    profile, cluster = system
    role, put, get, _more = SYSTEMS[profile]
    node = f"{role}-1"

    def write(key: str, value: str) -> bool:
        argv = ["sh", "-c", put.format(key=key, value=value)]
        try:
            return cluster.exec(node, argv, timeout=30).exit_code == 0
        except Exception:  # it has ended
            return False

    def refused() -> bool:
        """What systems have allocated before takes some more: they are given much to write."""
        return not all(write(f"large{i}", LARGE) for i in range(60))

    assert write("kept", "before")
    path = next(iter(cluster.spec.nodes[0].disks))
    device, size = cluster.exec(node, ["sh", "-c", f"df -k {path} | tail -n 1"]).stdout.split()[:2]
    assert device.startswith("/dev/")
    assert 150 << 10 < int(size) < 260 << 10  # KiB
    said = outer.minicluster("fault", "disk-full", node, "--force", "-c", cluster.name)
    assert "writes stop until healed" in said.err
    free = "df -k / | tail -n 1 | awk '{print $4}'"
    assert int(cluster.exec(node, ["sh", "-c", free]).stdout) > 100 << 10  # the engine's own is not filled
    eventually(refused, what="writes are refused", within=120)
    assert "Healed: disk-full" in outer.minicluster("heal", "-c", cluster.name).out
    outer.minicluster("start", "-c", cluster.name)  # most systems end when they cannot write
    eventually(lambda: write("later", "after"), what="writes are taken again", within=120)
    assert "before" in cluster.exec(node, ["sh", "-c", get.format(key="kept")], timeout=60).stdout


@pytest.fixture(scope="module")
def etcd(outer: Shell, engine: Engine) -> Iterator[Cluster]:
    """Three etcds with file systems of their own."""
    name = "t-disks"
    try:
        outer.minicluster("up", "etcd", "--name", name, "--disk", f"kv={SIZE}", timeout=600)
        yield Cluster.open(name, engine=engine)
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}
    assert loops(name) == []


def put(cluster: Cluster, node: str, value: str) -> bool:
    return cluster.exec(node, ["etcdctl", "put", "k", value, "--command-timeout=3s"]).exit_code == 0


def test_data_survive_stops_and_a_restart_of_the_machine(outer: Shell, engine: Engine, etcd: Cluster) -> None:
    assert put(etcd, "kv-1", "kept")
    assert len(loops(etcd.name)) == 6
    etcd.restart("kv-2")
    etcd.stop()
    # A machine that restarts has neither loop devices nor names of them.
    for node in etcd.spec.nodes:
        for volume in disks_of(etcd.spec, node).values():
            labels = engine.volumes(etcd.name)[0].labels
            assert disks._work(engine, labels, ["disk", "detach", volume], [volume]) == ""
    assert loops(etcd.name) == []
    outer.minicluster("start", "-c", etcd.name)
    assert len(loops(etcd.name)) == 6
    assert etcd.exec("kv-3", ["etcdctl", "get", "k", "--print-value-only"]).stdout.strip() == "kept"


def test_a_full_voter_does_not_stop_the_others(outer: Shell, etcd: Cluster) -> None:
    with etcd.fault.disk_full("kv-1"):
        big = ["sh", "-c", f"etcdctl put big {LARGE} --command-timeout=3s"]
        eventually(
            lambda: etcd.exec("kv-2", big).exit_code == 0 and etcd.node("kv-1").status().phase == "exited",
            what="kv-1 ends, and the others take writes",
            within=180,
            pause=0.01,
        )
        assert "disk-full kv-1" in outer.minicluster("status", etcd.name).out
    etcd.start("kv-1")
    etcd.wait(timeout=60)
    assert put(etcd, "kv-1", "again")


def test_a_killed_helper_leaves_a_full_disk_that_heal_clears(outer: Shell, etcd: Cluster) -> None:
    etcd.fault.disk_full("kv-1")
    outer.docker("kill", f"{etcd.name}-fault.1")
    etcd.kill("kv-1")
    etcd.heal()
    etcd.start("kv-1")
    assert put(etcd, "kv-1", "again")
    left = etcd.exec("kv-1", ["sh", "-c", "ls -A /var/lib/etcd"]).stdout
    assert "minicluster" not in left


def test_grown_and_shrunk(outer: Shell, etcd: Cluster) -> None:
    with pytest.raises(UsageError, match="exists, and has one of 256 MiB"):
        Cluster.up(name=etcd.name, disk={"kv": "1GiB"}, engine=etcd.engine)
    etcd.scale({"kv": 5})
    assert len(loops(etcd.name)) == 10
    etcd.scale({"kv": 3})
    assert len(loops(etcd.name)) == 6


@pytest.fixture(scope="module")
def own(outer: Shell) -> Iterator[Shell]:
    """minicluster with a private engine of its own, that has what nodes of etcd need."""
    if daemon.obstacle():
        pytest.skip(f"no private engine can be started here: {daemon.obstacle()}")
    name = "t-disk-images"
    try:  # it builds all images
        outer.minicluster("up", "etcd", "--name", name, "--size", "kv=1", "--disk", f"kv={SIZE}", timeout=600)
        images = {outer.docker("inspect", "-f", "{{.Config.Image}}", f"{name}-kv-1").out.strip(), helper.image().ref}
    finally:
        outer.minicluster("down", name, ok=False)
    folder = Path(tempfile.mkdtemp(prefix="mc-", dir="/var/tmp"))
    socket = folder / "minicluster" / "engine" / "docker.sock"
    shell = Shell({"XDG_DATA_HOME": str(folder), "DOCKER_HOST": f"unix://{socket}"})
    starter = Shell(shell.env | {"DOCKER_HOST": "", "DOCKER_CONTEXT": ""})
    try:
        starter.minicluster("engine", "start")
        # At the end of the block the pipe is closed, and whatever still saves ends.
        with subprocess.Popen(["docker", "save", *images], env=os.environ | outer.env, stdout=subprocess.PIPE) as save:
            load = ["docker", "load"]
            subprocess.run(load, env=os.environ | shell.env, stdin=save.stdout, check=True, capture_output=True)
        assert save.returncode == 0
        yield shell
    finally:
        starter.minicluster("engine", "stop", "--remove-data", ok=False)
        shutil.rmtree(folder, ignore_errors=True)


def test_an_engine_that_ends_and_file_systems_of_nodes(own: Shell) -> None:
    """After its end, after its death, and when it is removed with all that it has."""
    name = "t-disk-own"
    starter = Shell(own.env | {"DOCKER_HOST": "", "DOCKER_CONTEXT": ""})
    pid = Path(own.env["XDG_DATA_HOME"]) / "minicluster" / "engine" / "docker.pid"

    def etcdctl(*argv: str) -> str:
        return own.minicluster("exec", "-c", name, "kv-1", "--", "etcdctl", *argv).out.strip()

    own.minicluster("up", "etcd", "--name", name, "--size", "kv=1", "--disk", f"kv={SIZE}", timeout=600)
    etcdctl("put", "k", "kept")
    assert len(loops(name)) == 2
    starter.minicluster("engine", "stop")
    assert loops(name) == []
    starter.minicluster("engine", "start")
    own.minicluster("start", "-c", name)
    assert etcdctl("get", "k", "--print-value-only") == "kept"
    assert len(loops(name)) == 2
    os.kill(int(pid.read_text()), signal.SIGKILL)
    starter.minicluster("engine", "start")
    own.minicluster("up", "--name", name)
    assert etcdctl("get", "k", "--print-value-only") == "kept"
    own.minicluster("fault", "disk-full", "kv-1", "--force", "-c", name)
    own.minicluster("down", name)
    assert remains(own, name) == {}
    assert loops(name) == []
    own.minicluster("up", "etcd", "--name", name, "--size", "kv=1", "--disk", f"kv={SIZE}")
    starter.minicluster("engine", "stop", "--remove-data")
    assert loops(name) == []
