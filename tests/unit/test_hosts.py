"""Clusters on several hosts: placement, routing, records, hosts that are away. The hosts are engines in memory."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from minicluster import clusters, discovery, paths
from minicluster.cli.app import app
from minicluster.cli.planned import rows
from minicluster.cluster import Cluster
from minicluster.engine import client_config, discover
from minicluster.engine.address import EngineAddress
from minicluster.engine.docker import swarm
from minicluster.engine.docker.engine import DockerEngine
from minicluster.engine.hosts import HostsEngine
from minicluster.engine.http import APIError
from minicluster.engine.protocol import Cancel, Container, Engine, Swarm, SwarmNode, Volume
from minicluster.errors import MiniclusterError, NoCluster, NoEngine, NotFound, UsageError
from minicluster.model import labels
from minicluster.model.lease import Lease
from minicluster.operations import (
    client_folder,
    down,
    host_record,
    hosts as operations,
    hosts_check,
    hosts_swarm,
    remove_expired,
)
from minicluster.operations.summaries import summaries
from minicluster.operations.up import plan as plan_up
from minicluster.operations.up_options import UpOptions
from minicluster.plan import placement
from minicluster.plan.placement import Host
from minicluster.plan.steps import ForgetHost, ProvideImage
from tests.fakes import Box, FakeEngine, FakeEtcd

NAMES = ("a", "b", "c")


class Machines:
    """Three engines in memory that are part of one swarm, and the nodes of etcd on all of them."""

    def __init__(self, *names: str) -> None:
        self.engines = {name: FakeEngine() for name in names or NAMES}
        first = next(iter(self.engines.values()))
        nodes = tuple(
            SwarmNode(f"id-{name}", name, f"10.9.0.{i}", True, True, i == 1) for i, name in enumerate(self.engines, 1)
        )
        for i, (name, engine) in enumerate(self.engines.items(), 1):
            engine.reference = json.dumps({"name": name})
            engine.nets = first.nets  # the swarm's
            engine.files["/proc/meminfo"] = f"MemTotal: 9000000 kB\nMemAvailable: {(9 - i) * 1000000} kB\n"
            engine.member = Swarm(f"id-{name}", f"10.9.0.{i}", "swarm", {labels.HOSTS: "a,b,c"}, True, nodes)
        self.etcd = FakeEtcd(first)
        for engine in self.engines.values():
            engine.answers = first.answers
        self.joined = self.etcd.engine = Joined(self.engines)

    def hosts(self, *away: str) -> HostsEngine:
        """As one engine; some do not answer, and their nodes are cut off."""
        self.joined.away = away
        for engine in self.engines.values():
            nodes = tuple(replace(node, ready=node.name not in away) for node in engine.member.nodes)
            engine.member = replace(engine.member, nodes=nodes)
        there: dict[str, Engine] = {name: engine for name, engine in self.engines.items() if name not in away}
        return HostsEngine(there, dict.fromkeys(away, "no answer in time"))


class Joined(FakeEngine):
    """All that there is on several engines in memory, for what etcd's nodes know of each other."""

    def __init__(self, engines: dict[str, FakeEngine]) -> None:
        super().__init__()
        self.engines = engines

    away: tuple[str, ...] = ()

    def _there(self) -> list[FakeEngine]:
        return [engine for name, engine in self.__dict__.get("engines", {}).items() if name not in self.away]

    @property
    def boxes(self) -> dict[str, Box]:  # type: ignore[override]
        found = [(name, box) for engine in self._there() for name, box in engine.boxes.items()]
        return dict(sorted(found, key=lambda pair: pair[1].container.alive))  # a former one has ended

    @boxes.setter
    def boxes(self, _value: object) -> None:
        pass

    @property
    def vols(self) -> dict[str, Volume]:  # type: ignore[override]
        """Of two of one name that which a node has mounted: the other one is of a host that the node was moved from."""
        volumes = {name: volume for engine in reversed(self._there()) for name, volume in engine.vols.items()}
        boxes = [(engine, box) for engine in self._there() for box in [*engine.boxes.values()] if box.config]
        for engine, box in sorted(boxes, key=lambda pair: pair[1].container.alive):  # a former one has ended
            mounted = box.config.volumes.values() if box.config else ()
            volumes |= {name: engine.vols[name] for name in mounted if name in engine.vols}
        return volumes

    @vols.setter
    def vols(self, _value: object) -> None:
        pass


@pytest.fixture
def machines() -> Machines:
    return Machines()


def up(engine: HostsEngine, **options: object) -> Cluster:
    """An etcd of three."""
    return Cluster.up("etcd", name="e", engine=engine, **options)  # type: ignore[arg-type]


def where(cluster: Cluster) -> dict[str, str]:
    return {node.name: node.host for node in cluster.spec.nodes}


def test_up_spreads_voters_and_each_host_has_what_is_its_own(machines: Machines) -> None:
    cluster = up(machines.hosts())
    assert where(cluster) == {"kv-1": "a", "kv-2": "b", "kv-3": "c"}
    for name, node in zip(NAMES, ("kv-1", "kv-2", "kv-3"), strict=True):
        engine = machines.engines[name]
        assert [c.name for c in engine.containers("e")] == [f"e-{node}"]
        assert {v.name for v in engine.volumes("e")} == {f"e-{node}-var-lib-etcd", "e-spec-1"}
        assert all(v.labels[labels.HOSTS] == "a,b,c" for v in engine.volumes("e"))
    assert [n.name for n in machines.hosts().networks("e")] == ["e-net"]
    status = Cluster.open("e", engine=machines.hosts()).status()
    assert status.phase == "ready"
    assert [node.host for node in status.nodes] == ["a", "b", "c"]
    assert host_record.read("e") == NAMES


def test_down_leaves_nothing_on_any_host(machines: Machines) -> None:
    up(machines.hosts()).down()
    assert all(engine.empty() for engine in machines.engines.values())
    assert host_record.read("e") == ()


def test_what_hosts_have_of_their_own_is_not_seen(machines: Machines) -> None:
    Cluster.up("etcd", name="own", size={"kv": 1}, engine=machines.engines["b"])
    engine = machines.hosts()
    assert (engine.containers(), engine.volumes(), engine.networks()) == ([], [], [])


def test_endpoints_have_the_address_of_the_host(machines: Machines) -> None:
    cluster = up(machines.hosts())
    assert [e.host for e in cluster.endpoints("client")] == ["10.9.0.1", "10.9.0.2", "10.9.0.3"]
    config = machines.engines["b"].boxes["e-kv-2"].config
    assert config
    assert (config.bind_address, config.local_ports) == ("10.9.0.2", ())
    node = cluster.spec.node("kv-2")
    assert node
    assert "10.9.0.2" in node.certificates[0].addresses


def test_endpoints_without_a_login_stay_on_their_host_unless_gateway_is_said(machines: Machines) -> None:
    cluster = up(machines.hosts(), set={"tls": False})
    assert {e.host for e in cluster.endpoints("client")} == {"127.0.0.1"}
    config = machines.engines["a"].boxes["e-kv-1"].config
    assert config
    assert config.local_ports == ("2379/tcp",)
    opened = up(machines.hosts(), set={"tls": False}, address_mode="gateway")
    assert [e.host for e in opened.endpoints("client")] == ["10.9.0.1", "10.9.0.2", "10.9.0.3"]
    again = up(machines.hosts(), set={"tls": False})
    assert again.change
    assert not again.change.changed


