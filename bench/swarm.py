"""Swarm: against a plain script, by the number of agents, and on an engine that has nothing yet."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import plain
from measure import MINICLUSTER, NAME, ROOT, Report, median, minicluster, run, spread


def up_and_down(report: Report, rounds: int) -> None:
    """`up` and `down` against the plain script, in turn."""
    floor_up, floor_down, ups, downs = [], [], [], []
    minicluster("image", "build", "swarm")
    for n in range(rounds + 1):
        up_floor, down_floor = _plain_script(2)
        seconds_up, _ = minicluster("up", "swarm", "--name", NAME, "-q")
        seconds_down, _ = minicluster("down", NAME, "-q")
        if n:  # the first round warms caches
            floor_up.append(up_floor)
            floor_down.append(down_floor)
            ups.append(seconds_up)
            downs.append(seconds_down)
    detail = f"up {spread(ups)}, floor {spread(floor_up)}"
    ratio = median(ups) / median(floor_up)
    report.add("up swarm, 1 master + 2 agents, against the plain script", ratio, 1.1, "times", detail)
    detail = f"down {spread(downs)}, docker rm -fv {spread(floor_down)}"
    report.add("down, against docker rm -fv", median(downs) / median(floor_down), 1.5, "times", detail)


def scale(report: Report, rounds: int, sizes: tuple[int, ...] = (2, 8, 14, 20)) -> None:
    """Seconds per added agent, by the size; and the same of the plain script, which shows what the machine adds."""
    minicluster("image", "build", "swarm")
    times: dict[int, list[float]] = {agents: [] for agents in sizes}
    floor: dict[int, list[float]] = {agents: [] for agents in sizes}
    for _ in range(rounds):
        for agents in sizes:
            floor[agents].append(_plain_script(agents)[0])
            size = f"agent={agents}"
            seconds, _ = minicluster("up", "swarm", "--name", NAME, "--size", size, "--timeout", "600", "-q")
            times[agents].append(seconds)
            minicluster("down", NAME, "-q")
    ours, theirs = _per_agent(times), _per_agent(floor)
    detail = f"{_by_size(times)}; per added agent {_figures(ours)}"
    report.add("the last agents of 20 against the first, per added agent", ours[-1] / ours[0], 1.15, "times", detail)
    detail = f"plain script {_by_size(floor)}; per added agent {_figures(theirs)}"
    growth = (ours[-1] / ours[0]) / (theirs[-1] / theirs[0])
    report.add("that growth, against the plain script's own", growth, 1.15, "times", detail)
    last = sizes[-1]
    ratio = median(times[last]) / median(floor[last])
    report.add(f"up swarm, 1 master + {last} agents, against the plain script", ratio, 1.25, "times")


def _plain_script(agents: int) -> tuple[float, float]:
    """Seconds that the floor takes until all members are ready, and until its containers are removed."""
    with tempfile.TemporaryDirectory(prefix="mc-") as folder:
        plain.prepare("swarm", "bench-floor", Path(folder), {"agent": agents})
        _, text = run(str(ROOT / "bench" / "floor.sh"), folder)
    up, down = (re.findall(rf"{event}\s+([\d.]+)", text)[0] for event in ("all members ready", "containers removed"))
    return float(up), float(down)


def _per_agent(times: dict[int, list[float]]) -> list[float]:
    """Seconds that each agent adds between one size and the next."""
    return [(median(times[b]) - median(times[a])) / (b - a) for a, b in itertools.pairwise(times)]


def _by_size(times: dict[int, list[float]]) -> str:
    return ", ".join(f"{agents} agents {spread(seconds)}" for agents, seconds in times.items())


def _figures(seconds: list[float]) -> str:
    return ", ".join(f"{s:.2f}" for s in seconds)


def cold(report: Report) -> None:
    """`up` on an engine that has no image at all, its start included: a private one in a folder of its own."""
    folder = tempfile.mkdtemp(prefix="mc-", dir="/var/tmp")
    env = {"XDG_DATA_HOME": folder, "DOCKER_HOST": f"unix://{folder}/minicluster/engine/docker.sock"}
    try:
        begun = time.perf_counter()
        minicluster("engine", "start", env=env | {"DOCKER_HOST": ""})
        minicluster("up", "swarm", "--name", NAME, "-q", env=env)
        report.add("cold up: engine, base image, node image, cluster", time.perf_counter() - begun, 90, "s")
        minicluster("down", NAME, "-q", env=env)
    finally:
        subprocess.run(
            [*MINICLUSTER, "engine", "stop", "--remove-data"], env=os.environ | env | {"DOCKER_HOST": ""}, check=False
        )
        shutil.rmtree(folder, ignore_errors=True)
