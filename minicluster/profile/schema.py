"""The keys of a profile. Published as JSON Schema, so every field's docstring is what an editor shows."""

from __future__ import annotations

import posixpath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, WithJsonSchema

from minicluster.model.naming import NAME, NAME_RULE, value_text

FORMAT = 2  #: the version of the profile format that this minicluster reads

#: The error for a text that does not match one of these patterns.
PATTERNS = {
    r"^[a-z][a-z0-9]*$": "must be lower-case letters and digits, starting with a letter",
    r"^[a-z][a-z0-9-]*$": "must be lower-case letters, digits and -, starting with a letter",
    r"^[a-z][a-z0-9_]*$": "must be lower-case letters, digits and _, starting with a letter",
    r"^([a-z][a-z0-9_]*)?$": "must be lower-case letters, digits and _, starting with a letter",
    f"^{NAME.pattern}$": f"must be {NAME_RULE}",
    r"^[a-z][a-z0-9.-]*$": "must be a file name: lower-case letters, digits, . and -, starting with a letter",
    r"^[A-Z][A-Z_]*$": "must be the name of a Linux capability without CAP_, such as NET_ADMIN",
    r"^[A-Z][A-Z0-9_]*$": "must be upper-case letters, digits and _, starting with a letter",
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": "must be letters, digits, ., _ and -",
    r"^[a-z0-9]+/[a-z0-9]+$": "must be OS/ARCHITECTURE, such as linux/amd64",
    r"^/[^\s]*$": "must be an absolute path without blanks",
    r"^([0-9a-f]{64}|[0-9a-f]{128})$": "must be a SHA-256 or SHA-512: 64 or 128 of the characters 0-9 and a-f",
    r"^0[0-7]{3}$": 'must be four octal digits in quotes, such as "0644"',
    r"^[0-9]{1,5}:[0-9]{1,5}$": 'must be "UID:GID" as numbers, such as "999:999"',
}


def _path(value: str) -> str:
    if posixpath.normpath(value) != value or value == "/":
        raise ValueError("must be an absolute path without '.', '..', // and / at its end")
    return value


def _mount_path(value: str) -> str:
    if ":" in value:  # an engine takes SOURCE:PATH:OPTIONS
        raise ValueError("must be an absolute path without a colon")
    return _path(value)


def _shell_word(value: Any) -> Any:
    # YAML reads true and 3 as no strings; in an environment variable the author means the words.
    return value_text(value) if isinstance(value, (bool, int, float)) else value


def _setting(value: Any) -> Any:
    # One message in place of one for each of the types.
    if not isinstance(value, (str, int, float, bool, list, dict)):
        raise ValueError("must be a text, a number, true, false, a list or a mapping")
    return value


