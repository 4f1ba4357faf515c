"""The private engine's part of this machine's network: a bridge device, and the few firewall rules it needs.

Two engines that both let Docker write firewall rules disturb each other: each flushes Docker's chains when it starts,
and with them the other's published ports and isolation. So the private engine runs with ``iptables`` switched off, and
the rules that its containers need are in a chain of its own, which no other engine touches. The cost: clusters of the
private engine can reach each other's addresses, and its other networks cannot reach the outside.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import secrets
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network
from pathlib import Path

from minicluster.errors import SubnetTaken
from minicluster.host.procfs import routes
from minicluster.profile.addressing import POOL, PREFIX, without_overlap

#: Where the bridge's own subnet is taken from, the last of each range first: clusters take theirs from the start of the
#: first range.
_RANGES = (POOL, IPv4Network("10.213.0.0/16"), IPv4Network("192.168.192.0/18"))

#: Prefix of the names of clusters' bridge devices, by which a firewall rule can match all of them.
CLUSTERS = "mc-"

#: Prefix that engines give the bridge devices of networks which were created without a device name.
_NETWORKS = "br-"

# From linux/sockios.h: the calls that `brctl` and `ifconfig` make. They need neither a process nor iproute2.
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_SIOCGIFADDR, _SIOCSIFADDR = 0x8915, 0x8916
_SIOCGIFNETMASK, _SIOCSIFNETMASK = 0x891B, 0x891C
_SIOCBRADDBR, _SIOCBRDELBR = 0x89A0, 0x89A1
_IFF_UP = 1


def ensure(device: str, root: Path = Path("/")) -> IPv4Network:
    """Creates the bridge device with an address in a free subnet and sets it up; keeps one that exists.

    Returns:
        its subnet, whose first address the device has.

    Raises:
        SubnetTaken: no subnet is free.
        OSError: the kernel refuses.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        if not exists(device):
            fcntl.ioctl(control, _SIOCBRADDBR, device.encode() + b"\0")
        subnet = _subnet_of(control, device)
        if subnet is None:
            subnet = bridge_subnet(routes(root))
            _set_address(control, _SIOCSIFADDR, device, str(subnet[1]))
            _set_address(control, _SIOCSIFNETMASK, device, str(subnet.netmask))
        _set_flag(control, device, up=True)
        return subnet


def remove(device: str) -> None:
    """Removes a bridge device; no error where there is none. Raises ``OSError`` when the kernel refuses."""
    if not exists(device):
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        _set_flag(control, device, up=False)  # the kernel removes no bridge that is up
        fcntl.ioctl(control, _SIOCBRDELBR, device.encode() + b"\0")


def exists(device: str) -> bool:
    """Whether there is a network device of that name."""
    try:
        return bool(socket.if_nametoindex(device))
    except OSError:
        return False


def bridge_subnet(taken: Iterable[IPv4Network]) -> IPv4Network:
    """A subnet for the bridge that overlaps with none of these. Raises ``SubnetTaken`` where there is none."""
    free = next(without_overlap(_subnets(), taken), None)
    if free:
        return free
    raise SubnetTaken(
        "no free subnet for the private engine's bridge",
        f"Routes of this machine cover {', '.join(str(part) for part in _RANGES)}.",
        "Remove networks that are not used, or use an engine on another machine (DOCKER_HOST).",
    )


def _subnets() -> Iterator[IPv4Network]:
    return (subnet for part in _RANGES for subnet in reversed(list(part.subnets(new_prefix=PREFIX))))


