"""Members of a cluster as its own software sees them, and their quorum: the only arithmetic of quorums."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Member:
    """A node as the cluster's own software sees it."""

    name: str
    ready: bool
    voter: bool = False
    leader: bool = False
    detail: str = ""  #: what else it says, for people
    fix: str = ""  #: the command that ends a state that does not end by itself
    group: str = ""  #: the role whose voters it votes with, if not its own

    @classmethod
    def parse(cls, line: str) -> Member:
        """A member by a line that a profile's ``members`` hook printed.

        Raises:
            ValueError: it is none.
        """
        row: Any = json.loads(line)
        if not isinstance(row, dict) or not isinstance(row.get("name"), str) or "ready" not in row:
            raise ValueError(f"not a JSON object with name and ready: {line}")
        flags = {flag: row.get(flag) or False for flag in ("ready", "voter", "leader")}
        if wrong := [flag for flag, value in flags.items() if not isinstance(value, bool)]:
            raise ValueError(f"{wrong[0]} must be true or false: {line}")
        detail, fix, group = (str(row.get(name) or "") for name in ("detail", "fix", "group"))
        return cls(row["name"], **flags, detail=detail, fix=fix, group=group)

    @property
    def role(self) -> str:
        """Whose voters it votes with: by its name, which is ROLE-N, unless it says another."""
        return self.group or self.name.rpartition("-")[0]

    @property
    def alarm(self) -> str:
        """The state that does not end by itself, with the command that ends it; "" if it is in none."""
        return f"{self.name}: {self.detail}: {self.fix}" if self.fix else ""


def parse(text: str) -> dict[str, Member]:
    """The members that a profile's ``members`` hook printed, one a line, by name.

    Raises:
        ValueError: a line is no member.
    """
    members: dict[str, Member] = {}
    for member in [Member.parse(line) for line in text.splitlines() if line.strip()]:
        # A recreated node may be listed twice under its name; the living entry counts.
        if member.name not in members or member.ready:
            members[member.name] = member
    return members


@dataclass(frozen=True)
class Quorum:
    """The voting members of one role, since those vote among themselves. A role without voters has no quorum."""

    voters: int
    healthy: int
    needed: int
    survives: int  #: how many more voters may be lost
    leader: str  #: "" if there is none

    @staticmethod
    def needed_for(voters: int) -> int:
        """How many of so many voters must be healthy to decide anything: more than half."""
        return voters // 2 + 1

    @classmethod
    def of(cls, members: Iterable[Member]) -> Quorum | None:
        """The weakest quorum among members; None if no member votes."""
        return cls.weakest(cls.by_role(members).values())

    @staticmethod
    def weakest(quorums: Iterable[Quorum]) -> Quorum | None:
        """The one that is nearest to being lost, of equal ones the last; None if there is none."""
        return min(reversed([*quorums]), key=lambda quorum: quorum.healthy - quorum.needed, default=None)

    @classmethod
    def by_role(cls, members: Iterable[Member]) -> dict[str, Quorum]:
        """The quorum of each role that has voters."""
        voters: dict[str, list[Member]] = {}
        for member in members:
            if member.voter:
                voters.setdefault(member.role, []).append(member)
        return {role: cls._among(group) for role, group in voters.items()}

    @classmethod
    def if_running(cls, members: Iterable[Member], running: Collection[str]) -> dict[str, Quorum]:
        """The quorum of each role that has voters, once exactly these nodes run."""
        return cls.by_role(replace(member, ready=member.name in running) for member in members)

    @classmethod
    def _among(cls, voters: Sequence[Member]) -> Quorum:
        healthy, needed = sum(member.ready for member in voters), cls.needed_for(len(voters))
        leader = next((member.name for member in voters if member.leader), "")
        return cls(len(voters), healthy, needed, max(0, healthy - needed), leader)

    @property
    def lost(self) -> bool:
        """Too few voters are healthy to decide anything."""
        return self.healthy < self.needed


def leader_last(member: Member | None) -> tuple[bool, bool]:
    """A key that sorts the nodes of a rolling change: those that are not ready come first, the leader comes last."""
    return (bool(member and member.ready), bool(member and member.leader))
