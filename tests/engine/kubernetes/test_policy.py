"""Conformance: NetworkPolicies."""

from __future__ import annotations

import pytest

from tests.engine.conftest import eventually
from tests.engine.kubernetes.kube import (
    AGENTS,
    HOLD,
    Kube,
    Manifest,
    Space,
    conformance,
    container,
    pod,
    service,
)

WEB = {"ports": [{"name": "http", "containerPort": 80}, {"name": "other", "containerPort": 81}]}
BOTH = "httpd -p 81 -h /tmp; exec /serve"


def policy(name: str, selects: str = "", **spec: object) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {"podSelector": {"matchLabels": {"app": selects}} if selects else {}} | spec,
    }


def reaches(space: Space, asker: str, host: str, port: int = 80) -> bool:
    """Whether a pod gets a connection."""
    return "open" in space.run(asker, f"nc -w 1 {host} {port} </dev/null >/dev/null 2>&1 && echo open", ok=False)


@pytest.mark.long
@conformance("Policy", "NetworkPolicies hold before a new pod's first packet, on its agent and from others")
def test_before_the_first_packet(space: Space) -> None:
    space.create(pod("web", nodeName="agent-1"))
    (web,) = space.ready("web")
    space.create(policy("closed", "early", policyTypes=["Egress"]))
    script = (
        "for i in $(seq 20); do nc -w 1 {to} 80 </dev/null >/dev/null 2>&1 && echo reached || echo no; "
        "[ $i -gt 5 ] && sleep 0.1; done"
    ).replace("{to}", web.status.pod_ip)
    for number in range(3):
        for agent in AGENTS:
            name = f"early-{agent}-{number}"
            asks = container(script)
            space.create(pod(name, asks, nodeName=agent, labels={"app": "early"}, restartPolicy="Never"))
    for number in range(3):
        for agent in AGENTS:
            name = f"early-{agent}-{number}"
            space.ended(name, within=120)
            assert set(space.log(name).split()) == {"no"}, name
    assert eventually(lambda: reaches(space, "web", web.status.pod_ip)), "other pods are not concerned"


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


@pytest.mark.long
@conformance("Policy", "NetworkPolicies: by namespaces and blocks of addresses with exceptions; egress")
def test_namespaces_and_blocks(kube: Kube, asking: Space, space: Space) -> None:
    space.create(pod("web", nodeName="agent-2"), pod("out", container(HOLD), nodeName="agent-1"))
    web, out = space.ready("web", "out")
    ip = web.status.pod_ip
    other = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": asking.name}}}
    space.create(policy("spaces", "web", ingress=[{"from": [other]}]))
    eventually(lambda: not reaches(space, "out", ip), what="not from its own namespace")
    eventually(lambda: all(reaches(asking, agent, ip) for agent in AGENTS), what="from the other one")
    block = {"ipBlock": {"cidr": "10.244.0.0/16", "except": [f"{out.status.pod_ip}/32"]}}
    space.kubectl("delete", "networkpolicy", "spaces")
    space.create(policy("blocks", "web", ingress=[{"from": [block]}]))
    eventually(lambda: all(reaches(asking, agent, ip) for agent in AGENTS), what="from the block")
    assert not reaches(space, "out", ip)
    space.kubectl("delete", "networkpolicy", "blocks")
    master = kube.addresses["master-1"]
    eventually(lambda: reaches(space, "out", ip) and reaches(space, "out", master, 6443))
    to = {"to": [{"ipBlock": {"cidr": f"{ip}/32"}}], "ports": [{"port": 80}]}
    space.create(policy("egress", "out", policyTypes=["Egress"], egress=[to]))
    eventually(lambda: not reaches(space, "out", master, 6443), what="no way out")
    assert reaches(space, "out", ip)
    assert reaches(space, "web", master, 6443)


@pytest.mark.long
@conformance("Policy", "NetworkPolicies hold while kube-policies is killed, and after a restart of the agent")
def test_kube_policies_is_killed(kube: Kube, space: Space) -> None:
    space.create(pod("web", nodeName="agent-1"), pod("out", container(HOLD), nodeName="agent-1"))
    (web, _) = space.ready("web", "out")
    space.create(policy("closed", "web", policyTypes=["Ingress"]))
    eventually(lambda: not reaches(space, "out", web.status.pod_ip))
    kube.shell.docker("exec", f"{kube.cluster}-agent-1", "pkill", "-9", "kube-policies")
    assert not reaches(space, "out", web.status.pod_ip)
    space.create(pod("late", nodeName="agent-1", labels={"app": "web"}))
    (late,) = space.ready("late")
    assert not reaches(space, "out", late.status.pod_ip)
    kube.shell.minicluster("restart", "agent-1", "--cluster", kube.cluster)
    (web, _) = space.ready("web", "out")
    assert not reaches(space, "out", web.status.pod_ip)
