"""`minicluster kubectl` and the like: the client out of a node image, and the PATH that `env` prints."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from minicluster import paths
from minicluster.cli import plugins
from minicluster.cli.app import app
from minicluster.cluster import Cluster
from minicluster.engine.protocol import Image
from minicluster.errors import MiniclusterError, UsageError
from minicluster.model.spec import ProgramSpec, Spec
from minicluster.operations import clients
from tests.fakes import FakeEngine
from tests.unit.standing import spec_of

PROGRAM = b"\x7fELF the client"
KUBECTL = ProgramSpec("kubectl", "/usr/local/bin/kubectl", "node", "", "v1.36.3", ("version", "--client"), 1)


def entry_points() -> dict[str, str]:
    """The commands of pyproject.toml."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    section = text.partition('[project.entry-points."minicluster.commands"]')[2].partition("\n[")[0]
    pairs = (line.partition(" = ") for line in section.strip().splitlines())
    return {name: place.strip('"') for name, _, place in pairs}


@pytest.fixture
def up(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Cluster]:
    """Creates a cluster, whose image has the client; commands find the engine."""
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda **_options: engine)
    monkeypatch.setattr(plugins, "found", entry_points)  # of this source, which may be installed as it was once

    def make(name: str = "e", profile: str = "etcd", **options: Any) -> Cluster:
        made = Cluster.up(profile, name=name, engine=engine, **options)
        for image in made.spec.images.values():
            engine.contents[image.ref] = {"usr/local/bin/etcdctl": PROGRAM, "usr/bin/docker": PROGRAM}
        engine.calls.clear()
        return made

    return make


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """The command lines and variables of programs that took this one's place."""
    seen: list[tuple[list[str], dict[str, str]]] = []

    def execvpe(file: str, line: list[str], env: dict[str, str]) -> None:
        assert file == line[0]
        seen.append((line, env))

    monkeypatch.setattr(os, "execvpe", execvpe)
    return seen


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), prog_name="minicluster")


def jobs(engine: FakeEngine) -> list[str]:
    return [job.image for job in engine.jobs]


