"""etcd over three hosts against one of them: engines that are nodes of the profile swarm, reached over TLS."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from measure import BYTECODE, NAME, ROOT, Report, median, minicluster, spread

sys.path.insert(0, str(ROOT))
from tests.engine.bed import NAMES, make
from tests.engine.conftest import Shell

_MACHINES = "bench-machines"


def measure(report: Report, rounds: int) -> None:
    """``up`` of three members in turn: on the engine of one host, and one member on each of three."""
    times: dict[str, list[float]] = {"one": [], "three": []}
    with tempfile.TemporaryDirectory(prefix="mc-") as folder:
        try:
            machines = make(Shell({**os.environ, **BYTECODE}), _MACHINES, Path(folder))
            env = {"DOCKER_CONFIG": folder, "DOCKER_HOST": "", "DOCKER_CONTEXT": "m1"}
            assert len(machines.nodes) == len(NAMES)
            ways = {"one": (), "three": ("--hosts", ",".join(NAMES))}
            for n in range(rounds + 1):
                for way, options in ways.items():
                    seconds, _ = minicluster("up", "etcd", "--name", NAME, "-q", *options, env=env)
                    minicluster("down", NAME, "-q", env=env)
                    if n:  # the first round copies the image to each host
                        times[way].append(seconds)
        finally:
            minicluster("down", _MACHINES, "-q")
    detail = f"{spread(times['three'])} against {spread(times['one'])}"
    report.add(
        "up etcd over three hosts, against one of them",
        median(times["three"]) / median(times["one"]),
        1.5,
        "times",
        detail,
    )
