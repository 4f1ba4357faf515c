"""A cluster's secrets: named in templates, known once there is an authority, the same in all nodes for ever."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from minicluster import pki
from minicluster.cluster import Cluster
from minicluster.errors import NodeFailed, ProfileError
from minicluster.executor.executor import Run, execute
from minicluster.model.codec import node_hash
from minicluster.model.events import ignore
from minicluster.model.spec import FileSpec, Overrides, Spec
from minicluster.plan.steps import Plan, PutFiles, Step
from minicluster.profile.load import load
from minicluster.profile.resolve import resolve
from tests.fakes import FakeEngine
from tests.unit.samples import LEAST

Write = Callable[..., Path]

WITH_SECRETS = (
    LEAST.replace("count: 1", "count: 2")
    + """\
    authority: true
    files:
      /etc/token: {source: token.j2}
      /etc/plain: {source: plain}
env:
  TOKEN: "{{ secret('root') }}"
  LOGIN: "me:{{ secret('root', 'base64') }}@{{ secret('id', 'uuid') }}"
  PLAIN: plain
  EMPTY: ""
  NONE: "{{ '' if nodes else 'x' }}"
"""
)
FILES = {"token.j2": "token={{ secret('root') }} id={{ secret('id', 'uuid') }}\n", "plain": "{{ secret('root') }}\n"}


def converged(folder: Path) -> Spec:
    return resolve(load(folder), cluster="c", overrides=Overrides(), subnet="172.28.0.0/24")


def refused(folder: Path) -> ProfileError:
    with pytest.raises(ProfileError) as caught:
        converged(folder)
    return caught.value


# In templates


def test_a_spec_holds_no_secret_but_its_name(write_profile: Write) -> None:
    spec = converged(write_profile(WITH_SECRETS, FILES))
    contents = {f.path: f.content for f in spec.nodes[0].files}
    assert contents["/etc/token"] == "token=\0secret.root.hex\0 id=\0secret.id.uuid\0\n"
    assert contents["/etc/plain"] == FILES["plain"]  # no template
    assert spec.env["LOGIN"] == "me:\0secret.root.base64\0@\0secret.id.uuid\0"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("count: 2", "count: 2\n    command: [\"{{ secret('root') }}\"]"),
        ("count: 2", "count: 2\n    env: {A: \"{{ secret('root') }}\"}"),
        ("count: 2", "count: 2\n    ready: {exec: [\"{{ secret('root') }}\"]}"),
        ("count: 2", "count: 2\n    hooks: {leave: [{on: node, run: [\"{{ secret('root') }}\"]}]}"),
        ("env:\n", "hooks: {init: [{on: worker, run: [\"{{ secret('root') }}\"]}]}\nenv:\n"),
        ("env:\n", "members: {on: worker, run: [\"{{ secret('root') }}\"]}\nenv:\n"),
    ],
    ids=["command", "env of a role", "ready", "leave", "init", "members"],
)
def test_a_secret_is_for_files_and_the_clients_environment_alone(write_profile: Write, old: str, new: str) -> None:
    error = refused(write_profile(WITH_SECRETS.replace(old, new, 1), FILES))
    assert "'secret' is undefined" in error.what
    assert error.what.split(": ")[0].rpartition("/")[2].startswith("profile.yaml:")


@pytest.mark.parametrize("call", ["secret('root', 'octal')", "secret('Root')", "secret('')", "secret('a.b')"])
def test_a_secret_with_a_name_or_form_that_cannot_be_is_refused_where_it_stands(
    write_profile: Write, call: str
) -> None:
    said = "A name is a-z, 0-9 and _; a form is hex, base64, uuid or ec."
    in_env = refused(write_profile(WITH_SECRETS.replace("secret('root')", call), FILES))
    assert "profile.yaml:15:10" in in_env.what
    assert in_env.fix == said
    in_file = refused(write_profile(WITH_SECRETS, FILES | {"token.j2": "\n{{ " + call + " }}\n"}))
    assert "token.j2:2:1" in in_file.what
    assert in_file.fix == said


def test_a_secret_needs_a_role_that_keeps_the_authority(write_profile: Write) -> None:
    error = refused(write_profile(WITH_SECRETS.replace("authority: true", "authority: false"), FILES))
    assert "secret() needs a role with `authority: true`." in error.why


def test_a_node_with_a_secret_is_another_one_under_another_authority(write_profile: Write) -> None:
    text = LEAST + "    files: {/etc/f: {source: f.j2}}\n  keeper: {count: 1, image: node, authority: true}\n"
    hashes = {}
    for content in ("{{ secret('root') }}", "none"):
        spec = converged(write_profile(text, {"f.j2": content}))
        hashes[content] = {node_hash(spec, spec.nodes[0], authority) for authority in ("one", "two")}
    assert [len(found) for found in hashes.values()] == [2, 1]


# In nodes


def test_files_are_written_with_the_secrets_in_their_places(engine: FakeEngine) -> None:
    from minicluster.engine.protocol import ContainerConfig

    engine.create_container(ContainerConfig("c-a-1", "i", "a-1", "n", "10.0.0.1", {}))
    authority = pki.Authority()
    content = (
        "a=\0secret.root.hex\0\nb=\0secret.root.hex\0 \0secret.x_1.base64\0 \0secret.x_1.uuid\0\n@{joining} ${secret}\n"
    )
    put = PutFiles("c-a-1", (FileSpec("/etc/f", content, 0o600),), (), False)
    run = Run(engine, authority, 5.0, ignore, lambda _image, _cancel: None)
    execute(Plan("c", "a test", (Step("files a-1", "a-1", put, "a test"),)), run)
    root = authority.secret("root")
    base64, uuid = authority.secret("x_1", "base64"), authority.secret("x_1", "uuid")
    assert engine.get_file("c-a-1", "/etc/f").decode() == (
        f"a={root}\nb={root} {base64} {uuid}\n@{{joining}} ${{secret}}\n"
    )


def up(engine: FakeEngine, folder: Path, **size: int) -> Cluster:
    return Cluster.up(str(folder), name="c", size=size, engine=engine)


def tokens(engine: FakeEngine) -> set[str]:
    return {engine.get_file(name, "/etc/token").decode() for name in engine.boxes}


def test_secrets_are_the_same_in_all_nodes_for_ever(engine: FakeEngine, write_profile: Write) -> None:
    folder = write_profile(WITH_SECRETS, FILES)
    up(engine, folder)
    (token,) = tokens(engine)
    assert re.fullmatch(r"token=[0-9a-f]{64} id=[0-9a-f-]{36}\n", token)
    engine.remove_container("c-worker-1")
    up(engine, folder, worker=3)
    assert len(engine.boxes) == 3
    assert tokens(engine) == {token}


def test_the_record_of_a_cluster_does_not_tell_its_secrets(engine: FakeEngine, write_profile: Write) -> None:
    cluster = up(engine, write_profile(WITH_SECRETS, FILES))
    assert cluster.env()["TOKEN"] not in str(Cluster.open("c", engine=engine).spec)


def test_no_two_clusters_have_the_same_secret(engine: FakeEngine, write_profile: Write) -> None:
    folder = write_profile(WITH_SECRETS, FILES)
    one = Cluster.up(str(folder), name="one", engine=engine)
    two = Cluster.up(str(folder), name="two", engine=engine)
    assert one.env()["TOKEN"] != two.env()["TOKEN"]


# In the client's environment


def test_the_environment_has_the_secrets_that_the_nodes_have(engine: FakeEngine, write_profile: Write) -> None:
    up(engine, write_profile(WITH_SECRETS, FILES))
    env = Cluster.open("c", engine=engine).env()
    (token,) = tokens(engine)
    authority = pki.Authority.load(engine.get_file("c-worker-2", pki.PATH))
    assert token.startswith(f"token={env['TOKEN']} id=")
    assert env["LOGIN"] == f"me:{authority.secret('root', 'base64')}@{authority.secret('id', 'uuid')}"
    assert token.endswith(f" id={authority.secret('id', 'uuid')}\n")


def test_variables_that_are_empty_are_left_out(engine: FakeEngine, write_profile: Write) -> None:
    cluster = up(engine, write_profile(WITH_SECRETS, FILES))
    assert sorted(cluster.env()) == ["LOGIN", "PLAIN", "TOKEN"]


def test_an_environment_whose_authority_is_gone_is_told(engine: FakeEngine, write_profile: Write) -> None:
    cluster = up(engine, write_profile(WITH_SECRETS, FILES))
    for name in list(engine.boxes):
        engine.remove_container(name)
    with pytest.raises(NodeFailed) as caught:
        Cluster.open("c", engine=engine).env()
    assert "certificate authority" in caught.value.what
    assert "minicluster up --name c" in caught.value.fix
    assert cluster.env()["TOKEN"]  # who stood it up knows it still


def test_without_tls_the_client_of_etcd_gets_no_certificates(engine: FakeEngine) -> None:
    plain = Cluster.up("etcd", name="e", size={"kv": 1}, set={"tls": "false"}, engine=engine)
    assert sorted(plain.env()) == ["ETCDCTL_ENDPOINTS"]
    assert plain.env()["ETCDCTL_ENDPOINTS"].startswith("http://127.0.0.1:")
