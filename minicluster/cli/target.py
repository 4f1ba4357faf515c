"""The cluster and the nodes that the words of a command mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from minicluster.errors import UsageError

if TYPE_CHECKING:
    from minicluster.cluster import Cluster


def of_nodes(
    name: str | None, words: Sequence[str], command: str, needs: str = "", *, whole: bool = False
) -> tuple[Cluster, tuple[str, ...]]:
    """The cluster that a command on nodes is about, and which of its nodes.

    Args:
        name: as ``-c`` gives it.
        words: nodes and roles. Where none is named with ``-c``, the first may turn out to be a cluster.
        command: the name of the command.
        needs: the words without which it is not complete, such as "NODE".
        whole: the command may take such a word for the whole cluster, since what it does is harmless or easily undone.

    Raises:
        UsageError: there is no such cluster or node, or the word is a cluster and ``whole`` is not set.
    """
    from minicluster.cluster import Cluster

    try:
        found = Cluster.open(name)
        found.node_names(words)
        return found, tuple(words)
    except UsageError:
        if name or not words or not _is_cluster(words[0]):
            raise
    first, *nodes = words
    if not whole:
        line = " ".join(["minicluster", command, "-c", first, *([needs] if needs else nodes)])
        raise UsageError(f"{first!r} is a cluster, not a node", "", f"`{line}`, if you mean that cluster.")
    found = Cluster.open(first)
    found.node_names(nodes)
    return found, tuple(nodes)


def of_project(name: str | None) -> Cluster:
    """The cluster that a command changes.

    Raises:
        UsageError: there is none, or it was made from another project file than the one that is used here.
    """
    from minicluster import discovery
    from minicluster.cluster import Cluster

    found = Cluster.open(name)
    discovery.refuse_foreign(found.engine, found.name, discovery.project())
    return found


def _is_cluster(word: str) -> bool:
    from minicluster import discovery
    from minicluster.engine import discover

    return word in discovery.names(discover.connect())
