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
from dataclasses import dataclass, field, replace
from operator import le
from typing import Any, Literal, TypeAlias

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
    """Records operations of several threads.

    Values are compared by ``==``. They may be lists or dicts, which must not be changed once they are recorded.
    """

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
    keys, values = _Distinct(), _Distinct()
    of: defaultdict[int, list[Operation]] = defaultdict(list)
    for one in operations:
        numbered = replace(one, value=values.number(one.value), expected=values.number(one.expected))
        of[keys.number(one.key)].append(numbered)
    unknown: list[str] = []
    for key in sorted(of, key=lambda key: len(of[key])):
        found, why = _register(_relevant(of[key]), values.number(initial), values, end)
        if found is False:
            return Check("not linearizable", keys.known[key], why)
        if found is None:
            unknown.append(keys.known[key])
    return Check("unknown", unknown[0], f"no verdict within {seconds:g} s") if unknown else Check("linearizable")


def lost_writes(operations: Iterable[Operation], present: Mapping[str, Iterable[Any]]) -> tuple[Any, ...]:
    """Acknowledged writes of unique values that are not there at the end.

    Args:
        present: for each key the values that are there, such as the members of a set or the lines of a log.
    """
    distinct = _Distinct()
    have = {distinct.number((key, value)) for key, values in present.items() for value in values}
    acknowledged = [o for o in operations if o.kind == "write" and o.returned != _NEVER]
    return tuple(o.value for o in acknowledged if distinct.number((o.key, o.value)) not in have)


class _Distinct:
    """Numbers for distinct values: the search needs values that can be hashed, and those of clients may be dicts."""

    def __init__(self) -> None:
        self.known: list[Any] = []  #: by number
        self._hashed: dict[Any, int] = {}
        self._others: list[int] = []  # the numbers of those that cannot be hashed

    def number(self, value: Any) -> int:
        """The number of a value, the same for all that are equal to it."""
        try:
            hash(value)
            hashable = True
        except TypeError:
            hashable = False
        if hashable and value in self._hashed:
            return self._hashed[value]
        alike = self._others if hashable else range(len(self.known))
        number = next((other for other in alike if self.known[other] == value), len(self.known))
        if number == len(self.known):
            self.known.append(value)
            if not hashable:
                self._others.append(number)
        if hashable:
            self._hashed[value] = number
        return number


def _relevant(operations: Sequence[Operation]) -> list[Operation]:
    """Without operations that cannot matter: uncertain writes of values that nothing ever saw or expected."""
    if any(o.kind == "cas" and not o.ok for o in operations):  # it saw some other value, which any write may have left
        return list(operations)
    seen = {o.value for o in operations if o.kind == "read"}
    seen |= {o.expected for o in operations if o.kind == "cas"}
    return [o for o in operations if o.returned != _NEVER or o.kind == "read" or o.value in seen]


@dataclass
class _Entry:
    """A call or a return in the list of events."""

    operation: Operation
    index: int
    match: _Entry | None = None  #: of a call: its return
    before: _Entry | None = field(default=None, repr=False)
    after: _Entry | None = field(default=None, repr=False)


#: The operations that have taken effect, the value, how many of each alike, and whether the last one was such a one.
_Configuration: TypeAlias = tuple[int, Any, tuple[int, ...], bool]


