"""The programs of the kubernetes profile, on what the API server of a real cluster in use answered."""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.scripts.conftest import DATA, PROFILES, Node
from tests.unit.standing import spec_of

Program = Callable[[str, str], ModuleType]


def recorded(name: str) -> Any:
    return json.loads((DATA / "kubernetes" / f"{name}.json").read_text())


@pytest.fixture
def reset(program: Program) -> ModuleType:
    return program("kubernetes", "kube-reset")


@pytest.fixture
def members(program: Program) -> ModuleType:
    return program("kubernetes", "kube-members")


def kinds(reset: ModuleType) -> dict[str, Any]:
    names = ("core", "apps", "rbac", "example")
    return {kind.name: kind for name in names for kind in reset.kinds(recorded(f"resources-{name}"))}


def users(reset: ModuleType, kind: str, name: str) -> list[str]:
    """The paths of users' objects in a recorded list."""
    found = kinds(reset).get(kind) or reset.Kind(f"/apis/x/v1/{kind}", kind, False)
    return [found.path_of(i["metadata"]) for i in recorded(name)["items"] if reset.is_users(found, i)]


def test_each_group_is_asked_in_its_preferred_version(reset: ModuleType) -> None:
    groups = reset.groups(recorded("apis"))
    assert {"/api/v1", "/apis/apps/v1", "/apis/example.org/v1"} <= set(groups)
    assert len(groups) == len(set(groups)) == len(recorded("apis")["groups"]) + 1


def test_kinds_that_users_create_objects_of(reset: ModuleType) -> None:
    defined = {
        f"{crd['spec']['group']}/{crd['spec']['names']['plural']}"
        for crd in recorded("customresourcedefinitions")["items"]
    }
    assert defined == {"example.org/wishes"}
    chosen = {name for name, kind in kinds(reset).items() if reset.can_be_users(kind, defined)}
    assert {"pods", "configmaps", "deployments", "clusterroles", "wishes"} <= chosen
    assert not {"nodes", "namespaces", "persistentvolumes", "componentstatuses", "bindings", "pods/log"} & chosen
    assert not reset.can_be_users(kinds(reset)["wishes"], set())


def test_objects_of_users(reset: ModuleType) -> None:
    assert users(reset, "configmaps", "configmaps") == [
        "/api/v1/namespaces/default/configmaps/own",
        "/api/v1/namespaces/team/configmaps/cm",
        "/api/v1/namespaces/team/configmaps/kube-root-ca.crt",
    ]
    assert users(reset, "deployments", "deployments") == ["/apis/apps/v1/namespaces/team/deployments/web"]
    assert users(reset, "clusterroles", "clusterroles") == ["/apis/rbac.authorization.k8s.io/v1/clusterroles/reader"]
    assert users(reset, "wishes", "wishes") == ["/apis/example.org/v1/wishes/one"]


def test_what_kubernetes_made_in_default_stays(reset: ModuleType) -> None:
    assert users(reset, "services", "services") == []
    assert users(reset, "serviceaccounts", "serviceaccounts") == ["/api/v1/namespaces/team/serviceaccounts/default"]
    (token,) = users(reset, "secrets", "secrets")
    assert token.startswith("/api/v1/namespaces/team/secrets/default-token-")
    assert any(item["metadata"]["namespace"] == "default" for item in recorded("secrets")["items"])
    assert users(reset, "storageclasses", "storageclasses") == []
    assert [path.rpartition("/")[2] for path in users(reset, "apiservices", "apiservices")] == []


def test_finalizers_but_for_those_that_kubernetes_removes(reset: ModuleType) -> None:
    held = [i["metadata"]["name"] for i in recorded("configmaps")["items"] if reset.has_finalizers(i)]
    assert held == ["cm"]
    assert not reset.has_finalizers({"metadata": {"finalizers": ["kubernetes.io/pvc-protection"]}})


def test_namespaces_of_users(reset: ModuleType) -> None:
    assert reset.user_spaces(recorded("namespaces")) == ["team"]


