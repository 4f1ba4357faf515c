"""A cluster's entries in the user's own kubeconfig: merged, kept up to date, removed.

Which file that is follows kubectl (client-go's ``tools/clientcmd``). Each entry of ours has an
extension ``minicluster``, which kubectl keeps when it changes or renames the entry. So nothing else is touched, and
all that must be remembered is in the file itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicluster import paths
from minicluster.contrib.kubernetes import locked_file
from minicluster.errors import MiniclusterError, UsageError
from minicluster.operations import client_folder

if TYPE_CHECKING:
    from minicluster.cluster import Cluster
    from minicluster.contrib.kubernetes.yamledit import Document

_FILE = "kubeconfig"  # its name in the client's folder
_MARK = "minicluster"  # name of the extension
_KINDS = {"clusters": "cluster", "users": "user", "contexts": "context"}  # a kubeconfig's lists, and an item's content
_HERE = "minicluster.contrib.kubernetes.kubeconfig"
_NEW = "apiVersion: v1\nkind: Config\n"

Config = dict[str, Any]


def text(cluster: Cluster) -> str:
    """The kubeconfig in a cluster's client folder, as ``write_client_files`` wrote it.

    Raises:
        UsageError: its profile has none.
    """
    if not has_one(cluster):
        raise UsageError(
            f"cluster {cluster.name} has no kubeconfig",
            f"It was created from profile {cluster.spec.profile}.",
            "Name a cluster of the kubernetes profile with -c; `minicluster ls` lists them.",
        )
    return _own(cluster.name).read_text(encoding="utf-8")


def has_one(cluster: Cluster) -> bool:
    """Whether a cluster has a kubeconfig: its profile has one."""
    return any(file.path == _FILE for file in cluster.spec.client_files)


def target() -> Path:
    """The user's kubeconfig: the first file in $KUBECONFIG that exists, else the last; ~/.kube/config without any."""
    users = _users()
    return next((path for path in users if os.path.exists(path)), users[-1])


def _users() -> list[Path]:
    """Files that ``minicluster env`` adds to $KUBECONFIG are left out: they belong to their clusters."""
    named = [Path(word) for word in os.environ.get("KUBECONFIG", "").split(os.pathsep) if word]
    return [path for path in named if not _is_ours(path)] or [paths.home() / ".kube" / "config"]


def current_context() -> str:
    """What kubectl takes as the current context: that of the first of the user's files that has one; "" for none."""
    for path in _users():
        with contextlib.suppress(MiniclusterError, OSError, ValueError):
            if name := _document(path.read_text(encoding="utf-8"), path).data.get("current-context"):
                return str(name)
    return ""


def context_of(cluster: str) -> str:
    """The name of a cluster's context."""
    return str(_load(_own(cluster))["current-context"])


def merge(cluster: str, file: Path) -> None:
    """Adds a cluster's entries to a file and makes its context the current one; ``down`` undoes both.

    Args:
        cluster: name of a cluster whose client's folder has a kubeconfig.

    Raises:
        MiniclusterError: the file cannot be edited, locked or written, or has entries of these names that are not ours.
            The file is unchanged.
    """
    if _is_ours(file):
        raise UsageError(f"{file} belongs to a cluster", "It is removed with the cluster.", "Name another with --file.")
    file = Path(os.path.abspath(file))
    new = _load(_own(cluster))
    with _editing(file) as document:
        config = document.data if document else {}
        _refuse_others(config, new, cluster, file)
        marks = [_mark(entry, "contexts") for entry in _entries(config, "contexts")]
        # A file that merging created is removed with the last of our clusters in it.
        mark: Config = {"created": "file"} if document is None or any("created" in mark for mark in marks) else {}
        document = document or _document(_NEW, file)
        current = _current(config, cluster)
        mark |= {key: current[key] for key in ("before", "missing") if key in current} or _before(document)
        for kind in _KINDS:
            document = _put(document, kind, new, cluster, mark if kind == "contexts" else {})
        document = document.put((), "current-context", new["current-context"])
        # Recorded before it is written: if this process is killed in between, nothing stays for good.
        client_folder.on_write(cluster, f"{_HERE}:renew", {"file": str(file)})
        client_folder.before_removal(cluster, f"{_HERE}:forget", {"file": str(file)})
        locked_file.write(file, document.text)


