"""A real etcd ensemble, proved with the stock etcdctl of this machine."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import ssl
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.engine.conftest import Shell, eventually, remains
from tests.engine.sockets import waiting

NAME = "t-etcd"

pytestmark = pytest.mark.skipif(not shutil.which("etcdctl"), reason="etcdctl (Debian: etcd-client) is not installed")


def client(shell: Shell, name: str = NAME) -> Shell:
    """A shell in which a stock etcdctl finds the cluster."""
    return Shell(shell.env | shell.minicluster("env", name, "-o", "json").json)


def etcdctl(shell: Shell, *argv: str, ok: bool = True) -> str:
    return shell.run("etcdctl", *argv, ok=ok, timeout=30).out


def members(shell: Shell) -> dict[str, dict[str, Any]]:
    """The members by name, as etcd itself lists them."""
    listed = json.loads(etcdctl(shell, "member", "list", "-w", "json"))["members"]
    return {member.get("name", ""): member for member in listed}


def status(shell: Shell, name: str = NAME) -> Any:
    return shell.minicluster("status", name, "-o", "json").json


def is_ready(shell: Shell, voters: int, name: str = NAME) -> None:
    def ready() -> bool:
        answer = status(shell, name)
        return answer["phase"] == "ready" and answer["quorum"]["voters"] == voters

    eventually(ready, what=f"{name} ready with {voters} voters")


@pytest.fixture(scope="module")
def cluster(outer: Shell) -> Iterator[Shell]:
    """Three members; the value has the environment of a stock client."""
    try:
        outer.minicluster("up", "etcd", "--name", NAME, timeout=600)
        yield client(outer)
    finally:
        outer.minicluster("down", NAME, ok=False)
    assert remains(outer, NAME) == {}


@pytest.fixture
def whole(cluster: Shell) -> Iterator[Shell]:
    """The same three members with a key, made whole again afterwards."""
    etcdctl(cluster, "put", "greeting", "hello")
    yield cluster
    cluster.minicluster("scale", "kv=3", "-c", NAME, ok=False)
    cluster.minicluster("up", "--name", NAME)
    is_ready(cluster, 3)
    assert etcdctl(cluster, "get", "greeting", "--print-value-only") == "hello\n"


def test_the_stock_client_finds_every_member_healthy(cluster: Shell) -> None:
    assert set(members(cluster)) == {"kv-1", "kv-2", "kv-3"}
    answer = json.loads(etcdctl(cluster, "endpoint", "health", "-w", "json"))
    assert len(answer) == 3
    assert all(endpoint["health"] for endpoint in answer)


def test_status_shows_the_leader_and_the_quorum(cluster: Shell) -> None:
    is_ready(cluster, 3)
    quorum = status(cluster)["quorum"]
    assert quorum | {"leader": ""} == {"voters": 3, "healthy": 3, "needed": 2, "survives": 1, "leader": ""}
    leading = json.loads(etcdctl(cluster, "endpoint", "status", "-w", "json"))
    ids = {name: member["ID"] for name, member in members(cluster).items()}
    assert ids[quorum["leader"]] == leading[0]["Status"]["leader"]
    text = cluster.minicluster("status", NAME).out
    assert f"quorum: 3 of 3, leader {quorum['leader']}, survives 1 loss\n" in text


def test_memory_is_limited(cluster: Shell) -> None:
    limit = cluster.docker("inspect", f"{NAME}-kv-1", "--format", "{{.HostConfig.Memory}}").out
    assert int(limit) == 384 << 20


def test_a_client_without_a_certificate_is_refused(cluster: Shell) -> None:
    bare = Shell(cluster.env | {"ETCDCTL_CERT": "", "ETCDCTL_KEY": ""})
    assert bare.run("etcdctl", "get", "x", "--command-timeout=2s", ok=False).code != 0
    plain = Shell(bare.env | {"ETCDCTL_ENDPOINTS": cluster.env["ETCDCTL_ENDPOINTS"].replace("https", "http")})
    assert plain.run("etcdctl", "get", "x", "--command-timeout=2s", ok=False).code != 0


@pytest.mark.long
def test_many_watches_of_one_address(cluster: Shell) -> None:
    """All clients on the host come from the gateway's address."""
    context = ssl.create_default_context(cafile=cluster.env["ETCDCTL_CACERT"])
    context.load_cert_chain(cluster.env["ETCDCTL_CERT"], cluster.env["ETCDCTL_KEY"])
    url = urlsplit(cluster.env["ETCDCTL_ENDPOINTS"].split(",")[0])
    body = json.dumps({"create_request": {"key": base64.b64encode(b"a").decode()}})
    head = f"POST /v3/watch HTTP/1.1\r\nHost: etcd\r\nContent-Length: {len(body)}\r\n\r\n"
    assert url.hostname
    assert url.port
    with waiting(260, url.hostname, url.port, (head + body).encode(), context) as answers:
        assert {answer.split(b" ")[1] for answer in answers} == {b"200"}


