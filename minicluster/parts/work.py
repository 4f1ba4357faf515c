"""What getting a part takes, and the image that it ends in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minicluster.model import labels
from minicluster.profile import parts

if TYPE_CHECKING:
    from minicluster.engine.protocol import Cancel, Engine, Progress
    from minicluster.model.spec import PartSpec
    from minicluster.profile.part_schema import Part, Version


class Unavailable(Exception):
    """A source does not have the part, or cannot be reached; the text says why."""


@dataclass(frozen=True)
class Work:
    """What getting one part takes."""

    engine: Engine
    spec: PartSpec
    base: str  #: reference of the base image
    progress: Progress
    note: Progress
    cancel: Cancel
    arch: str  #: of the programs, as Go names it

    @property
    def about(self) -> Part:
        """The part's description."""
        return parts.load(self.spec.name)

    @property
    def version(self) -> Version:
        """What is known of the version; of one that is not listed, what is known of the default one."""
        return self.about.versions.get(self.spec.version) or self.about.versions[self.about.default]

    def filled(self, text: str) -> str:
        """A text of the part's description, with the version and the architecture in place."""
        return parts.filled(text, self.spec.version, self.arch)


def machine(engine: Engine) -> str:
    """The architecture of the engine's machine, as Go names it."""
    return engine.info.platform.partition("/")[2]


def keep(work: Work, source: str, content: Iterable[bytes], *, pinned: bool = True) -> None:
    """Makes the part's image of a tar."""
    about = {
        labels.BUILD: f"part/{work.spec.name}",
        labels.PART: f"{work.spec.name} {work.spec.version}",
        labels.SOURCE: source,
        labels.LICENSE: work.version.license or work.about.license,
        **({} if pinned else {labels.UNPINNED: "yes"}),
    }
    work.progress("saving the image")
    work.engine.import_image(content, work.spec.ref, about)
    work.note(f"{work.spec.name} {work.spec.version} (source: {source}{'' if pinned else ', unpinned'})")
