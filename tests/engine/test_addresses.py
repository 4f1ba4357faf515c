"""Addresses that are reached from where their user is: names on networks, and every address mode, on a real engine.

The user sits on the engine's machine, in containers of it, and in a network of its own that the engine is remote from.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from minicluster import pki
from minicluster.engine.protocol import Engine
from minicluster.profile.spec import Certificate
from tests.engine.conftest import Answer, Shell, eventually, remains

ROOT = Path(__file__).parents[2]
NAME = "t-addr"
OTHER = "t-addr-other"
FIRST, LAST = "t-addr-a", "t-addr-z"  #: networks before and behind the cluster's own, which engines sort by name


@pytest.fixture(scope="module", autouse=True)
def _leaves_nothing(outer: Shell) -> Iterator[None]:
    yield
    assert not remains(outer, NAME)


@pytest.fixture(scope="module")
def image(outer: Shell) -> str:
    """The etcd node's image: Debian with etcd's client, for containers of the tests as well."""
    return outer.minicluster("image", "build", "etcd", timeout=600).out.split()[-1]


@contextmanager
def cluster(outer: Shell, *options: str, name: str = NAME) -> Iterator[Answer]:
    """One member of etcd for the block; the answer is that of ``up -o json``."""
    try:
        yield outer.minicluster("up", "etcd", "--name", name, "--size", "kv=1", *options, "-q", "-o", "json")
    finally:
        outer.minicluster("down", name, "-q", ok=False)


@contextmanager
def networks(outer: Shell, *names: str) -> Iterator[None]:
    try:
        for name in names:
            outer.docker("network", "create", name)
        yield
    finally:
        for name in names:
            outer.docker("network", "rm", name)


def addresses_of(outer: Shell, image: str, network: str, *names: str) -> list[set[str]]:
    """For each name the addresses that a container on a network gets for it."""
    script = 'for name; do getent ahostsv4 "$name" | cut -d " " -f 1 | sort -u | paste -sd " "; echo; done'
    argv = ("run", "--rm", "--network", network, image, "sh", "-c", script, "sh", *names)
    answers = outer.docker(*argv).out.split("\n\n")
    return [set(answer.split()) for answer in answers[: len(names)]]


def address_in(outer: Shell, network: str, container: str) -> str:
    return facts(outer, container, f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}')


def facts(outer: Shell, container: str, template: str) -> str:
    return outer.docker("inspect", container, "--format", template).out.strip()


def healthy(shell: Shell, name: str, *options: str) -> list[str]:
    """Endpoints as they are handed out, each of which etcd's own client has talked to, certificates verified."""
    env = shell.minicluster("env", name, *options, "-o", "json").json
    client = replace(shell, env={**shell.env, **env})
    eventually(lambda: client.run("etcdctl", "endpoint", "health", ok=False).code == 0, within=20)
    return list(env["ETCDCTL_ENDPOINTS"].split(","))


# Names and networks


def test_nodes_join_networks_and_keep_addresses_and_ports(outer: Shell, image: str) -> None:
    container, net = f"{NAME}-kv-1", f"{NAME}-net"
    with networks(outer, FIRST, LAST), cluster(outer, "--network", FIRST) as up:
        url = up.json["info"]["endpoints"][0]["url"]
        own, identity = address_in(outer, net, container), facts(outer, container, "{{.Id}}")
        there = {address_in(outer, FIRST, container)}
        assert addresses_of(outer, image, net, "kv-1") == [{own}]
        assert addresses_of(outer, image, FIRST, "kv-1", container) == [there, there]
        assert healthy(outer, NAME) == [url]

        # A cluster that runs is given the difference alone.
        again = ("up", "--name", NAME, "-q", "-o", "json")
        change = outer.minicluster(*again, "--network", LAST).json["summary"]
        assert change["connect-network"] == change["disconnect-network"] == 1
        assert "create-container" not in change
        assert addresses_of(outer, image, FIRST, "kv-1") == [set()]
        outer.minicluster(*again, "--network", FIRST, "--network", LAST)
        assert not outer.minicluster(*again).json["changed"]

        outer.minicluster("restart", "-c", NAME, "-q")
        assert healthy(outer, NAME) == [url]
        assert healthy(outer, NAME, "--address-mode", "bridge") == [f"https://{own}:2379"]
        assert addresses_of(outer, image, LAST, "kv-1", container) == [{address_in(outer, LAST, container)}] * 2
        assert facts(outer, container, "{{.Id}}") == identity


