"""Conformance: the pod network, services and their names."""

from __future__ import annotations

import concurrent.futures
import re
import socket
import time
from collections import Counter

import pytest

from tests.engine.conftest import eventually
from tests.engine.kubernetes.kube import (
    AGENTS,
    HOLD,
    Kube,
    Space,
    conformance,
    container,
    get,
    pod,
    readiness,
    service,
    workload,
)
from tests.engine.kubernetes.network import address, announced_by, asks, policy, reaches, reasons

# --- pods


@conformance("Network", "pods on different agents reach each other by address, each seen with its own source address")
def test_pods_reach_each_other(asking: Space, space: Space) -> None:
    said = container("mkdir /tmp/w; echo hello >/tmp/w/index.html; exec httpd -f -v -h /tmp/w 2>&1")
    space.create(*(pod(f"web-{name}", said, nodeName=name) for name in AGENTS))
    web = dict(zip(AGENTS, space.ready(*(f"web-{name}" for name in AGENTS)), strict=True))
    for here, there in (AGENTS, reversed(AGENTS)):
        script = f"timeout 5 wget -q -O - http://{web[there].status.pod_ip}/index.html"
        assert eventually(lambda here=here, script=script: asking.run(here, script, ok=False)) == "hello"
        source = asking.pod(here).status.pod_ip
        eventually(lambda there=there, source=source: f"{source}]" in space.log(f"web-{there}"), what=source)


@conformance("Network", "hostPort and hostNetwork: a pod answers at its agent's address")
def test_ports_of_the_node(kube: Kube, space: Space) -> None:
    one, two = AGENTS
    space.create(
        pod("port", container(ports=[{"containerPort": 80, "hostPort": 8081}]), nodeName=one),
        pod("net", container(env=[{"name": "PORT", "value": "8082"}]), hostNetwork=True, nodeName=two),
    )
    space.ready("port", "net")
    assert space.pod("net").status.pod_ip == kube.addresses[two]
    assert eventually(lambda: get(f"http://{kube.addresses[one]}:8081/")) == "port"
    assert eventually(lambda: get(f"http://{kube.addresses[two]}:8082/")) == two


@conformance("Network", "a pod reaches itself through its own service")
def test_hairpin(space: Space) -> None:
    space.create(pod("web"), service("web"))
    space.ready("web")
    assert eventually(lambda: space.run("web", "timeout 2 wget -q -O - http://web/", ok=False)) == "web"


# --- services and names


ASKS = "for i in $(seq {times}); do timeout 5 wget -q -O - http://{host}/; done"


@conformance("Services", "a ClusterIP, by name from another namespace, balances requests over all ready pods")
def test_cluster_ip(asking: Space, space: Space) -> None:
    space.create(workload("Deployment", "web", pod("web", container(**readiness())), replicas=3), service("web"))
    names = {pod.metadata.name for pod in space.several(3, "app=web")}
    eventually(lambda: space.endpoints("web") == names, what="all three are endpoints")
    for agent in AGENTS:
        script = ASKS.format(times=40, host=f"web.{space.name}")
        eventually(lambda agent=agent, script=script: set(asking.run(agent, script, ok=False).split()) == names)


@conformance("Services", "session affinity: the same client reaches the same pod")
def test_session_affinity(asking: Space, space: Space) -> None:
    space.create(
        workload("Deployment", "web", pod("web", container(**readiness())), replicas=3),
        service("web", sessionAffinity="ClientIP"),
    )
    space.several(3, "app=web")
    eventually(lambda: len(space.endpoints("web")) == 3)

    def always_one() -> bool:
        said = asking.run("agent-1", ASKS.format(times=20, host=f"web.{space.name}"), ok=False).split()
        return len(said) == 20 and len(set(said)) == 1

    eventually(always_one, what="one pod answers every request")


@conformance("Services", "endpoints follow readiness: pods that are not ready get no requests")
def test_endpoints_follow_readiness(asking: Space, space: Space) -> None:
    probe = container(**readiness(exec={"command": ["test", "-e", "/tmp/ready"]}))
    space.create(pod("web", probe), pod("other", labels={"app": "web"}), service("web"))
    space.ready("other")
    ask = ASKS.format(times=15, host=f"web.{space.name}")
    eventually(lambda: space.endpoints("web") == {"other"})
    eventually(lambda: set(asking.run("agent-1", ask, ok=False).split()) == {"other"})
    space.run("web", "touch /tmp/ready")
    eventually(lambda: space.endpoints("web") == {"other", "web"}, what="ready: it is an endpoint")
    eventually(lambda: set(asking.run("agent-1", ask, ok=False).split()) == {"other", "web"})
    space.run("web", "rm /tmp/ready")
    eventually(lambda: space.endpoints("web") == {"other"}, what="not ready: it is no endpoint")
    eventually(lambda: asking.run("agent-1", ask, ok=False).split() == ["other"] * 15)


