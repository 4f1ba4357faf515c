"""The programs of the consul profile, on what a real server with ACLs answered."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from tests.scripts.conftest import DATA, Node

Program = Callable[[str, str], ModuleType]
RECORDED: dict[str, tuple[int, Any]] = json.loads((DATA / "consul" / "answers.json").read_text())


def get(path: str) -> Any:
    return copy.deepcopy(RECORDED[path][1])


def text(path: str) -> str:
    answer = RECORDED[path][1]
    return answer if isinstance(answer, str) else json.dumps(answer)


@pytest.fixture
def reset(program: Program) -> ModuleType:
    return program("consul", "consul-reset")


@pytest.fixture
def members(program: Program) -> ModuleType:
    return program("consul", "consul-members")


def test_the_catalog_is_removed_but_for_the_nodes_and_consul_itself(reset: ModuleType) -> None:
    assert [request for request in reset.stored(get) if request[1] == "catalog/deregister"] == [
        ("PUT", "catalog/deregister", {"Node": "outside"}),
        ("PUT", "catalog/deregister", {"Node": "outside", "ServiceID": "old"}),
        ("PUT", "catalog/deregister", {"Node": "master-1", "ServiceID": "we/b 1"}),
        ("PUT", "catalog/deregister", {"Node": "master-1", "CheckID": "service:we/b 1"}),
    ]


def test_sessions_queries_and_intentions_are_removed(reset: ModuleType) -> None:
    found = [(method, path.rpartition("/")[0]) for method, path, _ in reset.stored(get) if not path.startswith("cat")]
    assert found == [("PUT", "session/destroy"), ("DELETE", "query"), ("DELETE", "connect/intentions")]


def test_a_service_name_is_quoted_in_its_path(reset: ModuleType) -> None:
    asked = []
    list(reset.stored(lambda path: (asked.append(path), get(path))[1]))  # type: ignore[func-returns-value]
    assert "catalog/service/we%2Fb%201" in asked


def test_configuration_entries_of_the_kinds_that_it_knows_are_removed(reset: ModuleType) -> None:
    """Consul 1.8 knows less than half of the kinds, and names those that it does not in an error."""
    assert list(reset.entries(text)) == [
        ("DELETE", "config/service-defaults/web", None),
        ("DELETE", "config/proxy-defaults/global", None),
    ]
    assert any(not text(f"config/{kind}").startswith("[") for kind in reset.KINDS)


def test_another_error_about_entries_is_not_taken_for_none(reset: ModuleType) -> None:
    with pytest.raises(reset.NotYet, match="No cluster leader"):
        list(reset.entries(lambda path: "No cluster leader"))


def test_users_acls_are_removed_and_consuls_own_stay(reset: ModuleType) -> None:
    found = list(reset.acls(get))
    assert [(method, path.rpartition("/")[0]) for method, path, _ in found] == [
        ("DELETE", "acl/token"),
        ("PUT", "acl/token"),
        ("DELETE", "acl/policy"),
        ("DELETE", "acl/role"),
    ]
    assert found[1][2] == {"AccessorID": reset.ANONYMOUS, "Description": "Anonymous Token"}
    own = get("acl/token/self")["AccessorID"]
    assert not any(own in path for _, path, _ in found)


def test_an_anonymous_token_without_rights_stays_as_it_is(reset: ModuleType) -> None:
    def without(path: str) -> Any:
        answer = get(path)
        for token in answer if path == "acl/tokens" else ():
            token.pop("Policies", None)
        return answer

    assert not any(method == "PUT" for method, _, _ in reset.acls(without))


class Agent:
    """Has one key, and one intention that another refers to: it refuses to remove it at first."""

    token = ""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []
        self.left = ["one", "two"]

    def get(self, path: str) -> Any:
        if path == "connect/intentions":
            return [{"ID": name} for name in self.left]
        return {} if path == "catalog/services" else []

    def text(self, path: str) -> str:
        return "invalid config entry kind"

    def send(self, method: str, path: str, body: Any = None) -> None:
        self.sent.append((method, path))
        name = path.rpartition("/")[2]
        if name == "one" and "two" in self.left:
            raise self.refusal("in use")
        if name in self.left:
            self.left.remove(name)

    refusal: type[Exception]


def test_rounds_go_on_until_nothing_is_left(reset: ModuleType) -> None:
    agent = Agent()
    agent.refusal = reset.NotYet
    with pytest.raises(reset.NotYet, match="in use"):
        reset.reset(agent)
    assert agent.sent[0] == ("DELETE", "kv/?recurse")  # before sessions, whose locks would be kept
    with pytest.raises(reset.NotYet, match="objects keep reappearing: connect/intentions/one"):
        reset.reset(agent)
    reset.reset(agent)
    assert agent.left == []


def found(members: ModuleType, raft: Any, gossip: Any, behind: str = "") -> dict[str, tuple[bool, bool, bool]]:
    return {m["name"]: (m["ready"], m["voter"], m["leader"]) for m in members.members(raft, gossip, behind)}


def with_status(gossip: list[dict[str, Any]], **status: int) -> list[dict[str, Any]]:
    changed = {name.replace("_", "-"): value for name, value in status.items()}
    return [member | {"Status": changed.get(member["Name"], member["Status"])} for member in gossip]


RAFT, GOSSIP = get("operator/raft/configuration"), get("agent/members")
HEALTHY = {
    "master-1": (True, True, True),
    "master-2": (True, True, False),
    "master-3": (True, True, False),
    "agent-1": (True, False, False),
    "agent-2": (True, False, False),
}


def test_the_cluster_that_was_recorded(members: ModuleType) -> None:
    leader = get("status/leader").rpartition(":")[0]
    assert [s["Address"].rpartition(":")[0] for s in RAFT["Servers"] if s["Leader"]] == [leader]
    assert found(members, RAFT, GOSSIP) == HEALTHY


def test_a_server_that_raft_does_not_know_by_name_is_known_by_its_id(members: ModuleType) -> None:
    raft = {"Servers": [server | {"Node": "(unknown)"} for server in RAFT["Servers"]]}
    assert found(members, raft, GOSSIP) == HEALTHY


def test_servers_that_are_dead_or_behind_are_not_ready(members: ModuleType) -> None:
    gossip = with_status(GOSSIP, master_2=4)
    assert found(members, RAFT, gossip, "master-3") == HEALTHY | {
        "master-2": (False, True, False),
        "master-3": (False, True, False),
    }
    details = {m["name"]: m.get("detail") for m in members.members(RAFT, gossip, "master-3")}
    assert (details["master-2"], details["master-3"]) == ("", "has not caught up yet")


def test_a_server_that_autopilot_counts_as_unhealthy_for_long_is_an_alarm(members: ModuleType) -> None:
    servers = [
        {"Name": f"master-{n}", "Healthy": healthy, "SerfStatus": serf, "StableSince": stable, "LastContact": "3.2s"}
        for n, healthy, serf, stable in (
            (1, True, "alive", "2026-11-29T10:00:00Z"),
            (2, False, "alive", "2026-11-29T10:00:00.12345Z"),
            (3, False, "failed", "2026-11-29T10:00:00Z"),
        )
    ]
    now = 1795946400.0  # 2026-11-29T10:00:00Z
    assert members.failed({"Servers": servers}, now + 10) == {}
    told = members.failed({"Servers": servers}, now + 40)
    assert told == {"master-2": "autopilot counts it as unhealthy: last contact 3.2s"}
    assert members.failed({}, now) == {}
    said = {m["name"]: m for m in members.members(RAFT, GOSSIP, "", told)}
    assert (said["master-2"]["ready"], said["master-2"]["detail"]) == (True, told["master-2"])
    assert said["master-2"]["fix"] == "minicluster restart master-2"
    assert "fix" not in said["master-1"]
    behind = {m["name"]: m for m in members.members(RAFT, GOSSIP, "master-2", told)}["master-2"]
    assert (behind["ready"], "fix" in behind) == (False, False), "it was just started: it gets ready by itself"


def test_a_node_in_maintenance_is_ready_and_told(members: ModuleType) -> None:
    checks = [
        {"Node": "agent-1", "CheckID": "_node_maintenance", "Notes": "disk"},
        {"Node": "agent-2", "CheckID": "_service_maintenance:web", "Notes": ""},
        {"Node": "master-1", "CheckID": "_node_maintenance"},
    ]
    maintenance = members.maintained(checks)
    assert maintenance == {
        "agent-1": "maintenance mode: disk",
        "master-1": "maintenance mode: no reason given",
    }
    said = {m["name"]: m for m in members.members(RAFT, GOSSIP, maintenance=maintenance)}
    for name, why in maintenance.items():
        assert (said[name]["ready"], said[name]["detail"]) == (True, why)
        assert "consul maint -disable" in said[name]["fix"]
    assert "fix" not in said["agent-2"]
    # One that was just started is not ready for a moment: a fix would end `start` at once.
    failed = [{**member, "Status": 4} if member["Name"] in maintenance else member for member in GOSSIP]
    said = {m["name"]: m for m in members.members(RAFT, failed, maintenance=maintenance)}
    assert [(said[name]["ready"], said[name]["detail"], "fix" in said[name]) for name in maintenance] == [
        (False, "", False)
    ] * 2


def test_a_refused_token_is_told_of_servers_that_answer(members: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fix of one that is not ready, as it is for a moment after its start, would end `start` at once."""

    class Agent:
        def __init__(self, address: str) -> None:
            self.address = address

        def get(self, _path: str) -> str:
            return "" if self.address == "10.0.0.3" else "10.0.0.2:8300"

    monkeypatch.setattr(members, "Agent", Agent)
    nodes = {"master-1": "10.0.0.2", "master-2": "10.0.0.3", "agent-1": "10.0.0.4"}
    found = members.members_without_rights("10.0.0.2:8300", ["10.0.0.2:8300", "10.0.0.3:8300"], nodes)
    assert [(m["name"], m["ready"], m["voter"], "fix" in m) for m in found] == [
        ("master-1", True, True, True),
        ("master-2", False, True, False),
        ("agent-1", True, False, False),
    ]


