"""The table in docs/conformance.md lists exactly what the conformance tests declare.

After an intended change: MINICLUSTER_GOLDEN=write .venv/bin/pytest tests/unit/test_kubernetes_conformance.py
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.engine.kubernetes import (
    test_access,
    test_api,
    test_balancer,
    test_cluster,
    test_mounts,
    test_network,
    test_pods,
    test_policy,
    test_volumes,
    test_workloads,
)
from tests.engine.kubernetes.kube import PROVED

AREAS = (
    "Cluster", "Pods", "Network", "Services", "Load balancers", "Names", "Workloads", "Storage", "Privileges",
    "Scheduling", "Policy", "Access", "API", "minicluster",
)  # fmt: skip
MODULES = (
    test_cluster,
    test_pods,
    test_network,
    test_balancer,
    test_policy,
    test_volumes,
    test_workloads,
    test_access,
    test_api,
    test_mounts,
)

PAGE = Path(__file__).parents[2] / "docs/conformance.md"
BEGIN, END = "<!-- proved: begin -->\n", "<!-- proved: end -->\n"


def table() -> str:
    areas = sorted({area for area, _ in PROVED}, key=AREAS.index)
    rows = [f"| {area} | {what.replace('|', chr(92) + '|')} |" for a in areas for area, what in PROVED if area == a]
    return "\n".join(["| area | what is proved |", "| --- | --- |", *rows, ""])


def test_every_test_says_what_it_proves() -> None:
    tests = [name for module in MODULES for name in vars(module) if name.startswith("test_")]
    assert len(tests) == len(PROVED) == len(set(PROVED))


def test_the_table_is_what_the_tests_prove() -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    found, _, after = rest.partition(END)
    if os.environ.get("MINICLUSTER_GOLDEN") == "write":
        PAGE.write_text(before + BEGIN + table() + END + after)
        return
    assert found == table()
