"""Whatever happens to a store, no write that it acknowledged is lost: proved with the stock client libraries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest

from tests.engine.checker import Checker, store_of, writing
from tests.engine.conftest import VERSION, Shell, eventually, remains

ROLE = {"etcd": "kv", "zookeeper": "kv", "consul": "master"}


@dataclass(frozen=True)
class Ensemble:
    """A cluster of three voters."""

    profile: str
    name: str
    shell: Shell

    @property
    def role(self) -> str:
        return ROLE[self.profile]

    def minicluster(self, *argv: str, timeout: float = 300) -> None:
        self.shell.minicluster(*argv, "-c", self.name, timeout=timeout)

    def leader(self) -> str:
        """The leader's name, once there is one."""

        def ask() -> str:
            quorum = self.shell.minicluster("status", self.name, "-o", "json").json["quorum"]
            return str(quorum["leader"]) if quorum else ""

        return str(eventually(ask, what="a leader"))

    def is_ready(self, voters: int) -> None:
        """Every node is ready, and so many vote."""

        def ready() -> bool:
            status = self.shell.minicluster("status", self.name, "-o", "json").json
            return status["phase"] == "ready" and status["quorum"]["voters"] == voters

        eventually(ready, what=f"{self.name} ready with {voters} voters")

    def writing(self) -> AbstractContextManager[Checker]:
        """Writes within the block, and verifies at its end."""
        return writing(store_of(self.profile, self.shell, self.name))


@pytest.fixture(
    scope="module",
    params=["etcd", pytest.param("consul", marks=pytest.mark.long), pytest.param("zookeeper", marks=pytest.mark.long)],
)
def ensemble(request: pytest.FixtureRequest, outer: Shell) -> Iterator[Ensemble]:
    profile = request.param
    name = f"t-live-{profile}"
    try:
        outer.minicluster("up", profile, "--name", name, *VERSION.get(profile, ()), timeout=600)
        yield Ensemble(profile, name, outer)
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}


def test_the_leader_is_killed(ensemble: Ensemble) -> None:
    with ensemble.writing() as checker:
        leader = ensemble.leader()
        ensemble.minicluster("kill", leader)
        checker.progress()
        assert ensemble.leader() != leader
        ensemble.minicluster("start", leader)
        checker.progress()
    ensemble.is_ready(3)


def test_a_rolling_restart(ensemble: Ensemble) -> None:
    with ensemble.writing():
        ensemble.minicluster("restart", "--rolling", ensemble.role)
    ensemble.is_ready(3)


def test_it_grows_and_shrinks(ensemble: Ensemble) -> None:
    with ensemble.writing() as checker:
        ensemble.minicluster("scale", f"{ensemble.role}=5")
        ensemble.is_ready(5)
        checker.progress()
        ensemble.minicluster("scale", f"{ensemble.role}=3")
    ensemble.is_ready(3)


def test_it_is_stopped_and_started(ensemble: Ensemble) -> None:
    with ensemble.writing():
        ensemble.minicluster("stop")
        ensemble.minicluster("start")
    ensemble.is_ready(3)


@pytest.mark.long
def test_every_node_is_killed_at_once(ensemble: Ensemble) -> None:
    with ensemble.writing():
        ensemble.minicluster("kill", ensemble.role)
        ensemble.minicluster("start")
    ensemble.is_ready(3)


def test_the_engine_restarts_every_node_at_once(ensemble: Ensemble) -> None:
    """``docker restart`` of all, which minicluster hears nothing of."""
    nodes = [n["container"] for n in ensemble.shell.minicluster("status", ensemble.name, "-o", "json").json["nodes"]]
    with ensemble.writing():
        ensemble.shell.docker("restart", *nodes)
    ensemble.is_ready(3)
