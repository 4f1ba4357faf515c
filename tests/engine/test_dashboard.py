"""The dashboard of real clusters: what pages are told is what the systems' own clients say."""

from __future__ import annotations

import re
import signal
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

from minicluster.cluster import Cluster
from minicluster.engine.protocol import Engine
from tests.dashboard import Stream, serving
from tests.engine.conftest import VERSION, Shell, remains, swarm_client

NAME = "t-dashboard"


@pytest.fixture(scope="module")
def etcd(outer: Shell) -> Iterator[str]:
    """Three etcds."""
    name = f"{NAME}-etcd"
    try:
        outer.minicluster("up", "etcd", "--name", name, timeout=600)
        yield name
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}


def test_the_command_serves_until_it_is_interrupted(outer: Shell) -> None:
    process = outer.start("dashboard", "--port", "0", "--no-browser")
    try:
        assert process.stdout
        said = ""
        while "works once" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        opener = Path(re.search(r"file://(\S+)", said)[1])  # type: ignore[index]
        address = re.search(r"(http://127\.0\.0\.1:\d+)/\?token=\S+", said)
        assert address
        assert address[0] in opener.read_text()
        command = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert b"token" not in command
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        assert b"Opening the dashboard" in browser.open(address[0], timeout=30).read()
        assert b'id="clusters"' in browser.open(address[1], timeout=30).read()
        with browser.open(f"{address[1]}/stream", timeout=30) as stream:
            assert b"retry" in stream.readline()
            process.send_signal(signal.SIGINT)  # a page that is open does not keep it
            assert process.wait(20) == 130
        assert not opener.exists()
    finally:
        process.kill()
        process.communicate()


def ready(stream: Stream, name: str) -> None:
    stream.until(lambda: stream.cluster(name).get("phase") == "ready" and stream.cluster(name)["quorums"])


def test_the_members_keys_and_faults_of_etcd(outer: Shell, engine: Engine, etcd: str) -> None:
    cluster = Cluster.open(etcd, engine=engine)
    with serving(engine, control=True) as served, served.stream() as stream:
        ready(stream, etcd)
        leader = cluster.leader()
        assert [n["name"] for n in stream.cluster(etcd)["nodes"] if n["leader"]] == [leader]
        stream.until(lambda: stream.topics.get(f"usage/{etcd}", {}).get("kv-1", {}).get("memory"))
        for key in ("a", "b"):
            assert cluster.exec("kv-1", ["etcdctl", "put", key, "<b>1</b>"]).exit_code == 0
        rows = stream.until(lambda: _named(stream, etcd, "2 keys") and stream.cluster(etcd)["workload"]["rows"])
        assert {row["node"] for row in rows} == {"", "kv-1", "kv-2", "kv-3"}

        others = [name for name in ("kv-1", "kv-2", "kv-3") if name != leader]
        wish = {"cluster": etcd, "verb": "partition", "node": leader, "others": others}
        assert "writes go on" in served.post("/cost", wish)[1]["text"]
        assert served.post("/do", wish)[0] == 200
        stream.until(lambda: len(stream.cluster(etcd)["links"]) == 2)
        assert {link["kind"] for link in stream.cluster(etcd)["links"]} == {"cut"}
        assert stream.node(etcd, leader)["effects"] == [f"cut off from {', '.join(others)}"]
        stream.until(
            lambda: [n["name"] for n in stream.cluster(etcd)["nodes"] if n["leader"]][:1] not in ([], [leader])
        )
        (fault,) = stream.cluster(etcd)["faults"]
        assert "partition" in outer.minicluster("fault", "list", etcd).out
        assert served.post("/do", {"cluster": etcd, "verb": "heal", "fault": fault["id"]})[0] == 200
        stream.until(lambda: not stream.cluster(etcd)["links"])
        assert "No faults" in outer.minicluster("fault", "list", etcd).err


def _named(stream: Stream, cluster: str, name: str) -> bool:
    return name in [row["name"] for row in stream.cluster(cluster)["workload"]["rows"]]


