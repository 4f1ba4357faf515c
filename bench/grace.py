#!/usr/bin/env python3
"""Whether agents stay Ready on a busy machine: watches a Kubernetes cluster under load.

    bench/grace.py [--minutes 30] [--load 3] [--agents 3] [--failover steady] [--name grace]

Starts a cluster, then so many busy processes for each processor, and looks at the nodes until the time is over. Prints
a line a minute, and each time that a node was not Ready: also one that nobody saw, by the time of its last change. The
exit status is 1 if there was any.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import datetime, timezone
from typing import Any

from measure import MINICLUSTER, minicluster

_SPIN = "while :; do :; done"


def kubectl(name: str, *argv: str) -> Any:
    """What kubectl prints as JSON; None where the API server does not answer."""
    command = [*MINICLUSTER, "kubectl", "-c", name, *argv, "-o", "json", "--request-timeout=20s"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return json.loads(done.stdout) if done.returncode == 0 else None


def ready(node: Any) -> Any:
    """A node's condition Ready."""
    return next(c for c in node["status"]["conditions"] if c["type"] == "Ready")


def moment(text: str) -> float:
    """Seconds since 1970 of a time of Kubernetes."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc).timestamp()


def watch(name: str, seconds: float) -> int:
    """Watches the nodes for so long. Returns how often one was not Ready."""
    since = {
        node["metadata"]["name"]: ready(node)["lastTransitionTime"] for node in kubectl(name, "get", "nodes")["items"]
    }
    begun, minute, oldest, loads, failures, unanswered = time.time(), 0, 0.0, [], 0, 0
    while (now := time.time()) < begun + seconds:
        nodes, leases = kubectl(name, "get", "nodes"), kubectl(name, "get", "leases", "--namespace", "kube-node-lease")
        loads.append(os.getloadavg()[0])
        unanswered += (nodes is None) + (leases is None)
        for node in nodes["items"] if nodes else ():
            its, condition = node["metadata"]["name"], ready(node)
            if condition["status"] != "True" or condition["lastTransitionTime"] != since.get(its):
                failures += 1
                since[its] = condition["lastTransitionTime"]
                print(f"{its}: Ready={condition['status']} since {since[its]}: {condition['message']}", flush=True)
        for lease in leases["items"] if leases else ():
            oldest = max(oldest, time.time() - moment(lease["spec"]["renewTime"]))
        if now >= begun + 60 * (minute + 1):
            minute += 1
            said = f"{minute} min: {len(since)} nodes, {failures} changes; load {loads[-1]:.1f}"
            print(f"{said}; oldest heartbeat {oldest:.0f} s; {unanswered} requests failed", flush=True)
        time.sleep(1)
    print(
        f"| {seconds / 60:.0f} min | load {min(loads):.1f} to {max(loads):.1f}, mean {sum(loads) / len(loads):.1f}"
        f" | {failures} times not Ready | oldest heartbeat {oldest:.0f} s | {unanswered} requests failed |"
    )
    return failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--load", type=float, default=3, help="busy processes for each processor; default: %(default)s")
    parser.add_argument("--agents", type=int, default=3)
    parser.add_argument("--failover", choices=("steady", "quick"), default="steady")
    parser.add_argument("--name", default="grace", help="of the cluster; default: %(default)s")
    options = parser.parse_args()
    busy: list[subprocess.Popen[bytes]] = []
    try:
        sizes = ("--size", f"agent={options.agents}", "--set", f"failover={options.failover}")
        minicluster("up", "kubernetes", "--name", options.name, "-q", *sizes)
        busy += [subprocess.Popen(["sh", "-c", _SPIN]) for _ in range(round(options.load * (os.cpu_count() or 1)))]
        failures = watch(options.name, options.minutes * 60)
    finally:
        for one in busy:
            one.kill()
            one.wait()
        minicluster("down", options.name, "-q")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
