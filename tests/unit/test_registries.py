"""Registries of images: what users write, what nodes are told, and where credentials do not go."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from minicluster import pki
from minicluster.cluster import Cluster, down, dry_run
from minicluster.engine import client_config, discover
from minicluster.engine.protocol import ExecResult
from minicluster.errors import Conflict, MiniclusterError, PortTaken, ProfileError, UsageError
from minicluster.model.codec import encode, from_json, node_hash, to_json
from minicluster.model.deferred import REGISTRY_CREDENTIALS, marker
from minicluster.model.events import Event, ignore
from minicluster.model.local_registry import NAME, LocalRegistry
from minicluster.model.spec import CertificateSpec, FileSpec, NodeSpec, Overrides, RegistrySpec, Spec
from minicluster.operations import local_registry, registries
from minicluster.plan.reconcile import reconcile
from minicluster.plan.steps import ConnectNetwork, Plan, PutFiles, RunHook, WaitMembers
from minicluster.profile import catalog
from minicluster.profile.load import load
from minicluster.profile.resolve import resolve
from tests.fakes import FakeEngine
from tests.unit.samples import LEAST
from tests.unit.standing import AUTHORITY, standing

SECRET = "correct-horse-battery"
LOCAL = LocalRegistry(5001, "-----BEGIN CERTIFICATE-----\nlocal\n-----END CERTIFICATE-----\n")


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    """A file with a certificate, and a key that is not to be copied."""
    issued = pki.Authority().issue(CertificateSpec("", "x"))
    (tmp_path / "ca.pem").write_bytes(issued.key + issued.ca)
    return tmp_path / "ca.pem"


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The docker client's folder, and a credential helper: docker-credential-test."""
    folder, programs = tmp_path / "docker", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    helper = programs / "docker-credential-test"
    helper.write_text(
        "#!/bin/sh\nread -r host\ncase $host in\n"
        f'helped.example) echo \'{{"ServerURL": "x", "Username": "h", "Secret": "{SECRET}"}}\' ;;\n'
        f'token.example) echo \'{{"ServerURL": "x", "Username": "<token>", "Secret": "{SECRET}"}}\' ;;\n'
        'broken.example) echo "locked" >&2; exit 3 ;;\n'
        '*) echo "credentials not found in native keychain"; exit 1 ;;\nesac\n'
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    return folder


def logged_in(docker: Path, *hosts: str, **more: object) -> None:
    auths = {host: {"auth": encoded("user")} for host in hosts}
    (docker / "config.json").write_text(json.dumps({"auths": auths, **more}))


def encoded(user: str) -> str:
    return base64.b64encode(f"{user}:{SECRET}".encode()).decode()


def spec_of(profile: str, *named: RegistrySpec, ca: str | None = None) -> Spec:
    loaded = catalog.load(profile)
    overrides = Overrides(registries=named or None, ca=ca)
    return resolve(loaded, cluster="c", overrides=overrides, subnet="172.28.0.0/24")


def files(node: NodeSpec) -> dict[str, str]:
    return {file.path: file.content for file in node.files}


# What users write


def test_a_registry_is_a_host_and_options(ca: Path) -> None:
    text = "r.example:5000,mirror=http://m:80/,mirror=https://n,insecure,credentials=no"
    assert registries.parse(text) == RegistrySpec("r.example:5000", ("http://m:80", "https://n"), "", True, False)
    assert registries.parse("index.docker.io") == RegistrySpec("docker.io")
    assert registries.parse("r.example") == RegistrySpec("r.example", credentials=True)
    found = registries.parse(f"r.example,ca={ca}").ca
    assert "BEGIN CERTIFICATE" in found
    assert "PRIVATE KEY" in ca.read_text()
    assert "PRIVATE KEY" not in found
    assert registries.mirror("http://m") == RegistrySpec("docker.io", ("http://m",), credentials=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not the name of a registry"),
        ("https://r.example", "not the name of a registry"),
        ("r.example/path", "not the name of a registry"),
        ("R.example", "not the name of a registry"),
        ("r.example,insecur", "'insecur' is not valid"),
        ("r.example,insecure=maybe", "'insecure=maybe' is not valid"),
        ("r.example,ca", "'ca' is not valid"),
        ("r.example,ca=/none", "cannot read /none"),
        ("r.example,mirror=m:5000", "not the address of a mirror"),
        ("r.example,mirror=ftp://m", "not the address of a mirror"),
        ('r.example,mirror=http://m/"x', "not the address of a mirror"),
        ("r.example,mirror=http://[", "not the address of a mirror"),
    ],
)
def test_what_is_no_registry_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        registries.parse(text)
    assert refused.value.fix


