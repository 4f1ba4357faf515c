"""A cluster reset: the profile's hooks, where they run, and what happens where they cannot."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from minicluster.cli.app import app
from minicluster.cluster import Cluster
from minicluster.errors import MiniclusterError, NodeFailed, NotReady, ProfileError, UsageError
from minicluster.leases import lock
from minicluster.model import codec
from minicluster.model.events import Event
from minicluster.model.spec import HookSpec
from minicluster.profile import catalog
from tests.fakes import OK, ExecResult, FakeEngine, Hang
from tests.unit.samples import LEAST
from tests.unit.standing import spec_of

ETCD = ["e-kv-1", "e-kv-2", "e-kv-3"]


@pytest.fixture
def etcd(engine: FakeEngine) -> Cluster:
    """Three nodes that run. What was done to make them is forgotten."""
    made = Cluster.up("etcd", name="e", engine=engine)
    engine.calls.clear()
    return made


@pytest.fixture
def swarm(engine: FakeEngine) -> Cluster:
    made = Cluster.up("swarm", name="s", engine=engine)
    engine.calls.clear()
    return made


def ran(engine: FakeEngine, command: str) -> list[str]:
    """The containers that a command ran in, in their order."""
    return [name for name, _, argv in (did.partition(": ") for did in engine.did("exec")) if argv == command]


# The profile


def test_hooks_are_resolved_with_the_topology(write_profile: Callable[..., Path]) -> None:
    hooks = "hooks:\n  reset:\n    - {on: node, run: [clear, \"{{ nodes | map(attribute='address') | join(',') }}\"]}\n"
    hooks += '    - {on: worker, run: [reset, "{{ cluster.name }}"]}\n'
    made = spec_of(write_profile(LEAST + hooks), worker=2)
    assert made.reset == (HookSpec("node", ("clear", "172.28.0.2,172.28.0.3")), HookSpec("worker", ("reset", "c")))
    assert codec.decode(codec.encode(made)) == made


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        ("{on: workers, run: [x]}", "no role named 'workers'"),
        ("{on: worker}", "lacks the key 'run'"),
        ('{on: worker, run: ["{{ initial_member.address }}"]}', "initial_member"),
    ],
)
def test_a_hook_that_cannot_be_is_refused(write_profile: Callable[..., Path], hook: str, said: str) -> None:
    folder = write_profile(f"{LEAST}hooks:\n  reset:\n    - {hook}\n")
    with pytest.raises(ProfileError, match=said):
        catalog.validate(str(folder))


@pytest.mark.parametrize("profile", ["etcd", "zookeeper", "consul", "swarm", "mesos"])
def test_every_bundled_profile_can_be_reset(profile: str) -> None:
    made = spec_of(profile)
    assert made.reset
    for hook in made.reset:  # a node that a hook runs in has its script
        nodes = [n for n in made.nodes if hook.on in ("node", n.role)]
        assert nodes
        for node in nodes:
            assert f"/usr/local/bin/{hook.run[0]}" in {f.path for f in node.files}, (hook, node.name)


# The façade


def test_a_role_s_hook_runs_on_one_node(engine: FakeEngine, etcd: Cluster) -> None:
    change = etcd.reset()
    assert engine.calls == [("exec", "e-kv-1: etcd-reset")]
    assert (change.cluster, change.changed, change.steps, change.summary) == ("e", True, 1, {"run-hook": 1})
    assert change.seconds >= 0


def test_hooks_run_in_their_order_and_those_on_nodes_on_all_of_them(engine: FakeEngine, swarm: Cluster) -> None:
    change = swarm.reset()
    nodes = ["s-agent-1", "s-agent-2", "s-master-1"]
    did = engine.did("exec")
    assert did[0] == "s-master-1: swarm-reset services"
    assert sorted(did[1:4]) == [f"{name}: swarm-clear containers" for name in nodes]
    assert did[4] == "s-master-1: swarm-reset networks"
    assert sorted(did[5:]) == [f"{name}: swarm-clear" for name in nodes]
    assert change.steps == len(did) == 8


def test_nodes_are_reset_at_once(engine: FakeEngine, swarm: Cluster) -> None:
    together = threading.Barrier(3, timeout=5)

    def clear(_container: str, _argv: Sequence[str]) -> ExecResult:
        together.wait()
        return OK

    engine.answers["swarm-clear"] = clear
    swarm.reset()


def test_a_node_that_does_not_run_is_passed_over(engine: FakeEngine, etcd: Cluster) -> None:
    engine.set_state("e-kv-1", "exited")
    engine.set_state("e-kv-2", "paused")
    etcd.reset()
    assert ran(engine, "etcd-reset") == ["e-kv-3"]


def broken(*names: str) -> Callable[[str, Sequence[str]], ExecResult]:
    """An answer by which these containers' software does not work."""

    def answer(container: str, _argv: Sequence[str]) -> ExecResult:
        return ExecResult(1, "", "etcd-reset: no leader\n") if container in names else OK

    return answer


