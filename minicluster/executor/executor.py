"""Runs the steps of a plan at once, as far as their needs allow; on the first error cancels and joins the rest."""

from __future__ import annotations

import contextlib
import json
import queue
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from minicluster import pki
from minicluster.engine.protocol import Cancel, Engine, File
from minicluster.errors import Interrupted, MiniclusterError, NodeEnded, NodeFailed, NotFound, NotReady
from minicluster.executor.signals import shielded
from minicluster.executor.waiting import poll
from minicluster.model import labels
from minicluster.model.codec import encode
from minicluster.model.deferred import SECRET, fill, readable
from minicluster.model.events import Event, Listener
from minicluster.model.membership import Member, Quorum
from minicluster.model.naming import container_name
from minicluster.model.spec import ImageSpec
from minicluster.plan import steps as m
from minicluster.plan.steps import Plan, RunHook, Step

_WORKERS = 64  # steps at once; most of them wait
_LEAVE_PATIENCE = 60.0  # seconds that a hook has when nodes leave: moving work away takes its time
_LOG_LINES = 10  # of a failed node's log, in the error
_LISTEN = 0.5  # seconds within which Ctrl-C is heard for certain
_LOOK = 0.5  # seconds between two looks at whether nodes still run, by all waits of a plan together

#: What a step's subject is doing meanwhile, for people.
_PHASES: dict[type, str] = {
    m.ProvideImage: "image",
    m.Record: "recording",
    m.CreateNetwork: "creating network",
    m.ConnectNetwork: "connecting",
    m.DisconnectNetwork: "disconnecting",
    m.CreateVolume: "creating",
    m.CreateContainer: "creating",
    m.PutFiles: "configuring",
    m.StartContainer: "starting",
    m.WaitReady: "booting",
    RunHook: "joining",
    m.WaitMembers: "settling",
    m.StopContainer: "stopping",
    m.KillContainer: "ending",
    m.PauseContainer: "pausing",
    m.UpdateContainer: "configuring",
    m.RemoveContainer: "removing",
    m.RemoveVolume: "removing",
    m.RemoveNetwork: "removing network",
}


#: What a subject is once the last of its steps is done; "ready" by default.
_ENDED: dict[type, str] = {
    m.StartContainer: "running",
    m.StopContainer: "stopped",
    m.KillContainer: "killed",
    m.PauseContainer: "paused",
    m.RemoveContainer: "removed",
    m.RemoveVolume: "removed",
}


@dataclass
class Run:
    """What the steps of one plan share."""

    engine: Engine
    authority: pki.Authority
    timeout: float  #: seconds that the nodes have to get ready, counted from when the last of them was begun
    listener: Listener
    provide_image: Callable[[ImageSpec, Cancel], None]
    cancel: Cancel = field(default_factory=Cancel)
    captured: dict[str, str] = field(default_factory=dict)
    cluster: str = ""  #: the plan's
    counted_on: frozenset[str] = frozenset()  #: nodes that the plan takes for running
    looked: float = float("-inf")  #: when somebody last looked whether nodes still run, on the monotonic clock
    begun: float | None = None  #: when the last node was begun: of those that go one by one each has its own time

    @property
    def deadline(self) -> float:
        """On the monotonic clock."""
        return (self.begun or time.monotonic()) + self.timeout


