"""A spec: a profile with every default, override and template resolved. Pure data.

Where a value exists only later, a text has a marker in its place; see :mod:`minicluster.model.deferred`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from minicluster.model.naming import disk_volume_name, shared_volume_name, volume_name

LOCALHOST = "127.0.0.1"  #: where endpoints are always published
#: The ``bind_address`` of a cluster on several hosts whose endpoints without a login are published for other machines.
EVERYWHERE = "0.0.0.0"

#: The engine's own policies: https://docs.docker.com/reference/cli/docker/container/run/#restart
RESTART_POLICIES = ("no", "on-failure", "unless-stopped", "always")


@dataclass(frozen=True)
class PartSpec:
    """A part of an image that is built: a program, and which version of it."""

    name: str
    version: str
    source: str = (
        ""  #: what the user asks for: a source's name, a file's path or an address; "" is the first that has it
    )
    digest: str = ""  #: changes with what it is made of

    @property
    def ref(self) -> str:
        """The image that holds it."""
        return f"minicluster/part-{self.name}:{self.version.replace('+', '-')}-{self.digest}"


@dataclass(frozen=True)
class ImageSpec:
    """Where the nodes of a role get their image."""

    name: str  #: its name in the profile
    ref: str  #: what the engine knows it by
    source: str  #: "build" (built here), "image" (named by the profile) or "override" (named by ``--image``)
    build: str = ""  #: folder with the Dockerfile that it is built from, if it is
    overlay_on: str = ""  #: the image that an overlay's build starts from
    platforms: tuple[str, ...] = ()  #: what the image was made for; empty where every engine's will do
    args: Mapping[str, str] = field(default_factory=dict)  #: further build arguments
    parts: tuple[PartSpec, ...] = ()  #: what it is put together of


@dataclass(frozen=True)
class ProgramSpec:
    """A client of the system's own, out of a node image."""

    name: str
    path: str  #: in the image
    image: str = ""  #: name of the image in the profile
    on: str = ""  #: the role in whose first node it runs; "" is this machine
    version: str = ""  #: the cluster's, which a client of this machine has to fit
    version_argv: tuple[str, ...] = ()  #: arguments with which the client says its version; () where any fits
    minors: int = 0  #: how many minor versions away from the cluster's it may be


@dataclass(frozen=True)
class ApplySpec:
    """How files that a user applies get into the cluster, by one of its programs."""

    files: tuple[str, ...]  #: patterns of names
    program: str
    run: tuple[str, ...]
    whole: bool = False  #: a folder with such a file is given to the program as one
    stdin: bool = False  #: the file is its standard input, too


@dataclass(frozen=True)
class FileSpec:
    """A file that minicluster writes into a node before it starts."""

    path: str
    content: str
    mode: int = 0o644
    bootstrap: bool = False  #: only for a node that the cluster is bootstrapped from
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True)
class CertificateSpec:
    """A certificate that the cluster's own authority issues: ``ca.pem``, ``cert.pem`` and ``key.pem`` in a folder."""

    directory: str
    common_name: str
    organization: str = ""
    names: tuple[str, ...] = ()  #: subject alternative names of type DNS
    addresses: tuple[str, ...] = ()  #: subject alternative names of type IP
    issuer: str = ""  #: name of the cluster's authority that issues it; "" is the first one


@dataclass(frozen=True)
class EndpointSpec:
    """A port of a node, published on 127.0.0.1 and on the spec's ``bind_address``."""

    name: str  #: the profile's, or for a port that the user asks for ROLE:PORT[/PROTOCOL]
    port: int  #: in the node
    host_port: int  #: the published one
    url: str  #: with markers for ``host`` and ``port``: where it is reached depends on the client; "": not listed
    protocol: str = "tcp"  #: or "udp"
    anyone: str = ""  #: what every client may do there without a login, a phrase; "" where none may


@dataclass(frozen=True)
class HookSpec:
    """A command run in a node at a point of a cluster's life."""

    on: str  #: a role (any one of its nodes that is up), or "node": the node that the event is about
    run: tuple[str, ...]
    capture: tuple[str, ...] = ()  #: names given to the lines of its output, in order


