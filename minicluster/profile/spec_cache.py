"""The spec of a cluster that is not there yet; what was resolved once is read again instead.

Resolving is pure: the same profile and the same wishes come to the same spec. The libraries that read, check and fill
in a profile take longer to import than the smallest cluster's network takes to make, so a spec is worth keeping.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from minicluster import __version__, paths
from minicluster.model.codec import decode, encode
from minicluster.model.spec import Overrides, Spec
from minicluster.profile import catalog
from minicluster.profile.build import build_hash

#: How many specs are kept; the one that was not asked for the longest goes first.
_MOST = 50

#: The code that is at work here: what lies on the disk may be newer, where this process is old.
_CODE = hashlib.sha256(
    b"\0".join(
        p.read_bytes() for room in ("profile", "model") for p in sorted(Path(__file__).parents[1].glob(f"{room}/*.py"))
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
    """The spec of a first ``up``: as :func:`minicluster.profile.resolve.resolve` has it, of a profile by name or path.

    It is kept for profiles that come with minicluster: a folder of the user's may be of any size, and is worked on. And
    where every port was free that was wanted, so that a name's ports stay those that its hash makes them.
    Nothing is kept that has to do with a ``--set``, which may be a secret, or with files of the user's.
    """
    directory, bundled = catalog.locate(source)
    path = _path(directory, cluster, overrides, subnet, bind_address) if bundled and not overrides.set else None
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
    again = not taken and not any(image.additional_contexts for image in spec.images.values())
    # Where the path is another one by now, somebody has changed the profile meanwhile.
    if path and again and path == _path(directory, cluster, overrides, subnet, bind_address):
        _write(path, spec)
    return spec


def _path(directory: Path, *wishes: object) -> Path:
    """Another file for everything else that a spec may come of: the code that makes it included."""
    made_of = [__version__, _CODE, build_hash(directory.parent), str(directory.resolve())]
    told = [asdict(wish) if isinstance(wish, Overrides) else wish for wish in wishes]
    digest = hashlib.sha256(json.dumps([made_of, told], sort_keys=True).encode()).hexdigest()
    return paths.cache_home() / "specs" / digest[:32]


def _read(path: Path) -> Spec | None:
    try:
        spec = decode(path.read_text(encoding="ascii"))
        path.touch()
        return spec
    except Exception:  # none, or of no use whatever the reason: it can be made again
        return None


def _write(path: Path, spec: Spec) -> None:
    with contextlib.suppress(OSError):  # a home that cannot be written to makes the next one slower, that is all
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.{os.getpid()}")
        new.write_text(encode(spec), encoding="ascii")
        new.replace(path)
        for old in sorted(path.parent.iterdir(), key=lambda p: p.stat().st_mtime)[:-_MOST]:
            old.unlink(missing_ok=True)
