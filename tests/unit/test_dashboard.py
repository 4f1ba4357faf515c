"""The dashboard's server on an engine in memory: who may see and change what, and what pages are told."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from minicluster.cluster import Cluster, down
from minicluster.dashboard import server
from minicluster.dashboard.access import LIFETIME, Access, folder, key
from minicluster.dashboard.hub import Hub
from minicluster.dashboard.picture import effect, links
from minicluster.engine.protocol import Container, ExecResult
from minicluster.errors import UsageError
from minicluster.model.fault import ActiveFault, Fault
from minicluster.plan import faults as planning
from tests.dashboard import Served, serving
from tests.engine.conftest import eventually
from tests.fakes import FakeEngine, Hang
from tests.unit.samples import TOY

#: Names and logs are whatever users call them.
MARKUP = "<img src=x onerror=\"document.title='owned'\">"


@pytest.fixture
def toy_with_workload(write_profile: Callable[..., Path]) -> Path:
    """The toy profile, whose masters tell what runs."""
    text = (TOY / "profile.yaml").read_text() + "workload: {on: master, run: [toy-workload]}\n"
    files = {str(path.relative_to(TOY)): path.read_text() for path in TOY.rglob("*") if path.is_file()}
    return write_profile(text, {name: content for name, content in files.items() if name != "profile.yaml"})


@pytest.fixture
def cluster(engine: FakeEngine, toy_with_workload: Path) -> Cluster:
    rows = [
        {"name": "web.1", "node": "agent-1", "group": "web", "state": "running"},
        {"name": MARKUP, "node": "agent-2", "group": "web", "state": "starting", "ready": False, "detail": MARKUP},
        {"name": "3 keys"},
    ]
    engine.answers["toy-workload"] = ExecResult(0, "\n".join(map(json.dumps, rows)), "")
    return Cluster.up(str(toy_with_workload), name="toy", size={"master": 3}, engine=engine)


@pytest.fixture
def served(engine: FakeEngine, cluster: Cluster) -> Iterator[Served]:
    with serving(engine, control=True) as found:
        yield found


# Who may see it


def test_a_token_opens_once_and_is_exchanged_for_a_cookie_that_scripts_and_other_sites_do_not_get(
    served: Served,
) -> None:
    link = served.access.url.removeprefix(served.base)
    status, headers, text = served.request("GET", link)
    assert status == 200
    attributes = {part.strip().lower() for part in headers["Set-Cookie"].split(";")[1:]}
    assert attributes == {"httponly", "samesite=strict", "path=/"}
    assert 'content="0; url=/"' in text  # the address without the token
    cookie = headers["Set-Cookie"].partition(";")[0]
    assert served.request("GET", "/", {"Cookie": cookie})[0] == 200
    status, headers, text = served.request("GET", link)
    assert (status, headers["Set-Cookie"]) == (403, None)
    assert "each works once" in text
    assert served.access.url.removeprefix(served.base) != link  # for a further browser


@pytest.mark.parametrize("path", ["/", "/stream", "/?token=wrong", "/?token=", "/?token=%C3%A4"])
@pytest.mark.parametrize("cookie", ["", "minicluster-dashboard-PORT=", "minicluster-dashboard-PORT=99999999999.aa.bb"])
def test_without_a_token_or_a_cookie_nothing_is_shown(served: Served, path: str, cookie: str) -> None:
    status, _headers, text = served.request("GET", path, {"Cookie": cookie.replace("PORT", str(served.port))})
    assert status == 403
    assert "toy" not in text


def test_a_cookie_is_good_after_a_restart_for_twelve_hours_and_not_for_another_user(tmp_path: Path) -> None:
    now = [1_000_000.0]

    def made(signing: bytes) -> Access:
        return Access("http://127.0.0.1:1", tmp_path / "open.html", signing, control=True, clock=lambda: now[0])

    first = made(b"k" * 32)
    token = first.url.partition("token=")[2]
    cookie = first.exchange(token)
    assert cookie
    assert first.exchange(token) is None
    assert made(b"k" * 32).knows(cookie)
    assert not made(b"x" * 32).knows(cookie)
    expires, nonce, signature = cookie.split(".")
    assert not first.knows(f"{int(expires) + 1}.{nonce}.{signature}")
    now[0] += LIFETIME - 1
    assert first.knows(cookie)
    now[0] += 1
    assert not first.knows(cookie)


def test_a_cookie_is_good_for_one_port_and_for_what_it_was_given_out_for(tmp_path: Path) -> None:
    def made(port: int, control: bool) -> Access:
        return Access(f"http://127.0.0.1:{port}", tmp_path / "open.html", b"k" * 32, control=control)

    for control in (False, True):
        given = made(1, control)
        cookie = given.exchange(given.url.partition("token=")[2])
        assert cookie
        assert made(1, control).knows(cookie)
        assert not made(1, not control).knows(cookie)
        assert not made(2, control).knows(cookie)
        assert made(2, control).cookie != given.cookie  # a browser keeps both


def test_who_could_only_look_changes_nothing_once_it_is_served_with_control(
    engine: FakeEngine, cluster: Cluster
) -> None:
    with serving(engine) as served:
        cookie, port = served.cookie(), served.port
        assert served.request("GET", "/", {"Cookie": cookie})[0] == 200
    with serving(engine, control=True, port=port) as served:
        status, answer = served.post("/do", {"cluster": "toy", "verb": "kill", "node": "agent-1"}, Cookie=cookie)
        assert (status, answer["error"]) == (403, "This browser has no access any more.")
        assert served.request("GET", "/", {"Cookie": cookie})[0] == 403
    assert engine.boxes["toy-agent-1"].container.state == "running"


def test_the_file_that_opens_it_is_this_users_alone_and_gone_in_the_end(engine: FakeEngine) -> None:
    os.umask(os.umask(0))  # whatever it is
    with serving(engine) as served:
        opener = served.access.opener
        assert stat.S_IMODE(opener.stat().st_mode) == 0o600
        assert stat.S_IMODE(opener.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder() / "key").stat().st_mode) == 0o600
        assert served.access.url in opener.read_text()
        used = served.access.url
        served.cookie()
        assert used not in opener.read_text()
        assert stat.S_IMODE(opener.stat().st_mode) == 0o600
    assert not opener.exists()
    assert len(key()) == 32


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7070", "127.0.0.1", "127.0.0.1:1", "", "0.0.0.0:PORT"])
def test_a_request_for_another_host_is_refused(served: Served, host: str) -> None:
    """A page elsewhere may have a name that resolves to 127.0.0.1."""
    headers = {"Host": host.replace("PORT", str(served.port)), "Cookie": served.cookie()}
    for path in ("/", "/stream", "/static/app.js"):
        assert served.request("GET", path, headers)[0] in (400, 421)


def test_it_listens_on_this_machine_alone(served: Served) -> None:
    with server.bound(0, wanted=True) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"
    assert served.request("GET", "/", {"Host": f"localhost:{served.port}", "Cookie": served.cookie()})[0] == 200


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/static/none", "/?token=wrong", "/none"])
def test_every_answer_has_the_policy(served: Served, path: str) -> None:
    _status, headers, _text = served.request("GET", path)
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert {policy[name] for name in ("base-uri", "form-action", "frame-ancestors")} == {"'none'"}
    assert not any("unsafe" in part or "http" in part for part in policy.values())
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"


def test_the_page_names_nothing_outside_and_makes_no_html_of_texts() -> None:
    for file in server.STATIC.iterdir():
        text = file.read_text()
        assert not re.search(r"(https?:)?//[a-z0-9-]+\.[a-z]", text.replace("http://www.w3.org/2000/svg", ""), re.I), (
            file
        )
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text), file
        assert not re.search(r"<[a-z][^>]* on[a-z]+=|<script>|<style", text), file


# Who may change what


def test_changes_need_control(engine: FakeEngine, cluster: Cluster) -> None:
    with serving(engine) as served:
        for path in ("/cost", "/do"):
            status, answer = served.post(path, {"cluster": "toy", "verb": "kill", "node": "agent-1"})
            assert status == 403
            assert "--control" in answer["error"]
        with served.stream() as stream:
            stream.until(lambda: stream.hello)
            assert stream.hello["control"] is False
    assert engine.boxes["toy-agent-1"].container.state == "running"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": ""},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "https://127.0.0.1:PORT"},
        {"Cookie": ""},
        {"Content-Type": "text/plain"},  # what a form of another page can send
        {"Content-Type": "application/x-www-form-urlencoded"},
    ],
    ids=str,
)
def test_changes_come_from_the_page_itself(engine: FakeEngine, served: Served, headers: dict[str, str]) -> None:
    changed = {name: value.replace("PORT", str(served.port)) for name, value in headers.items()}
    status, _ = served.post("/do", {"cluster": "toy", "verb": "kill", "node": "agent-1"}, **changed)
    assert status in (403, 415)
    assert engine.boxes["toy-agent-1"].container.state == "running"


def test_changes_come_by_post_alone(engine: FakeEngine, served: Served) -> None:
    headers = {"Cookie": served.cookie(), "Origin": served.base}
    for method in ("GET", "PUT", "DELETE", "HEAD", "OPTIONS"):
        assert served.request(method, "/do", headers)[0] == 405
    assert engine.boxes["toy-agent-1"].container.state == "running"


@pytest.mark.parametrize(
    "wish",
    [
        [],
        {},
        {"cluster": "toy", "verb": "down"},
        {"cluster": "toy", "verb": "kill"},
        {"cluster": "toy", "verb": "kill", "node": ["agent-1"]},
        {"cluster": "toy", "verb": "partition", "node": "agent-1"},
        {"cluster": "toy", "verb": "partition", "node": "agent-1", "others": [1]},
        {"cluster": "toy", "verb": "scale", "role": "agent", "count": -1},
        {"cluster": "toy", "verb": "scale", "role": "agent", "count": True},
        {"cluster": "none", "verb": "kill", "node": "agent-1"},
        {"cluster": "toy", "verb": "kill", "node": "none"},
        {"cluster": "toy", "verb": "heal", "fault": "7"},
        {"cluster": "toy", "verb": "scale", "role": "none", "count": 2},
        {"cluster": "toy", "verb": "scale", "role": "master", "count": 2},
        b"{",
        b"\xff",
        b" " * 70_000,
        b"[" * 60_000,
    ],
    ids=lambda wish: str(wish)[:60],
)
def test_what_makes_no_sense_is_an_error_in_words(served: Served, wish: Any) -> None:
    status, answer = served.post("/cost", wish)
    assert status == 400
    assert len(answer["error"]) > 10


def test_what_it_costs_is_said_before_it_is_done(engine: FakeEngine, served: Served) -> None:
    with served.stream() as stream:
        stream.until(lambda: stream.cluster("toy").get("workload", {}).get("rows") and stream.cluster("toy")["quorums"])
        kill = {"cluster": "toy", "verb": "kill", "node": "agent-1"}
        status, answer = served.post("/cost", kill)
        assert (status, answer["severe"]) == (200, False)
        assert "Runs web.1" in answer["text"]
        assert "No quorum depends on it" in answer["text"]
        first = {"cluster": "toy", "verb": "kill", "node": "master-1"}
        _, answer = served.post("/cost", first)
        assert "2 of 3 voters together" in answer["text"]
        assert not answer["severe"]
        assert engine.boxes["toy-master-1"].container.state == "running"  # nothing is done yet
        assert served.post("/do", first) == (200, {"text": "master-1 killed"})
        stream.until(lambda: stream.node("toy", "master-1").get("state") == "down")
        _, answer = served.post("/cost", {"cluster": "toy", "verb": "pause", "node": "master-2"})
        assert answer["severe"]
        assert "writes stop" in answer["text"]
        _, answer = served.post("/cost", {"cluster": "toy", "verb": "scale", "role": "agent", "count": 4})
        assert answer["text"] == "Adds agent-3, agent-4. Starts master-1 as well."
        _, answer = served.post("/cost", {"cluster": "toy", "verb": "scale", "role": "agent", "count": 1})
        assert "Removes agent-2 with all data" in answer["text"]


def test_what_is_asked_for_is_done(engine: FakeEngine, served: Served) -> None:
    def do(verb: str, **more: Any) -> str:
        status, answer = served.post("/do", {"cluster": "toy", "verb": verb, **more})
        assert status == 200, answer
        return str(answer["text"])

    with served.stream() as stream:

        def is_(node: str, state: str) -> None:
            stream.until(lambda: stream.node("toy", node).get("state") == state)

        do("pause", node="agent-1")
        is_("agent-1", "paused")
        do("unpause", node="agent-1")
        is_("agent-1", "ready")
        do("kill", node="agent-2")
        is_("agent-2", "down")
        do("start", node="agent-2")
        is_("agent-2", "ready")
        do("scale", role="agent", count=3)
        is_("agent-3", "ready")
        do("scale", role="agent", count=2)
        stream.until(lambda: not stream.node("toy", "agent-3"))
        do("kill", node="agent-1")
        status, answer = served.post("/do", {"cluster": "toy", "verb": "pause", "node": "agent-1"})
        assert status == 409
        assert "cannot pause agent-1. It is stopped." in answer["error"]


def test_what_takes_too_long_is_an_error_in_words(
    engine: FakeEngine, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*_: object, **__: object) -> None:
        raise TimeoutError("toy-agent-1: no answer within 9 s")

    monkeypatch.setattr(engine, "kill_container", late)
    status, answer = served.post("/do", {"cluster": "toy", "verb": "kill", "node": "agent-1"})
    assert (status, answer) == (409, {"error": "It took too long: toy-agent-1: no answer within 9 s."})


def test_the_end_waits_for_what_is_being_done_says_so_and_begins_nothing_more(
    engine: FakeEngine, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, kill = threading.Event(), threading.Event(), engine.kill_container

    def slow(*arguments: Any, **more: Any) -> None:
        begun.set()
        assert go_on.wait(60)
        kill(*arguments, **more)

    monkeypatch.setattr(engine, "kill_container", slow)
    answers: list[tuple[int, Any]] = []
    wish = {"cluster": "toy", "verb": "kill", "node": "agent-1"}
    with serving(engine, control=True) as served:
        usual = {"Cookie": served.cookie()}
        asking = threading.Thread(target=lambda: answers.append(served.post("/do", wish, **usual)))
        asking.start()
        try:
            assert begun.wait(30)
            served.server.should_exit = True  # as Ctrl-C does
            eventually(lambda: served.said == ["Waiting for kill of toy to finish."])
            status, answer = served.post("/do", {**wish, "node": "agent-2"}, **usual)
            assert (status, answer) == (409, {"error": "the dashboard ends. It was interrupted."})
        finally:
            go_on.set()
        asking.join(30)
    assert answers == [(200, {"text": "agent-1 killed"})]
    assert engine.boxes["toy-agent-2"].container.state == "running"


# What pages are told


def test_pages_are_told_everything_and_then_what_changes(engine: FakeEngine, served: Served) -> None:
    with served.stream() as stream:
        stream.until(lambda: stream.cluster("toy").get("quorums") and stream.topics.get("usage/toy"))
        toy = stream.cluster("toy")
        assert (toy["profile"], toy["phase"]) == ("toy", "ready")
        assert [node["name"] for node in toy["nodes"]][:2] == ["master-1", "master-2"]
        assert stream.node("toy", "master-1")["leader"]
        assert stream.topics["usage/toy"]["agent-1"] == {"cpu": 50.0, "memory": 1 << 20, "limit": 1 << 34}
        stream.until(lambda: len(stream.cluster("toy")["workload"]["rows"]) == 3)
        assert stream.cluster("toy")["workload"]["rows"][1]["name"] == MARKUP
        Cluster.up(str(TOY), name="other", engine=engine)
        stream.until(lambda: stream.cluster("other").get("phase") == "ready")
        engine.kill_container("toy-agent-1")
        stream.until(lambda: any((e["event"], e["node"]) == ("die", "agent-1") for e in stream.events))
        stream.until(lambda: stream.node("toy", "agent-1")["state"] == "down")
        down(["other"], engine=engine)
        stream.until(lambda: stream.topics["cluster/other"] is None)


def test_a_death_is_told_while_nobody_says_who_the_members_are(engine: FakeEngine, served: Served) -> None:
    """What the engine knows does not wait for what is asked in nodes, which may take seconds."""
    with served.stream() as stream:
        stream.until(lambda: stream.cluster("toy").get("quorums"))
        hang = Hang()
        engine.answers["swarm-members"] = engine.answers["toy-workload"] = hang
        assert hang.begun.wait(30)
        engine.kill_container("toy-master-1")
        stream.until(lambda: stream.node("toy", "master-1")["state"] == "down")
        assert "unknown" not in [event["event"] for event in stream.events]  # the members have not answered yet


def test_a_death_is_told_without_another_question_to_the_engine(engine: FakeEngine, served: Served) -> None:
    """Its list of containers may take seconds on a busy machine; the event that it sent says all."""
    with served.stream() as stream:
        stream.until(lambda: stream.cluster("toy").get("quorums"))
        answers, ask = threading.Event(), engine.containers

        def slow(cluster: str | None = None) -> list[Container]:
            found = ask(cluster)
            answers.wait(60)  # by then the answer is out of date
            return found

        engine.containers = slow  # type: ignore[method-assign]
        engine.kill_container("toy-agent-1")
        stream.until(lambda: stream.node("toy", "agent-1")["state"] == "down")
        engine.containers = ask  # type: ignore[method-assign]
        answers.set()
        engine.start_container("toy-agent-1")
        stream.until(lambda: stream.node("toy", "agent-1")["state"] == "ready")


def test_nodes_are_asked_only_while_a_page_is_open(engine: FakeEngine, served: Served) -> None:
    def asked() -> int:
        return len(engine.did("exec"))

    before = asked()  # of the up
    eventually(lambda: "toy" in served.watch.followed)
    with served.stream() as stream:
        stream.until(lambda: stream.cluster("toy").get("quorums"))
        assert asked() > before
    eventually(lambda: not served.watch.hub.watched.is_set(), what="the page is gone")
    following = served.watch.followed["toy"]
    following._changed.wait(1.5)  # nothing sets it: a period passes
    settled = asked()
    following._changed.wait(1.5)
    assert asked() == settled


def test_an_engine_that_is_gone_is_told_and_found_again(engine: FakeEngine, served: Served) -> None:
    from minicluster.errors import NoEngine

    with served.stream() as stream:
        stream.until(lambda: stream.cluster("toy"))
        ask = engine.containers
        engine.containers = lambda *_: (_ for _ in ()).throw(NoEngine("the engine stopped answering"))  # type: ignore[method-assign]
        stream.until(lambda: "stopped answering" in stream.topics["engine"]["error"])
        engine.containers = ask  # type: ignore[method-assign]
        stream.until(lambda: stream.topics["engine"]["error"] == "")


def test_a_slow_page_gets_what_is_newest() -> None:
    hub, told = Hub(), []
    hub.put("a", 1)
    assert hub.since(0).topics == {"a": 1}
    with hub.listening(lambda: told.append(1)):
        assert hub.watched.is_set()
        seen = hub.since(0).version
        for number in (2, 3, 3):
            hub.put("a", number)
        hub.happened({"event": "x"})
        assert len(told) == 3  # the same once more is no news
    news = hub.since(seen)
    assert (news.topics, news.events) == ({"a": 3}, [{"event": "x"}])
    hub.put("a", None)
    assert hub.since(news.version).topics == {"a": None}
    assert hub.since(0).topics == {}
    assert not hub.watched.is_set()


def active(fault: Fault) -> ActiveFault:
    return ActiveFault("1", fault, 0.0)


def test_links_are_cut_in_one_direction_or_both_and_slow() -> None:
    cut = planning.partition([["a"], ["b", "c"]])
    assert links([active(cut)], {}) == [
        {"from": "a", "to": "b", "kind": "cut", "one_way": False},
        {"from": "a", "to": "c", "kind": "cut", "one_way": False},
    ]
    assert effect(cut, "b") == ["cut off from a"]
    assert effect(cut, "d") == []
    one_way = planning.partition([["a"], ["b"]], one_way=True)
    assert links([active(one_way)], {})[0]["one_way"]
    slow = planning.shaped("delay", ["a"], ["b"], delay=100, jitter=0)
    assert links([active(slow)], {})[0]["kind"] == "slow"
    assert links([active(slow), active(cut)], {})[0]["kind"] == "cut"
    assert effect(slow, "a") == ["delay 100ms --to b"]
    everywhere = planning.shaped("delay", ["a"], delay=100, jitter=0)
    assert links([active(everywhere)], {}) == []
    assert effect(everywhere, "a") == ["delay 100ms"]
    assert links([active(planning.shaped("loss", ["a"], ["b"], percent=100))], {})[0]["kind"] == "cut"
    assert links([active(cut)], {"1": ["a", "b", "c"]}) == []  # they were restarted


# The command


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_without_the_extra_it_says_what_to_install(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from minicluster.cli.app import run; run()"
    done = subprocess.run([sys.executable, "-c", code, "dashboard"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"needs the Python package {missing}" in done.stderr
    assert "pip install '.[dashboard]'" in done.stderr


def test_another_port_is_taken_unless_one_is_asked_for() -> None:
    with server.bound(0, wanted=True) as taken:
        port = taken.getsockname()[1]
        with server.bound(port, wanted=False) as other:
            assert other.getsockname()[1] != port
        with pytest.raises(UsageError, match=f"--port {port}: cannot be used"):
            server.bound(port, wanted=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_file_that_opens_it_is_gone_after_a_signal(number: signal.Signals) -> None:
    code = """if True:
        import signal
        from minicluster.cli.app import run
        from minicluster.engine import discover
        from tests.fakes import FakeEngine

        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup
        discover.connect = lambda **_: FakeEngine()
        run()
    """
    command = [sys.executable, "-c", code, "dashboard", "--no-browser", "--port", "0"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            while "once" not in (line := process.stdout.readline()):
                assert line, process.stderr and process.stderr.read()
            assert [*folder().glob("open-*.html")]
            link = urlsplit(line.split()[-1])
            page = http.client.HTTPConnection(link.netloc, timeout=30)
            page.request("GET", f"/?{link.query}")
            answer = page.getresponse()
            answer.read()
            page.request("GET", "/stream", headers={"Cookie": answer.headers["Set-Cookie"].partition(";")[0]})
            assert page.getresponse().status == 200  # a page is open
            process.send_signal(number)
            _, complaints = process.communicate(timeout=60)
            page.close()
        finally:
            process.kill()
    assert (process.returncode, complaints) == (130, "")
    assert not [*folder().glob("open-*.html")]


def test_the_command_imports_no_server_before_it_runs() -> None:
    code = "import sys, minicluster.cli.dashboard; print([m for m in ('uvicorn', 'starlette') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
