"""The mesos profile on a real engine, as far as that goes without Mesos, of which no image can be had here.

ZooKeeper is real. In place of Mesos and Marathon stands ``not_mesos``, an image that is not Mesos: what is seen with it
is that nodes are wired, started, asked, changed and removed as the profile says, and that agents have an engine each.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kazoo.client import KazooClient

from minicluster.engine import base_image
from minicluster.engine.protocol import Cancel, Engine
from minicluster.profile import folders
from tests.engine.conftest import Shell, eventually, remains

NAME = "t-mesos"
STAND_IN = "t-mesos/not-mesos:1"
HERE = Path(__file__).parent
IMAGES = tuple(f"--image={role}={STAND_IN}" for role in ("master", "agent", "scheduler"))


@pytest.fixture(scope="module")
def stand_in(engine: Engine, outer: Shell, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image that is not Mesos."""
    folder = tmp_path_factory.mktemp("not-mesos")
    shutil.copytree(HERE / "not_mesos", folder, dirs_exist_ok=True)
    shutil.copytree(HERE.parent / "data" / "mesos", folder / "recorded")
    (folder / "not-mesos").chmod(0o755)
    ref = base_image.provide(engine, lambda _: None, lambda _: None, Cancel())
    outer.docker("build", "--quiet", "--build-arg", f"BASE={ref}", "--tag", STAND_IN, str(folder), timeout=300)
    try:
        yield STAND_IN
    finally:
        outer.docker("rmi", "--force", STAND_IN, ok=False)


@pytest.fixture(scope="module")
def cluster(outer: Shell, stand_in: str) -> Iterator[Shell]:
    """One ZooKeeper, three masters, two agents, one scheduler; the value is a shell with what ``env`` prints."""
    try:
        outer.minicluster("up", "mesos", "--name", NAME, "--size", "master=3", *IMAGES, timeout=900)
        yield Shell(outer.env | {"MINICLUSTER": NAME} | outer.minicluster("env", NAME, "-o", "json").json)
    finally:
        outer.minicluster("down", NAME, ok=False)
        outer.minicluster("image", "remove", "mesos", ok=False)
    assert remains(outer, NAME) == {}


def environment(shell: Shell, node: str) -> dict[str, str]:
    out = shell.docker("inspect", f"{NAME}-{node}", "--format", "{{json .Config.Env}}").out
    return dict(line.split("=", 1) for line in json.loads(out))


def addresses(shell: Shell) -> dict[str, str]:
    return {n["name"]: n["address"] for n in shell.minicluster("status", "-o", "json").json["nodes"]}


def is_ready(shell: Shell) -> Any:
    """The status, once all is well: a busy machine may miss a heartbeat now and then."""
    return eventually(lambda: (s := shell.minicluster("status", "-o", "json").json)["phase"] == "ready" and s)


# Images that are not there


def test_a_missing_image_is_one_error_and_leaves_nothing(outer: Shell) -> None:
    missing = [f"--image={role}=registry.example/none/{role}:1" for role in ("master", "agent", "scheduler")]
    answer = outer.minicluster("up", "mesos", "--name", f"{NAME}-none", *missing, ok=False, timeout=300)
    assert answer.code == 1
    error = answer.err.partition("Error: ")[2]
    named = [role for role in ("master", "agent", "scheduler") if f"registry.example/none/{role}:1" in error]
    assert len(named) == 1
    assert "lookup registry.example" in error or "registry.example" in error.splitlines()[1]
    assert f"--image {named[0]}=REF" in error
    assert "minicluster image import FILE" in error
    assert remains(outer, f"{NAME}-none") == {}


# What is up


