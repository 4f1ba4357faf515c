"""What the tests of `minicluster reset` share: clusters are filled by stock clients, reset, and checked by them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from minicluster.cluster import Cluster
from minicluster.engine.protocol import Engine
from tests.engine.conftest import Shell, eventually, remains

NAME = "t-reset"


@contextlib.contextmanager
def up(engine: Engine, outer: Shell, profile: str, name: str = NAME, **options: Any) -> Iterator[Cluster]:
    name = f"{name}-{profile}"
    try:
        yield Cluster.up(profile, name=name, engine=engine, **options)
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}


def reset(cluster: Cluster) -> None:
    """Resets it, and checks that it is still the same cluster."""
    change = cluster.reset()
    assert (change.cluster, change.changed) == (cluster.name, True)
    status = cluster.status()
    assert status.phase == "ready", status
    assert [(n.name, n.address) for n in status.nodes] == [(n.name, n.address) for n in cluster.spec.nodes]


def published(cluster: Cluster) -> dict[str, str]:
    """HOST:PORT of each node's endpoint on the host."""
    return {e.node: f"{e.host}:{e.port}" for e in cluster.endpoints()}


def kill_leader(cluster: Cluster) -> None:
    quorum = cluster.status().quorum
    assert quorum
    cluster.kill([quorum.leader])


def repair(cluster: Cluster) -> None:
    cluster.start()
    eventually(lambda: cluster.status().phase == "ready", what=f"{cluster.name} is ready again")


@contextlib.contextmanager
def repeating(write: Callable[[], object]) -> Iterator[None]:
    """A client that writes ten times a second within the block; it must not fail."""
    stop, errors = threading.Event(), []

    def run() -> None:
        while not stop.wait(0.1):
            try:
                write()
            except Exception as error:
                errors.append(error)

    writer = threading.Thread(target=run)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()
    assert errors == []
