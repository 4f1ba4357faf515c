"""A node of a running cluster, to work with: what :class:`~minicluster.cluster.Cluster` does to nodes, to this one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from minicluster.errors import UsageError, nearest

if TYPE_CHECKING:
    from minicluster.cluster import Cluster
    from minicluster.engine.protocol import ExecResult
    from minicluster.model.results import Change, EndpointInfo, NodeStatus
    from minicluster.model.spec import NodeSpec as Described


class Node:
    """One node. It stands for its name: what it is may change, and it may be gone."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name

    def __repr__(self) -> str:
        return f"<node {self.name} of {self.cluster.name}>"

    @property
    def role(self) -> str:
        """Its role."""
        return self._described.role

    @property
    def address(self) -> str:
        """Its address on the cluster's own network."""
        return self._described.address

    @property
    def container(self) -> str:
        """The name of its container on the engine."""
        return self.cluster._container(self.name)

    def endpoint(self, name: str) -> EndpointInfo:
        """A published port of this node by its name.

        Raises:
            UsageError: it offers none of that name.
        """
        found = {e.name: e for e in self.cluster.endpoints() if e.node == self.name}
        if name not in found:
            raise UsageError(f"{self.name} has no endpoint {name!r}", "", nearest(name, found))
        return found[name]

    def status(self) -> NodeStatus:
        """How it is doing; the whole cluster is asked."""
        return next(node for node in self.cluster.status().nodes if node.name == self.name)

    def exec(self, argv: str | Sequence[str], *, timeout: float | None = None) -> ExecResult:
        """Runs a command in it; see :meth:`Cluster.exec`."""
        return self.cluster.exec(self.name, argv, timeout=timeout)

    def logs(self, *, follow: bool = False, tail: int | None = None) -> Iterator[str]:
        """The lines of its log."""
        return (line for _name, line in self.cluster.logs(self.name, follow=follow, tail=tail))

    def stop(self) -> Change:
        """Stops it; it keeps its name, address, ports and data."""
        return self.cluster.stop(self.name)

    def start(self, *, timeout: float | None = None) -> Change:
        """Starts it, or lets it go on, and waits until it serves."""
        return self.cluster.start(self.name) if timeout is None else self.cluster.start(self.name, timeout=timeout)

    def restart(self) -> Change:
        """Stops and starts it."""
        return self.cluster.restart(self.name)

    def pause(self) -> Change:
        """Freezes every process of it, as a machine that hangs would be."""
        return self.cluster.pause(self.name)

    def unpause(self) -> Change:
        """Lets it go on."""
        return self.cluster.unpause(self.name)

    def kill(self) -> Change:
        """Ends it at once, as a crash would."""
        return self.cluster.kill(self.name)

    @property
    def _described(self) -> Described:
        found = self.cluster.spec.node(self.name)
        if found is None:
            raise UsageError(f"cluster {self.cluster.name} has no node {self.name!r} any more", "It has left.")
        return found
