"""This machine's settings that builds and compilations need: proxies, authorities, registries, Debian's mirror."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from minicluster.errors import UsageError

#: ``ARCHIVE [SECURITY]``: addresses of Debian's archive and of its security updates.
MIRROR = "MINICLUSTER_DEBIAN_MIRROR"
#: What Go reads of its user's settings: https://go.dev/ref/mod#environment-variables
GO = ("GOPROXY", "GOSUMDB", "GOFLAGS", "GOPRIVATE", "GONOPROXY", "GONOSUMDB", "GOINSECURE", "GOAUTH")
PIP = ("PIP_INDEX_URL",)

BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_SYSTEM_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_ETC = Path("/etc")
_USUAL = "deb.debian.org"  #: where Debian's base image looks


def proxies() -> dict[str, str]:
    """The proxies, under names that Docker predefines as build arguments and leaves out of an image's history."""
    found: dict[str, str] = {}
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"):
        value = os.environ.get(upper) or os.environ.get(upper.lower())
        if value:  # programs differ in which of the two they read
            found |= {upper: value, upper.lower(): value}
    return found


def go_settings() -> dict[str, str]:
    """What its user has set for Go."""
    return {name: os.environ[name] for name in GO if os.environ.get(name)}


def own_bundle() -> Path | None:
    """The file of authorities that a variable names, as programs with OpenSSL, requests or curl read it.

    None where it is the system's, which is used anyway.
    """
    found = next((os.environ[name] for name in BUNDLES if os.environ.get(name)), _SYSTEM_BUNDLE)
    return Path(found) if found != _SYSTEM_BUNDLE else None


def bundle() -> Path | None:
    """The file of the authorities that this machine trusts; None where there is none."""
    found = own_bundle() or Path(_SYSTEM_BUNDLE)
    return found if found.is_file() else None


def read_bundle() -> bytes | None:
    """The content of :func:`bundle`. Raises ``UsageError`` where it cannot be read."""
    if (own := own_bundle()) and not own.is_file():
        raise UsageError(f"{own} cannot be read", "It is not a file.", f"Correct {' or '.join(BUNDLES)}.")
    found = bundle()
    try:
        return found.read_bytes() if found else None
    except OSError as error:
        raise UsageError(f"{found} cannot be read", f"{error.strerror}.", "Change its permissions.") from None


def arguments(dockerfile: str) -> tuple[dict[str, str], list[str]]:
    """Settings for Go and pip as the build arguments that a Dockerfile declares, and those that are kept from it.

    The engine writes an argument into the history of what it builds with it, so that only a stage before the last one
    gets it.
    """
    stages = re.split(r"(?im)^[ \t]*FROM\b", dockerfile)
    declared = [set(re.findall(r"(?im)^[ \t]*ARG[ \t]+(\w+)", stage)) for stage in stages]
    values = {name: os.environ[name] for name in (*GO, *PIP) if os.environ.get(name)}
    refused = sorted(name for name in values if name in declared[-1])
    earlier = set().union(*declared[1:-1])
    return {name: value for name, value in values.items() if name in earlier and name not in refused}, refused


def debian_mirror() -> tuple[str, str]:
    """Where Debian's packages are fetched from: the archive, and the security updates.

    By the variable, or else by the apt sources of this machine, if it runs Debian. "" for the archive where the base
    image's own is right, "" for security updates where there are none.

    Raises:
        UsageError: the variable has no address.
    """
    if given := os.environ.get(MIRROR, "").split():
        for address in given:
            _check(address)
        if len(given) > 2:
            raise UsageError(
                f"{MIRROR} has {len(given)} addresses", "", "Give that of the archive and of debian-security."
            )
        return given[0], given[1] if len(given) > 1 else ""
    system = _key_values(_ETC / "os-release")
    codename = system.get("VERSION_CODENAME", "")
    if system.get("ID") != "debian" or not codename:
        return "", ""
    found: dict[str, str] = {}
    for address, suites in _sources(_ETC / "apt"):
        parts = urlsplit(address)
        if parts.scheme in ("http", "https") and "@" not in parts.netloc:
            for suite in suites:
                found.setdefault(suite, address.rstrip("/"))
    archive = found.get(codename, "")
    if urlsplit(archive).hostname in (None, _USUAL):
        return "", ""
    return archive, found.get(f"{codename}-security", "")


def _check(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            f"{MIRROR}: {address!r} is not an address", "", "Use one such as http://mirror.example/debian."
        )
    if "@" in parts.netloc:
        raise UsageError(
            f"{MIRROR}: a password is not accepted",
            "Images keep the address of the mirror that they are built with.",
            "Use a mirror without a password.",
        )


def _key_values(path: Path) -> dict[str, str]:
    return dict(re.findall(r'(?m)^(\w+)="?([^"\n]*)"?$', _text(path)))


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _sources(apt: Path) -> Iterator[tuple[str, list[str]]]:
    """Address and suites of each of apt's sources of binary packages with the component main: man sources.list."""
    folder = apt / "sources.list.d"
    for path in [apt / "sources.list", *sorted(folder.glob("*.list"))]:
        for line in _text(path).splitlines():
            match = re.match(r"\s*deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)\s+([^#]*)", line)
            if match and "main" in match[3].split():
                yield match[1], [match[2]]
    for path in sorted(folder.glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", re.sub(r"(?m)^#.*\n?", "", _text(path))):
            fields = {key.lower(): value.split() for key, value in re.findall(r"(?m)^([\w-]+):[ \t]*(.*)$", stanza)}
            wanted = "deb" in fields.get("types", []) and "main" in fields.get("components", [])
            if wanted and fields.get("enabled", ["yes"]) != ["no"]:
                for address in fields.get("uris", []):
                    yield address, fields.get("suites", [])
