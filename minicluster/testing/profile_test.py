"""``profile test``: creates a cluster of a profile, does with it what users do, and gives a verdict on each."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minicluster import cluster as facade
from minicluster.cluster import Cluster
from minicluster.errors import Interrupted, MiniclusterError, NoEngine
from minicluster.executor.signals import shielded
from minicluster.model.durations import DEFAULT_TIMEOUT
from minicluster.model.events import Listener, ignore
from minicluster.model.lease import Lease
from minicluster.model.naming import count as counted, derived_name
from minicluster.operations import chaos
from minicluster.profile import catalog, folders

if TYPE_CHECKING:
    from minicluster.model.results import ClusterStatus
    from minicluster.profile.loaded import Loaded
    from minicluster.profile.schema import Role

_PATIENCE = 10.0  # seconds that members have to agree on a leader after a change


@dataclass(frozen=True)
class Verdict:
    """The result of one check."""

    check: str
    verdict: str  #: "ok", "failed" or "skipped"
    seconds: float
    reason: str = ""  #: why it failed, or was skipped


class _Skipped(Exception):
    """A check does not apply; says why."""


class _Trial:
    """The cluster that is tested, and the results of the previous checks."""

    def __init__(self, source: str, timeout: float, listener: Listener) -> None:
        self.source = source
        self.name = ""
        self.timeout = timeout
        self.listener = listener
        self.verdicts: dict[str, Verdict] = {}
        self._loaded: Loaded | None = None
        self._cluster: Cluster | None = None
        self.begun = False  #: something of the cluster may exist
        self._sizes: dict[str, int] = {}  # of the roles that grow, before they do

    @property
    def loaded(self) -> Loaded:
        if self._loaded is None:
            raise _Skipped("the profile is not valid")
        return self._loaded

    @property
    def cluster(self) -> Cluster:
        if self._cluster is None:
            raise _Skipped("the cluster is not up")
        return self._cluster

    # The checks

    def validate(self) -> None:
        """Every key, reference and template."""
        self._loaded = catalog.validate(self.source)
        self.name = f"{derived_name(self._loaded.profile.name, 18)}-test-{secrets.token_hex(3)}"

    def up(self) -> None:
        """The cluster is up, and is removed with this process however it ends."""
        folder = str(self.loaded.directory)
        self.begun = True
        self._cluster = Cluster.up(
            folder, name=self.name, lease=Lease.owned(), timeout=self.timeout, listener=self.listener
        )
        self.ready()

    def members(self) -> None:
        """Its own software counts every node, and no other."""
        cluster = self.cluster
        if cluster.spec.members is None:
            raise _Skipped("the profile has no members hook")
        self.ready()

    def env(self) -> None:
        """The variables for the user's client have values."""
        if not self.loaded.profile.env:
            raise _Skipped("the profile has no env")
        self.cluster.env()

    def write(self) -> None:
        """A write is acknowledged, as `chaos` counts on."""
        cluster = self.cluster
        if cluster.spec.write is None:
            raise _Skipped("the profile has no write hook")
        chaos.check_write(cluster.engine, cluster.spec)

    def scale_up(self) -> None:
        """Each role gets more nodes, as far as it may."""
        cluster = self.cluster
        more = {}
        for name, role in self.loaded.profile.roles.items():
            count = len(cluster.spec.of_role(name))
            if next_count := larger(role, count):
                more[name], self._sizes[name] = next_count, count
        if not more:
            raise _Skipped("no role can have more nodes")
        self._scale(more)

    def scale_down(self) -> None:
        """The added nodes are removed."""
        verdict = self.verdicts.get("scale up")
        if verdict is None or verdict.verdict != "ok":
            raise _Skipped(f"scale up {verdict.verdict}" if verdict else "scale up did not run")
        self._scale(self._sizes)

    def _scale(self, sizes: Mapping[str, int]) -> None:
        self.cluster.scale(sizes, timeout=self.timeout, listener=self.listener)
        for name, count in sizes.items():
            found = len(self.cluster.spec.of_role(name))
            if found != count:
                raise MiniclusterError(f"role {name} has {counted(found, 'node')} instead of {count}")
        self.ready()

    def rolling_restart(self) -> None:
        """One node after the other restarts, and no quorum is lost."""
        for role, quorum in self.cluster.status(memory=False).quorums.items():
            if quorum.voters > 1 and not quorum.survives:
                raise _Skipped(f"{quorum.voters} voters of role {role}: the quorum tolerates no failure")
        self.cluster.restart(rolling=True, timeout=self.timeout, listener=self.listener)
        self.ready()

    def stop(self) -> None:
        """Every node stops."""
        self.cluster.stop(listener=self.listener)
        running = [node.name for node in self.cluster.status(memory=False).nodes if node.phase != "exited"]
        if running:
            raise MiniclusterError(f"not stopped: {', '.join(running)}")

    def start(self) -> None:
        """Every node starts, and they are one cluster again."""
        self.cluster.start(timeout=self.timeout, listener=self.listener)
        self.ready()

    def reset(self) -> None:
        """What users put into it is removed; all nodes stay."""
        if not self.loaded.profile.hooks.reset:
            raise _Skipped("the profile has no reset hook")
        self.cluster.reset(timeout=self.timeout, listener=self.listener)
        self.ready()

    def down(self) -> None:
        """Nothing is left."""
        self.cluster.down(listener=self.listener)
        engine, self._cluster = self.cluster.engine, None
        left = [thing.name for thing in engine.containers(self.name)]
        left += [thing.name for thing in engine.networks(self.name)]
        left += [thing.name for thing in engine.volumes(self.name)]
        if left:
            raise MiniclusterError(f"left behind: {', '.join(left)}")
        self.begun = False

    # What they have in common

    def ready(self) -> None:
        """Waits until the cluster is ready by its own account. Raises if it is not within some seconds."""
        end = time.monotonic() + _PATIENCE
        while problem := _problem(self.cluster.status(memory=False)):
            if time.monotonic() > end:
                raise MiniclusterError(problem)
            time.sleep(0.2)

    def clean(self) -> None:
        """Removes what is left of the cluster, if anything is."""
        with shielded(), contextlib.suppress(MiniclusterError):
            facade.down([self.name])


