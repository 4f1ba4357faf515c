"""Connections to an engine on another machine, by this machine's ``ssh``.

``ssh`` takes longer to connect than an engine to answer. So the first connection to a machine stays, and further ones,
also those of later commands, share it; it ends a minute after the last of them.
"""

from __future__ import annotations

import os
import socket
import threading
from typing import IO
from urllib.parse import urlsplit

from minicluster import paths
from minicluster.host import processes

_TIMEOUT = 10  # seconds to connect; a name or port that is wrong is often silent
_KEPT = 60  # seconds
_SILENT = 5  # seconds, after two of which a connection to a machine that is gone ends: others would wait for it
_LONGEST = 41 + 17  # bytes that ``ssh`` adds to the folder: a name, and while it begins some more


def connect(url: str, errors: IO[bytes] | None) -> socket.socket:
    """As the docker client does it: ``docker system dial-stdio`` on the other machine connects to its engine.

    Args:
        errors: gets what ``ssh`` writes.

    Raises:
        OSError: the URL names no machine, or there is no ``ssh``.
    """
    parts = urlsplit(url)
    user = ["-l", parts.username] if parts.username else []
    port = ["-p", str(parts.port)] if parts.port else []
    if not parts.hostname:
        raise OSError(f"the URL names no machine: {url}")
    options = [f"ConnectTimeout={_TIMEOUT}", *_kept()]
    words = [word for option in options for word in ("-o", option)]
    argv = ["ssh", *words, *user, *port, "--", parts.hostname, "docker system dial-stdio"]
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            # Detached, since Ctrl-C must not end it: cleaning up needs the connection.
            process = processes.start_detached(argv, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=errors)
    except BaseException:
        ours.close()
        raise
    threading.Thread(target=process.wait, daemon=True).start()  # reaps it once it ends, which is when we disconnect
    return ours


def _kept() -> list[str]:
    """Options by which connections share one; none where there is no place for its socket."""
    folder = paths.ssh_directory()
    if len(os.fsencode(folder)) + _LONGEST > 103:  # the longest path that a socket can have
        return []
    if any(word in str(folder) for word in ('"', "\\", "${")):  # which ssh would not take as they are
        return []
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return []
    return [
        "ControlMaster=auto",
        f'ControlPath="{str(folder).replace("%", "%%")}/%C"',
        f"ControlPersist={_KEPT}",
        f"ServerAliveInterval={_SILENT}",
        "ServerAliveCountMax=2",
    ]
