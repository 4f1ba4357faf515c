"""Conformance: NetworkPolicies."""

from __future__ import annotations

import pytest

from tests.engine.conftest import eventually
from tests.engine.kubernetes.kube import (
    AGENTS,
    HOLD,
    Kube,
    Space,
    conformance,
    container,
    pod,
)
from tests.engine.kubernetes.network import policy, reaches

pytestmark = pytest.mark.long  # the core of it is in test_network.py


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
