"""Conformance: Services of type LoadBalancer."""

from __future__ import annotations

import json
import socket
import time

import pytest

from tests.engine.conftest import eventually
from tests.engine.kubernetes.kube import AGENTS, Kube, Space, conformance, container, get, pod, service, workload
from tests.engine.kubernetes.network import address, announced_by, asks, reasons

pytestmark = pytest.mark.long  # the core of it is in test_network.py


def resolved(server: str, name: str) -> str:
    """The address of a name, asked by UDP; empty without an answer."""
    query = b"".join(bytes([len(part)]) + part for part in name.encode().split(b".")) + b"\0\0\1\0\1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(1)
        try:
            asking.sendto(b"mc\1\0\0\1\0\0\0\0\0\0" + query, (server, 53))
            return socket.inet_ntoa(asking.recv(512)[-4:])
        except OSError:
            return ""


@conformance("Load balancers", "UDP and TCP ports at one address")
def test_udp(kube: Kube) -> None:
    system = Space(kube, "kube-system")
    made = service("names", type="LoadBalancer")
    made["spec"]["selector"] = {"k8s-app": "kube-dns"}
    made["spec"]["ports"] = [{"name": name, "port": 53, "protocol": name.upper()} for name in ("udp", "tcp")]
    try:
        system.create(made)
        ip = eventually(lambda: address(system, "names"))
        wanted = kube.core.read_namespaced_service("kubernetes", "default").spec.cluster_ip
        eventually(lambda: resolved(ip, "kubernetes.default.svc.cluster.local") == wanted, what="its answer by UDP")
        socket.create_connection((ip, 53), timeout=5).close()
    finally:
        kube.core.delete_namespaced_service("names", "kube-system")


@conformance("Load balancers", "externalTrafficPolicy Local: pods see who asks, and the address is where a pod is")
def test_local(kube: Kube, space: Space) -> None:
    script = "mkdir /tmp/w; hostname >/tmp/w/index.html; exec httpd -f -v -h /tmp/w 2>&1"
    web = {"name": "main", "image": "localhost/minicluster/demo:1", "command": ["sh", "-c", script]}
    space.create(pod("one", web, nodeName="agent-1", labels={"app": "web"}))
    space.create(service("web", type="LoadBalancer", externalTrafficPolicy="Local"))
    space.ready("one")
    ip = eventually(lambda: address(space, "web"))
    eventually(lambda: announced_by(kube, ip) == "agent-1", what="it is at agent-1")
    assert eventually(lambda: get(f"http://{ip}/index.html")) == "one"
    gateway = kube.addresses["agent-1"].rpartition(".")[0] + ".1"
    eventually(lambda: f"{gateway}]" in space.log("one"), what="this machine's address in its log")
    space.create(pod("two", web, nodeName="agent-2", labels={"app": "web"}))
    space.ready("two")
    kube.core.delete_namespaced_pod("one", space.name)
    eventually(lambda: announced_by(kube, ip) == "agent-2", what="it follows to agent-2")
    assert eventually(lambda: get(f"http://{ip}/index.html")) == "two"


@conformance("Load balancers", "loadBalancerSourceRanges: others are not answered")
def test_source_ranges(kube: Kube, space: Space) -> None:
    allowed = [f"{kube.addresses['master-1']}/32"]
    space.create(pod("web"), service("web", type="LoadBalancer", loadBalancerSourceRanges=allowed))
    space.ready("web")
    ip = eventually(lambda: address(space, "web"))
    assert eventually(lambda: asks(kube, "master-1", f"http://{ip}/")) == "web"
    assert get(f"http://{ip}/") == ""


@conformance("Load balancers", "an address that is asked for; none left is an event, until another Service is deleted")
def test_used_up(kube: Kube, space: Space) -> None:
    network = kube.addresses["agent-1"].rpartition(".")[0]
    last, outside = f"{network}.223", f"{network}.7"
    space.create(service("asked", type="LoadBalancer", loadBalancerIP=last))
    space.create(service("outside", type="LoadBalancer", loadBalancerIP=outside))
    eventually(lambda: address(space, "asked") == last)
    wanted = f"the address {outside} is not one for load balancers: choose one of {network}.192 to {network}.223"
    eventually(lambda: reasons(space, "outside").get("AllocationFailed") == wanted)
    space.create(*(service(f"many-{number}", type="LoadBalancer") for number in range(32)))

    def pending() -> list[str]:
        return [name for name in (f"many-{number}" for number in range(32)) if not address(space, name)]

    (left,) = eventually(lambda: found if len(found := pending()) == 1 else None)
    said = f"all 32 addresses of {network}.192 to {last} are in use: delete a Service of type LoadBalancer"
    eventually(lambda: reasons(space, left).get("AllocationFailed") == said)
    kube.core.delete_namespaced_service("asked", space.name)
    eventually(lambda: address(space, left) == last, what="it gets the one that is free again")


