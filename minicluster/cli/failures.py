"""From exceptions to one clear message on stderr and an exit status."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import typer

from minicluster.cli import extra
from minicluster.cli.help import Group
from minicluster.cli.output import paint
from minicluster.errors import Interrupted, MiniclusterError

DEBUG = "MINICLUSTER_DEBUG"


def describe(error: BaseException) -> str:
    """What happened, why, what to do, and what could not be removed."""
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted."
    if not isinstance(error, MiniclusterError):
        what = f"unexpected {type(error).__name__}: {error}".rstrip(": ")
        error = MiniclusterError(what, fix=f"This is a bug. {DEBUG}=1 shows where it happened.")
    lines = [_error("Error: ") + error.what]
    lines += [f"  {line}".rstrip() for line in error.why.splitlines()]
    if error.fix:
        first, *rest = error.fix.splitlines()
        lines += [paint("Fix: ", "bold", stream=sys.stderr) + first, *(f"     {line}" for line in rest)]
    if error.leftovers:
        lines += ["Could not be removed:", *(f"  - {leftover}" for leftover in error.leftovers)]
    return "\n".join(lines)


def _error(text: str) -> str:
    return paint(text, "bold", "red", stream=sys.stderr)


def exit_code(error: BaseException) -> int:
    """The exit status that stands for an error."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    return error.exit_code if isinstance(error, MiniclusterError) else 1


def fail(error: BaseException) -> NoReturn:
    """Tells about an error and ends the command."""
    if os.environ.get(DEBUG) == "1":
        traceback.print_exception(type(error), error, error.__traceback__)
    print(describe(error), file=sys.stderr)
    raise typer.Exit(exit_code(error)) from None


class Guarded(Group):
    """The root of all commands, those of entry points too, which no exception leaves but what typer itself shows."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(dict.fromkeys([*super().list_commands(ctx), *extra.names()]))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)  # ours go before others of the same name
        return extra.load(cmd_name) if command is None and cmd_name in extra.found() else command

    def invoke(self, ctx: Any) -> Any:
        lost: Callable[[], bool] = bool
        try:
            with repeated() as lost:
                result = super().invoke(ctx)
            sys.stdout.flush()  # so that a closed pipe shows here, not in the interpreter's last moment
            return result
        except BrokenPipeError:
            # Whoever read has seen enough (`minicluster logs | head`): end in silence, at exit too.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except (typer.Exit, typer.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if hasattr(error, "format_message"):  # wrong usage, which typer shows along with the command's usage
                raise
            fail(_interrupt(error) if lost() else error)


def _interrupt(error: BaseException) -> BaseException:
    """What failed since an interrupt was dropped may have failed by just that; what it left is told all the same."""
    if exit_code(error) == 130:
        return error
    told: BaseException = KeyboardInterrupt()
    if isinstance(error, MiniclusterError) and error.leftovers:
        told = Interrupted("interrupted", fix=error.fix)
        told.leftovers = error.leftovers
    told.__cause__ = error
    return told


@contextmanager
def repeated(seconds: float = 0.01) -> Iterator[Callable[[], bool]]:
    """Raises an interrupt again that came where Python drops exceptions, seconds later; tells whether there was one.

    Finalizers are such places, and what a library's compiled code calls (pydantic's, of a pattern, among them).
    """
    before = sys.unraisablehook
    timers: list[threading.Timer] = []

    def hook(dropped: Any) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            before(dropped)
            return
        # A shell lets what it starts in the background ignore Ctrl-C: then it was another signal.
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        number = signal.SIGTERM if ignored else signal.SIGINT
        timer = threading.Timer(seconds, os.kill, (os.getpid(), number))
        timer.daemon = True
        timers.append(timer)
        timer.start()

    sys.unraisablehook = hook
    try:
        yield lambda: bool(timers)
    finally:
        sys.unraisablehook = before
        for timer in timers:
            timer.cancel()
            timer.join()  # if it is too late for that, the interrupt is raised here


@contextmanager
def terminable() -> Iterator[None]:
    """Lets SIGTERM take the way of Ctrl-C while something is changed, so that it is rolled back just the same."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # SIGHUP: the terminal was closed.
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is interrupt:
                signal.signal(number, handler)
