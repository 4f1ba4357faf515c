"""``info``: how to reach a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minicluster.model.results import ClusterInfo
from minicluster.model.spec import Spec
from minicluster.operations import client_folder, connect, status
from minicluster.parts.provide import origins

if TYPE_CHECKING:
    from minicluster import pki
    from minicluster.engine.protocol import Engine


def info(engine: Engine, spec: Spec, authority: pki.Authority | None, mode: str) -> ClusterInfo:
    """Addresses and variables of a cluster; arguments and errors are those of :func:`client_folder.variables`."""
    return ClusterInfo(
        cluster=spec.cluster,
        profile=spec.profile,
        summary=spec.summary,
        subnet=spec.subnet,
        endpoints=connect.endpoints(engine, spec, mode, authority),
        env=client_folder.variables(engine, spec, authority, mode),
        demo_image=spec.demo_image or None,
        address_mode=mode,
        example=spec.example,
        notes=tuple(status.kernel_notes(engine, spec)),
        parts=origins(engine, [image.ref for image in spec.images.values()]),
    )