def unmerge(cluster: str, file: Path) -> bool:
    """Removes a cluster's entries from a file, and restores the current context that was replaced.

    Entries stay if the user has given the cluster another authority: then they are the user's.

    Returns:
        Whether there was anything to remove.

    Raises:
        MiniclusterError: the file cannot be edited, locked or written. The file is unchanged.
    """
    if not _mentions(file, cluster):
        return False
    with _editing(file) as document:
        if document is None or _is_anothers(document.data, cluster):
            return False
        current = _current(document.data, cluster)
        created = False
        before = document
        for kind in _KINDS:
            marks = [_mark(entry, kind) for entry in _entries(document.data, kind)]
            ours = [at for at, mark in enumerate(marks) if mark.get("cluster") == cluster]
            for at in reversed(ours):
                document = document.remove((kind, at))
            if len(ours) == len(marks):
                document = _restore_list(document, kind, marks)
            created |= any("created" in marks[at] for at in ours)
        if document is before:
            return False
        if current:
            document = _restore_current(document, current)
        if (
            created
            and "#" not in document.text
            and not any(value for key, value in document.data.items() if key not in ("apiVersion", "kind"))
        ):
            os.unlink(os.path.realpath(file))
        else:
            locked_file.write(file, document.text)
    return True


def renew(cluster: str, file: str) -> None:
    """Updates a cluster's entries in a file, as far as they are still there and the cluster's."""
    path = Path(file)
    if not _mentions(path, cluster):
        return
    try:
        new = _load(_own(cluster))
        with _editing(path) as document:
            if document is None or _is_anothers(document.data, cluster):
                return
            before = document
            for kind in ("clusters", "users"):
                if any(_mark(entry, kind).get("cluster") == cluster for entry in _entries(document.data, kind)):
                    document = _put(document, kind, new, cluster, {})
            if document is not before:
                locked_file.write(path, document.text)
    except MiniclusterError as error:
        raise MiniclusterError(
            f"{file} has an outdated address of cluster {cluster}",
            _sentence(error),
            f"Correct it: `minicluster kubeconfig --merge -c {cluster} --file {file}`.",
        ) from error


def forget(cluster: str, file: str) -> None:
    """Removes the entries of a cluster that is being removed."""
    try:
        unmerge(cluster, Path(file))
    except MiniclusterError as error:
        raise MiniclusterError(
            f"{file} still has cluster {cluster}",
            _sentence(error),
            f"Remove it: `minicluster kubeconfig --unmerge -c {cluster} --file {file}`.",
        ) from error


def merged(cluster: str) -> list[Path]:
    """The files that a cluster was merged into."""
    return [Path(data["file"]) for call, data in client_folder.noted(cluster, "forget") if call == f"{_HERE}:forget"]


def _sentence(error: MiniclusterError) -> str:
    return f"{error.what}: {error.why}" if error.why else f"{error.what}."


def _own(cluster: str) -> Path:
    return paths.client_directory(cluster) / _FILE


def _is_ours(path: Path) -> bool:
    return paths.clients_directory().resolve() in path.resolve().parents


# Entries


def _entries(config: Config, kind: str) -> list[Config]:
    return config.get(kind) or []


def _inner(entry: Config, kind: str) -> Config:
    inner = entry.get(_KINDS[kind])
    return inner if isinstance(inner, dict) else {}


def _mark_at(entry: Config, kind: str) -> int | None:
    """The position of our mark among an entry's extensions."""
    extensions = _inner(entry, kind).get("extensions")
    for at, one in enumerate(extensions if isinstance(extensions, list) else []):
        if isinstance(one, dict) and one.get("name") == _MARK and isinstance(one.get("extension"), dict):
            return at
    return None


def _mark(entry: Config, kind: str) -> Config:
    """What we remember of an entry in the entry itself; empty if it is not ours."""
    at = _mark_at(entry, kind)
    return {} if at is None else {"before": [], **_inner(entry, kind)["extensions"][at]["extension"]}


def _put(document: Document, kind: str, new: Config, cluster: str, about: Config) -> Document:
    """Adds the new entry of a kind, or updates the one of the same name."""
    (entry,) = new[kind]
    entries = _entries(document.data, kind)
    mark = {"cluster": cluster, "authority": _authority(new), **_list_before(document, kind), **about}
    inner = {**_inner(entry, kind), "extensions": [{"name": _MARK, "extension": mark}]}
    index = next((at for at, old in enumerate(entries) if old["name"] == entry["name"]), None)
    if index is None:
        made = {"name": entry["name"], _KINDS[kind]: inner}
        if document.data.get(kind) is None:
            return document.put((), kind, [made])
        return document.append((kind,), made)
    if kind != "contexts":
        return document.put((kind, index), _KINDS[kind], inner)
    # What the user has added to a context, such as a namespace, stays.
    content = (kind, index, _KINDS[kind])
    for key, value in _inner(entry, kind).items():
        document = document.put(content, key, value)
    extension = _mark_at(entries[index], kind)
    assert extension is not None  # _refuse_others
    return document.put((*content, "extensions", extension), "extension", mark)


def _list_before(document: Document, kind: str) -> Config:
    """What was there instead of a list, if it has only entries of ours: no such key, or a word for null."""
    entries = _entries(document.data, kind)
    marks = [_mark(entry, kind) for entry in entries]
    if entries:
        return next(({"list": mark["list"]} for mark in marks if "list" in mark), {})
    if kind not in document.data:
        return {"list": "absent"}
    return {"list": document.word(kind)} if document.data[kind] is None and document.word(kind) else {}


