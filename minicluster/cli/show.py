"""Commands that read a cluster: ``ls``, ``status``, ``info``, ``env``."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from minicluster.cli import exports
from minicluster.cli.help import Command
from minicluster.cli.options import Output, address_mode_option, cluster_argument, output_option
from minicluster.cli.output import columns, paint, plain_data, print_json
from minicluster.errors import Incomplete, MiniclusterError, NoCluster, UsageError
from minicluster.model.naming import listed, printable, size

if TYPE_CHECKING:
    from minicluster.cluster import Cluster
    from minicluster.model.membership import Quorum
    from minicluster.model.results import ClusterInfo, ClusterStatus, NodeStatus

_PERIOD = 1.0  # seconds between two looks of --watch
_GOOD = {"ready", "running", "ok", "yes"}
#: Exit statuses of `status --exit-code`: it serves, or may soon; or it does not.
EXIT_CODES = {"degraded": 5, "bootstrapping": 5, "broken": 6, "stopped": 6, "missing": NoCluster.exit_code}
_BAD = {"broken", "leftover", "missing", "dead", "no"}


def colored_phase(word: str) -> str:
    """A phase in green, yellow or red."""
    return paint(word, "green" if word in _GOOD else "red" if word in _BAD else "yellow")


@click.command(cls=Command)
@output_option
def ls(output: Output) -> None:
    """List clusters."""
    from minicluster import cluster as facade

    found = facade.clusters(listener=lambda event: print(event.text, file=sys.stderr))
    if output is Output.json:
        print_json([{"name": c.cluster, **plain_data(c)} for c in found])
    elif found:
        with_lease = any(c.lease for c in found)
        rows = [
            (
                c.cluster,
                c.profile,
                colored_phase(c.phase),
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
        print("No clusters found. Start one with 'minicluster up'.", file=sys.stderr)


@click.command(cls=Command)
@cluster_argument
@click.option("--exit-code", is_flag=True, help="Exit with 5 if it is degraded or forming, 6 if broken or stopped")
@click.option("-w", "--watch", is_flag=True, help="Show it every second, until it is removed or Ctrl-C")
@output_option
def status(cluster: str | None, exit_code: bool, watch: bool, output: Output) -> None:
    """Show the state of a cluster and its nodes.

    Without a name, where the project file has several: of all of them. With -o json, --watch prints a document per
    line.
    """
    from minicluster import discovery
    from minicluster.cluster import Cluster

    several = discovery.several(cluster)
    if watch:
        if exit_code:
            raise UsageError(
                "--exit-code and --watch cannot be used together", "A watch has no last state.", "Use either."
            )
        _watch(several, Cluster.open(cluster) if not several else None, output)
        return
    answers = _all_of_project(several) if several else [Cluster.open(cluster).status()]
    if output is Output.json:
        print_json(answers if several else answers[0])
    else:
        print("\n\n".join(map(_status_text, answers)))
    worst = max(EXIT_CODES.get(answer.phase, 0) for answer in answers)
    if exit_code and worst:
        raise click.exceptions.Exit(worst)


def _watch(several: Sequence[str], opened: Cluster | None, output: Output) -> None:
    """Shows the state again and again."""
    from minicluster.cli.watch import live, print_line

    try:
        if output is Output.json:
            for answers in _states(several, opened):
                print_line(answers if several else answers[0])
        else:
            live("\n\n".join(map(_status_text, answers)) for answers in _states(several, opened))
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None  # the usual end of watching: no message


def _states(several: Sequence[str], opened: Cluster | None) -> Iterator[list[ClusterStatus]]:
    """The state once a second; of a single cluster until it is removed."""
    from minicluster.cluster import Cluster

    while True:
        begun = time.monotonic()
        if opened is None:
            yield _all_of_project(several)
        else:
            yield [opened.status()]
        time.sleep(max(0.0, begun + _PERIOD - time.monotonic()))
        if opened is not None:
            try:
                opened = Cluster.open(opened.name, engine=opened.engine)  # nodes may have come or gone
            except NoCluster:
                return
            except Incomplete:  # it is being removed
                continue


def _all_of_project(names: Sequence[str]) -> list[ClusterStatus]:
    """The state of clusters of the project file, those that were not started included."""
    from concurrent.futures import ThreadPoolExecutor

    from minicluster import discovery
    from minicluster.cluster import Cluster
    from minicluster.engine import discover
    from minicluster.model.results import ClusterStatus

    its, engine = discovery.project(), discover.connect()
    assert its
    known = discovery.names(engine)

    def one(name: str) -> ClusterStatus:
        profile = os.path.basename(its.clusters[name].profile)
        try:
            if name in known:
                return Cluster.open(name, engine=engine).status()
        except NoCluster:  # removed meanwhile
            pass
        except UsageError as error:  # its record cannot be read; the others' can
            return ClusterStatus(name, profile, "broken", None, (), (" ".join(str(error).split("\n")),))
        return ClusterStatus(name, profile, "missing", None, ())

    with ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(one, names))


def _quorum(quorum: Quorum) -> str:
    """The state of a quorum: "3 of 3, leader kv-2, survives 1 loss"."""
    if quorum.lost:
        return f"lost, {quorum.healthy} of {quorum.voters} healthy, {quorum.needed} needed"
    leader = f"leader {quorum.leader}" if quorum.leader else "no leader"
    losses = f"{quorum.survives or 'no'} loss{'' if quorum.survives < 2 else 'es'}"
    return f"{quorum.healthy} of {quorum.voters}, {leader}, survives {losses}"


def _voters(nodes: Sequence[NodeStatus]) -> list[str]:
    """The names of voters by the state of their nodes, a line each."""
    states: dict[str, list[str]] = {}
    for node in sorted(nodes, key=lambda node: node.phase != "running"):
        states.setdefault(node.phase, []).append(node.name)
    return [f"  {state}: {listed(names)}" for state, names in states.items()]


def _status_text(answer: ClusterStatus) -> str:
    if answer.phase == "missing":
        name = paint(answer.cluster, "bold")
        return f"{name} ({answer.profile}): not started; `minicluster up {answer.cluster}` starts it"
    quorums = answer.quorums or ({"": answer.quorum} if answer.quorum else {})
    lost = any(quorum.lost for quorum in quorums.values())
    phase = paint("quorum lost", "red") if lost and answer.phase == "broken" else colored_phase(answer.phase)
    lines = [f"{paint(answer.cluster, 'bold')} ({answer.profile}): {phase}"]
    for role, quorum in quorums.items():
        lines.append(f"quorum{f' of {role}' if len(quorums) > 1 else ''}: {_quorum(quorum)}")
        if quorum.lost:
            lines += _voters([node for node in answer.nodes if node.voter and node.role == role])
    with_leader = any(node.leader is not None for node in answer.nodes)
    with_detail = any(node.detail for node in answer.nodes)
    with_probe = any(not node.ready for node in answer.nodes)
    with_host = any(node.host for node in answer.nodes)
    head = [
        "NODE",
        "ROLE",
        *(["HOST"] if with_host else []),
        "ADDRESS",
        "PHASE",
        "READY",
        *(["LEADER"] if with_leader else []),
        "MEMORY",
    ]
    head += ["DETAIL"] if with_detail else []
    rows = []
    for node in answer.nodes:
        row = [
            node.name,
            node.role,
            *([node.host] if with_host else []),
            node.address,
            colored_phase(node.phase),
            colored_phase("yes" if node.ready else "no"),
        ]
        row += [{True: "yes", False: "", None: ""}[node.leader]] if with_leader else []
        row += [size(node.memory)]
        row += [printable(node.detail)] if with_detail else []
        row += ["" if node.ready else " ".join(printable(node.probe).split())] if with_probe else []
        rows.append(row)
    lines += [columns(rows, [*head, "PROBE"] if with_probe else head)] if rows else []
    if answer.faults:
        from minicluster.cli.faults import described

        lines += [f"fault {fault.id}: {described(fault)}" for fault in answer.faults]
    lines += [f"Note: {note}" for note in answer.notes]
    return "\n".join(lines)


@click.command(cls=Command)
@cluster_argument
@address_mode_option
@output_option
def info(cluster: str | None, address_mode: str | None, output: Output) -> None:
    """Show how to connect to a cluster."""
    from minicluster.cluster import Cluster

    opened = Cluster.open(cluster, address_mode=address_mode)
    opened.connect()
    notes = opened.write_client_files()
    answer = opened.info()
    answer = replace(answer, notes=(*answer.notes, *notes))
    if output is Output.json:
        print_json(answer)
    else:
        print(_info_text(answer))


def _info_text(answer: ClusterInfo) -> str:
    lines = [f"{paint(answer.cluster, 'bold')} ({answer.profile}): {answer.summary}", f"subnet: {answer.subnet}"]
    if answer.address_mode != "localhost":
        lines.append(f"address mode: {answer.address_mode}")
    if answer.parts:
        lines.append(f"software: {', '.join(f'{name} {origin}' for name, origin in answer.parts.items())}")
    if answer.endpoints:
        rows = [(e.name, e.node, e.url) for e in answer.endpoints]
        lines += ["", columns(rows, ("ENDPOINT", "NODE", "URL"))]
    if answer.env:
        hint = exports.usage(answer.cluster, exports.Shell.sh)
        lines += ["", f"Environment for the native client: {paint(hint, 'cyan')}"]
        lines += [columns([(key, value) for key, value in answer.env.items()], indent="  ")]
    if answer.demo_image:
        lines += ["", f"Demo image, in the engine of each node that has one: {answer.demo_image}"]
    return "\n".join([*lines, *(f"Note: {note}" for note in answer.notes)])


class EnvCommand(Command):
    """Where it fails, what it prints stops ``eval "$(minicluster env)" && ...``, which would ignore its exit status."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> click.Context:
        """Parses the words."""
        words = " ".join(args).replace("=", " ").split()
        try:
            return super().make_context(info_name, args, *more, **extra)
        except (click.ClickException, MiniclusterError):
            if "json" not in words and "--json" not in words:
                shells = [shell for shell in exports.Shell if shell.value in words]
                _stop(shells[0] if shells else exports.Shell.sh)
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except (Exception, KeyboardInterrupt):
            if ctx.params["output"] is not Output.json:
                _stop(ctx.params["shell"])
            raise


