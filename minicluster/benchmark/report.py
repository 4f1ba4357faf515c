"""What a comparison found, and how its points are ranked: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

OPERATIONS = ("put", "get", "mixed")
#: A load generator that takes more of the machine's processor time than this measures itself.
CLIENT_BOUND = 0.5

#: What numbers of such a run do not say.
NOT_COMPARED = (
    "Reads give different guarantees; see `reads` of each system.",
    "Nodes and clients share one machine: no network and no disk of their own.",
    "Short rounds with little data: no compaction, snapshot or full memory of a long life.",
    "Watches, transactions, leases, sessions, large values and large key spaces.",
)


@dataclass(frozen=True)
class Load:
    """One load: what is asked, and by how many."""

    operation: str  #: one of OPERATIONS; mixed is puts and gets in equal parts, at random
    clients: int  #: that wait for an answer at the same time
    connections: int  #: which they share


@dataclass(frozen=True)
class Round:
    """One round of a load. Latencies are milliseconds; a percentile is what that share of answers took at most."""

    seconds: float
    operations: int  #: answered
    errors: int
    p50: float
    p95: float
    p99: float
    max: float
    cpu: float  #: seconds of processor time that the load generator used
    client_share: float  #: of the machine's processor time
    error: str = ""  #: the first one
    gap: float = 0  #: seconds, the longest time without an answer; only with a timeline
    gap_begin: float = 0  #: when that began, in seconds of the round
    timeline: tuple[int, ...] = ()  #: answers in each bucket of time
    killed: str = ""  #: the node that was killed
    killed_at: float = 0  #: seconds of the round

    @property
    def rate(self) -> float:
        """Answers in a second."""
        return self.operations / self.seconds if self.seconds else 0.0

    @property
    def client_bound(self) -> bool:
        """The load generator took so much of the machine that the round says little of the system."""
        return self.client_share > CLIENT_BOUND


@dataclass(frozen=True)
class Point:
    """All rounds of a load on a system."""

    load: Load
    rounds: tuple[Round, ...]

    @property
    def counted(self) -> tuple[Round, ...]:
        """The rounds that rank."""
        return tuple(one for one in self.rounds if not one.client_bound)

    def middle(self, name: str) -> float:
        """The median of a value over the rounds that rank, or over all where none does."""
        return float(median(getattr(one, name) for one in self.counted or self.rounds))

    @property
    def spread(self) -> tuple[float, float]:
        """The lowest and the highest rate of these rounds."""
        rates = [one.rate for one in self.counted or self.rounds]
        return min(rates), max(rates)

    @property
    def errors(self) -> int:
        """Requests that failed, in all rounds."""
        return sum(one.errors for one in self.rounds)

    @property
    def client_bound(self) -> bool:
        """No round ranks."""
        return not self.counted


@dataclass(frozen=True)
class System:
    """One system of the comparison."""

    profile: str
    parts: Mapping[str, str]  #: part of the node images -> version and source
    nodes: int
    set: Mapping[str, str]  #: settings that differ from the profile's
    writes: str  #: when a write is acknowledged
    reads: str  #: whose data a read gives
    points: tuple[Point, ...] = ()

    @property
    def label(self) -> str:
        """Name and version."""
        version = self.parts.get(self.profile, "").split(" ")[0]
        return f"{self.profile} {version.removeprefix('v')}".strip()


@dataclass(frozen=True)
class Machine:
    """Where it ran."""

    cpus: int
    memory: int  #: bytes
    processor: str  #: "" where it is not this machine
    kernel: str
    engine: str
    storage: str  #: the engine's storage driver, and what the volumes are on where that is known
    load_before: float | None  #: processes that wanted to run, on average over a minute, before it began


@dataclass(frozen=True)
class Report:
    """A whole comparison."""

    began: str  #: date and time, UTC
    minicluster: str  #: its version
    machine: Machine
    value: int  #: bytes of a value
    keys: int
    seconds: float  #: of a round
    warmup: float
    rounds: int
    bucket: float  #: seconds of a part of a timeline; 0 where there is none
    systems: tuple[System, ...] = ()
    client_bound: float = CLIENT_BOUND
    not_compared: tuple[str, ...] = NOT_COMPARED
    ranks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  #: load -> profile -> rank

    @property
    def busy(self) -> bool:
        """Other processes took part of the machine."""
        return self.machine.load_before is not None and self.machine.load_before > self.machine.cpus / 4


def name_of(load: Load) -> str:
    """A load as a key."""
    return f"{load.operation} {load.clients}x{load.connections}"


def loads(report: Report) -> list[Load]:
    """The loads of a report, in order."""
    return list(dict.fromkeys(point.load for system in report.systems for point in system.points))


def ranks(systems: Sequence[System]) -> dict[str, dict[str, int]]:
    """Load -> profile -> rank, from 1. Systems whose rounds overlap share one; a client-bound point has none."""
    found: dict[str, dict[str, int]] = {}
    for load in dict.fromkeys(point.load for system in systems for point in system.points):
        here = [(s.profile, p) for s in systems for p in s.points if p.load == load and not p.client_bound]
        found[name_of(load)] = {
            profile: 1 + sum(other.spread[0] > point.spread[1] for _name, other in here) for profile, point in here
        }
    return found
