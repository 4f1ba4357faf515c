"""Commands, groups and options of packages that are installed beside this one, by entry points.

An entry point of the group ``minicluster.commands`` names a :class:`click.Command` or :class:`click.Group`; one of the
group ``minicluster.up`` names an :class:`AfterUp`. Each is imported when it is needed. Those of this package are in
pyproject.toml. They are read from the ``entry_points.txt`` of installed packages, a format of the Python packaging
specification: ``importlib.metadata`` does the same, but its import takes a sixth of the time of ``--help``.
"""

from __future__ import annotations

import contextlib
import glob
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import click

from minicluster.errors import MiniclusterError

if TYPE_CHECKING:
    from minicluster.cluster import Cluster

GROUP = "minicluster.commands"
UP_GROUP = "minicluster.up"
SECTION = "System-specific"


@dataclass(frozen=True)
class AfterUp:
    """What a package adds to the command ``up``, for any cluster: it looks itself whether a cluster concerns it."""

    option: click.Option
    call: Callable[[Cluster, Any], Sequence[str]]  #: with the cluster that is up, and the option's value -> notes


@cache
def found(group: str = GROUP) -> dict[str, str]:
    """Names in a group of entry points, each with its MODULE:ATTRIBUTE. The first on the path wins, as with modules."""
    places: dict[str, str] = {}
    for folder in sys.path:
        for path in sorted(glob.glob(os.path.join(glob.escape(folder or "."), "*-info", "entry_points.txt"))):
            try:
                with open(path, encoding="utf-8") as file:
                    text = file.read()
            except (OSError, UnicodeDecodeError):
                continue
            section = f"\n{text}".partition(f"\n[{group}]")[2].partition("\n[")[0]
            for line in section.splitlines():
                name, equals, place = (part.strip() for part in line.partition("="))
                if equals and not name.startswith("#"):
                    places.setdefault(name, place)
    return places


@cache
def load(name: str) -> click.Command:
    """The command or group of that name.

    Raises:
        MiniclusterError: it is another package's, and cannot be loaded.
    """
    module, _, attribute = found()[name].partition(":")
    try:
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{attribute} is not a click command")
        return command
    except Exception as error:  # another package may raise anything
        if module.startswith("minicluster."):
            raise  # a bug of this package
        raise MiniclusterError(
            f"cannot load the commands of 'minicluster {name}'",
            f"{module}: {type(error).__name__}: {error}",
            "Reinstall or remove the package that adds them.",
        ) from error


def names() -> list[str]:
    """Names of the commands and groups that can be loaded: a broken package must not break --help."""
    good = []
    for name in found():
        with contextlib.suppress(MiniclusterError):
            load(name)
            good.append(name)
    return good


@cache
def after_up() -> tuple[AfterUp, ...]:
    """What packages add to ``up``; one that is broken is left out, since ``up`` works without it."""
    good = []
    for place in found(UP_GROUP).values():
        module, _, attribute = place.partition(":")
        with contextlib.suppress(Exception):  # another package may raise anything
            added = getattr(importlib.import_module(module), attribute)
            if isinstance(added, AfterUp):
                good.append(added)
    return tuple(good)


def run_after_up(cluster: Cluster, values: Mapping[str, Any]) -> list[str]:
    """Does what packages add to ``up``, with the values of their options; returns notes."""
    notes: list[str] = []
    for added in after_up():
        try:
            notes += added.call(cluster, values.get(added.option.name or ""))
        except Exception as error:  # the cluster is up, whatever another package does
            what = error.what if isinstance(error, MiniclusterError) else f"{type(error).__name__}: {error}"
            notes.append(f"{added.call.__module__}: {what}")
    return notes
