"""Members of a cluster as its own software sees them, and their quorum: the only arithmetic of quorums."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Member:
    """A node as the cluster's own software sees it."""

    name: str
    ready: bool
    voter: bool = False
    leader: bool = False
    detail: str = ""  #: what else it says, for people

    @property
    def role(self) -> str:
        """By its name, which is ROLE-N."""
        return self.name.rpartition("-")[0]


@dataclass(frozen=True)
class Quorum:
    """The voting members of a cluster: those of one role, since they vote among themselves."""

    voters: int
    healthy: int
    needed: int
    survives: int  #: how many further voters may be lost
    leader: str  #: "" where there is none

    @classmethod
    def of(cls, members: Iterable[Member]) -> Quorum | None:
        """The weakest quorum among members; None where nobody votes."""
        return cls.weakest(cls.by_role(members).values())

    @staticmethod
    def weakest(quorums: Iterable[Quorum]) -> Quorum | None:
        """The one that is the nearest to being lost, of equal ones the last; None of none."""
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
    def _among(cls, voters: Sequence[Member]) -> Quorum:
        healthy, needed = sum(member.ready for member in voters), len(voters) // 2 + 1
        leader = next((member.name for member in voters if member.leader), "")
        return cls(len(voters), healthy, needed, max(0, healthy - needed), leader)

    @property
    def lost(self) -> bool:
        """Too few voters are healthy to decide anything."""
        return self.healthy < self.needed
