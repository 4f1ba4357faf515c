"""What --set, --size, --image and --port change, and what they say where they name nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from minicluster.errors import ProfileError, UsageError
from minicluster.model.spec import Overrides, Spec
from minicluster.profile import catalog
from minicluster.profile.load import load
from minicluster.profile.loaded import Loaded
from minicluster.profile.resolve import built_images, parts_of, resolve
from tests.unit.samples import LEAST, TOY

Write = Callable[..., Path]


def converged(loaded: Loaded, **options: Mapping[str, int] | Mapping[str, str]) -> Spec:
    return resolve(loaded, cluster="c", overrides=Overrides(**options), subnet="172.28.0.0/24")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "given", "said", "hint"),
    [
        ("size", {"agnet": 3}, "--size agnet=3: no role named 'agnet'", "'agent'"),
        ("port", {"ap": 80}, "--port ap=80: no endpoint named 'ap'", "'api'"),
        ("image", {"node": ""}, "--image node=: '' is not an image reference", "docker pull"),
        ("image", {"nod": "x"}, "--image nod=x: no image named 'nod'", "'node'"),
    ],
)
def test_a_name_that_the_profile_has_not_is_refused_with_the_nearest(
    toy: Loaded, option: str, given: dict[str, str], said: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        converged(toy, **{option: given})
    assert caught.value.what == said
    assert hint in caught.value.fix


@pytest.mark.parametrize("count", [0, 2, 4, 7])
def test_a_size_that_makes_no_sense_is_refused_and_names_the_option(toy: Loaded, count: int) -> None:
    with pytest.raises(ProfileError) as caught:
        converged(toy, size={"master": count})
    assert caught.value.what.startswith(f"--size master={count}: ")
    assert caught.value.what.endswith("role master takes 1, 3 or 5 nodes")


def test_sizes_change_the_counts_asked_for_alone(toy: Loaded) -> None:
    names = [node.name for node in converged(toy, size={"master": 3, "helper": 1}).nodes]
    assert names == ["master-1", "master-2", "master-3", "agent-1", "agent-2", "helper-1"]


def test_a_setting_is_set_by_its_name_alone() -> None:
    node = converged(load(TOY, {"color": "blue"})).nodes[0]
    assert "--color=blue" in node.command


def test_a_setting_is_set_by_its_path() -> None:
    assert load(TOY, {"settings.level": "4"}).profile.settings["level"] == 4


def test_a_nested_path_may_name_what_the_profile_does_not_mention(write_profile: Write) -> None:
    loaded = load(write_profile(LEAST), {"roles.worker.env.NEW": "yes"})
    assert loaded.profile.roles["worker"].env == {"NEW": "true"}


def test_a_path_may_name_an_item_of_a_list() -> None:
    assert load(TOY, {"roles.master.command.0": "other"}).profile.roles["master"].command[0] == "other"


def test_a_value_may_be_a_list() -> None:
    assert load(TOY, {"roles.master.command": "[a, b]"}).profile.roles["master"].command == ["a", "b"]


def test_an_empty_value_is_the_empty_string() -> None:
    assert load(TOY, {"color": ""}).profile.settings["color"] == ""


def test_a_value_that_is_no_yaml_is_taken_as_it_is() -> None:
    assert load(TOY, {"color": "[red"}).profile.settings["color"] == "[red"


def test_the_profile_itself_stays_as_it_is() -> None:
    load(TOY, {"color": "blue"})
    assert load(TOY).profile.settings["color"] == "red"


@pytest.mark.parametrize(
    ("path", "hint"),
    [("colour", "'color'"), ("role.master.count", "'roles'"), ("image", "'images'"), ("x", "Available: ")],
)
def test_a_path_that_begins_nowhere_is_refused_with_the_nearest(path: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(TOY, {path: "1"})
    assert caught.value.what.startswith(f"--set {path}=1: ")
    assert hint in caught.value.fix


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("roles.master.count", "many"),
        ("roles.master.count", "2"),
        ("roles.master.comand", "[a]"),
        ("roles.master.count.x", "1"),
        ("roles.master.command.9", "a"),
        ("roles.master.command.x", "a"),
        ("roles.master.image", "nod"),
        ("roles.master.ready", "{exec: []}"),
        ("color", "[1, 2]"),
        ("settings", "1"),
    ],
)
def test_a_value_that_cannot_be_is_refused_and_names_the_option(path: str, value: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(TOY, {path: value})
    assert str(caught.value).startswith(f"--set {path}={value}: ")


def test_a_misspelt_role_is_refused_and_names_the_option() -> None:
    with pytest.raises(UsageError) as caught:
        load(TOY, {"roles.agnet.env.X": "1"})
    assert "--set roles.agnet.env.X=1" in str(caught.value)


def test_a_misspelt_setting_is_refused_by_its_path_as_by_its_name() -> None:
    with pytest.raises(UsageError):
        load(TOY, {"settings.colour": "blue"})


def test_a_position_that_is_a_digit_of_another_script_is_refused() -> None:
    with pytest.raises(UsageError):
        load(TOY, {"roles.master.command.²": "x"})


def test_an_image_of_the_user_replaces_the_build_and_takes_the_demo_image_away(toy: Loaded) -> None:
    usual, given = converged(toy), converged(toy, image={"node": "mine:1"})
    assert (usual.images["node"].source, usual.demo_image) == ("build", "toy/demo")
    assert (given.images["node"].source, given.images["node"].ref, given.demo_image) == ("override", "mine:1", "")


def test_a_port_that_is_asked_for_is_the_first_nodes_and_the_others_follow(toy: Loaded) -> None:
    spec = converged(toy, size={"master": 3}, port={"api": 5000})
    assert [(n.name, e.host_port) for n, e in spec.endpoints()] == [
        ("master-1", 5000),
        ("master-2", 5001),
        ("master-3", 5002),
    ]


@pytest.mark.parametrize("port", [0, 65536, 65535])
def test_a_port_that_is_none_is_refused(toy: Loaded, port: int) -> None:
    with pytest.raises(UsageError) as caught:
        converged(toy, size={"master": 3}, port={"api": port})
    assert caught.value.what.startswith(f"--port api={port}: ")


def test_no_two_endpoints_get_one_port_where_roles_share_an_endpoints_name(write_profile: Write) -> None:
    endpoint = "    endpoints: {web: {port: 80}}\n"
    loaded = load(write_profile(LEAST + endpoint + "  other:\n    count: 1\n    image: node\n" + endpoint))
    try:
        spec = converged(loaded, port={"web": 8080})
    except UsageError:
        return  # to refuse is as good
    ports = [e.host_port for _node, e in spec.endpoints()]
    assert len(set(ports)) == len(ports)


def test_an_automatic_port_is_never_one_that_is_asked_for(write_profile: Write) -> None:
    loaded = load(write_profile(LEAST + "    endpoints: {a: {port: 1}, b: {port: 2}}\n"))
    automatic = {e.name: e.host_port for _node, e in converged(loaded).endpoints()}
    spec = converged(loaded, port={"b": automatic["a"]})
    assert {e.name: e.host_port for _node, e in spec.endpoints()}["a"] != automatic["a"]


@pytest.mark.parametrize("path", ["roles.master.command.0.x", "roles.master.command.0.x.y", "roles.master.count.x"])
def test_a_path_through_a_single_value_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="is not a mapping or a list"):
        converged(load(TOY, {path: "1"}))


def test_a_value_that_looks_like_a_date_and_is_none_is_a_text() -> None:
    node = converged(load(TOY, {"color": "2024-13-01"})).nodes[0]
    assert "--color=2024-13-01" in node.command


# Parts of images


def parts_of_profile(name: str, **settings: str) -> dict[str, str]:
    loaded = catalog.load(name, {key.replace("__", "."): value for key, value in settings.items()})
    return {part: f"{its.version} {its.source}".strip() for part, its in parts_of(loaded).items()}


def test_the_version_is_that_of_the_main_part_and_of_what_belongs_to_it() -> None:
    now, other = parts_of_profile("swarm"), parts_of_profile("swarm", version="28")
    assert now == {"docker": "26.1.5", "docker-cli": "26.1.5", "containerd": "1.7.24", "runc": "1.1.15"}
    assert other == {"docker": "28.5.2", "docker-cli": "28.5.2", "containerd": "v2.4.2", "runc": "v1.5.3"}


def test_a_part_is_chosen_by_its_name() -> None:
    assert parts_of_profile("swarm", runc__version="1.5")["runc"] == "v1.5.3"
    assert parts_of_profile("swarm", runc__source="debian")["runc"] == "1.1.15 debian"
    chosen = parts_of_profile("swarm", version="29", **{"docker-cli__version": "28"})
    assert (chosen["docker"], chosen["docker-cli"]) == ("29.8.1", "28.5.2")
    assert parts_of_profile("etcd", etcd__version="3.7")["etcd"] == "v3.7.3"
    assert (
        parts_of_profile("etcd", version="3.7", etcd__version="3.6")["etcd"] == "v3.6.16"
    )  # what is said of the part wins


@pytest.mark.parametrize("text", ["3.10", "3.1e1", "0x1", "yes", "2024-01-01"])
def test_a_version_is_no_number(text: str) -> None:
    """As YAML would have it: 3.10 is not 3.1."""
    for settings in ({"version": text}, {"etcd.version": text}):
        with pytest.raises(UsageError, match=re.escape(f"etcd {text} is not supported")):
            parts_of(catalog.load("etcd", settings))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("docker.version", "29", "unknown key 'docker'"),
        ("etcd.versoin", "3.7", "unknown key 'etcd'"),
        ("etcd.version.x", "3.7", "unknown key 'etcd'"),
        ("etcd.source", "maven", "--set etcd.source=maven: etcd has no source maven"),
        ("etcd.source", "/nowhere.tar.gz", "--set etcd.source=/nowhere.tar.gz: cannot read /nowhere.tar.gz"),
        ("version", "3.4", "--set version=3.4: etcd 3.4 is not supported"),
        ("etcd.version", "3.4", "etcd 3.4 is not supported"),
    ],
)
def test_what_no_part_is_or_has_is_refused(key: str, value: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parts_of(catalog.load("etcd", {key: value}))
    assert said in caught.value.what


def test_an_image_is_another_one_with_another_version_of_its_parts_alone(tmp_path: Path) -> None:
    def refs(**settings: str) -> dict[str, str]:
        named = {key.replace("__", "."): value for key, value in settings.items()}
        return {name: image.ref for name, image in built_images(catalog.load("kubernetes", named)).items()}

    was = refs()
    assert refs(version="1.37") == was
    assert [name for name, ref in refs(runc__source="release").items() if ref != was[name]] == ["node"]
    assert [name for name, ref in refs(etcd__version="3.6").items() if ref != was[name]] == ["kv"]
    assert [name for name, ref in refs(grace="9s").items() if ref != was[name]] == []
    file = tmp_path / "runc"
    file.write_bytes(b"one")
    one = refs(runc__source=str(file))
    file.write_bytes(b"another")
    assert refs(runc__source=str(file))["node"] not in (one["node"], was["node"])


LISTS = """settings:
  words: [one]
  table: {a: 1}
patterns: {words: {pattern: "[a-z]+", message: m}}
"""


def test_settings_that_are_lists_or_mappings(write_profile: Write) -> None:
    def settings(**set: str) -> Mapping[str, object]:
        return load(write_profile(LEAST.replace("roles:", f"{LISTS}roles:", 1)), set).profile.settings

    assert settings() == {"words": ["one"], "table": {"a": 1}}
    assert settings(words="two,three")["words"] == settings(words="[two, three]")["words"] == ["two", "three"]
    assert settings(words="")["words"] == []
    assert settings(table="{b: [1, x]}")["table"] == {"b": [1, "x"]}
    assert settings(**{"table.b": "true"})["table"] == {"a": 1, "b": True}
    with pytest.raises(ProfileError, match="words m"):
        settings(words="two,3")
    with pytest.raises(ProfileError, match="--set table=x: table must be a mapping"):
        settings(table="x")
