"""States that a cluster may be found in, built without an engine."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

from minicluster.engine.protocol import Container
from minicluster.model import labels
from minicluster.model.codec import node_hash
from minicluster.model.membership import Member
from minicluster.model.naming import container_name, network_name, volume_name
from minicluster.model.spec import Overrides, Spec
from minicluster.plan.observed import Observed, RecordVolume
from minicluster.profile import catalog
from minicluster.profile.loaded import Loaded
from minicluster.profile.resolve import resolve
from tests.unit.samples import TOY

AUTHORITY = "the-authority"


@cache
def _loaded(profile: str, settings: tuple[tuple[str, str], ...]) -> Loaded:
    # YAML takes most of the time of such a test, and what is loaded is never changed.
    return catalog.load(profile, dict(settings))


def spec_of(
    profile: str | Path = TOY,
    *,
    previous: Spec | None = None,
    set: Mapping[str, str] | None = None,
    image: str = "",
    **size: int,
) -> Spec:
    """A spec of cluster "c". Its images have no hash of their build: golden plans do not change with a Dockerfile."""
    spec = resolve(
        _loaded(str(profile), tuple((set or {}).items())),
        cluster="c",
        overrides=Overrides(size, set or {}, {"node": image} if image else {}),
        subnet="172.28.0.0/24",
        previous=previous,
    )
    plain = {name: replace(i, ref=f"build/{name}", build="") if i.build else i for name, i in spec.images.items()}
    return replace(spec, images=plain)


def record(spec: Spec | None, revision: int = 1) -> RecordVolume:
    return RecordVolume(f"c-spec-{revision}", revision, spec)


def standing(spec: Spec, *, members: Collection[str] | None = (), leader: str = "", **states: str) -> Observed:
    """A cluster that is as desired.

    Args:
        members: names of the members; by default every node that is to join. None: no member could be asked.
        leader: the one that leads.
        states: node (with _ for -) -> its container's state, where that is not "running".
    """
    joined = [n.name for n in spec.nodes if n.join] if members == () else members
    containers = {}
    for node in spec.nodes:
        about = {labels.CLUSTER: spec.cluster, labels.NODE: node.name, labels.ROLE: node.role}
        about[labels.SPEC] = node_hash(spec, node, AUTHORITY)
        state = states.get(node.name.replace("-", "_"), "running")
        name = container_name(spec.cluster, node.name)
        there = frozenset({network_name(spec.cluster)})
        image = spec.images[node.image].ref
        containers[node.name] = Container(name, name, about, state, state, image, node.address, networks=there)
    return Observed(
        cluster=spec.cluster,
        containers=containers,
        networks=(network_name(spec.cluster),),
        volumes=tuple(volume_name(spec.cluster, n.name, path) for n in spec.nodes for path in n.volumes),
        records=(record(spec),),
        members=None if joined is None else {n: _member(spec, n, leader, containers[n].state) for n in joined},
        authority=AUTHORITY,
    )


def _member(spec: Spec, name: str, leader: str, state: str) -> Member:
    voters = spec.of_role(spec.members.on) if spec.members else ()
    return Member(name, state == "running", any(node.name == name for node in voters), name == leader)


def without(observed: Observed, *nodes: str, volumes: bool = False) -> Observed:
    """The same after these nodes' containers were removed, and with ``volumes`` their data too."""
    keep = {name: c for name, c in observed.containers.items() if name not in nodes}
    rest = observed.volumes
    if volumes:
        rest = tuple(v for v in rest if not any(v.startswith(f"{observed.cluster}-{n}-") for n in nodes))
    down = {name: replace(m, ready=m.ready and name not in nodes) for name, m in (observed.members or {}).items()}
    return replace(observed, containers=keep, volumes=rest, members=None if observed.members is None else down)
