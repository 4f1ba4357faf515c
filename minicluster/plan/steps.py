"""A plan: the engine calls that turn what is there into what shall be, each with its cause. Pure data, printable."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from minicluster.engine.protocol import ContainerConfig
from minicluster.model.spec import CertificateSpec, FileSpec, ImageSpec, Spec


@dataclass(frozen=True)
class ProvideImage:
    """Builds the image from its recipe, or pulls it, where the engine has none."""

    image: ImageSpec


@dataclass(frozen=True)
class Record:
    """Writes a spec into the engine, as the label of a volume: what shall be, before anything is done for it.

    Before a first spec goes a record of nothing: as long as both are there, the cluster is not complete.
    """

    volume: str
    revision: int
    labels: Mapping[str, str]
    spec: Spec | None = field(repr=False)


@dataclass(frozen=True)
class CreateNetwork:
    name: str
    subnet: str
    gateway: str
    dynamic_range: str  #: the part of it that other containers get addresses from
    labels: Mapping[str, str]


@dataclass(frozen=True)
class ConnectNetwork:
    """Connects a container to a further network, where it gets these names."""

    network: str
    container: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class DisconnectNetwork:
    network: str
    container: str


@dataclass(frozen=True)
class CreateVolume:
    name: str
    labels: Mapping[str, str]


@dataclass(frozen=True)
class CreateContainer:
    config: ContainerConfig


@dataclass(frozen=True)
class PutFiles:
    """Writes files, freshly issued certificates and, where asked, the authority itself into a container."""

    container: str
    files: tuple[FileSpec, ...]
    certificates: tuple[CertificateSpec, ...]
    authority: bool


@dataclass(frozen=True)
class StartContainer:
    name: str


@dataclass(frozen=True)
class WaitReady:
    """Runs a node's probe until it passes."""

    container: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class RunHook:
    """Runs a command in a node; its output's lines get the names in ``capture``."""

    container: str
    command: tuple[str, ...]
    capture: tuple[str, ...] = ()
    best_effort: bool = False  #: a failure is reported and does not end the plan


@dataclass(frozen=True)
class WaitMembers:
    """Asks the cluster's own software for its members until all of these are ready ones."""

    container: str
    command: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class StopContainer:
    """Asks a container to end, and ends it where it has not by its own time limit."""

    name: str


@dataclass(frozen=True)
class KillContainer:
    """Ends a container at once. One that is about to go is killed first: its network can go as soon as all are dead."""

    name: str


@dataclass(frozen=True)
class PauseContainer:
    name: str


@dataclass(frozen=True)
class UpdateContainer:
    """Changes what the engine does when the container ends by itself."""

    name: str
    restart: str


@dataclass(frozen=True)
class RemoveContainer:
    name: str


@dataclass(frozen=True)
class RemoveVolume:
    name: str


@dataclass(frozen=True)
class RemoveNetwork:
    name: str


Action = (
    ProvideImage
    | Record
    | CreateNetwork
    | ConnectNetwork
    | DisconnectNetwork
    | CreateVolume
    | CreateContainer
    | PutFiles
    | StartContainer
    | WaitReady
    | RunHook
    | WaitMembers
    | StopContainer
    | KillContainer
    | PauseContainer
    | UpdateContainer
    | RemoveContainer
    | RemoveVolume
    | RemoveNetwork
)


@dataclass(frozen=True)
class Step:
    """One engine call."""

    id: str  #: unique in its plan, such as "start agent-1"
    node: str  #: the node that it is about; "" for what is the whole cluster's
    action: Action
    cause: str  #: why it is needed
    needs: tuple[str, ...] = ()  #: ids of the steps that must be done before

    @property
    def kind(self) -> str:
        """The action's name, such as "create-container"."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", type(self.action).__name__).lower()


@dataclass(frozen=True)
class Plan:
    """Steps in an order that respects their needs; empty when there is nothing to do."""

    cluster: str
    headline: str  #: what it is for: "create cluster swarm: 1 master, 2 agents"
    steps: tuple[Step, ...]

    def __bool__(self) -> bool:
        return bool(self.steps)