def test_where_two_clusters_join_a_network_the_long_name_is_one_clusters_alone(outer: Shell, image: str) -> None:
    with networks(outer, FIRST), cluster(outer, "--network", FIRST), cluster(outer, name=OTHER):
        noted = outer.minicluster("up", "--name", OTHER, "--network", FIRST)
        assert f"kv-1 on network {FIRST} is also a node of cluster {NAME}: there, say {OTHER}-kv-1." in noted.err
        both = [address_in(outer, FIRST, f"{name}-kv-1") for name in (NAME, OTHER)]
        long = addresses_of(outer, image, FIRST, f"{NAME}-kv-1", f"{OTHER}-kv-1")
        assert long == [{both[0]}, {both[1]}]
        own = address_in(outer, f"{OTHER}-net", f"{OTHER}-kv-1")
        assert addresses_of(outer, image, f"{OTHER}-net", "kv-1") == [{own}]


def test_a_network_that_is_not_there_is_said_before_anything_is_made(outer: Shell) -> None:
    refused = outer.minicluster("up", "etcd", "--name", NAME, "--network", "t-addr-none", ok=False)
    assert refused.code == 2
    assert "--network t-addr-none: the engine has no network of that name" in refused.err
    assert "docker network create t-addr-none" in refused.err
    assert not remains(outer, NAME)


def test_down_lets_containers_of_others_go_and_leaves_them_alone(outer: Shell, image: str) -> None:
    try:
        with cluster(outer) as up:
            node = address_in(outer, f"{NAME}-net", f"{NAME}-kv-1")
            for name in ("t-addr-x", "t-addr-y"):
                outer.docker("run", "-d", "--init", "--name", name, "--network", f"{NAME}-net", image, "sleep", "600")
            outer.docker("network", "connect", "bridge", "t-addr-y")
            outer.docker("kill", "t-addr-y")
            # A guest never sits on the address of a node that is stopped.
            outer.minicluster("stop", "-c", NAME, "-q")
            outer.docker("run", "--rm", "--network", f"{NAME}-net", image, "true")
            outer.minicluster("start", "-c", NAME, "-q")
            assert address_in(outer, f"{NAME}-net", f"{NAME}-kv-1") == node
            started = facts(outer, "t-addr-x", "{{.State.StartedAt}}")
            assert up.json["changed"]
            outer.minicluster("down", NAME, "-q")
            assert f"{NAME}-net" not in outer.docker("network", "ls", "--format", "{{.Name}}").out.split()
            assert facts(outer, "t-addr-x", "{{.State.Status}} {{.State.StartedAt}}") == f"running {started}"
            outer.docker("start", "t-addr-y")
            assert facts(outer, "t-addr-y", "{{.State.Status}}") == "running"
    finally:
        outer.docker("rm", "-f", "t-addr-x", "t-addr-y", ok=False)


# On the engine's machine


def test_gateway_is_reached_from_other_networks_and_localhost_still_is(outer: Shell, image: str) -> None:
    with networks(outer, FIRST), cluster(outer, "--address-mode", "gateway") as up:
        url = up.json["info"]["endpoints"][0]["url"]
        assert up.json["info"]["address_mode"] == "gateway"
        assert healthy(outer, NAME, "--address-mode", "gateway") == [url]
        (local,) = healthy(outer, NAME)
        assert local == f"https://127.0.0.1:{url.rpartition(':')[2]}"
        env = outer.minicluster("env", NAME, "--address-mode", "gateway", "-o", "json").json
        folder = os.path.dirname(env["ETCDCTL_CACERT"])
        settings = [word for key, value in env.items() for word in ("-e", f"{key}={value}")]
        for network in ("bridge", FIRST):
            argv = ["run", "--rm", "--network", network, "-v", f"{folder}:{folder}:ro", *settings, image]
            eventually(lambda argv=argv: outer.docker(*argv, "etcdctl", "endpoint", "health", ok=False).code == 0)  # type: ignore[misc]
        outer.minicluster("stop", "-c", NAME, "-q")
        outer.minicluster("start", "-c", NAME, "-q")
        assert healthy(outer, NAME, "--address-mode", "gateway") == [url]


# In a container of the engine


