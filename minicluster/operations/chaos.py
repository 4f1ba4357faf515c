"""Chaos: faults at random, one after the other, repeatable by a seed; and what the cluster did meanwhile."""

from __future__ import annotations

import itertools
import json
import math
import random
import shlex
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from minicluster.errors import MiniclusterError, NodeFailed, UsageError
from minicluster.model.events import ignore
from minicluster.model.membership import Quorum
from minicluster.model.naming import container_name
from minicluster.operations import faults, lifecycle
from minicluster.operations.inject import Faults
from minicluster.operations.observe import look, members

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine
    from minicluster.model.spec import Spec

#: Kinds of faults -> what they are, for people.
KINDS = {
    "kill": "a node is killed, and started again",
    "hang": "all processes of a node are paused",
    "partition": "a node is cut from all others",
    "delay": "what a node sends arrives 200 ms late",
    "loss": "a fifth of what a node sends is lost",
}
DEFAULT = ("kill", "hang", "partition")  #: what every kernel can

SHORTEST = 2.0  #: seconds between two faults at least
_ELECTION = 10.0  #: seconds that a cluster without a fault has to acknowledge a write
_ANSWER = 5.0  #: seconds that a look has: one at a swarm takes two where a manager is silent
_STEP = 0.1  #: seconds between two looks at the members, and between two writes
_DELAY, _LOSS = 200.0, 20.0


@dataclass(frozen=True)
class Round:
    """One fault of a schedule, and what happened from its beginning until the cluster was healthy again."""

    number: int
    time: float  #: seconds since 1970 at which it began
    kind: str
    node: str
    held: float  #: seconds for which it was in force
    without_leader: float | None  #: the longest time in which no look saw a leader; None without members
    without_writes: float | None  #: the longest time without a write; None where the profile has no ``write``
    healthy_after: float | None  #: seconds after its end until all was well; None where it was not before the next
    error: str = ""  #: why it could not be applied

    def dump(self, seed: int) -> str:
        """A line of JSON, with the seed of the whole run."""
        return json.dumps({"seed": seed, **asdict(self)})


@dataclass(frozen=True)
class Summary:
    """A whole run."""

    cluster: str
    seed: int
    rounds: tuple[Round, ...]

    def longest(self, what: str) -> float | None:
        """The greatest of a value of the rounds: ``without_leader``, ``without_writes`` or ``healthy_after``."""
        values = [value for one in self.rounds if (value := getattr(one, what)) is not None]
        return max(values, default=None)


