"""Which host each node of a cluster on several hosts is on, and why. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from minicluster.errors import MiniclusterError, UsageError, nearest
from minicluster.model.membership import Quorum
from minicluster.model.naming import count, listed, size
from minicluster.model.spec import EVERYWHERE, NodeSpec, Spec


@dataclass(frozen=True)
class Host:
    """What a placement has to know of a host that answers."""

    address: str  #: by which it is reached; where endpoints are published
    free: int  #: bytes of memory


def place(
    spec: Spec,
    before: Spec | None,
    hosts: Mapping[str, Host],
    gone: Mapping[str, str],
    asked: Collection[str] = (),
) -> tuple[Spec, dict[str, str]]:
    """The spec with a host for each node, and the reason for each that is new.

    A node stays on its host as long as that may have it. Nodes of roles that vote are spread over hosts, so that the
    loss of one takes as few votes as possible; others go where the most memory is free.

    Args:
        spec: with the names of hosts, and what the user says about single nodes, in its overrides.
        before: the spec that the cluster has.
        hosts: those that answer.
        gone: those that do not, that are given up or cannot have nodes, and why.
        asked: the nodes and roles that the user places now; what is said of others was recorded before.

    Raises:
        UsageError: a host or node that the user names does not exist, no host is left of those that were recorded for
            one, or nodes on different hosts would share a volume.
        MiniclusterError: a node cannot be moved from a host that does not answer.
    """
    names = spec.overrides.hosts
    allowed = {node.name: _allowed(spec, node, names) for node in spec.nodes}
    _check_places(spec, names, asked)
    voting = _voting(spec)
    free = {name: hosts[name].free for name in names if name in hosts}
    of_role: Counter[tuple[str, str]] = Counter()  # host and role -> nodes
    chosen: dict[str, str] = {}
    why: dict[str, str] = {}

    def put(node: NodeSpec, host: str) -> None:
        chosen[node.name] = host
        of_role[host, node.role] += 1
        if host in free:
            free[host] -= node.footprint

    former = {node.name: node.host for node in before.nodes} if before else {}
    moved: dict[str, str] = {}
    for node in spec.nodes:
        host = former.get(node.name, "")
        if host and host in allowed[node.name] and host in hosts:
            put(node, host)
        elif host:
            moved[node.name] = _moved(spec, node, host, allowed[node.name], gone)
    _check_quorum(spec, before, moved)
    for node in spec.nodes:
        if node.name in chosen:
            continue
        able = [name for name in allowed[node.name] if name in free]
        if not able:
            raise MiniclusterError(
                f"{node.name} cannot be placed: {count(len(allowed[node.name]), 'host')} may have it, and none answers",
                "\n".join(f"{name}: {gone[name]}" for name in allowed[node.name] if name in gone),
                "Start their engines, or name others with --hosts and --place.",
            )
        votes = node.role in voting
        host = min(able, key=lambda h: (of_role[h, node.role] if votes else 0, -free[h], able.index(h)))
        reason = _reason(spec, node, host, able, votes, of_role, free)
        why[node.name] = "; ".join(filter(None, (moved.get(node.name, ""), reason)))
        put(node, host)
    nodes = tuple(_on(spec, node, chosen[node.name], hosts) for node in spec.nodes)
    addresses = {**(before.hosts if before else {}), **{name: host.address for name, host in hosts.items()}}
    placed = replace(spec, nodes=nodes, hosts={name: addresses.get(name, "") for name in names})
    _check_shared(placed)
    return placed, why


def _voting(spec: Spec) -> set[str]:
    """The roles that have a quorum to lose: those that a cluster is bootstrapped from, and that know its members."""
    return {node.role for node in spec.nodes if node.bootstraps} | ({spec.members.on} if spec.members else set())


def _check_quorum(spec: Spec, before: Spec | None, moved: Mapping[str, str]) -> None:
    """Refuses to move so many voters at once that the others have no quorum: each begins with empty data."""
    for role in sorted(_voting(spec)):
        moving = [node.name for node in spec.of_role(role) if node.name in moved]
        voters = len(before.of_role(role)) if before else 0
        if moving and voters - len(moving) < Quorum.needed_for(voters):
            raise MiniclusterError(
                f"{listed(moving)} cannot move to other hosts at once",
                f"{voters - len(moving)} of {voters} {role} nodes would keep their data, and "
                f"{Quorum.needed_for(voters)} are needed for a quorum.",
                "Move one at a time, such as with --place; or start the hosts that do not answer.",
            )


def immovable(spec: Spec, lost: Collection[str]) -> list[str]:
    """Which of these nodes `up` does not put on other hosts: voters that cannot join again, or are too many at once."""
    found = []
    for role in sorted(_voting(spec)):
        voters = spec.of_role(role)
        moving = [node for node in voters if node.name in lost]
        if moving and (not moving[0].join or len(voters) - len(moving) < Quorum.needed_for(len(voters))):
            found += [node.name for node in moving]
    return found


def _allowed(spec: Spec, node: NodeSpec, names: Sequence[str]) -> list[str]:
    asked = spec.overrides.place.get(node.name) or spec.overrides.place.get(node.role)
    return [name for name in asked.split(",") if name in names] if asked else [*names]


def _check_places(spec: Spec, names: Sequence[str], asked: Collection[str]) -> None:
    """Refuses words that are wrong. What was right before may be of a node that is scaled away, or of former hosts."""
    known = {*spec.roles, *(node.name for node in spec.nodes)}
    why = f"The cluster's hosts are {', '.join(names)}."
    for word, hosts in spec.overrides.place.items():
        if word not in known and word in asked:
            raise UsageError(f"--place {word}={hosts}: no role or node {word!r}", "", nearest(word, known))
        left_out = [host for host in hosts.split(",") if host not in names]
        if left_out and word in asked:
            what = f"--place {word}={hosts}: {left_out[0]!r} is not one of the hosts"
            raise UsageError(what, why, nearest(left_out[0], names))
        if word in known and left_out == hosts.split(","):
            what = f"--place {word}={hosts}, which was said before, leaves no host for {word}"
            raise UsageError(what, why, f"`--place {word}=any` takes it back; or place it on one of these.")


def _moved(spec: Spec, node: NodeSpec, host: str, allowed: Sequence[str], gone: Mapping[str, str]) -> str:
    """Why a node leaves its host; an error where it cannot."""
    if host in gone:
        why = f"host {host} cannot have it ({gone[host]})"
    elif host in spec.overrides.hosts:
        why = f"--place does not allow host {host}"
    else:
        why = f"host {host} is no longer one of the cluster's"
    if node.role in _voting(spec) and not node.join:
        raise MiniclusterError(
            f"{node.name} cannot leave host {host}",
            f"{why[:1].upper()}{why[1:]}. Profile {spec.profile} cannot make a {node.role} that lost its data a member "
            "again.",
            f"Bring host {host} back." if host in gone else f"Keep host {host}.",
        )
    lost = f"; its data there ({', '.join(node.volumes)}) are not used any more" if node.volumes else ""
    return f"{why}{lost}"


def _reason(
    spec: Spec,
    node: NodeSpec,
    host: str,
    able: Sequence[str],
    votes: bool,
    of_role: Counter[tuple[str, str]],
    free: Mapping[str, int],
) -> str:
    if node.name in spec.overrides.place or node.role in spec.overrides.place:
        word = node.name if node.name in spec.overrides.place else node.role
        if len(able) == 1:
            return f"--place {word}={spec.overrides.place[word]}"
    if len(able) == 1:
        return "the only host that answers"
    least = min(of_role[h, node.role] for h in able)
    equal = [h for h in able if of_role[h, node.role] == least] if votes else [*able]
    memory = f"{size(free[host])} of memory free"
    if votes:
        spread = f"{least or 'no'} {node.role} there"
        return spread if len(equal) == 1 else f"{spread}, {memory}"
    return f"{memory}, the most"


def _on(spec: Spec, node: NodeSpec, host: str, hosts: Mapping[str, Host]) -> NodeSpec:
    """The node on a host: its certificates are valid for the host's address, where clients reach it."""
    if not node.endpoints or host not in hosts:
        return replace(node, host=host)
    address = hosts[host].address
    certificates = tuple(
        replace(one, addresses=tuple(dict.fromkeys(a for a in (*one.addresses, address) if a != EVERYWHERE)))
        for one in node.certificates
    )
    return replace(node, host=host, certificates=certificates)


def _check_shared(spec: Spec) -> None:
    """Refuses nodes on different hosts that have a volume in common: it would be another one on each host."""
    for path in dict.fromkeys(path for node in spec.nodes for path in node.shared):
        sharing = [node for node in spec.nodes if path in node.shared]
        if len({node.host for node in sharing}) > 1:
            roles = dict.fromkeys(node.role for node in sharing)
            one = next(iter(spec.hosts))
            fix = " ".join(f"--place {role}={one}" for role in roles)
            raise UsageError(
                f"{listed([node.name for node in sharing])} share {path}, and cannot be on several hosts",
                "A volume is on one host: each host would have another one, with other data.",
                f"Put these nodes on one host: {fix}.",
            )
