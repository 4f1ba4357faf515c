"""Waiting until something is so: one loop for every probe. And asking a cluster's own software for its members."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from minicluster.engine.protocol import Cancel, Container, Engine
from minicluster.errors import Interrupted, MiniclusterError, NeedsUser, NodeEnded, NodeFailed, NotFound, NotReady
from minicluster.executor.parallel import first_of
from minicluster.model import labels, membership
from minicluster.model.membership import Member, Quorum
from minicluster.model.naming import container_name, size

if TYPE_CHECKING:
    from minicluster.executor.run import Run

INTERVAL = 0.05  #: seconds between two tries; short, since a probe may itself wait in the node
_LOG_LINES = 10  # of a failed node's log, in the error
_LOG_COLUMNS = 300  # of a line of it: some programs log their whole configuration in one
_LOOK = 0.5  # seconds between two looks at whether nodes still run, by all waits of a plan together
_HEAD_START = 0.3  # seconds: a command in a node costs the machine more than the wait for another's answer
_BY_SCRIPT = re.compile(r"^[a-z0-9]+(-[a-z0-9]+)+: ")  # the name of a profile's script before its message
_AGAIN = "Run the command again."
_NEEDS_USER = 77  # exit status of a probe or of `members`: waiting does not help, and the message says what does


def poll(
    check: Callable[[], str],
    *,
    what: str,
    deadline: float,
    cancel: Cancel,
    interval: float = INTERVAL,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Calls a check until it answers with nothing.

    Args:
        check: returns "" when done, else what is missing; raises TimeoutError if it had no time to answer, and any
            other error if waiting longer is useless.
        what: what is waited for, for the error.
        deadline: on the clock, in seconds.
        cancel: sleeps between tries, and ends the wait when set.

    Raises:
        NotReady: at the deadline, with the last complete answer.
        Interrupted: when cancelled.
    """
    answer = late = ""
    while True:
        try:
            answer = check()
            if not answer:
                return
        except TimeoutError as error:
            late = str(error)  # the answer before it says more
        if clock() >= deadline:
            last = f"Last answer: {answer}" if answer else f"It has not answered at all ({late})."
            raise NotReady(f"{what} timed out: not ready", last, "Give it longer with --timeout.")
        if cancel.wait(interval):
            raise Interrupted(f"stopped waiting for {what}")


def wait_ready(container: str, command: Sequence[str], run: Run) -> None:
    """Runs a node's probe until it passes.

    Raises:
        NodeFailed: the node ended, or one that it may need; or it is in a state that only a user ends.
        NotReady: not in time.
    """

    def check() -> str:
        try:
            result = run.engine.exec(container, command, timeout=run.remaining(), cancel=run.cancel)
        except TimeoutError:
            _check_running(run.expected, run)
            raise
        if result.exit_code == 0:
            return ""
        _check_running(run.expected, run)  # alone, a node may have no quorum, and never get ready
        if result.exit_code == _NEEDS_USER:
            raise NeedsUser(f"{container} does not get ready by itself", last_line(result.stderr or result.stdout))
        return last_line(result.stderr or result.stdout) or f"{command[0]} failed with status {result.exit_code}"

    try:
        poll(check, what=container, deadline=run.deadline, cancel=run.cancel)
    except (NodeEnded, NeedsUser):
        raise
    except (NodeFailed, NotFound) as error:
        raise _exited(container, run) from error
    except NotReady as error:
        error.why += f"\nThe end of its log:\n{log_tail(run.engine, container)}"
        error.fix = longer(run)
        raise


def longer(run: Run) -> str:
    """What to do after a time-out."""
    return f"Give it longer with --timeout, or leave it with --keep and look at `minicluster logs -c {run.cluster}`."


def memory_limit_hit(engine: Engine, container: str) -> str:
    """Says that a container ended because it used more memory than it has; "" where it did not."""
    try:
        limit = engine.killed_at(container)
    except MiniclusterError:
        return ""
    if limit is None:
        return ""
    return f"ran out of memory ({f'limit {size(limit)}' if limit else 'of the machine: it has no limit'})"


def _exited(container: str, run: Run) -> NodeFailed:
    try:
        code = run.engine.exit_code(container)
    except NotFound:
        return NodeFailed(f"{container} no longer exists", "Another process removed it while it was starting.", _AGAIN)
    how, fix = memory_limit_hit(run.engine, container), "Run it again with --keep to inspect what is left."
    if how:
        role = container.removeprefix(f"{run.cluster}-").rpartition("-")[0]
        fix = f"Give it more: `--set roles.{role}.memory=SIZE`, such as 1GiB."
    return NodeFailed(
        f"{container} {how or f'exited with status {code}'} while it was starting",
        f"The end of its log:\n{log_tail(run.engine, container)}",
        fix,
    )


