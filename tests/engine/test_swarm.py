"""A real Swarm, proved with the stock docker client."""

from __future__ import annotations

import collections
import json
import re
import urllib.request
from collections.abc import Iterator

import pytest

from tests.engine.conftest import Shell, eventually, remains, swarm_client

NAME = "t-swarm"


@pytest.fixture(scope="module")
def cluster(outer: Shell) -> Iterator[Shell]:
    """One master and two agents; the value is the stock client of its master."""
    try:
        outer.minicluster("up", "swarm", "--name", NAME, timeout=600)
        yield swarm_client(outer, NAME)
    finally:
        outer.minicluster("down", NAME, ok=False)
    assert remains(outer, NAME) == {}


@pytest.fixture
def web(cluster: Shell) -> Iterator[Shell]:
    """A service with ten replicas."""
    cluster.docker(
        "service",
        "create",
        "--name",
        "web",
        "--replicas",
        "10",
        "--no-resolve-image",
        "--detach",
        "localhost/minicluster/demo",
    )
    yield cluster
    cluster.docker("service", "rm", "web")
    eventually(
        lambda: not cluster.docker("ps", "-q", "--filter", "label=com.docker.swarm.service.name=web").out.strip()
    )


def running(client: Shell, service: str = "web") -> collections.Counter[str]:
    """How many tasks of a service run on each node."""
    rows = client.docker(
        "service", "ps", service, "--filter", "desired-state=running", "--format", "{{.Node}} {{.CurrentState}}"
    ).out.splitlines()
    return collections.Counter(row.split()[0] for row in rows if row.split()[1:2] == ["Running"])


def ready(client: Shell) -> set[str]:
    """The members that are Ready by the stock client. One that has just joined has no name yet."""
    rows = client.docker("node", "ls", "--format", "{{.Hostname}} {{.Status}}").out.splitlines()
    return {row.split()[0] for row in rows if row.split()[1:] == ["Ready"]}


def test_stock_client_sees_every_node_ready(cluster: Shell) -> None:
    assert ready(cluster) == {"master-1", "agent-1", "agent-2"}


def test_a_write_of_chaos_is_a_label_of_a_manager(cluster: Shell, outer: Shell) -> None:
    outer.minicluster("exec", "-c", NAME, "master-1", "--", "swarm-write")
    assert "minicluster.write:yes" in cluster.docker("node", "inspect", "self", "--format", "{{.Spec.Labels}}").out


def test_engine_api_refuses_a_client_without_certificate(cluster: Shell) -> None:
    bare = Shell({"DOCKER_HOST": cluster.env["DOCKER_HOST"], "DOCKER_TLS_VERIFY": "", "DOCKER_CERT_PATH": ""})
    assert bare.docker("info", "--format", "{{.ID}}", ok=False).out.strip() == ""
    assert bare.docker("--tls", "node", "ls", ok=False).code != 0


def test_ports_are_published_on_loopback_only(cluster: Shell, outer: Shell) -> None:
    ports = outer.docker("ps", "--filter", f"name={NAME}", "--format", "{{.Ports}}").out
    assert "127.0.0.1:" in ports
    assert "0.0.0.0:" not in ports


def test_nodes_run_without_privileged(cluster: Shell, outer: Shell) -> None:
    format = "{{.HostConfig.Privileged}} {{.HostConfig.CapAdd}}"
    for node in ("master-1", "agent-1"):
        privileged, capabilities = outer.docker("inspect", f"{NAME}-{node}", "--format", format).out.split(" ", 1)
        assert privileged == "false"
        assert "SYS_ADMIN" in capabilities
        assert "ALL" not in capabilities


def test_containers_may_ask_for_what_they_may_on_a_real_node(cluster: Shell) -> None:
    def run(*argv: str) -> str:
        return cluster.docker("run", "--rm", *argv[:-1], "localhost/minicluster/demo", "sh", "-c", argv[-1]).out

    assert "fuse" in run("--privileged", "mkdir /m; mount -t tmpfs x /m && ls /dev")
    bits = int(run("--cap-add", "SYS_MODULE", "cat /proc/self/status").partition("CapEff:")[2].split()[0], 16)
    assert bits >> 16 & 1
    assert run("--device", "/dev/fuse", "exec 3<>/dev/fuse && echo open") == "open\n"


