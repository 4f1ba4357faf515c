"""What a project file says of its clusters, with variables filled in and paths made absolute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicluster.errors import ProfileError, UsageError, nearest

if TYPE_CHECKING:
    from minicluster.model.spec import RegistrySpec
    from minicluster.profile.yamldoc import Document

#: Option of ``up`` in an error -> the key of the file.
_KEYS = {"--size": "size", "--set": "set", "--image": "image", "--port": "ports", "--network": "networks"}
_KEYS |= {"--disk": "disk"}
_KEYS |= {"--mount": "mounts", "--restart": "restart", "--bind-address": "bind_address"}
_KEYS |= {"--place": "place"}
_KEYS |= {"--registry-mirror": "registry_mirrors", "--registry": "registries", "--ca": "ca"}


@dataclass(frozen=True)
class Mount:
    """A file or folder of this machine in nodes."""

    role: str
    host: str  #: absolute
    path: str
    read_only: bool

    def __str__(self) -> str:
        return f"{self.role}:{self.host}:{self.path}{':ro' if self.read_only else ''}"


@dataclass(frozen=True)
class Registry:
    """A registry that nodes pull images from."""

    host: str
    mirrors: tuple[str, ...]
    ca: str  #: absolute path; "" where there is none
    insecure: bool
    credentials: bool

    def __str__(self) -> str:
        return self.host


@dataclass(frozen=True)
class Definition:
    """One cluster of the file."""

    name: str
    profile: str  #: name, or absolute path
    size: Mapping[str, int]
    set: Mapping[str, str]
    image: Mapping[str, str]
    disk: Mapping[str, str]
    ports: Mapping[str, int]
    bind_address: str
    mounts: tuple[Mount, ...]
    networks: tuple[str, ...]
    registry_mirrors: tuple[str, ...]
    registries: tuple[Registry, ...]
    ca: str  #: absolute path; "" where there is none
    restart: str
    load: tuple[str, ...]
    apply: tuple[str, ...]  #: absolute paths
    ttl: str  #: as it is written; "" where there is none
    hosts: tuple[str, ...] = ()
    place: Mapping[str, str] = field(default_factory=dict)  #: role or node -> hosts, separated by commas
    encrypt: bool = False


@dataclass(frozen=True)
class Project:
    """A project file that was read and is valid."""

    path: Path
    clusters: Mapping[str, Definition]
    document: Document
    notes: tuple[str, ...] = ()  #: what a user should know, such as variables without a value
    named: bool = False  #: by -f or $MINICLUSTER_FILE
    secret: Mapping[tuple[str | int, ...], Any] = field(default_factory=dict)  #: place -> what is written

    def get(self, name: str) -> Definition:
        """The cluster of that name.

        Raises:
            UsageError: the file has none.
        """
        if name not in self.clusters:
            raise UsageError(f"{self.path} has no cluster {name!r}", "", nearest(name, self.clusters))
        return self.clusters[name]

    def located(self, error: UsageError, name: str) -> UsageError:
        """An error about an option of ``up`` as one about the place in the file that gives it."""
        option, _, rest = error.what.partition(" ")
        key = _KEYS.get(option.removesuffix(":"))
        if key is None:
            return error
        at: tuple[str | int, ...] = ("clusters", name, key)
        below: Any = getattr(self.clusters[name], key)
        if isinstance(below, Mapping):
            # An option is NAME=VALUE: WHAT. A name may contain colons. Another value is the command line's.
            words = [word for word, value in below.items() if rest.startswith((f"{word}={value}:", f"{word}: "))]
            if not words:
                return error  # of the command line
            at = (*at, max(words, key=len))
        elif isinstance(below, tuple):
            found = [i for i, one in enumerate(below) if rest.startswith((f"{one}:", f"{one} ", f"{one},"))]
            if not found:
                return error
            at = (*at, found[0])
        elif not below or below not in rest:
            return error
        what = f"{self.document.where(at)}: {key}{':' * option.endswith(':')} {rest}"
        return type(error)(what, error.why, error.fix)


def arguments(project: Project, name: str) -> dict[str, Any]:
    """The keyword arguments of :meth:`minicluster.Cluster.up` for a cluster of the file.

    They are all of it: what an earlier ``up`` asked for and the file no longer says does not stay.
    """
    from minicluster.model.durations import seconds
    from minicluster.model.lease import Lease

    it = project.get(name)
    return {
        **shape(it),
        "name": name,
        "port": dict(it.ports),
        "bind_address": it.bind_address or None,
        "project": str(project.path),
        "lease": Lease.lasting(seconds(it.ttl)) if it.ttl else Lease(),
    }


def shape(it: Definition) -> dict[str, Any]:
    """The arguments that do not say which cluster it is: any number of them may be up at once."""
    return {
        "profile": it.profile,
        "size": dict(it.size),
        "set": dict(it.set),
        "image": dict(it.image),
        "disk": dict(it.disk),
        "networks": list(it.networks),
        "restart": it.restart,
        "load": list(it.load),
        "apply": list(it.apply),
        "mounts": [str(mount) for mount in it.mounts],
        "hosts": list(it.hosts),
        "place": dict(it.place),
        "encrypt": it.encrypt,
    }


def check(project: Project, name: str, registries: Sequence[RegistrySpec] = (), ca: str = "") -> None:
    """Refuses what ``up`` would refuse, as far as that can be known without an engine.

    Args:
        registries: what the cluster's nodes are to be told of.
        ca: the certificates that they are to trust, PEM.

    Raises:
        UsageError: something is wrong, with its place in the file.
    """
    from minicluster.model import published
    from minicluster.model.spec import Overrides, disk_settings
    from minicluster.profile import catalog
    from minicluster.profile.addressing import first_subnet
    from minicluster.profile.resolve import resolve

    it, at = project.get(name), ("clusters", name)
    check_files(project, name)
    values = {**it.set, **disk_settings(it.disk)}
    try:
        loaded = catalog.load(it.profile, values)
    except UsageError as error:
        located = project.located(error, name)
        if located is error and not isinstance(error, ProfileError):
            located = UsageError(f"{project.document.where((*at, 'profile'))}: {error.what}", error.why, error.fix)
        raise located from None
    try:
        overrides = Overrides(
            it.size,
            values,
            it.image,
            {published.port_name(key): port for key, port in it.ports.items()},
            it.restart,
            it.networks,
            tuple(published.mount(str(mount)) for mount in it.mounts),
            registries=tuple(registries),
            ca=ca,
        )
        spec = resolve(loaded, cluster=name, overrides=overrides, subnet=first_subnet(), source=it.profile)
    except UsageError as error:
        located = project.located(error, name)
        if located is error:
            located = UsageError(f"{project.document.where(at, key=True)}: {error.what}", error.why, error.fix)
        raise located from None
    for key, able in (("load", spec.load), ("apply", spec.apply)):
        if getattr(it, key) and not able:
            where = project.document.where((*at, key), key=True)
            what = f"{where}: profile {loaded.profile.name} has no {key} hook"
            raise UsageError(what, "", f"Remove {key}, or add the hook to the profile.")


def check_files(project: Project, name: str) -> None:
    """Refuses what is to be applied and does not exist."""
    for i, path in enumerate(project.get(name).apply):
        if not Path(path).exists():
            where = project.document.where(("clusters", name, "apply", i))
            fix = "A relative path begins in the file's folder."
            raise UsageError(f"{where}: no such file or folder: {path}", "", fix)
