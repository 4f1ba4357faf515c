"""Renders the templates of one place of a profile, with the names that there are in that place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minicluster.errors import ProfileError
from minicluster.model import spec
from minicluster.model.deferred import SECRET, marker
from minicluster.profile.deferred import Deferred, DeferredGroup
from minicluster.profile.references import inside
from minicluster.profile.template import FunctionFailed, render
from minicluster.profile.variables import VARIABLES

if TYPE_CHECKING:
    from minicluster.profile import schema
    from minicluster.profile.loaded import Loaded

#: What `run` of `apply` sees of a file.
APPLIED = ("path", "name", "folder", "folder_name", "key")


@dataclass(frozen=True)
class Node:
    """What templates see of a node."""

    name: str
    role: str
    index: int
    address: str
    hostname: str


@dataclass(frozen=True)
class Endpoint:
    """What templates see of a published port. Where it is reached depends on the client."""

    name: str
    node: str
    port: int
    host: Deferred
    host_port: Deferred
    url: Deferred


@dataclass(frozen=True)
class Registry:
    """What templates see of a registry."""

    host: str | Deferred
    server: str | Deferred  #: its URL
    ca: str | Deferred = ""
    mirrors: tuple[str, ...] = ()
    insecure: bool = False
    credentials: bool = False
    local: bool = False  #: it is the engine's local registry
    address: str | Deferred = ""  #: of the local registry: its name and port on the cluster's network
    port: str | Deferred = ""  #: of the local registry: in names of images


@dataclass(frozen=True)
class Scope:
    """The values of names, of which templates see those that exist in their place."""

    loaded: Loaded
    values: Mapping[str, Any]
    place: str = ""  #: one of :data:`minicluster.profile.variables.PLACES`
    at: tuple[str | int, ...] = ()
    seen: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        seen = {name: value for name, value in self.values.items() if self.place in VARIABLES[name].places}
        object.__setattr__(self, "seen", seen)

    def inner(self, *at: str | int, place: str = "", **values: Any) -> Scope:
        """A part of this part of the profile, with further values; another place, if one is given."""
        return Scope(self.loaded, {**self.values, **values}, place or self.place, (*self.at, *at))

    def text(self, text: str, *at: str | int) -> str:
        """One template."""
        return render(text, self.seen, self.loaded.document.where((*self.at, *at)), place=self.place)

    def where(self, *at: str | int) -> str:
        """File and line of a part."""
        return self.loaded.document.where((*self.at, *at))

    def words(self, words: Iterable[str], *at: str | int) -> tuple[str, ...]:
        """A list of templates."""
        return tuple(self.text(word, *at, i) for i, word in enumerate(words))

    def mapping(self, items: Mapping[str, str], *at: str | int) -> dict[str, str]:
        """Templates by name."""
        return {name: self.text(value, *at, name) for name, value in items.items()}

    def hook(self, hook: schema.Hook) -> spec.HookSpec:
        """The hook that this part of the profile is."""
        return spec.HookSpec(hook.on, self.words(hook.run, "run"), tuple(hook.capture))

    def hooks(self, hooks: Sequence[schema.Hook], event: str) -> tuple[spec.HookSpec, ...]:
        """The hooks of an event, which is their place."""
        return tuple(self.inner(event, i, place=event).hook(hook) for i, hook in enumerate(hooks))

    def content(self, name: str, *at: str | int) -> str:
        """A file of the profile: rendered if it is a template."""
        source = inside(self.loaded, name, (*self.at, *at))
        where = self.loaded.document.where((*self.at, *at))
        content = read(source, name, where)
        if source.suffix == ".j2":
            return render(content, self.seen, where, file=str(source), place=self.place)
        return content


_TEXT = "Files of a profile are UTF-8 text; put others into an image."


def read(source: Path, name: str, where: str) -> str:
    """The text of a file. Raises ``ProfileError`` if it is not text."""
    try:
        content = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{where}: {name!r} cannot be read as text", str(error), _TEXT) from None
    if "\0" in content:
        raise ProfileError(f"{where}: {name!r} cannot be read as text", "It has a NUL in it.", _TEXT)
    return content


def hook_values(profile: schema.Profile, before: int | None = None) -> dict[str, Any]:
    """What hooks see beyond the cluster's nodes.

    Args:
        before: the position of an init hook, which sees what those before it capture; None for all others.
    """
    captured = [name for hook in profile.hooks.init[:before] for name in hook.capture]
    return {
        "captured": DeferredGroup("captured", {name: f"captured.{name}" for name in captured}),
        "joining": Deferred("joining"),
        "kept": Deferred("kept"),
        "initial_member": DeferredGroup(
            "initial_member", {part: f"initial_member.{part}" for part in ("name", "address")}
        ),
        "archive": Deferred("archive"),
        "image": DeferredGroup("image", {part: f"image.{part}" for part in ("source", "name")}),
        "applied": DeferredGroup("applied", {part: f"applied.{part}" for part in APPLIED}),
    }


def secret_of(
    profile: schema.Profile, forms: Sequence[str] = ("hex", "base64", "uuid", "ec")
) -> Callable[..., Deferred]:
    """The function ``secret``, which gives texts in one of these forms."""

    def secret(name: str, form: str = "hex") -> Deferred:
        value = f"secret.{name}.{form}"
        if not SECRET.fullmatch(marker(value)) or form not in forms:
            form_is = f"{', '.join(forms[:-1])} or {forms[-1]}"
            raise FunctionFailed(
                f"secret({name!r}, {form!r}) is not valid.", f"A name is a-z, 0-9 and _; a form is {form_is}."
            )
        if not any(role.authority for role in profile.roles.values()):
            raise FunctionFailed("secret() needs a role with `authority: true`.", "Give a role `authority: true`.")
        return Deferred(value)

    return secret
