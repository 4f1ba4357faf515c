"""minicluster: a whole cluster on one machine, as nested containers, from a profile.

The public face is :mod:`minicluster.cluster`; its names are importable from here, lazily, so that
``import minicluster`` costs nothing until something is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["Cluster", "MiniclusterError", "__version__"]

if TYPE_CHECKING:
    from minicluster.cluster import Cluster
    from minicluster.errors import MiniclusterError


def __getattr__(name: str) -> Any:
    if name == "Cluster":
        from minicluster.cluster import Cluster

        return Cluster
    if name == "MiniclusterError":
        from minicluster.errors import MiniclusterError

        return MiniclusterError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
