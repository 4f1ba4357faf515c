"""No voters, no quorum: who votes is what the members say, and never a guess by role."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from minicluster.cluster import Cluster
from minicluster.errors import MiniclusterError
from minicluster.model import labels
from minicluster.model.events import Event
from minicluster.model.membership import Member, Quorum, parse
from minicluster.model.spec import Spec
from minicluster.operations import observe
from minicluster.operations.observe import members
from minicluster.plan import lifecycle
from minicluster.plan.observed import Observed
from minicluster.plan.reconcile import reconcile
from minicluster.plan.rolling import rolling_restart
from minicluster.plan.steps import Plan
from tests.fakes import ExecResult, FakeEngine
from tests.unit.samples import TOY
from tests.unit.standing import spec_of, standing

VERBS: dict[str, Callable[[Spec, Observed, Sequence[str]], Plan]] = {
    "stop": lifecycle.stop,
    "kill": lifecycle.kill,
    "pause": lifecycle.pause,
    "start": lifecycle.start,
    "restart": lifecycle.restart,
}


def voting(spec: Spec, *voters: str, **states: str) -> Observed:
    """A cluster whose members say that the nodes of these roles vote, and no others."""
    found = standing(spec, members=[node.name for node in spec.nodes], **states)
    members = found.members or {}
    return replace(found, members={name: replace(m, voter=m.role in voters) for name, m in members.items()})


def silent(spec: Spec, **states: str) -> Observed:
    """A cluster none of whose nodes answers who the members are."""
    return standing(spec, members=None, **states)


def note(verb: str, spec: Spec, observed: Observed, *names: str) -> str:
    return lifecycle.aftermath(verb, spec, observed, VERBS[verb](spec, observed, names))


def ids(plan: Plan) -> list[str]:
    return [step.id for step in plan.steps]


# A profile whose members have no votes


@pytest.mark.parametrize("verb", ["stop", "kill", "pause"])
def test_nodes_without_votes_end_without_a_warning(verb: str) -> None:
    spec = spec_of(master=3)
    assert note(verb, spec, voting(spec), "master-1", "master-2") == ""
    assert note(verb, spec, voting(spec, "master"), "master-1", "master-2") == (
        "Warning: quorum lost: 1 of 3 master nodes running, 2 needed"
    )


def test_nodes_without_votes_restart_one_by_one_though_most_are_down() -> None:
    spec = spec_of(master=3)
    down = {"master_2": "exited", "master_3": "exited"}
    assert "stop master-1" in ids(rolling_restart(spec, voting(spec, **down), ["master-1"]))
    with pytest.raises(MiniclusterError, match="would lose the quorum"):
        rolling_restart(spec, voting(spec, "master", master_3="exited"), ["master-1"])


def test_nodes_without_votes_are_waited_for_whatever_else_is_down() -> None:
    spec = spec_of(master=3)
    down = {"master_1": "exited", "master_2": "exited", "master_3": "exited"}
    assert ids(lifecycle.start(spec, voting(spec, **down), ["master-1"])) == [
        "start master-1",
        "ready master-1",
        "members",
    ]
    assert ids(lifecycle.start(spec, voting(spec, "master", **down), ["master-1"])) == ["start master-1"]


def test_nodes_without_votes_are_replaced_all_at_once() -> None:
    spec = spec_of(master=3)
    other = replace(spec, images={**spec.images, "node": replace(spec.images["node"], ref="other")})
    assert not [id for id in ids(reconcile(other, voting(spec))) if id.startswith("converged")]
    assert [id for id in ids(reconcile(other, voting(spec, "master"))) if id.startswith("converged")]


def test_nodes_without_votes_leave_though_others_are_down() -> None:
    before = spec_of(master=3)
    after = spec_of(previous=before, master=1)
    assert "remove master-3" in ids(reconcile(after, voting(before, master_1="exited")))
    with pytest.raises(MiniclusterError, match="would lose the quorum"):
        reconcile(after, voting(before, "master", master_1="exited"))


# Where no member answers


@pytest.mark.parametrize("verb", ["stop", "kill", "pause"])
def test_nothing_is_claimed_of_unknown_votes(verb: str) -> None:
    spec = spec_of(master=3)
    assert note(verb, spec, silent(spec), "master-1", "master-2") == ""


def test_a_start_that_may_lack_a_quorum_is_not_waited_for_and_says_so() -> None:
    spec = spec_of("etcd")
    found = silent(spec, kv_1="exited", kv_2="exited", kv_3="exited")
    assert ids(lifecycle.start(spec, found, ["kv-1"])) == ["start kv-1"]
    said = "Not waiting for the cluster: 1 of 3 kv nodes running, a quorum needs 2"
    assert note("start", spec, found, "kv-1") == said
    assert note("start", spec, found) == ""


def test_a_rolling_restart_needs_an_answer() -> None:
    spec = spec_of("etcd")
    with pytest.raises(MiniclusterError) as caught:
        rolling_restart(spec, silent(spec), [])
    assert caught.value.why.startswith("No node reports the cluster's members")


# The real profiles: who votes


@pytest.mark.parametrize(
    ("profile", "sizes", "voters", "stopped", "said"),
    [
        ("etcd", {"kv": 3}, ["kv"], ["kv-1", "kv-2"], "1 of 3 kv nodes running, 2 needed"),
        ("swarm", {"master": 3}, ["master"], ["master-1", "master-2"], "1 of 3 master nodes running, 2 needed"),
        ("swarm", {"master": 3}, ["master"], ["agent-1", "agent-2"], ""),
        ("mesos", {"kv": 3, "master": 3}, ["kv", "master"], ["kv-1", "kv-2"], "1 of 3 kv nodes running, 2 needed"),
        ("mesos", {"kv": 1, "master": 3}, ["kv", "master"], ["master-1", "master-2"],
         "1 of 3 master nodes running, 2 needed"),
        ("mesos", {"kv": 3, "master": 3}, ["kv", "master"], ["agent-1", "scheduler-1"], ""),
    ],
)  # fmt: skip
def test_the_quorum_that_is_lost_is_named(
    profile: str, sizes: dict[str, int], voters: list[str], stopped: list[str], said: str
) -> None:
    spec = spec_of(profile, **sizes)
    warning = f"Warning: quorum lost: {said}" if said else ""
    assert note("stop", spec, voting(spec, *voters), *stopped) == warning


def test_a_master_of_mesos_is_not_waited_for_without_its_quorum_and_neither_are_its_agents() -> None:
    spec = spec_of("mesos", kv=3, master=3, agent=1, scheduler=0)
    down = {"master_1": "exited", "master_2": "exited", "master_3": "exited", "agent_1": "exited", "kv_3": "exited"}
    plan = lifecycle.start(spec, voting(spec, "kv", "master", **down), ["kv-3", "master-1", "agent-1"])
    assert [id for id in ids(plan) if id.startswith("ready")] == ["ready kv-3"]
    assert [s.action.names for s in plan.steps if s.id == "members"] == [("kv-1", "kv-2", "kv-3")]  # type: ignore[union-attr]


# Whether the members have to be asked


@pytest.mark.parametrize(
    ("verb", "names", "states", "asks"),
    [
        ("stop", [], {}, False),
        ("stop", ["kv-1"], {}, False),
        ("stop", ["kv-1"], {"kv_2": "exited"}, True),
        ("stop", ["kv-1", "kv-2"], {}, True),
        ("kill", ["kv-1", "kv-2", "kv-3"], {}, False),
        ("start", [], {"kv_1": "exited"}, False),
        ("start", ["kv-1"], {"kv_1": "exited", "kv_2": "exited"}, False),
        ("start", ["kv-1"], {"kv_1": "exited", "kv_2": "exited", "kv_3": "exited"}, True),
        ("start", [], {}, False),
        ("restart", [], {}, False),
    ],
)
def test_members_are_asked_only_if_too_few_nodes_of_a_role_run_afterwards(
    verb: str, names: list[str], states: dict[str, str], asks: bool
) -> None:
    spec = spec_of("etcd")
    assert lifecycle.depends_on_voters(verb, spec, standing(spec, **states), names) is asks
    assert not lifecycle.depends_on_voters(verb, replace(spec, members=None), standing(spec, **states), names)


@pytest.mark.parametrize(("voter", "notes"), [(False, 0), (True, 1)])
def test_a_stop_asks_who_votes(engine: FakeEngine, voter: bool, notes: int) -> None:
    cluster = Cluster.up(str(TOY), name="toy", size={"master": 3}, engine=engine)
    rows = [{"name": node.name, "ready": True, "voter": voter} for node in cluster.spec.nodes]
    engine.answers["swarm-members"] = ExecResult(0, "\n".join(map(json.dumps, rows)), "")
    heard: list[Event] = []
    cluster.stop(["master-1", "master-2"], listener=heard.append)
    assert len([e for e in heard if "quorum lost" in e.text]) == notes


def test_a_lost_quorum_is_told_with_who_is_left(engine: FakeEngine) -> None:
    """Nodes without a quorum give no list of members; what they know all the same is what status counts."""
    cluster = Cluster.up(str(TOY), name="toy", size={"master": 5}, engine=engine)
    for index in (3, 4, 5):
        engine.kill_container(f"toy-master-{index}")
    rows = [{"name": f"master-{i}", "ready": i < 3, "voter": True} for i in range(1, 6)]
    text = "\n".join(map(json.dumps, rows))
    engine.answers["swarm-members"] = ExecResult(1, text, "swarm-members: the swarm has no leader\n")
    status = cluster.status()
    assert status.quorum == Quorum(5, 2, 3, 0, "")
    assert (status.phase, status.notes) == ("broken", ())
    assert {n.name: n.voter for n in status.nodes}["master-3"]
    assert {n.probe for n in status.nodes if n.phase == "running"} == {"the quorum is lost"}
    from minicluster.cli.show import _status_text

    assert _status_text(status).splitlines()[:4] == [
        "toy (toy): quorum lost",
        "quorum: lost, 2 of 5 healthy, 3 needed",
        "  running: master-1, master-2",
        "  exited: master-3, master-4, master-5",
    ]


def test_a_list_is_not_certain_without_a_quorum(engine: FakeEngine) -> None:
    """What decides about nodes has no list then."""
    cluster = Cluster.up(str(TOY), name="toy", engine=engine)
    row = json.dumps({"name": "master-1", "ready": True, "voter": True})
    engine.answers["swarm-members"] = ExecResult(1, row, "swarm-members: this node hangs\n")
    containers = {c.labels[labels.NODE]: c for c in engine.containers("toy")}
    assert members(engine, cluster.spec, containers) == (None, "this node hangs")
    assert cluster.status().notes == ("this node hangs",)


@pytest.mark.parametrize(("voter", "waits"), [("master-1", True), ("kv-1", False)])
def test_members_are_waited_for_while_their_voters_can_elect_a_leader(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, voter: str, waits: bool
) -> None:
    """As those of Kubernetes' etcd, voters may be nodes of another role, that are down until the plan starts them."""
    monkeypatch.setattr(observe, "_DECIDING", 0.3)
    cluster = Cluster.up(str(TOY), name="toy", engine=engine)
    row = json.dumps({"name": voter, "ready": False, "voter": True})
    engine.answers["swarm-members"] = ExecResult(1, row, "swarm-members: no leader\n")
    engine.calls.clear()
    containers = {c.labels[labels.NODE]: c for c in engine.containers("toy")}
    assert observe.known_members(engine, cluster.spec, containers) == (None, "no leader")
    assert (len(engine.did("exec")) > len(cluster.spec.of_role("master"))) is waits


