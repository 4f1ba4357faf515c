"""Verbs on nodes of a running cluster: stop, start, restart, pause, unpause and kill."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from minicluster.errors import UsageError
from minicluster.leases import lock
from minicluster.model.durations import DEFAULT_TIMEOUT
from minicluster.model.events import Event, Listener
from minicluster.operations import disks
from minicluster.operations.nodes import Nodes, node_names
from minicluster.operations.observe import look, members, settled_members

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine
    from minicluster.model.results import Change
    from minicluster.model.spec import Spec


def operate(
    engine: Engine,
    spec: Spec,
    verb: str,
    nodes: Nodes,
    *,
    rolling: bool = False,
    force: bool = False,
    timeout: float = DEFAULT_TIMEOUT,
    listener: Listener,
) -> Change:
    """Carries out a verb of :mod:`minicluster.plan.lifecycle`. Nothing is rolled back where it fails.

    Args:
        nodes: names or roles; empty for all nodes.
        rolling, force: of restart: one node at a time; also where that loses the quorum.
        timeout: seconds that nodes have to get ready.
    """
    from minicluster.executor.executor import Run, execute
    from minicluster.plan import lifecycle
    from minicluster.plan.rolling import rolling_restart

    if verb == "kill" and not nodes:
        raise UsageError("kill needs a node", "", "Name a node or a role.")
    names = node_names(spec, nodes) if nodes else []
    begun = time.monotonic()
    with lock.changing(spec.cluster):
        observed = look(engine, spec.cluster)
        spec = observed.spec or spec  # another process may have changed the cluster since it was opened
        for name in names:
            if spec.node(name) is None:
                what = f"cluster {spec.cluster} no longer has a node {name!r}"
                fix = f"`minicluster status {spec.cluster}` lists its nodes."
                raise UsageError(what, "Another process removed it.", fix)
        if rolling or lifecycle.depends_on_voters(verb, spec, observed, names):
            ask = settled_members if rolling else members
            observed = replace(observed, members=ask(engine, spec, observed.containers)[0])
        if rolling:
            plan = rolling_restart(spec, observed, names, force=force)
        else:
            plan = getattr(lifecycle, verb)(spec, observed, names)
        if verb in ("start", "restart"):
            disks.prepare(engine, spec, listener, observed)
        if plan:
            execute(plan, Run(engine, None, timeout, listener))
        note = lifecycle.aftermath(verb, spec, observed, plan)
        if note:
            listener(Event("note", text=note))
    return plan.change(time.monotonic() - begun)
