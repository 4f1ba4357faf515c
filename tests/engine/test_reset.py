"""``minicluster reset``: filled by stock clients, reset, and looked at by stock clients."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import consul
import pytest
from kazoo.client import KazooClient
from kazoo.security import OPEN_ACL_UNSAFE, make_digest_acl

from tests.engine.conftest import Shell, eventually, remains, swarm_client

ETCD, ZOOKEEPER, CONSUL, SWARM = "t-reset-etcd", "t-reset-zk", "t-reset-consul", "t-reset-swarm"

needs_etcdctl = pytest.mark.skipif(not shutil.which("etcdctl"), reason="etcdctl is not installed")


@contextlib.contextmanager
def up(shell: Shell, name: str, profile: str, *options: str) -> Iterator[Shell]:
    """A cluster; the value is a shell with what ``minicluster env`` prints."""
    try:
        shell.minicluster("up", profile, "--name", name, *options, timeout=600)
        yield Shell(shell.env | shell.minicluster("env", name, "-o", "json").json)
    finally:
        shell.minicluster("down", name, ok=False)
    assert remains(shell, name) == {}


def reset(shell: Shell, name: str) -> None:
    """Resets it, and looks that it goes on as the cluster that it was."""
    before = status(shell, name)
    answer = shell.minicluster("reset", name, "-o", "json", timeout=120).json
    assert (answer["cluster"], answer["changed"]) == (name, True)
    after = status(shell, name)
    assert (after["phase"], after["quorum"]) == ("ready", before["quorum"])
    assert [n["address"] for n in after["nodes"]] == [n["address"] for n in before["nodes"]]


def status(shell: Shell, name: str) -> Any:
    return shell.minicluster("status", name, "-o", "json").json


def published(shell: Shell, name: str) -> dict[str, str]:
    """HOST:PORT of each node's endpoint on the host."""
    endpoints = shell.minicluster("info", name, "-o", "json").json["endpoints"]
    return {e["node"]: urlsplit(e["url"]).netloc for e in endpoints}


def mended(shell: Shell, name: str) -> None:
    shell.minicluster("up", "--name", name)
    eventually(lambda: status(shell, name)["phase"] == "ready", what=f"{name} is ready again")


# --- etcd ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def etcd(outer: Shell) -> Iterator[Shell]:
    with up(outer, ETCD, "etcd") as shell:
        yield shell


def etcdctl(shell: Shell, *argv: str, ok: bool = True) -> str:
    return shell.run("etcdctl", *argv, ok=ok, timeout=30).out.strip()


def etcd_holds(shell: Shell) -> dict[str, Any]:
    """All that is in it and is not nothing."""
    found = {
        "keys": etcdctl(shell, "get", "", "--prefix", "--keys-only").split(),
        "leases": etcdctl(shell, "lease", "list").splitlines()[1:],
        "users": etcdctl(shell, "user", "list"),
        "roles": etcdctl(shell, "role", "list"),
        "alarms": etcdctl(shell, "alarm", "list"),
    }
    return {kind: value for kind, value in found.items() if value}


@needs_etcdctl
def test_etcd_loses_keys_leases_users_and_roles(etcd: Shell) -> None:
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
    reset(etcd, ETCD)
    assert etcd_holds(etcd) == {}
    assert etcdctl(etcd, "member", "list") == members
    reset(etcd, ETCD)  # there is nothing to remove


@needs_etcdctl
def test_etcd_right_after_its_leader_died(etcd: Shell) -> None:
    etcdctl(etcd, "put", "key", "value")
    etcd.minicluster("kill", status(etcd, ETCD)["quorum"]["leader"], "-c", ETCD)
    etcd.minicluster("reset", ETCD)
    mended(etcd, ETCD)
    assert etcd_holds(etcd) == {}


@needs_etcdctl
def test_etcd_while_a_client_writes(etcd: Shell) -> None:
    stop = threading.Event()
    errors: list[str] = []

    def write() -> None:
        while not stop.is_set():
            answer = etcd.run("etcdctl", "put", "busy", "value", ok=False, timeout=30)
            errors.extend([answer.err] if answer.code else [])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        etcd.minicluster("reset", ETCD)
    finally:
        stop.set()
        writer.join()
    assert errors == []
    reset(etcd, ETCD)
    assert etcd_holds(etcd) == {}


