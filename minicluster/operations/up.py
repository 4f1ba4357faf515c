"""How a cluster is changed: look, resolve, plan, act, and undo what went wrong."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from minicluster.errors import (
    Conflict,
    ImageError,
    InsufficientMemory,
    Interrupted,
    MiniclusterError,
    NoEngine,
    UsageError,
)
from minicluster.leases import lock
from minicluster.model import labels
from minicluster.model.events import Event, Listener, ignore
from minicluster.model.naming import container_name, network_name
from minicluster.model.results import Change
from minicluster.model.spec import LOCALHOST, Overrides, Spec
from minicluster.operations.status import members, members_after_election
from minicluster.plan.observed import generation_of, lease_of, made_by_another

if TYPE_CHECKING:
    from minicluster import pki
    from minicluster.engine.protocol import Container, Engine, Volume
    from minicluster.host.processes import Process
    from minicluster.model.lease import Lease
    from minicluster.plan.observed import Observed
    from minicluster.plan.steps import Plan
    from minicluster.profile.load import Loaded

DEFAULT_PROFILE = "swarm"
DEFAULT_TIMEOUT = 120.0  #: seconds that nodes have to get ready


class UpPlan:
    """What an ``up`` found, wants and will do."""

    def __init__(self, spec: Spec, observed: Observed, authority: pki.Authority, plan: Plan) -> None:
        self.spec = spec
        self.observed = observed
        self.authority = authority
        self.plan = plan


def _merge(before: Overrides, asked: Overrides) -> Overrides:
    """What was asked for once stays asked for, until something else is."""
    return Overrides(
        {**before.size, **asked.size},
        {**before.set, **asked.set},
        {**before.image, **asked.image},
        {**before.port, **asked.port},
        asked.restart or before.restart,
        before.networks if asked.networks is None else asked.networks,
    )


def plan_up(
    engine: Engine | None,
    profile: str | None,
    name: str,
    asked: Overrides,
    refused: Collection[int] = (),
    *,
    mode: str | None = None,
    attempt: int = 1,
    force: bool = False,
    lease: Lease | None = None,
) -> UpPlan:
    """What an ``up`` is going to do.

    Args:
        mode: the address mode as the user gave it; see :mod:`minicluster.operations.connect`.
        lease: how long it shall be there; None: as it is now, or for good.
        refused: ports that the engine could not have.
        attempt: counts the tries at a subnet that others took meanwhile.
        force: let a quorum go.
    """
    from minicluster import pki
    from minicluster.operations import client
    from minicluster.operations import connect as addresses
    from minicluster.plan import reconcile
    from minicluster.plan.leases import with_lease
    from minicluster.plan.observed import Observed
    from minicluster.profile import addressing, spec_cache

    observed = _look(engine, name) if engine else Observed(name)
    before = observed.spec
    if foreign := made_by_another(name, observed.records):
        raise foreign
    if before is None and (observed.containers or (observed.records and observed.records[-1].revision)):
        raise MiniclusterError(
            f"the record of cluster {name} is gone or cannot be read",
            "What it shall be stands in the label of a volume; older engines' `docker volume prune` removes that.",
            f"`minicluster down {name}` removes what is left.",
        )
    source = profile or (before.source if before else DEFAULT_PROFILE)
    overrides = _merge(before.overrides, asked) if before else asked
    if engine:
        _check_networks(engine, overrides.networks or (), name)
    if lease and lease.owner and observed and (observed.lease is None or observed.lease.owner != lease.owner):
        its = f"It belongs to {observed.lease}." if observed.lease else "It has no lease: somebody made it to stay."
        raise UsageError(
            f"cluster {name} is there already, and is not to end with {lease.owner}",
            its,
            f"Give this one another name, or take that one down: `minicluster down {name}`.",
        )
    taken = engine.subnets() if engine and not before else []
    subnet = before.subnet if before else addressing.choose_subnet(taken, f"{name}/{attempt}" if attempt > 1 else "")
    bind_address = addresses.bind_address(
        mode, engine, addressing.gateway(subnet), before.bind_address if before else ""
    )

    def port_is_free(port: int) -> bool:
        return port not in refused and _port_is_free(port, bind_address)

    if before is None:
        spec = spec_cache.resolve(source, name, overrides, subnet, bind_address, port_is_free)
    else:
        spec = _resolve_again(
            before, source, overrides, bind_address, port_is_free, formed=observed.last_applied is not None
        )
    if engine:
        _check_platforms(engine, spec)
    authority = (client.read_authority(engine, before) if engine and before else None) or pki.Authority()
    if engine:
        observed = _look_within(engine, observed, before, spec, authority)
        observed = replace(observed, own_container=addresses.own_container(mode, engine))
    plan = with_lease(reconcile.create(spec, observed, force=force), observed, lease, spec.profile)
    return UpPlan(spec, observed, authority, plan)


def _resolve_again(
    before: Spec,
    source: str,
    overrides: Overrides,
    bind_address: str,
    port_is_free: Callable[[int], bool],
    *,
    formed: bool,
) -> Spec:
    """The spec that a cluster which is there is to have next; once formed it has agreed on some things for good."""
    from minicluster.profile import catalog
    from minicluster.profile.resolve import resolve

    loaded = catalog.load(source, overrides.set)
    if before.profile != loaded.profile.name:
        raise UsageError(
            f"the name {before.cluster} is in use",
            f"Cluster {before.cluster} is of profile {before.profile}, not {loaded.profile.name}.",
            "Give this one another with --name.",
        )
    if formed:
        _check_fixed(loaded, before, source)
    spec = resolve(
        loaded,
        cluster=before.cluster,
        overrides=overrides,
        subnet=before.subnet,
        previous=before,
        port_is_free=port_is_free,
        bind_address=bind_address,
        source=loaded.source,
    )
    if formed:
        _check_counts(loaded, before, spec)
    return spec


def _check_networks(engine: Engine, names: Sequence[str], cluster: str) -> None:
    """Refuses networks that the nodes cannot join, before anything is made."""
    for name in names:
        if name in ("bridge", "host", "none", network_name(cluster)):
            why = "It is the cluster's own." if name == network_name(cluster) else "Containers have no names there."
            raise UsageError(f"--network {name}: nodes cannot join it", why, "Make one: `docker network create NAME`.")
        if engine.network(name) is None:
            raise UsageError(
                f"--network {name}: the engine has no network of that name",
                "Nodes join networks that are there.",
                f"`docker network create {name}` makes it; `up --network none` takes nodes out of all that were named.",
            )


def _namesakes(engine: Engine, spec: Spec) -> str:
    """What a user should know who reaches nodes by name on a network where another cluster's have the same; or ""."""
    for network in spec.networks:
        for other in engine.containers():
            node, cluster = other.labels.get(labels.NODE, ""), other.labels[labels.CLUSTER]
            if cluster != spec.cluster and network in other.networks and spec.node(node):
                its = f"{node} on network {network} is also a node of cluster {cluster}"
                return f"{its}: there, say {container_name(spec.cluster, node)}."
    return ""


