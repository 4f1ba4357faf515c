"""Addresses: where a cluster's endpoints are published, and which address is handed out to whoever asks.

Who asks may sit on the engine's machine, in a container of it, or far away. Four address modes:

``localhost``  the ports that are published on 127.0.0.1
``bridge``     the nodes' own addresses and ports; a container that minicluster runs in is connected to their network
``gateway``    the ports, published on an address of the engine's machine that others reach as well
``auto``       whichever of these fits the place that minicluster runs at
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from minicluster.errors import Unreachable, UsageError, nearest
from minicluster.model.naming import container_name, network_name
from minicluster.model.spec import LOCALHOST, EndpointSpec, NodeSpec, Spec

if TYPE_CHECKING:
    from minicluster.engine.protocol import Container, Engine

MODES = ("auto", "localhost", "bridge", "gateway")
VARIABLE = "MINICLUSTER_ADDRESS_MODE"

_PATIENCE = 2.0  # seconds for a TCP connection: nodes are on this machine or in its neighbourhood
_TRIES = 3  # nodes that are tried until one is reached


def asked(mode: str | None) -> str:
    """The mode that was asked for: the given one, else $MINICLUSTER_ADDRESS_MODE, else "auto".

    Raises:
        UsageError: there is no such mode.
    """
    word = mode or os.environ.get(VARIABLE) or "auto"
    if word not in MODES:
        where = "--address-mode" if mode else f"${VARIABLE}"
        raise UsageError(f"{where} {word}: no such address mode", "", nearest(word, MODES))
    return word


def choose(mode: str, engine: Engine) -> str:
    """The mode itself, or what "auto" means here: localhost, bridge or gateway."""
    if mode != "auto":
        return mode
    own = engine.own_container()
    if own:
        return "localhost" if own.network_mode == "host" else "bridge"
    return "localhost" if engine.shares_localhost else "gateway"


def bind_address(mode: str | None, engine: Engine | None, gateway: str, before: str = "") -> str:
    """The address of the engine's machine that nodes are to be published on; 127.0.0.1 is one beside it in any case.

    Args:
        mode: as the user gave it; None where nothing was given.
        engine: None where there is none yet.
        gateway: the address that the engine's machine has in the cluster's network.
        before: what the nodes that are there are published on. Only a mode that is given changes it.
    """
    if before and mode in (None, "auto", "bridge"):
        return before
    chosen = choose(asked(mode), engine) if engine else asked(mode)
    return machine_address(engine, gateway) if chosen == "gateway" else LOCALHOST


def machine_address(engine: Engine | None, gateway: str) -> str:
    """An address of the engine's machine that others reach: the one in its URL; of a local engine ``gateway``.

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
            f"the engine's machine {host} has no IPv4 address that is known here",
            str(error),
            "Name it by an address in DOCKER_HOST, or take --address-mode bridge or localhost.",
        ) from None


def own_container(mode: str | None, engine: Engine) -> Container | None:
    """The container that this process runs in, where it is to be connected to the nodes' network; else None."""
    return _guest(engine) if choose(asked(mode), engine) == "bridge" else None


def _guest(engine: Engine) -> Container | None:
    own = engine.own_container()
    return own if own and own.network_mode != "host" else None  # the machine's own network reaches nodes as it is


def address(mode: str, spec: Spec, node: NodeSpec, endpoint: EndpointSpec) -> tuple[str, int]:
    """Host and port at which an endpoint is reached, by a mode that :func:`reach` returned."""
    if mode == "bridge":
        return node.address, endpoint.port
    return spec.bind_address if mode == "gateway" else LOCALHOST, endpoint.host_port


def reach(engine: Engine, spec: Spec, mode: str) -> str:
    """Sees to it that a cluster's endpoints are reached from here, and tells by which mode.

    Connects the container that this process runs in to the cluster's network, where the mode is bridge. What is
    published on 127.0.0.1 is not tried: all that ever helps there is to start the nodes.

    Raises:
        Unreachable: no node that runs can be reached; says what was tried and what can be done.
    """
    chosen = choose(mode, engine)
    if chosen == "localhost":
        return chosen
    if chosen == "gateway":
        _check_published(engine, spec)
    else:
        network, own = network_name(spec.cluster), _guest(engine)
        if own and network not in own.networks:
            engine.connect_network(network, own.name)
    running = {c.name for c in engine.containers(spec.cluster) if c.state == "running"}
    nodes = [n for n in spec.nodes if n.endpoints and container_name(spec.cluster, n.name) in running]
    tried: list[str] = []
    for node in nodes[:_TRIES]:
        host, port = address(chosen, spec, node, node.endpoints[0])
        why = _try(host, port, refusal_is_fine=chosen == "bridge")
        if not why:
            return chosen
        tried.append(f"{node.name} at {host}:{port}: {why}")
    if tried:
        raise Unreachable(
            f"cluster {spec.cluster} runs, but its nodes cannot be reached from here",
            "\n".join([f"Tried address mode {chosen}{' (chosen by auto)' if mode == 'auto' else ''}:", *tried]),
            _advice(chosen, spec, engine),
        )
    return chosen


def _check_published(engine: Engine, spec: Spec) -> None:
    if spec.bind_address == LOCALHOST and (wanted := machine_address(engine, spec.gateway)) != LOCALHOST:
        raise Unreachable(
            f"cluster {spec.cluster} is published on 127.0.0.1 of its engine's machine alone",
            f"Address mode gateway needs it on {wanted} as well.",
            f"`minicluster up --name {spec.cluster} --address-mode gateway` makes its nodes anew so; "
            "--address-mode bridge or localhost take it as it is.",
        )


def _try(host: str, port: int, *, refusal_is_fine: bool) -> str:
    """Why a TCP connection fails; "" where it does not.

    A node that refuses has been reached: its service is down. Published ports are the engine's to answer, always.
    """
    try:
        socket.create_connection((host, port), _PATIENCE).close()
    except ConnectionRefusedError:
        return "" if refusal_is_fine else "connection refused"
    except TimeoutError:
        return f"no answer within {_PATIENCE:g} s"
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _advice(chosen: str, spec: Spec, engine: Engine) -> str:
    again = f"`minicluster up --name {spec.cluster} --address-mode gateway`"
    if chosen == "bridge":
        return (
            "Nodes' own addresses are reached on the engine's own Linux machine and in containers on network "
            f"{network_name(spec.cluster)}. Elsewhere use another mode: {again} publishes the nodes for others."
        )
    wanted = machine_address(engine, spec.gateway)
    if wanted != spec.bind_address:
        return f"The engine's machine has another address now: {again} publishes the nodes on {wanted}."
    return (
        f"See whether a firewall keeps ports {_ports(spec)} of {spec.bind_address} from you; "
        "or run this on the engine's machine, with --address-mode localhost."
    )


def _ports(spec: Spec) -> str:
    return ", ".join(str(endpoint.host_port) for _node, endpoint in spec.endpoints())