@pytest.mark.long
def test_ten_instances_move_from_a_node_that_dies(outer: Shell, engine: Engine) -> None:
    name = f"{NAME}-swarm"
    try:
        outer.minicluster("up", "swarm", "--name", name, "--size", "agent=3", timeout=600)
        client = swarm_client(outer, name)
        image = outer.minicluster("info", name, "-o", "json").json["demo_image"]
        client.docker("service", "create", "--detach", "--name", "web", "--replicas", "10", image)
        with serving(engine, control=True) as served, served.stream() as stream:

            def running() -> dict[str, str]:
                rows = stream.cluster(name).get("workload", {}).get("rows", ())
                return {row["name"]: row["node"] for row in rows if row["ready"] and row["group"] == "web"}

            before = stream.until(lambda: len(running()) == 10 and running(), within=120)
            listed = client.docker(
                "service", "ps", "web", "--filter", "desired-state=running", "--format", "{{.Name}} {{.Node}}"
            )
            assert dict(line.split() for line in listed.out.splitlines()) == before
            there = [task for task, node in before.items() if node == "agent-1"]
            cost = served.post("/cost", {"cluster": name, "verb": "kill", "node": "agent-1"})[1]
            assert all(task in cost["text"] for task in there[:2])
            assert served.post("/do", {"cluster": name, "verb": "kill", "node": "agent-1"})[0] == 200
            stream.until(lambda: stream.node(name, "agent-1")["state"] == "down")
            stream.until(lambda: len(running()) == 10 and "agent-1" not in running().values(), within=120)
            assert {"agent-2", "agent-3"} <= set(running().values())
            assert served.post("/do", {"cluster": name, "verb": "start", "node": "agent-1"})[0] == 200
            stream.until(lambda: stream.node(name, "agent-1")["state"] == "ready")
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}


@pytest.mark.long
@pytest.mark.parametrize("profile", ["consul", "zookeeper"])
def test_what_is_stored_and_runs(outer: Shell, engine: Engine, profile: str) -> None:
    name = f"{NAME}-{profile}"
    try:
        outer.minicluster("up", profile, "--name", name, *VERSION.get(profile, ()), timeout=600)
        cluster = Cluster.open(name, engine=engine)
        with serving(engine) as served, served.stream() as stream:
            ready(stream, name)
            if profile == "consul":
                for command in ("kv put a 1", "services register -name=web -port=80"):
                    assert cluster.exec("agent-1", f"consul {command}").exit_code == 0
                stream.until(lambda: _named(stream, name, "1 key") and _named(stream, name, "web"))
                rows = stream.cluster(name)["workload"]["rows"]
                assert [(r["node"], r["ready"]) for r in rows if r["group"] == "web"] == [("agent-1", True)]
            else:
                rows = stream.until(
                    lambda: (
                        len(stream.cluster(name)["workload"]["rows"]) == 3 and stream.cluster(name)["workload"]["rows"]
                    )
                )
                assert all(row["name"].endswith("znodes") for row in rows)
                assert {row["node"] for row in rows} == {"kv-1", "kv-2", "kv-3"}
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}


@pytest.mark.long
def test_pods_are_where_kubectl_says(outer: Shell, engine: Engine) -> None:
    name = f"{NAME}-kube"
    try:
        outer.minicluster("up", "kubernetes", "--name", name, "--size", "agent=1", timeout=900)
        cluster = Cluster.open(name, engine=engine)
        image = outer.minicluster("info", name, "-o", "json").json["demo_image"]
        kubectl = ["kubectl", "create", "deployment", "web", f"--image={image}", "--replicas=3"]
        assert cluster.exec("master-1", kubectl).exit_code == 0
        with serving(engine) as served, served.stream() as stream:

            def web() -> list[str]:
                rows = stream.cluster(name).get("workload", {}).get("rows", ())
                return sorted(row["name"] for row in rows if row["group"] == "web" and row["ready"])

            stream.until(lambda: len(web()) == 3, within=180)
            listed = cluster.exec("master-1", "kubectl get pods -l app=web -o name").stdout.split()
            assert web() == sorted(line.removeprefix("pod/") for line in listed)
            assert {r["node"] for r in stream.cluster(name)["workload"]["rows"]} == {"agent-1"}
            assert any(r["group"] == "system" for r in stream.cluster(name)["workload"]["rows"])
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}
