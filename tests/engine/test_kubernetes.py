"""A real Kubernetes, proved with stock kubectl and the official Python client: what people expect of a cluster.

What each test proves is in the table of docs/kubernetes-conformance.md.
"""

from __future__ import annotations

import base64
import concurrent.futures
import datetime
import json
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from kubernetes import client, watch

from tests.engine.conftest import Shell, eventually, remains
from tests.engine.kube import (
    AGENTS,
    HOLD,
    Kube,
    Manifest,
    Space,
    claim,
    conformance,
    container,
    get,
    job,
    pod,
    readiness,
    service,
    workload,
)

NAME = "t-kubernetes"
#: For pods that several tests ask: one of them evicts whoever does not tolerate it.
STAYS = {"tolerations": [{"operator": "Exists"}]}

pytestmark = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")


#: What the user's kubeconfig has of another cluster.
OTHERS = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "work", "cluster": {"server": "https://work.example.org:6443"}}],
    "users": [{"name": "me", "user": {"token": "secret"}}],
    "contexts": [{"name": "work", "context": {"cluster": "work", "user": "me", "namespace": "x"}}],
    "current-context": "work",
}


@pytest.fixture(scope="module")
def users_kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's own kubeconfig, into which a test merges the cluster; once that is down, it is what it was."""
    file = tmp_path_factory.mktemp("user") / "config"
    file.touch(0o600)
    file.write_text(yaml.safe_dump(OTHERS))
    yield file
    assert yaml.safe_load(file.read_text()) == OTHERS


@pytest.fixture(scope="module")
def kube(outer: Shell, tmp_path_factory: pytest.TempPathFactory, users_kubeconfig: Path) -> Iterator[Kube]:
    """One master and two agents."""
    try:
        outer.minicluster("up", "kubernetes", "--name", NAME, timeout=1200)
        exports = outer.minicluster("env", NAME, "-o", "json").json
        yield Kube(Shell(outer.env | exports), NAME, tmp_path_factory.mktemp("kube"))
    finally:
        outer.minicluster("down", NAME, ok=False)
    assert remains(outer, NAME) == {}


@pytest.fixture(scope="module")
def asking(kube: Kube) -> Space:
    """A name space with a pod on each agent, called like it, that asks others."""
    space = kube.space("asking")
    space.create(*(pod(name, container(HOLD), nodeName=name, **STAYS) for name in AGENTS))
    space.ready(*AGENTS)
    return space


@pytest.fixture(scope="module")
def begun(kube: Kube) -> Space:
    """What takes its time is begun early, and looked at by later tests."""
    space = kube.space("begun")
    space.create(
        {"kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"colour": "red"}},
        pod(
            "reader",
            container(HOLD, volumeMounts=[{"name": "settings", "mountPath": "/settings"}]),
            volumes=[{"name": "settings", "configMap": {"name": "settings"}}],
            **STAYS,
        ),
        cron_job(kube, "minutely", "* * * * *"),
    )
    space.ready("reader")
    assert space.run("reader", "cat /settings/colour") == "red"
    kube.core.patch_namespaced_config_map("settings", "begun", {"data": {"colour": "blue"}})
    return space


@pytest.fixture
def space(kube: Kube, request: pytest.FixtureRequest) -> Iterator[Space]:
    """A name space of the test's own; nobody waits for its end."""
    name = request.node.name.removeprefix("test_").replace("_", "-")[:40].strip("-")
    yield kube.space(name)
    kube.core.delete_namespace(name, grace_period_seconds=0)


def cron_job(kube: Kube, name: str, schedule: str, **spec: Any) -> Manifest:
    made = job("any", "echo on time")
    return {
        "apiVersion": kube.version("batch/v1" if newer(kube, 21) else "batch/v1beta1"),
        "kind": "CronJob",
        "metadata": {"name": name},
        "spec": {"schedule": schedule, "jobTemplate": {"spec": made["spec"]}} | spec,
    }


def newer(kube: Kube, minor: int) -> bool:
    """Whether the cluster is v1.MINOR or newer."""
    return int(re.sub(r"\D", "", kube.kubectl("version", "-o", "json").json["serverVersion"]["minor"])) >= minor


# --- the cluster


@conformance("Cluster", "every agent is a Ready node under its name and address, and of the cluster's version")
def test_nodes_are_ready(kube: Kube, begun: Space) -> None:
    nodes = {node["metadata"]["name"]: node for node in kube.kubectl("get", "nodes", "-o", "json").json["items"]}
    version = kube.kubectl("version", "-o", "json").json["serverVersion"]["gitVersion"]
    assert sorted(nodes) == list(AGENTS)
    for name, node in nodes.items():
        conditions = {c["type"]: c["status"] for c in node["status"]["conditions"]}
        assert conditions["Ready"] == "True"
        assert conditions["MemoryPressure"] == conditions["DiskPressure"] == "False"
        assert node["status"]["nodeInfo"]["kubeletVersion"] == version
        addresses = {a["type"]: a["address"] for a in node["status"]["addresses"]}
        assert addresses == {"InternalIP": kube.addresses[name], "Hostname": name}
        assert node["spec"]["podCIDR"] == f"10.244.{name.removeprefix('agent-')}.0/24"


@conformance("Cluster", "`kubectl api-versions` lists the stable APIs that workloads use, and each is available")
def test_apis(kube: Kube) -> None:
    wanted = {"v1", "apps/v1", "batch/v1", "networking.k8s.io/v1", "rbac.authorization.k8s.io/v1", "storage.k8s.io/v1"}
    wanted |= {"apiextensions.k8s.io/v1", "admissionregistration.k8s.io/v1", "certificates.k8s.io/v1"}
    assert wanted <= kube.versions
    services = kube.kubectl("get", "apiservices", "-o", "json").json["items"]
    states = {s["metadata"]["name"]: {c["type"]: c["status"] for c in s["status"]["conditions"]} for s in services}
    assert len(states) > 10
    assert [name for name, state in states.items() if state["Available"] != "True"] == []
    assert kube.kubectl("get", "--raw", "/readyz").out == "ok"


@conformance("Cluster", "who has no certificate, or a wrong token, gets 401 or 403")
def test_strangers_are_refused(kube: Kube) -> None:
    server = kube.api.configuration.host
    context = ssl.create_default_context(cafile=kube.api.configuration.ssl_ca_cert)

    def asked(path: str, **headers: str) -> int:
        try:
            request = urllib.request.Request(server + path, headers=headers)
            with urllib.request.urlopen(request, timeout=5, context=context) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert asked("/api/v1/secrets") in (401, 403)
    assert asked("/api/v1/namespaces/default/pods") in (401, 403)
    assert asked("/api/v1/nodes", Authorization="Bearer wrong") == 401
    stranger = ("--kubeconfig", "/dev/null", "--server", server, "--token", "wrong")
    stranger += ("--certificate-authority", kube.api.configuration.ssl_ca_cert)
    bare = kube.kubectl(*stranger, "get", "pods", ok=False)
    assert "Unauthorized" in bare.err or "must be logged in" in bare.err
    assert bare.code != 0


# --- pods


@conformance("Pods", "run to their end; their exit codes and what they said are told")
def test_pods_end(space: Space) -> None:
    space.create(
        pod("well", container("echo did it"), restartPolicy="Never"),
        pod("ill", container("echo no; exit 3"), restartPolicy="Never"),
    )
    assert space.ended("well").status.phase == "Succeeded"
    ill = space.ended("ill")
    assert ill.status.phase == "Failed"
    assert ill.status.container_statuses[0].state.terminated.exit_code == 3
    assert space.log("well") == "did it\n"


@conformance("Pods", "init containers run one after the other before the others")
def test_init_containers(space: Space) -> None:
    work = {"volumeMounts": [{"name": "work", "mountPath": "/work"}]}
    space.create(
        pod(
            "main",
            container("cat /work/order", **work),
            initContainers=[
                container("sleep 0.5; echo first >>/work/order", "one", **work),
                container("echo second >>/work/order", "two", **work),
            ],
            volumes=[{"name": "work", "emptyDir": {}}],
            restartPolicy="Never",
        )
    )
    assert space.ended("main").status.phase == "Succeeded"
    assert space.log("main") == "first\nsecond\n"


@conformance("Pods", "containers of a pod share localhost and an emptyDir")
def test_containers_share(space: Space) -> None:
    shared = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    space.create(
        pod(
            "two",
            container("echo a word >/shared/word; exec /serve", "web", **shared),
            container(HOLD, **shared),
            volumes=[{"name": "shared", "emptyDir": {"medium": "Memory"}}],
        )
    )
    space.ready("two")
    said = eventually(lambda: space.run("two", "wget -q -O - http://localhost/", "-c", "main", ok=False))
    assert said == "two"
    assert space.run("two", "cat /shared/word", "-c", "main") == "a word"


@conformance("Pods", "environment and files of ConfigMaps and Secrets")
def test_settings(space: Space) -> None:
    space.create(
        {"kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"COLOUR": "red", "SIZE": "3"}},
        {"kind": "Secret", "metadata": {"name": "login"}, "stringData": {"password": "s3cret"}},
        pod(
            "main",
            container(
                "echo $COLOUR $SIZE $PASSWORD $(cat /login/password) $(stat -L -c %a /login/password)",
                envFrom=[{"configMapRef": {"name": "settings"}}],
                env=[{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "login", "key": "password"}}}],
                volumeMounts=[{"name": "login", "mountPath": "/login", "readOnly": True}],
            ),
            volumes=[{"name": "login", "secret": {"secretName": "login", "defaultMode": 0o400}}],
            restartPolicy="Never",
        ),
    )
    space.ended("main")
    assert space.log("main") == "red 3 s3cret s3cret 400\n"