@conformance("Load balancers", "another agent takes an address over when its agent dies")
def test_an_agent_dies(kube: Kube, space: Space) -> None:
    template = pod("web", tolerations=[{"operator": "Exists"}])
    space.create(workload("DaemonSet", "web", template), service("web", type="LoadBalancer"))
    space.several(2, "app=web")
    ip = eventually(lambda: address(space, "web"))
    before = eventually(lambda: announced_by(kube, ip))
    (other,) = set(AGENTS) - {before}
    eventually(lambda: get(f"http://{ip}/"))
    cluster = kube.cluster
    try:
        begun = time.monotonic()
        kube.shell.docker("kill", f"{cluster}-{before}")
        eventually(lambda: announced_by(kube, ip) == other, pause=0.05)
        moved = time.monotonic() - begun
        eventually(lambda: get(f"http://{ip}/", timeout=0.5), pause=0.05)
        answered = time.monotonic() - begun
        print(f"{ip} moved after {moved:.1f} s, the first answer came after {answered:.1f} s")
    finally:
        kube.shell.minicluster("start", "--cluster", cluster)
    space.several(2, "app=web")
    assert announced_by(kube, ip) == other  # it does not go back by itself


@conformance("Load balancers", "addresses outlive the controller, the agents' part of it, and a restart of an agent")
def test_its_parts_are_killed(kube: Kube, space: Space) -> None:
    space.create(pod("web", nodeName="agent-1"), service("web", type="LoadBalancer"))
    space.ready("web")
    ip = eventually(lambda: address(space, "web"))
    eventually(lambda: get(f"http://{ip}/") == "web")

    def kill(node: str, program: str) -> None:
        kube.shell.docker("exec", f"{kube.cluster}-{node}", "pkill", "-9", "-f", f"/usr/local/bin/{program}$")

    kill("master-1", "kube-load-balancer")
    for agent in AGENTS:
        kill(agent, "kube-announce")
    assert get(f"http://{ip}/") == "web"
    space.create(service("second", selects="web", type="LoadBalancer"))
    second = eventually(lambda: address(space, "second"))
    eventually(lambda: get(f"http://{second}/") == "web")
    assert address(space, "web") == ip
    kube.shell.minicluster("restart", "agent-1", "--cluster", kube.cluster)
    space.ready("web")
    eventually(lambda: get(f"http://{ip}/") == get(f"http://{second}/") == "web")


@conformance(
    "Load balancers", "what ingress controllers expect: the label ingress-ready, host ports, a LoadBalancer address"
)
def test_ingress_controllers(kube: Kube, space: Space) -> None:
    ports = [
        {"name": name, "containerPort": port, "hostPort": port} for name, port in (("web", 80), ("websecure", 443))
    ]
    controller = pod("controller", container(ports=ports), nodeSelector={"ingress-ready": "true"})
    space.create(
        workload("Deployment", "controller", controller),
        service("controller", type="LoadBalancer", externalTrafficPolicy="Local"),
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IngressClass",
            "metadata": {"name": space.name},
            "spec": {"controller": "example.org/stand-in"},
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": "web"},
            "spec": {
                "ingressClassName": space.name,
                "defaultBackend": {"service": {"name": "web", "port": {"number": 80}}},
            },
        },
    )
    (found,) = space.several(1, "app=controller")
    assert found.spec.node_name == "agent-1"  # --port agent:80=8080 publishes its port 80 as 8080
    assert eventually(lambda: get(f"http://{kube.addresses['agent-1']}/")) == found.metadata.name
    ip = eventually(lambda: address(space, "controller"))
    assert eventually(lambda: get(f"http://{ip}/")) == found.metadata.name
    assert announced_by(kube, ip) == "agent-1"
    # A controller tells by its Ingresses' status where they are reached.
    status = {"status": {"loadBalancer": {"ingress": [{"ip": ip}]}}}
    space.kubectl(
        "patch", "ingress", "web", "--subresource", "status", "--type", "merge", "--patch", json.dumps(status)
    )
    assert ip in space.kubectl("get", "ingress", "web").out
    space.kubectl("delete", "ingressclass", space.name)
