"""The façade: what is created, applied, undone and removed, on an engine in memory."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from minicluster import paths
from minicluster.cluster import Cluster, clusters, down, dry_run
from minicluster.engine.protocol import NetworkConfig
from minicluster.errors import (
    Conflict,
    EngineError,
    Interrupted,
    MiniclusterError,
    NoCluster,
    NodeFailed,
    NoEngine,
    NotReady,
    PortTaken,
    SubnetTaken,
    UsageError,
)
from minicluster.leases import lock
from minicluster.model import labels
from minicluster.model.events import Event
from minicluster.model.results import Change
from minicluster.model.spec import Spec
from minicluster.operations import observe, rollback
from minicluster.operations.up_options import UpKeywords, UpOptions
from minicluster.plan.observed import Observed, records
from minicluster.profile import addressing
from tests.fakes import ExecResult, FakeEngine, FakeSwarm, Hang
from tests.unit.samples import TOY

CHANGES = ("create_", "remove_", "start_", "stop_", "put_")


def up(engine: FakeEngine, **options: object) -> Cluster:
    options = {"profile": str(TOY), "name": "toy", **options}  # the name spares it to read the profile for its own
    return Cluster.up(engine=engine, **options)  # type: ignore[arg-type]


def failing(
    engine: FakeEngine, error: type[MiniclusterError] = MiniclusterError, **options: object
) -> MiniclusterError:
    with pytest.raises(error) as caught:
        up(engine, **options)
    return caught.value


def changes(engine: FakeEngine) -> list[tuple[str, str]]:
    return [call for call in engine.calls if call[0].startswith(CHANGES)]


def state(engine: FakeEngine) -> tuple[dict[str, str], list[str], list[str]]:
    """Containers with their states, networks, and volumes but for the records, whose numbers go on."""
    volumes = [v.name for v in engine.volumes() if labels.REVISION not in v.labels]
    return {c.name: c.state for c in engine.containers()}, [n.name for n in engine.networks()], sorted(volumes)


# Up


def test_up_stands_a_cluster_up(engine: FakeEngine) -> None:
    cluster = up(engine)
    assert cluster.change
    assert cluster.change.changed
    assert cluster.name == "toy"
    assert state(engine)[0] == {f"toy-{n}": "running" for n in ("master-1", "agent-1", "agent-2")}
    assert cluster.status().phase == "ready"
    assert [r.spec for r in records(engine.volumes())] == [cluster.spec]


def test_a_cluster_is_called_what_its_profile_is_called(engine: FakeEngine) -> None:
    assert up(engine, name=None).name == "toy"
    assert failing(engine, UsageError, profile="swarm", name="toy").what == "the name toy is in use"


def test_up_of_the_bundled_swarm_stands_a_swarm_up(engine: FakeEngine) -> None:
    cluster = Cluster.up(engine=engine, size={"master": 3})
    assert (cluster.name, cluster.status().phase) == ("swarm", "ready")
    assert cluster.env()["DOCKER_CERT_PATH"] == str(paths.client_directory("swarm"))


def test_everything_made_carries_the_clusters_name_and_profile(engine: FakeEngine) -> None:
    up(engine, name="mine")
    for thing in (*engine.boxes.values(), *engine.nets.values(), *engine.vols.values()):
        about = getattr(thing, "container", thing).labels  # type: ignore[union-attr]
        assert (about[labels.CLUSTER], about[labels.PROFILE]) == ("mine", "toy")


def test_a_second_up_says_that_nothing_changed_and_does_nothing(engine: FakeEngine) -> None:
    up(engine)
    engine.calls.clear()
    again = up(engine)
    assert again.change
    assert not again.change.changed
    assert changes(engine) == []


def test_what_was_asked_for_once_stays_asked_for(engine: FakeEngine) -> None:
    up(engine, size={"agent": 3}, set={"color": "blue"})
    cluster = up(engine, size={"master": 3})
    assert cluster.spec.roles == ("master", "agent")
    assert len(cluster.spec.of_role("agent")) == 3
    assert "--color=blue" in cluster.spec.nodes[0].command


def test_up_without_a_profile_takes_the_one_that_the_cluster_was_made_from(engine: FakeEngine) -> None:
    up(engine, name="mine")
    again = Cluster.up(name="mine", size={"agent": 3}, engine=engine)
    assert again.spec.profile == "toy"
    assert "mine-agent-3" in engine.boxes


def test_up_with_another_profile_than_the_clusters_is_refused(engine: FakeEngine) -> None:
    up(engine, name="mine", set={"color": "blue"})  # a setting that the other profile does not have
    error = failing(engine, UsageError, profile="swarm", name="mine")
    assert "the name mine is in use" in error.what


@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2), (2, 0)])
def test_up_scales(engine: FakeEngine, before: int, after: int) -> None:
    up(engine, size={"agent": before})
    engine.calls.clear()
    cluster = up(engine, size={"agent": after})
    assert len(state(engine)[0]) == 1 + after
    assert cluster.status().phase == "ready"
    assert len(records(engine.volumes())) == 1
    assert not [about for _kind, about in changes(engine) if "master-1" in about]


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (5, 3)])
def test_up_scales_masters(engine: FakeEngine, before: int, after: int) -> None:
    up(engine, size={"master": before})
    cluster = up(engine, size={"master": after})
    status = cluster.status()
    assert status.phase == "ready"
    assert status.quorum
    assert status.quorum.voters == after


def test_up_repairs_what_was_removed_and_stopped(engine: FakeEngine) -> None:
    cluster = up(engine)
    engine.remove_container("toy-agent-1")
    engine.stop_container("toy-agent-2")
    assert cluster.status().phase == "degraded"
    assert up(engine).status().phase == "ready"


def test_a_new_node_gets_a_certificate_of_the_clusters_own_authority(engine: FakeEngine) -> None:
    up(engine)
    up(engine, size={"master": 3})
    assert len({engine.get_file(f"toy-master-{i}", "/etc/tls/ca.pem") for i in (1, 2, 3)}) == 1
    assert (paths.client_directory("toy") / "ca.pem").read_bytes() == engine.get_file("toy-master-1", "/etc/tls/ca.pem")


@pytest.mark.parametrize("name", ["", "Upper", "1st", "a_b", "a" * 31, "a.b", "-a", "ä", "a\n", "a/../b"])
def test_a_name_that_cannot_be_a_host_name_is_refused(engine: FakeEngine, name: str) -> None:
    error = failing(engine, UsageError, name=name)
    assert error.what.startswith("--name ")
    assert engine.calls == []


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_timeout_that_is_none_is_refused(engine: FakeEngine, timeout: float) -> None:
    assert failing(engine, UsageError, timeout=timeout).what.startswith("--timeout")


def test_up_is_refused_while_another_is_at_work_on_the_cluster(engine: FakeEngine) -> None:
    with lock.changing("toy"):
        assert "is being changed" in failing(engine).what
    assert engine.calls == []


# What fails is undone


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("create_network", "toy-net"),
        ("create_volume", "spec-0"),
        ("create_volume", "spec-1"),
        ("create_volume", "agent-1"),
        ("create_container", "agent-2"),
        ("put_files", "master-1"),
        ("start_container", "agent-1"),
        ("exec", "swarm-init"),
        ("exec", "swarm-join"),
        ("remove_volume", "spec-0"),
    ],
)
def test_a_first_up_that_fails_leaves_nothing(engine: FakeEngine, kind: str, match: str) -> None:
    engine.fail(kind, EngineError("the disk is full"), match=match)
    error = failing(engine)
    assert error.what == "the disk is full"
    assert error.leftovers == ()
    assert engine.empty()
    assert not paths.client_directory("toy").exists()


def test_a_node_that_exits_fails_the_up_and_leaves_nothing(engine: FakeEngine) -> None:
    engine.exits["toy-agent-1"] = (1, "boom")
    assert "boom" in failing(engine, NodeFailed).why
    assert engine.empty()


def test_a_node_that_is_not_ready_fails_the_up_and_leaves_nothing(engine: FakeEngine) -> None:
    engine.answers["is-ready"] = ExecResult(1, "", "still booting")
    error = failing(engine, NotReady, timeout=0.001)
    assert "still booting" in error.why
    assert engine.empty()


def test_an_unexpected_error_leaves_nothing_either(engine: FakeEngine) -> None:
    engine.fail("start_container", OSError("out of file descriptors"), match="agent-1")
    with pytest.raises((OSError, MiniclusterError), match="out of file descriptors"):
        up(engine)
    assert engine.empty()


def test_an_image_that_cannot_be_had_fails_the_up_and_leaves_nothing(engine: FakeEngine) -> None:
    engine.missing.add("no/such:1")
    error = failing(engine, image={"node": "no/such:1"})
    assert "no/such:1" in error.what
    assert "--image node=" in error.fix
    assert engine.empty()


def test_a_scale_up_that_fails_goes_back_to_what_was(engine: FakeEngine) -> None:
    before = up(engine).spec
    found = state(engine)
    engine.fail("start_container", EngineError("no memory"), match="agent-4")
    assert failing(engine, size={"agent": 4}).what == "no memory"
    assert state(engine) == found
    cluster = Cluster.open("toy", engine=engine)
    assert cluster.spec == before
    assert cluster.status().phase == "ready"
    assert up(engine).change.changed is False  # type: ignore[union-attr]


def test_an_image_that_cannot_be_had_touches_no_node_that_runs(engine: FakeEngine) -> None:
    up(engine)
    found = state(engine)
    engine.calls.clear()
    engine.missing.add("no/such:1")
    failing(engine, image={"node": "no/such:1"})
    assert state(engine) == found
    assert engine.did("remove_container") == []


def test_new_nodes_that_are_members_by_now_leave_as_members_when_their_change_is_undone(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Profiles whose members hook is told the nodes list only those."""
    up(engine)
    asked: list[list[str]] = []

    def look_within(engine: FakeEngine, observed: Observed, before: Spec, *rest: Any) -> Any:
        asked.append([node.name for node in before.of_role("agent")])
        return observe.look_within(engine, observed, before, *rest)

    monkeypatch.setattr(rollback, "look_within", look_within)
    engine.fail("start_container", EngineError("no"), match="agent-3")
    failing(engine, size={"agent": 3})
    assert asked == [["agent-1", "agent-2", "agent-3"]]


