"""``load``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from minicluster.cli import complete
from minicluster.cli.help import Command
from minicluster.cli.options import Output, cluster_option, dry_run_option, output_option, quiet_option
from minicluster.cli.output import print_json
from minicluster.cli.progress import listening
from minicluster.cli.target import of_nodes
from minicluster.errors import UsageError
from minicluster.model.naming import count

if TYPE_CHECKING:
    from minicluster.model.results import Loaded


@click.command(cls=Command)
@click.argument(
    "images",
    nargs=-1,
    metavar="IMAGE|FILE...",
    help="Images of the engine; image archives (- is stdin)",
    shell_complete=complete.images_or_files,
)
@cluster_option
@click.option(
    "--node",
    "nodes",
    multiple=True,
    metavar="NODE",
    help="Only into this node or role; repeatable",
    shell_complete=complete.nodes,
)
@click.option("--build", "folder", metavar="DIR", help="Build this folder's image on the engine first; needs -t")
@click.option("-t", "--tag", metavar="NAME", help="Name of the image that --build makes")
@click.option("-f", "--file", "dockerfile", metavar="PATH", help="Dockerfile of --build (default: DIR/Dockerfile)")
@dry_run_option
@output_option
@quiet_option
def load(
    images: tuple[str, ...],
    cluster: str | None,
    nodes: tuple[str, ...],
    folder: str | None,
    tag: str | None,
    dockerfile: str | None,
    dry_run: bool,
    output: Output,
    quiet: bool,
) -> None:
    """Copy images into nodes.

    FILE is an archive by docker save, or an OCI archive, compressed or not. What a node has already is not sent.
    """
    _check(images, folder, tag, dockerfile, dry_run)
    opened, nodes = of_nodes(cluster, nodes, "load", " ".join(images))
    if dry_run:
        from minicluster.cli.planned import show_plans

        show_plans([opened.plan_load(image, nodes) for image in images], output)
        return
    done = []
    with listening(quiet) as listener:
        if folder and tag:
            images = (opened.build(folder, tag, dockerfile, nodes, listener=listener), *images)
        for image in images:
            done.append(opened.load(image, nodes, listener=listener))
    if output is Output.json:
        print_json(done)
    elif not quiet:
        for one in done:
            print(_sentence(one))


def _check(images: tuple[str, ...], folder: str | None, tag: str | None, dockerfile: str | None, dry: bool) -> None:
    if not images and not folder:
        raise UsageError("load needs an image, an archive or --build", fix="minicluster load IMAGE")
    if folder and not tag:
        raise UsageError("--build needs a name for the image", fix=f"minicluster load --build {folder} -t NAME")
    if not folder and (tag or dockerfile):
        raise UsageError(f"{'-t' if tag else '-f'} needs --build")
    if folder and dry:
        raise UsageError("--build and --dry-run cannot be used together", "What would be loaded is not built yet.")
    if images.count("-") > 1:
        raise UsageError("standard input is given twice")


def _sentence(done: Loaded) -> str:
    """What was done, such as "app:1: loaded into 2 nodes; already there in 1 node"."""
    parts = [
        f"{words} {count(len(nodes), 'node')}"
        for words, nodes in (
            ("loaded into", done.sent),
            ("already there, tagged in", done.tagged),
            ("already there in", done.present),
        )
        if nodes
    ]
    return f"{', '.join(done.images)}: {'; '.join(parts)}."
