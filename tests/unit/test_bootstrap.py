"""Nodes that bootstrap a cluster together, nodes that join it, and voters that must not be away at the same time."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest

from minicluster.cluster import Cluster
from minicluster.engine.protocol import ExecResult
from minicluster.errors import EngineError, MiniclusterError, UsageError
from minicluster.model.codec import node_hash
from minicluster.model.spec import FileSpec, ImageSpec, Overrides, Spec
from minicluster.plan.observed import Observed
from minicluster.plan.reconcile import reconcile
from minicluster.plan.steps import Plan, PutFiles, RemoveContainer, RunHook, UpdateContainer, WaitMembers
from tests.fakes import FakeEngine, FakeEtcd
from tests.unit.standing import AUTHORITY, record, spec_of, standing, without

FRESH = Observed("c", authority=AUTHORITY)
NOTHING = record(None, 0)
BOOTSTRAP = FakeEtcd.BOOTSTRAP


@cache  # a spec is never changed
def _etcd(kv: int) -> Spec:
    return spec_of("etcd", kv=kv)


def etcd(kv: int = 3, previous: Spec | None = None) -> Spec:
    return spec_of("etcd", previous=previous, kv=kv) if previous else _etcd(kv)


def hooks(plan: Plan) -> dict[str, RunHook]:
    return {step.id: step.action for step in plan.steps if isinstance(step.action, RunHook)}


def farewells(plan: Plan) -> list[tuple[str, str, bool]]:
    """Who is taken off the members' list by whom, and whether that may fail."""
    told = [(s.node, s.action) for s in plan.steps if isinstance(s.action, RunHook)]
    return [(node, hook.container, hook.best_effort) for node, hook in told if hook.command[0] == "etcd-remove"]


def removed(plan: Plan) -> list[str]:
    """The containers that go, in the order of the plan."""
    return [step.node for step in plan.steps if isinstance(step.action, RemoveContainer)]


def bootstrap_nodes(plan: Plan) -> list[str]:
    """The nodes that get the bootstrap file."""
    put = {s.node: {f.path for f in s.action.files} for s in plan.steps if isinstance(s.action, PutFiles)}
    return [node for node, paths in put.items() if BOOTSTRAP in paths]


def before(plan: Plan) -> dict[str, set[str]]:
    """Step -> all that are done before it begins."""
    result: dict[str, set[str]] = {}
    for step in plan.steps:
        result[step.id] = set(step.needs).union(*(result[need] for need in step.needs))
    return result


# Which nodes bootstrap, and which join


def test_all_nodes_of_a_first_up_found_the_cluster_at_once_and_none_is_joined() -> None:
    plan = reconcile(etcd(), FRESH)
    assert bootstrap_nodes(plan) == ["kv-1", "kv-2", "kv-3"]
    assert hooks(plan) == {}
    done_before = before(plan)
    for node in ("kv-1", "kv-2", "kv-3"):  # no initial member waits for another
        others = {id for id in done_before[f"start {node}"] if id.startswith("start ")}
        assert others == set()


def test_every_initial_member_gets_the_list_of_all() -> None:
    (file,) = [f for f in etcd().nodes[1].files if f.bootstrap]
    (line,) = [line for line in file.content.splitlines() if line.startswith("ETCD_INITIAL_CLUSTER=")]
    assert line == (
        "ETCD_INITIAL_CLUSTER=kv-1=https://172.28.0.2:2380,kv-2=https://172.28.0.3:2380,kv-3=https://172.28.0.4:2380"
    )


def test_nodes_that_come_later_are_joined_at_once_and_found_nothing() -> None:
    old = etcd()
    plan = reconcile(etcd(5, old), standing(old))
    assert bootstrap_nodes(plan) == []
    assert {id: hook.command for id, hook in hooks(plan).items()} == {
        "join kv-4 1": ("etcd-join", "172.28.0.2"),
        "join kv-5 1": ("etcd-join", "172.28.0.2"),
    }
    assert "join kv-4 1" not in before(plan)["join kv-5 1"]
    assert {"ready kv-5", "start kv-5"} <= before(plan)["join kv-5 1"]


