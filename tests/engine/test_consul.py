"""A real Consul, proved with the stock consul command in its nodes and py-consul from the host."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import consul
import pytest

from tests.engine.conftest import SETTINGS, VERSION, Result, Shell, eventually, remains
from tests.https_server import serving

NAME = "t-consul"
MASTERS = {"master-1", "master-2", "master-3"}
NODES = MASTERS | {"agent-1", "agent-2"}


@pytest.fixture(scope="module")
def cluster(outer: Shell) -> Iterator[Shell]:
    """Three masters and two agents; the value is minicluster on the engine that runs them."""
    try:
        outer.minicluster("up", "consul", "--name", NAME, *VERSION["consul"], timeout=600)
        yield outer
    finally:
        outer.minicluster("down", NAME, ok=False)
    assert remains(outer, NAME) == {}


def up(shell: Shell, *argv: str, name: str = NAME) -> None:
    shell.minicluster("up", "--name", name, *argv)


def cli(shell: Shell, node: str, *argv: str, name: str = NAME, ok: bool = True) -> str:
    """What the stock command in a node says."""
    return shell.minicluster("exec", "-c", name, node, "--", "consul", *argv, ok=ok).out


def members(shell: Shell, name: str = NAME) -> set[str]:
    """The members that live, by the stock command."""
    rows = [row.split() for row in cli(shell, "master-1", "members", name=name).splitlines()[1:]]
    return {row[0] for row in rows if row[2] == "alive"}


def voters(shell: Shell, name: str = NAME) -> dict[str, str]:
    """Name and state of every server that has a vote, by the stock command."""
    rows = [row.split() for row in cli(shell, "master-1", "operator", "raft", "list-peers", name=name).splitlines()]
    return {row[0]: row[3] for row in rows[1:] if row[4] == "true"}


def status(shell: Shell, name: str = NAME) -> Any:
    return shell.minicluster("status", name, "-o", "json").json


def configured(shell: Shell, name: str = NAME) -> Any:
    """The servers that Raft counts, and the index of the entry that said so: any change makes another one."""
    ask = ("exec", "-c", name, "master-1", "--", "consul-ask", "GET", "127.0.0.1", "operator/raft/configuration")
    told = json.loads(shell.minicluster(*ask).out)
    return told["Index"], {server["ID"]: server["Voter"] for server in told["Servers"]}


def clients(shell: Shell, name: str = NAME, token: str | None = None) -> dict[str, Any]:
    """A py-consul client for every node, over its published port."""
    found = {}
    for endpoint in shell.minicluster("info", name, "-o", "json").json["endpoints"]:
        at = urlsplit(endpoint["url"])
        found[endpoint["node"]] = consul.Consul(host=at.hostname, port=at.port, token=token)
    return found


def test_stock_client_sees_every_node(cluster: Shell) -> None:
    assert members(cluster) == NODES
    assert set(voters(cluster)) == MASTERS
    assert sorted(voters(cluster).values()) == ["follower", "follower", "leader"]


def test_status_shows_quorum_and_leader(cluster: Shell) -> None:
    told = status(cluster)
    assert (told["phase"], told["profile"]) == ("ready", "consul")
    leader = next(name for name, state in voters(cluster).items() if state == "leader")
    expected = {"voters": 3, "healthy": 3, "needed": 2, "survives": 1, "leader": leader}
    assert {key: told["quorum"][key] for key in expected} == expected
    assert {node["name"] for node in told["nodes"] if node["ready"]} == NODES


def test_keys_are_written_and_read_through_every_node(cluster: Shell) -> None:
    each = clients(cluster)
    assert set(each) == NODES
    for node, client in each.items():
        assert client.kv.put(f"from/{node}", node)
    for client in each.values():
        _, found = client.kv.get("from/", recurse=True)
        assert {entry["Key"]: entry["Value"].decode() for entry in found} == {f"from/{n}": n for n in NODES}


def test_stock_clients_connect_with_env(cluster: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    exports = cluster.minicluster("env", NAME, "-o", "json").json
    assert set(exports) == {"CONSUL_HTTP_ADDR"}
    monkeypatch.setenv("CONSUL_HTTP_ADDR", exports["CONSUL_HTTP_ADDR"])
    assert {node["Node"] for node in consul.Consul().catalog.nodes()[1]} == NODES


def test_user_interface_answers(cluster: Shell) -> None:
    url = cluster.minicluster("env", NAME, "-o", "json").json["CONSUL_HTTP_ADDR"]
    with urllib.request.urlopen(f"{url}/ui/", timeout=5) as page:
        assert "<title>Consul" in page.read().decode()


def test_a_service_registered_on_an_agent_is_in_the_catalog(cluster: Shell) -> None:
    clients(cluster)["agent-2"].agent.service.register("web", port=80)
    answer = eventually(
        lambda: clients(cluster)["master-1"].health.service("web", passing=True)[1],
        what="the service is in the catalog",
    )
    assert [entry["Node"]["Node"] for entry in answer] == ["agent-2"]
    clients(cluster)["agent-2"].agent.service.deregister("web")


def test_ports_are_published_on_loopback_only(cluster: Shell) -> None:
    ports = cluster.docker("ps", "--filter", f"name={NAME}", "--format", "{{.Ports}}").out
    assert ports.count("127.0.0.1:") == len(NODES)
    assert "0.0.0.0:" not in ports


def test_up_again_changes_nothing(cluster: Shell) -> None:
    assert cluster.minicluster("up", "consul", "--name", NAME, "-o", "json").json["changed"] is False


@pytest.mark.long
def test_killed_leader_is_replaced_and_comes_back(cluster: Shell) -> None:
    before = status(cluster)["quorum"]["leader"]
    other = next(iter(MASTERS - {before}))
    client = clients(cluster)[other]
    client.kv.put("before", "x")
    cluster.docker("kill", f"{NAME}-{before}")

    def written() -> bool:
        try:
            return bool(client.kv.put("after", "x"))
        except (consul.ConsulException, OSError):
            return False

    eventually(written, within=20, what="the others take writes")
    told = eventually(lambda: (s := status(cluster))["phase"] == "degraded" and s, what="its death is noticed")
    assert told["quorum"]["voters"] == 3  # it keeps its vote
    assert told["quorum"]["leader"] in MASTERS - {before}
    up(cluster)
    assert members(cluster) == NODES
    assert set(voters(cluster)) == MASTERS
    assert clients(cluster)[before].kv.get("before")[1]["Value"] == b"x"


@pytest.mark.long
@pytest.mark.parametrize("volume", [False, True], ids=["container", "container and volume"])
@pytest.mark.parametrize("role", ["master", "agent"])
def test_a_node_removed_with_docker_is_recreated(cluster: Shell, role: str, volume: bool) -> None:
    clients(cluster)["master-1"].kv.put("kept", "x")
    gone = f"{role}-2"
    cluster.docker("rm", "-f", f"{NAME}-{gone}")
    if volume:
        cluster.docker("volume", "rm", f"{NAME}-{gone}-consul-data")
    assert {n["name"]: n["phase"] for n in status(cluster)["nodes"]}[gone] == "missing"
    up(cluster)
    assert members(cluster) == NODES
    assert set(voters(cluster)) == MASTERS
    assert clients(cluster)[gone].kv.get("kept")[1]["Value"] == b"x"


@pytest.mark.long
@pytest.mark.parametrize("how", ["restart", "kill"])
def test_all_nodes_at_once_come_back_as_the_members_they_were(cluster: Shell, how: str) -> None:
    clients(cluster)["agent-1"].kv.put("all", how)
    identities = cli(cluster, "master-1", "operator", "raft", "list-peers").split("\n")
    nodes = [f"{NAME}-{node}" for node in sorted(NODES)]
    cluster.docker(how, *nodes)
    if how == "kill":
        cluster.docker("start", *nodes)
    eventually(lambda: status(cluster)["phase"] == "ready", within=60, what="ready again")
    ids = {row.split()[1] for row in identities if "true" in row}
    now = cli(cluster, "master-1", "operator", "raft", "list-peers").split("\n")
    assert {row.split()[1] for row in now if "true" in row} == ids
    assert clients(cluster)["agent-2"].kv.get("all")[1]["Value"] == how.encode()


@pytest.mark.long
def test_masters_that_have_their_data_keep_their_votes(cluster: Shell) -> None:
    """Also where they are told to join once more, as after a change that was cut short."""
    before = configured(cluster)
    assert list(before[1].values()) == [True] * 3
    address = {node["name"]: node["address"] for node in status(cluster)["nodes"]}
    for node in sorted(MASTERS):
        initial_member = address["master-2" if node == "master-1" else "master-1"]
        cluster.docker("exec", f"{NAME}-{node}", "consul-join", address[node], initial_member)
    assert configured(cluster) == before
    # Nobody can be asked who is a member, so all but one are told to join.
    cluster.docker("rm", "-f", *(f"{NAME}-{node}" for node in NODES))
    up(cluster)
    assert configured(cluster) == before


@pytest.mark.long
def test_a_new_attempt_to_join_ends_the_former_one(cluster: Shell) -> None:
    node = f"{NAME}-master-3"
    cluster.docker("exec", node, "touch", "/run/consul-waiting")
    try:
        run = ["docker", "exec", node, "consul-join", "192.0.2.1", "192.0.2.2"]  # nobody has these addresses
        former = subprocess.Popen(run, env=os.environ | cluster.env, stderr=subprocess.PIPE, text=True)
        time.sleep(1)
        assert former.poll() is None
        cluster.docker("exec", node, "consul-join", "--cancel")
        assert "cancelled by a newer run" in former.communicate(timeout=5)[1]
        assert former.returncode == 1
    finally:
        cluster.docker("exec", node, "rm", "/run/consul-waiting")
    assert set(voters(cluster)) == MASTERS


@pytest.mark.long
def test_a_master_that_lags_behind_is_not_ready(cluster: Shell) -> None:
    """Its own answer is changed on the way to the probe: a real master catches up sooner than one can look."""
    lagging = """
