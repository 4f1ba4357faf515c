"""The engines that the contract is checked against: the fake one in memory and a real one."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from minicluster.engine import base_image, discover
from minicluster.engine.docker.engine import DockerEngine
from minicluster.engine.private import daemon
from minicluster.engine.protocol import Cancel, ContainerConfig, Engine, EngineEvent, ExecResult, NetworkConfig
from minicluster.errors import MiniclusterError, NoEngine
from minicluster.model import labels
from minicluster.profile import addressing
from tests.fakes import FakeEngine, Hang

#: The names of all that these tests create begin with this.
PREFIX = "contract-"

_numbers = count()


@dataclass
class World:
    """An engine, and what a test creates in it."""

    engine: Engine
    image: str  #: one that the engine has, with a shell
    fake: FakeEngine | None
    key: str = field(default_factory=lambda: f"{PREFIX}{os.getpid()}-{next(_numbers)}")
    refs: list[str] = field(default_factory=list)

    def name(self, part: str) -> str:
        return f"{self.key}-{part}"

    def labels(self, **more: str) -> dict[str, str]:
        """The labels of what the test creates; its key is the name of the cluster."""
        return {labels.CLUSTER: self.key, **more}

    def network(self, part: str = "net") -> str:
        """A new network."""
        name = self.name(part)
        subnet = addressing.choose_subnet(self.engine.subnets(), name)
        gateway, dynamic = addressing.gateway(subnet), addressing.dynamic_range(subnet)
        self.engine.create_network(NetworkConfig(name, subnet, gateway, dynamic, self.labels()))
        return name

    def config(self, part: str = "c", network: str = "", host: int = 2, **more: Any) -> ContainerConfig:
        """A container that sleeps; ``host``: the place of its address in the network's subnet."""
        network = network or (n.name if (n := self.engine.network(self.name("net"))) else self.network())
        found = self.engine.network(network)
        address = f"{found.subnets[0].rpartition('.')[0]}.{host}" if found else "172.28.0.2"
        sleep = ("sh", "-c", "trap 'exit 7' TERM; sleep 1000 & wait")
        defaults: dict[str, Any] = {"command": sleep, "labels": self.labels(), "stop_timeout": 5, "image": self.image}
        name = self.name(part)
        return ContainerConfig(name=name, hostname=part, network=network, address=address, **{**defaults, **more})

    def container(self, part: str = "c", **more: Any) -> str:
        """A new container."""
        config = self.config(part, **more)
        self.engine.create_container(config)
        return config.name

    def running(self, part: str = "c", **more: Any) -> str:
        """A new container, started."""
        name = self.container(part, **more)
        self.engine.start_container(name)
        return name

    def ended(self, part: str = "c", *, code: int = 0, says: str = "") -> str:
        """A new container that has written lines, and has ended with this exit code."""
        if self.fake:
            self.fake.exits[self.name(part)] = (code, says)
        name = self.running(part, command=("sh", "-c", f"printf '{says}'; exit {code}".replace("\n", "\\n")))
        wait(lambda: self.state(name) == "exited")
        return name

    def command(self, *argv: str, result: ExecResult | Hang) -> tuple[str, ...]:
        """A command, and its result in a real container, which a fake one is given."""
        if self.fake:
            self.fake.answers[" ".join(argv)] = result
        return argv

    def state(self, name: str) -> str:
        found = self.engine.container(name)
        assert found
        return found.state

    def restart_policy(self, name: str) -> str:
        """The protocol has no call for it."""
        if self.fake:
            config = self.fake._box(name).config
            assert config
            return config.restart
        assert isinstance(self.engine, DockerEngine)
        found = self.engine._api.request("GET", f"/containers/{name}/json")
        return str(found["HostConfig"]["RestartPolicy"]["Name"])

    def events(self, since: float | None = None) -> Listener:
        return Listener(self.engine, self.key, since)

    def clear(self) -> None:
        for container in self.engine.containers(self.key):
            self.engine.remove_container(container.name)
        for network in self.engine.networks(self.key):
            self.engine.remove_network(network.name)
        for volume in self.engine.volumes(self.key):
            self.engine.remove_volume(volume.name)
        for ref in self.refs:
            with contextlib.suppress(MiniclusterError):
                self.engine.remove_image(ref)


class Listener:
    """Collects events in a thread, from when it is entered."""

    def __init__(self, engine: Engine, cluster: str, since: float | None) -> None:
        self.engine, self.cluster, self.since = engine, cluster, since
        self.seen: list[EngineEvent] = []
        self.error: BaseException | None = None
        self._cancel = Cancel()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def _listen(self) -> None:
        try:
            for event in self.engine.events(self.cluster, since=self.since, cancel=self._cancel):
                self.seen.append(event)
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Listener:
        self._thread.start()
        if self.since is None:
            time.sleep(0.3)  # until it listens
        return self

    def __exit__(self, *_: object) -> None:
        self._cancel.set()
        self._thread.join(10)
        assert not self._thread.is_alive()
        assert self.error is None

    def of(self, kind: str) -> list[str]:
        """The actions on objects of a kind."""
        return [event.action for event in self.seen if event.kind == kind]

    def wait_for(self, kind: str, action: str) -> EngineEvent:
        """The first event of this kind and action."""
        return wait(lambda: next((e for e in self.seen if (e.kind, e.action) == (kind, action)), None))


def wait(check: Callable[[], Any], seconds: float = 20) -> Any:
    """The first true value that ``check`` returns."""
    end = time.monotonic() + seconds
    while not (value := check()):
        assert time.monotonic() < end, f"not within {seconds:g} s"
        time.sleep(0.02)
    return value


@pytest.fixture(scope="session")
def real() -> Iterator[Engine]:
    try:
        engine = discover.connect(start_private=True)
    except NoEngine as error:
        if os.environ.get("DOCKER_HOST") or not daemon.obstacle():
            raise  # there should be one
        pytest.skip(f"no engine: {error}")
    for key in _left(engine):
        World(engine, "", None, key=key).clear()
    yield engine
    engine.close()


def _left(engine: Engine) -> set[str]:
    """The keys of what test runs that were killed have left."""
    keys = {thing.labels[labels.CLUSTER] for thing in [*engine.containers(), *engine.networks(), *engine.volumes()]}
    return {key for key in keys if key.startswith(PREFIX) and not _runs(int(key.removeprefix(PREFIX).split("-")[0]))}


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "fake":
        fake = FakeEngine()
        fake.every_image = False
        fake.import_image([], base_image.LOCAL)
        made = World(fake, base_image.LOCAL, fake)
    else:
        engine = request.getfixturevalue("real")
        made = World(engine, base_image.provide(engine, lambda _: None, lambda _: None, Cancel()), None)
    yield made
    made.clear()
    assert not made.engine.containers(made.key)
    assert not made.engine.networks(made.key)
    assert not made.engine.volumes(made.key)
