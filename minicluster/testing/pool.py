"""The clusters of a test run: made when first asked for, handed out whole, mended or replaced, and taken down.

What :mod:`minicluster.testing.plugin` is made of, without pytest. A cluster is either private to one process (and to a
scope of its tests) or shared by all processes of a run: then its name says what it is, so that each of them finds it.
A lock per cluster decides who works with it: an *isolated* user has it alone, others share it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from minicluster import __version__
from minicluster import cluster as facade
from minicluster.cluster import Cluster
from minicluster.engine.protocol import Engine, Volume
from minicluster.errors import Interrupted, MiniclusterError, NoEngine, UsageError
from minicluster.host.flock import Held
from minicluster.leases import lock
from minicluster.model import labels
from minicluster.model.events import Listener, ignore
from minicluster.model.lease import Lease
from minicluster.model.naming import value_text
from minicluster.operations.up import DEFAULT_PROFILE
from minicluster.plan.observed import lease_of
from minicluster.profile import catalog
from minicluster.testing.session import Run

#: Of a node's log what a report shows, in lines.
LOG_LINES = 60


#: Seconds between two renewals of what is kept for the next run.
_RENEWAL = 60.0

#: Seconds to wait for a cluster where another one is held meanwhile.
_CROSSED = 120.0

_WHAT = ("made", "mended", "replaced", "checked", "reset", "taken down")


@dataclass
class PoolStats:
    """What the clusters of a run took: counts and seconds by what was done."""

    counts: Counter[str] = field(default_factory=Counter)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextlib.contextmanager
    def on(self, what: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self.counts[what] += 1
            self.seconds[what] += time.monotonic() - begun

    def add(self, other: Mapping[str, Mapping[str, float]]) -> None:
        """Adds what another process spent, as :meth:`dump` gave it."""
        self.counts.update({what: int(n) for what, n in other["counts"].items()})
        for what, n in other["seconds"].items():
            self.seconds[what] += n

    def dump(self) -> dict[str, dict[str, float]]:
        """As plain data."""
        return {"counts": dict(self.counts), "seconds": dict(self.seconds)}

    def __str__(self) -> str:
        """ "3.5 s on clusters: 2 made in 3.1 s, 5 reset in 0.4 s"; empty where nothing was done."""
        parts = [f"{self.counts[what]} {what} in {self.seconds[what]:.1f} s" for what in _WHAT if self.counts[what]]
        return f"{sum(self.seconds.values()):.1f} s on clusters: {', '.join(parts)}" if parts else ""


class PooledCluster:
    """A cluster of the pool."""

    def __init__(self, pool: Pool, name: str, profile: str | None, asked: Mapping[str, Any], *, shared: bool) -> None:
        self.pool = pool
        self.name = name
        self.shared = shared
        self.cluster: Cluster | None = None
        self.failed = False  #: the test that uses it did
        self.generation = 0  #: counts how often it was made from nothing
        self.profile = profile
        self.asked = asked
        self._fresh = False  # made just now, and given to nobody yet
        self._held: Held | None = None
        self._alone = False
        self._renewed = 0.0  # when, on the monotonic clock

    def take(self, *, isolated: bool, timeout: float) -> Cluster:
        """The cluster, whole: made where there is none, mended or made anew where it is broken.

        Args:
            isolated: nobody else works with it until it is given :meth:`back`, and where the profile can reset it, it
                is as new. Otherwise it is shared with others, and left as they left it.
            timeout: seconds to wait for those who work with it.

        Raises:
            MiniclusterError: it could be neither made nor mended.
        """
        if self._held:
            assert self.cluster
            if isolated and not self._alone:
                raise UsageError(
                    f"cluster {self.name} is shared with others in this test already",
                    "It was asked for with isolated=False before.",
                    "Ask for it with the same `isolated` throughout a test.",
                )
            return self.cluster
        try:
            self._lock(isolated, timeout)
            while self.shared and self._was_kept():
                self.back()
                self.cluster, self.name = None, self.pool.another_name(self)
                self.generation += 1
                self._lock(isolated, timeout)
            if not self._whole():
                self._lock(True, timeout)
                if not self._whole():
                    self._mend()
                if not isolated:
                    self._lock(False, timeout)
            if isolated and not self._fresh:
                self._reset()
            self._fresh = False
        except BaseException:
            self.back()
            raise
        assert self.cluster
        return self.cluster

    def _lock(self, alone: bool, timeout: float) -> None:
        if self._held and self._alone == alone:
            return
        self.back()
        others = self.pool.held()
        try:
            # Who has another one at the same time may be what that other's next user waits for.
            patience = min(timeout, _CROSSED) if others else timeout
            self._held, self._alone = lock.using(self.name, alone=alone, timeout=patience), alone
        except MiniclusterError as error:
            if others:
                error.why = f"This test has {', '.join(others)} as well; another may have asked for both the other way."
                error.fix = "Ask for both in one fixture, in the same order everywhere, or with isolated=False."
            raise

    def back(self) -> None:
        """Lets others work with it."""
        if self._held:
            self._held.release()
            self._held = None

    def down(self) -> None:
        """Takes it down."""
        self.back()
        cluster, self.cluster = self.cluster, None
        if cluster:
            with self.pool.spent.on("taken down"), contextlib.suppress(UsageError):
                cluster.down()

    def keep(self) -> None:
        """Leaves it there, to be looked at."""
        cluster, self.cluster = self.cluster, None
        try:
            if cluster:
                cluster.renew(Lease.lasting(self.pool.run.ttl))
        finally:
            self.back()

    def _was_kept(self) -> bool:
        """Another process of this run kept it for somebody to look at."""
        if not self.pool.run.keep or self.pool.run.reuse:
            return False
        volumes = self.pool.engine.volumes(self.name)
        lease = lease_of(volumes)
        return bool(volumes) and (lease is None or lease.owner != self.pool.run.owner)

    def _whole(self) -> bool:
        """It is there, as it was asked for, and every node of it serves."""
        if self._fresh:
            return True
        with self.pool.spent.on("checked"):
            try:
                mode = self.asked.get("address_mode")
                cluster = Cluster.open(self.name, engine=self.pool.engine, address_mode=mode)
                same = all(dict(getattr(cluster.spec.overrides, key)) == self.asked.get(key, {}) for key in _OVERRIDES)
                if not same:
                    return False
                with ThreadPoolExecutor(1) as meanwhile:
                    renewed = meanwhile.submit(self._renew, cluster)
                    ready = cluster.status(memory=False).phase == "ready"
                    renewed.result()
                if not ready:
                    return False
                if self.cluster is None:  # another process or an earlier run made it, for itself
                    cluster.connect()
                    cluster.write_client_files()
            except (UsageError, NoEngine):
                return False
            self._adopt(cluster)
            return True

    def _renew(self, cluster: Cluster) -> None:
        """What is kept for the next run is kept for so long from its last use on."""
        if self.pool.run.reuse and self.shared and time.monotonic() - self._renewed > _RENEWAL:
            cluster.renew(self.pool.run.lease(shared=True))
            self._renewed = time.monotonic()

    def _adopt(self, cluster: Cluster) -> None:
        """What was handed out stays the same object: tests have kept it."""
        if self.cluster is None:
            self.cluster = cluster
        else:
            vars(self.cluster).update(vars(cluster))

    def _mend(self) -> None:
        """Makes it, or what is missing of it; where it cannot be mended, another in its place."""
        there = _there(self.pool.engine, self.name)
        if not there:
            self._make("made")
            return
        try:
            self._make("mended")
            if self._whole():
                return
        except (Interrupted, NoEngine):
            raise
        except MiniclusterError:
            pass  # whatever a test did to it: another one will do
        self._replace()

    def _replace(self) -> None:
        with contextlib.suppress(UsageError):  # there is nothing left of it
            facade.down([self.name], engine=self.pool.engine)
        self._make("replaced")

    def _make(self, what: str) -> None:
        with self.pool.spent.on(what):
            made = Cluster.up(
                self.profile,
                name=self.name,
                lease=self.pool.run.lease(shared=self.shared),
                listener=self.pool.listener,
                engine=self.pool.engine,
                **self.asked,
            )
        made.connect()
        self._adopt(made)
        self._fresh = what != "mended"
        self.generation += self._fresh

    def _reset(self) -> None:
        assert self.cluster
        if not self.cluster.spec.reset:
            return
        try:
            with self.pool.spent.on("reset"):
                self.cluster.reset()
        except (Interrupted, NoEngine):
            raise
        except MiniclusterError:
            self._replace()


_OVERRIDES = ("size", "set", "image", "port")


class Pool:
    """All clusters that this process made or found for its tests."""

    def __init__(self, run: Run, listener: Listener = ignore) -> None:
        self.run = run
        self.listener = listener
        self.spent = PoolStats()
        self._engine: Engine | None = None
        self._clusters: dict[tuple[Any, ...], PooledCluster] = {}
        self._retired: Counter[tuple[Any, ...]] = Counter()

    @property
    def engine(self) -> Engine:
        """The engine to use; a private one is started where there is none."""
        if self._engine is None:
            self._engine = facade.connect(start_private=True, listener=self.listener)
        return self._engine

    @property
    def used(self) -> bool:
        """A cluster was asked for."""
        return self._engine is not None

    def get(self, profile: str | None, asked: Mapping[str, Any], *, place: str, label: str = "") -> PooledCluster:
        """The cluster of a kind in a place: the same whenever the same is asked for.

        Args:
            profile: its name or folder.
            asked: what :meth:`Cluster.up` takes besides.
            place: whose it is: "" for one that all processes of the run share, else a text that names a scope.
            label: tells one from another of the same kind.
        """
        asked = _plain(asked)
        key = (profile, json.dumps(asked, sort_keys=True, default=str), place, label)
        if key not in self._clusters:
            self._clusters[key] = PooledCluster(self, self._name(profile, key), profile, asked, shared=not place)
        return self._clusters[key]

    def has(self, lent: PooledCluster) -> bool:
        """It is still one of the pool's."""
        return any(one is lent for one in self._clusters.values())

    def held(self) -> list[str]:
        """Names of those that are worked with now."""
        return sorted(one.name for one in self._clusters.values() if one._held)

    def retire(self, lent: PooledCluster) -> None:
        """Keeps one for somebody to look at; who asks for its like gets another."""
        lent.keep()
        key = self._key(lent)
        self._retired[key] += 1
        del self._clusters[key]

    def another_name(self, lent: PooledCluster) -> str:
        """A name for one whose like was retired by another process."""
        key = self._key(lent)
        self._retired[key] += 1
        return self._name(lent.profile, key)

    def _key(self, lent: PooledCluster) -> tuple[Any, ...]:
        return next(key for key, one in self._clusters.items() if one is lent)

    def end(self, over: Callable[[str], bool]) -> None:
        """Takes down what is private and in a place that is over, all at once."""
        gone = [key for key, one in self._clusters.items() if not one.shared and over(key[2])]
        ending = [self._clusters.pop(key) for key in gone]
        if ending:
            with ThreadPoolExecutor(len(ending)) as pool:
                for done in [pool.submit(one.down) for one in ending]:
                    done.result()

    def leave(self) -> list[str]:
        """The end of a process that does not own the run: takes down what it had for itself; tells what went wrong."""
        try:
            self.end(lambda _place: True)
        except MiniclusterError as error:
            return [error.what]
        finally:
            for one in self._clusters.values():
                one.back()
        return []

    def finish(self) -> list[str]:
        """The end of the run, in the process that owns it: takes down everything that belongs to that.

        Returns what went wrong, a phrase each. The watcher tries again.
        """
        problems: list[str] = []

        def take_down(name: str) -> None:
            try:
                with self.spent.on("taken down"):
                    facade.down([name], engine=engine)
            except UsageError:
                pass  # it is gone
            except MiniclusterError as error:
                problems.append(f"{name} could not be taken down: {error.what}")

        try:
            engine = self._engine or facade.connect()
            self.end(lambda _place: True)
            of: defaultdict[str, list[Volume]] = defaultdict(list)
            for volume in engine.volumes():
                of[volume.labels[labels.CLUSTER]].append(volume)
            leases = {name: lease_of(volumes) for name, volumes in of.items()}
            mine = sorted(name for name, lease in leases.items() if lease and lease.owner == self.run.owner)
            if mine:
                with ThreadPoolExecutor(len(mine)) as pool:
                    list(pool.map(take_down, mine))
        except MiniclusterError as error:
            problems.append(error.what)
        finally:
            for one in self._clusters.values():
                one.back()
            self._clusters.clear()
        return problems

    def _name(self, profile: str | None, key: tuple[Any, ...]) -> str:
        """A name by what the cluster is, so that others find it; a random one for what is private."""
        _profile, options, place, label = key
        profile = profile or DEFAULT_PROFILE
        folder, _bundled = catalog.locate(profile)
        base = re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-")[:20]
        if not base[:1].isalpha():
            base = f"c{base}"
        if place:
            return f"{base}-{secrets.token_hex(4)}"
        run = "" if self.run.reuse else self.run.id
        whose = [lock.place(), str(folder), run]  # who shares a cluster has to share its locks
        about = [__version__, catalog.fingerprint(profile), options, label, self._retired[key], *whose]
        return f"{base}-{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:8]}"