def _check_fixed(loaded: Loaded, before: Spec, source: str) -> None:
    """Refuses another value of a setting that the nodes have agreed on for good."""
    from minicluster.profile import catalog

    if not loaded.profile.immutable:
        return
    former = catalog.load(source, before.overrides.set).profile.settings
    for name in loaded.profile.immutable:
        value, was = loaded.profile.settings[name], former.get(name)
        if value != was:
            new, old = (str(v).lower() if isinstance(v, bool) else v for v in (value, was))  # as YAML has them
            raise UsageError(
                f"--set {name}={new}: {name} is {old} in cluster {before.cluster}, and cannot change any more",
                "It was settled when the cluster was formed.",
                "Take it `down` first, or make another one with --name.",
            )


def _check_counts(loaded: Loaded, before: Spec, spec: Spec) -> None:
    """Refuses another number of nodes of a role whose nodes have agreed on it for good."""
    for name, role in loaded.profile.roles.items():
        was, wanted = len(before.of_role(name)), len(spec.of_role(name))
        if role.immutable and was != wanted:
            raise UsageError(
                f"--size {name}={wanted}: cluster {before.cluster} has {was}, and that cannot change any more",
                "It was settled when the cluster was formed.",
                "Take it `down` first, or make another one with --name.",
            )


