"""``doctor``, ``completion`` and ``version``."""

from __future__ import annotations

import platform
import sys
from enum import Enum
from typing import Annotated

import typer

from minicluster import __version__
from minicluster.cli import complete
from minicluster.cli.options import Output, OutputOption
from minicluster.cli.output import paint, print_json

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red")}


def doctor(
    profile: Annotated[
        str | None,
        typer.Argument(
            metavar="[PROFILE]",
            show_default=False,
            help="Check what this profile needs as well.",
            autocompletion=complete.profiles,
        ),
    ] = None,
    output: OutputOption = Output.text,
) -> None:
    """Check this machine and its engine.

    The exit status is 1 where something must be mended.
    """
    from minicluster import cluster as facade

    checks = facade.examine(profile)
    if output is Output.json:
        print_json(checks)
    else:
        for check in checks:
            mark, colour = _MARKS[check.level]
            print(f"{paint(mark, colour)} {check.name}: {check.text}")
            if check.fix and check.level != "ok":
                print("\n".join(f"    {line}" for line in check.fix.splitlines()))
    if any(check.level == "error" for check in checks):
        raise typer.Exit(1)


class CompletedShell(str, Enum):
    """A shell that completes."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def completion(
    shell: Annotated[CompletedShell, typer.Argument(metavar="bash|zsh|fish", help="Whose script.")],
) -> None:
    """Print the script for completion with TAB.

    For bash: source <(minicluster completion bash). It completes clusters, nodes, profiles and roles as well.
    """
    from typer._completion_shared import get_completion_script

    script = get_completion_script(prog_name="minicluster", complete_var="_MINICLUSTER_COMPLETE", shell=shell.value)
    if shell is CompletedShell.bash:
        # "--size agent=" goes on with a number, not with the blank that bash puts after a word.
        script = script.replace(
            "    return 0\n", '    [[ "${COMPREPLY[0]}" == *= ]] && compopt -o nospace\n    return 0\n'
        )
    sys.stdout.write(script + "\n")


def version(output: OutputOption = Output.text) -> None:
    """Print the version."""
    if output is Output.json:
        print_json({"minicluster": __version__, "python": platform.python_version(), "platform": sys.platform})
    else:
        print(f"minicluster {__version__}")
