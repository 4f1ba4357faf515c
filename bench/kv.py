"""The key-value stores against a plain script and Docker Compose, and a leader that dies."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import ssl
import struct
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import plain
from measure import NAME, ROOT, Failed, Report, median, minicluster, run, spread

UP_SECONDS = {"etcd": 2.2, "zookeeper": 2.7}
_PATIENCE = 0.3  # seconds that one request to a survivor has


def measure(report: Report, profile: str, rounds: int) -> None:
    """The plain script, Docker Compose and minicluster in turn, round by round."""
    times: dict[str, list[float]] = defaultdict(list)
    minicluster("image", "build", profile)
    _, compose = run(str(ROOT / "bench" / "get-compose"))
    with tempfile.TemporaryDirectory(prefix="mc-") as floor, tempfile.TemporaryDirectory(prefix="mc-") as composed:
        plain.prepare(profile, "bench-floor", Path(floor))
        plain.prepare(profile, "bench-compose", Path(composed))
        for n in range(rounds + 1):
            taken = {
                **_floor(floor),
                **_compose(compose.strip(), f"{composed}/compose.json"),
                **_minicluster(profile),
            }
            if n:  # the first round warms caches
                for what, seconds in taken.items():
                    times[what].append(seconds)
    _rows(report, profile, times)


def reset(report: Report) -> None:
    """Resets of three members of etcd, each with keys and a lease, by a process that has imported everything."""
    code = (
        "import time\nfrom minicluster.cluster import Cluster\n"
        f"cluster = Cluster.up('etcd', name={NAME!r})\n"
        "fill = ['sh', '-c', 'for n in 1 2 3 4 5 6 7 8 9; do etcdctl put $n x; done; etcdctl lease grant 600']\n"
        "for n in range(21):\n"
        "    assert cluster.exec('kv-1', fill).exit_code == 0\n"
        "    begun = time.perf_counter()\n"
        "    cluster.reset()\n"
        "    print(time.perf_counter() - begun)\n"
    )
    try:
        _, text = run(sys.executable, "-c", code)
    finally:
        minicluster("down", NAME, "-q")
    times = [float(line) for line in text.split()][1:]  # the first one imports
    report.add("reset of etcd, 3 nodes", median(times), 0.2, "s", spread(times))


def _floor(folder: str) -> dict[str, float]:
    _, text = run(str(ROOT / "bench" / "floor-nodes.sh"), folder)
    return {f"floor {what}": float(seconds) for what, seconds in re.findall(r"(\S.*\S)\s+([\d.]+)$", text, re.M)}


def _compose(program: str, file: str) -> dict[str, float]:
    try:
        up, _ = run(program, "-f", file, "up", "-d", "--wait")
    finally:
        down, _ = run(program, "-f", file, "down", "-v", "-t", "0")
    return {"compose up": up, "compose down": down}


def _minicluster(profile: str) -> dict[str, float]:
    try:
        taken = {
            "up": minicluster("up", profile, "--name", NAME, "-q")[0],
            "stop": minicluster("stop", "-c", NAME, "-q")[0],
            "start": minicluster("start", "-c", NAME, "-q")[0],
        }
        taken["leader"], taken["write"] = _kill_leader(profile)
    finally:
        down, _ = minicluster("down", NAME, "-q")
    return taken | {"down": down}


def _rows(report: Report, profile: str, times: dict[str, list[float]]) -> None:
    def against(claim: str, ours: str, other: str, limit: float) -> None:
        detail = f"{spread(times[ours])} against {spread(times[other])}"
        report.add(claim, median(times[ours]) / median(times[other]), limit, "times", detail)

    def seconds(claim: str, what: str, limit: float) -> None:
        report.add(claim, median(times[what]), limit, "s", spread(times[what]))

    against(f"up {profile}, 3 nodes, against the plain script", "up", "floor up: all members ready", 1.1)
    against(f"up {profile}, against docker-compose up --wait", "up", "compose up", 1.0)
    seconds(f"up {profile}", "up", UP_SECONDS[profile])
    against(f"down {profile}, against docker-compose down -t 0", "down", "compose down", 1.5)
    against(f"stop {profile}, against docker stop", "stop", "floor stop: containers stopped", 1.5)
    against(f"start {profile}, against docker start and the probes", "start", "floor start: all members ready", 1.5)
    against(f"start {profile}, against docker start alone", "start", "floor start: containers started", 1.5)
    seconds(f"{profile}, leader killed until another is named", "leader", 1.5)
    seconds(f"{profile}, leader killed until a survivor takes a write", "write", 1.5)


def _kill_leader(profile: str) -> tuple[float, float]:
    """Seconds from just before a leader is killed until the survivors name another one, and until a write succeeds."""
    _, text = minicluster("info", NAME, "-o", "json")
    nodes = {e["node"]: urlsplit(e["url"]) for e in json.loads(text)["endpoints"] if e["name"] == "client"}
    _, env = minicluster("env", NAME, "-o", "json")
    store = _Etcd(json.loads(env)) if profile == "etcd" else _ZooKeeper()
    leader = next(name for name, at in nodes.items() if store.leads(at.hostname, at.port))
    survivors = [(at.hostname, at.port) for name, at in nodes.items() if name != leader]
    begun = time.perf_counter()
    run("docker", "kill", f"{NAME}-{leader}")
    named = _until(store.leads, survivors, begun)
    return named, _until(store.write, survivors, begun)


def _until(succeeds: Callable[[str, int], bool], survivors: list[tuple[str, int]], begun: float) -> float:
    """Asks the survivors in turn until one says yes; seconds since ``begun``."""
    while time.perf_counter() < begun + 60:
        for host, port in survivors:
            with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
                if succeeds(host, port):
                    return time.perf_counter() - begun
        time.sleep(0.01)
    raise Failed("the survivors are still without a leader after 60 s")


class _Etcd:
    """Its own JSON over HTTP: https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/"""

    def __init__(self, env: dict[str, str]) -> None:
        self._tls = ssl.create_default_context(cafile=env["ETCDCTL_CACERT"])
        self._tls.load_cert_chain(env["ETCDCTL_CERT"], env["ETCDCTL_KEY"])

    def leads(self, host: str, port: int) -> bool:
        status, answer = self._post(host, port, "/v3/maintenance/status", {})
        return status == 200 and answer.get("leader") == answer["header"]["member_id"]

    def write(self, host: str, port: int) -> bool:
        return self._post(host, port, "/v3/kv/put", {"key": "YmVuY2g=", "value": "YmVuY2g="})[0] == 200

    def _post(self, host: str, port: int, path: str, body: dict[str, str]) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPSConnection(host, port, timeout=_PATIENCE, context=self._tls)
        with contextlib.closing(connection):
            connection.request("POST", path, json.dumps(body))
            response = connection.getresponse()
            return response.status, json.loads(response.read())


class _ZooKeeper:
    """Its own protocol (zookeeper.jute in ZooKeeper's sources): frames with their length before them, big-endian."""

    def leads(self, host: str, port: int) -> bool:
        with socket.create_connection((host, port), _PATIENCE) as connection, connection.makefile("rb") as answer:
            connection.sendall(b"srvr")
            return b"Mode: leader" in answer.read()

    def write(self, host: str, port: int) -> bool:
        """A new session, and in it a node that is removed with it."""
        connect = struct.pack(">iqiq", 0, 0, 4000, 0) + _text(bytes(16))
        anyone = struct.pack(">ii", 1, 31) + _text(b"world") + _text(b"anyone")
        ephemeral_sequential = struct.pack(">i", 3)
        create = struct.pack(">ii", 1, 1) + _text(b"/bench-") + _text(b"") + anyone + ephemeral_sequential
        with socket.create_connection((host, port), _PATIENCE) as connection, connection.makefile("rb") as stream:
            connection.sendall(_text(connect))
            _frame(stream)
            connection.sendall(_text(create))
            _xid, _zxid, error = struct.unpack(">iqi", _frame(stream)[:16])
            return bool(error == 0)


def _text(value: bytes) -> bytes:
    return struct.pack(">i", len(value)) + value


def _frame(stream: BinaryIO) -> bytes:
    head = stream.read(4)
    if len(head) < 4:
        raise ConnectionError("the server closed the connection")
    return stream.read(struct.unpack(">i", head)[0])
