"""Containers, networks and volumes: creating, listing, changing and removing them."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from minicluster.engine.protocol import NetworkConfig
from minicluster.errors import Conflict, EngineError, NotFound, PortTaken, SubnetTaken
from minicluster.model.labels import CLUSTER
from minicluster.model.spec import MountSpec
from minicluster.profile import addressing
from tests.contract.conftest import World, wait


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# Volumes


def test_volumes_are_listed_by_cluster(world: World) -> None:
    world.engine.create_volume(world.name("v"), world.labels(x="1"))
    world.engine.create_volume(world.name("other"), world.labels() | {CLUSTER: f"{world.key}-2"})
    assert [(v.name, v.labels) for v in world.engine.volumes(world.key)] == [(world.name("v"), world.labels(x="1"))]
    assert {world.name("v"), world.name("other")} <= {v.name for v in world.engine.volumes()}
    world.engine.remove_volume(world.name("other"))


def test_creating_a_volume_that_exists(world: World) -> None:
    name = world.name("v")
    world.engine.create_volume(name, world.labels(x="1"))
    world.engine.create_volume(name, world.labels(x="1"))  # it is the one that is asked for
    with pytest.raises(Conflict):
        world.engine.create_volume(name, world.labels(x="2"))
    with pytest.raises(Conflict):
        world.engine.create_volume(name, {})
    assert [v.labels for v in world.engine.volumes(world.key)] == [world.labels(x="1")]


def test_removing_a_volume(world: World) -> None:
    world.engine.remove_volume(world.name("none"))  # no error
    world.engine.create_volume(world.name("v"), world.labels())
    container = world.container(volumes={"/data": world.name("v")})
    with pytest.raises(Conflict):
        world.engine.remove_volume(world.name("v"))
    world.engine.remove_container(container)
    world.engine.remove_volume(world.name("v"))
    assert world.engine.volumes(world.key) == []


# Networks


def test_networks_are_found_by_their_whole_name_and_by_cluster(world: World) -> None:
    name = world.network()
    found = world.engine.network(name)
    assert found
    assert (found.name, found.labels) == (name, world.labels())
    assert world.engine.network(name[:-1]) is None
    assert world.engine.networks(world.key) == [found]
    assert found in world.engine.networks()
    assert set(found.subnets) <= set(world.engine.subnets())


def test_creating_a_network_that_conflicts(world: World) -> None:
    name = world.network()
    found = world.engine.network(name)
    assert found
    subnet = found.subnets[0]
    about = (addressing.gateway(subnet), addressing.dynamic_range(subnet), world.labels())
    with pytest.raises(Conflict):
        world.engine.create_network(NetworkConfig(name, subnet, *about))
    with pytest.raises(SubnetTaken):
        world.engine.create_network(NetworkConfig(world.name("other"), subnet, *about))
    assert world.engine.networks(world.key) == [found]


def test_removing_a_network(world: World) -> None:
    world.engine.remove_network(world.name("none"))  # no error
    container = world.running()
    for pause in (False, True):
        if pause:
            world.engine.pause_container(container)
        with pytest.raises(EngineError) as caught:
            world.engine.remove_network(world.name("net"))
        assert not isinstance(caught.value, NotFound | Conflict)
    world.engine.kill_container(container)
    world.engine.remove_network(world.name("net"))  # one that does not run is no obstacle
    with pytest.raises(NotFound):
        world.engine.start_container(container)


def test_connecting_and_disconnecting(world: World) -> None:
    first, second = world.network(), world.network("second")
    stopped, running = world.container("a"), world.running("b", host=3)
    for name in (stopped, running):
        for _ in range(2):
            world.engine.connect_network(second, name, ["x"])
        found = world.engine.container(name)
        assert found
        assert found.networks == {first, second}
        assert found.network_mode == first
    assert {c.name for c in world.engine.attached(second)} == {stopped, running}
    for name in (stopped, running):
        for _ in range(2):
            world.engine.disconnect_network(second, name)
    assert world.engine.attached(second) == []
    world.engine.disconnect_network(second, world.name("none"))
    world.engine.disconnect_network(world.name("none"), running)
    with pytest.raises(NotFound):
        world.engine.connect_network(world.name("none"), running)
    with pytest.raises(NotFound):
        world.engine.connect_network(second, world.name("none"))


# Containers


def test_a_folder_that_is_mounted_is_never_made_or_removed(world: World, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    assert world.engine.sees(str(tmp_path))
    assert not world.engine.sees(str(gone))
    assert not gone.exists()
    (tmp_path / "a:b, c").mkdir()
    kept = tmp_path / "a:b, c" / "kept"
    kept.write_text("x")
    mounts = (MountSpec("c", str(kept.parent), "/data", read_only=True), MountSpec("c", str(kept), "/file"))
    name = world.running(mounts=mounts)
    if not world.fake:
        script = ("sh", "-c", "cat /data/kept /file; touch /data/new || printf y >/file")
        result = world.engine.exec(name, script)
        assert (result.exit_code, result.stdout) == (0, "xx")
    world.engine.remove_container(name)
    assert [path.name for path in kept.parent.iterdir()] == ["kept"]
    assert kept.read_text() == ("x" if world.fake else "y")


def test_tcp_and_udp_ports_are_different_ones(world: World) -> None:
    port = free_port()
    ports = {"80/tcp": port, "80/udp": port}
    name = world.running(ports=ports)
    found = world.engine.container(name)
    assert found
    assert found.ports == ports


def test_a_container_as_it_was_created(world: World) -> None:
    port = free_port()
    config = world.config(labels=world.labels(x="1"), ports={"80/tcp": port})
    world.engine.create_container(config)
    found = world.engine.container(config.name)
    assert found
    assert (found.name, found.labels, found.image, found.state) == (config.name, config.labels, world.image, "created")
    assert (found.address, found.network_mode) == (config.address, config.network)
    assert found.ports == {}
    assert not found.alive
    world.engine.start_container(config.name)
    found = world.engine.container(config.name)
    assert found
    assert (found.state, found.address, found.ports) == ("running", config.address, {"80/tcp": port})
    world.engine.kill_container(config.name)
    found = world.engine.container(config.name)
    assert found
    assert (found.state, found.address, found.ports) == ("exited", config.address, {})


def test_containers_are_found_by_their_whole_name_and_by_cluster(world: World) -> None:
    name = world.container()
    world.container("d", host=3, labels=world.labels() | {CLUSTER: f"{world.key}-2"})
    found = world.engine.container(name)
    assert found
    assert world.engine.container(name[:-1]) is None
    assert world.engine.containers(world.key) == [found]
    assert {name, world.name("d")} <= {c.name for c in world.engine.containers()}
    world.engine.remove_container(world.name("d"))


def test_one_without_our_label_is_found_by_name_alone(world: World) -> None:
    name = world.container(labels={"x": "1"})
    assert world.engine.container(name)
    assert name not in {c.name for c in world.engine.containers()}
    assert [c.name for c in world.engine.attached(world.name("net"))] == [name]
    world.engine.remove_container(name)


def test_a_container_on_the_default_network_joins_others(world: World) -> None:
    port, network = free_port(), world.network()
    config = replace(world.config(ports={"80/tcp": port}), network="bridge", address="")
    world.engine.create_container(config)
    world.engine.connect_network(network, config.name)
    world.engine.start_container(config.name)
    found = world.engine.container(config.name)
    assert found
    assert (found.network_mode, found.ports, found.networks) == ("bridge", {"80/tcp": port}, {"bridge", network})
    world.engine.disconnect_network(network, config.name)
    found = world.engine.container(config.name)
    assert found
    assert (found.ports, found.networks) == ({"80/tcp": port}, {"bridge"})


def test_creating_a_container_that_conflicts(world: World) -> None:
    name = world.container()
    with pytest.raises(Conflict):
        world.engine.create_container(world.config(host=3))
    with pytest.raises(NotFound):
        world.engine.create_container(world.config("d", image="minicluster/none:none"))
    assert [c.name for c in world.engine.containers(world.key)] == [name]


def test_starting_where_the_port_is_in_use(world: World) -> None:
    port = free_port()
    first = world.running("a", ports={"80/tcp": port})
    second = world.container("b", host=3, ports={"80/tcp": port})
    with pytest.raises(PortTaken) as caught:
        world.engine.start_container(second)
    assert caught.value.port == port
    assert world.state(second) == "created"
    world.engine.remove_container(first)
    world.engine.start_container(second)
    assert world.state(second) == "running"


def test_starting_where_the_address_is_in_use(world: World) -> None:
    first, second = world.running("a"), world.container("b")
    with pytest.raises(EngineError) as caught:
        world.engine.start_container(second)
    assert not isinstance(caught.value, PortTaken | NotFound | Conflict | SubnetTaken)
    world.engine.stop_container(first)
    world.engine.start_container(second)


def test_states_and_exit_codes(world: World) -> None:
    engine, name = world.engine, world.container()
    assert engine.exit_code(name) is None
    for _ in range(2):
        engine.start_container(name)
        assert (world.state(name), engine.exit_code(name)) == ("running", None)
    for _ in range(2):
        engine.pause_container(name)
        assert (world.state(name), engine.exit_code(name)) == ("paused", None)
    engine.start_container(name)
    wait(lambda: world.state(name) == "running")  # Docker may take it for paused once more, for milliseconds
    for _ in range(2):
        engine.kill_container(name)
        wait(lambda: world.state(name) == "exited")
        assert engine.exit_code(name) == 137
    with pytest.raises(EngineError) as caught:
        engine.pause_container(name)
    assert not isinstance(caught.value, NotFound | Conflict)
    engine.start_container(name)
    assert (world.state(name), engine.exit_code(name)) == ("running", None)


def test_stopping(world: World) -> None:
    engine, name = world.engine, world.running()
    for _ in range(2):
        engine.stop_container(name)
        assert world.state(name) == "exited"
        assert engine.exit_code(name) not in (None, 137)
    engine.start_container(name)
    engine.pause_container(name)
    engine.kill_container(name)
    assert wait(lambda: world.state(name) == "exited")


def test_stopping_one_that_was_never_started(world: World) -> None:
    name = world.container()
    world.engine.stop_container(name)
    world.engine.kill_container(name)
    assert (world.state(name), world.engine.exit_code(name)) == ("created", None)


def test_one_that_ends_by_itself(world: World) -> None:
    name = world.ended(code=3, says="")
    assert (world.state(name), world.engine.exit_code(name)) == ("exited", 3)


def test_removing_a_container(world: World) -> None:
    for name in (world.name("none"), world.container("a"), world.running("b", host=3)):
        world.engine.remove_container(name)
        assert world.engine.container(name) is None


def test_the_restart_policy_of_a_container_can_be_changed(world: World) -> None:
    for name, state in ((world.container("a"), "created"), (world.running("b", host=3), "running")):
        for policy in ("unless-stopped", "no"):
            world.engine.update_container(name, policy)
            assert (world.restart_policy(name), world.state(name)) == (policy, state)


def test_what_does_not_exist(world: World) -> None:
    engine, none = world.engine, world.name("none")
    assert engine.container(none) is None
    assert engine.network(none) is None
    assert engine.containers(none) == engine.networks(none) == engine.volumes(none) == engine.attached(none) == []
    engine.kill_container(none)  # no error
    for call in (
        lambda: engine.start_container(none),
        lambda: engine.stop_container(none),
        lambda: engine.pause_container(none),
        lambda: engine.update_container(none, "no"),
        lambda: engine.exit_code(none),
        lambda: engine.sample(none),
        lambda: next(engine.logs(none)),
    ):
        with pytest.raises(NotFound):
            call()


def test_what_a_container_uses(world: World) -> None:
    name = world.running()
    one, two = world.engine.sample(name), world.engine.sample(name)
    assert two.system > one.system > 0
    assert one.cpus > 0
    assert one.pids > 0
    assert 0 < one.memory < one.memory_limit
    world.engine.stop_container(name)
    assert set(vars(world.engine.sample(name)).values()) == {0}


def test_what_the_engine_s_machine_sees(world: World) -> None:
    engine = world.engine
    found = engine.sandbox(world.running("n-1", memory=64 << 20, cpus=0.25))
    assert found
    assert found.pid > 0
    assert len(found.macs) == 1
    assert (found.memory, found.cpus) == (64 << 20, 0.25)
    other = engine.sandbox(world.running("n-2", host=3))
    assert other
    assert (other.memory, other.cpus) == (0, 0)
    assert engine.sandbox(world.container("n-3", host=4)) is None
    assert engine.sandbox(world.name("none")) is None


def test_the_engine_itself(world: World) -> None:
    info = world.engine.info
    assert info.endpoint == world.engine.endpoint
    assert info.local == world.engine.local
    assert info.memory > 0
    assert info.cpus > 0
    assert info.cgroup_version in (1, 2)
    assert isinstance(world.engine.shares_localhost, bool)
    own = world.engine.own_container()
    assert own is None or own.alive
    world.engine.close()
    assert world.engine.containers(world.key) == []  # it opens new connections
