"""Histories: which are linearizable, by hand, against brute force, and against porcupine."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from minicluster.testing.history import Check, History, Operation, check, lost_writes, run

NEVER = float("inf")
PORCUPINE = Path(__file__).parents[1] / "porcupine"


def read(value: Any, called: float, returned: float, key: str = "k") -> Operation:
    return Operation(0, key, "read", value, called, returned)


def write(value: Any, called: float, returned: float = NEVER, key: str = "k") -> Operation:
    return Operation(1, key, "write", value, called, returned)


def cas(expected: Any, value: Any, called: float, returned: float, ok: bool = True) -> Operation:
    return Operation(2, "k", "cas", value, called, returned, expected, ok)


@pytest.mark.parametrize(
    ("operations", "good"),
    [
        ([], True),
        ([read(None, 0, 1)], True),
        ([read(1, 0, 1)], False),
        ([write(1, 0, 1), read(1, 2, 3)], True),
        ([write(1, 0, 1), read(None, 2, 3)], False),  # a stale read
        ([write(1, 0, 3), read(None, 1, 2), read(1, 4, 5)], True),  # it took effect after the first read
        ([write(1, 0, 9), read(1, 1, 2), read(None, 3, 4)], False),  # seen once, it stays
        ([write(1, 0, 1), write(2, 0, 1), read(1, 2, 3), read(2, 4, 5)], False),
        ([write(1, 0), read(1, 5, 6)], True),  # its answer was lost, and it took effect
        ([write(1, 0), read(None, 5, 6)], True),  # or did not
        ([write(1, 0), read(None, 5, 6), read(1, 7, 8)], True),  # or did so late
        ([write(1, 0), read(1, 5, 6), read(None, 7, 8)], False),
        ([write(1, 0, 1), cas(1, 2, 2, 3), read(2, 4, 5)], True),
        ([write(1, 0, 1), cas(0, 2, 2, 3), read(2, 4, 5)], False),
        ([write(1, 0, 1), cas(0, 2, 2, 3, ok=False), read(1, 4, 5)], True),
        ([write(1, 0, 1), cas(1, 2, 2, 3, ok=False)], False),
        ([write(1, 0, 1), cas(1, 2, 2, NEVER), read(2, 4, 5)], True),
        ([write(1, 0, 1, "a"), read(None, 2, 3, "b")], True),  # registers are independent
    ],
)
def test_by_hand(operations: list[Operation], good: bool) -> None:
    assert bool(check(operations)) is good


def test_values_that_cannot_be_hashed_are_compared() -> None:
    """Lists, dicts, and what is equal to something that can be hashed."""
    good = [write({"a": [1]}, 0, 1), read({"a": [1]}, 2, 3), cas({"a": [1]}, [2], 4, 5), read([2], 6, 7)]
    assert check(good).verdict == "linearizable"
    assert check([*good, write([3], 8), read([3], 9, 10)]).verdict == "linearizable"
    found = check([*good, read({"a": [1]}, 8, 9)])
    assert found == Check("not linearizable", "k", "client 0 read {'a': [1]} at 8.000, expected [2]")
    for one, other in ((b"x", bytearray(b"x")), (bytearray(b"x"), b"x"), ((1, [2]), (1, [2])), (1, 1.0)):
        assert check([write(one, 0, 1), read(other, 2, 3), write(other, 4, 5), read(one, 6, 7)])
        assert lost_writes([write(one, 0, 1)], {"k": [other]}) == ()
    assert check([write([1], 0, 1), read([], 2, 3)], []).verdict == "not linearizable"
    assert check([read([], 0, 1)], []).verdict == "linearizable"
    assert lost_writes([write([1], 0, 1), write([2], 0, 1), write([2], 0, 1, "other")], {"k": [[2]]}) == ([1], [2])
    assert check([write(1, 0, 1, ["key"]), read(1, 2, 3, ["key"]), read(None, 2, 3, ["other"])])  # type: ignore[arg-type]


def test_what_fits_nowhere_is_named() -> None:
    found = check([write(1, 0, 1, "a"), read(None, 2, 3, "a"), write(1, 0, 1, "b")])
    assert (found.verdict, found.key) == ("not linearizable", "a")
    assert "read None" in found.why


def test_a_search_that_takes_too_long_says_unknown() -> None:
    pick = random.Random(1)
    operations = [Operation(i, "k", "write", i, 0, 1000) for i in range(60)]
    operations += [Operation(100 + i, "k", "read", pick.randrange(60), 0, 1000) for i in range(60)]
    operations.append(read("nobody wrote this", 1001, 1002))
    begun = time.monotonic()
    assert check(operations, seconds=0.3).verdict == "unknown"
    assert time.monotonic() - begun < 30


def generated(pick: random.Random, count: int, clients: int = 4, values: int = 4, span: float = 100) -> list[Operation]:
    """A history of a register that took effect somewhere between call and return; half of them are then falsified."""
    state: int = 0
    moments = sorted((pick.random() * span, pick.randrange(clients)) for _ in range(count))
    free = [0.0] * clients
    found: list[Operation] = []
    for at, client in moments:
        if at < free[client]:
            continue
        called, returned = max(free[client], at - pick.random() * 8), at + pick.random() * 8
        free[client] = returned
        kind = pick.choice(["read", "write", "cas"])
        if kind == "read":
            found.append(Operation(client, "k", "read", state, called, returned))
        elif kind == "write":
            value = pick.randrange(values)
            lost = pick.random() < 0.1
            took = not lost or pick.random() < 0.5
            state = value if took else state
            found.append(Operation(client, "k", "write", value, called, NEVER if lost else returned))
        else:
            expected, value = pick.randrange(values), pick.randrange(values)
            ok = state == expected
            state = value if ok else state
            found.append(Operation(client, "k", "cas", value, called, returned, expected, ok))
    if pick.random() < 0.5:
        reads = [i for i, o in enumerate(found) if o.kind == "read"]
        if reads:
            i = pick.choice(reads)
            o = found[i]
            found[i] = Operation(o.client, "k", "read", (o.value + 1) % values, o.called, o.returned)
    return found


def brute(operations: list[Operation]) -> bool:
    """All orders of all subsets that keep what is certain."""
    certain = [o for o in operations if o.returned != NEVER]
    vague = [o for o in operations if o.returned == NEVER]
    for mask in range(1 << len(vague)):
        chosen = certain + [o for i, o in enumerate(vague) if mask >> i & 1]
        for order in permutations(chosen):
            if any(b.returned < a.called for i, a in enumerate(order) for b in order[i + 1 :]):
                continue
            state, good = 0, True
            for o in order:
                if o.kind == "read":
                    good = o.value == state
                elif o.kind == "write":
                    state = o.value
                elif o.ok != (state == o.expected):
                    good = False
                elif o.ok:
                    state = o.value
                if not good:
                    break
            if good:
                return True
    return False


def test_it_agrees_with_brute_force() -> None:
    pick, verdicts = random.Random(7), []
    for _ in range(400):
        operations = generated(pick, 6, clients=3, values=3)
        expected = brute(operations)
        assert bool(check(operations, 0)) is expected, operations
        verdicts.append(expected)
    assert min(verdicts.count(True), verdicts.count(False)) > 50


def test_two_thousand_operations_by_ten_clients_have_a_verdict() -> None:
    verdicts = []
    for seed in range(4):
        operations = generated(random.Random(seed), 20_000, clients=10, values=5, span=3000)[:2000]
        assert len(operations) == 2000
        assert {o.client for o in operations} == set(range(10))
        verdicts.append(check(operations, 0, seconds=60).verdict)
        i, wrong = next((i, o) for i, o in enumerate(operations) if i >= 100 and o.kind == "read")
        operations[i] = replace(wrong, value=99)
        verdicts.append(check(operations, 0, seconds=60).verdict)
    assert verdicts == ["linearizable", "not linearizable"] * 4


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("go"), reason="go is not installed")
def test_it_agrees_with_porcupine(tmp_path: Path) -> None:
    program = tmp_path / "porcupine"
    subprocess.run(["go", "build", "-o", str(program), "."], cwd=PORCUPINE, check=True, timeout=300)
    pick = random.Random(11)
    histories = [generated(pick, pick.randrange(10, 60)) for _ in range(2400)]

    def row(o: Operation) -> dict[str, Any]:
        returned = -1 if o.returned == NEVER else int(o.returned * 10**9)
        return {"client": o.client, "kind": o.kind, "value": o.value, "expected": o.expected or 0, "ok": o.ok,
                "called": int(o.called * 10**9), "returned": returned}  # fmt: skip

    given = "\n".join(json.dumps([row(o) for o in history]) for history in histories)
    said = subprocess.run([str(program)], input=given, capture_output=True, text=True, check=True, timeout=300).stdout
    theirs = [line == "true" for line in said.splitlines()]
    assert len(theirs) == len(histories)
    for verdict in (True, False):  # a thousand, half of them wrong
        some = [history for history, found in zip(histories, theirs, strict=True) if found is verdict][:500]
        assert len(some) == 500
        assert [bool(check(history, 0)) for history in some] == [verdict] * 500


def test_a_call_in_the_moment_of_a_return_may_have_come_before() -> None:
    read = Operation(1, "k", "read", 1, 0.0, 5.0)
    assert check([read, Operation(2, "k", "write", 1, 5.0, 6.0)], 0)
    assert check([read, Operation(2, "k", "write", 1, 5.0, NEVER)], 0)
    assert not check([read, Operation(2, "k", "write", 1, 5.1, NEVER)], 0)


def test_a_history_is_recorded_by_its_calls() -> None:
    history = History()
    store = {"k": 0}

    def fail() -> None:
        store["k"] = 9
        raise TimeoutError

    assert history.write(1, "k", 5, lambda: store.update(k=5))
    assert history.read(2, "k", lambda: store["k"]) == 5
    assert history.cas(3, "k", 5, 6, lambda: True)
    assert not history.write(1, "k", 9, fail)
    with pytest.raises(ZeroDivisionError):
        history.read(1, "k", lambda: 1 // 0)
    assert [(o.kind, o.value, o.returned == NEVER) for o in history.operations] == [
        ("write", 5, False), ("read", 5, False), ("cas", 6, False), ("write", 9, True),
    ]  # fmt: skip
    assert history.check(0) == Check("linearizable")


def test_workers_record_concurrently() -> None:
    def work(client: int, history: History) -> None:
        if client == 0:
            raise ConnectionError
        history.write(client, f"own-{client}", client, lambda: time.sleep(0.001))

    found = run(3, work, seconds=0.1)
    assert {o.client for o in found.operations} == {1, 2}
    assert found.check()


def test_acknowledged_writes_that_are_gone() -> None:
    operations = [write("a", 0, 1), write("b", 0, 1), write("c", 0)]
    assert lost_writes(operations, {"k": ["a"]}) == ("b",)
