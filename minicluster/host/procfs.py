"""What this machine's kernel knows: processes, mounts, control groups, routes, disk. Runs no program."""

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
from ipaddress import IPv4Network
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
    """The arguments of the process with this folder in /proc; empty for a zombie, or where there is none."""
    try:
        return (folder / "cmdline").read_bytes().decode("utf-8", "surrogateescape").split("\0")
    except OSError:
        return []


def kill_all(find: Callable[[], list[int]], patience: float = 10.0) -> None:
    """Kills the processes that ``find`` returns until it returns none, for ``patience`` seconds at most."""
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
    """Whether a folder is bind-mounted on itself (``mount --bind FOLDER FOLDER``), and not a disk or another folder.

    dockerd does that with its data root where that is not in a shared mount.
    """
    point = str(folder.resolve())
    mine: _Mount | None = None
    outer: _Mount | None = None
    for mount in _mounts(root):  # in the order of mounting: the last one at a place is on top
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
    """Blanks and other special characters are written in octal, as \\040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def own_container_ids(root: Path = ROOT) -> list[str]:
    """IDs, whole or shortened, that the container in which this process runs may have; empty where it runs in none.

    Every container engine mounts a file of its own over /etc/hostname, /etc/hosts or /etc/resolv.conf, from a folder
    that is named by the container's ID. Where there is none of these, the host name may be the ID's first 12 digits.
    """
    files = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
    sources = [mount.source for mount in _mounts(root) if mount.point in files]
    found = [match[1] for source in sources if (match := re.search(r"/([0-9a-f]{64})/", source))]
    if not found:
        name = read(root / "proc/sys/kernel/hostname")
        found = [name] if re.fullmatch(r"[0-9a-f]{12}", name) else []
    return list(dict.fromkeys(found))


def listener_pid(path: str, timeout: float | None = None) -> int | None:
    """The process that listens on a Unix socket: 0 where it is in another process namespace; None where not known.

    Raises ``OSError`` where nothing listens. Only Linux reports it (man 7 unix).
    """
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect(path)
        pid, _uid, _gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, option, 12))
    return int(pid)


def listener_is_here(path: str) -> bool:
    """Whether the process that listens on a Unix socket is in our process namespace; True where not known."""
    with suppress(OSError):
        return listener_pid(path) != 0
    return True


def bounding_set(pid: int, root: Path = ROOT) -> int | None:
    """The capabilities that a process and its children can ever have, a bit each; None where not known."""
    if pid <= 0:
        return None
    try:
        lines = (root / "proc" / str(pid) / "status").read_text(encoding="utf-8", errors="replace").splitlines()
        return next((int(line.split()[1], 16) for line in lines if line.startswith("CapBnd:")), None)
    except (OSError, ValueError, IndexError):
        return None


def memory(root: Path = ROOT) -> dict[str, int]:
    """``/proc/meminfo`` in bytes; empty where it cannot be read."""
    return parse_memory(read(root / "proc/meminfo"))


def parse_memory(text: str) -> dict[str, int]:
    """The text of ``/proc/meminfo`` in bytes."""
    pairs = (line.split() for line in text.splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in pairs if len(words) > 1 and words[1].isdigit()}


def routes(root: Path = ROOT, *, but: Iterable[str] = ()) -> list[IPv4Network]:
    """The destinations of this machine's IPv4 routes; empty where they cannot be read.

    Leaves out default routes, and those over the devices named in ``but``.
    """
    return parse_routes(read(root / "proc/net/route"), but)


def parse_routes(text: str, but: Iterable[str] = ()) -> list[IPv4Network]:
    """The destinations in a text as of ``/proc/net/route``; ``but``: devices that do not count."""
    left_out = set(but)
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8 or fields[0] in left_out:
            continue
        # Addresses are in hexadecimal, in this machine's byte order.
        address, mask = (struct.pack("=I", int(fields[column], 16)) for column in (1, 7))
        network = IPv4Network((address, int.from_bytes(mask, "big").bit_count()), strict=False)
        if network.prefixlen:
            found.append(network)
    return found


def loop_devices(root: Path = ROOT) -> list[str]:
    """The names of the loop devices that have a file, such as loop0."""
    return sorted(folder.parent.name for folder in (root / "sys/block").glob("loop*/loop"))


def unmount(points: Iterable[str]) -> None:
    """Unmounts these, as far as that is allowed. One in use is detached, and ends with its last user."""
    import ctypes  # imported here, since only this function needs it

    libc = ctypes.CDLL(None, use_errno=True)
    for point in points:
        libc.umount2(os.fsencode(point), _MNT_DETACH)


def remove_control_groups(names: Iterable[str]) -> None:
    """Removes the empty control groups with these names, and those in them, from every hierarchy."""
    wanted = set(names)
    # A hierarchy has some dozen groups above the containers'; deeper ones are inside of containers.
    for depth in ("*", "*/*", "*/*/*") if wanted else ():
        for group in (ROOT / "sys/fs/cgroup").glob(depth):
            if group.name in wanted:
                for path, _, _ in os.walk(group, topdown=False):
                    with suppress(OSError):
                        os.rmdir(path)


def disk_usage(folder: Path) -> int:
    """Bytes that a folder takes on its own file system; what is mounted in it is not counted."""
    try:
        device = folder.stat().st_dev
    except OSError:
        return 0
    total = 0
    seen: set[int] = set()  # inodes with several names, which both overlay2 and containerd create
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
    """The content of a file without surrounding whitespace; "" where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
