"""What users of a cluster have published by its own software, such as Services of type LoadBalancer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from minicluster.errors import MiniclusterError
from minicluster.model import services as model
from minicluster.model.results import EndpointInfo
from minicluster.operations import ask, connect

if TYPE_CHECKING:
    from minicluster import pki
    from minicluster.engine.protocol import Engine
    from minicluster.model.services import Service
    from minicluster.model.spec import NodeSpec, Spec


def endpoints(
    engine: Engine, spec: Spec, mode: str, authority: pki.Authority | None, name: str | None
) -> tuple[EndpointInfo, ...]:
    """As :func:`connect.endpoints`; by a name that has a slash, those that users have published.

    Raises:
        UsageError: there is none of that name.
    """
    # Names of the cluster's own have no slash, or a protocol behind it: agent:53/udp.
    if name is None or "/" not in name or ":" in name:
        return connect.endpoints(engine, spec, mode, authority, name)
    found = services(engine, spec, mode)
    if not (wanted := tuple(one for one in found if one.name == name)):
        raise connect.no_endpoint(f"cluster {spec.cluster}", name, found)
    return wanted


def services(engine: Engine, spec: Spec, mode: str) -> tuple[EndpointInfo, ...]:
    """Where these are reached, by a mode that :func:`connect.choose` returned; nothing where the profile has none.

    Each is listed by its own address, on the cluster's network, and by the published port that leads there, if any: the
    one first that works from here.

    Raises:
        MiniclusterError: no node answers.
    """
    hook = spec.services
    if hook is None:
        return ()
    nodes = ask.running(spec, hook.on, engine.containers(spec.cluster))
    if not nodes:
        return ()
    found, why = ask.first_answer(engine, spec, hook, nodes, model.parse)
    if found is None:
        raise MiniclusterError(f"no {hook.on} says what is published in cluster {spec.cluster}", why)
    reached = mode == "bridge" or (mode == "localhost" and engine.local)
    return tuple(
        info for one in found for info in (*_direct(one), *_published(spec, nodes, one, mode))[:: 1 if reached else -1]
    )


def _direct(one: Service) -> Iterator[EndpointInfo]:
    if one.address:
        yield EndpointInfo(one.name, one.node, one.url, one.port)


def _published(spec: Spec, nodes: Sequence[NodeSpec], one: Service, mode: str) -> Iterator[EndpointInfo]:
    """Where a port of the first running node leads to it."""
    found = [(node, endpoint) for node in nodes for endpoint in node.endpoints if endpoint.name == one.at]
    if found and mode != "bridge":
        host, port = connect.address(mode, spec, *found[0])
        yield EndpointInfo(one.name, found[0][0].name, one.url_at(host, port), one.port)
