"""``up`` and ``down``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from minicluster.cli import complete
from minicluster.cli.exports import Shell, usage
from minicluster.cli.options import (
    DEFAULT_TIMEOUT,
    AddressModeOption,
    ForceOption,
    Output,
    OutputOption,
    QuietOption,
    RestartOption,
    TimeoutOption,
    check_timeout,
    numbers,
    pairs,
)
from minicluster.cli.output import columns, paint, plain_data, print_json
from minicluster.cli.progress import listening
from minicluster.errors import UsageError

if TYPE_CHECKING:
    from minicluster.model.lease import Lease
    from minicluster.model.results import Change, ClusterInfo
    from minicluster.operations.up import UpKeywords


def up(
    profile: Annotated[
        str | None,
        typer.Argument(
            metavar="[PROFILE]",
            show_default=False,
            help="A profile's name or folder; 'swarm' by default.",
            autocompletion=complete.profiles,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The cluster's name; the profile's by default.")
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(
            "--size", metavar="ROLE=N", help="How many nodes of a role. May be repeated.", autocompletion=complete.roles
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=V",
            help="Change a setting or any value of the profile, such as roles.agent.memory=1GiB.",
        ),
    ] = None,
    image: Annotated[
        list[str] | None, typer.Option("--image", metavar="NAME=REF", help="Use this image for one of the profile's.")
    ] = None,
    port: Annotated[
        list[str] | None, typer.Option("--port", metavar="ENDPOINT=P", help="Publish an endpoint on this port.")
    ] = None,
    restart: RestartOption = "",
    network: Annotated[
        list[str] | None,
        typer.Option(
            "--network",
            metavar="NAME",
            help="Let the nodes join this network as well. May be repeated; 'none' takes them out of all.",
        ),
    ] = None,
    address_mode: AddressModeOption = None,
    ttl: Annotated[
        str,
        typer.Option(
            "--ttl",
            metavar="TIME",
            show_default=False,
            help="Wanted for so long, such as 30m or 2h; the next minicluster after that removes it. 'none': for good.",
        ),
    ] = "",
    force: ForceOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print each step and why it is needed; do nothing.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="After a failure leave what there is, to look at.")] = False,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    timings: Annotated[bool, typer.Option("--timings", help="Tell at the end where the time went.")] = False,
    output: OutputOption = Output.text,
    quiet: QuietOption = False,
) -> None:
    """Stand a cluster up, or apply the difference to one that runs."""
    check_timeout(timeout)
    options: UpKeywords = {
        "name": name,
        "size": numbers("--size", "ROLE=N", size, 0, 1000),
        "set": pairs("--set", "PATH=V", set_),
        "image": pairs("--image", "NAME=REF", image),
        "port": numbers("--port", "ENDPOINT=P", port, 1, 65535),
        "restart": restart,
        "networks": [] if network == ["none"] else network or None,
        "address_mode": address_mode,
        "lease": _lease(ttl),
        "force": force,
        "keep": keep,
        "timeout": timeout,
    }
    if dry_run and timings:
        raise UsageError("--dry-run does nothing that would take its time.", fix="Leave --timings out.")
    if dry_run:
        from minicluster import cluster as facade
        from minicluster.cli.planned import plan_data, print_plan

        plan = facade.dry_run(profile, **options)
        if output is Output.json:
            print_json(plan_data(plan))
        else:
            print_plan(plan)
        return

    from minicluster.cli.timings import Timings, table
    from minicluster.cluster import Cluster
    from minicluster.executor import signals

    with listening(quiet) as shown:
        listener = Timings(shown)
        cluster = Cluster.up(profile, listener=listener, **options)
        signals.ignored()
        cluster.connect()
        info = cluster.info()
    if output is Output.json:
        change = plain_data(cluster.change) if cluster.change else {"cluster": info.cluster, "changed": False}
        print_json({**change, "info": info, **({"timings": listener.phases()} if timings else {})})
    elif not quiet:
        print(_summary(info, cluster.change))
        if timings:
            print(f"\n{table(listener.phases())}")


def _lease(ttl: str) -> Lease | None:
    if not ttl:
        return None
    from minicluster.model.durations import seconds
    from minicluster.model.lease import Lease

    return Lease() if ttl == "none" else Lease.lasting(seconds(ttl))


def _summary(info: ClusterInfo, change: Change | None) -> str:
    """What is up, in how many seconds, and what to type next."""
    if change is None or not change.changed:
        lines = [paint(f"Cluster {info.cluster} is up; there was nothing to change.", "bold")]
    else:
        lines = [paint(f"Cluster {info.cluster} ({info.profile}) is up, in {change.seconds:.1f} s.", "bold")]
    lines += [columns([(e.name, e.node, e.url) for e in info.endpoints], indent="  ")] if info.endpoints else []
    lines += [f"Note: {note}" for note in info.notes]
    if info.env:
        lines += [f"Next: {paint(usage(info.cluster, Shell.sh), 'cyan')}"]
        lines += [f"      {paint(info.example, 'cyan')}"] if info.example else []
    else:
        lines += [f"Next: {paint(f'minicluster status {info.cluster}', 'cyan')}"]
    return "\n".join(lines)


def down(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME...]",
            show_default=False,
            help="Clusters; by default $MINICLUSTER, then the only one there is.",
            autocompletion=complete.clusters,
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Remove every cluster.")] = False,
    output: OutputOption = Output.text,
    quiet: QuietOption = False,
) -> None:
    """Remove clusters, and everything that was made for them."""
    if names and all_:
        raise UsageError("down takes names or --all, not both.", fix="Leave one of them out.")
    from minicluster import cluster as facade

    with listening(quiet) as listener:
        changes = facade.down(names or [], all=all_, listener=listener)
    if output is Output.json:
        print_json(changes)
    elif not quiet:
        for change in changes:
            print(
                paint(f"Cluster {change.cluster} is gone, in {change.seconds:.1f} s.", "bold")
                if change.changed
                else f"Cluster {change.cluster}: there was nothing to remove."
            )
        if not changes:
            print("There is no cluster.", file=sys.stderr)


def gc(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say which would be removed, and why; do nothing.")
    ] = False,
    output: OutputOption = Output.text,
    quiet: QuietOption = False,
) -> None:
    """Remove clusters that nobody wants any more: their time is over, or the test that made them is gone."""
    from minicluster import cluster as facade

    with listening(quiet) as listener:
        found = facade.collect(dry_run=dry_run, listener=listener)
    if output is Output.json:
        print_json(found)
    elif not quiet:
        for one in found:
            done = "removed" if one.removed else "could not be removed" if one.error else "to be removed"
            print(f"{paint(one.cluster, 'bold')} ({one.profile}): {done}: {one.why}{_because(one.error)}")
        if not found:
            print("Nothing is over.", file=sys.stderr)
    if any(one.error for one in found):
        raise typer.Exit(1)


def _because(error: str) -> str:
    return f" ({error})" if error else ""
