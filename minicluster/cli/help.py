"""Commands and groups with this program's help layout, and ``-v`` on each of them."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from typing import Any

import click

from minicluster.cli import project_file, verbose
from minicluster.cli.output import paint


class _Formatter(click.HelpFormatter):
    def write_heading(self, heading: str) -> None:
        super().write_heading(paint(heading, "bold", stream=sys.stdout))


class _Context(click.Context):
    formatter_class = _Formatter


def _write(formatter: click.HelpFormatter, title: str, rows: list[tuple[str, str]]) -> None:
    if rows:
        with formatter.section(title):
            formatter.write_dl(rows)


def _write_options(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    records = [p.get_help_record(ctx) for p in command.get_params(ctx) if isinstance(p, click.Option)]
    _write(formatter, "Options", [(names, text.removesuffix(".")) for names, text in filter(None, records)])


class Command(click.Command):
    """A command; its help lists the arguments before the options."""

    context_class = _Context

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params += [project_file.option(self), verbose.OPTION]

    def format_arguments(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the arguments: ``NODE...`` where the usage line has ``[NODE...]``."""
        arguments = [p for p in self.get_params(ctx) if isinstance(p, click.Argument)]
        _write(formatter, "Arguments", [(p.make_metavar(ctx).strip("[]"), p.help or "") for p in arguments])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the options."""
        _write_options(self, ctx, formatter)


class Group(click.Group):
    """A group of commands; its help lists them in sections, before the options."""

    context_class = _Context
    command_class = Command

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params += [project_file.option(self), verbose.OPTION]

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of their definition; click sorts them."""
        return list(self.commands)

    def sections(self, ctx: click.Context) -> dict[str, list[str]]:
        """Heading -> names of the commands under it."""
        return {"Commands": self.list_commands(ctx)}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the commands, section by section, and the options."""
        width = max(map(len, self.list_commands(ctx)), default=0)
        for title, names in self.sections(ctx).items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            # Of any length: what does not fit into a line is wrapped and not cut off.
            rows = [(n.ljust(width), c.get_short_help_str(sys.maxsize).removesuffix(".")) for n, c in commands if c]
            _write(formatter, title, rows)
        _write_options(self, ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest name as a hint."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            name = error.command_name
            hints = get_close_matches(name, self.list_commands(ctx), n=1)
            raise click.exceptions.NoSuchCommand(name, possibilities=hints, ctx=ctx) from None