def execute(plan: Plan, run: Run) -> None:
    """Carries out a plan.

    Raises:
        MiniclusterError: the first error of any step, after every other step has ended.
        KeyboardInterrupt: Ctrl-C, likewise.
    """
    run.cluster = plan.cluster
    run.counted_on = _counted_on(plan)
    waiting = {step.id: set(step.needs) for step in plan.steps}
    since: dict[str, float] = {}  # node -> when work on it began in earnest
    todo = {step.id: step for step in plan.steps}
    open_steps = Counter(step.node for step in plan.steps if step.node)
    finished: queue.SimpleQueue[tuple[Step, Future[None]]] = queue.SimpleQueue()
    nodes = tuple(dict.fromkeys(step.node for step in plan.steps if step.node))
    run.listener(Event("plan", text=plan.headline, nodes=nodes))
    running = 0
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="step") as pool:
        try:
            while todo or running:
                for step in [todo[id] for id, needs in waiting.items() if not needs and id in todo]:
                    del todo[step.id]
                    running += 1
                    if not isinstance(step.action, m.CreateVolume):
                        since.setdefault(step.node, time.monotonic())
                    future = pool.submit(_carry_out, step, run)
                    future.add_done_callback(lambda done, step=step: finished.put((step, done)))  # type: ignore[misc]
                if not running:
                    raise AssertionError(f"the plan goes round in circles: {', '.join(todo)}")
                step, future = _next(finished)
                running -= 1
                if future.exception():
                    run.listener(Event("failed", step.node, _PHASES[type(step.action)], step.id))
                future.result()
                for needs in waiting.values():
                    needs.discard(step.id)
                if step.node:
                    open_steps[step.node] -= 1
                    if not open_steps[step.node]:
                        phase = _ENDED.get(type(step.action), "ready")
                        now = time.monotonic()
                        run.listener(Event("done", step.node, phase, seconds=now - since.get(step.node, now)))
                else:
                    run.listener(Event("done", "", _PHASES[type(step.action)], step.id))
        except BaseException as error:
            with shielded():
                run.cancel.set()
                pool.shutdown(wait=True, cancel_futures=True)
            raise _first_cause(error, finished) from None


def _counted_on(plan: Plan) -> frozenset[str]:
    """Those that are to be members in the end and are not started for it: none that is stopped on purpose."""
    started = {step.node for step in plan.steps if isinstance(step.action, m.StartContainer)}
    waits = [step.action for step in plan.steps if isinstance(step.action, m.WaitMembers)]
    return frozenset(name for wait in waits for name in wait.names) - started


def _next(finished: queue.SimpleQueue[tuple[Step, Future[None]]]) -> tuple[Step, Future[None]]:
    """The next step that has ended. Wakes up in between: Ctrl-C just before Python blocks is heard only after that."""
    while True:
        with contextlib.suppress(queue.Empty):
            return finished.get(timeout=_LISTEN)


def _first_cause(error: BaseException, finished: queue.SimpleQueue[tuple[Step, Future[None]]]) -> BaseException:
    """The error that began it: a step that was merely cancelled by it may have been heard first."""
    if isinstance(error, Interrupted):
        while not finished.empty():
            other = finished.get()[1]
            if not other.cancelled() and (found := other.exception()) and not isinstance(found, Interrupted):
                return found
    return error


def _carry_out(step: Step, run: Run) -> None:
    if run.cancel.is_set():
        raise Interrupted(f"stopped before: {step.id}")
    begins = isinstance(step.action, (m.CreateContainer, m.StartContainer))
    if begins or (run.begun is None and isinstance(step.action, (m.WaitReady, m.WaitMembers))):
        run.begun = time.monotonic()
    phase, started = _PHASES[type(step.action)], time.monotonic()
    run.listener(Event("start", step.node, phase, step.id))
    _perform(step, run)
    run.listener(Event("end", step.node, phase, step.id, seconds=time.monotonic() - started))


def _perform(step: Step, run: Run) -> None:
    engine = run.engine
    match step.action:
        case m.ProvideImage(image):
            run.provide_image(image, run.cancel)
        case m.Record(volume, revision, about, spec):
            label = {labels.REVISION: str(revision), labels.SPEC: encode(spec) if spec else ""}
            engine.create_volume(volume, {**about, **label})
        case m.CreateNetwork(name, subnet, gateway, dynamic_range, about):
            engine.create_network(name, subnet, gateway, dynamic_range, about)
        case m.ConnectNetwork(network, container, aliases):
            engine.connect_network(network, container, aliases)
        case m.DisconnectNetwork(network, container):
            engine.disconnect_network(network, container)
        case m.CreateVolume(name, about):
            engine.create_volume(name, about)
        case m.CreateContainer(config):
            engine.create_container(config)
        case m.PutFiles():
            engine.put_files(step.action.container, _files(step.action, run.authority))
        case m.StartContainer(name):
            engine.start_container(name)
        case m.WaitReady(container, command):
            _wait_ready(container, command, run)
        case RunHook():
            _run_hook(step, step.action, run)
        case m.WaitMembers(container, command, names):
            _wait_members(container, command, names, run)
        case m.StopContainer(name):
            engine.stop_container(name)
        case m.KillContainer(name):
            engine.kill_container(name)
        case m.PauseContainer(name):
            engine.pause_container(name)
        case m.UpdateContainer(name, restart):
            engine.update_container(name, restart)
        case m.RemoveContainer(name):
            engine.remove_container(name)
        case m.RemoveVolume(name):
            engine.remove_volume(name)
        case m.RemoveNetwork(name):
            engine.remove_network(name)


