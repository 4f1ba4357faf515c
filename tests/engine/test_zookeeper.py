"""A real ZooKeeper ensemble, proved with kazoo on the host and zkCli.sh in its nodes."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError

from tests.engine.conftest import Shell, eventually, remains
from tests.engine.sockets import waiting

NAME = "t-zk"
THREE = {"kv-1", "kv-2", "kv-3"}


@pytest.fixture(scope="module")
def cluster(outer: Shell) -> Iterator[Shell]:
    """Three voters; the value is a shell with what ``minicluster env`` prints."""
    try:
        outer.minicluster("up", "zookeeper", "--name", NAME, timeout=600)
        yield Shell(outer.env | outer.minicluster("env", NAME, "-o", "json").json)
    finally:
        outer.minicluster("down", NAME, ok=False)
    assert remains(outer, NAME) == {}


@contextlib.contextmanager
def client(hosts: str) -> Iterator[KazooClient]:
    """kazoo, connected."""
    made = KazooClient(hosts, timeout=5)
    try:
        made.start(timeout=30)
        yield made
    finally:
        made.stop()
        made.close()


def hosts(shell: Shell, name: str = NAME) -> dict[str, str]:
    """HOST:PORT of each node's client port, on the host."""
    endpoints = shell.minicluster("info", name, "-o", "json").json["endpoints"]
    return {e["node"]: e["url"].removeprefix("zookeeper://") for e in endpoints if e["name"] == "client"}


def is_ready(shell: Shell, voters: int, name: str = NAME) -> str:
    """Waits until the whole ensemble is ready; its leader's name."""

    def ask() -> str:
        status = shell.minicluster("status", name, "-o", "json").json
        quorum = status["quorum"]
        good = status["phase"] == "ready" and quorum and quorum["voters"] == quorum["healthy"] == voters
        return str(quorum["leader"]) if good else ""

    return str(eventually(ask, what=f"{voters} voters are ready"))


def listed(shell: Shell, node: str) -> set[str]:
    """The voters by the ensemble's own configuration, as zkCli.sh in a node reads it."""
    out = shell.minicluster("exec", "-c", NAME, node, "--", "zkCli.sh", "config").out
    lines = [line for line in out.splitlines() if line.startswith("server.") and ":participant;" in line]
    return {"kv-" + line.removeprefix("server.").split("=")[0] for line in lines}


def word(host: str, what: bytes) -> str:
    """What a server answers to a four-letter word."""
    address, port = host.split(":")
    with socket.create_connection((address, int(port)), timeout=5) as connection:
        connection.sendall(what)
        return b"".join(iter(lambda: connection.recv(4096), b"")).decode()


def test_members_and_leader(cluster: Shell) -> None:
    status = cluster.minicluster("status", NAME, "-o", "json").json
    assert (status["cluster"], status["profile"], status["phase"]) == (NAME, "zookeeper", "ready")
    leaders = [n["name"] for n in status["nodes"] if n["leader"]]
    assert leaders == [status["quorum"]["leader"]]
    assert status["quorum"] == {"voters": 3, "healthy": 3, "needed": 2, "survives": 1, "leader": leaders[0]}
    # Each server says the same of itself.
    modes = {node: word(host, b"srvr").split("Mode: ")[1].split()[0] for node, host in hosts(cluster).items()}
    assert modes == {node: "leader" if node == leaders[0] else "follower" for node in THREE}


def test_what_is_written_through_one_node_is_read_through_every_other(cluster: Shell) -> None:
    for node, host in hosts(cluster).items():
        with client(host) as one:
            one.create(f"/from-{node}", node.encode())
    for host in hosts(cluster).values():
        with client(host) as one:
            one.sync("/")
            assert {one.get(f"/from-{node}")[0].decode() for node in THREE} == THREE


