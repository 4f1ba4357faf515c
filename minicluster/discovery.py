"""Which clusters there are, and which one is meant."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minicluster.engine import discover
from minicluster.errors import Incomplete, NoCluster, NoEngine, UsageError, nearest
from minicluster.model import labels
from minicluster.model.events import Event, Listener
from minicluster.model.naming import NAME_RULE, is_name
from minicluster.operations import down, host_record, preflight
from minicluster.operations.observe import by_cluster, everything
from minicluster.operations.up import DEFAULT_PROFILE
from minicluster.plan.observed import made_by_another, project_of, records

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine, Volume
    from minicluster.model.spec import Spec
    from minicluster.project.definition import Project

VARIABLE = "MINICLUSTER"  #: names the cluster that commands are about by default


@dataclass(frozen=True)
class Default:
    """The cluster that is meant where none is named."""

    name: str
    origin: str  #: what names it, such as "$MINICLUSTER"; in messages


def from_variable() -> Default | None:
    """What $MINICLUSTER names."""
    name = os.environ.get(VARIABLE)
    return Default(name, f"${VARIABLE}") if name else None


def project() -> Project | None:
    """The project file that is named or nearest; None if there is none. Without one, this is only a search.

    Raises:
        UsageError: it cannot be used, or something is wrong with it.
    """
    from minicluster.project import find

    found = find.find()
    if found is None:
        return None
    from minicluster.project.load import load

    return load(found[0], named=found[1])


def _project_if_any() -> Project | None:
    with contextlib.suppress(UsageError):
        return project()
    return None


def default() -> Default | None:
    """The cluster that commands are about where none is named: that of $MINICLUSTER, else of the project file.

    Raises:
        UsageError: the file has several, or something is wrong with it.
    """
    if (named := from_variable()) or (its := project()) is None:
        return named
    if len(its.clusters) > 1:
        first = next(iter(its.clusters))
        raise UsageError(
            f"{its.path} has several clusters",
            f"Clusters: {', '.join(its.clusters)}.",
            f"Name one, such as -c {first}, or set ${VARIABLE}.",
        )
    return Default(next(iter(its.clusters)), str(its.path))


def several(name: str | None) -> list[str]:
    """The clusters of the project file, where there are several and none of them is named."""
    its = None if name or from_variable() else project()
    return list(its.clusters) if its and len(its.clusters) > 1 else []


def check_name(name: str | None, origin: str = "--name") -> None:
    """Refuses what cannot be the name of a cluster; ``origin`` is what gave it."""
    if name is not None and not is_name(name):
        raise UsageError(
            f"{origin} {name}: invalid name",
            f"It is part of host names: {NAME_RULE}.",
            "Use another name.",
        )


def target(profile: str | None, name: str | None, named_by: str = "--name") -> str:
    """The name of the cluster that an ``up`` is about: the given one, else the profile's."""
    check_name(name, named_by)
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
    """The names of all clusters, incomplete ones included, and those that this machine put on several hosts."""
    return list(_hosts_by_cluster(engine))


def _hosts_by_cluster(engine: Engine) -> dict[str, list[str]]:
    """The same, each with its hosts: none of those on one engine, and of all where several hosts are that engine."""
    found = {}
    for name, things in by_cluster(everything(engine)).items():
        texts = () if engine.hosts else (thing.labels.get(labels.HOSTS, "") for thing in things)
        found[name] = next(filter(None, texts), "").split(",")
    if not engine.hosts:  # as this machine knows them: a host without a context is given up
        found |= {name: hosts for name in host_record.clusters() if (hosts := hosts_of(name))}
    return {name: [*filter(None, hosts)] for name, hosts in sorted(found.items())}


def hosts_of(name: str) -> list[str]:
    """The hosts that this machine put a cluster on; those whose docker context is no more are left out."""
    return discover.known_hosts(host_record.read(name))


def opened(name: str | None, used: Callable[[], Engine]) -> tuple[Engine, Spec]:
    """The engine and the spec of the cluster that :func:`choose` gives; raises as :func:`find` does.

    Args:
        used: the engine that is used where a cluster is on none of its own hosts.
    """
    named = _wanted(name)
    wanted = named.name if named else _only_on_hosts(used)
    hosts = hosts_of(wanted) if wanted else ()
    engine: Engine = discover.open_hosts(hosts) if hosts else used()
    spec = find(engine, wanted if hosts else name)
    if spec.hosts and not engine.hosts:  # the engine is one of its hosts
        engine = discover.open_hosts(discover.known_hosts(spec.hosts) or [*spec.hosts])
        spec = find(engine, spec.cluster)
    return engine, spec


def _only_on_hosts(used: Callable[[], Engine]) -> str:
    """The only cluster there is, if that is one on several hosts that this machine put there; else ""."""
    known = [*filter(hosts_of, host_record.clusters())]
    if not known:
        return ""
    try:
        engine = used()
        return known[0] if len(known) == 1 and not by_cluster(everything(engine)) else ""
    except NoEngine:
        return _only(known)


