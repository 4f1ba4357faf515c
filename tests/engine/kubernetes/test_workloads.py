"""Conformance: workloads and scheduling."""

from __future__ import annotations

import concurrent.futures
import re
import time
from collections import Counter
from typing import Any

import pytest

from tests.engine.conftest import eventually
from tests.engine.kubernetes.kube import (
    AGENTS,
    HOLD,
    STAYS,
    Kube,
    Manifest,
    Space,
    claim,
    conformance,
    container,
    cron_job,
    get,
    job,
    pod,
    readiness,
    service,
    taken,
    workload,
)

pytestmark = pytest.mark.long


@pytest.fixture(scope="module", autouse=True)
def begun(kube: Kube) -> Space:
    """What takes up to a minute is started before the first test and checked by the last ones."""
    space = kube.space("begun")
    space.create(
        {"kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"colour": "red"}},
        pod(
            "reader",
            container(HOLD, volumeMounts=[{"name": "settings", "mountPath": "/settings"}]),
            volumes=[{"name": "settings", "configMap": {"name": "settings"}}],
            **STAYS,
        ),
        cron_job("minutely", "* * * * *"),
    )
    space.ready("reader")
    assert space.run("reader", "cat /settings/colour") == "red"
    kube.core.patch_namespaced_config_map("settings", "begun", {"data": {"colour": "blue"}})
    return space


# --- workloads


@conformance("Workloads", "Deployments: rollout, history and rollback")
def test_rollout(space: Space) -> None:
    space.apply(workload("Deployment", "web", pod("web", container(env=[{"name": "V", "value": "1"}])), replicas=2))
    space.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    space.kubectl("set", "env", "deployment/web", "V=2")
    space.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert values(space, "V") == ["2", "2"]
    assert len(re.findall(r"^\d+ ", space.kubectl("rollout", "history", "deployment/web").out, re.MULTILINE)) == 2
    space.kubectl("rollout", "undo", "deployment/web")
    space.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    assert values(space, "V") == ["1", "1"]


def values(space: Space, variable: str) -> list[str]:
    """The value of an environment variable in each pod."""
    return [v.value for pod in space.pods() for v in pod.spec.containers[0].env if v.name == variable]


@conformance("Workloads", "Deployments: scale up and down; a paused one starts no pods until it is resumed")
def test_scale_and_pause(space: Space) -> None:
    space.create(workload("Deployment", "web", pod("web"), replicas=1))
    space.several(1, "app=web")
    space.kubectl("scale", "deployment/web", "--replicas=3")
    space.several(3, "app=web")
    space.kubectl("scale", "deployment/web", "--replicas=1")
    space.several(1, "app=web")
    space.kubectl("rollout", "pause", "deployment/web")
    space.kubectl("set", "env", "deployment/web", "V=2")
    generation = space.kube.apps.read_namespaced_deployment("web", space.name).metadata.generation

    def seen() -> bool:
        status = space.kube.apps.read_namespaced_deployment("web", space.name).status
        return bool(status.observed_generation == generation)

    eventually(seen, what="the change has been seen")
    assert len(space.kube.apps.list_namespaced_replica_set(space.name).items) == 1
    space.kubectl("rollout", "resume", "deployment/web")
    eventually(lambda: len(space.kube.apps.list_namespaced_replica_set(space.name).items) == 2)
    space.kubectl("rollout", "status", "deployment/web", "--timeout=60s")


@conformance(
    "Workloads", "a rolling update under load: no request fails, by ClusterIP from a pod or by NodePort from outside"
)
def test_rolling_update_under_load(kube: Kube, asking: Space, space: Space) -> None:
    def web(version: str) -> Manifest:
        main = container(**readiness(), command=["/serve", version])
        main["lifecycle"] = {"preStop": {"exec": {"command": ["sleep", "2"]}}}
        template = pod("web", main, terminationGracePeriodSeconds=10)
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        return workload("Deployment", "web", template, replicas=2, strategy=rolling)

    space.apply(web("v1"), service("web", type="NodePort"))
    space.several(2, "app=web")
    port = space.kube.core.read_namespaced_service("web", space.name).spec.ports[0].node_port
    outside = [f"http://{kube.addresses[agent]}:{port}/" for agent in AGENTS]
    inside = f"http://web.{space.name}/"
    eventually(lambda: all(get(url) for url in outside), what="the NodePort answers")
    eventually(
        lambda: asking.run("agent-1", f"timeout 2 wget -q -O - {inside}", ok=False), what="the ClusterIP answers"
    )
    over = time.monotonic() + 60
    done = False

    def from_here() -> Counter[str]:
        said: Counter[str] = Counter()
        while not done and time.monotonic() < over:
            said.update(get(url, timeout=5) or "failed" for url in outside)
            time.sleep(0.01)
        return said

    script = (
        f"i=0; while [ ! -e /tmp/rolled ] && [ $i -lt 6000 ]; do timeout 5 wget -q -O - {inside} || echo failed; "
        "i=$((i+1)); sleep 0.01; done | sort | uniq -c"
    )
    with concurrent.futures.ThreadPoolExecutor() as pool:
        here, there = pool.submit(from_here), pool.submit(asking.run, "agent-1", script)
        try:
            time.sleep(0.5)
            space.apply(web("v2"))
            space.kubectl("rollout", "status", "deployment/web", "--timeout=50s")
            time.sleep(3)  # until the old pods have ended, too
        finally:
            done = True
            asking.run("agent-1", "touch /tmp/rolled")
    counts = {words[1]: int(words[0]) for line in there.result().splitlines() if (words := line.split())}
    for said in (here.result(), counts):
        assert set(said) == {"v1", "v2"}, said
        assert min(said.values()) > 10


@conformance("Workloads", "StatefulSets: in order, each with its name and its own volume, which outlives its pod")
def test_stateful_set(space: Space) -> None:
    template = pod("db", container(volumeMounts=[{"name": "data", "mountPath": "/data"}], **readiness()))
    made = workload("StatefulSet", "db", template, replicas=2, serviceName="db")
    made["spec"]["volumeClaimTemplates"] = [claim("data")]
    space.create(made)
    first, second = sorted(space.several(2, "app=db"), key=lambda pod: str(pod.metadata.name))
    assert (first.metadata.name, second.metadata.name) == ("db-0", "db-1")
    ready = next(c.last_transition_time for c in first.status.conditions if c.type == "Ready")
    assert second.metadata.creation_timestamp >= ready
    for name in ("db-0", "db-1"):
        space.run(name, "hostname >/data/mine")
    space.kubectl("delete", "pod", "db-0", "--grace-period=0", "--force")
    eventually(lambda: any(p.metadata.uid != first.metadata.uid for p in space.pods() if p.metadata.name == "db-0"))
    space.ready("db-0", "db-1")
    assert space.run("db-0", "cat /data/mine") == "db-0"
    assert space.run("db-1", "cat /data/mine") == "db-1"


@conformance("Workloads", "a DaemonSet has a pod on every agent")
def test_daemon_set(space: Space) -> None:
    space.create(workload("DaemonSet", "every", pod("every")))
    assert {pod.spec.node_name for pod in space.several(2, "app=every")} == set(AGENTS)


@conformance("Workloads", "Jobs: several completions at once; a failing one ends at its backoffLimit")
def test_jobs(kube: Kube, space: Space) -> None:
    space.create(job("four", "sleep 0.3", completions=4, parallelism=4), job("never", "exit 1", backoffLimit=0))

    def state(name: str) -> Any:
        return kube.batch.read_namespaced_job(name, space.name).status

    def failed() -> Any:
        return [c.reason for c in state("never").conditions or [] if c.type == "Failed" and c.status == "True"]

    assert eventually(failed) == ["BackoffLimitExceeded"]
    eventually(lambda: state("four").succeeded == 4)
    assert state("four").completion_time


@conformance("Workloads", "CronJobs: `kubectl create job --from` creates a job at once")
def test_cron_jobs(kube: Kube, space: Space) -> None:
    space.create(cron_job("yearly", "0 0 1 1 *"))
    space.kubectl("create", "job", "now", "--from=cronjob/yearly")
    eventually(lambda: kube.batch.read_namespaced_job("now", space.name).status.succeeded == 1)
    (made,) = space.pods("job-name=now")
    assert space.log(made.metadata.name) == "on time\n"


# --- scheduling


@conformance("Scheduling", "node selectors; a pod that fits nowhere stays pending, with the reason")
def test_node_selector(kube: Kube, space: Space) -> None:
    kube.kubectl("label", "node", "agent-2", "t-disk=fast")
    try:
        space.create(
            pod("here", nodeSelector={"t-disk": "fast"}),
            pod("nowhere", nodeSelector={"t-disk": "none"}),
        )
        assert space.ready("here")[0].spec.node_name == "agent-2"
        assert "0/2 nodes are available" in unschedulable(space, "nowhere")
    finally:
        kube.kubectl("label", "node", "agent-2", "t-disk-")


def unschedulable(space: Space, name: str) -> str:
    """Waits until the scheduler reports that the pod fits nowhere; returns the reason."""

    def check() -> str:
        conditions = space.pod(name).status.conditions or []
        return next((str(c.message) for c in conditions if c.type == "PodScheduled" and c.status == "False"), "")

    return str(eventually(check, what=f"there is no place for {name}"))


@conformance("Scheduling", "affinity and anti-affinity of pods; spreading over agents")
def test_affinity(space: Space) -> None:
    def near(app: str) -> Manifest:
        generation = {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "kubernetes.io/hostname"}
        return {"requiredDuringSchedulingIgnoredDuringExecution": [generation]}

    space.create(workload("Deployment", "apart", pod("apart", affinity={"podAntiAffinity": near("apart")}), replicas=3))
    space.create(pod("first", nodeSelector={"kubernetes.io/hostname": "agent-2"}))
    space.create(pod("close", affinity={"podAffinity": near("first")}))
    even = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "even"}},
    }
    space.create(workload("Deployment", "even", pod("even", topologySpreadConstraints=[even]), replicas=4))
    nodes = eventually(
        lambda: len(n := [p.spec.node_name for p in space.pods("app=apart")]) == 3 and n.count(None) == 1 and n
    )
    assert set(nodes) == {*AGENTS, None}
    assert space.ready("first", "close")[1].spec.node_name == "agent-2"
    assert Counter(pod.spec.node_name for pod in space.several(4, "app=even")) == dict.fromkeys(AGENTS, 2)


