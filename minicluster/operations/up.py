"""``up``: look, resolve, plan, carry out; and roll back where that fails."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from minicluster.engine.protocol import Cancel
from minicluster.errors import (
    Interrupted,
    MiniclusterError,
    NodeEnded,
    PortTaken,
    SubnetTaken,
    UsageError,
)
from minicluster.leases import lock, reaper_client
from minicluster.model import labels
from minicluster.model.events import Event, Listener, ignore
from minicluster.model.naming import container_name
from minicluster.model.spec import Overrides, Spec
from minicluster.operations import (
    client_folder,
    connect as addresses,
    disks,
    fill,
    given_images,
    host_record,
    preflight,
    registries,
    remove_expired,
)
from minicluster.operations.down import remove_all
from minicluster.operations.observe import look, look_within
from minicluster.operations.rollback import roll_back
from minicluster.plan.observed import Observed

if TYPE_CHECKING:
    from minicluster import pki
    from minicluster.engine.protocol import Container, Engine
    from minicluster.model.results import Change
    from minicluster.model.spec import ImageSpec
    from minicluster.operations.up_options import UpOptions
    from minicluster.plan.steps import Plan

DEFAULT_PROFILE = "swarm"
_ATTEMPTS = 5  # at a subnet or port that another process took between our look and our call


@dataclass(frozen=True)
class UpPlan:
    """What an ``up`` found, what it wants, and the steps from one to the other."""

    spec: Spec
    observed: Observed
    authority: pki.Authority
    plan: Plan


def up(
    engine: Engine, name: str, options: UpOptions, listener: Listener, cancel: Cancel | None = None
) -> tuple[UpPlan, Change]:
    """Creates a cluster, or applies the difference to one that exists.

    Args:
        cancel: once set, it is as if the user pressed Ctrl-C; for one of several at the same time, in a thread.

    Raises:
        MiniclusterError: it failed, and has been rolled back unless ``options.keep``.
    """
    begun = time.monotonic()
    remove_expired.sweep(engine, listener)
    _prefetch_info(engine)
    if options.lease and options.lease.owner:
        reaper_client.hold(engine, name, options.lease)
    with _dropped_on_failure(engine, name), lock.changing(name):
        up_plan = _up(engine, name, options, listener, cancel)
        spec, authority, mode = up_plan.spec, up_plan.authority, options.address_mode
        try:
            fill.load(engine, spec, options.load, listener, cancel)
            fill.apply(engine, spec, options.apply, authority, mode, listener, options.timeout, cancel)
        except MiniclusterError as error:
            error.cluster_is_up = True
            raise
        if spec.hosts:
            _note_hosts(engine, name, spec.hosts)
    return up_plan, up_plan.plan.change(time.monotonic() - begun)


def _up(engine: Engine, name: str, options: UpOptions, listener: Listener, cancel: Cancel | None) -> UpPlan:
    """Plans and applies; again with another subnet or port where another process took the chosen one."""
    pull = partial(_pull, engine, cancel or Cancel(), listener)
    refused: list[int] = []  # ports that the engine could not publish, though they may be free on this machine
    for attempt in range(1, _ATTEMPTS + 1):
        last = attempt == _ATTEMPTS
        # Of several at the same time, each searches for a subnet at another place from the beginning.
        up_plan = plan(engine, name, options, refused, attempt + (cancel is not None), pull)
        spec, observed = up_plan.spec, up_plan.observed
        if attempt == 1:
            preflight.check_capacity(engine, spec, observed, up_plan.plan, options.force, listener)
        if engine.hosts:  # not before there is a plan: what is refused leaves no note of a cluster that does not exist
            _note_hosts(engine, name, engine.hosts)
        try:
            apply(engine, up_plan, options, listener, cancel)
            break
        except NodeEnded as error:
            # Only where the spec did not change; any other change has been rolled back by now.
            if last or not (observed.converged and observed.last_applied == spec):
                raise
            listener(Event("note", text=f"{error.what}; retrying"))
        except (SubnetTaken, PortTaken) as error:
            chosen_by_us = isinstance(error, SubnetTaken) or error.port not in _requested_ports(spec)
            if observed or last or not chosen_by_us:
                raise
            if options.keep:
                remove_all(engine, name, ignore)  # nothing in it failed by itself
            if isinstance(error, PortTaken):
                refused.append(error.port)
            listener(Event("note", text=f"{error.what}; retrying with another one"))
    return up_plan


def _note_hosts(engine: Engine, name: str, hosts: Iterable[str]) -> None:
    """Notes where to look for a cluster: on these hosts, and on noted ones that do not answer or were not asked."""
    unasked = [host for host in host_record.read(name) if host not in engine.hosts]
    host_record.write(name, [*dict.fromkeys([*hosts, *engine.gone, *unasked])])


def _requested_ports(spec: Spec) -> set[int]:
    return {e.host_port for _node, e in spec.endpoints() if e.name in spec.overrides.port}


def _prefetch_info(engine: Engine) -> None:
    """Asks the engine about its machine while the plan is made, which does not need the answer."""

    def ask() -> None:
        with contextlib.suppress(MiniclusterError):
            _ = engine.info

    threading.Thread(target=ask, daemon=True).start()


@contextlib.contextmanager
def _dropped_on_failure(engine: Engine, name: str) -> Iterator[None]:
    """Lets the reaper drop a cluster whose ``up`` was rolled back."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(MiniclusterError):
            if not engine.volumes(name):
                reaper_client.drop(engine, name)
                if not engine.gone:
                    host_record.forget(name)
        raise