@dataclass
class _Watch:
    """Looks at the members, and writes, all the time."""

    engine: Engine
    spec: Spec
    ended: threading.Event = field(default_factory=threading.Event)
    leaderless: float = 0.0  #: seconds; an upper bound, as the gap: a look takes seconds where a member does not answer
    gap: float = 0.0
    healthy: bool = False
    _threads: list[threading.Thread] = field(default_factory=list)
    _looking: threading.Lock = field(default_factory=threading.Lock)
    _writing: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> None:
        for work in (self._look, *([self._write] if self.spec.write else [])):
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            self._threads.append(thread)

    def end(self) -> None:
        self.ended.set()
        for thread in self._threads:
            thread.join()

    def restart(self) -> None:
        """Measures from now on."""
        self.leaderless = self.gap = 0.0

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Starts no command in a node within the block: see :mod:`minicluster.executor.thaw`."""
        with self._looking, self._writing:
            yield

    def _look(self) -> None:
        last = time.monotonic()
        while not self.ended.is_set():
            led, healthy = False, False
            with self._looking, suppress(MiniclusterError, TimeoutError):
                observed = look(self.engine, self.spec.cluster)
                found, _why = members(self.engine, self.spec, observed.containers, timeout=_ANSWER)
                quorum = Quorum.of((found or {}).values())
                led = bool(quorum and quorum.leader and not quorum.lost)
                expected = {node.name for node in self.spec.nodes}
                healthy = observed.running >= expected and (
                    found is None or all(m.ready for m in found.values() if m.name in expected)
                )
            now = time.monotonic()
            self.leaderless = max(self.leaderless, now - last)  # the members' command may have waited for an election
            last = now if led else last
            self.healthy = healthy and (led or self.spec.members is None)
            self.ended.wait(_STEP)

    def _write(self) -> None:
        last = time.monotonic()
        while not self.ended.is_set():
            written = False
            with self._writing, suppress(MiniclusterError, TimeoutError):
                _write_once(self.engine, self.spec)
                written = True
            now = time.monotonic()
            self.gap = max(self.gap, now - last)  # a write may have been taken after a long wait
            last = now if written else last
            self.ended.wait(_STEP)


def check_write(engine: Engine, spec: Spec, stop: threading.Event | None = None) -> None:
    """Writes once by the profile's own command, which gets some seconds: an election may be in progress.

    Args:
        stop: ends it before its time once it is set.

    Raises:
        NodeFailed: no node acknowledges it.
    """
    assert spec.write
    if not spec.of_role(spec.write.on):
        raise NodeFailed(f"there is no {spec.write.on} node that could write")
    stop = stop or threading.Event()
    end = time.monotonic() + _ELECTION
    while not stop.is_set():
        try:
            _write_once(engine, spec)
            return
        except (MiniclusterError, TimeoutError) as error:
            if time.monotonic() > end:
                why = getattr(error, "why", "") or str(error)
                raise NodeFailed(f"no {spec.write.on} node acknowledges {shlex.join(spec.write.run)}", why) from error
        stop.wait(_STEP)


def _write_once(engine: Engine, spec: Spec) -> None:
    """Returns once one of the nodes has acknowledged a write; raises the last error where none does."""
    from minicluster.engine.protocol import Cancel
    from minicluster.executor.parallel import first_of

    hook, enough = spec.write, Cancel()
    assert hook

    def write(container: str) -> None:
        done = engine.exec(container, hook.run, timeout=5.0, cancel=enough)
        if done.exit_code:
            raise MiniclusterError(f"no write by {container}", done.stderr)

    on = [partial(write, container_name(spec.cluster, node.name)) for node in spec.of_role(hook.on)]
    first_of(on, (MiniclusterError, TimeoutError), head_start=0.5, cancel=enough)


def chaos(
    engine: Engine,
    spec: Spec,
    *,
    seconds: float,
    every: float,
    kinds: Sequence[str] = DEFAULT,
    nodes: Sequence[str] = (),
    keep_quorum: bool = False,
    seed: int = 0,
    stop: threading.Event | None = None,
) -> Generator[Round, None, None]:
    """Applies a fault every so many seconds, holds it for half of that time, and yields what happened.

    The same seed gives the same faults on the same nodes, whatever the cluster does. The last fault is healed, also
    where the caller stops before the end.

    Args:
        nodes: among which it chooses; by default those that vote, else all.
        keep_quorum: a fault that would lose a quorum is left out.
        stop: ends it before its time once it is set.

    Raises:
        UsageError: a kind does not exist, or a time makes no sense.
        NodeFailed: the cluster takes no writes before the first fault: what is measured would say nothing.
    """
    check(seconds, every, kinds)
    stop = stop or threading.Event()
    if spec.write:
        check_write(engine, spec, stop)
    if not nodes:
        voters = [m.name for m in (faults.Target(engine, spec).members or {}).values() if m.voter]
        nodes = sorted(voters) or [node.name for node in spec.nodes]
    pick = random.Random(seed)
    watch = _Watch(engine, spec)
    pending: list[Callable[[], object]] = []
    watch.begin()
    try:
        for number in itertools.count(1):
            if stop.is_set() or number * every > seconds + 1e-6:
                return
            begun = time.monotonic()
            kind, node = pick.choice(list(kinds)), pick.choice(list(nodes))
            watch.restart()
            yield _round(engine, spec, watch, number, kind, node, every, keep_quorum, pending, stop)
            stop.wait(max(0.0, begun + every - time.monotonic()))
    finally:
        from minicluster.executor.signals import shielded

        with shielded():  # what is in force when the user has enough is undone all the same
            watch.end()
            for undo in pending:
                try:
                    undo()
                except MiniclusterError:
                    if engine.volumes(spec.cluster):  # else it was removed meanwhile
                        raise


def check(seconds: float, every: float, kinds: Sequence[str]) -> None:
    """Refuses what makes no sense.

    Raises:
        UsageError: a kind does not exist, or a time is not valid.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise UsageError(f"unknown fault {unknown[0]!r}", f"Known: {', '.join(KINDS)}.", "Name some of them.")
    if not kinds:
        raise UsageError("chaos needs a kind of fault", f"Known: {', '.join(KINDS)}.", "Name some of them.")
    if not (SHORTEST <= every <= seconds and math.isfinite(every)):
        raise UsageError(
            f"a fault every {every:g} s for {seconds:g} s is not possible",
            "",
            f"Use --every {SHORTEST:g}s or more, and no shorter --for.",
        )


class ChaosKeywords(TypedDict, total=False):
    """The keywords of :meth:`minicluster.Cluster.chaos`."""

    every: float  #: seconds from one fault to the next (10); each is held for half of that
    seconds: float  #: after which it ends, where the block takes longer
    kinds: Sequence[str] | None  #: of kill, hang, partition, delay, loss; None: the first three
    keep_quorum: bool  #: leaves out faults that would lose the quorum
    seed: int | None  #: repeats the schedule of an earlier run; None: a random one
    log: Path | None  #: a file that gets a line of JSON for each fault as it ends


