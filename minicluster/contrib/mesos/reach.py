"""How the servers of a cluster are reached from here: by the ports that its façade says are published."""

from __future__ import annotations

from minicluster.cluster import Cluster
from minicluster.contrib.mesos.client import Mesos
from minicluster.contrib.mesos.http import Client
from minicluster.contrib.mesos.marathon import Marathon
from minicluster.errors import UsageError


def mesos(cluster: Cluster) -> Mesos:
    """The masters and agents of a cluster.

    Raises:
        UsageError: it has none.
    """
    routes = _published(cluster, "master")
    if not routes:
        raise UsageError(
            f"cluster {cluster.name} has no Mesos master",
            f"It is of profile {cluster.spec.profile}.",
            "Name a cluster of the mesos profile with -c; `minicluster ls` lists them.",
        )
    return Mesos(Client("Mesos master", [*routes.values()], routes), _published(cluster, "agent"))


def marathon(cluster: Cluster) -> Marathon:
    """The Marathon of a cluster.

    Raises:
        UsageError: it has none.
    """
    routes = _published(cluster, "marathon")
    if not routes:
        fix = "Name a cluster of the mesos profile with -c; `minicluster ls` lists them."
        if _published(cluster, "master"):
            fix = f"Give it one: `minicluster scale scheduler=1 -c {cluster.name}`."
        raise UsageError(f"cluster {cluster.name} has no Marathon", f"It is of profile {cluster.spec.profile}.", fix)
    return Marathon(Client("Marathon", [*routes.values()], routes))


def agent(cluster: Cluster, node: str) -> str:
    """HOST:PORT of a node's agent, as :attr:`minicluster.contrib.mesos.client.Mesos.agents` has it."""
    (name,) = cluster.node_names([node])[:1]
    for other, endpoint in cluster.spec.endpoints():
        if other.name == name and endpoint.name == "agent":
            return f"{other.address}:{endpoint.port}"
    raise UsageError(f"{node} runs no Mesos agent", "", "Name a node of role agent.")


def _published(cluster: Cluster, name: str) -> dict[str, str]:
    """HOST:PORT in the cluster's network -> base URL, of the endpoints of a name."""
    return {f"{node.address}:{e.port}": e.url for node, e in cluster.spec.endpoints() if e.name == name}
