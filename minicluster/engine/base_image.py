"""The base image of recipes: Debian bookworm, from a registry where one answers, else made from its packages."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator

from minicluster.engine.protocol import Cancel, Engine, Progress
from minicluster.errors import ImageError, Interrupted
from minicluster.model import labels

REGISTRY = "debian:bookworm-slim"
LOCAL = "minicluster/base:bookworm"  #: the one that we bootstrap
SUITE = "bookworm"
PULL_PATIENCE = 8.0  #: seconds that a registry has for its first word

_CHUNK = 1 << 20


def source(engine: Engine) -> str:
    """Where the base would come from, for ``doctor``: ``image REF``, ``registry or mmdebstrap``, ``registry``."""
    for ref in (REGISTRY, LOCAL):
        if engine.has_image(ref):
            return f"image {ref}"
    return "registry or mmdebstrap" if shutil.which("mmdebstrap") else "registry"


def provide(engine: Engine, progress: Progress, note: Progress, cancel: Cancel) -> str:
    """The reference of a base image that the engine has; pulls or bootstraps it where it has none.

    Raises:
        ImageError: neither a registry nor a bootstrap gave one.
        Interrupted: when cancelled.
    """
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
            f"no base image: {REGISTRY} cannot be pulled, and there is no mmdebstrap to make one",
            refused.why,
            "Install mmdebstrap (`apt-get install mmdebstrap`), or load an image of that name into the engine.",
        )
    note(f"No registry gives {REGISTRY}: making {LOCAL} of Debian's packages, which takes a while.")
    engine.import_image(_bootstrap(progress, cancel), LOCAL)
    return LOCAL


def _bootstrap(progress: Progress, cancel: Cancel) -> Iterator[bytes]:
    """A root file system as a tar, streamed: nothing of it lies on the disk if we are killed meanwhile."""
    command = ["mmdebstrap", "--variant=minbase", "--dpkgopt=path-exclude=/usr/share/man/*", SUITE, "-"]
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
                f"mmdebstrap could not make the base image (status {code})",
                "\n".join(lines[-10:]),
                "Check that Debian's package mirrors can be reached from here.",
            )


def build_args() -> dict[str, str]:
    """The proxy settings of this process, which a build needs as much as we do. Docker predefines these arguments."""
    import os

    names = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    return {name: os.environ[name] for upper in names for name in (upper, upper.lower()) if name in os.environ}


def build_labels(profile: str, image: str) -> dict[str, str]:
    """The labels of an image that a recipe makes."""
    return {labels.BUILD: f"{profile}/{image}", labels.PROFILE: profile}
