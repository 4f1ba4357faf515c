"""Failures: one clear message, the documented exit status, and nothing left behind on the engine."""

from __future__ import annotations

import ipaddress
import shutil
import signal
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicluster import paths
from minicluster.engine.protocol import Engine
from minicluster.profile import addressing
from tests.engine.conftest import Result, Shell, eventually, hears_signals, remains, swarm_client

NAME = "t-fail"


@pytest.fixture(autouse=True)
def leaves_nothing(outer: Shell) -> Iterator[None]:
    """Each test of this module must leave nothing behind."""
    yield
    try:
        assert remains(outer, NAME) == {}
        assert not paths.client_directory(NAME).exists()
    finally:
        outer.minicluster("down", NAME, ok=False)


def up(outer: Shell, *options: str, profile: str = "swarm") -> Result:
    return outer.minicluster("up", profile, "--name", NAME, *options, ok=False, timeout=300)


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """A copy of the Swarm profile, to be broken."""
    from minicluster.profile import folders

    folder = tmp_path / "spoilt"
    shutil.copytree(folders.bundled_directory() / "swarm", folder)
    return folder


def spoil(profile: Path, old: str, new: str) -> str:
    file = profile / "profile.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    return str(profile)


def assert_clear(answer: Result, code: int, *words: str) -> None:
    """The exit status, every word in the message, no traceback."""
    assert answer.code == code, answer.out + answer.err
    assert "Traceback" not in answer.err
    for word in words:
        assert word in answer.err, f"{word!r} is not in:\n{answer.err}"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size", "master=2"], ["--size master=2", "1, 3 or 5"]),
        (["--size", "master=4"], ["1, 3 or 5"]),
        (["--size", "agnet=2"], ["agnet", "agent"]),
        (["--size", "agent=many"], ["many"]),
        (["--set", "setings.heartbeat=2s"], ["setings", "settings"]),
        (["--image", "nod=x"], ["nod", "node"]),
        (["--port", "dokcer=1"], ["dokcer", "docker"]),
        (["--timeout", "0"], ["--timeout"]),
    ],
)
def test_wrong_options(outer: Shell, options: list[str], words: list[str]) -> None:
    assert_clear(up(outer, *options), 2, *words)


def test_unknown_profile(outer: Shell) -> None:
    assert_clear(up(outer, profile="swram"), 2, "swram", "swarm")


@pytest.mark.parametrize("name", ["Bad_Name", "-x", "a" * 31, "1st", "ü"])
def test_bad_name(outer: Shell, name: str) -> None:
    assert_clear(outer.minicluster("up", "swarm", f"--name={name}", ok=False), 2, "lower-case")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("count: 2", "count: [2", ["profile.yaml:", "not valid YAML"]),
        ("count: 2", "count: two", ["profile.yaml:", "roles.agent.count", "'two'"]),
        ("footprint: 64MiB", "footprnt: 64MiB", ["profile.yaml:", "footprnt", "footprint"]),
        ("{{ settings.heartbeat }}", "{{ settings.hartbeat }}", ["profile.yaml:", "hartbeat", "heartbeat"]),
    ],
)
def test_bad_profile(outer: Shell, profile: Path, old: str, new: str, words: list[str]) -> None:
    assert_clear(up(outer, profile=spoil(profile, old, new)), 2, *words)


def test_a_name_taken_by_a_container_of_another(outer: Shell, node_image: str) -> None:
    outer.docker("create", "--name", f"{NAME}-agent-2", node_image)
    try:
        assert_clear(up(outer), 1, f"{NAME}-agent-2", "--name")
        assert outer.docker("ps", "-aq", "--filter", f"name={NAME}-agent-2").out.strip()
        refused = outer.minicluster("down", f"{NAME}-agent-2", ok=False)
        assert_clear(refused, 0, "nothing to remove", "which minicluster did not create")
        assert outer.docker("ps", "-aq", "--filter", f"name={NAME}-agent-2").out.strip()
    finally:
        outer.docker("rm", "-f", f"{NAME}-agent-2")


def test_down_of_an_unknown_cluster(outer: Shell) -> None:
    assert_clear(outer.minicluster("down", "t-nobody", ok=False), 0, "t-nobody", "nothing to remove")
    assert_clear(outer.minicluster("down", "t-nobody", "--strict", ok=False), 7, "t-nobody")


