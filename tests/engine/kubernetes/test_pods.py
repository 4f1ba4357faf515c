"""Conformance: pods and storage."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from tests.engine.conftest import eventually
from tests.engine.kubernetes.kube import (
    HOLD,
    Kube,
    Manifest,
    Space,
    claim,
    conformance,
    container,
    get,
    pod,
    service,
)


@conformance("Pods", "run to completion; exit codes and logs are reported")
def test_pods_run_to_completion(space: Space) -> None:
    space.create(
        pod("good", container("echo done"), restartPolicy="Never"),
        pod("bad", container("echo no; exit 3"), restartPolicy="Never"),
    )
    assert space.ended("good").status.phase == "Succeeded"
    bad = space.ended("bad")
    assert bad.status.phase == "Failed"
    assert bad.status.container_statuses[0].state.terminated.exit_code == 3
    assert space.log("good") == "done\n"


@conformance("Pods", "init containers run one after the other before the main containers")
def test_init_containers(space: Space) -> None:
    work = {"volumeMounts": [{"name": "work", "mountPath": "/work"}]}
    space.create(
        pod(
            "main",
            container("cat /work/order", **work),
            initContainers=[
                container("sleep 0.5; echo first >>/work/order", "one", **work),
                container("echo second >>/work/order", "two", **work),
            ],
            volumes=[{"name": "work", "emptyDir": {}}],
            restartPolicy="Never",
        )
    )
    assert space.ended("main").status.phase == "Succeeded"
    assert space.log("main") == "first\nsecond\n"


@conformance("Pods", "containers of a pod share localhost and an emptyDir")
def test_containers_share(space: Space) -> None:
    shared = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    space.create(
        pod(
            "two",
            container("echo a word >/shared/word; exec /serve", "web", **shared),
            container(HOLD, **shared),
            volumes=[{"name": "shared", "emptyDir": {"medium": "Memory"}}],
        )
    )
    space.ready("two")
    said = eventually(lambda: space.run("two", "wget -q -O - http://localhost/", "-c", "main", ok=False))
    assert said == "two"
    assert space.run("two", "cat /shared/word", "-c", "main") == "a word"


@conformance("Pods", "environment and files of ConfigMaps and Secrets")
def test_settings(space: Space) -> None:
    space.create(
        {"kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"COLOUR": "red", "SIZE": "3"}},
        {"kind": "Secret", "metadata": {"name": "login"}, "stringData": {"password": "s3cret"}},
        pod(
            "main",
            container(
                "echo $COLOUR $SIZE $PASSWORD $(cat /login/password) $(stat -L -c %a /login/password)",
                envFrom=[{"configMapRef": {"name": "settings"}}],
                env=[{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "login", "key": "password"}}}],
                volumeMounts=[{"name": "login", "mountPath": "/login", "readOnly": True}],
            ),
            volumes=[{"name": "login", "secret": {"secretName": "login", "defaultMode": 0o400}}],
            restartPolicy="Never",
        ),
    )
    space.ended("main")
    assert space.log("main") == "red 3 s3cret s3cret 400\n"


@conformance("Pods", "get their own name, address, node, labels and limits (downward API)")
def test_downward_api(space: Space) -> None:
    fields = {"POD": "metadata.name", "IP": "status.podIP", "ON": "spec.nodeName", "SPACE": "metadata.namespace"}
    space.create(
        pod(
            "main",
            container(
                "echo $POD $IP $ON $SPACE $MEMORY; cat /about/labels",
                env=[{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]
                + [{"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}}],
                resources={"limits": {"memory": "32Mi"}},
                volumeMounts=[{"name": "about", "mountPath": "/about"}],
            ),
            volumes=[
                {
                    "name": "about",
                    "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]},
                }
            ],
            restartPolicy="Never",
        )
    )
    found = space.ended("main")
    own = f"main {found.status.pod_ip} {found.spec.node_name} {space.name} {32 << 20}"
    assert space.log("main").split("\n")[:2] == [own, 'app="main"']


@conformance("Pods", "are restarted when their liveness probe fails, and when they exit; `kubectl logs --previous`")
def test_restarts(space: Space) -> None:
    alive = {"exec": {"command": ["test", "-e", "/tmp/alive"]}, "periodSeconds": 1, "failureThreshold": 1}
    space.create(
        pod("hangs", container(f"touch /tmp/alive; sleep 1; rm /tmp/alive; {HOLD}", livenessProbe=alive)),
        pod("ends", container(f"[ -e /w/again ] || {{ touch /w/again; echo first; exit 1; }}; echo second; {HOLD}",
            volumeMounts=[{"name": "w", "mountPath": "/w"}]), volumes=[{"name": "w", "emptyDir": {}}]),
    )  # fmt: skip

    def restarts(name: str) -> int:
        return sum(status.restart_count for status in space.pod(name).status.container_statuses or [])

    eventually(lambda: restarts("ends") == 1 and space.log("ends") == "second\n", what="it was restarted")
    assert space.log("ends", "--previous") == "first\n"
    eventually(lambda: restarts("hangs") >= 1, what="the failing liveness probe restarted it")


@conformance("Pods", "are stopped with preStop, then SIGTERM, and killed when their grace period is over")
def test_termination(kube: Kube, space: Space) -> None:
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo hook >/proc/1/fd/1"]}}}
    space.create(
        pod(
            "polite",
            container("trap 'echo term; exit 0' TERM; echo up; sleep 1000 & wait", lifecycle=hook),
            terminationGracePeriodSeconds=10,
        ),
        pod(
            "stubborn",
            container("trap '' TERM; echo up; while :; do sleep 1; done"),
            terminationGracePeriodSeconds=2,
        ),
    )
    space.ready("polite", "stubborn")
    logs = {name: kube.start("logs", "-f", name, "-n", space.name) for name in ("polite", "stubborn")}
    try:
        for log in logs.values():
            assert log.stdout
            assert log.stdout.readline() == "up\n"
        since = time.monotonic()
        space.kubectl("delete", "pod", "polite", "stubborn", "--wait=false")
        # The kubelet may append that the container is gone.
        polite, _ = logs["polite"].communicate(timeout=20)
        assert polite.startswith("hook\nterm\n")
        assert time.monotonic() - since < 9
        logs["stubborn"].communicate(timeout=20)
        assert 2 <= time.monotonic() - since < 12
    finally:
        for log in logs.values():
            log.kill()
            log.wait()


@conformance("Pods", "limits hold: too much memory is OOMKilled, CPU is throttled")
def test_limits(space: Space) -> None:
    quota = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d ' ' -f 1 /sys/fs/cgroup/cpu.max"
    space.create(
        pod("greedy", container("tail /dev/zero", resources={"limits": {"memory": "16Mi"}})),
        pod("slow", container(quota, resources={"limits": {"cpu": "200m"}}), restartPolicy="Never"),
    )
    reasons = set()

    def killed() -> bool:
        """containerd may see the exit before the OOM event and then reports only 137; the container is restarted."""
        for status in space.pod("greedy").status.container_statuses or ():
            for ended in filter(None, (status.state.terminated, status.last_state.terminated)):
                assert ended.exit_code == 137
                reasons.add(ended.reason)
        return "OOMKilled" in reasons

    eventually(killed, what="out of memory")
    space.ended("slow")
    assert space.log("slow") == "20000\n"


@conformance("Pods", "run as the user and group of their securityContext, without the capabilities that it drops")
def test_security_context(space: Space) -> None:
    space.create(
        pod(
            "main",
            container(
                "id -u; id -g; stat -c %g /w; touch /w/mine && touch /no 2>/dev/null || echo read-only; "
                "grep -c 'CapEff:.*[1-9a-f]' /proc/self/status",
                securityContext={
                    "readOnlyRootFilesystem": True,
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
                volumeMounts=[{"name": "w", "mountPath": "/w"}],
            ),
            securityContext={"runAsUser": 1000, "runAsGroup": 1001, "fsGroup": 1002},
            volumes=[{"name": "w", "emptyDir": {}}],
            restartPolicy="Never",
        )
    )
    space.ended("main")
    assert space.log("main").split() == ["1000", "1001", "1002", "read-only", "0"]
    for name in ("net-admin", "sys-module"):
        more = {"capabilities": {"add": [name.upper().replace("-", "_")]}}
        space.create(pod(name, container("true", securityContext=more), restartPolicy="Never"))
        assert space.ended(name).status.phase == "Succeeded"


@conformance("Pods", "`kubectl exec` with input and exit code, `attach`, `cp` both ways")
def test_exec_attach_cp(space: Space, tmp_path: Path) -> None:
    space.create(pod("main", container(f"read line; echo got $line; {HOLD}", stdin=True, stdinOnce=True)))
    space.ready("main")
    assert space.kubectl("exec", "-i", "main", "--", "tr", "a-z", "A-Z", given="shout").out == "SHOUT"
    assert space.kubectl("exec", "main", "--", "sh", "-c", "exit 7", ok=False).code == 7
    attached = space.kube.start("attach", "-i", "main", "-n", space.name, given=True)
    try:
        assert attached.stdin
        attached.stdin.write("hello\n")
        attached.stdin.flush()
        eventually(lambda: space.log("main") == "got hello\n", what="it read its input")
    finally:
        attached.kill()
        attached.wait()
    (tmp_path / "there").write_text("a file\n" * 1000)
    space.kubectl("cp", str(tmp_path / "there"), "main:/tmp/there")
    space.kubectl("cp", "main:/tmp/there", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "a file\n" * 1000


@conformance("Pods", "`kubectl port-forward` to a pod and to a service")
def test_port_forward(kube: Kube, space: Space) -> None:
    space.create(pod("web"), service("web", 8000))
    space.ready("web")
    eventually(lambda: space.endpoints("web"))
    for what in ("pod/web", "service/web"):
        forward = kube.start("port-forward", "-n", space.name, what, ":80" if what == "pod/web" else ":8000")
        try:
            assert forward.stdout
            port = re.search(r"127.0.0.1:(\d+)", forward.stdout.readline())
            assert port
            assert eventually(lambda port=port: get(f"http://127.0.0.1:{port[1]}/")) == "web"
        finally:
            forward.kill()
            forward.wait()


@conformance("Pods", "events are shown by `kubectl describe`")
def test_events(space: Space) -> None:
    space.create(pod("main", container() | {"image": "localhost/minicluster/none:1", "imagePullPolicy": "Never"}))
    told = eventually(
        lambda: "ErrImageNeverPull" in (text := space.kubectl("describe", "pod", "main").out) and text,
        what="the reason is shown",
    )
    assert "Scheduled" in told


# --- storage


@conformance("Storage", "a claim is bound by the default StorageClass, and its volume is removed with it")
def test_claims(kube: Kube, space: Space) -> None:
    space.create(claim("data"))
    name = eventually(lambda: kube.core.read_namespaced_persistent_volume_claim("data", space.name).spec.volume_name)
    volume = kube.core.read_persistent_volume(name)
    assert volume.spec.storage_class_name == "standard"
    assert volume.spec.persistent_volume_reclaim_policy == "Delete"
    kube.core.delete_namespaced_persistent_volume_claim("data", space.name)
    eventually(lambda: name not in [v.metadata.name for v in kube.core.list_persistent_volume().items])
    folder = volume.spec.host_path.path
    eventually(
        lambda: (
            kube.shell.minicluster(
                "exec", "-c", kube.cluster, "agent-1", "--", "test", "!", "-e", folder, ok=False
            ).code
            == 0
        )
    )


@conformance("Storage", "a user other than root may write to a volume, and another agent reads what was written")
def test_volumes_are_everywhere(space: Space) -> None:
    mounts = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    common = {
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000},
        "restartPolicy": "OnFailure",
    }
    write, read = "echo $(id -u) was here >/data/mine", "cat /data/mine && echo more >>/data/mine"
    space.create(claim("data"), pod("writer", container(write, **mounts), nodeName="agent-1", **common))
    assert space.ended("writer").status.phase == "Succeeded"
    space.create(pod("reader", container(read, **mounts), nodeName="agent-2", **common))
    assert space.ended("reader").status.phase == "Succeeded"
    assert space.log("reader") == "1000 was here\n"


# --- privileges


def privileged(name: str, script: str, mounts: Manifest | None = None, **spec: Any) -> Manifest:
    """A privileged pod that runs a script."""
    main = container(script, securityContext={"privileged": True}, **(mounts or {}))
    return pod(name, main, **{"restartPolicy": "Never", "nodeName": "agent-1", **spec})


def capabilities(status: str) -> dict[str, int]:
    """The sets of capabilities in a process's status."""
    return {name: int(bits, 16) for name, bits in re.findall(r"^(Cap\w+):\s+([0-9a-f]+)$", status, re.M)}