#: Answers GET operator/keyring with what is in the file "answer"; any other status than 200 is an error of curl's.
ASK = """#!/bin/sh
echo "$*" >>{root}/asked
[ -s {root}/answer ] || {{ echo "curl: (7) connection refused" >&2; exit 7; }}
! grep -q 403 {root}/answer || {{ cat {root}/answer >&2; exit 22; }}
[ ! -e {root}/answered ] || {{ cat {root}/answered; mv {root}/answered {root}/told; exit 22; }}
printf %s "$(cat {root}/answer)"
"""


@pytest.fixture
def keys(node: Node) -> Node:
    node.install("consul", "consul-keys")
    node.program("consul-ask", ASK.format(root=node.root))
    node.write("consul/config/agent.json", '{"encrypt": "first", "retry_join": ["172.28.0.2"]}')
    return node


KEYRING = [
    {"WAN": True, "Keys": {"wan": 1}},
    {"WAN": False, "Keys": {"first": 3, "second": 3}, "PrimaryKeys": {"second": 3}},
]


def written(node: Node) -> Any:
    file = node.root / "consul/data/serf/local.keyring"
    return json.loads(file.read_text()) if file.exists() else None


def test_a_new_node_has_the_keys_that_the_cluster_has_now(keys: Node) -> None:
    keys.write("answer", json.dumps(KEYRING))
    assert keys.run("consul-keys", "172.28.0.2", "172.28.0.3").returncode == 0
    assert written(keys) == ["second", "first"]
    assert (keys.root / "consul/data/serf/local.keyring").stat().st_mode & 0o777 == 0o600
    # Consul before 1.10 does not say which is in use: one that all have goes first.
    keys.write("answer", json.dumps([{"WAN": False, "Keys": {"all": 3, "ancient": 1}}]))
    assert keys.run("consul-keys").returncode == 0
    assert written(keys) == ["all", "ancient"]


