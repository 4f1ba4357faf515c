"""Verbs on a cluster that is up, by the façade and by the command line, on an engine in memory."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence

import pytest
from click.testing import CliRunner, Result

from minicluster.cli.app import app
from minicluster.cluster import Cluster, dry_run
from minicluster.errors import EngineError, MiniclusterError, NodeFailed, NotReady, UsageError
from minicluster.leases import lock
from minicluster.model.events import Event
from minicluster.model.results import Change
from minicluster.plan.observed import records
from tests.fakes import ExecResult, FakeEngine, FakeEtcd
from tests.unit.samples import TOY

ALL = ["kv-1", "kv-2", "kv-3"]


def up(engine: FakeEngine, **options: object) -> Cluster:
    return Cluster.up("etcd", name="e", engine=engine, **options)  # type: ignore[arg-type]


@pytest.fixture
def cluster(engine: FakeEngine) -> Cluster:
    """Three nodes of etcd that run. What was done to make them is forgotten."""
    made = up(engine)
    engine.calls.clear()
    return made


def states(engine: FakeEngine) -> list[str]:
    """What the nodes are, in their order."""
    return [c.state for _name, c in sorted((c.name, c) for c in engine.containers("e"))]


def changes(engine: FakeEngine) -> list[tuple[str, str]]:
    return [call for call in engine.calls if call[0] != "exec"]


def do(cluster: Cluster, verb: str, nodes: Sequence[str] = (), **options: object) -> Change:
    method: Callable[..., Change] = getattr(cluster, verb)
    return method(nodes, **options)


# The façade


@pytest.mark.parametrize(
    ("verb", "nodes", "before", "after"),
    [
        ("stop", ["kv-2"], {}, ["running", "exited", "running"]),
        ("stop", [], {}, ["exited"] * 3),
        ("stop", ["kv-2"], {"kv-2": "paused"}, ["running", "exited", "running"]),
        ("start", ["kv-2"], {"kv-2": "exited", "kv-3": "exited"}, ["running", "running", "exited"]),
        ("start", ["kv"], {"kv-2": "exited", "kv-3": "paused"}, ["running"] * 3),
        ("restart", [], {"kv-1": "exited", "kv-2": "paused"}, ["running"] * 3),
        ("restart", ["kv-1"], {"kv-2": "exited"}, ["running", "exited", "running"]),
        ("pause", ["kv-1", "kv-3"], {}, ["paused", "running", "paused"]),
        ("unpause", [], {"kv-2": "paused"}, ["running"] * 3),
        ("kill", ["kv-3"], {}, ["running", "running", "exited"]),
        ("kill", ["kv"], {}, ["exited"] * 3),
    ],
)
def test_a_verb_leaves_the_nodes_as_it_says(
    engine: FakeEngine, cluster: Cluster, verb: str, nodes: list[str], before: dict[str, str], after: list[str]
) -> None:
    for node, state in before.items():
        engine.set_state(f"e-{node}", state)
    change = do(cluster, verb, nodes)
    assert states(engine) == after
    assert change.changed
    assert change.cluster == "e"
    assert change.steps == sum(change.summary.values())
    assert [r.spec for r in records(engine.volumes())] == [cluster.spec]  # the desired state of the cluster is the same


@pytest.mark.parametrize("verb", ["start", "unpause"])
def test_a_verb_that_finds_nothing_to_do_says_so(engine: FakeEngine, cluster: Cluster, verb: str) -> None:
    change = do(cluster, verb)
    assert (change.changed, change.steps) == (False, 0)
    assert engine.calls == []


def test_what_a_verb_took_away_up_brings_back(engine: FakeEngine, cluster: Cluster) -> None:
    cluster.kill(["kv-1"])
    cluster.pause(["kv-2"])
    assert cluster.status().phase == "broken"
    assert up(engine).status().phase == "ready"


@pytest.mark.parametrize("verb", ["stop", "start", "restart", "pause", "unpause", "kill"])
def test_a_verb_is_refused_while_another_is_at_work(engine: FakeEngine, cluster: Cluster, verb: str) -> None:
    with lock.changing("e"), pytest.raises(MiniclusterError, match="is being changed"):
        do(cluster, verb, ["kv-1"])
    assert engine.calls == []
    assert states(engine) == ["running"] * 3


@pytest.mark.parametrize("verb", ["stop", "start", "restart", "pause", "unpause", "kill"])
def test_a_word_that_names_no_node_is_refused_with_those_of_its_role(
    engine: FakeEngine, cluster: Cluster, verb: str
) -> None:
    with pytest.raises(UsageError) as caught:
        do(cluster, verb, ["kv-1", "kv-9"])
    assert caught.value.what == "cluster e has no node or role 'kv-9'"
    assert caught.value.fix == "Available: kv-1, kv-2, kv-3."
    assert engine.calls == []


def test_whom_to_kill_has_to_be_said(engine: FakeEngine, cluster: Cluster) -> None:
    with pytest.raises(UsageError, match="kill needs a node"):
        cluster.kill([])
    assert engine.calls == []


def test_one_node_that_a_verb_is_not_for_holds_up_the_others(engine: FakeEngine, cluster: Cluster) -> None:
    engine.set_state("e-kv-3", "exited")
    with pytest.raises(NodeFailed, match="cannot pause kv-3"):
        cluster.pause(["kv-1", "kv-3"])
    assert states(engine) == ["running", "running", "exited"]


def test_a_start_waits_until_the_cluster_counts_the_node(engine: FakeEngine, cluster: Cluster) -> None:
    cluster.stop(["kv-3"])
    engine.calls.clear()
    cluster.start(["kv-3"])
    did = [f"{kind} {about}" for kind, about in engine.calls]
    assert did[0] == "start_container e-kv-3"
    assert did[-1] == "exec e-kv-1: etcd-members"
    assert "exec e-kv-3: etcd-ready" in did


def test_a_node_that_does_not_get_ready_is_told_and_left_to_look_at(engine: FakeEngine, cluster: Cluster) -> None:
    cluster.stop(["kv-3"])
    engine.answers["etcd-ready"] = ExecResult(1, "", "still replaying its log")
    with pytest.raises(NotReady) as caught:
        cluster.start(["kv-3"], timeout=0.01)
    assert "still replaying its log" in caught.value.why
    assert states(engine) == ["running"] * 3


def test_what_fails_midway_is_not_undone(engine: FakeEngine, cluster: Cluster) -> None:
    engine.fail("start_container", EngineError("no memory"), match="kv-2")
    with pytest.raises(EngineError, match="no memory"):
        cluster.restart(["kv-2"])
    assert states(engine) == ["running", "exited", "running"]
    assert up(engine).status().phase == "ready"


def test_a_rolling_restart_takes_turns_the_leader_last(engine: FakeEngine) -> None:
    FakeEtcd(engine).leader["e"] = "kv-2"
    cluster = up(engine)
    engine.calls.clear()
    change = cluster.restart(rolling=True, timeout=60.0)
    assert change.summary["stop-container"] == 3
    assert changes(engine) == [
        (kind, f"e-{node}") for node in ("kv-1", "kv-3", "kv-2") for kind in ("stop_container", "start_container")
    ]
    assert cluster.status().phase == "ready"


def test_a_rolling_restart_that_would_lose_the_quorum_is_refused(engine: FakeEngine, cluster: Cluster) -> None:
    cluster.kill(["kv-3"])
    engine.calls.clear()
    with pytest.raises(MiniclusterError, match="restarting kv-1 would lose the quorum of cluster e"):
        cluster.restart(rolling=True)
    assert changes(engine) == []
    assert cluster.restart(["kv-3"], rolling=True).changed
    assert cluster.status().phase == "ready"


def test_forced_a_rolling_restart_begins_with_who_is_down(engine: FakeEngine, cluster: Cluster) -> None:
    cluster.kill(["kv-3"])
    engine.calls.clear()
    cluster.restart(rolling=True, force=True, timeout=60.0)
    assert changes(engine)[0] == ("start_container", "e-kv-3")
    assert cluster.status().phase == "ready"


def test_the_loss_of_the_quorum_is_noted(engine: FakeEngine, cluster: Cluster) -> None:
    heard: list[Event] = []
    cluster.stop(["kv-1"], listener=heard.append)
    assert [e.text for e in heard if e.kind == "note"] == []
    cluster.stop(["kv-2"], listener=heard.append)
    assert [e.text for e in heard if e.kind == "note"] == ["Warning: quorum lost: 1 of 3 kv nodes running, 2 needed"]
    assert [e.text for e in heard if e.kind == "plan"] == ["stop kv-1 of cluster e", "stop kv-2 of cluster e"]


def test_voters_are_started_one_by_one_and_the_last_brings_the_quorum(engine: FakeEngine, cluster: Cluster) -> None:
    cluster.stop()
    assert cluster.status().phase in ("stopped", "broken")
    assert cluster.start(["kv-1"], timeout=60.0).changed
    assert cluster.status().phase == "broken"
    cluster.start(["kv-2"], timeout=60.0)
    assert cluster.status().phase == "degraded"
    cluster.start(timeout=60.0)
    assert cluster.status().phase == "ready"


# Scale


@pytest.mark.parametrize("size", [1, 5])
def test_scale_changes_how_many_there_are_for_good(engine: FakeEngine, cluster: Cluster, size: int) -> None:
    change = cluster.scale({"kv": size}, timeout=60.0)
    assert change.changed
    assert [n.name for n in cluster.spec.nodes] == [f"kv-{i}" for i in range(1, size + 1)]
    assert cluster.status().phase == "ready"
    assert len(Cluster.open("e", engine=engine).spec.nodes) == size
    assert up(engine).change.changed is False  # type: ignore[union-attr]


def test_scale_to_what_is_there_does_nothing(engine: FakeEngine, cluster: Cluster) -> None:
    assert cluster.scale({"kv": 3}).changed is True  # from now on it is asked for
    engine.calls.clear()
    assert cluster.scale({"kv": 3}).changed is False
    assert changes(engine) == []


def test_scale_keeps_the_profile_and_what_was_asked_for(engine: FakeEngine) -> None:
    toy = Cluster.up(str(TOY), name="mine", set={"color": "blue"}, engine=engine)
    toy.scale({"agent": 3})
    assert toy.spec.profile == "toy"
    assert "--color=blue" in toy.spec.nodes[0].command
    assert "mine-agent-3" in engine.boxes


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ({"kv": 2}, "--size kv=2: role kv takes 1, 3, 5 or 7 nodes"),
        ({"kv": 0}, "--size kv=0: role kv takes 1, 3, 5 or 7 nodes"),
        ({"kv": 9}, "--size kv=9: role kv takes 1, 3, 5 or 7 nodes"),
        ({"vk": 3}, "--size vk=3: no role named 'vk'"),
    ],
)
def test_scale_to_what_cannot_be_is_refused(
    engine: FakeEngine, cluster: Cluster, size: dict[str, int], said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        cluster.scale(size)
    assert caught.value.what == said
    assert changes(engine) == []
    assert len(cluster.spec.nodes) == 3


def test_scale_that_would_lose_the_quorum_is_refused_and_forced_goes_on(engine: FakeEngine, cluster: Cluster) -> None:
    cluster.kill(["kv-1"])
    engine.calls.clear()
    with pytest.raises(MiniclusterError, match="removing kv-3 would lose the quorum"):
        cluster.scale({"kv": 1})
    assert changes(engine) == []
    cluster.start(["kv-1"])
    cluster.kill(["kv-2"])
    assert cluster.scale({"kv": 1}, timeout=60.0).changed  # the dead one goes first
    assert cluster.status().phase == "ready"


@pytest.mark.parametrize("force", [False, True])
def test_without_a_quorum_no_node_can_leave(engine: FakeEngine, cluster: Cluster, force: bool) -> None:
    cluster.kill(["kv-2", "kv-3"])
    with pytest.raises(MiniclusterError, match="kv-2, kv-3 cannot leave cluster e now"):
        cluster.scale({"kv": 1}, force=force)
    assert sorted(engine.boxes) == ["e-kv-1", "e-kv-2", "e-kv-3"]


def test_a_quorum_that_would_be_lost_is_let_go_by_force(engine: FakeEngine, cluster: Cluster) -> None:
    cluster.kill(["kv-1"])
    with pytest.raises(MiniclusterError, match="would lose the quorum"):
        cluster.scale({"kv": 1})
    cluster.scale({"kv": 1}, force=True)
    assert sorted(engine.boxes) == ["e-kv-1"]
    assert cluster.status().phase == "ready"


def test_a_scaling_that_fails_is_undone(engine: FakeEngine, cluster: Cluster) -> None:
    before = cluster.spec
    engine.fail("start_container", EngineError("no memory"), match="kv-5")
    with pytest.raises(EngineError, match="no memory"):
        cluster.scale({"kv": 5})
    assert cluster.spec == before
    assert cluster.status().phase == "ready"
    assert sorted(engine.boxes) == ["e-kv-1", "e-kv-2", "e-kv-3"]


# The restart policy


def test_nodes_have_the_restart_policy_that_was_asked_for(engine: FakeEngine) -> None:
    def policies() -> set[str]:
        return {box.config.restart for box in engine.boxes.values() if box.config}

    up(engine)
    assert policies() == {"no"}
    engine.calls.clear()
    up(engine, restart="always")
    assert policies() == {"always"}
    assert sorted(engine.did("update_container")) == ["e-kv-1", "e-kv-2", "e-kv-3"]
    assert engine.did("remove_container") == []
    up(engine, size={"kv": 5})  # what was asked for once stays asked for
    assert policies() == {"always"}
    up(engine, restart="no")
    assert policies() == {"no"}


@pytest.mark.parametrize("act", [lambda e, r: up(e, restart=r), lambda e, r: dry_run("etcd", restart=r)])
def test_a_restart_policy_that_is_none_is_refused_with_the_nearest(
    engine: FakeEngine, act: Callable[[FakeEngine, str], object]
) -> None:
    with pytest.raises(UsageError) as caught:
        act(engine, "alway")
    assert caught.value.what == "--restart alway: no such policy"
    assert "'always'" in caught.value.fix
    assert engine.calls == []


# The command line


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words), prog_name="minicluster")


@pytest.fixture
def typed(engine: FakeEngine, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The engine that commands find, with the cluster on it."""
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda **_options: engine)
    for name in ("MINICLUSTER", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    assert cluster.name == "e"
    return engine


@pytest.mark.parametrize(
    ("words", "before", "after", "answer"),
    [
        ("stop kv-2", {}, ["running", "exited", "running"], "Stopped 1 node of cluster e in"),
        ("stop", {}, ["exited"] * 3, "Stopped 3 nodes of cluster e in"),
        ("start", {"kv-2": "exited"}, ["running"] * 3, "Started 1 node of cluster e in"),
        ("restart kv-2 kv-3", {}, ["running"] * 3, "Restarted 2 nodes of cluster e in"),
        ("restart --rolling", {}, ["running"] * 3, "Restarted 3 nodes of cluster e in"),
        ("restart --rolling --force kv-1", {}, ["running"] * 3, "Restarted 1 node of cluster e in"),
        ("pause kv-1", {}, ["paused", "running", "running"], "Paused 1 node of cluster e in"),
        ("unpause kv", {"kv-1": "paused"}, ["running"] * 3, "Resumed 1 node of cluster e in"),
        ("kill kv-1", {}, ["exited", "running", "running"], "Killed 1 node of cluster e in"),
        ("scale kv=5", {}, ["running"] * 5, "Scaled cluster e ("),
        ("scale kv=1 --force", {}, ["running"], "Scaled cluster e ("),
    ],
)
def test_a_command_does_it_and_says_so_in_one_line(
    typed: FakeEngine, words: str, before: dict[str, str], after: list[str], answer: str
) -> None:
    for node, state in before.items():
        typed.set_state(f"e-{node}", state)
    result = run(*words.split())
    assert result.exit_code == 0, result.stderr
    assert states(typed) == after
    (line,) = result.stdout.splitlines()
    assert re.fullmatch(re.escape(answer) + r" ?\d\.\d s\)?\.", line)


@pytest.mark.parametrize(
    ("words", "summary"),
    [
        ("stop kv-2", {"stop-container": 1}),
        ("start kv-2", {}),
        ("restart kv-2", {"stop-container": 1, "start-container": 1, "wait-ready": 1, "wait-members": 1}),
        ("pause kv-2", {"pause-container": 1}),
        ("unpause kv-2", {}),
        ("kill kv-2 kv-3", {"kill-container": 2}),
    ],
)
def test_a_command_answers_json(typed: FakeEngine, words: str, summary: dict[str, int]) -> None:
    result = run(*words.split(), "-o", "json")
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout)
    assert list(answer) == ["cluster", "changed", "steps", "seconds", "summary"]
    assert answer["cluster"] == "e"
    assert answer["changed"] is bool(summary)
    assert answer["summary"] == summary
    assert answer["steps"] == sum(summary.values())


