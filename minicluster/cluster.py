"""The façade: everything that minicluster does, for the command line, the tests and every later front end."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from minicluster import paths
from minicluster.errors import (
    ImageError,
    Interrupted,
    MiniclusterError,
    NodeEnded,
    NodeFailed,
    NoEngine,
    PortTaken,
    SubnetTaken,
    UsageError,
    nearest,
)
from minicluster.leases import lock
from minicluster.model import labels
from minicluster.model.deferred import SECRET, fill
from minicluster.model.events import Event, Listener, ignore
from minicluster.model.lease import Lease
from minicluster.model.naming import container_name
from minicluster.model.results import (
    Change,
    ClusterEvent,
    ClusterInfo,
    ClusterStatus,
    ClusterSummary,
    ClusterUsage,
    Collected,
    Copied,
    EndpointInfo,
)
from minicluster.model.spec import RESTART_POLICIES, Overrides, Spec
from minicluster.node import Node
from minicluster.operations import client, reaper, status
from minicluster.operations import collect as collecting
from minicluster.operations import connect as addresses
from minicluster.operations import up as change
from minicluster.operations.up import DEFAULT_PROFILE, DEFAULT_TIMEOUT
from minicluster.plan.observed import lease_of, made_by_another, records

if TYPE_CHECKING:
    from minicluster import pki
    from minicluster.doctor import Check
    from minicluster.engine.protocol import Cancel, Engine, ExecResult, Volume
    from minicluster.plan.steps import Plan

_NAME = re.compile(r"[a-z][a-z0-9-]{0,29}")
_TRIES = 5  # at a subnet or port that another process took between our look and our call


class Cluster:
    """One running cluster. Get one by :meth:`up` or :meth:`open`; at the end of a ``with`` block it is taken down.

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
        self.change = change  #: what the ``up`` that returned this did
        self._authority = authority  # where it is known already
        self._asked_mode = addresses.asked(address_mode)
        self._mode = ""  # once the cluster has been reached
        self.notes: tuple[str, ...] = ()  #: what the last :meth:`env` could not do for the client

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self.spec.cluster

    @classmethod
    def up(
        cls,
        profile: str | None = None,
        *,
        name: str | None = None,
        size: Mapping[str, int] | None = None,
        set: Mapping[str, str | int | float | bool] | None = None,
        image: Mapping[str, str] | None = None,
        port: Mapping[str, int] | None = None,
        restart: str = "",
        networks: Sequence[str] | None = None,
        address_mode: str | None = None,
        lease: Lease | None = None,
        force: bool = False,
        keep: bool = False,
        timeout: float = DEFAULT_TIMEOUT,
        listener: Listener = ignore,
        engine: Engine | None = None,
    ) -> Cluster:
        """Stands a cluster up, or applies the difference to one that is there; ``.change`` tells what was done.

        Args:
            profile: name or folder; default: what the cluster was made from, else "swarm".
            name: the cluster's; default: the profile's.
            size, set, image, port: overrides. What an earlier ``up`` of the cluster was given stays in force.
            restart: what the engine does when a node ends by itself, and when the engine starts: one of
                ``RESTART_POLICIES``; "no" by default.
            networks: networks of the engine that the nodes join beside their own, where they have the names NODE and
                CLUSTER-NODE. None leaves it as it is.
            address_mode: one of :data:`minicluster.operations.connect.MODES`: where nodes are published, and which
                addresses are handed out. None: $MINICLUSTER_ADDRESS_MODE, else "auto", and nothing
                that is published changes.
            lease: how long it is wanted; by default until somebody takes it down. ``Lease.owned()`` ties it to this
                process: it is removed when that ends, even by ``kill -9``.
            force: go on where nodes that leave take the quorum with them, or memory is short.
            keep: leave everything as it is when it fails, to look at.
            timeout: seconds that the nodes have to get ready, from when their images are there.
            listener: hears what happens, from several threads.
            engine: default: the one that is found, or started.

        Raises:
            MiniclusterError: what was begun is undone, unless ``keep``.
        """
        asked = _asked(size, set, image, port, restart, networks)
        addresses.asked(address_mode)
        _check_name(name)
        if timeout <= 0:
            raise UsageError(f"--timeout {timeout:g}: not a time", "", "Give seconds, more than 0.")
        engine = engine or connect(start_private=True, listener=listener)
        begun = time.monotonic()
        target = _target(profile, name)
        collecting.sweep(engine, listener)
        _ask_ahead(engine)
        if lease and lease.owner:
            reaper.hold(engine, target, lease)
        with _dropped_if_it_fails(engine, target), lock.changing(target):
            refused: list[int] = []  # ports that the engine could not have, though they may be free on this machine
            for attempt in range(1, _TRIES + 1):
                up_plan = change.plan_up(
                    engine,
                    profile,
                    target,
                    asked,
                    refused,
                    mode=address_mode,
                    attempt=attempt,
                    force=force,
                    lease=lease,
                )
                if attempt == 1:
                    change.check_capacity(engine, up_plan, force, listener)
                try:
                    change.apply(engine, up_plan, keep=keep, timeout=timeout, listener=listener)
                    break
                except NodeEnded as error:
                    # Nothing was to change but that; where something was, it has been undone by now.
                    if attempt == _TRIES or not (
                        up_plan.observed.converged and up_plan.observed.last_applied == up_plan.spec
                    ):
                        raise
                    listener(Event("note", text=f"{error.what}; looking again"))
                except (SubnetTaken, PortTaken) as error:
                    ours_to_choose = isinstance(error, SubnetTaken) or error.port not in change.ports_asked(
                        up_plan.spec
                    )
                    if up_plan.observed or attempt == _TRIES or not ours_to_choose:
                        raise
                    if keep:
                        change.remove_all(engine, target, ignore)  # nothing in it failed by itself
                    if isinstance(error, PortTaken):
                        refused.append(error.port)
                    listener(Event("note", text=f"{error.what} (taken meanwhile); choosing another"))
        plan = up_plan.plan
        report = change.report(plan, time.monotonic() - begun)
        return cls(engine, up_plan.spec, report, up_plan.authority, address_mode)

    @classmethod
    def open(cls, name: str | None = None, *, engine: Engine | None = None, address_mode: str | None = None) -> Cluster:
        """The cluster of that name; without one that of $MINICLUSTER, then the only one there is.

        ``address_mode`` is as for :meth:`up`, but changes nothing.

        Raises:
            UsageError: there is none, or there are several and none is named.
        """
        engine = engine or connect()
        volumes = engine.volumes(name or os.environ.get("MINICLUSTER") or None)
        name = _choose(name, engine, volumes)
        found = records([v for v in volumes if v.labels.get(labels.CLUSTER) == name])
        spec = found[-1].spec if found else None
        if foreign := made_by_another(name, found):
            raise foreign
        if spec is None:
            raise UsageError(
                f"cluster {name} is incomplete",
                "Its record is gone; only remains are left.",
                f"Remove them with `minicluster down {name}`.",
            )
        return cls(engine, spec, address_mode=address_mode)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_error: object) -> None:
        self.down()

    def node(self, name: str) -> Node:
        """A node by its name.

        Raises:
            UsageError: there is none of that name.
        """
        self._container(name)
        return Node(self, name)

    def nodes(self, role: str | None = None) -> list[Node]:
        """The nodes, or those of a role, in order.

        Raises:
            UsageError: there is no such role.
        """
        return [Node(self, name) for name in self.node_names([role] if role else [])]

    def endpoint(self, name: str) -> EndpointInfo:
        """A published port by its name; of several nodes that offer it the first that runs.

        Raises:
            UsageError: no node offers one of that name.
        """
        found = [e for e in self.endpoints() if e.name == name]
        if not found:
            known = {e.name for _node, e in self.spec.endpoints()}
            raise UsageError(f"cluster {self.name} has no endpoint {name!r}", "", nearest(name, known))
        return found[0]

    def endpoints(self) -> tuple[EndpointInfo, ...]:
        """Every published port, those of nodes that run first, with the address at which it is reached from here.

        Raises:
            Unreachable: the cluster runs, and none of its nodes is reached; see :mod:`minicluster.operations.connect`.
        """
        mode = self._reached()
        secrets = self._secrets([endpoint.url for _node, endpoint in self.spec.endpoints()])
        found = []
        for node, endpoint in self.spec.endpoints():
            host, port = addresses.address(mode, self.spec, node, endpoint)
            url = fill([endpoint.url], {**secrets, "host": host, "port": str(port)})[0]
            found.append(EndpointInfo(endpoint.name, node.name, url, endpoint.port))
        running = {c.name for c in self.engine.containers(self.name) if c.state == "running"}
        return tuple(sorted(found, key=lambda e: container_name(self.name, e.node) not in running))

    def plan(self) -> Plan:
        """The plan by which a cluster as this one is made from nothing."""
        from minicluster.plan import reconcile
        from minicluster.plan.observed import Observed

        return reconcile.create(self.spec, Observed(self.name))

    def renew(self, lease: Lease) -> None:
        """Gives it another lease; ``Lease()`` is for ever."""
        change.renew(self.engine, self.name, lease)
        if lease.owner:
            reaper.hold(self.engine, self.name, lease)
        else:
            reaper.drop(self.engine, self.name)

    def status(self, *, memory: bool = True) -> ClusterStatus:
        """How it is doing: asks the engine, every node's probe, and the cluster's own software.

        Args:
            memory: tell what nodes use, for which the engine may take a second.
        """
        return status.examine(self.engine, self.spec, memory=memory)

    def info(self) -> ClusterInfo:
        """How to reach the cluster. Raises ``Unreachable`` as :meth:`endpoints` does."""
        env = self.env()
        return ClusterInfo(
            cluster=self.name,
            profile=self.spec.profile,
            summary=self.spec.summary,
            subnet=self.spec.subnet,
            endpoints=self.endpoints(),
            env=env,
            demo_image=self.spec.demo_image or None,
            address_mode=self._reached(),
            example=self.spec.example,
            notes=(*status.kernel_notes(self.engine, self.spec), *self.notes),
        )

    def _reached(self) -> str:
        """The address mode by which the cluster is reached from here."""
        self._mode = self._mode or addresses.reach(self.engine, self.spec, self._asked_mode)
        return self._mode

    def env(self) -> dict[str, str]:
        """Variables for the stock client of the system; makes its certificate anew where that is missing.

        Raises:
            Unreachable: as :meth:`endpoints` does.
        """
        directory = paths.client_directory(self.name)
        texts = [*self.spec.env.values(), *(file.content for file in self.spec.client_files)]
        secrets = self._secrets(texts)
        if self.spec.client:
            self._authority = self._authority or client.read_authority(self.engine, self.spec)
            if self._authority:
                client.keep(self.spec, self._authority, self.engine)
            elif not directory.exists():
                raise self._no_authority()
        values = {**client.deferred_values(self.name), **secrets}
        # Of several nodes that offer an endpoint the first that runs: a client is not sent to one that is dead.
        addresses_of = {node.name: node.address for node in self.spec.nodes}
        for endpoint in self.endpoints():
            about = {"url": endpoint.url, "host": endpoint.host, "host_port": str(endpoint.port), "node": endpoint.node}
            about["address"] = addresses_of[endpoint.node]
            for part, value in about.items():
                values.setdefault(f"endpoint.{endpoint.name}.{part}", value)
                values[f"endpoint.{endpoint.name}.{endpoint.node}.{part}"] = value
        self.notes = tuple(client.write(self.spec, values))
        variables = {name: fill([value], values)[0] for name, value in self.spec.env.items()}
        return {name: value for name, value in variables.items() if value}

    def _secrets(self, texts: Iterable[str]) -> dict[str, str]:
        """The secrets that texts of the spec name, from the cluster's authority."""
        found = {match.groups() for text in texts for match in SECRET.finditer(text)}
        if found:
            self._authority = self._authority or client.read_authority(self.engine, self.spec)
            if not self._authority:
                raise self._no_authority()
            return {f"secret.{name}.{form}": self._authority.secret(name, form) for name, form in found}
        return {}

    def _no_authority(self) -> NodeFailed:
        return NodeFailed(
            f"no node of cluster {self.name} has its certificate authority any more",
            "The nodes that keep it are gone.",
            f"`minicluster up --name {self.name}` recreates them.",
        )

    def node_names(self, words: str | Sequence[str] = ()) -> list[str]:
        """Nodes by name or role, in the spec's order; all of them for no words.

        Raises:
            UsageError: a word names nothing.
        """
        words = [words] if isinstance(words, str) else words
        known = {node.name for node in self.spec.nodes} | set(self.spec.roles)
        for word in words:
            if word not in known:
                raise UsageError(f"cluster {self.name} has no node or role {word!r}", "", nearest(word, known))
        return [n.name for n in self.spec.nodes if not words or n.name in words or n.role in words]

    def exec(self, node: str, argv: str | Sequence[str], *, timeout: float | None = None) -> ExecResult:
        """Runs a command in a node and returns its answer. One string is taken apart as a shell does, and needs none.

        Raises:
            TimeoutError: after ``timeout`` seconds.
            NodeFailed: the node does not run.
        """
        words = shlex.split(argv) if isinstance(argv, str) else list(argv)
        return self.engine.exec(self._container(node), words, timeout=timeout)

    def exec_argv(
        self, node: str, argv: Sequence[str], *, tty: bool, stdin: bool = True
    ) -> tuple[list[str], dict[str, str]]:
        """The stock client's command and environment that run a command in a node interactively."""
        name = self._container(node)
        container = self.engine.container(name)
        if container is None or container.state != "running":
            raise NodeFailed(f"{node} does not run", f"Its container is {container.state if container else 'gone'}.")
        return self.engine.exec_argv(name, argv, tty=tty, stdin=stdin)

    def logs(
        self, nodes: str | Sequence[str] = (), *, follow: bool = False, tail: int | None = None
    ) -> Iterator[tuple[str, str]]:
        """Pairs of a node and a line of its log: node after node, or as they come with ``follow``."""
        names = self.node_names(nodes)
        if not follow:
            for name in names:
                for line in self.engine.logs(container_name(self.name, name), tail=tail):
                    yield name, line.decode(errors="replace")
            return
        import queue
        import threading

        lines: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()

        def read(name: str) -> None:
            try:
                for line in self.engine.logs(container_name(self.name, name), tail=tail, follow=True):
                    lines.put((name, line.decode(errors="replace")))
            except MiniclusterError as error:
                lines.put((name, f"({error.what})"))
            finally:
                lines.put(None)

        for name in names:
            threading.Thread(target=read, args=(name,), daemon=True).start()
        reading = len(names)
        while reading:
            item = lines.get()
            if item is None:
                reading -= 1
            else:
                yield item

    def load(self, image: str, nodes: str | Sequence[str] = (), *, listener: Listener = ignore) -> None:
        """Puts an image of the engine into nodes, all at once.

        Raises:
            ImageError: the engine has no such image, or a node refused it.
            UsageError: nodes of this profile hold no images.
        """
        spec, engine = self.spec, self.engine
        if not spec.load:
            raise UsageError(f"nodes of profile {spec.profile} hold no images", "The profile has no load hook.")
        holders = {hook.on for hook in spec.load}
        able = [node.name for node in spec.nodes if "node" in holders or node.role in holders]
        names = self.node_names(nodes) if nodes else able
        if not names:
            role = min(holders)
            raise UsageError(
                f"cluster {self.name} has no node that holds images",
                f"Nodes of {', '.join(sorted(holders))} do.",
                f"`minicluster scale {role}=1 -c {self.name}` makes one.",
            )
        if unable := [name for name in names if name not in able]:
            raise UsageError(f"{', '.join(unable)} cannot be loaded", f"Nodes of {', '.join(holders)} hold images.")
        if not engine.has_image(image):
            raise ImageError(
                f"the engine has no image {image}",
                "Only what the engine has can be loaded.",
                f"`docker pull {image}`, or build it.",
            )
        running = {c.name for c in engine.containers(self.name) if c.state == "running"}
        idle = [name for name in names if container_name(self.name, name) not in running]
        if idle:
            raise NodeFailed(
                f"{', '.join(idle)} cannot be loaded",
                "They do not run.",
                "`minicluster up` starts them; or name the others.",
            )
        listener(Event("plan", text=f"load {image} into {len(names)} nodes of {self.name}", nodes=tuple(names)))
        from minicluster.engine.protocol import Cancel

        begun, cancel = time.monotonic(), Cancel()
        with tempfile.TemporaryFile() as archive:
            for chunk in engine.save_image(image):
                archive.write(chunk)
            archive.flush()  # os.pread does not see Python's buffer
            size = archive.tell()
            descriptor = archive.fileno()

            def content() -> Iterator[bytes]:
                at = 0
                while chunk := os.pread(descriptor, 1 << 20, at):  # each node reads at its own pace
                    at += len(chunk)
                    yield chunk

            def one(name: str) -> None:
                listener(Event("start", name, "loading", f"load {name}"))
                self._load_one(name, content, size, cancel)
                listener(Event("done", name, "loaded", seconds=time.monotonic() - begun))

            with ThreadPoolExecutor(len(names)) as pool:
                try:
                    for future in [pool.submit(one, name) for name in names]:
                        future.result()
                except BaseException:
                    cancel.set()
                    raise

    def _load_one(self, name: str, content: Callable[[], Iterator[bytes]], size: int, cancel: Cancel) -> None:
        container = container_name(self.name, name)
        path = f"/var/tmp/minicluster-load-{os.getpid()}.tar"
        try:
            self.engine.put_archive_file(container, path, content(), size)
            for hook in self.spec.load:
                if hook.on not in ("node", name.rpartition("-")[0]):
                    continue
                result = self.engine.exec(container, fill(hook.run, {"archive": path}), cancel=cancel)
                if result.exit_code != 0:
                    raise ImageError(f"{name} refuses the image", (result.stderr or result.stdout).strip())
        finally:
            with contextlib.suppress(MiniclusterError):
                self.engine.exec(container, ["rm", "-f", path])

    def scale(
        self,
        size: Mapping[str, int],
        *,
        force: bool = False,
        keep: bool = False,
        timeout: float = DEFAULT_TIMEOUT,
        listener: Listener = ignore,
    ) -> Change:
        """Changes how many nodes roles have, members of the cluster's own software included, and waits for them.

        Args:
            size: role -> number of nodes. Those with the highest numbers go.
            force: go on where nodes that leave take the quorum with them.
            keep, timeout, listener: as for :meth:`up`.

        Raises:
            UsageError: a role cannot have so many nodes, or there is no such role.
            MiniclusterError: it would lose the quorum; or what was begun failed and was undone.
        """
        grown = Cluster.up(
            name=self.name, size=size, force=force, keep=keep, timeout=timeout, listener=listener, engine=self.engine
        )
        self.spec = grown.spec
        assert grown.change
        return grown.change

    def reset(self, *, timeout: float = DEFAULT_TIMEOUT, listener: Listener = ignore) -> Change:
        """Makes a running cluster as new: removes what users put into it, as its profile's reset hooks say.

        Nodes, members, certificates and settings stay, and clients that are connected stay so. What clients write
        meanwhile may stay as well. It may be run again at any time, also after it failed.

        Args:
            timeout: seconds that it may take.
            listener: hears what happens.

        Raises:
            UsageError: the profile has no reset hook.
            NodeFailed: a hook failed, or a node that it needs does not run.
            NotReady: it took longer than ``timeout``.
            MiniclusterError: another process is changing the cluster.
        """
        from minicluster.operations import reset

        return reset.reset(self.engine, self.spec, timeout=timeout, listener=listener)

    def stop(self, nodes: str | Sequence[str] = (), *, listener: Listener = ignore) -> Change:
        """Stops nodes, by name or role; all for none. They keep their names, addresses, ports and data."""
        return self._operate("stop", nodes, listener=listener)

    def start(
        self, nodes: str | Sequence[str] = (), *, timeout: float = DEFAULT_TIMEOUT, listener: Listener = ignore
    ) -> Change:
        """Starts nodes that are stopped or paused, and waits until they serve."""
        return self._operate("start", nodes, timeout=timeout, listener=listener)

    def restart(
        self,
        nodes: str | Sequence[str] = (),
        *,
        rolling: bool = False,
        force: bool = False,
        timeout: float = DEFAULT_TIMEOUT,
        listener: Listener = ignore,
    ) -> Change:
        """Stops and starts nodes, all at once or, ``rolling``, each when the one before has caught up; the leader last.

        Raises:
            MiniclusterError: a rolling restart would lose the quorum, and there is no ``force``.
        """
        return self._operate("restart", nodes, rolling=rolling, force=force, timeout=timeout, listener=listener)

    def pause(self, nodes: str | Sequence[str] = (), *, listener: Listener = ignore) -> Change:
        """Freezes every process of nodes, as a machine that hangs would be."""
        return self._operate("pause", nodes, listener=listener)

    def unpause(self, nodes: str | Sequence[str] = (), *, listener: Listener = ignore) -> Change:
        """Lets paused nodes go on."""
        return self._operate("unpause", nodes, listener=listener)

    def kill(self, nodes: str | Sequence[str], *, listener: Listener = ignore) -> Change:
        """Ends nodes at once, as a crash would; the engine does not start them again, whatever their restart policy.

        There is no default: whom to kill has to be said.
        """
        if not nodes:
            raise UsageError("kill needs a node", "", "Name one, or a role.")
        return self._operate("kill", nodes, listener=listener)

    def _operate(
        self,
        verb: str,
        nodes: str | Sequence[str],
        *,
        rolling: bool = False,
        force: bool = False,
        timeout: float = DEFAULT_TIMEOUT,
        listener: Listener,
    ) -> Change:
        names = self.node_names(nodes) if nodes else []
        return change.operate(
            self.engine,
            self.spec,
            verb,
            names,
            rolling=rolling,
            force=force,
            timeout=timeout,
            listener=listener,
        )

    def copy_to(self, source: str | os.PathLike[str], node: str, path: str) -> tuple[Copied, ...]:
        """Copies a file or folder of this machine into a node, or into all nodes of a role at once.

        ``source`` and ``path`` mean what they mean to ``docker cp``, but for a source that is a link: it is followed.
        Modes and times stay, the owner is root. Nodes need not run.

        Raises:
            UsageError: there is no such node or role.
            MiniclusterError: there is no such file or folder, here or there, or it may not be read.
        """
        from minicluster.operations import copy_files

        return copy_files.to_nodes(self.engine, self._containers([node]), os.fspath(source), path)

    def copy_from(self, node: str, path: str, destination: str | os.PathLike[str]) -> Copied:
        """Copies a file or folder of a node to this machine; errors and paths as with :meth:`copy_to`.

        Nothing is written outside of ``destination``, whatever the node sends: links that lead out of the copy are left
        out, as are devices and the like. All that can be known is checked before anything is replaced.
        """
        from minicluster.operations import copy_files

        found = self._containers([node])
        if len(found) != 1:
            raise UsageError(
                f"{node} is {len(found)} nodes", "", f"Name one of {', '.join(name for name, _ in found)}."
            )
        return copy_files.from_node(self.engine, *found[0], path, os.fspath(destination))

    def usage(self, nodes: str | Sequence[str] = ()) -> ClusterUsage:
        """What nodes use now, by name or role; takes a second, since CPU is what is used in a time."""
        for usage in self.usages(nodes):
            return usage
        raise NodeFailed(f"cluster {self.name} is gone", "It was taken down meanwhile.")

    def usages(self, nodes: str | Sequence[str] = ()) -> Iterator[ClusterUsage]:
        """The same every second, until the cluster is gone; nodes that come to be meanwhile are in it."""
        from minicluster.operations import monitor

        words = [nodes] if isinstance(nodes, str) else [*nodes]
        self.node_names(words)
        return monitor.usages(self.engine, self.spec, lambda n: not words or n.name in words or n.role in words)

    def events(self, *, since: float | None = None) -> Iterator[ClusterEvent]:
        """What happens to the cluster, by the engine and by the cluster's own software, until it is gone.

        Args:
            since: seconds since 1970: begins with what the engine still knows of from then on.

        Raises:
            NoEngine: the engine stopped answering.
        """
        from minicluster.operations import monitor

        return monitor.events(self.engine, self.spec, since)

    def _containers(self, words: Sequence[str]) -> list[tuple[str, str]]:
        """Nodes by name or role, each with its container's name; all of them must be there."""
        found = {c.name for c in self.engine.containers(self.name)}
        pairs = [(name, container_name(self.name, name)) for name in self.node_names(words)]
        for name, container in pairs:
            if container not in found:
                raise NodeFailed(f"{name} is missing", "Its container is gone.", "`minicluster up` makes it anew.")
        return pairs

    def down(self, *, listener: Listener = ignore) -> Change:
        """Removes the cluster and everything that was made for it."""
        done = change.take_down(self.engine, self.name, listener)
        reaper.drop(self.engine, self.name)
        return done

    def _container(self, node: str) -> str:
        """The name of a node's container."""
        if self.spec.node(node) is None:
            known = [n.name for n in self.spec.nodes]
            raise UsageError(f"cluster {self.name} has no node {node!r}", "", nearest(node, known))
        return container_name(self.name, node)


