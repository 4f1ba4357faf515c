"""Output of containers: commands in them, and their logs. See :class:`minicluster.engine.protocol.Engine`."""

from __future__ import annotations

import contextlib
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence

from minicluster.engine.docker.errors import translated
from minicluster.engine.http import Api, APIError, ConnectionLost, Response
from minicluster.engine.protocol import Cancel, ExecResult
from minicluster.errors import Interrupted, NodeFailed
from minicluster.model import labels


def run(api: Api, container: str, argv: Sequence[str], timeout: float | None, cancel: Cancel) -> ExecResult:
    what = f"run {argv[0]} in {container}"
    with translated(what):
        exec_id, response = _start(api, container, argv, what)
        timer = threading.Timer(timeout, response.abort) if timeout is not None else None
        started = time.monotonic()
        if timer:
            timer.daemon = True
            timer.start()
        output: dict[int, list[bytes]] = defaultdict(list)
        try:
            with response, cancel.calls(response.abort):
                for stream, part in _frames(response):
                    output[stream].append(part)
        except ConnectionLost:
            asked = cancel.is_set() or (timeout is not None and time.monotonic() - started >= timeout)
            if not asked:
                raise
        finally:
            if timer:
                timer.cancel()
        if cancel.is_set():
            raise Interrupted(f"stopped: {what}")
        if timeout is not None and time.monotonic() - started >= timeout:
            raise TimeoutError(f"{what}: no answer within {timeout:g} s")
        code = api.request("GET", f"/exec/{exec_id}/json")["ExitCode"]
    if code is None:  # the stream ended and the command did not: the container is stopping
        raise NodeFailed(f"cannot {what}", "The container has stopped.")
    stdout, stderr = (b"".join(output[stream]).decode(errors="replace") for stream in (1, 2))
    return ExecResult(int(code), stdout, stderr)


def _start(api: Api, container: str, argv: Sequence[str], what: str) -> tuple[str, Response]:
    try:
        body = {"Cmd": list(argv), "AttachStdout": True, "AttachStderr": True}
        exec_id = str(api.request("POST", f"/containers/{container}/exec", data=body)["Id"])
        # No upgrade of the protocol is asked for: only writing to the command needs that.
        response = api.open("POST", f"/exec/{exec_id}/start", data={"Tty": False, "Detach": False})
    except APIError as error:
        if "is not running" in error.message or "is paused" in error.message:
            paused = "is paused" in error.message
            why = f"{container} is {'paused' if paused else 'not running'}."
            fix = f"`minicluster unpause{_option(api, container)}` resumes paused nodes." if paused else ""
            raise NodeFailed(f"cannot {what}", why, fix) from error
        raise
    response.socket.settimeout(None)
    return exec_id, response


def _option(api: Api, container: str) -> str:
    """ " -c CLUSTER" for a node's container; "" where its cluster is not known."""
    with contextlib.suppress(APIError, ConnectionLost, KeyError, TypeError):
        return f" -c {api.request('GET', f'/containers/{container}/json')['Config']['Labels'][labels.CLUSTER]}"
    return ""


def logs(api: Api, container: str, tail: int | None, follow: bool) -> Iterator[bytes]:
    params = {"stdout": 1, "stderr": 1, "follow": int(follow), "tail": "all" if tail is None else tail}
    with (
        translated(f"read the log of {container}"),
        api.open("GET", f"/containers/{container}/logs", params=params) as response,
    ):
        response.socket.settimeout(None)
        yield from _lines(response)


_UPGRADE = {"Connection": "Upgrade", "Upgrade": "tcp"}


def run_to_end(api: Api, container: str, patience: float) -> bytes:
    """Starts a container, and returns its standard output once it has ended; it may be silent for so many seconds."""
    params = {"stream": 1, "stdout": 1}
    with api.open("POST", f"/containers/{container}/attach", params=params, headers=_UPGRADE) as response:
        response.socket.settimeout(patience)
        api.request("POST", f"/containers/{container}/start")  # a busy engine takes longer than what it starts
        return b"".join(part for _stream, part in _frames(response))


class Attached:
    """See :meth:`minicluster.engine.protocol.Engine.attach`."""

    def __init__(self, api: Api, container: str) -> None:
        self._what = f"attach to {container}"
        params = {"stream": 1, "stdin": 1, "stdout": 1, "stderr": 1}
        with translated(self._what):
            self._response = api.open("POST", f"/containers/{container}/attach", params=params, headers=_UPGRADE)
        self._response.socket.settimeout(None)

    def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # the container has ended, which its output says
            self._response.socket.sendall(data)

    def lines(self) -> Iterator[bytes]:
        with translated(self._what):
            yield from _lines(self._response)

    def close(self) -> None:
        self._response.close()


def _lines(response: Response) -> Iterator[bytes]:
    rest = b""
    for _stream, chunk in _frames(response):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _frames(response: Response) -> Iterator[tuple[int, bytes]]:
    """The frames of an attached stream: 1 is standard output, 2 is standard error.

    A frame is a byte for the stream, three of padding, a big-endian length, content.
    """
    while len(header := response.read(8)) == 8:
        stream, length = struct.unpack(">BxxxL", header)
        yield stream, response.read(length)
