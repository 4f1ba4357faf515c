"""What the docker client does itself before it calls the engine, by docker-py: credentials, proxies, build contexts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from minicluster.engine import client_config
from minicluster.engine.client_config import docker_py


def credentials(repository: str) -> dict[str, str]:
    """The header with what the docker client's configuration has for a repository's registry; empty for nothing."""
    auth = docker_py("auth")
    registry, _name = auth.resolve_repository_name(repository)
    found = auth.load_config().resolve_authconfig(registry)
    return {"X-Registry-Auth": auth.encode_header(found).decode()} if found else {}


def all_credentials() -> dict[str, str]:
    """The header with what the docker client's configuration has for all registries, which a build may need."""
    auth = docker_py("auth")
    found = auth.load_config().get_all_credentials()
    return {"X-Registry-Config": auth.encode_header(found).decode()} if found else {}


def proxies(endpoint: str, address: str) -> dict[str, str]:
    """Variables that the docker client's configuration has for every container, as the client sets them.

    Where it has none, those of this process, through which node images are built too. Connections between nodes use no
    proxy.
    """
    configured = client_config.settings().get("proxies") or {}
    if configured:
        chosen = configured.get(endpoint) or configured.get("default") or {}
        found = dict(docker_py("utils.proxy").ProxyConfig.from_dict(chosen).get_environment())
    else:
        found = _own_proxies()
    if found:
        # etcd's gateway asks etcd itself at 0.0.0.0. Clusters' subnets are as large as that.
        direct = ["localhost", "127.0.0.1", "0.0.0.0", f"{address.rpartition('.')[0]}.0/24"]
        found["NO_PROXY"] = ",".join([*filter(None, [found.get("NO_PROXY")]), *direct])
        found["no_proxy"] = found["NO_PROXY"]
    return found


def _own_proxies() -> dict[str, str]:
    """This process's proxy settings in both spellings. One of this machine's loopback is not reached from a node."""
    found: dict[str, str] = {}
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        value = os.environ.get(name) or os.environ.get(name.lower()) or ""
        if value and (name == "NO_PROXY" or _is_reached(value)):
            found |= {name: value, name.lower(): value}
    return found if found.keys() - {"NO_PROXY", "no_proxy"} else {}


def _is_reached(proxy: str) -> bool:
    """Whether a node may reach a proxy: its address is one, and not of this machine's loopback."""
    try:
        host = urlsplit(proxy if "//" in proxy else f"//{proxy}").hostname or ""
    except ValueError:
        return False
    return not (host in ("localhost", "::1") or host.startswith("127."))


def build_context(directory: Path) -> IO[bytes]:
    """A folder as a tar, in a temporary file with a name; a file is such a tar already."""
    if directory.is_file():
        return directory.open("rb")
    archive: IO[bytes] = docker_py("utils.build").tar(str(directory))
    return archive
