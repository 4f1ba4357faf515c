"""``logs --export``: all that a bug report needs, and none of the cluster's secrets; on an engine in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from minicluster.cli.app import app
from minicluster.cluster import Cluster
from minicluster.doctor import Check
from minicluster.errors import EngineError
from minicluster.model import labels
from minicluster.operations import export, preflight
from minicluster.operations.stored_authority import read_authority
from tests.fakes import FakeEngine

PROFILE = """
    version: 2
    name: talker
    summary: A node with secrets
    settings: {password: none, upstream: "http://localhost"}
    images: {main: {image: example/node:1}}
    roles:
      talker:
        count: 2
        image: main
        authority: true
        env: {PG_PASSWORD: "{{ settings.password }}", UPSTREAM: "{{ settings.upstream }}"}
        files: {/etc/secret: {source: files/secret.j2}}
"""
SECRET = "the word is {{ secret('word') }}, password = {{ settings.password }}"


@pytest.fixture
def talker(engine: FakeEngine, write_profile: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A cluster with a secret of its own, a password among its settings, and one in a URL."""
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda **_options: engine)
    monkeypatch.setattr(preflight, "examine", lambda _profile: [Check("engine", "ok", "at tcp://me:enginepw@host:1")])
    monkeypatch.setenv("HTTPS_PROXY", "http://me:proxypw@proxy:1")
    folder = write_profile(PROFILE, {"files/secret.j2": SECRET})
    settings = {"password": "hunter2secret", "upstream": "http://me:upstreampw@proxy:3128"}
    cluster = Cluster.up(str(folder), name="talk", set=settings, engine=engine)
    authority = read_authority(engine, cluster.spec)
    assert authority
    word = authority.secret("word")
    said = ["a line", f"secret {word}", "hunter2secret", "via http://me:upstreampw@proxy", "proxypw", authority.dump()]
    engine.boxes["talk-talker-1"].log += [x if isinstance(x, bytes) else x.encode() for x in said]
    return cluster


def secrets(cluster: Cluster) -> list[str]:
    authority = read_authority(cluster.engine, cluster.spec)
    assert authority
    key = authority.dump().decode().partition("PRIVATE KEY-----\n")[2].splitlines()[0]
    return [authority.secret("word"), key, "hunter2secret", "upstreampw", "proxypw", "enginepw"]


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["logs", *words], prog_name="minicluster")


def test_all_is_there_and_no_secret(talker: Cluster, tmp_path: Path) -> None:
    done = run("--export", str(tmp_path / "out"))
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"Exported 10 files to {tmp_path / 'out'}.\n"
    texts = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_text() for path in (tmp_path / "out").rglob("*.*")
    }
    assert {*texts} == {
        *("versions.json", "engine.json", "doctor.json", "status.json", "containers.json", "spec.json", "plan.json"),
        *("events.json", "nodes/talker-1.log", "nodes/talker-2.log"),
    }
    found = [(name, secret) for name, text in texts.items() for secret in secrets(talker) if secret in text]
    assert found == []
    assert texts["nodes/talker-1.log"].startswith("a line\nsecret ***\n***\nvia http://***@proxy\n***\n")
    assert json.loads(texts["status.json"])["cluster"] == "talk"
    assert json.loads(texts["spec.json"])["overrides"]["set"]["password"] == "***"
    assert "create talker-1" in texts["plan.json"]
    assert {event["action"] for event in json.loads(texts["events.json"])} >= {"create", "start"}
    assert json.loads(texts["versions.json"])["profile"] == "talker"


def test_what_no_label_and_no_dry_run_says(talker: Cluster, engine: FakeEngine) -> None:
    """Labels have the spec, which names secrets without their values; passwords among settings are a part of it."""
    things = [*engine.containers(), *engine.networks(), *engine.volumes()]
    values = [value for thing in things for name, value in thing.labels.items() if name != labels.SPEC]
    values += [str(talker.spec)]
    word, key = secrets(talker)[:2]
    assert [value for value in values if word in value or key in value] == []
    source = talker.spec.source
    words = ["up", source, "--name", "other", "--dry-run", "--set", "password=hunter2secret"]
    for form in ("text", "json"):
        said = CliRunner().invoke(app, [*words, "--set", "upstream=http://me:upstreampw@h", "-o", form])
        assert said.exit_code == 0, said.stderr
        assert [secret for secret in secrets(talker) if secret in said.stdout] == []


def test_only_some_nodes_and_lines(talker: Cluster, tmp_path: Path) -> None:
    assert run("talker-1", "--export", str(tmp_path / "out"), "-n", "1").exit_code == 0
    assert [path.name for path in (tmp_path / "out" / "nodes").iterdir()] == ["talker-1.log"]
    assert "a line" not in (tmp_path / "out" / "nodes" / "talker-1.log").read_text()


def test_what_cannot_be_read_is_noted(
    talker: Cluster, engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_name: str) -> int:
        raise EngineError("no exit status", "at http://me:upstreampw@proxy")

    monkeypatch.setattr(engine, "exit_code", fail)
    engine.remove_container("talk-talker-2")
    talker.export(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "containers.json").read_text()) == {
        "error": "no exit status\nat http://***@proxy"
    }
    assert "talker-2" in (tmp_path / "out" / "nodes" / "talker-2.log").read_text()


def test_a_folder_that_is_in_use(talker: Cluster, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    for place, said in ((tmp_path, "is not empty"), (tmp_path / "x", "cannot write")):
        refused = run("--export", str(place))
        assert refused.exit_code == 2
        assert said in refused.stderr
    assert run("--export", str(tmp_path / "y"), "-f").exit_code == 2


def test_events_end(talker: Cluster) -> None:
    assert {event.action for event in export.past_events(talker.engine, "talk")} >= {"create", "start"}
