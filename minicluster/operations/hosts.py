"""Clusters on several hosts: where nodes go, and what hosts need for them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from minicluster import pki
from minicluster.errors import MiniclusterError, UsageError
from minicluster.host import procfs
from minicluster.model import labels
from minicluster.model.naming import listed

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine, Swarm
    from minicluster.model.spec import Spec
    from minicluster.plan.observed import Observed
    from minicluster.plan.placement import Host

T = TypeVar("T")
KERNEL = "Use a kernel with CONFIG_INET_ESP."
_NOTICED = 20.0  # seconds that a swarm takes to notice that a member is lost, at most


def placed(
    engine: Engine, spec: Spec, observed: Observed, asked: Collection[str]
) -> tuple[Spec, Mapping[str, str], Observed]:
    """The spec with a host for each node, why it is there, and what is observed as seen by that spec.

    ``asked``: the nodes and roles that the user places now.

    Raises:
        MiniclusterError: see :func:`minicluster.plan.placement.place`; or the hosts have no swarm in common.
    """
    from minicluster.plan import placement

    check_machines(engine)
    swarms = each(engine, lambda host: host.swarm())
    before = observed.spec
    if before is None:
        refuse_gone(engine, "--hosts")
        check_clocks(engine)
    inside = _inside(engine, swarms, before)
    hosts = machines(engine, inside)
    # Hosts that left the swarm, as one that was away and forgotten, can have no node until they join it again.
    outside = dict.fromkeys(swarms, "it is not part of the swarm; `minicluster hosts init` lets it join")
    away = {**observed.gone, **engine.gone}
    gone = {**away, **{name: why for name, why in outside.items() if name not in inside}}
    if spec.overrides.encrypt and before is None:
        check_encryption(engine)
    spec, why = placement.place(spec, before, hosts, gone, asked)
    former = {node.name: node.host for node in before.nodes} if before else {}
    left = {former[name] for name in why if former.get(name) in away}
    forgotten = {host: id_ for host in sorted(left) if before and (id_ := _lost(engine, host, before, inside))}
    return spec, why, replace(observed.placed(spec), forgotten=forgotten)


def refuse_gone(engine: Engine, words: str) -> None:
    """Refuses to begin without a host that the user named; ``words`` are those that stand before the hosts."""
    for name, why in engine.gone.items():
        fix = f"Start its engine, or leave it out of the hosts: `{words} {','.join(engine.hosts)}`."
        raise MiniclusterError(f"host {name} does not answer", why, fix)


def _inside(engine: Engine, swarms: Mapping[str, Swarm], before: Spec | None) -> dict[str, Swarm]:
    """The hosts that are part of the swarm; all of them have to be when a cluster is created."""
    if before is None:
        check_swarm(engine, swarms)
        return dict(swarms)
    manager = next((swarm for swarm in swarms.values() if swarm.manager), None)
    if manager is None:
        check_swarm(engine, swarms)
    members = {node.id for node in manager.nodes} if manager else set()
    return {name: swarm for name, swarm in swarms.items() if swarm.id in members}


def _lost(engine: Engine, host: str, before: Spec, inside: Mapping[str, Swarm]) -> str:
    """The engine of a host that does not answer in the swarm; "" where the swarm does not have it any more.

    Raises:
        MiniclusterError: the swarm is not minicluster's, it is not clear which one it is, or the swarm reaches it.
    """
    name, manager = next((name, swarm) for name, swarm in inside.items() if swarm.manager)
    here = {swarm.id for swarm in inside.values()}
    end = time.monotonic() + _NOTICED
    while True:
        away = [node for node in manager.nodes if node.id not in here]
        its = [node for node in away if node.address == before.hosts.get(host)]
        if not any(node.ready for node in its) or time.monotonic() > end:
            break
        time.sleep(0.5)
        now = engine.hosts[name].swarm()
        manager = now if now.manager else manager  # while they elect a leader they know nothing
    if any(node.ready for node in its):
        raise MiniclusterError(
            f"the nodes of host {host} cannot be moved: its swarm still gets answers from it",
            "Only its engine's API does not answer here; its nodes may be running.",
            f"Make its engine answer here (docker context {host}), or stop it.",
        )
    lost = its or [node for node in away if not node.ready]
    if not lost:
        return ""
    if labels.HOSTS not in manager.labels or len(its) != 1:
        ids = " or ".join(f"{one.id} ({one.name}, {one.address})" for one in lost)
        raise MiniclusterError(
            f"the nodes of host {host} cannot be moved while it is a member of the swarm",
            "The swarm keeps their addresses for it, and "
            + (
                "minicluster did not make the swarm."
                if labels.HOSTS not in manager.labels
                else f"none of its members that do not answer is known to be {host}."
                if not its
                else "several of its members have that address."
            ),
            f"Remove it on a manager, `docker node demote ID` and then `docker node rm --force ID`: {ids}.",
        )
    return its[0].id


def machines(engine: Engine, swarms: Mapping[str, Swarm]) -> dict[str, Host]:
    """What a placement has to know of hosts."""
    from minicluster.plan.placement import Host

    with ThreadPoolExecutor(len(swarms) or 1) as pool:
        free = dict(zip(swarms, pool.map(lambda name: free_memory(engine.hosts[name]), swarms), strict=True))
    return {name: Host(address_of(engine.hosts[name], swarm), free[name]) for name, swarm in swarms.items()}


def copy_records(engine: Engine, spec: Spec) -> None:
    """Gives a host that was away what every host has a copy of: the records of what the cluster is, and its lease."""
    copies = [v for v in engine.volumes(spec.cluster) if labels.HOST not in v.labels and "@" not in v.name]
    for name, its in each(engine, lambda host: host.volumes(spec.cluster)).items():
        there = {volume.name for volume in its}
        for copy in copies if name in spec.hosts else ():
            if copy.name not in there:
                engine.hosts[name].create_volume(copy.name, copy.labels)


def each(engine: Engine, call: Callable[[Engine], T]) -> dict[str, T]:
    """What each host says, asked at once."""
    names = list(engine.hosts)
    with ThreadPoolExecutor(len(names) or 1) as pool:
        return dict(zip(names, pool.map(lambda name: call(engine.hosts[name]), names), strict=True))


def check_machines(engine: Engine) -> None:
    """Refuses hosts that are the same engine, and hosts that cannot run the same images.

    Raises:
        UsageError: with the names of those hosts.
    """
    infos = each(engine, lambda host: host.info)
    by_id: dict[str, list[str]] = {}
    by_platform: dict[str, list[str]] = {}
    for name, info in infos.items():
        by_id.setdefault(info.id or name, []).append(name)
        by_platform.setdefault(info.platform, []).append(name)
    if same := next((names for names in by_id.values() if len(names) > 1), None):
        raise UsageError(
            f"hosts {listed(same)} are the same engine",
            "Nodes on them would be lost together.",
            f"Name only one of them; `docker context inspect {' '.join(same)}` shows where they lead.",
        )
    if len(by_platform) > 1:
        raise UsageError(
            "the hosts have different platforms",
            "\n".join(f"{platform}: {', '.join(names)}." for platform, names in by_platform.items())
            + "\nNode images are built once, for one platform.",
            "Use hosts of one platform.",
        )


def check_clocks(engine: Engine) -> None:
    """Refuses hosts on whose clocks certificates that are made now are not valid yet.

    Raises:
        MiniclusterError: a clock is behind by too much.
    """
    behind = {name: time.time() - clock for name, clock in each(engine, lambda host: host.clock()).items()}
    if late := {name: seconds for name, seconds in behind.items() if seconds > pki.SKEW.total_seconds()}:
        raise MiniclusterError(
            f"the clock of host {', '.join(late)} is behind",
            "\n".join(f"{name}: by {seconds / 60:.0f} minutes" for name, seconds in late.items())
            + "\nThe nodes' certificates would not be valid there yet.",
            "Run an NTP client there; `minicluster hosts check` shows the clocks.",
        )


def check_swarm(engine: Engine, swarms: Mapping[str, Swarm]) -> None:
    """Refuses hosts that are not all part of one swarm."""
    names = ",".join([*engine.hosts, *engine.gone])
    outside = [name for name, swarm in swarms.items() if not swarm.id]
    if outside:
        raise MiniclusterError(
            f"{', '.join(outside)}: not part of a Docker Swarm",
            "A cluster on several hosts has a network of the swarm that they are part of.",
            f"`minicluster hosts init {names}` makes one.",
        )
    managers = managers_of(
        swarms,
        "no host manages the swarm",
        "Add a manager to the hosts; or start the engines of those that do not answer.",
    )
    members = {node.id for node in managers[0].nodes}
    for name, swarm in swarms.items():
        if swarm.id not in members:
            raise MiniclusterError(
                f"host {name} is part of another Docker Swarm than the others",
                "A cluster's network is one of a single swarm.",
                f"Use hosts of one swarm, or have {name} leave its own: `docker --context {name} swarm leave`.",
            )


def managers_of(swarms: Mapping[str, Swarm], what: str, fix: str) -> list[Swarm]:
    """The swarms of the hosts that are managers. Raises ``MiniclusterError`` with these words where none is."""
    managers = [swarm for swarm in swarms.values() if swarm.manager]
    if not managers:
        errors = "\n".join(f"{name}: {swarm.error}" for name, swarm in swarms.items() if swarm.error)
        raise MiniclusterError(what, errors or "None of the hosts that answer is a manager of it.", fix)
    return managers


def free_memory(host: Engine) -> int:
    """Bytes of memory that are free on a host; all that it has, where that cannot be asked."""
    return available_memory(host) or host.info.memory


def available_memory(host: Engine) -> int:
    """Bytes of memory that are free on a host; 0 where no image of ours is there to ask with."""
    return procfs.parse_memory(host.machine_file("/proc/meminfo")).get("MemAvailable", 0)


def address_of(host: Engine, swarm: Swarm) -> str:
    """The address by which a host is reached from here: that of its URL, else the one that other hosts use."""
    parts = urlsplit(host.endpoint)
    if parts.scheme in ("tcp", "http", "https", "ssh") and parts.hostname:
        try:
            return socket.gethostbyname(parts.hostname)
        except OSError:  # a name of ssh's configuration
            return swarm.address
    return swarm.address


def has_esp(host: Engine) -> str:
    """Whether a kernel has IPsec's ESP: yes, no, or "module" where it may be loaded; "" where nothing can be asked."""
    symbols = host.machine_file("/proc/kallsyms")
    if not symbols:
        return ""
    if "esp4" in symbols:
        return "yes"
    return "module" if host.machine_file("/proc/modules") else "no"


def check_encryption(engine: Engine) -> None:
    """Refuses to encrypt the network of hosts whose kernels cannot: no packet would pass between them.

    Raises:
        MiniclusterError: a kernel has no ESP.
    """
    lacking = [name for name, state in each(engine, has_esp).items() if state == "no"]
    if lacking:
        raise MiniclusterError(
            f"--encrypt: the kernel of {', '.join(lacking)} has no ESP",
            "Encrypted networks are IPsec: no packet would pass between the hosts.",
            f"{KERNEL} Or leave out --encrypt.",
        )
