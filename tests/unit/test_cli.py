"""The command line without an engine: what it makes of words, of answers and of errors."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from minicluster import cluster as facade, errors
from minicluster.cli import plugins
from minicluster.cli.app import COMMANDS, app
from minicluster.cli.exports import Shell, exports, unsets
from minicluster.cli.output import columns
from minicluster.cli.termination import repeated, terminable
from minicluster.engine import discover
from minicluster.engine.protocol import ContainerConfig, ExecResult
from minicluster.model import spec
from minicluster.model.events import Event, Listener, ignore
from minicluster.model.membership import Quorum
from minicluster.model.results import (
    Change,
    ClusterInfo,
    ClusterStatus,
    ClusterSummary,
    EndpointInfo,
    Loaded,
    NodeStatus,
)
from minicluster.plan import steps
from tests.fakes import FakeEngine

INFO = ClusterInfo(
    cluster="swarm",
    profile="swarm",
    summary="Docker Swarm mode",
    subnet="10.55.0.0/24",
    endpoints=(EndpointInfo("docker", "master-1", "tcp://127.0.0.1:32768", 2376),),
    env={"DOCKER_HOST": "tcp://127.0.0.1:32768", "DOCKER_CERT_PATH": "/home/o'hara/my certs"},
    demo_image="minicluster/demo",
    parts={"docker": "26.1.5 (debian)", "runc": "1.1.15 (debian)"},
)
STATUS = ClusterStatus(
    cluster="swarm",
    profile="swarm",
    phase="degraded",
    quorum=Quorum(voters=3, healthy=2, needed=2, survives=0, leader="master-1"),
    nodes=(
        NodeStatus("master-1", "master", "10.55.0.2", "running", True, True, "ok", 115343360, "swarm-master-1"),
        NodeStatus("agent-1", "agent", "10.55.0.3", "exited", False, None, "it does not run", None, "swarm-agent-1"),
    ),
)


class FakeCluster:
    """A cluster of two nodes that remembers what it was asked."""

    asked: dict[str, Any]
    engine, spec = FakeEngine(), spec.Spec("swarm", "swarm", "10.55.0.0/24", "10.55.0.1", {}, ())
    change = Change("swarm", True, 7, 4.25, {"create-container": 2})

    def __init__(self) -> None:
        self.asked = {}

    def connect(self) -> None:
        self.asked["connected"] = True

    def write_client_files(self) -> tuple[str, ...]:
        return ("a copy is out of date",)

    def info(self, *, published: bool = True) -> ClusterInfo:
        return INFO

    def status(self) -> ClusterStatus:
        return STATUS

    def env(self) -> dict[str, str]:
        return dict(INFO.env)

    def node_names(self, words: Sequence[str]) -> list[str]:
        names = ["master-1", "agent-1", "agent-2"]
        return [n for n in names if not words or n in words or n.rpartition("-")[0] in words]

    def exec_argv(self, node: str, argv: Sequence[str], *, tty: bool, stdin: bool = True) -> Any:
        self.asked["exec_argv"] = (node, list(argv), tty)
        return ["no-such-client", node, *argv], {"MARK": "1"}

    def exec(self, node: str, argv: Sequence[str], *, timeout: float | None = None) -> ExecResult:
        self.asked["exec"] = (node, list(argv))
        return ExecResult(42, "out\n", "err\n")

    def logs(self, nodes: Sequence[str] = (), *, follow: bool = False, tail: int | None = None) -> Iterator[Any]:
        self.asked["logs"] = (list(nodes), follow, tail)
        for node in nodes:
            yield node, f"hello from {node}"

    def load(self, image: str, nodes: Sequence[str] = (), *, listener: Listener = ignore) -> Loaded:
        self.asked.setdefault("load", []).append((image, list(nodes)))
        return Loaded(image, (image,), ("agent-1",), (), ("agent-2", "agent-3"))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """A fake one, to be had by ``open`` and by ``up``."""
    fake = FakeCluster()

    def open_(name: str | None = None, *, address_mode: str | None = None, **_: Any) -> FakeCluster:
        fake.asked |= {"open": name, "address_mode": address_mode}
        return fake

    def up(profile: str | None = None, **options: Any) -> FakeCluster:
        listener = options.pop("listener")
        fake.asked["up"] = (profile, options)
        listener(Event("plan", text="create cluster swarm: 1 master", nodes=("master-1",)))
        listener(Event("start", "master-1", "creating", "create master-1"))
        logging.getLogger("minicluster.engine").debug("POST /containers/create 201 (0.012 s)")
        listener(Event("end", "master-1", "creating", "create master-1", seconds=0.1))
        listener(Event("done", "master-1", "ready", seconds=1.93))
        return fake

    monkeypatch.setattr(facade, "Cluster", SimpleNamespace(open=open_, up=up))
    return fake


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MINICLUSTER", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "dumb")


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), prog_name="minicluster")


# --- options ---------------------------------------------------------------------------------------------------------


def test_up_hands_its_options_over(cluster: FakeCluster) -> None:
    words = "up etcd --name e --size kv=3 --size client=0 --set a.b=c=d --set e= --image node=r:1 --port http=8080"
    more = "--restart always --disk kv=1GiB --network a --network b --address-mode gateway --force --keep --timeout 5.5"
    ours = "--port kv:53/udp=53 --port api=none --bind-address 10.0.0.5 --mount kv:./a:/b --mount kv:/c:/d:ro"
    ours += " --registry-mirror http://m/ --registry r.example,insecure --ca ca.pem"
    ours += " --hosts m1,m2 --place kv=m1,m2 --place client=any --encrypt"
    result = run(*words.split(), *more.split(), *ours.split())
    assert result.exit_code == 0, result.stderr
    assert cluster.asked["up"] == (
        "etcd",
        {
            "name": "e",
            "named_by": "--name",
            "size": {"kv": 3, "client": 0},
            "set": {"a.b": "c=d", "e": ""},
            "image": {"node": "r:1"},
            "disk": {"kv": "1GiB"},
            "port": {"api": None, "http": 8080, "kv:53/udp": 53},
            "bind_address": "10.0.0.5",
            "mounts": ["kv:./a:/b", "kv:/c:/d:ro"],
            "restart": "always",
            "networks": ["a", "b"],
            "registries": [
                spec.RegistrySpec("docker.io", ("http://m",), credentials=False),
                spec.RegistrySpec("r.example", insecure=True),
            ],
            "ca": "ca.pem",
            "address_mode": "gateway",
            "lease": None,
            "force": True,
            "keep": True,
            "timeout": 5.5,
            "hosts": ["m1", "m2"],
            "place": {"kv": "m1,m2", "client": "any"},
            "encrypt": True,
        },
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("up --size agent", "--size agent: must have the form ROLE=N"),
        ("up --size =3", "--size =3: must have the form ROLE=N"),
        ("up --size agent=x", "--size agent=x: must be an integer not less than 0"),
        ("up --size agent=-1", "--size agent=-1: must be an integer"),
        ("up --size agent=²", "--size agent=²: must be an integer"),
        ("up --size agent=1 --size agent=2", "--size agent is given twice"),
        ("up --port http=70000", "--port http=70000: must be an integer from 1 to 65535"),
        ("up --set x", "--set x: must have the form PATH=VALUE"),
        ("up --timeout 0", "--timeout 0: must be a number of seconds greater than 0"),
        ("up --timeout nan", "--timeout nan: must be a number of seconds greater than 0"),
        ("up --ttl 5x", "--ttl 5x: not a duration"),
        ("scale agent", "agent: must have the form ROLE=N"),
        ("scale agent=x", "agent=x: must be an integer not less than 0"),
        ("up --timeout soon", "--timeout soon: must be a number of seconds greater than 0"),
        ("up -o yaml", "'yaml' is not one of"),
        ("up --sise agent=1", "No such option"),
        ("up one two", "unexpected extra argument"),
        ("staus", "Did you mean 'status'"),
        ("down a --all", "cannot be used together"),
        ("image remove", "needs either images, --all or --cache"),
        ("image remove x --all", "needs either images, --all or --cache"),
        ("image remove --all --cache", "needs either images, --all or --cache"),
        ("exec master-1", "Missing argument"),
        ("exec master-1 --", "needs a command"),
        ("env --unset -o json", "--unset"),
        ("logs --tail -1", "-1"),
        ("profile", ""),
    ],
)
def test_wrong_usage_ends_with_2(cluster: FakeCluster, words: str, said: str) -> None:
    result = run(*words.split())
    assert result.exit_code == 2
    assert said.replace(" ", "") in "".join(result.stderr.replace("│", "").split())
    assert "up" not in cluster.asked


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.MiniclusterError("it broke"), 1),
        (errors.EngineError("it broke"), 1),
        (errors.NodeFailed("it broke"), 1),
        (errors.UsageError("it broke"), 2),
        (errors.ProfileError("it broke"), 2),
        (errors.NoEngine("it broke"), 3),
        (errors.NotReady("it broke"), 4),
        (errors.Interrupted("it broke"), 130),
    ],
)
def test_each_error_has_its_exit_status(monkeypatch: pytest.MonkeyPatch, error: Exception, code: int) -> None:
    monkeypatch.setattr(facade, "clusters", _raising(error))
    result = run("ls", "-o", "json")
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", "Error: it broke\n")


def test_an_error_says_what_why_what_to_do_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    error = errors.NotReady("agent-1 was not ready in 120 s", "Its probe said: no route\nto host", "Try --timeout 300.")
    error.leftovers = ("network swarm-net",)
    monkeypatch.setattr(facade, "clusters", _raising(error))
    assert run("ls").stderr == (
        "Error: agent-1 was not ready in 120 s\n"
        "  Its probe said: no route\n"
        "  to host\n"
        "Fix: Try --timeout 300.\n"
        "Could not be removed:\n"
        "  - network swarm-net\n"
    )


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facade, "clusters", _raising(KeyboardInterrupt()))
    result = run("ls")
    assert (result.exit_code, result.stderr) == (130, "Interrupted.\n")


def test_what_a_dropped_interrupt_left_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        _drop_an_interrupt()
        error = errors.EngineError("no", fix="`minicluster down x`")
        error.leftovers = ("network x-net",)
        raise error

    monkeypatch.setattr(facade.Cluster, "open", fail)
    result = run("status")
    assert result.exit_code == 130
    assert "network x-net" in result.stderr
    assert "`minicluster down x`" in result.stderr


def test_a_bug_is_called_one_and_shows_its_traceback_with_v(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facade, "clusters", _raising(ZeroDivisionError("division by zero")))
    result = run("ls")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: unexpected ZeroDivisionError: division by zero\n"
        "Fix: This is a bug: please report it with the output of the same command with -v.\n",
    )
    result = run("ls", "-v")
    assert result.exit_code == 1
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.endswith("Fix: This is a bug: please report it with the output of the same command with -v.\n")


def test_sigterm_takes_the_way_of_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminable():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    assert signal.getsignal(signal.SIGTERM) is before


class _Finalized:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def _drop_an_interrupt() -> None:
    """Gets an interrupt where Python drops what is raised."""
    _Finalized()


def test_an_interrupt_that_was_dropped_is_raised_again() -> None:
    with pytest.raises(KeyboardInterrupt), repeated() as lost:  # noqa: PT012
        _drop_an_interrupt()
        assert lost()
        time.sleep(10)


def test_what_fails_by_a_dropped_interrupt_is_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        _drop_an_interrupt()
        raise errors.UsageError("cannot read that")

    monkeypatch.setattr(facade.Cluster, "open", fail)
    result = run("status")
    assert (result.exit_code, result.stderr) == (130, "Interrupted.\n")


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    program = (
        "from minicluster import cluster\n"
        "cluster.Cluster.open = classmethod(lambda c, n=None: c.__new__(c))\n"
        "cluster.Cluster.node_names = lambda s, w: ['a', 'b']\n"
        "cluster.Cluster.logs = lambda s, n=(), **k: (('a', 'x' * 99) for _ in range(99999))\n"
        "import sys; sys.argv = ['minicluster', 'logs']\n"
        "from minicluster.cli import main; main()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.read(100)
    child.stdout.close()
    assert child.stderr.read() == b""
    child.stderr.close()
    assert child.wait(timeout=20) == 1


def _raising(error: BaseException) -> Any:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


# --- -v --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["-v up", "up -v", "--verbose up --verbose"])
def test_v_logs_steps_and_calls_of_the_engine(cluster: FakeCluster, words: str) -> None:
    logging.getLogger("minicluster.engine").debug("not yet")
    result = run(*words.split())
    assert result.exit_code == 0
    assert [re.sub(r"^\d\d:\d\d:\d\d\.\d\d\d ", "TIME ", line) for line in result.stderr.splitlines()] == [
        "TIME minicluster: plan: create cluster swarm: 1 master",
        "create cluster swarm: 1 master",
        "TIME minicluster: start: create master-1",
        "TIME minicluster.engine: POST /containers/create 201 (0.012 s)",
        "TIME minicluster: end: create master-1 (0.100 s)",
        "master-1: ready (1.9 s)",
    ]


def test_v_ends_with_its_command(cluster: FakeCluster) -> None:
    assert "minicluster.engine" in run("up", "-v").stderr
    assert logging.getLogger("minicluster").handlers == []
    assert "minicluster.engine" not in run("up").stderr


def test_v_logs_no_secret(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither keys of certificates nor what --set was given."""
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda **_: engine)
    result = run("up", "swarm", "--name", "s", "--set", "heartbeat=7s", "-v")
    assert result.exit_code == 0, result.stderr
    assert "minicluster: start: create master-1" in result.stderr
    files = [file.content for box in engine.boxes.values() for file in box.files.values()]
    keys = [c if isinstance(c, str) else c.decode() for c in files if "PRIVATE KEY" in str(c)]
    assert keys
    for line in "".join(keys).splitlines():
        assert line not in result.stderr
    assert "7s" not in result.stderr


