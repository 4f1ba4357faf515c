"""What belongs to one private engine: its files, its configuration, its process."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minicluster.host import procfs

#: Settings of the machine's own dockerd that say how to reach the outside world: they apply to a second one too.
_SHARED_SETTINGS = ("registry-mirrors", "insecure-registries", "dns", "dns-opts", "dns-search", "mtu")
_SYSTEM_CONFIG = Path("/etc/docker/daemon.json")


@dataclass(frozen=True)
class Layout:
    """The paths and names of one private engine."""

    directory: Path

    @property
    def tag(self) -> str:
        """Eight hexadecimal digits in the names of this private engine's devices, chains and processes."""
        return hashlib.sha256(str(self.directory.resolve()).encode()).hexdigest()[:8]

    @property
    def socket(self) -> Path:
        return self.directory / "docker.sock"

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def pid_file(self) -> Path:
        return self.directory / "docker.pid"

    @property
    def config(self) -> Path:
        return self.directory / "daemon.json"

    @property
    def log(self) -> Path:
        return self.directory / "dockerd.log"

    @property
    def lock(self) -> Path:
        return self.directory / "lock"

    @property
    def run(self) -> Path:
        """What must not survive a reboot: sockets, state of running containers, handles of network namespaces."""
        return Path("/run") / f"minicluster-{self.tag}"

    @property
    def bridge(self) -> str:
        return f"minicl-{self.tag}"  # 15 characters, the kernel's limit

    @property
    def chain(self) -> str:
        return f"MINICLUSTER-{self.tag}"

    @property
    def namespace(self) -> str:
        return f"minicluster-{self.tag}"

    @property
    def config_argument(self) -> str:
        """The argument that distinguishes our dockerd from every other process."""
        return f"--config-file={self.config}"


def find_process(layout: Layout, root: Path = Path("/")) -> int:
    """The process ID of this layout's dockerd; 0 where it does not run.

    A pid file may be missing, or left from before a crash or a reboot, and its ID may be another process's by now. So
    the process's arguments decide.
    """
    try:
        pid = int(layout.pid_file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        pid = 0
    if pid > 0 and is_ours(pid, layout, root):
        return pid
    return next((found for found, words in procfs.processes(root) if layout.config_argument in words), 0)


def is_ours(pid: int, layout: Layout, root: Path = Path("/")) -> bool:
    """Whether that process is this layout's dockerd, and runs (a zombie has no command line)."""
    return layout.config_argument in procfs.command_line(root / "proc" / str(pid))


def configuration(layout: Layout, system_config: Path = _SYSTEM_CONFIG) -> dict[str, Any]:
    """The content of our dockerd's ``daemon.json``, which it reads instead of the machine's own."""
    try:
        system = json.loads(system_config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        system = {}
    shared = {key: system[key] for key in _SHARED_SETTINGS if key in system} if isinstance(system, dict) else {}
    return {
        **shared,
        "hosts": [f"unix://{layout.socket}"],
        "data-root": str(layout.data),
        "exec-root": str(layout.run),
        "pidfile": str(layout.pid_file),
        "bridge": layout.bridge,
        "iptables": False,  # see minicluster.engine.private.bridge
        # No "default-address-pools", although networks created without a subnet then get one that our firewall rules
        # do not let out: with it, dockerd deletes the device docker0 at its second start, even if that is another
        # engine's (moby's initNetworkController, once it finds a bridge network of an earlier run).
        "log-driver": "json-file",
        "log-opts": {"max-size": "20m", "max-file": "2"},
    }


def tail(log: Path, lines: int = 15) -> str:
    """The end of dockerd's log: only warnings and errors where there are some, since one of them says why it ended."""
    try:
        text = log.read_bytes()[-65536:].decode("utf-8", "replace").splitlines()
    except OSError:
        return "(no log)"
    # dockerd prints its final error without a level.
    relevant = [line for line in text if "level=" not in line or re.search(r"level=(warn|err|fatal|panic)", line)]
    return "\n".join((relevant or text)[-lines:]) or "(the log is empty)"
