"""Files of containers, by the archive calls. See :class:`minicluster.engine.protocol.Engine`."""

from __future__ import annotations

import base64
import io
import json
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from minicluster.engine.docker.errors import translated
from minicluster.engine.http import Api, APIError, Response
from minicluster.engine.protocol import File, PathStat
from minicluster.errors import EngineError, NotFound

# Bits of a file's mode in Go's os.FileMode, which the engine sends.
_GO_FOLDER, _GO_LINK = 1 << 31, 1 << 27
_GO_OTHER = 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19  # device, pipe, socket, character device, irregular


def put_files(api: Api, container: str, files: Sequence[File]) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for file in files:
            tar.addfile(
                _tar_entry(file.path, len(file.content), file.mode, file.uid, file.gid), io.BytesIO(file.content)
            )
    with translated(f"write files into {container}"):
        _put(api, container, "/", buffer.getvalue())


def put_file(api: Api, container: str, path: str, content: Iterator[bytes], size: int) -> None:
    entry = _tar_entry(path, size, 0o600)

    def tar() -> Iterator[bytes]:
        yield entry.tobuf(tarfile.PAX_FORMAT)
        yield from content
        padding = -size % tarfile.BLOCKSIZE
        yield bytes(padding + 2 * tarfile.BLOCKSIZE)

    with translated(f"write {path} into {container}"):
        _put(api, container, "/", tar())


def get_file(api: Api, container: str, path: str) -> bytes:
    with translated(f"read {path} of {container}"), _get(api, container, path) as response:
        found = _stat_of(response)
        data = response.read() if not found["mode"] & (_GO_FOLDER | _GO_LINK | _GO_OTHER) else b""
    if data:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            content = tar.extractfile(tar.getmembers()[0])
            assert content
            return content.read()
    target = str(found["linkTarget"])  # the engine has followed the whole chain of links
    if target and target != path:
        return get_file(api, container, target)
    raise NotFound(f"cannot read {path} of {container}: it is not a file")


def stat_path(api: Api, container: str, path: str) -> PathStat | None:
    found = _stat(api, container, path)
    if found and found["mode"] & _GO_LINK:
        path = str(found["linkTarget"])  # the engine has followed the whole chain of links
        found = _stat(api, container, path) or found
    with translated(f"inspect container {container}"):
        in_memory = api.request("GET", f"/containers/{container}/json")["HostConfig"].get("Tmpfs") or {}
    if found is None:
        return None
    _check_access(container, path, in_memory)
    mode = int(found["mode"])
    other = mode & (_GO_LINK | _GO_OTHER)
    return PathStat(path, "folder" if mode & _GO_FOLDER else "other" if other else "file")


def read(api: Api, container: str, path: str) -> Iterator[bytes]:
    with translated(f"read {path} of {container}"), _get(api, container, path) as response:
        yield from response.chunks()


def write(api: Api, container: str, folder: str, content: Iterator[bytes]) -> None:
    with translated(f"write into {folder} of {container}"):
        _put(api, container, folder, content, noOverwriteDirNonDir=1)


def _put(api: Api, container: str, folder: str, tar: bytes | Iterator[bytes], **params: int) -> None:
    api.request("PUT", f"/containers/{container}/archive", params={"path": folder, **params}, body=tar)


def _get(api: Api, container: str, path: str) -> Response:
    return api.open("GET", f"/containers/{container}/archive", params={"path": path})


def _stat(api: Api, container: str, path: str) -> dict[str, Any] | None:
    with translated(f"inspect {path} of {container}"):
        try:
            with api.open("HEAD", f"/containers/{container}/archive", params={"path": path}) as response:
                return _stat_of(response)
        except APIError as error:
            if error.status == 404:
                return None  # neither the path nor, maybe, the container
            raise


def _stat_of(response: Response) -> dict[str, Any]:
    return dict(json.loads(base64.b64decode(response.headers["X-Docker-Container-Path-Stat"])))


def _check_access(container: str, path: str, in_memory: dict[str, str]) -> None:
    """The engine copies to and from a container's disk and volumes only, not what is mounted over them in memory."""
    at = PurePosixPath("/", path)
    for folder in map(PurePosixPath, in_memory):
        if folder == at or folder in at.parents:
            raise EngineError(
                f"{at} of {container} cannot be accessed by the engine: {folder} is a tmpfs",
                "The engine copies to and from disks only.",
                "Choose another folder, such as /var/tmp or /root.",
            )


def _tar_entry(path: str, size: int, mode: int, uid: int = 0, gid: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(str(PurePosixPath(path)).lstrip("/"))
    entry.size, entry.mode, entry.mtime = size, mode, int(time.time())
    entry.uid, entry.gid = uid, gid
    return entry