@pytest.mark.long
def test_the_next_minor_version_goes_from_member_to_member_and_none_goes_back(outer: Shell) -> None:
    name = f"{NAME}-next"

    def versions() -> set[str]:
        answers = json.loads(own("endpoint", "status", "--cluster", "-w", "json"))
        return {answer["Status"]["version"] for answer in answers}

    def own(*words: str) -> str:
        return outer.minicluster("etcdctl", "-c", name, *words).out

    try:
        outer.minicluster("up", "etcd", "--name", name, "--set", "version=3.6", timeout=600)
        own("put", "greeting", "hello")
        assert versions() == {"3.6.16"}
        outer.minicluster("up", "etcd", "--name", name, "--set", "version=3.7", timeout=600)
        assert versions() == {"3.7.3"}
        assert own("get", "greeting", "--print-value-only") == "hello\n"
        refused = outer.minicluster("up", "etcd", "--name", name, "--set", "version=3.6", ok=False)
        assert refused.code == 2
        assert f"etcd v3.7.3 in cluster {name} cannot become v3.6.16" in refused.err
        assert "--set version=v3.7.3" in refused.err
        outer.minicluster("up", "etcd", "--name", name, "--size", "kv=1")  # keeps its version, not the default one
        assert versions() == {"3.7.3"}
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}


@pytest.mark.long
def test_one_grows_to_three_and_to_five_and_back_without_its_leader(outer: Shell) -> None:
    name = f"{NAME}-grow"
    try:
        outer.minicluster("up", "etcd", "--name", name, "--size", "kv=1", "--set", "tls=false")
        shell = client(outer, name)
        assert shell.env["ETCDCTL_ENDPOINTS"].startswith("http://127.0.0.1:")
        assert "ETCDCTL_CACERT" not in shell.minicluster("env", name, "-o", "json").json
        etcdctl(shell, "put", "greeting", "hello")
        for size in (3, 5):
            outer.minicluster("scale", f"kv={size}", "-c", name)
            shell = client(outer, name)
            assert set(members(shell)) == {f"kv-{n}" for n in range(1, size + 1)}
            assert not any(member.get("isLearner") for member in members(shell).values())
        leader = format(members(shell)["kv-5"]["ID"], "x")
        nodes = Shell(shell.env | {"ETCDCTL_ENDPOINTS": status(outer, name)["quorum"]["leader"]})
        by_name = {e["node"]: e["url"] for e in outer.minicluster("info", name, "-o", "json").json["endpoints"]}
        nodes.env["ETCDCTL_ENDPOINTS"] = by_name[nodes.env["ETCDCTL_ENDPOINTS"]]
        etcdctl(nodes, "move-leader", leader, ok=False)  # it may be the leader already
        eventually(lambda: status(outer, name)["quorum"]["leader"] == "kv-5", what="kv-5 leads")
        outer.minicluster("scale", "kv=3", "-c", name)
        shell = client(outer, name)
        assert set(members(shell)) == {"kv-1", "kv-2", "kv-3"}
        assert etcdctl(shell, "get", "greeting", "--print-value-only") == "hello\n"
        refused = outer.minicluster("up", "--name", name, "--set", "tls=true", ok=False)
        assert refused.code == 2
        assert "that cannot change" in refused.err
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}


@pytest.mark.parametrize(
    ("sizes", "code", "said"),
    [
        (["kv=0"], 2, "role kv takes 1, 3, 5 or 7 nodes"),
        (["kv=2"], 2, "even number"),
        (["kv=9"], 2, "role kv takes 1, 3, 5 or 7 nodes"),
        (["agent=1"], 2, "no role named 'agent'"),
        (["kv"], 2, "must have the form ROLE=N"),
    ],
)
def test_an_invalid_size_is_refused(cluster: Shell, sizes: list[str], code: int, said: str) -> None:
    answer = cluster.minicluster("scale", *sizes, "-c", NAME, ok=False)
    assert answer.code == code
    assert said in answer.err
    assert set(members(cluster)) == {"kv-1", "kv-2", "kv-3"}


