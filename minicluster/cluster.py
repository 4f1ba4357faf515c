"""The public face: all that minicluster does. It only delegates, to :mod:`minicluster.operations` and discovery."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from minicluster import discovery, operations
from minicluster.clusters import clusters, collect, down, dry_run, engine_of_up
from minicluster.discovery import env_names
from minicluster.engine import discover
from minicluster.leases import reaper_client
from minicluster.model.durations import DEFAULT_TIMEOUT
from minicluster.model.events import Listener, ignore
from minicluster.node import Node
from minicluster.operations.preflight import examine
from minicluster.operations.up_options import UpOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from minicluster import pki
    from minicluster.engine.protocol import Cancel, Engine, ExecResult
    from minicluster.model import results
    from minicluster.model.lease import Lease
    from minicluster.model.results import Change
    from minicluster.model.spec import Spec
    from minicluster.operations.chaos import Chaos, ChaosKeywords
    from minicluster.operations.inject import Faults, Injected
    from minicluster.operations.nodes import Nodes
    from minicluster.operations.up_options import UpKeywords
    from minicluster.operations.wait import Check
    from minicluster.paths import AnyPath
    from minicluster.plan.steps import Plan

__all__ = ["Cluster", "Node", "clusters", "collect", "down", "dry_run", "env_names", "examine"]


class Cluster:
    """One cluster, from :meth:`up` or :meth:`open`. At the end of a ``with`` block it is removed.

    >>> with Cluster.up("etcd", size={"kv": 3}) as cluster:                    # doctest: +SKIP
    ...     print(cluster.endpoint("client").url, cluster.node("kv-1").address)
    """

    def __init__(
        self,
        engine: Engine,
        spec: Spec,
        change: Change | None = None,
        authority: pki.Authority | None = None,
        address_mode: str | None = None,
    ) -> None:
        self.engine = engine
        self.spec = spec
        self.name = spec.cluster  #: the cluster's name
        self.change = change  #: what the ``up`` that returned this did
        self._authority = authority
        self._address_mode = operations.connect.asked(address_mode)

    @property
    def address_mode(self) -> str:
        """How its endpoints are reached from here: localhost, bridge or gateway."""
        return operations.connect.usable(self._address_mode, self.engine, self.spec)

    @classmethod
    def up(
        cls,
        profile: str | None = None,
        *,
        listener: Listener = ignore,
        engine: Engine | None = None,
        cancel: Cancel | None = None,
        **options: Unpack[UpKeywords],
    ) -> Cluster:
        """Creates a cluster, or applies the difference to one that exists. What fails is rolled back, unless ``keep``.

        Args:
            profile: name or folder; by default what the cluster was created from, else "swarm".
            listener: is called with events, from several threads.
            engine: by default the one that is found, or started.
            cancel: once set, the change is rolled back; Ctrl-C does not reach a thread.
            options: the fields of :class:`minicluster.operations.up_options.UpOptions`, such as ``name`` and ``size``.
        """
        wanted = UpOptions(profile=profile, **options)
        name = discovery.target(wanted.profile, wanted.name, wanted.named_by)
        engine = engine_of_up(name, wanted.hosts or (), engine, listener)
        done, change = operations.up.up(engine, name, wanted, listener, cancel)
        return cls(engine, done.spec, change, done.authority, wanted.address_mode)

    @classmethod
    def open(cls, name: str | None = None, *, engine: Engine | None = None, address_mode: str | None = None) -> Cluster:
        """The cluster of that name, else of $MINICLUSTER, else the only one. ``address_mode`` changes nothing in it."""
        found, spec = discovery.opened(name, lambda: engine or discover.connect())
        return cls(found, spec, address_mode=address_mode)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_error: object) -> None:
        self.down()

    def node(self, name: str) -> Node:
        """A node by its name."""
        operations.nodes.node_of(self.spec, name)
        return Node(self, name)

    def nodes(self, role: str | None = None) -> list[Node]:
        """The nodes, or those of a role, in order."""
        return [Node(self, name) for name in self.node_names(role or ())]

    def node_names(self, words: Nodes = ()) -> list[str]:
        """Nodes by name or role, in order; all of them for no words."""
        return operations.nodes.node_names(self.spec, words)

    def exec(self, node: str, argv: str | Sequence[str], *, timeout: float | None = None) -> ExecResult:
        """Runs a command in a node. A string is split with shlex; no shell runs. Raises ``TimeoutError``."""
        return operations.nodes.execute(self.engine, self.spec, node, argv, timeout)

    def exec_argv(
        self, node: str, argv: Sequence[str], *, tty: bool, stdin: bool = True
    ) -> tuple[list[str], dict[str, str]]:
        """The native client's command and environment that run a command interactively in a node, or a role's only."""
        return operations.nodes.interactive(self.engine, self.spec, node, argv, tty=tty, stdin=stdin)

    def logs(self, nodes: Nodes = (), *, follow: bool = False, tail: int | None = None) -> Iterator[tuple[str, str]]:
        """Pairs of a node and a line of its log: node after node, or as they come with ``follow``."""
        return operations.logs.logs(self.engine, self.spec, nodes, follow=follow, tail=tail)

    def export(
        self, directory: AnyPath, nodes: Nodes = (), *, tail: int | None = None, listener: Listener = ignore
    ) -> tuple[str, ...]:
        """Writes logs, status, spec, plan, events and engine into a new folder, without secrets; returns the files."""
        return operations.export.export(self.engine, self.spec, directory, self.node_names(nodes), tail, listener)

    def copy_to(self, source: AnyPath, node: str, path: str) -> tuple[results.Copied, ...]:
        """Copies a file or folder into a node, or all nodes of a role; paths mean what they mean to ``docker cp``."""
        return operations.copy_files.to_nodes(
            self.engine, operations.nodes.existing(self.engine, self.spec, node), source, path
        )

    def copy_from(self, node: str, path: str, destination: AnyPath) -> results.Copied:
        """Copies a file or folder of a node to this machine. Nothing is written outside of ``destination``."""
        return operations.copy_files.from_node(
            self.engine, *operations.nodes.one(self.engine, self.spec, node), path, destination
        )

    def load(self, image: str, nodes: Nodes = (), *, listener: Listener = ignore) -> results.Loaded:
        """Puts an image of the engine, or an archive (a path), into nodes, by default into all that accept images."""
        return operations.load_images.load(self.engine, self.spec, image, nodes, listener=listener)

    def build(
        self, folder: str, name: str, dockerfile: str | None = None, nodes: Nodes = (), *, listener: Listener = ignore
    ) -> str:
        """Builds an image for :meth:`load` on the engine, if these nodes can take it; obeys ``.dockerignore``."""
        return operations.load_images.build(self.engine, self.spec, folder, name, dockerfile, nodes, listener=listener)

    def apply(self, *paths: AnyPath, listener: Listener = ignore) -> None:
        """Applies files or folders by the system's own client, as the profile says, such as ``kubectl apply``."""
        operations.fill.apply(self.engine, self.spec, paths, self._authority, self._address_mode, listener)

    def plan_load(self, image: str, nodes: Nodes = ()) -> Plan:
        """The plan that :meth:`load` would carry out."""
        return operations.load_images.plan_load(self.engine, self.spec, image, nodes)

    def endpoint(self, name: str) -> results.EndpointInfo:
        """A published port, or a service of a user's, by its name; of several the first that is reached from here."""
        return self.endpoints(name)[0]

    def endpoints(self, name: str | None = None) -> tuple[results.EndpointInfo, ...]:
        """Published ports, all or by their name, those of running nodes first; as they are reached from here.

        By its name also what users have published by the cluster's own software, such as Services of type LoadBalancer,
        as NAMESPACE/NAME; :meth:`info` lists all of these.
        """
        return operations.services.endpoints(self.engine, self.spec, self.address_mode, self._authority, name)

    def connect(self) -> None:
        """Connects the container that this runs in, if any, as :meth:`up` does; checks that a node is reached."""
        operations.connect.connect(self.engine, self.spec, self._address_mode)

    def env(self) -> dict[str, str]:
        """Variables for the native client; the files that they name are those of :meth:`write_client_files`."""
        return operations.client_folder.variables(self.engine, self.spec, self._authority, self.address_mode)

    def write_client_files(self) -> tuple[str, ...]:
        """Updates the native client's certificate and files, as :meth:`up` does; returns notes of what it could not."""
        return operations.client_folder.write_files(self.engine, self.spec, self._authority, self.address_mode)

    def hand_out(self, folder: AnyPath, owner: str | None = None, *, with_parent: bool = False) -> tuple[str, ...]:
        """Writes a folder (0700) for a user of this cluster; see :func:`minicluster.operations.hand_out.write`."""
        about = (self.engine, self.spec, self._authority, self.address_mode)
        return operations.hand_out.write(*about, folder, owner, with_parent=with_parent)

    def info(self, *, published: bool = True) -> results.ClusterInfo:
        """How to reach the cluster, and with ``published`` what its users have published in it."""
        return operations.info.info(self.engine, self.spec, self._authority, self.address_mode, published=published)

    def status(self, *, memory: bool = True) -> results.ClusterStatus:
        """Asks the engine, the nodes' probes and the cluster's software; with ``memory`` it may take a second."""
        return operations.status.examine(self.engine, self.spec, memory=memory)

    def wait(
        self, until: str | Check = "ready", *, timeout: float = DEFAULT_TIMEOUT, listener: Listener = ignore
    ) -> results.ClusterStatus:
        """Waits until it is ``ready``, has a ``quorum`` or ``members=N``, or a function of its status is true.

        The function is called at least once a second.
        """
        return operations.wait.wait(self.engine, self.spec, operations.wait.Condition.of(until), timeout, listener)

    wait_for = wait  #: the same; reads better with a function

    def usage(self, nodes: Nodes = ()) -> results.ClusterUsage:
        """What nodes use now, by name or role; takes a second, since CPU usage is measured over time."""
        return operations.monitor.usage(self.engine, self.spec, nodes)

    def usages(self, nodes: Nodes = ()) -> Iterator[results.ClusterUsage]:
        """The same every second, until the cluster is removed; nodes that are added later are included."""
        return operations.monitor.usages(self.engine, self.spec, nodes)

    def events(self, *, since: float | None = None) -> Iterator[results.ClusterEvent]:
        """What happens to the cluster until it is removed, with past events since a time (seconds since 1970)."""
        return operations.monitor.events(self.engine, self.spec, since)

    def plan(self) -> Plan:
        """The plan that would create a cluster like this one from nothing."""
        return operations.up.from_nothing(self.spec)

    def renew(self, lease: Lease) -> None:
        """Gives it another lease; ``Lease()`` has no end."""
        from minicluster.leases.renew import renew

        renew(self.engine, self.name, lease)
        reaper_client.follow(self.engine, self.name, lease)

    def scale(
        self,
        size: Mapping[str, int],
        *,
        force: bool = False,
        keep: bool = False,
        timeout: float = DEFAULT_TIMEOUT,
        listener: Listener = ignore,
    ) -> Change:
        """Changes the number of nodes per role, as :meth:`up` does. Those with the highest numbers are removed."""
        options = UpOptions(name=self.name, size=size, force=force, keep=keep, timeout=timeout)
        done, change = operations.up.up(self.engine, self.name, options, listener)
        self.spec = done.spec
        return change

    def reset(self, *, timeout: float = DEFAULT_TIMEOUT, listener: Listener = ignore) -> Change:
        """Removes what users put into a running cluster, by its profile's reset hooks; nodes and members stay."""
        return operations.reset.reset(self.engine, self.spec, timeout=timeout, listener=listener)

    def plan_reset(self) -> Plan:
        """The plan that :meth:`reset` would carry out."""
        return operations.reset.plan_reset(self.engine, self.spec)

    def stop(self, nodes: Nodes = (), *, listener: Listener = ignore) -> Change:
        """Stops nodes, by name or role, by default all. They keep their names, addresses, ports and data."""
        return operations.lifecycle.operate(self.engine, self.spec, "stop", nodes, listener=listener)

    def start(self, nodes: Nodes = (), *, timeout: float = DEFAULT_TIMEOUT, listener: Listener = ignore) -> Change:
        """Starts nodes that are stopped or paused, and waits until they serve."""
        return operations.lifecycle.operate(self.engine, self.spec, "start", nodes, timeout=timeout, listener=listener)

    def restart(
        self,
        nodes: Nodes = (),
        *,
        rolling: bool = False,
        force: bool = False,
        timeout: float = DEFAULT_TIMEOUT,
        listener: Listener = ignore,
    ) -> Change:
        """Restarts nodes at once, or one by one (``rolling``), which is refused where it would lose the quorum."""
        more = {"rolling": rolling, "force": force}
        return operations.lifecycle.operate(
            self.engine, self.spec, "restart", nodes, timeout=timeout, listener=listener, **more
        )

    def pause(self, nodes: Nodes = (), *, listener: Listener = ignore) -> Change:
        """Freezes every process of nodes, as on a machine that hangs."""
        return operations.lifecycle.operate(self.engine, self.spec, "pause", nodes, listener=listener)

    def unpause(self, nodes: Nodes = (), *, listener: Listener = ignore) -> Change:
        """Resumes paused nodes."""
        return operations.lifecycle.operate(self.engine, self.spec, "unpause", nodes, listener=listener)

    def kill(self, nodes: Nodes, *, listener: Listener = ignore) -> Change:
        """Kills nodes (SIGKILL), as a crash would; the engine does not restart them. There is no default."""
        return operations.lifecycle.operate(self.engine, self.spec, "kill", nodes, listener=listener)

    @property
    def fault(self) -> Faults:
        """Faults that can be applied: ``cluster.fault.delay("kv-1", 100)``; each ends with its ``with`` block."""
        return operations.inject.Faults(self.engine, lambda: self.spec)

    def partition(self, *groups: Nodes, one_way: bool = False, clients: bool = False, seconds: float = 0.0) -> Injected:
        """No packet passes between groups of nodes, until the end of a ``with`` block."""
        return self.fault.partition(*groups, one_way=one_way, clients=clients, seconds=seconds)

    def chaos(self, nodes: Nodes = (), **options: Unpack[ChaosKeywords]) -> Chaos:
        """Faults at random beside a ``with`` block, repeatable by a seed; what is in force is undone at its end.

        Args:
            nodes: names or roles of those among which it chooses; by default those that vote, else all.
            options: the fields of :class:`minicluster.operations.chaos.ChaosKeywords`, such as ``every`` and ``seed``.
        """
        return operations.chaos.Chaos(self.engine, self.spec, self.node_names(nodes) if nodes else (), **options)

    def leader(self) -> str:
        """The node that leads, by the cluster's own software; "" where there is none now."""
        return next((node.name for node in self.status(memory=False).nodes if node.leader), "")

    def faults(self) -> tuple[results.FaultInfo, ...]:
        """The faults in force."""
        return operations.faults.listing(self.engine, self.spec)

    def heal(self, *ids: str) -> tuple[str, ...]:
        """Ends faults by their numbers, or all, and whatever is left of any; returns what they were."""
        return operations.heal.heal(self.engine, self.spec, ids)

    def down(self, *, listener: Listener = ignore) -> Change:
        """Removes the cluster and everything that was created for it."""
        return operations.down.remove_cluster(self.engine, self.name, listener)
