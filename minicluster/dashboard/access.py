"""Who may see the page: a token that opens it once, and the cookie that it is exchanged for.

The token reaches the browser in a file that only this user can read, and never as an argument of a process, which
every user can read.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from minicluster import paths

LIFETIME = 12 * 3600  #: seconds that a cookie is good for

_KEY_BYTES = 32
_OPENER = """<!DOCTYPE html>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={url}">
<title>minicluster dashboard</title>
<p><a href="{url}">Open the dashboard</a>
"""


def folder() -> Path:
    """The folder with the key and the opening pages: 0700."""
    path = paths.data_home() / "dashboard"
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def write_private(path: Path, content: bytes) -> None:
    """Writes a file that only this user can read, at any moment."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(content)


def key() -> bytes:
    """The key that cookies are signed with. It is kept, so that a page goes on once the dashboard was restarted."""
    path = folder() / "key"
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        found = b""
    if len(found) != _KEY_BYTES:
        found = secrets.token_bytes(_KEY_BYTES)
        write_private(path, found)
    return found


class Access:
    """The tokens and cookies of one dashboard.

    Args:
        base: the page's address, such as "http://127.0.0.1:7070".
        opener: the file that opens it in a browser, rewritten for each token.
        control: changes are allowed. A cookie is good only where it is as it was when the cookie was given out.
    """

    def __init__(
        self, base: str, opener: Path, signing: bytes, *, control: bool, clock: Callable[[], float] = time.time
    ) -> None:
        self.base, self.opener = base, opener
        # Browsers send a cookie to all ports: each has a name of its own, so that none replaces another one's.
        port = urlsplit(base).port
        self.cookie = f"minicluster-dashboard-{port}"  #: its name
        self._scope = f"{port}.{'control' if control else 'view'}"
        self._key, self._clock = signing, clock
        self._token = ""
        self._renew()

    @property
    def url(self) -> str:
        """The address that opens the page once."""
        return f"{self.base}/?token={self._token}"

    def exchange(self, token: str) -> str | None:
        """The value of a cookie for a token, which is then used up; None where it is not the token."""
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            return None
        self._renew()
        expires, nonce = str(int(self._clock()) + LIFETIME), secrets.token_hex(8)
        return f"{expires}.{nonce}.{self._sign(f'{expires}.{nonce}')}"

    def knows(self, cookie: str) -> bool:
        """Whether a cookie is good: given out by this user's dashboard on this port, with the same ``control``."""
        text, _, signature = cookie.rpartition(".")
        expires = text.partition(".")[0]
        good = hmac.compare_digest(signature.encode(), self._sign(text).encode())
        return good and expires.isdecimal() and int(expires) > self._clock()

    def close(self) -> None:
        """Removes the file that opens the page."""
        self.opener.unlink(missing_ok=True)

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, f"{self._scope}.{text}".encode(), hashlib.sha256).hexdigest()

    def _renew(self) -> None:
        self._token = secrets.token_urlsafe(32)
        write_private(self.opener, _OPENER.format(url=self.url).encode())