@pytest.mark.parametrize("volumes", [False, True])
def test_a_node_that_is_recreated_does_not_bootstrap(volumes: bool) -> None:
    spec = etcd()
    plan = reconcile(spec, without(standing(spec), "kv-1", volumes=volumes))
    assert bootstrap_nodes(plan) == []
    assert list(hooks(plan)) == (["join kv-1 1"] if volumes else [])


def test_a_member_that_works_is_the_one_that_others_join() -> None:
    spec = etcd()
    plan = reconcile(spec, without(standing(spec, kv_2="exited"), "kv-1", volumes=True))
    assert hooks(plan)["join kv-1 1"].command == ("etcd-join", "172.28.0.4")


def test_the_bootstrap_file_is_written_until_the_first_up_is_complete() -> None:
    spec = etcd()
    cut_short = replace(standing(spec, members=None, kv_3="created"), records=(NOTHING, record(spec)))
    assert bootstrap_nodes(reconcile(spec, cut_short)) == ["kv-3"]
    assert bootstrap_nodes(reconcile(spec, without(standing(spec), "kv-3"))) == []


def test_an_interrupted_first_up_is_completed() -> None:
    spec = etcd()
    cut_short = replace(standing(spec, members=None, kv_3="created"), records=(NOTHING, record(spec)))
    plan = reconcile(spec, cut_short)
    assert {step.node for step in plan.steps if step.node} == {"kv-3"}
    assert hooks(plan) == {}


@pytest.mark.parametrize("size", [1, 5])
def test_a_first_up_of_another_size_begins_afresh_data_included(size: int) -> None:
    old = etcd()
    cut_short = replace(standing(old, members=None), records=(NOTHING, record(old)))
    plan = reconcile(etcd(size, old), cut_short)
    steps = {step.id for step in plan.steps}
    assert bootstrap_nodes(plan) == [f"kv-{i}" for i in range(1, size + 1)]
    assert set(removed(plan)) == {"kv-1", "kv-2", "kv-3"}
    assert {f"remove volume c-kv-{i}-var-lib-etcd" for i in (1, 2, 3)} <= steps
    done_before = before(plan)
    emptied, made = "remove volume c-kv-1-var-lib-etcd", "create volume c-kv-1-var-lib-etcd"
    assert "remove kv-1" in done_before[emptied]
    assert emptied in done_before[made]
    assert made in done_before["create kv-1"]
    assert hooks(plan) == {}


def test_the_bootstrap_file_is_no_part_of_what_a_container_is() -> None:
    three = etcd()
    five = etcd(5, three)
    node = three.nodes[0]
    assert five.nodes[0].files != node.files
    assert node_hash(five, five.nodes[0], "a") == node_hash(three, node, "a")
    other = replace(node, files=(*node.files, FileSpec("/etc/other", "x")))
    assert node_hash(three, other, "a") != node_hash(three, node, "a")
    assert node.bootstraps
    assert not replace(node, files=tuple(f for f in node.files if not f.bootstrap)).bootstraps


# What is changed one node after the other


def rolled(leader: str = "", **states: str) -> Plan:
    """The plan of another image."""
    old = etcd()
    new = replace(etcd(previous=old), images={"node": ImageSpec("node", "other:2", "override")})
    return reconcile(new, standing(old, leader=leader, **states))


@pytest.mark.parametrize(
    ("leader", "state", "order"),
    [
        ("kv-1", {}, ["kv-2", "kv-3", "kv-1"]),
        ("kv-3", {}, ["kv-1", "kv-2", "kv-3"]),
        ("kv-1", {"kv_3": "exited"}, ["kv-3", "kv-2", "kv-1"]),
    ],
    ids=["first leads", "last leads", "one is down"],
)
def test_voters_are_replaced_one_after_the_other_the_leader_last(
    leader: str, state: dict[str, str], order: list[str]
) -> None:
    plan = rolled(leader, **state)
    assert removed(plan) == order
    done_before = before(plan)
    for earlier, later in pairwise(order):
        assert f"converged {earlier}" in done_before[f"remove {later}"]
        assert f"ready {earlier}" in done_before[f"converged {earlier}"]
    assert hooks(plan) == {}


