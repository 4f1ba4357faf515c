"""The contracts of import-linter in pyproject.toml refuse a wrong import: each is added to a copy of the package."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def unchanged() -> str:
    """What import-linter prints for the package as it is."""
    return lint(ROOT).stdout


@pytest.mark.parametrize(
    ("module", "line", "found"),
    [
        ("model/labels.py", "from minicluster.profile import catalog", "model.labels -> minicluster.profile.catalog"),
        ("host/procfs.py", "from minicluster.model import labels", "host.procfs -> minicluster.model.labels"),
        ("pki.py", "from minicluster.host import procfs", "pki is not allowed to import minicluster.host"),
        ("cli/app.py", "from minicluster.contrib import mesos", "cli.app -> minicluster.contrib.mesos"),
        ("engine/http.py", "from minicluster.plan import steps", "engine.http -> minicluster.plan.steps"),
        ("plan/steps.py", "def late():\n    import minicluster.engine.http", "plan.steps -> minicluster.engine.http"),
        (
            "operations/up.py",
            "from minicluster.engine.docker import engine as docker_engine",
            "operations.up -> minicluster.engine.docker.engine",
        ),
        ("paths.py", "if False:\n    from minicluster import pki", "paths -> minicluster.pki"),
    ],
)
def test_a_wrong_import_is_refused(tmp_path: Path, unchanged: str, module: str, line: str, found: str) -> None:
    assert found not in unchanged
    shutil.copytree(ROOT / "minicluster", tmp_path / "minicluster", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "minicluster" / module).open("a") as file:
        file.write(f"\n{line}\n")
    wrong = lint(tmp_path)
    assert wrong.returncode == 1
    assert found in wrong.stdout


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs import-linter on the copy: it imports nothing, and finds the package in the working directory first."""
    program = Path(sysconfig.get_path("scripts")) / "lint-imports"
    return subprocess.run([program, "--no-cache"], cwd=folder, capture_output=True, text=True, timeout=120)


def test_a_command_that_builds_nothing_imports_no_heavy_library() -> None:
    """The façade is imported by nearly every command."""
    heavy = "('pydantic', 'yaml', 'jinja2', 'urllib.request', 'zipfile')"
    code = "import sys, minicluster.cluster, minicluster.operations.images\n"
    code += f"print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
