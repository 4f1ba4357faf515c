"""A spec: a profile with every default, override and template resolved. Pure data, no behaviour but (de)coding.

A few values exist only while a cluster is being formed, such as a join token, or only where its user is: the folder of
the client's certificate, the address at which an endpoint is reached. A spec holds a *late value* ``@{NAME}`` in their
place, which is filled in when it is there; see :func:`fill`.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minicluster.engine.protocol import LOCALHOST

LATE = re.compile(r"@\{([a-z0-9_.-]+)\}")

#: A late value that the cluster's authority gives; see :meth:`minicluster.pki.Authority.secret`.
SECRET = re.compile(r"@\{secret\.([a-z0-9_]+)\.(hex|base64|uuid|ec)\}")


#: Late values of the client's certificate: PEM, once more in base64.
CLIENT_PARTS = ("ca_base64", "certificate_base64", "key_base64")

#: The engine's own policies: https://docs.docker.com/reference/cli/docker/container/run/#restart
RESTART_POLICIES = ("no", "on-failure", "unless-stopped", "always")


@dataclass(frozen=True)
class Image:
    """Where the nodes of a role get their image."""

    name: str  #: its name in the profile
    ref: str  #: what the engine knows it by
    source: str  #: "recipe" (built by us), "pull" (named by the profile) or "given" (by ``--image``)
    recipe: str = ""  #: folder of the recipe it is built by, if it is
    given: str = ""  #: what ``--image`` named, or the profile pulls, where a recipe fits that out
    platforms: tuple[str, ...] = ()  #: what the image was made for; empty where every engine's will do
    args: Mapping[str, str] = field(default_factory=dict)  #: further build arguments of the recipe
    context: Mapping[str, str] = field(default_factory=dict)  #: name in the build -> path of a file of this machine


@dataclass(frozen=True)
class File:
    """A file that minicluster writes into a node before it starts."""

    path: str
    content: str
    mode: int = 0o644
    founding: bool = False  #: only for a node that the cluster is first formed of


@dataclass(frozen=True)
class Certificate:
    """A certificate that the cluster's own authority issues: ``ca.pem``, ``cert.pem`` and ``key.pem`` in a folder."""

    directory: str
    common_name: str
    organization: str = ""
    names: tuple[str, ...] = ()  #: subject alternative names of type DNS
    addresses: tuple[str, ...] = ()  #: subject alternative names of type IP
    issuer: str = ""  #: name of the cluster's authority that issues it; "" is the first one


@dataclass(frozen=True)
class Endpoint:
    """A port of a node, published on 127.0.0.1 and on the spec's ``publish``."""

    name: str
    port: int  #: in the node
    host_port: int  #: the published one
    url: str  #: with the late values ``host`` and ``port``: where it is reached depends on who asks


@dataclass(frozen=True)
class Hook:
    """A command run in a node at a point of a cluster's life."""

    on: str  #: a role (any one of its nodes that is up), or "node": the node that the event is about
    run: tuple[str, ...]
    capture: tuple[str, ...] = ()  #: names given to the lines of its output, in order


