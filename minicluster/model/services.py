"""What users of a cluster have published by its own software, as that software reports it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_ADDRESS = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+|")
_PROTOCOL = re.compile(r"[a-z][a-z0-9+.-]*")


@dataclass(frozen=True)
class Service:
    """A port that users have published. The name is whatever they called it: never trusted."""

    name: str
    port: int  #: at the address
    node: str = ""  #: that answers for the address; "" where none is known
    address: str = ""  #: on the cluster's network; "" where it has none yet
    protocol: str = "tcp"
    at: str = ""  #: endpoint of the profile whose port leads to it; "" where none does

    @property
    def url(self) -> str:
        """Where it is on the cluster's network."""
        return self.url_at(self.address, self.port)

    def url_at(self, host: str, port: int) -> str:
        """Where it is reached by another address."""
        return f"{self.protocol}://{f'[{host}]' if ':' in host else host}:{port}"

    @classmethod
    def parse(cls, line: str) -> Service:
        """One by a line that a profile's ``services`` hook printed.

        Raises:
            ValueError: it is none.
        """
        row: Any = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError(f"not a JSON object: {line}")
        texts = {key: "" if row.get(key) is None else row[key] for key in ("name", "node", "address", "protocol", "at")}
        if not all(isinstance(text, str) for text in texts.values()):
            raise ValueError(f"{', '.join(texts)} must be texts: {line}")
        texts["protocol"] = texts["protocol"] or "tcp"
        port = row.get("port")
        if not texts["name"] or isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 1 << 16:
            raise ValueError(f"no name, or no port from 1 to 65535: {line}")
        if not _ADDRESS.fullmatch(texts["address"]) or not _PROTOCOL.fullmatch(texts["protocol"]):
            raise ValueError(f"no address, or no protocol: {line}")
        return cls(port=port, **texts)


def parse(text: str) -> tuple[Service, ...]:
    """All that a profile's ``services`` hook printed, one a line.

    Raises:
        ValueError: a line is none.
    """
    return tuple(Service.parse(line) for line in text.splitlines() if line.strip())
