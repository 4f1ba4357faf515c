"""Shell completion of values. It must never print or fail: without an engine there are no candidates."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click
from click.shell_completion import CompletionItem

T = TypeVar("T")


def _or_nothing(find: Callable[[], list[T]]) -> list[T]:
    try:
        return find()
    except Exception:
        return []


def clusters(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of clusters."""

    def find() -> list[CompletionItem]:
        from minicluster import cluster

        found = [c for c in cluster.clusters() if c.cluster.startswith(incomplete)]
        return [CompletionItem(c.cluster, help=f"{c.profile}, {c.phase}") for c in found]

    return _or_nothing(find)


def words(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of commands, after those of groups."""

    def find() -> list[str]:
        at = ctx.find_root()
        for name in ctx.params.get("words") or ():
            command = at.command.get_command(at, name) if isinstance(at.command, click.Group) else None
            if command is None:
                return []
            at = click.Context(command, parent=at, info_name=name)
        names = at.command.list_commands(at) if isinstance(at.command, click.Group) else []
        return [name for name in names if name.startswith(incomplete)]

    return _or_nothing(find)


def nodes(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Nodes and roles of the cluster given by the words so far."""

    def find() -> list[str]:
        from minicluster.cluster import Cluster

        names = Cluster.open(ctx.params.get("cluster")).node_names([])
        roles = dict.fromkeys(name.rpartition("-")[0] for name in names)
        return [word for word in (*names, *roles) if word.startswith(incomplete)]

    return _or_nothing(find)


def places(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Files on this machine, and nodes and roles followed by ``:``."""

    def files() -> list[str]:
        import glob
        import os

        return [path + "/" * os.path.isdir(path) for path in sorted(glob.glob(f"{glob.escape(incomplete)}*"))]

    return [f"{word}:" for word in nodes(ctx, param, incomplete)] + _or_nothing(files)


def profiles(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Names of profiles."""

    def find() -> list[str]:
        from minicluster.profile import folders

        return [name for name in folders.names() if name.startswith(incomplete)]

    return _or_nothing(find)


def address_modes(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Address modes."""

    def find() -> list[str]:
        from minicluster.operations.connect import MODES

        return [mode for mode in MODES if mode.startswith(incomplete)]

    return _or_nothing(find)


def roles(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Roles of the profile given by the words so far, each followed by ``=``."""

    def find() -> list[str]:
        from minicluster.operations.up import DEFAULT_PROFILE
        from minicluster.profile import catalog

        profile = catalog.load(ctx.params.get("profile") or DEFAULT_PROFILE).profile
        return [f"{role}=" for role in profile.roles if role.startswith(incomplete)]

    return _or_nothing(find)


def cluster_roles(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Roles of the cluster given by the words so far, each followed by ``=``."""

    def find() -> list[str]:
        from minicluster.cluster import Cluster

        roles = Cluster.open(ctx.params.get("cluster")).spec.roles
        return [f"{role}=" for role in roles if role.startswith(incomplete)]

    return _or_nothing(find)
