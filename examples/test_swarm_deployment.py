"""A deployment on Docker Swarm: a stack starts, serves during a rolling update, and survives the loss of a node.

The tests use the stock docker client with the variables of the cluster's env(), so they work on any other Swarm. Every
node of the cluster has the image that is used; `cluster.load("your/image")` copies one of yours to them.

Needs: the docker client. Run it: pytest test_swarm_deployment.py
"""

import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable

import pytest

REPLICAS = 4
STACK = """
version: "3.8"
services:
  web:
    image: localhost/minicluster/demo
    environment: {{VERSION: "{version}"}}
    deploy:
      replicas: {replicas}
      endpoint_mode: dnsrr
      update_config: {{parallelism: 1, order: start-first, delay: 0s, monitor: 100ms}}
"""


class Swarm:
    """The stock client of a Swarm."""

    def __init__(self, cluster) -> None:
        self.cluster = cluster
        self.env = cluster.env()

    def docker(self, *argv: str, text: str = "") -> str:
        done = subprocess.run(["docker", *argv], env=os.environ | self.env, input=text, capture_output=True, text=True)
        assert done.returncode == 0, f"docker {' '.join(argv)}: {done.stderr}"
        return done.stdout

    def deploy(self, version: str) -> None:
        stack = STACK.format(version=version, replicas=REPLICAS)
        self.docker("stack", "deploy", "--resolve-image=never", "--compose-file=-", "shop", text=stack)

    def running(self) -> Counter[str]:
        """How many replicas run on each node, as Swarm sees it."""
        rows = self.docker("service", "ps", "shop_web", "--format", "{{.Node}} {{.CurrentState}}").splitlines()
        return Counter(row.split()[0] for row in rows if row.split()[1] == "Running")

    def updated(self) -> bool:
        state = "{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}"
        return self.docker("service", "inspect", "shop_web", "--format", state).strip() == "completed"


def wait_for(what: str, check: Callable[[], bool], within: float = 40) -> None:
    end = time.monotonic() + within
    while not check():
        assert time.monotonic() < end, f"not after {within:g} s: {what}"
        time.sleep(0.2)


@pytest.fixture
def swarm(minicluster):
    """A Swarm that runs the first version. No cleanup is needed: the next test gets it empty."""
    client = Swarm(minicluster("swarm", size={"master": 1, "agent": 2}))
    client.deploy("1")
    wait_for("all replicas run", lambda: client.running().total() == REPLICAS)
    return client


def versions(swarm: Swarm) -> Counter[str]:
    """The versions of the running containers, as the nodes' own engines list them."""
    script = "docker ps -q --filter label=com.docker.swarm.service.name=shop_web"
    script = f"for id in $({script}); do docker exec $id env | grep ^VERSION=; done"
    found = [node.exec(["sh", "-c", script]).stdout.split() for node in swarm.cluster.nodes()]
    return Counter(line.removeprefix("VERSION=") for lines in found for line in lines)


def test_a_rolling_update_never_has_too_few_replicas(swarm):
    assert versions(swarm) == {"1": REPLICAS}
    swarm.deploy("2")
    counts = []

    def updated() -> bool:
        counts.append(swarm.running().total())
        return swarm.updated()

    wait_for("the update is complete", updated)
    assert min(counts) >= REPLICAS
    wait_for("the old ones have ended", lambda: versions(swarm) == {"2": REPLICAS})


def test_the_replicas_of_a_dead_node_start_on_others(swarm):
    assert swarm.running()["agent-1"] > 0
    swarm.cluster.node("agent-1").kill()

    def back() -> bool:
        running = swarm.running()
        return running.total() - running["agent-1"] == REPLICAS

    wait_for("as many as before run on the remaining nodes", back)
    swarm.cluster.node("agent-1").start()
    wait_for("the containers of the restarted node are removed", lambda: versions(swarm).total() == REPLICAS)
