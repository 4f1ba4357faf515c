"""The scripts of the swarm profile, with a docker that plays a manager whose swarm changes while it is asked."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket

import pytest

from tests.scripts.conftest import PROFILES, Node

#: Each call is written down. Answers are in the file of its first two words; those of the next call in ".next".
DOCKER = """#!/bin/bash
cd {answers}
echo "$*" >>asked
at=$1-$2
if [ -e "$at.fails" ]; then cat "$at.fails" >&2; mv "$at.fails" "$at.failed"; exit 1; fi
[ ! -e "$at" ] || cat "$at"
if [ -e "$at.next" ]; then mv "$at.next" "$at"; fi
"""


@pytest.fixture
def swarm(node: Node) -> Node:
    node.install("swarm", "swarm-init", "swarm-join", "swarm-remove", "swarm-leave", "swarm-members", "swarm-reset")
    (node.root / "answers").mkdir()
    shutil.copy(PROFILES / "swarm/files/swarm.sh", node.lib)
    text = (node.lib / "swarm.sh").read_text().replace("/usr/local/lib/", f"{node.root}/usr/local/lib/")
    (node.lib / "swarm.sh").write_text(text)
    node.program("docker", DOCKER.format(answers=node.root / "answers"))
    return node


def answer(node: Node, name: str, text: str) -> None:
    node.write(f"answers/{name}", text)


def asked(node: Node, *words: str) -> list[str]:
    lines = (node.root / "answers/asked").read_text().splitlines()
    return [line for line in lines if line.startswith(" ".join(words))]


def test_remove_removes_the_vote_first_and_looks_again(swarm: Node) -> None:
    answer(swarm, "node-ls", "master-1 a1 Ready Leader\nmaster-2 b2 Down Reachable\nmaster-20 c3 Ready \n")
    answer(swarm, "node-ls.next", "master-1 a1 Ready Leader\nmaster-20 c3 Ready \n")
    assert swarm.run("swarm-remove", "master-2").returncode == 0
    assert asked(swarm, "node", "demote") == ["node demote b2"]
    assert asked(swarm, "node", "rm") == ["node rm --force b2"]
    assert len(asked(swarm, "node", "ls")) == 2


def test_remove_of_a_dead_node_touches_no_live_one(swarm: Node) -> None:
    answer(swarm, "node-ls", "agent-1 a1 Ready \nagent-1 b2 Down \n")
    answer(swarm, "node-ls.next", "agent-1 a1 Ready \n")
    assert swarm.run("swarm-remove", "agent-1", "down").returncode == 0
    assert asked(swarm, "node", "rm") == ["node rm --force b2"]


def test_an_election_is_waited_for(swarm: Node) -> None:
    answer(swarm, "node-ls.fails", "The swarm does not have a leader.\n")
    answer(swarm, "node-ls", "master-1 a1 Ready Leader\n")
    assert swarm.run("swarm-remove", "agent-1").returncode == 0


def test_drain_waits_until_tasks_have_moved(swarm: Node) -> None:
    answer(swarm, "node-ls", "agent-1 a1 Ready\nagent-10 b2 Ready\n")
    answer(swarm, "node-ps", "task Running 3 seconds ago web.1\n")
    answer(swarm, "node-ps.next", "task Shutdown 1 second ago web.1\n")
    answer(swarm, "service-ls", "service web 0/1\n")
    answer(swarm, "service-ls.next", "service web 1/1\n")
    done = swarm.run("swarm-leave", "agent-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert asked(swarm, "node", "update") == ["node update --availability drain a1"]
    assert len(asked(swarm, "node", "ps")) == 2


def test_drain_of_a_dead_node_has_nothing_to_wait_for(swarm: Node) -> None:
    answer(swarm, "node-ls", "agent-1 a1 Down\n")
    assert swarm.run("swarm-leave", "agent-1").returncode == 0
    assert not asked(swarm, "node", "update")


def test_init_creates_a_swarm_where_there_is_none(swarm: Node) -> None:
    # swarm-init asks "docker info --format ..." and "docker swarm join-token -q ROLE".
    answer(swarm, "info---format", "pending false\n")
    answer(swarm, "info---format.next", "inactive false\n")
    answer(swarm, "swarm-join-token.fails", "Error response from daemon: rpc error: code = DeadlineExceeded\n")
    answer(swarm, "swarm-join-token", "SWMTKN-1\n")
    done = swarm.run("swarm-init", "172.28.0.2", "--", "agent-1")
    assert (done.returncode, done.stdout) == (0, "SWMTKN-1\nSWMTKN-1\n")
    assert len(asked(swarm, "swarm", "init")) == 1
    assert not asked(swarm, "node", "ls")  # a new swarm has no other nodes
    assert [line.split()[-1] for line in asked(swarm, "swarm", "join-token")] == ["worker", "worker", "manager"]


def test_init_removes_the_dead_of_the_names_that_join(swarm: Node) -> None:
    answer(swarm, "info---format", "active true\n")
    answer(swarm, "node-ls", "a1 agent-1 Ready.\nb2 agent-2 Ready.\n")
    answer(swarm, "node-ls.next", "a1 agent-1 Down.\nb2 agent-2 Ready.\n")
    answer(swarm, "swarm-join-token", "SWMTKN-1\n")
    swarm.program("swarm-remove", f'#!/bin/sh\necho "$*" >>{swarm.root}/removed\n')
    assert swarm.run("swarm-init", "172.28.0.2", "--", "agent-1").returncode == 0
    assert (swarm.root / "removed").read_text() == "agent-1 down\n"


MEMBER = """#!/bin/bash
case "${{DOCKER_HOST-here}} $1-$2" in
  "here info---format") echo "active true a1 " ;;
  "tcp://172.28.0.3:2376 info---format") echo "{state}" ;;
  *" node-ls") echo "b2 agent-1 {status}." ;;
  *" node-inspect") echo 172.28.0.3 ;;
  *" swarm-join-token") echo SWMTKN-1 ;;
