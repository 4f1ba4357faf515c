"""HTTP with an engine, on the standard library alone.

Every command waits for the import of its engine client, and short commands do little else. docker-py's client uses
requests and urllib3, whose import takes as long as the rest of a command's start. What docker-py knows beyond HTTP
(where credentials for registries are, which files belong to a build) is still asked of it when that is needed.

Every call is logged at level DEBUG to the logger "minicluster.engine": method, path, status and milliseconds until the
response began. Queries, headers and bodies are never logged, since they can contain credentials.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from minicluster.engine.address import EngineAddress, Tls

LOGGER = "minicluster.engine"

#: The longest path that a Unix socket can have: ``sun_path`` of Linux has 108 bytes, of macOS 104, with a final NUL.
SOCKET_PATH_LIMIT = 103

_TIMEOUT = 120.0  # seconds that an ordinary call may take; creating a container on a slow disk takes long
_CHUNK = 1 << 16  # bytes
_SSH_LINES = 5  # of what ssh wrote, in an error
_PROBE_LIMIT = 1 << 20  # bytes; what an engine responds to `ping` and `get_json` has some hundred


class APIError(Exception):
    """The engine refused a request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status  #: of HTTP
        self.message = message  #: in the engine's words


class ConnectionLost(Exception):
    """The engine cannot be connected to, the connection broke, or the response is not HTTP."""

    never: EngineAddress | None = None  #: the engine, where it has never responded


@dataclass(frozen=True)
class Pong:
    """An engine's response to a ping."""

    api_version: str  #: the newest that it supports, such as "1.41"; "" where it does not say
    os_type: str  #: "linux" or "windows"; "" where it does not say


def ping(url: str, tls: Tls | None = None, timeout: float = 2.0) -> Pong:
    """Asks the engine at this URL (unix, tcp, http or https) whether it runs.

    Args:
        timeout: seconds for connecting, and again for the response.

    Raises:
        OSError: it does not respond: no such socket, no permission, connection refused, a timeout, a response that is
            not an engine's. :func:`describe` says it in words.
    """
    headers, _ = _probe(url, "/_ping", tls, timeout)
    return Pong(headers.get("api-version", ""), headers.get("ostype", ""))


def version(url: str, tls: Tls | None = None, timeout: float = 2.0) -> str:
    """The version of the engine at this URL. Raises ``OSError`` as :func:`ping` does."""
    return str(get_json(url, "/version", tls, timeout).get("Version", ""))


def get_json(url: str, path: str, tls: Tls | None = None, timeout: float = 2.0) -> Any:
    """The engine's response to GET of a path, with no API version in it. Raises ``OSError`` as :func:`ping` does."""
    _, body = _probe(url, path, tls, timeout)
    try:
        return json.loads(body)
    except ValueError as error:
        raise OSError(f"answers {path} with something that is not JSON") from error


def describe(error: OSError) -> str:
    """Why an engine did not respond, as a phrase."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "no such socket"
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused: nothing listens there"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return error.strerror or str(error) or type(error).__name__


class Response:
    """A response whose body has still to be read."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self.connection = connection
        self.socket: socket.socket = connection.sock  #: http.client drops its own reference on the last response
        with _translated():
            self._response = connection.getresponse()
        self.status = self._response.status
        if self.status == 101:  # the connection is a stream from now on; http.client expects no body
            self._response.length = None
        self.reason = self._response.reason
        self.headers = self._response.headers

    def read(self, size: int | None = None) -> bytes:
        """So many bytes, fewer only at the end; all by default."""
        with _translated():
            return self._response.read(size)

    def chunks(self) -> Iterator[bytes]:
        """The body as it arrives."""
        while chunk := self._read_some():
            yield chunk

    def messages(self) -> Iterator[dict[str, Any]]:
        """The JSON objects of the body, one a line, as they arrive."""
        while line := self._read_line():
            if line.strip():
                yield json.loads(line)

    def last(self) -> bool:
        """Whether the engine closes the connection after this response."""
        return self._response.will_close

    def abort(self) -> None:
        """Ends a read that blocks, from another thread."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes the connection, whether or not the body was read."""
        self._response.close()
        self.connection.close()

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _read_some(self) -> bytes:
        with _translated():
            return self._response.read1(_CHUNK)

    def _read_line(self) -> bytes:
        with _translated():
            return self._response.readline()


