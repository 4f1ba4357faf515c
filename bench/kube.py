"""Kubernetes against a plain script, an agent that is added, and what an idle cluster uses.

A cluster is up when every node is ready and a pod has been given one: the seconds until then are `up`'s and the pod's.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import plain
from measure import NAME, ROOT, Report, median, minicluster, run, spread

_SETTLE = 20  # seconds after `up` until a cluster is called idle
_WATCHED = 30  # seconds over which its processor time is counted
#: For a master: makes a pod, waits until the scheduler has found it a node, and removes it.
_SCHEDULES = """
. /usr/local/lib/kube-common
pods=/api/v1/namespaces/default/pods
pod='{"metadata": {"name": "one"}, "spec": {"containers": [{"name": "main", "image": "localhost/minicluster/demo:1"}]}}'
ask admin $pods -H 'Content-Type: application/json' -d "$pod" >/dev/null
until ask admin $pods/one | grep -q '"nodeName"'; do sleep 0.02; done
ask admin "$pods/one?gracePeriodSeconds=0" -X DELETE >/dev/null
"""


def measure(report: Report, rounds: int) -> None:
    """The plain script and minicluster in turn: one etcd, one master, two agents, then a third."""
    times: dict[str, list[float]] = defaultdict(list)
    minicluster("image", "build", "kubernetes")
    with tempfile.TemporaryDirectory(prefix="mc-") as folder:
        plain.prepare("kubernetes", "bench-floor", Path(folder))
        (Path(folder) / "last").write_text(_SCHEDULES)
        for n in range(rounds + 1):
            _, text = run(str(ROOT / "bench" / "floor-nodes.sh"), folder)
            taken = {f"floor {what}": float(s) for what, s in re.findall(r"(\S.*\S)\s+([\d.]+)$", text, re.M)}
            try:
                taken["up alone"], _ = minicluster("up", "kubernetes", "--name", NAME, "-q")
                scheduled, _ = run("docker", "exec", f"{NAME}-master-1", "bash", "-euc", _SCHEDULES)
                taken["up"] = taken["up alone"] + scheduled
                taken["agent"], _ = minicluster("scale", "agent=3", "-c", NAME, "-q")
                minicluster("scale", "agent=2", "-c", NAME, "-q")
                if n == rounds:
                    _idle(report)
            finally:
                taken["down"], _ = minicluster("down", NAME, "-q")
            if n:  # the first round warms caches
                for what, seconds in taken.items():
                    times[what].append(seconds)

    def against(claim: str, ours: str, other: str, limit: float) -> None:
        detail = f"{spread(times[ours])} against {spread(times[other])}"
        report.add(claim, median(times[ours]) / median(times[other]), limit, "times", detail)

    floor = "floor up: the cluster has worked once"
    against("up kubernetes, 1 master + 2 agents, and a pod, against the plain script", "up", floor, 1.1)
    detail = f"{spread(times['up'])}; without the pod {spread(times['up alone'])}"
    report.add("up kubernetes, and a pod", median(times["up"]), 9, "s", detail)
    report.add("an agent added to kubernetes", median(times["agent"]), 3, "s", spread(times["agent"]))
    against("down kubernetes, against docker rm -fv", "down", "floor down: containers removed", 1.5)


def masters(report: Report, rounds: int) -> None:
    """Three etcds and three masters against one of each, with two agents, in turn."""
    several = ("--size", "kv=3", "--size", "master=3")
    times: dict[str, list[float]] = defaultdict(list)
    minicluster("image", "build", "kubernetes")
    for n in range(rounds + 1):
        for what, size in (("one", ()), ("three", several)):
            try:
                seconds, _ = minicluster("up", "kubernetes", "--name", NAME, "-q", *size)
            finally:
                minicluster("down", NAME, "-q")
            if n:  # the first round warms caches
                times[what].append(seconds)
    detail = f"{spread(times['three'])} against {spread(times['one'])}"
    ratio = median(times["three"]) / median(times["one"])
    report.add("up kubernetes, 3 kv + 3 masters + 2 agents against 1 + 1 + 2", ratio, 2.0, "times", detail)


def _idle(report: Report) -> None:
    time.sleep(_SETTLE)
    before = _used()
    time.sleep(_WATCHED)
    after = _used()
    cores = sum(after[node][0] - before[node][0] for node in after) / _WATCHED
    memory = {node: used[1] for node, used in after.items()}
    detail = ", ".join(f"{node} {size / 1e6:.0f} MB" for node, size in memory.items())
    report.add("idle kubernetes, memory", sum(memory.values()) / 1e9, 1.2, "GB", detail)
    report.add("idle kubernetes, processor", cores, 0.25, "cores")


def _used() -> dict[str, tuple[float, int]]:
    """Node -> seconds of processor time so far, and bytes of memory in use."""
    from minicluster.cluster import Cluster

    cluster = Cluster.open(NAME)
    samples = {node.name: cluster.engine.sample(f"{NAME}-{node.name}") for node in cluster.spec.nodes}
    return {name: (sample.cpu / 1e9, sample.memory) for name, sample in samples.items()}