def _pull(engine: Engine, cancel: Cancel, listener: Listener, image: ImageSpec) -> None:
    """Pulls the image that another one is built on."""
    from minicluster.operations import images

    try:
        images.pull(engine, image, cancel, listener)
    except KeyboardInterrupt:
        cancel.set()
        raise


def plan(
    engine: Engine | None,
    name: str,
    options: UpOptions,
    refused: Collection[int] = (),
    attempt: int = 1,
    pull: Callable[[ImageSpec], None] | None = None,
) -> UpPlan:
    """What an ``up`` will do.

    Args:
        engine: None: plan as for an empty engine.
        refused: ports that the engine could not publish.
        attempt: counts the attempts at a subnet that another process took.
        pull: pulls an image that has to be known for the plan; None: nothing is pulled.
    """
    from minicluster import pki
    from minicluster.plan import reconcile
    from minicluster.plan.leases import with_hosts, with_lease, with_project

    observed = look(engine, name) if engine else Observed(name)
    preflight.check_record(observed)
    before = observed.spec
    given = {name: getattr(options, name) for name in ("place", "encrypt", "bind_address", "networks")}
    preflight.check_hosts(engine, observed, given, options.address_mode)
    preflight.check_project(observed, options.project, named=options.name is not None)
    overrides = merged(before.overrides if before and not options.project else Overrides(), options.overrides)
    if engine and engine.hosts and not overrides.hosts:
        overrides = replace(overrides, hosts=(*engine.hosts, *engine.gone))
    if engine:
        preflight.check_networks(engine, overrides.networks or (), name)
    preflight.check_owner(observed, options.lease)
    spec = _spec(engine, observed, options, overrides, refused, attempt)
    disks.check(before, spec, several_hosts=bool(engine and engine.hosts))
    if engine:
        preflight.check_platforms(engine, spec)
        preflight.check_mounts(engine, spec)
        preflight.check_addresses(engine, spec, before)
        spec = given_images.identified(engine, spec, before, pull)
    if engine and before and pull:  # to be read from, the container of a node has to mount its volumes
        disks.prepare(engine, before, observed=observed)
    placement: Mapping[str, str] = {}
    if engine and engine.hosts:
        from minicluster.operations import hosts  # imports logging: only where it is needed

        spec, placement, observed = hosts.placed(engine, spec, observed, options.place or ())
    authority = pki.Authority()
    if engine:
        observed, authority = look_within(engine, observed, before, spec)
        own = addresses.own_container(options.address_mode, engine)
        observed = replace(observed, own_container=own, placement=placement)
    steps = reconcile.reconcile(spec, observed, force=options.force)
    steps = with_lease(steps, observed, options.lease, spec.profile)
    steps = with_hosts(steps, spec)
    return UpPlan(spec, observed, authority, with_project(steps, options.project or observed.project))


def from_nothing(spec: Spec) -> Plan:
    """The plan that creates a cluster of that spec on an empty engine."""
    from minicluster.plan import reconcile

    return reconcile.reconcile(spec, Observed(spec.cluster))


def merged(before: Overrides, asked: Overrides) -> Overrides:
    """What was asked for before stays in force until it is asked for differently."""
    return Overrides(
        {**before.size, **asked.size},
        {**before.set, **asked.set},
        {**before.image, **asked.image},
        {key: port for key, port in {**before.port, **asked.port}.items() if port},
        asked.restart or before.restart,
        before.networks if asked.networks is None else asked.networks,
        before.mounts if asked.mounts is None else asked.mounts,
        asked.bind_address or before.bind_address,
        before.registries if asked.registries is None else asked.registries,
        before.ca if asked.ca is None else asked.ca,
        asked.hosts or before.hosts,
        {word: hosts for word, hosts in {**before.place, **asked.place}.items() if hosts != "any"},
        before.encrypt or asked.encrypt,
    )


