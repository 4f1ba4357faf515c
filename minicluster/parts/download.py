"""Downloads of parts: a project's release, a file of Maven's repository, or what the user gives."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import socket
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from minicluster.engine import build_settings
from minicluster.errors import ImageError, Interrupted
from minicluster.host import spool
from minicluster.parts.work import Unavailable

if TYPE_CHECKING:
    from minicluster.engine.protocol import Cancel, Progress

CONNECT_PATIENCE = 5.0  #: seconds for a server's first answer
STALL_PATIENCE = 30.0  #: seconds without a byte, once it has answered
_CHUNK = 1 << 16
_CHECKSUM_LIMIT = 1 << 20  #: bytes: a file of checksums is not larger

#: An https address in front of which stand the addresses of downloads, without their scheme: a mirror in a firm.
MIRROR = "MINICLUSTER_MIRROR"


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but never to an address that anyone on the way could answer for."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: object, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.startswith("https://"):
            raise Unavailable(f"{req.full_url} redirects to {newurl}: only https is accepted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def mirrored(url: str) -> str:
    """Where a download is fetched from: its own address, or that below the mirror."""
    mirror = os.environ.get(MIRROR, "").rstrip("/")
    return f"{mirror}/{url.removeprefix('https://')}" if mirror else url


def fetch(url: str, progress: Progress, cancel: Cancel, *, mirror: bool = True) -> IO[bytes]:
    """The content of an https address as a temporary file, at its beginning.

    Args:
        mirror: a mirror is asked in its place, if there is one.

    Raises:
        Unavailable: the server does not have it, cannot be reached, or stops in the middle.
        Interrupted: cancelled.
    """
    url = mirrored(url) if mirror else url
    if not url.startswith("https://"):
        raise Unavailable(f"{url}: only https is accepted")
    name, patience = url.rpartition("/")[2], CONNECT_PATIENCE
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(spool.temporary())
        try:
            with _answer(url, cancel) as response, cancel.calls(lambda: _abort(response)):
                patience = STALL_PATIENCE
                _set_timeout(response, patience)
                size = int(response.headers.get("Content-Length") or 0)
                done, said = 0, 0.0
                while chunk := response.read(_CHUNK):
                    with spool.writing():
                        file.write(chunk)
                        file.flush()
                    done += len(chunk)
                    if time.monotonic() - said > 1:
                        said = time.monotonic()
                        progress(f"downloading {name}: {done >> 20}" + (f" of {size >> 20} MB" if size else " MB"))
            if size and done < size and not cancel.is_set():
                raise Unavailable(f"{url} ended after {done} of {size} bytes")
        except urllib.error.HTTPError as error:
            raise Unavailable(f"{url} answered {error.code} {error.reason}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            if not cancel.is_set():
                raise Unavailable(f"{url}: {_reason(error, patience)}") from None
        if cancel.is_set():
            raise Interrupted(f"stopped: downloading {name}")
        file.seek(0)
        stack.pop_all()
        return file
    raise AssertionError  # for the type checker: the stack suppresses nothing


def _answer(url: str, cancel: Cancel) -> http.client.HTTPResponse:
    """The beginning of a server's answer, which may take CONNECT_PATIENCE in all: names, addresses, redirections.

    In a thread, since looking up a name cannot be ended.
    """
    answers: list[http.client.HTTPResponse] = []
    errors: list[Exception] = []
    late = threading.Event()

    def run() -> None:
        try:
            context = ssl.create_default_context(cafile=build_settings.own_bundle())
            opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _OnlyHttps)
            answer = opener.open(url, timeout=CONNECT_PATIENCE)
            answers.append(answer)
            if late.is_set():
                answer.close()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    end = time.monotonic() + CONNECT_PATIENCE
    while thread.is_alive() and time.monotonic() < end and not cancel.is_set():
        thread.join(0.05)
    if answers:
        return answers[0]
    late.set()
    raise errors[0] if errors else TimeoutError("timed out")


def _set_timeout(response: http.client.HTTPResponse, seconds: float) -> None:
    sock = getattr(getattr(response.fp, "raw", None), "_sock", None)
    if sock is not None:
        sock.settimeout(seconds)


def _abort(response: http.client.HTTPResponse) -> None:
    """Ends a read that waits, in another thread."""
    sock = getattr(getattr(response.fp, "raw", None), "_sock", None)
    if sock is not None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _reason(error: Exception, patience: float) -> str:
    inner = getattr(error, "reason", error)
    if isinstance(inner, TimeoutError) or "timed out" in str(inner):
        return f"no answer within {patience:g} s"
    return str(getattr(inner, "strerror", None) or inner or type(error).__name__)


def digest(file: IO[bytes], algorithm: str) -> str:
    """The hexadecimal checksum of a file, which is at its beginning afterwards."""
    made = hashlib.new(algorithm)
    file.seek(0)
    while chunk := file.read(1 << 20):
        made.update(chunk)
    file.seek(0)
    return made.hexdigest()


def published(url: str, of: str, cancel: Cancel, *, mirror: bool = True) -> str:
    """A checksum that a project publishes: the first word of the file, or that beside the name of the download.

    Raises:
        Unavailable: there is none.
        Interrupted: cancelled.
    """
    with fetch(url, lambda _line: None, cancel, mirror=mirror) as file:
        text = file.read(_CHECKSUM_LIMIT).decode("ascii", errors="replace")
    name = of.rpartition("/")[2]
    lines = [line.split() for line in text.splitlines() if line.strip()]
    named = [words for words in lines if len(words) > 1 and Path(words[-1].lstrip("*")).name == name]
    # A list of others' checksums has none; a file of one download's own may call that by another name.
    own = url.rpartition("/")[2].startswith(name) or (lines and len(lines[0]) == 1)
    for words in named or (lines[:1] if own else []):
        if re.fullmatch(r"[0-9a-fA-F]{64}|[0-9a-fA-F]{128}", words[0]):
            return words[0].lower()
    raise Unavailable(f"{mirrored(url) if mirror else url} has no checksum of {name}")


def verified(
    url: str,
    known: str,
    checksum_url: str,
    progress: Progress,
    note: Callable[[str], None],
    cancel: Cancel,
    *,
    mirror: bool = True,
) -> tuple[IO[bytes], bool]:
    """A download that has the right checksum, and whether that checksum was known before.

    Args:
        known: the checksum; "" where only the project's own, published beside the download, is there.
        mirror: a mirror is asked in place of both addresses, if there is one.

    Raises:
        Unavailable: it cannot be fetched.
        ImageError: it is not what it should be.
        Interrupted: cancelled.
    """
    wanted = known
    if not wanted:
        if not checksum_url:
            raise Unavailable(f"{url}: no checksum is known, and none is published beside it")
        wanted = published(checksum_url, url, cancel, mirror=mirror)
        note(f"The checksum of {url.rpartition('/')[2]} is the one published beside it: it is not pinned.")
    file = fetch(url, progress, cancel, mirror=mirror)
    is_ = digest(file, "sha512" if len(wanted) == 128 else "sha256")
    if is_ != wanted:
        file.close()
        at = mirrored if mirror else str
        where = at(checksum_url) if not known else "the part's description"
        raise ImageError(
            f"{at(url)} is not the file that it should be",
            f"Its checksum is {is_}, and by {where} it must be {wanted}.",
            "It was changed or damaged on the way: try again, or take another source with --set PART.source=SOURCE.",
        )
    return file, bool(known)
