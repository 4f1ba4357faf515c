"""Files of an engine's machine: the container that reads them is a process here."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from minicluster.engine.docker import images, machine, streams
from minicluster.engine.protocol import Image
from minicluster.errors import NodeFailed


class FakeApi:
    """Containers that run on this machine; the image "small" has no shell."""

    def __init__(self) -> None:
        self.argv: Sequence[str] = []
        self.requests: list[str] = []
        self.output = b""

    def request(self, method: str, path: str, data: Any = None, **_: object) -> None:
        self.requests.append(f"{method} {path.partition('-ask-')[0]} {path.rpartition('/')[2].partition('-')[0]}")
        if path.endswith("/create"):
            self.argv = data["Entrypoint"]
            self.image = data["Image"]
        elif path.endswith("/start"):
            if "small" in self.image:
                raise NodeFailed("cannot start", 'exec: "sh": executable file not found')
            self.output = subprocess.run(self.argv, capture_output=True, check=True).stdout


class FakeAttached:
    def __init__(self, api: Any, _container: str, patience: float) -> None:
        assert patience
        self.api = api

    def lines(self) -> Iterator[bytes]:
        yield from self.api.output.split(b"\n")

    def close(self) -> None:
        pass


def test_all_files_are_read_by_one_container_of_the_first_image_that_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = [Image(name, (f"minicluster/{name}:1",), {}, 1, 1) for name in ("small", "large")]
    monkeypatch.setattr(images, "listing", lambda _api: there)
    monkeypatch.setattr(streams, "Attached", FakeAttached)
    (tmp_path / "one").write_text("1\n\n2\n")
    (tmp_path / "two").write_text("")
    paths = [str(tmp_path / name) for name in ("one", "two", "missing")]
    api: Any = FakeApi()
    assert machine.read(api, paths) == dict(zip(paths, ("1\n\n2\n", "", ""), strict=True))
    assert [line.split()[0] for line in api.requests] == ["POST", "POST", "DELETE", "POST", "POST"]
