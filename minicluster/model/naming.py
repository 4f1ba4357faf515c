"""Names of what minicluster makes on an engine, and values as users write and read them: strings out."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from minicluster.errors import nearest

#: What names of clusters and of profiles look like.
NAME = re.compile(r"[a-z][a-z0-9-]{0,29}")
NAME_RULE = "at most 30 lower-case letters, digits and -, starting with a letter"

PART_CACHE = "minicluster-part-cache"  #: the volume with the compiler's caches


def is_name(text: str) -> bool:
    """Whether a text can be the name of a cluster or a profile."""
    return NAME.fullmatch(text) is not None


def derived_name(text: str, limit: int) -> str:
    """The name of a cluster, or its beginning, from any text such as the name of a folder.

    >>> derived_name("My Profile", 20), derived_name("3x", 20)
    ('my-profile', 'c3x')
    """
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:limit].rstrip("-")
    return name if name[:1].isalpha() else f"c{name}"


def container_name(cluster: str, node: str) -> str:
    """The name of a node's container on the engine."""
    return f"{cluster}-{node}"


def fault_name(cluster: str, number: str, host: str = "") -> str:
    """The name of the helper container that holds a fault; no node's container has a dot in its name.

    A fault of nodes on several hosts has a helper on each of them.
    """
    return f"{cluster}-fault.{_in_a_name(host)}.{number}" if host else f"{cluster}-fault.{number}"


def network_name(cluster: str) -> str:
    """The name of a cluster's network on the engine."""
    return f"{cluster}-net"


def volume_name(cluster: str, node: str, path: str) -> str:
    """The name of the volume that a node has mounted at a path."""
    return f"{cluster}-{node}-{_in_a_name(path)}"


def shared_volume_name(cluster: str, path: str) -> str:
    """The name of the volume that nodes of a cluster share at a path."""
    return f"{cluster}-shared-{_in_a_name(path)}"


def disk_volume_name(volume: str) -> str:
    """The name of the volume that has the file of a volume's file system; no path gives it."""
    return f"{volume}_disk"


def _in_a_name(path: str) -> str:
    """A path in the characters of a volume's name, ``[a-zA-Z0-9_.-]``; two paths never give the same.

    >>> _in_a_name("/var/lib/etcd"), _in_a_name("/a-b"), _in_a_name("/a/b"), _in_a_name("/x_y+")
    ('var-lib-etcd', 'a_-b', 'a-b', 'x__y_x2b')
    """
    return "".join(map(_character, path.strip("/")))


def _character(one: str) -> str:
    if one == "/":
        return "-"
    if one in "-_":
        return f"_{one}"
    if one == "." or (one.isascii() and one.isalnum()):
        return one
    return "".join(f"_x{byte:02x}" for byte in one.encode())


def count(number: int | str, noun: str) -> str:
    """A number, or a phrase such as "1 to 3", and its noun.

    >>> count(1, "node"), count(2, "node")
    ('1 node', '2 nodes')
    """
    return f"{number} {noun}{'' if str(number) == '1' else 's'}"


def listed(names: Iterable[str]) -> str:
    """Names of nodes for people, with four or more in sequence abbreviated.

    >>> listed(["agent-1", "agent-2", "agent-3", "agent-4", "agent-6", "master-1"])
    'agent-1..agent-4, agent-6, master-1'
    """
    runs: list[list[str]] = []
    for name in names:
        role, _, index = name.rpartition("-")
        if runs and index.isdecimal() and runs[-1][-1] == f"{role}-{int(index) - 1}":
            runs[-1].append(name)
        else:
            runs.append([name])
    return ", ".join(f"{run[0]}..{run[-1]}" if len(run) > 3 else ", ".join(run) for run in runs)


def nearest_node(word: str, known: Collection[str]) -> str:
    """The fix for a word that is no node: all nodes of that role, since the nearest name is one of them at random."""
    role, _, index = word.rpartition("-")
    names = [name for name in known if re.fullmatch(rf"{re.escape(role)}-[0-9]+", name)]
    if index.isdecimal() and names:
        return f"Available: {listed(sorted(names, key=lambda name: int(name[len(role) + 1 :])))}."
    return nearest(word, known)


def value_text(value: object) -> str:
    """The value of a setting as YAML and the command line write it.

    >>> value_text(True), value_text(100)
    ('true', '100')
    """
    return str(value).lower() if isinstance(value, bool) else str(value)


#: Escape sequences of terminals (CSI, OSC and the short ones), and control characters other than tab and newline.
_CONTROLS = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]|[\x00-\x08\x0b-\x1f\x7f]"
)


def printable(text: str) -> str:
    """A text of some program's without what would move a terminal's cursor or colour it.

    >>> printable("\\x1b[91mwarning\\x1b[0m: \\x1b[Kdone\\r")
    'warning: done'
    """
    return _CONTROLS.sub("", text)


def size(number: int | None) -> str:
    """Bytes in a readable unit: ``52 MiB``; ``-`` for none.

    >>> size(54525952), size(0), size(None)
    ('52 MiB', '0 B', '-')
    """
    if number is None:
        return "-"
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.1f} {unit}" if unit == "GiB" else f"{value:.0f} {unit}"
