"""Demos on real clusters: each does what it says; a presentation is stepped through, left, interrupted and killed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicluster.demos import catalog
from tests.engine.conftest import Shell, eventually, remains
from tests.engine.demos import check_demo

EXAMPLE = Path(__file__).parents[2] / "docs/examples/demo.md"
#: Kubernetes' are in kubernetes/test_demos.py; the images of Mesos are not had here.
ELSEWHERE = {"kubernetes", "mesos"}
ALL = sorted((path.stem, profile) for path, profile in catalog.files() if profile not in ELSEWHERE)
CORE = {("quorum", "etcd")}


@pytest.mark.parametrize(
    ("name", "profile"),
    [pytest.param(*one, id="-".join(one), marks=() if one in CORE else pytest.mark.long) for one in ALL],
)
def test_a_demo_does_what_it_says(outer: Shell, name: str, profile: str) -> None:
    check_demo(outer, name, profile)


@pytest.mark.long
def test_the_demo_of_the_docs_in_a_cluster_that_is_there(outer: Shell, tmp_path: Path) -> None:
    """Also from another folder, and recorded."""
    name, file = "t-demos", shutil.copy(EXAMPLE, tmp_path / "watch.md")
    try:
        outer.minicluster("up", "etcd", "--name", name, "--size", "kv=1")
        wrong = outer.minicluster("demo", "quorum", "-c", name, "--auto", ok=False)
        assert (wrong.code, "is too small for demo quorum" in wrong.err) == (2, True)
        done = outer.minicluster("demo", str(file), "-c", name, "--auto")
        assert re.search(r"\nPUT\nprice\n12\n", done.out)
        assert f"Cluster {name} is kept" in done.out
        assert outer.minicluster("status", name, "-o", "json").json["phase"] == "ready"
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}


# At a terminal


class Terminal:
    """A process of minicluster in a terminal of its own."""

    def __init__(self, shell: Shell, *words: str, columns: int = 80) -> None:
        self.text = ""
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            env = {**os.environ, **shell.env, "TERM": "xterm-256color"}
            for name in ("COLUMNS", "LINES"):  # pytest's own may have them; a terminal tells its size otherwise
                env.pop(name, None)
            os.execve(sys.executable, shell.command(*words), env)

    def read(self) -> str:
        """What it has written until now."""
        while select.select([self.master], [], [], 0.1)[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError:  # it has ended
                break
            if not data:
                break
            self.text += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", data.decode(errors="replace"))
        return self.text

    def until(self, text: str, within: float = 60) -> None:
        eventually(lambda: text in self.read(), what=f"{text!r} in {self.text[-500:]!r}", within=within)

    def press(self, key: str) -> None:
        os.write(self.master, key.encode())

    def step(self, text: str, within: float = 60) -> None:
        """Presses keys until a text is there: one that comes before the demo asks for it is dropped."""
        end = time.monotonic() + within
        while text not in self.read():
            assert time.monotonic() < end, f"no {text!r} in {self.text[-1000:]}"
            self.press(" ")
            time.sleep(0.3)

    def status(self, within: float = 60) -> int:
        """Its exit status, once it has ended."""
        found: list[int] = []

        def ended() -> bool:
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            found.append(status)
            return pid != 0

        eventually(ended, what="it ends", within=within)
        return os.waitstatus_to_exitcode(found[-1])


@pytest.fixture
def terminal(outer: Shell, tmp_path: Path) -> Iterator[Terminal]:
    file = tmp_path / f"t{os.getpid()}.md"
    file.write_text(EXAMPLE.read_text())
    made = Terminal(Shell(outer.env | {"TMPDIR": str(tmp_path)}), "demo", str(file))
    yield made
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(made.pid, signal.SIGKILL)
        os.waitpid(made.pid, 0)
    os.close(made.master)
    eventually(lambda: remains(outer, f"demo-t{os.getpid()}") == {}, what="nothing is left")
    eventually(lambda: list(tmp_path.iterdir()) == [file], what="the folder of the commands is gone")


@pytest.mark.long
def test_a_presenter_steps_through_it(outer: Shell, terminal: Terminal) -> None:
    terminal.until("$ ")
    assert "is up" not in terminal.read()  # it waits
    terminal.step("Watch ─")
    terminal.step("put price 12\nOK\n")
    terminal.step("PUT\nprice\n12\n")
    terminal.until("runs until you press a key")
    terminal.step("is removed")
    assert terminal.status() == 0
    assert max(map(len, terminal.text.splitlines())) <= 80


@pytest.mark.long
@pytest.mark.parametrize(("key", "status"), [("q", 0), ("\x03", 130)])
def test_a_presenter_leaves(outer: Shell, terminal: Terminal, key: str, status: int) -> None:
    terminal.step("Watch ─")
    time.sleep(1)  # a key that is pressed before it is waited for is dropped
    terminal.press(key)
    assert terminal.status() == status
    assert remains(outer, f"demo-t{os.getpid()}") == {}


@pytest.mark.long
def test_a_killed_presentation_leaves_nothing(terminal: Terminal) -> None:
    terminal.step("Watch ─")
    os.kill(terminal.pid, signal.SIGKILL)  # the rest is the fixture's


@pytest.mark.long
def test_a_recording_of_a_terminal(outer: Shell, tmp_path: Path) -> None:
    cast = tmp_path / "x.cast"
    made = Terminal(outer, "demo", str(EXAMPLE), "--auto", "--record", str(cast), columns=100)
    try:
        assert made.status(within=120) == 0
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(made.pid, signal.SIGKILL)
            os.waitpid(made.pid, 0)
        os.close(made.master)
    header, *events = [json.loads(line) for line in cast.read_text().splitlines()]
    assert (header["version"], header["width"], header["height"]) == (2, 100, 24)
    assert [event[0] for event in events] == sorted(event[0] for event in events)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", "".join(event[2] for event in events))
    assert "PUT\nprice\n12\n" in text
    assert "Who watches is told" in made.text
    assert remains(outer, "demo-demo") == {}
