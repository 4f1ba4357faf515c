"""The kubernetes profile: the configuration of its nodes, by a golden file; versions, sources, refusals.

Golden files are rewritten as plans are: see test_plan.py.
"""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path

import pytest
import yaml

from minicluster.cluster import Cluster
from minicluster.engine.protocol import ExecResult
from minicluster.errors import MiniclusterError, ProfileError, UsageError
from minicluster.model.codec import encode, node_hash
from minicluster.model.deferred import readable
from minicluster.model.spec import NodeSpec, PartSpec, Spec
from minicluster.profile import parts
from tests.fakes import FakeEngine
from tests.unit.standing import AUTHORITY, spec_of

GOLDEN = Path(__file__).parent / "golden"
HIGHLY_AVAILABLE = {"kv": 3, "master": 3}
DEFAULT = "v1.37.2"
VERSIONS = [*parts.load("kubernetes").versions, "v1.35.0", "v1.37.99"]  # the last two are not listed


def node(spec: Spec, name: str) -> NodeSpec:
    found = spec.node(name)
    assert found
    return found


def content(spec: Spec, name: str, path: str) -> str:
    return next(f.content for f in node(spec, name).files if f.path == path)


def told(spec: Spec) -> str:
    """All flags and settings of one node of each role, scripts left out."""
    lines = []
    for role in spec.roles:
        first = spec.of_role(role)[0]
        for file in first.files:
            if not file.path.startswith("/usr/local/"):
                lines += [f"### {first.name} {file.path}", readable(file.content).rstrip(), ""]
    return "\n".join(lines)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_nodes_are_told_is_what_it_was_in_every_version(version: str) -> None:
    path = GOLDEN / "kubernetes_spec.txt"
    found = told(spec_of("kubernetes", set={"version": version}, **HIGHLY_AVAILABLE))
    if os.environ.get("MINICLUSTER_GOLDEN") == "write" and version == DEFAULT:
        path.write_text(found)
    assert found == path.read_text()


def test_every_file_of_settings_can_be_read() -> None:
    spec = spec_of("kubernetes")
    for file in [*node(spec, "agent-1").files, *node(spec, "master-1").files]:
        if file.path.endswith(".yaml"):
            assert all(document["kind"] for document in yaml.safe_load_all(file.content))
        elif file.path.endswith((".json", ".conflist")):
            assert json.loads(file.content)
        elif file.path.endswith(".flags"):
            assert all(line.startswith("--") for line in file.content.splitlines())


def flags(spec: Spec, name: str, program: str) -> dict[str, str]:
    lines = content(spec, name, f"/etc/kubernetes/{program}.flags").splitlines()
    return dict(line.removeprefix("--").split("=", 1) for line in lines)


def test_one_master_is_asked_by_its_address_and_holds_no_election() -> None:
    spec = spec_of("kubernetes")
    assert spec.of_role("balancer") == ()
    master = node(spec, "master-1")
    assert f"API={master.address}:6443\n" in content(spec, "agent-1", "/etc/kubernetes/node.env")
    assert flags(spec, "master-1", "kube-scheduler")["leader-elect"] == "false"


def test_several_masters_are_asked_through_a_balancer_and_elect_a_leader() -> None:
    spec = spec_of("kubernetes", **HIGHLY_AVAILABLE)
    first = next(n for n, e in spec.endpoints() if e.name == "api")
    assert first.name == "balancer-1"
    for name in ("balancer-1", "agent-1"):
        balancing = content(spec, name, "/etc/haproxy/haproxy.cfg")
        assert all(f"server {m.name} {m.address}:6443" in balancing for m in spec.of_role("master"))
    assert "API=127.0.0.1:6443\n" in content(spec, "agent-1", "/etc/kubernetes/node.env")
    assert "bind *:6443" in content(spec, "balancer-1", "/etc/haproxy/haproxy.cfg")
    assert flags(spec, "master-2", "kube-controller-manager")["leader-elect"] == "true"
    servers = flags(spec, "master-3", "kube-apiserver")["etcd-servers"]
    assert servers == ",".join(f"https://{n.address}:2379" for n in spec.of_role("kv"))