def test_stock_clients_connect_with_env(cluster: Shell) -> None:
    assert cluster.env["ZOOKEEPER_HOSTS"] == ",".join(hosts(cluster).values())
    with client(cluster.env["ZOOKEEPER_HOSTS"]) as one:
        one.ensure_path("/seen")
    for node in THREE:
        assert "seen" in cluster.minicluster("exec", "-c", NAME, node, "--", "zkCli.sh", "ls", "/").out
    # Debian's own client on the host's network, as an installed one would be.
    image = cluster.docker("inspect", f"{NAME}-kv-1", "--format", "{{.Config.Image}}").out.strip()
    run = ("run", "--rm", "--name", f"{NAME}-client", "--network", "host", image)
    assert "seen" in cluster.docker(*run, "zkCli.sh", "-server", cluster.env["ZOOKEEPER_HOSTS"], "ls", "/").out


def test_only_the_probes_four_letter_words_are_answered(cluster: Shell) -> None:
    host = hosts(cluster)["kv-1"]
    assert "Mode: " in word(host, b"srvr")
    for refused in (b"mntr", b"dump", b"wchs", b"envi"):
        assert "not in the whitelist" in word(host, refused)


@pytest.mark.long
def test_many_sessions_of_one_address(cluster: Shell) -> None:
    """All clients on the host come from the gateway's address, and ZooKeeper allows an address 60 connections."""
    host, port = hosts(cluster)["kv-1"].split(":")
    hello = struct.pack(">iqiqi16sb", 0, 0, 10000, 0, 16, bytes(16), 0)
    with waiting(260, host, int(port), struct.pack(">i", len(hello)) + hello) as answers:
        sessions = [struct.unpack_from(">q", answer, 12)[0] for answer in answers]
    assert all(sessions)
    assert len(set(sessions)) == 260


def test_only_the_super_user_may_change_the_membership(cluster: Shell) -> None:
    with client(cluster.env["ZOOKEEPER_HOSTS"]) as one:
        with pytest.raises(NoAuthError):
            one.reconfig(joining=None, leaving="1", new_members=None)
        one.add_auth("digest", "super:super")
        with pytest.raises(NoAuthError):
            one.reconfig(joining=None, leaving="1", new_members=None)
    assert listed(cluster, "kv-1") == THREE
    secrets = set()
    for node in sorted(THREE):
        run = ("exec", "-c", NAME, node, "--")
        assert cluster.minicluster(*run, "stat", "-c", "%a", "/etc/zookeeper/super").out.strip() == "600"
        secrets.add(cluster.minicluster(*run, "cat", "/etc/zookeeper/super").out.strip())
    assert len(secrets) == 1
    assert len(secrets.pop()) == 64


def test_nodes_are_limited_and_small(cluster: Shell) -> None:
    for node in cluster.minicluster("status", NAME, "-o", "json").json["nodes"]:
        assert node["memory"] < 96 * 2**20
        limit = cluster.docker("inspect", node["container"], "--format", "{{.HostConfig.Memory}}").out
        assert int(limit) == 256 * 2**20


@pytest.mark.long
def test_a_killed_leader_is_replaced_and_comes_back(cluster: Shell) -> None:
    leader = is_ready(cluster, 3)
    others = {node: host for node, host in hosts(cluster).items() if node != leader}
    cluster.docker("kill", f"{NAME}-{leader}")
    began = time.monotonic()

    def led() -> bool:
        with contextlib.suppress(OSError):
            return any("Mode: leader" in word(host, b"srvr") for host in others.values())
        return False

    eventually(led, within=5, what="another leader")
    assert time.monotonic() - began < 5
    with client(",".join(others.values())) as one:
        one.create("/while-one-is-dead", b"x")
    cluster.minicluster("up", "--name", NAME)
    assert is_ready(cluster, 3) != leader
    with client(hosts(cluster)[leader]) as one:
        one.sync("/")
        assert one.exists("/while-one-is-dead")


