"""What a user changes with docker's own commands is the swarm's state: `up` and `status` work from it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.engine.conftest import Shell, eventually, remains

NAME = "t-swarm-state"


@pytest.fixture(scope="module")
def cluster(outer: Shell) -> Iterator[Shell]:
    """One master and two agents; the value is minicluster's own environment."""
    try:
        outer.minicluster("up", "swarm", "--name", NAME, timeout=600)
        yield outer
    finally:
        outer.minicluster("down", NAME, ok=False)
    assert remains(outer, NAME) == {}


def docker(outer: Shell, node: str, *argv: str) -> str:
    return outer.docker("exec", f"{NAME}-{node}", "docker", *argv).out


def listed(outer: Shell, node: str = "master-1") -> list[str]:
    return sorted(docker(outer, node, "node", "ls", "--format", "{{.Hostname}} {{.Status}}").splitlines())


def demoted(outer: Shell, by: str, node: str) -> None:
    """A manager that was just promoted needs a moment."""
    manager = ("exec", f"{NAME}-{by}", "docker", "node")
    eventually(lambda: "Reachable" in outer.docker(*manager, "ls", ok=False).out, what=f"{by} is a manager")
    docker(outer, by, "node", "demote", node)
    eventually(lambda: len(re.findall("Leader|Reachable", docker(outer, by, "node", "ls"))) == 1, what="one manager")


def phase(outer: Shell) -> str:
    return str(outer.minicluster("status", NAME, "-o", "json").json["phase"])


def is_ready(outer: Shell) -> None:
    said = ""

    def ready() -> bool:
        nonlocal said
        said = outer.minicluster("status", NAME).out
        return phase(outer) == "ready"

    try:
        eventually(ready, within=60, what="ready")
    except AssertionError as error:
        raise AssertionError(f"{error}: {said}") from None


ALL = ["agent-1 Ready", "agent-2 Ready", "master-1 Ready"]


def test_nodes_that_left_or_were_removed_join_again(cluster: Shell) -> None:
    for node, command in (("agent-1", "swarm leave"), ("master-1", "node rm --force agent-2")):
        docker(cluster, node, *command.split())
        assert "not a member of the cluster" in cluster.minicluster("status", NAME).out
        cluster.minicluster("up", "--name", NAME)
        assert listed(cluster) == ALL  # and no dead entries of the same names


@pytest.mark.long
def test_roles_may_be_exchanged(cluster: Shell) -> None:
    docker(cluster, "master-1", "node", "promote", "agent-1")
    demoted(cluster, "agent-1", "master-1")
    is_ready(cluster)
    status = cluster.minicluster("status", NAME, "-o", "json").json
    assert status["quorum"]["leader"] == "agent-1"
    docker(cluster, "agent-2", "swarm", "leave")
    eventually(lambda: phase(cluster) == "degraded", what="it is no member")
    cluster.minicluster("up", "--name", NAME)
    assert listed(cluster, "agent-1") == ALL
    assert docker(cluster, "agent-1", "node", "inspect", "--format", "{{.Spec.Role}}", "master-1").strip() == "worker"
    docker(cluster, "agent-1", "node", "promote", "master-1")
    demoted(cluster, "master-1", "agent-1")
    is_ready(cluster)


@pytest.mark.long
def test_a_drained_node_and_other_tokens_are_left_as_they_are(cluster: Shell) -> None:
    docker(cluster, "master-1", "node", "update", "--availability", "drain", "agent-1")
    docker(cluster, "master-1", "swarm", "join-token", "--rotate", "worker")
    docker(cluster, "agent-2", "swarm", "leave")
    cluster.minicluster("up", "--name", NAME)
    assert listed(cluster) == ALL
    said = docker(cluster, "master-1", "node", "inspect", "--format", "{{.Spec.Availability}}", "agent-1")
    assert said.strip() == "drain"
    docker(cluster, "master-1", "node", "update", "--availability", "active", "agent-1")


@pytest.mark.long
def test_a_locked_swarm_says_so_at_once(cluster: Shell) -> None:
    key = re.findall(r"SWMKEY\S+", docker(cluster, "master-1", "swarm", "update", "--autolock=true"))[0]
    cluster.minicluster("stop", NAME)
    for command in (("start", NAME), ("up", "--name", NAME)):
        # Less than the 20 s that agents' engines wait for their swarm, and than the 120 s of --timeout.
        done = cluster.minicluster(*command, "--timeout", "120", ok=False)
        assert done.code == 1
        assert "the swarm is locked" in done.err
        assert "docker swarm unlock" in done.err
    assert "docker swarm unlock" in cluster.minicluster("status", NAME).out
    cluster.run("docker", "exec", f"{NAME}-master-1", "sh", "-c", f"echo {key} | docker swarm unlock")
    cluster.minicluster("up", "--name", NAME)
    docker(cluster, "master-1", "swarm", "update", "--autolock=false")
    assert listed(cluster) == ALL


@pytest.mark.long
def test_a_swarm_that_its_only_manager_left_is_recreated(cluster: Shell) -> None:
    docker(cluster, "master-1", "swarm", "leave", "--force")
    assert phase(cluster) == "broken"
    cluster.minicluster("up", "--name", NAME)
    assert listed(cluster) == ALL
    assert phase(cluster) == "ready"


def managers(outer: Shell, node: str) -> list[str]:
    """As a node lists them; nothing where it is none itself, as one that was just promoted."""
    ask = ("exec", f"{NAME}-{node}", "docker", "node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}")
    rows = outer.docker(*ask, ok=False).out.splitlines()
    return sorted(row.split()[0] for row in rows if row.endswith(("Leader", "Reachable")))


def lose(outer: Shell, node: str) -> None:
    """Removes a node's container and data."""
    outer.docker("rm", "-f", f"{NAME}-{node}")
    outer.docker("volume", "rm", f"{NAME}-{node}-var-lib-docker")


@pytest.mark.long
def test_a_swarm_whose_only_master_lost_its_data_is_recreated_by_one_up(cluster: Shell) -> None:
    lose(cluster, "master-1")
    cluster.minicluster("up", "--name", NAME)
    assert listed(cluster) == ALL
    assert phase(cluster) == "ready"


@pytest.mark.long
@pytest.mark.parametrize("how", ["left", "lost"])
def test_a_swarm_that_a_user_gave_to_the_agents_goes_on(cluster: Shell, how: str) -> None:
    """Nothing is recreated: the service is still there."""
    docker(cluster, "master-1", "config", "create", f"kept-{how}", "/etc/hostname")
    docker(cluster, "master-1", "node", "promote", "agent-1", "agent-2")
    eventually(lambda: len(managers(cluster, "agent-1")) == 3, what="three managers")
    if how == "left":
        docker(cluster, "agent-1", "node", "demote", "master-1")
        eventually(lambda: managers(cluster, "agent-1") == ["agent-1", "agent-2"], what="master-1 is none")
        docker(cluster, "master-1", "swarm", "leave", "--force")
    else:
        lose(cluster, "master-1")
    try:
        eventually(lambda: "agent-1" in managers(cluster, "agent-1"), what="a leader")
        cluster.minicluster("up", "--name", NAME)
        assert listed(cluster, "agent-1") == ALL  # and no dead entries of the same names
        assert f"kept-{how}" in docker(cluster, "agent-1", "config", "ls")
        assert phase(cluster) == "ready"
    finally:
        for agent in ("agent-1", "agent-2"):
            cluster.docker("exec", f"{NAME}-master-1", "docker", "node", "demote", agent, ok=False)
        eventually(lambda: managers(cluster, "master-1") == ["master-1"], what="one manager")
