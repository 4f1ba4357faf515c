"""kube-load-balancer, kube-announce and what they watch objects with, on what a real API server answered.

In its cluster agent-1 and agent-2 ran, and six Services of type LoadBalancer: web, udp and local (whose requests stay
on the agent that they come to), ranges, asked (for an address of its own) and wrong (for one that is not in the range).
"""

from __future__ import annotations

import copy
import io
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.scripts.conftest import DATA
from tests.scripts.test_http_api import CHUNKED, serving

Program = Callable[[str, str], ModuleType]
Object = dict[str, Any]

POOL = [f"172.28.4.{last}" for last in range(192, 224)]
NAME = "172.28.4.192 to 172.28.4.223"
AGENTS = ["agent-1", "agent-2"]


def recorded(name: str) -> Any:
    return json.loads((DATA / "kubernetes" / f"load-balancer-{name}.json").read_text())


@pytest.fixture
def balancer(program: Program) -> ModuleType:
    return program("kubernetes", "kube-load-balancer")


@pytest.fixture
def announce(program: Program) -> ModuleType:
    return program("kubernetes", "kube-announce")


@pytest.fixture
def watch(program: Program) -> ModuleType:
    return program("kubernetes", "kube_watch.py")


@pytest.fixture
def services() -> dict[str, Object]:
    """By name, as recorded."""
    return {item["metadata"]["name"]: item for item in recorded("services")["items"]}


def without_addresses(services: dict[str, Object]) -> list[Object]:
    """The same Services before they had any."""
    fresh = copy.deepcopy(list(services.values()))
    for service in fresh:
        service["status"]["loadBalancer"] = {}
    return fresh


# --- addresses


def test_services_keep_the_addresses_that_they_have(balancer: ModuleType, services: dict[str, Object]) -> None:
    given, refused = balancer.assign(services.values(), POOL, NAME)
    assert given == {
        "default/web": "172.28.4.192",
        "default/udp": "172.28.4.193",
        "default/local": "172.28.4.194",
        "default/ranges": "172.28.4.195",
        "default/asked": "172.28.4.200",
    }
    wrong = "the address 172.28.4.20 is not one for load balancers: choose one of 172.28.4.192 to 172.28.4.223"
    assert refused == {"default/wrong": wrong}


def test_new_ones_get_the_first_free_ones_and_who_asks_gets_what_it_asks_for(
    balancer: ModuleType, services: dict[str, Object]
) -> None:
    services["web"]["spec"]["loadBalancerIP"] = "172.28.4.193"
    given, _ = balancer.assign(without_addresses(services), POOL, NAME)
    assert given["default/asked"] == "172.28.4.200"
    assert given["default/web"] == "172.28.4.193"
    assert {given[f"default/{name}"] for name in ("udp", "local", "ranges")} == {POOL[0], POOL[2], POOL[3]}


def test_an_address_that_another_has_is_refused(balancer: ModuleType, services: dict[str, Object]) -> None:
    services["asked"]["status"]["loadBalancer"] = {}
    services["asked"]["spec"]["loadBalancerIP"] = "172.28.4.192"
    _, refused = balancer.assign(services.values(), POOL, NAME)
    assert refused["default/asked"] == "the address 172.28.4.192 is in use by default/web"


def test_when_the_range_is_used_up_the_newest_wait(balancer: ModuleType, services: dict[str, Object]) -> None:
    del services["asked"], services["wrong"]
    given, refused = balancer.assign(without_addresses(services), POOL[:3], "the range")
    assert sorted(given.values()) == POOL[:3]
    (message,) = refused.values()
    assert message == "all 3 addresses of the range are in use: delete a Service of type LoadBalancer"
    del services[next(iter(given)).partition("/")[2]]
    assert not balancer.assign(services.values(), POOL[:4], "the range")[1]


def test_two_with_the_same_address_do_not_both_keep_it(balancer: ModuleType, services: dict[str, Object]) -> None:
    services["udp"]["status"] = services["web"]["status"]
    given, _ = balancer.assign(services.values(), POOL, NAME)
    assert given["default/web"] == "172.28.4.192"
    assert given["default/udp"] == "172.28.4.193"


def test_an_address_of_another_network_is_replaced(balancer: ModuleType, services: dict[str, Object]) -> None:
    given, _ = balancer.assign([services["web"]], [f"172.28.9.{last}" for last in range(192, 224)], NAME)
    assert given == {"default/web": "172.28.9.192"}