def _stop(shell: exports.Shell) -> None:
    with contextlib.suppress(OSError):  # whoever reads may have gone
        print("\n".join(exports.failure(shell)), flush=True)


@click.command(cls=EnvCommand)
@cluster_argument
@exports.shell_option
@click.option("--unset", is_flag=True, help="Unset the variables instead")
@address_mode_option
@output_option
def env(cluster: str | None, shell: exports.Shell, unset: bool, address_mode: str | None, output: Output) -> None:
    """Print environment variables for the native client.

    For sh, bash and zsh: eval "$(minicluster env)". It also unsets those that an earlier one set for another cluster.
    """
    if not unset:
        print_env(cluster, shell, address_mode, output)
        return
    if output is Output.json:
        raise UsageError("--unset and -o json cannot be used together")
    from minicluster import cluster as facade
    from minicluster.operations import clients

    former = exports.recorded()
    names = facade.env_names(cluster) if cluster or not former else ()
    statements = exports.unsets([*former, *names], shell)
    statements += exports.exports(clients.former_path(), shell)
    arguments = f"{shlex.quote(cluster)} --unset" if cluster else "--unset"
    print("\n".join([*statements, f"# {exports.usage(arguments, shell)}"]))


def print_env(cluster: str | None, shell: exports.Shell, address_mode: str | None, output: Output) -> None:
    """The variables of a cluster for its native client, whose files are written."""
    from minicluster import cluster as facade
    from minicluster.operations import clients

    opened = facade.Cluster.open(cluster, address_mode=address_mode)
    opened.connect()
    notes = opened.write_client_files()
    variables = opened.env()
    for note in notes:
        print(f"Note: {note}", file=sys.stderr)
    if output is Output.json:
        print_json(variables)
        return
    statements = exports.switch(variables, clients.path(opened.engine, opened.spec), shell)
    print("\n".join([*statements, f"# {exports.usage(shlex.quote(cluster) if cluster else '', shell)}"]))