def _check_platforms(engine: Engine, spec: Spec) -> None:
    """Refuses an engine that the profile's images were not made for, before anything is pulled or made."""
    odd = [image for image in spec.images.values() if image.platforms and engine.info.platform not in image.platforms]
    if odd:
        names = ", ".join(image.name for image in odd)
        ways = " ".join(f"--image {image.name}=REF" for image in odd)
        raise ImageError(
            f"profile {spec.profile} cannot run on this engine, which is {engine.info.platform}",
            f"Of its images {names} are made for {', '.join(sorted({p for i in odd for p in i.platforms}))} alone.",
            f"Use an engine on such a machine, or bring images of your own for this one: {ways}.",
        )


def _look(engine: Engine, name: str) -> Observed:
    """What carries a cluster's name."""
    from minicluster.plan.observed import observe

    return observe(name, engine.containers(name), engine.networks(name), engine.volumes(name))


def _look_within(
    engine: Engine, observed: Observed, before: Spec | None, wanted: Spec, authority: pki.Authority
) -> Observed:
    """The rest that a plan for ``wanted`` depends on: who is a member by what runs now, and which images are there."""
    leaving = before is not None and any(wanted.node(node.name) is None for node in before.nodes)
    ask = members_after_election if leaving else members  # who lets voters go has to know who they are
    counted = ask(engine, before, observed.containers)[0] if before else None
    there = frozenset(image.ref for image in wanted.images.values() if engine.has_image(image.ref))
    return replace(observed, authority=authority.identity, members=counted, images=there)


def check_capacity(engine: Engine, up_plan: UpPlan, force: bool, listener: Listener) -> None:
    """Tells what the nodes that are about to start will take, and refuses where the machine has not got the memory.

    A disk with little room is told of and no more: less is needed where no image has to be built first.

    Raises:
        NoRoom: they need more memory than is free, and there is no ``force``.
    """
    from minicluster import doctor
    from minicluster.plan.steps import ProvideImage

    there = {name for name, container in up_plan.observed.containers.items() if container.alive}
    coming = [node for node in up_plan.spec.nodes if node.name not in there]
    footprint = sum(node.footprint for node in coming)
    builds = any(isinstance(step.action, ProvideImage) and step.action.image.build for step in up_plan.plan.steps)
    if not (footprint or builds):
        return
    memory, disk = doctor.room(engine.info, footprint)
    if footprint:
        if memory.level != "ok" and not force:
            raise InsufficientMemory(
                f"cluster {up_plan.spec.cluster} does not fit into memory: {memory.text}",
                f"That is what {len(coming)} nodes take while they have nothing to do.",
                f"{memory.fix} `--force` starts them all the same.",
            )
        listener(Event("room", text=f"memory: {memory.text}"))
    if disk.level == "error" or (disk.level == "warning" and builds):
        listener(Event("note", text=f"Little room on the disk: {disk.text}. {disk.fix}"))


def _port_is_free(port: int, bind_address: str) -> bool:
    """Whether a port of this machine can be bound. Of another machine's engine we cannot tell; it will.

    The address to publish on may come to be with the cluster's network only: then any address counts.
    """
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOCALHOST if bind_address == LOCALHOST else "", port))
        except OSError:
            return False
    return True


def ports_asked(spec: Spec) -> set[int]:
    return {e.host_port for _node, e in spec.endpoints() if e.name in spec.overrides.port}


def apply(engine: Engine, up_plan: UpPlan, *, keep: bool, timeout: float, listener: Listener) -> None:
    from minicluster.executor.executor import Run, execute
    from minicluster.operations import client, images
    from minicluster.plan.steps import PutFiles

    spec, observed = up_plan.spec, up_plan.observed
    run = Run(engine, up_plan.authority, timeout, listener, images.provide(engine, spec.profile, listener))
    if any(isinstance(step.action, PutFiles) for step in up_plan.plan.steps):
        up_plan.authority.prepare()
    try:
        if up_plan.plan:
            execute(up_plan.plan, run)
        client.keep(spec, up_plan.authority, engine)
        if note := _namesakes(engine, spec):
            listener(Event("note", text=note))
    except BaseException as problem:
        if isinstance(problem, MiniclusterError):
            error = problem
        elif isinstance(problem, KeyboardInterrupt):
            error = Interrupted("interrupted")
        else:
            error = MiniclusterError(f"unexpected: {type(problem).__name__}: {problem}")
        _explain(error, spec, engine)
        if keep:
            error.fix = f"{error.fix}\nKept as it is; `minicluster down {spec.cluster}` removes it.".strip()
        elif observed.converged and observed.last_applied == spec:
            error.fix = (
                f"{error.fix}\nThe cluster is left as it is: `minicluster status {spec.cluster}` shows it.".strip()
            )
        else:
            _roll_back(engine, spec.cluster, observed.last_applied, up_plan, listener, error)
        raise error from (problem if error is not problem else problem.__cause__)


