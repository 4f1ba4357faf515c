"""HTTP to a cluster's published ports. Redirects name addresses that only nodes can reach: they are translated."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from minicluster.errors import MiniclusterError

_REDIRECTS = 3  # per request: a follower redirects to the leader, which may change in between
_CHUNK = 1 << 16


class HTTPError(MiniclusterError):
    """A server refused a request, or none answered."""

    def __init__(self, what: str, why: str = "", fix: str = "", *, status: int = 0) -> None:
        super().__init__(what, why, fix)
        self.status = status  #: of the response; 0 if there was none


@dataclass(frozen=True)
class Client:
    """Several servers of one kind, any of which can serve a request: one that does not respond is skipped.

    Proxies in the environment are ignored: all servers are on this machine.
    """

    name: str  #: of the kind of server, in errors: "Mesos master"
    servers: Sequence[str]  #: base URLs, with a login where they want one
    routes: Mapping[str, str]  #: HOST:PORT in the cluster's network -> base URL on this machine
    cluster: str  #: that the servers are of
    timeout: float = 10.0  #: seconds without any data

    def get(self, path: str) -> Any:
        """The JSON at a path.

        Raises:
            HTTPError: no server responds, or one returns an error.
        """
        return self.call("GET", path)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of the response to a request; None if it is empty."""
        with self._answer(method, path, body) as answer:
            data = answer.read()
        try:
            return json.loads(data) if data.strip() else None
        except ValueError:
            raise HTTPError(f"the {self.name} returned invalid JSON for {method} {path}", _short(data)) from None

    def stream(self, path: str) -> Iterator[bytes]:
        """The content at a path, in chunks."""
        with self._answer("GET", path, None) as answer:
            while chunk := answer.read(_CHUNK):
                yield chunk

    @contextmanager
    def _answer(self, method: str, path: str, body: Any) -> Iterator[http.client.HTTPResponse]:
        content = None if body is None else json.dumps(body).encode()
        connection, answer = self._first(method, path, content)
        try:
            if answer.status >= 300:
                data = answer.read()
                raise HTTPError(
                    f"the {self.name} returned {answer.status} {answer.reason}".rstrip()
                    + f" for {method} {path}".rstrip(),
                    explanation(data),
                    status=answer.status,
                )
            yield answer
        except (OSError, http.client.HTTPException) as error:
            raise HTTPError(
                f"the connection to the {self.name} was lost during {method} {path}", _cause(error)
            ) from error
        finally:
            connection.close()

    def _first(
        self, method: str, path: str, content: bytes | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """The response of the first server that responds, after redirects."""
        failures = []
        for server in self.servers:
            try:
                return self._follow(method, server, path, content)
            except ConnectionRefusedError as error:
                failures.append(f"{_place(server)}: {_cause(error)}")
            except (OSError, http.client.HTTPException) as error:
                failures.append(f"{_place(server)}: {_cause(error)}")
                if method != "GET":
                    break  # the request may have been received
        raise HTTPError(
            f"no {self.name} responds", "\n".join(failures), f"Check the nodes: `minicluster status {self.cluster}`."
        )

    def _follow(
        self, method: str, server: str, path: str, content: bytes | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        url = server.rstrip("/") + path
        for _ in range(_REDIRECTS + 1):
            parts = urlsplit(url)
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=self.timeout)
            try:
                headers = {"Accept": "*/*"}
                if content is not None:
                    headers["Content-Type"] = "application/json"
                if parts.username is not None:
                    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
                    headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
                target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
                connection.request(method, target, content, headers)
                answer = connection.getresponse()
            except BaseException:
                connection.close()
                raise
            location = answer.headers.get("Location")
            if answer.status not in (301, 302, 307, 308) or not location:
                return connection, answer
            connection.close()
            url = self._reached(url, location, path)
        last = f"The last redirect was to {_place(url)}."
        raise HTTPError(f"the {self.name} redirects {method} {path} too many times", last)

    def _reached(self, url: str, location: str, path: str) -> str:
        """The URL of a redirect's target on this machine."""
        parts = urlsplit(urljoin(url, location))
        if parts.path in ("", "/"):  # a master names only the leader, without a path
            parts = urlsplit(parts._replace(path="", query="").geturl() + path)
        base = self.routes.get(parts.netloc)
        if base is None:
            return parts.geturl()
        there = urlsplit(base)
        return parts._replace(scheme=there.scheme, netloc=there.netloc).geturl()


def explanation(data: bytes) -> str:
    """A server's error message: Marathon's message and details, or the plain text."""
    try:
        said = json.loads(data)
    except ValueError:
        return _short(data)
    if not isinstance(said, dict) or "message" not in said:
        return _short(data)
    lines = [str(said["message"])]
    details = said.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict):
            errors = detail.get("errors") or []
            lines.append(f"{detail.get('path', '')}: {', '.join(map(str, errors))}".strip(": "))
        else:
            lines.append(str(detail))
    return "\n".join(lines)


def _place(url: str) -> str:
    """A URL without a login."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _short(data: bytes, limit: int = 400) -> str:
    text = data[: limit + 1].decode(errors="replace").strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _cause(error: BaseException) -> str:
    return str(error) or type(error).__name__
