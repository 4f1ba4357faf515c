"""``cp``, ``top`` and ``events`` from the command line down to an engine in memory."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from minicluster.cli import complete, show, watch
from minicluster.cli.app import app
from minicluster.cli.watch import _line, _table, live
from minicluster.cluster import Cluster, down
from minicluster.model.results import ClusterEvent, ClusterUsage, NodeUsage
from minicluster.operations import monitor
from tests.fakes import FakeEngine
from tests.unit.samples import TOY


@pytest.fixture(autouse=True)
def cluster(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster.up(str(TOY), name="toy", engine=engine)
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda **_: engine)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    return made


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), prog_name="minicluster")


# cp


def test_cp_goes_both_ways(engine: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("aaa")
    result = run("cp", f"{tmp_path}/a", "agent:/root")
    assert result.stdout == "".join(f"1 file, 3 B: {tmp_path}/a -> agent-{i}:/root/a\n" for i in (1, 2))
    result = run("cp", "agent-2:/root/a", f"{tmp_path}/b", "-o", "json")
    assert json.loads(result.stdout) == [
        {
            "node": "agent-2",
            "source": "agent-2:/root/a",
            "destination": f"{tmp_path}/b",
            "files": 1,
            "bytes": 3,
            "left_out": [],
        }
    ]
    assert (tmp_path / "b").read_text() == "aaa"
    assert run("cp", "-q", f"{tmp_path}/a", "agent-1:/root").output == ""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("a b", 2, "SOURCE or DESTINATION must be NODE:PATH"),
        ("./a:b ./c:d", 2, "SOURCE or DESTINATION must be NODE:PATH"),
        ("agent-1:/a agent-2:/b", 2, "cannot copy from node to node"),
        ("agent-1: b", 2, "agent-1: has no path"),
        ("agent-9:/a b", 2, "no node or role 'agent-9'"),
        ("agent:/a b", 2, "role agent has 2 nodes"),
        ("agent-1:/nothing b", 1, "no such file in agent-1: /nothing"),
        ("/nothing agent-1:/root", 1, "no such file: /nothing"),
    ],
)
def test_cp_says_what_is_wrong(words: str, code: int, said: str) -> None:
    result = run("cp", *words.split())
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr


def test_cp_names_a_few_of_what_it_leaves_out(engine: FakeEngine, tmp_path: Path) -> None:
    box = engine.boxes["toy-agent-1"]
    box.folders.add("/root/x")
    box.links |= {f"/root/x/{i}": "/etc" for i in range(7)}
    result = run("cp", "agent-1:/root/x", str(tmp_path))
    assert result.stderr.splitlines() == [
        *(f"Note: skipped {i} -> /etc (leads out of the copy)" for i in range(5)),
        "Note: skipped 2 more; list them with -o json",
    ]


def test_tab_offers_nodes_and_files(engine: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "aged").mkdir()

    class Context:
        params: dict[str, Any] = {}  # noqa: RUF012

    def offered(incomplete: str) -> list[str]:
        return [item.value for item in complete.places(Context(), None, incomplete)]  # type: ignore[arg-type]

    assert offered("ag") == ["agent-1:", "agent-2:", "agent:"]
    assert offered(f"{tmp_path}/ag") == [f"{tmp_path}/aged/"]


# top


def test_top_is_a_table_and_one_look_where_stdout_is_no_terminal(engine: FakeEngine) -> None:
    engine.stop_container("toy-agent-1")
    assert run("top").stdout.splitlines() == [
        "NODE      ROLE    PHASE    CPU     MEMORY / LIMIT    PIDS  NET I/O        DISK I/O",
        "master-1  master  running  50.0 %  1 MiB / 16.0 GiB  7     100 B / 200 B  300 B / 400 B",
        "agent-1   agent   exited   -       -                 -     -              -",
        "agent-2   agent   running  50.0 %  1 MiB / 16.0 GiB  7     100 B / 200 B  300 B / 400 B",
    ]
    assert "agent-1" not in run("top", "--once", "master", "agent-2").stdout


def test_top_answers_one_json_document_with_once(engine: FakeEngine) -> None:
    engine.stop_container("toy-agent-1")
    answer = json.loads(run("top", "--once", "-o", "json").stdout)
    assert list(answer) == ["cluster", "time", "nodes"]
    assert answer["nodes"][0] == {
        "name": "master-1",
        "role": "master",
        "phase": "running",
        "cpu": 50.0,
        "memory": 1 << 20,
        "memory_limit": 1 << 34,
        "pids": 7,
        "received": 100,
        "sent": 200,
        "read": 300,
        "written": 400,
    }
    assert {v for k, v in answer["nodes"][1].items() if k not in ("name", "role", "phase")} == {None}


def test_top_answers_a_json_document_a_line_else_until_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def usages(*_: object) -> Iterator[ClusterUsage]:
        yield ClusterUsage("toy", 1.5, ())
        yield ClusterUsage("toy", 2.5, ())
        raise KeyboardInterrupt

    monkeypatch.setattr(monitor, "usages", usages)
    result = run("top", "-o", "json")
    assert [json.loads(line)["time"] for line in result.stdout.splitlines()] == [1.5, 2.5]
    assert (result.exit_code, result.stderr) == (130, "")


def test_top_redraws_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TERM": "xterm", "FORCE_COLOR": "1", "COLUMNS": "120"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(watch, "on_terminal", lambda _stream: True)
    live(_table(ClusterUsage("toy", 0, (NodeUsage("a-1", "a", "running", cpu),))) for cpu in (1.0, 2.0))
    out = capsys.readouterr().out
    assert out.index("1.0 %") < out.index("\x1b[1A") < out.index("2.0 %")


def test_top_watches_where_stdout_is_no_terminal_if_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def usages(*_: object) -> Iterator[ClusterUsage]:
        yield ClusterUsage("toy", 1, (NodeUsage("a-1", "a", "running", 1.0),))
        yield ClusterUsage("toy", 2, (NodeUsage("a-1", "a", "running", 2.0),))

    monkeypatch.setattr(monitor, "usages", usages)
    out = run("top", "--watch").stdout
    assert out.count("NODE") == 2
    assert out.index("1.0 %") < out.index("2.0 %")
    result = run("top", "--watch", "--once")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--once and --watch cannot be used together" in result.stderr


# status --watch


def removed_after(count: int, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes the cluster in the pause after so many looks, and kills a node in the first."""
    pauses = []

    def sleep(_seconds: float) -> None:
        pauses.append(1)
        if len(pauses) == 1:
            engine.kill_container("toy-agent-1")
        if len(pauses) == count:
            down(["toy"], engine=engine)

    monkeypatch.setattr(show.time, "sleep", sleep)


