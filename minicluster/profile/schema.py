"""What a profile may say. Published as JSON Schema, so every field's docstring is what an editor shows."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, WithJsonSchema

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*$", max_length=20)]
Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
AbsolutePath = Annotated[str, Field(pattern=r"^/[^\s]*$")]
Argv = Annotated[list[str], Field(min_length=1)]


def _shell_word(value: Any) -> Any:
    # YAML reads true and 3 as no strings; in an environment variable the author means the words.
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (int, float)) else value


Text = Annotated[str, BeforeValidator(_shell_word), WithJsonSchema({"type": ["string", "number", "boolean"]})]


class Part(BaseModel):
    """The base of everything in a profile: no unknown keys, no silent change of type, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Image(Part):
    """Where an image comes from: built from a Dockerfile in the profile's folder, or pulled from a registry."""

    build: str | None = None
    """Folder with a Dockerfile; PROFILE:FOLDER is another profile's. The build argument BASE names the base image."""
    image: str | None = None
    """Reference of a ready image."""
    overlay: str | None = None
    """Folder with a Dockerfile that adds to the image pulled or named by --image; build arguments: IMAGE and BASE."""
    platforms: list[Annotated[str, Field(pattern=r"^[a-z0-9]+/[a-z0-9]+$")]] = []
    """What the image to pull was made for, such as linux/amd64; on another engine the cluster is refused at once."""
    args: dict[Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")], Text] = {}
    """Build arguments, besides BASE; templates that see the settings."""
    additional_contexts: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")], str] = {}
    """Files of this machine that the build sees as well: name -> path, a template; an empty path is no file."""


class Endpoint(Part):
    """A port of every node of the role, published on 127.0.0.1 (and elsewhere where --address-mode asks for it)."""

    port: int = Field(ge=1, le=65535)
    """The port in the node."""
    url: str = "tcp://{host}:{port}"
    """The URL that users get: a template, in which {host} and {port} then are where the user reaches the port."""


class File(Part):
    """A file written into the node before it starts."""

    source: str
    """Path relative to the profile's folder, or PROFILE:PATH in another's. One that ends in .j2 is a template."""
    mode: Annotated[str, Field(pattern=r"^0[0-7]{3}$")] = "0644"
    """Permissions, octal."""
    bootstrap: bool = False
    """Only for nodes that the cluster is first formed of, such as a list of the first voters; never written again."""


class Certificate(Part):
    """Files ca.pem, cert.pem and key.pem, issued by the cluster's own authority for server and client use."""

    directory: AbsolutePath | None = None
    """Folder in the node (the client's folder on the host is chosen by minicluster)."""
    common_name: str = "{{ node.name }}"
    """Subject's common name."""
    organization: str = ""
    """Subject's organization."""
    names: list[str] = []
    """Further DNS names that it is valid for; a node's own name, localhost and its addresses always are."""
    addresses: list[str] = []
    """Further IP addresses that it is valid for."""
    issuer: Annotated[str, Field(pattern=r"^([a-z][a-z0-9_]*)?$", max_length=32)] = ""
    """Issued by another authority of the cluster, of that name; who trusts that one trusts nobody of the first."""


class Probe(Part):
    """A check that a node is ready."""

    exec: Argv
    """Command run in the node; it is ready when this ends with 0. It may wait for up to a second itself."""


class Hook(Part):
    """A command run in a node at a point of the cluster's life."""

    on: Name
    """A role (a node of it that is up) or "node": the very node that joins, leaves or is loaded; in reset every one."""
    run: Argv
    """The command and its arguments."""
    capture: list[Identifier] = []
    """Names for the lines of its output; later hooks see them as captured.NAME."""


class RoleHooks(Part):
    """Hooks about one node of the role."""

    join: list[Hook] = []
    """After the node got ready and is no member yet; not for a node that formed the cluster, alone or with others."""
    leave: list[Hook] = []
    """Before the node is removed from a cluster that lives on. What another node does about a voter must succeed."""


class Role(Part):
    """A kind of node."""

    summary: str = ""
    """One line for people."""
    count: int = Field(ge=0, strict=True)
    """How many nodes by default."""
    min: int = Field(default=0, ge=0)
    """The smallest count."""
    max: int = Field(default=100, ge=1, le=200)
    """The largest count."""
    allowed: list[int] = []
    """The counts that make sense, where not every one between min and max does."""
    requires: dict[Name, Annotated[int, Field(ge=1)]] = {}
    """Has nodes only where these roles have so many at least, unless --size asks for some."""
    immutable: bool = False
    """The count cannot change once the cluster is formed."""
    depends_on: list[Name] = []
    """Roles above whose nodes have to be ready before one of this role is started."""
    image: Name
    """Which of the profile's images its nodes run."""
    nested: bool = False
    """The node runs a container engine of its own: it gets the named capabilities and options which that takes."""
    capabilities: list[Annotated[str, Field(pattern=r"^[A-Z][A-Z_]*$")]] = []
    """Linux capabilities beside those that the engine grants by default, such as NET_ADMIN."""
    authority: bool = False
    """Its nodes keep the cluster's certificate authority, so that later nodes get certificates of the same one."""
    entrypoint: list[str] = []
    """Replaces the image's entry point."""
    command: list[str] = []
    """Replaces the image's command."""
    env: dict[str, Text] = {}
    """Environment variables."""
    volumes: list[AbsolutePath] = []
    """Paths kept on a volume of the node's own; they survive the container."""
    shared: list[AbsolutePath] = []
    """Paths kept on a volume that all nodes of the cluster have in common which name that path."""
    tmpfs: dict[AbsolutePath, str] = {}
    """Paths kept in memory, with mount options."""
    memory: ByteSize | None = None
    """Limit, such as 512MiB; none by default."""
    footprint: ByteSize = ByteSize(0)
    """What an idle node uses, such as 120MiB: shown and checked before a start."""
    stop_timeout: int = Field(default=10, ge=0, le=600)
    """Seconds between the stop signal and the kill."""
    files: dict[AbsolutePath, File] = {}
    """Path in the node -> file."""
    certificates: list[Certificate] = []
    """Certificates written into the node."""
    ready: Probe | None = None
    """When the node is ready."""
    endpoints: dict[Name, Endpoint] = {}
    """Ports that are published for users."""
    hooks: RoleHooks = RoleHooks()
    """Commands run when one of its nodes joins or leaves."""


class Hooks(Part):
    """Hooks about the whole cluster."""

    init: list[Hook] = []
    """Whenever nodes have to join, the first time included: must be safe to run again. Sees the names in "joining"."""
    load: list[Hook] = []
    """For each node of the role (or "node": every one) that holds images; sees an image's tar there as "archive"."""
    reset: list[Hook] = []
    """By "minicluster reset", in this order: remove what users put into the cluster. Must be safe to run again."""


class Client(Part):
    """The certificate for the user's own client, kept on the host in a folder that only the user can read."""

    certificate: Certificate
    files: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9.-]*$")], str] = {}
    """Files beside it: name -> a template of the profile's, which sees what "env" does, and the certificate itself."""