@pytest.mark.parametrize(
    "with_its_data", [pytest.param(False, marks=pytest.mark.long), True], ids=["container", "container and volume"]
)
def test_a_node_removed_with_docker_is_reported_and_recreated(whole: Shell, with_its_data: bool) -> None:
    whole.docker("rm", "-f", f"{NAME}-kv-2")
    if with_its_data:
        whole.docker("volume", "rm", f"{NAME}-kv-2-var-lib-etcd")
    eventually(lambda: status(whole)["phase"] == "degraded", what="a cluster that goes on without kv-2")
    assert {n["name"]: n["phase"] for n in status(whole)["nodes"]}["kv-2"] == "missing"
    refused = whole.minicluster("start", "kv-2", "-c", NAME, ok=False)
    assert refused.code == 1
    assert "recreates it" in refused.err
    whole.minicluster("up", "--name", NAME)
    is_ready(whole, 3)
    assert set(members(whole)) == {"kv-1", "kv-2", "kv-3"}


@pytest.mark.long
def test_a_lost_quorum_is_told_with_who_is_left(outer: Shell) -> None:
    name = f"{NAME}-quorum"
    try:
        outer.minicluster("up", "etcd", "--name", name, "--size", "kv=5")
        outer.docker("kill", *(f"{name}-kv-{n}" for n in (3, 4, 5)))
        lines = outer.minicluster("status", name).out.splitlines()
        assert lines[:4] == [
            f"{name} (etcd): quorum lost",
            "quorum: lost, 2 of 5 healthy, 3 needed",
            "  running: kv-1, kv-2",
            "  exited: kv-3, kv-4, kv-5",
        ]
        assert "etcd-members" not in "\n".join(lines)
        outer.minicluster("start", "-c", name)
        is_ready(outer, 5, name)
    finally:
        outer.minicluster("down", name)


@pytest.mark.long
def test_losing_the_data_of_a_majority_is_an_error(outer: Shell) -> None:
    name = f"{NAME}-lost"
    try:
        outer.minicluster("up", "etcd", "--name", name)
        for node in ("kv-1", "kv-3"):
            outer.docker("rm", "-f", f"{name}-{node}")
            outer.docker("volume", "rm", f"{name}-{node}-var-lib-etcd")
        answer = outer.minicluster("up", "--name", name, ok=False)
        assert answer.code == 1
        assert "has lost the data of kv-1, kv-3" in answer.err
        assert outer.docker("ps", "-q", "--filter", f"name={name}-kv-1").out == ""
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}


def test_a_change_that_would_lose_the_quorum_is_refused(whole: Shell) -> None:
    whole.minicluster("kill", "kv-1", "-c", NAME)
    refused = whole.minicluster("scale", "kv=1", "-c", NAME, ok=False)
    assert refused.code == 1
    assert "would lose the quorum" in refused.err
    assert "kv-1" in refused.err
    refused = whole.minicluster("restart", "--rolling", "-c", NAME, ok=False)
    assert refused.code == 1
    assert "would lose the quorum" in refused.err
    eventually(lambda: status(whole)["quorum"]["healthy"] == 2, what="two healthy voters")


@pytest.mark.long
def test_dead_members_leave_first(outer: Shell) -> None:
    name = f"{NAME}-dead"
    try:
        outer.minicluster("up", "etcd", "--name", name)
        outer.minicluster("kill", "kv-2", "-c", name)
        eventually(lambda: status(outer, name)["quorum"]["healthy"] == 2, what="two healthy voters")
        outer.minicluster("scale", "kv=1", "-c", name)
        assert set(members(client(outer, name))) == {"kv-1"}
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}


def test_nodes_are_paused_and_unpaused(whole: Shell) -> None:
    whole.minicluster("pause", "kv-3", "-c", NAME)
    answer = status(whole)
    assert {n["name"]: n["phase"] for n in answer["nodes"]}["kv-3"] == "paused"
    assert answer["quorum"]["healthy"] == 2
    etcdctl(whole, "put", "while", "paused")
    whole.minicluster("unpause", "kv-3", "-c", NAME)
    is_ready(whole, 3)
    assert "nothing to do" in whole.minicluster("unpause", "-c", NAME).out


