"""What happens while a plan runs, reported to a listener. A listener is called from several threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Kinds: ``plan`` (a plan begins; ``text`` is its headline, ``nodes`` the nodes it is about), ``start`` and ``end`` of
    a step, ``done`` (all that a node is in for, or what is the whole cluster's), ``progress`` within a step, ``note``
    (worth a line of its own), ``preflight`` (the resources that a plan will use), ``failed``, ``rollback``.
    """

    kind: str
    subject: str = ""  #: a node's name, or "" for what is the whole cluster's (network, image, record)
    phase: str = ""  #: what the subject is now doing: "creating", "starting", "waiting", "joining", "ready", …
    text: str = ""
    seconds: float = 0.0  #: how long it took, with ``end`` and ``done``
    nodes: tuple[str, ...] = ()

    @property
    def takes_long(self) -> bool:
        """Whether it reports something that may take minutes: an image is built or pulled; or is a note."""
        return self.kind == "note" or (self.kind == "progress" and self.text.startswith(("building", "pulling")))


Listener = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """The listener that shows nothing."""