esac
"""


@pytest.mark.parametrize("status", ["Ready", "Unknown"])
@pytest.mark.parametrize(
    ("state", "removed"),
    [
        ("inactive false - ", True),
        ("active false c3 ", True),
        ("active false b2 ", False),
        ("active true b2 ", False),
        ("pending false - ", False),
        ("locked false - ", False),
        ("error false - ", False),
        ("", False),
    ],
)
def test_init_removes_no_member_whose_engine_does_not_say_that_it_has_left(
    swarm: Node, state: str, removed: bool, status: str
) -> None:
    swarm.program("docker", MEMBER.format(state=state, status=status))
    swarm.program("swarm-remove", f'#!/bin/sh\necho "$*" >>{swarm.root}/removed\n')
    text = (swarm.bin / "swarm-init").read_text()
    assert "retry 10 0.25" in text
    (swarm.bin / "swarm-init").write_text(text.replace("retry 10 0.25", "retry 0 0.25"))
    done = swarm.run("swarm-init", "172.28.0.2", "--", "agent-1")
    assert (done.returncode, done.stdout) == (0, "SWMTKN-1\nSWMTKN-1\n"), done.stderr
    file = swarm.root / "removed"
    assert (file.read_text() if file.exists() else "") == ("agent-1 b2\n" if removed else "")


MANAGER = """#!/bin/bash
echo "${{DOCKER_HOST-here}} $*" >>{root}/calls
case "${{DOCKER_HOST-here}} $1-$2" in
  *172.28.0.4*" info---format") echo "active true b2 172.28.0.4:2377 " ;;
  *" info---format") echo "inactive false - " ;;
  *172.28.0.4*" node-ls") {ls} ;;
  *172.28.0.4*" swarm-join-token") echo SWMTKN-1 ;;
