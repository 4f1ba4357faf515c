"""What the user asks of an ``up``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from minicluster.errors import UsageError, nearest
from minicluster.model import published
from minicluster.model.durations import DEFAULT_TIMEOUT
from minicluster.model.naming import value_text
from minicluster.model.spec import RESTART_POLICIES, Overrides, RegistrySpec, disk_settings
from minicluster.operations import connect as addresses, registries

if TYPE_CHECKING:
    from minicluster.model.lease import Lease
    from minicluster.paths import AnyPath


class UpKeywords(TypedDict, total=False):
    """The keywords of :meth:`minicluster.Cluster.up` and :func:`minicluster.cluster.dry_run`, as :class:`UpOptions`."""

    name: str | None
    named_by: str
    size: Mapping[str, int] | None
    set: Mapping[str, str | int | float | bool] | None
    image: Mapping[str, str] | None
    disk: Mapping[str, str] | None
    port: Mapping[str, int | None] | None
    mounts: Sequence[str] | None
    bind_address: str | None
    restart: str
    networks: Sequence[str] | None
    registries: Sequence[RegistrySpec] | None
    ca: AnyPath | None
    address_mode: str | None
    lease: Lease | None
    force: bool
    keep: bool
    timeout: float
    project: str
    load: Sequence[str]
    apply: Sequence[str]
    hosts: Sequence[str] | None
    place: Mapping[str, str] | None
    encrypt: bool


@dataclass(frozen=True, kw_only=True)
class UpOptions:
    """What the user asks of an ``up``. What an earlier ``up`` of the cluster was given stays in force.

    Raises:
        UsageError: a value is not valid.
    """

    profile: str | None = None  #: name or folder; None: what the cluster was created from, else "swarm"
    name: str | None = None  #: the cluster's; None: the profile's
    named_by: str = "--name"  #: what gave the name, for messages
    size: Mapping[str, int] | None = None  #: role -> number of nodes
    set: Mapping[str, str | int | float | bool] | None = None  #: path in the profile -> value
    image: Mapping[str, str] | None = None  #: name in the profile -> reference
    disk: Mapping[str, str] | None = None  #: role -> size of a file system of its own for the data of each node
    #: Endpoint or ROLE:PORT[/udp] -> host port on the first node, on the next one more; None: no longer asked for.
    port: Mapping[str, int | None] | None = None
    mounts: Sequence[str] | None = None  #: ROLE:HOSTPATH:/PATH[:ro], all that nodes have mounted; None: unchanged
    bind_address: str | None = None  #: address of the engine's machine to publish on, too; None: unchanged
    restart: str = ""  #: the engine's restart policy for nodes, one of RESTART_POLICIES; "": unchanged, at first "no"
    networks: Sequence[str] | None = None  #: further networks that nodes join as NODE and CLUSTER-NODE; None: unchanged
    #: registries that nodes pull images from, by :func:`minicluster.operations.registries.registry`; None: unchanged
    registries: Sequence[RegistrySpec] | None = None
    ca: AnyPath | None = None  #: a file of certificates that nodes trust; "": none; None: unchanged
    address_mode: str | None = (
        None  #: one of connect.MODES; None: $MINICLUSTER_ADDRESS_MODE, and what is published stays
    )
    lease: Lease | None = None  #: how long the cluster is wanted; None: unchanged, at first until it is removed
    force: bool = False  #: continue where nodes that leave take the quorum with them, or memory is short
    keep: bool = False  #: do not roll back after a failure
    project: str = ""  #: path of the project file; the options are then all that is asked for, nothing earlier stays
    load: Sequence[str] = ()  #: images of the engine that nodes have in the end
    apply: Sequence[str] = ()  #: files and folders that the system's own client applies in the end
    timeout: float = DEFAULT_TIMEOUT  #: seconds that the nodes have to get ready, counted from when their images exist
    hosts: Sequence[str] | None = None  #: docker contexts that the nodes are spread over; None: unchanged
    place: Mapping[str, str] | None = None  #: role or node -> hosts, separated by commas; "any": no longer asked for
    encrypt: bool = False  #: traffic between hosts is encrypted; only when the cluster is created

    def __post_init__(self) -> None:
        addresses.asked(self.address_mode)
        addresses.check_bind_address(self.bind_address)
        _ = self.overrides  # reads the words in them
        if self.restart and self.restart not in RESTART_POLICIES:
            raise UsageError(f"--restart {self.restart}: no such policy", "", nearest(self.restart, RESTART_POLICIES))
        if not self.timeout > 0:
            raise UsageError("--timeout must be greater than 0", "", "Give it in seconds.")

    @property
    def overrides(self) -> Overrides:
        """What is asked for on top of the profile."""
        return Overrides(
            dict(self.size or {}),
            {path: value_text(value) for path, value in (self.set or {}).items()} | disk_settings(self.disk or {}),
            dict(self.image or {}),
            {published.port_name(key): port or 0 for key, port in (self.port or {}).items()},
            self.restart,
            None if self.networks is None else tuple(dict.fromkeys(self.networks)),
            None if self.mounts is None else tuple(dict.fromkeys(map(published.mount, self.mounts))),
            self.bind_address or "",
            None if self.registries is None else registries.merged(self.registries),
            None if self.ca is None else registries.certificates(self.ca, "--ca") if os.fspath(self.ca) else "",
            tuple(dict.fromkeys(self.hosts or ())),
            dict(self.place or {}),
            self.encrypt,
        )
