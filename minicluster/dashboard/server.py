"""The dashboard's server: a page, a stream of what is new, and with ``control`` changes by POST.

Every answer passes :class:`_Guard`. It refuses requests for another host, which a page elsewhere can make a browser
send by a name that resolves to 127.0.0.1, and gives every answer a policy: nothing is loaded from outside, nothing
frames the page, no address is told to anyone.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import secrets
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from minicluster.dashboard import control
from minicluster.errors import MiniclusterError, UsageError
from minicluster.model.naming import listed

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from minicluster.dashboard.access import Access
    from minicluster.dashboard.watch import Watch

HOST = "127.0.0.1"
STATIC = Path(__file__).parent / "static"

_BEAT = 2.0  # seconds of silence after which a connection is told that there is nothing new
_TOGETHER = 0.05  # seconds in which what is new is told together
_MOST = 64 * 1024  # bytes of a request

_HEADERS = {
    # What does not fall back to default-src is named. No inline script or style, and nothing from anywhere else.
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# Not a redirect: a browser leaves a strict cookie out of what follows from a page that is not ours, as the file is that
# opens this one. From this page on, it sends the cookie.
_ENTERED = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=/">
<title>minicluster</title><link rel="icon" href="/static/icon.svg">
<link rel="stylesheet" href="/static/style.css">
<p class="message">Opening the dashboard.
"""
_REFUSED = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>minicluster: not open</title><link rel="icon" href="/static/icon.svg">
<link rel="stylesheet" href="/static/style.css">
<main class="message"><h1>This browser has no access</h1>
<p>{why}
<p>The command <code>minicluster dashboard</code> opens it in your browser and prints the file that opens it in
another one.
</main>
"""


class _Guard:
    """Checks the host of every request, and puts the policy on every answer."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        if Headers(scope=scope).get("host", "").lower() not in self.hosts:
            refusal = PlainTextResponse("This is not the dashboard's address.\n", 421)
            await refusal(scope, receive, guarded)
            return
        await self.app(scope, receive, guarded)


