"""Servers of Mesos and Marathon, which may want the cluster's secret of their clients."""

from __future__ import annotations

from binascii import b2a_base64

from http_api import Server

SECRET = "/etc/minicluster/mesos-secret"
PRINCIPAL = "minicluster"


def headers(path: str = SECRET) -> dict[str, str]:
    """What each request has: HTTP's basic authentication where the cluster has a secret."""
    try:
        with open(path) as file:
            secret = file.read().strip()
    except FileNotFoundError:
        return {}
    return {"Authorization": f"Basic {b2a_base64(f'{PRINCIPAL}:{secret}'.encode(), newline=False).decode()}"}


def server_at(address: str, port: int, timeout: float) -> Server:
    """A server at an address; see :class:`http_api.Server`."""
    return Server(address, port, headers=headers(), timeout=timeout)