# --- up and down -----------------------------------------------------------------------------------------------------


def test_up_tells_plain_lines_and_ends_with_what_to_type_next(cluster: FakeCluster) -> None:
    result = run("up")
    assert result.stderr == "create cluster swarm: 1 master\nmaster-1: ready (1.9 s)\n"
    assert re.sub(r"\d+\.\d s", "N s", result.stdout) == (
        'Cluster swarm is up (N s).\n  docker  master-1  tcp://127.0.0.1:32768\nNext: eval "$(minicluster env swarm)"\n'
    )


def test_quiet_is_quiet(cluster: FakeCluster) -> None:
    assert run("up", "-q").output == ""


def test_up_answers_json(cluster: FakeCluster) -> None:
    answer = json.loads(run("up", "-o", "json").stdout)
    assert list(answer) == ["cluster", "changed", "steps", "seconds", "summary", "info"]
    assert answer["summary"] == {"create-container": 2}
    about = {"url": "tcp://127.0.0.1:32768", "node_port": 2376}
    assert answer["info"]["endpoints"] == [{"name": "docker", "node": "master-1", **about}]


def test_up_tells_where_the_time_went(cluster: FakeCluster) -> None:
    answer = json.loads(run("up", "--timings", "-o", "json").stdout)
    assert list(answer)[-2:] == ["info", "timings"]
    assert [t["phase"] for t in answer["timings"]] == ["before the plan", "creating", "after the plan"]
    assert list(answer["timings"][1]) == ["phase", "begin", "end", "seconds", "steps", "last"]
    text = run("up", "--timings").stdout
    assert re.match(r"Cluster swarm is up \(\d+\.\d s\)\.\n", text)
    head, _, creating, _ = text.partition("\n\n")[2].splitlines()
    assert head == "PHASE              BEGIN      END  SECONDS  STEPS  LAST"
    assert creating.split()[-2:] == ["1", "master-1"]
    assert run("up", "--timings", "-q").output == ""
    assert run("up", "--timings", "--dry-run").exit_code == 2