@conformance("Privileges", "a privileged pod has all capabilities and devices that the engine can give")
def test_privileged(kube: Kube, space: Space) -> None:
    space.create(privileged("all", "cat /proc/self/status; ls /dev; mkdir /m; mount -t tmpfs x /m && echo mounted"))
    assert space.ended("all").status.phase == "Succeeded"
    said = space.log("all")
    agent = kube.shell.docker("exec", f"{kube.cluster}-agent-1", "cat", "/proc/1/status").out
    assert capabilities(said)["CapEff"] == capabilities(agent)["CapBnd"]
    assert capabilities(agent)["CapBnd"] >> 16 & 1  # SYS_MODULE, which no container has by default
    assert {"fuse", "loop0", "kmsg", "null"} <= set(said.split())
    assert "mounted" in said


@conformance("Privileges", "added capabilities")
def test_added_capabilities(space: Space) -> None:
    added = {"capabilities": {"add": ["NET_ADMIN", "SYS_MODULE", "SYS_TIME", "SYS_PTRACE"]}}
    script = "cat /proc/self/status; ip addr add 192.0.2.1/32 dev lo && ip addr"
    space.create(pod("some", container(script, securityContext=added), restartPolicy="Never"))
    assert space.ended("some").status.phase == "Succeeded"
    found = capabilities(space.log("some"))["CapEff"]
    assert all(found >> bit & 1 for bit in (12, 16, 25, 19))
    assert not found >> 21 & 1  # SYS_ADMIN
    assert "192.0.2.1" in space.log("some")


