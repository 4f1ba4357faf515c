"""Commands and groups that packages add by entry points. Each is imported when it is needed.

An entry point of the group ``minicluster.commands`` names a :class:`click.Command` or :class:`click.Group`. Those of
this package are in pyproject.toml. They are read from the ``entry_points.txt`` of installed packages, a format of the
Python packaging specification: ``importlib.metadata`` does the same, but its import takes a sixth of the time of
``--help``.
"""

from __future__ import annotations

import contextlib
import glob
import os
import sys
from functools import cache

import click

from minicluster.errors import MiniclusterError

GROUP = "minicluster.commands"
SECTION = "System-specific"


@cache
def found() -> dict[str, str]:
    """Names of commands and groups, each with its MODULE:ATTRIBUTE. The first on the path wins, as with modules."""
    places: dict[str, str] = {}
    for folder in sys.path:
        for path in sorted(glob.glob(os.path.join(glob.escape(folder or "."), "*-info", "entry_points.txt"))):
            try:
                with open(path, encoding="utf-8") as file:
                    text = file.read()
            except (OSError, UnicodeDecodeError):
                continue
            section = f"\n{text}".partition(f"\n[{GROUP}]")[2].partition("\n[")[0]
            for line in section.splitlines():
                name, equals, place = (part.strip() for part in line.partition("="))
                if equals and not name.startswith("#"):
                    places.setdefault(name, place)
    return places


@cache
def load(name: str) -> click.Command:
    """The command or group of that name.

    Raises:
        MiniclusterError: it is another package's, and cannot be loaded.
    """
    import importlib

    module, _, attribute = found()[name].partition(":")
    try:
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{attribute} is not a click command")
        return command
    except Exception as error:  # another package may raise anything
        if module.startswith("minicluster."):
            raise  # a bug of this package
        raise MiniclusterError(
            f"cannot load the commands of 'minicluster {name}'",
            f"{module}: {type(error).__name__}: {error}",
            "Reinstall or remove the package that adds them.",
        ) from error


def names() -> list[str]:
    """Names of the commands and groups that can be loaded: a broken package must not break --help."""
    good = []
    for name in found():
        with contextlib.suppress(MiniclusterError):
            load(name)
            good.append(name)
    return good
