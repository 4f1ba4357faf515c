"""``demo``: lists demos, presents one, or checks them."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import click

from minicluster.cli import complete
from minicluster.cli.help import Command
from minicluster.cli.options import Output, output_option, set_option, timeout_option
from minicluster.cli.output import columns, on_terminal, paint, print_json
from minicluster.cli.termination import terminable
from minicluster.errors import Interrupted, MiniclusterError, NoEngine, UsageError

if TYPE_CHECKING:
    from minicluster.cluster import Cluster
    from minicluster.demos.catalog import Place
    from minicluster.demos.perform import Outcome
    from minicluster.model.events import Listener

_SHOWN = 72  # columns of a command in a line of --check


@click.command(cls=Command)
@click.argument("names", nargs=-1, metavar="[NAME...]", help="Demo, or its file", shell_complete=complete.demos)
@click.option(
    "--profile",
    metavar="PROFILE",
    help="Profile (default: that of -c, else the first that has it)",
    shell_complete=complete.profiles,
)
@click.option("--auto", is_flag=True, help="Continue without keys; stop at the first unexpected result")
@click.option("--check", is_flag=True, help="Test demos (default: all) and print what each command did")
@click.option(
    "--record", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.cast", help="Record it as asciicast v2"
)
@click.option(
    "-c",
    "--cluster",
    metavar="CLUSTER",
    help="Run in this cluster, which stays (default: one of its own)",
    shell_complete=complete.clusters,
)
@click.option("--keep", is_flag=True, help="Keep the demo's own cluster at the end")
@set_option
@timeout_option()
@output_option
def demo(
    names: tuple[str, ...],
    profile: str | None,
    auto: bool,
    check: bool,
    record: Path | None,
    cluster: str | None,
    keep: bool,
    settings: dict[str, str],
    timeout: float,
    output: Output,
) -> None:
    """List demos, or present one.

    A demo explains, runs commands, and checks what they do. Any key continues, q quits.
    """
    refused = {"--auto": auto, "--record": record, "--cluster": cluster, "--keep": keep}
    if check:
        for option in [option for option, given in refused.items() if given]:
            raise UsageError(f"--check and {option} cannot be used together")
        _check(names, profile, settings, timeout, output)
        return
    if not names:
        for option in [option for option, given in refused.items() if given]:
            raise UsageError(f"{option} needs a demo", "", "`minicluster demo` lists them.")
        _list(profile, output)
        return
    if len(names) > 1:
        raise UsageError("several demos are named", "Only --check takes several.", "Name one.")
    if output is Output.json:
        raise UsageError("-o json needs --check, or no demo")
    if cluster and (keep or settings):
        option = "--keep" if keep else "--set"
        raise UsageError(f"--cluster and {option} cannot be used together", "That cluster exists already.")
    if not auto and not (on_terminal(sys.stdin) and on_terminal(sys.stdout)):
        raise UsageError(
            "a demo needs a terminal",
            "Standard input or output is not a terminal.",
            "Use --auto to run it without keys, or --check to test it.",
        )
    from minicluster.demos import catalog

    if cluster and not profile and not catalog.is_file(names[0]):
        from minicluster.cluster import Cluster

        profile = Cluster.open(cluster).spec.source
    place = catalog.find(names[0], profile)
    with terminable():
        if not _present(
            place, auto=auto, record=record, cluster=cluster, keep=keep, settings=settings, timeout=timeout
        ):
            raise click.exceptions.Exit(1)


# The list


def _list(profile: str | None, output: Output) -> None:
    from minicluster.demos import catalog
    from minicluster.demos.document import read

    found, broken = [], []
    for path, of in catalog.files(profile):
        try:
            found.append(catalog.Place(read(path), of))
        except UsageError as error:  # a broken one must not hide the others
            broken.append((path.stem, of, f"invalid: {error.what}"))
    places = catalog.ordered(found)
    if output is Output.json:
        print_json(
            [
                {
                    "name": d.demo.name,
                    "profile": d.profile,
                    "title": d.demo.title,
                    "note": d.demo.note,
                    "path": d.demo.path,
                }
                for d in places
            ]
        )
        return
    rows = [(place.demo.name, place.profile, place.demo.title) for place in places] + broken
    print(columns(rows, ("DEMO", "PROFILE", "TITLE")) if rows else "No demos found.")


# The test


def _check(names: Sequence[str], profile: str | None, settings: dict[str, str], timeout: float, output: Output) -> None:
    """Runs demos one after the other. The exit status is 1 if one of them failed."""
    from minicluster.cli.progress import notices
    from minicluster.demos import catalog, perform
    from minicluster.demos.document import read

    places = [catalog.find(name, profile) for name in names]
    if not names:
        places = catalog.ordered([catalog.Place(read(path), of) for path, of in catalog.files(profile)])
    answers: list[dict[str, Any]] = []
    for place in places:
        if output is Output.text:
            print(paint(f"{place.demo.name} ({place.profile})", "bold"), flush=True)
        begun, done, why = time.monotonic(), [], ""
        ended = _line if output is Output.text else lambda _outcome: None
        try:
            with terminable():
                done = perform.check(place, settings, timeout=timeout, listener=notices(), ended=ended)
        except (Interrupted, NoEngine):
            raise
        except MiniclusterError as error:
            why = str(error)
        failed = [_failure(place, outcome) for outcome in done if outcome.problem]
        answer = {
            "demo": place.demo.name,
            "profile": place.profile,
            "verdict": "failed" if why or failed else "ok",
            "reason": why or "; ".join(one["reason"] for one in failed),
            "seconds": time.monotonic() - begun,
            "commands": len(done),
            "failed": failed,
        }
        answers.append(answer)
        if output is Output.text:
            _print_verdict(answer)
    if output is Output.json:
        print_json(answers)
    if any(answer["verdict"] == "failed" for answer in answers):
        raise click.exceptions.Exit(1)


def _failure(place: Place, outcome: Outcome) -> dict[str, Any]:
    return {
        "reason": f"{place.demo.path}:{outcome.command.line}: {outcome.problem}",
        "command": outcome.command.text,
        "line": outcome.command.line,
        "status": outcome.status,
        "output": outcome.output,
    }


def _print_verdict(answer: dict[str, Any]) -> None:
    verdict = answer["verdict"]
    lines = [f"          {line}" for line in answer["reason"].splitlines()]
    for one in answer["failed"]:
        lines += [f"          | {line}" for line in one["output"].splitlines()]
    color = "green" if verdict == "ok" else "red"
    lines.append(
        f"{paint(f'{verdict:6}', color)}  {answer['demo']} ({answer['profile']}): "
        f"{answer['commands']} commands, {answer['seconds']:.1f} s"
    )
    print("\n".join(lines), flush=True)


def _line(outcome: Outcome) -> None:
    """Prints what a command did."""
    word, color = ("failed", "red") if outcome.problem else ("ok", "green")
    first, *more = outcome.command.text.splitlines()
    text = f"{first} ..." if more else first
    text = f"{text[: _SHOWN - 4]} ..." if len(text) > _SHOWN else text
    print(f"  {paint(f'{word:6}', color)} {outcome.seconds:6.1f} s  {text}", flush=True)


# The presentation


def _present(
    place: Place,
    *,
    auto: bool,
    record: Path | None,
    cluster: str | None,
    keep: bool,
    settings: dict[str, str],
    timeout: float,
) -> bool:
    """Presents a demo; returns whether all went as it says."""
    from rich.console import Console

    from minicluster.cli.presenter import Left, Presenter, keys
    from minicluster.cli.progress import listening
    from minicluster.demos import perform
    from minicluster.demos.recording import Recording
    from minicluster.engine import discover

    perform.check_commands(place.demo)
    existing = perform.existing_cluster(place, cluster) if cluster else None
    name = cluster or perform.cluster_name(place.demo, checked=False)
    if not cluster:  # before anything is shown
        perform.refuse_taken(discover.connect(start_private=True), name)
    terminal = on_terminal(sys.stdout)
    with contextlib.ExitStack() as stack:
        console = Console(highlight=False)
        if record:
            size = console.size if terminal else (80, 24)
            recording = Recording(record, place.demo.title, *size, sys.stdout if terminal else None)
            stack.enter_context(recording)
            file, (width, height) = cast(IO[str], recording), size
            console = Console(
                file=file, width=width, height=height, force_terminal=True, color_system="standard", highlight=False
            )
        presenter = Presenter(
            console,
            key=None if auto else stack.enter_context(keys()),
            pauses=terminal or record is not None,
        )
        presenter.opens(place.demo)

        @contextlib.contextmanager
        def shown() -> Iterator[Listener]:
            with listening(quiet=not terminal) as listener:
                yield listener

        def perform_in(cluster: Cluster) -> None:
            try:
                perform.perform(cluster, place.demo, presenter, goes_on=not auto)
            finally:
                presenter.stops()

        if cluster:
            end = f"Cluster {name} is kept; `minicluster reset {name}` removes what the demo created in it."
        elif keep:
            end = f"Cluster {name} is kept; `minicluster down {name}` removes it."
        else:
            end = f"Cluster {name} is removed."
        try:
            if existing:
                perform_in(existing)
            else:
                presenter.types(perform.up_line(place, name, settings))
                begun = time.monotonic()
                with perform.own_cluster(place, name, settings, keep=keep, timeout=timeout, listening=shown) as own:
                    presenter.says(f"Cluster {name} is up ({time.monotonic() - begun:.1f} s).")
                    perform_in(own)
                    if not keep:
                        presenter.ends(f"The end. Cluster {name} runs until you press a key.")
        except Left:
            pass
        except KeyboardInterrupt:
            presenter.says(end)
            raise
        failed = [outcome for outcome in presenter.outcomes if outcome.problem]
        if failed:
            presenter.says(f"{len(failed)} of {len(presenter.outcomes)} commands did not do what the demo says.")
        presenter.says(end)
    if record:
        print(f"Recorded: {record}", file=sys.stderr)
    return not failed
