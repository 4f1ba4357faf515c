"""The folder on the host with the certificate of the user's own client, and what else that client needs."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping

from minicluster import paths, pki
from minicluster.engine.protocol import Engine
from minicluster.errors import MiniclusterError
from minicluster.profile.spec import CLIENT_PARTS, Spec, container_name, fill

_IDENTITY = "authority"  # file with the identity of the authority that issued the others
_ENGINE = "engine"  # file that leads back to the engine from within an environment set by `minicluster env`


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
    forget(spec.cluster)
    try:
        folder.mkdir(parents=True, mode=0o700)
        files = {"ca.pem": issued.ca, "cert.pem": issued.certificate, "key.pem": issued.key}
        files |= {_IDENTITY: authority.identity.encode(), _ENGINE: engine.reference.encode()}
        for name, content in files.items():
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
    except OSError as error:
        raise MiniclusterError(f"cannot write the client's certificate to {folder}", str(error)) from None


def late_values(cluster: str) -> dict[str, str]:
    """Late values about the folder: where it is, and the certificate in it."""
    folder = paths.client_directory(cluster)
    values = {"client.directory": str(folder)}
    for part, name in zip(CLIENT_PARTS, ("ca.pem", "cert.pem", "key.pem"), strict=True):
        with contextlib.suppress(OSError):
            values[f"client.{part}"] = base64.b64encode((folder / name).read_bytes()).decode()
    return values


def write(spec: Spec, values: Mapping[str, str]) -> None:
    """Writes the files that the profile has beside the certificate, with their late values put in.

    Each is replaced at once: somebody's client may be reading it.
    """
    folder = paths.client_directory(spec.cluster)
    for file in spec.client_files:
        content, path = fill([file.content], values)[0], folder / file.path
        try:
            if path.exists() and path.read_text() == content:
                continue
            descriptor, part = tempfile.mkstemp(dir=folder)  # readable by its owner alone
            with os.fdopen(descriptor, "w") as new:
                new.write(content)
            os.replace(part, path)
        except OSError as error:
            raise MiniclusterError(f"cannot write {path}", str(error)) from None


def forget(cluster: str) -> None:
    """Removes the folder."""
    shutil.rmtree(paths.client_directory(cluster), ignore_errors=True)


def read_authority(engine: Engine, spec: Spec) -> pki.Authority | None:
    """A cluster's authority, from the first of the nodes that keep it and still has it."""
    for node in spec.nodes:
        if node.authority:
            with contextlib.suppress(MiniclusterError, ValueError):
                return pki.Authority.load(engine.get_file(container_name(spec.cluster, node.name), pki.PATH))
    return None
