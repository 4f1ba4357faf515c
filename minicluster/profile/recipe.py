"""Recipes: a Dockerfile and its files. An image is tagged by what its recipe says, so nothing is built twice."""

from __future__ import annotations

import hashlib
from pathlib import Path


def recipe_hash(directory: Path) -> str:
    """A hash of every file's name, executable bit and content."""
    digest = hashlib.sha256()
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        executable = path.stat().st_mode & 0o100 != 0
        content = path.read_bytes()
        digest.update(f"{path.relative_to(directory).as_posix()}\0{executable}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def recipe_ref(profile: str, image: str, directory: Path, given: str = "") -> str:
    """The reference that an image built from this recipe has; ``given`` is the image that the recipe fits out."""
    digest = recipe_hash(directory)
    if given:
        digest = hashlib.sha256(f"{digest}\0{given}".encode()).hexdigest()[:12]
    return f"minicluster/{profile}-{image}:{digest}"
