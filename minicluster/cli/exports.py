"""Environment variables as shell statements, quoted so that values cannot run code."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping
from enum import Enum

import click

from minicluster.errors import MiniclusterError


class Shell(str, Enum):
    """A family of shells."""

    sh = "sh"
    fish = "fish"
    powershell = "powershell"


shell_option = click.option(
    "--shell",
    type=click.Choice(Shell),
    default=Shell.sh,
    metavar="sh|fish|powershell",
    help="Syntax of the statements (default: sh)",
)

#: Holds the names of the variables that were set for a cluster, so that they can be unset.
RECORD = "MINICLUSTER_ENV"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# PowerShell treats typographic single quotes as quotes.
_POWERSHELL_QUOTES = re.compile("(['\u2018\u2019\u201a\u201b])")


def exports(env: Mapping[str, str], shell: Shell) -> list[str]:
    """One statement per variable."""
    return [_export(name, value, shell) for name, value in _checked(env).items()]


def unsets(names: Iterable[str], shell: Shell) -> list[str]:
    """One statement per variable that unsets it."""
    forms = {
        Shell.sh: "unset {}",
        Shell.fish: "set -e {};",
        Shell.powershell: "Remove-Item Env:\\{} -ErrorAction SilentlyContinue",
    }
    return [forms[shell].format(name) for name in _checked(dict.fromkeys(names, ""))]


def recorded() -> list[str]:
    """The variables that an earlier ``env`` set in the shell that this runs in, with the one that lists them."""
    found = [name for name in os.environ.get(RECORD, "").split() if _NAME.fullmatch(name)]
    return [*found, RECORD] if found else []


def switch(env: Mapping[str, str], path: Mapping[str, str], shell: Shell) -> list[str]:
    """Statements that set the variables of a cluster, and unset those that another one left."""
    wanted = {**env, RECORD: " ".join(env)}
    return [*unsets([name for name in recorded() if name not in wanted], shell), *exports({**wanted, **path}, shell)]


def failure(shell: Shell) -> list[str]:
    """Statements that unset what an earlier ``env`` set, and then fail: no command goes to the wrong cluster."""
    stop = "throw 'minicluster env failed'" if shell is Shell.powershell else "false"
    return [*unsets(recorded(), shell), stop]


def usage(arguments: str, shell: Shell) -> str:
    """The line that makes a shell evaluate the statements."""
    command = f"minicluster env {arguments}".rstrip()
    if shell is Shell.fish:
        return f"{command} --shell fish | source"
    if shell is Shell.powershell:
        return f"{command} --shell powershell | Out-String | Invoke-Expression"
    return f'eval "$({command})"'


def _export(name: str, value: str, shell: Shell) -> str:
    if shell is Shell.fish:
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"set -gx {name} '{quoted}';"
    if shell is Shell.powershell:
        return f"$Env:{name} = '" + _POWERSHELL_QUOTES.sub(r"\1\1", value) + "'"
    return f"export {name}={shlex.quote(value)}"


def _checked(env: Mapping[str, str]) -> Mapping[str, str]:
    for name in env:
        if not _NAME.fullmatch(name):
            raise MiniclusterError(
                f"invalid environment variable name {name!r}",
                fix="Correct 'env' in the cluster's profile.",
            )
    return env
