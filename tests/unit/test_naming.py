"""The one rule by which commands find the cluster that is meant, and the words that users of other tools type."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from minicluster import cluster as facade, errors
from minicluster.cli import plugins, show
from minicluster.cli.app import app
from minicluster.cluster import Cluster
from minicluster.errors import UsageError
from minicluster.profile import folders
from tests.fakes import FakeEngine


@pytest.fixture(autouse=True)
def here(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The engine that commands find."""
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda **_options: engine)
    monkeypatch.setenv("TERM", "dumb")
    return engine


@pytest.fixture
def two(engine: FakeEngine) -> FakeEngine:
    """Two clusters: "web" of swarm, "db" of etcd."""
    Cluster.up("swarm", name="web", size={"agent": 1}, engine=engine)
    Cluster.up("etcd", name="db", size={"kv": 1}, engine=engine)
    engine.calls.clear()
    return engine


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), prog_name="minicluster")


def commands(group: click.Command, *path: str) -> list[tuple[str, ...]]:
    """The words of all commands."""
    if not isinstance(group, click.Group):
        return [path]
    context = click.Context(group)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return [words for name, command in found.items() if command for words in commands(command, *path, name)]


def clients() -> set[str]:
    """The commands whose options are all a client's own."""
    return {name for name, place in plugins.found().items() if place.startswith("minicluster.contrib.clients:")}


def states(engine: FakeEngine, cluster: str) -> set[str]:
    return {container.state for container in engine.containers(cluster)}


# --- one rule --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["status", "info", "env", "status --json", "ps"])
@pytest.mark.parametrize("given", ["db", "-c db", "--cluster db", "--cluster=db", "-c db db", "$"])
def test_a_command_on_a_whole_cluster_takes_its_name_in_each_way(
    two: FakeEngine, monkeypatch: pytest.MonkeyPatch, command: str, given: str
) -> None:
    if given == "$":
        monkeypatch.setenv("MINICLUSTER", "db")
    result = run(*command.split(), *given.strip("$").split())
    assert result.exit_code == 0, result.stderr
    assert "db" in result.stdout or "ETCDCTL" in result.stdout
    assert "web" not in result.stdout


@pytest.mark.parametrize(
    "command", ["status", "info", "env", "reset", "stop", "logs", "scale kv=1", "exec db-1 -- true"]
)
def test_of_several_clusters_one_has_to_be_named(two: FakeEngine, command: str) -> None:
    result = run(*command.split())
    assert result.exit_code == 2
    assert "several clusters exist" in result.stderr
    assert "Use -c NAME or set $MINICLUSTER." in result.stderr


def test_two_names_are_refused_and_so_is_an_empty_one(two: FakeEngine) -> None:
    both = run("status", "web", "-c", "db")
    assert (both.exit_code, both.stdout) == (2, "")
    assert "two clusters are named: web and db" in both.stderr.replace("db and web", "web and db")
    for words in (["reset", ""], ["stop", "-c", ""], ["down", ""], ["up", "--name", ""]):
        empty = run(*words)
        assert empty.exit_code == 2, words
    assert two.calls == []


