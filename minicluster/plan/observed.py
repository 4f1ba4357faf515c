"""The observed state of a cluster: read from the engine's labels, and from the cluster's own list of members."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from minicluster.errors import MiniclusterError
from minicluster.model import labels
from minicluster.model.codec import AnotherFormat, decode
from minicluster.model.lease import Lease
from minicluster.model.naming import volume_name

if TYPE_CHECKING:
    from minicluster.engine.protocol import Container, Network, Volume
    from minicluster.model.local_registry import LocalRegistry
    from minicluster.model.membership import Member
    from minicluster.model.spec import FileSpec, NodeSpec, Spec


@dataclass(frozen=True)
class RecordVolume:
    """A volume whose label holds a spec; revision 0 holds none: it stands for the empty starting state."""

    volume: str
    revision: int
    spec: Spec | None
    made_by: str = ""  #: "an older" or "a newer" minicluster, whose spec this one cannot read


@dataclass(frozen=True)
class Observed:
    """Everything that carries a cluster's name.

    ``records`` are oldest first. There is one, except while a change is under way: then the last is the desired spec
    and the first is the last fully applied one.
    """

    cluster: str
    containers: Mapping[str, Container] = field(default_factory=dict)  #: by the node's name
    faults: tuple[str, ...] = ()  #: names of the helper containers that hold faults
    networks: tuple[str, ...] = ()
    attached: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  #: network -> containers that are not ours
    #: The container that this process runs in, if it must reach the nodes' network.
    own_container: Container | None = None
    volumes: tuple[str, ...] = ()  #: names, without records and lease generations
    disks: frozenset[str] = frozenset()  #: of the volumes, those that have the file of a node's file system
    records: tuple[RecordVolume, ...] = ()
    members: Mapping[str, Member] | None = None  #: by the node's name; None if no node answered
    lease: Lease | None = None  #: the one in force; None: the cluster stays until it is removed
    project: str = ""  #: path of the project file that it was made from
    generations: tuple[str, ...] = ()  #: volumes that hold a later lease
    images: frozenset[str] = frozenset()  #: of the images that a plan is about, those that the engine has
    authority: str = ""  #: identity of the certificate authority that issues new certificates
    registry: LocalRegistry | None = None  #: the engine's, if the cluster's nodes pull images
    hosts: frozenset[str] = frozenset()  #: of an engine that is several: those that answer
    gone: Mapping[str, str] = field(default_factory=dict)  #: hosts that do not answer or are given up, and why
    #: Node -> names of its former containers, on other hosts than the one that it is to be on.
    strays: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: Hosts that do not answer and whose nodes move -> their engines in the swarm, which keeps the nodes' addresses.
    forgotten: Mapping[str, str] = field(default_factory=dict)
    placement: Mapping[str, str] = field(default_factory=dict)  #: node -> why its host was chosen
    lacking: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  #: image -> hosts that need it and lack it

    @property
    def spec(self) -> Spec | None:
        """The desired spec, by the last record."""
        return self.records[-1].spec if self.records else None

    @property
    def converged(self) -> bool:
        """No change was interrupted."""
        return len(self.records) == 1 and self.spec is not None

    @property
    def last_applied(self) -> Spec | None:
        """The last fully applied spec, the rollback target; None for nothing."""
        return self.records[0].spec if self.records else None

    @property
    def running(self) -> frozenset[str]:
        """The nodes whose containers run."""
        return frozenset(name for name, container in self.containers.items() if container.state == "running")

    def recorded(self, name: str) -> NodeSpec | None:
        """A node by the newest record that has it."""
        specs = [record.spec for record in reversed(self.records) if record.spec]
        return next((node for spec in specs if (node := spec.node(name))), None)

    def lacks_data(self, node: NodeSpec) -> bool:
        """Data of a node do not exist, so what the cluster remembers under its name is not its own."""
        if not node.volumes:
            return node.name not in self.containers
        return any(volume_name(self.cluster, node.name, path) not in self.volumes for path in node.volumes)

    def bootstrap_differs(self, spec: Spec) -> bool:
        """An interrupted attempt gave its initial members another list of each other than this spec does."""

        def lists(it: Spec) -> dict[str, list[FileSpec]]:
            return {node.name: [f for f in node.files if f.bootstrap] for node in it.nodes if node.bootstraps}

        return any(record.spec and lists(record.spec) != lists(spec) for record in self.records)

    def placed(self, spec: Spec) -> Observed:
        """The same as seen by a spec that has nodes on other hosts: what is elsewhere is a stray."""
        away = {
            name: container
            for name, container in self.containers.items()
            if container.host and (node := spec.node(name)) and node.host != container.host
        }
        if not away:
            return self
        strays = {name: (*self.strays.get(name, ()), f"{c.name}@{c.host}") for name, c in away.items()}
        moved = tuple(
            f"{v}@{away[name].host}" if (name := self._owner(v)) in away and "@" not in v else v for v in self.volumes
        )
        return replace(
            self,
            containers={name: c for name, c in self.containers.items() if name not in away},
            strays={**self.strays, **strays},
            volumes=moved,
        )

    def _owner(self, volume: str) -> str:
        """The node that a volume is of; "" where it is none's."""
        names = [*self.containers, *(node.name for node in self.spec.nodes)] if self.spec else [*self.containers]
        return next((name for name in names if volume.startswith(f"{self.cluster}-{name}-")), "")

    def __bool__(self) -> bool:
        return bool(
            self.containers
            or self.strays
            or self.faults
            or self.networks
            or self.volumes
            or self.records
            or self.generations
        )


