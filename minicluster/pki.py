"""A cluster's own certificate authority: ECDSA on P-256 (FIPS 186-4), certificates as RFC 5280 says.

The authority is stored in the nodes whose role has ``authority: true``, not on the host: whoever can use the engine
can use the cluster, from any machine, and the authority is removed with the cluster.
"""

from __future__ import annotations

import base64
import datetime
import hmac
import ipaddress
import secrets
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

#: Where a node stores the authority.
PATH = "/etc/minicluster/authority.pem"

_LIFETIME = datetime.timedelta(days=3650)  # certificates are not renewed, so they outlive any cluster
SKEW = datetime.timedelta(hours=1)  # a virtual machine's clock may be behind


class CertificateRequest(Protocol):
    """What a certificate says; :class:`minicluster.model.spec.CertificateSpec` is one."""

    @property
    def common_name(self) -> str:
        """The subject's common name."""

    @property
    def organization(self) -> str:
        """The subject's organization; "" for none."""

    @property
    def names(self) -> Sequence[str]:
        """Subject alternative names of type DNS."""

    @property
    def addresses(self) -> Sequence[str]:
        """Subject alternative names of type IP."""

    @property
    def issuer(self) -> str:
        """Name of the authority of the cluster that issues it; "" is the first one."""


@dataclass(frozen=True)
class Issued:
    """A certificate with its key and its issuer's certificate, all PEM."""

    ca: bytes
    certificate: bytes
    key: bytes


class Authority:
    """Issues a cluster's certificates. Its key is generated once, when first needed.

    ``identity`` is a random name that is known before there is a key: it distinguishes authorities of one cluster name.
    """

    def __init__(self, identity: str | None = None, pem: bytes = b"") -> None:
        self.identity = identity or secrets.token_hex(8)
        self._lock = threading.Lock()
        self._pem = pem
        self._pair: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None
        self._further: dict[str, Authority] = {}

    @classmethod
    def load(cls, content: bytes) -> Authority:
        """Reads what :meth:`dump` wrote.

        Raises:
            ValueError: the content is not an authority.
        """
        head, _, pem = content.partition(b"\n")
        if not head.startswith(b"# minicluster authority "):
            raise ValueError("not an authority")
        return cls(head.split()[-1].decode(), pem)

    def prepare(self) -> None:
        """Generates the key in the background, ahead of its first use. Returns at once."""
        threading.Thread(target=self._load, daemon=True).start()

    def dump(self) -> bytes:
        """Identity, certificate and key, as nodes store them."""
        from cryptography.hazmat.primitives import serialization as s

        certificate, key = self._load()
        pem = certificate.public_bytes(s.Encoding.PEM) + key.private_bytes(
            s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()
        )
        return f"# minicluster authority {self.identity}\n".encode() + pem

    def issue(self, wanted: CertificateRequest) -> Issued:
        """Issues a certificate for servers and clients."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization as s
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID

        issuer, issuer_key = (self._another(wanted.issuer) if wanted.issuer else self)._load()
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in wanted.names]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in wanted.addresses]
        builder = (
            _builder(_name(wanted.common_name, wanted.organization), issuer.subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(ca=False), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(issuer_key, hashes.SHA256())
        return Issued(
            ca=issuer.public_bytes(s.Encoding.PEM),
            certificate=certificate.public_bytes(s.Encoding.PEM),
            key=key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()),
        )

    def secret(self, name: str, form: str = "hex") -> str:
        """A secret of this cluster, the same for a name: HMAC-SHA256 (RFC 2104) of the name with the private key.

        Args:
            form: of its 32 bytes: hex, base64, uuid (of 16 of them, RFC 9562 version 8) or ec (a key on P-256, PEM as
                in RFC 5915).
        """
        value = self._derive(f"secret {name}")
        match form:
            case "hex":
                return value.hex()
            case "base64":
                return base64.b64encode(value).decode()
            case "uuid":
                fixed = bytes([*value[:6], value[6] & 0x0F | 0x80, value[7], value[8] & 0x3F | 0x80, *value[9:16]])
                return str(uuid.UUID(bytes=fixed))
            case "ec":
                from cryptography.hazmat.primitives import serialization as s

                pem = _key(value).private_bytes(s.Encoding.PEM, s.PrivateFormat.TraditionalOpenSSL, s.NoEncryption())
                return pem.decode()
        raise ValueError(f"unknown form of a secret: {form}")

    def _derive(self, purpose: str) -> bytes:
        key = self._load()[1].private_numbers().private_value.to_bytes(32, "big")
        return hmac.digest(key, f"minicluster {purpose}".encode(), "sha256")

    def _another(self, name: str) -> Authority:
        """A further authority by its name. Its key is derived from this one's, so it is stored nowhere."""
        value = self._derive(f"authority {name}")
        with self._lock:
            if name not in self._further:
                self._further[name] = further = Authority(f"{self.identity} {name}")
                further._pair = _make(further.identity, _key(value))
            return self._further[name]

    def _load(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        with self._lock:
            if not self._pair:
                self._pair = _parse(self._pem) if self._pem else _make(self.identity)
            return self._pair


def _parse(pem: bytes) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(pem[pem.index(b"-----BEGIN PRIVATE") :], None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the authority's key is not an elliptic curve key")
    return x509.load_pem_x509_certificate(pem), key


def _key(value: bytes) -> ec.EllipticCurvePrivateKey:
    """A private key from 32 random bytes (FIPS 186-4, B.4.1)."""
    from cryptography.hazmat.primitives.asymmetric import ec

    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256, SEC 2
    return ec.derive_private_key(int.from_bytes(value, "big") % (order - 1) + 1, ec.SECP256R1())


def _make(
    identity: str, key: ec.EllipticCurvePrivateKey | None = None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = key or ec.generate_private_key(ec.SECP256R1())
    name = _name(f"minicluster {identity}", "")
    certificate = (
        _builder(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    from cryptography import x509

    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + _LIFETIME)
    )


def _name(common_name: str, organization: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)] if organization else []
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, ca: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