def test_the_address_in_front_of_a_master_is_in_its_certificate() -> None:
    """The balancer passes TLS on, so what clients see under its address and its name is a master's certificate."""
    spec = spec_of("kubernetes", **HIGHLY_AVAILABLE)
    for master in spec.of_role("master"):
        served = next(c for c in master.certificates if c.common_name == "kube-apiserver")
        assert {n.address for n, e in spec.endpoints() if e.name == "api" and n.role == "balancer"} <= {
            *served.addresses
        }
        assert {node(spec, "balancer-1").name, master.name} <= {*served.names}


def test_what_is_disabled_has_no_objects() -> None:
    def files(**set: str) -> list[str]:
        return [f.path for f in node(spec_of("kubernetes", set=set), "master-1").files if "/addons" in f.path]

    off = {
        "coredns": "/etc/kubernetes/addons/coredns.yaml",
        "load-balancer": "/etc/kubernetes/addons-later/load-balancer.yaml",
        "metrics": "/etc/kubernetes/addons-later/metrics-server.yaml",
        "network-policy": "/etc/kubernetes/addons/network-policy.yaml",
    }
    for name, path in off.items():
        assert set(files()) - set(files(disable=name)) == {path}
    assert files(disable=",".join(off)) == ["/etc/kubernetes/addons/storage-class.json"]
    with pytest.raises(ProfileError, match="--set disable=dns: disable must be a list of coredns"):
        spec_of("kubernetes", set={"disable": "dns"})


def test_agents_without_a_load_balancer_and_policies() -> None:
    def agent(**set: str) -> dict[str, str]:
        return {f.path: f.content for f in node(spec_of("kubernetes", set=set), "agent-1").files}

    usual, without = agent(), agent(disable="load-balancer,network-policy")
    env, plugins = "/etc/kubernetes/node.env", "/etc/cni/net.d/10-pods.conflist"
    assert "POLICIES=yes" in usual[env]
    assert re.search(r"^LOAD_BALANCERS=[\d.]+\.192/27$", usual[env], re.M)
    assert [p["type"] for p in json.loads(usual[plugins])["plugins"]] == ["bridge", "portmap", "network-policy"]
    assert not re.search("POLICIES|LOAD_BALANCERS", without[env])
    assert [p["type"] for p in json.loads(without[plugins])["plugins"]] == ["bridge", "portmap"]


def test_a_network_of_the_users() -> None:
    files = {f.path: f.content for f in node(spec_of("kubernetes", set={"cni": "none"}), "agent-1").files}
    assert "/etc/cni/net.d/10-pods.conflist" not in files
    assert "CNI=none" in files["/etc/kubernetes/node.env"]
    assert "POLICIES" not in files["/etc/kubernetes/node.env"]
    with pytest.raises(ProfileError, match="cni must be bridge or none"):
        spec_of("kubernetes", set={"cni": "flannel"})


@pytest.mark.parametrize("name", ["pod_subnet", "service_subnet"])
def test_subnets_are_ipv4(name: str) -> None:
    with pytest.raises(ProfileError, match=f"{name} must be an IPv4 subnet .* no IPv6"):
        spec_of("kubernetes", set={name: "fd00:10:244::/56"})


def test_audit_policy_and_admission() -> None:
    def master(**set: str) -> dict[str, str]:
        return {f.path: f.content for f in node(spec_of("kubernetes", set=set), "master-1").files}

    flags, audit, admission = (
        f"/etc/kubernetes/{name}" for name in ("kube-apiserver.flags", "audit-policy.yaml", "admission.yaml")
    )
    assert not {audit, admission} & {*master()}
    found = master(audit_policy="{kind: Policy, rules: [{level: Metadata}]}", admission="{plugins: []}")
    assert yaml.safe_load(found[audit]) == {
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]
    }  # fmt: skip
    assert yaml.safe_load(found[admission]) == {
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": []
    }  # fmt: skip
    assert {f"--audit-policy-file={audit}", f"--admission-control-config-file={admission}"} <= {
        *found[flags].splitlines()
    }


