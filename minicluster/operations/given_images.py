"""Images that a user or a profile names and that minicluster builds on: which one a name stands for now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from minicluster.profile.image_tag import ref_on

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine
    from minicluster.model.spec import ImageSpec, Spec


def identified(engine: Engine, spec: Spec, before: Spec | None, pull: Callable[[ImageSpec], None] | None) -> Spec:
    """The spec in which the reference of each image that is built on a given one depends on that one's ID.

    A tag may name another image than at the last ``up``: then the image is built again.

    Args:
        before: the spec so far. An image that was built stays in use where the one that it was built on is gone.
        pull: called for an image whose given one the engine lacks; None: its ID remains unknown.
    """
    images = dict(spec.images)
    for name, image in spec.images.items():
        if not image.overlay_on:
            continue
        former = before.images.get(name) if before else None
        if not engine.has_image(image.overlay_on):
            if former and former.overlay_on == image.overlay_on and engine.has_image(former.ref):
                images[name] = former
                continue
            if pull:
                pull(image)
        images[name] = replace(image, ref=ref_with(engine, image.ref, image.overlay_on))
    return replace(spec, images=images)


def ref_with(engine: Engine, ref: str, given: str) -> str:
    """The reference of an image that is built on a given one, by the ID that the engine has it under."""
    image = engine.image(given)
    return ref_on(ref, image.id if image else "")
