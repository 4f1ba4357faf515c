"""The scripts of the mesos profile, really run, against a local server that replays recorded answers.

They ask fixed ports of each node, so each "node" here is another address of this machine's loopback network.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.replay import Answer, Reply, Request, Server, master, recorded, recorded_json, said, serving

FILES = Path(__file__).parents[2] / "profiles" / "mesos" / "files"
KV = {"name": "kv-1", "ready": True, "voter": True, "leader": True}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="all of 127.0.0.0/8 is this machine's on Linux alone")

ADDRESSES = {
    **{f"master-{i}": f"127.91.1.{i}" for i in (1, 2, 3)},
    **{f"agent-{i}": f"127.91.2.{i}" for i in (1, 2)},
    **{f"scheduler-{i}": f"127.91.3.{i}" for i in (1, 2)},
    **{f"balancer-{i}": f"127.91.4.{i}" for i in (1, 2)},
}
MARATHON = {
    "name": "marathon",
    "version": "1.11.24",
    "elected": True,
    "leader": "127.91.3.1:8080",
    "frameworkId": "6275c029-0751-4561-b276-1fd693070880-0001",
}


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """The profile's scripts in a folder of programs, with a stand-in for ZooKeeper's own: it knows one server."""
    folder, library = tmp_path / "bin", tmp_path / "lib"
    for made in (folder, library):
        made.mkdir()
    for file in [*(FILES.parents[1] / "_lib").glob("*.*"), *FILES.glob("*.py")]:
        shutil.copy(file, library)
    for file in FILES.glob("*/*"):
        write(folder / file.name, file.read_text().replace("/usr/local/lib/minicluster", str(library)))
    write(folder / "zk-members", f"#!/bin/sh\necho '{json.dumps(KV)}'\n")
    return folder


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def run(folder: Path, name: str, *argv: str, path: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(folder / name), *argv],
        env={"PATH": f"{folder}:{path or os.environ['PATH']}", **env},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def one_agent_each(*names: str) -> dict[str, Answer]:
    """The leading master's answers, with an active agent for each of these nodes and Marathon registered."""
    slaves = recorded_json("slaves")
    agent = slaves["slaves"][0]
    slaves["slaves"] = [{**agent, "hostname": ADDRESSES[name]} for name in names]
    frameworks = recorded_json("frameworks")
    done = frameworks["completed_frameworks"][0]
    frameworks["frameworks"] = [
        {**done, "id": MARATHON["frameworkId"], "name": 'my "own"', "active": True},
        {**done, "id": "gone", "name": "gone", "active": False},
    ]
    return master() | {"/slaves": said(slaves), "/frameworks": said(frameworks)}


def standby() -> dict[str, Answer]:
    """A master that does not lead: it knows nothing, and sends who asks to the leader."""
    metrics = recorded_json("metrics_snapshot") | {"master/elected": 0.0}
    elsewhere = Reply(307, b"", {"Location": "//127.91.1.1:5050/slaves"})
    return {"/metrics/snapshot": said(metrics), "/slaves": elsewhere, "/frameworks": elsewhere}


@contextlib.contextmanager
def nodes(**answers: dict[str, Answer]) -> Iterator[dict[str, Server]]:
    """Servers on the addresses of these nodes."""
    with contextlib.ExitStack() as stack:
        servers = {}
        for word, what in answers.items():
            name = word.replace("_", "-")
            port = {"scheduler": 8080, "balancer": 9090}.get(name.partition("-")[0], 5050)
            servers[name] = stack.enter_context(serving(what, ADDRESSES[name], port))
        yield servers


def members(folder: Path, *names: str) -> dict[str, Any]:
    argument = "".join(f"{name}={ADDRESSES[name]} " for name in names)
    done = run(folder, "mesos-members", argument)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert rows.pop(0) == KV
    return {row.pop("name"): tuple(row.values()) for row in rows}


# One question over HTTP


def test_get_prints_the_body(scripts: Path) -> None:
    with serving(master()) as server:
        done = run(scripts, "mesos-get", server.place, "/version")
    assert (done.returncode, json.loads(done.stdout)["version"]) == (0, "1.12.0")


def test_get_of_an_answer_without_a_body(scripts: Path) -> None:
    with serving(master()) as server:
        done = run(scripts, "mesos-get", server.place, "/health")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("reply", [Reply(503, b"No leader elected"), Reply(404), recorded("master_redirect")])
def test_get_of_a_refusal_says_what_the_answer_was(scripts: Path, reply: Reply) -> None:
    with serving({"/x": reply}) as server:
        done = run(scripts, "mesos-get", server.place, "/x")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{server.place} answers to /x: {reply.status} ")