def test_a_repair_that_fails_leaves_the_cluster_as_it_is(engine: FakeEngine) -> None:
    up(engine)
    engine.remove_container("toy-agent-1")
    engine.fail("start_container", EngineError("no"), match="agent-1")
    error = failing(engine)
    assert "left as it is" in error.fix
    assert state(engine)[0]["toy-master-1"] == "running"


@pytest.mark.parametrize("size", [{}, {"agent": 4}])
def test_a_programming_error_is_rolled_back_and_raised_as_itself(engine: FakeEngine, size: dict[str, int]) -> None:
    if size:
        up(engine)
    found = state(engine)
    bug = ZeroDivisionError("a bug")
    engine.fail("start_container", bug, match="agent")
    with pytest.raises(ZeroDivisionError) as caught:
        up(engine, size=size)
    assert caught.value is bug
    assert state(engine) == found


def test_what_is_left_after_a_programming_error_is_noted(engine: FakeEngine) -> None:
    engine.fail("start_container", ZeroDivisionError("a bug"), match="agent")
    for nth in (1, 2, 3):
        engine.fail("remove_network", EngineError("it is in use"), nth=nth)
    told: list[Event] = []
    with pytest.raises(ZeroDivisionError):
        up(engine, listener=told.append)
    notes = [event.text for event in told if event.kind == "note"]
    assert "could not be removed: network toy-net" in notes
    assert notes[-1] == "`minicluster down toy` removes what is left."


