"""``--set``: puts a value into a profile before it is validated, so that it is checked like one of the file."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import yaml

from minicluster.errors import ProfileError, UsageError, nearest
from minicluster.model.naming import count, value_text
from minicluster.profile.schema import Profile

if TYPE_CHECKING:
    from minicluster.profile.yamldoc import Document

#: Keys that say what the profile is; another value would make it another profile.
_IDENTITY = ("version", "name")


def override(document: Document, path: str, text: str) -> None:
    """Sets a part of a document to a value, which is read as YAML.

    Args:
        path: one of the profile's settings, or a path of keys and indexes with dots between.

    Raises:
        UsageError: the path names nothing.
        ProfileError: the value of a setting is of another type than its default.
    """
    option = f"--set {path}={text}"
    if (words := path.split("."))[::2] == ["roles", "disk"]:  # --disk is short for it
        option = f"--disk {words[1]}={text}"
    parts = _path_of(document, path, option)
    try:
        value = yaml.safe_load(text) if text else ""
    except (yaml.YAMLError, ValueError):  # ValueError: what looks like a date and is none
        value = text
    if parts[0] == "settings" and len(parts) == 2:
        default = document.data["settings"][parts[1]]
        value = _of_its_type(value, default, parts[1], text, option)
        document.defaults.setdefault(parts[1], default)
    if parts[0] == "parts":
        value = text  # 3.10 is a version, and no number
    data = document.data = copy.deepcopy(document.data)
    at: list[str | int] = []
    for depth, part in enumerate(parts[:-1]):
        key = _index(data, part, option) if isinstance(data, list) else part
        at.append(key)
        if isinstance(data, dict) and data.get(key) is None:
            data[key] = {}
        inner = data[key]
        if not isinstance(inner, (dict, list)):
            raise UsageError(
                f"{option}: {'.'.join(parts[: depth + 1])} is not a mapping or a list",
                "It is a single value.",
                "End the path there.",
            )
        data = inner
    last: str | int = _index(data, parts[-1], option) if isinstance(data, list) else parts[-1]
    data[last] = value
    at.append(last)
    document.overridden[tuple(at)] = option


def _path_of(document: Document, path: str, option: str) -> list[str]:
    parts = path.split(".")
    settings = _mapping(document, "settings")
    if len(parts) == 1 and parts[0] in settings:  # a setting may have the name of a key, such as version
        return ["settings", *parts]
    if isinstance(settings.get(parts[0]), dict):
        return ["settings", *parts]
    if parts[0] in _parts(document) and parts[1:] in (["version"], ["source"]):
        return ["parts", *parts]
    if parts[0] not in Profile.model_fields:
        raise UsageError(
            f"{option}: unknown key {parts[0]!r}",
            "PATH is one of the profile's settings, or a path in profile.yaml such as roles.agent.env.NAME.",
            nearest(parts[0], {*settings, *Profile.model_fields} - {*_IDENTITY}, shown=settings),
        )
    if parts[0] in _IDENTITY:
        raise UsageError(f"{option}: the profile's {parts[0]} cannot be set", "", nearest(parts[0], settings))
    named = _mapping(document, parts[0])
    if parts[0] in ("settings", "roles", "images") and len(parts) > 1 and parts[1] not in named:
        raise UsageError(f"{option}: unknown key {parts[1]!r} in {parts[0]}", "", nearest(parts[1], named))
    return parts


def _parts(document: Document) -> set[str]:
    """Names of the parts of all images."""
    images = (image for image in _mapping(document, "images").values() if isinstance(image, dict))
    return {part for image in images if isinstance(named := image.get("parts"), list) for part in named}


def _mapping(document: Document, key: str) -> dict[str, Any]:
    value = document.data.get(key)
    return value if isinstance(value, dict) else {}  # anything else is refused by the schema


def _of_its_type(value: Any, default: Any, name: str, text: str, option: str) -> Any:
    """A setting's value, which must be of the same type as its default. A list may be written with commas alone."""
    if isinstance(default, list):
        return value if isinstance(value, list) else [one.strip() for one in text.split(",") if one.strip()]
    if isinstance(default, dict):
        if value == "":
            return {}
        if not isinstance(value, dict):
            raise ProfileError(f"{option}: {name} must be a mapping", "", f"Such as --set {name}.KEY=VALUE.")
        return value
    if isinstance(default, str):  # what was read as a number is a text again
        if isinstance(value, (list, dict)):
            raise ProfileError(f"{option}: {name} must be a text", "", "Put it into further quotes.")
        return value if isinstance(value, str) else text
    words = {bool: "true or false", int: "an integer", float: "a number"}
    takes: dict[type, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (float, int)}
    if type(default) in takes and type(value) not in takes[type(default)]:
        what = f"{option}: {name} must be {words[type(default)]}"
        raise ProfileError(what, "", f"The default is {value_text(default)}.")
    return value


def _index(items: Sequence[Any], part: str, option: str) -> int:
    if part.isdecimal() and int(part) < len(items):
        return int(part)
    raise UsageError(
        f"{option}: {part!r} is not a position", f"The list has {count(len(items), 'item')}.", "Positions count from 0."
    )
