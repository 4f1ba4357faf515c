"""Where an engine is, and what it takes to reach it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Tls:
    """How to speak TLS with an engine."""

    ca: Path | None = None  #: certificate of the authority that signed the engine's; None: the system's authorities
    cert: Path | None = None  #: the client's certificate; None: it presents none
    key: Path | None = None
    verify: bool = True  #: check the engine's certificate and name


@dataclass(frozen=True)
class EngineAddress:
    """The address of an engine, and how it was found."""

    url: str  #: unix://PATH, tcp://HOST:PORT, http(s)://… or ssh://…
    source: str  #: "DOCKER_HOST", "docker context NAME", "default socket" or "private engine"
    tls: Tls | None = None  #: None: no TLS (a Unix socket, ssh, or plain TCP)
    api_version: str = ""  #: the newest that it supports; "" where it does not say, or was not asked (ssh)

    def dump(self) -> str:
        """As JSON text that :meth:`load` reads; see :func:`minicluster.engine.discover.reach`."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def load(cls, text: str) -> EngineAddress:
        """Reads what :meth:`dump` wrote. Raises ``ValueError``, ``KeyError`` or ``TypeError`` for other text."""
        data = json.loads(text)
        tls = data.pop("tls")
        if tls:
            files = {name: Path(tls[name]) if tls[name] else None for name in ("ca", "cert", "key")}
            tls = Tls(**files, verify=bool(tls["verify"]))
        return cls(**data, tls=tls)
