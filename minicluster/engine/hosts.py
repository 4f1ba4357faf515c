"""Several engines that act as one: those of a cluster whose nodes are on several hosts.

A call about a container goes to the host that has it. What is a single node's is on that node's host, which the label
``HOST`` names; a cluster's records and lease are on every host, so that any of them can tell what the cluster is. The
cluster's network is one of the hosts' Docker Swarm. Only objects with the label ``HOSTS`` are seen: a host may have
clusters of its own.

A host that stops answering is left out from then on, and is in ``gone``.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from minicluster.engine import objects
from minicluster.engine.host_calls import HostCalls
from minicluster.engine.host_copies import AT, shown
from minicluster.engine.protocol import Cancel, Engine, Progress
from minicluster.errors import EngineError, NoEngine, NotFound
from minicluster.model import labels

_LEARNT = 20.0  # seconds that hosts may take to learn from their manager that a network was removed


class HostsEngine(HostCalls):
    """See :class:`minicluster.engine.protocol.Engine` for what each call means."""

    local = False
    shares_localhost = False

    def __init__(
        self,
        hosts: Mapping[str, Engine],
        gone: Mapping[str, str] | None = None,
        home: Callable[[], Engine | None] = lambda: None,
    ) -> None:
        """
        Args:
            hosts: the engines that answer, by the hosts' names.
            gone: the hosts that do not, and why.
            home: the engine that is used where no host is named: images are built there, and those that it has are
                given to hosts. None: there is none.
        """
        super().__init__(hosts, gone or {})
        self._find_home = home
        self._homes: list[Engine] = []  # once it is known: where images are

    # What there is

    @property
    def info(self) -> objects.EngineInfo:
        found = self._each(lambda engine: engine.info)
        first = next(iter(found.values()))
        return replace(
            first,
            endpoint=self.endpoint,
            source="hosts",
            cpus=sum(one.cpus for one in found.values()),
            memory=sum(one.memory for one in found.values()),
            local=False,
        )

    def containers(self, cluster: str | None = None) -> list[objects.Container]:
        found = [
            replace(one, host=host)
            for host, its in self._each(lambda engine: engine.containers(cluster)).items()
            for one in its
            if labels.HOSTS in one.labels
        ]
        meant = self._meant(found)
        with self._lock:
            self._where |= {one.name: one.host for one in meant if AT not in one.name}
            self._where |= {one.id: one.host for one in meant}
        return meant

    def container(self, name: str) -> objects.Container | None:
        try:
            host, there = self._host_of(name)
        except NotFound:
            return None
        except NoEngine:
            if not self.hosts:
                raise
            return None  # on those that answer
        found = self._call(host, lambda engine: engine.container(there))
        if found is None:
            with self._lock:
                self._where.pop(name, None)
        return replace(found, host=host) if found else None

    def own_container(self) -> objects.Container | None:
        return None

    def attached(self, network: str) -> list[objects.Container]:
        found = self._each(lambda engine: engine.attached(network))
        return [replace(one, host=host) for host, its in found.items() for one in its]

    def network(self, name: str) -> objects.Network | None:
        found = self._each(lambda engine: engine.network(name))
        return next((one for one in found.values() if one), None)

    def networks(self, cluster: str | None = None) -> list[objects.Network]:
        found = self._each(lambda engine: engine.networks(cluster))
        ours = {one.name: one for its in found.values() for one in its if labels.HOSTS in one.labels}
        return list(ours.values())

    def network_names(self) -> list[str]:
        found = self._each(lambda engine: engine.network_names())
        return sorted(set.intersection(*map(set, found.values())))

    def volumes(self, cluster: str | None = None) -> list[objects.Volume]:
        found = self._each(lambda engine: engine.volumes(cluster))
        ours = {h: [one for one in its if labels.HOSTS in one.labels] for h, its in found.items()}
        own = [replace(one, host=host) for host, its in ours.items() for one in its if labels.HOST in one.labels]
        copies = {host: [one for one in its if labels.HOST not in one.labels] for host, its in ours.items()}
        return [*self._meant(own), *shown(copies)]

    def volume(self, name: str) -> objects.Volume | None:
        found = self._each(lambda engine: engine.volume(name))
        return next((one for one in found.values() if one), None)

    def subnets(self) -> list[str]:
        return [subnet for its in self._each(lambda engine: engine.subnets()).values() for subnet in its]

    def machine_file(self, path: str) -> str:
        return ""

    def clock(self) -> float:
        return next(iter(self._each(lambda engine: engine.clock()).values()))

    # Their swarm

    def swarm(self) -> objects.Swarm:
        return self._manager().swarm()

    def join_swarm(
        self, address: str, manager: Engine | None, labels: Mapping[str, str], *, as_manager: bool = True
    ) -> None:
        raise EngineError("several hosts cannot join a swarm as one")

    def join_token(self, *, manager: bool) -> str:
        return self._manager().join_token(manager=manager)

    def leave_swarm(self) -> None:
        raise EngineError("several hosts cannot leave a swarm as one")

    def set_swarm_role(self, id: str, *, manager: bool) -> None:
        self._manager().set_swarm_role(id, manager=manager)

    def forget_swarm_node(self, id: str) -> None:
        self._manager().forget_swarm_node(id)

    # Creating, changing and removing

    def create_network(self, config: objects.NetworkConfig) -> None:
        self._manager().create_network(replace(config, overlay=True))

    def remove_network(self, name: str) -> None:
        self._manager().remove_network(name)
        # The other hosts learn it a moment later. Until then the name means the removed one there, also for new nodes.
        end = time.monotonic() + _LEARNT
        while time.monotonic() < end and any(self._each(lambda engine: engine.network(name)).values()):
            time.sleep(0.05)

    def connect_network(self, network: str, container: str, aliases: Sequence[str] = ()) -> None:
        self._on(container, lambda engine, name: engine.connect_network(network, name, aliases))

    def disconnect_network(self, network: str, container: str) -> None:
        try:
            self._on(container, lambda engine, name: engine.disconnect_network(network, name))
        except NotFound:
            return

    def create_volume(self, name: str, about: Mapping[str, str], device: str = "") -> None:
        about = self._marked(about)
        if labels.HOST in about:
            self._call(self._target(about), lambda engine: engine.create_volume(name, about, device))
            return
        wanted = about[labels.HOSTS].split(",")
        on = [host for host in self.hosts if host in wanted] or list(self.hosts)
        self._all(on, lambda engine: engine.create_volume(name, about))

    def volume_size(self, name: str) -> int | None:
        sizes = [size for size in self._each(lambda engine: engine.volume_size(name)).values() if size is not None]
        return sum(sizes) if sizes else None

    def remove_volume(self, name: str) -> None:
        plain, at, host = name.partition(AT)
        if at:
            self._call(host, lambda engine: engine.remove_volume(plain))
            return
        found = self._each(lambda engine: engine.volume(name))
        having = [replace(one, host=host) for host, one in found.items() if one and labels.HOST in one.labels]
        meant = [one.host for one in self._meant(having) if AT not in one.name]
        self._all(meant or [host for host, one in found.items() if one], lambda engine: engine.remove_volume(name))

    def sees(self, path: str) -> bool:
        return all(self._each(lambda engine: engine.sees(path)).values())

    def create_container(self, config: objects.ContainerConfig) -> None:
        host, marked = self._target(config.labels), replace(config, labels=self._marked(config.labels))
        self._call(host, lambda engine: engine.create_container(marked))
        with self._lock:
            self._where[config.name] = host

    def create_job(self, job: objects.Job) -> None:
        host = job.labels.get(labels.HOST, "")
        if not host:
            having = self._each(lambda engine: engine.has_image(job.image))
            host = next((name for name, there in having.items() if there), "") or self._target({})
        self._call(host, lambda engine: engine.create_job(job))
        with self._lock:
            self._where[job.name] = host

    def start_container(self, name: str) -> None:
        self._on(name, lambda engine, there: engine.start_container(there))

    def stop_container(self, name: str) -> None:
        self._on(name, lambda engine, there: engine.stop_container(there))

    def pause_container(self, name: str) -> None:
        self._on(name, lambda engine, there: engine.pause_container(there))

    def update_container(self, name: str, restart: str) -> None:
        self._on(name, lambda engine, there: engine.update_container(there, restart))

    def kill_container(self, name: str, signal: str = "KILL") -> None:
        try:
            self._on(name, lambda engine, there: engine.kill_container(there, signal))
        except NotFound:
            return

    def end_job(self, name: str, signal: str = "TERM") -> None:
        with contextlib.suppress(NotFound):
            self._on(name, lambda engine, there: engine.end_job(there, signal))
        with self._lock:
            self._where.pop(name, None)

    def attach(self, container: str) -> objects.Attached:
        return self._on(container, lambda engine, name: engine.attach(name))

    def remove_container(self, name: str) -> None:
        try:
            self._on(name, lambda engine, there: engine.remove_container(there))
        except NotFound:
            return
        with self._lock:
            self._where.pop(name, None)

    # Within a container

    def put_files(self, container: str, files: Sequence[objects.File]) -> None:
        self._on(container, lambda engine, name: engine.put_files(name, files))

    def put_archive_file(self, container: str, path: str, content: Iterator[bytes], size: int) -> None:
        self._on(container, lambda engine, name: engine.put_archive_file(name, path, content, size))

    def get_file(self, container: str, path: str) -> bytes:
        return self._on(container, lambda engine, name: engine.get_file(name, path))

    def stat_path(self, container: str, path: str) -> objects.PathStat | None:
        return self._on(container, lambda engine, name: engine.stat_path(name, path))

    def read_archive(self, container: str, path: str) -> Iterator[bytes]:
        return self._on(container, lambda engine, name: engine.read_archive(name, path))

    def write_archive(self, container: str, folder: str, content: Iterator[bytes]) -> None:
        self._on(container, lambda engine, name: engine.write_archive(name, folder, content))

    def sandbox(self, container: str) -> objects.Sandbox | None:
        try:
            return self._on(container, lambda engine, name: engine.sandbox(name))
        except NotFound:
            return None

    def exit_code(self, container: str) -> int | None:
        return self._on(container, lambda engine, name: engine.exit_code(name))

    def killed_at(self, container: str) -> int | None:
        return self._on(container, lambda engine, name: engine.killed_at(name))

    def exec(
        self, container: str, argv: Sequence[str], *, timeout: float | None = None, cancel: Cancel | None = None
    ) -> objects.ExecResult:
        return self._on(container, lambda engine, name: engine.exec(name, argv, timeout=timeout, cancel=cancel))

    def exec_argv(
        self, container: str, argv: Sequence[str], *, tty: bool, stdin: bool
    ) -> tuple[list[str], dict[str, str]]:
        return self._on(container, lambda engine, name: engine.exec_argv(name, argv, tty=tty, stdin=stdin))

    def logs(self, container: str, *, tail: int | None = None, follow: bool = False) -> Iterator[bytes]:
        return self._on(container, lambda engine, name: engine.logs(name, tail=tail, follow=follow))

    def sample(self, container: str) -> objects.Sample:
        return self._on(container, lambda engine, name: engine.sample(name))

    def events(
        self, cluster: str, *, since: float | None = None, cancel: Cancel | None = None
    ) -> Iterator[objects.EngineEvent]:
        """Those of all hosts as they come. A host that stops answering only ends its own."""
        cancel = cancel or Cancel()
        came: queue.SimpleQueue[objects.EngineEvent | BaseException | None] = queue.SimpleQueue()

        def follow(engine: Engine) -> None:
            try:
                for event in engine.events(cluster, since=since, cancel=cancel):
                    came.put(event)
                came.put(None)
            except BaseException as error:
                came.put(error)

        threads = [threading.Thread(target=follow, args=(engine,), daemon=True) for engine in self.hosts.values()]
        for thread in threads:
            thread.start()
        running = len(threads)
        while running:
            event = came.get()
            if isinstance(event, objects.EngineEvent):
                yield event
                continue
            running -= 1
            if event is not None and not (isinstance(event, NoEngine) and running):
                raise event

    # Images: of the engine that builds them. Those of hosts are asked for one by one; see ``hosts``.

    @property
    def _home(self) -> Engine:
        with self._lock:
            if not self._homes:
                first, found = next(iter(self.hosts.values())), self._find_home()
                if found and found.info.platform != first.info.platform:  # what it builds does not run there
                    found = None
                self._homes.append(found or first)
            return self._homes[0]

    def _having(self, ref: str) -> Engine:
        """An engine that has an image."""
        engines = [self._home, *self.hosts.values()]
        return next((engine for engine in engines if engine.has_image(ref)), self._home)

    def images(self) -> list[objects.Image]:
        return self._home.images()

    def has_image(self, ref: str) -> bool:
        return self._having(ref).has_image(ref)

    def image(self, ref: str) -> objects.Image | None:
        return self._having(ref).image(ref)

    def pull_image(
        self, ref: str, progress: Progress, timeout: float | None = None, cancel: Cancel | None = None
    ) -> None:
        self._home.pull_image(ref, progress, timeout, cancel)

    def build_image(self, build: objects.ImageBuild, progress: Progress, cancel: Cancel | None = None) -> None:
        self._home.build_image(build, progress, cancel)

    def import_image(self, archive: Iterable[bytes], ref: str, labels: Mapping[str, str] | None = None) -> None:
        self._home.import_image(archive, ref, labels)

    def load_images(self, archive: Iterable[bytes]) -> list[str]:
        return self._home.load_images(archive)

    def save_image(self, ref: str) -> Iterator[bytes]:
        return self._having(ref).save_image(ref)

    def remove_image(self, ref: str) -> None:
        self._having(ref).remove_image(ref)

    def close(self) -> None:
        for engine in [*self._opened, *self._homes]:
            engine.close()
