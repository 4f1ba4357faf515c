"""Carries out a demo: its cluster, its commands, and whether each does what the demo says."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from minicluster.cluster import Cluster
from minicluster.demos.document import Command, Demo, File, Heading, Part, Prose, missing
from minicluster.demos.session import Session, ShellEnded, check_syntax, opened
from minicluster.discovery import names
from minicluster.engine import discover
from minicluster.errors import UsageError
from minicluster.executor.signals import shielded
from minicluster.model.durations import DEFAULT_TIMEOUT
from minicluster.model.events import Listener, ignore
from minicluster.model.lease import Lease
from minicluster.model.naming import derived_name
from minicluster.operations import clients
from minicluster.profile import catalog as profiles

if TYPE_CHECKING:
    from minicluster.demos.catalog import Place
    from minicluster.engine.protocol import Engine

#: In place of an exit status: the shell has ended with the command.
ENDED = -1

_AGAIN = 0.5  #: seconds between two runs of a command that is repeated


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    command: Command
    status: int
    output: str
    seconds: float
    problem: str = ""  #: what is not as expected; "" if all is


class Audience(Protocol):
    """Sees a demo."""

    def told(self, part: Heading | Prose | File) -> None:
        """Something is shown. It returns when the demo may go on."""

    def begins(self, command: Command) -> None:
        """A command is about to run. It returns when it may."""

    def written(self, text: str) -> None:
        """What the command that runs has written since the last call."""

    def waiting(self, output: str, seconds: float) -> None:
        """What a command that is repeated wrote this time, and how long it has been repeated."""

    def ended(self, outcome: Outcome) -> None:
        """A command has ended."""


def check_commands(demo: Demo) -> None:
    """Refuses commands that bash does not understand.

    Raises:
        UsageError: with file and line.
    """
    for command in demo.commands:
        if problem := check_syntax(command.text):
            raise UsageError(f"{demo.path}:{command.line}: not a command of bash", problem)


def cluster_name(demo: Demo, *, checked: bool) -> str:
    """The name of a demo's own cluster. One that is only checked has a name that no other run has."""
    name = derived_name(f"demo-{demo.name}", 23)
    return f"{name}-{secrets.token_hex(3)}" if checked else name


def up_line(place: Place, name: str, settings: Mapping[str, str]) -> str:
    """The command that starts a demo's cluster, as a user would type it."""
    words = ["minicluster up", place.profile, f"--name {name}"]
    words += [f"--size {role}={count}" for role, count in place.demo.size.items()]
    words += [f"--set {key}={value}" for key, value in {**place.demo.settings, **settings}.items()]
    return " ".join(words)


def refuse_taken(engine: Engine, name: str) -> None:
    """Refuses the name of a cluster that exists.

    Raises:
        UsageError: it does.
    """
    if name in names(engine):
        raise UsageError(
            f"cluster {name} exists",
            "Another run of this demo may use it.",
            f"`minicluster down {name}`, or `-c {name}` to run the demo in it.",
        )


@contextmanager
def own_cluster(
    place: Place,
    name: str,
    settings: Mapping[str, str] | None = None,
    *,
    keep: bool = False,
    timeout: float = DEFAULT_TIMEOUT,
    listening: Callable[[], contextlib.AbstractContextManager[Listener]] = lambda: contextlib.nullcontext(ignore),
) -> Iterator[Cluster]:
    """A cluster for a demo, removed at the end of the block, and with this process, however that ends.

    Args:
        settings: as ``up --set`` takes them; they take precedence over the demo's.
        keep: it stays.
        listening: gives what receives the events of starting and of removing it.

    Raises:
        UsageError: a cluster of that name exists.
    """
    engine = discover.connect(start_private=True)
    refuse_taken(engine, name)
    demo = place.demo
    with listening() as listener:
        cluster = Cluster.up(
            place.profile,
            name=name,
            size=demo.size,
            set={**demo.settings, **(settings or {})},
            lease=Lease() if keep else Lease.owned(),
            timeout=timeout,
            listener=listener,
            engine=engine,
        )
    try:
        yield cluster
    finally:
        if not keep:
            with shielded(), listening() as listener:
                cluster.down(listener=listener)


