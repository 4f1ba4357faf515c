"""A workshop: identical clusters, one for each seat. Seats are clusters ``PROFILE-seat-NN``."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minicluster import cluster as facade, discovery, projects
from minicluster.engine import discover
from minicluster.errors import InsufficientMemory, MiniclusterError, NoCluster, UsageError
from minicluster.model.events import Event, Listener
from minicluster.model.naming import count
from minicluster.operations import connect, hand_out, up as plans
from minicluster.operations.summaries import summaries
from minicluster.operations.up_options import UpOptions

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine
    from minicluster.model.results import ClusterStatus
    from minicluster.operations.up_options import UpKeywords

MOST = 99  #: seats
_SEAT = re.compile(r"(.+)-seat-(\d\d)")
_ASKED_AT_ONCE = 4  #: seats whose state is asked at the same time


@dataclass(frozen=True)
class Seat:
    """A line of the table of seats."""

    number: int
    cluster: str
    profile: str
    phase: str  #: as ``status`` has it; "failed" where its ``up`` failed, "leftover" where it cannot be read
    ready: int  #: nodes
    nodes: int
    endpoint: str = ""  #: URL of the first one
    folder: str = ""  #: what its user gets, while it is on this machine


@dataclass(frozen=True)
class Options:
    """What is asked of a workshop, beyond what each of its clusters is.

    Raises:
        UsageError: there cannot be that many seats.
    """

    seats: int
    folder: Path | None = None  #: in which every seat has one; None: PROFILE-workshop in the current folder
    owner: str = ""  #: user that gets a seat's folder; ``{seat}`` stands for its number
    insecure: bool = False  #: publish what needs no login on an address that other machines reach

    def __post_init__(self) -> None:
        if not 1 <= self.seats <= MOST:
            raise UsageError(f"a workshop cannot have {count(self.seats, 'seat')}", "", f"Ask for 1 to {MOST}.")


def name(profile: str, number: int) -> str:
    """The name of a seat's cluster."""
    return f"{profile}-seat-{number:02}"


def names(profile: str = "", *, engine: Engine | None = None) -> list[str]:
    """The clusters of all seats, or of those of a profile."""
    found = []
    for summary in summaries(engine or discover.connect()):
        match = _SEAT.fullmatch(summary.cluster)
        if match and match[1] == summary.profile and profile in ("", summary.profile):
            found.append(summary.cluster)
    return found


def named(word: str, *, engine: Engine | None = None) -> str:
    """The cluster of a seat, by its number or by the cluster's name.

    Raises:
        NoCluster: there is no such seat.
        UsageError: several workshops have it.
    """
    known = names(engine=engine)
    if word in known:
        return word
    number = int(word) if word.isascii() and word.isdecimal() and len(word) < 4 else None
    found = [one for one in known if number is not None and one.endswith(f"-seat-{number:02}")]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"several workshops have a seat {word}", f"Clusters: {', '.join(found)}.", "Name the cluster.")
    fix = "`minicluster workshop status` lists the seats." if known else "`minicluster workshop up PROFILE --seats N`."
    raise NoCluster(f"no such seat: {word}", "" if known else "No workshop is running.", fix)