@dataclass(frozen=True)
class Node:
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
    files: tuple[File, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    ready: tuple[str, ...] = ()  #: a command that ends with 0 once the node serves
    endpoints: tuple[Endpoint, ...] = ()
    joined: tuple[Hook, ...] = ()
    leaving: tuple[Hook, ...] = ()
    after: tuple[str, ...] = ()  #: roles whose nodes have to be ready before it is started
    shared: tuple[str, ...] = ()  #: paths on volumes that it has in common with others
    capabilities: tuple[str, ...] = ()  #: beside those that the engine grants

    @property
    def founds(self) -> bool:
        """It forms the cluster together with others from a list that it starts with, rather than being joined."""
        return any(file.founding for file in self.files)


@dataclass(frozen=True)
class Overrides:
    """What the user asked for on top of the profile; kept so that a later ``up`` starts from it."""

    size: Mapping[str, int] = field(default_factory=dict)
    set: Mapping[str, str] = field(default_factory=dict)
    image: Mapping[str, str] = field(default_factory=dict)
    port: Mapping[str, int] = field(default_factory=dict)
    restart: str = ""  #: one of :data:`RESTART_POLICIES`; "" where nothing was asked for
    networks: tuple[str, ...] | None = None  #: further networks that the nodes join; None where nothing was asked for


@dataclass(frozen=True)
class Spec:
    """Exactly what shall run."""

    cluster: str
    profile: str
    subnet: str
    gateway: str
    images: Mapping[str, Image]
    nodes: tuple[Node, ...]
    formed: tuple[Hook, ...] = ()
    load: tuple[Hook, ...] = ()
    reset: tuple[Hook, ...] = ()
    members: Hook | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    client: Certificate | None = None
    client_files: tuple[File, ...] = ()  #: beside the client's certificate; ``path`` is a name in its folder
    kernel: Mapping[str, str] = field(default_factory=dict)  #: kernel feature -> what to say where it is missing
    demo_image: str = ""
    example: str = ""
    summary: str = ""
    source: str = ""  #: the profile's folder, or its name where it is one of those that come with minicluster
    overrides: Overrides = field(default_factory=Overrides)
    publish: str = LOCALHOST  #: an address of the engine's machine: where endpoints are published beside 127.0.0.1

    @property
    def networks(self) -> tuple[str, ...]:
        """Networks of the engine that the nodes join beside the cluster's own."""
        return self.overrides.networks or ()

    @property
    def restart(self) -> str:
        """What the engine does when a node's container ends by itself, or when the engine starts."""
        return self.overrides.restart or "no"

    def node(self, name: str) -> Node | None:
        """The node of that name."""
        return next((node for node in self.nodes if node.name == name), None)

    def of_role(self, role: str) -> tuple[Node, ...]:
        """A role's nodes, in order."""
        return tuple(node for node in self.nodes if node.role == role)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that have nodes, in the profile's order."""
        return tuple(dict.fromkeys(node.role for node in self.nodes))

    def endpoints(self) -> list[tuple[Node, Endpoint]]:
        """Every published port with its node."""
        return [(node, endpoint) for node in self.nodes for endpoint in node.endpoints]


def container_name(cluster: str, node: str) -> str:
    """The name of a node's container on the engine."""
    return f"{cluster}-{node}"


def network_name(cluster: str) -> str:
    """The name of a cluster's network on the engine."""
    return f"{cluster}-net"


def volume_name(cluster: str, node: str, path: str) -> str:
    """The name of the volume that a node has mounted at a path."""
    return f"{cluster}-{node}-{path.strip('/').replace('/', '-')}"


def shared_volume_name(cluster: str, path: str) -> str:
    """The name of the volume that nodes of a cluster have in common at a path."""
    return f"{cluster}-shared-{path.strip('/').replace('/', '-')}"


def volumes(spec: Spec, node: Node) -> dict[str, str]:
    """Every volume that a node has mounted: path -> name."""
    own = {path: volume_name(spec.cluster, node.name, path) for path in node.volumes}
    return own | {path: shared_volume_name(spec.cluster, path) for path in node.shared}


def node_hash(spec: Spec, node: Node, authority: str) -> str:
    """Tells whether a container still is what its node says: everything that it was created with, hashed.

    Hooks, probes and what else runs *in* the container are not part of it: changing them needs no new container.
    Nor are the files that only a founding node has: they tell how it began, not what it is.
    """
    data = dataclasses.asdict(node)
    for later in ("joined", "leaving", "ready", "footprint", "after"):
        del data[later]
    data["endpoints"] = [[e.port, e.host_port] for e in node.endpoints]
    if node.endpoints and spec.publish != LOCALHOST:
        data["publish"] = spec.publish
    data["files"] = [{"path": f.path, "content": f.content, "mode": f.mode} for f in node.files if not f.founding]
    data |= {"image": spec.images[node.image].ref, "subnet": spec.subnet}
    if node.certificates or node.authority or any(SECRET.search(f.content) for f in node.files):
        data["issuer"] = authority
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def fill(argv: Sequence[str], values: Mapping[str, str | Sequence[str]]) -> list[str]:
    """Puts late values in. An argument that is nothing but a late value with several parts becomes as many arguments.

    >>> fill(["join", "@{token}", "@{names}"], {"token": "T", "names": ["a", "b"]})
    ['join', 'T', 'a', 'b']
    """

    def one(match: re.Match[str]) -> str:
        value = values[match[1]]
        return value if isinstance(value, str) else " ".join(value)

    result: list[str] = []
    for argument in argv:
        whole = LATE.fullmatch(argument)
        value = values[whole[1]] if whole else None
        if value is not None and not isinstance(value, str):
            result.extend(value)
        else:
            result.append(LATE.sub(one, argument))
    return result


def encode(spec: Spec) -> str:
    """A spec as the text of a label: JSON, compressed, since nodes of a role repeat each other.

    The files of a node have more text than zlib looks back, so each text is stored once.
    """
    data = to_json(spec)
    texts: dict[str, int] = {}
    for node in data["nodes"]:
        for file in node["files"]:
            file["content"] = texts.setdefault(file["content"], len(texts))
    return base64.b64encode(zlib.compress(json.dumps({**data, "texts": list(texts)}).encode(), 9)).decode()


def decode(text: str) -> Spec:
    """The opposite of :func:`encode`; unknown fields of a newer minicluster are passed over."""
    data = json.loads(zlib.decompress(base64.b64decode(text)))
    for node in data["nodes"]:
        for file in node.get("files", ()):
            file["content"] = data["texts"][file["content"]]
    return from_json(data)


def to_json(spec: Spec) -> dict[str, Any]:
    """A spec as plain JSON data."""
    return dataclasses.asdict(spec)


def _make(kind: type[Any], data: Mapping[str, Any], **converted: Any) -> Any:
    known = {f.name for f in dataclasses.fields(kind)}
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in known}
    return kind(**(plain | converted))


def from_json(data: Mapping[str, Any]) -> Spec:
    """The opposite of :func:`to_json`. By hand and short: pydantic would cost every command its import time."""

    def hooks(items: Sequence[Mapping[str, Any]]) -> tuple[Hook, ...]:
        return tuple(_make(Hook, item) for item in [_tuples(item) for item in items])

    def node(item: Mapping[str, Any]) -> Node:
        made: Node = _make(
            Node,
            item,
            files=tuple(_make(File, f) for f in item.get("files", ())),
            certificates=tuple(_make(Certificate, c) for c in item.get("certificates", ())),
            endpoints=tuple(_make(Endpoint, e) for e in item.get("endpoints", ())),
            joined=hooks(item.get("joined", ())),
            leaving=hooks(item.get("leaving", ())),
        )
        return made

    made: Spec = _make(
        Spec,
        data,
        images={name: _make(Image, image) for name, image in data["images"].items()},
        nodes=tuple(node(item) for item in data["nodes"]),
        formed=hooks(data.get("formed", ())),
        load=hooks(data.get("load", ())),
        reset=hooks(data.get("reset", ())),
        members=_make(Hook, data["members"]) if data.get("members") else None,
        client=_make(Certificate, data["client"]) if data.get("client") else None,
        client_files=tuple(_make(File, f) for f in data.get("client_files", ())),
        overrides=_make(Overrides, data.get("overrides", {})),
    )
    return made


def _tuples(item: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in item.items()}