def test_get_where_nothing_listens(scripts: Path) -> None:
    with serving({}) as server:
        place = server.place
    done = run(scripts, "mesos-get", place, "/health")
    assert (done.returncode, done.stderr) == (1, f"nothing answers on {place}\n")


def test_get_waits_a_second(scripts: Path) -> None:
    def slow(_request: Request) -> Reply:
        time.sleep(1.5)
        return Reply(200, b"late")

    with serving({"/x": slow}) as server:
        done = run(scripts, "mesos-get", server.place, "/x")
        assert (done.returncode, done.stderr) == (1, f"nothing answers on {server.place}\n")


def test_get_waits_as_long_as_it_is_told(scripts: Path) -> None:
    """A Marathon that finds no leader answers after 2.5 s."""

    def slow(_request: Request) -> Reply:
        time.sleep(1.5)
        return Reply(503, b"late")

    with serving({"/ping": slow}) as server:
        done = run(scripts, "mesos-ready", server.place, "/ping", "20")
    assert (done.returncode, done.stderr) == (1, f"{server.place} answers to /ping: 503 Service Unavailable\n")


# Readiness


def test_ready_at_once(scripts: Path) -> None:
    with serving(master()) as server:
        assert run(scripts, "mesos-ready", server.place, "/health").returncode == 0
    assert [r.path for r in server.asked] == ["/health"]


def test_ready_waits_for_a_while(scripts: Path) -> None:
    replies = [Reply(503), Reply(503), recorded("health")]
    with serving({"/health": lambda _request: replies.pop(0)}) as server:
        assert run(scripts, "mesos-ready", server.place, "/health").returncode == 0
    assert replies == []


def test_not_ready_says_the_last_answer(scripts: Path) -> None:
    with serving({"/health": Reply(503)}) as server:
        done = run(scripts, "mesos-ready", server.place, "/health")
    assert (done.returncode, done.stderr) == (1, f"{server.place} answers to /health: 503 Service Unavailable\n")


# Members


def test_the_recorded_cluster(scripts: Path) -> None:
    """The agent there is known by another host name, and the only framework has ended."""
    with nodes(master_1=master()):
        found = members(scripts, "master-1", "agent-1")
    assert found == {
        "master-1": (True, True, True, "1 agent, no framework"),
        "agent-1": (False, False, False, "not registered"),
    }


def test_three_masters_two_agents_and_two_schedulers(scripts: Path) -> None:
    with nodes(
        master_1=one_agent_each("agent-1", "agent-2"),
        master_2=standby(),
        master_3=standby(),
        scheduler_1={"/v2/info": said(MARATHON)},
        scheduler_2={"/v2/info": said(MARATHON | {"elected": False})},
        balancer_1={"/ready": Reply(200, b"<html>")},
        balancer_2={"/ready": Reply(503)},
    ) as servers:
        found = members(scripts, *ADDRESSES)
    assert found == {
        "master-1": (True, True, True, '2 agents, frameworks: my "own"'),
        "master-2": (True, True, False, ""),
        "master-3": (True, True, False, ""),
        "agent-1": (True, False, False, "registered"),
        "agent-2": (True, False, False, "registered"),
        "scheduler-1": (True, False, True, ""),
        "scheduler-2": (True, False, False, ""),
        "balancer-1": (True, False, False, ""),
        "balancer-2": (False, False, False, "it does not answer"),
    }
    assert [r.path for r in servers["master-2"].asked] == ["/metrics/snapshot"]


def test_what_does_not_answer_is_not_ready(scripts: Path) -> None:
    with nodes(master_2=one_agent_each("agent-1")):
        found = members(scripts, "master-1", "master-2", "agent-1", "agent-2", "scheduler-1")
    assert found == {
        "master-1": (False, True, False, "it does not answer"),
        "master-2": (True, True, True, '1 agent, frameworks: my "own"'),
        "agent-1": (True, False, False, "registered"),
        "agent-2": (False, False, False, "not registered"),
        "scheduler-1": (False, False, False, "it does not answer"),
    }


@pytest.mark.parametrize(
    "reply", [Reply(200, b"<html>"), said(["a list"]), Reply(503, b'{"leader": "127.91.3.1:8080"}')]
)
def test_an_answer_that_is_no_object_is_none(scripts: Path, reply: Reply) -> None:
    with nodes(master_1=one_agent_each(), scheduler_1={"/v2/info": reply}):
        found = members(scripts, "master-1", "scheduler-1")
    assert found["scheduler-1"] == (False, False, False, "it does not answer")