def test_verbs_reach_the_host_that_has_the_node(machines: Machines) -> None:
    cluster = up(machines.hosts())
    cluster.stop(["kv-2"])
    assert machines.engines["b"].boxes["e-kv-2"].container.state == "exited"
    cluster.start(["kv-2"])
    machines.engines["c"].boxes["e-kv-3"].log = [b"hello from c"]
    assert [*cluster.logs(["kv-3"])] == [("kv-3", "hello from c")]
    assert cluster.exec("kv-3", ["etcd-ready"]).exit_code == 0
    assert [node.memory for node in cluster.usage().nodes] == [1 << 20] * 3
    cluster.scale({"kv": 5})
    assert where(cluster) == {"kv-1": "a", "kv-2": "b", "kv-3": "c", "kv-4": "a", "kv-5": "b"}
    cluster.scale({"kv": 3})
    assert sorted(c.name for c in machines.hosts().containers("e")) == ["e-kv-1", "e-kv-2", "e-kv-3"]


def holders(machines: Machines) -> dict[str, list[str]]:
    """Host -> the helpers of faults that it has."""
    found = {
        name: [c.name for c in e.containers("e") if labels.FAULT in c.labels] for name, e in machines.engines.items()
    }
    return {host: names for host, names in found.items() if names}


def test_a_fault_of_nodes_on_several_hosts_has_a_helper_on_each(machines: Machines) -> None:
    cluster = up(machines.hosts())
    with cluster.partition("kv-1", ["kv-2", "kv-3"]):
        assert holders(machines) == {host: [f"e-fault.{host}.1"] for host in NAMES}
        for host, node in zip(NAMES, ("e-kv-1", "e-kv-2", "e-kv-3"), strict=True):
            (job,) = [job for job in machines.engines[host].jobs if job.on_containers]
            assert [word.split()[0] for word in job.command[2:]] == ["drop", "--", "sweep"], "of its own node alone"
            assert job.beside == node
        (found,) = cluster.faults()
        assert found.nodes == ("kv-1", "kv-2", "kv-3")
        with cluster.fault.dns("kv-2") as other:
            assert other.id == "2"
            assert holders(machines)["b"] == ["e-fault.b.1", "e-fault.b.2"]
    assert holders(machines) == {}
    cluster.fault.loss("kv-1", 100, to="kv-3")
    assert holders(machines) == {"c": ["e-fault.c.1"]}
    cluster.heal()
    assert holders(machines) == {}


def test_a_fault_on_a_host_that_does_not_answer_is_not_said_to_be_healed(machines: Machines) -> None:
    cluster = up(machines.hosts())
    cluster.fault.dns("kv-1")
    cluster.partition(["kv-1", "kv-2"], "kv-3")
    away = Cluster.open("e", engine=machines.hosts("c"))
    assert [(one.text, one.lost) for one in away.faults()] == [
        ("dns kv-1", ()),
        ("partition kv-1 kv-2 / kv-3", ()),  # it may be in force there
    ]
    assert away.heal("1") == ("dns kv-1",)  # it has nothing there
    with pytest.raises(MiniclusterError) as error:
        away.heal("2")
    assert error.value.exit_code == 1
    assert error.value.what == "cluster e could not be healed on host c"
    assert error.value.why == "c does not answer: no answer in time"
    assert "`minicluster heal 2 -c e`" in error.value.fix
    assert error.value.leftovers == ("partition kv-1 kv-2 / kv-3 in kv-3 on host c",)
    assert holders(machines) == {"c": ["e-fault.c.2"]}
    with pytest.raises(MiniclusterError) as error:  # what is there nobody knows by now
        away.heal()
    assert error.value.leftovers == ("any fault in kv-3 on host c",)
    assert Cluster.open("e", engine=machines.hosts()).heal() == ("partition kv-1 kv-2 / kv-3",)
    assert holders(machines) == {}


def test_all_that_can_be_healed_is_healed_where_a_host_does_not_answer(machines: Machines) -> None:
    cluster = up(machines.hosts())
    cluster.fault.dns("kv")
    cluster.fault.loss("kv-3", 5, to="kv-1")
    with pytest.raises(MiniclusterError) as error:
        Cluster.open("e", engine=machines.hosts("b", "c")).heal()
    assert error.value.what == "cluster e could not be healed on host b, c"
    assert "Healed: loss kv-3 5% --to kv-1" in error.value.why
    assert error.value.leftovers == ("dns kv-1 kv-2 kv-3 in kv-2 on host b", "dns kv-1 kv-2 kv-3 in kv-3 on host c")
    assert holders(machines) == {"b": ["e-fault.b.1"], "c": ["e-fault.c.1"]}


def test_the_end_of_a_block_is_not_silent_where_a_host_stops_answering(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_words: object) -> None:
        raise NoEngine("no answer", "it is cut off")

    up(machines.hosts())
    opened = [Cluster.open("e", engine=machines.hosts()) for _ in range(3)]
    over = opened[0].fault.loss("kv-3", 5, seconds=0.001)
    with pytest.raises(MiniclusterError, match="could not be healed on host c") as error, opened[1].fault.dns("kv"):
        monkeypatch.setattr(machines.engines["c"], "end_job", silent)
    assert error.value.why == "c does not answer: it is cut off"
    assert holders(machines) == {"c": ["e-fault.c.1", "e-fault.c.2"]}
    with pytest.raises(ZeroDivisionError), opened[2].fault.hang("kv", "etcd"):
        raise ZeroDivisionError  # says more than what follows from it
    assert holders(machines) == {"c": ["e-fault.c.1", "e-fault.c.2", "e-fault.c.3"]}
    over.heal()  # it has ended by itself, there too


def test_a_fault_that_fails_on_one_host_is_undone_on_all(machines: Machines) -> None:
    cluster = up(machines.hosts())
    machines.engines["c"].helper_says = "failed: no process x there"
    with pytest.raises(MiniclusterError, match="cannot apply: hang kv-1 kv-2 kv-3 x"):
        cluster.fault.hang("kv", "x")
    assert holders(machines) == {}


def test_a_host_that_is_gone_is_named_and_its_nodes_move(machines: Machines) -> None:
    up(machines.hosts())
    away = machines.hosts("c")
    machines.engines["c"].boxes["e-kv-3"].to("exited")
    status = Cluster.open("e", engine=away).status()
    assert status.phase == "degraded"
    assert [(n.phase, n.probe) for n in status.nodes][2] == ("unknown", "host c does not answer")
    said = "host c does not answer (no answer in time): kv-3 cannot be reached; `minicluster up --name e` puts them on"
    assert any(said in note for note in status.notes)
    most = Cluster.open("e", engine=machines.hosts("b", "c")).status()
    assert any("kv-2 cannot be moved to other hosts: start the engine of this one" in note for note in most.notes)
    machines.engines["b"].boxes["e-kv-2"].to("running")
    moved = up(machines.hosts("c"))
    assert where(moved) == {"kv-1": "a", "kv-2": "b", "kv-3": "a"}
    assert "e-kv-3" in machines.engines["a"].boxes
    assert "e-kv-3" in machines.engines["c"].boxes  # nobody could remove it

    back = machines.hosts()
    names = {c.name: c.host for c in back.containers("e")}
    assert names == {"e-kv-1": "a", "e-kv-2": "b", "e-kv-3": "a", "e-kv-3@c": "c"}
    notes = Cluster.open("e", engine=back).status().notes
    assert any("host c still has a former kv-3" in note for note in notes)
    assert up(machines.hosts()).status().phase == "ready"
    assert "e-kv-3" not in machines.engines["c"].boxes
    assert [v.name for v in machines.engines["c"].volumes("e")] == ["e-spec-2"]  # as on the others
    up(machines.hosts()).down()
    assert all(engine.empty() for engine in machines.engines.values())