@conformance("Pods", "know their own name, address, node, labels and limits (downward API)")
def test_downward_api(space: Space) -> None:
    fields = {"POD": "metadata.name", "IP": "status.podIP", "ON": "spec.nodeName", "SPACE": "metadata.namespace"}
    space.create(
        pod(
            "main",
            container(
                "echo $POD $IP $ON $SPACE $MEMORY; cat /about/labels",
                env=[{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]
                + [{"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}}],
                resources={"limits": {"memory": "32Mi"}},
                volumeMounts=[{"name": "about", "mountPath": "/about"}],
            ),
            volumes=[
                {
                    "name": "about",
                    "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]},
                }
            ],
            restartPolicy="Never",
        )
    )
    found = space.ended("main")
    own = f"main {found.status.pod_ip} {found.spec.node_name} {space.name} {32 << 20}"
    assert space.log("main").split("\n")[:2] == [own, 'app="main"']


@conformance("Pods", "are restarted when their liveness probe fails, and when they end; `kubectl logs --previous`")
def test_restarts(space: Space) -> None:
    alive = {"exec": {"command": ["test", "-e", "/tmp/alive"]}, "periodSeconds": 1, "failureThreshold": 1}
    space.create(
        pod("hangs", container(f"touch /tmp/alive; sleep 1; rm /tmp/alive; {HOLD}", livenessProbe=alive)),
        pod("ends", container(f"[ -e /w/again ] || {{ touch /w/again; echo first; exit 1; }}; echo second; {HOLD}",
            volumeMounts=[{"name": "w", "mountPath": "/w"}]), volumes=[{"name": "w", "emptyDir": {}}]),
    )  # fmt: skip

    def restarts(name: str) -> int:
        return sum(status.restart_count for status in space.pod(name).status.container_statuses or [])

    eventually(lambda: restarts("ends") == 1 and space.log("ends") == "second\n", what="it was started again")
    assert space.log("ends", "--previous") == "first\n"
    eventually(lambda: restarts("hangs") >= 1, what="a failing liveness probe has it restarted")


@conformance("Pods", "are told before their end (preStop, then SIGTERM), and killed when their grace period is over")
def test_ends_of_pods(kube: Kube, space: Space) -> None:
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo hook >/proc/1/fd/1"]}}}
    space.create(
        pod(
            "polite",
            container("trap 'echo term; exit 0' TERM; echo up; sleep 1000 & wait", lifecycle=hook),
            terminationGracePeriodSeconds=10,
        ),
        pod(
            "stubborn",
            container("trap '' TERM; echo up; while :; do sleep 1; done"),
            terminationGracePeriodSeconds=2,
        ),
    )
    space.ready("polite", "stubborn")
    logs = {name: kube.start("logs", "-f", name, "-n", space.name) for name in ("polite", "stubborn")}
    try:
        for log in logs.values():
            assert log.stdout
            assert log.stdout.readline() == "up\n"
        since = time.monotonic()
        space.kubectl("delete", "pod", "polite", "stubborn", "--wait=false")
        # The agent may add that the container is gone.
        polite, _ = logs["polite"].communicate(timeout=20)
        assert polite.startswith("hook\nterm\n")
        assert time.monotonic() - since < 9
        logs["stubborn"].communicate(timeout=20)
        assert 2 <= time.monotonic() - since < 12
    finally:
        for log in logs.values():
            log.kill()
            log.wait()


@conformance("Pods", "limits hold: too much memory is OOMKilled, processors are rationed")
def test_limits(space: Space) -> None:
    quota = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d ' ' -f 1 /sys/fs/cgroup/cpu.max"
    space.create(
        pod("greedy", container("tail /dev/zero", resources={"limits": {"memory": "16Mi"}})),
        pod("slow", container(quota, resources={"limits": {"cpu": "200m"}}), restartPolicy="Never"),
    )
    reasons = set()

    def killed() -> bool:
        """containerd may hear of the end before the kernel's reason for it, and then tells 137 alone; it runs again."""
        for status in space.pod("greedy").status.container_statuses or ():
            for ended in filter(None, (status.state.terminated, status.last_state.terminated)):
                assert ended.exit_code == 137
                reasons.add(ended.reason)
        return "OOMKilled" in reasons

    eventually(killed, what="out of memory")
    space.ended("slow")
    assert space.log("slow") == "20000\n"


@conformance("Pods", "run as the user, with the group and without the rights that they name (securityContext)")
def test_security_context(space: Space) -> None:
    space.create(
        pod(
            "main",
            container(
                "id -u; id -g; stat -c %g /w; touch /w/mine && touch /no 2>/dev/null || echo read-only; "
                "grep -c 'CapEff:.*[1-9a-f]' /proc/self/status",
                securityContext={
                    "readOnlyRootFilesystem": True,
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
                volumeMounts=[{"name": "w", "mountPath": "/w"}],
            ),
            securityContext={"runAsUser": 1000, "runAsGroup": 1001, "fsGroup": 1002},
            volumes=[{"name": "w", "emptyDir": {}}],
            restartPolicy="Never",
        )
    )
    space.ended("main")
    assert space.log("main").split() == ["1000", "1001", "1002", "read-only", "0"]
    for name in ("net-admin", "sys-module"):  # one that agents have, and one that they have not
        more = {"capabilities": {"add": [name.upper().replace("-", "_")]}}
        space.create(pod(name, container("true", securityContext=more), restartPolicy="Never"))
    assert space.ended("net-admin").status.phase == "Succeeded"
    refused = space.ended("sys-module").status
    assert refused.phase == "Failed"
    assert "operation not permitted" in refused.container_statuses[0].state.terminated.message


@conformance("Pods", "`kubectl exec` with input and exit code, `attach`, `cp` both ways")
def test_exec_attach_cp(space: Space, tmp_path: Path) -> None:
    space.create(pod("main", container(f"read line; echo got $line; {HOLD}", stdin=True, stdinOnce=True)))
    space.ready("main")
    assert space.kubectl("exec", "-i", "main", "--", "tr", "a-z", "A-Z", given="shout").out == "SHOUT"
    assert space.kubectl("exec", "main", "--", "sh", "-c", "exit 7", ok=False).code == 7
    attached = space.kube.start("attach", "-i", "main", "-n", space.name, given=True)
    try:
        assert attached.stdin
        attached.stdin.write("hello\n")
        attached.stdin.flush()
        eventually(lambda: space.log("main") == "got hello\n", what="it read what was written to it")
    finally:
        attached.kill()
        attached.wait()
    (tmp_path / "there").write_text("a file\n" * 1000)
    space.kubectl("cp", str(tmp_path / "there"), "main:/tmp/there")
    space.kubectl("cp", "main:/tmp/there", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "a file\n" * 1000


@conformance("Pods", "`kubectl port-forward` to a pod and to a service")
def test_port_forward(kube: Kube, space: Space) -> None:
    space.create(pod("web"), service("web", 8000))
    space.ready("web")
    eventually(lambda: space.endpoints("web"))
    for what in ("pod/web", "service/web"):
        forward = kube.start("port-forward", "-n", space.name, what, ":80" if what == "pod/web" else ":8000")
        try:
            assert forward.stdout
            port = re.search(r"127.0.0.1:(\d+)", forward.stdout.readline())
            assert port
            assert eventually(lambda port=port: get(f"http://127.0.0.1:{port[1]}/")) == "web"
        finally:
            forward.kill()
            forward.wait()


@conformance("Pods", "what happened to them is told as events (`kubectl describe`)")
def test_events(space: Space) -> None:
    space.create(pod("main", container() | {"image": "localhost/minicluster/none:1", "imagePullPolicy": "Never"}))
    told = eventually(
        lambda: "ErrImageNeverPull" in (text := space.kubectl("describe", "pod", "main").out) and text,
        what="what is wrong with it is told",
    )
    assert "Scheduled" in told


# --- network


@conformance("Network", "pods on different agents reach each other by address, each seen under its own")
def test_pods_reach_each_other(asking: Space, space: Space) -> None:
    said = container("mkdir /tmp/w; echo hello >/tmp/w/index.html; exec httpd -f -v -h /tmp/w 2>&1")
    space.create(*(pod(f"web-{name}", said, nodeName=name) for name in AGENTS))
    web = dict(zip(AGENTS, space.ready(*(f"web-{name}" for name in AGENTS)), strict=True))
    for here, there in (AGENTS, reversed(AGENTS)):
        script = f"timeout 5 wget -q -O - http://{web[there].status.pod_ip}/index.html"
        assert eventually(lambda here=here, script=script: asking.run(here, script, ok=False)) == "hello"
        source = asking.pod(here).status.pod_ip
        eventually(lambda there=there, source=source: f"{source}]" in space.log(f"web-{there}"), what=source)


@conformance("Network", "hostPort and hostNetwork: a pod answers at its agent's address")
def test_ports_of_the_node(kube: Kube, space: Space) -> None:
    one, two = AGENTS
    space.create(
        pod("port", container(ports=[{"containerPort": 80, "hostPort": 8081}]), nodeName=one),
        pod("net", container(env=[{"name": "PORT", "value": "8082"}]), hostNetwork=True, nodeName=two),
    )
    space.ready("port", "net")
    assert space.pod("net").status.pod_ip == kube.addresses[two]
    assert eventually(lambda: get(f"http://{kube.addresses[one]}:8081/")) == "port"
    assert eventually(lambda: get(f"http://{kube.addresses[two]}:8082/")) == two


@conformance("Network", "a pod reaches itself through its own service")
def test_hairpin(space: Space) -> None:
    space.create(pod("web"), service("web"))
    space.ready("web")
    assert eventually(lambda: space.run("web", "timeout 2 wget -q -O - http://web/", ok=False)) == "web"


# --- services and their names

ASKS = "for i in $(seq {times}); do timeout 5 wget -q -O - http://{host}/; done"


@conformance("Services", "a ClusterIP, by name from another name space, spreads requests over all ready pods")
def test_cluster_ip(asking: Space, space: Space) -> None:
    space.create(workload("Deployment", "web", pod("web", container(**readiness())), replicas=3), service("web"))
    names = {pod.metadata.name for pod in space.several(3, "app=web")}
    eventually(lambda: space.endpoints("web") == names, what="all three are endpoints")
    for agent in AGENTS:
        script = ASKS.format(times=40, host=f"web.{space.name}")
        eventually(lambda agent=agent, script=script: set(asking.run(agent, script, ok=False).split()) == names)


@conformance("Services", "session affinity: the same client gets to the same pod")
def test_session_affinity(asking: Space, space: Space) -> None:
    space.create(
        workload("Deployment", "web", pod("web", container(**readiness())), replicas=3),
        service("web", sessionAffinity="ClientIP"),
    )
    space.several(3, "app=web")
    eventually(lambda: len(space.endpoints("web")) == 3)

    def always_one() -> bool:
        said = asking.run("agent-1", ASKS.format(times=20, host=f"web.{space.name}"), ok=False).split()
        return len(said) == 20 and len(set(said)) == 1

    eventually(always_one, what="one pod answers all")


@conformance("Services", "endpoints follow readiness: who is not ready gets no requests")
def test_endpoints_follow_readiness(asking: Space, space: Space) -> None:
    probe = container(**readiness(exec={"command": ["test", "-e", "/tmp/ready"]}))
    space.create(pod("web", probe), pod("other", labels={"app": "web"}), service("web"))
    space.ready("other")
    ask = ASKS.format(times=15, host=f"web.{space.name}")
    eventually(lambda: space.endpoints("web") == {"other"})
    eventually(lambda: set(asking.run("agent-1", ask, ok=False).split()) == {"other"})
    space.run("web", "touch /tmp/ready")
    eventually(lambda: space.endpoints("web") == {"other", "web"}, what="ready: it is an endpoint")
    eventually(lambda: set(asking.run("agent-1", ask, ok=False).split()) == {"other", "web"})
    space.run("web", "rm /tmp/ready")
    eventually(lambda: space.endpoints("web") == {"other"}, what="not ready: it is none")
    eventually(lambda: asking.run("agent-1", ask, ok=False).split() == ["other"] * 15)


@conformance("Services", "a NodePort answers at every agent's address, asked from this machine")
def test_node_port(kube: Kube, space: Space) -> None:
    made = space.create(pod("web"), service("web", type="NodePort"))
    space.ready("web")
    port = made.spec.ports[0].nodePort
    for agent in AGENTS:
        assert eventually(lambda agent=agent: get(f"http://{kube.addresses[agent]}:{port}/")) == "web"


@conformance("Services", "without a selector: they lead where their Endpoints say")
def test_endpoints_by_hand(asking: Space, space: Space) -> None:
    space.create(pod("web"))
    (web,) = space.ready("web")
    made = service("by-hand", 8000)
    del made["spec"]["selector"]
    subset = {"addresses": [{"ip": web.status.pod_ip}], "ports": [{"name": "http", "port": 80}]}
    space.create(made, {"kind": "Endpoints", "metadata": {"name": "by-hand"}, "subsets": [subset]})
    script = f"timeout 2 wget -q -O - http://by-hand.{space.name}:8000/"
    assert eventually(lambda: asking.run("agent-1", script, ok=False)) == "web"


@conformance("Names", "headless services: all pods' addresses, and a name for each pod of a StatefulSet")
def test_headless(asking: Space, space: Space) -> None:
    space.create(
        workload("StatefulSet", "web", pod("web"), replicas=2, serviceName="web", podManagementPolicy="Parallel"),
        service("web", clusterIP="None"),
    )
    found = {pod.metadata.name: pod.status.pod_ip for pod in space.several(2, "app=web")}
    assert set(found) == {"web-0", "web-1"}
    for name in found:
        script = f"timeout 2 wget -q -O - http://{name}.web.{space.name}.svc/"
        assert eventually(lambda script=script: asking.run("agent-2", script, ok=False)) == name
    eventually(lambda: addresses(asking, f"web.{space.name}.svc.cluster.local") == set(found.values()))


@conformance("Names", "SRV records of named ports; names of ClusterIPs, both ways")
def test_records(asking: Space, space: Space) -> None:
    made = space.create(service("web", 8000))
    full = f"web.{space.name}.svc.cluster.local"
    eventually(lambda: addresses(asking, full) == {made.spec.clusterIP})
    eventually(
        lambda: f"0 8000 {full}" in asking.run("agent-1", f"nslookup -type=srv _http._tcp.{full}", ok=False),
        what="its SRV record",
    )
    assert full in asking.run("agent-1", f"nslookup {made.spec.clusterIP}", ok=False)


@conformance(
    "Names", "names of the cluster that are not there are said not to be; others are asked of the engine's DNS"
)
def test_other_names(kube: Kube, asking: Space) -> None:
    assert "NXDOMAIN" in asking.run("agent-1", "nslookup none.default.svc.cluster.local", ok=False)
    assert addresses(asking, f"{NAME}-master-1.") == {kube.addresses["master-1"]}


@conformance("Names", "resolve without a failure while services come and go")
def test_names_are_steady(asking: Space, space: Space) -> None:
    script = (
        "i=0; while [ ! -e /tmp/enough ] && [ $i -lt 3000 ]; do "
        "nslookup kubernetes.default.svc.cluster.local >/tmp/said 2>&1 && echo fine || cat /tmp/said; i=$((i+1)); done"
    )
    with concurrent.futures.ThreadPoolExecutor() as pool:
        said = pool.submit(asking.run, "agent-1", f"rm -f /tmp/enough; {script}")
        try:
            for number in range(8):
                space.create(service(f"web-{number}"))
                time.sleep(0.25)
        finally:
            asking.run("agent-1", "touch /tmp/enough")
    lines = Counter(said.result().splitlines())
    assert lines.pop("fine") > 50
    assert not lines


def addresses(asking: Space, name: str) -> set[str]:
    """What a name resolves to, asked from a pod."""
    said = asking.run("agent-1", f"nslookup {name}", ok=False).partition("Name:")[2]
    return set(re.findall(r"Address(?: \d+)?: (\S+)", said))


@conformance("Services", "their addresses are in the environment of pods that start later")
def test_environment_of_services(space: Space) -> None:
    made = space.create(service("web", 8000))
    script = "echo $WEB_SERVICE_HOST $WEB_SERVICE_PORT $KUBERNETES_SERVICE_HOST"
    # Agents hear of services a moment later: a pod that started before knows nothing.
    wanted = f"{made.spec.clusterIP} 8000 10.96.0.1\n"
    for number in range(5):
        space.create(pod(f"main-{number}", container(script), restartPolicy="Never"))
        space.ended(f"main-{number}")
        if (said := space.log(f"main-{number}")) == wanted:
            break
    assert said == wanted


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
    """Of a variable of each pod's environment."""
    return [v.value for pod in space.pods() for v in pod.spec.containers[0].env if v.name == variable]


@conformance("Workloads", "Deployments: scale up and down; paused, they start nothing new until resumed")
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
            time.sleep(3)  # until the old ones have ended, too
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


@conformance("Workloads", "CronJobs: `kubectl create job --from`, and jobs on time")
def test_cron_jobs(kube: Kube, space: Space) -> None:
    space.create(cron_job(kube, "yearly", "0 0 1 1 *"))
    # By the cluster's own kubectl: others may be too new to take jobs from its version of CronJob.
    make = ["create", "job", "now", "--from=cronjob/yearly", "-n", space.name]
    kube.shell.minicluster("exec", "-c", NAME, "master-1", "--", "kubectl", *make)
    eventually(lambda: kube.batch.read_namespaced_job("now", space.name).status.succeeded == 1)
    (made,) = space.pods("job-name=now")
    assert space.log(made.metadata.name) == "on time\n"


# --- storage


@conformance("Storage", "a claim is bound by the default StorageClass, and its volume is gone with it")
def test_claims(kube: Kube, space: Space) -> None:
    space.create(claim("data"))
    name = eventually(lambda: kube.core.read_namespaced_persistent_volume_claim("data", space.name).spec.volume_name)
    volume = kube.core.read_persistent_volume(name)
    assert volume.spec.storage_class_name == "standard"
    assert volume.spec.persistent_volume_reclaim_policy == "Delete"
    kube.core.delete_namespaced_persistent_volume_claim("data", space.name)
    eventually(lambda: name not in [v.metadata.name for v in kube.core.list_persistent_volume().items])
    folder = volume.spec.host_path.path
    eventually(
        lambda: (
            kube.shell.minicluster("exec", "-c", NAME, "agent-1", "--", "test", "!", "-e", folder, ok=False).code == 0
        )
    )


@conformance("Storage", "who is not root may write to a volume, and what was written is there on another agent")
def test_volumes_are_everywhere(space: Space) -> None:
    mounts = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    common = {
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000},
        "restartPolicy": "OnFailure",
    }
    write, read = "echo $(id -u) was here >/data/mine", "cat /data/mine && echo more >>/data/mine"
    space.create(claim("data"), pod("writer", container(write, **mounts), nodeName="agent-1", **common))
    assert space.ended("writer").status.phase == "Succeeded"
    space.create(pod("reader", container(read, **mounts), nodeName="agent-2", **common))
    assert space.ended("reader").status.phase == "Succeeded"
    assert space.log("reader") == "1000 was here\n"


# --- where pods run


@conformance("Scheduling", "node selectors; what fits nowhere waits, and says why")
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
    """Waits until the scheduler found no place for it, and gives the reason."""

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
    space.create(pod("beside", affinity={"podAffinity": near("first")}))
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
    assert space.ready("first", "beside")[1].spec.node_name == "agent-2"
    assert Counter(pod.spec.node_name for pod in space.several(4, "app=even")) == dict.fromkeys(AGENTS, 2)


@conformance("Scheduling", "taints keep away whoever does not tolerate them; cordon and uncordon; NoExecute evicts")
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


@conformance("Scheduling", "a pod of a higher PriorityClass takes the place of one of a lower")
def test_preemption(kube: Kube, space: Space) -> None:
    kube.create(
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "t-vital"}, "value": 1000}
    )
    try:
        cores = int(kube.core.read_node("agent-1").status.allocatable["cpu"])
        most = {"resources": {"requests": {"cpu": f"{cores * 600}m"}}}
        there = {"nodeSelector": {"kubernetes.io/hostname": "agent-1"}}
        space.create(pod("humble", container(**most), terminationGracePeriodSeconds=0, **there))
        space.ready("humble")
        # The API server hears of the class a moment later.
        vital = pod("vital", container(**most), priorityClassName="t-vital", **there)
        eventually(lambda: taken(space, vital), what="the class is known")
        space.ready("vital")
        assert "humble" not in [pod.metadata.name for pod in space.pods()]
    finally:
        kube.kubectl("delete", "priorityclass", "t-vital")


def taken(space: Space, manifest: Manifest) -> bool:
    try:
        space.create(manifest)
    except client.ApiException:
        return False
    return True


# --- what is allowed


@conformance("Policy", "a ResourceQuota refuses what is too much, a LimitRange fills in limits")
def test_quota_and_limits(kube: Kube, space: Space) -> None:
    space.create(
        {"kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"configmaps": "2"}}},
        {
            "kind": "LimitRange",
            "metadata": {"name": "small"},
            "spec": {"limits": [{"type": "Container", "default": {"memory": "48Mi"}, "max": {"memory": "64Mi"}}]},
        },
    )

    def limits() -> Any:
        made = kube.core.create_namespaced_pod(space.name, pod("main"), dry_run="All")
        return made.spec.containers[0].resources.limits

    eventually(lambda: limits() == {"memory": "48Mi"}, what="its limit is the default")
    big = space.refused(pod("big", container(resources={"limits": {"memory": "65Mi"}})))
    assert big.status == 403
    assert "maximum memory usage" in str(big.body)
    eventually(lambda: kube.core.read_namespaced_resource_quota("few", space.name).status.used)
    said = client.ApiException()
    for number in range(3):  # one comes with every name space of a newer Kubernetes
        try:
            space.create({"kind": "ConfigMap", "metadata": {"name": f"map-{number}"}})
        except client.ApiException as error:
            said = error
    assert said.status == 403
    assert "exceeded quota" in str(said.body)


@conformance("Policy", "a PodDisruptionBudget stands in the way of an eviction, until there are enough")
def test_disruption_budget(kube: Kube, space: Space) -> None:
    version = kube.version("policy/v1", "policy/v1beta1")
    space.create(
        workload("Deployment", "web", pod("web"), replicas=1),
        {
            "apiVersion": version,
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "web"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
        },
    )
    (first,) = space.several(1, "app=web")

    def evict() -> int:
        name = first.metadata.name
        body = {"apiVersion": version, "kind": "Eviction", "metadata": {"name": name, "namespace": space.name}}
        try:
            kube.core.create_namespaced_pod_eviction(name, space.name, body)
        except client.ApiException as error:
            return int(error.status)
        return 201

    assert evict() == 429
    space.kubectl("scale", "deployment/web", "--replicas=2")
    space.several(2, "app=web")
    eventually(lambda: evict() == 201, what="with one more, one may go")


@conformance("Access", "RBAC: a pod's service account may do what its Role grants, in its name space, and nothing else")
def test_service_account(space: Space) -> None:
    rbac = "rbac.authorization.k8s.io"
    space.apply(
        {"kind": "ServiceAccount", "metadata": {"name": "reader"}},
        {"kind": "ConfigMap", "metadata": {"name": "settings"}},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "Role",
            "metadata": {"name": "reads"},
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}],
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "reads"},
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "reads"},
            "subjects": [{"kind": "ServiceAccount", "name": "reader"}],
        },
    )

    def may(*what: str) -> str:
        account = f"system:serviceaccount:{space.name}:reader"
        return space.kubectl("auth", "can-i", *what, "--as", account, ok=False).out.strip()

    # A kubectl of the agent's, which knows by itself what it runs in.
    main = container(HOLD, volumeMounts=[{"name": "kubectl", "mountPath": "/bin/kubectl", "readOnly": True}])
    programs = [{"name": "kubectl", "hostPath": {"path": "/usr/local/bin/kubectl", "type": "File"}}]
    eventually(lambda: taken(space, pod("main", main, volumes=programs, serviceAccountName="reader")))
    eventually(lambda: may("list", "configmaps") == "yes")
    assert may("list", "secrets") == "no"
    assert may("delete", "configmaps") == "no"
    space.ready("main")
    assert "configmap/settings" in space.run("main", "kubectl get configmaps -o name")
    for what in ("get secrets", "delete configmap settings", "get configmaps -n default", "get nodes"):
        said = space.run("main", f"kubectl {what} 2>&1", ok=False)
        assert "Forbidden" in said
        assert f"system:serviceaccount:{space.name}:reader" in said
    unverified = space.run("main", "wget -q -O - http://kubernetes.default:443/ 2>&1", ok=False)
    assert "400" in unverified


