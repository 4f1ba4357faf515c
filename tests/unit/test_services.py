"""What users have published, by a profile's ``services`` hook: what it may print, and which node is asked."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from minicluster.cluster import Cluster
from minicluster.engine.protocol import ExecResult
from minicluster.errors import MiniclusterError
from minicluster.model.services import Service, parse
from minicluster.model.spec import HookSpec
from tests.fakes import FakeEngine
from tests.unit.samples import TOY

ROW = {"name": "a/b", "node": "n-1", "address": "10.0.0.1", "port": 80, "protocol": "tcp", "at": "one"}


def test_a_line_is_a_port() -> None:
    assert parse(f'{json.dumps(ROW)}\n\n{{"name": "c", "port": 53, "address": "fd00::1", "protocol": "udp"}}\n') == (
        Service("a/b", 80, "n-1", "10.0.0.1", "tcp", "one"),
        Service("c", 53, "", "fd00::1", "udp"),
    )
    assert [one.url for one in parse(json.dumps(ROW))] == ["tcp://10.0.0.1:80"]
    assert Service("c", 53, "", "fd00::1", "udp").url == "udp://[fd00::1]:53"


@pytest.mark.parametrize("line", ["x", "[]", "{}", "1"])
def test_what_is_no_object_with_a_name_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(line)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": 1},
        {"port": "80"},
        {"port": True},
        {"port": 0},
        {"port": 65536},
        {"address": "a/b"},
        {"address": "10.0.0.1]x"},
        {"protocol": "t p"},
        {"at": []},
    ],
)
def test_a_value_of_another_kind_is_an_error(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(json.dumps({**ROW, **wrong}))


def test_the_first_node_that_answers_is_enough(engine: FakeEngine) -> None:
    cluster = Cluster.up(str(TOY), name="toy", size={"master": 3}, engine=engine)
    cluster.spec = replace(cluster.spec, services=HookSpec("master", ("ask", "them")))
    failed = ExecResult(1, "", "ask: no leader")

    def answer(container: str, _argv: object) -> ExecResult:
        return failed if container == "toy-master-1" else ExecResult(0, json.dumps(ROW), "")

    engine.answers["ask them"] = answer
    assert cluster.endpoint("a/b").url == "tcp://10.0.0.1:80"
    assert "a/b" in {e.name for e in cluster.info().endpoints}
    engine.answers["ask them"] = failed
    with pytest.raises(MiniclusterError, match="no master says what is published in cluster toy") as caught:
        cluster.endpoint("a/b")
    assert caught.value.why == "ask: no leader"


@pytest.mark.parametrize("answer", [ExecResult(0, "rubbish", ""), TimeoutError("no answer"), MiniclusterError("gone")])
def test_a_hook_that_fails_is_a_note_of_info(engine: FakeEngine, answer: ExecResult | BaseException) -> None:
    cluster = Cluster.up(str(TOY), name="toy", engine=engine)
    own = cluster.info().endpoints
    cluster.spec = replace(cluster.spec, services=HookSpec("master", ("ask", "them")))
    engine.answers["ask them"] = answer
    assert cluster.info().endpoints == cluster.endpoints() == own != ()
    assert any("no master says what is published in cluster toy: " in note for note in cluster.info().notes)