def existing_cluster(place: Place, name: str) -> Cluster:
    """A cluster that a demo can run in.

    Raises:
        UsageError: it is of another profile, too small, or has other settings.
    """
    cluster = Cluster.open(name)
    wanted = profiles.load(place.profile).profile
    if cluster.spec.profile != wanted.name:
        raise UsageError(
            f"cluster {name} is of profile {cluster.spec.profile}",
            f"Demo {place.demo.name} is for {wanted.name}.",
            "Name another cluster, or leave out -c: the demo then starts one of its own.",
        )
    few = {
        role: count
        for role in wanted.roles
        if (count := place.demo.size.get(role, wanted.roles[role].count)) > len(cluster.spec.of_role(role))
    }
    if few:
        sizes = " ".join(f"{role}={count}" for role, count in few.items())
        raise UsageError(
            f"cluster {name} is too small for demo {place.demo.name}", "", f"`minicluster scale {sizes} -c {name}`"
        )
    given = cluster.spec.overrides.set
    lacking = {key: value for key, value in place.demo.settings.items() if given.get(key) != value}
    if lacking:
        options = " ".join(f"--set {key}={value}" for key, value in lacking.items())
        raise UsageError(
            f"cluster {name} lacks settings of demo {place.demo.name}", "", f"`minicluster up --name {name} {options}`"
        )
    return cluster


def perform(cluster: Cluster, demo: Demo, audience: Audience, *, goes_on: bool = False) -> list[Outcome]:
    """Shows and runs the parts of a demo, in order.

    Args:
        goes_on: also after something that is not as expected.

    Returns:
        What its commands did; the last one has a ``problem`` if the demo was ended by it.
    """
    cluster.connect()
    cluster.write_client_files()
    variables = cluster.env() | clients.path(cluster.engine, cluster.spec)
    done: list[Outcome] = []
    with opened(cluster.name, variables, demo.path.parent) as (session, folder):
        for part in demo.parts:
            outcome = _part(session, folder, part, audience)
            if outcome is None:
                continue
            done.append(outcome)
            if outcome.problem and (outcome.status == ENDED or not goes_on):
                break
    return done


def _part(session: Session, folder: Path, part: Part, audience: Audience) -> Outcome | None:
    if not isinstance(part, Command):
        audience.told(part)
        if isinstance(part, File):
            (folder / part.name).write_text(part.text, encoding="utf-8")
        return None
    audience.begins(part)
    outcome = _repeated(session, part, audience) if part.within else _once(session, part, audience.written)
    audience.ended(outcome)
    return outcome


def _once(session: Session, command: Command, written: Callable[[str], None]) -> Outcome:
    begun = time.monotonic()
    try:
        status, output = session.run(command.text, command.timeout, written)
    except ShellEnded as error:
        return Outcome(command, ENDED, error.why, time.monotonic() - begun, error.what)
    problem = _problem(command, status, output)
    return Outcome(command, status, output, time.monotonic() - begun, problem)


def _repeated(session: Session, command: Command, audience: Audience) -> Outcome:
    begun = time.monotonic()
    while True:
        outcome = _once(session, command, lambda _text: None)
        seconds = time.monotonic() - begun
        if not outcome.problem:
            return Outcome(command, outcome.status, outcome.output, seconds)
        if seconds > command.within or outcome.status == ENDED:
            problem = f"not within {command.within:g} s: {outcome.problem}"
            return Outcome(command, outcome.status, outcome.output, seconds, problem)
        audience.waiting(outcome.output, seconds)
        time.sleep(_AGAIN)


def _problem(command: Command, status: int, output: str) -> str:
    """What is not as the demo says; "" if all is."""
    if command.fails and status == 0:
        return "it succeeded, but should fail"
    if status and not command.fails:
        return f"exit status {status}"
    lacking = missing(command.expected, output)
    return f"expected: {lacking}" if lacking else ""


def check(
    place: Place,
    settings: Mapping[str, str] | None = None,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    listener: Listener = ignore,
    ended: Callable[[Outcome], None] = lambda _outcome: None,
) -> list[Outcome]:
    """Runs a demo in a cluster of its own, of which nothing stays, and returns what its commands did.

    Args:
        settings: as ``up --set`` takes them; they take precedence over the demo's.
        timeout: seconds that nodes have to get ready.
        listener: receives the cluster's events.
        ended: receives what each command did.

    Raises:
        MiniclusterError: the cluster could not be started.
    """
    check_commands(place.demo)
    name = cluster_name(place.demo, checked=True)
    with own_cluster(
        place, name, settings, timeout=timeout, listening=lambda: contextlib.nullcontext(listener)
    ) as cluster:
        return perform(cluster, place.demo, Unseen(ended))


class Unseen:
    """An audience that sees nothing, and hears what each command did."""

    def __init__(self, ended: Callable[[Outcome], None] = lambda _outcome: None) -> None:
        self._ended = ended

    def told(self, part: Heading | Prose | File) -> None:
        pass

    def begins(self, command: Command) -> None:
        pass

    def written(self, text: str) -> None:
        pass

    def waiting(self, output: str, seconds: float) -> None:
        pass

    def ended(self, outcome: Outcome) -> None:
        self._ended(outcome)
