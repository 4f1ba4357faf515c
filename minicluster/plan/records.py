"""The records of a change: the new spec is saved first, and what was there before is removed last."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from minicluster.model import labels
from minicluster.model.naming import count
from minicluster.plan.builder import Steps
from minicluster.plan.steps import Plan, Record, RemoveVolume, Step

if TYPE_CHECKING:
    from minicluster.model.spec import Spec
    from minicluster.plan.observed import Observed


def recorded(steps: Steps, spec: Spec, observed: Observed) -> Plan:
    """Puts the records around the steps: the new spec is saved before all of them, the old one removed after."""
    unchanged = observed.spec == spec
    if unchanged and observed.converged and not steps:
        return Plan(spec.cluster, f"cluster {spec.cluster} is up to date", ())
    saved = Steps()
    outdated = {record.revision: record.volume for record in observed.records}

    def record(revision: int, saved_spec: Spec | None, cause: str, needs: list[str]) -> list[str]:
        volume = f"{spec.cluster}-spec-{revision}"
        outdated[revision] = volume
        about = {labels.CLUSTER: spec.cluster, labels.PROFILE: spec.profile}
        return [saved.add(f"record {revision}", "", Record(volume, revision, about, saved_spec), cause, needs)]

    written: list[str] = []
    if not observed.records:
        written = record(0, None, "save the empty starting state for rollback", [])
    current = max(outdated)
    if not unchanged:
        current += 1
        written = record(current, spec, "save the new spec, to resume after an interruption", written)
    everything = (*saved.all(), *(replace(step, needs=step.needs or tuple(written)) for step in steps.all()))
    ids = tuple(step.id for step in everything)
    removed = tuple(
        Step(f"remove record {revision}", "", RemoveVolume(volume), "the change is complete", ids)
        for revision, volume in sorted(outdated.items())
        if revision != current
    )
    verb = "change" if observed else "create"
    counts = ", ".join(_counted(len(spec.of_role(role)), role) for role in spec.roles)
    return Plan(spec.cluster, f"{verb} cluster {spec.cluster} ({spec.profile}): {counts}", everything + removed)


def _counted(number: int, role: str) -> str:
    """A number of nodes of a role; the name of a role may be an abbreviation, such as kv, which has no plural."""
    return count(number, role) if len(role) > 3 else f"{number} {role}"
