"""Files of an engine's machine, asked by way of a container: this process may be on another machine, or in one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from minicluster.engine.docker import images, streams
from minicluster.engine.docker.errors import translated
from minicluster.engine.protocol import Cancel
from minicluster.errors import MiniclusterError, NodeFailed
from minicluster.model import labels

if TYPE_CHECKING:
    from minicluster.engine.http import Api

_PATIENCE = 10.0  #: seconds for its answer
#: All of them in one go; those that are not there are empty.
_CAT = 'for path; do cat "$path"; printf "\\0"; done'

#: What commands ask for.
ROUTES, MEMORY = "/proc/net/route", "/proc/meminfo"


def read(api: Api, paths: Sequence[str]) -> dict[str, str]:
    """Files of /proc or /sys, as a container on the machine's own network sees them.

    Empty where no image of ours is there to ask with.
    """
    # A part's image has programs of its own only.
    ours = [image for image in images.listing(api) if labels.PART not in image.labels]
    refs = [tag for image in ours for tag in image.tags if tag.startswith("minicluster/")]
    for ref in refs:
        with contextlib.suppress(MiniclusterError, TimeoutError):  # an image may have no sh
            return _ask(api, ref, paths)
    return {}


def _ask(api: Api, ref: str, paths: Sequence[str]) -> dict[str, str]:
    name = f"minicluster-ask-{os.urandom(6).hex()}"
    body = {
        "Image": ref,
        "Entrypoint": ["sh", "-c", _CAT, "sh", *paths],
        "Cmd": [],
        "AttachStdout": True,
        "HostConfig": {"NetworkMode": "host", "AutoRemove": True},
    }
    try:
        with translated(f"create container {name}"):
            api.request("POST", "/containers/create", params={"name": name}, data=body)
        with translated(f"run container {name}"):
            said = streams.run_to_end(api, name, _PATIENCE).decode(errors="replace")
    except BaseException:
        _remove(api, name)
        raise
    texts = said.split("\0")[:-1]
    if len(texts) != len(paths):
        raise NodeFailed(f"{ref} cannot read files of the engine's machine", said[:200])
    return dict(zip(paths, texts, strict=True))


def cat(api: Api, container: str, path: str) -> str:
    """A file of a container that runs."""
    return streams.run(api, container, ["cat", path], _PATIENCE, Cancel()).stdout


def _remove(api: Api, name: str) -> None:
    with contextlib.suppress(MiniclusterError), translated(f"remove container {name}"):
        api.request("DELETE", f"/containers/{name}", params={"force": 1, "v": 1})
