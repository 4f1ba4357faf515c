"""The privileges of nested nodes, which run a container engine or a kubelet of their own.

A node gets what a real one has, so that what runs in it may ask for that: every capability, and access to every
device. ``--privileged`` would be shorter, but a container that asks for it cannot start where the engine's own bounding
set lacks one of the capabilities (CAP_SYS_RESOURCE in many sandboxes). So those that the engine has are named.

A nested node that is not privileged gets :data:`NESTED_CAPABILITIES` and no rule for devices: with MKNOD, a default
capability, such a rule would give access to the machine's disks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minicluster.engine.protocol import Job

#: Added to what the engine grants every container by default.
NESTED_CAPABILITIES: tuple[str, ...] = (
    "SYS_ADMIN",  # mounts, namespaces, control groups of the containers within
    "NET_ADMIN",  # bridges, routes, iptables, VXLAN, IPVS
    "SYS_PTRACE",  # runc inspects the process of a container that runs as another user, to start and to enter it
)

NESTED_SECURITY_OPT: tuple[str, ...] = (
    "seccomp=unconfined",  # the default profile forbids mount, unshare, keyctl, …, which runc calls
    "apparmor=unconfined",  # docker-default forbids mount
    "systempaths=unconfined",  # /proc/sys and the like writable: forwarding, conntrack limits, vm settings
    "label=disable",  # SELinux forbids mounts to containers
    "no-new-privileges=false",  # an engine may have it as its default: then no setuid program works in the node
)

#: Path -> mount options.
NESTED_TMPFS: Mapping[str, str] = {"/run": "", "/tmp": "exec"}

#: A control group namespace of its own: the node sees its control group as the root, as on a real machine.
NESTED_CGROUPNS = "private"

#: What a helper needs that enters the name spaces of other containers.
_ON_CONTAINERS = (
    "SYS_ADMIN",  # setns
    "SYS_PTRACE",  # /proc/PID/ns of processes with other capabilities
    "NET_ADMIN",  # packet filters and queues
)


def of_job(job: Job) -> dict[str, Any]:
    """What the API's HostConfig of a job has for its work."""
    mounted = [f"{volume}:{path}" for path, volume in job.volumes.items()]
    if job.on_disks:
        return {
            "NetworkMode": "none",
            "CapAdd": ["SYS_ADMIN"],  # loop devices, and mounts of them
            "SecurityOpt": ["apparmor=unconfined"],  # docker-default forbids mounts
            "DeviceCgroupRules": ["b 7:* rwm", "c 10:237 rwm"],  # they, and what hands them out
            "Binds": [*mounted, "/dev:/dev"],
        }
    if not job.on_containers:
        return {"Binds": mounted}
    return {
        "PidMode": "host",
        "CgroupnsMode": "host",
        "UsernsMode": "host",  # an engine that maps users refuses its processes otherwise
        # Another network takes the engine longer than all the rest: it runs itself again to set it up.
        "NetworkMode": f"container:{job.beside}" if job.beside else "none",
        "IpcMode": "none",
        "CapAdd": [*_ON_CONTAINERS],
        "SecurityOpt": ["apparmor=unconfined", "label=disable"],  # both forbid to look at other containers' processes
        "Binds": ["/sys/fs/cgroup:/sys/fs/cgroup:rw"],
    }


#: Every device, block or character; of a node that is privileged.
DEVICE_RULE = "a *:* rwm"

#: Tells the scripts of a node that is privileged to create what is in the machine's /dev.
PRIVILEGED_ENV = "MINICLUSTER_PRIVILEGED"

#: Ends what a privileged node has in the kernel that would outlive it: loop devices. Not every profile has it.
RELEASE = ("/usr/local/bin/minicluster-release",)

#: What the engine grants every container by default, which nested nodes need as well, and all others. With their bit
#: numbers in a capability set, from linux/capability.h.
_DEFAULTS = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "FOWNER": 3,
    "FSETID": 4,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "NET_BIND_SERVICE": 10,
    "NET_RAW": 13,
    "SYS_CHROOT": 18,
    "MKNOD": 27,
    "AUDIT_WRITE": 29,
    "SETFCAP": 31,
}
_OTHERS = {
    "DAC_READ_SEARCH": 2,
    "LINUX_IMMUTABLE": 9,
    "NET_BROADCAST": 11,
    "NET_ADMIN": 12,
    "IPC_LOCK": 14,
    "IPC_OWNER": 15,
    "SYS_MODULE": 16,
    "SYS_RAWIO": 17,
    "SYS_PTRACE": 19,
    "SYS_PACCT": 20,
    "SYS_ADMIN": 21,
    "SYS_BOOT": 22,
    "SYS_NICE": 23,
    "SYS_RESOURCE": 24,
    "SYS_TIME": 25,
    "SYS_TTY_CONFIG": 26,
    "LEASE": 28,
    "AUDIT_CONTROL": 30,
    "MAC_OVERRIDE": 32,
    "MAC_ADMIN": 33,
    "SYSLOG": 34,
    "WAKE_ALARM": 35,
    "BLOCK_SUSPEND": 36,
    "AUDIT_READ": 37,
    "PERFMON": 38,
    "BPF": 39,
    "CHECKPOINT_RESTORE": 40,
}


#: All capabilities: name -> bit number.
ALL: Mapping[str, int] = {**_DEFAULTS, **_OTHERS}


def named(bounding: int) -> list[str]:
    """The capabilities in a set."""
    return [name for name, bit in ALL.items() if bounding >> bit & 1]


def missing(bounding: int) -> list[str]:
    """The capabilities that a nested node needs and that a bounding set (``CapBnd`` of a process) lacks."""
    return [name for name in dict.fromkeys((*NESTED_CAPABILITIES, *_DEFAULTS)) if not bounding >> ALL[name] & 1]
