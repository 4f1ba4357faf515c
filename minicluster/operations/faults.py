"""Faults on purpose: applied by a helper container, listed by its label, and healed by ending it.

The helper (``profiles/_fault``) changes nothing in a node's container: it enters the network name spaces of nodes, adds
packet filters and queues of its own there, and removes them when it is told to end or its time is over. So a fault
ends in time even if this process is killed.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from minicluster.errors import Conflict, EngineError, NodeFailed, UsageError
from minicluster.leases import lock
from minicluster.model import labels
from minicluster.model.events import Listener, ignore
from minicluster.model.fault import ActiveFault, Fault
from minicluster.model.naming import fault_name
from minicluster.model.results import FaultInfo
from minicluster.model.spec import ImageSpec, Spec
from minicluster.operations import images
from minicluster.operations.observe import members
from minicluster.plan import faults as planning
from minicluster.plan.observed import observe, records
from minicluster.profile import folders
from minicluster.profile.image_tag import build_ref

if TYPE_CHECKING:
    from collections.abc import Mapping

    from minicluster.engine.protocol import Container, Engine, Sandbox
    from minicluster.model.membership import Member

_IN_FORCE = "in force"
_FAILED = "failed: "
_FIX = "`minicluster heal` removes what is left of faults."


def helper_image() -> ImageSpec:
    """The image of the helper container."""
    folder = folders.named("_fault", bundled=True)
    return ImageSpec("helper", build_ref("fault", "helper", folder), "build", str(folder))


class Target:
    """A cluster as faults see it: what is asked of the engine once, when it is needed."""

    def __init__(self, engine: Engine, spec: Spec, *, seed: int | None = None) -> None:
        self.engine = engine
        self.spec = spec
        self.pick = random.Random(seed)
        found = engine.containers(spec.cluster)
        self.containers: Mapping[str, Container] = observe(spec.cluster, found, [], []).containers
        self.helpers = [c for c in found if labels.FAULT in c.labels]
        self._members: Mapping[str, Member] | None = None
        self._asked = False

    @property
    def members(self) -> Mapping[str, Member] | None:
        """The members by the cluster's own software; None where none answers."""
        if not self._asked:
            self._members, _why = members(self.engine, self.spec, self.containers)
            self._asked = True
        return self._members

    def nodes(self, words: Sequence[str]) -> list[str]:
        """The nodes that words mean, once each, in order. A selector is resolved now, and never again.

        Raises:
            UsageError: a word means no node.
        """
        known = self.members if planning.needs_members(self.spec, words) else None
        found = [node for word in words for node in planning.select(self.spec, word, known, self.pick)]
        return list(dict.fromkeys(found))

    def active(self) -> list[ActiveFault]:
        """The faults that helpers hold, in the order in which they were applied."""
        found = []
        for helper in self.helpers:
            try:
                fault = ActiveFault.parse(helper.labels[labels.FAULT])
            except ValueError:
                continue
            if helper.state in ("created", "running") and fault.fault.kind != "kill":
                found.append(fault)
        return sorted(found, key=lambda fault: int(fault.id))

    def sandboxes(self) -> dict[str, Sandbox]:
        """Every node whose container runs, as the engine's machine sees it."""
        from minicluster.executor.parallel import at_once

        alive = [(node, c.name) for node, c in self.containers.items() if c.state in ("running", "paused")]
        found = at_once([partial(self.engine.sandbox, name) for _node, name in alive])
        return {node: it for (node, _name), it in zip(alive, found, strict=True) if it}


def isolate(target: Target, who: str, *, one_way: bool = False, clients: bool = False) -> Fault:
    """A partition of a node, or of a minority or majority of the voters, from all others.

    Raises:
        UsageError: there is no such node, or too few voters.
    """
    known = target.members if who in ("minority", "majority") or planning.needs_members(target.spec, [who]) else None
    groups = planning.isolated(target.spec, who, known, target.pick)
    return planning.partition(groups, one_way=one_way, clients=clients)


def refuse(target: Target, fault: Fault) -> None:
    """Refuses what makes no sense now.

    Raises:
        UsageError: it contradicts a fault in force, or a node that it is about does not run.
    """
    planning.refuse_conflict(fault, target.active(), target.spec.cluster)
    for node in dict.fromkeys([*fault.nodes, *fault.to]):
        container = target.containers.get(node)
        if container is None or container.state not in ("running", "paused"):
            state = container.state if container else "missing"
            fix = f"`minicluster start {node} -c {target.spec.cluster}` starts it."
            raise UsageError(f"{fault.text}: {node} is not running", f"Its container is {state}.", fix)