def members(leader: str, ready: Sequence[str]) -> ExecResult:
    rows = [{"name": n, "ready": n in ready, "voter": True, "leader": n == leader} for n in ("kv-1", "kv-2", "kv-3")]
    return ExecResult(0, "\n".join(map(json.dumps, rows)), "")


@pytest.mark.parametrize(
    ("leader", "ready", "failing", "tried"),
    [
        ("kv-3", ["kv-1", "kv-2", "kv-3"], ["e-kv-1"], ["e-kv-1", "e-kv-3"]),
        ("kv-2", ["kv-2", "kv-3"], ["e-kv-1"], ["e-kv-1", "e-kv-2"]),
        ("kv-1", ["kv-3"], ["e-kv-1"], ["e-kv-1", "e-kv-3"]),
        ("kv-3", ["kv-1", "kv-2", "kv-3"], ["e-kv-1", "e-kv-3"], ["e-kv-1", "e-kv-3", "e-kv-2"]),
    ],
)
def test_where_a_node_fails_the_leader_comes_next_and_then_others_that_are_ready(
    engine: FakeEngine, etcd: Cluster, leader: str, ready: list[str], failing: list[str], tried: list[str]
) -> None:
    engine.answers |= {"etcd-reset": broken(*failing), "etcd-members": members(leader, ready)}
    assert etcd.reset().steps == 1
    assert ran(engine, "etcd-reset") == tried


def test_where_the_members_are_unknown_every_node_is_tried(engine: FakeEngine, etcd: Cluster) -> None:
    engine.answers |= {"etcd-reset": broken(*ETCD), "etcd-members": ExecResult(1, "", "no leader")}
    with pytest.raises(NodeFailed) as failed:
        etcd.reset()
    assert ran(engine, "etcd-reset") == ETCD
    assert failed.value.what == "`etcd-reset` failed in e-kv-3 with status 1"
    assert failed.value.why == "etcd-reset: no leader"
    assert "can be repeated" in failed.value.fix


def test_without_a_node_that_runs_there_is_nothing_to_run_it_on(engine: FakeEngine, etcd: Cluster) -> None:
    for name in ETCD:
        engine.set_state(name, "exited")
    with pytest.raises(NodeFailed, match="cannot be reset") as refused:
        etcd.reset()
    assert "No kv node is running" in refused.value.why
    assert engine.calls == []


@pytest.mark.parametrize("state", ["exited", "paused", "gone"])
def test_where_every_node_is_needed_nothing_is_done_while_one_is_down(
    engine: FakeEngine, swarm: Cluster, state: str
) -> None:
    if state == "gone":
        del engine.boxes["s-agent-2"]
    else:
        engine.set_state("s-agent-2", state)
    with pytest.raises(NodeFailed, match="cannot be reset") as refused:
        swarm.reset()
    assert "agent-2 is not running" in refused.value.why
    assert "minicluster up --name s" in refused.value.fix
    assert engine.calls == []


def test_a_node_that_fails_stops_the_reset_and_the_other_nodes(engine: FakeEngine, swarm: Cluster) -> None:
    other = Hang()

    def clear(container: str, _argv: Sequence[str]) -> ExecResult:
        assert other.begun.wait(5)
        return ExecResult(1, "", f"swarm-clear: {container} is busy")

    engine.answers["swarm-clear"] = clear
    execute = engine.exec

    def one_hangs(container: str, argv: Sequence[str], **options: object) -> ExecResult:
        if container == "s-agent-1" and argv[0] == "swarm-clear":
            engine.answers["hang"] = other
            return execute(container, ["hang"], **options)  # type: ignore[arg-type]
        return execute(container, argv, **options)  # type: ignore[arg-type]

    engine.exec = one_hangs  # type: ignore[method-assign]
    begun = time.monotonic()
    with pytest.raises(NodeFailed, match="swarm-clear"):
        swarm.reset(timeout=30)
    assert time.monotonic() - begun < 10  # it did not wait for the one that hangs
    assert ran(engine, "swarm-reset networks") == []