def dry_run(
    profile: str | None = None,
    *,
    name: str | None = None,
    size: Mapping[str, int] | None = None,
    set: Mapping[str, str | int | float | bool] | None = None,
    image: Mapping[str, str] | None = None,
    port: Mapping[str, int] | None = None,
    restart: str = "",
    networks: Sequence[str] | None = None,
    address_mode: str | None = None,
    lease: Lease | None = None,
    force: bool = False,
) -> Plan:
    """The plan that :meth:`Cluster.up` would carry out; without an engine, the plan of a first ``up``."""
    asked = _asked(size, set, image, port, restart, networks)
    addresses.asked(address_mode)
    _check_name(name)
    try:
        engine: Engine | None = connect()
    except NoEngine:
        engine = None
    return change.plan_up(
        engine, profile, _target(profile, name), asked, mode=address_mode, force=force, lease=lease
    ).plan


def env_names(name: str | None = None, *, engine: Engine | None = None) -> list[str]:
    """Names of the variables that :meth:`Cluster.env` sets; of any profile, once the cluster is gone."""
    try:
        return list(Cluster.open(name, engine=engine).spec.env)
    except (UsageError, NoEngine):
        from minicluster.profile import catalog

        names: set[str] = set()
        for profile in catalog.names():
            with contextlib.suppress(UsageError):
                names |= catalog.load(profile).profile.env.keys()
        return sorted(names & os.environ.keys())