def test_down_answers_json(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def down(
        names: Sequence[str],
        *,
        all: bool = False,
        orphans: bool = False,
        strict: bool = False,
        listener: Listener = ignore,
    ) -> list[Change]:
        assert not orphans
        asked.update(names=names, all=all, strict=strict)
        return [Change("a", True, 3, 0.5, {"remove-container": 3})]

    monkeypatch.setattr(facade, "down", down)
    assert json.loads(run("down", "a", "b", "-o", "json").stdout) == [
        {"cluster": "a", "changed": True, "steps": 3, "seconds": 0.5, "summary": {"remove-container": 3}}
    ]
    assert asked == {"names": ("a", "b"), "all": False, "strict": False}
    assert run("down", "a", "-c", "b", "--cluster", "c", "--strict").exit_code == 0
    assert asked == {"names": ("a", "b", "c"), "all": False, "strict": True}
    assert run("down", "--all").stdout == "Removed cluster a (0.5 s).\n"
    assert asked == {"names": (), "all": True, "strict": False}


PLAN = steps.Plan(
    "swarm",
    "create cluster swarm: 1 master",
    (
        steps.Step("record", "", steps.Record("swarm-spec-1", 1, {}, None), "a change that is cut short can be undone"),  # type: ignore[arg-type]
        steps.Step(
            "image node",
            "",
            steps.ProvideImage(spec.ImageSpec("node", "minicluster/swarm-node:1", "build", "/build")),
            "nodes of this image need it",
            ("record",),
        ),
        steps.Step(
            "network swarm-net",
            "",
            steps.CreateNetwork("swarm-net", "10.55.0.0/24", "10.55.0.1", "10.55.0.224/27", {"k": "v"}),
            "the nodes get fixed addresses",
            ("record",),
        ),
        steps.Step(
            "create master-1",
            "master-1",
            steps.CreateContainer(ContainerConfig("swarm-master-1", "i", "master-1", "swarm-net", "10.55.0.2", {})),
            "the spec has it",
            ("network swarm-net", "image node", "record"),
        ),
        steps.Step(
            "files master-1",
            "master-1",
            steps.PutFiles("swarm-master-1", (spec.FileSpec("/etc/x", "é", 0o755),), (), True),
            "it is configured before it starts",
            ("create master-1", "record"),
        ),
    ),
)


def test_dry_run_is_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facade, "dry_run", lambda *_, **__: PLAN)
    assert run("up", "--dry-run").stdout.splitlines() == [
        "create cluster swarm: 1 master",
        "#  WHAT                                                  WHY                                       AFTER",
        "1  save the empty starting state in volume swarm-spec-1  a change that is cut short can be undone",
        "2  build image minicluster/swarm-node:1                  nodes of this image need it               1",
        "3  create network swarm-net (10.55.0.0/24)               the nodes get fixed addresses             1",
        "4  create container swarm-master-1 (10.55.0.2)           the spec has it                           1-3",
        "5  write 1 file, the authority into swarm-master-1       it is configured before it starts         1,4",
    ]


