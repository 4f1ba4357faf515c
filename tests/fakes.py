"""A container engine in memory, for every test that needs an engine's answers and not an engine.

It keeps the rules that plans must respect: a volume in use cannot be removed, nor a network with containers in it, a
name is there once, an address of a network and a port of the host are had by one running container.
"""

from __future__ import annotations

import io
import json
import tarfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import ip_network
from pathlib import Path, PurePosixPath

from minicluster import labels
from minicluster.engine.protocol import (
    Cancel,
    Container,
    ContainerConfig,
    EngineEvent,
    EngineInfo,
    ExecResult,
    File,
    Image,
    Network,
    PathStat,
    Progress,
    Sample,
    Volume,
)
from minicluster.errors import (
    Conflict,
    EngineError,
    ImageError,
    Interrupted,
    NodeFailed,
    NotFound,
    PortTaken,
    SubnetTaken,
)

OK = ExecResult(0, "", "")

#: What a command answers: a result, an error, or a function of the container's name and the command.
Answer = ExecResult | BaseException | Callable[[str, Sequence[str]], ExecResult]


class Hang:
    """The answer of a command that never ends by itself. ``begun`` is set once somebody waits for it."""

    def __init__(self) -> None:
        self.begun = threading.Event()


@dataclass
class Box:
    """A container and what is in it."""

    container: Container
    config: ContainerConfig | None = None
    files: dict[str, File] = field(default_factory=dict)
    folders: set[str] = field(default_factory=lambda: {"/", "/etc", "/var", "/root"})
    links: dict[str, str] = field(default_factory=dict)  #: path -> where it leads, absolute
    entries: dict[str, tarfile.TarInfo] = field(default_factory=dict)  #: as the last archive brought them, by path
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)  #: by network, of those it was connected to
    samples: int = 0
    log: list[bytes] = field(default_factory=list)
    code: int | None = None


@dataclass
class _Failure:
    kind: str
    error: BaseException | Callable[[], None]
    nth: int
    match: str
    seen: int = 0


