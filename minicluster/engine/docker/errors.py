"""The API's errors as errors of minicluster."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from minicluster.engine.http import APIError, ConnectionLost
from minicluster.errors import DISK_FULL, FREE_SPACE, Conflict, EngineError, NoEngine, NotFound, PortTaken, SubnetTaken

if TYPE_CHECKING:
    from minicluster.engine.address import EngineAddress

# The last is what the engine says of two networks with the same subnet and the same dynamic range.
_OVERLAPS = ("Pool overlaps", "pool overlaps", "conflicts with network", "failed to allocate gateway")


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Translates the API's errors within the block. ``what`` says what was tried, as in "create container x"."""
    try:
        yield
    except APIError as error:
        raise refusal(what, error) from error
    except ConnectionLost as error:
        if error.never:
            raise unreachable(error.never, str(error)) from error
        raise NoEngine(
            f"the engine stopped answering: {what}",
            str(error),
            "Check the engine's log. After the engine is running again, `minicluster down NAME` removes what is left.",
        ) from error


def unreachable(engine: EngineAddress, why: str) -> NoEngine:
    """The error for an engine that has never answered."""
    parts = urlsplit(engine.url)
    there = f"{parts.username}@{parts.hostname}" if parts.username else parts.hostname
    port = f"-p {parts.port} " if parts.scheme == "ssh" and parts.port else ""
    check = f"`ssh {port}{there} docker version` must work. " if parts.scheme == "ssh" and there else ""
    return NoEngine(
        f"the engine at {engine.url} cannot be reached",
        why,
        f"{check}The engine is the one of {engine.source}: correct that, or use another engine.",
    )


def refusal(what: str, error: APIError) -> EngineError:
    """The error for a request that the engine refused; mostly recognized by its message: a status has many causes."""
    said = error.message
    if "port is already allocated" in said or "address already in use" in said:
        ports = re.findall(r":(\d+)", said)
        port = int(ports[0]) if ports else 0
        return PortTaken(
            f"host port {port or '?'} is in use",
            said,
            "Choose another with --port, or stop what uses it.",
            port=port,
        )
    if any(words in said for words in _OVERLAPS):
        return SubnetTaken(f"cannot {what}: its subnet is in use", said)
    if "active endpoints" in said:
        return EngineError(
            f"cannot {what}: containers are connected to it",
            said,
            "If `docker network inspect` lists none, the engine's own record is wrong: restart it, then try again.",
        )
    if "Address already in use" in said:
        return EngineError(f"cannot {what}: another container has its address", said)
    if DISK_FULL in said:
        return EngineError(f"cannot {what}: the disk is full", said, FREE_SPACE)
    if "cannot assign requested address" in said:
        return EngineError(
            f"cannot {what}: the engine's machine does not have the address that its ports are published on",
            said,
            "If that machine has another address now: `minicluster up --name NAME --address-mode gateway` publishes "
            "nodes there, with their data; where they were created with --bind-address, `--bind-address ADDRESS`. "
            "Behind a router, its address as seen from here is not one of its own: --address-mode localhost publishes "
            "on 127.0.0.1 only.",
        )
    if "apparmor_parser" in said:
        return EngineError(f"cannot {what}: the engine lacks AppArmor's parser", said, "Install the package apparmor.")
    if error.status == 404 and said.startswith("network") and what.startswith("start container"):
        return NotFound(
            f"cannot {what}: its network no longer exists",
            f"{said}. `docker network prune` removes the networks of clusters that are stopped.",
            "`minicluster up --name NAME` of that cluster recreates it, and keeps the nodes' data.",
        )
    if error.status == 404:
        return NotFound(f"cannot {what}: not found", said)
    if "is not running" in said:
        return EngineError(f"cannot {what}: it is not running", said)
    if error.status == 409:
        return Conflict(f"cannot {what}: it exists already or is in use", said)
    return EngineError(f"cannot {what}", said)
