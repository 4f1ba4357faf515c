"""Threads that watch every cluster of an engine and tell a :class:`~minicluster.dashboard.hub.Hub`.

Each question has a thread of its own: a node that dies is told by the engine's events at once, however long another
one takes to say who the members are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from minicluster import discovery
from minicluster.dashboard.picture import Seen, picture, usage
from minicluster.errors import MiniclusterError, NoEngine
from minicluster.model import labels
from minicluster.operations import monitor
from minicluster.operations.faults import Target
from minicluster.operations.observe import members
from minicluster.operations.workload import workload
from minicluster.plan.faults import gone
from minicluster.plan.observed import made_by_another, observe

if TYPE_CHECKING:
    from minicluster.dashboard.hub import Hub
    from minicluster.engine.protocol import Cancel, Engine, EngineEvent
    from minicluster.model.membership import Member
    from minicluster.model.results import ClusterEvent

_PERIOD = 1.0  # seconds between two looks at what the engine has no events of
_SHARE = 0.4  # seconds that are added to that for each cluster: their hooks run on the same processors
_USAGE_PERIOD = 2.0  # seconds
_PAUSE = 0.05  # seconds in which several events of the engine become one look
_OF_FAULTS = ("fault", "healed")
_LEFT_OUT = ("connect", "disconnect")  # of networks: nothing to see
#: What an event of the engine says of a node's container, so that a death is told without another question.
_STATES = {"die": "exited", "start": "running", "pause": "paused", "unpause": "running"}
_HISTORY = 300.0  # seconds before the start of which events are shown


class Following:
    """One cluster, watched until it is gone or the watch ends."""

    def __init__(self, engine: Engine, name: str, hub: Hub, watch: Watch) -> None:
        from minicluster.engine.protocol import Cancel

        self.engine, self.name, self.hub, self.watch = engine, name, hub, watch
        self.over: Cancel = Cancel()
        self.seen: Seen | None = None  #: what is known now
        self._lock = threading.RLock()
        self._changed = threading.Event()  # the engine has told something
        self._ask_members = threading.Event()
        self._ask_workload = threading.Event()
        self._before: monitor.Seen | None = None
        self._begun = time.time()
        self._since = self._begun - _HISTORY
        self._told = 0  # how often an event said a node's state

    def start(self) -> None:
        """Starts to watch."""
        for loop in (self._follow_events, self._follow_usage):
            self.watch.thread(loop, self.over)
        period = self.watch.period
        for look, wake in (
            (self._look, self._changed),
            (self._look_at_members, self._ask_members),
            (self._look_at_workload, self._ask_workload),
        ):
            self.watch.thread(partial(self._repeat, look, wake, period), self.over)

    def stop(self) -> None:
        """Ends all threads, soon, and takes the cluster off the pages."""
        with self._lock:
            self.over.set()
            self.hub.put(f"cluster/{self.name}", None)
            self.hub.put(f"usage/{self.name}", None)

    def _put(self, topic: str, data: Any) -> None:
        """Tells pages the newest, unless the cluster is gone: an answer to an earlier question may come late."""
        with self._lock:
            if not self.over.is_set():
                self.hub.put(f"{topic}/{self.name}", data)

    def _repeat(self, look: Callable[[], None], wake: threading.Event, period: Callable[[], float]) -> None:
        """Looks once a period, and sooner when woken; not while no page is open."""
        while not self.over.is_set():
            if not self.hub.watched.wait(_PERIOD):
                continue
            begun = time.monotonic()
            wake.clear()
            look()
            took = time.monotonic() - begun
            wake.wait(max(period() - took, took, _PAUSE))
            self.over.wait(_PAUSE)  # several events come together

    def _update(self, **parts: Any) -> None:
        """Tells pages what has changed."""
        with self._lock:
            if self.seen is None or self.over.is_set():
                return
            self.seen = replace(self.seen, **parts)
            self.hub.put(f"cluster/{self.name}", picture(self.seen))

    def _look(self) -> None:
        """What the engine knows: milliseconds."""
        told = self._told
        volumes, containers = self.engine.volumes(self.name), self.engine.containers(self.name)
        observed = observe(self.name, containers, [], volumes)
        spec = observed.spec
        if spec is None:
            foreign = made_by_another(self.name, observed.records)
            why = foreign.what if foreign else "only parts of it are left" if volumes or containers else ""
            if why:
                self._put("cluster", _unreadable(self.name, why))
            return
        target = Target(self.engine, spec) if observed.faults else None
        active = tuple(target.active()) if target else ()
        sandboxes = target.sandboxes() if target and active else {}
        lost = {one.id: gone(one, sandboxes) for one in active}
        with self._lock:
            if self.seen is None:
                self.seen = Seen(spec, observed, asked=spec.members is None)
            before = self.seen.observed.containers
        if {n: c.state for n, c in before.items()} != {n: c.state for n, c in observed.containers.items()}:
            self._ask_members.set()
            self._ask_workload.set()
        with self._lock:
            if told == self._told:
                self._update(spec=spec, observed=observed, faults=active, lost=lost)
            else:  # an event came meanwhile: the answer may be older
                self._changed.set()

    def _look_at_members(self) -> None:
        seen = self.seen
        if seen is None or seen.spec.members is None:
            return
        known: dict[str, Member] = {}
        containers = seen.observed.containers
        found, why = members(self.engine, seen.spec, containers, self.over, seen=known)
        if self.over.is_set():
            return
        running = {name for name, c in containers.items() if c.state == "running"}
        self._before, changes = monitor.compare(self._before, found, why, running)
        self._update(members=found, why=why, known=known, asked=True)
        roles = {node.name: node.role for node in seen.spec.nodes}
        for event, node, detail in changes:
            self.hub.happened(_event(time.time(), self.name, node, roles.get(node, ""), event, detail))
        if changes:
            self._ask_workload.set()

    def _look_at_workload(self) -> None:
        seen = self.seen
        if seen is None or seen.spec.workload is None:
            return
        found, why = workload(self.engine, seen.spec, seen.observed.containers, self.over)
        if not self.over.is_set():
            self._update(workload=found, workload_why=why)

    def _follow_events(self) -> None:
        for event in self.engine.events(self.name, since=self._since, cancel=self.over):
            self._changed.set()
            self._since = event.time + 1e-6  # where the engine is lost and found again: what comes after this one
            self._take(event)
            told = monitor.from_engine(self.name, event)
            if told and (told.node or told.event in _OF_FAULTS) and told.event not in _LEFT_OUT:
                self.hub.happened(_told(told))

    def _take(self, event: EngineEvent) -> None:
        """Takes a node's state from an event; the look that follows confirms it."""
        node, state = event.labels.get(labels.NODE), _STATES.get(event.action)
        if state is None or event.kind != "container" or labels.FAULT in event.labels or event.time < self._begun:
            return
        with self._lock:
            self._told += 1
            container = self.seen.observed.containers.get(node or "") if self.seen else None
            if self.seen and container:
                changed = {container.labels[labels.NODE]: replace(container, state=state, status="")}
                observed = replace(self.seen.observed, containers={**self.seen.observed.containers, **changed})
                self._update(observed=observed)
        self._ask_members.set()
        self._ask_workload.set()

    def _follow_usage(self) -> None:
        while not self.over.is_set():
            if not self.hub.watched.wait(_PERIOD) or self.seen is None:
                self.over.wait(_PAUSE)
                continue
            for used in monitor.usages(self.engine, self.seen.spec, period=_USAGE_PERIOD):
                if self.over.is_set() or not self.hub.watched.is_set():
                    break
                self._put("usage", usage(used))
            self.over.wait(_PERIOD)


