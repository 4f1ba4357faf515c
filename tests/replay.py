"""A local HTTP server that answers as servers of Mesos and Marathon did or would, for tests of what asks them.

In ``data/mesos`` are answers of a real Mesos 1.12: one master, one agent, a task that has finished. Only paths and the
name of a registry in them were changed; they were laid out for people, and are sent in one line, as Mesos sent them.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data" / "mesos"


@dataclass(frozen=True)
class Reply:
    """One answer."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """What was asked."""

    method: str
    path: str  #: with its query
    body: bytes
    login: str = ""  #: what it authenticates with, as HTTP has it

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def said(data: Any, status: int = 200, **headers: str) -> Reply:
    """JSON as Mesos and Marathon send it: in one line."""
    content = json.dumps(data, separators=(",", ":")).encode()
    return Reply(status, content, {"Content-Type": "application/json", **headers})


def recorded(name: str) -> Reply:
    """An answer out of ``data/mesos``, with its status and headers."""
    lines = (DATA / f"{name}.headers").read_text().strip().splitlines()
    status = int(lines[0].split()[1])
    headers = dict(line.split(": ", 1) for line in lines[1:])
    headers = {key: value for key, value in headers.items() if key in ("Content-Type", "Location")}
    text = (DATA / name).read_text()
    body = json.dumps(json.loads(text), separators=(",", ":")).encode() if text else b""
    return Reply(status, body, headers)


def recorded_json(name: str) -> Any:
    """The JSON of an answer, to be changed."""
    return json.loads((DATA / name).read_text())


def master() -> dict[str, Answer]:
    """What the recorded leading master answers, by path."""
    names = ("health", "state", "slaves", "frameworks", "tasks", "version")
    answers: dict[str, Answer] = {f"/{name}": recorded(name) for name in names}
    answers |= {f"/master/{name}": recorded(name) for name in names}
    answers |= {"/metrics/snapshot": recorded("metrics_snapshot"), "/master/redirect": recorded("master_redirect")}
    return answers


Answer = Reply | Callable[[Request], Reply]


@dataclass
class Server:
    """A server that runs, what it was asked, and what it answers: by "METHOD PATH", or by PATH for any method.

    A query does not count where the path with it is not among the answers.
    """

    url: str
    answers: dict[str, Answer]
    asked: list[Request] = field(default_factory=list)

    @property
    def place(self) -> str:
        """HOST:PORT."""
        return self.url.removeprefix("http://")

    def reply(self, request: Request) -> Reply:
        self.asked.append(request)
        bare = request.path.partition("?")[0]
        for key in (f"{request.method} {request.path}", request.path, f"{request.method} {bare}", bare):
            if key in self.answers:
                answer = self.answers[key]
                return answer if isinstance(answer, Reply) else answer(request)
        return Reply(404, b"")


@contextlib.contextmanager
def serving(answers: Mapping[str, Answer], host: str = "127.0.0.1", port: int = 0) -> Iterator[Server]:
    """A server on an address of this machine; by default on a port that is free."""

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body, login = self.rfile.read(length), self.headers.get("Authorization", "")
            reply = server.reply(Request(self.command, self.path, body, login))
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        do_GET = do_POST = do_PUT = do_DELETE = do

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer((host, port), Handler) as http:
        http.daemon_threads = True
        server = Server(f"http://{host}:{http.server_port}", dict(answers))
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
