"""A cluster's certificates: verifiable, of one authority, and with the user only as long as the cluster lives."""

from __future__ import annotations

import base64
import re
import stat
import uuid
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from minicluster import paths, pki
from minicluster.engine.address import EngineAddress
from minicluster.errors import MiniclusterError
from minicluster.model.events import Event
from minicluster.model.spec import CertificateSpec, FileSpec, Spec
from minicluster.operations import client_folder
from tests.fakes import FakeEngine
from tests.unit.standing import spec_of

WANTED = CertificateSpec(
    "/tls", "master-1", "system:masters", names=("master-1", "localhost"), addresses=("172.28.0.2", "127.0.0.1")
)


@pytest.fixture(scope="module")
def authority() -> pki.Authority:
    return pki.Authority()


def test_a_certificate_is_valid_for_its_names_and_addresses_as_a_server(authority: pki.Authority) -> None:
    issued = authority.issue(WANTED)
    certificate = x509.load_pem_x509_certificate(issued.certificate)
    builder = PolicyBuilder().store(Store([x509.load_pem_x509_certificate(issued.ca)]))
    for subject in (x509.DNSName("master-1"), x509.DNSName("localhost"), x509.IPAddress(ip_address("172.28.0.2"))):
        chain = builder.build_server_verifier(subject).verify(certificate, [])
        assert len(chain) == 2
    with pytest.raises(x509.verification.VerificationError):
        builder.build_server_verifier(x509.DNSName("master-2")).verify(certificate, [])


def test_a_certificate_is_valid_as_a_client(authority: pki.Authority) -> None:
    issued = authority.issue(WANTED)
    store = Store([x509.load_pem_x509_certificate(issued.ca)])
    verifier = PolicyBuilder().store(store).build_client_verifier()
    assert len(verifier.verify(x509.load_pem_x509_certificate(issued.certificate), []).chain) == 2


def test_a_certificate_of_another_authority_is_not_valid(authority: pki.Authority) -> None:
    store = Store([x509.load_pem_x509_certificate(pki.Authority().issue(WANTED).ca)])
    verifier = PolicyBuilder().store(store).build_server_verifier(x509.DNSName("localhost"))
    with pytest.raises(x509.verification.VerificationError):
        verifier.verify(x509.load_pem_x509_certificate(authority.issue(WANTED).certificate), [])


def test_a_certificate_says_who_it_is_and_what_it_may_do(authority: pki.Authority) -> None:
    certificate = x509.load_pem_x509_certificate(authority.issue(WANTED).certificate)
    subject = {a.oid: a.value for a in certificate.subject}
    assert subject == {NameOID.ORGANIZATION_NAME: "system:masters", NameOID.COMMON_NAME: "master-1"}
    extensions = certificate.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["master-1", "localhost"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["172.28.0.2", "127.0.0.1"]
    usage = set(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert usage == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign is False


def test_a_certificate_without_names_has_none(authority: pki.Authority) -> None:
    certificate = x509.load_pem_x509_certificate(authority.issue(CertificateSpec("", "me")).certificate)
    with pytest.raises(x509.ExtensionNotFound):
        certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)


def test_the_key_is_the_certificates_and_no_two_are_the_same(authority: pki.Authority) -> None:
    one, two = authority.issue(WANTED), authority.issue(WANTED)
    key = load_pem_private_key(one.key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.public_key() == x509.load_pem_x509_certificate(one.certificate).public_key()
    assert one.key != two.key
    assert one.ca == two.ca


def test_the_authority_may_sign_certificates_and_no_further_authorities(authority: pki.Authority) -> None:
    ca = x509.load_pem_x509_certificate(authority.issue(WANTED).ca)
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)


def test_an_authority_is_the_same_after_it_was_kept_in_a_node(authority: pki.Authority) -> None:
    again = pki.Authority.load(authority.dump())
    assert again.identity == authority.identity
    assert again.dump() == authority.dump()
    assert again.issue(WANTED).ca == authority.issue(WANTED).ca


def test_no_two_authorities_have_one_identity() -> None:
    assert pki.Authority().identity != pki.Authority().identity


@pytest.mark.parametrize("content", [b"", b"x", b"# minicluster\nabc", b"-----BEGIN CERTIFICATE-----\n"])
def test_what_is_no_authority_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="not an authority"):
        pki.Authority.load(content)


