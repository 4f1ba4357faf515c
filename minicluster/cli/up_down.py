"""``up``, ``down`` and ``gc``."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from minicluster import cli
from minicluster.cli import complete, plugins
from minicluster.cli.exports import Shell, usage
from minicluster.cli.failures import describe
from minicluster.cli.help import Command
from minicluster.cli.options import (
    Output,
    address_mode_option,
    clusters_argument,
    dry_run_option,
    force_option,
    host_names,
    keep_option,
    numbers,
    output_option,
    pairs,
    pairs_option,
    quiet_option,
    set_option,
    timeout_option,
)
from minicluster.cli.output import answer, columns, paint, plain_data, print_json
from minicluster.cli.progress import listening
from minicluster.errors import UsageError

if TYPE_CHECKING:
    from minicluster.model.lease import Lease
    from minicluster.model.results import Change, ClusterInfo
    from minicluster.model.spec import RegistrySpec
    from minicluster.operations.up_options import UpKeywords


def _lease(_ctx: click.Context, _param: click.Parameter, ttl: str | None) -> Lease | None:
    if not ttl:
        return None
    from minicluster.model.durations import seconds
    from minicluster.model.lease import Lease

    return Lease() if ttl == "none" else Lease.lasting(seconds(ttl, "--ttl"))


def _ports(ctx: click.Context, param: click.Parameter, words: Sequence[str]) -> dict[str, int | None]:
    """None: no longer asked for."""
    given = pairs(ctx, param, words)
    none: dict[str, int | None] = {key: None for key, port in given.items() if port == "none"}
    return none | numbers(1, 65535)(ctx, param, [f"{key}={port}" for key, port in given.items() if key not in none])


def _all_or_none(_ctx: click.Context, _param: click.Parameter, names: Sequence[str]) -> list[str] | None:
    """None: as they are."""
    return [] if list(names) == ["none"] else list(names) or None


def _registries(mirrors: Sequence[str], named: Sequence[str]) -> list[RegistrySpec] | None:
    """None: as they are."""
    if not (mirrors or named):
        return None
    from minicluster.operations import registries

    if "none" in named and len(named) > 1:
        raise UsageError("--registry none cannot be used together with other registries")
    given = [] if "none" in named else named
    return [*map(registries.mirror, mirrors), *map(registries.parse, given)]


class _Up(Command):
    """With the options that packages add; they are looked for when ``up`` is run."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        params = super().get_params(ctx)
        at = next(i for i, param in enumerate(params) if param.name == "output")
        ours = {param.name for param in params}  # which no package can replace
        added = [one.option for one in plugins.after_up() if one.option.name not in ours]
        return [*params[:at], *added, *params[at:]]