def test_down_says_what_is_left_where_and_removes_it_once_the_host_is_back(machines: Machines) -> None:
    up(machines.hosts())
    with pytest.raises(MiniclusterError) as error:
        Cluster.open("e", engine=machines.hosts("c")).down()
    assert error.value.what == "cluster e could not be removed from host c"
    assert "container e-kv-3 on host c" in error.value.leftovers
    assert "volume e-kv-3-var-lib-etcd on host c" in error.value.leftovers
    assert machines.engines["a"].containers() == []
    assert [v.name for v in machines.engines["a"].volumes()] == ["e-spec-1"]
    assert host_record.read("e") == NAMES
    with pytest.raises(MiniclusterError, match="could not be removed from host c"):  # it is still away
        Cluster.open("e", engine=machines.hosts("c")).down()
    Cluster.open("e", engine=machines.hosts()).down()
    assert all(engine.empty() for engine in machines.engines.values())
    assert host_record.read("e") == ()


def test_a_host_can_be_replaced_by_another_one() -> None:
    machines = Machines("a", "b", "c", "d")
    up(HostsEngine({n: machines.engines[n] for n in "abc"}), hosts=["a", "b", "c"])
    cluster = up(machines.hosts(), hosts=["a", "b", "d"])
    assert where(cluster) == {"kv-1": "a", "kv-2": "b", "kv-3": "d"}
    assert "e-kv-3" not in machines.engines["c"].boxes
    assert cluster.status().phase == "ready"
    assert [v.name for v in machines.engines["c"].volumes("e")] == []
    assert host_record.read("e") == ("a", "b", "d")


def test_what_was_placed_before_may_be_scaled_away(machines: Machines) -> None:
    cluster = up(machines.hosts(), size={"kv": 5}, place={"kv-4": "c"})
    assert where(cluster)["kv-4"] == "c"
    cluster.scale({"kv": 3})
    with pytest.raises(UsageError, match="--place kv-4=c: no role or node 'kv-4'"):
        up(machines.hosts(), place={"kv-4": "c"})
    cluster.scale({"kv": 5})
    assert where(cluster)["kv-4"] == "c", "it is still in force"
    cluster.scale({"kv": 3})
    assert up(machines.hosts(), place={"kv-4": "any"}).spec.overrides.place == {}


def test_what_was_placed_before_on_a_former_host_is_said_with_the_way_out() -> None:
    machines = Machines("a", "b", "c", "d")
    up(some(machines, "a", "b", "c"), hosts=["a", "b", "c"], place={"kv-3": "c", "kv-1": "a,c"})
    with pytest.raises(UsageError) as error:
        up(machines.hosts(), hosts=["a", "b", "d"])
    assert error.value.what == "--place kv-3=c, which was said before, leaves no host for kv-3"
    assert error.value.why == "The cluster's hosts are a, b, d."
    assert error.value.fix == "`--place kv-3=any` takes it back; or place it on one of these."
    moved = up(machines.hosts(), hosts=["a", "b", "d"], place={"kv-3": "any"})
    assert where(moved) == {"kv-1": "a", "kv-2": "b", "kv-3": "d"}
    assert moved.spec.overrides.place == {"kv-1": "a,c"}


def test_so_many_voters_as_a_quorum_do_not_move_at_once(machines: Machines) -> None:
    up(machines.hosts())
    for away in (("b", "c"), ("a", "c")):
        with pytest.raises(MiniclusterError, match="cannot move to other hosts at once"):
            up(machines.hosts(*away))
    with pytest.raises(MiniclusterError, match="kv-2, kv-3 cannot move to other hosts at once"):
        up(machines.hosts(), hosts=["a"])
    cluster = up(machines.hosts(), place={"kv-2": "c"})
    assert where(cluster) == {"kv-1": "a", "kv-2": "c", "kv-3": "c"}
    assert "e-kv-2" not in machines.engines["b"].boxes
    assert cluster.status().phase == "ready"


