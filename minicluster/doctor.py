"""What this machine and its engine can do, asked and not assumed: a list of small functions, each with its fix.

A check never raises, and all of them together take no longer than :data:`PATIENCE`. What only the engine's machine
knows (its kernel, its disk) is asked of this machine where the engine shares it, and passed over where it does not:
Docker Desktop, Colima and remote engines.
"""

from __future__ import annotations

import ipaddress
import os
import platform
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from minicluster.engine import privileges
from minicluster.engine.protocol import Engine, EngineInfo
from minicluster.errors import MiniclusterError, NoEngine
from minicluster.host import procfs
from minicluster.profile.addressing import POOL, PREFIX

Level = Literal["ok", "warning", "error"]
BaseSource = str | Callable[[], str] | None

#: Seconds that all checks together may take.
PATIENCE = 2.0

#: The oldest engine whose API has all that minicluster uses: 20.10 brought private cgroup namespaces.
OLDEST_VERSION, OLDEST_API = "20.10", (1, 41)

#: What kind's page of known issues recommends, for the same reason: every container's shim, kubelet and systemd
#: watch files, and all of them count as one user's, as nodes share the machine's root.
INOTIFY_INSTANCES, INOTIFY_WATCHES = 512, 524288
#: Instances set aside for a node. A Swarm node takes none (seen: 21 nodes run with a limit of 128); a node with a
#: kubelet takes several, and so does what runs in its containers.
INOTIFY_INSTANCES_PER_NODE = 8

DISK_WANTED, DISK_NEEDED = 5 << 30, 1 << 30  # bytes free: room for a build and its cache; for the nodes' own data
SUBNETS_WANTED = 8


@dataclass(frozen=True)
class Check:
    """What one check found."""

    name: str
    level: Level
    text: str  #: what was found, one sentence or phrase
    fix: str = ""  #: what to do about it; "" where there is nothing to do


def examine(
    engine: Engine | None,
    error: NoEngine | None,
    footprint: int,
    base_source: BaseSource,
    *,
    root: Path = Path("/"),
) -> list[Check]:
    """Runs all checks that apply.

    Args:
        engine: the engine in use; None where there is none.
        error: why there is none.
        footprint: bytes of memory that the cluster to start is expected to use; 0 where there is none in mind.
        base_source: where recipes get their base image, as :func:`minicluster.engine.base_image.source` says it:
            "image REF", "registry or mmdebstrap", "registry"; or a function that finds out; None skips this check.
        root: where this machine's /proc, /sys and /lib are.
    """
    info: EngineInfo | None = None
    if engine:
        try:
            info = engine.info
        except NoEngine as gone:
            error = gone
        except MiniclusterError as refused:
            error = NoEngine(refused.what, refused.why, refused.fix)
    checks: list[tuple[str, Callable[[], Check]]] = [("engine", lambda: check_engine(info, error))]
    here = platform.system() == "Linux" and (info.local if info else True)
    if engine and info:
        found, known = engine, info  # for the functions below, which run later
        checks += [
            ("version", lambda: check_version(known)),
            ("control groups", lambda: check_cgroups(known)),
            ("capabilities", lambda: check_capabilities(known, root)),
        ]
    if here:
        checks += [
            ("apparmor", lambda: check_apparmor(info, root)),
            ("ip_vs", lambda: check_ip_vs(root)),
            ("overlay", lambda: check_overlay(root)),
            ("vxlan", lambda: check_vxlan(root)),
            ("inotify", lambda: check_inotify(root)),
        ]
    elif info:
        checks.append(("kernel", lambda: check_elsewhere(known)))
    if info:
        if here:
            checks.append(("disk", lambda: check_disk(known.data_root)))
        checks.append(("memory", lambda: check_memory(footprint, known.memory, root if here else None)))
        checks.append(("subnets", lambda: check_subnets(found.subnets())))
        if base_source is not None:
            checks.append(("base image", lambda: check_base_image(base_source)))
    elif here:
        checks.append(("memory", lambda: check_memory(footprint, 0, root)))
    return _run(checks)


def room(info: EngineInfo, footprint: int, *, root: Path = Path("/")) -> tuple[Check, Check]:
    """What the engine's machine has of memory, for so many bytes, and of disk."""
    here = platform.system() == "Linux" and info.local
    disk = check_disk(info.data_root) if here else Check("disk", "ok", "not asked: it is another machine's")
    return check_memory(footprint, info.memory, root if here else None), disk


