#!/usr/bin/env python3
"""recovery.py [ROUNDS] [PROFILE...]: how long systems are without a leader, and without writes, under each fault.

Prints a table of the medians. A fault is held for 12 seconds, so a system without writes all that time has 12 or more.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from minicluster.cluster import Cluster
from minicluster.operations import chaos

PROFILES: dict[str, dict[str, Any]] = {
    "etcd": {},
    "zookeeper": {},
    "consul": {"set": {"version": "1.8.7"}, "size": {"agent": 0}},
    "swarm": {"size": {"master": 3, "agent": 0}},
}
HOLD = 12.0


def one_round(cluster: Cluster, kind: str, who: str) -> chaos.Round:
    """A fault of the leader or of a follower, from a healthy cluster to a healthy one."""
    cluster.wait_for(lambda status: status.phase == "ready" and status.quorum and status.quorum.leader, timeout=180)
    leader = cluster.leader()
    voters = [name for name in cluster.node_names() if name != leader]
    node = leader if who == "leader" else voters[0]
    go = chaos.chaos(cluster.engine, cluster.spec, seconds=2 * HOLD, every=2 * HOLD, kinds=[kind], nodes=[node])
    with closing(go) as rounds:
        return next(rounds)


def rows(profile: str, rounds: int) -> Iterator[str]:
    with Cluster.up(profile, name=f"recovery-{profile}", **PROFILES[profile]) as cluster:
        for kind in ("kill", "hang", "partition"):
            for who in ("leader", "follower"):
                done = [one_round(cluster, kind, who) for _ in range(rounds)]
                if errors := [one.error for one in done if one.error]:
                    raise SystemExit(f"recovery.py: {profile}, {kind} of the {who}: {errors[0]}")
                figures = (
                    statistics.median(value for one in done if (value := getattr(one, what)) is not None)
                    for what in ("without_leader", "without_writes")
                )
                yield f"| {profile} | {kind} | {who} | {' | '.join(f'{value:.1f}' for value in figures)} |"


def main() -> None:
    rounds = int(sys.argv[1]) if sys.argv[1:] else 3
    print("| system | fault | of the | no look saw a leader, seconds | no write acknowledged, seconds |")
    print("| --- | --- | --- | --- | --- |")
    for profile in sys.argv[2:] or PROFILES:
        for row in rows(profile, rounds):
            print(row, flush=True)


if __name__ == "__main__":
    main()