def _problem(status: ClusterStatus) -> str:
    """Why a cluster is not ready; "" if it is."""
    unready = [f"{node.name}: {node.probe}" for node in status.nodes if not node.ready]
    if status.phase != "ready" or unready or status.notes:
        return f"the cluster is {status.phase}: {'; '.join([*unready, *status.notes])}"
    return ""


def larger(role: Role, count: int) -> int:
    """The next number of nodes that a role may have; 0 if there is none."""
    if role.immutable:
        return 0
    return min((n for n in role.allowed or range(role.min, role.max + 1) if n > count), default=0)


#: In the order in which they are carried out.
CHECKS: dict[str, Callable[[_Trial], None]] = {
    "validate": _Trial.validate,
    "up": _Trial.up,
    "members": _Trial.members,
    "env": _Trial.env,
    "write": _Trial.write,
    "scale up": _Trial.scale_up,
    "scale down": _Trial.scale_down,
    "rolling restart": _Trial.rolling_restart,
    "stop": _Trial.stop,
    "start": _Trial.start,
    "reset": _Trial.reset,
    "down": _Trial.down,
}


def check_profile(
    source: str,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    listener: Listener = ignore,
    ended: Callable[[Verdict], None] = lambda _verdict: None,
) -> tuple[Verdict, ...]:
    """Checks a profile with a cluster of its own. Nothing of the cluster stays, also when it is interrupted.

    Args:
        source: the profile's name or folder.
        timeout: seconds that nodes have to get ready in each check.
        listener: receives the cluster's events.
        ended: receives the verdict of each check.

    Raises:
        UsageError: there is no such profile.
        NoEngine: there is no engine to test it with.
        Interrupted, KeyboardInterrupt: Ctrl-C.
    """
    folders.locate(source)
    trial = _Trial(source, timeout, listener)
    try:
        for name, check in CHECKS.items():
            verdict = _verdict(name, check, trial)
            trial.verdicts[name] = verdict
            ended(verdict)
    finally:
        if trial.begun:
            trial.clean()
    return tuple(trial.verdicts.values())


def _verdict(name: str, check: Callable[[_Trial], None], trial: _Trial) -> Verdict:
    start = time.monotonic()
    try:
        check(trial)
    except _Skipped as reason:
        return Verdict(name, "skipped", 0.0, str(reason))
    except (Interrupted, NoEngine):
        raise
    except MiniclusterError as error:
        return Verdict(name, "failed", time.monotonic() - start, str(error))
    return Verdict(name, "ok", time.monotonic() - start)