def test_status_shows_leaders_quorums_agents_and_frameworks(cluster: Shell) -> None:
    status = is_ready(cluster)
    assert {role: (q["voters"], q["leader"]) for role, q in status["quorums"].items()} == {
        "kv": (1, "kv-1"),
        "master": (3, "master-1"),
    }
    assert status["quorum"] == status["quorums"]["kv"]  # which survives nothing
    details = {n["name"]: n["detail"] for n in status["nodes"]}
    assert details["master-1"] == "2 agents, frameworks: marathon"
    assert details["agent-1"] == details["agent-2"] == "registered"
    text = cluster.minicluster("status").out
    assert "quorum of master: 3 of 3, leader master-1, survives 1 loss" in text


def test_zookeeper_is_real_and_where_env_says(cluster: Shell) -> None:
    hosts = cluster.env["MINICLUSTER_KV"].removeprefix("zk://").removesuffix("/mesos")
    client = KazooClient(hosts, timeout=5)
    try:
        client.start(timeout=30)
        client.create("/mesos/seen", b"yes", makepath=True)
        assert client.get("/mesos/seen")[0] == b"yes"
    finally:
        client.stop()
        client.close()


def test_nodes_get_the_settings_of_the_plan(cluster: Shell) -> None:
    at = addresses(cluster)
    zk = f"zk://{at['kv-1']}:2181"
    master, agent, scheduler = (environment(cluster, node) for node in ("master-2", "agent-1", "scheduler-1"))
    assert (master["MESOS_ZK"], master["MESOS_QUORUM"], master["MESOS_IP"]) == (f"{zk}/mesos", "2", at["master-2"])
    assert (agent["MESOS_MASTER"], agent["MESOS_IP"]) == (f"{zk}/mesos", at["agent-1"])
    assert (scheduler["MARATHON_MASTER"], scheduler["MARATHON_ZK"]) == (f"{zk}/mesos", f"{zk}/marathon")
    # The stand-in ends where its ZooKeeper does not serve yet, so all nodes began after those that they need.
    for node in at:
        state = cluster.docker("inspect", f"{NAME}-{node}", "--format", "{{.RestartCount}} {{.State.Running}}").out
        assert state.split() == ["0", "true"]


def test_env_has_a_url_and_an_address_for_each_role(cluster: Shell) -> None:
    at = addresses(cluster)
    for role in ("KV", "MASTER", "AGENT", "SCHEDULER"):
        assert cluster.env[f"MINICLUSTER_{role}_IP"] == at[f"{role.lower()}-1"]
    assert cluster.env["MINICLUSTER_MASTER"] in cluster.minicluster("info").out
    assert f"export MINICLUSTER_MASTER={cluster.env['MINICLUSTER_MASTER']}" in cluster.minicluster("env").out


def test_each_agent_has_an_engine_of_its_own(cluster: Shell) -> None:
    """Put into an image that had none: it runs containers, and those of one agent are not the other's."""
    docker = "/opt/minicluster/engine/bin/docker"
    run = f"""
        set -e
        root=/var/tmp/root
        mkdir -p $root/bin
        cp /usr/bin/perl $root/bin/
        for lib in $(ldd /usr/bin/perl | grep -o "/[^ ]*"); do mkdir -p $root${{lib%/*}}; cp $lib $root$lib; done
        tar -C $root -c . | {docker} import - tiny:1 >/dev/null
        {docker} run --rm --network host --name mesos-x tiny:1 /bin/perl -e 'print "ran"'
    """
    done = cluster.minicluster("exec", "agent-1", "--", "sh", "-c", run)
    assert done.out == "ran"
    assert cluster.minicluster("exec", "agent-1", "--", docker, "images", "-q", "tiny").out.strip()
    assert not cluster.minicluster("exec", "agent-2", "--", docker, "images", "-q", "tiny").out.strip()
    log = cluster.minicluster("logs", "agent-1").out
    assert "MESOS_CONTAINERIZERS=docker,mesos" in log
    assert f"MESOS_DOCKER={docker}" in log


