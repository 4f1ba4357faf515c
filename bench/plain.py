"""A profile's nodes without minicluster: all that a plain script and Docker Compose need to run the very same ones."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minicluster import pki
from minicluster.engine import privileges
from minicluster.engine.discover import connect
from minicluster.engine.docker.engine import DockerEngine
from minicluster.engine.protocol import ContainerConfig
from minicluster.executor.node_files import node_files
from minicluster.model.naming import shared_volume_name, volume_name
from minicluster.model.spec import NodeSpec, Overrides, Spec
from minicluster.plan.steps import PutFiles
from minicluster.profile import catalog
from minicluster.profile.resolve import resolve

SUBNET = "172.28.251.0/24"


def prepare(profile: str, name: str, folder: Path, size: Mapping[str, int] | None = None) -> Spec:
    """Writes a folder for floor-nodes.sh, and ``compose.json`` in it for Docker Compose; returns what it describes.

    Certificates are made here, before any clock starts. ``folder`` has: ``name``, ``subnet``, ``nodes``; the command
    ``members``, one argument a line, and ``asked``, where that runs; for each node ``NODE.create``, what follows
    ``docker create``, ``NODE.ready``, its probe, and ``NODE.tar``, its files; and these files once more in a folder
    ``NODE``, for Compose to mount.
    """
    spec = resolve(catalog.load(profile, {}), cluster=name, overrides=Overrides(size=size or {}), subnet=SUBNET)
    assert spec.members
    authority = pki.Authority()
    services = {}
    for node in spec.nodes:
        files = node_files(PutFiles(node.name, node.files, node.certificates, node.authority), authority, {})
        with tarfile.open(folder / f"{node.name}.tar", "w") as tar:
            for file in files:
                entry = tarfile.TarInfo(file.path.lstrip("/"))
                entry.size, entry.mode, entry.uid, entry.gid = len(file.content), file.mode, file.uid, file.gid
                tar.addfile(entry, io.BytesIO(file.content))
                copy = folder / node.name / file.path.lstrip("/")
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(file.content)
                copy.chmod(file.mode)
        (folder / f"{node.name}.create").write_text("\n".join(_create(spec, node)) + "\n")
        (folder / f"{node.name}.ready").write_text("\n".join(node.ready) + "\n")
        services[node.name] = _service(spec, node, folder / node.name, [file.path for file in files])
    for file, lines in {
        "name": [name],
        "subnet": [SUBNET],
        "nodes": [node.name for node in spec.nodes],
        "members": spec.members.run,
        "asked": [spec.of_role(spec.members.on)[0].name],
    }.items():
        (folder / file).write_text("\n".join(lines) + "\n")
    compose = {
        "name": name,
        "services": services,
        "networks": {"default": {"ipam": {"config": [{"subnet": SUBNET}]}}},
        "volumes": {volume: {"name": volume} for node in spec.nodes for volume in _volumes(spec, node)},
    }
    (folder / "compose.json").write_text(json.dumps(compose, indent=1))
    return spec


def _create(spec: Spec, node: NodeSpec) -> list[str]:
    options = ["--init", f"--hostname={node.name}", f"--ip={node.address}", f"--stop-timeout={node.stop_timeout}"]
    options += [f"--memory={node.memory}"] if node.memory else []
    options += [f"--volume={volume}:{path}" for volume, path in _volumes(spec, node).items()]
    options += [f"--tmpfs={path}:{value}" for path, value in node.tmpfs.items()]
    options += [f"--cap-add={name}" for name in node.capabilities]
    env = dict(node.env)
    if node.nested:
        capabilities = privileges.NESTED_CAPABILITIES
        if node.privileged:
            capabilities = granted(node.name, spec.images[node.image].ref)
            options += [f"--device-cgroup-rule={privileges.DEVICE_RULE}"]
            env[privileges.PRIVILEGED_ENV] = "yes"
        options += [f"--cap-add={name}" for name in capabilities]
        options += [f"--security-opt={option}" for option in privileges.NESTED_SECURITY_OPT]
        options += [f"--tmpfs={path}:{value}" for path, value in privileges.NESTED_TMPFS.items()]
        options += [f"--cgroupns={privileges.NESTED_CGROUPNS}"]
    options += [f"--env={name}={value}" for name, value in env.items()]
    options += [f"--publish=127.0.0.1:{e.host_port}:{e.port}" for e in node.endpoints]
    options += [f"--entrypoint={node.entrypoint[0]}"] if node.entrypoint else []
    return [*options, spec.images[node.image].ref, *node.entrypoint[1:], *node.command]


def granted(name: str, image: str) -> tuple[str, ...]:
    """All capabilities that the engine can give."""
    engine = connect()
    assert isinstance(engine, DockerEngine)
    return engine._granted(ContainerConfig(name, image, hostname=name, network="none", address="", labels={}))


def _volumes(spec: Spec, node: NodeSpec) -> dict[str, str]:
    """Volume -> path, with the names that minicluster gives."""
    own = {volume_name(spec.cluster, node.name, path): path for path in node.volumes}
    return own | {shared_volume_name(spec.cluster, path): path for path in node.shared}


def _service(spec: Spec, node: NodeSpec, folder: Path, paths: list[str]) -> dict[str, Any]:
    service: dict[str, Any] = {
        "image": spec.images[node.image].ref,
        "init": True,
        "hostname": node.name,
        "environment": dict(node.env),
        "mem_limit": node.memory,
        "stop_grace_period": f"{node.stop_timeout}s",
        "networks": {"default": {"ipv4_address": node.address}},
        "ports": [f"127.0.0.1:{e.host_port}:{e.port}" for e in node.endpoints],
        "volumes": [
            *(f"{volume}:{path}" for volume, path in _volumes(spec, node).items()),
            *(f"{folder / path.lstrip('/')}:{path}:ro" for path in paths),
        ],
        # The shortest interval that the engine allows in general: the first check is one second after the start.
        "healthcheck": {"test": ["CMD", *node.ready], "interval": "1s", "timeout": "5s", "retries": 60},
    }
    if node.entrypoint:
        service["entrypoint"] = list(node.entrypoint)
    if node.command:
        service["command"] = list(node.command)
    return service
