"""Which subnet a cluster gets, and which address each node. Pure."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator

from minicluster.errors import SubnetTaken, UsageError

#: Clusters take /24s out of this part of 172.16.0.0/12 (RFC 1918): clear of Docker's first default pools
#: (172.17 and up), of home routers (192.168) and of the corporate 10.0.0.0/8.
POOL = ipaddress.IPv4Network("172.28.0.0/14")
PREFIX = 24


def candidates() -> Iterator[str]:
    """Every subnet that a cluster may get, in order of preference."""
    return (str(subnet) for subnet in POOL.subnets(new_prefix=PREFIX))


def first_subnet() -> str:
    """The subnet of the first cluster on an empty machine."""
    return next(candidates())


def choose_subnet(taken: Iterable[str], key: str = "") -> str:
    """The first candidate that overlaps with none of these.

    With a key, the search starts at a place that depends on it, so that processes that choose at the same time do not
    collide again.

    Raises:
        SubnetTaken: none is left.
    """
    subnets = list(POOL.subnets(new_prefix=PREFIX))
    start = place_of(key, len(subnets)) if key else 0
    free = next(without_overlap(subnets[start:] + subnets[:start], taken), None)
    if free:
        return str(free)
    raise SubnetTaken(
        "no free subnet for the cluster",
        f"Every /{PREFIX} of {POOL} overlaps with a network of the engine or a route of this machine.",
        "Remove unused networks (`docker network prune`) or clusters (`minicluster down`).",
    )


def without_overlap(
    subnets: Iterable[ipaddress.IPv4Network], taken: Iterable[str | ipaddress.IPv4Network]
) -> Iterator[ipaddress.IPv4Network]:
    """Those of these subnets that overlap with none of the taken ones, IPv6 among which does not matter."""
    networks = (ipaddress.ip_network(each, strict=False) for each in taken)
    used = [network for network in networks if isinstance(network, ipaddress.IPv4Network)]
    return (subnet for subnet in subnets if not any(subnet.overlaps(other) for other in used))


def gateway(subnet: str) -> str:
    """The engine's own address in a subnet."""
    return str(ipaddress.ip_network(subnet)[1])


def dynamic_range(subnet: str) -> str:
    """The last eighth of a subnet, for other containers that are connected to it.

    Otherwise the engine would give them any address not in use, such as a stopped node's, which then cannot start.
    """
    return str(list(ipaddress.ip_network(subnet).subnets(3))[-1])


def virtual_range(subnet: str) -> str:
    """The last eighth but one of a subnet: addresses for what the cluster's own software moves between nodes."""
    return str(list(ipaddress.ip_network(subnet).subnets(3))[-2])


def free_addresses(subnet: str, taken: Iterable[str]) -> Iterator[str]:
    """Addresses for nodes: all but the gateway's, the virtual and the dynamic range and those that are taken."""
    used = set(taken)
    kept = {address for part in (virtual_range, dynamic_range) for address in ipaddress.ip_network(part(subnet))}
    hosts = ipaddress.ip_network(subnet).hosts()
    next(hosts)  # the gateway
    for host in hosts:
        if str(host) not in used and host not in kept:
            yield str(host)
    raise UsageError(f"too many nodes for {subnet}", "A cluster has at most 190 nodes.", "Ask for fewer.")


def place_of(key: str, places: int) -> int:
    """A number from 0 to ``places`` - 1, always the same for the same key."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % places