def test_whose_services_are_ours(balancer: ModuleType, services: dict[str, Object]) -> None:
    assert balancer.is_ours(services["web"])
    assert not balancer.is_ours(services["kubernetes"])
    services["web"]["spec"]["loadBalancerClass"] = "example.org/other"
    assert not balancer.is_ours(services["web"])


# --- agents


def test_agents_that_can_announce(balancer: ModuleType) -> None:
    nodes = recorded("nodes")["items"]
    addresses = [balancer.address_of(node) for node in nodes]
    assert addresses == ["172.28.4.4", "172.28.4.5"]
    assert balancer.able(nodes, set(addresses)) == AGENTS
    assert balancer.able(nodes, {"172.28.4.5"}) == ["agent-2"]
    conditions = nodes[1]["status"]["conditions"]
    next(c for c in conditions if c["type"] == "Ready")["status"] = "Unknown"
    assert balancer.able(nodes, set(addresses)) == ["agent-1"]
    assert balancer.able(nodes[1:], set(addresses)) == ["agent-2"]  # none is ready: better than none at all
    nodes[0]["metadata"]["labels"][balancer.EXCLUDED] = ""
    assert balancer.able(nodes[:1], set(addresses)) == []


def test_agents_with_pods_of_a_service(balancer: ModuleType) -> None:
    slices = recorded("endpointslices")["items"]
    assert balancer.with_endpoints(slices, "default/local") == {"agent-1"}
    assert balancer.with_endpoints(slices, "default/udp") == {"agent-2"}
    assert balancer.with_endpoints(slices, "default/web") == {"agent-1", "agent-2"}
    assert balancer.with_endpoints(slices, "other/web") == set()


def test_addresses_stay_where_they_are(balancer: ModuleType) -> None:
    before = balancer.placement(recorded("configmap"))
    assert before == {
        "172.28.4.192": "agent-2",
        "172.28.4.193": "agent-2",
        "172.28.4.194": "agent-1",
        "172.28.4.195": "agent-2",
        "172.28.4.200": "agent-2",
    }
    given = {f"default/{number}": address for number, address in enumerate(before)}
    assert balancer.place(given, {}, AGENTS, before) == before
    assert balancer.changes(recorded("configmap"), before) == {}


def test_an_agents_addresses_go_to_the_others(balancer: ModuleType) -> None:
    before = balancer.placement(recorded("configmap"))
    given = {f"default/{number}": address for number, address in enumerate(before)}
    placed = balancer.place(given, {}, ["agent-1", "agent-3"], before)
    assert placed["172.28.4.194"] == "agent-1"
    assert sorted(placed.values()) == ["agent-1"] * 3 + ["agent-3"] * 2
    moved = balancer.changes(recorded("configmap"), placed)
    assert moved["agent-2"] is None
    assert balancer.placement({"data": {agent: text for agent, text in moved.items() if text}}) == placed
    assert balancer.place(given, {}, [], before) == {}


def test_requests_that_stay_on_their_agent_come_to_one_with_pods(balancer: ModuleType) -> None:
    given = {"default/local": POOL[0]}
    before = {POOL[0]: "agent-2"}
    assert balancer.place(given, {"default/local": {"agent-1"}}, AGENTS, before) == {POOL[0]: "agent-1"}
    # Nobody has one: it is refused there, where without an agent it would not be answered at all.
    assert balancer.place(given, {"default/local": set()}, AGENTS, before) == before


def test_a_machine_that_refuses_a_connection_is_there(balancer: ModuleType) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert balancer.answers(["127.0.0.1"], 2, port) == {"127.0.0.1"}
    assert balancer.answers(["127.0.0.1", "127.0.0.2"], 2, port) == {"127.0.0.1", "127.0.0.2"}
    assert balancer.answers([], 1) == set()


def test_one_that_does_not_accept_is_not(balancer: ModuleType) -> None:
    # A queue of one that is full: the kernel answers no further connection.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        assert balancer.answers(["127.0.0.1"], 0.3, port) == set()
        for each in waiting:
            each.close()


# --- what it tells the API server


