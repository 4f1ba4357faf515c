"""The project file: which one is used, what it says, and what is said of a wrong one."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from minicluster import pki, projects
from minicluster.cli.app import app
from minicluster.errors import ProfileError, UsageError
from minicluster.model.lease import Lease
from minicluster.model.spec import RESTART_POLICIES, CertificateSpec
from minicluster.profile import folders
from minicluster.project import config, definition, dotenv, find, scaffold
from minicluster.project.definition import Project
from minicluster.project.interpolate import Invalid, interpolate, variables
from minicluster.project.load import load
from minicluster.project.schema import Cluster
from tests.unit.samples import TOY

SCHEMA = Path(__file__).parents[2] / "docs" / "project.schema.json"

FULL = f"""\
version: 1
x-anything: {{of: mine}}
clusters:
  dev:
    profile: {TOY}
    size: {{agent: 3}}
    set: {{color: 3.10, level: 4}}
    image: {{extra: example/other:2}}
    ports: {{api: 6443}}
    networks: [back]
    registry_mirrors: ["https://m.example"]
    registries:
      - {{host: "r.example:5000", mirrors: ["https://s.example"], insecure: yes}}
      - {{host: t, credentials: no}}
    ca: ca.pem
    restart: no
    load: ["my/app:dev"]
    apply: [deploy/]
    ttl: 8h
  other: {{profile: ./mine}}
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a project file, and makes its folder the current one."""

    def written(text: str, **files: str) -> Path:
        path = tmp_path / find.NAME
        path.write_text(textwrap.dedent(text))
        for name, content in files.items():
            (tmp_path / f".{name}").write_text(content)
        monkeypatch.chdir(tmp_path)
        return path

    return written


def one(more: str = "") -> str:
    return f"version: 1\nclusters:\n  dev:\n    profile: {TOY}\n{textwrap.indent(textwrap.dedent(more), '    ')}"


def dev(project: Project) -> definition.Definition:
    return project.clusters["dev"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("$A ${A}", "1 1"),
        ("$$A $${A}", "$A ${A}"),
        ("${UNSET}|$UNSET", "|"),
        ("${A:-x} ${E:-x} ${UNSET:-x}", "1 x x"),
        ("${A-x} ${E-x} ${UNSET-x}", "1  x"),
        ("${A:+x} ${E:+x} ${UNSET:+x}", "x  "),
        ("${A+x} ${E+x} ${UNSET+x}", "x x "),
        ("${A:?no} ${A?no} ${E?no}", "1 1 "),
        ("${UNSET:-${B}}", "2"),
        ("${UNSET:-${ALSO:-$A-}}}", "1-}"),
        ("${UNSET:-a}b}", "ab}"),
        ("${UNSET:-$$}", "$"),
        ("${A:-${NEVER:?is not looked at}}", "1"),
        ("${UNSET:-}", ""),
        ("{$A}", "{1}"),
    ],
)
def test_variables_have_the_forms_of_compose_files(text: str, value: str) -> None:
    assert interpolate(text, {"A": "1", "B": "2", "E": ""}) == value


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("${UNSET:?say it}", "the variable UNSET has no value: say it"),
        ("${E:?}", "the variable E has no value"),
        ("${UNSET?because $A}", "the variable UNSET has no value: because 1"),
        ("${UNSET:-${ALSO?deep}}", "the variable ALSO has no value: deep"),
        ("costs 5$", "not a variable: $"),
        ("$1", "not a variable: $1"),
        ("${", "a ${ without }: ${"),
        ("${A", "a ${ without }: ${A"),
        ("${}", "not a variable: ${}"),
        ("${A!x}", "not a variable: ${A!x}"),
        ("${A:x}", "not a variable: ${A:x}"),
    ],
)
def test_a_text_that_is_no_template_is_refused(text: str, what: str) -> None:
    with pytest.raises(Invalid) as caught:
        interpolate(text, {"A": "1", "E": ""})
    assert str(caught.value) == what
    assert caught.value.fix


def test_variables_without_a_value_are_told() -> None:
    missing: list[str] = []
    assert interpolate("$A ${B} ${C:-$D} ${E:+$F}", {"C": "c"}, missing.append) == "  c "
    assert missing == ["A", "B"]
    assert variables("$A ${B:-${C}} $$D") == {"A", "B", "C"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=b", "b"),
        ("A = b ", "b"),
        ("export A=b", "b"),
        ("A: b", "b"),
        ("A=", ""),
        ("A", "from outside"),
        ("A=b # comment", "b"),
        ("A=b#no comment", "b#no comment"),
        ("A=#no comment", "#no comment"),
        ("A='b' # comment", "b"),
        ('A="b # c" # comment', "b # c"),
        ("A='$X ${X}'", "$X ${X}"),
        ("A=$X", "x"),
        ('A="${X:-y} \\$X"', "x $X"),
        ("B=1\nA=$B", "1"),
        ("A='it\\'s'", "it's"),
        ('A="{\\"a\\": 1}"', '{"a": 1}'),
        ('A="a\\nb\\tc\\\\n"', "a\nb\tc\\n"),
        ("A='a\\n'", "a\\n"),
        ('A="two\nlines"', "two\nlines"),
        ("\ufeff# comment\r\n\r\nA=b\r\n", "b"),
    ],
)
def test_dotenv_is_read_as_compose_reads_it(tmp_path: Path, text: str, value: str) -> None:
    (tmp_path / ".env").write_text(text, encoding="utf-8", newline="")
    assert dotenv.read(tmp_path / ".env", {"X": "x", "A": "from outside"})["A"] == value


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("A=b\n=c", ":2: not a variable: "),
        ("A='b", ":1: missing closing quote"),
        ("\nA='b' c", ":2: a text after the closing quote"),
        ("A=${B:?needed}", ":1: the variable B has no value: needed"),
        ("two words=1", ":1: not a variable: two words"),
    ],
)
def test_a_wrong_line_of_dotenv_is_named(text: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        dotenv.parse(text, {}, ".env")
    assert caught.value.what == f".env{what}"


def test_the_environment_precedes_dotenv(write: Write) -> None:
    path = write(one('size: {agent: "${N:-1}", master: "${M:-1}"}'), env="N=2\nM=3\n")
    assert dev(load(path, environment={"N": "4"})).size == {"agent": 4, "master": 3}


def test_a_file_is_read_to_the_last_key(write: Write, tmp_path: Path) -> None:
    project = load(write(FULL))
    it = dev(project)
    assert it.set == {"color": "3.10", "level": "4"}  # 3.10 is a version, and no number
    assert (it.restart, it.networks, it.load, it.ttl) == ("no", ("back",), ("my/app:dev",), "8h")
    assert it.apply == (str(tmp_path / "deploy"),)
    assert project.clusters["other"].profile == str(tmp_path / "mine")
    made = definition.arguments(project, "dev")
    assert made["project"] == str(project.path)
    assert made["port"] == {"api": 6443}
    assert made["lease"].until is not None
    assert definition.arguments(project, "other")["lease"] == Lease()


def test_registries_and_authorities_are_arguments(write: Write, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(pki.Authority().issue(CertificateSpec("", "x")).ca)
    more = 'registry_mirrors: ["https://m.example/"]\nca: ./ca.pem\nregistries:\n'
    more += "  - {host: r.example, ca: ca.pem, credentials: no}\n  - {host: s.example, insecure: yes}"
    project = load(write(one(more)))
    made = projects.trusted(project, "dev")
    assert made["ca"] == str(ca)
    mirror, secure, insecure = made["registries"]
    assert (mirror.host, mirror.mirrors, mirror.credentials) == ("docker.io", ("https://m.example",), False)
    assert (secure.host, secure.ca.strip(), secure.credentials) == ("r.example", ca.read_text().strip(), False)
    assert (insecure.host, insecure.ca, insecure.insecure) == ("s.example", "", True)
    assert projects.trusted(load(write(one("size: {}"))), "dev") == {}


def test_mounts_are_words_of_the_option(write: Write, tmp_path: Path) -> None:
    mounts = "mounts:\n  - {role: agent, host: ./data, path: /data, read_only: true}\n"
    mounts += "  - {role: agent-1, host: /srv, path: /srv}\n"
    project = load(write(one(mounts)))
    words = [f"agent:{tmp_path}/data:/data:ro", "agent-1:/srv:/srv"]
    assert definition.arguments(project, "dev")["mounts"] == words


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("clusters: {}", ":1:1: the key 'version' is missing"),
        ("version: 2\nclusters: {}", ":1:10: format 2 is newer than this minicluster"),
        ("version: one\nclusters: {}", ":1:10: version must be 1, not 'one'"),
        ("version: 1", ":1:1: the file lacks the key 'clusters'"),
        ("version: 1\nclusters: {}", ":2:11: clusters must not be empty"),
        ("version: 1\ncluster: {}", ":1:1: the file lacks the key 'clusters'"),
        ("- 1", ":1:1: a project file is a mapping"),
        ("version: 1\nclusters: {dev: {profile: a, profile: b}}", ":2:30: key 'profile' is given twice"),
        ("version: [\n", ":2:1: not valid YAML"),
        (one("sizes: {agent: 1}"), ":5:5: unknown key 'sizes' in clusters.dev. Did you mean 'size'?"),
        (one("size: {agent: many}"), ":5:19: clusters.dev.size.agent must be an integer, not 'many'"),
        (one("size: {agent: -1}"), ":5:19: clusters.dev.size.agent must be at least 0, not -1"),
        (one("ports: {api: 70000}"), ":5:18: clusters.dev.ports.api must be at most 65535, not 70000"),
        (one("ttl: soon"), ":5:10: clusters.dev.ttl must be a duration, such as 30m, 8h or 1h30m, not 'soon'"),
        (one("mounts: [{role: a, host: b, path: c}]"), ":5:39: clusters.dev.mounts.0.path must be an absolute path"),
        (one('load: ["a b"]'), ":5:12: clusters.dev.load.0 must be the reference of an image, or the path of an"),
        (one('set: {color: "${X:?choose one}"}'), ":5:18: the variable X has no value: choose one"),
        (one("set: {color: 5$}"), ":5:18: not a variable: $"),
        (one('networks: ["a\\0b"]'), ":5:16: a NUL in the text"),
        ("version: 1\nclusters: {Dev_1: {profile: a}}", ":2:12: clusters.Dev_1 must be at most 30 lower-case letters"),
    ],
)
def test_an_error_has_its_line_and_column(write: Write, text: str, what: str) -> None:
    path = write(text)
    with pytest.raises(ProfileError) as caught:
        load(path, environment={})
    assert caught.value.what.startswith(f"{path}{what}")
    assert caught.value.fix


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (one("size: {agents: 1}"), ":5:20: size agents=1: no role named 'agents'"),
        (one("size: {master: 2}"), ":5:20: size master=2: "),
        (one("set: {colour: red}"), ":5:19: set colour=red: unknown key 'colour'"),
        (one("ports: {apis: 80}"), ":5:19: ports apis=80: no endpoint named 'apis'"),
        (one("ports: {'agent:x': 80}"), ":5:24: ports agent:x: must have the form"),
        (one("ports: {'agents:80': 80}"), ":5:26: ports agents:80=80: no role or node named"),
        (one("mounts: [{role: agents, host: ., path: /d}]"), ":5:14: mounts agents:"),
        (one("image: {nodes: x}"), ":5:20: image nodes=x: no image named 'nodes'"),
        (one('registry_mirrors: ["ftp://m"]'), ":5:24: registry_mirrors ftp://m: not the address of a mirror"),
        (one("registries: [{host: a/b}]"), ":5:18: registries a/b: not the name of a registry"),
        (one("registries: [{host: r.example, ca: nothing}]"), ":5:18: registries r.example,ca: cannot read"),
        (one("registries: [{host: r.example}]"), ":3:3: profile toy has no nodes that pull images"),
        (one("ca: nothing"), ":5:9: ca: cannot read"),
        (one("apply: [nothing]"), ":5:13: no such file or folder: "),
        ("version: 1\nclusters: {dev: {profile: no-such}}", ":2:27: no profile named 'no-such'"),
        ("version: 1\nclusters: {dev: {profile: ./no-such}}", ":2:27: no profile named '"),
    ],
)
def test_what_only_the_profile_knows_has_its_place_too(write: Write, text: str, what: str) -> None:
    project = load(write(text))
    with pytest.raises(UsageError) as caught:
        projects.check(project, "dev")
    assert caught.value.what.startswith(f"{project.path}{what}")


def test_the_nearest_file_is_used(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / find.NAME).touch()
    assert find.find(inner) == (tmp_path / find.NAME, False)
    (tmp_path / "a" / find.NAME).touch()
    assert find.find(inner) == (tmp_path / "a" / find.NAME, False)
    (tmp_path / "a" / find.NAME).chmod(0o644)
    (inner / find.NAME).mkdir()  # a folder of that name is none
    assert find.find(inner) == (tmp_path / "a" / find.NAME, False)


def test_the_search_ends_at_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    (home / "work").mkdir(parents=True)
    (tmp_path / find.NAME).touch()
    monkeypatch.setenv("HOME", str(home))
    assert find.find(home / "work") is None
    (home / find.NAME).touch()
    assert find.find(home / "work") == (home / find.NAME, False)


def test_the_search_ends_at_the_border_of_a_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "mounted" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / find.NAME).touch()
    real = Path.stat

    def stat(self: Path, **how: bool) -> os.stat_result:
        found = real(self, **how)
        values = list(found)
        values[2] = values[2] + 1 if "mounted" in self.parts else values[2]  # the device
        return os.stat_result(values)

    assert find.search(inner) == tmp_path / find.NAME
    monkeypatch.setattr(Path, "stat", stat)
    assert find.search(inner) is None


def test_a_removed_folder_has_no_file(tmp_path: Path) -> None:
    assert find.find(tmp_path / "gone") is None


@pytest.mark.parametrize("place", ["file", "folder", "env", "target"])
@pytest.mark.parametrize("how", ["others", "group", "owner"])
def test_a_file_that_another_user_could_have_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, how: str
) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    path = folder / find.NAME
    if place == "target":
        (tmp_path / "elsewhere.yaml").write_text(one())
        path.symlink_to(tmp_path / "elsewhere.yaml")
    else:
        path.write_text(one())
    (folder / ".env").write_text("A=b")
    odd = {"file": path, "folder": folder, "env": folder / ".env", "target": tmp_path / "elsewhere.yaml"}[place]
    if how == "owner":
        if os.getuid():
            pytest.skip("only root can give files to others")
        os.chown(odd, 4711, -1)
    else:
        if how == "group" and os.getuid() == 0:
            os.chown(odd, -1, 4711)
        odd.chmod(odd.stat().st_mode | (0o002 if how == "others" else 0o020))
        if how == "group" and os.getuid():
            pytest.skip("the group may be the user's own")
    monkeypatch.chdir(folder)

    def used() -> Project:
        found = find.find()
        assert found
        return load(found[0], named=found[1])

    with pytest.raises(UsageError) as caught:
        used()
    assert "is not used" in caught.value.what
    assert str(odd) in caught.value.why
    monkeypatch.setenv(find.VARIABLE, str(path))
    assert dev(used()).profile == str(TOY)
    monkeypatch.setenv(find.VARIABLE, "none")
    assert find.find() is None


def test_a_users_own_group_may_write_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import grp
    import pwd

    path = tmp_path / find.NAME
    path.touch()
    path.chmod(0o664)
    user = pwd.getpwuid(os.getuid()).pw_name
    groups = {"own": (user, []), "shared": (user, ["somebody"]), "users": ("users", [])}
    for name, (called, members) in groups.items():
        group = grp.struct_group((called, "x", 1, members))
        monkeypatch.setattr(grp, "getgrgid", lambda _gid, group=group: group)
        if name == "own":
            find.check_trusted(path)
        else:
            with pytest.raises(UsageError, match="is not used"):
                find.check_trusted(path)


def test_a_named_file_must_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(find.VARIABLE, str(tmp_path))
    with pytest.raises(UsageError, match="no project file"):
        find.find()
    (tmp_path / find.NAME).touch()
    assert find.find() == (tmp_path / find.NAME, True)


def minicluster(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def test_config_prints_a_file_that_means_the_same(write: Write, tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    path = write(FULL.replace("color: 3.10", "color: a$$b"))
    project = load(path)
    text = config.yaml_text(project)
    again = load(write(text))
    assert again.clusters == project.clusters
    assert dev(again).set["color"] == "a$b"
    assert yaml.safe_load(text) == config.resolved(project)


def test_config_does_not_show_secrets(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "hunter2")
    monkeypatch.setenv("COLOR", "green")
    write(one('set: {color: "$COLOR", level: "1"}\nnetworks: ["n-${API_TOKEN}", "m$MISSING"]'), env="DB_PASSWORD=x\n")
    for words in (["config"], ["config", "-o", "json"]):
        done = minicluster(*words)
        assert done.exit_code == 0, done.output
        assert "hunter" not in done.output
        assert "n-${API_TOKEN}" in done.stdout
        assert "green" in done.stdout
    assert "The variable MISSING is not set; it is empty." in done.stderr
    assert json.loads(minicluster("config", "-o", "json").stdout)["clusters"]["dev"]["set"]["color"] == "green"


def test_config_does_not_show_secrets_in_lists_of_settings(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    monkeypatch.setenv("COLOR", "green")
    project = load(write(one('set: {color: [a, "${DB_PASSWORD}"], level: {x: {y: "$DB_PASSWORD"}}}')))
    text = config.yaml_text(project)
    assert "hunter" not in text
    assert config.resolved(project)["clusters"]["dev"]["set"] == {
        "color": ["a", "${DB_PASSWORD}"],
        "level": {"x": {"y": "$DB_PASSWORD"}},
    }
    assert load(write(text)).clusters == project.clusters


def test_config_checks_the_file(write: Write) -> None:
    write(one("size: {agents: 1}"))
    done = minicluster("config", "-q")
    assert done.exit_code == 2
    assert "minicluster.yaml:5:20: size agents=1: no role named 'agents'" in done.stderr


def test_config_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = minicluster("config")
    assert done.exit_code == 2
    assert "`minicluster init` writes one" in done.stderr


def test_the_option_stands_before_and_after_the_command(write: Write, tmp_path: Path) -> None:
    path = write(one())
    other = tmp_path / "other.yaml"
    other.write_text(one().replace("dev:", "second:"))
    for words in (["-f", str(other), "config"], ["config", "-f", "other.yaml"], ["config", "--file=other.yaml"]):
        assert "second:" in minicluster(*words).stdout
    assert find.VARIABLE not in os.environ
    assert "dev:" in minicluster("config").stdout
    assert minicluster("-f", "none", "config").exit_code == 2
    assert path.exists()


@pytest.mark.parametrize("name", folders.names())
def test_init_writes_a_file_that_is_valid(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "My Shop"
    folder.mkdir()
    monkeypatch.chdir(folder)
    done = minicluster("init", name)
    assert done.exit_code == 0, done.output
    project = load(folder / find.NAME)
    assert list(project.clusters) == ["my-shop"]
    definition.check(project, "my-shop")
    text = (folder / find.NAME).read_text()
    for key in ("set", "ttl"):  # what is commented out is valid, too
        text = text.replace(f"# {key}:", f"{key}:")
    (folder / find.NAME).write_text(text)
    definition.check(load(folder / find.NAME), "my-shop")
    again = minicluster("init", name)
    assert again.exit_code == 2
    assert "exists already" in again.stderr


def test_init_for_a_profile_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scaffold.create(str(TOY), "dev", Path())
    assert dev(load(tmp_path / find.NAME)).profile == str(TOY)
    with pytest.raises(UsageError, match="invalid name"):
        scaffold.create("etcd", "No Name", Path())


def test_the_published_schema_is_the_one_of_the_code() -> None:
    assert json.loads(SCHEMA.read_text()) == config.json_schema(), "run scripts/update-docs"


def test_the_schema_takes_what_the_code_takes() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(config.json_schema())
    written = yaml.safe_load(FULL.replace("restart: no", 'restart: "no"'))
    assert list(validator.iter_errors({k: v for k, v in written.items() if not k.startswith("x-")})) == []
    assert list(validator.iter_errors({"version": 1, "clusters": {"dev": {"profile": "a", "sizes": {}}}}))


def test_restart_has_the_policies_of_the_option() -> None:
    (policies, _how) = Cluster.model_fields["restart"].annotation, None
    assert getattr(policies, "__args__", ()) == RESTART_POLICIES
