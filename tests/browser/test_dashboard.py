"""The dashboard's page in headless Chromium: what it shows, and that it shows nothing as HTML and asks nobody else."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from minicluster.cluster import Cluster
from minicluster.dashboard import control, server
from tests.browser.page import Page
from tests.dashboard import serving
from tests.engine.conftest import eventually
from tests.fakes import FakeEngine

pytestmark = pytest.mark.long

Start = Callable[..., Cluster]
Rows = Callable[..., None]
#: Adds a script to the page, and returns what the page's policy blocks.
ADD_SCRIPT = """
const done = arguments[0], script = document.createElement("script");
document.addEventListener("securitypolicyviolation", (event) => done(event.blockedURI), { once: true });
%s;
document.body.append(script);
"""
FETCH = "const done = arguments[2]; fetch(arguments[0], arguments[1]).then(() => done('read'), () => done('blocked'))"
#: Counts in ``window.answers`` the answers to changes that the page has dealt with.
COUNT_ANSWERS = """
const real = window.fetch;
window.answers = 0;
window.fetch = async (...asked) => {
  const answer = await real(...asked), text = await answer.text();
  return { ok: answer.ok, json: async () => { setTimeout(() => window.answers++, 0); return JSON.parse(text); } };
};
"""
#: The smallest size of a node's name, in pixels; and the nodes that are seen without scrolling.
SMALLEST = """
return Math.min(...[...document.querySelectorAll(".node h3")].map((e) => parseFloat(getComputedStyle(e).fontSize)))
"""
SEEN = """
return [...document.querySelectorAll(".node")].filter((e) => e.getBoundingClientRect().bottom <= innerHeight).length
"""
MARKUP = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


def test_a_user_opens_it_by_the_file_and_sees_what_changes(
    engine: FakeEngine, page: Page, start: Start, rows: Rows
) -> None:
    rows(("web.1", "agent-1"), ("web.2", "agent-2"), {"name": "12 keys"})
    start()
    with serving(engine) as served:
        page.open(served)
        assert "token" not in page.driver.current_url
        cookie = page.driver.get_cookie(served.access.cookie)
        assert cookie
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert page.script("return document.cookie") == ""
        eventually(lambda: page.state("toy", "agent-1") == "ready")
        eventually(lambda: page.on("toy", "agent-1") == ["web.1"])
        assert page.text(f"{page.node('toy', 'master-1')} [data-part=leader]") == "★ leader"
        assert "12 keys" in page.text(".wide")
        assert "web 2/2" in page.text(".groups")
        assert "3 of 3 voters healthy" in page.text(".cluster header")
        eventually(lambda: "CPU 50 %" in page.text(page.node("toy", "agent-2")))
        assert "1 cluster, 5 nodes" in page.text("#totals")

        engine.pause_container("toy-agent-2")
        eventually(lambda: page.state("toy", "agent-2") == "paused")
        engine.kill_container("toy-agent-1")
        rows(("web.1", "agent-2"), ("web.2", "agent-2"))
        eventually(lambda: page.state("toy", "agent-1") == "down")
        eventually(lambda: page.on("toy", "agent-2") == ["web.1", "web.2"])
        assert page.on("toy", "agent-1") == []
        assert "agent-1 died" in page.text("#events")
        assert "2 not ready" in page.text("#totals")
        engine.kill_container("toy-master-1")
        engine.kill_container("toy-master-2")
        eventually(lambda: "quorum lost" in page.text(".cluster header"))

        start("another", agent=1)
        eventually(lambda: page.state("another", "agent-1") == "ready")
        assert page.errors() == []


def test_names_are_text(engine: FakeEngine, page: Page, start: Start, rows: Rows) -> None:
    bad = {"name": MARKUP, "node": "agent-1", "group": MARKUP, "state": MARKUP, "ready": False, "detail": MARKUP}
    rows(bad, {"name": f"wide {MARKUP}", "detail": MARKUP}, {"name": "x", "node": MARKUP, "state": "s", "group": "g"})
    start()
    with serving(engine) as served:
        page.open(served)
        eventually(lambda: page.on("toy", "agent-1") == [MARKUP])
        assert MARKUP in page.text(".groups")
        assert f"wide {MARKUP}" in page.text(".wide")
        served.watch.hub.put("engine", {"endpoint": MARKUP, "error": MARKUP})
        served.watch.hub.happened(
            {"time": 0, "cluster": MARKUP, "node": MARKUP, "role": "", "event": MARKUP, "detail": {MARKUP: MARKUP}}
        )
        eventually(lambda: MARKUP in page.text("#events"))
        assert page.driver.title == "minicluster"
        assert page.all("main img, #events img, #trouble img, body script") == []


def test_sixty_nodes_are_readable_at_once(engine: FakeEngine, page: Page, start: Start, rows: Rows) -> None:
    rows(*((f"web.{i}", f"agent-{i % 57 + 1}") for i in range(100)))
    start(agent=57)
    with serving(engine) as served:
        page.open(served)
        eventually(lambda: len(page.all(".node[data-tone=good]")) == 60)
        eventually(lambda: len(page.all(".node .chip")) == 100)
        eventually(lambda: page.script(SEEN) == 60)  # it may be laid out a moment later
        assert page.script("return document.documentElement.scrollWidth <= innerWidth")
        assert page.script(SMALLEST) >= 14
        engine.kill_container("toy-agent-33")
        eventually(lambda: page.state("toy", "agent-33") == "down")


def test_it_goes_on_after_the_server_was_restarted(engine: FakeEngine, page: Page, start: Start, rows: Rows) -> None:
    rows()
    start()
    with serving(engine) as served:
        page.open(served)
        eventually(lambda: page.state("toy", "agent-1") == "ready")
        port = served.port
    eventually(lambda: page.connection == "disconnected, trying again")
    engine.kill_container("toy-agent-1")
    with serving(engine, port=port):
        eventually(lambda: page.connection == "live")
        eventually(lambda: page.state("toy", "agent-1") == "down")
        assert page.script("return document.querySelectorAll('.cluster').length") == 1


def test_a_server_that_is_silent_is_noticed(
    engine: FakeEngine, page: Page, start: Start, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one whose machine was suspended, or whose process was: the connection stays."""
    monkeypatch.setattr(server, "_BEAT", 3600.0)
    rows()
    start()
    with serving(engine) as served:
        page.open(served)
        eventually(lambda: page.connection == "disconnected, trying again")
        engine.kill_container("toy-agent-1")
        eventually(lambda: page.connection == "live")