def has(name: str, folder: Path, said: str = "") -> Path:
    """A program of this machine's, which says its version."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\necho '{said}'\necho asked >>{folder}/asked\n")
    (folder / name).chmod(0o755)
    return folder / name


def with_programs(*programs: ProgramSpec) -> Spec:
    return replace(spec_of("etcd"), programs={program.name: program for program in programs})


# The command


def test_a_client_takes_the_place_of_this_process(
    engine: FakeEngine, up: Callable[..., Cluster], executed: list[tuple[list[str], dict[str, str]]]
) -> None:
    cluster = up()
    assert run("etcdctl", "get", "--prefix", "").exit_code == 0
    ((line, env),) = executed
    assert line[1:] == ["get", "--prefix", ""]
    assert Path(line[0]).read_bytes() == PROGRAM
    assert stat.S_IMODE(Path(line[0]).stat().st_mode) == 0o755
    assert cluster.env().items() <= env.items()
    assert env["PATH"] == os.environ["PATH"]
    assert "minicluster-client" not in str(list(engine.boxes))


def test_a_client_is_copied_once_for_an_image(
    engine: FakeEngine, up: Callable[..., Cluster], executed: list[tuple[list[str], dict[str, str]]]
) -> None:
    cluster = up()
    run("etcdctl", "get", "a")
    run("etcdctl", "get", "b")
    assert jobs(engine) == [cluster.spec.images["node"].ref]
    assert executed[0][0][0] == executed[1][0][0]
    assert [call for call, _what in engine.calls if call == "start_container"] == []


@pytest.mark.parametrize(
    "words", [["--help"], ["get", "-c", "x"], ["get", "--", "x"], ["-c"], ["-h"], ["get", "--cluster=f"], ["--version"]]
)
def test_the_clients_own_options_are_left_to_it(
    up: Callable[..., Cluster], executed: list[tuple[list[str], dict[str, str]]], words: list[str]
) -> None:
    up()
    assert run("etcdctl", *words).exit_code == 0
    assert [line[1:] for line, _env in executed] == [words]


def test_dashes_in_front_end_minicluster_s_own_options(
    up: Callable[..., Cluster], executed: list[tuple[list[str], dict[str, str]]]
) -> None:
    up()
    assert run("etcdctl", "--", "-c", "f", "--", "x").exit_code == 0
    assert [line[1:] for line, _env in executed] == [["-c", "f", "--", "x"]]


@pytest.mark.parametrize("option", [["-c", "f"], ["--cluster", "f"], ["--cluster=f"], ["-c", "f", "--"]])
def test_the_cluster_is_named_in_front(
    up: Callable[..., Cluster], executed: list[tuple[list[str], dict[str, str]]], option: list[str]
) -> None:
    up("e"), up("f")
    assert run("etcdctl", *option, "get", "-c", "e").exit_code == 0
    ((line, env),) = executed
    assert line[1:] == ["get", "-c", "e"]
    assert Cluster.open("f").env().items() <= env.items()


def test_the_only_cluster_that_has_the_client_is_meant(
    up: Callable[..., Cluster],
    executed: list[tuple[list[str], dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    up("e"), up("s", "swarm")
    assert run("etcdctl", "version").exit_code == 0
    assert run("docker", "ps").exit_code == 0
    assert [Path(line[0]).name for line, _env in executed] == ["etcdctl", "docker"]
    none = run("consul", "members")
    assert none.exit_code == 7
    assert "no cluster has a client 'consul'" in none.stderr
    up("f")
    several = run("etcdctl", "version")
    assert several.exit_code == 2
    assert "several clusters have a client 'etcdctl'" in several.stderr
    assert "e, f" in several.stderr
    monkeypatch.setenv("MINICLUSTER", "f")
    assert run("etcdctl", "version").exit_code == 0
    wrong = run("docker", "ps")
    assert wrong.exit_code == 2
    assert "cluster f has no client 'docker'" in wrong.stderr


def test_an_image_without_the_client_says_what_to_do(engine: FakeEngine, up: Callable[..., Cluster]) -> None:
    cluster = up()
    engine.contents[cluster.spec.images["node"].ref] = {}
    answer = run("etcdctl", "version")
    assert answer.exit_code == 1
    assert "has no /usr/local/bin/etcdctl" in answer.stderr
    assert "Install etcdctl on this machine" in answer.stderr
    assert not [name for name in engine.boxes if "client" in name]


def test_a_client_may_be_in_the_other_folder_of_programs(engine: FakeEngine) -> None:
    """As Debian's packages have it, or an image of the user's own."""
    spec = spec_of("consul")
    engine.contents["build/node"] = {"usr/bin/consul": PROGRAM}
    assert clients.extracted(engine, spec, spec.programs["consul"]).read_bytes() == PROGRAM


def test_what_the_cache_cannot_take_is_an_error(engine: FakeEngine, up: Callable[..., Cluster]) -> None:
    cluster = up()
    paths.cache_home().mkdir(parents=True, exist_ok=True)
    (paths.cache_home() / "clients").write_text("a file")
    with pytest.raises(MiniclusterError, match="cannot write"):
        clients.extracted(engine, cluster.spec, cluster.spec.programs["etcdctl"])


def test_a_client_that_needs_the_node_runs_there(engine: FakeEngine, up: Callable[..., Cluster]) -> None:
    """A Java, for ZooKeeper's."""
    assert spec_of("zookeeper").programs["zkCli"] == ProgramSpec("zkCli", "zkCli.sh", "node", "kv")
    inside = replace(up().spec, programs={"zkCli": spec_of("zookeeper").programs["zkCli"]})
    line, env = clients.command(engine, inside, "zkCli", ["ls", "/"], {"A": "b"}, tty=True)
    assert line == ["fake", "exec", "e-kv-1", "zkCli.sh", "ls", "/"]
    assert env == {"FAKE": "1"}
    with pytest.raises(UsageError, match="no client 'zkcli'") as caught:
        clients.command(engine, inside, "zkcli", [], {}, tty=False)
    assert caught.value.fix == "Did you mean 'zkCli'?"


def test_a_node_that_does_not_run_is_passed_over(engine: FakeEngine, up: Callable[..., Cluster]) -> None:
    cluster = up()
    inside = replace(cluster.spec, programs={"etcdctl": ProgramSpec("etcdctl", "etcdctl", "node", "kv")})

    def node() -> str:
        return clients.command(engine, inside, "etcdctl", [], {}, tty=False)[0][2]

    assert node() == "e-kv-1"
    cluster.stop(["kv-1"])
    assert node() == "e-kv-2"
    cluster.stop()
    with pytest.raises(MiniclusterError, match="kv-1 is not running"):
        node()


# PATH


