"""examples/delivery on real clusters: versions come and go, a broken one is rolled back, and no request fails."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicluster.engine import base_image
from minicluster.engine.protocol import Cancel, Engine
from tests.engine.conftest import Result, Shell, eventually, remains
from tests.engine.kubernetes.kubelife import variables

EXAMPLE = Path(__file__).parents[2] / "examples" / "delivery"
ASKS = "while :; do wget -q -T 5 -O - http://web:8080/ || echo FAILED; sleep 0.02; done"

pytestmark = pytest.mark.long


class Pipeline:
    """The steps of the example for one cluster, and a client in that cluster that never stops asking."""

    def __init__(self, outer: Shell, name: str, client: Shell, base: str) -> None:
        self.name = name
        self.client = client
        own = {"CLUSTER": name, "REPLICAS": "2", "WITHIN": "120", "BASE": base}
        self.outer = Shell(outer.env | own)

    def step(self, word: str, version: str = "", *, ok: bool = True, folder: Path = EXAMPLE) -> Result:
        shell = Shell(self.outer.env | {"VERSION": version})
        return shell.run(sys.executable, str(folder / "deliver"), word, ok=ok, timeout=300)

    def deliver(self, version: str) -> None:
        for word in ("build", "load", "deploy", "verify"):
            self.step(word, version)

    def answers(self) -> Counter[str]:
        """How often the client has got which answer so far."""
        raise NotImplementedError

    def ask(self) -> None:
        """Starts the client."""
        raise NotImplementedError


class OnSwarm(Pipeline):
    def ask(self) -> None:
        words = ("--network", "shop_front", "--entrypoint", "/bin/sh", "localhost/minicluster/demo", "-c", ASKS)
        self.client.docker("run", "--detach", "--name", "asking", *words)

    def answers(self) -> Counter[str]:
        return Counter(self.client.docker("logs", "asking").out.splitlines())


class OnKubernetes(Pipeline):
    def ask(self) -> None:
        image = ("--image=localhost/minicluster/demo:1", "--image-pull-policy=Never", "--restart=Never")
        self.client.run("kubectl", "run", "asking", *image, "--command", "--", "/bin/sh", "-c", ASKS)
        self.client.run("kubectl", "wait", "--for=condition=Ready", "pod/asking", "--timeout=60s")

    def answers(self) -> Counter[str]:
        return Counter(self.client.run("kubectl", "logs", "asking").out.splitlines())


@pytest.fixture
def base(engine: Engine) -> str:
    """What the application is built on here, where no registry is in reach."""
    return base_image.provide(engine, print, print, Cancel())


@pytest.fixture
def swarm(outer: Shell, base: str) -> Iterator[Pipeline]:
    name = "t-deliver-swarm"
    try:
        outer.minicluster("up", "swarm", "--name", name, "--size", "agent=1", timeout=900)
        yield OnSwarm(outer, name, Shell(outer.minicluster("env", name, "-o", "json").json), base)
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}


@pytest.fixture
def kubernetes(outer: Shell, base: str) -> Iterator[Pipeline]:
    name = "t-deliver-kube"
    try:
        outer.minicluster("up", "kubernetes", "--name", name, "--size", "agent=1", timeout=1200)
        yield OnKubernetes(outer, name, Shell(outer.env | variables(outer, name)), base)
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}


@pytest.mark.parametrize("target", ["swarm", "kubernetes"])
def test_a_broken_version_is_rolled_back_and_no_request_fails(
    target: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    pipeline: Pipeline = request.getfixturevalue(target)
    pipeline.deliver("one")
    pipeline.ask()
    eventually(lambda: pipeline.answers()["version one"] > 10, what="answers of the first version")
    pipeline.deliver("two")
    eventually(lambda: pipeline.answers()["version two"] > 10, what="answers of the second version")

    broken = tmp_path / "delivery"
    shutil.copytree(EXAMPLE, broken)
    serve = broken / "app" / "serve"
    serve.write_text(serve.read_text().replace("echo ok >/www/ready", ": >/dev/null"))
    for word in ("build", "load", "deploy"):
        pipeline.step(word, "three", folder=broken)
    failed = pipeline.step("verify", "three", folder=broken, ok=False)
    assert failed.code == 1, failed.err
    before = pipeline.answers()["version two"]
    pipeline.step("rollback", folder=broken)
    pipeline.step("verify", "two")
    eventually(lambda: pipeline.answers()["version two"] > before + 10, what="answers after the rollback")
    answers = pipeline.answers()
    assert set(answers) == {"version one", "version two"}, answers
