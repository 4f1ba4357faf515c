"""The mesos profile: the configuration of its nodes, by golden specs of three sizes, and how a cluster of it behaves.

Golden specs are rewritten as plans are: see test_plan.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from minicluster import cluster as facade
from minicluster.cluster import Cluster
from minicluster.engine import base_image
from minicluster.engine.protocol import ExecResult
from minicluster.errors import ImageError, MiniclusterError, NoEngine, ProfileError, UsageError
from minicluster.model import labels
from minicluster.model.deferred import readable
from minicluster.model.spec import Spec
from minicluster.plan.observed import Observed
from minicluster.plan.reconcile import reconcile
from minicluster.plan.steps import StartContainer
from tests.fakes import FakeEngine
from tests.unit.standing import AUTHORITY, spec_of, standing

GOLDEN = Path(__file__).parent / "golden"
SIZES = {
    "mesos_1_1_2_1": {},
    "mesos_3_3_2_3": {"kv": 3, "master": 3, "scheduler": 3},
    "mesos_without_a_scheduler": {"scheduler": 0},
}


def text(spec: Spec) -> str:
    """What matters of a spec: the configuration of each node, and the variables for users."""
    lines = [
        f"image {i.name}: {i.ref} ({i.source} {i.overlay_on}) {' '.join(i.platforms)}".rstrip()
        for i in spec.images.values()
    ]
    for node in spec.nodes:
        lines += [
            "",
            f"{node.name} {node.address}" + (f" after {' '.join(node.depends_on)}" if node.depends_on else ""),
        ]
        lines += [f"    runs {' '.join([*node.entrypoint, *node.command])}", f"    ready {' '.join(node.ready)}"]
        lines += [f"    {name}={value}" for name, value in node.env.items()]
        lines += [f"    volume {path}" for path in node.volumes]
        lines += [f"    leave: {hook.on}: {' '.join(hook.run)}" for hook in node.leave]
    assert spec.members
    lines += ["", f"members: {spec.members.on}: {' '.join(spec.members.run)}", ""]
    lines += [f"{name}={value}" for name, value in spec.env.items()]
    return readable("\n".join(lines) + "\n")


@pytest.mark.parametrize("name", SIZES)
def test_a_spec_is_what_it_was(name: str) -> None:
    path = GOLDEN / f"{name}_spec.txt"
    found = text(spec_of("mesos", **SIZES[name]))
    if os.environ.get("MINICLUSTER_GOLDEN") == "write":
        path.write_text(found)
    assert found == path.read_text()


def env(spec: Spec, node: str) -> dict[str, str]:
    found = spec.node(node)
    assert found
    return dict(found.env)


@pytest.mark.parametrize(("masters", "quorum"), [(1, "1"), (3, "2"), (5, "3")])
def test_the_quorum_is_a_majority_of_the_masters(masters: int, quorum: str) -> None:
    spec = spec_of("mesos", master=masters)
    assert {env(spec, n.name)["MESOS_QUORUM"] for n in spec.of_role("master")} == {quorum}


def test_every_node_finds_every_zookeeper() -> None:
    spec = spec_of("mesos", kv=3, master=3, scheduler=3)
    hosts = ",".join(f"{n.address}:2181" for n in spec.of_role("kv"))
    assert hosts.count(",") == 2
    assert {env(spec, n.name)["MESOS_ZK"] for n in spec.of_role("master")} == {f"zk://{hosts}/mesos"}
    assert {env(spec, n.name)["MESOS_MASTER"] for n in spec.of_role("agent")} == {f"zk://{hosts}/mesos"}
    assert {env(spec, n.name)["MARATHON_MASTER"] for n in spec.of_role("scheduler")} == {f"zk://{hosts}/mesos"}
    assert {env(spec, n.name)["MARATHON_ZK"] for n in spec.of_role("scheduler")} == {f"zk://{hosts}/marathon"}


def test_an_agent_does_not_count_as_failed_before_its_session_with_zookeeper_ends() -> None:
    about = env(spec_of("mesos"), "master-1")
    ping = int(about["MESOS_AGENT_PING_TIMEOUT"].removesuffix("secs"))
    session = int(about["MESOS_ZK_SESSION_TIMEOUT"].removesuffix("secs"))
    assert ping * int(about["MESOS_MAX_AGENT_PING_TIMEOUTS"]) > session


def test_resources_are_settings() -> None:
    wanted = {"cpus": "0.5", "mem": "256", "ports": "20000-20010,30000-30000"}
    about = env(spec_of("mesos", set=wanted), "agent-2")
    assert about["MESOS_RESOURCES"] == "cpus:0.5;mem:256;disk:2000;ports:[20000-20010,30000-30000]"


def test_an_agent_may_have_resources_of_its_own() -> None:
    own = "cpus:4;mem:{{ settings.mem * 2 }}"
    spec = spec_of("mesos", set={"roles.agent.nodes.2.env.MESOS_RESOURCES": own, "roles.agent.nodes.9.env.NAME": "x"})
    assert env(spec, "agent-2")["MESOS_RESOURCES"] == "cpus:4;mem:2048"
    assert env(spec, "agent-1")["MESOS_RESOURCES"].startswith("cpus:2.0;mem:1024;")
    assert env(spec, "agent-2").keys() == env(spec, "agent-1").keys()


@pytest.mark.parametrize("node", ["0", "one", "-1"])
def test_values_of_a_node_are_by_its_number(node: str) -> None:
    with pytest.raises(ProfileError, match=rf"roles\.agent\.nodes\.{node} must be"):
        spec_of("mesos", set={f"roles.agent.nodes.{node}.env.NAME": "x"})


def test_zookeeper_is_the_other_profiles_own() -> None:
    """Build, files and hooks: a node of the two differs only in what Mesos adds."""
    ours, theirs = spec_of("mesos", kv=3).nodes[1], spec_of("zookeeper").nodes[1]
    assert {f.path: f for f in theirs.files}.items() <= {f.path: f for f in ours.files}.items()
    assert (ours.entrypoint, ours.command, ours.env, ours.volumes) == (
        theirs.entrypoint,
        theirs.command,
        theirs.env,
        theirs.volumes,
    )
    assert (ours.join, ours.leave, ours.ready) == (theirs.join, theirs.leave, theirs.ready)


def test_agents_come_and_go_without_recreating_another_node() -> None:
    before = spec_of("mesos")
    plan = reconcile(spec_of("mesos", previous=before, agent=4), standing(before, leader="master-1"))
    started = [s.action.name for s in plan.steps if isinstance(s.action, StartContainer)]
    assert started == ["c-agent-3", "c-agent-4"]


def test_nodes_start_after_those_that_they_find() -> None:
    plan = reconcile(spec_of("mesos", kv=3, master=3, scheduler=1), Observed("c", authority=AUTHORITY))
    needs = {step.id: set(step.needs) for step in plan.steps}
    for master in ("master-1", "master-2", "master-3"):
        assert {"ready kv-1", "ready kv-2", "ready kv-3"} <= needs[f"start {master}"]
        assert f"ready {master}" in needs["start agent-1"] & needs["start scheduler-1"]


def test_a_dry_run_needs_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise NoEngine("none answers")

    monkeypatch.setattr("minicluster.engine.discover.connect", refuse)
    plan = facade.dry_run("mesos", size={"kv": 3, "master": 3, "scheduler": 3})
    seen: set[str] = set()
    for step in plan.steps:
        assert set(step.needs) <= seen
        seen.add(step.id)
    started = [step.node.rpartition("-")[0] for step in plan.steps if isinstance(step.action, StartContainer)]
    assert list(dict.fromkeys(started)) == ["kv", "master", "agent", "scheduler"]
    assert {"image kv", "image master", "image agent", "image scheduler"} <= seen


# On an engine in memory


class FakeMesos:
    """Makes the nodes of a fake engine answer as those of the mesos profile do, all well as long as they run."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.late: dict[str, int] = {}  #: master -> how many lists still say that it has not answered in time
        engine.answers["mesos-members"] = self._members

    def _members(self, container: str, argv: Sequence[str]) -> ExecResult:
        cluster = self.engine.boxes[container].container.labels[labels.CLUSTER]
        states = {c.labels[labels.NODE]: c.state for c in self.engine.containers(cluster)}
        names = [n for n in states if n.startswith("kv-")] + [word.partition("=")[0] for word in argv[1].split()]
        late = {name for name, count in self.late.items() if count > 0}
        self.late = {name: count - 1 for name, count in self.late.items()}
        rows = [
            {
                "name": name,
                "ready": states.get(name) == "running" and name not in late,
                "voter": name.startswith(("kv-", "master-")),
                "leader": name in ("kv-1", "master-1", "scheduler-1"),
                "detail": "2 agents, frameworks: marathon" if name == "master-1" else "",
            }
            for name in names
        ]
        return ExecResult(0, "\n".join(map(json.dumps, rows)), "")