def test_without_a_leader_nothing_is_ready(scripts: Path) -> None:
    behind = recorded_json("metrics_snapshot") | {"master/elected": 0.0, "registrar/log/recovered": 0.0}
    no_leader = {"/v2/info": said(MARATHON | {"leader": None})}
    with nodes(master_1=standby(), master_2={"/metrics/snapshot": said(behind)}, scheduler_1=no_leader):
        found = members(scripts, "master-1", "master-2", "agent-1", "scheduler-1")
    assert found == {
        "master-1": (False, True, False, "no leading master"),
        "master-2": (False, True, False, "its registry has not caught up"),
        "agent-1": (False, False, False, "no leading master"),
        "scheduler-1": (False, False, False, "it knows no leader"),
    }


@pytest.mark.parametrize("id", [None, "gone", "6275c029-0751-4561-b276-1fd693070880-0000"])
def test_a_scheduler_that_leads_has_to_be_registered(scripts: Path, id: str | None) -> None:
    """It remembers its ID over a restart; registered it is when the leading master says so."""
    with nodes(master_1=one_agent_each(), scheduler_1={"/v2/info": said(MARATHON | {"frameworkId": id})}):
        found = members(scripts, "master-1", "scheduler-1")
    assert found["scheduler-1"] == (False, False, True, "it is not registered with Mesos")


def test_an_agent_that_is_not_active_does_not_count(scripts: Path) -> None:
    slaves = recorded_json("slaves")
    slaves["slaves"][0] |= {"hostname": ADDRESSES["agent-1"], "active": False}
    with nodes(master_1=master() | {"/slaves": said(slaves)}):
        found = members(scripts, "master-1", "agent-1")
    assert found["agent-1"] == (False, False, False, "not registered")
    assert found["master-1"][3] == "0 agents, no framework"


def test_an_agent_that_an_operator_drained_is_a_member(scripts: Path) -> None:
    slaves = recorded_json("slaves")
    slaves["slaves"][0] |= {"hostname": ADDRESSES["agent-1"], "active": False, "deactivated": True}
    with nodes(master_1=master() | {"/slaves": said(slaves)}):
        found = members(scripts, "master-1", "agent-1")
    assert found["agent-1"] == (True, False, False, "drained")


def test_without_zookeepers_leader_the_list_is_told_and_the_answer_is_an_error(scripts: Path) -> None:
    write(
        scripts / "zk-members",
        f"#!/bin/sh\necho '{json.dumps(KV)}'\necho 'zk-members: the ensemble has no leader' >&2\nexit 1\n",
    )
    done = run(scripts, "mesos-members", "master-1=127.91.1.1")
    assert done.returncode == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["name"], row["ready"]) for row in rows] == [(KV["name"], KV["ready"]), ("master-1", False)]
    assert done.stderr == "zk-members: the ensemble has no leader\n"


def test_removal_waits_until_the_agent_is_gone(scripts: Path) -> None:
    there, gone = one_agent_each("agent-1")["/slaves"], one_agent_each()["/slaves"]
    replies = [there, there, gone]
    answers = one_agent_each("agent-1") | {"/slaves": lambda request: replies.pop(0)}  # type: ignore[dict-item]
    with nodes(master_1=answers):
        done = run(
            scripts, "mesos-wait-removed", f"agent-1={ADDRESSES['agent-1']}", f"master-1={ADDRESSES['master-1']} "
        )
    assert (done.returncode, replies) == (0, [])


# The balancer

WEB = {
    "id": "/shop/web",
    "labels": {"HAPROXY_0_VHOST": "shop.example, bad{name"},
    "networks": [{"mode": "host"}],
    "portDefinitions": [{"port": 10000}, {"port": 10001}],
    "healthChecks": [{"protocol": "MESOS_TCP"}],
    "tasks": [
        {"id": "web.2", "host": "172.28.0.6", "ports": [31005, 31006], "state": "TASK_RUNNING",
         "healthCheckResults": [{"alive": True}]},
        {"id": "web.1", "host": "172.28.0.5", "ports": [31000, 31001], "state": "TASK_RUNNING",
         "healthCheckResults": [{"alive": True}]},
        {"id": "web.3", "host": "172.28.0.5", "ports": [31007, 31008], "state": "TASK_RUNNING",
         "healthCheckResults": [{"alive": False}]},
        {"id": "web.4", "host": "172.28.0.5", "ports": [31009, 31010], "state": "TASK_RUNNING"},
        {"id": "web.5", "host": "172.28.0.5", "ports": [31011, 31012], "state": "TASK_STAGING",
         "healthCheckResults": [{"alive": True}]},
    ],
}  # fmt: skip
BRIDGED = {
    "id": "/db",
    "networks": [{"mode": "container/bridge"}],
    "container": {"type": "DOCKER", "portMappings": [{"containerPort": 5432, "hostPort": 0, "servicePort": 5432}]},
    "tasks": [{"id": "db.1", "host": "172.28.0.5", "ports": [31020], "state": "TASK_RUNNING"}],
}
OWN_ADDRESS = {
    "id": "/own",
    "networks": [{"mode": "container", "name": "net"}],
    "container": {"type": "MESOS", "portMappings": [{"containerPort": 8080}]},
    "tasks": [{"id": "own.1", "host": "172.28.0.5", "ports": [], "ipAddresses": [{"ipAddress": "9.0.0.2"}]}],
}


