"""Files of an engine's machine: the command that reads them, run here in place of a container."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from minicluster.engine.docker import images, machine, streams
from minicluster.engine.protocol import ExecResult, Image


class FakeApi:
    def request(self, *_: object, **__: object) -> None:
        """Every container is created, started and removed."""


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """The commands; the first image has no shell."""
    commands: list[Sequence[str]] = []

    def run(_api: object, _name: str, argv: Sequence[str], *_: object) -> ExecResult:
        commands.append(argv)
        if len(commands) == 1:
            return ExecResult(127, 'OCI runtime exec failed: exec: "sh": executable file not found', "")
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return ExecResult(done.returncode, done.stdout, done.stderr)

    there = [Image(name, (f"minicluster/{name}:1",), {}, 1, 1) for name in ("small", "large")]
    monkeypatch.setattr(streams, "run", run)
    monkeypatch.setattr(images, "listing", lambda _api: there)
    return commands


def test_all_files_are_read_by_one_command_in_the_first_image_that_can(
    ran: list[Sequence[str]], tmp_path: Path
) -> None:
    (tmp_path / "one").write_text("1\n\n2")
    (tmp_path / "two").write_text("")
    paths = [str(tmp_path / name) for name in ("one", "two", "missing")]
    api: Any = FakeApi()
    assert machine.read(api, paths) == dict(zip(paths, ("1\n\n2", "", ""), strict=True))
    assert len(ran) == 2
