"""Commands that read a cluster: ``ls``, ``status``, ``info``, ``env``."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from minicluster.cli import exports
from minicluster.cli.options import AddressModeOption, ClusterArgument, Output, OutputOption
from minicluster.cli.output import columns, paint, print_json, size
from minicluster.errors import UsageError

if TYPE_CHECKING:
    from minicluster.model.membership import Quorum
    from minicluster.model.results import ClusterInfo, ClusterStatus

_GOOD = {"ready", "running", "ok", "yes"}
_BAD = {"broken", "leftover", "missing", "dead", "no"}


def _phase(word: str) -> str:
    """A phase in the colour of how good it is."""
    return paint(word, "green" if word in _GOOD else "red" if word in _BAD else "yellow")


def ls(output: OutputOption = Output.text) -> None:
    """List the clusters that there are."""
    from minicluster import cluster as facade

    found = facade.clusters(listener=lambda event: print(event.text, file=sys.stderr))
    if output is Output.json:
        print_json(found)
    elif found:
        with_lease = any(c.lease for c in found)
        rows = [
            (
                c.cluster,
                c.profile,
                _phase(c.phase),
                f"{c.running}/{c.nodes}",
                c.subnet,
                *([c.lease] if with_lease else []),
            )
            for c in found
        ]
        print(columns(rows, ("NAME", "PROFILE", "PHASE", "NODES", "SUBNET", *(["LEASE"] if with_lease else []))))
        for c in found:
            if c.note:
                print(f"Note: {c.note}", file=sys.stderr)
    else:
        print("There is no cluster. 'minicluster up' makes one.", file=sys.stderr)


def status(name: ClusterArgument = None, output: OutputOption = Output.text) -> None:
    """Show the nodes of a cluster, and whether it works."""
    from minicluster.cluster import Cluster

    answer = Cluster.open(name).status()
    if output is Output.json:
        print_json(answer)
    else:
        print(_status_text(answer))


def _quorum(quorum: Quorum) -> str:
    """How a quorum is doing: "3 of 3, leader kv-2, survives 1 loss"."""
    leader = f"leader {quorum.leader}" if quorum.leader else "no leader"
    if quorum.lost:
        return f"{quorum.healthy} of {quorum.voters}, {leader}, lost: {quorum.needed} are needed"
    losses = f"{quorum.survives or 'no'} loss{'' if quorum.survives < 2 else 'es'}"
    return f"{quorum.healthy} of {quorum.voters}, {leader}, survives {losses}"


def _status_text(answer: ClusterStatus) -> str:
    lines = [f"{paint(answer.cluster, 'bold')} ({answer.profile}): {_phase(answer.phase)}"]
    if len(answer.quorums) > 1:
        lines += [f"quorum of {role}: {_quorum(quorum)}" for role, quorum in answer.quorums.items()]
    elif answer.quorum:
        lines.append(f"quorum: {_quorum(answer.quorum)}")
    with_leader = any(node.leader is not None for node in answer.nodes)
    with_detail = any(node.detail for node in answer.nodes)
    with_probe = any(not node.ready for node in answer.nodes)
    head = ["NODE", "ROLE", "ADDRESS", "PHASE", "READY", *(["LEADER"] if with_leader else []), "MEMORY"]
    head += ["DETAIL"] if with_detail else []
    rows = []
    for node in answer.nodes:
        row = [node.name, node.role, node.address, _phase(node.phase), _phase("yes" if node.ready else "no")]
        row += [{True: "yes", False: "", None: ""}[node.leader]] if with_leader else []
        row += [size(node.memory)]
        row += [node.detail] if with_detail else []
        row += ["" if node.ready else " ".join(node.probe.split())] if with_probe else []
        rows.append(row)
    lines.append(columns(rows, [*head, "PROBE"] if with_probe else head))
    lines += [f"Note: {note}" for note in answer.notes]
    return "\n".join(lines)


def info(
    name: ClusterArgument = None, address_mode: AddressModeOption = None, output: OutputOption = Output.text
) -> None:
    """Show how to reach a cluster."""
    from minicluster.cluster import Cluster

    answer = Cluster.open(name, address_mode=address_mode).info()
    if output is Output.json:
        print_json(answer)
    else:
        print(_info_text(answer))


def _info_text(answer: ClusterInfo) -> str:
    lines = [f"{paint(answer.cluster, 'bold')} ({answer.profile}): {answer.summary}", f"subnet: {answer.subnet}"]
    if answer.address_mode != "localhost":
        lines.append(f"address mode: {answer.address_mode}")
    if answer.endpoints:
        rows = [(e.name, e.node, e.url) for e in answer.endpoints]
        lines += ["", columns(rows, ("ENDPOINT", "NODE", "URL"))]
    if answer.env:
        hint = exports.usage(answer.cluster, exports.Shell.sh)
        lines += ["", f"For the system's own client: {paint(hint, 'cyan')}"]
        lines += [columns([(key, value) for key, value in answer.env.items()], indent="  ")]
    if answer.demo_image:
        lines += ["", f"An image that every node has: {answer.demo_image}"]
    return "\n".join([*lines, *(f"Note: {note}" for note in answer.notes)])


def env(
    name: ClusterArgument = None,
    shell: Annotated[
        exports.Shell, typer.Option("--shell", metavar="sh|fish|powershell", help="Whose syntax; sh by default.")
    ] = exports.Shell.sh,
    unset: Annotated[bool, typer.Option("--unset", help="Take the variables away instead.")] = False,
    address_mode: AddressModeOption = None,
    output: OutputOption = Output.text,
) -> None:
    """Print exports that make the system's own client work.

    For sh, bash and zsh: eval "$(minicluster env)".
    """
    from minicluster import cluster as facade

    if unset and output is Output.json:
        raise UsageError("--unset is for a shell, -o json is not.", fix="Leave one of them out.")
    if unset:
        statements = exports.unsets(facade.env_names(name), shell)
    else:
        cluster = facade.Cluster.open(name, address_mode=address_mode)
        variables = cluster.env()
        for note in cluster.notes:
            print(f"Note: {note}", file=sys.stderr)
        if output is Output.json:
            print_json(variables)
            return
        statements = exports.exports(variables, shell)
    arguments = " ".join([*([shlex.quote(name)] if name else []), *(["--unset"] if unset else [])])
    print("\n".join([*statements, f"# {exports.usage(arguments, shell)}"]))
