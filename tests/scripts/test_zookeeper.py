"""The scripts of the zookeeper profile, against what servers of a real ensemble of three answered."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.scripts.conftest import DATA, Node

RECORDED = DATA / "zookeeper"
Program = Callable[[str, str], ModuleType]


@pytest.fixture
def reset(program: Program) -> ModuleType:
    return program("zookeeper", "zk-reset")


class Replay:
    """A server that expects recorded requests, byte by byte, and gives the recorded answers."""

    def __init__(self, exchange: list[tuple[str, bytes]]) -> None:
        self.exchange, self.wrong = exchange, ""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        with self.listener, self.listener.accept()[0] as client:
            client.settimeout(10)
            for kind, content in self.exchange:
                if kind == "answer":
                    client.sendall(content)
                    continue
                seen = b""
                while len(seen) < len(content) and (part := client.recv(len(content) - len(seen))):
                    seen += part
                if seen != content:
                    self.wrong = f"{seen!r} instead of {content!r}"
                    return


def record() -> tuple[str, int, list[tuple[str, bytes]]]:
    data = json.loads((RECORDED / "reset.json").read_text())
    return data["password"], data["zxid"], [(kind, bytes.fromhex(text)) for kind, text in data["exchange"]]


def against(reset: ModuleType, replay: Replay, tmp_path: Path, password: str) -> None:
    (tmp_path / "super").write_text(f"{password}\n")
    reset.PORT, reset.PASSWORD_FILE = replay.port, str(tmp_path / "super")


def test_reset_speaks_the_protocol_that_was_recorded(reset: ModuleType, tmp_path: Path) -> None:
    password, zxid, exchange = record()
    replay = Replay(exchange)
    against(reset, replay, tmp_path, password)
    assert reset.reset() == zxid
    replay.thread.join()
    assert replay.wrong == ""
    requests = b"".join(content for kind, content in exchange if kind == "request")
    # Children first; and what is ZooKeeper's own is not deleted.
    order = [requests.rindex(reset.text(path)) for path in ("/a/b/c", "/a/b", "/a")]
    assert order == sorted(order)
    for kind in (reset.SET_DATA, reset.SET_ACL):  # the root's content and ACL had been changed
        assert reset.number(1, kind) + reset.text("/") in requests
    delete = reset.number(1, reset.DELETE)
    for own in ("/zookeeper", "/zookeeper/config", "/zookeeper/quota"):
        assert delete + reset.text(own) not in requests


def test_a_server_that_closes_the_connection_is_tried_again(reset: ModuleType, tmp_path: Path) -> None:
    password, _zxid, exchange = record()
    replay = Replay([*exchange[:3], ("answer", exchange[3][1][:-1])])
    against(reset, replay, tmp_path, password)
    with pytest.raises(reset.NotYet, match="the server closed the connection"):
        reset.reset()
    replay.thread.join()


def test_a_refusal_names_the_error(reset: ModuleType, tmp_path: Path) -> None:
    password, _zxid, exchange = record()
    assert [kind for kind, _ in exchange[:4]] == ["request", "answer", "request", "answer"]
    refused = bytearray(exchange[3][1])
    refused[16:20] = reset.number(-115)  # after length, xid and zxid: authentication failed
    replay = Replay([*exchange[:3], ("answer", bytes(refused))])
    against(reset, replay, tmp_path, password)
    with pytest.raises(reset.NotYet, match="the server refuses request 100 with error -115"):
        reset.reset()
    replay.thread.join()


def test_what_a_server_says_of_itself_and_the_others(reset: ModuleType) -> None:
    assert reset.hosts((RECORDED / "conf").read_text()) == ["172.28.2.2", "172.28.2.3", "172.28.2.4"]
    assert reset.reached((RECORDED / "srvr-kv-3").read_text()) == 0x100000000
    assert reset.reached("This ZooKeeper instance is not currently serving requests\n") is None


def test_servers_that_lag_are_waited_for(reset: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"a": ["Zxid: 0x7\n", "Zxid: 0x8\n", "Zxid: 0x9\n"], "b": [""], "c": ["Zxid: 0x9\n"]}
    monkeypatch.setattr(reset, "word", lambda host, command: answers[host].pop(0))
    reset.wait_for(["a", "b", "c"], 9)
    assert answers == {"a": [], "b": [], "c": []}


ASK = """#!/bin/sh
case $1,$2 in
  127.0.0.1,conf) cat {recorded}/conf ;;
  172.28.2.2,srvr) cat {recorded}/srvr-kv-1 ;;
  172.28.2.4,srvr) cat {recorded}/srvr-kv-{leader} ;;
  *) exit 1 ;;
