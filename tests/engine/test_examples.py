"""The examples, run outside of this repository."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.engine.conftest import Shell

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("test_*.py"))
PROFILES = {
    "test_lock_service": "etcd",
    "test_election": "zookeeper",
    "test_swarm_deployment": "swarm",
    "test_operator": "kubernetes",
}


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(path, id=path.stem, marks=() if path.stem == "test_lock_service" else pytest.mark.long)
        for path in EXAMPLES
    ],
)
def test_an_example_passes(outer: Shell, tmp_path: Path, example: Path) -> None:
    outer.minicluster("image", "build", PROFILES[example.stem], timeout=1500)
    shutil.copy(example, tmp_path)
    words = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", ".")
    done = outer.run(*words, cwd=tmp_path, ok=False, timeout=150)  # 20 to 30 s on an idle machine
    assert done.code == 0, done.out
