"""Where an engine is: how it was found, and what it takes to reach it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from minicluster.engine.ping import Tls


@dataclass(frozen=True)
class EngineAddress:
    """An engine that answers, and how it was found."""

    url: str  #: unix://PATH, tcp://HOST:PORT, http(s)://… or ssh://…
    source: str  #: "DOCKER_HOST", "docker context NAME", "default socket" or "private engine"
    tls: Tls | None = None  #: None: no TLS (a Unix socket, ssh, or plain TCP)
    api_version: str = ""  #: the newest that it speaks; "" where it does not say, or was not asked (ssh)

    def dump(self) -> str:
        """As text, to be found again by; see :func:`minicluster.engine.discover.locate`."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def load(cls, text: str) -> EngineAddress:
        """The opposite of :meth:`dump`. Raises ``ValueError``, ``KeyError`` or ``TypeError`` for other text."""
        data = json.loads(text)
        tls = data.pop("tls")
        if tls:
            files = {name: Path(tls[name]) if tls[name] else None for name in ("ca", "cert", "key")}
            tls = Tls(**files, verify=bool(tls["verify"]))
        return cls(**data, tls=tls)
