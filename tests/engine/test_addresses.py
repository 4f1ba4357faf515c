"""Addresses that are reached from where their user is: names on networks, and every address mode, on a real engine.

The user sits on the engine's machine, in containers of it, and in a network of its own that the engine is remote from.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from minicluster import pki
from minicluster.cluster import Cluster
from minicluster.engine.protocol import Engine
from minicluster.errors import SubnetTaken
from minicluster.model.events import Event
from minicluster.model.spec import CertificateSpec
from tests.engine.conftest import Result, Shell, etcd_called, eventually, remains

ROOT = Path(__file__).parents[2]
NAME = "t-addr"
OTHER = "t-addr-other"
KIND = "t-addr-kind"  #: a profile like etcd's, for the clusters that the plugin names
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
def cluster(engine: Engine, name: str = NAME, **options: Any) -> Iterator[Cluster]:
    """One member of etcd for the block."""
    with Cluster.up("etcd", name=name, size={"kv": 1}, engine=engine, **options) as made:
        yield made


@contextmanager
def networks(outer: Shell, *names: str) -> Iterator[None]:
    try:
        for name in names:
            outer.docker("network", "create", name)
        yield
    finally:
        for name in names:
            outer.docker("network", "rm", name)


@contextmanager
def guest(outer: Shell, image: str, network: str, *options: str, name: str = "t-addr-x") -> Iterator[str]:
    """Somebody else's container on a network."""
    try:
        outer.docker("run", "-d", "--name", name, "--network", network, *options, image, "sleep", "600")
        yield name
    finally:
        outer.docker("rm", "-f", "-v", name, ok=False)


def addresses_of(engine: Engine, container: str, *names: str) -> list[set[str]]:
    """For each name the addresses that a container gets for it."""
    found = [engine.exec(container, ["getent", "ahostsv4", name]).stdout for name in names]
    return [{line.split()[0] for line in answer.splitlines()} for answer in found]


def address_in(outer: Shell, network: str, container: str) -> str:
    return facts(outer, container, f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}')


def facts(outer: Shell, container: str, template: str) -> str:
    return outer.docker("inspect", container, "--format", template).out.strip()


def healthy(engine: Engine, name: str = NAME, mode: str = "auto") -> list[str]:
    """Endpoints as they are handed out here; etcd's own client has talked to each, certificates verified."""
    return served(Shell(), Cluster.open(name, engine=engine, address_mode=mode).env())


def far_healthy(shell: Shell) -> list[str]:
    """The same, as they are handed out elsewhere."""
    return served(shell, shell.minicluster("env", NAME, "-o", "json").json)


def served(shell: Shell, env: dict[str, str]) -> list[str]:
    client = replace(shell, env={**shell.env, **env})
    eventually(lambda: client.run("etcdctl", "endpoint", "health", ok=False).code == 0, within=20)
    return list(env["ETCDCTL_ENDPOINTS"].split(","))


# Names and networks


def test_nodes_join_networks_and_keep_addresses_and_ports(outer: Shell, engine: Engine, image: str) -> None:
    node, net = f"{NAME}-kv-1", f"{NAME}-net"
    with (
        networks(outer, FIRST, LAST),
        cluster(engine, networks=[FIRST]) as up,
        guest(outer, image, FIRST) as there,
        guest(outer, image, net, name="t-addr-y") as near,
    ):
        url, own, identity = up.endpoint("client").url, up.node("kv-1").address, facts(outer, node, "{{.Id}}")
        assert address_in(outer, net, node) == own
        assert addresses_of(engine, near, "kv-1") == [{own}]
        assert addresses_of(engine, there, "kv-1", node) == [{address_in(outer, FIRST, node)}] * 2
        assert engine.exec(there, ["timeout", "5", "bash", "-c", ": </dev/tcp/kv-1/2379"]).exit_code == 0
        assert healthy(engine) == [url]

        # A cluster that runs is given the difference alone.
        change = Cluster.up(name=NAME, networks=[LAST], engine=engine).change
        assert change
        assert change.summary["connect-network"] == change.summary["disconnect-network"] == 1
        assert "create-container" not in change.summary
        assert addresses_of(engine, there, "kv-1") == [set()]
        Cluster.up(name=NAME, networks=[FIRST, LAST], engine=engine)
        again = Cluster.up(name=NAME, engine=engine).change
        assert again
        assert not again.changed

        up.restart()
        assert healthy(engine) == [url]
        assert healthy(engine, mode="bridge") == [f"https://{own}:2379"]
        assert addresses_of(engine, there, "kv-1", node) == [{address_in(outer, FIRST, node)}] * 2
        assert address_in(outer, LAST, node)
        assert facts(outer, node, "{{.Id}}") == identity


