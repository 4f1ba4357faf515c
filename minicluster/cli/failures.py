"""Turns exceptions into a message on stderr and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import click

from minicluster.cli import verbose
from minicluster.cli.output import paint
from minicluster.cli.termination import repeated
from minicluster.errors import Interrupted, MiniclusterError
from minicluster.model.naming import printable

_BUG = "This is a bug: please report it with the output of the same command with -v."


def describe(error: BaseException) -> str:
    """What happened, why, what to do, and what could not be removed."""
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted."
    if not isinstance(error, MiniclusterError):
        what = f"unexpected {type(error).__name__}: {error}".rstrip(": ")
        error = MiniclusterError(what, fix=_BUG)
    lines = [_error("Error: ") + printable(error.what)]
    lines += [f"  {printable(line)}".rstrip() for line in error.why.splitlines()]
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
    """Prints an error and ends the command."""
    verbose.log_error(error)
    print(describe(error), file=sys.stderr)
    raise click.exceptions.Exit(exit_code(error)) from None


@contextmanager
def reported() -> Iterator[None]:
    """Reports every exception of the block, except click's own: click prints those with the usage line."""
    lost: Callable[[], bool] = bool
    try:
        with repeated() as lost:
            yield
        sys.stdout.flush()  # so that a closed pipe is noticed here, not when the interpreter exits
    except BrokenPipeError:
        # The reader has gone (`minicluster logs | head`): end without a message, at exit too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.exceptions.Exit(1) from None
    except (click.exceptions.Exit, click.exceptions.Abort, click.exceptions.ClickException):
        raise
    except (Exception, KeyboardInterrupt) as error:
        fail(_interrupt(error) if lost() else error)


def _interrupt(error: BaseException) -> BaseException:
    """Reports an error after a dropped interrupt as an interrupt, its likely cause; keeps the leftovers."""
    if exit_code(error) == 130:
        return error
    interrupt: BaseException = KeyboardInterrupt()
    if isinstance(error, MiniclusterError) and error.leftovers:
        interrupt = Interrupted("interrupted", fix=error.fix)
        interrupt.leftovers = error.leftovers
    interrupt.__cause__ = error
    return interrupt