class _Search:
    """The search for an order of one register's operations.

    Operations of which it is not known whether they took effect can be used at any time after their calls, or never.
    Those of one kind and value are alike: the one that was called first is used first. Right before a write none is
    used, since nothing would see it. And a configuration is worth nothing if one with the same operations and value was
    seen before that had used no more of them.
    """

    def __init__(self, operations: Sequence[Operation], initial: Any) -> None:
        certain = [o for o in operations if o.returned != _NEVER]
        self.head = _events(certain)
        self.all = (1 << len(certain)) - 1
        self.vague: dict[tuple[Kind, Any, Any], list[Operation]] = {}
        for one in sorted((o for o in operations if o.returned == _NEVER), key=lambda o: o.called):
            self.vague.setdefault((one.kind, one.value, one.expected), []).append(one)
        self.alike = list(self.vague.values())
        self.done, self.state, self.used = 0, initial, (0,) * len(self.alike)
        self.unseen = False  # the last one that took effect need not have
        self.seen: dict[tuple[int, Any, bool], list[tuple[int, ...]]] = {}

    def choices(self) -> tuple[list[_Entry | int], Operation | None]:
        """What may take effect next: calls, and numbers of alike operations; and the one that must have by then.

        An operation that can take effect and changes nothing is the only choice: later it may no longer be able to.
        """
        found: list[_Entry | int] = []
        entry = self.head.after
        while entry is not None and entry.match is not None:
            operation = entry.operation
            if operation.kind == "read" or not operation.ok:
                if _step(operation, self.state)[0]:
                    return [entry], operation
            else:
                found.append(entry)
            entry = entry.after
        for i, operations in enumerate(self.alike):
            if self.used[i] < len(operations) and (
                entry is None or operations[self.used[i]].called <= entry.operation.returned
            ):
                found.append(i)
        return found, entry.operation if entry else None

    def take(self, choice: _Entry | int) -> bool:
        """Lets it take effect, unless it cannot, or leads to nothing new."""
        operation = self.alike[choice][0] if isinstance(choice, int) else choice.operation
        if self.unseen and operation.kind == "write":
            return False
        possible, following = _step(operation, self.state)
        done, used, unseen = self.done, self.used, isinstance(choice, int)
        if isinstance(choice, int):
            if following == self.state:
                return False
            used = (*used[:choice], used[choice] + 1, *used[choice + 1 :])
        else:
            done |= 1 << choice.index
        if not possible:
            return False
        for after in {False, unseen}:  # a configuration after one that need not have taken effect has fewer choices
            if any(all(map(le, other, used)) for other in self.seen.get((done, following, after), ())):
                return False
        self.seen.setdefault((done, following, unseen), []).append(used)
        if not isinstance(choice, int):
            _lift(choice)
        self.done, self.state, self.used, self.unseen = done, following, used, unseen
        return True

    @property
    def configuration(self) -> _Configuration:
        return self.done, self.state, self.used, self.unseen

    def undo(self, choice: _Entry | int, before: _Configuration) -> None:
        """Back to the configuration before a choice."""
        if not isinstance(choice, int):
            _unlift(choice)
        self.done, self.state, self.used, self.unseen = before


def _register(operations: Sequence[Operation], initial: int, values: _Distinct, end: float) -> tuple[bool | None, str]:
    """Whether one register's history is linearizable, None once the time is over; and what fits nowhere."""
    search = _Search(operations, initial)
    left, blocked = search.choices()
    #: What is tried next of each configuration on the way; how the next one was reached; and the one before that.
    path: list[tuple[list[_Entry | int], _Entry | int, _Configuration]] = []
    deepest, blamed = -1, ""
    steps = 0
    while search.done != search.all:
        steps += 1
        if not steps & 255 and time.monotonic() > end:
            return None, ""
        if left:
            choice = left.pop(0)
            before = search.configuration
            if search.take(choice):
                path.append((left, choice, before))
                left, blocked = search.choices()
            continue
        if blocked and len(path) > deepest:
            deepest, blamed = len(path), _words(blocked, values.known[search.state], values)
        if not path:
            return False, blamed
        left, choice, before = path.pop()
        search.undo(choice, before)
        blocked = None
    return True, ""


def _events(operations: Sequence[Operation]) -> _Entry:
    """A linked list of all calls and returns in order of time, behind a head."""
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


def _words(operation: Operation, state: Any, values: _Distinct) -> str:
    value = values.known[operation.value]
    if operation.kind == "read":
        return f"client {operation.client} read {value!r} at {operation.called:.3f}, expected {state!r}"
    return f"client {operation.client}: {operation.kind} {value!r} at {operation.called:.3f}"
