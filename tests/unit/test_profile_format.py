"""What cannot work is refused when a profile is read, not when its cluster runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from minicluster.cluster import Cluster
from minicluster.engine import privileges
from minicluster.errors import ProfileError, UsageError
from minicluster.model.codec import encode
from minicluster.model.deferred import DEFERRED, fill
from minicluster.model.spec import Overrides, Spec
from minicluster.operations import client_folder, hand_out
from minicluster.profile import catalog, folders, references
from minicluster.profile.load import load
from minicluster.profile.resolve import resolve
from minicluster.profile.schema import PATTERNS, Profile
from minicluster.profile.variables import PLACES, VARIABLES, visible
from tests.fakes import FakeEngine
from tests.unit.samples import LEAST

Write = Callable[..., Path]


def refused(folder: Path) -> ProfileError:
    with pytest.raises(ProfileError) as caught:
        catalog.validate(str(folder))
    assert "profile.yaml:" in caught.value.what or ".j2:" in caught.value.what
    return caught.value


def resolved(folder: Path) -> Spec:
    return resolve(load(folder), cluster="c", overrides=Overrides(), subnet="172.28.0.0/24")


# Cases that format 1 accepted


def test_an_init_hook_runs_on_a_role(write_profile: Write) -> None:
    """On "node" no step would ever be planned: there is no single node that it is about."""
    error = refused(write_profile(LEAST + "hooks: {init: [{on: node, run: [a]}]}\n"))
    assert "profile.yaml:10:21: an init hook runs on a role" in error.what
    assert "worker" in error.fix


def test_all_init_hooks_run_on_the_same_role(write_profile: Write) -> None:
    """They run on one node, the initial member, whichever role the second one names."""
    text = LEAST + "  other: {count: 1, image: node}\nhooks: {init: [{on: worker, run: [a]}, {on: other, run: [b]}]}\n"
    assert "profile.yaml:11:45: init hooks run on one node" in refused(write_profile(text)).what


def test_a_join_hook_needs_an_init_hook_or_members(write_profile: Write) -> None:
    """Without either there is no member to join, and the hook would never run."""
    text = LEAST + "    hooks: {join: [{on: node, run: [a]}]}\n"
    error = refused(write_profile(text))
    assert "profile.yaml:10:19: join hooks never run" in error.what
    assert "members" in error.fix
    for more in ("hooks: {init: [{on: worker, run: [a]}]}\n", "members: {on: worker, run: [a]}\n"):
        assert catalog.validate(str(write_profile(text + more)))


@pytest.mark.parametrize("value", ["initial_member.address", "captured.token", "joining", "archive"])
def test_a_leave_hook_sees_what_there_is_when_a_node_leaves(write_profile: Write, value: str) -> None:
    text = (
        LEAST
        + f"    hooks: {{leave: [{{on: node, run: [a, '{{{{ {value} }}}}']}}]}}\n"
        + "hooks: {init: [{on: worker, run: [f], capture: [token]}]}\n"
    )
    error = refused(write_profile(text))
    name = value.partition(".")[0]
    assert f"profile.yaml:10:41: {name!r} is undefined" in error.what
    assert "leave" in error.fix


def test_joining_cannot_be_looped_over(write_profile: Write) -> None:
    word = "{% for n in joining %}{{ n }},{% endfor %}"
    error = refused(write_profile(LEAST + f"hooks: {{init: [{{on: worker, run: [a, '{word}']}}]}}\n"))
    assert "profile.yaml:10:38: joining is a deferred value" in error.what


def test_a_bug_in_a_function_of_templates_is_no_error_of_the_template(
    write_profile: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object) -> str:
        raise RuntimeError("a bug")

    profile = write_profile(LEAST + "env: {URL: \"{{ endpoint('nope').url }}\"}\n")
    assert "No node has an endpoint 'nope'." in refused(profile).why
    monkeypatch.setattr("minicluster.profile.resolve.nearest", bug)
    with pytest.raises(RuntimeError, match="a bug"):
        resolved(profile)


def test_joining_becomes_as_many_arguments(write_profile: Write) -> None:
    spec = resolved(write_profile(LEAST + "hooks: {init: [{on: worker, run: [a, '{{ joining }}']}]}\n"))
    assert fill(spec.init[0].run, {"joining": ["x", "y"]}) == ["a", "x", "y"]


URL = "endpoint('web').url"


@pytest.mark.parametrize(
    "template",
    [
        f"{{{{ 'a' if {URL} else 'b' }}}}",
        f"{{% if {URL} == 'x' %}}a{{% endif %}}",
        f"{{{{ {URL} | upper }}}}",
        f"{{{{ {URL} | replace('http', 'https') }}}}",
        f"{{{{ {URL} | length }}}}",
        f"{{{{ {URL}[0] }}}}",
        f"{{{{ {URL}[7:] }}}}",
        f"{{{{ {URL}.split(':') }}}}",
        f"{{{{ {URL} in ['x'] }}}}",
        f"{{{{ 'x' in {URL} }}}}",
        f"{{{{ {URL} is string }}}}",
        f"{{{{ {URL} < 'x' }}}}",
        f"{{{{ {URL} * 2 }}}}",
        f"{{{{ '%s' % {URL} }}}}",
        f"{{{{ '%s' | format({URL}) }}}}",
        f"{{{{ [{URL}] }}}}",
        f"{{{{ {{'a': {URL}}} }}}}",
        f"{{{{ not {URL} }}}}",
        f"{{{{ {URL} or 'x' }}}}",
        f"{{{{ {{}}[{URL}] }}}}",
        f"{{% set x %}}{{{{ {URL} }}}}{{% endset %}}{{{{ 'a' if x else 'b' }}}}",
        f"{{% filter upper %}}{{{{ {URL} }}}}{{% endfilter %}}",
        "{% for e in endpoints('web') if e.url %}x{% endfor %}",
        "{{ endpoints('web') | map(attribute='url') | select | join }}",
        "{{ endpoints('web') | sort(attribute='url') | length }}",
        "{{ endpoint('web').host_port + 1 }}",
        "{{ 1 + endpoint('web').host_port }}",
        "{{ [] + endpoint('web').host_port }}",
        "{{ endpoints('web') | sum(attribute='host_port') }}",
    ],
)
def test_a_deferred_value_can_only_be_joined_into_text(write_profile: Write, template: str) -> None:
    text = LEAST.replace("count: 1", "count: 2") + f'    endpoints: {{web: {{port: 80}}}}\nenv:\n  URL: "{template}"\n'
    error = refused(write_profile(text))
    assert "profile.yaml:12:8: endpoint.web." in error.what
    assert "is a deferred value" in error.what


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        (f"<{{{{ {URL} }}}}>", "<U>"),
        (f"{{{{ {URL} ~ '/x' }}}}", "U/x"),
        (f"{{{{ 'x/' + {URL} + '/' + {URL} }}}}", "x/U/U"),
        (f"{{{{ 'a' ~ 1 ~ ({URL} if true else '') }}}}", "a1U"),
        (f"{{% set x = {URL} ~ '!' %}}{{{{ x }}}}{{{{ x ~ x }}}}", "U!U!U!"),
        (f"{{% set x %}}({{{{ {URL} }}}}){{% endset %}}{{{{ x }}}}", "(U)"),
        (f"{{% macro m(v) %}}[{{{{ v }}}}]{{% endmacro %}}{{{{ m({URL}) }}}}", "[U]"),
        ("{% for e in endpoints('web') %}{{ e.url }};{% endfor %}", "U1;U2;"),
        ("{{ endpoints('web') | join(',', attribute='url') }}", "U1,U2"),
        ("{{ endpoints('web') | map(attribute='url') | join(' ') }}", "U1 U2"),
        ("{{ endpoints('web') | length }}", "2"),
    ],
)
def test_a_deferred_value_can_be_joined_into_text(write_profile: Write, template: str, filled: str) -> None:
    text = LEAST.replace("count: 1", "count: 2") + f'    endpoints: {{web: {{port: 80}}}}\nenv:\n  V: "{template}"\n'
    values = {"endpoint.web.url": "U", "endpoint.web.worker-1.url": "U1", "endpoint.web.worker-2.url": "U2"}
    assert fill([resolved(write_profile(text)).env["V"]], values) == [filled]


@pytest.mark.parametrize(
    "paths",
    ["[/a/b, /a-b]", "[/a/b, /a_b]", "[/a-/b, /a/-b]", "[/a_-b, /a-_b]", "[/a+b, /a_x2bb]"],
)
def test_two_paths_are_two_volumes(write_profile: Write, paths: str) -> None:
    from minicluster.model.spec import volumes

    spec = resolved(write_profile(LEAST + f"    volumes: {paths}\n"))
    assert len(set(volumes(spec, spec.nodes[0]).values())) == 2


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ("volumes: [/a, /a]", "10:19"),
        ("volumes: [/a]\n    shared: [/a]", "11:14"),
        ("volumes: [/a]\n    tmpfs: {/a: ''}", "11:13"),
    ],
)
def test_one_path_cannot_be_two_volumes(write_profile: Write, more: str, place: str) -> None:
    error = refused(write_profile(LEAST + f"    {more}\n"))
    assert f"profile.yaml:{place}: /a is mounted twice" in error.what


def test_text_that_looks_like_a_marker_is_text(write_profile: Write) -> None:
    word = "@{x} @{joining} ${HOME} @{secret.a.hex}"
    text = (
        LEAST
        + f"    hooks: {{join: [{{on: node, run: [a, '{word}']}}]}}\n"
        + "hooks: {init: [{on: worker, run: [f]}]}\n"
    )
    run = resolved(write_profile(text)).nodes[0].join[0].run
    assert fill(run, {"joining": ["n"]}) == ["a", word]


def test_no_text_of_a_profile_can_be_a_marker(write_profile: Write) -> None:
    """A marker has NULs around it, which no argument, variable or text file can hold."""
    (marker,) = resolved(write_profile(LEAST + "hooks: {init: [{on: worker, run: ['{{ joining }}']}]}\n")).init[0].run
    assert DEFERRED.fullmatch(marker)
    assert marker.startswith("\0")
    for text in (
        LEAST + '    command: ["a\\0joining\\0"]\n',
        LEAST + "    command: [\"{{ 'a\\\\0' }}\"]\n",
        LEAST + "    command: [\"{{ '\\\\x00' ~ 'joining' }}\"]\n",
    ):
        assert "NUL" in str(refused(write_profile(text)))
    folder = write_profile(LEAST + "    files: {/f: {source: f}}\n", {"f": "a\0b"})
    assert "NUL" in refused(folder).why


CONF = "one\n\n{# three #}\nfour {{ cluster.name }}\n{% if true %}\nsix\n"


@pytest.mark.parametrize(
    ("rest", "line", "shown"),
    [
        ("seven {{ settings.nothing }}\neight\n{% endif %}\n", 7, "seven {{ settings.nothing }}"),
        ("seven\n{{ 1 / 0 }}\n{% endif %}\n", 8, "{{ 1 / 0 }}"),
        ("seven\n{% endif %}\n{{ nine(( }}\n", 9, "{{ nine(( }}"),
        ("seven {{ secret('a') ~ 'b' == 'c' }}\n{% endif %}\n", 7, "seven {{ secret('a') ~ 'b' == 'c' }}"),
    ],
)
def test_an_error_in_a_template_shows_the_line_that_it_names(
    write_profile: Write, rest: str, line: int, shown: str
) -> None:
    text = LEAST + "    authority: true\n    files: {/f: {source: redis.conf.j2}}\n"
    error = refused(write_profile(text, {"redis.conf.j2": CONF + rest}))
    assert f"redis.conf.j2:{line}:1: " in error.what
    assert shown in error.why
    assert "one" not in error.why


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("roles.kv.volumes", '["/tmp:/host"]'),
        ("roles.kv.volumes", '["/var/../tmp"]'),
        ("roles.kv.volumes", "[relative]"),
        ("roles.kv.shared", '["/x:/y"]'),
        ("roles.kv.tmpfs", '{"/x:/y": ""}'),
        ("roles.kv.volumes.0", "/tmp:/host"),
    ],
)
def test_a_path_that_is_set_is_checked_like_one_of_the_file(path: str, value: str) -> None:
    from minicluster.cluster import dry_run

    with pytest.raises(ProfileError, match=f"--set {path}=") as caught:
        dry_run("etcd", set={path: value})
    assert "absolute path" in caught.value.what


# The version


@pytest.mark.parametrize(
    ("line", "place", "said"),
    [
        ("", "", "the key 'version' is missing"),
        ("version: 1\n", ":1:10", "profile format 1 is no longer read"),
        ("version: 0\n", ":1:10", "profile format 0 is no longer read"),
        ("version: 3\n", ":1:10", "profile format 3 is newer than this minicluster"),
        ("version: two\n", ":1:10", "version must be a number, not 'two'"),
        ("version: true\n", ":1:10", "version must be a number, not true"),
    ],
)
def test_a_profile_of_another_format_is_refused(write_profile: Write, line: str, place: str, said: str) -> None:
    folder = write_profile(LEAST.replace("version: 2\n", line).replace("summary: s", "recipes: {}"))
    with pytest.raises(ProfileError) as caught:
        load(folder)
    assert caught.value.what.startswith(f"{folder}/profile.yaml{place}")
    assert caught.value.what.endswith(said)
    assert "version: 2" in caught.value.fix or "newer" in caught.value.fix
    assert "recipes" not in str(caught.value)


def test_the_version_cannot_be_set(write_profile: Write) -> None:
    with pytest.raises(UsageError, match="--set version=3: the profile's version cannot be set"):
        load(write_profile(), {"version": "3"})


def test_a_setting_may_be_called_version(write_profile: Write) -> None:
    folder = write_profile(LEAST + "settings: {version: v1}\n")
    assert load(folder, {"version": "v2"}).profile.settings == {"version": "v2"}


# Further things that cannot work


TLS = LEAST + "    authority: true\n    certificates: [{directory: /x"
CLIENT = LEAST + "    authority: true\nclient: {certificate: {common_name: "


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LEAST + "members: {on: node, run: [a]}\n", "10:15: members runs on a role"),
        (
            LEAST
            + "  b: {count: 1, image: node}\nhooks: {init: [{on: worker, run: [a]}]}\nmembers: {on: b, run: [a]}\n",
            "12:15: members runs on the role of init hooks",
        ),
        (LEAST + "hooks: {reset: [{on: worker, run: [a], capture: [x]}]}\n", "10:49: only init hooks can capture"),
        (LEAST.replace("worker:", "node:"), "7:3: a role cannot be named 'node'"),
        (LEAST.replace("worker:", "shared:"), "7:3: a role cannot be named 'shared'"),
        (LEAST.replace("worker:", "spec:"), "7:3: a role cannot be named 'spec'"),
        (LEAST.replace("worker:", "lease:"), "7:3: a role cannot be named 'lease'"),
        (LEAST + "    min: 3\n    max: 2\n", "10:10: min is 3 and max is 2"),
        (LEAST + "    endpoints: {a: {port: 1}, b: {port: 1}}\n", "10:41: port 1 is already endpoint a"),
        (LEAST + "    volumes: [/]\n", "10:15: roles.worker.volumes.0 must be an absolute path"),
        (LEAST + "env: {A: '{{ client.directory }}'}\n", "10:10: 'client' is undefined"),
        (
            LEAST + "    max: 3\n    nodes: {4: {env: {A: b}}}\n",
            "11:13: there is no worker-4: role worker has at most 3",
        ),
        (LEAST + "    allowed: [1, 3]\n    nodes: {5: {}}\n", "11:13: there is no worker-5: role worker has at most 3"),
        (LEAST + "    endpoints: {a: {port: 1, anyone: '{{ host }}'}}\n", "10:38: 'host' is undefined"),
        (CLIENT + "a}, files: {engine: f}}\n", "11:49: a file cannot be named 'engine'"),
        (LEAST + "env: {A: '{{ endpoint(3) }}'}\n", "10:10: the template fails"),
        (TLS + ", addresses: [127.0.0.1, nope]}]\n", "11:59: 'nope' is not an IP address"),
        (TLS + ', names: [ok, "ü"]}]\n', "11:48: 'ü' is not a name in ASCII"),
        (TLS + ", common_name: \"{{ '' }}\"}]\n", "11:49: a common name has 1 to 64 bytes, not 0"),
        (CLIENT + "'{{ cluster.name * 13 }}'}}\n", "11:37: a common name has 1 to 64 bytes, not 65"),
        (
            LEAST + "hooks: {init: [{on: worker, run: ['{{ captured.x }}'], capture: [x]}]}\n",
            "10:35: captured has no attribute 'x'",
        ),
        (
            LEAST + "    authority: true\n    endpoints: {a: {port: 1, url: \"{{ secret('x', 'base64') }}\"}}\n",
            "11:35: the template fails",
        ),
    ],
)
def test_what_cannot_work_is_refused_where_it_stands(write_profile: Write, text: str, said: str) -> None:
    assert f"profile.yaml:{said}" in refused(write_profile(text)).what


def test_a_template_of_a_role_without_nodes_is_checked(write_profile: Write) -> None:
    text = LEAST + "  none: {count: 0, image: node, command: ['{{ nothing }}']}\n"
    assert "profile.yaml:10:43: 'nothing' is undefined" in refused(write_profile(text)).what


def test_templates_of_nodes_that_there_are_none_of_by_default_are_checked(write_profile: Write) -> None:
    text = LEAST + "    nodes: {3: {env: {A: '{{ nothing }}'}}}\n"
    for more, place in (("", "10:26"), ("    allowed: [1, 5]\n", "11:26")):
        changed = text.replace("    nodes", f"{more}    nodes")
        assert f"profile.yaml:{place}: 'nothing' is undefined" in refused(write_profile(changed)).what


def test_an_option_about_a_single_node_is_named_in_errors(write_profile: Write) -> None:
    loaded = load(write_profile(), {"roles.worker.nodes.1.env.A": "{{ nothing }}"})
    with pytest.raises(ProfileError, match=r"--set roles\.worker\.nodes\.1\.env\.A=.*'nothing' is undefined"):
        resolve(loaded, cluster="c", overrides=Overrides(), subnet="172.28.0.0/24")


@pytest.mark.parametrize(
    ("set", "said"),
    [
        ("{nope: 1}", "--set nope=1: unknown key 'nope'"),
        ("{level: high}", "--set level=high: level must be an integer"),
        ("{level: 9}", "--set level=9: level must be one digit below 9"),
        ("{roles.worker.memory: much}", "--set roles.worker.memory=much: roles.worker.memory must be a size"),
    ],
)
def test_what_a_comparison_sets_can_be_set(write_profile: Write, set: str, said: str) -> None:
    text = LEAST + "settings: {level: 3}\npatterns: {level: {pattern: '[0-8]', message: must be one digit below 9}}\n"
    text += f"bench: {{kv: {{role: worker, image: node, run: [a], writes: w, reads: r, set: {set}}}}}\n"
    assert f"profile.yaml:12:77: {said}" in refused(write_profile(text)).what
    catalog.validate(str(write_profile(text.replace(set, "{level: 4, roles.worker.memory: 1GiB}"))))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("volumes: [/a]\n    files: {/a: {source: f}}", "11:13: /a is a file, and /a is mounted there"),
        ("shared: [/a/b]\n    files: {/a: {source: f}}", "11:13: /a is a file, and /a/b is mounted there"),
        ("tmpfs: {/a/b: ''}\n    files: {/a: {source: f}}", "11:13: /a is a file, and /a/b is mounted there"),
        ("tmpfs: {/a: ''}\n    files: {/a/x: {source: f}}", "11:13: the node does not see /a/x"),
        ("nested: true\n    files: {/run/x: {source: f}}", "11:13: the node does not see /run/x"),
        (
            "volumes: [/a]\n    tmpfs: {/a/b: ''}\n    files: {/a/b/x: {source: f}}",
            "12:13: the node does not see /a/b/x",
        ),
        ("tmpfs: {/usr/local: ''}\n    bin: .", "11:5: the node does not see /usr/local/bin/f"),
        ("tmpfs: {/a: ''}\n    registries: {files: {/a/x: {source: f}}}", "11:26: the node does not see /a/x"),
        (
            "tmpfs: {/a: ''}\n    authority: true\n    certificates: [{directory: /a/b}]",
            "12:20: the node does not see /a/b/ca.pem",
        ),
    ],
)
def test_a_file_that_a_node_would_not_see_is_refused(write_profile: Write, more: str, said: str) -> None:
    """An engine writes into the volumes of a container that does not run, and under its folders in memory."""
    assert f"profile.yaml:{said}" in refused(write_profile(LEAST + f"    {more}\n", {"f": "x"})).what


def test_a_file_may_be_in_a_volume(write_profile: Write) -> None:
    text = LEAST + "    volumes: [/a, /t/b]\n    shared: [/s]\n    tmpfs: {/t: ''}\n"
    text += "    files: {/a/x: {source: f}, /s/x: {source: f}, /t/b/x: {source: f}, /t2: {source: f}}\n"
    assert len(resolved(write_profile(text, {"f": "x"})).nodes[0].files) == 4


def test_files_of_a_client_that_are_refused_are_those_that_there_are() -> None:
    own = {client_folder._IDENTITY, client_folder._ENGINE, *client_folder._PARTS.values(), hand_out.ENV}
    assert own == {*references.CLIENT_FILES}


def test_folders_in_memory_of_nested_nodes_are_those_that_the_engine_makes() -> None:
    assert tuple(privileges.NESTED_TMPFS) == references._NESTED_IN_MEMORY


def test_an_init_hook_sees_what_those_before_it_captured(write_profile: Write) -> None:
    first, second = "{on: worker, run: [a], capture: [x]}", "{on: worker, run: ['{{ captured.x }}']}"
    spec = resolved(write_profile(LEAST + f"hooks: {{init: [{first}, {second}]}}\n"))
    assert fill(spec.init[1].run, {"captured.x": "X"}) == ["X"]


@pytest.mark.parametrize("place", PLACES)
def test_each_place_sees_the_names_that_the_table_says(write_profile: Write, place: str) -> None:
    """The table in docs/profiles.md is made from this data; here it is compared with what templates can use."""
    uses = {
        "settings": "{{ settings.a }}",
        "parts": "{{ parts | length }}",
        "cluster": "{{ cluster.name }}",
        "roles": "{{ roles.worker | length }}",
        "nodes": "{{ nodes | length }}",
        "node": "{{ node.name }}",
        "peers": "{{ peers | length }}",
        "host": "{{ host }}",
        "port": "{{ port }}",
        "initial_member": "{{ initial_member.name }}",
        "joining": "{{ joining }}",
        "kept": "{{ kept }}",
        "captured": "{{ captured.x }}",
        "archive": "{{ archive }}",
        "image": "{{ image.source }} {{ image.name }}",
        "applied": "{{ applied.path }}",
        "endpoint": "{{ endpoint('web').node }}",
        "endpoints": "{{ endpoints('web')[0].port }}",
        "client": "{{ client.directory }}",
        "secret": "{{ secret('s') }}",
        "registries": "{{ registries | length }}",
        "registry": "{{ registry.host }}",
        "registry_credentials": "{{ registry_credentials }}",
        "trusted_ca": "{{ trusted_ca }}",
    }
    assert set(uses) == set(VARIABLES)
    for name, use in uses.items():
        texts = dict.fromkeys(PLACES, "x") | {place: use}
        folder = write_profile(
            EVERYWHERE.format(**texts),
            {"image/Dockerfile": "FROM x\n", "f.j2": texts["file"], "r.j2": texts["registry"]},
        )
        if name in visible(place):
            catalog.validate(str(folder))
        else:
            assert f"{name!r} is undefined" in refused(folder).what


EVERYWHERE = """\
version: 2
name: everywhere
summary: s
settings: {{a: b}}
images: {{node: {{build: image, args: {{A: "{image}"}}}}}}
roles:
  worker:
    count: 2
    image: node
    authority: true
    command: ["{role}"]
    files: {{/f: {{source: f.j2}}}}
    registries: {{files: {{/r: {{source: r.j2}}}}}}
    endpoints: {{web: {{port: 80, url: "{url}", anyone: "{anyone}"}}}}
    hooks: {{join: [{{on: node, run: ["{join}"]}}], leave: [{{on: node, run: ["{leave}"]}}]}}
