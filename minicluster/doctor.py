"""Checks what this machine and its engine can do: a small function for each question, with a fix for each problem.

No check raises an error, and all together take no longer than :data:`TIMEOUT`. Checks of the engine's machine (its
kernel, its disk) run only where that is this machine, which it is not with Docker Desktop, Colima and remote engines.
"""

from __future__ import annotations

import ipaddress
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from minicluster.engine import privileges
from minicluster.errors import MiniclusterError, NoEngine
from minicluster.host import kernel, procfs
from minicluster.model.naming import size
from minicluster.profile.addressing import POOL, PREFIX, without_overlap

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine, EngineInfo

Level = Literal["ok", "warning", "error"]
BaseSource = str | Callable[[], str] | None

#: Seconds that all checks together may take.
TIMEOUT = 2.0

#: The oldest engine whose API has all that minicluster uses: 20.10 added private cgroup namespaces.
OLDEST_VERSION, OLDEST_API = "20.10", (1, 41)

#: Runtimes that run containers as the kernel's own processes.
RUNTIMES = ("runc", "io.containerd.runc.v2", "crun", "youki", "nvidia")
#: In what an engine warns of that matters: limits that it cannot set.
LIMITS_MISSING = "limit support"

DISK_WANTED, DISK_NEEDED = 5 << 30, 1 << 30  # bytes free: for a build and its cache; for the nodes' data
SUBNETS_WANTED = 8


@dataclass(frozen=True)
class Check:
    """The result of a check."""

    name: str
    level: Level
    text: str  #: a sentence or phrase
    fix: str = ""  #: what to do about it; "" where nothing is to be done


def examine(
    engine: Engine | None,
    error: NoEngine | None,
    footprint: int,
    base_source: BaseSource,
    *,
    features: Mapping[str, str] | None = None,
    root: Path = Path("/"),
) -> list[Check]:
    """Runs all checks that apply.

    Args:
        engine: the engine in use; None where there is none.
        error: why there is none.
        footprint: bytes of memory that the cluster to start is expected to use; 0 for no cluster.
        base_source: where builds get their base image, as :func:`minicluster.engine.base_image.source` returns it:
            "image REF", "registry or mmdebstrap", "registry"; or a function that returns it; None skips this check.
        features: those of the kernel that the profile can use, and what does not work without them.
        root: where this machine's /proc, /sys and /lib are.
    """
    info, error = _info_of(engine, error)
    here = platform.system() == "Linux" and (info.local if info else True)
    checks = [("engine", lambda: check_engine(info, error)), *_checks(engine, info, footprint, base_source, here, root)]
    wanted = {**(features or {}), **kernel.FAULTS} if here else {}
    return _run(checks + [(name, partial(check_feature, name, text, root)) for name, text in wanted.items()])


def _info_of(engine: Engine | None, error: NoEngine | None) -> tuple[EngineInfo | None, NoEngine | None]:
    try:
        return (engine.info, None) if engine else (None, error)
    except NoEngine as lost:
        return None, lost
    except MiniclusterError as refused:
        return None, NoEngine(refused.what, refused.why, refused.fix)


def _checks(
    engine: Engine | None, info: EngineInfo | None, footprint: int, base_source: BaseSource, here: bool, root: Path
) -> Iterator[tuple[str, Callable[[], Check]]]:
    """The checks that apply, by name; ``here``: the engine's machine is this one."""
    if info:
        yield "version", lambda: check_version(info)
        yield "configuration", lambda: check_configuration(info)
        yield "control groups", lambda: check_cgroups(info)
        yield "capabilities", lambda: check_capabilities(info, root)
    if here:
        yield "apparmor", lambda: check_apparmor(info, root)
        yield "limits", lambda: check_limits(root)
    elif info:
        yield "kernel", lambda: check_elsewhere(info)
    if here and info:
        yield "disk", lambda: check_disk(info.data_root)
    if here or info:
        yield "memory", lambda: check_memory(footprint, info.memory if info else 0, root if here else None)
    if engine and info:
        yield "subnets", lambda: check_subnets(engine.subnets())
        if base_source is not None:
            yield "base image", lambda: check_base_image(base_source)


def capacity(info: EngineInfo, footprint: int, *, root: Path = Path("/")) -> tuple[Check, Check]:
    """The checks of the engine's machine's memory, for so many bytes, and of its disk."""
    here = platform.system() == "Linux" and info.local
    disk = check_disk(info.data_root) if here else Check("disk", "ok", "not checked: the engine is on another machine")
    return check_memory(footprint, info.memory, root if here else None), disk


