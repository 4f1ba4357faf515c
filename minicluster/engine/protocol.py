"""What minicluster asks of a container engine: one Protocol, and the plain data that it gives and takes.

Everything outside :mod:`minicluster.engine` depends on this module only, so that a fake engine can take a real one's
place in tests; ``tests/contract`` holds both to what is said here. Every call raises errors of
:mod:`minicluster.errors` only: ``NoEngine`` when the engine does not answer; when it refuses, ``NotFound``,
``Conflict``, ``PortTaken``, ``SubnetTaken``, or ``EngineError`` with the engine's own words. Iterators raise them at
their first item. Unless said otherwise, a call about something that does not exist raises ``NotFound``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from minicluster.engine.objects import (
    Attached as Attached,
    Container as Container,
    ContainerConfig as ContainerConfig,
    EngineEvent as EngineEvent,
    EngineInfo as EngineInfo,
    ExecResult as ExecResult,
    File as File,
    Image as Image,
    ImageBuild as ImageBuild,
    Job as Job,
    Network as Network,
    NetworkConfig as NetworkConfig,
    PathStat as PathStat,
    Sample as Sample,
    Sandbox as Sandbox,
    Swarm as Swarm,
    SwarmNode as SwarmNode,
    Volume as Volume,
)
from minicluster.host.cancel import Cancel as Cancel

Progress = Callable[[str], None]  #: receives one line about a long call's progress


class Engine(Protocol):
    """One container engine, or several that act as one. Thread-safe."""

    endpoint: str  #: URL of its API; known without a call
    reference: str  #: text by which :func:`minicluster.engine.discover.reach` finds it in any environment
    hosts: Mapping[str, Engine]  #: of an engine that is several: those that answer, by name; else empty
    gone: Mapping[str, str]  #: of an engine that is several: those that do not answer, and why

    @property
    def local(self) -> bool:
        """It runs on this machine and shares its kernel; faster than :attr:`info`."""

    @property
    def shares_localhost(self) -> bool:
        """Ports that it publishes on 127.0.0.1 are reached at 127.0.0.1 here.

        True if it has a Unix socket, and the process that listens there is in our process namespace, which it is not
        where we run in a container into which the socket is mounted.
        """

    @property
    def info(self) -> EngineInfo:
        """The engine's own description; asked once, when first needed."""

    def containers(self, cluster: str | None = None) -> list[Container]:
        """All containers of a cluster, or of every cluster, in any state."""

    def container(self, name: str) -> Container | None:
        """The container with that name, ours or not; None where there is none."""

    def own_container(self) -> Container | None:
        """The container of this engine whose network this process uses; None where it runs in none."""

    def attached(self, network: str) -> list[Container]:
        """All containers that are connected to a network, ours or not, in any state."""

    def network(self, name: str) -> Network | None:
        """The network with that name, ours or not; None where there is none."""

    def networks(self, cluster: str | None = None) -> list[Network]:
        """All networks of a cluster, or of every cluster."""

    def network_names(self) -> list[str]:
        """The names of all networks, ours or not."""

    def volumes(self, cluster: str | None = None) -> list[Volume]:
        """All volumes of a cluster, or of every cluster."""

    def volume(self, name: str) -> Volume | None:
        """The volume with that name, ours or not; None where there is none."""

    def subnets(self) -> list[str]:
        """Every subnet that a new network must not overlap: networks, and routes of this machine and the engine's."""

    def machine_file(self, path: str) -> str:
        """A file of the engine's machine's /proc or /sys; "" where no image of ours is there to ask with."""

    def clock(self) -> float:
        """The time of the engine's machine, in seconds since 1970."""

    def swarm(self) -> Swarm:
        """The Docker Swarm that the engine is part of."""

    def join_swarm(
        self, address: str, manager: Engine | None, labels: Mapping[str, str], *, as_manager: bool = True
    ) -> None:
        """Joins the swarm of a manager, or makes one with these labels where there is none to join.

        ``address``: at which the other engines reach this one; "" where the engine finds it itself.
        """

    def join_token(self, *, manager: bool) -> str:
        """What an engine needs to join the swarm that this one manages."""

    def leave_swarm(self) -> None:
        """Leaves the swarm, even where that ends it; no error where it is part of none."""

    def set_swarm_role(self, id: str, *, manager: bool) -> None:
        """Makes an engine a manager of the swarm that this one manages, or a worker, and waits until it is one."""

    def forget_swarm_node(self, id: str) -> None:
        """Removes an engine that does not answer from the swarm that this one manages."""

    def create_network(self, config: NetworkConfig) -> None:
        """Creates a network.

        Raises ``Conflict`` where one of that name exists, and ``SubnetTaken`` where another overlaps with its subnet.
        """

    def remove_network(self, name: str) -> None:
        """Removes a network; no error where it does not exist.

        Raises ``EngineError`` while a container that is alive is connected; others only lose their connection.
        """

    def connect_network(self, network: str, container: str, aliases: Sequence[str] = ()) -> None:
        """Connects a container, running or not, to another network, with these aliases in addition to its name.

        No error where it is connected already.
        """

    def disconnect_network(self, network: str, container: str) -> None:
        """Disconnects a container; no error where it is not connected, or either does not exist."""

    def create_volume(self, name: str, labels: Mapping[str, str], device: str = "") -> None:
        """Creates a volume; no error where one with this name and exactly these labels exists.

        With ``device``, the path of a block device of the engine's machine with the file system ext4, it is that one.

        Raises ``Conflict`` where one with other labels does: labels never change after creation.
        """

    def volume_size(self, name: str) -> int | None:
        """The bytes that a volume takes; None where it does not exist. The engine may take a second to measure."""

    def remove_volume(self, name: str) -> None:
        """Removes a volume; no error where it does not exist. Raises ``Conflict`` while a container uses it."""

    def sees(self, path: str) -> bool:
        """Whether there is something at this path of the engine's machine, which a container can have mounted."""

    def create_container(self, config: ContainerConfig) -> None:
        """Creates a container, which is then to be started.

        Raises ``Conflict`` where one of that name exists, and ``NotFound`` where its image does not.
        """

    def create_job(self, job: Job) -> None:
        """Creates a job's container, which is then to be started.

        Raises ``Conflict`` where one of that name exists, and ``NotFound`` where its image does not.
        """

    def start_container(self, name: str) -> None:
        """Starts a container, or resumes it where it is paused; no error where it runs.

        Raises ``PortTaken`` where a port to publish is in use, ``EngineError`` where its address is, and ``NotFound``
        where its network does not exist; it can be started again later.
        """

    def stop_container(self, name: str) -> None:
        """Sends the stop signal and waits, then kills after the container's stop timeout; no error where it ended."""

    def pause_container(self, name: str) -> None:
        """Freezes a container; no error where it is paused. Raises ``EngineError`` where it does not run."""

    def update_container(self, name: str, restart: str) -> None:
        """Changes the restart policy of a container, running or not."""

    def kill_container(self, name: str, signal: str = "KILL") -> None:
        """Sends a signal; no error where the container does not run, or does not exist."""

    def end_job(self, name: str, signal: str = "TERM") -> None:
        """Sends a signal to a job's container and waits until it has ended, after which the engine removes it.

        One that does not run is removed, and one that does not end within 10 seconds. No error where it does not exist.
        """

    def attach(self, container: str) -> Attached:
        """Connects to a container's input and output, also to those of one that is only created."""

    def remove_container(self, name: str) -> None:
        """Removes a container with its anonymous volumes, running or not; no error where it does not exist."""

    def put_files(self, container: str, files: Sequence[File]) -> None:
        """Writes files into a container, running or not; missing folders are created."""

    def put_archive_file(self, container: str, path: str, content: Iterator[bytes], size: int) -> None:
        """Writes one large file into a container while it is read from an iterator of ``size`` bytes in all."""

    def get_file(self, container: str, path: str) -> bytes:
        """The content of a file of a container, running or not; follows links. Raises ``NotFound`` for a folder."""

    def stat_path(self, container: str, path: str) -> PathStat | None:
        """What is at a path of a container, running or not; None where nothing is. Follows a link at its end."""

    def read_archive(self, container: str, path: str) -> Iterator[bytes]:
        """A file or folder of a container, running or not, as a tar whose names begin with the path's last part."""

    def write_archive(self, container: str, folder: str, content: Iterator[bytes]) -> None:
        """Unpacks a tar into a folder of a container, running or not.

        Raises ``NotFound`` where the folder does not exist, and ``EngineError`` where it is no folder, or where a file
        would replace a folder, or the reverse.
        """

    def sandbox(self, container: str) -> Sandbox | None:
        """A running or paused container as the engine's machine sees it; None where it does not run or exist."""

    def exit_code(self, container: str) -> int | None:
        """The exit status of a container that ended; None where it is alive or was never started."""

    def killed_at(self, container: str) -> int | None:
        """The memory limit in bytes at which the kernel killed a container that ended; 0 without one, else None."""

    def exec(
        self, container: str, argv: Sequence[str], *, timeout: float | None = None, cancel: Cancel | None = None
    ) -> ExecResult:
        """Runs a command in a container.

        Raises ``TimeoutError`` after ``timeout`` seconds, ``Interrupted`` when ``cancel`` is set, and ``NodeFailed``
        when the container does not run or is paused. After the first two the command itself may continue.
        """

    def exec_argv(
        self, container: str, argv: Sequence[str], *, tty: bool, stdin: bool
    ) -> tuple[list[str], dict[str, str]]:
        """The docker client's command, and variables for it, that run a command in a container interactively."""

    def logs(self, container: str, *, tail: int | None = None, follow: bool = False) -> Iterator[bytes]:
        """A container's output, line by line without line ends; with ``follow`` also what it writes until it ends."""

    def sample(self, container: str) -> Sample:
        """What a container uses now; all 0 where it does not run."""

    def events(
        self, cluster: str, *, since: float | None = None, cancel: Cancel | None = None
    ) -> Iterator[EngineEvent]:
        """The events of a cluster's objects, first those since ``since`` (seconds since 1970), until ``cancel``."""

    def images(self) -> list[Image]:
        """All images."""

    def has_image(self, ref: str) -> bool:
        """Whether the engine has an image of this reference or ID."""

    def image(self, ref: str) -> Image | None:
        """The image that a reference or an ID names now; None where there is none."""

    def pull_image(
        self, ref: str, progress: Progress, timeout: float | None = None, cancel: Cancel | None = None
    ) -> None:
        """Pulls an image. ``timeout``: seconds for the first answer. Raises ``ImageError``, or ``Interrupted``."""

    def build_image(self, build: ImageBuild, progress: Progress, cancel: Cancel | None = None) -> None:
        """Builds an image. Raises ``ImageError`` where that fails, and ``Interrupted`` when ``cancel`` is set."""

    def import_image(self, archive: Iterable[bytes], ref: str, labels: Mapping[str, str] | None = None) -> None:
        """Creates an image of one layer from a tar of a root file system."""

    def load_images(self, archive: Iterable[bytes]) -> list[str]:
        """Loads the images of a tar that ``docker save`` wrote, compressed or not; returns their references or IDs.

        Raises ``ImageError`` with the engine's own words where it contains none.
        """

    def save_image(self, ref: str) -> Iterator[bytes]:
        """An image as ``docker save`` writes it."""

    def remove_image(self, ref: str) -> None:
        """Removes an image. Raises ``NotFound`` where it does not exist, and ``Conflict`` while a container uses it."""

    def close(self) -> None:
        """Closes its connections; later calls open new ones."""