@click.command(cls=_Up)
@click.argument(
    "profile",
    required=False,
    metavar="[CLUSTER|PROFILE]",
    help="Cluster of the project file, else a profile's name or folder (default: all of the file, else swarm)",
    shell_complete=complete.clusters_and_profiles,
)
@click.option(
    "--name",
    "-c",
    "--cluster",
    metavar="NAME",
    help="Cluster name (default: $MINICLUSTER, else the project file's, else the profile's name)",
    shell_complete=complete.clusters,
)
@pairs_option(
    "--size",
    metavar="ROLE=N",
    callback=numbers(0),
    help="Number of nodes of a role",
    shell_complete=complete.roles,
)
@set_option
@pairs_option(
    "--image",
    metavar="NAME=REF",
    help="Replace one of the profile's images",
    shell_complete=complete.profile_images,
)
@pairs_option(
    "--disk",
    metavar="ROLE=SIZE",
    help="A file system of its own for the data of each node of a role, such as 1GiB",
    shell_complete=complete.roles,
)
@pairs_option(
    "--port",
    metavar="WHAT=PORT",
    callback=_ports,
    help="Publish an endpoint or ROLE:PORT[/udp] on this host port, and that of the next node on the next one; "
    "'none': no longer",
    shell_complete=complete.endpoints,
)
@click.option(
    "--bind-address",
    metavar="ADDRESS",
    help="Publish on this address of the engine's machine too (default: only 127.0.0.1)",
)
@click.option(
    "--mount",
    "mounts",
    multiple=True,
    metavar="ROLE:HOSTPATH:/PATH[:ro]",
    callback=_all_or_none,
    help="Mount a file or folder of the host in the role's nodes; repeatable; 'none' removes all mounts",
    shell_complete=complete.mounts,
)
@click.option(
    "--restart",
    default="",
    metavar="POLICY",
    help="Restart policy of the nodes: no, on-failure, unless-stopped or always",
    shell_complete=complete.restart_policies,
)
@click.option(
    "--network",
    "networks",
    multiple=True,
    metavar="NAME",
    callback=_all_or_none,
    help="Connect the nodes to this network too; repeatable; 'none' disconnects them from all such networks",
    shell_complete=complete.networks,
)
@click.option(
    "--registry-mirror",
    "mirrors",
    multiple=True,
    metavar="URL",
    help="Mirror of docker.io that the nodes' engines ask first; repeatable",
)
@click.option(
    "--registry",
    "named",
    multiple=True,
    metavar="HOST[,OPTION...]",
    help="Registry for the nodes' engines, with docker's credentials for it; mirror=URL, ca=FILE, insecure, "
    "credentials=no; repeatable; 'none': none",
)
@click.option("--ca", metavar="FILE", help="Certificates that nodes trust as well; 'none': none")
@click.option(
    "--hosts",
    metavar="HOST,HOST...",
    callback=host_names,
    help="Spread the nodes over these hosts, which are docker contexts",
    shell_complete=complete.hosts,
)
@pairs_option(
    "--place",
    metavar="ROLE|NODE=HOST,...",
    help="Put a node, or the nodes of a role, on these hosts; 'any': on any host",
    shell_complete=complete.roles,
)
@click.option("--encrypt", is_flag=True, help="Encrypt the nodes' traffic between hosts")
@address_mode_option
@click.option(
    "--ttl",
    "lease",
    metavar="TIME",
    callback=_lease,
    help="Lifetime (30m, 2h); removed by the next command after it expires; 'none': unlimited",
)
@force_option
@dry_run_option
@keep_option
@timeout_option()
@click.option("--timings", is_flag=True, help="Print how long each phase took")
@output_option
@quiet_option
def up(
    profile: str | None,
    name: str | None,
    size: dict[str, int],
    settings: dict[str, str],
    image: dict[str, str],
    disk: dict[str, str],
    port: dict[str, int | None],
    bind_address: str | None,
    mounts: list[str] | None,
    restart: str,
    networks: list[str] | None,
    mirrors: tuple[str, ...],
    named: tuple[str, ...],
    ca: str | None,
    hosts: list[str] | None,
    place: dict[str, str],
    encrypt: bool,
    address_mode: str | None,
    lease: Lease | None,
    force: bool,
    dry_run: bool,
    keep: bool,
    timeout: float,
    timings: bool,
    output: Output,
    quiet: bool,
    **added: Any,
) -> None:
    """Start a cluster or apply changes to it.

    In a folder with a minicluster.yaml, or below it: the clusters of that file, all at the same time.
    """
    from minicluster import discovery, projects

    default = discovery.from_variable() if name is None else None
    options: UpKeywords = {
        "name": default.name if default else name,
        "named_by": default.origin if default else "--name",
        "size": size,
        "set": settings,
        "image": image,
        "disk": disk,
        "port": port,
        "bind_address": bind_address,
        "mounts": mounts,
        "restart": restart,
        "networks": networks,
        "registries": _registries(mirrors, named),
        "ca": "" if ca == "none" else ca,
        "address_mode": address_mode,
        "lease": lease,
        "force": force,
        "keep": keep,
        "timeout": timeout,
        "hosts": hosts,
        "place": place,
        "encrypt": encrypt,
    }
    if dry_run and timings:
        raise UsageError("--dry-run and --timings cannot be used together")
    wanted = projects.wanted(profile, options)
    several = len(wanted.options) > 1
    if dry_run:
        from minicluster.cli.planned import show_plan, show_plans

        plans = projects.plans(wanted)
        if several:
            show_plans(plans, output)
        else:
            show_plan(plans[0], output)
        for asked in wanted.options if output is Output.text else ():
            for what in ("load", "apply"):
                for word in asked.get(what, ()):
                    print(f"Then {what} {word}.")
        return
    if several and timings:
        raise UsageError("--timings needs one cluster", "", f"Name it: `minicluster up {wanted.names[0]} --timings`.")

    from minicluster.cli.timings import Timings, table
    from minicluster.executor import signals

    with listening(quiet, several=several) as shown:
        listener = Timings(shown)
        done = projects.up(wanted, listener)
        signals.ignored()
        clusters = [one for one in done if not isinstance(one, projects.Failed)]
        infos = []
        for cluster in clusters:
            cluster.connect()
            info = cluster.info(published=False)
            notes = plugins.run_after_up(cluster, added)
            if quiet and output is not Output.json:
                for note in notes:  # of changes outside the cluster, such as that of kubectl's context
                    print(f"Note: {note}", file=sys.stderr)
            infos.append(replace(info, notes=(*info.notes, *notes)))
    if output is Output.json:
        answers = []
        for cluster, info in zip(clusters, infos, strict=True):
            change = plain_data(cluster.change) if cluster.change else {"cluster": info.cluster, "changed": False}
            answers.append({**change, "info": info, **({"timings": listener.phases()} if timings else {})})
        print_json(answers if several else answers[0])
    elif not quiet:
        for cluster, info in zip(clusters, infos, strict=True):
            print(_summary(info, cluster.change))
        if timings:
            print(f"\n{table(listener.phases())}")
    failed = [one for one in done if isinstance(one, projects.Failed)]
    for one in failed[:-1]:
        print(describe(one.error), file=sys.stderr)
    if failed:
        raise failed[-1].error


