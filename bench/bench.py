#!/usr/bin/env python3
"""What minicluster claims about speed and size, measured: ratios against a floor, in one run.

    bench/bench.py [--rounds N] [--only up,down,scale,cli,cold,size] [-o json]

The floor of `up` and `down` is bench/floor.sh: the same containers, files and commands, started by a plain parallel
shell script. Both are run in turn, round by round, so that a machine whose speed drifts does so for both; the ratio is
that of the medians. Needs an engine without a cluster named "swarm" or "bench"; leaves nothing behind.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = "bench"
MINICLUSTER = [str(Path(sys.executable).with_name("minicluster"))]


def run(*argv: str, env: dict[str, str] | None = None) -> tuple[float, str]:
    """Seconds that a command took, from outside, and what it printed."""
    begun = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, text=True, env=os.environ | (env or {}), stdin=subprocess.DEVNULL)
    seconds = time.perf_counter() - begun
    if done.returncode:
        sys.exit(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return seconds, done.stdout


def minicluster(*argv: str, env: dict[str, str] | None = None) -> tuple[float, str]:
    """The same for minicluster."""
    return run(*MINICLUSTER, *argv, env=env)


def median(values: list[float]) -> float:
    """The median."""
    return statistics.median(values)


class Report:
    """Rows of a claim, what was measured, and whether it holds."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def add(self, claim: str, value: float, limit: float, unit: str, detail: str = "") -> None:
        """A figure that must not be above its limit."""
        row = {
            "claim": claim,
            "value": round(value, 3),
            "limit": limit,
            "unit": unit,
            "holds": value <= limit,
            "detail": detail,
        }
        self.rows.append(row)
        mark = "holds" if value <= limit else "FAILS"
        print(
            f"{mark}  {claim}: {value:.2f} {unit} (limit {limit:g}){'  ' + detail if detail else ''}", file=sys.stderr
        )


def spread(values: list[float]) -> str:
    """Minimum, median and maximum, for the reader to judge how quiet the machine was."""
    return f"{min(values):.2f}/{median(values):.2f}/{max(values):.2f} s"


def up_and_down(report: Report, image: str, rounds: int, what: set[str]) -> None:
    """`up` and `down` against the plain script, in turn."""
    floor_up, floor_down, ups, downs = [], [], [], []
    for n in range(rounds + 1):
        _, text = run(str(ROOT / "bench" / "floor.sh"), image, "2", env={"FLOOR_NAME": "bench-floor"})
        up_floor = float(re.findall(r"all members ready\s+([\d.]+)", text)[0])
        down_floor = float(re.findall(r"containers removed\s+([\d.]+)", text)[0])
        seconds_up, _ = minicluster("up", "swarm", "--name", NAME, "-q")
        seconds_down, _ = minicluster("down", NAME, "-q")
        if n:  # the first round warms caches
            floor_up.append(up_floor)
            floor_down.append(down_floor)
            ups.append(seconds_up)
            downs.append(seconds_down)
    if "up" in what:
        detail = f"up {spread(ups)}, floor {spread(floor_up)}"
        report.add(
            "up swarm, 1 master + 2 agents, against the plain script",
            median(ups) / median(floor_up),
            1.25,
            "times",
            detail,
        )
    if "down" in what:
        detail = f"down {spread(downs)}, docker rm -fv {spread(floor_down)}"
        report.add("down, against docker rm -fv", median(downs) / median(floor_down), 1.5, "times", detail)


def scale(report: Report, sizes: tuple[int, ...] = (2, 8, 14, 20)) -> None:
    """Seconds per added agent: must not grow with the size."""
    seconds = {}
    for agents in sizes:
        seconds[agents], _ = minicluster(
            "up", "swarm", "--name", NAME, "--size", f"agent={agents}", "--timeout", "600", "-q"
        )
        minicluster("down", NAME, "-q")
    pairs = list(itertools.pairwise(sizes))
    each = [(seconds[b] - seconds[a]) / (b - a) for a, b in pairs]
    detail = (
        ", ".join(f"{a} agents {seconds[a]:.1f} s" for a in sizes)
        + "; per added agent "
        + ", ".join(f"{s:.2f}" for s in each)
    )
    report.add("the last agents of 20 against the first, per added agent", each[-1] / each[0], 1.15, "times", detail)


def cli(report: Report, rounds: int) -> None:
    """What the command line costs without doing anything."""

    def cpu(*argv: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        minicluster(*argv)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    helps = [cpu("--help") for _ in range(rounds + 1)][1:]
    report.add("minicluster --help, CPU", median(helps), 0.25, "s", spread(helps))
    lists = [minicluster("ls")[0] for _ in range(rounds + 1)][1:]
    report.add("minicluster ls", median(lists), 0.4, "s", spread(lists))


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


def size(report: Report) -> None:
    """What minicluster itself takes: memory while it stands a cluster up, and disk with all that it depends on."""
    code = (
        "import resource, sys\nfrom minicluster.cluster import Cluster\n"
        f"Cluster.up('swarm', name={NAME!r}).down()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    _, text = run(sys.executable, "-c", code)
    report.add("memory at its peak, up and down", int(text.split()[-1]) / 1024, 150, "MB")
    folder = tempfile.mkdtemp(prefix="mc-")
    try:
        run(sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, str(ROOT))
        total = sum(f.lstat().st_size for f in Path(folder).rglob("*") if f.is_file())
        report.add("installed, with every dependency", total / 1e6, 150, "MB")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="up,down,scale,cli,cold,size")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    options = parser.parse_args()
    what = set(options.only.split(","))
    report = Report()
    _, built = minicluster("image", "build", "swarm")
    image = built.split()[-1]
    if what & {"up", "down"}:
        up_and_down(report, image, options.rounds, what)
    if "scale" in what:
        scale(report)
    if "cli" in what:
        cli(report, options.rounds)
    if "size" in what:
        size(report)
    if "cold" in what:
        cold(report)
    if options.output == "json":
        print(json.dumps(report.rows, indent=1))
    sys.exit(not all(row["holds"] for row in report.rows))


if __name__ == "__main__":
    main()
