"""The helper's program of faults: queues that a delay and a rate share, devices that no network names, and limits."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.scripts.conftest import PROFILES, Node

PID, MAC, OTHER = 101, "02:00:00:00:00:01", "02:00:00:00:00:02"

#: A traffic control that has queues in a file, device -> its rate and its classes' queues, and prints what tc does.
TC = f"""#!{sys.executable} -IS
import json, os, sys
file, words = os.environ["QUEUES"], sys.argv[1:]
state = json.load(open(file)) if os.path.exists(file) else {{}}
what, verb = words[:2]
if words == ["qdisc", "show"]:
    words += ["dev", "eth0"]
device = words[words.index("dev") + 1]
parent = words[words.index("parent") + 1] if "parent" in words else ""
its = state.get(device)
def refuse(text):
    sys.exit("Error: " + text)
def shown(bits):
    for unit in ("", "K", "M"):
        if bits < 1000 or bits % 1000:
            return f"{{bits}}{{unit}}bit"
        bits //= 1000
    return f"{{bits}}Gbit"
if (what, verb) == ("qdisc", "show"):
    print("qdisc htb 1: root refcnt 2 r2q 10 default 0x1" if its else "qdisc noqueue 0: root refcnt 2")
    for at, queue in (its or {{"leaves": {{}}}})["leaves"].items():
        kind, rest = queue.split(" ", 1)
        print(f"qdisc {{kind}} 8001: parent {{at}} {{rest}}")
elif (what, verb) == ("class", "show"):
    if its:
        rate = shown(its["rate"])
        print(f"class htb 1:9 root rate {{rate}} ceil {{rate}} burst 0b cburst 0b")
        print(f"class htb 1:1 parent 1:9 prio 0 rate 8Kbit ceil {{rate}} burst 1600b cburst 0b")
elif "root" in words and verb == "add":
    if its:
        refuse("Exclusivity flag on, cannot modify.")
    state[device] = {{"rate": 0, "leaves": {{}}}}
elif its is None:
    refuse("Cannot find specified qdisc on specified device.")
elif "root" in words:
    del state[device]
elif what == "class":
    if "1:9" in words[words.index("classid"):]:
        its["rate"] = int(words[words.index("rate") + 1])
elif what == "qdisc" and verb == "del":
    if its["leaves"].pop(parent, None) is None:
        refuse("Invalid handle.")
elif what == "qdisc":
    queue = words[words.index("parent") + 2:]
    if queue[0] == "netem" and "NETEM" not in os.environ:
        refuse("Specified qdisc kind is unknown.")
    if verb == "add" and parent in its["leaves"]:
        refuse("Exclusivity flag on, cannot modify.")
    its["leaves"][parent] = " ".join(queue)
json.dump(state, open(file, "w"))
"""

#: eth0 is on the cluster's network; eth1 leads to the host, and to everything else.
IP = f"""#!/bin/sh
case $* in
  "-o link") echo "1: lo: <UP> mtu 1 link/loopback 00:00 brd 00:00"
    echo "9: eth0@if10: <UP> mtu 1450 link/ether {MAC} brd ff:ff"
    echo "11: eth1@if12: <UP> mtu 1500 link/ether 02:42:ac:12:00:03 brd ff:ff" ;;
  "-o route show default") echo "default via 172.18.0.1 dev ${{WAY-eth1}} " ;;