@contextmanager
def within(outer: Shell, engine: Engine, image: str, *options: str) -> Iterator[Shell]:
    """A shell in a container with the engine's socket, this machine's programs, and minicluster."""
    scheme, _, path = engine.endpoint.partition("://")
    if scheme != "unix":
        pytest.skip("the engine's socket is not on this machine")
    folders = {Path(folder) for folder in ("/usr", sys.base_prefix, sys.prefix, ROOT)}
    outermost = [folder for folder in folders if not folders & {*folder.parents}]
    mounts = [word for folder in outermost for word in ("-v", f"{folder}:{folder}:ro")]
    name = "t-addr-caller"
    argv = ["run", "-d", "--name", name, "-v", f"{path}:/var/run/docker.sock", *mounts, *options]
    try:
        outer.docker(*argv, "-e", "XDG_DATA_HOME=/tmp/data", image, "sleep", "600")
        yield Inside(outer=outer, container=name)
    finally:
        outer.docker("rm", "-f", "-v", name, ok=False)


@dataclass
class Inside(Shell):
    """Runs commands in a container."""

    outer: Shell = field(default_factory=Shell)
    container: str = ""

    def run(self, *argv: str, timeout: float = 180, ok: bool = True, cwd: Path | None = None) -> Answer:
        settings = [word for key, value in self.env.items() for word in ("-e", f"{key}={value}")]
        path = f"PATH={os.environ['PATH']}"
        return self.outer.docker("exec", "-e", path, *settings, self.container, *argv, timeout=timeout, ok=ok)


def test_a_test_in_a_container_stands_a_cluster_up_and_reaches_it(outer: Shell, engine: Engine, image: str) -> None:
    with within(outer, engine, image) as inside:
        try:
            up = inside.minicluster("up", "etcd", "--name", NAME, "--size", "kv=1", "-q", "-o", "json").json
            assert up["info"]["address_mode"] == "bridge"
            node = address_in(outer, f"{NAME}-net", f"{NAME}-kv-1")
            env = inside.minicluster("env", NAME, "-o", "json").json
            assert env["ETCDCTL_ENDPOINTS"] == f"https://{node}:2379"
            client = replace(inside, env=env)
            eventually(lambda: client.run("etcdctl", "endpoint", "health", ok=False).code == 0, within=20)
            client.run("etcdctl", "put", "greeting", "hello")
            assert "hello" in client.run("etcdctl", "get", "greeting").out
            # The same cluster, asked from the machine itself.
            assert healthy(outer, NAME)[0].startswith("https://127.0.0.1:")
            inside.minicluster("stop", "-c", NAME, "-q")
            inside.minicluster("start", "-c", NAME, "-q")
            eventually(lambda: client.run("etcdctl", "endpoint", "health", ok=False).code == 0, within=20)
        finally:
            inside.minicluster("down", NAME, "-q")
        assert not remains(outer, f"{NAME}-kv")
        assert f"{NAME}-net" not in facts(outer, "t-addr-caller", "{{.NetworkSettings.Networks}}")
        assert not inside.run("find", "/tmp/data", "-type", "f").out


def test_a_container_that_comes_later_is_connected_when_it_asks(outer: Shell, engine: Engine, image: str) -> None:
    with cluster(outer), within(outer, engine, image) as inside:
        assert healthy(inside, NAME)[0].endswith(":2379")
        # In the machine's own network nothing needs to be connected.
    with cluster(outer), within(outer, engine, image, "--network", "host") as inside:
        assert healthy(inside, NAME)[0].startswith("https://127.0.0.1:")


# A remote engine


@dataclass(frozen=True)
class Remote:
    """Another machine, as far as its network goes, from which the engine is reached by TCP with mutual TLS."""

    shell: Shell
    address: str  #: of the engine's machine, seen from there


class FarShell(Shell):
    """Runs commands in another network."""

    def run(self, *argv: str, timeout: float = 180, ok: bool = True, cwd: Path | None = None) -> Answer:
        return super().run("ip", "netns", "exec", NAME, *argv, timeout=timeout, ok=ok, cwd=cwd)


