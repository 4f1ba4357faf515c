"""Which addresses are returned where, which address ports are published on, and the error where none is reached."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from minicluster.cluster import Cluster, down, dry_run
from minicluster.errors import EngineError, Unreachable, UsageError
from minicluster.host import procfs
from minicluster.model.events import Event
from minicluster.model.spec import Overrides, Spec
from minicluster.operations import connect
from minicluster.plan.observed import Observed
from minicluster.plan.reconcile import reconcile
from minicluster.plan.removal import remove
from minicluster.plan.steps import ConnectNetwork, DisconnectNetwork
from tests.fakes import FakeEngine
from tests.unit.samples import TOY
from tests.unit.standing import AUTHORITY, record, spec_of, standing

REMOTE = "tcp://127.9.9.9:2376"  # an address of this machine which nothing else is published on


def up(engine: FakeEngine, **options: object) -> Cluster:
    return Cluster.up(str(TOY), name="toy", engine=engine, **options)  # type: ignore[arg-type]


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Hosts at which a TCP connection succeeds, in place of a network; others refuse."""
    hosts: set[str] = set()

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        if address[0] not in hosts:
            raise ConnectionRefusedError
        return socket.socket()

    monkeypatch.setattr(socket, "create_connection", connect)
    return hosts


# The mode


def test_a_mode_is_given_or_in_the_environment_or_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    assert connect.asked(None) == "auto"
    monkeypatch.setenv("MINICLUSTER_ADDRESS_MODE", "bridge")
    assert connect.asked(None) == "bridge"
    assert connect.asked("gateway") == "gateway"


def test_an_unknown_mode_is_refused_before_anything_is_made(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError) as caught:
        up(engine, address_mode="brige")
    assert caught.value.what == "--address-mode brige: no such address mode"
    assert "bridge" in caught.value.fix
    monkeypatch.setenv("MINICLUSTER_ADDRESS_MODE", "x")
    with pytest.raises(UsageError, match=r"^\$MINICLUSTER_ADDRESS_MODE x"):
        up(engine)
    assert engine.calls == []


@pytest.mark.parametrize(
    ("here", "mode", "shares", "chosen"),
    [
        ("", "", True, "localhost"),
        ("", "", False, "gateway"),
        ("me", "default", False, "bridge"),
        ("me", "some-net", True, "bridge"),
        ("me", "host", False, "localhost"),
        ("gone", "default", False, "gateway"),  # a container of another engine
    ],
)
def test_auto_is_what_fits_the_place(engine: FakeEngine, here: str, mode: str, shares: bool, chosen: str) -> None:
    engine.add_foreign("me", mode=mode)
    engine.here, engine.shares_localhost = here, shares
    assert connect.choose("auto", engine) == chosen
    for word in ("localhost", "bridge", "gateway"):
        assert connect.choose(word, engine) == word


def test_a_remote_engines_machine_is_where_its_url_says(engine: FakeEngine) -> None:
    assert connect.machine_address(engine, "172.28.0.1") == "172.28.0.1"
    for url, address in (("tcp://10.1.2.3:2376", "10.1.2.3"), ("ssh://me@10.1.2.3", "10.1.2.3")):
        engine.endpoint = url
        assert connect.machine_address(engine, "172.28.0.1") == address
    engine.endpoint = "tcp://no-such-host.invalid:2376"
    with pytest.raises(UsageError, match=r"no IPv4 address found for the engine's machine no-such-host\.invalid"):
        connect.machine_address(engine, "172.28.0.1")


# What is published and returned


def test_on_localhost_all_is_published_on_127_0_0_1_alone(engine: FakeEngine) -> None:
    cluster = up(engine)
    assert cluster.spec.bind_address == "127.0.0.1"
    config = engine.boxes["toy-master-1"].config
    assert config
    assert config.bind_address == "127.0.0.1"
    port = cluster.spec.nodes[0].endpoints[0].host_port
    assert [(e.url, e.host, e.port, e.node_port) for e in cluster.endpoints()] == [
        (f"https://127.0.0.1:{port}", "127.0.0.1", port, 2376)
    ]
    assert cluster.env()["TOY_URL"] == f"https://127.0.0.1:{port}"
    assert cluster.info().address_mode == "localhost"
    assert "connect_network" not in dict(engine.calls)


def test_nothing_is_tried_on_localhost(engine: FakeEngine, listening: set[str]) -> None:
    assert up(engine).endpoints()