def _files(action: m.PutFiles, authority: pki.Authority) -> list[File]:
    def secret(match: re.Match[str]) -> str:
        return authority.secret(match[1], match[2])

    files = [File(f.path, SECRET.sub(secret, f.content).encode(), f.mode, f.uid, f.gid) for f in action.files]
    for wanted in action.certificates:
        issued = authority.issue(wanted)
        files += [
            File(f"{wanted.directory}/ca.pem", issued.ca),
            File(f"{wanted.directory}/cert.pem", issued.certificate),
            File(f"{wanted.directory}/key.pem", issued.key, 0o600),
        ]
    if action.authority:
        files.append(File(pki.PATH, authority.dump(), 0o600))
    return files


def _remaining(run: Run) -> float:
    return max(0.2, run.deadline - time.monotonic())


def _wait_ready(container: str, command: Sequence[str], run: Run) -> None:
    def check() -> str:
        try:
            result = run.engine.exec(container, command, timeout=_remaining(run), cancel=run.cancel)
        except TimeoutError as error:
            _check_running(run.counted_on, run)
            return str(error)
        if result.exit_code == 0:
            return ""
        _check_running(run.counted_on, run)  # alone, a node may have no quorum, and never get ready
        return last_line(result.stderr or result.stdout) or f"{command[0]} ended with {result.exit_code}"

    try:
        poll(check, what=container, deadline=run.deadline, cancel=run.cancel)
    except NodeEnded:
        raise
    except (NodeFailed, NotFound) as error:
        raise _exited(container, run) from error
    except NotReady as error:
        error.why += f"\nThe end of its log:\n{log_tail(run.engine, container)}"
        error.fix = "Give it longer with --timeout, or look into it with --keep and `minicluster logs`."
        raise


def _exited(container: str, run: Run) -> NodeFailed:
    try:
        code = run.engine.exit_code(container)
    except NotFound:
        return NodeFailed(f"{container} is gone", "Somebody removed its container while it was starting.")
    return NodeFailed(
        f"{container} exited with status {code} while it was starting",
        f"The end of its log:\n{log_tail(run.engine, container)}",
        "Run it again with --keep to look at what is left.",
    )


def log_tail(engine: Engine, container: str) -> str:
    """The last lines of a container's output, indented; what could not be read is said."""
    try:
        lines = [line.decode(errors="replace") for line in engine.logs(container, tail=_LOG_LINES)]
    except MiniclusterError as error:
        lines = [f"({error.what})"]
    return "\n".join(f"  {line.rstrip()}" for line in lines) or "  (empty)"