def test_a_rolling_restart_of_members_without_votes_is_carried_out(engine: FakeEngine) -> None:
    cluster = Cluster.up(str(TOY), name="toy", engine=engine)
    rows = [{"name": node.name, "ready": True, "voter": False} for node in cluster.spec.nodes]
    engine.answers["swarm-members"] = ExecResult(0, "\n".join(map(json.dumps, rows)), "")
    assert cluster.restart(rolling=True, timeout=60).summary["stop-container"] == 3


# Arithmetic and parsing


def test_more_than_half_of_the_voters_are_needed() -> None:
    assert [Quorum.needed_for(voters) for voters in (1, 2, 3, 4, 5, 7)] == [1, 2, 2, 3, 3, 4]


def test_a_quorum_of_nodes_that_run_counts_voters_alone() -> None:
    members = [Member("kv-1", True, voter=True), Member("kv-2", False, voter=True), Member("kv-3", True)]
    quorums = Quorum.if_running(members, {"kv-2", "kv-3"})
    assert (quorums["kv"].voters, quorums["kv"].healthy, quorums["kv"].lost) == (2, 1, True)
    assert Quorum.if_running([Member("a-1", True)], {"a-1"}) == {}


def test_members_are_parsed_with_what_they_may_leave_out() -> None:
    found = parse('{"name": "a-1", "ready": true, "voter": null, "detail": 3}\n\n{"name": "a-2", "ready": false}\n')
    assert found == {"a-1": Member("a-1", True, detail="3"), "a-2": Member("a-2", False)}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense", "Expecting value"),
        ("[]", "not a JSON object with name and ready"),
        ('{"name": "a-1"}', "not a JSON object with name and ready"),
        ('{"name": 3, "ready": true}', "not a JSON object with name and ready"),
        ('{"name": "a-1", "ready": "yes"}', "ready must be true or false"),
        ('{"name": "a-1", "ready": true, "voter": 1}', "voter must be true or false"),
    ],
)
def test_a_line_that_is_no_member_is_refused(line: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(line)
