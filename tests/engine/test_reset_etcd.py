"""`minicluster reset` of etcd."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from minicluster.cluster import Cluster
from minicluster.engine.protocol import Engine
from minicluster.errors import NodeFailed
from tests.engine.conftest import Shell
from tests.engine.reset import NAME, kill_leader, repair, repeating, reset, up

needs_etcdctl = pytest.mark.skipif(not shutil.which("etcdctl"), reason="etcdctl is not installed")


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
def test_keys_leases_users_and_roles_are_removed(etcd: Cluster) -> None:
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
def test_right_after_the_leader_was_killed(etcd: Cluster) -> None:
    etcdctl(etcd, "put", "key", "value")
    kill_leader(etcd)
    etcd.reset()
    repair(etcd)
    assert etcd_holds(etcd) == {}


@pytest.mark.long
@needs_etcdctl
def test_while_a_client_writes(etcd: Cluster) -> None:
    with repeating(lambda: etcdctl(etcd, "put", "busy", "value")):
        etcd.reset()
    reset(etcd)
    assert etcd_holds(etcd) == {}


@pytest.mark.long
@needs_etcdctl
def test_a_full_store_accepts_writes_again(engine: Engine, outer: Shell) -> None:
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
