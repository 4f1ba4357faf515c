"""Host folders in nodes, host ports of nodes, and addresses to publish on, with stock servers and clients."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import struct
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicluster.cluster import Cluster
from minicluster.engine.protocol import Engine
from tests.engine.conftest import VERSION, Shell, eventually, remains, swarm_client
from tests.engine.kubernetes.kube import get

NAME = "t-mounts"
DEMO = "localhost/minicluster/demo"


def free_ports(count: int, start: int = 17000) -> int:
    """The first of so many ports that are free for TCP and UDP."""
    for first in range(start, start + 2000, count):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    stack.enter_context(socket.socket(type=kind)).bind(("127.0.0.1", port))
            return first
    raise AssertionError("no free ports")


def address() -> str:
    """An address of this machine that is not a loopback one."""
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing
        return str(probe.getsockname()[0])


def dns_status(host: str, port: int, name: str) -> tuple[int, int]:
    """A DNS server's answer to a question for an address: its status, and how many answers there are."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(3)
        client.sendto(
            struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1), (host, port)
        )
        id_, flags, _asked, answers = struct.unpack(">4H", client.recv(512)[:8])
    assert id_ == 7
    return flags & 15, answers


def contents(folder: Path) -> dict[str, str]:
    """Every file, folder and link."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.read_text()
        if path.is_file()
        else ""
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Contents that must stay: files, a folder, and links, one of which is mounted itself."""
    top = tmp_path_factory.mktemp("host")
    (top / "data/in").mkdir(parents=True)
    (top / "data/kept").write_text("precious")
    (top / "data/in/deep").write_text("deep")
    (top / "data/link").symlink_to("in")
    (top / "to-data").symlink_to("data")
    return top


@pytest.fixture
def down(outer: Shell) -> Iterator[Shell]:
    """Removes the clusters of a test."""
    yield outer
    for row in outer.minicluster("ls", "-o", "json").json:
        if row["cluster"].startswith(NAME):
            outer.minicluster("down", row["cluster"])
    assert remains(outer, NAME) == {}


def test_a_folder_udp_and_an_address_of_the_machine(down: Shell, folder: Path) -> None:
    """Consul: its HTTP API and its DNS server, over UDP, on an address that other machines reach."""
    name, port, host = f"{NAME}-c", free_ports(2), address()
    before = contents(folder)
    up = down.minicluster(
        *("up", "consul", "--name", name, *VERSION["consul"], "--size", "master=1", "--size", "agent=1"),
        *("--mount", f"master:{folder}/to-data:/data:ro", "--port", f"master:8600/udp={port}", "--bind-address", host),
        *("--port", f"agent:8600/udp={port + 1}"),
    )
    assert "without a login: read and change keys and services (http)" in up.err + up.out
    for each in (host, "127.0.0.1"):
        for i in (0, 1):
            assert eventually(lambda each=each, i=i: dns_status(each, port + i, "consul.service.consul") == (0, 1))
    found = {(e["name"], e["node"]): e["url"] for e in down.minicluster("info", name, "-o", "json").json["endpoints"]}
    assert found["master:8600/udp", "master-1"] == f"udp://{host}:{port}"
    assert found["agent:8600/udp", "agent-1"] == f"udp://{host}:{port + 1}"
    assert get(f"{found['http', 'master-1']}/v1/status/leader") != ""
    script = "cat /data/kept /data/link/deep; >/data/x"
    said = down.minicluster("exec", "-c", name, "master-1", "--", "sh", "-c", script, ok=False)
    assert said.out == "preciousdeep"
    assert said.code != 0
    assert "Read-only" in said.err
    down.minicluster("reset", name)
    down.minicluster("down", name)
    assert contents(folder) == before


