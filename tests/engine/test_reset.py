"""A cluster reset: filled by stock clients, reset, and looked at by stock clients."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import consul
import pytest
from consul.callback import CB
from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError
from kazoo.security import OPEN_ACL_UNSAFE, make_digest_acl

from minicluster.cluster import Cluster
from minicluster.engine.protocol import Engine
from minicluster.errors import NodeFailed
from tests.engine.conftest import Shell, eventually, remains

NAME = "t-reset"

needs_etcdctl = pytest.mark.skipif(not shutil.which("etcdctl"), reason="etcdctl is not installed")


@contextlib.contextmanager
def up(engine: Engine, outer: Shell, profile: str, name: str = NAME, **options: Any) -> Iterator[Cluster]:
    name = f"{name}-{profile}"
    try:
        yield Cluster.up(profile, name=name, engine=engine, **options)
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}


def reset(cluster: Cluster) -> None:
    """Resets it, and looks that it goes on as the cluster that it was."""
    change = cluster.reset()
    assert (change.cluster, change.changed) == (cluster.name, True)
    status = cluster.status()
    assert status.phase == "ready", status
    assert [(n.name, n.address) for n in status.nodes] == [(n.name, n.address) for n in cluster.spec.nodes]


def published(cluster: Cluster) -> dict[str, str]:
    """HOST:PORT of each node's endpoint on the host."""
    return {e.node: f"{e.host}:{e.port}" for e in cluster.endpoints()}


def kill_leader(cluster: Cluster) -> None:
    quorum = cluster.status().quorum
    assert quorum
    cluster.kill([quorum.leader])


def mend(cluster: Cluster) -> None:
    cluster.start()
    eventually(lambda: cluster.status().phase == "ready", what=f"{cluster.name} is ready again")


@contextlib.contextmanager
def again_and_again(write: Callable[[], object]) -> Iterator[None]:
    """A client that goes on writing meanwhile, ten times a second; it must not fail."""
    stop, errors = threading.Event(), []

    def run() -> None:
        while not stop.wait(0.1):
            try:
                write()
            except Exception as error:
                errors.append(error)

    writer = threading.Thread(target=run)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()
    assert errors == []


# --- etcd ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def etcd(engine: Engine, outer: Shell) -> Iterator[Cluster]:
    with up(engine, outer, "etcd") as cluster:
        yield cluster


def etcdctl(cluster: Cluster, *argv: str, ok: bool = True) -> str:
    return Shell(cluster.env()).run("etcdctl", *argv, ok=ok, timeout=30).out.strip()


def etcd_holds(cluster: Cluster) -> dict[str, Any]:
    """All that is in it and is not nothing."""
    found = {
        "keys": etcdctl(cluster, "get", "", "--prefix", "--keys-only").split(),
        "leases": etcdctl(cluster, "lease", "list").splitlines()[1:],
        "users": etcdctl(cluster, "user", "list"),
        "roles": etcdctl(cluster, "role", "list"),
        "alarms": etcdctl(cluster, "alarm", "list"),
    }
    return {kind: value for kind, value in found.items() if value}


@needs_etcdctl
def test_etcd_loses_keys_leases_users_and_roles(etcd: Cluster) -> None:
    members = etcdctl(etcd, "member", "list")
    for n in range(20):
        etcdctl(etcd, "put", f"key{n}", "value")
    lease = etcdctl(etcd, "lease", "grant", "600").split()[1]
    etcdctl(etcd, "put", "leased", "value", f"--lease={lease}")
    etcdctl(etcd, "lease", "grant", "600")
    for user in ("root", "joe"):
        etcdctl(etcd, "user", "add", f"{user}:secret")
    for role in ("root", "reader"):
        etcdctl(etcd, "role", "add", role)
    etcdctl(etcd, "user", "grant-role", "root", "root")
    etcdctl(etcd, "auth", "enable")
    assert set(etcd_holds(etcd)) == {"keys", "leases", "users", "roles"}
    reset(etcd)
    assert etcd_holds(etcd) == {}
    assert etcdctl(etcd, "member", "list") == members
    reset(etcd)  # there is nothing to remove