@pytest.mark.long
def test_it_grows_to_five_and_shrinks_with_its_leader_among_the_removed(cluster: Shell) -> None:
    with client(cluster.env["ZOOKEEPER_HOSTS"]) as one:
        one.create("/before-it-grew", b"x")
    cluster.minicluster("up", "--name", NAME, "--size", "kv=5")
    is_ready(cluster, 5)
    assert listed(cluster, "kv-5") == {*THREE, "kv-4", "kv-5"}
    # Among equals the highest number is elected: with the present leader away for a moment that is one of the new ones.
    while (leader := is_ready(cluster, 5)) in THREE:
        cluster.docker("restart", "-t", "1", f"{NAME}-{leader}")
    with client(hosts(cluster)[leader]) as one:
        one.create("/while-it-was-large", b"x")
    cluster.minicluster("up", "--name", NAME, "--size", "kv=3")
    assert is_ready(cluster, 3) in THREE
    assert listed(cluster, "kv-1") == THREE
    for host in hosts(cluster).values():
        with client(host) as one:
            one.sync("/")
            assert one.exists("/before-it-grew")
            assert one.exists("/while-it-was-large")


@pytest.mark.long
def test_one_becomes_three_and_one_again(outer: Shell) -> None:
    name = f"{NAME}-one"
    try:
        outer.minicluster("up", "zookeeper", "--name", name, "--size", "kv=1", timeout=600)
        assert is_ready(outer, 1, name) == "kv-1"
        with client(hosts(outer, name)["kv-1"]) as one:
            one.create("/kept", b"x")
        outer.minicluster("up", "--name", name, "--size", "kv=3")
        is_ready(outer, 3, name)
        outer.minicluster("up", "--name", name, "--size", "kv=1")
        assert is_ready(outer, 1, name) == "kv-1"
        with client(hosts(outer, name)["kv-1"]) as one:
            assert one.exists("/kept")
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}


@pytest.mark.long
def test_a_node_removed_with_docker_is_recreated_with_and_without_its_data(cluster: Shell) -> None:
    with client(cluster.env["ZOOKEEPER_HOSTS"]) as one:
        one.create("/before-a-node-was-lost", b"x")
    leader = is_ready(cluster, 3)
    cluster.docker("rm", "-f", f"{NAME}-{leader}")
    nodes = {n["name"]: n for n in cluster.minicluster("status", NAME, "-o", "json").json["nodes"]}
    assert nodes[leader]["phase"] == "missing"
    cluster.minicluster("up", "--name", NAME)
    # Its data gone as well, it has forgotten what it acknowledged: it votes again only when it has copied them.
    leader = is_ready(cluster, 3)
    cluster.docker("rm", "-f", f"{NAME}-{leader}")
    cluster.docker("volume", "rm", f"{NAME}-{leader}-var-lib-zookeeper")
    cluster.minicluster("up", "--name", NAME)
    is_ready(cluster, 3)
    assert listed(cluster, leader) == THREE
    with client(hosts(cluster)[leader]) as one:
        one.sync("/")
        assert one.exists("/before-a-node-was-lost")


def configured(shell: Shell) -> set[str]:
    """The list of servers and its version, as each node has it: any change makes a new version."""
    return {word(host, b"conf").split("membership:")[1] for host in hosts(shell).values()}


@pytest.mark.long
def test_a_voter_that_joins_again_stays_a_voter(cluster: Shell) -> None:
    before = configured(cluster)
    assert len(before) == 1
    address = {n["name"]: n["address"] for n in cluster.minicluster("status", NAME, "-o", "json").json["nodes"]}
    for node in sorted(THREE):
        cluster.docker("exec", f"{NAME}-{node}", "zk-join", address["kv-2" if node == "kv-1" else "kv-1"])
    # Nobody can be asked who is a member, so all but one are told to join.
    cluster.docker("rm", "-f", *(f"{NAME}-{node}" for node in THREE))
    cluster.minicluster("up", "--name", NAME)
    assert configured(cluster) == before


@pytest.mark.long
def test_a_new_attempt_to_join_ends_the_former(cluster: Shell) -> None:
    run = ["docker", "exec", f"{NAME}-kv-2", "zk-join", "192.0.2.1"]  # nobody has that address
    former = subprocess.Popen(run, env=os.environ | cluster.env, stderr=subprocess.PIPE, text=True)
    time.sleep(1)
    assert former.poll() is None
    cluster.docker("exec", f"{NAME}-kv-2", "zk-join", "--cancel")
    assert "cancelled by a newer run" in former.communicate(timeout=5)[1]
    assert former.returncode == 1
    assert listed(cluster, "kv-1") == THREE


