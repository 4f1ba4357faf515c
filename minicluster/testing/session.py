"""What the processes of a test run share. Every run with pytest-xdist imports it, so it imports little."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass

from minicluster.host.processes import Process
from minicluster.model.lease import Lease


@dataclass(frozen=True)
class Run:
    """A test run."""

    owner: Process  #: when it ends, the run's clusters are removed
    id: str
    reuse: bool = False  #: keep shared clusters for the next run
    keep: bool = False  #: keep the clusters of tests that failed
    ttl: float = 86400.0  #: seconds for which both are kept

    @classmethod
    def begin(cls, *, reuse: bool, keep: bool, ttl: float) -> Run:
        """A new run, owned by this process."""
        return cls(Process.this(), secrets.token_hex(4), reuse, keep, ttl)

    def lease(self, *, shared: bool) -> Lease:
        """The lease of a cluster that this process creates."""
        if not shared:
            return Lease.owned()
        return Lease.lasting(self.ttl) if self.reuse else Lease.owned(self.owner)

    def dump(self) -> str:
        """The run as text, for its other processes."""
        return json.dumps({**vars(self), "owner": vars(self.owner)})

    @classmethod
    def load(cls, text: str) -> Run:
        """The inverse of :meth:`dump`."""
        data = json.loads(text)
        owner = Process(**data["owner"])
        if owner.lives() is None:
            # It is on another machine or in another container, where it cannot be watched from here.
            owner = Process.this()
        return cls(**{**data, "owner": owner})