@pytest.mark.long
@needs_etcdctl
def test_etcd_right_after_its_leader_died(etcd: Cluster) -> None:
    etcdctl(etcd, "put", "key", "value")
    kill_leader(etcd)
    etcd.reset()
    mend(etcd)
    assert etcd_holds(etcd) == {}


@pytest.mark.long
@needs_etcdctl
def test_etcd_while_a_client_writes(etcd: Cluster) -> None:
    with again_and_again(lambda: etcdctl(etcd, "put", "busy", "value")):
        etcd.reset()
    reset(etcd)
    assert etcd_holds(etcd) == {}


@pytest.mark.long
@needs_etcdctl
def test_etcd_that_is_full_takes_keys_again(engine: Engine, outer: Shell) -> None:
    small = {"tls": "false", "quota": "4000000"}
    with up(engine, outer, "etcd", f"{NAME}-full", size={"kv": 1}, set=small) as cluster:
        while etcdctl(cluster, "put", "big", "x" * 120_000, ok=False):
            pass
        assert "NOSPACE" in etcdctl(cluster, "alarm", "list")
        reset(cluster)
        assert etcd_holds(cluster) == {}
        etcdctl(cluster, "put", "key", "value")
        # Without certificates nobody but a user can switch authentication off: it says so, and touches nothing.
        etcdctl(cluster, "user", "add", "root:secret")
        etcdctl(cluster, "role", "add", "root")
        etcdctl(cluster, "user", "grant-role", "root", "root")
        etcdctl(cluster, "auth", "enable")
        with pytest.raises(NodeFailed, match="etcd-reset") as refused:
            cluster.reset()
        assert "authentication is on" in refused.value.why
        assert etcdctl(cluster, "get", "key", "--print-value-only", "--user=root:secret") == "value"


# --- ZooKeeper -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def zookeeper(engine: Engine, outer: Shell) -> Iterator[Cluster]:
    with up(engine, outer, "zookeeper") as cluster:
        yield cluster


@contextlib.contextmanager
def kazoo(hosts: str) -> Iterator[KazooClient]:
    client = KazooClient(hosts, timeout=10)
    try:
        client.start(timeout=30)
        yield client
    finally:
        client.stop()
        client.close()


def znodes(client: KazooClient, path: str = "/") -> list[str]:
    children = [f"{path.rstrip('/')}/{name}" for name in client.get_children(path)]
    return sorted([*children, *(deeper for child in children for deeper in znodes(client, child))])


EMPTY = ["/zookeeper", "/zookeeper/config", "/zookeeper/quota"]


def test_zookeeper_loses_every_znode_at_every_server(zookeeper: Cluster) -> None:
    mine = make_digest_acl("joe", "secret", all=True)
    with contextlib.ExitStack() as stack:
        # One client of each server, connected before and after.
        clients = [stack.enter_context(kazoo(host)) for host in published(zookeeper).values()]
        client = clients[0]
        config = client.get("/zookeeper/config")[0]
        client.add_auth("digest", "joe:secret")
        client.ensure_path("/deep/er/and/deeper")
        for made in [client.create_async(f"/deep/er/{n}", b"x") for n in range(300)]:
            made.get()
        client.create("/passing", b"x", ephemeral=True)
        client.create("/lock-", sequence=True)
        client.create("/mine", b"x", acl=[mine])
        client.create("/mine/too", b"x", acl=[mine])
        client.create("/ünïcode ✓", b"x")
        client.create("/zookeeper/guest", b"x")
        client.create("/zookeeper/quota/deep", b"")
        client.create("/zookeeper/quota/deep/zookeeper_limits", b"count=1,bytes=-1")
        client.create("/zookeeper/quota/deep/zookeeper_stats", b"count=0,bytes=0")
        client.set("/", b"x")
        client.set_acls("/", [mine])
        reset(zookeeper)
        for each in clients:
            assert znodes(each) == EMPTY
            assert each.get("/")[0] == b""
            assert each.get_acls("/")[0] == OPEN_ACL_UNSAFE
        assert client.get("/zookeeper/config")[0] == config
        clients[1].create("/new", b"y")
        reset(zookeeper)
        assert [znodes(each) for each in clients] == [EMPTY] * 3


