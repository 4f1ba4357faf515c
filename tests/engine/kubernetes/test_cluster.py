"""Conformance: the cluster, and minicluster's own commands on it."""

from __future__ import annotations

import json
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.engine.conftest import Shell, eventually
from tests.engine.kubernetes.kube import (
    AGENTS,
    CRD,
    Kube,
    Manifest,
    Space,
    claim,
    conformance,
    container,
    pod,
    service,
    workload,
)

#: The user's kubeconfig has another cluster.
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
    """The user's own kubeconfig. A test merges the cluster into it; after `down` it has its former content."""
    file = tmp_path_factory.mktemp("user") / "config"
    file.touch(0o600)
    file.write_text(yaml.safe_dump(OTHERS))
    yield file
    assert yaml.safe_load(file.read_text()) == OTHERS


@pytest.fixture(scope="module")
def kube(users_kubeconfig: Path, kube: Kube) -> Kube:
    """The cluster, which is taken down before the content of the user's kubeconfig is checked."""
    return kube


# --- the nodes


@conformance("Cluster", "every agent is a Ready node under its name and address, and of the cluster's version")
def test_nodes_are_ready(kube: Kube) -> None:
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


@conformance("Cluster", "`/readyz?verbose` and `kubectl get componentstatuses` find nothing wrong")
def test_health(kube: Kube) -> None:
    said = kube.kubectl("get", "--raw", "/readyz?verbose").out
    assert said.endswith("readyz check passed\n")
    assert all(line.startswith("[+]") for line in said.splitlines()[:-1])
    parts = kube.kubectl("get", "componentstatuses", "--no-headers").out.splitlines()
    assert {line.split()[0]: line.split()[1] for line in parts} == {
        "controller-manager": "Healthy", "scheduler": "Healthy", "etcd-0": "Healthy"
    }  # fmt: skip


@pytest.mark.long
@conformance("Cluster", "a fresh cluster has no event of a failure, and no error again and again in its logs")
def test_a_fresh_cluster_is_quiet(kube: Kube, outer: Shell) -> None:
    begun = time.monotonic()
    eventually(lambda: kube.kubectl("top", "nodes", ok=False).code == 0, within=180, what="all of it has started")
    settled = len(outer.minicluster("logs", "-c", kube.cluster, timeout=60).out.splitlines())
    eventually(lambda: time.monotonic() > begun + 60, within=90, what="a minute later")
    events = kube.kubectl("get", "events", "--all-namespaces").out
    # What starts before what it needs fails once or twice. Nothing does so for longer.
    counts = kube.core.list_event_for_all_namespaces(field_selector="type=Warning").items
    assert [f"{e.reason}: {e.message}" for e in counts if (e.count or 1) > 5] == [], events
    later = outer.minicluster("logs", "-c", kube.cluster, timeout=60).out.splitlines()[settled:]
    errors = [line for line in later if re.search(r"(kube\S+|kubelet): [EF]\d{4} |level=(error|fatal)|\bpanic", line)]
    assert errors == []


@pytest.mark.long
@conformance("Cluster", "`kubectl debug node/...` shows the agent's files and processes")
def test_debug_node(kube: Kube, space: Space) -> None:
    script = "cat /host/etc/hostname; ps | grep -c [k]ubelet; chroot /host crictl version >/dev/null 2>&1; echo done"
    given = ("debug", "node/agent-1", "--image", "localhost/minicluster/demo:1", "--profile", "sysadmin")
    space.kubectl(*given, "--", "sh", "-c", script)
    (made,) = eventually(lambda: space.pods())
    assert space.ended(made.metadata.name).status.phase == "Succeeded"
    said = space.log(made.metadata.name).split()
    assert (said[0], said[-1]) == ("agent-1", "done")
    assert int(said[1]) >= 1


@pytest.mark.long
@conformance("Cluster", "`kubectl drain` moves pods to other agents; `kubectl get events` tells of it")
def test_drain(kube: Kube, space: Space) -> None:
    template = pod("web", affinity=spread("web"))
    space.create(workload("Deployment", "web", template, replicas=2))
    space.several(2, "app=web")
    try:
        kube.kubectl("drain", "agent-2", "--ignore-daemonsets", "--delete-emptydir-data", "--force", timeout=120)
        assert {found.spec.node_name for found in space.several(2, "app=web")} == {"agent-1"}
        assert "NodeNotSchedulable" in kube.kubectl("get", "events", "--namespace", "default").out
    finally:
        kube.kubectl("uncordon", "agent-2")


def spread(app: str) -> Manifest:
    term = {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": "kubernetes.io/hostname"}
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}


@conformance("Cluster", "requests without a certificate or with a wrong token get 401 or 403")
def test_unauthenticated_requests_are_refused(kube: Kube) -> None:
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


# --- minicluster's own commands


