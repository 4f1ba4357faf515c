"""An engine whose administrator has set nearly everything, in a network of its own: names, a proxy, odd defaults.

In another network the engine writes rules of iptables, and has a bridge, apart from this machine's.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from minicluster.engine.private import daemon
from tests.engine.conftest import Result, Shell, eventually, remains
from tests.engine.sockets import network_in

NAME = "t-odd"
DOMAIN = "corp.t-odd.test"
HERE, KNOWN = "10.213.78.1", "10.213.78.9"  #: where the servers are; the address of every name that they know
SETTINGS = {
    "log-driver": "none",
    "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 20000, "Soft": 16000}},
    "default-address-pools": [{"base": "10.213.80.0/20", "size": 24}],
    "init": True,
    "cgroup-parent": f"/{NAME}",
    "live-restore": True,
    "userland-proxy": False,
    "ipv6": True,
    "fixed-cidr-v6": "fd00:213:78::/64",
    "mtu": 1400,
    "icc": False,
    "dns": [HERE],
    "dns-search": [DOMAIN],
    "dns-opts": ["timeout:1"],
}

pytestmark = pytest.mark.long


class Inside(Shell):
    """Runs commands in the engine's network."""

    def run(self, *argv: str, timeout: float = 180, ok: bool = True, cwd: Path | None = None) -> Result:
        words = ("nsenter", f"--net=/run/netns/{NAME}", *argv)
        return super().run(*words, timeout=timeout, ok=ok, cwd=cwd)


def answer_names(server: socket.socket) -> None:
    """Answers for addresses of names below the domain; there are no others."""
    while True:
        try:
            query, asker = server.recvfrom(512)
        except OSError:  # the end of the test
            return
        at, labels = 12, []
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
            at += query[at] + 1
        question, kind = query[12 : at + 5], query[at + 1 : at + 3]
        known = ".".join(labels).endswith(DOMAIN) and labels[0] != "unknown"
        answers = known and kind == b"\0\1"
        record = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + socket.inet_aton(KNOWN) if answers else b""
        head = query[:2] + struct.pack(">HHHHH", 0x8580 | (0 if known else 3), 1, int(answers), 0, 0)
        server.sendto(head + question + record, asker)


def take_requests(server: socket.socket, asked: list[str]) -> None:
    """A proxy that refuses everything, and notes what it was asked for."""
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        with client, suppress(OSError):
            client.settimeout(5)
            asked.append(client.recv(4096).decode("latin-1").partition("\r\n")[0])
            client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture(scope="module")
def asked() -> list[str]:
    """The first lines of the requests to the proxy."""
    return []


