"""A node of a cluster. It only delegates, to :class:`minicluster.cluster.Cluster`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from minicluster.model.durations import DEFAULT_TIMEOUT
from minicluster.operations import connect as addresses, nodes as selection

if TYPE_CHECKING:
    from minicluster.cluster import Cluster
    from minicluster.engine.protocol import ExecResult
    from minicluster.model import results
    from minicluster.model.results import Change
    from minicluster.model.spec import NodeSpec


class Node:
    """A node of a cluster, by its name. Methods that a cluster has too do the same to this node."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name

    def __repr__(self) -> str:
        return f"<node {self.name} of {self.cluster.name}>"

    @property
    def spec(self) -> NodeSpec:
        """Its part of the cluster's spec; ``UsageError`` once it is removed."""
        return selection.node_of(self.cluster.spec, self.name)

    @property
    def role(self) -> str:
        """Its role."""
        return self.spec.role

    @property
    def address(self) -> str:
        """Its address on the cluster's own network."""
        return self.spec.address

    @property
    def container(self) -> str:
        """The name of its container on the engine."""
        return selection.container_of(self.cluster.spec, self.name)

    def endpoint(self, name: str) -> results.EndpointInfo:
        """A published port of this node by its name."""
        c = self.cluster
        return addresses.endpoint(c.engine, c.spec, c.address_mode, name, self.name, c._authority)

    def status(self) -> results.NodeStatus:
        """How it is doing; the whole cluster is asked."""
        name = self.spec.name  # an error once it is removed
        return next(node for node in self.cluster.status().nodes if node.name == name)

    def exec(self, argv: str | Sequence[str], *, timeout: float | None = None) -> ExecResult:
        return self.cluster.exec(self.name, argv, timeout=timeout)

    def logs(self, *, follow: bool = False, tail: int | None = None) -> Iterator[str]:
        return (line for _name, line in self.cluster.logs(self.name, follow=follow, tail=tail))

    def stop(self) -> Change:
        return self.cluster.stop(self.name)

    def start(self, *, timeout: float = DEFAULT_TIMEOUT) -> Change:
        return self.cluster.start(self.name, timeout=timeout)

    def restart(self) -> Change:
        return self.cluster.restart(self.name)

    def pause(self) -> Change:
        return self.cluster.pause(self.name)

    def unpause(self) -> Change:
        return self.cluster.unpause(self.name)

    def kill(self) -> Change:
        return self.cluster.kill(self.name)
