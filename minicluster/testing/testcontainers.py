"""A cluster as users of testcontainers-python have their containers.

>>> with ClusterContainer("etcd").with_size(kv=3) as etcd:                       # doctest: +SKIP
...     print(etcd.get_connection_url("client"), etcd.get_env())

Other containers of that library join the cluster's network with ``with_network(etcd.network)`` and reach nodes by name;
``ClusterContainer.with_network`` puts the nodes into one of the library's networks. A cluster belongs to the process
that made it and is removed when that ends, however it ends: by minicluster's own lease, not by the library's reaper.
"""

from __future__ import annotations

import re
import secrets
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from minicluster.cluster import Cluster, clusters
from minicluster.errors import MiniclusterError, UsageError
from minicluster.model.lease import Lease
from minicluster.model.naming import container_name, network_name

try:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.network import Network
    from testcontainers.core.waiting_utils import WaitStrategy
except ImportError as missing:
    raise ImportError(
        "minicluster.testing.testcontainers needs testcontainers-python 4: install minicluster with its extra, "
        "`pip install 'minicluster[testcontainers]'`"
    ) from missing

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from minicluster.model.results import EndpointInfo


class ClusterContainer:
    """A cluster, started and stopped like one of the library's containers; it serves its wait strategies as a target.

    Args:
        profile: name or folder.
        options: what :meth:`minicluster.Cluster.up` takes besides. The name is one of its own by default, and the lease
            that of this process: the cluster is gone when that is.
    """

    def __init__(self, profile: str, **options: Any) -> None:
        self._profile = profile
        self._options: dict[str, Any] = {"lease": None, "networks": [], **options}
        self._options["networks"] = list(self._options["networks"])
        self.name: str = self._options.pop("name", None) or _own_name(profile)
        self._waits: list[tuple[WaitStrategy, tuple[str, ...]]] = []
        self._cluster: Cluster | None = None
        self._nodes: dict[str, NodeContainer] = {}

    # What it shall be

    def with_name(self, name: str) -> Self:
        """The cluster's name; there must be none of that name yet."""
        self.name = name
        return self

    def with_size(self, **nodes: int) -> Self:
        """How many nodes roles have: ``with_size(kv=3)``."""
        return self._with("size", nodes)

    def with_setting(self, path: str, value: str) -> Self:
        """A setting of the profile, or any value in it, as ``up --set`` has it."""
        return self._with("set", {path: value})

    def with_image(self, name: str, ref: str) -> Self:
        """A ready image for one of the profile's."""
        return self._with("image", {name: ref})

    def with_port(self, endpoint: str, port: int) -> Self:
        """The host port of an endpoint."""
        return self._with("port", {endpoint: port})

    def with_network(self, network: Network | str) -> Self:
        """Lets the nodes join a network beside their own, under the names NODE and CLUSTER-NODE. May be repeated."""
        self._options["networks"].append(network if isinstance(network, str) else network.name)
        return self

    def with_address_mode(self, mode: str) -> Self:
        """Which addresses are handed out: localhost, bridge, gateway or auto."""
        self._options["address_mode"] = mode
        return self

    def with_startup_timeout(self, seconds: float) -> Self:
        """How long the nodes have to get ready."""
        self._options["timeout"] = seconds
        return self

    def waiting_for(self, strategy: WaitStrategy, *nodes: str) -> Self:
        """Waits in ``start`` for one of the library's strategies, too, once the cluster itself counts every node.

        Args:
            nodes: names or roles that each must pass it; by default the nodes that publish a port, else all.
        """
        self._waits.append((strategy, nodes))
        return self

    def _with(self, option: str, more: dict[str, Any]) -> Self:
        self._options[option] = {**(self._options.get(option) or {}), **more}
        return self

    # Its life

    def start(self) -> Self:
        """Stands the cluster up, and returns when every node is ready and passes what was waited for.

        Raises:
            MiniclusterError: it could not be made, or one of that name is there; nothing is left then.
            TimeoutError: a wait strategy gave up; nothing is left then.
        """
        if self.name in (c.cluster for c in clusters()):
            raise UsageError(
                f"a cluster is called {self.name} already",
                "Stopping this one would remove it.",
                "Choose another name, or none.",
            )
        options = {**self._options, "lease": self._options["lease"] or Lease.owned()}
        options["networks"] = options["networks"] or None
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
        """Removes the cluster, and everything that was made for it."""
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

    # How it is reached

    def get_connection_url(self, endpoint: str = "", node: str = "") -> str:
        """The URL of an endpoint, by its name, of a node; by default the first one of the first node that runs."""
        return self._endpoint(endpoint, node).url

    def get_env(self) -> dict[str, str]:
        """Variables for the stock client of the system, as ``minicluster env`` prints them."""
        return self.get_cluster().env()

    def get_container_host_ip(self) -> str:
        """The host at which the first endpoint is reached from here."""
        return self._endpoint("", "").host

    def get_exposed_port(self, port: int) -> int:
        """The port at which a node's port is reached from here; of the first node that publishes it."""
        return exposed(self.name, self.get_cluster().endpoints(), port).port

    @property
    def network(self) -> ClusterNetwork:
        """The cluster's own network, where nodes are reached by name: other containers take it by ``with_network``."""
        return ClusterNetwork(network_name(self.name))

    def _endpoint(self, name: str, node: str) -> EndpointInfo:
        found = self.get_cluster().endpoints()
        wanted = [e for e in found if name in ("", e.name) and node in ("", e.node)]
        if not wanted:
            there = ", ".join(f"{e.name} of {e.node}" for e in found) or "none"
            raise UsageError(f"cluster {self.name} has no endpoint {name} {node}".rstrip(), f"There are: {there}.")
        return wanted[0]

    # What is in it

    def get_cluster(self) -> Cluster:
        """The cluster itself, for whatever else can be done with it: ``kill``, ``scale``, ``status``, …"""
        if self._cluster is None:
            raise UsageError(f"cluster {self.name} is not started", "", "Call start(), or use it in a with block.")
        return self._cluster

    def get_node(self, name: str = "") -> NodeContainer:
        """A node, as one of the library's containers; by default the first that publishes a port."""
        name = name or self._serving()[0]
        if name not in self._nodes:
            self.get_cluster().node(name)  # refuses what there is none of
            self._nodes[name] = NodeContainer(self, name)  # it came by scaling
        return self._nodes[name]

    def get_wrapped_container(self) -> Any:
        """The docker client's container of the first node."""
        return self.get_node().get_wrapped_container()

    def get_logs(self) -> tuple[bytes, bytes]:
        """Standard output and standard error of all nodes, one node after the other."""
        logs = [self.get_node(name).get_logs() for name in self.get_cluster().node_names()]
        return b"".join(out for out, _error in logs), b"".join(error for _out, error in logs)

    def exec(self, command: str | list[str], node: str = "") -> Any:
        """Runs a command in a node, the first by default; answers as the library's containers do."""
        return self.get_node(node).exec(command)

    def reload(self) -> None:
        """Looks again how the nodes are doing."""
        for name in self.get_cluster().node_names():
            self.get_node(name).reload()

    @property
    def status(self) -> str:
        """ "running" where all nodes run; else the state of the first that does not; "not_started" before."""
        if self._cluster is None:
            return "not_started"
        states = [self.get_node(name).status for name in self._cluster.node_names()]
        return next((state for state in states if state != "running"), "running")

    def _serving(self) -> list[str]:
        spec = self.get_cluster().spec
        return [node.name for node in spec.nodes if node.endpoints] or [node.name for node in spec.nodes]


