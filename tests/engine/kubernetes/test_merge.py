"""``up`` at a terminal merges the kubeconfig into the user's own; ``down`` takes it out again."""

from __future__ import annotations

import os
import pty
from pathlib import Path

import pytest

from tests.engine.conftest import Shell, remains

pytestmark = pytest.mark.long

NAME = "t-kube-merge"
BEFORE = """\
apiVersion: v1
kind: Config
contexts:
- {name: work, context: {cluster: work, user: me}}
current-context: work
"""


def at_terminal(shell: Shell, *argv: str) -> str:
    """Runs minicluster at a terminal of its own; what it shows."""
    pid, terminal = pty.fork()
    if not pid:
        line = shell.command(*argv)
        os.execvpe(line[0], line, os.environ | shell.env)
    shown = b""
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, shown.decode()
    return shown.decode()


def test_up_at_a_terminal_changes_the_context_and_down_restores_it(outer: Shell, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.write_text(BEFORE)
    (tmp_path / "config").symlink_to(real)
    shell = Shell({**outer.env, "KUBECONFIG": f"{tmp_path / 'none'}:{tmp_path / 'config'}"})
    kubectl = ("kubectl", "config", "current-context")
    try:
        at_terminal(shell, "up", "kubernetes", "--name", NAME, "--size", "agent=1", "--no-kubeconfig")
        shell.minicluster("up", "--name", NAME)  # without a terminal
        assert real.read_text() == BEFORE
        lock = tmp_path / "config.lock"  # as kubectl holds it
        lock.touch()
        assert "is locked by another process" in " ".join(at_terminal(shell, "up", "--name", NAME).split())
        lock.unlink()
        assert real.read_text() == BEFORE
        shown = " ".join(at_terminal(shell, "up", "--name", NAME).split())
        assert f"current context is minicluster-{NAME}" in shown
        assert "before: work" in shown
        assert shell.run(*kubectl).out == f"minicluster-{NAME}\n"
        assert "agent-1" in shell.run("kubectl", "get", "nodes", "-o", "name").out
        shell.run("kubectl", "config", "use-context", "work")
        at_terminal(shell, "up", "--name", NAME)
        assert shell.run(*kubectl).out == "work\n"
        shell.run("kubectl", "config", "use-context", f"minicluster-{NAME}")
    finally:
        shell.minicluster("down", NAME, ok=False)
    assert shell.run(*kubectl).out == "work\n"
    assert NAME not in real.read_text()
    assert (tmp_path / "config").is_symlink()
    assert remains(outer, NAME) == {}