def test_configuration_of_kube_proxy_is_merged() -> None:
    def proxy(**set: str) -> dict[str, object]:
        files = {f.path: f.content for f in node(spec_of("kubernetes", set=set), "agent-1").files}
        found: dict[str, object] = yaml.safe_load(files["/etc/kubernetes/kube-proxy.yaml"])
        return found

    usual = proxy()
    assert proxy(kube_proxy="{mode: nftables, portRange: 30000-31000}") == {
        **usual, "mode": "nftables", "portRange": "30000-31000"
    }  # fmt: skip
    assert usual["mode"] == "iptables"
    with pytest.raises(ProfileError, match="arguments must be a mapping with the keys kube-apiserver"):
        spec_of("kubernetes", set={"arguments.kube-proxy.v": "3"})


def test_the_first_agent_is_for_ingress_controllers() -> None:
    def labels(name: str, **set: str) -> dict[str, str]:
        files = {f.path: f.content for f in node(spec_of("kubernetes", set=set), name).files}
        return dict(json.loads(files["/etc/kubernetes/node.json"])["labels"])

    assert labels("agent-1") == {"ingress-ready": "true"}
    assert labels("agent-2") == labels("master-1") == {}
    assert labels("agent-1", **{"node_labels.disk": "ssd"}) == {"ingress-ready": "true", "disk": "ssd"}


def test_subnets_that_overlap_are_refused() -> None:
    with pytest.raises(
        ProfileError, match=r"service_subnet 10\.244\.0\.0/16 overlaps with pod_subnet, 10\.244\.0\.0/16"
    ):
        spec_of("kubernetes", set={"service_subnet": "10.244.0.0/16"})
    with pytest.raises(ProfileError, match=r"pod_subnet 172\.28\.0\.0/16 overlaps with the cluster's own"):
        spec_of("kubernetes", set={"pod_subnet": "172.28.0.0/16"})
    with pytest.raises(ProfileError, match="pod_subnet must be a subnet"):
        spec_of("kubernetes", set={"pod_subnet": "10.300.0.0/16"})


def test_settings_of_components() -> None:
    spec = spec_of(
        "kubernetes",
        set={
            "feature_gates": "{A: true, B: false}",
            "runtime_config.api/alpha": "true",
            "arguments": "{kube-apiserver: {v: 4, profiling: false}}",
            "kubelet.maxPods": "50",
        },
    )
    server = flags(spec, "master-1", "kube-apiserver")
    assert (server["feature-gates"], server["runtime-config"]) == ("A=true,B=false", "api/alpha=true")
    assert (server["v"], server["profiling"]) == ("4", "false")
    assert flags(spec, "agent-1", "kubelet")["feature-gates"] == "A=true,B=false"
    merged = yaml.safe_load(content(spec, "agent-1", "/etc/kubernetes/kubelet.conf.d/50-settings.conf"))
    assert merged["maxPods"] == 50
    assert "STRICT=yes" in content(spec, "agent-1", "/etc/kubernetes/node.env")
    assert "STRICT" not in content(spec_of("kubernetes"), "agent-1", "/etc/kubernetes/node.env")


def test_an_agent_more_is_no_news_to_the_others() -> None:
    before = spec_of("kubernetes")
    after = spec_of("kubernetes", previous=before, agent=5)
    for name in ("kv-1", "master-1", "agent-1", "agent-2"):
        assert node_hash(before, node(before, name), AUTHORITY) == node_hash(after, node(after, name), AUTHORITY)


