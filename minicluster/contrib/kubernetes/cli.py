"""``minicluster kubeconfig``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from minicluster.cli.help import Command
from minicluster.cli.options import ClusterOption
from minicluster.errors import UsageError

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(cls=Command)
def kubeconfig(
    cluster: ClusterOption = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Put it into your kubeconfig instead, until the cluster is taken down.")
    ] = False,
    unmerge: Annotated[bool, typer.Option("--unmerge", help="Take it out of there again.")] = False,
    file: Annotated[
        str | None,
        typer.Option(
            "--file",
            metavar="PATH",
            show_default=False,
            help="Your kubeconfig; by default where kubectl would write: $KUBECONFIG or ~/.kube/config.",
        ),
    ] = None,
) -> None:
    """Print a cluster's kubeconfig, or merge it into yours.

    Merged, the cluster is the current context. Other entries stay as they are; comments are lost, as by kubectl.
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
    opened.connect()
    notes = opened.write_client_files()
    text = user.text(opened)
    for note in notes:
        print(f"Note: {note}", file=sys.stderr)
    if merge:
        path = path or user.target()
        user.merge(opened.name, path)
        print(f"{path}: cluster {opened.name} is in it, and the current context.")
    else:
        sys.stdout.write(text)
