"""Several roles that vote, each for itself; roles that start after others; counts that are immutable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from minicluster.engine.protocol import ExecResult
from minicluster.errors import MiniclusterError, NotReady, ProfileError
from minicluster.executor.waiting import ask_members
from minicluster.model.codec import node_hash
from minicluster.model.events import ignore
from minicluster.model.membership import Member, Quorum
from minicluster.model.spec import ImageSpec, Spec
from minicluster.operations.monitor import Seen, compare
from minicluster.plan import lifecycle
from minicluster.plan.observed import Observed
from minicluster.plan.reconcile import reconcile
from minicluster.plan.rolling import rolling_restart
from minicluster.profile.load import load
from tests.fakes import FakeEngine
from tests.unit.samples import LEAST
from tests.unit.standing import spec_of, standing

Write = Callable[..., Path]


def people(*words: str) -> dict[str, Member]:
    """Voters by name: a ! in front is not ready, a * behind leads."""
    found = {}
    for word in words:
        name = word.strip("!*")
        found[name] = Member(name, not word.startswith("!"), True, word.endswith("*"))
    return found


# Quorums


def test_voters_of_each_role_are_a_quorum() -> None:
    members = [*people("kv-1", "kv-2*", "!kv-3", "master-1*").values(), Member("agent-1", True)]
    assert Quorum.by_role(members) == {"kv": Quorum(3, 2, 2, 0, "kv-2"), "master": Quorum(1, 1, 1, 0, "master-1")}


@pytest.mark.parametrize(
    ("members", "leader"),
    [
        (people("kv-1*", "master-1*"), "master-1"),  # of equal ones the last
        (people("kv-1*", "master-1*", "master-2", "master-3"), "kv-1"),
        (people("kv-1*", "!kv-2", "!kv-3", "master-1*", "!master-2", "master-3"), "kv-1"),
        (people("kv-1*", "kv-2", "kv-3", "master-1*", "!master-2", "master-3"), "master-1"),
    ],
)
def test_the_weakest_counts(members: dict[str, Member], leader: str) -> None:
    quorum = Quorum.of(members.values())
    assert quorum
    assert quorum.leader == leader


def test_without_votes_there_is_no_quorum() -> None:
    assert Quorum.of([Member("agent-1", True)]) is None
    assert Quorum.weakest([]) is None


def test_members_may_say_more_of_themselves(engine: FakeEngine) -> None:
    engine.add_foreign("x")
    engine.answers["ask"] = ExecResult(
        0, '{"name": "a-1", "ready": true, "detail": "2 agents"}\n{"name": "a-2", "ready": true}', ""
    )
    found = ask_members(engine, "x", ["ask"], timeout=1)
    assert [(m.name, m.detail) for m in found.values()] == [("a-1", "2 agents"), ("a-2", "")]


def test_a_leader_of_each_role_is_told() -> None:
    seen = Seen(people("kv-1*", "kv-2", "master-1*", "master-2"))
    _, told = compare(seen, people("kv-1*", "kv-2", "master-1", "master-2*"), "", set())
    assert told == [("leader", "master-2", {"from": "master-1", "to": "master-2"})]


def test_one_quorum_of_two_that_is_lost_is_told() -> None:
    seen = Seen(people("kv-1*", "master-1*", "master-2", "master-3"))
    after, told = compare(seen, people("kv-1*", "master-1*", "!master-2", "!master-3"), "", set())
    assert ("quorum-lost", "", {"healthy": 1, "needed": 2}) in told
    assert after.lost


def test_without_an_answer_each_role_is_judged_by_its_own_nodes_that_run() -> None:
    seen = Seen(people("kv-1*", "master-1*", "master-2", "master-3"))
    _, told = compare(seen, None, "why", {"kv-1", "master-1"})
    assert ("quorum-lost", "", {"healthy": 1, "needed": 2}) in told
    _, told = compare(seen, None, "why", {"kv-1", "master-1", "master-3"})
    assert [event for event, _, _ in told] == ["unknown"]


# Plans


def mesos(**size: int) -> Spec:
    return spec_of("mesos", **{"kv": 3, "master": 3, **size})


def found(spec: Spec, *down: str) -> Observed:
    """All that is to be is there and ready, but for these; kv-1 and master-1 lead."""
    members = {
        n.name: Member(n.name, n.name not in down, n.role in ("kv", "master"), n.name in ("kv-1", "master-1"))
        for n in spec.nodes
    }
    return replace(standing(spec, members=None), members=members)


def changed(spec: Spec) -> Spec:
    """The same with other images throughout."""
    return replace(spec, images={name: ImageSpec(name, f"other/{name}", "override") for name in spec.images})


def turns(spec: Spec, observed: Observed) -> list[str]:
    """The nodes that are waited for one by one, in order."""
    plan = reconcile(changed(spec), observed)
    return [step.node for step in plan.steps if step.id.startswith("converged ")]


def test_a_change_goes_through_both_kinds_of_voters_one_by_one_leaders_last() -> None:
    spec = mesos(agent=1, scheduler=0)
    order = turns(spec, found(spec))
    assert sorted(order) == sorted(n.name for n in spec.nodes)
    assert order[-2:] == ["kv-1", "master-1"]


def test_a_single_voter_takes_no_turn_where_others_do() -> None:
    spec = mesos(kv=1, agent=1, scheduler=0)
    assert turns(spec, found(spec))[-1] == "master-1"
    assert turns(spec, found(spec))[0] == "kv-1"  # back before the first turn
    assert "master-2" in turns(spec, found(spec))


def test_nodes_do_not_take_turns_where_one_quorum_is_lost() -> None:
    spec = mesos()
    assert turns(spec, found(spec, "master-2", "master-3")) == []


@pytest.mark.parametrize(("down", "other", "same"), [("kv-2", "master-2", "kv-3"), ("master-2", "kv-2", "master-3")])
def test_a_voter_of_another_role_is_no_reason_to_refuse(down: str, other: str, same: str) -> None:
    spec = mesos()
    assert rolling_restart(spec, found(spec, down), [other])
    with pytest.raises(MiniclusterError, match=f"restarting {same} would lose the quorum"):
        rolling_restart(spec, found(spec, down), [same])


# Waiting for members


def test_a_quorum_is_waited_for_only_of_roles_that_are_started(engine: FakeEngine) -> None:
    """kv-1 is started alone: that the masters are down is no reason to wait."""
    from minicluster import pki
    from minicluster.executor.executor import Run, execute
    from minicluster.plan.steps import Plan, Step, WaitMembers

    engine.add_foreign("kv-1")
    rows = '{"name": "kv-1", "ready": true, "voter": true}\n{"name": "master-1", "ready": false, "voter": true}'
    engine.answers["ask"] = ExecResult(0, rows, "")

    def wait(*names: str) -> None:
        step = Step("members", "", WaitMembers("kv-1", ("ask",), names), "why")
        execute(Plan("c", "h", (step,)), Run(engine, pki.Authority(), 0.3, ignore, lambda _i, _c: None))

    wait("kv-1")
    with pytest.raises(NotReady):
        wait("kv-1", "master-1")


# Order


def test_start_keeps_the_order_and_so_does_restart() -> None:
    spec = spec_of("mesos")
    states = {n.name.replace("-", "_"): "exited" for n in spec.nodes}
    for plan in (
        lifecycle.start(spec, standing(spec, members=None, **states), []),
        lifecycle.restart(spec, found(spec), []),
    ):
        needs = {step.id: step.needs for step in plan.steps}
        assert {"start kv-1", "ready kv-1"} <= set(needs["start master-1"])
        assert {"start master-1", "ready master-1"} <= set(needs["start agent-1"])
        assert "ready agent-1" not in needs["start scheduler-1"]


def test_what_is_not_waited_for_is_not_needed_either() -> None:
    """One of three ZooKeepers is started along with a master: its probe may never pass."""
    spec = mesos()
    states = {n.name.replace("-", "_"): "exited" for n in spec.nodes}
    plan = lifecycle.start(spec, standing(spec, members=None, **states), ["kv-1", "master-1"])
    assert [(step.id, step.needs) for step in plan.steps] == [("start kv-1", ()), ("start master-1", ("start kv-1",))]


def test_the_order_is_no_part_of_what_a_container_is() -> None:
    spec = spec_of("mesos")
    node = spec.nodes[1]
    assert node.depends_on == ("kv",)
    assert node_hash(spec, node, "a") == node_hash(spec, replace(node, depends_on=()), "a")


TWO = LEAST + "  later:\n    count: 1\n    image: node\n    depends_on: [worker]\n"


def test_after_names_a_role_above(write_profile: Write) -> None:
    assert load(write_profile(TWO)).profile.roles["later"].depends_on == ["worker"]
    for wrong in ("later", "wroker"):
        with pytest.raises(ProfileError) as caught:
            load(write_profile(TWO.replace("[worker]", f"[{wrong}]")))
        assert f"profile.yaml:13:18: no role named '{wrong}' above 'later'" in caught.value.what
    with pytest.raises(ProfileError, match="no role named 'later' above 'worker'"):
        load(write_profile(LEAST + "    depends_on: [later]\n  later: {count: 1, image: node}\n"))


def test_platforms_are_for_images_that_are_pulled(write_profile: Write) -> None:
    image = "{build: image, platforms: [linux/amd64]}"
    folder = write_profile(LEAST.replace("{image: example/node}", image), {"image/Dockerfile": "FROM x\n"})
    with pytest.raises(ProfileError, match="platforms are for an image that is pulled"):
        load(folder)
    with pytest.raises(ProfileError, match="must be OS/ARCHITECTURE"):
        load(write_profile(LEAST.replace("{image: example/node}", "{image: x, platforms: [amd64]}")))