class FakeEngine:
    """See :class:`minicluster.engine.protocol.Engine` for what each call means. Public fields are for tests to set."""

    endpoint = "unix:///fake"
    reference = "fake"
    local = False
    shares_localhost = True
    here = ""  #: name of the container that this process is told to run in

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []  #: kind of call and what it was about, changes and commands alone
        self.boxes: dict[str, Box] = {}
        self.nets: dict[str, Network] = {}
        self.vols: dict[str, Volume] = {}
        self.every_image = True  #: has whatever image it is asked for, but for those missing
        self.missing: set[str] = set()
        self.refs: dict[str, Image] = {}
        self.registry: set[str] = set()  #: references that can be pulled
        self.builds: list[tuple[Path, str, dict[str, str]]] = []  #: folder, reference and arguments of each build
        self.contexts: list[dict[str, str]] = []  #: further files of each build
        self.routes: list[str] = []  #: subnets taken by something that is no network of the engine
        self.ports_in_use: set[int] = set()  #: host ports taken by something that is no container
        self.answers: dict[str, Answer | Hang] = {}  #: by the whole command, or by its first word
        self.exits: dict[str, tuple[int, str]] = {}  #: containers that exit once started: status and log
        self._failures: list[_Failure] = []
        self._lock = threading.RLock()
        self.told: list[EngineEvent] = []  #: everything that ``events`` tells
        self._news = threading.Condition(self._lock)

    # For tests

    def fail(self, kind: str, error: BaseException | Callable[[], None], *, nth: int = 1, match: str = "") -> None:
        """Makes the n-th call of a kind (a method's name; "" is any) about something with ``match`` in its name raise.

        A function is called in place of raising: it may change the world, and raise or not.
        """
        self._failures.append(_Failure(kind, error, nth, match))

    def heal(self) -> None:
        """Nothing fails any more that has not yet."""
        self._failures.clear()

    def did(self, kind: str) -> list[str]:
        """What the calls of a kind were about, in their order."""
        return [about for called, about in self.calls if called == kind]

    def empty(self) -> bool:
        """Nothing is left that carries a cluster's label."""
        return not (self.containers() or self.networks() or self.volumes())

    def set_state(self, name: str, state: str) -> None:
        """Puts a container into a state behind everybody's back."""
        with self._lock:
            box = self.boxes[name]
            box.container = replace(box.container, state=state)

    def add_foreign(self, name: str, *networks: str, mode: str = "default") -> None:
        """A running container that minicluster did not make."""
        there = frozenset(networks)
        self.boxes[name] = Box(
            Container(name, name, {}, "running", "Up", "someone/else", networks=there, network_mode=mode)
        )

    def add_network(self, name: str) -> None:
        """A network that minicluster did not make."""
        self.nets[name] = Network(name, name, {}, ())

    def _call(self, kind: str, about: str) -> None:
        with self._lock:
            self.calls.append((kind, about))
            due = None
            for failure in self._failures:
                if failure.kind in ("", kind) and failure.match in about:
                    failure.seen += 1
                    due = failure if failure.seen == failure.nth else due
        if due:
            if isinstance(due.error, BaseException):
                raise due.error
            due.error()

    def _tell(self, kind: str, action: str, name: str, about: Mapping[str, str], **detail: str | int) -> None:
        with self._news:
            self.told.append(EngineEvent(time.time(), kind, action, name, dict(about), detail))
            self._news.notify_all()

    # What is there

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(
            endpoint=self.endpoint, source="fake", version="1", api_version="1.41", platform="linux/amd64",
            operating_system="none", kernel="0", cgroup_version=2, storage_driver="none", rootless=False,
            cpus=1, memory=1 << 34, data_root="/none", local=False,
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

    def volumes(self, cluster: str | None = None) -> list[Volume]:
        with self._lock:
            return [v for v in self.vols.values() if _of(v.labels, cluster)]

    def subnets(self) -> list[str]:
        with self._lock:
            return [s for n in self.nets.values() for s in n.subnets] + self.routes

    # Making and removing

    def create_network(self, name: str, subnet: str, gateway: str, guests: str, labels: Mapping[str, str]) -> None:
        self._call("create_network", name)
        with self._lock:
            if name in self.nets:
                raise Conflict(f"network {name} is there")
            if any(ip_network(subnet).overlaps(ip_network(other)) for other in self.subnets()):
                raise SubnetTaken(f"{subnet} overlaps")
            self.nets[name] = Network(name, name, dict(labels), (subnet,))
            self._tell("network", "create", name, labels)

    def remove_network(self, name: str) -> None:
        self._call("remove_network", name)
        with self._lock:
            if any(name in b.container.networks and b.container.state == "running" for b in self.boxes.values()):
                raise EngineError(f"network {name} has containers")
            if gone := self.nets.pop(name, None):
                self._tell("network", "destroy", name, gone.labels)

    def connect_network(self, network: str, container: str, aliases: Sequence[str] = ()) -> None:
        self._call("connect_network", f"{container}: {network}")
        with self._lock:
            if network not in self.nets:
                raise NotFound(f"no network {network}")
            box = self._box(container)
            box.container = replace(box.container, networks=box.container.networks | {network})
            box.aliases[network] = tuple(aliases)

    def disconnect_network(self, network: str, container: str) -> None:
        self._call("disconnect_network", f"{container}: {network}")
        with self._lock:
            box = self.boxes.get(container)
            if box:
                box.container = replace(box.container, networks=box.container.networks - {network})
                box.aliases.pop(network, None)

    def create_volume(self, name: str, labels: Mapping[str, str]) -> None:
        self._call("create_volume", name)
        with self._lock:
            if name in self.vols:
                raise Conflict(f"volume {name} is there")
            self.vols[name] = Volume(name, dict(labels))
            self._tell("volume", "create", name, labels)

    def remove_volume(self, name: str) -> None:
        self._call("remove_volume", name)
        with self._lock:
            if any(b.config and name in b.config.volumes.values() for b in self.boxes.values()):
                raise Conflict(f"volume {name} is in use")
            if gone := self.vols.pop(name, None):
                self._tell("volume", "destroy", name, gone.labels)

    def create_container(self, config: ContainerConfig) -> None:
        self._call("create_container", config.name)
        with self._lock:
            if config.name in self.boxes:
                raise Conflict(f"cannot create container {config.name}: it is in use")
            if not self.has_image(config.image):
                raise NotFound(f"no image {config.image}")
            for volume in config.volumes.values():
                if volume not in self.vols:
                    raise EngineError(f"volume {volume} would be made without labels")
            container = Container(
                config.name, config.name, dict(config.labels), "created", "Created", config.image, config.address,
                networks=frozenset({config.network}), network_mode=config.network,
            )  # fmt: skip
            self.boxes[config.name] = Box(container, config)
            self._tell("container", "create", config.name, config.labels)

    def start_container(self, name: str) -> None:
        self._call("start_container", name)
        with self._lock:
            box = self._box(name)
            assert box.config
            for network in box.container.networks:
                if network not in self.nets:
                    raise NotFound(f"no network {network}")
            for other in self.boxes.values():
                if other is box or other.config is None or other.container.state != "running":
                    continue
                if (other.config.network, other.config.address) == (box.config.network, box.config.address):
                    raise EngineError(f"address {box.config.address} is in use")
                for port in set(other.config.ports.values()) & set(box.config.ports.values()):
                    raise PortTaken(f"host port {port} is taken", port=port)
            for port in self.ports_in_use & set(box.config.ports.values()):
                raise PortTaken(f"host port {port} is taken", port=port)
            state, action = "running", "unpause" if box.container.state == "paused" else "start"
            if name in self.exits:
                box.code, log = self.exits[name]
                box.log += log.encode().splitlines()
                state = "exited"
            box.container = replace(box.container, state=state, ports=dict(box.config.ports))
            self._tell("container", action, name, box.container.labels)
            if name in self.exits:
                self._tell("container", "die", name, box.container.labels, exit_code=self.exits[name][0])

    def stop_container(self, name: str) -> None:
        self._call("stop_container", name)
        self._box(name).code = 0
        self.set_state(name, "exited")
        about = self._box(name).container.labels
        self._tell("container", "die", name, about, exit_code=0)
        self._tell("container", "stop", name, about)

    def pause_container(self, name: str) -> None:
        self._call("pause_container", name)
        self.set_state(name, "paused")
        self._tell("container", "pause", name, self._box(name).container.labels)

    def update_container(self, name: str, restart: str) -> None:
        self._call("update_container", name)
        with self._lock:
            box = self._box(name)
            assert box.config
            box.config = replace(box.config, restart=restart)

    def kill_container(self, name: str) -> None:
        self._call("kill_container", name)
        if name in self.boxes:
            about = self._box(name).container.labels
            if self._box(name).container.state == "running":
                self._tell("container", "kill", name, about, signal="SIGKILL")
                self._tell("container", "die", name, about, exit_code=137)
            self.set_state(name, "exited")

    def remove_container(self, name: str) -> None:
        self._call("remove_container", name)
        with self._lock:
            if gone := self.boxes.pop(name, None):
                self._tell("container", "destroy", name, gone.container.labels)

    # Within a container

    def put_files(self, container: str, files: Sequence[File]) -> None:
        self._call("put_files", container)
        with self._lock:
            self._box(container).files.update({f.path: f for f in files})

    def put_archive_file(self, container: str, path: str, content: Iterator[bytes], size: int) -> None:
        data = b"".join(content)
        assert len(data) == size
        self.put_files(container, [File(path, data)])

    def get_file(self, container: str, path: str) -> bytes:
        with self._lock:
            files = self._box(container).files
            if path not in files:
                raise NotFound(f"no file {path} in {container}")
            return files[path].content

    def stat_path(self, container: str, path: str) -> PathStat | None:
        with self._lock:
            box = self._box(container)
            path = str(PurePosixPath("/", path))
            path = box.links.get(path, path)
            if path in box.files:
                return PathStat(path, "file")
            return PathStat(path, "folder") if path in box.folders else None

    def read_archive(self, container: str, path: str) -> Iterator[bytes]:
        self._call("read_archive", f"{container}: {path}")
        box, buffer = self._box(container), io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for at in sorted({*box.files, *box.folders, *box.links}):
                if at == path or at.startswith(f"{path}/"):
                    name = str(PurePosixPath(path).name / PurePosixPath(at).relative_to(path))
                    content, mode, link = b"", 0o755, box.links.get(at, "")
                    kind = tarfile.SYMTYPE if link else tarfile.DIRTYPE if at in box.folders else tarfile.REGTYPE
                    if at in box.files:
                        content, mode = box.files[at].content, box.files[at].mode
                    elif at in box.entries:
                        mode = box.entries[at].mode
                    mtime = box.entries[at].mtime if at in box.entries else 0.0
                    tar.addfile(_entry(name, kind, len(content), mode, mtime, link), io.BytesIO(content))
        for start in range(0, len(buffer.getvalue()), 1000):  # pieces that end anywhere
            yield buffer.getvalue()[start : start + 1000]

    def write_archive(self, container: str, folder: str, content: Iterator[bytes]) -> None:
        self._call("write_archive", f"{container}: {folder}")
        data = b"".join(content)
        with self._lock, tarfile.open(fileobj=io.BytesIO(data)) as tar:
            box = self._box(container)
            if folder not in box.folders:
                raise NotFound(f"no folder {folder} in {container}")
            for entry in tar:
                path = str(PurePosixPath(folder, entry.name))
                box.entries[path] = entry
                if entry.isdir():
                    box.folders.add(path)
                elif entry.issym():
                    box.links[path] = entry.linkname
                else:
                    file = tar.extractfile(entry)
                    assert file
                    box.files[path] = File(path, file.read(), entry.mode)

    def exit_code(self, container: str) -> int | None:
        return self._box(container).code

    def execute(
        self,
        container: str,
        argv: Sequence[str],
        *,
        timeout: float | None = None,
        cancel: Cancel | None = None,
    ) -> ExecResult:
        self._call("execute", f"{container}: {' '.join(argv)}")
        if self._box(container).container.state != "running":
            raise NodeFailed(f"cannot run {argv[0]} in {container}", f"container {container} is not running")
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
        log = list(self._box(container).log)
        yield from log if tail is None else log[-tail:]

    def sample(self, container: str) -> Sample:
        """Half of one of two processors is used, whenever it is asked."""
        box = self._box(container)
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
                    news, at = self.told[at:], len(self.told)
                for event in news:
                    if _of(event.labels, cluster) and event.time >= (since or 0):
                        yield event

    # Images

    def images(self, recipes_only: bool = False) -> list[Image]:
        return [i for i in self.refs.values() if not recipes_only or labels.RECIPE in i.labels]

    def has_image(self, ref: str) -> bool:
        return ref in self.refs or (self.every_image and ref not in self.missing)

    def pull_image(
        self, ref: str, progress: Progress, timeout: float | None = None, cancel: Cancel | None = None
    ) -> None:
        self._call("pull_image", ref)
        if ref in self.registry:
            self.refs[ref] = Image(ref, (ref,), {}, 1, 0)
            return
        raise ImageError(f"cannot pull {ref}", "There is no registry here.")

    def build_image(
        self,
        directory: Path,
        ref: str,
        *,
        labels: Mapping[str, str],
        args: Mapping[str, str],
        context: Mapping[str, str],
        progress: Progress,
        cancel: Cancel | None = None,
    ) -> None:
        self._call("build_image", ref)
        self.builds.append((directory, ref, dict(args)))
        self.contexts.append(dict(context))
        progress("built")
        self.refs[ref] = Image(ref, (ref,), dict(labels), 1, 0)

    def import_image(self, archive: Iterable[bytes], ref: str) -> None:
        self._call("import_image", ref)
        self.refs[ref] = Image(ref, (ref,), {}, sum(map(len, archive)), 0)

    def load_images(self, archive: Iterable[bytes]) -> list[str]:
        """Of a tar with a ``manifest.json``, as `docker save` writes it, whatever else is in it."""
        self._call("load_images", "")
        with tarfile.open(fileobj=io.BytesIO(b"".join(archive))) as tar:
            if "manifest.json" not in tar.getnames():
                raise ImageError("the engine cannot load it", "no manifest")
            manifest = tar.extractfile("manifest.json")
            assert manifest
            refs = [ref for image in json.loads(manifest.read()) for ref in image["RepoTags"]]
        for ref in refs:
            self.refs[ref] = Image(ref, (ref,), {}, 1, 0)
        return refs

    def save_image(self, ref: str) -> Iterator[bytes]:
        yield ref.encode()

    def remove_image(self, ref: str) -> None:
        self._call("remove_image", ref)
        if any(b.container.image == ref for b in self.boxes.values()):
            raise Conflict(f"image {ref} is in use")
        self.refs.pop(ref, None)

    def close(self) -> None:
        pass

    def _box(self, name: str) -> Box:
        with self._lock:
            if name not in self.boxes:
                raise NotFound(f"no container {name}")
            return self.boxes[name]


def _entry(name: str, kind: bytes, size: int, mode: int, mtime: float, link: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.size, entry.mode, entry.mtime, entry.linkname = kind, size, mode, mtime, link
    return entry


def _of(found: Mapping[str, str], cluster: str | None) -> bool:
    return labels.CLUSTER in found and cluster in (None, found[labels.CLUSTER])


class FakeSwarm:
    """Makes the nodes of a fake engine answer as those of the bundled swarm profile (and of the toy profile) do.

    It remembers who joined, by the containers' names, so that a plan that forgets to form or to join does not pass.
    """

    TOKENS = ("SWMTKN-worker-secret", "SWMTKN-manager-secret")

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.joined: dict[str, set[str]] = defaultdict(set)  #: cluster -> names of its nodes
        for command, answer in {
            "swarm-init": self._form,
            "swarm-join": self._join,
            "swarm-members": self._members,
            "swarm-remove": self._forget,
            "docker swarm leave --force": self._leave,
        }.items():
            engine.answers[command] = answer

    def _who(self, container: str) -> tuple[str, str]:
        about = self.engine.boxes[container].container.labels
        return about[labels.CLUSTER], about[labels.NODE]

    def _form(self, container: str, _argv: Sequence[str]) -> ExecResult:
        cluster, node = self._who(container)
        self.joined[cluster].add(node)
        return ExecResult(0, "\n".join(self.TOKENS) + "\n", "")

    def _join(self, container: str, argv: Sequence[str]) -> ExecResult:
        cluster, node = self._who(container)
        if argv[1] not in self.TOKENS:
            return ExecResult(1, "", "invalid join token")
        self.joined[cluster].add(node)
        return OK

    def _leave(self, container: str, _argv: Sequence[str]) -> ExecResult:
        return OK  # a node that left stays in the list, as one that is down

    def _forget(self, container: str, argv: Sequence[str]) -> ExecResult:
        self.joined[self._who(container)[0]].discard(argv[1])
        return OK

    def _members(self, container: str, _argv: Sequence[str]) -> ExecResult:
        cluster, asked = self._who(container)
        if asked not in self.joined[cluster]:
            return ExecResult(1, "", "swarm-members: this node is in no swarm")
        running = {c.labels[labels.NODE] for c in self.engine.containers(cluster) if c.state == "running"}
        rows = [
            {"name": n, "ready": n in running, "voter": n.startswith("master"), "leader": n == "master-1"}
            for n in sorted(self.joined[cluster])
        ]
        return ExecResult(0, "\n".join(map(json.dumps, rows)), "")


class FakeEtcd:
    """Makes the nodes of a fake engine answer as those of the bundled etcd profile do.

    A node founds with whom its founding file says, is the member that its data say it is, or waits to be joined. So
    a plan does not pass that forgets to join a node, leaves a dead member in the list, or founds a second cluster.
    """

    FOUNDING = "/etc/etcd/bootstrap.env"

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.members: dict[str, dict[str, str]] = {}  #: cluster -> its members and their addresses
        self.leader: dict[str, str] = {}  #: cluster -> who leads it as long as it can; else the first that works
        self._data: dict[str, Volume] = {}  # volume -> as it was when a member's data were written on it
        self._lock = threading.Lock()
        for command, answer in {
            "etcd-ready": self._ready,
            "etcd-join": self._join,
            "etcd-remove": self._leave,
            "etcd-members": self._members,
        }.items():
            engine.answers[command] = partial(self._alone, answer)

    def _alone(
        self, answer: Callable[[str, Sequence[str]], ExecResult], container: str, argv: Sequence[str]
    ) -> ExecResult:
        with self._lock:  # nodes join at once
            return answer(container, argv)

    def _who(self, container: str) -> tuple[str, str, str]:
        """The cluster, the node, and its address."""
        found = self.engine.boxes[container].container
        return found.labels[labels.CLUSTER], found.labels[labels.NODE], found.address

    def _volume(self, container: str) -> str:
        config = self.engine.boxes[container].config
        assert config
        return config.volumes["/var/lib/etcd"]

    def _has_data(self, container: str) -> bool:
        volume = self._volume(container)
        # Made anew under the same name, a volume is another one, and empty.
        return volume in self._data and self._data[volume] is self.engine.vols[volume]

    def _write_data(self, container: str) -> None:
        volume = self._volume(container)
        self._data[volume] = self.engine.vols[volume]

    def _founders(self, container: str) -> dict[str, str]:
        file = self.engine.boxes[container].files.get(self.FOUNDING)
        line = file.content.decode().partition("ETCD_INITIAL_CLUSTER=")[2] if file else ""
        pairs = (entry.partition("=") for entry in line.strip().split(",") if entry)
        return {name: url.removeprefix("https://").removeprefix("http://").split(":")[0] for name, _, url in pairs}

    def _begin(self, container: str) -> str:
        """What a node does once it runs; why it cannot, where it cannot."""
        cluster = self._who(container)[0]
        founders = self._founders(container)
        if self._has_data(container):
            return ""  # one whom the others have removed waits to be joined anew
        if founders:
            if not any(self._data.get(volume.name) is volume for volume in self.engine.volumes(cluster)):
                self.members.pop(cluster, None)  # all that knew of it is gone
            if self.members.setdefault(cluster, founders) != founders:
                return "cluster ID mismatch"
            self._write_data(container)
        return ""

    def _healthy(self, cluster: str) -> list[str]:
        running = {c.labels[labels.NODE]: c.name for c in self.engine.containers(cluster) if c.state == "running"}
        for name in running.values():
            self._begin(name)
        return [n for n in self.members.get(cluster, ()) if n in running and self._has_data(running[n])]

    def _quorum(self, cluster: str) -> bool:
        return len(self._healthy(cluster)) >= len(self.members.get(cluster, ())) // 2 + 1

    def _ready(self, container: str, _argv: Sequence[str]) -> ExecResult:
        cluster, node, _address = self._who(container)
        why = self._begin(container)
        if why:
            return ExecResult(1, "", why)
        if node in self.members.get(cluster, ()) and self._has_data(container) and not self._quorum(cluster):
            return ExecResult(1, "", "no leader")
        return OK

    def _join(self, container: str, argv: Sequence[str]) -> ExecResult:
        if argv[1] == "--cancel":
            return OK
        cluster, node, address = self._who(container)
        healthy = self._healthy(cluster)
        if not self._quorum(cluster) or argv[1] not in {self.members[cluster][n] for n in healthy}:
            return ExecResult(1, "", f"etcd-join: {argv[1]} does not list its members")
        self.members[cluster][node] = address
        self._write_data(container)
        return OK

    def _leave(self, container: str, argv: Sequence[str]) -> ExecResult:
        cluster = self._who(container)[0]
        if not self._quorum(cluster):
            return ExecResult(1, "", f"etcd-remove: cannot remove the member at {argv[1]}")
        self.members[cluster] = {n: address for n, address in self.members[cluster].items() if address != argv[1]}
        return OK

    def _members(self, container: str, _argv: Sequence[str]) -> ExecResult:
        cluster, asked, _address = self._who(container)
        healthy = self._healthy(cluster)
        if asked not in healthy or not self._quorum(cluster):
            return ExecResult(1, "", "etcd-members: etcd does not answer, or has no leader")
        leader = self.leader.get(cluster, "")
        leader = leader if leader in healthy else healthy[0]
        rows = [{"name": n, "ready": n in healthy, "voter": True, "leader": n == leader} for n in self.members[cluster]]
        return ExecResult(0, "\n".join(map(json.dumps, rows)), "")
