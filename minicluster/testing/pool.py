"""The clusters of a test run: created on first use, lent healthy, repaired or recreated, and removed at the end.

:mod:`minicluster.testing.plugin` without pytest. A cluster is either private to one process (and to a scope of its
tests) or shared by all processes of a run: then its name is derived from what it is, so that each of them finds it.
There is a lock for each cluster: an *isolated* user holds it exclusively, others share it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from minicluster import __version__, cluster as facade
from minicluster.cluster import Cluster
from minicluster.engine import discover
from minicluster.errors import Interrupted, MiniclusterError, NoEngine, UsageError
from minicluster.leases import lock
from minicluster.model import labels, published
from minicluster.model.events import Listener, ignore
from minicluster.model.lease import Lease
from minicluster.model.naming import derived_name, value_text
from minicluster.model.spec import Overrides
from minicluster.operations.apply_files import fingerprint
from minicluster.operations.heal import heal_if_any
from minicluster.operations.up import DEFAULT_PROFILE, merged
from minicluster.operations.up_options import UpOptions
from minicluster.plan.observed import lease_of
from minicluster.profile import catalog, folders
from minicluster.testing.stats import PoolStats

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine, Volume
    from minicluster.host.flock import Held
    from minicluster.testing.session import Run

#: Seconds between two renewals of a cluster that is kept for the next run.
_RENEWAL = 60.0

#: Seconds to wait for a cluster while holding another one: their order may be a deadlock.
_DEADLOCK = 120.0


class PooledCluster:
    """A cluster of the pool, to be acquired and released."""

    def __init__(self, pool: Pool, name: str, profile: str | None, asked: Mapping[str, Any], *, shared: bool) -> None:
        self.pool = pool
        self.name = name
        self.shared = shared
        self.cluster: Cluster | None = None
        self.failed = False  #: the test that uses it failed
        self.generation = 0  #: how often it was created or recreated
        self.profile = profile
        self.asked = asked
        self._fresh = False  # just created, and not used yet
        self._held: Held | None = None
        self._exclusive = False
        self._renewed = 0.0  # time.monotonic() of the last renewal

    def acquire(self, *, isolated: bool, timeout: float) -> Cluster:
        """The cluster with every node ready: created if it does not exist, repaired or recreated if it is broken.

        Args:
            isolated: no other test uses it until :meth:`release`, and it is reset if its profile can do that.
                Otherwise it is shared with others, and not reset.
            timeout: seconds to wait for the tests that use it.

        Raises:
            MiniclusterError: it could be neither created nor repaired.
        """
        if self._held:
            assert self.cluster
            if isolated and not self._exclusive:
                raise UsageError(
                    f"this test already shares cluster {self.name}",
                    "It asked for it with isolated=False before.",
                    "Use the same `isolated` throughout a test.",
                )
            return self.cluster
        try:
            self._lock(isolated, timeout)
            while self.shared and self._is_anothers():
                self.release()
                self.cluster, self.name = None, self.pool.next_name(self)
                self.generation += 1
                self._lock(isolated, timeout)
            if not self._is_healthy():
                self._lock(True, timeout)
                if not self._is_healthy():
                    self._repair()
                if not isolated:
                    self._lock(False, timeout)
            if isolated and not self._fresh:
                self._reset()
            self._fresh = False
        except BaseException:
            self.release()
            raise
        assert self.cluster
        return self.cluster

    def _lock(self, exclusive: bool, timeout: float) -> None:
        if self._held and self._exclusive == exclusive:
            return
        self.release()
        others = self.pool.held()
        try:
            # The test that holds this one may wait for another one that this test holds.
            patience = min(timeout, _DEADLOCK) if others else timeout
            self._held = lock.using(self.name, alone=exclusive, timeout=patience)
            self._exclusive = exclusive
        except MiniclusterError as error:
            if others:
                error.why = f"This test holds {', '.join(others)}, too; another test may take both in the other order."
                error.fix = "Ask for both in one fixture, in the same order everywhere, or use isolated=False."
            raise

    def release(self) -> None:
        """Lets other tests use it."""
        if self._held:
            self._held.release()
            self._held = None

    def heal(self) -> tuple[str, ...]:
        """Ends the faults that the test that has it alone left in it; returns what they were."""
        if self.cluster is None or not (self._held and self._exclusive):
            return ()
        with contextlib.suppress(MiniclusterError):  # what is wrong with it is found before the next test
            return heal_if_any(self.pool.engine, self.cluster.spec)
        return ()

    def down(self) -> None:
        """Removes it."""
        self.release()
        cluster, self.cluster = self.cluster, None
        if cluster:
            with self.pool.stats.timed("removed"), contextlib.suppress(UsageError):
                cluster.down()

    def keep_for_debugging(self) -> None:
        """Gives it a lease of its own, so that it outlives the run."""
        cluster, self.cluster = self.cluster, None
        try:
            if cluster:
                cluster.renew(Lease.lasting(self.pool.run.ttl))
        finally:
            self.release()

    def _is_anothers(self) -> bool:
        """It is not of this run: made at a terminal under that name, or kept for debugging by another process."""
        seen = self.cluster is not None
        if seen and (not self.pool.run.keep or self.pool.run.reuse):
            return False
        volumes = self.pool.engine.volumes(self.name)
        lease = lease_of(volumes)
        if not volumes or self.pool.run.reuse:
            return bool(volumes) and lease is None
        return lease is None or (self.pool.run.keep and lease.owner != self.pool.run.owner)

    def _is_healthy(self) -> bool:
        """Whether it exists, is as it was asked for, and every node is ready."""
        if self._fresh:
            return True
        with self.pool.stats.timed("checked"):
            try:
                mode = self.asked.get("address_mode")
                cluster = Cluster.open(self.name, engine=self.pool.engine, address_mode=mode)
                wanted = merged(Overrides(), UpOptions(**self.asked).overrides)
                if cluster.spec.overrides != wanted:
                    return False
                with ThreadPoolExecutor(1) as meanwhile:
                    renewed = meanwhile.submit(self._renew, cluster)
                    ready = cluster.status(memory=False).phase == "ready"
                    renewed.result()
                if not ready:
                    return False
                if self.cluster is None:  # another process or an earlier run created it, for itself
                    cluster.connect()
                    cluster.write_client_files()
            except (UsageError, NoEngine):
                return False
            self._adopt(cluster)
            return True

    def _renew(self, cluster: Cluster) -> None:
        """Extends the lease of a cluster that is kept for the next run: it counts from the last use."""
        if self.pool.run.reuse and self.shared and time.monotonic() - self._renewed > _RENEWAL:
            cluster.renew(self.pool.run.lease(shared=True))
            self._renewed = time.monotonic()

    def _adopt(self, cluster: Cluster) -> None:
        """Updates the object that tests hold, instead of replacing it."""
        if self.cluster is None:
            self.cluster = cluster
        else:
            vars(self.cluster).update(vars(cluster))

    def _repair(self) -> None:
        """Creates it, or what is missing of it; recreates it if it cannot be repaired."""
        if not _exists(self.pool.engine, self.name):
            self._up("created")
            return
        try:
            self._up("repaired")
            if self._is_healthy():
                return
        except (Interrupted, NoEngine):
            raise
        except MiniclusterError:
            pass  # it is recreated
        self._recreate()

    def _recreate(self) -> None:
        with contextlib.suppress(UsageError):  # nothing is left of it
            facade.down([self.name], engine=self.pool.engine)
        self._up("recreated")

    def _up(self, operation: str) -> None:
        with self.pool.stats.timed(operation):
            cluster = Cluster.up(
                self.profile,
                name=self.name,
                lease=self.pool.run.lease(shared=self.shared),
                listener=self.pool.listener,
                engine=self.pool.engine,
                **self.asked,
            )
            cluster.connect()
        self._adopt(cluster)
        self._fresh = operation != "repaired"
        self.generation += self._fresh

    def _reset(self) -> None:
        assert self.cluster
        if not self.cluster.spec.reset:
            return
        try:
            with self.pool.stats.timed("reset"):
                self.cluster.reset()
                self.cluster.apply(*self.asked.get("apply", ()))  # a reset removes that, too
        except (Interrupted, NoEngine):
            raise
        except MiniclusterError:
            self._recreate()


class Pool:
    """The clusters that this process created or found for its tests."""

    def __init__(self, run: Run, listener: Listener = ignore) -> None:
        self.run = run
        self.listener = listener
        self.stats = PoolStats()
        self._engine: Engine | None = None
        self._clusters: dict[tuple[Any, ...], PooledCluster] = {}
        self._kept: Counter[tuple[Any, ...]] = Counter()

    @property
    def engine(self) -> Engine:
        """The engine to use; a private one is started if none runs."""
        if self._engine is None:
            self._engine = discover.connect(start_private=True, listener=self.listener)
        return self._engine

    @property
    def used(self) -> bool:
        """Whether a cluster was asked for."""
        return self._engine is not None

    def get(
        self, profile: str | None, asked: Mapping[str, Any], *, place: str, label: str = "", base: str = ""
    ) -> PooledCluster:
        """The cluster for these arguments: the same object for the same arguments.

        Args:
            profile: its name or folder.
            asked: further arguments of :meth:`Cluster.up`.
            place: the scope to which it is private, as a text; "" if all processes of the run share it.
            label: distinguishes clusters whose other arguments are equal.
            base: how the cluster's name begins; by default with the profile's.
        """
        asked = _plain(asked)
        key = (profile, json.dumps(asked, sort_keys=True, default=str), place, label, base)
        if key not in self._clusters:
            self._clusters[key] = PooledCluster(self, self._name(profile, key), profile, asked, shared=not place)
        return self._clusters[key]

    def has(self, pooled: PooledCluster) -> bool:
        """Whether it still belongs to the pool."""
        return any(one is pooled for one in self._clusters.values())

    def held(self) -> list[str]:
        """Names of the clusters that this process has acquired."""
        return sorted(one.name for one in self._clusters.values() if one._held)

    def keep_for_debugging(self, pooled: PooledCluster) -> None:
        """Keeps a cluster beyond the run; the next test that asks for its like gets a new one."""
        pooled.keep_for_debugging()
        key = self._key(pooled)
        self._kept[key] += 1
        del self._clusters[key]

    def next_name(self, pooled: PooledCluster) -> str:
        """The next name for a cluster that another process has kept for debugging."""
        key = self._key(pooled)
        self._kept[key] += 1
        return self._name(pooled.profile, key)

    def _key(self, pooled: PooledCluster) -> tuple[Any, ...]:
        return next(key for key, one in self._clusters.items() if one is pooled)

    def end(self, over: Callable[[str], bool]) -> None:
        """Removes the private clusters of scopes that are over, concurrently."""
        ended = [key for key, one in self._clusters.items() if not one.shared and over(key[2])]
        ending = [self._clusters.pop(key) for key in ended]
        if ending:
            with ThreadPoolExecutor(len(ending)) as pool:
                for done in [pool.submit(one.down) for one in ending]:
                    done.result()

    def leave(self) -> list[str]:
        """The end of a process that does not own the run: removes its private clusters, and returns what went wrong."""
        try:
            self.end(lambda _place: True)
        except MiniclusterError as error:
            return [error.what]
        finally:
            for one in self._clusters.values():
                one.release()
        return []

    def finish(self) -> list[str]:
        """The end of the run, in the process that owns it: removes every cluster of the run.

        Returns what went wrong, a phrase each. The lease's reaper tries again.
        """
        problems: list[str] = []

        def remove(name: str) -> None:
            try:
                with self.stats.timed("removed"):
                    facade.down([name], engine=engine)
            except UsageError:
                pass  # it does not exist any more
            except MiniclusterError as error:
                problems.append(f"{name} could not be removed: {error.what}")

        try:
            engine = self._engine or discover.connect()
            self.end(lambda _place: True)
            of: defaultdict[str, list[Volume]] = defaultdict(list)
            for volume in engine.volumes():
                of[volume.labels[labels.CLUSTER]].append(volume)
            leases = {name: lease_of(volumes) for name, volumes in of.items()}
            mine = sorted(name for name, lease in leases.items() if lease and lease.owner == self.run.owner)
            if mine:
                with ThreadPoolExecutor(len(mine)) as pool:
                    list(pool.map(remove, mine))
        except MiniclusterError as error:
            problems.append(error.what)
        finally:
            for one in self._clusters.values():
                one.release()
            self._clusters.clear()
        return problems

    def _name(self, profile: str | None, key: tuple[Any, ...]) -> str:
        """Derived from what the cluster is, so that other processes find it; random for a private one."""
        _profile, options, place, label, base = key
        profile = profile or DEFAULT_PROFILE
        folder, _bundled = folders.locate(profile)
        base = derived_name(base or folder.name, 20)
        if place:
            return f"{base}-{secrets.token_hex(4)}"
        run = "" if self.run.reuse else self.run.id
        owner = [lock.place(), str(folder), run]  # processes that share a cluster must share its locks
        applied = fingerprint(json.loads(options).get("apply", ()))
        about = [__version__, catalog.fingerprint(profile), options, label, self._kept[key], applied, *owner]
        return f"{base}-{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:8]}"


def _plain(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of :meth:`Cluster.up`, with the values of settings as strings, as on the command line."""
    for name in ("name", "lease", "engine", "listener", "keep", "project"):
        if name in asked:
            raise UsageError(
                f"minicluster() takes no {name}: the plugin sets it",
                "",
                "Use label= to distinguish clusters whose other arguments are equal.",
            )
    plain = {name: value for name, value in asked.items() if value is not None}
    # As specs have them, so that a cluster is found to be as it was asked for.
    if "port" in plain:
        plain["port"] = {published.port_name(key): port for key, port in plain["port"].items()}
    if "mounts" in plain:
        plain["mounts"] = [str(published.mount(word)) for word in plain["mounts"]]
    if "set" in plain:
        plain["set"] = {path: value_text(value) for path, value in plain["set"].items()}
    return plain


def _exists(engine: Engine, name: str) -> bool:
    return bool(engine.volumes(name) or engine.containers(name))
