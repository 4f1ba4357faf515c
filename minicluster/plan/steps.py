"""A plan: the engine calls that lead from the observed to the desired state, each with its cause. Pure data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

from minicluster.model.results import Change

if TYPE_CHECKING:
    from minicluster.engine.protocol import ContainerConfig
    from minicluster.model.spec import CertificateSpec, FileSpec, ImageSpec, Spec


@dataclass(frozen=True)
class ProvideImage:
    """Builds an image, or pulls it, if the engine lacks it; then gives it to hosts of several that lack it."""

    image: ImageSpec
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """Writes the desired spec into the engine, as the label of a volume, before anything is done for it.

    A record of the empty state comes before a first spec: as long as both exist, the cluster is not complete.
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
    """Connects a container to another network, under these names."""

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
    disk: int = 0  #: bytes of a file system of its own; 0: it is a folder of the engine's


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
class Fallback:
    """Where a hook runs next if it fails on its own node.

    The members are asked for only then, by any of ``asked``: of the nodes, those that the cluster counts as ready
    follow, the leader first. If no node answers, all follow in this order.
    """

    nodes: tuple[str, ...]
    asked: tuple[str, ...] = ()  #: containers
    command: tuple[str, ...] = ()  #: prints the members


@dataclass(frozen=True)
class RunHook:
    """Runs a command in a node; the lines of its output get the names in ``capture``."""

    container: str
    command: tuple[str, ...]
    capture: tuple[str, ...] = ()
    best_effort: bool = False  #: a failure is reported and does not end the plan
    phase: str = "joining"  #: what the node is doing during the hook, for people
    fallback: Fallback | None = None


@dataclass(frozen=True)
class SaveImage:
    """Saves an image of the engine as an archive on this machine, from which nodes get it."""

    image: str


@dataclass(frozen=True)
class CopyImage:
    """Streams a saved image into a file of a node."""

    image: str
    container: str
    path: str


@dataclass(frozen=True)
class RemoveFile:
    """Removes a file from a node, if it is there."""

    container: str
    path: str


@dataclass(frozen=True)
class WaitMembers:
    """Asks the cluster's own software for its members until all of these are ready ones."""

    container: str
    command: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class StopContainer:
    """Asks a container to stop, and kills it after its own time limit."""

    name: str
    seconds: int  #: that limit


@dataclass(frozen=True)
class KillContainer:
    """Kills a container (SIGKILL)."""

    name: str


@dataclass(frozen=True)
class PauseContainer:
    name: str


@dataclass(frozen=True)
class ForgetHost:
    """Removes a host that does not answer from the hosts' swarm, which keeps addresses for what runs there."""

    host: str
    id: str  #: of its engine in the swarm


@dataclass(frozen=True)
class UpdateContainer:
    """Changes the restart policy of a container."""

    name: str
    restart: str


@dataclass(frozen=True)
class RemoveContainer:
    name: str


@dataclass(frozen=True)
class RemoveVolume:
    name: str
    disk: bool = False  #: it has the file of a node's file system


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
    | SaveImage
    | CopyImage
    | RemoveFile
    | WaitMembers
    | StopContainer
    | KillContainer
    | PauseContainer
    | ForgetHost
    | UpdateContainer
    | RemoveContainer
    | RemoveVolume
    | RemoveNetwork
)


@dataclass(frozen=True)
class Step:
    """One engine call."""

    id: str  #: unique in its plan, such as "start agent-1"
    node: str  #: the node that it is about; "" for the whole cluster
    action: Action
    cause: str  #: why it is needed
    needs: tuple[str, ...] = ()  #: ids of the steps that must be done before
    cleanup: bool = False  #: carried out even if a step before it failed: it removes what that one left

    @property
    def kind(self) -> str:
        """The action's name, such as "create-container"."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", type(self.action).__name__).lower()


@dataclass(frozen=True)
class Plan:
    """Steps and what each needs; empty if there is nothing to do.

    Raises:
        ValueError: two steps have one id, a need is no step, or needs form a cycle (``graphlib.CycleError``).
    """

    cluster: str
    headline: str  #: what it does: "create cluster swarm (swarm): 1 master, 2 agents"
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        ids = {step.id for step in self.steps}
        if len(ids) < len(self.steps):
            twice = Counter(step.id for step in self.steps).most_common(1)[0][0]
            raise ValueError(f"there are two steps {twice!r}")
        for step in self.steps:
            if unknown := [need for need in step.needs if need not in ids]:
                raise ValueError(f"step {step.id!r} needs {unknown[0]!r}, which is no step of the plan")
        self.order()

    def __bool__(self) -> bool:
        return bool(self.steps)

    def order(self) -> TopologicalSorter[str]:
        """Hands out the ids of steps as their needs are done; see :mod:`graphlib`."""
        sorter = TopologicalSorter({step.id: step.needs for step in self.steps})
        sorter.prepare()
        return sorter

    def change(self, seconds: float) -> Change:
        """What was done, once it is."""
        counts = Counter(step.kind for step in self.steps)
        return Change(self.cluster, bool(self), len(self.steps), round(seconds, 3), dict(counts))
