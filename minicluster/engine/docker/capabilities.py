"""Which capabilities an engine can give a container."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from minicluster.engine import privileges
from minicluster.engine.http import Api, APIError
from minicluster.host import procfs
from minicluster.model import labels

if TYPE_CHECKING:
    from minicluster.engine.protocol import ContainerConfig

#: Engines before Docker 23 (API 1.42) refuse these names as unknown.
_NEW = frozenset({"PERFMON", "BPF", "CHECKPOINT_RESTORE"})


def granted(api: Api, endpoint: str, api_version: str, config: ContainerConfig) -> tuple[str, ...]:
    """All capabilities that the engine can give: those of its own process where we see that, else by trying.

    Args:
        api_version: the engine's own, such as 1.41.
        config: of a container that is about to be created: it is tried with its image, and under its cluster's label.
    """
    major, _, minor = api_version.partition(".")
    knows_new = (int(major), int(minor)) >= (1, 42) if major.isdigit() and minor.isdigit() else False
    every = tuple(name for name in privileges.ALL if knows_new or name not in _NEW)
    scheme, _, path = endpoint.partition("://")
    if scheme == "unix":
        with suppress(OSError):
            bounding = procfs.bounding_set(procfs.listener_pid(path, timeout=1.0) or 0)
            if bounding is not None:
                return tuple(name for name in privileges.named(bounding) if name in every)
    if _starts(api, config, every) or not _starts(api, config, ()):  # what cannot start at all says nothing
        return every
    lacking = {name for name in every if not _starts(api, config, (name,))}
    return tuple(name for name in every if name not in lacking)


def _starts(api: Api, config: ContainerConfig, added: Sequence[str]) -> bool:
    """Whether a container starts with these capabilities. An engine refuses them when it starts one, not earlier."""
    body = {
        "Image": config.image,
        "Entrypoint": ["true"],
        "Cmd": [],
        "Labels": {labels.CLUSTER: config.labels[labels.CLUSTER]} if labels.CLUSTER in config.labels else {},
        "HostConfig": {"CapAdd": list(added), "NetworkMode": "none"},
    }
    try:
        made = api.request("POST", "/containers/create", data=body)["Id"]
    except APIError:  # a capability that it does not know
        return False
    try:
        api.request("POST", f"/containers/{made}/start")
    except APIError:
        return False
    finally:
        with suppress(APIError):
            api.request("DELETE", f"/containers/{made}", params={"force": 1, "v": 1})
    return True
