"""Functions called at the same time: all of them, or until one answers."""

from __future__ import annotations

import threading
import time

import pytest

from minicluster.engine.protocol import Cancel
from minicluster.executor.parallel import at_once, first_of

LONG = 30.0  # seconds that no test waits for: something else must end it


def test_results_come_in_order_from_functions_that_run_together() -> None:
    together = threading.Barrier(3, timeout=LONG)

    def task(number: int) -> int:
        together.wait()
        time.sleep(0.05 * (3 - number))
        return number

    assert at_once([lambda: task(1), lambda: task(2), lambda: task(3)]) == [1, 2, 3]
    assert at_once([]) == []


def test_the_first_error_ends_the_others_and_is_raised_once_they_have_ended() -> None:
    cancel, ended = Cancel(), threading.Event()

    def waits() -> None:
        assert cancel.wait(LONG)
        ended.set()

    def fails() -> None:
        raise KeyError("a programming error")

    with pytest.raises(KeyError):
        at_once([waits, fails], cancel=cancel)
    assert ended.is_set()


def test_the_others_are_asked_only_if_the_first_fails_or_takes_long() -> None:
    asked: list[str] = []

    def answer(name: str) -> str:
        asked.append(name)
        return name

    def fail() -> str:
        raise TimeoutError("late")

    assert (
        first_of([lambda: answer("a"), lambda: answer("b")], (TimeoutError,), head_start=LONG, cancel=Cancel()) == "a"
    )
    assert asked == ["a"]
    assert first_of([fail, lambda: answer("b")], (TimeoutError,), head_start=LONG, cancel=Cancel()) == "b"
    cancel = Cancel()

    def slow() -> str:
        assert cancel.wait(LONG)  # ended by the answer of the other
        raise TimeoutError("cancelled")

    assert first_of([slow, lambda: answer("c")], (TimeoutError,), head_start=0.01, cancel=cancel) == "c"


def test_if_all_fail_the_last_error_is_raised_and_an_unexpected_one_at_once() -> None:
    def late() -> str:
        raise TimeoutError("late")

    def wrong() -> str:
        raise KeyError("a programming error")

    with pytest.raises(TimeoutError):
        first_of([late, late], (TimeoutError,), head_start=0.01, cancel=Cancel())
    with pytest.raises(KeyError):
        first_of([late, wrong], (TimeoutError,), head_start=0.01, cancel=Cancel())