def test_what_is_said_in_words_wins_over_the_variable(two: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINICLUSTER", "web")
    assert run("status", "-c", "db").stdout.startswith("db (etcd)")
    assert run("status").stdout.startswith("web (swarm)")


def test_a_variable_that_names_what_is_gone_is_told(two: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINICLUSTER", "wbe")
    result = run("status")
    assert result.exit_code == 7
    assert "no cluster named 'wbe'" in result.stderr
    assert "$MINICLUSTER names it." in result.stderr
    assert "Did you mean 'web'?" in result.stderr


def test_a_node_in_place_of_a_cluster_is_told(two: FakeEngine) -> None:
    result = run("reset", "kv-1")
    assert result.exit_code == 7
    assert "kv-1 is a node." in result.stderr
    assert "-c db" in result.stderr


# --- up --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [["-c", "mine"], ["--cluster", "mine"], ["--name", "mine"], []])
def test_up_obeys_the_rule_too(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, given: list[str]) -> None:
    if not given:
        monkeypatch.setenv("MINICLUSTER", "mine")
    result = run("up", "etcd", *given)
    assert result.exit_code == 0, result.stderr
    assert [c.cluster for c in facade.clusters()] == ["mine"]


def test_up_of_another_profile_under_the_name_of_the_variable_is_refused(
    two: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINICLUSTER", "web")
    result = run("up", "etcd")
    assert result.exit_code == 2
    assert "Cluster web is of profile swarm, not etcd. $MINICLUSTER names it." in result.stderr
    assert "--name NAME" in result.stderr
    assert run("up", "etcd", "--name", "db").exit_code == 0
    assert run("up").stdout.startswith("Cluster web is up to date.")
    monkeypatch.setenv("MINICLUSTER", "no name")
    assert "$MINICLUSTER no name: invalid name" in run("up", "etcd").stderr


# --- a cluster in place of a node ------------------------------------------------------------------------------------


def test_stop_and_start_of_a_cluster_do_what_was_meant(two: FakeEngine) -> None:
    assert "Stopped 2 nodes of cluster web" in run("stop", "web").stdout
    assert (states(two, "web"), states(two, "db")) == ({"exited"}, {"running"})
    assert "Started 1 node of cluster web" in run("start", "web", "master").stdout
    assert "Started 1 node of cluster web" in run("start", "web").stdout
    assert states(two, "web") == {"running"}


def test_logs_of_a_cluster_and_of_a_node_in_it(two: FakeEngine) -> None:
    assert run("logs", "web").exit_code == 0
    assert run("logs", "db", "kv-1").exit_code == 0
    wrong = run("logs", "db", "kv-2")
    assert wrong.exit_code == 2
    assert "cluster db has no node or role 'kv-2'" in wrong.stderr


@pytest.mark.parametrize(
    ("words", "right"),
    [
        ("kill web", "minicluster kill -c web NODE"),
        ("pause web", "minicluster pause -c web"),
        ("pause web agent-1", "minicluster pause -c web agent-1"),
        ("unpause web", "minicluster unpause -c web"),
        ("restart web", "minicluster restart -c web"),
        ("restart --rolling web", "minicluster restart -c web"),
        ("exec web -- ls -l", "minicluster exec -c web NODE -- ls -l"),
        ("load a:1 --node web", "minicluster load -c web a:1"),
        ("cp here web:/there", "minicluster cp -c web SOURCE DESTINATION"),
    ],
)
@pytest.mark.parametrize("default", ["", "db"])
def test_what_is_not_easily_undone_names_the_right_command(
    two: FakeEngine, monkeypatch: pytest.MonkeyPatch, words: str, right: str, default: str
) -> None:
    monkeypatch.setenv("MINICLUSTER", default)
    result = run(*words.split())
    assert result.exit_code == 2
    assert "'web' is a cluster, not a node" in result.stderr
    assert f"`{right}`" in result.stderr
    assert states(two, "web") == {"running"}


def test_a_node_of_the_cluster_that_is_meant_wins_over_a_cluster_of_that_name(engine: FakeEngine) -> None:
    Cluster.up("etcd", name="db", size={"kv": 3}, engine=engine)
    Cluster.up("etcd", name="kv-1", size={"kv": 1}, engine=engine)
    assert "Stopped 1 node of cluster db" in run("stop", "kv-1", "-c", "db").stdout
    assert states(engine, "kv-1") == {"running"}


def test_a_word_that_is_neither_is_refused_as_before(two: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINICLUSTER", "db")
    result = run("stop", "kv-9")
    assert result.exit_code == 2
    assert "cluster db has no node or role 'kv-9'" in result.stderr


# --- exit statuses ---------------------------------------------------------------------------------------------------


def test_status_tells_by_its_exit_status_if_asked(two: FakeEngine) -> None:
    assert run("status", "db", "--exit-code").exit_code == 0
    run("stop", "web", "agent-1")
    assert run("status", "web").exit_code == 0
    degraded = run("status", "web", "--exit-code", "--json")
    assert (degraded.exit_code, json.loads(degraded.stdout)["phase"]) == (5, "degraded")
    run("stop", "-c", "web")
    assert run("status", "web", "--exit-code").exit_code == 6
    assert run("status", "none", "--exit-code").exit_code == 7


def test_only_remains_of_a_cluster_are_6(two: FakeEngine) -> None:
    for volume in two.volumes("db"):
        for container in two.containers("db"):
            two.remove_container(container.name)
        if "spec" in volume.name:
            two.remove_volume(volume.name)
    result = run("status", "db", "--exit-code")
    assert result.exit_code == 6
    assert "cluster db is incomplete" in result.stderr


@pytest.mark.parametrize("words", ["status", "stop -c nobody", "info nobody", "env", "reset nobody", "logs -c nobody"])
def test_no_cluster_is_7(engine: FakeEngine, words: str) -> None:
    assert run(*words.split()).exit_code == 7


def test_down_of_what_is_not_there(two: FakeEngine) -> None:
    gone = run("down", "none", "--json")
    assert gone.exit_code == 0
    assert json.loads(gone.stdout) == [{"cluster": "none", "changed": False, "steps": 0, "seconds": 0.0, "summary": {}}]
    assert "no cluster named 'none': nothing to remove." in gone.stderr
    strict = run("down", "none", "-c", "web", "--strict")
    assert strict.exit_code == 7
    assert "no cluster named 'none'" in strict.stderr
    assert [c.cluster for c in facade.clusters()] == ["db"]
    assert run("down", "--all").exit_code == 0
    assert (run("down").exit_code, run("down", "--strict").exit_code, run("down", "--all", "--strict").exit_code) == (
        0,
        7,
        0,
    )


def test_kill_and_stop_take_force(two: FakeEngine) -> None:
    assert run("kill", "--force", "-c", "db", "kv-1").exit_code == 0
    assert run("stop", "--force", "web").exit_code == 0
    assert states(two, "web") == {"exited"}


def test_the_table_of_exit_statuses_is_complete() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli-output.md").read_text()
    listed = {int(row.split("|")[1]) for row in page.splitlines() if re.match(r"\| \d+ \|", row)}

    def of(error: type[errors.MiniclusterError]) -> set[int]:
        return {error.exit_code}.union(*map(of, error.__subclasses__()))

    assert listed == {0, *of(errors.MiniclusterError), *show.EXIT_CODES.values()}


@pytest.mark.parametrize("words", [words for words in commands(app) if not {*words} & clients()], ids=" ".join)
def test_json_is_another_spelling_wherever_there_is_an_output_format(words: tuple[str, ...]) -> None:
    text = run(*words, "--help").stdout
    assert ("--output" in text) == ("--json" in text)


# --- env -------------------------------------------------------------------------------------------------------------


def evaluated(*runs: str, **env: str) -> dict[str, str]:
    """What a shell's variables are after it has evaluated what ``env`` printed; STATUS is that of the last."""
    script = [f"eval {shlex.quote(text)}" for text in runs]
    done = subprocess.run(
        ["sh", "-c", "\n".join([*script, 'echo "STATUS=$?"', "env"])],
        env={"PATH": os.environ["PATH"], **{k: v for k, v in env.items() if k != "STATUS"}},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def test_env_that_fails_stops_the_shell_and_leaves_nothing_set(
    two: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = evaluated(run("env", "web").stdout)
    assert web["STATUS"] == "0"
    assert web["DOCKER_HOST"].startswith("tcp://")
    for name in ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "MINICLUSTER_ENV"):
        monkeypatch.setenv(name, web[name])
    for words in (["gone"], ["web", "--bad"], ["web", "-c", "db"], ["web", "--address-mode", "x"], []):
        failed = run("env", *words)
        assert failed.exit_code in (2, 7), words
        after = evaluated(failed.stdout, **web)
        assert after["STATUS"] == "1", words
        assert not [name for name in after if name.startswith(("DOCKER_", "MINICLUSTER"))], words
        assert failed.stdout.splitlines()[-1] == "false"
    assert run("env", "gone", "--json").stdout == run("env", "--bad", "-o", "json").stdout == ""
    fish = run("env", "gone", "--shell", "fish").stdout.splitlines()
    assert (fish[0], fish[-1]) == ("set -e DOCKER_HOST;", "false")
    assert run("env", "--shell=powershell", "--bad").stdout.splitlines()[-1] == "throw 'minicluster env failed'"


def test_env_that_fails_leaves_alone_what_is_the_users(two: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://mine")
    assert run("env", "gone").stdout == "false\n"


def test_a_second_env_unsets_what_the_first_has_set(two: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    web = evaluated(run("env", "web").stdout)
    monkeypatch.setenv("MINICLUSTER_ENV", web["MINICLUSTER_ENV"])
    db = evaluated(run("env", "db").stdout, **web)
    assert db["STATUS"] == "0"
    assert not [name for name in db if name.startswith("DOCKER_")]
    assert set(db["MINICLUSTER_ENV"].split()) == set(Cluster.open("db", engine=two).env())
    monkeypatch.setenv("MINICLUSTER_ENV", db["MINICLUSTER_ENV"])
    none = evaluated(run("env", "--unset").stdout, **db)
    assert not [name for name in none if name.startswith(("ETCD", "MINICLUSTER"))]


# --- exec ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("flags", "stdin"), [([], False), (["-i"], True), (["--interactive"], True), (["-it"], True)])
def test_exec_reads_standard_input_only_if_asked(
    two: FakeEngine, monkeypatch: pytest.MonkeyPatch, flags: list[str], stdin: bool
) -> None:
    asked: list[dict[str, bool]] = []

    def exec_argv(container: str, argv: Sequence[str], **how: bool) -> tuple[list[str], dict[str, str]]:
        asked.append(how)
        return ["no-such-client"], {}

    monkeypatch.setattr(two, "exec_argv", exec_argv)
    result = run("exec", "-c", "db", *flags, "kv-1", "--", "true")
    assert asked == [{"tty": False, "stdin": stdin}]
    if stdin:  # nothing runs without its input
        assert result.exit_code == 1
        assert "no-such-client is not installed" in result.stderr
    assert ("no terminal" in result.stderr) == (flags == ["-it"])


# --- other words -----------------------------------------------------------------------------------------------------


def test_aliases(engine: FakeEngine) -> None:
    assert run("create", "etcd", "--size", "kv=1").exit_code == 0
    assert json.loads(run("list", "--json").stdout)[0]["name"] == "etcd"
    assert run("ps").stdout.startswith("etcd (etcd): ready")
    assert run("delete", "etcd").exit_code == 0
    assert run("rm", "etcd").exit_code == 2
    text = run("--help").stdout
    assert not [line for line in text.splitlines() if line.split()[:1] in (["create"], ["delete"], ["list"], ["ps"])]


def test_profiles_have_other_names(engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "k8s").mkdir()  # a folder of that name without a profile does not matter
    monkeypatch.chdir(tmp_path)
    assert [folders.locate(name)[0].name for name in ("k8s", "zk")] == ["kubernetes", "zookeeper"]
    assert "k8s" not in folders.names()
    plan = json.loads(run("up", "zk", "--dry-run", "--json").stdout)
    assert plan["cluster"] == "zookeeper"
    (tmp_path / "zk").mkdir()
    (tmp_path / "zk" / "profile.yaml").write_text("version: 2\n")
    assert folders.locate("zk")[0] == tmp_path / "zk"  # what lies here comes first


def test_help(engine: FakeEngine) -> None:
    assert run("help").stdout == run("--help").stdout
    assert run("help", "up").stdout == run("up", "--help").stdout
    assert run("help", "create").stdout.splitlines()[2:] == run("up", "--help").stdout.splitlines()[2:]
    assert run("help", "image", "list").stdout == run("image", "list", "--help").stdout
    for words, said in (
        (["hlep"], "No such command"),
        (["upp"], "Did you mean 'up'"),
        (["up", "x"], "has no command 'x'"),
    ):
        result = run("help", *words)
        assert result.exit_code == 2
        assert said in result.stderr


def test_endpoints_by_name(two: FakeEngine) -> None:
    cluster = Cluster.open("db", engine=two)
    assert cluster.endpoints("client") == tuple(e for e in cluster.endpoints() if e.name == "client") != ()
    with pytest.raises(UsageError, match="cluster db has no endpoint 'cleint'"):
        cluster.endpoints("cleint")