def up(
    profile: str, wanted: Options, options: UpKeywords, listener: Listener
) -> tuple[list[Seat], list[projects.Failed]]:
    """Starts the seats that there are not, changes the others, and writes the folder of each.

    Args:
        profile: name or folder.
        options: what every cluster is made with.

    Returns:
        All seats that were asked for, and what failed: the other seats stay.

    Raises:
        UsageError: the endpoints need no login, and other machines would reach them.
        InsufficientMemory: the machine has too little for all of them.
    """
    prefix = discovery.target(profile, None)
    clusters = [name(prefix, number) for number in range(1, wanted.seats + 1)]
    discovery.check_name(clusters[-1], "seat")
    owners = [wanted.owner.replace("{seat}", f"{number:02}") for number in range(1, wanted.seats + 1)]
    for owner in filter(None, dict.fromkeys(owners)):
        hand_out.account(owner)
    engine = discover.connect(start_private=True, listener=listener)
    _check(engine, profile, clusters, wanted, options, listener)
    each = [{**options, "profile": profile, "name": one} for one in clusters]
    at_once = max(1, min(engine.info.cpus, len(clusters)))
    asked = projects.Wanted(None, tuple(clusters), tuple(each))
    done = projects.up(asked, lambda event: None if event.kind == "preflight" else listener(event), at_once)
    failed = [one for one in done if isinstance(one, projects.Failed)]
    place = (wanted.folder or Path(f"{prefix}-workshop")).absolute()
    for made, owner in zip(done, owners, strict=True):
        if isinstance(made, facade.Cluster):
            seat = place / made.name.removeprefix(f"{prefix}-")
            try:
                made.hand_out(seat, owner or None, with_parent=wanted.folder is None)
            except MiniclusterError as error:  # the others get theirs
                failed.append(projects.Failed(made.name, error))
    for owner in filter(None, owners):
        if blocked := hand_out.unreachable(place / "seat", owner):
            fix = "use another --folder, or open it (chmod o+x)"
            listener(Event("note", text=f"{owner} cannot enter {blocked}: {fix}"))
            break
    return status(clusters, engine), failed


def _check(
    engine: Engine, profile: str, clusters: Sequence[str], wanted: Options, options: UpKeywords, listener: Listener
) -> None:
    """Refuses what should not start: too much for the machine, or open to a network."""
    from minicluster import doctor

    known = discovery.names(engine)
    missing = [one for one in clusters if one not in known]
    first: UpKeywords = {**options, "name": clusters[0]}
    spec = plans.plan(engine, clusters[0], UpOptions(profile=profile, **first)).spec
    open_ = connect.without_login(spec)
    if open_ and not ipaddress.ip_address(spec.bind_address).is_loopback and not wanted.insecure:
        raise UsageError(
            f"the seats would be open to everyone who reaches {spec.bind_address}",
            f"Without a login, every client can: {open_}.",
            "Leave out --bind-address, or accept it: --insecure.",
        )
    footprint = len(missing) * sum(node.footprint for node in spec.nodes)
    if footprint:
        memory, _disk = doctor.capacity(engine.info, footprint)
        if memory.level != "ok" and not options.get("force"):
            raise InsufficientMemory(
                f"{count(len(missing), 'seat')} more do not fit into memory: {memory.text}",
                f"Estimated for {count(len(spec.nodes), 'idle node')} each.",
                f"{memory.fix} Fewer or smaller seats need less; `--force` starts them anyway.",
            )
        listener(Event("preflight", text=f"{count(len(missing), 'seat')}: {memory.text}"))


def status(clusters: Sequence[str], engine: Engine | None = None) -> list[Seat]:
    """How seats are doing, by their clusters' names; those that do not exist are "missing"."""
    engine = engine or discover.connect()
    found = {summary.cluster: summary for summary in summaries(engine)}

    def one(cluster: str) -> Seat:
        match = _SEAT.fullmatch(cluster)
        assert match
        number = int(match[2])
        folder = next(reversed(hand_out.folders(cluster)), "")
        if cluster not in found:
            return Seat(number, cluster, match[1], "missing", 0, 0, "", folder)
        try:
            opened = facade.Cluster.open(cluster, engine=engine)
            answer: ClusterStatus = opened.status(memory=False)
        except MiniclusterError:  # its record is missing, or it was removed meanwhile
            summary = found[cluster]
            return Seat(number, cluster, summary.profile, "leftover", summary.running, summary.nodes, "", folder)
        endpoint = ""
        with contextlib.suppress(MiniclusterError):  # such as an address that is not reached from here
            endpoint = next((e.url for e in opened.endpoints()), "")
        ready = sum(node.ready for node in answer.nodes)
        return Seat(number, cluster, answer.profile, answer.phase, ready, len(answer.nodes), endpoint, folder)

    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        return list(pool.map(one, clusters))