@conformance("minicluster", "`load` copies an image of the engine to every agent, and pods run it")
def test_load(kube: Kube, outer: Shell, space: Space) -> None:
    image = "t-load-kubernetes:1"
    try:
        outer.run("bash", "-c", f"docker cp -L {kube.cluster}-agent-1:/bin/busybox - | docker import - {image}")
        outer.minicluster("load", image, "-c", kube.cluster)
        main = {"name": "main", "image": image, "imagePullPolicy": "Never", "command": ["/busybox", "echo", "loaded"]}
        space.create(*(pod(f"on-{name}", main, nodeName=name, restartPolicy="Never") for name in AGENTS))
        for name in AGENTS:
            assert space.ended(f"on-{name}").status.phase == "Succeeded"
            assert space.log(f"on-{name}") == "loaded\n"
        assert outer.minicluster("load", image, "-c", kube.cluster).out == f"{image}: already there in 2 nodes.\n"
        outer.docker("tag", image, f"{image}b")
        renamed = outer.minicluster("load", f"{image}b", "-c", kube.cluster).out
        assert renamed == f"{image}b: already there, tagged in 2 nodes.\n"
        main["image"] = f"{image}b"
        space.create(pod("renamed", main, nodeName="agent-1", restartPolicy="Never"))
        assert space.ended("renamed").status.phase == "Succeeded"
    finally:
        outer.docker("rmi", "-f", image, f"{image}b", ok=False)


@conformance("minicluster", "`status`, `info`, `env`, `logs` and `exec` report on the cluster")
def test_commands(kube: Kube, outer: Shell) -> None:
    status = outer.minicluster("status", kube.cluster, "-o", "json").json
    assert (status["cluster"], status["profile"], status["phase"]) == (kube.cluster, "kubernetes", "ready")
    nodes = {node["name"]: node for node in status["nodes"]}
    assert list(nodes) == ["kv-1", "master-1", "agent-1", "agent-2"]
    assert all(node["ready"] and node["phase"] == "running" for node in nodes.values())
    kube.kubectl("cordon", "agent-2")
    try:
        eventually(
            lambda: "cordoned" in outer.minicluster("status", kube.cluster).out,
            what="an agent is shown as cordoned",
        )
    finally:
        kube.kubectl("uncordon", "agent-2")
    info = outer.minicluster("info", kube.cluster, "-o", "json").json
    (api,) = info["endpoints"]
    assert (api["name"], api["node"], api["url"]) == ("api", "master-1", kube.api.configuration.host)
    assert info["demo_image"] == "localhost/minicluster/demo:1"
    exports = outer.minicluster("env", kube.cluster).out
    assert f"KUBECONFIG={kube.shell.env['KUBECONFIG']}" in exports.replace("'", "").replace('"', "")
    assert Path(kube.shell.env["KUBECONFIG"]).stat().st_mode & 0o077 == 0
    assert "kubelet: " in outer.minicluster("logs", "-c", kube.cluster, "agent-1").out
    assert outer.minicluster("exec", "-c", kube.cluster, "agent-2", "--", "hostname").out.strip() == "agent-2"
    listed = outer.minicluster(
        "exec", "-c", kube.cluster, "master-1", "--", "kubectl", "get", "nodes", "-o", "name"
    ).out
    assert listed.split() == ["node/agent-1", "node/agent-2"]
    assert outer.minicluster("up", "kubernetes", "--name", kube.cluster, "-o", "json").json["changed"] is False


@conformance(
    "minicluster", "`kubeconfig --merge` adds the cluster as a context to the user's kubeconfig; `down` removes it"
)
def test_merge(kube: Kube, outer: Shell, users_kubeconfig: Path) -> None:
    """The fixture of the file checks that `down` removes it."""
    user = Shell(kube.shell.env | {"KUBECONFIG": str(users_kubeconfig)})
    context = f"minicluster-{kube.cluster}"
    said = user.minicluster("kubeconfig", "--merge", "-c", kube.cluster).out
    assert said == f"Merged cluster {kube.cluster} into {users_kubeconfig}; it is the current context.\n"
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


@conformance("minicluster", "`reset` removes everything that users made, and the cluster still works")
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
    # A cluster-wide kind, and an object of it whose finalizer nobody removes.
    wide = json.loads(json.dumps(CRD).replace("widget", "gauge").replace("Widget", "Gauge").replace('"wd"', '"gg"'))
    wide["spec"]["scope"] = "Cluster"
    gauge = {"apiVersion": "t.example.org/v1", "kind": "Gauge", "spec": {"size": 1}}
    gauge |= {"metadata": {"name": "g", "finalizers": ["t.example.org/x"]}}
    kube.kubectl("apply", "-f", "-", given=json.dumps(wide))
    kube.kubectl("wait", "--for=condition=Established", "crd/gauges.t.example.org")
    kube.kubectl("create", "-f", "-", given=json.dumps(gauge))
    kube.kubectl("label", "node", "agent-1", "topology.kubernetes.io/zone=t", "node-role.kubernetes.io/worker=")
    # What is in Kubernetes's own namespaces stays, its volume included.
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
    outer.minicluster("reset", kube.cluster)
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
    own = {"ingress-ready", *(f"kubernetes.io/{n}" for n in ("arch", "os", "hostname"))}
    assert {name.removeprefix("beta.") for name in labels} == own
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
