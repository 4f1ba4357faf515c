"""Nodes by name or role, and commands in them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from minicluster.errors import NodeFailed, UsageError
from minicluster.model.naming import container_name, count, nearest_node

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine, ExecResult
    from minicluster.model.spec import NodeSpec, Spec

Nodes: TypeAlias = str | Sequence[str]  #: names of nodes or roles


def node_names(spec: Spec, words: Nodes = ()) -> list[str]:
    """Nodes by name or role, in the spec's order; all of them for no words.

    Raises:
        UsageError: a word is neither.
    """
    words = [words] if isinstance(words, str) else words
    known = {node.name for node in spec.nodes} | set(spec.roles)
    for word in words:
        if word not in known:
            raise UsageError(f"cluster {spec.cluster} has no node or role {word!r}", "", nearest_node(word, known))
    return [n.name for n in spec.nodes if not words or n.name in words or n.role in words]


def node_of(spec: Spec, name: str) -> NodeSpec:
    """A node by its name.

    Raises:
        UsageError: the cluster has no such node.
    """
    found = spec.node(name)
    if found is None:
        known = [n.name for n in spec.nodes]
        raise UsageError(f"cluster {spec.cluster} has no node {name!r}", "", nearest_node(name, known))
    return found


def one_name(spec: Spec, word: str) -> str:
    """The node of that name, or the only node of that role.

    Raises:
        UsageError: there is no such node or role, or the role has several nodes.
    """
    names = node_names(spec, word)
    if len(names) != 1:
        raise UsageError(f"role {word} has {count(len(names), 'node')}", "", f"Name one of {', '.join(names)}.")
    return names[0]


def container_of(spec: Spec, node: str) -> str:
    """The name of a node's container; raises as :func:`node_of` does."""
    return container_name(spec.cluster, node_of(spec, node).name)


def existing(engine: Engine, spec: Spec, words: Nodes) -> list[tuple[str, str]]:
    """Nodes by name or role, each with the name of its container.

    Raises:
        NodeFailed: a container does not exist.
    """
    found = {c.name for c in engine.containers(spec.cluster)}
    pairs = [(name, container_name(spec.cluster, name)) for name in node_names(spec, words)]
    for name, container in pairs:
        if container not in found:
            fix = f"`minicluster up --name {spec.cluster}` recreates it."
            raise NodeFailed(f"{name} is missing", "Its container was removed.", fix)
    return pairs


def execute(engine: Engine, spec: Spec, node: str, argv: str | Sequence[str], timeout: float | None) -> ExecResult:
    """Runs a command in a node. A string is split with shlex; no shell runs.

    Raises:
        TimeoutError: after ``timeout`` seconds.
        NodeFailed: the node is not running.
    """
    words = shlex.split(argv) if isinstance(argv, str) else list(argv)
    return engine.exec(container_of(spec, node), words, timeout=timeout)


def interactive(
    engine: Engine, spec: Spec, node: str, argv: Sequence[str], *, tty: bool, stdin: bool = True
) -> tuple[list[str], dict[str, str]]:
    """The native client's command and environment that run a command interactively.

    Args:
        node: a node, or a role that has only one.
        stdin: the command reads the standard input of this process.

    Raises:
        UsageError: as :func:`one_name` does.
        NodeFailed: the node is not running.
    """
    name = container_of(spec, one_name(spec, node))
    container = engine.container(name)
    if container is None or container.state != "running":
        why = f"Its container is {container.state}." if container else "Its container no longer exists."
        fix = f"`minicluster up --name {spec.cluster}` recreates it."
        if container:
            verb, does = ("unpause", "resumes") if container.state == "paused" else ("start", "starts")
            fix = f"`minicluster {verb} {node} -c {spec.cluster}` {does} it."
        raise NodeFailed(f"{node} is not running", why, fix)
    return engine.exec_argv(name, argv, tty=tty, stdin=stdin)


def one(engine: Engine, spec: Spec, word: str) -> tuple[str, str]:
    """The node that a name or role means, with the name of its container.

    Raises:
        UsageError: the role has several nodes.
    """
    return existing(engine, spec, one_name(spec, word))[0]
