"""The façade: everything that minicluster does, for the command line, the tests and every later front end."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from minicluster import labels, lock, paths
from minicluster.errors import (
    Conflict,
    ImageError,
    Interrupted,
    MiniclusterError,
    NodeFailed,
    NoEngine,
    PortTaken,
    SubnetTaken,
    UsageError,
    nearest,
)
from minicluster.events import Event, Listener, ignore
from minicluster.profile.spec import Node, Overrides, Spec, container_name, fill
from minicluster.report import (
    Change,
    ClusterInfo,
    ClusterStatus,
    ClusterSummary,
    EndpointInfo,
    Member,
    NodeStatus,
    Quorum,
)

if TYPE_CHECKING:
    from minicluster import pki
    from minicluster.doctor import Check
    from minicluster.engine.protocol import Container, Engine, ExecResult, Volume
    from minicluster.plan.model import Plan
    from minicluster.plan.observed import Observed

DEFAULT_PROFILE = "swarm"
DEFAULT_TIMEOUT = 120.0  #: seconds that nodes have to get ready

_NAME = re.compile(r"[a-z][a-z0-9-]{0,29}")
_PROBE_PATIENCE = 3.0  # seconds that `status` gives a node to answer
_TRIES = 5  # at a subnet or port that another process took between our look and our call


class Cluster:
    """One running cluster. Get one by :meth:`up` or :meth:`open`."""

    def __init__(self, engine: Engine, spec: Spec, change: Change | None = None) -> None:
        self.engine = engine
        self.spec = spec
        self.change = change  #: what the ``up`` that returned this did

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
        set: Mapping[str, str] | None = None,
        image: Mapping[str, str] | None = None,
        port: Mapping[str, int] | None = None,
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
            keep: leave everything as it is when it fails, to look at.
            timeout: seconds that the nodes have to get ready, from when their images are there.
            listener: hears what happens, from several threads.
            engine: default: the one that is found, or started.

        Raises:
            MiniclusterError: what was begun is undone, unless ``keep``.
        """
        asked = Overrides(dict(size or {}), dict(set or {}), dict(image or {}), dict(port or {}))
        _check_name(name)
        if timeout <= 0:
            raise UsageError(f"--timeout {timeout:g}: not a time", "", "Give seconds, more than 0.")
        engine = engine or _connect(start_private=True, listener=listener)
        begun = time.monotonic()
        target = _target(profile, name)
        with lock.changing(target):
            for attempt in range(1, _TRIES + 1):
                goal = _goal(engine, profile, target, asked)
                try:
                    _apply(engine, goal, keep=keep, timeout=timeout, listener=listener)
                    break
                except (SubnetTaken, PortTaken) as error:
                    ours_to_choose = isinstance(error, SubnetTaken) or error.port not in _ports_asked(goal.spec)
                    if goal.observed or keep or attempt == _TRIES or not ours_to_choose:
                        raise
                    listener(Event("note", text=f"{error.what} (taken meanwhile); choosing another"))
        plan = goal.plan
        counts = Counter(step.id.split()[0] for step in plan.steps)
        change = Change(target, bool(plan), len(plan.steps), time.monotonic() - begun, dict(counts))
        return cls(engine, goal.spec, change)

    @classmethod
    def open(cls, name: str | None = None, *, engine: Engine | None = None) -> Cluster:
        """The cluster of that name; without one that of $MINICLUSTER, then the only one there is.

        Raises:
            UsageError: there is none, or there are several and none is named.
        """
        engine = engine or _connect()
        volumes = engine.volumes(name or os.environ.get("MINICLUSTER") or None)
        name = _choose(name, engine, volumes)
        from minicluster.plan.observed import records

        found = records([v for v in volumes if v.labels.get(labels.CLUSTER) == name])
        if not found:
            raise UsageError(
                f"cluster {name} is incomplete",
                "Its record is gone; only remains are left.",
                f"Remove them with `minicluster down {name}`.",
            )
        return cls(engine, found[-1].spec)

    def status(self) -> ClusterStatus:
        """How each node and the whole are doing: asks the engine, every node's probe, and the cluster's own software."""
        from minicluster.plan.observed import observe

        engine, spec = self.engine, self.spec
        observed = observe(self.name, engine.containers(self.name), [], engine.volumes(self.name))
        with ThreadPoolExecutor(32) as pool:
            members_answer = pool.submit(_members, engine, spec, observed.containers)
            probes = {n.name: pool.submit(_probe, engine, spec, n, observed.containers.get(n.name)) for n in spec.nodes}
            memory = {n.name: pool.submit(_memory, engine, observed.containers.get(n.name)) for n in spec.nodes}
            members, why = members_answer.result()
            nodes = tuple(
                _node_status(spec, n, observed.containers.get(n.name), probes[n.name].result(), memory[n.name].result(), members, why)
                for n in spec.nodes
            )
        extra = [f"{name} runs and is not in the spec" for name in observed.containers if spec.node(name) is None]
        notes = [*([why] if why and any(n.phase == "running" for n in nodes) else []), *extra, *self._kernel_notes()]
        return ClusterStatus(
            self.name, spec.profile, _phase(nodes, observed.settled), _quorum(members), nodes, tuple(notes)
        )

    def info(self) -> ClusterInfo:
        """How to reach the cluster."""
        endpoints = tuple(EndpointInfo(e.name, node.name, e.url) for node, e in self.spec.endpoints())
        return ClusterInfo(
            cluster=self.name,
            profile=self.spec.profile,
            summary=self.spec.summary,
            subnet=self.spec.subnet,
            endpoints=endpoints,
            env=self.env(),
            demo_image=self.spec.demo_image or None,
            notes=tuple(self._kernel_notes()),
        )

    def env(self) -> dict[str, str]:
        """Variables that make the system's own stock client work; writes the client's certificate where it is missing."""
        directory = paths.client_directory(self.name)
        if self.spec.client:
            from minicluster import client

            authority = client.read_authority(self.engine, self.spec)
            if authority:
                client.keep(self.spec, authority)
            elif not directory.exists():
                raise NodeFailed(
                    f"no node of cluster {self.name} has its certificate authority any more",
                    "The nodes that keep it are gone.",
                    f"`minicluster up --name {self.name}` makes them anew.",
                )
        values = {"client.directory": str(directory)}
        return {name: fill([value], values)[0] for name, value in self.spec.env.items()}

    def node_names(self, words: Sequence[str] = ()) -> list[str]:
        """Nodes by name or role, in the spec's order; all of them for no words.

        Raises:
            UsageError: a word names nothing.
        """
        known = {node.name for node in self.spec.nodes} | set(self.spec.roles)
        for word in words:
            if word not in known:
                raise UsageError(f"cluster {self.name} has no node or role {word!r}", "", nearest(word, known))
        return [n.name for n in self.spec.nodes if not words or n.name in words or n.role in words]

    def exec(self, node: str, argv: Sequence[str], *, timeout: float | None = None) -> ExecResult:
        """Runs a command in a node and returns its answer.

        Raises:
            TimeoutError: after ``timeout`` seconds.
            NodeFailed: the node does not run.
        """
        return self.engine.execute(self._container(node), list(argv), timeout=timeout)

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
        self, nodes: Sequence[str] = (), *, follow: bool = False, tail: int | None = None
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
            with contextlib.suppress(MiniclusterError):
                for line in self.engine.logs(container_name(self.name, name), tail=tail, follow=True):
                    lines.put((name, line.decode(errors="replace")))
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

    def load(self, image: str, nodes: Sequence[str] = (), *, listener: Listener = ignore) -> None:
        """Puts an image of the engine into nodes, all at once.

        Raises:
            ImageError: the engine has no such image, or a node refused it.
            UsageError: nodes of this profile hold no images.
        """
        spec, engine = self.spec, self.engine
        names = self.node_names(nodes)
        if not spec.load:
            raise UsageError(f"nodes of profile {spec.profile} hold no images", "The profile has no load hook.")
        if not engine.has_image(image):
            raise ImageError(
                f"the engine has no image {image}", "Only what the engine has can be loaded.", f"`docker pull {image}`, or build it."
            )
        listener(Event("plan", text=f"load {image} into {len(names)} nodes of {self.name}", nodes=tuple(names)))
        begun = time.monotonic()
        with tempfile.TemporaryFile() as archive:
            for chunk in engine.save_image(image):
                archive.write(chunk)
            size = archive.tell()
            descriptor = archive.fileno()

            def content() -> Iterator[bytes]:
                at = 0
                while chunk := os.pread(descriptor, 1 << 20, at):  # each node reads at its own pace
                    at += len(chunk)
                    yield chunk

            def one(name: str) -> None:
                listener(Event("start", name, "loading", f"load {name}"))
                self._load_one(name, content, size)
                listener(Event("done", name, "ready", seconds=time.monotonic() - begun))

            with ThreadPoolExecutor(len(names)) as pool:
                for future in [pool.submit(one, name) for name in names]:
                    future.result()

    def _load_one(self, name: str, content: Callable[[], Iterator[bytes]], size: int) -> None:
        container = container_name(self.name, name)
        path = f"/var/tmp/minicluster-load-{os.getpid()}.tar"
        try:
            self.engine.put_archive_file(container, path, content(), size)
            for hook in self.spec.load:
                result = self.engine.execute(container, fill(hook.run, {"archive": path}))
                if result.exit_code != 0:
                    raise ImageError(f"{name} refuses the image", (result.stderr or result.stdout).strip())
        finally:
            with contextlib.suppress(MiniclusterError):
                self.engine.execute(container, ["rm", "-f", path])

    def down(self, *, listener: Listener = ignore) -> Change:
        """Removes the cluster and everything that was made for it."""
        return _down(self.engine, self.name, listener)

    def _container(self, node: str) -> str:
        if self.spec.node(node) is None:
            known = [n.name for n in self.spec.nodes]
            raise UsageError(f"cluster {self.name} has no node {node!r}", "", nearest(node, known))
        return container_name(self.name, node)

    def _kernel_notes(self) -> list[str]:
        if not self.spec.kernel:
            return []
        from minicluster import doctor

        if not self.engine.info.local:
            return []
        return [text for feature, text in self.spec.kernel.items() if not doctor.kernel_has(feature)]