def test_the_store_accepts_no_certificate_of_the_clusters_authority() -> None:
    spec = spec_of("kubernetes")
    (store,) = node(spec, "kv-1").certificates
    issuers = {c.directory.rpartition("/")[2]: c.issuer for c in node(spec, "master-1").certificates}
    assert store.issuer == issuers["etcd"] == "etcd"
    assert {name for name, issuer in issuers.items() if not issuer} == {
        "apiserver", "kubelet-client", "controller-manager", "scheduler", "admin"
    }  # fmt: skip
    assert not any(c.issuer for c in node(spec, "agent-1").certificates)


def test_a_kubelet_is_who_the_node_authorizer_takes_it_for() -> None:
    kubelet = node(spec_of("kubernetes"), "agent-2").certificates[0]
    assert (kubelet.common_name, kubelet.organization) == ("system:node:agent-2", "system:nodes")


def test_keys_are_readable_by_root_alone() -> None:
    modes = {f.path: f.mode for f in node(spec_of("kubernetes"), "master-1").files}
    assert modes["/etc/kubernetes/service-account.pem"] == 0o600


def test_the_users_kubeconfig_is_whole(kubernetes: FakeEngine) -> None:
    cluster = Cluster.up("kubernetes", engine=kubernetes)
    config = yaml.safe_load(Path(cluster.env()["KUBECONFIG"]).read_text())
    assert config["current-context"] == "minicluster-kubernetes"
    assert config["clusters"][0]["cluster"]["server"] == cluster.endpoint("api").url
    user = config["users"][0]["user"]
    assert base64.b64decode(user["client-key-data"]).startswith(b"-----BEGIN PRIVATE KEY-----")


def test_the_spec_of_a_large_cluster_fits_into_a_label() -> None:
    assert len(encode(spec_of("kubernetes", agent=20, kv=5, master=5))) < 65536


@pytest.fixture
def kubernetes() -> FakeEngine:
    """An engine in whose masters every member is a ready one."""
    engine = FakeEngine()
    members = ("kv-1", "master-1", "agent-1", "agent-2")
    said = "".join(f'{{"name": "{name}", "ready": true}}\n' for name in members)
    engine.answers["kube-members"] = ExecResult(0, said, "")
    return engine


# What users have published

SAID = """\
{"name": "default/web", "node": "agent-2", "address": "172.28.0.192", "port": 80, "protocol": "tcp", "at": "service2"}
{"name": "default/dns", "node": "agent-1", "address": "172.28.0.193", "port": 53, "protocol": "udp"}
"""


@pytest.mark.parametrize("local", [True, False])
def test_services_are_listed_by_address_and_by_published_port(kubernetes: FakeEngine, local: bool) -> None:
    kubernetes.local = local
    kubernetes.answers["kube-services"] = ExecResult(0, SAID, "")
    cluster = Cluster.up("kubernetes", engine=kubernetes)
    ports = {e.name: e.host_port for _n, e in cluster.spec.endpoints() if not e.url}
    assert list(ports) == ["service1", "service2", "service3", "service4"]
    direct, published = ("agent-2", "tcp://172.28.0.192:80"), ("master-1", f"tcp://127.0.0.1:{ports['service2']}")
    web = [direct, published] if local else [published, direct]
    assert [(e.node, e.url) for e in cluster.endpoints("default/web")] == web
    assert cluster.endpoint("default/web").url == web[0][1]
    asked = len(kubernetes.did("exec"))
    assert [e.name for e in cluster.endpoints()] == ["api"]
    assert len(kubernetes.did("exec")) == asked  # the cluster's own ports are known without
    assert [e.name for e in cluster.info().endpoints] == ["api", "default/web", "default/web", "default/dns"]
    assert [e.name for e in cluster.info(published=False).endpoints] == ["api"]
    with pytest.raises(UsageError, match="cluster kubernetes has no endpoint 'default/wep'"):
        cluster.endpoint("default/wep")


