"""The errors that minicluster raises. Any other exception is a bug.

Each says what happened, why and what to do about it, and has an exit status for the command line:
1 failed, 2 wrong usage or invalid profile, 3 no engine, 4 not ready in time, 6 only parts of a cluster, 7 no such
cluster, 130 interrupted. docs/cli-output.md lists them all.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class MiniclusterError(Exception):
    """Base class of all errors of this package.

    Args:
        what: what happened, one line.
        why: the cause, if known; may have several lines.
        fix: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix
        self.leftovers: tuple[str, ...] = ()  #: what a rollback could not remove, one phrase each
        self.cluster_is_up = False  #: only what an ``up`` loads and applies after that is incomplete

    def __str__(self) -> str:
        return "\n".join(part for part in (self.what, self.why, self.fix) if part)


class UsageError(MiniclusterError):
    """A name, option or value given by the user is invalid."""

    exit_code = 2


class NoCluster(UsageError):
    """There is no cluster of that name, or none at all."""

    exit_code = 7


class Incomplete(UsageError):
    """Only remains of the cluster exist: its record is missing."""

    exit_code = 6


class ProfileError(UsageError):
    """A profile or an override is invalid; ``what`` starts with file, line and column."""


class NoEngine(MiniclusterError):
    """No container engine answers, or the one in use stopped answering."""

    exit_code = 3


class EngineError(MiniclusterError):
    """The engine rejected a call."""


class InsufficientMemory(MiniclusterError):
    """The machine has less memory than the new nodes need."""


class NotFound(EngineError):
    """The engine has no such container, network, volume, image or file."""


class Conflict(EngineError):
    """Something of that name exists already and does not belong to this cluster."""


class PortTaken(EngineError):
    """A host port that an endpoint needs is in use."""

    def __init__(self, what: str, why: str = "", fix: str = "", *, port: int = 0) -> None:
        super().__init__(what, why, fix)
        self.port = port


class SubnetTaken(EngineError):
    """A subnet overlaps with one in use."""


class ImageError(MiniclusterError):
    """An image could not be pulled, built or found."""


class NodeFailed(MiniclusterError):
    """A node's container exited, or a command in it failed."""


class NodeEnded(NodeFailed):
    """A node has stopped since its cluster was observed, by a concurrent operation."""


class NeedsUser(NodeFailed):
    """A node runs and refuses to work until its user does something, such as unlocking it; ``why`` says what."""


class NotReady(MiniclusterError):
    """A node or the cluster was not ready in time."""

    exit_code = 4


class Unreachable(MiniclusterError):
    """The cluster is running, but none of its addresses can be reached from here."""


class Interrupted(MiniclusterError):
    """The user pressed Ctrl-C, or the process received SIGTERM or SIGHUP."""

    exit_code = 130


#: What programs say of a full disk, and what to do then.
DISK_FULL = "no space left on device"
FREE_SPACE = (
    "Free some space: `docker system df`, `minicluster image remove --cache`, `minicluster image remove --all`."
)


def nearest(word: str, known: Iterable[str], shown: Iterable[str] | None = None, most: int = 20) -> str:
    """A hint with the nearest of the known words; without a near one all, or the five nearest of many.

    Args:
        shown: those to list where none is near; all by default.
        most: how many are listed; of more only the five nearest.
    """
    words = sorted(known)
    match = get_close_matches(word, words, n=1, cutoff=0.6)
    if match:
        return f"Did you mean {match[0]!r}?"
    words = words if shown is None else sorted(shown)
    if len(words) > most:
        return f"The nearest of {len(words)}: {', '.join(get_close_matches(word, words, n=5, cutoff=0))}."
    return f"Available: {', '.join(words)}." if words else ""