@pytest.mark.parametrize("address", ["/", "/?token=wrong", "/?token="])
def test_without_the_token_it_says_how_to_open_it(
    engine: FakeEngine, page: Page, start: Start, rows: Rows, address: str
) -> None:
    rows()
    start()
    with serving(engine) as served:
        page.driver.get(served.base + address)
        assert page.text("h1") == "This browser has no access"
        assert "minicluster dashboard" in page.text("main")
        assert "toy" not in page.driver.page_source
        assert page.too_faint() == []


def test_access_that_ended_is_told(engine: FakeEngine, page: Page, start: Start, rows: Rows) -> None:
    rows()
    start()
    with serving(engine) as served:
        page.open(served)
        page.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
        port = served.port
    with serving(engine, port=port):
        eventually(lambda: page.connection == "no access")
        assert "has no access any more" in page.text("#trouble")


def test_nothing_comes_from_outside_and_no_other_script_runs(
    engine: FakeEngine, page: Page, start: Start, rows: Rows
) -> None:
    rows(("web.1", "agent-1"))
    start()
    with serving(engine) as served, serving(engine) as other:
        page.open(served)
        eventually(lambda: page.on("toy", "agent-1"))
        asked = page.requested()
        assert f"{served.base}/stream" in asked
        assert {url for url in asked if not url.startswith((f"{served.base}/", "file:"))} == set()
        for content in (f"script.src = '{other.base}/static/app.js'", "script.textContent = 'document.title = 1'"):
            blocked = page.driver.execute_async_script(ADD_SCRIPT % content)
            assert blocked in ("inline", f"{other.base}/static/app.js")
        assert page.driver.title == "minicluster"
        assert page.driver.execute_async_script(FETCH, f"{other.base}/", {}) == "blocked"