@pytest.mark.long
@pytest.mark.parametrize("seconds", [1.5, 4.5, 5.5])
def test_killed_in_the_middle_of_scaling_then_up_finishes(cluster: Shell, seconds: float) -> None:
    with client(cluster.env["ZOOKEEPER_HOSTS"]) as one:
        one.ensure_path(f"/killed-{seconds}")
    for size, after in (5, seconds), (3, seconds / 2):
        process = cluster.start("scale", f"kv={size}", "-c", NAME)
        time.sleep(after)
        process.kill()
        process.communicate()
        cluster.minicluster("up", "--name", NAME, "--size", f"kv={size}", timeout=300)
        is_ready(cluster, size)
        assert listed(cluster, "kv-1") == {f"kv-{n}" for n in range(1, size + 1)}
    with client(hosts(cluster)["kv-3"]) as one:
        one.sync("/")
        assert one.exists(f"/killed-{seconds}")


@pytest.mark.long
def test_killed_while_nodes_join_then_up_goes_back(cluster: Shell) -> None:
    process = cluster.start("scale", "kv=5", "-c", NAME)
    joins = ("top", f"{NAME}-kv-5", "-eo", "pid,args")
    eventually(lambda: "zk-join" in cluster.docker(*joins, ok=False).out, what="kv-5 joins")
    process.kill()
    process.communicate()
    cluster.minicluster("up", "--name", NAME, "--size", "kv=3", timeout=300)
    is_ready(cluster, 3)
    assert listed(cluster, "kv-1") == THREE


@pytest.mark.long
def test_all_nodes_restarted_and_killed_at_once_are_the_same_ensemble(cluster: Shell) -> None:
    """The membership is that of the last change, not that of the bootstrap list."""
    cluster.minicluster("up", "--name", NAME, "--size", "kv=5")
    cluster.minicluster("up", "--name", NAME, "--size", "kv=3")
    nodes = [f"{NAME}-{node}" for node in sorted(THREE)]
    with client(cluster.env["ZOOKEEPER_HOSTS"]) as one:
        one.create("/before-the-restart", b"x")
    cluster.docker("restart", "-t", "2", *nodes)
    is_ready(cluster, 3)
    cluster.docker("kill", *nodes)
    cluster.docker("start", *nodes)
    is_ready(cluster, 3)
    assert listed(cluster, "kv-2") == THREE
    with client(cluster.env["ZOOKEEPER_HOSTS"]) as one:
        assert one.exists("/before-the-restart")


@pytest.mark.long
def test_a_change_of_settings_takes_the_nodes_one_after_the_other(cluster: Shell) -> None:
    with client(cluster.env["ZOOKEEPER_HOSTS"]) as one:
        one.create("/before-the-settings", b"x")
    cluster.minicluster("up", "--name", NAME, "--set", "tick_time=400", "--set", "admin_server=true")
    is_ready(cluster, 3)
    for node, host in hosts(cluster).items():
        assert "tickTime=400" in word(host, b"conf")
        ask = "exec 3<>/dev/tcp/127.0.0.1/8080; printf 'GET /commands/ruok HTTP/1.0\\r\\n\\r\\n' >&3; timeout 5 cat <&3"

        def answers(node: str = node, ask: str = ask) -> bool:
            return '"command" : "ruok"' in cluster.minicluster("exec", "-c", NAME, node, "--", "bash", "-c", ask).out

        eventually(answers, within=10, what=f"the admin server of {node}")
    with client(cluster.env["ZOOKEEPER_HOSTS"]) as one:
        assert one.exists("/before-the-settings")
    cluster.minicluster("up", "--name", NAME, "--set", "tick_time=500", "--set", "admin_server=false")
    is_ready(cluster, 3)


