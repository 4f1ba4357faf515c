"""Tags of images that are built: by a hash of the Dockerfile's folder, so that nothing is built twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minicluster.model.spec import PartSpec


def build_hash(directory: Path) -> str:
    """A hash of every file's name, executable bit and content."""
    digest = hashlib.sha256()
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        executable = path.stat().st_mode & 0o100 != 0
        content = path.read_bytes()
        digest.update(f"{path.relative_to(directory).as_posix()}\0{executable}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def file_hash(path: str | Path) -> str:
    """The SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def ref_on(ref: str, base: str) -> str:
    """The reference of an image that is built on one with the ID ``base``; ``ref`` where that is not known."""
    if not base:
        return ref
    repository, _, tag = ref.rpartition(":")
    return f"{repository}:{hashlib.sha256(f'{tag} {base}'.encode()).hexdigest()[:12]}"


def build_ref(
    profile: str,
    image: str,
    directory: Path,
    overlay_on: str = "",
    *,
    args: Mapping[str, str] | None = None,
    parts: Sequence[PartSpec] = (),
) -> str:
    """The reference of the image that is built from a folder.

    Args:
        overlay_on: the image that an overlay is added to.
        args: build arguments.
        parts: the parts that it is put together of.

    Raises:
        OSError: a file of the folder cannot be read.
    """
    digest = build_hash(directory)
    if overlay_on or args or parts:
        given = [overlay_on, dict(args or {}), [part.ref for part in parts]]
        more = json.dumps(given, sort_keys=True) if args or parts else overlay_on
        digest = hashlib.sha256(f"{digest}\0{more}".encode()).hexdigest()[:12]
    return f"minicluster/{profile}-{image}:{digest}"