class _Request(NamedTuple):
    method: str
    url: str
    headers: Mapping[str, str] = {}
    body: bytes | Iterable[bytes] | None = None


class Api:
    """An engine's API. Thread-safe: each call has a connection of its own, which is kept for a later call."""

    def __init__(self, address: EngineAddress) -> None:
        self._address = address
        self._idle: list[http.client.HTTPConnection] = []
        self._reached = bool(address.api_version)  # discovery has asked it
        self._ssh_errors: IO[bytes] | None = None  # what ssh writes: the reason, where it cannot connect

    @cached_property
    def _version(self) -> str:
        # Discovery has learnt it, except of an engine that is reached by ssh.
        if self._address.api_version:
            return self._address.api_version
        with self._send(_Request("GET", "/_ping"), _TIMEOUT) as response:
            return str(response.headers["api-version"])

    def request(self, method: str, path: str, **request: Any) -> Any:
        """The engine's response: JSON, or None where it is empty. For arguments and errors see :meth:`open`."""
        response = self.open(method, path, **request)
        try:
            body = response.read()
        except BaseException:
            response.close()
            raise
        if response.last():
            response.close()
        else:
            self._idle.append(response.connection)
        return json.loads(body) if body.strip() else None

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
        """A response to be read piece by piece, and closed.

        Args:
            path: without the API version.
            params: of the query; mappings among them, as filters are, are sent as JSON.
            data: to be sent as JSON.
            body: to be sent as it is: bytes, or chunks of them.
            headers: further ones.
            timeout: seconds to connect, and between two pieces of the response; None for no limit.

        Raises:
            APIError: the engine refused.
            ConnectionLost: it did not respond.
        """
        url = f"/v{self._version}{quote(path, safe='/:')}"
        if params:
            url += "?" + urlencode(
                {k: json.dumps(v) if isinstance(v, Mapping) else v for k, v in params.items()}, doseq=True
            )
        sent = dict(headers or {})
        if data is not None:
            body, sent["Content-Type"] = json.dumps(data).encode(), "application/json"
        response = self._send(_Request(method, url, sent, body), timeout)
        if response.status >= 400:
            with response:
                raise APIError(response.status, _message(response.read()) or f"HTTP status {response.status}")
        return response

    def get(self, path: str, timeout: float) -> Response:
        """GET of a path without the API version, for engines whose version is not known. Errors as of :meth:`open`."""
        return self._send(_Request("GET", path), timeout)

    def close(self) -> None:
        """Closes the connections that are kept."""
        while self._idle:
            self._idle.pop().close()

    def _send(self, request: _Request, timeout: float | None) -> Response:
        started, outcome, said = time.monotonic(), "failed", self._ssh_said()
        try:
            response = self._exchange(request, timeout)
            outcome = str(response.status)
            self._reached = True
            return response
        except ConnectionLost as lost:
            error = self._told_by_ssh(lost, said)
            error.never, outcome = None if self._reached else self._address, str(error)
            raise error from lost.__cause__
        finally:
            _log(request.method, request.url, outcome, time.monotonic() - started)

    def _ssh_said(self) -> int:  # bytes
        return os.fstat(self._ssh_errors.fileno()).st_size if self._ssh_errors else 0

    def _told_by_ssh(self, error: ConnectionLost, since: int) -> ConnectionLost:
        """The same, after what ssh has written since: it may be the reason, or a warning."""  # ssh shares the offset
        if self._ssh_errors is None or (size := self._ssh_said() - since) <= 0:
            return error
        lines = os.pread(self._ssh_errors.fileno(), size, since).decode(errors="replace").strip().splitlines()
        return ConnectionLost("\n".join([*lines[-_SSH_LINES:], str(error)])) if lines else error

    def _exchange(self, request: _Request, timeout: float | None) -> Response:
        method, url, headers, body = request
        connection = self._connection(timeout)
        try:
            with _translated():
                connection.putrequest(method, url, skip_accept_encoding=True)
                for name, value in headers.items():
                    connection.putheader(name, value)
            if body is None or isinstance(body, bytes):
                connection.putheader("Content-Length", str(len(body or b"")))
                _write(connection.endheaders, body)
            else:
                connection.putheader("Transfer-Encoding", "chunked")
                _write(connection.endheaders, None)
                for chunk in filter(None, body):
                    if not _write(connection.send, b"%x\r\n%b\r\n" % (len(chunk), chunk)):
                        break
                _write(connection.send, b"0\r\n\r\n")
            return Response(connection)
        except BaseException:
            connection.close()
            raise

    def _connection(self, timeout: float | None) -> http.client.HTTPConnection:
        with contextlib.suppress(IndexError):  # none is left
            while True:
                connection = self._idle.pop()
                if not _is_closed(connection.sock):
                    connection.sock.settimeout(timeout)
                    return connection
                connection.close()
        connection = http.client.HTTPConnection("docker")
        connection.auto_open = 0  # never to a host of that name
        with _translated():
            if urlsplit(self._address.url).scheme == "ssh":
                import tempfile

                self._ssh_errors = self._ssh_errors or tempfile.TemporaryFile()  # noqa: SIM115
            connection.sock = _dial(self._address, timeout, self._ssh_errors)
        return connection


