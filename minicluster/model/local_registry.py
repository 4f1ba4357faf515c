"""The engine's local registry: one for all of its clusters. Users push to it, nodes pull from it by the same name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from minicluster.model.deferred import fill

if TYPE_CHECKING:
    from minicluster.model.spec import FileSpec, NodeSpec

NAME = "minicluster-registry"  #: of its container and its volume, and its name on clusters' networks
PORT = 5000  #: in its container
TLS = "/etc/minicluster/tls"  #: the folder of its certificate there
CA = f"{TLS}/ca.pem"


@dataclass(frozen=True)
class LocalRegistry:
    """The registry as nodes have to know it."""

    port: int  #: on 127.0.0.1 of the engine's machine
    ca: str  #: the certificate of the authority that issued its own, PEM
    networks: frozenset[str] = frozenset()  #: that it has joined

    @property
    def host(self) -> str:
        """What names of its images begin with, on the engine's machine and in nodes."""
        return f"localhost:{self.port}"

    @property
    def values(self) -> Mapping[str, str]:
        """Deferred values: what templates see of it, which are rendered while there may be none."""
        address = f"{NAME}:{PORT}"
        return {
            "registry.host": self.host,
            "registry.server": f"https://{address}",
            "registry.address": address,
            "registry.port": str(self.port),
            "registry.ca": self.ca.strip(),
        }

    def files(self, node: NodeSpec) -> tuple[FileSpec, ...]:
        """The files that tell a node of it."""
        filled = [(file, fill([file.path, file.content], self.values)) for file in node.local_registry]
        return tuple(replace(file, path=path, content=content) for file, (path, content) in filled)