def test_the_next_voter_goes_when_all_who_worked_before_work_again() -> None:
    waits = {s.id: s.action.names for s in rolled("kv-1", kv_3="exited").steps if isinstance(s.action, WaitMembers)}
    assert waits["converged kv-3"] == ("kv-1", "kv-2", "kv-3")
    old = etcd()
    swarm = spec_of("swarm", master=3)
    assert old.members
    new = replace(swarm, images={"node": ImageSpec("node", "other:2", "override")})
    plan = reconcile(new, standing(swarm, leader="master-2"))
    assert removed(plan)[-1] == "master-2"  # of all nodes that the software counts, workers included


@pytest.mark.parametrize("members", [None, ("kv-1",)], ids=["no member answers", "a single voter"])
def test_where_one_at_a_time_does_not_help_all_are_replaced_at_once(members: Sequence[str] | None) -> None:
    old = etcd(1 if members else 3)
    new = replace(old, images={"node": ImageSpec("node", "other:2", "override")})
    plan = reconcile(new, standing(old, members=members))
    assert [s.id for s in plan.steps if s.id.startswith("converged")] == []
    done_before = before(plan)
    assert not any(other.startswith("remove ") for node in removed(plan) for other in done_before[f"remove {node}"])


def test_where_the_quorum_is_lost_already_all_are_replaced_at_once() -> None:
    plan = rolled("", kv_2="exited", kv_3="exited")
    assert [s.id for s in plan.steps if s.id.startswith("converged")] == []


def test_another_restart_policy_is_told_to_containers_that_stay() -> None:
    spec = etcd()
    always = replace(spec, overrides=Overrides(restart="always"))
    plan = reconcile(always, standing(spec, kv_2="exited"))
    updates = {s.node: s.action.restart for s in plan.steps if isinstance(s.action, UpdateContainer)}
    assert updates == {"kv-1": "always", "kv-2": "always", "kv-3": "always"}
    assert "update kv-2" in before(plan)["start kv-2"]
    assert removed(plan) == []


def test_a_container_that_is_recreated_has_the_new_restart_policy_from_the_start() -> None:
    spec = etcd()
    plan = reconcile(replace(spec, overrides=Overrides(restart="always")), without(standing(spec), "kv-2"))
    (made,) = [s.action.config for s in plan.steps if s.id == "create kv-2"]  # type: ignore[union-attr]
    assert made.restart == "always"
    assert sorted(s.node for s in plan.steps if isinstance(s.action, UpdateContainer)) == ["kv-1", "kv-3"]


# Who may leave


def leave(size: int, to: int, *, force: bool = False, members: bool = True, **states: str) -> Plan:
    old = etcd(size)
    found = standing(old, leader="kv-1", **states) if members else standing(old, members=None, **states)
    return reconcile(etcd(to, old), found, force=force)


def test_the_dead_leave_first_so_that_they_do_not_count_when_the_next_one_goes() -> None:
    assert removed(leave(3, 1, kv_2="exited")) == ["kv-2", "kv-3"]
    assert removed(leave(5, 3, kv_4="exited")) == ["kv-4", "kv-5"]
    assert removed(leave(5, 3)) == ["kv-5", "kv-4"]