def test_a_lost_member_leaves_the_swarm_before_its_nodes_move(machines: Machines) -> None:
    up(machines.hosts())
    plan = plan_up(machines.hosts("c"), "e", UpOptions()).plan
    steps = {step.id: step for step in plan.steps}
    assert steps["forget c"].action == ForgetHost("c", "id-c")
    assert "forget c" in steps["create kv-3"].needs
    up(machines.hosts("c"))
    assert ("forget_swarm_node", "id-c") in [*machines.engines["a"].calls, *machines.engines["b"].calls]
    for name in ("a", "b"):  # a swarm of somebody else
        machines.engines[name].member = replace(machines.engines[name].member, labels={})
    up(machines.hosts(), place={"kv-3": "c"})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ready": True}, "its swarm still gets answers from it"),
        ({"address": "192.0.2.7"}, "cannot be moved while it is a member of the swarm"),  # it may be another machine
    ],
)
def test_no_other_host_than_the_lost_one_is_removed_from_the_swarm(
    machines: Machines, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr(operations, "_NOTICED", 0.0)
    up(machines.hosts())
    hosts = machines.hosts("c")
    for engine in machines.engines.values():
        nodes = (*engine.member.nodes[:2], replace(engine.member.nodes[2], **changes))
        engine.member = replace(engine.member, nodes=nodes)
    with pytest.raises(MiniclusterError) as error:
        up(hosts)
    assert words in error.value.what
    assert not [call for engine in machines.engines.values() for call in engine.calls if call[0] == "forget_swarm_node"]


def test_the_plan_says_why_a_node_is_where_it_is(machines: Machines) -> None:
    plan = plan_up(machines.hosts(), "e", UpOptions(profile="etcd", place={"kv-1": "c"})).plan
    causes = {step.id: step.cause for step in plan.steps}
    assert causes["create kv-1"] == "the node does not exist yet; on c: --place kv-1=c"
    assert causes["create kv-2"] == "the node does not exist yet; on a: no kv there, 7.6 GiB of memory free"
    assert causes["create kv-3"] == "the node does not exist yet; on b: no kv there"
    assert any("create container e-kv-1 (172.28.0.2) on c" in what for _n, what, _why, _after in rows(plan))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"place": {"kv-9": "a"}}, "no role or node 'kv-9'"),
        ({"place": {"kv": "a,x"}}, "'x' is not one of the hosts"),
        ({"address_mode": "bridge"}, "--address-mode bridge cannot be used with several hosts"),
        ({"bind_address": "10.0.0.1"}, "--bind-address cannot be used with several hosts"),
        ({"networks": ["x"]}, "--network cannot be used with several hosts"),
    ],
)
def test_what_cannot_be_is_refused(machines: Machines, options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as error:
        up(machines.hosts(), **options)
    assert words in error.value.what
    assert all(engine.empty() for engine in machines.engines.values())


def test_hosts_without_a_swarm_are_refused(machines: Machines) -> None:
    machines.engines["b"].member = Swarm()
    with pytest.raises(MiniclusterError) as error:
        up(machines.hosts())
    assert error.value.what == "b: not part of a Docker Swarm"
    assert "minicluster hosts init a,b,c" in error.value.fix
    machines.engines["b"].member = Swarm("id-x", "10.9.0.9")
    with pytest.raises(MiniclusterError) as error:
        up(machines.hosts())
    assert error.value.what == "host b is part of another Docker Swarm than the others"


def test_place_and_encrypt_need_several_hosts(engine: FakeEngine) -> None:
    for options in ({"place": {"kv": "a"}}, {"encrypt": True}):
        with pytest.raises(UsageError, match="needs several hosts"):
            Cluster.up("etcd", name="e", engine=engine, **options)  # type: ignore[arg-type]


def test_hosts_that_are_one_engine_are_refused(machines: Machines) -> None:
    machines.engines["a"].id = machines.engines["c"].id = "same"
    for act in (up, hosts_swarm.init):
        with pytest.raises(UsageError, match="hosts a, c are the same engine"):
            act(machines.hosts())
    assert all(engine.empty() for engine in machines.engines.values())
    (note,) = hosts_check.status(machines.hosts()).notes
    assert note.startswith("Hosts a, c are the same engine. Nodes on them would be lost together. Name only one")


def test_hosts_of_different_platforms_are_refused(machines: Machines) -> None:
    machines.engines["b"].platform = "linux/arm64"
    with pytest.raises(UsageError, match="the hosts have different platforms") as error:
        up(machines.hosts())
    assert "linux/amd64: a, c.\nlinux/arm64: b.\n" in error.value.why


def test_an_engine_of_another_platform_builds_no_images_for_hosts(machines: Machines) -> None:
    home = FakeEngine()
    for engine in machines.engines.values():
        engine.missing.add("only/home:1")
    assert HostsEngine(machines.engines, home=lambda: home).has_image("only/home:1")
    home.platform = "linux/arm64"
    assert not HostsEngine(machines.engines, home=lambda: home).has_image("only/home:1")


def test_a_clock_that_is_behind_is_refused(machines: Machines) -> None:
    """Certificates are valid from an hour before they are made."""
    machines.engines["b"].ahead = -3500
    up(machines.hosts()).down()
    machines.engines["b"].ahead = -7200
    with pytest.raises(MiniclusterError, match="the clock of host b is behind") as error:
        up(machines.hosts())
    assert "b: by 120 minutes" in error.value.why
    assert all(engine.empty() for engine in machines.engines.values())


REQUIRED = {"roles.agent.shared_required": "true", "roles.master.shared_required": "true"}


def test_a_shared_volume_is_refused_with_the_way_out(machines: Machines) -> None:
    with pytest.raises(UsageError) as error:
        plan_up(machines.hosts(), "k", UpOptions(profile="kubernetes", size={"agent": 20}, set=REQUIRED))
    assert "share /tmp/hostpath_pv, and cannot be on several hosts" in error.value.what
    assert error.value.fix == "Put these nodes on one host: --place master=a --place agent=a."


def test_what_a_profile_can_do_without_is_not_shared_on_several_hosts(machines: Machines) -> None:
    spec = plan_up(machines.hosts(), "k", UpOptions(profile="kubernetes", size={"agent": 3})).spec
    assert {node.shared for node in spec.nodes} == {()}
    assert {"SEVERAL_HOSTS=yes" in file.content for n in spec.nodes for file in n.files if "node.env" in file.path} == {
        True
    }
    alone = plan_up(FakeEngine(), "k", UpOptions(profile="kubernetes", size={"agent": 3})).spec
    assert {node.shared for node in alone.of_role("agent")} == {("/tmp/hostpath_pv",)}
    assert not [file for n in alone.nodes for file in n.files if "SEVERAL_HOSTS=yes" in file.content]


def test_thirty_agents_go_where_memory_is_free(machines: Machines) -> None:
    found = plan_up(machines.hosts(), "k", UpOptions(profile="kubernetes", size={"agent": 30, "master": 3}))
    masters = [node.host for node in found.spec.of_role("master")]
    assert sorted(masters) == ["a", "b", "c"]
    agents = [node.host for node in found.spec.of_role("agent")]
    counts = [agents.count(name) for name in NAMES]
    assert counts[0] > counts[1] > counts[2] > 0  # as they have less and less memory
    told = [f"{what} {why}" for _n, what, why, _after in rows(found.plan) if "create container k-agent-" in what]
    assert len(told) == 30
    assert all(f" on {host} " in line and "of memory free" in line for line, host in zip(told, agents, strict=True))


# Several as one


def test_a_host_that_stops_answering_is_left_out(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    up(machines.hosts())
    engine = machines.hosts()

    def lost(_cluster: str | None = None) -> list[Container]:
        raise NoEngine("the engine stopped answering: list containers", "timed out")

    monkeypatch.setattr(machines.engines["b"], "containers", lost)
    assert [c.name for c in engine.containers("e")] == ["e-kv-1", "e-kv-3"]
    assert engine.gone == {"b": "timed out"}
    assert [*engine.hosts] == ["a", "c"]


def test_records_of_before_do_not_count(machines: Machines) -> None:
    """A host that was away while the spec changed has an old record, and no new one."""
    up(machines.hosts())
    up(machines.hosts("c"), size={"kv": 1}, force=True)
    spec = [v.name for v in machines.hosts().volumes("e") if labels.REVISION in v.labels]
    newest = max(v.name for v in machines.engines["a"].volumes("e") if labels.REVISION in v.labels)
    assert sorted(spec) == sorted([newest, "e-spec-1@c"])
    assert Cluster.open("e", engine=machines.hosts()).status().phase == "ready"


def test_hosts_that_lack_an_image_get_it_from_one_that_has_it(machines: Machines) -> None:
    found = plan_up(machines.hosts(), "e", UpOptions(profile="etcd"))
    ref = found.spec.images["node"].ref
    for name in ("b", "c"):
        machines.engines[name].missing.add(ref)
    plan = plan_up(machines.hosts(), "e", UpOptions(profile="etcd")).plan
    assert [step.action.hosts for step in plan.steps if isinstance(step.action, ProvideImage)] == [("b", "c")]
    up(machines.hosts())
    assert all(ref in machines.engines[name].refs for name in ("b", "c"))
    calls = {name: [call for call, _what in engine.calls] for name, engine in machines.engines.items()}
    assert "load_images" not in calls["a"]
    assert not [name for name in NAMES if "build_image" in calls[name]]
    assert not up(machines.hosts()).change.changed  # type: ignore[union-attr]


def test_events_of_all_hosts_come_together(machines: Machines) -> None:
    cluster, cancel, found = up(machines.hosts()), Cancel(), []
    events = machines.hosts().events("e", since=0.0, cancel=cancel)
    cluster.stop(["kv-1", "kv-3"])
    wanted = {("e-kv-1", "stop"), ("e-kv-3", "stop")}
    for event in events:
        found.append((event.name, event.action))
        if wanted <= {*found}:
            break
    cancel.set()
    assert {name for name, action in found if action == "start"} == {"e-kv-1", "e-kv-2", "e-kv-3"}


def test_placement_is_stable(machines: Machines) -> None:
    cluster = up(machines.hosts(), hosts=["a", "b", "c"])
    hosts = {name: Host(f"10.9.0.{i}", 1 << 34) for i, name in enumerate(NAMES, 1)}
    bare = replace(cluster.spec, nodes=tuple(replace(node, host="") for node in cluster.spec.nodes), hosts={})
    again, why = placement.place(bare, cluster.spec, hosts, {})
    assert ([node.host for node in again.nodes], why) == (["a", "b", "c"], {})


@pytest.mark.parametrize(
    ("profile", "size", "lost", "stuck"),
    [
        ("etcd", {"kv": 3}, ["kv-1"], []),
        ("etcd", {"kv": 3}, ["kv-1", "kv-2"], ["kv-1", "kv-2"]),
        ("kubernetes", {"master": 3, "kv": 3}, ["master-2", "agent-1"], ["master-2"]),  # a master cannot join again
        ("kubernetes", {"agent": 2}, ["agent-1", "agent-2"], []),
    ],
)
def test_which_nodes_of_a_lost_host_cannot_move(
    engine: FakeEngine, profile: str, size: dict[str, int], lost: list[str], stuck: list[str]
) -> None:
    spec = plan_up(engine, "e", UpOptions(profile=profile, size=size)).spec
    assert placement.immovable(spec, lost) == stuck


def test_down_of_all_opens_the_hosts_of_several_clusters_once(
    machines: Machines, known: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "to_remove", lambda *_, **__: ({"e": [*NAMES], "f": [*NAMES]}, {}))
    monkeypatch.setattr(discover, "connect", lambda **_: FakeEngine())
    opened: list[Sequence[str]] = []

    def silent(names: Sequence[str]) -> HostsEngine:
        opened.append(names)
        raise NoEngine("no host answers")

    monkeypatch.setattr(discover, "open_hosts", silent)
    with pytest.raises(NoEngine):
        clusters.down(all=True)
    assert opened == [NAMES]


# Whole clusters, and records of where they are


def some(machines: Machines, *names: str) -> HostsEngine:
    return HostsEngine({name: machines.engines[name] for name in names})


@pytest.fixture
def known(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The docker contexts there are, whose engines are those in memory; no other engine answers."""
    contexts = [*NAMES]

    def opened(names: Sequence[str]) -> HostsEngine:
        if missing := [name for name in names if name not in contexts]:
            raise UsageError(f"host {missing[0]}: no docker context has that name")
        there: dict[str, Engine] = {name: machines.engines[name] for name in names if name in machines.engines}
        if not there:
            raise NoEngine("no host answers")
        return HostsEngine(there, {name: "timed out" for name in names if name not in there})

    def none(**_options: object) -> Engine:
        raise NoEngine("no container engine answers")

    monkeypatch.setattr(client_config, "contexts", lambda: contexts)
    monkeypatch.setattr(discover, "open_hosts", opened)
    monkeypatch.setattr(discover, "connect", none)
    return contexts


def test_down_waits_once_for_hosts_that_do_not_answer(
    machines: Machines, known: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Sequence[str]] = []

    def silent(names: Sequence[str]) -> HostsEngine:
        opened.append(names)
        raise NoEngine("no host answers")

    for name in ("e", "f"):
        host_record.write(name, NAMES)
    monkeypatch.setattr(discover, "open_hosts", silent)
    with pytest.raises(NoEngine):
        clusters.down(["e", "f"])
    assert opened == [NAMES]


def test_down_opens_hosts_once_for_all_clusters_on_them(
    machines: Machines, known: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    up(machines.hosts())
    opened: list[Sequence[str]] = []

    def counted(names: Sequence[str]) -> HostsEngine:
        opened.append(names)
        return some(machines, *names)

    for name in ("e", "f"):
        host_record.write(name, NAMES)
    monkeypatch.setattr(discover, "open_hosts", counted)
    assert [(change.cluster, change.changed) for change in clusters.down(["e", "f"])] == [("e", True), ("f", False)]
    assert opened == [NAMES]


def test_what_is_over_is_removed_where_all_its_hosts_are_named(machines: Machines, known: list[str]) -> None:
    up(machines.hosts(), lease=Lease(until=time.time() - 60))
    part = some(machines, "a", "b")
    for record in (NAMES, ()):  # also on a machine that did not make it
        host_record.forget("e")
        if record:
            host_record.write("e", record)
        assert remove_expired.collect(part) == []
        assert summaries(part) == []
    known.remove("c")  # its context is not this machine's any more, as it may never have been
    assert remove_expired.collect(part) == []
    assert [one.cluster for one in summaries(machines.hosts("c"))] == ["e"]
    assert len(machines.hosts().containers("e")) == 3
    host_record.write("e", NAMES)  # this machine made it, and has given up the host
    assert [one.removed for one in remove_expired.collect(part)] == [True]
    assert [c.name for c in machines.hosts().containers("e")] == ["e-kv-3"]


def test_a_lease_that_ends_leaves_no_record_unless_a_host_is_away(machines: Machines) -> None:
    up(machines.hosts(), lease=Lease(until=time.time() - 60))
    found = remove_expired.collect(machines.hosts("c"))
    assert [(one.removed, one.error) for one in found] == [(False, "cluster e could not be removed from host c")]
    assert host_record.read("e") == NAMES
    assert [one.removed for one in remove_expired.collect(machines.hosts())] == [True]
    assert all(engine.empty() for engine in machines.engines.values())
    assert host_record.read("e") == ()


def test_a_plain_up_goes_to_hosts_only_where_they_have_the_cluster(
    machines: Machines, known: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    up(machines.hosts())
    assert Cluster.up(name="e").engine.hosts
    machines.hosts()
    for engine in machines.engines.values():  # another machine removes it
        engine.boxes, engine.vols = {}, {}
    machines.engines["a"].nets.clear()
    own = FakeEngine()
    FakeEtcd(own)
    monkeypatch.setattr(discover, "connect", lambda **_options: own)
    assert Cluster.up("etcd", name="e", size={"kv": 1}).engine is own
    assert host_record.read("e") == ()


def test_what_was_refused_since_a_host_is_away_leaves_no_note(machines: Machines, known: list[str]) -> None:
    del machines.engines["c"]
    with pytest.raises(MiniclusterError, match="host c does not answer") as error:
        Cluster.up("etcd", name="e", hosts=NAMES)
    assert host_record.read("e") == ()
    assert error.value.fix == "Start its engine, or leave it out of the hosts: `--hosts a,b`."
    assert {*where(Cluster.up("etcd", name="e", hosts=["a", "b"])).values()} == {"a", "b"}
    assert host_record.read("e") == ("a", "b")


def test_a_cluster_that_was_noted_on_a_host_that_is_away_can_be_made_on_others(
    machines: Machines, known: list[str]
) -> None:
    """Others have removed it, and what the host that is away has of it is not known."""
    host_record.write("e", NAMES)
    away = machines.engines.pop("c")
    with pytest.raises(MiniclusterError, match="host c does not answer") as error:
        Cluster.up("etcd", name="e")  # it may be there
    assert "`--hosts a,b`" in error.value.fix
    assert host_record.read("e") == NAMES
    cluster = Cluster.up("etcd", name="e", hosts=["a", "b"])
    assert [*cluster.spec.hosts] == ["a", "b"]
    assert host_record.read("e") == NAMES
    machines.engines["c"] = away
    away.create_volume("e-spec-0", {labels.CLUSTER: "e", labels.HOSTS: "a,b,c", labels.REVISION: "0"})
    clusters.down(["e"])
    assert all(engine.empty() for engine in machines.engines.values())
    assert host_record.read("e") == ()


def test_down_says_that_a_host_that_is_away_may_have_something(machines: Machines, known: list[str]) -> None:
    host_record.write("e", NAMES)
    away = machines.engines.pop("c")
    with pytest.raises(MiniclusterError) as error:
        clusters.down(["e"])
    assert error.value.what == "hosts a,b have nothing of cluster e; host c may have something of it"
    assert "`minicluster up --name e --hosts a,b` makes the cluster without it." in error.value.fix
    assert error.value.leftovers == ("what it had on host c, if anything",)
    assert host_record.read("e") == NAMES
    machines.engines["c"] = away
    assert [change.changed for change in clusters.down(["e"])] == [False]
    assert host_record.read("e") == ()


def test_a_first_up_during_which_a_host_is_lost_says_what_is_left_there(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(_name: str) -> None:
        raise NoEngine("the engine stopped answering: start container", "timed out")

    monkeypatch.setattr(machines.engines["c"], "start_container", lost)
    with pytest.raises(MiniclusterError) as error:
        up(machines.hosts())
    assert "container e-kv-3 on host c" in error.value.leftovers
    assert "has been removed" not in error.value.why
    assert "`minicluster down e` removes what is left." in error.value.fix
    assert host_record.read("e") == NAMES
    monkeypatch.undo()
    Cluster.open("e", engine=machines.hosts()).down()
    assert all(engine.empty() for engine in machines.engines.values())
    assert host_record.read("e") == ()


def test_a_client_s_folder_is_removed_though_a_host_is_away(machines: Machines) -> None:
    cluster = up(machines.hosts())
    cluster.write_client_files()
    folder = paths.client_directory("e")
    assert folder.exists()
    client_folder.remove("e", some(machines, "a"))
    assert not folder.exists()
    cluster.write_client_files()
    client_folder.remove("e", HostsEngine({"d": FakeEngine()}))
    client_folder.remove("e", machines.engines["a"])
    assert folder.exists()
    with pytest.raises(MiniclusterError, match="could not be removed from host c"):
        Cluster.open("e", engine=machines.hosts("c")).down()
    assert not folder.exists()


def test_down_goes_on_where_hosts_of_one_cluster_do_not_answer(machines: Machines, known: list[str]) -> None:
    up(machines.hosts())
    known.append("z")
    host_record.write("elsewhere", ["z"])
    with pytest.raises(NoEngine, match="no host answers"):
        clusters.down(["elsewhere", "e"])
    assert all(engine.empty() for engine in machines.engines.values())
    assert host_record.read("elsewhere") == ("z",)


def test_a_client_without_a_name_finds_the_only_cluster_that_has_it(machines: Machines, known: list[str]) -> None:
    up(machines.hosts())
    assert discovery.with_program(None, "etcdctl", None) == "e"
    own = FakeEngine()
    FakeEtcd(own)
    Cluster.up("etcd", name="own", size={"kv": 1}, engine=own)
    with pytest.raises(UsageError, match="several clusters have a client 'etcdctl'") as error:
        discovery.with_program(own, "etcdctl", None)
    assert error.value.why == "Clusters: own, e."
    with pytest.raises(NoCluster, match="no cluster has a client 'consul'"):
        discovery.with_program(own, "consul", None)
    assert discovery.with_program(own, "consul", "e") == "e"


def test_several_clusters_on_hosts_are_named_where_no_engine_answers(machines: Machines, known: list[str]) -> None:
    up(machines.hosts())
    host_record.write("f", NAMES)
    with pytest.raises(UsageError, match="several clusters exist") as error:
        Cluster.open()
    assert error.value.why == "Clusters: e, f."


def test_listing_and_removal_list_volumes_no_more_than_needed(engine: FakeEngine) -> None:
    """The engine of one machine: it pays nothing for clusters on several hosts."""
    FakeEtcd(engine)
    Cluster.up("etcd", name="e", size={"kv": 1}, engine=engine)

    def asked(act: Callable[[], object]) -> int:
        seen = []
        listed = engine.volumes
        engine.volumes = lambda cluster=None: (seen.append(cluster), listed(cluster))[1]  # type: ignore[method-assign]
        try:
            act()
        finally:
            engine.volumes = listed  # type: ignore[method-assign]
        return len(seen)

    assert asked(lambda: clusters.clusters(engine)) == 1
    assert asked(lambda: clusters.down(engine=engine)) == 3  # which one, what it has, and whether anything is left


def test_a_machine_that_knows_some_of_the_hosts_removes_no_part(machines: Machines, known: list[str]) -> None:
    up(machines.hosts())
    Cluster.up("etcd", name="own", size={"kv": 1}, engine=machines.engines["a"])
    host_record.forget("e")
    known.remove("c")
    with pytest.raises(UsageError, match="host c: no docker context has that name"):
        clusters.down(["e", "own"], engine=machines.engines["a"])
    assert len(machines.hosts().containers("e")) == 3
    assert [c.name for c in machines.engines["a"].containers()] == ["e-kv-1"]


def test_down_where_a_host_is_away_notes_the_hosts(machines: Machines) -> None:
    up(machines.hosts())
    host_record.forget("e")
    with pytest.raises(MiniclusterError, match="could not be removed from host c"):
        down.remove_cluster(machines.hosts("c"), "e", lambda _event: None)
    assert host_record.read("e") == NAMES


def test_a_dry_run_forgets_no_hosts(machines: Machines, known: list[str]) -> None:
    host_record.write("e", NAMES)  # others have removed the cluster
    assert clusters.dry_run("etcd", name="e")
    assert host_record.read("e") == NAMES


def test_down_of_what_others_have_removed(machines: Machines, known: list[str]) -> None:
    host_record.write("e", NAMES)
    with pytest.raises(NoCluster, match="no cluster named 'e'"):
        clusters.down(["e"], strict=True)
    assert host_record.read("e") == ()
    with pytest.raises(UsageError, match="invalid name"):
        clusters.down(["../e"])


def test_a_host_without_a_context_is_given_up_by_every_command(machines: Machines, known: list[str]) -> None:
    up(machines.hosts())
    known.remove("c")
    del machines.engines["c"]
    assert [*Cluster.open("e").engine.hosts] == ["a", "b"]
    assert [one.cluster for one in clusters.clusters()] == ["e"]
    assert [*discover.reach(machines.hosts("c").reference).hosts] == ["a", "b"]
    clusters.down(["e"])
    assert all(engine.empty() for engine in machines.engines.values())


def test_the_nodes_of_a_host_without_a_context_move(machines: Machines, known: list[str]) -> None:
    up(machines.hosts())
    machines.hosts("c")  # it is lost
    away = machines.engines.pop("c")
    known.remove("c")
    cluster = Cluster.open("e")
    status = cluster.status()
    said = "host c does not answer (it has no docker context): kv-3 cannot be reached; `minicluster up --name e` puts"
    assert any(note.startswith(said) for note in status.notes)
    assert [(node.phase, node.probe) for node in status.nodes][2] == ("unknown", "host c does not answer")
    with pytest.raises(MiniclusterError) as error:
        cluster.start(["kv-3"])
    assert (error.value.what, error.value.why) == (
        "cannot start kv-3: host c does not answer",
        "it has no docker context",
    )
    steps = {step.id: step for step in clusters.dry_run(name="e").steps}
    assert steps["forget c"].action == ForgetHost("c", "id-c")
    assert "forget c" in steps["create kv-3"].needs
    assert "on a: host c cannot have it (it has no docker context); its data there (/var/lib/etcd) are not used" in (
        steps["create kv-3"].cause
    )
    moved = Cluster.up(name="e")
    assert where(moved) == {"kv-1": "a", "kv-2": "b", "kv-3": "a"}
    assert moved.status().notes == ()
    away.kill_container("e-kv-3")  # its machine was restarted
    machines.engines["c"] = away
    known.append("c")  # it is back
    machines.hosts()
    assert any("host c still has a former kv-3" in note for note in Cluster.open("e").status().notes)
    Cluster.up(name="e")
    assert away.boxes == {}


def test_what_is_on_no_host_that_answers_may_be_on_another(machines: Machines) -> None:
    with pytest.raises(NotFound):
        machines.hosts().get_file("e-kv-1", "/etc/hosts")
    away = machines.hosts("c")
    with pytest.raises(NoEngine) as error:
        away.get_file("e-kv-1", "/etc/hosts")
    assert error.value.why == "host c does not answer: no answer in time"
    assert away.container("e-kv-1") is None


def test_without_a_readable_record_what_is_left_is_kept_for_a_host_that_is_away(machines: Machines) -> None:
    up(machines.hosts())
    for engine in machines.engines.values():
        for name, volume in engine.vols.items():
            if labels.REVISION in volume.labels:
                engine.vols[name] = replace(volume, labels={**volume.labels, labels.SPEC: "?"})
    with pytest.raises(MiniclusterError, match="could not be removed from host c") as error:
        down.remove_cluster(machines.hosts("c"), "e", lambda _event: None)
    assert "what it had on host c, if anything" in error.value.leftovers
    assert [v.name for v in machines.engines["a"].volumes()] == ["e-spec-1"]
    assert [*machines.engines["a"].nets] == ["e-net"]


def test_a_host_behind_ssh_that_is_silent_is_given_up_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\nexec cat > /dev/null\n")  # until it is disconnected
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(discover, "NAMED_TIMEOUT", 0.1)
    monkeypatch.setattr(
        client_config, "of_context", lambda _name: EngineAddress("ssh://me@machine", "docker context m")
    )
    with pytest.raises(NoEngine, match="no host answers") as error:
        discover.open_hosts(["m"])
    assert error.value.why == "m (ssh://me@machine): timed out"


# Their swarm


def test_leave_takes_away_only_its_own() -> None:
    foreign = Machines()
    for engine in foreign.engines.values():
        engine.member = replace(engine.member, labels={})
    with pytest.raises(UsageError, match="was not made by minicluster"):
        hosts_swarm.leave(foreign.hosts())
    assert hosts_swarm.leave(Machines().hosts()) == ["a", "b", "c"]


class Member(FakeEngine):
    """An engine that joins the swarm of others in memory, and changes roles in it."""

    ours = True  #: minicluster made the swarm

    def __init__(self, name: str, members: dict[str, SwarmNode]) -> None:
        super().__init__()
        self.name, self.id, self.members = name, f"id-{name}", members

    def swarm(self) -> Swarm:
        me, nodes = self.members.get(self.id), tuple(self.members.values())
        if me is None:
            return Swarm()
        about = {labels.HOSTS: "a"} if self.ours else {}
        return Swarm(me.id, me.address, "swarm", about, True, nodes) if me.manager else Swarm(me.id, me.address)

    def join_swarm(self, address: str, manager: Engine | None, labels: object, *, as_manager: bool = True) -> None:
        assert (manager is None) == (not self.members)
        as_manager = as_manager or manager is None
        self.members[self.id] = SwarmNode(self.id, self.name, f"10.9.0.{self.name}", as_manager, True, manager is None)

    def set_swarm_role(self, id: str, *, manager: bool) -> None:
        assert self.members[self.id].manager
        assert self.members[id].manager != manager
        self.members[id] = replace(self.members[id], manager=manager)


class Joining:
    """Hosts that are part of no swarm yet, or of the one that ``init`` made of them."""

    def __init__(self) -> None:
        self.members: dict[str, SwarmNode] = {}
        self.engines: dict[str, Engine] = {name: Member(name, self.members) for name in "abcde"}

    def init(self, names: str) -> str:
        """Names of those that manage the swarm after ``init`` of these hosts."""
        hosts_swarm.init(HostsEngine({name: self.engines[name] for name in names}))
        return "".join(node.name for node in self.members.values() if node.manager)


@pytest.mark.parametrize(
    ("inits", "managers"),
    [
        (("a",), "a"),
        (("ab",), "a"),
        (("abc",), "abc"),
        (("abcde",), "abc"),
        (("ab", "abc"), "abc"),
        (("a", "ab"), "a"),
        (("a", "ab", "abcd"), "abc"),
        (("ab", "ac"), "abc"),
        (("abc", "ade"), "abc"),
    ],
)
def test_init_makes_three_managers_of_three_hosts_or_more(inits: Sequence[str], managers: str) -> None:
    hosts = Joining()
    found = ""
    for names in inits:
        found = hosts.init(names)
        assert len(found) % 2 == 1
    assert (len(found), found[0]) == (len(managers), managers[0])


def test_init_leaves_no_even_number_of_managers() -> None:
    hosts = Joining()
    hosts.init("abcd")
    del hosts.members["id-c"]  # lost, and removed from the swarm
    assert hosts.init("abd") == "abd"
    del hosts.members["id-d"]
    assert hosts.init("ab") == "a"
    hosts.members["id-b"] = replace(hosts.members["id-b"], ready=False)
    assert hosts.init("ac") == "a", "of two that answer one manages the swarm"


def test_of_a_swarm_of_others_nobody_changes_a_role(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Member, "ours", False)
    hosts = Joining()
    assert hosts.init("ab") == "a"
    assert hosts.init("abc") == "a"
    assert Joining().init("abc") == "abc"
    other = Joining()
    assert other.init("a") == "a"
    assert other.init("abc") == "abc"


def left(machines: Machines) -> list[str]:
    """The hosts that have been told to leave their swarm."""
    return [n for n, engine in machines.engines.items() if any(call[0] == "leave_swarm" for call in engine.calls)]


THEIRS = SwarmNode("id-d", "d", "10.9.0.4", True, True, True)


@pytest.mark.parametrize(
    "member",
    [
        Swarm("id-d", "10.9.0.4", "theirs", {}, True, (THEIRS,)),
        Swarm("id-d", "10.9.0.4", managers=("id-x",)),  # a worker of it
    ],
)
def test_leave_does_not_touch_another_swarm(member: Swarm) -> None:
    machines = Machines("d", "a", "b", "c")
    for name in "abc":
        its = machines.engines[name].member
        machines.engines[name].member = replace(its, nodes=its.nodes[1:])
    machines.engines["d"].member = member
    notes: list[str] = []
    assert hosts_swarm.leave(machines.hosts(), lambda event: notes.append(event.text)) == ["a", "b", "c"]
    assert left(machines) == ["a", "b", "c"]
    assert notes[0] == "d: part of another swarm, which minicluster did not make"


def test_leave_is_refused_where_the_swarm_has_other_members(machines: Machines) -> None:
    some = HostsEngine({"a": machines.engines["a"]})
    with pytest.raises(MiniclusterError) as error:
        hosts_swarm.leave(some)
    assert error.value.what == "the swarm has 2 members beyond a"
    assert error.value.why == "b (10.9.0.2)\nc (10.9.0.3)"
    with pytest.raises(MiniclusterError, match="the swarm has 1 member beyond a, b") as error:
        hosts_swarm.leave(machines.hosts("c"))
    assert "docker --context a node rm --force id-c" in error.value.fix
    assert left(machines) == []


def test_leave_is_refused_where_hosts_are_of_several_swarms(machines: Machines) -> None:
    c = machines.engines["c"].member
    machines.engines["c"].member = replace(c, cluster="another", nodes=c.nodes[2:])
    with pytest.raises(UsageError, match="part of several swarms that minicluster made"):
        hosts_swarm.leave(machines.hosts())
    assert left(machines) == []


def test_leave_is_refused_where_no_manager_answers(machines: Machines) -> None:
    for name, engine in machines.engines.items():
        engine.member = Swarm(f"id-{name}", engine.member.address)
    with pytest.raises(MiniclusterError, match="it is not known who made it"):
        hosts_swarm.leave(machines.hosts())
    assert left(machines) == []


def test_an_engine_says_which_managers_it_knows() -> None:
    peers = [{"NodeID": "id-a", "Addr": "10.9.0.1:2377"}, {"NodeID": "id-b", "Addr": "10.9.0.2:2377"}]
    about = {"LocalNodeState": "active", "NodeID": "id-c", "NodeAddr": "10.9.0.3", "RemoteManagers": peers}
    found = swarm.look(api({"/info": {"Swarm": about}}))
    assert found == Swarm("id-c", "10.9.0.3", managers=("id-a", "id-b"))
    former = {**about, "ControlAvailable": True}
    found = swarm.look(api({"/info": {"Swarm": former}}))
    assert (found.manager, found.cluster, found.managers) == (False, "", ("id-a", "id-b"))
    assert "does not have a leader" in found.error


def test_without_a_leader_of_its_swarm_an_engine_has_no_such_volume_but_may_have_the_network() -> None:
    engine = DockerEngine(EngineAddress("unix:///none", "a test"))
    engine._api = api({})
    engine.remove_volume("e-data")
    with pytest.raises(MiniclusterError, match="remove network e-net"):
        engine.remove_network("e-net")


def api(answers: dict[str, object]) -> Any:
    """An engine's API; what it has no answer to it looks for in its swarm, which has no leader."""

    class Answers:
        def request(self, _method: str, path: str, **_request: object) -> object:
            if path not in answers:
                raise APIError(503, "rpc error: the swarm does not have a leader")
            return answers[path]

    return Answers()


def refusing(*refusals: APIError) -> Any:
    """An engine's API that refuses so many requests, and takes all that follow."""
    left = [*refusals]

    class Answers:
        def request(self, *_words: str, **_request: object) -> None:
            if left:
                raise left.pop(0)

    return Answers()


LATE = APIError(
    500, "attaching to network failed, make sure your network options are correct: context deadline exceeded"
)


@pytest.mark.parametrize(
    ("refusals", "starts"),
    [
        ((LATE, APIError(404, "network abc not found")), True),  # which the engine removed after its attempt
        ((APIError(404, f"network {'a1b2c' * 5} not found"),), True),  # the swarm's, which the host lacks for a moment
        ((APIError(404, f"network {'0a' * 32} not found"),), False),  # the engine's own, which was removed
        ((APIError(404, "network abc not found"),), False),
        ((LATE, APIError(404, "No such container: e-kv-1")), False),
    ],
)
def test_a_container_is_started_again_where_its_network_was_late(refusals: Sequence[APIError], starts: bool) -> None:
    engine = DockerEngine(EngineAddress("unix:///none", "a test"))
    engine._api = refusing(*refusals)
    if starts:
        engine.start_container("e-kv-1")
    else:
        with pytest.raises(NotFound):
            engine.start_container("e-kv-1")


def test_an_engine_that_left_its_swarm_only_half_is_asked_again() -> None:
    swarm.leave(refusing(APIError(500, "context deadline exceeded"), APIError(503, "This node is not part of a swarm")))
    swarm.leave(refusing(APIError(500, "context deadline exceeded")))
    with pytest.raises(MiniclusterError, match="cannot leave the swarm"):
        swarm.leave(refusing(APIError(500, "permission denied")))


def node(index: int, role: str, reachability: str = "") -> dict[str, Any]:
    about = {"ManagerStatus": {"Reachability": reachability}} if reachability else {}
    return {"ID": "x", "Version": {"Index": index}, "Spec": {"Role": role, "Labels": {"a": "b"}}, **about}


def test_a_role_in_the_swarm_is_asked_for_until_the_engine_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swarm, "_JOINING", 5.0)
    asked: list[object] = []

    def engine(*answers: object) -> Any:
        left = [*answers]

        class Answers:
            def request(self, method: str, path: str, **request: object) -> object:
                asked.append((method, path, request))
                answer = left.pop(0)
                if isinstance(answer, APIError):
                    raise answer
                return answer

        return Answers()

    api = engine(
        node(7, "worker"),
        APIError(500, "rpc error: update out of sequence"),
        node(8, "worker"),
        None,
        node(9, "manager"),  # it does not manage yet
        APIError(503, "rpc error: The swarm does not have a leader"),
        node(10, "manager", "reachable"),
    )
    swarm.set_role(api, "x", "manager")
    assert asked[3] == (
        "POST",
        "/nodes/x/update",
        {"params": {"version": 8}, "data": {"Role": "manager", "Labels": {"a": "b"}}},
    )
    assert len(asked) == 7
    swarm.set_role(
        engine(node(1, "manager", "reachable"), None, node(2, "worker", "reachable"), node(3, "worker")), "x", "worker"
    )
    with pytest.raises(MiniclusterError, match="cannot make x a manager of the swarm"):
        swarm.set_role(engine(APIError(400, "not allowed")), "x", "manager")
    monkeypatch.setattr(swarm, "_JOINING", -1.0)
    with pytest.raises(MiniclusterError, match="x is no manager of the swarm yet"):
        swarm.set_role(engine(node(1, "manager", "unreachable")), "x", "manager")


def test_init_takes_back_a_former_member_and_nobody_else(machines: Machines) -> None:
    for name in "ab":
        its = machines.engines[name].member
        machines.engines[name].member = replace(its, nodes=its.nodes[:2])
    machines.engines["c"].member = Swarm("id-c", "10.9.0.3", managers=("id-x",))  # a worker of somebody's swarm
    with pytest.raises(MiniclusterError, match="host c is part of another Docker Swarm"):
        hosts_swarm.init(machines.hosts())
    assert left(machines) == []
    machines.engines["c"].member = Swarm("id-c", "10.9.0.3", managers=("id-b", "id-c"))
    assert hosts_swarm.init(machines.hosts()) == ["c"]
    assert left(machines) == ["c"]


def test_leave_is_refused_while_clusters_use_the_swarm(machines: Machines) -> None:
    up(machines.hosts())
    with pytest.raises(MiniclusterError, match="the hosts have 1 cluster: e"):
        hosts_swarm.leave(machines.hosts())


def test_without_names_a_context_that_cannot_be_used_is_one_that_does_not_answer(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(names: Sequence[str], *, strict: bool = True) -> HostsEngine:
        if strict:
            raise UsageError("host z: tcp://192.0.2.1:2375 is not protected by TLS")
        return HostsEngine(machines.engines, {"z": "tcp://192.0.2.1:2375 is not protected by TLS"})

    monkeypatch.setattr(client_config, "contexts", lambda: [*NAMES, "z"])
    monkeypatch.setattr(discover, "open_hosts", opened)
    machines.engines["c"].member = Swarm()
    for words, code in (("status", 0), ("check", 1)):
        done = CliRunner().invoke(app, ["hosts", words])
        assert done.exit_code == code, done.output
        (line,) = [line for line in done.output.splitlines() if line.startswith("z ")]
        assert "no answer: tcp://192.0.2.1:2375 is not protected by TLS" in line
        assert "`minicluster hosts init a,b,c` makes one" in done.output
        named = CliRunner().invoke(app, ["hosts", words, "a,z"])
        assert isinstance(named.exception, SystemExit)
        assert "a," not in named.stdout
    machines.engines["c"].member = replace(machines.engines["b"].member, id="id-c")
    assert "leaves the swarm" in CliRunner().invoke(app, ["hosts", "leave"]).stderr


def test_status_tells_the_quorum(machines: Machines) -> None:
    found = hosts_check.status(machines.hosts())
    assert [(one.host, one.role) for one in found.hosts] == [("a", "leader"), ("b", "manager"), ("c", "manager")]
    assert found.quorum
    assert (found.quorum.voters, found.quorum.survives, found.quorum.leader) == (3, 1, "a")
    assert found.ours


def test_a_kernel_without_esp_is_refused(machines: Machines) -> None:
    machines.engines["b"].files["/proc/kallsyms"] = "0 T xfrm_init\n"
    machines.engines["c"].files["/proc/kallsyms"] = "0 t esp4_init\n"
    with pytest.raises(MiniclusterError, match="--encrypt: the kernel of b has no ESP"):
        up(machines.hosts(), encrypt=True)
    machines.engines["b"].files["/proc/modules"] = "nf_tables 1 0 - Live 0x0\n"  # it may be loaded
    up(machines.hosts(), encrypt=True)
    assert machines.engines["a"].nets["e-net"].labels[labels.ENCRYPTED] == "yes"
    Cluster.up("etcd", name="f", engine=machines.hosts(), size={"kv": 1})
    with pytest.raises(UsageError, match="exists, and is not encrypted"):
        Cluster.up("etcd", name="f", engine=machines.hosts(), encrypt=True)
