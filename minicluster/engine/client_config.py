"""The docker client's configuration, read as the docker client reads it: variables, contexts, its ``config.json``."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import os
import threading
from pathlib import Path
from typing import Any

from minicluster import paths
from minicluster.engine.address import EngineAddress, Tls
from minicluster.errors import MiniclusterError, NoEngine

_IMPORTING = threading.Lock()


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
    name = os.environ.get("DOCKER_CONTEXT") or str(settings().get("currentContext") or "")
    return None if name in ("", "default") else of_context(name)


def of_context(name: str) -> EngineAddress:
    """The engine of a docker context. Raises ``NoEngine`` where there is no such context, or it has no engine."""
    folder = _folder()
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


def contexts() -> list[str]:
    """The names of all docker contexts that were made, sorted; "default" is not among them."""
    found = [_read_json(path).get("Name") for path in (_folder() / "contexts" / "meta").glob("*/meta.json")]
    return sorted(str(name) for name in found if name)


def registry_credentials(host: str) -> dict[str, str]:
    """What the docker client would log in to a registry with, as an entry of ``auths``; empty where it has nothing.

    It is read from ``auths``, or asked of a credential helper.

    Raises:
        MiniclusterError: the helper fails, or the configuration cannot be read.
    """
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a helper that is missing: that is an error
            found = docker_py("auth").load_config().resolve_authconfig(host) or {}
    except Exception as error:  # a helper that is missing or fails, base64 that is damaged; it may quote the secret
        why = str(error) if type(error).__module__.startswith("docker.") else f"{_folder() / 'config.json'} is damaged."
        raise MiniclusterError(
            f"cannot read docker's credentials for {host}",
            why,
            f"Correct them: `docker login {host}`; or do without: --registry {host},credentials=no.",
        ) from None
    about = {key.lower(): value for key, value in found.items() if value}
    if "identitytoken" in about:
        return {"identitytoken": about["identitytoken"]}
    if "username" not in about or "password" not in about:
        return {}
    return {"auth": base64.b64encode(f"{about['username']}:{about['password']}".encode()).decode()}


def docker_py(module: str) -> Any:
    """A module of docker-py, imported when it is needed: the import takes as long as the rest of a command's start.

    By one thread at a time: its modules import each other in circles, and a second thread would get an incomplete one.
    """
    with _IMPORTING:
        return importlib.import_module(f"docker.{module}")


def _tls(folder: Path, *, verify: bool) -> Tls:
    def existing(name: str) -> Path | None:
        path = folder / name
        return path if path.is_file() else None

    return Tls(ca=existing("ca.pem"), cert=existing("cert.pem"), key=existing("key.pem"), verify=verify)


def _folder() -> Path:
    folder = os.environ.get("DOCKER_CONFIG")
    return Path(folder) if folder else paths.home() / ".docker"


def _read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file; empty where it cannot be read: reporting that is up to the docker client."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