def test_dry_run_answers_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facade, "dry_run", lambda *_, **__: PLAN)
    answer = json.loads(run("up", "--dry-run", "-o", "json").stdout)
    assert list(answer) == ["cluster", "headline", "steps"]
    assert [step["action"] for step in answer["steps"]] == [
        "record",
        "provide-image",
        "create-network",
        "create-container",
        "put-files",
    ]
    assert answer["steps"][0]["detail"] == {"volume": "swarm-spec-1", "revision": 1, "labels": {}}
    last = answer["steps"][-1]
    assert list(last) == ["id", "node", "action", "cause", "needs", "detail"]
    assert last["detail"]["files"] == [{"path": "/etc/x", "mode": "0755", "bytes": 2}]
    assert last["needs"] == ["create master-1", "record"]


# --- commands that read ----------------------------------------------------------------------------------------------


def test_ls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facade, "clusters", lambda **_: [ClusterSummary("a", "swarm", "partial", 3, 2, "10.55.0.0/24")])
    assert run("ls").stdout == ("NAME  PROFILE  PHASE    NODES  SUBNET\na     swarm    partial  2/3    10.55.0.0/24\n")
    assert json.loads(run("ls", "-o", "json").stdout) == [
        {
            "name": "a",
            "cluster": "a",
            "profile": "swarm",
            "phase": "partial",
            "nodes": 3,
            "running": 2,
            "subnet": "10.55.0.0/24",
            "lease": "",
            "note": "",
            "project": "",
        }
    ]
    monkeypatch.setattr(
        facade, "clusters", lambda **_: [ClusterSummary("a", "etcd", "running", 3, 3, "10.55.0.0/24", "2 h left")]
    )
    assert run("ls").stdout.splitlines()[1].endswith("10.55.0.0/24  2 h left")
    monkeypatch.setattr(facade, "clusters", lambda **_: [])
    assert json.loads(run("ls", "-o", "json").stdout) == []
    assert run("ls").stdout == ""


