"""Clusters beside containers of testcontainers-python, on a real engine.

The library's reaper is an imitation here (tests/engine/ryuk), since its image comes from a registry; the rest is real.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import (
    CompositeWaitStrategy,
    ContainerStatusWaitStrategy,
    ExecWaitStrategy,
    HealthcheckWaitStrategy,
    HttpWaitStrategy,
    LogMessageWaitStrategy,
    PortWaitStrategy,
)
from testcontainers.core.waiting_utils import wait_for_logs

from minicluster.cluster import Cluster, clusters
from minicluster.engine.protocol import Engine
from minicluster.errors import UsageError
from minicluster.leases import reaper_client
from minicluster.model.lease import RENEW_INTERVAL
from minicluster.testing.testcontainers import ClusterContainer
from tests.engine.conftest import Shell, eventually, remains

NAME = "t-tc"
IMITATION = "minicluster/test-ryuk-imitation:1"


@pytest.fixture(scope="module", autouse=True)
def _same_engine(outer: Shell, engine: Engine) -> Iterator[None]:
    """The library uses minicluster's engine, and starts no reaper in this process."""
    with pytest.MonkeyPatch.context() as patch:
        if engine.endpoint.startswith("unix:"):
            patch.setenv("DOCKER_HOST", engine.endpoint)
        patch.setattr(testcontainers_config, "ryuk_disabled", True)
        patch.setattr(testcontainers_config, "sleep_time", 0.2)
        patch.setattr(testcontainers_config, "max_tries", 100)
        yield
    assert not remains(outer, NAME)
    if watching := reaper_client._reaper:  # it waits for the end of this process, which still has other tests to run
        assert watching.process.stdin
        watching.process.stdin.close()
        # Of clusters of earlier tests that were removed by other means it learns when it renews their leases.
        watching.process.wait(RENEW_INTERVAL + 30)


@pytest.fixture(scope="module")
def image(outer: Shell) -> str:
    return outer.minicluster("image", "build", "etcd", timeout=600).out.split()[-1]


@pytest.fixture(scope="module")
def etcd(image: str) -> Iterator[ClusterContainer]:
    """One member without TLS, with every wait strategy that applies to it."""
    asked = ClusterContainer("etcd").with_name(NAME).with_size(kv=1).with_setting("tls", "false")
    asked.waiting_for(LogMessageWaitStrategy(re.compile("published local member")))
    asked.waiting_for(HttpWaitStrategy(2379, "/health").for_response_predicate(lambda body: '"true"' in body), "kv")
    asked.waiting_for(CompositeWaitStrategy(PortWaitStrategy(2379), ContainerStatusWaitStrategy()), "kv-1")
    asked.waiting_for(ExecWaitStrategy(["etcdctl", "endpoint", "health"]))
    with asked.with_startup_timeout(60) as started:
        yield started


def test_addresses_are_those_of_the_library(etcd: ClusterContainer) -> None:
    host, port = etcd.get_container_host_ip(), etcd.get_exposed_port(2379)
    assert etcd.get_connection_url() == etcd.get_connection_url("client", "kv-1") == f"http://{host}:{port}"
    assert etcd.get_env()["ETCDCTL_ENDPOINTS"] == etcd.get_connection_url(endpoint="client")
    with pytest.raises(UsageError, match="port 99 of t-tc is not published"):
        etcd.get_exposed_port(99)
    with pytest.raises(UsageError, match="no endpoint peer"):
        etcd.get_connection_url("peer")


def test_commands_and_logs_are_those_of_the_library(etcd: ClusterContainer) -> None:
    assert etcd.exec(["etcdctl", "put", "a", "1"]).exit_code == 0
    code, output = etcd.exec("etcdctl get a", node="kv-1")
    assert code == 0
    assert b"a\n1\n" in output  # along with warnings, in whichever order they come
    out, error = etcd.get_logs()
    assert b"published local member" in out + error
    assert etcd.get_wrapped_container().name == f"{NAME}-kv-1"
    assert isinstance(etcd.get_node("kv-1"), DockerContainer)
    assert (etcd.status, etcd.get_node("kv-1").status) == ("running", "running")
    with pytest.raises(UsageError, match="kv-9"):
        etcd.get_node("kv-9")


