"""``info``: how to reach a cluster."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from minicluster.errors import MiniclusterError
from minicluster.model import labels
from minicluster.model.results import ClusterInfo, EndpointInfo
from minicluster.operations import client_folder, connect, services, status

if TYPE_CHECKING:
    from minicluster import pki
    from minicluster.engine.protocol import Engine
    from minicluster.model.spec import Spec


def info(
    engine: Engine, spec: Spec, authority: pki.Authority | None, mode: str, *, published: bool = True
) -> ClusterInfo:
    """Addresses and variables of a cluster; arguments and errors are those of :func:`client_folder.variables`.

    Args:
        published: ask the cluster's own software what its users have published.
    """
    notes = list(status.kernel_notes(engine, spec))
    found: tuple[EndpointInfo, ...] = ()
    if published:
        try:
            found = services.services(engine, spec, mode)
        except MiniclusterError as error:
            notes.append(f"{error.what}: {error.why}")
    return ClusterInfo(
        cluster=spec.cluster,
        profile=spec.profile,
        summary=spec.summary,
        subnet=spec.subnet,
        endpoints=(*connect.endpoints(engine, spec, mode, authority), *found),
        env=client_folder.variables(engine, spec, authority, mode),
        demo_image=spec.demo_image or None,
        address_mode=mode,
        example=spec.example,
        notes=tuple(notes),
        parts=_origins(engine, [image.ref for image in spec.images.values()]),
    )


def _origins(engine: Engine, refs: Iterable[str]) -> dict[str, str]:
    """Part -> version and source, of what node images are put together of, by their label."""
    found: dict[str, str] = {}
    for ref in refs:
        image = engine.image(ref)
        found |= json.loads(image.labels.get(labels.PARTS, "{}")) if image else {}
    return found
