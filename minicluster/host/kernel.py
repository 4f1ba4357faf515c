"""What this machine's kernel offers: features, named as their modules are, and limits that all nodes share."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from minicluster.host.procfs import read

ROOT = Path("/")

_CGROUP_V1 = "cgroup_v1_"


@dataclass(frozen=True)
class Feature:
    """How to find out whether a kernel has a feature."""

    option: str  #: of the kernel's build
    files: tuple[str, ...] = ()  #: files below / that exist only where it is loaded or built in
    trial: tuple[str, ...] = ()  #: a command that works only with it, in a network name space of its own; as root


#: Every feature that something here asks for.
FEATURES = {
    "ip_vs": Feature("CONFIG_IP_VS", ("proc/net/ip_vs",)),
    "overlay": Feature("CONFIG_OVERLAY_FS"),
    "fuse": Feature("CONFIG_FUSE_FS"),
    "vxlan": Feature(
        "CONFIG_VXLAN", trial=("ip", "link", "add", "vxlan0", "type", "vxlan", "id", "1", "dstport", "4789")
    ),
    "esp4": Feature(
        "CONFIG_INET_ESP",
        trial=tuple(  # as Docker's encrypted overlays have it
            "ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1000 mode transport "
            f"aead rfc4106(gcm(aes)) 0x{'00' * 20} 64".split()
        ),
    ),
    "br_netfilter": Feature("CONFIG_BRIDGE_NETFILTER", ("proc/sys/net/bridge/bridge-nf-call-iptables",)),
    "macvlan": Feature("CONFIG_MACVLAN"),
    "ipvlan": Feature("CONFIG_IPVLAN"),
    "tun": Feature("CONFIG_TUN", ("dev/net/tun",)),
    "xt_set": Feature("CONFIG_NETFILTER_XT_SET"),
    "xt_recent": Feature("CONFIG_NETFILTER_XT_MATCH_RECENT", ("proc/net/xt_recent",)),
    "xt_statistic": Feature("CONFIG_NETFILTER_XT_MATCH_STATISTIC"),
    "nf_tables": Feature("CONFIG_NF_TABLES"),
    "sch_htb": Feature("CONFIG_NET_SCH_HTB"),
    "sch_netem": Feature(
        "CONFIG_NET_SCH_NETEM", trial=("tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms")
    ),
}


@dataclass(frozen=True)
class Limit:
    """A setting of the kernel that counts for all nodes together."""

    per_node: int  #: what a nested node takes of it
    wanted: int  #: a value that is enough for as many nodes as a machine bears
    error: str  #: what programs report when it is reached


#: Numbers of files watched: what kind recommends (https://kind.sigs.k8s.io/docs/user/known-issues/), for the same
#: reason: every container's shim, kubelet and systemd watch files, and all count for one user, since nodes share the
#: machine's root. A node with a kubelet takes several instances, and so do its containers; a Swarm node takes none.
LIMITS = {
    "fs.inotify.max_user_instances": Limit(8, 512, "too many open files"),
    "fs.inotify.max_user_watches": Limit(512, 524288, "no space left on device"),
    # One table for all name spaces: a node talks to other nodes, to pods on them, and to the gateway.
    "net.ipv4.neigh.default.gc_thresh3": Limit(16, 1024, "neighbour table overflow, no route to host"),
    # A nested node with some containers has about 300 threads.
    "kernel.pid_max": Limit(300, 32768, "resource temporarily unavailable"),
    "kernel.threads-max": Limit(300, 32768, "resource temporarily unavailable"),
}

#: What "minicluster fault" needs, whatever the profile, and what does not work without it.
FAULTS = {
    "nf_tables": "this kernel has no nf_tables: faults partition, loss and dns do not work",
    "sch_htb": "this kernel has no sch_htb: fault rate does not work",
    "sch_netem": "this kernel has no sch_netem: faults delay and reorder do not work",
}


def has(name: str, root: Path = ROOT) -> bool | None:
    """Whether the kernel has a feature: loaded, built in, or loadable. None: nothing here tells.

    ``cgroup_v1_NAME`` is a controller that is in use in the first version of control groups.
    """
    if name.startswith(_CGROUP_V1):
        rows = [line.split() for line in read(root / "proc/cgroups").splitlines()]
        return any(row[0] == name.removeprefix(_CGROUP_V1) and row[1] != "0" for row in rows if len(row) > 1)
    feature = FEATURES.get(name) or Feature("")
    if (root / "sys/module" / name).exists() or any((root / file).exists() for file in feature.files):
        return True
    if name in read(root / "proc/filesystems").split():
        return True
    listed = _listed(name, root)
    if listed is not None:
        return listed
    # Without a list of modules the configuration tells what is built in. A module may be on the machine, though not in
    # the container that this process runs in.
    return {"y": True, "n": False}.get(_option(feature.option, root))


def tried(name: str) -> bool | None:
    """Whether what needs a feature works, tried in a network name space of its own; None: that cannot be tried."""
    trial = FEATURES[name].trial if name in FEATURES else ()
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    programs = [shutil.which(program, path=path) for program in ("unshare", *trial[:1])]
    if not trial or os.geteuid() != 0 or None in programs:
        return None
    words = [str(programs[0]), "--net", str(programs[1]), *trial[1:]]
    try:
        return subprocess.run(words, capture_output=True, timeout=2, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return None


def value(setting: str, root: Path = ROOT) -> int | None:
    """The value of a setting (``sysctl``) that is a number; None where it cannot be read."""
    try:
        return int(read(root / "proc/sys" / setting.replace(".", "/")))
    except ValueError:
        return None


def limits(root: Path = ROOT) -> dict[str, int]:
    """The values of those LIMITS that can be read."""
    values = {name: value(name, root) for name in LIMITS}
    return {name: now for name, now in values.items() if now is not None}


def enough_for(name: str, now: int) -> str:
    """For how many nested nodes the value of one of LIMITS is enough, and what is reported with more of them."""
    nodes = max(1, now // LIMITS[name].per_node)
    return (
        f"{name} = {now} is enough for about {nodes} nested node{'' if nodes == 1 else 's'}: "
        f'with more, some may fail with "{LIMITS[name].error}"'
    )


def _listed(name: str, root: Path) -> bool | None:
    """Whether a module is in the lists of those that are built in or can be loaded; None where there are no lists."""
    # The files list paths such as kernel/fs/overlayfs/overlay.ko.xz; some names have - where the kernel has _.
    wanted = {f"{name}.ko", f"{name.replace('_', '-')}.ko"}
    folder, there = root / "lib/modules" / platform.release(), False
    for listing in ("modules.builtin", "modules.dep"):
        with suppress(OSError), (folder / listing).open(encoding="utf-8") as lines:
            for line in lines:
                there = True
                file = line.partition(":")[0].rstrip().rpartition("/")[2]
                if file.partition(".ko")[0] + ".ko" in wanted:
                    return True
    return False if there else None


def _option(name: str, root: Path) -> str:
    """An option of the kernel's build: y, m, n, or "" where its configuration cannot be read."""
    release = platform.release()
    text = ""
    if not name:
        return ""
    with suppress(OSError, zlib.error):
        text = zlib.decompress((root / "proc/config.gz").read_bytes(), zlib.MAX_WBITS | 16).decode()
    text = text or read(root / f"boot/config-{release}") or read(root / "lib/modules" / release / "config")
    if not text:
        return ""
    return next((line[len(name) + 1 :] for line in text.splitlines() if line.startswith(f"{name}=")), "n")
