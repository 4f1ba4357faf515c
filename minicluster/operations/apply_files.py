"""Applies files to a cluster by its own client, as its profile says: ``kubectl apply``, ``etcdctl put``, …"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import os
import secrets
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minicluster.errors import Interrupted, MiniclusterError, NodeFailed, NotReady, UsageError
from minicluster.model.deferred import fill
from minicluster.model.events import Event, Listener
from minicluster.model.naming import container_name, count
from minicluster.operations import clients

if TYPE_CHECKING:
    from minicluster.engine.protocol import Cancel, Engine
    from minicluster.model.spec import ApplySpec, Spec

_PAUSE = 0.1  # seconds between two looks at whether to stop


@dataclass(frozen=True)
class Call:
    """One run of a program: for a file, or for a folder as a whole."""

    how: ApplySpec
    path: Path
    key: str  #: the path within the folder that is applied, with slashes


def calls(spec: Spec, path: Path) -> list[Call]:
    """What applying a file or folder comes to, in the order of names. Hidden files are left out.

    Raises:
        UsageError: it does not exist, or the profile does not say how files like it are applied.
    """
    if not spec.apply:
        why = f"Profile {spec.profile} does not say how files are applied."
        raise UsageError(f"cannot apply {path}", why, "See docs/project.md for the profiles that do.")
    with _readable(path):
        found = _found(spec, path)
    if not found:
        patterns = dict.fromkeys(pattern for one in spec.apply for pattern in one.files)
        what = f"nothing to apply in {path}" if path.is_dir() else f"cannot apply {path}"
        raise UsageError(what, f"Profile {spec.profile} applies {', '.join(patterns)}.", "Name other files.")
    return found


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"cannot read {error.filename or path}"
        raise UsageError(what, f"{error.strerror}.", "Make it readable.") from None


def _found(spec: Spec, path: Path) -> list[Call]:
    if not path.exists():
        raise UsageError(f"no such file or folder: {path}", "", "Check `apply` in the project file.")
    if path.is_dir():
        names = sorted(one.name for one in path.iterdir() if one.is_file())
        for one in spec.apply:
            if one.whole and any(_matches(one, name) for name in names):
                return [Call(one, path, path.name)]
        return [
            Call(how, file, file.relative_to(path).as_posix())
            for file in _files(path, strict=True)
            if (how := _how(spec, file.name)) and not how.whole
        ]
    return [Call(how, path, path.name)] if (how := _how(spec, path.name)) else []


def fingerprint(paths: Sequence[str]) -> str:
    """Changes with the content of files and folders; a missing one has none."""
    digest = hashlib.sha256()
    for path in map(Path, paths):
        for file in [path] if os.path.isfile(path) else _files(path):
            with contextlib.suppress(OSError):
                digest.update(f"{file}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest() if paths else ""


def _files(folder: Path, *, strict: bool = False) -> Iterator[Path]:
    """The files of a folder and those in it. ``strict``: raises ``OSError`` for a folder that cannot be read."""

    def failed(error: OSError) -> None:
        if strict:
            raise error

    for inner, folders, names in os.walk(folder, onerror=failed):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(inner, name) for name in sorted(names) if not name.startswith("."))


def _how(spec: Spec, name: str) -> ApplySpec | None:
    return next((how for how in spec.apply if _matches(how, name)), None)


def _matches(how: ApplySpec, name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in how.files)


def apply(
    engine: Engine,
    spec: Spec,
    paths: Sequence[str],
    env: Mapping[str, str],
    *,
    timeout: float,
    listener: Listener,
    cancel: Cancel,
) -> None:
    """Applies files and folders, one after the other.

    Args:
        env: the cluster's variables for its clients.
        timeout: seconds for each of them.

    Raises:
        UsageError: as :func:`calls` does.
        MiniclusterError: a program failed; the rest was not applied.
        NotReady: one took too long.
    """
    for path in paths:
        todo = calls(spec, Path(path))
        end = time.monotonic() + timeout
        said = [_carry_out(engine, spec, call, env, end, cancel) for call in todo]
        lines = said[0].split("\n") if len(said) == 1 and said[0] else [count(len(said), "file")]
        listener(Event("note", text="\n".join(f"applied {_shown(path)}: {line}" for line in lines)))


def _shown(path: str | Path) -> str:
    """A path for people: relative where that is below the current folder."""
    with contextlib.suppress(ValueError, OSError):
        return str(Path(path).relative_to(Path.cwd()))
    return str(path)


def _carry_out(engine: Engine, spec: Spec, call: Call, env: Mapping[str, str], end: float, cancel: Cancel) -> str:
    """Runs the program; returns what it printed."""
    path, folder = call.path, call.path if call.path.is_dir() else call.path.parent
    values = {
        "path": str(path),
        "name": path.name.partition(".")[0] or path.name,
        "folder": str(folder),
        "folder_name": folder.name,
        "key": call.key,
    }
    work = _Work(engine, spec, call, values, end, cancel)
    status, out, err = _in_node(work) if spec.programs[call.how.program].on else _here(work, env)
    if status:
        raise MiniclusterError(
            f"{_shown(path)} could not be applied",
            f"{call.how.program} ended with status {status}: {(err or out).strip()[-2000:]}",
            f"Cluster {spec.cluster} is up. Correct the file, and run `minicluster up` again.",
        )
    return out.strip()


def _arguments(call: Call, values: Mapping[str, str]) -> list[str]:
    return fill(call.how.run, {f"applied.{name}": value for name, value in values.items()})


@dataclass(frozen=True)
class _Work:
    """A program that is run."""

    engine: Engine
    spec: Spec
    call: Call
    values: Mapping[str, str]  #: by which its arguments are filled
    end: float  #: by the monotonic clock
    cancel: Cancel


def _here(work: _Work, env: Mapping[str, str]) -> tuple[int, str, str]:
    """Runs a program of the node image on this machine: its exit status and what it wrote."""
    call, cancel = work.call, work.cancel
    arguments = _arguments(call, work.values)
    line, more = clients.command(work.engine, work.spec, call.how.program, arguments, env, tty=False)
    with _readable(call.path):
        source = call.path.open("rb") if call.how.stdin else open(os.devnull, "rb")  # noqa: SIM115
    try:
        with (
            source,
            subprocess.Popen(
                line,
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, **more},
                cwd=call.path if call.path.is_dir() else call.path.parent,
            ) as process,
        ):
            while True:
                try:
                    out, err = process.communicate(timeout=_PAUSE)
                    return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")
                except subprocess.TimeoutExpired:
                    if cancel.is_set() or time.monotonic() > work.end:
                        process.kill()
                        _stopped(call, cancel)
                except BaseException:
                    process.kill()
                    raise
    except OSError as error:
        fix = f"Install {call.how.program} on this machine."
        raise MiniclusterError(f"cannot run {line[0]}", f"{error.strerror}.", fix) from None


def _in_node(work: _Work) -> tuple[int, str, str]:
    """Runs a program in a node, with a copy of the file there: its exit status and what it wrote."""
    from minicluster.engine.protocol import File

    engine, spec, call, cancel = work.engine, work.spec, work.call, work.cancel
    program = spec.programs[call.how.program]
    container = container_name(spec.cluster, clients.running(engine, spec, program.on))
    copy = f"/var/tmp/minicluster-apply-{secrets.token_hex(6)}"
    try:
        with _readable(call.path):
            content = call.path.read_bytes()
        engine.put_files(container, [File(copy, content, 0o600)])
        argv = [program.path, *_arguments(call, {**work.values, "path": copy})]
        result = engine.exec(container, argv, timeout=max(1.0, work.end - time.monotonic()), cancel=cancel)
    except TimeoutError:
        _stopped(call, cancel)
        raise
    finally:
        with contextlib.suppress(NodeFailed, TimeoutError):  # the node has gone, and the copy with it
            engine.exec(container, ["rm", "-f", copy], timeout=10.0)
    return result.exit_code, result.stdout, result.stderr


def _stopped(call: Call, cancel: Cancel) -> None:
    if cancel.is_set():
        raise Interrupted("interrupted")
    fix = "Give it longer with --timeout, or correct the file."
    raise NotReady(f"{_shown(call.path)} was not applied in time", f"{call.how.program} still ran.", fix)
