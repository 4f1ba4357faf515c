"""``minicluster kubeconfig``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from minicluster.cli.help import Command
from minicluster.cli.options import cluster_argument
from minicluster.cli.termination import terminable
from minicluster.errors import UsageError
from minicluster.paths import expanded


@click.command(cls=Command)
@cluster_argument
@click.option("--merge", is_flag=True, help="Merge it into your kubeconfig; 'down' removes it")
@click.option("--unmerge", is_flag=True, help="Remove it from your kubeconfig")
@click.option(
    "--file", metavar="PATH", help="Your kubeconfig (default: where kubectl writes, $KUBECONFIG or ~/.kube/config)"
)
def kubeconfig(cluster: str | None, merge: bool, unmerge: bool, file: str | None) -> None:
    """Print a cluster's kubeconfig, or merge it into yours.

    --merge also makes the cluster the current context. Everything else in your file stays as it is, comments included.
    """
    if merge and unmerge:
        raise UsageError("--merge and --unmerge cannot be used together", fix="Remove one of them.")
    if file and not (merge or unmerge):
        raise UsageError(
            "--file needs --merge or --unmerge",
            fix="To write the kubeconfig to a file: `minicluster kubeconfig >FILE`.",
        )
    with terminable():  # an edit leaves no lock behind
        _run(cluster, merge, unmerge, expanded(file) if file else None)


def _run(cluster: str | None, merge: bool, unmerge: bool, path: Path | None) -> None:
    from minicluster import discovery
    from minicluster.cluster import Cluster
    from minicluster.contrib.kubernetes import kubeconfig as user

    if unmerge:
        # The cluster may be gone: its entries stay if they could not be removed with it.
        default = discovery.default()
        name = cluster or (default.name if default else Cluster.open().name)
        for place in [path] if path else user.merged(name) or [user.target()]:
            if user.unmerge(name, place):
                print(f"Removed cluster {name} from {place}.")
            else:
                print(f"Cluster {name} is not in {place}.")
        return
    opened = Cluster.open(cluster)
    opened.connect()
    notes = opened.write_client_files()
    text = user.text(opened)
    for note in notes:
        print(f"Note: {note}", file=sys.stderr)
    if merge:
        path = path or user.target()
        user.merge(opened.name, path)
        print(f"Merged cluster {opened.name} into {path}; it is the current context.")
    else:
        sys.stdout.write(text)


app = kubeconfig  # as the entry point in pyproject.toml names it
