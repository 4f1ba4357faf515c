"""What runs in a cluster, asked by its profile's ``workload`` hook."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from minicluster.errors import MiniclusterError, NodeFailed
from minicluster.executor.parallel import first_of
from minicluster.executor.waiting import last_line
from minicluster.model import workload as model
from minicluster.model.naming import container_name
from minicluster.model.spec import Spec
from minicluster.model.workload import Workload

if TYPE_CHECKING:
    from minicluster.engine.protocol import Cancel, Container, Engine

_TIMEOUT = 10.0  # seconds that a node has to answer: a slow machine takes some for a command in it
_HEAD_START = 1.0  # seconds until the other nodes are asked as well


def workload(
    engine: Engine,
    spec: Spec,
    containers: Mapping[str, Container],
    cancel: Cancel | None = None,
    timeout: float = _TIMEOUT,
) -> tuple[tuple[Workload, ...] | None, str]:
    """What runs in the cluster, from the first node that answers; or None and the reason. Nothing without a hook.

    Args:
        containers: by node.
        cancel: ends the commands.
        timeout: seconds that a node has to answer.
    """
    from minicluster.engine.protocol import Cancel

    hook = spec.workload
    if hook is None:
        return (), ""
    states = {c.name: c.state for c in containers.values()}
    names = [container_name(spec.cluster, node.name) for node in spec.of_role(hook.on)]
    able = [name for name in names if states.get(name) == "running"]
    if not able:
        return None, f"no {hook.on} node is running"
    enough = Cancel()

    def ask(container: str) -> tuple[Workload, ...]:
        result = engine.exec(container, hook.run, timeout=timeout, cancel=enough)
        if result.exit_code != 0:
            raise NodeFailed(f"`{hook.run[0]}` failed in {container}", last_line(result.stderr or result.stdout))
        try:
            return model.parse(result.stdout)
        except ValueError as error:
            raise NodeFailed(f"`{hook.run[0]}` in {container} printed something else", str(error)) from None

    with cancel.calls(enough.set) if cancel else contextlib.nullcontext():
        try:
            asking = [partial(ask, container) for container in able]
            return first_of(asking, (MiniclusterError, TimeoutError), head_start=_HEAD_START, cancel=enough), ""
        except (MiniclusterError, TimeoutError) as error:
            return None, getattr(error, "why", "") or str(error)