def _summary(info: ClusterInfo, change: Change | None) -> str:
    """The outcome, the endpoints and the next command."""
    seconds = time.monotonic() - cli.BEGUN  # of the whole command, as --timings has it
    if change is None or not change.changed:
        lines = [paint(f"Cluster {info.cluster} is up to date.", "bold")]
    else:
        lines = [paint(f"Cluster {info.cluster} is up ({seconds:.1f} s).", "bold")]
    lines += [columns([(e.name, e.node, e.url) for e in info.endpoints], indent="  ")] if info.endpoints else []
    lines += [f"Note: {note}" for note in info.notes]
    if info.env:
        lines += [f"Next: {paint(usage(info.cluster, Shell.sh), 'cyan')}"]
        lines += [f"      {paint(info.example, 'cyan')}"] if info.example else []
    else:
        lines += [f"Next: {paint(f'minicluster status {info.cluster}', 'cyan')}"]
    return "\n".join(lines)


@click.command(cls=Command)
@clusters_argument
@click.option("--all", "all_", is_flag=True, help="Remove all clusters")
@click.option("--orphans", is_flag=True, help="Remove the clusters that have left the project file")
@click.option("--seats", is_flag=True, help="Remove the clusters of all workshops' seats")
@click.option("--strict", is_flag=True, help="Exit with 7 if a cluster does not exist")
@output_option
@quiet_option
def down(
    names: tuple[str, ...],
    named: tuple[str, ...],
    all_: bool,
    orphans: bool,
    seats: bool,
    strict: bool,
    output: Output,
    quiet: bool,
) -> None:
    """Remove clusters and everything created for them.

    Without a name, in a folder with a minicluster.yaml or below it: those that were made from that file.

    The exit status is 0 if they do not exist, unless --strict is given.
    """
    names += named
    if names and all_:
        raise UsageError("cluster names and --all cannot be used together")
    if orphans and (names or all_):
        raise UsageError(f"--orphans and {'--all' if all_ else 'cluster names'} cannot be used together")
    if seats and (names or all_ or orphans):
        raise UsageError(
            f"--seats and {'--all' if all_ else '--orphans' if orphans else 'cluster names'} cannot be used together"
        )
    if seats:
        remove_seats("", output, quiet=quiet)
        return
    from minicluster import cluster as facade

    with listening(quiet) as listener:
        changes = facade.down(names, all=all_, orphans=orphans, strict=strict, listener=listener)
    _show_removed(changes, output, quiet=quiet)
    if all_ and not changes and output is Output.text and not quiet:
        print("No clusters found.", file=sys.stderr)


def remove_seats(profile: str, output: Output, *, quiet: bool) -> None:
    """Removes the clusters of all workshops' seats, or of those of a profile."""
    from minicluster import cluster as facade, workshop

    with listening(quiet) as listener:
        names = workshop.names(profile)
        changes = facade.down(names, listener=listener) if names else []
    _show_removed(changes, output, quiet=quiet)
    if not names and output is Output.text and not quiet:
        print("No seats found.", file=sys.stderr)


def _show_removed(changes: Sequence[Change], output: Output, *, quiet: bool) -> None:
    """The clusters that were removed."""
    removed = [change for change in changes if change.changed]
    lines = [paint(f"Removed cluster {change.cluster} ({change.seconds:.1f} s).", "bold") for change in removed]
    answer(changes, "\n".join(lines), output, quiet=quiet or not lines)


@click.command(cls=Command)
@click.option("--dry-run", is_flag=True, help="Print which clusters would be removed, and why; change nothing")
@output_option
@quiet_option
def gc(dry_run: bool, output: Output, quiet: bool) -> None:
    """Remove expired and orphaned clusters."""
    from minicluster import cluster as facade

    with listening(quiet) as listener:
        found = facade.collect(dry_run=dry_run, listener=listener)
    if output is Output.json:
        print_json(found)
    elif not quiet:
        for one in found:
            done = "Removed" if one.removed else "Could not remove" if one.error else "Would remove"
            name = paint(one.cluster, "bold")
            print(f"{done} cluster {name} ({one.profile}): {one.why}{f' ({one.error})' if one.error else ''}")
        if not found:
            print("No expired or orphaned clusters.", file=sys.stderr)
    if any(one.error for one in found):
        raise click.exceptions.Exit(1)