def test_env_puts_a_client_that_this_machine_lacks_in_front(
    engine: FakeEngine, up: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cluster = up()
    monkeypatch.setenv("PATH", f"{tmp_path}/none:/nowhere")
    place = clients.folder(engine, cluster.spec)
    assert f"export PATH={place}:{tmp_path}/none:/nowhere\n" in run("env").stdout
    assert (place / "etcdctl").read_bytes() == PROGRAM
    assert "PATH=" not in run("env", "--unset").stdout  # it was never evaluated
    monkeypatch.setenv("PATH", f"{place}:{tmp_path}/none:/nowhere")
    answer = run("env", "--unset").stdout
    assert f"export PATH={tmp_path}/none:/nowhere\n" in answer
    assert "unset PATH" not in answer
    monkeypatch.setenv("PATH", f"{tmp_path}/none:/nowhere")
    assert "PATH" not in run("env", "-o", "json").stdout


def test_env_leaves_path_as_it_is_where_the_machine_has_the_client(
    engine: FakeEngine, up: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    up()
    has("etcdctl", tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin")
    assert "PATH" not in run("env").stdout
    assert jobs(engine) == []


@pytest.mark.parametrize(
    ("said", "fits"),
    [
        ("Client Version: v1.36.1", True),
        ("Client Version: v1.35.9", True),
        ("Client Version: v1.37.0-beta.1", True),
        ("Client Version: v1.34.2", False),
        ("Client Version: v1.38.0", False),
        ("Client Version: v2.36.0", False),
        ("who knows", True),
    ],
)
def test_a_client_of_another_version_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, fits: bool
) -> None:
    has("kubectl", tmp_path / "bin", said)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    assert clients.needed(with_programs(KUBECTL)) == ([] if fits else [KUBECTL])


def test_a_client_is_asked_for_its_version_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = has("kubectl", tmp_path / "bin", "v1.36.0")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    spec = with_programs(KUBECTL)
    for _ in range(2):
        assert clients.needed(spec) == []
    assert (tmp_path / "bin/asked").read_text() == "asked\n"
    program.write_text("#!/bin/sh\necho v1.20.0 of another build\n")
    assert clients.needed(spec) == [KUBECTL]


def test_a_client_that_says_nothing_in_time_fits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    has("kubectl", tmp_path / "bin").write_text(f"#!/bin/sh\necho asked >>{tmp_path}/bin/asked\nexec sleep 30\n")
    monkeypatch.setattr(clients, "_ASK_PATIENCE", 0.2)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    for _ in range(2):
        assert clients.needed(with_programs(KUBECTL)) == []
    assert (tmp_path / "bin/asked").read_text() == "asked\n"  # it is not waited for again


def test_a_client_is_that_of_the_image_and_goes_with_it(engine: FakeEngine) -> None:
    program = replace(KUBECTL, name="etcdctl", path="/usr/local/bin/etcdctl")
    spec = with_programs(program)
    ref = spec.images["node"].ref

    def image(identity: str, content: bytes) -> Path:
        engine.refs[ref] = Image(identity, (f"{ref}:latest",), {}, 1, 0)
        engine.contents[ref] = {"usr/local/bin/etcdctl": content}
        return clients.extracted(engine, spec, program)

    first = image("sha256:one", b"one")
    assert first.read_bytes() == b"one"
    second = image("sha256:two", b"two")  # the same name, built again
    assert second.read_bytes() == b"two"
    assert not first.parent.exists()
    other = FakeEngine()
    other.endpoint = "tcp://elsewhere"
    other.refs[ref], other.contents[ref] = Image("sha256:three", (f"{ref}:latest",), {}, 1, 0), engine.contents[ref]
    clients.extracted(other, spec, program)
    assert second.exists()  # of an engine that was not asked


def test_the_client_of_another_cluster_is_not_this_machines_own(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one, other = with_programs(replace(KUBECTL, name="etcdctl", version_argv=())), spec_of("swarm")
    engine.contents["build/node"] = {"usr/local/bin/kubectl": PROGRAM, "usr/bin/docker": PROGRAM}
    monkeypatch.setenv("PATH", f"{tmp_path}/bin")
    path = clients.path(engine, one)["PATH"]
    assert path == f"{clients.folder(engine, one)}:{tmp_path}/bin"
    monkeypatch.setenv("PATH", path)
    assert clients.path(engine, one) == {}  # it is there
    has("docker", tmp_path / "bin")
    assert clients.path(engine, other) == {"PATH": f"{tmp_path}/bin"}


def test_env_works_where_the_image_has_no_client(
    engine: FakeEngine, up: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cluster = up()
    engine.contents[cluster.spec.images["node"].ref] = {}
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = run("env")
    assert answer.exit_code == 0
    assert "export ETCDCTL_ENDPOINTS=" in answer.stdout
