"""The HTTP API of Consul's agents, as the programs in nodes ask it."""

from __future__ import annotations

from http_api import Server
from program import NotYet


class Missing(NotYet):
    """There is nothing of that name."""


class Refused(NotYet):
    """The token has no right to that, or does not exist any more."""


TYPE_CHECKING = False  # typing takes longer to import than the rest
if TYPE_CHECKING:
    from typing import Any

TOKEN_FILE = "/consul/token"
PORT = 8500


class Agent:
    """The agent at an address."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        with open(TOKEN_FILE) as file:
            self.token = file.read().strip()
        self._server = Server(address, PORT, headers={"X-Consul-Token": self.token}, timeout=2)

    def get(self, path: str) -> Any:
        """What there is at a path, below /v1. Raises ``NotYet`` or ``OSError`` where there is no answer."""
        answer = self._server.request("GET", f"/v1/{path}")
        if answer.status == 403:
            raise Refused(f"{path}: credentials refused: {answer.text}")
        if answer.status == 404:
            raise Missing(f"{path}: {answer.text}")
        if answer.status != 200:
            raise NotYet(f"{path}: {answer.text}")
        return answer.json

    def health(self) -> Any:
        """What autopilot says of the servers; nothing where it says nothing."""
        try:
            answer = self._server.request("GET", "/v1/operator/autopilot/health")
        except OSError:
            return {}
        return answer.json if answer.status in (200, 429) else {}  # 429: one is unhealthy

    def text(self, path: str) -> str:
        """The answer as it is, an error's text too."""
        return self._server.request("GET", f"/v1/{path}").text

    def send(self, method: str, path: str, body: Any = None) -> None:
        """Raises ``NotYet`` where the agent refuses."""
        answer = self._server.request(method, f"/v1/{path}", body)
        if answer.status != 200:
            raise NotYet(f"{path}: {answer.text}")