def choose(engine: Engine, name: str | None) -> str:
    """The cluster of that name, else that of :func:`default`, else the only one: the rule of every command.

    Raises:
        NoCluster: there is none.
        UsageError: there are several and none is named.
    """
    wanted = _wanted(name)
    known = names(engine)
    if wanted:
        if wanted.name not in known:
            raise unknown(engine, wanted.name, known, wanted.origin)
        return wanted.name
    return _only(known)


def _only(known: Sequence[str]) -> str:
    """The only one of these clusters; raises as :func:`choose` does."""
    if not known:
        raise NoCluster("no clusters found", "", "Create one: `minicluster up`.")
    if len(known) > 1:
        raise UsageError(
            "several clusters exist",
            f"Clusters: {', '.join(known)}.",
            f"Use -c NAME or set ${VARIABLE}.",
        )
    return known[0]


def _wanted(name: str | None) -> Default | None:
    return Default(name, "") if name else default()


def find(engine: Engine, name: str | None) -> Spec:
    """The spec of the cluster that :func:`choose` gives.

    Raises:
        NoCluster: there is no such cluster.
        Incomplete: only parts of it exist.
        UsageError: there are several and none is named.
    """
    named = _wanted(name)
    wanted = named.name if named else ""
    found = records(engine.volumes(wanted)) if wanted else ()  # one call, where the cluster is named and complete
    if not found:
        wanted = choose(engine, name)
        found = records(engine.volumes(wanted))
    spec = found[-1].spec if found else None
    if foreign := made_by_another(wanted, found):
        raise foreign
    if spec is None:
        raise Incomplete(
            f"cluster {wanted} is incomplete",
            "Its record is missing or cannot be read.",
            f"Remove what is left: `minicluster down {wanted}`.",
        )
    return spec


def with_program(engine: Engine | None, program: str, name: str | None) -> str:
    """The cluster of that name, else that of :func:`default`, else the only one that has this client.

    Args:
        engine: None: there is none but those of clusters on several hosts.

    Raises:
        NoCluster: there is none.
        UsageError: there are several and none is named.
    """
    its = None if name or from_variable() else project()
    if its is None and (wanted := _wanted(name)):
        return wanted.name if hosts_of(wanted.name) else choose(engine or discover.connect(), name)
    having: list[str] = []
    for one in [*([engine] if engine else []), *on_hosts(engine)]:
        volumes = one.volumes()
        for cluster in by_cluster(volumes) if its is None else its.clusters:
            found = records([volume for volume in volumes if volume.labels[labels.CLUSTER] == cluster])
            if found and (spec := found[-1].spec) and program in spec.programs and cluster not in having:
                having.append(cluster)
    if len(having) == 1:
        return having[0]
    if not having:
        raise NoCluster(f"no cluster has a client {program!r}", "", "Create one: `minicluster up PROFILE`.")
    raise UsageError(
        f"several clusters have a client {program!r}",
        f"Clusters: {', '.join(having)}.",
        f"`minicluster {program} -c NAME ...`, or set ${VARIABLE}.",
    )


def unknown(engine: Engine, name: str, known: Sequence[str], origin: str = "") -> NoCluster:
    """The error for a name that no cluster has; ``origin`` is what gave it, if not the user just now."""
    why = "No object on the engine has that cluster's label."
    fix = nearest(name, known) or "`minicluster ls` lists the clusters."
    if origin and not origin.startswith("$"):
        return NoCluster(f"cluster {name} does not exist", f"{origin} names it.", "Start it: `minicluster up`.")
    if owners := [c.labels[labels.CLUSTER] for c in engine.containers() if c.labels.get(labels.NODE) == name]:
        why, fix = f"{name} is a node.", f"Name its cluster: {' or '.join(f'-c {owner}' for owner in owners)}."
    elif (its := _project_if_any()) and name in its.clusters:
        why, fix = f"{its.path} has it, and it was not started.", f"Start it: `minicluster up {name}`."
    elif engine.container(name):
        why = "There is a container of that name, which minicluster did not create."
    return NoCluster(f"no cluster named {name!r}", f"{origin} names it. {why}" if origin else why, fix)


def on_hosts(engine: Engine | None, volumes: Sequence[Volume] | None = None) -> list[Engine]:
    """The engines of the clusters on several hosts that are known here: of this machine, and by what the engine has.

    Args:
        volumes: those that the engine had a moment ago, so that they need not be listed again.
    """
    groups = {tuple(hosts) for name in host_record.clusters() if (hosts := hosts_of(name))}
    if volumes is None:
        volumes = engine.volumes() if engine else ()
    for volume in volumes if engine and not engine.hosts else ():
        if text := volume.labels.get(labels.HOSTS):
            groups.add(tuple(discover.known_hosts(text.split(","))))
    found: list[Engine] = []
    for group in sorted(filter(None, groups)):
        with contextlib.suppress(NoEngine, UsageError):
            found.append(discover.open_hosts(group))
    return found


