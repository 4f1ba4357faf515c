"""The base image of builds: Debian 13 (trixie), pulled where a registry answers, else built from Debian packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

from minicluster.engine.protocol import Cancel, Engine, Progress
from minicluster.errors import ImageError, Interrupted
from minicluster.model import labels

REGISTRY = "debian:trixie-slim"
LOCAL = "minicluster/base:trixie"  #: the one that we bootstrap
SUITE = "trixie"
PULL_PATIENCE = 8.0  #: seconds for a registry's first answer

_CHUNK = 1 << 20


def source(engine: Engine) -> str:
    """Where the base would come from, for ``doctor``: ``image REF``, ``registry or mmdebstrap``, ``registry``."""
    for ref in (REGISTRY, LOCAL):
        if engine.has_image(ref):
            return f"image {ref}"
    return "registry or mmdebstrap" if shutil.which("mmdebstrap") else "registry"


def provide(engine: Engine, progress: Progress, note: Progress, cancel: Cancel) -> str:
    """The reference of a base image of the engine's; pulls or bootstraps one where it has none.

    Raises:
        ImageError: it can neither be pulled nor bootstrapped.
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
    command += ['--aptopt=Acquire::Retries "5"', SUITE, "-"]
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


def build_args() -> dict[str, str]:
    """This process's proxy settings, which builds need too, as build arguments that Docker predefines."""
    found: dict[str, str] = {}
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"):
        value = os.environ.get(upper) or os.environ.get(upper.lower())
        if value:  # programs differ in which of the two they read
            found |= {upper: value, upper.lower(): value}
    return found


def build_labels(profile: str, image: str) -> dict[str, str]:
    """The labels of an image that minicluster builds."""
    return {labels.BUILD: f"{profile}/{image}", labels.PROFILE: profile}
