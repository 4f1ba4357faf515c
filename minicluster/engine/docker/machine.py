"""Files of an engine's machine, asked by way of a container: this process may be on another machine, or in one."""

from __future__ import annotations

import contextlib
import os

from minicluster.engine.docker import images, streams
from minicluster.engine.docker.errors import translated
from minicluster.engine.http import Api
from minicluster.engine.protocol import Cancel
from minicluster.errors import MiniclusterError
from minicluster.model import labels

_LIFE = 30  #: seconds after which the container ends by itself
_PATIENCE = 10.0  #: seconds for its answer


def read(api: Api, path: str) -> str:
    """A file of /proc or /sys, as a container on the machine's own network sees it.

    "" where no image of ours is there to ask with.
    """
    # A part's image has programs of its own only.
    ours = [image for image in images.listing(api) if labels.PART not in image.labels]
    refs = [tag for image in ours for tag in image.tags if tag.startswith("minicluster/")]
    for ref in refs:
        with contextlib.suppress(MiniclusterError, TimeoutError):  # an image may have no cat
            return _ask(api, ref, path)
    return ""


def _ask(api: Api, ref: str, path: str) -> str:
    name = f"minicluster-ask-{os.urandom(6).hex()}"
    host = {"NetworkMode": "host", "AutoRemove": True, "Init": True}
    body = {"Image": ref, "Entrypoint": ["sleep", str(_LIFE)], "Cmd": [], "HostConfig": host}
    try:
        with translated(f"create container {name}"):
            api.request("POST", "/containers/create", params={"name": name}, data=body)
        with translated(f"start container {name}"):
            api.request("POST", f"/containers/{name}/start")
        return streams.run(api, name, ["cat", path], _PATIENCE, Cancel()).stdout
    finally:
        with contextlib.suppress(MiniclusterError), translated(f"remove container {name}"):
            api.request("DELETE", f"/containers/{name}", params={"force": 1})
