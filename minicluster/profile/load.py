"""From YAML and overrides to a validated profile. Every error names file, line, column and the nearest right key."""

from __future__ import annotations

import copy
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from minicluster.errors import ProfileError, UsageError, nearest
from minicluster.profile.model import Hook, Profile
from minicluster.profile.yamldoc import Document, parse

#: A path in the folder of another profile, as :func:`inside` takes it.
_SHARED = re.compile(r"(?P<profile>[a-z_][a-z0-9-]*):(?P<path>.+)")


@dataclass(frozen=True)
class Loaded:
    """A valid profile, where it lies, and where each of its parts stands."""

    profile: Profile
    directory: Path
    document: Document
    bundled: bool = False  #: one of those that come with minicluster

    @property
    def source(self) -> str:
        """What finds it again: its name where it comes with minicluster, else its folder."""
        return self.profile.name if self.bundled else str(self.directory)


def load(directory: Path, settings: Mapping[str, str] | None = None, *, bundled: bool = False) -> Loaded:
    """Reads and checks ``profile.yaml`` in a folder, with the values of ``--set`` put in first.

    Raises:
        ProfileError: for everything that is wrong with the profile.
        UsageError: for a ``--set`` that names nothing.
    """
    document = parse(directory / "profile.yaml")
    for path, value in (settings or {}).items():
        _override(document, path, value)
    try:
        profile = Profile.model_validate(document.data)
    except ValidationError as error:
        raise _profile_error(error, document) from None
    loaded = Loaded(profile, directory, document, bundled)
    _check_references(loaded)
    return loaded


def _override(document: Document, path: str, text: str) -> None:
    option = f"--set {path}={text}"
    parts = path.split(".")
    data = document.data
    settings = data.get("settings") or {}
    if parts[0] not in Profile.model_fields:
        if len(parts) > 1 or parts[0] not in settings:
            raise UsageError(
                f"{option}: nothing is called {parts[0]!r}",
                "PATH is one of the profile's settings, or a path in profile.yaml such as roles.agent.env.NAME.",
                nearest(parts[0], [*settings, *Profile.model_fields]),
            )
        parts = ["settings", *parts]
    named = data.get(parts[0]) or {}
    if parts[0] in ("settings", "roles", "images") and len(parts) > 1 and parts[1] not in named:
        raise UsageError(f"{option}: nothing in {parts[0]} is called {parts[1]!r}", "", nearest(parts[1], named))
    try:
        value = yaml.safe_load(text) if text else ""
    except yaml.YAMLError:
        value = text
    if parts[0] == "settings" and len(parts) == 2:
        value = _of_its_kind(value, named[parts[1]], parts[1], text, option)
    data = document.data = copy.deepcopy(data)
    for depth, part in enumerate(parts[:-1]):
        if isinstance(data, list):
            data = data[_index(data, part, option)]
            continue
        inner = data.get(part)
        if inner is None:
            inner = data[part] = {}
        if not isinstance(inner, (dict, list)):
            raise UsageError(f"{option}: {'.'.join(parts[: depth + 1])} has no parts", "It is a single value.")
        data = inner
    last: str | int = _index(data, parts[-1], option) if isinstance(data, list) else parts[-1]
    data[last] = value
    document.overridden[tuple(int(p) if p.isdecimal() else p for p in parts)] = option


def _of_its_kind(value: Any, default: Any, name: str, text: str, option: str) -> Any:
    """A setting's value, which is of the kind that the profile's own is of."""
    if isinstance(default, str):  # what was read as a number is a text again; a list is none, as the schema will say
        return value if isinstance(value, (str, list, dict)) else text
    kinds = {bool: "true or false", int: "a number", float: "a number"}
    wanted, found = kinds.get(type(default)), kinds.get(type(value))
    if wanted and wanted != found:
        raise ProfileError(
            f"{option}: {name} cannot be {text!r}",
            f"It is {wanted}; the profile has {_said(default)}.",
            "Choose another.",
        )
    return value


