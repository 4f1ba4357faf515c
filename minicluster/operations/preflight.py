"""What is checked before anything changes: networks, platforms, ports, immutable values, memory and disk."""

from __future__ import annotations

import errno
import os
import shlex
import socket
from collections.abc import Mapping, Sequence
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


def check_project(observed: Observed, project: str, *, named: bool) -> None:
    """Refuses to change a cluster that was not made from this project's file, or from one where there is none here.

    Args:
        project: path of the project file; "" if there is none.
        named: the user named the cluster.
    """
    name, its = observed.cluster, observed.project
    if not observed or its == project or (not project and named):
        return
    if its:
        raise foreign_project(name, its)
    raise UsageError(
        f"cluster {name} exists already, and was not made from {project}",
        "The file would change it.",
        f"Give the cluster another name in the file, or remove the one that exists: `minicluster down {name}`.",
    )


def foreign_project(name: str, project: str) -> UsageError:
    """The error for a cluster that was made from another project file."""
    gone = "" if os.path.exists(project) else ", which no longer exists"
    way = f"`minicluster -f {shlex.quote(project)} COMMAND`, or change to that folder."
    if gone:
        way = f"Remove the cluster where there is no project file, or with -f none: `minicluster -f none down {name}`."
    return UsageError(
        f"cluster {name} is of another project",
        f"It was made from {project}{gone}.",
        f"{way} All projects share names: another name avoids this.",
    )


