"""Verbs on nodes that are there: the steps of each, for each state that a node may be found in."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import cache

import pytest

from minicluster.errors import MiniclusterError, NodeFailed
from minicluster.model.membership import Member
from minicluster.model.spec import Spec
from minicluster.plan import lifecycle
from minicluster.plan.observed import Observed
from minicluster.plan.rolling import rolling_restart
from minicluster.plan.steps import Plan, WaitMembers, WaitReady
from tests.unit.standing import spec_of, standing, without

VERBS: dict[str, Callable[..., Plan]] = {
    "stop": lifecycle.stop,
    "start": lifecycle.start,
    "restart": lifecycle.restart,
    "pause": lifecycle.pause,
    "unpause": lifecycle.unpause,
    "kill": lifecycle.kill,
}

#: What each verb does to kv-2 by its state, waits left out. None: a named node is refused, any other passed over.
TABLE: dict[str, dict[str, list[str] | None]] = {
    "stop": {
        "running": ["stop"],
        "paused": ["unpause", "stop"],
        "restarting": ["stop"],
        "exited": [],
    },
    "start": {"running": [], "paused": ["start"], "exited": ["start"]},
    "restart": {
        "running": ["stop", "start"],
        "paused": ["unpause", "stop", "start"],
        "restarting": ["stop", "start"],
        "exited": ["start"],
    },
    "pause": {"running": ["pause"], "paused": [], "exited": None},
    "unpause": {"paused": ["unpause"], "running": [], "exited": None},
    "kill": {"running": ["kill"], "paused": ["kill"], "restarting": ["kill"], "exited": None},
}
CASES = [(verb, state) for verb, states in TABLE.items() for state in states]
verbs = pytest.mark.parametrize("verb", VERBS)
cases = pytest.mark.parametrize(("verb", "state"), CASES, ids=[f"{verb} {state}" for verb, state in CASES])


@cache  # a spec is never changed
def etcd(kv: int = 3) -> Spec:
    return spec_of("etcd", kv=kv)


def done_to(plan: Plan, node: str = "kv-2") -> list[str]:
    """The steps of a node, waits left out."""
    waits = (WaitReady, WaitMembers)
    return [s.id.removesuffix(f" {node}") for s in plan.steps if s.node == node and not isinstance(s.action, waits)]


def ids(plan: Plan) -> list[str]:
    return [step.id for step in plan.steps]


def before(plan: Plan) -> dict[str, set[str]]:
    """Step -> all that are done before it begins."""
    result: dict[str, set[str]] = {}
    for step in plan.steps:
        assert set(step.needs) <= set(result)
        result[step.id] = set(step.needs).union(*(result[need] for need in step.needs))
    return result


def asked(plan: Plan) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Step -> the container that is asked for the members, and which of them have to be ready."""
    return {s.id: (s.action.container, s.action.names) for s in plan.steps if isinstance(s.action, WaitMembers)}


# Each verb in each state


@cases
def test_a_verb_does_to_a_named_node_what_its_state_takes(verb: str, state: str) -> None:
    spec = etcd()
    found = standing(spec, kv_2=state)
    expected = TABLE[verb][state]
    if expected is None:
        with pytest.raises(NodeFailed) as caught:
            VERBS[verb](spec, found, ["kv-2"])
        assert caught.value.what == f"cannot {verb} kv-2"
        assert caught.value.why == f"It is {'stopped' if state == 'exited' else state}."
    else:
        plan = VERBS[verb](spec, found, ["kv-2"])
        assert done_to(plan) == expected
        assert {step.node for step in plan.steps} <= {"kv-2", ""}


@cases
def test_without_names_a_verb_passes_over_the_nodes_that_it_is_not_for(verb: str, state: str) -> None:
    spec = etcd()
    plan = VERBS[verb](spec, standing(spec, kv_2=state), [])
    assert done_to(plan) == (TABLE[verb][state] or [])
    for node in ("kv-1", "kv-3"):
        assert done_to(plan, node) == TABLE[verb].get("running")


@pytest.mark.parametrize("state", ["created", "dead"])
@verbs
def test_a_named_node_that_is_no_whole_container_is_refused(verb: str, state: str) -> None:
    spec = etcd()
    with pytest.raises(NodeFailed, match=f"kv-2 is {state}") as caught:
        VERBS[verb](spec, standing(spec, kv_2=state), ["kv-2"])
    assert "minicluster up --name c" in caught.value.fix


