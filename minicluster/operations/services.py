"""What users of a cluster have published by its own software, such as Services of type LoadBalancer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from minicluster.errors import MiniclusterError
from minicluster.executor.waiting import last_line
from minicluster.model.naming import container_name
from minicluster.model.results import EndpointInfo
from minicluster.model.spec import NodeSpec, Spec
from minicluster.operations import connect

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine

_TIMEOUT = 10.0  # seconds for the answer of a node


def services(engine: Engine, spec: Spec, mode: str) -> tuple[EndpointInfo, ...]:
    """Where these are reached, by a mode that :func:`connect.choose` returned; nothing where the profile has none.

    Each is listed by its own address, on the cluster's network, and by the published port that leads there, if any: the
    one first that works from here.

    Raises:
        MiniclusterError: no node answers.
    """
    if spec.services is None:
        return ()
    running = {c.name for c in engine.containers(spec.cluster) if c.state == "running"}
    nodes = [n for n in spec.of_role(spec.services.on) if container_name(spec.cluster, n.name) in running]
    error: MiniclusterError | None = None
    for node in nodes:
        try:
            said = _ask(engine, spec, node)
        except MiniclusterError as failure:
            error = error or failure
            continue
        reached = mode == "bridge" or (mode == "localhost" and engine.local)
        return tuple(
            info
            for one in map(json.loads, said.splitlines())
            for info in (_direct(one), *_published(spec, nodes, one, mode))[:: 1 if reached else -1]
        )
    if error:
        raise error
    return ()


def _ask(engine: Engine, spec: Spec, node: NodeSpec) -> str:
    assert spec.services
    what = f"{node.name} does not say what is published in cluster {spec.cluster}"
    try:
        result = engine.exec(container_name(spec.cluster, node.name), spec.services.run, timeout=_TIMEOUT)
    except TimeoutError:
        raise MiniclusterError(what, f"no answer within {_TIMEOUT:g} s") from None
    if result.exit_code != 0:
        raise MiniclusterError(what, last_line(result.stderr or result.stdout))
    return result.stdout


def _direct(one: Mapping[str, Any]) -> EndpointInfo:
    url = f"{one['protocol']}://{one['address']}:{one['port']}"
    return EndpointInfo(one["name"], one.get("node", ""), url, one["port"])


def _published(spec: Spec, nodes: list[NodeSpec], one: Mapping[str, Any], mode: str) -> list[EndpointInfo]:
    """Where a port of the first running node leads to it."""
    found = [(node, endpoint) for node in nodes for endpoint in node.endpoints if endpoint.name == one.get("at")]
    if not found or mode == "bridge":
        return []
    host, port = connect.address(mode, spec, *found[0])
    return [EndpointInfo(one["name"], found[0][0].name, f"{one['protocol']}://{host}:{port}", one["port"])]
