"""A profile as `profile new` creates it passes `profile test`, on real nodes; nothing stays, also after Ctrl-C."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.engine.conftest import Shell, eventually, hears_signals, remains

NAME = "t-scaffold"


@pytest.fixture
def folder(outer: Shell, tmp_path: Path) -> Path:
    outer.minicluster("profile", "new", NAME, "--dir", str(tmp_path))
    return tmp_path / NAME


def test_a_new_profile_passes_every_check(outer: Shell, folder: Path) -> None:
    outer.minicluster("image", "build", str(folder), timeout=600)
    done = outer.minicluster("profile", "test", str(folder), "-o", "json", ok=False)
    found = {row["check"]: (row["verdict"], row["reason"]) for row in json.loads(done.out)}
    assert found == dict.fromkeys(found, ("ok", ""))
    assert len(found) == 12
    assert done.code == 0
    assert remains(outer, NAME) == {}


@pytest.mark.long
def test_a_profile_that_does_not_work_fails_with_the_reason(outer: Shell, folder: Path) -> None:
    text = (folder / "profile.yaml").read_text()
    (folder / "profile.yaml").write_text(text.replace("[store-ready]", "[sh, -c, 'echo it-is-broken >&2; exit 1']"))
    done = outer.minicluster("profile", "test", str(folder), "--timeout", "5", ok=False)
    assert done.code == 1
    assert "failed   up" in done.out
    assert "it-is-broken" in done.out
    assert "skipped  down" in done.out
    assert remains(outer, NAME) == {}


@pytest.mark.long
def test_ctrl_c_leaves_nothing(outer: Shell, folder: Path) -> None:
    outer.minicluster("image", "build", str(folder), timeout=600)
    process = outer.start("profile", "test", str(folder))
    hears_signals(process)
    eventually(lambda: remains(outer, NAME).get("containers"), what="there are nodes")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert remains(outer, NAME) == {}