def test_a_node_that_gets_no_answer_keeps_the_keys_that_it_has(keys: Node) -> None:
    keys.write("consul/data/serf/local.keyring", '["own"]')
    keys.write("consul/data/serf/local.snapshot", "alive: master-3 172.28.0.4:8301\n")
    assert keys.run("consul-keys").returncode == 0
    assert written(keys) == ["own"]
    asked = (keys.root / "asked").read_text().splitlines()
    assert sorted(asked) == [f"GET 172.28.0.{n} operator/keyring" for n in (2, 4)]


@pytest.mark.parametrize("own", [True, False])
def test_a_server_that_lacks_the_answer_of_a_node_is_asked_again(keys: Node, own: bool) -> None:
    """One that has died counts as alive for some seconds."""
    if own:
        keys.write("consul/data/serf/local.keyring", '["own"]')
    keys.write("answer", json.dumps(KEYRING))
    keys.write("answered", "1 error occurred:\n\t* dc1 (LAN) error: 2/3 nodes reported success\n")
    assert keys.run("consul-keys", timeout=10).returncode == 0
    assert written(keys) == ["second", "first"]
    assert (keys.root / "asked").read_text().splitlines() == ["GET 172.28.0.2 operator/keyring"] * 2


def test_a_client_waits_for_servers_that_start_with_it(keys: Node) -> None:
    keys.install("consul", "consul-client")
    keys.program("consul", '#!/bin/sh\necho "$*"\n')
    keys.write("consul/data/serf/local.keyring", '["own"]')
    started = threading.Timer(0.3, keys.write, ("answer", json.dumps(KEYRING)))
    started.start()
    assert keys.run("consul-client", timeout=10).stdout.startswith("agent ")
    started.join()
    assert written(keys) == ["second", "first"]


def test_a_refusal_is_not_waited_for(keys: Node) -> None:
    keys.write("answer", "curl: (22) The requested URL returned error: 403\n")
    assert keys.run("consul-keys", timeout=10).returncode == 0
    assert written(keys) is None


