"""Sources that are downloads: a project's release, Maven's repository, an image, and what the user gives."""

from __future__ import annotations

import io
import os
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from minicluster.engine.protocol import Job
from minicluster.errors import ImageError
from minicluster.model import labels
from minicluster.parts import jobs
from minicluster.parts.archive import machine_of, members, of_machine, packed
from minicluster.parts.download import verified
from minicluster.parts.work import Unavailable, Work, keep
from minicluster.profile import parts

_MAVEN = "https://repo1.maven.org/maven2"
_PULL_PATIENCE = 5.0  #: seconds for a registry's first answer


def release(work: Work) -> None:
    """The project's own download, with the checksum that is known or published."""
    about, version = work.about.sources.release, work.about.versions.get(work.spec.version)
    assert about
    pins = dict(version.sha256) if version else {}
    url = work.filled(about.url)
    known = pins.get(work.arch, "")  # type: ignore[call-overload]
    file, pinned = verified(url, known, work.filled(about.checksum), work.progress, work.note, work.cancel)
    with file:
        keep(work, "release", packed(members(file, work, url)), pinned=pinned)


def given(work: Work) -> None:
    """From a file or an address that the user gives, which holds what a release does, or one program."""
    source = shown = work.spec.source
    if source.startswith("https://"):
        address = urllib.parse.urlsplit(source)
        checksum = address._replace(path=f"{address.path}.sha256").geturl()
        host = address.netloc.rpartition("@")[2]  # what may be a secret is kept nowhere
        shown = urllib.parse.urlunsplit((address.scheme, host, address.path, "", ""))
        try:
            file, _pinned = verified(source, "", checksum, work.progress, work.note, work.cancel, mirror=False)
        except Unavailable as error:
            raise ImageError(
                f"{work.spec.name} cannot be fetched from {shown}",
                str(error),
                f"Its checksum must be at {shown}.sha256. Or download it yourself: --set {work.spec.name}.source=FILE.",
            ) from None
    else:
        file = open(parts.given_file(work.spec.name, source), "rb")  # noqa: SIM115
    with file:
        _check_version(work, file, shown)
        keep(work, shown, packed(members(file, work, shown)), pinned=False)


def _check_version(work: Work, file: IO[bytes], where: str) -> None:
    """Refuses programs that say another version than the one that was asked for."""
    program, *arguments = work.about.says or [""]
    content = next(
        (inner.read() for path, _size, inner in members(file, work, where) if Path(path).name == program), b""
    )
    if not machine_of(content):
        return  # a script, or no program that says it
    work.progress("asking it for its version")
    found = re.search(r"\d+\.\d+[\w.+~-]*", "\n".join(jobs.said(work, content, arguments)))
    wanted = work.spec.version.removeprefix("v")
    if found and not re.match(rf"{re.escape(wanted)}(?!\d)", found[0]):
        raise ImageError(
            f"{where} has {work.spec.name} {found[0]}, not {work.spec.version}",
            f"`{' '.join(work.about.says)}` says so.",
            f"Choose its version: --set {work.spec.name}.version={found[0]}, or name another file.",
        )


def maven(work: Work) -> None:
    """Files of Maven's central repository."""
    about = work.about.sources.maven
    assert about

    def jars() -> Iterator[tuple[str, int, IO[bytes]]]:
        for number, one in enumerate(about.artifacts, 1):
            group, name, version = work.filled(one.artifact).split(":")
            work.progress(f"downloading {name} ({number} of {len(about.artifacts)})")
            url = f"{_MAVEN}/{group.replace('.', '/')}/{name}/{version}/{name}-{version}.jar"
            file, _pinned = verified(url, one.sha256, "", lambda _line: None, work.note, work.cancel)
            with file:
                content = file.read()
            yield work.filled(one.path), len(content), io.BytesIO(content)

    keep(work, "maven", packed(jars()))


def image(work: Work) -> None:
    """Out of an image: a container of it is created, never started."""
    about = work.about.sources.image
    assert about
    ref = work.filled(about.ref)
    if not work.engine.has_image(ref):
        try:
            work.engine.pull_image(ref, work.progress, timeout=_PULL_PATIENCE, cancel=work.cancel)
        except ImageError as error:
            raise Unavailable(error.why or error.what) from None
    name = f"minicluster-part-{work.spec.name}-{os.urandom(4).hex()}"
    work.engine.create_job(Job(name, ref, ("/",), {}, {}, (), {labels.BUILD: f"part/{work.spec.name}"}))
    try:

        def programs() -> Iterator[tuple[str, int, IO[bytes]]]:
            for path, to in about.files.items():
                stat = work.engine.stat_path(name, path)
                if stat is None or stat.kind != "file":
                    raise Unavailable(f"{ref} has no file {path}")
                content = work.engine.get_file(name, stat.path)
                yield to, len(content), of_machine(content, work, path)

        keep(work, f"image {ref}", packed(programs()))
    finally:
        work.engine.remove_container(name)