def test_ten_replicas_run_on_all_nodes(web: Shell) -> None:
    spread = eventually(lambda: (n := running(web)).total() == 10 and n, what="ten replicas run")
    assert set(spread) == {"master-1", "agent-1", "agent-2"}


def test_demo_answers_with_its_nodes_name(cluster: Shell, outer: Shell) -> None:
    cluster.docker(
        "service", "create", "--name", "hello", "--mode", "global", "--no-resolve-image", "--detach",
        "--publish", "mode=host,target=80,published=8080", "localhost/minicluster/demo",
    )  # fmt: skip
    try:
        eventually(lambda: running(cluster, "hello").total() == 3, what="one task on each node")
        nodes = outer.minicluster("status", NAME, "-o", "json").json["nodes"]
        for node in nodes:
            text = eventually(lambda node=node: _get(f"http://{node['address']}:8080/"), what=f"{node['name']} answers")
            assert node["name"] in text
    finally:
        cluster.docker("service", "rm", "hello")


def _get(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def test_containers_on_different_nodes_reach_each_other_over_an_overlay(cluster: Shell, outer: Shell) -> None:
    cluster.docker("network", "create", "--driver", "overlay", "--attachable", "span")
    try:
        cluster.docker(
            "service", "create", "--name", "far", "--network", "span", "--constraint", "node.hostname==agent-1",
            "--endpoint-mode", "dnsrr", "--no-resolve-image", "--detach", "localhost/minicluster/demo",
        )  # fmt: skip
        eventually(lambda: running(cluster, "far") == {"agent-1": 1}, what="the far task runs")

        def ask() -> str:
            return cluster.docker(
                "run",
                "--rm",
                "--network",
                "span",
                "localhost/minicluster/demo",
                "wget",
                "-q",
                "-O",
                "-",
                "http://far/",
                ok=False,
            ).out

        assert "agent-1" in eventually(ask, what="master-1 reaches agent-1 over the overlay")
    finally:
        cluster.docker("service", "rm", "far", ok=False)
        eventually(lambda: cluster.docker("network", "rm", "span", ok=False).code == 0, what="the overlay is removed")


def test_load_puts_an_image_of_the_engine_into_every_node(cluster: Shell, outer: Shell) -> None:
    try:
        outer.run("bash", "-c", "tar -C /etc -c hostname | docker import - t-load:1")
        outer.minicluster("load", "t-load:1", "-c", NAME)
        for node in ("master-1", "agent-1", "agent-2"):
            images = outer.minicluster("exec", "-c", NAME, node, "--", "docker", "images", "-q", "t-load:1").out
            assert images.strip(), f"{node} has not got the image"
            assert "minicluster-load" not in outer.minicluster("exec", "-c", NAME, node, "--", "ls", "/var/tmp").out
        assert outer.minicluster("load", "t-load:1", "-c", NAME).out == "t-load:1: already there in 3 nodes.\n"
        outer.docker("tag", "t-load:1", "t-load:2")
        renamed = outer.minicluster("load", "t-load:2", "-c", NAME).out
        assert renamed == "t-load:2: already there, tagged in 3 nodes.\n"
        listed = outer.minicluster("exec", "-c", NAME, "agent-2", "--", "docker", "images", "-q", "t-load").out
        assert len(set(listed.split())) == 1
        assert len(listed.split()) == 2
        missing = outer.minicluster("load", "t-no-such:1", "-c", NAME, ok=False)
        assert missing.code == 1
        assert "t-no-such:1" in missing.err
    finally:
        outer.docker("rmi", "-f", "t-load:1", "t-load:2", ok=False)


def test_commands_report_on_the_cluster(cluster: Shell, outer: Shell) -> None:
    status = outer.minicluster("status", NAME, "-o", "json").json
    assert (status["cluster"], status["profile"], status["phase"]) == (NAME, "swarm", "ready")
    assert status["quorum"]["leader"] == "master-1"
    by_name = {node["name"]: node for node in status["nodes"]}
    assert list(by_name) == ["master-1", "agent-1", "agent-2"]
    assert all(n["ready"] and n["phase"] == "running" and n["memory"] > 10_000_000 for n in status["nodes"])
    assert by_name["master-1"]["leader"] is True

    info = outer.minicluster("info", NAME, "-o", "json").json
    assert info["demo_image"] == "localhost/minicluster/demo"
    assert re.fullmatch(r"tcp://127\.0\.0\.1:\d+", info["endpoints"][0]["url"])

    assert NAME in [line["cluster"] for line in outer.minicluster("ls", "-o", "json").json]
    assert "API listen on" in outer.minicluster("logs", "-c", NAME, "agent-1").out
    assert outer.minicluster("exec", "-c", NAME, "agent-2", "--", "hostname").out.strip() == "agent-2"
    assert outer.minicluster("exec", "-c", NAME, "agent-2", "--", "sh", "-c", "exit 7", ok=False).code == 7
    assert outer.minicluster("exec", "-c", NAME, "agent-9", "--", "true", ok=False).code == 2


def test_shells_loops_and_conditions(cluster: Shell, outer: Shell) -> None:
    """exec leaves a loop its input; an env that fails ends what depends on it, and unsets what another has set."""
    program = " ".join(outer.command())
    words = f"printf 'a\\nb\\n' | while read word; do {program} exec -c {NAME} agent-2 -- echo got $word; done"
    asked = f"echo input | {program} exec -i -c {NAME} agent-2 -- cat"
    assert outer.run("sh", "-c", f"{words}; {asked}").out == "got a\ngot b\ninput\n"
    lost = f'eval "$({program} env {NAME})" && docker node ls -q && eval "$({program} env t-nobody)" && docker ps'
    ended = outer.run("sh", "-c", f'{lost}; echo "status $? ${{DOCKER_TLS_VERIFY-unset}}"')
    *nodes, last = ended.out.splitlines()
    assert len(nodes) == len(cluster.docker("node", "ls", "-q").out.split())
    assert last == "status 1 unset"


def test_labels_are_the_stable_ones(cluster: Shell, outer: Shell) -> None:
    labels = json.loads(outer.docker("inspect", f"{NAME}-agent-1", "--format", "{{json .Config.Labels}}").out)
    mine = {k.removeprefix("io.minicluster."): v for k, v in labels.items() if k.startswith("io.minicluster.")}
    assert {k: mine[k] for k in ("cluster", "profile", "role", "node")} == {
        "cluster": NAME, "profile": "swarm", "role": "agent", "node": "agent-1",
    }  # fmt: skip
    assert mine["spec"]


def test_up_again_changes_nothing(cluster: Shell, outer: Shell) -> None:
    before = outer.docker("ps", "-q", "--filter", f"label=io.minicluster.cluster={NAME}").out
    answer = outer.minicluster("up", "swarm", "--name", NAME, "-o", "json").json
    assert answer["changed"] is False
    assert outer.docker("ps", "-q", "--filter", f"label=io.minicluster.cluster={NAME}").out == before


def test_dead_agents_tasks_run_on_the_others_and_up_repairs(web: Shell, outer: Shell) -> None:
    eventually(lambda: running(web).total() == 10, what="ten replicas run")
    outer.docker("kill", f"{NAME}-agent-2")
    eventually(
        lambda: (n := running(web)).total() == 10 and set(n) == {"master-1", "agent-1"},
        within=60,
        what="all ten run on the others",
    )
    status = outer.minicluster("status", NAME, "-o", "json").json
    assert status["phase"] == "degraded"
    outer.minicluster("up", "swarm", "--name", NAME)
    assert ready(web) == {"master-1", "agent-1", "agent-2"}


def test_size_on_a_running_cluster_adds_and_removes_agents(web: Shell, outer: Shell) -> None:
    kept = outer.docker("ps", "-q", "--filter", f"name={NAME}-agent-1").out
    outer.minicluster("up", "swarm", "--name", NAME, "--size", "agent=4")
    assert ready(web) == {"master-1", "agent-1", "agent-2", "agent-3", "agent-4"}
    assert outer.docker("ps", "-q", "--filter", f"name={NAME}-agent-1").out == kept
    outer.minicluster("up", "swarm", "--name", NAME, "--size", "agent=2")
    members = web.docker("node", "ls", "--format", "{{.Hostname}}").out.split()
    assert sorted(members) == ["agent-1", "agent-2", "master-1"]
    eventually(lambda: running(web).total() == 10, what="the tasks of the removed agents run elsewhere")


@pytest.mark.long
def test_a_node_removed_with_docker_is_reported_and_recreated(cluster: Shell, outer: Shell) -> None:
    outer.docker("rm", "-f", f"{NAME}-agent-1")
    nodes = {n["name"]: n for n in outer.minicluster("status", NAME, "-o", "json").json["nodes"]}
    assert nodes["agent-1"]["phase"] == "missing"
    assert nodes["agent-1"]["ready"] is False
    outer.minicluster("up", "swarm", "--name", NAME)
    assert ready(cluster) == {"master-1", "agent-1", "agent-2"}
    # Its data gone as well, it is another member of the same name; the dead one must not stay in the list.
    outer.docker("rm", "-f", f"{NAME}-agent-1")
    outer.docker("volume", "rm", f"{NAME}-agent-1-var-lib-docker")
    outer.minicluster("up", "swarm", "--name", NAME)
    assert sorted(cluster.docker("node", "ls", "--format", "{{.Hostname}}").out.split()) == [
        "agent-1",
        "agent-2",
        "master-1",
    ]


def test_all_nodes_stopped_and_started_are_the_same_cluster(cluster: Shell, outer: Shell) -> None:
    nodes = [f"{NAME}-{node}" for node in ("master-1", "agent-1", "agent-2")]
    outer.docker("stop", *nodes)
    assert outer.minicluster("status", NAME, "-o", "json").json["phase"] == "stopped"
    outer.docker("start", *nodes)
    eventually(
        lambda: outer.minicluster("status", NAME, "-o", "json").json["phase"] == "ready", within=60, what="ready again"
    )
    assert ready(cluster) == {"master-1", "agent-1", "agent-2"}


@pytest.mark.long
def test_a_node_is_paused_and_unpaused(cluster: Shell, outer: Shell) -> None:
    outer.docker("pause", f"{NAME}-agent-1")
    assert outer.minicluster("status", NAME, "-o", "json").json["phase"] == "degraded"
    outer.minicluster("up", "--name", NAME)
    assert ready(cluster) == {"master-1", "agent-1", "agent-2"}


@pytest.mark.long
def test_nodes_do_not_leave_without_a_manager(cluster: Shell, outer: Shell) -> None:
    nodes = [f"{NAME}-{node}" for node in ("master-1", "agent-1", "agent-2")]
    outer.docker("stop", *nodes)
    refused = outer.minicluster("up", "--name", NAME, "--size", "agent=1", ok=False)
    assert refused.code == 1
    assert "agent-2 cannot leave" in refused.err
    # The network may have been pruned meanwhile as well; the nodes' data are on their volumes.
    outer.docker("network", "rm", f"{NAME}-net")
    outer.minicluster("up", "--name", NAME)
    assert ready(cluster) == {"master-1", "agent-1", "agent-2"}


def test_env_recreates_its_certificate(cluster: Shell, outer: Shell) -> None:
    from pathlib import Path

    folder = Path(cluster.env["DOCKER_CERT_PATH"])
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "key.pem").stat().st_mode & 0o777 == 0o600
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    again = swarm_client(outer, NAME)
    assert ready(again) == {"master-1", "agent-1", "agent-2"}


