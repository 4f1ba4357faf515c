"""What ``up`` does at a terminal once a cluster with a kubeconfig is up: merges it into the user's, as kind does."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from minicluster.cli.plugins import AfterUp
from minicluster.errors import MiniclusterError

if TYPE_CHECKING:
    from minicluster.cluster import Cluster


def _merge(cluster: Cluster, unwanted: bool) -> list[str]:
    from minicluster.contrib.kubernetes import kubeconfig

    if unwanted or not kubeconfig.has_one(cluster) or not _at_terminal():
        return []
    file = Path(os.path.abspath(kubeconfig.target()))
    if file in kubeconfig.merged(cluster.name):
        return []  # once: what the user did with it since then is the user's choice
    before = kubeconfig.current_context()
    try:
        kubeconfig.merge(cluster.name, file)
    except MiniclusterError as error:
        again = f"`minicluster kubeconfig --merge -c {cluster.name}`"
        return [f"your kubeconfig stays as it is: {error.what}. {error.why}".rstrip() + f" To merge it: {again}."]
    context = kubeconfig.context_of(cluster.name)
    former = f"before: {before}; `minicluster down {cluster.name}` restores it" if before else "before: none"
    return [f"kubectl's current context is {context}, in {file} ({former})."]


def _at_terminal() -> bool:
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


after_up = AfterUp(
    click.Option(["--no-kubeconfig"], is_flag=True, help="Kubernetes: leave your kubeconfig as it is"), _merge
)
