"""Carries out a plan: runs steps at once as far as their needs allow; on the first error cancels and joins the rest."""

from __future__ import annotations

import contextlib
import queue
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from minicluster.errors import Interrupted, MiniclusterError
from minicluster.executor.actions import perform, phase
from minicluster.executor.run import Run
from minicluster.executor.signals import shielded
from minicluster.model.events import Event
from minicluster.plan import steps as m
from minicluster.plan.steps import Plan, Step

__all__ = ["Run", "execute"]

_WORKERS = 64  # steps at once; most of them wait
_LISTEN = 0.5  # seconds within which Ctrl-C is noticed for certain

#: What a node is once its last step is done, by what it was doing; "ready" by default.
_ENDED = {
    "starting": "running",
    "stopping": "stopped",
    "killing": "killed",
    "pausing": "paused",
    "removing": "removed",
    "leaving": "removed",  # others forget it last where it might register again
    "resetting": "reset",
    "loading": "loaded",
}

_Finished = queue.SimpleQueue[tuple[Step, "Future[None]"]]


def execute(plan: Plan, run: Run) -> None:
    """Carries out a plan.

    Raises:
        MiniclusterError: the first error of any step, after every other step has ended.
        KeyboardInterrupt: Ctrl-C, likewise.
    """
    run.cluster = plan.cluster
    run.expected = _expected(plan)
    steps = {step.id: step for step in plan.steps}
    order = plan.order()
    since: dict[str, float] = {}  # node -> when work on it began in earnest
    touched: set[str] = set()  # nodes that something was done to
    done: set[str] = set()  # ids of steps
    open_steps = Counter(step.node for step in plan.steps if step.node)
    finished: _Finished = queue.SimpleQueue()
    run.listener(Event("plan", text=plan.headline, nodes=tuple(open_steps)))
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="step") as pool:
        try:
            while order.is_active():
                for id in order.get_ready():
                    step = steps[id]
                    touched.add(step.node)
                    if not isinstance(step.action, m.CreateVolume):
                        since.setdefault(step.node, time.monotonic())
                    future = pool.submit(_carry_out, step, run)
                    future.add_done_callback(lambda done, step=step: finished.put((step, done)))  # type: ignore[misc]
                step, future = _next(finished)
                if future.exception():
                    run.listener(Event("failed", step.node, phase(step.action), step.id))
                future.result()
                order.done(step.id)
                done.add(step.id)
                if step.node:
                    open_steps[step.node] -= 1
                    if not open_steps[step.node]:
                        ended, now = _ENDED.get(phase(step.action), "ready"), time.monotonic()
                        run.listener(Event("done", step.node, ended, seconds=now - since.get(step.node, now)))
                else:
                    run.listener(Event("done", "", phase(step.action), step.id))
        except BaseException as error:
            with shielded():
                run.cancel.set()
                pool.shutdown(wait=True, cancel_futures=True)
                _clean_up([s for s in plan.steps if s.cleanup and s.id not in done and s.node in touched], run)
            cause = _first_cause(error, finished)
            if cause is error:
                raise
            raise cause from None
        finally:
            for archive in run.archives.values():
                archive.close()


def _expected(plan: Plan) -> frozenset[str]:
    """The nodes that must be members in the end and that the plan does not start: those run already."""
    started = {step.node for step in plan.steps if isinstance(step.action, m.StartContainer)}
    waits = [step.action for step in plan.steps if isinstance(step.action, m.WaitMembers)]
    return frozenset(name for wait in waits for name in wait.names) - started


def _next(finished: _Finished) -> tuple[Step, Future[None]]:
    """The next step that has ended. Wakes up in between: Python notices Ctrl-C only when it does not block."""
    while True:
        with contextlib.suppress(queue.Empty):
            return finished.get(timeout=_LISTEN)


def _first_cause(error: BaseException, finished: _Finished) -> BaseException:
    """The error that came first: a step that was merely cancelled because of it may have been noticed before."""
    if isinstance(error, Interrupted):
        while not finished.empty():
            other = finished.get()[1]
            if not other.cancelled() and (found := other.exception()) and not isinstance(found, Interrupted):
                return found
    return error


def _clean_up(steps: Iterable[Step], run: Run) -> None:
    """Carries out clean-up steps that an error came before."""
    for step in steps:
        with contextlib.suppress(MiniclusterError):
            perform(step, run)


def _carry_out(step: Step, run: Run) -> None:
    if run.cancel.is_set():
        raise Interrupted(f"stopped before: {step.id}")
    begins = isinstance(step.action, (m.CreateContainer, m.StartContainer))
    if begins or (run.begun is None and isinstance(step.action, (m.WaitReady, m.WaitMembers))):
        run.begun = time.monotonic()
    doing, started = phase(step.action), time.monotonic()
    run.listener(Event("start", step.node, doing, step.id))
    perform(step, run)
    run.listener(Event("end", step.node, doing, step.id, seconds=time.monotonic() - started))
