"""A remote engine: reached by TCP with mutual TLS from a network namespace of its own."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from minicluster import pki
from minicluster.engine.protocol import Engine
from minicluster.model.spec import CertificateSpec
from minicluster.profile.addressing import choose_subnet
from tests.engine.conftest import Result, Shell, eventually, remains
from tests.engine.elsewhere import (
    cluster,
    far_healthy,
    found_at,
    plugin_tests,
    pytest_words,
)

NAME = "t-far"
KIND = "t-far-kind"  #: a profile like etcd's, for the clusters that the plugin names


@pytest.fixture(scope="module", autouse=True)
def _leaves_nothing(outer: Shell) -> Iterator[None]:
    yield
    assert not remains(outer, NAME)


@pytest.fixture
def tests(outer: Shell, tmp_path: Path) -> dict[str, str]:
    """Tests that use the plugin: variables with the paths of their file and profile."""
    return plugin_tests(outer, tmp_path / KIND)


@dataclass(frozen=True)
class Remote:
    """Another machine, as far as its network goes, from which the engine is reached by TCP with mutual TLS."""

    shell: Shell
    address: str  #: of the engine's machine, seen from there
    taken: str  #: a subnet to which the engine's machine has a route


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
        f"ip link add t-far0 type veth peer name t-far1 netns {NAME}",
        f"ip address add {here}/30 dev t-far0",
        "ip link set t-far0 up",
        f"ip -n {NAME} address add {there}/30 dev t-far1",
        f"ip -n {NAME} link set t-far1 up",
        f"ip -n {NAME} link set lo up",
    )
    try:
        # As where the engine's machine is in the network that a cluster would get: clusters that are made from
        # elsewhere must see that, too.
        taken = choose_subnet(engine.subnets())
        for command in (*commands, f"ip route add {taken} dev t-far0"):
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
            yield Remote(FarShell(env), here, taken)
    finally:
        subprocess.run(["ip", "link", "delete", "t-far0"], capture_output=True)
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
        refused = far.minicluster("up", "etcd", "--name", NAME, "--mount", "kv:/etc:/data", ok=False)
        assert "--mount kv:/etc:/data: the engine is on another machine (tcp://" in refused.err
        up = far.minicluster("up", "etcd", "--name", NAME, "--size", "kv=1", "-q", "-o", "json").json
        assert up["info"]["address_mode"] == "gateway"
        assert up["info"]["subnet"] != remote.taken
        (url,) = far_healthy(far, NAME)
        assert url.startswith(f"https://{remote.address}:")
        assert far.minicluster("status", NAME, "-o", "json").json["phase"] == "ready"

        # A fault is a container of that engine.
        assert "Fault 1" in far.minicluster("fault", "loss", "kv-1", "5%", "-c", NAME).out
        assert "loss kv-1 5%" in far.minicluster("status", NAME).out
        assert "Healed" in far.minicluster("heal", "-c", NAME).out

        # Nodes' own addresses are out of reach from there: it is said what was tried, why not, and what to do.
        refused = far.minicluster("info", NAME, "--address-mode", "bridge", ok=False)
        assert refused.code == 1
        assert f"cluster {NAME} is running, but its nodes cannot be reached from here" in refused.err
        assert "Tried address mode bridge:" in refused.err
        assert "Network is unreachable" in refused.err
        assert f"minicluster up --name {NAME} --address-mode gateway" in refused.err
    finally:
        far.minicluster("down", NAME, "-q")


def test_a_cluster_published_on_localhost_has_no_address_elsewhere(engine: Engine, remote: Remote) -> None:
    with cluster(engine, NAME):
        refused = remote.shell.minicluster("env", NAME, ok=False)
        assert refused.code == 1
        assert "is published only on 127.0.0.1 of the engine's machine" in refused.err
        assert refused.out == "false\n"  # stops eval "$(minicluster env)" && ...
        # Who asks for it gets it: what was asked for is what it needs.
        remote.shell.minicluster("up", "--name", NAME, "--address-mode", "gateway", "-q")
        assert far_healthy(remote.shell, NAME)[0].startswith(f"https://{remote.address}:")


@pytest.mark.long
def test_the_plugin_with_a_remote_engine(outer: Shell, remote: Remote, tests: dict[str, str]) -> None:
    far = FarShell(remote.shell.env | tests)
    assert found_at(far.run(*pytest_words(tests)).out) == remote.address
    assert not remains(outer, KIND)
    # The reaper checks twice for late objects. Until then it must be able to reach the engine.
    words = ("pgrep", "-f", f"reaper_process.py.*{Path(tests['TESTS']).parent}")
    eventually(lambda: not outer.run(*words, ok=False).out, within=30)