def test_verbs_on_a_stopped_cluster(whole: Shell) -> None:
    whole.minicluster("stop", "-c", NAME)
    assert status(whole)["phase"] == "stopped"
    assert "nothing to do" in whole.minicluster("stop", "-c", NAME).out
    for verb in ("pause", "kill"):
        refused = whole.minicluster(verb, "kv-1", "-c", NAME, ok=False)
        assert refused.code == 1
        assert "It is stopped" in refused.err
    refused = whole.minicluster("scale", "kv=1", "-c", NAME, ok=False)
    assert refused.code == 1
    assert "cannot leave" in refused.err
    one = whole.minicluster("start", "kv-1", "-c", NAME)
    assert "a quorum needs 2" in one.err
    ports = {e["url"] for e in whole.minicluster("info", NAME, "-o", "json").json["endpoints"]}
    addresses = {n["name"]: n["address"] for n in status(whole)["nodes"]}
    whole.minicluster("start", "-c", NAME)
    is_ready(whole, 3)
    assert ports == set(whole.env["ETCDCTL_ENDPOINTS"].split(","))
    assert addresses == {n["name"]: n["address"] for n in status(whole)["nodes"]}


def test_a_node_with_a_restart_policy_restarts(whole: Shell) -> None:
    policy = ("inspect", f"{NAME}-kv-1", "--format", "{{.Id}} {{.HostConfig.RestartPolicy.Name}}")
    before = whole.docker(*policy).out.split()
    assert before[1] == "no"
    whole.minicluster("up", "--name", NAME, "--restart", "always")
    assert whole.docker(*policy).out.split() == [before[0], "always"]  # the container is the same
    pid = whole.docker("inspect", f"{NAME}-kv-1", "--format", "{{.State.Pid}}").out.strip()
    os.kill(int(pid), 9)  # the whole node, by the kernel rather than the engine
    eventually(
        lambda: whole.docker("inspect", f"{NAME}-kv-1", "--format", "{{.RestartCount}}").out.strip() != "0",
        what="the engine has started kv-1 again",
    )
    is_ready(whole, 3)
    whole.minicluster("up", "--name", NAME, "--restart", "no")
    assert whole.docker(*policy).out.split() == [before[0], "no"]


def test_another_setting_rolls_through_the_members_one_by_one(whole: Shell) -> None:
    plan = whole.minicluster("up", "--name", NAME, "--set", "heartbeat=60", "--dry-run", "-o", "json").json
    replaced = [step["node"] for step in plan["steps"] if step["action"] == "remove-container"]
    assert sorted(replaced) == ["kv-1", "kv-2", "kv-3"]
    assert replaced[-1] == status(whole)["quorum"]["leader"]
    whole.minicluster("up", "--name", NAME, "--set", "heartbeat=60")
    is_ready(whole, 3)
    assert (
        "ETCD_HEARTBEAT_INTERVAL=60"
        in whole.minicluster("exec", "-c", NAME, "kv-2", "--", "cat", "/etc/etcd/etcd.env").out
    )
    whole.minicluster("up", "--name", NAME, "--set", "heartbeat=50")


@pytest.mark.parametrize(
    "seconds", [pytest.param(0.9, marks=pytest.mark.long), 2.5, pytest.param(6.5, marks=pytest.mark.long)]
)
def test_killed_in_the_middle_of_scaling_then_up_finishes(whole: Shell, seconds: float) -> None:
    process = whole.start("scale", "kv=5", "-c", NAME)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    whole.minicluster("up", "--name", NAME, "--size", "kv=5", timeout=300)
    assert set(members(whole)) == {f"kv-{n}" for n in range(1, 6)}
    process = whole.start("scale", "kv=3", "-c", NAME)
    time.sleep(seconds / 2)
    process.kill()
    process.communicate()
    whole.minicluster("up", "--name", NAME, "--size", "kv=3", timeout=300)
    is_ready(whole, 3)
    assert set(members(whole)) == {"kv-1", "kv-2", "kv-3"}


