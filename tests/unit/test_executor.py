"""Plans are carried out in parallel as needs allow; the first error ends it all, and nothing runs on behind it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence

import pytest

from minicluster import pki
from minicluster.engine.protocol import Cancel, ContainerConfig, ExecResult, NetworkConfig
from minicluster.errors import EngineError, Interrupted, MiniclusterError, NodeEnded, NodeFailed, NotFound, NotReady
from minicluster.executor.executor import Run, execute
from minicluster.executor.waiting import ask_members, log_tail, poll
from minicluster.model import labels
from minicluster.model.events import Event
from minicluster.model.spec import CertificateSpec, FileSpec, ImageSpec
from minicluster.plan.steps import (
    Action,
    CreateVolume,
    Plan,
    ProvideImage,
    PutFiles,
    RemoveContainer,
    RemoveFile,
    RunHook,
    StartContainer,
    Step,
    WaitMembers,
    WaitReady,
)
from tests.fakes import OK, FakeEngine, Hang

LONG = 60.0  # seconds that no test waits for: something else must end it


def node(engine: FakeEngine, name: str = "c-a-1") -> str:
    """A container that runs."""
    if "net" not in engine.nets:
        engine.create_network(NetworkConfig("net", "10.9.0.0/24", "10.9.0.1", "10.9.0.224/27", {}))
    engine.create_container(ContainerConfig(name, "image", name, "net", f"10.9.0.{len(engine.boxes) + 2}", {}))
    engine.start_container(name)
    return name


def plan(*steps: Step) -> Plan:
    return Plan("c", "a test", steps)


def step(id: str, action: Action, *needs: str) -> Step:
    return Step(id, "a-1", action, "a test", needs)


def volume(id: str, *needs: str) -> Step:
    return Step(id, "", CreateVolume(id, {}), "a test", needs)


def hook(id: str, *command: str, on: str = "c-a-1", capture: tuple[str, ...] = (), best_effort: bool = False) -> Step:
    return step(id, RunHook(on, command, capture, best_effort))


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)


def run_of(engine: FakeEngine, timeout: float = LONG, listener: Callable[[Event], None] | None = None) -> Run:
    return Run(engine, pki.Authority(), timeout, listener or Heard(), lambda _image, _cancel: None)


def refused(engine: FakeEngine, *steps: Step, timeout: float = LONG) -> MiniclusterError:
    with pytest.raises(MiniclusterError) as caught:
        execute(plan(*steps), run_of(engine, timeout))
    return caught.value


# Order and parallelism


def test_steps_are_carried_out_after_what_they_need(engine: FakeEngine) -> None:
    execute(plan(volume("d"), volume("c", "d"), volume("b", "c"), volume("a", "b", "d")), run_of(engine))
    assert engine.did("create_volume") == ["d", "c", "b", "a"]


def test_a_plan_without_steps_does_nothing(engine: FakeEngine) -> None:
    execute(plan(), run_of(engine))
    assert engine.calls == []


def test_steps_that_do_not_need_each_other_run_at_once(engine: FakeEngine) -> None:
    # Each waits for all the others: one after the other, none would ever pass.
    together = threading.Barrier(20)
    for i in range(20):
        engine.fail("create_volume", lambda: together.wait(LONG) and None, match=f"v{i:02}")
    execute(plan(*(volume(f"v{i:02}") for i in range(20))), run_of(engine))
    assert len(engine.vols) == 20


def test_a_slow_step_delays_no_step_that_does_not_need_it(engine: FakeEngine) -> None:
    done = threading.Event()
    engine.fail("create_volume", lambda: done.wait(LONG) and None, match="slow")
    engine.fail("create_volume", done.set, match="last")
    execute(plan(volume("slow"), volume("x"), volume("y", "x"), volume("last", "y")), run_of(engine))
    assert engine.did("create_volume")[-1] == "last"


# Errors


def test_the_first_error_is_raised_and_nothing_that_needs_the_step_is_begun(engine: FakeEngine) -> None:
    engine.fail("create_volume", EngineError("no"), match="a")
    assert refused(engine, volume("a"), volume("b", "a")).what == "no"
    assert engine.did("create_volume") == ["a"]


def test_an_error_ends_what_waits_and_every_worker_is_joined_before_it_is_raised(engine: FakeEngine) -> None:
    hang = engine.answers["hang"] = Hang()
    node(engine)
    engine.fail("create_volume", lambda: hang.begun.wait(LONG) and _raise(EngineError("no")), match="bad")
    threads = threading.active_count()
    error = refused(engine, hook("waits", "hang"), volume("bad"))
    assert error.what == "no"
    assert threading.active_count() == threads


def test_an_error_waits_for_steps_that_cannot_be_cancelled(engine: FakeEngine) -> None:
    begun, cancelled = threading.Event(), threading.Event()
    run = run_of(engine)

    def slow() -> None:
        begun.set()
        assert cancelled.wait(LONG)

    engine.fail("create_volume", slow, match="slow")
    engine.fail("create_volume", lambda: begun.wait(LONG) and _raise(EngineError("no")), match="bad")
    with run.cancel.calls(cancelled.set), pytest.raises(EngineError):
        execute(plan(volume("slow"), volume("bad")), run)
    assert "slow" in engine.vols


class Twice(Cancel):
    """Tells when it is asked to end a second time."""

    def __init__(self) -> None:
        super().__init__()
        self.again = threading.Event()

    def set(self) -> None:
        if self.is_set():
            self.again.set()
        super().set()


def test_the_cause_is_raised_though_a_step_that_it_ended_is_heard_first(engine: FakeEngine) -> None:
    # As when an image's build sees the cancellation before the step that caused it has come back.
    node(engine)
    run = run_of(engine)
    run.cancel = cancel = Twice()
    hang = engine.answers["hang"] = Hang()

    def fail_late() -> None:
        assert hang.begun.wait(LONG)
        cancel.set()  # the hanging step ends; when execute() has heard of it, it cancels in its turn
        assert cancel.again.wait(LONG)
        raise EngineError("the cause")

    engine.fail("create_volume", fail_late, match="bad")
    with pytest.raises(EngineError, match="the cause"):
        execute(plan(hook("waits", "hang"), volume("bad")), run)


def test_what_was_asked_to_end_before_it_began_does_nothing(engine: FakeEngine) -> None:
    run = run_of(engine)
    run.cancel.set()
    with pytest.raises(Interrupted):
        execute(plan(volume("a")), run)
    assert engine.calls == []


@pytest.mark.parametrize("error", [KeyError("kv-9"), AssertionError("no"), ValueError("what?")])
def test_a_programming_error_is_raised_as_what_it_is(engine: FakeEngine, error: Exception) -> None:
    node(engine)
    engine.answers["probe"] = engine.answers["hook"] = engine.answers["members"] = error
    steps = (wait_ready(), hook("h", "hook", best_effort=True), wait_members("a-1"))
    for failing in steps:
        with pytest.raises(type(error)) as caught:
            execute(plan(failing), run_of(engine))
        assert caught.value is error


def test_what_a_failed_plan_left_is_cleaned_up_on_nodes_that_it_had_begun(engine: FakeEngine) -> None:
    node(engine)
    node(engine, "c-a-2")
    engine.fail("create_volume", EngineError("no"))
    steps = [
        volume("bad"),
        Step("first", "a-1", RunHook("c-a-1", ("first",)), "a test"),
        Step("clean a-1", "a-1", RemoveFile("c-a-1", "/x"), "a test", ("first", "bad"), cleanup=True),
        Step("never", "a-2", RunHook("c-a-2", ("never",)), "a test", ("bad",)),
        Step("clean a-2", "a-2", RemoveFile("c-a-2", "/x"), "a test", ("never",), cleanup=True),
    ]
    assert refused(engine, *steps).what == "no"
    assert engine.did("exec")[-1] == "c-a-1: rm -f /x"
    assert not any(did.startswith("c-a-2") for did in engine.did("exec"))


def test_ctrl_c_ends_what_waits_and_is_raised(engine: FakeEngine) -> None:
    hang = engine.answers["hang"] = Hang()
    node(engine)

    main = threading.main_thread().ident
    assert main

    def press() -> None:
        assert hang.begun.wait(LONG)
        signal.pthread_kill(main, signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        execute(plan(hook("waits", "hang")), run_of(engine))
    presser.join()


def test_ctrl_c_is_heard_again_after_a_failed_plan(engine: FakeEngine) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    engine.fail("create_volume", EngineError("no"))
    refused(engine, volume("a"))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def _raise(error: BaseException) -> None:
    raise error


# Getting ready


def answers(*results: ExecResult | BaseException) -> Callable[[str, Sequence[str]], ExecResult]:
    """Each answer once, the last for ever."""
    left = list(results)

    def answer(_container: str, _argv: Sequence[str]) -> ExecResult:
        result = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(result, BaseException):
            raise result
        return result

    return answer


def wait_ready(on: str = "c-a-1") -> Step:
    return step("ready", WaitReady(on, ("probe",)))


def test_a_probe_is_asked_until_it_passes(engine: FakeEngine) -> None:
    node(engine)
    engine.answers["probe"] = answers(ExecResult(1, "", "not yet"), ExecResult(1, "", "soon"), OK)
    execute(plan(wait_ready()), run_of(engine))
    assert len(engine.did("exec")) == 3


def test_a_node_that_is_not_ready_in_time_is_named_with_its_last_answer_and_its_log(engine: FakeEngine) -> None:
    node(engine)
    engine.boxes["c-a-1"].log = [b"line %d" % i for i in range(100)]
    engine.answers["probe"] = ExecResult(1, "", "first\nno leader yet\n\n")
    error = refused(engine, wait_ready(), timeout=0)
    assert isinstance(error, NotReady)
    assert error.exit_code == 4
    assert "c-a-1" in error.what
    assert "no leader yet" in error.why
    assert "line 99" in error.why
    assert "line 1\n" not in error.why


def test_a_probe_that_hangs_is_a_node_that_is_not_ready(engine: FakeEngine) -> None:
    node(engine)
    engine.answers["probe"] = Hang()
    error = refused(engine, wait_ready(), timeout=0)
    assert isinstance(error, NotReady)
    assert "no answer" in error.why


def test_a_node_that_exits_is_told_at_once_with_status_and_log(engine: FakeEngine) -> None:
    engine.exits["c-a-1"] = (3, "starting\nno such file: x")
    node(engine)
    error = refused(engine, wait_ready())
    assert isinstance(error, NodeFailed)
    assert "c-a-1 exited with status 3" in error.what
    assert "no such file: x" in error.why


def test_a_node_that_was_removed_while_it_started_is_told_so(engine: FakeEngine) -> None:
    error = refused(engine, wait_ready())
    assert isinstance(error, NodeFailed)
    assert "no longer exists" in error.what


def test_a_log_that_cannot_be_read_does_not_hide_the_error(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    node(engine)
    engine.answers["probe"] = ExecResult(1, "", "nope")

    def no_log(*_args: object, **_options: object) -> list[bytes]:
        raise EngineError("the log is broken")

    monkeypatch.setattr(engine, "logs", no_log)
    error = refused(engine, wait_ready(), timeout=0)
    assert isinstance(error, NotReady)
    assert "the log is broken" in error.why


class Clock:
    """A clock that advances with each reading, and a cancel that never sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


