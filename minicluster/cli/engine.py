"""``engine start|stop|status``: the private engine, and the engine in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from minicluster.cli.help import Group
from minicluster.cli.options import Output, output_option, quiet_option
from minicluster.cli.output import answer, columns, plain_data, print_json
from minicluster.cli.progress import listening
from minicluster.errors import NoEngine
from minicluster.model.naming import size

if TYPE_CHECKING:
    from minicluster.engine.private.daemon import Status
    from minicluster.engine.protocol import EngineInfo


engine = Group("engine", help="Manage the private container engine.")


@engine.command()
@output_option
@quiet_option
def start(output: Output, quiet: bool) -> None:
    """Start the private engine, on a machine that runs no engine."""
    from minicluster.engine.private import daemon

    with listening(quiet) as listener:
        own = daemon.start(listener)
    answer(_private_data(own), f"Started the private engine: {own.url}", output, quiet=quiet)
    if output is Output.text and not quiet:
        from minicluster.engine.discover import locate

        used = locate().url
        if used != own.url:
            print(f"Note: {used} is running and takes precedence. To use this one, set DOCKER_HOST={own.url}")


@engine.command()
@click.option("--remove-data", is_flag=True, help="Also remove its images, containers and volumes")
@output_option
@quiet_option
def stop(remove_data: bool, output: Output, quiet: bool) -> None:
    """Stop the private engine."""
    from minicluster.engine.private import daemon

    with listening(quiet) as listener:
        own = daemon.stop(listener, remove_data=remove_data)
    done = f"Stopped the private engine{' and removed its data' if remove_data else ''}."
    answer(_private_data(own), done, output, quiet=quiet)


@engine.command()
@output_option
def status(output: Output) -> None:
    """Show the engine in use and the state of the private engine."""
    from minicluster.engine.discover import connect
    from minicluster.engine.private import daemon

    missing = ""
    used: EngineInfo | None = None
    try:
        used = connect().info
    except NoEngine as error:
        missing = error.what
    own = daemon.status(size=True)
    if output is Output.json:
        print_json({"in_use": used, "private": _private_data(own)})
        return
    print("engine in use" if used else f"engine in use: none ({missing})")
    if used:
        print(columns(_engine_rows(used), indent="  "))
    print("private engine" if own.running else "private engine: not running")
    if own.running:
        print(columns(_private_rows(own), indent="  "))
    elif own.size:
        print(columns([("data", f"{own.data_root} ({size(own.size)})")], indent="  "))


def _private_data(own: Status) -> dict[str, Any]:
    return {**plain_data(own), "url": own.url}


def _engine_rows(used: EngineInfo) -> list[tuple[str, str]]:
    return [
        ("endpoint", f"{used.endpoint} ({used.source})"),
        ("version", f"{used.version} (API {used.api_version}), {used.platform}"),
        ("runs on", f"{used.operating_system}, kernel {used.kernel}, cgroup v{used.cgroup_version}"),
        ("machine", f"{used.cpus} CPUs, {size(used.memory)}{', rootless' if used.rootless else ''}"),
        ("data", f"{used.data_root} ({used.storage_driver})"),
    ]


def _private_rows(own: Status) -> list[tuple[str, str]]:
    return [
        ("endpoint", own.url),
        ("version", own.version or f"no answer: {own.problem}"),
        ("process", f"{own.pid}, log {own.log}"),
        ("data", f"{own.data_root} ({size(own.size)})"),
    ]
