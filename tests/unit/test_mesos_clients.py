"""The clients of Mesos and Marathon, against local servers that replay recorded answers, errors and redirects."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from minicluster.contrib.mesos.client import Mesos, Task, tasks_of
from minicluster.contrib.mesos.http import Client, HTTPError
from minicluster.contrib.mesos.marathon import Definition, Deployment, Marathon, applications, read
from minicluster.errors import MiniclusterError, NotReady, UsageError
from tests.replay import DATA, Answer, Reply, Request, Server, master, recorded, recorded_json, said, serving

VALUES = {"MINICLUSTER_MASTER_IP": "172.28.0.3", "MINICLUSTER_KV_IP": "172.28.0.2", "OTHER": "x"}
APP = {"id": "web", "cmd": "sleep 1000", "instances": 2}
GROUP = {"id": "/shop", "apps": [APP]}


def client(*servers: str, **routes: str) -> Client:
    return Client("Mesos master", list(servers), routes, "web")


# HTTP


def test_json(free_of_proxies: None) -> None:
    with serving(master()) as server:
        assert client(server.url).get("/version")["version"] == "1.12.0"
        assert client(server.url).get("/health") is None


@pytest.fixture
def free_of_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies that the environment names, and that nothing here is to ask."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://proxy.example:3128")


def test_a_server_that_does_not_respond_is_skipped() -> None:
    with serving(master()) as server, deaf() as (refusing, hanging_up):
        assert client(refusing, hanging_up, server.url).get("/version")["version"] == "1.12.0"


@contextlib.contextmanager
def deaf() -> Iterator[tuple[str, str]]:
    """A port where nothing listens, and one that closes connections as the engine's proxy does while a node starts."""
    import threading

    with socket.create_server(("127.0.0.1", 0)) as probe:
        refusing = probe.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def abort() -> None:
            with contextlib.suppress(OSError):
                while True:
                    listener.accept()[0].close()

        threading.Thread(target=abort, daemon=True).start()
        yield f"http://127.0.0.1:{refusing}", f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_where_none_answers_each_is_named() -> None:
    with deaf() as (refusing, hanging_up), pytest.raises(HTTPError) as caught:
        client(refusing, hanging_up).get("/state")
    assert caught.value.what == "no Mesos master responds"
    assert refusing in caught.value.why
    assert hanging_up in caught.value.why
    assert "minicluster status web" in caught.value.fix


def test_what_may_have_been_heard_is_not_said_to_another() -> None:
    with serving({"/v2/apps": said({})}) as server, deaf() as (refusing, hanging_up):
        with pytest.raises(HTTPError):
            client(hanging_up, server.url).call("POST", "/v2/apps", {})
        assert server.asked == []
        client(refusing, server.url).call("POST", "/v2/apps", {"a": 1})  # a refused connection was not heard
        assert [r.json for r in server.asked] == [{"a": 1}]


def test_a_refusal_says_what_the_server_said() -> None:
    with serving({"/state": Reply(503, b"No leader elected")}) as server, pytest.raises(HTTPError) as caught:
        client(server.url).get("/state")
    assert caught.value.what == "the Mesos master returned 503 Service Unavailable for GET /state"
    assert (caught.value.why, caught.value.status) == ("No leader elected", 503)


def test_what_is_no_json_is_named() -> None:
    with serving({"/state": Reply(200, b"<html>")}) as server, pytest.raises(HTTPError, match="invalid JSON"):
        client(server.url).get("/state")


# Redirects to the leader


def test_the_recorded_redirect_names_no_path_and_is_asked_for_ours() -> None:
    """A follower redirects to ``//localhost:5050``: the leader's address in the cluster's network."""
    with serving(master()) as leader, serving({"/version": recorded("master_redirect")}) as follower:
        found = client(follower.url, **{"localhost:5050": leader.url}).get("/version")
    assert found["version"] == "1.12.0"
    assert [r.path for r in leader.asked] == ["/version"]


@pytest.mark.parametrize("location", ["//172.28.0.4:5050/master/state?x=1", "http://172.28.0.4:5050/master/state?x=1"])
def test_a_redirect_with_a_path_keeps_it(location: str) -> None:
    moved = Reply(307, b"", {"Location": location})
    with serving(master()) as leader, serving({"/state": moved}) as follower:
        client(follower.url, **{"172.28.0.4:5050": leader.url}).get("/state")
    assert [r.path for r in leader.asked] == ["/master/state?x=1"]


