"""`minicluster reset` of ZooKeeper."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError
from kazoo.security import OPEN_ACL_UNSAFE, make_digest_acl

from minicluster.cluster import Cluster
from minicluster.engine.protocol import Engine
from tests.engine.conftest import Shell
from tests.engine.reset import kill_leader, published, repair, repeating, reset, up


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


def test_every_znode_is_removed_on_every_server(zookeeper: Cluster) -> None:
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
def test_right_after_the_leader_was_killed(zookeeper: Cluster) -> None:
    hosts = ",".join(published(zookeeper).values())
    with kazoo(hosts) as client:
        client.create("/key", b"x")
    kill_leader(zookeeper)
    zookeeper.reset()
    repair(zookeeper)
    with kazoo(hosts) as client:
        assert znodes(client) == EMPTY


@pytest.mark.long
def test_while_a_client_writes(zookeeper: Cluster) -> None:
    with kazoo(",".join(published(zookeeper).values())) as client:

        def write() -> None:
            with contextlib.suppress(NoNodeError):  # it may go before there is something in it
                client.ensure_path("/busy/at")
                client.create("/busy/at/n-", b"x", sequence=True)

        with repeating(write):
            zookeeper.reset()
        reset(zookeeper)
        client.sync("/")
        assert znodes(client) == EMPTY