def clusters(engine: Engine | None = None, *, listener: Listener = ignore) -> list[ClusterSummary]:
    """Every cluster on the engine, remains of broken ones included, by name; those whose lease is over are removed."""
    engine = engine or connect()
    collecting.sweep(engine, listener)
    containers, networks, volumes = engine.containers(), engine.networks(), engine.volumes()
    found = []
    things: list[Any] = [*containers, *networks, *volumes]
    for name in sorted({thing.labels[labels.CLUSTER] for thing in things}):
        mine = [c for c in containers if c.labels[labels.CLUSTER] == name]
        running = sum(c.state == "running" for c in mine)
        known = records([v for v in volumes if v.labels[labels.CLUSTER] == name])
        spec = known[-1].spec if known else None
        wanted = len(spec.nodes) if spec else len(mine)
        foreign = made_by_another(name, known)
        if not mine or (spec is None and not foreign):
            phase = "leftover"
        elif running == wanted:
            phase = "running"
        else:
            phase = "partial" if running else "stopped"
        profile = next(t.labels.get(labels.PROFILE, "") for t in things if t.labels[labels.CLUSTER] == name)
        lease = str(lease_of(t for t in things if t.labels[labels.CLUSTER] == name) or "")
        subnet, note = spec.subnet if spec else "", f"{foreign.what}. {foreign.fix}" if foreign else ""
        found.append(ClusterSummary(name, profile, phase, wanted, running, subnet, lease, note))
    return found


