"""Clusters of a project file on an engine: which ones a command is about, and whose they are."""

from __future__ import annotations

import json
import shutil
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from minicluster import projects
from minicluster.cli.app import app
from minicluster.cluster import Cluster
from minicluster.engine.protocol import ExecResult
from minicluster.errors import EngineError, Interrupted, UsageError
from minicluster.model import labels
from minicluster.model.events import Event
from minicluster.model.lease import Lease
from minicluster.model.spec import ApplySpec, ProgramSpec
from minicluster.operations import apply_files, registries
from minicluster.project import find
from minicluster.testing.pool import Pool
from minicluster.testing.session import Run
from tests.fakes import FakeEngine, Hang
from tests.unit.samples import TOY

ONE = f"""\
version: 1
clusters:
  dev:
    profile: {TOY}
    size: {{agent: 1}}
    set: {{color: blue}}
"""
TWO = f"""{ONE}
  other:
    profile: {TOY}
    size: {{agent: 1}}
"""

Do = Callable[..., Any]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a project file into a folder, and makes that the current one."""

    def change(text: str | None = ONE, folder: str = "mine") -> Path:
        path = tmp_path / folder / find.NAME
        path.parent.mkdir(exist_ok=True)
        if text is not None:
            path.write_text(textwrap.dedent(text))
        monkeypatch.chdir(path.parent)
        return path

    return change


@pytest.fixture
def do(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Do:
    """Runs a command on the fake engine."""
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda **_: engine)

    def run(line: str, code: int = 0) -> Any:
        done = CliRunner().invoke(app, line.split())
        assert done.exit_code == code, done.output
        return done

    return run


def names(engine: FakeEngine) -> list[str]:
    return sorted({v.labels[labels.CLUSTER] for v in engine.volumes()})


def test_up_makes_what_the_file_says_and_labels_all_of_it(engine: FakeEngine, here: Do, do: Do) -> None:
    path = here()
    said = do("up").stderr
    assert f"using {path}" in said
    cluster = Cluster.open("dev", engine=engine)
    assert (cluster.spec.overrides.set, len(cluster.spec.of_role("agent"))) == ({"color": "blue"}, 1)
    things = [*engine.containers(), *engine.networks(), *engine.volumes()]
    assert {thing.labels[labels.PROJECT] for thing in things} == {str(path)}


def test_a_folder_below_uses_the_same_file(
    engine: FakeEngine, here: Do, do: Do, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = here()
    (path.parent / "src").mkdir()
    monkeypatch.chdir(path.parent / "src")
    do("up -q")
    assert do("status").stdout.startswith("dev (toy)")


def test_up_applies_what_changed_and_drops_what_left(engine: FakeEngine, here: Do, do: Do) -> None:
    here()
    do("up")
    assert "Cluster dev is up to date." in do("up").stdout
    here(f"version: 1\nclusters: {{dev: {{profile: {TOY}, size: {{agent: 2}}}}}}")
    do("up")
    spec = Cluster.open("dev", engine=engine).spec
    assert (spec.overrides.set, len(spec.of_role("agent"))) == ({}, 2)
    do("scale agent=3")
    assert len(Cluster.open("dev", engine=engine).spec.of_role("agent")) == 3
    do("up")
    assert len(Cluster.open("dev", engine=engine).spec.of_role("agent")) == 2
    assert {v.labels[labels.PROJECT] for v in engine.volumes()} != {""}


def test_options_precede_the_file_for_one_up(engine: FakeEngine, here: Do, do: Do) -> None:
    here(TWO)
    do("up dev --size agent=2 --set level=4")
    spec = Cluster.open("dev", engine=engine).spec
    assert (spec.overrides.size, spec.overrides.set) == ({"agent": 2}, {"color": "blue", "level": "4"})
    assert names(engine) == ["dev"]
    assert "--size needs the name of a cluster" in do("up --size agent=2", 2).stderr


def test_a_wrong_value_is_reported_where_it_is_written(here: Do, do: Do) -> None:
    path = here(ONE.replace("agent: 1", "agents: 1"))
    assert f"{path}:5:20: size agents=1: no role named 'agents'" in do("up", 2).stderr


HAVING, LACKING = ONE, ONE.replace("dev:", "its:")
REFUSED = "cluster dev is of another project"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        *((HAVING, line, REFUSED) for line in ("up", "up dev", "up -c dev", "down dev", "reset dev")),
        (HAVING, "scale agent=2 -c dev", REFUSED),
        (HAVING, "up etcd -c dev", "dev is a cluster of"),
        *((LACKING, line, REFUSED) for line in ("up -c dev", "up etcd -c dev", "down dev", "reset dev")),
        (LACKING, "scale agent=2 -c dev", REFUSED),
        (LACKING, "up dev", "no cluster or profile named 'dev'"),
    ],
)
def test_another_project_is_refused_and_named(
    engine: FakeEngine, here: Do, do: Do, text: str, line: str, said: str
) -> None:
    path = here()
    do("up")
    before = list(engine.calls)
    here(text, "another")
    done = do(line, 2)
    assert said in done.stderr
    assert str(path) in done.stderr or said != REFUSED
    assert [call for call in engine.calls[len(before) :] if call[0].startswith(("create", "remove", "start"))] == []


def test_without_a_project_a_cluster_is_only_changed_by_its_name(
    engine: FakeEngine, here: Do, do: Do, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(ONE.replace("dev:", "toy:"))
    do("up")
    monkeypatch.chdir(tmp_path)
    assert "cluster toy is of another project" in do(f"up {TOY}", 2).stderr
    do("up -c toy")
    do("down toy")
    assert engine.empty


def test_a_cluster_made_by_hand_is_not_taken(engine: FakeEngine, here: Do, do: Do, tmp_path: Path) -> None:
    Cluster.up(str(TOY), name="dev", engine=engine)
    path = here()
    said = do("up", 2).stderr
    assert f"cluster dev exists already, and was not made from {path}" in said
    assert "no cluster of" in do("down").stderr
    assert names(engine) == ["dev"]
    do("down dev")
    do("up")


def test_a_file_that_is_gone_frees_its_clusters(engine: FakeEngine, here: Do, do: Do) -> None:
    path = here()
    do("up")
    path.unlink()
    here(ONE, "another")
    said = do("up", 2).stderr
    assert "which no longer exists" in said
    assert "minicluster -f none down dev" in said
    do("-f none down dev")
    do("up")


def test_down_removes_the_clusters_of_the_file_only(engine: FakeEngine, here: Do, do: Do) -> None:
    Cluster.up(str(TOY), name="by-hand", engine=engine)
    path = here(TWO)
    do("up")
    done = do("down")
    assert f"removing dev, other, made from {path}" in done.stderr
    assert names(engine) == ["by-hand"]
    assert f"no cluster of {path} exists" in do("down").stderr
    do("down --strict", 7)


def test_what_left_the_file_is_named_and_removed_on_demand(engine: FakeEngine, here: Do, do: Do) -> None:
    here(TWO)
    do("up")
    here(ONE)
    assert "other is no longer in minicluster.yaml: `minicluster down --orphans` removes it" in do("up").stderr
    do("down --orphans")
    assert names(engine) == ["dev"]
    assert "no orphaned clusters of" in do("down --orphans").stderr
    assert "cannot be used together" in do("down --orphans dev", 2).stderr
    assert "--orphans needs a project file" in do("-f none down --orphans", 2).stderr


def test_a_word_is_a_cluster_of_the_file_and_else_a_profile(engine: FakeEngine, here: Do, do: Do) -> None:
    here(TWO.replace("other:", "swarm:"))
    assert "no cluster or profile named 'deb'" in (said := do("up deb", 2).stderr)
    assert "Did you mean 'dev'?" in said
    do("up swarm")
    assert Cluster.open("swarm", engine=engine).spec.profile == "toy"
    do(f"up {TOY} -c plain")
    assert engine.volumes("plain")[0].labels.get(labels.PROJECT) is None
    assert "has no cluster 'deb'" in do("up -c deb", 2).stderr


def test_several_clusters_must_be_named(here: Do, do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    path = here(TWO)
    do("up -q")
    said = do("info", 2).stderr
    assert f"{path} has several clusters" in said
    assert do("status -c other").stdout.startswith("other (toy)")
    monkeypatch.setenv("MINICLUSTER", "other")
    assert do("status").stdout.startswith("other (toy)")


def test_status_shows_all_clusters_of_the_file(
    engine: FakeEngine, here: Do, do: Do, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda **_: engine)
    here(TWO)
    do("up other -q")
    first, second = do("status").stdout.split("\n\n")
    assert first == "dev (toy): not started; `minicluster up dev` starts it"
    assert second.startswith("other (toy): ready")
    assert [(one["cluster"], one["phase"]) for one in json.loads(do("status --json", 0).stdout)] == [
        ("dev", "missing"),
        ("other", "ready"),
    ]
    do("status --exit-code", 7)
    do("up dev -q")
    do("status --exit-code")


def test_status_of_a_cluster_without_a_record_does_not_hide_the_others(
    engine: FakeEngine, here: Do, do: Do, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda **_: engine)
    here(TWO)
    do("up -q")
    for volume in engine.volumes("dev"):
        if labels.SPEC in volume.labels:
            del engine.vols[volume.name]
    first, second = do("status").stdout.split("\n\n")
    assert first.startswith("dev (toy): broken\nNote: cluster dev is incomplete")
    assert second.startswith("other (toy): ready")
    do("status --exit-code", 6)


def test_the_first_command_names_the_cluster_once(here: Do, do: Do) -> None:
    path = here("version: 1\nclusters: {dev: {profile: ./toy, size: {agent: 1}}}")
    shutil.copytree(TOY, path.parent / "toy")
    with (path.parent / "toy" / "profile.yaml").open("a") as profile:
        profile.write('\nexample: "minicluster kv -c {{ cluster.name }} ls /"\n')
    assert "minicluster kv -c dev ls /\n" in do("up").stdout


def test_a_cluster_that_is_not_up_is_started_by_the_file(here: Do, do: Do) -> None:
    path = here()
    said = do("status", 7).stderr
    assert "cluster dev does not exist" in said
    assert f"{path} names it." in said
    assert "Start it: `minicluster up dev`." in do("status dev", 7).stderr


def test_a_lifetime_begins_anew_with_each_up_and_ends_with_its_key(engine: FakeEngine, here: Do, do: Do) -> None:
    here(f"{ONE}    ttl: 2h\n")
    do("up")
    assert "h" in do("ls").stdout
    here(ONE)
    do("up")
    assert "LEASE" not in do("ls").stdout
    assert "up to date" in do("up").stdout


def test_a_rollback_keeps_the_project(engine: FakeEngine, here: Do, do: Do) -> None:
    path = here()
    do("up")
    engine.fail("start_container", EngineError("no"), match="agent-2")
    here(ONE.replace("agent: 1", "agent: 2"))
    do("up", 1)
    things = [*engine.containers("dev"), *engine.networks("dev"), *engine.volumes("dev")]
    assert {thing.labels[labels.PROJECT] for thing in things} == {str(path)}


def test_one_that_fails_does_not_end_the_others(engine: FakeEngine, here: Do, do: Do) -> None:
    here(TWO)
    engine.fail("start_container", EngineError("no room"), match="other-master-1")
    done = do("up", 1)
    assert "Cluster dev is up" in done.stdout
    assert "Error: no room" in done.stderr
    assert "dev/master-1: ready" in done.stderr
    assert names(engine) == ["dev"]


def test_each_line_says_which_of_several_clusters() -> None:
    told: list[Event] = []
    projects._named("dev", told.append)(Event("note", text="applied a: one\napplied a: two"))
    assert told[0].text == "dev: applied a: one\ndev: applied a: two"


@pytest.mark.parametrize("at_once", [0, 1])
def test_ctrl_c_ends_all_of_several(
    engine: FakeEngine, here: Do, monkeypatch: pytest.MonkeyPatch, do: Do, at_once: int
) -> None:
    here(TWO)
    hang = Hang()
    engine.answers["is-ready"] = hang
    waited = threading.Event()

    def wait(futures: Any, timeout: float | None = None) -> Any:
        if timeout is None:  # after the interrupt
            return real(futures)
        assert hang.begun.wait(30)
        waited.set()
        raise KeyboardInterrupt

    real = projects.wait
    monkeypatch.setattr(projects, "wait", wait)
    with pytest.raises(Interrupted):
        projects.up(projects.wanted(None, {}), lambda _event: None, at_once)
    assert waited.is_set()
    assert engine.empty()


def test_ctrl_c_ends_loading_into_several(
    engine: FakeEngine, here: Do, monkeypatch: pytest.MonkeyPatch, do: Do
) -> None:
    one, other = ONE, TWO.removeprefix(ONE)
    here(f"{one}    load: [some/image]\n{other}")
    hang = Hang()
    engine.answers["load"] = hang

    def wait(futures: Any, timeout: float | None = None) -> Any:
        if timeout is None:  # after the interrupt
            return real(futures)
        assert hang.begun.wait(30)
        real(futures[1:])
        raise KeyboardInterrupt

    real = projects.wait
    monkeypatch.setattr(projects, "wait", wait)
    with pytest.raises(Interrupted) as caught:
        projects.up(projects.wanted(None, {}), lambda _event: None)
    assert caught.value.why == "Complete before that: other. Up, but not all of `load` and `apply` is done: dev."
    assert names(engine) == ["dev", "other"]


def test_a_single_plan_and_several(here: Do, do: Do) -> None:
    here()
    assert do("up --dry-run").stdout.startswith("create cluster dev (toy)")
    here(f"{ONE}    load: [my/app]\n    apply: [.]\n")
    assert "Then load my/app.\nThen apply /" in do("up --dry-run").stdout
    here(TWO)
    said = do("up --dry-run").stdout
    assert "create cluster dev (toy)" in said
    assert "create cluster other (toy)" in said


# What is applied


def files(folder: Path, *paths: str) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)
    return folder


def spec_of(engine: FakeEngine, *how: ApplySpec) -> Any:
    from dataclasses import replace

    program = ProgramSpec("tool", "/usr/bin/tool", "node", on="master")
    made = Cluster.up(str(TOY), name="dev", engine=engine).spec
    return replace(made, apply=how, programs={"tool": program})


EACH = ApplySpec(("*.txt", "*.cfg"), "tool", ("put", "\0applied.key\0", "\0applied.path\0"))
WHOLE = ApplySpec(("kustomization.yaml",), "tool", ("-k", "\0applied.folder\0"), whole=True)


def test_each_file_of_a_folder_is_applied_under_its_path(engine: FakeEngine, tmp_path: Path) -> None:
    spec = spec_of(engine, WHOLE, EACH)
    folder = files(tmp_path / "conf", "b.txt", "a/c.txt", ".hidden.txt", ".git/d.txt", "e.other")
    assert [(call.key, call.how) for call in apply_files.calls(spec, folder)] == [("b.txt", EACH), ("a/c.txt", EACH)]
    assert [call.key for call in apply_files.calls(spec, folder / "a" / "c.txt")] == ["c.txt"]


def test_a_folder_may_be_applied_as_one(engine: FakeEngine, tmp_path: Path) -> None:
    spec = spec_of(engine, WHOLE, EACH)
    folder = files(tmp_path / "conf", "b.txt", "kustomization.yaml")
    (call,) = apply_files.calls(spec, folder)
    assert (call.how, call.path) == (WHOLE, folder)


@pytest.mark.parametrize("path", ["none", "empty", "odd.bin"])
def test_what_cannot_be_applied_is_refused(engine: FakeEngine, tmp_path: Path, path: str) -> None:
    spec = spec_of(engine, EACH)
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd.bin").touch()
    with pytest.raises(UsageError) as caught:
        apply_files.calls(spec, tmp_path / path)
    assert str(tmp_path / path) in caught.value.what
    with pytest.raises(UsageError, match="cannot apply"):
        apply_files.calls(spec_of(engine), tmp_path / "odd.bin")


def test_a_program_of_a_node_gets_a_copy_that_is_removed(engine: FakeEngine, tmp_path: Path) -> None:
    spec = spec_of(engine, EACH)
    told: list[Event] = []
    seen: dict[str, bytes] = {}

    def tool(container: str, argv: Any) -> ExecResult:
        seen[argv[2]] = engine.get_file(container, argv[3])
        return ExecResult(0, "stored", "")

    engine.answers["/usr/bin/tool"] = tool
    apply_files.apply(
        engine, spec, [str(files(tmp_path / "conf", "b.txt"))], {}, timeout=5, listener=told.append, cancel=_never()
    )
    assert seen == {"b.txt": b"b.txt"}
    assert next(event.text for event in told if event.kind == "note").endswith("conf: stored")
    assert any("rm -f /var/tmp/minicluster-apply-" in call for call in engine.did("exec"))


def test_a_file_that_is_refused_is_named_with_the_reason(engine: FakeEngine, tmp_path: Path) -> None:
    spec = spec_of(engine, EACH)
    engine.answers["/usr/bin/tool"] = ExecResult(3, "", "line 2: no such key")
    from minicluster.errors import MiniclusterError

    with pytest.raises(MiniclusterError) as caught:
        apply_files.apply(
            engine, spec, [str(files(tmp_path, "b.txt"))], {}, timeout=5, listener=lambda _e: None, cancel=_never()
        )
    assert caught.value.what.endswith("b.txt could not be applied")
    assert caught.value.why == "tool ended with status 3: line 2: no such key"
    assert "minicluster up" in caught.value.fix


def _never() -> Any:
    from minicluster.engine.protocol import Cancel

    return Cancel()


# Tests


def pool(engine: FakeEngine) -> Pool:
    made = Pool(Run.begin(reuse=False, keep=False, ttl=60))
    made._engine = engine
    return made


def test_a_pool_never_takes_a_cluster_that_is_not_its_own(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda **_: engine)
    own = pool(engine)
    pooled = own.get(str(TOY), {"size": {"agent": 1}}, place="", base="dev")
    assert pooled.name.startswith("dev-")
    Cluster.up(str(TOY), name=pooled.name, size={"agent": 1}, engine=engine)  # at a terminal
    theirs = pooled.name
    before = {v.name for v in engine.volumes(theirs)}
    cluster = pooled.acquire(isolated=True, timeout=10)
    assert cluster.name != theirs
    assert {v.name for v in engine.volumes(theirs)} == before
    assert all(labels.LEASE not in v.labels for v in engine.volumes(theirs))
    pooled.release()
    own.finish()
    assert names(engine) == [theirs]


def test_a_pool_lends_a_cluster_only_as_it_was_asked_for(engine: FakeEngine) -> None:
    own, one, two = pool(engine), registries.registry("r.example"), registries.registry("s.example")
    pooled = own.get("swarm", {"registries": [one], "restart": "always", "size": {"agent": 1}}, place="")
    assert own.get("swarm", {"registries": [two], "restart": "always", "size": {"agent": 1}}, place="") is not pooled
    cluster = pooled.acquire(isolated=False, timeout=10)
    made = cluster.spec.overrides
    pooled.release()
    Cluster.up(name=pooled.name, registries=[two], restart="no", engine=engine)  # what a test does to it
    assert pooled.acquire(isolated=False, timeout=10).spec.overrides == made
    assert made.registries == (one,)
    pooled.release()
    own.finish()


def test_options_of_the_command_line_replace_those_of_the_file(engine: FakeEngine, here: Do, do: Do) -> None:
    path = here("version: 1\nclusters:\n  dev: {profile: swarm, size: {agent: 1}, registries: [{host: r.example}]}\n")
    do("up --registry s.example,insecure")
    asked = Cluster.open("dev", engine=engine).spec.overrides.registries
    assert asked == (registries.registry("s.example", insecure=True),)
    do("up")
    asked = Cluster.open("dev", engine=engine).spec.overrides.registries
    assert asked == (registries.registry("r.example"),)
    do("up --registry none")
    assert Cluster.open("dev", engine=engine).spec.overrides.registries == ()
    path.write_text("version: 1\nclusters: {dev: {profile: swarm, ca: nothing}}\n")
    done = do("up", code=2)
    assert f"{path}:2:38: ca: cannot read {path.parent / 'nothing'}" in done.stderr
    do("up --ca none")


def test_lease_of_a_pools_cluster_is_no_projects(engine: FakeEngine) -> None:
    own = pool(engine)
    pooled = own.get(str(TOY), {}, place="function here", base="dev")
    cluster = pooled.acquire(isolated=True, timeout=10)
    volumes = engine.volumes(cluster.name)
    assert all(labels.PROJECT not in v.labels for v in volumes)
    assert all(Lease.parse(v.labels[labels.LEASE]).owner for v in volumes)
    pooled.release()
    with pytest.raises(UsageError, match="takes no project"):
        own.get(str(TOY), {"project": "x"}, place="")


def test_a_file_that_cannot_be_read_is_named(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(engine, EACH)
    path = files(tmp_path, "b.txt") / "b.txt"

    def refuse(self: Path, *_words: object) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UsageError, match=f"cannot read {path}"):
        apply_files.apply(engine, spec, [str(path)], {}, timeout=5, listener=lambda _e: None, cancel=_never())
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UsageError, match=f"cannot read {tmp_path}"):
        apply_files.calls(spec, tmp_path)
