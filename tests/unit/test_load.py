"""Images are loaded into nodes by a plan: archive saved once, copied at once, removed whatever happens."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from click.testing import CliRunner, Result

from minicluster import cluster as facade
from minicluster.cli.app import app
from minicluster.cluster import Cluster
from minicluster.errors import ImageError, NodeFailed
from minicluster.model.events import Event
from tests.fakes import OK, ExecResult, FakeEngine
from tests.unit.samples import TOY

NODES = ["toy-agent-1", "toy-agent-2", "toy-master-1"]


@pytest.fixture
def toy(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Three nodes that hold images. What was done to make them is forgotten."""
    made = Cluster.up(str(TOY), name="toy", engine=engine)
    engine.calls.clear()
    monkeypatch.setattr(facade, "connect", lambda **_options: engine)
    return made


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), prog_name="minicluster")


def archives(engine: FakeEngine) -> list[str]:
    """Nodes that still hold an archive: it was copied there, and never removed."""
    removed = {name for name, _, argv in (d.partition(": ") for d in engine.did("exec")) if argv.startswith("rm -f ")}
    return sorted({*engine.did("put_files")} - removed)


def test_each_node_gets_the_whole_archive(engine: FakeEngine, toy: Cluster) -> None:
    toy.load("some/image")
    held = [
        content.content for name in NODES for path, content in engine.boxes[name].files.items() if "/var/tmp" in path
    ]
    assert held == [b"".join(engine.save_image("some/image"))] * 3
    assert sorted(engine.did("put_files")) == NODES
    assert archives(engine) == []


def test_a_node_that_refuses_an_image_is_named_and_no_archive_stays(engine: FakeEngine, toy: Cluster) -> None:
    def load(container: str, _argv: Sequence[str]) -> ExecResult:
        return ExecResult(1, "", "no space left") if container == "toy-agent-2" else OK

    engine.answers["load"] = load
    with pytest.raises(ImageError) as caught:
        toy.load("some/image")
    assert caught.value.what == "some/image could not be loaded"
    assert "failed in toy-agent-2 with status 1: no space left" in caught.value.why
    assert archives(engine) == []


def test_a_copy_that_fails_leaves_no_archive(engine: FakeEngine, toy: Cluster) -> None:
    engine.fail("put_files", NodeFailed("the disk is full"), match="toy-agent-1")
    with pytest.raises(ImageError, match="could not be loaded"):
        toy.load("some/image")
    assert archives(engine) == []


def test_only_the_named_nodes_are_loaded_and_told(engine: FakeEngine, toy: Cluster) -> None:
    heard: list[Event] = []
    toy.load("some/image", "agent", listener=heard.append)
    assert heard[0].text == "load some/image into 2 nodes of cluster toy"
    assert sorted(e.subject for e in heard if (e.kind, e.phase) == ("done", "loaded")) == ["agent-1", "agent-2"]


def test_nodes_that_do_not_run_are_not_loaded(engine: FakeEngine, toy: Cluster) -> None:
    engine.set_state("toy-agent-1", "exited")
    with pytest.raises(NodeFailed, match="cannot load an image into agent-1"):
        toy.load("some/image")
    assert engine.calls == []


def test_a_dry_run_as_json_has_a_plan_for_each_image(engine: FakeEngine, toy: Cluster) -> None:
    result = run("load", "some/image", "--node", "agent-1", "--dry-run", "-o", "json")
    assert result.exit_code == 0, result.stderr
    (plan,) = json.loads(result.stdout)
    assert plan["headline"] == "load some/image into 1 node of cluster toy"
    assert [step["action"] for step in plan["steps"]] == ["save-image", "copy-image", "run-hook", "remove-file"]
    assert engine.calls == []


def test_as_json_the_answer_says_what_was_done_by_nodes(engine: FakeEngine, toy: Cluster) -> None:
    result = run("load", "some/image", "--node", "agent", "-o", "json")
    expected = {"source": "some/image", "images": ["some/image"], "sent": ["agent-1", "agent-2"]}
    assert (result.exit_code, json.loads(result.stdout)) == (0, [{**expected, "tagged": [], "present": []}])


def test_a_dry_run_shows_the_steps_and_does_nothing(engine: FakeEngine, toy: Cluster) -> None:
    result = run("load", "some/image", "--node", "agent-1", "--dry-run")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "load some/image into 1 node of cluster toy"
    assert [line.split("  ")[1].split(":")[0] for line in lines[2:]] == [
        "save image some/image",
        "copy image some/image to toy-agent-1",
        "run in toy-agent-1",
        "remove toy-agent-1",
    ]
    assert engine.calls == []