def down(
    names: Sequence[str] = (), *, all: bool = False, listener: Listener = ignore, engine: Engine | None = None
) -> list[Change]:
    """Removes clusters by name, or all; without a name the one that :meth:`Cluster.open` would give, if any.

    Raises:
        UsageError: nothing of ours has that name.
    """
    engine = engine or connect(start_private=True, listener=listener)
    known = _names(engine)
    if all:
        names = known
    elif not names:
        names = [_choose(None, engine, engine.volumes())] if known else []
    for name in names:
        if name not in known:
            if _NAME.fullmatch(name):  # of a cluster that went away by other means; no path of anything else
                client.forget(name, engine, listener)
                lock.forget(name)
            raise _no_such(name, known, engine)
    done, failed = [], []
    for name in dict.fromkeys(names):
        try:
            done.append(change.take_down(engine, name, listener))
        except (NoEngine, Interrupted):
            raise
        except MiniclusterError as error:  # the others go all the same
            failed.append(error)
    if failed:
        failed[0].leftovers = tuple(left for error in failed for left in error.leftovers)
        raise failed[0]
    return done


def collect(*, dry_run: bool = False, listener: Listener = ignore, engine: Engine | None = None) -> list[Collected]:
    """Removes the clusters whose lease is over, and says of each why; with ``dry_run`` only says so."""
    return collecting.collect(engine or connect(), dry_run=dry_run, listener=listener)


