"""``image build|import|list|remove``."""

from __future__ import annotations

import sys

import click

from minicluster.cli import complete
from minicluster.cli.help import Group
from minicluster.cli.options import Output, output_option, profile_argument, quiet_option, set_option
from minicluster.cli.output import answer, columns, print_json
from minicluster.cli.progress import listening
from minicluster.errors import UsageError
from minicluster.model.naming import size

image = Group("image", help="Build, import, list and remove node images.")


@image.command()
@profile_argument
@click.argument(
    "names",
    nargs=-1,
    metavar="[IMAGE...]",
    help="Images of the profile (default: all)",
    shell_complete=complete.image_names,
)
@set_option
@click.option("--force", is_flag=True, help="Build even if the image is up to date")
@output_option
@quiet_option
def build(
    profile: str, names: tuple[str, ...], settings: dict[str, str], force: bool, output: Output, quiet: bool
) -> None:
    """Build the node images of a profile, ahead of 'up'."""
    from minicluster.operations import images

    with listening(quiet) as listener:
        refs = images.build(profile, names, force=force, listener=listener, settings=settings)
    answer(refs, "\n".join(refs), output, quiet=quiet)


@image.command("import")
@click.argument("file", metavar="FILE", help="Archive written by 'docker save', compressed or not")
@output_option
@quiet_option
def import_(file: str, output: Output, quiet: bool) -> None:
    """Load images from an archive, for use without a registry."""
    from minicluster.operations import images

    with listening(quiet) as listener:
        refs = images.load(file, listener=listener)
    answer(refs, "\n".join(f"Loaded {ref}" for ref in refs), output, quiet=quiet)


@image.command("list")
@click.option("--parts", "parts_", is_flag=True, help="The parts of node images: version, source, license")
@output_option
def list_(parts_: bool, output: Output) -> None:
    """List the built node images."""
    from minicluster.engine.discover import connect
    from minicluster.operations import images

    if parts_:
        _list_parts(output)
        return
    engine = connect(start_private=True)
    found = images.listing(engine)
    if output is Output.json:
        print_json(found)
        return
    if cache := images.cache_size(engine):
        print(f"Compiler's cache: {size(cache)}.", file=sys.stderr)
    if found:
        rows = [(i.ref, i.profile, i.name, size(i.size), "yes" if i.in_use else "") for i in found]
        print(columns(rows, ("IMAGE", "PROFILE", "NAME", "SIZE", "IN USE")))
    else:
        print("No images found.", file=sys.stderr)


def _list_parts(output: Output) -> None:
    from minicluster.operations import images

    found = images.parts()
    if output is Output.json:
        print_json(found)
    elif found:
        rows = [(p.name, p.version, p.source, p.license, size(p.size)) for p in found]
        print(columns(rows, ("PART", "VERSION", "SOURCE", "LICENSE", "SIZE")))
    else:
        print("No parts found.", file=sys.stderr)


@image.command()
@click.argument("words", nargs=-1, metavar="[IMAGE...]", help="Images, or profiles for all images of each")
@click.option("--all", "all_", is_flag=True, help="All images that no cluster uses")
@click.option("--cache", is_flag=True, help="The compiler's cache: the next compilation starts from nothing")
@output_option
@quiet_option
def remove(words: tuple[str, ...], all_: bool, cache: bool, output: Output, quiet: bool) -> None:
    """Remove built node images; 'up' builds them again."""
    if bool(words) + all_ + cache != 1:
        raise UsageError("image remove needs either images, --all or --cache")
    from minicluster.operations import images

    removed = images.remove_cache() if cache else images.remove(words, unused_only=all_)
    text = "\n".join(f"Removed {ref}" for ref in removed) or "No images to remove."
    answer(removed, text, output, quiet=quiet)