def dry_run(
    profile: str | None = None,
    *,
    name: str | None = None,
    size: Mapping[str, int] | None = None,
    set: Mapping[str, str] | None = None,
    image: Mapping[str, str] | None = None,
    port: Mapping[str, int] | None = None,
) -> Plan:
    """The plan that :meth:`Cluster.up` would carry out; without an engine, the plan of a first ``up``."""
    asked = Overrides(dict(size or {}), dict(set or {}), dict(image or {}), dict(port or {}))
    _check_name(name)
    try:
        engine: Engine | None = _connect()
    except NoEngine:
        engine = None
    return _goal(engine, profile, _target(profile, name), asked).plan


def clusters(engine: Engine | None = None) -> list[ClusterSummary]:
    """Every cluster on the engine, remains of broken ones included, by name."""
    from minicluster.plan.observed import records

    engine = engine or _connect()
    containers, networks, volumes = engine.containers(), engine.networks(), engine.volumes()
    found = []
    things: list[Any] = [*containers, *networks, *volumes]
    for name in sorted({thing.labels[labels.CLUSTER] for thing in things}):
        mine = [c for c in containers if c.labels[labels.CLUSTER] == name]
        running = sum(c.state == "running" for c in mine)
        known = records([v for v in volumes if v.labels[labels.CLUSTER] == name])
        spec = known[-1].spec if known else None
        wanted = len(spec.nodes) if spec else len(mine)
        if not mine or spec is None:
            phase = "leftover"
        elif running == wanted:
            phase = "running"
        else:
            phase = "partial" if running else "stopped"
        profile = next(t.labels.get(labels.PROFILE, "") for t in things if t.labels[labels.CLUSTER] == name)
        found.append(ClusterSummary(name, profile, phase, wanted, running, spec.subnet if spec else ""))
    return found


