"""Archives of programs: reads the wanted files of a download, and packs them as a part's image has them."""

from __future__ import annotations

import fnmatch
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from minicluster.errors import ImageError, Interrupted

if TYPE_CHECKING:
    from minicluster.parts.work import Work

#: Machine of an ELF file, at offset 18 -> architecture in Go's names: https://refspecs.linuxfoundation.org/elf
_MACHINES = {0x3E: "amd64", 0xB7: "arm64", 0x28: "arm", 0x03: "386", 0x15: "ppc64le", 0x16: "s390x", 0xF3: "riscv64"}


#: What reading a damaged archive raises; the last two are zipfile's, of encryption and of unknown methods.
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,
    NotImplementedError,
)


def members(file: IO[bytes], work: Work, where: str) -> Iterator[tuple[str, int, IO[bytes]]]:
    """The wanted files of an archive: path in the image, size and content. The whole file, if it is no archive."""
    about = work.about.sources.release
    wanted = {work.filled(name): work.filled(path) for name, path in (about.files if about else {}).items()}
    found = dict.fromkeys(wanted, False)

    def places(name: str) -> Iterator[str]:
        name = name.removeprefix("./")
        for pattern, path in wanted.items():
            if pattern and fnmatch.fnmatchcase(name, pattern):
                found[pattern] = True
                yield path + (Path(name).name if path.endswith("/") else "")

    file.seek(0)
    start = file.read(4)
    file.seek(0)
    try:
        if start[:2] == b"PK":
            with zipfile.ZipFile(file) as archive:
                for entry in archive.infolist():
                    for path in places(entry.filename):
                        yield path, entry.file_size, of_machine(archive.read(entry), work, entry.filename)
        elif start == b"\x7fELF":
            programs = [path for path in wanted.values() if not path.endswith("/")]
            if len(programs) != 1:
                raise ImageError(
                    f"{where} is one program, which {work.spec.name} is not",
                    f"Needed: {', '.join(Path(name).name for name in wanted)}.",
                    "Name an archive of the project's release.",
                )
            found = {}
            content = file.read()
            yield programs[0], len(content), of_machine(content, work, where)
        else:
            with tarfile.open(fileobj=file, mode="r:*") as tar:
                for member in tar:
                    if work.cancel.is_set():
                        raise Interrupted(f"stopped: unpacking {where}")
                    for path in places(member.name) if member.isfile() else ():
                        inner = tar.extractfile(member)
                        assert inner
                        yield path, member.size, of_machine(inner.read(), work, member.name)
                while tar.fileobj and tar.fileobj.read(1 << 20):
                    pass  # up to the checksum of a compressed file
    except _DAMAGED as error:
        raise ImageError(
            f"{where} cannot be unpacked",
            f"The archive is damaged or incomplete: {str(error).partition(chr(10))[0].rstrip(':')}.",
            "Fetch it again, or name another file.",
        ) from None
    if lacking := [name for name, there in found.items() if not there]:
        raise ImageError(
            f"{where} is not a release of {work.spec.name} {work.spec.version}",
            f"It has no file {lacking[0]}." if lacking[0] else "It is a program, not an archive.",
            "Name an archive of the project's release.",
        )


def machine_of(content: bytes) -> str:
    """The architecture of a program, by its first 20 bytes; "" where it is none."""
    if content[:4] != b"\x7fELF":
        return ""
    return _MACHINES.get(int.from_bytes(content[18:20], "little"), "another architecture")


def of_machine(content: bytes, work: Work, name: str) -> IO[bytes]:
    """A file's content. Raises ``ImageError`` if it is a program of another architecture than the engine's."""
    is_ = machine_of(content)
    if is_ and is_ != work.arch:
        raise ImageError(
            f"{name} is a program for {is_}, and the engine's machine is {work.arch}",
            "",
            f"Name the archive for linux-{work.arch}.",
        )
    return io.BytesIO(content)


def packed(members: Iterable[tuple[str, int, IO[bytes]]]) -> Iterator[bytes]:
    """A tar of programs, as it is made."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, size, content in members:
            info = tarfile.TarInfo(path)
            info.size, info.mode = size, 0o644 if path.endswith(".jar") else 0o755
            tar.addfile(info, content)
            yield out.getvalue()
            out.seek(0)
            out.truncate()
    yield out.getvalue()


def below(archive: Iterator[bytes], folder: str) -> Iterator[bytes]:
    """The same tar, with what is in one of its folders at its root."""
    out = io.BytesIO()
    reader = _Reader(archive)
    with (
        tarfile.open(fileobj=reader, mode="r|") as source,
        tarfile.open(fileobj=out, mode="w") as target,
    ):
        for member in source:
            member.name = member.name.removeprefix(folder).lstrip("/")
            if not member.name:
                continue
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            target.addfile(member, source.extractfile(member) if member.isfile() else None)
            yield out.getvalue()
            out.seek(0)
            out.truncate()
    yield out.getvalue()


class _Reader(io.RawIOBase):
    """Chunks as a file that is read from start to end."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._rest) < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._rest += chunk
        taken, self._rest = (self._rest, b"") if size < 0 else (self._rest[:size], self._rest[size:])
        return taken
