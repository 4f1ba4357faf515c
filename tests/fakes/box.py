"""A container in memory, and its files."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from minicluster.engine.protocol import Container, ContainerConfig, File, PathStat
from minicluster.errors import EngineError, NotFound


@dataclass
class Box:
    """A container and what is in it."""

    container: Container
    config: ContainerConfig | None = None
    files: dict[str, File] = field(default_factory=dict)
    folders: set[str] = field(default_factory=lambda: {"/", "/etc", "/var", "/root"})
    links: dict[str, str] = field(default_factory=dict)  #: path -> its target, absolute
    entries: dict[str, tarfile.TarInfo] = field(default_factory=dict)  #: as the last archive brought them, by path
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)  #: by network, of those it was connected to
    samples: int = 0
    starts: int = 0
    log: list[bytes] = field(default_factory=list)
    code: int = 0  #: the exit status, once it ended

    def to(self, state: str, code: int = 0) -> None:
        """Puts it into a state; one that is not alive publishes no port."""
        self.starts += state == "running" and not self.container.alive
        container = replace(self.container, state=state)
        ports = dict(self.config.ports) if self.config and container.alive else {}
        self.container, self.code = replace(container, ports=ports), code

    def put(self, files: Sequence[File]) -> None:
        """Writes files, and their folders as needed."""
        for file in files:
            self.files[file.path] = file
            self.folders |= {str(parent) for parent in PurePosixPath(file.path).parents}

    def get(self, path: str) -> bytes:
        """The content of a file."""
        path = self.links.get(path, path)
        if path not in self.files:
            raise NotFound(f"no file {path} in {self.container.name}")
        return self.files[path].content

    def stat(self, path: str) -> PathStat | None:
        """What is at a path."""
        path = str(PurePosixPath("/", path))
        path = self.links.get(path, path)
        if path in self.files:
            return PathStat(path, "file")
        return PathStat(path, "folder") if path in self.folders else None

    def tar(self, path: str) -> Iterator[bytes]:
        """What is at a path, as a tar, in pieces."""
        found = [
            at for at in sorted({*self.files, *self.folders, *self.links}) if at == path or at.startswith(f"{path}/")
        ]
        if not found:
            raise NotFound(f"no {path} in {self.container.name}")
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for at in found:
                entry = tarfile.TarInfo(str(PurePosixPath(path).name / PurePosixPath(at).relative_to(path)))
                content, entry.mode, entry.linkname = b"", 0o755, self.links.get(at, "")
                kind = tarfile.DIRTYPE if at in self.folders else tarfile.REGTYPE
                entry.type = tarfile.SYMTYPE if entry.linkname else kind
                if at in self.files:
                    content, entry.mode = self.files[at].content, self.files[at].mode
                elif at in self.entries:
                    entry.mode = self.entries[at].mode
                entry.mtime = self.entries[at].mtime if at in self.entries else 0.0
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        for start in range(0, len(buffer.getvalue()), 1000):  # pieces that end anywhere
            yield buffer.getvalue()[start : start + 1000]

    def untar(self, folder: str, data: bytes) -> None:
        """Unpacks a tar into a folder."""
        if folder in self.files:
            raise EngineError(f"{folder} in {self.container.name} is not a folder")
        if folder not in self.folders:
            raise NotFound(f"no folder {folder} in {self.container.name}")
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for entry in tar:
                path = str(PurePosixPath(folder, entry.name))
                if path in (self.files if entry.isdir() else self.folders):
                    raise EngineError(f"{path} in {self.container.name}: a file and a folder cannot replace each other")
                self.entries[path] = entry
                if entry.isdir():
                    self.folders.add(path)
                elif entry.issym():
                    self.links[path] = entry.linkname
                else:
                    file = tar.extractfile(entry)
                    assert file
                    self.files[path] = File(path, file.read(), entry.mode)