@pytest.mark.parametrize(
    ("size", "to", "dead", "node", "why"),
    [
        (3, 1, ["kv_1"], "kv-3", "Without kv-3 1 of 2 voters would be healthy, and 2 are needed: kv-1 is not ready."),
        (
            5,
            3,
            ["kv_1", "kv_2"],
            "kv-5",
            "Without kv-5 2 of 4 voters would be healthy, and 3 are needed: kv-1, kv-2 are not ready.",
        ),
    ],
)
def test_who_would_take_the_quorum_along_may_not_leave(
    size: int, to: int, dead: list[str], node: str, why: str
) -> None:
    with pytest.raises(MiniclusterError) as caught:
        leave(size, to, **dict.fromkeys(dead, "exited"))
    error = caught.value
    assert error.what == f"removing {node} would lose the quorum of cluster c"
    assert error.why == why
    assert "minicluster up --name c" in error.fix
    assert "--force" in error.fix
    assert error.exit_code == 1


def test_forced_they_leave_all_the_same_and_hooks_that_fail_are_passed_over() -> None:
    plan = leave(3, 1, force=True, kv_1="exited")
    assert removed(plan) == ["kv-3", "kv-2"]
    assert farewells(plan) == [("kv-3", "c-kv-1", True), ("kv-2", "c-kv-1", True)]
    assert "ready kv-1" in before(plan)["leave kv-3 1"]  # the one that stays was stopped
    plan = leave(5, 3, force=True, kv_1="exited", kv_2="exited")
    assert farewells(plan) == [("kv-5", "c-kv-3", True), ("kv-4", "c-kv-3", True)]


def test_a_voter_leaves_only_when_the_others_let_it_go() -> None:
    plan = leave(3, 1)
    assert farewells(plan) == [("kv-3", "c-kv-1", False), ("kv-2", "c-kv-1", False)]
    done_before = before(plan)
    assert {"leave kv-3 1", "leave kv-3 2"} <= done_before["remove kv-3"]
    assert "remove kv-3" in done_before["leave kv-2 1"]


def test_what_a_node_itself_does_before_it_leaves_may_fail_and_is_for_one_that_runs() -> None:
    mine = {id: hook.best_effort for id, hook in hooks(leave(3, 1)).items() if hook.command[0] == "etcd-join"}
    assert mine == {"leave kv-3 1": True, "leave kv-2 1": True}
    assert "leave kv-2 1" not in hooks(leave(3, 1, kv_2="exited"))


def test_of_one_that_is_no_member_yet_the_others_are_told_too_when_a_change_is_undone() -> None:
    old = etcd()
    grown = etcd(5, old)
    half = standing(grown, members=["kv-1", "kv-2", "kv-3", "kv-4"])
    plan = reconcile(old, replace(half, records=(record(old), record(grown, 2))))
    assert farewells(plan) == [("kv-5", "c-kv-1", True), ("kv-4", "c-kv-1", False)]
    assert hooks(plan)["leave kv-5 1"].container == "c-kv-5"


def test_no_node_leaves_unasked() -> None:
    with pytest.raises(MiniclusterError) as caught:
        leave(3, 1, members=False)
    assert caught.value.what == "kv-2, kv-3 cannot leave cluster c now"
    assert "No node reports the cluster's members" in caught.value.why
    with pytest.raises(MiniclusterError, match="cannot leave cluster c now"):  # the one that stays could do nothing
        leave(3, 1, members=False, force=True)


def test_a_voter_whose_container_is_gone_is_struck_off_all_the_same() -> None:
    old = etcd(5)
    found = without(standing(old, leader="kv-1"), "kv-4", "kv-5")
    plan = reconcile(etcd(3, old), found)
    assert {node for node, _on, _ in farewells(plan)} == {"kv-4", "kv-5"}
    assert removed(plan) == []


def test_a_voter_that_stays_and_is_stopped_comes_back_before_another_goes() -> None:
    plan = leave(5, 3, kv_2="exited")
    assert "ready kv-2" in before(plan)["leave kv-5 1"]


def test_one_whose_data_are_lost_is_a_member_again_before_another_is_recreated() -> None:
    old = etcd()
    new = replace(etcd(previous=old), images={"node": ImageSpec("node", "other:2", "override")})
    plan = reconcile(new, without(standing(old, leader="kv-1"), "kv-3", volumes=True))
    assert {"join kv-3 1", "converged kv-3"} <= before(plan)["remove kv-2"]


