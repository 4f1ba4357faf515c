"""Files of an engine's machine: the container that reads them is a process here."""

from __future__ import annotations

import io
import socket
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from minicluster.engine.docker import images, machine
from minicluster.engine.http import ConnectionLost
from minicluster.engine.protocol import Image
from minicluster.errors import NodeFailed


class FakeResponse(io.BytesIO):
    def __init__(self) -> None:
        super().__init__()
        self.socket = socket.socket()


class FakeApi:
    """Containers that run on this machine; one of the image "small" has no shell, one of "silent" never ends."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.argv: Sequence[str] = []

    def request(self, method: str, path: str, data: Any = None, **_: object) -> None:
        self.requests.append(f"{method} {path}")
        if path.endswith("/create"):
            self.argv, self.image = data["Entrypoint"], data["Image"]
        elif path.endswith("/start"):
            assert self.output.socket.gettimeout() == 10.0, "a container that says nothing is not waited for"
            if "small" in self.image:
                raise NodeFailed("cannot start", 'exec: "sh": executable file not found')
            if "silent" in self.image:
                raise ConnectionLost("timed out")
            said = subprocess.run(self.argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
            for part in (said[:3], said[3:]):  # as two frames
                self.output.write(struct.pack(">BxxxL", 1, len(part)) + part)
            self.output.seek(0)

    def open(self, method: str, path: str, params: Any, **_: object) -> FakeResponse:
        self.requests.append(f"{method} {path}")
        assert "stderr" not in params, "what a shell warns of is not part of a file"
        self.output = FakeResponse()
        return self.output


def read(
    monkeypatch: pytest.MonkeyPatch, refs: Sequence[str], paths: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    there = [Image(ref, (f"minicluster/{ref}:1",), {}, 1, 1) for ref in refs]
    monkeypatch.setattr(images, "listing", lambda _api: there)
    api: Any = FakeApi()
    return machine.read(api, paths), api.requests


def test_all_files_are_read_by_one_container_of_the_first_image_that_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").write_text("1\n\n2\n")
    (tmp_path / "two").write_text("")
    paths = [str(tmp_path / name) for name in ("one", "two", "missing")]
    found, requests = read(monkeypatch, ("small", "silent", "large"), paths)
    assert found == dict(zip(paths, ("1\n\n2\n", "", ""), strict=True))
    assert [line.split()[0] for line in requests] == [*["POST", "POST", "POST", "DELETE"] * 2, "POST", "POST", "POST"]
    for n in (0, 4):  # what was created is removed
        assert requests[n + 3].rpartition("/")[2] == requests[n + 1].split("/")[2]


def test_without_an_image_that_can_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, ("small",), ["/proc/meminfo"])[0] == {}
