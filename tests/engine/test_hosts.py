"""Clusters on three hosts: used as on one, and while a host is killed, cut off and back; nothing is left behind."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.engine.bed import NAMES, Bed, make
from tests.engine.checker import Checker, store_of, writing
from tests.engine.conftest import VERSION, Shell, eventually, remains

BED = "t-hosts"
NAME = "t-over"

pytestmark = pytest.mark.long

ROLE = {"etcd": "kv", "zookeeper": "kv", "consul": "master"}


@pytest.fixture(scope="module")
def bed(outer: Shell, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """Three machines without a swarm of their own, joined by ``hosts init``: first two, and then the third."""
    try:
        made = make(outer, BED, tmp_path_factory.mktemp("docker"))
        for host in reversed(NAMES):
            made.docker(host, "swarm", "leave", "--force")
        made.shell.minicluster("hosts", "init", "m1,m2")
        made.shell.minicluster("hosts", "init", "m1,m2,m3")
        yield made
        found = made.shell.minicluster("hosts", "leave", "m1,m2,m3", "-o", "json").json
        assert sorted(found["left"]) == [*NAMES]
        assert all(json.loads(made.docker(h, "info", "-f", "{{json .Swarm}}"))["NodeID"] == "" for h in NAMES)
    finally:
        outer.minicluster("down", BED, ok=False)
    assert remains(outer, BED) == {}


@pytest.fixture(autouse=True)
def _leaves_nothing(bed: Bed) -> Iterator[None]:
    yield
    done = bed.shell.minicluster("down", NAME, ok=False, timeout=300)
    assert bed.remains(NAME) == {}, done.err


def up(bed: Bed, profile: str, *options: str) -> Any:
    words = ("up", profile, "--name", NAME, "--hosts", "m1,m2,m3", *VERSION.get(profile, ()), *options, "-o", "json")
    return bed.shell.minicluster(*words, timeout=600).json


def status(bed: Bed) -> Any:
    return bed.shell.minicluster("status", NAME, "-o", "json").json


def is_ready(bed: Bed, voters: int = 3) -> Any:
    def ready() -> Any:
        found = status(bed)
        return found if found["phase"] == "ready" and found["quorum"]["voters"] == voters else None

    return eventually(ready, within=120, what=f"{NAME} is ready with {voters} voters")


def where(bed: Bed) -> dict[str, str]:
    return {node["name"]: node["host"] for node in status(bed)["nodes"]}


def write(bed: Bed, profile: str) -> AbstractContextManager[Checker]:
    return writing(store_of(profile, bed.shell, NAME))


def test_hosts_are_checked(bed: Bed) -> None:
    found = bed.shell.minicluster("hosts", "check", "-o", "json", ok=False).json
    assert [(one["host"], one["answers"], one["role"] != "") for one in found["hosts"]] == [
        (h, True, True) for h in NAMES
    ]
    assert found["quorum"]["voters"] == 3
    assert found["ours"]
    for checks in found["checks"].values():
        by_name = {one["name"]: one for one in checks}
        assert by_name["clock"]["level"] == "ok"
        assert by_name["ports"]["level"] == "ok"


@pytest.mark.parametrize("profile", ["etcd", "zookeeper", "consul"])
def test_an_ensemble_over_three_hosts(bed: Bed, profile: str) -> None:
    """Up, status, exec, logs, stop, start, scale; a host is killed and comes back; down."""
    role = ROLE[profile]
    up(bed, profile, "--address-mode", "gateway")
    found = is_ready(bed)
    voters = [node for node in found["nodes"] if node["role"] == role]
    assert sorted(node["host"] for node in voters) == [*NAMES]
    for node in found["nodes"]:
        assert node["container"] in bed.docker(node["host"], "ps", "--format", "{{.Names}}").split()
        said = bed.shell.minicluster("exec", "-c", NAME, node["name"], "--", "hostname").out.strip()
        assert said == node["name"]
    endpoints = bed.shell.minicluster("info", NAME, "-o", "json").json["endpoints"]
    hosts = where(bed)
    assert all(bed.addresses[hosts[e["node"]]] in e["url"] for e in endpoints)
    assert bed.shell.minicluster("logs", "-c", NAME, f"{role}-3").out
    usage = bed.shell.minicluster("top", "-c", NAME, "--once", "-o", "json").json["nodes"]
    assert all(node["memory"] for node in usage)
    with write(bed, profile) as checker:
        bed.shell.minicluster("stop", f"{role}-2", "-c", NAME)
        checker.progress()
        bed.shell.minicluster("start", f"{role}-2", "-c", NAME)
        bed.shell.minicluster("restart", "--rolling", role, "-c", NAME, timeout=300)
        away = hosts[f"{role}-3"]
        bed.do("kill", away)
        checker.progress(within=90)
        gone = status(bed)
        assert any(note.startswith(f"host {away} does not answer") for note in gone["notes"])
        assert gone["phase"] == "degraded"
        bed.do("start", away)
        bed.shell.minicluster("start", "-c", NAME, timeout=300)
        checker.progress()
    is_ready(bed)
    bed.shell.minicluster("scale", f"{role}=5", "-c", NAME, timeout=300)
    is_ready(bed, 5)


def test_a_host_that_is_killed_is_replaced(bed: Bed) -> None:
    """``up`` moves its voter; when it is back, ``up`` removes what is left there."""
    up(bed, "etcd")
    away = where(bed)["kv-3"]
    with write(bed, "etcd") as checker:
        bed.do("kill", away)
        checker.progress()
        up(bed, "etcd")
        assert where(bed)["kv-3"] != away
        is_ready(bed)
        bed.do("start", away)
        checker.progress()
    bed.shell.minicluster("hosts", "init", "m1,m2,m3")
    assert any(f"host {away} still has a former kv-3" in note for note in status(bed)["notes"])
    up(bed, "etcd")
    assert f"{NAME}-kv-3" not in bed.docker(away, "ps", "-a", "--format", "{{.Names}}")
    is_ready(bed)


def test_a_host_is_cut_off_and_paused(bed: Bed) -> None:
    up(bed, "etcd")
    with write(bed, "etcd") as checker:
        for host in NAMES:
            bed.cut(host)
            checker.progress()
            assert status(bed)["phase"] == "degraded"
            bed.heal()
            is_ready(bed)
        bed.do("pause", "m2")
        checker.progress()
        bed.do("unpause", "m2")
        checker.progress()
    is_ready(bed)


def test_down_removes_what_it_reaches_and_the_rest_later(bed: Bed) -> None:
    up(bed, "etcd")
    its = next(node for node, host in where(bed).items() if host == "m3")
    bed.do("kill", "m3")
    done = bed.shell.minicluster("down", NAME, ok=False)
    assert done.code == 1
    assert f"container {NAME}-{its} on host m3" in done.err
    assert all("-kv-" not in name for host in ("m1", "m2") for name in bed.remains(NAME, "m1", "m2").get(host, []))
    bed.do("start", "m3")
    bed.shell.minicluster("down", NAME)
    assert bed.remains(NAME) == {}


def test_another_machine_finds_it_by_the_context_of_a_host(bed: Bed, tmp_path: Path) -> None:
    up(bed, "etcd")
    env = {key: value for key, value in bed.shell.env.items() if key != "DOCKER_HOST"}
    other = Shell({**env, "DOCKER_HOST": "", "DOCKER_CONTEXT": "m2", "XDG_DATA_HOME": str(tmp_path)})
    assert other.minicluster("status", NAME, "-o", "json").json["phase"] == "ready"
    assert [c["cluster"] for c in other.minicluster("ls", "-o", "json").json] == [NAME]
    other.minicluster("down", NAME)
    assert bed.remains(NAME) == {}


def test_traffic_is_encrypted_where_the_kernel_can(bed: Bed) -> None:
    up(bed, "etcd")  # the hosts have an image then, to ask their kernels with
    bed.shell.minicluster("down", NAME)
    checks = bed.shell.minicluster("hosts", "check", "-o", "json", ok=False).json["checks"]["m1"]
    said = next(one for one in checks if one["name"] == "encryption")
    if "no ESP" in said["text"]:
        done = bed.shell.minicluster("up", "etcd", "--name", NAME, "--hosts", "m1,m2,m3", "--encrypt", ok=False)
        assert done.code == 1
        assert "--encrypt: the kernel of m1, m2, m3 has no ESP" in done.err
        return
    up(bed, "etcd", "--encrypt")
    options = json.loads(bed.docker("m1", "network", "inspect", f"{NAME}-net", "-f", "{{json .Options}}"))
    assert "encrypted" in options


def test_a_partition_between_hosts(bed: Bed) -> None:
    """A helper on each host; the leader is cut off, writes go on without it, and after it is healed with it."""
    up(bed, "etcd")
    with write(bed, "etcd") as checker:
        found = bed.shell.minicluster("fault", "partition", "--isolate", "leader", "-c", NAME, "-o", "json").json
        names = [n for host in NAMES for n in bed.docker(host, "ps", "--format", "{{.Names}}").split()]
        assert [n for n in names if "-fault." in n] == [f"{NAME}-fault.{host}.1" for host in NAMES]
        checker.progress()
        (listed,) = bed.shell.minicluster("fault", "list", "-c", NAME, "-o", "json").json
        assert (listed["id"], listed["lost"]) == (found["id"], [])
        bed.shell.minicluster("heal", "-c", NAME)
        is_ready(bed)
        bed.shell.minicluster("fault", "loss", "kv", "20%", "--for", "60s", "-c", NAME)
        checker.progress()
        bed.shell.minicluster("heal", "-c", NAME)
        checker.progress()

    def helpers() -> list[str]:  # an engine removes one right after it has ended
        return [n for h in NAMES for n in bed.docker(h, "ps", "-a", "--format", "{{.Names}}").split() if "fault" in n]

    eventually(lambda: helpers() == [], what="the helpers are removed")


def test_clients_are_cut_over_hosts(bed: Bed) -> None:
    """Published ports lead to a network of the host's own."""
    up(bed, "etcd", "--address-mode", "gateway")
    urls = {e["node"]: e["url"] for e in bed.shell.minicluster("info", NAME, "-o", "json").json["endpoints"]}
    env = bed.shell.minicluster("env", NAME, "-o", "json").json

    def reached(node: str) -> bool:
        client = Shell(bed.shell.env | env | {"ETCDCTL_ENDPOINTS": urls[node]})
        argv = ("etcdctl", "get", "k", "--consistency=s", "--dial-timeout=3s", "--command-timeout=5s")
        return client.run(*argv, ok=False).code == 0

    assert all(map(reached, urls))
    for words in (("partition", "--isolate", "kv-1", "--clients"), ("loss", "kv-1", "100%")):
        bed.shell.minicluster("fault", *words, "-c", NAME)
        assert not reached("kv-1")
        assert reached("kv-2")
        bed.shell.minicluster("heal", "-c", NAME)
        eventually(lambda: reached("kv-1"), what="the published port answers again")
    bed.shell.minicluster("fault", "partition", "--isolate", "kv-1", "-c", NAME)
    assert reached("kv-1")
    host = where(bed)["kv-1"]
    pid = bed.docker(host, "inspect", "-f", "{{.State.Pid}}", f"{NAME}-kv-1").strip()
    show = ("exec", "-c", BED, bed.nodes[host], "--", "nsenter", "-t", pid, "-n", "tc", "qdisc")
    bed.shell.minicluster("fault", "rate", "kv-1", "1mbit", "-c", NAME)
    assert bed.outer.minicluster(*show).out.count("qdisc htb") == 2
    bed.shell.minicluster("heal", "-c", NAME)
    assert "htb" not in bed.outer.minicluster(*show).out


