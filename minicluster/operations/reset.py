"""Resets a running cluster: removes what users put into it by its profile's hooks; nodes and members stay."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from minicluster.errors import NodeFailed, NotReady
from minicluster.leases import lock
from minicluster.operations import heal

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine
    from minicluster.model.events import Listener
    from minicluster.model.results import Change
    from minicluster.model.spec import Spec
    from minicluster.plan.steps import Plan

_AGAIN = "A reset can be repeated at any time."


def plan_reset(engine: Engine, spec: Spec) -> Plan:
    """What a reset would do.

    Raises:
        UsageError: the profile has no reset hooks.
        NodeFailed: a node that a hook needs does not run.
    """
    from minicluster.plan.observed import observe
    from minicluster.plan.reset import reset as plan

    observed = observe(spec.cluster, engine.containers(spec.cluster), [], engine.volumes(spec.cluster))
    return plan(observed.spec or spec, observed)  # another process may have changed the cluster since it was opened


def reset(engine: Engine, spec: Spec, *, timeout: float, listener: Listener) -> Change:
    """Runs a profile's reset hooks, one after the other.

    Raises:
        UsageError: the profile has none.
        NodeFailed: a command failed on every node that it could have run on, or a node that it needs does not run.
        NotReady: it took longer than ``timeout`` seconds.
    """
    from minicluster.executor.executor import Run, execute

    begun = time.monotonic()
    with lock.changing(spec.cluster):
        heal.heal_if_any(engine, spec)
        plan = plan_reset(engine, spec)
        try:
            execute(plan, Run(engine, None, timeout, listener, begun=begun))
        except NotReady as error:
            raise NotReady(
                f"cluster {spec.cluster} was not reset within {timeout:g} s",
                f"{error.what}. {error.why}",
                f"Give it longer with --timeout, or look at `minicluster status {spec.cluster}`. {_AGAIN}",
            ) from error
        except NodeFailed as error:
            error.fix = f"Fix what it reports, or look at `minicluster status {spec.cluster}`. {_AGAIN}"
            raise
    return plan.change(time.monotonic() - begun)
