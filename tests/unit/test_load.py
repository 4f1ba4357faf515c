"""Images are loaded into nodes by a plan: archive saved once, copied at once, removed whatever happens."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from minicluster.cli.app import app
from minicluster.cluster import Cluster
from minicluster.engine.protocol import Image
from minicluster.errors import ImageError, NodeFailed, UsageError
from minicluster.model.deferred import marker
from minicluster.model.events import Event
from tests.fakes import OK, ExecResult, FakeEngine
from tests.unit.samples import TOY

NODES = ["toy-agent-1", "toy-agent-2", "toy-master-1"]


@pytest.fixture
def toy(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """Three nodes that hold images. What was done to make them is forgotten."""
    made = Cluster.up(str(TOY), name="toy", engine=engine)
    engine.calls.clear()
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda **_options: engine)
    return made


DIGEST, OTHER = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"


@pytest.fixture
def listing(engine: FakeEngine, toy: Cluster) -> dict[str, list[tuple[str, str]]]:
    """Nodes that list what they hold: container -> pairs of an ID and a name, which loads and tags change.

    The engine has ``app:1`` and ``app:2``, which are one image.
    """
    held: dict[str, list[tuple[str, str]]] = {name: [] for name in NODES}
    hook = toy.spec.load[0]
    toy.spec = replace(
        toy.spec,
        held=(replace(hook, run=("held",)),),
        tag=(replace(hook, run=("tag", marker("image.source"), marker("image.name"))),),
    )

    def load(container: str, argv: Sequence[str]) -> ExecResult:
        with tarfile.open(fileobj=io.BytesIO(engine.boxes[container].files[argv[1]].content)) as tar:
            manifest = tar.extractfile("manifest.json")
            assert manifest
            names = [ref for image in json.load(manifest) for ref in image["RepoTags"]]
        held[container] += [(DIGEST, name) for name in names]
        return OK

    def tag(container: str, argv: Sequence[str]) -> ExecResult:
        known = {DIGEST, *(name for _, name in held[container])}
        assert argv[1] in known
        held[container].append((DIGEST, argv[2]))
        return OK

    engine.answers["load"] = load
    engine.answers["tag"] = tag
    engine.answers["held"] = lambda container, _argv: ExecResult(
        0, "".join(f"{id} {name}\n" for id, name in held[container]), ""
    )
    for name in ("app:1", "app:2"):
        engine.refs[name] = Image(DIGEST, ("app:1", "app:2"), {}, 1, 0)
    return held


def test_what_nodes_have_is_not_sent_again(toy: Cluster, engine: FakeEngine, listing: object) -> None:
    first = toy.load("app:1")
    assert (first.sent, first.tagged, first.present) == (("master-1", "agent-1", "agent-2"), (), ())
    engine.calls.clear()
    again = toy.load("app:1")
    assert (again.sent, again.tagged, again.present) == ((), (), ("master-1", "agent-1", "agent-2"))
    assert engine.did("put_files") == []


def test_a_further_name_is_a_tag(toy: Cluster, engine: FakeEngine, listing: dict[str, list[tuple[str, str]]]) -> None:
    listing["toy-agent-1"].append((DIGEST, "docker.io/library/app:1"))
    done = toy.load("app:2")
    assert (done.sent, done.tagged, done.present) == (("master-1", "agent-2"), ("agent-1",), ())
    assert (DIGEST, "docker.io/library/app:2") in listing["toy-agent-1"]
    assert "toy-agent-1" not in engine.did("put_files")


def test_a_name_that_means_another_image_is_sent(toy: Cluster, listing: dict[str, list[tuple[str, str]]]) -> None:
    listing["toy-agent-1"].append((OTHER, "app:1"))
    assert toy.load("app:1", "agent-1").sent == ("agent-1",)


def test_a_node_that_cannot_say_what_it_has_gets_it(toy: Cluster, engine: FakeEngine, listing: object) -> None:
    toy.load("app:1")
    engine.answers["held"] = ExecResult(1, "", "no such command")
    assert toy.load("app:1", "agent-1").sent == ("agent-1",)


def test_a_dry_run_of_what_is_there_has_no_steps(toy: Cluster, listing: dict[str, list[tuple[str, str]]]) -> None:
    listing["toy-agent-1"].append((DIGEST, "app:1"))
    plan = toy.plan_load("app:1", "agent-1")
    assert (plan.headline, plan.steps) == ("app:1 is already there: 1 node of cluster toy", ())


@pytest.mark.parametrize("word", [DIGEST, "a" * 64, "a" * 12])
def test_an_image_may_be_named_by_its_id(toy: Cluster, listing: dict[str, list[tuple[str, str]]], word: str) -> None:
    listing["toy-agent-1"].append((DIGEST, "<none>:<none>"))
    assert toy.load(word, "agent-1").present == ("agent-1",)


def archive(path: Path, *names: str, config: bytes = b"{}") -> str:
    """An archive as ``docker save`` writes it; returns the ID of its image."""
    content = json.dumps([{"Config": "c.json", "RepoTags": list(names), "Layers": []}]).encode()
    with tarfile.open(path, "w") as tar:
        for name, data in (("manifest.json", content), ("c.json", config)):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return f"sha256:{hashlib.sha256(config).hexdigest()}"


def test_an_archive_goes_into_nodes_without_the_engine(
    toy: Cluster, engine: FakeEngine, listing: dict[str, list[tuple[str, str]]], tmp_path: Path
) -> None:
    id = archive(tmp_path / "x.tar", "mine:1")
    engine.missing |= {str(tmp_path / "x.tar")}
    done = toy.load(str(tmp_path / "x.tar"), "agent")
    assert (done.images, done.sent) == (("mine:1",), ("agent-1", "agent-2"))
    held = [c for path, c in engine.boxes["toy-agent-1"].files.items() if "/var/tmp" in path]
    assert [c.content for c in held] == [(tmp_path / "x.tar").read_bytes()]
    listing["toy-agent-1"][:] = [(id, "mine:1")]
    listing["toy-agent-2"][:] = [(id, "other:1")]
    done = toy.load(str(tmp_path / "x.tar"), "agent")
    assert (done.sent, done.tagged, done.present) == ((), ("agent-2",), ("agent-1",))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("./no-such.tar", "cannot read ./no-such.tar"),
        ("no-such.tar.gz", "cannot read no-such.tar.gz"),
        ("/no/such", "cannot read /no/such"),
        ("nothing", "no such image or file: nothing"),
        (".", ". is a folder"),
        ("a b", "'a b' is neither an image nor a file"),
        ("", "'' is neither an image nor a file"),
    ],
)
def test_what_cannot_be_loaded_is_told_by_its_own_name(toy: Cluster, engine: FakeEngine, word: str, said: str) -> None:
    engine.every_image = False
    refused = run("load", word)
    assert refused.exit_code in (1, 2)
    assert said in refused.stderr
    assert "agent-1" not in refused.stderr
    assert engine.calls == []


def test_a_file_that_is_no_archive_is_not_sent(toy: Cluster, engine: FakeEngine, tmp_path: Path) -> None:
    engine.every_image = False
    (tmp_path / "text").write_text("hello")
    with tarfile.open(tmp_path / "exported", "w") as tar:
        tar.add(tmp_path / "text", "etc/text")
    for name, said in (("text", "is not an image archive"), ("exported", "contains no image")):
        with pytest.raises(UsageError, match=said):
            toy.load(str(tmp_path / name))
    assert engine.calls == []


def test_build_then_load(toy: Cluster, engine: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    done = run("load", "--build", str(tmp_path), "-t", "mine:2")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "mine:2: loaded into 3 nodes.\n"
    assert [ref for _folder, ref, _args in engine.builds] == ["mine:2"]


def test_nothing_is_built_that_cannot_be_loaded(toy: Cluster, engine: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    engine.set_state("toy-agent-1", "exited")
    refused = run("load", "--build", str(tmp_path), "-t", "mine:2")
    assert refused.exit_code == 1
    assert "cannot load an image into agent-1" in refused.stderr
    assert engine.builds == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "load needs an image"),
        (["--build", "."], "--build needs a name"),
        (["-t", "x", "y"], "-t needs --build"),
        (["-f", "x", "y"], "-f needs --build"),
        (["--build", "/no/such", "-t", "x"], "/no/such does not exist"),
        (["--build", ".", "-t", "Not:A Name"], "-t Not:A Name: not a name"),
        (["--build", ".", "-t", "x", "--dry-run"], "cannot be used together"),
        (["-", "-"], "standard input is given twice"),
    ],
)
def test_wrong_usage(toy: Cluster, words: list[str], said: str) -> None:
    refused = run("load", *words)
    assert refused.exit_code == 2
    assert said in refused.stderr


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
