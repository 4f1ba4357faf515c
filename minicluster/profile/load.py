"""From YAML and overrides to a valid profile. Every error names file, line, column and the nearest right key."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from minicluster.errors import ProfileError, nearest
from minicluster.profile.loaded import Loaded
from minicluster.profile.overrides import override
from minicluster.profile.references import check_references
from minicluster.profile.schema import FORMAT, Profile
from minicluster.profile.wording import given, must
from minicluster.profile.yamldoc import Document, Where, parse


def load(directory: Path, settings: Mapping[str, str] | None = None, *, bundled: bool = False) -> Loaded:
    """Reads and checks ``profile.yaml`` in a folder, with the values of ``--set`` in place.

    Raises:
        ProfileError: for everything that is wrong with the profile, or with a value of ``--set`` in it.
        UsageError: for a ``--set`` that names nothing.
    """
    document = parse(directory / "profile.yaml")
    _check_version(document)
    for path, value in (settings or {}).items():
        override(document, path, value)
    for at, text in texts(document.data, ()):
        if "\0" in text:
            raise ProfileError(f"{document.where(at)}: a NUL in the text", "", "Remove it.")
    try:
        profile = Profile.model_validate(document.data)
    except ValidationError as error:
        fix = "`minicluster profile schema` prints the keys and their types."
        raise explained(error, document, Profile, "the profile", fix) from None
    loaded = Loaded(profile, directory, document, bundled)
    check_references(loaded)
    return loaded


def _check_version(document: Document) -> None:
    """Refuses a profile of another format by its version, since its keys mean something else."""
    version = document.data.get("version")
    if isinstance(version, int) and not isinstance(version, bool):
        if version == FORMAT:
            return
        if version > FORMAT:
            raise ProfileError(
                f"{document.where(('version',))}: profile format {version} is newer than this minicluster",
                f"It reads format {FORMAT}.",
                "Use a newer minicluster.",
            )
        what, fix = f"profile format {version} is no longer read", f"change it to `version: {FORMAT}`"
    elif version is None:
        what, fix = "the key 'version' is missing", f"begin with the line `version: {FORMAT}`"
    else:
        what, fix = f"version must be a number{given(version)}", f"write `version: {FORMAT}`"
    raise ProfileError(
        f"{document.where(('version',))}: {what}",
        f"This minicluster reads profile format {FORMAT}.",
        f"Adapt the profile to docs/profiles.md and {fix}; `minicluster profile validate` names the keys to change.",
    )


def texts(data: Any, at: Where) -> Iterator[tuple[Where, str]]:
    """Every text in a document, with its place."""
    if isinstance(data, str):
        yield at, data
    elif isinstance(data, dict):
        for key, value in data.items():
            yield (*at, key), key
            yield from texts(value, (*at, key))
    elif isinstance(data, list):
        for i, value in enumerate(data):
            yield from texts(value, (*at, i))


def explained(error: ValidationError, document: Document, root: type[BaseModel], whole: str, fix: str) -> ProfileError:
    """The errors that pydantic found in a document, each with its place, in our own words.

    Args:
        root: what the document was to be.
        whole: what it is called.
    """
    lines: list[str] = []
    for item in error.errors(include_url=False):
        at = tuple(part for part in item["loc"] if part != "[key]")
        name = ".".join(str(part) for part in at)
        if item["type"] == "extra_forbidden":
            hint = nearest(str(at[-1]), _known_keys(at[:-1], root))
            around = ".".join(map(str, at[:-1])) or whole
            lines.append(f"{document.where(at, key=True)}: unknown key {at[-1]!r} in {around}. {hint}")
        elif item["type"] == "missing":
            around = ".".join(map(str, at[:-1])) or whole
            lines.append(f"{document.where(at[:-1])}: {around} lacks the key {at[-1]!r}")
        else:
            place = document.where(at, key="[key]" in item["loc"])
            lines.append(f"{place}: {name} {must(item)}{given(item['input'])}")
    what, *more = dict.fromkeys(lines)
    return ProfileError(what, "\n".join(more), fix)


def _known_keys(at: Sequence[str | int], root: type[BaseModel]) -> list[str]:
    kind: Any = root
    for part in at:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(part)].annotation
        else:  # dict[Name, X] or list[X]: the part is a key or an index
            kind = typing.get_args(kind)[-1]
        if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
            kind = next((k for k in typing.get_args(kind) if k is not type(None)), None)
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []
