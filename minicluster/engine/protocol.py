"""What minicluster asks of a container engine: plain data and one small Protocol.

Everything outside :mod:`minicluster.engine` depends on this module alone, so a test's fake engine and a second
real one are the same amount of work. Every call raises the errors of :mod:`minicluster.errors` and no others:
``NoEngine`` when the engine does not answer, ``NotFound``, ``Conflict``, ``PortTaken``, ``SubnetTaken`` or
``EngineError`` with the engine's own words when it refuses.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

Progress = Callable[[str], None]  #: receives one line about a long call's progress

LOCALHOST = "127.0.0.1"  #: what every port is published on


class Cancel:
    """Asks calls under way to end. Safe from several threads; what is set stays set."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: dict[object, Callable[[], None]] = {}

    def set(self) -> None:
        """Asks everybody to end."""
        with self._lock:
            self._event.set()
            callbacks = list(self._callbacks.values())
        for callback in callbacks:
            callback()

    def is_set(self) -> bool:
        """Whether it was asked."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleeps, unless and until asked to end; True when asked."""
        return self._event.wait(seconds)

    @contextmanager
    def calls(self, callback: Callable[[], None]) -> Iterator[None]:
        """Within the block, asking calls this: it is to unblock whatever the block waits for."""
        key = object()
        with self._lock:
            self._callbacks[key] = callback
            asked = self._event.is_set()
        try:
            if asked:
                callback()
            yield
        finally:
            with self._lock:
                del self._callbacks[key]


@dataclass(frozen=True)
class EngineInfo:
    """What an engine says of itself, and how it was found."""

    endpoint: str  #: URL of its API, such as ``unix:///var/run/docker.sock``
    source: str  #: how it was found: "DOCKER_HOST", "docker context NAME", "default socket", "private engine"
    version: str
    api_version: str
    platform: str  #: such as "linux/amd64"
    operating_system: str
    kernel: str
    cgroup_version: int  #: 1 or 2
    storage_driver: str
    rootless: bool
    cpus: int
    memory: int  #: bytes the engine's machine has in all
    data_root: str
    local: bool  #: the engine runs on this machine and shares its kernel


@dataclass(frozen=True)
class Container:
    """A container as the engine lists it."""

    id: str
    name: str
    labels: Mapping[str, str]
    state: str  #: created, running, paused, restarting, removing, exited or dead
    status: str  #: the engine's own phrase, such as "Up 3 minutes"
    image: str
    address: str = ""  #: on the network that it was created with
    ports: Mapping[int, int] = field(default_factory=dict)  #: container port -> host port, of those published
    networks: frozenset[str] = frozenset()  #: names of all that it is connected to
    network_mode: str = ""  #: name of the network that it was created with, or "host" or "none"

    @property
    def alive(self) -> bool:
        """Whether it has its memory and its end of a network: it runs, is paused, or is about to run again."""
        return self.state in ("running", "paused", "restarting")


@dataclass(frozen=True)
class Network:
    """A network as the engine lists it."""

    id: str
    name: str
    labels: Mapping[str, str]
    subnets: tuple[str, ...]


@dataclass(frozen=True)
class Volume:
    """A named volume as the engine lists it."""

    name: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Image:
    """An image as the engine lists it."""

    id: str
    tags: tuple[str, ...]
    labels: Mapping[str, str]
    size: int  #: bytes
    created: int  #: seconds since 1970


@dataclass(frozen=True)
class File:
    """A file to put into a container."""

    path: str
    content: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True)
class PathStat:
    """What is at a path of a container."""

    path: str  #: with a link at its end followed
    kind: str  #: file, folder or other (a device, a socket, a link that leads nowhere)


@dataclass(frozen=True)
class Sample:
    """What a container uses, and has used since it started. Sizes are bytes."""

    cpu: int  #: nanoseconds of processor time that it has used
    system: int  #: nanoseconds that all processors of the engine's machine have been there for, idle ones as well
    cpus: int
    memory: int  #: the page cache that could be dropped at once not counted
    memory_limit: int  #: the machine's memory where it has no limit of its own
    pids: int
    received: int
    sent: int
    read: int  #: from block devices
    written: int