def test_what_a_host_that_is_cut_off_holds_is_not_said_to_be_healed(bed: Bed) -> None:
    up(bed, "etcd")
    away = where(bed)["kv-3"]
    bed.shell.minicluster("fault", "dns", "kv", "-c", NAME)
    bed.cut(away)
    done = bed.shell.minicluster("heal", "-c", NAME, ok=False)
    assert done.code == 1
    assert f"cluster {NAME} could not be healed on host {away}" in done.err
    assert f"dns kv-1 kv-2 kv-3 in kv-3 on host {away}" in done.err
    bed.heal()
    (left,) = bed.shell.minicluster("fault", "list", "-c", NAME, "-o", "json").json
    assert left["text"] == "dns kv-1 kv-2 kv-3"
    assert "Healed: dns" in bed.shell.minicluster("heal", "-c", NAME).out
    assert bed.shell.minicluster("fault", "list", "-c", NAME, "-o", "json").json == []


def test_reset_over_hosts(bed: Bed) -> None:
    up(bed, "etcd", "--address-mode", "gateway")
    bed.shell.minicluster("etcdctl", "-c", NAME, "put", "greeting", "hello")
    bed.shell.minicluster("reset", NAME)
    assert bed.shell.minicluster("etcdctl", "-c", NAME, "get", "greeting").out == ""
    is_ready(bed)