def test_keep_leaves_everything_to_look_at(engine: FakeEngine) -> None:
    engine.exits["toy-agent-1"] = (1, "boom")
    error = failing(engine, keep=True)
    assert "minicluster down toy" in error.fix
    assert state(engine)[0]["toy-agent-1"] == "exited"
    down(["toy"], engine=engine)
    assert engine.empty()


def test_what_a_kept_failed_cluster_lacks_is_created_by_the_next_up(engine: FakeEngine) -> None:
    engine.fail("exec", EngineError("no"), match="swarm-init")
    failing(engine, keep=True)
    assert up(engine).status().phase == "ready"


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("create_volume", "spec-1"),
        ("create_network", ""),
        ("create_container", "agent-2"),
        ("start_container", "agent-1"),
        ("exec", "swarm-init"),
        ("exec", "swarm-join"),
        ("remove_volume", "spec-0"),
    ],
)
def test_a_first_up_that_was_killed_is_finished_by_the_next(engine: FakeEngine, kind: str, match: str) -> None:
    engine.fail(kind, EngineError("killed"), match=match)
    failing(engine, keep=True)  # as kill -9 does, keep undoes nothing
    assert up(engine).status().phase == "ready"
    assert len(records(engine.volumes())) == 1


#: Of a cluster with one master and three agents.
SIZES = [{"master": 3}, {"agent": 1}, {"master": 3, "agent": 1}]
sizes = pytest.mark.parametrize("size", SIZES, ids=lambda size: " ".join(size))