def down(
    names: Sequence[str] = (), *, all: bool = False, listener: Listener = ignore, engine: Engine | None = None
) -> list[Change]:
    """Removes clusters by name, or all; without a name the one that :meth:`Cluster.open` would give, if any.

    Raises:
        UsageError: nothing of ours has that name.
    """
    engine = engine or _connect(start_private=True, listener=listener)
    known = _names(engine)
    if all:
        names = known
    elif not names:
        names = [_choose(None, engine, engine.volumes())] if known else []
    for name in names:
        if name not in known:
            raise _no_such(name, known, engine)
    return [_down(engine, name, listener) for name in dict.fromkeys(names)]


def examine(profile: str | None = None) -> list[Check]:
    """What ``doctor`` says of this machine, for a profile's default size."""
    from minicluster import doctor
    from minicluster.engine import base
    from minicluster.profile import catalog

    loaded = catalog.load(profile or DEFAULT_PROFILE)
    footprint = sum(role.count * int(role.footprint) for role in loaded.profile.roles.values())
    engine: Engine | None = None
    error: NoEngine | None = None
    try:
        engine = _connect()
    except NoEngine as refused:
        error = refused
    reachable = engine
    source = (lambda: base.source(reachable)) if reachable else None
    return doctor.examine(engine, error, footprint, source)