def allow(chain: str, subnets: Iterable[IPv4Network]) -> str:
    """Lets containers in these subnets reach other networks, and each other.

    Traffic within a cluster's bridge may have any address, since nodes forward packets of their own containers. Where
    the kernel has bridge-nf-call-iptables switched on, such frames pass through these rules as well. Likewise for the
    engine's other networks: traffic within one bridge passes, and none passes between two.

    The rules are appended, so that the machine's own rules come first and decide.

    Returns:
        "" or, as a sentence, why it failed; without the rules, clusters still work internally.
    """
    forbid(chain)
    filters, nats = [f"-A {chain} -i {CLUSTERS}+ -o {CLUSTERS}+ -j ACCEPT"], []
    for subnet in subnets:
        filters.append(f"-A {chain} -s {subnet} -j ACCEPT")
        filters.append(f"-A {chain} -d {subnet} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
        # Between clusters, and towards this machine itself, containers keep their own address.
        elsewhere = f"! -d {POOL} ! -o {CLUSTERS}+"
        nats.append(f"-A {chain} -s {subnet} {elsewhere} -m addrtype ! --dst-type LOCAL -j MASQUERADE")
    rules = [
        "*filter", f":{chain} - [0:0]", f"-A FORWARD -j {chain}", *filters, "COMMIT",
        "*nat", f":{chain} - [0:0]", f"-A POSTROUTING -j {chain}", *nats, "COMMIT",
    ]  # fmt: skip
    trouble = _restore(rules)
    # The match makes the kernel load br_netfilter, which passes the frames of every bridge through iptables: so it is
    # used only where that is loaded already. Added separately, since a kernel without the match must get the others.
    if not trouble and Path("/proc/sys/net/bridge").exists():
        within = ("-i", f"{_NETWORKS}+", "-m", "physdev", "--physdev-is-bridged")
        if not _iptables("-A", chain, *within, "-j", "ACCEPT"):
            return "iptables' match physdev is not available: containers reach each other on clusters' networks only."
    return trouble


def name() -> str:
    """A new, unique name for the bridge device of a cluster."""
    return f"{CLUSTERS}{secrets.token_hex(6)}"  # 15 characters, the kernel's limit


def forbid(chain: str) -> None:
    """Removes the rules of :func:`allow`; no error where there are none."""
    for table, hook in (("filter", "FORWARD"), ("nat", "POSTROUTING")):
        if not _iptables("-t", table, "-S", chain):
            continue
        while _iptables("-t", table, "-D", hook, "-j", chain):
            pass  # an interrupted start may have left several
        _iptables("-t", table, "-F", chain)
        _iptables("-t", table, "-X", chain)


def allowed(chain: str) -> bool:
    """Whether the rules of :func:`allow` exist."""
    return _iptables("-t", "filter", "-S", chain) and _iptables("-t", "nat", "-S", chain)


def system_path() -> str:
    """``PATH`` with the folders of system programs, which a user's often lacks."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(dict.fromkeys([*folders, "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"]))


def _request(device: str, payload: bytes = b"") -> bytes:
    """A ``struct ifreq``: 16 bytes of name, then a union of up to 24."""
    return struct.pack("16s24s", device.encode(), payload)


def _set_address(control: socket.socket, call: int, device: str, address: str) -> None:
    payload = struct.pack("=HH4s", socket.AF_INET, 0, socket.inet_aton(address))
    fcntl.ioctl(control, call, _request(device, payload))


def _get_address(control: socket.socket, call: int, device: str) -> str | None:
    try:
        answer = fcntl.ioctl(control, call, _request(device))
    except OSError:
        return None  # the device has no address yet
    return socket.inet_ntoa(answer[20:24])


def _subnet_of(control: socket.socket, device: str) -> IPv4Network | None:
    address = _get_address(control, _SIOCGIFADDR, device)
    mask = _get_address(control, _SIOCGIFNETMASK, device)
    return ipaddress.IPv4Network(f"{address}/{mask}", strict=False) if address and mask else None


def _set_flag(control: socket.socket, device: str, *, up: bool) -> None:
    (flags,) = struct.unpack_from("=H", fcntl.ioctl(control, _SIOCGIFFLAGS, _request(device)), 16)
    flags = flags | _IFF_UP if up else flags & ~_IFF_UP
    fcntl.ioctl(control, _SIOCSIFFLAGS, _request(device, struct.pack("=H", flags)))


def _iptables(*arguments: str) -> bool:
    program = shutil.which("iptables", path=system_path())
    if not program:
        return False
    # -w: wait while another process, such as the other engine, changes the rules.
    return subprocess.run([program, "-w", "5", *arguments], capture_output=True, check=False).returncode == 0


def _restore(rules: list[str]) -> str:
    program = shutil.which("iptables-restore", path=system_path())
    if not program:
        return "iptables is not installed, so containers of the private engine cannot reach other networks."
    text = "\n".join(rules) + "\n"
    done = subprocess.run([program, "-w", "5", "--noflush"], input=text, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    words = done.stderr.strip().splitlines()
    reason = words[-1] if words else "iptables failed"
    return f"Containers of the private engine may be unable to reach other networks: {reason}."
