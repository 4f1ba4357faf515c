"""A Kubernetes cluster's life: nodes and components fail, are removed and added, and the cluster works afterwards.

Checked with kubectl. Times are printed (``pytest -rP``); docs/kubernetes-life.md has them.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.engine.conftest import Shell, eventually, remains
from tests.engine.kubernetes.kubelife import Kube, deployment, running, service

NAME = "t-kube-life"
NODES = {"kv-1", "master-1", "agent-1", "agent-2"}


@pytest.fixture(scope="module")
def kube(outer: Shell) -> Iterator[Kube]:
    """One kv, one master, two agents with a pod for requests each; an object and a file in a volume that must stay."""
    try:
        outer.minicluster("up", "kubernetes", "--name", NAME, "--set", "failover=quick", timeout=900)
        kube = Kube(outer, NAME)
        kube.furnish("agent-1", "agent-2")
        kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}, "data": {"word": "gold"}})
        keep = "echo gold >/kept/word"
        kube.inside("deploy/ask-agent-1", keep)
        yield kube
    finally:
        outer.minicluster("down", NAME, ok=False)
    assert remains(outer, NAME) == {}


@pytest.fixture
def whole(kube: Kube) -> Iterator[Kube]:
    """The cluster; repaired afterwards if a test failed."""
    yield kube
    status = kube.status()
    if status["phase"] != "ready" or {node["name"] for node in status["nodes"]} != NODES:
        kube.outer.minicluster("up", "--name", NAME, "--size", "agent=2", ok=False, timeout=300)


def works(kube: Kube, *agents: str) -> None:
    """Every node is ready, no data are lost, and pods, services and names work in both directions."""
    agents = agents or ("agent-1", "agent-2")
    kube.is_ready()
    assert kube.get("configmap", "kept")["data"] == {"word": "gold"}
    with ThreadPoolExecutor() as pool:
        list(pool.map(whole_on, itertools.repeat(kube), agents, agents[1:] + agents[:1]))


def whole_on(kube: Kube, agent: str, other: str) -> None:
    kube.canary(agent, other)

    def kept() -> bool:
        pods = running(kube.pods(f"app=ask-{agent}"))
        return bool(pods) and kube.inside(pods[0]["metadata"]["name"], "cat /kept/word", ok=False).out == "gold\n"

    eventually(kept, what=f"the volume's file on {agent}")


def measured(what: str, seconds: float) -> None:
    print(f"{what}: {seconds:.1f} s")


# Nodes join and leave


def test_an_agent_joins_and_leaves(whole: Kube) -> None:
    def containers() -> dict[str, str]:
        lines = whole.outer.docker(
            "ps", "--no-trunc", "--filter", f"name={NAME}-", "--format", "{{.Names}} {{.ID}}"
        ).out
        return dict(line.split() for line in lines.splitlines())

    before = containers()
    begun = time.monotonic()
    whole.verb("scale", "agent=3")
    measured("an agent joins", time.monotonic() - begun)
    assert whole.nodes() == {"agent-1": True, "agent-2": True, "agent-3": True}
    assert {name: id for name, id in containers().items() if name in before} == before
    whole.furnish("agent-3")
    works(whole, "agent-1", "agent-2", "agent-3")

    whole.apply(spread("web", 3), budget("web", 2))
    eventually(lambda: len(running(whole.pods("app=web"))) == 3, what="three replicas")
    assert "agent-3" in {pod["spec"]["nodeName"] for pod in whole.pods("app=web")}
    with least_running(whole, "web") as least:
        begun = time.monotonic()
        whole.verb("scale", "agent=2")
        measured("an agent leaves", time.monotonic() - begun)
    assert min(least) >= 2
    assert whole.nodes() == {"agent-1": True, "agent-2": True}
    assert set(containers()) == set(before)
    eventually(lambda: len(running(whole.pods("app=web"))) == 3, what="three replicas on two agents")
    whole.kubectl("delete", "deployment/web", "pdb/web", "deployment/ask-agent-3", "--wait=false")
    works(whole)


def spread(name: str, replicas: int) -> dict[str, Any]:
    """Demo servers, on every agent as many."""
    made = deployment(name, replicas)
    made["spec"]["template"]["spec"]["topologySpreadConstraints"] = [
        {
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app": name}},
        }
    ]  # fmt: skip
    return made


def budget(name: str, minimum: int) -> dict[str, Any]:
    return {
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name},
        "spec": {"minAvailable": minimum, "selector": {"matchLabels": {"app": name}}},
    }  # fmt: skip


@contextlib.contextmanager
def least_running(kube: Kube, name: str) -> Iterator[list[int]]:
    """How many replicas of a deployment were available, as often as it could be asked within the block."""
    seen: list[int] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            found = kube.get("deployment", name)
            if found:
                seen.append(found["status"].get("availableReplicas", 0))
            stop.wait(0.1)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join(30)


# Every component is killed


@pytest.mark.parametrize(
    ("node", "component"),
    [
        pytest.param("kv-1", "etcd", marks=pytest.mark.long),
        ("master-1", "kube-apiserver"),
        pytest.param("master-1", "kube-controller-manager", marks=pytest.mark.long),
        pytest.param("master-1", "kube-scheduler", marks=pytest.mark.long),
        ("agent-1", "kubelet"),
        pytest.param("agent-1", "kube-proxy", marks=pytest.mark.long),
        pytest.param("agent-1", "containerd", marks=pytest.mark.long),
        pytest.param("agent-1", "coredns", marks=pytest.mark.long),
    ],
)
def test_a_component_is_killed(whole: Kube, node: str, component: str) -> None:
    others = ("kube-proxy", "coredns")  # which serve whoever asks
    on, asked_on = ("agent-2", "agent-1") if component in others else ("agent-1", "agent-2")
    before = pids(whole, node, component)
    begun = time.monotonic()
    whole.outer.docker("exec", f"{NAME}-{node}", "bash", "-c", f"kill -9 {' '.join(before)}")
    whole.canary(on, asked_on)
    measured(f"{component} killed, works after", time.monotonic() - begun)
    assert not set(before) & set(pids(whole, node, component))
    eventually(lambda: all(whole.nodes().values()), what="every agent is Ready")


def pids(kube: Kube, node: str, component: str) -> list[str]:
    """Of a component's processes in a node; the kernel keeps 15 characters of a name."""
    look = f'for p in /proc/[0-9]*; do [ "$(<$p/comm)" != {component[:15]} ] || echo "${{p#/proc/}}"; done 2>/dev/null'
    argv = ["docker", "exec", f"{kube.name}-{node}", "bash", "-c", look]
    return list(eventually(lambda: kube.outer.run(*argv, ok=False).out.split(), what=f"{component} runs on {node}"))


