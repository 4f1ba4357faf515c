"""What a build leaves on the engine without a name: images of its stages, and the one that had its reference before."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from minicluster.errors import MiniclusterError
from minicluster.leases import lock

if TYPE_CHECKING:
    from minicluster.engine.protocol import Cancel, Engine, Progress

_MADE = re.compile(r"-{2,3}> ([0-9a-f]{12,64})")  # the line that ends a step, by Docker and by Podman


@contextlib.contextmanager
def tidy(engine: Engine, ref: str, given: str, progress: Progress, cancel: Cancel) -> Iterator[Progress]:
    """Within the block an image is built; the value is its listener. Afterwards nothing unnamed is left of the build.

    Images of stages are removed only when no other minicluster process is building: it may be using them. One that a
    container uses stays, and so does the given image that the build begins with.
    """
    before, base = engine.image(ref), engine.image(given) if given else None
    made = {before.id.removeprefix("sha256:")} if before else set()
    kept = base.id if base else ""

    def noting(line: str) -> None:
        if match := _MADE.fullmatch(line):
            made.add(match[1])
        progress(line)

    try:
        with lock.building_any(cancel):
            yield noting
    finally:
        with contextlib.suppress(MiniclusterError):  # what is left is no reason to fail
            if _unnamed(engine, made, kept):
                with lock.building_any(cancel, alone=True):
                    for id in _unnamed(engine, made, kept):
                        with contextlib.suppress(MiniclusterError):
                            engine.remove_image(id)


def _unnamed(engine: Engine, made: set[str], kept: str) -> list[str]:
    """The IDs of those that have no name. The engine lists an image that others are built on only if it has one."""
    bare = [image.id for image in engine.images() if not image.tags and image.id != kept]
    return [id for id in bare if any(id.removeprefix("sha256:").startswith(prefix) for prefix in made)]
