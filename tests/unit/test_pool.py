"""A cluster of the pool is checked and reset at once: whatever either finds, a test gets it whole and empty."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minicluster import pool
from minicluster.engine.protocol import Cancel
from minicluster.errors import Interrupted, MiniclusterError, NodeFailed, NotReady
from minicluster.pool import Lent, Pool
from minicluster.testrun import Run


class Stub:
    """A cluster of one node; what is done to it is noted."""

    name = "x"

    def __init__(self, done: list[str], *, ready: bool, state: str, reset: Callable[[Cancel | None], None]) -> None:
        self.done, self.ready, self._reset = done, ready, reset
        self.spec = SimpleNamespace(overrides=SimpleNamespace(size={}, set={}, image={}, port={}), reset=["hook"])
        node = SimpleNamespace(name="x-kv-1", state=state)
        self.engine = SimpleNamespace(containers=lambda _name: [node], volumes=lambda _name: [node])

    def node_names(self) -> list[str]:
        return ["kv-1"]

    def status(self, *, memory: bool) -> Any:
        return SimpleNamespace(phase="ready" if self.ready else "broken")

    def reset(self, *, cancel: Cancel | None = None) -> None:
        self.done.append("reset")
        self._reset(cancel)


def hangs(cancel: Cancel | None) -> None:
    assert cancel is None or cancel.wait(20), "nobody ended it"
    raise Interrupted("stopped")


def fails(_cancel: Cancel | None) -> None:
    raise NodeFailed("it does not work")


def takes_too_long(_cancel: Cancel | None) -> None:
    raise NotReady("its time is over")


def works(_cancel: Cancel | None) -> None:
    pass


def no_engine(_cancel: Cancel | None) -> None:
    raise pool.NoEngine("it went away")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[str]]:
    """What is done when a cluster is taken that was there before."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(pool, "_LATE", 0.1)

    def take(
        reset: Callable[[Cancel | None], None], *, ready: bool = True, state: str = "running", isolated: bool = True
    ) -> list[str]:
        done: list[str] = []
        there = Stub(done, ready=ready, state=state, reset=reset)

        def up(*_words: Any, **_asked: Any) -> Stub:
            gone = bool(done) and done[-1] == "down"
            done.append("make" if gone else "mend")
            there.ready, there._reset = True, works
            return there

        monkeypatch.setattr(pool.Cluster, "open", lambda *_words, **_asked: there)
        monkeypatch.setattr(pool.Cluster, "up", up)
        monkeypatch.setattr(pool.facade, "down", lambda *_words, **_asked: done.append("down"))
        mine = Pool(Run.begin(reuse=False, keep=False, ttl=60))
        mine._engine = there.engine
        lent = Lent(mine, "x", "etcd", {}, shared=False)
        try:
            assert lent.take(isolated=isolated, timeout=1) is not None
        finally:
            lent.back()
        assert mine.spent.counts["reset"] <= 1
        return done

    return take


def test_one_that_is_whole_is_reset_while_it_is_checked(taken: Callable[..., list[str]]) -> None:
    assert taken(works) == ["reset"]


def test_one_that_is_shared_is_left_as_it_is(taken: Callable[..., list[str]]) -> None:
    assert taken(works, isolated=False) == []


@pytest.mark.parametrize("reset", [fails, takes_too_long])
def test_one_that_cannot_be_reset_is_replaced(taken: Callable[..., list[str]], reset: Any) -> None:
    assert taken(reset) == ["reset", "down", "make"]


@pytest.mark.parametrize("reset", [fails, works])
def test_one_that_is_broken_is_mended_and_reset_after_that(taken: Callable[..., list[str]], reset: Any) -> None:
    assert taken(reset, ready=False) == ["reset", "mend", "reset"]


def test_one_with_a_node_that_is_down_is_mended_before_it_is_reset(taken: Callable[..., list[str]]) -> None:
    assert taken(hangs, ready=False, state="exited") == ["mend", "reset"]


@pytest.mark.parametrize("reset", [hangs, takes_too_long])
def test_a_reset_that_may_still_be_at_work_never_meets_a_test(taken: Callable[..., list[str]], reset: Any) -> None:
    assert taken(reset, ready=False) == ["reset", "down", "make"]


def test_without_an_engine_there_is_nothing_to_replace(taken: Callable[..., list[str]]) -> None:
    with pytest.raises(MiniclusterError, match="it went away"):
        taken(no_engine)