class Dashboard:
    """The answers to requests.

    Args:
        may_control: changes are allowed.
    """

    def __init__(self, watch: Watch, access: Access, port: int, *, may_control: bool) -> None:
        self.watch, self.hub, self.access, self.may_control = watch, watch.hub, access, may_control
        self._hosts = frozenset({f"{HOST}:{port}", f"localhost:{port}"})
        self._origins = frozenset(f"http://{host}" for host in self._hosts)
        self._over = self._ends = False
        self._changes: dict[asyncio.Future[dict[str, Any]], str] = {}  # that are being made, and what they are
        self._start = secrets.token_hex(8)  # a page sees by it that the dashboard was restarted

    def app(self) -> ASGIApp:
        """The application."""
        routes = [
            Route("/", self.page),
            Route("/stream", self.stream),
            Route("/cost", self.cost, methods=["POST"]),
            Route("/do", self.do, methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        return _Guard(Starlette(routes=routes), self._hosts)

    async def finish(self, say: Callable[[str], None]) -> None:
        """Takes no more changes, and waits for those that are being made: none is left half done."""
        self._ends = True
        while self._changes:
            say(f"Waiting for {listed(dict.fromkeys(self._changes.values()))} to finish.")
            await asyncio.wait([*self._changes])

    def close(self) -> None:
        """Ends all streams: a server that ends waits for them."""
        self._over = True
        self.hub.wake()

    def _is_known(self, request: Request) -> bool:
        return self.access.knows(request.cookies.get(self.access.cookie, ""))

    async def page(self, request: Request) -> Response:
        """The page; with a token first the exchange of the token for a cookie."""
        token = request.query_params.get("token")
        if token is not None:
            cookie = self.access.exchange(token)
            if cookie is None:
                return self._refused("The link was used before, or is of an earlier dashboard: each works once.")
            entered = HTMLResponse(_ENTERED)
            entered.set_cookie(self.access.cookie, cookie, path="/", httponly=True, samesite="strict")
            return entered
        if not self._is_known(request):
            return self._refused("The page needs a link that works once, or access has ended: it lasts for 12 hours.")
        return HTMLResponse((STATIC / "index.html").read_text(encoding="utf-8"))

    def _refused(self, why: str) -> Response:
        return HTMLResponse(_REFUSED.format(why=why), 403)

    async def stream(self, request: Request) -> Response:
        """What is new, as server-sent events: first everything, then changes as they come."""
        if not self._is_known(request):
            return PlainTextResponse("no access\n", 403)
        return StreamingResponse(self._news(), media_type="text/event-stream")

    async def _news(self) -> AsyncIterator[str]:
        loop, fresh = asyncio.get_running_loop(), asyncio.Event()
        with self.hub.listening(lambda: _call(loop, fresh.set)):
            news = self.hub.since(0)
            hello = {"start": self._start, "control": self.may_control}
            yield f"retry: 1000\n{_message('all', {'hello': hello, 'topics': news.topics, 'events': news.events})}"
            while not self._over:
                try:
                    await asyncio.wait_for(fresh.wait(), _BEAT)
                except asyncio.TimeoutError:
                    yield _message("beat", {})
                    continue
                await asyncio.sleep(_TOGETHER)
                fresh.clear()
                news = self.hub.since(news.version)
                yield _message("news", {"topics": news.topics, "events": news.events})

    async def cost(self, request: Request) -> Response:
        """What a change costs, before it is made."""

        def ask(wish: control.Wish) -> dict[str, Any]:
            found = control.cost(self.watch, wish)
            return {"text": found.text, "severe": found.severe}

        return await self._change(request, ask)

    async def do(self, request: Request) -> Response:
        """Makes a change; answers once it is made."""
        return await self._change(request, lambda wish: {"text": control.carry_out(self.watch, wish)})

    async def _change(self, request: Request, work: Callable[[control.Wish], dict[str, Any]]) -> Response:
        if request.headers.get("origin") not in self._origins:
            return JSONResponse({"error": "The request is from another page."}, 403)
        if not self._is_known(request):
            return JSONResponse({"error": "This browser has no access any more."}, 403)
        if not self.may_control:
            return JSONResponse({"error": "The dashboard only shows: it was started without --control."}, 403)
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return JSONResponse({"error": "The request is not JSON."}, 415)
        try:
            wish = control.Wish.parse(_parsed(await _body(request)))
            if self._ends:
                raise MiniclusterError("the dashboard ends", "It was interrupted.")
            change = asyncio.get_running_loop().run_in_executor(None, work, wish)
            self._changes[change] = f"{wish.verb} of {wish.cluster}"
            change.add_done_callback(self._changes.pop)
            return JSONResponse(await change)
        except UsageError as error:
            return JSONResponse({"error": control.told(error)}, 400)
        except MiniclusterError as error:
            return JSONResponse({"error": control.told(error)}, 409)
        except TimeoutError as error:
            return JSONResponse({"error": f"It took too long: {error}."}, 409)


async def _body(request: Request) -> bytes:
    """The body of a request. Raises ``UsageError`` where it is too long."""
    found = b""
    async for part in request.stream():
        found += part
        if len(found) > _MOST:
            raise UsageError("the request is too long")
    return found


def _parsed(body: bytes) -> Any:
    """The JSON of a body. Raises ``UsageError`` where it is none, also where it is nested too deep to be read."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise UsageError("the request is not JSON") from None


def _call(loop: asyncio.AbstractEventLoop, action: Callable[[], None]) -> None:
    """Calls something in the server's loop from another thread; nothing once that has ended."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(action)


def _message(kind: str, data: Any) -> str:
    """A server-sent event. JSON has no line ends, so it is one line."""
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"


def bound(port: int, *, wanted: bool) -> socket.socket:
    """A socket that listens on 127.0.0.1.

    Args:
        wanted: a user asks for this port; else another one is taken where it is in use.

    Raises:
        UsageError: the port is in use, or may not be used.
    """
    try:
        return _listening(port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and not wanted:
            return _listening(0)
        raise UsageError(
            f"--port {port}: cannot be used: {error.strerror}",
            "",
            "Use another one, or none: then a free one is chosen.",
        ) from None


def _listening(port: int) -> socket.socket:
    """A socket that listens already: with SO_REUSEADDR two can be bound to the same port until one listens."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((HOST, port))
        made.listen()
    except OSError:
        made.close()
        raise
    return made


def server(dashboard: Dashboard, started: Callable[[], None], say: Callable[[str], None]) -> uvicorn.Server:
    """The server, whose ``run(sockets=[...])`` serves until Ctrl-C, SIGTERM or SIGHUP.

    Args:
        started: is called once requests are answered.
        say: tells the user what the end waits for.
    """

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started()

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            # uvicorn leaves out SIGHUP: the terminal was closed. Like the others it ends the streams first.
            with super().capture_signals():
                if threading.current_thread() is not threading.main_thread():
                    yield
                    return
                before = signal.signal(signal.SIGHUP, self.handle_exit)
                try:
                    yield
                finally:
                    signal.signal(signal.SIGHUP, before)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            await dashboard.finish(say)
            dashboard.close()
            await super().shutdown(sockets)

    config = uvicorn.Config(
        dashboard.app(),
        lifespan="off",
        ws="none",
        http="h11",
        loop="asyncio",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    return Server(config)