def test_where_two_clusters_join_a_network_the_long_name_is_one_clusters_alone(
    outer: Shell, engine: Engine, image: str
) -> None:
    told: list[Event] = []
    with (
        networks(outer, FIRST),
        cluster(engine, networks=[FIRST]),
        cluster(engine, OTHER, networks=[FIRST], listener=told.append),
        guest(outer, image, FIRST) as there,
    ):
        notes = [event.text for event in told if event.kind == "note"]
        assert notes == [f"kv-1 on network {FIRST} is also a node of cluster {NAME}: use {OTHER}-kv-1 there."]
        both = [address_in(outer, FIRST, f"{name}-kv-1") for name in (NAME, OTHER)]
        assert addresses_of(engine, there, f"{NAME}-kv-1", f"{OTHER}-kv-1") == [{both[0]}, {both[1]}]
        assert addresses_of(engine, there, "kv-1") == [{*both}]


def test_a_network_that_is_not_there_is_said_before_anything_is_made(outer: Shell) -> None:
    refused = outer.minicluster("up", "etcd", "--name", NAME, "--network", "t-addr-none", ok=False)
    assert refused.code == 2
    assert "--network t-addr-none: no such network" in refused.err
    assert "docker network create t-addr-none" in refused.err
    assert not remains(outer, NAME)


def test_down_lets_containers_of_others_go_and_leaves_them_alone(outer: Shell, engine: Engine, image: str) -> None:
    net = f"{NAME}-net"
    with (
        cluster(engine) as up,
        guest(outer, image, net) as running,
        guest(outer, image, net, name="t-addr-y") as stopped,
    ):
        outer.docker("network", "connect", "bridge", stopped)
        outer.docker("kill", stopped)
        # A guest never sits on the address of a node that is stopped.
        up.stop()
        with guest(outer, image, net, name="t-addr-z"):
            up.start()
        assert address_in(outer, net, f"{NAME}-kv-1") == up.node("kv-1").address
        state = "{{.State.Status}} {{.State.StartedAt}}"
        before = facts(outer, running, state)
        up.down()
        assert engine.network(net) is None
        assert facts(outer, running, state) == before
        assert before.startswith("running")
        outer.docker("start", stopped)
        assert facts(outer, stopped, "{{.State.Status}}") == "running"


@pytest.mark.parametrize("guests", ["10.213.78.224/27", "10.213.78.128/27"])
def test_a_subnet_that_another_network_has_is_taken_whatever_part_is_for_guests(
    engine: Engine, dynamic_range: str
) -> None:
    engine.create_network(FIRST, "10.213.78.0/24", "10.213.78.1", "10.213.78.224/27", {})
    try:
        with pytest.raises(SubnetTaken):
            engine.create_network(LAST, "10.213.78.0/24", "10.213.78.1", dynamic_range, {})
    finally:
        engine.remove_network(FIRST)
    engine.create_network(LAST, "10.213.78.0/24", "10.213.78.1", dynamic_range, {})
    engine.remove_network(LAST)


# On the engine's machine


def test_gateway_is_reached_from_other_networks_and_localhost_still_is(
    outer: Shell, engine: Engine, image: str
) -> None:
    with networks(outer, FIRST), cluster(engine, address_mode="gateway") as up:
        url = up.endpoint("client").url
        assert up.info().address_mode == "gateway"
        assert healthy(engine, mode="gateway") == [url]
        assert healthy(engine) == [f"https://127.0.0.1:{url.rpartition(':')[2]}"]
        env = up.env()
        folder = str(Path(env["ETCDCTL_CACERT"]).parent)
        settings = [word for key, value in env.items() for word in ("-e", f"{key}={value}")]
        with guest(outer, image, FIRST, "-v", f"{folder}:{folder}:ro", *settings) as there:
            client = ["etcdctl", "endpoint", "health"]
            eventually(lambda: engine.exec(there, client).exit_code == 0, within=20)
            outer.docker("network", "connect", "bridge", there)
            outer.docker("network", "disconnect", FIRST, there)
            eventually(lambda: engine.exec(there, client).exit_code == 0, within=20)
        up.restart()
        assert healthy(engine, mode="gateway") == [url]


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

    def run(self, *argv: str, timeout: float = 180, ok: bool = True, cwd: Path | None = None) -> Result:
        return self.outer.docker("exec", *self.options(), *argv, timeout=timeout, ok=ok)

    def options(self, more: Mapping[str, str] | None = None) -> list[str]:
        """What `docker exec` takes before the command."""
        env = {"PATH": os.environ["PATH"], **self.env, **(more or {})}
        return [*(word for key, value in env.items() for word in ("-e", f"{key}={value}")), self.container]


