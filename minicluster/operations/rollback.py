"""What becomes of an ``up`` that failed: undone, or left as it is; and the report to the user."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from minicluster.errors import Conflict, MiniclusterError, NoEngine
from minicluster.model import labels
from minicluster.model.durations import DEFAULT_TIMEOUT
from minicluster.model.events import Event, Listener, ignore
from minicluster.model.naming import container_name, network_name
from minicluster.operations.down import leftovers, remove_all_reached
from minicluster.operations.observe import look, look_within

if TYPE_CHECKING:
    from minicluster import pki
    from minicluster.engine.protocol import Engine
    from minicluster.model.spec import Spec
    from minicluster.plan.observed import Observed


def roll_back(
    engine: Engine,
    spec: Spec,
    observed: Observed,
    authority: pki.Authority,
    error: BaseException,
    *,
    keep: bool,
    listener: Listener,
) -> None:
    """Undoes a failed ``up``, unless ``keep``: back to the spec that was last applied, or to nothing.

    The state afterwards is added to the error; what cannot be undone is no error of its own.

    Args:
        spec: what was to be.
        observed: what there was before.
        authority: issues the certificates of nodes that are recreated.
        error: why the ``up`` failed.
    """
    name, before = spec.cluster, observed.last_applied
    if isinstance(error, Conflict):
        _explain(error, spec, engine)
    if keep:
        _add(error, listener, fix=f"The failed cluster is kept; `minicluster down {name}` removes it.")
    elif observed.converged and before == spec:
        fix = f"The cluster is left as it is: `minicluster status {name}` shows its state."
        _add(error, listener, fix=fix)
    else:
        _undo(engine, spec, before, authority, error, listener)


def _add(
    error: BaseException, listener: Listener, *, why: str = "", fix: str = "", leftovers: Sequence[str] = ()
) -> None:
    """Adds to the report to the user: to an error of ours itself, next to any other as notes."""
    if isinstance(error, MiniclusterError):
        error.why = f"{error.why}\n{why}".strip()
        error.fix = f"{error.fix}\n{fix}".strip()
        error.leftovers = (*error.leftovers, *leftovers)
        return
    for text in (why, *(f"could not be removed: {left}" for left in leftovers), fix):
        if text:
            listener(Event("note", text=text))


def _explain(error: Conflict, spec: Spec, engine: Engine) -> None:
    """Says what has a name that the engine refused."""
    with contextlib.suppress(MiniclusterError):
        name = network_name(spec.cluster)
        if not error.fix and not any(n.name == name for n in engine.networks(spec.cluster)):
            error.what = f"the name {name} is in use"
            error.why = "A network that minicluster did not create for this cluster has it."
            error.fix = "Remove that network, or give the cluster another name with --name."
        for node in spec.nodes:
            other = engine.container(container_name(spec.cluster, node.name))
            if other and other.labels.get(labels.CLUSTER) != spec.cluster:
                error.what = f"the name {other.name} is in use"
                error.why = "A container that minicluster did not create for this cluster has it."
                error.fix = "Remove or rename that container, or give the cluster another name with --name."


def _undo(
    engine: Engine,
    failed: Spec,
    before: Spec | None,
    authority: pki.Authority,
    error: BaseException,
    listener: Listener,
) -> None:
    from minicluster.executor.signals import shielded

    name = failed.cluster
    with shielded():
        what = error.what if isinstance(error, MiniclusterError) else f"{type(error).__name__}: {error}"
        listener(Event("rollback", text=f"rolling back: {what}"))
        try:
            engine = _answering(engine, listener)
            if before is None:
                remove_all_reached(engine, name, ignore)
                _add(error, listener, why="Everything that was created has been removed.")
            else:
                _restore(engine, failed, before, authority)
                _add(error, listener, why="The cluster is as it was before.")
        except MiniclusterError as second:
            if before is None:
                left = () if isinstance(second, NoEngine) else second.leftovers or leftovers(engine, name)
                unknown = (f"unknown, since the rollback failed: {second.what}",)
                fix = f"`minicluster down {name}` removes what is left."
                _add(error, listener, fix=fix, leftovers=left or unknown)
            else:
                why = f"The rollback failed as well: {second.what}\n{second.why}"
                fix = f"The change is incomplete: `minicluster up --name {name}` completes it."
                _add(error, listener, why=why, fix=fix)


def _answering(engine: Engine, listener: Listener) -> Engine:
    """The same engine; the private one is restarted where it died, so that it can be cleaned up."""
    try:
        engine.containers("none")
        return engine
    except NoEngine:
        from minicluster.engine import discover
        from minicluster.engine.private import daemon

        if engine.endpoint != daemon.status().url:
            raise
        daemon.start(listener)
        return discover.open_private()


def _restore(engine: Engine, failed: Spec, before: Spec, authority: pki.Authority) -> None:
    from minicluster.executor.executor import Run, execute
    from minicluster.operations import images, registries
    from minicluster.plan import reconcile
    from minicluster.plan.leases import with_hosts, with_lease, with_project

    # Only a spec that has the new nodes as well lets every profile list those that are members by now.
    observed, _ = look_within(engine, look(engine, before.cluster).placed(before), failed, before, authority)
    values = registries.credentials(before, strict=False)
    run = Run(engine, authority, DEFAULT_TIMEOUT, ignore, images.provide(engine, before.profile, ignore), values=values)
    plan = with_hosts(with_lease(reconcile.reconcile(before, observed), observed, None, before.profile), before)
    execute(with_project(plan, observed.project), run)