def test_what_does_not_end_in_time_is_given_up(engine: FakeEngine, etcd: Cluster) -> None:
    engine.answers["etcd-reset"] = Hang()
    with pytest.raises(NotReady, match=r"cluster e was not reset within 0\.3 s") as late:
        etcd.reset(timeout=0.3)
    assert late.value.exit_code == 4


def test_a_profile_without_the_hook_says_so(engine: FakeEngine, write_profile: Callable[..., Path]) -> None:
    made = Cluster.up(str(write_profile(LEAST)), name="least", engine=engine)
    with pytest.raises(UsageError, match="cluster least cannot be reset") as refused:
        made.reset()
    assert "no reset hook" in refused.value.why
    assert "minicluster down least" in refused.value.fix


def test_a_cluster_that_another_process_scaled_meanwhile_is_reset_as_it_is(engine: FakeEngine, swarm: Cluster) -> None:
    Cluster.up(name="s", size={"agent": 1}, engine=engine)
    engine.calls.clear()
    swarm.reset()
    assert sorted(set(ran(engine, "swarm-clear"))) == ["s-agent-1", "s-master-1"]


def test_it_is_a_change_that_others_wait_for(engine: FakeEngine, etcd: Cluster) -> None:
    with lock.changing("e"), pytest.raises(MiniclusterError, match="is being changed"):
        etcd.reset()
    assert engine.calls == []


def test_a_listener_hears_each_node_once_it_is_through(engine: FakeEngine, swarm: Cluster) -> None:
    heard: list[Event] = []
    swarm.reset(listener=heard.append)
    assert (heard[0].kind, heard[0].text, heard[0].nodes) == (
        "plan",
        "reset cluster s",
        ("master-1", "agent-1", "agent-2"),
    )
    done = [e.subject for e in heard if e.kind == "done" and e.subject]
    assert sorted(done) == ["agent-1", "agent-2", "master-1"]


# The command line


@pytest.fixture
def here(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The engine is the one that commands find."""
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda **_options: engine)
    return engine


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), prog_name="minicluster")


def test_the_command_tells_how_long_it_took(here: FakeEngine, etcd: Cluster) -> None:
    result = run("reset")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("Reset cluster e (")
    assert result.stderr == "reset cluster e\n"
    assert run("reset", "e", "-q").stdout == ""
    assert len(ran(here, "etcd-reset")) == 2


def test_the_command_answers_in_json(here: FakeEngine, swarm: Cluster) -> None:
    result = run("reset", "s", "-o", "json")
    answer = json.loads(result.stdout)
    assert answer.pop("seconds") >= 0
    assert answer == {"cluster": "s", "changed": True, "steps": 8, "summary": {"run-hook": 8}}
    assert "agent-2: reset (" in result.stderr


def test_a_dry_run_shows_the_steps_and_does_nothing(here: FakeEngine, swarm: Cluster) -> None:
    lines = run("reset", "--dry-run").stdout.splitlines()
    assert lines[0] == "reset cluster s"
    assert len(lines) == 2 + 8
    assert "run in s-master-1: swarm-reset services" in lines[2]
    steps = json.loads(run("reset", "--dry-run", "-o", "json").stdout)["steps"]
    assert [step["action"] for step in steps] == ["run-hook"] * 8
    assert here.calls == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["reset", "other"], 7, "no cluster named 'other'"),
        (["reset", "--timeout", "0"], 2, "must be a number of seconds greater than 0"),
        (["reset", "--timeout", "0.3"], 4, "was not reset within 0.3 s"),
    ],
)
def test_the_command_fails_with_the_status_of_its_error(
    here: FakeEngine, etcd: Cluster, words: list[str], code: int, said: str
) -> None:
    here.answers["etcd-reset"] = Hang()
    result = run(*words)
    assert result.exit_code == code
    assert said in result.stderr
