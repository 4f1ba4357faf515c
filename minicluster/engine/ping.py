"""Asking an engine whether it is there, in a few milliseconds: no docker, no HTTP library, one socket.

The answer decides which engine is used at all, so every command pays for it before it does anything else.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

#: The longest path that a Unix socket can have: ``sun_path`` of Linux has 108 bytes, of macOS 104, with a final NUL.
SOCKET_PATH_LIMIT = 103

_ANSWER_LIMIT = 1 << 20  # bytes; an engine's answer to these questions is some hundred


@dataclass(frozen=True)
class Tls:
    """How to speak TLS with an engine."""

    ca: Path | None = None  #: certificate of the authority that signed the engine's; None: the system's authorities
    cert: Path | None = None  #: the client's certificate; None: it shows none
    key: Path | None = None
    verify: bool = True  #: check the engine's certificate and name


@dataclass(frozen=True)
class Pong:
    """What an engine answers to a ping."""

    api_version: str  #: the newest that it speaks, such as "1.41"; "" where it does not say
    os_type: str  #: "linux" or "windows"; "" where it does not say


def ping(url: str, tls: Tls | None = None, timeout: float = 2.0) -> Pong:
    """Asks the engine at this URL (unix, tcp, http or https) for a sign of life.

    Args:
        timeout: seconds for connecting, and again for the answer.

    Raises:
        OSError: it does not answer: nothing there, no permission, connection refused, a time-out, an answer that is
            no engine's. :func:`describe` tells it in words.
    """
    headers, _ = _get(url, "/_ping", tls, timeout)
    return Pong(headers.get("api-version", ""), headers.get("ostype", ""))


def version(url: str, tls: Tls | None = None, timeout: float = 2.0) -> str:
    """The version of the engine at this URL. Raises ``OSError`` as :func:`ping` does."""
    return str(get_json(url, "/version", tls, timeout).get("Version", ""))


def get_json(url: str, path: str, tls: Tls | None = None, timeout: float = 2.0) -> Any:
    """What the engine answers at a path of its API. Raises ``OSError`` as :func:`ping` does."""
    _, body = _get(url, path, tls, timeout)
    try:
        return json.loads(body)
    except ValueError as error:
        raise OSError(f"answers {path} with something that is not JSON") from error


def describe(error: OSError) -> str:
    """Why an engine did not answer, as a phrase."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "no such socket"
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused: nothing listens there"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return error.strerror or str(error) or type(error).__name__


def _get(url: str, path: str, tls: Tls | None, timeout: float) -> tuple[Mapping[str, str], bytes]:
    """Headers (lower case) and body. HTTP/1.0, so that the body is simply all that comes."""
    with closing(dial(url, tls, timeout)) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
        data = bytearray()
        while len(data) < _ANSWER_LIMIT and (part := connection.recv(65536)):
            data += part
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    words = status.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/"):
        # An engine that expects TLS answers a plain request with a TLS alert, or not at all.
        raise OSError("answers something that is not HTTP" if data else "closes the connection without an answer")
    if words[1] != "200":
        raise OSError(f"answers {path} with HTTP status {' '.join(words[1:])}")
    pairs = (line.partition(":") for line in lines)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}, body


def dial(url: str, tls: Tls | None, timeout: float | None) -> socket.socket:
    """A connection to the engine at this URL. Raises ``OSError`` where there is none, or after so many seconds."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        path = parts.path
        if len(path.encode()) > SOCKET_PATH_LIMIT:
            raise OSError(f"its path is longer than the {SOCKET_PATH_LIMIT} bytes that a socket's may have")
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout)
            connection.connect(path)
        except BaseException:
            connection.close()
            raise
        return connection
    if parts.scheme not in ("tcp", "http", "https"):
        raise OSError(f"a URL of the kind {parts.scheme or url!r} cannot be asked")
    try:
        port = parts.port
    except ValueError as error:
        raise OSError(f"its port is not a number from 0 to 65535: {url}") from error
    secure = tls is not None or parts.scheme == "https"
    host = parts.hostname or "127.0.0.1"
    plain = socket.create_connection((host, port or (2376 if secure else 2375)), timeout)
    if not secure:
        return plain
    try:
        return _secure(plain, host, tls or Tls())
    except BaseException:
        plain.close()
        raise


def _secure(plain: socket.socket, host: str, tls: Tls) -> socket.socket:
    import ssl  # 10 ms that an engine on a Unix socket need not pay

    context = ssl.create_default_context(cafile=str(tls.ca) if tls.ca else None)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.cert:
        context.load_cert_chain(tls.cert, tls.key)
    return context.wrap_socket(plain, server_hostname=host)
