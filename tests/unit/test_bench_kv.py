"""Comparisons: how rounds are ranked, drawn and printed; and a whole one of a user's profile, on a fake engine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from minicluster.benchmark import chart, report, run
from minicluster.benchmark.report import Load, Machine, Point, Report, Round, System
from minicluster.cli import bench as cli
from minicluster.cli.app import app
from minicluster.engine.protocol import Job
from minicluster.errors import ProfileError
from minicluster.profile import bench, catalog
from minicluster.profile.overrides import override
from tests.fakes import FakeEngine
from tests.unit.samples import TOY

PUT, GET = Load("put", 16, 4), Load("get", 16, 4)


def a_round(rate: float, share: float = 0.1, **more: Any) -> Round:
    return Round(2.0, int(rate * 2), 0, 1.0, 2.0, 3.0, 9.0, 0.4, share, **more)


def point(*rates: float, load: Load = PUT, share: float = 0.1) -> Point:
    return Point(load, tuple(a_round(rate, share) for rate in rates))


def system(name: str, *points: Point) -> System:
    return System(name, {name: "v1.2.3 (go)"}, 3, {"tls": "false"}, "synced", "linearizable & <fresh>", points)


def a_report(*systems: System, **more: Any) -> Report:
    machine = Machine(2, 8 << 30, "A <fast> one", "6.1", "Docker 20.10", "volumes on ext4", 0.1)
    made = Report("2026-01-01 00:00", "0.1.0", machine, 1024, 1000, 2.0, 1.0, 3, 0, systems)
    return replace(made, ranks=report.ranks(systems), **more)


def test_the_median_of_the_rounds_ranks() -> None:
    found = report.ranks(
        [system("a", point(10, 11, 90)), system("b", point(100, 120, 110)), system("c", point(1, 2, 3))]
    )
    assert found == {"put 16x4": {"a": 2, "b": 1, "c": 3}}
    assert point(10, 11, 90).middle("rate") == 11
    assert point(10, 11, 90).spread == (10, 90)


def test_systems_whose_rounds_overlap_share_a_rank() -> None:
    found = report.ranks([system("a", point(10, 20)), system("b", point(19, 30)), system("c", point(5, 6))])
    assert found == {"put 16x4": {"a": 1, "b": 1, "c": 3}}


def test_a_client_bound_round_ranks_nothing() -> None:
    bound = Point(PUT, (a_round(1000, 0.51), a_round(10), a_round(20)))
    assert not bound.client_bound
    assert bound.spread == (10, 20)
    assert bound.middle("rate") == 15
    every = point(1000, 1000, share=0.6)
    assert every.client_bound
    found = report.ranks([system("a", every), system("b", bound), system("c", point(30, 40))])
    assert found == {"put 16x4": {"b": 2, "c": 1}}
    assert report.ranks([system("a", point(10, share=0.5))]) == {"put 16x4": {"a": 1}}  # over half is more than half


def test_the_table_fits_80_columns_and_says_what_is_not_compared() -> None:
    shown = cli.text(a_report(system("zookeeper", point(12345, 13000)), system("etcd", point(9999, 20000, share=0.7))))
    assert max(map(len, shown.splitlines())) <= 80 + 40  # of prose; the table itself:
    rows = [line.split() for line in shown.splitlines()[1:4]]
    assert rows[0][:3] == ["RANK", "SYSTEM", "PER"]
    assert rows[1][:4] == ["-", "etcd", "1.2.3", "15000"]
    assert "bound 2/2" in shown.splitlines()[2]
    assert rows[2][:4] == ["1", "zookeeper", "1.2.3", "12672"]
    assert max(map(len, shown.splitlines()[:4])) <= 80
    for part in (*report.NOT_COMPARED, "writes: synced", "tls=false", "Docker 20.10", "1024 bytes"):
        assert part in shown
    assert "busy" not in shown
    machine = replace(a_report().machine, load_before=3.0)
    assert "busy with something else: load 3.0" in cli.text(replace(a_report(), machine=machine))


def texts(svg: str) -> tuple[ElementTree.Element, list[str]]:
    root = ElementTree.fromstring(svg)
    return root, [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_the_chart_has_a_bar_for_each_point_and_its_settings() -> None:
    drawn = a_report(
        system("a", point(100, 120), point(50, load=GET)), system("b", point(60, 80, share=0.9), point(200, load=GET))
    )
    root, said = texts(chart.draw(drawn))
    bars = [
        g for g in root.iter("{http://www.w3.org/2000/svg}g") if g.find("{http://www.w3.org/2000/svg}title") is not None
    ]
    assert len(bars) == 4
    hatched = [bar for bar in bars if len(bar.findall("{http://www.w3.org/2000/svg}rect")) == 2]
    assert len(hatched) == 1
    assert "b 1.2.3, put" in (hatched[0].findtext("{http://www.w3.org/2000/svg}title") or "")
    rects = [bar.find("{http://www.w3.org/2000/svg}rect") for bar in bars[:2]]
    tall, low = [float(rect.attrib["height"]) for rect in rects if rect is not None]
    assert tall / low == pytest.approx(110 / 70, rel=0.01)
    assert {"put", "get", "16 x 4"} <= set(said)
    notes = "\n".join(said)
    for part in (
        "Docker 20.10",
        "A <fast> one",
        "linearizable & <fresh>",
        "tls=false",
        "1024 bytes",
        "volumes on ext4",
    ):
        assert part in notes


def test_the_chart_of_killed_leaders_draws_the_gap() -> None:
    one = a_round(
        50, gap=0.7, gap_begin=0.5, timeline=(9, 9, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, 8, 8), killed="kv-2", killed_at=0.51
    )
    drawn = a_report(system("a", Point(PUT, (one, replace(one, gap=0.2), replace(one, gap=3)))), bucket=0.1)
    root, said = texts(chart.draw(drawn))
    assert "no answer for 0.70 s (of 3 rounds: 0.20 to 3.00 s)" in said
    line = root.find(".//{http://www.w3.org/2000/svg}polyline")
    assert line is not None
    assert len(line.attrib["points"].split()) == 14
    assert "0.70            0.20-3.00" in cli.text(drawn)


PROGRAM = """
bench:
  kv:
    role: master
    image: node
    run: [my-load, "{{ settings.color }}"]
    env: {BENCH_ENDPOINTS: "{% for n in roles.master %}{{ n.address }}:1 {% endfor %}", TOKEN: "{{ secret('load') }}"}
    set: {color: green}
    writes: at once
    reads: anything
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    """A user's profile that takes part."""
    folder = tmp_path / "mine"
    shutil.copytree(TOY, folder)
    file = folder / "profile.yaml"
    file.write_text(
        file.read_text().replace("name: toy", "name: mine").replace("hooks:\n  init:", f"{PROGRAM}hooks:\n  init:")
    )
    return str(folder)


