"""Addresses: where a cluster's endpoints are published, and which address is returned to which client.

A client may run on the engine's machine, in a container of it, or on another machine. Four address modes:

``localhost``  the ports that are published on 127.0.0.1
``bridge``     the nodes' own addresses and ports; a container that minicluster runs in is connected to their network
``gateway``    the ports, published on an address of the engine's machine that other machines reach as well
``auto``       whichever of these fits the place that minicluster runs in
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from minicluster.errors import Unreachable, UsageError, nearest
from minicluster.model.deferred import fill
from minicluster.model.naming import container_name, network_name
from minicluster.model.results import EndpointInfo
from minicluster.model.spec import EVERYWHERE, LOCALHOST, EndpointSpec, NodeSpec, Spec
from minicluster.operations.stored_authority import secrets

if TYPE_CHECKING:
    from minicluster import pki
    from minicluster.engine.protocol import Container, Engine

MODES = ("auto", "localhost", "bridge", "gateway")
VARIABLE = "MINICLUSTER_ADDRESS_MODE"

_TIMEOUT = 2.0  # seconds for a TCP connection: nodes are on this machine or near it
_ATTEMPTS = 3  # nodes that are tried until one is reached


def asked(mode: str | None) -> str:
    """The requested mode: the given one, else $MINICLUSTER_ADDRESS_MODE, else "auto".

    Raises:
        UsageError: there is no such mode.
    """
    word = mode or os.environ.get(VARIABLE) or "auto"
    if word not in MODES:
        where = "--address-mode" if mode else f"${VARIABLE}"
        raise UsageError(f"{where} {word}: no such address mode", "", nearest(word, MODES))
    return word


def choose(mode: str, engine: Engine, spec: Spec | None = None) -> str:
    """The mode itself, or what "auto" means here: localhost, bridge or gateway.

    Args:
        spec: of a cluster, which the user may have asked to be published on another address than 127.0.0.1.
    """
    if mode != "auto":
        return mode
    if engine.hosts:
        return "gateway"
    own = engine.own_container()
    if own and own.network_mode != "host":
        return "bridge"
    asked_elsewhere = spec is not None and spec.overrides.bind_address not in ("", LOCALHOST)
    return "localhost" if (own or engine.shares_localhost) and not asked_elsewhere else "gateway"


def bind_address(mode: str | None, engine: Engine | None, gateway: str, before: str = "", wanted: str = "") -> str:
    """The address of the engine's machine that nodes are published on, in addition to 127.0.0.1.

    Args:
        mode: as the user gave it; None where it was not given.
        engine: None where there is none yet.
        gateway: the address that the engine's machine has in the cluster's network.
        before: the address that existing nodes are published on. Only a mode that is given changes it.
        wanted: the one that the user asks for, by ``--bind-address``.
    """
    if wanted:
        return wanted
    if before and mode in (None, "auto", "bridge"):
        return before
    chosen = choose(asked(mode), engine) if engine else asked(mode)
    return machine_address(engine, gateway) if chosen == "gateway" else LOCALHOST


def hosts_bind_address(mode: str | None, before: str) -> str:
    """What the endpoints of a cluster on several hosts are published on; see :meth:`Spec.published_on`.

    Args:
        mode: as the user gave it; None where it was not given: what exists stays.
    """
    wanted = asked(mode)
    if wanted == "auto":
        return before or LOCALHOST
    return EVERYWHERE if wanted == "gateway" else LOCALHOST


def check_bind_address(text: str | None) -> None:
    """Refuses what is not an IPv4 address that clients can name.

    Raises:
        UsageError: it is not one.
    """
    if text is None:
        return
    try:
        numbers = socket.inet_pton(socket.AF_INET, text)
    except OSError:
        raise UsageError(
            f"--bind-address {text}: not an IPv4 address", "", "Give an address of the engine's machine."
        ) from None
    if not any(numbers):
        raise UsageError(
            f"--bind-address {text}: must be one address",
            f"{text} stands for all; clients cannot connect to it, and certificates cannot be issued for it.",
            "Give the address by which clients reach the engine's machine.",
        )


def machine_address(engine: Engine | None, gateway: str) -> str:
    """An address of the engine's machine that other machines reach: that in its URL, or ``gateway`` of a local engine.

    Raises:
        UsageError: the host in the engine's URL has no IPv4 address.
    """
    host = urlsplit(engine.endpoint).hostname if engine and "://" in engine.endpoint else None
    if engine is None or not host or engine.endpoint.startswith(("unix:", "npipe:")):
        return gateway
    try:
        return socket.gethostbyname(host)
    except OSError as error:
        raise UsageError(
            f"no IPv4 address found for the engine's machine {host}",
            str(error),
            "Use an address in DOCKER_HOST, or --address-mode bridge or localhost.",
        ) from None


def exposed(spec: Spec) -> str:
    """Warns of endpoints that every client may use, where other machines reach them; or ""."""
    if ipaddress.ip_address(spec.bind_address).is_loopback:
        return _only_on_hosts(spec)
    where = ", ".join(spec.hosts.values()) or spec.bind_address
    what = without_login(spec)
    return f"Warning: every client that reaches {where} can, without a login: {what}." if what else ""


def without_login(spec: Spec) -> str:
    """What every client that reaches the endpoints may do, for people; or ""."""
    open_ = dict.fromkeys((e.name, e.anyone) for _node, e in spec.endpoints() if e.anyone)
    return "; ".join(f"{anyone} ({name})" for name, anyone in open_)


def _only_on_hosts(spec: Spec) -> str:
    """Says which endpoints of a cluster on several hosts are not reached from here; or ""."""
    names = dict.fromkeys(e.name for node, e in spec.endpoints() if node.host and e.anyone)
    if not names:
        return ""
    return (
        f"Endpoints {', '.join(names)} need no login, so they are published only on 127.0.0.1 of each node's host; "
        f"--address-mode gateway publishes them on the hosts' addresses."
    )


def own_container(mode: str | None, engine: Engine) -> Container | None:
    """The container that this process runs in, where it has to join the nodes' network; else None."""
    return _joining(engine) if choose(asked(mode), engine) == "bridge" else None


