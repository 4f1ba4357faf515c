"""Profiles by name or folder: read, checked to the last template, and described as a JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicluster.profile import folders

if TYPE_CHECKING:
    from pydantic import BaseModel

    from minicluster.profile.loaded import Loaded


def load(name_or_path: str, settings: Mapping[str, str] | None = None) -> Loaded:
    """A profile, read and checked, with the values of ``--set`` put in."""
    from minicluster.profile.load import load as load_directory

    directory, bundled = folders.locate(name_or_path)
    return load_directory(directory, settings, bundled=bundled)


def fingerprint(name_or_path: str) -> str:
    """Changes whenever a profile does, or one whose files it may use; reads no profile."""
    from minicluster.profile.image_tag import build_hash

    known = folders.known()
    return " ".join(build_hash(folder) for folder in [*known, folders.locate(name_or_path)[0]])


def validate(name_or_path: str) -> Loaded:
    """Checks a profile and every template in it, by resolving it as ``up`` does.

    Once at its default size, once with nodes of each role, and once with the nodes that a role says something of, so
    that no template is left out.

    Raises:
        ProfileError: something is wrong with it.
    """
    from minicluster.errors import ProfileError, UsageError
    from minicluster.model.spec import Overrides
    from minicluster.profile import bench
    from minicluster.profile.addressing import first_subnet
    from minicluster.profile.resolve import node_counts, resolve

    loaded = load(name_or_path)
    size: dict[str, int] = {}
    further: list[dict[str, int]] = []
    for name, count in node_counts(loaded, Overrides()).items():
        role = loaded.profile.roles[name]
        wanted = [n for n in role.allowed or [max(1, role.min)] if 0 < n <= role.max]
        if not count and wanted:
            size[name] = min(wanted)
        if (number := max(role.nodes, default=0)) > count:
            further.append({name: min(n for n in role.allowed or [max(number, role.min)] if n >= number)})
    for sizes in ({}, size, *further):
        overrides = Overrides(size=sizes)
        spec = resolve(
            loaded, cluster=loaded.profile.name, overrides=overrides, subnet=first_subnet(), source=name_or_path
        )
        for kind in loaded.profile.bench:
            bench.resolve(loaded, spec, kind)
    for kind, about in loaded.profile.bench.items():
        try:
            load(name_or_path, about.set)
        except UsageError as error:
            where = loaded.document.where(("bench", kind, "set"))
            raise ProfileError(f"{where}: {error.what}", error.why, error.fix) from None
    return loaded


def json_schema() -> dict[str, Any]:
    """The JSON Schema of profile.yaml, as published in docs/profile.schema.json."""
    from minicluster.profile.schema import Profile

    return described(Profile, "minicluster profile")


def described(root: type[BaseModel], title: str) -> dict[str, Any]:
    """The JSON Schema of a file, with the docstrings of fields. Pydantic can, at the cost of every command's time."""
    import ast
    import inspect
    import itertools

    schema = {**root.model_json_schema(), "$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    for part in ast.parse(Path(inspect.getfile(root)).read_text(encoding="utf-8")).body:
        if isinstance(part, ast.ClassDef):
            about = schema if part.name == root.__name__ else schema["$defs"].get(part.name)
            for field, doc in itertools.pairwise(part.body):
                match field, doc:
                    case ast.AnnAssign(target=ast.Name(name)), ast.Expr(value=ast.Constant(str(text))):
                        said = {**about["properties"][name], "description": inspect.cleandoc(text)}
                        about["properties"][name] = dict(sorted(said.items()))
    return schema
