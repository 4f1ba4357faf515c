"""The base image of builds: Debian 13 (trixie), pulled where a registry answers, else built from Debian packages."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from minicluster.engine import build_settings
from minicluster.engine.protocol import Cancel, Engine, ImageBuild, Progress
from minicluster.errors import ImageError, Interrupted
from minicluster.model import labels

REGISTRY = "debian:trixie-slim"
LOCAL = "minicluster/base:trixie"  #: the one that we bootstrap
SUITE = "trixie"
PULL_PATIENCE = 8.0  #: seconds for a registry's first answer

#: The authorities that this machine trusts, where apt needs them or a Dockerfile names the file.
AUTHORITIES = "etc/minicluster/authorities.pem"

_CHUNK = 1 << 20
_COPY = b"ARG BASE\nFROM ${BASE}\nCOPY etc /etc/\n"


def source(engine: Engine) -> str:
    """Where the base would come from, for ``doctor``: ``image REF``, ``registry or mmdebstrap``, ``registry``."""
    for ref in (REGISTRY, LOCAL):
        if engine.has_image(ref):
            return f"image {ref}"
    return "registry or mmdebstrap" if shutil.which("mmdebstrap") else "registry"


def provide(engine: Engine, progress: Progress, note: Progress, cancel: Cancel, *, authorities: bool = False) -> str:
    """The reference of a base image of the engine's; pulls or bootstraps one where it has none.

    Where this machine uses a mirror of Debian, it is one whose apt uses that, too.

    Args:
        authorities: it has the authorities that this machine trusts.

    Raises:
        ImageError: it can neither be pulled nor bootstrapped.
        Interrupted: when cancelled.
        UsageError: a setting of this machine is not valid.
    """
    files = _settings(authorities)
    ref = _plain(engine, progress, note, cancel)
    return _with(engine, ref, files, progress, cancel) if files else ref


def _plain(engine: Engine, progress: Progress, note: Progress, cancel: Cancel) -> str:
    for ref in (REGISTRY, LOCAL):
        if engine.has_image(ref):
            return ref
    progress(f"pulling {REGISTRY}")
    try:
        engine.pull_image(REGISTRY, progress, timeout=PULL_PATIENCE, cancel=cancel)
        return REGISTRY
    except ImageError as error:
        refused = error
    if cancel.is_set():
        raise Interrupted("stopped: providing the base image")
    if not shutil.which("mmdebstrap"):
        raise ImageError(
            f"no base image: {REGISTRY} cannot be pulled, and mmdebstrap, which builds it, is not installed",
            refused.why,
            "Install mmdebstrap (`apt-get install mmdebstrap`), or load an image of that name into the engine.",
        )
    note(f"{REGISTRY} cannot be pulled: building {LOCAL} from Debian packages (about a minute).")
    engine.import_image(_bootstrap(progress, cancel), LOCAL)
    return LOCAL


def _bootstrap(progress: Progress, cancel: Cancel) -> Iterator[bytes]:
    """A root file system as a tar, streamed: if we are killed meanwhile, nothing of it is left on disk."""
    command = ["mmdebstrap", "--variant=minbase", "--dpkgopt=path-exclude=/usr/share/man/*"]
    command += ['--aptopt=Acquire::Retries "5"', SUITE, "-", *_sources()]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL)
        assert process.stdout
        try:
            with cancel.calls(process.terminate):
                size = 0
                while chunk := process.stdout.read(_CHUNK):
                    size += len(chunk)
                    progress(f"bootstrapping {LOCAL}: {size >> 20} MB")
                    yield chunk
            code = process.wait()
        finally:
            process.stdout.close()
            if process.poll() is None:
                process.terminate()
                process.wait()
        if cancel.is_set():
            raise Interrupted("stopped: bootstrapping the base image")
        if code:
            log.seek(0)
            lines = log.read().decode(errors="replace").strip().splitlines()
            raise ImageError(
                f"mmdebstrap could not build the base image (status {code})",
                "\n".join(lines[-10:]),
                "Check that Debian's package mirrors can be reached from here.",
            )


def _sources() -> list[str]:
    """Lines for apt with this machine's mirror of Debian; none where the usual one is right."""
    archive, security = build_settings.debian_mirror()
    lines = [f"deb {archive} {SUITE} main", f"deb {archive} {SUITE}-updates main"] if archive else []
    return [*lines, *([f"deb {security} {SUITE}-security main"] if security else [])]


def _settings(authorities: bool) -> dict[str, bytes]:
    """Files with which apt uses this machine's mirror of Debian, and its authorities: path -> content."""
    sources, files, configuration = _sources(), {}, []
    if sources:
        files["etc/apt/minicluster/debian.list"] = "\n".join([*sources, ""]).encode()
        configuration += ['Dir::Etc::sourcelist "/dev/null";', 'Dir::Etc::sourceparts "/etc/apt/minicluster";']
    if (authorities or any(" https://" in line for line in sources)) and (bundle := build_settings.read_bundle()):
        files[AUTHORITIES] = bundle
        configuration.append(f'Acquire::https::CAInfo "/{AUTHORITIES}";')
    if configuration:
        files["etc/apt/apt.conf.d/00minicluster"] = "\n".join([*configuration, ""]).encode()
    return files


def _with(engine: Engine, base: str, files: dict[str, bytes], progress: Progress, cancel: Cancel) -> str:
    """An image with further files: they are copied, since a command would leave their content in its history."""
    found = engine.image(base)
    identity = found.id if found else base
    digest = hashlib.sha256(repr((identity, sorted(files.items()))).encode()).hexdigest()[:12]
    ref = f"minicluster/part-base:{digest}"
    if not engine.has_image(ref):
        with tempfile.TemporaryDirectory() as folder:
            for path, content in {"Dockerfile": _COPY, **files}.items():
                place = Path(folder, path)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
                place.chmod(0o644)  # the image has these permissions, not those of the user's umask
                for parent in place.relative_to(folder).parents[:-1]:
                    Path(folder, parent).chmod(0o755)
            about = {labels.BUILD: "part/base"}
            engine.build_image(ImageBuild(Path(folder), ref, about, {"BASE": base}), progress, cancel)
    return ref


def build_labels(profile: str, image: str) -> dict[str, str]:
    """The labels of an image that minicluster builds."""
    return {labels.BUILD: f"{profile}/{image}", labels.PROFILE: profile}