#: A web server on each agent, in front of all of them two Services, and a pod that keeps what it writes.
WEB = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: localhost/minicluster/demo:1}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: notes}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Mi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: notes}
spec:
  selector: {matchLabels: {app: notes}}
  strategy: {type: Recreate}
  template:
    metadata: {labels: {app: notes}}
    spec:
      containers:
        - {name: notes, image: localhost/minicluster/demo:1, volumeMounts: [{name: notes, mountPath: /notes}]}
      volumes: [{name: notes, persistentVolumeClaim: {claimName: notes}}]
"""


@pytest.fixture
def kubernetes(bed: Bed, tmp_path: Path) -> Callable[..., str]:
    """kubectl of a cluster with an agent on each host, and WEB in it."""
    mode = ("--address-mode", "gateway")
    up(bed, "kubernetes", "--size", "agent=2", "--place", "agent-1=m1", "--place", "agent-2=m2", *mode)
    up(bed, "kubernetes", "--size", "agent=3", "--place", "agent-3=m3", *mode)  # the others learn the way to its pods
    file = tmp_path / "web.yaml"
    file.write_text(WEB)

    def kubectl(*words: str) -> str:
        return bed.shell.minicluster("kubectl", "-c", NAME, *words).out

    kubectl("apply", "-f", str(file))
    for what in ("daemonset/web", "deployment/notes"):
        kubectl("rollout", "status", what, "--timeout", "120s")
    return kubectl


def test_kubernetes_over_three_hosts(bed: Bed, kubernetes: Callable[..., str]) -> None:
    """Pods of different hosts reach each other, Services and names; volumes stay where they are."""
    kubectl = kubernetes
    assert {host for node, host in where(bed).items() if node.startswith("agent")} == {*NAMES}
    pods = {one["metadata"]["name"]: one["status"]["podIP"] for one in _pods(kubectl, "web")}
    assert len(pods) == 3
    for pod in pods:
        for other, address in pods.items():
            assert kubectl("exec", pod, "--", "wget", "-T", "5", "-qO-", f"http://{address}").strip() == other
        seen = {kubectl("exec", pod, "--", "wget", "-T", "5", "-qO-", "http://web.default").strip() for _ in range(8)}
        assert len(seen) > 1, "the Service leads to several hosts"

    def published() -> str:
        endpoints = bed.shell.minicluster("info", NAME, "-o", "json").json["endpoints"]
        return next((one["url"] for one in endpoints if one["name"] == "default/web"), "")

    url = eventually(published)
    assert bed.addresses[where(bed)["master-1"]] in url
    assert eventually(lambda: get(url.replace("tcp:", "http:"))).strip() in pods

    (before,) = _pods(kubectl, "notes")
    kubectl("exec", "deployment/notes", "--", "sh", "-c", "echo kept > /notes/note")
    kubectl("delete", "pod", before["metadata"]["name"])
    kubectl("rollout", "status", "deployment/notes", "--timeout", "120s")
    (after,) = _pods(kubectl, "notes")
    assert after["spec"]["nodeName"] == before["spec"]["nodeName"]
    assert kubectl("exec", "deployment/notes", "--", "cat", "/notes/note").strip() == "kept"
    kubectl("delete", "deployment/notes", "pvc/notes")
    agent = after["spec"]["nodeName"]
    eventually(lambda: not kubectl("get", "pv", "-o", "name").split(), what="the volume is removed")
    listed = bed.shell.minicluster("exec", "-c", NAME, agent, "--", "ls", "/var/lib/kubelet/minicluster-volumes")
    assert listed.out == ""


def _pods(kubectl: Callable[..., str], app: str) -> list[Any]:
    found = json.loads(kubectl("get", "pods", "-l", f"app={app}", "-o", "json"))["items"]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def get(url: str) -> str:
    """What a web server answers; empty without an answer."""
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""
