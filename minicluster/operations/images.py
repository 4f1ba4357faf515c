"""Node images: built or pulled when needed, identified by the hash of their build, listed and removed."""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minicluster.engine import base_image, build_settings
from minicluster.engine.protocol import Cancel, Engine, ImageBuild
from minicluster.errors import Conflict, EngineError, ImageError, UsageError, nearest
from minicluster.executor import helper
from minicluster.executor.signals import shielded
from minicluster.leases import lock
from minicluster.model import labels, spec
from minicluster.model.events import Event, Listener, ignore
from minicluster.model.naming import PART_CACHE
from minicluster.operations import built_images
from minicluster.operations.given_images import ref_with
from minicluster.profile.image_tag import build_ref

if TYPE_CHECKING:
    from minicluster.paths import AnyPath

_ZSTD = b"\x28\xb5\x2f\xfd"
_SAVED = (
    "Use a file that `docker save` wrote. `docker export` writes a filesystem: `docker import` makes an image of that."
)


@dataclass(frozen=True)
class ImageInfo:
    """A node image, as ``image list`` shows it."""

    ref: str
    profile: str
    name: str
    size: int  #: bytes
    created: int  #: seconds since 1970
    in_use: bool  #: a node is created from it


@dataclass(frozen=True)
class PartInfo:
    """A part of node images that the engine has, as ``image list --parts`` shows it."""

    ref: str
    name: str
    version: str
    source: str  #: where it is from: release, go, maven, debian, image, or what the user gave
    license: str  #: SPDX identifier
    size: int  #: bytes


def provide(engine: Engine, profile: str, listener: Listener) -> Callable[[spec.ImageSpec, Cancel], None]:
    """What the executor calls for an image: builds or pulls it where the engine does not have it."""

    def have(image: spec.ImageSpec, cancel: Cancel) -> None:
        if image.source != "build" and not engine.has_image(image.overlay_on or image.ref):
            pull(engine, image, cancel, listener)
        if image.build:
            _build(engine, profile, image, cancel, listener)

    return have


def provide_helper(engine: Engine, listener: Listener) -> str:
    """The image of our helper container, built where the engine does not have it; returns its reference."""
    image = helper.image()
    if not engine.has_image(image.ref):
        provide(engine, "fault", listener)(image, Cancel())
    return image.ref


def pull(engine: Engine, image: spec.ImageSpec, cancel: Cancel, listener: Listener) -> None:
    """Pulls an image, or the one that it is built on.

    Raises:
        ImageError: no registry has it or answers.
        Interrupted: when cancelled.
    """
    ref = image.overlay_on or image.ref

    def progress(line: str) -> None:
        listener(Event("progress", "", "image", f"{ref}: {line}"))

    listener(Event("progress", "", "image", f"pulling {ref}"))
    try:
        engine.pull_image(ref, progress, cancel=cancel)
    except ImageError as error:
        error.fix = (
            f"Use another image: --image {image.name}=REF; or import one that `docker save` wrote on another machine:\n"
            "`minicluster image import FILE`; or configure a mirror of the registry (registry-mirrors in the "
            "engine's daemon.json)."
        )
        raise


