"""What the shell offers after TAB. It must never print or fail: an engine that is not there offers nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import typer

T = TypeVar("T")


def _or_nothing(find: Callable[[], list[T]]) -> list[T]:
    try:
        return find()
    except Exception:
        return []


def clusters(_ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Names of clusters."""

    def find() -> list[tuple[str, str]]:
        from minicluster import cluster

        return [(c.cluster, f"{c.profile}, {c.phase}") for c in cluster.clusters() if c.cluster.startswith(incomplete)]

    return _or_nothing(find)


def nodes(ctx: typer.Context, incomplete: str) -> list[str]:
    """Nodes and roles of the cluster that the words so far name."""

    def find() -> list[str]:
        from minicluster.cluster import Cluster

        names = Cluster.open(ctx.params.get("cluster")).node_names([])
        roles = dict.fromkeys(name.rpartition("-")[0] for name in names)
        return [word for word in (*names, *roles) if word.startswith(incomplete)]

    return _or_nothing(find)


def places(ctx: typer.Context, incomplete: str) -> list[str]:
    """Files of this machine, and nodes and roles with the ``:`` that a path in them follows."""

    def files() -> list[str]:
        import glob
        import os

        return [path + "/" * os.path.isdir(path) for path in sorted(glob.glob(f"{glob.escape(incomplete)}*"))]

    return [f"{word}:" for word in nodes(ctx, incomplete)] + _or_nothing(files)


def profiles(_ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of profiles."""

    def find() -> list[str]:
        from minicluster.profile import catalog

        return [name for name in catalog.names() if name.startswith(incomplete)]

    return _or_nothing(find)


def address_modes(_ctx: typer.Context, incomplete: str) -> list[str]:
    """Address modes."""

    def find() -> list[str]:
        from minicluster.operations.connect import MODES

        return [mode for mode in MODES if mode.startswith(incomplete)]

    return _or_nothing(find)


def roles(ctx: typer.Context, incomplete: str) -> list[str]:
    """Roles of the profile that the words so far name, each with the ``=`` that its count follows."""

    def find() -> list[str]:
        from minicluster.profile import catalog

        profile = catalog.load(ctx.params.get("profile") or "swarm").profile
        return [f"{role}=" for role in profile.roles if role.startswith(incomplete)]

    return _or_nothing(find)
