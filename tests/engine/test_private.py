"""A real private engine, beside any other engine on this machine."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicluster.engine import discover
from minicluster.engine.address import EngineAddress
from minicluster.engine.docker.engine import DockerEngine
from minicluster.engine.private import bridge, cleanup, daemon
from minicluster.engine.private.layout import Layout, configuration
from minicluster.engine.protocol import NetworkConfig
from minicluster.errors import Conflict, NoEngine
from minicluster.host import procfs

pytestmark = pytest.mark.skipif(bool(daemon.obstacle()), reason=f"no private engine here: {daemon.obstacle()}")


@pytest.fixture
def layout(monkeypatch: pytest.MonkeyPatch) -> Iterator[Layout]:
    """The layout of a private engine that does not run yet; removed afterwards."""
    folder = tempfile.mkdtemp(prefix="mc")  # pytest's own folders make too long a path for a socket
    monkeypatch.setenv("XDG_DATA_HOME", folder)
    for name in ("HOST", "CONTEXT", "CONFIG"):
        monkeypatch.delenv(f"DOCKER_{name}", raising=False)
    yield daemon._layout()
    monkeypatch.setenv("XDG_DATA_HOME", folder)
    daemon.stop(remove_data=True)
    shutil.rmtree(folder)


def docker(layout: Layout, *words: str, stdin: bytes | None = None) -> str:
    """The output of the stock client."""
    done = subprocess.run(["docker", "-H", f"unix://{layout.socket}", *words], input=stdin, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def image(layout: Layout) -> str:
    """An image that has only links into /usr, which is mounted from this machine: no registry, no build."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name in ("bin", "lib", "lib64"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
            archive.addfile(link)
    docker(layout, "import", "-", "host:1", stdin=content.getvalue())
    return "host:1"


#: Options that make :func:`image` this machine's.
USR = ("--volume", "/usr:/usr:ro")


def leftovers(layout: Layout) -> list[str]:
    """What a private engine has left on this machine, except its data."""
    found = [str(path) for path in (layout.socket, layout.pid_file, layout.run) if path.exists()]
    found += [layout.bridge] if bridge.exists(layout.bridge) else []
    found += [layout.chain] if bridge.allowed(layout.chain) else []
    found += procfs.mounts_below(layout.directory) + procfs.mounts_below(layout.run)
    found += [
        f"{pid}: {' '.join(words)}"
        for pid, words in procfs.processes()
        if any(layout.tag in word or str(layout.directory) in word for word in words)
    ]
    return found


def test_start_use_and_stop(layout: Layout) -> None:
    others = bridge.exists("docker0")
    status = daemon.start()
    assert status.running
    assert status.version
    assert abs(status.since - time.time()) < 10
    assert docker(layout, "info", "--format", "{{.DockerRootDir}}") == str(layout.data)
    assert docker(layout, "ps", "--quiet") == ""
    assert discover._try(EngineAddress(status.url, "x"), 2.0) == EngineAddress(
        status.url, "x", None, docker(layout, "version", "--format", "{{.Server.APIVersion}}")
    )
    assert daemon.start().pid == status.pid  # it runs already
    docker(layout, "network", "create", "--subnet", "172.31.250.0/24", "net")
    device = f"br-{docker(layout, 'network', 'inspect', '--format', '{{.Id}}', 'net')[:12]}"
    assert bridge.exists(device)
    stopped = daemon.stop()
    assert not stopped.running
    assert layout.data.is_dir()
    assert not bridge.exists(device)
    assert leftovers(layout) == []
    daemon.start()
    assert bridge.exists(device)  # made again: the network is data
    daemon.stop(remove_data=True)
    assert leftovers(layout) == []
    assert not layout.directory.exists()
    assert bridge.exists("docker0") == others  # dockerd has been seen to delete it at its second start


def test_it_outlives_the_process_that_started_it(layout: Layout) -> None:
    code = "from minicluster.engine.private import daemon; print(daemon.start().pid)"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    status = daemon.status()
    assert status.pid == int(done.stdout)
    assert os.getsid(status.pid) == status.pid  # no terminal's hang-up or Ctrl-C reaches it


def test_after_kill_9_it_starts_again(layout: Layout) -> None:
    first = daemon.start()
    os.kill(first.pid, signal.SIGKILL)
    while daemon.status().running:
        time.sleep(0.01)
    second = daemon.start()
    assert second.pid != first.pid
    assert docker(layout, "ps", "--quiet") == ""