@pytest.fixture
def remote(engine: Engine, tmp_path: Path) -> Iterator[Remote]:
    scheme, _, path = engine.endpoint.partition("://")
    if scheme != "unix" or os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("needs root, iproute2 and the engine's socket on this machine")
    here, there = "10.213.77.1", "10.213.77.2"
    commands = (
        f"ip netns add {NAME}",
        f"ip link add t-addr0 type veth peer name t-addr1 netns {NAME}",
        f"ip address add {here}/30 dev t-addr0",
        "ip link set t-addr0 up",
        f"ip -n {NAME} address add {there}/30 dev t-addr1",
        f"ip -n {NAME} link set t-addr1 up",
        f"ip -n {NAME} link set lo up",
    )
    try:
        for command in commands:
            made = subprocess.run(command.split(), capture_output=True, text=True)
            if made.returncode:
                pytest.skip(f"no network of its own can be made here: {made.stderr.strip()}")
        with tls_proxy(here, path, tmp_path) as port:
            env = {
                "DOCKER_HOST": f"tcp://{here}:{port}",
                "DOCKER_TLS_VERIFY": "1",
                "DOCKER_CERT_PATH": str(tmp_path),
                "XDG_DATA_HOME": str(tmp_path / "data"),
            }
            yield Remote(FarShell(env), here)
    finally:
        subprocess.run(["ip", "link", "delete", "t-addr0"], capture_output=True)
        subprocess.run(["ip", "netns", "delete", NAME], capture_output=True)


@contextmanager
def tls_proxy(address: str, path: str, folder: Path) -> Iterator[int]:
    """Lets an engine's socket be reached by TCP with mutual TLS; the client's certificate is put into a folder."""
    authority = pki.Authority()
    for name, addresses in (("server", (address,)), ("client", ())):
        issued = authority.issue(Certificate("", name, addresses=addresses))
        (folder / "ca.pem").write_bytes(issued.ca)
        prefix = "server-" if name == "server" else ""
        (folder / f"{prefix}cert.pem").write_bytes(issued.certificate)
        (folder / f"{prefix}key.pem").write_bytes(issued.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "server-cert.pem", folder / "server-key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server((address, 0))

    def copy(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR if isinstance(sink, ssl.SSLSocket) else socket.SHUT_WR)

    def serve(plain: socket.socket) -> None:
        with (
            suppress(OSError),
            closing(context.wrap_socket(plain, server_side=True)) as client,
            closing(socket.socket(socket.AF_UNIX)) as engine,
        ):
            engine.connect(path)
            thread = threading.Thread(target=copy, args=(client, engine), daemon=True)
            thread.start()
            copy(engine, client)
            thread.join()

    def accept() -> None:
        with suppress(OSError):  # the end of the test
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_a_remote_engine_is_used_with_tls_and_its_cluster_is_reached(outer: Shell, remote: Remote) -> None:
    far = remote.shell
    try:
        up = far.minicluster("up", "etcd", "--name", NAME, "--size", "kv=1", "-q", "-o", "json").json
        assert up["info"]["address_mode"] == "gateway"
        (url,) = healthy(far, NAME)
        assert url.startswith(f"https://{remote.address}:")
        assert far.minicluster("exec", "-c", NAME, "kv-1", "--", "etcdctl", "get", "x").code == 0
        assert far.minicluster("status", NAME, "-o", "json").json["phase"] == "ready"

        # Nodes' own addresses are out of reach from there: it is said what was tried, why not, and what to do.
        refused = far.minicluster("info", NAME, "--address-mode", "bridge", ok=False)
        assert refused.code == 1
        assert f"cluster {NAME} runs, but its nodes cannot be reached from here" in refused.err
        assert "Tried address mode bridge:" in refused.err
        assert "Network is unreachable" in refused.err
        assert f"minicluster up --name {NAME} --address-mode gateway" in refused.err
    finally:
        far.minicluster("down", NAME, "-q")


def test_a_cluster_that_is_published_on_localhost_alone_is_not_handed_out_elsewhere(
    outer: Shell, remote: Remote
) -> None:
    with cluster(outer):
        refused = remote.shell.minicluster("env", NAME, ok=False)
        assert refused.code == 1
        assert "is published on 127.0.0.1 of its engine's machine alone" in refused.err
        assert not refused.out
        # Who asks for it gets it: what was asked for is what it needs.
        remote.shell.minicluster("up", "--name", NAME, "--address-mode", "gateway", "-q")
        assert healthy(remote.shell, NAME)[0].startswith(f"https://{remote.address}:")
