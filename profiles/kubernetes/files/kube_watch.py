"""Objects of the API server, kept up to date, for the programs on nodes that act on changes."""

from __future__ import annotations

import json
import socket
import threading
import time

TYPE_CHECKING = False  # typing takes longer to import than the rest
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from http_api import Server

    Object = dict[str, Any]

SECONDS = 300  # how long one request for changes lasts


class Watched:
    """The objects of a list, by "NAMESPACE/NAME" ("NAME" where there is no namespace), followed by a thread of its own.

    Args:
        make: the API server, as the thread asks it.
        path: of the list, which may have a selector.
        changed: set after each change.
    """

    def __init__(self, make: Callable[[], Server], path: str, changed: threading.Event) -> None:
        self._server, self._path, self._changed = make(), path, changed
        secure = self._server.secure
        self._server.secure = lambda plain: kept_alive(secure(plain) if secure else plain)
        self.objects: dict[str, Object] = {}
        self.known = False  #: whether the API server has answered yet
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self._follow()
            except OSError:  # the API server starts, ends or does not allow it yet; what is known stays
                time.sleep(1)

    def _follow(self) -> None:
        answer = self._server.request("GET", self._path)
        if answer.status != 200:
            raise OSError(f"HTTP {answer.status}")
        self.objects = {key(item): item for item in answer.json["items"]}
        self.known = True
        self._changed.set()
        more = "&" if "?" in self._path else "?"
        version = answer.json["metadata"]["resourceVersion"]
        path = f"{self._path}{more}watch=1&resourceVersion={version}&timeoutSeconds={SECONDS}"
        for line in self._server.lines(path, SECONDS + 30):
            event = json.loads(line)
            if event["type"] == "ERROR":  # such as a version that is too old: the list is read again
                raise OSError(event["object"].get("message", ""))
            self.objects = after(self.objects, event)
            self._changed.set()


def key(item: Object) -> str:
    metadata = item["metadata"]
    return "/".join(metadata[name] for name in ("namespace", "name") if name in metadata)


def after(objects: dict[str, Object], event: Object) -> dict[str, Object]:
    """The objects after a change. A new dictionary: other threads may be reading the old one."""
    item = event["object"]
    changed = {name: each for name, each in objects.items() if name != key(item)}
    return changed if event["type"] == "DELETED" else {**changed, key(item): item}


def kept_alive(connection: socket.socket) -> socket.socket:
    """Has the kernel ask whether the other side is still there: one that was killed does not say that it ends."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 2), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 3)):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
    return connection
