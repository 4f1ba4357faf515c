"""What every section of the benchmark shares: running commands by the clock, and the report."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MINICLUSTER = [str(Path(sys.executable).with_name("minicluster"))]
# An installed minicluster has compiled bytecode; one that runs from a checkout must have it as well.
BYTECODE = {
    "PYTHONDONTWRITEBYTECODE": "",
    "PYTHONPYCACHEPREFIX": str(Path.home() / ".cache" / "minicluster-bench" / "bytecode"),
}
NAME = "bench"  #: of the cluster that is measured


class Failed(Exception):
    """Something could not be measured."""


def run(*argv: str, env: dict[str, str] | None = None) -> tuple[float, str]:
    """Seconds that a command took, from outside, and what it printed. Raises ``Failed`` where it did."""
    begun = time.perf_counter()
    done = subprocess.run(argv, capture_output=True, text=True, env=os.environ | (env or {}), stdin=subprocess.DEVNULL)
    seconds = time.perf_counter() - begun
    if done.returncode:
        said = f"{done.stdout}{done.stderr}"[-2000:]
        raise Failed(f"{' '.join(argv)} ended with {done.returncode}:\n{said}")
    return seconds, done.stdout


def minicluster(*argv: str, env: dict[str, str] | None = None) -> tuple[float, str]:
    """The same for minicluster."""
    return run(*MINICLUSTER, *argv, env=BYTECODE | (env or {}))


def median(values: list[float]) -> float:
    """The median."""
    return statistics.median(values)


def spread(values: list[float]) -> str:
    """Minimum, median and maximum, for the reader to judge how quiet the machine was."""
    return f"{min(values):.2f}/{median(values):.2f}/{max(values):.2f} s"


class Report:
    """Rows of a claim, what was measured, and whether it holds."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def add(
        self, claim: str, value: float, limit: float, unit: str, detail: str = "", *, exactly: bool = False
    ) -> None:
        """A figure that must not be above its limit, or, ``exactly``, must be what the limit says."""
        holds = value == limit if exactly else value <= limit
        row = {
            "claim": claim,
            "value": round(value, 3),
            "limit": limit,
            "unit": unit,
            "holds": holds,
            "detail": detail,
        }
        self.rows.append(row)
        mark = "holds" if holds else "FAILS"
        print(
            f"{mark}  {claim}: {value:.2f} {unit} (limit {limit:g}){'  ' + detail if detail else ''}", file=sys.stderr
        )

    def fail(self, section: str, why: str) -> None:
        """A section that could not be measured to its end."""
        row = {"claim": section, "value": None, "limit": None, "unit": "", "holds": False, "detail": why}
        self.rows.append(row)
        print(f"FAILS  {section} could not be measured: {why}", file=sys.stderr)
