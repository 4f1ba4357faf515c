"""``dashboard``: a page with all clusters as they are."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from minicluster.cli.help import Command
from minicluster.cli.termination import terminable
from minicluster.errors import MiniclusterError

if TYPE_CHECKING:
    from minicluster.dashboard.access import Access

_PORT = 7070  # where it is served if it is free
_MODULES = ("starlette", "uvicorn")


@click.command(cls=Command)
@click.option("--control", is_flag=True, help="Kill, pause, start and isolate nodes on the page, and scale roles")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help=f"Port on 127.0.0.1 (default: {_PORT}, or a free one)",
)
@click.option("--no-browser", is_flag=True, help="Open no browser; print the address")
def dashboard(control: bool, port: int | None, no_browser: bool) -> None:
    """Show all clusters on a page in the browser.

    Nodes, leaders, what runs on them, faults and events, live. Served on 127.0.0.1 until Ctrl-C. A link opens it
    once; the command prints a file that opens it in another browser.
    """
    try:
        from minicluster.dashboard import server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _MODULES:
            raise
        raise MiniclusterError(
            f"the dashboard needs the Python package {error.name}",
            "It is an extra of minicluster, which is not installed.",
            "Install minicluster with it: `pip install '.[dashboard]'` in a checkout.",
        ) from None
    from minicluster.dashboard import access
    from minicluster.dashboard.hub import Hub
    from minicluster.dashboard.watch import Watch
    from minicluster.engine import discover

    engine = discover.connect(start_private=True)
    listening = server.bound(_PORT if port is None else port, wanted=port is not None)
    with terminable(), listening:  # the file that opens the page is removed in any case
        used = listening.getsockname()[1]
        base = f"http://{server.HOST}:{used}"
        entrance = access.Access(base, access.folder() / f"open-{used}.html", access.key(), control=control)
        watch = Watch(engine, Hub())
        try:
            watch.start()
            page = server.Dashboard(watch, entrance, used, may_control=control)
            server.server(page, lambda: _tell(base, entrance, control, no_browser), _say).run(sockets=[listening])
        except KeyboardInterrupt:
            raise click.exceptions.Exit(130) from None  # the usual end of watching: no message
        finally:
            watch.stop()
            entrance.close()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _tell(base: str, entrance: Access, control: bool, no_browser: bool) -> None:
    """Opens a browser by the file, whose name is no secret, or says how to."""
    file = entrance.opener.as_uri()
    print(f"Dashboard of all clusters{', with control' if control else ''}: {base}", flush=True)
    if not no_browser and _has_screen():
        import webbrowser

        if webbrowser.open(file):
            print(f"Another browser: open {file}", flush=True)
            return
    print(f"Open this file in a browser of this machine: {file}")
    print(f"Or this address, which works once: {entrance.url}", flush=True)


def _has_screen() -> bool:
    """Whether a browser would open a window: one in this terminal would take it over."""
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
