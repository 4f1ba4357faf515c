"""Objects of one name on several hosts: which of them is meant.

Where two hosts have a node's object, since one of them was away when the node was moved, the cluster's newest record
says which is meant. The other one is listed, and can be removed, as NAME@HOST; no engine has names with ``@``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from minicluster.engine.protocol import Container, Volume
from minicluster.model import labels
from minicluster.model.codec import decode

if TYPE_CHECKING:
    from minicluster.model.spec import Spec

AT = "@"  # between the name of an object and its host, where another host has the one that is meant

Labelled = TypeVar("Labelled", Container, Volume)


def newest_spec(volumes: Iterable[Volume]) -> Spec | None:
    """The spec of the newest of a cluster's records, None where that one cannot be read."""
    records = [one for one in volumes if labels.REVISION in one.labels and labels.HOSTS in one.labels]
    text = max(records, key=_revision).labels.get(labels.SPEC, "") if records else ""
    try:
        return decode(text) if text else None
    except (ValueError, KeyError, TypeError):
        return None


def meant(found: list[Labelled], spec_of: Callable[[str], Spec | None]) -> list[Labelled]:
    """The same, with those renamed that are on another host than their node, by the spec of their cluster."""
    by_name: dict[str, list[Labelled]] = {}
    for one in found:
        by_name.setdefault(one.name, []).append(one)
    double = [its for its in by_name.values() if len(its) > 1]
    if not double:
        return found
    renamed: dict[tuple[str, str], str] = {}
    for its in double:
        spec = spec_of(its[0].labels[labels.CLUSTER])
        node = spec.node(its[0].labels.get(labels.NODE, "")) if spec else None
        hosts = [one.host for one in its]
        kept = node.host if node and node.host in hosts else hosts[0]
        renamed |= {(one.name, one.host): f"{one.name}{AT}{one.host}" for one in its if one.host != kept}
    return [replace(one, name=renamed.get((one.name, one.host), one.name)) for one in found]


def shown(copies: Mapping[str, Sequence[Volume]]) -> list[Volume]:
    """Volumes of which every host has a copy, each once; records that a host has missed the removal of as NAME@HOST.

    A host that was away has records of before. Only those hosts tell what is in force that have the newest one, and a
    record among them that fewer than half of them have is being removed.
    """
    plain = {one.name: one for its in copies.values() for one in its if labels.REVISION not in one.labels}
    records = {host: {one.name: one for one in its if labels.REVISION in one.labels} for host, its in copies.items()}
    shown = list(plain.values())
    clusters = {one.labels[labels.CLUSTER] for its in records.values() for one in its.values()}
    for cluster in sorted(clusters):
        of = {
            host: {name: one for name, one in its.items() if one.labels[labels.CLUSTER] == cluster}
            for host, its in records.items()
        }
        newest = max((_revision(one) for its in of.values() for one in its.values()), default=-1)
        holders = [its for its in of.values() if any(_revision(one) == newest for one in its.values())]
        kept = {
            name: one
            for its in holders
            for name, one in its.items()
            if 2 * sum(name in other for other in holders) >= len(holders)
        }
        shown += kept.values()
        for host, its in of.items():
            shown += [
                replace(one, name=f"{name}{AT}{host}", host=host) for name, one in its.items() if name not in kept
            ]
    return shown


def _revision(volume: Volume) -> int:
    text = volume.labels.get(labels.REVISION, "")
    return int(text) if text.isdecimal() else -1