@dataclass(frozen=True)
class MountSpec:
    """A file or folder of the engine's machine that nodes have mounted. Nothing in it is ever changed or removed."""

    on: str  #: a role, or a node's name
    host: str  #: its absolute path on the engine's machine
    path: str  #: where it is in the node
    read_only: bool = False

    def __str__(self) -> str:
        return f"{self.on}:{self.host}:{self.path}{':ro' if self.read_only else ''}"


@dataclass(frozen=True)
class RegistrySpec:
    """A registry of images that nodes are told of."""

    host: str  #: HOST or HOST:PORT, as names of images begin with it; "docker.io" where they begin with no host
    mirrors: tuple[str, ...] = ()  #: URLs that are asked before it
    ca: str = ""  #: certificates of authorities that it is trusted by, PEM
    insecure: bool = False  #: nodes do not check its certificate, and try plain HTTP as well
    credentials: bool = True  #: nodes get what docker's configuration on this machine has for it


@dataclass(frozen=True)
class NodeSpec:
    """One container of the cluster."""

    name: str
    role: str
    index: int  #: counts from 1 within its role
    address: str
    image: str  #: key of the spec's images
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    volumes: tuple[str, ...] = ()
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    memory: int = 0  #: limit in bytes; 0 is none
    footprint: int = 0  #: bytes that it is expected to use when idle
    nested: bool = False
    authority: bool = False  #: keeps the cluster's certificate authority
    stop_timeout: int = 10
    files: tuple[FileSpec, ...] = ()
    certificates: tuple[CertificateSpec, ...] = ()
    ready: tuple[str, ...] = ()  #: a command that ends with 0 once the node serves
    endpoints: tuple[EndpointSpec, ...] = ()
    join: tuple[HookSpec, ...] = ()
    leave: tuple[HookSpec, ...] = ()
    depends_on: tuple[str, ...] = ()  #: roles whose nodes have to be ready before it is started
    shared: tuple[str, ...] = ()  #: paths on volumes that it has in common with others
    capabilities: tuple[str, ...] = ()  #: in addition to those that the engine grants
    mounts: tuple[MountSpec, ...] = ()
    local_registry: tuple[FileSpec, ...] = ()  #: with markers: how it is told of the engine's local registry, if any
    registry_hook: tuple[str, ...] = ()  #: a command in it, while it runs, once those files were written
    privileged: bool = False  #: nested, with all capabilities and devices that the engine can give
    cpus: float = 0  #: limit in processors; 0 is none
    host: str = ""  #: of a cluster on several hosts: the one that it runs on
    disks: Mapping[str, int] = field(default_factory=dict)  #: path of a volume on a file system of its own -> bytes

    @property
    def bootstraps(self) -> bool:
        """The cluster is bootstrapped from it and others, by a list that it starts with; it does not join."""
        return any(file.bootstrap for file in self.files)


def disk_settings(disk: Mapping[str, str]) -> dict[str, str]:
    """What ``--disk`` is short for: role -> size as values of a profile."""
    return {f"roles.{role}.disk": size for role, size in disk.items()}


@dataclass(frozen=True)
class Overrides:
    """What the user asked for on top of the profile; kept so that a later ``up`` starts from it."""

    size: Mapping[str, int] = field(default_factory=dict)
    set: Mapping[str, str] = field(default_factory=dict)
    image: Mapping[str, str] = field(default_factory=dict)
    port: Mapping[str, int] = field(default_factory=dict)  #: endpoint or ROLE:PORT[/PROTOCOL] -> host port; 0: none
    restart: str = ""  #: one of :data:`RESTART_POLICIES`; "" where nothing was asked for
    networks: tuple[str, ...] | None = None  #: further networks that the nodes join; None where nothing was asked for
    mounts: tuple[MountSpec, ...] | None = None  #: None where nothing was asked for
    bind_address: str = ""  #: where to publish, in addition to 127.0.0.1; "" where nothing was asked for
    registries: tuple[RegistrySpec, ...] | None = None  #: None where nothing was asked for
    ca: str | None = None  #: certificates that nodes trust as well, PEM; None where nothing was asked for
    hosts: tuple[str, ...] = ()  #: names of the hosts that nodes are on; () for the one engine
    place: Mapping[str, str] = field(default_factory=dict)  #: role or node -> hosts, separated by commas
    encrypt: bool = False  #: traffic between hosts is encrypted