def test_a_password_in_the_address_of_a_mirror_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match="password") as refused:
        registries.mirror(f"https://user:{SECRET}@m")
    assert SECRET not in str(refused.value)


def test_files_without_a_certificate_or_with_too_many_are_refused(ca: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("no certificate")
    (tmp_path / "damaged").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----")
    (tmp_path / "many").write_text(registries.certificates(ca, "--ca") * 100)
    (tmp_path / "der").write_bytes(b"\xff\xfe")
    for name, said in {"empty": "no certificate", "damaged": "damaged", "many": "100 cert", "der": "read"}.items():
        with pytest.raises(UsageError, match=said):
            registries.certificates(tmp_path / name, "--ca")


def test_several_mentions_of_a_registry_are_one() -> None:
    named = [registries.mirror("http://a"), registries.mirror("http://b"), registries.parse("docker.io,insecure")]
    assert registries.merged(named) == (RegistrySpec("docker.io", ("http://a", "http://b"), "", True, True),)


# Credentials


def test_credentials_are_read_as_docker_reads_them(docker: Path) -> None:
    stores = {"credHelpers": {"helped.example": "test", "token.example": "test", "none.example": "test"}}
    logged_in(docker, "https://index.docker.io/v1/", "r.example:5000", **stores)
    assert client_config.registry_credentials("r.example:5000") == {"auth": encoded("user")}
    assert client_config.registry_credentials("docker.io") == {"auth": encoded("user")}
    assert client_config.registry_credentials("helped.example") == {"auth": encoded("h")}
    assert client_config.registry_credentials("token.example") == {"identitytoken": SECRET}
    assert client_config.registry_credentials("none.example") == {}
    assert client_config.registry_credentials("r.example") == {}
    logged_in(docker, credsStore="test")
    assert client_config.registry_credentials("helped.example") == {"auth": encoded("h")}


def test_credentials_that_cannot_be_read_are_an_error_without_them(docker: Path) -> None:
    logged_in(docker, credsStore="test")
    with pytest.raises(MiniclusterError, match=r"docker's credentials for broken\.example") as failed:
        client_config.registry_credentials("broken.example")
    assert "credentials=no" in failed.value.fix
    logged_in(docker, credsStore="missing")
    with pytest.raises(MiniclusterError, match=r"cannot read .* r.example"):
        client_config.registry_credentials("r.example")
    (docker / "config.json").write_text(json.dumps({"auths": {"r.example": {"auth": f"{SECRET}!"}}}))
    with pytest.raises(MiniclusterError) as failed:
        client_config.registry_credentials("r.example")
    assert SECRET not in str(failed.value)
    assert "damaged" in failed.value.why


def test_only_named_registries_get_their_credentials(docker: Path) -> None:
    logged_in(docker, "https://index.docker.io/v1/", "r.example", "other.example", "asked-not.example")
    named = [registries.parse(text) for text in ("r.example", "asked-not.example,credentials=no", "docker.io")]
    values = registries.credentials(spec_of("swarm", *named))
    auths = {"r.example": {"auth": encoded("user")}, "https://index.docker.io/v1/": {"auth": encoded("user")}}
    assert json.loads(values[REGISTRY_CREDENTIALS]) == {"auths": auths}
    assert registries.credentials(spec_of("swarm", registries.mirror("http://m"))) == {}


def test_credentials_reach_files_of_nodes_and_nothing_else(
    engine: FakeEngine, docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged_in(docker, "r.example")
    monkeypatch.setattr(discover, "connect", lambda **_options: engine)
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda **_options: engine)
    plan = dry_run("swarm", name="c", registries=[registries.parse("r.example")])
    assert not has_secret(repr(plan))
    from minicluster.cli.app import app

    argv = ["up", "swarm", "--name", "c", "--registry", "r.example", "--dry-run", "-o", "json"]
    shown = CliRunner().invoke(app, argv)
    assert shown.exit_code == 0
    assert "files agent-1" in shown.output
    assert not has_secret(shown.output)

    cluster = Cluster.up("swarm", name="c", registries=[registries.parse("r.example")], engine=engine)
    path = "/root/.docker/config.json"
    for name in ("c-master-1", "c-agent-1", "c-agent-2"):
        assert json.loads(engine.get_file(name, path)) == {"auths": {"r.example": {"auth": encoded("user")}}}
        assert engine.boxes[name].files[path].mode == 0o600
    labelled = [thing.labels for thing in (*engine.containers(), *engine.volumes(), *engine.networks())]
    for text in (repr(labelled), repr(to_json(cluster.spec)), repr(cluster.info()), repr(cluster.plan())):
        assert not has_secret(text)

    # The next `up` gives nodes what docker has by then, and recreates none.
    logged_in(docker)
    again = Cluster.up(name="c", engine=engine)
    assert again.change
    assert not again.change.changed
    assert json.loads(engine.get_file("c-agent-1", path)) == {"auths": {}}
    logged_in(docker, credsStore="missing")
    with pytest.raises(MiniclusterError, match="cannot read docker's credentials"):
        Cluster.up(name="c", engine=engine)
    without = Cluster.up(name="c", registries=[], engine=engine)
    assert without.spec.overrides.registries == ()
    assert engine.stat_path("c-agent-1", path) is None


def has_secret(text: str) -> bool:
    return SECRET in text or encoded("user") in text


# What nodes are told


def test_docker_engines_are_told_of_mirrors_and_insecure_registries(ca: Path) -> None:
    named = [registries.mirror("http://m:5000"), registries.parse("i.example,insecure"), registries.parse(f"r,ca={ca}")]
    for profile in ("swarm", "mesos"):
        node = spec_of(profile, *named).of_role("agent")[0]
        told = json.loads(files(node)["/etc/docker/daemon.json"])
        assert told["registry-mirrors"] == ["http://m:5000"]
        assert told["insecure-registries"] == ["i.example"]
        assert files(node)["/etc/docker/certs.d/r/ca.crt"].strip() == named[2].ca.strip()
        assert not any("certs.d/i.example" in path or "certs.d/docker.io" in path for path in files(node))
        plain = spec_of(profile).of_role("agent")[0]
        assert "registry-mirrors" not in files(plain)["/etc/docker/daemon.json"]
        assert "/root/.docker/config.json" not in files(plain)
        assert not any("/registries/" in path or "certs.d" in path or path.endswith(".crt") for path in files(plain))


def test_containerd_is_told_of_every_kind_of_registry(ca: Path) -> None:
    named = [
        registries.parse("docker.io,mirror=https://m:5000,mirror=http://n,credentials=no"),
        registries.parse(f"m:5000,ca={ca}"),
        registries.parse("i.example,insecure"),
    ]
    node = spec_of("kubernetes", *named).of_role("agent")[0]
    folder, pull = "/etc/containerd/certs.d", 'capabilities = ["pull", "resolve"]'
    told = {path: content.splitlines()[1:] for path, content in files(node).items() if path.endswith("hosts.toml")}
    trusted = ['[host."https://m:5000"]', f"  {pull}", f'  ca = "{folder}/m:5000/ca.crt"']
    assert told[f"{folder}/docker.io/hosts.toml"] == [*trusted, '[host."http://n"]', f"  {pull}"]
    assert told[f"{folder}/m:5000/hosts.toml"] == trusted
    assert told[f"{folder}/i.example/hosts.toml"] == [
        '[host."https://i.example"]',
        f"  {pull}",
        "  skip_verify = true",
        '[host."http://i.example"]',
        f"  {pull}",
    ]
    assert files(node)["/etc/containerd/certs.d/m:5000/ca.crt"].strip() == named[1].ca.strip()
    assert files(node)["/root/.docker/config.json"].strip() == marker(REGISTRY_CREDENTIALS)


def test_nodes_trust_further_authorities(ca: Path) -> None:
    text = registries.certificates(ca, "--ca")
    path = "/usr/local/share/ca-certificates/minicluster.crt"
    for profile, roles in {"swarm": ["master", "agent"], "kubernetes": ["master", "agent"], "mesos": ["agent"]}.items():
        for role in roles:
            assert files(spec_of(profile, ca=text).of_role(role)[0])[path].strip() == text.strip()
    with pytest.raises(UsageError, match="profile etcd have no store"):
        spec_of("etcd", ca=text)


def test_what_no_node_could_use_is_refused() -> None:
    with pytest.raises(UsageError, match="profile etcd has no nodes that pull images"):
        spec_of("etcd", registries.mirror("http://m"))
    with pytest.raises(UsageError, match=r"profile swarm cannot have a mirror of r\.example"):
        spec_of("swarm", registries.parse("r.example,mirror=http://m"))
    assert spec_of("kubernetes", registries.parse("r.example,mirror=http://m"))


def test_a_spec_with_registries_is_stored_and_read_again(ca: Path) -> None:
    spec = spec_of("swarm", registries.parse(f"r,ca={ca}"), registries.mirror("http://m"))
    assert from_json(json.loads(json.dumps(to_json(spec)))) == spec
    assert encode(spec)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("files: {'/x/{{registry.host}}': {source: none}}", "no such file: none"),
        ("files: {'/x/{{registry.host}}': {source: f.j2, bootstrap: true}}", "every node is told of registries"),
        ("files: {}", "must not be empty"),
        ("files: {'x': {source: f.j2}}", "must be an absolute path"),
    ],
)
def test_a_profile_that_tells_nodes_wrongly_is_refused(
    more: str, said: str, write_profile: Callable[..., Path]
) -> None:
    folder = write_profile(f"{LEAST}    registries: {{{more}}}\n", {"f.j2": "{{ registry.host }}"})
    with pytest.raises(ProfileError, match=said):
        load(folder)


