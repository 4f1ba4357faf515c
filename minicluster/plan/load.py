"""Plans how an image of the engine gets into nodes, by the load hooks of a profile."""

from __future__ import annotations

from collections.abc import Sequence

from minicluster.errors import ImageError, NodeFailed, UsageError
from minicluster.model.deferred import fill
from minicluster.model.naming import container_name, count
from minicluster.model.spec import Spec
from minicluster.plan.builder import Steps
from minicluster.plan.observed import Observed
from minicluster.plan.steps import CopyImage, Plan, RemoveFile, RunHook, SaveImage

_FIX = "Add a load hook to the profile, or push the image to a registry that the nodes can reach."


def load(spec: Spec, observed: Observed, image: str, nodes: Sequence[str], path: str) -> Plan:
    """The plan that saves an image once and loads it into nodes, all at once.

    Args:
        observed: its ``images`` are those of the engine.
        nodes: names; none: every node that accepts images.
        path: the file in the nodes that holds the image during the load.

    Raises:
        UsageError: such nodes do not accept images.
        ImageError: the engine has no such image.
        NodeFailed: a node does not run.
    """
    names = _holders(spec, nodes)
    if image not in observed.images:
        raise ImageError(
            f"the engine has no image {image}",
            "Only images of the engine can be loaded.",
            f"Pull it (`docker pull {image}`) or build it.",
        )
    idle = [name for name in names if name not in observed.running]
    if idle:
        raise NodeFailed(
            f"cannot load an image into {', '.join(idle)}",
            "Not running.",
            f"`minicluster up --name {spec.cluster}` starts stopped nodes; or name other nodes.",
        )
    steps = Steps()
    steps.add("save image", "", SaveImage(image), "nodes are loaded from an archive of the image")
    for name in names:
        container, cause = container_name(spec.cluster, name), "requested"
        last = steps.add(f"copy {name}", name, CopyImage(image, container, path), cause, ["save image"])
        for i, hook in enumerate(spec.load, 1):
            if hook.on in ("node", name.rpartition("-")[0]):
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
    return steps.plan(spec.cluster, f"load {image} into {count(len(names), 'node')} of cluster {spec.cluster}")


def _holders(spec: Spec, nodes: Sequence[str]) -> list[str]:
    """The nodes to load: those named, or all that accept images."""
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