@pytest.mark.parametrize(
    ("before", "verb"),
    [
        pytest.param("", "stop", marks=pytest.mark.long),
        pytest.param("stop", "start", marks=pytest.mark.long),
        pytest.param("", "restart", marks=pytest.mark.long),
        ("", "restart --rolling"),
        pytest.param("", "pause", marks=pytest.mark.long),
        pytest.param("pause", "unpause", marks=pytest.mark.long),
        pytest.param("", "kill", marks=pytest.mark.long),
    ],
)
def test_a_verb_that_was_killed_is_completed_by_up(whole: Shell, before: str, verb: str) -> None:
    def states() -> str:
        names = [f"{NAME}-kv-{n}" for n in (1, 2, 3)]
        return whole.docker("inspect", "--format", "{{.State.Status}} {{.State.StartedAt}}", *names).out

    if before:
        whole.minicluster(before, "-c", NAME)
    was = states()
    nodes = ["kv-1", "kv-2", "kv-3"] if verb == "kill" else []
    process = whole.start(*verb.split(), *nodes, "-c", NAME)
    eventually(lambda: states() != was, what=f"{verb} has begun", pause=0.01)
    process.kill()
    process.communicate()
    whole.minicluster("up", "--name", NAME)
    is_ready(whole, 3)


@pytest.mark.parametrize("moment", ["container", pytest.param("member", marks=pytest.mark.long)])
def test_scaling_that_is_interrupted_is_undone(whole: Shell, moment: str) -> None:
    def there() -> bool:
        if moment == "container":
            return bool({f"{NAME}-kv-4", f"{NAME}-kv-5"} & {*whole.docker("ps", "--format", "{{.Names}}").out.split()})
        return len(members(whole)) > 3

    process = whole.start("scale", "kv=5", "-c", NAME)
    eventually(there, what=f"the first {moment} is there", pause=0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130, said
    assert set(members(whole)) == {"kv-1", "kv-2", "kv-3"}
    assert "is up to date" in whole.minicluster("up", "--name", NAME).out
    is_ready(whole, 3)


@pytest.mark.long
def test_an_interrupted_rolling_restart_is_completed_by_up(whole: Shell) -> None:
    def started() -> str:
        return whole.docker("inspect", "--format", "{{.State.StartedAt}}", *(f"{NAME}-kv-{n}" for n in (1, 2, 3))).out

    was = started()
    process = whole.start("restart", "--rolling", "-c", NAME)
    eventually(lambda: started() != was, what="the first node is restarted", pause=0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130, said
    whole.minicluster("up", "--name", NAME)
    is_ready(whole, 3)


@pytest.mark.long
@pytest.mark.parametrize("verbs", [["stop", "start"], ["restart"]])
def test_verbs_with_a_paused_node(whole: Shell, verbs: list[str]) -> None:
    whole.minicluster("pause", "kv-2", "-c", NAME)
    for verb in verbs:
        whole.minicluster(*verb.split(), "-c", NAME)
    is_ready(whole, 3)


def test_losing_the_quorum_is_refused_without_force(whole: Shell) -> None:
    whole.minicluster("kill", "kv-2", "-c", NAME)
    eventually(lambda: status(whole)["quorum"] and status(whole)["quorum"]["leader"], what="the others have a leader")
    rolling = ("restart", "--rolling", "kv-1", "-c", NAME)
    refused = whole.minicluster(*rolling, ok=False)
    assert refused.code == 1
    assert "would lose the quorum" in refused.err
    whole.minicluster(*rolling, "--force")
    assert members(whole).keys() == {"kv-1", "kv-2", "kv-3"}
    whole.minicluster("start", "-c", NAME)
    is_ready(whole, 3)


@pytest.mark.long
def test_nodes_that_end_during_start_are_started_too(whole: Shell) -> None:
    """The engine goes on with a `stop` whose minicluster was killed: without the others kv-1 never gets ready."""
    whole.docker("kill", f"{NAME}-kv-1")
    process = whole.start("up", "--name", NAME)
    running = ("inspect", f"{NAME}-kv-1", "--format", "{{.State.Running}}")
    eventually(lambda: whole.docker(*running).out == "true\n", what="kv-1 is started", pause=0.01)
    whole.docker("kill", f"{NAME}-kv-2", f"{NAME}-kv-3")
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 0, said
    assert "stopped while minicluster was waiting; retrying" in said
    is_ready(whole, 3)


@pytest.mark.long
def test_an_overlay_completes_an_image_with_etcd_alone(outer: Shell, cluster: Shell, tmp_path: Path) -> None:
    """As the project's own image is: no shell, no C library, two programs in /usr/local/bin."""
    ref, name = "local/upstream/etcd:v3", f"{NAME}-given"

    def images() -> set[str]:
        return {image["ref"] for image in outer.minicluster("image", "list", "-o", "json").json}

    before = images()
    archive = tmp_path / "etcd.tar"
    with tarfile.open(archive, "w") as tar:
        for program in ("etcd", "etcdctl"):
            local = tmp_path / program
            outer.docker("cp", "-L", f"{NAME}-kv-1:/usr/local/bin/{program}", str(local))
            tar.add(local, f"usr/local/bin/{program}")
    outer.docker("import", "--change", 'ENTRYPOINT ["/usr/local/bin/etcd"]', str(archive), ref)
    try:
        outer.minicluster("up", "etcd", "--name", name, "--image", f"node={ref}", timeout=300)
        assert set(members(client(outer, name))) == {"kv-1", "kv-2", "kv-3"}
        which = outer.minicluster("exec", "-c", name, "kv-1", "--", "sh", "-c", "command -v etcd").out
        assert which == "/usr/local/bin/etcd\n"
    finally:
        outer.minicluster("down", name, ok=False)
        for image in images() - before:
            outer.minicluster("image", "remove", image, ok=False)
        outer.docker("rmi", ref, ok=False)
    assert remains(outer, name) == {}


@pytest.mark.long
def test_wait_ends_when_the_quorum_is_back(whole: Shell) -> None:
    assert whole.minicluster("wait", NAME, "--for", "quorum").out.startswith("Cluster ")
    whole.minicluster("kill", "kv-2", "kv-3", "-c", NAME)
    late = whole.minicluster("wait", NAME, "--for", "quorum", "--timeout", "1", ok=False)
    assert late.code == 4
    assert "timed out after 1 s" in late.err
    waiting = whole.start("wait", NAME, "--for", "members=3")
    assert waiting.stdout
    assert waiting.stdout.readline().startswith("waiting for cluster ")
    whole.minicluster("start", "-c", NAME)
    said, _ = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, said
    assert "has 3 ready nodes" in said
    assert whole.minicluster("wait", NAME, "-o", "json").json["phase"] == "ready"


@pytest.mark.long
def test_authentication_that_a_user_switched_on_is_health(outer: Shell) -> None:
    name = "t-etcd-auth"
    try:
        outer.minicluster("up", "etcd", "--name", name, "--set", "tls=false", timeout=600)
        for words in ("user add root:pw", "user grant-role root root", "auth enable"):
            outer.minicluster("exec", "-c", name, "kv-1", "--", "etcdctl", *words.split())
        is_ready(outer, 3, name)
        outer.minicluster("stop", name)
        outer.minicluster("start", name)
        outer.minicluster("restart", "--rolling", "-c", name)
        is_ready(outer, 3, name)
        for size in ("kv=5", "kv=1"):
            refused = outer.minicluster("scale", size, "-c", name, ok=False)
            assert refused.code == 1
            assert "credentials refused" in refused.err
        is_ready(outer, 3, name)
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}


@pytest.mark.long
def test_a_full_database_is_told_with_what_ends_it(outer: Shell) -> None:
    name = "t-etcd-full"
    try:
        outer.minicluster("up", "etcd", "--name", name, "--size", "kv=1", "--set", "quota=1000000", timeout=600)
        fill = "for i in 1 2 3 4; do head -c 600000 /dev/zero | tr '\\0' x | etcdctl put k$i; done; true"
        outer.minicluster("exec", "-c", name, "kv-1", "--", "sh", "-c", fill)
        # The member that is out of space proposes the alarm after it has refused the request.
        eventually(
            lambda: any("etcdctl alarm disarm" in note for note in status(outer, name)["notes"]),
            what="the alarm is told",
        )
        # It serves, and the way out may be another quota: neither a restart nor `up` waits for the alarm to end.
        outer.minicluster("restart", "-c", name)
        outer.minicluster("up", "--name", name, "--set", "quota=100000000")
        for words in ("defrag", "alarm disarm", "put k v"):
            outer.minicluster("exec", "-c", name, "kv-1", "--", "etcdctl", *words.split())
        assert status(outer, name)["notes"] == []
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}