class Sleepless(Cancel):
    def wait(self, seconds: float) -> bool:
        return self.is_set()


def test_polling_ends_at_the_deadline_with_the_last_answer() -> None:
    asked: list[str] = []

    def check() -> str:
        asked.append("")
        return f"answer {len(asked)}"

    with pytest.raises(NotReady) as caught:
        poll(check, what="it", deadline=5, cancel=Sleepless(), clock=Clock())
    assert len(asked) == 5
    assert "it timed out: not ready" in caught.value.what
    assert "answer 5" in caught.value.why


def test_an_answer_that_was_late_does_not_hide_the_one_before() -> None:
    left = ["no leader", TimeoutError("no answer within 1 s")]

    def check() -> str:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, BaseException):
            raise answer
        return str(answer)

    with pytest.raises(NotReady) as caught:
        poll(check, what="it", deadline=5, cancel=Sleepless(), clock=Clock())
    assert caught.value.why == "Last answer: no leader"


def test_polling_asks_at_least_once() -> None:
    poll(lambda: "", what="it", deadline=-1, cancel=Sleepless(), clock=Clock())


def test_polling_ends_when_cancelled() -> None:
    cancel = Cancel()
    cancel.set()
    with pytest.raises(Interrupted):
        poll(lambda: "no", what="it", deadline=99, cancel=cancel, clock=lambda: 0.0)