@conformance("Services", "a NodePort answers at every agent's address, from this machine")
def test_node_port(kube: Kube, space: Space) -> None:
    made = space.create(pod("web"), service("web", type="NodePort"))
    space.ready("web")
    port = made.spec.ports[0].nodePort
    for agent in AGENTS:
        assert eventually(lambda agent=agent: get(f"http://{kube.addresses[agent]}:{port}/")) == "web"


@conformance("Services", "without a selector: requests go to the Endpoints given by hand")
def test_endpoints_by_hand(asking: Space, space: Space) -> None:
    space.create(pod("web"))
    (web,) = space.ready("web")
    made = service("by-hand", 8000)
    del made["spec"]["selector"]
    subset = {"addresses": [{"ip": web.status.pod_ip}], "ports": [{"name": "http", "port": 80}]}
    space.create(made, {"kind": "Endpoints", "metadata": {"name": "by-hand"}, "subsets": [subset]})
    script = f"timeout 2 wget -q -O - http://by-hand.{space.name}:8000/"
    assert eventually(lambda: asking.run("agent-1", script, ok=False)) == "web"


@conformance("Names", "headless services: all pods' addresses, and a name for each pod of a StatefulSet")
def test_headless(asking: Space, space: Space) -> None:
    space.create(
        workload("StatefulSet", "web", pod("web"), replicas=2, serviceName="web", podManagementPolicy="Parallel"),
        service("web", clusterIP="None"),
    )
    found = {pod.metadata.name: pod.status.pod_ip for pod in space.several(2, "app=web")}
    assert set(found) == {"web-0", "web-1"}
    for name in found:
        script = f"timeout 2 wget -q -O - http://{name}.web.{space.name}.svc/"
        assert eventually(lambda script=script: asking.run("agent-2", script, ok=False)) == name
    eventually(lambda: addresses(asking, f"web.{space.name}.svc.cluster.local") == set(found.values()))


@conformance("Names", "SRV records of named ports; names of ClusterIPs, both ways")
def test_records(asking: Space, space: Space) -> None:
    made = space.create(service("web", 8000))
    full = f"web.{space.name}.svc.cluster.local"
    eventually(lambda: addresses(asking, full) == {made.spec.clusterIP})
    eventually(
        lambda: f"0 100 8000 {full}" in asking.run("agent-1", f"nslookup -type=srv _http._tcp.{full}", ok=False),
        what="its SRV record",
    )
    assert full in asking.run("agent-1", f"nslookup {made.spec.clusterIP}", ok=False)


@conformance("Names", "a SRV record for each pod of a headless service, A records of pods, `dns-version`")
def test_records_of_pods(asking: Space, space: Space) -> None:
    headless = service("web", clusterIP="None")
    space.create(workload("StatefulSet", "web", pod("web"), replicas=2, serviceName="web"), headless)
    found = {pod.metadata.name: pod.status.pod_ip for pod in space.several(2, "app=web")}
    full = f"web.{space.name}.svc.cluster.local"
    wanted = {f"0 50 80 {name}.{full}" for name in found}
    srv = f"nslookup -type=srv _http._tcp.{full}"
    eventually(lambda: set(re.findall(r"service = (.+)", asking.run("agent-1", srv, ok=False))) == wanted)
    address = found["web-1"]
    assert addresses(asking, f"{address.replace('.', '-')}.{space.name}.pod.cluster.local") == {address}
    assert "1.1.0" in asking.run("agent-1", "nslookup -type=txt dns-version.cluster.local")


@conformance("Names", "ExternalName: an alias of a name outside the cluster, followed")
def test_external_name(kube: Kube, asking: Space, space: Space) -> None:
    outside = f"{kube.cluster}-master-1"
    space.create(
        {"kind": "Service", "metadata": {"name": "ext"}, "spec": {"type": "ExternalName", "externalName": outside}}
    )
    full = f"ext.{space.name}.svc.cluster.local"
    eventually(lambda: addresses(asking, full) == {kube.addresses["master-1"]})
    assert f"canonical name = {outside}" in asking.run("agent-1", f"nslookup {full}", ok=False)


@conformance("Names", "the service kube-dns in kube-system; reverse names of other addresses are forwarded")
def test_names_around_the_cluster(kube: Kube, asking: Space) -> None:
    server = kube.core.read_namespaced_service("kube-dns", "kube-system").spec.cluster_ip
    assert addresses(asking, "kube-dns.kube-system.svc.cluster.local") == {server}
    assert f"nameserver {server}" in asking.run("agent-1", "cat /etc/resolv.conf")
    # Asked backwards, CoreDNS passes on what is not in the cluster, and it is the engine that knows no such name.
    said = asking.run("agent-1", "nslookup 10.200.3.4", ok=False)
    assert "can't find 4.3.200.10.in-addr.arpa" in said
    backwards = asking.run("agent-1", f"nslookup {kube.addresses['agent-2']} 169.254.20.53", ok=False)
    assert f"{kube.cluster}-agent-2" in backwards


