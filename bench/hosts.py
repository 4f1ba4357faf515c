"""etcd over three hosts against one of them: engines that are nodes of the profile swarm, reached over TLS."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from measure import BYTECODE, NAME, ROOT, Report, median, minicluster, spread

_MACHINES = "bench-machines"


def measure(report: Report, rounds: int) -> None:
    """``up`` of three members in turn: one on each of three hosts, all on one of these, and on its engine alone."""
    sys.path.insert(0, str(ROOT))  # here, since it imports pytest, which other sections do not need
    from tests.engine.bed import NAMES, make
    from tests.engine.conftest import Shell

    ways = {"three hosts": ("--hosts", ",".join(NAMES)), "one host": ("--hosts", "m1"), "one engine": ()}
    times: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory(prefix="mc-") as folder:
        try:
            make(Shell({**os.environ, **BYTECODE}), _MACHINES, Path(folder))
            env = {"DOCKER_CONFIG": folder, "DOCKER_HOST": "", "DOCKER_CONTEXT": "m1"}
            for n in range(rounds + 1):
                for way, options in ways.items():
                    try:
                        seconds, _ = minicluster("up", "etcd", "--name", NAME, "-q", *options, env=env)
                    finally:
                        minicluster("down", NAME, "-q", env=env)
                    if n:  # the first round copies the image to each host
                        times[way].append(seconds)
        finally:
            minicluster("down", _MACHINES, "-q")
    three = times.pop("three hosts")
    for way, seconds_each in times.items():
        claim = f"up etcd over three hosts, against {way}"
        detail = f"{spread(three)} against {spread(seconds_each)}"
        report.add(claim, median(three) / median(seconds_each), 1.5, "times", detail)
