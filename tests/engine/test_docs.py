"""The Python examples in the docs, run as written."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.engine.conftest import Shell

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["testing.md"])
def test_examples_run(outer: Shell, tmp_path: Path, page: str) -> None:
    """A block whose first line is a file name is a file of tests; any other is a program."""
    found = blocks(page)
    tests = {name[1]: text for text in found if (name := re.match(r"# (test_\w+\.py)\n", text))}
    assert tests
    for name, text in tests.items():
        (tmp_path / name).write_text(text)
    done = outer.run(sys.executable, "-m", "pytest", "-q", "-n", "2", str(tmp_path), cwd=tmp_path, ok=False)
    assert done.code == 0, done.out
    for text in [text for text in found if text not in tests.values()]:
        outer.run(sys.executable, "-c", text)