# The local registry


def plan_of(spec: Spec, local: LocalRegistry | None, **states: str) -> Plan:
    observed = standing(spec, **states)
    return reconcile(spec, replace(observed, registry=local))


def put(plan: Plan) -> dict[str, dict[str, FileSpec]]:
    actions = [(step.node, step.action) for step in plan.steps]
    return {node: {f.path: f for f in action.files} for node, action in actions if isinstance(action, PutFiles)}


@pytest.mark.parametrize("profile", ["swarm", "kubernetes", "mesos"])
def test_a_new_node_knows_the_local_registry(profile: str) -> None:
    from minicluster.plan.observed import Observed

    spec = spec_of(profile)
    plan = reconcile(spec, Observed("c", registry=LOCAL))
    assert ConnectNetwork("c-net", NAME) in [step.action for step in plan.steps]
    told = put(plan)["agent-1"]
    certificates = [file.content.strip() for path, file in told.items() if path.endswith("/localhost:5001/ca.crt")]
    assert certificates == [LOCAL.ca.strip()]
    assert "\0registry" not in repr(told)
    if profile == "kubernetes":
        text = told["/etc/containerd/certs.d/localhost:5001/hosts.toml"].content
        assert f'server = "https://{NAME}:5000"\n[host."https://{NAME}:5000"]\n' in text
    else:
        assert told["/etc/minicluster/registries/localhost:5001"].content == f"5001 {NAME}:5000\n"


