"""Every error that minicluster raises on purpose.

Each says what happened, why, and what to do about it, and carries the exit status of the command line:
1 failed, 2 wrong usage or bad profile, 3 no engine, 4 not ready in time, 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class MiniclusterError(Exception):
    """The root of all errors of this package.

    Args:
        what: what happened, one line.
        why: the cause as far as it is known; may have several lines.
        fix: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix
        self.leftovers: tuple[str, ...] = ()  #: what a roll-back could not remove, one phrase each

    def __str__(self) -> str:
        return "\n".join(part for part in (self.what, self.why, self.fix) if part)


class UsageError(MiniclusterError):
    """A name, option or value that the user gave cannot be right."""

    exit_code = 2


class ProfileError(UsageError):
    """A profile (or an override of it) is not valid; ``what`` starts with file, line and column."""


class NoEngine(MiniclusterError):
    """No container engine answers, or the one in use stopped answering."""

    exit_code = 3


class EngineError(MiniclusterError):
    """The engine refused a call."""


class InsufficientMemory(MiniclusterError):
    """The machine has less memory than what is to start takes."""


class NotFound(EngineError):
    """The engine has no such container, network, volume, image or file."""


class Conflict(EngineError):
    """Something of that name is there already and is not ours, or not of this cluster."""


class PortTaken(EngineError):
    """A host port that an endpoint needs is in use."""

    def __init__(self, what: str, why: str = "", fix: str = "", *, port: int = 0) -> None:
        super().__init__(what, why, fix)
        self.port = port


class SubnetTaken(EngineError):
    """A subnet overlaps with one in use."""


class ImageError(MiniclusterError):
    """An image could not be had: not pulled, not built, not there."""


class NodeFailed(MiniclusterError):
    """A node's container exited, or a command in it failed."""


class NodeEnded(NodeFailed):
    """A node that ran when its cluster was looked at has ended since, by something that went on meanwhile."""


class NotReady(MiniclusterError):
    """A node or the cluster was not ready in time."""

    exit_code = 4


class Unreachable(MiniclusterError):
    """The cluster runs, and none of the addresses that could be handed out is reached from here."""


class Interrupted(MiniclusterError):
    """The user pressed Ctrl-C, or the process was asked to end."""

    exit_code = 130


def nearest(word: str, known: Iterable[str]) -> str:
    """A phrase that offers the nearest of the known words, or lists them; empty where none is known."""
    words = sorted(known)
    match = get_close_matches(word, words, n=1, cutoff=0.6)
    if match:
        return f"Did you mean {match[0]!r}?"
    return f"There are: {', '.join(words)}." if words else ""