def _said(value: Any) -> str:
    """A value as YAML says it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _index(items: Sequence[Any], part: str, option: str) -> int:
    if part.isdecimal() and int(part) < len(items):
        return int(part)
    raise UsageError(f"{option}: {part!r} is no position", f"The list has {len(items)} items, counted from 0.")


def _profile_error(error: ValidationError, document: Document) -> ProfileError:
    lines: list[str] = []
    fix = "Correct it; `minicluster profile schema` prints what a profile may say."
    for item in error.errors(include_url=False):
        at = tuple(part for part in item["loc"] if part != "[key]")
        name = ".".join(str(part) for part in at)
        kind = item["type"]
        if kind == "extra_forbidden":
            hint = nearest(str(at[-1]), _known_keys(at[:-1]))
            around = ".".join(map(str, at[:-1])) or "the profile"
            lines.append(f"{document.where(at, key=True)}: unknown key {at[-1]!r} in {around}. {hint}")
        elif kind == "missing":
            lines.append(
                f"{document.where(at[:-1])}: {'.'.join(map(str, at[:-1])) or 'the profile'} lacks the key {at[-1]!r}"
            )
        else:
            message = item["msg"][0].lower() + item["msg"][1:]
            lines.append(
                f"{document.where(at, key='[key]' in item['loc'])}: {name}: {message}, is {item['input']!r:.80}"
            )
    what, *more = dict.fromkeys(lines)
    return ProfileError(what, "\n".join(more), fix)


def _known_keys(at: Sequence[str | int]) -> list[str]:
    kind: Any = Profile
    for part in at:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = kind.model_fields[str(part)].annotation
        else:  # dict[Name, X] or list[X]: the part is a key or an index
            kind = typing.get_args(kind)[-1]
        if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
            kind = next((k for k in typing.get_args(kind) if k is not type(None)), None)
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def _check_references(loaded: Loaded) -> None:
    profile, where = loaded.profile, loaded.document.where
    for name, image in profile.images.items():
        if (image.recipe is None) == (image.pull is None):
            raise ProfileError(f"{where(('images', name))}: image {name!r} needs either recipe or pull")
        if image.platforms and image.pull is None:
            raise ProfileError(
                f"{where(('images', name, 'platforms'))}: platforms are for an image that is pulled",
                "A recipe makes one for the engine that builds it.",
            )
        for more in ("args", "context"):
            if getattr(image, more) and image.recipe is None:
                raise ProfileError(f"{where(('images', name, more))}: {more} are for an image that a recipe makes")
        if image.recipe is not None:
            folder = inside(loaded, image.recipe, ("images", name, "recipe"))
            if not (folder / "Dockerfile").is_file():
                raise ProfileError(f"{where(('images', name, 'recipe'))}: no Dockerfile in {image.recipe!r}")
        if (
            image.given is not None
            and not (inside(loaded, image.given, ("images", name, "given")) / "Dockerfile").is_file()
        ):
            raise ProfileError(f"{where(('images', name, 'given'))}: no Dockerfile in {image.given!r}")
    for i, setting in enumerate(profile.fixed):
        if setting not in profile.settings:
            raise ProfileError(
                f"{where(('fixed', i))}: no setting is called {setting!r}", "", nearest(setting, profile.settings)
            )
    for setting, pattern in profile.patterns.items():
        if setting not in profile.settings:
            raise ProfileError(
                f"{where(('patterns', setting))}: no setting is called {setting!r}",
                "",
                nearest(setting, profile.settings),
            )
        try:
            fits = re.fullmatch(pattern, str(profile.settings[setting]))
        except re.error as error:
            raise ProfileError(f"{where(('patterns', setting))}: not a regular expression: {error}") from None
        if not fits:
            raise ProfileError(
                f"{where(('settings', setting))}: {setting} cannot be {profile.settings[setting]!r}",
                f"Profile {profile.name} takes what looks like {pattern}.",
                "Choose another.",
            )
    hooks: list[tuple[tuple[str | int, ...], Hook]] = []
    for event in ("formed", "load", "reset"):
        hooks += [(("hooks", event, i), hook) for i, hook in enumerate(getattr(profile.hooks, event))]
    if profile.members:
        hooks.append((("members",), profile.members))
    if not any(role.authority for role in profile.roles.values()):
        # Certificates of an authority that nobody keeps could never be renewed, nor given to a node that comes later.
        needy = [where(("roles", name, "certificates")) for name, role in profile.roles.items() if role.certificates]
        needy += [where(("client",))] if profile.client else []
        if needy:
            raise ProfileError(
                f"{needy[0]}: certificates, and no role keeps the authority that issues them",
                "",
                "Give a role `authority: true`.",
            )
    for name, role in profile.roles.items():
        at: tuple[str | int, ...] = ("roles", name)
        if role.image not in profile.images:
            raise ProfileError(
                f"{where((*at, 'image'))}: no image is called {role.image!r}", "", nearest(role.image, profile.images)
            )
        check_count(loaded, name, role.count, where((*at, "count")))
        above = list(profile.roles)[: list(profile.roles).index(name)]
        for i, other in enumerate(role.after):
            if other not in above:
                raise ProfileError(
                    f"{where((*at, 'after', i))}: no role above {name!r} is called {other!r}", "", nearest(other, above)
                )
        for other in role.beside:
            if other not in profile.roles:
                raise ProfileError(
                    f"{where((*at, 'beside', other))}: no role is called {other!r}", "", nearest(other, profile.roles)
                )
        for path, file in role.files.items():
            if not inside(loaded, file.source, (*at, "files", path, "source")).is_file():
                raise ProfileError(f"{where((*at, 'files', path, 'source'))}: there is no file {file.source!r}")
        for i, certificate in enumerate(role.certificates):
            if certificate.directory is None:
                raise ProfileError(f"{where((*at, 'certificates', i))}: a node's certificate needs a directory")
        for event in ("joined", "leaving"):
            hooks += [((*at, "hooks", event, i), hook) for i, hook in enumerate(getattr(role.hooks, event))]
    for file_name, source in (profile.client.files if profile.client else {}).items():
        if not inside(loaded, source, ("client", "files", file_name)).is_file():
            raise ProfileError(f"{where(('client', 'files', file_name))}: there is no file {source!r}")
    for place, hook in hooks:
        if hook.on != "node" and hook.on not in profile.roles:
            raise ProfileError(
                f"{where((*place, 'on'))}: no role is called {hook.on!r}",
                "",
                nearest(hook.on, [*profile.roles, "node"]),
            )


def inside(loaded: Loaded, reference: str, at: Sequence[str | int]) -> Path:
    """A path of the profile's folder, or PROFILE:PATH for one of another's; raises where it leads out of that."""
    folder, relative = loaded.directory, reference
    shared = _SHARED.fullmatch(reference)
    if shared:
        from minicluster.profile import catalog

        try:
            folder = catalog.named(shared["profile"], bundled=loaded.bundled)
        except UsageError as error:
            raise ProfileError(f"{loaded.document.where(at)}: {error.what}", error.why, error.fix) from None
        relative = shared["path"]
    path = (folder / relative).resolve()
    if not path.is_relative_to(folder.resolve()):
        whose = f"profile {shared['profile']}'s" if shared else "the profile's"
        raise ProfileError(f"{loaded.document.where(at)}: {reference!r} lies outside of {whose} folder")
    return path


def check_count(loaded: Loaded, name: str, count: int, where: str) -> None:
    """Raises where a role cannot have so many nodes."""
    role = loaded.profile.roles[name]
    if role.allowed and count not in role.allowed:
        counts = ", ".join(map(str, role.allowed[:-1])) + f" or {role.allowed[-1]}"
        reason = (
            "Voting members need an odd number: an even one survives no more losses and ties."
            if count and count % 2 == 0
            else ""
        )
        raise ProfileError(f"{where}: {count} nodes of role {name!r} make no sense", reason, f"Ask for {counts}.")
    if not role.min <= count <= role.max:
        raise ProfileError(
            f"{where}: {count} nodes of role {name!r}",
            f"The profile allows {role.min} to {role.max}.",
            "Ask for fewer." if count > role.max else "Ask for more.",
        )