def test_scale_answers_json(typed: FakeEngine) -> None:
    answer = json.loads(run("scale", "kv=5", "-o", "json").stdout)
    assert list(answer) == ["cluster", "changed", "steps", "seconds", "summary"]
    assert (answer["summary"]["create-container"], answer["summary"]["run-hook"]) == (2, 2)


def test_a_command_tells_what_each_node_became(typed: FakeEngine) -> None:
    result = run("stop", "kv-2", "kv-3")
    lines = result.stderr.splitlines()
    assert lines[0] == "stop kv-2, kv-3 of cluster e"
    assert sorted(line.partition(" (")[0] for line in lines[1:-1]) == ["kv-2: stopped", "kv-3: stopped"]
    assert lines[-1] == "Warning: quorum lost: 1 of 3 kv nodes running, 2 needed"
    assert "kv-1: paused (" in run("pause", "kv-1").stderr
    assert "kv-1: running (" in run("unpause", "kv-1").stderr
    assert "kv-1: killed (" in run("kill", "kv-1").stderr


def test_where_there_is_nothing_to_do_it_is_said(typed: FakeEngine) -> None:
    result = run("start")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Cluster e: nothing to do.\n", "")


def test_quiet_is_quiet(typed: FakeEngine) -> None:
    result = run("stop", "kv-2", "-q")
    assert (result.exit_code, result.output) == (0, "")
    assert states(typed) == ["running", "exited", "running"]