def test_a_test_in_a_container_stands_a_cluster_up_and_reaches_it(outer: Shell, engine: Engine, image: str) -> None:
    with within(outer, engine, image) as inside:
        try:
            up = inside.minicluster("up", "etcd", "--name", NAME, "--size", "kv=1", "-q", "-o", "json").json
            assert up["info"]["address_mode"] == "bridge"
            address = address_in(outer, f"{NAME}-net", f"{NAME}-kv-1")
            assert far_healthy(inside) == [f"https://{address}:2379"]
            client = replace(inside, env=up["info"]["env"])
            client.run("etcdctl", "put", "greeting", "hello")
            assert "hello" in client.run("etcdctl", "get", "greeting").out
            # The same cluster, asked from the machine itself: of another user there, who has no certificate yet.
            assert healthy(engine)[0].startswith("https://127.0.0.1:")
        finally:
            inside.minicluster("down", NAME, "-q")
        assert not remains(outer, f"{NAME}-kv")
        assert f"{NAME}-net" not in facts(outer, "t-addr-caller", "{{.NetworkSettings.Networks}}")
        assert not inside.run("find", "/tmp/data", "-type", "f").out


def test_a_container_that_comes_later_is_connected_when_it_asks(outer: Shell, engine: Engine, image: str) -> None:
    with cluster(engine):
        with within(outer, engine, image) as inside:
            assert far_healthy(inside)[0].endswith(":2379")
            assert f"{NAME}-net" in facts(outer, "t-addr-caller", "{{.NetworkSettings.Networks}}")
        # In the machine's own network nothing needs to be connected.
        with within(outer, engine, image, "--network", "host") as inside:
            assert far_healthy(inside)[0].startswith("https://127.0.0.1:")


# The plugin for pytest, elsewhere

#: A test of a distributed application: three lines, and what the stock client says at the address that it is handed.
TESTS = """
import os, subprocess, time
from minicluster.model.lease import Lease, Process

def etcdctl(cluster, *words):
    env = os.environ | cluster.env()
    return subprocess.run(["etcdctl", *words], env=env, capture_output=True, text=True, check=True).stdout

def test_the_application(minicluster):
    cluster = minicluster(os.environ["PROFILE"], size={"kv": 1})
    print("it is at", cluster.endpoint("client").url)
    assert etcdctl(cluster, "put", "greeting", "hello") == "OK\\n"
    assert etcdctl(cluster, "get", "greeting", "--print-value-only") == "hello\\n"

def test_finds_it_empty(minicluster):
    cluster = minicluster(os.environ["PROFILE"], size={"kv": 1})
    assert etcdctl(cluster, "get", "greeting") == ""
    if "LOST" in os.environ:
        # What is renewed for ten minutes three times a minute, as if the last time were nearly ten minutes ago.
        until = time.time() + float(os.environ["LOST"])
        cluster.renew(Lease(Process.this(), until))
        print("the lease of", cluster.name, "is over at", until, flush=True)
        time.sleep(600)
"""


@pytest.fixture
def tests(outer: Shell, tmp_path: Path) -> dict[str, str]:
    """Tests that use the plugin, in a folder of their own: variables that lead to them, and to their profile."""
    etcd_called(outer, tmp_path / KIND)
    (tmp_path / "test_it.py").write_text(TESTS)
    return {"PROFILE": str(tmp_path / KIND), "TESTS": str(tmp_path / "test_it.py")}


