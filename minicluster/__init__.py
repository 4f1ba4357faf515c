"""minicluster: a whole cluster on one machine, as nested containers, from a profile.

The public face is :mod:`minicluster.cluster`; its names are importable from here, lazily, so that
``import minicluster`` costs nothing until something is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["Cluster", "Lease", "MiniclusterError", "Node", "__version__"]

if TYPE_CHECKING:
    from minicluster.cluster import Cluster
    from minicluster.errors import MiniclusterError
    from minicluster.model.lease import Lease
    from minicluster.node import Node

_HOMES = {"Cluster": "cluster", "Lease": "model.lease", "MiniclusterError": "errors", "Node": "node"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
