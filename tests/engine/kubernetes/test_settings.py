"""What users of kind expect to set: gates, APIs, flags, the kubelet's configuration, subnets, labels, taints, sizes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.engine.conftest import Shell, eventually, remains
from tests.engine.kubernetes.kubelife import Kube, pod

pytestmark = pytest.mark.long

NAME = "t-kube-settings"
SETTINGS = (
    "feature_gates={ContainerStopSignals: true}",
    "runtime_config={api/alpha: true}",
    "arguments={kube-apiserver: {v: 3}, kube-scheduler: {v: 3}}",
    'kubelet={maxPods: 33, allowedUnsafeSysctls: ["net.core.*"]}',
    "node_labels={ingress-ready: 'true'}",
    "node_taints=[{key: own, value: x, effect: PreferNoSchedule}]",
    "pod_subnet=10.50.0.0/16",
    "service_subnet=10.51.0.0/16",
    "disable=metrics",
    "audit_policy={rules: [{level: Metadata, resources: [{group: '', resources: [configmaps]}]}, {level: None}]}",
    "admission={plugins: [{name: PodSecurity, configuration: {apiVersion: pod-security.admission.config.k8s.io/v1,"
    " kind: PodSecurityConfiguration, defaults: {enforce: baseline},"
    " exemptions: {namespaces: [default, kube-system]}}}]}",
    "kube_proxy={mode: nftables}",
    "roles.agent.memory=1GiB",
    "roles.agent.cpus=1.5",
)


@pytest.fixture(scope="module")
def kube(outer: Shell) -> Iterator[Kube]:
    given = [word for setting in SETTINGS for word in ("--set", setting)]
    try:
        outer.minicluster("up", "kubernetes", "--name", NAME, "--size", "agent=1", *given, timeout=900)
        yield Kube(outer, NAME)
    finally:
        outer.minicluster("down", NAME, ok=False)
    assert remains(outer, NAME) == {}


def test_agents_are_as_the_settings_say(kube: Kube) -> None:
    def agent() -> None:
        node = kube.get("node", "agent-1")
        assert node["metadata"]["labels"]["ingress-ready"] == "true"
        assert {"key": "own", "value": "x", "effect": "PreferNoSchedule"} in node["spec"]["taints"]
        assert node["spec"]["podCIDR"] == "10.50.1.0/24"

    agent()
    status = kube.get("node", "agent-1")["status"]
    assert status["capacity"]["memory"] == "1Gi"
    assert status["allocatable"]["cpu"] == "1500m"
    assert status["allocatable"]["pods"] == "33"
    kube.kubectl("label", "node", "agent-1", "ingress-ready-", "mine=1")
    kube.kubectl("taint", "node", "agent-1", "own-")
    kube.outer.minicluster("reset", NAME, timeout=300)
    agent()
    assert "mine" not in kube.get("node", "agent-1")["metadata"]["labels"]


def test_the_scheduler_goes_by_the_size_of_an_agent(kube: Kube) -> None:
    big = pod("big", "agent-1")
    big["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1600m"}}
    kube.apply(big)
    eventually(lambda: "Insufficient cpu" in kube.kubectl("describe", "pod", "big").out)
    kube.kubectl("delete", "pod", "big")


def test_subnets_gates_apis_and_flags(kube: Kube) -> None:
    assert kube.get("service", "kubernetes")["spec"]["clusterIP"] == "10.51.0.1"
    assert kube.get("service", "--namespace", "kube-system", "kube-dns")["spec"]["clusterIP"] == "10.51.0.10"
    assert any("alpha" in version for version in kube.kubectl("api-versions").out.split())
    enabled = 'kubernetes_feature_enabled{name="ContainerStopSignals",stage="ALPHA"} 1'
    assert enabled in kube.kubectl("get", "--raw", "/metrics").out
    processes = kube.outer.docker("exec", f"{NAME}-master-1", "ps", "-eo", "args").out.splitlines()
    assert any("kube-scheduler" in line and line.endswith("--v=3") for line in processes)
    names = {one["metadata"]["name"] for one in kube.get("deployments", "--namespace", "kube-system")}
    assert names == {"coredns"}


def test_services_by_nftables(kube: Kube) -> None:
    kube.furnish("agent-1")
    kube.canary("agent-1", "agent-1")
    rules = kube.outer.docker("exec", f"{NAME}-agent-1", "nft", "list", "table", "ip", "kube-proxy").out
    assert "chain services" in rules
    assert "KUBE-SERVICES" not in kube.outer.docker("exec", f"{NAME}-agent-1", "iptables-save").out
    # What nobody serves is refused in the node here, too.
    address = kube.get("service", "kubernetes")["spec"]["clusterIP"]
    said = kube.outer.docker("exec", f"{NAME}-agent-1", "curl", "-sS", "-m", "5", f"http://{address}:81/", ok=False)
    assert "Could not connect" in said.err


def test_the_audit_policy_says_what_is_recorded(kube: Kube) -> None:
    kube.kubectl("create", "configmap", "audited")

    def recorded() -> list[str]:
        log = kube.outer.docker("exec", f"{NAME}-master-1", "cat", "/var/log/kubernetes/audit.log", ok=False).out
        events = [json.loads(line) for line in log.splitlines()]
        assert {one["objectRef"]["resource"] for one in events} <= {"configmaps"}
        return [one["verb"] for one in events if one["objectRef"].get("name") == "audited"]

    eventually(lambda: "create" in recorded(), what="the request is in the log")


def test_admission_plugins_are_configured(kube: Kube) -> None:
    refused = kube.kubectl(
        "run",
        "all",
        "--namespace",
        "kube-public",
        "--image",
        "localhost/minicluster/demo:1",
        "--privileged",
        "--dry-run=server",
        ok=False,
    )
    assert 'violates PodSecurity "baseline:latest": privileged' in refused.err


def test_an_unsafe_sysctl_that_the_kubelet_allows(kube: Kube) -> None:
    asks = pod("sysctl", "agent-1")
    asks["spec"]["securityContext"] = {"sysctls": [{"name": "net.core.somaxconn", "value": "77"}]}
    kube.apply(asks)
    eventually(lambda: kube.inside("sysctl", "cat /proc/sys/net/core/somaxconn", ok=False).out == "77\n")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("feature_gates={NoSuchGate: true}", "unrecognized feature gate: NoSuchGate"),
        ("arguments={kube-apiserver: {no-such-flag: 1}}", "unknown flag: --no-such-flag"),
        ("kubelet={maxPods: many}", "cannot unmarshal string into Go struct field KubeletConfiguration.maxPods"),
        ("arguments={kube-proxy: {v: 3}}", "arguments must be a mapping with the keys kube-apiserver,"),
        ("audit_policy={rules: [{level: Everything}]}", r"Unsupported value: \"Everything\""),
        ("admission={kind: NoSuchKind}", "NoSuchKind"),
        ("service_subnet=fd00:10:96::/112", "the networks of clusters have no IPv6"),
        ("cni=flannel", "cni must be bridge or none"),
        ("service_subnet=10.244.0.0/16", "service_subnet 10.244.0.0/16 overlaps with pod_subnet, 10.244.0.0/16"),
        ("disable=ingress", "disable must be a list of coredns, load-balancer, metrics and network-policy"),
    ],
)
def test_what_a_component_does_not_accept_is_told_in_its_words(outer: Shell, given: str, said: str) -> None:
    name = f"{NAME}-bad"
    answer = outer.minicluster(
        "up", "kubernetes", "--name", name, "--size", "agent=1", "--set", given, ok=False, timeout=120
    )
    assert answer.code != 0
    assert said in answer.err
    assert remains(outer, name) == {}
