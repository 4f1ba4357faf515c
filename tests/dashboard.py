"""A dashboard that is served in this process, for tests, on any engine."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from minicluster.dashboard import server
from minicluster.dashboard.access import Access, folder, key
from minicluster.dashboard.hub import Hub
from minicluster.dashboard.watch import Watch
from minicluster.engine.protocol import Engine


@dataclass
class Served:
    """A dashboard and its address."""

    port: int
    access: Access
    watch: Watch
    server: uvicorn.Server
    said: list[str]  #: what the server told its user

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: Any = None
    ) -> tuple[int, http.client.HTTPMessage, str]:
        """Status, headers and text of an answer. ``Host`` may be replaced."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            content = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, content, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()

    def cookie(self) -> str:
        """A cookie, as a browser has it that was let in."""
        _status, headers, _text = self.request("GET", self.access.url.removeprefix(self.base))
        return headers["Set-Cookie"].partition(";")[0]

    def post(self, path: str, wish: Mapping[str, Any], **headers: str) -> tuple[int, Any]:
        """A change, as the page asks for it."""
        usual = {"Cookie": self.cookie(), "Origin": self.base, "Content-Type": "application/json"}
        status, _headers, text = self.request("POST", path, usual | headers, wish)
        return status, json.loads(text)

    @contextmanager
    def stream(self) -> Iterator[Stream]:
        """What a page is told."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", "/stream", headers={"Cookie": self.cookie()})
            yield Stream(connection.getresponse())
        finally:
            connection.close()


class Stream:
    """Reads server-sent events, and keeps the newest of each topic as a page does."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.answer = answer
        self.hello: dict[str, Any] = {}
        self.topics: dict[str, Any] = {}
        self.events: list[dict[str, Any]] = []

    def until(self, check: Callable[[], Any], *, within: float = 60.0) -> Any:
        """Reads until something is true, and returns that."""
        end = time.monotonic() + within
        while not (found := check()):
            assert time.monotonic() < end, f"not told: topics {self.topics}, events {self.events}"
            self._read()
        return found

    def cluster(self, name: str) -> dict[str, Any]:
        """The newest of a cluster; empty before the first."""
        return self.topics.get(f"cluster/{name}") or {}

    def node(self, cluster: str, name: str) -> dict[str, Any]:
        """The newest of a node; empty before the first."""
        return next((n for n in self.cluster(cluster).get("nodes", ()) if n["name"] == name), {})

    def _read(self) -> None:
        kind = ""
        while line := self.answer.readline().decode().rstrip("\n"):
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            if name == "data" and kind != "beat":
                data = json.loads(value)
                self.hello = data.get("hello", self.hello)
                self.topics |= data["topics"]
                self.events += data["events"]


@contextmanager
def serving(engine: Engine, *, control: bool = False, port: int = 0) -> Iterator[Served]:
    """A dashboard of an engine's clusters."""
    with server.bound(port, wanted=True) as listening:
        used = listening.getsockname()[1]
        access = Access(f"http://127.0.0.1:{used}", folder() / f"open-{used}.html", key(), control=control)
        watch = Watch(engine, Hub())
        started = threading.Event()
        said: list[str] = []
        run = server.server(server.Dashboard(watch, access, used, may_control=control), started.set, said.append)
        thread = threading.Thread(target=run.run, kwargs={"sockets": [listening]})
        watch.start()
        thread.start()
        try:
            assert started.wait(30)
            yield Served(used, access, watch, run, said)
        finally:
            run.should_exit = True
            watch.stop()
            thread.join(30)
            access.close()
