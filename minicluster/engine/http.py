"""HTTP as an engine speaks it, by the standard library alone.

Every command waits until its client of the engine is imported, and small ones do little else: docker-py's stands on
requests and urllib3, and takes as long as all the rest of a command's start. What it knows beyond HTTP, where
credentials for registries are and what belongs to a build, is still asked of it, when that is needed.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from minicluster.engine.address import EngineAddress
from minicluster.engine.ping import dial

_TIMEOUT = 120.0  # seconds an ordinary call may take; creating a container on a slow disk takes long
_CHUNK = 1 << 16  # bytes


class APIError(Exception):
    """The engine said no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status  #: of HTTP
        self.message = message  #: in the engine's words


class ConnectionLost(Exception):
    """There is no connection, or it broke, or what came is no HTTP."""


class Response:
    """An answer whose body has still to be read."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self.connection = connection
        self.socket: socket.socket = connection.sock  #: the connection forgets it where nothing is to follow
        with _broken():
            self._response = connection.getresponse()
        self.status = self._response.status
        self.headers = self._response.headers

    def read(self, size: int | None = None) -> bytes:
        """So many bytes, fewer only at the end; all by default."""
        with _broken():
            return self._response.read(size)

    def chunks(self) -> Iterator[bytes]:
        """The body as it comes."""
        while chunk := self._read_some():
            yield chunk

    def messages(self) -> Iterator[dict[str, Any]]:
        """The JSON objects that it consists of, one a line, as they come."""
        while line := self._read_line():
            if line.strip():
                yield json.loads(line)

    def last(self) -> bool:
        """Whether the connection ends with it."""
        return self._response.will_close

    def abort(self) -> None:
        """Ends a read that blocks, from another thread."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Ends the connection, whatever has been read."""
        self._response.close()
        self.connection.close()

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _read_some(self) -> bytes:
        with _broken():
            return self._response.read1(_CHUNK)

    def _read_line(self) -> bytes:
        with _broken():
            return self._response.readline()


class Api:
    """An engine's API. Safe to use by many threads at once: each call has a connection to itself, kept for the next."""

    def __init__(self, found: EngineAddress) -> None:
        self._found = found
        self._idle: list[http.client.HTTPConnection] = []

    @cached_property
    def _version(self) -> str:
        # The search for an engine has learnt it, but for one that only ssh leads to.
        if self._found.api_version:
            return self._found.api_version
        with self._send("GET", "/_ping", {}, None, _TIMEOUT) as answer:
            return str(answer.headers["api-version"])

    def request(self, method: str, path: str, **request: Any) -> Any:
        """What the engine answers: JSON, or None where it says nothing. For arguments and errors see :meth:`open`."""
        answer = self.open(method, path, **request)
        try:
            said = answer.read()
        except BaseException:
            answer.close()
            raise
        if answer.last():
            answer.close()
        else:
            self._idle.append(answer.connection)
        return json.loads(said) if said.strip() else None

    def open(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        data: Any = None,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = _TIMEOUT,
    ) -> Response:
        """An answer to be read bit by bit, and closed.

        Args:
            path: without the version.
            params: of the query; mappings among them, as filters are, go as JSON.
            data: to be sent as JSON.
            body: to be sent as it is: bytes, or their chunks.
            headers: further ones.
            timeout: seconds to connect, and between two bits of the answer; None for no limit.

        Raises:
            Refused: the engine said no.
            Broken: it did not answer.
        """
        url = f"/v{self._version}{quote(path, safe='/:')}"
        if params:
            url += "?" + urlencode({k: json.dumps(v) if isinstance(v, Mapping) else v for k, v in params.items()})
        about = dict(headers or {})
        if data is not None:
            body, about["Content-Type"] = json.dumps(data).encode(), "application/json"
        answer = self._send(method, url, about, body, timeout)
        if answer.status >= 400:
            with answer:
                raise APIError(answer.status, _message(answer.read()) or f"HTTP status {answer.status}")
        return answer

    def close(self) -> None:
        """Closes the connections that are kept."""
        while self._idle:
            self._idle.pop().close()

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None,
        timeout: float | None,
    ) -> Response:
        connection = self._connection(timeout)
        try:
            with _broken():
                connection.putrequest(method, url, skip_accept_encoding=True)
                for name, value in headers.items():
                    connection.putheader(name, value)
            if body is None or isinstance(body, bytes):
                connection.putheader("Content-Length", str(len(body or b"")))
                _say(connection.endheaders, body)
            else:
                connection.putheader("Transfer-Encoding", "chunked")
                _say(connection.endheaders, None)
                for chunk in filter(None, body):
                    if not _say(connection.send, b"%x\r\n%b\r\n" % (len(chunk), chunk)):
                        break
                _say(connection.send, b"0\r\n\r\n")
            return Response(connection)
        except BaseException:
            connection.close()
            raise

    def _connection(self, timeout: float | None) -> http.client.HTTPConnection:
        with contextlib.suppress(IndexError):  # none is left
            while True:
                connection = self._idle.pop()
                if not _is_over(connection.sock):
                    connection.sock.settimeout(timeout)
                    return connection
                connection.close()
        connection = http.client.HTTPConnection("docker")
        connection.auto_open = 0  # to a host of that name
        with _broken():
            connection.sock = _dial(self._found, timeout)
        return connection


@contextlib.contextmanager
def _broken() -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionLost(str(error) or type(error).__name__) from error


def _say(say: Callable[[Any], None], what: bytes | None) -> bool:
    """Whether it was heard: an engine that refuses need not listen to the end, and has said why by then."""
    with _broken():
        try:
            say(what)
        except (BrokenPipeError, ConnectionResetError):
            return False
    return True


def _is_over(connection: socket.socket) -> bool:
    """Whether the other side hung up: on a connection that waits for nothing, nothing else can be heard."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def _message(said: bytes) -> str:
    try:
        return str(json.loads(said)["message"])
    except (ValueError, KeyError, TypeError):
        return said.decode(errors="replace").strip()


def _dial(found: EngineAddress, timeout: float | None) -> socket.socket:
    if not found.url.startswith("ssh:"):
        return dial(found.url, found.tls, timeout)
    connection = _over_ssh(found.url)
    connection.settimeout(timeout)
    return connection


def _over_ssh(url: str) -> socket.socket:
    """As the docker client does it: its namesake on the other machine passes on what is said."""
    parts = urlsplit(url)
    user = ["-l", parts.username] if parts.username else []
    port = ["-p", str(parts.port)] if parts.port else []
    words = ["ssh", *user, *port, "--", parts.hostname or "", "docker system dial-stdio"]
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            # In a session of its own, since Ctrl-C is ours to act upon: cleaning up needs the connection.
            process = subprocess.Popen(words, stdin=theirs.fileno(), stdout=theirs.fileno(), start_new_session=True)
    except BaseException:
        ours.close()
        raise
    threading.Thread(target=process.wait, daemon=True).start()  # it ends when we hang up, and is not to be a zombie
    return ours
