"""``hosts check|init|leave|status``: machines for clusters on several hosts, and the Docker Swarm that joins them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from minicluster.cli import complete
from minicluster.cli.help import Group
from minicluster.cli.options import Output, host_names, output_option
from minicluster.cli.output import columns, paint, print_checks, print_json
from minicluster.errors import UsageError
from minicluster.model.naming import size

if TYPE_CHECKING:
    from minicluster.engine.hosts import HostsEngine
    from minicluster.model.events import Event
    from minicluster.operations.hosts_check import HostsStatus


hosts = Group("hosts", help="Manage the hosts of clusters on several machines.")

_ALL = "Hosts: docker contexts, separated by commas (default: all)"


def _open(names: list[str] | None) -> HostsEngine:
    """The named hosts, else all docker contexts, of which some may have to do with something else."""
    from minicluster.engine import client_config
    from minicluster.engine.discover import open_hosts

    chosen = names or client_config.contexts()
    if not chosen:
        raise UsageError(
            "no hosts found",
            "Hosts are docker contexts, and only the default one exists.",
            "Create one for each machine: `docker context create NAME --docker host=ssh://USER@MACHINE`.",
        )
    return open_hosts(chosen, strict=bool(names))


def _told(event: Event) -> None:
    print(event.text, file=sys.stderr)


@hosts.command()
@click.argument(
    "names", required=False, metavar="[HOST,HOST...]", callback=host_names, help=_ALL, shell_complete=complete.hosts
)
@output_option
def check(names: list[str] | None, output: Output) -> None:
    """Check what hosts have, and what a cluster on them needs.

    The exit status is 1 if a check is an error, or a host does not answer.
    """
    from minicluster.operations import hosts_check

    found = hosts_check.check(_open(names))
    if output is Output.json:
        print_json(found)
    else:
        _print(found)
        for host, checks in (found.checks or {}).items():
            print(f"\n{paint(host, 'bold')}")
            print_checks(checks)
    bad = any(one.level == "error" for checks in (found.checks or {}).values() for one in checks)
    if bad or not all(one.answers for one in found.hosts):
        raise click.exceptions.Exit(1)


@hosts.command()
@click.argument("names", metavar="HOST,HOST...", callback=host_names, help="Hosts", shell_complete=complete.hosts)
@output_option
def init(names: list[str], output: Output) -> None:
    """Join hosts in a Docker Swarm, which carries the networks of clusters.

    A swarm that is there is used as it is. Of two hosts one manages it; of three or more, three do.
    """
    from minicluster.operations import hosts_check, hosts_swarm

    engine = _open(names)
    joined = hosts_swarm.init(engine, _told)
    if output is Output.json:
        print_json({"joined": joined})
    elif not joined:
        print("The hosts are part of one swarm already.")
    else:
        _print(hosts_check.status(engine))


@hosts.command()
@click.argument(
    "names", required=False, metavar="[HOST,HOST...]", callback=host_names, help=_ALL, shell_complete=complete.hosts
)
@output_option
def leave(names: list[str] | None, output: Output) -> None:
    """Remove the swarm that 'hosts init' created."""
    from minicluster.operations import hosts_swarm

    left = hosts_swarm.leave(_open(names), _told)
    if output is Output.json:
        print_json({"left": left})
    elif not left:
        print("The hosts are part of no swarm.")


@hosts.command()
@click.argument(
    "names", required=False, metavar="[HOST,HOST...]", callback=host_names, help=_ALL, shell_complete=complete.hosts
)
@output_option
def status(names: list[str] | None, output: Output) -> None:
    """Show hosts, their swarm and its quorum."""
    from minicluster.operations import hosts_check

    found = hosts_check.status(_open(names))
    if output is Output.json:
        print_json(found)
    else:
        _print(found)


def _print(found: HostsStatus) -> None:
    rows = []
    for one in found.hosts:
        if one.answers:
            free = size(one.free) if one.free else "-"
            role = one.role or "-"
            about = [one.engine, role, str(one.cpus), size(one.memory), free, f"{one.milliseconds:g} ms"]
        else:
            about = [f"no answer: {one.engine}", "-", "-", "-", "-", "-"]
        rows.append([one.host, one.address or "-", *about, ",".join(one.clusters) or "-"])
    print(columns(rows, ("HOST", "ADDRESS", "ENGINE", "SWARM", "CPUS", "MEMORY", "FREE", "PING", "CLUSTERS")))
    if quorum := found.quorum:
        if quorum.lost:
            state = f"lost, {quorum.healthy} of {quorum.voters} managers, {quorum.needed} needed"
        else:
            losses = f"{quorum.survives or 'no'} loss{'' if quorum.survives < 2 else 'es'}"
            state = f"{quorum.healthy} of {quorum.voters} managers, leader {quorum.leader}, survives {losses}"
        print(f"swarm ({'made by minicluster' if found.ours else 'not made by minicluster'}): {state}")
    for note in found.notes:
        print(f"Note: {note}")
