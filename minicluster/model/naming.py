"""Names of what minicluster makes on an engine: strings in, names out."""

from __future__ import annotations


def container_name(cluster: str, node: str) -> str:
    """The name of a node's container on the engine."""
    return f"{cluster}-{node}"


def network_name(cluster: str) -> str:
    """The name of a cluster's network on the engine."""
    return f"{cluster}-net"


def volume_name(cluster: str, node: str, path: str) -> str:
    """The name of the volume that a node has mounted at a path."""
    return f"{cluster}-{node}-{path.strip('/').replace('/', '-')}"


def shared_volume_name(cluster: str, path: str) -> str:
    """The name of the volume that nodes of a cluster have in common at a path."""
    return f"{cluster}-shared-{path.strip('/').replace('/', '-')}"
