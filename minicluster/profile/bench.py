"""What a profile says of comparisons that its clusters take part in, for one cluster. It is no part of a spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from minicluster.profile import addressing, parts
from minicluster.profile.resolve import parts_of
from minicluster.profile.scope import Node, Scope, secret_of

if TYPE_CHECKING:
    from minicluster.model.spec import PartSpec, Spec
    from minicluster.profile.loaded import Loaded

Kind = Literal["kv"]


@dataclass(frozen=True)
class BenchSpec:
    """A program that loads a cluster. Its texts may have markers of secrets."""

    run: tuple[str, ...]
    env: Mapping[str, str]
    image: str  #: reference
    writes: str  #: when a write is acknowledged
    reads: str  #: whose data a read gives


def sizes(loaded: Loaded, kind: Kind, nodes: int) -> dict[str, int]:
    """Role -> number of nodes: so many store the data, and there are no others that a cluster can be without."""
    role = loaded.profile.bench[kind].role
    spare = [name for name, it in loaded.profile.roles.items() if it.min == 0 and (not it.allowed or 0 in it.allowed)]
    return {**dict.fromkeys(spare, 0), role: nodes}


def part(loaded: Loaded, kind: Kind) -> PartSpec | None:
    """The part that is the program; None where an image of the profile has it."""
    name = loaded.profile.bench[kind].part
    return parts.resolve({}, [name], "", {})[name] if name else None


def resolve(loaded: Loaded, spec: Spec, kind: Kind) -> BenchSpec:
    """What loads this cluster.

    Raises:
        ProfileError: a template fails.
    """
    bench = loaded.profile.bench[kind]
    roles: dict[str, list[Node]] = {name: [] for name in loaded.profile.roles}
    for node in spec.nodes:
        roles[node.role].append(Node(node.name, node.role, node.index, node.address, node.name))
    about = {"name": spec.cluster, "subnet": spec.subnet, "gateway": spec.gateway}
    values = {
        "cluster": {**about, "virtual_range": addressing.virtual_range(spec.subnet)},
        "settings": loaded.profile.settings,
        "parts": parts_of(loaded),
        "roles": roles,
        "nodes": [node for group in roles.values() for node in group],
        "secret": secret_of(loaded.profile),
    }
    scope = Scope(loaded, values, "bench", ("bench", kind))
    program = part(loaded, kind)
    return BenchSpec(
        scope.words(bench.run, "run"),
        scope.mapping(bench.env, "env"),
        program.ref if program else spec.images[bench.image or ""].ref,
        scope.text(bench.writes, "writes"),
        scope.text(bench.reads, "reads"),
    )