class Chaos:
    """Chaos beside a ``with`` block: from its beginning until its end, where what is in force is undone."""

    def __init__(
        self,
        engine: Engine,
        spec: Spec,
        nodes: Sequence[str] = (),
        *,
        seconds: float = float("inf"),
        every: float = 10.0,
        kinds: Sequence[str] | None = None,
        keep_quorum: bool = False,
        seed: int | None = None,
        log: Path | None = None,
    ) -> None:
        """As :class:`ChaosKeywords` says; ``nodes`` are names."""
        kinds = DEFAULT if kinds is None else kinds
        check(seconds, every, kinds)
        self.cluster = spec.cluster
        self.seed = random.randrange(1 << 31) if seed is None else seed
        self.rounds: list[Round] = []  #: those that are over
        self.done: Callable[[Chaos], object] = lambda _chaos: None  #: is called at the end of the block
        self._stop = threading.Event()
        self._go = chaos(
            engine, spec, seconds=seconds, every=every, kinds=kinds, nodes=nodes, keep_quorum=keep_quorum,
            seed=self.seed, stop=self._stop,
        )  # fmt: skip
        self._log = log
        self._failed: Exception | None = None
        self._thread = threading.Thread(target=self._run)

    @property
    def summary(self) -> Summary:
        """What happened until now."""
        return Summary(self.cluster, self.seed, tuple(self.rounds))

    def __enter__(self) -> Chaos:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_error: object) -> None:
        from minicluster.executor.signals import shielded

        with shielded():
            self._stop.set()
            self._thread.join()
        self.done(self)
        if self._failed and kind is None:  # the error of the block says more
            raise self._failed

    def _run(self) -> None:
        try:
            with closing(self._go):
                for one in self._go:
                    self.rounds.append(one)
                    if self._log:
                        with self._log.open("a", encoding="utf-8") as file:
                            file.write(one.dump(self.seed) + "\n")
        except Exception as error:  # raised at the end of the block; the log may not be writable
            self._failed = error


def _round(
    engine: Engine,
    spec: Spec,
    watch: _Watch,
    number: int,
    kind: str,
    node: str,
    every: float,
    keep_quorum: bool,
    pending: list[Callable[[], object]],
    stop: threading.Event,
) -> Round:
    """One fault. ``pending`` has what undoes it, as long as it is in force."""
    started, begun = time.time(), time.monotonic()
    error = ""
    try:
        if keep_quorum and (why := _risk(engine, spec, kind, node)):
            error = f"skipped: {why}"
        else:
            # If this process is killed, the helper ends a fault by itself.
            with watch.quiet() if kind == "hang" else nullcontext():
                _apply(engine, spec, kind, node, every, pending)
    except MiniclusterError as problem:
        error = problem.what
    held = 0.0
    if pending:
        applied = time.monotonic()  # before a hang, a look is waited for
        stop.wait(max(every / 4, begun + every / 2 - applied))
        held = time.monotonic() - applied
        for undo in [*pending]:
            try:
                undo()
                pending.remove(undo)
            except MiniclusterError as problem:  # it is tried again after the next one
                error = problem.what
    healed = time.monotonic()
    watch.healthy = False  # by a look that begins now
    while not watch.healthy and time.monotonic() < begun + every and not stop.wait(_STEP / 2):
        pass
    after = round(time.monotonic() - healed, 2) if watch.healthy else None
    return Round(
        number=number,
        time=started,
        kind=kind,
        node=node,
        held=round(held, 2),
        without_leader=round(watch.leaderless, 2) if spec.members else None,
        without_writes=round(watch.gap, 2) if spec.write else None,
        healthy_after=after,
        error=error,
    )


def _apply(
    engine: Engine, spec: Spec, kind: str, node: str, seconds: float, pending: list[Callable[[], object]]
) -> None:
    if kind in ("kill", "hang"):
        pending.append(lambda: lifecycle.operate(engine, spec, "start", [node], listener=ignore))
        try:
            lifecycle.operate(engine, spec, {"kill": "kill", "hang": "pause"}[kind], [node], listener=ignore)
        except MiniclusterError:
            pending.pop()
            raise
        return
    inject = Faults(engine, lambda: spec)
    if kind == "partition":
        pending.append(inject.isolate(node, seconds=seconds).heal)
    elif kind == "delay":
        pending.append(inject.delay(node, _DELAY, seconds=seconds).heal)
    else:
        pending.append(inject.loss(node, _LOSS, seconds=seconds).heal)


def _risk(engine: Engine, spec: Spec, kind: str, node: str) -> str:
    """Why a fault is left out where the quorum is to be kept; "" where it is not."""
    from minicluster.plan import faults as planning

    if kind not in ("kill", "hang", "partition"):
        return ""
    target = faults.Target(engine, spec)
    if target.members is None:
        return "no node reports the members" if spec.members else ""
    quorums = Quorum.by_role(target.members.values()).values()
    if any(quorum.lost for quorum in quorums):
        return "the quorum is lost already"
    stop = planning.simple("hang", [node], process="any")
    return "the quorum would be lost" if planning.cost(stop, target.active(), target.members)[1] else ""
