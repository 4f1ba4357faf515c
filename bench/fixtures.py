"""Clusters as fixtures: against the command line, reused, shared, and against the same test without minicluster."""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict

from measure import BYTECODE, NAME, ROOT, Failed, Report, median, minicluster, run, spread

_TESTS = ROOT / "bench" / "fixture"


def measure(report: Report, rounds: int) -> None:
    """The fixture and `minicluster up` in turn, round by round; then what else a run of tests pays."""
    image = minicluster("image", "build", "etcd")[1].split()[-1]
    engine = json.loads(minicluster("engine", "status", "-o", "json")[1])["in_use"]["endpoint"]
    times: dict[str, list[float]] = defaultdict(list)
    for n in range(rounds + 1):
        taken = {"up": minicluster("up", "etcd", "--name", NAME, "-q")[0]}
        minicluster("down", NAME, "-q")
        taken["with"], output = _pytest("test_with_minicluster.py")
        taken["fixture"] = _setup(output)
        # The other library looks in fewer places for an engine.
        alone = {"ETCD_IMAGE": image, "TESTCONTAINERS_RYUK_DISABLED": "true", "DOCKER_HOST": engine}
        taken["without"] = _pytest("test_with_testcontainers.py", "-p", "no:minicluster", env=alone)[0]
        if n:  # the first round warms caches
            for what, seconds in taken.items():
                times[what].append(seconds)
    up, fixture = median(times["up"]), median(times["fixture"])
    detail = f"{spread(times['fixture'])} against {spread(times['up'])}"
    report.add("fixture of a 3-node etcd, by the time of `up`", fixture / up, 1.1, "x", detail)
    lines = {name: _lines(f"test_with_{name}.py") for name in ("minicluster", "testcontainers")}
    detail = f"{spread(times['with'])}, {lines['minicluster']} lines, against {spread(times['without'])}, "
    detail += f"{lines['testcontainers']} lines"
    whole = median(times["with"]) / median(times["without"])
    report.add("a whole run of one test, by that of testcontainers alone", whole, 1.0, "x", detail)
    _reuse(report, rounds)
    _share(report)
    _import(report, rounds)


def _reuse(report: Report, rounds: int) -> None:
    """A run of one test that finds the cluster of the run before: left as that left it, and reset, as by default."""
    shared, reset = [], []
    try:
        for n in range(rounds + 1):
            first = _pytest("test_share.py", "-k", "0", "--minicluster-reuse")[1]
            second = _pytest("test_reset.py", "--minicluster-reuse")[1]
            if n:
                shared.append(_call(first))
                reset.append(_call(second))
    finally:
        if names := re.findall(r"^(etcd-\w+)\s.*left$", minicluster("ls")[1], re.MULTILINE):
            minicluster("down", *names, "-q")
    report.add("a reused 3-node etcd, isolated=False", median(shared), 0.3, "s", spread(shared))
    report.add("a reused 3-node etcd, checked and reset", median(reset), 0.3, "s", spread(reset))


def _share(report: Report) -> None:
    output = _pytest("test_share.py", "-n", "4")[1]
    report.add("clusters that 4 workers start", _figure(r"(\d+) created in", output), 1, "", exactly=True)


def _import(report: Report, rounds: int) -> None:
    times: dict[str, list[float]] = {"with": [], "without": []}
    for n in range(3 * rounds):
        for what, options in {"with": (), "without": ("-p", "no:minicluster")}.items():
            seconds = _pytest("test_nothing.py", *options)[0]
            if n:
                times[what].append(seconds)
    added = median(times["with"]) - median(times["without"])
    report.add("what the plugin adds to a run without clusters", added, 0.05, "s", spread(times["with"]))


def _pytest(file: str, *options: str, env: dict[str, str] | None = None) -> tuple[float, str]:
    words = ["-q", "-p", "no:cacheprovider", "--durations=0", "-vv", *options, str(_TESTS / file)]
    return run(sys.executable, "-m", "pytest", *words, env=BYTECODE | (env or {}))


def _setup(output: str) -> float:
    return _duration(output, "setup")


def _call(output: str) -> float:
    return _duration(output, "call")


def _duration(output: str, phase: str) -> float:
    return _figure(rf"^([\d.]+)s {phase} ", output)


def _figure(pattern: str, output: str) -> float:
    """The number that a pattern finds. Raises ``Failed`` where it finds nothing."""
    found = re.search(pattern, output, re.MULTILINE)
    if not found:
        raise Failed(f"nothing like {pattern} is in\n{output}")
    return float(found[1])


def _lines(file: str) -> int:
    return sum(bool(line.strip()) for line in (_TESTS / file).read_text().splitlines())
