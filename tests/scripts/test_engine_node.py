"""Nodes with an engine of their own: which processors it takes, and how names resolve in its containers."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.scripts.conftest import PROFILES, Node


@pytest.fixture
def engine(node: Node) -> Node:
    node.install("swarm", "minicluster-processors", "minicluster-resolver")
    for name in ("minicluster-processors", "minicluster-resolver"):
        text = (node.bin / name).read_text()
        node.program(name, text.replace("/proc/self/", f"{node.root}/proc/").replace("/sys/", f"{node.root}/sys/"))
    return node


@pytest.mark.parametrize(
    ("cpus", "host", "online", "allowed", "chosen"),
    [
        ("", "agent-1", "0-3", "0-3", ""),
        ("1000", "agent-1", "0-3", "0-3", "1"),
        ("1500", "agent-1", "0-3", "0-3", "2,3"),
        ("1500", "agent-2", "0-3", "0-3", "0,1"),
        ("2000", "agent-1", "0-2", "0-2", "0,2"),
        ("1000", "agent-2", "0-7", "2-3,6", "6"),  # a cpuset
        ("1000", "agent-5", "0,2-3", "0-127", "3"),  # processors that are offline, and some that may be plugged in
        ("4000", "agent-1", "0-3", "0-3", ""),
        ("9000", "agent-1", "0-7", "2-3", ""),
        ("1000", "elsewhere", "0-3", "0-3", "1"),
    ],
)
def test_an_engine_takes_processors_that_it_may_run_on(
    engine: Node, cpus: str, host: str, online: str, allowed: str, chosen: str
) -> None:
    engine.write("/run/minicluster-limits", f"MEMORY=\nCPUS={cpus}\n")
    engine.write("/etc/hostname", f"{host}\n")
    engine.write("/sys/devices/system/cpu/online", f"{online}\n")
    engine.write("/proc/status", f"Name:\tsh\nCpus_allowed:\tf\nCpus_allowed_list:\t{allowed}\nThreads:\t1\n")
    done = engine.run("minicluster-processors")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, chosen, "")


def resolve(engine: Node, servers: str) -> subprocess.CompletedProcess[str]:
    engine.write("/etc/resolv.conf", servers)
    return engine.run("minicluster-resolver", "10.222.0.1")


def test_a_resolver_says_what_it_lacks(engine: Node) -> None:
    for name in ("setsid", "socat"):
        engine.program(name, "#!/bin/sh\nexit 0\n")
    engine.program("iptables", '#!/bin/sh\nfor word; do [ "$word" != -I ] || exit 1; done\n[ -z "$REFUSES" ]\n')
    done = resolve(engine, "nameserver fd00::1\n")
    assert done.returncode == 1
    assert "names no server with an IPv4 address: containers of this node that ask 10.222.0.1 resolve no" in done.stderr
    engine.write("/etc/resolv.conf", "nameserver 127.0.0.11\n")
    done = engine.run("minicluster-resolver", "10.222.0.1", REFUSES="yes")
    assert (done.returncode, "iptables cannot redirect" in done.stderr) == (1, True)
    few = engine.root / "few"
    few.mkdir()
    for name in ("sh", "sed", "head", "iptables", "setsid"):
        (few / name).symlink_to(
            next(p for p in map(Path, (f"{engine.bin}/{name}", f"/bin/{name}", f"/usr/bin/{name}")) if p.exists())
        )
    done = engine.run(f"{engine.bin}/minicluster-resolver", "10.222.0.1", PATH=str(few))
    assert (done.returncode, "this image has no socat" in done.stderr) == (1, True)


def test_a_resolver_that_ends_is_started_again(engine: Node) -> None:
    engine.program("iptables", "#!/bin/sh\nexit 0\n")
    engine.program("setsid", f'#!/bin/sh\necho $$ >>{engine.root}/run/pids\nexec "$@"\n')
    engine.program("sleep", "#!/bin/sh\nexec /bin/sleep 0.05\n")
    engine.program("socat", f'#!/bin/sh\necho "$*" >>{engine.root}/run/started\n')
    engine.write("/etc/resolv.conf", "search corp\nnameserver 127.0.0.11\nnameserver 10.0.0.1\n")
    log = engine.root / "log"
    try:
        with log.open("w") as file:
            line = [f"{engine.bin}/minicluster-resolver", "10.222.0.1"]
            subprocess.run(line, env=engine.environment({}), stderr=file, check=True, timeout=30)
        started = engine.root / "run/started"
        end = time.monotonic() + 30
        while not started.exists() or min(started.read_text().count(kind) for kind in ("UDP4-R", "TCP4-L")) < 3:
            assert time.monotonic() < end
            time.sleep(0.02)
    finally:
        for pid in (engine.root / "run/pids").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
    assert started.read_text().count("4:127.0.0.11:53") == len(started.read_text().splitlines())
    assert "socat ended with status 0" in log.read_text()


def test_no_engine_is_started_with_a_flag_that_its_file_has() -> None:
    """dockerd refuses a setting that is given twice."""
    keys = [
        line.split('"')[1] for line in (PROFILES / "swarm/files/daemon.json.j2").read_text().splitlines() if '"' in line
    ]
    assert "bip" in keys
    for script in ("mesos/files/bin/mesos-agent-start", "swarm/files/engine/minicluster-entrypoint"):
        text = (PROFILES / script).read_text()
        assert not [key for key in keys if f"--{key}=" in text or f"--{key} " in text]
