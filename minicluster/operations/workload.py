"""What runs in a cluster, asked by its profile's ``workload`` hook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from minicluster.model import workload as model
from minicluster.operations import ask

if TYPE_CHECKING:
    from minicluster.engine.protocol import Cancel, Container, Engine
    from minicluster.model.spec import Spec
    from minicluster.model.workload import Workload


def workload(
    engine: Engine,
    spec: Spec,
    containers: Mapping[str, Container],
    cancel: Cancel | None = None,
    timeout: float = ask.TIMEOUT,
) -> tuple[tuple[Workload, ...] | None, str]:
    """What runs in the cluster, from the first node that answers; or None and the reason. Nothing without a hook.

    Args:
        containers: by node.
        cancel: ends the commands.
        timeout: seconds that a node has to answer.
    """
    hook = spec.workload
    if hook is None:
        return (), ""
    nodes = ask.running(spec, hook.on, containers.values())
    return ask.first_answer(engine, spec, hook, nodes, model.parse, cancel, timeout)