@pytest.fixture
def do(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda **_: engine)
    monkeypatch.chdir(tmp_path)

    def command(*words: str, code: int = 0) -> Any:
        done = CliRunner().invoke(app, ["bench", "kv", *words])
        assert done.exit_code == code, done.output
        return done

    return command


def working(rate: int = 100, **more: Any) -> Callable[[Job], tuple[int, list[str], dict[str, bytes]]]:
    """A load generator that answers at once."""

    def works(job: Job) -> tuple[int, list[str], dict[str, bytes]]:
        lines: list[dict[str, Any]] = []
        seconds = float(job.env["BENCH_SECONDS"])
        for n in range(int(job.env["BENCH_ROUNDS"])):
            lines += [{"event": "begin", "round": n + 1}]
            took = {"p50": 1, "p95": 2, "p99": 3, "max": 4, "cpu": 0.1}
            lines += [{"event": "end", "seconds": seconds, "operations": int(rate * seconds), **took, **more}]
        return 0, ["hello", *map(json.dumps, [*lines, {"event": "done"}])], {}

    return works


def test_a_users_profile_is_loaded_by_its_own_program(do: Callable[..., Any], engine: FakeEngine, mine: str) -> None:
    engine.works = working()
    answer = json.loads(do(mine, "--clients", "1,8", "--connections", "8", "--rounds", "2", "-o", "json").stdout)
    (found,) = answer["systems"]
    assert (found["profile"], found["nodes"], found["set"], found["writes"]) == (
        "mine",
        3,
        {"color": "green"},
        "at once",
    )
    assert [(p["load"]["operation"], p["load"]["clients"], p["rate"]) for p in found["points"]] == [
        ("put", 8, 100.0), ("get", 8, 100.0), ("mixed", 8, 100.0)
    ]  # fmt: skip
    assert len(found["points"][0]["rounds"]) == 2
    assert answer["ranks"]["put 8x8"] == {"mine": 1}
    job = engine.jobs[0]
    assert job.command == ("my-load", "green")
    assert len(job.env["BENCH_ENDPOINTS"].split()) == 3
    assert len(job.env["TOKEN"]) > 16
    assert (job.env["BENCH_CLIENTS"], job.env["BENCH_OPERATION"], job.env["BENCH_VALUE"]) == ("8", "put", "1024")
    assert {file.path for file in job.files} == {"/client/ca.pem", "/client/cert.pem", "/client/key.pem"}
    assert engine.did("connect_network")
    assert engine.empty()