def test_the_cluster_is_the_one_that_is_named(typed: FakeEngine) -> None:
    Cluster.up("etcd", name="other", size={"kv": 1}, engine=typed)
    assert run("stop", "-c", "other").exit_code == 0
    assert states(typed) == ["running"] * 3
    assert typed.boxes["other-kv-1"].container.state == "exited"
    assert run("stop").exit_code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("kill", "Missing argument"),
        ("restart --force", "--force needs --rolling"),
        ("restart --timeout 0", "--timeout 0: must be a number of seconds greater than 0"),
        ("start --timeout -1", "--timeout -1: must be a number of seconds greater than 0"),
        ("scale", "Missing argument"),
        ("scale kv", "kv: must have the form ROLE=N"),
        ("scale kv=", "kv=: must be an integer not less than 0"),
        ("scale kv=many", "kv=many: must be an integer not less than 0"),
        ("scale kv=-1", "kv=-1: must be an integer not less than 0"),
        ("scale kv=3 kv=5", "kv is given twice"),
        ("scale vk=3", "no role named 'vk'"),
        ("scale kv=2", "--size kv=2: role kv takes 1, 3, 5 or 7 nodes"),
        ("scale kv=0", "--size kv=0: role kv takes 1, 3, 5 or 7 nodes"),
        ("scale kv=9", "--size kv=9: role kv takes 1, 3, 5 or 7 nodes"),
        ("scale kv=3 --timeout 0", "--timeout 0: must be a number of seconds greater than 0"),
        ("stop kv-9", "has no node or role 'kv-9'"),
        ("up etcd --name e --restart never", "--restart never: no such policy"),
    ],
)
def test_wrong_usage_ends_with_2_and_changes_nothing(typed: FakeEngine, words: str, said: str) -> None:
    result = run(*words.split())
    assert result.exit_code == 2
    assert said.replace(" ", "") in "".join(result.stderr.replace("│", "").split())
    assert result.stdout == ""
    assert changes(typed) == []


