"""A folder for a user of a cluster who has no minicluster: variables, the client's files, and a README."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from minicluster import paths
from minicluster.errors import MiniclusterError, UsageError
from minicluster.model.deferred import marker
from minicluster.operations import client_folder, connect

if TYPE_CHECKING:
    from minicluster import pki
    from minicluster.engine.protocol import Engine
    from minicluster.model.spec import Spec

ENV = "env.sh"
README = "README.txt"
_NEW = re.compile(r"\.(.+)\.[0-9a-f]{12}")  # a file before it is in its place
_HERE = "minicluster_folder"  # the shell's variable for the folder, while env.sh is read


def account(name: str) -> tuple[int, int]:
    """The numbers of a user and of its group on this machine.

    Raises:
        UsageError: there is no such user, or this process cannot give files to it.
    """
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise UsageError(
            f"--owner {name}: no such user", "", "Create the account first, or name one that exists."
        ) from None
    if os.geteuid() not in (0, user.pw_uid):
        raise UsageError(f"--owner {name}: only root can give files to another user", "", "Run this as root.")
    return user.pw_uid, user.pw_gid


def unreachable(folder: Path, owner: str) -> Path | None:
    """A folder on the way to this one that the user cannot enter, if there is one; only what "others" may do counts."""
    uid, gid = account(owner)
    for parent in reversed(folder.absolute().parents):
        with contextlib.suppress(OSError):
            stat = parent.stat()
            bit = 0o100 if stat.st_uid == uid else 0o010 if stat.st_gid == gid else 0o001
            if not stat.st_mode & bit:
                return parent
    return None


def write(
    engine: Engine,
    spec: Spec,
    authority: pki.Authority | None,
    mode: str,
    path: paths.AnyPath,
    owner: str | None,
    *,
    with_parent: bool = False,
) -> tuple[str, ...]:
    """Writes a folder (0700, its files 0600), in place of what an earlier call wrote; returns the files' names.

    The native client's own files are brought up to date first. The folder may be copied to another machine that reaches
    the cluster. Removing the cluster removes these files, and the folder if nothing else is in it.

    Args:
        owner: the user of this machine that gets it.
        with_parent: the folder that it is in is removed with it, if it is empty.

    Raises:
        UsageError: there is no such owner.
        MiniclusterError: it cannot be written.
    """
    client_folder.write_files(engine, spec, authority, mode)
    ids = account(owner) if owner else None
    env, files = client_folder.portable(engine, spec, authority, mode)
    texts = {ENV: _env(spec, env), README: _readme(engine, spec, authority, mode, sorted(files))}
    content = {**files, **{name: text.encode() for name, text in texts.items()}}
    folder = Path(path).absolute()
    about = {"folder": str(folder), "files": sorted(content), "with_parent": with_parent}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        # The folder may be its owner's by now: nothing in it is followed or opened, only replaced.
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.fchmod(descriptor, 0o700)
            # Before the first file: no key outlives the cluster. Clients may have no files yet.
            paths.client_directory(spec.cluster).mkdir(parents=True, exist_ok=True, mode=0o700)
            client_folder.before_removal(spec.cluster, f"{__name__}:remove", about)
            for name, data in content.items():
                _replace(descriptor, name, data, ids)
            if ids:
                os.fchown(descriptor, *ids)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise MiniclusterError(
            f"cannot write {folder}", error.strerror or str(error), "Name another folder: --folder DIR."
        ) from None
    return tuple(sorted(content))


def _replace(folder: int, name: str, data: bytes, ids: tuple[int, int] | None) -> None:
    """Replaces a file of an open folder."""
    new = f".{name}.{os.urandom(6).hex()}"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if ids:
                os.fchown(descriptor, *ids)
            file.write(data)
        os.replace(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new, dir_fd=folder)
        raise


def remove(_cluster: str, *, folder: str, files: Sequence[str], with_parent: bool) -> None:
    """Removes what :func:`write` wrote; a folder that has something else in it stays."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            for name in os.listdir(descriptor):
                # And what a call that was killed did not get to rename.
                if name in files or ((match := _NEW.fullmatch(name)) and match[1] in files):
                    with contextlib.suppress(OSError):
                        os.unlink(name, dir_fd=descriptor)
        finally:
            os.close(descriptor)
    with contextlib.suppress(OSError):
        os.rmdir(folder)
        if with_parent:
            os.rmdir(os.path.dirname(folder))


def folders(cluster: str) -> list[str]:
    """The folders that were written for a cluster and are still there."""
    noted = client_folder.noted(cluster, "forget")
    mine = [str(data["folder"]) for call, data in noted if call == f"{__name__}:remove"]
    return [folder for folder in dict.fromkeys(mine) if os.path.isdir(folder)]


def _env(spec: Spec, env: Mapping[str, str]) -> str:
    """A file for the shell. The folder may be anywhere: bash and zsh tell the file where it is."""
    here = marker("client.directory")

    def quoted(value: str) -> str:
        parts = [shlex.quote(part) if part else "" for part in value.split(here)]
        return f'"${_HERE}"'.join(parts)

    lines = [
        f"# Variables for clients of {spec.cluster}. bash and zsh: `. PATH/{ENV}`; sh: `cd` to this folder before.",
        f'{_HERE}=$(CDPATH= cd -- "$(dirname -- "${{BASH_SOURCE:-$0}}")" && pwd)',
        *(f"export {name}={quoted(value)}" for name, value in env.items()),
        f"unset {_HERE}",
    ]
    return "\n".join(lines) + "\n"


def _readme(engine: Engine, spec: Spec, authority: pki.Authority | None, mode: str, files: Sequence[str]) -> str:
    found = connect.endpoints(engine, spec, mode, authority)
    programs = sorted(name for name, program in spec.programs.items() if not program.on)
    nodes = ", ".join(f"{len(spec.of_role(role))} {role}" for role in spec.roles)
    lines = [f"{spec.cluster}: {spec.summary}", "", f"Nodes: {nodes}.", "", "Endpoints:"]
    lines += [f"  {e.name} of {e.node}: {e.url}" for e in found]
    lines += ["", "In bash or zsh, in this folder:", f"  . ./{ENV}"]
    if spec.example and not spec.example.startswith("minicluster "):  # which a user of this folder may not have
        lines.append(f"  {spec.example}")
    if programs:
        parts = dict.fromkeys(f"{part.name} {part.version}" for i in spec.images.values() for part in i.parts)
        of = f" The cluster runs {', '.join(parts)}." if parts else ""
        lines += ["", f"Install these clients: {', '.join(programs)}.{of}"]
    open_ = connect.without_login(spec)
    if open_:
        lines += ["", f"Without a login, every client that reaches the endpoints can: {open_}."]
    if files:
        lines += ["", f"Files: {', '.join(files)}.", "Whoever has them can do what you can: keep them to yourself."]
    return "\n".join(lines) + "\n"
