"""Leases: whose a cluster is and until when, what carries that, and who may remove what is over."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from minicluster.cluster import Cluster, clusters, collect, down
from minicluster.errors import EngineError, UsageError
from minicluster.host.processes import Process
from minicluster.leases import reaper_client, renew as renewal
from minicluster.model import labels
from minicluster.model.durations import seconds, span
from minicluster.model.events import Event
from minicluster.model.lease import GRACE, Lease
from minicluster.operations import remove_expired as collecting
from minicluster.plan.leases import generation
from minicluster.plan.observed import lease_of
from tests.fakes import FakeEngine
from tests.unit.samples import TOY

ELSEWHERE = Process("another-boot", "pid:[1]", 1, "1")


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the reaper was told: none is started here."""
    heard: list[tuple[str, str]] = []
    monkeypatch.setattr(reaper_client, "hold", lambda _engine, cluster, _lease: heard.append(("hold", cluster)))
    monkeypatch.setattr(reaper_client, "drop", lambda _engine, cluster: heard.append(("drop", cluster)))
    return heard


def ended() -> Process:
    """A process that has been there, and is no more."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = Process.of(child.pid)
    assert process.lives()
    child.communicate(b"\n")
    return process


def up(engine: FakeEngine, name: str = "toy", lease: Lease | None = None) -> Cluster:
    return Cluster.up(str(TOY), name=name, lease=lease, engine=engine)


# Processes


def test_this_process_lives() -> None:
    me = Process.this()
    assert me.pid == os.getpid()
    assert me.lives() is True


def test_a_process_that_ended_does_not_nor_one_of_its_number() -> None:
    assert ended().lives() is False
    assert replace(Process.this(), started="0").lives() is False


def test_one_that_ended_and_was_not_waited_for_counts_as_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = Process.of(child.pid)
    child.kill()
    end = time.monotonic() + 20
    while process.lives() and time.monotonic() < end:
        time.sleep(0.01)
    assert process.lives() is False
    child.communicate()


@pytest.mark.parametrize("change", [{"machine": "another-boot"}, {"namespace": "pid:[1]"}])
def test_of_a_process_elsewhere_nothing_is_known(change: dict[str, str]) -> None:
    assert replace(Process.this(), **change).lives() is None


# Leases


@pytest.mark.parametrize("lease", [Lease(), Lease(until=17.0), Lease.owned(), Lease(ELSEWHERE, 5.0)])
def test_a_lease_survives_its_label(lease: Lease) -> None:
    read = Lease.parse(lease.encode())
    assert read.owner == lease.owner
    assert (read.until is None) == (lease.until is None)
    assert abs((read.until or 0) - (lease.until or 0)) <= 0.5


@pytest.mark.parametrize("text", ["", "[]", "3", '"x"', '{"owner": {"pid": 1}}', '{"until": "soon"}', "{"])
def test_what_is_no_lease(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a lease|Expecting|could not"):
        Lease.parse(text)


def test_when_a_lease_is_over() -> None:
    now = time.time()
    assert Lease().over() == ""
    assert Lease.lasting(60).over() == ""
    assert Lease(until=now - 5400).over(now) == "its lease expired 1 h 30 min ago"
    gone = ended()
    assert Lease.owned(gone).over() == f"its owner, process {gone.pid}, has exited"
    # Seen to live, an owner keeps what is its own, however long nothing was heard of it.
    assert Lease(Process.this(), now - 10 * GRACE).over(now) == ""
    assert Lease(ELSEWHERE, now + 1).over(now) == ""
    late = Lease(ELSEWHERE, now - 1).over(now)
    assert late == "its owner, process 1 on another machine, has not renewed its lease for 10 min 1 s"


def test_for_people() -> None:
    assert str(Lease()) == ""
    assert str(Lease(ELSEWHERE, 5.0)) == "process 1"
    assert str(Lease.lasting(7200.2)) == "2 h left"
    assert str(Lease(until=5.0)) == "0 s left"


@pytest.mark.parametrize(
    ("text", "expected"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1.5h", 5400), ("7d", 604800)]
)
def test_spans_that_users_write(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "2", "h", "2 h", "-2h", "2h!", "0s", "2weeks", "1.2.3h", "²h"])
def test_what_is_no_span(text: str) -> None:
    with pytest.raises(UsageError, match="not a duration"):
        seconds(text)


@pytest.mark.parametrize(("value", "text"), [(0, "0 s"), (59.6, "1 min"), (3600, "1 h"), (90061, "1 d 1 h")])
def test_spans_for_people(value: float, text: str) -> None:
    assert span(value) == text


# On the engine


def things(engine: FakeEngine) -> list[object]:
    return [*engine.containers(), *engine.networks(), *engine.volumes()]


def test_everything_of_a_leased_cluster_says_so(engine: FakeEngine, told: list[tuple[str, str]]) -> None:
    lease = Lease.owned()
    with up(engine, lease=lease):
        found = things(engine)
        assert len(found) > 5
        assert {thing.labels[labels.LEASE] for thing in found} == {lease.encode()}  # type: ignore[attr-defined]
        assert told == [("hold", "toy")]
    assert things(engine) == []
    assert told[-1] == ("drop", "toy")


def test_nothing_of_another_cluster_does(engine: FakeEngine) -> None:
    up(engine)
    assert not any(labels.LEASE in thing.labels for thing in things(engine))  # type: ignore[attr-defined]
    assert collect(engine=engine) == []


def test_nodes_that_come_later_have_the_lease_too(engine: FakeEngine) -> None:
    lease = Lease.lasting(60)
    up(engine, lease=lease).scale({"agent": 3})
    assert {thing.labels[labels.LEASE] for thing in things(engine)} == {lease.encode()}  # type: ignore[attr-defined]


def test_a_lease_is_renewed(engine: FakeEngine) -> None:
    up(engine, lease=Lease.lasting(600))
    again = up(engine, lease=Lease(until=4e9))
    assert again.change
    assert again.change.summary == {"create-volume": 1}
    assert lease_of(engine.volumes()) == Lease(until=4e9)
    up(engine, lease=Lease(until=5e9))
    assert lease_of(engine.volumes()) == Lease(until=5e9)
    assert clusters(engine)[0].lease.endswith(" left")
    assert sum(labels.GENERATION in v.labels for v in engine.volumes()) == 1
    # Asked for nothing, the lease stays, and there is nothing to do.
    same = up(engine)
    assert same.change
    assert not same.change.changed
    same.renew(Lease())
    assert clusters(engine)[0].lease == ""
    assert down(["toy"], engine=engine)
    assert things(engine) == []


def test_what_is_to_stay_stays(engine: FakeEngine) -> None:
    made = up(engine, lease=Lease())
    assert not any(labels.LEASE in thing.labels for thing in things(engine))  # type: ignore[attr-defined]
    again = up(engine, lease=Lease())
    assert again.change
    assert not again.change.changed
    made.renew(Lease(until=4e9))
    up(engine, lease=Lease())
    assert lease_of(engine.volumes()) == Lease()


def test_what_was_to_stay_may_get_an_end(engine: FakeEngine) -> None:
    up(engine)
    up(engine, lease=Lease(until=4e9))
    assert lease_of(engine.volumes()) == Lease(until=4e9)


@pytest.mark.parametrize("before", [None, Lease(until=4e9), Lease(ELSEWHERE, 4e9)])
def test_no_process_takes_over_the_cluster_of_another(engine: FakeEngine, before: Lease | None) -> None:
    up(engine, lease=before)
    with pytest.raises(UsageError, match="exists already and cannot be tied to"):
        up(engine, lease=Lease.owned())
    assert lease_of(engine.volumes()) == (Lease.parse(before.encode()) if before else None)


def test_an_owner_may_go_on_with_its_own(engine: FakeEngine) -> None:
    up(engine, lease=Lease.owned())
    assert up(engine, lease=Lease.owned()).name == "toy"


# Garbage


def test_what_is_over_is_removed_and_nothing_else(engine: FakeEngine) -> None:
    gone = ended()
    up(engine, "b")
    up(engine, "c", Lease.owned())
    up(engine, "d", Lease.lasting(60))
    up(engine, "a", Lease.owned(gone))
    renewal.renew(engine, "d", Lease(until=time.time() - 60))
    seen = collecting.collect(engine, dry_run=True)
    assert [(one.cluster, one.why, one.removed) for one in seen] == [
        ("a", f"its owner, process {gone.pid}, has exited", False),
        ("d", "its lease expired 1 min ago", False),
    ]
    assert all(one.removed for one in collecting.collect(engine))
    assert [c.cluster for c in clusters(engine)] == ["b", "c"]


def test_the_next_who_comes_removes_it(engine: FakeEngine) -> None:
    up(engine, "a", Lease.owned(ended()))
    heard: list[Event] = []
    assert clusters(engine, listener=heard.append) == []
    assert "Removed cluster a: its owner, process" in heard[0].text


def test_up_of_the_same_name_starts_again(engine: FakeEngine) -> None:
    up(engine, lease=Lease.owned(ended()))
    cluster = up(engine)
    assert cluster.change
    assert cluster.change.summary["create-container"] == len(cluster.spec.nodes)
    assert lease_of(engine.volumes()) is None


def test_remains_without_a_record_are_removed_by_gc(engine: FakeEngine) -> None:
    up(engine, lease=Lease.owned(ended()))
    for volume in engine.volumes():
        engine.vols.pop(volume.name)
    assert [(one.cluster, one.removed) for one in collecting.collect(engine)] == [("toy", True)]
    assert things(engine) == []


def test_one_that_is_being_changed_is_left_alone(engine: FakeEngine) -> None:
    from minicluster.leases import lock

    up(engine, lease=Lease.owned(ended()))
    with lock.changing("toy"):
        found = collecting.collect(engine)
    assert [(one.removed, "being changed" in one.error) for one in found] == [(False, True)]
    assert things(engine)


def test_an_unreadable_lease_protects(engine: FakeEngine) -> None:
    up(engine)
    engine.create_volume(
        "toy-lease-x", {labels.CLUSTER: "toy", labels.GENERATION: "1", labels.LEASE: "of a newer kind"}
    )
    assert collecting.collect(engine) == []


# What a reaper does about it


def test_a_beat_renews_and_never_against_anothers_wish(engine: FakeEngine) -> None:
    me = Process.this()
    assert renewal.renew_owned(engine, "toy", me)  # it is just being made, or about to go: its owner says so
    assert things(engine) == []
    up(engine, lease=Lease(me, time.time() + 5))
    for _ in range(3):
        assert renewal.renew_owned(engine, "toy", me)
    lease = lease_of(engine.volumes())
    assert lease
    assert lease.owner == me
    assert lease.until
    assert lease.until > time.time() + GRACE - 60
    assert sum(labels.GENERATION in v.labels for v in engine.volumes()) == 1
    renewal.renew(engine, "toy", Lease(until=4e9))
    # A renewal that had read the lease before.
    beaten = generation("toy", "toy", Lease.owned(), 4)
    engine.create_volume(beaten.name, beaten.labels)
    assert lease_of(engine.volumes()) == Lease(until=4e9)
    assert not renewal.renew_owned(engine, "toy", me)


def test_a_beat_in_the_middle_of_a_down_leaves_nothing(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    me = Process.this()
    up(engine, lease=Lease.owned(me))
    assert renewal.renew_owned(engine, "toy", me)
    removes, beaten = engine.remove_volume, []

    def beat_first(name: str) -> None:
        if not beaten:
            beaten.append(name)
            assert renewal.renew_owned(engine, "toy", me)
        removes(name)

    monkeypatch.setattr(engine, "remove_volume", beat_first)
    down(["toy"], engine=engine)
    assert beaten
    assert things(engine) == []


def test_a_cluster_that_is_gone_gets_no_lease(engine: FakeEngine) -> None:
    with pytest.raises(UsageError, match="no cluster named"):
        renewal.renew(engine, "toy", Lease())
    assert things(engine) == []


def test_a_cluster_that_a_test_uses_is_not_removed(engine: FakeEngine) -> None:
    from minicluster.leases import lock

    up(engine)
    renewal.renew(engine, "toy", Lease(until=1.0))
    with lock.using("toy", alone=False, timeout=0):
        assert [one.error for one in collecting.collect(engine)] == ["cluster toy is in use"]
    assert [one.removed for one in collecting.collect(engine)] == [True]


def test_what_cannot_be_seen_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import Path

    def hidden(*_anything: object) -> str:
        raise PermissionError

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        process = Process.of(child.pid)
        namespace = os.readlink("/proc/self/ns/pid")
        monkeypatch.setattr(Path, "read_text", hidden)
        monkeypatch.setattr("minicluster.host.processes._machine", lambda: process.machine)
        monkeypatch.setattr("minicluster.host.processes._namespace", lambda: namespace)
        assert process.lives() is None
        child.communicate(b"\n")
        assert process.lives() is False


def test_an_up_that_fails_leaves_the_reaper_nothing(engine: FakeEngine, told: list[tuple[str, str]]) -> None:
    engine.fail("start_container", EngineError("no"), match="toy-agent-1")
    with pytest.raises(EngineError):
        up(engine, lease=Lease.owned())
    assert told == [("hold", "toy"), ("drop", "toy")]