def test_the_contact_rolls_in_its_turn() -> None:
    old = spec_of("swarm", master=3)
    new = replace(spec_of("swarm", previous=old, master=3), images={"node": ImageSpec("node", "other:2", "override")})
    plan = reconcile(new, standing(old, leader="master-1"))
    order = [node for node in removed(plan) if node.startswith("master")]
    assert order[-1] == "master-1"
    for former, following in pairwise(order):
        assert f"converged {former}" in before(plan)[f"remove {following}"]


def test_a_first_up_that_had_formed_the_cluster_is_not_begun_afresh() -> None:
    three = etcd()
    found = replace(standing(three, leader="kv-1"), records=(NOTHING, record(three)))
    with pytest.raises(MiniclusterError, match="interrupted `up` with other initial members"):
        reconcile(etcd(5, three), found)
    assert reconcile(replace(three, overrides=Overrides(restart="always")), found).steps


def test_of_a_cluster_that_never_was_complete_every_node_may_leave() -> None:
    old = etcd()
    cut_short = replace(standing(old, members=None), records=(NOTHING, record(old)))
    assert set(removed(reconcile(etcd(1, old), cut_short))) == {"kv-1", "kv-2", "kv-3"}


@pytest.mark.parametrize(("dead", "refused"), [("master_1", True), ("master_2", False)])
def test_masters_of_a_swarm_keep_their_quorum_too(dead: str, refused: bool) -> None:
    old = spec_of("swarm", master=3)
    new, found = spec_of("swarm", previous=old, master=1), standing(old, **{dead: "exited"})
    if refused:
        with pytest.raises(MiniclusterError, match="removing master-3 would lose the quorum"):
            reconcile(new, found)
    else:
        assert removed(reconcile(new, found)) == ["master-2", "master-3"]


def test_workers_leave_whatever_the_masters_do() -> None:
    old = spec_of("swarm", master=3, agent=3)
    new = spec_of("swarm", previous=old, master=3, agent=1)
    assert removed(reconcile(new, standing(old, master_1="exited"))) == ["agent-3", "agent-2"]


# Whose data are lost


def test_of_one_voters_data_lost_the_others_make_it_a_new_member() -> None:
    spec = etcd()
    plan = reconcile(spec, without(standing(spec), "kv-3", volumes=True))
    assert list(hooks(plan)) == ["join kv-3 1"]


@pytest.mark.parametrize("lost", [["kv-1", "kv-2"], ["kv-1", "kv-2", "kv-3"]], ids=len)
def test_of_too_many_voters_data_lost_it_is_said_that_nothing_can_be_done(lost: list[str]) -> None:
    spec = etcd()
    with pytest.raises(MiniclusterError) as caught:
        reconcile(spec, without(standing(spec, members=None), *lost, volumes=True))
    assert caught.value.what == f"cluster c has lost the data of {', '.join(lost)}"
    assert f"{3 - len(lost)} of 3 initial members still have their data, and 2 are needed" in caught.value.why
    assert "minicluster down c" in caught.value.fix


def test_who_is_only_stopped_has_lost_nothing() -> None:
    spec = etcd()
    found = without(standing(spec, members=None, kv_1="exited", kv_2="exited"), "kv-3", volumes=True)
    plan = reconcile(spec, found)
    assert {"start kv-1", "start kv-2", "create kv-3", "join kv-3 1"} <= {step.id for step in plan.steps}
    assert removed(reconcile(spec, without(standing(spec, members=None), "kv-1", "kv-2", "kv-3"))) == []


# On an engine


def up(engine: FakeEngine, **options: object) -> Cluster:
    options = {"profile": "etcd", "name": "e", "timeout": 60.0, **options}
    return Cluster.up(engine=engine, **options)  # type: ignore[arg-type]


def names_of(result: ExecResult) -> list[str]:
    return sorted(json.loads(line)["name"] for line in result.stdout.splitlines())