def check_engine(info: EngineInfo | None, error: NoEngine | None) -> Check:
    """Whether an engine answers, and how it was found."""
    if info is None:
        said = error or NoEngine("no container engine answers")
        return Check("engine", "error", "\n".join(part for part in (said.what, said.why) if part), said.fix)
    place = "on this machine" if info.local else "on another machine or in a virtual one"
    text = f"{info.operating_system} at {info.endpoint} ({info.source}), {place}"
    if info.rootless:
        fix = "Use an engine that runs as root: DOCKER_HOST or `docker context use` choose it."
        return Check("engine", "warning", f"{text}; it is rootless, and nested nodes need more than it may grant", fix)
    return Check("engine", "ok", text)


def check_version(info: EngineInfo) -> Check:
    """Whether the engine is new enough."""
    text = f"Docker {info.version}, API {info.api_version}, {info.platform}"
    api = _api(info)
    if not api:
        return Check("version", "warning", f"{text}: the API's version is not a number like 1.41")
    if api < OLDEST_API:
        wanted = ".".join(map(str, OLDEST_API))
        return Check(
            "version", "error", f"{text} is too old", f"Install Docker {OLDEST_VERSION} (API {wanted}) or newer."
        )
    return Check("version", "ok", text)


def _api(info: EngineInfo) -> tuple[int, ...]:
    """The version of its API; () where it is not a number like 1.41."""
    try:
        major, minor = (int(part) for part in info.api_version.split(".")[:2])
    except ValueError:
        return ()
    return major, minor


def check_cgroups(info: EngineInfo) -> Check:
    """Which control groups nodes get."""
    if info.cgroup_version == 2:
        return Check("control groups", "ok", "version 2")
    if info.cgroup_version == 1:
        return Check("control groups", "ok", "version 1: works, but newer releases of cluster software give it up")
    return Check(
        "control groups", "warning", "the engine does not say which version",
        "Make sure that /sys/fs/cgroup is mounted on the engine's machine.",
    )  # fmt: skip


def check_capabilities(info: EngineInfo, root: Path = Path("/")) -> Check:
    """Whether the engine itself has the capabilities that nested nodes need."""
    name = "capabilities"
    if not info.local or not info.endpoint.startswith("unix://"):
        return Check(name, "ok", "not asked: only an engine on this machine can be")
    bounding = _bounding_set(_peer(info.endpoint.removeprefix("unix://")), root)
    if bounding is None:
        return Check(name, "ok", "not known: the engine's process cannot be seen from here")
    lacking = privileges.missing(bounding)
    if not lacking:
        return Check(name, "ok", "the engine has all that nested nodes need")
    return Check(
        name, "error",
        f"the engine's bounding set lacks {', '.join('CAP_' + one for one in lacking)}: nested nodes cannot start",
        "Run the engine where it has them: not in a container or sandbox that drops them "
        f"(in one: `docker run {' '.join('--cap-add ' + one for one in lacking)} …`).",
    )  # fmt: skip


def check_apparmor(info: EngineInfo | None, root: Path = Path("/")) -> Check:
    """Whether the engine can load its AppArmor profile, where the kernel has AppArmor switched on."""
    name = "apparmor"
    on = procfs.read(root / "sys/module/apparmor/parameters/enabled") == "Y"
    if not on or not (root / "sys/kernel/security/apparmor").exists():  # the file system may not be mounted
        return Check(name, "ok", "not in use")
    if any((root / folder / "apparmor_parser").exists() for folder in ("sbin", "usr/sbin")):
        return Check(name, "ok", "in use, and its parser is there")
    # Docker 23 (API 1.42) and newer go without a profile then; older ones refuse every container.
    if info and _api(info) >= (1, 42):
        return Check(name, "ok", "in use; without its parser, the engine goes without a profile")
    return Check(
        name, "error",
        "the kernel has AppArmor switched on and its parser is not installed: "
        "Docker older than 23 starts no container then",
        "`sudo apt-get install apparmor`",
    )  # fmt: skip


def check_ip_vs(root: Path = Path("/")) -> Check:
    """Whether the kernel has IPVS, with which Docker Swarm balances over a service's tasks."""
    if (root / "proc/net/ip_vs").exists():
        return Check("ip_vs", "ok", "loaded")
    if procfs.has_module("ip_vs", root):
        return Check("ip_vs", "ok", "a module that the kernel loads when it is needed")
    return Check(
        "ip_vs", "warning",
        "the kernel has no ip_vs: Docker Swarm's virtual IPs and its routing mesh do not work",
        "Load it (`sudo modprobe ip_vs`) or boot a kernel that has it (CONFIG_IP_VS). Without: create services with "
        "`--endpoint-mode dnsrr` and publish ports with `mode=host`.",
    )  # fmt: skip


