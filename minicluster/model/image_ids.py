"""Which image is which: IDs and names of images, on the engine, in archives and in nodes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REGISTRY = "docker.io"  # what names without a registry mean


@dataclass(frozen=True)
class Wanted:
    """An image that nodes are to have."""

    ids: frozenset[str]  #: every digest that an engine may call it by; empty where none is known
    names: tuple[str, ...]  #: as :func:`full_name` writes them


@dataclass(frozen=True)
class Held:
    """An image that a node has."""

    ids: frozenset[str]
    names: Mapping[str, str] = field(default_factory=dict)  #: full name -> as the node writes it

    @property
    def source(self) -> str:
        """What the node knows it by."""
        return next(iter(self.names.values()), "") or min(self.ids)


def full_name(ref: str) -> str:
    """A reference with its registry and tag, as the docker client completes it.

    >>> full_name("app"), full_name("me/app:1"), full_name("localhost:5000/app")
    ('docker.io/library/app:latest', 'docker.io/me/app:1', 'localhost:5000/app:latest')
    """
    host, slash, rest = ref.partition("/")
    if not slash or not (host == "localhost" or "." in host or ":" in host):
        host, rest = _REGISTRY, ref
    if host == _REGISTRY and "/" not in rest:
        rest = f"library/{rest}"
    if "@" not in rest and ":" not in rest.rpartition("/")[2]:
        rest += ":latest"
    return f"{host}/{rest}"


def short_name(name: str) -> str:
    """A full name as people write it.

    >>> short_name("docker.io/library/app:latest"), short_name("localhost/app:1")
    ('app:latest', 'localhost/app:1')
    """
    return name.removeprefix(f"{_REGISTRY}/library/").removeprefix(f"{_REGISTRY}/")


def parse_held(text: str) -> tuple[Held, ...]:
    """The images that a node lists: a line ``ID NAME`` for each name, or ``ID`` alone.

    A name that is a digest is a further ID of the same image. Other lines are skipped.
    """
    groups: dict[str, list[str]] = {}
    for line in text.splitlines():
        id, _, name = line.strip().partition(" ")
        if DIGEST.fullmatch(id):
            groups.setdefault(id, []).append(name.strip())
    found = []
    for id, names in groups.items():
        digests = {name for name in names if DIGEST.fullmatch(name)}
        found.append(Held(frozenset({id, *digests}), {full_name(n): n for n in names if n and n not in digests}))
    return tuple(found)


def find(wanted: Wanted, held: Iterable[Held]) -> list[Held]:
    """What a node has of an image; a node may list it under several IDs."""
    return [one for one in held if one.ids & wanted.ids]


def missing_names(wanted: Wanted, found: Iterable[Held]) -> list[str]:
    """The names that an image does not have in a node."""
    there = {name for one in found for name in one.names}
    return [name for name in wanted.names if name not in there]
