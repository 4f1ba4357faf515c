"""Requests to JSON APIs over connections that are kept. Debian's python3-minimal has no http.client."""

from __future__ import annotations

import json

from program import connect

TYPE_CHECKING = False  # typing takes longer to import than the rest
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, BinaryIO


class Answer:
    """An HTTP answer."""

    def __init__(self, status: int, content: bytes) -> None:
        self.status, self.content = status, content

    @property
    def text(self) -> str:
        return self.content.decode(errors="replace").strip()

    @property
    def json(self) -> Any:
        return json.loads(self.content)


class Server:
    """An HTTP server at an address. The connection is kept between requests.

    Args:
        secure: wraps a new connection in TLS.
        headers: what each request has.
        timeout: seconds that the server may take for each step of an answer.
    """

    def __init__(
        self,
        host: str,
        port: int,
        secure: Callable[[socket.socket], socket.socket] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 5.0,
    ) -> None:
        self.host, self.port, self.secure, self.timeout = host, port, secure, timeout
        self.headers = {"Host": f"{host}:{port}", **(headers or {})}
        self._socket: socket.socket | None = None
        self._file: BinaryIO | None = None

    def request(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Answer:
        """Raises ``OSError`` where there is no answer. A body is sent as JSON, or as it is where it is bytes."""
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in self.headers.items())]
        if method != "GET":
            lines.append(f"Content-Length: {len(content)}")
        if body is not None:
            lines.append(f"Content-Type: {kind}")
        request = "\r\n".join([*lines, "", ""]).encode() + content
        kept = self._socket is not None
        try:
            return self._request(request)
        except OSError as error:
            self.close()
            if not kept or isinstance(error, TimeoutError):
                raise
            return self._request(request)  # the server may close a connection that it has kept

    def lines(self, path: str, timeout: float) -> Iterator[bytes]:
        """The lines of an answer that grows, as they come, until it ends. Raises ``OSError`` where there is none.

        Args:
            timeout: seconds that the server may be silent. One that is gone is noticed sooner.
        """
        self.close()
        connection = self._connected()
        try:
            connection.settimeout(timeout)
            head = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in self.headers.items()), "", ""]
            connection.sendall("\r\n".join(head).encode())
            with connection.makefile("rb") as file:
                yield from read_lines(file)
        finally:
            connection.close()

    def _connected(self) -> socket.socket:
        connection = connect(self.host, self.port, self.timeout)
        return self.secure(connection) if self.secure else connection

    def _request(self, request: bytes) -> Answer:
        if self._socket is None or self._file is None:
            self._socket = self._connected()
            self._file = self._socket.makefile("rb")
        self._socket.sendall(request)
        answer, keeps = read_answer(self._file)
        if not keeps:
            self.close()
        return answer

    def close(self) -> None:
        for opened in (self._file, self._socket):
            if opened:
                opened.close()
        self._file = self._socket = None


def read_answer(file: BinaryIO) -> tuple[Answer, bool]:
    """Reads an answer, and whether another one may follow on the connection.

    Raises:
        OSError: it is cut short, or is not HTTP.
    """
    try:
        return _read_answer(file)
    except (IndexError, ValueError):
        raise ConnectionError("the answer is not HTTP") from None


def read_lines(file: BinaryIO) -> Iterator[bytes]:
    """Reads the lines of an answer as they come. Raises ``OSError`` where it is no success, or is cut short."""
    try:
        _, status, headers = _head(file)
        if status != 200 or headers.get(b"transfer-encoding") != b"chunked":
            raise ConnectionError(f"HTTP {status}")
        rest = b""
        for part in _chunks(file):
            *whole, rest = (rest + part).split(b"\n")
            yield from whole
    except (IndexError, ValueError):
        raise ConnectionError("the answer is not HTTP") from None


def _head(file: BinaryIO) -> tuple[bytes, int, dict[bytes, bytes]]:
    words = _line(file).split(None, 2)
    headers = {}
    while line := _line(file):
        name, _, value = line.partition(b":")
        headers[name.lower()] = value.strip().lower()
    return words[0], int(words[1]), headers


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while size := int(_line(file).partition(b";")[0], 16):
        yield _exactly(file, size)
        _line(file)
    while _line(file):
        pass


def _read_answer(file: BinaryIO) -> tuple[Answer, bool]:
    protocol, status, headers = _head(file)
    keeps = protocol == b"HTTP/1.1" and headers.get(b"connection") != b"close"
    if status in (204, 304):
        return Answer(status, b""), keeps
    if headers.get(b"transfer-encoding") == b"chunked":
        return Answer(status, b"".join(_chunks(file))), keeps
    if b"content-length" in headers:
        return Answer(status, _exactly(file, int(headers[b"content-length"]))), keeps
    return Answer(status, file.read()), False


def _line(file: BinaryIO) -> bytes:
    line = file.readline(65536)
    if not line.endswith(b"\n"):
        raise ConnectionError("the server closed the connection")
    return line.strip()


def _exactly(file: BinaryIO, size: int) -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise ConnectionError("the server closed the connection")
    return content


def quoted(part: str) -> str:
    """A part of a path. urllib, which has this too, takes longer to import than a whole program runs."""
    return "".join(chr(b) if chr(b) in _UNRESERVED else f"%{b:02X}" for b in part.encode())


_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
