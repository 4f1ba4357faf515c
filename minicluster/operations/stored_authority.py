"""The certificate authority of a cluster, which its nodes store, and the secrets that are derived from it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from minicluster import pki
from minicluster.errors import MiniclusterError, NodeFailed
from minicluster.model.deferred import SECRET
from minicluster.model.naming import container_name

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine
    from minicluster.model.spec import Spec


def read_authority(engine: Engine, spec: Spec) -> pki.Authority | None:
    """A cluster's authority, from the first node that stores it; None where none does any more."""
    for node in spec.nodes:
        if node.authority:
            with contextlib.suppress(MiniclusterError, ValueError):
                return pki.Authority.load(engine.get_file(container_name(spec.cluster, node.name), pki.PATH))
    return None


def secrets(engine: Engine, spec: Spec, texts: Iterable[str], authority: pki.Authority | None) -> dict[str, str]:
    """The secrets that texts of the spec name, as deferred values.

    Args:
        authority: the cluster's; None: it is read from a node where it is needed.

    Raises:
        NodeFailed: there are some, and no node has the authority any more.
    """
    found = {match.groups() for text in texts for match in SECRET.finditer(text)}
    if not found:
        return {}
    authority = authority or read_authority(engine, spec)
    if not authority:
        raise no_authority(spec)
    return {f"secret.{name}.{form}": authority.secret(name, form) for name, form in found}


def no_authority(spec: Spec) -> NodeFailed:
    """The error for a cluster of which no node has the authority any more."""
    return NodeFailed(
        f"no node of cluster {spec.cluster} has its certificate authority any more",
        "The nodes that stored it were removed.",
        f"`minicluster up --name {spec.cluster}` recreates them.",
    )
