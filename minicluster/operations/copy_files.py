"""``cp``: copies between this machine and nodes, with paths as ``docker cp`` interprets them.

A folder is copied into an existing folder, else it becomes the destination; ``SOURCE/.`` is the folder's content. Other
than with ``docker cp``, a source that is a link is followed, and what is copied into a node belongs to root.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from minicluster.errors import EngineError, Interrupted, MiniclusterError
from minicluster.model.results import Copied

if TYPE_CHECKING:
    from minicluster.engine.protocol import Cancel, Engine
    from minicluster.paths import AnyPath

_CHUNK = 1 << 20
_PATH = "Check the path."
_ANOTHER = "Choose another destination."


@dataclass(frozen=True)
class _Source:
    """A file or folder of this machine."""

    word: str  #: as the user gave it
    path: str
    folder: bool
    content: bool  #: the content of the folder, not the folder itself

    @property
    def name(self) -> str:
        """Its name within a destination folder; "" for a folder's content."""
        return "" if self.content else os.path.basename(os.path.abspath(self.word))


def to_nodes(engine: Engine, nodes: Sequence[tuple[str, str]], what: AnyPath, path: str) -> tuple[Copied, ...]:
    """Copies a file or folder into nodes, given as pairs of a node's name and its container's, all at once.

    Every node and every file of the source is checked before anything is written.
    """
    from minicluster.engine.protocol import Cancel
    from minicluster.executor.parallel import at_once

    source = os.fspath(what)
    with _translated(source):
        here = _look(source)
        entries, left_out = _walk(here)
    targets = at_once([partial(_target, engine, node, container, here, path) for node, container in nodes])

    cancel = Cancel()  # Ctrl-C and the error of one node end the copies to all

    def one(node: str, container: str, folder: str, name: str) -> Copied:
        count = _Count()
        engine.write_archive(container, folder, _until(cancel, _pack(entries, name, count)))
        destination = f"{node}:{PurePosixPath(folder, name)}"
        return Copied(node, source, destination, count.files, count.bytes, tuple(left_out))

    return tuple(
        at_once([partial(one, *node, *target) for node, target in zip(nodes, targets, strict=True)], cancel=cancel)
    )


