"""Names of what minicluster makes on an engine, and values as users write them: strings in, strings out."""

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


def value_text(value: object) -> str:
    """The value of a setting as YAML and the command line write it.

    >>> value_text(True), value_text(100)
    ('true', '100')
    """
    return str(value).lower() if isinstance(value, bool) else str(value)
