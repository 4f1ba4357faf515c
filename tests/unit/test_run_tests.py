"""run-tests and tests/shards.py: what is selected, and how flaky tests are reported."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import shards

ROOT = Path(__file__).parents[2]

TESTS = """
import pathlib
import pytest

def test_core():
    pass

@pytest.mark.long
def test_long():
    pass

def test_flaky():
    again = pathlib.Path("again")
    failed, _ = again.exists(), again.touch()
    assert failed
"""
FAILING = "\ndef test_broken():\n    assert False\n"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A checkout with one file of tests, where every program that run-tests runs but pytest does nothing."""
    shutil.copy(ROOT / "run-tests", tmp_path)
    for folder in ("scripts", "tests", "bin"):
        (tmp_path / folder).mkdir()
    functions = ("provide_venv", "provide_engine", "provide_clients", "provide_linters", "provide_browser")
    (tmp_path / "scripts/setup.sh").write_text(
        "".join(f"{name}() {{ :; }}\n" for name in functions) + 'say() { echo "==> $*"; }\n'
    )
    for program in ("ruff", "mypy", "lint-imports", "minicluster"):
        (tmp_path / "bin" / program).symlink_to("/bin/true")
    (tmp_path / "scripts/check-shell").symlink_to("/bin/true")
    for profile in ("consul", "kubernetes", "mesos", "zookeeper"):
        programs = tmp_path / "profiles" / profile / "files/bin"
        programs.mkdir(parents=True)
        (programs / "program").write_text("#!/usr/bin/python3\n")
    (tmp_path / "tests/test_some.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = tests\naddopts = -rA\nmarkers =\n  long: long\n")
    return tmp_path


def run(suite: Path, *arguments: str) -> tuple[int, str]:
    env = {**os.environ, "PATH": f"{suite / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["./run-tests", *arguments], cwd=suite, env=env, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def test_a_flaky_test_is_named_at_the_end_and_kept(suite: Path) -> None:
    code, said = run(suite)
    assert code == 0
    assert said.endswith("==> 1 flaky (failed first, passed alone): tests/test_some.py::test_flaky\n")
    assert (suite / ".flakes").read_text().endswith(" tests/test_some.py::test_flaky\n")
    assert "test_long" not in said


def test_what_fails_alone_too_fails_the_run(suite: Path) -> None:
    (suite / "tests/test_some.py").write_text(TESTS + FAILING)
    code, said = run(suite)
    assert code == 1
    assert said.endswith("==> 1 flaky (failed first, passed alone): tests/test_some.py::test_flaky\n")
    assert "FAILED tests/test_some.py::test_broken" in said
    code, said = run(suite)
    assert code == 1
    assert "flaky (" not in said


@pytest.mark.parametrize("arguments", [["--all"], ["tests/test_some.py"], ["tests/test_some.py::test_long"]])
def test_long_tests_run_where_they_are_asked_for(suite: Path, arguments: list[str]) -> None:
    (suite / "again").touch()
    code, said = run(suite, *arguments)
    assert code == 0, said
    assert "PASSED tests/test_some.py::test_long" in said


def test_other_arguments_go_to_pytest(suite: Path) -> None:
    code, said = run(suite, "-k", "core or long")
    assert code == 0, said
    assert "PASSED tests/test_some.py::test_core" in said
    assert "test_long" not in said


def test_help_is_the_head_of_the_script(suite: Path) -> None:
    code, said = run(suite, "--help")
    assert code == 0
    assert said.startswith("Usage: ./run-tests [--all | --shard K/N]")
    assert "set -euo" not in said


def test_every_file_is_in_one_shard_and_they_take_about_as_long() -> None:
    files = [f"test_{number}.py" for number in range(20)]
    seconds = {file: {"core": 100.0, "long": 10.0 * number} for number, file in enumerate(files)}
    assigned = shards.assign(files, 3, seconds)
    assert set(assigned) == set(files)
    totals = [sum(seconds[f]["long"] for f in files if assigned[f] == shard) for shard in (1, 2, 3)]
    assert max(totals) - min(totals) <= 30
    assert shards.assign(reversed(files), 3, seconds) == assigned


def test_the_long_tests_of_the_repository_are_divided() -> None:
    assigned = shards.assign(shards.files(), 3, shards.recorded())
    sizes = [sum(shard == k for file, shard in assigned.items() if shards.has_long(file)) for k in (1, 2, 3)]
    assert min(sizes) > 3


def test_a_file_that_was_never_recorded_is_in_a_shard() -> None:
    assert shards.assign(["test_new.py"], 3, {}) == {"test_new.py": 1}


@pytest.mark.parametrize("text", ["", "0/3", "4/3", "1", "1/0", "a/b", "1/3/5"])
def test_a_shard_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be K/N"):
        shards.parse(text)


def test_a_record_keeps_what_was_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shards, "RECORD", tmp_path / "seconds.json")
    core, gone = "tests/unit/test_run_tests.py", "tests/unit/test_gone.py"
    shards.record({core: {"core": 1.23, "long": 5.0}, gone: {"core": 1.0}})
    shards.record({core: {"core": 2.0}})
    assert shards.recorded() == {core: {"core": 2.0, "long": 5.0}}
    assert shards.order(core, shards.recorded()) == -7.0
