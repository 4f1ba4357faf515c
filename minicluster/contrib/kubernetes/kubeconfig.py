"""A cluster's entries in the user's own kubeconfig: put there, kept up to date, taken out again.

Which file that is, and how it is locked, is as kubectl has it (client-go's ``tools/clientcmd``). What is ours there
carries a mark, an extension of the entry, which kubectl keeps when it changes or renames the entry; so nothing else is
ever touched, and all there is to remember stands in the file itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from minicluster import paths
from minicluster.errors import MiniclusterError, UsageError
from minicluster.operations import client

if TYPE_CHECKING:
    from minicluster.cluster import Cluster

PATIENCE = 5.0  # seconds that somebody else may hold the lock
_LOOK = 0.05  # seconds between two tries
_FILE = "kubeconfig"  # its name in the client's folder
_MARK = "minicluster"  # name of the extension
_KINDS = {"clusters": "cluster", "users": "user", "contexts": "context"}  # lists of a kubeconfig, and what they are of
_HERE = "minicluster.contrib.kubernetes.kubeconfig"

Config = dict[str, Any]


def text(cluster: Cluster) -> str:
    """The kubeconfig in a cluster's client folder, as ``write_client_files`` wrote it.

    Raises:
        UsageError: its profile has none.
    """
    if not any(file.path == _FILE for file in cluster.spec.client_files):
        raise UsageError(
            f"cluster {cluster.name} has no kubeconfig",
            f"It is of profile {cluster.spec.profile}.",
            "Name a cluster of the kubernetes profile with -c; `minicluster ls` lists them.",
        )
    return _own(cluster.name).read_text(encoding="utf-8")


def target() -> Path:
    """The user's kubeconfig: of those in $KUBECONFIG the first that exists, else the last; without any ~/.kube/config.

    Those that ``minicluster env`` puts there are passed over: they are no place for anything else.
    """
    named = [Path(word) for word in os.environ.get("KUBECONFIG", "").split(os.pathsep) if word]
    users = [path for path in named if not _is_ours(path)]
    if not users:
        return Path.home() / ".kube" / "config"
    return next((path for path in users if os.path.exists(path)), users[-1])


def merge(cluster: str, file: Path) -> None:
    """Puts a cluster's entries into a file, and makes them the current ones; ``down`` takes them out again.

    Args:
        cluster: whose client's folder has its kubeconfig.

    Raises:
        MiniclusterError: the file cannot be understood, locked or written, or has others' entries of these names.
            It is left as it was.
    """
    if _is_ours(file):
        raise UsageError(f"{file} is a cluster's own", "It goes with its cluster.", "Name another file with --file.")
    file = Path(os.path.abspath(file))
    new = _parse(_own(cluster).read_text(encoding="utf-8"), _own(cluster))
    with _locked(file):
        config = _read(file)
        _refuse_others(config, new, cluster, file)
        contexts = [_mark(entry, "contexts") for entry in (config or {}).get("contexts") or []]
        # Where there was no file, it goes with the last of our clusters in it.
        made = config is None or any(mark.get("made") for mark in contexts)
        config = config or {"apiVersion": "v1", "kind": "Config"}
        current = _current(config, cluster)
        before = current["before"] if current else _before(config)
        for kind in _KINDS:
            _put(config, kind, new, cluster, {"before": before, "made": made} if kind == "contexts" else {})
        config["current-context"] = new["current-context"]
        # First noted, then done: whoever is killed in between leaves nothing for good.
        client.on_write(cluster, f"{_HERE}:renew", {"file": str(file)})
        client.on_forget(cluster, f"{_HERE}:forget", {"file": str(file)})
        _write(file, config)


def unmerge(cluster: str, file: Path) -> bool:
    """Takes a cluster's entries out of a file, and makes the context current again that was it before.

    Entries stay where the user has made of the cluster's another one, by another authority: they are his by now.

    Returns:
        Whether there was something to take out.

    Raises:
        MiniclusterError: the file cannot be understood, locked or written. It is left as it was.
    """
    if not _mentions(file, cluster):
        return False
    with _locked(file):
        config = _read(file)
        if config is None or _is_anothers(config, cluster):
            return False
        current = _current(config, cluster)
        taken = []
        for kind in _KINDS:
            entries = config.get(kind) or []
            ours = [entry for entry in entries if _mark(entry, kind).get("cluster") == cluster]
            if ours:
                config[kind] = [entry for entry in entries if entry not in ours]
                taken += [_mark(entry, kind) for entry in ours]
        if not taken:
            return False
        if current:
            _go_back(config, current["before"])
        if any(mark.get("made") for mark in taken) and _is_empty(config):
            os.unlink(os.path.realpath(file))
        else:
            _write(file, config)
    return True


def renew(cluster: str, file: str) -> None:
    """Brings a cluster's entries in a file up to date, as far as they are still there and the cluster's."""
    path = Path(file)
    if not _mentions(path, cluster):
        return
    try:
        new = _parse(_own(cluster).read_text(encoding="utf-8"), _own(cluster))
        with _locked(path):
            config = _read(path)
            if config is None or _is_anothers(config, cluster):
                return
            there = [
                kind
                for kind in ("clusters", "users")
                if any(_mark(entry, kind).get("cluster") == cluster for entry in config.get(kind) or [])
            ]
            for kind in there:
                _put(config, kind, new, cluster, {})
            if there:
                _write(path, config)
    except MiniclusterError as error:
        raise MiniclusterError(
            f"{file} has an old address of cluster {cluster}",
            _sentence(error),
            f"`minicluster kubeconfig --merge -c {cluster} --file {file}` puts it right.",
        ) from error


def forget(cluster: str, file: str) -> None:
    """Takes a cluster that goes away out of a file."""
    try:
        unmerge(cluster, Path(file))
    except MiniclusterError as error:
        raise MiniclusterError(
            f"{file} still has cluster {cluster}",
            _sentence(error),
            f"`minicluster kubeconfig --unmerge -c {cluster} --file {file}` takes it out.",
        ) from error


def merged(cluster: str) -> list[Path]:
    """The files that a cluster was merged into."""
    return [Path(data["file"]) for call, data in client.noted(cluster, "forget") if call == f"{_HERE}:forget"]


def _sentence(error: MiniclusterError) -> str:
    return f"{error.what}: {error.why}" if error.why else f"{error.what}."


def _own(cluster: str) -> Path:
    return paths.client_directory(cluster) / _FILE


def _is_ours(path: Path) -> bool:
    return paths.clients_directory().resolve() in path.resolve().parents


# Entries


def _inner(entry: Any, kind: str) -> Config:
    inner = entry.get(_KINDS[kind])
    return inner if isinstance(inner, dict) else {}


def _mark(entry: Any, kind: str) -> Config:
    """What we remember of an entry in itself; empty where it is not ours."""
    extensions = _inner(entry, kind).get("extensions")
    for one in extensions if isinstance(extensions, list) else ():
        if isinstance(one, dict) and one.get("name") == _MARK and isinstance(one.get("extension"), dict):
            return {"before": [], **one["extension"]}
    return {}


def _put(config: Config, kind: str, new: Config, cluster: str, about: Mapping[str, Any]) -> None:
    """Puts the new entries of one kind where those of the same name are, or behind all others."""
    entries = config[kind] = list(config.get(kind) or [])
    for entry in new[kind]:
        at = next((i for i, old in enumerate(entries) if old["name"] == entry["name"]), None)
        # What the user has added to a context, such as a namespace, is still true.
        kept = _inner(entries[at], kind) if at is not None and kind == "contexts" else {}
        extensions = [e for e in kept.get("extensions") or [] if not (isinstance(e, dict) and e.get("name") == _MARK)]
        mark = {"cluster": cluster, "authority": _authority(new), **about}
        extensions.append({"name": _MARK, "extension": mark})
        made = {"name": entry["name"], _KINDS[kind]: {**kept, **_inner(entry, kind), "extensions": extensions}}
        if at is None:
            entries.append(made)
        else:
            entries[at] = made


def _authority(config: Config) -> str:
    """Tells the authority of a config's first cluster from others."""
    data = str(_inner(config["clusters"][0], "clusters").get("certificate-authority-data"))
    return hashlib.sha256(data.encode()).hexdigest()[:16]


