"""An engine that dies, and a disk that is full: tried on a private engine of the test's own, on a small disk."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicluster.engine.private import daemon
from tests.engine.conftest import Shell, remains

NAME = "t-broken"
DISK = 1400  # MiB: the node image and little more


@pytest.fixture(scope="module")
def small(outer: Shell, node_image: str) -> Iterator[Shell]:
    """minicluster with a private engine on a disk of its own, that has the node image."""
    if daemon.obstacle():
        pytest.skip(f"no private engine can be started here: {daemon.obstacle()}")
    disk = Path(tempfile.mkdtemp(prefix="mc-", dir="/var/tmp"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", str(disk)], check=True)
    socket = disk / "minicluster" / "engine" / "docker.sock"
    shell = Shell({"XDG_DATA_HOME": str(disk), "DOCKER_HOST": "", "DOCKER_CONTEXT": ""})
    client = Shell({"XDG_DATA_HOME": str(disk), "DOCKER_HOST": f"unix://{socket}"})
    try:
        shell.minicluster("engine", "start")
        save = subprocess.Popen(["docker", "save", node_image], env=os.environ | outer.env, stdout=subprocess.PIPE)
        subprocess.run(
            ["docker", "load"], env=os.environ | client.env, stdin=save.stdout, check=True, capture_output=True
        )
        assert save.wait() == 0
        yield client
    finally:
        shell.minicluster("engine", "stop", "--remove-data", ok=False)
        subprocess.run(["umount", "--lazy", str(disk)], check=False)
        shutil.rmtree(disk, ignore_errors=True)


def test_full_disk_ends_in_one_message_and_leaves_nothing(small: Shell) -> None:
    disk = Path(small.env["XDG_DATA_HOME"])
    filler = disk / "filler"
    try:
        with filler.open("wb") as file:
            block = bytes(1 << 20)
            try:
                while True:
                    file.write(block)
                    file.flush()
            except OSError:
                pass
        answer = small.minicluster("up", "swarm", "--name", NAME, "--timeout", "20", ok=False)
        assert answer.code in (1, 4), answer.err
        assert "no space left" in answer.err.lower() or "disk is full" in answer.err
        assert "Traceback" not in answer.err
        assert remains(small, NAME) == {}
    finally:
        filler.unlink(missing_ok=True)
    small.minicluster("up", "swarm", "--name", NAME)
    small.minicluster("down", NAME)
    assert remains(small, NAME) == {}


@pytest.mark.parametrize("seconds", [1.3, *(pytest.param(s, marks=pytest.mark.long) for s in (0.8, 1.9))])
def test_engine_that_dies_in_the_middle(small: Shell, seconds: float) -> None:
    process = small.start("up", "swarm", "--name", NAME)
    time.sleep(seconds)
    _kill_engine(small)
    output, _ = process.communicate(timeout=120)
    if process.returncode:  # else it was done already
        assert process.returncode == 3, output
        assert re.search(r"^Error: .*engine", output, re.MULTILINE), output
    assert "Traceback" not in output
    # It may have been able to start the engine again and to clean up; a `down` makes sure.
    small.minicluster("engine", "start")
    small.minicluster("down", NAME, ok=False)
    assert remains(small, NAME) == {}


def _kill_engine(shell: Shell) -> None:
    pid = int((Path(shell.env["XDG_DATA_HOME"]) / "minicluster" / "engine" / "docker.pid").read_text())
    os.kill(pid, signal.SIGKILL)
