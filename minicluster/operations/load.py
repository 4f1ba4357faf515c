"""``load``: puts an image of the engine into nodes that run containers themselves."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from minicluster.errors import ImageError, MiniclusterError, NodeFailed, UsageError
from minicluster.model.deferred import fill
from minicluster.model.events import Event, Listener
from minicluster.model.naming import container_name
from minicluster.model.spec import Spec
from minicluster.operations.nodes import Nodes, node_names

if TYPE_CHECKING:
    from minicluster.engine.protocol import Cancel, Engine


def load(engine: Engine, spec: Spec, image: str, nodes: Nodes, *, listener: Listener) -> None:
    """Puts an image of the engine into nodes, all at once.

    Args:
        nodes: names or roles; empty for all nodes that hold images.

    Raises:
        ImageError: the engine has no such image, or a node refused it.
        UsageError: nodes of this profile hold no images.
    """
    from minicluster.engine.protocol import Cancel

    names = _targets(engine, spec, image, nodes)
    listener(Event("plan", text=f"load {image} into {len(names)} nodes of {spec.cluster}", nodes=tuple(names)))
    begun, cancel = time.monotonic(), Cancel()
    with tempfile.TemporaryFile() as archive:
        for chunk in engine.save_image(image):
            archive.write(chunk)
        archive.flush()  # os.pread does not see Python's buffer
        size = archive.tell()
        descriptor = archive.fileno()

        def content() -> Iterator[bytes]:
            at = 0
            while chunk := os.pread(descriptor, 1 << 20, at):  # each node reads at its own pace
                at += len(chunk)
                yield chunk

        def one(name: str) -> None:
            listener(Event("start", name, "loading", f"load {name}"))
            _load_one(engine, spec, name, content, size, cancel)
            listener(Event("done", name, "loaded", seconds=time.monotonic() - begun))

        with ThreadPoolExecutor(len(names)) as pool:
            try:
                for future in [pool.submit(one, name) for name in names]:
                    future.result()
            except BaseException:
                cancel.set()
                raise


def _targets(engine: Engine, spec: Spec, image: str, nodes: Nodes) -> list[str]:
    """The nodes to load into, each of which is running and holds images."""
    if not spec.load:
        raise UsageError(f"nodes of profile {spec.profile} hold no images", "The profile has no load hook.")
    holders = {hook.on for hook in spec.load}
    able = [node.name for node in spec.nodes if "node" in holders or node.role in holders]
    names = node_names(spec, nodes) if nodes else able
    if not names:
        role = min(holders)
        raise UsageError(
            f"cluster {spec.cluster} has no node that holds images",
            f"Nodes of role {', '.join(sorted(holders))} do.",
            f"Add one: `minicluster scale {role}=1 -c {spec.cluster}`.",
        )
    if unable := [name for name in names if name not in able]:
        why = f"Only nodes of role {', '.join(sorted(holders))} hold images."
        raise UsageError(f"cannot load an image into {', '.join(unable)}", why)
    if not engine.has_image(image):
        raise ImageError(
            f"the engine has no image {image}",
            "Only an image of the engine can be loaded.",
            f"Pull it (`docker pull {image}`) or build it.",
        )
    running = {c.name for c in engine.containers(spec.cluster) if c.state == "running"}
    idle = [name for name in names if container_name(spec.cluster, name) not in running]
    if idle:
        raise NodeFailed(
            f"cannot load an image into {', '.join(idle)}",
            "Not running.",
            f"`minicluster up --name {spec.cluster}` starts stopped nodes; or name the running ones.",
        )
    return names


def _load_one(
    engine: Engine, spec: Spec, name: str, content: Callable[[], Iterator[bytes]], size: int, cancel: Cancel
) -> None:
    container = container_name(spec.cluster, name)
    path = f"/var/tmp/minicluster-load-{os.getpid()}.tar"
    try:
        engine.put_archive_file(container, path, content(), size)
        for hook in spec.load:
            if hook.on not in ("node", name.rpartition("-")[0]):
                continue
            result = engine.exec(container, fill(hook.run, {"archive": path}), cancel=cancel)
            if result.exit_code != 0:
                raise ImageError(f"{name} refused the image", (result.stderr or result.stdout).strip())
    finally:
        with contextlib.suppress(MiniclusterError):
            engine.exec(container, ["rm", "-f", path])
