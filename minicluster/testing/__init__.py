"""Clusters for tests: the pytest plugin, and what tests import for type annotations.

The names are imported on first use: pytest loads the plugin in every run, with or without clusters.
:mod:`minicluster.testing.testcontainers` is imported by its own name, since it needs testcontainers-python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["ClusterFactory", "Scope"]

if TYPE_CHECKING:
    from minicluster.testing.plugin import ClusterFactory, Scope


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from minicluster.testing import plugin

    return getattr(plugin, name)
