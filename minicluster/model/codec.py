"""A spec as the text of a label, and the hash of what a container is created with."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from minicluster.model.deferred import SECRET
from minicluster.model.spec import (
    LOCALHOST,
    CertificateSpec,
    EndpointSpec,
    FileSpec,
    HookSpec,
    ImageSpec,
    NodeSpec,
    Overrides,
    Spec,
)


def node_hash(spec: Spec, node: NodeSpec, authority: str) -> str:
    """Tells whether a container still is what its node says: everything that it was created with, hashed.

    Hooks, probes and what else runs *in* the container are not part of it: changing them needs no new container.
    Nor are the files that only a founding node has: they tell how it began, not what it is.
    """
    data = dataclasses.asdict(node)
    for later in ("join", "leave", "ready", "footprint", "depends_on"):
        del data[later]
    data["endpoints"] = [[e.port, e.host_port] for e in node.endpoints]
    if node.endpoints and spec.bind_address != LOCALHOST:
        data["bind_address"] = spec.bind_address
    data["files"] = [{"path": f.path, "content": f.content, "mode": f.mode} for f in node.files if not f.bootstrap]
    data |= {"image": spec.images[node.image].ref, "subnet": spec.subnet}
    if node.certificates or node.authority or any(SECRET.search(f.content) for f in node.files):
        data["issuer"] = authority
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def encode(spec: Spec) -> str:
    """A spec as the text of a label: JSON, compressed, since nodes of a role repeat each other."""
    return base64.b64encode(zlib.compress(json.dumps(to_json(spec)).encode(), 9)).decode()


def decode(text: str) -> Spec:
    """The opposite of :func:`encode`; unknown fields of a newer minicluster are passed over."""
    return from_json(json.loads(zlib.decompress(base64.b64decode(text))))


def to_json(spec: Spec) -> dict[str, Any]:
    """A spec as plain JSON data."""
    return dataclasses.asdict(spec)


def _make(kind: type[Any], data: Mapping[str, Any], **converted: Any) -> Any:
    known = {f.name for f in dataclasses.fields(kind)}
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in known}
    return kind(**(plain | converted))


def from_json(data: Mapping[str, Any]) -> Spec:
    """The opposite of :func:`to_json`. By hand and short: pydantic would cost every command its import time."""

    def hooks(items: Sequence[Mapping[str, Any]]) -> tuple[HookSpec, ...]:
        return tuple(_make(HookSpec, item) for item in [_tuples(item) for item in items])

    def node(item: Mapping[str, Any]) -> NodeSpec:
        made: NodeSpec = _make(
            NodeSpec,
            item,
            files=tuple(_make(FileSpec, f) for f in item.get("files", ())),
            certificates=tuple(_make(CertificateSpec, c) for c in item.get("certificates", ())),
            endpoints=tuple(_make(EndpointSpec, e) for e in item.get("endpoints", ())),
            join=hooks(item.get("join", ())),
            leave=hooks(item.get("leave", ())),
        )
        return made

    made: Spec = _make(
        Spec,
        data,
        images={name: _make(ImageSpec, image) for name, image in data["images"].items()},
        nodes=tuple(node(item) for item in data["nodes"]),
        init=hooks(data.get("init", ())),
        load=hooks(data.get("load", ())),
        reset=hooks(data.get("reset", ())),
        members=_make(HookSpec, data["members"]) if data.get("members") else None,
        client=_make(CertificateSpec, data["client"]) if data.get("client") else None,
        client_files=tuple(_make(FileSpec, f) for f in data.get("client_files", ())),
        overrides=_make(Overrides, data.get("overrides", {})),
    )
    return made


def _tuples(item: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in item.items()}
