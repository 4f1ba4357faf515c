"""examples/delivery: Marathon, by answers written after its documentation; and the files for servers that call it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.replay import Reply, Request, Server, said, serving

FOLDER = Path(__file__).parents[2] / "examples" / "delivery"
DELIVER = FOLDER / "deliver"
STEPS = ["build", "load", "deploy", "verify", "rollback"]


@dataclass
class Fake:
    """Marathon with one application of two instances, as its API shows it."""

    port: int = 0
    version: str = "2026-01-02T00:00:00.000Z"  #: of the application's definition, in Marathon's words
    definitions: dict[str, Any] = field(default_factory=dict)  #: version -> what was put
    deployments: list[dict[str, str]] = field(default_factory=list)
    serves: str = "one"  #: what the application answers
    healthy: int = 2

    def app(self, _request: Request) -> Reply:
        task = {"host": "127.0.0.1", "ports": [self.port], "version": self.version}
        env = self.definitions[self.version]["env"]
        state = {"tasksHealthy": self.healthy, "tasks": [task] * 2, "deployments": self.deployments}
        return said({"app": {"id": "/shop/web", "instances": 2, "version": self.version, "env": env, **state}})

    def put(self, request: Request) -> Reply:
        if "version" in request.json:  # an older one again
            self.serves = self.definitions[request.json["version"]]["env"]["VERSION"]
            self.definitions["2026-01-09T00:00:00.000Z"] = self.definitions[request.json["version"]]
        else:
            self.definitions[f"2026-01-0{len(self.definitions) + 2}T00:00:00.000Z"] = request.json
            self.serves = request.json["env"]["VERSION"]
        self.version = max(self.definitions)
        return said({"version": self.version, "deploymentId": "d1"})

    def ended(self, _request: Request) -> Reply:
        """A deployment that is ended takes the definition before back."""
        self.deployments, self.healthy = [], 2
        del self.definitions[self.version]
        self.version = max(self.definitions)
        self.serves = self.definitions[self.version]["env"]["VERSION"]
        return said({"version": self.version, "deploymentId": "d2"})

    def versions(self, _request: Request) -> Reply:
        return said({"versions": sorted(self.definitions, reverse=True)})


@pytest.fixture
def marathon() -> Iterator[tuple[Fake, Server]]:
    fake = Fake()
    answers = {
        "GET /v2/apps/shop/web": fake.app,
        "PUT /v2/apps/shop/web": fake.put,
        "GET /v2/apps/shop/web/versions": fake.versions,
        "DELETE /v2/deployments/d1": fake.ended,
        "/": lambda _request: Reply(200, f"version {fake.serves}\n".encode()),
    }
    with serving(answers) as server:
        fake.port = int(server.url.rpartition(":")[2])
        yield fake, server


@pytest.fixture
def deliver(marathon: tuple[Fake, Server], tmp_path: Path) -> Any:
    """Runs a step. In place of minicluster there is a script that says what it says of a cluster of Mesos."""
    said = {"info": '{"profile": "mesos"}', "env": f"export MINICLUSTER_SCHEDULER={marathon[1].url}"}
    cases = "\n".join(f"{word}) echo '{text}' ;;" for word, text in said.items())
    (tmp_path / "minicluster").write_text(f"#!/bin/sh\ncase $1 in\n{cases}\nesac\n")
    (tmp_path / "minicluster").chmod(0o755)

    def step(word: str, version: str = "", code: int = 0, **env: str) -> str:
        own = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "REPLICAS": "2", "VERSION": version, "WITHIN": "0.1", **env}
        done = subprocess.run(
            [sys.executable, str(DELIVER), word], env=os.environ | own, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        return done.stderr

    return step


def test_a_version_is_deployed_and_verified(deliver: Any, marathon: tuple[Fake, Server]) -> None:
    deliver("deploy", "one")
    put = next(iter(marathon[0].definitions.values()))
    assert put["container"]["docker"]["image"] == "localhost/shop/web:one"
    assert (put["instances"], put["upgradeStrategy"]["minimumHealthCapacity"]) == (2, 1)
    deliver("verify", "one")
    assert "runs version one, and not two" in deliver("verify", "two", 1)


def test_a_version_that_does_not_become_healthy_is_ended(deliver: Any, marathon: tuple[Fake, Server]) -> None:
    fake, server = marathon
    deliver("deploy", "one")
    deliver("deploy", "two")
    fake.deployments, fake.healthy = [{"id": "d1"}], 1
    assert "not within 0.1 s" in deliver("verify", "two", 1)
    deliver("rollback")
    assert any(request.method == "DELETE" and request.path == "/v2/deployments/d1" for request in server.asked)
    deliver("verify", "one")


def test_a_version_that_is_deployed_and_wrong_gives_way_to_the_one_before(
    deliver: Any, marathon: tuple[Fake, Server]
) -> None:
    deliver("deploy", "one")
    deliver("deploy", "two")
    marathon[0].serves = "garbage"
    assert "the application answers 'version garbage', and not 'version two'" in deliver("verify", "two", 1)
    deliver("rollback")
    deliver("verify", "one")


def test_without_a_version_before_there_is_no_rollback(deliver: Any) -> None:
    deliver("deploy", "one")
    assert "no version before" in deliver("rollback", "", 1)


def test_marathons_own_words_are_shown(deliver: Any, marathon: tuple[Fake, Server]) -> None:
    marathon[1].answers["PUT /v2/apps/shop/web"] = said({"message": "App is locked by one or more deployments."}, 409)
    assert "Marathon returned 409 for PUT /v2/apps/shop/web" in (text := deliver("deploy", "one", 1))
    assert "App is locked" in text


@pytest.mark.parametrize(("word", "version", "code"), [("undo", "one", 2), ("build", "", 1), ("deploy", "a b", 1)])
def test_wrong_calls_are_refused(deliver: Any, word: str, version: str, code: int) -> None:
    assert "deliver" in deliver(word, version, code)


def called(text: str) -> list[str]:
    return re.findall(r"examples/delivery/deliver (\w+)", text)


@pytest.mark.parametrize("file", ["Jenkinsfile", "github-actions.yaml", "gitlab-ci.yaml"])
def test_each_server_calls_each_step_once(file: str) -> None:
    text = (FOLDER / "ci" / file).read_text()
    assert called(text) == STEPS
    assert len(re.findall(r"\bsh '|\brun: |\bscript: ", text)) == len(STEPS)  # and nothing else


def test_a_failed_verification_alone_is_rolled_back() -> None:
    gitlab = yaml.safe_load((FOLDER / "ci/gitlab-ci.yaml").read_text())
    assert list(gitlab["stages"]) == STEPS
    assert (gitlab["rollback"]["needs"], gitlab["rollback"]["when"]) == (["verify"], "on_failure")
    github = yaml.safe_load((FOLDER / "ci/github-actions.yaml").read_text())
    steps = github["jobs"]["deliver"]["steps"][1:]
    assert [step["name"] for step in steps] == STEPS
    assert "steps.verify" in steps[-1]["if"]


def test_the_definitions_are_what_they_are_for() -> None:
    json.loads((FOLDER / "marathon.json").read_text().replace("$REPLICAS", "3"))
    documents = list(yaml.safe_load_all((FOLDER / "web.yaml").read_text().replace("$REPLICAS", "3")))
    assert [one["kind"] for one in documents] == ["Service", "Deployment"]
    assert documents[1]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