def _words(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*$", max_length=20)]
PartName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$", max_length=30)]
Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
AbsolutePath = Annotated[str, Field(pattern=r"^/[^\s]*$"), AfterValidator(_path)]
MountPath = Annotated[str, Field(pattern=r"^/[^\s]*$"), AfterValidator(_mount_path)]
Argv = Annotated[list[str], Field(min_length=1)]
Text = Annotated[str, BeforeValidator(_shell_word), WithJsonSchema({"type": ["string", "number", "boolean"]})]
Setting = Annotated[str | int | float | bool | list[Any] | dict[str, Any], BeforeValidator(_setting)]
Folders = Annotated[
    list[str],
    BeforeValidator(_words),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]


class Part(BaseModel):
    """The base of everything in a profile: no unknown keys, no silent change of type, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Pattern(Part):
    """What the values of a setting must match."""

    pattern: str
    """A regular expression for the whole value."""
    message: str
    """The error for any other value, without the setting's name: must be a positive integer."""


class Image(Part):
    """Where an image comes from: built from a Dockerfile in the profile's folder, or pulled from a registry."""

    build: str | None = None
    """Folder with a Dockerfile; PROFILE:FOLDER is one of another profile. The build argument BASE is the base image."""
    image: str | None = None
    """Reference of a ready image, pulled when the engine does not have it."""
    overlay: str | None = None
    """Folder with a Dockerfile that adds to the image that is pulled or given by --image; arguments: IMAGE, BASE."""
    platforms: list[Annotated[str, Field(pattern=r"^[a-z0-9]+/[a-z0-9]+$")]] = []
    """Platforms of the image to pull, such as linux/amd64; an engine of another platform is refused at once."""
    args: dict[Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")], Text] = {}
    """Further build arguments; templates."""
    parts: list[PartName] = []
    """Parts that the image is put together of: the build argument PART_NAME is the image with each one's files."""


class PartChoice(Part):
    """Which version of a part the images get, and from where."""

    version: str = ""
    """All of it or its beginning; the part's default, or what belongs to the main part's version, where empty."""
    source: str = ""
    """One of the part's sources, or the path or https address of an archive or a program; the first that has it."""


class Endpoint(Part):
    """A port of every node of the role, published on 127.0.0.1 (and elsewhere with --address-mode)."""

    port: int = Field(ge=1, le=65535)
    """The port in the node."""
    url: str = "tcp://{{ host }}:{{ port }}"
    """The URL for users; a template, in which host and port are where the user reaches the port. Where it is empty,
    the endpoint is listed only if `services` says that something is there."""
    anyone: str = ""
    """What every client may do there without a login, such as "read all keys"; a template, empty where none may."""


class File(Part):
    """A file that is written into the node before it starts."""

    source: str
    """Path in the profile's folder, or PROFILE:PATH in another's. .j2 is a template."""
    mode: Annotated[str, Field(pattern=r"^0[0-7]{3}$")] = "0644"
    """Permissions, octal."""
    owner: Annotated[str, Field(pattern=r"^[0-9]{1,5}:[0-9]{1,5}$")] = "0:0"
    """User and group, as numbers: UID:GID."""
    optional: bool = False
    """No file is written where the template gives no text."""
    bootstrap: bool = False
    """Only for the nodes from which the cluster is bootstrapped, such as a list of the first voters."""


class Registries(Part):
    """How a node of the role is told of the registries that it pulls images from."""

    files: dict[AbsolutePath, File] = Field(min_length=1)
    """Path in the node, a template without blanks -> file; for each registry, which templates see as registry."""
    hook: list[str] = []
    """Command run in a node that is running once files about the local registry were written; safe to repeat."""
    mirrors_of: list[str] = []
    """The registries that it can have mirrors of, such as docker.io; every registry by default."""


class Certificate(Part):
    """Files ca.pem, cert.pem and key.pem, issued by the cluster's own authority for server and client use."""

    directory: AbsolutePath | None = None
    """Folder in the node (the client's folder on the host is chosen by minicluster)."""
    common_name: str = "{{ node.name }}"
    """Common name of the subject, at most 64 bytes."""
    organization: str = ""
    """Organization of the subject."""
    names: list[str] = []
    """Further DNS names, in ASCII; a node's own name, localhost and its addresses are always included."""
    addresses: list[str] = []
    """Further IP addresses that it is valid for."""
    issuer: Annotated[str, Field(pattern=r"^([a-z][a-z0-9_]*)?$", max_length=32)] = ""
    """Name of another authority of the cluster that issues it; the two do not trust each other's certificates."""


class Probe(Part):
    """A check that a node is ready."""

    exec: Argv
    """Command run in the node; the node is ready when it exits with 0. It may itself wait for up to a second."""


class Hook(Part):
    """A command that runs in a node at a point of the cluster's life."""

    on: Name
    """A role (one of its nodes that runs), or "node": the node that the hook is about; in reset every node."""
    run: Argv
    """The command and its arguments; templates."""
    capture: list[Identifier] = []
    """Only for init: names for the lines of its output, which later hooks see as captured.NAME."""


class RoleHooks(Part):
    """Hooks about one node of the role."""

    join: list[Hook] = []
    """When the node is ready and not a member yet. Not for the initial member, nor for nodes with a bootstrap file."""
    leave: list[Hook] = []
    """Before the node is removed from a cluster that stays. On another node about a voter, it must succeed."""


class NodeValues(Part):
    """What one node of a role has in addition to the role's."""

    env: dict[str, Text] = {}
    """Environment variables; templates. They replace the role's of the same name."""


class Role(Part):
    """A kind of node."""

    summary: str = ""
    """One line for people."""
    count: int = Field(ge=0, strict=True)
    """Number of nodes by default."""
    min: int = Field(default=0, ge=0)
    """The smallest number of nodes."""
    max: int = Field(default=100, ge=1, le=200)
    """The largest number of nodes."""
    allowed: list[int] = []
    """The numbers of nodes that are allowed, where not all between min and max are."""
    requires: dict[Name, Annotated[int, Field(ge=1)]] = {}
    """The role has nodes only if these roles have at least so many, unless --size asks for some."""
    immutable: bool = False
    """The number of nodes cannot change once the cluster is bootstrapped."""
    depends_on: list[Name] = []
    """Roles listed before this one whose nodes must be ready before a node of this role starts."""
    image: Name
    """Which of the profile's images its nodes run."""
    nested: bool = False
    """The node runs a container engine of its own: it gets the capabilities and options, by name, that this takes."""
    privileged: Text = "true"
    """A nested node gets all capabilities and devices that the engine can give, as a real one has; a template."""
    capabilities: list[Annotated[str, Field(pattern=r"^[A-Z][A-Z_]*$")]] = []
    """Linux capabilities in addition to the engine's defaults, such as NET_ADMIN."""
    authority: bool = False
    """Its nodes keep the cluster's certificate authority, so that later nodes get certificates of the same one."""
    entrypoint: list[str] = []
    """Replaces the image's entry point; templates."""
    command: list[str] = []
    """Replaces the image's command; templates."""
    env: dict[str, Text] = {}
    """Environment variables; templates."""
    nodes: dict[Annotated[int, Field(ge=1, le=200)], NodeValues] = {}
    """Number of a node -> what it has in addition: nodes.2 of role agent is about agent-2."""
    volumes: list[MountPath] = []
    """Paths on a volume of the node's own, which survives the container."""
    shared: list[MountPath] = []
    """Paths on one volume, shared by all nodes that list the path."""
    shared_required: bool = True
    """Nodes on several hosts cannot share a volume. true: such a cluster is refused; false: they have no such paths."""
    tmpfs: dict[MountPath, str] = {}
    """Paths kept in memory, with mount options."""
    data: MountPath | None = None
    """Which of its volumes has the node's data, that a disk is for; the first one by default."""
    disk: Annotated[ByteSize, Field(ge=64 << 20, le=16 << 40)] | None = None
    """Size of a file system of its own for the node's data, such as 1GiB; by default they are on the engine's."""
    memory: ByteSize | None = None
    """Memory limit, such as 512MiB; none by default. What runs in a nested node sees it as the node's memory."""
    cpus: float | None = Field(default=None, gt=0)
    """How many of the machine's processors a node may use, such as 1.5; all by default."""
    footprint: ByteSize = ByteSize(0)
    """Memory that an idle node uses, such as 120MiB: shown, and checked before a start."""
    stop_timeout: int = Field(default=10, ge=0, le=600)
    """Seconds between the stop signal and the kill."""
    bin: Folders = []
    """Folder of executable scripts, or several: installed into /usr/local/bin. PROFILE:FOLDER is another profile's."""
    files: dict[AbsolutePath, File] = {}
    """Path in the node -> file."""
    registries: Registries | None = None
    """Its nodes pull images: how they are told of registries."""
    certificates: list[Certificate] = []
    """Certificates written into the node."""
    ready: Probe | None = None
    """When the node is ready."""
    endpoints: dict[Name, Endpoint] = {}
    """Ports that are published for users."""
    hooks: RoleHooks = RoleHooks()
    """Commands that run when one of its nodes joins or leaves."""


class Hooks(Part):
    """Hooks about the whole cluster."""

    init: list[Hook] = []
    """Bootstraps the cluster, on its initial member. Runs again whenever nodes join: must be safe to repeat."""
    load: list[Hook] = []
    """By "minicluster load", in each node of the role ("node": every node): loads the image in the file archive."""
    held: list[Hook] = []
    """Before a load, in each node of the role: prints the images that it has, a line "ID NAME" for each name."""
    tag: list[Hook] = []
    """In place of a load, in each node of the role that has the image by its ID: gives it the further name."""
    reset: list[Hook] = []
    """By "minicluster reset", in this order: removes what users put into the cluster. Must be safe to repeat."""


class Client(Part):
    """The certificate for the user's own client, kept on the host in a folder that only the user can read."""

    certificate: Certificate
    """Its subject and names."""
    files: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9.-]*$")], str] = {}
    """Further files in that folder: name -> a file of the profile, a template that sees what "env" sees."""


class Program(Part):
    """A client of the system's own, run by "minicluster NAME"."""

    image: Name
    """The image that has it."""
    path: Annotated[str, Field(min_length=1)]
    """Where it is in the image; one that runs in a node may be a name on its PATH."""
    on: Name | None = None
    """The role in whose first running node it runs; else it runs on the user's machine."""
    part: PartName | None = None
    """The part whose version the user's own client has to fit, to be used in place of the image's."""
    version: list[str] = []
    """Arguments with which the user's own client says its version."""
    minors: int = Field(default=0, ge=0)
    """How many minor versions it may be away from the part's."""


class Apply(Part):
    """How files that a user applies get into the cluster. Of several the first one is used whose pattern matches."""

    files: Annotated[list[str], Field(min_length=1)] = ["*"]
    """Patterns of file names, such as *.yaml."""
    whole: bool = False
    """A folder with such a file is given to the program as one; else each such file in it and below. Not with `on`."""
    program: str
    """Which of the programs."""
    run: Argv
    """Its arguments; templates."""
    stdin: bool = False
    """The file is the program's standard input, too. Not for a program with `on`."""


class Bench(Part):
    """What loads clusters of the profile in a comparison: a program in a container of its own on their network."""

    role: Name
    """The role whose nodes store the data: --size kv=N is its number; roles that can be without nodes have none."""
    image: Name | None = None
    """The image that has the program, one of the profile's; or part."""
    part: PartName | None = None
    """The part that is the program; or image."""
    run: Argv
    """The program and its arguments; templates. docs/bench.md says what it is given and what it prints."""
    env: dict[str, Text] = {}
    """Variables; templates. BENCH_ENDPOINTS are the addresses of the nodes on the cluster's network."""
    set: dict[str, Text] = {}
    """What --set takes: settings in which the comparison is fair to the system."""
    writes: str
    """When a write is acknowledged, a phrase; a template."""
    reads: str
    """Whose data a read gives, a phrase; a template."""


class Profile(Part):
    """The description of one kind of cluster."""

    version: Literal[2]
    """Version of the profile format: 2."""
    name: Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
    """The profile's name, and the default name of its clusters."""
    aliases: list[Annotated[str, Field(pattern=f"^{NAME.pattern}$")]] = []
    """Other names that users may type for it, such as k8s."""
    summary: str
    """One line for people."""
    settings: dict[Identifier, Setting] = {}
    """Values for the templates, changed by --set NAME=VALUE; --set NAME.KEY=VALUE where one is a mapping."""
    immutable: list[Identifier] = []
    """Settings that cannot change once the cluster is bootstrapped."""
    patterns: dict[Identifier, Pattern] = {}
    """What the values of settings must match; of a list each item, of a mapping each key."""
    subnets: list[Identifier] = []
    """Settings that are IPv4 subnets: they must overlap neither each other nor the cluster's own."""
    main_part: PartName | None = None
    """The part whose version the setting "version" chooses."""
    parts: dict[PartName, PartChoice] = {}
    """Part -> version and source, where not its defaults; --set PART.version=VERSION, --set PART.source=SOURCE."""
    images: dict[Name, Image]
    """The images that roles name."""
    roles: dict[Name, Role] = Field(min_length=1)
    """The kinds of node, in the order in which they are listed and started."""
    hooks: Hooks = Hooks()
    """Commands about the whole cluster."""
    members: Hook | None = None
    """Prints the members by the cluster's own software, one JSON object a line: name, ready, voter, leader, detail."""
    services: Hook | None = None
    """Prints what users have published in the cluster, one JSON object a line: name, node, address, port, protocol, and
    in `at` the endpoint of the nodes of the role that leads there, if any."""
    write: Hook | None = None
    """Writes something, by which "chaos" sees whether writes go on; ends with 0 once it is acknowledged."""
    workload: Hook | None = None
    """Prints what runs in the cluster, one JSON object a line: name, node, group, state, ready, detail."""
    client: Client | None = None
    """The user's own client certificate."""
    programs: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")], Program] = {}
    """The system's own clients in the images, run by "minicluster NAME"."""
    apply: list[Apply] = []
    """What puts files of "apply" in a project file into the cluster, by its own client."""
    env: dict[str, Text] = {}
    """Variables for the system's own client, printed by "minicluster env"; templates."""
    kernel: dict[Identifier, str] = {}
    """Optional kernel features, and what "info" says does not work without them."""
    example: str = ""
    """A first command for the system's own client, shown once a cluster is up; a template."""
    bench: dict[Literal["kv"], Bench] = {}
    """Comparisons that it takes part in: "kv" is that of key-value stores."""
    demo_image: str | None = None
    """An image that every node has, to try the cluster with."""