def refuse_foreign(engine: Engine, name: str, its: Project | None) -> None:
    """Refuses a cluster of another project than this one. Where there is none, users may name any cluster.

    Raises:
        UsageError: it was made from another project file.
    """
    made_from = project_of(engine.volumes(name))
    if its and made_from and made_from != str(its.path):
        raise preflight.foreign_project(name, made_from)


def of_project(engine: Engine, its: Project) -> list[str]:
    """The clusters that were made from a project file."""
    grouped = by_cluster(everything(engine))
    return [name for name, things in grouped.items() if project_of(things) == str(its.path)]


def note_orphans(engine: Engine, its: Project, listener: Listener) -> None:
    """Says which clusters were made from a project file that no longer has them."""
    if left := [name for name in of_project(engine, its) if name not in its.clusters]:
        are, them = ("is", "it") if len(left) == 1 else ("are", "them")
        fix = f"`minicluster down --orphans` removes {them}"
        listener(Event("note", text=f"{', '.join(left)} {are} no longer in {its.path.name}: {fix}"))


def to_remove(
    engine: Engine, words: Sequence[str], *, all: bool, orphans: bool = False, listener: Listener
) -> tuple[dict[str, list[str]], dict[str, NoCluster]]:
    """The clusters that a ``down`` is about: all, those named, those of the project file, or the only one.

    With ``orphans`` those that were made from the project file, which no longer has them.

    Each with its hosts, of which one on a single engine has none.

    With them the names that no cluster has, each with an error; what this machine keeps of such a cluster is removed.

    Raises:
        UsageError: there are several clusters and none is named.
    """
    known = _hosts_by_cluster(engine)
    if all:
        return known, {}
    its = project()
    if orphans and its is None:
        raise UsageError("--orphans needs a project file", "No project file was found.", "Name it: `-f FILE`.")
    wanted = [Default(word, "") for word in dict.fromkeys(words)] or [one for one in [from_variable()] if one]
    if its and (orphans or not wanted):
        made = of_project(engine, its)
        chosen = [name for name in made if (name not in its.clusters) == orphans]
        if not orphans:
            note_orphans(engine, its, listener)
        if not chosen:
            what = f"no orphaned clusters of {its.path}" if orphans else f"no cluster of {its.path} exists"
            return {}, {"": NoCluster(what)}
        listener(Event("note", text=f"removing {', '.join(chosen)}, made from {its.path}"))
        return {name: known.get(name, []) for name in chosen}, {}
    if not wanted:
        try:
            return {(only := _only([*known])): known[only]}, {}
        except NoCluster:
            return {}, {"": NoCluster("no clusters found")}
    for one in wanted:
        check_name(one.name, one.origin or "cluster")
        refuse_foreign(engine, one.name, its)
    missing = {}
    for one in wanted:
        if one.name not in known:
            down.forget(engine, one.name, listener)  # of a cluster that was removed by other means
            host_record.forget(one.name)  # none of its hosts has a docker context any more
            missing[one.name] = unknown(engine, one.name, [*known], one.origin)
    return {one.name: known[one.name] for one in wanted if one.name in known}, missing


def to_remove_on_hosts(
    words: Sequence[str], listener: Listener, open_hosts: Callable[[Sequence[str]], Engine]
) -> tuple[dict[str, list[str]], dict[str, NoCluster]]:
    """As :func:`to_remove` of names that this machine put on several hosts: no other engine is needed for them."""
    its = project()
    found: dict[str, list[str]] = {}
    missing = {}
    for name in dict.fromkeys(words):
        hosts = hosts_of(name)
        try:
            engine = open_hosts(hosts)
        except NoEngine:  # an error of its removal, which does not keep others
            found[name] = hosts
            continue
        refuse_foreign(engine, name, its)
        if engine.gone or everything(engine, name):
            found[name] = hosts
            continue
        down.forget(engine, name, listener)
        host_record.forget(name)
        missing[name] = unknown(engine, name, names(engine))
    return found, missing


def refuse_namesake(name: str) -> None:
    """Refuses to put a cluster on several hosts that the engine in use has under that name.

    Raises:
        UsageError: there is one.
    """
    if engine := engine_if_any():
        its = engine.volumes(name)
        if its and labels.HOSTS not in its[0].labels:
            raise UsageError(
                f"cluster {name} exists on one engine: {engine.endpoint}",
                "It cannot be moved to several hosts.",
                f"Delete it first (`minicluster down {name}`), or use another name: --name NAME.",
            )


def engine_if_any() -> Engine | None:
    """The engine that :func:`connect` finds; None if there is none."""
    try:
        return discover.connect()
    except NoEngine:
        return None


def env_names(name: str | None = None, *, engine: Engine | None = None) -> list[str]:
    """Names of the variables that :meth:`minicluster.Cluster.env` sets.

    Once the cluster is removed: the names of any profile that are set in this process's environment.
    """
    try:
        return list(find(engine or discover.connect(), name).env)
    except (UsageError, NoEngine):
        from minicluster.profile import catalog, folders

        found: set[str] = set()
        for profile in folders.names():
            with contextlib.suppress(UsageError):
                found |= catalog.load(profile).profile.env.keys()
        return sorted(found & os.environ.keys())