HAPROXY = """#!/bin/sh
if [ $1 = -c ]; then
  ! grep -q refuse $4
  exit
fi
sleep 60 >/dev/null 2>&1 & # it ends with this one: a test that was killed leaves nothing that runs for ever
child=$!
trap 'echo reload >>{told}' USR2
trap 'kill $child; echo stop >>{told}; exit' TERM
echo "$*" >>{told}
while kill -0 $child 2>/dev/null; do wait; done
"""


class Balancer:
    """The program, with a stand-in for HAProxy that says what it is told."""

    def __init__(self, folder: Path, tmp_path: Path) -> None:
        replace(folder / "mesos-balancer", "/run/haproxy.cfg", f"{tmp_path}/haproxy.cfg")
        replace(folder / "mesos-balancer", "PERIOD = 1 ", "PERIOD = 0.1 ")
        write(folder / "haproxy", HAPROXY.format(told=f"{tmp_path}/told"))
        self.path, self.told = tmp_path / "haproxy.cfg", tmp_path / "told"
        command = [str(folder / "mesos-balancer"), "127.91.3.1 127.91.3.2"]
        env = {"PATH": f"{folder}:{os.environ['PATH']}"}
        self.process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)

    def config(self, has: str, but: str = "never") -> str:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            if self.path.exists() and has in (text := self.path.read_text()) and but not in text:
                return text
            time.sleep(0.02)
        raise AssertionError(self.path.read_text() if self.path.exists() else "no configuration")

    def wait_told(self, *lines: str) -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end and (not self.told.exists() or self.told.read_text().splitlines() != [*lines]):
            time.sleep(0.02)
        assert self.told.read_text().splitlines() == [*lines]

    def stop(self) -> str:
        self.process.terminate()
        _, said = self.process.communicate(timeout=30)
        return said


@pytest.fixture
def balancer(scripts: Path, tmp_path: Path) -> Iterator[Balancer]:
    running = Balancer(scripts, tmp_path)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()


def apps(*which: dict[str, Any]) -> dict[str, Answer]:
    return {"GET /v2/apps?embed=apps.tasks": said({"apps": [*which]})}


def servers(text: str, backend: str) -> list[str]:
    """ADDRESS:PORT of each server of a backend."""
    lines = text.partition(f"\nbackend {backend}\n")[2].partition("\nbackend ")[0].partition("\nfrontend ")[0]
    return [line.split()[2] for line in lines.splitlines() if line.split()[0] == "server"]


def test_the_balancer_knows_applications_by_name_and_by_port(balancer: Balancer) -> None:
    with nodes(scheduler_2=apps(WEB, BRIDGED, OWN_ADDRESS)):
        text = balancer.config("web.shop")
        assert (
            servers(text, "http:shop_web:0")
            == servers(text, "tcp:shop_web:0")
            == ["172.28.0.5:31000", "172.28.0.6:31005"]
        )
        assert servers(text, "tcp:shop_web:1") == ["172.28.0.5:31001", "172.28.0.6:31006"]
        assert servers(text, "tcp:db:0") == ["172.28.0.5:31020"]
        assert servers(text, "http:own:0") == ["9.0.0.2:8080"]
        for port, backend in ((10000, "tcp:shop_web:0"), (10001, "tcp:shop_web:1"), (5432, "tcp:db:0")):
            assert f"frontend port-{port}\n  bind *:{port}\n  default_backend {backend}\n" in text
        names = [line.split()[7] for line in text.splitlines() if "use_backend http:shop_web:0" in line]
        assert names == ["web.shop", "web.shop.localhost", "web.shop.marathon.mesos", "shop.example"]
        balancer.wait_told(f"-W -db -f {balancer.path}")


def test_the_balancer_follows_what_marathon_says_and_survives_its_elections(balancer: Balancer) -> None:
    run = f"-W -db -f {balancer.path}"
    with nodes(scheduler_1=apps(BRIDGED)) as standing:
        balancer.config("tcp:db:0")
        balancer.wait_told(run)
        standing["scheduler-1"].answers.clear()
        standing["scheduler-1"].answers["/v2/apps"] = Reply(503)
        asked = len(standing["scheduler-1"].asked)
        while len(standing["scheduler-1"].asked) < asked + 3:
            time.sleep(0.02)
        assert "tcp:db:0" in balancer.path.read_text()
        standing["scheduler-1"].answers.update(apps(WEB))
        balancer.config("web.shop", but="tcp:db:0")
        balancer.wait_told(run, "reload")
        standing["scheduler-1"].answers.update(apps(BRIDGED | {"id": "/refuse"}))
        while len(standing["scheduler-1"].asked) < asked + 20:
            time.sleep(0.02)
        assert "web.shop" in balancer.path.read_text()
        assert balancer.stop() == "HAProxy refuses this configuration, and keeps the last one\n"
    balancer.wait_told(run, "reload", "stop")