# How `up` goes about it


class _Goal:
    """What an ``up`` found, wants and will do."""

    def __init__(self, spec: Spec, observed: Observed, authority: pki.Authority, plan: Plan) -> None:
        self.spec = spec
        self.observed = observed
        self.authority = authority
        self.plan = plan


def _connect(*, start_private: bool = False, listener: Listener = ignore) -> Engine:
    from minicluster.engine.connect import connect

    return connect(start_private=start_private, listener=listener)


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


def _merge(before: Overrides, asked: Overrides) -> Overrides:
    """What was asked for once stays asked for, until something else is."""
    return Overrides(
        {**before.size, **asked.size},
        {**before.set, **asked.set},
        {**before.image, **asked.image},
        {**before.port, **asked.port},
    )


def _goal(engine: Engine | None, profile: str | None, name: str, asked: Overrides) -> _Goal:
    from minicluster import client, pki
    from minicluster.plan import reconcile
    from minicluster.plan.observed import Observed, observe
    from minicluster.profile import catalog, network
    from minicluster.profile.resolve import resolve

    observed = observe(name, engine.containers(name), engine.networks(name), engine.volumes(name)) if engine else Observed(name)
    before = observed.spec
    source = profile or (before.source if before else DEFAULT_PROFILE)
    overrides = _merge(before.overrides, asked) if before else asked
    loaded = catalog.load(source, overrides.set)
    if before and before.profile != loaded.profile.name:
        raise UsageError(
            f"the name {name} is in use",
            f"Cluster {name} is of profile {before.profile}, not {loaded.profile.name}.",
            "Give this one another with --name.",
        )
    taken = engine.subnets() if engine and not before else []
    spec = resolve(
        loaded,
        cluster=name,
        overrides=overrides,
        subnet=before.subnet if before else network.choose_subnet(taken),
        previous=before,
        port_is_free=_port_is_free,
        source=loaded.profile.name if loaded.bundled else str(loaded.directory),
    )
    authority = (client.read_authority(engine, before) if engine and before else None) or pki.Authority()
    members: Mapping[str, Member] | None = None
    if engine and before:
        members = _members(engine, before, observed.containers)[0]
    from dataclasses import replace

    observed = replace(observed, authority=authority.identity, members=members)
    return _Goal(spec, observed, authority, reconcile.create(spec, observed))


def _port_is_free(port: int) -> bool:
    """Whether a port of this machine can be bound. Of another machine's engine we cannot tell; it will."""
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _ports_asked(spec: Spec) -> set[int]:
    return {e.host_port for _node, e in spec.endpoints() if e.name in spec.overrides.port}


