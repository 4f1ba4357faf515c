"""kube-routes and kube-volumes, which run in clusters on several hosts, on what a real API server answered.

In its cluster agent-1 and agent-2 ran, with Services of type LoadBalancer.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.scripts.conftest import DATA

Program = Callable[[str, str], ModuleType]
Object = dict[str, Any]


def recorded(name: str) -> Any:
    return json.loads((DATA / "kubernetes" / f"{name}.json").read_text())


# Routes


@pytest.fixture
def routes(program: Program) -> ModuleType:
    return program("kubernetes", "kube-routes")


def wanted(routes: ModuleType, own: str, *, pods: bool = True) -> dict[str, str]:
    others = routes.agents(recorded("load-balancer-nodes")["items"], own)
    found: dict[str, str] = routes.wanted(others, [recorded("load-balancer-configmap")], pods)
    return found


def test_pods_and_addresses_are_behind_the_other_agents(routes: ModuleType) -> None:
    assert wanted(routes, "agent-2") == {"10.244.1.0/24": "172.28.4.4", "172.28.4.194": "172.28.4.4"}
    assert wanted(routes, "master-1") == {
        "10.244.1.0/24": "172.28.4.4",
        "10.244.2.0/24": "172.28.4.5",
        "172.28.4.194": "172.28.4.4",
        **dict.fromkeys(("172.28.4.192", "172.28.4.193", "172.28.4.195", "172.28.4.200"), "172.28.4.5"),
    }


def test_a_network_of_the_user_s_own_has_routes_of_its_own(routes: ModuleType) -> None:
    assert wanted(routes, "agent-2", pods=False) == {"172.28.4.194": "172.28.4.4"}


def test_an_agent_without_an_address_is_left_out(routes: ModuleType) -> None:
    nodes = recorded("load-balancer-nodes")["items"]
    nodes[0]["status"] = {}
    nodes[1]["spec"] = {}
    others = routes.agents(nodes, "master-1")
    assert [*others] == ["agent-2"]
    assert routes.wanted(others, [], True) == {}


def test_only_what_differs_is_changed(routes: ModuleType) -> None:
    had = [
        {"dst": "10.244.1.0/24", "gateway": "172.28.4.4", "dev": "eth0"},
        {"dst": "10.244.2.0/24", "gateway": "172.28.4.9", "dev": "eth0"},
        {"dst": "172.28.4.200", "gateway": "172.28.4.5", "dev": "eth0"},
    ]
    now = {"10.244.1.0/24": "172.28.4.4", "10.244.2.0/24": "172.28.4.5", "172.28.4.192": "172.28.4.5"}
    assert routes.changes(had, now, "eth0") == [
        "route del 172.28.4.200 proto 76",
        "route replace 10.244.2.0/24 via 172.28.4.5 dev eth0 proto 76",
        "route replace 172.28.4.192 via 172.28.4.5 dev eth0 proto 76",
    ]
    assert routes.changes([{"dst": to, "gateway": by} for to, by in now.items()], now, "eth0") == []


# Volumes


@pytest.fixture
def volumes(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = program("kubernetes", "kube-volumes")
    monkeypatch.setattr(module, "FOLDER", str(tmp_path / "volumes"))
    return module


class Asked:
    """An API server that accepts everything, and notes it."""

    def __init__(self, status: int = 200, refused: str = "") -> None:
        self.status, self.refused = status, refused
        self.made: list[tuple[str, str, Any]] = []

    def request(self, method: str, path: str, body: Any = None) -> Any:
        self.made.append((method, path, body))
        status = 201 if method == "POST" and self.status == 200 else self.status
        if self.refused and self.refused in json.dumps(body):
            status = 403
        return type("Answer", (), {"status": status, "text": ""})


class Known:
    known = True

    def __init__(self, **objects: Object) -> None:
        self.objects = objects


def acting(volumes: ModuleType, claims: Known, made: Known, agent: str = "agent-1") -> Any:
    found = volumes.Volumes.__new__(volumes.Volumes)
    found._agent, found._server, found._claims, found._volumes = agent, Asked(), claims, made
    return found


def claim(agent: str | None = "agent-1", **spec: Any) -> Object:
    notes = {"volume.kubernetes.io/storage-provisioner": "minicluster/agent"}
    if agent:
        notes["volume.kubernetes.io/selected-node"] = agent
    return {
        "metadata": {"namespace": "default", "name": "notes", "uid": "b6b03873", "annotations": notes},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "10Mi"}},
            "storageClassName": "standard",
            **spec,
        },
    }


def test_the_agent_that_the_scheduler_chose_makes_the_volume(volumes: ModuleType) -> None:
    agent = acting(volumes, Known(notes=claim()), Known())
    agent.act()
    ((method, path, body),) = agent._server.made
    assert (method, path) == ("POST", "/api/v1/persistentvolumes")
    folder = Path(volumes.FOLDER) / "pvc-b6b03873"
    assert folder.stat().st_mode & 0o777 == 0o777
    assert body["metadata"]["name"] == "pvc-b6b03873"
    assert body["spec"]["hostPath"] == {"path": str(folder), "type": "Directory"}
    assert body["spec"]["claimRef"]["uid"] == "b6b03873"
    assert volumes.agents_of(body) == {"agent-1"}


@pytest.mark.parametrize(
    "other",
    [
        claim(agent=None),
        claim(agent="agent-2"),
        claim(volumeName="pvc-b6b03873"),
        {**claim(), "metadata": {**claim()["metadata"], "deletionTimestamp": "2026-11-29T13:00:03Z"}},
        {**claim(), "metadata": {**claim()["metadata"], "annotations": {}}},
    ],
)
def test_other_claims_are_left_alone(volumes: ModuleType, other: Object) -> None:
    agent = acting(volumes, Known(notes=other), Known())
    agent.act()
    assert agent._server.made == []
    assert not Path(volumes.FOLDER).exists()


def test_a_volume_is_removed_with_its_claim(volumes: ModuleType) -> None:
    agent = acting(volumes, Known(notes=claim()), Known())
    agent.act()
    made = agent._server.made.pop()[2]
    bound = {**made, "status": {"phase": "Bound"}}
    agent._claims, agent._volumes = Known(), Known(pv=bound)
    agent.act()
    assert agent._server.made == []
    for kept in (
        acting(volumes, Known(), Known(pv={**bound, "status": {"phase": "Released"}}), agent="agent-2"),
        acting(volumes, Known(), Known(pv=recorded("persistentvolumes")["items"][0])),
    ):
        kept.act()
        assert kept._server.made == []
    retained = copy.deepcopy(bound)
    retained["spec"]["persistentVolumeReclaimPolicy"] = "Retain"
    retained["status"]["phase"] = "Released"
    agent._volumes = Known(pv=retained)
    agent.act()
    assert agent._server.made == []
    agent._volumes = Known(pv={**bound, "status": {"phase": "Released"}})
    agent.act()
    assert agent._server.made == [("DELETE", "/api/v1/persistentvolumes/pvc-b6b03873", None)]
    assert [*Path(volumes.FOLDER).iterdir()] == []


def test_no_other_folder_is_removed(volumes: ModuleType, tmp_path: Path) -> None:
    """A volume is an object of the API server: its path may be a user's words."""
    other = tmp_path / "pvc-other"
    other.mkdir()
    agent = acting(volumes, Known(), Known())
    for path in (str(other), f"{volumes.FOLDER}/../pvc-other", volumes.FOLDER, "/", ""):
        one = volumes.volume(claim(), "agent-1") | {"status": {"phase": "Released"}}
        one["spec"]["hostPath"]["path"] = path
        agent._volumes = Known(pv=one)
        agent.act()
    assert other.exists()


def test_a_refusal_keeps_no_other_volume_from_being_made(volumes: ModuleType) -> None:
    """A user's webhook may refuse some."""
    bad, good = claim(), claim()
    bad["metadata"]["uid"], good["metadata"]["uid"] = "bad", "good"
    over = {**volumes.volume(claim(), "agent-1"), "status": {"phase": "Released"}}
    agent = acting(volumes, Known(a=bad, b=good), Known(c=over))
    agent._server = Asked(refused="pvc-bad")
    with pytest.raises(OSError, match="HTTP 403"):
        agent.act()
    assert [(method, body and body["metadata"]["name"]) for method, _path, body in agent._server.made] == [
        ("POST", "pvc-bad"),
        ("POST", "pvc-good"),
        ("DELETE", None),
    ]


def test_a_refusal_is_an_error(volumes: ModuleType) -> None:
    agent = acting(volumes, Known(notes=claim()), Known())
    agent._server = Asked(403)
    with pytest.raises(OSError, match="POST /api/v1/persistentvolumes: HTTP 403"):
        agent.act()
