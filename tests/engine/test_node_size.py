"""A node's limits are its size to what runs in it: Docker Swarm (Kubernetes: kubernetes/test_settings.py)."""

from __future__ import annotations

import json

import pytest

from tests.engine.conftest import Shell, eventually, remains, swarm_client

NAME = "t-size"
LIMITS = ("--set", "roles.agent.memory=512MiB", "--set", "roles.agent.cpus=1")


@pytest.mark.long
def test_a_swarm_places_tasks_by_the_limits_of_nodes(outer: Shell) -> None:
    try:
        outer.minicluster("up", "swarm", "--name", NAME, "--size", "agent=1", *LIMITS, timeout=600)
        client = swarm_client(outer, NAME)
        resources = json.loads(
            client.docker("node", "inspect", "agent-1", "--format", "{{json .Description.Resources}}").out
        )
        assert (resources["NanoCPUs"], resources["MemoryBytes"]) == (10**9, 512 << 20)
        inside = outer.docker(
            "inspect", f"{NAME}-agent-1", "--format", "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}"
        ).out
        assert inside.split() == [str(512 << 20), str(10**9)]
        create = ("service", "create", "--name", "big", "--detach", "--no-resolve-image", "--reserve-memory", "600M")
        client.docker(*create, "--constraint", "node.hostname==agent-1", "localhost/minicluster/demo")
        listed = ("service", "ps", "big", "--no-trunc", "--format", "{{.Error}}")
        eventually(
            lambda: "insufficient resources on 1 node" in client.docker(*listed).out, what="no node is large enough"
        )
    finally:
        outer.minicluster("down", NAME, ok=False)
    assert remains(outer, NAME) == {}
