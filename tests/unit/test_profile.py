"""What is wrong with a profile is said with file, line and column, and with the nearest right word."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minicluster.errors import ProfileError, UsageError
from minicluster.profile import catalog
from minicluster.profile.load import load
from tests.unit.samples import LEAST

Write = Callable[..., Path]


def refused(folder: Path) -> ProfileError:
    with pytest.raises(ProfileError) as caught:
        load(folder)
    assert caught.value.exit_code == 2
    return caught.value


def test_the_least_profile_is_valid(write_profile: Write) -> None:
    assert load(write_profile(LEAST)).profile.roles["worker"].count == 1


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("name: x\nroles: [a, b\n", "3:1", "not valid YAML"),
        ("name: x\n\tsummary: y\n", "2:1", "not valid YAML"),
        ("name: x\nsummary: !!python/name:os.system\n", "2:10", "not valid YAML"),
        ("- a\n- b\n", "1:1", "a profile is a mapping"),
        ("", "1:1", "a profile is a mapping"),
        ("name: x\n? [a, b]\n: c\n", "2:3", "a key must be a scalar"),
    ],
)
def test_what_is_no_yaml_is_refused_where_it_stands(write_profile: Write, text: str, place: str, said: str) -> None:
    folder = write_profile(text)
    assert refused(folder).what.startswith(f"{folder}/profile.yaml:{place}: {said}")


def test_a_file_that_is_not_utf8_is_refused(write_profile: Write) -> None:
    folder = write_profile(LEAST)
    (folder / "profile.yaml").write_bytes(b"name: \xff\n")
    assert "cannot be read" in refused(folder).what


def test_a_folder_without_a_profile_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refused(tmp_path).what


def test_a_key_given_twice_is_refused_at_the_second(write_profile: Write) -> None:
    error = refused(write_profile(LEAST + "    count: 2\n"))
    assert "profile.yaml:10:5: key 'count' is given twice" in error.what


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("count: 1", "count: many", "profile.yaml:8:12: roles.worker.count must be "),
        ("count: 1", "count: -1", "profile.yaml:8:12: roles.worker.count must be "),
        ("count: 1", "count: 1\n    command: serve", "profile.yaml:9:14: roles.worker.command must be "),
        ("count: 1", "count: 1\n    volumes: [data]", "profile.yaml:9:15: roles.worker.volumes.0 must be "),
        ("count: 1", "count: 1\n    ready: {exec: []}", "profile.yaml:9:19: roles.worker.ready.exec must not be empty"),
        ("count: 1", "count: 1\n    env: {A: null}", "profile.yaml:9:14: roles.worker.env.A must be "),
        ("count: 1", "count: 1\n    memory: a lot", "profile.yaml:9:13: roles.worker.memory must be "),
        ("name: least", "name: Least", "profile.yaml:2:7: name must be "),
        ("  worker:", "  Worker:", "profile.yaml:7:3: roles.Worker must be "),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_its_place_and_name(
    write_profile: Write, old: str, new: str, said: str
) -> None:
    error = refused(write_profile(LEAST.replace(old, new)))
    assert said in error.what


@pytest.mark.parametrize(
    ("old", "new", "place", "hint"),
    [
        ("summary: s", "summary: s\nrolls: {}", "4:1", "'roles'"),
        ("count: 1", "count: 1\n    comand: [a]", "9:5", "'command'"),
        ("count: 1", "count: 1\n    hooks: {joni: []}", "9:13", "'join'"),
        ("count: 1", "count: 1\n    ready: {exce: [a]}", "9:13", "'exec'"),
        ("count: 1", "count: 1\n    certificates: [{directry: /a}]", "9:21", "'directory'"),
        ("{image: example/node}", "{imge: example/node}", "5:10", "'image'"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(
    write_profile: Write, old: str, new: str, place: str, hint: str
) -> None:
    error = refused(write_profile(LEAST.replace(old, new, 1)))
    (line,) = [line for line in str(error).splitlines() if f"profile.yaml:{place}: unknown key" in line]
    assert hint in line


@pytest.mark.parametrize(
    ("line", "key", "place"), [("summary: s", "summary", ":1:1"), ("    image: node\n", "image", ":8:5")]
)
def test_a_missing_key_is_named(write_profile: Write, line: str, key: str, place: str) -> None:
    error = refused(write_profile(LEAST.replace(line, "")))
    assert f"lacks the key {key!r}" in error.what
    assert f"profile.yaml{place}: " in error.what


def test_all_that_is_wrong_is_said_at_once(write_profile: Write) -> None:
    error = refused(
        write_profile(LEAST.replace("count: 1", "count: x\n    nested: maybe").replace("summary: s", "sum: s"))
    )
    for key in ("count", "nested", "'sum'", "'summary'"):
        assert key in str(error)


def test_a_count_that_is_a_truth_value_is_refused(write_profile: Write) -> None:
    refused(write_profile(LEAST.replace("count: 1", "count: yes")))


@pytest.mark.parametrize("word", ["true", "3", "1.5"])
def test_environment_variables_may_be_written_as_numbers_and_truth_values(write_profile: Write, word: str) -> None:
    loaded = load(
        write_profile(LEAST.replace("count: 1", f"count: 1\n    env: {{A: {word}}}") + f"env: {{B: {word}}}\n")
    )
    assert loaded.profile.roles["worker"].env == {"A": word}
    assert loaded.profile.env == {"B": word}


def test_an_alias_stands_for_what_it_names(write_profile: Write) -> None:
    folder = write_profile(LEAST + "    env: &e {A: x}\n  other: {count: 1, image: node, env: *e}\n")
    assert load(folder).profile.roles["other"].env == {"A": "x"}


def test_an_override_of_one_alias_leaves_the_others_alone(write_profile: Write) -> None:
    folder = write_profile(LEAST + "    env: &e {A: x}\n  other: {count: 1, image: node, env: *e}\n")
    roles = load(folder, {"roles.other.env.A": "y"}).profile.roles
    assert (roles["worker"].env, roles["other"].env) == ({"A": "x"}, {"A": "y"})


@pytest.mark.parametrize("text", ["settings: &a {b: *a}\n", "settings: &a [*a, *a]\n"])
def test_an_alias_that_names_its_own_parent_is_refused(write_profile: Write, text: str) -> None:
    assert "nested too deeply" in refused(write_profile(LEAST + text)).what


@pytest.mark.parametrize("image", ["{build: image, image: example/node}", "{}"])
def test_an_image_has_either_a_build_or_a_reference(write_profile: Write, image: str) -> None:
    folder = write_profile(LEAST.replace("{image: example/node}", image), {"image/Dockerfile": "FROM x"})
    assert "profile.yaml:5:9: image 'node' needs either build or image" in refused(folder).what


def test_a_build_without_a_dockerfile_is_refused(write_profile: Write) -> None:
    folder = write_profile(LEAST.replace("{image: example/node}", "{build: image}"))
    assert "profile.yaml:5:17: no Dockerfile in 'image'" in refused(folder).what


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "files/../../secret"])
def test_a_file_outside_of_the_profile_is_refused(write_profile: Write, path: str) -> None:
    folder = write_profile(LEAST + f"    files: {{/etc/x: {{source: {path}}}}}\n")
    (folder.parent / "secret").write_text("s")
    error = refused(folder)
    assert "is outside of the profile's folder" in error.what
    assert "profile.yaml:10:30" in error.what


def test_a_link_out_of_the_profile_is_refused(write_profile: Write) -> None:
    folder = write_profile(LEAST + "    files: {/etc/x: {source: link}}\n")
    (folder.parent / "secret").write_text("s")
    (folder / "link").symlink_to("../secret")
    assert "is outside" in refused(folder).what


def test_a_build_outside_of_the_profile_is_refused(write_profile: Write) -> None:
    assert "is outside" in refused(write_profile(LEAST.replace("{image: example/node}", "{build: ..}"))).what


def test_a_file_that_is_not_there_is_refused(write_profile: Write) -> None:
    assert "no such file: x.j2" in refused(write_profile(LEAST + "    files: {/etc/x: {source: x.j2}}\n")).what


def test_a_node_certificate_needs_a_directory(write_profile: Write) -> None:
    error = refused(write_profile(LEAST + "    authority: true\n    certificates: [{organization: o}]\n"))
    assert "profile.yaml:11:20: a node's certificate needs a directory" in error.what


def test_the_client_certificate_needs_no_directory(write_profile: Write) -> None:
    assert load(write_profile(LEAST + "    authority: true\nclient: {certificate: {common_name: me}}\n")).profile.client


def test_certificates_need_a_role_that_keeps_their_authority(write_profile: Write) -> None:
    for text in ("    certificates: [{directory: /tls}]\n", "client: {certificate: {common_name: me}}\n"):
        error = refused(write_profile(LEAST + text))
        assert "authority: true" in error.fix


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("hooks: {init: [{on: woker, run: [a]}]}\n", "10:21"),
        ("hooks: {load: [{on: woker, run: [a]}]}\n", "10:21"),
        ("members: {on: woker, run: [a]}\n", "10:15"),
        ("    hooks: {join: [{on: woker, run: [a]}]}\n", "10:25"),
        ("    hooks: {leave: [{on: woker, run: [a]}]}\n", "10:26"),
    ],
)
def test_a_hook_on_an_unknown_role_is_refused_with_the_nearest(write_profile: Write, text: str, place: str) -> None:
    error = refused(write_profile(LEAST + text))
    assert f"profile.yaml:{place}: no role named 'woker'" in error.what
    assert "'worker'" in error.fix


def test_a_role_with_an_unknown_image_is_refused_with_the_nearest(write_profile: Write) -> None:
    error = refused(write_profile(LEAST.replace("image: node", "image: nod")))
    assert "profile.yaml:9:12: no image named 'nod'" in error.what
    assert "'node'" in error.fix


@pytest.mark.parametrize("count", [2, 4])
def test_an_even_number_of_voters_is_refused_with_the_reason(write_profile: Write, count: int) -> None:
    error = refused(write_profile(LEAST.replace("count: 1", f"count: {count}\n    allowed: [1, 3, 5]")))
    assert "profile.yaml:8:12: " in error.what
    assert error.what.endswith("role worker takes 1, 3 or 5 nodes")
    assert "even" in error.why


@pytest.mark.parametrize("count", [5, 1])
def test_a_count_outside_of_what_the_role_allows_is_refused(write_profile: Write, count: int) -> None:
    error = refused(write_profile(LEAST.replace("count: 1", f"count: {count}\n    min: 2\n    max: 4")))
    assert error.what.endswith("profile.yaml:8:12: role worker takes 2 to 4 nodes")


def test_a_fixed_setting_that_there_is_not_is_refused_with_the_nearest(write_profile: Write) -> None:
    error = refused(write_profile(LEAST + "settings: {tls: true, quota: 1}\nimmutable: [quota, tsl]\n"))
    assert "profile.yaml:11:20: no setting named 'tsl'" in error.what
    assert "'tls'" in error.fix


@pytest.mark.parametrize(
    ("default", "given", "value"),
    [
        ("50", "60", 60),
        ("1.5", "2.5", 2.5),
        ("1.5", "2", 2),
        ("true", "no", False),
        ("dc1", "12", "12"),
        ("''", "on", "on"),
        ("'7'", "~", "~"),
        ("a", "'b c'", "b c"),
        ("a", "", ""),
    ],
)
def test_a_setting_stays_what_the_profile_has_it_as(write_profile: Write, default: str, given: str, value: Any) -> None:
    folder = write_profile(LEAST + f"settings: {{it: {default}}}\n")
    assert load(folder, {"it": given}).profile.settings == {"it": value}
    assert load(folder, {"settings.it": given}).profile.settings == {"it": value}


@pytest.mark.parametrize(
    ("default", "given", "said"),
    [
        ("50", "abc", "must be an integer"),
        ("50", "0.5", "must be an integer"),
        ("50", "true", "must be an integer"),
        ("50", "", "must be an integer"),
        ("1.5", "abc", "must be a number"),
        ("true", "maybe", "must be true or false"),
        ("false", "1", "must be true or false"),
    ],
)
def test_a_setting_of_another_type_is_refused(write_profile: Write, default: str, given: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(write_profile(LEAST + f"settings: {{it: {default}}}\n"), {"it": given})
    assert caught.value.what == f"--set it={given}: it {said}"
    assert caught.value.fix == f"The default is {default}."


@pytest.mark.parametrize(
    ("profile", "setting", "said"),
    [
        ("etcd", "heartbeat=0", "must be a positive integer"),
        ("etcd", "quota=-1", "must be a number of bytes"),
        ("etcd", "log_level=loud", "must be debug, info, warn, error, panic or fatal"),
        ("zookeeper", "heap=99999x", "must be a size"),
        ("zookeeper", "tick_time=-1", "must be a positive integer"),
        ("consul", "datacenter=a b", "must be letters, digits, _ and -"),
        ("swarm", "heartbeat=banana", "must be a duration"),
        ("mesos", "ports=8000", "must be ranges of ports"),
        ("kubernetes", "grace=5", "must be a duration"),
        ("kubernetes", "heartbeat=0", "must be a positive integer"),
        ("zookeeper", "init_limit=0", "must be a positive integer"),
        ("swarm", "heartbeat=0s", "must be a duration greater than 0"),
    ],
)
def test_the_settings_of_profiles_have_patterns_with_words(profile: str, setting: str, said: str) -> None:
    name, _, value = setting.partition("=")
    with pytest.raises(ProfileError, match=re.escape(f"--set {setting}: {name} {said}")):
        catalog.load(profile, {name: value})


def test_an_overlay_needs_a_dockerfile(write_profile: Write) -> None:
    folder = write_profile(LEAST.replace("{image: example/node}", "{image: example/node, overlay: outfit}"))
    assert "profile.yaml:5:40: no Dockerfile in 'outfit'" in refused(folder).what
    (folder / "outfit").mkdir()
    assert "no Dockerfile in 'outfit'" in refused(folder).what
    (folder / "outfit/Dockerfile").write_text("ARG IMAGE\nFROM ${IMAGE}\n")
    assert load(folder).profile.images["node"].overlay == "outfit"


def test_an_overlay_outside_of_the_profile_is_refused(write_profile: Write) -> None:
    folder = write_profile(LEAST.replace("{image: example/node}", "{image: example/node, overlay: ../outfit}"))
    assert "is outside of the profile's folder" in refused(folder).what
