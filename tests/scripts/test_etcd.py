"""The scripts of the etcd profile, with an etcdctl that replays what one of a real cluster of three printed."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.scripts.conftest import DATA, Node

RECORDED = DATA / "etcd"

#: Answers by its first two words, from files of that name; "WORD-WORD.fails" makes it fail. What it was asked is kept.
ETCDCTL = """#!/bin/bash
cd {answers}
echo "$*" >>asked
at=$1-$2
[ ! -e "$at.slow" ] || sleep "$(<"$at.slow")"
if [ -e "$at.fails" ]; then cat "$at.fails" >&2; exit 1; fi
[ ! -e "$at" ] || cat "$at"
if [ -e "$at.next" ]; then mv "$at.next" "$at"; fi
"""
ENV = "ETCD_NAME=kv-4\nETCD_INITIAL_ADVERTISE_PEER_URLS=https://172.28.0.5:2380\nETCD_DATA_DIR={}/data\n"


@pytest.fixture
def etcd(node: Node) -> Node:
    node.install("etcd", "etcd-members", "etcd-join", "etcd-remove", "etcd-ready", "etcd-http", "etcd-workload")
    (node.root / "answers").mkdir()
    node.program("etcdctl", ETCDCTL.format(answers=node.root / "answers"))
    node.write("/etc/etcd/etcd.env", ENV.format(node.root))
    (node.root / "var/lib/etcd").mkdir(parents=True)
    return node


def answer(node: Node, name: str, text: str) -> None:
    node.write(f"answers/{name}", text)


def asked(node: Node) -> list[str]:
    return (node.root / "answers/asked").read_text().splitlines()


def members(node: Node) -> dict[str, tuple[bool, bool, bool]]:
    done = node.run("etcd-members")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {m["name"]: (m["ready"], m["voter"], m["leader"]) for m in lines}


MEMBERS = (RECORDED / "member-list").read_text()


def test_the_workload_is_the_keys_and_how_far_each_member_is(etcd: Node) -> None:
    answer(etcd, "get-", '"ClusterID" : 1\n"Revision" : 9\n"More" : false\n"Count" : 1\n')
    answer(etcd, "member-list", MEMBERS)
    answer(etcd, "endpoint-status", (RECORDED / "endpoint-status-kv-3-hangs").read_text())
    done = etcd.run("etcd-workload")
    assert (done.returncode, done.stderr) == (0, "")
    keys, *rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert keys == {"name": "1 key", "group": "keys"}
    assert [row["node"] for row in rows] == ["kv-1", "kv-2"]
    assert all(re.fullmatch(r"revision \d+", row["name"]) and "KiB, term" in row["detail"] for row in rows)
    answer(etcd, "get-.fails", "Error: context deadline exceeded")
    done = etcd.run("etcd-workload")
    assert (done.returncode, done.stdout) == (1, "")
    assert "context deadline exceeded" in done.stderr


def test_members_of_a_healthy_cluster(etcd: Node) -> None:
    answer(etcd, "member-list", MEMBERS)
    answer(etcd, "endpoint-status", (RECORDED / "endpoint-status").read_text())
    assert members(etcd) == {"kv-1": (True, True, True), "kv-2": (True, True, False), "kv-3": (True, True, False)}


def test_a_member_that_hangs_is_not_ready(etcd: Node) -> None:
    answer(etcd, "member-list", MEMBERS)
    answer(etcd, "endpoint-status", (RECORDED / "endpoint-status-kv-3-hangs").read_text())
    assert members(etcd) == {"kv-1": (True, True, True), "kv-2": (True, True, False), "kv-3": (False, True, False)}


def test_a_learner_is_no_member_yet(etcd: Node) -> None:
    learner = "5f3a0c5a0d6c7a11, started, kv-4, https://172.28.0.5:2380, https://172.28.0.5:2379, true\n"
    answer(etcd, "member-list", MEMBERS + learner)
    answer(etcd, "endpoint-status", (RECORDED / "endpoint-status").read_text())
    assert sorted(members(etcd)) == ["kv-1", "kv-2", "kv-3"]


def test_without_a_leader_there_is_no_list(etcd: Node) -> None:
    answer(etcd, "member-list", MEMBERS)
    status = (RECORDED / "endpoint-status").read_text()
    leader = next(line for line in status.splitlines() if line.startswith('"Leader"'))
    answer(etcd, "endpoint-status", status.replace(leader, '"Leader" : 0'))
    done = etcd.run("etcd-members")
    assert (done.returncode, done.stderr) == (1, "etcd-members: the cluster has no leader\n")
    assert answering(done.stdout) == {"kv-1": True, "kv-2": True, "kv-3": True}


def test_without_a_quorum_who_answers_is_told_by_the_members_own_list(etcd: Node) -> None:
    """etcdctl reads this list from the member alone, and asks each of the others by itself."""
    answer(etcd, "quorate.fails", "context deadline exceeded\n")
    answer(etcd, "own-list", MEMBERS)
    etcd.program(
        "etcdctl",
        f"""#!/bin/bash
        cd {etcd.root}/answers
        case "$ETCDCTL_ENDPOINTS $*" in
          " member list --consistency=s "*) cat own-list ;;
          "https://172.28.0.2:2379 endpoint status "*) ;;
          *) cat quorate.fails >&2; exit 1 ;;
        esac""",
    )
    done = etcd.run("etcd-members")
    assert (done.returncode, done.stderr) == (1, "etcd-members: etcd does not answer, or has no leader\n")
    assert answering(done.stdout) == {"kv-1": True, "kv-2": False, "kv-3": False}


def answering(text: str) -> dict[str, bool]:
    rows = [json.loads(line) for line in text.splitlines()]
    assert all(row["voter"] for row in rows)
    return {row["name"]: row["ready"] for row in rows}


def test_without_an_answer_there_is_no_list(etcd: Node) -> None:
    answer(etcd, "member-list.fails", "context deadline exceeded\n")
    done = etcd.run("etcd-members")
    assert (done.returncode, done.stderr) == (1, "etcd-members: etcd does not answer, or has no leader\n")


def test_remove_tries_again_until_the_member_is_not_listed(etcd: Node) -> None:
    answer(etcd, "member-list", MEMBERS)
    answer(etcd, "member-list.next", "".join(MEMBERS.splitlines(keepends=True)[:1]))
    done = etcd.run("etcd-remove", "172.28.0.4")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[:3] for line in asked(etcd)][1] == ["member", "remove", "6d00c3f5d2bdda82"]
    assert asked(etcd)[-1].startswith("member list")


def test_removal_of_what_is_no_member_does_nothing(etcd: Node) -> None:
    answer(etcd, "member-list", MEMBERS)
    assert etcd.run("etcd-remove", "172.28.0.9").returncode == 0
    assert len(asked(etcd)) == 1


def wait(check: Callable[[], bool], run: subprocess.Popen[str]) -> None:
    """Waits for a check while a script runs."""
    end = time.monotonic() + 20
    while not check():
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


ADDED = """Member 5f3a0c5a0d6c7a11 added to cluster b1606eb2fc88b106

