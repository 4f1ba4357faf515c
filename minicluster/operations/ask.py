"""Asks a cluster's own software by a hook of its profile: the first node that answers is enough."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from minicluster.errors import MiniclusterError, NodeFailed
from minicluster.executor.parallel import first_of
from minicluster.executor.waiting import last_line
from minicluster.model.naming import container_name

if TYPE_CHECKING:
    from minicluster.engine.protocol import Cancel, Container, Engine
    from minicluster.model.spec import HookSpec, NodeSpec, Spec

TIMEOUT = 10.0  #: seconds that a node has to answer: a slow machine takes some for a command in it
_HEAD_START = 1.0  # seconds until the other nodes are asked as well

T = TypeVar("T")


def running(spec: Spec, role: str, containers: Iterable[Container]) -> tuple[NodeSpec, ...]:
    """The nodes of a role that run."""
    names = {c.name for c in containers if c.state == "running"}
    return tuple(node for node in spec.of_role(role) if container_name(spec.cluster, node.name) in names)


def first_answer(
    engine: Engine,
    spec: Spec,
    hook: HookSpec,
    nodes: Sequence[NodeSpec],
    parse: Callable[[str], T],
    cancel: Cancel | None = None,
    timeout: float = TIMEOUT,
) -> tuple[T | None, str]:
    """What the first of some nodes answers that does; or None and the reason.

    Args:
        parse: makes of what the hook printed what is returned; raises ValueError where it is none.
        cancel: ends the commands.
        timeout: seconds that a node has to answer.
    """
    from minicluster.engine.protocol import Cancel

    if not nodes:
        return None, f"no {hook.on} node is running"
    enough = Cancel()

    def ask(container: str) -> T:
        result = engine.exec(container, hook.run, timeout=timeout, cancel=enough)
        if result.exit_code != 0:
            raise NodeFailed(f"`{hook.run[0]}` failed in {container}", last_line(result.stderr or result.stdout))
        try:
            return parse(result.stdout)
        except ValueError as error:
            raise NodeFailed(f"`{hook.run[0]}` in {container} printed something else", str(error)) from None

    with cancel.calls(enough.set) if cancel else contextlib.nullcontext():
        try:
            asking = [partial(ask, container_name(spec.cluster, node.name)) for node in nodes]
            return first_of(asking, (MiniclusterError, TimeoutError), head_start=_HEAD_START, cancel=enough), ""
        except (MiniclusterError, TimeoutError) as error:
            return None, getattr(error, "why", "") or str(error)
