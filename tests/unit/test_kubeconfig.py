"""A cluster's entries in the user's kubeconfig: nothing else changes, and nothing of ours stays."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from minicluster import cluster as facade, paths
from minicluster.cli.app import app
from minicluster.cluster import Cluster
from minicluster.contrib.kubernetes import after_up, kubeconfig, locked_file
from minicluster.errors import MiniclusterError, UsageError
from minicluster.model.deferred import readable
from minicluster.model.events import Event
from tests.fakes import FakeEngine
from tests.unit.samples import TOY
from tests.unit.standing import spec_of
from tests.unit.test_cluster import up

OTHERS = {
    "apiVersion": "v1",
    "kind": "Config",
    "preferences": {"colors": True},
    "clusters": [{"name": "work", "cluster": {"server": "https://work:6443", "unknown-field": [1, {"a": None}]}}],
    "users": [{"name": "me", "user": {"exec": {"command": "login", "args": ["--at", "2021-01-01"]}}}],
    "contexts": [
        {"name": "work", "context": {"cluster": "work", "user": "me", "namespace": "x"}},
        {"name": "play", "context": {"cluster": "work", "user": "me"}},
    ],
    "current-context": "work",
}
TEMPLATE = """\
apiVersion: v1
kind: Config
clusters:
- {name: "minicluster-{{ cluster.name }}", cluster: {server: "{{ endpoint('api').url }}",
   certificate-authority-data: "{{ client.ca_base64 }}"}}
users:
- {name: "minicluster-{{ cluster.name }}", user: {client-certificate-data: "{{ client.certificate_base64 }}",
   client-key-data: "{{ client.key_base64 }}"}}
contexts:
- {name: "minicluster-{{ cluster.name }}",
   context: {cluster: "minicluster-{{ cluster.name }}", user: "minicluster-{{ cluster.name }}"}}
current-context: minicluster-{{ cluster.name }}
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home, of which nothing is there yet."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    return tmp_path


@pytest.fixture
def file(home: Path) -> Path:
    """The user's kubeconfig, with others' entries."""
    path = home / ".kube" / "config"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(OTHERS))
    return path


@pytest.fixture
def k() -> str:
    return standing("k")


def standing(cluster: str, server: str = "https://127.0.0.1:21000", authority: str = "CA") -> str:
    """The client's folder of a cluster, as `env` leaves it."""
    folder = paths.client_directory(cluster)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"minicluster-{cluster}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": name, "user": {"client-certificate-data": f"of {authority}", "client-key-data": "KEY"}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    return cluster


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def change(path: Path, **fields: Any) -> None:
    path.write_text(yaml.safe_dump({**read(path), **fields}))


def named(entries: list[Any], name: str) -> Any:
    return next(entry for entry in entries if entry["name"] == name)


# Merging


