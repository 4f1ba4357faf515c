"""One change of a cluster at a time, and a lock that goes with its process, however that ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from minicluster import paths
from minicluster.errors import MiniclusterError
from minicluster.leases import lock

HOLDER = """
import sys
from minicluster.leases import lock
with lock.changing("c"):
    print("held", flush=True)
    sys.stdin.read()
"""


def locks() -> list[str]:
    return sorted(path.name for path in (paths.data_home() / "locks").iterdir())


def test_a_second_holder_is_refused_and_told_who_the_first_is() -> None:
    with lock.changing("c"):
        with pytest.raises(MiniclusterError) as caught, lock.changing("c"):
            pass
        assert f"Process {os.getpid()} is" in caught.value.why
        assert locks() == ["c.lock"]  # the one that was refused took nothing away


def test_clusters_are_locked_one_by_one() -> None:
    with lock.changing("c"), lock.changing("d"):
        assert locks() == ["c.lock", "d.lock"]


def test_a_lock_is_free_again_afterwards_and_leaves_no_file() -> None:
    for _ in range(2):
        with lock.changing("c"):
            pass
    assert locks() == []


def test_a_lock_is_free_again_after_an_error_and_leaves_no_file() -> None:
    with pytest.raises(ValueError, match="x"), lock.changing("c"):
        raise ValueError("x")
    assert locks() == []
    with lock.changing("c"):
        pass


def test_a_file_that_was_left_behind_is_no_lock() -> None:
    folder = paths.data_home() / "locks"
    folder.mkdir(parents=True)
    (folder / "c.lock").write_text("1234567")
    with lock.changing("c"):
        assert (folder / "c.lock").read_text() == str(os.getpid())
    assert locks() == []


def test_the_lock_of_another_process_is_refused_with_its_number_and_free_once_it_is_killed() -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        with pytest.raises(MiniclusterError, match=f"Process {process.pid} is"), lock.changing("c"):
            pass
        process.kill()
        process.wait()
        with lock.changing("c"):
            pass
    assert locks() == []


def test_a_folder_that_cannot_be_written_is_told() -> None:
    paths.data_home().mkdir(parents=True)
    (paths.data_home() / "locks").write_text("in the way")
    with pytest.raises(MiniclusterError, match=r"cannot lock .*/c\.lock"), lock.changing("c"):
        pass


# Working with a cluster


def test_several_work_with_a_cluster_or_one_alone() -> None:
    first = lock.using("c", alone=False, timeout=0)
    second = lock.using("c", alone=False, timeout=0)
    with pytest.raises(MiniclusterError, match="in use by other processes"):
        lock.using("c", alone=True, timeout=0.1)
    first.release()
    assert locks() == ["c.use"]
    second.release()
    assert locks() == []
    alone = lock.using("c", alone=True, timeout=0)
    with pytest.raises(MiniclusterError, match="in use"):
        lock.using("c", alone=False, timeout=0)
    with lock.changing("c"):  # who works with it may change it
        assert locks() == ["c.lock", "c.use"]
    alone.release()
    assert locks() == []


def test_what_a_killed_one_left_is_forgotten_and_nothing_else() -> None:
    held = lock.using("c", alone=False, timeout=0)
    lock.forget("c")
    assert locks() == ["c.use"]
    held.release()
    with lock.changing("c"):
        lock.forget("c")
        assert locks() == ["c.lock"]
    for kind in ("use", "lock"):
        (paths.data_home() / "locks" / f"c.{kind}").touch()
    lock.forget("c")
    lock.forget("never-there")
    assert locks() == []


def test_those_who_share_let_in_one_who_wants_it_alone() -> None:
    import threading

    stop = threading.Event()

    def share() -> None:
        while not stop.is_set():
            with lock.using("c", alone=False, timeout=30):
                stop.wait(0.2)

    sharers = [threading.Thread(target=share) for _ in range(3)]
    for sharer in sharers:
        sharer.start()
    try:
        lock.using("c", alone=True, timeout=20).release()
    finally:
        stop.set()
        for sharer in sharers:
            sharer.join()
    assert locks() == []
