"""File systems of nodes: each in a file on a volume, which a loop device gives the engine to mount.

The engine mounts the loop device by a name in its machine's ``/dev``, which no restart of that machine survives: so a
name never leads to another file. A helper container (``profiles/_fault/disk``) does what needs privileges.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from minicluster.engine.protocol import Volume
from minicluster.errors import EngineError, MiniclusterError
from minicluster.executor import helper
from minicluster.model import labels
from minicluster.model.naming import disk_volume_name

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine

_FIX = "Use an engine whose machine has loop devices and the file system ext4, or leave out --disk."


def device(volume: str) -> str:
    """What the engine mounts: ``volume`` has the file."""
    return f"/dev/minicluster-{volume}"


def create(engine: Engine, name: str, about: Mapping[str, str], size: int) -> None:
    """Creates a volume on a file system of its own of so many bytes.

    Raises:
        MiniclusterError: the engine's machine cannot.
    """
    backing = disk_volume_name(name)
    engine.create_volume(backing, {**about, labels.DISK: str(size)})
    _attach(engine, [Volume(backing, {**about, labels.DISK: str(size)})])
    engine.create_volume(name, about, device=device(backing))


def attach(engine: Engine, cluster: str) -> None:
    """Gives the engine every file system of a cluster to mount; nothing happens to those that it has.

    Raises:
        MiniclusterError: the engine's machine cannot.
    """
    _attach(engine, [volume for volume in engine.volumes(cluster) if labels.DISK in volume.labels])


def _attach(engine: Engine, volumes: Sequence[Volume]) -> None:
    sizes = {volume.name: volume.labels[labels.DISK] for volume in volumes}
    if not sizes:
        return
    about = volumes[0].labels
    command = ["disk", "attach", *(f"{name}={size}" for name, size in sizes.items())]
    if why := _work(engine, about, command, sizes):
        raise MiniclusterError("the engine's machine cannot make file systems for nodes", f"{why}.", _FIX)


def remove(engine: Engine, name: str) -> None:
    """Removes the volume with the file of a file system, and its loop device."""
    volume = engine.volume(name)
    if volume:
        # Where the helper's image is gone, the loop device stays until the machine restarts: that is no reason to
        # leave the cluster.
        with suppress(EngineError):
            _work(engine, volume.labels, ["disk", "detach", name], [name])
        engine.remove_volume(name)


def _work(engine: Engine, about: Mapping[str, str], command: list[str], volumes: Iterable[str]) -> str:
    kept = {key: about[key] for key in (labels.CLUSTER, labels.PROFILE)}
    mounted = {f"/disks/{name}": name for name in volumes}
    return helper.work(engine, kept, command, volumes=mounted, on_disks=True)
