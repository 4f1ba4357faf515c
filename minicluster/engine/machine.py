"""What this machine's kernel knows of processes, mounts, control groups and disk, read without any tool.

Everything takes the folder that /proc is in, so that a test can make a machine of files.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
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
    parents: dict[int, list[int]] = {}
    for pid, _ in processes(root):
        with suppress(OSError, IndexError, ValueError):
            # The program's name, in parentheses, may hold anything; the parent is the second field after it.
            fields = read(root / f"proc/{pid}/stat").rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(pid)
    found: list[int] = []
    queue = list(pids)
    while queue:
        children = parents.get(queue.pop(), [])
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
    """The mount points at and below a folder, the deepest first."""
    top = str(folder.resolve())
    points = []
    for line in read(root / "proc/self/mountinfo").splitlines():
        fields = line.split(" ")
        if len(fields) < 5:
            continue
        # Blanks and the like are written as \040.
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        if point == top or point.startswith(top + "/"):
            points.append(point)
    return sorted(points, key=len, reverse=True)


def unmount_below(folder: Path) -> None:
    """Unmounts everything in a folder, the deepest first. What is still in use goes when its last user does."""
    umount = _program("umount")
    points = mounts_below(folder)
    if umount and points:
        subprocess.run([umount, "--lazy", *points], capture_output=True, check=False)


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
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