def check_overlay(root: Path = Path("/")) -> Check:
    """Whether nested engines can use the overlay file system."""
    try:
        there = "\toverlay\n" in (root / "proc/filesystems").read_text(encoding="ascii")
    except OSError:
        there = False
    if there or procfs.has_module("overlay", root):
        return Check("overlay", "ok", "the overlay file system is there")
    return Check(
        "overlay", "warning",
        "the kernel has no overlay file system: engines in nodes copy every layer of every image",
        "Load it (`sudo modprobe overlay`) or boot a kernel that has it (CONFIG_OVERLAY_FS).",
    )  # fmt: skip


def check_vxlan(root: Path = Path("/")) -> Check:
    """Whether the kernel has VXLAN, which networks across nodes are made of."""
    if (root / "sys/module/vxlan").exists() or procfs.has_module("vxlan", root):
        return Check("vxlan", "ok", "the kernel has it")
    made = _makes_vxlan() if root == Path("/") else None
    if made:
        return Check("vxlan", "ok", "the kernel has it (a link could be made)")
    if made is None:
        return Check("vxlan", "warning", "not known: only root can try", "Run `sudo minicluster doctor`.")
    return Check(
        "vxlan", "warning",
        "the kernel has no VXLAN: overlay networks across nodes do not work",
        "Load it (`sudo modprobe vxlan`) or boot a kernel that has it (CONFIG_VXLAN).",
    )  # fmt: skip


