"""Loads images of the engine, or of archives on this machine, into the nodes of a cluster that can hold images."""

from __future__ import annotations

import contextlib
import math
import os
import re
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from minicluster.errors import ImageError, Interrupted, MiniclusterError, NodeFailed, UsageError
from minicluster.host import spool
from minicluster.model.events import Event, Listener
from minicluster.model.image_ids import DIGEST, Held, Wanted, full_name, parse_held, short_name
from minicluster.model.naming import container_name
from minicluster.model.results import Loaded
from minicluster.operations.nodes import Nodes, node_names
from minicluster.paths import expanded

if TYPE_CHECKING:
    from minicluster.engine.protocol import Cancel, Engine
    from minicluster.model.spec import Spec
    from minicluster.plan.load import LoadPlan, Source
    from minicluster.plan.steps import Plan

_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*")
_ID = re.compile(r"(?:sha256:)?[0-9a-f]{1,64}")  # or its beginning
_NAME = re.compile(
    r"([A-Za-z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:\w[\w.-]{0,127})?"
)
_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst")
_ASK_TIMEOUT = 20.0  # seconds that a node has to list its images


def plan_load(engine: Engine, spec: Spec, source: str, nodes: Nodes = ()) -> Plan:
    """What loading an image or an archive would do.

    Args:
        source: as for :func:`load`.
        nodes: names or roles; none: every node that can hold images.

    Raises:
        UsageError: such nodes hold no images, or there is no such file.
        ImageError: the engine has no such image.
        NodeFailed: a node does not run.
    """
    work = _load(engine, spec, nodes)
    with _opened(engine, source) as found:
        return work.plan(found.source).plan


def load(
    engine: Engine,
    spec: Spec,
    source: str,
    nodes: Nodes = (),
    *,
    listener: Listener,
    cancel: Cancel | None = None,
) -> Loaded:
    """Loads an image or an archive into nodes, all at once. What a node has is not sent: a further name is a tag.

    Args:
        source: an image of the engine; or a file: a path, or ``-`` for standard input.
        cancel: once set, it is as if the user pressed Ctrl-C; for one of several clusters, in a thread.

    Raises:
        UsageError, ImageError, NodeFailed: as :func:`plan_load` does.
        ImageError: a node refused it.
        Interrupted: when cancelled.
    """
    from minicluster.executor.executor import Run, execute

    work = _load(engine, spec, nodes)
    with _opened(engine, source) as found, contextlib.ExitStack() as saved:
        planned, wanted, file = work.plan(found.source), found.source, found.file
        if planned.sent and work.held and file is None:
            # The engine may know the image by another digest than nodes do: the archive has all of them.
            file = saved.enter_context(spool.temporary())
            with spool.writing():
                wanted = replace(wanted, images=_saved(engine, wanted, file, listener, cancel))
            planned = work.plan(wanted)
        run = Run(engine, None, math.inf, listener, archives={source: file} if file else {})
        try:
            if planned.plan:
                with cancel.calls(run.cancel.set) if cancel else contextlib.nullcontext():
                    execute(planned.plan, run)
        except NodeFailed as error:
            why = f"{error.what}: {error.why}".removesuffix(": ")
            raise ImageError(
                f"{source} could not be loaded", why, error.fix or f"See `minicluster logs -c {spec.cluster}`."
            ) from error
        names = tuple(short_name(name) for image in wanted.images for name in image.names)
        return Loaded(source, names or (source,), planned.sent, planned.tagged, planned.present)


def build(
    engine: Engine,
    spec: Spec,
    folder: str,
    name: str,
    dockerfile: str | None = None,
    nodes: Nodes = (),
    *,
    listener: Listener,
) -> str:
    """Builds an image on the engine, as ``docker build`` does; returns its name.

    Args:
        nodes: into which it will be loaded: if that cannot be, it is not built.
        dockerfile: a path from the working directory; None: the folder's Dockerfile.

    Raises:
        UsageError: the folder cannot be read, the name is none, or nodes hold no images.
        NodeFailed: a node does not run.
        ImageError: the build fails.
    """
    from minicluster.engine import build_settings
    from minicluster.engine.protocol import Cancel, ImageBuild
    from minicluster.executor.signals import shielded
    from minicluster.operations import build_context

    if not _NAME.fullmatch(name):
        raise UsageError(f"-t {name}: not a name of an image", "", "Write it as NAME:TAG, in lower case.")
    _load(engine, spec, nodes).look()
    cancel = Cancel()
    with tempfile.NamedTemporaryFile(dir=spool.folder()) as context:
        inner = build_context.write(expanded(folder), dockerfile, context)
        context.flush()
        listener(Event("progress", "", "building image", f"building {name}"))
        wanted = ImageBuild(Path(context.name), name, {}, build_settings.proxies(), inner)
        try:
            engine.build_image(wanted, lambda line: listener(Event("progress", "", "building image", line)), cancel)
        except KeyboardInterrupt:
            with shielded():
                cancel.set()
            raise
        except ImageError as error:
            error.fix = f"Correct {dockerfile or os.path.join(folder, 'Dockerfile')}."
            if "buildkit" in error.why.lower():
                error.fix = (
                    f"Build it with BuildKit (`docker build -t {name} {folder}`), then `minicluster load {name}`."
                )
            raise
    listener(Event("done", "", "building image"))
    return name