def test_load_copies_an_image_to_every_agents_engine(cluster: Shell, tmp_path: Path) -> None:
    ref, docker = "t-mesos/tiny:1", "/opt/minicluster/engine/bin/docker"
    (tmp_path / "what").write_text("here")
    with tarfile.open(tmp_path / "root.tar", "w") as root:
        root.add(tmp_path / "what", "what")
    cluster.docker("import", str(tmp_path / "root.tar"), ref)
    try:
        cluster.minicluster("load", ref)
    finally:
        cluster.docker("rmi", ref)
    for agent in ("agent-1", "agent-2"):
        assert cluster.minicluster("exec", agent, "--", docker, "images", "-q", ref).out.strip()


BARE = """
FROM {base} AS box
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends busybox-static >/dev/null \\
 && mkdir -p /bare/bin /bare/proc /bare/sys /bare/etc /bare/run /bare/var /bare/tmp && cp /bin/busybox /bare/bin/ \\
 && for applet in sh mount mkdir rm sed sleep tar; do ln -s busybox /bare/bin/$applet; done
FROM scratch
COPY --from=box /bare/ /
"""
NESTED = (
    *("--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN", "--cap-add=SYS_PTRACE", "--security-opt=seccomp=unconfined"),
    *("--security-opt=apparmor=unconfined", "--security-opt=systempaths=unconfined", "--cgroupns=private"),
    *("--tmpfs=/run", "--tmpfs=/tmp:exec", "--volume=/var/lib/docker", "--init"),
)


@pytest.mark.long
def test_an_agents_engine_needs_nothing_of_its_image(outer: Shell, stand_in: str, tmp_path: Path) -> None:
    """Not even a C library: it runs containers in an image that has busybox alone."""
    base_ref = next(
        ref for ref in (base_image.REGISTRY, base_image.LOCAL) if outer.docker("inspect", ref, ok=False).code == 0
    )
    (tmp_path / "Dockerfile").write_text(BARE.format(base=base_ref))
    overlay = folders.bundled_directory() / "mesos" / "image-agent"
    path = "PATH=/bin:/opt/minicluster/engine/bin"
    files = folders.bundled_directory() / "swarm" / "files"
    bin = tmp_path / "files" / "usr" / "local" / "bin"
    bin.mkdir(parents=True)
    for file in (*(files / "engine").iterdir(), *(files / "nested").iterdir()):
        shutil.copy(file, bin)
    try:
        outer.docker("build", "--quiet", "--tag", "t-mesos/bare:1", str(tmp_path), timeout=300)
        args = (f"--build-arg=BASE={base_ref}", "--build-arg=IMAGE=t-mesos/bare:1")
        outer.docker("build", "--quiet", "--tag", "t-mesos/fitted:1", *args, str(overlay), timeout=300)
        env = ("--env", path, "--env", "XTABLES_LIBDIR=/opt/minicluster/engine/xtables")
        outer.docker(
            "create",
            "--name",
            "t-mesos-bare",
            *NESTED,
            *env,
            "t-mesos/fitted:1",
            "sh",
            "/usr/local/bin/minicluster-entrypoint",
        )
        outer.docker("cp", f"{tmp_path}/files/.", "t-mesos-bare:/")
        outer.docker("start", "t-mesos-bare")
        inside = ("exec", "t-mesos-bare", "sh", "-c")
        eventually(lambda: outer.docker(*inside, "docker version", ok=False).code == 0, what="the engine answers")
        run = "tar -c bin | docker import - box:1 >/dev/null && docker run --rm box:1 /bin/busybox echo it ran"
        assert outer.docker(*inside, f"cd / && {run}").out == "it ran\n"
    finally:
        outer.docker("rm", "--force", "--volumes", "t-mesos-bare", ok=False)
        outer.docker("rmi", "t-mesos/fitted:1", "t-mesos/bare:1", ok=False)


# The commands, over published ports