def _is_anothers(config: Config, cluster: str) -> bool:
    """Whether the user has made the cluster's entry one of another cluster.

    The server may be another: by a tunnel, where the authority may be left out, it is the cluster all the same. The
    authority may not.
    """
    for entry in config.get("clusters") or []:
        mark, inner = _mark(entry, "clusters"), _inner(entry, "clusters")
        vouched = "certificate-authority-data" in inner or "certificate-authority" in inner
        if mark.get("cluster") == cluster and vouched and mark.get("authority") != _authority({"clusters": [entry]}):
            return True
    return False


def _refuse_others(config: Config | None, new: Config, cluster: str, file: Path) -> None:
    for kind, word in _KINDS.items():
        names = {entry["name"] for entry in new[kind]}
        for entry in (config or {}).get(kind) or []:
            others = _mark(entry, kind).get("cluster") != cluster or _is_anothers(config or {}, cluster)
            if entry["name"] in names and others:
                raise MiniclusterError(
                    f"{file} has a {word} {entry['name']} of its own",
                    "It was not minicluster that put it there, or it has been made another's since.",
                    "Remove or rename it, or name another file with --file.",
                )


def _current(config: Config, cluster: str) -> Config:
    """The mark of the current context where that is the cluster's; else empty."""
    for entry in config.get("contexts") or []:
        mark = _mark(entry, "contexts")
        if entry["name"] == config.get("current-context") and mark.get("cluster") == cluster:
            return mark
    return {}


