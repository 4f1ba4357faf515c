"""Runs minicluster without the cost of its start: each command is a fork of a process that has imported everything.

The suite runs more than a thousand commands. Most of the 0.3 s of CPU time of a command is the start of Python and its
imports, and CPU time is scarce in engine tests. Every command is still a process of its own, with its own arguments,
environment, streams, signals and exit status. Commands in the background are not forked: they start normally.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

_LONGEST = 1 << 17  # bytes of a request, which contains the environment
_SKIPPED = ("minicluster.__main__", "minicluster.testing.plugin", "minicluster.testing.testcontainers")


class Warm:
    """The process that is forked; one for each process that runs tests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, argv: Sequence[str], env: Mapping[str, str], timeout: float) -> tuple[int, str, str]:
        """Exit status, stdout and stderr of a command. Raises ``subprocess.TimeoutExpired``."""
        with self._lock:
            if self._process is None:
                self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with theirs:
                    self._process = subprocess.Popen([sys.executable, __file__], stdin=theirs)
            request = json.dumps({"argv": [*argv], "env": dict(env), "cwd": os.getcwd()}).encode()
            (out, their_out), (err, their_err) = os.pipe(), os.pipe()
            try:
                socket.send_fds(self._socket, [request], [their_out, their_err])
            finally:
                os.close(their_out)
                os.close(their_err)
            pid = int(self._socket.recv(_LONGEST))
            try:
                texts = _read(out, err, timeout)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(["minicluster", *argv], timeout) from None
            finally:
                code = int(self._socket.recv(_LONGEST))
            return code, texts[out], texts[err]

    def close(self) -> None:
        """Ends the process."""
        with self._lock:
            if self._process:
                self._socket.close()
                self._process.wait(10)
                self._process = None


def _read(out: int, err: int, timeout: float) -> dict[int, str]:
    """The output of two pipes until every writer has closed them; detached processes must close them."""
    end, found = time.monotonic() + timeout, {out: b"", err: b""}
    try:
        with selectors.DefaultSelector() as selector:
            for pipe in found:
                selector.register(pipe, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(max(0.0, end - time.monotonic()))
                if not ready:
                    raise TimeoutError
                for key, _events in ready:
                    chunk = os.read(key.fd, 1 << 16)
                    found[key.fd] += chunk
                    if not chunk:
                        selector.unregister(key.fd)
    finally:
        os.close(out)
        os.close(err)
    return {pipe: content.decode() for pipe, content in found.items()}


def _serve() -> None:
    """Answers each request on standard input with the pid of a fork that runs it, and then with its exit status."""
    import minicluster

    for module in pkgutil.walk_packages(minicluster.__path__, "minicluster."):
        if module.name not in _SKIPPED:
            importlib.import_module(module.name)
    gc.freeze()  # garbage collection in a fork would copy the pages of what is imported
    requests = socket.socket(fileno=os.dup(0))
    while True:
        request, pipes, _flags, _address = socket.recv_fds(requests, _LONGEST, 2)
        if not request:
            return
        pid = os.fork()
        if pid == 0:
            requests.close()
            _become(json.loads(request), *pipes)
            return
        for pipe in pipes:
            os.close(pipe)
        requests.send(str(pid).encode())
        requests.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())


def _become(request: dict[str, object], out: int, err: int) -> None:
    """Turns the fork into the process of a command, and runs it."""
    from minicluster.cli import main

    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for pipe, stream in ((out, 1), (err, 2)):
        os.dup2(pipe, stream)
        os.close(pipe)
    # The inherited objects have cached properties of their former files, such as being a terminal.
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(fd, mode, closefd=False) for fd, mode in enumerate("rww"))
    os.environ.clear()
    os.environ.update(request["env"])  # type: ignore[arg-type]
    os.chdir(str(request["cwd"]))
    sys.argv = ["minicluster", *request["argv"]]  # type: ignore[misc]
    main()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C of the suite
        _serve()
