"""The sizes of modules: see "A module has at most 450 lines" in docs/design-notes.md."""

from __future__ import annotations

from pathlib import Path

import minicluster

PACKAGE = Path(minicluster.__file__).parent
LIMIT = 450
OTHERS = {
    "cluster.py": 350,  # it only delegates
    "engine/docker/engine.py": 650,  # a method for each call of the engine
}


def test_no_module_is_longer_than_its_limit() -> None:
    lines = {str(path.relative_to(PACKAGE)): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert OTHERS.keys() <= lines.keys()
    too_long = {name: count for name, count in lines.items() if count > OTHERS.get(name, LIMIT)}
    assert not too_long, f"split them: {too_long}"
