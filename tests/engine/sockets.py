"""Clients that keep their sockets, in the network of this machine or of a container."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import ssl
from collections.abc import Iterator

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET, for setns


@contextlib.contextmanager
def network_in(path: str) -> Iterator[None]:
    """This thread's new sockets are in a network's name space."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as own, open(path) as other:
        if libc.setns(other.fileno(), _NEW_NETWORK):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        try:
            yield
        finally:
            assert libc.setns(own.fileno(), _NEW_NETWORK) == 0


def network_of(pid: int) -> contextlib.AbstractContextManager[None]:
    """:func:`network_in` that of a process; 0 is this one's."""
    return network_in(f"/proc/{pid}/ns/net") if pid else contextlib.nullcontext()


@contextlib.contextmanager
def waiting(
    count: int, address: str, port: int, request: bytes, context: ssl.SSLContext | None = None
) -> Iterator[list[bytes]]:
    """So many connections that stay open, each with its first answer to a request."""
    with contextlib.ExitStack() as stack:
        opened: list[socket.socket] = []
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection((address, port), timeout=30))
            if context:
                connection = stack.enter_context(context.wrap_socket(connection, server_hostname=address))
            connection.sendall(request)
            opened.append(connection)
        yield [connection.recv(4096) for connection in opened]


class Kept:
    """A client that keeps its socket. A TCP connection that ends is made again to the same address, as clients do."""

    def __init__(self, kind: socket.SocketKind, address: str, port: int, pid: int = 0) -> None:
        self.kind, self.address, self.port, self.pid = kind, address, port, pid
        self.socket: socket.socket | None = None

    def __repr__(self) -> str:
        inside = f" from process {self.pid}" if self.pid else ""
        return f"{self.kind.name} {self.address}:{self.port}{inside}"

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
        self.socket = None

    def says(self) -> str:
        """The line with which it is answered; "" without an answer."""
        try:
            if self.socket is None:
                with network_of(self.pid):
                    self.socket = socket.socket(socket.AF_INET, self.kind)
                self.socket.settimeout(1)
                self.socket.connect((self.address, self.port))
            self.socket.sendall(b"x\n")
            said = self.socket.recv(100).decode().split()
            if said:
                return said[-1]  # an answer to an earlier packet may come first
        except TimeoutError:
            if self.kind is socket.SOCK_DGRAM:
                return ""
        except OSError:
            pass
        if self.kind is socket.SOCK_STREAM:
            self.close()
        return ""