class Requests:
    """A Server that notes what it is asked, and creates everything."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str, Any]] = []

    def request(self, method: str, path: str, body: Any = None, _kind: str = "") -> Any:
        self.made.append((method, path, copy.deepcopy(body)))
        return type("Answer", (), {"status": 200, "text": ""})


class Known:
    known = True

    def __init__(self, items: list[Object], key: Callable[[Object], str]) -> None:
        self.objects = {key(item): item for item in items}


@pytest.fixture
def acting(balancer: ModuleType, services: dict[str, Object]) -> Any:
    """A balancer of the recorded cluster, without its threads."""
    made = balancer.Balancer.__new__(balancer.Balancer)
    made.pool, made.pool_name, made.told, made.server = POOL, NAME, {}, Requests()
    made.services = Known(list(services.values()), balancer.key)
    given = {balancer.key(one): one for one in services.values() if balancer.ingress(one)}
    for name, ports in balancer.publish(given, dict.fromkeys(given, "")).items():
        text = ",".join(f"{port}=service{number}" for port, number in ports.items())
        given[name]["metadata"].setdefault("annotations", {})["minicluster/published-ports"] = text
    made.nodes = Known(recorded("nodes")["items"], balancer.key)
    made.slices = Known(recorded("endpointslices")["items"], balancer.key)
    made.config = Known([recorded("configmap")], balancer.key)
    made.answering = type("Answering", (), {"ask": (), "now": {"172.28.4.4", "172.28.4.5"}})()
    return made


def test_nothing_is_written_where_all_is_right(acting: Any) -> None:
    del acting.services.objects["default/wrong"]
    assert acting.act()
    assert acting.server.made == []
    assert acting.answering.ask == ["172.28.4.4", "172.28.4.5"]


def test_a_refusal_is_told_once(acting: Any) -> None:
    acting.act()
    acting.act()
    ((method, path, event),) = acting.server.made
    assert (method, path) == ("POST", "/api/v1/namespaces/default/events")
    assert (event["type"], event["reason"], event["involvedObject"]["name"]) == ("Warning", "AllocationFailed", "wrong")


def test_the_status_is_written_after_the_agent_is_told(acting: Any, services: dict[str, Object]) -> None:
    services["web"]["status"]["loadBalancer"] = {}
    acting.services.objects = {"default/web": services["web"]}
    acting.config.objects = {}
    acting.act()
    assert [(method, path) for method, path, _ in acting.server.made] == [
        ("POST", "/api/v1/namespaces/kube-system/configmaps"),
        ("PATCH", "/api/v1/namespaces/default/services/web/status"),
        ("POST", "/api/v1/namespaces/default/events"),
        ("POST", "/api/v1/namespaces/default/events"),
    ]
    assert acting.server.made[0][2]["data"] == {"agent-1": "172.28.4.192"}
    assert acting.server.made[1][2] == {"status": {"loadBalancer": {"ingress": [{"ip": "172.28.4.192"}]}}}


def of_ports(name: str, *ports: int, leads: str = "", protocol: str = "TCP", created: str = "1") -> Object:
    annotations = {"minicluster/published-ports": leads} if leads else {}
    metadata = {"namespace": "d", "name": name, "creationTimestamp": created, "annotations": annotations}
    spec = {"type": "LoadBalancer", "ports": [{"port": port, "protocol": protocol} for port in ports]}
    return {"metadata": metadata, "spec": spec, "status": {"loadBalancer": {"ingress": [{"ip": f"10.0.0.{name}"}]}}}


def published(balancer: ModuleType, *services: Object) -> dict[str, dict[int, int]]:
    by_name = {balancer.key(one): one for one in services}
    found: dict[str, dict[int, int]] = balancer.publish(by_name, dict.fromkeys(by_name, ""))
    return found


def test_published_ports_go_to_the_oldest_services(balancer: ModuleType) -> None:
    found = published(balancer, of_ports("1", 80, 443, created="2"), of_ports("2", 53, 80, 8080, created="1"))
    assert found == {"d/2": {53: 1, 80: 2, 8080: 3}, "d/1": {80: 4}}


def test_a_published_port_stays_where_it_leads(balancer: ModuleType) -> None:
    old, new = of_ports("1", 80, created="1"), of_ports("2", 80, 81, leads="80=service1,81=service9", created="2")
    assert published(balancer, old, new) == {"d/1": {80: 2}, "d/2": {80: 1, 81: 3}}
    both = of_ports("3", 80, leads="80=service1", created="0")
    assert published(balancer, both, new) == {"d/3": {80: 1}, "d/2": {80: 2, 81: 3}}


def test_udp_has_no_published_port(balancer: ModuleType) -> None:
    assert published(balancer, of_ports("1", 53, protocol="UDP")) == {"d/1": {}}


def test_the_annotation_is_written_and_followed(acting: Any, services: dict[str, Object]) -> None:
    del services["web"]["metadata"]["annotations"]["minicluster/published-ports"]
    acting.services.objects = {"default/web": services["web"]}
    acting.act()
    method, path, body = acting.server.made[-1]
    assert (method, path) == ("PATCH", "/api/v1/namespaces/default/services/web")
    assert body == {"metadata": {"annotations": {"minicluster/published-ports": "80=service1"}}}
    services["web"]["metadata"]["annotations"] |= body["metadata"]["annotations"]
    seen: list[dict[int, str]] = []
    acting.forwards = type("Forwards", (), {"show": staticmethod(seen.append)})
    acting.forward()
    services["web"]["spec"]["type"] = "ClusterIP"
    acting.forward()
    assert seen == [{1: "172.28.4.192:80"}, {}]


def test_a_port_of_the_master_follows_its_service(
    balancer: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = tmp_path / "noted"
    socat = tmp_path / "socat"
    socat.write_text(f'#!/bin/sh\necho "$$ $*" >>{noted}\nexec sleep 1000\n')
    socat.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    forwards = balancer.Forwards()

    def started(count: int) -> list[tuple[int, str]]:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            lines = [line.partition(" ") for line in noted.read_text().splitlines()] if noted.exists() else []
            if len(lines) >= count:
                return [(int(number), text) for number, _, text in lines]
            time.sleep(0.02)
        raise AssertionError(f"not {count}: {lines}")

    def runs(number: int) -> bool:
        return Path(f"/proc/{number}").exists()

    forwards.show({1: "172.28.4.192:80"})
    ((first, text),) = started(1)
    assert text == "TCP-LISTEN:8001,fork,reuseaddr,backlog=128 TCP:172.28.4.192:80,connect-timeout=5"
    forwards.show({1: "172.28.4.192:80", 2: "172.28.4.193:443"})
    assert runs(first)
    assert [text.split(",")[0] for _, text in started(2)] == ["TCP-LISTEN:8001", "TCP-LISTEN:8002"]
    forwards.show({1: "172.28.4.194:80"})
    (_, (second, _), (third, text)) = started(3)
    assert "TCP:172.28.4.194:80" in text
    assert (runs(first), runs(second), runs(third)) == (False, False, True)
    os.kill(third, signal.SIGKILL)
    while forwards._running[1][1].poll() is None:
        time.sleep(0.02)
    forwards.show({1: "172.28.4.194:80"})
    assert runs(started(4)[-1][0])
    forwards.show({})
    assert not any(runs(number) for number, _ in started(4))


def test_services_are_told_with_their_ports(program: Program) -> None:
    told = list(program("kubernetes", "kube-services").ports(recorded("services"), recorded("configmap")))
    web = next(one for one in told if one["name"] == "default/web")
    assert web == {
        "name": "default/web", "node": "agent-2", "address": "172.28.4.192", "port": 80, "protocol": "tcp"
    }  # fmt: skip
    assert {one["name"] for one in told} == {f"default/{name}" for name in ("web", "udp", "local", "ranges", "asked")}
    leading = {"items": [of_ports("1", 80, 81, leads="81=service2")]}
    told = list(program("kubernetes", "kube-services").ports(leading, {}))
    assert [(one["port"], one.get("at")) for one in told] == [(80, None), (81, "service2")]


def test_a_service_that_is_none_any_more_has_no_address(acting: Any, services: dict[str, Object]) -> None:
    services["web"]["spec"]["type"] = "ClusterIP"
    acting.services.objects = {"default/web": services["web"]}
    assert not acting.act()
    assert acting.answering.ask == ()
    assert acting.server.made == [
        (
            "PATCH",
            "/api/v1/namespaces/kube-system/configmaps/load-balancer",
            {"data": {"agent-1": None, "agent-2": None}},
        ),
        ("PATCH", "/api/v1/namespaces/default/services/web/status", {"status": {"loadBalancer": {"ingress": []}}}),
    ]


def test_what_another_load_balancer_has_given_stays(acting: Any, services: dict[str, Object]) -> None:
    services["web"]["spec"]["loadBalancerClass"] = "example.org/other"
    services["web"]["status"]["loadBalancer"] = {"ingress": [{"ip": "192.0.2.1"}]}
    acting.services.objects, acting.config.objects = {"default/web": services["web"]}, {}
    acting.act()
    assert acting.server.made == []


# --- several masters


class Store:
    """A Server with one Lease, which has a version as the API server's objects have."""

    def __init__(self) -> None:
        self.lease: Object | None = None
        self.up = True

    def request(self, method: str, _path: str, body: Any = None) -> Any:
        if not self.up:
            raise OSError("no answer")
        status, before = 200, int(self.lease["metadata"]["resourceVersion"]) if self.lease else 0
        if method == "GET":
            status = 200 if self.lease else 404
        elif method == "PUT" and int(body["metadata"]["resourceVersion"]) != before:
            status = 409
        else:
            self.lease = copy.deepcopy(body)
            self.lease["metadata"]["resourceVersion"] = str(before + 1)
            status = 201 if method == "POST" else 200
        return type("Answer", (), {"status": status, "json": copy.deepcopy(self.lease)})