@pytest.mark.long
@pytest.mark.parametrize(
    ("component", "damage", "repair"),
    [
        ("kube-scheduler", "pkill -STOP -x kube-scheduler", "pkill -CONT -x kube-scheduler"),
        ("kube-controller-manager", "pkill -STOP -x kube-controller", "pkill -CONT -x kube-controller"),
        (
            "kube-scheduler",
            "cd /usr/local/bin; mv kube-scheduler kept; ln -s /bin/false kube-scheduler; pkill -KILL -x kube-scheduler",
            "cd /usr/local/bin; mv -f kept kube-scheduler",
        ),
    ],
    ids=["the scheduler hangs", "the controller manager hangs", "the scheduler ends at once whenever it is started"],
)
def test_a_master_is_not_ready_without_all_of_it(whole: Kube, component: str, damage: str, repair: str) -> None:
    def on_master(command: str) -> None:
        whole.outer.docker("exec", f"{NAME}-master-1", "bash", "-c", command)

    on_master(damage)
    try:
        begun = time.monotonic()
        status = whole.status()
        measured(f"{component} does not answer, status takes", time.monotonic() - begun)
        nodes = {node["name"]: node for node in status["nodes"]}
        assert (status["phase"], nodes["master-1"]["ready"]) == ("degraded", False)
        assert nodes["master-1"]["probe"].startswith(f"{component} is not healthy: curl: ")
        assert all(nodes[name]["ready"] for name in NODES - {"master-1"})
        # `up` takes the cluster no more for whole than `status` does.
        answer = whole.outer.minicluster("up", "--name", NAME, "--timeout", "2", ok=False)
        assert (answer.code, "master-1" in answer.err) == (4, True), answer.err
    finally:
        on_master(repair)
    begun = time.monotonic()
    whole.is_ready(within=20)
    measured(f"{component} goes on, ready after", time.monotonic() - begun)
    whole.canary("agent-1", "agent-2")


@pytest.mark.long
def test_a_containers_shim_is_killed(whole: Kube) -> None:
    """Its pod is restarted, and answers."""

    def container() -> str:
        pods = running(whole.pods("app=held"))
        return str(pods[0]["status"]["containerStatuses"][0]["containerID"]) if pods else ""

    whole.apply(deployment("held", 1, "agent-1"), service("held"))
    whole.ask("agent-2", "held")
    before = container()
    process = f"ctr -n k8s.io tasks ls | awk '$1 == \"{before.removeprefix('containerd://')}\" {{print $2}}'"
    begun = time.monotonic()
    whole.outer.docker("exec", f"{NAME}-agent-1", "bash", "-c", f"kill -9 $(ps -o ppid= -p $({process}))")
    eventually(lambda: container() not in ("", before), what="the pod's container is another")
    whole.ask("agent-2", "held")
    measured("containerd-shim killed, its pod answers after", time.monotonic() - begun)
    whole.kubectl("delete", "deployment/held", "service/held", "--wait=false")


