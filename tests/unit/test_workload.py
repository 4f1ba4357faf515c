"""What runs in a cluster, by its profile's ``workload`` hook: how it is asked, and what it may print."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from minicluster.cluster import Cluster
from minicluster.engine.protocol import ExecResult
from minicluster.errors import NoEngine, ProfileError
from minicluster.model.codec import decode, encode, from_json, to_json
from minicluster.model.spec import HookSpec
from minicluster.model.workload import Workload, parse
from minicluster.operations.observe import look
from minicluster.operations.workload import workload
from minicluster.profile import catalog, folders
from minicluster.profile.load import load
from tests.fakes import FakeEngine, Hang
from tests.unit.samples import LEAST, TOY
from tests.unit.standing import spec_of

ROW = '{"name": "web.1", "node": "agent-1", "group": "web", "state": "running", "ready": true, "detail": "x"}'


def test_a_line_is_a_thing_that_runs() -> None:
    assert parse(f'{ROW}\n\n{{"name": "b", "node": null}}\n') == (
        Workload("web.1", "agent-1", "web", "running", True, "x"),
        Workload("b"),
    )


@pytest.mark.parametrize("line", ["x", "[]", "{}", '{"name": 1}', '{"name": ""}', '{"name": "a", "ready": "yes"}'])
def test_any_other_line_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(line)


@pytest.fixture
def cluster(engine: FakeEngine) -> Cluster:
    made = Cluster.up(str(TOY), name="toy", size={"master": 3}, engine=engine)
    made.spec = replace(made.spec, workload=HookSpec("master", ("ask", "them")))
    return made


def asked(cluster: Cluster) -> tuple[tuple[Workload, ...] | None, str]:
    return workload(cluster.engine, cluster.spec, look(cluster.engine, "toy").containers, timeout=5.0)


def test_without_a_hook_nothing_is_asked(engine: FakeEngine, cluster: Cluster) -> None:
    before = len(engine.did("exec"))
    cluster.spec = replace(cluster.spec, workload=None)
    assert asked(cluster) == ((), "")
    assert len(engine.did("exec")) == before


def test_the_first_node_that_answers_is_enough(engine: FakeEngine, cluster: Cluster) -> None:
    def answer(container: str, _argv: object) -> ExecResult:
        return ExecResult(1, "", "ask: no leader") if container == "toy-master-1" else ExecResult(0, ROW, "")

    engine.answers["ask them"] = answer
    assert asked(cluster)[0] == (Workload("web.1", "agent-1", "web", "running", True, "x"),)
    engine.stop_container("toy-master-2")
    engine.stop_container("toy-master-3")
    assert asked(cluster) == (None, "ask: no leader")
    engine.stop_container("toy-master-1")
    assert asked(cluster) == (None, "no master node is running")


@pytest.mark.parametrize("answer", [ExecResult(0, "rubbish", ""), TimeoutError("no answer"), NoEngine("gone"), Hang()])
def test_what_is_no_answer_is_a_reason(
    engine: FakeEngine, cluster: Cluster, answer: ExecResult | BaseException | Hang
) -> None:
    engine.answers["ask them"] = answer  # type: ignore[assignment]
    found, why = workload(engine, cluster.spec, look(engine, "toy").containers, timeout=0.2)
    assert found is None
    assert why


def test_it_runs_on_a_role(write_profile: Callable[..., Path]) -> None:
    with pytest.raises(ProfileError, match=r"workload runs on a role"):
        catalog.validate(str(write_profile(f"{LEAST}workload: {{on: node, run: [x]}}\n")))
    with pytest.raises(ProfileError, match=r"no role named 'wurker'"):
        catalog.validate(str(write_profile(f"{LEAST}workload: {{on: wurker, run: [x]}}\n")))
    assert load(write_profile(f"{LEAST}workload: {{on: worker, run: [x]}}\n")).profile.workload


def test_the_spec_keeps_it_and_one_without_it_is_read() -> None:
    spec = spec_of("swarm")
    assert spec.workload == HookSpec("master", ("swarm-workload",))
    assert decode(encode(spec)) == spec
    before = to_json(spec)
    del before["workload"]  # as a cluster has it that was made before there was such a hook
    assert from_json(json.loads(json.dumps(before))).workload is None


@pytest.mark.parametrize("profile", [name for name in folders.names() if not name.startswith("_")])
def test_every_profile_tells_what_runs(profile: str) -> None:
    assert catalog.load(profile).profile.workload