def test_an_even_number_of_voters_is_refused_with_the_reason(typed: FakeEngine) -> None:
    stderr = run("scale", "kv=4").stderr
    assert "even number" in stderr
    assert "role kv takes 1, 3, 5 or 7 nodes" in stderr


@pytest.mark.parametrize(
    ("words", "dead", "code", "said"),
    [
        ("pause kv-3", ["kv-3"], 1, "cannot pause kv-3"),
        ("kill kv-3", ["kv-3"], 1, "It is stopped."),
        ("restart --rolling", ["kv-3"], 1, "restarting kv-1 would lose the quorum of cluster e"),
        ("restart --rolling", ["kv-2", "kv-3"], 1, "a rolling restart of cluster e cannot begin"),
        ("scale kv=1", ["kv-1"], 1, "removing kv-3 would lose the quorum of cluster e"),
        ("scale kv=1", ["kv-2", "kv-3"], 1, "kv-2, kv-3 cannot leave cluster e now"),
    ],
)
def test_what_cannot_be_done_now_ends_with_1(
    typed: FakeEngine, words: str, dead: list[str], code: int, said: str
) -> None:
    for node in dead:
        typed.set_state(f"e-{node}", "exited")
    result = run(*words.split())
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr
    assert changes(typed) == []


def test_a_node_that_does_not_get_ready_in_time_ends_with_4(typed: FakeEngine) -> None:
    typed.answers["etcd-ready"] = ExecResult(1, "", "still booting")
    result = run("restart", "kv-1", "--timeout", "0.01")
    assert (result.exit_code, result.stdout) == (4, "")
    assert "still booting" in result.stderr