def test_a_redirect_keeps_method_and_body() -> None:
    moved = Reply(307, b"", {"Location": "//172.28.0.4:8080/v2/apps"})
    with serving({"/v2/apps": said({"id": "/web"})}) as leader, serving({"/v2/apps": moved}) as follower:
        client(follower.url, **{"172.28.0.4:8080": leader.url}).call("POST", "/v2/apps", APP)
    assert [(r.method, r.json) for r in leader.asked] == [("POST", APP)]


def test_a_login_is_sent_to_each_server_of_the_cluster_and_is_in_no_error() -> None:
    moved = Reply(307, b"", {"Location": "//172.28.0.4:5050"})
    with serving(master()) as leader, serving({"/version": moved}) as follower:
        first, second = (server.url.replace("//", "//minicluster:a%3Ab@") for server in (follower, leader))
        client(first, **{"172.28.0.4:5050": second}).get("/version")
    encoded = "Basic bWluaWNsdXN0ZXI6YTpi"  # minicluster:a:b
    assert [r.login for r in (*follower.asked, *leader.asked)] == [encoded, encoded]
    with deaf() as (refusing, _), pytest.raises(HTTPError) as caught:
        client(refusing.replace("//", "//minicluster:hidden@")).get("/state")
    assert refusing in caught.value.why
    assert "hidden" not in caught.value.why


def test_a_login_is_not_sent_to_strangers() -> None:
    with serving(master()) as stranger:
        moved = Reply(307, b"", {"Location": f"//{stranger.place}"})
        with serving({"/version": moved}) as follower:
            client(follower.url.replace("//", "//minicluster:x@")).get("/version")
    assert [r.login for r in stranger.asked] == [""]


def test_a_leader_that_is_not_published_is_asked_where_it_is() -> None:
    with serving(master()) as leader:
        moved = Reply(307, b"", {"Location": f"//{leader.place}"})
        with serving({"/version": moved}) as follower:
            assert client(follower.url).get("/version")["version"] == "1.12.0"


def test_redirects_that_go_round_end() -> None:
    with serving({}) as one:
        one.answers["/state"] = Reply(307, b"", {"Location": f"//{one.place}/state"})
        with pytest.raises(HTTPError, match="too many times"):
            client(one.url).get("/state")
    assert len(one.asked) == 4


# Mesos


def state(**tasks: str) -> dict[str, Any]:
    """The recorded state with a framework whose tasks are these: ID -> state."""
    data: dict[str, Any] = recorded_json("state")
    done = data["completed_frameworks"][0]
    task = done["completed_tasks"][0]
    ports = {"ports": "[31002-31003, 31009-31009]"}
    running = [
        {**task, "id": id.replace("__", "."), "name": "web", "state": s, "resources": {**task["resources"], **ports}}
        for id, s in tasks.items()
    ]
    data["frameworks"] = [{**done, "name": "marathon", "active": True, "tasks": running, "completed_tasks": []}]
    return data


def test_the_recorded_task() -> None:
    (task,) = tasks_of(recorded_json("state"))
    framework = "6275c029-0751-4561-b276-1fd693070880-0000"
    agent = "6275c029-0751-4561-b276-1fd693070880-S0"
    name = "mesos-execute instance"
    assert task == Task(name, "t1", "t1", "TASK_FINISHED", (), agent, framework, "", active=False)


def test_tasks_that_run_come_with_their_ports() -> None:
    with serving({"/master/state": said(state(web__1="TASK_RUNNING"))}) as server:
        mesos = Mesos(client(server.url), {})
        (running,) = mesos.tasks()
        assert (running.framework, running.id, running.state) == ("marathon", "web.1", "TASK_RUNNING")
        assert running.ports == (31002, 31003, 31009)
        assert [task.id for task in mesos.tasks(ended=True)] == ["web.1", "t1"]


