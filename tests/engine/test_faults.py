"""Faults on real clusters, with each system's own client as the witness."""

from __future__ import annotations

import itertools
import json
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minicluster.cluster import Cluster
from minicluster.engine import privileges
from minicluster.engine.protocol import Engine
from minicluster.errors import NodeFailed, UsageError
from minicluster.executor.helper import image as helper_image
from tests.engine.conftest import Shell, eventually, remains

NAME = "t-faults"


@pytest.fixture(scope="module")
def etcd(outer: Shell, engine: Engine) -> Iterator[Cluster]:
    """Three etcds."""
    try:
        outer.minicluster("up", "etcd", "--name", NAME, timeout=600)
        yield Cluster.open(NAME, engine=engine)
    finally:
        outer.minicluster("down", NAME, ok=False)
    assert remains(outer, NAME) == {}


@pytest.fixture(autouse=True)
def healed(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves a fault to the next, and the ensemble has a leader."""
    yield
    if "etcd" in request.fixturenames:
        cluster: Cluster = request.getfixturevalue("etcd")
        cluster.heal()
        cluster.wait(timeout=60)


def put(cluster: Cluster, node: str, key: str = "k", within: float = 2.0) -> bool:
    """Whether a member takes a write, asked in its own node by the stock client."""
    return cluster.exec(node, f"etcdctl put {key} {time.time()} --command-timeout={within:g}s").exit_code == 0


def rules(outer: Shell, cluster: Cluster) -> str:
    """What packet filters and queues the nodes have, apart from the engine's own."""
    template = ("inspect", "-f", "{{.State.Pid}}", *(node.container for node in cluster.nodes()))
    pids = outer.docker(*template).out.split()
    enter = "".join(f"nsenter -t {pid} -n sh -c 'nft list tables && tc qdisc show'; " for pid in pids)
    may = [f"--cap-add={name}" for name in ("SYS_ADMIN", "SYS_PTRACE", "NET_ADMIN")]
    run = ("run", "--rm", "--pid=host", "--network=none", "--security-opt=apparmor=unconfined", *may)
    text = outer.docker(*run, "--entrypoint=sh", helper_image().ref, "-ec", enter).out
    lines = [line for line in text.splitlines() if "ip nat" not in line and "noqueue" not in line]
    return "\n".join(lines)


def helpers(outer: Shell) -> list[str]:
    """Those of this module's clusters. The engine removes one right after it has ended."""
    return outer.docker("ps", "-aq", "--filter", "label=io.minicluster.fault", "--filter", f"name={NAME}").out.split()


def none_is_left(outer: Shell) -> None:
    eventually(lambda: helpers(outer) == [], what="the helpers are removed")


def test_a_minority_refuses_writes_and_the_majority_takes_them(outer: Shell, etcd: Cluster) -> None:
    said = outer.minicluster("fault", "partition", "kv-1 / kv-2 kv-3", "-c", NAME)
    assert "writes go on" in said.err
    assert not put(etcd, "kv-1")
    eventually(lambda: put(etcd, "kv-2"), what="the majority takes writes")
    assert put(etcd, "kv-3")
    assert "partition kv-1 / kv-2 kv-3" in outer.minicluster("status", NAME).out
    assert "Healed" in outer.minicluster("heal", "-c", NAME).out
    eventually(lambda: put(etcd, "kv-1"), what="the minority is back")
    assert rules(outer, etcd) == ""


def test_established_connections_are_cut_and_go_on(etcd: Cluster) -> None:
    """A leader that is isolated is replaced: its connections to the others were there before."""
    before = leader(etcd)
    with etcd.fault.isolate("leader"):
        others = [n for n in ("kv-1", "kv-2", "kv-3") if n != before]
        eventually(lambda: put(etcd, others[0]), what="the others elect a leader")
        assert not put(etcd, before)
    eventually(lambda: put(etcd, before), what="the former leader follows")


def leader(cluster: Cluster) -> str:
    found: str = eventually(cluster.leader, what="a leader")
    return found


def test_a_hung_process_and_its_cost(outer: Shell, etcd: Cluster) -> None:
    with etcd.fault.hang("kv-1", "etcd"):
        eventually(lambda: put(etcd, "kv-2"), what="two of three take writes")
        refused = outer.minicluster("fault", "hang", "kv-2", "etcd", "-c", NAME, ok=False)
        assert refused.code == 2
        assert "leaves 1 of 3 voters together, 2 needed" in refused.err
        with pytest.raises(UsageError, match="fault of this kind"):
            etcd.fault.hang("kv-1", "etcd")
    assert put(etcd, "kv-1")
    with pytest.raises(NodeFailed, match=r"No process nosuch there; there are: .*etcd"):
        etcd.fault.hang("kv-1", "nosuch")
    none_is_left(outer)


def test_a_fault_heals_itself_alone(outer: Shell, etcd: Cluster) -> None:
    """Its number is used again: by what this block applies, and by another process where its own time is over."""
    with etcd.fault.loss("kv-1", 5) as loss:
        loss.heal()
        none_is_left(outer)
        cut = etcd.partition("kv-1", ["kv-2", "kv-3"])
        assert cut.id == loss.id
    assert not put(etcd, "kv-1")
    cut.heal()
    none_is_left(outer)
    with etcd.fault.loss("kv-1", 5, seconds=1):
        none_is_left(outer)  # it has ended by itself
        outer.minicluster("fault", "rate", "kv-2", "10mbit", "-c", NAME)
    assert [fault.text for fault in etcd.faults()] == ["rate kv-2 10mbit"]


def test_down_under_a_fault_leaves_nothing(outer: Shell, engine: Engine) -> None:
    name = f"{NAME}-down"
    outer.minicluster("up", "etcd", "--name", name, "--size", "kv=1")
    cluster = Cluster.open(name, engine=engine)
    cluster.fault.dns("kv-1")
    cluster.fault.rate("kv-1", 10**6)
    outer.minicluster("down", name)
    assert remains(outer, name) == {}
    assert helpers(outer) == []


@pytest.mark.long
def test_faults_combine_and_leave_no_trace(outer: Shell, etcd: Cluster) -> None:
    with etcd.fault.rate("kv", 10**6), etcd.fault.loss("kv-1", 20), etcd.fault.loss("kv-1", 50, to="kv-2"):
        with etcd.fault.dns("kv"), etcd.fault.cpu("kv-1", 20), etcd.fault.memory("kv-2", 256 << 20):
            text = rules(outer, etcd)
            assert text.count("qdisc htb") == 3
            assert len(set(re.findall(r"minicluster_\d+", text))) == 3
            assert len(etcd.faults()) == 6
        assert len(etcd.faults()) == 3
    assert rules(outer, etcd) == ""
    none_is_left(outer)


@pytest.mark.long
def test_one_way_is_a_rule_at_the_others(outer: Shell, etcd: Cluster) -> None:
    with etcd.partition("kv-1", ["kv-2", "kv-3"]):
        assert rules(outer, etcd).count("minicluster_") == 3
    with etcd.partition("kv-1", ["kv-2", "kv-3"], one_way=True):
        assert rules(outer, etcd).count("minicluster_") == 2
        assert not put(etcd, "kv-1")
        eventually(lambda: put(etcd, "kv-2"), what="the others take writes")


@pytest.mark.long
def test_selectors_choose_once_and_say_whom(outer: Shell, etcd: Cluster) -> None:
    now = leader(etcd)
    said = outer.minicluster("fault", "rate", "follower", "10mbit", "-c", NAME)
    (fault,) = etcd.faults()
    assert fault.nodes[0] != now
    assert f"rate {fault.nodes[0]} 10mbit" in said.out
    assert f"rate {now} 5mbit" in outer.minicluster("fault", "rate", "leader", "5mbit", "-c", NAME).out
    said = outer.minicluster("fault", "loss", "kv-any", "5%", "--to", "voter", "-c", NAME, ok=False)
    assert said.code == 0 or "a node to itself" in said.err  # both may have become the same node
    etcd.heal()
    refused = outer.minicluster("fault", "partition", "--isolate", "majority", "-c", NAME, ok=False)
    assert "leaves 2 of 3 voters together" in refused.err  # the two with the leader
    assert "writes go on" in refused.err
    etcd.heal()


@pytest.mark.long
def test_limits_of_processors_and_memory(etcd: Cluster) -> None:
    burn = ["bash", "-c", "timeout 2 bash -c 'while :; do :; done'; times"]

    def used() -> float:  # seconds of processor time, of the children: the second line
        words = re.findall(r"(\d+)m([\d.]+)s", etcd.exec("kv-1", burn).stdout.splitlines()[1])
        return sum(int(minutes) * 60 + float(seconds) for minutes, seconds in words)

    with etcd.fault.cpu("kv-1", 10):
        assert used() < 0.5
    hold = ["bash", "-c", "head -c 200000000 /dev/zero | tail -c 200000000 | wc -c"]
    assert etcd.exec("kv-2", hold).stdout.strip() == "200000000"
    with etcd.fault.memory("kv-2", 128 << 20):
        assert etcd.exec("kv-2", hold).stdout.strip() != "200000000"
    eventually(lambda: etcd.exec("kv-2", hold).stdout.strip() == "200000000", what="memory is not limited any more")


@pytest.mark.long
def test_a_rate_limits_what_a_node_sends(etcd: Cluster) -> None:
    fill = "head -c 1000000 /dev/zero | tr '\\0' x | etcdctl put big"
    assert etcd.exec("kv-1", ["bash", "-c", fill], timeout=60).exit_code == 0
    get = [
        "bash",
        "-c",
        'ETCDCTL_ENDPOINTS="${ETCDCTL_ENDPOINTS//127.0.0.1/kv-1}" etcdctl get big --command-timeout=50s | wc -c',
    ]

    def seconds() -> float:
        begun = time.monotonic()
        assert int(etcd.exec("kv-2", get, timeout=60).stdout) > 1000000
        return time.monotonic() - begun

    with etcd.fault.rate("kv-1", 4 * 10**6):
        assert seconds() > 1.5  # a megabyte takes 2 seconds


@pytest.mark.long
def test_a_delay_or_what_the_kernel_lacks_for_it(outer: Shell, etcd: Cluster) -> None:
    with etcd.fault.rate("kv-1", 10**7):
        limited = rules(outer, etcd)
        assert "bfifo" in limited
        outer.minicluster("fault", "delay", "kv-1", "100ms", "-c", NAME, ok=False)
        for fault in etcd.faults():
            if fault.kind == "delay":
                etcd.heal(fault.id)
        none = re.compile(r"qdisc bfifo \w+:")  # its handle is another one
        assert none.sub("", rules(outer, etcd)) == none.sub("", limited)
    assert rules(outer, etcd) == ""
    done = outer.minicluster("fault", "delay", "kv-1", "100ms", "-c", NAME, ok=False)
    if done.code:
        assert "no network emulator (module sch_netem)" in done.err
        assert "modprobe sch_netem" in done.err
        none_is_left(outer)
    else:
        assert "netem" in rules(outer, etcd)
        etcd.heal()
    assert rules(outer, etcd) == ""


@pytest.mark.long
def test_all_packets_of_a_node_are_lost(etcd: Cluster) -> None:
    with etcd.fault.loss("kv-1", 100):
        assert not put(etcd, "kv-1")
        eventually(lambda: put(etcd, "kv-2"), what="the others take writes")


@pytest.mark.long
def test_names_do_not_resolve(etcd: Cluster) -> None:
    resolve = ["getent", "hosts", "kv-2"]
    assert etcd.exec("kv-1", resolve).exit_code == 0
    with etcd.fault.dns("kv-1"):
        assert etcd.exec("kv-1", resolve, timeout=60).exit_code != 0
    eventually(lambda: etcd.exec("kv-1", resolve, timeout=10).exit_code == 0, what="names resolve again")


@pytest.mark.long
def test_clients_are_cut_only_if_asked(outer: Shell, etcd: Cluster) -> None:
    url = etcd.node("kv-1").endpoint("client").url
    env = outer.minicluster("env", NAME, "-o", "json").json
    client = Shell(outer.env | env | {"ETCDCTL_ENDPOINTS": url})

    def reached() -> bool:
        argv = ("etcdctl", "get", "k", "--consistency=s", "--dial-timeout=5s", "--command-timeout=10s")
        return client.run(*argv, ok=False).code == 0

    with etcd.partition("kv-1", ["kv-2", "kv-3"]):
        assert reached()
    with etcd.partition("kv-1", ["kv-2", "kv-3"], clients=True):
        assert not reached()
    eventually(reached, what="the published port answers again")


@pytest.mark.long
def test_a_fault_ends_by_itself_even_if_minicluster_is_killed(outer: Shell, etcd: Cluster) -> None:
    outer.minicluster("fault", "partition", "--isolate", "kv-1", "--for", "4s", "-c", NAME)
    assert not put(etcd, "kv-1")
    eventually(lambda: etcd.faults() == (), what="the fault is over")
    assert rules(outer, etcd) == ""
    eventually(lambda: put(etcd, "kv-1"), what="kv-1 takes writes")


#: Runs a command of minicluster's, and kills itself (SIGKILL) right after it has sent the engine so many requests.
KILLED = """
import os, signal, sys
from minicluster.engine import http
left, real = int(sys.argv[1]), http.Api.open
def counted(self, *words, **options):
    global left
    response, left = real(self, *words, **options), left - 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return response
http.Api.open = counted
from minicluster.cli.app import app
app(sys.argv[2:])
"""


@pytest.mark.long
@pytest.mark.parametrize("healing", [False, True], ids=["apply", "heal"])
def test_killed_at_every_moment(outer: Shell, etcd: Cluster, healing: bool) -> None:
    """A moment is between two requests to the engine: it is all that these commands change."""
    argv = ("heal", "-c", NAME) if healing else ("fault", "partition", "kv-1 / kv-2 kv-3", "-c", NAME, "-q")
    for moment in itertools.count(1):
        if healing:
            etcd.partition("kv-1", ["kv-2", "kv-3"])
        code = outer.run(sys.executable, "-c", KILLED, str(moment), *argv, ok=False).code

        def healed() -> bool:  # the engine may still be about to do what it was last asked for
            etcd.heal()
            return not helpers(outer) and rules(outer, etcd) == ""

        eventually(healed, what=f"nothing is left; killed after request {moment}")
        if code != -signal.SIGKILL:
            assert code == 0
            break
    assert moment > 5


@pytest.mark.long
def test_down_after_a_kill_leaves_nothing(outer: Shell, engine: Engine) -> None:
    name = f"{NAME}-down"
    for moment in range(6, 14, 2):  # while a helper is created, started, and works
        outer.minicluster("up", "etcd", "--name", name, "--size", "kv=1")
        argv = ("fault", "loss", "kv", "5%", "-c", name, "-q")
        outer.run(sys.executable, "-c", KILLED, str(moment), *argv, ok=False)
        outer.minicluster("down", name)
        assert remains(outer, name) == {}
        assert helpers(outer) == []


@pytest.mark.long
def test_a_killed_helper_leaves_what_heal_removes(outer: Shell, etcd: Cluster) -> None:
    etcd.partition("kv-1", "kv-2")
    etcd.fault.rate("kv-3", 10**6)
    etcd.fault.hang("kv-3", "etcd")
    before = limits(etcd, "kv-1"), limits(etcd, "kv-2")
    etcd.fault.cpu("kv-1", 20)
    etcd.fault.memory("kv-2", 256 << 20)
    outer.docker("kill", *helpers(outer))
    none_is_left(outer)
    assert rules(outer, etcd) != ""
    limited = limits(etcd, "kv-1"), limits(etcd, "kv-2")
    assert all(one != other for one, other in zip(limited, before, strict=True))
    etcd.heal()
    assert rules(outer, etcd) == ""
    assert (limits(etcd, "kv-1"), limits(etcd, "kv-2")) == before
    assert put(etcd, "kv-3")
    etcd.fault.cpu("kv-1", 20)
    outer.docker("kill", *helpers(outer))
    none_is_left(outer)
    with etcd.fault.dns("kv-3"):  # by a helper that holds another fault
        etcd.heal()
        assert limits(etcd, "kv-1") == before[0]


def limits(cluster: Cluster, node: str) -> str:
    """What a node's control group allows, of processors and of memory: version 1, or 2."""
    files = "cpu/cpu.cfs_quota_us memory/memory.limit_in_bytes cpu.max memory.max"
    found = cluster.exec(node, ["sh", "-c", f"cd /sys/fs/cgroup && cat {files} 2>/dev/null"]).stdout
    assert len(found.split()) in (2, 3)
    return found


@pytest.mark.long
def test_a_node_has_its_own_limits_again(outer: Shell, engine: Engine) -> None:
    """Those that the engine gave it, whatever becomes of the helper."""
    name = f"{NAME}-down"
    sizes = ("--set", "roles.kv.memory=512MiB", "--set", "roles.kv.cpus=1.5")
    outer.minicluster("up", "etcd", "--name", name, "--size", "kv=1", *sizes)
    try:
        cluster = Cluster.open(name, engine=engine)
        outer.docker("update", "--cpus", "1.25", f"{name}-kv-1")  # by its user
        before = limits(cluster, "kv-1")
        assert {"125000", str(512 << 20)} <= {*before.split()}
        for kill in (False, True):
            cluster.fault.cpu("kv-1", 20)
            cluster.fault.memory("kv-1", 256 << 20)
            assert limits(cluster, "kv-1") != before
            if kill:
                outer.docker("kill", *helpers(outer))
                none_is_left(outer)
            cluster.heal()
            assert limits(cluster, "kv-1") == before
    finally:
        outer.minicluster("down", name)


@pytest.mark.long
def test_a_restarted_node_is_told(outer: Shell, etcd: Cluster) -> None:
    with etcd.fault.loss("kv", 5):
        etcd.restart("kv-2")
        assert etcd.faults()[0].lost == ("kv-2",)
        assert "not in force in kv-2, restarted since" in outer.minicluster("status", NAME).out


@pytest.mark.long
def test_a_hundred_faults_leave_nothing(outer: Shell, etcd: Cluster) -> None:
    kinds = itertools.cycle([
        lambda: etcd.partition("kv-1", ["kv-2", "kv-3"]),
        lambda: etcd.fault.loss("kv", 5),
        lambda: etcd.fault.rate("kv-2", 10**7),
        lambda: etcd.fault.isolate("kv-any", one_way=True, clients=True),
        lambda: etcd.fault.dns("kv"),
    ])  # fmt: skip
    for _ in range(100):
        with next(kinds)():
            pass
    none_is_left(outer)
    assert rules(outer, etcd) == ""


@pytest.mark.long
def test_a_process_is_killed_and_the_node_says_so(etcd: Cluster) -> None:
    etcd.fault.kill("kv-3", "etcd")
    eventually(lambda: etcd.node("kv-3").status().phase == "exited", what="kv-3 ended with its only process")
    etcd.start("kv-3")


@pytest.mark.long
def test_every_address_of_a_node_is_cut(outer: Shell, etcd: Cluster) -> None:
    """Those on a further network too, IPv4 and IPv6."""
    network = f"{NAME}-six"
    outer.docker("network", "create", "--ipv6", "--subnet", "fd00:6d63::/64", network)
    try:
        outer.minicluster("up", "--name", NAME, "--network", network)
        etcd.wait(timeout=60)
        ask = '{{with index .NetworkSettings.Networks "%s"}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}'
        there = outer.docker("inspect", "-f", ask % network, etcd.node("kv-2").container).out.split()
        addresses = [etcd.node("kv-2").address, *there]
        assert sum(":" in address for address in addresses) == 1

        def silent() -> list[str]:
            """The addresses that answer nothing; a refused connection is an answer."""
            tried = [(a, etcd.exec("kv-1", ["timeout", "2", "bash", "-c", f"</dev/tcp/{a}/2379"])) for a in addresses]
            return [address for address, done in tried if done.exit_code in (124, 143)]

        assert silent() == []
        with etcd.partition("kv-1", "kv-2"):
            assert silent() == addresses
        assert silent() == []
    finally:
        outer.minicluster("up", "--name", NAME, "--network", "none", ok=False)
        outer.docker("network", "rm", network)


@pytest.mark.long
@pytest.mark.parametrize("lacks", ["NET_ADMIN", "SYS_ADMIN"])
def test_an_engine_that_grants_too_little(
    outer: Shell, etcd: Cluster, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    granted = tuple(name for name in privileges._ON_CONTAINERS if name != lacks)
    monkeypatch.setattr(privileges, "_ON_CONTAINERS", granted)
    with pytest.raises(NodeFailed) as caught:
        etcd.partition("kv-1", ["kv-2", "kv-3"])
    assert "grants no NET_ADMIN or SYS_ADMIN" in caught.value.fix
    monkeypatch.undo()
    none_is_left(outer)
    assert rules(outer, etcd) == ""


# Other systems


@pytest.mark.long
@pytest.mark.parametrize("own_cluster", [("zookeeper",)], indirect=True)
def test_a_zookeeper_session_expires_in_the_minority(own_cluster: Cluster) -> None:
    from kazoo.client import KazooClient, KazooState

    node = "kv-1"
    at = own_cluster.node(node).endpoint("client")
    client = KazooClient(hosts=f"{at.host}:{at.port}", timeout=4)
    states: list[str] = []
    client.add_listener(states.append)
    client.start(timeout=30)
    try:
        client.create("/held", ephemeral=True)
        with own_cluster.fault.isolate(node):
            eventually(lambda: KazooState.SUSPENDED in states, what="its server hangs up")
            at = own_cluster.node("kv-2").endpoint("client")
            other = KazooClient(hosts=f"{at.host}:{at.port}", timeout=10)
            eventually(lambda: _started(other), what="the majority serves")
            eventually(lambda: other.exists("/held") is None, what="the majority lets the session expire")
            other.stop()
            other.close()
        eventually(lambda: KazooState.LOST in states, what="the client hears that its session is over")
    finally:
        client.stop()
        client.close()


def _started(client: Any) -> bool:
    try:
        client.start(timeout=5)
        return True
    except Exception:
        client.stop()
        return False


@pytest.mark.long
@pytest.mark.parametrize("own_cluster", [("consul", "--set", "version=1.8.7")], indirect=True)
def test_consul_elects_another_leader(own_cluster: Cluster) -> None:
    before = leader(own_cluster)
    with own_cluster.fault.isolate("leader"):
        assert own_cluster.faults()[0].nodes
        eventually(lambda: own_cluster.leader() not in ("", before), what="another leader")
    own_cluster.wait(timeout=150)


@pytest.mark.long
@pytest.mark.parametrize("own_cluster", [("swarm", "--size", "master=3", "--size", "agent=2")], indirect=True)
def test_a_swarm_is_cut_and_its_tasks_move(own_cluster: Cluster) -> None:
    def docker(node: str, *argv: str, timeout: float = 60) -> str:
        done = own_cluster.exec(node, ["docker", *argv], timeout=timeout)
        assert done.exit_code == 0, done.stderr
        return done.stdout

    docker("master-1", "network", "create", "--driver", "overlay", "--attachable", "o")
    demo = own_cluster.info().demo_image
    assert demo
    workers = ["--constraint", "node.role==worker", "--network", "o"]
    docker("master-1", "service", "create", "--name", "s", "--replicas", "2", *workers, demo, timeout=120)

    def where() -> set[str]:
        rows = docker("master-1", "service", "ps", "s", "--filter", "desired-state=running", "--format", "{{json .}}")
        return {r["Node"] for r in map(json.loads, rows.splitlines()) if r["CurrentState"].startswith("Running")}

    eventually(lambda: where() == {"agent-1", "agent-2"}, what="a task on each agent")
    names = {n: docker(n, "ps", "-q", "--filter", "label=com.docker.swarm.service.name=s").split()[0] for n in where()}
    there = docker("agent-2", "inspect", "-f", '{{(index .NetworkSettings.Networks "o").IPAddress}}', names["agent-2"])
    ping = ["docker", "exec", names["agent-1"], "ping", "-c", "1", "-W", "2", there.strip()]
    assert own_cluster.exec("agent-1", ping).exit_code == 0
    with own_cluster.partition("agent-1", "agent-2"):
        assert own_cluster.exec("agent-1", ping).exit_code != 0  # the overlay does not tunnel past the partition
        assert len(where()) == 2
    with own_cluster.fault.isolate("agent-2"):
        eventually(lambda: where() == {"agent-1"}, what="the tasks are on the other agent")
    with own_cluster.fault.isolate("leader") as fault:
        cut = fault.groups[0][0]
        listed = lambda: own_cluster.exec(cut, ["docker", "node", "ls"], timeout=60).exit_code == 0  # noqa: E731
        eventually(lambda: not listed(), what="a manager in the minority steps down")
    own_cluster.wait(timeout=150)


@pytest.mark.long
@pytest.mark.parametrize("own_cluster", [("kubernetes", "--size", "agent=2")], indirect=True)
def test_kubernetes_moves_pods_of_a_cut_agent(own_cluster: Cluster, tmp_path: Path) -> None:
    def kubectl(*argv: str) -> str:
        done = own_cluster.exec("master-1", ["kubectl", *argv], timeout=150)
        assert done.exit_code == 0, done.stderr
        return done.stdout

    demo = own_cluster.info().demo_image
    kubectl("create", "deployment", "d", f"--image={demo}", "--replicas=2")
    quick = [{"key": f"node.kubernetes.io/{k}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}
             for k in ("unreachable", "not-ready")]  # fmt: skip
    spread = [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
               "labelSelector": {"matchLabels": {"app": "d"}}}]  # fmt: skip
    patch = {"spec": {"template": {"spec": {"tolerations": quick, "topologySpreadConstraints": spread}}}}
    kubectl("patch", "deployment", "d", "-p", json.dumps(patch))
    kubectl("rollout", "status", "deployment/d", "--timeout=140s")

    def pods() -> list[tuple[str, str]]:
        rows = json.loads(kubectl("get", "pods", "-l", "app=d", "-o", "json"))["items"]
        alive = [r for r in rows if "deletionTimestamp" not in r["metadata"] and r["status"]["phase"] == "Running"]
        return [(r["spec"]["nodeName"], r["status"]["podIP"]) for r in alive]

    def ready(node: str) -> str:
        where = "{.status.conditions[?(@.type=='Ready')].status}"
        return kubectl("get", "node", node, "-o", f"jsonpath={where}").strip()

    eventually(lambda: {n for n, _a in pods()} == {"agent-1", "agent-2"}, what="a pod on each agent")
    ip = dict(pods())["agent-2"]
    fetch = ["curl", "-s", "-m", "2", "-o", "/dev/null", f"http://{ip}"]
    if own_cluster.exec("agent-1", fetch).exit_code in (0, 7):  # 7: nothing listens on that port, but packets come back
        with own_cluster.partition("agent-1", "agent-2"):
            assert own_cluster.exec("agent-1", fetch).exit_code == 28  # pods do not tunnel past the partition
    with own_cluster.fault.isolate("agent-2"):
        eventually(lambda: ready("agent-2") != "True", what="agent-2 is not ready", within=120)
        eventually(lambda: [n for n, _a in pods()].count("agent-1") == 2, what="both pods are on agent-1", within=120)
    eventually(lambda: ready("agent-2") == "True", what="agent-2 is ready again", within=120)