def test_help_names_every_verb() -> None:
    text = run("--help").stdout
    for verb in ("stop", "start", "restart", "pause", "unpause", "kill", "scale"):
        assert f"\n  {verb} " in text


def test_forced_a_rolling_restart_without_quorum_does_not_wait(engine: FakeEngine) -> None:
    cluster = up(engine)
    cluster.stop(["kv-2", "kv-3"])
    cluster.restart(rolling=True, force=True, timeout=2.0)
    assert cluster.status().phase == "ready"


def test_each_turn_of_a_rolling_restart_has_its_own_time(engine: FakeEngine) -> None:
    cluster = up(engine, size={"kv": 5})
    ready = engine.answers["etcd-ready"]
    assert isinstance(ready, Callable)  # type: ignore[arg-type]
    start, since = engine.start_container, {}

    def started(name: str) -> None:
        since[name] = time.monotonic()
        start(name)

    def slow(name: str, argv: Sequence[str]) -> ExecResult:
        return ready(name, argv) if time.monotonic() > since[name] + 0.4 else ExecResult(1, "", "booting")

    engine.start_container = started  # type: ignore[method-assign]
    engine.answers["etcd-ready"] = slow
    assert cluster.restart(rolling=True, timeout=1.0).changed


def test_up_starts_a_node_that_ended_after_it_was_looked_at(engine: FakeEngine, cluster: Cluster) -> None:
    """A `stop` whose minicluster was killed continues in the engine."""
    cluster.stop(["kv-2"])
    start = engine.start_container

    def late(name: str) -> None:
        start(name)
        if name == "e-kv-2":
            engine.start_container = start  # type: ignore[method-assign]
            engine.set_state("e-kv-1", "exited")

    engine.start_container = late  # type: ignore[method-assign]
    heard: list[Event] = []
    up(engine, listener=heard.append)
    assert states(engine) == ["running"] * 3
    assert "kv-1 stopped while minicluster was waiting; retrying" in [e.text for e in heard if e.kind == "note"]


