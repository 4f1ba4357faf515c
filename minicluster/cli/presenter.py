"""A demo on the screen: prose, commands that are typed, their output. Imported only to present one."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.markdown import Markdown
from rich.padding import Padding
from rich.rule import Rule
from rich.syntax import Syntax
from rich.text import Text

from minicluster.demos.document import Command, Demo, File, Heading, Prose

if TYPE_CHECKING:
    from minicluster.demos.perform import Outcome

WIDEST = 100  #: columns of prose: longer lines are hard to read

_TYPING = 1.2  # seconds for a command at most
_STROKE = 0.03  # seconds for a character
_READING = 0.25  # seconds for a word, where no key is pressed
_LONGEST = 8.0  # seconds for a paragraph

Key = Callable[[], str]


class Left(Exception):
    """The presenter has pressed q."""


@contextmanager
def keys() -> Iterator[Key]:
    """Gives what waits for a key. Keys are not shown meanwhile, and those pressed too early are dropped."""
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def key() -> str:
        termios.tcflush(terminal, termios.TCIFLUSH)
        return os.read(terminal, 64).decode(errors="replace")  # an arrow key is several bytes

    tty.setcbreak(terminal)
    try:
        yield key
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


class Presenter:
    """Shows a demo on a console.

    Args:
        key: waits for a key; None: the demo goes on by itself.
        pauses: somebody watches, now or later: there is time to read, and commands are typed.
    """

    def __init__(self, console: Console, *, key: Key | None, pauses: bool) -> None:
        self._console = console
        self._key = key
        self._pauses = pauses
        self.outcomes: list[Outcome] = []  #: of the commands that have ended
        self._live: Live | None = None
        self._at_start = True  # of a line
        self._repeated = False  # the command that runs
        ascii_only = console.options.ascii_only
        self._done, self._failed = ("+", "x") if ascii_only else ("✓", "✗")

    # What a demo is made of

    def opens(self, demo: Demo) -> None:
        """The title."""
        self._console.print()
        self._print(Text(f" {demo.title} ", style="bold reverse"))
        if demo.note:
            self._print(Padding(Text(demo.note, style="yellow"), (1, 0, 0, 0)))
        if self._key:
            self._print(Padding(Text("Any key continues, q quits.", style="dim"), (1, 0, 0, 0)))
        self._console.print()

    def told(self, part: Heading | Prose | File) -> None:
        """Shows prose, a heading, or a file; in front of a step it waits."""
        if isinstance(part, Heading):
            if part.level == 2:
                self._wait()
                self._print(Padding(Rule(Text(part.text, style="bold cyan"), align="left", style="cyan"), (1, 0, 0, 0)))
            else:
                self._print(Padding(Text(part.text, style="bold"), (1, 0, 0, 0)))
            self._console.print()
        elif isinstance(part, Prose):
            self._print(Markdown(part.text, code_theme="ansi_dark", inline_code_theme="ansi_dark"))
            self._console.print()
            self._pause(min(len(part.text.split()) * _READING, _LONGEST))
        else:
            self._print(Text(part.name, style="bold"))
            code = Syntax(part.text, part.language, theme="ansi_dark", background_color="default", word_wrap=True)
            self._print(Padding(code, (0, 0, 1, 2)))
            self._pause(min(len(part.text.split()) * _READING, _LONGEST))

    def begins(self, command: Command) -> None:
        """Waits at the prompt, and types."""
        self.types(command.text)

    def written(self, text: str) -> None:
        """Output, as it comes."""
        self._console.print(Text(text), end="", soft_wrap=True)
        self._at_start = text.endswith("\n")

    def waiting(self, output: str, seconds: float) -> None:
        """Output that is still not as expected: it is replaced by the next."""
        self._repeated = True
        if not self._console.is_terminal:
            return
        shown = Group(
            Text(output.rstrip("\n"), no_wrap=True, overflow="crop"), Text(f"... {seconds:.0f} s", style="dim")
        )
        if self._live is None:
            self._live = Live(
                shown, console=self._console, auto_refresh=False, transient=True,
                redirect_stdout=False, redirect_stderr=False,
            )  # fmt: skip
            self._live.start(refresh=True)
        else:
            self._live.update(shown, refresh=True)

    def ended(self, outcome: Outcome) -> None:
        """The last output, and what is to be said about it."""
        self.stops()
        self.outcomes.append(outcome)
        if outcome.command.within and outcome.output:
            self.written(outcome.output)
        if not self._at_start:
            self._console.print()
            self._at_start = True
        if outcome.problem:
            self._console.print(Text(f"{self._failed} {outcome.problem}", style="red"))
        elif self._repeated:
            self._console.print(Text(f"{self._done} after {outcome.seconds:.1f} s", style="green"))
        elif outcome.command.fails:
            self._console.print(Text(f"{self._done} it fails, as it should", style="green"))
        self._repeated = False
        self._console.print()
        self._pause(1.5)

    # Around it

    def types(self, command: str) -> None:
        """Shows a prompt, waits for a key, and types a command."""
        first, *more = command.splitlines()
        self._console.print(Text("$ ", style="bold green"), end="")
        self._wait()
        self._type(first, len(command))
        for line in more:
            self._console.print(Text("> ", style="bold green"), end="")
            self._type(line, len(command))

    def _type(self, line: str, length: int) -> None:
        """Types a line of a command of this length."""
        for piece in line if self._pauses else [line]:
            self._console.print(Text(piece, style="bold"), end="", soft_wrap=True)
            if self._pauses:
                time.sleep(min(_STROKE, _TYPING / length))
        self._console.print()

    def says(self, text: str) -> None:
        """A line of minicluster's own."""
        self.stops()
        self._print(Text(text, style="bold"))
        self._console.print()

    def ends(self, text: str) -> None:
        """Says something, and waits for a key."""
        if self._key:
            self.says(text)
            self._wait()

    def stops(self) -> None:
        """Removes what is shown for the moment only."""
        if self._live:
            self._live.stop()
            self._live = None

    def _print(self, what: object) -> None:
        self._console.print(what, width=min(self._console.width, WIDEST))

    def _pause(self, seconds: float) -> None:
        if self._pauses and self._key is None:
            time.sleep(seconds)

    def _wait(self) -> None:
        if self._key is None:
            self._pause(0.7)
        elif self._key() in ("q", "Q", "", "\x04"):
            self._console.print()
            raise Left
