#!/usr/bin/env python3
"""recovery.py [ROUNDS]: how long real systems are without a leader, and without writes, under each fault.

Prints a table. Each fault is held for 12 seconds; the median of the rounds is shown.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator

from minicluster.cluster import Cluster
from minicluster.operations import chaos

PROFILES = {"etcd": {}, "consul": {"set": {"version": "1.8.7"}, "size": {"agent": 0}}}
HOLD = 12.0


def rows(rounds: int) -> Iterator[tuple[str, str, float | None, float | None]]:
    for profile, options in PROFILES.items():
        with Cluster.up(profile, name=f"recovery-{profile}", **options) as cluster:  # type: ignore[arg-type]
            for kind in ("kill", "hang", "partition"):
                for who in ("leader", "follower"):
                    leaderless, without = [], []
                    for _ in range(rounds):
                        cluster.wait()
                        leader = cluster.leader()
                        node = leader if who == "leader" else next(n.name for n in cluster.nodes() if n.name != leader)
                        one = next(
                            chaos.chaos(
                                cluster.engine,
                                cluster.spec,
                                seconds=2 * HOLD,
                                every=2 * HOLD,
                                kinds=[kind],
                                nodes=[node],
                            )
                        )
                        leaderless += [one.without_leader or 0.0]
                        without += [one.without_writes or 0.0]
                    yield (
                        profile,
                        f"{who}: {chaos.KINDS[kind]}",
                        statistics.median(leaderless),
                        statistics.median(without),
                    )


def main() -> None:
    rounds = int(sys.argv[1]) if sys.argv[1:] else 3
    print("| system | fault | seconds without a leader | seconds without writes |\n| --- | --- | --- | --- |")
    for profile, what, leaderless, without in rows(rounds):
        print(f"| {profile} | {what} | {leaderless:.1f} | {without:.1f} |", flush=True)


if __name__ == "__main__":
    main()