def examine(profile: str | None = None) -> list[Check]:
    """What ``doctor`` says of this machine, for a profile's default size."""
    from minicluster import doctor
    from minicluster.engine import base_image
    from minicluster.profile import catalog
    from minicluster.profile.resolve import node_counts

    loaded = catalog.load(profile or DEFAULT_PROFILE)
    counts = node_counts(loaded, Overrides())
    footprint = sum(counts[name] * int(role.footprint) for name, role in loaded.profile.roles.items())
    engine: Engine | None = None
    error: NoEngine | None = None
    try:
        engine = connect()
    except NoEngine as refused:
        error = refused
    reachable = engine
    source = (lambda: base_image.source(reachable)) if reachable else None
    return doctor.examine(engine, error, footprint, source)


def connect(*, start_private: bool = False, listener: Listener = ignore) -> Engine:
    """The engine to use.

    Args:
        start_private: start minicluster's own where there is none and this machine can run one.

    Raises:
        NoEngine: there is none.
    """
    from minicluster.engine import discover as engines

    return engines.connect(start_private=start_private, listener=listener)


def _asked(
    size: Mapping[str, int] | None,
    set: Mapping[str, str | int | float | bool] | None,
    image: Mapping[str, str] | None,
    port: Mapping[str, int] | None,
    restart: str,
    networks: Sequence[str] | None,
) -> Overrides:
    if restart and restart not in RESTART_POLICIES:
        raise UsageError(f"--restart {restart}: no such policy", "", nearest(restart, RESTART_POLICIES))
    settings = {path: word(value) for path, value in (set or {}).items()}
    joined = None if networks is None else tuple(dict.fromkeys(networks))
    return Overrides(dict(size or {}), settings, dict(image or {}), dict(port or {}), restart, joined)