class Watch:
    """All clusters of an engine."""

    def __init__(self, engine: Engine, hub: Hub) -> None:
        from minicluster.engine.protocol import Cancel

        self.engine, self.hub = engine, hub
        self.followed: dict[str, Following] = {}
        self._over: Cancel = Cancel()

    def start(self) -> None:
        """Starts to watch, in threads that end with the process or by :meth:`stop`."""
        self.hub.put("engine", {"endpoint": self.engine.endpoint, "error": ""})
        self.thread(self._find, self._over)

    def stop(self) -> None:
        """Ends all threads, soon."""
        self._over.set()
        for following in [*self.followed.values()]:
            following.over.set()

    def period(self) -> float:
        """Seconds between two questions to the same cluster: its hooks cost, and those of all clusters together."""
        return max(_PERIOD, _SHARE * len(self.followed))

    def thread(self, work: Callable[[], None], over: Cancel) -> None:
        """Runs an endless loop in a thread; an error is told, and the loop begins again."""

        def run() -> None:
            while not over.is_set():
                try:
                    work()
                except (MiniclusterError, TimeoutError):
                    pass
                except Exception:  # a bug: the page goes on with what is known
                    import logging

                    logging.getLogger("minicluster").debug("the dashboard's %s", work, exc_info=True)
                over.wait(_PERIOD)

        threading.Thread(target=run, daemon=True).start()

    def _find(self) -> None:
        """Follows each cluster that there is."""
        error = ""
        try:
            names = set(discovery.names(self.engine))
        except NoEngine as problem:
            error, names = str(problem), set(self.followed)
        self.hub.put("engine", {"endpoint": self.engine.endpoint, "error": error})
        for name in names - self.followed.keys():
            self.followed[name] = Following(self.engine, name, self.hub, self)
            self.followed[name].start()
        for name in self.followed.keys() - names:
            self.followed.pop(name).stop()


def _unreadable(name: str, why: str) -> dict[str, Any]:
    empty: dict[str, list[Any]] = {part: [] for part in ("quorums", "roles", "nodes", "links", "faults")}
    return {
        "name": name,
        "profile": "",
        "phase": "unreadable",
        "notes": [why],
        "workload": {"rows": [], "why": "", "exists": False},
        **empty,
    }


def _event(when: float, cluster: str, node: str, role: str, event: str, detail: Any) -> dict[str, Any]:
    return {"time": when, "cluster": cluster, "node": node, "role": role, "event": event, "detail": dict(detail)}


def _told(event: ClusterEvent) -> dict[str, Any]:
    return _event(event.time, event.cluster, event.node, event.role, event.event, event.detail)
