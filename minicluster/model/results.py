"""What minicluster returns: the shapes behind ``-o json``. Their field names are stable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from minicluster.model.membership import Quorum


@dataclass(frozen=True)
class NodeStatus:
    """One node, as ``status`` shows it."""

    name: str
    role: str
    address: str
    phase: str  #: missing, created, running, paused, restarting, exited, dead or unknown (its host does not answer)
    ready: bool  #: its own probe passes, and where the cluster has members it is a ready one
    leader: bool | None  #: None where the profile does not define it
    probe: str  #: the probe's answer: "ok", or why it is not ready
    memory: int | None  #: bytes in use; None where it does not run
    container: str  #: name of its container
    detail: str = ""  #: what the cluster's own software says of it, for people
    voter: bool | None = None  #: has a vote in the quorum of its role; None where it is no member
    host: str = ""  #: that it runs on, in a cluster on several hosts


@dataclass(frozen=True)
class FaultInfo:
    """A fault in force, as ``fault list`` shows it."""

    id: str  #: its number in the cluster
    kind: str  #: partition, delay, reorder, loss, rate, dns, hang, cpu or memory
    text: str  #: as a command has it
    nodes: tuple[str, ...]
    since: float  #: seconds since 1970
    until: float | None = None  #: when it ends by itself
    lost: tuple[str, ...] = ()  #: nodes that restarted since then: it is no longer in force in them


@dataclass(frozen=True)
class ClusterStatus:
    """A whole cluster, as ``status`` shows it."""

    cluster: str
    profile: str
    #: ready, degraded, stopped, bootstrapping (a change was interrupted), broken (nothing works), missing (not started)
    phase: str
    quorum: Quorum | None  #: of several the one that is the nearest to being lost
    nodes: tuple[NodeStatus, ...]
    notes: tuple[str, ...] = ()  #: what a user should know, such as a missing kernel feature
    quorums: Mapping[str, Quorum] = field(default_factory=dict)  #: role -> that of its voters
    faults: tuple[FaultInfo, ...] = ()  #: in force


@dataclass(frozen=True)
class EndpointInfo:
    """A published port, and where it is reached from here."""

    name: str
    node: str
    url: str
    node_port: int = 0  #: in the node, whichever port the URL has

    @property
    def host(self) -> str:
        """The name or address in the URL."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port in the URL."""
        return urlsplit(self.url).port or 0


@dataclass(frozen=True)
class ClusterInfo:
    """How to reach a cluster."""

    cluster: str
    profile: str
    summary: str
    subnet: str
    endpoints: tuple[EndpointInfo, ...]
    env: Mapping[str, str]
    demo_image: str | None
    address_mode: str = "localhost"  #: by which the endpoints are reached from here: localhost, bridge or gateway
    example: str = ""  #: a first command for the stock client
    notes: tuple[str, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)  #: part of the node images -> version and source


@dataclass(frozen=True)
class ClusterSummary:
    """A line of ``ls``."""

    cluster: str
    profile: str
    phase: str  #: running (every node), partial, stopped or leftover (a record, network or volume without a node)
    nodes: int  #: that should be
    running: int
    subnet: str
    lease: str = ""  #: for people: how long it is wanted; "" where it stays until it is removed
    note: str = ""  #: what a user should know, such as that another version of minicluster created it
    project: str = ""  #: path of the project file that it was made from


@dataclass(frozen=True)
class Change:
    """What ``up`` or ``down`` did."""

    cluster: str
    changed: bool
    steps: int
    seconds: float
    summary: Mapping[str, int] = field(default_factory=dict)  #: action -> how many


@dataclass(frozen=True)
class Collected:
    """A cluster whose lease is over, as ``gc`` reports it."""

    cluster: str
    profile: str
    why: str
    removed: bool
    error: str = ""  #: why it could not be removed


@dataclass(frozen=True)
class Copied:
    """What ``cp`` copied, to or from one node."""

    node: str
    source: str
    destination: str
    files: int  #: links counted, folders not
    bytes: int
    left_out: tuple[str, ...] = ()  #: a phrase each: devices, sockets, and links that lead out of what was copied


@dataclass(frozen=True)
class Loaded:
    """What ``load`` did with an image or an archive, by nodes."""

    source: str  #: as it was asked for
    images: tuple[str, ...]  #: the names of what is in it
    sent: tuple[str, ...] = ()
    tagged: tuple[str, ...] = ()  #: had the image under another name
    present: tuple[str, ...] = ()  #: had it already


@dataclass(frozen=True)
class NodeUsage:
    """What a node uses; the numbers are None where it does not run. Sizes are bytes."""

    name: str
    role: str
    phase: str  #: missing, created, running, paused, restarting, exited or dead
    cpu: float | None = None  #: percent of one processor, so it may be above 100; None also in a node's first second
    memory: int | None = None  #: the page cache that could be dropped at once not counted
    memory_limit: int | None = None  #: the machine's memory where the node has no limit of its own
    pids: int | None = None
    received: int | None = None  #: over the network, since the node started
    sent: int | None = None
    read: int | None = None  #: from disks, since the node started
    written: int | None = None


@dataclass(frozen=True)
class ClusterUsage:
    """What the nodes of a cluster use, as ``top`` shows it."""

    cluster: str
    time: float  #: seconds since 1970
    nodes: tuple[NodeUsage, ...]


@dataclass(frozen=True)
class ClusterEvent:
    """Something that happened to a cluster, as ``events`` reports it."""

    time: float  #: seconds since 1970; by the engine's clock where the engine reports it
    cluster: str
    node: str  #: "" for what is the whole cluster's
    role: str  #: the node's
    event: str
    detail: Mapping[str, str | int] = field(default_factory=dict)