def test_commands_find_the_leader_and_agents(cluster: Shell) -> None:
    assert cluster.minicluster("mesos", "state").json["version"] == "1.12.0"
    assert cluster.minicluster("mesos", "state", "--agent", "agent-2").json["hostname"] == "localhost"
    assert cluster.minicluster("mesos", "ps", "--all", "-o", "json").json[0]["state"] == "TASK_FINISHED"
    log = cluster.minicluster("mesos", "logs", "t1", "--stderr").out
    assert log.startswith("agent-1: path=")
    assert log.endswith("%2Fstderr\n")


def test_install_takes_tokens_and_waits(cluster: Shell, tmp_path: Path) -> None:
    (tmp_path / "app.json").write_text('{"id": "web", "cmd": "ping ${MINICLUSTER_MASTER_IP}"}')
    answer = cluster.minicluster("mesos", "install", str(tmp_path / "app.json"), "-o", "json").json
    assert (answer["kind"], answer["id"], answer["deployment"]) == ("app", "/web", "d1")
    (tmp_path / "app.json").write_text('{"id": "web", "cmd": "ping ${MINICLUSTER_MESTER_IP}"}')
    refused = cluster.minicluster("mesos", "install", str(tmp_path / "app.json"), ok=False)
    assert refused.code == 2
    assert "Did you mean 'MINICLUSTER_MASTER_IP'?" in refused.err


# Changes


def test_an_agent_is_added_and_removed(cluster: Shell) -> None:
    cluster.minicluster("scale", "agent=3", timeout=300)
    eventually(lambda: "3 agents" in cluster.minicluster("status").out)
    answer = cluster.minicluster("scale", "agent=2", timeout=300)
    assert "continuing" not in answer.err
    eventually(lambda: "2 agents" in cluster.minicluster("status").out)


@pytest.mark.long
def test_everything_stops_and_starts_in_order(cluster: Shell) -> None:
    cluster.minicluster("stop", timeout=300)
    cluster.minicluster("start", timeout=300)
    is_ready(cluster)


@pytest.mark.long
def test_a_killed_master_is_reported_and_starts_again(cluster: Shell) -> None:
    cluster.minicluster("kill", "master-2")
    status = cluster.minicluster("status", "-o", "json").json
    assert status["phase"] == "degraded"
    assert status["quorums"]["master"] | {"leader": ""} == {
        "voters": 3, "healthy": 2, "needed": 2, "survives": 0, "leader": "",
    }  # fmt: skip
    cluster.minicluster("up", "--name", NAME, timeout=300)
    is_ready(cluster)


LONG = pytest.mark.long


@pytest.mark.parametrize(
    "node", ["master-1", pytest.param("agent-2", marks=LONG), pytest.param("scheduler-1", marks=LONG)]
)
def test_a_process_that_ends_runs_again_in_its_node(cluster: Shell, node: str) -> None:
    """As one does that loses its session with ZooKeeper. In its first seconds the node would end with it."""
    number = ("exec", node, "--", "cat", "/run/mesos.pid")
    eventually(lambda: age(cluster, node) > 6, what=f"{node} has been running for a while")
    before = cluster.minicluster(*number).out
    cluster.minicluster("exec", node, "--", "sh", "-c", f"kill -KILL {before}")
    eventually(lambda: cluster.minicluster(*number).out != before, what="another process runs")
    state = cluster.docker("inspect", f"{NAME}-{node}", "--format", "{{.RestartCount}} {{.State.Running}}").out
    assert state.split() == ["0", "true"]
    is_ready(cluster)


def age(shell: Shell, node: str) -> float:
    """Seconds since a node has started."""
    script = "set -- $(sed 's/.*) //' /proc/1/stat); up=$(cut -d. -f1 /proc/uptime); echo $((up - ${20} / 100))"
    return float(shell.minicluster("exec", node, "--", "sh", "-c", script).out)


@pytest.mark.long
def test_each_start_of_an_agents_node_is_a_boot_to_it(cluster: Shell) -> None:
    number = ("exec", "agent-1", "--", "cat", "/var/lib/mesos/meta/boot_id")
    before = cluster.minicluster(*number).out
    assert len(before.strip()) == 36
    cluster.minicluster("restart", "agent-1", timeout=300)
    assert cluster.minicluster(*number).out != before


