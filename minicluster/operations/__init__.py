"""What is done with clusters, one file per use case.

``from minicluster import operations`` imports none of them: each is imported when it is used first, since a command
needs few of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minicluster.operations import (
        chaos as chaos,
    )
    from minicluster.operations import (
        client_folder as client_folder,
    )
    from minicluster.operations import (
        connect as connect,
    )
    from minicluster.operations import (
        copy_files as copy_files,
    )
    from minicluster.operations import (
        down as down,
    )
    from minicluster.operations import (
        export as export,
    )
    from minicluster.operations import (
        faults as faults,
    )
    from minicluster.operations import (
        fill as fill,
    )
    from minicluster.operations import (
        hand_out as hand_out,
    )
    from minicluster.operations import (
        info as info,
    )
    from minicluster.operations import (
        inject as inject,
    )
    from minicluster.operations import (
        lifecycle as lifecycle,
    )
    from minicluster.operations import (
        load_images as load_images,
    )
    from minicluster.operations import (
        logs as logs,
    )
    from minicluster.operations import (
        monitor as monitor,
    )
    from minicluster.operations import (
        nodes as nodes,
    )
    from minicluster.operations import (
        reset as reset,
    )
    from minicluster.operations import (
        services as services,
    )
    from minicluster.operations import (
        status as status,
    )
    from minicluster.operations import (
        up as up,
    )
    from minicluster.operations import (
        wait as wait,
    )


def __getattr__(name: str) -> Any:
    """The module of that name."""
    try:
        return import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        raise AttributeError(str(error)) from error
