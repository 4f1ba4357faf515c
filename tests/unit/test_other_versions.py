"""A cluster that another version of minicluster made is named as such, and can only be listed and removed."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from minicluster.cli.app import app
from minicluster.cluster import Cluster, clusters, down, dry_run
from minicluster.errors import MiniclusterError
from minicluster.model import labels
from minicluster.model.codec import FORMAT
from tests.fakes import FakeEngine
from tests.unit.samples import TOY

#: What 0.1.0 wrote into the label of a record, for the toy profile: without the number of a format.
OLDER = (Path(__file__).parents[1] / "data" / "records" / "0.1.0.txt").read_text().strip()
NEWER = f"{FORMAT + 1}:something else"

AGES = pytest.mark.parametrize(("label", "age"), [(OLDER, "an older"), (NEWER, "a newer")])


def store(engine: FakeEngine, label: str) -> None:
    """Stands a cluster up, and replaces its record by one of another version."""
    Cluster.up(str(TOY), name="toy", engine=engine)
    (record,) = [v for v in engine.volumes("toy") if labels.REVISION in v.labels]
    engine.remove_volume(record.name)
    engine.create_volume(record.name, {**record.labels, labels.SPEC: label})


@AGES
def test_it_is_neither_opened_nor_changed(engine: FakeEngine, label: str, age: str) -> None:
    store(engine, label)
    before = list(engine.calls)
    for attempt in (
        lambda: Cluster.open("toy", engine=engine),
        lambda: Cluster.open(engine=engine),
        lambda: Cluster.up(name="toy", engine=engine),
        lambda: Cluster.up(str(TOY), name="toy", size={"agent": 3}, engine=engine),
    ):
        with pytest.raises(MiniclusterError) as caught:
            attempt()
        assert caught.value.what == f"cluster toy was made by {age} minicluster"
        assert "minicluster down toy" in caught.value.fix
    assert [call for call in engine.calls[len(before) :] if call[0].startswith(("create", "remove", "start"))] == []


@AGES
def test_a_dry_run_says_so_too(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, label: str, age: str) -> None:
    store(engine, label)
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda **_: engine)
    with pytest.raises(MiniclusterError, match=f"cluster toy was made by {age} minicluster"):
        dry_run(str(TOY), name="toy")


@AGES
def test_it_is_listed_with_what_to_do(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, label: str, age: str
) -> None:
    store(engine, label)
    (found,) = clusters(engine)
    assert (found.cluster, found.phase, found.nodes, found.running) == ("toy", "running", 3, 3)
    assert found.note == f"cluster toy was made by {age} minicluster. Remove it: `minicluster down toy`."
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda **_: engine)
    assert f"Note: {found.note}" in CliRunner().invoke(app, ["ls"]).stderr


@AGES
def test_down_removes_it(engine: FakeEngine, label: str, age: str) -> None:
    store(engine, label)
    down(["toy"], engine=engine)
    assert (engine.containers(), engine.networks(), engine.volumes()) == ([], [], [])


def test_a_damaged_record_is_of_no_other_version(engine: FakeEngine) -> None:
    store(engine, f"{FORMAT}:damaged")
    assert clusters(engine)[0].note == ""
    with pytest.raises(MiniclusterError, match="is incomplete"):
        Cluster.open("toy", engine=engine)