def _build(
    engine: Engine, profile: str, image: spec.ImageSpec, cancel: Cancel, listener: Listener, *, force: bool = False
) -> None:
    def progress(line: str) -> None:
        listener(Event("progress", "", "image", line))

    folder = Path(image.build)
    expected = build_ref(profile, image.name, folder, image.overlay_on, args=image.args, parts=image.parts)
    if image.ref not in (expected, image.overlay_on and ref_with(engine, expected, image.overlay_on)):
        raise ImageError(
            f"image {image.ref} is missing, and its build has changed",
            f"{image.build} now builds another image"
            + (f", or {image.overlay_on} is another one." if image.overlay_on else "."),
            "`minicluster up` uses the build as it is now.",
        )
    with lock.building(image.ref, cancel, lambda: progress(f"{image.ref}: another minicluster process is building it")):
        if not force and engine.has_image(image.ref):
            return
        dockerfile = (folder / "Dockerfile").read_text(errors="replace")
        # Several images may be built at once, on a base image that does not exist yet.
        with lock.building(base_image.LOCAL, cancel, lambda: progress("waiting for the base image")):
            base_ref = base_image.provide(
                engine,
                progress,
                lambda text: listener(Event("note", text=text)),
                cancel,
                authorities=base_image.AUTHORITIES in dockerfile,
            )
        given = {"IMAGE": image.overlay_on} if image.overlay_on else {}
        about = base_image.build_labels(profile, image.name)
        if image.parts:
            from minicluster.parts import provide as part_supply  # imports pydantic: only where something is built

            note: Callable[[str], None] = lambda text: listener(Event("note", text=text))  # noqa: E731
            origins = part_supply.provide(engine, image.parts, base_ref, progress, note, cancel)
            about[labels.PARTS] = json.dumps(origins)
            given |= {f"PART_{part.name.upper().replace('-', '_')}": part.ref for part in image.parts}
        progress(f"building {image.ref}")
        args = {"BASE": base_ref, **given, **image.args}
        settings, refused = build_settings.arguments(dockerfile, args)
        for name in refused:
            why = f"{name} is not passed to the build of image {image.name}: the last stage's history would keep it."
            listener(Event("note", text=f"{why} Declare it only in a stage that the last one is not built on."))
        build = ImageBuild(folder, image.ref, about, settings | args)
        with built_images.tidy(engine, image.ref, image.overlay_on, progress, cancel) as noting:
            engine.build_image(build, noting, cancel)


def build(
    profile: str,
    names: Sequence[str] = (),
    force: bool = False,
    listener: Listener = ignore,
    engine: Engine | None = None,
    settings: Mapping[str, str] | None = None,
) -> list[str]:
    """Builds a profile's images ahead of time and returns their references.

    Args:
        names: in the profile; all images that it builds by default.
        force: rebuild those that exist.
        settings: overrides of the profile's settings, as ``--set`` takes them.
    """
    from minicluster.profile import catalog
    from minicluster.profile.resolve import built_images

    loaded = catalog.load(profile, settings)
    built = built_images(loaded)
    for name in names:
        if name not in built:
            raise UsageError(f"profile {loaded.profile.name} builds no image {name!r}", "", nearest(name, built))
    engine = engine or _connect(listener)
    refs = []
    cancel = Cancel()
    for name in names or built:
        image = built[name]
        if force or not engine.has_image(image.ref):
            try:
                _build(engine, loaded.profile.name, image, cancel, listener, force=force)
            except KeyboardInterrupt:
                with shielded():
                    cancel.set()
                raise
        refs.append(image.ref)
    return refs


def load(path: AnyPath, *, listener: Listener = ignore, engine: Engine | None = None) -> list[str]:
    """Loads the images of a file that ``docker save`` wrote, compressed or not; returns their references or IDs.

    Raises:
        UsageError: there is no such file, or it is not a tar archive.
        ImageError: it contains no image, or one that the engine refuses.
    """
    file = Path(path)
    try:
        size = file.stat().st_size
        with file.open("rb") as content:
            if content.read(4) != _ZSTD:  # which the engine reads and Python cannot
                tarfile.open(file, "r:*").close()
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(
            f"cannot read {file}", getattr(error, "strerror", None) or str(error), "Check the path."
        ) from None
    except tarfile.TarError:
        why = "It is neither a tar archive nor a compressed one." if size else "It is empty."
        raise UsageError(f"{file} is not an image archive", why, _SAVED) from None
    engine = engine or _connect(listener)

    def read() -> Iterator[bytes]:
        done = 0
        with file.open("rb") as content:
            while chunk := content.read(1 << 20):
                done += len(chunk)
                listener(Event("progress", "", "image", f"loading {file}: {done >> 20} of {size >> 20} MiB"))
                yield chunk

    try:
        return engine.load_images(read())
    except ImageError as error:
        why = error.why
        if "docker-import-" in why and "no such file" in why:  # the engine's own folder, in which it unpacks an archive
            why = "It has no image: a list of them (manifest.json), or a file that the list names, is missing."
        elif "unexpected EOF" in why:
            why = "It is cut short: the end of an archive is missing."
        raise ImageError(f"{file} contains no image that the engine can load", why, _SAVED) from error