def test_gateway_publishes_on_the_networks_gateway_too_and_certificates_say_so(
    engine: FakeEngine, listening: set[str]
) -> None:
    listening.add("172.28.0.1")
    cluster = up(engine, address_mode="gateway")
    assert cluster.spec.bind_address == cluster.spec.gateway == "172.28.0.1"
    config = engine.boxes["toy-master-1"].config
    assert config
    assert config.bind_address == "172.28.0.1"
    (certificate,) = cluster.spec.nodes[0].certificates
    assert certificate.addresses == ("172.28.0.2", "127.0.0.1", "172.28.0.1")
    port = cluster.spec.nodes[0].endpoints[0].host_port
    assert cluster.endpoint("api").url == cluster.env()["TOY_URL"] == f"https://172.28.0.1:{port}"
    assert Cluster.open("toy", engine=engine).endpoint("api").url == f"https://127.0.0.1:{port}"


def test_a_remote_engines_cluster_is_published_on_the_address_of_its_url(
    engine: FakeEngine, listening: set[str]
) -> None:
    listening.add("127.9.9.9")
    engine.endpoint, engine.shares_localhost = REMOTE, False
    cluster = up(engine)
    assert cluster.spec.bind_address == "127.9.9.9"
    assert cluster.info().address_mode == "gateway"
    assert cluster.endpoint("api").host == "127.9.9.9"


