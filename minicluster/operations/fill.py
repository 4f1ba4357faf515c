"""What an ``up`` does once the cluster is ready: loads images into nodes, and applies files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from minicluster.engine.protocol import Cancel
from minicluster.model.durations import DEFAULT_TIMEOUT
from minicluster.model.events import Event, Listener
from minicluster.operations import client_folder, connect as addresses

if TYPE_CHECKING:
    from minicluster import pki
    from minicluster.engine.protocol import Engine
    from minicluster.model.spec import Spec
    from minicluster.paths import AnyPath


def load(engine: Engine, spec: Spec, images: Sequence[str], listener: Listener, cancel: Cancel | None = None) -> None:
    """Loads images and archives into the nodes that lack them. What fails leaves the cluster as it is.

    Raises:
        UsageError: the cluster takes no images, or there is no such file.
        ImageError: the engine has no such image, or a node refused it.
        Interrupted: when cancelled.
    """
    from minicluster.operations import load_images

    for image in images:
        done = load_images.load(engine, spec, image, listener=listener, cancel=cancel)
        if done.sent or done.tagged:
            listener(Event("note", text=f"loaded {image}"))


def apply(
    engine: Engine,
    spec: Spec,
    paths: Sequence[AnyPath],
    authority: pki.Authority | None,
    address_mode: str | None,
    listener: Listener,
    timeout: float = DEFAULT_TIMEOUT,
    cancel: Cancel | None = None,
) -> None:
    """Applies files and folders by the cluster's own client. What fails leaves the cluster as it is.

    Args:
        timeout: seconds for each of them.

    Raises:
        UsageError: the profile does not say how files like these are applied.
        MiniclusterError: a file could not be applied.
    """
    if not paths:
        return
    from minicluster.operations import apply_files

    mode = addresses.usable(addresses.asked(address_mode), engine, spec)
    env = client_folder.variables(engine, spec, authority, mode)
    words = [os.fspath(path) for path in paths]
    apply_files.apply(engine, spec, words, env, timeout=timeout, listener=listener, cancel=cancel or Cancel())
