"""Puts a cluster's lease and its project on a plan: everything that is created for the cluster carries them."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from minicluster.model import labels
from minicluster.model.lease import Lease
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

if TYPE_CHECKING:
    from minicluster.model.spec import Spec
    from minicluster.plan.observed import Observed


def with_lease(plan: Plan, observed: Observed, asked: Lease | None, profile: str) -> Plan:
    """The plan with the lease in the labels of everything that it creates.

    Args:
        asked: the lease that the cluster gets; None: the one that it has, if any.
        profile: name of the cluster's profile.
    """
    lease = asked or observed.lease
    if lease is None or (lease == Lease() and observed.lease is None):
        return plan
    steps = _labelled(plan, labels.LEASE, lease.encode()).steps
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


def with_hosts(plan: Plan, spec: Spec) -> Plan:
    """The plan with the names of a cluster's hosts in the labels of everything that it creates, if it has several."""
    return _labelled(plan, labels.HOSTS, ",".join(spec.hosts)) if spec.hosts else plan


def with_project(plan: Plan, project: str) -> Plan:
    """The plan with the path of a project file in the labels of everything that it creates; "" is none."""
    return _labelled(plan, labels.PROJECT, project) if project else plan


def _labelled(plan: Plan, key: str, value: str) -> Plan:
    def one(action: Action) -> Action:
        match action:
            case Record() | CreateNetwork() | CreateVolume():
                return replace(action, labels={**action.labels, key: value})
            case CreateContainer(config):
                return CreateContainer(replace(config, labels={**config.labels, key: value}))
            case _:
                return action

    return replace(plan, steps=tuple(replace(step, action=one(step.action)) for step in plan.steps))
