"""What ``ls`` says of clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from minicluster.model import labels
from minicluster.model.results import ClusterSummary
from minicluster.operations import remove_expired
from minicluster.operations.observe import by_cluster
from minicluster.plan.observed import lease_of, made_by_another, observe, project_of

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine, Volume


def summaries(engine: Engine, volumes: Sequence[Volume] | None = None) -> list[ClusterSummary]:
    """Every cluster on the engine by name, incomplete ones included; not those of which it has only a part.

    Args:
        volumes: those that the engine had a moment ago, so that they need not be listed again.
    """
    containers, networks = engine.containers(), engine.networks()
    known = by_cluster(volumes or ())
    if volumes is None or not by_cluster([*containers, *networks]).keys() <= known.keys():
        volumes = engine.volumes()  # a cluster has been created since
    found = []
    for name, things in by_cluster([*containers, *networks, *volumes]).items():
        if not remove_expired.is_whole(engine, name, things):
            continue
        mine = [c for c in containers if c.labels[labels.CLUSTER] == name and labels.FAULT not in c.labels]
        running = sum(c.state == "running" for c in mine)
        its = observe(name, mine, [], [v for v in volumes if v.labels[labels.CLUSTER] == name])
        wanted = len(its.spec.nodes) if its.spec else len(mine)
        foreign = made_by_another(name, its.records)
        if not mine or (its.spec is None and not foreign):
            phase = "leftover"
        elif running == wanted:
            phase = "running"
        else:
            phase = "partial" if running else "stopped"
        profile = things[0].labels.get(labels.PROFILE, "")
        subnet = its.spec.subnet if its.spec else ""
        lease, note = str(lease_of(things) or ""), f"{foreign.what}. {foreign.fix}" if foreign else ""
        found.append(ClusterSummary(name, profile, phase, wanted, running, subnet, lease, note, project_of(things)))
    return found