class NodeContainer(DockerContainer):
    """A node as one of the library's containers: for its wait strategies, and for all that it does to a container."""

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
                "testcontainers uses another engine than minicluster does",
                f"minicluster has made {name} at {cluster.engine.endpoint}; the other one has no such container.",
                f"Set DOCKER_HOST={cluster.engine.endpoint} for both.",
            )
        self.with_name(name)
        self._container = there[0]

    def start(self) -> Self:
        """Starts the node again where it is stopped, and waits until it serves."""
        self._of.get_cluster().start([self.node])
        return self

    def stop(self, force: bool = True, delete_volume: bool = True) -> None:
        """Stops the node. It is the cluster's: it keeps its container, its address and its data."""
        self._of.get_cluster().stop([self.node])

    def get_container_host_ip(self) -> str:
        """The host at which the node's ports are reached from here."""
        found = self._endpoints()
        return found[0].host if found else super().get_container_host_ip()

    def get_exposed_port(self, port: int) -> int:
        """The port at which one of the node's ports is reached from here."""
        return exposed(self.node, self._endpoints(), port).port

    def _endpoints(self) -> list[EndpointInfo]:
        return [e for e in self._of.get_cluster().endpoints() if e.node == self.node]


class ClusterNetwork(Network):
    """A cluster's own network, as the library has networks. The cluster makes and removes it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def create(self) -> Self:
        """Nothing: it is there as long as the cluster is."""
        return self

    def remove(self) -> None:
        """Nothing: it goes with the cluster, which lets whatever is connected to it go."""

    @property
    def id(self) -> str | None:
        """The network's identity."""
        return str(self._docker.client.networks.get(self.name).id)

    def connect(self, container_id: str, network_aliases: list[str] | None = None) -> None:
        """Connects a container to it."""
        self._docker.client.networks.get(self.name).connect(container_id, aliases=network_aliases)


def exposed(whose: str, endpoints: tuple[EndpointInfo, ...] | list[EndpointInfo], port: int) -> EndpointInfo:
    """Of endpoints the one that a node's port is.

    Raises:
        UsageError: it is none of them.
    """
    for endpoint in endpoints:
        if endpoint.node_port == int(port):
            return endpoint
    there = ", ".join(str(p) for p in sorted({e.node_port for e in endpoints})) or "none"
    raise UsageError(f"port {port} of {whose} is not published", f"Published ports: {there}.")


def _own_name(profile: str) -> str:
    """A name that no other cluster has."""
    word = re.sub(r"[^a-z0-9]+", "-", PurePath(profile).name.lower()).strip("-")[:16]
    return f"tc-{word}-{secrets.token_hex(4)}" if word else f"tc-{secrets.token_hex(4)}"
