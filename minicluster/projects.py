"""The clusters of a project file on the engine: which of them an ``up`` or a ``down`` is about, and several at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from minicluster import cluster as facade, discovery
from minicluster.engine import discover
from minicluster.engine.protocol import Cancel
from minicluster.errors import Interrupted, MiniclusterError, UsageError, nearest
from minicluster.executor.signals import shielded
from minicluster.model.events import Event, Listener

if TYPE_CHECKING:
    from minicluster.cluster import Cluster
    from minicluster.model.spec import RegistrySpec
    from minicluster.operations.up_options import UpKeywords
    from minicluster.plan.steps import Plan
    from minicluster.project.definition import Project

_LISTEN = 0.5  # seconds within which Ctrl-C is noticed for certain


@dataclass(frozen=True)
class Wanted:
    """What an ``up`` is about: clusters of a project file, or one by its profile."""

    project: Project | None
    names: tuple[str, ...]  #: of the project's clusters; () for one by its profile
    options: tuple[dict[str, Any], ...]  #: the arguments of Cluster.up for each


def wanted(word: str | None, options: UpKeywords) -> Wanted:
    """The clusters that an ``up`` is about: those of the project file, unless the user names something else.

    Args:
        word: a cluster of the project file, else a profile; None for neither.
        options: what else the user asks for. It precedes what the file says.

    Raises:
        UsageError: there is no such cluster or profile, or the options are not clear.
    """
    project, name = discovery.project(), options.get("name")
    plain = Wanted(project, (), ({**options, "profile": word},))
    if project is None:
        return plain
    if word is not None and word not in project.clusters:
        if name in project.clusters:
            what = f"{name} is a cluster of {project.path}"
            raise UsageError(what, "Its profile is in the file.", f"`minicluster up {name}`, or use another name.")
        _check_profile(word, project)
        return plain
    if word is not None and name not in (None, word) and options.get("named_by") == "--name":
        raise UsageError(f"two clusters are named: {word} and {name}", "", "Name one of them.")
    if word is None and name is not None and name not in project.clusters:
        engine = discovery.engine_if_any()
        if engine is None or name not in discovery.names(engine):
            error = UsageError(f"{project.path} has no cluster {name!r}", "", nearest(name, project.clusters))
            error.why = f"{options['named_by']} names it." if options.get("named_by", "").startswith("$") else ""
            error.fix = f"{error.fix} Without the file: `minicluster up PROFILE --name {name}`."
            raise error
        return plain
    chosen = word or name
    names = (chosen,) if chosen else tuple(project.clusters)
    return Wanted(project, names, tuple(_merged(project, one, options, alone=len(names) == 1) for one in names))


def _check_profile(word: str, project: Project) -> None:
    from minicluster.profile import folders

    try:
        folders.locate(word)
    except UsageError as error:
        if "/" in word:
            raise
        known = [*project.clusters, *folders.names()]
        what = f"no cluster or profile named {word!r}"
        raise UsageError(
            what, f"{project.path} has {', '.join(project.clusters)}. {error.why}", nearest(word, known)
        ) from None


#: Options that say what one cluster is, and not how `up` works.
_OF_ONE = {
    "size": "--size",
    "set": "--set",
    "image": "--image",
    "disk": "--disk",
    "port": "--port",
    "mounts": "--mount",
    "bind_address": "--bind-address",
    "restart": "--restart",
    "networks": "--network",
    "registries": "--registry",
    "ca": "--ca",
    "hosts": "--hosts",
    "place": "--place",
}


def _merged(project: Project, name: str, options: UpKeywords, *, alone: bool) -> dict[str, Any]:
    """The options of the file, and over them those of the command line."""
    from minicluster.project.definition import arguments, check_files

    check_files(project, name)
    given: dict[str, Any] = {
        key: value
        for key, value in options.items()
        if value not in (None, "", {}, False) or (key == "ca" and value == "")
    }
    if not alone and (of_one := [key for key in _OF_ONE if key in given]):
        what = f"{_OF_ONE[of_one[0]]} needs the name of a cluster"
        raise UsageError(what, f"{project.path} has {', '.join(project.clusters)}.", "`minicluster up NAME ...`")
    made: dict[str, Any] = {**arguments(project, name), **trusted(project, name)}
    for key, value in given.items():
        if key not in ("name", "named_by"):
            made[key] = {**made.get(key, {}), **value} if isinstance(value, Mapping) else value
    return made


def trusted(project: Project, name: str) -> dict[str, Any]:
    """The arguments ``registries`` and ``ca`` of :meth:`minicluster.Cluster.up` for a cluster of the file.

    Raises:
        UsageError: a value is not valid, with its place in the file.
    """
    it = project.get(name)
    if not (it.registry_mirrors or it.registries or it.ca):
        return {}
    from minicluster.operations import registries

    def made(key: str, i: int) -> RegistrySpec:
        try:
            if key == "registry_mirrors":
                return registries.mirror(it.registry_mirrors[i])
            one = it.registries[i]
            return registries.registry(
                one.host, mirrors=one.mirrors, ca=one.ca or None, insecure=one.insecure, credentials=one.credentials
            )
        except UsageError as error:
            where = project.document.where(("clusters", name, key, i))
            raise UsageError(f"{where}: {key} {error.what.partition(' ')[2]}", error.why, error.fix) from None

    named = [made(key, i) for key in ("registry_mirrors", "registries") for i in range(len(getattr(it, key)))]
    return {"registries": named, "ca": it.ca}


def check(project: Project, name: str) -> None:
    """Refuses what ``up`` would refuse, as far as that can be known without an engine.

    Raises:
        UsageError: something is wrong, with its place in the file.
    """
    from minicluster.operations import registries
    from minicluster.project import definition

    its = trusted(project, name)
    try:
        ca = registries.certificates(its["ca"], "--ca") if its.get("ca") else ""
    except UsageError as error:
        raise project.located(error, name) from None
    definition.check(project, name, registries.merged(its.get("registries", ())), ca)


@dataclass(frozen=True)
class Failed:
    """A cluster whose ``up`` failed, while those of others went on."""

    name: str
    error: MiniclusterError


def up(wanted: Wanted, listener: Listener, at_once: int = 0) -> list[Cluster | Failed]:
    """Creates or changes the clusters, several at the same time.

    Args:
        at_once: how many at the same time; 0: all.

    Raises:
        MiniclusterError: a single cluster failed.
        Interrupted: the user pressed Ctrl-C; every one of several has been rolled back.
    """
    if wanted.project:
        _announce(wanted, listener)
    if len(wanted.options) == 1:
        return [_up(wanted, 0, listener)]
    engine = discover.connect(start_private=True, listener=listener)
    cancel = Cancel()
    with ThreadPoolExecutor(at_once or len(wanted.names)) as pool:
        futures = [
            pool.submit(_up, wanted, i, _named(name, listener), cancel=cancel, engine=engine)
            for i, name in enumerate(wanted.names)
        ]
        try:
            while wait(futures, _LISTEN).not_done:
                pass  # Python notices Ctrl-C only when it does not block
        except BaseException as error:
            with shielded():
                for future in futures:
                    future.cancel()  # those that have not begun
                cancel.set()
                wait(futures)
            raise _interrupted(wanted, futures) from error
    return [_result(name, future) for name, future in zip(wanted.names, futures, strict=True)]


def _up(wanted: Wanted, i: int, listener: Listener, **more: Any) -> Cluster:
    try:
        return facade.Cluster.up(listener=listener, **more, **wanted.options[i])
    except UsageError as error:
        if wanted.project and wanted.names:
            raise wanted.project.located(error, wanted.names[i]) from None
        raise


def _named(name: str, listener: Listener) -> Listener:
    """A listener for one of several clusters: each event says which."""

    def listen(event: Event) -> None:
        if event.kind in ("note", "preflight", "rollback"):
            subject = f"{event.subject}: " if event.subject and not event.text.startswith(event.subject) else ""
            lines = f"{subject}{event.text}".split("\n")
            listener(replace(event, subject="", text="\n".join(f"{name}: {line}" for line in lines)))
        elif event.kind == "plan":
            listener(event)
        else:
            listener(replace(event, subject=f"{name}/{event.subject}" if event.subject else name))

    return listen


def _result(name: str, future: Future[Cluster]) -> Cluster | Failed:
    error = future.exception()
    if error is None:
        return future.result()
    if not isinstance(error, MiniclusterError):
        raise error
    return Failed(name, error)


def _interrupted(wanted: Wanted, futures: Sequence[Future[Cluster]]) -> Interrupted:
    errors = [Interrupted("not started") if one.cancelled() else one.exception() for one in futures]
    named = list(zip(wanted.names, errors, strict=True))
    complete = [name for name, one in named if one is None]
    partly = [name for name, one in named if isinstance(one, MiniclusterError) and one.cluster_is_up]
    told = [f"Complete before that: {', '.join(complete)}."] if complete else []
    told += [f"Up, but not all of `load` and `apply` is done: {', '.join(partly)}."] if partly else []
    if told and len(complete) + len(partly) < len(named) and not any(one.get("keep") for one in wanted.options):
        told.append("The others are as before.")
    error = Interrupted("interrupted", " ".join(told))
    error.leftovers = tuple(left for one in errors if isinstance(one, MiniclusterError) for left in one.leftovers)
    return error


def plans(wanted: Wanted) -> list[Plan]:
    """The plans that :func:`up` would carry out."""
    found = []
    for i, options in enumerate(wanted.options):
        try:
            found.append(facade.dry_run(**options))
        except UsageError as error:
            if wanted.project and wanted.names:
                raise wanted.project.located(error, wanted.names[i]) from None
            raise
    return found


def _announce(wanted: Wanted, listener: Listener) -> None:
    """Says which file is used, and what has left it; refuses a cluster of another project."""
    project = wanted.project
    assert project
    engine = discovery.engine_if_any()
    if not wanted.names:
        name = wanted.options[0].get("name")
        if engine and name:
            discovery.refuse_foreign(engine, name, project)
        return
    listener(Event("note", text=f"using {project.path}"))
    for note in project.notes:
        listener(Event("note", text=note))
    if engine:
        discovery.note_orphans(engine, project, listener)
