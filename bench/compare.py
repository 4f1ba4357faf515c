#!/usr/bin/env python3
"""Compares two versions of minicluster in one run: what users wait for, command by command.

    bench/compare.py BEFORE AFTER [--rounds N] [--profiles etcd,zookeeper,consul,swarm,kubernetes] [-o json]

BEFORE and AFTER are minicluster commands, such as .venv/bin/minicluster of two checkouts. The versions take turns,
round by round, so that a machine whose speed drifts does so for both; the ratio is that of the medians. A first
round, which is not counted, builds the images and fills the caches. Needs an engine without clusters named
"compare"; leaves nothing behind but images.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from statistics import median
from typing import Any

NAME = "compare"
LIMIT = 1.05

#: What is timed in a round, in this order, on one cluster of the profile.
STEPS: dict[str, list[str]] = {
    "up": ["up", "{profile}", "--name", NAME],
    "up again": ["up", "--name", NAME],
    "status": ["status", NAME],
    "reset": ["reset", NAME],
    "stop": ["stop", "-c", NAME],
    "start": ["start", "-c", NAME],
    "down": ["down", NAME],
}


def timed(command: str, argv: list[str]) -> float:
    """Seconds that a command takes as a whole process; ends this run where it fails."""
    left_out = ("MINICLUSTER", "PYTHONDONTWRITEBYTECODE")  # Python keeps compiled modules, as it does for users
    env = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    begun = time.perf_counter()
    done = subprocess.run([command, *argv], env=env, capture_output=True, text=True, timeout=900)
    seconds = time.perf_counter() - begun
    if done.returncode:
        sys.exit(f"{command} {' '.join(argv)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profiles", default="etcd,zookeeper,consul,swarm,kubernetes")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    options = parser.parse_args()
    try:
        rows = compare(options)
    finally:  # also after Ctrl-C and a time-out
        subprocess.run([options.after, "down", NAME], capture_output=True, timeout=300)
    if options.output == "json":
        print(json.dumps(rows, indent=1))
    sys.exit(any(row["ratio"] > LIMIT for row in rows))


def compare(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each profile and step, printed as soon as it is known."""
    rows = []
    for profile in options.profiles.split(","):
        seconds: dict[tuple[str, str], list[float]] = {}
        for number in range(-1, options.rounds):
            for command in (options.before, options.after)[:: -1 if number % 2 else 1]:  # neither is always the first
                for step, argv in STEPS.items():
                    took = timed(command, [word.format(profile=profile) for word in argv])
                    if number >= 0:
                        seconds.setdefault((step, command), []).append(took)
        for step in STEPS:
            before, after = (median(seconds[step, command]) for command in (options.before, options.after))
            row = {"profile": profile, "step": step, "before": before, "after": after, "ratio": after / before}
            rows.append(row)
            if options.output == "text":
                mark = "" if row["ratio"] <= LIMIT else f"  over {LIMIT}"
                print(f"{profile:12} {step:10} {before:7.2f} s {after:7.2f} s {row['ratio']:6.2f}{mark}", flush=True)
    return rows


if __name__ == "__main__":
    main()
