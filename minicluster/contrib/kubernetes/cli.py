"""``minicluster kubeconfig``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from minicluster.cli.help import Command
from minicluster.cli.options import cluster_option
from minicluster.errors import UsageError


@click.command(cls=Command)
@cluster_option
@click.option("--merge", is_flag=True, help="Merge it into your kubeconfig, until the cluster is taken down")
@click.option("--unmerge", is_flag=True, help="Remove it from your kubeconfig")
@click.option(
    "--file", metavar="PATH", help="Your kubeconfig (default: where kubectl writes, $KUBECONFIG or ~/.kube/config)"
)
def kubeconfig(cluster: str | None, merge: bool, unmerge: bool, file: str | None) -> None:
    """Print a cluster's kubeconfig, or merge it into yours.

    --merge also makes the cluster the current context. Everything else in your file stays as it is, comments included.
    """
    if merge and unmerge:
        raise UsageError("--merge and --unmerge do the opposite.", fix="Leave one of them out.")
    if file and not (merge or unmerge):
        raise UsageError(
            "--file says where to merge.", fix="Add --merge; or print into it: `minicluster kubeconfig >FILE`."
        )
    from minicluster.cluster import Cluster
    from minicluster.contrib.kubernetes import kubeconfig as user

    path = Path(file).expanduser() if file else None
    if unmerge:
        # It may be that the cluster is gone, and its entries could not be taken out when it went.
        name = cluster or os.environ.get("MINICLUSTER") or Cluster.open().name
        for place in [path] if path else user.merged(name) or [user.target()]:
            found = user.unmerge(name, place)
            print(f"{place}: cluster {name} is {'taken out' if found else 'not in it'}.")
        return
    opened = Cluster.open(cluster)
    text = user.text(opened)
    for note in opened.notes:
        print(f"Note: {note}", file=sys.stderr)
    if merge:
        path = path or user.target()
        user.merge(opened.name, path)
        print(f"{path}: cluster {opened.name} is in it, and the current context.")
    else:
        sys.stdout.write(text)


app = kubeconfig  # as the entry point in pyproject.toml names it
