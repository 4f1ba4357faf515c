"""What the conformance tests share: a cluster for each module of tests, and namespaces in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engine.conftest import Shell, remains
from tests.engine.kubernetes.kube import (
    AGENTS,
    HOLD,
    STAYS,
    Kube,
    Space,
    container,
    pod,
)
from tests.engine.kubernetes.kubelife import variables


@pytest.fixture(scope="module")
def kube(request: pytest.FixtureRequest, outer: Shell, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kube]:
    """One master and two agents, under a name that no other module's cluster has."""
    name = f"t-kube-{request.module.__name__.rpartition('test_')[2]}"
    try:
        outer.minicluster("up", "kubernetes", "--name", name, "--set", "failover=quick", timeout=1200)
        yield Kube(Shell(outer.env | variables(outer, name)), name, tmp_path_factory.mktemp("kube"))
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}


@pytest.fixture(scope="module")
def asking(kube: Kube) -> Space:
    """A namespace with a pod on each agent, named like the agent, from which tests send requests."""
    space = kube.space("asking")
    space.create(*(pod(name, container(HOLD), nodeName=name, **STAYS) for name in AGENTS))
    space.ready(*AGENTS)
    return space


@pytest.fixture
def space(kube: Kube, request: pytest.FixtureRequest) -> Iterator[Space]:
    """A namespace of the test's own; its deletion is not waited for."""
    name = request.node.name.removeprefix("test_").replace("_", "-")[:40].strip("-")
    yield kube.space(name)
    kube.core.delete_namespace(name, grace_period_seconds=0)