def test_volumes_go_with_their_claims(reset: ModuleType) -> None:
    (volume,) = reset.user_volumes(recorded("persistentvolumes"))
    assert reset.goes_by_itself(volume, set())
    kept = copy.deepcopy(volume)
    kept["spec"]["persistentVolumeReclaimPolicy"] = "Retain"
    assert not reset.goes_by_itself(kept, {"agent-1"})
    of_agent = copy.deepcopy(volume)
    expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["agent-3"]}
    of_agent["spec"]["nodeAffinity"] = {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}
    assert reset.goes_by_itself(of_agent, {"agent-1", "agent-3"})
    assert not reset.goes_by_itself(of_agent, {"agent-1"})  # nobody is left who would remove it
    of_system = copy.deepcopy(volume)
    of_system["spec"]["claimRef"]["namespace"] = "kube-system"
    assert reset.user_volumes({"items": [of_system, kept]}) == [kept]


def test_agents_get_their_labels_and_taints_back(reset: ModuleType) -> None:
    first, second = recorded("nodes")["items"]
    none: dict[str, Any] = {"labels": {}, "taints": []}
    assert reset.node_patch(first, none)["metadata"]["labels"] == {"mine": None}
    assert [taint["key"] for taint in second["spec"]["taints"]] == ["node.kubernetes.io/unschedulable"]
    assert reset.node_patch(second, none) == {"metadata": {"labels": {}}, "spec": {"unschedulable": None, "taints": []}}
    assert reset.is_ready(first)


class Api:
    """Answers lists by their path; what is not there is 404, what is an error is raised."""

    def __init__(self, reset: ModuleType, answers: dict[str, Any]) -> None:
        self.answer, self.answers = reset.Answer, answers

    def each(self, method: str, paths: list[str]) -> list[Any]:
        found = [self.answers.get(path) for path in paths]
        return [
            f if isinstance(f, OSError) else self.answer(404 if f is None else 200, json.dumps(f).encode())
            for f in found
        ]

    def get(self, path: str) -> Any:
        return self.answers[path]


def test_a_kind_that_is_gone_has_no_objects_and_one_without_an_answer_may_have(reset: ModuleType) -> None:
    wanted = [kinds(reset)[name] for name in ("configmaps", "wishes")]
    answers = {"/api/v1/configmaps": recorded("configmaps")}
    assert [path.rpartition("/")[2] for path, _ in reset.found(Api(reset, answers), wanted)] == [
        "own",
        "cm",
        "kube-root-ca.crt",
    ]
    answers["/apis/example.org/v1/wishes"] = OSError("timed out")
    with pytest.raises(reset.NotYet, match="no answer about wishes: timed out"):
        reset.found(Api(reset, answers), wanted)


def test_pods_run_while_an_agent_says_so_or_does_not_answer(reset: ModuleType) -> None:
    def running(name: str) -> str:
        return f"/api/v1/nodes/{name}/proxy/runningpods/"

    system = {"items": [{"metadata": {"namespace": "kube-system"}}]}
    answers = {"/api/v1/nodes": recorded("nodes"), running("agent-1"): {"items": None}, running("agent-2"): system}
    assert not reset.pods_run(Api(reset, answers))
    assert reset.pods_run(Api(reset, answers | {running("agent-1"): OSError("refused")}))
    own = {"items": [{"metadata": {"namespace": "team"}}]}
    assert reset.pods_run(Api(reset, answers | {running("agent-2"): own}))
    nodes = recorded("nodes")
    for condition in nodes["items"][1]["status"]["conditions"]:
        condition["status"] = "Unknown"  # it is gone, and what it runs never ends
    assert not reset.pods_run(Api(reset, answers | {"/api/v1/nodes": nodes, running("agent-2"): own}))


def test_an_etcd_member_by_its_status(members: ModuleType) -> None:
    status = recorded("etcd-status")
    keys = ("ready", "leader", "answers")

    def said(status: dict[str, Any]) -> tuple[bool, ...]:
        member = members.etcd_member("kv-1", status)
        assert (member["name"], member["voter"]) == ("kv-1", True)
        return tuple(member[key] for key in keys)

    assert said(status) == (True, True, True)
    assert said(status | {"leader": "1"}) == (True, False, True)
    assert said({k: v for k, v in status.items() if k != "leader"}) == (False, False, True)
    assert said({}) == (False, False, False)


