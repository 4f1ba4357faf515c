"""What cannot work is refused when a profile is read, not when its cluster runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from minicluster.errors import ProfileError
from minicluster.model.deferred import DEFERRED, fill
from minicluster.model.spec import Overrides, Spec
from minicluster.profile import catalog
from minicluster.profile.load import load
from minicluster.profile.resolve import resolve
from tests.unit.samples import LEAST

Write = Callable[..., Path]


def refused(folder: Path) -> ProfileError:
    with pytest.raises(ProfileError) as caught:
        catalog.validate(str(folder))
    assert "profile.yaml:" in caught.value.what or ".j2:" in caught.value.what
    return caught.value


def resolved(folder: Path) -> Spec:
    return resolve(load(folder), cluster="c", overrides=Overrides(), subnet="172.28.0.0/24")


# The ten cases that used to pass


def test_1_an_init_hook_runs_on_a_role(write_profile: Write) -> None:
    """On "node" no step would ever be planned: there is no single node that it is about."""
    error = refused(write_profile(LEAST + "hooks: {init: [{on: node, run: [a]}]}\n"))
    assert "profile.yaml:10:21: an init hook runs on a role" in error.what
    assert "worker" in error.fix


def test_1_all_init_hooks_run_on_the_same_role(write_profile: Write) -> None:
    """They run on one node, the initial member, whichever role the second one names."""
    text = LEAST + "  other: {count: 1, image: node}\nhooks: {init: [{on: worker, run: [a]}, {on: other, run: [b]}]}\n"
    assert "profile.yaml:11:45: init hooks run on one node" in refused(write_profile(text)).what


def test_2_a_join_hook_needs_an_init_hook_or_members(write_profile: Write) -> None:
    """Without either there is no member to join, and the hook would never run."""
    text = LEAST + "    hooks: {join: [{on: node, run: [a]}]}\n"
    error = refused(write_profile(text))
    assert "profile.yaml:10:19: join hooks never run" in error.what
    assert "members" in error.fix
    for more in ("hooks: {init: [{on: worker, run: [a]}]}\n", "members: {on: worker, run: [a]}\n"):
        assert catalog.validate(str(write_profile(text + more)))


@pytest.mark.parametrize("value", ["initial_member.address", "captured.token", "joining", "archive"])
def test_3_a_leave_hook_sees_what_there_is_when_a_node_leaves(write_profile: Write, value: str) -> None:
    text = (
        LEAST
        + f"    hooks: {{leave: [{{on: node, run: [a, '{{{{ {value} }}}}']}}]}}\n"
        + "hooks: {init: [{on: worker, run: [f], capture: [token]}]}\n"
    )
    error = refused(write_profile(text))
    name = value.partition(".")[0]
    assert f"profile.yaml:10:41: {name!r} is undefined" in error.what
    assert "leave" in error.fix


def test_4_the_nodes_that_join_cannot_be_walked_over(write_profile: Write) -> None:
    word = "{% for n in joining %}{{ n }},{% endfor %}"
    error = refused(write_profile(LEAST + f"hooks: {{init: [{{on: worker, run: [a, '{word}']}}]}}\n"))
    assert "profile.yaml:10:38: joining has no value yet" in error.what


def test_4_they_become_as_many_arguments(write_profile: Write) -> None:
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
    ],
)
def test_5_a_value_that_comes_later_can_only_be_joined_into_text(write_profile: Write, template: str) -> None:
    text = LEAST.replace("count: 1", "count: 2") + f'    endpoints: {{web: {{port: 80}}}}\nenv:\n  URL: "{template}"\n'
    error = refused(write_profile(text))
    assert "profile.yaml:12:8: endpoint.web." in error.what
    assert "has no value yet" in error.what


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
def test_5_it_can_be_joined_into_text(write_profile: Write, template: str, filled: str) -> None:
    text = LEAST.replace("count: 1", "count: 2") + f'    endpoints: {{web: {{port: 80}}}}\nenv:\n  V: "{template}"\n'
    values = {"endpoint.web.url": "U", "endpoint.web.worker-1.url": "U1", "endpoint.web.worker-2.url": "U2"}
    assert fill([resolved(write_profile(text)).env["V"]], values) == [filled]


@pytest.mark.parametrize(
    "paths",
    ["[/a/b, /a-b]", "[/a/b, /a_b]", "[/a-/b, /a/-b]", "[/a_-b, /a-_b]", "[/a+b, /a_x2bb]"],
)
def test_6_two_paths_are_two_volumes(write_profile: Write, paths: str) -> None:
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
def test_6_one_path_cannot_be_two_volumes(write_profile: Write, more: str, place: str) -> None:
    error = refused(write_profile(LEAST + f"    {more}\n"))
    assert f"profile.yaml:{place}: /a is mounted twice" in error.what


def test_7_text_that_looks_like_a_marker_is_text(write_profile: Write) -> None:
    word = "@{x} @{joining} ${HOME} @{secret.a.hex}"
    text = (
        LEAST
        + f"    hooks: {{join: [{{on: node, run: [a, '{word}']}}]}}\n"
        + "hooks: {init: [{on: worker, run: [f]}]}\n"
    )
    run = resolved(write_profile(text)).nodes[0].join[0].run
    assert fill(run, {"joining": ["n"]}) == ["a", word]


def test_7_no_text_of_a_profile_can_be_a_marker(write_profile: Write) -> None:
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
def test_8_an_error_in_a_template_shows_the_line_that_it_names(
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
def test_9_a_path_that_is_set_is_checked_like_one_of_the_file(path: str, value: str) -> None:
    from minicluster.cluster import dry_run

    with pytest.raises(ProfileError, match=f"--set {path}=") as caught:
        dry_run("etcd", set={path: value})
    assert "absolute path" in caught.value.what
