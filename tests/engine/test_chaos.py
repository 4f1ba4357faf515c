"""Chaos, and what a history of operations says about real systems under faults."""

from __future__ import annotations

import functools
import itertools
import json
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from minicluster.cluster import Cluster
from minicluster.operations import chaos
from minicluster.testing.history import History, check, run
from tests.engine.conftest import VERSION, Shell, eventually

pytestmark = pytest.mark.long

NAME = "t-chaos"


Client = tuple[Callable[[str], Any], Callable[[], Any]]  #: what writes a value, and what reads it


def worker(make: Callable[[int], Client]) -> Callable[[int, History], None]:
    """Each client writes a value of its own and reads, with its own connection."""
    clients: dict[int, Client] = {}
    numbers = itertools.count()

    def work(client: int, history: History) -> None:
        if client not in clients:
            clients[client] = make(client)
        put, get = clients[client]
        value = f"{client}-{next(numbers)}"
        history.write(client, "k", value, lambda: put(value))
        history.read(client, "k", get)

    return work


def during(cluster: Cluster, pool: ThreadPoolExecutor, seed: int) -> Future[list[chaos.Round]]:
    go = chaos.chaos(cluster.engine, cluster.spec, seconds=24, every=8, keep_quorum=True, seed=seed)
    return pool.submit(lambda: [*go])


def etcd_clients(own_cluster: Cluster) -> Callable[[int], Client]:
    import etcd3gw
    import requests

    env = own_cluster.env()
    own_cluster.write_client_files()
    endpoints = own_cluster.endpoints("client")

    def make(client: int) -> Client:
        session = requests.Session()
        session.trust_env = False
        session.verify = env["ETCDCTL_CACERT"]
        session.cert = (env["ETCDCTL_CERT"], env["ETCDCTL_KEY"])
        at = endpoints[client % len(endpoints)]
        etcd = etcd3gw.client(at.host, at.port, protocol="https", timeout=2, session=session)

        def get() -> Any:
            found = etcd.get("k")
            return found[0].decode() if found else None

        return lambda value: etcd.put("k", value), get

    return make


def zookeeper_clients(own_cluster: Cluster) -> Callable[[int], Client]:
    from kazoo.client import KazooClient
    from kazoo.exceptions import NodeExistsError

    hosts = [f"{at.host}:{at.port}" for at in own_cluster.endpoints("client")]

    def make(client: int) -> Client:
        zk = KazooClient(",".join(hosts[client % 3 :] + hosts[: client % 3]), timeout=6, randomize_hosts=False)
        zk.start(timeout=20)
        for path in ("/k", f"/own{client}"):
            with suppress(NodeExistsError):
                zk.create(path, b"")

        def get() -> Any:
            # A write of the session's own goes through the quorum, which a sync does not: after it its server has all
            # that was acknowledged before.
            zk.set(f"/own{client}", b"")
            return zk.get("/k")[0].decode() or None

        return lambda value: zk.set("/k", value.encode()), get

    return make


def consul_clients(own_cluster: Cluster) -> Callable[[int], Client]:
    import consul

    endpoints = own_cluster.endpoints("http")

    def make(client: int) -> Client:
        at = endpoints[client % len(endpoints)]
        kv = consul.Consul(at.host, at.port, consistency="consistent").kv

        def put(value: str) -> None:
            if not kv.put("k", value):
                raise ConnectionError

        def get() -> Any:
            found = kv.get("k")[1]
            return found["Value"].decode() if found else None

        return put, get

    return make


CLIENTS = {"etcd": etcd_clients, "zookeeper": zookeeper_clients, "consul": consul_clients}


@pytest.mark.parametrize(
    "own_cluster",
    [("etcd",), ("zookeeper",), ("consul", *VERSION["consul"], "--size", "agent=0")],
    indirect=True,
    ids=CLIENTS,
)
def test_a_register_is_linearizable_under_chaos(own_cluster: Cluster) -> None:
    make = CLIENTS[own_cluster.spec.profile](own_cluster)
    with ThreadPoolExecutor(1) as pool:
        rounds = during(own_cluster, pool, seed=5)
        history = run(5, worker(make), seconds=22)
        assert len([one for one in rounds.result() if one.held]) >= 2  # one may be left out to keep the quorum
    assert len(history.operations) > 100
    assert len({o.client for o in history.operations}) == 5
    found = history.check()
    assert found.verdict == "linearizable", found