def test_agents_by_the_api_server(members: ModuleType) -> None:
    assert list(members.agents(recorded("nodes"), True, True)) == [
        {"name": "agent-1", "ready": True, "detail": ""},
        {"name": "agent-2", "ready": True, "detail": "cordoned"},
    ]
    assert not any(agent["ready"] for agent in members.agents(recorded("nodes"), False, True))


def test_an_agent_is_not_ready_before_names_resolve_unless_it_takes_no_pods(members: ModuleType) -> None:
    assert list(members.agents(recorded("nodes"), True, False)) == [
        {"name": "agent-1", "ready": False, "detail": "CoreDNS does not answer"},
        {"name": "agent-2", "ready": True, "detail": "cordoned"},
    ]


def test_an_agent_that_waits_for_the_users_network(members: ModuleType) -> None:
    nodes = recorded("nodes")
    del nodes["items"][1:]
    message = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:..."
    nodes["items"][0]["status"]["conditions"] = [{"type": "Ready", "status": "False", "message": message}]
    assert [one["ready"] for one in members.agents(nodes, True, False)] == [False]
    (waits,) = members.agents(nodes, True, False, True)
    assert (waits["ready"], waits["detail"]) == (True, "no CNI plugin yet")


def test_an_agent_that_leaves_or_cannot_be_used(members: ModuleType) -> None:
    nodes = recorded("nodes")
    nodes["items"][0]["metadata"].setdefault("annotations", {})["minicluster/leaving"] = "mark"
    nodes["items"][1]["spec"]["taints"] = [{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]
    assert list(members.agents(nodes, True, True)) == [{"name": "agent-2", "ready": False, "detail": "cordoned"}]
    nodes["items"][1]["spec"]["taints"] = [{"key": "own", "effect": "NoSchedule"}]
    assert [agent["ready"] for agent in members.agents(nodes, True, True)] == [True]


class Names(threading.Thread):
    """A server of names on a free port, which answers each question with the same bytes after its number."""

    def __init__(self, answer: bytes) -> None:
        super().__init__(daemon=True)
        self.answer, self.asked = answer, b""
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.asked, client = self.socket.recvfrom(512)
                self.socket.sendto(self.asked[:2] + self.answer, client)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (b"\x85\x00\0\1\0\1\0\0\0\0", True),
        (b"\x85\x03\0\1\0\0\0\0\0\0", False),  # NXDOMAIN
        (b"\x81\x02\0\1\0\0\0\0\0\0", False),  # SERVFAIL
        (b"\x85\x00\0\1\0\0\0\0\0\0", False),  # no record
    ],
)
def test_names_resolve_when_the_server_says_so(members: ModuleType, answer: bytes, right: bool) -> None:
    server = Names(answer)
    with server.socket:
        assert members.resolves("127.0.0.1", server.socket.getsockname()[1]) is right
    assert b"\x0akubernetes\x07default\x03svc\x07cluster\x05local\0\0\1\0\1" in server.asked


def test_names_are_waited_for_only_where_coredns_is_to_run(members: ModuleType, reset: ModuleType) -> None:
    def answer(status: int, *items: Any) -> Any:
        return reset.Answer(status, json.dumps({"items": items}).encode())

    none, some, service = answer(200), answer(200, {"spec": {"replicas": 2}}), answer(200, {"spec": {}})
    refused = OSError("refused")
    assert members.names_resolve(none, service, none)  # the Deployment was deleted
    assert members.names_resolve(some, none, none)  # its Service was
    assert members.names_resolve(answer(200, {"spec": {"replicas": 0}}), service, none)
    assert not members.names_resolve(some, service, none)
    for odd in refused, answer(500):
        assert not members.names_resolve(some, service, odd)
        assert not members.names_resolve(odd, service, none)
    assert not members.names_resolve(some, refused, none)