# Every node is killed, and what else befalls nodes


@pytest.mark.parametrize("node", [pytest.param("kv-1", marks=pytest.mark.long), "master-1"])
def test_a_killed_node_is_repaired(whole: Kube, node: str) -> None:
    whole.apply(deployment("stays", 2), service("stays"))
    eventually(lambda: len(running(whole.pods("app=stays"))) == 2, what="two replicas")
    whole.ask("agent-1", "stays")
    was = {pod["metadata"]["uid"] for pod in running(whole.pods("app=stays"))}
    address = whole.get("service", "stays")["spec"]["clusterIP"]
    whole.verb("kill", node)
    asked = whole.outer.docker("exec", f"{NAME}-agent-1", "curl", "-sS", "--max-time", "2", f"http://{address}").out
    assert asked.startswith("stays-")  # pods do without
    begun = time.monotonic()
    whole.outer.minicluster("up", "--name", NAME)
    measured(f"{node} killed, up takes", time.monotonic() - begun)
    works(whole)
    assert {pod["metadata"]["uid"] for pod in running(whole.pods("app=stays"))} == was
    whole.kubectl("delete", "deployment/stays", "service/stays", "--wait=false")


@pytest.mark.long
def test_a_dead_agents_pods_run_elsewhere(whole: Kube) -> None:
    moving = deployment("moves", 1)
    whole.kubectl("cordon", "agent-1")
    whole.apply(moving, service("moves"))
    eventually(lambda: running(whole.pods("app=moves")), what="a replica runs")
    whole.kubectl("uncordon", "agent-1")
    assert whole.pods("app=moves")[0]["spec"]["nodeName"] == "agent-2"
    whole.verb("kill", "agent-2")
    begun = time.monotonic()
    eventually(lambda: whole.nodes()["agent-2"] is False, within=30, what="agent-2 is not Ready")
    measured("agent-2 killed, NotReady after", time.monotonic() - begun)

    def elsewhere() -> bool:
        return any(pod["spec"]["nodeName"] == "agent-1" for pod in running(whole.pods("app=moves")))

    eventually(elsewhere, within=30, what="the replica runs on agent-1")
    moved = time.monotonic() - begun
    measured("agent-2 killed, its pods run elsewhere after", moved)
    whole.ask("agent-1", "moves")
    measured("agent-2 killed, their service answers after", time.monotonic() - begun)
    assert moved < 15
    assert whole.status()["phase"] == "degraded"
    begun = time.monotonic()
    whole.outer.minicluster("up", "--name", NAME)
    measured("agent-2 killed, up takes", time.monotonic() - begun)
    whole.kubectl("delete", "deployment/moves", "service/moves", "--wait=false")
    works(whole)


@pytest.mark.long
@pytest.mark.parametrize(
    ("node", "volumes"),
    [("master-1", ()), ("agent-2", ()), ("agent-1", ("var-lib-containerd", "var-lib-kubelet"))],
    ids=["master", "agent", "agent and its volumes"],
)
def test_a_node_removed_with_docker_is_recreated(whole: Kube, node: str, volumes: tuple[str, ...]) -> None:
    whole.outer.docker("rm", "-f", f"{NAME}-{node}")
    for volume in volumes:
        whole.outer.docker("volume", "rm", f"{NAME}-{node}-{volume}")
    status = whole.status()
    assert status["phase"] != "ready"
    assert {n["name"]: n["phase"] for n in status["nodes"]}[node] == "missing"
    begun = time.monotonic()
    whole.outer.minicluster("up", "--name", NAME)
    measured(f"{node} removed{' with its volumes' if volumes else ''}, up takes", time.monotonic() - begun)
    works(whole)


@pytest.mark.long
def test_a_paused_agent_is_not_ready_and_comes_back(whole: Kube) -> None:
    whole.verb("pause", "agent-2")
    begun = time.monotonic()
    eventually(lambda: whole.nodes()["agent-2"] is False, within=30, what="agent-2 is not Ready")
    measured("agent-2 paused, NotReady after", time.monotonic() - begun)
    whole.verb("unpause", "agent-2")
    begun = time.monotonic()
    eventually(lambda: whole.nodes()["agent-2"], what="agent-2 is Ready")
    measured("agent-2 goes on, Ready after", time.monotonic() - begun)
    works(whole)


@pytest.mark.long
def test_nodes_are_stopped_and_started(whole: Kube) -> None:
    for node in ("agent-1", "master-1", "kv-1"):
        whole.verb("stop", node)
        assert {n["name"]: n["phase"] for n in whole.status()["nodes"]}[node] == "exited"
        whole.verb("start", node)
    works(whole)


