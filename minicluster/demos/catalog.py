"""Which demos there are: in the folder ``demos`` of each profile, and any Markdown file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from minicluster.demos.document import Demo, read
from minicluster.errors import UsageError, nearest
from minicluster.paths import expanded
from minicluster.profile import folders


@dataclass(frozen=True)
class Place:
    """A demo, and the profile that it is for."""

    demo: Demo
    profile: str  #: name or folder, as ``up`` takes it


def files(profile: str | None = None) -> list[tuple[Path, str]]:
    """The files of demos of all profiles, or of one, and their profiles.

    Raises:
        UsageError: there is no such profile.
    """
    found = []
    for name in [profile] if profile else folders.names():
        folder, _bundled = folders.locate(name)
        found += [(path, name) for path in sorted((folder / "demos").glob("*.md"))]
    return found


def ordered(places: list[Place]) -> list[Place]:
    """By name; of several with one name, the one that is chosen where no profile is named comes first."""
    return sorted(places, key=lambda place: (place.demo.name, place.demo.order, place.profile))


def is_file(word: str) -> bool:
    """Whether a word is the path of a demo's file, and not a demo's name."""
    return word.endswith(".md") or "/" in word


def find(word: str, profile: str | None = None) -> Place:
    """A demo by its name, or by the path of its file.

    Args:
        profile: name or folder; by default the first that has it, or the one that the file names.

    Raises:
        UsageError: there is no such demo, or it is malformed, or its file names no profile.
    """
    if is_file(word):
        path = expanded(word)
        demo = read(path)
        named = profile or demo.profile or _around(path)
        if not named:
            raise UsageError(
                f"{path} names no profile", "", "Use --profile, or write 'profile: NAME' in its front matter."
            )
        folders.locate(named)
        return Place(demo, named)
    known = files(profile)
    found = ordered([Place(read(path), of) for path, of in known if path.stem == word])
    if found:
        return found[0]
    of = f" of profile {profile}" if profile else ""
    raise UsageError(f"no demo {word!r}{of}", "", nearest(word, {path.stem for path, _profile in known}))


def _around(path: Path) -> str:
    """The profile whose folder a demo's file is in, if any."""
    folder = path.resolve().parent
    return str(folder.parent) if folder.name == "demos" and (folder.parent / "profile.yaml").is_file() else ""
