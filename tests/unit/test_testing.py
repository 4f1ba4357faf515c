"""minicluster.testing: its public names, and the summary of a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from minicluster import testing
from minicluster.testing import plugin
from minicluster.testing.stats import OPERATIONS, PoolStats


def test_public_names_are_imported_on_first_use() -> None:
    code = (
        "import sys, minicluster.testing as t; assert 'minicluster.testing.plugin' not in sys.modules; "
        "t.ClusterFactory; assert 'minicluster.cluster' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert [getattr(testing, name) for name in testing.__all__] == [plugin.ClusterFactory, plugin.Scope]
    with pytest.raises(AttributeError, match="no attribute 'Pool'"):
        _ = testing.Pool  # type: ignore[attr-defined]


def test_the_summary_adds_up_the_processes_of_a_run() -> None:
    own, other = PoolStats(), PoolStats()
    assert str(own) == ""
    with own.timed("created"):
        pass
    with pytest.raises(ValueError), other.timed("reset"):  # noqa: PT011
        raise ValueError
    other.counts["created"], other.seconds["created"] = 2, 3.1
    own.add(other.dump())
    assert own.counts == {"created": 3, "reset": 1}
    assert str(own) == "3.1 s on clusters: 3 created in 3.1 s, 1 reset in 0.0 s"
    assert set(own.counts) <= set(OPERATIONS)


def test_pytest_still_has_the_private_names_that_the_plugin_uses(
    request: pytest.FixtureRequest, pytestconfig: pytest.Config
) -> None:
    item = request.node
    (definition,) = item._fixtureinfo.name2fixturedefs["pytestconfig"]
    assert (definition.argname, definition.scope) == ("pytestconfig", "session")
    assert definition.cached_result[0] is pytestconfig
    assert callable(definition.finish)
    assert item._request.node is item


MISTAKES = """
import pytest

@pytest.fixture(scope="session")
def wide(minicluster):
    return minicluster("etcd", scope="function")

def test_unknown_profile(minicluster):
    minicluster("ectd")

def test_unknown_scope(minicluster):
    minicluster("etcd", scope="moduel")

@pytest.mark.minicluster("nosuch")
def test_wrong_marker(cluster):
    pass

def test_no_marker(cluster):
    pass

def test_narrow(wide):
    pass
"""


def test_a_mistake_in_a_test_is_told_without_the_frames_of_the_plugin(tmp_path: Path) -> None:
    (tmp_path / "test_mistakes.py").write_text(MISTAKES)
    # No engine is needed: each mistake is noticed before one is asked.
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    for said in (
        "no profile named 'ectd'",
        "unknown scope 'moduel'",
        "no profile named 'nosuch'",
        "the fixture `cluster` needs a marker",
        "a fixture of scope session cannot use a cluster of scope function",
    ):
        assert said in done.stdout
    assert "minicluster/testing" not in done.stdout, done.stdout
    assert "minicluster/profile" not in done.stdout
    assert "with_traceback" not in done.stdout
