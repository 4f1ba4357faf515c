"""Faults, planned: which nodes a word means, what a fault costs, and the operations that carry it out. All pure."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from minicluster.errors import UsageError
from minicluster.model.fault import ActiveFault, Fault
from minicluster.model.membership import Member, Quorum
from minicluster.model.naming import count, nearest_node, value_text
from minicluster.model.spec import Spec, disks

if TYPE_CHECKING:
    from minicluster.engine.protocol import Sandbox

Members = Mapping[str, Member]

SELECTORS = ("leader", "follower", "voter")  #: and ROLE-any
_ANY = "-any"
_TIME = re.compile(r"(\d+(?:\.\d+)?)(ms|s)")
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?)(?:bit|bps)?", re.IGNORECASE)
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)%?")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg])(?:i?b)?", re.IGNORECASE)
_UNITS = "kmg"
_SCALE = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3}


# Words


def needs_members(spec: Spec, words: Iterable[str]) -> bool:
    """Whether a word is a selector, for which the members have to be known."""
    known = {node.name for node in spec.nodes} | set(spec.roles)
    return any(word in SELECTORS for word in words if word not in known)


def select(spec: Spec, word: str, members: Members | None, pick: random.Random) -> list[str]:
    """The nodes that a word means: a node or role of that name, else ``leader``, ``follower``, ``voter``, ``ROLE-any``.

    Args:
        pick: chooses where several nodes fit.

    Raises:
        UsageError: there is no such node, role or selector, or no node fits it now.
    """
    named = [node.name for node in spec.nodes if word in (node.name, node.role)]
    if named:
        return named
    role = word.removesuffix(_ANY)
    if word.endswith(_ANY) and role in spec.roles:
        return [pick.choice(spec.of_role(role)).name]
    if word in SELECTORS:
        fit = [m for m in (members or {}).values() if spec.node(m.name) and m.ready and _fits(word, m)]
        if not fit:
            why = f"Its members are not known: no node answers, or profile {spec.profile} lists none."
            if members:
                why = f"None of its {len(members)} members is {word} now."
            raise UsageError(f"cluster {spec.cluster} has no {word}", why, "Name a node.")
        return [pick.choice(sorted(fit, key=lambda m: m.name)).name]
    known = {node.name for node in spec.nodes} | {*spec.roles, *SELECTORS, *(f"{role}{_ANY}" for role in spec.roles)}
    raise UsageError(f"cluster {spec.cluster} has no node or role {word!r}", "", nearest_node(word, known))


def _fits(word: str, member: Member) -> bool:
    if word == "leader":
        return member.leader
    return member.voter and (word == "voter" or not member.leader)


def milliseconds(text: str) -> float:
    """A delay: "100ms", "1.5s". Whether it makes sense is checked with the fault, as for the others.

    Raises:
        UsageError: it is none.
    """
    match = _TIME.fullmatch(text)
    if not match:
        raise UsageError(f"invalid delay {text!r} (examples: 100ms, 1.5s)")
    return float(match[1]) * (1 if match[2] == "ms" else 1000)


def percent(text: str) -> float:
    """A percentage: "10%", "0.5".

    Raises:
        UsageError: it is none.
    """
    match = _PERCENT.fullmatch(text)
    if not match:
        raise UsageError(f"invalid percentage {text!r} (examples: 10%, 0.5%)")
    return float(match[1])


def bits(text: str) -> int:
    """A rate: "1mbit", "500kbit".

    Raises:
        UsageError: it is none.
    """
    match = _RATE.fullmatch(text)
    if not match:
        raise UsageError(f"invalid rate {text!r} (examples: 500kbit, 1mbit)")
    return int(float(match[1]) * _SCALE[match[2].lower()])


def size(text: str) -> int:
    """Bytes: "64MiB", "1GiB".

    Raises:
        UsageError: it is none.
    """
    match = _SIZE.fullmatch(text)
    if not match:
        raise UsageError(f"invalid size {text!r} (examples: 64MiB, 1GiB)")
    return int(float(match[1]) * 1024 ** (_UNITS.index(match[2].lower()) + 1))


# Kinds of faults


def partition(groups: Sequence[Sequence[str]], *, one_way: bool = False, clients: bool = False) -> Fault:
    """No packet passes between the groups; nodes that are in no group still reach all.

    Raises:
        UsageError: there are fewer than two groups, an empty one, or a node in two.
    """
    if len(groups) < 2:
        raise UsageError(
            "a partition needs two groups of nodes", "", "Separate them with a slash: fault partition kv-1 / kv-2 kv-3."
        )
    seen: set[str] = set()
    for group in groups:
        if not group:
            raise UsageError("a group of the partition is empty", "", "Name a node or a role on each side of a slash.")
        for node in group:
            if node in seen:
                raise UsageError(f"node {node} is named twice in the partition", "", "Name each node once.")
            seen.add(node)
    text = f"partition {' / '.join(' '.join(group) for group in groups)}"
    text += " --one-way" * one_way + " --clients" * clients
    whole = tuple(tuple(group) for group in groups)
    return Fault("partition", tuple(sorted(seen)), text, groups=whole, one_way=one_way, clients=clients)


def isolated(spec: Spec, who: str, members: Members | None, pick: random.Random) -> list[list[str]]:
    """The groups of ``--isolate``: a node, a minority or a majority of the voters, and all other nodes.

    The leader is one of a ``minority`` and of a ``majority``; they are as small as possible.
    """
    if who in ("minority", "majority"):
        voters = [m for m in (members or {}).values() if m.voter and spec.node(m.name)]
        if len(voters) < 3:
            raise UsageError(f"--isolate {who}: the cluster has {count(len(voters), 'voter')}; this needs 3 or more")
        voters.sort(key=lambda m: (not m.leader, m.name))
        needed = Quorum.needed_for(len(voters))
        size = len(voters) - needed if who == "minority" else needed
        first = [m.name for m in voters[:size]]
    else:
        first = select(spec, who, members, pick)
    rest = [node.name for node in spec.nodes if node.name not in first]
    if not rest:
        raise UsageError(f"--isolate {who}: no other nodes to isolate it from")
    return [sorted(first), rest]


def shaped(kind: str, nodes: Sequence[str], to: Sequence[str] = (), **options: float) -> Fault:
    """A ``delay``, ``reorder`` or ``loss`` of what nodes send."""
    if both := sorted({*nodes} & {*to}):
        raise UsageError(f"--to {both[0]}: the packets of a node to itself are not affected", "", "Name another node.")
    named = {
        "delay": ("delay {delay:g}ms", " --jitter {jitter:g}ms" if options.get("jitter") else ""),
        "reorder": ("reorder {percent:g}%", " --delay {delay:g}ms"),
        "loss": ("loss {percent:g}%", ""),
    }[kind]
    first, more = (part.format(**options) for part in named)
    word, _, amount = first.partition(" ")
    text = f"{word} {' '.join(nodes)} {amount}{more}{''.join(f' --to {n}' for n in to)}"
    return _checked(Fault(kind, tuple(nodes), text, to=tuple(to), **options))  # type: ignore[arg-type]


def simple(kind: str, nodes: Sequence[str], shown: object = "", **options: float | str) -> Fault:
    """A fault of another kind: ``rate``, ``dns``, ``hang``, ``kill``, ``cpu``, ``memory`` or ``disk-full``."""
    text = " ".join(filter(None, [kind, *nodes, value_text(shown)]))
    return _checked(Fault(kind, tuple(nodes), text, **options))  # type: ignore[arg-type]


_BOUNDS = {
    "delay": (("delay", 0.001, 60_000, "milliseconds"), ("jitter", 0, 60_000, "milliseconds")),
    "reorder": (("percent", 0.1, 100, "percent"), ("delay", 0.001, 60_000, "milliseconds")),
    "loss": (("percent", 0.1, 100, "percent"),),
    "rate": (("rate", 8000, 10 * 1000**3, "bits a second"),),
    "cpu": (("percent", 1, 10_000, "percent"),),
    "memory": (("memory", 4 << 20, 1 << 50, "bytes"),),
}
_PROCESS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@+-]*")


def _checked(fault: Fault) -> Fault:
    """Refuses values that are not valid, whether they are from the command line or from Python."""
    for name, least, most, unit in _BOUNDS.get(fault.kind, ()):
        value = getattr(fault, name)
        if not least <= value <= most:
            raise UsageError(f"{fault.text}: {name} must be from {least:g} to {most:g} {unit}, not {value:g}")
    if fault.kind == "delay" and fault.jitter > fault.delay:
        raise UsageError(f"{fault.text}: the jitter must not be greater than the delay")
    if fault.kind in ("hang", "kill") and not _PROCESS.fullmatch(fault.process):
        raise UsageError(f"invalid process name {fault.process!r}", "", "Use the name that `ps` shows.")
    return fault


# What may be done


#: Kinds of which a node can have one at a time, because they use the same queue or limit.
_EXCLUSIVE = ({"delay", "reorder"}, {"rate"}, {"cpu"}, {"memory"}, {"dns"}, {"disk-full"})


def refuse_conflict(fault: Fault, active: Iterable[ActiveFault], cluster: str) -> None:
    """Refuses a fault that contradicts one in force, or repeats it.

    Raises:
        UsageError: with the number of the other one.
    """
    for other in active:
        shared = sorted({*fault.nodes} & {*other.fault.nodes})
        same = any(fault.kind in kinds and other.fault.kind in kinds for kinds in _EXCLUSIVE)
        repeated = fault.text == other.fault.text or (
            fault.kind == other.fault.kind == "hang" and fault.process == other.fault.process
        )
        if shared and fault.kind != "kill" and (same or repeated):
            raise UsageError(
                f"{fault.text}: {shared[0]} has a fault of this kind",
                f"Fault {other.id} is in force: {other.fault.text}.",
                f"End that one first: `minicluster heal {other.id} -c {cluster}`.",
            )


def cost(fault: Fault, active: Iterable[ActiveFault], members: Members | None) -> tuple[str, bool]:
    """What a fault does to the quorums, for people; and whether one is lost by it."""
    said, lost = [], False
    if members is None:
        return "", False
    voters = [m for m in members.values() if m.voter]
    for role in dict.fromkeys(m.role for m in voters):
        group = [m for m in voters if m.role == role]
        names = [m.name for m in group]
        needed = Quorum.needed_for(len(names))
        before = _together([m.name for m in group if m.ready], [a.fault for a in active])
        together = _together([m.name for m in group if m.ready], [*(a.fault for a in active), fault])
        if together == before:
            continue
        word = f"{role}: " if len({m.role for m in voters}) > 1 else ""
        left = f"{word}leaves {len(together)} of {len(names)} voters together"
        if len(together) < needed:
            said.append(f"{left}, {needed} needed: writes stop until healed")
            lost = lost or len(before) >= needed
        else:
            said.append(f"{left} ({', '.join(together)}): writes go on")
    return "; ".join(said), lost


#: After which a voter no longer votes. Of processes the user knows best: any is taken for the one that votes.
_STOPS = ("hang", "kill", "disk-full")


def _together(voters: Collection[str], faults: Sequence[Fault]) -> list[str]:
    """The most voters that can decide together: a leader and all those that reach it and that it reaches."""
    able = [v for v in voters if not any(f.kind in _STOPS and v in f.nodes for f in faults)]

    def reach(one: str, other: str) -> bool:
        return not any(f.cut(one, other) or f.cut(other, one) for f in faults)

    groups = ([other for other in able if other == one or reach(one, other)] for one in able)
    return max(groups, key=len, default=[])


# Carrying out


def operations(
    fault: Fault, sandboxes: Mapping[str, Sandbox], spec: Spec, here: Collection[str] | None = None
) -> list[str]:
    """The arguments of the helper's program, ``profiles/_fault/fault``, in order.

    Args:
        sandboxes: of every running node of the cluster; nodes that do not run have no packets.
        here: only what changes something in these nodes, as those of one host; by default all.
    """
    return [text for node, text in _in_nodes(fault, sandboxes, spec) if here is None or node in here]


def _in_nodes(fault: Fault, sandboxes: Mapping[str, Sandbox], spec: Spec) -> list[tuple[str, str]]:
    """The operations, each with the node in which it changes something."""
    on = [(name, sandboxes[name]) for name in fault.nodes if name in sandboxes]
    if fault.kind == "partition":
        return _partition(fault, sandboxes)
    if fault.kind == "loss":
        share = round(fault.percent * 10)
        if not fault.to:
            return [(name, f"lose {it.pid} {share} {_list(it.macs)}") for name, it in on]
        # Where they arrive: there it does not matter which address in the node they come from.
        senders = _list(mac for _name, it in on for mac in it.macs)
        return [(name, f"drop {sandboxes[name].pid} {share} {senders}") for name in fault.to if name in sandboxes]
    if fault.kind in ("delay", "reorder"):
        how = f"delay {fault.delay:g}ms" + (f" {fault.jitter:g}ms" if fault.jitter else "")
        how += f" reorder {fault.percent:g}%" if fault.kind == "reorder" else ""
        targets = _list(mac for name in fault.to if name in sandboxes for mac in sandboxes[name].macs) or "-"
        return [(name, f"shape {it.pid} {_list(it.macs)} {targets} {how}") for name, it in on]
    if fault.kind == "rate":
        return [(name, f"rate {it.pid} {_list(it.macs)} {fault.rate:.0f}") for name, it in on]
    if fault.kind == "disk-full":
        files = {name: disks(spec, node) for name, _it in on if (node := spec.node(name))}
        return [(name, f"fill {it.pid} {path} {volume}") for name, it in on for path, volume in files[name].items()]
    if fault.kind == "cpu":
        return [(name, f"cpu {it.pid} {it.id} {_share(fault.percent / 100)} {_share(it.cpus)}") for name, it in on]
    if fault.kind == "memory":
        return [(name, f"memory {it.pid} {it.id} {fault.memory:.0f} {it.memory}") for name, it in on]
    return [(name, f"{fault.kind} {it.pid} {fault.process}".rstrip()) for name, it in on]  # dns, hang or kill


def _partition(fault: Fault, sandboxes: Mapping[str, Sandbox]) -> list[tuple[str, str]]:
    found = []
    for i, group in enumerate(fault.groups):
        others = [g for j, g in enumerate(fault.groups) if j != i and (not fault.one_way or j == 0)]
        senders = _list(mac for g in others for name in g if name in sandboxes for mac in sandboxes[name].macs)
        if fault.one_way and i == 0:
            senders = ""
        found += [(n, f"drop {sandboxes[n].pid} 1000 {senders}") for n in group if n in sandboxes and senders]
    if fault.clients:
        nodes = _list(mac for it in sandboxes.values() for mac in it.macs)
        first = [(name, sandboxes[name]) for name in fault.groups[0] if name in sandboxes]
        found += [(name, f"strangers {it.pid} {_list(it.macs)} {nodes}") for name, it in first]
    return found


def sweep(sandboxes: Mapping[str, Sandbox]) -> list[str]:
    """Operations that remove whatever a fault left in nodes."""
    return [
        f"sweep {it.pid} {_list(it.macs) or '-'} {it.id} {_share(it.cpus)} {it.memory}" for it in sandboxes.values()
    ]


def _share(cpus: float) -> int:
    """Processors in thousandths."""
    return round(cpus * 1000)


def _list(words: Iterable[str]) -> str:
    return ",".join(words)


def changed(fault: Fault) -> tuple[str, ...]:
    """The nodes in which a fault changes something."""
    if fault.kind == "loss" and fault.to:
        return fault.to
    if fault.one_way and not fault.clients:  # the others lose what the first group sends
        return tuple(node for node in fault.nodes if node not in fault.groups[0])
    return fault.nodes


def gone(active: ActiveFault, sandboxes: Mapping[str, Sandbox]) -> list[str]:
    """The nodes that restarted or ended since a fault was applied: it is no longer in force in them."""
    if active.fault.kind == "disk-full":  # a file system stays full when its node restarts
        return []
    touched = active.fault.to if active.fault.kind == "loss" and active.fault.to else active.fault.nodes
    before = {name: pid for name, pid in active.processes.items() if name in touched}
    return [name for name, pid in before.items() if name not in sandboxes or sandboxes[name].pid != pid]


def knows(active: ActiveFault, sandboxes: Mapping[str, Sandbox]) -> bool:
    """Whether no node has started since a fault was applied: its helper can clear all."""
    return all(active.processes.get(name) == it.pid for name, it in sandboxes.items())


def lasting(fault: Fault, seconds: float) -> Fault:
    """The fault with an end; 0: without.

    Raises:
        UsageError: the seconds are not valid.
    """
    if not (math.isfinite(seconds) and seconds >= 0):
        raise UsageError(f"{fault.text}: seconds must be a number from 0, not {seconds:g}")
    return replace(fault, seconds=seconds)