def test_an_agent_that_a_user_has_tainted_is_ready_without_names(members: ModuleType) -> None:
    """CoreDNS has nowhere to run; by the cluster's own settings it has."""
    nodes = recorded("nodes")
    own = {"key": "own", "effect": "NoExecute"}
    for node in nodes["items"]:
        node["spec"] = {"taints": [own]}
    assert [agent["ready"] for agent in members.agents(nodes, True, False)] == [True, True]
    own["effect"] = "PreferNoSchedule"
    assert [agent["ready"] for agent in members.agents(nodes, True, False)] == [False, False]
    own["effect"] = "NoSchedule"
    assert [agent["ready"] for agent in members.agents(nodes, True, False, settings=[own])] == [False, False]
    assert [agent["ready"] for agent in members.agents(nodes, True, False, settings=[])] == [True, True]


@pytest.mark.parametrize("kind", ["MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable"])
def test_pressure_on_an_agent_is_told_with_what_ends_it(members: ModuleType, kind: str) -> None:
    nodes = recorded("nodes")
    nodes["items"] = nodes["items"][:1]
    condition = {"type": kind, "status": "True", "message": "kubelet has too little"}
    others = [one for one in nodes["items"][0]["status"]["conditions"] if one["type"] != kind]
    nodes["items"][0]["status"]["conditions"] = [*others, condition]
    nodes["items"][0]["spec"]["taints"] = [{"key": "node.kubernetes.io/x-pressure", "effect": "NoSchedule"}]
    (agent,) = members.agents(nodes, True, True)
    assert (agent["ready"], agent["detail"]) == (False, f"{kind}: kubelet has too little")
    assert agent["fix"]
    assert "{}" not in agent["fix"]


def test_an_agent_that_is_not_ready_says_why(members: ModuleType) -> None:
    nodes = recorded("nodes")
    (ready,) = [one for one in nodes["items"][0]["status"]["conditions"] if one["type"] == "Ready"]
    ready.update(status="Unknown", message="Kubelet stopped posting node status.")
    agent = next(members.agents(nodes, True, True))
    assert (agent["ready"], agent["detail"]) == (False, "Kubelet stopped posting node status.")


def test_a_full_store_is_an_alarm(members: ModuleType) -> None:
    member = members.etcd_member("kv-1", recorded("etcd-status") | {"errors": ["memberID:1 alarm:NOSPACE "]})
    assert member["detail"] == "its database is full"
    assert "etcdctl alarm disarm" in member["fix"]
    starting = recorded("etcd-status") | {"leader": "0", "errors": ["memberID:1 alarm:NOSPACE "]}
    assert "fix" not in members.etcd_member("kv-1", starting)


class Clients:
    """An API server and other components, by the certificate that asks: a status for each."""

    def __init__(self, reset: ModuleType, accepted: set[str]) -> None:
        self.reset, self.accepted = reset, accepted

    def ask(self, address: str, path: str, certificate: str = "", *_: Any, secure: bool = True, **__: Any) -> Any:
        if not secure:
            return self.reset.Answer(200, b"{}") if address == "172.28.0.4:10256" else OSError("refused")
        if address.endswith(":2379"):
            return self.reset.Answer(200, json.dumps(recorded("etcd-status")).encode())
        if path in ("/readyz", "/healthz"):
            return self.reset.Answer(200, b"ok")
        if certificate not in self.accepted:
            return self.reset.Answer(401, b'{"message": "Unauthorized"}')
        return self.reset.Answer(
            200, json.dumps(recorded("nodes")).encode() if path.endswith("/nodes") else b'{"items": []}'
        )


@pytest.mark.parametrize(
    ("accepted", "ready", "told"),
    [
        ({"admin"}, {"kv-1": True, "master-1": True, "agent-1": False, "agent-2": False}, False),  # no account yet
        ({"scheduler"}, {"kv-1": True, "master-1": True, "agent-1": True, "agent-2": True}, True),
        (set(), {"kv-1": True, "master-1": True, "agent-1": True, "agent-2": False}, True),
    ],
)
def test_members_with_an_administrator_whom_nobody_knows(
    members: ModuleType,
    reset: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    accepted: set[str],
    ready: dict[str, bool],
    told: bool,
) -> None:
    env = {"NODE": "master-1", "API": "127.0.0.1:6443", "MEMBERS": "kv-1=172.28.0.2 master-1=172.28.0.3", "CNI": ""}
    (tmp_path / "node.json").write_text('{"labels": {}, "taints": []}')
    monkeypatch.setattr(members, "NODE_FILE", str(tmp_path / "node.json"))
    monkeypatch.setattr(members, "read_node_env", lambda: env)
    monkeypatch.setattr(members, "ask", Clients(reset, accepted).ask)
    monkeypatch.setattr(members.sys, "argv", ["kube-members", "agent-1=172.28.0.4 agent-2=172.28.0.5 "])
    members.main()
    said = {one["name"]: one for one in map(json.loads, capsys.readouterr().out.splitlines())}
    assert {name: one["ready"] for name, one in said.items()} == ready
    assert ("credentials refused" in said["master-1"].get("detail", "")) is told