def test_status(cluster: FakeCluster) -> None:
    answer = json.loads(run("status", "swarm", "-o", "json").stdout)
    assert cluster.asked["open"] == "swarm"
    assert list(answer) == ["cluster", "profile", "phase", "quorum", "nodes", "notes", "quorums", "faults"]
    assert list(answer["quorum"]) == ["voters", "healthy", "needed", "survives", "leader"]
    assert answer["nodes"][1] == {
        "name": "agent-1",
        "role": "agent",
        "address": "10.55.0.3",
        "phase": "exited",
        "ready": False,
        "leader": None,
        "probe": "it does not run",
        "memory": None,
        "container": "swarm-agent-1",
        "detail": "",
        "voter": None,
        "host": "",
    }
    assert run("status").stdout == (
        "swarm (swarm): degraded\n"
        "quorum: 2 of 3, leader master-1, survives no loss\n"
        "NODE      ROLE    ADDRESS    PHASE    READY  LEADER  MEMORY   PROBE\n"
        "master-1  master  10.55.0.2  running  yes    yes     110 MiB\n"
        "agent-1   agent   10.55.0.3  exited   no             -        it does not run\n"
    )


def test_networks_are_left_as_they_are_unless_named(cluster: FakeCluster) -> None:
    for words, given in (("up", None), ("up --network none", []), ("up --network a", ["a"])):
        assert run(*words.split()).exit_code == 0
        assert cluster.asked["up"][1]["networks"] == given


@pytest.mark.parametrize("words", ["info --address-mode bridge", "env --address-mode bridge"])
def test_who_asks_says_by_which_addresses(cluster: FakeCluster, words: str) -> None:
    assert run(*words.split()).exit_code == 0
    assert cluster.asked["address_mode"] == "bridge"


def test_info(cluster: FakeCluster) -> None:
    answer = json.loads(run("info", "-o", "json").stdout)
    assert list(answer) == [
        "cluster",
        "profile",
        "summary",
        "subnet",
        "endpoints",
        "env",
        "demo_image",
        "address_mode",
        "example",
        "notes",
        "parts",
    ]
    text = run("info").stdout
    assert "software: docker 26.1.5 (debian), runc 1.1.15 (debian)\n" in text
    assert "docker    master-1  tcp://127.0.0.1:32768\n" in text
    assert 'eval "$(minicluster env swarm)"' in text


def test_logs(cluster: FakeCluster) -> None:
    assert run("logs", "-c", "x", "agent", "-n", "5").stdout == (
        "agent-1 | hello from agent-1\nagent-2 | hello from agent-2\n"
    )
    assert cluster.asked["open"] == "x"
    assert cluster.asked["logs"] == (["agent-1", "agent-2"], False, 5)
    assert run("logs", "master-1").stdout == "hello from master-1\n"
    lines = run("logs", "-f", "-o", "json").stdout.splitlines()
    assert json.loads(lines[0]) == {"node": "master-1", "line": "hello from master-1"}
    assert cluster.asked["logs"][1:] == (True, None)


