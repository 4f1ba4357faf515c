"""Which host port each endpoint of each node gets, and its URL."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence

from minicluster.errors import ProfileError, UsageError, nearest
from minicluster.model import published, spec
from minicluster.model.deferred import marker
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
    kept: Collection[str] = (),
) -> dict[str, tuple[spec.EndpointSpec, ...]]:
    """Gives every endpoint of every node its host port: the one asked for, the one it has, or a free one.

    The ports of nodes that the user asks for (``--port agent:80=8080``) become endpoints, too. Those in ``kept`` were
    asked for before, and their node may have been removed since.

    Raises:
        UsageError: a port that was asked for cannot be had.
        ProfileError: the template of a URL fails.
    """
    ports = _node_ports(top, roles, overrides, kept)
    wanted = _asked(top, roles, overrides, ports, before)
    udp = {port.name for port in ports if port.protocol == "udp"}
    fixed = {port for (_node, name), port in wanted.items() if name not in udp}
    used = {e.host_port for node in before.values() for e in node.endpoints if e.protocol == "tcp"} | fixed
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
                url, anyone = _texts(top, role, name, [endpoint.url, endpoint.anyone], node, roles[role])
                endpoints.append(spec.EndpointSpec(name, endpoint.port, port, url, anyone=anyone))
            for asked in ports:
                if asked.on in (role, node.name):
                    endpoints.append(_endpoint(asked, wanted[node.name, asked.name]))
            result[node.name] = tuple(endpoints)
    return result


def _node_ports(
    top: Scope, roles: Mapping[str, Sequence[Node]], overrides: spec.Overrides, kept: Collection[str]
) -> list[published.NodePort]:
    """The ports of nodes that ``--port`` asks for. Those that the profile publishes are asked for by their names."""
    profile = top.loaded.profile
    names = {name for role in profile.roles.values() for name in role.endpoints}
    nodes = {node.name for group in roles.values() for node in group}
    known = {*profile.roles, *nodes}
    ports = []
    for key, first in overrides.port.items():
        option, port = f"--port {key}={first}", published.node_port(key)
        if port is None:
            if key not in names:
                raise UsageError(f"{option}: no endpoint named {key!r}", "", nearest(key, names))
            continue
        role = port.on.partition("-")[0]
        if port.on not in known and key not in kept:
            raise UsageError(f"{option}: no role or node named {port.on!r}", "", nearest(port.on, known))
        for name, endpoint in profile.roles[role].endpoints.items() if role in profile.roles else ():
            if (endpoint.port, "tcp") == (port.port, port.protocol):
                what = f"{option}: port {port.port} of {role} is published as endpoint {name}"
                raise UsageError(what, "", f"Ask for its host port: --port {name}={first}.")
        ports.append(port)
    return ports


def _asked(
    top: Scope,
    roles: Mapping[str, Sequence[Node]],
    overrides: spec.Overrides,
    ports: Sequence[published.NodePort],
    before: Mapping[str, spec.NodeSpec],
) -> dict[tuple[str, str], int]:
    """The host ports that ``--port`` asks for, by node and endpoint."""
    wanted: dict[tuple[str, str], int] = {}
    owner: dict[tuple[int, str], str] = {}
    held = {(e.host_port, e.protocol): (name, e.name) for name, node in before.items() for e in node.endpoints}
    inside: dict[tuple[str, int, str], str] = {}  # whose name a port of a node has
    for role, nodes in roles.items():
        for node in nodes:
            asked = [(name, "tcp", node.index - 1) for name in top.loaded.profile.roles[role].endpoints]
            for port in ports:
                if port.on in (role, node.name):
                    asked.append((port.name, port.protocol, 0 if port.on == node.name else node.index - 1))
                    other = inside.setdefault((node.name, port.port, port.protocol), port.name)
                    if other != port.name:
                        raise UsageError(f"--port {port.name}: {node.name} has that port by --port {other} already")
            for name, protocol, offset in asked:
                first = overrides.port.get(name)
                if first is None:
                    continue
                number = first + offset
                option = f"--port {name}={first}"
                if not 1 <= number <= 65535:
                    what = f"{option}: {node.name} would have port {number}"
                    raise UsageError(what, "Ports are 1 to 65535.", "Ask for another.")
                here = (number, protocol)
                if here in owner:
                    raise UsageError(
                        f"{option}: {node.name} and {owner[here]} cannot both have {number}",
                        "A port counts up from the first node of each role that has it.",
                        "Ask for ports that are further apart, or omit --port.",
                    )
                holder, its = held.get(here, (node.name, name))
                if holder != node.name:
                    raise UsageError(
                        f"{option}: {node.name} would have port {number}, which {holder} has for {its}",
                        "A running node's port cannot move to another node in one change.",
                        "Ask for ports that none of the cluster's nodes has.",
                    )
                owner[here] = node.name
                wanted[node.name, name] = number
    return wanted


def _endpoint(port: published.NodePort, host_port: int) -> spec.EndpointSpec:
    url = f"{port.protocol}://{marker('host')}:{marker('port')}"
    return spec.EndpointSpec(port.name, port.port, host_port, url, port.protocol)


def _texts(
    top: Scope, role: str, name: str, templates: Sequence[str], node: Node, group: Sequence[Node]
) -> tuple[str, ...]:
    """The texts of an endpoint: its URL, and what is open to every client."""
    at = ("roles", role, "endpoints", name, "url")
    braces = _BRACES.search(templates[0])
    if braces:
        where = top.loaded.document.where(at)
        what = f"{where}: {braces[0]} is not template syntax"
        raise ProfileError(what, "", f"Use {{{{ {braces[1]} }}}}.")
    scope = top.inner(place="anyone", node=node, peers=[n for n in group if n is not node])
    url_scope = scope.inner(
        place="url",
        host=Deferred("host"),
        port=Deferred("port"),
        secret=secret_of(top.loaded.profile, ("hex", "uuid")),  # what a URL can hold as it is
    )
    url, anyone = templates
    return url_scope.text(url, *at), scope.text(anyone, *at[:-1], "anyone")


def choose_port(key: str, is_free: Callable[[int], bool]) -> int:
    """A host port for an endpoint: the same for the same key if it is free, otherwise the next free one."""
    start = place_of(key, len(PORTS))
    for offset in range(len(PORTS)):
        port = PORTS[(start + offset) % len(PORTS)]
        if is_free(port):
            return port
    raise UsageError("no free host port", f"All of {PORTS.start}-{PORTS.stop - 1} are in use.", "Give one with --port.")