@needs_etcdctl
def test_etcd_that_is_full_takes_keys_again(outer: Shell) -> None:
    name = f"{ETCD}-full"
    with up(outer, name, "etcd", "--size", "kv=1", "--set", "tls=false", "--set", "quota=4000000") as shell:
        for n in range(8):
            etcdctl(shell, "put", f"big{n}", "x" * 100_000, ok=False)
        for n in range(60):
            if not etcdctl(shell, "put", f"more{n}", "x" * 100_000, ok=False):
                break
        assert "NOSPACE" in etcdctl(shell, "alarm", "list")
        reset(shell, name)
        assert etcd_holds(shell) == {}
        etcdctl(shell, "put", "key", "value")
        # Without certificates nobody but a user can switch authentication off: it says so, and touches nothing.
        etcdctl(shell, "user", "add", "root:secret")
        etcdctl(shell, "role", "add", "root")
        etcdctl(shell, "user", "grant-role", "root", "root")
        etcdctl(shell, "auth", "enable")
        answer = shell.minicluster("reset", name, ok=False)
        assert answer.code == 1
        assert "authentication is on" in answer.err
        assert etcdctl(shell, "get", "key", "--print-value-only", "--user=root:secret") == "value"


# --- ZooKeeper -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def zookeeper(outer: Shell) -> Iterator[Shell]:
    with up(outer, ZOOKEEPER, "zookeeper") as shell:
        yield shell


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


def test_zookeeper_loses_every_znode_at_every_server(zookeeper: Shell) -> None:
    mine = make_digest_acl("joe", "secret", all=True)
    with contextlib.ExitStack() as stack:
        # One client of each server, connected before and after.
        clients = [stack.enter_context(kazoo(host)) for host in published(zookeeper, ZOOKEEPER).values()]
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
        reset(zookeeper, ZOOKEEPER)
        for each in clients:
            assert znodes(each) == EMPTY
            assert each.get("/")[0] == b""
            assert each.get_acls("/")[0] == OPEN_ACL_UNSAFE
        assert client.get("/zookeeper/config")[0] == config
        clients[1].create("/new", b"y")
        reset(zookeeper, ZOOKEEPER)
        assert [znodes(each) for each in clients] == [EMPTY] * 3


def test_zookeeper_right_after_its_leader_died(zookeeper: Shell) -> None:
    hosts = ",".join(published(zookeeper, ZOOKEEPER).values())
    with kazoo(hosts) as client:
        client.create("/key", b"x")
    zookeeper.minicluster("kill", status(zookeeper, ZOOKEEPER)["quorum"]["leader"], "-c", ZOOKEEPER)
    zookeeper.minicluster("reset", ZOOKEEPER)
    mended(zookeeper, ZOOKEEPER)
    with kazoo(hosts) as client:
        assert znodes(client) == EMPTY


def test_zookeeper_while_a_client_writes(zookeeper: Shell) -> None:
    with kazoo(",".join(published(zookeeper, ZOOKEEPER).values())) as client:
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                client.ensure_path("/busy/at")
                client.create_async("/busy/at/n-", b"x", sequence=True).wait(5)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            zookeeper.minicluster("reset", ZOOKEEPER)
        finally:
            stop.set()
            writer.join()
        reset(zookeeper, ZOOKEEPER)
        client.sync("/")
        assert znodes(client) == EMPTY


# --- Consul ----------------------------------------------------------------------------------------------------------


def consul_holds(client: consul.Consul, acl: bool) -> dict[str, Any]:
    """All that is in it beside its nodes and itself, and is not nothing."""

    def ask(path: str) -> Any:
        return client.http.get(consul.base.CB.json(), f"/v1/{path}", headers=client.agent.agent.prepare_headers())

    return {"kv": client.kv.get("", recurse=True)[1]} if ask or acl else {}


# --- Swarm -----------------------------------------------------------------------------------------------------------