def pytest_words(tests: dict[str, str]) -> list[str]:
    return [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", "-s", tests["TESTS"]]


def found_at(output: str) -> str:
    """The host that the tests were handed, all of which have passed on the one cluster that was made."""
    assert "2 passed" in output, output
    assert re.search(r"s on clusters: 1 made in .* 1 reset in .* 1 taken down", output), output
    found = re.search(r"it is at https://([\d.]+):\d+$", output, re.MULTILINE)
    assert found
    return found[1]


def test_the_plugin_in_a_container(outer: Shell, engine: Engine, image: str, tests: dict[str, str]) -> None:
    folder = Path(tests["TESTS"]).parent
    with within(outer, engine, image, "-v", f"{folder}:{folder}:ro") as inside:
        there = replace(inside, env=tests)
        assert found_at(there.run(*pytest_words(tests)).out).startswith("172.")
        assert not remains(outer, KIND)

        # A job that is lost while its test runs: container, tests and reaper end at once, and nobody is told.
        argv = ["docker", "exec", *there.options({"LOST": "6"}), *pytest_words(tests)]
        job = subprocess.Popen(argv, env=os.environ | outer.env, stdout=subprocess.PIPE, text=True)
        assert job.stdout
        said = next(
            found for line in job.stdout if (found := re.search(r"the lease of (\S+) is over at ([\d.]+)", line))
        )
        outer.docker("rm", "-f", "-v", inside.container)
        job.communicate(timeout=30)
        name, until = said[1], float(said[2])
        listed = {c["cluster"]: c["lease"] for c in outer.minicluster("ls", "-o", "json").json}
        if time.time() < until - 0.5:  # not before
            assert re.fullmatch(r"process \d+", listed[name])
        time.sleep(max(0.0, until + 1 - time.time()))
        due = [c["why"] for c in outer.minicluster("gc", "--dry-run", "-o", "json").json if c["cluster"] == name]
        # None where a test beside this one came first.
        assert all("elsewhere, has not renewed its lease for 10 min" in why for why in due)
        outer.minicluster("ls")
        assert not remains(outer, KIND)


# A remote engine


@dataclass(frozen=True)
class Remote:
    """Another machine, as far as its network goes, from which the engine is reached by TCP with mutual TLS."""

    shell: Shell
    address: str  #: of the engine's machine, seen from there


class FarShell(Shell):
    """Runs commands in another network."""

    def run(self, *argv: str, timeout: float = 180, ok: bool = True, cwd: Path | None = None) -> Result:
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
        issued = authority.issue(CertificateSpec("", name, addresses=addresses))
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


def test_a_remote_engine_is_used_with_tls_and_its_cluster_is_reached(remote: Remote) -> None:
    far = remote.shell
    try:
        up = far.minicluster("up", "etcd", "--name", NAME, "--size", "kv=1", "-q", "-o", "json").json
        assert up["info"]["address_mode"] == "gateway"
        (url,) = far_healthy(far)
        assert url.startswith(f"https://{remote.address}:")
        assert far.minicluster("status", NAME, "-o", "json").json["phase"] == "ready"

        # Nodes' own addresses are out of reach from there: it is said what was tried, why not, and what to do.
        refused = far.minicluster("info", NAME, "--address-mode", "bridge", ok=False)
        assert refused.code == 1
        assert f"cluster {NAME} is running, but its nodes cannot be reached from here" in refused.err
        assert "Tried address mode bridge:" in refused.err
        assert "Network is unreachable" in refused.err
        assert f"minicluster up --name {NAME} --address-mode gateway" in refused.err
    finally:
        far.minicluster("down", NAME, "-q")


def test_a_cluster_that_is_published_on_localhost_alone_is_not_handed_out_elsewhere(
    engine: Engine, remote: Remote
) -> None:
    with cluster(engine):
        refused = remote.shell.minicluster("env", NAME, ok=False)
        assert refused.code == 1
        assert "is published only on 127.0.0.1 of the engine's machine" in refused.err
        assert not refused.out
        # Who asks for it gets it: what was asked for is what it needs.
        remote.shell.minicluster("up", "--name", NAME, "--address-mode", "gateway", "-q")
        assert far_healthy(remote.shell)[0].startswith(f"https://{remote.address}:")


def test_the_plugin_with_a_remote_engine(outer: Shell, remote: Remote, tests: dict[str, str]) -> None:
    far = FarShell(remote.shell.env | tests)
    assert found_at(far.run(*pytest_words(tests)).out) == remote.address
    assert not remains(outer, KIND)
    # Its reaper looks twice whether anything came to be a moment later. Till then there has to be a way to the engine.
    words = ("pgrep", "-f", f"reaper.py.*{Path(tests['TESTS']).parent}")
    eventually(lambda: not outer.run(*words, ok=False).out, within=30)
