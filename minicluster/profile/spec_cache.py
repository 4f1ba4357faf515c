"""The spec of a cluster, from a cache if it was resolved before.

Resolving is pure: the same profile and overrides give the same spec. The libraries that read, check and render a
profile take longer to import than the network of a small cluster takes to create, so caching a spec pays off.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from minicluster import __version__, paths
from minicluster.model.codec import decode, encode
from minicluster.profile import catalog, folders
from minicluster.profile.image_tag import build_hash

if TYPE_CHECKING:
    from minicluster.model.spec import Overrides, Spec

#: How many specs are kept; the least recently used one is removed first.
_LIMIT = 50

#: The code of this process; the files on the disk may be newer.
_CODE = hashlib.sha256(
    b"\0".join(
        p.read_bytes()
        for package in ("profile", "model")
        for p in sorted(Path(__file__).parents[1].glob(f"{package}/*.py"))
    )
).hexdigest()


def resolve(
    source: str,
    cluster: str,
    overrides: Overrides,
    subnet: str,
    bind_address: str,
    port_is_free: Callable[[int], bool],
) -> Spec:
    """The spec of a first ``up`` of a profile by name or path, as :func:`minicluster.profile.resolve.resolve` gives it.

    It is cached only for profiles that come with minicluster, since a user's folder may be large and changes often, and
    only if every port was free, so that a cluster's ports stay those that its name's hash gives. Nothing is cached that
    comes from ``--set``, which may be a secret, or from the user's files.
    """
    directory, path = _kept_at(source, cluster, overrides, subnet, bind_address)
    kept = _read(path) if path else None
    if kept and all(e.name in overrides.port or port_is_free(e.host_port) for _node, e in kept.endpoints()):
        return kept
    taken = False

    def look(port: int) -> bool:
        nonlocal taken
        free = port_is_free(port)
        taken |= not free
        return free

    from minicluster.profile import resolve as full

    loaded = catalog.load(source, overrides.set)
    spec = full.resolve(
        loaded,
        cluster=cluster,
        overrides=overrides,
        subnet=subnet,
        port_is_free=look,
        bind_address=bind_address,
        source=loaded.source,
    )
    # If the path is another one now, the profile was changed in between.
    if path and not taken and path == _path(directory, cluster, overrides, subnet, bind_address):
        _write(path, spec)
    return spec


def is_unchanged(source: str, before: Spec, overrides: Overrides, bind_address: str) -> bool:
    """Whether a profile resolves to the spec that a cluster has, as far as that is known without resolving it.

    It does where the spec is the one that a first ``up`` gives: what a cluster keeps from its last spec is the same.
    """
    _, path = _kept_at(source, before.cluster, overrides, before.subnet, bind_address)
    return path is not None and _read(path) == before


def _kept_at(
    source: str, cluster: str, overrides: Overrides, subnet: str, bind_address: str
) -> tuple[Path, Path | None]:
    """A profile's folder, and the file in which the spec for these arguments is kept; None for what is not cached."""
    directory, bundled = folders.locate(source)
    cacheable = bundled and not (overrides.set or overrides.registries or overrides.ca)
    return directory, _path(directory, cluster, overrides, subnet, bind_address) if cacheable else None


def _path(directory: Path, cluster: str, overrides: Overrides, subnet: str, bind_address: str) -> Path:
    """A file of its own for each input of a spec, the code included."""
    made_of = [__version__, _CODE, build_hash(directory.parent), str(directory.resolve())]
    arguments = [cluster, asdict(overrides), subnet, bind_address]
    digest = hashlib.sha256(json.dumps([made_of, arguments], sort_keys=True).encode()).hexdigest()
    return paths.cache_home() / "specs" / digest[:32]


def _read(path: Path) -> Spec | None:
    try:
        spec = decode(path.read_text(encoding="ascii"))
        path.touch()
        return spec
    except Exception:  # missing or damaged: it is resolved again
        return None


def _write(path: Path, spec: Spec) -> None:
    with contextlib.suppress(OSError):  # without a cache, the next one is only slower
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.{os.getpid()}")
        new.write_text(encode(spec), encoding="ascii")
        new.replace(path)
        for old in sorted(path.parent.iterdir(), key=lambda p: p.stat().st_mtime)[:-_LIMIT]:
            old.unlink(missing_ok=True)