@pytest.mark.long
def test_a_failed_up_leaves_the_contents(down: Shell, folder: Path) -> None:
    before = contents(folder)
    mount = ("--mount", f"kv:{folder}/data:/data", "--size", "kv=1")
    never = ("--set", 'roles.kv.ready.exec=["false"]', "--timeout", "1")
    failed = down.minicluster("up", "etcd", "--name", f"{NAME}-f", *mount, *never, ok=False)
    assert failed.code == 4
    assert remains(down, f"{NAME}-f") == {}
    down.minicluster("up", "etcd", "--name", f"{NAME}-f", *mount)
    failed = down.minicluster("up", "--name", f"{NAME}-f", "--mount", "none", *never, ok=False)
    assert failed.code == 4
    answer = down.minicluster("exec", "-c", f"{NAME}-f", "kv-1", "--", "cat", "/data/kept")  # as before
    assert answer.out == "precious"
    assert contents(folder) == before


@pytest.mark.long
def test_certificates_hold_for_the_address(down: Shell, engine: Engine) -> None:
    host = address()
    with Cluster.up("etcd", name=f"{NAME}-t", engine=engine, size={"kv": 1}, bind_address=host) as cluster:
        endpoint, env = cluster.endpoint("client"), cluster.env()
        assert endpoint.host == host
        context = ssl.create_default_context(cafile=env["ETCDCTL_CACERT"])
        context.load_cert_chain(env["ETCDCTL_CERT"], env["ETCDCTL_KEY"])
        with urllib.request.urlopen(f"{endpoint.url}/health", context=context) as answer:
            assert json.load(answer)["health"] == "true"
        back = Cluster.up(name=f"{NAME}-t", engine=engine, bind_address="127.0.0.1")
        assert back.endpoint("client").host == "127.0.0.1"
        with pytest.raises(ConnectionRefusedError), socket.create_connection((host, endpoint.port), 2):
            pass


@pytest.mark.long
def test_swarm_services_use_folders_and_ports_of_their_nodes(down: Shell, engine: Engine, folder: Path) -> None:
    name, port = f"{NAME}-s", free_ports(3)
    before = contents(folder)
    words = [f"agent:{folder}/data:/data:ro", f"agent:{folder}/to-data:/rw"]
    cluster = Cluster.up("swarm", name=name, engine=engine, size={"agent": 1}, mounts=words, port={"agent:80": port})
    client = swarm_client(down, name)
    client.docker(
        *("service", "create", "--name", "web", "--mode", "global", "--constraint", "node.role==worker", "--detach"),
        *("--no-resolve-image", "--publish", "mode=host,target=80,published=80"),
        *("--mount", "type=bind,source=/rw,target=/www/data", DEMO),
    )
    assert eventually(lambda: get(f"http://127.0.0.1:{port}/data/kept")) == "precious"
    cluster = Cluster.up(
        name=name, engine=engine, size={"agent": 2}
    )  # the next node gets the next port, and the folder
    assert eventually(lambda: get(f"http://127.0.0.1:{port + 1}/data/in/deep")) == "deep"
    assert cluster.node("agent-2").endpoint("agent:80").port == port + 1
    # What is in a volume that is a folder of the host, and in a container that runs: reset removes both.
    for argv in (
        ["volume", "create", "--opt", "type=none", "--opt", "o=bind", "--opt", "device=/rw/in", "in"],
        ["run", "-d", "-v", "in:/in", "-v", "/rw:/rw", DEMO, "sleep", "1000"],
    ):
        result = cluster.exec("agent-1", ["docker", *argv])
        assert result.exit_code == 0, result.stderr
    assert contents(folder) == before
    cluster.reset()
    assert cluster.exec("agent-1", ["docker", "volume", "ls", "-q"]).stdout == ""
    assert contents(folder) == before
    for verb in ("stop", "start", "kill"):
        down.minicluster(verb, "-c", name, "agent-1")
    cluster = Cluster.up(name=name, engine=engine, mounts=words[:1], port={"agent:80": None})
    assert cluster.exec("agent-1", ["ls", "/rw"]).exit_code != 0
    assert cluster.exec("agent-1", ["cat", "/data/kept"]).stdout == "precious"
    assert [e for e in cluster.endpoints() if e.node == "agent-1"] == []
    cluster.down()
    assert contents(folder) == before