import sys
sys.path.insert(0, "/usr/local/lib/minicluster")
from consul_api import Agent
ask = Agent.get
def get(self, path):
    answer = ask(self, path)
    if path == "agent/self" and answer["Config"]["NodeName"] == "master-2":
        answer["Stats"]["raft"]["applied_index"] = "1"
    return answer
Agent.get = get
exec(open("/usr/local/bin/consul-members").read())
"""
    said = cluster.docker("exec", f"{NAME}-master-2", "python3", "-IS", "-c", lagging).out
    found = {member["name"]: member for member in map(json.loads, said.splitlines())}
    assert (found["master-2"]["ready"], found["master-2"]["detail"]) == (False, "has not caught up yet")
    assert found.keys() == NODES
    assert all(member["ready"] for name, member in found.items() if name != "master-2")


@pytest.mark.long
@pytest.mark.parametrize("seconds", [1.2, 2.5, 6.0])
def test_killed_in_the_middle_of_scaling_then_up_finishes(cluster: Shell, seconds: float) -> None:
    clients(cluster)["master-1"].kv.put("killed", str(seconds))
    for size, after in (5, seconds), (3, seconds / 2):
        process = cluster.start("scale", f"master={size}", "-c", NAME)
        time.sleep(after)
        process.kill()
        process.communicate()
        cluster.minicluster("up", "--name", NAME, "--size", f"master={size}", timeout=300)
        masters = {f"master-{n}" for n in range(1, size + 1)}
        assert set(voters(cluster)) == masters
        assert members(cluster) == masters | {"agent-1", "agent-2"}
    assert clients(cluster)["master-3"].kv.get("killed")[1]["Value"] == str(seconds).encode()


@pytest.mark.long
@pytest.mark.parametrize("seconds", [2.0, 4.0])
def test_killed_in_the_middle_of_scaling_then_up_goes_back(cluster: Shell, seconds: float) -> None:
    process = cluster.start("scale", "master=5", "-c", NAME)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    cluster.minicluster("up", "--name", NAME, "--size", "master=3", timeout=300)
    assert set(voters(cluster)) == MASTERS
    assert members(cluster) == NODES
    assert len(configured(cluster)[1]) == 3


@pytest.mark.long
def test_scaling_agents(cluster: Shell) -> None:
    kept = cluster.docker("ps", "-q", "--filter", f"name={NAME}-master").out
    up(cluster, "--size", "agent=4")
    assert members(cluster) == NODES | {"agent-3", "agent-4"}
    up(cluster, "--size", "agent=1")
    assert members(cluster) == NODES - {"agent-2"}
    up(cluster, "--size", "agent=2")
    assert members(cluster) == NODES
    assert cluster.docker("ps", "-q", "--filter", f"name={NAME}-master").out == kept


@pytest.mark.long
def test_scaling_masters_takes_the_leader_out_as_well(cluster: Shell) -> None:
    clients(cluster)["master-1"].kv.put("scaled", "x")
    up(cluster, "--size", "master=5")
    five = MASTERS | {"master-4", "master-5"}
    assert set(voters(cluster)) == five
    assert status(cluster)["quorum"]["survives"] == 2
    for _ in range(20):  # until one leads that has to go: as likely as not each time
        if (leader := status(cluster)["quorum"]["leader"]) not in MASTERS:
            break
        cluster.docker("kill", f"{NAME}-{leader}")
        others = five - {leader}
        eventually(lambda o=others: (status(cluster)["quorum"] or {}).get("leader") in o, what="a new leader")
        cluster.docker("start", f"{NAME}-{leader}")
        eventually(lambda: status(cluster)["phase"] == "ready", what="ready again")
    assert leader in five - MASTERS
    up(cluster, "--size", "master=3")
    assert set(voters(cluster)) == MASTERS
    assert members(cluster) == NODES
    up(cluster, "--size", "master=1")
    assert set(voters(cluster)) == {"master-1"}
    up(cluster, "--size", "master=3")
    assert set(voters(cluster)) == MASTERS
    assert clients(cluster)["master-3"].kv.get("scaled")[1]["Value"] == b"x"


def arguments(shell: Shell, node: str, seen: str, doing: Callable[[], object], tmp_path: Path) -> bytes:
    """The arguments of the processes in a node, looked at all the time while something is done until one is seen."""
    look = "while [ ! -e /run/looked ]; do cat /proc/[0-9]*/cmdline; done 2>/dev/null"
    found = tmp_path / node
    with found.open("wb") as out:
        looking = subprocess.Popen(["docker", "exec", node, "sh", "-c", look], env=os.environ | shell.env, stdout=out)
        try:
            eventually(found.read_bytes, what="it is looked at")
            eventually(lambda: (doing(), seen.encode() in found.read_bytes())[1], what=f"a process with {seen}")
        finally:
            shell.docker("exec", node, "touch", "/run/looked", ok=False)  # a node that has left may be gone
            looking.wait(timeout=10)
    return found.read_bytes()


@pytest.mark.long
def test_encryption_and_access_control(outer: Shell, tmp_path: Path) -> None:
    name = "t-consul-safe"
    try:
        safe = ("--set", "acl=true", "--set", "encrypt=true", "--set", "datacenter=dc9")
        outer.minicluster("up", "consul", "--name", name, "--size", "agent=1", *safe, *VERSION["consul"], timeout=600)
        exports = outer.minicluster("env", name, "-o", "json").json
        for client in clients(outer, name).values():
            with pytest.raises(consul.ACLPermissionDenied):
                client.kv.put("a", "x")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(exports["CONSUL_HTTP_ADDR"] + "/v1/operator/raft/configuration", timeout=5)
        up(outer, "--size", "agent=2", "--size", "master=5", name=name)
        up(outer, "--size", "master=3", name=name)
        for node, client in clients(outer, name, exports["CONSUL_HTTP_TOKEN"]).items():
            assert client.kv.put(f"from/{node}", "x")
        assert members(outer, name) == NODES  # the command in a node finds its token
        assert cli(outer, "agent-2", "catalog", "datacenters", name=name).split() == ["dc9"]
        # All five are asked by gossip, which does not insist on an answer.
        ask = ("keyring", "-list")
        eventually(lambda: "[5/5]" in cli(outer, "master-1", *ask, name=name, ok=False), what="one key for all five")

        # Whoever is on the machine reads the arguments of what runs in the nodes, even for a moment.
        def leave() -> None:
            outer.docker("exec", f"{name}-agent-2", "consul-leave")

        shown = arguments(outer, f"{name}-master-1", "consul-members", lambda: status(outer, name), tmp_path)
        shown += arguments(outer, f"{name}-agent-2", "agent/leave", leave, tmp_path)
        assert exports["CONSUL_HTTP_TOKEN"].encode() not in shown
        refused = outer.minicluster("up", "--name", name, "--set", "acl=false", ok=False)
        assert refused.code != 0
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}


@pytest.mark.long
def test_gossip_keys_that_a_user_has_changed(outer: Shell) -> None:
    """A node that was down meanwhile, one that lost its data and a new one have the keys of the cluster."""
    name = "t-consul-keys"
    up_to = ("--size", "agent=1", "--set", "encrypt=true")
    try:
        outer.minicluster("up", "consul", "--name", name, *up_to, *VERSION["consul"], timeout=600)

        def change_keys() -> None:
            """While agent-1 is down."""
            outer.minicluster("kill", "-c", name, "agent-1")
            eventually(lambda: "agent-1" not in members(outer, name), what="agent-1 has failed")
            (first,) = set(re.findall(r"[\w+/]{40,}=*", keyring("-list")))
            new = cli(outer, "master-1", "keygen", name=name).strip()
            for words in (("-install", new), ("-use", new), ("-remove", first)):
                keyring(*words)

        def keyring(*words: str) -> str:
            """Servers say for a while that a node which has just died has not answered."""
            command = ("exec", "-c", name, "master-1", "--", "consul", "keyring", *words)
            done: list[Result] = []

            def succeeds() -> bool:
                done.append(outer.minicluster(*command, ok=False))
                return done[-1].code == 0

            eventually(succeeds, what=f"consul keyring {words[0]}")
            return done[-1].out

        change_keys()
        outer.docker("rm", "-f", f"{name}-master-3")  # the others do not know yet that it does not answer
        outer.docker("volume", "rm", f"{name}-master-3-consul-data")
        up(outer, "--size", "agent=2", name=name)
        assert members(outer, name) == NODES
        up(outer, "--size", "master=5", name=name)
        assert status(outer, name)["phase"] == "ready"
        change_keys()
        for command in "stop", "start":
            outer.minicluster(command, name)
        eventually(lambda: status(outer, name)["phase"] == "ready", what="ready")
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}


@pytest.mark.long
def test_maintenance_is_told(cluster: Shell) -> None:
    cli(cluster, "agent-1", "maint", "-enable", "-reason", "disk")
    try:
        found = status(cluster)
        assert found["phase"] == "ready"
        assert any("agent-1: maintenance mode: disk: consul maint -disable" in note for note in found["notes"]), found
        for command in "stop", "start":
            cluster.minicluster(command, "-c", NAME, "agent-1")
    finally:
        cli(cluster, "agent-1", "maint", "-disable")
    eventually(lambda: "maintenance" not in str(status(cluster)["notes"]), what="the note is gone")


@pytest.mark.long
@pytest.mark.parametrize("source", ["file", "release"])
def test_any_consul_of_the_users_or_of_a_mirror(cluster: Shell, tmp_path: Path, source: str) -> None:
    """Its program is that of the nodes: as a file, and as a release that is not listed, of a server on this machine."""
    name = "t-consul-given"
    program = tmp_path / "consul"
    place = cluster.docker("exec", f"{NAME}-master-1", "sh", "-c", "command -v consul").out.strip()
    cluster.docker("cp", "-L", f"{NAME}-master-1:{place}", str(program))
    version = SETTINGS["consul"]["version"]
    small = ("--size", "master=1", "--size", "agent=0")
    with serving(tmp_path) as server:
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
            packed.writestr("consul", program.read_bytes())
        place = "/releases.hashicorp.com/consul/1.22.99"
        zipped = f"consul_1.22.99_linux_{cluster.docker('version', '--format', '{{.Server.Arch}}').out.strip()}.zip"
        server.answers[f"{place}/{zipped}"] = archive.getvalue()
        sums = f"{hashlib.sha256(archive.getvalue()).hexdigest()}  {zipped}\n"
        server.answers[f"{place}/consul_1.22.99_SHA256SUMS"] = sums.encode()
        shell = Shell(cluster.env | {"SSL_CERT_FILE": str(tmp_path / "ca.pem"), "MINICLUSTER_MIRROR": server.url})
        given = {"file": (f"consul.source={program}", f"version={version}"), "release": ("version=1.22.99",)}[source]
        options = [word for setting in given for word in ("--set", setting)]
        try:
            shell.minicluster("up", "consul", "--name", name, *small, *options, timeout=300)
            told = shell.minicluster("info", name, "-o", "json").json["parts"]["consul"]
            assert (
                told == {"file": f"{version} ({program}, unpinned)", "release": "1.22.99 (release, unpinned)"}[source]
            )
            assert version in cli(shell, "master-1", "version", name=name)
        finally:
            shell.minicluster("down", name, ok=False)
            for image in cluster.minicluster("image", "list", "-o", "json").json:
                if image["ref"].startswith(("minicluster/part-consul:1.22.99", "minicluster/consul-node:")):
                    cluster.minicluster("image", "remove", image["ref"], ok=False)  # not that of the other cluster
    assert remains(cluster, name) == {}


@pytest.mark.long
def test_a_management_token_that_was_replaced_does_not_make_it_sick(outer: Shell) -> None:
    name = "t-consul-token"
    consul = ("exec", "-c", name, "master-1", "--", "env", "-u", "CONSUL_HTTP_TOKEN_FILE", "consul", "acl", "token")

    def state() -> dict[str, bool]:
        return {n["name"]: n["ready"] for n in outer.minicluster("status", name, "-o", "json").json["nodes"]}

    try:
        size = ("--size", "master=3", "--size", "agent=1")
        outer.minicluster("up", "consul", "--name", name, "--set", "acl=true", *size, *VERSION["consul"], timeout=600)
        own = outer.minicluster("exec", "-c", name, "master-1", "--", "cat", "/consul/token").out.strip()

        def created() -> Any:  # the ACLs take a moment to leave their legacy mode
            made = outer.minicluster(
                *consul, "create", "-policy-name", "global-management", "-format", "json", "-token", own, ok=False
            )
            return made.code == 0 and made.json

        new = eventually(created, what="another management token")["SecretID"]
        first = outer.minicluster(*consul, "read", "-self", "-format", "json", "-token", own).json["AccessorID"]
        outer.minicluster(*consul, "delete", "-id", first, "-token", new)
        found = outer.minicluster("status", name, "-o", "json").json
        assert (found["phase"], found["quorum"]["voters"]) == ("ready", 3), found
        assert any("management token is refused" in note for note in found["notes"]), found
        outer.minicluster("kill", "-c", name, "agent-1")
        assert state() == {"master-1": True, "master-2": True, "master-3": True, "agent-1": False}
        outer.minicluster("start", "-c", name, "agent-1")
        refused = outer.minicluster("scale", "master=1", "-c", name, ok=False)
        assert refused.code == 1
        assert "credentials refused" in refused.err
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}


def test_many_clients_of_one_address_may_wait(cluster: Shell) -> None:
    """All clients on the host come from the gateway's address, and Consul allows an address 200 connections."""
    url = urlsplit(cluster.minicluster("env", NAME, "-o", "json").json["CONSUL_HTTP_ADDR"])
    waiting = [socket.create_connection((url.hostname, url.port), timeout=20) for _ in range(260)]
    try:
        for connection in waiting:
            connection.sendall(b"GET /v1/kv/none?index=1&wait=1s HTTP/1.1\r\nHost: consul\r\n\r\n")
        answers = [connection.recv(64) for connection in waiting]
    finally:
        for connection in waiting:
            connection.close()
    assert {answer.split(b" ")[1] for answer in answers} <= {b"200", b"404"}
