"""Copying between this machine and a node, with the meaning that ``docker cp`` gives to paths.

A folder is copied into a folder that is there, else it becomes the destination; ``SOURCE/.`` is what is in the folder.
Unlike there, a link that is itself the source is followed, and what is copied into a node is root's.
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

from minicluster.errors import EngineError, MiniclusterError
from minicluster.model.results import Copied

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine

_CHUNK = 1 << 20


@dataclass(frozen=True)
class _Here:
    """A file or folder of this machine that is to go into nodes."""

    word: str  #: as the user gave it
    path: str
    folder: bool
    content: bool  #: what is in the folder, rather than the folder

    @property
    def name(self) -> str:
        """What it is called where it comes to lie in a folder; "" for a folder's content."""
        return "" if self.content else os.path.basename(os.path.abspath(self.word))


def to_nodes(engine: Engine, nodes: Sequence[tuple[str, str]], source: str, path: str) -> tuple[Copied, ...]:
    """Copies a file or folder into nodes, given as pairs of a node's name and its container's, all at once.

    Nothing is written before every node and every file of the source was looked at.
    """
    from minicluster.executor.parallel import at_once

    with _telling(source):
        here = _look(source)
        entries, left_out = _walk(here)
    targets = at_once([partial(_target, engine, node, container, here, path) for node, container in nodes])

    def one(node: str, container: str, folder: str, name: str) -> Copied:
        count = _Count()
        engine.write_archive(container, folder, _pack(entries, name, count))
        destination = f"{node}:{PurePosixPath(folder, name)}"
        return Copied(node, source, destination, count.files, count.bytes, tuple(left_out))

    return tuple(at_once([partial(one, *node, *target) for node, target in zip(nodes, targets, strict=True)]))


def _look(source: str) -> _Here:
    path = os.path.realpath(source)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise MiniclusterError(f"there is no {source} here") from None
    folder = stat.S_ISDIR(mode)
    if not folder and not stat.S_ISREG(mode):
        raise MiniclusterError(f"{source} is neither a file nor a folder")
    if not folder and source.endswith(("/", "/.")):
        raise MiniclusterError(f"{source} is no folder")
    return _Here(source, path, folder, folder and (source == "." or source.endswith("/.") or path == "/"))


