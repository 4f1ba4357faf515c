"""Nodes whose data lie on a file system of their own, before they are created or started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from minicluster.errors import UsageError
from minicluster.model.events import Listener, ignore
from minicluster.model.naming import size

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine
    from minicluster.model.spec import Spec
    from minicluster.plan.observed import Observed


def check(before: Spec | None, spec: Spec, *, several_hosts: bool = False) -> None:
    """Refuses what cannot be: another file system for data that exist, and starts that the engine makes by itself.

    Raises:
        UsageError: with what to do instead.
    """
    for node in spec.nodes:
        if node.disks and several_hosts:
            raise UsageError(
                f"--disk {node.role}: the cluster is on several hosts", "", "Use one engine, or leave out --disk."
            )
        if node.disks and spec.restart != "no":
            raise UsageError(
                f"--restart {spec.restart}: {node.name} has a file system of its own",
                "The engine cannot start it by itself after the machine restarted: minicluster first makes a device.",
                "Leave out --restart, or --disk.",
            )
        was = before.node(node.name) if before else None
        if was and was.disks != node.disks:
            raise UsageError(
                f"--disk {node.role}: {node.name} exists, and has {_words(was.disks)}",
                "Its data are not moved.",
                f"Remove the cluster first (`minicluster down {spec.cluster}`), or create another one with --name.",
            )


def _words(disks: Mapping[str, int]) -> str:
    return "".join(f"one of {size(number)}" for number in disks.values()) or "no file system of its own"


def prepare(engine: Engine, spec: Spec, listener: Listener = ignore, observed: Observed | None = None) -> None:
    """Gets our helper, and gives the engine the file systems of nodes that do not run, which may have to mount them.

    Args:
        observed: None: no node exists yet.
    """
    mine = [node.name for node in spec.nodes if node.disks]
    if not mine:
        return
    from minicluster.executor import disks
    from minicluster.operations import images

    images.provide_helper(engine, listener)
    if observed and any(c for name in mine if (c := observed.containers.get(name)) and not c.alive):
        disks.attach(engine, spec.cluster)