@conformance("Privileges", "hostNetwork, hostPID and hostIPC show the agent's own")
def test_name_spaces_of_the_agent(kube: Kube, space: Space) -> None:
    shared = {"hostNetwork": True, "hostPID": True, "hostIPC": True}
    space.create(
        pod(
            "host",
            container("ps; ip addr; readlink /proc/self/ns/ipc"),
            nodeName="agent-1",
            restartPolicy="Never",
            **shared,
        )
    )
    space.ended("host")
    said = space.log("host")
    assert "containerd" in said
    assert kube.addresses["agent-1"] in said
    assert kube.shell.docker("exec", f"{kube.cluster}-agent-1", "readlink", "/proc/self/ns/ipc").out.strip() in said


@conformance("Privileges", "hostPath of each type: folders, files, sockets, devices")
def test_host_paths(space: Space) -> None:
    kinds = {
        "DirectoryOrCreate": "/var/tmp/t-folder",
        "Directory": "/var/lib/kubelet",
        "FileOrCreate": "/var/tmp/t-file",
        "File": "/etc/hostname",
        "Socket": "/run/containerd/containerd.sock",
        "CharDevice": "/dev/fuse",
        "BlockDevice": "/dev/loop0",
    }
    names = {kind: kind.lower() for kind in kinds}
    tests = "; ".join(
        f"test {flag} /host/{names[kind]} && echo {kind}"
        for kind, flag in zip(kinds, ("-d", "-d", "-f", "-s", "-S", "-c", "-b"), strict=True)
    )
    mounts = {"volumeMounts": [{"name": name, "mountPath": f"/host/{name}"} for name in names.values()]}
    volumes = [{"name": names[kind], "hostPath": {"path": path, "type": kind}} for kind, path in kinds.items()]
    space.create(privileged("paths", tests, mounts, volumes=volumes))
    space.ended("paths")
    assert set(space.log("paths").split()) == set(kinds)