@pytest.mark.long
def test_all_is_stopped_and_started(whole: Kube) -> None:
    begun = time.monotonic()
    whole.verb("stop")
    measured("stop", time.monotonic() - begun)
    assert whole.status()["phase"] == "stopped"
    begun = time.monotonic()
    whole.verb("start")
    measured("start", time.monotonic() - begun)
    whole.canary("agent-1", "agent-2")
    measured("start, everything works after", time.monotonic() - begun)
    works(whole)


@pytest.mark.long
def test_all_are_restarted_at_once_by_the_engine(whole: Kube) -> None:
    begun = time.monotonic()
    whole.outer.docker("restart", *(f"{NAME}-{node}" for node in sorted(NODES)))
    measured("docker restart of all", time.monotonic() - begun)
    whole.canary("agent-1", "agent-2")
    measured("docker restart of all, everything works after", time.monotonic() - begun)
    works(whole)


@pytest.mark.long
def test_one_after_the_other_restarts(whole: Kube) -> None:
    begun = time.monotonic()
    answer = whole.verb("restart", "--rolling")
    measured("restart --rolling", time.monotonic() - begun)
    assert {line.split(":")[0] for line in answer.err.splitlines() if ": ready" in line} == NODES
    works(whole)


# minicluster itself is killed


@pytest.mark.long
@pytest.mark.parametrize(("verb", "seconds"), [("scale agent=3", 1.0), ("scale agent=1", 2.0), ("stop", 0.6)])
def test_a_command_that_was_killed_is_completed_by_up(whole: Kube, verb: str, seconds: float) -> None:
    process = whole.outer.start(*verb.split(), "-c", NAME)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    whole.outer.minicluster("up", "--name", NAME, "--size", "agent=2", timeout=300)
    assert {node["name"] for node in whole.status()["nodes"]} == NODES
    eventually(lambda: set(whole.nodes()) == {"agent-1", "agent-2"}, what="two agents")
    works(whole)


@pytest.mark.long
def test_an_interrupted_removal_of_an_agent_is_cancelled(whole: Kube) -> None:
    """The command was killed. What it started on the master continues, and must not remove the agent any more."""
    whole.kubectl("cordon", "agent-1")
    whole.apply(deployment("holds", 1), budget("holds", 1))
    eventually(lambda: running(whole.pods("app=holds")), what="a replica runs")
    whole.kubectl("uncordon", "agent-1")
    process = whole.outer.start("scale", "agent=1", "-c", NAME)
    eventually(lambda: whole.get("node", "agent-2")["spec"].get("unschedulable"), what="agent-2 is being drained")
    process.kill()
    process.communicate()
    whole.outer.minicluster("up", "--name", NAME, "--size", "agent=2", timeout=300)
    assert "unschedulable" not in whole.get("node", "agent-2")["spec"]
    pods = {pod["metadata"]["uid"] for pod in whole.pods("app=holds")}
    whole.kubectl("delete", "pdb/holds")  # lets that drain get on
    eventually(lambda: pods != {pod["metadata"]["uid"] for pod in whole.pods("app=holds")}, what="it is drained")
    busy = ["exec", f"{NAME}-master-1", "pgrep", "-f", "kube-remove agent-2"]
    eventually(lambda: whole.outer.docker(*busy, ok=False).code != 0, what="nobody removes agent-2")
    assert whole.nodes() == {"agent-1": True, "agent-2": True}
    whole.kubectl("delete", "deployment/holds", "--wait=false")


@pytest.mark.long
def test_a_node_that_its_user_deleted_registers_again(whole: Kube) -> None:
    whole.kubectl("delete", "node", "agent-2")
    eventually(lambda: whole.status()["phase"] == "degraded", what="a cluster without agent-2")
    whole.outer.minicluster("up", "--name", NAME)
    works(whole)


@pytest.mark.long
def test_status_shows_a_cordoned_agent(whole: Kube) -> None:
    whole.kubectl("cordon", "agent-2")
    try:
        told = eventually(lambda: {n["name"]: n for n in whole.status()["nodes"]}["agent-2"]["detail"], what="a detail")
        assert told == "cordoned"
        assert whole.status()["phase"] == "ready"
    finally:
        whole.kubectl("uncordon", "agent-2")


@pytest.mark.long
def test_killed_in_the_middle_of_up_then_up_finishes(outer: Shell) -> None:
    name = f"{NAME}-cut"
    try:
        for seconds in (1.5, 4.0):
            process = outer.start("up", "kubernetes", "--name", name, "--size", "agent=1")
            time.sleep(seconds)
            process.kill()
            process.communicate()
        outer.minicluster("up", "kubernetes", "--name", name, "--size", "agent=1", timeout=300)
        kube = Kube(outer, name)
        kube.furnish("agent-1")
        kube.canary("agent-1", "agent-1")
        process = outer.start("down", name)
        time.sleep(0.5)
        process.kill()
        process.communicate()
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}