@conformance("Access", "impersonation: a user and groups that are bound to a role")
def test_impersonation(space: Space) -> None:
    jane = ("get", "configmaps", "-o", "name", "--as=jane")
    said = space.kubectl(*jane, ok=False)
    assert said.code != 0
    assert 'User "jane" cannot list' in said.err
    space.kubectl("create", "role", "reads", "--verb=get,list", "--resource=configmaps")
    space.kubectl("create", "rolebinding", "reads", "--role=reads", "--group=readers")
    eventually(lambda: space.kubectl(*jane, "--as-group=readers", ok=False).code == 0)
    assert space.kubectl(*jane, ok=False).code != 0


def as_user(kube: Kube, name: str, certificate: str, key: str) -> client.CoreV1Api:
    """Who comes with this certificate."""
    own = client.Configuration()
    own.host, own.ssl_ca_cert = kube.api.configuration.host, kube.api.configuration.ssl_ca_cert
    for attribute, text in (("cert_file", certificate), ("key_file", key)):
        path = kube.folder / f"{name}.{attribute}"
        path.write_text(text)
        setattr(own, attribute, str(path))
    return client.CoreV1Api(client.ApiClient(own))


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    kind = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())


@conformance("Access", "a certificate signing request, once approved, is answered with a certificate that counts")
def test_certificates(kube: Kube) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "t-jane")])
    wanted = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    encoded = base64.b64encode(wanted.public_bytes(serialization.Encoding.PEM)).decode()
    kube.create(
        {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": "t-jane"},
            "spec": {
                "request": encoded,
                "signerName": "kubernetes.io/kube-apiserver-client",
                "usages": ["client auth"],
            },
        }
    )
    try:
        kube.kubectl("certificate", "approve", "t-jane")
        certificates = client.CertificatesV1Api(kube.api)
        issued = eventually(
            lambda: certificates.read_certificate_signing_request("t-jane").status.certificate,
            what="the certificate is issued",
        )
        jane = as_user(kube, "jane", base64.b64decode(issued).decode(), pem(key).decode())
        with pytest.raises(client.ApiException) as refused:
            jane.list_namespaced_pod("default")
        assert refused.value.status == 403
        assert 'User \\"t-jane\\"' in str(refused.value.body)
    finally:
        kube.kubectl("delete", "certificatesigningrequest", "t-jane")


