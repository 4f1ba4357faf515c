"""Commands and groups of them, with plain help: metavars as the documentation writes them, commands in sections."""

from __future__ import annotations

import sys
from typing import Any

from typer.core import TyperCommand, TyperGroup

from minicluster.cli.output import paint
from minicluster.cli.values import read_by_hand


def _rows(params: list[Any], kind: str) -> list[tuple[str, str]]:
    rows = []
    for param in params:
        if param.param_type_name != kind or getattr(param, "hidden", False):
            continue
        if kind == "argument":
            name = param.metavar or param.name.upper()
            name = name[1:-1] if name.startswith("[") else name
        else:
            name = ", ".join(sorted(param.opts, key=len))
            if not getattr(param, "is_flag", False):
                name += f" {param.metavar or param.name.upper()}"
        rows.append((name, getattr(param, "help", "") or ""))
    return rows


def _write(formatter: Any, title: str, rows: list[tuple[str, str]]) -> None:
    if rows:
        with formatter.section(paint(title, "bold", stream=sys.stdout)):
            formatter.write_dl(rows)


class Command(TyperCommand):
    """A command whose help shows ``--size ROLE=N``, where typer's own would show ``--size <list[str]>``."""

    def get_params(self, ctx: Any) -> list[Any]:
        return read_by_hand(super().get_params(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        arguments = [p for p in self.get_params(ctx) if p.param_type_name == "argument"]
        return ["[OPTIONS]", *(str(getattr(p, "metavar", None) or p.name) for p in arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        params = self.get_params(ctx)
        _write(formatter, "Arguments", _rows(params, "argument"))
        _write(formatter, "Options", _rows(params, "option"))


class Group(TyperGroup):
    """A group whose help lists its commands by the section that they are in."""

    def get_params(self, ctx: Any) -> list[Any]:
        return read_by_hand(super().get_params(ctx))

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, Any]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                section = getattr(command, "rich_help_panel", None)
                sections.setdefault(section if isinstance(section, str) else "Commands", []).append((name, command))
        width = max(len(name) for commands in sections.values() for name, _ in commands)
        for section, commands in sections.items():
            limit = formatter.width - width - 6
            commands.sort(key=lambda item: not isinstance(item[1], Group))
            _write(formatter, section, [(name.ljust(width), c.get_short_help_str(limit)) for name, c in commands])
        _write(formatter, "Options", _rows(self.get_params(ctx), "option"))