esac
"""


def test_init_joins_the_swarm_that_a_user_gave_to_another_node(swarm: Node) -> None:
    swarm.program("docker", MANAGER.format(root=swarm.root, ls="echo b2"))
    done = swarm.run("swarm-init", "172.28.0.2", "172.28.0.3", "172.28.0.4", "--", "agent-1")
    assert (done.returncode, done.stdout) == (0, "SWMTKN-1\nSWMTKN-1\n")
    calls = (swarm.root / "calls").read_text()
    assert "here swarm join --token SWMTKN-1 --advertise-addr 172.28.0.2" in calls
    assert "172.28.0.4:2377" in calls
    assert "swarm init" not in calls


def test_init_makes_no_swarm_beside_one_without_a_leader(swarm: Node) -> None:
    swarm.program("docker", MANAGER.format(root=swarm.root, ls="exit 1"))
    swarm.write("usr/local/bin/sleep", "#!/bin/sh\n")
    (swarm.root / "usr/local/bin/sleep").chmod(0o755)
    text = (swarm.root / "usr/local/bin/swarm-init").read_text()
    (swarm.root / "usr/local/bin/swarm-init").write_text(text.replace("find_manager 20", "find_manager 0"))
    done = swarm.run("swarm-init", "172.28.0.2", "172.28.0.3", "172.28.0.4", "--")
    assert done.returncode == 1
    assert "172.28.0.4 have its data: `docker swarm init --force-new-cluster`" in done.stderr
    assert "swarm init" not in (swarm.root / "calls").read_text()


def test_init_says_that_there_is_no_leader(swarm: Node) -> None:
    answer(swarm, "info---format", "active true\n")
    answer(swarm, "swarm-join-token.fails", "Error response from daemon: The swarm does not have a leader.\n")
    done = swarm.run("swarm-init", "172.28.0.2")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == (
        "swarm-init: the swarm has no leader: too few of its managers are running: it has no join tokens"
    )


def test_a_join_that_failed_leaves_nothing_behind_before_the_next(swarm: Node) -> None:
    answer(swarm, "info---format", "inactive\n")
    answer(swarm, "swarm-join.fails", "Error response from daemon: rpc error: raft: dropped\n")
    assert swarm.run("swarm-join", "SWMTKN-1", "172.28.0.2", "172.28.0.3").returncode == 0
    told = [line.split()[1] for line in asked(swarm, "swarm")]
    assert told == ["join", "leave", "join"]


def test_a_wrong_token_is_not_tried_again(swarm: Node) -> None:
    answer(swarm, "info---format", "inactive\n")
    answer(swarm, "swarm-join.fails", "Error response from daemon: invalid join token\n")
    done = swarm.run("swarm-join", "SWMTKN-1", "172.28.0.2", "172.28.0.3")
    assert done.returncode == 1
    assert done.stderr.startswith("swarm-join: cannot join the swarm at 172.28.0.2: ")
    assert len(asked(swarm, "swarm", "join")) == 1


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ("pending false", "this node is not an active member of the swarm (state pending)"),
        ("active true", "the swarm has no leader: too few of its managers are running"),
        ("", "the engine does not answer"),
    ],
)
def test_members_says_why_it_cannot_list_them(swarm: Node, state: str, why: str) -> None:
    answer(swarm, "node-ls.fails", "Error\n")
    answer(swarm, "info---format", f"{state}\n" if state else "")
    done = swarm.run("swarm-members")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"swarm-members: {why}\n")


def test_members_of_a_node_in_no_swarm_are_none(swarm: Node) -> None:
    answer(swarm, "node-ls.fails", "Error\n")
    answer(swarm, "info---format", "inactive false -\n")
    done = swarm.run("swarm-members")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_locked_swarm_is_not_waited_for(swarm: Node) -> None:
    answer(swarm, "node-ls.fails", "Error\n")
    answer(swarm, "info---format", "locked false -\n")
    done = swarm.run("swarm-members")
    assert done.returncode == 77
    assert done.stderr.startswith("the swarm is locked: ")
    assert "docker swarm unlock" in done.stderr


def test_a_swarm_that_has_failed_is_not_waited_for(swarm: Node) -> None:
    answer(swarm, "node-ls.fails", "Error\n")
    answer(swarm, "info---format", "error false -\n")
    for script in ("swarm-members",), ("swarm-init", "172.28.0.2"):
        done = swarm.run(*script)
        assert done.returncode == 77
        assert done.stderr.startswith("the swarm refuses this node: ")
        assert "docker swarm leave --force" in done.stderr


def test_a_worker_asks_a_manager_that_it_knows(swarm: Node) -> None:
    answer(swarm, "node-ls.fails", "Error response from daemon: This node is not a swarm manager.\n")
    answer(swarm, "node-ls", 'Ready a1 "name": "agent-1", "ready": true\n')
    answer(swarm, "info---format", "active false b2 172.28.0.3:2377 \n")
    done = swarm.run("swarm-members")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"name": "agent-1", "ready": True})


@pytest.mark.parametrize(
    ("state", "listed"),
    [
        ("inactive false -", []),
        ("locked false -", [{"name": "agent-1", "ready": False, "detail": "its swarm is locked",
                             "fix": "docker swarm unlock"}]),
        ("error false -", [{"name": "agent-1", "ready": False,
                            "detail": "its swarm has failed (docker info says why, such as an expired certificate)",
                            "fix": "docker swarm leave --force, then minicluster up"}]),
        ("pending false -", [{"name": "agent-1", "ready": False, "detail": "it reaches no manager"}]),
        ("active false a1", [{"name": "agent-1", "ready": False}]),
    ],
)  # fmt: skip
def test_a_member_that_is_down_is_asked_itself(swarm: Node, state: str, listed: list[object]) -> None:
    answer(swarm, "node-ls", 'Down a1 "name": "agent-1", "ready": false\n')
    answer(swarm, "node-inspect", "a1 172.28.0.3\n")
    answer(swarm, "info---format", f"{state} \n")
    done = swarm.run("swarm-members")
    assert done.returncode == 0
    assert [json.loads(line) for line in done.stdout.splitlines()] == listed


@pytest.mark.parametrize(
    ("state", "left"),
    [
        ("inactive false -", []),
        ("active false b2", [{"name": "agent-2", "ready": True}]),
        ("locked false -", [{"name": "agent-2", "ready": False, "detail": "its swarm is locked",
                             "fix": "docker swarm unlock"}]),
    ],
)  # fmt: skip
def test_a_member_that_is_ready_and_refuses_gossip_is_asked_itself(swarm: Node, state: str, left: list[object]) -> None:
    """The swarm needs three heartbeats to see that a node has left."""
    rows = [("master-1", "a1"), ("agent-1", "a2"), ("agent-2", "b2"), ("agent-20", "c3")]
    answer(swarm, "node-ls", "".join(f'Ready {id} "name": "{name}", "ready": true\n' for name, id in rows))
    answer(swarm, "node-inspect", "b2 172.28.0.5\n")
    answer(swarm, "info---format", f"{state} \n")
    with contextlib.ExitStack() as stack:
        for last in 2, 3, 5:
            stack.enter_context(contextlib.closing(socket.create_server((f"127.0.37.{last}", 7946))))
        done = swarm.run(
            "swarm-members", "master-1=127.0.37.2", "agent-1=127.0.37.3 agent-2=127.0.37.4 agent-20=127.0.37.5"
        )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    names = ("master-1", "agent-1", *(["agent-2"] if left else []), "agent-20")
    assert [member["name"] for member in found] == list(names)
    assert [member for member in found if member["name"] == "agent-2"] == left
    assert [line.split()[-1] for line in asked(swarm, "node", "inspect")] == ["b2"]


def test_a_node_that_was_removed_from_the_list_joins_again(swarm: Node) -> None:
    swarm.write("/var/lib/docker/swarm/docker-state.json", "{}")
    answer(swarm, "info---format", "active false old \n")
    answer(swarm, "node-inspect.fails", "Error: No such node: old\n")
    assert swarm.run("swarm-join", "SWMTKN-1", "172.28.0.2", "172.28.0.3").returncode == 0
    assert [line.split()[1] for line in asked(swarm, "swarm")] == ["leave", "join"]


def test_a_node_that_the_swarm_lists_stays_the_member_it_is(swarm: Node) -> None:
    swarm.write("/var/lib/docker/swarm/docker-state.json", "{}")
    answer(swarm, "info---format", "active false old \n")
    answer(swarm, "node-inspect", "old\n")
    assert swarm.run("swarm-join", "SWMTKN-1", "172.28.0.2", "172.28.0.3").returncode == 0
    assert (swarm.root / "answers/asked").exists()
    assert not asked(swarm, "swarm")


def test_a_label_with_spaces_is_removed(swarm: Node) -> None:
    answer(swarm, "node-ls", "a1\n")
    answer(swarm, "node-inspect", "a1 --availability active\na1 --label-rm two words\n")
    assert swarm.run("swarm-reset", "services").returncode == 0
    assert asked(swarm, "node", "update") == [
        "node update --availability active a1",
        "node update --label-rm two words a1",
    ]


PING = r"""#!/bin/sh
cat >/dev/null
printf 'HTTP/1.0 200 OK\r\nApi-Version: 1.55\r\n{header}Content-Length: 2\r\n\r\nOK'
"""


@pytest.mark.parametrize(
    ("socat", "info", "code", "said", "clients"),
    [
        (PING.format(header=r"Swarm: active/manager\r\n"), "", 0, "", 0),
        (PING.format(header=r"Swarm: inactive\r\n"), "", 0, "", 0),
        (PING.format(header=r"Swarm: locked\r\n"), "", 77, "the swarm is locked", 0),
        (PING.format(header=""), "active\n", 0, "", 1),  # Docker 20.10
        (PING.format(header=""), "locked\n", 77, "the swarm is locked", 1),
        ("#!/bin/sh\nexit 1\n", "active\n", 1, "the engine does not answer", 0),
        (None, "active\n", 0, "", 1),  # an image without socat
        (None, "", 1, "the engine does not answer", 1),
    ],
)
def test_a_node_is_ready_when_its_engine_answers(
    swarm: Node, socat: str | None, info: str, code: int, said: str, clients: int
) -> None:
    swarm.install("swarm", "minicluster-ready")
    swarm.write("run/minicluster/loaded", "")
    answer(swarm, "info---format", info)
    swarm.write("answers/asked", "")
    path = swarm.environment({})["PATH"]
    if socat:
        swarm.program("socat", socat)
    else:
        few = swarm.root / "few"
        few.mkdir()
        for name in ("sh", "bash", "cat", "timeout", "hostname", "mv"):
            (few / name).symlink_to(str(shutil.which(name)))
        path = f"{swarm.bin}:{few}"
    done = swarm.run("/bin/sh", f"{swarm.bin}/minicluster-ready", PATH=path)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert len(asked(swarm, "info")) == clients