# --- nodes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", ["exec master-1 -- ls -c x --help", "exec master-1 ls -c x --help", "exec -- master-1 ls -c x --help"]
)
def test_exec_leaves_the_command_alone(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    became: list[Any] = []
    monkeypatch.setattr(os, "execvpe", lambda *args: became.append(args))
    run(*words.split())
    assert cluster.asked["exec_argv"] == ("master-1", ["ls", "-c", "x", "--help"], False)
    program, argv, env = became[0]
    assert (program, argv[1:]) == ("no-such-client", ["master-1", "ls", "-c", "x", "--help"])
    assert env["MARK"] == "1"
    assert env["TERM"] == "dumb"


def test_exec_passes_on_the_exit_status_without_a_client_too(cluster: FakeCluster) -> None:
    result = run("exec", "-c", "x", "master-1", "--", "false")
    assert (result.exit_code, result.stdout, result.stderr) == (42, "out\n", "err\n")
    assert cluster.asked["open"] == "x"


def test_shell_takes_the_first_node(cluster: FakeCluster) -> None:
    run("shell")
    assert cluster.asked["exec_argv"][0] == "master-1"
    run("shell", "agent-2")
    assert cluster.asked["exec_argv"][0] == "agent-2"


def test_load(cluster: FakeCluster) -> None:
    done = run("load", "a:1", "b:2", "--node", "agent")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        f"{image}: loaded into 1 node; already there in 2 nodes." for image in ("a:1", "b:2")
    ]
    assert cluster.asked["load"] == [("a:1", ["agent"]), ("b:2", ["agent"])]


# --- env -------------------------------------------------------------------------------------------------------------

NASTY = {"A": 'it\'s $HOME `id` "x" \\ \n;', "B": "", "C": "’quote‘"}


def test_sh_gets_the_values_as_they_are() -> None:
    script = "\n".join([*exports(NASTY, Shell.sh), 'printf "%s\\0" "$A" "$B" "$C"'])
    assert subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout.decode().split("\0")[
        :3
    ] == list(NASTY.values())


def test_powershell_and_fish_quoting() -> None:
    assert exports({"A": "it's $x ’"}, Shell.powershell) == ["$Env:A = 'it''s $x ’’'"]
    assert exports({"A": "it's \\ $x"}, Shell.fish) == ["set -gx A 'it\\'s \\\\ $x';"]
    assert unsets(["A"], Shell.fish) == ["set -e A;"]
    assert unsets(["A"], Shell.powershell) == ["Remove-Item Env:\\A -ErrorAction SilentlyContinue"]


def test_a_name_that_is_no_name_is_refused() -> None:
    with pytest.raises(errors.MiniclusterError, match="invalid environment variable name"):
        exports({"A; rm -rf /": "x"}, Shell.sh)


def test_env(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facade, "env_names", lambda _name: list(INFO.env))
    lines = run("env").stdout.splitlines()
    assert lines[0] == "export DOCKER_HOST=tcp://127.0.0.1:32768"
    assert shlex.split(lines[1]) == ["export", "DOCKER_CERT_PATH=/home/o'hara/my certs"]
    assert lines[2:] == ["export MINICLUSTER_ENV='DOCKER_HOST DOCKER_CERT_PATH'", '# eval "$(minicluster env)"']
    assert run("env", "--unset").stdout.startswith("unset DOCKER_HOST\nunset DOCKER_CERT_PATH\n")
    assert json.loads(run("env", "-o", "json").stdout) == dict(INFO.env)


# --- profiles, images, engine, doctor --------------------------------------------------------------------------------


def test_profile_commands_on_the_bundled_profiles() -> None:
    names = [row["name"] for row in json.loads(run("profile", "list", "-o", "json").stdout)]
    assert "swarm" in names
    answer = json.loads(run("profile", "show", "swarm", "-o", "json").stdout)
    assert list(answer) == [
        "name",
        "summary",
        "directory",
        "roles",
        "settings",
        "images",
        "env",
        "demo_image",
    ]
    assert list(answer["roles"][0]) == [
        "name",
        "summary",
        "count",
        "min",
        "max",
        "allowed",
        "image",
        "memory",
        "footprint",
        "endpoints",
    ]
    assert "master" in run("profile", "show", "swarm").stdout
    assert json.loads(run("profile", "schema").stdout)["title"] == "minicluster profile"
    result = run("profile", "validate", "no-such-profile")
    assert (result.exit_code, result.stdout) == (2, "")


