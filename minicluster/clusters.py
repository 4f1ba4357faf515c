"""What is about several clusters, or about none yet. It only delegates, as :mod:`minicluster.cluster` does."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from minicluster import discovery
from minicluster.engine import discover
from minicluster.errors import NoCluster
from minicluster.model.events import Event, Listener, ignore
from minicluster.model.results import Change
from minicluster.operations import down as removal, host_record, remove_expired as collecting, up
from minicluster.operations.observe import everything
from minicluster.operations.summaries import summaries
from minicluster.operations.up_options import UpOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from minicluster.engine.protocol import Engine
    from minicluster.model import results
    from minicluster.operations.up_options import UpKeywords
    from minicluster.plan.steps import Plan


def dry_run(profile: str | None = None, **options: Unpack[UpKeywords]) -> Plan:
    """The plan that :meth:`Cluster.up` would carry out; without an engine, the plan of a first ``up``."""
    wanted = UpOptions(profile=profile, **options)
    name = discovery.target(wanted.profile, wanted.name, wanted.named_by)
    hosts = _hosts_of_up(name, wanted.hosts or (), dry_run=True)
    return up.plan(discover.open_hosts(hosts) if hosts else discovery.engine_if_any(), name, wanted).plan


def engine_of_up(name: str, hosts: Sequence[str], engine: Engine | None, listener: Listener) -> Engine:
    """The engine of an ``up``: the given one, else the hosts that are named or have the cluster, else the default.

    Raises:
        UsageError: hosts are named for a cluster that is on one engine.
    """
    if engine and engine.hosts:
        return engine
    if found := _hosts_of_up(name, hosts):
        return discover.open_hosts(found)
    return engine or discover.connect(start_private=True, listener=listener)


def _hosts_of_up(name: str, named: Sequence[str], *, dry_run: bool = False) -> list[str]:
    """The hosts of an ``up``: those that are named, and those that have the cluster.

    Each host has the records of a cluster, so one of which those that answer have nothing does not exist any more. A
    noted host that does not answer may have something of it all the same, so it is waited for unless others are named.
    """
    having = discovery.hosts_of(name)
    if having and not everything(engine := discover.open_hosts(having), name):
        if not engine.gone and not dry_run:
            host_record.forget(name)
        if named or not engine.gone:
            having = []
    if named and not having:
        discovery.refuse_namesake(name)
    return [*dict.fromkeys([*named, *having])]


def clusters(engine: Engine | None = None, *, listener: Listener = ignore) -> list[results.ClusterSummary]:
    """Every cluster by name, incomplete ones included; those whose lease has ended are removed."""
    engine = engine or (discovery.engine_if_any() if host_record.clusters() else discover.connect())
    found, volumes = [], None
    if engine:
        volumes = collecting.sweep(engine, listener)
        found += summaries(engine, volumes)
    for one in discovery.on_hosts(engine, volumes):
        found += summaries(one, collecting.sweep(one, listener))
    return sorted({one.cluster: one for one in found}.values(), key=lambda one: one.cluster)


def down(
    names: Sequence[str] = (),
    *,
    all: bool = False,
    orphans: bool = False,
    strict: bool = False,
    listener: Listener = ignore,
    engine: Engine | None = None,
) -> list[Change]:
    """Removes clusters by name, or all; without a name those of the project file, else the only one.

    ``orphans``: those that were made from the project file, which no longer has them.

    A name that no cluster has is a note, and a change of nothing; with ``strict`` it is an error, once the others are
    removed.
    """
    missing: dict[str, NoCluster] = {}
    for name in names:
        discovery.check_name(name, "cluster")
    open_hosts = discover.opener()
    if names and not engine and not (all or orphans) and [*filter(discovery.hosts_of, names)] == [*names]:
        found, missing = discovery.to_remove_on_hosts(names, listener, open_hosts)
    else:
        engine = engine or discover.connect(start_private=True, listener=listener)
        found, missing = discovery.to_remove(engine, names, all=all, orphans=orphans, listener=listener)

    def opened(hosts: Sequence[str]) -> Engine:
        return open_hosts(hosts) if hosts else engine or discover.connect()

    changes = removal.down([(partial(opened, hosts), name) for name, hosts in found.items()], listener)
    if strict and missing:
        first, *others = missing.values()
        raise NoCluster("; ".join(error.what for error in missing.values())) if others else first
    for error in missing.values():
        listener(
            Event("note", text=" ".join(filter(None, (f"{error.what}: nothing to remove.", error.why, error.fix))))
        )
    return [*changes, *(Change(name, False, 0, 0.0, {}) for name in missing if name)]


def collect(
    *, dry_run: bool = False, listener: Listener = ignore, engine: Engine | None = None
) -> list[results.Collected]:
    """Removes the clusters whose lease has ended, and reports why; with ``dry_run`` it only reports."""
    return collecting.collect(engine or discover.connect(), dry_run=dry_run, listener=listener)
