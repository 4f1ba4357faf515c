"""What has changed between two specs of a node, as a phrase: which field, its value before and its value now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from minicluster.model.deferred import SECRET, readable
from minicluster.model.naming import count, size, value_text
from minicluster.model.redact import Redactor, names_secret

if TYPE_CHECKING:
    from minicluster.model.spec import FileSpec, NodeSpec, Spec

_MOST = 3  # changes that are told
_LONGEST = 120  # characters of a value that are shown

#: Fields of a node that are compared as they are.
_PLAIN = ("address", "volumes", "shared", "tmpfs", "nested", "privileged", "capabilities", "authority", "stop_timeout")


def difference(before: Spec | None, after: Spec, node: NodeSpec) -> str:
    """Why a node must be recreated: "memory 384 MiB -> 512 MiB"; "" where nothing of it is known to differ.

    Secrets are never in it: values of files that only root reads, and of whatever is named as a password or key is.
    """
    was = before.node(node.name) if before else None
    if before is None or was is None:
        return ""
    found = list(_changes(before, was, after, node))
    more = f", and {len(found) - _MOST} more" if len(found) > _MOST else ""
    return ", ".join(found[:_MOST]) + more


def _changes(before: Spec, was: NodeSpec, after: Spec, now: NodeSpec) -> Iterator[str]:
    yield from _values("image", before.images[was.image].ref, after.images[now.image].ref)
    yield from _words("entrypoint", was.entrypoint, now.entrypoint)
    yield from _words("command", was.command, now.command)
    yield from _keys("env ", was.env, now.env)
    if was.memory != now.memory:
        yield from _values("memory", *(size(limit) if limit else "no limit" for limit in (was.memory, now.memory)))
    if was.cpus != now.cpus:
        yield from _values("cpus", *(f"{limit:g}" if limit else "no limit" for limit in (was.cpus, now.cpus)))
    for name in _PLAIN:
        yield from _values(name.replace("_", " "), _text(getattr(was, name)), _text(getattr(now, name)))
    files_before, files = ({file.path: file for file in node.files if not file.bootstrap} for node in (was, now))
    for path in dict.fromkeys([*files_before, *files]):
        yield from _file(path, files_before.get(path), files.get(path))
    if was.certificates != now.certificates:
        yield "certificates"
    yield from _values("mounts", *_changed(_mounts(was), _mounts(now)))
    yield from _values("published ports", *_changed(_ports(was), _ports(now)))
    if now.endpoints:
        yield from _values("bind address", before.bind_address, after.bind_address)


def _values(name: str, was: str, now: str) -> Iterator[str]:
    if was != now:
        before, after = _shown(was), _shown(now)
        if names_secret(name) or SECRET.search(was + now) or before == after:
            yield f"{name} (not shown)"
        else:
            yield f"{name} {before} -> {after}"


def _keys(kind: str, was: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for key in dict.fromkeys([*was, *now]):
        yield from _values(f"{kind}{key}", was.get(key, ""), now.get(key, ""))


def _words(name: str, was: Sequence[str], now: Sequence[str]) -> Iterator[str]:
    """The words that differ; a word may be ``--password=x``."""
    gone, come = [word for word in was if word not in now], [word for word in now if word not in was]
    if gone or come:
        # An option may stand before its value: --password x.
        options = [option for words in (was, now) for option, word in pairwise(words) if word in (*gone, *come)]
        if any(map(names_secret, [*gone, *come, *options])):
            yield f"{name} (not shown)"
        else:
            yield from _values(name, " ".join(gone), " ".join(come))
    elif was != now:
        yield f"{name} in another order"


def _file(path: str, was: FileSpec | None, now: FileSpec | None) -> Iterator[str]:
    if was is None or now is None:
        yield f"file {path} {'added' if now else 'removed'}"
    elif (was.mode, was.uid, was.gid) != (now.mode, now.uid, now.gid):
        yield f"owner or permissions of {path}"
    elif was.content != now.content:
        before, after = was.content.splitlines(), now.content.splitlines()
        lost, added = [line for line in before if line not in after], [line for line in after if line not in before]
        gone, come = (next((line.strip() for line in lines), "") for lines in (lost, added))
        private = not now.mode & 0o044 or names_secret(f"{gone} {come}")
        # A whole file, such as a script, is no value: of most changes one line is.
        if private or not ((gone and come) or len(lost) + len(added) == 1):
            yield path
        else:
            yield from _values(path, gone, come)
            if (more := max(len(lost), len(added)) - 1) > 0:
                yield f"{count(more, 'more line')} of {path}"


def _changed(was: Sequence[str], now: Sequence[str]) -> tuple[str, str]:
    """Only the words that differ."""
    return ", ".join(word for word in was if word not in now), ", ".join(word for word in now if word not in was)


def _mounts(node: NodeSpec) -> list[str]:
    return [f"{mount.host}:{mount.path}{':ro' if mount.read_only else ''}" for mount in node.mounts]


def _ports(node: NodeSpec) -> list[str]:
    return [f"{e.port}/{e.protocol} on {e.host_port}" for e in node.endpoints]


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key}={item}" for key, item in value.items())
    return " ".join(value) if isinstance(value, tuple) else value_text(value)


def _shown(value: str) -> str:
    line = " ".join(Redactor().text(readable(value)).split())
    return (line if len(line) <= _LONGEST else f"{line[:_LONGEST]}...") or "none"