def _explain(error: MiniclusterError, spec: Spec, engine: Engine) -> None:
    """Says of a refused name whose it is."""
    if isinstance(error, Conflict):
        with contextlib.suppress(MiniclusterError):
            name = network_name(spec.cluster)
            if not error.fix and not any(n.name == name for n in engine.networks(spec.cluster)):
                error.what = f"the name {name} is in use"
                error.why = "A network that minicluster did not make for this cluster has it."
                error.fix = "Remove that network, or give the cluster another name with --name."
            for node in spec.nodes:
                other = engine.container(container_name(spec.cluster, node.name))
                if other and other.labels.get(labels.CLUSTER) != spec.cluster:
                    error.what = f"the name {other.name} is in use"
                    error.why = "A container that minicluster did not make for this cluster has it."
                    error.fix = "Remove or rename that container, or give the cluster another name with --name."


def _roll_back(
    engine: Engine, name: str, before: Spec | None, up_plan: UpPlan, listener: Listener, error: MiniclusterError
) -> None:
    """Undoes what an ``up`` began: back to the spec before, or to nothing. What stays is put into the error."""
    from minicluster.executor.signals import shielded

    with shielded():
        listener(Event("rollback", text=f"undoing: {error.what}"))
        try:
            engine = _answering(engine, listener)
            if before is None:
                remove_all(engine, name, ignore)
            else:
                _change_back(engine, name, before, up_plan)
        except MiniclusterError as second:
            if before is None:
                left = [] if isinstance(second, NoEngine) else _left(engine, name)
                error.leftovers = tuple(left) or (f"not known what is left: {second.what}",)
                error.fix = f"{error.fix}\n`minicluster down {name}` removes what is left.".strip()
            else:
                error.why = f"{error.why}\nIt could not be undone either: {second.what}\n{second.why}".strip()
                finish = f"The cluster is between two states: `minicluster up --name {name}` goes on with the change."
                error.fix = f"{error.fix}\n{finish}".strip()


def _answering(engine: Engine, listener: Listener) -> Engine:
    """The same engine; the private one is started again where it died, so that it can be cleaned up."""
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


def _change_back(engine: Engine, name: str, before: Spec, up_plan: UpPlan) -> None:
    from minicluster.executor.executor import Run, execute
    from minicluster.operations import images
    from minicluster.plan import reconcile
    from minicluster.plan.leases import with_lease

    observed = _look_within(engine, _look(engine, name), before, before, up_plan.authority)
    run = Run(engine, up_plan.authority, DEFAULT_TIMEOUT, ignore, images.provide(engine, before.profile, ignore))
    execute(with_lease(reconcile.create(before, observed), observed, None, before.profile), run)


def operate(
    engine: Engine,
    spec: Spec,
    verb: str,
    names: Sequence[str],
    *,
    rolling: bool,
    force: bool,
    timeout: float,
    listener: Listener,
) -> Change:
    """Carries out a verb of :mod:`minicluster.plan.lifecycle` on nodes. Nothing is undone where it fails."""
    from minicluster import pki
    from minicluster.executor.executor import Run, execute
    from minicluster.plan import lifecycle as verbs

    begun = time.monotonic()
    with lock.changing(spec.cluster):
        observed = _look(engine, spec.cluster)
        spec = observed.spec or spec  # another process may have changed the cluster since it was opened
        for name in names:
            if spec.node(name) is None:
                raise UsageError(f"cluster {spec.cluster} has no node {name!r} any more", "It was removed meanwhile.")
        if rolling:
            observed = replace(observed, members=members_after_election(engine, spec, observed.containers)[0])
            plan = verbs.roll(spec, observed, names, force=force)
        else:
            plan = getattr(verbs, verb)(spec, observed, names)
        if plan:
            execute(plan, Run(engine, pki.Authority(), timeout, listener, lambda _image, _cancel: None))
        note = verbs.aftermath(verb, spec, observed, plan)
        if note:
            listener(Event("note", text=note))
    return report(plan, time.monotonic() - begun)


