"""Key-value stores compared on real clusters: every store answers, through its own protocol, and nothing is left."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.engine.conftest import SETTINGS, Shell, remains

pytestmark = pytest.mark.long

FEW = ("--warmup", "0.2", "--keys", "50")
#: Versions that can be had without a download, where the defaults cannot.
VERSIONS = [
    w for name, its in SETTINGS.items() for key, value in its.items() for w in ("--set", f"{name}:{key}={value}")
]


def test_the_stores_that_come_with_minicluster(outer: Shell, tmp_path: Path) -> None:
    chart = tmp_path / "kv.svg"
    words = ("--clients", "4", "--connections", "2", "--rounds", "2", "--seconds", "0.5", "--chart", str(chart))
    answer = outer.minicluster("bench", "kv", *FEW, *words, *VERSIONS, "-o", "json", timeout=1200).json
    assert [system["profile"] for system in answer["systems"]] == ["consul", "etcd", "zookeeper"]
    for system in answer["systems"]:
        assert system["nodes"] == 3
        assert [point["load"]["operation"] for point in system["points"]] == ["put", "get", "mixed"]
        for point in system["points"]:
            assert len(point["rounds"]) == 2
            for one in point["rounds"]:
                assert one["operations"] > 0
                assert not one["error"] or "deadline" in one["error"], system["profile"]  # a busy machine
                assert 0 < one["p50"] <= one["p95"] <= one["p99"] <= one["max"]
                assert 0 < one["client_share"] < 1
    drawn = ElementTree.parse(chart).getroot()
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}title"))) == 1 + 9
    assert remains(outer, "bench-") == {}


def test_writes_stop_when_the_leader_dies_and_go_on(outer: Shell) -> None:
    words = ("--kill-leader", "--rounds", "1", "--clients", "16", "--connections", "16", "--set", "tls=true")
    said = outer.minicluster("bench", "kv", "etcd", *FEW, *words, "-o", "json", timeout=600)
    (point,) = json.loads(said.out)["systems"][0]["points"]
    (one,) = point["rounds"]
    assert one["killed"].startswith("kv-")
    assert one["errors"] > 0
    assert one["gap_begin"] <= one["killed_at"] + 0.5
    assert one["killed_at"] < one["gap_begin"] + one["gap"] < one["seconds"]  # it has an end
    assert sum(one["timeline"]) == one["operations"]
    assert remains(outer, "bench-") == {}
