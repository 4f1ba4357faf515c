"""``workshop up|status|env|down``: equal clusters, one for each seat."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from minicluster.cli import complete, exports
from minicluster.cli.failures import describe
from minicluster.cli.help import Group
from minicluster.cli.options import (
    Output,
    force_option,
    numbers,
    optional_profile_argument,
    output_option,
    pairs_option,
    profile_argument,
    quiet_option,
    set_option,
    timeout_option,
)
from minicluster.cli.output import columns, print_json
from minicluster.cli.progress import listening
from minicluster.cli.show import EnvCommand, colored_phase, print_env

if TYPE_CHECKING:
    from minicluster.operations.up_options import UpKeywords
    from minicluster.workshop import Seat

workshop = Group("workshop", help="Run identical clusters, one for each seat of a workshop.")


@workshop.command()
@profile_argument
@click.option("--seats", type=click.IntRange(1, 99), required=True, metavar="N", help="Number of seats")
@pairs_option(
    "--size", metavar="ROLE=N", callback=numbers(0), help="Number of nodes of a role", shell_complete=complete.roles
)
@set_option
@click.option(
    "--bind-address",
    metavar="ADDRESS",
    help="Publish on this address of the engine's machine too, for participants' own machines",
)
@click.option(
    "--insecure", is_flag=True, help="Publish on --bind-address also what every client can use without a login"
)
@click.option("--folder", metavar="DIR", help="Where each seat gets a folder (default: PROFILE-workshop)")
@click.option("--owner", default="", metavar="USER", help="Give a seat's folder to this user; {seat} is its number")
@force_option
@timeout_option()
@output_option
@quiet_option
def up(
    profile: str,
    seats: int,
    size: dict[str, int],
    settings: dict[str, str],
    bind_address: str | None,
    insecure: bool,
    folder: str | None,
    owner: str,
    force: bool,
    timeout: float,
    output: Output,
    quiet: bool,
) -> None:
    """Start the clusters of a workshop, or apply changes to them.

    They are PROFILE-seat-01 and so on. Each seat gets a folder with variables, the client's files and a README.
    """
    from minicluster import workshop
    from minicluster.paths import expanded

    options: UpKeywords = {
        "size": size,
        "set": settings,
        "bind_address": bind_address,
        "force": force,
        "timeout": timeout,
    }
    wanted = workshop.Options(seats, expanded(folder) if folder else None, owner, insecure)
    with listening(quiet, several=True) as listener:
        found, failed = workshop.up(profile, wanted, options, listener)
    _show(found, output, quiet=quiet)
    for one in failed[:-1]:
        print(describe(one.error), file=sys.stderr)
    if failed:
        raise failed[-1].error


@workshop.command()
@optional_profile_argument("Only the seats of this profile")
@output_option
def status(profile: str | None, output: Output) -> None:
    """Show the seats and the states of their clusters."""
    from minicluster import workshop

    found = workshop.status(workshop.names(profile or ""))
    _show(found, output)
    if not found and output is Output.text:
        print("No seats found. `minicluster workshop up PROFILE --seats N` starts some.", file=sys.stderr)


@workshop.command(cls=EnvCommand)
@click.argument("seat", metavar="SEAT", help="Number of the seat, or name of its cluster")
@exports.shell_option
@output_option
def env(seat: str, shell: exports.Shell, output: Output) -> None:
    """Print environment variables for the native client, for the cluster of a seat."""
    from minicluster import workshop

    print_env(workshop.named(seat), shell, None, output)


@workshop.command()
@optional_profile_argument("Only the seats of this profile")
@output_option
@quiet_option
def down(profile: str | None, output: Output, quiet: bool) -> None:
    """Remove the clusters of all seats, with the seats' folders."""
    from minicluster.cli.up_down import remove_seats

    remove_seats(profile or "", output, quiet=quiet)


def _show(seats: Sequence[Seat], output: Output, *, quiet: bool = False) -> None:
    if output is Output.json:
        print_json(seats)
    elif seats and not quiet:
        print(columns([_row(seat) for seat in seats], ("SEAT", "CLUSTER", "PHASE", "READY", "ENDPOINT", "FOLDER")))


def _row(seat: Seat) -> tuple[str, ...]:
    ready, phase = f"{seat.ready}/{seat.nodes}", colored_phase(seat.phase)
    return (f"{seat.number:02}", seat.cluster, phase, ready, seat.endpoint, _short(seat.folder))


def _short(folder: str) -> str:
    """A folder relative to the current one where it is below that."""
    try:
        return str(Path(folder).relative_to(Path.cwd())) if folder else ""
    except (ValueError, OSError):
        return folder
