"""How the long tests are divided into shards, and which files of tests start first.

A file's tests share clusters, so they are in one shard and run in one process. seconds.json has what each file took,
its tests marked ``long`` apart; ``./run-tests --all --record`` writes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "tests/seconds.json"

#: Seconds for a file that was never measured.
UNKNOWN = 30.0

#: Of a file: seconds of its core tests and of its long tests.
Seconds = Mapping[str, Mapping[str, float]]


def recorded() -> Seconds:
    """What the files took when they were last recorded."""
    return dict(json.loads(RECORD.read_text())) if RECORD.exists() else {}


def files() -> list[str]:
    """Every file of tests, as pytest names it. A shard does not depend on what is selected in a run."""
    return [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("tests/**/test_*.py"))]


def assign(files: Iterable[str], count: int, seconds: Seconds) -> dict[str, int]:
    """The shard, 1 to ``count``, of each file: the longest first, each into the shard that takes least so far."""
    took = {file: seconds.get(file, {}).get("long", UNKNOWN if has_long(file) else 0.0) for file in files}
    totals = [0.0] * count
    shards = {}
    for file in sorted(took, key=lambda file: (-took[file], file)):
        shard = totals.index(min(totals))
        totals[shard] += took[file]
        shards[file] = shard + 1
    return shards


def has_long(file: str) -> bool:
    """Whether a file has, by its text, tests marked ``long``."""
    path = ROOT / file
    return not path.exists() or "pytest.mark.long" in path.read_text()


def parse(text: str) -> tuple[int, int]:
    """Shard and count, from "K/N".

    Raises:
        ValueError: it is not K/N with 1 <= K <= N.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"invalid shard {text!r}: must be K/N with 1 <= K <= N")
    return int(match[1]), int(match[2])


def order(file: str, seconds: Seconds) -> float:
    """A sort key: the files that take longest first. Started late, one would run on alone at the end."""
    return -sum(seconds.get(file, {"": UNKNOWN}).values())


def record(took: Seconds) -> None:
    """Writes what files took. The record keeps what was not measured now, except files that no longer exist."""
    before = recorded()
    files = sorted(file for file in {*before, *took} if (ROOT / file).exists())
    after = {file: {**before.get(file, {}), **took.get(file, {})} for file in files}
    rows = [
        f"  {json.dumps(file)}: {json.dumps({kind: round(n, 1) for kind, n in sorted(kinds.items())})}"
        for file, kinds in after.items()
    ]
    RECORD.write_text("{\n" + ",\n".join(rows) + "\n}\n")
