"""Registries of images that nodes are told of: what the user writes, and credentials from docker's configuration.

Credentials are in no spec, plan or label. They are read when nodes' files are written, and go into those only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from minicluster.engine import client_config
from minicluster.engine.protocol import Engine, File
from minicluster.errors import MiniclusterError, NotFound, UsageError, nearest
from minicluster.model.deferred import REGISTRY_CREDENTIALS, SECRET, fill, marker
from minicluster.model.naming import container_name
from minicluster.model.spec import RegistrySpec, Spec
from minicluster.paths import AnyPath, expanded

DEFAULT = "docker.io"  #: the registry of images whose names begin with no host
_DEFAULT_KEY = "https://index.docker.io/v1/"  # its name in a docker client's configuration
_OTHER_NAMES = ("index.docker.io", "registry-1.docker.io")  # of the default registry
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_LARGEST = 32 << 10  # bytes of certificates: they become part of the cluster's spec, which is a label
_YES, _NO = ("yes", "true"), ("no", "false")


def registry(
    host: str,
    *,
    mirrors: Iterable[str] = (),
    ca: AnyPath | None = None,
    insecure: bool = False,
    credentials: bool = True,
) -> RegistrySpec:
    """A registry by what the user says of it.

    Args:
        host: HOST or HOST:PORT.
        mirrors: http or https URLs that are asked before it.
        ca: a file with certificates of authorities that it is trusted by.
        insecure: its certificate is not checked, and plain HTTP is tried as well.
        credentials: nodes get the credentials that docker's configuration has for it.

    Raises:
        UsageError: a value is not valid.
    """
    if not _HOST.fullmatch(host):
        raise UsageError(
            f"--registry {host}: not the name of a registry",
            "It is what references of its images begin with, without a path.",
            "Write HOST or HOST:PORT, such as registry.example.com:5000.",
        )
    host = DEFAULT if host in _OTHER_NAMES else host
    for url in mirrors:
        _check_mirror(url)
    text = certificates(ca, f"--registry {host},ca") if ca else ""
    return RegistrySpec(host, tuple(mirrors), text, insecure, credentials)


def mirror(url: str) -> RegistrySpec:
    """A mirror of the registry of images whose names begin with no host. Credentials for that stay on this machine."""
    return registry(DEFAULT, mirrors=[url.rstrip("/")], credentials=False)


def parse(text: str) -> RegistrySpec:
    """A registry as ``--registry`` takes it: ``HOST[,mirror=URL][,ca=FILE][,insecure][,credentials=no]``."""
    host, *words = text.split(",")
    mirrors, ca, flags = [], "", {"insecure": False, "credentials": True}
    for word in words:
        key, _, value = word.partition("=")
        if key == "mirror" and value:
            mirrors.append(value.rstrip("/"))
        elif key == "ca" and value:
            ca = value
        elif key in flags and (value in (*_YES, *_NO) or word == key):
            flags[key] = word == key or value in _YES
        else:
            raise UsageError(
                f"--registry {text}: {word!r} is not valid",
                "After the host come mirror=URL, ca=FILE, insecure and credentials=no, with commas between.",
                nearest(key, ["mirror", "ca", *flags]),
            )
    return registry(host, mirrors=mirrors, ca=ca or None, **flags)


def merged(named: Sequence[RegistrySpec]) -> tuple[RegistrySpec, ...]:
    """Each registry once; its mirrors are those of all mentions, and all else is that of the last."""
    found: dict[str, RegistrySpec] = {}
    for one in named:
        mirrors = (*found[one.host].mirrors, *one.mirrors) if one.host in found else one.mirrors
        found[one.host] = replace(one, mirrors=tuple(dict.fromkeys(mirrors)))
    return tuple(found.values())


def _check_mirror(url: str) -> None:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and _HOST.fullmatch(parts.netloc.rpartition("@")[2])
    except ValueError:
        valid = None
    if not valid or not re.fullmatch(r"[!-~]+", url) or '"' in url or "\\" in url or parts.query or parts.fragment:
        raise UsageError(
            f"--registry-mirror {_without_password(url)}: not the address of a mirror",
            "",
            "Write http://HOST[:PORT] or https://HOST[:PORT].",
        )
    if "@" in parts.netloc:
        raise UsageError(
            f"--registry-mirror {_without_password(url)}: a password in an address is not accepted",
            "Addresses are part of the cluster's spec, which everybody who can use the engine can read.",
            "Name a mirror that needs no password.",
        )


def _without_password(url: str) -> str:
    return re.sub(r"//[^/]*@", "//***@", url)


def certificates(path: AnyPath, option: str) -> str:
    """The certificates in a PEM file, and nothing else that is in it, such as a key.

    Raises:
        UsageError: it cannot be read, has none, or too many.
    """
    from cryptography import x509

    file = expanded(path)
    try:
        content = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror or str(error)) if isinstance(error, OSError) else "It is not a text file."
        raise UsageError(f"{option}: cannot read {file}", why, "Name a file with certificates in PEM.") from None
    found = [match[0] for match in _CERTIFICATE.finditer(content)]
    try:
        for one in found:
            x509.load_pem_x509_certificate(one.encode())
    except ValueError as error:
        raise UsageError(f"{option}: a certificate in {file} is damaged", str(error), "Export it again.") from None
    text = "".join(f"{one}\n" for one in found)
    if not found:
        raise UsageError(
            f"{option}: {file} has no certificate",
            "A certificate in PEM begins with -----BEGIN CERTIFICATE-----.",
            "Convert it: `openssl x509 -inform der -in FILE -out FILE.pem`.",
        )
    if len(text) > _LARGEST:
        raise UsageError(
            f"{option}: {file} has {len(found)} certificates, {len(text) >> 10} KiB",
            f"At most {_LARGEST >> 10} KiB can be kept with the cluster.",
            "Name a file with only those that nodes do not trust yet.",
        )
    return text


def credentials(spec: Spec, *, strict: bool = True) -> dict[str, str]:
    """The deferred value with the credentials for a cluster's registries; empty where no node's file has it.

    Args:
        strict: raise where they cannot be read, rather than do without.

    Raises:
        MiniclusterError: a credential helper fails, or docker's configuration is damaged.
    """
    if not any(_MARKER in file.content for node in spec.nodes for file in node.files):
        return {}
    auths = {}
    for one in spec.overrides.registries or ():
        try:
            found = client_config.registry_credentials(one.host) if one.credentials else {}
        except MiniclusterError:
            if strict:
                raise
            found = {}
        if found:
            auths[_DEFAULT_KEY if one.host == DEFAULT else one.host] = found
    return {REGISTRY_CREDENTIALS: json.dumps({"auths": auths}, indent=1)}


_MARKER = marker(REGISTRY_CREDENTIALS)


def renew(engine: Engine, spec: Spec, values: Mapping[str, str]) -> None:
    """Replaces the credentials in nodes that have others: the user has logged in or out since."""
    for node in spec.nodes if values else ():
        container = container_name(spec.cluster, node.name)
        for file in node.files:
            if _MARKER not in file.content or SECRET.search(file.content):
                continue
            content = fill([file.content], values)[0].encode()
            try:
                if engine.get_file(container, file.path) == content:
                    continue
            except NotFound:
                pass
            engine.put_files(container, [File(file.path, content, file.mode, file.uid, file.gid)])