@dataclass
class _Load:
    """Where images are loaded, and what is there."""

    engine: Engine
    spec: Spec
    nodes: Sequence[str]
    held: Mapping[str, Sequence[Held]] | None = None  #: node -> its images, once they were asked for

    def look(self) -> list[str]:
        """The names of the nodes, which all run and accept images."""
        from minicluster.plan import load as planning
        from minicluster.plan.observed import observe

        names = planning.holders(self.spec, self.nodes)
        planning.check_running(
            self.spec, observe(self.spec.cluster, self.engine.containers(self.spec.cluster), [], []), names
        )
        return names

    def plan(self, source: Source) -> LoadPlan:
        from minicluster.plan import load as planning

        names = self.look()
        if self.held is None:
            self.held = _ask(self.engine, self.spec, names) if source.images else {}
        path = f"/var/tmp/minicluster-load-{secrets.token_hex(6)}.tar"  # others may load the same image
        return planning.load(self.spec, source, names, path, self.held)


def _load(engine: Engine, spec: Spec, words: Nodes) -> _Load:
    return _Load(engine, spec, node_names(spec, words) if words else [])


def _ask(engine: Engine, spec: Spec, nodes: Sequence[str]) -> dict[str, tuple[Held, ...]]:
    """What nodes have; one that does not answer is left out."""
    from functools import partial

    from minicluster.executor.parallel import at_once

    def ask(node: str) -> tuple[Held, ...] | None:
        found: tuple[Held, ...] = ()
        hooks = [hook for hook in spec.held if hook.on in ("node", node.rpartition("-")[0])]
        for hook in hooks:
            try:
                result = engine.exec(container_name(spec.cluster, node), hook.run, timeout=_ASK_TIMEOUT)
            except (MiniclusterError, TimeoutError):
                return None
            if result.exit_code:
                return None
            found += parse_held(result.stdout)
        return found if hooks else None

    answers = zip(nodes, at_once([partial(ask, node) for node in nodes]), strict=True)
    return {node: answer for node, answer in answers if answer is not None}


@dataclass(frozen=True)
class _Found:
    """What a user's word means: an image of the engine, or an open file."""

    source: Source
    file: IO[bytes] | None = None


@contextlib.contextmanager
def _opened(engine: Engine, word: str) -> Iterator[_Found]:
    from minicluster.plan.load import Source

    image = None if _is_path(word) else _of_engine(engine, word)
    if image:
        yield _Found(Source(word, (image,)))
    elif _is_path(word) or word.endswith(_SUFFIXES) or os.path.exists(word):
        from minicluster.operations import image_archive

        with contextlib.ExitStack() as files:
            file = files.enter_context(_file(word))
            label = "standard input" if word == "-" else word
            archive = image_archive.read(file, label, engine.info.platform)
            files.callback(archive.file.close)
            yield _Found(Source(word, archive.images, archive=True), archive.file)
    elif not _REFERENCE.fullmatch(word):
        raise UsageError(f"{word!r} is neither an image nor a file", "", "Name an image of the engine, or an archive.")
    else:
        raise ImageError(
            f"no such image or file: {word}",
            "Only images of the engine, and archives on this machine, can be loaded.",
            f"Pull it (`docker pull {word}`) or build it.",
        )


def _is_path(word: str) -> bool:
    return word in ("-", ".", "..") or word.startswith(("/", "./", "../", "~"))


def _of_engine(engine: Engine, word: str) -> Wanted | None:
    """An image of the engine by a name, or an ID or its beginning; None where there is none."""
    if not _REFERENCE.fullmatch(word):
        return None
    name, images = full_name(word), engine.images()
    for image in images:
        if name in map(full_name, image.tags):
            return Wanted(frozenset({image.id}), (name,))
    if _ID.fullmatch(word):
        begun = {i.id for i in images if DIGEST.fullmatch(i.id) and i.id[7:].startswith(word.removeprefix("sha256:"))}
        if len(begun) == 1:
            return Wanted(frozenset(begun), ())
    try:
        return Wanted(frozenset(), ()) if engine.has_image(word) else None
    except MiniclusterError as error:  # such as a repository's name in capitals
        raise UsageError(f"{word!r} is not the name of an image", error.why or error.what) from None


def _file(word: str) -> IO[bytes]:
    """Opens an archive to be read.

    Raises:
        UsageError: there is no such file, or it cannot be read.
    """
    from minicluster.operations.image_archive import stored

    if word == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("standard input is a terminal", "", "Pipe an archive in: `docker save IMAGE | ...`.")
        return stored(sys.stdin.buffer)
    path = expanded(word)
    if path.is_dir():
        raise UsageError(
            f"{word} is a folder",
            "An archive is a file that `docker save` wrote.",
            f"To build an image from it: `minicluster load --build {word} -t NAME`.",
        )
    try:
        file = path.open("rb")
        return file if file.seekable() else stored(file)
    except OSError as error:
        raise UsageError(f"cannot read {word}", f"{error.strerror}.", "Check the path.") from None


def _saved(
    engine: Engine, source: Source, file: IO[bytes], listener: Listener, cancel: Cancel | None
) -> tuple[Wanted, ...]:
    """Saves an image of the engine into a file; returns it with every digest that its archive has."""
    from minicluster.operations import image_archive

    done = 0
    for chunk in engine.save_image(source.label):
        if cancel and cancel.is_set():
            raise Interrupted(f"stopped saving {source.label}")
        file.write(chunk)
        done += len(chunk)
        listener(Event("progress", "", "saving image", f"{source.label}: {done >> 20} MiB"))
    listener(Event("done", "", "saving image"))
    file.flush()  # os.pread does not see Python's buffer
    file.seek(0)
    (image,) = source.images
    found: tuple[Wanted, ...] = ()
    with contextlib.suppress(UsageError, ImageError):  # nodes may well read what is not understood here
        found = image_archive.read(file, source.label, engine.info.platform, convert=False).images
    return (replace(image, ids=image.ids.union(*(one.ids for one in found))),)