@pytest.mark.parametrize(("answering", "told"), [(1, True), (2, False)])
def test_without_etcds_quorum_the_api_server_is_not_waited_for(
    members: ModuleType,
    reset: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answering: int,
    told: bool,
) -> None:
    """It answers late that it cannot, and every command that needs the members would wait for that."""
    kvs = [f"kv-{n}=172.28.0.{n + 1}" for n in (1, 2, 3)]
    env = {"NODE": "master-1", "API": "127.0.0.1:6443", "MEMBERS": " ".join([*kvs, "master-1=172.28.0.5"]), "CNI": ""}
    answers = {f"172.28.0.{n + 1}:2379" for n in range(1, answering + 1)}
    late = threading.Event()

    def ask(address: str, path: str, *_: Any, **__: Any) -> Any:
        if address.endswith(":2379"):
            etcd = reset.Answer(200, json.dumps(recorded("etcd-status")).encode())
            return etcd if address in answers else OSError("refused")
        if told and path.startswith("/api"):
            late.wait(10)
        return OSError("no answer")

    monkeypatch.setattr(members, "read_node_env", lambda: env)
    monkeypatch.setattr(members, "ask", ask)
    with pytest.raises(SystemExit):
        members.main()
    late.set()
    out, error = capsys.readouterr()
    said = {one["name"]: one["ready"] for one in map(json.loads, out.splitlines())}
    assert said == {f"kv-{n}": n <= answering for n in (1, 2, 3)}
    assert ("etcd has lost its quorum" in error) is told


def test_only_endpoints_that_are_ready_are_asked(members: ModuleType) -> None:
    endpoints = [
        {"addresses": ["10.244.1.2"], "conditions": {"ready": True}},
        {"addresses": ["10.244.1.3"], "conditions": {"ready": False}},
    ]
    assert members.dns_addresses({"items": [{"endpoints": endpoints}, {"endpoints": None}]}) == ["10.244.1.2"]


