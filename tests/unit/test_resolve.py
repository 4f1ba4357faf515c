"""What runs keeps its address and ports, a spec survives its label, and a hash tells what matters."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from minicluster.errors import ProfileError, UsageError
from minicluster.model.codec import FORMAT, AnotherFormat, decode, encode, from_json, node_hash, to_json
from minicluster.model.deferred import fill
from minicluster.model.spec import (
    CertificateSpec,
    EndpointSpec,
    FileSpec,
    HookSpec,
    ImageSpec,
    NodeSpec,
    Overrides,
    Spec,
)
from minicluster.profile import catalog
from minicluster.profile.loaded import Loaded
from minicluster.profile.resolve import resolve

DATA = Path(__file__).parents[1] / "data"
SUBNET = "172.28.0.0/24"


def resolve_spec(loaded: Loaded, previous: Spec | None = None, **size: int) -> Spec:
    return resolve(loaded, cluster="c", overrides=Overrides(size=size), subnet=SUBNET, previous=previous)


def places(spec: Spec) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {n.name: (n.address, tuple(e.host_port for e in n.endpoints)) for n in spec.nodes}


# Addresses and ports


def test_nodes_get_addresses_in_their_order_and_no_two_the_same(toy: Loaded) -> None:
    spec = resolve_spec(toy, master=3, agent=2)
    assert [n.address for n in spec.nodes] == [f"172.28.0.{i}" for i in range(2, 7)]
    assert spec.gateway == "172.28.0.1"


def test_nodes_keep_addresses_and_ports_while_others_come_and_go(toy: Loaded) -> None:
    spec = resolve_spec(toy, master=1, agent=2)
    for size in (
        {"master": 3, "agent": 2},
        {"master": 3, "agent": 20},
        {"master": 1, "agent": 20},
        {"agent": 1},
        {"agent": 3},
    ):
        before, spec = places(spec), resolve_spec(toy, spec, **size)
        now = places(spec)
        assert {n: now[n] for n in now if n in before} == {n: before[n] for n in before if n in now}
        addresses = [address for address, _ports in now.values()]
        ports = list(chain.from_iterable(ports for _address, ports in now.values()))
        assert len(set(addresses)) == len(addresses)
        assert len(set(ports)) == len(ports)


def test_a_node_that_comes_does_not_get_the_address_of_one_that_leaves_in_the_same_change(toy: Loaded) -> None:
    # The one that leaves still runs while the other is started.
    before = resolve_spec(toy, master=1, agent=3)
    after = resolve_spec(toy, before, master=3, agent=1)
    leaving = {n.address for n in before.nodes if after.node(n.name) is None}
    assert leaving.isdisjoint(n.address for n in after.nodes)


def test_a_port_that_a_node_has_is_not_asked_for_again(toy: Loaded) -> None:
    # The node itself listens there, so that it would look taken.
    spec = resolve_spec(toy)
    again = resolve(
        toy, cluster="c", overrides=Overrides(), subnet=SUBNET, previous=spec, port_is_free=lambda _port: False
    )
    assert places(again) == places(spec)


def test_a_port_that_is_taken_is_not_given_to_a_new_node(toy: Loaded) -> None:
    usual = resolve_spec(toy).nodes[0].endpoints[0].host_port
    spec = resolve(toy, cluster="c", overrides=Overrides(), subnet=SUBNET, port_is_free=lambda port: port != usual)
    assert spec.nodes[0].endpoints[0].host_port != usual


def test_a_port_that_is_asked_for_replaces_the_one_it_had(toy: Loaded) -> None:
    spec = resolve(toy, cluster="c", overrides=Overrides(port={"api": 5000}), subnet=SUBNET, previous=resolve_spec(toy))
    assert spec.nodes[0].endpoints[0] == EndpointSpec("api", 2376, 5000, "https://\0host\0:\0port\0")


def test_more_nodes_than_a_subnet_has_addresses_are_refused(toy: Loaded) -> None:
    with pytest.raises(UsageError):
        resolve(toy, cluster="c", overrides=Overrides(size={"agent": 100, "master": 5}), subnet="10.0.0.0/28")


def test_the_same_profile_resolves_to_the_same_spec(toy: Loaded) -> None:
    assert resolve_spec(toy, agent=3) == resolve_spec(toy, agent=3)
    assert resolve_spec(toy, resolve_spec(toy)) == resolve_spec(toy)


def test_certificates_are_valid_for_the_node_by_name_and_address(toy: Loaded) -> None:
    (certificate,) = resolve_spec(toy).nodes[0].certificates
    assert certificate == CertificateSpec(
        "/etc/tls", "master-1", names=("master-1", "localhost"), addresses=("172.28.0.2", "127.0.0.1")
    )


def test_images_that_no_node_runs_are_left_out(toy: Loaded) -> None:
    assert list(resolve_spec(toy, helper=1).images) == ["node", "extra"]
    assert list(resolve_spec(toy, helper=0).images) == ["node"]


# Through a label and back

HAND_MADE = {
    "nothing": Spec("c", "p", SUBNET, "172.28.0.1", {}, ()),
    "everything": Spec(
        cluster="c",
        profile="p",
        subnet=SUBNET,
        gateway="172.28.0.1",
        images={
            "node": ImageSpec("node", "x:1", "build", "/r", args={"A": "1"}),
            "other": ImageSpec("other", "y", "override"),
        },
        nodes=(
            NodeSpec(
                "a-1", "a", 1, "172.28.0.2", "node", ("e",), ("c", "d"), {"A": "ä\n\"'", "B": ""}, ("/v", "/w"),
                {"/t": "size=1m"}, 1 << 30, 5, True, True, 3,
                (FileSpec("/f", "text\n@{not.deferred} ✓", 0o755),),
                (CertificateSpec("/tls", "a-1", "o", ("a-1",), ("172.28.0.2",)),),
                ("ready", ""),
                (EndpointSpec("web", 80, 8080, "http://127.0.0.1:8080"),),
                (HookSpec("node", ("join", "\0captured.t\0"), ("x", "y")),),
                (HookSpec("a", ("leave",)),), ("b",), ("/common",),
            ),
            NodeSpec("b-1", "b", 1, "172.28.0.3", "other"),
        ),
        init=(HookSpec("a", ("form",), ("t",)),),
        load=(HookSpec("node", ("load", "\0archive\0")),),
        members=HookSpec("a", ("members",)),
        env={"X": "\0client.directory\0"},
        client=CertificateSpec("", "me", issuer="another"),
        client_files=(FileSpec("config", "\0client.ca_base64\0", 0o600),),
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
        yield resolve_spec(swarm, master=masters, agent=agents)


@pytest.mark.parametrize("spec", list(some_specs()), ids=lambda s: f"{s.profile}-{len(s.nodes)}")
def test_a_spec_survives_its_label(spec: Spec) -> None:
    assert decode(encode(spec)) == spec


@pytest.mark.parametrize(
    ("text", "age"),
    [
        (f"{FORMAT + 1}:another encoding", "a newer"),
        (f"{FORMAT + 1}:", "a newer"),
        ("1:eJwDAAAAAAE=", "an older"),
        ((DATA / "records" / "0.1.0.txt").read_text().strip(), "an older"),
    ],
)
def test_a_spec_of_another_format_is_told_apart(text: str, age: str) -> None:
    with pytest.raises(AnotherFormat) as caught:
        decode(text)
    assert caught.value.age == age


def test_a_spec_that_the_version_before_stored_is_read() -> None:
    spec = replace(resolve_spec(catalog.load("swarm")), services=None, workload=None)
    data = to_json(spec)
    for item, names in (
        (data, ("services", "workload", "hosts")),
        (data["overrides"], ("hosts", "place", "encrypt")),
        *((node, ("disks", "host")) for node in data["nodes"]),
    ):
        for name in names:  # which there were not
            del item[name]
    text = base64.b64encode(zlib.compress(json.dumps(data).encode())).decode()
    assert decode(f"4:{text}") == spec
    assert encode(spec).startswith(f"{FORMAT}:")


@pytest.mark.parametrize("text", ["", "not base64!", f"{FORMAT}:not base64!", f"{FORMAT}:eJwDAAAAAAE=", "bm90IHpsaWI="])
def test_a_damaged_spec_is_of_no_format(text: str) -> None:
    with pytest.raises((ValueError, KeyError)) as caught:
        decode(text)
    assert not isinstance(caught.value, AnotherFormat)


def test_a_field_that_the_format_does_not_have_is_an_error() -> None:
    data = to_json(HAND_MADE["everything"])
    data["nodes"][0]["later"] = 1
    with pytest.raises(TypeError, match="later"):
        from_json(data)


def test_the_text_of_a_file_is_stored_once() -> None:
    """However many nodes have it: with the scripts of a role in each node, a label would grow out of bounds."""
    spec = resolve_spec(catalog.load("kubernetes"), agent=25)
    data = to_json(spec)
    files = [file for node in spec.nodes for file in (*node.files, *node.local_registry)]
    assert len(data["texts"]) == len({file.content for file in files})
    assert from_json(data) == spec
    assert len(encode(spec)) < 65536


def test_the_spec_of_25_nodes_fits_into_a_label() -> None:
    # Command lines and HTTP headers are where long labels fail; 64 KiB is far below every limit that is known.
    assert len(encode(resolve_spec(catalog.load("swarm"), master=5, agent=20))) < 65536


# What a container was made of


def change(node: NodeSpec, **fields: object) -> NodeSpec:
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
        {"privileged": True},
        {"cpus": 1.5},
        {"stop_timeout": 99},
        {"files": (FileSpec("/x", "y"),)},
        {"files": (FileSpec("/x", "y", uid=1),)},
        {"files": (FileSpec("/x", "y", gid=1),)},
        {"certificates": ()},
        {"endpoints": (EndpointSpec("api", 2376, 1, "x"),)},
        {"authority": False},
    ],
    ids=lambda f: next(iter(f)),
)
def test_the_hash_changes_with_what_a_container_is_made_of(toy: Loaded, fields: dict[str, object]) -> None:
    spec = resolve_spec(toy)
    assert node_hash(spec, change(spec.nodes[0], **fields), "a") != node_hash(spec, spec.nodes[0], "a")


@pytest.mark.parametrize(
    "fields",
    [{"join": ()}, {"leave": ()}, {"ready": ("other",)}, {"footprint": 7}],
    ids=lambda f: next(iter(f)),
)
def test_the_hash_stays_with_what_only_runs_in_a_container(toy: Loaded, fields: dict[str, object]) -> None:
    spec = resolve_spec(toy)
    assert node_hash(spec, change(spec.nodes[0], **fields), "a") == node_hash(spec, spec.nodes[0], "a")


def test_the_hash_changes_with_image_subnet_and_authority(toy: Loaded) -> None:
    spec = resolve_spec(toy)
    node = spec.nodes[0]
    others = {
        node_hash(replace(spec, images={"node": ImageSpec("node", "other", "override")}), node, "a"),
        node_hash(replace(spec, subnet="172.28.9.0/24"), node, "a"),
        node_hash(spec, node, "b"),
        node_hash(spec, node, "a"),
    }
    assert len(others) == 4


def test_the_hash_stays_over_a_label(toy: Loaded) -> None:
    spec = resolve_spec(toy)
    back = decode(encode(spec))
    assert node_hash(back, back.nodes[0], "a") == node_hash(spec, spec.nodes[0], "a")


@pytest.mark.parametrize("size", [{"agent": 5}, {"agent": 0}, {"master": 3}])
def test_nodes_stay_what_they_are_while_others_come_and_go(toy: Loaded, size: dict[str, int]) -> None:
    spec = resolve_spec(toy)
    more = resolve_spec(toy, spec, **size)
    for node in more.nodes:
        if before := spec.node(node.name):
            assert node_hash(more, node, "a") == node_hash(spec, before, "a")


# Deferred values


@pytest.mark.parametrize(
    ("argv", "filled"),
    [
        (["join", "\0token\0", "\0names\0"], ["join", "T", "a", "b"]),
        (["\0none\0", "x"], ["x"]),
        (["--names=\0names\0"], ["--names=a b"]),
        (["\0token\0\0token\0"], ["TT"]),
        (["@{token}", "{token}", "@token", "$@"], ["@{token}", "{token}", "@token", "$@"]),
        (["\0unknown\0", "x\0unknown\0"], ["\0unknown\0", "x\0unknown\0"]),
        ([], []),
    ],
)
def test_markers_are_replaced_by_values_that_are_known(argv: list[str], filled: list[str]) -> None:
    assert fill(argv, {"token": "T", "names": ["a", "b"], "none": []}) == filled


def test_what_is_filled_in_is_not_looked_at_again() -> None:
    assert fill(["\0a\0"], {"a": "\0b\0", "b": "secret"}) == ["\0b\0"]


@pytest.mark.parametrize(("asked", "privileged"), [({}, True), ({"privileged": "false"}, False)])
def test_nested_nodes_are_privileged_unless_a_setting_says_otherwise(asked: dict[str, str], privileged: bool) -> None:
    for profile in ("swarm", "kubernetes", "mesos"):
        spec = resolve_spec(catalog.load(profile, asked))
        assert {node.privileged for node in spec.nodes if node.nested} == {privileged}
        assert not any(node.privileged for node in spec.nodes if not node.nested)


def test_privileged_is_true_or_false() -> None:
    with pytest.raises(ProfileError, match=r"roles\.agent\.privileged=perhaps: 'perhaps' is neither"):
        resolve_spec(catalog.load("swarm", {"roles.agent.privileged": "perhaps"}))