def _restore_list(document: Document, kind: str, marks: list[Config]) -> Document:
    """Undoes what `_list_before` remembers of a list that is empty again."""
    before = next((mark["list"] for mark in marks if "list" in mark), None)
    if before == "absent":
        return document.remove((kind,))
    return document if before is None else document.put((), kind, before)


def _authority(config: Config) -> str:
    """Identifies the authority of a config's first cluster."""
    data = str(_inner(config["clusters"][0], "clusters").get("certificate-authority-data"))
    return hashlib.sha256(data.encode()).hexdigest()[:16]


def _is_anothers(config: Config, cluster: str) -> bool:
    """Whether the user has turned the cluster's entry into one of another cluster.

    The server may differ: through a tunnel, for which the authority may be missing, it is still the same cluster.
    Another authority means another cluster.
    """
    for entry in _entries(config, "clusters"):
        mark, inner = _mark(entry, "clusters"), _inner(entry, "clusters")
        verified = "certificate-authority-data" in inner or "certificate-authority" in inner
        if mark.get("cluster") == cluster and verified and mark.get("authority") != _authority({"clusters": [entry]}):
            return True
    return False


def _refuse_others(config: Config, new: Config, cluster: str, file: Path) -> None:
    for kind, word in _KINDS.items():
        names = {entry["name"] for entry in new[kind]}
        for entry in _entries(config, kind):
            others = _mark(entry, kind).get("cluster") != cluster or _is_anothers(config, cluster)
            if entry["name"] in names and others:
                raise MiniclusterError(
                    f"{file} already has a {word} {entry['name']}",
                    "minicluster did not add it, or it was changed to another cluster.",
                    "Remove or rename it, or name another file with --file.",
                )


def _current(config: Config, cluster: str) -> Config:
    """The mark of the current context if that is the cluster's; else empty."""
    for entry in _entries(config, "contexts"):
        mark = _mark(entry, "contexts")
        if entry["name"] == config.get("current-context") and mark.get("cluster") == cluster:
            return mark
    return {}


def _before(document: Document) -> Config:
    """The current context. If it is one of our clusters, which may be removed first, also those before it."""
    if "current-context" not in document.data:
        return {"before": []}
    name = document.word("current-context")
    contexts = {entry["name"]: _mark(entry, "contexts") for entry in _entries(document.data, "contexts")}
    if name not in contexts:
        return {"before": [name], "missing": name}
    known = contexts[name]
    missing = {"missing": known["missing"]} if "missing" in known else {}
    return {"before": list(dict.fromkeys([name, *known.get("before", [])])), **missing}


def _restore_current(document: Document, mark: Config) -> Document:
    names = {entry["name"] for entry in _entries(document.data, "contexts")} | {mark.get("missing")}
    for name in mark["before"]:
        if name in names:  # those that were removed meanwhile stay so
            return document.put((), "current-context", name)
    return document.remove(("current-context",))


# The file


@contextlib.contextmanager
def _editing(file: Path) -> Iterator[Document | None]:
    """Holds the lock of a file while its document, or None if there is no such file, is edited."""
    with locked_file.locked(file):
        try:
            document = _document(file.read_bytes().decode(), file)
        except FileNotFoundError:
            document = None
        except (OSError, UnicodeDecodeError) as error:
            raise MiniclusterError(f"{file} cannot be read", str(error)) from None
        try:
            yield document
        except ValueError as error:  # yamledit's InvalidDocument, which is imported only where it is needed
            raise _refused(file, str(error)) from None


def _mentions(file: Path, cluster: str) -> bool:
    """Whether a file may have entries of a cluster: cheaper than parsing it."""
    try:
        content = file.read_bytes()
        return cluster.encode() in content and _MARK.encode() in content
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _refused(file: Path, why: str) -> MiniclusterError:
    fix = "Correct it (`kubectl config view` reads it too), or name another file with --file."
    return MiniclusterError(f"{file} is not a kubeconfig that can be edited", why, fix)


def _document(content: str, file: Path) -> Document:
    from minicluster.contrib.kubernetes.yamledit import Document, InvalidDocument

    try:
        document = Document(content)
    except InvalidDocument as error:
        raise _refused(file, str(error)) from None
    config = document.data
    if config.get("apiVersion") not in (None, "v1") or config.get("kind") not in (None, "Config"):
        raise _refused(file, f"It is {config.get('apiVersion')} {config.get('kind')}, not v1 Config.")
    for kind in _KINDS:
        if not isinstance(_entries(config, kind), list):
            raise _refused(file, f"Its {kind} are not a list.")
        if not all(isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in _entries(config, kind)):
            raise _refused(file, f"One of its {kind} has no name.")
    return document


def _load(file: Path) -> Config:
    """A cluster's own kubeconfig, which has one entry of each kind."""
    from minicluster.contrib.kubernetes.yamledit import load

    config: Config = load(file.read_text(encoding="utf-8"))
    return config
