"""The client's folder on the host: the certificate of the user's own client, and what else that client needs."""

from __future__ import annotations

import base64
import contextlib
import importlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from minicluster import paths, pki
from minicluster.engine import discover
from minicluster.engine.address import EngineAddress
from minicluster.errors import MiniclusterError
from minicluster.model.deferred import CLIENT_PARTS, fill, marker
from minicluster.model.events import Event, Listener, ignore
from minicluster.operations import connect
from minicluster.operations.stored_authority import no_authority, read_authority, secrets

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine
    from minicluster.model.spec import Spec

_WRITABLE = "Free disk space, make the folder writable, or set XDG_DATA_HOME to another one."
_IDENTITY = "authority"  # file with the identity of the authority that issued the certificate
_ENGINE = "engine"  # file with the reference of the engine, for commands in an environment of `minicluster env`
_CALLS = ".calls"  # file with the arguments of on_write and before_removal: a line of JSON each
_PARTS = dict(zip(CLIENT_PARTS, ("ca.pem", "cert.pem", "key.pem"), strict=True))


def variables(engine: Engine, spec: Spec, authority: pki.Authority | None, mode: str) -> dict[str, str]:
    """Variables for the native client. Changes nothing: the files that they name are those of :func:`write_files`.

    Args:
        authority: the cluster's; None: it is read from a node where it is needed.
        mode: an address mode that :func:`minicluster.operations.connect.choose` returned.

    Raises:
        NodeFailed: a value is a secret, and no node has the authority any more.
        MiniclusterError: a value is a part of the client's certificate, which has not been written.
    """
    values = _values(engine, spec, spec.env.values(), authority, mode)
    missing = [marker(f"client.{part}") for part in _PARTS if f"client.{part}" not in values]
    if any(part in text for part in missing for text in spec.env.values()):
        raise MiniclusterError(
            f"cluster {spec.cluster} has no client certificate on this machine",
            "",
            f"Write it: `minicluster env {spec.cluster}`, or Cluster.write_client_files().",
        )
    filled = {name: fill([value], values)[0] for name, value in spec.env.items()}
    return {name: value for name, value in filled.items() if value}


def write_files(engine: Engine, spec: Spec, authority: pki.Authority | None, mode: str) -> tuple[str, ...]:
    """Writes the client's folder: its certificate, unless it is there, and the profile's files where they differ.

    Args:
        authority, mode: as for :func:`variables`.

    Returns:
        What the functions given to :func:`on_write` could not do.

    Raises:
        NodeFailed: no node has the authority any more.
        MiniclusterError: the folder cannot be written.
    """
    if spec.client:
        authority = authority or read_authority(engine, spec)
        if authority:
            write_certificate(spec, authority, engine)
        elif not paths.client_directory(spec.cluster).exists():
            raise no_authority(spec)
    if not spec.client_files:
        return ()
    texts = [file.content for file in spec.client_files]
    return tuple(write_profile_files(spec, _values(engine, spec, texts, authority, mode)))


def portable(
    engine: Engine, spec: Spec, authority: pki.Authority | None, mode: str
) -> tuple[dict[str, str], dict[str, bytes]]:
    """The variables and the files of the client, for a folder elsewhere: after :func:`write_files`.

    In the variables, ``marker("client.directory")`` stands for that folder; in the files it is ``.``.
    """
    folder = paths.client_directory(spec.cluster)
    texts = {file.path: file.content for file in spec.client_files}
    values = _values(engine, spec, [*spec.env.values(), *texts.values()], authority, mode)
    here = {**values, "client.directory": marker("client.directory")}
    env = {name: value for name, text in spec.env.items() if (value := fill([text], here)[0])}
    files = {name: (folder / name).read_bytes() for name in _PARTS.values()} if spec.client else {}
    there = {**values, "client.directory": "."}
    return env, files | {name: fill([text], there)[0].encode() for name, text in texts.items()}


def _values(
    engine: Engine, spec: Spec, texts: Iterable[str], authority: pki.Authority | None, mode: str
) -> dict[str, str]:
    """The deferred values in texts: of the folder, the certificate, secrets and endpoints."""
    folder = paths.client_directory(spec.cluster)
    values = {"client.directory": str(folder)}
    for part, name in _PARTS.items():
        with contextlib.suppress(OSError):
            values[f"client.{part}"] = base64.b64encode((folder / name).read_bytes()).decode()
    values |= secrets(engine, spec, texts, authority)
    # Of several nodes that offer an endpoint the first that is running: clients are not sent to one that is down.
    addresses = {node.name: node.address for node in spec.nodes}
    for endpoint in connect.endpoints(engine, spec, mode, authority):
        about = {"url": endpoint.url, "host": endpoint.host, "host_port": str(endpoint.port), "node": endpoint.node}
        about["address"] = addresses[endpoint.node]
        for part, value in about.items():
            values.setdefault(f"endpoint.{endpoint.name}.{part}", value)
            values[f"endpoint.{endpoint.name}.{endpoint.node}.{part}"] = value
    return values