def last_line(text: str) -> str:
    """The last line that is not empty."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def _masked(text: str, run: Run) -> str:
    """What hooks captured are secrets, and commands like to repeat their arguments."""
    for value in filter(None, run.captured.values()):
        text = text.replace(value, "***")
    return text


def _run_hook(step: Step, action: RunHook, run: Run) -> None:
    argv = fill(action.command, run.captured)
    shown = readable(" ".join(action.command))
    try:
        patience = min(_LEAVE_PATIENCE, run.timeout) if action.best_effort else _remaining(run)
        result = run.engine.exec(action.container, argv, timeout=patience, cancel=run.cancel)
        if result.exit_code != 0:
            raise NodeFailed(
                f"`{shown}` failed in {action.container} with status {result.exit_code}",
                _masked((result.stderr or ("" if action.capture else result.stdout)).strip(), run),
                "Run it again with --keep to look at what is left.",
            )
    except TimeoutError:
        if not action.best_effort:
            raise NotReady(
                f"`{shown}` in {action.container} did not end in time",
                f"The end of its log:\n{log_tail(run.engine, action.container)}",
                "Give it longer with --timeout, or look into it with --keep.",
            ) from None
        run.listener(Event("note", step.node, text=f"{step.node}: `{shown}` did not end in time; going on"))
        return
    except (NodeFailed, NotFound) as error:  # it may be gone already, where a change that was cut short goes on
        if not action.best_effort:
            raise
        run.listener(Event("note", step.node, text=f"{step.node}: {error.what}; going on"))
        return
    lines = result.stdout.splitlines()
    if len(lines) < len(action.capture):
        raise NodeFailed(
            f"`{shown}` in {action.container} printed {len(lines)} lines",
            f"The profile captures {len(action.capture)}: {', '.join(action.capture)}.",
        )
    for name, line in zip(action.capture, lines, strict=False):
        run.captured[f"captured.{name}"] = line.strip()


def _wait_members(container: str, command: Sequence[str], names: Sequence[str], run: Run) -> None:
    roles = {name.rpartition("-")[0] for name in names}  # others may be stopped on purpose
    late: list[str] = []  # who was waited for by the last answer

    def check() -> str:
        try:
            members = ask_members(run.engine, container, command, timeout=_remaining(run), cancel=run.cancel)
        except (TimeoutError, NodeFailed) as error:
            _check_running(names, run)
            return str(getattr(error, "why", "") or error)
        missing = [name for name in names if name not in members]
        late.clear()
        if missing:
            late.extend(missing)
            _check_running(missing, run)
            return f"{', '.join(missing)} not among the members"
        unready = [name for name in names if not members[name].ready]
        if unready:
            late.extend(unready)
            _check_running(unready, run)
            return f"{', '.join(unready)} not ready"
        quorum = Quorum.of(member for member in members.values() if member.role in roles)
        return f"{quorum.healthy} of {quorum.voters} voters healthy" if quorum and quorum.lost else ""

    try:
        poll(check, what="the cluster", deadline=run.deadline, cancel=run.cancel, interval=0.1)
    except NotReady as error:
        if late:
            log = log_tail(run.engine, container_name(run.cluster, late[0]))
            error.why += f"\nThe end of {late[0]}'s log:\n{log}"
        error.fix = "Give it longer with --timeout, or look into it with --keep and `minicluster logs`."
        raise


def _check_running(names: Collection[str], run: Run) -> None:
    """Waiting for a node that has ended is in vain: a stop whose minicluster was killed may have been under way."""
    now = time.monotonic()
    if not names or now - run.looked < _LOOK:
        return
    run.looked = now
    for container in run.engine.containers(run.cluster):
        name = container.labels.get(labels.NODE)
        if name in names and container.state in ("exited", "dead"):
            raise NodeEnded(
                f"{name} has ended meanwhile",
                f"{container.status}. The end of its log:\n{log_tail(run.engine, container.name)}",
                f"`minicluster up --name {run.cluster}` starts it.",
            )


def ask_members(
    engine: Engine, container: str, command: Sequence[str], *, timeout: float, cancel: Cancel | None = None
) -> dict[str, Member]:
    """The members as the cluster's own software counts them.

    Raises:
        NodeFailed: the command failed, or answered what is no member.
        TimeoutError: it did not answer.
    """
    result = engine.exec(container, command, timeout=timeout, cancel=cancel)
    if result.exit_code != 0:
        raise NodeFailed(f"`{command[0]}` failed in {container}", last_line(result.stderr or result.stdout))
    try:
        rows = [json.loads(line) for line in result.stdout.splitlines() if line.strip()]
        found = [
            Member(r["name"], bool(r["ready"]), bool(r.get("voter")), bool(r.get("leader")), str(r.get("detail", "")))
            for r in rows
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise NodeFailed(f"`{command[0]}` in {container} answered no list of members", str(error)) from None
    members: dict[str, Member] = {}
    for member in found:
        # A node that was made anew stands twice under its name; the living entry counts.
        if member.name not in members or member.ready:
            members[member.name] = member
    return members