def test_a_task_that_has_ended_and_is_not_acknowledged_does_not_run() -> None:
    data = state(a="TASK_FAILED", b="TASK_RUNNING", c="TASK_KILLED", d="TASK_UNREACHABLE", e="TASK_KILLING")
    with serving({"/master/state": said(data)}) as server:
        mesos = Mesos(client(server.url), {})
        assert [task.id for task in mesos.tasks()] == ["b", "d", "e"]
        assert [task.id for task in mesos.tasks(ended=True)] == ["b", "d", "e", "a", "c", "t1"]


def test_of_many_tasks_the_nearest_are_named() -> None:
    tasks = {f"web__{i}": "TASK_RUNNING" for i in range(30)}
    with cluster_of_one(state(**tasks)) as (mesos, _agent), pytest.raises(UsageError) as caught:
        mesos.log("nothing-like-it")
    assert caught.value.fix.startswith("The nearest of 31: ")
    assert caught.value.fix.count(",") == 4


def test_ports_by_discovery_where_no_resource_tells_them() -> None:
    data = state(a="TASK_RUNNING")
    task = data["frameworks"][0]["tasks"][0]
    del task["resources"]["ports"]
    task["discovery"] = {"visibility": "FRAMEWORK", "ports": {"ports": [{"number": 8088, "name": "http"}]}}
    assert tasks_of(data)[0].ports == (8088,)


@contextlib.contextmanager
def cluster_of_one(data: Any, agent: Any = None, **answers: Answer) -> Iterator[tuple[Mesos, Server]]:
    """A master with a state, and the recorded agent, which the master knows at 127.0.0.1:5051."""
    files = {"/state": said(agent or json.loads((DATA / "agent_state.json").read_text())), **answers}
    with serving({"/master/state": said(data)}) as leader, serving(files) as slave:
        yield Mesos(client(leader.url), {"127.0.0.1:5051": slave.url}), slave


def download(request: Request) -> Reply:
    (path,) = parse_qs(urlsplit(request.path).query)["path"]
    return Reply(200, f"{path}\n".encode())


SANDBOX = (
    "/var/lib/mesos/agent/slaves/6275c029-0751-4561-b276-1fd693070880-S0/frameworks/"
    "6275c029-0751-4561-b276-1fd693070880-0000/executors/t1/runs/2984cbfe-5040-4fc8-bfea-0397400c4e84"
)


@pytest.mark.parametrize("file", ["stdout", "stderr"])
def test_the_log_of_the_recorded_task(file: str) -> None:
    with cluster_of_one(recorded_json("state"), **{"/files/download": download}) as (mesos, _agent):
        task, content = mesos.log("t1", file)
        assert task.id == "t1"
        assert b"".join(content).decode() == f"{SANDBOX}/{file}\n"


def test_a_log_that_is_no_text_comes_as_it_is() -> None:
    data = bytes(range(256)) * 1000
    with cluster_of_one(recorded_json("state"), **{"/files/download": Reply(200, data)}) as (mesos, _agent):
        assert b"".join(mesos.log("t1")[1]) == data


def test_a_file_that_a_sandbox_lacks_is_named_with_those_that_it_has() -> None:
    entries = said([{"path": f"{SANDBOX}/{name}", "size": 1} for name in ("stdout", "stderr", "core")])
    with cluster_of_one(recorded_json("state"), **{"/files/browse": entries}) as (mesos, agent):
        with pytest.raises(UsageError) as caught:
            b"".join(mesos.log("t1", "stdoutt")[1])
        assert (caught.value.what, caught.value.fix) == ("task t1 has no file stdoutt", "Did you mean 'stdout'?")
        assert any(unquote(r.path).endswith(f"browse?path={SANDBOX}") for r in agent.asked)


def test_a_file_is_followed_until_its_task_has_ended() -> None:
    written = [b"one\n"]
    states = [state(web__1="TASK_RUNNING")] * 4 + [state(web__1="TASK_FINISHED")]
    agent = json.loads((DATA / "agent_state.json").read_text())
    agent["frameworks"][0]["executors"][0]["id"] = "web.1"

    def read(request: Request) -> Reply:
        assert "offset" not in request.path  # then it says how much there is
        return said({"data": "", "offset": len(b"".join(written))})

    def pause(_seconds: float) -> None:
        written.append(b"more\n")
        if len(states) > 1:
            states.pop(0)

    files = {"/state": said(agent), "/files/download": lambda _r: Reply(200, b"".join(written)), "/files/read": read}
    answers: dict[str, Answer] = {"/master/state": lambda _r: said(states[0])}
    with serving(answers) as leader, serving(files) as slave:
        mesos = Mesos(client(leader.url), {"127.0.0.1:5051": slave.url})
        assert b"".join(mesos.follow("web.1", sleep=pause)) == b"one\n" + 4 * b"more\n"


