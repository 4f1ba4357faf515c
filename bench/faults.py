"""How long a fault takes to be in force, and to be healed, on three members of etcd."""

from __future__ import annotations

import sys

from measure import NAME, Report, median, minicluster, run, spread

#: In a process that has applied one already: partitions, and what they cost in Python.
_PYTHON = """
import sys, time
from minicluster.cluster import Cluster
cluster = Cluster.open(sys.argv[1])
for _ in range(int(sys.argv[2]) + 1):
    begun = time.perf_counter()
    fault = cluster.partition("kv-1", ["kv-2", "kv-3"])
    applied = time.perf_counter()
    fault.heal()
    print(applied - begun, time.perf_counter() - applied)
    time.sleep(1)
"""


def measure(report: Report, rounds: int) -> None:
    """A partition by command and from Python, each with its heal."""
    apply, heal = [], []
    minicluster("up", "etcd", "--name", NAME, "-q")
    try:
        for n in range(rounds + 1):
            applied, _ = minicluster("fault", "partition", "kv-1 / kv-2 kv-3", "-c", NAME, "-q")
            healed, _ = minicluster("heal", "-c", NAME, "-q")
            if n:  # the first round builds the helper's image, and warms caches
                apply.append(applied)
                heal.append(healed)
        _, text = run(sys.executable, "-c", _PYTHON, NAME, str(rounds))
    finally:
        minicluster("down", NAME, "-q")
    report.add("partition of etcd, 3 nodes, by command until it is in force", median(apply), 0.3, "s", spread(apply))
    report.add("its heal, by command", median(heal), 0.3, "s", spread(heal))
    rows = [[float(word) for word in line.split()] for line in text.splitlines()][1:]
    for what, times in zip(("partition", "heal"), zip(*rows, strict=True), strict=True):
        report.add(f"{what} in Python, after the first", median([*times]), 0.1, "s", spread([*times]))
