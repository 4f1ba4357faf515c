"""Garbage collection: every command that creates or lists clusters removes those whose lease has ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from minicluster.engine import discover
from minicluster.errors import Interrupted, MiniclusterError, NoEngine
from minicluster.leases import lock
from minicluster.model import labels
from minicluster.model.events import Event, Listener, ignore
from minicluster.model.results import Collected
from minicluster.operations import host_record
from minicluster.operations.down import remove_all_reached
from minicluster.operations.observe import by_cluster, everything, look
from minicluster.plan.observed import lease_of

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine, Volume
    from minicluster.operations.observe import Labelled


def is_whole(engine: Engine, name: str, its: Sequence[Labelled]) -> bool:
    """Whether an engine has all hosts of a cluster, by what carries its name: its records have the hosts' names."""
    records = [one for one in its if labels.REVISION in one.labels] or its[:1]
    hosts = {host for one in records for host in one.labels.get(labels.HOSTS, "").split(",") if host}
    if hosts and engine.hosts and host_record.read(name):  # this machine's: a host without a context is given up
        hosts = {*discover.known_hosts(hosts)}
    return hosts <= {*engine.hosts, *engine.gone}


def ended(engine: Engine, things: Iterable[Labelled]) -> dict[str, tuple[str, str]]:
    """The clusters whose lease has ended, by what carries their names: name -> profile, and why it ended.

    One that has hosts beyond those of the engine is left alone: only a part of it could be removed.
    """
    found = {}
    for name, its in by_cluster(things).items():
        if not is_whole(engine, name, its):
            continue
        lease = lease_of(its)
        if lease and (why := lease.over()):
            found[name] = (its[0].labels.get(labels.PROFILE, ""), why)
    return found


def collect(engine: Engine, *, dry_run: bool = False, listener: Listener = ignore) -> list[Collected]:
    """Removes every cluster whose lease has ended, incomplete ones included, and reports the outcome of each.

    Args:
        dry_run: remove nothing.
    """
    done = []
    for name, (profile, why) in ended(engine, everything(engine)).items():
        removed, error = (False, "") if dry_run else _try(engine, name, listener)
        done.append(Collected(name, profile, why, removed, error))
    return done


def sweep(engine: Engine, listener: Listener) -> list[Volume]:
    """Collects on behalf of a command with another purpose: cheap where there is nothing to remove, never an error.

    Every cluster has a record, which is created first and removed last, so listing volumes is enough. Returns those
    that there are then.
    """
    volumes = engine.volumes()
    over = ended(engine, volumes)
    for name, (_profile, why) in over.items():
        removed, error = _try(engine, name, ignore)
        if removed:
            listener(Event("note", text=f"Removed cluster {name}: {why}."))
        elif error:
            listener(Event("note", text=f"Cluster {name} could not be removed ({why}): {error}"))
    return engine.volumes() if over else volumes


def _try(engine: Engine, name: str, listener: Listener) -> tuple[bool, str]:
    """Whether it was removed, and why not."""
    try:
        return remove_ended(engine, name, listener), ""
    except (NoEngine, Interrupted):
        raise
    except MiniclusterError as error:
        return False, error.what


def remove_ended(engine: Engine, name: str, listener: Listener) -> bool:
    """Removes a cluster whose lease has ended; False where the lease was renewed, or the cluster no longer exists.

    Raises:
        MiniclusterError: a test is using it, another process is changing it, or a host of it does not answer.
    """
    with lock.changing(name):
        lease = look(engine, name).lease
        if not lease or not lease.over():
            return False
        with lock.using(name, alone=True, timeout=0):
            remove_all_reached(engine, name, listener)
    return True