class ApiServer:
    """Creates objects as the API server does, and has two agents."""

    def __init__(self, answer: type[Any], folder: str) -> None:
        self.answer, self.folder = answer, folder
        self.objects: list[tuple[str, Any]] = []  #: where each was created, and what it is
        self.recorded: dict[str, str] = {}
        self.deleted: list[str] = []

    def named(self) -> list[tuple[str, str]]:
        return [(path, made["metadata"].get("name", "")) for path, made in self.objects]

    def request(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        if method == "PATCH":
            if path.endswith("/minicluster-addons"):
                self.recorded.update(body["data"])
            return self.answer(200, b"{}")
        if method == "DELETE":
            self.deleted.append(path)
            return self.answer(200, b"{}")
        if method == "GET":
            nodes = [{"metadata": {"name": name}} for name in ("agent-1", "agent-2")]
            record = (f"{self.folder}/configmaps", "minicluster-addons") in self.named()
            missing = path.endswith("/minicluster-addons") and not record
            return self.answer(404 if missing else 200, json.dumps({"items": nodes, "data": self.recorded}).encode())
        made = yaml.safe_load(body) if isinstance(body, bytes) else copy.deepcopy(body)
        if made["metadata"].get("name") == "minicluster-addons":
            self.recorded.update(made.get("data") or {})
        made["metadata"]["uid"] = f"{len(self.objects):08x}-0000"
        self.objects.append((path, made))
        return self.answer(201, json.dumps(made).encode())


@pytest.fixture
def addons(program: Program, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = program("kubernetes", "kube-addons")
    monkeypatch.setattr(module, "read", lambda _path: "AUTHORITY")
    return module


@pytest.fixture
def beginning() -> dict[str, str]:
    """The files of objects that every cluster begins with."""
    (master,) = spec_of("kubernetes").of_role("master")
    return {f.path.rpartition("/")[2]: f.content for f in master.files if "/addons/" in f.path}


SYSTEM = "/api/v1/namespaces/kube-system"


def test_objects_that_every_cluster_begins_with_are_created_once(addons: ModuleType, beginning: dict[str, str]) -> None:
    server = ApiServer(addons.Answer, SYSTEM)
    addons.add(server, {**beginning, "disabled.yaml": "\n"})
    assert {
        (f"{SYSTEM}/services", "kube-dns"),
        ("/apis/apps/v1/namespaces/kube-system/deployments", "coredns"),
        ("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", "system:coredns"),
        ("/apis/storage.k8s.io/v1/storageclasses", "standard"),
    } < set(server.named())
    assert set(server.recorded) == {"authority", *beginning}
    before = len(server.objects)
    addons.add(server, beginning)
    assert len(server.objects) == before  # what the user deleted meanwhile stays so
    assert server.deleted == []


def test_pods_that_trust_a_former_authority_are_recreated_once(
    addons: ModuleType, monkeypatch: pytest.MonkeyPatch, beginning: dict[str, str]
) -> None:
    server = ApiServer(addons.Answer, SYSTEM)
    addons.add(server, beginning)
    monkeypatch.setattr(addons, "read", lambda _path: "ANOTHER AUTHORITY")
    addons.add(server, beginning)
    addons.add(server, beginning)
    (deleted,) = server.deleted
    assert deleted.startswith(f"{SYSTEM}/pods?labelSelector=")
    assert "kube-dns" in deleted


def test_the_first_pods_are_those_that_controllers_would_create(addons: ModuleType, beginning: dict[str, str]) -> None:
    server = ApiServer(addons.Answer, SYSTEM)
    addons.add(server, beginning)
    made = {one["kind"]: one for _, one in server.objects}
    assert made["ReplicaSet"]["metadata"]["ownerReferences"][0]["uid"] == made["Deployment"]["metadata"]["uid"]
    pods = [one for path, one in server.objects if path == f"{SYSTEM}/pods"]
    assert [pod["spec"]["nodeName"] for pod in pods] == ["agent-1", "agent-2"]
    selector = made["ReplicaSet"]["spec"]["selector"]["matchLabels"]
    for pod in pods:
        assert pod["metadata"]["ownerReferences"][0]["uid"] == made["ReplicaSet"]["metadata"]["uid"]
        assert selector.items() <= pod["metadata"]["labels"].items()
    assert selector["pod-template-hash"]


def test_answers_that_are_none_are_waited_out(
    addons: ModuleType, monkeypatch: pytest.MonkeyPatch, beginning: dict[str, str]
) -> None:
    """An API server that is overloaded answers 429, one that starts 500, and a proxy 504 with a page."""
    refusals = [addons.Answer(code, b'{"kind": "Status"}') for code in (429, 500)]
    pages = [addons.Answer(504, b"<html>"), addons.Answer(200, b"<html>"), addons.Answer(200, b"{}")]

    class Busy(ApiServer):
        def request(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
            if path == "/api/v1/nodes" and refusals:
                return refusals.pop()
            if "configmaps/" in path and method == "GET" and pages:
                return pages.pop(0)
            return super().request(method, path, body, kind)

    server = Busy(addons.Answer, SYSTEM)
    assert addons.nodes(server, 2) == ["agent-1", "agent-2"]
    refusals += [addons.Answer(429, b"{}")] * 3
    monkeypatch.setattr(addons.os, "listdir", lambda _folder: list(beginning))
    monkeypatch.setattr(addons.os.path, "isdir", lambda _folder: True)
    monkeypatch.setattr(addons, "read", lambda path: beginning.get(path.rpartition("/")[2], "AUTHORITY"))
    addons.keep_trying(server, "/addons")
    assert not pages
    assert set(server.recorded) == {"authority", *beginning}


def test_a_refused_administrator_creates_nothing_and_keeps_no_master_waiting(
    addons: ModuleType, monkeypatch: pytest.MonkeyPatch, beginning: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    class Strict(ApiServer):
        def request(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
            return addons.Answer(401, b"Unauthorized")

    monkeypatch.setattr(addons.os, "listdir", lambda _folder: list(beginning))
    monkeypatch.setattr(addons.os.path, "isdir", lambda _folder: True)
    monkeypatch.setattr(addons, "read", lambda path: beginning.get(path.rpartition("/")[2], "AUTHORITY"))
    monkeypatch.setattr(addons.time, "sleep", lambda _seconds: None)
    addons.keep_trying(Strict(addons.Answer, SYSTEM), "/addons")
    assert "credentials refused" in capsys.readouterr().out


def test_node_env(members: ModuleType, program: Program) -> None:
    api = program("kubernetes", "kube_api.py")
    text = 'NODE=master-1\nADDRESS=172.28.0.3\nETCD="172.28.0.2 "\nMEMBERS="kv-1=172.28.0.2 master-1=172.28.0.3 "\n'
    assert api.node_env(text)["MEMBERS"].split() == ["kv-1=172.28.0.2", "master-1=172.28.0.3"]
    assert api.node_env(text)["NODE"] == "master-1"


# Readiness probes, with a curl that prints a file for each path


@pytest.fixture
def probes(node: Node) -> Node:
    node.install("kubernetes", "kube-serves", "kube-healthy", "kube-registered")
    node.write("/etc/kubernetes/node.env", "NODE=agent-1\nAPI=10.0.0.9:6443\n")
    node.program(
        "curl",
        f"""#!/bin/sh
for url; do case $url in https:*) break ;; esac; done
file={node.root}/answers/$(printf %s "${{url#https://}}" | tr / _)
cat "$file" 2>/dev/null || {{ printf "curl: (7) no answer\\nfrom $url" >&2; exit 7; }}
""",
    )
    return node


def test_ready_when_every_component_says_so(probes: Node) -> None:
    probes.write("/run/kube-addons", "")
    probes.write("/answers/127.0.0.1:6443_readyz", "ok")
    probes.write("/answers/127.0.0.1:10259_healthz", "ok")
    done = probes.run("kube-healthy")
    assert (done.returncode, done.stderr.strip()) == (
        1,
        "kube-controller-manager is not healthy: curl: (7) no answer from https://127.0.0.1:10257/healthz",
    )
    probes.write("/answers/127.0.0.1:10257_healthz", "ok")
    assert probes.run("kube-healthy").returncode == 0
    (probes.root / "run/kube-addons").unlink()
    assert "own objects are not created yet" in probes.run("kube-healthy").stderr


def test_not_ready_says_what_the_api_server_answers(probes: Node) -> None:
    probes.write("/answers/10.0.0.1:6443_readyz", "[-]etcd failed\nreadyz check failed")
    done = probes.run("kube-serves", "10.0.0.1:6443")
    assert (done.returncode, done.stderr.strip()) == (
        1,
        "the API server is not ready: [-]etcd failed readyz check failed",
    )


def node_object(status: str, message: str) -> str:
    conditions = [
        {"type": "MemoryPressure", "status": "False"},
        {"type": "Ready", "status": status, "message": message},
    ]
    return json.dumps({"status": {"conditions": conditions}})


def test_an_agent_is_ready_when_the_api_server_counts_it_as_ready(probes: Node) -> None:
    path = "/answers/10.0.0.9:6443_api_v1_nodes_agent-1"
    done = probes.run("kube-registered")
    assert (done.returncode, "curl: (7) no answer" in done.stderr) == (1, True)
    probes.write(path, json.dumps({"status": {}}))
    assert probes.run("kube-registered").stderr == "not ready: the API server does not know it yet\n"
    probes.write(path, node_object("False", 'runtime\n"cni" is not ready'))
    assert probes.run("kube-registered").stderr == 'not ready: False runtime\n"cni" is not ready\n'
    probes.write(path, node_object("True", "kubelet is\nready"))
    assert probes.run("kube-registered").returncode == 0


# Components that a node keeps running


@pytest.fixture
def kept(node: Node) -> Callable[[str, str], Any]:
    """Runs a component that ends six times, as a shell function; the answer is what became of the node's script."""
    node._install(PROFILES / "kubernetes/files/kube-common", node.root / "usr/local/lib/kube-common")
    node.write("/etc/kubernetes/node.env", "NODE=agent-1\nSTRICT=yes\n")

    def run(name: str, code: str) -> Any:
        (node.root / "runs").write_text("")
        node.program(
            "script",
            f"""#!/bin/bash
set -u
. {node.root}/usr/local/lib/kube-common
sleep() {{ [ "$1" != 0.1 ] || command sleep 0.1; }} # as the reason may be written late
component() {{
  echo x >>{node.root}/runs
  runs=$(wc -l <{node.root}/runs)
  [ "$runs" -lt 6 ] || exit 0
  {code}
}}
keep {name} component
wait
""",
        )
        return node.run("script")

    return run


@pytest.mark.parametrize(
    "name", ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"]
)
def test_a_component_that_refuses_its_settings_ends_the_node(kept: Callable[[str, str], Any], name: str) -> None:
    done = kept(name, "echo why; return 1")
    assert done.returncode == -signal.SIGTERM
    assert done.stdout.splitlines()[-1] == f"{name}: does not start with these settings: why"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("containerd", "return 1"),  # it gets no settings of the user's
        ("haproxy", "return 1"),
        ("kubelet", "return 2"),
        ("kubelet", "[ $runs != 1 ] || begun=$((SECONDS - 31)); return 1"),  # it has run
    ],
)
def test_other_components_that_end_are_started_again(kept: Callable[[str, str], Any], name: str, code: str) -> None:
    done = kept(name, code)
    assert done.returncode == 0
    assert "does not start" not in done.stdout
    assert done.stdout.count(f"{name}: ended with status") == 5


def pod(name: str, phase: str = "Running", **more: Any) -> dict[str, Any]:
    """A pod as the API server lists it, changed in some fields of its metadata, spec and status."""
    ready = {"type": "Ready", "status": "True" if phase == "Running" else "False"}
    return {
        "metadata": {"name": name, "namespace": "default", **more.get("metadata", {})},
        "spec": {"nodeName": "agent-1", "containers": [{"image": "demo:1"}], **more.get("spec", {})},
        "status": {"phase": phase, "conditions": [ready], **more.get("status", {})},
    }


@pytest.mark.skipif(not shutil.which("jq"), reason="there is no jq")
def test_the_workload_is_the_pods_that_have_not_ended(node: Node) -> None:
    waiting = {"containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}
    pods = [
        pod("web-1", metadata={"labels": {"app": "web"}}),
        pod("web-2", metadata={"labels": {"app": "web"}, "deletionTimestamp": "2026-01-01T00:00:00Z"}),
        pod("job-1", phase="Succeeded"),
        pod("db-1", metadata={"ownerReferences": [{"name": "db"}]}, status=waiting),
        pod("new", phase="Pending", spec={"nodeName": None}),
        pod("coredns-1", metadata={"namespace": "kube-system", "labels": {"app": "x"}}),
    ]
    node.write("/pods", json.dumps({"items": pods}))
    node.write("/usr/local/lib/kube-common", f"ask() {{ [[ $2 == /api/v1/pods* ]] && cat {node.root}/pods; }}\n")
    script = (PROFILES / "kubernetes/image/programs/kube-workload").read_text()
    node.program("kube-workload", script.replace("/usr/local/lib/", f"{node.root}/usr/local/lib/"))
    done = node.run("kube-workload")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(r["name"], r["node"], r["group"], r["state"], r["ready"]) for r in rows] == [
        ("web-1", "agent-1", "web", "Running", True),
        ("web-2", "agent-1", "web", "Terminating", False),
        ("db-1", "agent-1", "db", "CrashLoopBackOff", False),
        ("new", "", "", "Pending", False),
        ("coredns-1", "agent-1", "system", "Running", True),
    ]
    assert rows[0]["detail"] == "default, demo:1"
