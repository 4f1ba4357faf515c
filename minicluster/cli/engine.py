"""``engine start|stop|status``: the private engine, and which one is in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from minicluster.cli.options import Output, OutputOption, QuietOption
from minicluster.cli.output import columns, plain_data, print_json, size
from minicluster.cli.progress import listening
from minicluster.errors import NoEngine

if TYPE_CHECKING:
    from minicluster.engine.private.daemon import Status
    from minicluster.engine.protocol import EngineInfo


def start(output: OutputOption = Output.text, quiet: QuietOption = False) -> None:
    """Start a private container engine, for a machine that runs none."""
    from minicluster.engine.private import daemon

    with listening(quiet) as listener:
        answer = daemon.start(listener)
    if output is Output.json:
        print_json(_private_data(answer))
    elif not quiet:
        print(f"The private engine runs: {answer.url}")
        from minicluster.engine.discover import find

        used = find().url
        if used != answer.url:
            print(f"Another engine answers, and goes before it: {used}. To use this one: DOCKER_HOST={answer.url}")


def stop(
    remove_data: Annotated[
        bool, typer.Option("--remove-data", help="Remove its images, containers and volumes as well.")
    ] = False,
    output: OutputOption = Output.text,
    quiet: QuietOption = False,
) -> None:
    """Stop the private engine."""
    from minicluster.engine.private import daemon

    with listening(quiet) as listener:
        answer = daemon.stop(listener, remove_data=remove_data)
    if output is Output.json:
        print_json(_private_data(answer))
    elif not quiet:
        print("The private engine is stopped" + (", and its data are removed." if remove_data else "."))


def status(output: OutputOption = Output.text) -> None:
    """Show which engine is in use, and the state of the private one."""
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
        ("version", own.version or f"does not answer: {own.problem}"),
        ("process", f"{own.pid}, log {own.log}"),
        ("data", f"{own.data_root} ({size(own.size)})"),
    ]
