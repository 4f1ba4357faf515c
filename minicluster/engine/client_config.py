"""The docker client's configuration, read as the docker client reads it: variables, contexts, its ``config.json``."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from minicluster.engine.address import EngineAddress, Tls
from minicluster.errors import NoEngine


def settings() -> dict[str, Any]:
    """What ``config.json`` says; empty where there is none."""
    return _read_json(_folder() / "config.json")


def from_environment() -> EngineAddress | None:
    """The engine that ``DOCKER_HOST`` and its companions name."""
    host = os.environ.get("DOCKER_HOST", "").strip()
    if not host:
        return None
    verify = bool(os.environ.get("DOCKER_TLS_VERIFY"))
    tls = None
    if (verify or os.environ.get("DOCKER_TLS")) and not host.startswith(("unix:", "ssh:", "npipe:")):
        folder = Path(os.environ.get("DOCKER_CERT_PATH") or _folder())
        tls = _tls(folder, verify=verify)
    url = host if "://" in host else f"tcp://{host}"
    return EngineAddress(url, "DOCKER_HOST", tls)


def from_context() -> EngineAddress | None:
    """The engine of the docker context in use; None where that is the context "default"."""
    folder = _folder()
    name = os.environ.get("DOCKER_CONTEXT") or str(settings().get("currentContext") or "")
    if name in ("", "default"):
        return None
    # The client stores a context under the hash of its name, so that a name may contain any character.
    key = hashlib.sha256(name.encode()).hexdigest()
    meta = folder / "contexts" / "meta" / key / "meta.json"
    source = f"docker context {name}"
    endpoint = (_read_json(meta).get("Endpoints") or {}).get("docker") or {}
    if not endpoint.get("Host"):
        raise NoEngine(
            f"{source} names no engine",
            f"{meta} is missing or has no docker endpoint.",
            "List the contexts with `docker context ls`, choose one with `docker context use NAME`, "
            "or set DOCKER_CONTEXT or DOCKER_HOST.",
        )
    url = str(endpoint["Host"])
    certificates = folder / "contexts" / "tls" / key / "docker"
    verify = not endpoint.get("SkipTLSVerify")
    tls = None
    if url.startswith(("tcp:", "https:")) and (certificates.is_dir() or not verify):
        tls = _tls(certificates, verify=verify)
    return EngineAddress(url, source, tls)


def _tls(folder: Path, *, verify: bool) -> Tls:
    def existing(name: str) -> Path | None:
        path = folder / name
        return path if path.is_file() else None

    return Tls(ca=existing("ca.pem"), cert=existing("cert.pem"), key=existing("key.pem"), verify=verify)


def _folder() -> Path:
    folder = os.environ.get("DOCKER_CONFIG")
    return Path(folder) if folder else Path.home() / ".docker"


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file; empty where it cannot be read: reporting that is up to the docker client."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
