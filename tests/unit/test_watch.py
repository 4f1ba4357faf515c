"""What nodes use and what happens to a cluster, on an engine in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from minicluster.cluster import Cluster, down
from minicluster.engine.docker import answers
from minicluster.engine.protocol import Sample
from minicluster.errors import EngineError, NodeFailed, NoEngine, UsageError
from minicluster.model.membership import Member
from minicluster.model.results import ClusterEvent
from minicluster.operations import monitor
from minicluster.operations.monitor import Seen, compare, cpu_percent
from tests.fakes import FakeEngine
from tests.unit.samples import TOY


@pytest.fixture
def cluster(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster.up(str(TOY), name="toy", engine=engine)
    monkeypatch.setattr(monitor, "_FINAL_WAIT", 0.05)
    return made


# Usage


def sample(cpu: int, system: int, cpus: int = 2) -> Sample:
    return Sample(cpu, system, cpus, 0, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("before", "after", "percent"),
    [
        (sample(0, 0), sample(10**9, 2 * 10**9), 100.0),
        (sample(5, 0, 8), sample(5 + 4 * 10**9, 8 * 10**9, 8), 400.0),
        (sample(7, 10), sample(7, 20), 0.0),
        (sample(7, 10), sample(3, 20), None),  # restarted
        (sample(7, 10), sample(7, 10), None),
    ],
)
def test_cpu_is_percent_of_one_processor(before: Sample, after: Sample, percent: float | None) -> None:
    assert cpu_percent(before, after) == percent


def usages(cluster: Cluster) -> Iterator[monitor.ClusterUsage]:
    return monitor.usages(cluster.engine, cluster.spec, period=0.01)


def test_every_node_is_told_in_the_specs_order(engine: FakeEngine, cluster: Cluster) -> None:
    engine.stop_container("toy-agent-1")
    usage = next(usages(cluster))
    assert [(n.name, n.role, n.phase) for n in usage.nodes] == [
        ("master-1", "master", "running"),
        ("agent-1", "agent", "exited"),
        ("agent-2", "agent", "running"),
    ]
    first, stopped, _ = usage.nodes
    assert (first.cpu, first.memory, first.memory_limit, first.pids) == (50.0, 1 << 20, 1 << 34, 7)
    assert (first.received, first.sent, first.read, first.written) == (100, 200, 300, 400)
    assert (stopped.cpu, stopped.memory, stopped.pids) == (None, None, None)


def test_only_the_nodes_that_are_asked_for(cluster: Cluster) -> None:
    assert [n.name for n in cluster.usage(["agent"]).nodes] == ["agent-1", "agent-2"]
    with pytest.raises(UsageError, match="no node or role 'agend'"):
        cluster.usages(["agend"])


def test_nodes_that_come_and_go_are_followed_to_the_clusters_end(engine: FakeEngine, cluster: Cluster) -> None:
    seen = usages(cluster)
    assert len(next(seen).nodes) == 3
    Cluster.up(str(TOY), name="toy", size={"agent": 3}, engine=engine)
    assert [n.name for n in next(seen).nodes][-1] == "agent-3"
    engine.remove_container("toy-agent-3")
    assert [n.phase for n in next(seen).nodes][-1] == "missing"
    down(["toy"], engine=engine)
    assert list(seen) == []
    with pytest.raises(NodeFailed, match="toy no longer exists"):
        cluster.usage()


def test_a_node_that_cannot_be_measured_has_no_figures(
    engine: FakeEngine, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = engine.sample

    def measured(container: str) -> Sample:
        if container == "toy-agent-1":
            raise EngineError("gone just now")
        return measure(container)

    monkeypatch.setattr(engine, "sample", measured)
    assert [n.cpu for n in next(usages(cluster)).nodes] == [50.0, None, 50.0]


def test_a_container_that_is_being_removed_uses_nothing() -> None:
    assert answers.sample(None) == Sample(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


# Events


#: Events that come from the members, the others come from the engine.
OF_MEMBERS = {"ready", "unready", "known", "unknown", "quorum", "quorum-lost", "leader"}


class Listening:
    """Collects what ``events`` tells, in a thread, as a user at a second terminal."""

    def __init__(self, cluster: Cluster, since: float | None = None) -> None:
        self.told: list[ClusterEvent] = []
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._listen, args=(cluster, since), daemon=True)
        self.thread.start()

    def _listen(self, cluster: Cluster, since: float | None) -> None:
        try:
            for event in monitor.events(cluster.engine, cluster.spec, since, period=0.02):
                self.told.append(event)
        except BaseException as error:
            self.error = error

    def hears(self, event: str, node: str) -> ClusterEvent:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            for told in list(self.told):
                if (told.event, told.node) == (event, node):
                    return told
            time.sleep(0.005)
        raise AssertionError(f"{event} of {node} was not told, but {self.told}")

    def ends(self) -> None:
        self.thread.join(30)
        assert not self.thread.is_alive()


def test_what_the_engine_does_is_told(engine: FakeEngine, cluster: Cluster) -> None:
    begun = time.time()
    ears = Listening(cluster, since=begun)
    engine.kill_container("toy-agent-1")
    assert ears.hears("kill", "agent-1").detail == {"signal": "SIGKILL"}
    died = ears.hears("die", "agent-1")
    assert (died.cluster, died.role, died.detail) == ("toy", "agent", {"exit_code": 137})
    assert begun <= died.time <= time.time()
    Cluster.up(str(TOY), name="other", engine=engine)
    engine.start_container("toy-agent-1")
    ears.hears("start", "agent-1")
    down(["toy"], engine=engine)
    ears.ends()
    assert ears.error is None
    assert {e.cluster for e in ears.told} == {"toy"}
    # What the members say may come after it: they were asked before the last of them was removed.
    assert [e.event for e in ears.told if e.event not in OF_MEMBERS][-1] == "destroy"
    assert {"network": "toy-net"} in [e.detail for e in ears.told if e.event == "destroy"]
    assert all("other" not in str(e.detail) for e in ears.told)


def test_what_was_before_is_told_with_since_alone(engine: FakeEngine, cluster: Cluster) -> None:
    engine.stop_container("toy-agent-2")
    assert Listening(cluster, since=0).hears("stop", "agent-2")
    ears = Listening(cluster)
    time.sleep(0.1)
    assert [e.event for e in ears.told] == []


def test_what_the_members_say_is_told(engine: FakeEngine, cluster: Cluster) -> None:
    ears = Listening(cluster)
    time.sleep(0.1)  # the first look is what the others are compared with
    engine.set_state("toy-agent-1", "exited")
    assert ears.hears("unready", "agent-1").role == "agent"
    engine.set_state("toy-agent-1", "running")
    ears.hears("ready", "agent-1")
    Cluster.up(str(TOY), name="toy", size={"agent": 3}, engine=engine)
    assert ears.hears("ready", "agent-3").role == "agent"
    engine.set_state("toy-master-1", "exited")
    # The other one where it stops while it is asked.
    assert ears.hears("unknown", "").detail["why"] in (
        "no master node is running",
        "container toy-master-1 is not running",
    )
    assert ears.hears("quorum-lost", "").detail == {"healthy": 0, "needed": 1}
    engine.set_state("toy-master-1", "running")
    ears.hears("known", "")
    ears.hears("quorum", "")


def test_an_engine_that_goes_away_ends_it_with_an_error(
    engine: FakeEngine, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> Iterator[object]:
        raise NoEngine("the engine stopped answering")
        yield

    monkeypatch.setattr(engine, "events", gone)
    ears = Listening(cluster)
    ears.ends()
    assert isinstance(ears.error, NoEngine)


def members(*ready: str, leader: str = "m-1", of: tuple[str, ...] = ("m-1", "m-2", "m-3", "a-1")) -> dict[str, Member]:
    return {n: Member(n, n in ready, n.startswith("m"), n == leader) for n in of}


ALL = ("m-1", "m-2", "m-3", "a-1")


def test_the_first_look_tells_only_what_is_amiss() -> None:
    assert compare(None, members("m-1", "m-2"), "", {*ALL})[1] == []
    assert compare(None, None, "nobody", set())[1] == [("unknown", "", {"why": "nobody"})]
    assert compare(None, members("m-1"), "", {*ALL})[1] == [("quorum-lost", "", {"healthy": 1, "needed": 2})]


def test_a_new_leader_is_told_with_the_old_one() -> None:
    seen, _ = compare(None, members(*ALL), "", {*ALL})
    seen, told = compare(seen, members("m-2", "m-3", "a-1", leader="m-2"), "", {"m-2", "m-3", "a-1"})
    assert told == [("unready", "m-1", {}), ("leader", "m-2", {"from": "m-1", "to": "m-2"})]
    assert compare(seen, members("m-2", "m-3", "a-1", leader=""), "", {*ALL})[1] == [
        ("leader", "", {"from": "m-2", "to": ""})
    ]


def test_no_answer_is_told_once_and_lost_quorum_only_where_it_is_sure() -> None:
    seen, _ = compare(None, members(*ALL), "", {*ALL})
    seen, told = compare(seen, None, "slow", {*ALL})
    assert told == [("unknown", "", {"why": "slow"})]
    seen, told = compare(seen, None, "slow", {"m-1", "a-1"})
    assert told == [("quorum-lost", "", {"healthy": 1, "needed": 2})]
    assert compare(seen, None, "slow", {*ALL})[1] == []  # they run again, and their state is not known yet
    seen, told = compare(seen, members(*ALL), "", {*ALL})
    assert told == [("known", "", {}), ("quorum", "", {"healthy": 3, "needed": 2})]
    assert seen == Seen(members(*ALL))


def test_members_that_come_and_leave() -> None:
    seen, _ = compare(None, members(*ALL), "", {*ALL})
    seen, told = compare(seen, members(*ALL, "a-2", of=(*ALL, "a-2")), "", {*ALL})
    assert told == [("ready", "a-2", {})]
    assert compare(seen, members(*ALL), "", {*ALL})[1] == [("unready", "a-2", {})]


def test_a_voter_that_was_not_ready_does_not_stand_in_for_one_that_stopped() -> None:
    seen, _ = compare(None, members("m-1", "m-2", "a-1"), "", {*ALL})
    told = compare(seen, None, "slow", {"m-2", "m-3", "a-1"})[1]
    assert ("quorum-lost", "", {"healthy": 1, "needed": 2}) in told
