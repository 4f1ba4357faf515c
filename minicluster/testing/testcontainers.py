"""Clusters for users of testcontainers-python.

>>> with ClusterContainer("etcd").with_size(kv=3) as etcd:                       # doctest: +SKIP
...     print(etcd.get_connection_url("client"), etcd.get_env())

Other containers of that library join the cluster's network with ``with_network(etcd.network)`` and reach nodes by name;
``ClusterContainer.with_network`` connects the nodes to one of the library's networks. A cluster belongs to the process
that created it and is removed when that process ends, even by SIGKILL: by minicluster's lease, not by the library's
reaper.
"""

from __future__ import annotations

import secrets
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from minicluster.cluster import Cluster, clusters
from minicluster.errors import MiniclusterError, UsageError
from minicluster.model.lease import Lease
from minicluster.model.naming import container_name, derived_name, network_name

try:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.network import Network
    from testcontainers.core.waiting_utils import WaitStrategy
except ImportError as missing:
    raise ImportError(
        "minicluster.testing.testcontainers needs testcontainers-python 4: `pip install testcontainers`, or "
        "minicluster with its extra, `pip install '.[testcontainers]'` in a checkout"
    ) from missing

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from minicluster.model.results import EndpointInfo


class ClusterContainer:
    """A cluster that is started and stopped like one of the library's containers, and a target of its wait strategies.

    Args:
        profile: name or folder.
        options: further arguments of :meth:`minicluster.Cluster.up`. By default the name is unique, and the lease
            belongs to this process: the cluster is removed when the process ends.
    """

    def __init__(self, profile: str, **options: Any) -> None:
        self._profile = profile
        self._options: dict[str, Any] = {"lease": None, "networks": [], "mounts": [], **options}
        for several in ("networks", "mounts"):
            self._options[several] = list(self._options[several])
        self.name: str = self._options.pop("name", None) or _own_name(profile)
        self._waits: list[tuple[WaitStrategy, tuple[str, ...]]] = []
        self._cluster: Cluster | None = None
        self._nodes: dict[str, NodeContainer] = {}

    # Options

    def with_name(self, name: str) -> Self:
        """The cluster's name; no cluster may have it yet."""
        self.name = name
        return self

    def with_size(self, **nodes: int) -> Self:
        """The number of nodes of roles: ``with_size(kv=3)``."""
        return self._with("size", nodes)

    def with_setting(self, path: str, value: str) -> Self:
        """A setting of the profile, or any value in it, as for ``up --set``."""
        return self._with("set", {path: value})

    def with_image(self, name: str, ref: str) -> Self:
        """An image to use instead of one of the profile's."""
        return self._with("image", {name: ref})

    def with_port(self, endpoint: str, port: int) -> Self:
        """The host port of an endpoint, or of ROLE:PORT[/udp], on the first node; on the next one it is one more."""
        return self._with("port", {endpoint: port})

    def with_mount(self, mount: str) -> Self:
        """A file or folder of the host in nodes: ROLE:HOSTPATH:/PATH[:ro]. May be repeated."""
        self._options["mounts"].append(mount)
        return self

    def with_network(self, network: Network | str) -> Self:
        """Connects the nodes to another network, under the names NODE and CLUSTER-NODE. May be repeated."""
        self._options["networks"].append(network if isinstance(network, str) else network.name)
        return self

    def with_address_mode(self, mode: str) -> Self:
        """Which addresses are returned: localhost, bridge, gateway or auto."""
        self._options["address_mode"] = mode
        return self

    def with_startup_timeout(self, seconds: float) -> Self:
        """The time that the nodes have to become ready."""
        self._options["timeout"] = seconds
        return self

    def waiting_for(self, strategy: WaitStrategy, *nodes: str) -> Self:
        """Makes ``start`` wait for one of the library's strategies, too, after the cluster is ready.

        Args:
            nodes: names or roles of the nodes to apply it to; by default the nodes that publish a port, else all.
        """
        self._waits.append((strategy, nodes))
        return self

    def _with(self, option: str, more: dict[str, Any]) -> Self:
        self._options[option] = {**(self._options.get(option) or {}), **more}
        return self

    # Start and stop

    def start(self) -> Self:
        """Creates the cluster, and returns when every node is ready and the wait strategies are satisfied.

        Raises:
            MiniclusterError: it could not be created, or its name is taken; nothing is left behind.
            TimeoutError: a wait strategy timed out; nothing is left behind.
        """
        if self.name in (c.cluster for c in clusters()):
            raise UsageError(
                f"there is already a cluster {self.name}",
                "stop() would remove that cluster.",
                "Choose another name, or omit it.",
            )
        options = {**self._options, "lease": self._options["lease"] or Lease.owned()}
        options |= {several: options[several] or None for several in ("networks", "mounts")}
        self._cluster = Cluster.up(self._profile, name=self.name, **options)
        try:
            self._cluster.connect()
            self._nodes = {node.name: NodeContainer(self, node.name) for node in self._cluster.spec.nodes}
            for strategy, nodes in self._waits:
                for name in self._cluster.node_names(nodes) if nodes else self._serving():
                    strategy.wait_until_ready(self._nodes[name])
        except BaseException as error:
            if isinstance(error, TimeoutError) and hasattr(error, "add_note"):
                error.add_note(b"\n".join(self.get_logs()).decode(errors="replace"))
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Removes the cluster and everything that was created for it."""
        cluster, self._cluster = self._cluster, None
        for node in self._nodes.values():
            node.get_docker_client().client.close()
        self._nodes = {}
        if cluster:
            cluster.down()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # Addresses

    def get_connection_url(self, endpoint: str = "", node: str = "") -> str:
        """The URL of an endpoint of a node; by default the first endpoint of the first running node."""
        return self._endpoint(endpoint, node).url

    def get_env(self) -> dict[str, str]:
        """Variables for the system's native client, as ``minicluster env`` prints them."""
        return self.get_cluster().env()

    def get_container_host_ip(self) -> str:
        """The host of the first endpoint, as reached from here."""
        return self._endpoint("", "").host

    def get_exposed_port(self, port: int) -> int:
        """The published port for a port of the nodes, on the first node that publishes it."""
        return exposed(self.name, self.get_cluster().endpoints(), port).port

    @property
    def network(self) -> ClusterNetwork:
        """The cluster's network, for ``with_network`` of other containers; nodes have their names on it."""
        return ClusterNetwork(network_name(self.name))

    def _endpoint(self, name: str, node: str) -> EndpointInfo:
        found = self.get_cluster().endpoints(name if "/" in name else None)
        wanted = [e for e in found if name in ("", e.name) and node in ("", e.node)]
        if not wanted:
            there = ", ".join(f"{e.name} of {e.node}" for e in found) or "none"
            raise UsageError(f"cluster {self.name} has no endpoint {name} {node}".rstrip(), f"Its endpoints: {there}.")
        return wanted[0]

    # Contents

    def get_cluster(self) -> Cluster:
        """The cluster itself, with all its methods: ``kill``, ``scale``, ``status``, …"""
        if self._cluster is None:
            raise UsageError(f"cluster {self.name} is not started", "", "Call start(), or use it as a context manager.")
        return self._cluster

    def get_node(self, name: str = "") -> NodeContainer:
        """A node as one of the library's containers; by default the first that publishes a port."""
        name = name or self._serving()[0]
        if name not in self._nodes:
            self.get_cluster().node(name)  # raises if there is no such node
            self._nodes[name] = NodeContainer(self, name)  # added by scaling
        return self._nodes[name]

    def get_wrapped_container(self) -> Any:
        """The docker client's container of the first node."""
        return self.get_node().get_wrapped_container()

    def get_logs(self) -> tuple[bytes, bytes]:
        """Standard output and standard error of all nodes, concatenated."""
        logs = [self.get_node(name).get_logs() for name in self.get_cluster().node_names()]
        return b"".join(out for out, _error in logs), b"".join(error for _out, error in logs)

    def exec(self, command: str | list[str], node: str = "") -> Any:
        """Runs a command in a node, by default the first; returns what the library's containers return."""
        return self.get_node(node).exec(command)

    def reload(self) -> None:
        """Refreshes the state of the nodes."""
        for name in self.get_cluster().node_names():
            self.get_node(name).reload()

    @property
    def status(self) -> str:
        """ "running" if all nodes run, else the state of the first that does not; "not_started" before start()."""
        if self._cluster is None:
            return "not_started"
        states = [self.get_node(name).status for name in self._cluster.node_names()]
        return next((state for state in states if state != "running"), "running")

    def _serving(self) -> list[str]:
        spec = self.get_cluster().spec
        return [node.name for node in spec.nodes if node.endpoints] or [node.name for node in spec.nodes]


