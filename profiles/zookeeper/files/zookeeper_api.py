"""What the Python programs of ZooKeeper's nodes share: a client of the server on this node.

A client in Java would take most of a second to start. This one sends the few messages that are needed. Their layout is
zookeeper.jute in ZooKeeper's sources: big-endian, each with its length before it.
"""

from __future__ import annotations

import struct

from program import NotYet, connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HOST, PORT = "127.0.0.1", 2181
CREATE, DELETE, GET_DATA, SET_DATA, GET_ACL, SET_ACL, GET_CHILDREN, SYNC = 1, 2, 4, 5, 6, 7, 8, 9
AUTH, CLOSE = 100, -11
NO_NODE, NODE_EXISTS, NOT_EMPTY = -101, -110, -111
AT_ONCE = 200  # requests that are sent before an answer is read


def number(*values: int) -> bytes:
    return struct.pack(f">{len(values)}i", *values)


def sized(content: bytes) -> bytes:
    return number(len(content)) + content


def text(value: str) -> bytes:
    return sized(value.encode())


ANY_VERSION = number(-1)
OPEN = number(1, 31) + text("world") + text("anyone")  # an ACL with one entry: every client has all rights


def strings(answer: bytes) -> Iterator[str]:
    """The strings of a list, such as the answer to GET_CHILDREN begins with."""
    (count,) = struct.unpack_from(">i", answer)
    at = 4
    for _ in range(count):
        (length,) = struct.unpack_from(">i", answer, at)
        yield answer[at + 4 : at + 4 + length].decode()
        at += 4 + length


class Session:
    """A session with the server on this node."""

    def __init__(self, seconds: float, port: int = PORT) -> None:
        """``seconds``: for each answer."""
        self.zxid = 0  #: of the newest change that an answer was given after
        self.socket = connect(HOST, port, seconds)
        self.file = self.socket.makefile("rb")
        self.socket.sendall(sized(struct.pack(">iqiqi16sb", 0, 0, 10000, 0, 16, bytes(16), 0)))
        self._receive()

    def log_in(self, password: str) -> None:
        """Makes it one of the super user."""
        self.ask_one(AUTH, number(0) + text("digest") + text(f"super:{password}"))

    def close(self) -> None:
        self.ask_one(CLOSE, b"")
        self.file.close()
        self.socket.close()

    def _receive(self) -> bytes:
        head = self.file.read(4)
        length = int.from_bytes(head, "big")
        content = self.file.read(length) if len(head) == 4 else b""
        if not content or len(content) < length:
            raise NotYet("the server closed the connection")
        return content

    def ask(self, kind: int, bodies: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
        """Sends requests of one kind; for each the error and the answer. The server keeps their order."""
        head = number(-4 if kind == AUTH else 1, kind)
        for begin in range(0, len(bodies), AT_ONCE):
            some = bodies[begin : begin + AT_ONCE]
            self.socket.sendall(b"".join(sized(head + body) for body in some))
            for _ in some:
                answer = self._receive()
                _xid, zxid, error = struct.unpack_from(">iqi", answer)
                self.zxid = max(self.zxid, zxid)
                yield error, answer[16:]

    def ask_one(self, kind: int, body: bytes) -> bytes:
        ((error, answer),) = self.ask(kind, [body])
        if error:
            raise NotYet(f"the server refuses request {kind} with error {error}")
        return answer