def test_what_is_published_changes_only_where_a_mode_is_given(
    engine: FakeEngine, listening: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    listening.add("172.28.0.1")
    up(engine)
    monkeypatch.setenv("MINICLUSTER_ADDRESS_MODE", "gateway")
    for mode in (None, "auto", "bridge"):
        again = up(engine, address_mode=mode)
        assert again.change
        assert not again.change.changed
    monkeypatch.delenv("MINICLUSTER_ADDRESS_MODE")
    engine.calls.clear()
    assert up(engine, address_mode="gateway").spec.bind_address == "172.28.0.1"
    assert engine.did("create_container") == ["toy-master-1"]  # the others publish nothing
    assert up(engine).spec.bind_address == "172.28.0.1"
    assert up(engine, size={"agent": 3}).spec.bind_address == "172.28.0.1"
    engine.calls.clear()
    assert up(engine, address_mode="localhost").spec.bind_address == "127.0.0.1"
    assert engine.did("create_container") == ["toy-master-1"]


def test_scale_changes_nothing_of_it(engine: FakeEngine, listening: set[str]) -> None:
    listening.add("172.28.0.1")
    cluster = up(engine, address_mode="gateway")
    cluster.scale({"agent": 1})
    assert cluster.spec.bind_address == "172.28.0.1"


def test_bridge_hands_out_the_nodes_own_addresses(engine: FakeEngine, listening: set[str]) -> None:
    up(engine)
    cluster = Cluster.open("toy", engine=engine, address_mode="bridge")
    cluster.connect()  # nothing has to listen there: the node itself is reached
    assert [(e.url, e.port) for e in cluster.endpoints()] == [("https://172.28.0.2:2376", 2376)]
    assert cluster.env()["TOY_URL"] == "https://172.28.0.2:2376"
    assert engine.did("connect_network") == []


def test_a_minicluster_in_a_container_is_connected_and_let_go(engine: FakeEngine, listening: set[str]) -> None:
    engine.add_foreign("me", "some-net")
    engine.here = "me"
    cluster = up(engine)
    assert cluster.info().address_mode == "bridge"
    assert cluster.spec.bind_address == "127.0.0.1"
    assert engine.boxes["me"].container.networks == {"some-net", "toy-net"}
    again = up(engine)
    assert again.change
    assert not again.change.changed
    down(["toy"], engine=engine)
    assert engine.empty()
    assert engine.boxes["me"].container.networks == {"some-net"}


def test_a_container_that_comes_later_is_connected_by_connect_alone(engine: FakeEngine, listening: set[str]) -> None:
    up(engine)
    engine.add_foreign("me")
    engine.here = "me"
    cluster = Cluster.open("toy", engine=engine)
    assert cluster.endpoint("api").host == "172.28.0.2"
    assert engine.did("connect_network") == []
    cluster.connect()
    assert engine.did("connect_network") == ["me: toy-net"]


def test_a_failed_up_lets_the_container_go(engine: FakeEngine) -> None:
    engine.add_foreign("me")
    engine.here = "me"
    engine.fail("start_container", EngineError("no"))
    with pytest.raises(EngineError):
        up(engine)
    assert engine.empty()
    assert engine.boxes["me"].container.networks == frozenset()


# Where nothing is reached


def test_what_was_tried_is_said(engine: FakeEngine, listening: set[str]) -> None:
    engine.endpoint, engine.shares_localhost = REMOTE, False
    cluster = up(engine, size={"master": 3})
    with pytest.raises(Unreachable) as caught:
        cluster.connect()
    error = caught.value
    assert error.exit_code == 1
    assert error.what == "cluster toy is running, but its nodes cannot be reached from here"
    assert error.why.startswith("Tried address mode gateway (chosen by auto):\nmaster-1 at 127.9.9.9:")
    assert error.why.count(": connection refused") == 3
    assert "firewall" in error.fix
    engine.endpoint = "tcp://127.9.9.10:2376"
    with pytest.raises(Unreachable) as caught:
        cluster.connect()
    assert "`minicluster up --name toy --address-mode gateway` publishes them on 127.9.9.10" in caught.value.fix
    # What --bind-address said stays in force in every mode.
    up(engine, size={"master": 3}, bind_address="127.9.9.9")
    with pytest.raises(Unreachable) as caught:
        Cluster.open("toy", engine=engine).connect()
    assert "`minicluster up --name toy --bind-address 127.9.9.10`" in caught.value.fix


def test_one_node_that_is_reached_is_enough(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        tried.append(address[0])
        if address[0] == "172.28.0.2":
            raise TimeoutError
        return socket.socket()

    monkeypatch.setattr(socket, "create_connection", connect)
    up(engine, size={"master": 3})
    cluster = Cluster.open("toy", engine=engine, address_mode="bridge")
    assert len(cluster.endpoints()) == 3
    assert tried == []
    cluster.connect()
    assert tried == ["172.28.0.2", "172.28.0.3"]


def test_nodes_that_do_not_run_are_not_tried(engine: FakeEngine, listening: set[str]) -> None:
    engine.endpoint, engine.shares_localhost = REMOTE, False
    cluster = up(engine)
    cluster.stop()
    cluster.connect()
    assert cluster.endpoint("api").host == "127.9.9.9"


def test_a_cluster_on_localhost_alone_is_not_handed_out_as_a_gateways(engine: FakeEngine, listening: set[str]) -> None:
    up(engine)
    with pytest.raises(Unreachable, match=r"only on 127\.0\.0\.1 of the engine's machine") as caught:
        Cluster.open("toy", engine=engine, address_mode="gateway").endpoints()
    assert "`minicluster up --name toy --address-mode gateway`" in caught.value.fix
    engine.endpoint = "tcp://127.0.0.1:2375"  # the engine's address is that very one
    listening.add("127.0.0.1")
    assert Cluster.open("toy", engine=engine, address_mode="gateway").endpoint("api").host == "127.0.0.1"


# Where we are


ID = "ab" * 32


@pytest.mark.parametrize(
    ("mount", "found"),
    [
        (f"1 2 0:1 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw - ext4 /dev/vda rw", [ID]),
        (f"1 2 0:1 /containers/{ID}/hosts /etc/hosts rw - ext4 /dev/vdb rw", [ID]),
        (f"1 2 0:1 /run/overlay-containers/{ID}/userdata/resolv.conf /etc/resolv.conf rw - tmpfs t rw", [ID]),
        # The engine's own machine sees its containers' mounts too, elsewhere.
        (f"1 2 0:1 / /var/lib/docker/containers/{ID}/mounts/shm rw - tmpfs shm rw", []),
    ],
)
def test_a_container_is_known_by_what_is_mounted_in_it(tmp_path: Path, mount: str, found: list[str]) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text(f"{mount}\n")
    assert procfs.own_container_ids(tmp_path) == found


@pytest.mark.parametrize(("name", "found"), [("0123456789ab", ["0123456789ab"]), ("db", []), ("my-laptop", [])])
def test_else_by_a_host_name_that_is_an_identity(tmp_path: Path, name: str, found: list[str]) -> None:
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/hostname").write_text(f"{name}\n")
    assert procfs.own_container_ids(tmp_path) == found


def test_who_listens_at_a_socket_is_here(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        assert procfs.listener_is_here(path)


# Networks


def steps_of(spec: Spec, observed: Observed) -> dict[str, tuple[object, tuple[str, ...]]]:
    return {step.id: (step.action, step.needs) for step in reconcile(spec, observed).steps}


def joining(spec: Spec, *networks: str) -> Spec:
    return replace(spec, overrides=Overrides(networks=networks))


def test_a_new_node_is_connected_before_it_starts() -> None:
    steps = steps_of(joining(spec_of(), "n"), Observed("c", authority=AUTHORITY))
    assert steps["connect agent-1 n"] == (
        ConnectNetwork("n", "c-agent-1", ("agent-1", "c-agent-1")),
        ("create agent-1",),
    )
    assert "connect agent-1 n" in steps["start agent-1"][1]


def test_a_cluster_that_runs_gets_the_difference() -> None:
    before = joining(spec_of(agent=1), "gone", "stays")
    there = standing(before)
    nodes = {
        name: replace(c, networks=frozenset({"c-net", "gone", "stays", "a-users"}))
        for name, c in there.containers.items()
    }
    there = replace(there, containers=nodes)
    assert not reconcile(before, there)
    steps = steps_of(joining(spec_of(agent=1), "stays", "new"), there)
    acts = {id: action for id, (action, _needs) in steps.items() if "connect" in id}
    assert acts == {
        f"{verb} {node} {network}": action(network, f"c-{node}", *more)
        for node in ("master-1", "agent-1")
        for verb, action, network, more in (
            ("connect", ConnectNetwork, "new", [(node, f"c-{node}")]),
            ("disconnect", DisconnectNetwork, "gone", []),
        )
    }
    assert not any(id.startswith(("create", "start")) for id in steps)


def test_a_stopped_node_is_connected_before_it_starts() -> None:
    before = spec_of(agent=1)
    there = replace(standing(before, agent_1="exited"), records=(record(before),))
    assert "connect agent-1 n" in steps_of(joining(before, "n"), there)["start agent-1"][1]


def test_networks_stay_asked_for_until_others_are(engine: FakeEngine) -> None:
    for name in ("a", "b"):
        engine.add_network(name)
    assert up(engine, networks=["a"]).spec.networks == ("a",)
    assert engine.boxes["toy-master-1"].aliases == {"a": ("master-1", "toy-master-1")}
    assert up(engine).spec.networks == ("a",)
    assert up(engine, networks=["b", "b"]).spec.networks == ("b",)
    assert engine.boxes["toy-agent-2"].container.networks == {"toy-net", "b"}
    assert up(engine, networks=[]).spec.networks == ()
    assert engine.boxes["toy-agent-2"].container.networks == {"toy-net"}


def test_a_failed_change_of_networks_is_undone(engine: FakeEngine) -> None:
    for name in ("a", "b"):
        engine.add_network(name)
    up(engine, networks=["a"])
    engine.fail("connect_network", EngineError("no"), match="agent-2: b")
    with pytest.raises(EngineError):
        up(engine, networks=["b"])
    for box in engine.boxes.values():
        assert box.container.networks == {"toy-net", "a"}
    assert Cluster.open("toy", engine=engine).spec.networks == ("a",)


@pytest.mark.parametrize(
    ("network", "said"),
    [("none-such", "no such network"), ("bridge", "nodes cannot join it"), ("toy-net", "own")],
)
def test_a_network_that_cannot_be_joined_is_said_before_anything_is_made(
    engine: FakeEngine, network: str, said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        up(engine, networks=[network])
    assert f"--network {network}" in caught.value.what
    assert said in str(caught.value)
    assert engine.calls == []


def test_namesakes_on_a_network_are_told(engine: FakeEngine) -> None:
    engine.add_network("n")
    up(engine, networks=["n"])
    told: list[Event] = []
    Cluster.up(str(TOY), name="toy2", networks=["n"], engine=engine, listener=told.append)
    (note,) = [event.text for event in told if event.kind == "note"]
    assert note == "master-1 on network n is also a node of cluster toy: use toy2-master-1 there."


def test_the_plan_of_a_container_that_asks_is_visible(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.add_foreign("me")
    engine.here = "me"
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda: engine)
    steps = {step.id: step for step in dry_run(str(TOY), name="toy").steps}
    assert steps["connect me"].action == ConnectNetwork("toy-net", "me")
    assert steps["connect me"].needs == ("create network toy-net",)
    assert "minicluster runs in this container" in steps["connect me"].cause
    assert engine.calls == []


def test_down_lets_others_containers_go_first() -> None:
    observed = replace(standing(spec_of()), attached={"c-net": ("theirs",)})
    steps = {step.id: step for step in remove(observed).steps}
    assert steps["disconnect theirs c-net"].action == DisconnectNetwork("c-net", "theirs")
    assert "disconnect theirs c-net" in steps["remove network c-net"].needs


def test_down_leaves_others_containers_alone(engine: FakeEngine) -> None:
    up(engine)
    engine.add_foreign("theirs", "toy-net", "their-own")
    down(["toy"], engine=engine)
    assert engine.empty()
    theirs = engine.boxes["theirs"].container
    assert (theirs.state, theirs.networks) == ("running", {"their-own"})


def test_one_that_is_connected_meanwhile_is_let_go_at_the_next_try(engine: FakeEngine) -> None:
    up(engine)

    def connected() -> None:
        engine.add_foreign("theirs", "toy-net")

    engine.fail("disconnect_network", connected, match="master-1")
    down(["toy"], engine=engine)
    assert engine.empty()
    assert engine.boxes["theirs"].container.networks == frozenset()
