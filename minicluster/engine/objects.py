"""What a container engine has, and what it is asked to create, as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from minicluster.model.spec import LOCALHOST, MountSpec


@dataclass(frozen=True)
class EngineInfo:
    """An engine's own description, and how it was found."""

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
    memory: int  #: bytes that the engine's machine has
    data_root: str
    local: bool  #: the engine runs on this machine and shares its kernel
    remaps_users: bool = False  #: its containers' root is another user of the machine (``userns-remap``)
    runtime: str = "runc"  #: which runtime containers get
    forwards: bool = True  #: the machine forwards what containers send to other networks
    file_types: bool = True  #: its file system tells the types of files in folders, which overlay needs
    authorization: tuple[str, ...] = ()  #: plugins that may refuse requests
    warnings: tuple[str, ...] = ()  #: what it warns of itself
    id: str = ""  #: by which it is the same one, however it is reached; "" where it has none


@dataclass(frozen=True)
class Container:
    """A container as the engine lists it."""

    id: str
    name: str
    labels: Mapping[str, str]
    state: str  #: created, running, paused, restarting, removing, exited or dead
    status: str  #: the engine's own phrase, such as "Up 3 minutes"
    image: str
    address: str = ""  #: on the network that it was created with, whether it runs or not
    ports: Mapping[str, int] = field(default_factory=dict)  #: such as 80/tcp -> host port, of those published now
    networks: frozenset[str] = frozenset()  #: names of all networks that it is connected to
    network_mode: str = ""  #: name of the network that it was created with, or "host" or "none"
    host: str = ""  #: of an engine that is several: the one that has it

    @property
    def alive(self) -> bool:
        """Whether it has memory and its connections to networks: it runs, is paused, or is about to run again."""
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
    host: str = ""  #: of an engine that is several: the one that has it; "" where each has a copy


@dataclass(frozen=True)
class Image:
    """An image as the engine lists it."""

    id: str
    tags: tuple[str, ...]
    labels: Mapping[str, str]
    size: int  #: bytes
    created: int  #: seconds since 1970


@dataclass(frozen=True)
class ImageBuild:
    """What an image is built from."""

    directory: Path  #: with the Dockerfile; or a file: a tar with all of the build
    ref: str  #: the image's name and tag
    labels: Mapping[str, str]
    args: Mapping[str, str]  #: build arguments
    dockerfile: str = "Dockerfile"  #: its name in the build


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
    """What is at a path in a container."""

    path: str  #: where the path is a link: its target
    kind: str  #: file, folder or other (a device, a socket, a link without a target)


@dataclass(frozen=True)
class Sample:
    """What a container uses, and has used since it started. Sizes are in bytes."""

    cpu: int  #: nanoseconds of processor time that it has used
    system: int  #: nanoseconds of all processors of the engine's machine together, idle time included
    cpus: int
    memory: int  #: without the page cache that can be dropped at once
    memory_limit: int  #: the machine's memory where it has no limit
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
    labels: Mapping[str, str]  #: the container's (of "connect" too), or the volume's; a network's own have none
    detail: Mapping[str, str | int] = field(default_factory=dict)  #: ``exit_code`` of die, ``signal`` of kill


@dataclass(frozen=True)
class ExecResult:
    """What a command in a container returned."""

    exit_code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class ContainerConfig:
    """Everything that a node's container is created with."""

    name: str
    image: str
    hostname: str  #: also its alias on its network
    network: str
    address: str  #: "" where the engine chooses one, as it does on its default network
    labels: Mapping[str, str]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)  #: path in the container -> name of the volume
    tmpfs: Mapping[str, str] = field(default_factory=dict)  #: path in the container -> mount options
    mounts: tuple[MountSpec, ...] = ()
    ports: Mapping[str, int] = field(default_factory=dict)  #: such as 80/tcp -> port on 127.0.0.1
    bind_address: str = LOCALHOST  #: a further address of the engine's machine that the ports are published on
    local_ports: tuple[str, ...] = ()  #: those of ``ports`` that are published on 127.0.0.1 only
    memory: int = 0  #: limit in bytes; 0 is none
    cpus: float = 0  #: limit in processors; 0 is none
    nested: bool = False  #: runs a container engine of its own: gets the privileges which that needs
    privileged: bool = False  #: nested, with all capabilities and devices that the engine can give
    capabilities: tuple[str, ...] = ()  #: Linux capabilities in addition to those that the engine grants
    stop_timeout: int = 10  #: seconds between the stop signal and the kill
    restart: str = "no"  #: the restart policy: when it ends by itself, and when the engine starts


@dataclass(frozen=True)
class NetworkConfig:
    """What a network is created with."""

    name: str
    subnet: str
    gateway: str
    dynamic_range: str  #: containers without a given address get one in it
    labels: Mapping[str, str]
    #: It is one of the engine's swarm, not a bridge; its traffic between engines is encrypted where the labels have
    #: ``ENCRYPTED``.
    overlay: bool = False


@dataclass(frozen=True)
class Sandbox:
    """What of a running container the engine's machine sees."""

    id: str  #: of the container
    pid: int  #: its first process, as the engine's machine counts
    macs: tuple[str, ...]  #: addresses of its interfaces on the engine's networks
    memory: int = 0  #: the limit in bytes that the engine gave it; 0 is none
    cpus: float = 0  #: the limit in processors; 0 is none


@dataclass(frozen=True)
class Job:
    """A container that works for us, on the engine's default network, and that the engine removes when it ends."""

    name: str
    image: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    volumes: Mapping[str, str]  #: path in the container -> name of the volume
    files: tuple[File, ...]  #: are in it before it starts
    labels: Mapping[str, str]
    #: It works on other containers: it has the engine's processes and control groups, what it needs to enter name
    #: spaces and to change networks.
    on_containers: bool = False
    on_disks: bool = False  #: It works on loop devices: it has the engine's /dev, and no network.
    beside: str = ""  #: Of one that works on containers: the container whose network it has; "": it has none.
    stdin: bool = False  #: It has a standard input, which ends with the first connection to it.


class Attached(Protocol):
    """A connection to a container's standard input and output."""

    def write(self, data: bytes) -> None:
        """Writes to its input; no error where it has ended, which its output says."""

    def lines(self) -> Iterator[bytes]:
        """Its output from now on, line by line without line ends, until it ends."""

    def close(self) -> None:
        """Ends the connection, and with it the input."""


@dataclass(frozen=True)
class SwarmNode:
    """An engine of a Docker Swarm, as its managers list it."""

    id: str
    name: str  #: the machine's own
    address: str
    manager: bool
    ready: bool  #: it answers its managers
    leader: bool = False


@dataclass(frozen=True)
class Swarm:
    """The Docker Swarm that an engine is part of."""

    id: str = ""  #: of this engine in it; "" where it is part of none
    address: str = ""  #: at which the other engines reach this one
    cluster: str = ""  #: of the swarm itself; only its managers know it
    labels: Mapping[str, str] = field(default_factory=dict)  #: of the swarm itself; only its managers know them
    manager: bool = False  #: this engine is one that works
    nodes: tuple[SwarmNode, ...] = ()  #: only managers know them
    error: str = ""  #: why this engine's part of it does not work, in its own words
    managers: tuple[str, ...] = ()  #: of the managers that this engine knows, also one that was removed, the ids
