"""What is done with clusters, one file per use case.

``from minicluster import operations`` imports none of them: each is imported when it is used first, since a command
needs few of them.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minicluster.operations import (
        chaos as chaos,
        client_folder as client_folder,
        connect as connect,
        copy_files as copy_files,
        down as down,
        export as export,
        faults as faults,
        fill as fill,
        hand_out as hand_out,
        heal as heal,
        info as info,
        inject as inject,
        lifecycle as lifecycle,
        load_images as load_images,
        logs as logs,
        monitor as monitor,
        nodes as nodes,
        reset as reset,
        services as services,
        status as status,
        up as up,
        wait as wait,
    )
else:  # a name that is not among those is an error of the type checker

    def __getattr__(name: str) -> ModuleType:
        """The module of that name."""
        module = f"{__name__}.{name}"
        try:
            return import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            raise AttributeError(f"module {__name__} has no attribute {name}") from None