def test_up_starts_nodes_that_ended_while_it_waits_for_one_that_cannot_get_ready_without_them(
    engine: FakeEngine, cluster: Cluster
) -> None:
    """As above, but they end later: the node that is started alone has no quorum, so its probe never passes."""
    cluster.stop(["kv-1"])

    def ready(name: str, _argv: Sequence[str]) -> ExecResult:
        if "kv-1 is started" not in heard:
            heard.append("kv-1 is started")
            engine.set_state("e-kv-2", "exited")
            engine.set_state("e-kv-3", "exited")
        return ExecResult(0, "", "") if states(engine).count("running") >= 2 else ExecResult(1, "", "no leader")

    heard: list[str] = []
    engine.answers["etcd-ready"] = ready
    up(engine, timeout=20.0, listener=lambda e: heard.append(e.text))
    assert states(engine) == ["running"] * 3
    assert "kv-2 stopped while minicluster was waiting; retrying" in heard


def test_a_node_that_is_stopped_on_purpose_is_not_missed_while_others_get_ready(
    engine: FakeEngine, cluster: Cluster
) -> None:
    cluster.stop(["kv-2", "kv-3"])
    tries = iter([ExecResult(1, "", "booting")] * 3)
    engine.answers["etcd-ready"] = lambda _name, _argv: next(tries, ExecResult(0, "", ""))
    assert cluster.start(["kv-2"], timeout=20.0).changed
    assert states(engine) == ["running", "running", "exited"]