@pytest.mark.long
def test_zookeeper_right_after_its_leader_died(zookeeper: Cluster) -> None:
    hosts = ",".join(published(zookeeper).values())
    with kazoo(hosts) as client:
        client.create("/key", b"x")
    kill_leader(zookeeper)
    zookeeper.reset()
    mend(zookeeper)
    with kazoo(hosts) as client:
        assert znodes(client) == EMPTY


@pytest.mark.long
def test_zookeeper_while_a_client_writes(zookeeper: Cluster) -> None:
    with kazoo(",".join(published(zookeeper).values())) as client:

        def write() -> None:
            with contextlib.suppress(NoNodeError):  # it may go before there is something in it
                client.ensure_path("/busy/at")
                client.create("/busy/at/n-", b"x", sequence=True)

        with again_and_again(write):
            zookeeper.reset()
        reset(zookeeper)
        client.sync("/")
        assert znodes(client) == EMPTY


# --- Consul ----------------------------------------------------------------------------------------------------------


def consul_clients(cluster: Cluster) -> dict[str, consul.Consul]:
    token = cluster.env().get("CONSUL_HTTP_TOKEN")
    found = {}
    for node, at in published(cluster).items():
        host, port = at.split(":")
        found[node] = consul.Consul(host=host, port=int(port), token=token)
    return found


def consul_holds(client: consul.Consul) -> dict[str, Any]:
    """All that is in it beside its nodes, itself and minicluster's own token, and is not nothing."""

    def ask(path: str) -> Any:
        return client.http.get(CB.json(), f"/v1/{path}", headers=client.prepare_headers())

    kinds = ("service-defaults", "proxy-defaults", "service-router", "service-splitter", "service-resolver")
    found: dict[str, Any] = {
        "keys": client.kv.get("", keys=True)[1],
        "sessions": client.session.list()[1],
        "queries": ask("query"),
        "intentions": ask("connect/intentions"),
        "services": [name for name in client.catalog.services()[1] if name != "consul"],
        "nodes": [n["Node"] for n in client.catalog.nodes()[1] if not n["Node"].startswith(("master-", "agent-"))],
        "checks": [c["CheckID"] for c in client.health.state("any")[1] if c["CheckID"] != "serfHealth"],
        "config": [entry for kind in kinds for entry in ask(f"config/{kind}")],
    }
    if client.token:
        own = ask("acl/token/self")["AccessorID"]
        anonymous = "00000000-0000-0000-0000-000000000002"
        tokens = ask("acl/tokens")
        found |= {
            "tokens": [t for t in tokens if t["AccessorID"] not in (own, anonymous)],
            "anonymous": [t["Policies"] for t in tokens if t["AccessorID"] == anonymous and t.get("Policies")],
            "policies": [p["Name"] for p in ask("acl/policies") if p["Name"] != "global-management"],
            "roles": ask("acl/roles"),
        }
    return {kind: value for kind, value in found.items() if value}


