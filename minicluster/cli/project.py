"""``config`` and ``init``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from minicluster.cli.help import Command
from minicluster.cli.options import Output, optional_profile_argument, output_option, quiet_option
from minicluster.cli.output import paint, print_json
from minicluster.errors import UsageError


@click.command(cls=Command)
@click.option("--schema", is_flag=True, help="Print the JSON Schema of the file, for editors")
@output_option
@quiet_option
def config(schema: bool, output: Output, quiet: bool) -> None:
    """Check the project file and print it with all values filled in.

    Variables that are secrets by their names, such as API_TOKEN, stay as they are written.
    """
    from minicluster import discovery, projects
    from minicluster.project import config as it, find

    if schema:
        print_json(it.json_schema())
        return
    project = discovery.project()
    if project is None:
        raise UsageError(f"no {find.NAME} here", "Nor in a folder above.", "`minicluster init` writes one.")
    for name in project.clusters:
        projects.check(project, name)
    for note in () if quiet else project.notes:
        print(f"Note: {note}", file=sys.stderr)
    if output is Output.json:
        print_json(it.resolved(project))
    elif not quiet:
        print(it.yaml_text(project), end="")


@click.command(cls=Command)
@optional_profile_argument("Profile name or folder (default: swarm)")
@click.option("--name", metavar="NAME", help="Cluster name (default: from the folder's name)")
def init(profile: str | None, name: str | None) -> None:
    """Write a minicluster.yaml for a profile."""
    from minicluster.operations.up import DEFAULT_PROFILE
    from minicluster.project import scaffold

    path = scaffold.create(profile or DEFAULT_PROFILE, name, Path())
    print(f"Created {path}.")
    print(f"Next: {paint('minicluster up', 'cyan')}")