@dataclass(frozen=True)
class EngineEvent:
    """Something that happened to a container, network or volume of a cluster."""

    time: float  #: seconds since 1970, by the engine's clock
    kind: str  #: container, network or volume
    action: str  #: create, start, die, kill, stop, pause, unpause, restart, destroy, oom, connect or disconnect
    name: str
    labels: Mapping[str, str]  #: the container's (also of one that is connected to a network), or the volume's
    detail: Mapping[str, str | int] = field(default_factory=dict)  #: ``exit_code`` of die, ``signal`` of kill


@dataclass(frozen=True)
class ExecResult:
    """What a command in a container answered."""

    exit_code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class ContainerConfig:
    """Everything that a node's container is created with."""

    name: str
    image: str
    hostname: str  #: other containers on its network reach it by this name, too
    network: str
    address: str
    labels: Mapping[str, str]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)  #: path in the container -> name of the volume
    tmpfs: Mapping[str, str] = field(default_factory=dict)  #: path in the container -> mount options
    ports: Mapping[int, int] = field(default_factory=dict)  #: container port -> port on 127.0.0.1
    bind_address: str = LOCALHOST  #: a further address of the engine's machine that the ports are published on
    memory: int = 0  #: limit in bytes; 0 is none
    nested: bool = False  #: runs a container engine of its own: gets the named privileges that this takes
    capabilities: tuple[str, ...] = ()  #: Linux capabilities beside those that the engine grants
    stop_timeout: int = 10  #: seconds between the stop signal and the kill
    restart: str = "no"  #: what the engine does when it ends by itself, and when the engine starts


