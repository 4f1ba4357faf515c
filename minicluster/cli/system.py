"""``doctor``, ``completion`` and ``version``."""

from __future__ import annotations

import platform
import sys

import click

from minicluster import __version__
from minicluster.cli import complete
from minicluster.cli.help import Command
from minicluster.cli.options import Output, optional_profile_argument, output_option
from minicluster.cli.output import print_checks, print_json
from minicluster.errors import UsageError


@click.command(cls=Command)
@optional_profile_argument("Also check the requirements of this profile")
@output_option
def doctor(profile: str | None, output: Output) -> None:
    """Check this machine and its container engine.

    The exit status is 1 if a check is an error.
    """
    from minicluster import cluster as facade
    from minicluster.operations.up import DEFAULT_PROFILE

    checks = facade.examine(profile or DEFAULT_PROFILE)
    if output is Output.json:
        print_json(checks)
    else:
        print_checks(checks)
    if any(check.level == "error" for check in checks):
        raise click.exceptions.Exit(1)


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), metavar="bash|zsh|fish", help="Shell")
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a shell completion script.

    For bash: source <(minicluster completion bash). It also completes the names of clusters, nodes, profiles and roles.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind
    found = kind(ctx.find_root().command, {}, "minicluster", "_MINICLUSTER_COMPLETE")
    script = found.source_template % found.source_vars()
    if shell == "bash":
        # A number follows "--size agent=", not the blank that bash appends to a word.
        script = script.replace(
            "    return 0\n", '    [[ "${COMPREPLY[0]}" == *= ]] && compopt -o nospace\n    return 0\n'
        )
    sys.stdout.write(script)


@click.command("help", cls=Command)
@click.argument(
    "words",
    nargs=-1,
    metavar="[COMMAND...]",
    help="A command, such as 'up' or 'image list'",
    shell_complete=complete.words,
)
@click.pass_context
def help_(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Print the help of a command."""
    at = ctx.find_root()
    rest = list(words)
    while rest and isinstance(at.command, click.Group):
        name, command, rest = at.command.resolve_command(at, rest)
        if command:
            at = command.context_class(command, parent=at, info_name=name)
    if rest:
        raise UsageError(f"'{at.command_path}' has no command {rest[0]!r}", "", f"`{at.command_path} --help`")
    print(at.get_help())


@click.command(cls=Command)
@output_option
def version(output: Output) -> None:
    """Print the version."""
    if output is Output.json:
        print_json({"minicluster": __version__, "python": platform.python_version(), "platform": sys.platform})
    else:
        print(f"minicluster {__version__}")
