"""What ``hosts status`` and ``hosts check`` say of several hosts."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from minicluster.errors import MiniclusterError, UsageError
from minicluster.model import labels
from minicluster.model.membership import Member, Quorum
from minicluster.operations.hosts import KERNEL, address_of, available_memory, check_machines, each, has_esp

if TYPE_CHECKING:
    from minicluster.doctor import Check
    from minicluster.engine.protocol import Engine, Swarm

_SKEW = 1.0  # seconds that clocks may differ by
_ETHERNET, _VXLAN = 1500, 50  # bytes of a packet, and of them those that VXLAN takes


@dataclass(frozen=True)
class HostInfo:
    """A host, as ``hosts status`` and ``hosts check`` show it."""

    host: str
    address: str
    engine: str  #: its version, or why it does not answer
    answers: bool
    role: str = ""  #: in the swarm: manager, leader, worker; "" where it is part of none
    cpus: int = 0
    memory: int = 0  #: bytes
    free: int = 0  #: bytes; 0 where that cannot be asked
    milliseconds: float = 0  #: for an answer of its engine
    clusters: tuple[str, ...] = ()


@dataclass(frozen=True)
class HostsStatus:
    """Hosts and their swarm, as ``hosts status`` and ``hosts check`` show them."""

    hosts: tuple[HostInfo, ...]
    quorum: Quorum | None  #: of the swarm's managers
    ours: bool  #: minicluster made the swarm
    notes: tuple[str, ...] = ()
    checks: Mapping[str, tuple[Check, ...]] | None = None  #: host -> what ``doctor`` says, and of its clock and network


def status(engine: Engine) -> HostsStatus:
    """The hosts and their swarm."""
    swarms = each(engine, lambda host: host.swarm())
    facts = each(engine, _facts)
    manager = next((swarm for swarm in swarms.values() if swarm.manager), None)
    nodes = {node.id: node for node in manager.nodes} if manager else {}
    found = []
    for name, host in engine.hosts.items():
        swarm, (milliseconds, clusters, free) = swarms[name], facts[name]
        node, info = nodes.get(swarm.id), host.info
        role = (
            "" if not swarm.id else "worker" if not (node and node.manager) else "leader" if node.leader else "manager"
        )
        found.append(
            HostInfo(
                name,
                address_of(host, swarm),
                info.version,
                True,
                role,
                info.cpus,
                info.memory,
                free,
                milliseconds,
                clusters,
            )
        )
    found += [HostInfo(name, "", why, False) for name, why in engine.gone.items()]
    by_id = {swarm.id: name for name, swarm in swarms.items()}
    managers = [
        Member(by_id.get(node.id, node.name), node.ready, voter=True, leader=node.leader, group="managers")
        for node in nodes.values()
        if node.manager
    ]
    quorum = Quorum.of(managers)
    ours = bool(manager and labels.HOSTS in manager.labels)
    return HostsStatus(tuple(found), quorum, ours, tuple(_notes(engine, swarms, manager)))


def _facts(host: Engine) -> tuple[float, tuple[str, ...], int]:
    begun = time.monotonic()
    clusters = {c.labels[labels.CLUSTER] for c in host.containers()}
    milliseconds = round(1000 * (time.monotonic() - begun), 1)
    return milliseconds, tuple(sorted(clusters)), available_memory(host)


def _notes(engine: Engine, swarms: Mapping[str, Swarm], manager: Swarm | None) -> list[str]:
    names = ",".join(engine.hosts)  # `hosts init` takes no others
    outside = [name for name, swarm in swarms.items() if not swarm.id]
    notes = []
    try:
        check_machines(engine)
    except UsageError as error:
        why = " ".join(error.why.splitlines())
        notes.append(f"{error.what[:1].upper()}{error.what[1:]}. {why} {error.fix}")
    if outside:
        notes.append(f"{', '.join(outside)}: not part of a swarm; `minicluster hosts init {names}` makes one.")
    elif manager is None:
        said = next((f"{name}: {swarm.error}" for name, swarm in swarms.items() if swarm.error), "none is a manager")
        notes.append(f"No host manages the swarm ({said}): no network is created or removed, and no node is started.")
    return notes


def check(engine: Engine) -> HostsStatus:
    """The hosts, and what may stand in the way of a cluster on them, as ``doctor`` does for one machine."""
    from minicluster import doctor

    found = status(engine)
    addresses = {one.host: one.address for one in found.hosts}
    roles = {one.host: one.role for one in found.hosts}
    mtus = each(engine, _mtu)

    def examine(name: str) -> tuple[Check, ...]:
        host = engine.hosts[name]
        checks = [one for one in doctor.examine(host, None, 0, None) if one.name != "subnets"]
        return (
            *checks,
            _clock(host),
            _mtu_check(mtus[name], mtus),
            _ports(addresses[name], roles[name]),
            _esp(host),
        )

    names = list(engine.hosts)
    with ThreadPoolExecutor(len(names)) as pool:
        checks = dict(zip(names, pool.map(examine, names), strict=True))
    return replace(found, checks=checks)


def _clock(host: Engine) -> Check:
    from minicluster.doctor import Check

    begun = time.time()
    try:
        theirs = host.clock()
    except MiniclusterError as error:
        return Check("clock", "warning", error.what, error.fix)
    ours = (begun + time.time()) / 2
    skew = theirs - ours
    text = f"{abs(skew) * 1000:.0f} ms {'ahead of' if skew > 0 else 'behind'} this machine's"
    if abs(skew) < _SKEW:
        return Check("clock", "ok", text)
    return Check("clock", "warning", text, "Certificates and leases need clocks that agree: run an NTP client there.")


def _mtu(host: Engine) -> int:
    """Bytes of the largest packet of the interface with the default route; 0 where that cannot be asked."""
    lines = host.machine_file("/proc/net/route").splitlines()[1:]
    device = next((line.split()[0] for line in lines if line.split()[1:2] == ["00000000"]), "")
    text = host.machine_file(f"/sys/class/net/{device}/mtu").strip() if device else ""
    return int(text) if text.isdecimal() else 0


def _mtu_check(mtu: int, all_: Mapping[str, int]) -> Check:
    from minicluster.doctor import Check

    known = [value for value in all_.values() if value]
    if not mtu:
        return Check("MTU", "ok", "not known: no image of minicluster is there to ask with")
    text = f"{mtu}, of which the cluster's network has {mtu - _VXLAN}"
    if mtu >= _ETHERNET and min(known) == max(known):
        return Check("MTU", "ok", text)
    fix = f"Cluster networks use packets of {_ETHERNET - _VXLAN} bytes: they are lost where the MTU is less than 1500."
    return Check("MTU", "ok" if mtu >= _ETHERNET else "warning", text, fix)


def _ports(address: str, role: str) -> Check:
    """Whether the swarm's ports answer from here; that of VXLAN answers nothing, so it cannot be tried."""
    from minicluster.doctor import Check

    if not role:
        return Check("ports", "ok", "2377/tcp, 7946/tcp and udp, and 4789/udp are used once it is part of a swarm")
    wanted = [7946] if role == "worker" else [2377, 7946]
    closed = []
    for port in wanted:
        try:
            socket.create_connection((address, port), 2.0).close()
        except OSError as error:
            closed.append(f"{port}/tcp: {error.strerror or error}")
    if closed:
        fix = "Other hosts need 2377/tcp, 7946/tcp and udp, and 4789/udp: open them in the firewall."
        return Check("ports", "warning", f"from this machine, at {address}: {'; '.join(closed)}", fix)
    return Check("ports", "ok", f"{', '.join(f'{port}/tcp' for port in wanted)} answer at {address}")


def _esp(host: Engine) -> Check:
    """Whether the kernel can encrypt networks."""
    from minicluster.doctor import Check

    plain = "the hosts' network is not encrypted without --encrypt"
    match has_esp(host):
        case "yes":
            return Check("encryption", "ok", f"the kernel has ESP; {plain}")
        case "no":
            return Check("encryption", "warning", f"the kernel has no ESP, which --encrypt needs; {plain}", KERNEL)
        case "module":
            return Check("encryption", "ok", f"ESP (module esp4) is not loaded, and --encrypt needs it; {plain}")
    return Check("encryption", "ok", f"ESP not checked: no image of minicluster is there to ask with; {plain}")