def test_it_is_a_target_of_wait_strategies_itself(etcd: ClusterContainer) -> None:
    etcd.reload()
    wait_for_logs(etcd, LogMessageWaitStrategy("published local"), timeout=10)
    for strategy in (PortWaitStrategy(2379), HttpWaitStrategy(2379, "/version"), ExecWaitStrategy(["true"])):
        strategy.with_startup_timeout(10).wait_until_ready(etcd)


def test_a_node_stops_and_starts(etcd: ClusterContainer) -> None:
    node = etcd.get_node("kv-1")
    node.stop()
    etcd.reload()
    assert etcd.status == "exited"
    assert node.start().get_exposed_port(2379) == etcd.get_exposed_port(2379)
    etcd.reload()
    assert etcd.status == "running"


def test_other_containers_reach_nodes_by_name_over_the_clusters_network(etcd: ClusterContainer, image: str) -> None:
    with DockerContainer(image).with_network(etcd.network).with_command("sleep 60") as client:
        answer = client.exec(["etcdctl", "--endpoints=http://kv-1:2379", "endpoint", "health"])
        assert answer.exit_code == 0, answer.output
    other = DockerContainer(image).with_command("sleep 60").start()
    try:
        etcd.network.connect(other.get_wrapped_container().id, ["other"])
        assert other.exec(["etcdctl", "--endpoints=http://kv-1:2379", "endpoint", "health"]).exit_code == 0
        assert etcd.exec(["getent", "hosts", "other"]).exit_code == 0
    finally:
        other.stop()


def test_nodes_are_in_a_network_of_the_librarys_by_name(image: str) -> None:
    serve = "--data-dir=/tmp/etcd --listen-client-urls=http://0.0.0.0:2379 --advertise-client-urls=http://guest:2379"
    guest = DockerContainer(image).with_kwargs(entrypoint=["etcd"]).with_command(serve).with_network_aliases("guest")
    with (
        Network() as network,
        ClusterContainer("etcd", size={"kv": 1}).with_setting("tls", "false").with_network(network) as etcd,
        guest.with_network(network),
    ):
        assert re.fullmatch(r"tc-etcd-[0-9a-f]{8}", etcd.name)
        for own_container, name in ((guest, "kv-1"), (guest, f"{etcd.name}-kv-1"), (etcd, "guest")):
            health = ["env", f"ETCDCTL_ENDPOINTS=http://{name}:2379", "etcdctl", "endpoint", "health"]
            eventually(
                lambda own_container=own_container, health=health: own_container.exec(health).exit_code == 0,
                what=f"{name} answers",
            )
        assert [c.lease for c in clusters() if c.cluster == etcd.name] == [f"process {os.getpid()}"]
        # A container that stays behind does not keep the cluster's network.
        left = DockerContainer(image).with_network(etcd.network).with_command("sleep 60").start()
    try:
        left.reload()
        assert left.status == "running"
        assert etcd.name not in [c.cluster for c in clusters()]
    finally:
        left.stop()


def test_a_name_that_is_taken_is_refused_and_left_alone(etcd: ClusterContainer) -> None:
    with pytest.raises(UsageError, match=f"there is already a cluster {NAME}"), ClusterContainer("etcd", name=NAME):
        pass
    assert Cluster.open(NAME).status().phase == "ready"


def test_a_cluster_whose_wait_strategy_times_out_is_removed(image: str) -> None:
    never = LogMessageWaitStrategy("never said").with_startup_timeout(1).with_poll_interval(0.2)
    container = ClusterContainer("etcd", name=f"{NAME}-2", size={"kv": 1}).waiting_for(never)
    with pytest.raises(TimeoutError, match="never said"):
        container.start()
    assert f"{NAME}-2" not in [c.cluster for c in clusters()]
    assert container.status == "not_started"


