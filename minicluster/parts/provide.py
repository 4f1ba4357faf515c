"""Provides the parts of node images: from the first source that has a part's version, kept as an image of its own.

An image appears in the engine only once it is whole: whatever ends this process, nothing half made is ever used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from minicluster.engine.protocol import Cancel, Engine, Progress
from minicluster.errors import ImageError, Interrupted, MiniclusterError
from minicluster.executor.parallel import at_once
from minicluster.leases import lock
from minicluster.model import labels
from minicluster.parts import downloads, jobs
from minicluster.parts.work import Unavailable, Work, machine
from minicluster.profile import parts

if TYPE_CHECKING:
    from minicluster.model.spec import PartSpec

#: Name of a source -> how it gives a part; anything else is the user's own.
_SOURCES: dict[str, Callable[[Work], None]] = {
    "release": downloads.release,
    "go": jobs.go,
    "maven": downloads.maven,
    "debian": jobs.debian,
    "image": downloads.image,
}


def provide(
    engine: Engine,
    wanted: Sequence[PartSpec],
    base: str,
    progress: Progress,
    note: Progress,
    cancel: Cancel,
    *,
    arch: str = "",
) -> dict[str, str]:
    """Gets the parts that the engine does not have, side by side.

    Args:
        arch: of the programs, as Go names it; by default that of the engine's machine.

    Returns:
        Part -> which source it is from: ``v3.6.16 (go)``.

    Raises:
        ImageError: a part is not available from any source.
        Interrupted: cancelled.
    """
    missing = [spec for spec in wanted if not engine.has_image(spec.ref)]
    ended = Cancel()  # the error of one part ends all
    with cancel.calls(ended.set):
        at_once(
            [partial(_provide_one, engine, spec, base, progress, note, ended, arch) for spec in missing], cancel=ended
        )
    if cancel.is_set():
        raise Interrupted("stopped: getting the parts of an image")
    made = {tag: image.labels for image in engine.images() for tag in image.tags}
    return {spec.name: _origin(spec, made.get(spec.ref, {})) for spec in wanted}


def _origin(spec: PartSpec, about: Mapping[str, str]) -> str:
    unpinned = ", unpinned" if about.get(labels.UNPINNED) else ""
    return f"{spec.version} ({about.get(labels.SOURCE, '?')}{unpinned})"


def _provide_one(
    engine: Engine, spec: PartSpec, base: str, progress: Progress, note: Progress, cancel: Cancel, arch: str
) -> None:
    def prefixed(line: str) -> None:
        progress(f"{spec.name} {spec.version}: {line}")

    with lock.building(spec.ref, cancel, lambda: prefixed("another minicluster process is getting it")):
        if engine.has_image(spec.ref):
            return
        work = Work(engine, spec, base, prefixed, note, cancel, arch or machine(engine))
        parts.check_source(spec.name, spec.version, spec.source)  # a file may be gone since it was asked for
        if work.version.notice:
            note(work.version.notice)
        refused: list[str] = []
        for source in parts.candidates(spec):
            try:
                _SOURCES.get(source, downloads.given)(work)
                return
            except Unavailable as error:
                refused.append(f"{source}: {error}")
            except MiniclusterError as error:
                error.why = "\n".join([*refused, error.why]) if refused else error.why
                raise
            if cancel.is_set():
                raise Interrupted(f"stopped: getting {spec.name} {spec.version}")
        raise ImageError(
            f"{spec.name} {spec.version} is not available from any source",
            "\n".join(refused),
            f"Name another one: --set {spec.name}.source=FILE or an https:// address, or another version.",
        )