def _apply(engine: Engine, goal: _Goal, *, keep: bool, timeout: float, listener: Listener) -> None:
    from minicluster import client, images
    from minicluster.run.execute import Run, execute

    spec, before = goal.spec, goal.observed.spec
    run = Run(engine, goal.authority, timeout, listener, images.provide(engine, spec.profile, listener))
    try:
        if goal.plan:
            execute(goal.plan, run)
        client.keep(spec, goal.authority)
    except (MiniclusterError, KeyboardInterrupt) as problem:
        error = problem if isinstance(problem, MiniclusterError) else Interrupted("interrupted")
        _explain(error, spec, engine)
        if keep:
            error.fix = f"{error.fix}\nKept as it is; `minicluster down {spec.cluster}` removes it.".strip()
        elif before == spec:
            error.fix = f"{error.fix}\nThe cluster is left as it is: `minicluster status {spec.cluster}` shows it.".strip()
        else:
            _roll_back(engine, spec.cluster, before, goal, listener, error)
        raise error from (problem if error is not problem else problem.__cause__)


def _explain(error: MiniclusterError, spec: Spec, engine: Engine) -> None:
    """Says of a refused name or port whose it is."""
    if isinstance(error, Conflict):
        with contextlib.suppress(MiniclusterError):
            for node in spec.nodes:
                other = engine.container(container_name(spec.cluster, node.name))
                if other and other.labels.get(labels.CLUSTER) != spec.cluster:
                    error.what = f"the name {other.name} is in use"
                    error.why = "A container that minicluster did not make for this cluster has it."
                    error.fix = "Remove or rename that container, or give the cluster another name with --name."


def _roll_back(
    engine: Engine, name: str, before: Spec | None, goal: _Goal, listener: Listener, error: MiniclusterError
) -> None:
    """Undoes what an ``up`` began: back to the spec before, or to nothing. What stays is put into the error."""
    from minicluster.run.signals import shielded

    with shielded():
        listener(Event("rollback", text=f"undoing: {error.what}"))
        try:
            engine = _answering(engine, listener)
            if before is None:
                _remove_all(engine, name, ignore)
            else:
                _change_back(engine, name, before, goal)
        except MiniclusterError as second:
            left = [] if isinstance(second, NoEngine) else _left(engine, name)
            error.leftovers = tuple(left) or (f"not known what is left: {second.what}",)
            error.fix = f"{error.fix}\n`minicluster down {name}` removes what is left.".strip()


def _answering(engine: Engine, listener: Listener) -> Engine:
    """The same engine; the private one is started again where it died, so that it can be cleaned up."""
    try:
        engine.containers("none")
        return engine
    except NoEngine:
        from minicluster.engine import connect

        if engine.source != connect.PRIVATE:
            raise
        return connect.connect(start_private=True, listener=listener)


def _change_back(engine: Engine, name: str, before: Spec, goal: _Goal) -> None:
    from dataclasses import replace

    from minicluster import images
    from minicluster.plan import reconcile
    from minicluster.plan.observed import observe
    from minicluster.run.execute import Run, execute

    observed = observe(name, engine.containers(name), engine.networks(name), engine.volumes(name))
    members = _members(engine, before, observed.containers)[0]
    observed = replace(observed, authority=goal.authority.identity, members=members)
    run = Run(engine, goal.authority, DEFAULT_TIMEOUT, ignore, images.provide(engine, before.profile, ignore))
    execute(reconcile.create(before, observed), run)


def _down(engine: Engine, name: str, listener: Listener) -> Change:
    begun = time.monotonic()
    with lock.changing(name):
        plan = _remove_all(engine, name, listener)
    counts = Counter(step.id.split()[0] for step in plan.steps)
    return Change(name, bool(plan), len(plan.steps), time.monotonic() - begun, dict(counts))


def _remove_all(engine: Engine, name: str, listener: Listener) -> Plan:
    """Removes everything that carries a cluster's name; tries again what something else held on to."""
    from minicluster import client, pki
    from minicluster.plan import reconcile
    from minicluster.plan.observed import observe
    from minicluster.run.execute import Run, execute

    first: Plan | None = None
    for attempt in range(1, 4):
        plan = reconcile.remove(observe(name, engine.containers(name), engine.networks(name), engine.volumes(name)))
        first = first or plan
        try:
            execute(plan, Run(engine, pki.Authority(), DEFAULT_TIMEOUT, listener, lambda _image, _cancel: None))
            break
        except NoEngine:
            raise
        except MiniclusterError as error:
            if attempt == 3 or isinstance(error, Interrupted):
                error.leftovers = tuple(_left(engine, name))
                raise
            time.sleep(0.3)
    client.forget(name)
    assert first is not None
    return first


