"""Commands and groups of them that packages add by entry points: each is loaded when somebody asks for it.

An entry point of the group ``minicluster.commands`` names a :class:`typer.Typer` (without a callback); one with a
single command is that command, as with Typer itself. Ours are in pyproject.toml. They are read from
``entry_points.txt`` of what is installed, whose form the Python packaging specification settles:
``importlib.metadata`` does the same, and its import takes a sixth of the time of ``--help``.
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

from minicluster.cli.help import Command, Group
from minicluster.errors import MiniclusterError

GROUP = "minicluster.commands"
SECTION = "Of one system alone"


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


class _Single(Command):
    """The command of an entry point. Its options are made when it is asked for, as above."""

    def __init__(self, name: str, app: typer.Typer) -> None:
        (only,) = app.registered_commands
        about = app.info.help if isinstance(app.info.help, str) else only.help or getattr(only.callback, "__doc__", "")
        super().__init__(name=name, help=about, rich_markup_mode=None, rich_help_panel=SECTION)
        self._app = app

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return typer.main.get_command(self._app).make_context(info_name, args, parent, **extra)


def _is_single(app: typer.Typer) -> bool:
    return len(app.registered_commands) == 1 and not (app.registered_groups or app.registered_callback)


@cache
def load(name: str) -> Command | Group:
    """The command or group of that name.

    Raises:
        MiniclusterError: its package cannot be loaded.
    """
    import importlib

    module, _, attribute = found()[name].partition(":")
    try:
        app = getattr(importlib.import_module(module), attribute)
        return _Single(name, app) if _is_single(app) else _Added(name, app)
    except Exception as error:  # whatever a package of others may raise
        raise MiniclusterError(
            f"the commands of 'minicluster {name}' cannot be loaded",
            f"{module}: {type(error).__name__}: {error}",
            "Install the package that brings them anew, or remove it.",
        ) from error


def names() -> list[str]:
    """Names of the commands and groups that can be loaded: one of others that is broken must not take the help away."""
    good = []
    for name in found():
        with contextlib.suppress(MiniclusterError):
            load(name)
            good.append(name)
    return good
