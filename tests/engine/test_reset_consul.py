"""`minicluster reset` of Consul."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import consul
import pytest
from consul.callback import CB

from minicluster.cluster import Cluster
from minicluster.engine.protocol import Engine
from tests.engine.conftest import SETTINGS, Shell, eventually
from tests.engine.reset import NAME, published, reset, up


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


def test_everything_but_the_nodes_is_removed(engine: Engine, outer: Shell) -> None:
    with up(engine, outer, "consul", size={"agent": 1}, set={"acl": "true", **SETTINGS["consul"]}) as cluster:
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
        eventually(lambda: answers(each["agent-1"].acl.policy.list), what="the new leader has policies")
        assert consul_holds(each["agent-1"]) == {}


@pytest.mark.long
def test_without_acls_and_with_one_server(engine: Engine, outer: Shell) -> None:
    with up(engine, outer, "consul", f"{NAME}-one", size={"master": 1, "agent": 0}, set=SETTINGS["consul"]) as cluster:
        client = consul_clients(cluster)["master-1"]
        client.kv.put("key", "value")
        client.agent.service.register("web", port=1)
        reset(cluster)
        assert consul_holds(client) == {}