@pytest.mark.parametrize("kv", [1, 3])
def test_etcd_is_founded(engine: FakeEngine, kv: int) -> None:
    cluster = up(engine, size={"kv": kv})
    status = cluster.status()
    assert status.phase == "ready"
    assert status.quorum
    assert status.quorum.voters == kv
    assert all(BOOTSTRAP in box.files for box in engine.boxes.values())
    assert [c for c in engine.did("exec") if "etcd-join" in c] == []


@pytest.mark.parametrize(("start", "end"), [(1, 3), (3, 5), (5, 3), (3, 1)])
def test_etcd_is_scaled(engine: FakeEngine, start: int, end: int) -> None:
    up(engine, size={"kv": start})
    cluster = up(engine, size={"kv": end})
    assert cluster.status().phase == "ready"
    assert names_of(cluster.exec("kv-1", ["etcd-members"])) == [f"kv-{i}" for i in range(1, end + 1)]
    came = [name for name, box in engine.boxes.items() if BOOTSTRAP not in box.files]
    assert sorted(came) == [f"e-kv-{i}" for i in range(start + 1, end + 1)]


@pytest.mark.parametrize("nodes", [["kv-1"], ["kv-2"], ["kv-1", "kv-2", "kv-3"]], ids=" ".join)
def test_members_whose_containers_are_gone_come_back_as_who_they_were(engine: FakeEngine, nodes: list[str]) -> None:
    up(engine)
    for node in nodes:
        engine.remove_container(f"e-{node}")
    cluster = up(engine)
    assert cluster.status().phase == "ready"
    assert not any(BOOTSTRAP in engine.boxes[f"e-{node}"].files for node in nodes)


def test_a_member_whose_data_are_gone_becomes_one_again(engine: FakeEngine) -> None:
    up(engine)
    engine.remove_container("e-kv-1")
    engine.remove_volume("e-kv-1-var-lib-etcd")
    engine.calls.clear()
    assert up(engine).status().phase == "ready"
    assert [c for c in engine.did("exec") if "etcd-join" in c] == ["e-kv-1: etcd-join 172.28.0.3"]


def test_members_too_many_of_whom_lost_their_data_are_left_as_they_are(engine: FakeEngine) -> None:
    cluster = up(engine)
    for node in ("kv-1", "kv-2"):
        engine.remove_container(f"e-{node}")
        engine.remove_volume(f"e-{node}-var-lib-etcd")
    engine.calls.clear()
    with pytest.raises(MiniclusterError, match="has lost the data of kv-1, kv-2"):
        up(engine)
    assert {kind for kind, _about in engine.calls} == {"exec"}
    assert cluster.down().changed
    assert engine.empty()


def test_a_first_up_of_three_that_was_killed_can_become_one_of_one(engine: FakeEngine) -> None:
    for nth in (2, 3):  # two of three would have formed the cluster already
        engine.fail("start_container", EngineError("killed"), nth=nth)
    with pytest.raises(EngineError):
        up(engine, keep=True)
    engine.heal()
    cluster = up(engine, size={"kv": 1})
    assert cluster.status().phase == "ready"
    assert list(engine.boxes) == ["e-kv-1"]


@pytest.mark.parametrize("nth", range(2, 26, 5))
def test_a_first_up_that_was_killed_anywhere_is_finished_by_the_next(engine: FakeEngine, nth: int) -> None:
    engine.fail("", EngineError("killed"), nth=nth)
    with contextlib.suppress(EngineError):  # a quick one needs fewer calls
        up(engine, keep=True)
    engine.heal()
    assert up(engine).status().phase == "ready"


