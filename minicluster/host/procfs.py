"""What this machine's kernel knows of processes, mounts, control groups and disk, read without any tool."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")

_POLL = 0.01  # seconds
_MNT_DETACH = 2  # from sys/mount.h


def processes(root: Path = ROOT) -> Iterator[tuple[int, list[str]]]:
    """Every process and its command line."""
    try:
        names = os.listdir(root / "proc")
    except OSError:
        return
    for name in names:
        if name.isdigit():
            yield int(name), command_line(root / "proc" / name)


def command_line(folder: Path) -> list[str]:
    """The words that the process with this folder in /proc was started with; empty for a zombie or none at all."""
    try:
        return (folder / "cmdline").read_bytes().decode("utf-8", "surrogateescape").split("\0")
    except OSError:
        return []


def kill_all(find: Callable[[], list[int]], patience: float = 10.0) -> None:
    """Kills the processes that ``find`` finds until it finds none, or for as long as patience (in seconds) lasts."""
    deadline = time.monotonic() + patience
    while (pids := find()) and time.monotonic() < deadline:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL)


def descendants(pids: Iterable[int], root: Path = ROOT) -> list[int]:
    """The children of these processes, their children, and so on."""
    children_of: dict[int, list[int]] = {}
    for pid, _ in processes(root):
        with suppress(OSError, IndexError, ValueError):
            # The program's name, in parentheses, may hold anything; the parent is the second field after it.
            fields = read(root / f"proc/{pid}/stat").rpartition(")")[2].split()
            children_of.setdefault(int(fields[1]), []).append(pid)
    found: list[int] = []
    queue = list(pids)
    while queue:
        children = children_of.get(queue.pop(), [])
        found += children
        queue += children
    return found


def started(pid: int, root: Path = ROOT) -> float:
    """When a process started, in seconds since 1970; 0.0 where that cannot be read."""
    try:
        ticks = int(read(root / f"proc/{pid}/stat").rpartition(")")[2].split()[19])
        boot = next(line for line in read(root / "proc/stat").splitlines() if line.startswith("btime "))
        return int(boot.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")
    except (IndexError, ValueError, StopIteration):
        return 0.0


def mounts_below(folder: Path, root: Path = ROOT) -> list[str]:
    """The mount points in a folder, the deepest first; not the folder itself."""
    top = f"{folder.resolve()}/"
    return sorted((mount.point for mount in _mounts(root) if mount.point.startswith(top)), key=len, reverse=True)


def mounted_on_itself(folder: Path, root: Path = ROOT) -> bool:
    """Whether a folder is a mount point of nothing but itself (``mount --bind FOLDER FOLDER``), as dockerd makes its
    data root one where that is not in a shared mount; not so where somebody mounted a disk or another folder there."""
    point = str(folder.resolve())
    mine: _Mount | None = None
    outer: _Mount | None = None
    for mount in _mounts(root):  # in the order in which they were made: the last one at a place is on top
        if mount.point == point:
            mine = mount
        elif f"{point}/".startswith(f"{mount.point.rstrip('/')}/") and len(mount.point) >= len(
            outer.point if outer else ""
        ):
            outer = mount
    if mine is None or outer is None:
        return False
    here = outer.source.rstrip("/") + "/" + os.path.relpath(point, outer.point)
    return (mine.device, mine.source) == (outer.device, here)


@dataclass(frozen=True)
class _Mount:
    device: str
    source: str  #: which folder of the device
    point: str


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in read(root / "proc/self/mountinfo").splitlines():
        fields = line.split(" ")
        if len(fields) > 4:
            yield _Mount(fields[2], _unescaped(fields[3]), _unescaped(fields[4]))


def _unescaped(field: str) -> str:
    """Blanks and the like are written as \\040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def own_container_ids(root: Path = ROOT) -> list[str]:
    """Identities, whole or cut short, that the container which this process runs in may have; empty where in none.

    Every container engine mounts a file of its own over /etc/hostname, /etc/hosts or /etc/resolv.conf, from a folder
    that is named by the container's identity. Where that tells nothing, the host name may be its first 12 digits.
    """
    files = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
    sources = [mount.source for mount in _mounts(root) if mount.point in files]
    found = [match[1] for source in sources if (match := re.search(r"/([0-9a-f]{64})/", source))]
    if not found:
        name = read(root / "proc/sys/kernel/hostname")
        found = [name] if re.fullmatch(r"[0-9a-f]{12}", name) else []
    return list(dict.fromkeys(found))


def listener_is_here(path: str) -> bool:
    """Whether who listens at a Unix socket has a process number here: not so in another process name space (Linux)."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.connect(path)
        pid, _uid, _gid = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return bool(pid)
    return True


def unmount(points: Iterable[str]) -> None:
    """Unmounts these, as far as it is allowed. What is still in use goes when its last user does."""
    import ctypes  # of all who ask about this machine, only who unmounts needs it

    libc = ctypes.CDLL(None, use_errno=True)
    for point in points:
        libc.umount2(os.fsencode(point), _MNT_DETACH)


def remove_control_groups(names: Iterable[str]) -> None:
    """Removes the empty control groups of these names, and those in them, from every hierarchy."""
    wanted = set(names)
    # A hierarchy has some dozen groups above the containers'; deeper ones are inside of containers.
    for depth in ("*", "*/*", "*/*/*") if wanted else ():
        for group in (ROOT / "sys/fs/cgroup").glob(depth):
            if group.name in wanted:
                for path, _, _ in os.walk(group, topdown=False):
                    with suppress(OSError):
                        os.rmdir(path)


def disk_usage(folder: Path) -> int:
    """Bytes that a folder takes on its own file system: what is mounted in it is not counted twice."""
    try:
        device = folder.stat().st_dev
    except OSError:
        return 0
    total = 0
    seen: set[int] = set()  # files with several names, which overlay2 and containerd both have
    queue = [str(folder)]
    while queue:
        try:
            entries = list(os.scandir(queue.pop()))
        except OSError:
            continue
        for entry in entries:
            try:
                facts = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if facts.st_dev != device or facts.st_ino in seen:
                continue
            if facts.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                seen.add(facts.st_ino)
            total += facts.st_blocks * 512
            if entry.is_dir(follow_symlinks=False):
                queue.append(entry.path)
    return total


def read(path: Path | str) -> str:
    """What is in a file, without blanks around it; "" where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
