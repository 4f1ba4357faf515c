"""Options and arguments that several commands share, and the reading of ``KEY=VALUE``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, TypeVar

import click

from minicluster.cli import complete
from minicluster.errors import UsageError
from minicluster.model.durations import DEFAULT_TIMEOUT

_DIGITS = 16  # of a number that is read at all

Function = TypeVar("Function", bound=Callable[..., Any])


def combined(*decorators: Callable[[Function], Function]) -> Callable[[Function], Function]:
    """Several options and arguments as one decorator, in the order in which help lists them."""

    def apply(function: Function) -> Function:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


class Output(str, Enum):
    """The format of a command's answer."""

    text = "text"
    json = "json"


def pairs(_ctx: click.Context, param: click.Parameter, words: Sequence[str]) -> dict[str, str]:
    """A callback: ``KEY=VALUE`` words as a mapping."""
    result: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals):
            form = (param.metavar or "KEY=VALUE").removesuffix("...")
            raise UsageError(f"{_label(param)}{word}: must have the form {form}")
        if key in result:
            raise UsageError(f"{_label(param)}{key} is given twice")
        result[key] = value
    return result


def numbers(
    low: int, high: int | None = None
) -> Callable[[click.Context, click.Parameter, Sequence[str]], dict[str, int]]:
    """A callback: ``KEY=NUMBER`` words as a mapping, each number within these bounds."""
    bounds = f"from {low} to {high}" if high else f"not less than {low}"

    def callback(ctx: click.Context, param: click.Parameter, words: Sequence[str]) -> dict[str, int]:
        result = {}
        for key, value in pairs(ctx, param, words).items():
            digits = value.isascii() and value.isdecimal() and len(value) < _DIGITS
            if not (digits and low <= int(value) <= (high or int(value))):
                raise UsageError(f"{_label(param)}{key}={value}: must be an integer {bounds}")
            result[key] = int(value)
        return result

    return callback


def host_names(_ctx: click.Context, param: click.Parameter, text: str | None) -> list[str] | None:
    """A callback: names that commas separate; None where nothing is given."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise UsageError(
            f"{_label(param)}{text or chr(39) * 2}: a name is empty", "", "Write HOST,HOST...: docker contexts."
        )
    return names


def _label(param: click.Parameter) -> str:
    """What precedes a word in an error: ``--size ``; nothing for an argument."""
    return f"{param.opts[0]} " if isinstance(param, click.Option) else ""


def _positive(_ctx: click.Context, param: click.Parameter, value: str | float) -> float:
    """A callback: a number of seconds."""
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise UsageError(f"{param.opts[0]} {value}: must be a number of seconds greater than 0")
    return seconds


def pairs_option(
    *names: str, metavar: str, help: str, callback: Callable[..., Any] = pairs, **settings: Any
) -> Callable[[Function], Function]:
    """An option that may be repeated, each time with ``KEY=VALUE``."""
    return click.option(
        *names, multiple=True, metavar=metavar, callback=callback, help=f"{help}; repeatable", **settings
    )


def optional_profile_argument(help: str) -> Callable[[Function], Function]:
    """A profile's name or folder, which may be missing."""
    return click.argument("profile", required=False, metavar="[PROFILE]", help=help, shell_complete=complete.profiles)


output_option = combined(
    click.option(
        "-o",
        "--output",
        type=click.Choice(Output),
        default=Output.text,
        metavar="text|json",
        help="Output format (default: text)",
    ),
    click.option("--json", "output", type=click.Choice(Output), flag_value=Output.json, help="Same as -o json"),
)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print only errors")
dry_run_option = click.option("--dry-run", is_flag=True, help="Print each step and its reason; change nothing")
force_option = click.option("--force", is_flag=True, help="Continue even if quorum is lost or memory is short")
keep_option = click.option("--keep", is_flag=True, help="After a failure, keep everything for debugging")


def _once(ctx: click.Context, param: click.Parameter, name: str | None) -> str | None:
    """A callback: the cluster that ``-c`` or the argument names. Where a command has both, one of them is enough."""
    if name == "":  # of a shell's variable that is not set: not the default
        raise UsageError(
            f"{param.opts[0] if isinstance(param, click.Option) else 'NAME'} is empty", "", "Name a cluster."
        )
    before: str | None = ctx.params.get("cluster")
    if before and name and name != before:
        raise UsageError(f"two clusters are named: {before} and {name}", "", "Name one, as NAME or with -c NAME.")
    if isinstance(param, click.Argument) and name:
        ctx.params["cluster"] = name
    return name or before


_WHICH = "Cluster (default: $MINICLUSTER, else that of the project file, else the only one)"

#: For commands whose arguments are something else, such as nodes.
cluster_option = click.option(
    "-c", "--cluster", metavar="NAME", help=_WHICH, callback=_once, shell_complete=complete.clusters
)
#: For commands about a whole cluster: NAME or -c NAME.
cluster_argument = combined(
    click.argument(
        "name",
        required=False,
        expose_value=False,
        metavar="[NAME]",
        help=_WHICH,
        callback=_once,
        shell_complete=complete.clusters,
    ),
    cluster_option,
)
#: For commands about several clusters: NAMEs, or -c NAME, which may be repeated.
clusters_argument = combined(
    click.argument("names", nargs=-1, metavar="[NAME...]", help=_WHICH, shell_complete=complete.clusters),
    click.option(
        "-c",
        "--cluster",
        "named",
        multiple=True,
        metavar="NAME",
        help="The same; repeatable",
        shell_complete=complete.clusters,
    ),
)
nodes_argument = click.argument(
    "nodes", nargs=-1, metavar="[NODE...]", help="Nodes or roles (default: all)", shell_complete=complete.nodes
)
profile_argument = click.argument(
    "profile", metavar="PROFILE", help="Profile name or folder", shell_complete=complete.profiles
)
set_option = pairs_option(
    "--set",
    "settings",
    metavar="PATH=VALUE",
    help="Override a setting or profile value, such as roles.agent.memory=1GiB",
    shell_complete=complete.settings,
)
address_mode_option = click.option(
    "--address-mode",
    metavar="MODE",
    help="Endpoint addresses: localhost, bridge, gateway or auto (default: $MINICLUSTER_ADDRESS_MODE or auto)",
    shell_complete=complete.address_modes,
)


def timeout_option(
    default: float = DEFAULT_TIMEOUT, help: str = "Time limit until nodes are ready"
) -> Callable[[Function], Function]:
    """``--timeout SECONDS``, which must be greater than 0."""
    return click.option(
        "--timeout",
        default=default,
        type=str,
        metavar="SECONDS",
        callback=_positive,
        help=f"{help} (default: {default:g})",
    )