class Engine(Protocol):
    """One container engine. Safe to call from several threads at once."""

    endpoint: str  #: URL of its API; known without asking it
    reference: str  #: text by which this engine is found again, whatever the environment says by then

    @property
    def local(self) -> bool:
        """It runs on this machine and shares its kernel; cheaper to ask than :attr:`info`."""

    @property
    def shares_localhost(self) -> bool:
        """What it publishes on 127.0.0.1 is reached at 127.0.0.1 here: it is reached by a Unix socket, and the one that
        listens there is not in another process name space, as it is where a socket is mounted into a container.
        """

    @property
    def info(self) -> EngineInfo:
        """What it says of itself; asked once, when first needed."""

    def containers(self, cluster: str | None = None) -> list[Container]:
        """All containers of a cluster, or of every cluster, in whatever state."""

    def container(self, name: str) -> Container | None:
        """The container of that name, ours or not; None where there is none."""

    def own_container(self) -> Container | None:
        """The container of this engine whose network this very process has; None where it runs in none."""

    def attached(self, network: str) -> list[Container]:
        """All containers that are connected to a network, ours or not, in whatever state."""

    def network(self, name: str) -> Network | None:
        """The network of that name, ours or not; None where there is none."""

    def networks(self, cluster: str | None = None) -> list[Network]: ...
    def volumes(self, cluster: str | None = None) -> list[Volume]: ...

    def subnets(self) -> list[str]:
        """Every subnet that a new network must not overlap: other networks' and, of a local engine, host routes'."""

    def create_network(
        self, name: str, subnet: str, gateway: str, dynamic_range: str, labels: Mapping[str, str]
    ) -> None:
        """Makes a bridge network. Containers that are given no address of their own get one in ``guests``."""

    def remove_network(self, name: str) -> None: ...

    def connect_network(self, network: str, container: str, aliases: Sequence[str] = ()) -> None:
        """Connects a container, running or not, to a further network, where it gets these names beside its own.

        No error where it is connected already.
        """

    def disconnect_network(self, network: str, container: str) -> None:
        """The opposite; no error where it is not connected, or either is gone."""

    def create_volume(self, name: str, labels: Mapping[str, str]) -> None: ...
    def remove_volume(self, name: str) -> None: ...
    def create_container(self, config: ContainerConfig) -> None: ...

    def start_container(self, name: str) -> None:
        """Starts a container; lets one go on that is paused."""

    def stop_container(self, name: str) -> None:
        """Asks a container to end and waits, as long as it was created to be waited for; no error where it is ended."""

    def pause_container(self, name: str) -> None: ...

    def update_container(self, name: str, restart: str) -> None:
        """Changes the restart policy of a container, running or not."""

    def kill_container(self, name: str) -> None:
        """Ends a container at once; no error where it does not run, or is gone."""

    def remove_container(self, name: str) -> None:
        """Kills it where it runs and removes it; no error where it is gone already."""

    def put_files(self, container: str, files: Sequence[File]) -> None:
        """Writes files into a container, running or not; folders are made as needed."""

    def put_archive_file(self, container: str, path: str, content: Iterator[bytes], size: int) -> None:
        """Writes one large file into a container as it is read from an iterator of ``size`` bytes in all."""

    def get_file(self, container: str, path: str) -> bytes: ...

    def stat_path(self, container: str, path: str) -> PathStat | None:
        """What is at a path of a container, running or not; None where nothing is."""

    def read_archive(self, container: str, path: str) -> Iterator[bytes]:
        """A file or folder of a container, running or not, as a tar whose names begin with the path's last part."""

    def write_archive(self, container: str, folder: str, content: Iterator[bytes]) -> None:
        """Unpacks a tar into a folder of a container, running or not. A folder and a file never replace each other."""

    def exit_code(self, container: str) -> int | None:
        """The exit status of a container that has ended; None while it runs."""

    def exec(
        self,
        container: str,
        argv: Sequence[str],
        *,
        timeout: float | None = None,
        cancel: Cancel | None = None,
    ) -> ExecResult:
        """Runs a command in a container and returns its answer.

        Raises ``TimeoutError`` after ``timeout`` seconds, ``Interrupted`` when ``cancel`` is set meanwhile, and
        ``NodeFailed`` when the container is not running. The command itself may go on after the first two.
        """

    def exec_argv(
        self, container: str, argv: Sequence[str], *, tty: bool, stdin: bool
    ) -> tuple[list[str], dict[str, str]]:
        """The stock client's command (and its environment) that runs a command in a container interactively."""

    def logs(self, container: str, *, tail: int | None = None, follow: bool = False) -> Iterator[bytes]:
        """A container's output, line by line, stdout and stderr as they came."""

    def sample(self, container: str) -> Sample:
        """What a container uses now; all nothing where it does not run."""

    def events(
        self, cluster: str, *, since: float | None = None, cancel: Cancel | None = None
    ) -> Iterator[EngineEvent]:
        """What happens to a cluster's containers, networks and volumes, as it happens, until ``cancel`` is set.

        With ``since`` (seconds since 1970) first what the engine still knows to have happened from then on.
        """

    def images(self, recipes_only: bool = False) -> list[Image]: ...
    def has_image(self, ref: str) -> bool: ...
    def pull_image(
        self, ref: str, progress: Progress, timeout: float | None = None, cancel: Cancel | None = None
    ) -> None: ...

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
        """Builds an image by the Dockerfile of a folder; ``context``: further files of the build, name -> path here."""

    def import_image(self, archive: Iterable[bytes], ref: str) -> None:
        """Makes an image of one layer from a tar of a root file system."""

    def load_images(self, archive: Iterable[bytes]) -> list[str]:
        """Takes in the images of a tar that ``docker save`` wrote, compressed or not; returns their references or IDs.

        Raises ``ImageError`` with the engine's own words where it holds none.
        """

    def save_image(self, ref: str) -> Iterator[bytes]:
        """An image as ``docker save`` writes it."""

    def remove_image(self, ref: str) -> None: ...
    def close(self) -> None: ...