@pytest.fixture
def members(engine: FakeEngine) -> FakeMesos:
    return FakeMesos(engine)


@pytest.fixture
def mesos(engine: FakeEngine, members: FakeMesos) -> FakeEngine:
    return engine


def test_status_names_leader_quorums_agents_and_frameworks(mesos: FakeEngine) -> None:
    cluster = Cluster.up("mesos", name="m", size={"kv": 3, "master": 3}, engine=mesos)
    status = cluster.status()
    assert status.phase == "ready"
    assert {role: (q.healthy, q.voters, q.leader) for role, q in status.quorums.items()} == {
        "kv": (3, 3, "kv-1"),
        "master": (3, 3, "master-1"),
    }
    assert status.quorum == status.quorums["master"]
    assert [(n.name, n.detail) for n in status.nodes if n.detail] == [("master-1", "2 agents, frameworks: marathon")]
    mesos.kill_container("m-kv-2")
    assert cluster.status().quorum == status.quorums["kv"].__class__(3, 2, 2, 0, "kv-1")
    mesos.kill_container("m-master-2")
    mesos.kill_container("m-master-3")
    after = cluster.status()
    assert after.phase == "broken"
    assert after.quorum == after.quorums["master"]


def test_one_late_answer_does_not_stop_a_rolling_restart(mesos: FakeEngine, members: FakeMesos) -> None:
    cluster = Cluster.up("mesos", name="m", size={"master": 3}, engine=mesos)
    members.late = {"master-2": 1}
    cluster.restart("master", rolling=True)
    restarted = [name for kind, name in mesos.calls if kind == "stop_container"]
    assert restarted == ["m-master-2", "m-master-3", "m-master-1"]