def test_a_task_comes_with_the_node_of_its_agent() -> None:
    with serving({"/master/state": said(state(a="TASK_RUNNING"))}) as server:
        (task,) = Mesos(client(server.url), {}, {"127.0.0.1:5051": "agent-2"}).tasks()
        assert task.node == "agent-2"
        (task,) = Mesos(client(server.url), {}).tasks()
        assert task.node == ""


def test_a_sandbox_that_was_removed() -> None:
    with cluster_of_one(recorded_json("state")) as (mesos, _agent), pytest.raises(MiniclusterError) as caught:
        b"".join(mesos.log("t1")[1])
    assert caught.value.what == "task t1 has no stdout"


def test_a_task_of_the_default_executor_has_a_folder_of_its_own() -> None:
    agent = json.loads((DATA / "agent_state.json").read_text())
    agent["frameworks"][0]["executors"][0]["type"] = "DEFAULT"
    with cluster_of_one(recorded_json("state"), agent, **{"/files/download": download}) as (mesos, _agent):
        assert b"".join(mesos.log("t1")[1]).decode() == f"{SANDBOX}/tasks/t1/stdout\n"


def test_an_agent_that_forgot_the_task() -> None:
    agent = json.loads((DATA / "agent_state.json").read_text()) | {"frameworks": []}
    with (
        cluster_of_one(recorded_json("state"), agent) as (mesos, _a),
        pytest.raises(MiniclusterError, match="does not know it"),
    ):
        mesos.log("t1")


def test_an_agent_that_is_gone() -> None:
    data = recorded_json("state") | {"slaves": []}
    with (
        cluster_of_one(data) as (mesos, _agent),
        pytest.raises(MiniclusterError, match="the agent of task t1 no longer"),
    ):
        mesos.log("t1")


@pytest.mark.parametrize(("word", "meant"), [("web.1", "web.1"), ("db", "db.7"), ("t1", "t1")])
def test_a_task_by_a_part_of_its_id(word: str, meant: str) -> None:
    data = state(web__1="TASK_RUNNING", web__12="TASK_RUNNING", db__7="TASK_STAGING")
    agent = json.loads((DATA / "agent_state.json").read_text())
    (framework,) = agent["frameworks"]
    (executor,) = framework["executors"]
    framework["executors"] = [{**executor, "id": id} for id in ("web.1", "db.7", "t1")]
    with cluster_of_one(data, agent) as (mesos, _agent):
        assert mesos.log(word)[0].id == meant


def test_a_task_that_is_not_there_or_not_the_only_one() -> None:
    with cluster_of_one(state(web__1="TASK_RUNNING", web__2="TASK_RUNNING")) as (mesos, _agent):
        with pytest.raises(UsageError, match="matches several tasks") as caught:
            mesos.log("web")
        assert "web.1, web.2" in caught.value.why
        with pytest.raises(UsageError, match=r"no task matches 'wbe\.1'") as caught:
            mesos.log("wbe.1")
        assert caught.value.fix == "Did you mean 'web.1'?"


# Draining

AGENT = "6275c029-0751-4561-b276-1fd693070880-S0"


def test_an_agent_is_drained_and_reactivated() -> None:
    states = [state(a="TASK_RUNNING", b="TASK_KILLING"), state(a="TASK_RUNNING"), state(a="TASK_KILLED")]
    clock = Clock()
    answers: dict[str, Answer] = {
        "/version": said({"version": "1.11.0"}),
        "/master/state": lambda _r: said(states[0] if len(states) == 1 else states.pop(0)),
        "POST /api/v1": Reply(200),
    }
    with serving(answers) as server:
        mesos = Mesos(client(server.url), {})
        mesos.drain("127.0.0.1:5051", grace_period=1.5)
        mesos.wait_drained("127.0.0.1:5051", timeout=10, clock=clock, sleep=clock.sleep)
        mesos.reactivate("127.0.0.1:5051")
    assert [r.json for r in server.asked if r.method == "POST"] == [
        {
            "type": "DRAIN_AGENT",
            "drain_agent": {"agent_id": {"value": AGENT}, "max_grace_period": {"nanoseconds": 1500000000}},
        },
        {"type": "REACTIVATE_AGENT", "reactivate_agent": {"agent_id": {"value": AGENT}}},
    ]


