"""Host folders and host ports of nodes, as users write them: ``agent:./data:/data:ro`` and ``agent:80/udp``."""

from __future__ import annotations

import os
import posixpath
import re
from dataclasses import dataclass

from minicluster.errors import UsageError
from minicluster.model.spec import MountSpec
from minicluster.paths import expanded

PROTOCOLS = ("tcp", "udp")

_MOUNT = re.compile(r"(?P<on>[^:/]+):(?P<host>.+):(?P<path>[^:]*)", re.DOTALL)
_PORT = re.compile(r"(?P<on>[a-z][a-z0-9]*(-[1-9][0-9]*)?):(?P<port>[0-9]+)(/(?P<protocol>[a-z]+))?")
_ACCESS = {"ro": True, "rw": False}


def mount(word: str) -> MountSpec:
    """A mount from ``ROLE:HOSTPATH:/PATH[:ro]``. A relative HOSTPATH, which may contain colons, becomes absolute.

    Raises:
        UsageError: it does not have that form.
    """
    rest, _, last = word.rpartition(":")
    read_only = _ACCESS.get(last)
    match = _MOUNT.fullmatch(word if read_only is None else rest)
    form = "Write ROLE:HOSTPATH:/PATH, or ROLE:HOSTPATH:/PATH:ro, such as agent:./data:/data:ro."
    if match is None:
        raise UsageError(f"--mount {word}: must have the form ROLE:HOSTPATH:/PATH[:ro]", "", form)
    path = match["path"]
    if not path.startswith("/"):
        why = f"{path!r} is neither an absolute path in the node nor one of the options ro and rw."
        raise UsageError(f"--mount {word}: the path in the node must be absolute", why, form)
    if "\0" in word:
        raise UsageError("--mount: a path cannot contain a null character")
    host = os.path.abspath(expanded(match["host"]))
    return MountSpec(match["on"], host, posixpath.normpath("/" + path.lstrip("/")), bool(read_only))


@dataclass(frozen=True)
class NodePort:
    """A port of a role's nodes, or of one node."""

    on: str  #: a role, or a node's name
    port: int
    protocol: str

    @property
    def name(self) -> str:
        """How it is written, and the name of its endpoint: ``agent:80``, ``agent:53/udp``."""
        return f"{self.on}:{self.port}{'' if self.protocol == 'tcp' else f'/{self.protocol}'}"


def node_port(word: str) -> NodePort | None:
    """The port that ``ROLE:PORT[/PROTOCOL]`` means; None where it is the name of an endpoint, which has no colon.

    Raises:
        UsageError: it does not have that form, or there is no such port or protocol.
    """
    if ":" not in word:
        return None
    match = _PORT.fullmatch(word)
    fix = "Write ENDPOINT=PORT, ROLE:PORT=PORT or ROLE:PORT/udp=PORT, such as agent:80=8080."
    if match is None:
        raise UsageError(f"--port {word}: must have the form ROLE:PORT or ROLE:PORT/udp", "", fix)
    protocol = match["protocol"] or "tcp"
    if protocol not in PROTOCOLS:
        raise UsageError(f"--port {word}: {protocol} is not supported", "Ports are published for tcp and udp.", fix)
    if not 1 <= int(match["port"]) <= 65535:
        raise UsageError(f"--port {word}: {match['port']} is not a port number", "Ports are 1 to 65535.", fix)
    return NodePort(match["on"], int(match["port"]), protocol)


def port_name(word: str) -> str:
    """The one way in which a key of ``--port`` is stored: ``agent:80/tcp`` is ``agent:80``."""
    port = node_port(word)
    return port.name if port else word
