"""Which profiles exist: those that come with minicluster, the user's own, and any folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicluster import paths
from minicluster.errors import UsageError, nearest

if TYPE_CHECKING:
    from minicluster.profile.load import Loaded


def bundled_directory() -> Path:
    """Inside an installed package, or beside it in a checkout."""
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


def names() -> list[str]:
    """Names of all profiles, sorted."""
    return sorted(_directories())


def locate(name_or_path: str) -> tuple[Path, bool]:
    """The folder of a profile by its name, or by a path to the folder or its profile.yaml; and whether it is bundled.

    Raises:
        UsageError: there is no such profile.
    """
    found = _directories()
    if name_or_path in found:
        return found[name_or_path]
    path = Path(name_or_path).expanduser()
    if path.name == "profile.yaml" and path.is_file():
        return path.parent.resolve(), False
    if (path / "profile.yaml").is_file():
        return path.resolve(), False
    if path.is_dir():
        raise UsageError(
            f"no profile in {name_or_path!r}", "The folder has no profile.yaml.", "Name a profile's folder."
        )
    raise UsageError(
        f"no profile is called {name_or_path!r}",
        f"It is neither one of {', '.join(sorted(found)) or 'none'} nor a folder with a profile.yaml.",
        nearest(name_or_path, found) if "/" not in name_or_path else "Check the path.",
    )


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
            raise UsageError(f"no folder is called {name!r}", f"It would be in {where}.")
        return shared[-1]
    known = _directories(bundled_only=bundled)
    if name not in known:
        raise UsageError(f"no profile is called {name!r}", "", nearest(name, known))
    return known[name][0]


def load(name_or_path: str, settings: Mapping[str, str] | None = None) -> Loaded:
    """A profile, read and checked, with the values of ``--set`` put in."""
    from minicluster.profile.load import load as load_directory

    directory, bundled = locate(name_or_path)
    return load_directory(directory, settings, bundled=bundled)


def fingerprint(name_or_path: str) -> str:
    """Changes whenever a profile does, or one whose files it may use; reads no profile."""
    from minicluster.profile.build import build_hash

    known = [folder for folder, _bundled in _directories().values()]
    return " ".join(build_hash(folder) for folder in [*known, locate(name_or_path)[0]])


def validate(name_or_path: str) -> Loaded:
    """Checks a profile and every template in it, by resolving it as ``up`` does.

    Once at its default size, and once with nodes of each role, so that no template is left out.

    Raises:
        ProfileError: something is wrong with it.
    """
    from minicluster.model.spec import Overrides
    from minicluster.profile.addressing import first_subnet
    from minicluster.profile.resolve import node_counts, resolve

    loaded = load(name_or_path)
    size = {}
    for name, count in node_counts(loaded, Overrides()).items():
        role = loaded.profile.roles[name]
        wanted = [n for n in role.allowed or [max(1, role.min)] if 0 < n <= role.max]
        if not count and wanted:
            size[name] = min(wanted)
    for overrides in (Overrides(), Overrides(size=size)):
        resolve(loaded, cluster=loaded.profile.name, overrides=overrides, subnet=first_subnet(), source=name_or_path)
    return loaded


def json_schema() -> dict[str, Any]:
    """The JSON Schema of profile.yaml, as published in docs/profile.schema.json."""
    from minicluster.profile.schema import Profile

    schema = Profile.model_json_schema()
    _describe(schema)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "minicluster profile"
    return schema


def _describe(schema: dict[str, Any]) -> None:
    """Puts the docstrings of fields into a schema. Pydantic can, at the cost of every command's time."""
    import ast
    import inspect
    import itertools

    from minicluster.profile import schema as module

    for part in ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body:
        if isinstance(part, ast.ClassDef):
            about = schema if part.name == "Profile" else schema["$defs"].get(part.name)
            for field, doc in itertools.pairwise(part.body):
                match field, doc:
                    case ast.AnnAssign(target=ast.Name(name)), ast.Expr(value=ast.Constant(str(text))):
                        said = {**about["properties"][name], "description": inspect.cleandoc(text)}
                        about["properties"][name] = dict(sorted(said.items()))
