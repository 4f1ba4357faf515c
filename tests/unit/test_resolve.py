"""What runs keeps its address and ports, a spec survives its label, and a hash tells what matters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

import pytest

from minicluster.errors import UsageError
from minicluster.profile import catalog
from minicluster.profile.load import Loaded
from minicluster.profile.resolve import resolve
from minicluster.profile.spec import (
    Certificate,
    Endpoint,
    File,
    Hook,
    Image,
    Node,
    Overrides,
    Spec,
    decode,
    encode,
    fill,
    node_hash,
)

SUBNET = "172.28.0.0/24"


def settle(loaded: Loaded, previous: Spec | None = None, **size: int) -> Spec:
    return resolve(loaded, cluster="c", overrides=Overrides(size=size), subnet=SUBNET, previous=previous)


def places(spec: Spec) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {n.name: (n.address, tuple(e.host_port for e in n.endpoints)) for n in spec.nodes}


# Addresses and ports


def test_nodes_get_addresses_in_their_order_and_no_two_the_same(toy: Loaded) -> None:
    spec = settle(toy, master=3, agent=2)
    assert [n.address for n in spec.nodes] == [f"172.28.0.{i}" for i in range(2, 7)]
    assert spec.gateway == "172.28.0.1"


def test_nodes_keep_addresses_and_ports_while_others_come_and_go(toy: Loaded) -> None:
    spec = settle(toy, master=1, agent=2)
    for size in (
        {"master": 3, "agent": 2},
        {"master": 3, "agent": 20},
        {"master": 1, "agent": 20},
        {"agent": 1},
        {"agent": 3},
    ):
        before, spec = places(spec), settle(toy, spec, **size)
        now = places(spec)
        assert {n: now[n] for n in now if n in before} == {n: before[n] for n in before if n in now}
        addresses = [address for address, _ports in now.values()]
        ports = list(chain.from_iterable(ports for _address, ports in now.values()))
        assert len(set(addresses)) == len(addresses)
        assert len(set(ports)) == len(ports)


def test_a_node_that_comes_does_not_get_the_address_of_one_that_leaves_in_the_same_change(toy: Loaded) -> None:
    # The one that leaves still runs while the other is started.
    before = settle(toy, master=1, agent=3)
    after = settle(toy, before, master=3, agent=1)
    leaving = {n.address for n in before.nodes if after.node(n.name) is None}
    assert leaving.isdisjoint(n.address for n in after.nodes)


def test_a_port_that_a_node_has_is_not_asked_for_again(toy: Loaded) -> None:
    # The node itself listens there, so that it would look taken.
    spec = settle(toy)
    again = resolve(
        toy, cluster="c", overrides=Overrides(), subnet=SUBNET, previous=spec, port_is_free=lambda _port: False
    )
    assert places(again) == places(spec)


def test_a_port_that_is_taken_is_not_given_to_a_new_node(toy: Loaded) -> None:
    usual = settle(toy).nodes[0].endpoints[0].host_port
    spec = resolve(toy, cluster="c", overrides=Overrides(), subnet=SUBNET, port_is_free=lambda port: port != usual)
    assert spec.nodes[0].endpoints[0].host_port != usual


def test_a_port_that_is_asked_for_replaces_the_one_it_had(toy: Loaded) -> None:
    spec = resolve(toy, cluster="c", overrides=Overrides(port={"api": 5000}), subnet=SUBNET, previous=settle(toy))
    assert spec.nodes[0].endpoints[0] == Endpoint("api", 2376, 5000, "https://@{host}:@{port}")


def test_more_nodes_than_a_subnet_has_addresses_are_refused(toy: Loaded) -> None:
    with pytest.raises(UsageError):
        resolve(toy, cluster="c", overrides=Overrides(size={"agent": 100, "master": 5}), subnet="10.0.0.0/28")


def test_the_same_profile_resolves_to_the_same_spec(toy: Loaded) -> None:
    assert settle(toy, agent=3) == settle(toy, agent=3)
    assert settle(toy, settle(toy)) == settle(toy)


def test_certificates_are_valid_for_the_node_by_name_and_address(toy: Loaded) -> None:
    (certificate,) = settle(toy).nodes[0].certificates
    assert certificate == Certificate(
        "/etc/tls", "master-1", names=("master-1", "localhost"), addresses=("172.28.0.2", "127.0.0.1")
    )


def test_images_that_no_node_runs_are_left_out(toy: Loaded) -> None:
    assert list(settle(toy, helper=1).images) == ["node", "extra"]
    assert list(settle(toy, helper=0).images) == ["node"]


# Through a label and back

HAND_MADE = {
    "nothing": Spec("c", "p", SUBNET, "172.28.0.1", {}, ()),
    "everything": Spec(
        cluster="c",
        profile="p",
        subnet=SUBNET,
        gateway="172.28.0.1",
        images={
            "node": Image("node", "x:1", "recipe", "/r", args={"A": "1"}, context={"f": "/g"}),
            "other": Image("other", "y", "given"),
        },
        nodes=(
            Node(
                "a-1", "a", 1, "172.28.0.2", "node", ("e",), ("c", "d"), {"A": "ä\n\"'", "B": ""}, ("/v", "/w"),
                {"/t": "size=1m"}, 1 << 30, 5, True, True, 3,
                (File("/f", "text\n@{not.late} ✓", 0o755),),
                (Certificate("/tls", "a-1", "o", ("a-1",), ("172.28.0.2",)),),
                ("ready", ""),
                (Endpoint("web", 80, 8080, "http://127.0.0.1:8080"),),
                (Hook("node", ("join", "@{captured.t}"), ("x", "y")),),
                (Hook("a", ("leave",)),), ("b",), ("/common",),
            ),
            Node("b-1", "b", 1, "172.28.0.3", "other"),
        ),
        formed=(Hook("a", ("form",), ("t",)),),
        load=(Hook("node", ("load", "@{archive}")),),
        members=Hook("a", ("members",)),
        env={"X": "@{client.directory}"},
        client=Certificate("", "me", issuer="another"),
        client_files=(File("config", "@{client.ca_base64}", 0o600),),
        kernel={"ip_vs": "no"},
        demo_image="d",
        summary="s",
        source="/p",
        overrides=Overrides({"a": 1}, {"x.y": "[1"}, {"node": "i"}, {"web": 8080}),
    ),
}  # fmt: skip


def some_specs() -> Iterator[Spec]:
    yield from HAND_MADE.values()
    swarm = catalog.load("swarm")
    for masters, agents in ((1, 2), (3, 2), (5, 20)):
        yield settle(swarm, master=masters, agent=agents)


@pytest.mark.parametrize("spec", list(some_specs()), ids=lambda s: f"{s.profile}-{len(s.nodes)}")
def test_a_spec_survives_its_label(spec: Spec) -> None:
    assert decode(encode(spec)) == spec


def test_a_spec_of_a_newer_minicluster_can_still_be_read() -> None:
    import base64
    import json
    import zlib

    spec = HAND_MADE["everything"]
    data = json.loads(zlib.decompress(base64.b64decode(encode(spec)))) | {"later": 1}
    data["nodes"][0]["later"] = data["images"]["node"]["later"] = data["overrides"]["later"] = 2
    assert decode(base64.b64encode(zlib.compress(json.dumps(data).encode())).decode()) == spec


def test_the_spec_of_25_nodes_fits_into_a_label() -> None:
    # Command lines and HTTP headers are where long labels fail; 64 KiB is far below every limit that is known.
    assert len(encode(settle(catalog.load("swarm"), master=5, agent=20))) < 65536


# What a container was made of


def change(node: Node, **fields: object) -> Node:
    return replace(node, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [
        {"command": ("x",)},
        {"entrypoint": ("x",)},
        {"env": {"A": "b"}},
        {"address": "172.28.0.99"},
        {"volumes": ()},
        {"shared": ("/x",)},
        {"capabilities": ("NET_ADMIN",)},
        {"tmpfs": {"/x": ""}},
        {"memory": 1},
        {"nested": True},
        {"stop_timeout": 99},
        {"files": (File("/x", "y"),)},
        {"certificates": ()},
        {"endpoints": (Endpoint("api", 2376, 1, "x"),)},
        {"authority": False},
    ],
    ids=lambda f: next(iter(f)),
)
def test_the_hash_changes_with_what_a_container_is_made_of(toy: Loaded, fields: dict[str, object]) -> None:
    spec = settle(toy)
    assert node_hash(spec, change(spec.nodes[0], **fields), "a") != node_hash(spec, spec.nodes[0], "a")


@pytest.mark.parametrize(
    "fields",
    [{"joined": ()}, {"leaving": ()}, {"ready": ("other",)}, {"footprint": 7}],
    ids=lambda f: next(iter(f)),
)
def test_the_hash_stays_with_what_only_runs_in_a_container(toy: Loaded, fields: dict[str, object]) -> None:
    spec = settle(toy)
    assert node_hash(spec, change(spec.nodes[0], **fields), "a") == node_hash(spec, spec.nodes[0], "a")


def test_the_hash_changes_with_image_subnet_and_authority(toy: Loaded) -> None:
    spec = settle(toy)
    node = spec.nodes[0]
    others = {
        node_hash(replace(spec, images={"node": Image("node", "other", "given")}), node, "a"),
        node_hash(replace(spec, subnet="172.28.9.0/24"), node, "a"),
        node_hash(spec, node, "b"),
        node_hash(spec, node, "a"),
    }
    assert len(others) == 4


def test_the_hash_stays_over_a_label(toy: Loaded) -> None:
    spec = settle(toy)
    back = decode(encode(spec))
    assert node_hash(back, back.nodes[0], "a") == node_hash(spec, spec.nodes[0], "a")


@pytest.mark.parametrize("size", [{"agent": 5}, {"agent": 0}, {"master": 3}])
def test_nodes_stay_what_they_are_while_others_come_and_go(toy: Loaded, size: dict[str, int]) -> None:
    spec = settle(toy)
    more = settle(toy, spec, **size)
    for node in more.nodes:
        if before := spec.node(node.name):
            assert node_hash(more, node, "a") == node_hash(spec, before, "a")


# Late values


@pytest.mark.parametrize(
    ("argv", "filled"),
    [
        (["join", "@{token}", "@{names}"], ["join", "T", "a", "b"]),
        (["@{none}", "x"], ["x"]),
        (["--names=@{names}"], ["--names=a b"]),
        (["@{token}@{token}"], ["TT"]),
        (["@{", "{token}", "@token", "$@"], ["@{", "{token}", "@token", "$@"]),
        ([], []),
    ],
)
def test_late_values_are_filled_in(argv: list[str], filled: list[str]) -> None:
    assert fill(argv, {"token": "T", "names": ["a", "b"], "none": []}) == filled


def test_what_is_filled_in_is_not_looked_at_again() -> None:
    assert fill(["@{a}"], {"a": "@{b}", "b": "secret"}) == ["@{b}"]