def word(value: object) -> str:
    """A value of a setting as the command line would have it: true, 100, text."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_name(name: str | None) -> None:
    if name is not None and not _NAME.fullmatch(name):
        raise UsageError(
            f"--name {name}: not a name for a cluster",
            "It becomes part of host names: lower-case letters, digits and hyphens, a letter first, at most 30.",
            "Choose another.",
        )


def _target(profile: str | None, name: str | None) -> str:
    """The name of the cluster that an ``up`` is about."""
    if name:
        return name
    from minicluster.profile import catalog

    if profile in (None, DEFAULT_PROFILE):
        return DEFAULT_PROFILE
    loaded = catalog.load(profile or DEFAULT_PROFILE)
    _check_name(loaded.profile.name)
    return loaded.profile.name


def _ask_ahead(engine: Engine) -> None:
    """Has the engine tell of its machine while the plan is made, before which nobody has to know."""

    def ask() -> None:
        with contextlib.suppress(MiniclusterError):
            _ = engine.info

    threading.Thread(target=ask, daemon=True).start()


@contextlib.contextmanager
def _dropped_if_it_fails(engine: Engine, name: str) -> Iterator[None]:
    """The watcher has nothing to look after where an ``up`` was undone."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(MiniclusterError):
            if not engine.volumes(name):
                reaper.drop(engine, name)
        raise


