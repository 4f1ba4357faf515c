"""``hosts init`` and ``hosts leave``: the Docker Swarm of hosts, which carries the networks of their clusters."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from minicluster.errors import MiniclusterError, UsageError
from minicluster.model import labels
from minicluster.model.events import Event, Listener, ignore
from minicluster.model.naming import count
from minicluster.operations.hosts import check_machines, check_swarm, each, managers_of, refuse_gone

if TYPE_CHECKING:
    from minicluster.engine.protocol import Engine, Swarm, SwarmNode

_MANAGERS = 3  # of a swarm of three hosts or more: it survives the loss of one
_ELECTION = 20.0  # seconds that managers have to elect a leader: while they do, they know nothing


def init(engine: Engine, listener: Listener = ignore) -> list[str]:
    """Makes one swarm of all hosts; what is part of it already stays. Returns the hosts that have joined.

    One of two hosts manages it, three of three or more. In a swarm that others made no host gets another role, and
    hosts that join it manage it only where that makes three managers.

    Raises:
        MiniclusterError: a host does not answer, is part of another swarm, cannot join, or cannot manage it.
    """
    refuse_gone(engine, "minicluster hosts init")
    check_machines(engine)
    swarms = each(engine, lambda host: host.swarm())
    first = next((swarm for swarm in swarms.values() if swarm.manager), None)
    members = {node.id for node in first.nodes} if first else set()
    for name, swarm in swarms.items():  # one that was away when the others removed it
        if first and swarm.id and swarm.id not in members and _was_member(swarm, first):
            listener(Event("note", text=f"{name} leaves the swarm, which has removed it"))
            engine.hosts[name].leave_swarm()
            swarms[name] = type(swarm)()
    inside = [name for name, swarm in swarms.items() if swarm.id]
    if inside:
        check_swarm(engine, {name: swarms[name] for name in inside})
    joining = [name for name in engine.hosts if name not in inside]
    asked = next((name for name in inside if swarms[name].manager), "")
    manager, there = engine.hosts.get(asked), swarms.get(asked)
    nodes = there.nodes if there else ()
    answering = sum(node.ready for node in nodes) + len(joining)
    lacking = (1 if answering < _MANAGERS else _MANAGERS) - sum(node.manager for node in nodes)
    if there and labels.HOSTS not in there.labels and lacking > len(joining):
        lacking = 0  # it would take members that others made workers
    about = {labels.HOSTS: ",".join(engine.hosts)}
    for i, name in enumerate(joining):
        as_manager = i < lacking
        listener(Event("note", text=f"{name} joins the swarm{' as a manager' if as_manager else ''}"))
        host = engine.hosts[name]
        try:
            host.join_swarm(_advertised(host), manager, about, as_manager=as_manager)
        except MiniclusterError as error:
            error.what = f"host {name}: {error.what}"
            error.fix = error.fix or (
                "Hosts reach each other at ports 2377/tcp, 7946/tcp and udp, and 4789/udp: open them in the firewalls. "
                f"`minicluster hosts leave {','.join(engine.hosts)}` removes what was created."
            )
            raise
        manager = manager or host
    _balance_managers(engine, listener)
    return joining


def _balance_managers(engine: Engine, listener: Listener) -> None:
    """Makes three managers of the members of a swarm that minicluster made; where there are two managers, else one.

    Two managers need both, so that the loss of either ends what one alone would go on with.
    """
    end = time.monotonic() + _ELECTION
    while True:
        swarms = each(engine, lambda host: host.swarm())
        if any(swarm.manager for swarm in swarms.values()) or time.monotonic() > end:
            break
        time.sleep(0.5)
    its = managers_of(swarms, "no host manages the swarm", "`minicluster hosts status` says more.")[0]
    managers = [node for node in its.nodes if node.manager]
    workers = [node for node in its.nodes if node.ready and not node.manager]
    if labels.HOSTS not in its.labels:
        return
    if 0 < _MANAGERS - len(managers) <= len(workers):
        changed, role = workers[: _MANAGERS - len(managers)], "manager"
    elif len(managers) % 2 == 0:  # but for the one that is asked, which would not answer then
        others = [node for node in managers if node.id != its.id]
        changed, role = [min(others, key=lambda node: (node.ready, node.leader))], "worker"
    else:
        return
    names = {swarm.id: name for name, swarm in swarms.items()}
    for node in changed:
        listener(Event("note", text=f"{names.get(node.id, node.name)} becomes a {role} of the swarm"))
        engine.hosts[names[its.id]].set_swarm_role(node.id, manager=role == "manager")


def _was_member(swarm: Swarm, of: Swarm) -> bool:
    """Whether a host that a swarm does not list was a member of it: it still knows that swarm's managers.

    A worker of another swarm knows its own managers, and no host is a member of two.
    """
    managers = {node.id for node in of.nodes if node.manager}
    return labels.HOSTS in of.labels and not swarm.cluster and bool(managers.intersection(swarm.managers))


def _advertised(host: Engine) -> str:
    """The address by which the others are to reach a host; "" where its engine has to find it."""
    parts = urlsplit(host.endpoint)
    if parts.scheme in ("tcp", "https", "ssh") and parts.hostname:
        try:
            address = socket.gethostbyname(parts.hostname)
        except OSError:
            return ""
        return "" if address.startswith("127.") else address
    return ""


def leave(engine: Engine, listener: Listener = ignore) -> list[str]:
    """Takes away the swarm that minicluster made of hosts. Returns the hosts that have left.

    Hosts that are part of another swarm stay in it.

    Raises:
        MiniclusterError: it was made by somebody else, or nobody knows by whom; it has members beyond these hosts; or
            clusters still use it.
    """
    swarms = each(engine, lambda host: host.swarm())
    inside = {name: swarm for name, swarm in swarms.items() if swarm.id}
    if not inside:
        return []
    managers = managers_of(
        inside,
        "no host manages the swarm: it is not known who made it",
        "Name its managers, too. Where they are lost, and the swarm is minicluster's: "
        + ", ".join(f"`docker --context {name} swarm leave --force`" for name in inside)
        + ".",
    )
    ours = [swarm for swarm in managers if labels.HOSTS in swarm.labels]
    if len({swarm.cluster for swarm in ours}) > 1:
        raise UsageError(
            "the hosts are part of several swarms that minicluster made",
            "",
            "Name the hosts of one: `hosts leave m1,m2`.",
        )
    members = {node.id: node for swarm in ours for node in swarm.nodes}
    leaving = {name: swarm for name, swarm in inside.items() if swarm.id in members}
    if not leaving:
        raise UsageError(
            "the hosts' Docker Swarm was not made by minicluster",
            "It may have services of its own.",
            "`docker swarm leave` on each host removes it.",
        )
    _refuse_others(members, leaving)
    if staying := [name for name in inside if name not in leaving]:
        listener(Event("note", text=f"{', '.join(staying)}: part of another swarm, which minicluster did not make"))
    used = sorted({c.labels[labels.CLUSTER] for c in engine.containers() if c.host in leaving})
    if used:
        raise MiniclusterError(
            f"the hosts have {count(len(used), 'cluster')}: {', '.join(used)}",
            "Their networks are the swarm's.",
            f"Remove them first: `minicluster down {' '.join(used)}`.",
        )
    order = sorted(leaving, key=lambda name: leaving[name].manager)  # managers last
    for name in order:
        listener(Event("note", text=f"{name} leaves the swarm"))
        engine.hosts[name].leave_swarm()
    return order


def _refuse_others(members: Mapping[str, SwarmNode], leaving: Mapping[str, Swarm]) -> None:
    """Refuses to take a swarm away from members that were not named: their clusters would lose their networks."""
    here = {swarm.id for swarm in leaving.values()}
    others = [node for node in members.values() if node.id not in here]
    if not others:
        return
    answering, lost = [node for node in others if node.ready], [node for node in others if not node.ready]
    fixes = []
    if answering:
        fixes.append("Name all of its hosts.")
    if lost:
        ids = " ".join(node.id for node in lost)
        manager = next(name for name, swarm in leaving.items() if swarm.manager)
        fixes.append(
            "Start the engines of those that do not answer, and name them; or, if they are lost or have left: "
            f"`docker --context {manager} node demote {ids}`, then `docker --context {manager} node rm --force {ids}`."
        )
    raise MiniclusterError(
        f"the swarm has {count(len(others), 'member')} beyond {', '.join(leaving)}",
        "\n".join(f"{n.name} ({n.address}){'' if n.ready else ': does not answer'}" for n in others),
        " ".join(fixes),
    )