def test_image_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    from minicluster.operations import images

    asked: list[Any] = []
    monkeypatch.setattr(discover, "connect", lambda **_options: None)
    found = [images.ImageInfo("a:1", "swarm", "node", 300 * 1024 * 1024, 1700000000, True)]
    monkeypatch.setattr(images, "listing", lambda _engine: found)
    monkeypatch.setattr(images, "cache_size", lambda _engine: 1 << 30)
    monkeypatch.setattr(images, "remove_cache", lambda: ["minicluster-part-cache"])
    part = images.PartInfo("r", "etcd", "v3.6.16", "go", "Apache-2.0", 70 << 20)
    monkeypatch.setattr(images, "parts", lambda: [part])
    monkeypatch.setattr(images, "build", lambda *a, **k: asked.append((a, k.get("force"))) or ["a:1"])
    monkeypatch.setattr(images, "remove", lambda *a, **k: asked.append((a, k)) or ["a:1"])
    assert json.loads(run("image", "list", "-o", "json").stdout) == [
        {"ref": "a:1", "profile": "swarm", "name": "node", "size": 314572800, "created": 1700000000, "in_use": True}
    ]
    assert "a:1    swarm    node  300 MiB  yes" in run("image", "list").stdout
    assert run("image", "list").stderr == "Compiler's cache: 1.0 GiB.\n"
    assert "etcd  v3.6.16  go      Apache-2.0  70 MiB" in run("image", "list", "--parts").stdout
    (row,) = json.loads(run("image", "list", "--parts", "-o", "json").stdout)
    assert list(row) == ["ref", "name", "version", "source", "license", "size"]
    assert run("image", "remove", "--cache").stdout == "Removed minicluster-part-cache\n"
    assert run("image", "build", "swarm", "node", "--force").stdout == "a:1\n"
    assert run("image", "remove", "--all", "-o", "json").stdout == '[\n  "a:1"\n]\n'
    assert asked == [(("swarm", ("node",)), True), (((),), {"unused_only": True})]
    monkeypatch.setattr(images, "load", lambda file, **k: [f"{file}:1", "b:1"])
    assert run("image", "import", "a.tar").stdout == "Loaded a.tar:1\nLoaded b:1\n"
    assert run("image", "import", "a.tar", "-o", "json").stdout == '[\n  "a.tar:1",\n  "b:1"\n]\n'


def test_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = [
        SimpleNamespace(name="engine", level="ok", text="26.1 answers", fix=""),
        SimpleNamespace(name="disk", level="warning", text="2 GiB free", fix="Free some.\nOr more."),
    ]
    monkeypatch.setattr(facade, "examine", lambda profile: checks)
    result = run("doctor")
    assert (result.exit_code, result.stdout) == (
        0,
        "✓ engine: 26.1 answers\n! disk: 2 GiB free\n    Free some.\n    Or more.\n",
    )
    checks.append(SimpleNamespace(name="ip_vs", level="error", text="missing", fix="modprobe ip_vs"))
    result = run("doctor", "swarm")
    assert result.exit_code == 1
    assert "✗ ip_vs: missing\n    modprobe ip_vs\n" in result.stdout


def test_version() -> None:
    from minicluster import __version__

    assert run("version").stdout == run("--version").stdout == f"minicluster {__version__}\n"
    assert json.loads(run("version", "-o", "json").stdout)["minicluster"] == __version__


def test_what_other_programs_print_neither_colours_nor_moves_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    from minicluster.cli.failures import describe
    from minicluster.cli.progress import listening

    raw = "\x1b[91mwarning\x1b[0m \x1b[2K\x1b[1Gdone \x1b]0;title\x07of \x1b(Bit\b"
    with listening() as listener:
        listener(Event("progress", "", "image", raw))
        listener(Event("note", text=raw))
    assert capsys.readouterr().err == "image: warning done of it\nwarning done of it\n"
    error = errors.ImageError(f"failed: {raw}", f"a\n{raw}\tb")
    assert describe(error) == "Error: failed: warning done of it\n  a\n  warning done of it\tb"


# --- help, completion, speed -----------------------------------------------------------------------------------------


def test_help_names_every_command() -> None:
    text = run("--help").stdout
    for command in ("up", "down", "env", "logs", "exec", "load", "profile", "image", "engine", "doctor", "version"):
        assert f"\n  {command} " in text


def _commands(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from _commands(command, *path, name)


def test_the_table_of_commands_has_their_names() -> None:
    assert isinstance(app, click.Group)
    found = {words[0] for words in _commands(app) if len(words) == 1}
    assert {name for commands in COMMANDS.values() for name in commands} <= found
    for name in found:
        command = app.get_command(click.Context(app), name)
        assert command is not None
        assert command.name == name


def test_no_summary_is_cut_off_and_every_option_is_described() -> None:
    """At 80 columns, the width of --help at most."""
    assert isinstance(app, click.Group)
    clients = {name for name, place in plugins.found().items() if place.startswith("minicluster.contrib.clients:")}
    for words in ((), *_commands(app)):
        if clients & {*words}:  # --help is the client's
            continue
        text = run(*words, "--help").stdout
        assert not re.search(r"^  [a-z-]+ .*\.\.$", text, re.MULTILINE), text
        assert all(len(line) <= 80 for line in text.splitlines())
        assert "-v, --verbose" in text
        rows = [line for line in text.partition("Options:")[2].splitlines() if line.startswith("  -")]
        assert all(re.search(r"\S  +\S", row) or len(row) >= 28 for row in rows), text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str) -> None:
    script = run("completion", shell).stdout
    assert f"_MINICLUSTER_COMPLETE={shell}_complete" in script
    program = shutil.which(shell)
    if program:
        assert subprocess.run([program, "-n"], input=script.encode(), check=False).returncode == 0


