"""What an ``up`` does once the cluster is ready: loads images into nodes, and applies files."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from minicluster import paths
from minicluster.engine.protocol import Cancel
from minicluster.model import labels
from minicluster.model.events import Event, Listener
from minicluster.model.spec import Spec
from minicluster.operations import client_folder
from minicluster.operations import connect as addresses

if TYPE_CHECKING:
    from minicluster import pki
    from minicluster.engine.protocol import Engine

_LOADED = ".loaded"  # file in the client's folder: image -> its ID and the containers that have it


def fill(
    engine: Engine,
    spec: Spec,
    load: Sequence[str],
    apply: Sequence[str],
    *,
    authority: pki.Authority | None = None,
    address_mode: str | None = None,
    timeout: float,
    listener: Listener,
    cancel: Cancel | None = None,
) -> None:
    """Loads images and applies files. What fails leaves the cluster as it is.

    Args:
        timeout: seconds for each of the files.

    Raises:
        UsageError: the cluster takes no images or files like these.
        ImageError: the engine has no such image, or a node refused it.
        MiniclusterError: a file could not be applied.
    """
    for image in load:
        _load(engine, spec, image, listener)
    if apply:
        from minicluster.operations import apply_files

        mode = addresses.usable(addresses.asked(address_mode), engine, spec)
        env = client_folder.variables(engine, spec, authority, mode)
        apply_files.apply(engine, spec, apply, env, timeout=timeout, listener=listener, cancel=cancel or Cancel())


def _load(engine: Engine, spec: Spec, image: str, listener: Listener) -> None:
    """Loads an image into the nodes that did not get it from an earlier ``up``: it may be large."""
    from minicluster.operations import load_images

    ids = [one.id for one in engine.images() if image in one.tags or one.id == image or f"{image}:latest" in one.tags]
    id = ids[0] if ids else ""
    path = paths.client_directory(spec.cluster) / _LOADED
    known: dict[str, dict[str, object]] = {}
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(path.read_text())
    containers = {c.labels[labels.NODE]: c.id for c in engine.containers(spec.cluster) if labels.NODE in c.labels}
    roles = {hook.on for hook in spec.load}
    able = [node.name for node in spec.nodes if node.role in roles or "node" in roles]
    had = known.get(image, {})
    nodes = [name for name in able if had.get(name) != f"{containers.get(name)} {id}"]
    if id and able and not nodes:
        return
    load_images.load(engine, spec, image, nodes, listener=listener)
    known[image] = {name: f"{containers.get(name)} {id}" for name in able}
    with contextlib.suppress(OSError):  # it is loaded again then
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(json.dumps(known))
    listener(Event("note", text=f"loaded {image}"))
