"""Garbage collection: clusters whose lease is over are removed by whoever comes next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from minicluster.errors import Interrupted, MiniclusterError, NoEngine
from minicluster.model import labels
from minicluster.model.events import Event, Listener, ignore
from minicluster.model.results import Collected
from minicluster.operations import up
from minicluster.plan.observed import lease_of

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine


def over(things: Iterable[Any]) -> dict[str, tuple[str, str]]:
    """Of clusters, by what carries their names, those that nobody wants any more: profile, and why."""
    grouped: dict[str, list[Any]] = defaultdict(list)
    for thing in things:
        grouped[thing.labels[labels.CLUSTER]].append(thing)
    found = {}
    for name, its in sorted(grouped.items()):
        lease = lease_of(its)
        if lease and (why := lease.over()):
            found[name] = (its[0].labels.get(labels.PROFILE, ""), why)
    return found


def collect(engine: Engine, *, dry_run: bool = False, listener: Listener = ignore) -> list[Collected]:
    """Removes every cluster whose lease is over, remains of half-made ones included; tells of each what became of it.

    Args:
        dry_run: remove nothing.
    """
    things: list[Any] = [*engine.containers(), *engine.networks(), *engine.volumes()]
    done = []
    for name, (profile, why) in over(things).items():
        removed, error = (False, "") if dry_run else _collect(engine, name, listener)
        done.append(Collected(name, profile, why, removed, error))
    return done


def sweep(engine: Engine, listener: Listener) -> None:
    """The same on the way of a command that has something else to do: cheap where there is nothing, and never an error.

    Every cluster has a record, the first of it to come and the last to go, so a look at volumes is enough.
    """
    for name, (_profile, why) in over(engine.volumes()).items():
        removed, error = _collect(engine, name, ignore)
        if removed:
            listener(Event("note", text=f"Removed cluster {name}: {why}."))
        elif error:
            listener(Event("note", text=f"Cluster {name} could not be removed ({why}): {error}"))


def _collect(engine: Engine, name: str, listener: Listener) -> tuple[bool, str]:
    """Whether it was removed, and why not."""
    try:
        return up.collect(engine, name, listener) is not None, ""
    except (NoEngine, Interrupted):
        raise
    except MiniclusterError as error:
        return False, error.what
