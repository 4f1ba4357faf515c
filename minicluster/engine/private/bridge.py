"""The private engine's place in this machine's network: a bridge device, and the few firewall rules it needs.

Two engines that both let Docker write the firewall rules do not live well together: each flushes Docker's chains when
it starts, and with them the other's published ports and isolation. So the private engine runs with ``iptables``
switched off, and has the rules that its containers need in a chain of its own, which no other engine touches. What
that costs: the clusters of the private engine can reach each other's addresses, and its other networks have no way out.
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
from collections.abc import Iterable
from ipaddress import IPv4Network
from pathlib import Path

from minicluster.errors import SubnetTaken

#: Where clusters live (the same as ``minicluster.profile.addressing.POOL``, which this package may not import).
POOL = IPv4Network("172.28.0.0/14")

#: Parts of the private address space to take the bridge's own /24 from, each from its end: clusters begin at the
#: other end of the first.
_RANGES = (POOL, IPv4Network("10.213.0.0/16"), IPv4Network("192.168.192.0/18"))

#: What the names of clusters' own bridge devices begin with: a rule can then be about what stays within one of them.
CLUSTERS = "mc-"

#: What engines name the bridge devices of networks that are made without a name for the device.
_NETWORKS = "br-"

# From linux/sockios.h: the calls that `brctl` and `ifconfig` make. No process needed, and no iproute2 installed.
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_SIOCGIFADDR, _SIOCSIFADDR = 0x8915, 0x8916
_SIOCGIFNETMASK, _SIOCSIFNETMASK = 0x891B, 0x891C
_SIOCBRADDBR, _SIOCBRDELBR = 0x89A0, 0x89A1
_IFF_UP = 1


def ensure(device: str, root: Path = Path("/")) -> IPv4Network:
    """Makes the bridge device with an address in a free subnet and sets it up; keeps it where it is there already.

    Returns:
        its subnet; the device has the first address.

    Raises:
        SubnetTaken: no subnet is free.
        OSError: the kernel refuses.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        if not exists(device):
            fcntl.ioctl(control, _SIOCBRADDBR, device.encode() + b"\0")
        subnet = _subnet_of(control, device)
        if subnet is None:
            subnet = choose_subnet(routes(root))
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


def routes(root: Path = Path("/"), *, but: Iterable[str] = ()) -> list[IPv4Network]:
    """The destinations of this machine's IPv4 routes; empty where they cannot be read.

    Default routes do not count, nor do those over the devices named in ``but``.
    """
    left_out = set(but)
    try:
        lines = (root / "proc/net/route").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return []
    found = []
    for line in lines:
        fields = line.split()
        if len(fields) < 8 or fields[0] in left_out:
            continue
        # Addresses are in hexadecimal, in this machine's byte order.
        address, mask = (struct.pack("=I", int(fields[column], 16)) for column in (1, 7))
        network = IPv4Network((address, _prefix(mask)), strict=False)
        if network.prefixlen:
            found.append(network)
    return found


def choose_subnet(taken: Iterable[IPv4Network]) -> IPv4Network:
    """A /24 for the bridge that overlaps with none of these. Raises ``SubnetTaken`` where there is none."""
    used = list(taken)
    for part in _RANGES:
        for subnet in reversed(list(part.subnets(new_prefix=24))):
            if not any(subnet.overlaps(other) for other in used):
                return subnet
    raise SubnetTaken(
        "no free subnet for the private engine's bridge",
        f"Routes of this machine cover {', '.join(str(part) for part in _RANGES)}.",
        "Remove networks that nobody uses, or use an engine that runs elsewhere (DOCKER_HOST).",
    )


def allow(chain: str, subnets: Iterable[IPv4Network]) -> str:
    """Lets containers in these subnets out to other networks, and talk to each other.

    What stays within a cluster's bridge may have any address, as what nodes pass on for containers of their own has.
    Such frames come by these rules as well where the kernel has bridge-nf-call-iptables switched on. The same holds for
    the other networks of an engine: what stays within the bridge of one passes, and nothing passes between two.

    The rules are appended: the machine's own come first, and keep the last word.

    Returns:
        "" or why it could not be done, as a sentence: clusters work without as long as they stay among themselves.
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
    # The match has the kernel load br_netfilter, which would send the frames of every bridge here by these rules: only
    # where it is loaded already. A rule of its own, since a kernel may lack the match and the others still hold.
    if not trouble and Path("/proc/sys/net/bridge").exists():
        within = ("-i", f"{_NETWORKS}+", "-m", "physdev", "--physdev-is-bridged")
        if not _iptables("-A", chain, *within, "-j", "ACCEPT"):
            return "iptables' match physdev cannot be had: containers reach each other on clusters' networks alone."
    return trouble


def name() -> str:
    """A name for the bridge device of a cluster, which no other has."""
    return f"{CLUSTERS}{secrets.token_hex(6)}"  # 15 characters, as many as the kernel takes


def forbid(chain: str) -> None:
    """Takes back what :func:`allow` did; no error where there is nothing."""
    for table, hook in (("filter", "FORWARD"), ("nat", "POSTROUTING")):
        if not _iptables("-t", table, "-S", chain):
            continue
        while _iptables("-t", table, "-D", hook, "-j", chain):
            pass  # a start that was cut off may have left more than one
        _iptables("-t", table, "-F", chain)
        _iptables("-t", table, "-X", chain)


def allowed(chain: str) -> bool:
    """Whether the rules of :func:`allow` are there."""
    return _iptables("-t", "filter", "-S", chain) and _iptables("-t", "nat", "-S", chain)


def system_path() -> str:
    """``PATH`` with the folders of system programs, which a user's often lacks."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(dict.fromkeys([*folders, "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"]))


def _prefix(mask: bytes) -> int:
    return int.from_bytes(mask, "big").bit_count()


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
    # -w: wait for another process that changes the rules, such as the other engine.
    return subprocess.run([program, "-w", "5", *arguments], capture_output=True, check=False).returncode == 0


def _restore(rules: list[str]) -> str:
    program = shutil.which("iptables-restore", path=system_path())
    if not program:
        return "iptables is not installed, so containers of the private engine reach no other network."
    text = "\n".join(rules) + "\n"
    done = subprocess.run([program, "-w", "5", "--noflush"], input=text, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    words = done.stderr.strip().splitlines()
    return f"Containers of the private engine may reach no other network: {words[-1] if words else 'iptables failed'}."