def check(target: Target, fault: Fault) -> tuple[str, bool]:
    """What a fault costs, for people; and whether a quorum is lost by it.

    Raises:
        UsageError: as :func:`refuse` does.
    """
    refuse(target, fault)
    if fault.kind in ("partition", "hang", "kill") or (fault.kind == "loss" and fault.percent >= 100):
        return planning.cost(fault, target.active(), target.members)
    return "", False


def apply(engine: Engine, spec: Spec, fault: Fault, listener: Listener = ignore) -> ActiveFault:
    """Applies a fault, and returns once it is in force on all of its nodes.

    Raises:
        UsageError: as :func:`refuse` does.
        NodeFailed: the kernel or the engine refuses it; nothing of it is left.
    """
    image = helper_image()
    from minicluster.engine.protocol import Cancel

    host = _host(spec, fault)
    if not engine.has_image(image.ref):
        images.provide(engine, "fault", listener)(image, Cancel())
    if host in engine.hosts and not engine.hosts[host].has_image(image.ref):
        engine.hosts[host].load_images(engine.save_image(image.ref))
    with lock.injecting(spec.cluster):
        target = Target(engine, spec)
        refuse(target, fault)
        active, helper = _create(target, fault, image.ref)
        try:
            engine.start_container(helper)
            _wait(engine, helper, fault)
            if not records(engine.volumes(spec.cluster)):  # it would outlive the cluster
                raise NodeFailed(f"cluster {spec.cluster} no longer exists", "Another process removed it.")
        except BaseException:
            from minicluster.executor.signals import shielded

            with shielded():
                _end(engine, helper)
            raise
    if fault.kind == "kill":
        engine.remove_container(helper)
    return active


def _host(spec: Spec, fault: Fault) -> str:
    """The host that a fault's helper runs on; "" where the cluster is on one engine.

    Raises:
        UsageError: it is about nodes on several hosts, which one helper does not reach.
    """
    names = dict.fromkeys([*fault.nodes, *fault.to])
    hosts = dict.fromkeys(node.host for node in spec.nodes if node.name in names and node.host)
    if len(hosts) > 1:
        raise UsageError(
            f"{fault.text}: its nodes are on several hosts: {', '.join(hosts)}",
            "A fault is held by a helper on the nodes' own host.",
            "Apply it to the nodes of one host at a time; a partition is not possible between hosts.",
        )
    return next(iter(hosts), "")


def _on(spec: Spec, host: str) -> dict[str, str]:
    """The labels of a helper on a host; none where the cluster is on one engine."""
    return {labels.HOST: host, labels.HOSTS: ",".join(spec.hosts)} if host else {}


def _create(target: Target, fault: Fault, image: str) -> tuple[ActiveFault, str]:
    """The helper's container, which is not started yet."""
    from minicluster.engine.protocol import Job

    sandboxes, spec = target.sandboxes(), target.spec
    operations = planning.operations(fault, sandboxes)
    touched = fault.to if fault.kind == "loss" and fault.to else fault.nodes
    processes = {name: sandboxes[name].pid for name in touched if name in sandboxes}
    taken = [c.name.rpartition(".")[2] for c in target.helpers]  # also of those whose labels nobody can read
    number = max((int(word) for word in taken if word.isdecimal()), default=0)
    while True:
        number += 1
        active = ActiveFault(str(number), fault, time.time(), processes)
        job = Job(
            fault_name(spec.cluster, active.id),
            image,
            ("fault", f"{fault.seconds:g}", *operations),
            {"FAULT": active.id},
            {},
            (),
            {
                labels.CLUSTER: spec.cluster,
                labels.PROFILE: spec.profile,
                labels.FAULT: active.dump(),
                **_on(spec, _host(spec, fault)),
            },
            on_containers=True,
        )
        try:
            target.engine.create_job(job)
            return active, job.name
        except Conflict:  # another user's process has just applied one
            continue


def _wait(engine: Engine, helper: str, fault: Fault) -> None:
    for raw in engine.logs(helper, follow=True):
        line = raw.decode(errors="replace").strip()
        if line == _IN_FORCE:
            return
        if line.startswith(_FAILED):
            raise NodeFailed(f"cannot apply: {fault.text}", *_reason(line.removeprefix(_FAILED), fault))
    raise NodeFailed(f"cannot apply: {fault.text}", "Its helper container ended.", _FIX)


