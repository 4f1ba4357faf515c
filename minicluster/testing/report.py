"""What the report of a failed test says about its clusters."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minicluster.cluster import Cluster

#: Lines of each node's log in a report.
LOG_LINES = 60


def describe(cluster: Cluster) -> dict[str, str]:
    """The state of the cluster of a failed test, as title -> text. An error in finding it out becomes the text."""
    parts: dict[str, Callable[[], str]] = {
        "status": lambda: _status(cluster),
        "plan": lambda: _plan(cluster),
        **{f"log of {name}": lambda name=name: _log(cluster, name) for name in cluster.node_names()},  # type: ignore[misc]
    }

    def text(make: Callable[[], str]) -> str:
        try:
            return make()
        except Exception as error:  # an engine that fails meanwhile must not end the run
            return f"({error})"

    with ThreadPoolExecutor(len(parts)) as pool:
        texts = {title: pool.submit(text, make) for title, make in parts.items()}
        return {title: one.result() for title, one in texts.items()}


def _status(cluster: Cluster) -> str:
    status = cluster.status()
    width = max(len(node.name) for node in status.nodes)
    lines = [f"{cluster.name} ({status.profile}): {status.phase}"]
    for node in status.nodes:
        leads = ", leader" if node.leader else ""
        lines.append(f"  {node.name:{width}}  {node.address:15}  {node.phase}, {node.probe}{leads}")
    return "\n".join([*lines, *(f"  {note}" for note in status.notes)])


def _plan(cluster: Cluster) -> str:
    steps = cluster.plan().steps
    number = {step.id: i for i, step in enumerate(steps, 1)}
    return "\n".join(
        f"{i:3}. {step.id}: {step.cause}{_after([number[n] for n in step.needs])}" for i, step in enumerate(steps, 1)
    )


def _after(numbers: list[int]) -> str:
    return f" (after {', '.join(map(str, numbers))})" if numbers else ""


def _log(cluster: Cluster, name: str) -> str:
    return "\n".join(line.rstrip("\n") for _name, line in cluster.logs(name, tail=LOG_LINES)) or "(empty)"
