"""The baselines of bench/ have what they start: no change of a profile or of the code breaks them."""

from __future__ import annotations

import importlib
import json
import tarfile
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.mark.parametrize("module", sorted(path.stem for path in BENCH.glob("*.py")))
def test_every_module_can_be_imported(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCH)
    importlib.import_module(module)


@pytest.mark.parametrize(("profile", "nodes"), [("etcd", 3), ("zookeeper", 3), ("swarm", 3), ("kubernetes", 4)])
def test_a_plain_script_gets_all_of_a_profile(
    profile: str, nodes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCH)
    plain = importlib.import_module("plain")
    monkeypatch.setattr(plain, "granted", lambda *_: ("SYS_ADMIN",))
    spec = plain.prepare(profile, "floor", tmp_path)
    assert len(spec.nodes) == nodes
    assert len(json.loads((tmp_path / "compose.json").read_text())["services"]) == nodes
    for node in spec.nodes:
        assert f"--ip={node.address}" in (tmp_path / f"{node.name}.create").read_text().splitlines()
        assert (tmp_path / f"{node.name}.ready").read_text().splitlines() == list(node.ready)
        with tarfile.open(tmp_path / f"{node.name}.tar") as tar:
            assert {file.path.lstrip("/") for file in node.files} <= set(tar.getnames())
