"""The folder on the host with the certificate of the user's own client, and what else that client needs."""

from __future__ import annotations

import base64
import contextlib
import importlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

from minicluster import paths, pki
from minicluster.engine.address import EngineAddress
from minicluster.engine.protocol import Engine
from minicluster.errors import MiniclusterError
from minicluster.model.deferred import CLIENT_PARTS, fill
from minicluster.model.events import Event, Listener, ignore
from minicluster.model.naming import container_name
from minicluster.model.spec import Spec

_IDENTITY = "authority"  # file with the identity of the authority that issued the others
_ENGINE = "engine"  # file that leads back to the engine from within an environment set by `minicluster env`
_CALLS = ".calls"  # file with what on_write and on_forget were given: a line of JSON each


def keep(spec: Spec, authority: pki.Authority, engine: Engine) -> None:
    """Makes the folder (0700) and its files (0600), unless they are there and of this very authority and engine."""
    if not spec.client:
        return
    folder = paths.client_directory(spec.cluster)
    with contextlib.suppress(OSError):
        same = (folder / _IDENTITY).read_text() == authority.identity and (
            folder / _ENGINE
        ).read_text() == engine.reference
        if same and (folder / "key.pem").exists():
            return
    issued = authority.issue(spec.client)
    files = {}
    with contextlib.suppress(OSError):
        # Still the client of the cluster of that name: who has copies of the files gets the new ones from `write`.
        files[_CALLS] = (folder / _CALLS).read_bytes()
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True, mode=0o700)
        files |= {"ca.pem": issued.ca, "cert.pem": issued.certificate, "key.pem": issued.key}
        files |= {_IDENTITY: authority.identity.encode(), _ENGINE: engine.reference.encode()}
        for name, content in files.items():
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
    except OSError as error:
        raise MiniclusterError(f"cannot write the client's certificate to {folder}", str(error)) from None


def deferred_values(cluster: str) -> dict[str, str]:
    """Late values about the folder: where it is, and the certificate in it."""
    folder = paths.client_directory(cluster)
    values = {"client.directory": str(folder)}
    for part, name in zip(CLIENT_PARTS, ("ca.pem", "cert.pem", "key.pem"), strict=True):
        with contextlib.suppress(OSError):
            values[f"client.{part}"] = base64.b64encode((folder / name).read_bytes()).decode()
    return values


def write(spec: Spec, values: Mapping[str, str]) -> list[str]:
    """Writes the files that the profile has beside the certificate, with their late values put in.

    Each is replaced at once: somebody's client may be reading it. Where one has changed, what was given to
    :func:`on_write` is carried out; returns what of that failed.
    """
    folder = paths.client_directory(spec.cluster)
    changed = False
    for file in spec.client_files:
        content, path = fill([file.content], values)[0], folder / file.path
        try:
            if path.exists() and path.read_text() == content:
                continue
            descriptor, part = tempfile.mkstemp(dir=folder)  # readable by its owner alone
            with os.fdopen(descriptor, "w") as new:
                new.write(content)
            os.replace(part, path)
            changed = True
        except OSError as error:
            raise MiniclusterError(f"cannot write {path}", str(error)) from None
    return _carry_out(spec.cluster, "write") if changed else []


def on_write(cluster: str, call: str, data: Mapping[str, Any]) -> None:
    """Has a function called whenever files of the folder have changed, as ``function(cluster, **data)``.

    Args:
        call: MODULE:FUNCTION. It is in another process, of a later day, that it will be called.
        data: what JSON can hold.

    Raises:
        MiniclusterError: the folder is not there, or cannot be written.
    """
    _note(cluster, "write", call, data)


def on_forget(cluster: str, call: str, data: Mapping[str, Any]) -> None:
    """The same for when the folder is forgotten, before its files go: what was done with them elsewhere is undone."""
    _note(cluster, "forget", call, data)


def noted(cluster: str, when: str) -> list[tuple[str, dict[str, Any]]]:
    """What was given to ``on_write`` (``when`` is "write") or ``on_forget`` ("forget"), each once."""
    found = []
    with contextlib.suppress(OSError):
        for line in dict.fromkeys((paths.client_directory(cluster) / _CALLS).read_text().splitlines()):
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that was cut off by a full disk
                about = json.loads(line)
                if about["when"] == when:
                    found.append((str(about["call"]), dict(about["with"])))
    return found


def _note(cluster: str, when: str, call: str, data: Mapping[str, Any]) -> None:
    path = paths.client_directory(cluster) / _CALLS
    line = json.dumps({"when": when, "call": call, "with": dict(data)}, sort_keys=True) + "\n"
    try:
        # Appended in one go: several processes may be at it.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(line)
    except OSError as error:
        raise MiniclusterError(f"cannot write {path}", str(error)) from None


def _carry_out(cluster: str, when: str) -> list[str]:
    """Calls what was noted, and returns what failed: neither a cluster's end nor its use may depend on it."""
    failed = []
    for call, data in noted(cluster, when):
        module, _, function = call.partition(":")
        try:
            getattr(importlib.import_module(module), function)(cluster, **data)
        except MiniclusterError as error:
            failed.append(" ".join(filter(None, (f"{error.what}:" if error.why else error.what, error.why, error.fix))))
        except Exception as error:  # whatever a package of others may raise, or that it is no longer there
            failed.append(f"{call} failed: {type(error).__name__}: {error}")
    return failed


def forget(cluster: str, engine: Engine, listener: Listener = ignore) -> None:
    """Removes the folder, after what was given to :func:`on_forget` is carried out; what of that fails is told.

    The folder of another engine's cluster stays: that one may be alive.
    """
    with contextlib.suppress(OSError):
        if _url((paths.client_directory(cluster) / _ENGINE).read_text()) != _url(engine.reference):
            return
    for failure in _carry_out(cluster, "forget"):
        listener(Event("note", text=failure))
    shutil.rmtree(paths.client_directory(cluster), ignore_errors=True)


def _url(reference: str) -> str:
    """Where an engine is, however it was found."""
    try:
        return EngineAddress.load(reference).url
    except (ValueError, KeyError, TypeError):
        return reference


def read_authority(engine: Engine, spec: Spec) -> pki.Authority | None:
    """A cluster's authority, from the first of the nodes that keep it and still has it."""
    for node in spec.nodes:
        if node.authority:
            with contextlib.suppress(MiniclusterError, ValueError):
                return pki.Authority.load(engine.get_file(container_name(spec.cluster, node.name), pki.PATH))
    return None