@conformance(
    "Access", "an agent may change its own node and not another (NodeRestriction), nor read what it does not run"
)
def test_node_restriction(kube: Kube, space: Space) -> None:
    own = [
        kube.shell.minicluster(
            "exec", "-c", NAME, "agent-1", "--", "cat", f"/etc/kubernetes/pki/kubelet/{name}.pem"
        ).out
        for name in ("cert", "key")
    ]
    agent = as_user(kube, "agent", *own)
    note = {"metadata": {"annotations": {"t-note": "1"}}}
    agent.patch_node("agent-1", note)
    space.create({"kind": "Secret", "metadata": {"name": "hidden"}})
    for refused in (
        lambda: agent.patch_node("agent-2", note),
        lambda: agent.delete_node("agent-2"),
        lambda: agent.patch_node("agent-1", {"metadata": {"labels": {"node-restriction.kubernetes.io/x": "1"}}}),
        lambda: agent.read_namespaced_secret("hidden", space.name),
    ):
        with pytest.raises(client.ApiException) as error:
            refused()
        assert error.value.status == 403


#: HAProxy, which every node has, as an admission webhook: it refuses objects that are labelled bad.
WEBHOOK = """
defaults
  mode http
  timeout client 5s
  timeout server 5s
  timeout connect 5s
frontend admission
  bind :443 ssl crt /files/both.pem
  option http-buffer-request
  http-request set-var(txn.uid) req.body,json_query('$.request.uid')
  http-request set-var(txn.kind) req.body,json_query('$.request.object.metadata.labels.kind')
  acl bad var(txn.kind) -m str bad
  http-request return status 200 content-type application/json lf-file /files/refuses if bad
  http-request return status 200 content-type application/json lf-file /files/allows
"""