@pytest.mark.long
def test_the_balancer_answers_while_agents_come_and_go(cluster: Shell) -> None:
    """HAProxy is real, and so are the web servers in the agents' engines; which there are is said by no Marathon."""
    docker = "/opt/minicluster/engine/bin/docker"
    for agent in ("agent-1", "agent-2"):
        run = (docker, "run", "-d", "--name", "web", "-p", "31000:80", "localhost/minicluster/demo")
        eventually(
            lambda agent=agent, run=run: cluster.minicluster("exec", agent, "--", *run, ok=False).code in (0, 125),
            what=f"{agent} runs the demo image",
        )
    cluster.minicluster("scale", "balancer=1", timeout=600)
    try:
        assert is_ready(cluster)["nodes"][-1]["name"] == "balancer-1"
        url = cluster.minicluster("env", "-o", "json").json["MINICLUSTER_BALANCER"]

        def answers(name: str = "web.shop.localhost") -> set[str]:
            return {cluster.run("curl", "-sS", "-m", "5", "-H", f"Host: {name}", url).out.split()[0] for _ in range(6)}

        eventually(lambda: answers() == {"agent-1", "agent-2"}, what="both agents answer")
        assert answers("nothing.example") == {"no"}
        address = addresses(cluster)["balancer-1"]
        inside = f"exec 3<>/dev/tcp/{address}/10000; printf 'GET / HTTP/1.0\r\n\r\n' >&3; cat <&3"
        assert "agent-" in cluster.minicluster("exec", "kv-1", "--", "bash", "-c", inside).out
        cluster.minicluster("kill", "agent-2")
        assert answers() == {"agent-1"}  # each request is answered, also those that are sent to the dead one first
        eventually(lambda: answers() == {"agent-1"}, what="the agent that is left answers alone")
    finally:
        cluster.minicluster("up", "--name", NAME, timeout=300)
        cluster.minicluster("scale", "balancer=0", timeout=300)


# Authentication, and names


@pytest.fixture(scope="module")
def guarded(outer: Shell, stand_in: str) -> Iterator[Shell]:
    """One of each, Mesos-DNS' stand-in too, with ``authentication``."""
    name = f"{NAME}-auth"
    sizes = ("--size=agent=1", "--size=dns=1", f"--image=dns={STAND_IN}")
    try:
        outer.minicluster("up", "mesos", "--name", name, "--set", "authentication=true", *sizes, *IMAGES, timeout=900)
        yield Shell(outer.env | {"MINICLUSTER": name} | outer.minicluster("env", name, "-o", "json").json)
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}


@pytest.mark.long
def test_who_does_not_know_the_secret_is_refused(guarded: Shell) -> None:
    is_ready(guarded)
    code = ("curl", "-sS", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}")
    for variable, path in {"MASTER": "/slaves", "AGENT": "/state", "SCHEDULER": "/v2/info"}.items():
        url = guarded.env[f"MINICLUSTER_{variable}"]
        login, _, place = url.removeprefix("http://").partition("@")
        assert login.startswith("minicluster:")
        assert guarded.run(*code, f"http://{place}{path}").out == "401"
        assert guarded.run(*code, f"http://minicluster:wrong@{place}{path}").out == "401"
        assert guarded.run(*code, f"{url}{path}").out == "200"
        secret = login.partition(":")[2]
        for node in ("master-1", "agent-1", "scheduler-1", "dns-1"):
            assert secret not in guarded.docker("inspect", f"{NAME}-auth-{node}").out
    assert "anyone" not in guarded.minicluster("up", "--bind-address", "127.0.0.2", "--dry-run").err