esac
"""


@pytest.mark.parametrize("leader", [3, 1])
def test_members(node: Node, leader: int) -> None:
    """One server does not answer. Where none says that it leads, that is an error, and who answers is told."""
    node.install("zookeeper", "zk-members")
    node.program("zk-ask", ASK.format(recorded=RECORDED, leader=leader))
    done = node.run("zk-members")
    if leader == 1:
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        assert [(row["name"], row["ready"], row["voter"]) for row in rows] == [
            ("kv-1", True, True),
            ("kv-2", False, True),
            ("kv-3", True, True),
        ]
        assert done.returncode == 1
        assert done.stderr.startswith("zk-members: the ensemble has no leader")
        return
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"name": "kv-1", "ready": True, "voter": True, "leader": False},
        {"name": "kv-2", "ready": False, "voter": True, "leader": False},
        {"name": "kv-3", "ready": True, "voter": True, "leader": True},
    ]


def test_a_server_that_is_read_only_is_not_ready(node: Node) -> None:
    node.install("zookeeper", "zk-members")
    ask = ASK.format(recorded=RECORDED, leader=3).replace("  *) exit", "  *,srvr) echo Mode: read-only ;;\n  *) exit")
    node.program("zk-ask", ask)
    second = json.loads(node.run("zk-members").stdout.splitlines()[1])
    assert (second["name"], second["ready"]) == ("kv-2", False)
    assert second["detail"] == "read-only: it reaches no quorum"


CLIENT = """#!/bin/sh
echo "$*" >>{root}/asked
[ "$3" != set ] || {{ printf %s "$5" >{root}/content; exit 0; }}
cat >>{root}/asked
[ ! -e {root}/hangs ] || exec sleep 20
exit 1
"""


@pytest.fixture
def apply(node: Node) -> Node:
    node.install("zookeeper", "zk-apply")
    node.program("zkCli.sh", CLIENT.format(root=node.root))
    return node


def test_apply_creates_what_is_above_and_sets_the_content(apply: Node) -> None:
    apply.write("file", "a value\n")
    done = apply.run("zk-apply", "/a/b", f"{apply.root}/file")
    assert (done.returncode, done.stderr) == (0, "")
    assert 'create "/a"\ncreate "/a/b"\n' in (apply.root / "asked").read_text()
    assert (apply.root / "content").read_text() == "a value"


@pytest.mark.parametrize(
    ("content", "why"), [("-1\n", "begins with -"), ("x" * 100_001, "has 100001 bytes: zkCli takes 100000 at most")]
)
def test_apply_refuses_what_the_client_cannot_take(apply: Node, content: str, why: str) -> None:
    apply.write("file", content)
    done = apply.run("zk-apply", "/a", f"{apply.root}/file")
    assert done.returncode == 1
    assert done.stderr.startswith("zk-apply: the content of /a ")
    assert why in done.stderr
    assert not (apply.root / "asked").exists()


def test_apply_does_not_wait_for_a_server_that_does_not_answer(apply: Node) -> None:
    apply.write("hangs", "")
    apply.write("file", "x")
    apply.program("timeout", '#!/bin/sh\n[ "$1" = 30 ] && shift && exec /usr/bin/timeout 0.2 "$@"\n')
    done = apply.run("zk-apply", "/a", f"{apply.root}/file")
    assert (done.returncode, done.stderr) == (1, "zk-apply: the server does not answer within 30 s\n")


@pytest.mark.parametrize("leader", [3, 1])
def test_the_workload_is_the_znodes_of_each_server_that_serves(node: Node, leader: int) -> None:
    node.install("zookeeper", "zk-workload")
    node.program("zk-ask", ASK.format(recorded=RECORDED, leader=leader))
    done = node.run("zk-workload")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["node"] for row in rows] == ["kv-1", "kv-3"]
    assert all(row["name"].endswith(" znodes") and row["detail"].startswith("zxid 0x") for row in rows)
    node.program("zk-ask", "#!/bin/sh\nexit 1\n")
    done = node.run("zk-workload")
    assert (done.returncode, done.stderr) == (1, "zk-workload: the server does not answer on port 2181\n")


def message(*parts: bytes) -> bytes:
    content = b"".join(parts)
    return len(content).to_bytes(4, "big") + content


def answered(reset: ModuleType, error: int = 0, content: bytes = b"") -> tuple[str, bytes]:
    return "answer", message(reset.number(1, 0, 9, error), content)


def test_write_creates_what_is_missing(program: Program, reset: ModuleType) -> None:
    _password, _zxid, exchange = record()
    number, text, one = reset.number, reset.text, "/minicluster"
    path = f"{one}/write"
    put = message(number(1, reset.SET_DATA), text(path), number(1), b"1", reset.ANY_VERSION)
    create = b"".join(message(number(1, 1), text(p), number(0), reset.OPEN, number(0)) for p in (one, path))
    opened = [("request", exchange[0][1]), exchange[1]]
    closed = [("request", message(number(1, -11))), answered(reset)]
    missing, exists = answered(reset, -101), answered(reset, -110)
    replay = Replay(
        [*opened, ("request", put), missing, ("request", create), exists, answered(reset), ("request", put),
         answered(reset), *closed]
    )  # fmt: skip
    program("zookeeper", "zk-write").write(path, replay.port)
    replay.thread.join()
    assert replay.wrong == ""
