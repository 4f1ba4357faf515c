"""What runs in a cluster, as its own software reports it: tasks, pods, services, stored data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

_TEXTS = ("name", "node", "group", "state", "detail")


@dataclass(frozen=True)
class Workload:
    """A thing that runs in a cluster. All texts are whatever the cluster's users called it: never trusted."""

    name: str
    node: str = ""  #: on which it runs; "" for what is the whole cluster's, or is not placed yet
    group: str = ""  #: what it is one of several of, such as a service
    state: str = ""  #: a word of the system's own, such as "running" or "Pending"
    ready: bool = True  #: it is as it should be
    detail: str = ""  #: further text for people

    @classmethod
    def parse(cls, line: str) -> Workload:
        """One by a line that a profile's ``workload`` hook printed.

        Raises:
            ValueError: it is none.
        """
        row: Any = json.loads(line)
        if not isinstance(row, dict) or not isinstance(row.get("name"), str) or not row["name"]:
            raise ValueError(f"not a JSON object with name: {line}")
        ready = row.get("ready", True)
        if not isinstance(ready, bool):
            raise ValueError(f"ready must be true or false: {line}")
        return cls(**{text: str(row.get(text) or "") for text in _TEXTS}, ready=ready)


def parse(text: str) -> tuple[Workload, ...]:
    """All that a profile's ``workload`` hook printed, one a line.

    Raises:
        ValueError: a line is none.
    """
    return tuple(Workload.parse(line) for line in text.splitlines() if line.strip())
