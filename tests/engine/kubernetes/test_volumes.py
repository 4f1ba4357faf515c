"""Conformance: volumes of a CSI driver, which is the mock of Kubernetes' own test suite (csi/main.go), installed as
drivers are; block devices; user namespaces."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.engine.conftest import Shell, eventually
from tests.engine.kubernetes.kube import (
    AGENTS,
    HOLD,
    Kube,
    Manifest,
    Space,
    claim,
    conformance,
    container,
    pod,
    workload,
)
from tests.engine.kubernetes.test_pods import privileged

pytestmark = pytest.mark.long

DRIVER = "csi.t.example.org"
IMAGE = "localhost/t-csi:1"
KUBELET = "/var/lib/kubelet"


@pytest.fixture(scope="module")
def image(kube: Kube, outer: Shell, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("csi")
    static = Shell(outer.env | {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"})
    source = Path(__file__).parent / "csi"
    static.run("go", "build", "-trimpath", "-ldflags=-s -w", "-o", str(folder / "csi"), ".", cwd=source, timeout=900)
    (folder / "Dockerfile").write_text('FROM scratch\nCOPY csi /csi-driver\nENTRYPOINT ["/csi-driver"]\n')
    try:
        kube.shell.minicluster("load", "--build", str(folder), "-t", IMAGE, "-c", kube.cluster)
    finally:
        kube.shell.docker("rmi", "-f", IMAGE, ok=False)
    os.unlink(folder / "csi")
    return IMAGE


def driver(image: str) -> list[Manifest]:
    """As drivers' own manifests: a DaemonSet with folders of the kubelet, and the object CSIDriver."""
    folders = {"/csi": f"{KUBELET}/plugins/{DRIVER}", "/registration": f"{KUBELET}/plugins_registry", KUBELET: KUBELET}
    names = {path: f"v{number}" for number, path in enumerate(folders)}
    mounts = [{"name": names[path], "mountPath": path} for path in folders]
    mounts[-1]["mountPropagation"] = "Bidirectional"
    main = {"name": "main", "image": image, "args": [DRIVER], "securityContext": {"privileged": True}}
    volumes = [
        {"name": names[path], "hostPath": {"path": on_host, "type": "DirectoryOrCreate"}}
        for path, on_host in folders.items()
    ]
    spec = {"attachRequired": False, "volumeLifecycleModes": ["Persistent"]}
    return [
        {"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": DRIVER}, "spec": spec},
        workload("DaemonSet", "driver", pod("driver", main | {"volumeMounts": mounts}, volumes=volumes)),
    ]


@pytest.mark.skipif(not shutil.which("go"), reason="the driver is compiled with this machine's Go")
@conformance("Storage", "a CSI driver's volume is mounted into a pod, and unmounted after it")
def test_csi_driver(kube: Kube, space: Space, image: str) -> None:
    volume = {
        "kind": "PersistentVolume",
        "metadata": {"name": "t-csi"},
        "spec": {
            "capacity": {"storage": "1Mi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {"namespace": space.name, "name": "data"},
            "csi": {"driver": DRIVER, "volumeHandle": "1", "fsType": "tmpfs"},
        },
    }
    wanted = {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": "t-csi"}
    bound = {
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": wanted | {"resources": {"requests": {"storage": "1Mi"}}},
    }
    try:
        space.create(*driver(image), volume, bound)
        space.several(2, "app=driver")
        registered = "jsonpath={.items[*].spec.drivers[*].name}"
        eventually(
            lambda: kube.kubectl("get", "csinodes", "-o", registered).out == f"{DRIVER} {DRIVER}",
            what="the kubelets know it",
        )
        mounts = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
        volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
        script = f"echo gold >/data/word; {HOLD}"
        space.create(pod("uses", container(script, **mounts), nodeName="agent-1", volumes=volumes))
        space.ready("uses")
        eventually(lambda: space.run("uses", "cat /data/word") == "gold")
        assert "csi /data tmpfs" in space.run("uses", "cat /proc/mounts")

        def mounted() -> bool:
            said = kube.shell.docker("exec", f"{kube.cluster}-agent-1", "cat", "/proc/mounts").out
            return any(line.startswith("csi ") for line in said.splitlines())

        assert mounted()
        kube.core.delete_namespaced_pod("uses", space.name)
        eventually(lambda: not mounted(), what="it is unmounted")
    finally:
        kube.kubectl("delete", "pv/t-csi", f"csidriver/{DRIVER}", "--wait=false", ok=False)


@conformance("Privileges", "a block device of the agent as a volume of mode Block")
def test_block_volume(kube: Kube, space: Space) -> None:
    # One that the agent has a file for: the kernel may offer a newer one, or another process may take it.
    take = "for d in /dev/loop[0-9]*; do losetup $d /v/disk 2>/dev/null && echo $d && exit; done; exit 1"
    device = f"dd if=/dev/zero of=/v/disk bs=1M count=1 2>/dev/null && {take}"
    folder = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    volumes = [{"name": "v", "hostPath": {"path": "/var/tmp/t-block", "type": "DirectoryOrCreate"}}]
    space.create(privileged("makes", device, folder, volumes=volumes))
    assert space.ended("makes").status.phase == "Succeeded"
    loop = space.log("makes").split()[-1]
    assert loop.startswith("/dev/loop")
    terms = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["agent-1"]}]}]
    both = {"volumeMode": "Block", "accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    volume = {
        "kind": "PersistentVolume",
        "metadata": {"name": "t-block"},
        "spec": both
        | {
            "capacity": {"storage": "1Mi"},
            "local": {"path": loop},
            "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
        },
    }
    wanted = claim("data")
    wanted["spec"] |= both | {"volumeName": "t-block", "resources": {"requests": {"storage": "1Mi"}}}
    try:
        script = "echo gold | dd of=/dev/mine conv=fsync && head -n 1 /dev/mine"
        main = container(script, volumeDevices=[{"name": "data", "devicePath": "/dev/mine"}])
        disk = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
        space.create(volume, wanted, pod("uses", main, restartPolicy="Never", volumes=disk))
        assert space.ended("uses").status.phase == "Succeeded"
        assert "gold" in space.log("uses").splitlines()
    finally:
        kube.kubectl("delete", "pv", "t-block", "--wait=false")
        space.create(privileged("frees", f"losetup -d {loop}"))
        space.ended("frees")


