"""The root command and the table of all commands."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import click

from minicluster import __version__
from minicluster.cli import plugins
from minicluster.cli.failures import reported
from minicluster.cli.help import Group

PROGRAM = "minicluster"
COMPLETING = "_MINICLUSTER_COMPLETE"  #: the variable by which a shell asks for candidates

#: Section of --help -> command -> its MODULE:ATTRIBUTE in this package, imported when it is needed.
COMMANDS = {
    "Clusters": {
        "up": "up_down:up",
        "down": "up_down:down",
        "gc": "up_down:gc",
        "scale": "lifecycle:scale",
        "reset": "lifecycle:reset",
        "ls": "show:ls",
        "status": "show:status",
        "wait": "wait:wait",
        "config": "project:config",
        "init": "project:init",
        "info": "show:info",
        "env": "show:env",
    },
    "Nodes": {
        "stop": "lifecycle:stop",
        "start": "lifecycle:start",
        "restart": "lifecycle:restart",
        "pause": "lifecycle:pause",
        "unpause": "lifecycle:unpause",
        "kill": "lifecycle:kill",
        "logs": "nodes:logs",
        "exec": "nodes:exec_",
        "shell": "nodes:shell",
        "load": "load:load",
        "cp": "copy:cp",
        "top": "watch:top",
        "events": "watch:events",
        "dashboard": "dashboard:dashboard",
    },
    "Faults": {
        "fault": "faults:fault",
        "heal": "faults:heal",
        "chaos": "faults:chaos",
    },
    "Showing": {
        "demo": "demo:demo",
        "workshop": "workshop:workshop",
        "bench": "bench:bench",
    },
    "Profiles, images, engine": {
        "profile": "profiles:profile",
        "image": "images:image",
        "registry": "registry:registry",
        "engine": "engine:engine",
        "hosts": "hosts:hosts",
        "doctor": "system:doctor",
        "completion": "system:completion",
        "help": "system:help_",
        "version": "system:version",
    },
}
#: What users of other tools type -> the command that does it. Help does not list them.
ALIASES = {"create": "up", "delete": "down", "list": "ls", "ps": "status"}
_PLACES = {name: place for commands in COMMANDS.values() for name, place in commands.items()}


class Root(Group):
    """The commands of the table, then those of plugins. Every error ends here."""

    def sections(self, ctx: click.Context) -> dict[str, list[str]]:
        """Heading -> names of the commands under it."""
        added = [name for name in plugins.names() if name not in _PLACES]
        return {**{title: list(commands) for title, commands in COMMANDS.items()}, plugins.SECTION: added}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return [name for names in self.sections(ctx).values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command's module. A plugin cannot replace a command of the table, but an alias."""
        if cmd_name in ALIASES and cmd_name not in plugins.found():
            cmd_name = ALIASES[cmd_name]
        if cmd_name in _PLACES:
            import importlib

            module, _, attribute = _PLACES[cmd_name].partition(":")
            command: click.Command = getattr(importlib.import_module(f"minicluster.cli.{module}"), attribute)
            return command
        return plugins.load(cmd_name) if cmd_name in plugins.found() else None

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; reports whatever it raises."""
        with reported():
            return super().invoke(ctx)


@click.group(
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with 'minicluster up', then 'minicluster info'. Help for a command: 'minicluster help COMMAND'.",
)
@click.version_option(__version__, message=f"{PROGRAM} %(version)s", help="Print the version and exit")
def app() -> None:
    """Run a whole cluster on one machine: real software in nested containers, up in seconds."""


def run() -> None:
    """Runs the command in ``sys.argv``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ✓ gets a question mark, not a traceback
    if COMPLETING in os.environ:
        from minicluster.cli import complete

        complete.prepare()
    app(prog_name=PROGRAM)