@pytest.fixture(scope="module")
def odd(outer: Shell, asked: list[str]) -> Iterator[Shell]:
    if daemon.obstacle() or not shutil.which("nsenter"):
        pytest.skip(f"no engine of its own here: {daemon.obstacle() or 'there is no nsenter'}")
    folder = Path(tempfile.mkdtemp(prefix="mc-", dir="/var/tmp"))
    config = folder / "daemon.json"
    endpoint = f"unix://{folder}/docker.sock"
    paths = {"data-root": str(folder / "data"), "exec-root": f"/run/{NAME}", "pidfile": str(folder / "pid")}
    config.write_text(json.dumps({**SETTINGS, **paths, "hosts": [endpoint]}))
    proxy = f"http://{HERE}:3128"
    env = {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "NO_PROXY": "", "XDG_DATA_HOME": str(folder / "home")}
    shell = Inside({"DOCKER_HOST": endpoint, **env})
    opened: list[socket.socket] = []
    engine: subprocess.Popen[bytes] | None = None
    subprocess.run(["ip", "netns", "delete", NAME], capture_output=True)  # a run that was killed leaves it
    try:
        for command in (
            f"ip netns add {NAME}",
            f"ip -n {NAME} link set lo up",
            f"ip -n {NAME} address add {HERE}/32 dev lo",
            f"ip netns exec {NAME} sysctl -qw net.ipv4.ip_forward=1",
        ):
            made = subprocess.run(command.split(), capture_output=True, text=True)
            if made.returncode:
                pytest.skip(f"no network of its own can be made here: {made.stderr.strip()}")
        with network_in(f"/run/netns/{NAME}"):
            opened = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.create_server((HERE, 3128))]
        opened[0].bind((HERE, 53))
        threading.Thread(target=answer_names, args=(opened[0],), daemon=True).start()
        threading.Thread(target=take_requests, args=(opened[1], asked), daemon=True).start()
        with (folder / "log").open("wb") as log:
            words = ["nsenter", f"--net=/run/netns/{NAME}", "dockerd", f"--config-file={config}"]
            engine = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

        def answers() -> bool:
            assert engine
            assert engine.poll() is None, (folder / "log").read_text()[-3000:]
            return shell.docker("version", ok=False).code == 0

        eventually(answers, what="the engine answers")
        yield shell
        assert remains(shell) == {}
    finally:
        if engine:
            ids = shell.docker("ps", "-aq", ok=False).out.split()
            if ids:
                shell.docker("rm", "-fv", *ids, ok=False)
            engine.terminate()
            try:
                engine.wait(timeout=60)
            except subprocess.TimeoutExpired:
                engine.kill()
        for server in opened:
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        subprocess.run(["ip", "netns", "delete", NAME], capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(f"/run/{NAME}", ignore_errors=True)
        for group in {*Path("/sys/fs/cgroup").glob(NAME), *Path("/sys/fs/cgroup").glob(f"*/{NAME}")}:
            with suppress(OSError):  # the engine removes those of containers, and not the one above them
                group.rmdir()


def with_images_of(shell: Shell, outer: Shell, *profiles: str) -> None:
    """Gives an engine the node images of profiles, as the other one has them."""
    images = [ref for p in profiles for ref in outer.minicluster("image", "build", p, timeout=900).out.split()]
    # At the end of the block the pipe is closed, and whatever still saves ends.
    with subprocess.Popen(["docker", "save", *images], env=os.environ | outer.env, stdout=subprocess.PIPE) as save:
        load = ["docker", "load"]
        subprocess.run(load, env=os.environ | shell.env, stdin=save.stdout, check=True, capture_output=True)
    assert save.returncode == 0


def test_nodes_and_tasks_of_a_swarm(odd: Shell, outer: Shell, asked: list[str]) -> None:
    name = f"{NAME}-swarm"
    with_images_of(odd, outer, "swarm")
    try:
        odd.minicluster("up", "swarm", "--name", name, "--size", "agent=1", timeout=300)
        assert odd.minicluster("logs", "-c", name, "agent-1").out
        about = odd.docker("inspect", f"{name}-agent-1").json[0]
        assert about["HostConfig"]["CgroupParent"] in ("", f"/{NAME}")
        node = ("exec", f"{name}-agent-1")
        assert odd.docker(*node, "sh", "-c", "ulimit -n").out.strip() == "16000"
        run = (*node, "docker", "run", "--rm", "localhost/minicluster/demo")
        assert KNOWN in odd.docker(*run, "nslookup", f"intranet.{DOMAIN}").out
        assert DOMAIN in odd.docker(*run, "cat", "/etc/resolv.conf").out
        assert odd.docker(*run, "cat", "/sys/class/net/eth0/mtu").out.strip() == "1400"
        assert f"server at {HERE}" not in odd.docker(*run, "nslookup", f"unknown.{DOMAIN}", ok=False).out
        # The host's containers have no proxy of their own either, unless the docker client sets it.
        assert "PROXY" not in odd.docker(*run, "env").out.upper()
        odd.docker(*node, "docker", "pull", f"registry.{DOMAIN}/app:1", ok=False)
        assert any(f"registry.{DOMAIN}" in line for line in asked), asked
        status = odd.minicluster("status", name, "-o", "json").json
        assert status["phase"] == "ready"
        odd.minicluster("restart", "-c", name, "agent-1")
    finally:
        odd.minicluster("down", name, ok=False)
    assert remains(odd, name) == {}


def test_pods_of_kubernetes(odd: Shell, outer: Shell, asked: list[str]) -> None:
    name = f"{NAME}-kube"
    with_images_of(odd, outer, "kubernetes")
    try:
        odd.minicluster("up", "kubernetes", "--name", name, "--size", "agent=1", timeout=600)
        kubectl = ("exec", "-c", name, "master-1", "--", "kubectl")
        demo = ("--image", "localhost/minicluster/demo:1")
        odd.minicluster(*kubectl, "run", "one", *demo)
        odd.minicluster(*kubectl, "run", "other", "--image", f"registry.{DOMAIN}/pod:1")
        odd.minicluster(*kubectl, "wait", "--for", "condition=Ready", "pod/one", "--timeout", "60s")

        def pod(*words: str) -> str:
            return odd.minicluster(*kubectl, "exec", "one", "--", *words, ok=False).out

        assert KNOWN in eventually(lambda: pod("nslookup", f"intranet.{DOMAIN}"), what="the name resolves")
        assert DOMAIN in pod("cat", "/etc/resolv.conf")
        assert pod("cat", "/sys/class/net/eth0/mtu").strip() == "1400"
        eventually(lambda: any(f"registry.{DOMAIN}" in line for line in asked), what="its kubelet asks the proxy")
        assert odd.minicluster("logs", "-c", name, "agent-1").out
    finally:
        odd.minicluster("down", name, ok=False)
    assert remains(odd, name) == {}