def test_an_agent_that_does_not_drain_in_time_is_told_with_its_tasks() -> None:
    clock = Clock()
    with serving({"/master/state": said(state(a="TASK_RUNNING"))}) as server, pytest.raises(NotReady) as caught:
        Mesos(client(server.url), {}).wait_drained("127.0.0.1:5051", timeout=3, clock=clock, sleep=clock.sleep)
    assert caught.value.why == "Tasks that have not ended: a."


def test_what_cannot_be_drained() -> None:
    answers = {"/version": said({"version": "1.7.1"}), "/master/state": said(state())}
    with serving(answers) as server:
        with pytest.raises(UsageError, match=r"before version 1\.9"):
            Mesos(client(server.url), {}).drain("127.0.0.1:5051")
        server.answers["/version"] = said({"version": "1.11.0"})
        with pytest.raises(MiniclusterError, match="not registered"):
            Mesos(client(server.url), {}).drain("127.0.0.1:1")
    assert {r.method for r in server.asked} == {"GET"}


# Reading definitions


def test_tokens_are_filled_in() -> None:
    text = '{"id": "a", "cmd": "run ${MINICLUSTER_MASTER_IP}:5050 $PORT0 ${PORT1} ${MINICLUSTER_KV_IP}"}'
    assert read(text, VALUES, "app.json").data["cmd"] == "run 172.28.0.3:5050 $PORT0 ${PORT1} 172.28.0.2"


def test_a_value_cannot_break_out_of_its_string() -> None:
    text = '{"id": "a", "cmd": "${MINICLUSTER_X}"}'
    assert read(text, {"MINICLUSTER_X": 'a", "cmd": "\\'}, "f").data["cmd"] == 'a", "cmd": "\\'


def test_a_token_that_is_unknown_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        read('{"id": "a",\n "cmd": "${MINICLUSTER_MASTR_IP}"}', VALUES, "app.json")
    assert caught.value.what == "app.json:2: this cluster has no MINICLUSTER_MASTR_IP"
    assert caught.value.fix == "Did you mean 'MINICLUSTER_MASTER_IP'?"