@dataclass(frozen=True)
class Spec:
    """Exactly what is to run."""

    cluster: str
    profile: str
    subnet: str
    gateway: str
    images: Mapping[str, ImageSpec]
    nodes: tuple[NodeSpec, ...]
    init: tuple[HookSpec, ...] = ()
    load: tuple[HookSpec, ...] = ()
    held: tuple[HookSpec, ...] = ()  #: print the images that a node has
    tag: tuple[HookSpec, ...] = ()  #: give an image of a node a further name
    reset: tuple[HookSpec, ...] = ()
    members: HookSpec | None = None
    services: HookSpec | None = None  #: prints what users have published by the system's own means
    write: HookSpec | None = None  #: writes something by the system's own means
    workload: HookSpec | None = None  #: prints what runs in the cluster
    env: Mapping[str, str] = field(default_factory=dict)
    client: CertificateSpec | None = None
    client_files: tuple[FileSpec, ...] = ()  #: next to the client's certificate; ``path`` is a name in its folder
    programs: Mapping[str, ProgramSpec] = field(default_factory=dict)  #: the system's own clients, by name
    apply: tuple[ApplySpec, ...] = ()  #: of several the first whose pattern matches a file
    kernel: Mapping[str, str] = field(default_factory=dict)  #: kernel feature -> what to say where it is missing
    demo_image: str = ""
    example: str = ""
    summary: str = ""
    source: str = ""  #: the profile's folder, or its name where it is one of those that come with minicluster
    overrides: Overrides = field(default_factory=Overrides)
    bind_address: str = LOCALHOST  #: of the engine's machine: endpoints are published there and on 127.0.0.1
    hosts: Mapping[str, str] = field(default_factory=dict)  #: host -> its address; empty for a cluster on one engine

    @property
    def networks(self) -> tuple[str, ...]:
        """Networks of the engine that the nodes join in addition to the cluster's own."""
        return self.overrides.networks or ()

    @property
    def restart(self) -> str:
        """What the engine does when a node's container ends by itself, or when the engine starts."""
        return self.overrides.restart or "no"

    def node(self, name: str) -> NodeSpec | None:
        """The node of that name."""
        return next((node for node in self.nodes if node.name == name), None)

    def of_role(self, role: str) -> tuple[NodeSpec, ...]:
        """A role's nodes, in order."""
        return tuple(node for node in self.nodes if node.role == role)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that have nodes, in the profile's order."""
        return tuple(dict.fromkeys(node.role for node in self.nodes))

    def endpoints(self) -> list[tuple[NodeSpec, EndpointSpec]]:
        """Every published port with its node."""
        return [(node, endpoint) for node in self.nodes for endpoint in node.endpoints]

    def published_on(self, node: NodeSpec, endpoint: EndpointSpec) -> str:
        """The address that an endpoint is published on, in addition to 127.0.0.1.

        On several hosts that is the node's host's own, and those without a login are not published there unless the
        user asks for it.
        """
        if not node.host:
            return self.bind_address
        return LOCALHOST if endpoint.anyone and self.bind_address != EVERYWHERE else self.hosts[node.host]


def volumes(spec: Spec, node: NodeSpec) -> dict[str, str]:
    """Every volume that a node has mounted: path -> name."""
    own = {path: volume_name(spec.cluster, node.name, path) for path in node.volumes}
    return own | {path: shared_volume_name(spec.cluster, path) for path in node.shared}


def disks(spec: Spec, node: NodeSpec) -> dict[str, str]:
    """The volumes that have the files of a node's file systems: path -> name."""
    return {path: disk_volume_name(volume_name(spec.cluster, node.name, path)) for path in node.disks}
