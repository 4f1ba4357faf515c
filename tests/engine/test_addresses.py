"""Names on networks and address modes, for users on the engine's machine and in containers of the engine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from minicluster.cluster import Cluster
from minicluster.engine.protocol import Engine, NetworkConfig
from minicluster.errors import SubnetTaken
from minicluster.model.events import Event
from tests.engine.conftest import Result, Shell, eventually, remains
from tests.engine.elsewhere import (
    FIRST,
    LAST,
    NAME,
    OTHER,
    ROOT,
    address_in,
    addresses_of,
    cluster,
    facts,
    far_healthy,
    found_at,
    guest,
    healthy,
    networks,
    plugin_tests,
    pytest_words,
)

KIND = "t-addr-kind"  #: a profile like etcd's, for the clusters that the plugin names


@pytest.fixture(scope="module", autouse=True)
def _leaves_nothing(outer: Shell) -> Iterator[None]:
    yield
    assert not remains(outer, NAME)


@pytest.fixture(scope="module")
def image(outer: Shell) -> str:
    """The etcd node's image: Debian with etcd's client, for containers of the tests as well."""
    return outer.minicluster("image", "build", "etcd", timeout=600).out.split()[-1]


@pytest.fixture
def tests(outer: Shell, tmp_path: Path) -> dict[str, str]:
    """Tests that use the plugin: variables with the paths of their file and profile."""
    return plugin_tests(outer, tmp_path / KIND)


# Names and networks


def test_nodes_join_networks_and_keep_addresses_and_ports(outer: Shell, engine: Engine, image: str) -> None:
    node, net = f"{NAME}-kv-1", f"{NAME}-net"
    with (
        networks(outer, FIRST, LAST),
        cluster(engine, networks=[FIRST]) as up,
        guest(outer, image, FIRST) as there,
        guest(outer, image, net, name="t-addr-y") as near,
    ):
        url, own, identity = up.endpoint("client").url, up.node("kv-1").address, facts(outer, node, "{{.Id}}")
        assert address_in(outer, net, node) == own
        assert addresses_of(engine, near, "kv-1") == [{own}]
        assert addresses_of(engine, there, "kv-1", node) == [{address_in(outer, FIRST, node)}] * 2
        assert engine.exec(there, ["timeout", "5", "bash", "-c", ": </dev/tcp/kv-1/2379"]).exit_code == 0
        assert healthy(engine) == [url]

        # A cluster that runs is given the difference alone.
        change = Cluster.up(name=NAME, networks=[LAST], engine=engine).change
        assert change
        assert change.summary["connect-network"] == change.summary["disconnect-network"] == 1
        assert "create-container" not in change.summary
        assert addresses_of(engine, there, "kv-1") == [set()]
        Cluster.up(name=NAME, networks=[FIRST, LAST], engine=engine)
        again = Cluster.up(name=NAME, engine=engine).change
        assert again
        assert not again.changed

        up.restart()
        assert healthy(engine) == [url]
        assert healthy(engine, mode="bridge") == [f"https://{own}:2379"]
        assert addresses_of(engine, there, "kv-1", node) == [{address_in(outer, FIRST, node)}] * 2
        assert address_in(outer, LAST, node)
        assert facts(outer, node, "{{.Id}}") == identity


@pytest.mark.long
def test_two_clusters_on_a_network_have_distinct_long_names(outer: Shell, engine: Engine, image: str) -> None:
    told: list[Event] = []
    with (
        networks(outer, FIRST),
        cluster(engine, networks=[FIRST]),
        cluster(engine, OTHER, networks=[FIRST], listener=told.append),
        guest(outer, image, FIRST) as there,
    ):
        notes = [event.text for event in told if event.kind == "note"]
        assert notes == [f"kv-1 on network {FIRST} is also a node of cluster {NAME}: use {OTHER}-kv-1 there."]
        both = [address_in(outer, FIRST, f"{name}-kv-1") for name in (NAME, OTHER)]
        assert addresses_of(engine, there, f"{NAME}-kv-1", f"{OTHER}-kv-1") == [{both[0]}, {both[1]}]
        assert addresses_of(engine, there, "kv-1") == [{*both}]


def test_an_unknown_network_is_refused_before_anything_is_created(outer: Shell) -> None:
    refused = outer.minicluster("up", "etcd", "--name", NAME, "--network", "t-addr-none", ok=False)
    assert refused.code == 2
    assert "--network t-addr-none: no such network" in refused.err
    assert "docker network create t-addr-none" in refused.err
    assert not remains(outer, NAME)


def test_down_disconnects_containers_of_others(outer: Shell, engine: Engine, image: str) -> None:
    net = f"{NAME}-net"
    with (
        cluster(engine) as up,
        guest(outer, image, net) as running,
        guest(outer, image, net, name="t-addr-y") as stopped,
    ):
        outer.docker("network", "connect", "bridge", stopped)
        outer.docker("kill", stopped)
        # A guest never sits on the address of a node that is stopped.
        up.stop()
        with guest(outer, image, net, name="t-addr-z"):
            up.start()
        assert address_in(outer, net, f"{NAME}-kv-1") == up.node("kv-1").address
        state = "{{.State.Status}} {{.State.StartedAt}}"
        before = facts(outer, running, state)
        up.down()
        assert engine.network(net) is None
        assert facts(outer, running, state) == before
        assert before.startswith("running")
        outer.docker("start", stopped)
        assert facts(outer, stopped, "{{.State.Status}}") == "running"


@pytest.mark.parametrize("dynamic_range", ["10.213.78.224/27", "10.213.78.128/27"])
def test_a_subnet_of_another_network_is_taken_whatever_its_dynamic_range(engine: Engine, dynamic_range: str) -> None:
    engine.create_network(NetworkConfig(FIRST, "10.213.78.0/24", "10.213.78.1", "10.213.78.224/27", {}))
    try:
        with pytest.raises(SubnetTaken):
            engine.create_network(NetworkConfig(LAST, "10.213.78.0/24", "10.213.78.1", dynamic_range, {}))
    finally:
        engine.remove_network(FIRST)
    engine.create_network(NetworkConfig(LAST, "10.213.78.0/24", "10.213.78.1", dynamic_range, {}))
    engine.remove_network(LAST)


# On the engine's machine


def test_gateway_mode_is_reachable_from_other_networks_and_localhost(outer: Shell, engine: Engine, image: str) -> None:
    with networks(outer, FIRST), cluster(engine, address_mode="gateway") as up:
        url = up.endpoint("client").url
        assert up.info().address_mode == "gateway"
        assert healthy(engine, mode="gateway") == [url]
        assert healthy(engine) == [f"https://127.0.0.1:{url.rpartition(':')[2]}"]
        env = up.env()
        folder = str(Path(env["ETCDCTL_CACERT"]).parent)
        settings = [word for key, value in env.items() for word in ("-e", f"{key}={value}")]
        with guest(outer, image, FIRST, "-v", f"{folder}:{folder}:ro", *settings) as there:
            client = ["etcdctl", "endpoint", "health"]
            eventually(lambda: engine.exec(there, client).exit_code == 0, within=20)
            outer.docker("network", "connect", "bridge", there)
            outer.docker("network", "disconnect", FIRST, there)
            eventually(lambda: engine.exec(there, client).exit_code == 0, within=20)
        up.restart()
        assert healthy(engine, mode="gateway") == [url]


# In a container of the engine


@contextmanager
def within(outer: Shell, engine: Engine, image: str, *options: str) -> Iterator[Shell]:
    """A shell in a container with the engine's socket, this machine's programs, and minicluster."""
    scheme, _, path = engine.endpoint.partition("://")
    if scheme != "unix":
        pytest.skip("the engine's socket is not on this machine")
    folders = {Path(folder) for folder in ("/usr", sys.base_prefix, sys.prefix, ROOT)}
    outermost = [folder for folder in folders if not folders & {*folder.parents}]
    mounts = [word for folder in outermost for word in ("-v", f"{folder}:{folder}:ro")]
    name = "t-addr-caller"
    argv = ["run", "-d", "--name", name, "-v", f"{path}:/var/run/docker.sock", *mounts, *options]
    try:
        outer.docker(*argv, "-e", "XDG_DATA_HOME=/tmp/data", image, "sleep", "600")
        yield Inside(outer=outer, container=name)
    finally:
        outer.docker("rm", "-f", "-v", name, ok=False)


@dataclass
class Inside(Shell):
    """Runs commands in a container."""

    outer: Shell = field(default_factory=Shell)
    container: str = ""

    def run(self, *argv: str, timeout: float = 180, ok: bool = True, cwd: Path | None = None) -> Result:
        return self.outer.docker("exec", *self.options(), *argv, timeout=timeout, ok=ok)

    def options(self, more: Mapping[str, str] | None = None) -> list[str]:
        """What `docker exec` takes before the command."""
        env = {"PATH": os.environ["PATH"], **self.env, **(more or {})}
        return [*(word for key, value in env.items() for word in ("-e", f"{key}={value}")), self.container]


def test_a_process_in_a_container_starts_a_cluster_and_reaches_it(outer: Shell, engine: Engine, image: str) -> None:
    with within(outer, engine, image) as inside:
        try:
            refused = inside.minicluster("up", "etcd", "--name", NAME, "--mount", "kv:/etc:/data", ok=False)
            assert "minicluster runs in a container, and the engine does not" in refused.err
            up = inside.minicluster("up", "etcd", "--name", NAME, "--size", "kv=1", "-q", "-o", "json").json
            assert up["info"]["address_mode"] == "bridge"
            address = address_in(outer, f"{NAME}-net", f"{NAME}-kv-1")
            assert far_healthy(inside) == [f"https://{address}:2379"]
            client = replace(inside, env=up["info"]["env"])
            client.run("etcdctl", "put", "greeting", "hello")
            assert "hello" in client.run("etcdctl", "get", "greeting").out
            # The same cluster, asked from the machine itself: of another user there, who has no certificate yet.
            assert healthy(engine)[0].startswith("https://127.0.0.1:")
        finally:
            inside.minicluster("down", NAME, "-q")
            outer.minicluster("down", NAME, "-q")  # the client's files that were written on the machine itself
        assert not remains(outer, f"{NAME}-kv")
        assert f"{NAME}-net" not in facts(outer, "t-addr-caller", "{{.NetworkSettings.Networks}}")
        assert not inside.run("find", "/tmp/data", "-type", "f").out


@pytest.mark.long
def test_a_container_is_connected_when_it_asks_for_addresses(outer: Shell, engine: Engine, image: str) -> None:
    with cluster(engine):
        with within(outer, engine, image) as inside:
            assert far_healthy(inside)[0].endswith(":2379")
            assert f"{NAME}-net" in facts(outer, "t-addr-caller", "{{.NetworkSettings.Networks}}")
        # In the machine's own network nothing needs to be connected.
        with within(outer, engine, image, "--network", "host") as inside:
            assert far_healthy(inside)[0].startswith("https://127.0.0.1:")


@pytest.mark.long
def test_the_plugin_in_a_container(outer: Shell, engine: Engine, image: str, tests: dict[str, str]) -> None:
    folder = Path(tests["TESTS"]).parent
    with within(outer, engine, image, "-v", f"{folder}:{folder}:ro") as inside:
        there = replace(inside, env=tests)
        assert found_at(there.run(*pytest_words(tests)).out).startswith("172.")
        assert not remains(outer, KIND)

        # A job that is lost while its test runs: container, tests and reaper end at once, and nobody is told.
        argv = ["docker", "exec", *there.options({"LOST": "6"}), *pytest_words(tests)]
        job = subprocess.Popen(argv, env=os.environ | outer.env, stdout=subprocess.PIPE, text=True)
        assert job.stdout
        said = next(
            found for line in job.stdout if (found := re.search(r"the lease of (\S+) is over at ([\d.]+)", line))
        )
        outer.docker("rm", "-f", "-v", inside.container)
        job.communicate(timeout=30)
        name, until = said[1], float(said[2])
        listed = {c["cluster"]: c["lease"] for c in outer.minicluster("ls", "-o", "json").json}
        if time.time() < until - 0.5:  # not before
            assert re.fullmatch(r"process \d+", listed[name])
        time.sleep(max(0.0, until + 1 - time.time()))
        due = [c["why"] for c in outer.minicluster("gc", "--dry-run", "-o", "json").json if c["cluster"] == name]
        # None where a test beside this one came first.
        assert all("on another machine, has not renewed its lease for 10 min" in why for why in due)
        outer.minicluster("ls")
        assert not remains(outer, KIND)
