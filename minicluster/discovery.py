"""Which clusters there are, and which one is meant."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from minicluster.engine.discover import connect
from minicluster.errors import NoEngine, UsageError, nearest
from minicluster.model import labels
from minicluster.model.events import Listener
from minicluster.model.naming import NAME_RULE, is_name
from minicluster.model.results import ClusterSummary
from minicluster.model.spec import Spec
from minicluster.operations import down
from minicluster.operations.observe import by_cluster, everything
from minicluster.operations.up import DEFAULT_PROFILE
from minicluster.plan.observed import lease_of, made_by_another, observe, records

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine

VARIABLE = "MINICLUSTER"  #: names the cluster that commands are about by default


def check_name(name: str | None) -> None:
    """Refuses what cannot be the name of a cluster."""
    if name is not None and not is_name(name):
        raise UsageError(
            f"--name {name}: invalid name",
            f"It is part of host names: {NAME_RULE}.",
            "Choose another name.",
        )


def target(profile: str | None, name: str | None) -> str:
    """The name of the cluster that an ``up`` is about: the given one, else the profile's."""
    check_name(name)
    if name:
        return name
    from minicluster.profile import folders

    directory, bundled = folders.locate(profile or DEFAULT_PROFILE)
    if bundled:  # its folder has its name: checking the whole profile would take longer than the rest of a cached `up`
        return directory.name
    from minicluster.profile import catalog

    found = catalog.load(str(directory)).profile.name
    check_name(found)
    return found


def names(engine: Engine) -> list[str]:
    """The names of all clusters, incomplete ones included."""
    return list(by_cluster(everything(engine)))


def choose(engine: Engine, name: str | None) -> str:
    """The cluster of that name, else that of $MINICLUSTER, else the only one.

    Raises:
        UsageError: there is none, or there are several and none is named.
    """
    wanted = name or os.environ.get(VARIABLE)
    known = names(engine)
    if wanted:
        if wanted not in known:
            raise unknown(engine, wanted, known)
        return wanted
    if not known:
        raise UsageError("there are no clusters", "", "Create one: `minicluster up`.")
    if len(known) > 1:
        raise UsageError(
            "several clusters exist",
            f"Clusters: {', '.join(known)}.",
            f"Use -c NAME or set ${VARIABLE}.",
        )
    return known[0]


def find(engine: Engine, name: str | None) -> Spec:
    """The spec of the cluster that :func:`choose` gives.

    Raises:
        UsageError: there is no such cluster, or only remains of it.
    """
    wanted = name or os.environ.get(VARIABLE)
    found = records(engine.volumes(wanted)) if wanted else ()  # one call, where the cluster is named and complete
    if not found:
        wanted = choose(engine, name)
        found = records(engine.volumes(wanted))
    spec = found[-1].spec if found else None
    if foreign := made_by_another(wanted or "", found):
        raise foreign
    if spec is None:
        raise UsageError(
            f"cluster {wanted} is incomplete",
            "Its record is missing or cannot be read.",
            f"Remove what is left: `minicluster down {wanted}`.",
        )
    return spec


def with_program(engine: Engine, program: str, name: str | None) -> str:
    """The cluster of that name, else of $MINICLUSTER, else the only one that has this client.

    Raises:
        UsageError: there is none, or there are several and none is named.
    """
    if name or os.environ.get(VARIABLE):
        return choose(engine, name)
    having = []
    volumes = engine.volumes()
    for cluster in names(engine):
        found = records([volume for volume in volumes if volume.labels[labels.CLUSTER] == cluster])
        if found and (spec := found[-1].spec) and program in spec.programs:
            having.append(cluster)
    if len(having) == 1:
        return having[0]
    if not having:
        raise UsageError(f"no cluster has a client {program!r}", "", "Create one: `minicluster up PROFILE`.")
    raise UsageError(
        f"several clusters have a client {program!r}",
        f"Clusters: {', '.join(having)}.",
        f"`minicluster {program} -c NAME ...`, or set ${VARIABLE}.",
    )


def unknown(engine: Engine, name: str, known: Sequence[str]) -> UsageError:
    """The error for a name that no cluster has."""
    why = "No object on the engine has that cluster's label."
    if engine.container(name):
        why = "There is a container of that name, which minicluster did not create."
    return UsageError(f"no cluster named {name!r}", why, nearest(name, known) or "`minicluster ls` lists the clusters.")


def clusters(engine: Engine) -> list[ClusterSummary]:
    """Every cluster on the engine by name, incomplete ones included."""
    containers, networks, volumes = engine.containers(), engine.networks(), engine.volumes()
    found = []
    for name, things in by_cluster([*containers, *networks, *volumes]).items():
        mine = [c for c in containers if c.labels[labels.CLUSTER] == name]
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
        found.append(ClusterSummary(name, profile, phase, wanted, running, subnet, lease, note))
    return found


def to_remove(engine: Engine, words: Sequence[str], *, all: bool, listener: Listener) -> list[str]:
    """The clusters that a ``down`` is about: all, those named, or what :func:`choose` gives, if there is any.

    Raises:
        UsageError: there is no cluster of that name; what this machine keeps of it is removed.
    """
    known = names(engine)
    if all or (not known and not words):
        return known
    for word in words:
        if word not in known:
            if is_name(word):  # of a cluster that was removed by other means
                down.forget(engine, word, listener)
            raise unknown(engine, word, known)
    return list(words) or [choose(engine, None)]


def engine_if_any() -> Engine | None:
    """The engine that :func:`connect` finds; None if there is none."""
    try:
        return connect()
    except NoEngine:
        return None


def env_names(name: str | None = None, *, engine: Engine | None = None) -> list[str]:
    """Names of the variables that :meth:`minicluster.Cluster.env` sets.

    Once the cluster is removed: the names of any profile that are set in this process's environment.
    """
    try:
        return list(find(engine or connect(), name).env)
    except (UsageError, NoEngine):
        from minicluster.profile import catalog, folders

        found: set[str] = set()
        for profile in folders.names():
            with contextlib.suppress(UsageError):
                found |= catalog.load(profile).profile.env.keys()
        return sorted(found & os.environ.keys())
