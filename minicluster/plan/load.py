"""Plans how images get into nodes, by the load hooks of a profile. What a node has already is not sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from minicluster.errors import NodeFailed, UsageError
from minicluster.model.deferred import fill
from minicluster.model.image_ids import Held, Wanted, find, missing_names
from minicluster.model.naming import container_name, count
from minicluster.plan.builder import Steps
from minicluster.plan.steps import CopyImage, Plan, RemoveFile, RunHook, SaveImage

if TYPE_CHECKING:
    from minicluster.model.spec import HookSpec, Spec
    from minicluster.plan.observed import Observed

_FIX = "Add a load hook to the profile, or push the image to a registry that the nodes can reach."


@dataclass(frozen=True)
class Source:
    """What is to be loaded: an image of the engine, or an archive on this machine."""

    label: str  #: as the user calls it
    images: tuple[Wanted, ...] = ()  #: what is in it; none where it is not known
    archive: bool = False


@dataclass(frozen=True)
class LoadPlan:
    """A plan, and what it does with each node."""

    plan: Plan
    sent: tuple[str, ...] = ()
    tagged: tuple[str, ...] = ()  #: the image is there, under other names
    present: tuple[str, ...] = ()


@dataclass
class _Sorted:
    """The nodes by what is to be done with them."""

    sent: list[str] = field(default_factory=list)
    tags: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  #: node -> known name, further name
    present: list[str] = field(default_factory=list)


def load(
    spec: Spec,
    source: Source,
    nodes: Sequence[str],
    path: str,
    held: Mapping[str, Sequence[Held]],
) -> LoadPlan:
    """The plan that saves an image once and loads it into the nodes that do not have it, all at once.

    Args:
        nodes: names, of :func:`holders`.
        path: the file in the nodes that holds the image during the load.
        held: node -> the images that it has; nodes of which this is not known are missing.
    """
    todo = _sort(spec, source, nodes, held)
    steps = Steps()
    if todo.sent and not source.archive:
        steps.add("save image", "", SaveImage(source.label), "nodes are loaded from an archive of the image")
    for name in todo.sent:
        container, cause = (
            container_name(spec.cluster, name),
            "the node does not have it" if name in held else "requested",
        )
        needs = [] if source.archive else ["save image"]
        last = steps.add(f"copy {name}", name, CopyImage(source.label, container, path), cause, needs)
        for i, hook in enumerate(_hooks(spec.load, name), 1):
            run = RunHook(container, tuple(fill(hook.run, {"archive": path})), phase="loading")
            last = steps.add(f"load {name} {i}", name, run, cause, [last])
        steps.add(
            f"clean {name}",
            name,
            RemoveFile(container, path),
            "the archive is no longer needed",
            [last],
            cleanup=True,
        )
    for name, tags in todo.tags.items():
        for i, (known, further) in enumerate(tags, 1):
            for hook in _hooks(spec.tag, name):
                values = {"image.source": known, "image.name": further}
                run = RunHook(container_name(spec.cluster, name), tuple(fill(hook.run, values)), phase="loading")
                steps.add(f"tag {name} {i}", name, run, "the node has it under another name")
    touched = len(todo.sent) + len(todo.tags)
    doing = f"load {source.label} into {count(touched or len(nodes), 'node')} of cluster {spec.cluster}"
    if not touched:
        doing = f"{source.label} is already there: {count(len(nodes), 'node')} of cluster {spec.cluster}"
    return LoadPlan(steps.plan(spec.cluster, doing), tuple(todo.sent), tuple(todo.tags), tuple(todo.present))


def _sort(spec: Spec, source: Source, nodes: Sequence[str], held: Mapping[str, Sequence[Held]]) -> _Sorted:
    todo = _Sorted()
    for name in nodes:
        found = [(wanted, find(wanted, held.get(name, ()))) for wanted in source.images]
        if not found or not all(there for _wanted, there in found):
            todo.sent.append(name)
            continue
        tags = [(there[0].source, further) for wanted, there in found for further in missing_names(wanted, there)]
        if tags and not _hooks(spec.tag, name):
            todo.sent.append(name)
        elif tags:
            todo.tags[name] = tags
        else:
            todo.present.append(name)
    return todo


def _hooks(hooks: Sequence[HookSpec], node: str) -> list[HookSpec]:
    """The hooks about a node."""
    return [hook for hook in hooks if hook.on in ("node", node.rpartition("-")[0])]


def holders(spec: Spec, nodes: Sequence[str]) -> list[str]:
    """The nodes to load: those named, or all that accept images.

    Raises:
        UsageError: such nodes do not accept images.
    """
    if not spec.load:
        raise UsageError(f"nodes of profile {spec.profile} do not accept images", "Its profile has no load hook.", _FIX)
    roles = {hook.on for hook in spec.load}
    able = [node.name for node in spec.nodes if "node" in roles or node.role in roles]
    names = [*nodes] or able
    if not names:
        role = min(roles)
        raise UsageError(
            f"cluster {spec.cluster} has no node that accepts images",
            f"Nodes of role {', '.join(sorted(roles))} accept images.",
            f"`minicluster scale {role}=1 -c {spec.cluster}` adds one.",
        )
    if unable := [name for name in names if name not in able]:
        raise UsageError(
            f"cannot load an image into {', '.join(unable)}",
            f"Only nodes of role {', '.join(sorted(roles))} accept images.",
            "Name one of them, or none for all of them.",
        )
    return names


def check_running(spec: Spec, observed: Observed, nodes: Sequence[str]) -> None:
    """Raises ``NodeFailed`` where one of the nodes does not run."""
    idle = [name for name in nodes if name not in observed.running]
    if idle:
        raise NodeFailed(
            f"cannot load an image into {', '.join(idle)}",
            "Not running.",
            f"`minicluster up --name {spec.cluster}` starts stopped nodes; or name other nodes.",
        )