class Profile(Part):
    """The description of one kind of cluster."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$", max_length=30)]
    """What it is called; the default name of its clusters."""
    summary: str
    """One line for people."""
    settings: dict[Identifier, str | int | float | bool] = {}
    """Values for the templates, changed by --set NAME=VALUE."""
    immutable: list[Identifier] = []
    """Settings that cannot change once the cluster is formed."""
    patterns: dict[Identifier, str] = {}
    """What values of settings have to look like: regular expressions for the whole text."""
    images: dict[Name, Image]
    """The images that roles name."""
    roles: dict[Name, Role] = Field(min_length=1)
    """The kinds of node, in the order in which they are listed and started."""
    hooks: Hooks = Hooks()
    """Commands that form the cluster out of its nodes."""
    members: Hook | None = None
    """Prints the members by the cluster's own software, one JSON object a line: name, ready, voter, leader, detail."""
    client: Client | None = None
    """The user's own client certificate."""
    env: dict[str, Text] = {}
    """Variables that make the system's own stock client work, printed by "minicluster env"."""
    kernel: dict[Identifier, str] = {}
    """Kernel features that the cluster can do without, and what "info" says does not work then."""
    example: str = ""
    """A first command for the stock client, shown once a cluster is up."""
    demo_image: str | None = None
    """An image that every node has, to try the cluster with."""
