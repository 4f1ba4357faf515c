"""What a profile of several parts needs: roles beside others, common volumes, further authorities, files for the
client, builds with arguments, settings of a certain form, and images for the nodes that hold some."""

from __future__ import annotations

import base64
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from minicluster import paths, pki
from minicluster.cluster import Cluster
from minicluster.engine import base_image
from minicluster.errors import ProfileError, UsageError
from minicluster.model.events import Event
from minicluster.model.spec import CertificateSpec, Overrides, Spec
from minicluster.operations import images
from minicluster.profile.load import load
from minicluster.profile.resolve import built_images, resolve
from tests.fakes import FakeEngine
from tests.unit.samples import LEAST

Write = Callable[..., Path]

SEVERAL = """\
version: 2
name: several
summary: s
settings: {version: v1.2.3}
patterns: {version: {pattern: 'v1\\.\\d+\\.\\d+', message: must be a release such as v1.2.3}}
images:
  node:
    build: image
    args: {VERSION: "{{ settings.version }}"}
roles:
  front: {count: 1, max: 1, requires: {main: 2}, image: node}
  main:
    count: 1
    image: node
    authority: true
    shared: [/common]
    volumes: [/own]
    capabilities: [NET_ADMIN]
    certificates:
      - {directory: /tls, addresses: [10.96.0.1]}
      - {directory: /store, issuer: store}
    endpoints: {api: {port: 1, url: "https://{{ host }}:{{ port }}"}}
  worker: {count: 2, image: node, shared: [/common]}
hooks:
  load:
    - {on: worker, run: [take, "{{ archive }}"]}
client:
  certificate: {common_name: me}
  files: {config: config.j2}
env: {CONFIG: "{{ client.directory }}/config"}
"""
FILES = {
    "image/Dockerfile": "ARG BASE\nFROM ${BASE}\n",
    "config.j2": "{{ endpoint('api').url }} {{ client.ca_base64 }} {{ client.key_base64 }}\n",
}


@pytest.fixture
def folder(write_profile: Write) -> Path:
    return write_profile(SEVERAL, FILES)


def converged(folder: Path, settings: dict[str, str] | None = None, **size: int) -> Spec:
    return resolve(load(folder, settings), cluster="c", overrides=Overrides(size=size), subnet="172.28.0.0/24")


# Roles beside others


def test_a_role_beside_others_has_nodes_only_where_these_have_enough(folder: Path) -> None:
    assert converged(folder).of_role("front") == ()
    assert [n.name for n in converged(folder, main=2).of_role("front")] == ["front-1"]


def test_what_is_asked_for_counts_more(folder: Path) -> None:
    assert len(converged(folder, front=1).of_role("front")) == 1
    assert converged(folder, main=3, front=0).of_role("front") == ()


# Volumes that nodes have in common


def test_a_common_volume_is_made_once_mounted_by_all_and_removed(engine: FakeEngine, folder: Path) -> None:
    cluster = Cluster.up(str(folder), engine=engine)
    assert [call for call in engine.calls if call == ("create_volume", "several-shared-common")] == [
        ("create_volume", "several-shared-common")
    ]
    assert {box.config.volumes["/common"] for box in engine.boxes.values()} == {"several-shared-common"}
    again = Cluster.up(name="several", engine=engine).change
    assert again
    assert not again.changed
    cluster.scale({"worker": 1})
    assert "several-shared-common" in {v.name for v in engine.volumes("several")}
    cluster.down()
    assert engine.volumes() == []


def test_a_node_has_the_capabilities_that_its_role_names_and_no_other(engine: FakeEngine, folder: Path) -> None:
    Cluster.up(str(folder), engine=engine)
    granted = {name: box.config.capabilities for name, box in engine.boxes.items() if box.config}
    assert granted == {"several-main-1": ("NET_ADMIN",), "several-worker-1": (), "several-worker-2": ()}


# Authorities


def test_whom_one_authority_vouches_for_another_does_not() -> None:
    authority = pki.Authority()
    first = authority.issue(CertificateSpec("", "me", names=("me",)))
    other = authority.issue(CertificateSpec("", "me", names=("me",), issuer="store"))
    for mine, others in ((first, other), (other, first)):
        verifier = PolicyBuilder().store(Store([x509.load_pem_x509_certificate(mine.ca)])).build_client_verifier()
        verifier.verify(x509.load_pem_x509_certificate(mine.certificate), [])
        with pytest.raises(VerificationError):
            verifier.verify(x509.load_pem_x509_certificate(others.certificate), [])


def test_a_further_authority_is_the_same_wherever_the_first_is_kept() -> None:
    authority = pki.Authority()
    again = pki.Authority.load(authority.dump())
    ca = x509.load_pem_x509_certificate(authority.issue(CertificateSpec("", "me", names=("me",), issuer="store")).ca)
    late = again.issue(CertificateSpec("", "you", names=("you",), issuer="store"))
    verifier = PolicyBuilder().store(Store([ca])).build_client_verifier()
    assert len(verifier.verify(x509.load_pem_x509_certificate(late.certificate), []).chain) == 2


def test_a_secret_may_be_a_private_key() -> None:
    authority = pki.Authority()
    pem = authority.secret("account", "ec")
    assert pem.startswith("-----BEGIN EC PRIVATE KEY-----\n")
    assert isinstance(load_pem_private_key(pem.encode(), None), ec.EllipticCurvePrivateKey)
    assert pki.Authority.load(authority.dump()).secret("account", "ec") == pem
    assert authority.secret("another", "ec") != pem