def test_a_master_that_does_not_say_what_is_published(kubernetes: FakeEngine) -> None:
    kubernetes.answers["kube-services"] = ExecResult(1, "", "kube-services: the API server does not answer: refused\n")
    cluster = Cluster.up("kubernetes", engine=kubernetes)
    info = cluster.info()
    assert [e.name for e in info.endpoints] == ["api"]
    assert any("the API server does not answer: refused" in note for note in info.notes)
    with pytest.raises(MiniclusterError, match="no master says what is published in cluster kubernetes"):
        cluster.endpoint("default/web")


@pytest.mark.parametrize("said", ["rubbish", "{}", '{"name": "a/b"}', "[1]"])
def test_a_master_that_says_something_else_breaks_nothing(kubernetes: FakeEngine, said: str) -> None:
    kubernetes.answers["kube-services"] = ExecResult(0, said, "")
    info = Cluster.up("kubernetes", engine=kubernetes).info()
    assert [e.name for e in info.endpoints] == ["api"]
    assert any("no master says what is published in cluster kubernetes: " in note for note in info.notes)


# Versions, and where the programs are from


def part(spec: Spec, name: str = "kubernetes") -> PartSpec:
    return next(part for image in spec.images.values() for part in image.parts if part.name == name)


@pytest.mark.parametrize(
    ("wanted", "version", "etcd"),
    [
        ("", DEFAULT, "v3.7.3"),
        ("v1", DEFAULT, "v3.7.3"),
        ("1.37", DEFAULT, "v3.7.3"),
        ("v1.36", "v1.36.3", "v3.6.16"),
        ("v1.35.4", "v1.35.4", "v3.6.16"),
    ],
)
def test_a_version_comes_with_its_etcd(wanted: str, version: str, etcd: str) -> None:
    spec = spec_of("kubernetes", set={"version": wanted} if wanted else {})
    assert (part(spec).version, part(spec, "etcd").version) == (version, etcd)
    assert spec.programs["kubectl"].version == version


def test_parts_of_the_users_choice() -> None:
    spec = spec_of("kubernetes", set={"version": "v1.36", "etcd.version": "3.7", "kubernetes.source": "go"})
    assert part(spec, "etcd").version == "v3.7.3"
    assert (part(spec).version, part(spec).source) == ("v1.36.3", "go")
    assert {p.name for p in spec.images["node"].parts} == {
        "kubernetes", "containerd", "runc", "cni-plugins", "coredns", "metrics-server", "kube-router"
    }  # fmt: skip


def test_a_file_need_not_stay_once_nodes_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("k.tar.gz").write_bytes(b"programs")
    set = {"version": "v1.33.2", "kubernetes.source": "./k.tar.gz"}  # a file may be of any version
    before = spec_of("kubernetes", set=set)
    Path("k.tar.gz").unlink()
    after = spec_of("kubernetes", previous=before, set=set, agent=5)
    assert after.images == before.images
    with pytest.raises(UsageError, match=r"cannot read .*/k\.tar\.gz"):
        spec_of("kubernetes", set=set)


def test_a_file_that_is_gone_with_the_image_that_was_made_of_it(kubernetes: FakeEngine, tmp_path: Path) -> None:
    file = tmp_path / "k.tar.gz"
    file.write_bytes(b"programs")
    cluster = Cluster.up("kubernetes", set={"kubernetes.source": str(file)}, engine=kubernetes)
    file.unlink()
    kubernetes.missing |= {cluster.spec.images["node"].ref, part(cluster.spec).ref}
    with pytest.raises(UsageError, match="cannot read") as caught:
        Cluster.up("kubernetes", size={"agent": 3}, engine=kubernetes)
    assert str(file) in caught.value.what


# What it refuses