@verbs
def test_a_named_node_that_is_missing_is_refused(verb: str) -> None:
    spec = etcd()
    with pytest.raises(NodeFailed) as caught:
        VERBS[verb](spec, without(standing(spec), "kv-2"), ["kv-2"])
    assert caught.value.what == "kv-2 is missing"
    assert "minicluster up --name c" in caught.value.fix


@pytest.mark.parametrize(
    ("verb", "passed_over"),
    [("stop", True), ("pause", True), ("unpause", True), ("kill", True), ("start", False), ("restart", False)],
)
def test_without_names_a_missing_node_is_refused_where_all_shall_run_afterwards(verb: str, passed_over: bool) -> None:
    spec = etcd()
    found = without(standing(spec, kv_1="paused" if verb == "unpause" else "running"), "kv-2")
    if passed_over:
        assert done_to(VERBS[verb](spec, found, []), "kv-1") == [verb]
    else:
        with pytest.raises(NodeFailed, match="kv-2 is missing"):
            VERBS[verb](spec, found, [])


def test_other_nodes_are_left_alone_whatever_they_are() -> None:
    spec = etcd()
    plan = lifecycle.stop(spec, without(standing(spec), "kv-2"), ["kv-1"])
    assert ids(plan) == ["stop kv-1"]


def test_a_plan_names_its_nodes() -> None:
    spec = etcd()
    assert lifecycle.kill(spec, standing(spec), ["kv-1", "kv-3"]).headline == "kill kv-1, kv-3 of cluster c"
    assert rolling_restart(spec, standing(spec), ["kv-2"]).headline == "restart kv-2 of cluster c one by one"
    nothing = lifecycle.stop(spec, standing(spec, kv_1="exited"), ["kv-1"])
    assert (nothing.headline, bool(nothing)) == ("nothing to stop", False)


# Order


@pytest.mark.parametrize("verb", ["stop", "pause", "kill"])
def test_nodes_end_all_at_once(verb: str) -> None:
    spec = etcd()
    plan = VERBS[verb](spec, standing(spec), [])
    assert [step.needs for step in plan.steps] == [(), (), ()]


def test_nodes_restart_all_at_once_each_after_it_has_stopped() -> None:
    spec = etcd()
    plan = lifecycle.restart(spec, standing(spec, kv_3="paused"), [])
    done_before = before(plan)
    assert done_before["start kv-1"] == {"stop kv-1"}
    assert done_before["start kv-3"] == {"unpause kv-3", "stop kv-3"}
    assert done_before["ready kv-3"] == {"unpause kv-3", "stop kv-3", "start kv-3"}


# What is waited for


@pytest.mark.parametrize("verb", ["stop", "pause", "kill"])
def test_nothing_is_waited_for_when_nodes_end(verb: str) -> None:
    spec = etcd()
    assert not any(isinstance(s.action, (WaitReady, WaitMembers)) for s in VERBS[verb](spec, standing(spec), []).steps)


@pytest.mark.parametrize("verb", ["start", "restart"])
def test_done_is_when_the_cluster_counts_every_node_that_runs_then(verb: str) -> None:
    spec = etcd()
    plan = VERBS[verb](spec, standing(spec, kv_1="exited", kv_2="exited"), ["kv-2"])
    assert asked(plan) == {"members": ("c-kv-2", ("kv-2", "kv-3"))}
    assert before(plan)["members"] == {"start kv-2", "ready kv-2"}


@pytest.mark.parametrize(
    ("size", "names", "waits"),
    [
        (3, ["kv-1"], False),
        (3, ["kv-1", "kv-2"], True),
        (5, ["kv-1", "kv-2"], False),
        (5, ["kv-1", "kv-2", "kv-5"], True),
        (1, ["kv-1"], True),
    ],
)
def test_nothing_is_waited_for_while_too_few_voters_run(size: int, names: list[str], waits: bool) -> None:
    spec = etcd(size)
    found = standing(spec, members=None, **{n.name.replace("-", "_"): "exited" for n in spec.nodes})
    plan = lifecycle.start(spec, found, names)
    assert [id for id in ids(plan) if id.startswith("start")] == [f"start {name}" for name in names]
    assert [id for id in ids(plan) if id.startswith("ready")] == [f"ready {name}" for name in names if waits]
    assert ("members" in ids(plan)) is waits