def _joining(engine: Engine) -> Container | None:
    own = engine.own_container()
    return own if own and own.network_mode != "host" else None  # the host's network reaches the nodes as it is


def address(mode: str, spec: Spec, node: NodeSpec, endpoint: EndpointSpec) -> tuple[str, int]:
    """Host and port at which an endpoint is reached, by a mode that :func:`choose` returned."""
    if mode == "bridge":
        return node.address, endpoint.port
    return spec.published_on(node, endpoint) if mode == "gateway" else LOCALHOST, endpoint.host_port


def usable(mode: str, engine: Engine, spec: Spec) -> str:
    """The address mode that a requested one means for a cluster.

    Raises:
        Unreachable: the cluster is not published at the addresses of that mode.
    """
    chosen = choose(mode, engine, spec)
    if spec.hosts:
        return chosen
    if chosen == "gateway" and spec.bind_address == LOCALHOST:
        wanted = machine_address(engine, spec.gateway)
        if wanted != LOCALHOST:
            raise Unreachable(
                f"cluster {spec.cluster} is published only on 127.0.0.1 of the engine's machine",
                f"Address mode gateway needs it on {wanted} as well.",
                f"`minicluster up --name {spec.cluster} --address-mode gateway` recreates its nodes that way; "
                "--address-mode bridge or localhost work without a change.",
            )
    return chosen


def endpoints(
    engine: Engine, spec: Spec, mode: str, authority: pki.Authority | None = None, name: str | None = None
) -> tuple[EndpointInfo, ...]:
    """Published ports that have a URL, by a mode that :func:`choose` returned; those of running nodes first.

    Args:
        authority: the cluster's, for secrets in URLs; None: it is read from a node where it is needed.
        name: only those of this name.

    Raises:
        UsageError: there is none of that name.
    """
    found, secret = [], secrets(engine, spec, [endpoint.url for _node, endpoint in spec.endpoints()], authority)
    for node, endpoint in spec.endpoints():
        if not endpoint.url:  # the `services` hook says whether anything is there
            continue
        host, port = address(mode, spec, node, endpoint)
        url = fill([endpoint.url], {**secret, "host": host, "port": str(port)})[0]
        found.append(EndpointInfo(endpoint.name, node.name, url, endpoint.port))
    running = {c.name for c in engine.containers(spec.cluster) if c.state == "running"}
    if name is not None and name not in {e.name for e in found}:
        raise no_endpoint(f"cluster {spec.cluster}", name, found)
    wanted = [e for e in found if name in (None, e.name)]
    return tuple(sorted(wanted, key=lambda e: container_name(spec.cluster, e.node) not in running))