def test_minicluster_uses_its_engine_in_a_shell_set_up_for_the_cluster(cluster: Shell) -> None:
    """After ``eval "$(minicluster env)"`` DOCKER_HOST leads into the cluster; minicluster knows its own hand."""
    assert NAME in [line["cluster"] for line in cluster.minicluster("ls", "-o", "json").json]
    assert cluster.minicluster("status", NAME, "-o", "json").json["phase"] == "ready"


@pytest.mark.parametrize("network", ["bridge", "own", "host"])
def test_containers_of_a_node_ask_whom_the_node_asks(outer: Shell, cluster: Shell, network: str) -> None:
    inside = ("exec", f"{NAME}-agent-1", "docker")
    if network == "own":
        outer.docker(*inside, "network", "create", network)
    # A name that only the outer engine knows, as only a company's server knows its own. It has a dot: on networks that
    # users make, Docker's own resolver passes on no others.
    name = f"{NAME}-master-1.{NAME}-net"
    asks = ("run", "--rm", "--network", network, "localhost/minicluster/demo", "nslookup", name)
    address = outer.docker(
        "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", f"{NAME}-master-1"
    )
    assert address.out.strip() in outer.docker(*inside, *asks, ok=False).out
    if network == "own":
        outer.docker(*inside, "network", "rm", network)


def test_nodes_have_logs_of_their_own_with_a_limit(outer: Shell, cluster: Shell) -> None:
    log = outer.docker("inspect", "-f", "{{json .HostConfig.LogConfig}}", f"{NAME}-agent-1").json
    assert log["Type"] == "json-file"
    assert log["Config"]["max-size"]
