"""HTTP to a cluster's published ports; its servers know each other by addresses that only nodes may reach."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from minicluster.errors import MiniclusterError

_REDIRECTS = 3  # that one request may take: a follower names the leader, and an election may be under way
_CHUNK = 1 << 16


class HTTPError(MiniclusterError):
    """A server refused a request, or none answered."""

    def __init__(self, what: str, why: str = "", fix: str = "", *, status: int = 0) -> None:
        super().__init__(what, why, fix)
        self.status = status  #: of the answer; 0 where there was none


@dataclass(frozen=True)
class Client:
    """Several servers of one kind, any of which will do: one that does not answer is passed over.

    No proxy of the environment is asked: what it speaks to is this machine.
    """

    name: str  #: of the kind of server, for errors: "Mesos master"
    servers: Sequence[str]  #: base URLs
    routes: Mapping[str, str]  #: HOST:PORT as the servers know it -> the base URL that reaches it from here
    timeout: float = 10.0  #: seconds without a byte

    def get(self, path: str) -> Any:
        """The JSON that is at a path.

        Raises:
            HTTPError: no server answers, or one refuses.
        """
        return self.call("GET", path)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON that a request is answered with; None for an empty answer."""
        with self._answer(method, path, body) as answer:
            data = answer.read()
        try:
            return json.loads(data) if data.strip() else None
        except ValueError:
            raise HTTPError(f"the {self.name} answers {method} {path} with what is no JSON", _short(data)) from None

    def stream(self, path: str) -> Iterator[bytes]:
        """What is at a path, piece by piece."""
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
                    f"the {self.name} refuses {method} {path}: {answer.status} {answer.reason}".rstrip(),
                    explanation(data),
                    status=answer.status,
                )
            yield answer
        except (OSError, http.client.HTTPException) as error:
            raise HTTPError(f"the {self.name} stopped answering to {method} {path}", _cause(error)) from error
        finally:
            connection.close()

    def _first(
        self, method: str, path: str, content: bytes | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """The answer of the first server that gives one, redirects followed."""
        failures = []
        for server in self.servers:
            try:
                return self._follow(method, server, path, content)
            except ConnectionRefusedError as error:
                failures.append(f"{server}: {_cause(error)}")
            except (OSError, http.client.HTTPException) as error:
                failures.append(f"{server}: {_cause(error)}")
                if method != "GET":
                    break  # it may have been heard all the same
        raise HTTPError(
            f"no {self.name} answers", "\n".join(failures), "`minicluster status` tells how the nodes are doing."
        )

    def _follow(
        self, method: str, server: str, path: str, content: bytes | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        url = server.rstrip("/") + path
        for _ in range(_REDIRECTS + 1):
            parts = urlsplit(url)
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=self.timeout)
            try:
                headers = {"Content-Type": "application/json"} if content is not None else {}
                target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
                connection.request(method, target, content, {"Accept": "*/*", **headers})
                answer = connection.getresponse()
            except BaseException:
                connection.close()
                raise
            location = answer.headers.get("Location")
            if answer.status not in (301, 302, 307, 308) or not location:
                return connection, answer
            connection.close()
            url = self._reached(url, location, path)
        raise HTTPError(f"the {self.name} sends {method} {path} from one server to another", f"The last was {url}.")

    def _reached(self, url: str, location: str, path: str) -> str:
        """The URL by which a redirect's target is reached from here."""
        parts = urlsplit(urljoin(url, location))
        if parts.path in ("", "/"):  # a master that names the leader, and no path there
            parts = urlsplit(parts._replace(path="", query="").geturl() + path)
        base = self.routes.get(parts.netloc)
        if base is None:
            return parts.geturl()
        there = urlsplit(base)
        return parts._replace(scheme=there.scheme, netloc=there.netloc).geturl()


def explanation(data: bytes) -> str:
    """What a server says of its refusal: Marathon's message and details, or the text."""
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


def _short(data: bytes, limit: int = 400) -> str:
    text = data[: limit + 1].decode(errors="replace").strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _cause(error: BaseException) -> str:
    return str(error) or type(error).__name__