def write_certificate(spec: Spec, authority: pki.Authority, engine: Engine) -> None:
    """Creates the folder and its files (0600), unless they exist and are of this authority and engine."""
    if not spec.client:
        return
    folder = paths.client_directory(spec.cluster)
    with contextlib.suppress(OSError):
        same = (folder / _IDENTITY).read_text() == authority.identity and (
            folder / _ENGINE
        ).read_text() == engine.reference
        if same and all((folder / name).exists() for name in ("ca.pem", "cert.pem", "key.pem")):
            return
    issued = authority.issue(spec.client)
    files = {}
    with contextlib.suppress(OSError):
        # It is still the client of the cluster of that name: copies of its files are updated by write_files.
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
        raise MiniclusterError(f"cannot write the client's certificate to {folder}", str(error), _WRITABLE) from None


def write_profile_files(spec: Spec, values: Mapping[str, str]) -> list[str]:
    """Writes the files that the profile has for clients, with their deferred values filled in.

    Each is replaced atomically: a client may be reading it. Where one has changed, the functions given to
    :func:`on_write` are called; returns what they could not do.
    """
    folder = paths.client_directory(spec.cluster)
    changed = False
    for file in spec.client_files:
        content, path = fill([file.content], values)[0], folder / file.path
        try:
            if path.exists() and path.read_text() == content:
                continue
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor, part = tempfile.mkstemp(dir=folder)  # mode 0600
            with os.fdopen(descriptor, "w") as new:
                new.write(content)
            os.replace(part, path)
            changed = True
        except OSError as error:
            raise MiniclusterError(f"cannot write {path}", str(error), _WRITABLE) from None
    return _call(spec.cluster, "write") if changed else []


def on_write(cluster: str, call: str, data: Mapping[str, Any]) -> None:
    """Registers a function that is called whenever files of the folder have changed, as ``function(cluster, **data)``.

    Args:
        call: MODULE:FUNCTION, since another process will call it.
        data: values that JSON can hold.

    Raises:
        MiniclusterError: the folder cannot be written.
    """
    _note(cluster, "write", call, data)


def before_removal(cluster: str, call: str, data: Mapping[str, Any]) -> None:
    """The same for when the folder is removed: the function is called before that, to undo what was done with files."""
    _note(cluster, "forget", call, data)


def noted(cluster: str, when: str) -> list[tuple[str, dict[str, Any]]]:
    """What was given to :func:`on_write` ("write") or :func:`before_removal` ("forget"), without duplicates."""
    found = []
    with contextlib.suppress(OSError):
        for line in dict.fromkeys((paths.client_directory(cluster) / _CALLS).read_text().splitlines()):
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a line cut off by a full disk
                about = json.loads(line)
                if about["when"] == when:
                    found.append((str(about["call"]), dict(about["with"])))
    return found


def _note(cluster: str, when: str, call: str, data: Mapping[str, Any]) -> None:
    path = paths.client_directory(cluster) / _CALLS
    line = json.dumps({"when": when, "call": call, "with": dict(data)}, sort_keys=True) + "\n"
    try:
        # One write that appends: several processes may do this at once.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(line)
    except OSError as error:
        raise MiniclusterError(f"cannot write {path}", str(error), _WRITABLE) from None


def _call(cluster: str, when: str) -> list[str]:
    """Calls the registered functions, and returns what failed: it stops neither a removal nor the use of a cluster."""
    failed = []
    for call, data in noted(cluster, when):
        module, _, function = call.partition(":")
        try:
            getattr(importlib.import_module(module), function)(cluster, **data)
        except MiniclusterError as error:
            failed.append(" ".join(filter(None, (f"{error.what}:" if error.why else error.what, error.why, error.fix))))
        except Exception as error:  # anything: another package may be broken, or uninstalled
            failed.append(f"{call} failed: {type(error).__name__}: {error}")
    return failed


def remove(cluster: str, engine: Engine, listener: Listener = ignore) -> None:
    """Removes the folder, after calling the functions given to :func:`before_removal`; their failures become notes.

    The folder of a cluster of another engine stays: that cluster may be running.
    """
    with contextlib.suppress(OSError):
        if not _is_same((paths.client_directory(cluster) / _ENGINE).read_text(), engine.reference):
            return
    for failure in _call(cluster, "forget"):
        listener(Event("note", text=failure))
    shutil.rmtree(paths.client_directory(cluster), ignore_errors=True)


def _is_same(reference: str, other: str) -> bool:
    """Whether two references are of one engine, or of hosts of which some were added or given up."""
    hosts, others = {*discover.hosts_in(reference)}, {*discover.hosts_in(other)}
    if hosts or others:
        return bool(hosts and others) and (hosts <= others or others <= hosts)
    return _url(reference) == _url(other)


def _url(reference: str) -> str:
    """The URL in an engine's reference, which also says how the engine was found."""
    try:
        return EngineAddress.load(reference).url
    except (ValueError, KeyError, TypeError):
        return reference