def test_a_volume_that_exists_is_recognized_after_a_restart(layout: Layout) -> None:
    """The engine returns it without its labels, the first time."""
    name, about = "t-private-volume", {"t-private": "yes"}
    for _ in range(2):
        daemon.start()
        with contextlib.closing(DockerEngine(EngineAddress(f"unix://{layout.socket}", "test"))) as engine:
            engine.create_volume(name, about)
            with pytest.raises(Conflict):
                engine.create_volume(name, {"t-private": "no"})
        daemon.stop()


def test_networks_of_clusters_have_the_engines_mtu_and_are_not_isolated(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The engine itself uses that setting for its own bridge alone."""
    config = tmp_path / "daemon.json"
    config.write_text('{"mtu": 1400}')
    monkeypatch.setattr(configuration, "__defaults__", (config,))
    daemon.start()
    with contextlib.closing(DockerEngine(EngineAddress(f"unix://{layout.socket}", "test"))) as engine:
        engine.create_network(NetworkConfig("t-mtu", "172.31.248.0/24", "172.31.248.1", "172.31.248.224/27", {}))
        options = json.loads(docker(layout, "network", "inspect", "t-mtu", "--format", "{{json .Options}}"))
        said = docker(
            layout, "run", "--rm", "--network", "t-mtu", *USR, image(layout), "cat", "/sys/class/net/eth0/mtu"
        )
        engine.remove_network("t-mtu")
    assert said == "1400"
    assert options["com.docker.network.bridge.enable_icc"] == "true"


@pytest.mark.parametrize("dockerd", ["works", pytest.param("fails", marks=pytest.mark.long)])
def test_containers_that_outlived_it_are_stopped(layout: Layout, monkeypatch: pytest.MonkeyPatch, dockerd: str) -> None:
    status = daemon.start()
    length = str(random.randint(10**6, 10**9))  # nobody else on this machine sleeps for so many seconds
    container = docker(layout, "run", "--detach", "--init", *USR, image(layout), "/bin/sleep", length)
    os.kill(status.pid, signal.SIGKILL)
    while daemon.status().running:
        time.sleep(0.01)
    assert cleanup.shims(layout)
    if dockerd == "fails":
        monkeypatch.setattr(daemon, "_program", lambda name: shutil.which("false" if name == "dockerd" else name))
    notes: list[str] = []
    daemon.stop(lambda event: notes.append(event.text))
    assert "was killed" in notes[0]
    assert leftovers(layout) == []
    assert not [pid for pid, words in procfs.processes() if length in words]
    # Others' control groups come and go meanwhile, which os.walk does not mind.
    assert not [names for _, names, _ in os.walk("/sys/fs/cgroup") if any(container in name for name in names)]


@pytest.mark.parametrize("subnet", [("--subnet", "172.31.249.0/24"), ()], ids=["of-clusters", "any"])
def test_containers_have_a_network_and_published_ports(layout: Layout, subnet: tuple[str, ...]) -> None:
    daemon.start()
    ref = image(layout)
    docker(layout, "network", "create", *subnet, "net")
    listening = (
        'my $s = IO::Socket::INET->new(LocalPort => 80, Listen => 9); while (my $c = $s->accept) { print $c "hello" }'
    )
    asking = 'my $c = IO::Socket::INET->new(PeerAddr => "server:80", Timeout => 2) or die $!; print <$c>'
    perl = ["--network", "net", *USR, ref, "/usr/bin/perl", "-MIO::Socket::INET", "-e"]
    docker(layout, "run", "--detach", "--name", "server", "--publish", "127.0.0.1::80", *perl, listening)
    time.sleep(0.5)  # until it listens
    assert docker(layout, "run", "--rm", *perl, asking) == "hello"
    host, port = docker(layout, "port", "server", "80/tcp").splitlines()[0].rsplit(":", 1)
    with socket.create_connection((host, int(port)), 2.0) as connection:
        assert connection.recv(5) == b"hello"
    docker(layout, "kill", "server")


def test_starts_at_once_make_one_engine(layout: Layout) -> None:
    pids: list[int] = []
    threads = [threading.Thread(target=lambda: pids.append(daemon.start().pid)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 4
    assert len(set(pids)) == 1


def test_the_message_of_a_dockerd_that_ends_at_once_is_shown(layout: Layout) -> None:
    layout.directory.mkdir(parents=True)
    layout.data.write_text("not a folder")
    with pytest.raises(NoEngine) as caught:
        daemon.start()
    assert str(layout.log) in caught.value.why
    assert "points to a file" in caught.value.why
    assert leftovers(layout) == []
