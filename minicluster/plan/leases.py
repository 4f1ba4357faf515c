"""Puts a cluster's lease on a plan: everything that is created for a temporary cluster carries its lease."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from minicluster.model import labels
from minicluster.model.lease import Lease
from minicluster.plan.observed import Observed
from minicluster.plan.steps import (
    Action,
    CreateContainer,
    CreateNetwork,
    CreateVolume,
    Plan,
    Record,
    RemoveVolume,
    Step,
)


def with_lease(plan: Plan, observed: Observed, asked: Lease | None, profile: str) -> Plan:
    """The plan with the lease in the labels of everything that it creates.

    Args:
        asked: the lease that the cluster gets; None: the one that it has, if any.
        profile: name of the cluster's profile.
    """
    lease = asked or observed.lease
    if lease is None or (lease == Lease() and observed.lease is None):
        return plan
    text = lease.encode()
    steps = tuple(replace(step, action=_labelled(step.action, text)) for step in plan.steps)
    if asked and observed and asked != observed.lease:
        # First, so that no process removes the cluster in between because its old lease has ended.
        made = Step(
            "lease", "", generation(plan.cluster, profile, asked), "store the new lease: labels cannot be changed"
        )
        former = [
            Step(f"remove volume {name}", "", RemoveVolume(name), "the new lease replaces it", (made.id,))
            for name in observed.generations
        ]
        steps = (made, *former, *(replace(step, needs=step.needs or (made.id,)) for step in steps))
        plan = replace(plan, headline=plan.headline if plan else f"renew the lease of cluster {plan.cluster}")
    return replace(plan, steps=steps)


def generation(cluster: str, profile: str, lease: Lease, number: int | None = None) -> CreateVolume:
    """The volume that gives an existing cluster another lease.

    Args:
        number: the generation. By default greater than any that another process counts up to at the same time.
    """
    of = str(time.time_ns() if number is None else number)
    about = {labels.CLUSTER: cluster, labels.PROFILE: profile, labels.LEASE: lease.encode(), labels.GENERATION: of}
    return CreateVolume(f"{cluster}-lease-{of}", about)


def _labelled(action: Action, lease: str) -> Action:
    match action:
        case Record() | CreateNetwork() | CreateVolume():
            return replace(action, labels=_with(action.labels, lease))
        case CreateContainer(config):
            return CreateContainer(replace(config, labels=_with(config.labels, lease)))
        case _:
            return action


def _with(about: Any, lease: str) -> dict[str, str]:
    return {**about, labels.LEASE: lease}