@pytest.mark.parametrize(
    ("data", "kind", "id", "path"),
    [
        (APP, "app", "/web", "/v2/apps/web"),
        ({"id": "/a/b c"}, "app", "/a/b c", "/v2/apps/a/b%20c"),
        (GROUP, "group", "/shop", "/v2/groups/shop"),
        ({"id": "shop/", "groups": [GROUP]}, "group", "/shop", "/v2/groups/shop"),
    ],
)
def test_applications_and_groups(data: Any, kind: str, id: str, path: str) -> None:
    it = read(json.dumps(data), {}, "f")
    assert (it.kind, it.id, it.path) == (kind, id, path)
    assert it.data == data | {"id": id}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"id": "a",}', "f:1:12: invalid JSON"),
        ("", "f:1:1: invalid JSON"),
        ("[]", "f: not an application or a group"),
        ('{"cmd": "x"}', "f: the application has no id"),
        ('{"id": "/", "cmd": "x"}', "f: the application has no id"),
        ('{"id": "p", "containers": []}', "f: pods are not supported"),
        ('{"apps": []}', "f: the group has no id"),
        ('{"id": "/", "groups": []}', "f: the group has no id"),
    ],
)
def test_what_is_no_definition(text: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(text, {}, "f")
    assert caught.value.what == what


# Marathon, whose answers are written after its own documentation

IT = Definition("app", "/web", APP | {"id": "/web"})
SHOP = Definition("group", "/shop", GROUP)
BEGUN = {"version": "2026-11-23T10:00:00.000Z", "deploymentId": "d1"}


def marathon(server: Server) -> Marathon:
    return Marathon(Client("Marathon", [server.url], {}, "web"))


def test_install_of_an_application() -> None:
    with serving({"POST /v2/apps": said({**APP, "deployments": [{"id": "d1"}]}, 201)}) as server:
        assert marathon(server).install(IT) == Deployment("app", "/web", "d1", apps=("/web",))
    assert [(r.method, r.path, r.json) for r in server.asked] == [("POST", "/v2/apps", APP | {"id": "/web"})]


def test_install_of_a_group() -> None:
    with serving({"POST /v2/groups": said(BEGUN, 201)}) as server:
        assert marathon(server).install(SHOP) == Deployment("group", "/shop", "d1", BEGUN["version"], ("/shop/web",))
    assert server.asked[0].json == GROUP


@pytest.mark.parametrize(
    ("it", "message"),
    [
        (IT, "An app with id [/web] already exists."),
        (SHOP, "Group /shop is already created. Use PUT to change this group."),
    ],
)
def test_install_of_what_is_there(it: Definition, message: str) -> None:
    with (
        serving({f"POST /v2/{it.kind}s": said({"message": message}, 409)}) as server,
        pytest.raises(UsageError) as caught,
    ):
        marathon(server).install(it)
    assert caught.value.what == f"{it.kind} {it.id} is already installed"
    assert "mesos update -c web" in caught.value.fix


def test_a_refusal_comes_with_its_details() -> None:
    details = [{"path": "/instances", "errors": ["must be >= 0", "no number"]}, {"path": "", "errors": ["odd"]}]
    refused = said({"message": "Object is not valid", "details": details}, 422)
    with serving({"POST /v2/apps": refused}) as server, pytest.raises(HTTPError) as caught:
        marathon(server).install(IT)
    assert caught.value.what.startswith("the Marathon returned 422 ")
    assert caught.value.why.splitlines() == ["Object is not valid", "/instances: must be >= 0, no number", "odd"]


def test_update_and_uninstall() -> None:
    with serving({"/v2/apps/web": said(BEGUN), "/v2/groups/shop": said(BEGUN)}) as server:
        assert marathon(server).update(IT).deployment == "d1"
        assert marathon(server).update(SHOP, force=True).deployment == "d1"
        assert marathon(server).uninstall(IT).deployment == "d1"
        assert marathon(server).uninstall(SHOP, force=True).deployment == "d1"
    assert [(r.method, r.path) for r in server.asked] == [
        ("PUT", "/v2/apps/web?force=false&partialUpdate=false"),
        ("PUT", "/v2/groups/shop?force=true"),
        ("DELETE", "/v2/apps/web?force=false"),
        ("DELETE", "/v2/groups/shop?force=true"),
    ]
    assert [r.body for r in server.asked[2:]] == [b"", b""]


def test_uninstall_of_what_is_not_there() -> None:
    gone = said({"message": "App '/web' does not exist"}, 404)
    with serving({"/v2/apps/web": gone}) as server, pytest.raises(UsageError, match="Marathon has no app /web"):
        marathon(server).uninstall(IT)


def test_a_change_that_another_deployment_is_in_the_way_of() -> None:
    locked = said({"message": "App is locked by one or more deployments. Override with the option '?force=true'."}, 409)
    with serving({"/v2/apps": locked, "/v2/apps/web": locked}) as server:
        for change in (marathon(server).install, marathon(server).update, marathon(server).uninstall):
            with pytest.raises(HTTPError) as caught:
                change(IT)
            assert "--force" in caught.value.fix


def test_the_applications_of_a_group() -> None:
    inner = {"id": "back", "apps": [{"id": "db"}, {"id": "/shop/back/cache"}]}
    group = {"id": "/shop", "apps": [{"id": "web"}], "groups": [inner, {"id": "none", "apps": []}]}
    assert [*applications(group)] == ["/shop/web", "/shop/back/db", "/shop/back/cache"]


class Clock:
    """Time that passes as it is slept."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


VERSION, NEWER = "2026-11-23T10:00:00.000Z", "2026-11-23T10:00:07.000Z"
BEGINS = Deployment("app", "/web", "d1", VERSION, ("/web",))
LISTED, OTHER, NONE = said([{"id": "d0"}, {"id": "d1"}]), said([{"id": "d0"}]), said([])


def web(running: int = 2, version: str = VERSION, deployments: tuple[str, ...] = ()) -> Reply:
    about = {"id": "/web", "instances": 2, "tasksRunning": running, "version": version}
    return said({"app": about | {"deployments": [{"id": id} for id in deployments]}})


def wait(change: Deployment, lists: list[Reply], apps: list[Reply], timeout: float = 20) -> tuple[int, int]:
    """Waits with answers in turn, of which the last one is repeated; returns how many there have been of each."""
    clock, counts = Clock(), [0, 0]

    def turn(replies: list[Reply], which: int) -> Answer:
        def answer(_request: Request) -> Reply:
            counts[which] += 1
            return replies[min(counts[which], len(replies)) - 1]

        return answer

    answers = {"/v2/deployments": turn(lists, 0), "/v2/apps/web": turn(apps, 1)}
    with serving(answers) as server:
        marathon(server).wait(change, timeout=timeout, clock=clock, sleep=clock.sleep)
    return counts[0], counts[1]


def test_a_deployment_is_waited_for() -> None:
    assert wait(BEGINS, [LISTED, LISTED, OTHER], [web()]) == (3, 1)


def test_a_list_that_is_empty_too_early_is_not_the_end() -> None:
    """Neither before the deployment begins nor when a new leader has just read what there is."""
    assert wait(BEGINS, [NONE, NONE, LISTED, NONE], [web()]) == (4, 3)
    assert wait(BEGINS, [NONE], [web()]) == (3, 3)
    assert wait(BEGINS, [NONE, NONE, LISTED, NONE], [web(0), web(0), web()])[0] == 4


def test_an_application_that_ends_at_once_is_deployed_all_the_same() -> None:
    assert wait(BEGINS, [LISTED, NONE], [web(running=0)])[0] == 4


@pytest.mark.parametrize("status", [502, 503, 504])
def test_an_election_is_waited_for(status: int) -> None:
    between = Reply(status, b"Bad Gateway")
    assert wait(BEGINS, [LISTED, between, between, NONE, LISTED, OTHER], [between, web()])[0] >= 6


def test_an_election_that_does_not_end_is_told() -> None:
    with pytest.raises(NotReady) as caught:
        wait(BEGINS, [Reply(502)], [web()], timeout=3)
    assert caught.value.why == "the Marathon returned 502 Bad Gateway for GET /v2/deployments."


def test_a_deployment_that_is_replaced_is_not_done() -> None:
    with pytest.raises(MiniclusterError, match="replaced by another change"):
        wait(BEGINS, [LISTED, OTHER], [web(version=NEWER, deployments=("d0",))])
    with pytest.raises(MiniclusterError, match="replaced by another change"):
        wait(BEGINS, [LISTED, NONE], [Reply(404)])


def test_a_removal_is_done_when_nothing_is_there() -> None:
    removal = Deployment("app", "/web", "d1", VERSION, removes=True)
    assert wait(removal, [LISTED, NONE], [web(), Reply(404)])[0] == 3
    with pytest.raises(MiniclusterError, match="replaced by another change"):
        wait(removal, [LISTED, NONE], [web()])


def test_nothing_to_deploy_is_not_waited_for() -> None:
    with serving({}) as server:
        marathon(server).wait(Deployment("app", "/web", ""), timeout=10)
    assert server.asked == []


def test_a_deployment_that_hangs_says_of_what() -> None:
    failure = {"message": "Command exited with status 127"}
    app = {"tasksRunning": 1, "instances": 2, "lastTaskFailure": failure}
    answers: dict[str, Answer] = {
        "/v2/deployments": said([{"id": "d1", "affectedApps": ["/shop/web", "/shop/db"]}]),
        "/v2/apps/shop/web": said({"app": app}),
    }
    clock = Clock()
    with serving(answers) as server, pytest.raises(NotReady) as caught:
        marathon(server).wait(Deployment("group", "/shop", "d1"), timeout=3, clock=clock, sleep=clock.sleep)
    assert caught.value.what == "the deployment of group /shop did not finish in 3 s"
    assert caught.value.why.splitlines() == [
        "/shop/web: 1 of 2 tasks running. The last failure: Command exited with status 127",
        "/shop/db: its state is unknown.",
    ]
    assert 3 <= clock.now < 4