def test_profiles_whose_nodes_pull_nothing_do_not_know_it() -> None:
    for profile in ("etcd", "consul", "zookeeper"):
        assert not any(node.local_registry for node in spec_of(profile).nodes)


def test_the_local_registry_replaces_no_node() -> None:
    spec = spec_of("swarm")
    assert not plan_of(spec, None)
    assert not plan_of(spec, replace(LOCAL, networks=frozenset({"c-net"})))
    plan = plan_of(spec, LOCAL)
    assert {type(step.action) for step in plan.steps} == {ConnectNetwork, PutFiles, RunHook, WaitMembers}
    assert put(plan).keys() == {"master-1", "agent-1", "agent-2"}
    node = spec.nodes[0]
    assert node_hash(spec, node, AUTHORITY) == node_hash(spec, replace(node, local_registry=()), AUTHORITY)


def test_another_registry_that_is_asked_for_replaces_nodes() -> None:
    spec, other = spec_of("swarm"), spec_of("swarm", registries.parse("i.example,insecure"))
    hashes = [[node_hash(s, node, AUTHORITY) for node in s.nodes] for s in (spec, other)]
    assert not set(hashes[0]) & set(hashes[1])


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """A port for the local registry."""
    monkeypatch.setattr("minicluster.operations.preflight.port_is_free", lambda port, _address: port != 4999)
    return 5001


