"""The addresses of a cluster's Mesos and Marathon servers on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minicluster.contrib.mesos.client import Mesos
from minicluster.contrib.mesos.http import Client
from minicluster.contrib.mesos.marathon import Marathon
from minicluster.errors import UsageError

if TYPE_CHECKING:
    from minicluster.cluster import Cluster
    from minicluster.model.results import EndpointInfo


def mesos(cluster: Cluster) -> Mesos:
    """The masters and agents of a cluster.

    Raises:
        UsageError: it has none.
    """
    nodes = {_place(cluster, endpoint): endpoint.node for endpoint in cluster.endpoints() if endpoint.name == "agent"}
    return Mesos(_client(cluster, "Mesos master", "master"), _published(cluster, "agent"), nodes)


def marathon(cluster: Cluster) -> Marathon:
    """The Marathon of a cluster.

    Raises:
        UsageError: it has none.
    """
    return Marathon(_client(cluster, "Marathon", "marathon"))


def _client(cluster: Cluster, server: str, endpoint: str) -> Client:
    """A client of a cluster's servers of one kind, by the name of their endpoint."""
    cluster.connect()
    routes = _published(cluster, endpoint)
    if not routes:
        fix = "Name a cluster of the mesos profile with -c; `minicluster ls` lists them."
        if _published(cluster, "master"):
            fix = f"Add one: `minicluster scale scheduler=1 -c {cluster.name}`."
        raise UsageError(
            f"cluster {cluster.name} has no {server}", f"It was created from profile {cluster.spec.profile}.", fix
        )
    return Client(server, [*routes.values()], routes, cluster.name)


def agent(cluster: Cluster, node: str) -> str:
    """HOST:PORT of a node's agent: a key of :attr:`minicluster.contrib.mesos.client.Mesos.agents`."""
    (name,) = cluster.node_names([node])[:1]
    for endpoint in cluster.endpoints():
        if endpoint.node == name and endpoint.name == "agent":
            return _place(cluster, endpoint)
    raise UsageError(f"node {node} has no Mesos agent", "", "Name a node of role agent.")


def _published(cluster: Cluster, name: str) -> dict[str, str]:
    """HOST:PORT in the cluster's network -> base URL, of the endpoints of a name; those of running nodes first."""
    return {_place(cluster, endpoint): endpoint.url for endpoint in cluster.endpoints() if endpoint.name == name}


def _place(cluster: Cluster, endpoint: EndpointInfo) -> str:
    node = cluster.spec.node(endpoint.node)
    assert node
    return f"{node.address}:{endpoint.node_port}"