def _left(engine: Engine, name: str) -> list[str]:
    with contextlib.suppress(MiniclusterError):
        return [
            *(f"container {c.name}" for c in engine.containers(name)),
            *(f"network {n.name}" for n in engine.networks(name)),
            *(f"volume {v.name}" for v in engine.volumes(name)),
        ]
    return []


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
    return UsageError(f"no cluster is called {name!r}", why, nearest(name, known) or "`minicluster ls` shows what is up.")


# How nodes are doing


def _members(
    engine: Engine, spec: Spec, containers: Mapping[str, Container]
) -> tuple[Mapping[str, Member] | None, str]:
    """The cluster's own list of members, asked of the first node that knows; or None and why not."""
    if spec.members is None:
        return None, ""
    from minicluster.run.execute import ask_members

    why = f"no node of role {spec.members.on} runs"
    for node in spec.of_role(spec.members.on):
        container = containers.get(node.name)
        if container is None or container.state != "running":
            continue
        try:
            return ask_members(engine, container.name, spec.members.run, timeout=_PROBE_PATIENCE), ""
        except (NodeFailed, TimeoutError) as error:
            why = str(getattr(error, "why", "")) or str(error)
    return None, why


def _probe(engine: Engine, spec: Spec, node: Node, container: Container | None) -> str:
    """"ok", or why a node is not ready."""
    if container is None:
        return "its container is gone"
    if container.state != "running":
        return container.status or container.state
    if not node.ready:
        return "ok"
    try:
        result = engine.execute(container.name, node.ready, timeout=_PROBE_PATIENCE)
    except TimeoutError:
        return f"no answer within {_PROBE_PATIENCE:g} s"
    except MiniclusterError as error:
        return error.why or error.what
    lines = (result.stderr or result.stdout).strip().splitlines()
    return "ok" if result.exit_code == 0 else (lines[-1] if lines else f"the probe ended with {result.exit_code}")


def _memory(engine: Engine, container: Container | None) -> int | None:
    if container is None or container.state != "running":
        return None
    with contextlib.suppress(MiniclusterError):
        return engine.memory(container.name)
    return None


def _node_status(
    spec: Spec,
    node: Node,
    container: Container | None,
    probe: str,
    memory: int | None,
    members: Mapping[str, Member] | None,
    why: str,
) -> NodeStatus:
    member = members.get(node.name) if members is not None else None
    if probe == "ok" and spec.members is not None:
        if members is None:
            probe = why or "the members cannot be asked"
        elif member is None:
            probe = "it is no member of the cluster"
        elif not member.ready:
            probe = "the cluster counts it as not ready"
    return NodeStatus(
        name=node.name,
        role=node.role,
        address=node.address,
        phase=container.state if container else "missing",
        ready=probe == "ok",
        leader=member.leader if member else None,
        probe=probe,
        memory=memory,
        container=container_name(spec.cluster, node.name),
    )


def _phase(nodes: Sequence[NodeStatus], settled: bool) -> str:
    if not settled:
        return "forming"
    if all(node.ready for node in nodes):
        return "ready"
    if all(node.phase in ("exited", "missing", "created") for node in nodes):
        return "stopped"
    return "degraded" if any(node.ready for node in nodes) else "broken"


def _quorum(members: Mapping[str, Member] | None) -> Quorum | None:
    voters = [m for m in (members or {}).values() if m.voter]
    if not voters:
        return None
    healthy, needed = sum(m.ready for m in voters), len(voters) // 2 + 1
    leader = next((m.name for m in voters if m.leader), "")
    return Quorum(len(voters), healthy, needed, max(0, healthy - needed), leader)