@pytest.mark.parametrize("version", ["1.20.2", "v1.34.9", "v1.38.0", "v2.0.0", "latest", "v1.33", "v1.36.x"])
def test_a_version_that_it_has_no_flags_for(version: str) -> None:
    with pytest.raises(UsageError, match=f"--set version={version}: kubernetes {version} is not supported") as caught:
        spec_of("kubernetes", set={"version": version})
    assert "v1.37.2, v1.36.3, v1.35.4" in caught.value.why


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("debian", "kubernetes has no source debian"),
        ("tarball", "'tarball' is not a source of kubernetes"),
        ("/nowhere", "cannot read /nowhere"),
        ("/etc", "cannot read /etc"),
        ("http://downloads.example.org/k.tar.gz", "only https is accepted"),
    ],
)
def test_a_source_that_is_none(source: str, what: str) -> None:
    with pytest.raises(UsageError, match=f"--set kubernetes.source={source}: {what}"):
        spec_of("kubernetes", set={"kubernetes.source": source})


@pytest.mark.parametrize("setting", ["tarball", "download"])
def test_settings_that_it_had(setting: str) -> None:
    with pytest.raises(UsageError, match=f"unknown key '{setting}'"):
        spec_of("kubernetes", set={setting: "x"})


@pytest.mark.parametrize("size", [{"master": 2}, {"kv": 2}, {"kv": 7}, {"master": 4}, {"master": 0}, {"balancer": 2}])
def test_counts_that_make_no_sense(size: dict[str, int]) -> None:
    with pytest.raises(ProfileError):
        spec_of("kubernetes", **size)


def test_another_number_of_masters_once_it_is_formed(kubernetes: FakeEngine) -> None:
    Cluster.up("kubernetes", engine=kubernetes)
    with pytest.raises(UsageError, match="and that cannot change"):
        Cluster.up("kubernetes", size={"master": 3}, engine=kubernetes)


@pytest.mark.parametrize("setting", ["version", "kubernetes.version"])
def test_another_release_once_it_is_formed(kubernetes: FakeEngine, setting: str) -> None:
    Cluster.up("kubernetes", engine=kubernetes)
    Cluster.up("kubernetes", set={setting: "v1.37"}, engine=kubernetes)  # the one that it has
    with pytest.raises(
        UsageError, match=r"kubernetes v1\.37\.2 in cluster kubernetes cannot become v1\.36\.3"
    ) as refused:
        Cluster.up("kubernetes", set={setting: "v1.36"}, engine=kubernetes)
    assert refused.value.why == "The version of kubernetes is chosen when a cluster is created."
    assert refused.value.fix == "Keep it (--set version=v1.37.2), or create another cluster with --name."


def test_another_etcd_once_it_is_formed(kubernetes: FakeEngine) -> None:
    Cluster.up("kubernetes", engine=kubernetes)
    with pytest.raises(UsageError, match=r"etcd v3\.7\.3 in cluster kubernetes cannot become v3\.6\.16"):
        Cluster.up("kubernetes", set={"etcd.version": "3.6"}, engine=kubernetes)


@pytest.mark.parametrize(("setting", "value"), [("grace", "40"), ("status_period", "1"), ("eviction", "5s")])
def test_a_time_without_its_unit_or_with_one_that_it_must_not_have(setting: str, value: str) -> None:
    with pytest.raises(ProfileError, match=f"--set {setting}={value}"):
        spec_of("kubernetes", set={setting: value})


def test_an_image_needs_a_node_that_holds_it(kubernetes: FakeEngine) -> None:
    kubernetes.answers["kube-members"] = ExecResult(
        0, '{"name": "kv-1", "ready": true}\n{"name": "master-1", "ready": true}\n', ""
    )
    cluster = Cluster.up("kubernetes", size={"agent": 0}, engine=kubernetes)
    with pytest.raises(UsageError, match="no node that accepts images") as caught:
        cluster.load("x")
    assert "minicluster scale agent=1" in caught.value.fix
