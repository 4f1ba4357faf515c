"""``-f FILE``: the project file, before or after the name of every command."""

from __future__ import annotations

import os

import click

from minicluster.project import find


def _use(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if not value or ctx.resilient_parsing:
        return
    before = os.environ.get(find.VARIABLE)
    # What runs below reads the variable, too: a client of the system's own, or a plugin.
    os.environ[find.VARIABLE] = value if value == find.NONE else os.path.abspath(value)

    def restore() -> None:
        if before is None:
            os.environ.pop(find.VARIABLE, None)
        else:
            os.environ[find.VARIABLE] = before

    ctx.call_on_close(restore)


def option(command: click.Command) -> click.Option:
    """The option for a command. Help lists it where it is about clusters; some have a ``-f`` of their own."""
    about = {name for param in command.params for name in param.opts}
    free = [name for name in ("-f", "--file") if name not in about]
    root = isinstance(command, click.Group) and command.name == "app"
    return click.Option(
        ["project_file", *(free or ["--project-file"])],
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        callback=_use,
        hidden=not (root or "--cluster" in about or command.name in ("config", "init")),
        help=f"Project file (default: ${find.VARIABLE}, else the nearest {find.NAME}); '{find.NONE}': none",
    )