@conformance("Names", "search domains and name servers of the node reach pods")
def test_search_domains(kube: Kube, space: Space) -> None:
    node, file = f"{kube.cluster}-agent-1", "/etc/kubernetes/resolv.conf"
    kube.shell.docker("exec", node, "sh", "-c", f"cp {file} /tmp/kept; echo search corp.example >>{file}")
    try:
        own = pod("own", nodeName="agent-1", dnsPolicy="Default")
        space.create(pod("usual", nodeName="agent-1"), own)
        space.ready("usual", "own")
    finally:
        kube.shell.docker("exec", node, "cp", "/tmp/kept", file)
    assert "svc.cluster.local cluster.local corp.example" in space.run("usual", "cat /etc/resolv.conf")
    assert "search corp.example" in space.run("own", "cat /etc/resolv.conf")
    assert addresses(space, f"{kube.cluster}-master-1.", "own") == {kube.addresses["master-1"]}


@pytest.mark.long
@conformance("Names", "a stub domain in the ConfigMap coredns is served once CoreDNS has read it")
def test_stub_domain(kube: Kube, asking: Space) -> None:
    config = kube.core.read_namespaced_config_map("coredns", "kube-system")
    before = config.data["Corefile"]
    stub = "corp.example:53 {\n    hosts {\n        192.0.2.7 printer.corp.example\n    }\n}\n"
    try:
        kube.core.patch_namespaced_config_map("coredns", "kube-system", {"data": {"Corefile": before + stub}})
        eventually(lambda: addresses(asking, "printer.corp.example") == {"192.0.2.7"}, within=180)
    finally:
        kube.core.patch_namespaced_config_map("coredns", "kube-system", {"data": {"Corefile": before}})


@conformance("Names", "unknown names of the cluster get NXDOMAIN; others are forwarded to the engine's DNS")
def test_other_names(kube: Kube, asking: Space) -> None:
    assert "NXDOMAIN" in asking.run("agent-1", "nslookup none.default.svc.cluster.local", ok=False)
    assert addresses(asking, f"{kube.cluster}-master-1.") == {kube.addresses["master-1"]}


@conformance("Names", "resolve without a failure while services come and go")
def test_names_are_steady(asking: Space, space: Space) -> None:
    script = (
        "i=0; while [ ! -e /tmp/enough ] && [ $i -lt 3000 ]; do "
        "nslookup kubernetes.default.svc.cluster.local >/tmp/said 2>&1 && echo fine || cat /tmp/said; i=$((i+1)); done"
    )
    with concurrent.futures.ThreadPoolExecutor() as pool:
        said = pool.submit(asking.run, "agent-1", f"rm -f /tmp/enough; {script}")
        try:
            for number in range(8):
                space.create(service(f"web-{number}"))
                time.sleep(0.25)
        finally:
            asking.run("agent-1", "touch /tmp/enough")
    lines = Counter(said.result().splitlines())
    assert lines.pop("fine") > 50
    assert not lines


def addresses(asking: Space, name: str, asker: str = "agent-1") -> set[str]:
    """What a name resolves to, asked from a pod."""
    said = asking.run(asker, f"nslookup {name}", ok=False).partition("Name:")[2]
    return set(re.findall(r"Address(?: \d+)?: (\S+)", said))


@conformance("Services", "addresses are in the environment of pods that start later")
def test_environment_of_services(space: Space) -> None:
    made = space.create(service("web", 8000))
    script = "echo $WEB_SERVICE_HOST $WEB_SERVICE_PORT $KUBERNETES_SERVICE_HOST"
    # Agents learn of services a moment later: a pod that started before does not have them.
    wanted = f"{made.spec.clusterIP} 8000 10.96.0.1\n"
    for number in range(5):
        space.create(pod(f"main-{number}", container(script), restartPolicy="Never"))
        space.ended(f"main-{number}")
        if (said := space.log(f"main-{number}")) == wanted:
            break
    assert said == wanted