def test_a_service_port_of_two_applications_is_the_firsts(balancer: Balancer) -> None:
    taken = [
        BRIDGED | {"id": "/z"},
        BRIDGED,
        BRIDGED | {"id": "/y", "portDefinitions": [{"port": 80}], "container": None},
    ]
    with nodes(scheduler_1=apps(*taken)):
        text = balancer.config("frontend port-5432")
        assert text.count("frontend port-") == 1
        assert "default_backend tcp:db:0" in text
        assert servers(text, "http:y:0") == ["172.28.0.5:31020"]
        said = balancer.stop()
    assert said.splitlines() == ["service port 80 of /y is the balancer's", "service port 5432 of /z is /db's"]


def test_a_balancer_without_a_scheduler_ends(scripts: Path) -> None:
    done = run(scripts, "mesos-balancer", "")
    assert (done.returncode, done.stderr.startswith("mesos-balancer: no scheduler")) == (1, True)


# Reset


class Standing:
    """A leading master and Marathon that do what they are told, with answers as those of one real master."""

    def __init__(self, frameworks: list[str], groups: list[str], apps: list[str]) -> None:
        self.frameworks, self.there = frameworks, {"groups": groups, "apps": apps}
        self.deactivated = True
        self.deployments = 0

    def master(self) -> dict[str, Answer]:
        about = recorded_json("frameworks")["completed_frameworks"][0]
        slave = recorded_json("slaves")["slaves"][0]

        def call(request: Request) -> Reply:
            if request.json["type"] == "TEARDOWN":
                self.frameworks.remove(request.json["teardown"]["framework_id"]["value"])
            else:
                assert request.json == {
                    "type": "REACTIVATE_AGENT",
                    "reactivate_agent": {"agent_id": {"value": slave["id"]}},
                }
                self.deactivated = False
            return Reply(202)

        return master() | {
            "/frameworks": lambda _r: said({"frameworks": [about | {"id": id} for id in self.frameworks]}),
            "/slaves": lambda _r: said({"slaves": [slave | {"deactivated": self.deactivated}]}),
            "POST /api/v1": call,
        }

    def marathon(self, leader: str = MARATHON["leader"]) -> dict[str, Answer]:
        def delete(request: Request) -> Reply:
            _, _, kind, name = request.path.partition("?")[0].split("/")
            assert request.path.endswith("?force=true")
            self.there[kind].remove(f"/{name}")
            self.deployments += 1
            return said({"deploymentId": "d"})

        def listed(_request: Request) -> Reply:
            self.deployments, before = 0, self.deployments
            return said([{"id": "d"}] * before)

        names = [*self.there["groups"], *self.there["apps"]]
        return {
            "/v2/info": said(MARATHON | {"leader": leader}),
            "GET /v2/groups": lambda _r: said({k: [{"id": id} for id in ids] for k, ids in self.there.items()}),
            "/v2/deployments": listed,
            **{f"DELETE /v2/{kind}{name}": delete for kind in self.there for name in names},
        }


