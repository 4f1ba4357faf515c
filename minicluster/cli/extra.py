"""Groups of commands that packages add by entry points: each is loaded when somebody asks for it.

An entry point of the group ``minicluster.commands`` names a :class:`typer.Typer` (without a callback); ours are in
pyproject.toml. They are read from ``entry_points.txt`` of what is installed, whose form the Python packaging
specification settles: ``importlib.metadata`` does the same, and its import takes a sixth of the time of ``--help``.
"""

from __future__ import annotations

import contextlib
import glob
import os
import sys
from functools import cache, cached_property
from typing import Any

import typer
import typer.main

from minicluster.cli.help import Group
from minicluster.errors import MiniclusterError

GROUP = "minicluster.commands"
SECTION = "Of one system alone"


@cache
def found() -> dict[str, str]:
    """Names of groups, and where each is: MODULE:ATTRIBUTE. The first on the path wins, as with modules."""
    groups: dict[str, str] = {}
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
                    groups.setdefault(name, place)
    return groups


class _Added(Group):
    """A group of an entry point. Its commands are made when they are asked for: a list needs its help alone."""

    def __init__(self, name: str, app: typer.Typer) -> None:
        super().__init__(
            name=name, help=app.info.help, no_args_is_help=True, rich_markup_mode=None, rich_help_panel=SECTION
        )
        self._app = app

    @cached_property
    def _made(self) -> Any:
        return typer.main.get_command(self._app)

    def list_commands(self, ctx: Any) -> list[str]:
        names: list[str] = self._made.list_commands(ctx)
        return names

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return self._made.get_command(ctx, cmd_name)


@cache
def load(name: str) -> Group:
    """The command group of that name.

    Raises:
        MiniclusterError: its package cannot be loaded.
    """
    import importlib

    module, _, attribute = found()[name].partition(":")
    try:
        return _Added(name, getattr(importlib.import_module(module), attribute))
    except Exception as error:  # whatever a package of others may raise
        raise MiniclusterError(
            f"the commands of 'minicluster {name}' cannot be loaded",
            f"{module}: {type(error).__name__}: {error}",
            "Install the package that brings them anew, or remove it.",
        ) from error


def names() -> list[str]:
    """Names of the groups that can be loaded: one of others that is broken must not take the help away."""
    good = []
    for name in found():
        with contextlib.suppress(MiniclusterError):
            load(name)
            good.append(name)
    return good