def answers(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except consul.ConsulException:
        return False
    return True


def fill_consul(each: dict[str, consul.Consul]) -> None:
    client = each["master-2"]

    def put(path: str, **body: Any) -> Any:
        return client.http.put(CB.json(), f"/v1/{path}", data=json.dumps(body), headers=client.prepare_headers())

    def post(path: str, **body: Any) -> None:
        client.http.post(CB.json(), f"/v1/{path}", data=json.dumps(body), headers=client.prepare_headers())

    for n in range(20):
        client.kv.put(f"key/{n}", "value")
    session = client.session.create(lock_delay=15)
    assert client.kv.put("locked", "value", acquire=session)
    post("query", Name="find-web", Service={"Service": "web"})
    client.agent.service.register("db", port=1)
    client.agent.check.register("alive", check=consul.Check.ttl("60s"))
    client.agent.maintenance(True, "for a while")
    connect = {"sidecar_service": {}}
    each["agent-1"].agent.service.register("web", "web 1/2", port=2, check=consul.Check.ttl("60s"), connect=connect)
    put("catalog/register", Node="outside", Address="203.0.113.1", Service={"Service": "mail"}, Check={"Name": "up"})
    post("connect/intentions", SourceName="web", DestinationName="db", Action="deny")
    put("config", Kind="service-defaults", Name="web", Protocol="http")
    put("config", Kind="service-defaults", Name="db", Protocol="http")
    put("config", Kind="service-splitter", Name="web", Splits=[{"Weight": 50}, {"Weight": 50, "Service": "db"}])
    put("config", Kind="service-resolver", Name="db", ConnectTimeout="5s")
    if client.token:
        policy = put("acl/policy", Name="readers", Rules='key_prefix "" {policy = "read"}')
        role = put("acl/role", Name="reader", Policies=[{"ID": policy["ID"]}])
        put("acl/token", Description="joe's", Roles=[{"ID": role["ID"]}])
        anonymous = "00000000-0000-0000-0000-000000000002"
        put(f"acl/token/{anonymous}", AccessorID=anonymous, Description="x", Policies=[{"ID": policy["ID"]}])


def test_consul_loses_all_but_its_nodes(engine: Engine, outer: Shell) -> None:
    with up(engine, outer, "consul", size={"agent": 1}, set={"acl": "true"}) as cluster:
        each = consul_clients(cluster)
        for node in each.values():  # each server by itself gives up the kind of ACLs that it begins with
            eventually(lambda node=node: answers(node.acl.policy.list), what="the server has policies")
        fill_consul(each)
        client = each["master-1"]
        filled = {"keys", "sessions", "queries", "intentions", "services", "nodes", "checks", "config"}
        filled |= {"tokens", "anonymous", "policies", "roles"}
        eventually(lambda: set(consul_holds(client)) == filled, within=10, what="everything is there")
        reset(cluster)
        assert consul_holds(client) == {}
        for node in each.values():
            assert (node.agent.services(), node.agent.checks()) == ({}, {})
        assert {n["Node"] for n in client.catalog.nodes()[1]} == {n.name for n in cluster.spec.nodes}
        # The lock that was held can be had at once: nothing is left of its lock-delay.
        assert client.kv.put("locked", "value", acquire=client.session.create())
        quorum = cluster.status().quorum
        assert quorum
        outer.docker("restart", "--time", "0", f"{cluster.name}-{quorum.leader}")
        cluster.reset()  # its agent is not there yet, and neither is a new leader
        assert consul_holds(each["agent-1"]) == {}


@pytest.mark.long
def test_consul_without_acls_and_with_one_server(engine: Engine, outer: Shell) -> None:
    with up(engine, outer, "consul", f"{NAME}-one", size={"master": 1, "agent": 0}) as cluster:
        client = consul_clients(cluster)["master-1"]
        client.kv.put("key", "value")
        client.agent.service.register("web", port=1)
        reset(cluster)
        assert consul_holds(client) == {}


# --- Swarm -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swarm(engine: Engine, outer: Shell) -> Iterator[Cluster]:
    with up(engine, outer, "swarm") as cluster:
        yield cluster


DEMO = "localhost/minicluster/demo"


def swarm_holds(client: Shell, cluster: Cluster) -> dict[str, Any]:
    """All that is in it beside its nodes and what an engine has at first, and is not nothing."""

    def listed(*argv: str) -> list[str]:
        return client.docker(*argv).out.split()

    nodes = json.loads(client.docker("node", "inspect", *listed("node", "ls", "-q")).out)
    found: dict[str, Any] = {
        "services": listed("service", "ls", "-q"),
        "configs": listed("config", "ls", "-q"),
        "secrets": listed("secret", "ls", "-q"),
        "tasks": listed("node", "ps", "-q", *(n["ID"] for n in nodes)),
        "nodes": [n["Spec"] for n in nodes if n["Spec"]["Availability"] != "active" or n["Spec"]["Labels"]],
    }
    script = "docker ps -aq; echo ,; docker volume ls -q; echo ,; docker network ls --format {{.Name}}"
    at_first = {"bridge", "host", "none", "docker_gwbridge", "ingress"}
    for node in cluster.node_names():
        lists = cluster.exec(node, ["sh", "-c", script]).stdout.split(",")
        for kind, names in zip(("containers", "volumes", "networks"), lists, strict=True):
            found[f"{kind} of {node}"] = set(names.split()) - at_first
    return {kind: value for kind, value in found.items() if value}


def running(client: Shell, service: str) -> int:
    rows = client.docker("service", "ps", service, "--format", "{{.CurrentState}}").out.splitlines()
    return sum(row.startswith("Running") for row in rows)


def test_swarm_loses_services_and_all_that_is_on_its_nodes(swarm: Cluster, tmp_path: Path) -> None:
    client = Shell(swarm.env())
    text = tmp_path / "text"
    text.write_text("hello")
    client.docker("config", "create", "settings", str(text))
    client.docker("secret", "create", "password", str(text))
    client.docker("network", "create", "--driver", "overlay", "--attachable", "between")
    client.docker("node", "update", "--label-add", "a label=x", "--label-add", "zone=b", "agent-1")
    client.docker("node", "update", "--availability", "drain", "agent-2")
    create = ("service", "create", "--detach", "--no-resolve-image")
    client.docker(*create, "--name", "web", "--replicas", "2", "--network", "between", "--endpoint-mode", "dnsrr", DEMO)
    # One whose containers do not listen to what they are asked: they would take ten seconds to end.
    stubborn = ("--name", "stubborn", "--mode", "global", "--config", "settings", "--secret", "password")
    client.docker(*create, *stubborn, "--mount", "type=volume,source=data,target=/data", DEMO, "sleep", "1000")
    for node, network in (("master-1", "between"), ("agent-2", "own")):  # no task attaches a node that is drained
        for argv in (
            ["network", "create", "own"],
            ["volume", "create", "vol"],
            ["run", "-d", "--network", network, DEMO],
        ):
            result = swarm.exec(node, ["docker", *argv])
            assert result.exit_code == 0, result.stderr
    eventually(lambda: running(client, "stubborn") == 2 and running(client, "web") == 2, what="tasks run")
    before = {"services", "configs", "secrets", "tasks", "nodes", "containers of agent-1", "volumes of agent-1"}
    assert before < set(swarm_holds(client, swarm))
    begun = time.monotonic()
    reset(swarm)
    assert time.monotonic() - begun < 10
    assert swarm_holds(client, swarm) == {}
    # It works as it did at first, with the image that it had.
    client.docker(*create, "--name", "again", "--mode", "global", DEMO)
    eventually(lambda: running(client, "again") == 3, what="a task runs on each node")


@pytest.mark.long
def test_a_swarm_with_a_node_down_is_left_as_it_is(swarm: Cluster, outer: Shell) -> None:
    client = Shell(swarm.env())
    swarm.reset()
    client.docker("service", "create", "--detach", "--no-resolve-image", "--name", "web", DEMO)
    swarm.kill(["agent-2"])
    with pytest.raises(NodeFailed, match="cannot be reset") as refused:
        swarm.reset()
    assert "agent-2" in refused.value.why
    assert client.docker("service", "ls", "-q").out.split() != []
    mend(swarm)
    answer = outer.minicluster("reset", swarm.name)
    assert answer.out.startswith(f"Cluster {swarm.name}: reset, in ")
    assert swarm_holds(client, swarm) == {}