@sizes
@pytest.mark.parametrize("nth", range(2, 24, 5))
def test_a_change_that_was_killed_anywhere_is_finished_by_the_next_up(
    engine: FakeEngine, nth: int, size: dict[str, int]
) -> None:
    up(engine, size={"agent": 3})
    engine.fail("", EngineError("killed"), nth=nth)
    with contextlib.suppress(EngineError):  # a change of fewer calls goes through
        up(engine, keep=True, size=size)
    engine.heal()
    cluster = up(engine, size=size)
    assert cluster.status().phase == "ready"
    assert [r.spec for r in records(engine.volumes())] == [cluster.spec]
    assert len(state(engine)[0]) == sum({"master": 1, "agent": 3, **size}.values())


@sizes
@pytest.mark.parametrize("nth", range(2, 24, 5))
def test_a_change_that_fails_anywhere_goes_back_to_what_was(engine: FakeEngine, nth: int, size: dict[str, int]) -> None:
    before = up(engine, size={"agent": 3}).spec
    found = state(engine)
    engine.fail("", EngineError("no"), nth=nth)
    try:
        up(engine, size=size)
    except EngineError as problem:
        error = problem
    else:
        return  # a change of fewer calls goes through; so does one whose farewell to a node fails
    engine.heal()
    assert error.leftovers == ()
    assert state(engine) == found
    cluster = Cluster.open(engine=engine)
    assert cluster.spec == before
    assert cluster.status().phase == "ready"


def test_a_first_up_that_was_killed_is_removed_by_down(engine: FakeEngine) -> None:
    engine.fail("create_network", EngineError("killed"))
    failing(engine, keep=True)
    assert not engine.empty()
    assert down(engine=engine)[0].changed
    assert engine.empty()


def test_what_cannot_be_undone_is_said(engine: FakeEngine) -> None:
    engine.exits["toy-agent-1"] = (1, "boom")
    for nth in (1, 2, 3):
        engine.fail("remove_network", EngineError("it is in use"), nth=nth)
    error = failing(engine, NodeFailed)
    assert "network toy-net" in error.leftovers
    assert "minicluster down toy" in error.fix


