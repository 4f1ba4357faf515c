"""Puts the commands together."""

from __future__ import annotations

import copy as copying
import io
import os
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from minicluster import __version__
from minicluster.cli import copy, engine, images, lifecycle, nodes, profiles, show, system, verbs, watch
from minicluster.cli.failures import Guarded
from minicluster.cli.help import Command, Group

PROGRAM = "minicluster"

CLUSTERS, NODES, MORE = "Clusters", "Nodes", "Profiles, images, engine"

EPILOG = "Begin with 'minicluster up', then 'minicluster info'. More on a command: 'minicluster COMMAND --help'."

# Plain help rather than rich's boxes: half the CPU time, and it reads the same in a pipe, a pager and a README.
app = typer.Typer(
    name=PROGRAM,
    cls=Guarded,
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EPILOG,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit()


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """A whole cluster on one machine: real software in nested containers, up in seconds, gone without a trace."""


def _command(section: str, name: str, function: Callable[..., None], **settings: Any) -> None:
    app.command(name, cls=Command, rich_help_panel=section, **settings)(function)


def _group(name: str, summary: str, commands: Mapping[str, Callable[..., None]]) -> None:
    group = typer.Typer(cls=Group, rich_markup_mode=None, no_args_is_help=True)
    for command, function in commands.items():
        group.command(command, cls=Command)(function)
    app.add_typer(group, name=name, help=summary, rich_help_panel=MORE)


_command(CLUSTERS, "up", lifecycle.up)
_command(CLUSTERS, "down", lifecycle.down)
_command(CLUSTERS, "gc", lifecycle.gc)
_command(CLUSTERS, "scale", verbs.scale)
_command(CLUSTERS, "reset", verbs.reset)
_command(CLUSTERS, "ls", show.ls)
_command(CLUSTERS, "status", show.status)
_command(CLUSTERS, "info", show.info)
_command(CLUSTERS, "env", show.env)

# What follows NODE belongs to the command that is run there, even where it looks like an option of ours.
_VERBATIM = {"allow_interspersed_args": False, "ignore_unknown_options": True}
_command(NODES, "stop", verbs.stop)
_command(NODES, "start", verbs.start)
_command(NODES, "restart", verbs.restart)
_command(NODES, "pause", verbs.pause)
_command(NODES, "unpause", verbs.unpause)
_command(NODES, "kill", verbs.kill)
_command(NODES, "logs", nodes.logs)
_command(NODES, "exec", nodes.exec_, context_settings=_VERBATIM)
_command(NODES, "shell", nodes.shell)
_command(NODES, "load", nodes.load)
_command(NODES, "cp", copy.cp)
_command(NODES, "top", watch.top)
_command(NODES, "events", watch.events)

_group(
    "profile",
    "List, check, create and test profiles: the kinds of cluster.",
    {
        "list": profiles.list_,
        "show": profiles.show,
        "validate": profiles.validate,
        "new": profiles.new,
        "test": profiles.check,
        "schema": profiles.schema,
    },
)
_group(
    "image",
    "Build, import, list and remove node images.",
    {"build": images.build, "import": images.import_, "list": images.list_, "remove": images.remove},
)
_group(
    "engine",
    "The private container engine, and which engine is in use.",
    {"start": engine.start, "stop": engine.stop, "status": engine.status},
)
_command(MORE, "doctor", system.doctor)
_command(MORE, "completion", system.completion)
_command(MORE, "version", system.version)


def _narrowed(word: str) -> typer.Typer:
    """The application with no command but the one of that name, if there is one: typer makes all that it is given."""
    narrowed = copying.copy(app)
    narrowed.registered_commands = [info for info in app.registered_commands if info.name == word]
    narrowed.registered_groups = [info for info in app.registered_groups if info.name == word]
    return narrowed if narrowed.registered_commands or narrowed.registered_groups else app


def run() -> None:
    """Carries out the command in ``sys.argv``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ✓ gets a question mark, not a traceback
    if f"_{PROGRAM.upper()}_COMPLETE" in os.environ:
        # typer registers its shells only along with --install-completion, which `completion` stands in for.
        from typer._completion_classes import completion_init

        completion_init()
    typer.main.get_command(_narrowed("".join(sys.argv[1:2])))(prog_name=PROGRAM)