def test_a_certificate_is_valid_for_further_addresses(folder: Path) -> None:
    first, store = converged(folder).of_role("main")[0].certificates
    assert (first.addresses, first.issuer) == (("172.28.0.2", "127.0.0.1", "10.96.0.1"), "")
    assert store.issuer == "store"


# Files of the client's


def test_the_clients_files_hold_where_to_go_and_who_one_is(engine: FakeEngine, folder: Path) -> None:
    cluster = Cluster.up(str(folder), engine=engine)
    path = Path(cluster.env()["CONFIG"])
    url, ca, key = path.read_text().split()
    assert url == cluster.endpoint("api").url
    assert base64.b64decode(ca) == (path.parent / "ca.pem").read_bytes()
    assert base64.b64decode(key) == (path.parent / "key.pem").read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.stat().st_ino
    assert cluster.write_client_files() == ()
    assert path.stat().st_ino == before  # an unchanged file is not written again
    path.unlink()
    assert cluster.env()["CONFIG"] == str(path)
    assert not path.exists()
    cluster.write_client_files()
    assert path.read_text().split() == [url, ca, key]
    cluster.down()
    assert not paths.client_directory("several").exists()


# Builds


def test_an_image_is_another_with_another_argument(folder: Path) -> None:
    usual = converged(folder).images["node"]
    other = converged(folder, {"version": "v1.2.4"}).images["node"]
    assert usual.ref != other.ref
    assert usual.args == {"VERSION": "v1.2.3"}
    assert built_images(load(folder)) == {"node": usual}


def test_arguments_go_into_the_build(engine: FakeEngine, folder: Path) -> None:
    engine.every_image = False
    engine.import_image([], base_image.REGISTRY)
    settings = {"version": "v1.9.9"}
    (ref,) = images.build(str(folder), engine=engine, settings=settings)
    assert ref == converged(folder, settings).images["node"].ref
    ((_directory, built, args),) = engine.builds
    assert (built, args["VERSION"]) == (ref, "v1.9.9")


def test_an_image_that_is_being_built_is_not_built_twice(engine: FakeEngine, folder: Path) -> None:
    engine.every_image = False
    engine.import_image([], base_image.REGISTRY)
    begun, let = threading.Event(), threading.Event()
    build, heard = engine.build_image, []

    def slowly(*args: object, **options: object) -> None:
        begun.set()
        assert let.wait(10)
        build(*args, **options)  # type: ignore[arg-type]

    engine.build_image = slowly  # type: ignore[assignment,method-assign]
    with ThreadPoolExecutor() as pool:
        first = pool.submit(images.build, str(folder), engine=engine)
        assert begun.wait(10)

        def listener(event: Event) -> None:
            heard.append(event.text)
            let.set()

        second = pool.submit(images.build, str(folder), engine=engine, listener=listener)
        assert first.result(10) == second.result(10)
    assert len(engine.builds) == 1
    assert "another minicluster process is building it" in heard[0]
    assert not list((paths.data_home() / "locks").iterdir())


# Settings of a certain form


@pytest.mark.parametrize("value", ["1.2.3", "v1.2", "v1.2.3-rc", "latest"])
def test_a_setting_that_does_not_look_right_is_refused(folder: Path, value: str) -> None:
    with pytest.raises(ProfileError, match=r"version must be a release such as v1\.2\.3") as caught:
        load(folder, {"version": value})
    assert caught.value.what.startswith("--set version=")
    assert caught.value.fix.startswith("The default is ")


# What is wrong with such a profile


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("requires: {main: 2}", "requires: {mian: 2}", "no role named 'mian'"),
        ("requires: {main: 2}", "requires: {main: 0}", "must be at least 1"),
        ("files: {config: config.j2}", "files: {config: none.j2}", "no such file: none.j2"),
        ("files: {config: config.j2}", "files: {../x: config.j2}", "client.files"),
        ("build: image", "image: some/image", "args are for an image that is built"),
        ("{version: {pattern", "{vision: {pattern", "no setting named 'vision'"),
        ("pattern: 'v1", "pattern: '(v1", "not a regular expression"),
        ("on: worker", "on: wroker", "no role named 'wroker'"),
        ("issuer: store", "issuer: St", "issuer"),
    ],
)
def test_it_is_said_where_it_stands(write_profile: Write, old: str, new: str, said: str) -> None:
    assert old in SEVERAL
    with pytest.raises(ProfileError) as caught:
        load(write_profile(SEVERAL.replace(old, new), FILES))
    assert said in caught.value.what
    assert "profile.yaml:" in caught.value.what


# Images for the nodes that hold some


def test_an_image_is_loaded_into_the_nodes_that_hold_images(engine: FakeEngine, folder: Path) -> None:
    cluster = Cluster.up(str(folder), engine=engine)
    cluster.load("some/image")
    assert [c.split(":")[0] for c in engine.did("exec") if ": take /var/tmp/" in c] in (
        ["several-worker-1", "several-worker-2"],
        ["several-worker-2", "several-worker-1"],
    )
    with pytest.raises(UsageError, match="cannot load an image into main-1"):
        cluster.load("some/image", ["main-1", "worker-1"])


def test_nodes_of_a_plain_profile_hold_none(engine: FakeEngine, write_profile: Write) -> None:
    with pytest.raises(UsageError, match="do not accept images"):
        Cluster.up(str(write_profile(LEAST)), engine=engine).load("some/image")
