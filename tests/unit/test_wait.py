"""``wait`` on an engine in memory: conditions, time-outs, what it tells, and events that end it early."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from minicluster.cli.app import app
from minicluster.cluster import Cluster
from minicluster.errors import NodeFailed, NotReady, UsageError
from minicluster.model.events import Event
from minicluster.operations import wait as waiting
from minicluster.operations.wait import Condition
from tests.fakes import FakeEngine
from tests.unit.test_cluster import up


@pytest.fixture
def etcd(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda **_options: engine)
    return Cluster.up("etcd", name="kv", size={"kv": 3}, engine=engine)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """So slow without events that a test which needs one of them does not end."""
    monkeypatch.setattr(waiting, "_PERIOD", 600.0)


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["wait", *words], prog_name="minicluster")


@pytest.mark.parametrize("condition", ["ready", "quorum", "members=3", "members=1"])
def test_what_is_so_already(etcd: Cluster, condition: str) -> None:
    told: list[Event] = []
    assert etcd.wait(condition, timeout=30, listener=told.append).phase == "ready"
    assert told == []


@pytest.mark.parametrize(
    ("condition", "said"),
    [("ready", "2 of 3 nodes ready; kv-3: "), ("members=3", "2 of 3 ready; kv-3: "), ("members=4", "2 of 4 ready")],
)
def test_a_time_out_says_what_is_missing(etcd: Cluster, engine: FakeEngine, condition: str, said: str) -> None:
    engine.set_state("kv-kv-3", "exited")
    told: list[Event] = []
    with pytest.raises(NotReady) as caught:
        etcd.wait(condition, timeout=0.05, listener=told.append)
    assert caught.value.what == "cluster kv timed out after 0.05 s"
    assert said in caught.value.why
    assert [said in event.text for event in told] == [True]
    etcd.wait("quorum", timeout=30)
    etcd.wait("members=2", timeout=30)


def test_a_lost_quorum(etcd: Cluster, engine: FakeEngine) -> None:
    for name in ("kv-kv-2", "kv-kv-3"):
        engine.set_state(name, "exited")
    with pytest.raises(NotReady, match="timed out"):
        etcd.wait("quorum", timeout=0.05)


def test_an_event_of_the_engine_is_looked_at_at_once(etcd: Cluster, engine: FakeEngine, slow: None) -> None:
    engine.kill_container("kv-kv-3")
    starting = threading.Event()

    def start(_event: Event) -> None:
        if not starting.is_set():
            starting.set()
            threading.Thread(target=engine.start_container, args=("kv-kv-3",), daemon=True).start()

    assert etcd.wait("ready", timeout=60, listener=start).phase == "ready"


def test_a_cluster_that_is_removed_meanwhile(etcd: Cluster, engine: FakeEngine) -> None:
    engine.kill_container("kv-kv-3")
    other = Cluster(engine, etcd.spec)
    with pytest.raises(NodeFailed, match="cluster kv no longer exists"):
        etcd.wait("ready", timeout=60, listener=lambda _event: other.down() and None)


def test_a_cluster_that_grows_meanwhile_is_waited_for_as_it_is(etcd: Cluster, engine: FakeEngine) -> None:
    before = Cluster(engine, etcd.spec)
    etcd.scale({"kv": 5})
    assert len(before.wait("members=5", timeout=30).nodes) == 5


def test_a_cluster_without_voters_has_no_quorum(engine: FakeEngine, write_profile: Callable[..., object]) -> None:
    cluster = up(engine, profile=str(write_profile()), name="least")
    with pytest.raises(UsageError, match="cluster least has no quorum"):
        cluster.wait("quorum", timeout=30)


@pytest.mark.parametrize("text", ["", "x", "members", "members=", "members=0", "members=-1", "members=1.5", "READY"])
def test_no_condition(text: str) -> None:
    with pytest.raises(UsageError, match="no such condition"):
        Condition.parse(text)


def test_the_command(etcd: Cluster, engine: FakeEngine) -> None:
    done = run("kv")
    assert done.exit_code == 0
    assert done.stdout.startswith("Cluster kv is ready (")
    assert run("kv", "--for", "quorum").stdout.startswith("Cluster kv has a quorum (")
    assert run("kv", "-q").output == ""
    assert '"phase": "ready"' in run("kv", "-o", "json").stdout
    engine.set_state("kv-kv-3", "exited")
    late = run("kv", "--timeout", "0.05")
    assert late.exit_code == 4
    assert late.stderr.startswith("waiting for cluster kv: 2 of 3 nodes ready; kv-3: ")
    assert run("kv", "--for", "x").exit_code == 2
