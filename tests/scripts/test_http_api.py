"""profiles/_lib/http_api.py and program.py, against a local server."""

from __future__ import annotations

import contextlib
import io
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from tests.scripts.conftest import Node

Load = Callable[[str, str], ModuleType]


@contextlib.contextmanager
def serving(*connections: list[bytes]) -> Iterator[tuple[int, list[list[bytes]]]]:
    """A server that gives these answers, a list for each connection. Yields its port and the requests."""
    asked: list[list[bytes]] = []

    def serve() -> None:
        for answers in connections:
            client, _ = listener.accept()
            asked.append([])
            with client, client.makefile("rb") as file:
                for answer in answers:
                    head = b"".join(iter(file.readline, b"\r\n"))
                    length = next((int(x[15:]) for x in head.splitlines() if x.startswith(b"Content-Length:")), 0)
                    asked[-1].append(head + file.read(length))
                    client.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], asked
        thread.join(10)
        assert not thread.is_alive()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n[1, 2]\n"


@pytest.fixture
def api(program: Load) -> ModuleType:
    return program("_lib", "http_api.py")


def test_a_connection_is_kept(api: ModuleType) -> None:
    with serving([OK, OK]) as (port, asked):
        server = api.Server("127.0.0.1", port, headers={"X-Token": "t"})
        assert [server.request("GET", "/a").json, server.request("POST", "/b", {"x": 1}).json] == [[1, 2], [1, 2]]
        server.close()
    first, second = asked[0]
    assert first.startswith(b"GET /a HTTP/1.1\r\n")
    assert b"X-Token: t\r\n" in first
    assert second.endswith(b'Content-Type: application/json\r\n{"x": 1}')


def test_a_kept_connection_that_was_closed_is_opened_again(api: ModuleType) -> None:
    with serving([OK], [OK]) as (port, asked):
        server = api.Server("127.0.0.1", port)
        server.request("GET", "/a")
        assert server.request("GET", "/b").status == 200
        server.close()
    assert len(asked) == 2


def test_a_new_connection_that_is_closed_is_an_error(api: ModuleType) -> None:
    with serving([b""]) as (port, _), pytest.raises(OSError, match="closed the connection"):
        api.Server("127.0.0.1", port).request("GET", "/a")


def test_nothing_listens(api: ModuleType) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(OSError):  # noqa: PT011
        api.Server("127.0.0.1", port).request("GET", "/a")


@pytest.mark.parametrize(
    ("answer", "content", "keeps"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nConnection: Close\r\n\r\nok", b"ok", False),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil it ends", b"until it ends", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (CHUNKED + b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n", b"abc0123456789", True),
    ],
)  # fmt: skip
def test_the_ways_an_answer_can_end(api: ModuleType, answer: bytes, content: bytes, keeps: bool) -> None:
    found, kept = api.read_answer(io.BytesIO(answer))
    assert (found.content, kept) == (content, keeps)


@pytest.mark.parametrize("cut", [1, 4, 9])
def test_an_answer_that_is_cut_short_is_an_error(api: ModuleType, cut: int) -> None:
    with pytest.raises(ConnectionError):
        api.read_answer(io.BytesIO(OK[:-cut]))
    chunked = CHUNKED + b"9\r\n012345678\r\n0\r\n\r\n"
    with pytest.raises(ConnectionError):
        api.read_answer(io.BytesIO(chunked[:-cut]))


def test_parts_of_paths_are_quoted(api: ModuleType) -> None:
    assert api.quoted("a b/ü~-._") == "a%20b%2F%C3%BC~-._"


PROGRAM = """#!{python} -IS
import sys
sys.path.insert(0, "{lib}")
from program import NotYet, fail, retry
tries = []
def action():
    tries.append(1)
    if len(tries) < {after}:
        raise {error}("not now")
    return len(tries)
print(retry({seconds}, 0.01, action))
"""


@pytest.mark.parametrize("error", ["NotYet", "OSError"])
def test_retry_returns_the_first_result(node: Node, error: str) -> None:

    node.program("try", PROGRAM.format(python=sys.executable, lib=node.lib, after=3, error=error, seconds=5))
    assert node.run("try").stdout == "3\n"


def test_retry_ends_the_program_with_the_last_error(node: Node) -> None:

    node.program("try", PROGRAM.format(python=sys.executable, lib=node.lib, after=10**9, error="NotYet", seconds=0.2))
    done = node.run("try")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "try: not now\n")
