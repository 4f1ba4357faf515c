"""Which profiles there are: those that come with minicluster, the user's own, and any folder."""

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


def _directories(bundled_only: bool = False) -> dict[str, tuple[Path, bool]]:
    found: dict[str, tuple[Path, bool]] = {}
    own = () if bundled_only else ((paths.config_home() / "profiles", False),)
    for root, bundled in ((bundled_directory(), True), *own):
        if root.is_dir():
            for folder in sorted(root.iterdir()):
                if (folder / "profile.yaml").is_file():
                    found[folder.name] = (folder, bundled)  # the user's own comes last and wins
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
    """The folder of the profile that another one refers to by name, or of a common part such as ``_lib``.

    What comes with minicluster refers to what comes with it, whatever profiles the user has.

    Raises:
        UsageError: there is no such profile.
    """
    if name.startswith("_"):
        folder = bundled_directory() / name
        if folder.is_dir():
            return folder
        parts = sorted(path.name for path in bundled_directory().glob("_*"))
        raise UsageError(f"no common part is called {name!r}", "", nearest(name, parts))
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
    """Changes whenever a profile does, without reading it; one may use files of those that are known by name."""
    from minicluster.profile.recipe import recipe_hash

    known = [folder for folder, _bundled in _directories().values()]
    known += sorted(bundled_directory().glob("_*"))
    return " ".join(recipe_hash(folder) for folder in [*known, locate(name_or_path)[0]])


def validate(name_or_path: str) -> Loaded:
    """Checks a profile to the last template, by resolving it as a first ``up`` would. Raises ``ProfileError``."""
    from minicluster.profile.network import first_subnet
    from minicluster.profile.resolve import resolve
    from minicluster.profile.spec import Overrides

    loaded = load(name_or_path)
    resolve(loaded, cluster=loaded.profile.name, overrides=Overrides(), subnet=first_subnet(), source=name_or_path)
    return loaded


def json_schema() -> dict[str, Any]:
    """The JSON Schema of profile.yaml, as published in docs/profile.schema.json."""
    from minicluster.profile.model import Profile

    schema = Profile.model_json_schema()
    _describe(schema)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "minicluster profile"
    return schema


def _describe(schema: dict[str, Any]) -> None:
    """Puts the docstrings of fields into a schema. Pydantic would, but for every command that reads a profile."""
    import ast
    import inspect
    import itertools

    from minicluster.profile import model

    for part in ast.parse(Path(model.__file__).read_text(encoding="utf-8")).body:
        if isinstance(part, ast.ClassDef):
            about = schema if part.name == "Profile" else schema["$defs"].get(part.name)
            for field, doc in itertools.pairwise(part.body):
                match field, doc:
                    case ast.AnnAssign(target=ast.Name(name)), ast.Expr(value=ast.Constant(str(text))):
                        said = {**about["properties"][name], "description": inspect.cleandoc(text)}
                        about["properties"][name] = dict(sorted(said.items()))