@conformance("Scheduling", "taints repel pods that do not tolerate them; cordon and uncordon; NoExecute evicts")
def test_taints(kube: Kube, space: Space) -> None:
    there = {"nodeSelector": {"kubernetes.io/hostname": "agent-2"}}
    space.create(pod("early", **there))
    space.ready("early")
    only = {"key": "t-only", "operator": "Exists"}
    try:
        kube.kubectl("taint", "node", "agent-2", "t-only=some:NoSchedule")
        space.create(pod("kept-away", **there), pod("tolerant", tolerations=[only], **there))
        space.ready("tolerant", "early")
        unschedulable(space, "kept-away")
        kube.kubectl("taint", "node", "agent-2", "t-only=some:NoExecute")
        eventually(lambda: [pod.metadata.name for pod in space.pods()] == ["kept-away", "tolerant"], what="evicted")
        kube.kubectl("taint", "node", "agent-2", "t-only-")
        kube.kubectl("cordon", "agent-2")
        space.create(pod("cordoned-off", **there))
        assert "unschedulable" in unschedulable(space, "cordoned-off")
        kube.kubectl("uncordon", "agent-2")
        space.create(pod("welcome", **there))
        space.ready("welcome")
    finally:
        kube.kubectl("taint", "node", "agent-2", "t-only-", ok=False)
        kube.kubectl("uncordon", "agent-2")