class _Elsewhere(BaseHTTPRequestHandler):
    """A page without any policy, on another port of 127.0.0.1."""

    cookies = ""

    def do_GET(self) -> None:
        type(self).cookies += self.headers.get("Cookie", "")
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!DOCTYPE html><title>elsewhere</title>")

    def log_message(self, *_: object) -> None:
        pass


def test_a_page_on_another_port_changes_nothing(
    engine: FakeEngine, page: Page, start: Start, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another port is another origin, and the same site: the browser sends the cookie along."""
    came: list[tuple[str | None, bool, int]] = []
    do = server.Dashboard.do

    async def recorded(self: server.Dashboard, request: Request) -> Response:
        answer = await do(self, request)
        came.append((request.headers.get("origin"), self.access.cookie in request.cookies, answer.status_code))
        return answer

    monkeypatch.setattr(server.Dashboard, "do", recorded)
    rows()
    start()
    with (
        serving(engine, control=True) as served,
        ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere) as elsewhere,
    ):
        threading.Thread(target=elsewhere.serve_forever, daemon=True).start()
        page.open(served)
        origin = f"http://127.0.0.1:{elsewhere.server_port}"
        page.driver.get(f"{origin}/")
        assert served.access.cookie in _Elsewhere.cookies  # docs/dashboard.md warns of it
        how = {
            "method": "POST",
            "credentials": "include",
            "headers": {"Content-Type": "application/json"},
            "body": '{"cluster": "toy", "verb": "kill", "node": "agent-1"}',
        }
        # JSON needs the dashboard's consent first, which it does not give: the change itself is not sent.
        assert page.driver.execute_async_script(FETCH, f"{served.base}/do", how) == "blocked"
        assert came == []
        # What needs no consent is sent, and refused by its Origin, before its type is looked at.
        simple = {**how, "mode": "no-cors", "headers": {}}
        assert page.driver.execute_async_script(FETCH, f"{served.base}/do", simple) == "blocked"
        assert came == [(origin, True, 403)]
        elsewhere.shutdown()
    assert engine.boxes["toy-agent-1"].container.state == "running"


# With control


def test_all_of_it_works_by_the_keyboard(engine: FakeEngine, page: Page, start: Start, rows: Rows) -> None:
    from selenium.webdriver.common.keys import Keys

    rows(("web.1", "agent-1"))
    start()
    with serving(engine, control=True) as served:
        page.open(served)
        eventually(lambda: page.on("toy", "agent-1") == ["web.1"])

        def tab_to(name: str) -> None:
            for _ in range(60):
                page.press(Keys.TAB)
                if page.focused().accessible_name == name:
                    return
            raise AssertionError(f"no Tab leads to {name}")

        tab_to("Actions on agent-1 of toy")
        page.press(Keys.ENTER)
        eventually(lambda: page.text("dialog h2") == "agent-1 of toy")
        page.press(Keys.ESCAPE)
        eventually(lambda: not page.all("dialog[open]"))
        assert page.focused().accessible_name == "Actions on agent-1 of toy"
        page.press(Keys.ENTER)
        tab_to("Kill, like a crash") if page.focused().accessible_name != "Kill, like a crash" else None
        page.press(Keys.ENTER)
        eventually(lambda: "Runs web.1" in page.text("dialog [data-part=cost]"))
        assert engine.boxes["toy-agent-1"].container.state == "running"
        eventually(lambda: page.focused().accessible_name == "Kill")
        page.press(Keys.ENTER)
        eventually(lambda: page.state("toy", "agent-1") == "down")
        eventually(lambda: not page.all("dialog[open]"))


def click(page: Page, name: str) -> None:
    """Clicks the visible button of a name, once there is one."""

    from selenium.common.exceptions import StaleElementReferenceException

    def found() -> bool:
        with contextlib.suppress(StaleElementReferenceException):  # the page has replaced it meanwhile
            for button in page.all("button"):
                if button.is_displayed() and button.accessible_name == name:
                    button.click()
                    return True
        return False

    eventually(found, what=f"there is a button {name}")


@pytest.mark.parametrize("slow", ["cost", "carry_out"])
def test_a_late_answer_leaves_the_dialog_of_another_node_alone(
    engine: FakeEngine, page: Page, start: Start, rows: Rows, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    begun, go_on, work = threading.Event(), threading.Event(), getattr(control, slow)

    def late(*arguments: Any) -> Any:
        begun.set()
        assert go_on.wait(60)
        return work(*arguments)

    monkeypatch.setattr(control, slow, late)
    rows()
    start()
    with serving(engine, control=True) as served:
        try:
            page.open(served)
            eventually(lambda: page.state("toy", "agent-1") == "ready")
            page.script(COUNT_ANSWERS)
            click(page, "Actions on agent-1 of toy")
            click(page, "Kill, like a crash")
            if slow == "carry_out":
                click(page, "Kill")
            assert begun.wait(30)
            before = page.script("return window.answers")
            click(page, "Cancel")
            click(page, "Actions on agent-2 of toy")
            focused = page.focused().accessible_name
        finally:
            go_on.set()
        eventually(lambda: page.script("return window.answers") == before + 1)
        assert page.text("dialog[open] h2") == "agent-2 of toy"
        assert page.focused().accessible_name == focused
        click(page, "Kill, like a crash")  # the next answer is shown
        eventually(lambda: page.text("dialog [data-part=cost]"))
        assert page.text("dialog h2") == "Kill agent-2 of toy"


def test_a_role_is_scaled_and_nodes_are_paused_by_mouse(
    engine: FakeEngine, page: Page, start: Start, rows: Rows
) -> None:
    rows()
    start()
    with serving(engine, control=True) as served:
        page.open(served)
        click(page, "One more agent in toy")
        eventually(lambda: "Adds agent-3" in page.text("dialog [data-part=cost]"))
        click(page, "Scale")
        eventually(lambda: page.state("toy", "agent-3") == "ready")
        eventually(lambda: not page.all("dialog[open]"))
        click(page, "One master less in toy")
        eventually(lambda: "takes" in page.text("dialog [role=alert]"))  # 1, 3 or 5
        click(page, "Cancel")
        page.all(page.node("toy", "master-1"))[0].click()  # the card itself
        click(page, "Pause, like a machine that hangs")
        eventually(lambda: "2 of 3 voters together" in page.text("dialog [data-part=cost]"))
        click(page, "Pause")
        eventually(lambda: page.state("toy", "master-1") == "paused")
        eventually(lambda: not page.all("dialog[open]"))
        click(page, "Actions on master-2 of toy")
        click(page, "Kill, like a crash")
        eventually(lambda: "writes stop" in page.text("dialog .severe"))
        click(page, "Cancel")
        assert page.state("toy", "master-2") != "down"


def test_without_control_there_is_nothing_to_press(engine: FakeEngine, page: Page, start: Start, rows: Rows) -> None:
    rows()
    start()
    with serving(engine) as served:
        page.open(served)
        eventually(lambda: page.state("toy", "agent-1") == "ready")
        assert [button.accessible_name for button in page.all("button")] == ["Theme: system"]
        page.all(page.node("toy", "agent-1"))[0].click()
        assert page.all("dialog[open]") == []


# For everybody


def test_a_screen_reader_finds_its_way(engine: FakeEngine, page: Page, start: Start, rows: Rows) -> None:
    rows(("web.1", "agent-1"))
    start()
    with serving(engine, control=True) as served:
        page.open(served)
        eventually(lambda: page.on("toy", "agent-1"))
        assert page.script("return document.documentElement.lang") == "en"
        roles = {
            "main": ("main", "Clusters"),
            "aside": ("complementary", "Events"),
            "#events": ("log", "Events"),
            "#connection": ("status", ""),
            ".cluster": ("region", "toy"),
            ".nodes": ("list", "Nodes of toy"),
            ".node": ("listitem", ""),
            f"{page.node('toy', 'agent-1')} .rows": ("list", "On agent-1"),
            f"{page.node('toy', 'agent-1')} .meter": ("meter", "CPU of agent-1"),
        }
        for selector, (role, name) in roles.items():
            element = page.all(selector)[0]
            assert element.aria_role == role, selector
            assert not name or element.accessible_name == name, selector
        assert all(button.accessible_name for button in page.all("button") if button.is_displayed())
        levels = [int(e.tag_name[1]) for e in page.all("main h2, main h3")]
        assert levels == [2, 3, 3, 3, 3, 3]
        engine.kill_container("toy-agent-1")
        eventually(
            lambda: page.script("return document.querySelector('#announce').textContent") == "agent-1 of toy is down"
        )
        # States are told by words as well as by colours.
        assert page.state("toy", "agent-1") == "down"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_has_enough_contrast_in_every_state(
    engine: FakeEngine, page: Page, start: Start, rows: Rows, theme: str
) -> None:
    unready = {"name": "db.1", "node": "agent-2", "group": "db", "state": "starting", "ready": False}
    rows(
        ("web.1", "agent-1"),
        unready,
        {"name": "12 keys"},
        {"name": "x", "group": "g", "state": "pending", "ready": False},
    )
    start()
    start("other", agent=15)
    with serving(engine, control=True) as served:
        page.open(served)
        while page.text("#theme") != f"Theme: {theme}":
            page.all("#theme")[0].click()
        eventually(lambda: page.state("other", "agent-1") == "ready")
        engine.kill_container("toy-agent-1")
        engine.kill_container("other-agent-1")
        engine.pause_container("toy-agent-2")
        eventually(lambda: page.state("toy", "agent-2") == "paused" and page.state("other", "agent-1") == "down")
        served.watch.hub.put("cluster/zzz", _with_faults(served.watch.hub.since(0).topics["cluster/toy"]))
        eventually(lambda: page.state("zzz", "master-1"))
        assert page.script("return document.querySelectorAll('.stage path').length") == 2
        eventually(lambda: page.too_faint() == [], within=5, what="colours have changed")
        click(page, "Actions on master-2 of toy")
        assert page.too_faint() == []
        click(page, "Kill, like a crash")
        eventually(lambda: page.text("dialog [data-part=cost]"))
        assert page.too_faint() == []
        page.driver.execute_script("document.querySelector('dialog').close()")
    eventually(lambda: "trying" in page.connection)
    assert page.too_faint() == []


def _with_faults(cluster: dict) -> dict:  # type: ignore[type-arg]
    """A cluster's data as it is with faults."""
    nodes = [{**node, "effects": ["cut off from master-2"]} for node in cluster["nodes"]]
    links = [
        {"from": "master-1", "to": "master-2", "kind": "cut", "one_way": False},
        {"from": "master-1", "to": "agent-1", "kind": "slow", "one_way": True},
    ]
    faults = [{"id": "1", "text": "partition master-1 / master-2", "since": 0, "seconds": 60}]
    return {
        **cluster,
        "name": "zzz",
        "nodes": nodes,
        "links": links,
        "faults": faults,
        "notes": ["a note"],
        "phase": "unreadable",
    }
