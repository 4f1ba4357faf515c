"""`minicluster reset` of Swarm."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minicluster.cluster import Cluster
from minicluster.engine.protocol import Engine
from minicluster.errors import NodeFailed
from tests.engine.conftest import Shell, eventually
from tests.engine.reset import repair, reset, up


@pytest.fixture(scope="module")
def swarm(engine: Engine, outer: Shell) -> Iterator[Cluster]:
    with up(engine, outer, "swarm") as cluster:
        yield cluster


DEMO = "localhost/minicluster/demo"


def swarm_holds(client: Shell, cluster: Cluster) -> dict[str, Any]:
    """All that is in it beside its nodes and what an engine has at first, and is not nothing."""

    def listed(*argv: str) -> list[str]:
        return client.docker(*argv).out.split()

    nodes = json.loads(client.docker("node", "inspect", *listed("node", "ls", "-q")).out)
    found: dict[str, Any] = {
        "services": listed("service", "ls", "-q"),
        "configs": listed("config", "ls", "-q"),
        "secrets": listed("secret", "ls", "-q"),
        "tasks": listed("node", "ps", "-q", *(n["ID"] for n in nodes)),
        "nodes": [n["Spec"] for n in nodes if n["Spec"]["Availability"] != "active" or n["Spec"]["Labels"]],
    }
    script = "docker ps -aq; echo ,; docker volume ls -q; echo ,; docker network ls --format {{.Name}}"
    at_first = {"bridge", "host", "none", "docker_gwbridge", "ingress"}
    for node in cluster.node_names():
        lists = cluster.exec(node, ["sh", "-c", script]).stdout.split(",")
        for kind, names in zip(("containers", "volumes", "networks"), lists, strict=True):
            found[f"{kind} of {node}"] = set(names.split()) - at_first
    return {kind: value for kind, value in found.items() if value}


def running(client: Shell, service: str) -> int:
    rows = client.docker("service", "ps", service, "--format", "{{.CurrentState}}").out.splitlines()
    return sum(row.startswith("Running") for row in rows)


def test_services_and_everything_on_the_nodes_are_removed(swarm: Cluster, tmp_path: Path) -> None:
    client = Shell(swarm.env())
    text = tmp_path / "text"
    text.write_text("hello")
    client.docker("config", "create", "settings", str(text))
    client.docker("secret", "create", "password", str(text))
    client.docker("network", "create", "--driver", "overlay", "--attachable", "between")
    client.docker("node", "update", "--label-add", "a label=x", "--label-add", "zone=b", "agent-1")
    client.docker("node", "update", "--availability", "drain", "agent-2")
    create = ("service", "create", "--detach", "--no-resolve-image")
    client.docker(*create, "--name", "web", "--replicas", "2", "--network", "between", "--endpoint-mode", "dnsrr", DEMO)
    # One whose containers do not listen to what they are asked: they would take ten seconds to end.
    stubborn = ("--name", "stubborn", "--mode", "global", "--config", "settings", "--secret", "password")
    client.docker(*create, *stubborn, "--mount", "type=volume,source=data,target=/data", DEMO, "sleep", "1000")
    for node, network in (("master-1", "between"), ("agent-2", "own")):  # no task attaches a node that is drained
        for argv in (
            ["network", "create", "own"],
            ["volume", "create", "vol"],
            ["run", "-d", "--network", network, DEMO],
        ):
            result = swarm.exec(node, ["docker", *argv])
            assert result.exit_code == 0, result.stderr
    eventually(lambda: running(client, "stubborn") == 2 and running(client, "web") == 2, what="tasks run")
    before = {"services", "configs", "secrets", "tasks", "nodes", "containers of agent-1", "volumes of agent-1"}
    assert before < set(swarm_holds(client, swarm))
    begun = time.monotonic()
    reset(swarm)
    assert time.monotonic() - begun < 10
    assert swarm_holds(client, swarm) == {}
    # It works as it did at first, with the image that it had.
    client.docker(*create, "--name", "again", "--mode", "global", DEMO)
    eventually(lambda: running(client, "again") == 3, what="a task runs on each node")


@pytest.mark.long
def test_a_swarm_with_a_node_down_is_not_reset(swarm: Cluster, outer: Shell) -> None:
    client = Shell(swarm.env())
    swarm.reset()
    client.docker("service", "create", "--detach", "--no-resolve-image", "--name", "web", DEMO)
    swarm.kill(["agent-2"])
    with pytest.raises(NodeFailed, match="cannot be reset") as refused:
        swarm.reset()
    assert "agent-2" in refused.value.why
    assert client.docker("service", "ls", "-q").out.split() != []
    repair(swarm)
    answer = outer.minicluster("reset", swarm.name)
    assert answer.out.startswith(f"Reset cluster {swarm.name} (")
    assert swarm_holds(client, swarm) == {}
