"""Renewal of leases: each generation of a lease is the label of a small volume, since labels cannot change."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from minicluster.errors import UsageError
from minicluster.model import labels
from minicluster.plan.leases import generation
from minicluster.plan.observed import generation_of, lease_of

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine, Volume
    from minicluster.host.processes import Process
    from minicluster.model.lease import Lease


def renew(engine: Engine, name: str, lease: Lease) -> None:
    """Replaces the lease of a cluster. Takes no lock, so that it works while the cluster changes.

    Raises:
        UsageError: there is no cluster of that name.
    """
    _replace(engine, name, lease, None, engine.volumes(name))


def renew_owned(engine: Engine, name: str, owner: Process) -> bool:
    """Renews the lease that a living process has on a cluster; False where the lease belongs to another owner by now.

    Where another process replaces the lease at the same time, that one wins.
    """
    volumes = engine.volumes(name)
    lease = lease_of(volumes)
    if lease is None:
        return True  # the cluster is being created, or no longer exists; its owner reports that
    if lease.owner != owner:
        return False
    number = max(generation_of(volume.labels) for volume in volumes) + 1
    with contextlib.suppress(UsageError):
        _replace(engine, name, lease.renewed(), number, volumes)
    return True


def _replace(engine: Engine, name: str, lease: Lease, number: int | None, volumes: Sequence[Volume]) -> None:
    profile = next((v.labels.get(labels.PROFILE, "") for v in volumes), "")
    made = generation(name, profile, lease, number)
    engine.create_volume(made.name, made.labels)
    if not any(labels.REVISION in volume.labels for volume in engine.volumes(name)):
        engine.remove_volume(made.name)  # another process removed the cluster
        raise UsageError(f"no cluster named {name!r}", "It has no record.", "`minicluster ls` lists the clusters.")
    for volume in volumes:
        if labels.GENERATION in volume.labels:
            engine.remove_volume(volume.name)