def wait_members(container: str, command: Sequence[str], names: Sequence[str], run: Run) -> None:
    """Asks a node for the members until all of these are ready ones, and enough voters of their roles are healthy.

    Raises:
        NodeEnded: one of them ended.
        NeedsUser: one is in a state that only a user ends.
        NotReady: not in time.
    """
    roles = {name.rpartition("-")[0] for name in names}  # others may be stopped on purpose
    late: list[str] = []  # the nodes that were missing or not ready in the last complete answer

    def check() -> str:
        def said(name: str) -> str:
            detail = members[name].detail if name in members else ""
            return f"{name} ({detail})" if detail else name

        try:
            members = ask_members(run.engine, container, command, timeout=run.remaining(), cancel=run.cancel)
        except TimeoutError:
            _check_running(names, run)
            raise
        except NeedsUser:
            raise
        except NodeFailed as error:
            _check_running(names, run)
            return error.why or error.what
        missing = [name for name in names if name not in members]
        late[:] = missing or [name for name in names if not members[name].ready]
        if late:
            _check_running(late, run)
            if alarms := [members[name].alarm for name in late if name in members and members[name].alarm]:
                raise NeedsUser(f"cluster {run.cluster} does not get ready by itself", "\n".join(alarms))
            return f"{', '.join(map(said, late))} {'not among the members' if missing else 'not ready'}"
        quorum = Quorum.of(member for member in members.values() if member.role in roles)
        return f"{quorum.healthy} of {quorum.voters} voters healthy" if quorum and quorum.lost else ""

    try:
        poll(check, what="the cluster", deadline=run.deadline, cancel=run.cancel, interval=0.1)
    except NotReady as error:
        if late:
            log = log_tail(run.engine, container_name(run.cluster, late[0]))
            error.why += f"\nThe end of {late[0]}'s log:\n{log}"
        error.fix = longer(run)
        raise


def _check_running(names: Collection[str], run: Run) -> None:
    """Waiting for a node that has ended is useless: an interrupted stop may have been under way."""
    now = time.monotonic()
    if not names or now - run.looked < _LOOK:
        return
    run.looked = now
    for container in run.engine.containers(run.cluster):
        name = container.labels.get(labels.NODE)
        if name in names and container.state in ("exited", "dead"):
            raise NodeEnded(
                f"{name} stopped while minicluster was waiting",
                f"{_status(run.engine, container)}. The end of its log:\n{log_tail(run.engine, container.name)}",
                f"`minicluster up --name {run.cluster}` starts it.",
            )


class MembersUnknown(NodeFailed):
    """A node cannot say which members there are, most often because the cluster has lost its quorum."""

    seen: Mapping[str, Member] = {}  #: the members that it knows of all the same, ready where they answer it


def _status(engine: Engine, container: Container) -> str:
    how = memory_limit_hit(engine, container.name)
    return f"{container.status}: it {how}" if how else container.status


def ask_members(
    engine: Engine, container: str, command: Sequence[str], *, timeout: float | None, cancel: Cancel | None = None
) -> dict[str, Member]:
    """The members as the cluster's own software counts them, by one node.

    Raises:
        MembersUnknown: the command failed.
        NodeFailed: it printed something else than members.
        TimeoutError: it did not answer.
    """
    result = engine.exec(container, command, timeout=timeout, cancel=cancel)
    why = last_line(result.stderr or result.stdout)
    if result.exit_code == _NEEDS_USER:
        raise NeedsUser(f"{container} does not answer in its present state", why)
    if result.exit_code != 0:
        why = _BY_SCRIPT.sub("", why)
        failed = MembersUnknown(f"`{command[0]}` failed in {container}", why)
        with contextlib.suppress(ValueError):
            failed.seen = membership.parse(result.stdout)
        raise failed
    try:
        return membership.parse(result.stdout)
    except ValueError as error:
        raise NodeFailed(f"`{command[0]}` in {container} printed no list of members", str(error)) from None


def ask_any(
    engine: Engine,
    containers: Sequence[str],
    command: Sequence[str],
    *,
    timeout: float,
    cancel: Cancel | None = None,
    seen: dict[str, Member] | None = None,
    stuck: list[str] | None = None,
) -> tuple[dict[str, Member] | None, str]:
    """The members by the first of these nodes that answers; or None, and why none did.

    One is asked first, and all others at once if it fails or takes long. Asking ends when ``cancel`` is set. A node
    that lists no member at all is in no cluster; that is the answer only if each of them says so.

    Args:
        seen: becomes :attr:`MembersUnknown.seen` of the node that sees the most, where none answers.
        stuck: gets what nodes say that are in a state which does not end by itself.
    """
    if not containers:
        return None, "no node that could answer is running"
    enough = Cancel()
    known: list[Mapping[str, Member]] = []
    alone: list[str] = []

    def ask(container: str) -> dict[str, Member]:
        try:
            members = ask_members(engine, container, command, timeout=timeout, cancel=enough)
        except MembersUnknown as error:
            known.append(error.seen)
            raise
        except NeedsUser as error:
            if stuck is not None:
                stuck.append(error.why)
            raise
        if not members:
            alone.append(container)
            raise NodeFailed(f"{container} has no members", "this node is in no cluster")
        return members

    with cancel.calls(enough.set) if cancel else contextlib.nullcontext():
        try:
            asking = [partial(ask, container) for container in containers]
            return first_of(asking, (MiniclusterError, TimeoutError), head_start=_HEAD_START, cancel=enough), ""
        except (MiniclusterError, TimeoutError) as error:
            if len(alone) == len(containers):
                return {}, ""
            if seen is not None and known:
                most = max(known, key=lambda members: sum(member.ready for member in members.values()))
                seen.clear()
                seen.update(most)
            return None, getattr(error, "why", "") or str(error)


def log_tail(engine: Engine, container: str) -> str:
    """The last lines of a container's output, indented; or why they could not be read."""
    try:
        lines = [line.decode(errors="replace") for line in engine.logs(container, tail=_LOG_LINES)]
    except MiniclusterError as error:
        lines = [f"({error.what})"]
    return "\n".join(f"  {_clipped(line.rstrip())}" for line in lines) or "  (empty)"


def _clipped(line: str) -> str:
    return line if len(line) <= _LOG_COLUMNS else f"{line[:_LOG_COLUMNS]}..."


def last_line(text: str) -> str:
    """The last line that is not empty."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
