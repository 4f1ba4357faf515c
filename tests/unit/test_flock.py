"""A lock on a file: what several holders see of each other, and of a file that is removed meanwhile."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from minicluster.errors import MiniclusterError
from minicluster.host import flock
from minicluster.host.flock import Held


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "lock"


def take(path: Path, *, shared: bool = False) -> Held:
    held = flock.take(path, shared=shared)
    assert isinstance(held, Held)
    return held


def test_the_second_reads_what_the_first_wrote(path: Path) -> None:
    with take(path) as held:
        held.write("a long text")
        held.write("4711")
        assert flock.take(path) == flock.take(path, shared=True) == "4711"
    assert not path.exists()


def test_the_last_of_those_that_share_removes_the_file(path: Path) -> None:
    one, two = take(path, shared=True), take(path, shared=True)
    one.release()
    assert path.exists()
    assert flock.take(path) == ""
    two.release()
    assert not path.exists()


def test_a_lock_whose_folder_was_removed_leaves_its_successor_alone(path: Path) -> None:
    old = take(path)
    shutil.rmtree(path.parent)
    new = take(path)
    old.release()
    assert flock.take(path) == ""
    new.release()


def test_waiting_ends_in_time_or_when_the_lock_is_free(path: Path) -> None:
    held = take(path)
    begun = time.monotonic()
    assert flock.wait(path, until=begun + 0.1) is None
    assert 0.1 <= time.monotonic() - begun < 5
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            held.release()

    found = flock.wait(path, pause=pause)
    assert found
    assert len(pauses) == 2
    found.release()


def test_a_file_that_cannot_be_created_is_an_error(path: Path) -> None:
    path.parent.write_text("in the way")
    with pytest.raises(MiniclusterError, match="cannot lock"):
        flock.take(path)