#: In the name of what is on another host than the one that is meant; see :mod:`minicluster.engine.host_copies`.
_ELSEWHERE = "@"


def observe(cluster: str, containers: list[Container], networks: list[Network], volumes: list[Volume]) -> Observed:
    """Sorts what the engine lists for a cluster."""
    nodes = [c for c in containers if labels.FAULT not in c.labels]
    strays: dict[str, tuple[str, ...]] = {}
    for c in nodes:
        if _ELSEWHERE in c.name:
            name = c.labels.get(labels.NODE, c.name)
            strays[name] = (*strays.get(name, ()), c.name)
    return Observed(
        cluster=cluster,
        containers={c.labels.get(labels.NODE, c.name): c for c in nodes if _ELSEWHERE not in c.name},
        strays=strays,
        faults=tuple(c.name for c in containers if labels.FAULT in c.labels),
        networks=tuple(n.name for n in networks),
        volumes=tuple(
            v.name
            for v in volumes
            if _ELSEWHERE in v.name or (labels.REVISION not in v.labels and labels.GENERATION not in v.labels)
        ),
        disks=frozenset(v.name for v in volumes if labels.DISK in v.labels),
        records=records(volumes),
        lease=lease_of([*containers, *networks, *volumes]),
        project=project_of([*containers, *networks, *volumes]),
        generations=tuple(v.name for v in volumes if labels.GENERATION in v.labels),
    )


def records(volumes: list[Volume]) -> tuple[RecordVolume, ...]:
    """The specs among a cluster's volumes, oldest first."""
    found = [
        RecordVolume(v.name, int(v.labels[labels.REVISION]), *_spec(v.labels.get(labels.SPEC, "")))
        for v in volumes
        if v.labels.get(labels.REVISION, "").isdecimal() and _ELSEWHERE not in v.name
    ]
    return tuple(sorted(found, key=lambda record: record.revision))


def lease_of(things: Iterable[Container | Network | Volume]) -> Lease | None:
    """The lease of a cluster by everything that carries its name; None if there is none, or none that can be read."""
    labelled = [thing.labels for thing in things if labels.LEASE in thing.labels]
    try:
        return Lease.parse(max(labelled, key=generation_of)[labels.LEASE]) if labelled else None
    except ValueError:
        return None


def project_of(things: Iterable[Container | Network | Volume]) -> str:
    """The project file that a cluster was made from, by everything that carries its name; "" if there is none."""
    return next((path for thing in things if (path := thing.labels.get(labels.PROJECT))), "")


def generation_of(about: Mapping[str, str]) -> int:
    """The generation of the lease in a label; 0 for the first one, which everything has."""
    return int(about.get(labels.GENERATION, "0"))


def made_by_another(cluster: str, records: Iterable[RecordVolume]) -> MiniclusterError | None:
    """What is said of a cluster that an older or a newer minicluster made; None if this one can read its records."""
    for record in records:
        if record.made_by:
            return MiniclusterError(
                f"cluster {cluster} was made by {record.made_by} minicluster",
                "This version cannot read its spec.",
                f"Remove it: `minicluster down {cluster}`.",
            )
    return None


def _spec(text: str) -> tuple[Spec | None, str]:
    """A spec by its label, if there is one that can be read; and which minicluster stored it, if not this version."""
    try:
        return (decode(text) if text else None), ""
    except AnotherFormat as error:
        return None, error.age
    except (ValueError, KeyError, TypeError):
        return None, ""