@pytest.mark.long
def test_up_restores_a_lost_quorum(cluster: Shell) -> None:
    leader = is_ready(cluster, 3)
    left = next(iter(sorted(THREE - {leader})))
    cluster.docker("kill", *(f"{NAME}-{node}" for node in THREE if node != left))
    eventually(lambda: "not currently serving" in word(hosts(cluster)[left], b"srvr"), what="it has lost its leader")
    told = cluster.minicluster("exec", "-c", NAME, left, "--", "zk-members", ok=False)
    assert told.code == 1
    assert "no leader" in told.err
    one = KazooClient(hosts(cluster)[left], timeout=2)
    try:
        with pytest.raises(one.handler.timeout_exception):
            one.start(timeout=3)
    finally:
        one.stop()
        one.close()
    cluster.minicluster("up", "--name", NAME)
    is_ready(cluster, 3)
    with client(cluster.env["ZOOKEEPER_HOSTS"]) as one:
        one.create("/again", b"x")


#: Laid out as the project's own image is, out of the node image's files: no registry is asked.
UPSTREAM = r"""
ARG BUILT
ARG BASE
FROM ${BUILT} AS built
RUN home=/up/apache-zookeeper-3.9.6-bin && mkdir -p $home/bin $home/lib /up/conf /up/opt/java/openjdk \
 && cd /usr/lib/jvm/java-21-openjdk-amd64 && cp -rL bin conf lib /up/opt/java/openjdk/ \
 && cp /usr/share/java/zookeeper/*.jar $home/lib/ && cp /etc/zookeeper/logback.xml /up/conf/ \
 && printf '%s\n' '#!/bin/bash' '. "$(dirname "$0")/zkEnv.sh"' \
      'exec $JAVA $CLIENT_JVMFLAGS -cp "$CLASSPATH" org.apache.zookeeper.ZooKeeperMain "$@"' >$home/bin/zkCli.sh \
 && chmod +x $home/bin/zkCli.sh \
 && echo 'JAVA=java CLASSPATH="/conf:/apache-zookeeper-3.9.6-bin/lib/*"' >$home/bin/zkEnv.sh
FROM ${BASE}
COPY --from=built /up/ /
ENV PATH=/opt/java/openjdk/bin:/apache-zookeeper-3.9.6-bin/bin:/usr/local/bin:/usr/bin:/bin ZOO_CONF_DIR=/conf
VOLUME ["/data", "/datalog", "/logs"]
WORKDIR /apache-zookeeper-3.9.6-bin
"""


@pytest.mark.long
def test_an_image_laid_out_like_upstreams_gets_python_added(cluster: Shell, tmp_path: Path) -> None:
    name, image = f"{NAME}-up", "t-zk-upstream:3.9"

    def images() -> set[str]:
        return {image["ref"] for image in cluster.minicluster("image", "list", "-o", "json").json}

    before = images()
    bases = ("debian:trixie-slim", "minicluster/base:trixie")
    base = next((ref for ref in bases if not cluster.docker("image", "inspect", ref, ok=False).code), "")
    assert base, "the image was built on one of them"
    (tmp_path / "Dockerfile").write_text(UPSTREAM)
    built = cluster.docker("inspect", f"{NAME}-kv-1", "--format", "{{.Config.Image}}").out.strip()
    try:
        build = (
            "build",
            "-q",
            "-t",
            image,
            "--build-arg",
            f"BUILT={built}",
            "--build-arg",
            f"BASE={base}",
            str(tmp_path),
        )
        cluster.docker(*build, timeout=300)
        cluster.minicluster("up", "zookeeper", "--name", name, "--image", f"node={image}")
        is_ready(cluster, 3, name)
        with client(hosts(cluster, name)["kv-1"]) as one:
            one.create("/there", b"x")
        cluster.minicluster("up", "--name", name, "--size", "kv=5")
        is_ready(cluster, 5, name)
        with client(hosts(cluster, name)["kv-5"]) as one:
            one.sync("/")
            assert one.exists("/there")
            cluster.minicluster("reset", name)
            assert not one.exists("/there")
    finally:
        cluster.minicluster("down", name, ok=False)
        for ref in images() - before:
            cluster.minicluster("image", "remove", ref, ok=False)
        cluster.docker("rmi", "-f", image, ok=False)
    assert remains(cluster, name) == {}