# Secrets


def test_a_secret_is_the_same_wherever_the_authority_is_kept(authority: pki.Authority) -> None:
    again = pki.Authority.load(authority.dump())
    for form in ("hex", "base64", "uuid"):
        assert again.secret("root", form) == authority.secret("root", form)


def test_secrets_differ_by_name_and_by_cluster(authority: pki.Authority) -> None:
    secrets = [authority.secret("root"), authority.secret("token"), pki.Authority().secret("root")]
    assert len(set(secrets)) == 3


def test_a_secret_is_32_bytes_in_hexadecimal_or_base64(authority: pki.Authority) -> None:
    text = authority.secret("root")
    assert re.fullmatch("[0-9a-f]{64}", text)
    assert base64.b64decode(authority.secret("root", "base64"), validate=True) == bytes.fromhex(text)


def test_a_secret_may_be_a_valid_uuid(authority: pki.Authority) -> None:
    text = authority.secret("root", "uuid")
    value = uuid.UUID(text)
    assert str(value) == text
    assert (value.variant, value.version) == (uuid.RFC_4122, 8)
    assert authority.secret("other", "uuid") != text


def test_a_secret_in_another_form_is_refused(authority: pki.Authority) -> None:
    with pytest.raises(ValueError, match="unknown form of a secret: octal"):
        authority.secret("root", "octal")


def test_a_secret_does_not_tell_the_key(authority: pki.Authority) -> None:
    pem = authority.dump()
    key = load_pem_private_key(pem[pem.index(b"-----BEGIN PRIVATE") :], None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    secrets = {authority.secret(name) for name in ("", "root", "key")}
    assert f"{key.private_numbers().private_value:064x}" not in secrets


# The client's folder


@pytest.fixture
def spec() -> Spec:
    return spec_of()


def contents() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in paths.client_directory("c").iterdir()}


def test_the_clients_folder_is_for_the_user_alone(spec: Spec, authority: pki.Authority) -> None:
    client_folder.write_certificate(spec, authority, FakeEngine())
    folder = paths.client_directory("c")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {p.name: stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()} == dict.fromkeys(
        ("ca.pem", "cert.pem", "key.pem", "authority", "engine"), 0o600
    )


def test_the_clients_certificate_is_kept_while_the_authority_is_the_same(spec: Spec, authority: pki.Authority) -> None:
    client_folder.write_certificate(spec, authority, FakeEngine())
    before = contents()
    client_folder.write_certificate(spec, pki.Authority.load(authority.dump()), FakeEngine())
    assert contents() == before


def test_the_clients_certificate_is_replaced_when_the_authority_is_another(
    spec: Spec, authority: pki.Authority
) -> None:
    client_folder.write_certificate(spec, authority, FakeEngine())
    before = contents()
    other = pki.Authority()
    client_folder.write_certificate(spec, other, FakeEngine())
    assert contents()["ca.pem"] == other.issue(WANTED).ca
    assert contents()["key.pem"] != before["key.pem"]


def test_the_folder_follows_the_cluster_to_another_engine(spec: Spec, authority: pki.Authority) -> None:
    client_folder.write_certificate(spec, authority, FakeEngine())
    other = FakeEngine()
    other.reference = "another"
    client_folder.write_certificate(spec, authority, other)
    assert contents()["engine"] == b"another"


def test_a_folder_that_lacks_its_key_is_written_again(spec: Spec, authority: pki.Authority) -> None:
    client_folder.write_certificate(spec, authority, FakeEngine())
    (paths.client_directory("c") / "key.pem").unlink()
    client_folder.write_certificate(spec, authority, FakeEngine())
    assert "key.pem" in contents()


def test_a_folder_that_cannot_be_written_is_told(spec: Spec, authority: pki.Authority) -> None:
    paths.data_home().mkdir(parents=True)
    (paths.data_home() / "clusters").write_text("in the way")
    with pytest.raises(MiniclusterError, match="cannot write the client's certificate"):
        client_folder.write_certificate(spec, authority, FakeEngine())


def test_a_forgotten_client_leaves_nothing(spec: Spec, authority: pki.Authority) -> None:
    client_folder.write_certificate(spec, authority, FakeEngine())
    client_folder.remove("c", FakeEngine())
    assert not paths.client_directory("c").exists()
    client_folder.remove("c", FakeEngine())  # as a second `down` does


