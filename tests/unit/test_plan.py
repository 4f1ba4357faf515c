"""Plans: for each state that a cluster may be found in, the steps that lead from there to the desired state.

Each scenario's plan is in golden/NAME.txt. After an intended change rewrite them and read the difference:

    MINICLUSTER_GOLDEN=write .venv/bin/pytest tests/unit/test_plan.py && git diff tests/unit/golden
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from minicluster.errors import UsageError
from minicluster.model.deferred import marker, readable
from minicluster.model.image_ids import Held, Wanted
from minicluster.model.membership import Member
from minicluster.model.spec import ImageSpec, Overrides, Spec
from minicluster.plan.builder import Steps
from minicluster.plan.load import Source, holders, load
from minicluster.plan.observed import Observed
from minicluster.plan.reconcile import reconcile
from minicluster.plan.removal import remove
from minicluster.plan.reset import reset
from minicluster.plan.steps import (
    Action,
    CopyImage,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    DisconnectNetwork,
    Plan,
    ProvideImage,
    PutFiles,
    Record,
    RemoveContainer,
    RemoveFile,
    RemoveNetwork,
    RemoveVolume,
    RunHook,
    SaveImage,
    StartContainer,
    Step,
    UpdateContainer,
    WaitMembers,
    WaitReady,
)
from tests.unit.samples import TOY
from tests.unit.standing import AUTHORITY, record, spec_of, standing, without

GOLDEN = Path(__file__).parent / "golden"

FRESH = Observed("c", authority=AUTHORITY)
NOTHING = record(None, 0)


# The scenarios. Each is a function, so that a failure of one does not hide the others.


def first_up(profile: str | Path = TOY) -> Plan:
    return reconcile(spec_of(profile), FRESH)


def first_up_of_three_masters(profile: str | Path = TOY) -> Plan:
    return reconcile(spec_of(profile, master=3), FRESH)


def scale_up(profile: str | Path = TOY) -> Plan:
    before = spec_of(profile)
    return reconcile(spec_of(profile, previous=before, agent=4), standing(before))


def scale_down(profile: str | Path = TOY) -> Plan:
    before = spec_of(profile, agent=4)
    return reconcile(spec_of(profile, previous=before, agent=2), standing(before))


def more_masters(profile: str | Path = TOY) -> Plan:
    before = spec_of(profile)
    return reconcile(spec_of(profile, previous=before, master=3), standing(before))


def fewer_masters(profile: str | Path = TOY) -> Plan:
    before = spec_of(profile, master=3)
    return reconcile(spec_of(profile, previous=before, master=1), standing(before))


def nothing_to_do(profile: str | Path = TOY) -> Plan:
    spec = spec_of(profile)
    return reconcile(spec, standing(spec))


def stopped(profile: str | Path = TOY) -> Plan:
    spec = spec_of(profile)
    return reconcile(spec, standing(spec, members=None, master_1="exited", agent_1="exited", agent_2="exited"))


def partly_created(profile: str | Path = TOY) -> Plan:
    spec = spec_of(profile)
    return reconcile(spec, standing(spec, members=["master-1", "agent-1"], agent_2="created"))


def node_removed(profile: str | Path = TOY) -> Plan:
    spec = spec_of(profile)
    return reconcile(spec, without(standing(spec), "agent-1"))


def node_removed_with_its_data(profile: str | Path = TOY) -> Plan:
    spec = spec_of(profile)
    return reconcile(spec, without(standing(spec), "agent-1", volumes=True))


def changed_image(profile: str | Path = TOY) -> Plan:
    before = spec_of(profile)
    return reconcile(spec_of(profile, previous=before, image="other/node:2"), standing(before))


def changed_hooks(profile: str | Path = TOY) -> Plan:
    before = spec_of(profile)
    return reconcile(replace(before, load=()), standing(before))


def interrupted_after_the_record(profile: str | Path = TOY) -> Plan:
    spec = spec_of(profile)
    return reconcile(spec, replace(FRESH, records=(NOTHING, record(spec))))


def interrupted_after_the_network(profile: str | Path = TOY) -> Plan:
    spec = spec_of(profile)
    return reconcile(spec, replace(FRESH, records=(NOTHING, record(spec)), networks=("c-net",)))


def interrupted_before_bootstrap(profile: str | Path = TOY) -> Plan:
    spec = spec_of(profile, master=3)
    return reconcile(spec, replace(standing(spec, members=None), records=(NOTHING, record(spec))))


def interrupted_before_the_record(profile: str | Path = TOY) -> Plan:
    return reconcile(spec_of(profile), replace(FRESH, records=(NOTHING,)))


def interrupted_at_the_end(profile: str | Path = TOY) -> Plan:
    spec = spec_of(profile)
    return reconcile(spec, replace(standing(spec), records=(NOTHING, record(spec))))


def interrupted_change(profile: str | Path = TOY) -> Plan:
    before = spec_of(profile)
    after = spec_of(profile, previous=before, agent=3)
    found = replace(standing(before), records=(record(before), record(after, 2)))
    return reconcile(after, found)


def interrupted_change_back(profile: str | Path = TOY) -> Plan:
    before = spec_of(profile)
    after = spec_of(profile, previous=before, agent=3)
    found = replace(
        standing(after, members=["master-1", "agent-1", "agent-2"]), records=(record(before), record(after, 2))
    )
    return reconcile(before, found)


def down(profile: str | Path = TOY) -> Plan:
    return remove(standing(spec_of(profile)))


def down_of_remains(_profile: str | Path = TOY) -> Plan:
    return remove(replace(FRESH, networks=("c-net",), volumes=("c-agent-1-var-lib-data",)))


def down_of_a_partial_cluster(profile: str | Path = TOY) -> Plan:
    before = spec_of(profile)
    after = spec_of(profile, previous=before, agent=3)
    found = without(standing(before), "master-1", "agent-2")
    return remove(replace(found, networks=(), records=(record(before), record(after, 2))))


# Of etcd, whose nodes found their cluster together


def etcd_first_up(profile: str | Path = "etcd") -> Plan:
    return reconcile(spec_of(profile), FRESH)


def etcd_scale_up(profile: str | Path = "etcd") -> Plan:
    before = spec_of(profile)
    return reconcile(spec_of(profile, previous=before, kv=5), standing(before))


def etcd_scale_down(profile: str | Path = "etcd") -> Plan:
    before = spec_of(profile, kv=5)
    return reconcile(spec_of(profile, previous=before, kv=3), standing(before, leader="kv-5"))


def etcd_node_removed(profile: str | Path = "etcd") -> Plan:
    spec = spec_of(profile)
    return reconcile(spec, without(standing(spec, leader="kv-1"), "kv-2"))


def etcd_node_removed_with_its_data(profile: str | Path = "etcd") -> Plan:
    spec = spec_of(profile)
    return reconcile(spec, without(standing(spec, leader="kv-1"), "kv-2", volumes=True))


def etcd_changed_image(profile: str | Path = "etcd") -> Plan:
    before = spec_of(profile)
    images = {"node": ImageSpec("node", "other/node:2", "override")}
    return reconcile(replace(spec_of(profile, previous=before), images=images), standing(before, leader="kv-1"))


def etcd_changed_restart_policy(profile: str | Path = "etcd") -> Plan:
    before = spec_of(profile)
    return reconcile(replace(before, overrides=Overrides(restart="always")), standing(before))


def etcd_interrupted_first_up(profile: str | Path = "etcd") -> Plan:
    spec = spec_of(profile)
    return reconcile(spec, replace(standing(spec, members=None, kv_3="created"), records=(NOTHING, record(spec))))


def etcd_interrupted_first_up_of_another_size(profile: str | Path = "etcd") -> Plan:
    before = spec_of(profile)
    found = replace(without(standing(before, members=None), "kv-3"), records=(NOTHING, record(before)))
    return reconcile(spec_of(profile, previous=before, kv=1), found)


# Of mesos, whose roles start one after the other and of which two vote


def mesos_first_up(profile: str | Path = "mesos") -> Plan:
    return reconcile(spec_of(profile), FRESH)


def mesos_first_up_of_three_of_each(profile: str | Path = "mesos") -> Plan:
    return reconcile(spec_of(profile, kv=3, master=3, scheduler=3), FRESH)


def mesos_first_up_without_a_scheduler(profile: str | Path = "mesos") -> Plan:
    return reconcile(spec_of(profile, scheduler=0), FRESH)


def mesos_agent_removed(profile: str | Path = "mesos") -> Plan:
    before = spec_of(profile)
    all_nodes = [node.name for node in before.nodes]
    return reconcile(spec_of(profile, previous=before, agent=1), standing(before, members=all_nodes))


def mesos_stopped(profile: str | Path = "mesos") -> Plan:
    spec = spec_of(profile)
    states = {node.name.replace("-", "_"): "exited" for node in spec.nodes}
    return reconcile(spec, standing(spec, members=None, leader="", **states))


SCENARIOS: list[Callable[..., Plan]] = [
    first_up,
    first_up_of_three_masters,
    scale_up,
    scale_down,
    more_masters,
    fewer_masters,
    nothing_to_do,
    stopped,
    partly_created,
    node_removed,
    node_removed_with_its_data,
    changed_image,
    changed_hooks,
    interrupted_before_the_record,
    interrupted_after_the_record,
    interrupted_after_the_network,
    interrupted_before_bootstrap,
    interrupted_at_the_end,
    interrupted_change,
    interrupted_change_back,
    down,
    down_of_remains,
    down_of_a_partial_cluster,
]

ETCD: list[Callable[..., Plan]] = [
    etcd_first_up,
    etcd_scale_up,
    etcd_scale_down,
    etcd_node_removed,
    etcd_node_removed_with_its_data,
    etcd_changed_image,
    etcd_changed_restart_policy,
    etcd_interrupted_first_up,
    etcd_interrupted_first_up_of_another_size,
]

MESOS: list[Callable[..., Plan]] = [
    mesos_first_up,
    mesos_first_up_of_three_of_each,
    mesos_first_up_without_a_scheduler,
    mesos_agent_removed,
    mesos_stopped,
]

# Reset and load, which are plans as well


def reset_etcd() -> Plan:
    return reset(spec_of("etcd"), standing(spec_of("etcd"), kv_1="exited"))


def reset_swarm() -> Plan:
    return reset(spec_of("swarm"), standing(spec_of("swarm")))


def load_toy() -> Plan:
    spec = spec_of()
    return load(spec, Source("my/image"), holders(spec, []), "/var/tmp/x.tar", {}).plan


def load_what_nodes_have() -> Plan:
    """One node has the image, one has it under another name, and one does not have it."""
    id, hook = f"sha256:{'a' * 64}", spec_of().load[0]
    spec = replace(spec_of(), tag=(replace(hook, run=("tag", marker("image.source"), marker("image.name"))),))
    names = ("docker.io/library/app:1", "docker.io/library/app:2")
    held = {
        "master-1": [Held(frozenset({id}), dict(zip(names, names, strict=True)))],
        "agent-1": [Held(frozenset({id}), {names[0]: "app:1"})],
        "agent-2": [Held(frozenset({f"sha256:{'b' * 64}"}), {names[1]: "app:2"})],
    }
    source = Source("app:2", (Wanted(frozenset({id}), names[1:]),))
    return load(spec, source, holders(spec, []), "/var/tmp/x.tar", held).plan


# Golden plans


def text(plan: Plan) -> str:
    lines = [plan.headline, ""]
    for step in plan.steps:
        lines.append(f"{step.id}" + (f"  [{step.node}]" if step.node else ""))
        lines += [f"    {line}" for line in _action(step.action)]
        lines.append(f"    because {step.cause}")
        if step.needs:
            lines.append(f"    after {'; '.join(step.needs)}")
    return "\n".join(lines) + "\n"


def said(command: Sequence[str]) -> str:
    return readable(" ".join(command))


def _action(action: Action) -> Iterator[str]:
    """Main fields alone: golden plans must be readable, and must not change with what does not matter to a plan."""
    match action:
        case ProvideImage(image):
            yield f"provide image {image.ref} ({image.source})"
        case Record(volume, revision, _, spec):
            what = " ".join(n.name for n in spec.nodes) if spec else "nothing"
            yield f"record revision {revision} in {volume}: {what}"
        case CreateNetwork(name, subnet, gateway, _):
            yield f"create network {name} {subnet} gateway {gateway}"
        case CreateVolume(name, _):
            yield f"create volume {name}"
        case CreateContainer(config):
            yield f"create container {config.name} of {config.image} at {config.address} in {config.network}"
            yield from (f"volume {volume} on {path}" for path, volume in config.volumes.items())
            yield from (f"port {port.removesuffix('/tcp')} published" for port in config.ports)
        case PutFiles(container, files, certificates, authority):
            what = [*(f.path for f in files), *(f"certificates {c.directory}" for c in certificates)]
            yield f"put into {container}: {', '.join(what)}{', the authority' if authority else ''}"
        case StartContainer(name):
            yield f"start {name}"
        case WaitReady(container, command):
            yield f"wait for {container}: {said(command)}"
        case RunHook(container, command, capture, best_effort):
            yield f"run in {container}: {said(command)}" + (" (best effort)" if best_effort else "")
            if capture:
                yield f"capture {', '.join(capture)}"
            if action.fallback:
                asked = f"{', '.join(action.fallback.asked)} with {' '.join(action.fallback.command)}"
                yield f"or else on {', '.join(action.fallback.nodes)}, ranked by {asked}"
        case SaveImage(image):
            yield f"save image {image}"
        case CopyImage(image, container, path):
            yield f"copy image {image} to {container}: {path}"
        case RemoveFile(container, path):
            yield f"remove from {container}: {path}"
        case WaitMembers(container, command, names):
            yield f"ask {container} with {said(command)} for {', '.join(names)}"
        case DisconnectNetwork(network, container):
            yield f"disconnect {container} from {network}"
        case UpdateContainer(name, restart):
            yield f"container {name} is to restart: {restart}"
        case RemoveContainer(name) | RemoveVolume(name) | RemoveNetwork(name):
            yield f"{type(action).__name__[6:].lower()} {name} is removed"


@pytest.mark.parametrize(
    "scenario",
    [*SCENARIOS, *ETCD, *MESOS, reset_etcd, reset_swarm, load_toy, load_what_nodes_have],
    ids=lambda s: s.__name__,
)
def test_a_plan_is_what_it_was(scenario: Callable[..., Plan]) -> None:
    path = GOLDEN / f"{scenario.__name__}.txt"
    plan = text(scenario())
    if os.environ.get("MINICLUSTER_GOLDEN") == "write":
        path.write_text(plan)
    assert plan == path.read_text()


# What holds for every plan, of the toy profile and of the real ones


PLANS = [pytest.param(s, p, id=f"{s.__name__}-{Path(p).name}") for s in SCENARIOS for p in (str(TOY), "swarm")]
PLANS += [pytest.param(s, "etcd", id=s.__name__) for s in ETCD]
PLANS += [pytest.param(s, "mesos", id=s.__name__) for s in MESOS]
every_plan = pytest.mark.parametrize(("scenario", "profile"), PLANS)


@cache
def plan_of(scenario: Callable[..., Plan], profile: str) -> Plan:
    return scenario(profile)


def before(plan: Plan) -> dict[str, set[str]]:
    """Step -> all that are done before it begins, directly or not."""
    result: dict[str, set[str]] = {}
    for step in plan.steps:
        result[step.id] = set(step.needs).union(*(result[need] for need in step.needs))
    return result


@every_plan
def test_steps_have_ids_of_their_own_and_causes(scenario: Callable[..., Plan], profile: str) -> None:
    plan = plan_of(scenario, profile)
    assert len({step.id for step in plan.steps}) == len(plan.steps)
    assert [step.id for step in plan.steps if not step.cause.strip()] == []
    assert plan.headline


@every_plan
def test_what_a_step_needs_is_there_and_comes_earlier(scenario: Callable[..., Plan], profile: str) -> None:
    seen: set[str] = set()
    for step in plan_of(scenario, profile).steps:
        assert set(step.needs) <= seen
        seen.add(step.id)


@every_plan
def test_the_record_is_written_first_and_old_ones_go_last(scenario: Callable[..., Plan], profile: str) -> None:
    plan = plan_of(scenario, profile)
    done_before = before(plan)
    records = [s.id for s in plan.steps if isinstance(s.action, Record)]
    old = [s.id for s in plan.steps if isinstance(s.action, RemoveVolume) and "-spec-" in s.action.name]
    rest = {s.id for s in plan.steps} - {*records, *old}
    assert len(records) <= 2
    assert all(earlier in done_before[later] for earlier, later in pairwise(records))
    assert all(set(records) <= done_before[id] for id in rest)
    assert all(rest <= done_before[id] for id in old)


@every_plan
def test_what_runs_in_a_container_never_runs_while_that_is_being_removed(
    scenario: Callable[..., Plan], profile: str
) -> None:
    assert racing(plan_of(scenario, profile)) == []


def racing(plan: Plan) -> list[tuple[str, str]]:
    """Pairs of a step in a container and one that removes it, of which neither waits for the other."""
    done_before = before(plan)
    removals = {s.action.name: s.id for s in plan.steps if isinstance(s.action, RemoveContainer)}
    return [
        (s.id, gone)
        for s in plan.steps
        if isinstance(s.action, (RunHook, WaitReady, WaitMembers)) and (gone := removals.get(s.action.container))
        if gone not in done_before[s.id] and s.id not in done_before[gone]
    ]


@every_plan
def test_a_container_is_made_configured_started_and_waited_for_in_that_order(
    scenario: Callable[..., Plan], profile: str
) -> None:
    plan = plan_of(scenario, profile)
    done_before = before(plan)
    for step in plan.steps:
        stages = [f"{verb} {step.node}" for verb in ("remove", "create", "files", "start", "ready")]
        for earlier, later in pairwise(stages):
            if earlier in done_before and later in done_before:
                assert earlier in done_before[later]


@every_plan
def test_volumes_and_networks_are_removed_after_what_uses_them(scenario: Callable[..., Plan], profile: str) -> None:
    plan = plan_of(scenario, profile)
    done_before = before(plan)
    for step in plan.steps:
        if isinstance(step.action, RemoveVolume) and step.node:
            assert {f"remove {step.node}"} & set(done_before) <= done_before[step.id]
        if isinstance(step.action, RemoveNetwork):
            # A container that does not run holds no end of a network.
            assert {s.id for s in plan.steps if isinstance(s.action, DisconnectNetwork)} <= done_before[step.id]


# What a plan cannot be


def test_a_step_that_needs_what_is_not_planned_is_a_programming_error() -> None:
    steps = Steps()
    steps.add("a", "", RemoveVolume("a"), "why")
    with pytest.raises(ValueError, match="step 'b' needs 'x', which is not an earlier step"):
        steps.add("b", "", RemoveVolume("b"), "why", ["a", "x"])
    steps.add("b", "", RemoveVolume("b"), "why", if_planned=["x", "a", "a"])
    assert [step.needs for step in steps.all()] == [(), ("a",)]
    with pytest.raises(ValueError, match="two steps 'b'"):
        steps.add("b", "", RemoveVolume("b"), "why")


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        ({"a": ("b",), "b": ("c",), "c": ("a",)}, "cycle"),
        ({"a": ("a",)}, "cycle"),
        ({"a": ("x",)}, "step 'a' needs 'x', which is no step of the plan"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused_when_it_is_built(
    needs: dict[str, tuple[str, ...]], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        Plan("c", "h", tuple(Step(id, "", RemoveVolume(id), "why", before) for id, before in needs.items()))


def test_a_plan_has_each_step_once() -> None:
    step = Step("a", "", RemoveVolume("a"), "why")
    with pytest.raises(ValueError, match="two steps 'a'"):
        Plan("c", "h", (step, step))


# What single plans promise, whatever the rest of them looks like


def kinds(plan: Plan, kind: type) -> list[str]:
    return [step.id for step in plan.steps if isinstance(step.action, kind)]


def test_nothing_is_to_be_done_for_a_cluster_that_is_as_it_shall_be() -> None:
    assert not nothing_to_do()


def test_a_node_that_a_down_took_out_of_its_network_before_it_was_interrupted_is_recreated() -> None:
    there = standing(spec_of(TOY))
    out = replace(there.containers["agent-1"], networks=frozenset())
    plan = reconcile(spec_of(TOY), replace(there, containers={**there.containers, "agent-1": out}))
    assert kinds(plan, RemoveContainer) == ["remove agent-1"]
    assert kinds(plan, CreateContainer) == ["create agent-1"]


def test_nodes_leave_one_after_the_other() -> None:
    plan = fewer_masters()
    done_before = before(plan)
    removed = kinds(plan, RemoveContainer)
    assert len(removed) == 2
    assert removed[0] in done_before[removed[1]] or removed[1] in done_before[removed[0]]


@pytest.mark.parametrize("profile", ["kubernetes", "swarm"])
@pytest.mark.parametrize("member", [True, False])
def test_a_node_that_may_still_register_is_removed_before_others_are_asked_to_remove_it(
    profile: str, member: bool
) -> None:
    """A change that added it was interrupted: no member yet, it may be one when the others have removed nothing."""
    before, after = spec_of(profile, agent=2), spec_of(profile, agent=3)
    members = [node.name for node in (after if member else before).nodes]
    found = replace(standing(after, members=members), records=(record(before), record(after, 2)))
    ids = [step.id for step in reconcile(before, found).steps if step.node == "agent-3"]
    first, last = (ids.index("remove agent-3"), [i for i, id in enumerate(ids) if id.startswith("leave agent-3")][-1])
    assert (last < first) == member, ids


def test_a_node_that_may_have_got_a_vote_is_removed_after_the_others_have_taken_it() -> None:
    """With its vote two of two are needed: the one that stays could not remove it, nor could any later change."""
    before, after = spec_of("etcd", kv=1), spec_of("etcd", kv=3)
    found = replace(standing(after, members=["kv-1"]), records=(record(before), record(after, 2)))
    found = replace(found, members={"kv-1": Member("kv-1", ready=True, voter=True, leader=True)})
    ids = [step.id for step in reconcile(before, found).steps]
    for node in "kv-2", "kv-3":
        assert ids.index(f"leave {node} 2") < ids.index(f"remove {node}")


@pytest.mark.parametrize("applied", [True, False])
def test_nodes_of_a_profile_without_members_leave_as_well(applied: bool) -> None:
    """Where no member can be asked for, a node that a complete `up` had is taken for one."""
    before, after = (replace(spec_of(agent=n), members=None) for n in (2, 3))
    records = (record(after),) if applied else (record(before), record(after, 2))
    ids = [s.id for s in reconcile(before, replace(standing(after, members=None), records=records)).steps]
    left = ["leave agent-3 1", "leave agent-3 2", "leave agent-3 3"]
    left.insert(3 if applied else 2, "remove agent-3")
    assert [id for id in ids if id.endswith(("agent-3", "agent-3 1", "agent-3 2", "agent-3 3"))] == left


def test_a_node_without_a_container_leaves_a_cluster_without_members_by_hooks_on_others() -> None:
    before, after = (replace(spec_of(agent=n), members=None) for n in (2, 3))
    found = without(standing(after, members=None), "agent-3")
    ids = [s.id for s in reconcile(before, found).steps if s.node == "agent-3"]
    assert ids == ["leave agent-3 1", "leave agent-3 3", "remove volume c-agent-3-var-lib-data"]


def test_before_a_first_up_was_complete_no_node_of_a_profile_without_members_leaves() -> None:
    before, after = (replace(spec_of(agent=n), members=None) for n in (2, 3))
    found = replace(standing(after, members=None), records=(NOTHING, record(after)))
    assert [s.id for s in reconcile(before, found).steps if s.id.startswith("leave")] == []


@pytest.mark.parametrize("scenario", [scale_down, fewer_masters], ids=lambda s: s.__name__)
def test_members_are_counted_after_the_last_node_left(scenario: Callable[..., Plan]) -> None:
    plan = scenario()
    assert set(kinds(plan, RemoveContainer)) <= before(plan)["members"]


def test_a_node_whose_data_are_kept_comes_back_without_joining() -> None:
    assert kinds(node_removed(), RunHook) == []


def test_a_node_whose_data_are_gone_joins_again() -> None:
    assert kinds(node_removed_with_its_data(), RunHook) == ["init 1", "join agent-1 1"]


def test_where_the_first_nodes_data_are_gone_all_nodes_join_again() -> None:
    """A swarm whose only master lost its data: the others are members of one that may not exist any more."""
    spec = spec_of("swarm")
    plan = reconcile(spec, without(standing(spec, members=None), "master-1", volumes=True))
    assert kinds(plan, RunHook) == ["init 1", "join agent-1 1", "join agent-2 1"]
    (init,) = (step.action for step in plan.steps if step.id == "init 1")
    assert isinstance(init, RunHook)
    agents = [node.address for node in spec.of_role("agent")]  # which are asked whether one has the swarm
    assert init.command[-5:] == (*agents, "--", "agent-1", "agent-2")
    # They have to run before they can be asked.
    stopped = without(standing(spec, members=None, agent_1="exited"), "master-1", volumes=True)
    assert "ready agent-1" in before(reconcile(spec, stopped))["init 1"]


def test_an_interrupted_first_up_is_formed_by_the_next() -> None:
    hooks = kinds(interrupted_before_bootstrap(), RunHook)
    assert hooks == ["init 1", *(f"join {node} 1" for node in ("master-2", "master-3", "agent-1", "agent-2"))]


def test_what_is_up_is_not_touched_when_others_come() -> None:
    assert {step.node for step in scale_up().steps if step.node} == {"agent-3", "agent-4", "master-1"}
    assert [s.id for s in scale_up().steps if s.node == "master-1"] == ["init 1"]


def test_a_node_that_is_replaced_while_others_leave_runs_no_hook_meanwhile() -> None:
    old = spec_of(master=3)
    new = spec_of(previous=old, set={"color": "blue"}, master=1)
    assert racing(reconcile(new, standing(old))) == []


def test_a_node_without_volumes_that_is_recreated_joins_again() -> None:
    spec = spec_of(set={"roles.agent.volumes": "[]"})
    plan = reconcile(spec, without(standing(spec), "agent-1"))
    assert "join agent-1 1" in kinds(plan, RunHook)


NO_VOLUMES = {"roles.master.volumes": "[]", "roles.agent.volumes": "[]"}


@pytest.mark.parametrize("members", [True, False])
def test_a_node_without_volumes_joins_again_whenever_it_is_replaced(members: bool) -> None:
    old, new = spec_of(set=NO_VOLUMES), spec_of(set={**NO_VOLUMES, "roles.agent.memory": "128MiB"})
    if not members:  # the profile cannot tell them
        old, new = (replace(spec, members=None) for spec in (old, new))
    plan = reconcile(new, standing(old) if members else standing(old, members=None))
    assert kinds(plan, RunHook) == ["init 1", "join agent-1 1", "join agent-2 1"]
    assert {"remove agent-1", "ready agent-1"} <= before(plan)["join agent-1 1"]


@pytest.mark.parametrize("members", [("master-1", "agent-1"), None], ids=["members", "no members"])
def test_a_node_that_an_interrupted_change_has_replaced_joins(members: Sequence[str] | None) -> None:
    """It runs as it should, and nobody knows whether its join hook has run."""
    old, new = spec_of(set=NO_VOLUMES), spec_of(set={**NO_VOLUMES, "roles.agent.memory": "128MiB"})
    if not members:
        old, new = (replace(spec, members=None) for spec in (old, new))
    found = replace(standing(new, members=members), records=(record(old), record(new, 2)))
    joined = kinds(reconcile(new, found), RunHook)
    assert joined == (["init 1", "join agent-2 1"] if members else ["init 1", "join agent-1 1", "join agent-2 1"])
    dead = {"agent-2": Member("agent-2", ready=False), **(found.members or {})}
    assert not members or kinds(reconcile(new, replace(found, members=dead)), RunHook) == joined
    done = replace(found, records=(record(new, 2),))
    assert members or kinds(reconcile(new, done), RunHook) == []


def test_where_the_initial_member_loses_its_data_by_being_replaced_all_nodes_join_again() -> None:
    old = spec_of(set=NO_VOLUMES)
    plan = reconcile(spec_of(set={**NO_VOLUMES, "color": "blue"}), standing(old))
    assert kinds(plan, RemoveContainer) == ["remove master-1"]
    assert kinds(plan, RunHook) == ["init 1", "join agent-1 1", "join agent-2 1"]
    assert "ready master-1" in before(plan)["init 1"]


def test_a_node_without_volumes_whose_turn_it_is_joins_before_the_next_is_replaced() -> None:
    changed = {**NO_VOLUMES, "color": "blue", "roles.agent.memory": "128MiB"}
    old, new = (spec_of(set=set, master=3) for set in (NO_VOLUMES, changed))
    plan = reconcile(new, standing(old, leader="master-1"))
    done_before = before(plan)
    assert racing(plan) == []
    turns = [id.removeprefix("remove ") for id in kinds(plan, RemoveContainer)]
    assert turns == ["master-2", "master-3", "agent-1", "agent-2", "master-1"]  # the leader comes last
    for node, following in zip(turns, [*turns[1:], ""], strict=True):
        init, join = f"init 1 for {node}", f"join {node} 1"
        assert {f"remove {node}", f"ready {node}"} <= done_before[init] < done_before[join]
        assert join in done_before[f"converged {node}"]
        assert not following or join in done_before[f"remove {following}"]
    inits = {step.id: step.action for step in plan.steps if step.id.startswith("init")}
    on = {id: (hook.container, hook.command) for id, hook in inits.items() if isinstance(hook, RunHook)}
    address = {node.name: node.address for node in new.nodes}
    assert on["init 1 for master-2"] == ("c-master-1", ("swarm-init", address["master-1"], "master-2"))
    assert on["init 1 for master-1"] == ("c-master-2", ("swarm-init", address["master-2"], "master-1"))


def test_a_node_that_joins_by_one_of_another_role_waits_for_that_one() -> None:
    spec = spec_of(helper=1)
    hook = replace(spec.nodes[1].join[0], on="helper")
    spec = replace(spec, nodes=tuple(replace(n, join=(hook,)) if n.role == "agent" else n for n in spec.nodes))
    plan = reconcile(spec, FRESH)
    (join,) = (step for step in plan.steps if step.id == "join agent-1 1")
    assert isinstance(join.action, RunHook)
    assert join.action.container == "c-helper-1"
    assert {"start helper-1", "ready agent-1", "init 1"} <= before(plan)[join.id]


def test_a_join_hook_on_a_role_without_nodes_is_refused() -> None:
    spec = spec_of()
    hook = replace(spec.nodes[1].join[0], on="helper")
    spec = replace(spec, nodes=tuple(replace(n, join=(hook,)) if n.role == "agent" else n for n in spec.nodes))
    with pytest.raises(UsageError) as caught:
        reconcile(spec, FRESH)
    assert caught.value.what == "agent-1 cannot join cluster c: role helper has no nodes"
    assert caught.value.why == "The join hook `swarm-join` of role agent runs on helper."
    assert not reconcile(spec, standing(spec))  # where none has to join, it is not needed


def test_a_node_is_not_taken_away_before_the_image_of_its_successor_is_there() -> None:
    done_before = before(changed_image())
    assert "image node" in done_before["remove master-1"]


@pytest.mark.parametrize("masters", [1, 3])  # of three, one is replaced after the other
def test_a_volume_that_no_node_has_any_more_is_removed_when_the_nodes_are_ready_without_it(masters: int) -> None:
    old = spec_of(set={"roles.master.volumes": "[/var/lib/data, /b]"}, master=masters)
    plan = reconcile(spec_of(previous=old, master=masters), standing(old))
    gone = [f"remove volume c-master-{i}-b" for i in range(1, masters + 1)]
    assert kinds(plan, RemoveVolume)[:masters] == gone
    rest = {step.id for step in plan.steps} - {*gone, "remove record 1"}
    assert {"remove master-1", "ready master-1", "members"} <= rest
    assert all(rest <= before(plan)[volume] for volume in gone)


def test_a_plan_needs_no_members_where_the_profile_cannot_tell_them() -> None:
    spec = replace(spec_of(), members=None)
    assert kinds(reconcile(spec, FRESH), WaitMembers) == []


def test_a_node_of_another_authority_is_recreated() -> None:
    spec: Spec = spec_of()
    plan = reconcile(spec, replace(standing(spec), authority="another"))
    # The toy's agents have no certificates: who would issue them is nothing to them.
    assert kinds(plan, RemoveContainer) == ["remove master-1"]
