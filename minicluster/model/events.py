"""What happens while a plan runs, told to whoever shows it. A listener is called from several threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Kinds: ``plan`` (a plan begins; ``text`` is its headline, ``nodes`` the nodes it is about), ``start`` and ``end`` of
    a step, ``done`` (the last step of a node, or a step of the whole cluster), ``progress`` within a step, ``note``
    (worth a line of its own), ``preflight`` (what a plan will take of the machine), ``failed``, ``rollback``.
    """

    kind: str
    subject: str = ""  #: a node's name, or "" for what is the whole cluster's (network, image, record)
    phase: str = ""  #: what the subject is now doing: "creating", "starting", "waiting", "joining", "ready", …
    text: str = ""
    seconds: float = 0.0  #: how long it took, with ``end`` and ``done``
    nodes: tuple[str, ...] = ()


Listener = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """The listener that shows nothing."""