def review(rest: str) -> str:
    head = '{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": {"uid": "%[var(txn.uid)]", '
    return head + rest + "}}"


@conformance("Access", "a validating webhook that is served by a pod refuses what it shall")
def test_webhook(kube: Kube, space: Space) -> None:
    host = f"hook.{space.name}.svc"
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    # The programs and libraries of the agent.
    folders = {"usr": "/usr", "lib": "/usr/lib", "lib64": "/usr/lib64"}
    refuses = review('"allowed": false, "status": {"code": 422, "message": "bad is not good"}')
    files = {
        "haproxy.cfg": WEBHOOK,
        "both.pem": (certificate + pem(key)).decode(),
        "allows": review('"allowed": true'),
        "refuses": refuses,
    }
    main = container("exec /usr/sbin/haproxy -db -f /files/haproxy.cfg", **readiness(tcpSocket={"port": 443}))
    main["volumeMounts"] = [{"name": "files", "mountPath": "/files"}]
    main["volumeMounts"] += [{"name": name, "mountPath": f"/{name}", "readOnly": True} for name in folders]
    volumes: list[Manifest] = [{"name": "files", "secret": {"secretName": "files"}}]
    volumes += [{"name": name, "hostPath": {"path": path}} for name, path in folders.items()]
    made = service("hook", 443)
    made["spec"]["ports"][0]["targetPort"] = 443
    space.create(
        {"kind": "Secret", "metadata": {"name": "files"}, "stringData": files}, pod("hook", main, volumes=volumes), made
    )
    space.ready("hook")
    eventually(lambda: space.endpoints("hook"))
    hook = {
        "name": "kinds.t.example.org",
        "clientConfig": {
            "service": {"name": "hook", "namespace": space.name, "path": "/"},
            "caBundle": base64.b64encode(certificate).decode(),
        },
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
        "namespaceSelector": {"matchLabels": {"t-hooked": "yes"}},
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "timeoutSeconds": 5,
    }
    kube.kubectl("label", "namespace", space.name, "t-hooked=yes")
    kube.create(
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "t-hook"},
            "webhooks": [hook],
        }
    )
    try:
        good, bad = (
            {"kind": "ConfigMap", "metadata": {"generateName": "map-", "labels": {"kind": k}}} for k in ("good", "bad")
        )

        def refusal() -> str:
            try:
                space.create(bad)
            except client.ApiException as error:
                return str(error.body)
            return ""

        said = eventually(refusal, what="the webhook is asked")
        assert "bad is not good" in said
        space.create(good)
    finally:
        kube.kubectl("delete", "validatingwebhookconfiguration", "t-hook")


