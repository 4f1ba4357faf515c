"""What a node leaves in the kernel: nothing. A client that keeps its socket reaches what replaces a task or a node."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.conftest import Shell, eventually, remains, swarm_client
from tests.engine.sockets import Kept

NAME = "t-kernel"
NODES = ("master-1", "agent-1", "agent-2")
IN_NODE = ("usr", "lib", "lib64")  # the task's image has no socat, the node has
#: Answers each line, or packet, with the name of the container.
SERVER = (
    "socat UDP4-RECVFROM:9000,reuseaddr,fork SYSTEM:hostname & "
    "exec socat TCP4-LISTEN:9000,reuseaddr,fork SYSTEM:'while read -r line; do hostname; done'"
)

pytestmark = pytest.mark.long


@pytest.fixture
def cluster(outer: Shell) -> Iterator[Shell]:
    if os.geteuid() != 0 or not outer.env.get("DOCKER_HOST", "unix:").startswith("unix:"):
        pytest.skip("looks at the kernel of the engine's machine, as root")
    try:
        published = ("--port", "agent:9000=19000", "--port", "agent:9000/udp=19000")
        outer.minicluster("up", "swarm", "--name", NAME, *published, timeout=600)
        yield outer
    finally:
        outer.minicluster("down", NAME, ok=False)
    assert remains(outer, NAME) == {}


def tasks(client: Shell) -> set[str]:
    """The names of the containers of the tasks that run, which are what they answer."""
    rows = client.docker(
        "service", "ps", "echo", "--filter", "desired-state=running", "--format", "{{.CurrentState}} {{.ID}}"
    ).out.splitlines()
    ids = [row.split()[-1] for row in rows if row.startswith("Running")]
    format = "{{slice .Status.ContainerStatus.ContainerID 0 12}}"
    return set(client.docker("inspect", "--format", format, *ids).out.split()) if ids else set()


def test_a_kept_socket_leads_to_the_new_task(cluster: Shell) -> None:
    client = swarm_client(cluster, NAME)
    mounts = [word for name in IN_NODE for word in ("--mount", f"type=bind,source=/{name},target=/{name},readonly")]
    ports = [
        word for p in ("tcp", "udp") for word in ("--publish", f"mode=host,target=9000,published=9000,protocol={p}")
    ]
    client.docker(
        "service", "create", "--name", "echo", "--constraint", "node.hostname==agent-1", "--restart-delay", "0s",
        "--stop-grace-period", "1s", "--no-resolve-image", "--detach", *mounts, *ports,
        "localhost/minicluster/demo", "sh", "-c", SERVER,
    )  # fmt: skip
    nodes = {node["name"]: node for node in cluster.minicluster("status", NAME, "-o", "json").json["nodes"]}
    address = nodes["agent-1"]["address"]
    pid = int(cluster.docker("inspect", "-f", "{{.State.Pid}}", f"{NAME}-agent-2").out)
    clients = [
        Kept(kind, *at)
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
        for at in ((address, 9000), (address, 9000, pid), ("127.0.0.1", 19000))
    ]

    def one() -> str:
        found = tasks(client)
        return found.pop() if len(found) == 1 else ""

    with contextlib.ExitStack() as stack:
        for kept in clients:
            stack.callback(kept.close)
        was = ""
        for how in ("created", "killed", "updated", "node restarted", "node recreated"):
            if how == "killed":
                cluster.docker("exec", f"{NAME}-agent-1", "docker", "kill", was)
            elif how == "updated":
                client.docker("service", "update", "--force", "--detach", "echo")
            elif how == "node restarted":
                cluster.minicluster("restart", "-c", NAME, "agent-1")
            elif how == "node recreated":
                cluster.docker("rm", "-f", f"{NAME}-agent-1")
                cluster.minicluster("up", "--name", NAME)
            eventually(lambda was=was: one() not in ("", was), what=f"another task, {how}")  # type: ignore[misc]
            was = one()
            for kept in clients:
                eventually(lambda it=kept, new=was: it.says() == new, within=10, what=f"{was} by {kept}, {how}")  # type: ignore[misc]


def traces(marks: list[str]) -> list[str]:
    """What this machine's kernel has that bears one of these marks. Network name spaces are among the mounts."""
    said = [Path("/proc/self/mountinfo").read_text()]
    for command in ("ip -o link", "ip route show table all", "ip neigh", "iptables-save", "losetup --list", "ip rule"):
        if shutil.which(command.split()[0]):
            done = subprocess.run(command.split(), capture_output=True, text=True)
            said.append(re.sub(r"^", f"{command}: ", done.stdout, flags=re.MULTILINE))
    found = [line for text in said for line in text.splitlines() if any(mark in line for mark in marks)]
    groups = [os.path.join(at, name) for at, names, _ in os.walk("/sys/fs/cgroup") for name in names]
    return found + [path for path in groups if any(mark in path for mark in marks)]


