"""The API server and other components of Kubernetes, as the programs on masters ask them."""

from __future__ import annotations

import ssl

from http_api import Answer, Server
from program import NotYet, at_once

TYPE_CHECKING = False  # typing takes longer to import than the rest
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from typing import Any

HOST_NAME = "kubernetes.io/hostname"  # a label of nodes: their name
PKI = "/etc/kubernetes/pki"
MERGE = "application/merge-patch+json"
#: The annotation of a Service that says which published ports of the masters lead to it: PORT=serviceN,...
PUBLISHED = "minicluster/published-ports"


def node_env(text: str) -> dict[str, str]:
    """The variables in /etc/kubernetes/node.env."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name: value.strip('"') for name, _, value in pairs}


def read_node_env() -> dict[str, str]:
    with open("/etc/kubernetes/node.env") as file:
        return node_env(file.read())


def agents_of(volume: dict[str, Any]) -> set[str]:
    """The agents that a PersistentVolume is bound to."""
    terms = volume["spec"].get("nodeAffinity", {}).get("required", {}).get("nodeSelectorTerms") or ()
    return {
        value
        for term in terms
        for expression in term.get("matchExpressions") or ()
        if expression["key"] == HOST_NAME
        for value in expression.get("values") or ()
    }


def component(address: str, certificate: str = "", timeout: float = 5.0) -> Server:
    """A component that listens at HOST:PORT.

    Args:
        certificate: the folder of the client's certificate; without it the component is not authenticated either.
    """
    host, _, port = address.rpartition(":")
    if certificate:
        folder = f"{PKI}/{certificate}"
        context = ssl.create_default_context(cafile=f"{folder}/ca.pem")
        context.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE

    def secure(plain: socket.socket) -> socket.socket:
        return context.wrap_socket(plain, server_hostname=host)

    return Server(host, int(port), secure, timeout=timeout)


class Api:
    """The API server, asked over a few connections at a time."""

    def __init__(self, make: Callable[[], Server], connections: int = 8) -> None:
        self._servers = [make() for _ in range(connections)]

    def get(self, path: str) -> Any:
        """What there is at a path. Raises ``NotYet`` or ``OSError`` where there is no answer."""
        return self.send("GET", path).json

    def send(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Answer:
        """Raises ``NotYet`` where the API server refuses."""
        answer = self._servers[0].request(method, path, body, kind)
        if answer.status == 401 or (answer.status == 403 and " cannot " in answer.text):
            raise NotYet(f"credentials refused: {method} {path}: {answer.text:.300}")
        if answer.status >= 300:
            raise NotYet(f"{method} {path}: HTTP {answer.status}: {answer.text:.300}")
        return answer

    def each(
        self, method: str, paths: Sequence[str], body: Any = None, kind: str = "application/json"
    ) -> list[Answer | OSError]:
        """The same request for each of some paths, and the answers, whatever their status."""
        answers: list[Answer | OSError] = [OSError("not asked")] * len(paths)
        waiting = iter(range(len(paths)))  # each index is taken by one thread

        def work(server: Server) -> None:
            for index in waiting:
                try:
                    answers[index] = server.request(method, paths[index], body, kind)
                except OSError as error:
                    answers[index] = error

        at_once(work, self._servers[: len(paths)])
        return answers