@pytest.mark.parametrize(
    ("data", "asked", "joins"),
    [
        (["config/bootstrap.json"], "", False),
        (["data/join-address"], "10 172.28.0.3", True),
        (["data/raft/raft.db"], "3", False),
        (["data/raft/raft.db", "data/join-address"], "3", True),  # without a leader an answer takes all of that time
    ],
    ids=["a first server", "one that joins", "with data", "with data, and joined once"],
)
def test_a_server_that_starts_asks_for_keys_before_its_agent(
    node: Node, data: list[str], asked: str, joins: bool
) -> None:
    node.install("consul", "consul-server")
    node.program("consul-keys", f'#!/bin/sh\necho "${{CONSUL_ASK_SECONDS:-10}} $*" >{node.root}/asked\n')
    node.program("consul", '#!/bin/sh\necho "$*"\n')
    for path in data:
        node.write(f"consul/{path}", "172.28.0.3\n")
    done = node.run("consul-server")
    said = node.root / "asked"
    assert (said.read_text().strip() if said.exists() else "") == asked
    assert ("-retry-join=172.28.0.3" in done.stdout.split()) == joins, done


def test_without_encryption_nobody_is_asked(keys: Node) -> None:
    keys.write("consul/config/agent.json", '{"retry_join": []}')
    assert keys.run("consul-keys").returncode == 0
    assert not (keys.root / "asked").exists()


def test_agents_are_members_until_they_have_left(members: ModuleType) -> None:
    gossip = with_status(GOSSIP, agent_1=3, agent_2=4)
    expected = {name: state for name, state in HEALTHY.items() if name != "agent-1"}
    assert found(members, RAFT, gossip) == expected | {"agent-2": (False, False, False)}


def test_a_server_without_a_vote_is_not_ready(members: ModuleType) -> None:
    raft = {"Servers": [server for server in RAFT["Servers"] if server["Node"] != "master-2"]}
    assert found(members, raft, GOSSIP)["master-2"] == (False, False, False)
    waiting = {"Servers": [server | {"Voter": server["Node"] != "master-2"} for server in RAFT["Servers"]]}
    assert found(members, waiting, GOSSIP)["master-2"] == (False, False, False)


def test_without_a_leader_the_servers_that_are_alive_are_told(
    members: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Consul holds requests that need a leader until there is one: only what needs none is asked."""
    raft = {"Servers": [{**server, "Leader": False} for server in RAFT["Servers"]]}
    answers = {"status/leader": "", "operator/raft/configuration?stale": raft}
    alive = next(server["Address"] for server in raft["Servers"] if members.name_of(server) == "master-1")
    monkeypatch.setattr(members, "listens", lambda address: address == alive)

    class Leaderless:
        def get(self, path: str) -> Any:
            return answers[path]

    monkeypatch.setattr(members, "Agent", Leaderless)
    with pytest.raises(SystemExit):
        members.main()
    said = capsys.readouterr()
    assert members.NO_LEADER in said.err
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert {row["name"]: row["ready"] for row in rows} == {"master-1": True, "master-2": False, "master-3": False}


def test_a_refusal_while_the_leader_is_lost_is_no_traceback(
    members: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Losing:
        def __init__(self, *_address: str) -> None:
            pass

        def get(self, path: str) -> Any:
            if path == "status/leader":
                return "172.28.0.2:8300"
            raise members.Refused("403") if path == "operator/raft/configuration" else OSError("no answer")

    monkeypatch.setattr(members, "Agent", Losing)
    monkeypatch.setattr("sys.argv", ["consul-members", "master-1=172.28.0.2"])
    with pytest.raises(SystemExit):
        members.main()
    assert members.NO_LEADER in capsys.readouterr().err


@pytest.fixture
def workload(program: Program) -> ModuleType:
    return program("consul", "consul-workload")


def test_the_workload_is_the_instances_of_services_and_the_keys(workload: ModuleType) -> None:
    service = {"ID": "web-1", "Service": "web", "Port": 80}
    entry = {"Node": {"Node": "agent-1"}, "Service": service, "Checks": [{"Status": "passing", "Output": ""}]}
    failing = {**entry, "Checks": [{"Status": "critical", "Output": "<b>refused</b>"}]}
    answers = {
        "catalog/services": {"consul": [], "we/b": []},
        "health/service/we%2Fb": [entry, failing],
        "kv/?keys": ["a", "b/c"],
    }
    assert list(workload.rows(answers.__getitem__)) == [
        {
            "name": "web-1",
            "node": "agent-1",
            "group": "web",
            "state": "passing",
            "ready": True,
            "detail": "port 80",
        },
        {
            "name": "web-1",
            "node": "agent-1",
            "group": "web",
            "state": "critical",
            "ready": False,
            "detail": "<b>refused</b>",
        },
        {"name": "2 keys", "group": "keys"},
    ]