def marks_of(shell: Shell, nodes: tuple[str, ...]) -> list[str]:
    """What nodes are known by in the kernel: containers, their networks' name spaces, addresses, volumes."""
    marks: list[str] = []
    for node in nodes:
        (about,) = json.loads(shell.docker("inspect", f"{NAME}-{node}").out)
        marks += [about["Id"], os.path.basename(about["NetworkSettings"]["SandboxKey"])]
        marks += [f"{network['IPAddress']} " for network in about["NetworkSettings"]["Networks"].values()]
        marks += [mount["Source"] for mount in about["Mounts"] if mount.get("Name")]
    return marks


def test_nothing_of_a_node_is_left(cluster: Shell) -> None:
    """By scaling down, a restart and the end of the cluster; with what only the node's own containers have made."""
    make = (
        "head -c 1048576 /dev/zero >/t-kernel && losetup -f /t-kernel && ip netns add {0} "
        "&& ip link add {0} type bridge && mkdir /run/{0} && mount -t tmpfs {0} /run/{0} && mkdir -p /sys/fs/cgroup/{0}"
    )
    own = [f"{NAME}-own-{number}" for number, _ in enumerate(NODES)]  # at most 15 characters: a device's name
    for node, name in zip(NODES, own, strict=True):
        cluster.docker("exec", f"{NAME}-{node}", "sh", "-c", make.format(name))
        cluster.docker(
            "exec", f"{NAME}-{node}", "docker", "run", "--detach", "--publish", "9001:80", "localhost/minicluster/demo"
        )
    attached = subprocess.run(["losetup", "--list", "--noheadings"], capture_output=True, text=True).stdout
    loops = [line.split()[0] for line in attached.splitlines() if line.rstrip().split()[5:6] == ["/t-kernel"]]
    assert len(loops) >= len(NODES), attached
    network = cluster.docker("network", "inspect", f"{NAME}-net", "--format", "{{.Id}}").out[:12]
    every = [*marks_of(cluster, NODES), *own, f"br-{network}"]
    of_agents = [*marks_of(cluster, NODES[1:]), *own[1:]]
    before = traces(of_agents)
    assert before  # it is a test only if there is something

    cluster.minicluster("restart", "-c", NAME, "agent-1")
    again = marks_of(cluster, ("agent-1",))
    assert traces([own[1]]) == []
    assert len(traces(again)) <= len(before)

    # The neighbours' entries of addresses that nobody has end with the cluster's bridge, or when the kernel needs room.
    cluster.minicluster("scale", "agent=0", "-c", NAME)
    left = [line for line in traces(of_agents + again) if not line.startswith("ip neigh")]
    assert left == []

    cluster.minicluster("down", NAME)
    assert traces(every + again) == []
    attached = subprocess.run(["losetup", "--list", "--noheadings"], capture_output=True, text=True).stdout
    assert "/t-kernel" not in attached
