"""Removing what a private engine left outside its data: processes, mounts, devices, control groups."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicluster.engine.private import bridge
from minicluster.host import procfs

if TYPE_CHECKING:
    from minicluster.engine.private.layout import Layout

#: Of linux/loop.h: requests of a loop device, and the size of what the first one returns.
_LOOP_GET_STATUS64, _LOOP_CLR_FD, _LOOP_INFO64 = 0x4C05, 0x4C01, 232


def clear_stale(layout: Layout) -> None:
    """Removes what a dockerd that ended left and that would prevent the next one from starting."""
    layout.socket.unlink(missing_ok=True)
    # dockerd refuses to start when the ID in this file is that of any process.
    layout.pid_file.unlink(missing_ok=True)
    # dockerd takes any process with the ID in its containerd's pid file for its containerd, and waits for it in vain. A
    # containerd that outlived its dockerd can be killed: its shims, which the next one finds, hold the containers.
    procfs.kill_all(lambda: _processes_with(layout, _containerd_config(layout)))
    (layout.run / "containerd" / "containerd.pid").unlink(missing_ok=True)
    mark = layout.run / "boot-id"
    boot = procfs.read("/proc/sys/kernel/random/boot_id")
    if layout.run.exists() and procfs.read(mark) != boot:
        # /run is not always a tmpfs: in containers and small systems it may be a folder, which survives a reboot.
        procfs.unmount(procfs.mounts_below(layout.run))
        shutil.rmtree(layout.run, ignore_errors=True)
    layout.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    mark.write_text(boot, encoding="ascii")


def clean(layout: Layout) -> list[str]:
    """Removes all that a stopped private engine has outside its data; returns a sentence for each failure."""
    _kill_containers(layout)
    points = [*procfs.mounts_below(layout.run), *procfs.mounts_below(layout.data)]
    if procfs.mounted_on_itself(layout.data):
        points.append(str(layout.data))  # dockerd unmounts it itself, unless it was killed
    procfs.unmount(points)
    _detach_loops(layout.data)
    troubles = each(Path.unlink, [path for path in (layout.socket, layout.pid_file) if path.exists()])
    troubles += each(shutil.rmtree, [layout.run] if layout.run.exists() else [])
    troubles += each(bridge.remove, [layout.bridge])
    bridge.forbid(layout.chain)
    return troubles


def remove_namespaces(layout: Layout) -> None:
    """Removes our namespaces, which are empty, from the system's containerd, where that ran our containers."""
    address, ctr = Path("/run/containerd/containerd.sock"), shutil.which("ctr", path=bridge.system_path())
    if address.exists() and ctr:
        names = (layout.namespace, f"{layout.namespace}-plugins")
        with suppress(OSError, subprocess.TimeoutExpired):
            command = [ctr, "--address", str(address), "namespaces", "remove", *names]
            subprocess.run(command, capture_output=True, timeout=5.0, check=False)


def each(action: Callable[[Any], object], things: list[Any]) -> list[str]:
    """Calls ``action`` with each; returns a sentence for each failure."""
    troubles = []
    for thing in things:
        try:
            action(thing)
        except OSError as error:
            troubles.append(f"{thing}: {error.strerror or error}.")
    return troubles


def bridges(layout: Layout) -> list[str]:
    """The bridge devices of its networks: dockerd leaves them when it ends, and creates them again when it starts.

    Read from dockerd's own database, which exists whether it runs or not. Their names contain 48 random bits, so
    no other device has one of them.
    """
    try:
        record = (layout.data / "network/files/local-kv.db").read_bytes()
    except OSError:
        return []
    names = {match.decode() for match in re.findall(rb'"BridgeName":"((?:br|mc)-[0-9a-f]{12})"', record)}
    return sorted(name for name in names if bridge.exists(name))


def _containerd_config(layout: Layout) -> str:
    return str(layout.run / "containerd" / "containerd.toml")


def _processes_with(layout: Layout, *arguments: str) -> list[int]:
    """The processes that were started with one of these arguments; never dockerd itself."""
    wanted = set(arguments)
    return [pid for pid, words in procfs.processes() if wanted & set(words) and layout.config_argument not in words]


def shims(layout: Layout) -> list[int]:
    """The processes that hold its containers: containerd's shims."""
    return _processes_with(layout, layout.namespace, f"{layout.namespace}-plugins")


def _kill_containers(layout: Layout) -> None:
    """Kills what is left of its containers; where dockerd ended cleanly, nothing is."""
    procfs.kill_all(lambda: _processes_with(layout, _containerd_config(layout)))
    # Children first: without its shim, a container becomes a child of init and cannot be recognized as ours.
    groups = {word for pid in shims(layout) for word in procfs.command_line(Path(f"/proc/{pid}")) if _is_id(word)}
    procfs.kill_all(lambda: [*procfs.descendants(shims(layout)), *shims(layout)])
    procfs.remove_control_groups(groups)


def _detach_loops(data: Path) -> None:
    """Detaches the loop devices that have the file of a volume, and removes their names, which executor.disks made.

    They are in the kernel, which keeps them when an engine ends. A node that is started gets them again.
    """
    import fcntl

    files = set()
    for volume in (data / "volumes").glob("*/_data"):
        with suppress(OSError):
            about = (volume / f"{volume.parent.name}.img").stat()
            files.add((about.st_dev, about.st_ino))
    for name in procfs.loop_devices() if files else ():
        with suppress(OSError), open(f"/dev/{name}", "rb", buffering=0) as device:
            found = fcntl.ioctl(device, _LOOP_GET_STATUS64, bytes(_LOOP_INFO64))
            if struct.unpack_from("=QQ", found) not in files:
                continue
            fcntl.ioctl(device, _LOOP_CLR_FD)
            for link in Path("/dev").glob("minicluster-*"):
                if os.readlink(link) == name:
                    link.unlink()


def _is_id(word: str) -> bool:
    return re.fullmatch("[0-9a-f]{64}", word) is not None
