"""A container engine in memory, for every test that needs an engine's answers and not an engine.

It behaves as ``tests/contract`` demands of every engine. It is stricter where a plan must not rely on what a real one
does: it creates no volume by itself that a container names, and no network over a route of the machine.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_network

from minicluster.engine.protocol import (
    Attached,
    Cancel,
    Container,
    ContainerConfig,
    Engine,
    EngineEvent,
    EngineInfo,
    ExecResult,
    File,
    Job,
    Network,
    NetworkConfig,
    PathStat,
    Sample,
    Sandbox,
    Swarm,
    Volume,
)
from minicluster.errors import (
    Conflict,
    EngineError,
    Interrupted,
    NodeFailed,
    NotFound,
    PortTaken,
    SubnetTaken,
)
from minicluster.executor import helper
from minicluster.model import labels
from tests.fakes.box import Box
from tests.fakes.images import Images

OK = ExecResult(0, "", "")

#: What a command answers: a result, an error, or a function of the container's name and the command.
Answer = ExecResult | BaseException | Callable[[str, Sequence[str]], ExecResult]


class Hang:
    """The answer of a command that never ends by itself. ``begun`` is set once a caller waits for it."""

    def __init__(self) -> None:
        self.begun = threading.Event()


class _Attached:
    """A connection to a helper, which does what it is for once it gets word."""

    def __init__(self, engine: FakeEngine, name: str) -> None:
        self._engine = engine
        self._name = name

    def write(self, data: bytes) -> None:
        assert data == helper.WORD
        with self._engine._news:
            self._engine.boxes[self._name].log.append(self._engine.helper_says.encode())
            self._engine._news.notify_all()

    def lines(self) -> Iterator[bytes]:
        return self._engine.logs(self._name, follow=True)

    def close(self) -> None:
        pass


class FakeEngine(Images):
    """See :class:`minicluster.engine.protocol.Engine` for what each call means. Public fields are for tests to set."""

    endpoint = "unix:///fake"
    reference = "fake"
    local = False
    shares_localhost = True
    platform = "linux/amd64"
    id = ""
    ahead = 0.0  #: seconds that its clock is
    here = ""  #: name of the container that this process runs in, as far as the code can see

    def __init__(self) -> None:
        super().__init__()
        self.hosts: Mapping[str, Engine] = {}
        self.gone: Mapping[str, str] = {}
        self.member = Swarm()  #: its part in a swarm
        self.files: dict[str, str] = {}  #: of its machine
        self.boxes: dict[str, Box] = {}
        self.nets: dict[str, Network] = {}
        self.vols: dict[str, Volume] = {}
        self.routes: list[str] = []  #: subnets taken by something that is no network of the engine
        self.ports_in_use: set[int] = set()  #: host ports taken by something that is no container
        self.answers: dict[str, Answer | Hang] = {}  #: by the whole command, or by its first word
        self.killed: dict[str, int] = {}  #: containers that were killed for memory, and their limits
        self.exits: dict[str, tuple[int, str]] = {}  #: containers that exit once started: status and log
        self.told: list[EngineEvent] = []  #: everything that happened
        self.jobs: list[Job] = []  #: all that were created
        self.devices: dict[str, str] = {}  #: volume -> device that it is
        self.helper_says = "in force"  #: the output of a job that works on containers
        #: what a job leaves: its exit status, its output, and its files below /out
        self.works: Callable[[Job], tuple[int, list[str], dict[str, bytes]]] = lambda _job: (0, [], {})
        self._clusters: list[str | None] = []  #: which cluster each of these is of
        self._news = threading.Condition(self._lock)

    # For tests

    def empty(self) -> bool:
        """Nothing is left that carries a cluster's label."""
        return not (self.containers() or self.networks() or self.volumes())

    def set_state(self, name: str, state: str) -> None:
        """Puts a container into a state without an event or a call."""
        with self._lock:
            self.boxes[name].to(state)
            self._news.notify_all()

    def add_foreign(self, name: str, *networks: str, mode: str = "default") -> None:
        """A running container that minicluster did not make."""
        there = frozenset(networks)
        self.boxes[name] = Box(
            Container(name, name, {}, "running", "Up", "someone/else", networks=there, network_mode=mode)
        )

    def add_network(self, name: str) -> None:
        """A network that minicluster did not make."""
        self.nets[name] = Network(name, name, {}, ())

    def _tell(self, kind: str, action: str, name: str, about: Mapping[str, str], **detail: str | int) -> None:
        """``about``: the labels of what it happened to; those of a network itself are not in its events."""
        with self._news:
            told = {} if kind == "network" and action in ("create", "destroy") else dict(about)
            self.told.append(EngineEvent(time.time(), kind, action, name, told, detail))
            self._clusters.append(about.get(labels.CLUSTER))
            self._news.notify_all()

    def _tell_connections(self, action: str, box: Box, networks: Iterable[str]) -> None:
        for network in networks:
            if network in self.nets and _of(self.nets[network].labels, None):
                self._tell("network", action, network, box.container.labels)

    def _end(self, box: Box, code: int) -> None:
        name, about = box.container.name, box.container.labels
        box.to("exited", code)
        self._tell("container", "die", name, about, exit_code=code)
        self._tell_connections("disconnect", box, box.container.networks)

    # What is there

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(
            endpoint=self.endpoint, source="fake", version="1", api_version="1.41", platform=self.platform,
            operating_system="none", kernel="0", cgroup_version=2, storage_driver="none", rootless=False,
            cpus=1, memory=1 << 34, data_root="/none", local=False, id=self.id,
        )  # fmt: skip

    def containers(self, cluster: str | None = None) -> list[Container]:
        with self._lock:
            return [b.container for b in self.boxes.values() if _of(b.container.labels, cluster)]

    def container(self, name: str) -> Container | None:
        with self._lock:
            return self.boxes[name].container if name in self.boxes else None

    def own_container(self) -> Container | None:
        return self.container(self.here) if self.here else None

    def attached(self, network: str) -> list[Container]:
        with self._lock:
            return [b.container for b in self.boxes.values() if network in b.container.networks]

    def network(self, name: str) -> Network | None:
        with self._lock:
            return self.nets.get(name)

    def networks(self, cluster: str | None = None) -> list[Network]:
        with self._lock:
            return [n for n in self.nets.values() if _of(n.labels, cluster)]

    def network_names(self) -> list[str]:
        with self._lock:
            return sorted(self.nets)

    def volumes(self, cluster: str | None = None) -> list[Volume]:
        with self._lock:
            return [v for v in self.vols.values() if _of(v.labels, cluster)]

    def volume(self, name: str) -> Volume | None:
        return self.vols.get(name)

    def subnets(self) -> list[str]:
        with self._lock:
            return [s for n in self.nets.values() for s in n.subnets] + self.routes

    def machine_file(self, path: str) -> str:
        return self.files.get(path, "")

    def clock(self) -> float:
        return time.time() + self.ahead

    def swarm(self) -> Swarm:
        return self.member

    def join_swarm(
        self, address: str, manager: Engine | None, labels: Mapping[str, str], *, as_manager: bool = True
    ) -> None:
        self._call("join_swarm", address)

    def join_token(self, *, manager: bool) -> str:
        return f"token-{manager}"

    def leave_swarm(self) -> None:
        self._call("leave_swarm", self.member.id)
        self.member = Swarm()

    def set_swarm_role(self, id: str, *, manager: bool) -> None:
        self._call("set_swarm_role", f"{id} {manager}")

    def forget_swarm_node(self, id: str) -> None:
        self._call("forget_swarm_node", id)

    # Making and removing

    def create_network(self, config: NetworkConfig) -> None:
        name, subnet, labels = config.name, config.subnet, config.labels
        self._call("create_network", name)
        with self._lock:
            if name in self.nets:
                raise Conflict(f"network {name} exists already")
            if any(ip_network(subnet).overlaps(ip_network(other)) for other in self.subnets()):
                raise SubnetTaken(f"{subnet} overlaps")
            self.nets[name] = Network(name, name, dict(labels), (subnet,))
            self._tell("network", "create", name, labels)

    def remove_network(self, name: str) -> None:
        self._call("remove_network", name)
        with self._lock:
            if any(name in b.container.networks and b.container.alive for b in self.boxes.values()):
                raise EngineError(f"network {name} has containers")
            if gone := self.nets.pop(name, None):
                self._tell("network", "destroy", name, gone.labels)

    def connect_network(self, network: str, container: str, aliases: Sequence[str] = ()) -> None:
        self._call("connect_network", f"{container}: {network}")
        with self._lock:
            if network not in self.nets:
                raise NotFound(f"no network {network}")
            box = self._box(container)
            if network in box.container.networks:
                return
            box.container = replace(box.container, networks=box.container.networks | {network})
            box.aliases[network] = tuple(aliases)
            if box.container.alive:
                self._tell_connections("connect", box, [network])

    def disconnect_network(self, network: str, container: str) -> None:
        self._call("disconnect_network", f"{container}: {network}")
        with self._lock:
            box = self.boxes.get(container)
            if box and network in self.nets and network in box.container.networks:
                box.container = replace(box.container, networks=box.container.networks - {network})
                box.aliases.pop(network, None)
                if box.container.alive:
                    self._tell_connections("disconnect", box, [network])

    def create_volume(self, name: str, labels: Mapping[str, str], device: str = "") -> None:
        self._call("create_volume", name)
        with self._lock:
            if name in self.vols:
                if self.vols[name].labels == labels:
                    return
                raise Conflict(f"volume {name} exists already")
            self.vols[name] = Volume(name, dict(labels))
            if device:
                self.devices[name] = device
            self._tell("volume", "create", name, labels)

    def volume_size(self, name: str) -> int | None:
        return 1 << 20 if name in self.vols else None

    def remove_volume(self, name: str) -> None:
        self._call("remove_volume", name)
        with self._lock:
            if any(b.config and name in b.config.volumes.values() for b in self.boxes.values()):
                raise Conflict(f"volume {name} is in use")
            if gone := self.vols.pop(name, None):
                self._tell("volume", "destroy", name, gone.labels)

    def sees(self, path: str) -> bool:
        self._call("sees", path)
        return os.path.exists(path)

    def create_container(self, config: ContainerConfig) -> None:
        self._call("create_container", config.name)
        with self._lock:
            if config.name in self.boxes:
                raise Conflict(f"cannot create container {config.name}: it exists already")
            if not self.has_image(config.image):
                raise NotFound(f"no image {config.image}")
            for volume in config.volumes.values():
                if volume not in self.vols:
                    raise EngineError(f"volume {volume} would be made without labels")
            if not config.address:  # on the default network
                self.nets.setdefault(config.network, Network(config.network, config.network, {}, ()))
            container = Container(
                config.name, config.name, dict(config.labels), "created", "Created", config.image, config.address,
                networks=frozenset({config.network}), network_mode=config.network,
            )  # fmt: skip
            self.boxes[config.name] = Box(container, config)
            self._tell("container", "create", config.name, config.labels)

    def create_job(self, job: Job) -> None:
        network = "default"
        self.nets.setdefault(network, Network(network, network, {}, ()))
        config = ContainerConfig(
            job.name, job.image, job.name, network, "", job.labels, job.command, env=job.env, volumes=job.volumes
        )
        for volume in job.volumes.values():
            if volume not in self.vols:
                raise EngineError(f"volume {volume} would be made without labels")
        self.create_container(config)
        content = self.contents.get(job.image, {})
        self.put_files(job.name, [File(f"/{path}", program, 0o755) for path, program in content.items()])
        self.put_files(job.name, job.files)
        self.jobs.append(job)

    def _work(self, box: Box) -> None:
        """Does what a job does, once it runs."""
        job = next(job for job in self.jobs if job.name == box.container.name)
        if job.on_containers or job.on_disks:
            box.log = [] if helper.WAITS in job.env else [self.helper_says.encode()]
            return
        status, output, files = self.works(job)
        box.put([File(f"/out/{path}", content, 0o755) for path, content in files.items()])
        box.log = [line.encode() for line in [*output, f"minicluster-job: ended with {status}"]]

    def start_container(self, name: str) -> None:
        self._call("start_container", name)
        with self._lock:
            box = self._box(name)
            if any(job.name == name for job in self.jobs):
                self._work(box)
            assert box.config
            if box.container.state == "running":
                return
            if box.container.state == "paused":
                box.to("running")
                self._tell("container", "unpause", name, box.container.labels)
                return
            self._check_start(box, box.config)
            box.to("running")
            self._tell_connections("connect", box, box.container.networks)
            self._tell("container", "start", name, box.container.labels)
            if name in self.exits:
                code, log = self.exits[name]
                box.log += log.encode().splitlines()
                self._end(box, code)

    def _check_start(self, box: Box, config: ContainerConfig) -> None:
        for network in box.container.networks:
            if network not in self.nets:
                raise NotFound(f"no network {network}")
        for other in self.boxes.values():
            if other is box or other.config is None or not other.container.alive:
                continue
            if config.address and (other.config.network, other.config.address) == (config.network, config.address):
                raise EngineError(f"address {config.address} is in use")
            for port, _protocol in published(other.config) & published(config):
                raise PortTaken(f"host port {port} is in use", port=port)
        for port in self.ports_in_use & set(config.ports.values()):
            raise PortTaken(f"host port {port} is in use", port=port)

    def stop_container(self, name: str) -> None:
        self._call("stop_container", name)
        with self._lock:
            box = self._box(name)
            if box.container.alive:
                self._end(box, 0)
                self._tell("container", "stop", name, box.container.labels)
            if any(job.name == name and job.on_containers for job in self.jobs):
                del self.boxes[name]

    def pause_container(self, name: str) -> None:
        self._call("pause_container", name)
        with self._lock:
            box = self._box(name)
            if box.container.state == "paused":
                return
            if not box.container.alive:
                raise EngineError(f"container {name} is not running")
            box.to("paused")
            self._tell("container", "pause", name, box.container.labels)

    def update_container(self, name: str, restart: str) -> None:
        self._call("update_container", name)
        with self._lock:
            box = self._box(name)
            assert box.config
            box.config = replace(box.config, restart=restart)

    def kill_container(self, name: str, signal: str = "KILL") -> None:
        self._call("kill_container", name)
        with self._lock:
            assert signal == "KILL"
            if name in self.boxes and self.boxes[name].container.alive:
                self._kill(self.boxes[name])
                if any(job.name == name for job in self.jobs):
                    del self.boxes[name]

    def _kill(self, box: Box) -> None:
        self._tell("container", "kill", box.container.name, box.container.labels, signal="SIGKILL")
        self._end(box, 137)

    def end_job(self, name: str, signal: str = "TERM") -> None:
        self._call("end_job", name)
        with self._lock:
            box = self.boxes.get(name)
            if box and box.container.alive:
                self._end(box, 0)
            self.boxes.pop(name, None)

    def attach(self, container: str) -> Attached:
        self._box(container)
        return _Attached(self, container)

    def remove_container(self, name: str) -> None:
        self._call("remove_container", name)
        with self._lock:
            if gone := self.boxes.get(name):
                if gone.container.alive:
                    self._kill(gone)
                del self.boxes[name]
                self._tell("container", "destroy", name, gone.container.labels)

    # Within a container

    def put_files(self, container: str, files: Sequence[File]) -> None:
        self._call("put_files", container)
        with self._lock:
            self._box(container).put(files)

    def put_archive_file(self, container: str, path: str, content: Iterator[bytes], size: int) -> None:
        data = b"".join(content)
        assert len(data) == size
        self.put_files(container, [File(path, data)])

    def get_file(self, container: str, path: str) -> bytes:
        with self._lock:
            return self._box(container).get(path)

    def stat_path(self, container: str, path: str) -> PathStat | None:
        with self._lock:
            return self._box(container).stat(path)

    def read_archive(self, container: str, path: str) -> Iterator[bytes]:
        self._call("read_archive", f"{container}: {path}")
        yield from self._box(container).tar(path)

    def write_archive(self, container: str, folder: str, content: Iterator[bytes]) -> None:
        self._call("write_archive", f"{container}: {folder}")
        data = b"".join(content)
        with self._lock:
            self._box(container).untar(folder, data)

    def sandbox(self, container: str) -> Sandbox | None:
        with self._lock:
            box = self.boxes.get(container)
            if box is None or not box.container.alive:
                return None
            number = int(container.rpartition("-")[2])  # of a node: ROLE-N
            macs = (f"02:00:00:00:00:{number:02x}",)
            assert box.config
            return Sandbox(f"id-{container}", 1000 * box.starts + number, macs, box.config.memory, box.config.cpus)

    def exit_code(self, container: str) -> int | None:
        with self._lock:
            box = self._box(container)
            return None if box.container.alive or box.container.state == "created" else box.code

    def killed_at(self, container: str) -> int | None:
        return self.killed.get(container)

    def exec(
        self,
        container: str,
        argv: Sequence[str],
        *,
        timeout: float | None = None,
        cancel: Cancel | None = None,
    ) -> ExecResult:
        self._call("exec", f"{container}: {' '.join(argv)}")
        if self._box(container).container.state != "running":
            raise NodeFailed(f"cannot run {argv[0]} in {container}", f"container {container} is not running")
        if cancel and cancel.is_set():
            raise Interrupted(f"stopped: {argv[0]}")
        answer = self.answers.get(" ".join(argv), self.answers.get(argv[0], OK))
        if isinstance(answer, Hang):
            ended = threading.Event()
            with (cancel or Cancel()).calls(ended.set):
                answer.begun.set()
                asked = ended.wait(timeout)
            if asked:
                raise Interrupted(f"stopped: {argv[0]}")
            raise TimeoutError(f"{argv[0]}: no answer within {timeout:g} s")
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, ExecResult) else answer(container, argv)

    def exec_argv(
        self, container: str, argv: Sequence[str], *, tty: bool, stdin: bool
    ) -> tuple[list[str], dict[str, str]]:
        return ["fake", "exec", container, *argv], {"FAKE": "1"}

    def logs(self, container: str, *, tail: int | None = None, follow: bool = False) -> Iterator[bytes]:
        box, at = self._box(container), 0
        with self._news:
            at = 0 if tail is None else max(0, len(box.log) - tail)
        while True:
            with self._news:
                new, at, alive = box.log[at:], max(at, len(box.log)), box.container.alive
            yield from new
            if not (follow and alive):
                return
            with self._news:
                self._news.wait_for(lambda seen=at: len(box.log) > seen or not box.container.alive)

    def sample(self, container: str) -> Sample:
        """Half of one of two processors is used, whenever it is asked."""
        box = self._box(container)
        if not box.container.alive:
            return Sample(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        box.samples += 1
        second = 10**9
        return Sample(box.samples * second // 2, box.samples * 2 * second, 2, 1 << 20, 1 << 34, 7, 100, 200, 300, 400)

    def events(
        self, cluster: str, *, since: float | None = None, cancel: Cancel | None = None
    ) -> Iterator[EngineEvent]:
        cancel, at = cancel or Cancel(), len(self.told) if since is None else 0

        def wake() -> None:
            with self._news:
                self._news.notify_all()

        with cancel.calls(wake):
            while not cancel.is_set():
                with self._news:
                    self._news.wait_for(lambda seen=at: cancel.is_set() or len(self.told) > seen)
                    news, at = list(zip(self.told, self._clusters, strict=True))[at:], len(self.told)
                for event, its in news:
                    if its == cluster and event.time >= (since or 0):
                        yield event

    def close(self) -> None:
        pass

    def _box(self, name: str) -> Box:
        with self._lock:
            if name not in self.boxes:
                raise NotFound(f"no container {name}")
            return self.boxes[name]


def _of(found: Mapping[str, str], cluster: str | None) -> bool:
    return labels.CLUSTER in found and cluster in (None, found[labels.CLUSTER])


def published(config: ContainerConfig) -> set[tuple[int, str]]:
    """Host ports and their protocols."""
    return {(port, key.partition("/")[2]) for key, port in config.ports.items()}
