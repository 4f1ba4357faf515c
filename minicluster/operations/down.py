"""Removes clusters and everything that was created for them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from minicluster.errors import Interrupted, MiniclusterError, NoEngine
from minicluster.leases import lock, reaper_client
from minicluster.model import labels
from minicluster.model.durations import DEFAULT_TIMEOUT
from minicluster.model.naming import container_name, network_name
from minicluster.model.spec import volumes
from minicluster.operations import client_folder, host_record
from minicluster.operations.observe import look

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine
    from minicluster.model.events import Listener
    from minicluster.model.results import Change
    from minicluster.plan.observed import Observed
    from minicluster.plan.steps import Plan

_ATTEMPTS, _PAUSE = 3, 0.3  # seconds between attempts, for what another process held on to


def down(clusters: Sequence[tuple[Callable[[], Engine], str]], listener: Listener) -> list[Change]:
    """Removes clusters; where one fails the others are removed all the same, and then the first error is raised.

    Each has a function that opens its engine, since hosts of one may not answer.
    """
    done: list[Change] = []
    failed: list[MiniclusterError] = []
    for opened, name in {name: (opened, name) for opened, name in clusters}.values():
        engine: Engine | None = None
        try:
            engine = opened()
            done.append(remove_cluster(engine, name, listener))
        except Interrupted:
            raise
        except MiniclusterError as error:
            if isinstance(error, NoEngine) and engine and not engine.gone:
                raise  # the one that all are on
            failed.append(error)
    if failed:
        failed[0].leftovers = tuple(left for error in failed for left in error.leftovers)
        raise failed[0]
    return done


def remove_cluster(engine: Engine, name: str, listener: Listener) -> Change:
    """Removes a cluster.

    Raises:
        MiniclusterError: another process is changing it, or something could not be removed (see ``leftovers``).
    """
    begun = time.monotonic()
    with lock.changing(name):
        plan = remove_all_reached(engine, name, listener)
    reaper_client.drop(engine, name)
    return plan.change(time.monotonic() - begun)


def remove_all_reached(engine: Engine, name: str, listener: Listener) -> Plan:
    """As :func:`remove_all`, but an error where hosts that do not answer may still have something of the cluster."""
    before = look(engine, name) if engine.hosts else None
    plan = remove_all(engine, name, listener)
    if before is not None and engine.gone:  # one may have stopped answering just now
        if before and not host_record.read(name):  # so that this machine, too, can give up a host that never comes back
            host_record.write(name, [*engine.hosts, *engine.gone])
        raise _left_elsewhere(name, engine, replace(before, gone=dict(engine.gone)))
    return plan


def _left_elsewhere(name: str, engine: Engine, before: Observed) -> MiniclusterError:
    """The error for a cluster of which hosts that do not answer have something, or may have.

    ``before``: what the others had of it; they may have had nothing.
    """
    gone, here = ", ".join(engine.gone), ",".join(engine.hosts)
    what = f"cluster {name} could not be removed from host {gone}"
    fix = (
        f"`minicluster down {name}` removes the rest when the host is back; if it "
        f"never comes back, remove its docker context first (`docker context rm {next(iter(engine.gone))}`)."
    )
    if not before:
        what = f"hosts {here} have nothing of cluster {name}; host {gone} may have something of it"
        fix += f" `minicluster up --name {name} --hosts {here}` makes the cluster without it."
    error = MiniclusterError(what, "\n".join(f"{host} does not answer: {w}" for host, w in engine.gone.items()), fix)
    error.leftovers = _on_hosts_that_are_gone(before)
    return error


def _on_hosts_that_are_gone(observed: Observed) -> tuple[str, ...]:
    """What a cluster has on hosts that do not answer, a phrase each."""
    left = []
    spec = observed.spec
    for host in observed.gone:
        if spec is None or host not in spec.hosts:
            left.append(f"what it had on host {host}, if anything")
            continue
        nodes = [node for node in spec.nodes if node.host == host]
        left += [f"container {container_name(spec.cluster, node.name)} on host {host}" for node in nodes]
        left += [f"volume {volume} on host {host}" for node in nodes for volume in volumes(spec, node).values()]
        left.append(f"copies of the cluster's records on host {host}")
    if observed:
        left.append(f"network {network_name(observed.cluster)}, and the cluster's records on the other hosts")
    return tuple(left)


def forget(engine: Engine, name: str, listener: Listener) -> None:
    """Removes what this machine keeps of a cluster: its client's files, and locks that killed processes left."""
    client_folder.remove(name, engine, listener)
    lock.forget(name)


def remove_all(engine: Engine, name: str, listener: Listener) -> Plan:
    """Removes everything that carries a cluster's name, in several attempts; returns the plan of the first one."""
    from minicluster.executor.executor import Run, execute
    from minicluster.executor.parallel import at_once
    from minicluster.plan import removal

    forget(engine, name, listener)
    first: Plan | None = None
    for attempt in range(1, _ATTEMPTS + 1):
        observed = look(engine, name)
        attached = {n: _foreign(engine, n, name) for n in observed.networks}
        # A host without a docker context is given up: what the others keep for one that comes back is removed.
        plan = removal.remove(replace(observed, attached=attached, gone=dict(engine.gone)))
        first = first or plan
        try:
            execute(plan, Run(engine, None, DEFAULT_TIMEOUT, listener))
            # A process that renewed the lease after our look, and still saw a record, left a volume of its own; one
            # that applied a fault, a helper. Without a record there are no more; it stays where no host answers.
            if engine.gone:
                return first
            if not any(at_once([partial(engine.volumes, name), partial(engine.containers, name)])):
                if engine.hosts:
                    host_record.forget(name)
                return first
        except NoEngine:
            raise
        except MiniclusterError as error:
            if attempt == _ATTEMPTS or isinstance(error, Interrupted):
                error.leftovers = leftovers(engine, name)
                raise
            time.sleep(_PAUSE)
    remains = MiniclusterError(
        f"cluster {name} could not be removed completely",
        "Another process keeps creating volumes or containers for it.",
        "Stop that process, and run the command again.",
    )
    remains.leftovers = leftovers(engine, name)
    raise remains


def _foreign(engine: Engine, network: str, cluster: str) -> tuple[str, ...]:
    """Containers that are connected to a network and are not the cluster's."""
    return tuple(c.name for c in engine.attached(network) if c.labels.get(labels.CLUSTER) != cluster)


def leftovers(engine: Engine, name: str) -> tuple[str, ...]:
    """What still carries a cluster's name, a phrase each; empty where the engine cannot tell."""
    with contextlib.suppress(MiniclusterError):
        return (
            *(f"container {c.name}" for c in engine.containers(name)),
            *(f"network {n.name}" for n in engine.networks(name)),
            *(f"volume {v.name}" for v in engine.volumes(name)),
        )
    return ()
