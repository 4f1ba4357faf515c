"""Templates see the topology, are strict about names, and cannot leave their sandbox."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from minicluster.errors import ProfileError
from minicluster.model.deferred import fill
from minicluster.model.spec import NodeSpec, Overrides, Spec
from minicluster.profile.load import load
from minicluster.profile.resolve import resolve
from minicluster.profile.template import render
from tests.unit.samples import LEAST

Write = Callable[..., Path]


def resolve_spec(folder: Path, **size: int) -> Spec:
    return resolve(load(folder), cluster="c", overrides=Overrides(size=size), subnet="172.28.0.0/24")


def with_command(word: str) -> str:
    return LEAST + f"    command: [{word!r}]\n"


def first(folder: Path, **size: int) -> NodeSpec:
    return resolve_spec(folder, **size).nodes[0]


@pytest.mark.parametrize(
    ("template", "said", "hint"),
    [
        ("{{ noed.name }}", "'noed' is undefined", "'node'"),
        ("{{ node.adress }}", "has no attribute 'adress'", "'address'"),
        ("{{ settings.colour }}", "has no attribute 'colour'", "'color'"),
        ("{{ node.colour }}", "has no attribute 'colour'", "Available: address, "),
        ("{{ roles.worker[0].adress }}", "has no attribute 'adress'", "'address'"),
        ("{{ cluster.name.colour }}", "has no attribute 'colour'", ""),
    ],
)
def test_an_undefined_name_is_refused_where_it_stands_with_the_nearest(
    write_profile: Write, template: str, said: str, hint: str
) -> None:
    folder = write_profile(with_command(template) + "settings: {color: red}\n")
    with pytest.raises(ProfileError) as caught:
        resolve_spec(folder)
    assert caught.value.what.startswith(f"{folder}/profile.yaml:10:15: ")
    assert said in caught.value.what
    assert hint in caught.value.fix


def test_an_undefined_name_in_a_file_is_refused_with_the_files_line(write_profile: Write) -> None:
    text = LEAST + "    files: {/etc/x: {source: x.j2}}\n"
    folder = write_profile(text, {"x.j2": "one\n{% for n in nodes %}\n{{ n.name }}\n{{ noed }}\n{% endfor %}\n"})
    with pytest.raises(ProfileError) as caught:
        resolve_spec(folder)
    assert caught.value.what.startswith(f"{folder}/x.j2:4:1: ")
    assert "'node'" in caught.value.fix


def test_a_syntax_error_in_a_file_is_refused_with_the_files_line(write_profile: Write) -> None:
    folder = write_profile(LEAST + "    files: {/etc/x: {source: x.j2}}\n", {"x.j2": "one\n\n{% for %}\n"})
    with pytest.raises(ProfileError) as caught:
        resolve_spec(folder)
    assert caught.value.what.startswith(f"{folder}/x.j2:3:1: not a valid template")


def test_a_late_name_that_no_hook_captures_is_refused_with_the_nearest(write_profile: Write) -> None:
    text = LEAST + "    hooks: {join: [{on: node, run: ['{{ captured.tokn }}']}]}\n"
    folder = write_profile(text + "hooks: {init: [{on: worker, run: [form], capture: [token]}]}\n")
    with pytest.raises(ProfileError) as caught:
        resolve_spec(folder)
    assert "profile.yaml:10:37: " in caught.value.what
    assert "tokn" in caught.value.what
    assert "'token'" in str(caught.value)


def test_an_endpoint_that_is_not_there_is_refused_with_the_nearest(write_profile: Write) -> None:
    folder = write_profile(LEAST + "    endpoints: {api: {port: 1}}\nenv: {U: '{{ endpoint(\"app\").url }}'}\n")
    with pytest.raises(ProfileError) as caught:
        resolve_spec(folder)
    assert "'api'" in str(caught.value)
    assert "profile.yaml:11:10: " in caught.value.what


def test_the_url_of_an_endpoint_is_a_template(write_profile: Write) -> None:
    url = "x://{{ host }}:{{ port }}/{{ cluster.name }}?{{ node.name }}"
    folder = write_profile(LEAST + f"    endpoints: {{api: {{port: 1, url: '{url}'}}}}\n")
    (endpoint,) = resolve_spec(folder).nodes[0].endpoints
    assert fill([endpoint.url], {"host": "h", "port": "7"}) == ["x://h:7/c?worker-1"]


def test_a_name_that_a_url_has_not_is_refused_with_the_nearest(write_profile: Write) -> None:
    folder = write_profile(LEAST + "    endpoints: {api: {port: 1, url: 'x://{{ hots }}'}}\n")
    with pytest.raises(ProfileError, match=r"profile\.yaml:10:37: 'hots' is undefined") as caught:
        resolve_spec(folder)
    assert "'host'" in caught.value.fix


@pytest.mark.parametrize(("url", "name"), [("x://{host}:{{ port }}", "host"), ("x://{{ host }}:{port}", "port")])
def test_the_braces_of_the_former_format_are_refused_with_what_to_write(
    write_profile: Write, url: str, name: str
) -> None:
    folder = write_profile(LEAST + f"    endpoints: {{api: {{port: 1, url: '{url}'}}}}\n")
    with pytest.raises(ProfileError, match=r"profile\.yaml:10:37: ") as caught:
        resolve_spec(folder)
    assert caught.value.fix == f"Use {{{{ {name} }}}}."


@pytest.mark.parametrize("url", ["x://{{ 'a' if host else 'b' }}", "x://{{ host | upper }}", "x://{{ port + 1 == 2 }}"])
def test_conditions_on_where_an_endpoint_is_reached_are_refused(write_profile: Write, url: str) -> None:
    folder = write_profile(LEAST + f'    endpoints: {{api: {{port: 1, url: "{url}"}}}}\n')
    with pytest.raises(ProfileError, match=r"profile\.yaml:10:37: (host|port) is a deferred value"):
        resolve_spec(folder)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ nodes.append(1) }}",
        "{{ settings.update(x=1) }}",
        "{{ endpoint.__globals__ }}",
        "{{ node.__init__.__globals__ }}",
        "{{ node.__class__.__init__.__globals__['__builtins__'] }}",
        "{{ ''|attr('__class__')|string }}",
        "{{ '{0.__class__}'.format(node) }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ lipsum.__globals__ }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{{ range(999999999) | list }}",
        "{{ 1 / 0 }}",
    ],
)
def test_a_template_cannot_leave_its_sandbox(template: str) -> None:
    class Plain:
        pass

    context = {
        "nodes": [1],
        "settings": {"a": 1},
        "node": Plain(),
        "endpoint": test_a_template_cannot_leave_its_sandbox,
    }
    with pytest.raises(ProfileError, match=r"^here: "):
        render(template, context, "here")


def test_a_text_without_markers_is_left_alone() -> None:
    assert render("a { b } %} ${c}\n", {}, "here") == "a { b } %} ${c}\n"


def test_a_file_that_is_no_template_keeps_its_braces(write_profile: Write) -> None:
    text = LEAST + "    files: {/bin/x: {source: x, mode: '0755'}}\n"
    (file,) = first(write_profile(text, {"x": "{{ not.a.template }}"})).files
    assert (file.path, file.content, file.mode) == ("/bin/x", "{{ not.a.template }}", 0o755)


def test_templates_see_the_whole_topology(write_profile: Write) -> None:
    line = "{% for n in roles.worker %}{{ n.name }}={{ n.address }}{{ ',' if not loop.last }}{% endfor %}"
    folder = write_profile(with_command(line))
    assert first(folder, worker=2).command == ("worker-1=172.28.0.2,worker-2=172.28.0.3",)


def test_peers_are_the_others_of_the_role(write_profile: Write) -> None:
    folder = write_profile(with_command("{{ peers | map(attribute='name') | join(' ') }}"))
    assert [n.command[0] for n in resolve_spec(folder, worker=3).nodes] == [
        "worker-2 worker-3",
        "worker-1 worker-3",
        "worker-1 worker-2",
    ]


def test_deferred_values_stay_in_the_spec_until_they_are_known(write_profile: Write) -> None:
    text = LEAST + "    hooks: {join: [{on: node, run: [j, '{{ captured.token }}', '{{ initial_member.address }}']}]}\n"
    text += "hooks: {init: [{on: worker, run: [f, '{{ joining }}'], capture: [token]}]}\n"
    spec = resolve_spec(write_profile(text))
    assert spec.init[0].run == ("f", "\0joining\0")
    assert spec.nodes[0].join[0].run == ("j", "\0captured.token\0", "\0initial_member.address\0")
