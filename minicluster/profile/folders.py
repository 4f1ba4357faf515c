"""Where profiles are: the folders of those that come with minicluster, of the user's own, and any other folder."""

from __future__ import annotations

from pathlib import Path

from minicluster import paths
from minicluster.errors import UsageError, nearest
from minicluster.paths import expanded


def bundled_directory() -> Path:
    """Inside an installed package, or next to it in a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "_profiles"
    return installed if installed.is_dir() else package.parent / "profiles"


def _roots(bundled_only: bool = False) -> list[tuple[Path, bool]]:
    """The folders in which profiles lie, and whether they come with minicluster; a later one wins."""
    own = [] if bundled_only else [(paths.config_home() / "profiles", False)]
    return [(root, bundled) for root, bundled in [(bundled_directory(), True), *own] if root.is_dir()]


def _directories(bundled_only: bool = False) -> dict[str, tuple[Path, bool]]:
    found: dict[str, tuple[Path, bool]] = {}
    for root, bundled in _roots(bundled_only):
        for folder in sorted(root.iterdir()):
            if (folder / "profile.yaml").is_file() and not folder.name.startswith("_"):
                found[folder.name] = (folder, bundled)
    return found


def known() -> list[Path]:
    """The folders of all profiles that have a name, and those whose files profiles share."""
    shared = [folder for root, _bundled in _roots() for folder in sorted(root.glob("_*"))]
    return [*(folder for folder, _bundled in _directories().values()), *shared]


def names() -> list[str]:
    """Names of all profiles, sorted."""
    return sorted(_directories())


def locate(name_or_path: str) -> tuple[Path, bool]:
    """The folder of a profile by name, by path (to it or its profile.yaml) or by alias; and whether it is bundled.

    Raises:
        UsageError: there is no such profile.
    """
    found = _directories()
    if name_or_path in found:
        return found[name_or_path]
    path = expanded(name_or_path)
    if path.name == "profile.yaml" and path.is_file():
        return path.parent.resolve(), False
    if (path / "profile.yaml").is_file():
        return path.resolve(), False
    for folder, bundled in found.values():
        if name_or_path in _aliases(folder):
            return folder, bundled
    if path.is_dir():
        raise UsageError(
            f"no profile in {name_or_path!r}", "The folder has no profile.yaml.", "Name a profile's folder."
        )
    raise UsageError(
        f"no profile named {name_or_path!r}",
        f"It is neither one of {', '.join(sorted(found)) or 'none'} nor a folder with a profile.yaml.",
        nearest(name_or_path, found) if "/" not in name_or_path else "Check the path.",
    )


def _aliases(folder: Path) -> list[object]:
    """The other names of a profile; none of one that is not valid, which is not checked here."""
    try:
        text = (folder / "profile.yaml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    if "\naliases:" not in text:  # most have none: then nothing is parsed
        return []
    import yaml

    try:
        found = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["aliases"]
    except (yaml.YAMLError, KeyError, TypeError):
        return []
    return list(found) if isinstance(found, list) else []


def named(name: str, *, bundled: bool) -> Path:
    """The folder that a profile refers to by name: another profile's, or ``_NAME``, whose files profiles share.

    A profile that comes with minicluster refers only to such, whatever profiles the user has.

    Raises:
        UsageError: there is no such folder.
    """
    if name.startswith("_"):
        shared = [root / name for root, _bundled in _roots(bundled) if (root / name).is_dir()]
        if not shared:
            where = " or ".join(str(root) for root, _bundled in _roots(bundled))
            known = [path.name for root, _bundled in _roots(bundled) for path in root.glob("_*")]
            raise UsageError(f"no folder named {name!r}", f"It would be in {where}.", nearest(name, known))
        return shared[-1]
    found = _directories(bundled_only=bundled)
    if name not in found:
        raise UsageError(f"no profile named {name!r}", "", nearest(name, found))
    return found[name][0]
