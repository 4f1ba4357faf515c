"""``profile new`` and ``profile test``: a profile that works, and a verdict on each thing that users do with one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from minicluster import cluster as facade
from minicluster.cli.app import app
from minicluster.errors import EngineError, MiniclusterError, NodeFailed, NoEngine, UsageError
from minicluster.operations import chaos
from minicluster.profile import catalog, folders, scaffold
from minicluster.profile.load import load
from minicluster.testing import profile_test
from minicluster.testing.profile_test import CHECKS, Verdict, check_profile, larger
from tests.fakes import ExecResult, FakeEngine
from tests.unit.samples import LEAST, TOY

Write = Callable[..., Path]


@pytest.fixture
def toy_folder(tmp_path: Path) -> str:
    """The toy profile without the role whose nodes the swarm in memory would never count."""
    folder = tmp_path / "toy"
    shutil.copytree(TOY, folder)
    text = (folder / "profile.yaml").read_text()
    role = "  helper:\n    count: 0\n    image: extra\n"
    assert role in text
    (folder / "profile.yaml").write_text(text.replace(role, ""))
    return str(folder)


@pytest.fixture(autouse=True)
def _on_the_fake(monkeypatch: pytest.MonkeyPatch, engine: FakeEngine) -> None:
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda **_: engine)
    monkeypatch.setattr(profile_test, "_PATIENCE", 0.3)
    monkeypatch.setattr(facade.reaper_client, "hold", lambda *_: None)


def verdicts(found: tuple[Verdict, ...]) -> dict[str, str]:
    return {verdict.check: verdict.verdict for verdict in found}


def reason(found: tuple[Verdict, ...], check: str) -> str:
    return next(verdict.reason for verdict in found if verdict.check == check)


def left(engine: FakeEngine) -> list[object]:
    return [*engine.containers(), *engine.networks(), *engine.volumes()]


# profile test


def test_each_check_has_a_verdict_and_nothing_is_left(engine: FakeEngine, toy_folder: str) -> None:
    heard: list[str] = []
    found = check_profile(toy_folder, timeout=10, ended=lambda verdict: heard.append(verdict.check))
    assert verdicts(found) == dict.fromkeys(CHECKS, "ok") | {"write": "skipped", "reset": "skipped"}
    assert reason(found, "reset") == "the profile has no reset hook"
    assert heard == [*CHECKS]
    assert left(engine) == []


@pytest.mark.parametrize(("status", "verdict"), [(0, "ok"), (1, "failed")])
def test_a_write_that_no_node_acknowledges_fails(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, write_profile: Write, status: int, verdict: str
) -> None:
    """Where `chaos` cannot write before its first fault, all of its figures would be wrong."""
    monkeypatch.setattr(chaos, "_ELECTION", 0.0)
    engine.answers["store"] = ExecResult(status, "", "no such option")
    folder = str(write_profile(f"{LEAST}write: {{on: worker, run: [store, '1']}}\n"))
    found = check_profile(folder, timeout=10)
    assert verdicts(found)["write"] == verdict
    if status:
        assert reason(found, "write") == "no worker node acknowledges store 1\nno such option"
        cluster = facade.Cluster.up(folder, name="one")
        with pytest.raises(NodeFailed, match="no worker node acknowledges store 1"):
            next(chaos.chaos(engine, cluster.spec, seconds=2, every=2, nodes=["worker-1"]))


def test_every_role_that_can_grows_to_the_next_allowed_number(engine: FakeEngine, toy_folder: str) -> None:
    check_profile(toy_folder, timeout=10)
    created = [name for call, name in engine.calls if call == "create_container"]
    assert [name.partition("-test-")[2].partition("-")[2] for name in created] == [
        *("master-1", "agent-1", "agent-2"),
        *("master-2", "master-3", "agent-3"),
    ]


@pytest.mark.parametrize(
    ("more", "count", "next_count"),
    [("", 1, 2), ("    max: 1\n", 1, 0), ("    allowed: [1, 3]\n", 1, 3), ("    immutable: true\n", 1, 0)],
)
def test_the_next_number_of_nodes(write_profile: Write, more: str, count: int, next_count: int) -> None:
    assert larger(load(write_profile(LEAST + more)).profile.roles["worker"], count) == next_count


def test_a_profile_that_is_not_valid_gets_no_cluster(engine: FakeEngine, write_profile: Write) -> None:
    found = check_profile(str(write_profile(LEAST + "    command: ['{{ nothing }}']\n")))
    assert verdicts(found) == {check: "failed" if check == "validate" else "skipped" for check in CHECKS}
    assert "profile.yaml:10:15" in reason(found, "validate")
    assert engine.did("create_container") == []


def test_a_cluster_that_does_not_get_up_is_a_failure_and_the_rest_is_skipped(
    engine: FakeEngine, toy_folder: str
) -> None:
    engine.answers["swarm-init"] = ExecResult(1, "", "no luck")
    found = check_profile(toy_folder, timeout=10)
    assert verdicts(found) == dict.fromkeys(CHECKS, "skipped") | {"validate": "ok", "up": "failed"}
    assert "no luck" in reason(found, "up")
    assert left(engine) == []


def test_one_failure_does_not_stop_the_other_checks(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, toy_folder: str
) -> None:
    def scale(*_: object, **__: object) -> None:
        raise MiniclusterError("it cannot grow", "Since it is full.")

    monkeypatch.setattr(facade.Cluster, "scale", scale)
    found = check_profile(toy_folder, timeout=10)
    assert reason(found, "scale up") == "it cannot grow\nSince it is full."
    assert reason(found, "scale down") == "scale up failed"
    assert verdicts(found)["stop"] == verdicts(found)["start"] == verdicts(found)["down"] == "ok"
    assert left(engine) == []


def test_a_cluster_that_is_not_ready_is_a_failure(
    engine: FakeEngine, write_profile: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = LEAST + "    ready: {exec: [is-ready]}\n"
    engine.answers["is-ready"] = ExecResult(0, "", "")
    folder = write_profile(text)

    def stop(self: facade.Cluster, **_: object) -> None:
        engine.answers["is-ready"] = ExecResult(1, "", "it is broken")

    monkeypatch.setattr(facade.Cluster, "restart", stop)
    found = check_profile(str(folder), timeout=2)
    assert "worker-1: it is broken" in reason(found, "rolling restart")


def test_what_down_leaves_is_a_failure(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, toy_folder: str) -> None:
    monkeypatch.setattr(facade.Cluster, "down", lambda *_, **__: None)
    found = check_profile(toy_folder, timeout=10)
    assert "left behind: toy-test-" in reason(found, "down")


@pytest.mark.parametrize("check", ["_Trial.members", "_Trial.stop", "_Trial.reset"])
def test_ctrl_c_leaves_nothing(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, check: str, toy_folder: str
) -> None:
    name = next(name for name, function in CHECKS.items() if function.__qualname__ == check)

    def interrupted(*_: object) -> None:
        assert left(engine)
        raise KeyboardInterrupt

    monkeypatch.setitem(CHECKS, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        check_profile(toy_folder, timeout=10)
    assert left(engine) == []


def test_without_an_engine_or_a_profile_there_is_no_verdict(monkeypatch: pytest.MonkeyPatch, toy_folder: str) -> None:
    with pytest.raises(UsageError):
        check_profile("nosuch")

    def none(**_: object) -> FakeEngine:
        raise NoEngine("no engine")

    monkeypatch.setattr("minicluster.engine.discover.connect", none)
    with pytest.raises(NoEngine):
        check_profile(toy_folder, timeout=10)


def test_the_command_prints_a_line_for_each_verdict(engine: FakeEngine, toy_folder: str) -> None:
    done = CliRunner().invoke(app, ["profile", "test", toy_folder])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert [next(c for c in CHECKS if line[9:].startswith(f"{c}  ")) for line in lines] == list(CHECKS)
    assert lines[0].startswith("ok       validate  ")
    assert lines[10].startswith("skipped  reset  ")
    assert lines[10].endswith("the profile has no reset hook")


def test_the_command_fails_with_a_check_and_shows_why(engine: FakeEngine, toy_folder: str) -> None:
    engine.answers["swarm-init"] = ExecResult(1, "", "no luck")
    done = CliRunner().invoke(app, ["profile", "test", toy_folder])
    assert done.exit_code == 1
    assert "failed   up" in done.stdout
    assert "         no luck" in done.stdout
    found = CliRunner().invoke(app, ["profile", "test", toy_folder, "-o", "json"])
    assert found.exit_code == 1
    (up,) = [row for row in json.loads(found.stdout) if row["check"] == "up"]
    assert list(up) == ["check", "verdict", "seconds", "reason"]
    assert (up["verdict"], "no luck" in up["reason"]) == ("failed", True)


# profile new


def test_a_new_profile_is_valid(tmp_path: Path) -> None:
    folder = scaffold.create("mine", tmp_path)
    assert folder == tmp_path / "mine"
    assert catalog.validate(str(folder)).profile.name == "mine"
    assert json.loads((folder / "profile.schema.json").read_text()) == catalog.json_schema()
    assert "$schema=profile.schema.json" in (folder / "profile.yaml").read_text()
    assert all(path.stat().st_mode & 0o100 for path in (folder / "files/bin").iterdir())


def test_the_scaffold_is_no_profile_of_its_own() -> None:
    assert not any(name.startswith("_") for name in folders.names())


@pytest.mark.parametrize("name", ["Mine", "1st", "my_own", "a" * 31, "../x", ""])
def test_a_name_that_no_cluster_could_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a profile"):
        scaffold.create(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/profile.yaml").write_text("precious")
    with pytest.raises(UsageError, match="already exists"):
        scaffold.create("mine", tmp_path)
    assert (tmp_path / "mine/profile.yaml").read_text() == "precious"


def test_a_folder_that_cannot_be_written_is_not_left_incomplete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(MiniclusterError, match="cannot write"):
        scaffold.create("mine", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_to_do_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["profile", "new", "mine"])
    assert done.exit_code == 0
    assert "minicluster profile test ./mine" in done.stdout
    done = CliRunner().invoke(app, ["profile", "new", "other", "--dir", str(tmp_path / "deep")])
    assert f"minicluster up {tmp_path / 'deep' / 'other'}" in done.stdout


def test_an_engine_that_fails_is_a_verdict(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, toy_folder: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise EngineError("the engine is out of order")

    monkeypatch.setattr(engine, "create_network", fails)
    found = check_profile(toy_folder, timeout=10)
    assert "out of order" in reason(found, "up")
