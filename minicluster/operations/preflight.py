"""What is checked before anything changes: networks, platforms, ports, immutable values, memory and disk."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from minicluster.errors import ImageError, InsufficientMemory, MiniclusterError, NoEngine, UsageError
from minicluster.model.events import Event, Listener
from minicluster.model.naming import count, network_name, value_text
from minicluster.model.spec import LOCALHOST, Overrides, Spec
from minicluster.plan.observed import made_by_another

if TYPE_CHECKING:
    from minicluster.doctor import Check
    from minicluster.engine.protocol import Engine
    from minicluster.model.lease import Lease
    from minicluster.plan.observed import Observed
    from minicluster.plan.steps import Plan
    from minicluster.profile.loaded import Loaded


def check_record(observed: Observed) -> None:
    """Refuses a cluster of which there are containers or records, but no spec that can be read."""
    if foreign := made_by_another(observed.cluster, observed.records):
        raise foreign
    if observed.spec is None and (observed.containers or (observed.records and observed.records[-1].revision)):
        raise MiniclusterError(
            f"the record of cluster {observed.cluster} is missing or cannot be read",
            "Its spec is stored in the label of a volume. Older engines' `docker volume prune` removes that volume.",
            f"`minicluster down {observed.cluster}` removes what is left.",
        )


def check_owner(observed: Observed, lease: Lease | None) -> None:
    """Refuses to tie a cluster that exists to a process that it does not belong to."""
    if lease and lease.owner and observed and (observed.lease is None or observed.lease.owner != lease.owner):
        name = observed.cluster
        raise UsageError(
            f"cluster {name} exists already and cannot be tied to {lease.owner}",
            f"Its lease: {observed.lease}." if observed.lease else "It has no lease.",
            f"Use another name, or delete that cluster: `minicluster down {name}`.",
        )


def check_networks(engine: Engine, names: Sequence[str], cluster: str) -> None:
    """Refuses networks that the nodes cannot join."""
    for name in names:
        if name in ("bridge", "host", "none", network_name(cluster)):
            own = name == network_name(cluster)
            why = "It is the cluster's own network." if own else "It has no name resolution."
            fix = "Create a network: `docker network create NAME`."
            raise UsageError(f"--network {name}: nodes cannot join it", why, fix)
        if engine.network(name) is None:
            raise UsageError(
                f"--network {name}: no such network",
                "Nodes join networks that exist on the engine.",
                f"`docker network create {name}` creates it; `up --network none` disconnects nodes from all networks "
                "but their own.",
            )


def check_platforms(engine: Engine, spec: Spec) -> None:
    """Refuses an engine whose platform the profile's images do not support."""
    odd = [image for image in spec.images.values() if image.platforms and engine.info.platform not in image.platforms]
    if odd:
        names = ", ".join(image.name for image in odd)
        ways = " ".join(f"--image {image.name}=REF" for image in odd)
        raise ImageError(
            f"profile {spec.profile} cannot run on this engine, which is {engine.info.platform}",
            f"Images for {', '.join(sorted({p for i in odd for p in i.platforms}))} only: {names}.",
            f"Use an engine on such a machine, or images of your own: {ways}.",
        )


def check_immutable(loaded: Loaded, before: Spec, source: str) -> None:
    """Refuses to change an immutable setting of a cluster that has been bootstrapped."""
    from minicluster.profile import catalog

    if not loaded.profile.immutable:
        return
    former = catalog.load(source, before.overrides.set).profile.settings
    for name in loaded.profile.immutable:
        value, was = loaded.profile.settings[name], former.get(name)
        if value != was:
            raise _immutable(f"--set {name}={value_text(value)}", f"{name} is {value_text(was)}", before)


def check_counts(loaded: Loaded, before: Spec, spec: Spec) -> None:
    """Refuses to change the size of an immutable role of a cluster that has been bootstrapped."""
    for name, role in loaded.profile.roles.items():
        was, wanted = len(before.of_role(name)), len(spec.of_role(name))
        if role.immutable and was != wanted:
            raise _immutable(f"--size {name}={wanted}", f"role {name} has {was}", before)


def _immutable(option: str, now: str, before: Spec) -> UsageError:
    return UsageError(
        f"{option}: {now} in cluster {before.cluster}, and that cannot change",
        f"Profile {before.profile} fixes it when the cluster is bootstrapped.",
        f"Delete the cluster first (`minicluster down {before.cluster}`), or create another one with --name.",
    )


def check_capacity(engine: Engine, spec: Spec, observed: Observed, plan: Plan, force: bool, listener: Listener) -> None:
    """Reports the memory that the nodes about to start need, and refuses where the machine has too little.

    A disk with little space is reported only: less is needed where no image has to be built.

    Raises:
        InsufficientMemory: they need more memory than is free, and there is no ``force``.
    """
    from minicluster import doctor
    from minicluster.plan.steps import ProvideImage

    there = {name for name, container in observed.containers.items() if container.alive}
    coming = [node for node in spec.nodes if node.name not in there]
    footprint = sum(node.footprint for node in coming)
    builds = any(isinstance(step.action, ProvideImage) and step.action.image.build for step in plan.steps)
    if not (footprint or builds):
        return
    memory, disk = doctor.capacity(engine.info, footprint)
    if footprint:
        if memory.level != "ok" and not force:
            raise InsufficientMemory(
                f"cluster {spec.cluster} does not fit into memory: {memory.text}",
                f"Estimated for {count(len(coming), 'idle node')}.",
                f"{memory.fix} `--force` starts them anyway.",
            )
        listener(Event("preflight", text=f"memory: {memory.text}"))
    if disk.level == "error" or (disk.level == "warning" and builds):
        listener(Event("note", text=f"Low disk space: {disk.text}. {disk.fix}"))


def port_is_free(port: int, bind_address: str) -> bool:
    """Whether a port of this machine can be bound. A remote engine reports a port that is taken itself.

    The address to publish on may exist only once the cluster's network does: then any address is tried.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOCALHOST if bind_address == LOCALHOST else "", port))
        except OSError:
            return False
    return True


def examine(profile: str) -> list[Check]:
    """What ``doctor`` finds on this machine, for a profile's default size."""
    from minicluster import doctor
    from minicluster.engine import base_image
    from minicluster.engine.discover import connect
    from minicluster.profile import catalog
    from minicluster.profile.resolve import node_counts

    loaded = catalog.load(profile)
    counts = node_counts(loaded, Overrides())
    footprint = sum(counts[name] * int(role.footprint) for name, role in loaded.profile.roles.items())
    try:
        engine = connect()
    except NoEngine as error:
        return doctor.examine(None, error, footprint, None)
    return doctor.examine(engine, None, footprint, lambda: base_image.source(engine))
