"""Compares systems: a cluster of each after the other, loaded in the same way, and removed."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicluster import __version__, discovery
from minicluster.benchmark import report
from minicluster.benchmark.report import Load, Machine, Point, Report, Round, System
from minicluster.cluster import Cluster
from minicluster.engine import discover
from minicluster.errors import NodeFailed, UsageError, nearest
from minicluster.model.events import Event, Listener
from minicluster.model.lease import Lease
from minicluster.model.naming import container_name, count
from minicluster.operations import load_generator
from minicluster.operations.export import past_events

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine
    from minicluster.profile.bench import BenchSpec
    from minicluster.profile.loaded import Loaded

_TIMEOUT = 5.0  #: seconds that a request may take
_KILL_TIMEOUT = 0.3  #: the same where the leader is killed: a client then asks another node
_BUCKET = 0.1  #: seconds of a part of a timeline
_KILL_AFTER = 0.25  #: of a round


@dataclass(frozen=True)
class Options:
    """How systems are compared."""

    nodes: int = 3  #: of each system, that store the data
    loads: tuple[Load, ...] = ()
    seconds: float = 3.0  #: of a round
    warmup: float = 1.0  #: seconds before the first round
    rounds: int = 3
    keys: int = 1000
    value: int = 1024  #: bytes
    kill_leader: bool = False  #: in every round


def participants(words: Sequence[str]) -> dict[str, Loaded]:
    """The profiles that are named, or all bundled ones that take part, by their names.

    Raises:
        UsageError: a profile takes no part.
    """
    from minicluster.profile import catalog, folders

    found: dict[str, Loaded] = {}
    for word in words or folders.names():
        loaded = catalog.load(word)
        if "kv" in loaded.profile.bench:
            found[word] = loaded
        elif words:
            known = [name for name in folders.names() if "kv" in catalog.load(name).profile.bench]
            raise UsageError(
                f"profile {loaded.profile.name} cannot be compared as a key-value store",
                f"Its profile.yaml has no bench.kv. These have: {', '.join(known)}.",
                "docs/bench.md describes how to add it.",
            )
    return found


def run(
    words: Sequence[str], options: Options, settings: Mapping[str, Mapping[str, str]], listener: Listener
) -> Report:
    """Compares profiles.

    Args:
        words: profiles by name or folder; () is all bundled ones that take part.
        settings: profile's name -> what ``--set`` takes; "" is all of them.

    Raises:
        UsageError: a profile takes no part, or its cluster exists.
    """
    chosen = participants(words)
    names = {loaded.profile.name: word for word, loaded in chosen.items()}
    for name in filter(None, settings):
        if name not in names:
            raise UsageError(f"--set {name}: is not compared", "", nearest(name, names))
    engine = discover.connect(start_private=True, listener=listener)
    existing = discovery.names(engine)
    for name in names:
        if cluster_name(name) in existing:
            fix = f"`minicluster down {cluster_name(name)}` removes it."
            raise UsageError(f"cluster {cluster_name(name)} exists", "A comparison creates its own cluster.", fix)
    made = Report(
        time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        __version__,
        _machine(engine),
        options.value,
        options.keys,
        options.seconds,
        options.warmup,
        options.rounds,
        _BUCKET if options.kill_leader else 0,
    )
    if made.busy:
        listener(Event("note", text=f"the machine is busy (load {made.machine.load_before}): numbers will be too low"))
    for word, loaded in chosen.items():
        given = {**settings.get("", {}), **settings.get(loaded.profile.name, {})}
        system = _system(engine, word, loaded, options, given, listener)
        made = replace(made, systems=(*made.systems, system))
    return replace(made, ranks={} if options.kill_leader else report.ranks(made.systems))


def cluster_name(profile: str) -> str:
    """The name of the cluster that a profile is compared by."""
    return f"bench-{profile}"[:30].rstrip("-")


def _system(
    engine: Engine, word: str, loaded: Loaded, options: Options, given: Mapping[str, str], listener: Listener
) -> System:
    from minicluster.profile import bench as hooks, catalog

    own = {**loaded.profile.bench["kv"].set, **given}
    lease = Lease.owned()  # removed even if this process is killed
    up: dict[str, Any] = {"set": own, "size": hooks.sizes(loaded, "kv", options.nodes), "lease": lease}
    name = cluster_name(loaded.profile.name)
    load_generator.provide(engine, hooks.part(loaded, "kv"), listener)  # before the cluster: it may take minutes
    with Cluster.up(word, name=name, engine=engine, listener=listener, **up) as cluster:
        bench = hooks.resolve(catalog.load(word, own), cluster.spec, "kv")
        points = []
        for load in options.loads:
            listener(Event("note", text=f"{loaded.profile.name}: {_said(load)}"))
            measure = _while_the_leader_dies if options.kill_leader else _rounds
            points.append(Point(load, measure(cluster, bench, load, options, listener)))
        found = cluster.info()
        nodes = len(cluster.spec.of_role(loaded.profile.bench["kv"].role))
        return System(loaded.profile.name, found.parts, nodes, own, bench.writes, bench.reads, tuple(points))


def _said(load: Load) -> str:
    return f"{load.operation}, {count(load.clients, 'client')} on {count(load.connections, 'connection')}"


def _settings(load: Load, options: Options, rounds: int, warmup: float) -> dict[str, str]:
    return {
        "BENCH_OPERATION": load.operation,
        "BENCH_CLIENTS": str(load.clients),
        "BENCH_CONNECTIONS": str(load.connections),
        "BENCH_KEYS": str(options.keys),
        "BENCH_VALUE": str(options.value),
        "BENCH_WARMUP": f"{warmup:g}",
        "BENCH_SECONDS": f"{options.seconds:g}",
        "BENCH_ROUNDS": str(rounds),
        "BENCH_TIMEOUT": f"{_KILL_TIMEOUT if options.kill_leader else _TIMEOUT:g}",
        "BENCH_BUCKET": f"{_BUCKET if options.kill_leader else 0:g}",
    }


def _rounds(cluster: Cluster, bench: BenchSpec, load: Load, options: Options, listener: Listener) -> tuple[Round, ...]:
    found = []
    asked = _settings(load, options, options.rounds, options.warmup)
    for line in load_generator.run(cluster.engine, cluster.spec, bench, asked):
        if line["event"] == "end":
            found.append(_round(line, cluster))
            listener(Event("progress", "", "bench", f"{_said(load)}: {found[-1].rate:.0f}/s"))
    return _checked(found, options.rounds, cluster)


def _while_the_leader_dies(
    cluster: Cluster, bench: BenchSpec, load: Load, options: Options, listener: Listener
) -> tuple[Round, ...]:
    """Rounds in each of which the leader is killed, and started again afterwards."""
    found: list[Round] = []
    asked = _settings(load, options, 1, options.warmup)
    for _n in range(options.rounds):
        cluster.wait(listener=listener)
        leader = cluster.leader()
        if not leader:
            raise NodeFailed(f"cluster {cluster.name} has no leader to kill")
        with ThreadPoolExecutor(1) as pool:
            begun, killed = 0.0, None
            for line in load_generator.run(cluster.engine, cluster.spec, bench, asked):
                if line["event"] == "begin":
                    begun = time.monotonic()
                    killed = pool.submit(_kill, cluster, leader, begun + options.seconds * _KILL_AFTER)
                elif line["event"] == "end" and killed:
                    at = round(killed.result() - begun, 3)
                    found.append(replace(_round(line, cluster), killed=leader, killed_at=at))
        cluster.start(leader, listener=listener)
    return _checked(found, options.rounds, cluster)


def _kill(cluster: Cluster, node: str, at: float) -> float:
    """Kills a node at a time (``time.monotonic``), and returns when it was killed, as exactly as the engine says."""
    time.sleep(max(0.0, at - time.monotonic()))
    name, clock, begun = container_name(cluster.name, node), time.time(), time.monotonic()
    cluster.engine.kill_container(name)  # a busy engine answers late
    ended = time.monotonic()
    events = past_events(cluster.engine, cluster.name)
    told = [e.time for e in events if e.name == name and e.action in ("kill", "die") and e.time >= clock]
    return min(ended, begun + min(told) - clock) if told else ended


def _round(line: Mapping[str, Any], cluster: Cluster) -> Round:
    try:
        seconds, cpu = float(line["seconds"]), float(line["cpu"])
        return Round(
            seconds=seconds,
            operations=int(line["operations"]),
            errors=int(line.get("errors", 0)),
            p50=float(line["p50"]),
            p95=float(line["p95"]),
            p99=float(line["p99"]),
            max=float(line["max"]),
            cpu=cpu,
            client_share=round(cpu / (seconds * cluster.engine.info.cpus), 4),
            error=str(line.get("error", "")),
            gap=float(line.get("gap", 0)),
            gap_begin=float(line.get("gap_begin", 0)),
            timeline=tuple(map(int, line.get("timeline", ()))),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        why = f"The end of a round is not what docs/bench.md describes: {type(error).__name__}: {error}."
        raise NodeFailed(f"the load generator of {cluster.spec.profile} printed an invalid line", why) from None


def _checked(found: Sequence[Round], rounds: int, cluster: Cluster) -> tuple[Round, ...]:
    if len(found) != rounds:
        raise NodeFailed(f"the load generator of {cluster.spec.profile} measured {len(found)} of {rounds} rounds")
    if silent := next((one for one in found if not one.operations), None):
        raise NodeFailed(f"cluster {cluster.name} answered no request in a round", silent.error)
    return tuple(found)


def _machine(engine: Engine) -> Machine:
    info = engine.info
    return Machine(
        info.cpus,
        info.memory,
        _processor() if info.local else "",
        info.kernel,
        f"Docker {info.version}",
        f"volumes on {_filesystem(info.data_root)}" if info.local else info.storage_driver,
        round(os.getloadavg()[0], 2) if info.local else None,
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else ""


def _filesystem(path: str) -> str:
    """The kind of the file system that a path is on."""
    try:
        mounts = [line.split(" ")[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "an unknown file system"
    kinds = {place: kind for place, kind in mounts if Path(path).is_relative_to(place)}
    return kinds[max(kinds, key=len)] if kinds else "an unknown file system"
