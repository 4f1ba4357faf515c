"""The logs of nodes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from minicluster.errors import MiniclusterError
from minicluster.model.naming import container_name
from minicluster.operations.nodes import Nodes, node_names

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine
    from minicluster.model.spec import Spec


def logs(engine: Engine, spec: Spec, words: Nodes, *, follow: bool, tail: int | None) -> Iterator[tuple[str, str]]:
    """Pairs of a node and a line of its log: node after node, or as they come with ``follow``."""
    names = node_names(spec, words)
    return _follow(engine, spec, names, tail) if follow else _read(engine, spec, names, tail)


def _read(engine: Engine, spec: Spec, names: Sequence[str], tail: int | None) -> Iterator[tuple[str, str]]:
    for name in names:
        for line in engine.logs(container_name(spec.cluster, name), tail=tail):
            yield name, line.decode(errors="replace")


def _follow(engine: Engine, spec: Spec, names: Sequence[str], tail: int | None) -> Iterator[tuple[str, str]]:
    """Ends when the logs of all these nodes end."""
    lines: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()

    def read(name: str) -> None:
        try:
            for line in engine.logs(container_name(spec.cluster, name), tail=tail, follow=True):
                lines.put((name, line.decode(errors="replace")))
        except MiniclusterError as error:
            lines.put((name, f"({error.what})"))
        finally:
            lines.put(None)

    for name in names:
        threading.Thread(target=read, args=(name,), daemon=True).start()
    reading = len(names)
    while reading:
        item = lines.get()
        if item is None:
            reading -= 1
        else:
            yield item