@conformance("Privileges", "user namespaces: root of a pod with hostUsers: false is another user on its agent")
def test_user_namespaces(kube: Kube, space: Space) -> None:
    space.create(pod("own", container(f"id -u; cat /proc/self/uid_map; {HOLD}"), hostUsers=False, nodeName="agent-1"))
    space.ready("own")
    user, inside, outside, count = space.log("own").split()
    assert (user, inside, count) == ("0", "0", "65536")
    said = kube.shell.docker("exec", f"{kube.cluster}-agent-1", "ps", "-eo", "uid,args").out
    assert int(outside) in {int(line.split()[0]) % 2**32 for line in said.splitlines() if "sleep 10000" in line}


@conformance(
    "Storage", "WaitForFirstConsumer, ReadWriteMany; an expansion that is not possible is refused with the reason"
)
def test_classes_and_modes(kube: Kube, space: Space) -> None:
    late = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "t-late"},
        "provisioner": "kubernetes.io/host-path",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    wanted = claim("data")
    wanted["spec"] |= {"accessModes": ["ReadWriteMany"], "storageClassName": "t-late"}
    mounts = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    try:
        space.create(late, wanted)
        eventually(lambda: "WaitForFirstConsumer" in space.kubectl("describe", "pvc", "data").out)
        space.create(
            pod("one", container(f"echo gold >/data/word; {HOLD}", **mounts), volumes=volumes),
        )
        space.ready("one")
        there = space.pod("one").spec.node_name
        other = next(agent for agent in AGENTS if agent != there)
        space.create(pod("two", container(HOLD, **mounts), nodeName=other, volumes=volumes))
        space.ready("two")
        assert space.run("two", "cat /data/word") == "gold"
        more = '{"spec": {"resources": {"requests": {"storage": "20Mi"}}}}'
        refused = space.kubectl("patch", "pvc", "data", "--patch", more, ok=False)
        assert "the storageclass that provisions the pvc must support resize" in refused.err
    finally:
        kube.kubectl("delete", "storageclass", "t-late")


@conformance("Storage", "local ephemeral storage is counted: a pod that uses more than its limit is evicted")
def test_ephemeral_storage(kube: Kube, space: Space) -> None:
    assert "ephemeral-storage" in kube.core.read_node("agent-1").status.allocatable
    main = container(
        "dd if=/dev/zero of=/big bs=1M count=9; exec sleep 1000", resources={"limits": {"ephemeral-storage": "4Mi"}}
    )
    space.create(pod("big", main, nodeName="agent-1", restartPolicy="Never"))
    ended = space.ended("big", within=180)
    assert ended.status.phase == "Failed"
    told = space.kubectl("get", "events", "--field-selector", "reason=Evicted").out
    assert "ephemeral local storage" in told