@pytest.mark.parametrize("nth", range(2, 22, 4))
@pytest.mark.parametrize("size", [1, 5])
def test_a_scaling_that_fails_anywhere_goes_back_to_what_was(engine: FakeEngine, size: int, nth: int) -> None:
    before_it = up(engine).spec
    engine.fail("", EngineError("no"), nth=nth)
    try:
        up(engine, size={"kv": size})
    except EngineError as problem:
        error = problem
    else:
        return  # it needed fewer calls
    engine.heal()
    assert error.leftovers == ()
    cluster = Cluster.open("e", engine=engine)
    assert cluster.spec == before_it
    assert cluster.status().phase == "ready"
    assert names_of(cluster.exec("kv-1", ["etcd-members"])) == ["kv-1", "kv-2", "kv-3"]


def test_the_leader_is_asked_to_leave_by_another(engine: FakeEngine) -> None:
    etcd_nodes = FakeEtcd(engine)
    up(engine, size={"kv": 5})
    etcd_nodes.leader["e"] = "kv-5"
    cluster = up(engine, size={"kv": 3})
    assert cluster.status().quorum
    assert sorted(etcd_nodes.members["e"]) == ["kv-1", "kv-2", "kv-3"]


# Immutable settings


def test_a_fixed_setting_cannot_change_once_the_cluster_is_formed(engine: FakeEngine) -> None:
    up(engine)
    engine.calls.clear()
    with pytest.raises(UsageError) as caught:
        up(engine, set={"tls": "false"})
    assert "tls" in caught.value.what
    assert "that cannot change" in caught.value.what
    assert "down" in caught.value.fix
    assert engine.calls == []


def test_a_fixed_setting_may_be_given_again_as_it_is(engine: FakeEngine) -> None:
    up(engine, set={"tls": "false"})
    assert up(engine, set={"tls": "false"}).change.changed is False  # type: ignore[union-attr]
    assert up(engine).change.changed is False  # type: ignore[union-attr]


def test_a_setting_that_is_not_fixed_can_change(engine: FakeEngine) -> None:
    up(engine)
    assert up(engine, set={"heartbeat": "100"}).status().phase == "ready"


def test_a_fixed_setting_can_change_while_nothing_was_ever_complete(engine: FakeEngine) -> None:
    engine.fail("start_container", EngineError("killed"))
    engine.fail("start_container", EngineError("killed"), nth=2)
    with pytest.raises(EngineError):
        up(engine, keep=True)
    engine.heal()
    cluster = up(engine, set={"tls": "false"})
    assert cluster.spec.nodes[0].endpoints[0].url.startswith("http://")
    assert cluster.status().phase == "ready"


def test_a_first_up_that_was_cut_short_twice_begins_afresh() -> None:
    three = etcd()
    one = etcd(1, three)
    found = replace(standing(three, members=None), records=(NOTHING, record(three), record(one, 2)))
    plan = reconcile(one, found)
    assert bootstrap_nodes(plan) == ["kv-1"]
    assert "remove volume c-kv-1-var-lib-etcd" in {step.id for step in plan.steps}


def test_a_voter_goes_only_when_one_that_is_missing_is_back() -> None:
    old = etcd()
    new = replace(etcd(previous=old), images={"node": ImageSpec("node", "other:2", "override")})
    plan = reconcile(new, without(standing(old, leader="kv-1"), "kv-2"))
    assert "ready kv-2" in before(plan)["remove kv-3"]


def test_a_change_that_was_killed_between_two_nodes_takes_no_second_voter_away(engine: FakeEngine) -> None:
    up(engine)
    engine.fail("create_container", EngineError("killed"))
    with contextlib.suppress(EngineError):
        up(engine, keep=True, set={"heartbeat": "60"})
    engine.heal()
    running: list[int] = []
    remove = engine.remove_container

    def seen(name: str) -> None:
        remove(name)
        running.append(sum(c.state == "running" for c in engine.containers("e")))

    engine.remove_container = seen  # type: ignore[method-assign]
    up(engine, set={"heartbeat": "60"})
    assert min(running) == 2


def test_a_fixed_setting_is_shown_as_it_was_written(engine: FakeEngine) -> None:
    up(engine)
    with pytest.raises(UsageError, match=r"^--set tls=false: tls is true in cluster e"):
        up(engine, set={"tls": "false"})
