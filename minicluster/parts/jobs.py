"""Sources that need a container: programs are compiled, or taken out of Debian's packages.

Settings of this machine reach a job as its container's, which become part of no image.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from minicluster.engine import build_settings
from minicluster.engine.protocol import Engine, File, ImageBuild, Job
from minicluster.errors import DISK_FULL, FREE_SPACE, ImageError, Interrupted, MiniclusterError
from minicluster.leases import lock
from minicluster.model import labels
from minicluster.model.naming import PART_CACHE
from minicluster.parts.archive import below
from minicluster.parts.work import Unavailable, Work, keep, machine
from minicluster.profile import parts
from minicluster.profile.image_tag import file_hash

_ENDED = "minicluster-job: ended with "
_SAID = "minicluster-part: "
_ALIVE = 20.0  #: seconds between signs of life to a job, which waits 200 for one: the machine may be busy

#: Architecture -> variables with which Go calls its C compiler, which the Dockerfile of cross-ARCHITECTURE installs.
_CROSS_C = {"arm64": {"CC": "aarch64-linux-gnu-gcc", "PKG_CONFIG_PATH": "/usr/lib/aarch64-linux-gnu/pkgconfig"}}

_MEMORY = 5 << 30  #: bytes that a compilation may take
_waiting = threading.Condition()
_compiling = 0  #: compilations that run now


def go(work: Work) -> None:
    """Compiled from the Go module registry."""
    about = parts.go_of(work.spec.name, work.spec.version)
    module = about.module_version.get(work.spec.version, work.spec.version)
    env = {
        "PROGRAMS": _pairs(about.programs),
        "LINKS": _pairs(about.links),
        "DIRECTORY": about.directory,
        "TAGS": about.tags,
        "PROGRAM_TAGS": _pairs({name: tags.replace(" ", ",") for name, tags in about.program_tags.items()}),
        "LDFLAGS": work.filled(about.ldflags),
        "CGO_ENABLED": "1" if about.cgo else "0",
        "MODULE": f"{about.module}@{module}" if about.module_folder else "",
        "GOGC": "400",  # less frequent garbage collection is faster, and takes memory
        **build_settings.go_settings(),
    }
    cross = work.arch != machine(work.engine)
    if cross:
        env |= {"GOARCH": work.arch}
        if about.cgo:
            env |= _CROSS_C[work.arch]
    sources = tuple(
        File(f"/part/{name}", path.read_bytes())
        for name, path in parts.go_files(work.spec.name, work.spec.version).items()
    )
    image = _builder(work)
    if cross and about.cgo:
        image = _built(work, parts.build_folder() / f"cross-{work.arch}", image)
    work.engine.create_volume(PART_CACHE, {labels.BUILD: "part/cache"})
    with _turn(work):
        _run(work, "go", image, env, sources, {"/cache": PART_CACHE})


@contextmanager
def _turn(work: Work) -> Iterator[None]:
    """Waits until few enough parts are being compiled, as cores and memory of the engine's machine allow."""
    global _compiling
    most = max(1, min(work.engine.info.cpus, work.engine.info.memory // _MEMORY))
    with _waiting:
        while _compiling >= most:
            _waiting.wait(0.2)
            if work.cancel.is_set():
                raise Interrupted(f"stopped: waiting to compile {work.spec.name}")
        _compiling += 1
    try:
        yield
    finally:
        with _waiting:
            _compiling -= 1
            _waiting.notify_all()


def _pairs(names: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in names.items())


def _builder(work: Work) -> str:
    """The image in which parts are compiled."""
    return _built(work, parts.build_folder(), work.base)


def _built(work: Work, folder: Path, base: str) -> str:
    ref = f"minicluster/part-builder:{file_hash(folder / 'Dockerfile')[:12]}"
    with lock.building(ref, work.cancel, lambda: work.progress("waiting for the image with the compiler")):
        if not work.engine.has_image(ref):
            work.progress("installing the compiler")
            about = {labels.BUILD: "part/builder"}
            args = {"BASE": base, **build_settings.proxies()}
            build = ImageBuild(folder, ref, about, args)
            try:
                work.engine.build_image(build, work.progress, work.cancel)
            except ImageError as error:
                raise Unavailable(f"the compiler cannot be installed: {error.why or error.what}") from None
    return ref


def debian(work: Work) -> None:
    """Out of Debian's packages."""
    about = work.about.sources.debian
    assert about
    env = {
        "PACKAGES": " ".join(about.packages),
        "PROGRAMS": " ".join(about.programs),
        "VERSION": work.spec.version,
        "SUITE": about.suite,
    }
    _run(work, "debian", work.base, env, (), {})


def said(work: Work, program: bytes, arguments: Sequence[str]) -> list[str]:
    """What a program prints; [] where it cannot run in the base image."""
    command = ("/build/program", *arguments)
    files = (_script("job"), File(command[0], program, 0o755))
    with _running(work, work.base, command, {}, files, {}) as name:
        status, output = _follow(work, name)
        return output if status == 0 else []


def _script(name: str) -> File:
    return File(f"/build/{name}", (parts.build_folder() / name).read_bytes(), 0o755)


def _run(
    work: Work, script: str, image: str, env: Mapping[str, str], files: Sequence[File], volumes: Mapping[str, str]
) -> None:
    """Runs one of the scripts in ``_parts/_build`` in a container, and makes an image of what it leaves in /out."""
    bundle = build_settings.read_bundle()
    authorities = [File("/build/ca.pem", bundle)] if bundle else []
    trusted = {"SSL_CERT_FILE": "/build/ca.pem"} if bundle else {}
    all_env = {**build_settings.proxies(), **trusted, **env}
    all_files = (_script("job"), _script(script), *authorities, *files)
    with _running(work, image, (f"/build/{script}",), all_env, all_files, volumes) as name:
        _finish(work, script, name)


@contextmanager
def _running(
    work: Work,
    image: str,
    command: Sequence[str],
    env: Mapping[str, str],
    files: Sequence[File],
    volumes: Mapping[str, str],
) -> Iterator[str]:
    """The name of a container that runs a command by the script ``job``, for the block, which a cancellation ends."""
    name = f"minicluster-part-{work.spec.name}-{os.urandom(4).hex()}"
    about = {labels.BUILD: f"part/{work.spec.name}"}
    job = Job(name, image, ("/build/job", *command), env, volumes, tuple(files), about)
    engine = work.engine

    def stop() -> None:
        with suppress(MiniclusterError):  # what else is to be stopped is stopped all the same
            engine.kill_container(name)

    try:
        engine.create_job(job)
        engine.start_container(name)
        with work.cancel.calls(stop), _signs_of_life(engine, name):
            yield name
    except MiniclusterError:
        if work.cancel.is_set():  # its container is gone, whatever was being asked of it
            raise Interrupted(f"stopped: getting {work.spec.name} {work.spec.version}") from None
        raise
    finally:
        engine.remove_container(name)


def _finish(work: Work, source: str, container: str) -> None:
    """Waits until a job's command has ended, and makes an image of what it leaves."""
    status, output = _follow(work, container)
    if status != 0:
        said = [line.removeprefix(_SAID) for line in output if line.startswith(_SAID)]
        if full := next((line for line in output if DISK_FULL in line.lower()), ""):
            raise ImageError(
                f"{work.spec.name} {work.spec.version} cannot be built: the disk is full", full, FREE_SPACE
            )
        ended = "its container was killed" if status is None else f"ended with status {status}"
        raise Unavailable("\n".join(said or [*output[-10:], ended]))
    keep(work, source, below(work.engine.read_archive(container, "/out"), "out"))


def _follow(work: Work, container: str) -> tuple[int | None, list[str]]:
    """A job's status and the end of its output, once its command has ended; None where the container has."""
    output: list[str] = []
    for raw in work.engine.logs(container, follow=True):
        line = raw.decode(errors="replace").strip()
        if line.startswith(_ENDED):
            return int(line.removeprefix(_ENDED)), output
        if line:
            output = [*output[-30:], line]
            work.progress(line)
    return None, output


@contextmanager
def _signs_of_life(engine: Engine, container: str) -> Iterator[None]:
    ended = threading.Event()

    def touch() -> None:
        while not ended.wait(_ALIVE):
            with suppress(MiniclusterError, TimeoutError):  # the next one may succeed
                engine.exec(container, ["touch", "/tmp/alive"], timeout=_ALIVE)

    thread = threading.Thread(target=touch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
