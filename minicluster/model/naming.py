"""Names of what minicluster makes on an engine, and values as users write and read them: strings out."""

from __future__ import annotations


def container_name(cluster: str, node: str) -> str:
    """The name of a node's container on the engine."""
    return f"{cluster}-{node}"


def network_name(cluster: str) -> str:
    """The name of a cluster's network on the engine."""
    return f"{cluster}-net"


def volume_name(cluster: str, node: str, path: str) -> str:
    """The name of the volume that a node has mounted at a path."""
    return f"{cluster}-{node}-{_in_a_name(path)}"


def shared_volume_name(cluster: str, path: str) -> str:
    """The name of the volume that nodes of a cluster share at a path."""
    return f"{cluster}-shared-{_in_a_name(path)}"


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


def value_text(value: object) -> str:
    """The value of a setting as YAML and the command line write it.

    >>> value_text(True), value_text(100)
    ('true', '100')
    """
    return str(value).lower() if isinstance(value, bool) else str(value)


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
