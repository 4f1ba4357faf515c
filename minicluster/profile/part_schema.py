"""What a part.yaml may say. docs/parts.md describes it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

SourceName = Literal["release", "go", "maven", "debian", "image"]

#: In the order in which they are tried.
SOURCES: tuple[SourceName, ...] = ("release", "go", "maven", "debian", "image")

Hex = Annotated[str, Field(pattern=r"^([0-9a-f]{64}|[0-9a-f]{128})$")]  #: a SHA-256 or SHA-512
Arch = Literal["amd64", "arm64"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Download(_Model):
    """A file of the project's own, an archive or a single program. Texts may name {version}, {number} and {arch}."""

    url: str
    """Where it is: only https."""
    checksum: str = ""
    """Where the project publishes its checksum: a file that begins with it, or lists it beside the file's name."""
    files: dict[str, str]
    """Path in the archive, or a pattern with * -> path in the image; "" is the whole file."""


class Go(_Model):
    """Programs that are compiled from the Go module registry."""

    module: str
    """The module that has the version."""
    module_version: dict[str, str] = {}
    """The module's version, where it is another than the part's."""
    module_folder: bool = False
    """The module itself is compiled, with its vendor.mod as go.mod: it cannot be another module's dependency."""
    programs: dict[str, str]
    """Program -> package; "." is the main package in the part's folder."""
    links: dict[str, str] = {}
    """Further names of programs."""
    directory: str = "usr/local/bin"
    """Where the programs are in the image."""
    tags: str = ""
    """Build tags."""
    program_tags: dict[str, str] = {}
    """Program -> further build tags of its own."""
    ldflags: str = ""
    """In addition to -s -w."""
    cgo: bool = False
    """Programs call C."""


class Artifact(_Model):
    """A file of Maven's central repository."""

    artifact: str
    """GROUP:NAME:VERSION."""
    sha256: Hex
    """Its checksum."""
    path: str
    """Path in the image."""


class Maven(_Model):
    """Java archives."""

    artifacts: list[Artifact]
    """All that the program needs at run time."""


class Debian(_Model):
    """Programs of Debian's packages, with the libraries that they need."""

    packages: list[str]
    """What is installed; the first one's upstream version is the part's."""
    programs: list[str]
    """Their names on PATH."""
    suite: str = ""
    """The release that has the packages, where it is not the base image's."""


class FromImage(_Model):
    """Programs that are copied out of an image."""

    ref: str
    """Its reference, pulled where the engine does not have it."""
    files: dict[str, str]
    """Path in it -> path in the part's image."""


class Sources(_Model):
    """How each source gives the part."""

    release: Download | None = None
    """The project's own download."""
    go: Go | None = None
    """The Go module registry."""
    maven: Maven | None = None
    """Maven's central repository."""
    debian: Debian | None = None
    """Debian's packages."""
    image: FromImage | None = None
    """Another image."""


class Version(_Model):
    """A version, and the sources that give exactly that one."""

    sources: list[SourceName] = Field(min_length=1)
    """The sources that have it."""
    sha256: dict[Arch, Hex] = {}
    """Checksum of its release (SHA-256 or SHA-512, by its length); without one, the checksum beside it counts."""
    license: str = ""
    """Its SPDX identifier, where it is another than the part's."""
    notice: str = ""
    """What a user is told when it is fetched."""
    go: Go | None = None
    """How it is compiled, where that differs from other versions."""
    along: dict[str, str] = Field({}, alias="with")
    """Other parts -> the version of each that belongs to it."""


class Index(_Model):
    """A page that lists the versions that a project has released: scripts/update-parts reads it."""

    url: str
    """Its address."""
    pattern: str
    """A regular expression; {number} in it is a version."""


class Part(_Model):
    """The description of a part."""

    summary: str
    """What it is, for people."""
    license: str
    """SPDX identifier."""
    home: str
    """The project's page."""
    default: str
    """The version that is taken where none is asked for."""
    supported: str
    """A regular expression: the versions that the profiles can work with, listed or not."""
    upgrade: Literal["any", "newer", "next", "none"] = "any"
    """The other minor versions that nodes with data may get: any, newer, the next one; none: not even another patch."""
    says: list[str] = []
    """A program of it, and the arguments with which that prints its version."""
    flaws: list[str] = []
    """What is known to be wrong with it, for docs/versions.md."""
    index: Index | None = None
    """Which versions there are, where no registry of a source has it."""
    sources: Sources
    """How each source gives it."""
    versions: dict[str, Version] = Field(min_length=1)
    """All versions that are known, newest first."""