def no_endpoint(owner: str, name: str, found: Sequence[EndpointInfo]) -> UsageError:
    """The error that there is none of that name."""
    return UsageError(f"{owner} has no endpoint {name!r}", "", nearest(name, {e.name for e in found}))


def endpoint(
    engine: Engine, spec: Spec, mode: str, name: str, node: str = "", authority: pki.Authority | None = None
) -> EndpointInfo:
    """An endpoint by its name, of a node or of the first running one that offers it.

    Raises:
        UsageError: there is none of that name.
    """
    found = [e for e in endpoints(engine, spec, mode, authority) if node in ("", e.node)]
    for one in found:
        if one.name == name:
            return one
    raise no_endpoint(node or f"cluster {spec.cluster}", name, found)


def connect(engine: Engine, spec: Spec, mode: str) -> None:
    """Makes a cluster's endpoints reachable from this process, and checks that a running node is reached.

    Where the mode is bridge, the container that this process runs in joins the cluster's network. Ports on 127.0.0.1
    are not tried: where they fail, the node is down.

    Raises:
        Unreachable: no running node is reached; the error lists what was tried and what to do.
    """
    chosen = usable(mode, engine, spec)
    if chosen == "localhost":
        return
    if chosen == "bridge":
        network, own = network_name(spec.cluster), _joining(engine)
        if own and network not in own.networks:
            engine.connect_network(network, own.name)
    running = {c.name for c in engine.containers(spec.cluster) if c.state == "running"}
    # The profile's own endpoints: whether anything listens on ports that the user asks for is up to the user.
    own_endpoints = [(n, next((e for e in n.endpoints if ":" not in e.name), None)) for n in spec.nodes]
    if spec.hosts:  # those on a host's 127.0.0.1 are for clients there
        own_endpoints = [(n, e) for n, e in own_endpoints if e and spec.published_on(n, e) != LOCALHOST]
    nodes = [(n, e) for n, e in own_endpoints if e and container_name(spec.cluster, n.name) in running]
    tried: list[str] = []
    for node, endpoint in nodes[:_ATTEMPTS]:
        host, port = address(chosen, spec, node, endpoint)
        why = _try(host, port, refusal_is_fine=chosen == "bridge")
        if not why:
            return
        tried.append(f"{node.name} at {host}:{port}: {why}")
    if tried:
        raise Unreachable(
            f"cluster {spec.cluster} is running, but its nodes cannot be reached from here",
            "\n".join([f"Tried address mode {chosen}{' (chosen by auto)' if mode == 'auto' else ''}:", *tried]),
            _advice(chosen, spec, engine),
        )


def _try(host: str, port: int, *, refusal_is_fine: bool) -> str:
    """Why a TCP connection fails; "" where it does not.

    A node that refuses a connection is reachable: only its service is down. A published port that refuses is not, since
    the engine itself accepts connections there.
    """
    try:
        socket.create_connection((host, port), _TIMEOUT).close()
    except ConnectionRefusedError:
        return "" if refusal_is_fine else "connection refused"
    except TimeoutError:
        return f"no answer within {_TIMEOUT:g} s"
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _advice(chosen: str, spec: Spec, engine: Engine) -> str:
    again = f"`minicluster up --name {spec.cluster} --address-mode gateway`"
    if chosen == "bridge":
        return (
            "The nodes' own addresses are reachable on the engine's Linux machine and from containers on network "
            f"{network_name(spec.cluster)}. Elsewhere use another mode: {again} publishes the nodes for other machines."
        )
    if spec.hosts:
        return (
            f"Check whether the hosts' firewalls block ports {_ports(spec)}, and whether these are addresses of the "
            "hosts as seen from here; or run this on a host with --address-mode localhost."
        )
    wanted = machine_address(engine, spec.gateway)
    if wanted != spec.bind_address:
        if spec.overrides.bind_address:  # which is in force whatever the mode, until it is another one
            again = f"`minicluster up --name {spec.cluster} --bind-address {wanted}`"
        return (
            f"The engine is reached at {wanted}, and the nodes are published on {spec.bind_address}. If the address of "
            f"its machine has changed: {again} publishes them on {wanted}, with their data."
        )
    return (
        f"Check whether a firewall blocks ports {_ports(spec)} of {spec.bind_address}; "
        "or run this on the engine's machine with --address-mode localhost."
    )


def _ports(spec: Spec) -> str:
    return ", ".join(str(endpoint.host_port) for _node, endpoint in spec.endpoints())