def _plain(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What :meth:`Cluster.up` takes, with values of settings as the words that the command line would have."""

    for name in ("name", "lease", "engine", "listener", "keep"):
        if name in asked:
            raise UsageError(
                f"minicluster(…, {name}=…): clusters of tests have that from the plugin",
                "",
                "`label=` tells one from another of the same kind.",
            )
    plain = {name: value for name, value in asked.items() if value is not None}
    if "set" in plain:
        plain["set"] = {path: value_text(value) for path, value in plain["set"].items()}
    return plain


def _there(engine: Engine, name: str) -> bool:
    return bool(engine.volumes(name) or engine.containers(name))


def describe(cluster: Cluster) -> dict[str, str]:
    """What somebody wants to know whose test failed: title -> text. Never an error: what cannot be had is said."""
    parts: dict[str, Callable[[], str]] = {
        "status": lambda: _status(cluster),
        "plan": lambda: _plan(cluster),
        **{f"log of {name}": lambda name=name: _log(cluster, name) for name in cluster.node_names()},  # type: ignore[misc]
    }

    def text(make: Callable[[], str]) -> str:
        try:
            return make()
        except Exception as error:  # an engine that dies in the middle of it must not end the run
            return f"({error})"

    with ThreadPoolExecutor(len(parts)) as pool:
        made = {title: pool.submit(text, make) for title, make in parts.items()}
        return {title: one.result() for title, one in made.items()}


def _status(cluster: Cluster) -> str:
    status = cluster.status()
    width = max(len(node.name) for node in status.nodes)
    lines = [f"{cluster.name} ({status.profile}): {status.phase}"]
    for node in status.nodes:
        leads = ", leader" if node.leader else ""
        lines.append(f"  {node.name:{width}}  {node.address:15}  {node.phase}, {node.probe}{leads}")
    return "\n".join([*lines, *(f"  {note}" for note in status.notes)])


def _plan(cluster: Cluster) -> str:
    steps = cluster.plan().steps
    number = {step.id: i for i, step in enumerate(steps, 1)}
    return "\n".join(
        f"{i:3}. {step.id}: {step.cause}{_after([number[n] for n in step.needs])}" for i, step in enumerate(steps, 1)
    )


def _after(numbers: list[int]) -> str:
    return f" (after {', '.join(map(str, numbers))})" if numbers else ""


def _log(cluster: Cluster, name: str) -> str:
    return "\n".join(line.rstrip("\n") for _name, line in cluster.logs(name, tail=LOG_LINES)) or "(empty)"