def check_hosts(
    engine: Engine | None,
    observed: Observed,
    given: Mapping[str, object],
    mode: str | None,
) -> None:
    """Refuses a cluster of one engine on several hosts, the reverse, and options that several hosts cannot have.

    Args:
        given: the options place, encrypt, bind_address and networks of ``up``.
        mode: the address mode, as the user gave it.
    """
    name, before = observed.cluster, observed.spec
    if not (engine and engine.hosts):
        if before and before.hosts:
            raise UsageError(
                f"cluster {name} is on several hosts: {', '.join(before.hosts)}",
                "This engine is only one of them.",
                f"Name them: `minicluster up --name {name} --hosts {','.join(before.hosts)}`.",
            )
        if given["place"] or given["encrypt"]:
            option = "--place" if given["place"] else "--encrypt"
            raise UsageError(f"{option} needs several hosts", "The cluster is on one engine.", "Use it with --hosts.")
        return
    if given["encrypt"] and before and not before.overrides.encrypt:
        raise UsageError(
            f"--encrypt: the network of cluster {name} exists, and is not encrypted",
            "That cannot be changed later.",
            f"Delete the cluster first: `minicluster down {name}`.",
        )
    if given["bind_address"] or given["networks"]:
        raise UsageError(
            f"{'--bind-address' if given['bind_address'] else '--network'} cannot be used with several hosts",
            "Endpoints are published on each host's own address, and the cluster's network is the only one in common.",
            "Leave it out. --address-mode gateway publishes endpoints without a login, too.",
        )
    if mode == "bridge":
        raise UsageError(
            "--address-mode bridge cannot be used with several hosts",
            "The nodes' own addresses are reached only from containers on the cluster's network.",
            "Use auto, gateway or localhost.",
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


def check_versions(loaded: Loaded, before: Spec, spec: Spec) -> None:
    """Refuses a version of a part that does not support the data of the one that nodes have."""
    had, wanted = ({part.name: part for image in one.images.values() for part in image.parts} for one in (before, spec))
    changed = [part for name, part in wanted.items() if name in had and had[name].version != part.version]
    changed.sort(key=lambda part: part.name != loaded.profile.main_part)  # which brings others with it
    if not changed:
        return
    from minicluster.profile import parts

    for part in changed:
        was, key = had[part.name].version, parts.setting(part.name, loaded.profile.main_part)
        if why := parts.refused_change(part.name, was, part.version):
            raise UsageError(
                f"{part.name} {was} in cluster {before.cluster} cannot become {part.version}",
                why,
                f"Keep it (--set {key}={was}), or create another cluster with --name.",
            )


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
    if engine.hosts:
        for host, its in engine.hosts.items():
            part = sum(node.footprint for node in coming if node.host == host)
            memory = doctor.check_memory(part, its.info.memory, None)
            if part and memory.level != "ok" and not force:
                raise InsufficientMemory(
                    f"cluster {spec.cluster} does not fit into the memory of host {host}: {memory.text}",
                    "",
                    f"{memory.fix} `--force` starts them anyway.",
                )
            if part:
                listener(Event("preflight", text=f"memory of {host}: {memory.text}"))
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


def check_mounts(engine: Engine, spec: Spec) -> None:
    """Refuses files and folders that nodes cannot have mounted: they are missing, or on another machine."""
    mounts = list(dict.fromkeys(mount for node in spec.nodes for mount in node.mounts))
    if not mounts:
        return
    first, drop = mounts[0], "`up --mount none` removes the cluster's mounts."
    if not engine.endpoint.startswith(("unix:", "npipe:")):
        raise UsageError(
            f"--mount {first}: the engine is on another machine ({engine.endpoint})",
            "Only files and folders of the engine's own machine can be mounted in nodes.",
            f"Copy them into the nodes: `minicluster cp`. {drop}",
        )
    if not engine.shares_localhost or engine.own_container():
        raise UsageError(
            f"--mount {first}: minicluster runs in a container, and the engine does not",
            "The engine mounts files and folders of its own machine, not of this container.",
            f"Run minicluster on that machine, or copy files into the nodes: `minicluster cp`. {drop}",
        )
    for mount in mounts:
        if not os.path.exists(mount.host):
            raise UsageError(f"--mount {mount}: no such file or folder: {mount.host}", "", f"Create it first. {drop}")
        if not engine.sees(mount.host):
            raise UsageError(
                f"--mount {mount}: the engine does not have {mount.host}",
                "It runs in a virtual machine, or sees other files, and that path is not shared with it.",
                f"Share the folder in the engine's settings, or use another one. {drop}",
            )


def check_addresses(engine: Engine, spec: Spec, before: Spec | None) -> None:
    """Refuses an address and host ports that the user asks for, and that this machine does not have or are in use.

    An engine elsewhere reports them itself, when a node is started.
    """
    wanted = spec.overrides.bind_address
    if not engine.shares_localhost:
        return
    if wanted and _bound(wanted, 0, "tcp") == errno.EADDRNOTAVAIL:
        raise UsageError(
            f"--bind-address {wanted}: this machine does not have that address",
            "",
            "`ip address` lists its addresses.",
        )
    had = {(e.host_port, e.protocol) for _node, e in before.endpoints()} if before else set()
    for node, e in spec.endpoints():
        first = spec.overrides.port.get(e.name)
        if first is None or (e.host_port, e.protocol) in had:
            continue
        for address in dict.fromkeys((LOCALHOST, spec.bind_address)):
            if _bound(address, e.host_port, e.protocol) == errno.EADDRINUSE:
                raise MiniclusterError(
                    f"--port {e.name}={first}: {node.name} would have port {e.host_port}, which is in use",
                    f"Something else on this machine has {address}:{e.host_port}/{e.protocol}.",
                    "Ask for another port, or stop what uses it.",
                )


def port_is_free(port: int, bind_address: str) -> bool:
    """Whether a port of this machine can be bound. A remote engine reports a port that is taken itself.

    The address to publish on may exist only once the cluster's network does: then any address is tried.
    """
    return _bound(LOCALHOST if bind_address == LOCALHOST else "", port, "tcp") == 0


def _bound(address: str, port: int, protocol: str) -> int:
    """The number of the error with which binding a port fails; 0 where it succeeds."""
    with socket.socket(type=socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM) as probe:
        if protocol == "tcp":  # for UDP, that would share a port that is in use
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.errno or -1
    return 0


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
        return doctor.examine(None, error, footprint, None, features=loaded.profile.kernel)
    return doctor.examine(engine, None, footprint, lambda: base_image.source(engine), features=loaded.profile.kernel)