# --- the API


@conformance("API", "watches tell of what is added, modified and deleted, in that order")
def test_watches(kube: Kube, space: Space) -> None:
    since = kube.core.list_namespaced_config_map(space.name, label_selector="t=1").metadata.resource_version
    seen: list[tuple[str, str]] = []

    def follow() -> None:
        looking = watch.Watch()
        for event in looking.stream(
            kube.core.list_namespaced_config_map,
            space.name,
            label_selector="t=1",
            resource_version=since,
            timeout_seconds=20,
        ):
            seen.append((event["type"], event["object"].metadata.name))
            if event["type"] == "DELETED":
                looking.stop()

    with concurrent.futures.ThreadPoolExecutor() as pool:
        following = pool.submit(follow)
        space.create({"kind": "ConfigMap", "metadata": {"name": "other"}})
        space.create({"kind": "ConfigMap", "metadata": {"name": "one", "labels": {"t": "1"}}})
        eventually(lambda: seen == [("ADDED", "one")])
        kube.core.patch_namespaced_config_map("one", space.name, {"data": {"a": "b"}})
        kube.core.delete_namespaced_config_map("one", space.name)
        following.result(timeout=30)
    assert seen == [("ADDED", "one"), ("MODIFIED", "one"), ("DELETED", "one")]


@conformance("API", "label and field selectors")
def test_selectors(kube: Kube, asking: Space, space: Space) -> None:
    for name, tier in (("a", "front"), ("b", "back"), ("c", "back")):
        space.create({"kind": "ConfigMap", "metadata": {"name": name, "labels": {"tier": tier, "t": "1"}}})

    def names(**selector: str) -> list[str]:
        return [item.metadata.name for item in kube.core.list_namespaced_config_map(space.name, **selector).items]

    assert names(label_selector="tier=back") == ["b", "c"]
    assert names(label_selector="t,tier notin (back)") == ["a"]
    assert names(label_selector="tier in (front,back)", field_selector="metadata.name!=b") == ["a", "c"]
    fields = "--field-selector=spec.nodeName=agent-1,status.phase=Running"
    listed = kube.kubectl("get", "pods", "-A", fields, "-l", "app=agent-1", "-o", "name")
    assert listed.out == "pod/agent-1\n"


