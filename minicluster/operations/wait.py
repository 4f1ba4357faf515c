"""``wait``: until a cluster is ready, has a quorum, or has so many ready members."""

from __future__ import annotations

import contextlib
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minicluster.errors import MiniclusterError, NodeFailed, NotReady, UsageError
from minicluster.model.events import Event, Listener
from minicluster.model.naming import count
from minicluster.model.results import ClusterStatus
from minicluster.operations import status
from minicluster.operations.monitor import current_spec

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine
    from minicluster.model.spec import Spec

Check = Callable[[ClusterStatus], object]

FORMS = "ready, quorum or members=N"
_PERIOD = 1.0  # seconds between two looks: the engine has events of containers, but none of what runs in them
_MEMBERS = re.compile(r"members=([1-9][0-9]{0,5})")


@dataclass(frozen=True)
class Condition:
    """What is waited for."""

    kind: str  #: ready, quorum, members or check
    members: int = 0
    check: Check = bool  #: a caller's own: met once its result is true

    @classmethod
    def of(cls, until: str | Check) -> Condition:
        """What :meth:`parse` takes, or a caller's own function."""
        return cls.parse(until) if isinstance(until, str) else cls("check", check=until)

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Raises ``UsageError`` for what is none of :data:`FORMS`."""
        if text in ("ready", "quorum"):
            return cls(text)
        if found := _MEMBERS.fullmatch(text):
            return cls("members", int(found[1]))
        raise UsageError(f"--for {text}: no such condition", "", f"Use {FORMS}.")

    def missing(self, answer: ClusterStatus) -> str:
        """What is missing, for people; "" once it is met.

        Raises:
            UsageError: the cluster can never meet it.
        """
        if self.kind == "check":
            return "" if self.check(answer) else f"not yet: the cluster is {answer.phase}{_first(answer)}"
        if self.kind == "quorum":
            return _no_quorum(answer)
        ready = sum(node.ready for node in answer.nodes)
        if self.kind == "members":
            return "" if ready >= self.members else f"{ready} of {self.members} ready{_first(answer)}"
        if answer.phase == "ready":
            return ""
        if ready == len(answer.nodes):
            return "a change is under way" if answer.phase == "bootstrapping" else answer.phase
        return f"{ready} of {count(len(answer.nodes), 'node')} ready{_first(answer)}"


def _no_quorum(answer: ClusterStatus) -> str:
    quorums = answer.quorums
    if not quorums:
        if answer.nodes and all(node.ready for node in answer.nodes):
            raise UsageError(
                f"cluster {answer.cluster} has no quorum", "None of its nodes votes.", "Wait for ready or members=N."
            )
        return "; ".join(answer.notes) or f"no member answers{_first(answer)}"
    for role, quorum in quorums.items():
        if quorum.lost:
            return f"{quorum.healthy} of {quorum.voters} voters of role {role} healthy, {quorum.needed} needed"
        if not quorum.leader:
            return f"no leader of role {role}"
    return ""


def _first(answer: ClusterStatus) -> str:
    """The first node that is not ready, and why."""
    node = next((node for node in answer.nodes if not node.ready), None)
    return f"; {node.name}: {' '.join(node.probe.split())}" if node else ""


def wait(engine: Engine, spec: Spec, condition: Condition, timeout: float, listener: Listener) -> ClusterStatus:
    """Waits until a cluster meets a condition; looks again at each event of the engine, and once a second.

    Args:
        timeout: seconds.
        listener: is told what is missing, each time that changes.

    Raises:
        NotReady: not in time.
        NodeFailed: the cluster was removed.
        UsageError: it can never meet the condition.
    """
    deadline = time.monotonic() + timeout
    told = ""
    with _events(engine, spec.cluster) as happened:
        while True:
            now = current_spec(engine, spec)
            if now is None:
                raise NodeFailed(f"cluster {spec.cluster} no longer exists", "Another process removed it.")
            answer = status.examine(engine, now, memory=False)
            missing = condition.missing(answer)
            if not missing:
                return answer
            if missing != told:
                listener(Event("note", text=f"waiting for cluster {spec.cluster}: {missing}"))
                told = missing
            left = deadline - time.monotonic()
            if left <= 0:
                fix = f"Give it longer with --timeout; `minicluster status {spec.cluster}` shows all nodes."
                raise NotReady(f"cluster {spec.cluster} timed out after {timeout:g} s", f"{missing}.", fix)
            with contextlib.suppress(queue.Empty):
                happened.get(timeout=min(_PERIOD, left))
                while True:  # what happened at the same time is one reason to look
                    happened.get_nowait()


@contextlib.contextmanager
def _events(engine: Engine, cluster: str) -> Iterator[queue.SimpleQueue[None]]:
    """A queue that gets an item at each event of a cluster's containers."""
    from minicluster.engine.protocol import Cancel

    happened: queue.SimpleQueue[None] = queue.SimpleQueue()
    stop = Cancel()

    def receive() -> None:
        with contextlib.suppress(MiniclusterError):  # then there is the period
            for _event in engine.events(cluster, cancel=stop):
                happened.put(None)

    threading.Thread(target=receive, daemon=True).start()
    try:
        yield happened
    finally:
        stop.set()
