"""A client that keeps its socket reaches the pod that replaces another, by every way in."""

from __future__ import annotations

import contextlib
import socket

import pytest

from tests.engine.conftest import eventually
from tests.engine.kubernetes.kube import AGENTS, DEMO, Kube, Manifest, Space
from tests.engine.sockets import Kept

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM
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
PORTS = [
    {"name": protocol.lower(), "containerPort": 9000, "protocol": protocol, "hostPort": 5353}
    for protocol in ("UDP", "TCP")
]


def deployment() -> Manifest:
    main = {
        "name": "main",
        "image": DEMO,
        "command": ["/usr/bin/python3", "-ISc", SERVER],
        "ports": PORTS,
        "readinessProbe": {"tcpSocket": {"port": 9000}, "periodSeconds": 1},
        "volumeMounts": [{"name": name, "mountPath": f"/{name}", "readOnly": True} for name in HOST],
    }
    spec = {
        "terminationGracePeriodSeconds": 1,
        "nodeSelector": {"kubernetes.io/hostname": AGENTS[0]},  # not by nodeName: the host port must be free first
        "containers": [main],
        "volumes": [{"name": name, "hostPath": {"path": path}} for name, path in HOST.items()],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "echo"},
        "spec": {
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {"app": "echo"}},
            "template": {"metadata": {"labels": {"app": "echo"}}, "spec": spec},
        },
    }


def service() -> Manifest:
    ports = [{"name": protocol.lower(), "port": 9000, "protocol": protocol} for protocol in ("UDP", "TCP")]
    spec = {"type": "LoadBalancer", "selector": {"app": "echo"}, "ports": ports}
    return {"kind": "Service", "metadata": {"name": "echo"}, "spec": spec}


@pytest.mark.long
def test_a_kept_socket_leads_to_the_new_pod(kube: Kube, space: Space) -> None:
    space.apply(deployment(), service())
    (pod,) = space.several(1, "app=echo")

    def balancer() -> str:
        found = kube.core.read_namespaced_service("echo", space.name).status.load_balancer.ingress
        return str(found[0].ip) if found else ""

    address = str(eventually(balancer, what="an address"))
    spec = kube.core.read_namespaced_service("echo", space.name).spec
    pids = {
        agent: int(kube.shell.docker("inspect", "-f", "{{.State.Pid}}", f"{kube.cluster}-{agent}").out)
        for agent in AGENTS
    }
    clients = []
    for port in spec.ports:
        kind = UDP if port.protocol == "UDP" else TCP
        clients.append(Kept(kind, kube.addresses[AGENTS[0]], 5353))
        clients += [Kept(kind, kube.addresses[agent], port.node_port) for agent in AGENTS]
        clients += [Kept(kind, spec.cluster_ip, 9000, pid) for pid in pids.values()]
        clients += [Kept(kind, address, 9000), Kept(kind, address, 9000, pids[AGENTS[1]])]
    with contextlib.ExitStack() as stack:
        for client in clients:
            stack.callback(client.close)
            eventually(lambda it=client: it.says() == pod.metadata.name, what=f"{pod.metadata.name} by {client}")  # type: ignore[misc]
        for how in "delete pod", "rollout restart":
            was = pod.metadata.name
            kube_words = ("delete", "pod", was) if how == "delete pod" else ("rollout", "restart", "deployment/echo")
            space.kubectl(*kube_words)

            def replaced(was: str = was) -> bool:
                found = space.pods("app=echo")
                return len(found) == 1 and found[0].metadata.name != was

            eventually(replaced, what=f"another pod than {was}")
            (pod,) = space.several(1, "app=echo")
            for client in clients:
                new = pod.metadata.name
                eventually(lambda it=client, new=new: it.says() == new, within=10, what=f"{new} by {client}")  # type: ignore[misc]