@conformance("API", "who changes what is older than what is there gets a conflict; patches; dry runs")
def test_changes(kube: Kube, space: Space) -> None:
    space.create({"kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"a": "1", "b": "2"}})
    old = kube.core.read_namespaced_config_map("one", space.name)
    space.kubectl("patch", "configmap", "one", "--type=merge", "-p", '{"data": {"a": "2"}}')
    old.data["a"] = "3"
    with pytest.raises(client.ApiException) as refused:
        kube.core.replace_namespaced_config_map("one", space.name, old)
    assert refused.value.status == 409
    space.kubectl("patch", "configmap", "one", "--type=json", "-p", '[{"op": "remove", "path": "/data/b"}]')
    kube.core.delete_namespaced_config_map("one", space.name, dry_run="All")
    assert kube.core.read_namespaced_config_map("one", space.name).data == {"a": "2"}


@conformance("API", "server-side apply: each field has its owner, and another gets a conflict")
def test_server_side_apply(space: Space) -> None:
    def apply(by: str, value: str, *more: str) -> Any:
        text = json.dumps(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"a": value, by: "mine"}}
        )
        return space.kubectl(
            "apply", "--server-side", f"--field-manager={by}", *more, "-f", "-", given=text, ok=False
        )  # fmt: skip

    assert apply("first", "1").code == 0
    refused = apply("second", "2")
    assert refused.code != 0
    assert 'conflict with "first"' in refused.err
    assert apply("second", "2", "--force-conflicts").code == 0
    found = space.kube.core.read_namespaced_config_map("one", space.name)
    assert found.data == {"a": "2", "first": "mine", "second": "mine"}
    assert {field.manager for field in found.metadata.managed_fields} == {"first", "second"}


@conformance("API", "what has a finalizer waits for it; what is owned goes with its owner")
def test_finalizers_and_owners(kube: Kube, space: Space) -> None:
    kept = {"kind": "ConfigMap", "metadata": {"name": "kept", "finalizers": ["t.example.org/wait"]}}
    owner = space.create(kept, {"kind": "ConfigMap", "metadata": {"name": "owner"}})
    of = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid}
    space.create({"kind": "ConfigMap", "metadata": {"name": "owned", "ownerReferences": [of]}})

    def there() -> set[str]:
        return {item.metadata.name for item in kube.core.list_namespaced_config_map(space.name).items}

    for name in ("kept", "owner"):
        kube.core.delete_namespaced_config_map(name, space.name)
    eventually(lambda: not there() & {"owner", "owned"}, what="the owned one is gone")
    assert kube.core.read_namespaced_config_map("kept", space.name).metadata.deletion_timestamp
    kube.core.patch_namespaced_config_map("kept", space.name, {"metadata": {"finalizers": None}})
    eventually(lambda: "kept" not in there())


CRD: Manifest = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.t.example.org"},
    "spec": {
        "group": "t.example.org",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "required": ["size"],
                                "properties": {"size": {"type": "integer", "minimum": 1}},
                            },
                            "status": {"type": "object", "properties": {"done": {"type": "boolean"}}},
                        },
                    }
                },
            }
        ],
    },
}


@conformance(
    "API", "custom resources: defined, checked, listed, watched, with a status of their own, gone with their definition"
)
def test_custom_resources(kube: Kube, space: Space) -> None:
    group = ("t.example.org", "v1", space.name, "widgets")
    custom = client.CustomObjectsApi(kube.api)

    def widget(size: int) -> Manifest:
        return {"apiVersion": "t.example.org/v1", "kind": "Widget", "metadata": {"name": "one"}, "spec": {"size": size}}

    def made() -> bool:
        try:
            custom.create_namespaced_custom_object(*group, widget(3))
        except client.ApiException as error:
            if error.status in (404, 503):
                return False
            raise
        return True

    kube.kubectl("apply", "-f", "-", given=json.dumps(CRD))
    try:
        eventually(made, what="there may be widgets")
        with pytest.raises(client.ApiException) as refused:
            custom.create_namespaced_custom_object(*group, widget(0))
        assert refused.value.status == 422
        since = custom.list_namespaced_custom_object(*group)["metadata"]["resourceVersion"]
        custom.patch_namespaced_custom_object_status(*group, "one", {"status": {"done": True}, "spec": {"size": 9}})
        columns = eventually(lambda: space.kubectl("get", "wd", ok=False).out, what="kubectl knows the short name")
        assert re.search(r"^NAME +SIZE\none +3$", columns.strip(), re.MULTILINE)
        custom.delete_namespaced_custom_object(*group, "one")
        events = watch.Watch().stream(
            custom.list_namespaced_custom_object, *group, resource_version=since, timeout_seconds=10
        )
        first = next(events)
        assert (first["type"], first["object"]["status"]) == ("MODIFIED", {"done": True})
        assert next(events)["type"] == "DELETED"
        custom.create_namespaced_custom_object(*group, widget(1))
    finally:
        kube.kubectl("delete", "crd", "widgets.t.example.org", "--wait=false")

    def gone() -> bool:
        try:
            custom.list_namespaced_custom_object(*group)
        except client.ApiException as error:
            return bool(error.status == 404)
        return False

    eventually(gone, what="there are no widgets any more")


# --- what was begun early


@conformance("Pods", "a mounted ConfigMap's files follow when it changes")
def test_mounted_settings_follow(begun: Space) -> None:
    eventually(lambda: begun.run("reader", "cat /settings/colour") == "blue", what="it has the new value")


@conformance("Workloads", "a CronJob's jobs are made on time")
def test_cron_jobs_are_on_time(kube: Kube, begun: Space) -> None:
    made = eventually(
        lambda: [j for j in kube.batch.list_namespaced_job("begun").items if j.status.succeeded],
        within=90,
        what="a minute has come",
    )
    assert made[0].metadata.owner_references[0].name == "minutely"


# --- minicluster's own commands


@conformance("minicluster", "`load` brings an image of the engine into every agent, and pods run it")
def test_load(outer: Shell, space: Space) -> None:
    image = "t-load-kubernetes:1"
    try:
        outer.run("bash", "-c", f"docker cp -L {NAME}-agent-1:/bin/busybox - | docker import - {image}")
        outer.minicluster("load", image, "-c", NAME)
        main = {"name": "main", "image": image, "imagePullPolicy": "Never", "command": ["/busybox", "echo", "loaded"]}
        space.create(*(pod(f"on-{name}", main, nodeName=name, restartPolicy="Never") for name in AGENTS))
        for name in AGENTS:
            assert space.ended(f"on-{name}").status.phase == "Succeeded"
            assert space.log(f"on-{name}") == "loaded\n"
    finally:
        outer.docker("rmi", "-f", image, ok=False)