def _until(cancel: Cancel, pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if cancel.is_set():
            raise Interrupted("the copy was interrupted")
        yield piece


def _look(source: str) -> _Source:
    path = os.path.realpath(source)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise MiniclusterError(f"no such file: {source}", "", _PATH) from None
    folder = stat.S_ISDIR(mode)
    if not folder and not stat.S_ISREG(mode):
        raise MiniclusterError(f"{source} is neither a file nor a folder", "", "Only files and folders can be copied.")
    if not folder and source.endswith(("/", "/.")):
        raise MiniclusterError(f"{source} is not a folder", "", "Remove the / at its end.")
    return _Source(source, path, folder, folder and (source == "." or source.endswith("/.") or path == "/"))


def _walk(here: _Source) -> tuple[list[tuple[str, str]], list[str]]:
    """What to copy, as pairs of a path and its name within the copy, and what is left out.

    Raises:
        OSError: something cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    found, left_out = [(here.path, "")], []
    for folder, folders, files in os.walk(here.path, onerror=fail) if here.folder else ():
        for name in sorted(folders + files):
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
                found.append((path, os.path.relpath(path, here.path)))
            else:
                left_out.append(f"{path} (neither a file nor a folder)")
    for path, _ in found:
        if not os.path.islink(path) and not _may(path, os.R_OK):
            raise PermissionError(13, os.strerror(13), path)
    return found, left_out


def _may(path: AnyPath, mode: int) -> bool:
    """Whether this process may do that with a file: with its capabilities, which the plain question leaves out."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _target(engine: Engine, node: str, container: str, here: _Source, path: str) -> tuple[str, str]:
    """The folder of a node to unpack in, and the name to give there ("" for into the folder itself)."""
    found = engine.stat_path(container, path)
    if found and found.kind == "folder":
        return found.path, here.name
    run = f"minicluster exec -c {container.removesuffix(f'-{node}')} {node} --"
    if found and here.folder:
        why = f"The folder {here.word} cannot replace it."
        raise MiniclusterError(f"{path} of {node} is not a folder", why, _ANOTHER)
    if not found and not here.folder and path.endswith(("/", "/.")):
        raise MiniclusterError(f"no such folder in {node}: {path}", "", f"Create it: `{run} mkdir -p {path}`.")
    at = PurePosixPath("/", found.path if found else path)
    parent = engine.stat_path(container, str(at.parent))
    if parent is None or parent.kind != "folder":
        raise MiniclusterError(
            f"no such folder in {node}: {at.parent}",
            "cp does not create the parent folders of the destination.",
            f"`{run} mkdir -p {at.parent}` creates it.",
        )
    return parent.path, at.name


@dataclass
class _Count:
    files: int = 0
    bytes: int = 0


def _pack(entries: Sequence[tuple[str, str]], name: str, count: _Count) -> Iterator[bytes]:
    """A tar of files of this machine, piece by piece."""
    with tarfile.TarFile(fileobj=io.BytesIO(), mode="w", format=tarfile.PAX_FORMAT) as shape:
        for path, below in entries:
            if not name and not below:
                continue  # a folder's content: the destination folder itself stays as it is
            # Not around the whole call: the engine's client takes an OSError for a broken connection.
            with _translated(path):
                entry = shape.gettarinfo(path, str(PurePosixPath(name, below)))
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = "root"
            yield entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
            if entry.isreg():
                yield from _content(path, entry.size)
                count.bytes += entry.size
            count.files += not entry.isdir()
    yield bytes(2 * tarfile.BLOCKSIZE)


def _content(path: str, size: int) -> Iterator[bytes]:
    left = size
    with _translated(path), open(path, "rb") as file:
        while left:
            chunk = file.read(min(left, _CHUNK))
            if not chunk:
                raise MiniclusterError(f"{path} was truncated while it was read", "", "Copy it again.")
            left -= len(chunk)
            yield chunk
    yield bytes(-size % tarfile.BLOCKSIZE)


def from_node(engine: Engine, node: str, container: str, path: str, where: AnyPath) -> Copied:
    """Copies a file or folder of a node to this machine: into a temporary folder first, which is then moved.

    A copy that fails while it is read leaves the destination unchanged.
    """
    destination = os.fspath(where)
    found = engine.stat_path(container, path)
    if found is None:
        raise MiniclusterError(f"no such file in {node}: {path}", "", _PATH)
    folder = found.kind == "folder"
    if found.kind == "other":
        raise MiniclusterError(
            f"{path} of {node} is neither a file nor a folder", "", "Only files and folders can be copied."
        )
    if not folder and path.endswith(("/", "/.")):
        raise MiniclusterError(f"{path} of {node} is not a folder", "", "Remove the / at its end.")
    with _translated(destination):
        name = "" if folder and (path == "." or path.endswith("/.")) else PurePosixPath("/", path).name
        final = _destination(destination, name, folder)
        into = final if final.is_dir() else final.parent
        staging = Path(tempfile.mkdtemp(prefix=".minicluster-cp-", dir=into))
        try:
            staged = _Staged(Path(os.path.realpath(staging)) / "copy")
            try:
                staged.unpack(engine.read_archive(container, found.path))
            except (tarfile.TarError, EOFError) as error:
                raise EngineError(
                    f"cannot read {path} of {node}", f"The engine sent a broken archive: {error}"
                ) from error
            staged.move_into_place(final)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return Copied(node, f"{node}:{path}", str(final), staged.files, staged.bytes, tuple(staged.left_out))


def _destination(destination: str, name: str, folder: bool) -> Path:
    final = Path(destination)
    if final.is_dir():
        return Path(os.path.realpath(final)) / name
    if final.exists() and folder:
        raise MiniclusterError(f"{destination} is not a folder", "A folder cannot replace it.", _ANOTHER)
    if destination.endswith("/") and not folder:
        raise MiniclusterError(f"no such folder: {destination}", "", "Create it first.")
    if not final.parent.is_dir():
        raise MiniclusterError(
            f"no such folder: {final.parent}",
            "cp does not create the parent folders of the destination.",
            "Create it first.",
        )
    return final


class _Staged:
    """A copy next to its destination, until it is complete.

    What a node sends is not trusted: no name may lead out of the copy, nothing is written through a link (links are
    created last), and neither links that lead out nor devices are kept. tarfile's filters do much of that, but Python
    3.10 and Debian 12's 3.11 may lack them.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = self.bytes = 0
        self.left_out: list[str] = []
        self._folders: dict[str, tarfile.TarInfo] = {}

    def unpack(self, chunks: Iterator[bytes]) -> None:
        """Unpacks an archive whose names begin with the name of what is copied."""
        links: dict[Path, str] = {}
        with tarfile.open(fileobj=_Stream(chunks), mode="r|") as tar:
            for entry in tar:
                path = self._path(entry.name)
                if entry.isdir():
                    path.mkdir(0o700, exist_ok=True)
                    self._folders[path.relative_to(self.root).as_posix()] = entry
                elif entry.issym():
                    links[path] = entry.linkname
                elif entry.islnk():
                    os.link(self._path(entry.linkname), path, follow_symlinks=False)
                    self.files += 1
                elif entry.isreg():
                    content = tar.extractfile(entry)
                    assert content
                    with open(path, "xb") as file:
                        shutil.copyfileobj(content, file, _CHUNK)
                    _finish(path, entry)
                    self.files += 1
                    self.bytes += entry.size
                else:
                    self.left_out.append(f"{entry.name} (neither a file nor a folder)")
        self._link(links)

    def _path(self, name: str) -> Path:
        parts = name.partition("/")[2].split("/")
        if ".." in parts:
            raise tarfile.TarError(f"{name} leads out of the copy")
        return self.root.joinpath(*(part for part in parts if part not in ("", ".")))

    def _link(self, links: dict[Path, str]) -> None:
        for path, target in links.items():
            if os.path.realpath(path.parent) != str(path.parent):
                raise tarfile.TarError(f"{path.relative_to(self.root)} is below a link")
            os.symlink(target, path)
        root = str(self.root)
        kept = dict(links)
        while True:  # the target of a link may be below another link that is removed
            out = [p for p in kept if os.path.commonpath([root, os.path.realpath(p)]) != root]
            if not out:
                break
            for path in out:
                path.unlink()
                self.left_out.append(f"{path.relative_to(self.root)} -> {kept.pop(path)} (leads out of the copy)")
        self.files += len(kept)

    def move_into_place(self, final: Path) -> None:
        """Moves the copy to its place, or into the existing folder."""
        _check(self.root, final)
        made = [name for name in self._folders if not (final / name).exists()]
        _move(self.root, final)
        # Last, and innermost first: a folder may be read-only, and writing into it changes its time.
        for name in reversed(made):
            _finish(final / name, self._folders[name])


def _finish(path: Path, entry: tarfile.TarInfo) -> None:
    os.chmod(path, entry.mode & 0o777)
    os.utime(path, (entry.mtime, entry.mtime))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _check(staged: Path, final: Path) -> None:
    """Raises where the copy cannot be moved: a file and a folder collide, or a folder is not writable."""
    if not os.path.lexists(final):
        return
    if _is_folder(staged) and _is_folder(final):
        if not _may(final, os.W_OK | os.X_OK):
            raise MiniclusterError(f"cannot write into {final}", "It is not writable for this user.", _ANOTHER)
        for child in staged.iterdir():
            _check(child, final / child.name)
    elif _is_folder(staged) or _is_folder(final):
        raise MiniclusterError(f"{final} exists", "A folder and a file do not replace each other.", _ANOTHER)


def _move(staged: Path, final: Path) -> None:
    if _is_folder(staged) and _is_folder(final):
        for child in staged.iterdir():
            _move(child, final / child.name)
    else:
        os.replace(staged, final)


class _Stream(io.RawIOBase):
    """A file object that reads chunks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        got = bytearray()
        while size < 0 or len(got) < size:
            if not self._rest:
                chunk = next(self._chunks, None)
                if chunk is None:
                    break
                self._rest = memoryview(chunk)
            part = self._rest[: size - len(got)] if size >= 0 else self._rest
            got += part
            self._rest = self._rest[len(part) :]
        return bytes(got)


@contextlib.contextmanager
def _translated(path: str) -> Iterator[None]:
    """Translates errors of this machine's file system."""
    try:
        yield
    except FileNotFoundError as error:
        raise MiniclusterError(f"no such file: {error.filename or path}", "", _PATH) from error
    except OSError as error:
        raise MiniclusterError(f"cannot copy {error.filename or path}", error.strerror or str(error), _PATH) from error