def test_one_master_acts_until_it_is_gone(balancer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    store = Store()
    first, second = balancer.Lease(store, "master-1"), balancer.Lease(store, "master-2")
    assert (first.held(), second.held()) == (True, False)
    for _ in range(10):
        clock[0] += 2
        assert (first.held(), second.held()) == (True, False)
    clock[0] += 4  # master-1 is gone
    assert not second.held()
    clock[0] += 2
    assert second.held()
    assert not first.held()
    store.up = False
    clock[0] += 2
    assert not second.held()


# --- the agents


def test_the_frame_says_where_an_address_is(announce: ModuleType) -> None:
    frame = announce.gratuitous(bytes.fromhex("0242ac1c0404"), "172.28.4.192")
    assert frame.hex(" ", 2) == (
        "ffff ffff ffff 0242 ac1c 0404 0806 0001 0800 0604 0001 0242 ac1c 0404 ac1c 04c0 0000 0000 0000 ac1c 04c0"
    )


def test_an_agents_addresses(announce: ModuleType) -> None:
    config = {"kube-system/load-balancer": recorded("configmap")}
    assert announce.wanted(config, "agent-1") == {"172.28.4.194"}
    assert len(announce.wanted(config, "agent-2")) == 4
    assert announce.wanted(config, "agent-3") == announce.wanted({}, "agent-1") == set()


def test_addresses_of_devices(announce: ModuleType) -> None:
    shown = json.loads(
        '[{"ifname":"lo","addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8},'
        '{"family":"inet","local":"172.28.4.194","prefixlen":32}]},'
        '{"ifname":"eth0","addr_info":[{"family":"inet","local":"172.28.4.4","prefixlen":24}]}]'
    )
    assert announce.owned(shown, announce.ipaddress.IPv4Network("172.28.4.192/27")) == {"172.28.4.194"}
    assert announce.device_of(shown, "172.28.4.4") == "eth0"
    with pytest.raises(OSError, match="no device has the address"):
        announce.device_of(shown, "172.28.4.9")


# --- watching


def test_a_watch_follows_what_changes(watch: ModuleType, program: Program) -> None:
    config = recorded("configmap")
    listed = json.dumps({"metadata": {"resourceVersion": "7"}, "items": []}).encode()
    head = b"HTTP/1.1 200 OK\r\n"
    events = [
        {"type": "ADDED", "object": config},
        {"type": "MODIFIED", "object": {**config, "data": {"agent-1": "172.28.4.192"}}},
    ]
    lines = b"".join(json.dumps(event).encode() + b"\n" for event in events)
    half = len(lines) // 3  # lines do not end where chunks do
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (lines[:half], lines[half:]))
    watched = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    http = program("_lib", "http_api.py")
    changed = threading.Event()
    answer = head + b"Content-Length: %d\r\n\r\n" % len(listed) + listed
    with serving([answer], [watched]) as (port, asked):
        made = watch.Watched.__new__(watch.Watched)
        made._server, made._path, made._changed = http.Server("127.0.0.1", port), "/things?x=1", changed
        made.objects, made.known = {}, False
        made._follow()
    assert made.known
    assert changed.is_set()
    assert made.objects["kube-system/load-balancer"]["data"] == {"agent-1": "172.28.4.192"}
    assert asked[0][0].startswith(b"GET /things?x=1 HTTP/1.1")
    assert asked[1][0].startswith(b"GET /things?x=1&watch=1&resourceVersion=7&timeoutSeconds=300 HTTP/1.1")


def test_changes_of_objects(watch: ModuleType) -> None:
    config = recorded("configmap")
    before = {"kube-system/load-balancer": config}
    assert watch.after({}, {"type": "ADDED", "object": config}) == before
    assert watch.after(before, {"type": "DELETED", "object": config}) == {}
    assert before == {"kube-system/load-balancer": config}


@pytest.mark.parametrize("answer", [b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n", CHUNKED + b"ff\r\nab"])
def test_a_watch_that_is_refused_or_cut_short_is_an_error(program: Program, answer: bytes) -> None:
    http = program("_lib", "http_api.py")
    with pytest.raises(OSError, match=r"HTTP 410|closed the connection"):
        list(http.read_lines(io.BytesIO(answer)))
