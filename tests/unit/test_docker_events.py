"""Which of the engine's messages are a cluster's events: those of networks have no labels, and some may be missed."""

from __future__ import annotations

from typing import Any

from minicluster.engine.docker.events import _Known
from minicluster.engine.protocol import NetworkConfig
from minicluster.model.labels import CLUSTER
from tests.fakes.engine import FakeEngine


def message(action: str, key: str, name: str) -> dict[str, Any]:
    return {"Type": "network", "Action": action, "Actor": {"ID": key, "Attributes": {"name": name}}, "timeNano": 10**9}


def created(engine: FakeEngine, name: str, cluster: str) -> str:
    engine.create_network(NetworkConfig(name, "10.88.7.0/24", "10.88.7.1", "10.88.7.128/25", {CLUSTER: cluster}))
    found = engine.network(name)
    assert found
    return found.id


def test_a_network_whose_creation_was_not_seen_is_the_clusters() -> None:
    engine = FakeEngine()
    known = _Known(engine, "c")
    key = created(engine, "c-net", "c")
    assert known.event(message("connect", key, "c-net"))
    engine.remove_network("c-net")
    assert known.event(message("destroy", key, "c-net"))


def test_a_network_that_has_been_removed_meanwhile_is_known_by_its_name() -> None:
    known = _Known(FakeEngine(), "c")
    assert known.event(message("create", "n1", "c-net"))
    assert not known.event(message("create", "n2", "c-2-net"))


def test_networks_of_others_are_not_the_clusters() -> None:
    engine = FakeEngine()
    key = created(engine, "c-net", "another")
    known = _Known(engine, "c")
    assert not known.event(message("connect", key, "c-net"))
    engine.remove_network("c-net")
    assert not known.event(message("destroy", key, "c-net"))