class NodeContainer(DockerContainer):
    """A node as one of the library's containers."""

    def __init__(self, of: ClusterContainer, node: str) -> None:
        cluster = of.get_cluster()
        found = cluster.spec.node(node)
        assert found
        super().__init__(cluster.spec.images[found.image].ref)
        self.node = node
        self._of = of
        name = container_name(cluster.name, node)
        there = self.get_docker_client().client.containers.list(all=True, filters={"name": f"^/?{name}$"})
        if not there:
            self.get_docker_client().client.close()
            raise MiniclusterError(
                "testcontainers uses another engine than minicluster",
                f"minicluster created {name} at {cluster.engine.endpoint}; the other engine has no such container.",
                f"Set DOCKER_HOST={cluster.engine.endpoint} for both.",
            )
        self.with_name(name)
        self._container = there[0]

    def start(self) -> Self:
        """Starts the node if it is stopped, and waits until it is ready."""
        self._of.get_cluster().start([self.node])
        return self

    def stop(self, force: bool = True, delete_volume: bool = True) -> None:
        """Stops the node. It keeps its container, its address and its data."""
        self._of.get_cluster().stop([self.node])

    def get_container_host_ip(self) -> str:
        """The host of the node's ports, as reached from here."""
        found = self._endpoints()
        return found[0].host if found else super().get_container_host_ip()

    def get_exposed_port(self, port: int) -> int:
        """The published port for a port of the node."""
        return exposed(self.node, self._endpoints(), port).port

    def _endpoints(self) -> list[EndpointInfo]:
        return [e for e in self._of.get_cluster().endpoints() if e.node == self.node]