def _before(config: Config) -> list[str]:
    """The current context and, where it is a cluster's of ours, which may go first, those that were it before."""
    if "current-context" not in config:
        return []
    name = config["current-context"] or ""
    known = next((_mark(entry, "contexts") for entry in config.get("contexts") or [] if entry["name"] == name), {})
    return list(dict.fromkeys([name, *known.get("before", [])]))


def _go_back(config: Config, before: list[str]) -> None:
    names = {entry["name"] for entry in config.get("contexts") or []}
    for name in before:
        if not name or name in names:
            config["current-context"] = name
            return
    del config["current-context"]


def _is_empty(config: Config) -> bool:
    return not any(value for key, value in config.items() if key not in ("apiVersion", "kind"))


# The file


class _Loader(yaml.SafeLoader):
    """Reads what kubectl reads as text as text: times, and numbers to the base of sixty."""


class _Dumper(yaml.SafeDumper):
    """Writes text in quotes where kubectl's YAML would take it for something else, though Python's would not."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, re.compile(r"[-+]?(0|[1-9][0-9]*)$") if tag.endswith(":int") else pattern)
        for tag, pattern in resolvers
        if not tag.endswith((":timestamp", ":float"))
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+\.[0-9]*$"), list("-+0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("[yYnN]$"), list("yYnN"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+.0-9][-+.\w]*$"), list("-+.0123456789"))


def _mentions(file: Path, cluster: str) -> bool:
    """Whether it is worth the while to read a file. What cannot be read may."""
    try:
        content = file.read_bytes()
        return cluster.encode() in content and _MARK.encode() in content
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _read(file: Path) -> Config | None:
    """What a file holds; None where it does not exist."""
    try:
        return _parse(file.read_text(encoding="utf-8"), file)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise MiniclusterError(f"{file} cannot be read", str(error)) from None


def _parse(content: str, file: Path) -> Config:
    def refused(why: str) -> MiniclusterError:
        fix = "Correct it (`kubectl config view` reads it too), or name another file with --file."
        return MiniclusterError(f"{file} is no kubeconfig that can be changed", why, fix)

    try:
        config = yaml.load(content, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise refused(" ".join(str(error).split())) from None
    if config is None:
        config = {"apiVersion": "v1", "kind": "Config"}
    if not isinstance(config, dict):
        raise refused("It is no mapping.")
    if config.get("apiVersion") not in (None, "v1") or config.get("kind") not in (None, "Config"):
        raise refused(f"It is {config.get('apiVersion')} {config.get('kind')}, not v1 Config.")
    for kind in _KINDS:
        entries = config.get(kind) or []
        if not isinstance(entries, list):
            raise refused(f"Its {kind} are no list.")
        if not all(isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in entries):
            raise refused(f"One of its {kind} has no name.")
    return config


def _write(file: Path, config: Config) -> None:
    """Replaces a file at once; one that a link leads to is replaced where it is."""
    real = Path(os.path.realpath(file))
    part = ""
    try:
        content = yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
        descriptor, part = tempfile.mkstemp(dir=real.parent, prefix=f".{real.name}.")  # for its owner alone
        with os.fdopen(descriptor, "w", encoding="utf-8") as new:
            with contextlib.suppress(FileNotFoundError), open(real, "r+b") as old:  # what may not be written stays
                before = os.fstat(old.fileno())
                os.fchmod(new.fileno(), before.st_mode & 0o7777)
                if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                    with contextlib.suppress(PermissionError):  # root keeps it the user's
                        os.fchown(new.fileno(), before.st_uid, before.st_gid)
            new.write(content)
        os.replace(part, real)
    except BaseException as error:
        if part:
            with contextlib.suppress(OSError):
                os.unlink(part)
        if isinstance(error, OSError):
            raise MiniclusterError(f"{file} cannot be written", str(error)) from None
        raise


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Holds kubectl's lock on a file: FILE.lock, which is there or not. Of a link also that on where it leads."""
    real = os.path.realpath(file)
    named = os.path.join(os.path.realpath(file.parent), file.name)
    held: list[str] = []
    try:
        for lock in sorted({f"{named}.lock", f"{real}.lock"}):  # in the same order for all
            _take(lock, file)
            held.append(lock)
        yield
    finally:
        for lock in held:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(lock)


def _take(lock: str, file: Path) -> None:
    end = time.monotonic() + PATIENCE
    try:
        os.makedirs(os.path.dirname(lock), mode=0o700, exist_ok=True)
        while not _create(lock):
            if time.monotonic() >= end:
                raise MiniclusterError(
                    f"{file} is being changed by somebody else",
                    f"{lock} has been there for {PATIENCE:g} s.",
                    "If no kubectl is at work with it, one was killed: remove that file.",
                )
            time.sleep(_LOOK)
    except OSError as error:
        raise MiniclusterError(f"{file} cannot be locked", str(error)) from None


def _create(lock: str) -> bool:
    try:
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return False
    return True