def test_into_nothing_and_out_again(k: str, home: Path) -> None:
    path = home / ".kube" / "config"
    kubeconfig.merge(k, path)
    config = read(path)
    assert config["current-context"] == "minicluster-k"
    assert config["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:21000"
    assert config["users"][0]["user"]["client-key-data"] == "KEY"
    assert config["contexts"][0]["context"]["cluster"] == config["clusters"][0]["name"] == "minicluster-k"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert kubeconfig.unmerge(k, path)
    assert list(path.parent.iterdir()) == []


def test_others_stay_as_they_are(k: str, file: Path) -> None:
    file.chmod(0o640)
    kubeconfig.merge(k, file)
    config = read(file)
    for kind in ("clusters", "users", "contexts"):
        assert config[kind][:-1] == OTHERS[kind]
    assert config["preferences"] == OTHERS["preferences"]
    assert config["current-context"] == "minicluster-k"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert kubeconfig.unmerge(k, file)
    assert read(file) == OTHERS
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [p.name for p in file.parent.iterdir()] == ["config"]
    assert not kubeconfig.unmerge(k, file)


def test_twice_is_once(k: str, file: Path) -> None:
    kubeconfig.merge(k, file)
    before = file.read_bytes()
    kubeconfig.merge(k, file)
    assert file.read_bytes() == before
    kubeconfig.unmerge(k, file)
    assert read(file) == OTHERS


@pytest.mark.parametrize("current", ["", None])
def test_no_context_was_current(k: str, file: Path, current: str | None) -> None:
    change(file, **{"current-context": current})
    kubeconfig.merge(k, file)
    assert read(file)["current-context"] == "minicluster-k"
    kubeconfig.unmerge(k, file)
    assert read(file)["current-context"] == current
    config = read(file)
    del config["current-context"]
    file.write_text(yaml.safe_dump(config))
    kubeconfig.merge(k, file)
    kubeconfig.unmerge(k, file)
    assert read(file) == config


def test_a_context_that_the_user_chose_meanwhile_stays(k: str, file: Path) -> None:
    kubeconfig.merge(k, file)
    change(file, **{"current-context": "play"})
    kubeconfig.unmerge(k, file)
    assert read(file)["current-context"] == "play"


def test_a_context_that_is_gone_does_not_come_back(k: str, file: Path) -> None:
    kubeconfig.merge(k, file)
    change(file, contexts=[c for c in read(file)["contexts"] if c["name"] != "work"])
    kubeconfig.unmerge(k, file)
    assert "current-context" not in read(file)


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_two_clusters_lead_back_in_any_order(file: Path, order: str) -> None:
    for name in "ab":
        kubeconfig.merge(standing(name), file)
    assert read(file)["current-context"] == "minicluster-b"
    kubeconfig.unmerge(order[0], file)
    assert read(file)["current-context"] == f"minicluster-{order[1]}"
    kubeconfig.unmerge(order[1], file)
    assert read(file) == OTHERS


def test_the_last_of_two_clusters_removes_the_file_that_was_made_for_them(home: Path) -> None:
    for name in "ab":
        kubeconfig.merge(standing(name), home / "new")
    kubeconfig.unmerge("a", home / "new")
    kubeconfig.unmerge("b", home / "new")
    assert not (home / "new").exists()


def test_a_file_that_was_made_stays_with_what_the_user_put_into_it(k: str, home: Path) -> None:
    kubeconfig.merge(k, home / "new")
    change(home / "new", users=[*read(home / "new")["users"], {"name": "me", "user": {}}])
    kubeconfig.unmerge(k, home / "new")
    assert read(home / "new")["users"] == [{"name": "me", "user": {}}]


def test_an_empty_file_is_a_file(k: str, home: Path) -> None:
    (home / "empty").touch()
    kubeconfig.merge(k, home / "empty")
    kubeconfig.unmerge(k, home / "empty")
    assert (home / "empty").read_bytes() == b""


def test_a_comment_in_a_file_that_was_created_stays(k: str, home: Path) -> None:
    kubeconfig.merge(k, home / "new")
    (home / "new").write_text("# to do: write this\n" + (home / "new").read_text())
    kubeconfig.unmerge(k, home / "new")
    assert (home / "new").read_text() == "# to do: write this\napiVersion: v1\nkind: Config\n"


def test_an_entry_of_anothers_with_our_name_is_not_replaced(k: str, file: Path) -> None:
    change(file, users=[{"name": "minicluster-k", "user": {"token": "mine"}}])
    before = file.read_bytes()
    with pytest.raises(MiniclusterError, match="already has a user minicluster-k"):
        kubeconfig.merge(k, file)
    assert file.read_bytes() == before
    assert not kubeconfig.unmerge(k, file)
    assert [p.name for p in file.parent.iterdir()] == ["config"]


def test_what_the_user_added_to_the_context_stays(k: str, file: Path) -> None:
    kubeconfig.merge(k, file)
    config = read(file)
    named(config["contexts"], "minicluster-k")["context"]["namespace"] = "mine"
    file.write_text(yaml.safe_dump(config))
    kubeconfig.merge(k, file)
    assert named(read(file)["contexts"], "minicluster-k")["context"]["namespace"] == "mine"


def test_a_context_that_was_renamed_goes_too(k: str, file: Path) -> None:
    kubeconfig.merge(k, file)
    config = read(file)
    named(config["contexts"], "minicluster-k")["name"] = "short"
    file.write_text(yaml.safe_dump({**config, "current-context": "short"}))
    kubeconfig.unmerge(k, file)
    assert read(file) == OTHERS


@pytest.mark.parametrize("verified", [True, False])
def test_another_way_to_the_server_is_the_same_cluster(k: str, file: Path, verified: bool) -> None:
    kubeconfig.merge(k, file)
    config = read(file)
    entry = named(config["clusters"], "minicluster-k")["cluster"]
    entry["server"] = "https://tunnel:1"
    if not verified:  # as `kubectl config set-cluster --insecure-skip-tls-verify` leaves it
        del entry["certificate-authority-data"]
        entry["insecure-skip-tls-verify"] = True
    file.write_text(yaml.safe_dump(config))
    assert kubeconfig.unmerge(k, file)
    assert read(file) == OTHERS


def test_entries_that_the_user_made_another_clusters_stay(k: str, file: Path) -> None:
    kubeconfig.merge(k, file)
    config = read(file)
    about = {"server": "https://other", "certificate-authority-data": "OTHER"}
    named(config["clusters"], "minicluster-k")["cluster"].update(about)
    file.write_text(yaml.safe_dump(config))
    standing("k", server="https://127.0.0.1:21001")
    kubeconfig.renew(k, str(file))
    assert not kubeconfig.unmerge(k, file)
    with pytest.raises(MiniclusterError, match="already has a cluster minicluster-k"):
        kubeconfig.merge(k, file)
    assert read(file) == config


# What is not ours stays as it is, to the byte

DATA = "TFMw" * 300
FILES = {
    "comments": """\
# at the top

apiVersion: v1   # inline
kind: Config
# before the clusters
clusters:
# before the first
- name: work   # the office
  cluster:
    server:   'https://work:6443'   # inline, the last

# between two
- name: "home"
  cluster: &home
    server: https://home
# after the last
users:
- name: me
  user: {token: abc}   # - not an item
# - name: old
#   user: {token: old}
contexts:
- context: {cluster: work, user: me}
  name: work
- name: away
  context:
    cluster: home
    user:
# before the current one
current-context:   work  # now
# at the end
""",
    "kubectl": f"""\
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: {DATA}
    server: https://work:6443
  name: work
contexts:
- context:
    cluster: work
    user: me
  name: work
current-context: work
kind: Config
preferences: {{}}
users:
- name: me
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      args:
      - token
      command: login
      env: null
""",
    "kubectl, of which nothing is left": """\
apiVersion: v1
clusters: null
contexts: null
current-context: ""
kind: Config
preferences: {}
users: null
""",
    "indented": """\
clusters:
    -   name: work
        cluster:
            server: https://work
    -
        name: home
        cluster: {}
contexts:
  - context:
      cluster: work
    name: work
users: []
current-context: 'work'
""",
    "order of keys": """\
current-context: "no"
users: [ ]
kind: Config
contexts:
- name: "no"
  context: {user: b, cluster: a}
- context: {cluster: a, user: b}
  name: b
apiVersion: v1
""",
    "flow": """{apiVersion: v1,kind: Config, clusters: [ {name: a, cluster: {server: 'x'}},{name: b} ],
  users: [], current-context: '',   contexts: [
    {name: c},
  ]}
""",
    "JSON": json.dumps(OTHERS, indent=4),
    "JSON, indented with tabs": json.dumps(OTHERS, indent="\t") + "\n",
    "JSON on one line": json.dumps(OTHERS, separators=(",", ":")),
    "JSON of nothing": "{}",
    "JSON without contexts": '{"clusters": null, "users": [], "current-context": null}',
    "several lines": """\
users:
- name: me
  user:
    token: >-
      folded
      text
    password: a plain text
      on two lines
- name: you
  user:
    token: |+
      kept

clusters:
- name: work
  cluster:
    certificate-authority-data: |
      # not a comment
      - not an item

contexts: # none yet
""",
    "anchors": """\
x-defaults: &d
  user: me
clusters: &all
  # the only one
- &work
  name: work
  cluster: &c {server: https://work}
- name: same
  cluster: *c
contexts:
- name: work
  context:
    <<: *d
    cluster: work
current-context: &now work
users:
- name: me
  user: *d
""",
    "text that looks like something else": """\
x: {time: 2021-01-01T00:00:00Z, port: 12:30, octal: 0o17, wanted: yes, ratio: 1.50, nothing: ~, number: 1_000}
contexts:
- {name: "1e3", context: {cluster: y, user: 'n'}}
current-context: "1e3"
""",
    "duplicate names": """\
clusters:
- name: work
  cluster: {server: https://one}
- name: work
  cluster: {server: https://two}
contexts:
- name: work
- name: work
current-context: work
""",
    "a current context that does not exist": """\
contexts:
- name: work
current-context: gone
""",
    "one document": "---\nclusters: []\n...\n",
    "an empty document": "---\n",
    "comments alone": "# nothing yet\n\n# to do\n",
    "an empty line": "\n",
    "no line break at the end": "apiVersion: v1\nusers:\n- name: me",
    "words for null": "contexts: ~\nclusters:\nusers: Null # none\ncurrent-context:\n",
    "a byte order mark": "\ufeffapiVersion: v1\ncurrent-context:\n",
    "not ASCII": "contexts:\n- name: café # 🎉\ncurrent-context: café # 🎉\n",
}


@pytest.fixture(params=["LF", "CRLF"])
def original(request: pytest.FixtureRequest, file: Path, style: str) -> bytes:
    text = FILES[style]
    if request.param == "CRLF":
        text = text.replace("\n", "\r\n")
    file.write_bytes(text.encode())
    return file.read_bytes()


@pytest.mark.parametrize("style", FILES)
def test_merged_and_unmerged_is_the_same_file(k: str, file: Path, original: bytes) -> None:
    before = yaml.load(original.replace(b"\t", b" "), Loader=yaml.BaseLoader) or {}
    kubeconfig.merge(k, file)
    merged = file.read_bytes()
    after = yaml.load(merged.replace(b"\t", b" "), Loader=yaml.BaseLoader)
    assert after["current-context"] == "minicluster-k"
    for kind in ("clusters", "users", "contexts"):
        assert named(after[kind], "minicluster-k")
        if isinstance(before.get(kind), list):
            assert after[kind][:-1] == before[kind]
    if b"\r\n" in original:
        assert merged.count(b"\n") == merged.count(b"\r\n")
    # Each comment is still there, in the same order.
    assert re.findall(rb"#[^\r\n]*", merged) == re.findall(rb"#[^\r\n]*", original)
    kubeconfig.merge(k, file)
    assert file.read_bytes() == merged
    kubeconfig.unmerge(k, file)
    assert file.read_bytes() == original


@pytest.mark.parametrize("style", FILES)
def test_two_clusters_and_the_same_file(file: Path, original: bytes) -> None:
    for order in ("ab", "ba"):
        for name in "ab":
            kubeconfig.merge(standing(name), file)
        kubeconfig.unmerge(order[0], file)
        assert file.read_bytes() != original
        kubeconfig.unmerge(order[1], file)
        assert file.read_bytes() == original


@pytest.mark.parametrize("style", ["comments", "JSON"])
def test_what_the_user_writes_meanwhile_stays(k: str, file: Path, original: bytes) -> None:
    kubeconfig.merge(k, file)
    for old, new in ((b"https://work:6443", b"https://elsewhere"), (b"work", b"office")):
        assert old in original
        original = original.replace(old, new)
        file.write_bytes(file.read_bytes().replace(old, new))
    kubeconfig.unmerge(k, file)
    assert file.read_bytes() == original


def test_comments_around_our_entries_stay(k: str, file: Path) -> None:
    file.write_text("clusters:\n- name: work\nusers: []\n")
    kubeconfig.merge(k, file)
    text = file.read_text().replace("- name: minicluster-k\n  cluster:", "# before\n- name: minicluster-k\n  cluster:")
    file.write_text(text.replace("users:", "# after\n- name: play\nusers:"))
    standing("k", server="https://127.0.0.1:21001")
    kubeconfig.renew(k, str(file))
    assert "https://127.0.0.1:21001" in file.read_text()
    kubeconfig.unmerge(k, file)
    assert file.read_text() == "clusters:\n- name: work\n# before\n# after\n- name: play\nusers: []\n"


def test_an_entry_that_the_user_duplicated_goes_too(k: str, file: Path) -> None:
    kubeconfig.merge(k, file)
    config = read(file)
    config["contexts"].append({**copy.deepcopy(named(config["contexts"], "minicluster-k")), "name": "copy"})
    file.write_text(yaml.safe_dump(config))
    kubeconfig.unmerge(k, file)
    assert read(file) == OTHERS


def test_an_anchor_in_our_entry_that_is_used_elsewhere(k: str, file: Path) -> None:
    kubeconfig.merge(k, file)
    text = file.read_text().replace("  user:\n    client-cert", "  user: &ours\n    client-cert") + "copy: *ours\n"
    file.write_text(text)
    with pytest.raises(MiniclusterError, match="cannot be edited"):
        kubeconfig.unmerge(k, file)
    assert file.read_text() == text


WORDS = [
    "y",
    "n",
    "on",
    "1e3",
    "0o17",
    "0x1F",
    "12:30",
    "2021-01-01",
    "010",
    "1_000",
    ".5",
    "1.30",
    "é",
    " #",
    "a: b",
    "'",
]


@pytest.mark.parametrize("word", WORDS)
def test_text_is_written_as_text(k: str, file: Path, word: str) -> None:
    """The context that was current before is remembered in our entry, where kubectl must read it as text too."""
    others = {
        **OTHERS,
        "contexts": [{"name": word, "context": {"cluster": "work", "user": "me"}}],
        "current-context": word,
    }
    file.write_text(json.dumps(others))
    kubeconfig.merge(k, file)
    change(file)  # another program lays it out differently
    kubeconfig.unmerge(k, file)
    assert read(file) == others


@pytest.mark.parametrize(
    "broken",
    [
        "a: [",
        "- 1",
        "clusters: {a: 1}",
        "users: [1]",
        "contexts: [{context: {}}]",
        "kind: List",
        "apiVersion: v2",
        "a: 1\n---\n",
        "clusters: *all",
        "all: &all []\nclusters: *all",
        "users: []\nusers: []",
        "? [a]\n: b",
        "text",
    ],
)
def test_what_cannot_be_understood_is_left_as_it_is(k: str, file: Path, broken: str) -> None:
    file.write_text(f"# minicluster-k\n{broken}")
    for act in (kubeconfig.merge, kubeconfig.unmerge):
        with pytest.raises(MiniclusterError, match=f"{file} is not a kubeconfig that can be edited"):
            act(k, file)
    assert file.read_text() == f"# minicluster-k\n{broken}"
    assert [p.name for p in file.parent.iterdir()] == ["config"]
    assert kubeconfig.merged(k) == []


def test_what_is_no_text_is_left_as_it_is(k: str, file: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(MiniclusterError, match="cannot be read"):
        kubeconfig.merge(k, file)
    assert file.read_bytes() == b"\xff\xfe"


# Which file


def test_the_file_is_the_one_that_kubectl_writes_to(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def target(*words: str) -> str:
        monkeypatch.setenv("KUBECONFIG", os.pathsep.join(words))
        return str(kubeconfig.target())

    one, two, three = (str(home / name) for name in ("one", "two", "three"))
    default = str(home / ".kube" / "config")
    assert target() == default
    assert target(one) == one
    assert target(one, two) == two
    Path(two).touch()
    assert target(one, two, three) == two
    assert target("", one, "") == one
    # What `minicluster env` says is no place for others.
    own = str(paths.client_directory("k") / "kubeconfig")
    assert target(own) == default
    assert target(own, one) == one


def test_several_files_in_kubeconfig(k: str, file: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", f"{home / 'none'}:{file}:{home / 'also'}")
    kubeconfig.merge(k, kubeconfig.target())
    assert read(file)["current-context"] == "minicluster-k"
    assert not (home / "none").exists()
    assert not (home / "also").exists()


def test_a_clusters_own_file_is_refused(k: str) -> None:
    with pytest.raises(UsageError, match="belongs to a cluster"):
        kubeconfig.merge(k, paths.client_directory("k") / "kubeconfig")


def test_a_link_stays_one(k: str, file: Path, home: Path) -> None:
    real = home / "dotfiles" / "kube"
    real.parent.mkdir()
    file.rename(real)
    file.symlink_to(real)
    kubeconfig.merge(k, file)
    assert file.is_symlink()
    assert read(real)["current-context"] == "minicluster-k"
    kubeconfig.unmerge(k, file)
    assert file.is_symlink()
    assert read(real) == OTHERS


def test_a_link_of_a_folder_is_no_second_lock(k: str, file: Path, home: Path) -> None:
    (home / "link").symlink_to(file.parent)
    kubeconfig.merge(k, home / "link" / "config")
    assert read(file)["current-context"] == "minicluster-k"


# Locks, and what cannot be written


def test_a_lock_is_waited_for(k: str, file: Path) -> None:
    lock = Path(f"{file}.lock")
    lock.touch()
    threading.Timer(0.3, lock.unlink).start()
    begun = time.monotonic()
    kubeconfig.merge(k, file)
    assert time.monotonic() - begun >= 0.25
    assert read(file)["current-context"] == "minicluster-k"
    assert not lock.exists()


@pytest.mark.parametrize("by_link", [True, False])
def test_a_lock_that_stays_is_told(
    k: str, file: Path, home: Path, monkeypatch: pytest.MonkeyPatch, by_link: bool
) -> None:
    monkeypatch.setattr(locked_file, "PATIENCE", 0.1)
    (home / "link").symlink_to(file)
    lock = home / "link.lock" if by_link else Path(f"{file}.lock")
    lock.touch()
    before = file.read_bytes()
    with pytest.raises(MiniclusterError, match="is locked by another process") as caught:
        kubeconfig.merge(k, home / "link")
    assert str(lock) in caught.value.why
    assert file.read_bytes() == before
    assert sorted(home.rglob("*.lock")) == [lock]


def test_a_folder_that_cannot_be_written(k: str, home: Path) -> None:
    (home / "in-the-way").touch()
    with pytest.raises(MiniclusterError, match="cannot be locked"):
        kubeconfig.merge(k, home / "in-the-way" / "config")


def test_a_full_disk_leaves_the_file_as_it_is(k: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    before = file.read_bytes()
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(MiniclusterError, match="cannot be written"):
        kubeconfig.merge(k, file)
    assert file.read_bytes() == before
    assert [p.name for p in file.parent.iterdir()] == ["config"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("folder", [True, False])
def test_what_is_read_only(k: str, file: Path, folder: bool) -> None:
    locked = file.parent if folder else file
    locked.chmod(0o500)
    try:
        with pytest.raises(MiniclusterError, match="cannot be"):
            kubeconfig.merge(k, file)
        assert read(file) == OTHERS
    finally:
        locked.chmod(0o700)


def test_many_at_once_lose_nothing(file: Path) -> None:
    names = [standing(f"k{i}") for i in range(8)]
    code = (
        "import sys; from pathlib import Path; from minicluster.contrib.kubernetes import kubeconfig, locked_file\n"
        "locked_file.PATIENCE, name, file = 60, sys.argv[1], Path(sys.argv[2])\n"
        "for _ in range(3): kubeconfig.merge(name, file); assert kubeconfig.unmerge(name, file)\n"
        "kubeconfig.merge(name, file)\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, name, str(file)]) for name in names]
    assert [process.wait(timeout=90) for process in running] == [0] * 8
    assert {c["name"] for c in read(file)["contexts"]} == {"work", "play", *(f"minicluster-{n}" for n in names)}
    for name in names:
        kubeconfig.unmerge(name, file)
    assert read(file) == OTHERS
    assert [p.name for p in file.parent.iterdir()] == ["config"]


# With a cluster


@pytest.fixture
def profile(tmp_path: Path) -> str:
    folder = shutil.copytree(TOY, tmp_path / "toy")
    text = (folder / "profile.yaml").read_text()
    plain = "client: {certificate: {common_name: tester}}"
    assert plain in text
    text = text.replace(plain, plain[:-1] + ", files: {kubeconfig: files/kubeconfig.j2}}")
    (folder / "profile.yaml").write_text(text)
    (folder / "files" / "kubeconfig.j2").write_text(TEMPLATE)
    return str(folder)


@pytest.fixture
def connected(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda **_options: engine)
    return engine


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["kubeconfig", *words], prog_name="minicluster")


def test_the_command(connected: FakeEngine, profile: str, file: Path, home: Path) -> None:
    cluster = up(connected, profile=profile)
    printed = run()
    assert yaml.safe_load(printed.stdout)["current-context"] == "minicluster-toy"
    assert printed.stderr == ""
    assert read(file) == OTHERS
    assert run("-c", "toy", "--merge").stdout == f"Merged cluster toy into {file}; it is the current context.\n"
    assert run("--merge", "--file", str(home / "other")).exit_code == 0
    assert kubeconfig.merged("toy") == [file, home / "other"]
    removed = "".join(f"Removed cluster toy from {path}.\n" for path in (file, home / "other"))
    assert run("--unmerge").stdout == removed
    assert run("--unmerge", "--file", str(file)).stdout == f"Cluster toy is not in {file}.\n"
    assert read(file) == OTHERS
    assert run("--merge").exit_code == 0
    cluster.down()
    assert read(file) == OTHERS
    assert not paths.client_directory("toy").exists()


@pytest.mark.parametrize("words", ["--merge --unmerge", "--file x", "--merge --file"])
def test_wrong_usage(words: str) -> None:
    assert run(*words.split()).exit_code == 2


def test_a_cluster_of_another_kind(connected: FakeEngine) -> None:
    up(connected)
    for words in ([], ["--merge"]):
        refused = run(*words)
        assert refused.exit_code == 2
        assert "cluster toy has no kubeconfig" in refused.stderr


def test_down_takes_it_out_of_every_file(connected: FakeEngine, profile: str, file: Path, home: Path) -> None:
    cluster = up(connected, profile=profile)
    cluster.env()
    for path in (file, home / "two"):
        kubeconfig.merge("toy", path)
    facade.down(["toy"])
    assert read(file) == OTHERS
    assert not (home / "two").exists()


def test_down_goes_on_where_it_cannot(
    connected: FakeEngine, profile: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locked_file, "PATIENCE", 0.1)
    up(connected, profile=profile).env()
    kubeconfig.merge("toy", file)
    Path(f"{file}.lock").touch()
    told: list[Event] = []
    assert facade.down(["toy"], listener=told.append)[0].changed
    assert connected.empty()
    assert not paths.client_directory("toy").exists()
    (note,) = [event.text for event in told if event.kind == "note"]
    assert note.startswith(f"{file} still has cluster toy: ")
    assert f"{file}.lock" in note
    Path(f"{file}.lock").unlink()
    assert run("--unmerge", "-c", "toy").exit_code == 0
    assert read(file) == OTHERS


def test_another_port_comes_through(connected: FakeEngine, profile: str, file: Path) -> None:
    up(connected, profile=profile).env()
    kubeconfig.merge("toy", file)
    change(file, **{"current-context": "play"})
    again = Cluster.up(profile, port={"api": 23456}, engine=connected)
    assert again.info().notes == ()
    config = read(file)
    assert named(config["clusters"], "minicluster-toy")["cluster"]["server"] == "https://127.0.0.1:23456"
    assert config["current-context"] == "play"
    again.down()
    assert read(file) == {**OTHERS, "current-context": "play"}


def test_what_the_user_took_out_does_not_come_back(connected: FakeEngine, profile: str, file: Path) -> None:
    up(connected, profile=profile).env()
    kubeconfig.merge("toy", file)
    # The name alone may be another cluster's: kubeadm's clusters are called "kubernetes".
    text = yaml.safe_dump(OTHERS).replace("play", "toy") + "# minicluster was here\n"
    file.write_text(text)
    Cluster.up(profile, port={"api": 23456}, engine=connected).env()
    assert file.read_text() == text


def test_a_port_that_cannot_come_through_is_told(
    connected: FakeEngine, profile: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locked_file, "PATIENCE", 0.1)
    up(connected, profile=profile).env()
    kubeconfig.merge("toy", file)
    Path(f"{file}.lock").touch()
    heard: list[Event] = []
    Cluster.up(profile, port={"api": 23456}, engine=connected, listener=heard.append)
    (note,) = [event.text for event in heard if event.kind == "note" and "outdated address" in event.text]
    assert f"Correct it: `minicluster kubeconfig --merge -c toy --file {file}`." in note
    Path(f"{file}.lock").unlink()
    assert run("--merge", "-c", "toy").exit_code == 0
    assert named(read(file)["clusters"], "minicluster-toy")["cluster"]["server"].endswith(":23456")


def test_another_authority_comes_through(connected: FakeEngine, profile: str, file: Path) -> None:
    """The cluster went away by other means, and came back: the client's folder is recreated."""
    up(connected, profile=profile).env()
    kubeconfig.merge("toy", file)
    before = copy.deepcopy(read(file))
    for things in (connected.boxes, connected.nets, connected.vols):
        things.clear()
    cluster = up(connected, profile=profile)
    cluster.env()
    after = read(file)
    for kind, field, data in (
        ("clusters", "cluster", "certificate-authority-data"),
        ("users", "user", "client-key-data"),
    ):
        old, new = (named(config[kind], "minicluster-toy")[field][data] for config in (before, after))
        assert old != new
    cluster.down()
    assert read(file) == OTHERS


def test_the_profile_of_kubernetes_has_what_is_merged() -> None:
    (written,) = [f for f in spec_of("kubernetes").client_files if f.path == "kubeconfig"]
    config = yaml.safe_load(readable(written.content))  # deferred values are not there yet
    names = {config[kind][0]["name"] for kind in ("clusters", "users", "contexts")}
    assert names == {config["current-context"]} == {"minicluster-c"}


# The stock client


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kubectl_reads_what_was_written(k: str, file: Path) -> None:
    def kubectl(*words: str) -> str:
        command = ["kubectl", "--kubeconfig", str(file), "config", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    file.write_text(FILES["comments"])
    before = json.loads(kubectl("view", "--raw", "-o", "json"))
    standing("k", authority="Q0E=")
    config = read(paths.client_directory("k") / "kubeconfig")
    config["users"][0]["user"] = {"client-certificate-data": "Q0VSVA==", "client-key-data": "S0VZ"}
    (paths.client_directory("k") / "kubeconfig").write_text(yaml.safe_dump(config))
    kubeconfig.merge(k, file)
    assert kubectl("current-context") == "minicluster-k\n"
    seen = json.loads(kubectl("view", "--raw", "--minify", "-o", "json"))
    assert seen["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:21000"
    assert seen["users"][0]["user"]["client-key-data"] == "S0VZ"
    # kubectl writes, and our marks stay.
    kubectl("set-context", "--current", "--namespace=mine")
    kubectl("rename-context", "minicluster-k", "short")
    kubeconfig.merge(k, file)
    kubeconfig.unmerge(k, file)
    assert json.loads(kubectl("view", "--raw", "-o", "json")) == before


# After up


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(after_up, "_at_terminal", lambda: True)


def merge(cluster: Cluster, *, unwanted: bool = False) -> list[str]:
    return [*after_up.after_up.call(cluster, unwanted)]


def test_up_at_a_terminal_merges_once(terminal: None, connected: FakeEngine, profile: str, file: Path) -> None:
    cluster = up(connected, profile=profile)
    (note,) = merge(cluster)
    assert note == (
        f"kubectl's current context is minicluster-toy, in {file} (before: work; `minicluster down toy` restores it)."
    )
    assert read(file)["current-context"] == "minicluster-toy"
    change(file, **{"current-context": "play"})
    assert merge(cluster) == []
    assert read(file)["current-context"] == "play"
    cluster.down()
    assert read(file) == {**OTHERS, "current-context": "play"}


def test_down_restores_the_context_that_up_replaced(
    terminal: None, connected: FakeEngine, profile: str, file: Path
) -> None:
    cluster = up(connected, profile=profile)
    merge(cluster)
    cluster.down()
    assert read(file) == OTHERS


def test_what_the_user_took_out_is_not_merged_again(
    terminal: None, connected: FakeEngine, profile: str, file: Path
) -> None:
    cluster = up(connected, profile=profile)
    merge(cluster)
    assert run("--unmerge").exit_code == 0
    assert merge(cluster) == []
    assert read(file) == OTHERS


def test_no_kubeconfig_leaves_it(terminal: None, connected: FakeEngine, profile: str, file: Path) -> None:
    assert merge(up(connected, profile=profile), unwanted=True) == []
    assert read(file) == OTHERS


def test_without_a_terminal_it_is_left(connected: FakeEngine, profile: str, file: Path) -> None:
    assert merge(up(connected, profile=profile)) == []
    assert read(file) == OTHERS


def test_a_cluster_without_a_kubeconfig_changes_nothing(terminal: None, connected: FakeEngine, home: Path) -> None:
    assert merge(up(connected)) == []
    assert not (home / ".kube").exists()


def test_the_former_context_is_what_kubectl_takes(
    terminal: None, connected: FakeEngine, profile: str, file: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "first").write_text("apiVersion: v1\nkind: Config\n")
    monkeypatch.setenv("KUBECONFIG", f"{home / 'none'}{os.pathsep}{home / 'first'}{os.pathsep}{file}")
    cluster = up(connected, profile=profile)
    (note,) = merge(cluster)
    assert f"in {home / 'first'} (before: work; " in note
    assert read(file) == OTHERS
    cluster.down()
    assert (home / "first").read_text() == "apiVersion: v1\nkind: Config\n"


def test_what_cannot_be_merged_does_not_fail_up(
    terminal: None, connected: FakeEngine, profile: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locked_file, "PATIENCE", 0.1)
    cluster = up(connected, profile=profile)
    Path(f"{file}.lock").touch()
    (note,) = merge(cluster)
    assert note.startswith(f"your kubeconfig stays as it is: {file} is locked by another process.")
    assert note.endswith("To merge it: `minicluster kubeconfig --merge -c toy`.")
    assert read(file) == OTHERS
    file.write_text("[broken")
    Path(f"{file}.lock").unlink()
    assert "is not a kubeconfig that can be edited" in merge(cluster)[0]
