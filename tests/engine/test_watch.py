"""``cp``, ``top`` and ``events`` on real clusters."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import Shell, eventually, remains

NAME = "t-watch"
REDIS = Path(__file__).parents[2] / "docs/examples/redis"


@pytest.fixture(scope="module")
def cluster(outer: Shell) -> Iterator[str]:
    """Three Redis nodes: small, and without a members hook."""
    try:
        outer.minicluster("up", str(REDIS), "--name", NAME, timeout=600)
        yield NAME
    finally:
        outer.minicluster("down", NAME, ok=False)
    assert remains(outer, f"{NAME}-") == {}


def cp(outer: Shell, source: object, destination: object, *, ok: bool = True) -> Any:
    return outer.minicluster("cp", "-c", NAME, str(source), str(destination), ok=ok)


def listing(outer: Shell, node: str, path: str) -> set[str]:
    """Everything below a path of a node: name, mode, owner, time and link target."""
    found = outer.minicluster("exec", "-c", NAME, node, "--", "find", path, "-printf", r"%P %y %m %u:%g %Ts %l\n").out
    return {line.rstrip() for line in found.splitlines()}


def test_cp_copies_a_folder_to_every_node_of_a_role_and_back(cluster: str, outer: Shell, tmp_path: Path) -> None:
    made = tmp_path / "made"
    (made / "deep").mkdir(parents=True)
    (made / "deep/run").write_text("#!/bin/sh\necho hello\n")
    (made / "deep/run").chmod(0o751)
    (made / "link").symlink_to("deep/run")
    (made / "large").write_bytes(os.urandom(5_000_001))
    os.utime(made / "large", (1_000_000_000, 1_000_000_000))
    (made / "deep").chmod(0o700)

    cp(outer, made, "store:/srv")
    for node in ("store-1", "store-2", "store-3"):
        assert outer.minicluster("exec", "-c", NAME, node, "--", "/srv/made/link").out == "hello\n"
        rows = {row.split()[0]: row.split()[1:] for row in listing(outer, node, "/srv/made") if row[0] != " "}
        assert rows["deep/run"][:3] == ["f", "751", "root:root"]
        assert rows["deep"][:3] == ["d", "700", "root:root"]
        assert rows["large"][3] == "1000000000"
        assert rows["link"][-1] == "deep/run"

    cp(outer, "store-2:/srv/made", tmp_path / "back")
    assert (tmp_path / "back/large").read_bytes() == (made / "large").read_bytes()
    assert (tmp_path / "back/large").stat().st_mtime == 1_000_000_000
    assert (tmp_path / "back/deep/run").stat().st_mode & 0o7777 == 0o751
    assert (tmp_path / "back/deep").stat().st_mode & 0o7777 == 0o700
    assert os.readlink(tmp_path / "back/link") == "deep/run"


def test_cp_of_files_content_and_a_stopped_node(cluster: str, outer: Shell, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a").write_text("a")
    outer.docker("stop", "-t", "2", f"{NAME}-store-3")
    try:
        cp(outer, tmp_path / "d/a", "store-3:/srv/b")
        cp(outer, f"{tmp_path}/d/.", "store-3:/srv")
        cp(outer, f"{tmp_path}/d/.", "store-3:/srv/new")
        for there in ("/srv/a", "/srv/b", "/srv/new/a"):
            cp(outer, f"store-3:{there}", tmp_path / "c")
            assert (tmp_path / "c").read_text() == "a"
        (tmp_path / "e").mkdir()
        cp(outer, "store-3:/srv/new/.", tmp_path / "e")
        assert [p.name for p in (tmp_path / "e").iterdir()] == ["a"]
    finally:
        outer.docker("start", f"{NAME}-store-3")


def test_cp_of_a_whole_etc_leaves_out_links_that_lead_to_this_machine(
    cluster: str, outer: Shell, tmp_path: Path
) -> None:
    answer = outer.minicluster("cp", "-c", NAME, "store-1:/etc", str(tmp_path), "-o", "json")
    assert (tmp_path / "etc/redis.conf").is_file()
    for link in (p for p in tmp_path.rglob("*") if p.is_symlink()):
        assert link.resolve().is_relative_to(tmp_path)
    assert any(left.startswith("localtime -> ") for left in answer.json[0]["left_out"])


@pytest.mark.parametrize(
    ("source", "destination", "said"),
    [
        ("store-1:/none", "HERE", "no such file in store-1: /none"),
        ("HERE/none", "store-1:/srv", "no such file: "),
        ("HERE", "store-1:/none/x", "no such folder in store-1: /none"),
        ("HERE", "store-1:/etc/passwd", "/etc/passwd of store-1 is not a folder"),
        ("store-9:/etc", "HERE", "no node or role 'store-9'"),
        ("store-1:/etc", "HERE/none/x", "no such folder"),
    ],
)
def test_errors_of_cp(cluster: str, outer: Shell, tmp_path: Path, source: str, destination: str, said: str) -> None:
    here = str(tmp_path)
    answer = cp(outer, source.replace("HERE", here), destination.replace("HERE", here), ok=False)
    assert answer.code in (1, 2)
    assert said in answer.err
    assert list(tmp_path.iterdir()) == []


def test_top_shows_which_node_is_busy(cluster: str, outer: Shell) -> None:
    outer.docker("exec", "-d", f"{NAME}-store-2", "timeout", "30", "sh", "-c", "while :; do :; done")
    outer.docker("pause", f"{NAME}-store-3")
    try:
        answer = outer.minicluster("top", "-c", NAME, "--once", "-o", "json").json
        nodes = {node["name"]: node for node in answer["nodes"]}
        assert list(nodes) == ["store-1", "store-2", "store-3"]
        assert nodes["store-2"]["cpu"] > 10 > nodes["store-1"]["cpu"]
        assert nodes["store-3"]["phase"] == "paused"
        for name in ("store-1", "store-2"):
            node = nodes[name]
            assert node["phase"] == "running"
            assert 1 << 20 < node["memory"] < node["memory_limit"]
            assert node["pids"] >= 1
            assert node["received"] > 0
            assert node["sent"] > 0
    finally:
        outer.docker("unpause", f"{NAME}-store-3")
    outer.docker("exec", f"{NAME}-store-2", "sh", "-c", "kill $(pidof timeout)")
    rows = outer.minicluster("top", "-c", NAME, "store-1").out.splitlines()
    assert [row.split()[0] for row in rows] == ["NODE", "store-1"]


def test_top_streams_json_until_it_is_interrupted(cluster: str, outer: Shell) -> None:
    with outer.start("top", "-c", NAME, "-o", "json") as top:
        assert top.stdout
        times = [json.loads(top.stdout.readline())["time"] for _ in range(3)]
        top.send_signal(signal.SIGINT)
        assert top.stdout.read().count("Interrupted") == 0
        assert top.wait(10) == 130
    assert 0.8 < times[1] - times[0] < 5


class Stream:
    """Runs ``events -o json`` in the background."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.told: list[dict[str, Any]] = []

    def until(self, event: str, node: str | None) -> dict[str, Any]:
        """Reads until an event of a node, or of any (None)."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.told.append(json.loads(line))
            if self.told[-1]["event"] == event and (self.told[-1]["node"] == node if node else self.told[-1]["node"]):
                return self.told[-1]
        raise AssertionError(f"the stream ended before {event} of {node}: {self.told}")


@contextmanager
def listening(outer: Shell, name: str) -> Iterator[Stream]:
    process = outer.start("events", "-c", name, "-o", "json", "--since", "1s")
    try:
        yield Stream(process)
    finally:
        process.kill()
        process.communicate()


def test_events_show_what_the_engine_does(cluster: str, outer: Shell) -> None:
    node = f"{NAME}-store-2"
    with listening(outer, NAME) as stream:
        outer.minicluster("exec", "-c", NAME, "store-2", "--", "true")
        outer.docker("pause", node)
        assert stream.until("pause", "store-2")["role"] == "store"
        outer.docker("unpause", node)
        stream.until("unpause", "store-2")
        outer.docker("kill", node)
        assert stream.until("kill", "store-2")["detail"] == {"signal": "SIGKILL"}
        assert stream.until("die", "store-2")["detail"] == {"exit_code": 137}
        outer.docker("start", node)
        assert stream.until("start", "store-2")["cluster"] == NAME
        assert not [told for told in stream.told if told["event"].startswith("exec")]
        stream.process.send_signal(signal.SIGINT)
        assert stream.process.wait(10) == 130


@pytest.mark.long
def test_events_follow_a_cluster_until_it_is_removed(outer: Shell) -> None:
    name = "t-watch-swarm"
    try:
        outer.minicluster("up", "swarm", "--name", name, "--size", "master=3", "--size", "agent=1", timeout=600)
        eventually(
            lambda: outer.minicluster("status", name, "-o", "json").json["phase"] == "ready", what="the swarm is ready"
        )
        leader = outer.minicluster("status", name, "-o", "json").json["quorum"]["leader"]
        with listening(outer, name) as stream:
            # The first look at the members is what later ones are compared with; it comes within a second or two.
            time.sleep(3)
            outer.docker("pause", f"{name}-agent-1")
            stream.until("unready", "agent-1")
            outer.docker("unpause", f"{name}-agent-1")
            stream.until("ready", "agent-1")
            outer.docker("kill", f"{name}-{leader}")
            stream.until("die", leader)
            assert stream.until("leader", None)["detail"]["to"] != leader
            outer.minicluster("down", name)
            assert stream.process.wait(20) == 0
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, f"{name}-") == {}