def check_engine(info: EngineInfo | None, error: NoEngine | None) -> Check:
    """Whether an engine answers, and how it was found."""
    if info is None:
        said = error or NoEngine("no container engine answers")
        return Check("engine", "error", "\n".join(part for part in (said.what, said.why) if part), said.fix)
    place = "on this machine" if info.local else "on another or a virtual machine"
    text = f"{info.operating_system} at {info.endpoint} ({info.source}), {place}"
    if info.rootless:
        fix = "Use an engine that runs as root: choose it with DOCKER_HOST or `docker context use`."
        return Check(
            "engine", "warning", f"{text}; it is rootless, and may lack privileges that nested nodes need", fix
        )
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


def check_configuration(info: EngineInfo) -> Check:
    """Whether the engine's configuration has defaults with which nodes, or what runs in them, cannot work."""
    found = []
    if info.remaps_users:
        found.append("it remaps users (userns-remap): nodes that run containers of their own cannot start")
    if info.runtime not in RUNTIMES:
        found.append(f"containers get the runtime {info.runtime}, in which nodes may not work (default-runtime)")
    if not info.forwards:
        found.append("the machine forwards no packets (net.ipv4.ip_forward): nodes reach nothing outside")
    if not info.file_types:
        found.append("its data are on a file system without d_type: engines in nodes cannot store images (data-root)")
    found += [f"the plugin {plugin} may refuse requests (authorization-plugins)" for plugin in info.authorization]
    found += [f"it says: {text.removeprefix('WARNING: ')}" for text in info.warnings if LIMITS_MISSING in text]
    if not found:
        return Check("configuration", "ok", "no setting of the engine prevents nested nodes")
    return Check(
        "configuration", "warning", "\n".join(found),
        "Change it in the engine's daemon.json (docs/engine.md has what each setting means for nodes), or use another "
        "engine.",
    )  # fmt: skip


def check_cgroups(info: EngineInfo) -> Check:
    """Which version of control groups nodes get."""
    if info.cgroup_version == 2:
        return Check("control groups", "ok", "version 2")
    if info.cgroup_version == 1:
        return Check("control groups", "ok", "version 1: works, but newer releases of cluster software drop it")
    return Check(
        "control groups", "warning", "the engine does not say which version",
        "Make sure that /sys/fs/cgroup is mounted on the engine's machine.",
    )  # fmt: skip


def check_capabilities(info: EngineInfo, root: Path = Path("/")) -> Check:
    """Whether the engine itself has the capabilities that nested nodes need."""
    name = "capabilities"
    if not info.local or not info.endpoint.startswith("unix://"):
        return Check(name, "ok", "not checked: the engine is not on this machine")
    bounding = procfs.bounding_set(procfs.listener_pid(info.endpoint.removeprefix("unix://"), timeout=1.0) or 0, root)
    if bounding is None:
        return Check(name, "ok", "not known: the engine's process cannot be seen from here")
    lacking = privileges.missing(bounding)
    if not lacking:
        rest = [f"CAP_{one}" for one in privileges.ALL if one not in privileges.named(bounding)]
        but = f"; nothing in a node gets {', '.join(rest)}, which it lacks" if rest else ""
        return Check(name, "ok", f"the engine has all that nested nodes need{but}")
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
    if not on or not (root / "sys/kernel/security/apparmor").exists():  # securityfs may not be mounted
        return Check(name, "ok", "not in use")
    if any((root / folder / "apparmor_parser").exists() for folder in ("sbin", "usr/sbin")):
        return Check(name, "ok", "in use, and its parser is installed")
    # Without it, Docker 23 (API 1.42) and newer use no profile; older ones refuse every container.
    if info and _api(info) >= (1, 42):
        return Check(name, "ok", "in use; its parser is not installed, so the engine uses no profile")
    return Check(
        name, "error",
        "the kernel has AppArmor switched on and its parser is not installed: Docker before 23 starts no container",
        "`sudo apt-get install apparmor`",
    )  # fmt: skip


def check_feature(name: str, missing: str, root: Path = Path("/")) -> Check:
    """Whether the kernel has a feature that a profile names; ``missing``: what does not work without it."""
    has = kernel.has(name, root)
    if has is None and root == Path("/"):
        has = kernel.tried(name)
    if has is None:
        return Check(name, "ok", "not known: neither a list of the kernel's modules nor its configuration is here")
    if has:
        return Check(name, "ok", "the kernel has it")
    feature = kernel.FEATURES.get(name)
    fix = f"Load it (`sudo modprobe {name}`) or boot a kernel with it ({feature.option})." if feature else ""
    return Check(name, "warning", missing, fix)


def check_limits(root: Path = Path("/")) -> Check:
    """Whether the kernel's limits suffice that all nodes share."""
    now = kernel.limits(root)
    if not now:
        return Check("limits", "ok", "not known: the kernel's settings cannot be read")
    low = {name: kernel.LIMITS[name].wanted for name, value in now.items() if value < kernel.LIMITS[name].wanted}
    if not low:
        return Check("limits", "ok", ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in now.items()))
    settings = " ".join(f"{name}={value}" for name, value in low.items())
    return Check(
        "limits", "warning",
        "\n".join(kernel.enough_for(name, now[name]) for name in low),
        f"`sudo sysctl {settings}`, and the same in a file in /etc/sysctl.d to keep it across reboots.",
    )  # fmt: skip