esac
"""

Begin = Callable[..., AbstractContextManager[str]]


@pytest.fixture
def machine(node: Node) -> Node:
    """The program, on a machine with a node whose first process is PID."""
    text = (PROFILES / "_fault" / "fault").read_text()
    for folder in ("/proc/", "/sys/"):
        text = text.replace(folder, f"{node.root}{folder}")
    node.program("fault", text)
    node.program("nsenter", '#!/bin/sh\nshift 4\nexec "$@"\n')
    node.program("nft", f'#!/bin/sh\n[ "$1" != -f ] || cat >>{node.root}/rules\n')
    node.program("sleep", '#!/bin/sh\n[ "$1" = infinity ] || exit 0\nexec /bin/sleep 300\n')
    node.program("tc", TC)
    node.program("ip", IP)
    node.write(f"/proc/{PID}/ns/net", "")
    return node


@pytest.fixture
def begin(machine: Node) -> Begin:
    """Holds a fault during a block; its value is what the program says."""

    @contextmanager
    def held(*operations: str, sweeps: tuple[str, ...] = (), end: int = signal.SIGTERM, **env: str) -> Iterator[str]:
        env = {"FAULT": "1", "QUEUES": str(machine.root / "queues"), **env}
        program = machine.start("fault", "0", *operations, "--", *sweeps, **env)
        assert program.stdout
        assert program.stderr
        with program.stdout, program.stderr:
            try:
                yield program.stdout.readline().strip()
                program.send_signal(end)
                program.wait(20)
            finally:
                program.kill()

    return held


def queues(machine: Node) -> Any:
    file = machine.root / "queues"
    return json.loads(file.read_text()) if file.exists() else {}


def leaves(machine: Node) -> dict[str, str]:
    found = queues(machine)
    assert found["eth0"] == found["eth1"]
    leaves: dict[str, str] = found["eth0"]["leaves"]
    return leaves


RATE = f"rate {PID} {MAC} 10000000"
DELAY = f"shape {PID} {MAC} - delay 100ms"
DELAY_TO = f"shape {PID} {MAC} {OTHER} delay 100ms"
QUEUE = {"1:1": "bfifo limit 125000"}  # a tenth of a second


def test_a_delay_that_cannot_be_applied_leaves_the_queue_of_a_rate(machine: Node, begin: Begin) -> None:
    with begin(RATE) as said:
        assert said == "in force"
        assert leaves(machine) == QUEUE
        for delay in (DELAY, DELAY_TO):
            with begin(delay) as said:
                assert said.startswith("failed: Error: Specified qdisc kind is unknown.")
            assert leaves(machine) == QUEUE
        assert queues(machine)["eth0"]["rate"] == 10_000_000
    assert queues(machine) == {}


def test_a_rate_has_its_queue_again_after_a_delay(machine: Node, begin: Begin) -> None:
    netem = {"1:1": "netem limit 10000 delay 100ms"}
    with begin(RATE, NETEM="1"):
        with begin(DELAY, NETEM="1") as said:
            assert said == "in force"
            assert leaves(machine) == netem
        assert leaves(machine) == QUEUE
    assert queues(machine) == {}
    with begin(DELAY, NETEM="1"):
        with begin(RATE, NETEM="1"):
            assert leaves(machine) == netem
        assert leaves(machine) == netem
    assert queues(machine) == {}


def test_a_rate_has_a_queue_of_its_own_beside_a_delay_to_some(machine: Node, begin: Begin) -> None:
    netem = {"1:2": "netem limit 10000 delay 100ms"}
    with begin(DELAY_TO, NETEM="1"):
        with begin(RATE, NETEM="1"):
            assert leaves(machine) == QUEUE | netem
        assert leaves(machine) == netem
    assert queues(machine) == {}


def test_the_queue_of_a_slow_rate_has_room_for_packets(machine: Node, begin: Begin) -> None:
    with begin(f"rate {PID} {MAC} 8500"):
        assert leaves(machine) == {"1:1": "bfifo limit 15140"}
        with begin(DELAY):
            pass
        assert leaves(machine) == {"1:1": "bfifo limit 15140"}


def test_the_way_to_clients_is_affected_where_it_is_no_network_of_the_cluster(machine: Node, begin: Begin) -> None:
    nothing = f"sweep {PID} {MAC} id 0 0"
    with begin(f"strangers {PID} {MAC} {MAC},{OTHER}", f"lose {PID} 100 {MAC}"):
        rules = (machine.root / "rules").read_text()
    assert f"iifname {{ eth0,eth1 }} ether saddr != {{ {MAC},{OTHER} }} drop" in rules
    assert "oifname { eth0,eth1 } numgen random mod 1000 < 100 drop" in rules
    with begin(RATE, sweeps=(nothing,), end=signal.SIGUSR2):
        assert leaves(machine) == QUEUE
    assert queues(machine) == {}


def test_all_packets_are_lost(machine: Node, begin: Begin) -> None:
    with begin(f"lose {PID} 1000 {MAC}", f"drop {PID} 1000 {OTHER}", WAY="eth0"):
        rules = [" ".join(line.split()) for line in (machine.root / "rules").read_text().splitlines()]
    assert "add rule inet minicluster_1 out oifname { eth0 } drop" in rules
    assert f"add rule inet minicluster_1 in ether saddr {{ {OTHER} }} drop" in rules


def test_on_one_engine_a_device_is_named_once(machine: Node, begin: Begin) -> None:
    with begin(RATE, f"strangers {PID} {MAC} {MAC}", WAY="eth0"):
        assert [*queues(machine)] == ["eth0"]
        assert "iifname { eth0 } ether" in (machine.root / "rules").read_text()


CONTAINER = "c0ffee"


@pytest.fixture(params=[1, 2])
def limits(request: pytest.FixtureRequest, machine: Node) -> dict[str, Path]:
    """The files of the container's control group, version 1 or 2, with another container's beside them."""
    group = f"docker/{CONTAINER}"
    if request.param == 1:
        lines = f"5:memory:/{group}\n4:cpu,cpuacct:/{group}\n"
        paths = {"cpu": f"cpu/{group}/cpu.cfs_quota_us", "memory": f"memory/{group}/memory.limit_in_bytes"}
    else:
        lines, paths = f"0::/{group}/init\n", {"cpu": f"{group}/cpu.max", "memory": f"{group}/memory.max"}
    machine.write(f"/proc/{PID}/cgroup", lines)
    for path in paths.values():
        machine.write(f"/sys/fs/cgroup/{path}", "")
    return {name: machine.root / "sys/fs/cgroup" / path for name, path in paths.items()}


def test_limits_are_those_of_the_container_again(begin: Begin, limits: dict[str, Path]) -> None:
    def found() -> list[str]:
        return [limits[name].read_text().strip() for name in ("cpu", "memory")]

    with begin(f"cpu {PID} {CONTAINER} 200 1500", f"memory {PID} {CONTAINER} 64000 128000") as said:
        assert said == "in force"
        assert found() == ["20000", "64000"]
    assert found() == ["150000", "128000"]
    with begin(f"cpu {PID} {CONTAINER} 200 0", f"memory {PID} {CONTAINER} 64000 0"):
        assert found() == ["20000", "64000"]
    none = ["max", "max"] if limits["cpu"].name == "cpu.max" else ["-1", "-1"]
    assert found() == none


@pytest.mark.parametrize(("share", "size", "cpu", "memory"), [(250, 128000, "25000", "128000"), (0, 0, "", "")])
def test_limits_of_a_helper_that_was_killed_are_cleared(
    machine: Node, begin: Begin, limits: dict[str, Path], share: int, size: int, cpu: str, memory: str
) -> None:
    sweep = f"sweep {PID} {MAC} {CONTAINER} {share} {size}"
    none = "max" if limits["cpu"].name == "cpu.max" else "-1"
    for options in ((sweep,), (f"dns {PID}",)):  # by a helper that is started for it, and by one that holds a fault
        for file in limits.values():
            file.write_text("5")  # of the killed one
        with begin(*options, sweeps=(sweep,), end=signal.SIGUSR2):
            pass
        assert limits["cpu"].read_text().strip() == (cpu or none)
        assert limits["memory"].read_text().strip() == (memory or none)


def test_a_node_whose_control_group_is_not_known_has_no_limits(machine: Node, begin: Begin) -> None:
    """The topmost group's are not the node's."""
    machine.write(f"/proc/{PID}/cgroup", "0::/elsewhere\n")
    machine.write("/sys/fs/cgroup/cpu.max", "max")
    with begin(f"cpu {PID} {CONTAINER} 200 0") as said:
        assert said == "failed: the engine's machine has no control group of the node"
    with begin(f"sweep {PID} {MAC} {CONTAINER} 250 0") as said:
        assert said == "in force"
    assert (machine.root / "sys/fs/cgroup/cpu.max").read_text() == "max"
