"""Histories of concurrent operations: recorded, and checked for linearizability and for lost writes.

A history is linearizable if its operations can be put in an order in which each took effect at one moment between its
call and its return. Registers under different keys are independent, so each is checked alone (P-compositionality). The
search is that of Wing and Gong with the cache of configurations of Lowe: "Testing for Linearizability", Concurrency and
Computation 29(4), 2017, https://www.cs.ox.ac.uk/people/gavin.lowe/LinearizabiltyTesting/.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["read", "write", "cas"]
Verdict = Literal["linearizable", "not linearizable", "unknown"]

_NEVER = float("inf")


@dataclass(frozen=True)
class Operation:
    """One call of a client, and what came back."""

    client: int
    key: str
    kind: Kind
    value: Any  #: read: the result; write: what was written; cas: the new value
    called: float  #: seconds, by one clock for the whole history
    returned: float  #: infinite where it is not known whether it took effect: an error, a time-out
    expected: Any = None  #: of a cas: the value that is replaced
    ok: bool = True  #: of a cas: whether it replaced the value


@dataclass(frozen=True)
class Check:
    """The verdict about a history."""

    verdict: Verdict
    key: str = ""  #: the register that has the verdict, unless it is "linearizable"
    why: str = ""  #: the operation that fits nowhere, where it is known

    def __bool__(self) -> bool:
        return self.verdict == "linearizable"


class History:
    """Records operations of several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.operations: list[Operation] = []
        self._clock = clock
        self._lock = threading.Lock()

    def read(self, client: int, key: str, call: Callable[[], Any]) -> Any:
        """Calls a read, and records its result. An error is passed on and not recorded: a read has no effect."""
        called = self._clock()
        value = call()
        self._add(Operation(client, key, "read", value, called, self._clock()))
        return value

    def write(self, client: int, key: str, value: Any, call: Callable[[], Any]) -> bool:
        """Calls a write; returns whether it was acknowledged; if not, it may still take effect."""
        called = self._clock()
        try:
            call()
        except Exception:
            self._add(Operation(client, key, "write", value, called, _NEVER))
            return False
        self._add(Operation(client, key, "write", value, called, self._clock()))
        return True

    def cas(self, client: int, key: str, expected: Any, value: Any, call: Callable[[], bool]) -> bool:
        """Calls a compare-and-set, which returns whether it replaced the value; returns whether it is known to have."""
        called = self._clock()
        try:
            ok = bool(call())
        except Exception:
            self._add(Operation(client, key, "cas", value, called, _NEVER, expected))
            return False
        self._add(Operation(client, key, "cas", value, called, self._clock(), expected, ok))
        return ok

    def _add(self, operation: Operation) -> None:
        with self._lock:
            self.operations.append(operation)

    def check(self, initial: Any = None, *, seconds: float = 60.0) -> Check:
        """See :func:`check`."""
        return check(self.operations, initial, seconds=seconds)


