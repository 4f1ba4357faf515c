"""Progress: what events add up to, as lines of a log and as the live view on a screen."""

from __future__ import annotations

import io

from rich.console import Console

from minicluster.cli.board import ProgressState
from minicluster.cli.live import View, live
from minicluster.cli.progress import plain
from minicluster.cli.timings import Phase, Timings, table
from minicluster.model.events import Event


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _board(nodes: int, clock: Clock) -> tuple[ProgressState, View]:
    import threading

    board = ProgressState(clock)
    names = ("master-1", *(f"agent-{i}" for i in range(1, nodes)))
    board.apply(Event("plan", text=f"create cluster swarm: {nodes} nodes", nodes=names))
    return board, View(board, threading.Lock())


def _lines(view: View, width: int = 80, height: int = 24) -> list[str]:
    return [line.plain for line in view.lines(width, height)]


def test_a_log_has_a_line_for_what_matters() -> None:
    out, clock = io.StringIO(), Clock()
    listen = plain(out, clock)
    listen(Event("preflight", text="memory: 4.0 GiB of 8.0 GiB free, 192 MiB needed"))
    listen(Event("plan", text="create cluster swarm: 1 master", nodes=("master-1",)))
    listen(Event("start", "", "image", "image node"))
    listen(Event("progress", "", "image", "building minicluster/swarm-node:1"))
    listen(Event("progress", "", "image", "step 1"))
    clock.now += 6
    listen(Event("progress", "", "image", "step 2"))
    listen(Event("done", "", "image", seconds=6.0))
    listen(Event("start", "master-1", "creating", "create master-1"))
    listen(Event("done", "master-1", "creating", seconds=0.1))
    listen(Event("note", "master-1", text="ip_vs is missing"))
    listen(Event("done", "master-1", "ready", seconds=1.94))
    listen(Event("failed", "agent-1", text="exited with 1"))
    listen(Event("rollback", text="rolling back"))
    assert out.getvalue().splitlines() == [
        "memory: 4.0 GiB of 8.0 GiB free, 192 MiB needed",
        "create cluster swarm: 1 master",
        "image: building minicluster/swarm-node:1",
        "image: step 2",
        "master-1: ip_vs is missing",
        "master-1: ready (1.9 s)",
        "agent-1: failed: exited with 1",
        "rolling back",
    ]


def test_the_live_view_has_a_line_per_node() -> None:
    clock = Clock()
    board, view = _board(3, clock)
    board.apply(Event("start", "", "image", "image node"))
    board.apply(Event("progress", "", "image", "Get:17 a line of output " + "x" * 100))
    board.apply(Event("start", "master-1", "booting", "ready master-1"))
    clock.now += 1.5
    board.apply(Event("done", "agent-1", "ready", seconds=1.5))
    lines = _lines(view)
    assert lines[0][1:] == " create cluster swarm: 3 nodes  1.5 s"
    assert lines[1][1:].startswith(" image 1.5s  Get:17 a line of output xxx")
    assert lines[1].endswith("…")
    assert len(lines[1]) == 80
    assert lines[2][1:] == " master-1  booting 1.5s"
    assert lines[3:] == ["✓ agent-1   ready 1.5s", "  agent-2   waiting"]
    board.apply(Event("done", "", "image"))
    assert len(_lines(view)) == 4


def test_twenty_one_nodes_fit_into_80_by_24() -> None:
    _, view = _board(21, Clock())
    lines = _lines(view)
    assert len(lines) < 24
    assert all(len(line) <= 80 for line in lines)
    assert sum(line.count("agent-") for line in lines) == 20


def test_more_nodes_than_fit_are_counted() -> None:
    board, view = _board(150, Clock())
    board.apply(Event("failed", "agent-149", text="exited with 1"))
    for i in range(1, 11):
        board.apply(Event("done", f"agent-{i}", "ready", seconds=1.0))
    lines = _lines(view)
    assert len(lines) < 24
    assert lines[1] == "✓ 10 of 150 nodes"
    assert lines[2].startswith("✗ agent-149")
    assert lines[-1].endswith(" more")


def test_any_size_of_window() -> None:
    for nodes in (1, 3, 21, 60):
        for width, height in ((20, 5), (40, 10), (80, 24), (200, 60)):
            _, view = _board(nodes, Clock())
            lines = _lines(view, width, height)
            assert all(len(line) <= width for line in lines)
            assert len(lines) <= max(height, 5)