@conformance("Scheduling", "a pod with a higher PriorityClass preempts one with a lower")
def test_preemption(kube: Kube, space: Space) -> None:
    kube.create(
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "t-high"}, "value": 1000}
    )
    try:
        cores = int(kube.core.read_node("agent-1").status.allocatable["cpu"])
        most = {"resources": {"requests": {"cpu": f"{cores * 600}m"}}}
        there = {"nodeSelector": {"kubernetes.io/hostname": "agent-1"}}
        space.create(pod("low", container(**most), terminationGracePeriodSeconds=0, **there))
        space.ready("low")
        # The API server knows the class a moment later.
        high = pod("high", container(**most), priorityClassName="t-high", **there)
        eventually(lambda: taken(space, high), what="the class is known")
        space.ready("high")
        assert "low" not in [pod.metadata.name for pod in space.pods()]
    finally:
        kube.kubectl("delete", "priorityclass", "t-high")


# --- what was started early


@conformance("Pods", "the files of a mounted ConfigMap are updated when it changes")
def test_mounted_settings_follow(begun: Space) -> None:
    eventually(lambda: begun.run("reader", "cat /settings/colour") == "blue", what="it has the new value")


@conformance("Workloads", "CronJobs: a job is created on schedule")
def test_cron_jobs_are_on_time(kube: Kube, begun: Space) -> None:
    made = eventually(
        lambda: [j for j in kube.batch.list_namespaced_job("begun").items if j.status.succeeded],
        within=90,
        what="a minute has come",
    )
    assert made[0].metadata.owner_references[0].name == "minutely"


@pytest.mark.long
@conformance("Workloads", "`kubectl top`; a HorizontalPodAutoscaler scales from 1 to 5 under load, and back")
def test_autoscaling(kube: Kube, space: Space) -> None:
    script = "while :; do if [ -e /tmp/busy ]; then :; else sleep 0.2; fi; done"
    resources = {"requests": {"cpu": "20m"}, "limits": {"cpu": "100m"}}
    space.create(
        workload("Deployment", "web", pod("web", container(script, resources=resources))),
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "web"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                "minReplicas": 1,
                "maxReplicas": 5,
                "metrics": [
                    {
                        "type": "Resource",
                        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
                    }
                ],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},  # by default five minutes
            },
        },
    )
    space.several(1, "app=web")
    eventually(lambda: set(AGENTS) <= set(kube.kubectl("top", "nodes", ok=False).out.split()), within=120)
    space.run("deploy/web", "touch /tmp/busy")
    space.several(5, "app=web", within=240)
    assert "web-" in space.kubectl("top", "pods").out
    for one in space.pods("app=web"):
        space.run(one.metadata.name, "rm -f /tmp/busy", ok=False)
    space.several(1, "app=web", within=300)
