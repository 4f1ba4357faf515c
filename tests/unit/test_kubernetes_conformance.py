"""The table of what is proved of Kubernetes lists what the tests say, no more and no less.

After a change that is meant: MINICLUSTER_GOLDEN=write .venv/bin/pytest tests/unit/test_kubernetes_conformance.py
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.engine import test_kubernetes
from tests.engine.kube import PROVED

PAGE = Path(__file__).parents[2] / "docs/kubernetes-conformance.md"
BEGIN, END = "<!-- proved: begin -->\n", "<!-- proved: end -->\n"


def table() -> str:
    """Areas in the order in which the tests first name them."""
    areas = list(dict.fromkeys(area for area, _ in PROVED))
    rows = [f"| {area} | {what.replace('|', chr(92) + '|')} |" for a in areas for area, what in PROVED if area == a]
    return "\n".join(["| area | what is proved |", "| --- | --- |", *rows, ""])


def test_every_test_says_what_it_proves() -> None:
    tests = [name for name in vars(test_kubernetes) if name.startswith("test_")]
    assert len(tests) == len(PROVED) == len(set(PROVED))


def test_the_table_is_what_the_tests_prove() -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    found, _, after = rest.partition(END)
    if os.environ.get("MINICLUSTER_GOLDEN") == "write":
        PAGE.write_text(before + BEGIN + table() + END + after)
        return
    assert found == table()
