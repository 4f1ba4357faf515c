"""This machine's settings that builds and compilations need: proxies, authorities, registries, Debian's mirror."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from minicluster.errors import UsageError

#: ``ARCHIVE [SECURITY]``: addresses of Debian's archive and of its security updates.
MIRROR = "MINICLUSTER_DEBIAN_MIRROR"
#: What Go reads of its user's settings: https://go.dev/ref/mod#environment-variables
GO = ("GOPROXY", "GOSUMDB", "GOFLAGS", "GOPRIVATE", "GONOPROXY", "GONOSUMDB", "GOINSECURE", "GOAUTH")
PIP = ("PIP_INDEX_URL",)
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")

BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_SYSTEM_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_ETC = Path("/etc")
_USUAL = "deb.debian.org"  #: where Debian's base image looks


def proxies() -> dict[str, str]:
    """The proxies, under names that Docker predefines as build arguments and leaves out of an image's history.

    A Dockerfile that declares one has it in the history all the same; see :func:`arguments`.
    """
    found: dict[str, str] = {}
    for upper in PROXIES:
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


@dataclass(frozen=True)
class _Stage:
    """A stage of a Dockerfile."""

    name: str  #: in lower case; "" without one
    base: str  #: the stage or the image that it is built on, in lower case; has a "$" where that is not known
    declares: set[str] = field(default_factory=set)  #: names of arguments


def arguments(dockerfile: str, given: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Proxies, and settings for Go and pip, as build arguments of a Dockerfile; and the names of those kept from it.

    The engine writes an argument that a stage declares into the history of what it builds with it, and a stage has the
    history of the one that it is built on. So none is passed that the last stage or one below it declares. Proxies are
    in no history and reach all stages as long as they are not declared, the others only stages that declare them.

    Args:
        given: the other build arguments, by which a stage may be named.
    """
    stages = _stages(dockerfile, given)
    last = _last(stages)
    kept: set[str] = set().union(*(stages[i].declares for i in last))
    declared: set[str] = set().union(*(stage.declares for stage in stages))
    settings = {name: os.environ[name] for name in (*GO, *PIP) if os.environ.get(name) and name in declared}
    values = settings | proxies()
    refused = sorted(name for name in values if name in kept)
    return {name: value for name, value in values.items() if name not in refused}, refused


def _instructions(dockerfile: str) -> Iterator[tuple[str, str]]:
    """The instructions of a Dockerfile, in upper case, each with what follows, in one line."""
    lines, continued = [""], False
    for line in map(str.rstrip, dockerfile.split("\n")):
        if not line or line.lstrip().startswith("#"):  # also between lines that continue one
            continue
        lines[-1:] = [lines[-1] + line] if continued else [lines[-1], line]
        continued = line.endswith("\\")
        lines[-1] = lines[-1].removesuffix("\\")
    for line in filter(str.strip, lines):
        word, *rest = line.split(maxsplit=1)
        yield word.upper(), "".join(rest)


def _stages(dockerfile: str, given: Mapping[str, str]) -> list[_Stage]:
    stages: list[_Stage] = []
    known: dict[str, str] = {}  # arguments before the first stage, which can be used in FROM

    def filled(text: str) -> str:
        return re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda match: known.get(match[1] or match[2], ""), text)

    for instruction, rest in _instructions(dockerfile):
        if instruction == "FROM":
            words = [filled(word).lower() for word in rest.split() if not word.startswith("--")]
            name = words[2] if len(words) > 2 and words[1] == "as" else ""
            stages.append(_Stage(name, words[0] if words else ""))
        elif instruction == "ARG":
            for word in _words(rest):
                name, _, default = word.partition("=")
                if stages:
                    stages[-1].declares.add(name)
                else:
                    known[name] = given.get(name, filled(default))
    return stages


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # the engine refuses it
        return text.split()


def _last(stages: Sequence[_Stage]) -> set[int]:
    """The positions of the last stage and of those that it is built on."""
    found, at = set(range(len(stages))[-1:]), len(stages) - 1
    while at > 0:
        if "$" in stages[at].base:
            return found | set(range(at))  # any of those before it
        below = [i for i in range(at) if stages[i].name and stages[i].name == stages[at].base]
        if not below:
            break
        at = below[-1]
        found.add(at)
    return found


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
