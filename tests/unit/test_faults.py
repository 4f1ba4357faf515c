"""Faults: the nodes that words mean, what a fault costs, the helper's operations, and what is listed and healed."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from minicluster import cluster as facade
from minicluster.cli.app import app
from minicluster.cluster import Cluster
from minicluster.engine.protocol import Job, Sandbox
from minicluster.errors import EngineError, MiniclusterError, NodeFailed, NotReady, UsageError
from minicluster.executor import thaw
from minicluster.executor.helper import image as helper_image
from minicluster.model import labels
from minicluster.model.fault import ActiveFault, Fault
from minicluster.model.membership import Member
from minicluster.operations import chaos
from minicluster.plan import faults as planning
from tests.fakes import ExecResult, FakeEngine
from tests.unit.standing import spec_of

SPEC = spec_of("etcd", kv=5)
PICK = random.Random(1)


def voters(count: int, leader: int = 1, down: Sequence[int] = ()) -> dict[str, Member]:
    rows = [Member(f"kv-{i}", i not in down, voter=True, leader=i == leader) for i in range(1, count + 1)]
    return {member.name: member for member in rows}


def boxes(*names: str) -> dict[str, Sandbox]:
    return {name: Sandbox(f"id-{name}", 100 + i, (f"m{i}",)) for i, name in enumerate(names, 1)}


# Words


def test_a_node_and_a_role_are_named() -> None:
    assert planning.select(SPEC, "kv-2", None, PICK) == ["kv-2"]
    assert planning.select(SPEC, "kv", None, PICK) == ["kv-1", "kv-2", "kv-3", "kv-4", "kv-5"]


def test_selectors_follow_the_members() -> None:
    members = voters(5, leader=4)
    assert planning.select(SPEC, "leader", members, PICK) == ["kv-4"]
    assert {planning.select(SPEC, "follower", members, PICK)[0] for _ in range(200)} == {"kv-1", "kv-2", "kv-3", "kv-5"}
    assert {planning.select(SPEC, "voter", members, PICK)[0] for _ in range(200)} == set(members)
    assert {planning.select(SPEC, "kv-any", None, PICK)[0] for _ in range(200)} == set(members)


def test_a_selector_that_no_node_fits() -> None:
    with pytest.raises(UsageError, match="has no leader"):
        planning.select(SPEC, "leader", voters(5, leader=0), PICK)
    with pytest.raises(UsageError, match="not known"):
        planning.select(SPEC, "voter", None, PICK)


def test_an_unknown_word_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'leader'"):
        planning.select(SPEC, "leadr", {}, PICK)
    with pytest.raises(UsageError) as caught:
        planning.select(SPEC, "kv-9", {}, PICK)
    assert caught.value.fix == "Available: kv-1..kv-5."


@pytest.mark.parametrize(("text", "value"), [("100ms", 100), ("1.5s", 1500), ("60s", 60_000)])
def test_a_delay(text: str, value: float) -> None:
    assert planning.milliseconds(text) == value


@pytest.mark.parametrize("text", ["", "-1s", "5", "1h", "ms"])
def test_no_delay(text: str) -> None:
    with pytest.raises(UsageError, match="100ms"):
        planning.milliseconds(text)


@pytest.mark.parametrize("text", ["", "-3", "many", "5%%"])
def test_no_percentage(text: str) -> None:
    with pytest.raises(UsageError, match="10%"):
        planning.percent(text)


@pytest.mark.parametrize(("text", "value"), [("1mbit", 10**6), ("500kbit", 500_000), ("2 Gbit", 2 * 10**9)])
def test_a_rate(text: str, value: int) -> None:
    assert planning.bits(text) == value


@pytest.mark.parametrize("text", ["", "fast", "1mbyte", "-1mbit"])
def test_no_rate(text: str) -> None:
    with pytest.raises(UsageError, match="1mbit"):
        planning.bits(text)


@pytest.mark.parametrize("text", ["64", "x", "-1GiB"])
def test_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="64MiB"):
        planning.size(text)


# Partitions


@pytest.mark.parametrize(
    ("groups", "said"),
    [([["kv-1"]], "two groups"), ([["kv-1"], []], "empty"), ([["kv-1"], ["kv-2", "kv-1"]], "kv-1 is named twice")],
)
def test_no_partition(groups: list[list[str]], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        planning.partition(groups)


@pytest.mark.parametrize(
    ("who", "first"),
    [
        ("leader", ["kv-3"]),
        ("kv-2", ["kv-2"]),
        ("minority", ["kv-1", "kv-3"]),
        ("majority", ["kv-1", "kv-2", "kv-3"]),
    ],
)
def test_isolated(who: str, first: list[str]) -> None:
    groups = planning.isolated(SPEC, who, voters(5, leader=3), PICK)
    assert groups[0] == first
    assert sorted(groups[0] + groups[1]) == ["kv-1", "kv-2", "kv-3", "kv-4", "kv-5"]


def test_too_few_voters_for_a_minority() -> None:
    with pytest.raises(UsageError, match="has 1 voter;"):
        planning.isolated(SPEC, "minority", voters(1), PICK)


def test_each_group_loses_the_packets_of_the_others() -> None:
    fault = planning.partition([["kv-1"], ["kv-2", "kv-3"]])
    found = planning.operations(fault, boxes("kv-1", "kv-2", "kv-3", "kv-4"), SPEC)
    assert found == ["drop 101 1000 m2,m3", "drop 102 1000 m1", "drop 103 1000 m1"]


def test_one_way_only_the_others_lose_packets() -> None:
    fault = planning.partition([["kv-1"], ["kv-2"], ["kv-3"]], one_way=True)
    assert planning.operations(fault, boxes("kv-1", "kv-2", "kv-3"), SPEC) == ["drop 102 1000 m1", "drop 103 1000 m1"]
    assert fault.cut("kv-1", "kv-2")
    assert not fault.cut("kv-2", "kv-1")
    assert not fault.cut("kv-2", "kv-3")


def test_clients_are_whoever_is_no_node() -> None:
    fault = planning.partition([["kv-1"], ["kv-2"]], clients=True)
    assert planning.operations(fault, boxes("kv-1", "kv-2"), SPEC)[-1] == "strangers 101 m1 m1,m2"


def test_a_node_that_does_not_run_has_no_packets() -> None:
    fault = planning.partition([["kv-1"], ["kv-2", "kv-3"]])
    assert planning.operations(fault, boxes("kv-1", "kv-2"), SPEC) == ["drop 101 1000 m2", "drop 102 1000 m1"]


# Other kinds


@pytest.mark.parametrize(
    ("fault", "operations"),
    [
        (planning.shaped("delay", ["kv-1"], delay=100, jitter=20), ["shape 101 m1 - delay 100ms 20ms"]),
        (planning.shaped("delay", ["kv-1"], ["kv-2"], delay=0.5), ["shape 101 m1 m2 delay 0.5ms"]),
        (planning.shaped("reorder", ["kv-1"], percent=25, delay=10), ["shape 101 m1 - delay 10ms reorder 25%"]),
        (planning.shaped("loss", ["kv-1"], percent=10), ["lose 101 100 m1"]),
        (planning.shaped("loss", ["kv-1"], ["kv-2"], percent=0.5), ["drop 102 5 m1"]),
        (planning.simple("rate", ["kv-1"], "1mbit", rate=10**6), ["rate 101 m1 1000000"]),
        (planning.simple("rate", ["kv-1"], "", rate=1e7), ["rate 101 m1 10000000"]),  # the helper counts in integers
        (planning.simple("dns", ["kv-1", "kv-2"]), ["dns 101", "dns 102"]),
        (planning.simple("hang", ["kv-2"], "etcd", process="etcd"), ["hang 102 etcd"]),
        (planning.simple("kill", ["kv-2"], "etcd", process="etcd"), ["kill 102 etcd"]),
        (planning.simple("cpu", ["kv-1"], "20%", percent=20), ["cpu 101 id-kv-1 200 0"]),
        (planning.simple("memory", ["kv-1"], "64MiB", memory=64 << 20), ["memory 101 id-kv-1 67108864 0"]),
    ],
)
def test_operations(fault: Fault, operations: list[str]) -> None:
    assert planning.operations(fault, boxes("kv-1", "kv-2"), SPEC) == operations


def test_limits_that_the_engine_gave_a_node_are_restored() -> None:
    limited = {"kv-1": Sandbox("id", 101, ("m1", "m2"), 256 << 20, 0.125), "kv-2": Sandbox("other", 102, ())}
    assert planning.sweep(limited) == ["sweep 101 m1,m2 id 125 268435456", "sweep 102 - other 0 0"]
    cpu, memory = planning.simple("cpu", ["kv-1"], percent=1.5), planning.simple("memory", ["kv-1"], memory=64 << 20)
    assert planning.operations(cpu, limited, SPEC) == ["cpu 101 id 15 125"]
    assert planning.operations(memory, limited, SPEC) == ["memory 101 id 67108864 268435456"]


def test_the_text_is_a_command() -> None:
    assert planning.shaped("delay", ["kv-1"], ["kv-2"], delay=100, jitter=20).text == (
        "delay kv-1 100ms --jitter 20ms --to kv-2"
    )
    assert planning.partition([["kv-1"], ["kv-2", "kv-3"]], one_way=True).text == "partition kv-1 / kv-2 kv-3 --one-way"


def test_a_node_does_not_send_to_itself() -> None:
    with pytest.raises(UsageError, match="--to kv-1"):
        planning.shaped("loss", ["kv-1"], ["kv-1"], percent=1)


@pytest.mark.parametrize(
    "fault",
    [
        planning.partition([["kv-1"], ["kv-2"]], one_way=True, clients=True),
        planning.lasting(planning.shaped("reorder", ["kv-1"], ["kv-2"], percent=25, delay=10), 30),
        planning.simple("memory", ["kv-1"], "64MiB", memory=64 << 20),
    ],
)
def test_the_label_holds_the_whole_fault(fault: Fault) -> None:
    active = ActiveFault("3", fault, 12.5, {"kv-1": 7})
    assert ActiveFault.parse(active.dump()) == active


@pytest.mark.parametrize("text", ["", "{}", '{"id": "1", "since": 0, "processes": {}, "fault": {"what": 1}}'])
def test_no_label(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        ActiveFault.parse(text)


# Cost


def in_force(*faults: Fault) -> list[ActiveFault]:
    return [ActiveFault(str(i), fault, 0.0) for i, fault in enumerate(faults, 1)]


def test_a_minority_costs_no_quorum() -> None:
    said, lost = planning.cost(planning.partition([["kv-1"], ["kv-2", "kv-3"]]), [], voters(3))
    assert (said, lost) == ("leaves 2 of 3 voters together (kv-2, kv-3): writes go on", False)


def test_three_groups_of_one_lose_the_quorum() -> None:
    said, lost = planning.cost(planning.partition([["kv-1"], ["kv-2"], ["kv-3"]]), [], voters(3))
    assert lost
    assert said == "leaves 1 of 3 voters together, 2 needed: writes stop until healed"


def test_faults_in_force_count() -> None:
    cut = planning.partition([["kv-1"], ["kv-2", "kv-3"]])
    hang = planning.simple("hang", ["kv-2"], "etcd", process="etcd")
    assert not planning.cost(hang, [], voters(3))[1]
    assert planning.cost(hang, in_force(cut), voters(3))[1]


def test_a_node_between_two_groups_keeps_a_quorum() -> None:
    """Whoever is in no group reaches all: kv-1 may lead kv-1, kv-2 and kv-3."""
    said, lost = planning.cost(planning.partition([["kv-2"], ["kv-3"]]), [], voters(3))
    assert not lost
    assert "2 of 3" not in said


def test_one_way_is_no_way_to_vote() -> None:
    assert planning.cost(planning.partition([["kv-1"], ["kv-2", "kv-3"]], one_way=True), [], voters(3, down=[3]))[1]


def test_a_quorum_that_is_lost_already_is_not_lost_again() -> None:
    _said, lost = planning.cost(planning.partition([["kv-1"], ["kv-2"]]), [], voters(3, down=[2, 3]))
    assert not lost


@pytest.mark.parametrize(
    ("one", "other", "refused"),
    [
        (planning.shaped("delay", ["kv-1"], delay=5), planning.shaped("reorder", ["kv-1"], percent=5, delay=5), True),
        (planning.shaped("delay", ["kv-1"], delay=5), planning.shaped("delay", ["kv-2"], delay=5), False),
        (planning.shaped("delay", ["kv-1"], delay=5), planning.simple("rate", ["kv-1"], rate=10**6), False),
        (planning.shaped("loss", ["kv-1"], percent=5), planning.shaped("loss", ["kv-1"], percent=6), False),
        (planning.partition([["kv-1"], ["kv-2"]]), planning.partition([["kv-1"], ["kv-2"]]), True),
        (planning.partition([["kv-1"], ["kv-2"]]), planning.partition([["kv-1"], ["kv-3"]]), False),
        (
            planning.simple("hang", ["kv-1"], "a", process="a"),
            planning.simple("hang", ["kv-1"], "b", process="b"),
            False,
        ),
    ],
)
def test_contradictions(one: Fault, other: Fault, refused: bool) -> None:
    if not refused:
        planning.refuse_conflict(other, in_force(one), "e")
        return
    with pytest.raises(UsageError, match="minicluster heal 1 -c e"):
        planning.refuse_conflict(other, in_force(one), "e")


# On an engine


@pytest.fixture
def etcd(engine: FakeEngine) -> Cluster:
    made = Cluster.up("etcd", name="e", engine=engine)
    rows = [{"name": f"kv-{i}", "ready": True, "voter": True, "leader": i == 2} for i in (1, 2, 3)]
    assert made.spec.members
    engine.answers[" ".join(made.spec.members.run)] = ExecResult(0, "\n".join(map(json.dumps, rows)), "")
    return made


def helpers(engine: FakeEngine) -> list[str]:
    return [name for name, box in engine.boxes.items() if labels.FAULT in box.container.labels]


def test_a_fault_is_a_container_until_it_is_healed(engine: FakeEngine, etcd: Cluster) -> None:
    with etcd.partition("leader", ["kv-1", "kv-3"]) as fault:
        assert fault.groups == (("kv-2",), ("kv-1", "kv-3"))
        assert helpers(engine) == ["e-fault.1"]
        (found,) = etcd.faults()
        assert (found.id, found.text, found.lost) == ("1", "partition kv-2 / kv-1 kv-3", ())
        assert etcd.status(memory=False).faults == (found,)
    assert helpers(engine) == []
    assert etcd.faults() == ()


def test_a_fault_is_healed_whatever_happens(engine: FakeEngine, etcd: Cluster) -> None:
    with pytest.raises(ZeroDivisionError), etcd.fault.dns("kv"):
        raise ZeroDivisionError
    assert helpers(engine) == []


def test_a_fault_heals_itself_alone(engine: FakeEngine, etcd: Cluster) -> None:
    """Its number is used again once it has ended."""
    with etcd.fault.loss("kv-1", 10) as loss:
        loss.heal()
        cut = etcd.partition("kv-1", ["kv-2", "kv-3"])
        assert cut.id == loss.id
    assert [fault.text for fault in etcd.faults()] == ["partition kv-1 / kv-2 kv-3"]
    cut.heal()
    assert helpers(engine) == []


def test_a_fault_whose_time_was_over_heals_none_of_another_process(engine: FakeEngine, etcd: Cluster) -> None:
    with etcd.fault.loss("kv-1", 10, seconds=30):
        engine.end_job("e-fault.1")  # by itself
        Cluster.open("e", engine=engine).fault.dns("kv-2")
    assert [fault.text for fault in etcd.faults()] == ["dns kv-2"]


def test_a_helper_is_no_node(engine: FakeEngine, etcd: Cluster) -> None:
    etcd.fault.loss("kv-1", 10)
    assert [(c.nodes, c.running, c.phase) for c in facade.clusters(engine)] == [(3, 3, "running")]
    status = etcd.status(memory=False)
    assert (status.phase, status.notes) == ("ready", ())
    assert not facade.Cluster.up("etcd", name="e", engine=engine).change.changed  # type: ignore[union-attr]
    assert helpers(engine) == ["e-fault.1"]


def test_a_restarted_node_is_told(engine: FakeEngine, etcd: Cluster) -> None:
    etcd.fault.loss("kv", 10)
    etcd.restart("kv-3")
    assert etcd.faults()[0].lost == ("kv-3",)


@pytest.mark.parametrize("remove", [Cluster.down, Cluster.heal, Cluster.reset])
def test_nothing_outlives_the_cluster(engine: FakeEngine, etcd: Cluster, remove: Callable[[Cluster], object]) -> None:
    etcd.fault.dns("kv")
    etcd.fault.loss("kv-1", 5)
    assert len(helpers(engine)) == 2
    remove(etcd)
    assert helpers(engine) == []
    assert remove is not Cluster.down or engine.empty()


def test_what_cannot_be_applied_leaves_nothing(engine: FakeEngine, etcd: Cluster) -> None:
    engine.helper_says = "failed: Error: Specified qdisc kind is unknown."
    with pytest.raises(NodeFailed, match="sch_netem"):
        etcd.fault.delay("kv-1", 100)
    assert helpers(engine) == []


def test_a_node_that_does_not_run_is_refused(engine: FakeEngine, etcd: Cluster) -> None:
    etcd.stop("kv-1")
    with pytest.raises(UsageError, match="kv-1 is not running"):
        etcd.fault.dns("kv-1")
    assert helpers(engine) == []


@pytest.mark.parametrize(
    "inject",
    [
        lambda c: c.fault.hang("kv-1", ""),
        lambda c: c.fault.hang("kv-1", "a b"),
        lambda c: c.fault.kill("kv-1", "e*"),
        lambda c: c.fault.loss("kv-1", 0.01),
        lambda c: c.fault.delay("kv-1", -5),
        lambda c: c.fault.rate("kv-1", 0),
        lambda c: c.fault.memory("kv-1", 0),
        lambda c: c.fault.delay("kv-1", 10, jitter=20),
        lambda c: c.fault.delay("kv-1", float("nan")),
        lambda c: c.fault.cpu("kv-1", float("nan")),
        lambda c: c.fault.dns("kv-1", seconds=-5),
        lambda c: c.partition("kv-1", "kv-2", seconds=float("nan")),
        lambda c: c.fault.isolate("kv-1", seconds=float("inf")),
    ],
)
def test_python_refuses_nonsense_too(engine: FakeEngine, etcd: Cluster, inject: Callable[[Cluster], object]) -> None:
    with pytest.raises(UsageError):
        inject(etcd)
    assert helpers(engine) == []


def test_a_helper_whose_label_cannot_be_read_is_no_obstacle(engine: FakeEngine, etcd: Cluster) -> None:
    about = {labels.CLUSTER: "e", labels.PROFILE: "etcd", labels.FAULT: ""}
    engine.create_job(Job("e-fault.4", helper_image().ref, ("fault",), {}, {}, (), about, on_containers=True))
    with etcd.fault.dns("kv-1") as fault:
        assert fault.id == "5"
        etcd.heal()
    assert helpers(engine) == []


def test_chaos_undoes_only_what_it_did(engine: FakeEngine, etcd: Cluster) -> None:
    etcd.stop("kv-3")
    etcd.fault.loss("kv-1", 5)
    for _ in chaos.chaos(engine, etcd.spec, seconds=60, every=2, kinds=["kill"], nodes=["kv-2"], seed=1):
        break
    states = {c.labels[labels.NODE]: c.state for c in engine.containers("e") if labels.NODE in c.labels}
    assert states == {"kv-1": "running", "kv-2": "running", "kv-3": "exited"}
    assert helpers(engine) == ["e-fault.1"]


def test_heal_of_an_unknown_fault(etcd: Cluster) -> None:
    etcd.fault.dns("kv-1")
    with pytest.raises(UsageError, match="In force: 1"):
        etcd.heal("7")


def run(*argv: str) -> Result:
    return CliRunner().invoke(app, [*argv], catch_exceptions=False)


@pytest.mark.usefixtures("etcd")
def test_commands(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda *_a, **_k: engine)
    done = run("fault", "partition", "kv-1/kv-2", "kv-3")
    assert done.exit_code == 0, done.output
    assert "writes go on" in done.stderr
    assert "Fault 1 of cluster e: partition kv-1 / kv-2 kv-3, until `minicluster heal 1 -c e`." in done.stdout
    assert "partition kv-1 / kv-2 kv-3" in run("fault", "list").stdout
    done = run("fault", "hang", "kv-2", "etcd")
    assert done.exit_code == 2
    assert "--force" in done.output
    assert run("fault", "hang", "kv-2", "etcd", "--force", "--for", "30s", "-q").exit_code == 0
    assert json.loads(run("fault", "list", "-o", "json").stdout)[1]["until"] is not None
    assert run("heal").stdout.count("Healed") == 2
    assert run("heal", "e").stdout == run("fault", "list", "e").stderr == "No faults in force.\n"
    assert "`minicluster chaos -c e`, if you mean that cluster." in run("chaos", "e").stderr
    assert run("heal").stdout == "No faults in force.\n"


@pytest.mark.usefixtures("etcd")
@pytest.mark.parametrize(
    "argv",
    [
        ["partition"],
        ["partition", "kv-1", "kv-2"],
        ["partition", "/", "kv-1"],
        ["partition", "kv-1 / kv-2", "--isolate", "leader"],
        ["delay", "kv-1", "soon"],
        ["delay", "kv-1", "0ms"],
        ["delay", "kv-1", "61s"],
        ["loss", "kv-1", "0.01%"],
        ["rate", "kv-1", "100gbit"],
        ["memory", "kv-1", "1MiB"],
        ["cpu", "kv-1", "0%"],
        ["delay", "kv-1", "10ms", "--jitter", "20ms"],
        ["loss", "kv-1", "200%"],
        ["rate", "kv-1", "-1"],
        ["hang", "kv-1", ""],
        ["kill", "kv-1", "etcd", "--for", "5s"],
        ["memory", "kv-1", "0"],
        ["dns", "kv-9"],
        ["dns", "kv-1", "--for", "never"],
    ],
)
def test_nonsense_is_refused(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, argv: list[str]) -> None:
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda *_a, **_k: engine)
    done = run("fault", *argv)
    assert done.exit_code == 2
    assert "Error: " in done.stderr
    assert helpers(engine) == []


def test_a_function_of_the_status_is_waited_for(engine: FakeEngine, etcd: Cluster) -> None:
    assert etcd.wait_for(lambda status: status.quorum and status.quorum.leader == "kv-2").phase == "ready"
    with pytest.raises(NotReady, match="not yet"):
        etcd.wait_for(lambda status: status.quorum and status.quorum.leader == "kv-1", timeout=0.2)


# Chaos


def test_chaos_is_repeatable_and_ends_healed(
    engine: FakeEngine, etcd: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chaos, "SHORTEST", 0.1)

    def rounds(seed: int) -> list[tuple[str, str]]:
        found = chaos.chaos(engine, etcd.spec, seconds=0.6, every=0.2, kinds=["kill", "partition", "loss"], seed=seed)
        return [(one.kind, one.node) for one in found]

    assert rounds(3) == rounds(3)
    assert len(rounds(4)) == 3
    assert helpers(engine) == []
    assert {c.state for c in engine.containers("e")} == {"running"}


def test_chaos_beside_a_block(engine: FakeEngine, etcd: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "chaos.jsonl"
    told: list[int] = []
    with etcd.chaos("kv-1", every=600, kinds=["partition"], seed=3, log=log) as run:
        run.done = lambda run: told.append(len(run.rounds))
        end = time.monotonic() + 30
        while not helpers(engine):
            assert time.monotonic() < end, "nothing is in force"
            time.sleep(0.01)
    assert helpers(engine) == []  # it ends with the block, not at the end of its time
    assert told == [1]
    assert [json.loads(line)["node"] for line in log.read_text().splitlines()] == ["kv-1"]
    assert (run.summary.seed, run.summary.cluster) == (3, "e")
    with pytest.raises(UsageError, match="unknown fault 'flood'"):
        etcd.chaos(kinds=["flood"])
    with pytest.raises(ZeroDivisionError), etcd.chaos(every=2):
        raise ZeroDivisionError
    assert helpers(engine) == []


def test_a_log_of_chaos_that_cannot_be_written_is_an_error(engine: FakeEngine, etcd: Cluster, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), etcd.chaos(every=2, log=tmp_path / "none" / "log") as run:
        run._thread.join()
    assert helpers(engine) == []


def test_chaos_starts_a_node_at_the_end_that_could_not_be_started_before(engine: FakeEngine, etcd: Cluster) -> None:
    engine.fail("start_container", EngineError("cannot start container", "busy"), match="e-kv-1")
    with etcd.chaos("kv-1", every=600, kinds=["kill"]) as run:
        while engine.boxes["e-kv-1"].container.alive:
            time.sleep(0.01)
    assert [one.error for one in run.rounds] == ["cannot start container"]
    assert engine.boxes["e-kv-1"].container.alive


def test_a_write_that_waits_long_is_a_gap_too(engine: FakeEngine, etcd: Cluster) -> None:
    """It succeeds in the end: nothing was written meanwhile all the same."""
    watch = chaos._Watch(engine, etcd.spec)
    waited = threading.Event()

    def wait() -> None:
        time.sleep(0.4)
        waited.set()

    engine.fail("exec", wait, nth=2, match="minicluster/write")
    watch.begin()
    assert waited.wait(30)
    watch.ended.wait(0.3)
    watch.end()
    assert watch.gap >= 0.4


def test_chaos_that_is_stopped_leaves_nothing(engine: FakeEngine, etcd: Cluster) -> None:
    for _ in chaos.chaos(engine, etcd.spec, seconds=60, every=2, kinds=["kill"], seed=1):
        break
    assert {c.state for c in engine.containers("e")} == {"running"}


def test_chaos_keeps_the_quorum(engine: FakeEngine, etcd: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaos, "SHORTEST", 0.1)
    rows = [{"name": f"kv-{i}", "ready": i != 3, "voter": True, "leader": i == 2} for i in (1, 2, 3)]
    assert etcd.spec.members
    engine.answers[" ".join(etcd.spec.members.run)] = ExecResult(0, "\n".join(map(json.dumps, rows)), "")
    (one,) = chaos.chaos(
        engine, etcd.spec, seconds=0.2, every=0.2, kinds=["kill"], nodes=["kv-1"], keep_quorum=True, seed=1
    )
    assert one.error == "skipped: the quorum would be lost"
    assert {c.state for c in engine.containers("e")} == {"running"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kinds": ["flood"]}, "unknown fault 'flood'"),
        ({"kinds": []}, "needs a kind"),
        ({"every": 1.0}, "every 1 s"),
        ({"seconds": 3.0}, "for 3 s"),
        ({"every": float("nan")}, "every nan s"),
        ({"seconds": float("nan")}, "for nan s"),
    ],
)
def test_nonsense_chaos(engine: FakeEngine, etcd: Cluster, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        next(chaos.chaos(engine, etcd.spec, **{"seconds": 60.0, "every": 10.0, **given}))


# Disks


@pytest.fixture
def with_disks(engine: FakeEngine) -> Cluster:
    return Cluster.up("etcd", name="d", size={"kv": 1}, disk={"kv": "64MiB"}, engine=engine)


def test_a_file_system_is_a_file_on_a_volume_and_a_device(engine: FakeEngine, with_disks: Cluster) -> None:
    names = {"d-kv-1-var-lib-etcd", "d-kv-1-var-lib-etcd_disk"}
    assert names < set(engine.vols)
    assert engine.vols["d-kv-1-var-lib-etcd_disk"].labels[labels.DISK] == str(64 << 20)
    assert engine.devices == {"d-kv-1-var-lib-etcd": "/dev/minicluster-d-kv-1-var-lib-etcd_disk"}
    (job,) = engine.jobs
    assert job.command == ("disk", "attach", f"d-kv-1-var-lib-etcd_disk={64 << 20}")
    assert job.volumes == {"/disks/d-kv-1-var-lib-etcd_disk": "d-kv-1-var-lib-etcd_disk"}
    assert not Cluster.up(name="d", engine=engine).change.changed  # type: ignore[union-attr]
    with_disks.down()
    assert engine.jobs[-1].command == ("disk", "detach", "d-kv-1-var-lib-etcd_disk")
    assert engine.empty()


def test_a_node_that_is_started_has_its_device(engine: FakeEngine, with_disks: Cluster) -> None:
    """After the machine restarted it has none."""
    with_disks.stop()
    engine.jobs.clear()
    with_disks.start()
    assert [job.command[:2] for job in engine.jobs] == [("disk", "attach")]
    with_disks.stop()
    engine.jobs.clear()
    Cluster.up(name="d", engine=engine)
    assert [job.command[:2] for job in engine.jobs][-1:] == [("disk", "attach")]


def test_a_disk_that_cannot_be_made_leaves_nothing(engine: FakeEngine) -> None:
    engine.helper_says = "failed: it has no loop devices (/dev/loop-control)"
    with pytest.raises(MiniclusterError, match="cannot make file systems for nodes") as caught:
        Cluster.up("etcd", name="d", disk={"kv": "64MiB"}, engine=engine)
    assert "no loop devices" in caught.value.why
    assert engine.empty()


def test_a_cluster_without_its_helper_is_removed_all_the_same(engine: FakeEngine, with_disks: Cluster) -> None:
    engine.helper_says = "failed: no"
    with_disks.down()
    assert engine.empty()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"disk": {"kv": "1MiB"}}, "--disk kv=1MiB"),
        ({"disk": {"kv": "much"}}, "--disk kv=much"),
        ({"disk": {"kv": "-1GiB"}}, "--disk kv=-1GiB"),
        ({"disk": {"kw": "1GiB"}}, "--disk kw=1GiB: unknown key 'kw' in roles"),
        ({"disk": {"kv": "1GiB"}, "restart": "always"}, "--restart always"),
        ({"profile": "mesos", "disk": {"scheduler": "1GiB"}}, "--disk scheduler"),
    ],
)
def test_no_disk(engine: FakeEngine, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        Cluster.up(options.pop("profile", "etcd"), name="d", engine=engine, **options)
    assert said in caught.value.what
    assert engine.empty()


def test_data_are_not_moved_to_a_disk(engine: FakeEngine, etcd: Cluster, with_disks: Cluster) -> None:
    with pytest.raises(UsageError, match="--disk kv: kv-1 exists, and has no file system of its own"):
        Cluster.up(name="e", disk={"kv": "1GiB"}, engine=engine)
    with pytest.raises(UsageError, match="--disk kv: kv-1 exists, and has one of 64 MiB"):
        Cluster.up(name="d", disk={"kv": "1GiB"}, engine=engine)
    grown = Cluster.up(name="d", size={"kv": 3}, engine=engine)  # new nodes have one too
    assert [node.disks for node in grown.spec.nodes] == [{"/var/lib/etcd": 64 << 20}] * 3
    assert etcd.status(memory=False).phase == with_disks.status(memory=False).phase


def test_only_a_disk_of_its_own_is_filled(engine: FakeEngine, etcd: Cluster, with_disks: Cluster) -> None:
    with pytest.raises(UsageError, match="kv-1 has no file system of its own") as caught:
        etcd.fault.disk_full("kv-1")
    assert "never filled" in caught.value.why
    assert "--disk kv=1GiB" in caught.value.fix
    assert helpers(engine) == []
    with with_disks.fault.disk_full("kv-1"):
        operation = engine.jobs[-1].command[2]
        assert re.fullmatch(r"fill [0-9]+ /var/lib/etcd d-kv-1-var-lib-etcd_disk", operation)
        with_disks.restart("kv-1")
        assert with_disks.faults()[0].lost == ()  # the file system is as full as before
        with pytest.raises(UsageError, match="fault of this kind"):
            with_disks.fault.disk_full("kv")
    with_disks.fault.disk_full("kv")
    with_disks.heal()
    assert [job.command[:2] for job in engine.jobs][-1] == ("disk", "clear")  # also where the node has ended by it


def test_a_full_disk_costs_a_voter() -> None:
    full = planning.simple("disk-full", ["kv-1", "kv-2"])
    assert planning.cost(full, [], voters(3)) == (
        "leaves 1 of 3 voters together, 2 needed: writes stop until healed", True,
    )  # fmt: skip


# Paused nodes


def test_a_paused_node_that_the_engine_cannot_resume_is_thawed(
    engine: FakeEngine, etcd: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thaw, "PATIENCE", 0.05)
    etcd.node("kv-1").pause()
    thawed = threading.Event()

    def thaws() -> list[Job]:  # of a slow machine some for other nodes, too
        return [job for job in engine.jobs if "freezer.state" in " ".join(job.command)]

    def hang() -> None:
        while not thaws():
            time.sleep(0.01)
        thawed.set()

    engine.fail("remove_container", hang, match="e-kv-1")
    etcd.down()
    assert thawed.is_set()
    assert all(job.on_containers for job in thaws())
    assert engine.empty()


def test_a_node_has_its_own_time_to_stop(engine: FakeEngine, etcd: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thaw, "PATIENCE", 0.0)
    monkeypatch.setattr(thaw, "STOP_PATIENCE", 0.0)
    with thaw.thawing(engine, "e-kv-1", stops=600, ends=True):
        time.sleep(0.1)
    assert engine.jobs == []


def test_what_thaws_a_node_is_over_before_its_next_change(
    engine: FakeEngine, etcd: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    creating, over = threading.Event(), threading.Event()

    def late() -> None:
        creating.set()
        over.wait(10)

    engine.fail("create_container", late)
    with monkeypatch.context() as patched, ThreadPoolExecutor(1) as pool:
        patched.setattr(thaw, "PATIENCE", 0.05)

        def change() -> list[str]:
            with thaw.thawing(engine, "e-kv-1"):
                assert creating.wait(10)
                patched.setattr(thaw, "PATIENCE", 10.0)
            return helpers(engine)

        changed = pool.submit(change)
        assert creating.wait(10)
        with pytest.raises(TimeoutError):
            changed.result(timeout=0.2)
        over.set()
        assert changed.result() == []
    assert len(engine.jobs) == 1


def test_a_fault_that_is_applied_during_a_removal_does_not_outlive_the_cluster(
    engine: FakeEngine, etcd: Cluster
) -> None:
    """The helper is created after the removal has looked, and sees a record."""
    seen: list[str] = []

    def applied() -> None:
        etcd.partition("kv-1", ["kv-2", "kv-3"])
        seen.extend(helpers(engine))

    engine.fail("disconnect_network", applied)
    etcd.down()
    assert seen == ["e-fault.1"]
    assert helpers(engine) == []
    assert engine.empty()


def test_a_node_that_does_not_end_even_then_is_killed(
    engine: FakeEngine, etcd: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thaw, "PATIENCE", 0.05)

    def hang() -> None:
        while not any(job.command[-1] == "end" for job in engine.jobs):
            time.sleep(0.01)

    engine.fail("kill_container", hang, match="e-kv-1")
    etcd.kill("kv-1")
    assert [job.command[-3:] for job in engine.jobs] == [("THAWED", "0", ""), ("THAWED", "0", "end")]


def test_a_node_that_was_thawed_behind_the_engines_back_is_resumed(engine: FakeEngine, etcd: Cluster) -> None:
    etcd.node("kv-1").pause()
    engine.fail("start_container", EngineError("cannot start container", "container not paused"), match="e-kv-1")
    etcd.node("kv-1").unpause()
    assert [job.command[-3:] for job in engine.jobs] == [("FROZEN", "1", "")]
    assert etcd.node("kv-1").status().phase == "running"
