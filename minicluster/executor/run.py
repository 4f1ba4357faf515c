"""What the steps of one plan share while it is carried out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from minicluster.engine.protocol import Cancel, Engine

if TYPE_CHECKING:
    from minicluster import pki
    from minicluster.model.events import Listener
    from minicluster.model.spec import ImageSpec


@dataclass
class Run:
    """One plan under way."""

    engine: Engine
    authority: pki.Authority | None  #: needed by plans that write certificates
    timeout: float  #: seconds that nodes have to get ready, from when the last of them was started; may be infinite
    listener: Listener
    provide_image: Callable[[ImageSpec, Cancel], None] | None = None  #: needed by plans that build or pull images
    cancel: Cancel = field(default_factory=Cancel)
    captured: dict[str, str] = field(default_factory=dict)
    archives: dict[str, IO[bytes]] = field(default_factory=dict)  #: images that were saved
    values: Mapping[str, str] = field(default_factory=dict)  #: further deferred values of nodes' files; secrets
    cluster: str = ""  #: the plan's
    expected: frozenset[str] = frozenset()  #: nodes that run already, and that the plan expects to go on
    looked: float = float("-inf")  #: when nodes were last looked at for whether they run, on the monotonic clock
    begun: float | None = None  #: when the last node was started: of nodes that start one by one each has its own time

    @property
    def deadline(self) -> float:
        """On the monotonic clock."""
        return (self.begun or time.monotonic()) + self.timeout

    def remaining(self) -> float | None:
        """Seconds up to the deadline, at least long enough for one answer; None if there is none."""
        return None if math.isinf(self.timeout) else max(0.2, self.deadline - time.monotonic())