def _reason(said: str, fault: Fault) -> tuple[str, str]:
    """Why a fault could not be applied, and what to do."""
    if "qdisc kind is unknown" in said or "netem" in said:
        why = f"The kernel of the engine's machine has no network emulator (module sch_netem): {said.strip()}"
        return why, "Load it there (`modprobe sch_netem`), or use a fault that needs none: partition, loss, rate, hang."
    if "Operation not permitted" in said:
        return f"{said.strip()}", "The engine grants no NET_ADMIN or SYS_ADMIN: faults need an engine that does."
    if said.startswith("no process"):
        return said.strip()[0].upper() + said.strip()[1:] + ".", f"Name one of them: fault {fault.kind} NODE PROCESS."
    return said.strip(), ""


def listing(engine: Engine, spec: Spec) -> tuple[FaultInfo, ...]:
    """The faults of a cluster, each with the nodes in which it is no longer in force."""
    target = Target(engine, spec)
    active = target.active()
    sandboxes = target.sandboxes() if active else {}
    found = []
    for one in active:
        lost = tuple(planning.gone(one, sandboxes))
        until = one.since + one.fault.seconds if one.fault.seconds else None
        found.append(FaultInfo(one.id, one.fault.kind, one.fault.text, one.fault.nodes, one.since, until, lost))
    return tuple(found)


def heal(engine: Engine, spec: Spec, ids: Sequence[str] = ()) -> tuple[str, ...]:
    """Ends faults, by default all, and returns what they were.

    Without ids, it also removes from the nodes what a helper left that was killed before it could undo its fault.

    Raises:
        UsageError: there is no such fault.
    """
    target = Target(engine, spec)
    active = {fault.id: fault for fault in target.active()}
    for id_ in ids:
        if id_ not in active:
            known = ", ".join(active) or "none"
            fix = f"`minicluster fault list -c {spec.cluster}`."
            raise UsageError(f"cluster {spec.cluster} has no fault {id_!r}", f"In force: {known}.", fix)
    helpers = [fault_name(spec.cluster, id_) for id_ in ids] or [helper.name for helper in target.helpers]
    from minicluster.executor.parallel import at_once

    ending = [partial(_end, engine, name) for name in helpers]
    at_once([*ending, *([] if ids else [partial(_sweep, target)])])
    return tuple(fault.fault.text for id_, fault in active.items() if not ids or id_ in ids)


def heal_if_any(engine: Engine, spec: Spec) -> tuple[str, ...]:
    """Ends all faults, without a call that costs where there are none; returns what they were."""
    if any(labels.FAULT in container.labels for container in engine.containers(spec.cluster)):
        return heal(engine, spec)
    return ()


def _sweep(target: Target) -> None:
    found = target.sandboxes()
    hosts = dict.fromkeys(c.host for c in target.containers.values())
    for host in hosts:
        its = {node: sandbox for node, sandbox in found.items() if target.containers[node].host == host}
        _sweep_on(target, host, its)


def _sweep_on(target: Target, host: str, sandboxes: Mapping[str, Sandbox]) -> None:
    from minicluster.engine.protocol import Job

    engine, spec, image = target.engine, target.spec, helper_image()
    operations = planning.sweep(dict(sandboxes))
    if not operations or not engine.hosts.get(host, engine).has_image(image.ref):  # there never was a fault
        return
    name = fault_name(spec.cluster, f"heal-{os.urandom(3).hex()}")  # several may heal at the same time
    about = {labels.CLUSTER: spec.cluster, labels.PROFILE: spec.profile, labels.FAULT: "", **_on(spec, host)}
    engine.create_job(Job(name, image.ref, ("fault", "0", *operations), {}, {}, (), about, on_containers=True))
    try:
        with suppress(EngineError, NodeFailed):  # another heal ends it, and does the same; or a node has just ended
            engine.start_container(name)
            _wait(engine, name, replace(planning.simple("dns", ()), text="removal of all faults"))
    finally:
        engine.remove_container(name)


def end(engine: Engine, spec: Spec, id_: str) -> None:
    """Ends one fault; no error where it has ended."""
    _end(engine, fault_name(spec.cluster, id_))


def _end(engine: Engine, helper: str) -> None:
    """Lets a helper undo its fault, and removes it."""
    with suppress(EngineError):  # it ended by itself
        engine.stop_container(helper)
    engine.remove_container(helper)