def _walk(here: _Here) -> tuple[list[tuple[str, str]], list[str]]:
    """What is to be copied as pairs of a path and its name within the copy, and what is left out.

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
        if not os.path.islink(path) and not os.access(path, os.R_OK):
            raise PermissionError(13, os.strerror(13), path)
    return found, left_out


def _target(engine: Engine, node: str, container: str, here: _Here, path: str) -> tuple[str, str]:
    """The folder of a node to unpack in, and the name to get there ("" for into the folder itself)."""
    found = engine.stat_path(container, path)
    if found and found.kind == "folder":
        return found.path, here.name
    if found and here.folder:
        raise MiniclusterError(f"{path} of {node} is no folder", f"The folder {here.word} cannot replace it.")
    if not found and not here.folder and path.endswith(("/", "/.")):
        raise MiniclusterError(f"{node} has no folder {path}")
    at = PurePosixPath("/", found.path if found else path)
    parent = engine.stat_path(container, str(at.parent))
    if parent is None or parent.kind != "folder":
        raise MiniclusterError(
            f"{node} has no folder {at.parent}",
            "cp makes no folders above the destination.",
            f"`minicluster exec {node} -- mkdir -p {at.parent}` makes it.",
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
                continue  # a folder's content alone: the folder there stays as it is
            # Here rather than around the whole call: to the engine's client an OSError is a broken connection.
            with _telling(path):
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
    with _telling(path), open(path, "rb") as file:
        while left:
            chunk = file.read(min(left, _CHUNK))
            if not chunk:
                raise MiniclusterError(f"{path} got shorter while it was read")
            left -= len(chunk)
            yield chunk
    yield bytes(-size % tarfile.BLOCKSIZE)


def from_node(engine: Engine, node: str, container: str, path: str, destination: str) -> Copied:
    """Copies a file or folder of a node to this machine: beside the destination first, then into its place.

    A copy that fails while it is read leaves the destination as it was.
    """
    found = engine.stat_path(container, path)
    if found is None:
        raise MiniclusterError(f"{node} has no {path}")
    folder = found.kind == "folder"
    if found.kind == "other":
        raise MiniclusterError(f"{path} of {node} is neither a file nor a folder")
    if not folder and path.endswith(("/", "/.")):
        raise MiniclusterError(f"{path} of {node} is no folder")
    with _telling(destination):
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
            staged.settle(final)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return Copied(node, f"{node}:{path}", str(final), staged.files, staged.bytes, tuple(staged.left_out))


def _destination(destination: str, name: str, folder: bool) -> Path:
    final = Path(destination)
    if final.is_dir():
        return Path(os.path.realpath(final)) / name
    if final.exists() and folder:
        raise MiniclusterError(f"{destination} is no folder", "A folder cannot replace it.")
    if destination.endswith("/") and not folder:
        raise MiniclusterError(f"there is no folder {destination} here")
    if not final.parent.is_dir():
        raise MiniclusterError(f"there is no folder {final.parent} here", "cp makes no folders above the destination.")
    return final


class _Staged:
    """A copy beside its destination, until it is whole.

    What a node sends is not trusted: no name may lead out of the copy, nothing is written through a link (they are made
    last), links that lead out are not kept, nor are devices. tarfile's own filters do about that, but Python 3.10 and
    the 3.11 of Debian 12 may be without them.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = self.bytes = 0
        self.left_out: list[str] = []
        self._folders: dict[str, tarfile.TarInfo] = {}

    def unpack(self, chunks: Iterator[bytes]) -> None:
        """Takes in an archive whose names begin with the name of what is copied."""
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
            raise tarfile.TarError(f"{name} leads out of it")
        return self.root.joinpath(*(part for part in parts if part not in ("", ".")))

    def _link(self, links: dict[Path, str]) -> None:
        for path, target in links.items():
            if os.path.realpath(path.parent) != str(path.parent):
                raise tarfile.TarError(f"{path.relative_to(self.root)} lies behind a link")
            os.symlink(target, path)
        root = str(self.root)
        kept = dict(links)
        while True:  # what a link leads to may lie behind another that goes
            out = [p for p in kept if os.path.commonpath([root, os.path.realpath(p)]) != root]
            if not out:
                break
            for path in out:
                path.unlink()
                self.left_out.append(f"{path.relative_to(self.root)} -> {kept.pop(path)} (leads out of the copy)")
        self.files += len(kept)

    def settle(self, final: Path) -> None:
        """Moves the copy to its place, or into the folder that is there."""
        _check(self.root, final)
        made = [name for name in self._folders if not (final / name).exists()]
        _move(self.root, final)
        for name in reversed(
            made
        ):  # last, and from within: a folder need not be writable, and has the time it is given
            _finish(final / name, self._folders[name])


def _finish(path: Path, entry: tarfile.TarInfo) -> None:
    os.chmod(path, entry.mode & 0o777)
    os.utime(path, (entry.mtime, entry.mtime))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _check(staged: Path, final: Path) -> None:
    """Raises where the copy cannot get into its place: a file and a folder meet, or a folder is not writable."""
    if not os.path.lexists(final):
        return
    if _is_folder(staged) and _is_folder(final):
        if not os.access(final, os.W_OK | os.X_OK):
            raise MiniclusterError(f"cannot write into {final}", "It is not writable for this user.")
        for child in staged.iterdir():
            _check(child, final / child.name)
    elif _is_folder(staged) or _is_folder(final):
        raise MiniclusterError(f"{final} is in the way", "A folder and a file do not replace each other.")


def _move(staged: Path, final: Path) -> None:
    if _is_folder(staged) and _is_folder(final):
        for child in staged.iterdir():
            _move(child, final / child.name)
    else:
        os.replace(staged, final)


class _Stream(io.RawIOBase):
    """Chunks as a file to read from."""

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
def _telling(path: str) -> Iterator[None]:
    """Turns this machine's errors into ours."""
    try:
        yield
    except FileNotFoundError as error:
        raise MiniclusterError(f"there is no {error.filename or path} here") from error
    except OSError as error:
        raise MiniclusterError(f"cannot copy {error.filename or path}", error.strerror or str(error)) from error
