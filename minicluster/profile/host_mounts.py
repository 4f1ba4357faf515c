"""Which files and folders of the host each node has mounted, and where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from minicluster.errors import UsageError, nearest

if TYPE_CHECKING:
    from minicluster.model import spec
    from minicluster.profile import schema
    from minicluster.profile.scope import Node

#: A mount in place of one of these, or of a folder that contains one, hides what a node needs.
_SYSTEM = (
    *("/bin", "/boot", "/dev", "/etc/minicluster", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/tmp"),
    *("/usr/bin", "/usr/lib", "/usr/local/bin", "/usr/local/lib", "/usr/sbin", "/var/lib", "/var/log", "/var/run"),
    "/var/tmp",
)
_TEMPORARY = ("/run", "/tmp", "/var/run", "/var/tmp")
_KERNEL = ("/dev", "/proc", "/sys")


def mounts_of_nodes(
    profile: schema.Profile,
    roles: Mapping[str, Sequence[Node]],
    overrides: spec.Overrides,
    previous: spec.Spec | None,
) -> dict[str, tuple[spec.MountSpec, ...]]:
    """The mounts of each node, by its name.

    Raises:
        UsageError: there is no such role or node.
    """
    asked = overrides.mounts or ()
    nodes = {node.name: node.role for group in roles.values() for node in group}
    known = {*profile.roles, *nodes}
    kept = (previous.overrides.mounts if previous else None) or ()  # its node may have been removed since
    for mount in asked:
        if mount.on not in known and mount not in kept:
            raise UsageError(f"--mount {mount}: no role or node named {mount.on!r}", "", nearest(mount.on, known))
    return {name: tuple(mount for mount in asked if mount.on in (name, role)) for name, role in nodes.items()}


def with_mounts(node: spec.NodeSpec, mounts: Sequence[spec.MountSpec]) -> spec.NodeSpec:
    """A node with its mounts.

    Raises:
        UsageError: one of them is where something else of the node is.
    """
    seen: list[spec.MountSpec] = []
    for mount in mounts:
        for path, what in _taken(node):
            if _is_in(path, mount.path):
                raise UsageError(
                    f"--mount {mount}: nothing can be mounted at {mount.path} of {node.name}",
                    f"It would hide {what} {path}.",
                    "Mount it at a path of its own, such as /data.",
                )
        for path, what in _closed(node):
            if _is_in(mount.path, path):
                raise UsageError(
                    f"--mount {mount}: nothing can be mounted in {path} of {node.name}",
                    f"That is {what}, whose contents the node may remove.",
                    "Mount it at a path of its own, such as /data.",
                )
        for other in seen:
            if _is_in(mount.path, other.path) or _is_in(other.path, mount.path):
                same = mount.path == other.path
                what = "both are at" if same else "one is inside the other:"
                paths = mount.path if same else f"{mount.path} and {other.path}"
                raise UsageError(f"--mount {mount} and --mount {other}: {what} {paths}")
        seen.append(mount)
    return replace(node, mounts=tuple(seen)) if seen else node


def _taken(node: spec.NodeSpec) -> Iterator[tuple[str, str]]:
    """Paths that nothing may be mounted over."""
    yield from ((file.path, "the node's file") for file in node.files)
    yield from _closed(node)
    yield from ((path, "the system's folder") for path in _SYSTEM)


def _closed(node: spec.NodeSpec) -> Iterator[tuple[str, str]]:
    """Folders in which nothing may be mounted."""
    yield from ((path, "the node's volume") for path in (*node.volumes, *node.shared))
    yield from ((path, "a folder in memory") for path in node.tmpfs)
    yield from ((path, "a folder of temporary files") for path in _TEMPORARY)
    yield from ((certificate.directory, "the node's folder of certificates") for certificate in node.certificates)
    yield from ((path, "a folder of the kernel") for path in _KERNEL)


def _is_in(path: str, folder: str) -> bool:
    return PurePosixPath(path).is_relative_to(folder)
