"""The context of a user's image build: a folder as a tar, without what ``.dockerignore`` names, as docker sends it."""

from __future__ import annotations

import io
import os
import re
import secrets
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

from minicluster.errors import UsageError
from minicluster.host import spool
from minicluster.paths import expanded

_IGNORE = ".dockerignore"


@dataclass(frozen=True)
class Pattern:
    """A line of a ``.dockerignore``: https://docs.docker.com/build/concepts/context/#dockerignore-files"""

    text: str  #: a clean path without a leading slash
    kept: bool = False  #: an exception, written with "!"

    @cached_property
    def expression(self) -> re.Pattern[str]:
        return re.compile(_expression(self.text), re.DOTALL)

    def matches(self, path: str) -> bool:
        """Whether a path, or a folder that it is in, is meant."""
        parts = path.split("/")
        return any(self.expression.fullmatch("/".join(parts[: i + 1])) for i in range(len(parts)))


def patterns(text: str) -> list[Pattern]:
    """The patterns of a ``.dockerignore``.

    >>> [p.text for p in patterns("# build\\n/out/\\n*.log\\n!keep.log")]
    ['out', '*.log', 'keep.log']
    """
    found = []
    for raw in text.removeprefix("\ufeff").splitlines():
        line = raw.strip()
        if not line or raw.startswith("#"):
            continue
        kept = line.startswith("!")
        path = os.path.normpath(line.removeprefix("!").strip() or ".").lstrip("/")
        if path not in (".", ""):
            found.append(Pattern(path, kept))
    return found


def ignored(path: str, rules: Sequence[Pattern]) -> bool:
    """Whether a path of the context is left out: the last pattern that matches decides.

    >>> ignored("a/b.log", patterns("**/*.log")), ignored("b.log", patterns("*.log\\n!b.log"))
    (True, False)
    """
    return next((not rule.kept for rule in reversed(rules) if rule.matches(path)), False)


def _expression(pattern: str) -> str:
    """A pattern as a regular expression: Go's filepath.Match, and ``**`` for any number of folders."""
    result, i = "", 0
    while i < len(pattern):
        one = pattern[i]
        if pattern.startswith("**", i):
            i += 2
            if pattern.startswith("/", i):
                i += 1
                result += "(?:.*/)?"
            else:
                result += ".*"
            continue
        if one == "*":
            result += "[^/]*"
        elif one == "?":
            result += "[^/]"
        elif one == "[" and (end := pattern.find("]", i + 2)) > 0:
            inner = pattern[i + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            result += f"[{inner}]"
            i = end
        elif one == "\\" and i + 1 < len(pattern):
            i += 1
            result += re.escape(pattern[i])
        else:
            result += re.escape(one)
        i += 1
    return result


def write(folder: Path, dockerfile: str | None, archive: IO[bytes]) -> str:
    """Writes a folder as the context of a build.

    Args:
        dockerfile: a path from the working directory, as of ``docker build -f``; None: the folder's Dockerfile.

    Returns:
        The name of the Dockerfile in the context.

    Raises:
        UsageError: the folder, the Dockerfile or a file cannot be read.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise UsageError(f"{folder} {what}", "--build takes a folder with a Dockerfile.", "Check the path.")
    source = expanded(dockerfile) if dockerfile else folder / "Dockerfile"
    if dockerfile and not source.is_file() and (folder / dockerfile).is_file():
        source = folder / dockerfile  # as compose reads it
    try:
        text = source.read_bytes()
        rules_file = next(
            (file for file in (source.with_name(f"{source.name}{_IGNORE}"), folder / _IGNORE) if file.is_file()), None
        )
        rules = patterns(rules_file.read_text(encoding="utf-8")) if rules_file else []
        for rule in rules:
            _check(rule, rules_file)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read {getattr(error, 'filename', None) or folder}", f"{why}.", _FIX) from None
    real, root = source.resolve(), folder.resolve()
    inside = real.relative_to(root).as_posix() if root in real.parents else ""
    name = inside or f".dockerfile.{secrets.token_hex(8)}"
    kept = {name, _IGNORE}
    # The engine reads these two and removes them, where this file says so.
    lines = [f"{'!' if rule.kept else ''}{rule.text}" for rule in rules]
    lines += [] if inside else [name]
    try:
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path, relative in _paths(root, rules):
                if relative not in kept:
                    _add(tar, path, relative)
            _put(tar, name, text)
            if lines:
                _put(tar, _IGNORE, "\n".join(lines).encode())
    except OSError as error:
        if error.filename is None:  # of the archive: reading names the file
            fix = f"Free some space in {spool.folder()}, or set TMPDIR to another folder."
            raise UsageError("cannot write the build context", f"{error.strerror}.", fix) from None
        raise UsageError(f"cannot read {error.filename}", f"{error.strerror}.", _FIX) from None
    archive.seek(0)
    return name


_FIX = "Check the path and its permissions, or name it in .dockerignore."


def _check(rule: Pattern, file: Path | None) -> None:
    try:
        rule.expression.fullmatch("")
    except re.error as error:
        what = f"{file}: the pattern {rule.text!r} is not valid"
        raise UsageError(what, f"{error}.", "Correct the pattern, or remove it.") from None


def _paths(root: Path, rules: Sequence[Pattern]) -> Iterator[tuple[str, str]]:
    """What belongs to the context, folders before what is in them."""
    exceptions = any(rule.kept for rule in rules)

    def walk(folder: str, prefix: str) -> Iterator[tuple[str, str]]:
        for entry in sorted(os.scandir(folder), key=lambda found: found.name):
            relative = f"{prefix}{entry.name}"
            out = ignored(relative, rules)
            if not out:
                yield entry.path, relative
            if entry.is_dir(follow_symlinks=False) and (not out or exceptions):
                yield from walk(entry.path, f"{relative}/")

    return walk(str(root), "")


def _add(tar: tarfile.TarFile, path: str, name: str) -> None:
    entry = tar.gettarinfo(path, arcname=name)
    if entry is None:  # a socket
        return
    entry.uid = entry.gid = 0  # as docker sends it: what the user is called here means nothing in an image
    entry.uname = entry.gname = ""
    if entry.isfile():
        with open(path, "rb") as content:
            tar.addfile(entry, content)
    else:
        tar.addfile(entry)


def _put(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))
