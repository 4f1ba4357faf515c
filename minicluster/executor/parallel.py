"""Calls functions at the same time: all of them, or until one answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from minicluster.engine.protocol import Cancel

T = TypeVar("T")

_WORKERS = 32


def at_once(tasks: Sequence[Callable[[], T]], *, cancel: Cancel | None = None) -> list[T]:
    """Calls all functions at the same time and returns their results in order.

    Args:
        cancel: set on the first error, so that the others end early.

    Raises:
        BaseException: the first error of any, after every other has ended.
    """
    if not tasks:
        return []
    with ThreadPoolExecutor(min(len(tasks), _WORKERS)) as pool:
        futures = [pool.submit(task) for task in tasks]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            if cancel:
                cancel.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [future.result() for future in futures]


def first_of(
    tasks: Sequence[Callable[[], T]], errors: tuple[type[BaseException], ...], *, head_start: float, cancel: Cancel
) -> T:
    """The first result of any: calls one function, and all others at the same time if it fails or takes long.

    Args:
        errors: what a function may raise without ending the others.
        head_start: seconds that the first one has alone.
        cancel: set once there is a result, so that the others end early.

    Raises:
        BaseException: the last of ``errors``, if every function raised one; or the first other error.
    """
    failed: BaseException = ValueError("no tasks")
    with ThreadPoolExecutor(len(tasks) or 1) as pool:
        futures = [pool.submit(task) for task in tasks[:1]]
        try:
            done, _ = wait(futures, head_start)
            if not done or futures[0].exception():
                futures += [pool.submit(task) for task in tasks[1:]]
            for future in as_completed(futures):
                try:
                    return future.result()
                except errors as error:
                    failed = error
        finally:
            cancel.set()
    raise failed
