#!/usr/bin/env python3
"""What minicluster claims about speed and size, measured: ratios against a floor, in one run.

    bench/bench.py [--rounds N] [-o json]
                   [--only swarm,scale,etcd,zookeeper,kubernetes,reset,fixtures,faults,hosts,cli,size,cold]

The floor of `up` and `down` is bench/floor.sh, for other profiles bench/floor-nodes.sh, and Docker Compose: the same
containers, files and commands, started by a plain parallel shell script. All are run in turn, round by round, so that a
machine whose speed drifts does so for all; the ratio is that of the medians. Needs an engine without a cluster of the
same profile or of the name "bench"; leaves nothing behind but images, and Compose where there was none (get-compose).
A section that fails is reported as failed, and the others are measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable

import cost
import faults
import fixtures
import hosts
import kube
import kv
import swarm
from measure import NAME, Failed, Report, minicluster

SECTIONS: dict[str, Callable[[Report, int], None]] = {
    "swarm": swarm.up_and_down,
    "scale": swarm.scale,
    "etcd": lambda report, rounds: kv.measure(report, "etcd", rounds),
    "zookeeper": lambda report, rounds: kv.measure(report, "zookeeper", rounds),
    "kubernetes": kube.measure,
    "masters": kube.masters,
    "reset": lambda report, _rounds: kv.reset(report),
    "fixtures": fixtures.measure,
    "faults": faults.measure,
    "hosts": hosts.measure,
    "cli": cost.cli,
    "size": lambda report, _rounds: cost.size(report),
    "cold": lambda report, _rounds: swarm.cold(report),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections; default: %(default)s")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    options = parser.parse_args()
    wanted = options.only.split(",")
    if unknown := set(wanted) - set(SECTIONS):
        parser.error(f"no section is called {', '.join(sorted(unknown))}")
    report = Report()
    for section in wanted:
        try:
            SECTIONS[section](report, options.rounds)
        except Exception as error:
            report.fail(section, str(error))
            with contextlib.suppress(Failed):  # what is left of it would disturb the next one
                minicluster("down", NAME, "-q")
    if options.output == "json":
        print(json.dumps(report.rows, indent=1))
    sys.exit(not all(row["holds"] for row in report.rows))


if __name__ == "__main__":
    main()