def test_a_client_of_another_engines_cluster_is_not_forgotten(spec: Spec, authority: pki.Authority) -> None:
    engine, again, other = FakeEngine(), FakeEngine(), FakeEngine()
    engine.reference = EngineAddress("unix:///run/a", "default socket").dump()
    again.reference = EngineAddress("unix:///run/a", "DOCKER_HOST").dump()  # the same one, found in another way
    other.reference = EngineAddress("unix:///run/b", "DOCKER_HOST").dump()
    client_folder.write_certificate(spec, authority, engine)
    client_folder.remove("c", other)
    assert paths.client_directory("c").exists()
    client_folder.remove("c", again)
    assert not paths.client_directory("c").exists()


CALLED: list[Any] = []


def remember(cluster: str, **data: Any) -> None:
    CALLED.append((cluster, data, paths.client_directory(cluster).exists()))


def refuse(cluster: str) -> None:
    raise MiniclusterError("it was not to be", "Because.", "Do not.")


def test_what_was_noted_is_carried_out_before_the_folder_is_forgotten(spec: Spec, authority: pki.Authority) -> None:
    CALLED.clear()
    client_folder.write_certificate(spec, authority, FakeEngine())
    for data in ({"a": 1}, {"a": 1}, {"a": 2}):
        client_folder.before_removal("c", f"{__name__}:remember", data)
    client_folder.on_write("c", f"{__name__}:remember", {"w": 1})
    client_folder.write_certificate(spec, pki.Authority(), FakeEngine())  # the same cluster's client, again
    assert CALLED == []
    client_folder.remove("c", FakeEngine())
    assert CALLED == [("c", {"a": 1}, True), ("c", {"a": 2}, True)]
    client_folder.remove("c", FakeEngine())
    assert len(CALLED) == 2


def test_what_was_noted_for_its_files_is_carried_out_when_they_change(spec: Spec, authority: pki.Authority) -> None:
    CALLED.clear()
    spec = replace(spec, client_files=(FileSpec("where", "at \0endpoint.api.url\0"),))
    client_folder.write_certificate(spec, authority, FakeEngine())
    client_folder.on_write("c", f"{__name__}:remember", {"w": 1})
    for url, times in (("one", 1), ("one", 1), ("two", 2)):
        assert client_folder.write_profile_files(spec, {"endpoint.api.url": url}) == []
        assert [("c", {"w": 1}, True)] * times == CALLED
    client_folder.on_write("c", f"{__name__}:refuse", {})
    assert client_folder.write_profile_files(spec, {"endpoint.api.url": "three"}) == [
        "it was not to be: Because. Do not."
    ]


def test_what_fails_is_told_and_the_rest_goes_on(spec: Spec, authority: pki.Authority) -> None:
    CALLED.clear()
    told: list[Event] = []
    client_folder.write_certificate(spec, authority, FakeEngine())
    for call in ("no.such.module:x", f"{__name__}:refuse", f"{__name__}:nothing", f"{__name__}:remember"):
        client_folder.before_removal("c", call, {})
    with (paths.client_directory("c") / ".calls").open("a") as calls:
        calls.write('{"when": "forget", "ca\n7\n')
    client_folder.remove("c", FakeEngine(), told.append)
    assert CALLED == [("c", {}, True)]
    assert [event.text.partition(":")[0] for event in told] == ["no.such.module", "it was not to be", __name__]
    assert not paths.client_directory("c").exists()


def test_nothing_is_noted_for_a_cluster_that_is_gone() -> None:
    with pytest.raises(MiniclusterError, match="cannot write"):
        client_folder.before_removal("none", "a:b", {})


def test_the_authority_is_read_from_the_first_node_that_still_has_it(authority: pki.Authority) -> None:
    from minicluster.engine.protocol import ContainerConfig, File as EngineFile

    spec, engine = spec_of(master=3), FakeEngine()
    for name in ("c-master-2", "c-master-3"):
        engine.create_container(ContainerConfig(name, "i", name, "n", "10.0.0.1", {}))
    engine.put_files("c-master-2", [EngineFile(pki.PATH, b"damaged")])
    assert client_folder.read_authority(engine, spec) is None
    engine.put_files("c-master-3", [EngineFile(pki.PATH, authority.dump())])
    found = client_folder.read_authority(engine, spec)
    assert found
    assert found.identity == authority.identity