@conformance("minicluster", "`status`, `info`, `env`, `logs` and `exec` tell about the cluster")
def test_commands(kube: Kube, outer: Shell) -> None:
    status = outer.minicluster("status", NAME, "-o", "json").json
    assert (status["cluster"], status["profile"], status["phase"]) == (NAME, "kubernetes", "ready")
    nodes = {node["name"]: node for node in status["nodes"]}
    assert list(nodes) == ["kv-1", "master-1", "agent-1", "agent-2"]
    assert all(node["ready"] and node["phase"] == "running" for node in nodes.values())
    kube.kubectl("cordon", "agent-2")
    try:
        eventually(
            lambda: "cordoned" in outer.minicluster("status", NAME).out, what="it says that an agent is cordoned"
        )
    finally:
        kube.kubectl("uncordon", "agent-2")
    info = outer.minicluster("info", NAME, "-o", "json").json
    (api,) = info["endpoints"]
    assert (api["name"], api["node"], api["url"]) == ("api", "master-1", kube.api.configuration.host)
    assert info["demo_image"] == "localhost/minicluster/demo"
    exports = outer.minicluster("env", NAME).out
    assert f"KUBECONFIG={kube.shell.env['KUBECONFIG']}" in exports.replace("'", "").replace('"', "")
    assert Path(kube.shell.env["KUBECONFIG"]).stat().st_mode & 0o077 == 0
    assert "kubelet: " in outer.minicluster("logs", "-c", NAME, "agent-1").out
    assert outer.minicluster("exec", "-c", NAME, "agent-2", "--", "hostname").out.strip() == "agent-2"
    listed = outer.minicluster("exec", "-c", NAME, "master-1", "--", "kubectl", "get", "nodes", "-o", "name").out
    assert listed.split() == ["node/agent-1", "node/agent-2"]
    assert outer.minicluster("up", "kubernetes", "--name", NAME, "-o", "json").json["changed"] is False


@conformance(
    "minicluster", "`kubeconfig --merge` makes the cluster a context among the user's own; `down` takes it out"
)
def test_merge(kube: Kube, outer: Shell, users_kubeconfig: Path) -> None:
    """The fixture of the file checks that it is removed with the cluster."""
    user = Shell(outer.env | {"KUBECONFIG": str(users_kubeconfig)})
    context = f"minicluster-{NAME}"
    said = user.minicluster("kubeconfig", "--merge", "-c", NAME).out
    assert said == f"Merged cluster {NAME} into {users_kubeconfig}; it is the current context.\n"
    assert user.run("kubectl", "--context", context, "get", "nodes", "-o", "name").out.split() == [
        f"node/{agent}" for agent in AGENTS
    ]
    assert user.run("kubectl", "auth", "can-i", "delete", "nodes").out == "yes\n"  # without a context named, too
    assert user.run("kubectl", "config", "current-context").out == f"{context}\n"
    assert set(user.run("kubectl", "config", "get-contexts", "-o", "name").out.split()) == {context, "work"}
    assert users_kubeconfig.stat().st_mode & 0o777 == 0o600
    merged = yaml.safe_load(users_kubeconfig.read_text())
    for kind in ("clusters", "users", "contexts"):
        assert OTHERS[kind][0] in merged[kind]  # type: ignore[index]


@conformance("minicluster", "`reset` leaves nothing of what users made, and the cluster still works")
def test_reset(kube: Kube, outer: Shell) -> None:
    left = kube.space("t-left")
    default = Space(kube, "default")
    for space in (left, default):
        space.create(
            workload("Deployment", "web", pod("web")),
            service("web"),
            claim("data"),
            pod("uses", volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]),
            {"kind": "ConfigMap", "metadata": {"name": "settings"}},
            {"kind": "Secret", "metadata": {"name": "login"}},
            {"kind": "ServiceAccount", "metadata": {"name": "robot"}},
        )
    kube.kubectl("create", "clusterrole", "t-role", "--verb=get", "--resource=pods")
    kube.kubectl("create", "clusterrolebinding", "t-role", "--clusterrole=t-role", "--user=jane")
    kube.kubectl("apply", "-f", "-", given=json.dumps(CRD))
    # One that is in no name space, and an object of it whose operator will never come back.
    wide = json.loads(json.dumps(CRD).replace("widget", "gauge").replace("Widget", "Gauge").replace('"wd"', '"gg"'))
    wide["spec"]["scope"] = "Cluster"
    gauge = {"apiVersion": "t.example.org/v1", "kind": "Gauge", "spec": {"size": 1}}
    gauge |= {"metadata": {"name": "g", "finalizers": ["t.example.org/x"]}}
    kube.kubectl("apply", "-f", "-", given=json.dumps(wide))
    kube.kubectl("wait", "--for=condition=Established", "crd/gauges.t.example.org")
    kube.kubectl("create", "-f", "-", given=json.dumps(gauge))
    kube.kubectl("label", "node", "agent-1", "topology.kubernetes.io/zone=t", "node-role.kubernetes.io/worker=")
    # What is in Kubernetes's own name spaces stays, and so does its volume.
    system = Space(kube, "kube-system")
    system.create(claim("t-addon"))
    bound = "jsonpath={.items[?(@.spec.claimRef.name=='t-addon')].status.phase}"
    eventually(lambda: kube.kubectl("get", "pv", "-o", bound).out == "Bound", what="a volume of kube-system's")
    everything = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"]}
    hook = {"name": "all.t.example.org", "clientConfig": {"url": "https://127.0.0.1:1/"}, "rules": [everything]}
    hook |= {"admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail"}
    default.ready("uses")
    left.ready("uses")
    kube.kubectl("cordon", "agent-1")
    kube.kubectl("delete", "storageclass", "standard")
    kube.create(
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "t-all"},
            "webhooks": [hook],
        }
    )
    since = time.monotonic()
    outer.minicluster("reset", NAME)
    took = time.monotonic() - since
    spaces = {item.metadata.name for item in kube.core.list_namespace().items}
    assert spaces == {"default", "kube-system", "kube-public", "kube-node-lease"}
    assert [pv.spec.claim_ref.name for pv in kube.core.list_persistent_volume().items] == ["t-addon"]
    assert kube.kubectl("get", "pv", "-o", bound).out == "Bound"
    system.kubectl("delete", "pvc", "t-addon")
    things = "pods,deployments,replicasets,persistentvolumeclaims,services,configmaps,secrets,serviceaccounts"
    kept = set(default.kubectl("get", things, "-o", "name").out.split())
    assert {name for name in kept if "token" not in name} <= {
        "service/kubernetes", "configmap/kube-root-ca.crt", "serviceaccount/default",
    }  # fmt: skip
    for kind in ("clusterroles", "clusterrolebindings", "crd", "validatingwebhookconfigurations", "priorityclasses"):
        names = kube.kubectl("get", kind, "-o", "name").out
        assert "t-" not in [name.partition("/")[2][:2] for name in names.split()], names
        assert "example.org" not in names
    nodes = kube.core.list_node().items
    assert not any(node.spec.unschedulable for node in nodes)
    labels = {label for node in nodes for label in node.metadata.labels}
    assert {name.removeprefix("beta.") for name in labels} == {f"kubernetes.io/{n}" for n in ("arch", "os", "hostname")}
    classes = kube.kubectl("get", "storageclass", "-o", "json").json["items"]
    assert [c["metadata"]["name"] for c in classes] == ["standard"]
    assert classes[0]["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"
    kube.kubectl("apply", "-f", "-", given=json.dumps(wide))
    kube.kubectl("wait", "--for=condition=Established", "crd/gauges.t.example.org")
    eventually(lambda: kube.kubectl("get", "gauges", "-o", "name", ok=False).code == 0, what="gauges are known")
    assert kube.kubectl("get", "gauges", "-o", "name").out == ""
    kube.kubectl("delete", "crd", "gauges.t.example.org")
    assert took < 15
    again = kube.space("t-again")
    again.create(*(pod(f"on-{name}", container("echo fine"), nodeName=name, restartPolicy="Never") for name in AGENTS))
    for name in AGENTS:
        assert again.ended(f"on-{name}").status.phase == "Succeeded"