def test_a_change_is_rolled_where_voters_answer_late(mesos: FakeEngine, members: FakeMesos) -> None:
    """Without their answers no quorum would be left to keep, and all would be replaced at the same time."""
    Cluster.up("mesos", name="m", size={"master": 3}, engine=mesos)
    members.late = {"master-2": 1, "master-3": 1}
    mesos.calls.clear()
    Cluster.up(name="m", set={"log_level": "WARNING"}, engine=mesos)
    calls = [(kind, name) for kind, name in mesos.calls if "m-master" in name and "_container" in kind]
    kinds = [kind for kind, _ in calls if kind in ("remove_container", "start_container")]
    assert kinds == ["remove_container", "start_container"] * 3


def test_a_voter_that_stays_unready_stops_a_rolling_restart(
    mesos: FakeEngine, members: FakeMesos, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minicluster.operations.observe._SETTLING", 0.3)
    cluster = Cluster.up("mesos", name="m", size={"master": 3}, engine=mesos)
    members.late = {"master-2": 1000}
    with pytest.raises(MiniclusterError, match="restarting master-3 would lose the quorum"):
        cluster.restart("master-3", rolling=True)


def test_env_has_a_url_and_an_address_for_each_role(mesos: FakeEngine) -> None:
    cluster = Cluster.up("mesos", name="m", engine=mesos)
    env, node = cluster.env(), {n.name: n for n in cluster.spec.nodes}
    assert env == {
        "MINICLUSTER_NETWORK_GATEWAY": cluster.spec.gateway,
        "MINICLUSTER_KV": f"zk://127.0.0.1:{node['kv-1'].endpoints[0].host_port}/mesos",
        "MINICLUSTER_KV_IP": node["kv-1"].address,
        "MINICLUSTER_MASTER": f"http://127.0.0.1:{node['master-1'].endpoints[0].host_port}",
        "MINICLUSTER_MASTER_IP": node["master-1"].address,
        "MINICLUSTER_AGENT": f"http://127.0.0.1:{node['agent-1'].endpoints[0].host_port}",
        "MINICLUSTER_AGENT_IP": node["agent-1"].address,
        "MINICLUSTER_SCHEDULER": f"http://127.0.0.1:{node['scheduler-1'].endpoints[0].host_port}",
        "MINICLUSTER_SCHEDULER_IP": node["scheduler-1"].address,
    }
    mesos.kill_container("m-agent-1")
    assert cluster.env()["MINICLUSTER_AGENT_IP"] == node["agent-2"].address


def test_without_a_scheduler_nothing_is_said_of_one(mesos: FakeEngine) -> None:
    cluster = Cluster.up("mesos", name="m", size={"scheduler": 0}, engine=mesos)
    assert not [name for name in cluster.env() if "SCHEDULER" in name]
    assert [i.name for i in cluster.spec.images.values()] == ["kv", "master", "agent"]


def test_a_balancer_is_there_if_asked_for(mesos: FakeEngine) -> None:
    cluster = Cluster.up("mesos", name="m", engine=mesos)
    assert not [name for name in cluster.env() if "BALANCER" in name]
    cluster.scale({"balancer": 1, "scheduler": 3})
    balancer = cluster.spec.of_role("balancer")[0]
    assert balancer.command == (" ".join(n.address for n in cluster.spec.of_role("scheduler")),)
    assert cluster.env()["MINICLUSTER_BALANCER_IP"] == balancer.address


def test_the_demo_image_is_added_to_images_for_agents_too(mesos: FakeEngine) -> None:
    own = {"master": "mine:1", "agent": "mine:1", "scheduler": "mine:1"}
    assert Cluster.up("mesos", name="m", image=own, engine=mesos).spec.demo_image == "localhost/minicluster/demo"


def test_a_scheduler_may_be_added_later(mesos: FakeEngine) -> None:
    cluster = Cluster.up("mesos", name="m", size={"scheduler": 0}, engine=mesos)
    cluster.scale({"scheduler": 1})
    assert [n.name for n in cluster.spec.of_role("scheduler")] == ["scheduler-1"]


def test_the_number_of_masters_is_immutable(mesos: FakeEngine) -> None:
    Cluster.up("mesos", name="m", engine=mesos)
    calls = len(mesos.calls)
    with pytest.raises(UsageError) as caught:
        Cluster.up(name="m", size={"master": 3}, engine=mesos)
    assert caught.value.what == "--size master=3: role master has 1 in cluster m, and that cannot change"
    assert all(kind == "exec" for kind, _ in mesos.calls[calls:])
    Cluster.up(name="m", size={"master": 1, "agent": 1}, engine=mesos)


def test_a_first_up_of_which_nothing_is_complete_may_have_another_number_of_masters(mesos: FakeEngine) -> None:
    mesos.fail("start_container", ImageError("interrupted"), match="m-master-1")
    mesos.fail("remove_container", KeyboardInterrupt())
    with pytest.raises(ImageError):
        Cluster.up("mesos", name="m", keep=True, engine=mesos)
    mesos.heal()
    assert len(Cluster.up(name="m", size={"master": 3}, engine=mesos).spec.of_role("master")) == 3


def test_another_architecture_is_refused_before_anything_is_done(
    mesos: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    info = mesos.info
    monkeypatch.setattr(FakeEngine, "info", property(lambda _self: replace(info, platform="linux/arm64")))
    with pytest.raises(ImageError) as caught:
        Cluster.up("mesos", name="m", engine=mesos)
    assert caught.value.what == "profile mesos cannot run on this engine, which is linux/arm64"
    assert caught.value.why == "Images for linux/amd64 only: master, agent, scheduler."
    assert "--image master=REF --image agent=REF --image scheduler=REF" in caught.value.fix
    assert mesos.empty()
    assert mesos.calls == []
    own = {"master": "mine:1", "agent": "mine:1", "scheduler": "mine:1"}
    assert Cluster.up("mesos", name="m", image=own, engine=mesos).change


def test_a_missing_image_is_one_error_with_the_ways_out_and_leaves_nothing(mesos: FakeEngine) -> None:
    mesos.every_image = False
    mesos.import_image([], base_image.REGISTRY)
    with pytest.raises(ImageError) as caught:
        Cluster.up("mesos", name="m", engine=mesos)
    assert "mesosphere/me" in caught.value.what or "mesosphere/marathon" in caught.value.what
    assert caught.value.why.startswith("There is no registry here.")
    for way in ("--image ", "=REF", "minicluster image import FILE", "registry-mirrors"):
        assert way in caught.value.fix
    assert mesos.empty()


def test_voters_of_one_role_are_no_help_to_those_of_another() -> None:
    """One of three ZooKeepers is down: two others may not go, however many masters there are."""
    before = spec_of("mesos", kv=3, master=3)
    members = [n.name for n in before.nodes]
    found = standing(before, members=members, leader="master-1", kv_1="exited")
    counted = {
        name: m.__class__(name, m.ready, name.startswith(("kv", "master")), m.leader)
        for name, m in (found.members or {}).items()
    }
    found = found.__class__(**{**found.__dict__, "members": counted})
    with pytest.raises(MiniclusterError, match="removing kv-3 would lose the quorum"):
        reconcile(spec_of("mesos", previous=before, kv=1, master=3), found)