ETCD_NAME="kv-4"
ETCD_INITIAL_CLUSTER="kv-1=https://172.28.0.2:2380,kv-4=https://172.28.0.5:2380"
ETCD_INITIAL_ADVERTISE_PEER_URLS="https://172.28.0.5:2380"
ETCD_INITIAL_CLUSTER_STATE="existing"
"""


def test_a_new_member_is_added_as_a_learner_and_promoted(etcd: Node) -> None:
    # With --command-timeout first, the stand-in's words are that option and "member".
    first = "--command-timeout=5s-member"
    fake = ETCDCTL.replace("at=$1-$2", "at=$2-$3").format(answers=etcd.root / "answers")
    assert first not in fake
    etcd.program("etcdctl", fake)
    own = "5f3a0c5a0d6c7a11, {}, kv-4, https://172.28.0.5:2380, https://172.28.0.5:2379, {}\n"
    answer(etcd, "member-list", MEMBERS)
    answer(etcd, "member-list.next", MEMBERS + own.format("unstarted", "true"))
    answer(etcd, "member-add", ADDED)
    etcd.program("etcd-ready", "#!/bin/sh\nexit 0\n")
    run = etcd.start("etcd-join", "172.28.0.2")
    joining = etcd.root / "var/lib/etcd/joining.env"
    wait(lambda: joining.exists() and any("promote" in line for line in asked(etcd)), run)
    assert "MEMBER=5f3a0c5a0d6c7a11" in joining.read_text().splitlines()
    assert "ETCD_INITIAL_CLUSTER_STATE=existing" in joining.read_text().splitlines()
    (etcd.root / "data/member/wal").mkdir(parents=True)
    answer(etcd, "member-list", MEMBERS + own.format("started", "false"))
    assert run.wait(timeout=20) == 0
    run.communicate()


def test_a_join_that_is_refused_can_be_cancelled(etcd: Node) -> None:
    fake = ETCDCTL.replace("at=$1-$2", "at=$2-$3").format(answers=etcd.root / "answers")
    etcd.program("etcdctl", fake)
    answer(etcd, "member-list", MEMBERS)
    answer(etcd, "member-add.fails", "etcdserver: unhealthy cluster\n")
    run = etcd.start("etcd-join", "172.28.0.2")
    wait((etcd.root / "answers/asked").exists, run)
    assert etcd.run("etcd-join", "--cancel").returncode == 0
    assert run.communicate(timeout=10)[1] == "etcd-join: cancelled by a newer run\n"
    assert run.returncode == 1


# Authentication that a user has switched on, without certificates

ANSWERS = {
    "members": '[{"id":1,"peerURLs":["http://172.28.0.4:2380"],"name":"kv-3","clientURLs":["http://172.28.0.4:2379"]},'
    '{"id":2,"peerURLs":["http://172.28.0.2:2380"],"name":"kv-1","clientURLs":["http://172.28.0.2:2379"]},'
    '{"id":3,"peerURLs":["http://172.28.0.3:2380"],"isLearner":true,"name":"kv-2","clientURLs":["http://172.28.0.3:2379"]}]',
    "health": '{"health":"true","reason":""}',
}
HTTP = """#!/bin/bash
cd {answers}
[ ! -e "$1-$3" ] || exec cat "$1-$3"
cat "$3"
"""


@pytest.fixture
def refusing(etcd: Node) -> Node:
    """A node whose etcd wants a password, and answers what needs none."""
    etcd.program("etcdctl", "#!/bin/sh\necho 'Error: etcdserver: user name is empty' >&2\nexit 1\n")
    for path, text in ANSWERS.items():
        answer(etcd, path, text)
    answer(etcd, "metrics", "etcd_server_has_leader 1\netcd_server_is_leader 0\n")
    answer(etcd, "172.28.0.4-metrics", "etcd_server_has_leader 1\netcd_server_is_leader 1\n")
    etcd.program("etcd-http", HTTP.format(answers=etcd.root / "answers"))
    return etcd


def test_members_are_known_without_a_password(refusing: Node) -> None:
    assert members(refusing) == {"kv-3": (True, True, True), "kv-1": (True, True, False)}


def test_no_leader_is_no_leader_without_a_password_too(refusing: Node) -> None:
    answer(refusing, "172.28.0.4-metrics", "etcd_server_has_leader 0\netcd_server_is_leader 0\n")
    done = refusing.run("etcd-members")
    assert (done.returncode, done.stderr) == (1, "etcd-members: the cluster has no leader\n")


@pytest.mark.parametrize(
    ("health", "code"),
    [
        ('{"health":"true","reason":""}', 0),
        ('{"health":"false","reason":"ALARM NOSPACE"}', 0),
        ('{"health":"false","reason":"RAFT NO LEADER"}', 1),
    ],
)
def test_readiness_needs_no_password(refusing: Node, health: str, code: int) -> None:
    answer(refusing, "health", health)
    text = (refusing.bin / "etcd-ready").read_text().replace("retry 1 0.02 waits_or_listens", "true")
    refusing.program("etcd-ready", text)
    assert refusing.run("etcd-ready").returncode == code


@pytest.mark.parametrize("script", [("etcd-join", "172.28.0.2"), ("etcd-remove", "172.28.0.3")])
def test_membership_cannot_be_changed_without_a_password(refusing: Node, script: tuple[str, ...]) -> None:
    done = refusing.run(*script, timeout=10)
    assert done.returncode == 1
    assert "credentials refused" in done.stderr
    assert "etcdctl auth disable" in done.stderr


def test_an_alarm_is_told_with_what_ends_it(etcd: Node) -> None:
    answer(etcd, "member-list", MEMBERS)
    status = (RECORDED / "endpoint-status").read_text()
    answer(etcd, "endpoint-status", status.replace('"Errors" : []', '"Errors" : [memberID:1 alarm:NOSPACE ]'))
    lines = [json.loads(line) for line in etcd.run("etcd-members").stdout.splitlines()]
    assert {(line["ready"], line.get("detail")) for line in lines} == {(True, "its database is full")}
    assert all("etcdctl alarm disarm" in line["fix"] for line in lines)
    # One that was just started knows no leader for a moment: a fix would end the wait for it.
    text = (etcd.root / "answers/endpoint-status").read_text()
    before, _, last = text.rpartition('"Leader" : ')
    answer(etcd, "endpoint-status", f'{before}"Leader" : 0\n{last.partition(chr(10))[2]}')
    lines = [json.loads(line) for line in etcd.run("etcd-members").stdout.splitlines()]
    assert sorted((line["ready"], "fix" in line) for line in lines) == [(False, False), (True, True), (True, True)]
