"""Commands and groups of them that packages add by entry points, and those that come along."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from minicluster.cli import plugins
from minicluster.cli.app import app
from minicluster.cluster import Cluster
from minicluster.model.results import EndpointInfo
from tests.fakes import FakeEngine
from tests.replay import Reply, Request, Server, master, recorded, said, serving
from tests.unit.samples import TOY
from tests.unit.standing import spec_of


def run(*words: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(words), prog_name="minicluster", input=stdin)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path, for packages that a test installs."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for cached in (plugins.found, plugins.load, plugins.after_up):
        cached.cache_clear()
    yield tmp_path
    for cached in (plugins.found, plugins.load, plugins.after_up):
        cached.cache_clear()


def install(folder: Path, name: str, code: str, *lines: str) -> None:
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    text = f"[console_scripts]\nx = y:z\n\n[{plugins.GROUP}]\n" + "\n".join(lines) + "\n\n[other]\nno = no:no\n"
    (info / "entry_points.txt").write_text(text)


HELLO = """
import click

@click.group(help="Says hello.")
def app() -> None: ...

@app.command()
@click.argument("name")
def greet(name: str) -> None:
    print(f"hello {name}")

@app.command()
def fail() -> None:
    from minicluster.errors import UsageError
    raise UsageError("it was not to be", "Because.", "Do not.")
"""


def test_a_package_adds_a_group(installed: Path) -> None:
    install(installed, "hello_pkg", HELLO, "hello = hello_pkg:app", "# a comment = x:y")
    assert plugins.found()["hello"] == "hello_pkg:app"
    assert "no" not in plugins.found()
    listing = run("--help").stdout.partition("System-specific:")[2]
    assert "hello       Says hello" in listing
    assert run("hello", "greet", "you").stdout == "hello you\n"
    failed = run("hello", "fail")
    assert failed.exit_code == 2
    assert "it was not to be" in failed.stderr
    assert "Because." in failed.stderr


SINGLE = """
import click

@click.command()
@click.argument("name")
@click.option("--twice", is_flag=True)
def app(name: str, twice: bool) -> None:
    \"\"\"Says hello.

    And nothing else.
    \"\"\"
    print(f"hello {name}" + "!" * twice)
