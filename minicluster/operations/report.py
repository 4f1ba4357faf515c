"""What an operation reports in the end."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from minicluster.model.results import Change

if TYPE_CHECKING:
    from minicluster.plan.steps import Plan


def report(plan: Plan, seconds: float) -> Change:
    """What carrying out a plan changed."""
    counts = Counter(step.kind for step in plan.steps)
    return Change(plan.cluster, bool(plan), len(plan.steps), seconds, dict(counts))