class ClusterNetwork(Network):
    """A cluster's network as one of the library's networks. The cluster creates and removes it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def create(self) -> Self:
        """Does nothing: it exists as long as the cluster."""
        return self

    def remove(self) -> None:
        """Does nothing: it is removed with the cluster, which disconnects other containers."""

    @property
    def id(self) -> str | None:
        """The network's ID."""
        return str(self._docker.client.networks.get(self.name).id)

    def connect(self, container_id: str, network_aliases: list[str] | None = None) -> None:
        """Connects a container to it."""
        self._docker.client.networks.get(self.name).connect(container_id, aliases=network_aliases)


def exposed(owner: str, endpoints: tuple[EndpointInfo, ...] | list[EndpointInfo], port: int) -> EndpointInfo:
    """The endpoint for a port of a node.

    Raises:
        UsageError: the port is not published.
    """
    for endpoint in endpoints:
        if endpoint.node_port == int(port):
            return endpoint
    there = ", ".join(str(p) for p in sorted({e.node_port for e in endpoints})) or "none"
    raise UsageError(f"port {port} of {owner} is not published", f"Published ports: {there}.")


def _own_name(profile: str) -> str:
    """A unique name."""
    return f"tc-{derived_name(PurePath(profile).name, 16)}-{secrets.token_hex(4)}"