def _offered(words: str) -> list[str]:
    env = {**os.environ, "_MINICLUSTER_COMPLETE": "bash_complete", "COMP_WORDS": words}
    env["COMP_CWORD"] = str(len(words.split(" ")) - 1)
    done = subprocess.run([sys.executable, "-m", "minicluster"], env=env, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


SETTINGS = ["version=", "tls=", "heartbeat=", "election=", "quota=", "log_level="]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("prof", ["profile"]),
        ("up sw", ["swarm"]),
        ("up etcd --size ", ["kv="]),  # of the profile at hand
        ("up --size ma", ["master="]),  # of the default one
        ("up etcd --size kv = 3 --set ", [*SETTINGS, "etcd.version="]),
        ("up etcd --set tls =", ["true", "false"]),  # bash splits words at =
        ("up etcd --set tls = f", ["false"]),
        ("up etcd --set version = v3.7", ["v3.7.3"]),
        ("up etcd --set log_level = d", ["debug"]),
        ("up kubernetes --port a", ["api=", "agent:"]),
        ("up etcd --mount ", ["kv:"]),
        ("up etcd --image ", ["node="]),
        ("up --restart un", ["unless-stopped"]),
        ("image build mesos k", ["kv"]),
        ("up nonesuch --size ", []),
    ],
)
def test_what_completion_offers(words: str, offered: list[str]) -> None:
    found = None
    for _ in range(5):  # whoever presses TAB waits 2 s at most, and gets nothing on a machine that is too busy for that
        found = _offered(f"minicluster {words}")
        if found == offered:
            break
    assert found == offered


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes_a_value_and_says_nothing_without_an_engine(tmp_path: Path) -> None:
    """With its own script, as at a prompt. An engine that cannot be reached is silent: ssh writes errors of its own."""
    script = run("completion", "bash").stdout
    (tmp_path / "minicluster").write_text(f'#!/bin/sh\nexec {sys.executable} -m minicluster "$@"\n')
    (tmp_path / "minicluster").chmod(0o755)
    words = """
    ask() { COMPREPLY=(); COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); compopt() { :; }; complete() { :; }
            _minicluster_completion minicluster; echo "${COMPREPLY[*]}"; }
    ask minicluster up etcd --set tls = ''
    ask minicluster logs ''
    """
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "DOCKER_HOST": "ssh://nowhere.invalid"}
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{words}"], env=env, capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("true\nfalse\n\n".replace("\nfalse", " false"), "")


def test_completion_of_names(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    from minicluster.cli import complete

    monkeypatch.setattr(facade, "clusters", lambda: [ClusterSummary("a", "swarm", "running", 3, 3, "")])
    context: Any = SimpleNamespace(params={"cluster": "a"}, command=SimpleNamespace(name="logs"))
    param: Any = None
    (offered,) = complete.clusters(context, param, "")
    assert (offered.value, offered.help) == ("a", "swarm, running")
    assert [item.value for item in complete.nodes(context, param, "ag")] == ["agent-1", "agent-2", "agent"]
    opened = facade.Cluster.open
    monkeypatch.setattr(
        facade.Cluster, "open", lambda name: opened(name) if name else _raising(errors.UsageError("several"))()
    )
    context.params = {"cluster": None}
    assert [item.value for item in complete.nodes(context, param, "")] == ["a"]  # which of several is not said yet
    context.params = {"cluster": None, "nodes": ("a",)}
    assert [item.value for item in complete.nodes(context, param, "ag")] == ["agent-1", "agent-2", "agent"]
    context.params, context.command.name = {"cluster": None}, "kill"
    assert complete.nodes(context, param, "") == []
    monkeypatch.setattr(facade, "clusters", _raising(errors.NoEngine("none")))
    assert complete.clusters(context, param, "") == []


def test_help_and_version_import_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['minicluster', sys.argv[1]]\n"
        "from minicluster.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([m for m in ('rich', 'pydantic', 'docker', 'yaml', 'jinja2') if m in sys.modules], file=sys.stderr)\n"
    )
    for word in ("--help", "version"):
        done = subprocess.run([sys.executable, "-c", program, word], capture_output=True, text=True, check=True)
        assert done.stderr == "[]\n"


def test_columns_do_not_count_colour() -> None:
    assert columns([["\x1b[1ma\x1b[0m", "x"], ["bb", "y"]]) == "\x1b[1ma\x1b[0m   x\nbb  y"


def test_a_hangup_that_is_ignored_stays_so() -> None:
    """As under nohup."""
    import os
    import signal

    from minicluster.cli.termination import terminable

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminable():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
