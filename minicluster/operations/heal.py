"""Ends faults: their helpers undo them, and what helpers left that were killed is removed from the nodes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from minicluster.errors import MiniclusterError, UsageError
from minicluster.executor import helper
from minicluster.model import labels
from minicluster.model.naming import fault_name
from minicluster.model.spec import Spec, disks
from minicluster.operations.faults import Target, end_helper, end_helpers, held_by, number, on_host
from minicluster.plan import faults as planning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from minicluster.engine.protocol import Engine, Sandbox
    from minicluster.model.fault import ActiveFault


def heal(engine: Engine, spec: Spec, ids: Sequence[str] = ()) -> tuple[str, ...]:
    """Ends faults, by default all, and returns what they were.

    Without ids, it also removes from the nodes what a helper left that was killed before it could undo its fault.

    Raises:
        UsageError: there is no such fault.
        MiniclusterError: hosts that do not answer may still hold some of it (see ``leftovers``); the others do not.
    """
    target = Target(engine, spec)
    active = target.active()
    for id_ in ids:
        if id_ not in [fault.id for fault in active]:
            known = ", ".join(fault.id for fault in active) or "none"
            fix = f"`minicluster fault list -c {spec.cluster}`."
            raise UsageError(f"cluster {spec.cluster} has no fault {id_!r}", f"In force: {known}.", fix)
    if ids:
        end_helpers(engine, [holder.name for holder in target.helpers if number(holder) in ids])
    else:
        _clear(target, active)
    ended = [fault for fault in active if not ids or fault.id in ids]
    _refuse_silence(engine, spec, ended, ids)
    return tuple(fault.fault.text for fault in ended)


def heal_if_any(engine: Engine, spec: Spec) -> tuple[str, ...]:
    """Ends all faults, without a call that costs where there are none; returns what they were."""
    if any(labels.FAULT in container.labels for container in engine.containers(spec.cluster)):
        return heal(engine, spec)
    return ()


def end(engine: Engine, spec: Spec, fault: ActiveFault) -> None:
    """Lets a fault's helpers undo it and end; no error where it has ended.

    Raises:
        MiniclusterError: hosts that do not answer may still hold some of it (see ``leftovers``); the others do not.
    """
    found = [(holder.id, held_by(holder)) for holder in Target(engine, spec).helpers]
    # By ID: another fault may get the name as soon as this one has ended.
    end_helpers(engine, [id_ for id_, held in found if held and held.identity == fault.identity])
    _refuse_silence(engine, spec, [fault], [fault.id])


def _clear(target: Target, active: Sequence[ActiveFault]) -> None:
    """Ends all faults, and removes what is left of others."""
    from minicluster.executor.parallel import at_once

    engine, spec = target.engine, target.spec
    sandboxes = target.sandboxes()
    # A helper that runs takes less time than one that is started for this.
    knowing = [] if engine.hosts else [one.id for one in active if planning.knows(one, sandboxes)]
    sweeping = fault_name(spec.cluster, knowing[0]) if knowing else ""
    ending = [partial(end_helper, engine, holder.name) for holder in target.helpers if holder.name != sweeping]
    sweep = partial(end_helper, engine, sweeping, helper.ALL) if knowing else partial(_sweep, target, sandboxes)
    at_once([*ending, sweep, partial(_clear_disks, target)])


def _sweep(target: Target, found: Mapping[str, Sandbox]) -> None:
    """Removes what killed helpers left in nodes, by a helper for each host."""
    engine, spec = target.engine, target.spec
    for host in dict.fromkeys(container.host for container in target.containers.values()):
        its = {node: sandbox for node, sandbox in found.items() if target.containers[node].host == host}
        if its and engine.hosts.get(host, engine).has_image(helper.image().ref):  # else there never was a fault
            about = {labels.CLUSTER: spec.cluster, labels.PROFILE: spec.profile, **on_host(spec, host)}
            # What it cannot do another heal has done, which ended it, or a node has just ended.
            beside = target.containers[next(iter(its))].name
            helper.work(engine, about, ["fault", "0", *planning.sweep(its)], beside=beside)


def _clear_disks(target: Target) -> None:
    """Removes what killed helpers left in nodes' file systems."""
    engine, spec = target.engine, target.spec
    volumes = [volume for node in spec.nodes for volume in disks(spec, node).values()]
    if volumes and engine.has_image(helper.image().ref):
        about = {labels.CLUSTER: spec.cluster, labels.PROFILE: spec.profile}
        helper.work(engine, about, ["disk", "clear", *volumes], on_disks=True)


def _refuse_silence(engine: Engine, spec: Spec, ended: Sequence[ActiveFault], ids: Sequence[str]) -> None:
    """Raises an error where nodes of faults that were to end are on hosts that do not answer.

    Without ids all nodes count: nobody knows what else is in force there.
    """
    away = {node.name: node.host for node in spec.nodes if node.host in engine.gone}
    now = time.time()
    held = [one.fault for one in ended if not one.fault.seconds or one.since + one.fault.seconds > now]
    left = [(node, fault.text) for fault in held for node in planning.changed(fault) if node in away]
    if not ids:
        left += [(node, "any fault") for node in away if node not in dict(left)]
    if not left:
        return
    hosts = list(dict.fromkeys(away[node] for node, _text in left))
    partly = [text for _node, text in left]
    why = [f"{host} does not answer: {engine.gone[host]}" for host in hosts]
    why += [f"Healed: {one.fault.text}" for one in ended if one.fault.text not in partly]
    error = MiniclusterError(
        f"cluster {spec.cluster} could not be healed on host {', '.join(hosts)}",
        "\n".join(why),
        f"`minicluster {' '.join(['heal', *ids])} -c {spec.cluster}` ends the rest when the host is back.",
    )
    error.leftovers = tuple(f"{text} in {node} on host {away[node]}" for node, text in left)
    raise error