def test_paused_voters_count_for_nothing() -> None:
    spec = etcd()
    plan = lifecycle.start(spec, standing(spec, kv_1="exited", kv_2="paused", kv_3="paused"), ["kv-1"])
    assert ids(plan) == ["start kv-1"]


def test_a_node_without_a_probe_is_started_and_counted() -> None:
    spec = spec_of(set={"roles.agent.ready": "null"})
    plan = lifecycle.start(spec, standing(spec, agent_1="exited"), [])
    assert ids(plan) == ["start agent-1", "members"]


def test_a_cluster_that_cannot_tell_its_members_is_waited_for_by_its_probes_alone() -> None:
    spec = replace(etcd(), members=None)
    assert ids(lifecycle.start(spec, standing(spec, kv_1="exited"), [])) == ["start kv-1", "ready kv-1"]


# One by one


def of(spec: Spec, unready: Collection[str] = (), leader: str = "kv-1", **states: str) -> Observed:
    """A cluster in which some nodes run and do not work."""
    found = standing(spec, leader=leader, **states)
    assert found.members
    changed = {n: replace(m, ready=m.ready and n not in unready) for n, m in found.members.items()}
    return replace(found, members=changed)


def turns(plan: Plan) -> list[str]:
    """The nodes in the order in which they start, each after the one before has converged."""
    done_before = before(plan)
    started = [s.node for s in plan.steps if s.id.startswith("start ")]
    for i, node in enumerate(started[1:], 1):
        first = next(id for id in (f"stop {node}", f"start {node}") if id in done_before)
        assert f"converged {started[i - 1]}" in done_before[first]
    return started


@pytest.mark.parametrize(
    ("leader", "names", "order"),
    [
        ("kv-1", [], ["kv-2", "kv-3", "kv-1"]),
        ("kv-2", [], ["kv-1", "kv-3", "kv-2"]),
        ("kv-1", ["kv-1", "kv-3"], ["kv-3", "kv-1"]),
    ],
)
def test_nodes_take_turns_and_the_leader_comes_last(leader: str, names: list[str], order: list[str]) -> None:
    spec = etcd()
    assert turns(rolling_restart(spec, of(spec, leader=leader), names)) == order


@pytest.mark.parametrize("found", ["unready", "exited", "paused"])
def test_a_node_that_does_not_work_comes_first(found: str) -> None:
    spec = etcd(5)
    states = {} if found == "unready" else {"kv_4": found}
    plan = rolling_restart(spec, of(spec, ["kv-4"], **states), [])
    assert turns(plan) == ["kv-4", "kv-2", "kv-3", "kv-5", "kv-1"]
    stops = {"unready": ["stop"], "exited": [], "paused": ["unpause", "stop"]}[found]
    assert done_to(plan, "kv-4") == [*stops, "start"]
    # It is one more that the next turn waits for.
    assert asked(plan)["converged kv-4"] == ("c-kv-4", ("kv-1", "kv-2", "kv-3", "kv-4", "kv-5"))


def test_a_turn_ends_when_every_ready_node_is_ready_again() -> None:
    spec = etcd(5)
    plan = rolling_restart(spec, of(spec, kv_4="exited"), ["kv-2", "kv-3"])
    assert asked(plan) == {
        "converged kv-2": ("c-kv-2", ("kv-1", "kv-2", "kv-3", "kv-5")),
        "converged kv-3": ("c-kv-3", ("kv-1", "kv-2", "kv-3", "kv-5")),
    }


def test_of_a_node_that_knows_no_members_another_is_asked() -> None:
    spec = spec_of(master=1)
    plan = rolling_restart(spec, standing(spec, members=["master-1", "agent-1", "agent-2"]), ["agent-1"])
    assert asked(plan) == {"converged agent-1": ("c-master-1", ("master-1", "agent-1", "agent-2"))}


@pytest.mark.parametrize(
    ("size", "down", "names", "costly"),
    [
        (3, ["kv_3"], ["kv-1"], "kv-1"),
        (3, ["kv_3"], [], "kv-1"),
        (5, ["kv_4", "kv_5"], ["kv-2", "kv-4"], "kv-2"),
    ],
)
def test_a_voter_that_cannot_be_spared_does_not_restart(
    size: int, down: list[str], names: list[str], costly: str
) -> None:
    spec = etcd(size)
    found = of(spec, **dict.fromkeys(down, "exited"))
    with pytest.raises(MiniclusterError) as caught:
        rolling_restart(spec, found, names)
    error = caught.value
    assert error.what == f"restarting {costly} would lose the quorum of cluster c"
    healthy = size - len(down)
    assert error.why == f"{healthy} of {size} voters are healthy, and {healthy} are needed."
    assert "--force" in error.fix
    assert costly in turns(rolling_restart(spec, found, names, force=True))