def check_inotify(root: Path = Path("/")) -> Check:
    """Whether enough file watches are allowed: too few show as "too many open files" in a node."""
    folder = root / "proc/sys/fs/inotify"
    try:
        instances = int((folder / "max_user_instances").read_text(encoding="ascii"))
        watches = int((folder / "max_user_watches").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return Check("inotify", "ok", "not known: the kernel does not tell its limits")
    text = f"{instances} instances, {watches} watches"
    if instances >= INOTIFY_INSTANCES and watches >= INOTIFY_WATCHES:
        return Check("inotify", "ok", text)
    nodes = max(1, instances // INOTIFY_INSTANCES_PER_NODE)
    wanted = {
        "fs.inotify.max_user_instances": max(instances, INOTIFY_INSTANCES),
        "fs.inotify.max_user_watches": max(watches, INOTIFY_WATCHES),
    }
    settings = " ".join(f"{key}={value}" for key, value in wanted.items())
    return Check(
        "inotify", "warning",
        f"{text}: enough for about {nodes} nested {'node' if nodes == 1 else 'nodes'} of a kind that watches files; "
        "beyond that they may fail with \"too many open files\"",
        f"`sudo sysctl {settings}`, and the same in a file in /etc/sysctl.d to keep it over a reboot.",
    )  # fmt: skip


def check_elsewhere(info: EngineInfo) -> Check:
    """Says what is passed over for an engine whose kernel is not ours."""
    return Check(
        "kernel", "ok",
        f"{info.kernel} on the engine's machine; ip_vs, vxlan, inotify and disk can only be asked there",
    )  # fmt: skip


def check_disk(data_root: str) -> Check:
    """Whether there is room where the engine keeps images and volumes."""
    try:
        facts = os.statvfs(data_root)
    except OSError as error:
        return Check("disk", "ok", f"not known: {data_root} cannot be looked at ({error.strerror})")
    free = facts.f_bavail * facts.f_frsize
    text = f"{_size(free)} free in {data_root}"
    fix = "Free some: `docker system df` shows what takes it, `docker builder prune` removes caches of builds."
    if facts.f_files and not facts.f_favail:
        return Check("disk", "error", f"no inode free in {data_root}", fix)
    if free < DISK_NEEDED:
        return Check("disk", "error", text, fix)
    return Check("disk", "warning", f"{text}: little for building images", fix) if free < DISK_WANTED else Check(
        "disk", "ok", text
    )  # fmt: skip


def check_memory(footprint: int, total: int, root: Path | None) -> Check:
    """Whether the cluster fits into memory.

    Args:
        footprint: bytes that it is expected to use.
        total: bytes that the engine's machine has in all; 0 where not known.
        root: where this machine's /proc is, if it is the engine's machine; None if it is not.
    """
    facts = _meminfo(root) if root else {}
    total = total or facts.get("MemTotal", 0)
    free = facts.get("MemAvailable")
    if free is None and not total:
        return Check("memory", "ok", "not known")
    text = f"{_size(free)} of {_size(total)} free" if free is not None else f"{_size(total)} in all"
    if footprint:
        text += f", {_size(footprint)} needed"
    fix = (
        "Choose fewer nodes (`--size ROLE=N`), stop other clusters (`minicluster ls`), or give the engine more memory."
    )
    if footprint > total > 0:
        return Check("memory", "error", text, fix)
    if footprint > (total if free is None else free):
        return Check("memory", "warning", text, fix)
    return Check("memory", "ok", text)


def check_subnets(taken: list[str]) -> Check:
    """Whether there are addresses left for clusters."""
    pool = ipaddress.IPv4Network(str(POOL))
    used = [ipaddress.ip_network(one, strict=False) for one in taken]
    near = sorted({n for n in used if isinstance(n, ipaddress.IPv4Network) and n.overlaps(pool)})
    subnets = list(pool.subnets(new_prefix=PREFIX))
    free = sum(not any(subnet.overlaps(other) for other in near) for subnet in subnets)
    text = f"{free} of {len(subnets)} in {pool} are free"
    if near:
        text += f"; in use: {', '.join(str(n) for n in near[:5])}{', …' if len(near) > 5 else ''}"
    fix = "Remove networks that nobody uses: `docker network prune`, or clusters: `minicluster ls`, `minicluster down`."
    if not free:
        return Check("subnets", "error", text, fix)
    return Check("subnets", "ok", text) if free >= SUBNETS_WANTED else Check("subnets", "warning", text, fix)


def check_base_image(source: str | Callable[[], str]) -> Check:
    """Whether recipes have a base image to build on."""
    fix = (
        "Install mmdebstrap (`sudo apt-get install mmdebstrap`), with which minicluster makes the base image from "
        "Debian's packages, or load the image debian:bookworm-slim into the engine (`docker load`)."
    )
    try:
        where = source if isinstance(source, str) else source()
    except MiniclusterError as error:
        return Check("base image", "error", f"{error.what}. {error.why}".strip(), error.fix or fix)
    if not where:
        return Check("base image", "error", "there is none, and nothing to make one with", fix)
    if where == "registry":
        return Check("base image", "warning", "has to be pulled from a registry, if one answers", fix)
    return Check("base image", "ok", where)


def _run(checks: list[tuple[str, Callable[[], Check]]]) -> list[Check]:
    """All at once, in their order; what takes too long is left behind, in threads that keep nobody from ending."""
    found: dict[int, Check] = {}

    def run(index: int, name: str, check: Callable[[], Check]) -> None:
        try:
            found[index] = check()
        except Exception as error:  # a check that fails must not hide the others
            words = error.what if isinstance(error, MiniclusterError) else f"{type(error).__name__}: {error}"
            found[index] = Check(name, "warning", f"could not be checked: {words}")

    deadline = time.monotonic() + PATIENCE
    threads = [
        threading.Thread(target=run, args=(index, name, check), name=f"doctor {name}", daemon=True)
        for index, (name, check) in enumerate(checks)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = "could not be checked: no answer in time"
    return [found.get(index) or Check(name, "warning", late) for index, (name, _) in enumerate(checks)]


def _peer(path: str) -> int:
    """The process id of who listens on a Unix socket; 0 where it cannot be known."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1.0)
        connection.connect(path)
        credentials = connection.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


def _bounding_set(pid: int, root: Path) -> int | None:
    """The capabilities that a process and its children can ever have; None where it cannot be known."""
    if pid <= 0:
        return None
    try:
        lines = (root / "proc" / str(pid) / "status").read_text(encoding="utf-8", errors="replace").splitlines()
        return next((int(line.split()[1], 16) for line in lines if line.startswith("CapBnd:")), None)
    except (OSError, ValueError, IndexError):
        return None


def _makes_vxlan() -> bool | None:
    """Whether a VXLAN link can be made, tried in a network namespace that ends with the try; None: cannot be tried."""
    unshare, ip = shutil.which("unshare"), shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if os.geteuid() != 0 or not unshare or not ip:
        return None
    link = [ip, "link", "add", "vxlan0", "type", "vxlan", "id", "1", "dstport", "4789"]
    try:
        done = subprocess.run([unshare, "--net", *link], capture_output=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.returncode == 0


def _meminfo(root: Path) -> dict[str, int]:
    """/proc/meminfo in bytes; empty where there is none."""
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in pairs if len(words) > 1 and words[1].isdigit()}


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.0f} MiB"
