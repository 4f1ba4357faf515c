"""Options that several commands share, and the reading of ``KEY=VALUE``."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Annotated

import typer

from minicluster.cli import complete
from minicluster.errors import UsageError
from minicluster.model.durations import DEFAULT_TIMEOUT as DEFAULT_TIMEOUT


class Output(str, Enum):
    """How a command answers."""

    text = "text"
    json = "json"


OutputOption = Annotated[Output, typer.Option("-o", "--output", metavar="text|json", help="How to answer.")]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but errors.")]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        "-c",
        "--cluster",
        metavar="NAME",
        help="The cluster; by default $MINICLUSTER, then the only one there is.",
        autocompletion=complete.clusters,
    ),
]
NodesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NODE...]",
        show_default=False,
        help="Nodes or roles; all nodes by default.",
        autocompletion=complete.nodes,
    ),
]
ClusterArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]",
        show_default=False,
        help="The cluster; by default $MINICLUSTER, then the only one there is.",
        autocompletion=complete.clusters,
    ),
]

TimeoutOption = Annotated[
    float, typer.Option("--timeout", metavar="S", help="Seconds until nodes must be ready; 120 by default.")
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Go on where nodes that leave take the quorum with them, or memory is short.")
]
RestartOption = Annotated[
    str,
    typer.Option(
        "--restart",
        metavar="POLICY",
        show_default=False,
        help="What the engine does when a node ends, or the engine starts: no, on-failure, unless-stopped, always.",
    ),
]


AddressModeOption = Annotated[
    str | None,
    typer.Option(
        "--address-mode",
        metavar="MODE",
        show_default=False,
        help="Which addresses are handed out: localhost, bridge, gateway, auto; $MINICLUSTER_ADDRESS_MODE by default.",
        autocompletion=complete.address_modes,
    ),
]


def check_timeout(timeout: float) -> None:
    """Refuses what is no time."""
    if not timeout > 0:
        raise UsageError(f"--timeout {timeout:g}: there must be some time.", fix="Write --timeout SECONDS.")


def pairs(option: str, form: str, values: Sequence[str] | None) -> dict[str, str]:
    """``KEY=VALUE`` words as a mapping. ``form`` is the way they should look, such as ``ROLE=N``."""
    result: dict[str, str] = {}
    for word in values or ():
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise UsageError(f"{option} {word}: this is not {form}.", fix=f"Write {option} {form}.")
        if key in result:
            raise UsageError(f"{option} {word}: {key} is given twice.", fix=f"Give each {option} once.")
        result[key] = value
    return result


def numbers(option: str, form: str, values: Sequence[str] | None, low: int, high: int) -> dict[str, int]:
    """``KEY=NUMBER`` words as a mapping, each number within bounds."""
    result: dict[str, int] = {}
    for key, value in pairs(option, form, values).items():
        if not (value.isascii() and value.isdecimal() and low <= int(value) <= high):
            raise UsageError(
                f"{option} {key}={value}: {value!r} is not a number from {low} to {high}.",
                fix=f"Write {option} {form}, such as {option} {key}={max(low, 3) if high < 10000 else 8080}.",
            )
        result[key] = int(value)
    return result
