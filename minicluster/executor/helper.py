"""Our helper container (``profiles/_fault``): it holds faults, and makes the file systems of nodes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from minicluster.errors import EngineError, NodeFailed
from minicluster.model import labels
from minicluster.model.naming import fault_name
from minicluster.model.spec import ImageSpec
from minicluster.profile import folders
from minicluster.profile.image_tag import build_ref

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine

WAITS = "WAITS"  #: the variable by which a helper waits for word on its standard input before it does something
WORD = b"go\n"
ALL = "USR2"  #: the signal at which a helper clears the nodes of all faults, and ends
_DONE = "in force"
_FAILED = "failed: "


def image() -> ImageSpec:
    """The image of the helper container."""
    folder = folders.named("_fault", bundled=True)
    return ImageSpec("helper", build_ref("fault", "helper", folder), "build", str(folder))


def failure(output: Iterator[bytes]) -> str:
    """Why a helper could not do what it is for, by its output; "" once it has."""
    for raw in output:
        line = raw.decode(errors="replace").strip()
        if line == _DONE:
            return ""
        if line.startswith(_FAILED):
            return line.removeprefix(_FAILED).strip()
    return "its helper container ended"


def work(
    engine: Engine,
    about: Mapping[str, str],
    command: Sequence[str],
    *,
    volumes: Mapping[str, str] | None = None,
    on_disks: bool = False,
    beside: str = "",
    ref: str = "",
) -> str:
    """Lets a helper do something that is over at once, and returns why it could not; "" where it could.

    Args:
        about: labels, by which ``down`` finds the helper where this process is killed.
        command: of the image.
        volumes: path in the helper -> name of the volume.
        on_disks: it works on loop devices, and not on containers.
        beside: the container whose network it has.
        ref: of another image that has the command.
    """
    from minicluster.engine.protocol import Job

    name = fault_name(about[labels.CLUSTER], f"{command[0]}-{os.urandom(3).hex()}")  # several may work at the same time
    job = Job(
        name,
        ref or image().ref,
        tuple(command),
        {},
        volumes or {},
        (),
        {**about, labels.FAULT: ""},
        on_containers=not on_disks,
        on_disks=on_disks,
        beside=beside,
    )
    engine.create_job(job)
    try:
        engine.start_container(name)
        return failure(engine.logs(name, follow=True))
    except (EngineError, NodeFailed) as error:
        return error.what
    finally:
        engine.remove_container(name)