# Which cluster is meant


def _names(engine: Engine) -> list[str]:
    things: list[Any] = [*engine.containers(), *engine.networks(), *engine.volumes()]
    return sorted({thing.labels[labels.CLUSTER] for thing in things})


def _choose(name: str | None, engine: Engine, volumes: Sequence[Volume]) -> str:
    wanted = name or os.environ.get("MINICLUSTER")
    if wanted:
        if any(v.labels.get(labels.CLUSTER) == wanted for v in volumes):
            return wanted
        known = _names(engine)
        if wanted in known:
            return wanted
        raise _no_such(wanted, known, engine)
    known = _names(engine)
    if len(known) == 1:
        return known[0]
    if not known:
        raise UsageError("no cluster is up", "", "Stand one up: `minicluster up`.")
    raise UsageError(
        "several clusters are up, and none is named",
        f"They are {', '.join(known)}.",
        "Name one, with -c NAME where the command takes it, or in $MINICLUSTER.",
    )


def _no_such(name: str, known: Sequence[str], engine: Engine) -> UsageError:
    why = "Nothing on the engine carries minicluster's label with that name."
    other = engine.container(name)
    if other:
        why = "A container of that name is there, but minicluster did not make it: it is left alone."
    return UsageError(
        f"no cluster is called {name!r}", why, nearest(name, known) or "`minicluster ls` shows what is up."
    )
