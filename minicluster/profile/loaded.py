"""A profile that was read and is valid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minicluster.profile.schema import Profile
    from minicluster.profile.yamldoc import Document


@dataclass(frozen=True)
class Loaded:
    """A valid profile, its folder, and the position of each of its parts."""

    profile: Profile
    directory: Path
    document: Document
    bundled: bool = False  #: one of those that come with minicluster

    @property
    def source(self) -> str:
        """What finds it again: its name if it comes with minicluster, else its folder."""
        return self.profile.name if self.bundled else str(self.directory)