def test_it_joins_clusters_that_exist_and_those_that_come(engine: FakeEngine, port: int) -> None:
    Cluster.up("swarm", name="old", engine=engine)
    Cluster.up("etcd", name="kv", engine=engine)
    found = local_registry.start(engine, None, ignore)
    assert (found.state, found.host, found.clusters) == ("running", f"localhost:{port}", ("old",))
    hooks = [call for call in engine.calls if call[0] == "exec" and call[1].endswith(": minicluster-registries")]
    assert len(hooks) == 3  # in the nodes that run
    Cluster.up("swarm", name="new", engine=engine)
    assert local_registry.status(engine).clusters == ("new", "old")
    ca = engine.get_file(NAME, "/etc/minicluster/tls/ca.pem").strip()
    for name in ("old-master-1", "old-agent-1", "new-agent-2"):
        assert engine.get_file(name, f"/etc/docker/certs.d/localhost:{port}/ca.crt").strip() == ca
        assert (
            engine.get_file(name, f"/etc/minicluster/registries/localhost:{port}") == b"5001 %s:5000\n" % NAME.encode()
        )


def test_down_leaves_it_and_remove_data_takes_all(engine: FakeEngine, port: int) -> None:
    local_registry.start(engine, None, ignore)
    Cluster.up("swarm", name="c", engine=engine)
    assert "c-net" in engine.boxes[NAME].container.networks
    down(all=True, engine=engine)
    assert engine.empty()
    assert local_registry.status(engine).state == "running"
    assert local_registry.status(engine).clusters == ()
    authority = engine.get_file(NAME, pki.PATH)
    assert local_registry.stop(engine, remove_data=False, listener=ignore).state == "stopped"
    assert local_registry.start(engine, None, ignore).state == "running"
    assert local_registry.start(engine, 5002, ignore).host == "localhost:5002"
    assert engine.get_file(NAME, pki.PATH) == authority
    assert local_registry.stop(engine, remove_data=True, listener=ignore).state == "none"
    assert not engine.boxes
    assert not engine.vols


def test_a_port_in_use_and_a_name_in_use_are_said(engine: FakeEngine, port: int) -> None:
    with pytest.raises(PortTaken, match="port 4999") as taken:
        local_registry.start(engine, 4999, ignore)
    assert "--port" in taken.value.fix
    assert not engine.vols
    engine.add_foreign(NAME)
    with pytest.raises(Conflict, match="the name minicluster-registry is in use"):
        local_registry.start(engine, None, ignore)
    with pytest.raises(Conflict, match="the name minicluster-registry is in use"):
        local_registry.stop(engine, remove_data=True, listener=ignore)


def test_a_volume_of_that_name_that_is_not_ours_stays(engine: FakeEngine) -> None:
    engine.create_volume(NAME, {"somebody": "else"})
    with pytest.raises(Conflict, match="is left as it is"):
        local_registry.stop(engine, remove_data=True, listener=ignore)
    assert NAME in engine.vols


@pytest.mark.parametrize("answer", [ExecResult(3, "", "no daemon"), TimeoutError("no answer within 30 s")])
def test_a_cluster_that_does_not_learn_of_it_is_noted_and_not_joined(
    engine: FakeEngine, port: int, answer: ExecResult | TimeoutError
) -> None:
    Cluster.up("swarm", name="old", engine=engine)
    engine.answers["minicluster-registries"] = answer
    told: list[Event] = []
    assert local_registry.start(engine, None, told.append).clusters == ()
    assert any("cluster old does not know the registry" in event.text for event in told)
    del engine.answers["minicluster-registries"]
    assert local_registry.start(engine, None, told.append).clusters == ("old",)
