"""The keys of minicluster.yaml. Published as JSON Schema, so every field's docstring is what an editor shows."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from minicluster.errors import UsageError
from minicluster.model.durations import seconds
from minicluster.model.naming import NAME
from minicluster.profile.schema import Identifier, MountPath, Name, Text

FORMAT = 1  #: the version of the file's format that this minicluster reads


def _duration(value: str) -> str:
    try:
        seconds(value)
    except UsageError:
        raise ValueError("must be a duration, such as 30m, 8h or 1h30m") from None
    return value


def _reference(value: str) -> str:
    if len(value.split()) != 1 or value == "-":
        raise ValueError("must be the reference of an image, or the path of an archive")
    return value


def _value(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def _no(value: Any) -> Any:
    return "no" if value is False else value  # YAML reads no as false


#: As --set takes it: lists and mappings as JSON.
Value = Annotated[Text, BeforeValidator(_value), WithJsonSchema({})]
ClusterName = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
Reference = Annotated[str, AfterValidator(_reference)]
FilePath = Annotated[str, Field(min_length=1)]
Port = Annotated[int, Field(ge=1, le=65535)]
Size = Annotated[int, Field(ge=0, le=1000)]


class Part(BaseModel):
    """The base of everything in the file: no unknown keys, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Mount(Part):
    """A file or folder of this machine in the nodes of a role."""

    role: FilePath
    """The role, or the name of one node."""
    host: FilePath
    """Its path on this machine; a relative one begins in the file's folder."""
    path: MountPath
    """Its path in the node."""
    read_only: bool = False
    """Nodes cannot write it."""


class Registry(Part):
    """A registry that nodes pull images from. Credentials are docker's, and never in this file."""

    host: FilePath
    """HOST or HOST:PORT, as names of its images begin with it."""
    mirrors: list[FilePath] = []
    """URLs that nodes ask before it. Kubernetes only; those of docker.io are in registry_mirrors."""
    ca: FilePath | None = None
    """File with certificates (PEM) that it is trusted by; a relative path begins in the file's folder."""
    insecure: bool = False
    """Its certificate is not checked, and plain HTTP is tried as well."""
    credentials: bool = True
    """Nodes get the credentials that docker's configuration has for it."""


class Cluster(Part):
    """One cluster: its profile, and what differs from it. The keys are those of "minicluster up"."""

    profile: FilePath
    """Name of a profile, or the path of its folder; a relative one contains a slash and begins in the file's folder."""
    size: dict[Name, Size] = {}
    """Role -> number of nodes."""
    set: dict[str, Value] = {}
    """Setting, or path in the profile -> value."""
    image: dict[Identifier, Reference] = {}
    """The profile's name of an image -> the one to use."""
    disk: dict[Name, Text] = {}
    """Role -> size of a file system of its own for the data of each of its nodes, such as 1GiB."""
    ports: dict[str, Port] = {}
    """Endpoint, or ROLE:PORT or ROLE:PORT/udp -> port on this machine of the first node; the next node has the next."""
    bind_address: str | None = None
    """Address of the engine's machine that ports are published on, too; by default only on 127.0.0.1."""
    mounts: list[Mount] = []
    """Files and folders of this machine in nodes."""
    networks: list[FilePath] = []
    """Networks of the engine that the nodes join too."""
    registry_mirrors: list[FilePath] = []
    """URLs of mirrors of docker.io, which nodes ask first, in this order."""
    registries: list[Registry] = []
    """Registries that need more than their name: credentials, a certificate, or none."""
    ca: FilePath | None = None
    """File with certificates (PEM) that nodes trust as well; a relative path begins in the file's folder."""
    hosts: list[FilePath] = []
    """Docker contexts that the nodes are spread over; by default the one engine in use."""
    place: dict[FilePath, list[FilePath]] = {}
    """Role or node -> hosts that it may be on."""
    encrypt: bool = False
    """The nodes' traffic between hosts is encrypted."""
    restart: Annotated[Literal["no", "on-failure", "unless-stopped", "always"], BeforeValidator(_no)] = "no"
    """Restart policy of the nodes."""
    load: list[Reference] = []
    """Images of the engine, or paths of archives, that nodes have before "up" returns."""
    apply: list[FilePath] = []
    """Files and folders that the system's own client applies once the cluster is ready, in this order."""
    ttl: Annotated[str, AfterValidator(_duration)] | None = None
    """How long it is kept, from the last "up"; by default until it is removed."""


class File(Part):
    """A project's clusters."""

    version: Literal[1]
    """Version of the file's format: 1."""
    clusters: dict[ClusterName, Cluster] = Field(min_length=1)
    """Name -> cluster. The name is that of the cluster on the engine, which all projects share."""
