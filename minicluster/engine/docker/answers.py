"""The API's JSON as data of :mod:`minicluster.engine.protocol`, and filters of its lists."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import Any

from minicluster.engine.protocol import Container, Image, Network, Sample
from minicluster.errors import MiniclusterError
from minicluster.model.labels import CLUSTER

_MOMENT = re.compile(
    r"(?P<whole>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.(?P<digits>\d+))?(?P<zone>Z|[+-]\d\d:\d\d|)", re.ASCII
)


def cluster_label(cluster: str | None) -> str:
    """The filter for the objects of a cluster, or of every cluster."""
    return f"{CLUSTER}={cluster}" if cluster else CLUSTER


def filters(**only: str) -> dict[str, dict[str, list[str]]]:
    """Query parameters that narrow a list down."""
    return {"filters": {key: [value] for key, value in only.items()}}


def container(data: Mapping[str, Any]) -> Container:
    """A container of a list."""
    networks = (data.get("NetworkSettings") or {}).get("Networks") or {}
    mode = (data.get("HostConfig") or {}).get("NetworkMode") or ""
    # A container that does not run has no current address; the one that it was created with is in IPAMConfig.
    endpoint = networks.get("bridge" if mode == "default" else mode) or {}
    address = endpoint.get("IPAddress") or (endpoint.get("IPAMConfig") or {}).get("IPv4Address") or ""
    published = [p for p in data.get("Ports") or () if p.get("PublicPort")]
    ports = {f"{p['PrivatePort']}/{p.get('Type', 'tcp')}": p["PublicPort"] for p in published}
    return Container(
        id=data["Id"],
        name=(data.get("Names") or ["/"])[0].lstrip("/"),
        labels=data.get("Labels") or {},
        state=data.get("State", ""),
        status=data.get("Status", ""),
        image=data.get("Image", ""),
        address=address,
        ports=ports,
        networks=frozenset(networks),
        network_mode=mode,
    )


def network(data: Mapping[str, Any]) -> Network:
    """A network of a list."""
    configs = (data.get("IPAM") or {}).get("Config") or []
    return Network(
        data["Id"], data["Name"], data.get("Labels") or {}, tuple(c["Subnet"] for c in configs if c.get("Subnet"))
    )


def image(data: Mapping[str, Any]) -> Image:
    """An image of a list."""
    return Image(
        id=data["Id"],
        tags=tuple(tag for tag in data.get("RepoTags") or () if tag != "<none>:<none>"),
        labels=data.get("Labels") or {},
        size=int(data["Size"]),
        created=int(data["Created"]),
    )


def inspected_image(data: Mapping[str, Any]) -> Image:
    """An image that was inspected."""
    return image({**data, "Labels": data["Config"].get("Labels"), "Created": moment(data["Created"])})


def sample(stats: Mapping[str, Any] | None) -> Sample:
    """One answer of a container's stats; Docker answers with nothing while it removes the container."""
    stats = stats or {}
    cpu = stats.get("cpu_stats") or {}
    memory = stats.get("memory_stats") or {}
    detail = memory.get("stats") or {}
    # As `docker stats`, it leaves out the page cache that can be dropped at once:
    # total_inactive_file on cgroup v1, inactive_file on v2.
    cache = detail.get("total_inactive_file", detail.get("inactive_file", 0))
    disks = (stats.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ()
    networks = (stats.get("networks") or {}).values()
    return Sample(
        cpu=int((cpu.get("cpu_usage") or {}).get("total_usage", 0)),
        system=int(cpu.get("system_cpu_usage", 0)),
        cpus=int(cpu.get("online_cpus") or len((cpu.get("cpu_usage") or {}).get("percpu_usage") or ())),
        memory=max(0, int(memory.get("usage", 0)) - int(cache)),
        memory_limit=int(memory.get("limit", 0)),
        pids=int((stats.get("pids_stats") or {}).get("current", 0)),
        received=sum(int(n.get("rx_bytes", 0)) for n in networks),
        sent=sum(int(n.get("tx_bytes", 0)) for n in networks),
        read=sum(int(d["value"]) for d in disks if d["op"].lower() == "read"),
        written=sum(int(d["value"]) for d in disks if d["op"].lower() == "write"),
    )


def moment(text: str) -> float:
    """A time of the API, such as 2026-01-02T03:04:05.678901234Z, in seconds since 1970.

    Raises:
        MiniclusterError: it is none.
    """
    from datetime import datetime

    match = _MOMENT.fullmatch(text)
    with contextlib.suppress(ValueError):  # such as a month 13
        if match:
            zone = match["zone"].replace("Z", "+00:00") or "+00:00"
            digits = f"{match['digits'] or '':.6}".ljust(6, "0")  # Python 3.10 reads no other number of them
            return datetime.fromisoformat(f"{match['whole']}.{digits}{zone}").timestamp()
    raise MiniclusterError(f"the engine's answer has no time but {text!r}")
