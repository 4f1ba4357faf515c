"""The system's own clients, out of a cluster's node image: for a machine that lacks one that fits."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minicluster import paths
from minicluster.engine.protocol import Engine, Job
from minicluster.errors import MiniclusterError, UsageError, nearest
from minicluster.model import labels
from minicluster.operations import nodes as selection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from minicluster.model.spec import ProgramSpec, Spec

_ASK_PATIENCE = 5.0  #: seconds for a client of this machine to say its version
_NUMBER = re.compile(r"(\d+)\.(\d+)")


def command(
    engine: Engine, spec: Spec, name: str, arguments: Sequence[str], env: Mapping[str, str], *, tty: bool
) -> tuple[list[str], dict[str, str]]:
    """The command line that runs one of a cluster's clients, and its variables.

    Args:
        env: the cluster's variables for its clients.
        tty: standard input and output are a terminal.

    Raises:
        UsageError: the cluster has no such client.
        MiniclusterError: the node image does not have it, or it cannot be written.
    """
    program = spec.programs.get(name)
    if program is None:
        raise UsageError(
            f"cluster {spec.cluster} has no client {name!r}", "", nearest(name, spec.programs) if spec.programs else ""
        )
    if program.on:
        node = running(engine, spec, program.on)
        return selection.interactive(engine, spec, node, [program.path, *arguments], tty=tty)
    return [str(extracted(engine, spec, program)), *arguments], dict(env)


def running(engine: Engine, spec: Spec, role: str) -> str:
    """The first node of a role that runs, else its first one."""
    names = selection.node_names(spec, role)
    states = {container.name: container.state for container in engine.containers(spec.cluster)}
    running = [name for name in names if states.get(selection.container_of(spec, name)) == "running"]
    return (running or names)[0]


def extracted(engine: Engine, spec: Spec, program: ProgramSpec) -> Path:
    """The path on this machine of a client out of a node image; it is kept for the next call."""
    ref = spec.images[program.image].ref if program.image in spec.images else ""
    place = folder(engine, spec) / program.name
    if place.exists():
        return place
    _remove_old(engine)
    name = f"minicluster-client-{os.urandom(6).hex()}"
    about = {labels.BUILD: "part/client"}
    try:
        engine.create_job(Job(name, ref, ("/",), {}, {}, (), about))  # created, and never started
        # An image, or a part from another source, may have it in the other of the two folders.
        places = dict.fromkeys((program.path, f"/usr/local/bin/{program.name}", f"/usr/bin/{program.name}"))
        stats = (engine.stat_path(name, path) for path in places)
        stat = next((stat for stat in stats if stat and stat.kind == "file"), None)
        if stat is None:
            raise MiniclusterError(
                f"image {ref} has no {program.path}",
                f"minicluster {program.name} runs the client of the cluster's nodes.",
                f"Install {program.name} on this machine, and run it with `minicluster env {spec.cluster}`.",
            )
        content = engine.get_file(name, stat.path)
    finally:
        engine.remove_container(name)
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = place.with_name(f"{place.name}.{os.getpid()}")
        new.write_bytes(content)
        new.chmod(0o755)
        new.replace(place)
    except OSError as error:
        raise MiniclusterError(
            f"cannot write {place}",
            str(error.strerror),
            "Free disk space, make the folder writable, or set XDG_CACHE_HOME to another one.",
        ) from None
    return place


def folder(engine: Engine, spec: Spec) -> Path:
    """Where the clients of a cluster's node image are kept on this machine: by its ID, since its name may move."""
    refs = sorted({spec.images[p.image].ref for p in spec.programs.values() if p.image in spec.images})
    ref = refs[0] if refs else "none"
    image = engine.image(ref)
    return _of_engine(engine) / _name(image.id if image else ref)


def _of_engine(engine: Engine) -> Path:
    return paths.cache_home() / "clients" / hashlib.sha256(engine.endpoint.encode()).hexdigest()[:8]


def _name(identity: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "-", identity.removeprefix("sha256:"))[:64]


def _remove_old(engine: Engine) -> None:
    """Removes the clients of images that the engine no longer has."""
    kept = {_name(image.id) for image in engine.images()}
    with contextlib.suppress(OSError):
        for one in _of_engine(engine).iterdir():
            if one.name not in kept:
                shutil.rmtree(one, ignore_errors=True)


def path(engine: Engine, spec: Spec) -> dict[str, str]:
    """``PATH`` with the folder of the cluster's clients in front; {} where it is right as it is."""
    before, own = os.environ.get("PATH", ""), _own_path()
    if lacking := needed(spec):
        for program in lacking:
            with contextlib.suppress(MiniclusterError):  # an image of the user's own may have none
                extracted(engine, spec, program)
        own = os.pathsep.join([str(folder(engine, spec)), *([own] if own else [])])
    return {"PATH": own} if own != before else {}


def former_path() -> dict[str, str]:
    """``PATH`` without the clients of any cluster; {} where it has none."""
    return {"PATH": own} if (own := _own_path()) != os.environ.get("PATH", "") else {}


def _own_path() -> str:
    """``PATH`` without what an earlier call put there, maybe for another cluster."""
    ours = paths.cache_home() / "clients"
    before = os.environ.get("PATH", "").split(os.pathsep)
    return os.pathsep.join(part for part in before if ours not in Path(part).parents)


def needed(spec: Spec) -> list[ProgramSpec]:
    """The clients that this machine lacks, or has in a version that does not fit the cluster's."""
    return [program for program in spec.programs.values() if not program.on and not _fits(program)]


def _fits(program: ProgramSpec) -> bool:
    found = shutil.which(program.name, path=_own_path())
    if found is None:
        return False
    if not program.version_argv or not (wanted := _NUMBER.search(program.version)):
        return True
    is_ = _NUMBER.search(_said(found, program))
    if is_ is None:
        return True  # it does not say
    return is_[1] == wanted[1] and abs(int(is_[2]) - int(wanted[2])) <= program.minors


def _said(path: str, program: ProgramSpec) -> str:
    """What a client of this machine says of its version; kept, since asking takes longer than all else."""
    with contextlib.suppress(OSError):
        stat = os.stat(path)
        key = f"{os.path.realpath(path)} {stat.st_mtime_ns} {stat.st_size}"
        kept = paths.cache_home() / "clients" / "versions.json"
        known: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(kept.read_text())
        if key not in known:
            known[key] = ""  # what says nothing in time is not asked again, either
            with contextlib.suppress(subprocess.TimeoutExpired):
                line = [path, *program.version_argv]
                asked = subprocess.run(line, capture_output=True, timeout=_ASK_PATIENCE, check=False)
                known[key] = asked.stdout.decode(errors="replace")
            kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            kept.write_text(json.dumps(known))
        return known[key]
    return ""