def test_ctrl_c_leaves_nothing(engine: FakeEngine) -> None:
    import signal
    import threading

    hang = engine.answers["is-ready"] = Hang()
    main = threading.main_thread().ident
    assert main

    def press() -> None:
        assert hang.begun.wait(60)
        signal.pthread_kill(main, signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    error = failing(engine, Interrupted)
    presser.join()
    assert error.exit_code == 130
    assert engine.empty()


def test_an_engine_that_is_gone_is_told_and_what_is_left_is_not_known(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_args: object) -> list[object]:
        raise NoEngine("the engine stopped answering")

    def die() -> None:
        monkeypatch.setattr(engine, "containers", gone)
        raise NoEngine("the engine stopped answering")

    engine.fail("start_container", die)
    error = failing(engine, NoEngine)
    assert error.leftovers
    assert "minicluster down toy" in error.fix


# Names, subnets and ports of others


def test_a_name_that_a_foreign_container_has_is_refused_and_the_container_left_alone(engine: FakeEngine) -> None:
    engine.add_foreign("toy-agent-1")
    error = failing(engine, Conflict)
    assert error.what == "the name toy-agent-1 is in use"
    assert "--name" in error.fix
    assert list(engine.boxes) == ["toy-agent-1"]
    assert engine.empty()


def test_a_volume_and_a_network_of_others_are_left_alone(engine: FakeEngine) -> None:
    engine.create_volume("toy-agent-1-var-lib-data", {})
    failing(engine, Conflict)
    assert list(engine.vols) == ["toy-agent-1-var-lib-data"]
    engine.vols.clear()
    engine.create_network(NetworkConfig("toy-net", "10.99.0.0/24", "10.99.0.1", "10.99.0.224/27", {}))
    failing(engine, Conflict)
    assert list(engine.nets) == ["toy-net"]
    assert engine.empty()


def test_two_clusters_do_not_share_subnet_or_ports(engine: FakeEngine) -> None:
    one, two = up(engine, name="one"), up(engine, name="two")
    assert one.spec.subnet != two.spec.subnet
    assert {e.host_port for _n, e in one.spec.endpoints()}.isdisjoint(e.host_port for _n, e in two.spec.endpoints())


@pytest.mark.parametrize("keep", [False, True])
def test_a_subnet_that_was_taken_meanwhile_is_replaced_by_another(engine: FakeEngine, keep: bool) -> None:
    def taken() -> None:
        engine.routes.append("172.28.0.0/24")  # by another process, after we looked

    engine.fail("create_network", taken)
    heard: list[Event] = []
    cluster = up(engine, listener=heard.append, keep=keep)
    assert cluster.spec.subnet == addressing.choose_subnet(["172.28.0.0/24"], "toy/2")
    assert cluster.spec.subnet != "172.28.0.0/24"
    assert [e for e in heard if e.kind == "note"]
    assert len(engine.networks()) == 1


def test_a_subnet_that_is_taken_again_and_again_is_told(engine: FakeEngine) -> None:
    for nth in range(1, 20):
        engine.fail("create_network", SubnetTaken("overlaps"), nth=nth)
    failing(engine, SubnetTaken)
    assert engine.empty()


@pytest.fixture
def listening() -> Iterator[Callable[[int], None]]:
    """Takes ports of this machine, as another process does."""
    sockets: list[socket.socket] = []

    def listen(port: int) -> None:
        sockets.append(socket.create_server(("127.0.0.1", port)))

    yield listen
    for taken in sockets:
        taken.close()


def usual_port() -> int:
    """The port that the toy's only endpoint gets."""
    other = FakeEngine()
    FakeSwarm(other)
    return up(other).spec.nodes[0].endpoints[0].host_port


def test_an_automatic_port_that_was_taken_meanwhile_is_replaced_by_another(
    engine: FakeEngine, listening: Callable[[int], None]
) -> None:
    port = usual_port()

    def take() -> None:
        listening(port)
        raise PortTaken(f"host port {port} is taken", port=port)

    engine.fail("start_container", take, match="master-1")
    cluster = up(engine)
    assert cluster.spec.nodes[0].endpoints[0].host_port != port
    assert cluster.status().phase == "ready"


def test_an_automatic_port_that_only_the_engine_knows_to_be_taken_is_replaced_by_another(engine: FakeEngine) -> None:
    # An engine on another machine, or in a virtual one: that the port is free here tells nothing.
    port = usual_port()
    engine.ports_in_use.add(port)
    assert up(engine).spec.nodes[0].endpoints[0].host_port != port


def test_a_port_that_was_asked_for_and_is_taken_is_told_and_leaves_nothing(engine: FakeEngine) -> None:
    engine.ports_in_use.add(5000)
    error = failing(engine, PortTaken, port={"api": 5000})
    assert "5000" in error.what
    assert engine.did("create_network") == ["toy-net"]  # tried once
    assert engine.empty()


# Down, and which cluster is meant


def test_down_leaves_nothing(engine: FakeEngine) -> None:
    up(engine, size={"master": 3})
    engine.create_volume("foreign", {})
    (change,) = down(["toy"], engine=engine)
    assert change.changed
    assert engine.empty()
    assert list(engine.vols) == ["foreign"]
    assert not paths.client_directory("toy").exists()


def test_down_takes_the_cluster_named_and_no_other(engine: FakeEngine) -> None:
    up(engine, name="one")
    up(engine, name="two")
    down(["one"], engine=engine)
    assert [c.cluster for c in clusters(engine)] == ["two"]
    assert up(engine, name="two").change.changed is False  # type: ignore[union-attr]


def test_down_of_all_takes_all(engine: FakeEngine) -> None:
    up(engine, name="one")
    up(engine, name="two")
    assert [c.cluster for c in down(all=True, engine=engine)] == ["one", "two"]
    assert engine.empty()


def test_down_without_a_name_takes_the_only_cluster_and_is_content_with_none(engine: FakeEngine) -> None:
    assert down(engine=engine) == []
    up(engine, name="one")
    assert [c.cluster for c in down(engine=engine)] == ["one"]


def test_down_without_a_name_of_several_is_refused(engine: FakeEngine) -> None:
    up(engine, name="one")
    up(engine, name="two")
    with pytest.raises(UsageError, match="one, two"):
        down(engine=engine)
    assert len(clusters(engine)) == 2


def test_down_of_what_is_not_there_is_noted_with_the_nearest(engine: FakeEngine) -> None:
    up(engine, name="mine")
    notes: list[Event] = []
    assert down(["mien"], engine=engine, listener=notes.append) == [Change("mien", False, 0, 0.0)]
    assert [(note.kind, note.text) for note in notes] == [
        (
            "note",
            "no cluster named 'mien': nothing to remove. No object on the engine has that cluster's label. "
            "Did you mean 'mine'?",
        )
    ]
    with pytest.raises(NoCluster, match="'mine'"):
        down(["mien"], strict=True, engine=engine)


def test_down_of_what_a_killed_one_took_down_removes_its_lock(engine: FakeEngine) -> None:
    left = paths.data_home() / "locks" / "mine.lock"
    left.parent.mkdir(parents=True)
    left.touch()
    down(["mine"], engine=engine)
    assert not left.exists()


@pytest.mark.parametrize("name", ["", ".", "../mine", "{folder}/mine"])
def test_down_of_what_is_no_name_removes_nothing(engine: FakeEngine, name: str, tmp_path: Path) -> None:
    kept = paths.client_directory("other") / "key.pem"
    files = [kept, paths.data_home() / "mine.lock", tmp_path / "mine.lock", tmp_path / "mine" / "file"]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    up(engine)
    with pytest.raises(UsageError):
        down([name.format(folder=tmp_path)], engine=engine)
    assert all(file.exists() for file in files)


@pytest.mark.parametrize("strict", [False, True])
def test_down_of_several_removes_those_that_are_there(engine: FakeEngine, strict: bool) -> None:
    up(engine, name="mine"), up(engine, name="kept")
    if strict:
        with pytest.raises(NoCluster, match="no cluster named 'other'; no cluster named 'another'"):
            down(["other", "mine", "another"], strict=True, engine=engine)
    else:
        changes = down(["other", "mine"], engine=engine)
        assert [(c.cluster, c.changed) for c in changes] == [("mine", True), ("other", False)]
    assert [c.cluster for c in clusters(engine)] == ["kept"]


def test_down_of_what_the_variable_names_says_so(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINICLUSTER", "gone")
    notes: list[Event] = []
    down(engine=engine, listener=notes.append)
    assert "no cluster named 'gone': nothing to remove. $MINICLUSTER names it." in notes[0].text


def test_down_of_a_foreign_container_is_refused(engine: FakeEngine) -> None:
    engine.add_foreign("precious")
    with pytest.raises(NoCluster, match="did not create"):
        down(["precious"], strict=True, engine=engine)
    assert "precious" in engine.boxes


def test_down_tries_again_what_something_else_held_on_to(engine: FakeEngine) -> None:
    up(engine)
    engine.fail("remove_volume", Conflict("in use"), match="agent-1")
    down(["toy"], engine=engine)
    assert engine.empty()


def test_a_cluster_is_opened_by_name_by_variable_or_as_the_only_one(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="no clusters found"):
        Cluster.open(engine=engine)
    one = up(engine, name="one")
    assert Cluster.open(engine=engine).spec == one.spec
    two = up(engine, name="two")
    assert Cluster.open("two", engine=engine).spec == two.spec
    monkeypatch.setenv("MINICLUSTER", "one")
    assert Cluster.open(engine=engine).name == "one"
    assert Cluster.open("two", engine=engine).name == "two"
    monkeypatch.setenv("MINICLUSTER", "none")
    with pytest.raises(UsageError, match="'none'"):
        Cluster.open(engine=engine)


def test_a_cluster_without_its_record_is_told_to_be_incomplete_and_can_be_removed(engine: FakeEngine) -> None:
    up(engine)
    engine.remove_volume(next(v.name for v in engine.volumes() if labels.REVISION in v.labels))
    with pytest.raises(UsageError, match="incomplete"):
        Cluster.open("toy", engine=engine)
    assert [c.phase for c in clusters(engine)] == ["leftover"]
    down(["toy"], engine=engine)
    assert engine.empty()


def test_ls_tells_how_clusters_are(engine: FakeEngine) -> None:
    for name in ("one", "two", "zoo"):
        up(engine, name=name)
    engine.stop_container("two-agent-1")
    for node in ("master-1", "agent-1", "agent-2"):
        engine.stop_container(f"zoo-{node}")
    assert [(c.cluster, c.phase, c.running, c.nodes) for c in clusters(engine)] == [
        ("one", "running", 3, 3),
        ("two", "partial", 2, 3),
        ("zoo", "stopped", 0, 3),
    ]


# Options


def test_the_keywords_of_up_are_its_options() -> None:
    assert {"profile", *UpKeywords.__annotations__} == {field.name for field in fields(UpOptions)}


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_that_is_not_positive_is_refused(engine: FakeEngine, timeout: float) -> None:
    assert failing(engine, UsageError, timeout=timeout).what == "--timeout must be greater than 0"


def test_an_interactive_command_runs_in_one_node(engine: FakeEngine) -> None:
    cluster = up(engine)
    assert cluster.exec_argv("master", ["true"], tty=False)[0] == ["fake", "exec", "toy-master-1", "true"]
    with pytest.raises(UsageError, match="role agent has 2 nodes") as caught:
        cluster.exec_argv("agent", ["true"], tty=False)
    assert caught.value.fix == "Name one of agent-1, agent-2."


def test_the_plans_of_load_and_reset_change_nothing(engine: FakeEngine) -> None:
    cluster = up(engine)
    engine.calls.clear()
    loading = cluster.plan_load(cluster.spec.images["node"].ref, "agent")
    assert {step.node for step in loading.steps if step.node} == {"agent-1", "agent-2"}
    with pytest.raises(UsageError, match="cluster toy cannot be reset"):
        cluster.plan_reset()
    assert changes(engine) == []


# Dry run


@pytest.fixture
def connected(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda **_options: engine)
    return engine


def test_a_dry_run_is_the_plan_of_the_up_and_changes_nothing(connected: FakeEngine) -> None:
    plan = dry_run(str(TOY))
    assert connected.calls == []
    assert up(connected).change.steps == len(plan.steps)  # type: ignore[union-attr]
    connected.calls.clear()
    assert not dry_run(str(TOY))
    assert [step.id for step in dry_run(str(TOY), size={"agent": 3}).steps if step.id.startswith("create agent")] == [
        "create agent-3"
    ]
    assert changes(connected) == []


def test_a_dry_run_without_an_engine_is_the_plan_of_a_first_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(**_options: object) -> FakeEngine:
        raise NoEngine("none")

    monkeypatch.setattr("minicluster.engine.discover.connect", none)
    assert dry_run(str(TOY)).headline.startswith("create cluster toy")


# Nodes


def test_nodes_are_named_by_name_and_role_in_their_order(engine: FakeEngine) -> None:
    cluster = up(engine)
    assert cluster.node_names() == ["master-1", "agent-1", "agent-2"]
    assert cluster.node_names(["agent-2", "master"]) == ["master-1", "agent-2"]
    with pytest.raises(UsageError, match="'agent-1'"):
        cluster.node_names(["agnet-1"])


def test_the_environment_makes_the_stock_client_work(engine: FakeEngine) -> None:
    cluster = up(engine)
    folder = paths.client_directory("toy")
    port = cluster.spec.nodes[0].endpoints[0].host_port
    assert cluster.env() == {"TOY_URL": f"https://127.0.0.1:{port}", "TOY_CERTS": str(folder)}


def test_a_client_certificate_that_was_lost_is_written_again(engine: FakeEngine) -> None:
    from minicluster.operations import client_folder

    cluster = up(engine)
    client_folder.remove("toy", FakeEngine())
    assert cluster.env()["TOY_CERTS"] == str(paths.client_directory("toy"))
    assert not paths.client_directory("toy").exists()
    assert cluster.write_client_files() == ()
    assert (paths.client_directory("toy") / "key.pem").exists()


def test_an_image_is_loaded_into_every_node_and_nothing_is_left_of_it(engine: FakeEngine) -> None:
    up(engine).load("some/image")
    assert len([c for c in engine.did("exec") if ": load /var/tmp/" in c]) == 3
    assert len([c for c in engine.did("exec") if ": rm -f /var/tmp/" in c]) == 3


def test_an_image_that_the_engine_has_not_is_not_loaded(engine: FakeEngine) -> None:
    cluster = up(engine)
    engine.every_image = False
    with pytest.raises(MiniclusterError, match="no such image or file: some/image"):
        cluster.load("some/image")


def test_a_log_is_given_line_by_line_with_its_node(engine: FakeEngine) -> None:
    cluster = up(engine)
    engine.boxes["toy-agent-1"].log = [b"one", b"two \xff"]
    assert list(cluster.logs(["agent"])) == [("agent-1", "one"), ("agent-1", "two \ufffd")]
    for node in cluster.spec.nodes:
        engine.stop_container(f"toy-{node.name}")  # it ends with the last node
    assert sorted(cluster.logs(follow=True)) == [("agent-1", "one"), ("agent-1", "two \ufffd")]


def test_status_tells_what_is_wrong_with_a_node(engine: FakeEngine) -> None:
    cluster = up(engine)
    engine.stop_container("toy-agent-1")
    engine.remove_container("toy-agent-2")
    nodes = {n.name: n for n in cluster.status().nodes}
    assert (nodes["agent-1"].phase, nodes["agent-1"].ready) == ("exited", False)
    assert (nodes["agent-2"].phase, nodes["agent-2"].probe) == ("missing", "its container is missing")
    assert (nodes["master-1"].ready, nodes["master-1"].leader) == (True, True)


def test_an_up_that_failed_says_that_everything_was_removed(engine: FakeEngine) -> None:
    engine.fail("start_container", EngineError("no"), match="toy-agent-1")
    with pytest.raises(EngineError) as caught:
        up(engine)
    assert "Everything that was created has been removed." in caught.value.why
    assert engine.empty()
    cluster = up(engine)
    engine.fail("start_container", EngineError("no"), match="toy-agent-3")
    with pytest.raises(EngineError) as failed:
        cluster.scale({"agent": 3})
    assert "The cluster is as it was before." in failed.value.why


def test_a_paused_node_is_resumed_by_the_command_that_the_error_names(engine: FakeEngine) -> None:
    cluster = up(engine)
    cluster.pause("agent-1")
    with pytest.raises(NodeFailed) as caught:
        cluster.exec_argv("agent-1", ["true"], tty=False)
    assert caught.value.fix == "`minicluster unpause agent-1 -c toy` resumes it."


def test_a_node_that_ran_out_of_memory_is_told(engine: FakeEngine) -> None:
    cluster = up(engine)
    engine.kill_container("toy-agent-1")
    engine.killed["toy-agent-1"] = 512 << 20
    nodes = {n.name: n for n in cluster.status().nodes}
    assert nodes["agent-1"].probe.startswith("ran out of memory (limit 512 MiB): ")
    cluster.down()
    engine.exits["toy-agent-1"] = (137, "")
    engine.killed["toy-agent-1"] = 64 << 20
    with pytest.raises(NodeFailed) as caught:
        up(engine)
    assert caught.value.what == "toy-agent-1 ran out of memory (limit 64 MiB) while it was starting"


def test_a_profile_folder_that_moved_is_told(engine: FakeEngine, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(TOY, tmp_path / "moving")
    up(engine, profile=str(folder))
    folder.rename(tmp_path / "moved")
    with pytest.raises(UsageError, match="moving"):
        Cluster.up(name="toy", engine=engine)
    assert up(engine, profile=str(tmp_path / "moved")).status().phase == "ready"


def test_env_names_outlive_the_cluster(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CERT_PATH", "/somewhere")
    monkeypatch.delenv("DOCKER_TLS_VERIFY", raising=False)
    from minicluster.cluster import env_names

    assert "DOCKER_CERT_PATH" in env_names("none", engine=engine)
    assert "DOCKER_TLS_VERIFY" not in env_names("none", engine=engine)
