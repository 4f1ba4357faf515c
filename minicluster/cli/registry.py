"""``registry start|stop|status``: the local registry of the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from minicluster.cli.help import Group
from minicluster.cli.options import Output, output_option, quiet_option
from minicluster.cli.output import answer, columns, print_json
from minicluster.cli.progress import listening
from minicluster.model.naming import size

if TYPE_CHECKING:
    from minicluster.operations.local_registry import RegistryStatus

registry = Group("registry", help="Manage the engine's local registry, which all clusters reach.")


@registry.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), metavar="PORT", help="Port on 127.0.0.1 (default: as before, else 5001)"
)
@output_option
@quiet_option
def start(port: int | None, output: Output, quiet: bool) -> None:
    """Start the local registry; create it if there is none."""
    from minicluster.engine.discover import connect
    from minicluster.operations import local_registry

    with listening(quiet) as listener:
        engine = connect(start_private=True, listener=listener)
        found = local_registry.start(engine, port, listener)
    host = found.host
    lines = (
        f"The local registry is running: {host}",
        f"Next: docker tag IMAGE {host}/NAME && docker push {host}/NAME",
        f"      Nodes pull it as {host}/NAME.",
    )
    answer(found, "\n".join(lines), output, quiet=quiet)


@registry.command()
@click.option("--remove-data", is_flag=True, help="Also remove its container and its images")
@output_option
@quiet_option
def stop(remove_data: bool, output: Output, quiet: bool) -> None:
    """Stop the local registry."""
    from minicluster.engine.discover import connect
    from minicluster.operations import local_registry

    with listening(quiet) as listener:
        engine = connect()
        there = local_registry.status(engine)
        found = local_registry.stop(engine, remove_data=remove_data, listener=listener)
    done = f"Stopped the local registry{' and removed its data' if remove_data else ''}."
    if there.state == "none":
        done = "No local registry found."
    answer(found, done, output, quiet=quiet)


@registry.command()
@output_option
def status(output: Output) -> None:
    """Show the local registry and which clusters it serves."""
    from minicluster.engine.discover import connect
    from minicluster.operations import local_registry

    found = local_registry.status(connect(), size=True)
    if output is Output.json:
        print_json(found)
    else:
        print("local registry: none" if found.state == "none" else f"local registry: {found.state}")
        rows = _rows(found)
        if rows:
            print(columns(rows, indent="  "))


def _rows(found: RegistryStatus) -> list[tuple[str, str]]:
    rows = [("images", f"{found.host}/NAME"), ("container", found.container)] if found.host else []
    if found.size is not None:
        rows.append(("data", f"{found.volume} ({size(found.size)})"))
    return [*rows, ("clusters", ", ".join(found.clusters) or "none")] if found.host else rows
