"""A client that keeps its socket reaches the pod that replaces another, by every way in."""

from __future__ import annotations

import contextlib
import socket
from functools import partial

import pytest

from tests.engine.conftest import eventually
from tests.engine.kubernetes.kube import AGENTS, DEMO, Kube, Space

SERVER = """
import os, socket, threading
name = os.uname()[1].encode() + b"\\n"
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", 9000))
tcp = socket.create_server(("", 9000))
def answer():
    while True:
        udp.sendto(name, udp.recvfrom(100)[1])
def talk(client):
    while client.recv(100):
        client.sendall(name)
threading.Thread(target=answer, daemon=True).start()
while True:
    threading.Thread(target=talk, args=(tcp.accept()[0],), daemon=True).start()
"""
HOST = {"usr": "/usr", "lib": "/usr/lib", "lib64": "/usr/lib64"}  # of the agent: it has a Python, the image has none


def deployment() -> dict[str, object]:
    main = {
        "name": "main",
        "image": DEMO,
        "command": ["/usr/bin/python3", "-ISc", SERVER],
        "ports": [{"containerPort": 9000, "protocol": "UDP", "hostPort": 5353}],
        "volumeMounts": [{"name": name, "mountPath": f"/{name}", "readOnly": True} for name in HOST],
    }
    spec = {
        "terminationGracePeriodSeconds": 1,
        "nodeName": AGENTS[0],
        "containers": [main],
        "volumes": [{"name": name, "hostPath": {"path": path}} for name, path in HOST.items()],
    }
    template = {"metadata": {"labels": {"app": "echo"}}, "spec": spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "echo"},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {"app": "echo"}},
            "template": template,
        },
    }


def service() -> dict[str, object]:
    ports = [{"name": protocol.lower(), "port": 9000, "protocol": protocol} for protocol in ("UDP", "TCP")]
    spec = {"type": "LoadBalancer", "selector": {"app": "echo"}, "ports": ports}
    return {"kind": "Service", "metadata": {"name": "echo"}, "spec": spec}


class Client:
    """A socket that is kept; a TCP connection that ends is made again, as clients do."""

    def __init__(self, kind: socket.SocketKind, address: str, port: int) -> None:
        self.kind, self.at = kind, (address, port)
        self.socket: socket.socket | None = None

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
        self.socket = None

    def reaches(self, pod: str) -> bool:
        return self.says() == pod

    def says(self) -> str:
        """Which pod answers; "" for none."""
        try:
            if self.socket is None:
                self.socket = socket.socket(socket.AF_INET, self.kind)
                self.socket.settimeout(1)
                self.socket.connect(self.at)
            self.socket.send(b"x")
            said = self.socket.recv(100).decode().split()
            if said:
                return said[-1]
            raise ConnectionResetError
        except TimeoutError:
            return ""
        except OSError:
            if self.kind is socket.SOCK_STREAM:
                self.close()
            return ""


@pytest.mark.long
def test_a_kept_socket_leads_to_the_new_pod(kube: Kube, space: Space) -> None:
    space.apply(deployment(), service())
    (first,) = space.several(1, "app=echo")

    def address() -> str:
        found = kube.core.read_namespaced_service("echo", space.name).status.load_balancer.ingress
        return str(found[0].ip) if found else ""

    balancer = str(eventually(address, what="an address"))
    ports = {port.protocol: port.node_port for port in kube.core.read_namespaced_service("echo", space.name).spec.ports}
    clients = [Client(socket.SOCK_DGRAM, kube.addresses[AGENTS[0]], 5353)]
    for protocol, kind in (("UDP", socket.SOCK_DGRAM), ("TCP", socket.SOCK_STREAM)):
        clients += [Client(kind, kube.addresses[agent], ports[protocol]) for agent in AGENTS]
        clients.append(Client(kind, balancer, 9000))
    with contextlib.ExitStack() as stack:
        for client in clients:
            stack.callback(client.close)
            eventually(partial(client.reaches, first.metadata.name), what=f"{first.metadata.name} at {client.at}")
        space.kubectl("delete", "pod", first.metadata.name)
        (second,) = space.several(1, "app=echo")
        assert second.metadata.name != first.metadata.name
        for client in clients:
            reached = partial(client.reaches, second.metadata.name)
            eventually(reached, within=20, what=f"{second.metadata.name} at {client.at}")
