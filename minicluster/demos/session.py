"""One bash for a whole demo, as a reader has who types its commands: variables, functions and jobs stay."""

from __future__ import annotations

import codecs
import contextlib
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from minicluster.errors import MiniclusterError, UsageError
from minicluster.model.naming import printable
from minicluster.project import find

# Commands come on one descriptor, each ended by a zero byte, and their exit statuses leave on another. The first ends
# where minicluster does, however that is: then nobody else ends the jobs and removes the folder.
# Commands may change the arguments; what the loop needs they cannot.
_LOOP = """
readonly minicluster_in="$1" minicluster_out="$2" minicluster_folder="$3"
set --
while IFS= read -r -d '' -u "$minicluster_in" minicluster_command; do
  eval "$minicluster_command"
  printf '%s\\n' "$?" >&"$minicluster_out"
done
trap '' TERM
kill -TERM 0
[ -z "$minicluster_folder" ] || rm -rf -- "$minicluster_folder"
"""
_PATIENCE = 2.0  #: seconds for what still runs at the end, until it is killed

Output = Callable[[str], None]


class ShellEnded(MiniclusterError):
    """A command has ended the shell, or was ended with it since it took too long; ``why`` is what it wrote."""


def find_bash() -> str:
    """The path of bash. Raises :class:`MiniclusterError` where there is none."""
    found = shutil.which("bash")
    if found is None:
        raise MiniclusterError("bash is not installed", "It runs the commands of a demo.", "Install bash.")
    return found


def check_syntax(command: str) -> str:
    """What bash has against a command; "" if nothing. It is not run."""
    done = subprocess.run([find_bash(), "-n", "-c", command], capture_output=True, text=True, check=False)
    return done.stderr.strip().splitlines()[0].partition(": ")[2] if done.returncode else ""


class Session:
    """Runs commands one after the other in the same shell, in a process group of its own, which Ctrl-C does not reach.

    Args:
        folder: in which it begins.
        env: its variables, all of them.
        temporary: a folder that is removed where this process ends before the session is closed.
    """

    def __init__(self, folder: Path, env: Mapping[str, str], temporary: Path | None = None) -> None:
        bash = find_bash()
        command_out, self._commands = os.pipe()
        self._statuses, status_in = os.pipe()
        try:
            self._shell = subprocess.Popen(
                [
                    bash,
                    "--noprofile",
                    "--norc",
                    "-c",
                    _LOOP,
                    "bash",
                    str(command_out),
                    str(status_in),
                    str(temporary or ""),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=dict(env),
                pass_fds=(command_out, status_in),
                start_new_session=True,
            )
        finally:
            os.close(command_out)
            os.close(status_in)
        assert self._shell.stdout is not None
        self._output = self._shell.stdout.fileno()
        os.set_blocking(self._output, False)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def run(self, command: str, timeout: float, output: Output = lambda _text: None) -> tuple[int, str]:
        """Runs a command; returns its exit status and what it wrote, standard error included.

        Args:
            timeout: seconds that it may take.
            output: receives what it writes, as it comes.

        Raises:
            ShellEnded: it did not end in time, or has ended the shell.
        """
        os.write(self._commands, command.encode() + b"\0")
        written: list[str] = []
        end = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            selector.register(self._statuses, selectors.EVENT_READ)
            while (left := end - time.monotonic()) > 0:
                ready = {key.fd for key, _events in selector.select(min(left, 0.5))}
                if self._output in ready and not self._take(written, output):
                    selector.unregister(self._output)  # the shell has ended, or closed it
                if self._statuses in ready:
                    status = os.read(self._statuses, 16)
                    self._take(written, output)
                    if not status:
                        break
                    return int(status), "".join(written)
                if not ready and self._shell.poll() is not None:
                    break
            else:
                self.close()
                raise ShellEnded(f"not ended after {timeout:g} s", "".join(written))
        raise ShellEnded(f"the shell ended with status {self._shell.wait()}", "".join(written))

    def _take(self, written: list[str], output: Output) -> bool:
        """Reads what is there; False once nothing will come any more."""
        while True:
            try:
                data = os.read(self._output, 65536)
            except BlockingIOError:
                return True
            if not data:
                return False
            text = printable(self._decoder.decode(data))
            written.append(text)
            output(text)

    def close(self) -> None:
        """Ends the shell and everything that its commands have left running."""
        group = self._shell.pid
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._shell.wait(_PATIENCE)
            end = time.monotonic() + _PATIENCE
            while _alive(group) and time.monotonic() < end:
                time.sleep(0.02)
            if not _alive(group):
                break
        for descriptor in (self._commands, self._statuses):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        if self._shell.stdout:
            self._shell.stdout.close()


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS, of processes that have ended and were not waited for
        return False
    return True


@contextmanager
def opened(cluster: str, variables: Mapping[str, str], beside: Path) -> Iterator[tuple[Session, Path]]:
    """A session with a cluster's variables, and its folder, which is removed at the end.

    Args:
        cluster: the one that ``minicluster`` is about in it.
        variables: of ``minicluster env``, with ``PATH`` where it has one.
        beside: the folder of the demo's file, ``$DEMO``.

    Raises:
        MiniclusterError: there is no bash.
        UsageError: no folder can be made.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix="minicluster-demo-"))
    except OSError as error:
        raise UsageError(f"cannot create a folder for the demo: {error.strerror}", "", "Set $TMPDIR.") from None
    try:
        work, programs = folder / "work", folder / "bin"
        work.mkdir()
        programs.mkdir()
        _write_program(programs / "minicluster")
        path = variables.get("PATH") or os.environ.get("PATH", os.defpath)
        env = {**os.environ, **variables, "PATH": f"{programs}{os.pathsep}{path}", "DEMO": str(beside.resolve())}
        env |= {"MINICLUSTER": cluster, find.VARIABLE: find.NONE, "NO_COLOR": "1", "LC_ALL": "C.UTF-8", "TERM": "dumb"}
        session = Session(work, env, folder)
        try:
            yield session, work
        finally:
            session.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_program(path: Path) -> None:
    """This minicluster, under its name, also where it is not on ``PATH``."""
    root = Path(__file__).parents[2]
    code = f"import sys; sys.path.insert(0, {str(root)!r}); from minicluster.cli import main; main()"
    path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(code)} "$@"\n')
    path.chmod(0o755)