@pytest.mark.parametrize("own_cluster", [("consul", "--set", "version=1.8.7", "--size", "agent=0")], indirect=True)
def test_a_stale_read_of_consul_is_found(own_cluster: Cluster) -> None:
    import consul

    at = {e.node: e for e in own_cluster.endpoints("http")}
    leader = own_cluster.leader()
    follower = next(node for node in at if node != leader)

    def client(node: str, consistency: str) -> Any:
        return consul.Consul(at[node].host, at[node].port, consistency=consistency)

    def get(from_: Any) -> Any:
        found = from_.kv.get("k")[1]
        return found["Value"].decode() if found else None

    history = History()
    writes, stale = client(leader, "consistent"), client(follower, "stale")
    assert history.write(1, "k", "a", lambda: writes.kv.put("k", "a"))
    eventually(lambda: get(stale) == "a", what="the follower has the value")
    history.read(1, "k", functools.partial(get, writes))
    assert history.check().verdict == "linearizable"
    with own_cluster.fault.isolate(follower):
        assert history.write(1, "k", "b", lambda: writes.kv.put("k", "b"))
        history.read(2, "k", functools.partial(get, stale))
    found = history.check()
    assert found.verdict == "not linearizable"
    assert "read 'a'" in found.why


@pytest.mark.parametrize("own_cluster", [("zookeeper",)], indirect=True)
def test_a_read_of_zookeeper_without_sync_is_found(own_cluster: Cluster) -> None:
    from kazoo.client import KazooClient

    leader = own_cluster.leader()
    follower = next(node for node in own_cluster.node_names("kv") if node != leader)

    def client(node: str) -> Any:
        at = own_cluster.node(node).endpoint("client")
        zk = KazooClient(hosts=f"{at.host}:{at.port}", timeout=20)
        zk.start(timeout=30)
        return zk

    history = History()
    writes, reads = client(leader), client(follower)
    try:
        writes.create("/k", b"0")
        eventually(lambda: reads.exists("/k"), what="the follower has the node")
        with own_cluster.fault.loss(leader, 60, to=follower):

            def stale() -> bool:
                value = str(len(history.operations))
                history.write(1, "k", value, lambda: writes.set("/k", value.encode()))
                history.read(2, "k", lambda: reads.get("/k")[0].decode())
                return check(history.operations, "0").verdict == "not linearizable"

            eventually(stale, what="a stale read")
        # With sync, what follows is right.
        synced = History()
        for i in range(20):
            synced.write(1, "k", str(i), lambda i=i: writes.set("/k", str(i).encode()))
            synced.read(2, "k", lambda: (reads.sync("/k"), reads.get("/k")[0].decode())[1])
        assert synced.check().verdict == "linearizable"
    finally:
        for one in (writes, reads):
            one.stop()
            one.close()


@pytest.mark.parametrize(
    "own_cluster",
    [("etcd",), ("zookeeper",), ("consul", *VERSION["consul"], "--size", "agent=0")],
    indirect=True,
    ids=CLIENTS,
)
def test_the_command_is_repeatable_and_measures(outer: Shell, own_cluster: Cluster) -> None:
    argv = (
        "chaos",
        "-c",
        own_cluster.name,
        "--for",
        "12s",
        "--every",
        "6s",
        "--seed",
        "4",
        "--faults",
        "kill",
        "-o",
        "json",
    )
    first, second = ([json.loads(line) for line in outer.minicluster(*argv).out.splitlines()] for _ in range(2))
    assert [(r["kind"], r["node"]) for r in first] == [(r["kind"], r["node"]) for r in second]
    assert len(first) == 2
    assert all(r["without_writes"] is not None and 2 <= r["held"] <= 4 for r in first)
    own_cluster.wait(timeout=60)
    assert own_cluster.faults() == ()


@pytest.mark.parametrize("own_cluster", [("etcd", "--size", "kv=1")], indirect=True)
def test_a_pause_in_the_moment_in_which_commands_start(outer: Shell, own_cluster: Cluster) -> None:
    """It can freeze the engine's own process for the node (Docker 20.10): what comes next thaws it."""
    node = own_cluster.node("kv-1").container
    ended = threading.Event()

    def commands() -> None:
        while not ended.is_set():
            with suppress(subprocess.TimeoutExpired):
                outer.run("docker", "exec", node, "true", ok=False, timeout=5)

    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            pool.submit(commands)
        try:
            for _ in range(8):
                outer.minicluster("pause", "kv-1", "-c", own_cluster.name, timeout=60)
                outer.minicluster("unpause", "kv-1", "-c", own_cluster.name, timeout=60)
            outer.minicluster("pause", "kv-1", "-c", own_cluster.name, timeout=60)
        finally:
            ended.set()
    outer.minicluster("down", own_cluster.name, timeout=60)