def test_settings_and_size_are_those_that_the_user_gives(do: Callable[..., Any], engine: FakeEngine, mine: str) -> None:
    engine.works = working()
    few = ("--clients", "1", "--operations", "put", "-o", "json")
    answer = json.loads(do(mine, "--size", "kv=5", "--set", "mine:color=blue", "--set", "level=4", *few).stdout)
    assert answer["systems"][0]["set"] == {"color": "blue", "level": "4"}
    assert answer["systems"][0]["nodes"] == 5
    assert engine.jobs[0].command == ("my-load", "blue")
    assert "--set other: is not compared" in do(mine, "--set", "other:color=blue", code=2).stderr


def test_the_leader_dies_in_every_round(
    do: Callable[..., Any], engine: FakeEngine, mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_KILL_AFTER", 0)
    engine.works = working(gap=0.5, gap_begin=2, timeline=[10] * 80)
    done = do(mine, "--kill-leader", "--rounds", "1", "--chart", "x.svg")
    assert "0.50" in done.stdout
    assert len([call for call in engine.did("kill_container") if call.startswith("bench-mine-master")]) == 1
    assert "no answer for 0.50 s" in (tmp_path / "x.svg").read_text()
    assert engine.empty()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([{"event": "failed", "error": "no such key"}], "no such key"),
        ([{"event": "end", "seconds": 1}, {"event": "done"}], "printed an invalid line"),
        ([{"event": "done"}], "measured 0 of 1 rounds"),
    ],
)
def test_a_load_generator_that_fails_leaves_nothing(
    do: Callable[..., Any], engine: FakeEngine, mine: str, lines: list[dict[str, Any]], said: str
) -> None:
    engine.works = lambda _job: (0, list(map(json.dumps, lines)), {})
    assert said in do(mine, "--clients", "1", "--rounds", "1", code=1).stderr
    assert engine.empty()


def test_what_cannot_be_compared_is_refused(do: Callable[..., Any], engine: FakeEngine, mine: str) -> None:
    assert "cannot be compared" in do("swarm", code=2).stderr
    assert "must be kv=N" in do(mine, "--size", "master=3", code=2).stderr
    assert "is not one of put, get, mixed" in do(mine, "--operations", "delete", code=2).stderr
    assert "must be numbers" in do(mine, "--clients", "1,x", code=2).stderr
    assert "greater than" in do(mine, "--clients", "1", "--connections", "4", code=2).stderr
    assert "no such folder" in do(mine, "--chart", "missing/x.svg", code=2).stderr
    CliRunner().invoke(app, ["up", mine, "--name", "bench-mine"])
    assert "cluster bench-mine exists" in do(mine, code=2).stderr


def test_every_bundled_store_takes_part_with_fair_settings() -> None:
    for name, role in (("etcd", "kv"), ("zookeeper", "kv"), ("consul", "master")):
        loaded = catalog.load(name)
        assert bench.sizes(loaded, "kv", 5)[role] == 5
        for path, value in loaded.profile.bench["kv"].set.items():
            override(catalog.load(name).document, path, value)
    assert bench.sizes(catalog.load("consul"), "kv", 3) == {"master": 3, "agent": 0}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("image: node\n    run", "run", "needs either image or part"),
        ("image: node\n    run", "part: kv-lod\n    run", "no part named 'kv-lod'"),
        ("role: master\n    image: node", "role: mastr\n    image: node", "no role named 'mastr'"),
        ("image: node\n    run", "image: other\n    run", "no role has an image 'other'"),
        ("settings.color", "settings.colour", "no attribute 'colour'"),
    ],
)
def test_a_wrong_hook_is_refused_where_it_is(mine: str, old: str, new: str, said: str) -> None:
    file = Path(mine) / "profile.yaml"
    head, _, tail = file.read_text().partition("bench:")
    assert old in tail
    file.write_text(f"{head}bench:{tail.replace(old, new, 1)}")
    with pytest.raises(ProfileError, match=r"profile\.yaml:\d+") as caught:
        catalog.validate(mine)
    assert said in str(caught.value)