hooks:
  init: [{{on: worker, run: [first], capture: [x]}}, {{on: worker, run: ["{init}"]}}]
  load: [{{on: worker, run: ["{load}"]}}]
  held: [{{on: worker, run: ["{held}"]}}]
  tag: [{{on: worker, run: ["{tag}"]}}]
  reset: [{{on: worker, run: ["{reset}"]}}]
members: {{on: worker, run: ["{members}"]}}
client: {{certificate: {{common_name: "{client}"}}}}
programs: {{tool: {{image: node, path: /tool}}}}
apply: [{{program: tool, run: ["{apply}"]}}]
env: {{A: "{env}"}}
bench: {{kv: {{role: worker, image: node, run: ["{bench}"], writes: w, reads: r}}}}
"""


# Scripts and owners


def test_bin_installs_a_folder_of_scripts(write_profile: Write) -> None:
    files = {"files/bin/b": "#!/bin/sh\n{{ not a template }}\n", "files/bin/a": "#!/bin/sh\n"}
    node = resolved(write_profile(LEAST + "    bin: files/bin\n", files)).nodes[0]
    assert [(f.path, f.content, f.mode) for f in node.files] == [
        ("/usr/local/bin/a", files["files/bin/a"], 0o755),
        ("/usr/local/bin/b", files["files/bin/b"], 0o755),
    ]


def test_bin_may_be_several_folders_and_other_profiles(write_profile: Write) -> None:
    text = LEAST + '    bin: [bin, "etcd:files/bin"]\n'
    paths = {f.path for f in resolved(write_profile(text, {"bin/mine": ""})).nodes[0].files}
    assert {"/usr/local/bin/mine", "/usr/local/bin/etcd-ready"} <= paths


@pytest.mark.parametrize(
    ("bin", "said"),
    [
        ("nothing", "10:10: no such folder: nothing"),
        ("[one, nothing]", "10:16: no such folder: nothing"),
        ("empty", "10:10: no scripts in empty"),
        ("deep", "10:10: deep/folder is a folder"),
        ("template", "10:10: template/x.j2 is a template"),
        ("[one, two]", "10:16: /usr/local/bin/x is installed twice"),
        ("..", "10:10: '..' is outside of the profile's folder"),
    ],
)
def test_what_cannot_be_installed_is_refused(write_profile: Write, bin: str, said: str) -> None:
    files = {"one/x": "", "two/x": "", "deep/folder/x": "", "template/x.j2": ""}
    folder = write_profile(LEAST + f"    bin: {bin}\n", files)
    (folder / "empty").mkdir()
    assert f"profile.yaml:{said}" in refused(folder).what


def test_a_script_may_not_be_one_of_the_files_as_well(write_profile: Write) -> None:
    text = LEAST + "    bin: one\n    files: {/usr/local/bin/x: {source: one/x}}\n"
    assert "profile.yaml:10:10: /usr/local/bin/x is installed twice" in refused(write_profile(text, {"one/x": ""})).what


def test_a_folder_beside_the_profiles_may_hold_files_that_they_share(write_profile: Write) -> None:
    from minicluster import paths

    shared = paths.config_home() / "profiles" / "_common"
    (shared / "bin").mkdir(parents=True)
    (shared / "bin" / "tool").write_text("#!/bin/sh\n")
    text = LEAST + '    bin: "_common:bin"\n    files: {/t: {source: "_common:bin/tool"}}\n'
    assert [f.path for f in resolved(write_profile(text)).nodes[0].files] == ["/t", "/usr/local/bin/tool"]
    assert "_common" not in folders.names()
    error = refused(write_profile(text.replace("_common:bin/tool", "_other:bin/tool")))
    assert "profile.yaml:11:26: no folder named '_other'" in error.what


def test_a_file_has_the_owner_that_the_profile_says(write_profile: Write, engine: FakeEngine) -> None:
    text = LEAST + '    files: {/a: {source: f, owner: "999:1000", mode: "0600"}, /b: {source: f}}\n'
    Cluster.up(str(write_profile(text, {"f": "x"})), engine=engine)
    files = engine.boxes["least-worker-1"].files
    assert [(files[p].uid, files[p].gid, files[p].mode) for p in ("/a", "/b")] == [(999, 1000, 0o600), (0, 0, 0o644)]


@pytest.mark.parametrize("owner", ["redis", "1000", "1:x", "1000:1000:1"])
def test_an_owner_is_two_numbers(write_profile: Write, owner: str) -> None:
    text = LEAST + f'    files: {{/a: {{source: f, owner: "{owner}"}}}}\n'
    assert 'must be "UID:GID" as numbers' in refused(write_profile(text, {"f": "x"})).what


# Secrets in URLs


def test_a_secret_in_a_url_is_filled_in_for_users(write_profile: Write, engine: FakeEngine) -> None:
    url = "redis://default:{{ secret('password') }}@{{ host }}:{{ port }}"
    text = (
        LEAST
        + "    authority: true\n    files: {/f: {source: f.j2}}\n"
        + f'    endpoints: {{web: {{port: 80, url: "{url}"}}}}\n'
        + "env: {URL: \"{{ endpoint('web').url }}\"}\n"
    )
    cluster = Cluster.up(str(write_profile(text, {"f.j2": "{{ secret('password') }}"})), engine=engine)
    password = engine.boxes["least-worker-1"].files["/f"].content.decode()
    assert len(password) == 64
    endpoint = Cluster.open("least", engine=engine).endpoint("web")
    assert endpoint.url == f"redis://default:{password}@127.0.0.1:{endpoint.port}" == cluster.env()["URL"]
    assert password not in encode(cluster.spec)
    assert password not in str(engine.volumes())


# What is said of values


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        ("settings", {"color": None}, "settings.color must be a text, a number, true, false, a list or a mapping"),
        ("summary", True, "summary must be a text, not true"),
        (
            "settings",
            {"A b": 1},
            "settings.A b must be lower-case letters, digits and _, starting with a letter, not 'A b'",
        ),
        ("demo_image", 7, "demo_image must be a text, not 7"),
        ("programs", {"x": {"image": "node", "path": ""}}, "programs.x.path must not be empty, not ''"),
        (
            "programs",
            {"x": {"image": "node", "path": "x", "minors": float("inf")}},
            "minors must be an integer, not inf",
        ),
        ("summary", ["y" * 200], "summary must be a text"),
        ("name", "Y" * 200, "..."),
    ],
)
def test_a_wrong_value_is_told_in_words(write_profile: Write, at: str, value: object, said: str) -> None:
    data = yaml.safe_load(LEAST)
    data[at] = value
    folder = write_profile(yaml.safe_dump(data))
    with pytest.raises(ProfileError) as caught:
        load(folder)
    text = str(caught.value)
    assert said in text
    assert len(caught.value.what.splitlines()) == 1
    assert not re.search(r"[Ii]nput should|pattern|\bNone\b|\bTrue\b|is not valid", text)


def test_every_pattern_of_a_schema_has_words() -> None:
    """A user never reads a regular expression."""
    from minicluster.profile import parts

    found = re.findall(
        r'"pattern": "((?:[^"\\]|\\.)*)"', json.dumps([Profile.model_json_schema(), parts.Part.model_json_schema()])
    )
    assert found
    size = r"^\s*(\d*\.?\d+)\s*(\w+)?"  # pydantic's own, whose error is of another kind
    assert {json.loads(f'"{pattern}"') for pattern in found} - {size} <= set(PATTERNS)


def test_an_error_in_a_part_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minicluster.profile import parts

    (tmp_path / "part.yaml").write_text("name: x\nsources: {go: 3}\n")
    monkeypatch.setattr(parts, "folder", lambda name: tmp_path)
    with pytest.raises(ProfileError) as caught:
        parts.load("x")
    assert caught.value.what.startswith(f"{tmp_path}/part.yaml")
    assert "Input" not in str(caught.value)
    assert "Field" not in str(caught.value)