@pytest.mark.long
def test_the_commands_know_the_secret(guarded: Shell, tmp_path: Path) -> None:
    assert guarded.minicluster("mesos", "state", "--agent", "agent-1").json["hostname"] == "localhost"
    assert guarded.minicluster("mesos", "ps", "--all", "-o", "json").json
    (tmp_path / "app.json").write_text('{"id": "web", "cmd": "sleep 1000"}')
    assert guarded.minicluster("mesos", "install", str(tmp_path / "app.json"), "-o", "json").json["id"] == "/web"


@pytest.mark.long
def test_nodes_are_given_what_mesos_authenticates_with(guarded: Shell) -> None:
    secret = guarded.env["MINICLUSTER_MASTER"].partition("minicluster:")[2].partition("@")[0]
    masters = guarded.minicluster("logs", "master-1").out
    assert f"MESOS_ZK=zk://minicluster:{secret}@" in masters
    for name in ("AGENTS", "FRAMEWORKS", "HTTP_READONLY", "HTTP_READWRITE", "HTTP_FRAMEWORKS"):
        assert f"MESOS_AUTHENTICATE_{name}=true\n" in masters
    assert "MESOS_HTTP_FRAMEWORK_AUTHENTICATORS=basic\n" in masters
    assert f"MESOS_MASTER=zk://minicluster:{secret}@" in guarded.minicluster("logs", "agent-1").out
    about = json.loads(guarded.minicluster("exec", "agent-1", "--", "cat", "/run/minicluster-credential").out)
    assert about == {"principal": "minicluster", "secret": secret}
    schedulers = guarded.minicluster("logs", "scheduler-1").out
    assert "MARATHON_MESOS_AUTHENTICATION=\n" in schedulers
    assert "MARATHON_MESOS_AUTHENTICATION_PRINCIPAL=minicluster\n" in schedulers
    assert guarded.minicluster("exec", "scheduler-1", "--", "cat", "/run/minicluster-secret").out == secret
    config = json.loads(guarded.minicluster("exec", "dns-1", "--", "cat", "/etc/mesos-dns/config.json").out)
    assert config["mesosCredentials"] == about


@pytest.mark.long
def test_agents_and_tasks_ask_mesos_dns_for_names(guarded: Shell) -> None:
    name = "web.shop.marathon.mesos"
    assert "10.99.98.97" in guarded.minicluster("exec", "agent-1", "--", "getent", "hosts", name).out
    kv = addresses(guarded)["kv-1"]
    assert kv in guarded.minicluster("exec", "agent-1", "--", "getent", "hosts", "kv-1").out  # passed on
    docker = ("/opt/minicluster/engine/bin/docker", "run", "--rm", "--entrypoint", "/bin/busybox")
    look = ("exec", "agent-1", "--", *docker, "localhost/minicluster/demo", "nslookup", name)
    assert eventually(lambda: (a := guarded.minicluster(*look, ok=False)).code == 0 and "10.99.98.97" in a.out)
    guarded.minicluster("restart", "agent-1", timeout=300)
    assert "10.99.98.97" in guarded.minicluster("exec", "agent-1", "--", "getent", "hosts", name).out


def test_the_number_of_masters_cannot_change(cluster: Shell) -> None:
    refused = cluster.minicluster("up", "--name", NAME, "--size", "master=5", ok=False)
    assert refused.code == 2
    assert "that cannot change" in refused.err


@pytest.mark.long
def test_growing_from_one_zookeeper_to_three_updates_all_nodes(cluster: Shell) -> None:
    cluster.minicluster("scale", "kv=3", timeout=600)
    at = addresses(cluster)
    hosts = ",".join(f"{at[f'kv-{i}']}:2181" for i in (1, 2, 3))
    assert environment(cluster, "master-3")["MESOS_ZK"] == f"zk://{hosts}/mesos"
    assert environment(cluster, "agent-1")["MESOS_MASTER"] == f"zk://{hosts}/mesos"
    assert is_ready(cluster)["quorums"]["kv"]["voters"] == 3
