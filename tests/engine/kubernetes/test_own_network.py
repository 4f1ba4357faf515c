"""A network of the user's own in place of ours: a privileged DaemonSet writes its plugins and its configuration.

A stand-in for those that are in registries. Like them it installs programs into /opt/cni/bin and a file into
/etc/cni/net.d, and runs on; the programs are the CNI project's own, under other names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import Shell, eventually, remains
from tests.engine.kubernetes.kubelife import Kube, pod, service

pytestmark = pytest.mark.long

NAME = "t-kube-own-network"
IMAGE = f"localhost/{NAME}:1"

DOCKERFILE = """\
FROM {node} AS node
FROM scratch
COPY --from=node /bin/busybox /bin/busybox
COPY --from=node /usr/local/lib/cni/bridge /plugins/t-bridge
COPY --from=node /usr/local/lib/cni/host-local /plugins/t-host-local
COPY install /install
ENTRYPOINT ["/bin/busybox", "sh", "/install"]
"""

INSTALL = """\
/bin/busybox --install -s /bin
cp /plugins/* /host/opt/cni/bin/
while read -r name address pods; do
  if [ "$name" = "$NODE" ]; then
    cat >/host/etc/cni/net.d/20-t.tmp <<JSON
{"cniVersion": "0.4.0", "name": "t", "plugins": [{"type": "t-bridge", "bridge": "t0", "isGateway": true,
 "ipam": {"type": "t-host-local", "ranges": [[{"subnet": "$pods"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
JSON
  else
    ip route replace "$pods" via "$address"
  fi
done </nodes/list
mv /host/etc/cni/net.d/20-t.tmp /host/etc/cni/net.d/20-t.conflist
trap 'exit 0' TERM
sleep 1000000 & wait
"""


@pytest.fixture(scope="module")
def kube(outer: Shell) -> Iterator[Kube]:
    try:
        outer.minicluster("up", "kubernetes", "--name", NAME, "--set", "cni=none", timeout=900)
        yield Kube(outer, NAME)
    finally:
        outer.minicluster("down", NAME, ok=False)
        outer.docker("rmi", "-f", IMAGE, ok=False)
    assert remains(outer, NAME) == {}


def daemon() -> list[dict[str, Any]]:
    mounts = {"bin": "/opt/cni/bin", "conf": "/etc/cni/net.d"}
    container = {
        "name": "main", "image": IMAGE, "securityContext": {"privileged": True},
        "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "volumeMounts": [
            {"name": "nodes", "mountPath": "/nodes"},
            *({"name": name, "mountPath": f"/host{path}"} for name, path in mounts.items()),
        ],
    }  # fmt: skip
    spec = {
        "hostNetwork": True, "tolerations": [{"operator": "Exists"}], "containers": [container],
        "volumes": [
            {"name": "nodes", "configMap": {"name": "nodes"}},
            *({"name": name, "hostPath": {"path": path, "type": "Directory"}} for name, path in mounts.items()),
        ],
    }  # fmt: skip
    labels = {"app": "network"}
    made = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}}
    return [{"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "network"}, "spec": made}]


def test_a_users_own_network(kube: Kube, tmp_path: Path) -> None:
    nodes = {node["name"]: node for node in kube.status()["nodes"]}
    assert all(node["ready"] for node in nodes.values())
    assert nodes["agent-1"]["detail"] == "no CNI plugin yet"
    assert kube.nodes() == {"agent-1": False, "agent-2": False}

    node = kube.outer.docker("inspect", "--format", "{{.Config.Image}}", f"{NAME}-agent-1").out.strip()
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.format(node=node))
    (tmp_path / "install").write_text(INSTALL)
    kube.outer.minicluster("load", "--build", str(tmp_path), "-t", IMAGE, "-c", NAME, timeout=300)
    listed = [(n["metadata"]["name"], n["status"]["addresses"], n["spec"]["podCIDR"]) for n in kube.get("nodes")]
    text = "".join(f"{name} {addresses[0]['address']} {pods}\n" for name, addresses, pods in listed)
    kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "nodes"}, "data": {"list": text}})
    kube.apply(*daemon())

    eventually(lambda: kube.nodes() == {"agent-1": True, "agent-2": True}, what="agents with a network")
    kube.furnish("agent-1", "agent-2")
    for agent, other in (("agent-1", "agent-2"), ("agent-2", "agent-1")):
        kube.canary(agent, other)  # a pod on the other agent, by the name of its Service
    kube.is_ready()
    kube.apply(pod("web", "agent-1"), service("web"))
    assert kube.ask("agent-2", "web") == "web"
    links = json.loads(kube.outer.docker("exec", f"{NAME}-agent-1", "ip", "-j", "link").out)
    assert "t0" in {link["ifname"] for link in links}
    assert "cni0" not in {link["ifname"] for link in links}
    # The API server reaches pods as well: metrics-server is one.
    eventually(lambda: kube.kubectl("top", "nodes", ok=False).code == 0, within=120, what="kubectl top")
    kube.outer.minicluster("restart", "agent-1", "-c", NAME, timeout=120)
    kube.canary("agent-1", "agent-2")