def test_port_taken(outer: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_clear(up(outer, "--port", f"docker={port}"), 1, str(port), "--port")


def test_name_in_use_by_another_profile(outer: Shell, profile: Path) -> None:
    outer.minicluster("up", "swarm", "--name", NAME, "--size", "agent=0")
    try:
        other = spoil(profile, "name: swarm", "name: other")
        assert_clear(up(outer, profile=other), 2, NAME, "--name")
        assert outer.minicluster("status", NAME, "-o", "json").json["phase"] == "ready"
    finally:
        outer.minicluster("down", NAME)


@pytest.mark.long
@pytest.mark.alone
def test_no_free_subnet(outer: Shell, engine: Engine) -> None:
    taken = [ipaddress.IPv4Network(subnet) for subnet in engine.subnets() if ":" not in subnet]
    names: list[str] = []

    def fill(block: ipaddress.IPv4Network) -> None:
        """Takes all free subnets of a block, around those of other tests' clusters."""
        if not any(block.overlaps(other) for other in taken):
            names.append(f"{NAME}-taken-{block.network_address}")
            outer.docker("network", "create", "--subnet", str(block), names[-1])
        elif block.prefixlen < addressing.PREFIX:
            for half in block.subnets():
                fill(half)

    try:
        fill(addressing.POOL)
        assert_clear(up(outer), 1, "no free subnet", "docker network prune")
    finally:
        outer.minicluster("down", NAME, ok=False)  # where it could be stood up all the same
        outer.docker("network", "rm", *names, ok=False)


def test_image_that_cannot_be_pulled(outer: Shell) -> None:
    assert_clear(up(outer, "--image", "node=minicluster.invalid/none:1"), 1, "minicluster.invalid/none:1", "--image")


def test_an_image_that_fails_to_build(outer: Shell, profile: Path) -> None:
    with (profile / "image" / "Dockerfile").open("a") as file:
        file.write("RUN echo the-reason-is-here && false\n")
    answer = up(outer, profile=str(profile))
    assert_clear(answer, 1, "the build of image", "the-reason-is-here", str(profile))


@pytest.mark.long
def test_a_build_ends_when_it_is_interrupted(outer: Shell, profile: Path) -> None:
    with (profile / "image" / "Dockerfile").open("a") as file:
        # A layer of this run alone: an earlier run that was not interrupted may have left the engine a whole image.
        file.write(f"RUN echo {uuid.uuid4()} && sleep 60\n")
    process = outer.start("up", str(profile), "--name", NAME)
    eventually(lambda: "sleep 60" in outer.docker("ps", "--no-trunc", "--format", "{{.Command}}").out, within=120)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    assert time.monotonic() - began < 30
    eventually(lambda: "sleep 60" not in outer.docker("ps", "-a", "--no-trunc", "--format", "{{.Command}}").out)


def test_a_cluster_without_its_record_is_left_alone(outer: Shell) -> None:
    outer.minicluster("up", "swarm", "--name", NAME, "--size", "agent=0")
    try:
        volumes = outer.docker("volume", "ls", "--format", "{{.Name}}").out.split()
        outer.docker("volume", "rm", *[v for v in volumes if v.startswith(f"{NAME}-spec-")])
        assert_clear(up(outer), 1, "record", f"minicluster down {NAME}")
        assert outer.docker("ps", "-q", "--filter", f"name={NAME}-master-1").out.strip()
    finally:
        outer.minicluster("down", NAME)


def test_container_that_exits_at_once(outer: Shell, profile: Path) -> None:
    path = spoil(
        profile,
        "entrypoint: [/usr/local/bin/minicluster-entrypoint]",
        "entrypoint: [sh, -c, 'echo it-is-broken; exit 3']",
    )
    assert_clear(up(outer, profile=path), 1, "status 3", "it-is-broken")


def test_node_that_never_gets_ready(outer: Shell, profile: Path) -> None:
    path = spoil(profile, "ready: {exec: [minicluster-ready]}", "ready: {exec: [sh, -c, 'echo not-today >&2; exit 1']}")
    assert_clear(up(outer, "--timeout", "4", profile=path), 4, f"{NAME}-master-1", "not-today", "--timeout")


def test_keep_leaves_the_failed_cluster(outer: Shell, profile: Path) -> None:
    path = spoil(profile, "ready: {exec: [minicluster-ready]}", "ready: {exec: ['false']}")
    assert_clear(up(outer, "--timeout", "2", "--keep", profile=path), 4, f"minicluster down {NAME}")
    assert len(remains(outer, NAME)["containers"]) == 3
    outer.minicluster("down", NAME)


def test_a_failed_change_is_rolled_back(outer: Shell) -> None:
    outer.minicluster("up", "swarm", "--name", NAME, "--size", "agent=1")
    try:
        answer = up(outer, "--size", "agent=3", "--timeout", "0.3")
        assert_clear(answer, 4, "--timeout")
        status = eventually(
            lambda: (s := outer.minicluster("status", NAME, "-o", "json").json)["phase"] == "ready" and s, within=30
        )
        assert [n["name"] for n in status["nodes"]] == ["master-1", "agent-1"]
        assert len(remains(outer, NAME)["containers"]) == 2
        client = swarm_client(outer, NAME)
        assert sorted(client.docker("node", "ls", "--format", "{{.Hostname}}").out.split()) == ["agent-1", "master-1"]
    finally:
        outer.minicluster("down", NAME)


@pytest.mark.parametrize(
    ("number", "seconds"),
    # One handler is for both signals: the other one is not tried at every moment again.
    [
        (signal.SIGINT, 0.8),
        (signal.SIGTERM, 1.5),
        *(pytest.param(signal.SIGINT, s, marks=pytest.mark.long) for s in (0.0, 0.4, 1.3, 2.0, 2.8)),
        pytest.param(signal.SIGTERM, 0.1, marks=pytest.mark.long),
    ],
)
def test_interrupted_at_any_moment(outer: Shell, number: signal.Signals, seconds: float) -> None:
    process = outer.start("up", "swarm", "--name", NAME)
    hears_signals(process)
    time.sleep(seconds)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    if process.returncode == 0:  # it had finished
        outer.minicluster("down", NAME)
    else:
        # A shell says 130 of both: `python -m` ends by the signal where that came while code was made.
        assert process.returncode in (130, -signal.SIGINT), output
        assert "Traceback" not in output
    assert remains(outer, NAME) == {}


@pytest.mark.parametrize("seconds", [1.0, *(pytest.param(s, marks=pytest.mark.long) for s in (0.5, 1.8, 2.6))])
def test_killed_at_any_moment_then_down(outer: Shell, seconds: float) -> None:
    process = outer.start("up", "swarm", "--name", NAME)
    time.sleep(seconds)
    process.kill()
    process.communicate(timeout=60)
    if remains(outer, NAME):
        outer.minicluster("down", NAME)


@pytest.mark.parametrize("seconds", [1.4, *(pytest.param(s, marks=pytest.mark.long) for s in (0.7, 2.2, 3.0))])
def test_killed_at_any_moment_then_up_finishes(outer: Shell, seconds: float) -> None:
    process = outer.start("up", "swarm", "--name", NAME)
    time.sleep(seconds)
    process.kill()
    process.communicate(timeout=60)
    outer.minicluster("up", "swarm", "--name", NAME)
    try:
        members = (
            swarm_client(outer, NAME).docker("node", "ls", "--format", "{{.Hostname}} {{.Status}}").out.splitlines()
        )
        assert sorted(members) == ["agent-1 Ready", "agent-2 Ready", "master-1 Ready"]
    finally:
        outer.minicluster("down", NAME)


def test_killed_in_the_middle_of_a_change_then_up_finishes(outer: Shell) -> None:
    outer.minicluster("up", "swarm", "--name", NAME, "--size", "agent=1")
    try:
        process = outer.start("up", "swarm", "--name", NAME, "--size", "agent=3")
        time.sleep(1.3)
        process.kill()
        process.communicate(timeout=60)
        outer.minicluster("up", "swarm", "--name", NAME, "--size", "agent=3")
        client = swarm_client(outer, NAME)
        members = client.docker("node", "ls", "--format", "{{.Hostname}} {{.Status}}").out.splitlines()
        assert sorted(members) == ["agent-1 Ready", "agent-2 Ready", "agent-3 Ready", "master-1 Ready"]
    finally:
        outer.minicluster("down", NAME)


def test_no_engine(outer: Shell, tmp_path: Path) -> None:
    nowhere = Shell({"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
    assert_clear(nowhere.minicluster("up", ok=False), 3, "DOCKER_HOST")
    plan = nowhere.minicluster("up", "--dry-run", "-o", "json").json
    assert {"create-network", "create-container", "run-hook"} <= {step["action"] for step in plan["steps"]}
    assert all(step["cause"] for step in plan["steps"])
