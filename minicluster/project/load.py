"""From ``minicluster.yaml`` to a project. Every error names file, line, column and the nearest right key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from minicluster.errors import ProfileError
from minicluster.model.redact import is_secret_name
from minicluster.paths import expanded
from minicluster.profile import load as profiles
from minicluster.profile.yamldoc import Document, Kind, Where, parse
from minicluster.project import dotenv, find, schema
from minicluster.project.definition import Definition, Mount, Project, Registry
from minicluster.project.interpolate import Invalid, interpolate, variables

_KIND = Kind("a project file", "Make it readable.", "`minicluster init` writes an example.")
_FIX = "`minicluster config --schema` prints the keys and their types."


def load(path: Path, *, named: bool = False, environment: Mapping[str, str] | None = None) -> Project:
    """Reads and checks a project file.

    Args:
        named: the user named it, so that who may write it does not matter.
        environment: variables, which precede those of ``.env`` beside the file; by default this process's.

    Raises:
        ProfileError: something is wrong with the file.
        UsageError: something is wrong with ``.env``.
    """
    environment = os.environ if environment is None else environment
    document = parse(path, _KIND)
    _check_version(document)
    beside = path.parent / ".env"
    if beside.exists() and not named:
        find.check_trusted(beside, path)
    values = {**dotenv.read(beside, environment), **environment}
    document.data = {key: value for key, value in document.data.items() if not key.startswith("x-")}
    missing: dict[str, None] = {}
    secret: dict[Where, Any] = {}
    document.data = _filled(document, document.data, (), values, missing, secret)
    for at, text in profiles.texts(document.data, ()):
        if "\0" in text:
            raise ProfileError(f"{document.where(at)}: a NUL in the text", "", "Remove it.")
    try:
        file = schema.File.model_validate(document.data)
    except ValidationError as error:
        raise profiles.explained(error, document, schema.File, "the file", _FIX) from None
    made = {name: _definition(name, one, document, path.parent) for name, one in file.clusters.items()}
    notes = tuple(f"The variable {name} is not set; it is empty." for name in missing)
    return Project(path, made, document, notes, named, secret)


def current(start: Path | None = None) -> Project | None:
    """The project of the file that :func:`minicluster.project.find.find` finds; None if there is none."""
    found = find.find(start)
    return load(found[0], named=found[1]) if found else None


def _check_version(document: Document) -> None:
    version = document.data.get("version")
    if type(version) is int and version == schema.FORMAT:
        return
    where = document.where(("version",))
    if type(version) is int and version > schema.FORMAT:
        what, fix = f"format {version} is newer than this minicluster", "Use a newer minicluster."
    elif version is None:
        what, fix = "the key 'version' is missing", f"Begin with the line `version: {schema.FORMAT}`."
    else:
        what, fix = f"version must be {schema.FORMAT}, not {version!r}", f"Write `version: {schema.FORMAT}`."
    raise ProfileError(f"{where}: {what}", f"This minicluster reads format {schema.FORMAT}.", fix)


def _filled(
    document: Document,
    data: Any,
    at: Where,
    values: Mapping[str, str],
    missing: dict[str, None],
    secret: dict[Where, Any],
) -> Any:
    """The data with variables in its texts filled in. Keys stay as they are."""
    if isinstance(data, dict):
        return {k: _filled(document, value, (*at, k), values, missing, secret) for k, value in data.items()}
    if isinstance(data, list):
        return [_filled(document, value, (*at, i), values, missing, secret) for i, value in enumerate(data)]
    if len(at) == 4 and at[2] == "set" and data is not None and not isinstance(data, str):
        data = document.written[at]  # 1.30 is a version, and no number
    if not isinstance(data, str) or "$" not in data:
        return data
    if any(map(is_secret_name, variables(data))):
        secret[at] = data
        if at[2:3] == ("set",):
            secret[at[:4]] = reduce(lambda inner, key: inner[key], at[:4], document.data)  # the cluster has it as JSON
    try:
        return interpolate(data, values, lambda name: missing.setdefault(name))
    except Invalid as error:
        raise ProfileError(f"{document.where(at)}: {error}", "", error.fix) from None


def _definition(name: str, it: schema.Cluster, document: Document, folder: Path) -> Definition:
    def absolute(path: str) -> str:
        return os.path.normpath(folder / expanded(path))

    is_path = "/" in it.profile or it.profile in (".", "..")
    return Definition(
        name,
        absolute(it.profile) if is_path else it.profile,
        it.size,
        it.set,
        it.image,
        it.disk,
        it.ports,
        it.bind_address or "",
        tuple(Mount(one.role, absolute(one.host), one.path, one.read_only) for one in it.mounts),
        tuple(it.networks),
        tuple(it.registry_mirrors),
        tuple(
            Registry(one.host, tuple(one.mirrors), absolute(one.ca) if one.ca else "", one.insecure, one.credentials)
            for one in it.registries
        ),
        absolute(it.ca) if it.ca else "",
        it.restart,
        tuple(absolute(word) if word.startswith((".", "/", "~")) else word for word in it.load),
        tuple(map(absolute, it.apply)),
        it.ttl or "",
        tuple(it.hosts),
        {word: ",".join(hosts) for word, hosts in it.place.items()},
        it.encrypt,
    )
