"""What is there of a cluster: read from the engine's labels, and from the cluster's own list of members."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from minicluster.engine.protocol import Container, Network, Volume
from minicluster.errors import MiniclusterError
from minicluster.model import labels
from minicluster.model.codec import AnotherFormat, decode
from minicluster.model.lease import Lease
from minicluster.model.membership import Member
from minicluster.model.spec import Spec


@dataclass(frozen=True)
class RecordVolume:
    """A volume whose label holds a spec; the one of revision 0 says that there was nothing."""

    volume: str
    revision: int
    spec: Spec | None
    made_by: str = ""  #: "an older" or "a newer" minicluster, whose spec this one cannot read


@dataclass(frozen=True)
class Observed:
    """Everything that carries a cluster's name.

    ``records`` are oldest first. There is one, but while a change is under way: then the last is what shall be and
    the first is what was, before any change that was cut short.
    """

    cluster: str
    containers: Mapping[str, Container] = field(default_factory=dict)  #: by the node's name
    networks: tuple[str, ...] = ()
    attached: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  #: network -> containers that are not ours
    own_container: Container | None = (
        None  #: the container that this process runs in, where it is to reach the nodes' network
    )
    volumes: tuple[str, ...] = ()  #: names, records and terms not counted
    records: tuple[RecordVolume, ...] = ()
    members: Mapping[str, Member] | None = None  #: by the node's name; None where nobody could be asked
    lease: Lease | None = None  #: the one in force; None: it stays until somebody takes it down
    generations: tuple[str, ...] = ()  #: volumes that tell of the lease
    images: frozenset[str] = frozenset()  #: of those that the spec wants, the ones that the engine has
    authority: str = ""  #: identity of the certificate authority that new certificates will come from

    @property
    def spec(self) -> Spec | None:
        """What shall be, by the last record."""
        return self.records[-1].spec if self.records else None

    @property
    def converged(self) -> bool:
        """No change was interrupted."""
        return len(self.records) == 1 and self.spec is not None

    @property
    def last_applied(self) -> Spec | None:
        """What there was when all was well last: what a change that fails goes back to; None for nothing."""
        return self.records[0].spec if self.records else None

    def __bool__(self) -> bool:
        return bool(self.containers or self.networks or self.volumes or self.records or self.generations)


def observe(
    cluster: str, containers: list[Container], networks: list[Network], volumes: list[Volume], authority: str = ""
) -> Observed:
    """Sorts what the engine lists for a cluster."""
    return Observed(
        cluster=cluster,
        containers={c.labels.get(labels.NODE, c.name): c for c in containers},
        networks=tuple(n.name for n in networks),
        volumes=tuple(v.name for v in volumes if labels.REVISION not in v.labels and labels.GENERATION not in v.labels),
        records=records(volumes),
        lease=lease_of([*containers, *networks, *volumes]),
        generations=tuple(v.name for v in volumes if labels.GENERATION in v.labels),
        authority=authority,
    )


def records(volumes: list[Volume]) -> tuple[RecordVolume, ...]:
    """The specs among a cluster's volumes, oldest first."""
    found = [
        RecordVolume(v.name, int(v.labels[labels.REVISION]), *_spec(v.labels.get(labels.SPEC, "")))
        for v in volumes
        if v.labels.get(labels.REVISION, "").isdecimal()
    ]
    return tuple(sorted(found, key=lambda record: record.revision))


def lease_of(things: Iterable[Container | Network | Volume]) -> Lease | None:
    """The lease of a cluster by everything that carries its name; None where it has none, or none that can be read."""
    labelled = [thing.labels for thing in things if labels.LEASE in thing.labels]
    try:
        return Lease.parse(max(labelled, key=generation_of)[labels.LEASE]) if labelled else None
    except ValueError:
        return None


def generation_of(about: Mapping[str, str]) -> int:
    """Which term a lease in a label is; 0 for the first one, which everything has."""
    return int(about.get(labels.GENERATION, "0"))


def made_by_another(cluster: str, records: Iterable[RecordVolume]) -> MiniclusterError | None:
    """What is said of a cluster that an older or a newer minicluster made; None if this one can read its records."""
    for record in records:
        if record.made_by:
            return MiniclusterError(
                f"cluster {cluster} was made by {record.made_by} minicluster",
                "This version cannot read its spec.",
                f"Take it down: `minicluster down {cluster}`.",
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