def _probe(url: str, path: str, tls: Tls | None, timeout: float) -> tuple[http.client.HTTPMessage, bytes]:
    """Headers and body of a short response."""
    api = Api(EngineAddress(url, "", tls))
    try:
        with api.get(path, timeout) as response:
            if response.status != 200:
                raise OSError(f"answers {path} with HTTP status {response.status} {response.reason}".rstrip())
            return response.headers, response.read(_PROBE_LIMIT)
    except ConnectionLost as lost:
        # An engine that expects TLS answers a plain request with a TLS alert, or not at all.
        if isinstance(lost.__cause__, http.client.RemoteDisconnected):
            raise OSError("closes the connection without an answer") from lost
        if isinstance(lost.__cause__, OSError):
            raise lost.__cause__ from None
        raise OSError("answers something that is not HTTP") from lost


def _log(method: str, url: str, outcome: str, seconds: float) -> None:
    # Where nothing has imported logging, nothing has asked for a log; its import would cost every command some 5 ms.
    if logging := sys.modules.get("logging"):
        path = url.partition("?")[0]
        logging.getLogger(LOGGER).debug("%s %s: %s, %.1f ms", method, path, outcome, seconds * 1000)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionLost(str(error) or type(error).__name__) from error


def _write(send: Callable[[Any], None], what: bytes | None) -> bool:
    """Whether it was sent: an engine that refuses may close early, and has sent the reason by then."""
    with _translated():
        try:
            send(what)
        except (BrokenPipeError, ConnectionResetError):
            return False
    return True


def _is_closed(connection: socket.socket) -> bool:
    """Whether the engine closed an idle connection: nothing else makes it readable."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()


def _dial(address: EngineAddress, timeout: float | None, ssh_errors: IO[bytes] | None = None) -> socket.socket:
    """A connection to an engine. Raises ``OSError`` where there is none, or after so many seconds."""
    parts = urlsplit(address.url)
    if parts.scheme == "unix":
        return _over_unix(parts.path, timeout)
    if parts.scheme == "ssh":
        from minicluster.engine import ssh

        connection = ssh.connect(address.url, ssh_errors)
        connection.settimeout(timeout)
        return connection
    if parts.scheme not in ("tcp", "http", "https"):
        raise OSError(f"URLs with the scheme {parts.scheme or address.url!r} are not supported")
    try:
        port = parts.port
    except ValueError as error:
        raise OSError(f"the port is not a number from 0 to 65535: {address.url}") from error
    secure = address.tls is not None or parts.scheme == "https"
    host = parts.hostname or "127.0.0.1"
    plain = socket.create_connection((host, port or (2376 if secure else 2375)), timeout)
    # Otherwise a request's body waits 40 ms for the acknowledgement of its header.
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not secure:
        return plain
    try:
        return _secure(plain, host, address.tls or Tls())
    except BaseException:
        plain.close()
        raise


def _over_unix(path: str, timeout: float | None) -> socket.socket:
    if len(path.encode()) > SOCKET_PATH_LIMIT:
        raise OSError(f"its path is longer than the {SOCKET_PATH_LIMIT} bytes that a socket's path can have")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(path)
    except BaseException:
        connection.close()
        raise
    return connection


def _secure(plain: socket.socket, host: str, tls: Tls) -> socket.socket:
    import ssl  # 10 ms that an engine on a Unix socket does not need

    context = ssl.create_default_context(cafile=str(tls.ca) if tls.ca else None)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.cert:
        context.load_cert_chain(tls.cert, tls.key)
    return context.wrap_socket(plain, server_hostname=host)