def test_polling_ends_at_once_where_waiting_is_in_vain() -> None:
    def check() -> str:
        raise NodeFailed("it exited")

    with pytest.raises(NodeFailed):
        poll(check, what="it", deadline=99, cancel=Cancel(), clock=lambda: 0.0)


def test_the_time_that_an_image_takes_is_not_taken_from_the_nodes(engine: FakeEngine) -> None:
    run = run_of(engine)
    execute(plan(step("i", ProvideImage(ImageSpec("i", "r", "image"))), volume("v")), run)
    assert run.begun is None
    execute(plan(step("r", RemoveContainer("none"))), run)
    assert run.begun is None  # neither is that of nodes that leave
    node(engine)
    execute(plan(step("s", StartContainer("c-a-1"))), run)
    assert run.begun is not None


# Nodes that the plan takes for running


def member(name: str, ready: str = "true") -> str:
    return f'{{"name": "{name}", "ready": {ready}}}\n'


def wait_members(*names: str, needs: Sequence[str] = ()) -> Step:
    return Step("members", "", WaitMembers("c-a-1", ("members",), names), "a test", tuple(needs))


def cluster_node(engine: FakeEngine, name: str, state: str = "running") -> None:
    about = {labels.CLUSTER: "c", labels.NODE: name}
    engine.create_container(ContainerConfig(f"c-{name}", "image", name, "net", f"10.9.1.{name[-1]}", about))
    engine.set_state(f"c-{name}", state)


