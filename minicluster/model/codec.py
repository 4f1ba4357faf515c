"""A spec as the text of a label, and the hash of what a container is created with."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

from minicluster.model.deferred import SECRET
from minicluster.model.spec import (
    LOCALHOST,
    ApplySpec,
    CertificateSpec,
    EndpointSpec,
    FileSpec,
    HookSpec,
    ImageSpec,
    MountSpec,
    NodeSpec,
    Overrides,
    PartSpec,
    ProgramSpec,
    RegistrySpec,
    Spec,
)

#: The version of what :func:`encode` writes. Anything that an earlier version could not read makes it another.
FORMAT = 5

_READ = (4, FORMAT)  # version 4 is the same without the disks of nodes, and some hooks and values of several hosts

_LABEL = re.compile(r"(?P<format>[0-9]+):(?P<data>.*)", re.DOTALL)


class AnotherFormat(ValueError):
    """A spec that another version of minicluster stored: an older or a newer one."""

    def __init__(self, age: str) -> None:
        super().__init__(f"stored by {age} minicluster")
        self.age = age  #: "an older" or "a newer"


def node_hash(spec: Spec, node: NodeSpec, authority: str) -> str:
    """A hash of what a node's container is created with: with another one, the container is recreated.

    Hooks, probes and whatever else runs *in* the container are not part of it: a change of these needs no new
    container. Nor are bootstrap files: they say how a node began, not what it is.
    """
    files = [file for file in node.files if not file.bootstrap]
    data = {
        "name": node.name,
        "role": node.role,
        "address": node.address,
        "subnet": spec.subnet,
        "image": spec.images[node.image].ref,
        "entrypoint": node.entrypoint,
        "command": node.command,
        "env": dict(node.env),
        "volumes": node.volumes,
        "shared": node.shared,
        "tmpfs": dict(node.tmpfs),
        "memory": node.memory,
        "cpus": node.cpus,
        "nested": node.nested,
        "privileged": node.privileged,
        "capabilities": node.capabilities,
        "authority": node.authority,
        "stop_timeout": node.stop_timeout,
        "files": [[file.path, file.content, file.mode, file.uid, file.gid] for file in files],
        "certificates": [
            [c.directory, c.common_name, c.organization, c.names, c.addresses, c.issuer] for c in node.certificates
        ],
        "endpoints": [[e.port, e.host_port, e.protocol] for e in node.endpoints],
        "mounts": [[mount.host, mount.path, mount.read_only] for mount in node.mounts],
        "bind_address": spec.bind_address if node.endpoints else LOCALHOST,
        "issuer": authority if node.certificates or node.authority or any(map(_has_secret, files)) else "",
    }
    if node.host:
        data["host"] = [node.host, [spec.published_on(node, e) for e in node.endpoints]]
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def _has_secret(file: FileSpec) -> bool:
    return SECRET.search(file.content) is not None


def encode(spec: Spec) -> str:
    """A spec as the text of a label: the format's number, and compressed JSON."""
    return f"{FORMAT}:{base64.b64encode(zlib.compress(json.dumps(to_json(spec)).encode(), 9)).decode()}"


def decode(text: str) -> Spec:
    """The opposite of :func:`encode`.

    Raises:
        AnotherFormat: another version of minicluster wrote it.
        ValueError, KeyError, TypeError: it is damaged.
    """
    match = _LABEL.fullmatch(text)
    number = int(match["format"]) if match else 0
    if match is None or number not in _READ:
        if match is None and not _is_first_format(text):
            raise ValueError("not a spec")
        raise AnotherFormat("a newer" if number > FORMAT else "an older")
    try:
        return from_json(json.loads(zlib.decompress(base64.b64decode(match["data"]))))
    except (AttributeError, zlib.error) as error:
        raise ValueError(f"not a spec: {error}") from None


def _is_first_format(text: str) -> bool:
    """Whether it is what minicluster 0.1.0 wrote: without a number."""
    try:
        return isinstance(json.loads(zlib.decompress(base64.b64decode(text, validate=True))), dict)
    except (ValueError, zlib.error):
        return False


def to_json(spec: Spec) -> dict[str, Any]:
    """A spec as plain JSON data. Texts of files, which most nodes have in common, are stored once."""
    data = dataclasses.asdict(spec)
    texts: dict[str, int] = {}
    for node in data["nodes"]:
        for file in (*node["files"], *node["local_registry"]):
            file["content"] = texts.setdefault(file["content"], len(texts))
    return {**data, "texts": list(texts)}


def from_json(data: Mapping[str, Any]) -> Spec:
    """The opposite of :func:`to_json`. By hand and short: pydantic would cost every command its import time."""
    texts = data["texts"]

    def file(item: Mapping[str, Any]) -> FileSpec:
        made: FileSpec = _make(FileSpec, item, content=texts[item["content"]])
        return made

    def node(item: Mapping[str, Any]) -> NodeSpec:
        made: NodeSpec = _make(
            NodeSpec,
            item,
            files=tuple(map(file, item["files"])),
            local_registry=tuple(map(file, item["local_registry"])),
            certificates=tuple(_make(CertificateSpec, c) for c in item["certificates"]),
            endpoints=tuple(_make(EndpointSpec, e) for e in item["endpoints"]),
            join=_hooks(item["join"]),
            leave=_hooks(item["leave"]),
            mounts=_mounts(item["mounts"]),
        )
        return made

    rest = {name: value for name, value in data.items() if name != "texts"}
    made: Spec = _make(
        Spec,
        rest,
        images={
            name: _make(ImageSpec, image, parts=tuple(_make(PartSpec, part) for part in image["parts"]))
            for name, image in data["images"].items()
        },
        programs={name: _make(ProgramSpec, program) for name, program in data["programs"].items()},
        apply=tuple(_make(ApplySpec, item) for item in data["apply"]),
        nodes=tuple(map(node, data["nodes"])),
        init=_hooks(data["init"]),
        load=_hooks(data["load"]),
        held=_hooks(data["held"]),
        tag=_hooks(data["tag"]),
        reset=_hooks(data["reset"]),
        members=_make(HookSpec, data["members"]) if data["members"] else None,
        services=_make(HookSpec, data["services"]) if data.get("services") else None,
        write=_make(HookSpec, data["write"]) if data["write"] else None,
        workload=_make(HookSpec, data["workload"]) if data.get("workload") else None,
        client=_make(CertificateSpec, data["client"]) if data["client"] else None,
        client_files=tuple(_make(FileSpec, f) for f in data["client_files"]),
        overrides=_overrides(data["overrides"]),
    )
    return made


def _overrides(data: Mapping[str, Any]) -> Overrides:
    mounts, registries = data["mounts"], data["registries"]
    made: Overrides = _make(
        Overrides,
        data,
        mounts=None if mounts is None else _mounts(mounts),
        registries=None if registries is None else tuple(_make(RegistrySpec, registry) for registry in registries),
    )
    return made


def _mounts(items: list[Mapping[str, Any]]) -> tuple[MountSpec, ...]:
    return tuple(_make(MountSpec, item) for item in items)


def _hooks(items: list[Mapping[str, Any]]) -> tuple[HookSpec, ...]:
    return tuple(_make(HookSpec, item) for item in items)


def _make(kind: type[Any], data: Mapping[str, Any], **converted: Any) -> Any:
    """One of the spec's types; a field that it does not have is an error, since the format has a number."""
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
    return kind(**(plain | converted))
