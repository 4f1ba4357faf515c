"""``image build|import|list|remove``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from minicluster.cli import complete
from minicluster.cli.options import Output, OutputOption, QuietOption, pairs
from minicluster.cli.output import columns, print_json, size
from minicluster.cli.progress import listening
from minicluster.errors import UsageError


def build(
    profile: Annotated[
        str, typer.Argument(metavar="PROFILE", help="A profile's name or folder.", autocompletion=complete.profiles)
    ],
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[IMAGE...]", show_default=False, help="Which of its images; all by default."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=V", show_default=False, help="As of 'up'. May be repeated."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build even what is there and up to date.")] = False,
    output: OutputOption = Output.text,
    quiet: QuietOption = False,
) -> None:
    """Build a profile's node images from their recipes, ahead of 'up'."""
    from minicluster.operations import images

    with listening(quiet) as listener:
        chosen = pairs("--set", "PATH=V", settings)
        refs = images.build(profile, names or [], force=force, listener=listener, settings=chosen)
    if output is Output.json:
        print_json(refs)
    elif not quiet:
        print("\n".join(refs))


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A tar that 'docker save' wrote; it may be compressed.")],
    output: OutputOption = Output.text,
    quiet: QuietOption = False,
) -> None:
    """Load images from a file, where no registry is in reach."""
    from minicluster.operations import images

    with listening(quiet) as listener:
        refs = images.load(file, listener=listener)
    if output is Output.json:
        print_json(refs)
    elif not quiet:
        print("\n".join(f"loaded {ref}" for ref in refs))


def list_(output: OutputOption = Output.text) -> None:
    """List the node images that were built."""
    from minicluster.operations import images

    found = images.listing()
    if output is Output.json:
        print_json(found)
    elif found:
        rows = [(i.ref, i.profile, i.name, size(i.size), "yes" if i.in_use else "") for i in found]
        print(columns(rows, ("IMAGE", "PROFILE", "NAME", "SIZE", "IN USE")))
    else:
        print("There is no image.", file=sys.stderr)


def remove(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[IMAGE...]", show_default=False, help="Images, or profiles for all of theirs."),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every image that no cluster uses.")] = False,
    output: OutputOption = Output.text,
    quiet: QuietOption = False,
) -> None:
    """Remove node images that were built; 'up' builds them again."""
    if bool(words) == all_:
        raise UsageError("image remove takes images, or --all.", fix="Name images, or write --all for all unused ones.")
    from minicluster.operations import images

    removed = images.remove(words or [], unused_only=all_)
    if output is Output.json:
        print_json(removed)
    elif not quiet:
        print("\n".join(f"removed {ref}" for ref in removed) or "There was nothing to remove.")