def test_a_node_that_ended_is_noticed_while_another_is_waited_for(engine: FakeEngine) -> None:
    node(engine)
    cluster_node(engine, "a-2", "exited")
    engine.answers["probe"] = ExecResult(1, "", "no quorum")
    error = refused(engine, wait_ready(), wait_members("a-1", "a-2", needs=["ready"]))
    assert isinstance(error, NodeEnded)
    assert error.what == "a-2 stopped while minicluster was waiting"


@pytest.mark.parametrize("answer", [member("a-1"), member("a-1") + member("a-2", "false")], ids=["missing", "unready"])
def test_a_member_that_ended_is_not_waited_for(engine: FakeEngine, answer: str) -> None:
    node(engine)
    cluster_node(engine, "a-2", "exited")
    engine.answers["members"] = ExecResult(0, answer, "")
    assert isinstance(refused(engine, wait_members("a-1", "a-2")), NodeEnded)


def test_a_node_that_no_step_waits_for_or_that_is_not_started_yet_has_not_ended(engine: FakeEngine) -> None:
    node(engine)
    cluster_node(engine, "a-2", "exited")
    cluster_node(engine, "b-1", "exited")
    engine.answers["probe"] = answers(ExecResult(1, "", "not yet"), OK)
    engine.answers["members"] = ExecResult(0, member("a-1") + member("a-2"), "")
    later = Step("start a-2", "a-2", StartContainer("c-a-2"), "a test", ("ready",))
    execute(plan(wait_ready(), later, wait_members("a-1", "a-2", needs=["start a-2"])), run_of(engine))
    assert engine.boxes["c-b-1"].container.state == "exited"


