"""Which host port each endpoint of each node gets, and its URL."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from minicluster.errors import ProfileError, UsageError
from minicluster.model import spec
from minicluster.profile.addressing import place_of
from minicluster.profile.deferred import Deferred
from minicluster.profile.scope import Node, Scope, secret_of

#: Host ports are taken from here: below the kernel's ephemeral range (32768 and up), so that no outgoing
#: connection ever sits on a port that a restarted node needs back.
PORTS = range(21000, 29000)

#: How URLs named the address in profile format 1.
_BRACES = re.compile(r"(?<!\{)\{\s*(host|port)\s*\}(?!\})")


def choose_host_ports(
    top: Scope,
    cluster: str,
    roles: Mapping[str, Sequence[Node]],
    overrides: spec.Overrides,
    before: Mapping[str, spec.NodeSpec],
    is_free: Callable[[int], bool],
) -> dict[str, tuple[spec.EndpointSpec, ...]]:
    """Gives every endpoint of every node its host port: the one asked for, the one it has, or a free one.

    Raises:
        UsageError: a port that was asked for cannot be had.
        ProfileError: the template of a URL fails.
    """
    wanted = _asked(top, roles, overrides)
    fixed = set(wanted.values())
    used = {e.host_port for node in before.values() for e in node.endpoints} | fixed
    result: dict[str, tuple[spec.EndpointSpec, ...]] = {}
    for role, nodes in roles.items():
        for node in nodes:
            had = {e.name: e.host_port for e in before[node.name].endpoints} if node.name in before else {}
            endpoints = []
            for name, endpoint in top.loaded.profile.roles[role].endpoints.items():
                port = wanted.get((node.name, name)) or had.get(name)
                if port is None or (port in fixed and (node.name, name) not in wanted):
                    key = f"{cluster}/{node.name}/{name}"
                    port = choose_port(key, lambda p: p not in used and is_free(p))
                used.add(port)
                url = _url(top, role, name, endpoint.url, node, roles[role])
                endpoints.append(spec.EndpointSpec(name, endpoint.port, port, url))
            result[node.name] = tuple(endpoints)
    return result


def _asked(top: Scope, roles: Mapping[str, Sequence[Node]], overrides: spec.Overrides) -> dict[tuple[str, str], int]:
    """The ports that ``--port`` asks for, by node and endpoint."""
    wanted: dict[tuple[str, str], int] = {}
    owner: dict[int, str] = {}
    for role, nodes in roles.items():
        for node in nodes:
            for name in top.loaded.profile.roles[role].endpoints:
                first = overrides.port.get(name)
                if first is None:
                    continue
                port = first + node.index - 1
                option = f"--port {name}={first}"
                if not 1 <= port <= 65535:
                    what = f"{option}: {node.name} would have port {port}"
                    raise UsageError(what, "Ports are 1 to 65535.", "Ask for another.")
                if port in owner:
                    raise UsageError(
                        f"{option}: {node.name} and {owner[port]} cannot both have {port}",
                        "An endpoint's port counts up from the first node of each role that has it.",
                        "Omit --port.",
                    )
                owner[port] = node.name
                wanted[node.name, name] = port
    return wanted


def _url(top: Scope, role: str, name: str, template: str, node: Node, group: Sequence[Node]) -> str:
    at = ("roles", role, "endpoints", name, "url")
    braces = _BRACES.search(template)
    if braces:
        where = top.loaded.document.where(at)
        what = f"{where}: {braces[0]} is not template syntax"
        raise ProfileError(what, "", f"Use {{{{ {braces[1]} }}}}.")
    scope = top.inner(
        place="url",
        node=node,
        peers=[n for n in group if n is not node],
        host=Deferred("host"),
        port=Deferred("port"),
        secret=secret_of(top.loaded.profile, ("hex", "uuid")),  # what a URL can hold as it is
    )
    return scope.text(template, *at)


def choose_port(key: str, is_free: Callable[[int], bool]) -> int:
    """A host port for an endpoint: the same for the same key if it is free, otherwise the next free one."""
    start = place_of(key, len(PORTS))
    for offset in range(len(PORTS)):
        port = PORTS[(start + offset) % len(PORTS)]
        if is_free(port):
            return port
    raise UsageError("no free host port", f"All of {PORTS.start}-{PORTS.stop - 1} are in use.", "Give one with --port.")