@conformance("Services", "an address or port that nobody serves is refused in the node")
def test_nobody_else_answers(kube: Kube, asking: Space, space: Space) -> None:
    def tried(address: str) -> str:
        return asking.run("agent-1", f"timeout 10 wget -q -O - http://{address}/ 2>&1", ok=False)

    made = space.create(service("web"))
    space.create(pod("web"), pod("host", container(HOLD), nodeName="agent-1", hostNetwork=True))
    space.ready("web", "host")
    address = made.spec.clusterIP
    assert eventually(lambda: tried(address)) == "web"
    assert "Connection refused" in tried(f"{address}:81")
    assert "Connection refused" in space.run("host", f"timeout 10 wget -q -O - http://{address}:81/ 2>&1", ok=False)
    kube.core.delete_namespaced_service("web", space.name)
    eventually(lambda: "Connection refused" in tried(address), what="the deleted service is refused")
    for gone in ("10.244.1.250", "10.244.2.250", "10.244.99.9"):  # of this agent, of the other one, of none
        assert "No route to host" in tried(gone)
    # A master, where no kube-proxy is, does not ask outside either.
    said = kube.shell.docker(
        "exec", f"{kube.cluster}-master-1", "curl", "-sS", "-m", "5", f"http://{address}/", ok=False
    )
    assert "Could not connect" in said.err


# --- load balancers and policies


@conformance(
    "Load balancers", "an address of the cluster's network, for this machine, nodes, pods and other containers"
)
def test_from_everywhere(kube: Kube, asking: Space, space: Space) -> None:
    space.create(pod("web"), service("web", 8000, type="LoadBalancer"))
    space.ready("web")
    ip = eventually(lambda: address(space, "web"))
    network = kube.addresses["agent-1"].rpartition(".")[0]
    assert re.fullmatch(rf"{re.escape(network)}\.(19[2-9]|20\d|21\d|22[0-3])", ip)
    url = f"http://{ip}:8000/"
    assert eventually(lambda: get(url)) == "web"
    for node in ("master-1", *AGENTS):
        eventually(lambda node=node: asks(kube, node, url) == "web", what=node)
    for agent in AGENTS:
        script = f"timeout 5 wget -q -O - {url}"
        eventually(lambda agent=agent, script=script: asking.run(agent, script, ok=False) == "web", what=agent)
    image = kube.shell.docker("inspect", "--format", "{{.Config.Image}}", f"{kube.cluster}-agent-1").out.strip()
    other = ("run", "--rm", "--network", f"{kube.cluster}-net", "--entrypoint", "curl", image, "-sS", "-m", "5", url)
    assert kube.shell.docker(*other).out.strip() == "web"
    # By minicluster: the address, and a published port of a master that follows the Service.
    listed = kube.shell.minicluster("info", kube.cluster, "-o", "json").json["endpoints"]
    rows = {one["node"]: one["url"] for one in listed if one["name"] == f"{space.name}/web"}
    assert rows == {announced_by(kube, ip): f"tcp://{ip}:8000", "master-1": rows.get("master-1")}
    published = rows["master-1"].replace("tcp:", "http:")
    assert published.startswith("http://127.0.0.1:")
    assert eventually(lambda: get(published)) == "web"
    # What the Service does not serve is refused at once, also where the agent itself serves it.
    for port in (81, 10250):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((ip, port), timeout=5)
    events = reasons(space, "web")
    assert events["IPAllocated"] == f"the address is {ip}"
    assert events["AgentAssigned"] == f"{ip} is announced by {announced_by(kube, ip)}"
    kube.core.patch_namespaced_service("web", space.name, {"spec": {"type": "ClusterIP"}})
    eventually(lambda: not address(space, "web") and not announced_by(kube, ip), what="it is given back")
    eventually(lambda: not get(published), what="the published port leads nowhere")


WEB = {"ports": [{"name": "http", "containerPort": 80}, {"name": "other", "containerPort": 81}]}
BOTH = "httpd -p 81 -h /tmp; exec /serve"


@conformance("Policy", "NetworkPolicies: ingress by pods, named ports; what is not allowed is not answered")
def test_ingress(asking: Space, space: Space) -> None:
    space.create(
        pod("web", container(BOTH, **WEB), nodeName="agent-1"),
        *(pod(f"friend-{a}", container(HOLD), nodeName=a, labels={"app": "friend"}) for a in AGENTS),
        pod("stranger", container(HOLD), nodeName="agent-1"),
        service("web"),
    )
    (web, *_) = space.ready("web", *(f"friend-{agent}" for agent in AGENTS), "stranger")
    ip = web.status.pod_ip
    eventually(lambda: reaches(space, "stranger", ip) and reaches(space, "stranger", ip, 81))
    allowed = {"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}], "ports": [{"port": "http"}]}
    space.create(policy("friends", "web", ingress=[allowed]))
    eventually(lambda: not reaches(space, "stranger", ip), what="strangers are not answered")
    assert not reaches(asking, "agent-2", ip)
    for agent in AGENTS:
        eventually(lambda agent=agent: reaches(space, f"friend-{agent}", ip), what=f"a friend on {agent}")
        eventually(lambda agent=agent: reaches(space, f"friend-{agent}", "web"), what="by the service")
        assert not reaches(space, f"friend-{agent}", ip, 81)
    space.kubectl("delete", "networkpolicy", "friends")
    eventually(lambda: reaches(space, "stranger", ip), what="without it all is open again")