def test_status_is_watched_until_the_cluster_is_removed(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    removed_after(3, engine, monkeypatch)
    result = run("status", "toy", "--watch")
    assert result.exit_code == 0, result.stderr
    first, second, _third = result.stdout.split("\n\n")
    assert "agent-1   agent" in first
    assert "exited" not in first
    assert "exited" in second


def test_status_is_watched_as_a_json_document_a_line(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    removed_after(2, engine, monkeypatch)
    answers = [json.loads(line) for line in run("status", "-w", "-o", "json").stdout.splitlines()]
    assert [answer["nodes"][1]["phase"] for answer in answers] == ["running", "exited"]


def test_a_watch_ends_quietly_with_130_on_ctrl_c_and_has_no_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(show.time, "sleep", interrupted)
    result = run("status", "--watch")
    assert (result.exit_code, result.stderr) == (130, "")
    assert "agent-1" in result.stdout
    result = run("status", "--watch", "--exit-code")
    assert (result.exit_code, result.stdout) == (2, "")


# events


def test_events_are_lines() -> None:
    event = ClusterEvent(1700000000.0625, "toy", "agent-1", "agent", "die", {"exit_code": 137})
    clock = time.strftime("%H:%M:%S", time.localtime(1700000000))
    assert _line(event, 8) == f"{clock}.062  agent-1   die          exit_code=137"
    leader = ClusterEvent(1700000000.0, "toy", "", "", "quorum", {"healthy": 2, "needed": 2})
    assert _line(leader, 8) == f"{clock}.000  -         quorum       healthy=2 needed=2"


def test_events_end_with_0_when_the_cluster_is_gone(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.kill_container("toy-agent-1")
    listen = engine.events

    def events(*args: Any, **options: Any) -> Iterator[Any]:
        if engine.containers():
            down(["toy"], engine=engine)
        return listen(*args, **options)

    monkeypatch.setattr(engine, "events", events)
    result = run("events", "--since", "10m", "-o", "json")
    assert result.exit_code == 0, result.stderr
    told = [json.loads(line) for line in result.stdout.splitlines()]
    died = next(e for e in told if e["event"] == "die")
    assert list(died) == ["time", "cluster", "node", "role", "event", "detail"]
    assert (died["node"], died["role"], died["detail"]) == ("agent-1", "agent", {"exit_code": 137})
    assert told[-1]["event"] == "destroy"


def test_events_end_quietly_with_130_on_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> Iterator[ClusterEvent]:
        yield ClusterEvent(0.0, "toy", "agent-1", "agent", "start")
        raise KeyboardInterrupt

    monkeypatch.setattr(monitor, "events", interrupted)
    result = run("events")
    assert (result.exit_code, result.stderr) == (130, "")
    assert result.stdout.endswith("agent-1   start\n")


def test_since_is_a_number_and_a_unit() -> None:
    result = run("events", "--since", "soon")
    assert result.exit_code == 2
    assert "--since soon: not a duration" in result.stderr