@pytest.mark.long
def test_health_checks_count_where_an_image_has_one(outer: Shell, tmp_path: Path, image: str) -> None:
    (tmp_path / "image").mkdir()
    (tmp_path / "image/Dockerfile").write_text(
        f"ARG BASE\nFROM {image}\nHEALTHCHECK --interval=1s CMD test -e /tmp/well\n"
    )
    (tmp_path / "profile.yaml").write_text(
        textwrap.dedent("""\
            version: 2
            name: health
            summary: a node with a health check of its image's own
            images: {node: {build: image}}
            roles:
              worker: {count: 1, image: node, command: [sh, -c, "sleep 1; touch /tmp/well; exec sleep 600"]}
            """)
    )
    container = ClusterContainer(str(tmp_path), name=f"{NAME}-2")
    container.waiting_for(HealthcheckWaitStrategy().with_startup_timeout(20).with_poll_interval(0.2))
    try:
        with container:
            container.reload()
            assert container.get_wrapped_container().attrs["State"]["Health"]["Status"] == "healthy"
    finally:
        outer.minicluster("image", "remove", "health", ok=False)


PAGE = (Path(__file__).parents[2] / "docs/testcontainers.md").read_text()


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL), ids=["first", "nets", "waits"])
def test_the_pages_examples_run(example: str, image: str) -> None:
    # The one image that they name comes from a registry.
    exec(compile(example.replace("debian:trixie-slim", image), "docs/testcontainers.md", "exec"), {})
    assert not [c.cluster for c in clusters() if c.lease == f"process {os.getpid()}" and not c.cluster.startswith(NAME)]


# The reaper


SCRIPT = """
import sys, time
from testcontainers.core.container import DockerContainer
from minicluster.testing.testcontainers import ClusterContainer
etcd = ClusterContainer("etcd", size={"kv": 1}).with_name(sys.argv[1]).start()
other = DockerContainer(sys.argv[2]).with_name(sys.argv[1] + "-x").with_network(etcd.network).with_command("sleep 600")
other.start()
print("up", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("reaper", [True, pytest.param(False, marks=pytest.mark.long)], ids=["reaper", "no-reaper"])
def test_the_cluster_of_a_killed_process_is_removed(outer: Shell, image: str, reaper: bool) -> None:
    """Containers of the library are left to the library."""
    env = {"TESTCONTAINERS_RYUK_DISABLED": "false" if reaper else "true"}
    if reaper:
        folder = str(Path(__file__).parent / "ryuk")
        outer.docker("build", "-q", "-t", IMITATION, "--build-arg", f"BASE={image}", folder)
        env |= {"RYUK_CONTAINER_IMAGE": IMITATION, "RYUK_RECONNECTION_TIMEOUT": "1s"}
    argv = [sys.executable, "-c", SCRIPT, NAME, image]
    argv[-2] = name = f"{NAME}-3"
    process = subprocess.Popen(argv, env=os.environ | env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        assert process.stdout.readline() == "up\n"
        reapers = outer.docker("ps", "-q", "--filter", f"ancestor={IMITATION}").out.split()
        assert bool(reapers) == reaper
        process.send_signal(signal.SIGKILL)
        process.wait()
        eventually(lambda: {n for names in remains(outer, name).values() for n in names} <= {f"{name}-x"}, within=60)
    finally:
        process.kill()
        outer.docker("rm", "-f", f"{name}-x", ok=False)
        outer.minicluster("down", name, "-q", ok=False)
        if reaper:
            if reapers := outer.docker("ps", "-aq", "--filter", f"ancestor={IMITATION}").out.split():
                outer.docker("rm", "-f", *reapers, ok=False)
            outer.docker("image", "rm", "-f", IMITATION, ok=False)