"""


def test_a_package_adds_a_single_command(installed: Path) -> None:
    install(installed, "single_pkg", SINGLE, "hello = single_pkg:app")
    assert "hello       Says hello" in run("--help").stdout.partition("System-specific:")[2]
    assert run("hello", "you", "--twice").stdout == "hello you!\n"
    about = run("hello", "--help").stdout
    assert "minicluster hello [OPTIONS]" in about
    assert "And nothing else." in about
    wrong = run("hello")
    assert wrong.exit_code == 2
    assert "minicluster hello" in wrong.stderr


def test_what_is_no_command_is_named(installed: Path) -> None:
    install(installed, "number_pkg", "app = 1", "hello = number_pkg:app")
    result = run("hello")
    assert result.exit_code == 1
    assert "TypeError: app is not a click command" in result.stderr


def test_a_bug_of_this_package_is_not_reported_as_another_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "found", lambda: {"broken": "minicluster.none:app"})
    plugins.load.cache_clear()
    result = run("broken")
    assert result.exit_code == 1
    assert "Error: unexpected ModuleNotFoundError" in result.stderr
    assert "This is a bug" in result.stderr


def test_a_group_is_not_loaded_before_it_is_asked_for(installed: Path) -> None:
    install(installed, "loud", "raise AssertionError('loaded')", "loud = loud:app")
    assert run("version").exit_code == 0
    assert run("profile", "--help").exit_code == 0


def test_a_group_that_is_broken_takes_nothing_else_away(installed: Path) -> None:
    install(installed, "broken", "import nothing_of_that_name", "broken = broken:app")
    help = run("--help")
    assert help.exit_code == 0
    assert "broken" not in help.stdout
    assert "mesos" in help.stdout
    asked = run("broken", "x")
    assert asked.exit_code == 1
    assert "cannot load the commands of 'minicluster broken'" in asked.stderr
    assert "nothing_of_that_name" in asked.stderr


def test_a_package_cannot_take_a_command_of_ours(installed: Path) -> None:
    install(installed, "thief", HELLO, "up = thief:app")
    assert "Says hello" not in run("--help").stdout
    assert "Start a cluster or apply" in run("up", "--help").stdout


def test_help_does_not_import_what_it_need_not() -> None:
    """Neither the look-up of all packages' metadata nor the clients."""
    code = (
        "import sys; from minicluster.cli.app import run; sys.argv = ['minicluster', '--help']\n"
        "try: run()\nexcept SystemExit: pass\n"
        "heavy = {'importlib.metadata', 'http.client', 'pydantic', 'requests', 'yaml'}\n"
        "heavy |= {'minicluster.contrib.mesos.http', 'minicluster.contrib.kubernetes.kubeconfig'}\n"
        "print(sorted(heavy & sys.modules.keys()), 'minicluster.contrib.mesos.cli' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[] True"


# minicluster mesos


@pytest.fixture
def leader() -> Iterator[Server]:
    with serving(master()) as server:
        yield server


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What ``Cluster.open`` gives: a mesos cluster of which a test sets which server is behind which node."""
    fake = SimpleNamespace(spec=spec_of("mesos", master=3), name="m", opened=[], values={}, urls={})

    def endpoints() -> list[EndpointInfo]:
        return [
            EndpointInfo(e.name, node.name, fake.urls.get(node.name, "http://127.0.0.1:1"), e.port)
            for node, e in fake.spec.endpoints()
        ]

    fake.endpoints = endpoints
    fake.connect = lambda: None
    fake.bind_address = lambda **urls: fake.urls.update({name.replace("_", "-"): url for name, url in urls.items()})
    fake.env = lambda: fake.values
    fake.node_names = lambda words: Cluster.node_names(fake, words)
    monkeypatch.setattr(Cluster, "open", lambda name: fake.opened.append(name) or fake)
    return fake


def test_state_by_way_of_a_follower(cluster: Any, leader: Server) -> None:
    """master-1 sends to master-2 by an address that is not reachable from here."""
    to = recorded("master_redirect")
    at = {n.name: n.address for n in cluster.spec.nodes}
    moved = replace(to, headers={"Location": f"//{at['master-2']}:5050"})
    with serving({"/master/state": moved}) as follower:
        cluster.bind_address(master_1=follower.url, master_2=leader.url)
        result = run("mesos", "state", "-c", "m")
    assert json.loads(result.stdout)["leader_info"]["hostname"] == "localhost"
    assert cluster.opened == ["m"]


def test_ps(cluster: Any, leader: Server) -> None:
    cluster.bind_address(master_1=leader.url)
    result = run("mesos", "ps")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No tasks.\n")
    assert run("mesos", "ps", "--all").stdout == (
        "FRAMEWORK               TASK  STATE          AGENT  PORT\n"
        "mesos-execute instance  t1    TASK_FINISHED  -      -\n"
    )
    (task,) = json.loads(run("mesos", "ps", "--all", "-o", "json").stdout)
    assert list(task) == [
        "framework", "id", "name", "state", "ports", "agent", "framework_id", "executor", "active",
        "node",
    ]  # fmt: skip


def test_no_master_answers(cluster: Any) -> None:
    result = run("mesos", "ps")
    assert result.exit_code == 1
    assert "no Mesos master responds" in result.stderr


def test_logs(cluster: Any, leader: Server) -> None:
    agent = next(n for n in cluster.spec.nodes if n.name == "agent-1")
    state = json.loads(recorded("state").body.replace(b"127.0.0.1:5051", f"{agent.address}:5051".encode()))
    leader.answers["/master/state"] = said(state)
    from tests.replay import DATA

    answers = {"/state": said(json.loads((DATA / "agent_state.json").read_text())), "/files/download": said("x")}
    with serving(answers) as slave:
        cluster.bind_address(master_1=leader.url, agent_1=slave.url)
        assert run("mesos", "logs", "t1", "--stderr").stdout == '"x"'
        assert run("mesos", "state", "--agent", "agent-1").exit_code == 0
        assert "%2Fstderr" in slave.asked[-2].path
    assert run("mesos", "state", "--agent", "kv-1").exit_code == 2


def test_another_kind_of_cluster(cluster: Any) -> None:
    cluster.spec = spec_of("etcd")
    for command in (["ps"], ["install", "-"]):
        result = run("mesos", *command, stdin='{"id": "a"}')
        assert result.exit_code == 2
        assert "It was created from profile etcd." in result.stderr


def test_a_cluster_without_marathon(cluster: Any) -> None:
    cluster.spec = spec_of("mesos", scheduler=0)
    result = run("mesos", "install", "-", stdin='{"id": "a"}')
    assert result.exit_code == 2
    assert "cluster m has no Marathon" in result.stderr
    assert "minicluster scale scheduler=1 -c m" in result.stderr


def test_install_update_uninstall(cluster: Any, tmp_path: Path) -> None:
    cluster.values = {"MINICLUSTER_MASTER_IP": "172.28.0.3"}
    (tmp_path / "app.json").write_text('{"id": "/web", "cmd": "${MINICLUSTER_MASTER_IP}"}')
    begun = said({"deploymentId": "d1", "version": "v"})
    gone: list[str] = []

    def web(request: Request) -> Reply:
        if request.method == "DELETE":
            gone.append(request.path)
        there = {"app": {"instances": 1, "tasksRunning": 1, "deployments": []}}
        return begun if request.method != "GET" else Reply(404) if gone else said(there)

    with serving({"/v2/apps": begun, "/v2/apps/web": web, "/v2/deployments": said([])}) as marathon:
        cluster.bind_address(scheduler_1=marathon.url)
        installed = run("mesos", "install", str(tmp_path / "app.json"))
        assert installed.stdout.startswith("Installed app /web in ")
        updated = run("mesos", "update", "-", "--no-wait", "--force", stdin=(tmp_path / "app.json").read_text())
        assert updated.stdout == "Deployment of app /web started.\n"
        removed = run("mesos", "uninstall", str(tmp_path / "app.json"), "-o", "json")
        answer = json.loads(removed.stdout)
        assert answer.pop("seconds") < 60
        assert answer == {"kind": "app", "id": "/web", "deployment": "d1"}
    assert [(r.method, r.path) for r in marathon.asked if r.method != "GET"] == [
        ("POST", "/v2/apps"),
        ("PUT", "/v2/apps/web?force=true&partialUpdate=false"),
        ("DELETE", "/v2/apps/web?force=false"),
    ]
    assert marathon.asked[0].json["cmd"] == "172.28.0.3"


def test_a_file_that_cannot_be_read(cluster: Any, tmp_path: Path) -> None:
    result = run("mesos", "install", str(tmp_path / "none.json"))
    assert result.exit_code == 2
    assert "none.json cannot be read" in result.stderr
    assert cluster.opened == []


AFTER_UP = """
import click
from minicluster.cli.plugins import AfterUp

def greet(cluster, name):
    if name == "nobody":
        raise ValueError("nobody is there")
    return [f"hello {name}, it is {cluster.name}"] if name else []

after_up = AfterUp(click.Option(["--greet"], help="Greets"), greet)
no_other = AfterUp(click.Option(["--size"]), greet)
"""


def test_a_package_adds_to_up(installed: Path, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda **_options: engine)
    (installed / "greeting.py").write_text(AFTER_UP)
    info = installed / "greeting-1.0.dist-info"
    info.mkdir()
    lines = ("a = greeting:after_up", "b = greeting:no_other", "c = greeting:greet", "d = no_such_module:x")
    (info / "entry_points.txt").write_text(f"[{plugins.UP_GROUP}]\n" + "\n".join(lines) + "\n")
    assert "--greet TEXT" in run("up", "--help").stdout
    words = ("up", str(TOY), "--name", "toy")
    assert "hello" not in run(*words).stdout
    assert "Note: hello you, it is toy\n" in run(*words, "--greet", "you").stdout
    quiet = run(*words, "--greet", "you", "-q")
    assert (quiet.stdout, quiet.stderr) == ("", "Note: hello you, it is toy\n")
    failed = run(*words, "--greet", "nobody")
    assert failed.exit_code == 0
    assert "Note: greeting: ValueError: nobody is there" in failed.stdout
    notes = json.loads(run(*words, "--greet", "me", "-o", "json").stdout)["info"]["notes"]
    assert "hello me, it is toy" in notes


def test_what_this_package_adds_to_up_is_declared() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    section = text.partition(f'[project.entry-points."{plugins.UP_GROUP}"]\n')[2].partition("\n\n")[0]
    places = [line.partition(" = ")[2].strip('"').partition(":") for line in section.splitlines()]
    assert [module for module, _, _ in places] == ["minicluster.contrib.kubernetes.after_up"]
    for module, _, attribute in places:
        assert isinstance(getattr(importlib.import_module(module), attribute), plugins.AfterUp)