def take_down(engine: Engine, name: str, listener: Listener) -> Change:
    begun = time.monotonic()
    with lock.changing(name):
        plan = remove_all(engine, name, listener)
    return report(plan, time.monotonic() - begun)


def collect(engine: Engine, name: str, listener: Listener) -> Change | None:
    """Removes a cluster whose lease is over; None where it has come to be wanted again, or is gone already.

    Raises:
        MiniclusterError: a test is at work with it, or another process changes it.
    """
    begun = time.monotonic()
    with lock.changing(name):
        observed = _look(engine, name)
        if not observed.lease or not observed.lease.over():
            return None
        with lock.using(name, alone=True, timeout=0):
            plan = remove_all(engine, name, listener)
    return report(plan, time.monotonic() - begun)


def renew(engine: Engine, name: str, lease: Lease) -> None:
    """Gives a cluster that is there another lease. Needs no lock, so that it can be done while the cluster changes.

    Raises:
        UsageError: there is none of that name.
    """
    _set_generation(engine, name, lease, None, engine.volumes(name))


def renew_owned(engine: Engine, name: str, owner: Process) -> bool:
    """Renews the lease that a living process has on a cluster; False where the cluster has come to be another's.

    Where somebody gives it another lease at the same time, that one stays.
    """
    volumes = engine.volumes(name)
    lease = lease_of(volumes)
    if lease is None:
        return True  # it is just being made, or it is gone; its owner says so
    if lease.owner != owner:
        return False
    number = max(generation_of(volume.labels) for volume in volumes) + 1
    with contextlib.suppress(UsageError):
        _set_generation(engine, name, lease.renewed(), number, volumes)
    return True


def _set_generation(engine: Engine, name: str, lease: Lease, number: int | None, volumes: Sequence[Volume]) -> None:
    from minicluster.plan.leases import generation

    profile = next((v.labels.get(labels.PROFILE, "") for v in volumes), "")
    made = generation(name, profile, lease, number)
    engine.create_volume(made.name, made.labels)
    if not any(labels.REVISION in volume.labels for volume in engine.volumes(name)):
        engine.remove_volume(made.name)  # it was taken down meanwhile
        raise UsageError(f"no cluster is called {name!r}", "It has no record.")
    for volume in volumes:
        if labels.GENERATION in volume.labels:
            engine.remove_volume(volume.name)


def report(plan: Plan, seconds: float) -> Change:
    """What was done."""
    counts = Counter(step.kind for step in plan.steps)
    return Change(plan.cluster, bool(plan), len(plan.steps), seconds, dict(counts))


def remove_all(engine: Engine, name: str, listener: Listener) -> Plan:
    """Removes everything that carries a cluster's name; tries again what something else held on to."""
    from minicluster import pki
    from minicluster.executor.executor import Run, execute
    from minicluster.operations import client
    from minicluster.plan import reconcile

    client.forget(name, engine, listener)
    lock.forget(name)
    first: Plan | None = None
    for attempt in range(1, 4):
        observed = _look(engine, name)
        attached = {n: tuple(c.name for c in engine.attached(n) if _is_foreign(c, name)) for n in observed.networks}
        plan = reconcile.remove(replace(observed, attached=attached))
        first = first or plan
        try:
            execute(plan, Run(engine, pki.Authority(), DEFAULT_TIMEOUT, listener, lambda _image, _cancel: None))
            # Who renewed the lease after our look, and saw a record still, left his term. With no record, none is left.
            if not engine.volumes(name):
                break
        except NoEngine:
            raise
        except MiniclusterError as error:
            if attempt == 3 or isinstance(error, Interrupted):
                error.leftovers = tuple(_left(engine, name))
                raise
            time.sleep(0.3)
    else:
        remains = MiniclusterError(
            f"cluster {name} is not gone", "Something goes on making volumes for it.", "End that, and run it again."
        )
        remains.leftovers = tuple(_left(engine, name))
        raise remains
    assert first is not None
    return first


def _is_foreign(container: Container, cluster: str) -> bool:
    return container.labels.get(labels.CLUSTER) != cluster


def _left(engine: Engine, name: str) -> list[str]:
    with contextlib.suppress(MiniclusterError):
        return [
            *(f"container {c.name}" for c in engine.containers(name)),
            *(f"network {n.name}" for n in engine.networks(name)),
            *(f"volume {v.name}" for v in engine.volumes(name)),
        ]
    return []
