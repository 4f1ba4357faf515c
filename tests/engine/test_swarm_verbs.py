"""The verbs of a cluster's life on a highly available Swarm, proved with the stock docker client."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.engine.conftest import Shell, eventually, remains, swarm_client
from tests.engine.test_swarm import ready, running

NAME = "t-verbs"
NODES = {"master-1", "master-2", "master-3", "agent-1"}


@pytest.fixture(scope="module")
def swarm(outer: Shell) -> Iterator[Shell]:
    """Three masters and an agent with a service of six replicas; the value is minicluster's own environment."""
    try:
        outer.minicluster("up", "swarm", "--name", NAME, "--size", "master=3", "--size", "agent=1", timeout=600)
        client(outer).docker(
            "service", "create", "--name", "web", "--replicas", "6", "--no-resolve-image", "--detach",
            "localhost/minicluster/demo",
        )  # fmt: skip
        yield outer
    finally:
        outer.minicluster("down", NAME, ok=False)
    assert remains(outer, NAME) == {}


def client(shell: Shell) -> Shell:
    """A stock client of whichever master `env` names now."""
    return swarm_client(shell, NAME)


def is_whole(shell: Shell, nodes: set[str]) -> None:
    """Every node is Ready and all six replicas run, by the swarm's own word."""

    def whole() -> bool:
        docker = client(shell)
        listed = docker.docker("node", "ls", "--format", "{{.Hostname}} {{.Status}}", ok=False)
        members = listed.out.splitlines()  # and nobody else is one
        return len(members) == len(nodes) and ready(docker) == nodes and running(docker).total() == 6

    eventually(whole, within=90, what=f"{nodes} Ready, six replicas")
    eventually(lambda: shell.minicluster("status", NAME, "-o", "json").json["phase"] == "ready", what="ready")


def leader(shell: Shell) -> str:
    def ask() -> str:
        quorum = shell.minicluster("status", NAME, "-o", "json").json["quorum"]
        return str(quorum["leader"]) if quorum else ""  # none while nobody can be asked

    return str(eventually(ask, what="a leader"))


@pytest.mark.long
def test_one_node_after_the_other_restarts(swarm: Shell) -> None:
    is_whole(swarm, NODES)
    was = leader(swarm)
    answer = swarm.minicluster("restart", "--rolling", "-c", NAME, timeout=300)
    order = [line.split(":")[0] for line in answer.err.splitlines() if ": ready" in line]
    assert set(order) == NODES
    assert order[-1] == was
    is_whole(swarm, NODES)


@pytest.mark.long
def test_stopped_and_started(swarm: Shell) -> None:
    swarm.minicluster("stop", "-c", NAME)
    assert swarm.minicluster("status", NAME, "-o", "json").json["phase"] == "stopped"
    swarm.minicluster("start", "-c", NAME, timeout=300)
    is_whole(swarm, NODES)


@pytest.mark.long
def test_all_restarted_at_once_by_the_engine(swarm: Shell) -> None:
    swarm.docker("restart", *(f"{NAME}-{node}" for node in sorted(NODES)))
    is_whole(swarm, NODES)


@pytest.mark.long
def test_a_paused_agent_is_seen_as_down_and_comes_back(swarm: Shell) -> None:
    swarm.minicluster("pause", "agent", "-c", NAME)
    eventually(lambda: ready(client(swarm)) == NODES - {"agent-1"}, what="agent-1 is Down")
    # As a node looks that Swarm has wrongly written down as Down for good: it is connected to some manager.
    masters = [f"{NAME}-{node}" for node in sorted(NODES) if node.startswith("master")]
    nodes = {node["name"]: node for node in swarm.minicluster("status", NAME, "-o", "json").json["nodes"]}
    address = nodes["agent-1"]["address"]
    reset = f"the swarm counts {address} as down although it is connected: its connection is reset"
    try:
        eventually(lambda: any(reset in swarm.docker("logs", m).err for m in masters), within=60, what=reset)
    finally:
        swarm.minicluster("unpause", "agent", "-c", NAME)
    is_whole(swarm, NODES)


@pytest.mark.long
def test_the_leader_is_killed_and_started(swarm: Shell) -> None:
    was = leader(swarm)
    swarm.minicluster("kill", was, "-c", NAME)
    eventually(lambda: leader(swarm) != was, what="another leader")
    swarm.minicluster("start", was, "-c", NAME, timeout=300)
    is_whole(swarm, NODES)


