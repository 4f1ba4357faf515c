"""Loads images of the engine into the nodes of a cluster that can hold images."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from minicluster.errors import ImageError, NodeFailed
from minicluster.model import labels
from minicluster.model.events import Listener
from minicluster.model.spec import Spec

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine
    from minicluster.plan.steps import Plan


def plan_load(engine: Engine, spec: Spec, image: str, nodes: Sequence[str] = ()) -> Plan:
    """What loading an image would do.

    Args:
        nodes: names; none: every node that can hold images.

    Raises:
        UsageError: such nodes hold no images.
        ImageError: the engine has no such image.
        NodeFailed: a node does not run.
    """
    from minicluster.plan.load import load as plan
    from minicluster.plan.observed import Observed

    images = frozenset([image] if engine.has_image(image) else [])
    containers = {c.labels[labels.NODE]: c for c in engine.containers(spec.cluster) if labels.NODE in c.labels}
    path = f"/var/tmp/minicluster-load-{secrets.token_hex(6)}.tar"  # others may load the same image
    return plan(spec, Observed(spec.cluster, containers, images=images), image, nodes, path)


def load(engine: Engine, spec: Spec, image: str, nodes: Sequence[str] = (), *, listener: Listener) -> None:
    """Loads an image into nodes, all at once.

    Raises:
        UsageError, ImageError, NodeFailed: as :func:`plan_load` does.
        ImageError: a node refused it.
    """
    from minicluster.executor.executor import Run, execute

    plan = plan_load(engine, spec, image, nodes)
    try:
        execute(plan, Run(engine, None, math.inf, listener))
    except NodeFailed as error:
        why = f"{error.what}: {error.why}".removesuffix(": ")
        raise ImageError(
            f"{image} could not be loaded", why, error.fix or f"See `minicluster logs -c {spec.cluster}`."
        ) from error