@conformance("Privileges", "FUSE and loop devices")
def test_fuse_and_loop_devices(space: Space) -> None:
    fuse = (
        "mkdir /m; exec 3<>/dev/fuse; mount -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 x /m &&"
        " grep -c ' /m fuse ' /proc/mounts; umount -l /m; exec 3>&-"
    )
    loop = (
        "dd if=/dev/zero of=/disk bs=1M count=1 2>/dev/null; device=$(losetup -f); losetup $device /disk &&"
        " echo gold | dd of=$device conv=fsync 2>/dev/null; losetup -d $device; head -n 1 /disk"
    )
    space.create(privileged("fuse", fuse), privileged("loop", loop))
    space.ended("fuse")
    space.ended("loop")
    assert space.log("fuse") == "1\n"
    assert space.log("loop") == "gold\n"


@conformance("Privileges", "a mount in a volume with Bidirectional propagation is seen by other pods")
def test_bidirectional_mounts(space: Space) -> None:
    def shares(how: str) -> Manifest:
        return {"volumeMounts": [{"name": "shared", "mountPath": "/shared", "mountPropagation": how}]}

    volumes = [{"name": "shared", "hostPath": {"path": "/var/tmp/t-shared", "type": "DirectoryOrCreate"}}]
    script = f"mkdir -p /shared/in; mount -t tmpfs x /shared/in; echo gold >/shared/in/word; {HOLD}; umount /shared/in"
    space.create(privileged("mounts", script, shares("Bidirectional"), volumes=volumes))
    reader = container("until cat /shared/in/word; do sleep 0.1; done 2>/dev/null", **shares("HostToContainer"))
    space.ready("mounts")
    space.create(pod("reads", reader, nodeName="agent-1", volumes=volumes, restartPolicy="Never"))
    assert space.ended("reads").status.phase == "Succeeded"
    assert space.log("reads") == "gold\n"


@conformance("Privileges", "safe sysctls are set in a pod; unsafe ones are refused unless the kubelet allows them")
def test_sysctls(space: Space) -> None:
    def asks(name: str, value: str) -> Manifest:
        return {"securityContext": {"sysctls": [{"name": name, "value": value}]}}

    script = "cat /proc/sys/net/ipv4/ip_local_port_range"
    safe = asks("net.ipv4.ip_local_port_range", "20000 30000")
    space.create(pod("safe", container(script), restartPolicy="Never", **safe))
    space.create(pod("unsafe", container(script), restartPolicy="Never", **asks("net.core.somaxconn", "77")))
    space.ended("safe")
    assert space.log("safe").split() == ["20000", "30000"]
    assert space.ended("unsafe").status.reason == "SysctlForbidden"
