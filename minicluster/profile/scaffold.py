"""``profile new``: creates a profile from a working example."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from minicluster.errors import MiniclusterError, UsageError
from minicluster.model.naming import NAME_RULE, is_name
from minicluster.profile import catalog, folders


def create(name: str, directory: Path) -> Path:
    """Writes a profile of that name into a new folder of that name.

    Raises:
        UsageError: it cannot be a profile's name, or the folder exists.
        MiniclusterError: the folder cannot be written.
    """
    if not is_name(name):
        raise UsageError(
            f"{name!r} cannot be the name of a profile",
            f"It is the default name of its clusters: {NAME_RULE}.",
            "Choose another name.",
        )
    folder = directory / name
    if folder.exists():
        raise UsageError(f"{folder} already exists", "", "Choose another name, or another folder with --dir.")
    try:
        shutil.copytree(folders.bundled_directory() / "_scaffold", folder)
        profile = folder / "profile.yaml"
        text = profile.read_text(encoding="utf-8")
        profile.write_text(text.replace("name: NAME\n", f"name: {name}\n", 1), encoding="utf-8")
        schema = json.dumps(catalog.json_schema(), indent=2)
        (folder / "profile.schema.json").write_text(f"{schema}\n", encoding="utf-8")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise MiniclusterError(f"cannot write {folder}", str(error), "Choose another folder with --dir.") from None
    return folder
