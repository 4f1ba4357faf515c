"""Subnets, addresses and ports: never one that is taken, and the same ones again."""

from __future__ import annotations

import ipaddress
import random

import pytest

from minicluster.errors import SubnetTaken, UsageError
from minicluster.profile import addressing, host_ports


def some_subnets(seed: int) -> list[str]:
    """Networks as machines have them: some within the pool, some around it, some of IPv6, some host routes."""
    dice = random.Random(seed)
    inside = [
        f"172.{dice.randint(28, 31)}.{dice.randint(0, 255)}.{dice.randint(0, 255)}/{dice.randint(18, 32)}"
        for _ in range(dice.randint(0, 40))
    ]
    return [*inside, "172.17.0.0/16", "10.0.0.0/8", "fd00::/64"]


@pytest.mark.parametrize("seed", range(50))
def test_a_chosen_subnet_overlaps_with_none_that_is_taken(seed: int) -> None:
    taken = some_subnets(seed)
    chosen = ipaddress.ip_network(addressing.choose_subnet(taken))
    assert not any(
        chosen.overlaps(other) for t in taken if (other := ipaddress.ip_network(t, strict=False)).version == 4
    )
    assert chosen.prefixlen == addressing.PREFIX
    assert chosen.subnet_of(addressing.POOL)


def test_the_first_free_subnet_is_chosen() -> None:
    first, second, third = (c for c, _ in zip(addressing.candidates(), range(3), strict=False))
    assert addressing.choose_subnet([]) == first == addressing.first_subnet()
    assert addressing.choose_subnet([first]) == second
    assert addressing.choose_subnet([first, third]) == second


def test_those_who_choose_at_once_by_keys_of_their_own_seldom_meet() -> None:
    chosen = [addressing.choose_subnet([], f"cluster-{n}") for n in range(20)]
    assert len(set(chosen)) >= 18
    assert chosen[3] == addressing.choose_subnet([], "cluster-3")
    assert addressing.choose_subnet([chosen[3]], "cluster-3") != chosen[3]


def test_a_search_by_a_key_comes_round_to_the_first_subnet() -> None:
    first, *rest = addressing.candidates()
    assert addressing.choose_subnet(rest, "anything") == first


@pytest.mark.parametrize("taken", [["172.16.0.0/12"], ["0.0.0.0/0"], ["172.28.0.0/15", "172.30.0.0/15"]])
def test_where_no_subnet_is_left_it_is_said(taken: list[str]) -> None:
    with pytest.raises(SubnetTaken) as caught:
        addressing.choose_subnet(taken)
    assert "down" in caught.value.fix


def test_nodes_get_every_address_but_the_gateways_and_those_taken() -> None:
    free = list(zip(addressing.free_addresses("10.1.2.0/24", ["10.1.2.3"]), range(3), strict=False))
    assert [address for address, _ in free] == ["10.1.2.2", "10.1.2.4", "10.1.2.5"]
    assert addressing.gateway("10.1.2.0/24") == "10.1.2.1"


def test_a_subnet_has_190_addresses_for_nodes_and_then_it_is_said() -> None:
    addresses = addressing.free_addresses("10.1.2.0/24", [])
    assert [next(addresses) for _ in range(190)][-1] == "10.1.2.191"
    assert addressing.virtual_range("10.1.2.0/24") == "10.1.2.192/27"
    assert addressing.dynamic_range("10.1.2.0/24") == "10.1.2.224/27"
    with pytest.raises(UsageError):
        next(addresses)


def test_the_same_endpoint_gets_the_same_port_again() -> None:
    port = host_ports.choose_port("swarm/master-1/docker", lambda _port: True)
    assert port in host_ports.PORTS
    assert host_ports.choose_port("swarm/master-1/docker", lambda _port: True) == port
    assert host_ports.choose_port("swarm/master-2/docker", lambda _port: True) != port


@pytest.mark.parametrize("key", ["a", "b", "swarm/master-1/docker"])
def test_a_port_that_is_taken_is_passed_over(key: str) -> None:
    port = host_ports.choose_port(key, lambda _port: True)
    assert host_ports.choose_port(key, lambda p: p != port) != port
    assert host_ports.choose_port(key, lambda p: p == host_ports.PORTS[0]) == host_ports.PORTS[0]


def test_where_no_port_is_left_it_is_said() -> None:
    with pytest.raises(UsageError, match="no free host port"):
        host_ports.choose_port("a", lambda _port: False)


def test_ports_lie_below_those_of_outgoing_connections() -> None:
    assert host_ports.PORTS.stop <= 32768
    assert host_ports.PORTS.start > 1024
