"""Faults: what is done to the nodes of a cluster on purpose, and the label that keeps it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Fault:
    """What is asked for. Fields that its kind does not use are empty."""

    kind: str  #: partition, delay, reorder, loss, rate, dns, hang, kill, cpu, memory or disk-full
    nodes: tuple[str, ...]  #: in which something is changed; of a partition all that are named
    text: str  #: as a command has it: "partition kv-1 / kv-2 kv-3"
    groups: tuple[tuple[str, ...], ...] = ()  #: of a partition: nodes that still reach each other
    one_way: bool = False  #: only packets of the first group to the others are lost
    clients: bool = False  #: the first group is unreachable from outside of the cluster too
    to: tuple[str, ...] = ()  #: only packets to these nodes; empty: all that the nodes send
    delay: float = 0.0  #: milliseconds
    jitter: float = 0.0  #: milliseconds by which a delay varies
    percent: float = 0.0  #: of the packets, or of one processor
    rate: int = 0  #: bits a second
    process: str = ""  #: name of the processes
    memory: int = 0  #: bytes
    seconds: float = 0.0  #: after which it ends by itself; 0: when it is healed

    def cut(self, one: str, other: str) -> bool:
        """Whether packets from one node to another are all lost."""
        if self.kind == "partition":
            here = next((i for i, group in enumerate(self.groups) if one in group), None)
            there = next((i for i, group in enumerate(self.groups) if other in group), None)
            if here is None or there is None or here == there:
                return False
            return here == 0 if self.one_way else True
        return self.kind == "loss" and self.percent >= 100 and one in self.nodes and (not self.to or other in self.to)


@dataclass(frozen=True)
class ActiveFault:
    """A fault that a helper container holds."""

    id: str  #: its number in the cluster
    fault: Fault
    since: float  #: seconds since 1970
    #: node, of all that ran when the fault was applied -> its first process then
    processes: Mapping[str, int] = field(default_factory=dict)

    @property
    def identity(self) -> tuple[str, float]:
        """Distinguishes it from every other one: a number is used again once its fault has ended."""
        return self.id, self.since

    def dump(self) -> str:
        """The label's text."""
        about: dict[str, Any] = asdict(self.fault)
        given = {f.name: about[f.name] for f in fields(Fault) if about[f.name] != f.default}
        return json.dumps({"id": self.id, "since": self.since, "processes": dict(self.processes), "fault": given})

    @classmethod
    def parse(cls, text: str) -> ActiveFault:
        """A fault by its label.

        Raises:
            ValueError: the label is of another version, or broken.
        """
        try:
            data = json.loads(text)
            about = dict(data["fault"])
            for name in ("nodes", "to"):
                about[name] = tuple(about.get(name, ()))
            about["groups"] = tuple(tuple(group) for group in about.get("groups", ()))
            return cls(data["id"], Fault(**about), float(data["since"]), dict(data["processes"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a fault: {error}") from None