def test_the_screen_in_the_end() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, height=24, legacy_windows=False, color_system=None)
    with live(console) as listen:
        listen(Event("plan", text="create cluster swarm", nodes=("master-1", "agent-1")))
        listen(Event("note", text="a note"))
        listen(Event("preflight", text="memory: 192 MiB needed"))
        listen(Event("done", "master-1", "ready", seconds=1.94))
        listen(Event("start", "agent-1", "joining"))
        listen(Event("done", "agent-1", "ready", seconds=2.5))
    written = out.getvalue()
    assert "a note\n" in written
    assert "memory: 192 MiB needed\n" in written
    assert written.endswith("✓ master-1  ready 1.9s\n✓ agent-1   ready 2.5s\n")


def test_many_nodes_leave_a_line_per_role() -> None:
    board, view = _board(21, Clock())
    for name in list(board.nodes):
        board.apply(Event("done", name, "ready", seconds=2.0))
    board.apply(Event("done", "agent-7", "ready", seconds=4.1))
    assert view.closing() == ["✓ 1 master  ready in 2.0 s", "✓ 20 agent  ready in 2.0-4.1 s"]


def test_a_roll_back_leaves_no_line_of_what_it_removes() -> None:
    board, view = _board(3, Clock())
    board.apply(Event("done", "master-1", "ready", seconds=2.0))
    board.apply(Event("failed", "agent-1", text="exited with 1"))
    board.apply(Event("rollback", text="undoing: agent-1 exited"))
    assert _lines(view)[0].endswith(" undoing: agent-1 exited  0.0 s")
    assert view.closing() == ["✗ agent-1  failed 0.0s"]


def test_an_ascii_terminal_gets_ascii() -> None:
    import threading

    board, _ = _board(2, Clock())
    view = View(board, threading.Lock(), ascii_only=True)
    board.apply(Event("done", "agent-1", "ready", seconds=1.0))
    board.apply(Event("start", "master-1", "booting"))
    assert all(line.isascii() for line in _lines(view))


def test_a_phase_lasts_from_its_first_begin_to_its_last_end() -> None:
    clock, heard = Clock(), []
    timings = Timings(heard.append, 99.5, clock)

    def at(now: float, kind: str, subject: str, phase: str) -> None:
        clock.now = 100.0 + now
        timings(Event(kind, subject, phase))

    at(0.0, "plan", "", "")
    at(0.1, "start", "", "image")
    at(1.0, "end", "", "image")
    at(1.0, "start", "a-1", "creating")
    at(1.1, "start", "a-2", "creating")
    at(1.2, "end", "a-2", "creating")
    at(1.2, "start", "a-2", "starting")
    at(1.5, "end", "a-1", "creating")
    at(1.75, "plan", "", "")  # another one, at another subnet: it is the same `up`
    at(2.0, "end", "a-2", "starting")
    clock.now = 102.25
    assert timings.phases() == [
        Phase("before the plan", 0.0, 0.5, 0.5, 0, ""),
        Phase("image", 0.6, 1.5, 0.9, 1, ""),
        Phase("creating", 1.5, 2.0, 0.5, 2, "a-1"),
        Phase("starting", 1.7, 2.5, 0.8, 1, "a-2"),
        Phase("after the plan", 2.5, 2.75, 0.25, 0, ""),
    ]
    assert table(timings.phases()).splitlines() == [
        "PHASE              BEGIN      END  SECONDS  STEPS  LAST",
        "before the plan     0.00     0.50     0.50",
        "image               0.60     1.50     0.90      1",
        "creating            1.50     2.00     0.50      2  a-1",
        "starting            1.70     2.50     0.80      1  a-2",
        "after the plan      2.50     2.75     0.25",
    ]
    assert len(heard) == 10


def test_where_nothing_was_to_do_there_was_no_plan() -> None:
    clock = Clock()
    timings = Timings(lambda _event: None, 99.0, clock)
    assert timings.phases() == [Phase("before the plan", 0.0, 1.0, 1.0, 0, "")]


def test_the_end_of_a_step_changes_nothing_on_the_screen() -> None:
    board, _ = _board(2, Clock())
    board.apply(Event("start", "agent-1", "creating"))
    assert board.apply(Event("end", "agent-1", "creating", seconds=1.0)) is None
    assert board.nodes["agent-1"].state == "busy"