def reset(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    return run(folder, "mesos-reset", " ".join(f"{name}={ADDRESSES[name]}" for name in names))


def test_reset_removes_everything_but_marathon_itself(scripts: Path) -> None:
    keep = MARATHON["frameworkId"]
    what = Standing([keep, "f-1", "f-2"], ["/shop"], ["/web", "/db"])
    with nodes(master_1=standby(), master_2=what.master(), scheduler_1={}, scheduler_2=what.marathon()):
        done = reset(scripts, "master-1", "master-2", "scheduler-1", "scheduler-2")
        assert (done.returncode, done.stderr) == (0, "")
        assert (what.frameworks, what.there, what.deactivated) == ([keep], {"groups": [], "apps": []}, False)
        assert reset(scripts, "master-1", "master-2", "scheduler-1", "scheduler-2").returncode == 0


def test_reset_without_marathon_tears_down_every_framework(scripts: Path) -> None:
    what = Standing([MARATHON["frameworkId"], "f-1"], [], [])
    with nodes(master_1=what.master()):
        assert reset(scripts, "master-1").returncode == 0
    assert what.frameworks == []


def test_reset_tears_nothing_down_while_marathon_does_not_say_which_framework_it_is(scripts: Path) -> None:
    replace(scripts / "mesos-reset", "retry(30, 0.2", "retry(0.5, 0.2")
    what = Standing(["f-1"], [], [])
    with nodes(master_1=what.master(), scheduler_1={"/v2/info": Reply(503)}):
        done = reset(scripts, "master-1", "scheduler-1")
    assert (done.returncode, done.stderr) == (1, "mesos-reset: no Marathon\n")
    assert what.frameworks == ["f-1"]


# Starting


@pytest.fixture
def starter(scripts: Path, tmp_path: Path) -> Path:
    """The script that runs Mesos, with its files in another place than /run."""
    replace(scripts / "mesos-start", "/run/", f"{tmp_path}/")
    replace(scripts / "mesos-leave", "/run/", f"{tmp_path}/")
    return scripts


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_start_runs_the_first_program_that_there_is(starter: Path) -> None:
    write(starter / "mesos-slave", '#!/bin/sh\necho "slave $MESOS_IP"\n')
    done = run(starter, "mesos-start", "mesos-agent", "mesos-slave", MESOS_IP="10.0.0.1")
    assert (done.returncode, done.stdout) == (0, "slave 10.0.0.1\n")
    write(starter / "mesos-agent", "#!/bin/sh\necho agent\n")
    assert run(starter, "mesos-start", "mesos-agent", "mesos-slave").stdout == "agent\n"
    assert run(starter, "mesos-start", "none", str(starter / "mesos-agent")).stdout == "agent\n"


def test_a_program_that_refuses_its_settings_ends_the_node(starter: Path) -> None:
    write(starter / "mesos-master", "#!/bin/sh\necho 'no such flag' >&2\nexit 3\n")
    done = run(starter, "mesos-start", "mesos-master")
    assert (done.returncode, done.stderr) == (3, "no such flag\n")


PROGRAM = """#!/bin/sh
echo run >>{folder}/runs
child=
trap 'kill "$child"; echo term >>{folder}/runs; exit 0' TERM
trap 'kill "$child"; echo left >>{folder}/runs; exit 0' USR1
sleep 60 &
child=$!
: >{folder}/ready
wait
"""


@contextlib.contextmanager
def kept(starter: Path, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that mesos-start runs, in a node that has been running for a while."""
    replace(starter / "mesos-start", "uptime + 500", "uptime")
    write(starter / "mesos-master", PROGRAM.format(folder=tmp_path))
    env = {"PATH": f"{starter}:{os.environ['PATH']}"}
    with subprocess.Popen([str(starter / "mesos-start"), "mesos-master"], env=env) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(timeout=30)


def program_pid(tmp_path: Path, but: int = 0) -> int:
    """The number of the program that runs, once it is ready and another one than before."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError, ValueError):
            pid = int((tmp_path / "mesos.pid").read_text())
            if pid != but and (tmp_path / "ready").exists():
                return pid
        time.sleep(0.02)
    raise AssertionError("it does not run")


def runs(tmp_path: Path) -> list[str]:
    return (tmp_path / "runs").read_text().split()


def test_a_program_that_ends_runs_again(starter: Path, tmp_path: Path) -> None:
    with kept(starter, tmp_path) as process:
        first = program_pid(tmp_path)
        (tmp_path / "ready").unlink()
        os.kill(first, signal.SIGKILL)
        assert program_pid(tmp_path, but=first) != first
        assert process.poll() is None
    assert runs(tmp_path) == ["run", "run", "term"]
    assert process.returncode == 0


def test_a_stop_reaches_the_program_and_waits_for_it(starter: Path, tmp_path: Path) -> None:
    with kept(starter, tmp_path) as process:
        program_pid(tmp_path)
        process.terminate()
        assert process.wait(timeout=30) == 0
    assert runs(tmp_path) == ["run", "term"]


def test_an_agent_that_leaves_is_told_so_and_not_started_again(starter: Path, tmp_path: Path) -> None:
    with kept(starter, tmp_path) as process:
        program_pid(tmp_path)
        assert run(starter, "mesos-leave").returncode == 0
        assert process.wait(timeout=30) == 0
    assert runs(tmp_path) == ["run", "left"]


def test_start_says_what_an_image_lacks(scripts: Path) -> None:
    done = run(scripts, "mesos-start", "mesos-none", "/opt/none")
    assert done.returncode == 127
    assert "this image has no mesos-none /opt/none" in done.stderr


V2 = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"
HYBRID = "proc /proc proc rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0\n" + (
    "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
)


@pytest.fixture
def agent(starter: Path, tmp_path: Path) -> Path:
    """The agent's start script, with stand-ins for Mesos and for what only a container allows."""
    for path in ("/proc/self/mounts", "/run/minicluster-cpu", "/run/minicluster-limits"):
        replace(starter / "mesos-agent-start", path, str(tmp_path / Path(path).name))
    (tmp_path / "mounts").write_text(V2 + HYBRID)
    write(starter / "umount", f"#!/bin/sh\necho $1 >>{tmp_path}/umounted\n")
    write(starter / "mount", "#!/bin/sh\nexit 1\n")
    write(
        starter / "mesos-agent",
        '#!/bin/sh\necho "$MESOS_RESOURCES" >&2\n'
        'echo "$MESOS_CONTAINERIZERS $MESOS_DOCKER $XTABLES_LIBDIR"; ls "$MESOS_WORK_DIR/meta/slaves"\n',
    )
    (tmp_path / "minicluster-limits").write_text("MEMORY=\nCPUS=\n")
    (tmp_path / "work/meta/slaves").mkdir(parents=True)
    (tmp_path / "work/meta/slaves/latest").touch()
    return starter


def start_agent(folder: Path, tmp_path: Path, resources: str, path: str = "", **env: str) -> list[str]:
    (tmp_path / "work/meta/slaves/other").touch()
    work = str(tmp_path / "work")
    done = run(folder, "mesos-agent-start", path=path, MESOS_WORK_DIR=work, MESOS_RESOURCES=resources, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def with_engine(folder: Path, tmp_path: Path) -> None:
    write(folder / "dockerd", "#!/bin/sh\nexit 1\n")
    write(folder / "docker", f"#!/bin/sh\n[ -e {tmp_path}/serves ]\n")
    write(folder / "minicluster-entrypoint", f"#!/bin/sh\nsleep 0.2; touch {tmp_path}/serves; sleep 0.3\n")


def test_an_agent_waits_for_its_engine(agent: Path, tmp_path: Path) -> None:
    with_engine(agent, tmp_path)
    docker = str(agent / "docker")
    assert start_agent(agent, tmp_path, "cpus:1") == [f"docker,mesos {docker} ", "latest", "other"]


@pytest.mark.parametrize(
    ("asked", "limits", "offered"),
    [
        ("cpus:2.0;mem:1024;ports:[1-2]", "MEMORY=524288\nCPUS=1500\n", "cpus:1.500;mem:512.000;ports:[1-2]"),
        ("cpus:0.5;mem:100", "MEMORY=524288\nCPUS=1500\n", "cpus:0.5;mem:100"),
        ("cpus:4;mem:9000", "MEMORY=\nCPUS=2250\n", "cpus:2.250;mem:9000"),
        ("disk:5", "MEMORY=1\nCPUS=1\n", "disk:5"),
    ],
)
def test_an_agent_offers_no_more_than_its_node_may_use(
    agent: Path, tmp_path: Path, asked: str, limits: str, offered: str
) -> None:
    with_engine(agent, tmp_path)
    (tmp_path / "minicluster-limits").write_text(limits)
    done = run(agent, "mesos-agent-start", MESOS_WORK_DIR=str(tmp_path / "work"), MESOS_RESOURCES=asked)
    assert done.stderr.splitlines()[-1] == offered


def test_version_two_of_control_groups_is_left_at_its_one_place_alone(agent: Path, tmp_path: Path) -> None:
    with_engine(agent, tmp_path)
    start_agent(agent, tmp_path, "cpus:1")
    assert (tmp_path / "umounted").read_text() == "/sys/fs/cgroup/unified\n"


def test_an_agent_takes_the_engine_that_was_put_into_its_image(agent: Path, tmp_path: Path) -> None:
    text = (agent / "mesos-agent-start").read_text()
    assert "/opt/minicluster/engine/bin" in text
    write(agent / "mesos-agent-start", text.replace("/opt/minicluster/engine/bin", str(tmp_path / "engine")))
    with_engine(agent, tmp_path)
    (tmp_path / "engine").mkdir()
    for program in ("docker", "dockerd"):
        (agent / program).rename(tmp_path / "engine" / program)
    few = tmp_path / "few"  # what an image has, where this machine may have more
    few.mkdir()
    for program in ("bash", "cat", "sh", "ls", "mkdir", "rm", "sleep", "touch"):
        (few / program).symlink_to(shutil.which(program) or "")
    said, *_ = start_agent(agent, tmp_path, "cpus:1", path=str(few))
    assert said == f"docker,mesos {tmp_path}/engine/docker /opt/minicluster/engine/xtables"


def test_an_agent_whose_engine_ends_does_not_start(agent: Path, tmp_path: Path) -> None:
    with_engine(agent, tmp_path)
    write(agent / "minicluster-entrypoint", "#!/bin/sh\nexit 1\n")
    done = run(agent, "mesos-agent-start", MESOS_WORK_DIR=str(tmp_path / "work"), MESOS_RESOURCES="cpus:1")
    assert done.returncode == 1
    assert "this node's engine does not start" in done.stderr


def test_an_agent_with_other_resources_begins_as_a_new_one(agent: Path, tmp_path: Path) -> None:
    with_engine(agent, tmp_path)
    (tmp_path / "work/minicluster-resources").write_text("cpus:1\n")  # as versions wrote it that compared these alone
    assert start_agent(agent, tmp_path, "cpus:1")[1:] == ["latest", "other"]
    assert start_agent(agent, tmp_path, "cpus:1")[1:] == ["latest", "other"]
    assert start_agent(agent, tmp_path, "cpus:2")[1:] == ["other"]


@pytest.mark.parametrize("name", ["MESOS_ATTRIBUTES", "MESOS_DOMAIN"])
def test_an_agent_with_other_attributes_or_another_domain_begins_as_a_new_one(
    agent: Path, tmp_path: Path, name: str
) -> None:
    with_engine(agent, tmp_path)
    assert start_agent(agent, tmp_path, "cpus:1")[1:] == ["latest", "other"]
    assert start_agent(agent, tmp_path, "cpus:1", **{name: "rack:1"})[1:] == ["other"]
    (tmp_path / "work/meta/slaves/latest").touch()
    assert start_agent(agent, tmp_path, "cpus:1", **{name: "rack:1"})[1:] == ["latest", "other"]
    assert start_agent(agent, tmp_path, "cpus:1")[1:] == ["other"]


def test_each_start_of_a_node_is_a_boot_to_its_agent(agent: Path, tmp_path: Path) -> None:
    with_engine(agent, tmp_path)
    seen = set()
    for _ in range(2):
        start_agent(agent, tmp_path, "cpus:1")
        seen.add((tmp_path / "work/meta/boot_id").read_text())
    assert len(seen) == 2
    assert {len(text.strip()) for text in seen} == {36}


def test_without_version_one_of_control_groups_an_agent_runs_no_docker_tasks(agent: Path, tmp_path: Path) -> None:
    with_engine(agent, tmp_path)
    (tmp_path / "mounts").write_text(V2)
    assert start_agent(agent, tmp_path, "cpus:1")[0].split()[0] == "mesos"


def test_a_hierarchy_of_version_one_that_only_the_kernel_has_is_mounted(agent: Path, tmp_path: Path) -> None:
    with_engine(agent, tmp_path)
    (tmp_path / "mounts").write_text(V2)
    write(agent / "mount", f"#!/bin/sh\necho $* >>{tmp_path}/mounted\n")
    assert start_agent(agent, tmp_path, "cpus:1")[0].split()[0] == "docker,mesos"
    place = tmp_path / "minicluster-cpu"
    assert (tmp_path / "mounted").read_text() == f"-t cgroup -o cpu minicluster {place}\n"


def test_the_users_containerizers_are_what_an_agent_gets(agent: Path, tmp_path: Path) -> None:
    with_engine(agent, tmp_path)
    said, *_ = start_agent(agent, tmp_path, "cpus:1", MESOS_CONTAINERIZERS="mesos", MESOS_DOCKER="/opt/docker")
    assert said.split() == ["mesos", "/opt/docker"]


# What runs


def test_the_workload_is_the_tasks_that_have_not_ended_on_the_nodes_where_they_run(scripts: Path) -> None:
    (task,), (slave,) = recorded_json("tasks")["tasks"], recorded_json("slaves")["slaves"]
    assert task["state"] == "TASK_FINISHED"
    running = {**task, "id": "web.1", "name": "web.shop", "state": "TASK_RUNNING", "statuses": []}
    ill = {**running, "id": "web.2", "statuses": [{"healthy": True}, {"healthy": False}]}
    lost = {**running, "id": "web.3", "state": "TASK_UNREACHABLE", "slave_id": "gone"}
    answers = master() | {
        "/tasks": said({"tasks": [task, running, ill, lost]}),
        "/slaves": said({"slaves": [{**slave, "hostname": ADDRESSES["agent-2"]}]}),
    }
    argument = " ".join(f"{name}={ADDRESSES[name]}" for name in ("master-1", "master-2", "agent-2"))
    with nodes(master_1=standby(), master_2=answers):
        done = run(scripts, "mesos-workload", argument)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(r["name"], r["node"], r["group"], r["state"], r["ready"]) for r in rows] == [
        ("web.1", "agent-2", "web", "running", True),
        ("web.2", "agent-2", "web", "unhealthy", False),
        ("web.3", "", "web", "unreachable", False),
    ]
    with nodes(master_1=standby()):
        done = run(scripts, "mesos-workload", argument)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "mesos-workload: no leading master\n")