def test_the_engine_is_not_asked_for_nodes_that_ended_at_each_try(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    node(engine)
    looks: list[str | None] = []
    look = engine.containers
    monkeypatch.setattr(engine, "containers", lambda cluster=None: looks.append(cluster) or look(cluster))
    monkeypatch.setattr("minicluster.executor.waiting._LOOK", LONG)
    engine.answers["probe"] = answers(*[ExecResult(1, "", "not yet")] * 5, OK)
    engine.answers["members"] = answers(ExecResult(1, "", "not yet"), ExecResult(0, member("a-1"), ""))
    execute(plan(wait_ready(), wait_members("a-1", needs=["ready"])), run_of(engine))
    assert looks == ["c"]


# Hooks


def test_the_lines_of_a_hook_are_captured_for_later_ones(engine: FakeEngine) -> None:
    node(engine)
    engine.answers["form"] = ExecResult(0, "T1 \nT2\nmore\n", "")
    steps = [hook("form", "form", capture=("one", "two")), hook("join", "join", "\0captured.two\0", "\0captured.one\0")]
    execute(plan(steps[0], step("join", steps[1].action, "form")), run_of(engine))
    assert engine.did("exec")[-1] == "c-a-1: join T2 T1"


def test_a_hook_that_prints_too_little_is_refused_without_what_it_printed(engine: FakeEngine) -> None:
    node(engine)
    engine.answers["form"] = ExecResult(0, "SECRET\n", "")
    error = refused(engine, hook("form", "form", capture=("one", "two")))
    assert isinstance(error, NodeFailed)
    assert "printed 1 line, expected 2 (one, two)" in error.what
    assert "SECRET" not in str(error)


def test_a_hook_that_fails_is_told_with_status_node_and_its_own_words(engine: FakeEngine) -> None:
    node(engine)
    engine.answers["form"] = ExecResult(7, "out", "no quorum\n")
    error = refused(engine, hook("form", "form", "now"))
    assert error.what == "`form now` failed in c-a-1 with status 7"
    assert error.why == "no quorum"


def test_a_hook_that_hangs_is_told_with_the_nodes_log(engine: FakeEngine) -> None:
    node(engine)
    engine.boxes["c-a-1"].log = [b"its last words"]
    engine.answers["form"] = Hang()
    error = refused(engine, hook("form", "form"), timeout=0)
    assert isinstance(error, NotReady)
    assert "c-a-1" in error.what
    assert "its last words" in error.why


@pytest.mark.parametrize(
    "answer",
    [ExecResult(1, "", "no"), NodeFailed("it does not run"), NotFound("it is gone"), TimeoutError("no answer")],
    ids=["status", "stopped", "gone", "late"],
)
def test_a_hook_that_need_not_succeed_is_noted_and_passed_over(
    engine: FakeEngine, answer: ExecResult | BaseException
) -> None:
    node(engine)
    engine.answers["leave"] = answer
    heard = Heard()
    plan_ = plan(hook("leave", "leave", best_effort=True), volume("after", "leave"))
    execute(plan_, run_of(engine, listener=heard))
    assert "after" in engine.vols
    assert [e.kind for e in heard.events if "continuing" in e.text] == ["note"]


def test_a_hook_that_need_not_succeed_still_ends_when_cancelled(engine: FakeEngine) -> None:
    node(engine)
    hang = engine.answers["leave"] = Hang()
    engine.fail("create_volume", lambda: hang.begun.wait(LONG) and _raise(EngineError("no")))
    assert refused(engine, hook("leave", "leave", best_effort=True), volume("bad")).what == "no"


@pytest.mark.parametrize(
    "answer",
    [ExecResult(1, "", "invalid"), ExecResult(1, "", "cannot join with SECRET"), ExecResult(1, "SECRET", ""), Hang()],
    ids=["silent", "stderr", "stdout", "hangs"],
)
def test_what_was_captured_never_stands_in_an_error(engine: FakeEngine, answer: ExecResult | Hang) -> None:
    node(engine)
    engine.answers["form"] = ExecResult(0, "SECRET\n", "")
    engine.answers["join"] = answer
    join = step("join", RunHook("c-a-1", ("join", "\0captured.token\0")), "form")
    error = refused(engine, hook("form", "form", capture=("token",)), join, timeout=0)
    assert engine.did("exec")[-1].endswith("SECRET")
    assert "SECRET" not in str(error)


def test_what_a_failing_hook_was_to_capture_does_not_stand_in_its_error(engine: FakeEngine) -> None:
    node(engine)
    engine.answers["form"] = ExecResult(1, "SECRET\n", "")
    assert "SECRET" not in str(refused(engine, hook("form", "form", capture=("one", "two"))))


# Members


def test_members_are_waited_for_until_all_are_ready(engine: FakeEngine) -> None:
    node(engine)
    engine.answers["members"] = answers(
        ExecResult(1, "", "no leader"),
        ExecResult(0, member("a-1"), ""),
        ExecResult(0, member("a-1") + member("a-2", "false"), ""),
        ExecResult(0, member("a-1") + member("a-2") + member("other", "false"), ""),
    )
    execute(plan(step("m", WaitMembers("c-a-1", ("members",), ("a-1", "a-2")))), run_of(engine))
    assert len(engine.did("exec")) == 4


@pytest.mark.parametrize(
    ("answer", "said", "late"),
    [
        (ExecResult(1, "", "no leader"), "no leader", ""),
        (ExecResult(0, member("a-1"), ""), "a-2 not among the members", "a-2"),
        (ExecResult(0, member("a-1") + member("a-2", "false"), ""), "a-2 not ready", "a-2"),
        (ExecResult(0, "what?\n", ""), "Expecting value", ""),
        (NodeFailed("cannot run", "it stopped"), "it stopped", ""),
        (TimeoutError("no answer within 3 s"), "no answer", ""),
    ],
    ids=["status", "missing", "unready", "nonsense", "stopped", "late"],
)
def test_members_that_do_not_come_are_named(
    engine: FakeEngine, answer: ExecResult | BaseException, said: str, late: str
) -> None:
    node(engine)
    engine.answers["members"] = answer
    error = refused(engine, step("m", WaitMembers("c-a-1", ("members",), ("a-1", "a-2"))), timeout=0)
    assert isinstance(error, NotReady)
    assert said in error.why
    assert error.why.partition("The end of ")[2].partition("'s log")[0] == late


def test_who_was_waited_for_is_told_where_the_last_answer_was_late(engine: FakeEngine) -> None:
    node(engine)
    engine.answers["members"] = answers(ExecResult(0, member("a-1") + member("a-2", "false"), ""), TimeoutError("late"))
    error = refused(engine, step("m", WaitMembers("c-a-1", ("members",), ("a-1", "a-2"))), timeout=0.2)
    assert isinstance(error, NotReady)
    assert "The end of a-2's log" in error.why


def test_of_two_members_of_one_name_the_living_counts(engine: FakeEngine) -> None:
    node(engine)
    for rows in (member("a") + member("a", "false"), member("a", "false") + member("a")):
        engine.answers["members"] = ExecResult(0, rows, "")
        assert ask_members(engine, "c-a-1", ["members"], timeout=1)["a"].ready


@pytest.mark.parametrize("text", ["[]", "{}", '{"name": "a"}', "3", "null"])
def test_an_answer_that_is_no_member_is_refused(engine: FakeEngine, text: str) -> None:
    node(engine)
    engine.answers["members"] = ExecResult(0, text + "\n", "")
    with pytest.raises(NodeFailed):
        ask_members(engine, "c-a-1", ["members"], timeout=1)


# Files and events


def test_files_certificates_and_authority_are_put_where_they_belong(engine: FakeEngine) -> None:
    node(engine)
    run = run_of(engine)
    put = PutFiles("c-a-1", (FileSpec("/bin/x", "é", 0o755),), (CertificateSpec("/tls", "a-1"),), authority=True)
    execute(plan(step("f", put)), run)
    files = engine.boxes["c-a-1"].files
    modes = {path: file.mode for path, file in files.items()}
    assert modes == {
        "/bin/x": 0o755,
        "/tls/ca.pem": 0o644,
        "/tls/cert.pem": 0o644,
        "/tls/key.pem": 0o600,
        pki.PATH: 0o600,
    }
    assert files["/bin/x"].content == "é".encode()
    assert pki.Authority.load(files[pki.PATH].content).identity == run.authority.identity


def test_the_listener_hears_of_the_plan_of_each_step_and_of_each_node_that_is_done(engine: FakeEngine) -> None:
    heard = Heard()
    node(engine)
    steps = (
        Step("v", "", CreateVolume("v", {}), "c"),
        Step("s", "a-1", StartContainer("c-a-1"), "c", ("v",)),
        Step("r", "a-2", RemoveContainer("c-a-2"), "c", ("s",)),
    )
    execute(plan(*steps), run_of(engine, listener=heard))
    assert [(e.kind, e.subject, e.phase) for e in heard.events] == [
        ("plan", "", ""),
        ("start", "", "preparing"),
        ("end", "", "preparing"),
        ("done", "", "preparing"),
        ("start", "a-1", "starting"),
        ("end", "a-1", "starting"),
        ("done", "a-1", "running"),
        ("start", "a-2", "removing"),
        ("end", "a-2", "removing"),
        ("done", "a-2", "removed"),
    ]
    assert heard.events[0].nodes == ("a-1", "a-2")


def test_a_node_that_the_others_forget_last_is_removed(engine: FakeEngine) -> None:
    heard = Heard()
    node(engine)
    forget = RunHook("c-a-1", ("forget", "a-2"), phase="leaving")
    steps = (
        Step("r", "a-2", RemoveContainer("c-a-2"), "c"),
        Step("h", "a-2", forget, "c", ("r",)),
    )
    execute(plan(*steps), run_of(engine, listener=heard))
    assert [e.phase for e in heard.events if e.kind == "done"] == ["removed"]


def test_a_time_out_names_the_cluster_to_look_at(engine: FakeEngine) -> None:
    node(engine)
    engine.answers["probe"] = TimeoutError("run probe in c-a-1: no answer within 0.2 s")
    error = refused(engine, step("r", WaitReady("c-a-1", ("probe",))), timeout=0.1)
    assert isinstance(error, NotReady)
    assert error.why.startswith("It has not answered at all (run probe in c-a-1: no answer within 0.2 s).")
    assert "`minicluster logs -c c`" in error.fix


def test_of_a_log_with_long_lines_the_beginning_of_each_is_shown(engine: FakeEngine) -> None:
    node(engine)
    engine.exits["c-a-1"] = (1, "x" * 1000)
    engine.start_container("c-a-1")
    assert max(map(len, log_tail(engine, "c-a-1").splitlines())) < 320