def test_a_voter_that_is_away_already_is_no_further_loss() -> None:
    spec = etcd()
    assert turns(rolling_restart(spec, of(spec, kv_3="exited"), ["kv-3"])) == ["kv-3"]


def test_a_single_voter_may_restart() -> None:
    spec = etcd(1)
    assert turns(rolling_restart(spec, of(spec), [])) == ["kv-1"]


def test_workers_may_restart_whatever_the_masters_do() -> None:
    spec = spec_of("swarm", master=3)
    assert turns(rolling_restart(spec, standing(spec, master_3="exited"), ["agent-1", "agent-2"])) == [
        "agent-1",
        "agent-2",
    ]


def test_without_a_quorum_nodes_do_not_take_turns() -> None:
    spec = etcd()
    with pytest.raises(MiniclusterError) as caught:
        rolling_restart(spec, standing(spec, members=None), [])
    assert caught.value.what == "a rolling restart of cluster c cannot begin"
    assert "No node reports the cluster's members" in caught.value.why
    assert "--force" in caught.value.fix


def test_where_no_node_votes_nodes_take_turns_by_their_probes() -> None:
    spec = replace(etcd(), members=None)
    plan = rolling_restart(spec, standing(spec, members=None), [])
    assert asked(plan) == {}
    done_before = before(plan)
    assert "ready kv-1" in done_before["stop kv-2"]
    assert "ready kv-2" in done_before["stop kv-3"]


# What a user should know afterwards


@pytest.mark.parametrize(
    ("verb", "names", "states", "note"),
    [
        ("stop", ["kv-1"], {}, ""),
        ("stop", ["kv-1", "kv-2"], {}, "Warning: quorum lost: 1 of 3 kv nodes running, 2 needed"),
        ("kill", ["kv-1"], {"kv_2": "paused"}, "Warning: quorum lost: 1 of 3 kv nodes running, 2 needed"),
        ("pause", ["kv-1", "kv-2"], {}, "Warning: quorum lost: 1 of 3 kv nodes running, 2 needed"),
        ("stop", [], {}, ""),
        ("start", ["kv-1"], {"kv_1": "exited", "kv_2": "exited"}, ""),
        (
            "start",
            ["kv-1"],
            {"kv_1": "exited", "kv_2": "exited", "kv_3": "exited"},
            "Warning: quorum lost: 1 of 3 kv nodes running, 2 needed",
        ),
        ("unpause", ["kv-1"], {"kv_1": "paused", "kv_2": "exited"}, ""),
        ("restart", [], {"kv_1": "exited", "kv_2": "exited"}, ""),
        ("stop", ["kv-2"], {"kv_1": "exited", "kv_2": "exited"}, ""),
    ],
)
def test_what_a_verb_leaves_without_quorum_is_said(
    verb: str, names: list[str], states: dict[str, str], note: str
) -> None:
    spec = etcd()
    found = standing(spec, **states)
    assert lifecycle.aftermath(verb, spec, found, VERBS[verb](spec, found, names)) == note


def test_of_workers_that_run_alone_it_is_said_that_no_master_does() -> None:
    spec = spec_of("swarm")
    found = standing(spec)
    assert lifecycle.aftermath("stop", spec, found, lifecycle.stop(spec, found, ["master-1"])) == (
        "Warning: quorum lost: 0 of 1 master nodes running, 1 needed"
    )


def test_a_cluster_without_voters_never_lacks_them() -> None:
    spec = replace(etcd(), members=None)
    found = standing(spec)
    assert lifecycle.aftermath("stop", spec, found, lifecycle.stop(spec, found, ["kv-1", "kv-2"])) == ""


def test_members_that_are_no_nodes_take_no_turn() -> None:
    spec = etcd()
    found = of(spec)
    assert found.members
    stranger = {**found.members, "kv-9": Member("kv-9", ready=False, voter=True)}
    assert turns(rolling_restart(spec, replace(found, members=stranger), ["kv-2"], force=True)) == ["kv-2"]
