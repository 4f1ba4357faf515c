"""``init``: writes a project file for a profile."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from minicluster.errors import MiniclusterError, UsageError
from minicluster.model.naming import NAME_RULE, derived_name, is_name, value_text
from minicluster.profile import catalog
from minicluster.project.find import NAME

if TYPE_CHECKING:
    from minicluster.profile.schema import Profile

_TEMPLATE = """\
# `minicluster up` starts these clusters, here and in the folders below; docs: project.md
version: 1
clusters:
  {cluster}:
    profile: {profile}
    size: {{{size}}}
{more}"""


def create(profile: str, name: str | None, folder: Path) -> Path:
    """Writes the file into a folder.

    Args:
        name: the cluster's; by default derived from the folder's name, since all projects share names.

    Raises:
        UsageError: there is no such profile, it cannot be a name, or the file exists.
        MiniclusterError: the file cannot be written.
    """

    loaded = catalog.load(profile)
    name = name or derived_name(folder.resolve().name or "dev", 30)
    if not is_name(name):
        raise UsageError(f"--name {name}: invalid name", f"It is part of host names: {NAME_RULE}.", "Choose another.")
    it: Profile = loaded.profile
    counts = ", ".join(f"{role}: {about.count}" for role, about in it.roles.items())
    endpoints = [endpoint for role in it.roles.values() for endpoint in role.endpoints]
    more = [f"set: {{{', '.join(f'{key}: {_scalar(value)}' for key, value in it.settings.items())}}}"]
    more += [f"ports: {{{endpoints[0]}: 8080}}   # an endpoint on a fixed port of this machine"] if endpoints else []
    more += ["load: [myapp:dev]   # images of this engine that nodes have before `up` returns"] if it.hooks.load else []
    more += (
        ["apply: [deploy/]   # files that the system's own client applies once the cluster is ready"]
        if it.apply
        else []
    )
    more += ["ttl: 8h   # removed so long after the last `up`"]
    source = os.path.relpath(loaded.directory, folder) if not loaded.bundled and "/" in profile else profile
    source = source if "/" in source or "/" not in profile else f"./{source}"
    text = _TEMPLATE.format(
        cluster=name, profile=_scalar(source), size=counts, more="".join(f"    # {line}\n" for line in more)
    )
    path = folder / NAME
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} exists already", "", "Edit it, or remove it first.") from None
    except OSError as error:
        raise MiniclusterError(f"cannot write {path}", str(error.strerror), "Choose another folder.") from None
    return path


def _scalar(value: object) -> str:
    """A value as YAML writes it in a line."""
    import json

    text = value_text(value)
    plain = not isinstance(value, str) or (
        text.replace("-", "").replace(".", "").replace("/", "").isalnum() and text[0].isalpha()
    )
    return text if plain else json.dumps(text)
