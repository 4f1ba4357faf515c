"""``fault`` and ``heal``: faults on purpose."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from minicluster.cli import complete
from minicluster.cli.help import Command, Group
from minicluster.cli.options import Output, cluster_argument, cluster_option, combined, output_option, quiet_option
from minicluster.cli.output import columns, on_terminal, print_json
from minicluster.cli.progress import listening
from minicluster.cli.termination import terminable
from minicluster.errors import UsageError
from minicluster.model.naming import count

if TYPE_CHECKING:
    from minicluster.model.fault import Fault
    from minicluster.model.results import FaultInfo
    from minicluster.operations.chaos import Round
    from minicluster.operations.faults import Target

_NODES = "Nodes or roles; or leader, follower, voter, ROLE-any"

fault = Group("fault", help="Partition, delay or hang nodes on purpose.")


def _seconds(_ctx: click.Context, _param: click.Parameter, text: str | None) -> float:
    if text is None:
        return 0.0
    from minicluster.model.durations import seconds

    return seconds(text)


_common = combined(
    click.option(
        "--for", "lasting", metavar="TIME", callback=_seconds, help="Heal by itself after this time (30s, 5m)"
    ),
    click.option("--force", is_flag=True, help="Do not ask where the quorum is lost"),
    cluster_option,
    output_option,
    quiet_option,
)
_nodes_argument = click.argument(
    "nodes", nargs=-1, required=True, metavar="NODE...", help=_NODES, shell_complete=complete.nodes
)
_to_option = click.option(
    "--to",
    multiple=True,
    metavar="NODE",
    help="Only packets to this node; repeatable (default: all packets)",
    shell_complete=complete.nodes,
)


class _QuorumLost(Exception):
    """The user is to be asked."""


def _carry_out(
    cluster: str | None,
    make: Callable[[Target], Fault],
    *,
    lasting: float,
    force: bool,
    output: Output,
    quiet: bool,
) -> None:
    """Says what a fault costs, asks where the quorum is lost, and applies it."""
    from minicluster.cluster import Cluster
    from minicluster.operations import faults
    from minicluster.plan.faults import lasting as with_end

    opened = Cluster.open(cluster)
    target = faults.Target(opened.engine, opened.spec)
    wanted = with_end(make(target), lasting)
    cost, lost = "", False

    def weigh() -> None:
        nonlocal cost, lost
        cost, lost = faults.cost(target, wanted)
        if cost and not quiet:
            print(f"{wanted.text}: {cost}.", file=sys.stderr)
        if lost and not force:
            raise _QuorumLost

    with listening(quiet) as listener:
        try:
            active = faults.apply(opened.engine, opened.spec, wanted, listener, weigh)
        except _QuorumLost:
            if not on_terminal(sys.stdin):
                what = f"{wanted.text}: the quorum would be lost"
                raise UsageError(what, f"It {cost}.", "Use --force to apply it anyway.") from None
            click.confirm("Continue?", abort=True, err=True)
            active = faults.apply(opened.engine, opened.spec, wanted, listener)
    if output is Output.json:
        print_json({"id": active.id, "fault": wanted.text, "nodes": wanted.nodes, "cost": cost, "quorum_lost": lost})
    elif not quiet and wanted.kind == "kill":
        print(f"Killed {wanted.process} in {', '.join(wanted.nodes)}.")
    elif not quiet:
        end = f"for {lasting:g} s" if lasting else f"until `minicluster heal {active.id} -c {opened.name}`"
        print(f"Fault {active.id} of cluster {opened.name}: {wanted.text}, {end}.")


def _split(words: Sequence[str]) -> list[list[str]]:
    """Groups of words, which a slash separates."""
    groups: list[list[str]] = [[]]
    for word in " / ".join(" ".join(words).split("/")).split():
        if word == "/":
            groups.append([])
        else:
            groups[-1].append(word)
    return groups


@fault.command()
@click.argument(
    "groups",
    nargs=-1,
    metavar="[NODE... / NODE...]",
    help=f"Groups, separated by a slash. {_NODES}",
    shell_complete=complete.nodes,
)
@click.option("--isolate", metavar="WHO", help="A node from all others; or a minority or majority of the voters")
@click.option("--one-way", is_flag=True, help="Only packets from the first group to the others are lost")
@click.option("--clients", is_flag=True, help="Cut the first group from everything outside of the cluster as well")
@_common
def partition(
    groups: tuple[str, ...], isolate: str | None, one_way: bool, clients: bool, cluster: str | None, **common: Any
) -> None:
    """Drop all packets between groups of nodes."""
    from minicluster.operations import faults
    from minicluster.plan import faults as planning

    if isolate and groups:
        raise UsageError("--isolate and groups cannot be used together", "", "Name either.")

    def make(target: Target) -> Fault:
        if isolate:
            return faults.isolate(target, isolate, one_way=one_way, clients=clients)
        named = [target.nodes(group) for group in _split(groups)]
        return planning.partition(named, one_way=one_way, clients=clients)

    _carry_out(cluster, make, **common)


@fault.command()
@_nodes_argument
@click.argument("time", metavar="TIME", help="Delay of each packet, such as 100ms")
@click.option("--jitter", metavar="TIME", help="The delay varies by up to this, such as 20ms")
@_to_option
@_common
def delay(
    nodes: tuple[str, ...], time: str, jitter: str | None, to: tuple[str, ...], cluster: str | None, **common: Any
) -> None:
    """Delay the packets that nodes send."""
    from minicluster.plan import faults as planning

    amount, varies = planning.milliseconds(time), planning.milliseconds(jitter) if jitter else 0.0

    def make(target: Target) -> Fault:
        return planning.shaped("delay", target.nodes(nodes), target.nodes(to), delay=amount, jitter=varies)

    _carry_out(cluster, make, **common)


@fault.command()
@_nodes_argument
@click.argument("share", metavar="PERCENT", help="Packets that are dropped, such as 10%")
@_to_option
@_common
def loss(nodes: tuple[str, ...], share: str, to: tuple[str, ...], cluster: str | None, **common: Any) -> None:
    """Drop some of the packets that nodes send."""
    from minicluster.plan import faults as planning

    amount = planning.percent(share)
    _carry_out(
        cluster, lambda target: planning.shaped("loss", target.nodes(nodes), target.nodes(to), percent=amount), **common
    )


@fault.command()
@_nodes_argument
@click.argument("share", metavar="PERCENT", help="Packets that are sent at once, such as 25%; the others are delayed")
@click.option("--delay", "time", metavar="TIME", default="10ms", help="Delay of the others (default: 10ms)")
@_to_option
@_common
def reorder(
    nodes: tuple[str, ...], share: str, time: str, to: tuple[str, ...], cluster: str | None, **common: Any
) -> None:
    """Reorder packets that nodes send."""
    from minicluster.plan import faults as planning

    amount, late = planning.percent(share), planning.milliseconds(time)

    def make(target: Target) -> Fault:
        return planning.shaped("reorder", target.nodes(nodes), target.nodes(to), percent=amount, delay=late)

    _carry_out(cluster, make, **common)


@fault.command()
@_nodes_argument
@click.argument("bits", metavar="RATE", help="Bits a second, such as 1mbit or 500kbit")
@_common
def rate(nodes: tuple[str, ...], bits: str, cluster: str | None, **common: Any) -> None:
    """Limit how much nodes send."""
    from minicluster.plan import faults as planning

    amount = planning.bits(bits)
    _carry_out(cluster, lambda target: planning.simple("rate", target.nodes(nodes), bits, rate=amount), **common)


@fault.command()
@_nodes_argument
@_common
def dns(nodes: tuple[str, ...], cluster: str | None, **common: Any) -> None:
    """Break name resolution in nodes, and in what runs in them."""
    from minicluster.plan import faults as planning

    _carry_out(cluster, lambda target: planning.simple("dns", target.nodes(nodes)), **common)


_node_argument = click.argument("node", metavar="NODE", help=_NODES, shell_complete=complete.nodes)
_process_argument = click.argument("process", metavar="PROCESS", help="Name of the processes, as 'ps' shows it")


@fault.command()
@_node_argument
@_process_argument
@_common
def hang(node: str, process: str, cluster: str | None, **common: Any) -> None:
    """Stop processes in a node (SIGSTOP); the node itself keeps running."""
    from minicluster.plan import faults as planning

    _carry_out(cluster, lambda t: planning.simple("hang", t.nodes([node]), process, process=process), **common)


@fault.command()
@_node_argument
@_process_argument
@_common
def kill(node: str, process: str, cluster: str | None, **common: Any) -> None:
    """Kill processes in a node (SIGKILL), once."""
    from minicluster.plan import faults as planning

    if common["lasting"]:
        raise UsageError("kill takes no --for", "A killed process does not come back by itself.")
    _carry_out(cluster, lambda t: planning.simple("kill", t.nodes([node]), process, process=process), **common)


@fault.command()
@_nodes_argument
@click.argument("share", metavar="PERCENT", help="Of one processor, such as 20%")
@_common
def cpu(nodes: tuple[str, ...], share: str, cluster: str | None, **common: Any) -> None:
    """Limit the processor time of nodes."""
    from minicluster.plan import faults as planning

    amount = planning.percent(share)
    _carry_out(cluster, lambda t: planning.simple("cpu", t.nodes(nodes), f"{amount:g}%", percent=amount), **common)


@fault.command()
@_nodes_argument
@click.argument("amount", metavar="SIZE", help="Such as 64MiB")
@_common
def memory(nodes: tuple[str, ...], amount: str, cluster: str | None, **common: Any) -> None:
    """Limit the memory of nodes."""
    from minicluster.plan import faults as planning

    size = planning.size(amount)
    _carry_out(cluster, lambda t: planning.simple("memory", t.nodes(nodes), amount, memory=size), **common)


@fault.command("disk-full")
@_nodes_argument
@_common
def disk_full(nodes: tuple[str, ...], cluster: str | None, **common: Any) -> None:
    """Fill the file systems that have the data of nodes, which 'up --disk' creates."""
    from minicluster.plan import faults as planning

    _carry_out(cluster, lambda t: planning.simple("disk-full", t.nodes(nodes)), **common)


@fault.command("list")
@cluster_argument
@output_option
def list_(cluster: str | None, output: Output) -> None:
    """List the faults in force."""
    from minicluster.cluster import Cluster

    found = Cluster.open(cluster).faults()
    if output is Output.json:
        print_json(found)
    elif found:
        print(columns([(f.id, described(f)) for f in found], ("FAULT", "WHAT")))
    else:
        print("No faults in force.", file=sys.stderr)


def described(fault: FaultInfo) -> str:
    """A fault in words: what, since when, until when, where no longer."""
    from minicluster.model.durations import span

    text = f"{fault.text}, for {span(max(0.0, time.time() - fault.since))}"
    if fault.until is not None:
        text += f", {span(max(0.0, fault.until - time.time()))} left"
    if fault.lost:
        text += f"; not in force in {', '.join(fault.lost)}, restarted since"
    return text


@click.command(cls=Command)
@click.argument("ids", nargs=-1, metavar="[FAULT...]", help="Numbers of faults (default: all)")
@cluster_option
@output_option
@quiet_option
def heal(ids: tuple[str, ...], cluster: str | None, output: Output, quiet: bool) -> None:
    """End faults."""
    from minicluster.cluster import Cluster

    if ids and not cluster and not ids[0].isdecimal():  # a cluster: faults have numbers
        cluster, ids = ids[0], ids[1:]
    ended = Cluster.open(cluster).heal(*ids)
    if output is Output.json:
        print_json({"healed": ended})
    elif not quiet:
        print("\n".join(f"Healed: {text}" for text in ended) or "No faults in force.")


@click.command(cls=Command)
@click.argument("nodes", nargs=-1, metavar="[NODE...]", help="Nodes or roles (default: those that vote)")
@click.option("--for", "lasting", metavar="TIME", default="1m", callback=_seconds, help="How long (default: 1m)")
@click.option("--every", metavar="TIME", default="10s", callback=_seconds, help="A fault every so often (default: 10s)")
@click.option(
    "--faults", "kinds", metavar="KIND,...", help="kill, hang, partition, delay, loss (default: the first three)"
)
@click.option("--keep-quorum", is_flag=True, help="Skip faults that would lose the quorum")
@click.option("--seed", type=int, metavar="N", help="Repeats the schedule of an earlier run (default: random)")
@cluster_option
@output_option
def chaos(
    nodes: tuple[str, ...],
    lasting: float,
    every: float,
    kinds: str | None,
    keep_quorum: bool,
    seed: int | None,
    cluster: str | None,
    output: Output,
) -> None:
    """Apply faults at random and measure.

    Each is held for half of the time until the next. With -o json it prints an object per fault, one a line.
    """
    import random

    from minicluster.cli.target import of_nodes
    from minicluster.operations import chaos as running

    opened, nodes = of_nodes(cluster, nodes, "chaos")
    seed = random.randrange(1 << 31) if seed is None else seed
    rounds = running.chaos(
        opened.engine,
        opened.spec,
        seconds=lasting,
        every=every,
        kinds=[kind for kind in kinds.split(",") if kind] if kinds is not None else running.DEFAULT,
        nodes=opened.node_names(nodes) if nodes else (),
        keep_quorum=keep_quorum,
        seed=seed,
    )
    if output is Output.text:
        print(f"Faults for cluster {opened.name}, seed {seed}.", file=sys.stderr)
    done = []
    with terminable(), closing(rounds):
        for one in rounds:
            done.append(one)
            if output is Output.json:
                print(one.dump(seed), flush=True)
            else:
                print(_round_text(one), flush=True)
    if output is Output.text:
        summary = running.Summary(opened.name, seed, tuple(done))
        longest = [f"{text} {_span(summary.longest(what))}" for what, text in _MEASURES.items()]
        print(f"{count(len(done), 'fault')}; longest: {', '.join(longest)}.")


_MEASURES = {
    "without_leader": "no leader seen",
    "without_writes": "without writes",
    "healthy_after": "until healthy again",
}


def _span(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"


def _round_text(one: Round) -> str:
    if one.error:
        return f"{one.number:3}  {one.kind} {one.node}: {one.error}"
    measured = ", ".join(f"{text} {_span(getattr(one, what))}" for what, text in _MEASURES.items())
    return f"{one.number:3}  {one.kind} {one.node} for {one.held:.1f} s: {measured}"