def run(
    workers: int,
    work: Callable[[int, History], None],
    *,
    seconds: float,
    history: History | None = None,
) -> History:
    """Calls ``work(client, history)`` again and again, in so many threads, for so many seconds.

    What it raises ends one call, and the next begins: clients of a cluster with faults see errors.
    """
    recorded = history or History()
    end = time.monotonic() + seconds

    def loop(client: int) -> None:
        while time.monotonic() < end:
            try:
                work(client, recorded)
            except Exception:
                time.sleep(0.01)

    threads = [threading.Thread(target=loop, args=(client,), daemon=True) for client in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return recorded


def check(operations: Iterable[Operation], initial: Any = None, *, seconds: float = 60.0) -> Check:
    """Whether a history of registers is linearizable.

    Args:
        initial: the value that every register has before.
        seconds: after which the verdict is "unknown".
    """
    end = time.monotonic() + seconds
    of: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        of[operation.key].append(operation)
    unknown = ""
    for key in sorted(of, key=lambda key: len(of[key])):
        found, why = _register(_relevant(of[key]), initial, end)
        if found is False:
            return Check("not linearizable", key, why)
        if found is None:
            unknown = unknown or key
    return Check("unknown", unknown, f"no verdict within {seconds:g} s") if unknown else Check("linearizable")


def lost_writes(operations: Iterable[Operation], present: Mapping[str, Iterable[Any]]) -> tuple[Any, ...]:
    """Acknowledged writes of unique values that are not there at the end.

    Args:
        present: for each key the values that are there, such as the members of a set or the lines of a log.
    """
    have = {key: set(values) for key, values in present.items()}
    acknowledged = [o for o in operations if o.kind == "write" and o.returned != _NEVER]
    return tuple(o.value for o in acknowledged if o.value not in have.get(o.key, ()))


def _relevant(operations: Sequence[Operation]) -> list[Operation]:
    """Without operations that cannot matter: uncertain writes of values that nothing ever saw or expected."""
    if any(o.kind == "cas" and not o.ok for o in operations):  # it saw some other value, which any write may have left
        return list(operations)
    seen = [o.value for o in operations if o.kind == "read"]
    seen += [o.expected for o in operations if o.kind == "cas"]
    return [o for o in operations if o.returned != _NEVER or o.kind == "read" or o.value in seen]


@dataclass
class _Entry:
    """A call or a return in the list of events."""

    operation: Operation
    index: int
    match: _Entry | None = None  #: of a call: its return
    before: _Entry | None = field(default=None, repr=False)
    after: _Entry | None = field(default=None, repr=False)


def _register(operations: Sequence[Operation], initial: Any, end: float) -> tuple[bool | None, str]:
    """Whether one register's history is linearizable, None once the time is over; and what fits nowhere."""
    head = _events(operations)
    state, done = initial, 0
    cache: set[tuple[int, Any]] = set()
    stack: list[tuple[_Entry, Any]] = []
    certain = sum(1 << i for i, o in enumerate(operations) if o.returned != _NEVER)
    entry = head.after
    deepest, blamed = -1, ""
    steps = 0
    while done & certain != certain:
        steps += 1
        if not steps & 1023 and time.monotonic() > end:
            return None, ""
        if entry is not None and entry.match is not None:
            possible, following = _step(entry.operation, state)
            if possible:
                configuration = (done | 1 << entry.index, following)
                if configuration not in cache:
                    cache.add(configuration)
                    stack.append((entry, state))
                    state, done = following, configuration[0]
                    _lift(entry)
                    entry = head.after
                    continue
            entry = entry.after
            continue
        # A return before its call took effect, or the end of the list: the last choice was wrong.
        if entry is not None and len(stack) > deepest:
            deepest, blamed = len(stack), _words(entry.operation, state)
        if not stack:
            return False, blamed
        last, state = stack.pop()
        done &= ~(1 << last.index)
        _unlift(last)
        entry = last.after
    return True, ""


def _events(operations: Sequence[Operation]) -> _Entry:
    """A linked list of all calls and returns in order of time, behind a head. A call that never returned has its
    return at the end, so that it may take effect at any time, or not at all."""
    events: list[tuple[float, int, _Entry]] = []
    for index, operation in enumerate(operations):
        back = _Entry(operation, index)
        events.append((operation.called, 0, _Entry(operation, index, back)))
        events.append((operation.returned, 1, back))
    events.sort(key=lambda event: event[:2])
    head = _Entry(Operation(-1, "", "read", None, 0, 0), -1)
    last = head
    for _time, _kind, entry in events:
        last.after, entry.before = entry, last
        last = entry
    return head


def _lift(call: _Entry) -> None:
    """Takes a call and its return out of the list."""
    for one in (call, call.match):
        assert one
        assert one.before
        one.before.after = one.after
        if one.after:
            one.after.before = one.before


def _unlift(call: _Entry) -> None:
    """Puts them back."""
    for one in (call.match, call):
        assert one
        assert one.before
        one.before.after = one
        if one.after:
            one.after.before = one


def _step(operation: Operation, state: Any) -> tuple[bool, Any]:
    """Whether an operation can take effect in a state, and the state after it."""
    if operation.kind == "read":
        return operation.value == state, state
    if operation.kind == "write":
        return True, operation.value
    if operation.returned == _NEVER:  # it took effect, or failed, and nobody knows
        return True, operation.value if state == operation.expected else state
    if operation.ok:
        return state == operation.expected, operation.value
    return state != operation.expected, state


def _words(operation: Operation, state: Any) -> str:
    if operation.kind == "read":
        return f"client {operation.client} read {operation.value!r} at {operation.called:.3f}, expected {state!r}"
    return f"client {operation.client}: {operation.kind} {operation.value!r} at {operation.called:.3f}"