def check_elsewhere(info: EngineInfo) -> Check:
    """Says what is not checked of an engine on another machine."""
    return Check(
        "kernel", "ok",
        f"{info.kernel} on the engine's machine; its features, its limits and disk can only be checked there",
    )  # fmt: skip


def check_disk(data_root: str) -> Check:
    """Whether there is space where the engine keeps images and volumes."""
    try:
        facts = os.statvfs(data_root)
    except OSError as error:
        return Check("disk", "ok", f"not known: {data_root} cannot be read ({error.strerror})")
    free = facts.f_bavail * facts.f_frsize
    text = f"{size(free)} free in {data_root}"
    fix = "Free some: `docker system df` shows what uses it, `docker builder prune` removes build caches."
    if facts.f_files and not facts.f_favail:
        return Check("disk", "error", f"no inode free in {data_root}", fix)
    if free < DISK_NEEDED:
        return Check("disk", "error", text, fix)
    if free < DISK_WANTED:
        return Check("disk", "warning", f"{text}: little for building images", fix)
    return Check("disk", "ok", text)


def check_memory(footprint: int, total: int, root: Path | None) -> Check:
    """Whether the cluster fits into memory.

    Args:
        footprint: bytes that it is expected to use.
        total: bytes that the engine's machine has; 0 where not known.
        root: where this machine's /proc is, if it is the engine's machine; None if it is not.
    """
    facts = procfs.memory(root) if root else {}
    total = total or facts.get("MemTotal", 0)
    free = facts.get("MemAvailable")
    if free is None and not total:
        return Check("memory", "ok", "not known")
    text = f"{size(free)} of {size(total)} free" if free is not None else f"{size(total)} in all"
    if footprint:
        text += f", {size(footprint)} needed"
    fix = (
        "Choose fewer nodes (`--size ROLE=N`), stop other clusters (`minicluster ls`), or give the engine more memory."
    )
    if footprint > total > 0:
        return Check("memory", "error", text, fix)
    if footprint > (total if free is None else free):
        return Check("memory", "warning", text, fix)
    return Check("memory", "ok", text)


def check_subnets(taken: Iterable[str]) -> Check:
    """Whether there are subnets left for clusters."""
    networks = (ipaddress.ip_network(one, strict=False) for one in taken)
    near = sorted({n for n in networks if isinstance(n, ipaddress.IPv4Network) and n.overlaps(POOL)})
    subnets = list(POOL.subnets(new_prefix=PREFIX))
    free = len(list(without_overlap(subnets, near)))
    text = f"{free} of {len(subnets)} in {POOL} are free"
    if near:
        text += f"; in use: {', '.join(str(n) for n in near[:5])}{', …' if len(near) > 5 else ''}"
    fix = "Remove unused networks (`docker network prune`) or clusters (`minicluster ls`, `minicluster down`)."
    if not free:
        return Check("subnets", "error", text, fix)
    return Check("subnets", "ok", text) if free >= SUBNETS_WANTED else Check("subnets", "warning", text, fix)


def check_base_image(source: str | Callable[[], str]) -> Check:
    """Whether builds have a base image."""
    fix = (
        "Install mmdebstrap (`sudo apt-get install mmdebstrap`), with which minicluster builds the base image from "
        "Debian packages, or load the image debian:trixie-slim into the engine (`docker load`)."
    )
    try:
        where = source if isinstance(source, str) else source()
    except MiniclusterError as error:
        return Check("base image", "error", f"{error.what}. {error.why}".strip(), error.fix or fix)
    if not where:
        return Check("base image", "error", "none is available, and none can be built", fix)
    if where == "registry":
        return Check("base image", "warning", "must be pulled from a registry, if one answers", fix)
    return Check("base image", "ok", where)


def _run(checks: list[tuple[str, Callable[[], Check]]]) -> list[Check]:
    """The results, in the order of the checks. All run at once; those that take too long are left in daemon threads."""
    found: dict[int, Check] = {}

    def run(index: int, name: str, check: Callable[[], Check]) -> None:
        try:
            found[index] = check()
        except Exception as error:  # one check that fails must not hide the others
            words = error.what if isinstance(error, MiniclusterError) else f"{type(error).__name__}: {error}"
            found[index] = Check(name, "warning", f"could not be checked: {words}")

    deadline = time.monotonic() + TIMEOUT
    threads = [
        threading.Thread(target=run, args=(index, name, check), name=f"doctor {name}", daemon=True)
        for index, (name, check) in enumerate(checks)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = "could not be checked in time"
    return [found.get(index) or Check(name, "warning", late) for index, (name, _) in enumerate(checks)]
