"""``minicluster kubectl``, ``etcdctl`` and the like: the client out of a node image, run against the cluster."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from minicluster.errors import MiniclusterError


class _Client(click.Command):
    """All of its arguments are the client's, ``--help`` too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.params["arguments"] = list(args)
        return []


def _client(name: str) -> click.Command:
    about = f"Run a cluster's own {name}"
    return _Client(name, callback=lambda arguments: _run(name, arguments), help=about, add_help_option=False)


def _run(name: str, arguments: list[str]) -> None:
    from minicluster import discovery
    from minicluster.cluster import Cluster
    from minicluster.engine.discover import connect
    from minicluster.operations import clients, host_record

    cluster = None
    # Only in front: the client has options of the same names.
    if arguments[:1] in (["-c"], ["--cluster"]) and len(arguments) > 1:
        cluster, arguments = arguments[1], arguments[2:]
    elif arguments and arguments[0].startswith("--cluster="):
        cluster, arguments = arguments[0].partition("=")[2], arguments[1:]
    if arguments[:1] == ["--"]:  # as in `minikube kubectl -- get pods`; no client takes one in front of its first word
        arguments = arguments[1:]
    engine = discovery.engine_if_any() if host_record.clusters() else connect()
    opened = Cluster.open(discovery.with_program(engine, name, cluster), engine=engine)
    opened.connect()
    for note in opened.write_client_files():
        print(f"Note: {note}", file=sys.stderr)
    tty = sys.stdin.isatty() and sys.stdout.isatty()
    line, env = clients.command(opened.engine, opened.spec, name, arguments, opened.env(), tty=tty)
    sys.stdout.flush()
    try:
        os.execvpe(line[0], line, {**os.environ, **env})
    except OSError as error:  # of another system or architecture, or in a folder whose programs may not run
        raise MiniclusterError(
            f"cannot run {line[0]}",
            f"{error.strerror}.",
            f"Install {Path(line[0]).name} on this machine, and use `minicluster env {opened.name}`.",
        ) from None


kubectl = _client("kubectl")
etcdctl = _client("etcdctl")
docker = _client("docker")
consul = _client("consul")
zk_cli = _client("zkCli")