def _connect(listener: Listener = ignore) -> Engine:
    from minicluster.engine.discover import connect

    return connect(start_private=True, listener=listener)


def listing(engine: Engine | None = None) -> list[ImageInfo]:
    """Every image that minicluster built, newest first, and the base image that it bootstrapped."""
    engine = engine or _connect()
    used = {container.image for container in engine.containers()}
    found = []
    for image in engine.images():
        built = image.labels.get(labels.BUILD, "")
        for ref in image.tags:
            # Labels are inherited: an image that a user built on top of ours carries them too, under another name.
            profile, _, name = built.partition("/")
            if ref == base_image.LOCAL or (built and ref.startswith(f"minicluster/{profile}-{name}:")):
                found.append(ImageInfo(ref, profile, name or "base", image.size, image.created, ref in used))
    return sorted(found, key=lambda info: -info.created)


def cache_size(engine: Engine | None = None) -> int | None:
    """The bytes of the compiler's cache; None where there is none."""
    return (engine or _connect()).volume_size(PART_CACHE)


def parts(engine: Engine | None = None) -> list[PartInfo]:
    """Every part that the engine has, by name."""
    engine = engine or _connect()
    found = []
    for image in engine.images():
        for ref in image.tags:
            if labels.PART in image.labels and ref.startswith("minicluster/part-"):
                name, version = image.labels[labels.PART].split(" ")
                unpinned = " (unpinned)" if image.labels.get(labels.UNPINNED) else ""
                source = image.labels.get(labels.SOURCE, "") + unpinned
                found.append(PartInfo(ref, name, version, source, image.labels.get(labels.LICENSE, ""), image.size))
    return sorted(found, key=lambda part: (part.name, part.version))


def remove_cache(engine: Engine | None = None) -> list[str]:
    """Removes the compiler's cache; returns its name, or nothing where there is none."""
    engine = engine or _connect()
    if engine.volume_size(PART_CACHE) is None:
        return []
    engine.remove_volume(PART_CACHE)
    return [PART_CACHE]


def remove(
    wanted: Sequence[str] = (), *, all: bool = False, unused_only: bool = False, engine: Engine | None = None
) -> list[str]:
    """Removes images by reference or by profile, or all that minicluster built; returns the references removed.

    Raises:
        UsageError: minicluster built no such image.
        EngineError: an image that was named is in use.
    """
    engine = engine or _connect()
    ours = listing(engine)
    chosen = list(ours) if all or unused_only else []
    for word in wanted:
        match = [i for i in ours if word in (i.ref, i.profile)]
        if not match:
            known = {name for i in ours for name in (i.ref, i.profile) if name}
            raise UsageError(f"minicluster has built no image {word!r}", "", nearest(word, known))
        chosen += match
    removed = []
    for info in dict.fromkeys(chosen):
        if info.in_use:
            if unused_only:
                continue
            raise EngineError(
                f"image {info.ref} is in use",
                "A node uses it.",
                "Delete the cluster first: `minicluster ls`, `minicluster down`.",
            )
        try:
            engine.remove_image(info.ref)
        except Conflict as error:
            if unused_only:
                continue
            raise EngineError(f"image {info.ref} is in use", error.why, "Remove what uses it first.") from error
        removed.append(info.ref)
    return removed