def _spec(
    engine: Engine | None,
    observed: Observed,
    options: UpOptions,
    overrides: Overrides,
    refused: Collection[int],
    attempt: int,
) -> Spec:
    """The spec that the cluster is to have."""
    from minicluster.profile import addressing, spec_cache

    name, before, mode = observed.cluster, observed.spec, options.address_mode
    source = options.profile or (before.source if before else DEFAULT_PROFILE)
    taken = engine.subnets() if engine and not before else []
    subnet = before.subnet if before else addressing.choose_subnet(taken, f"{name}/{attempt}" if attempt > 1 else "")
    former = before.bind_address if before else ""
    wanted = overrides.bind_address
    if engine and engine.hosts:
        bind_address = addresses.hosts_bind_address(mode, former)
    else:
        bind_address = addresses.bind_address(mode, engine, addressing.gateway(subnet), former, wanted)

    def port_is_free(port: int) -> bool:
        return port not in refused and preflight.port_is_free(port, bind_address)

    if before is None:
        return spec_cache.resolve(source, name, overrides, subnet, bind_address, port_is_free)
    if spec_cache.is_unchanged(source, before, overrides, bind_address):
        return before
    bootstrapped = observed.last_applied is not None
    named_by = options.named_by if options.name else ""
    return _next_spec(
        before, source, overrides, bind_address, port_is_free, bootstrapped=bootstrapped, named_by=named_by
    )


def _next_spec(
    before: Spec,
    source: str,
    overrides: Overrides,
    bind_address: str,
    port_is_free: Callable[[int], bool],
    *,
    bootstrapped: bool,
    named_by: str,
) -> Spec:
    """The next spec of a cluster that exists; once it is bootstrapped some values are immutable."""
    from minicluster.profile import catalog
    from minicluster.profile.resolve import resolve

    if source != before.source:  # the settings of one profile are none of another's
        _check_profile(before, catalog.load(source).profile.name, named_by)
    loaded = catalog.load(source, overrides.set)
    _check_profile(before, loaded.profile.name, named_by)
    if bootstrapped:
        preflight.check_immutable(loaded, before, source)
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
    if bootstrapped:
        preflight.check_counts(loaded, before, spec)
        preflight.check_versions(loaded, before, spec)
    return spec


def _check_profile(before: Spec, profile: str, named_by: str) -> None:
    """Refuses another profile for a cluster that exists."""
    if before.profile != profile:
        raise UsageError(
            f"the name {before.cluster} is in use",
            f"Cluster {before.cluster} is of profile {before.profile}, not {profile}."
            + (f" {named_by} names it." if named_by.startswith("$") else ""),
            f"Remove it first: `minicluster down {before.cluster}`; or use another name: --name NAME.",
        )


def apply(engine: Engine, up_plan: UpPlan, options: UpOptions, listener: Listener, cancel: Cancel | None) -> None:
    """Carries out a plan and writes the client's files; rolls back whatever goes wrong, and raises it."""
    from minicluster.executor.executor import Run, execute
    from minicluster.operations import images
    from minicluster.plan.steps import PutFiles

    spec, authority = up_plan.spec, up_plan.authority
    values = registries.credentials(spec)
    run = Run(
        engine, authority, options.timeout, listener, images.provide(engine, spec.profile, listener), values=values
    )
    if any(isinstance(step.action, PutFiles) for step in up_plan.plan.steps):
        authority.prepare()
    try:
        disks.prepare(engine, spec, listener)
        if up_plan.plan:
            with cancel.calls(run.cancel.set) if cancel else contextlib.nullcontext():
                execute(up_plan.plan, run)
        if spec.hosts and up_plan.observed.spec:  # a new one was recorded on all of its hosts
            from minicluster.operations import hosts

            hosts.copy_records(engine, spec)
        registries.renew(engine, spec, values)
        mode = addresses.choose(addresses.asked(options.address_mode), engine, spec)
        notes = client_folder.write_files(engine, spec, authority, mode)
        for note in (*notes, *filter(None, [_namesakes(engine, spec), addresses.exposed(spec)])):
            listener(Event("note", text=note))
    except BaseException as problem:
        error = Interrupted("interrupted") if isinstance(problem, KeyboardInterrupt) else problem
        roll_back(engine, spec, up_plan.observed, authority, error, keep=options.keep, listener=listener)
        if error is problem:
            raise
        raise error from problem


def _namesakes(engine: Engine, spec: Spec) -> str:
    """Warns of a node whose name another cluster's node has as well, on a network that both have joined; or ""."""
    others: list[Container] = []
    with contextlib.suppress(MiniclusterError):  # it is only a warning
        others = engine.containers() if spec.networks else []
    for network in spec.networks:
        for other in others:
            node, cluster = other.labels.get(labels.NODE, ""), other.labels[labels.CLUSTER]
            if cluster != spec.cluster and network in other.networks and spec.node(node):
                full = container_name(spec.cluster, node)
                return f"{node} on network {network} is also a node of cluster {cluster}: use {full} there."
    return ""