def test_three_masters_go_on_when_the_leader_is_killed(swarm: Shell) -> None:
    is_whole(swarm, NODES)
    quorum = swarm.minicluster("status", NAME, "-o", "json").json["quorum"]
    was = quorum.pop("leader")
    assert quorum == {"voters": 3, "healthy": 3, "needed": 2, "survives": 1}
    swarm.docker("kill", f"{NAME}-{was}")
    docker = client(swarm)
    urls = {e["node"]: e["url"] for e in swarm.minicluster("info", NAME, "-o", "json").json["endpoints"]}
    assert docker.env["DOCKER_HOST"] == urls[min(NODES - {was, "agent-1"})]  # the first that runs
    eventually(lambda: docker.docker("node", "ls", ok=False).code == 0, what="a new leader")
    create = ("service", "create", "--name", "late", "--replicas", "3", "--no-resolve-image", "--detach")
    docker.docker(*create, "localhost/minicluster/demo")
    eventually(lambda: running(docker, "late").total() == 3, what="the swarm still takes work")
    docker.docker("service", "rm", "late")
    swarm.minicluster("up", "swarm", "--name", NAME)
    status = swarm.minicluster("status", NAME, "-o", "json").json
    assert (status["phase"], status["quorum"]["healthy"]) == ("ready", 3)
    is_whole(swarm, NODES)


@pytest.mark.long
@pytest.mark.parametrize("how", ["an agent leaves", "an agent is removed", "a master leaves", "the leader leaves"])
def test_a_node_that_left_is_told_at_once_and_joins_again(swarm: Shell, how: str) -> None:
    is_whole(swarm, NODES)
    leads = leader(swarm)
    master = next(node for node in sorted(NODES) if node.startswith("master") and node != leads)
    node, *words = {
        "an agent leaves": ("agent-1", "swarm", "leave"),
        "an agent is removed": (leads, "node", "rm", "--force", "agent-1"),
        "a master leaves": (master, "swarm", "leave", "--force"),
        "the leader leaves": (leads, "swarm", "leave", "--force"),
    }[how]
    swarm.docker("exec", f"{NAME}-{node}", "docker", *words)
    gone = "agent-1" if "rm" in words else node
    if how != "the leader leaves":  # until there is another one nobody can tell
        states = {n["name"]: n["probe"] for n in swarm.minicluster("status", NAME, "-o", "json").json["nodes"]}
        assert states[gone] == "not a member of the cluster", states
    swarm.minicluster("up", "--name", NAME)
    is_whole(swarm, NODES)
    other = "master-2" if node == "master-1" else "master-1"
    managers = swarm.docker("exec", f"{NAME}-{other}", "docker", "node", "ls", "--format", "{{.ManagerStatus}}").out
    assert len(managers.split()) == 3  # no vote of one that has left


@pytest.mark.long
def test_masters_are_removed_and_added(swarm: Shell) -> None:
    refused = swarm.minicluster("scale", "master=2", "-c", NAME, ok=False)
    assert refused.code == 2
    assert "even number" in refused.err
    if leader(swarm) == "master-1":  # the leader is to be among those that go
        swarm.minicluster("kill", "master-1", "-c", NAME)
        eventually(lambda: leader(swarm) != "master-1", what="another leader")
        swarm.minicluster("start", "master-1", "-c", NAME, timeout=300)
        is_whole(swarm, NODES)
    assert leader(swarm) != "master-1"
    swarm.minicluster("scale", "master=1", "agent=2", "-c", NAME, timeout=300)
    is_whole(swarm, {"master-1", "agent-1", "agent-2"})
    swarm.minicluster("scale", "master=3", "agent=1", "-c", NAME, timeout=300)
    is_whole(swarm, NODES)


@pytest.mark.long
def test_killed_in_the_middle_of_scaling_masters_then_up_finishes(swarm: Shell) -> None:
    for size, seconds in (1, 1.0), (3, 2.0):
        process = swarm.start("scale", f"master={size}", "-c", NAME)
        time.sleep(seconds)
        process.kill()
        process.communicate()
        swarm.minicluster("up", "--name", NAME, "--size", f"master={size}", timeout=300)
        is_whole(swarm, {"agent-1", *(f"master-{n}" for n in range(1, size + 1))})
