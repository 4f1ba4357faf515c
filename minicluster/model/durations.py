"""Parsing and formatting of durations."""

from __future__ import annotations

import re

from minicluster.errors import UsageError

#: Seconds that nodes have to get ready, by default.
DEFAULT_TIMEOUT = 120.0

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str, option: str = "") -> float:
    """Parses a duration: "90s", "15m", "2h", "1h30m", "7d".

    Args:
        option: what it was given for, for the error.

    >>> seconds("1h30m")
    5400.0

    Raises:
        UsageError: it is not a duration.
    """
    total = 0.0
    if re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        total = sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)([smhd])", text))
    if total <= 0:
        what = f"{option} {text}: " if option else ""
        raise UsageError(f"{what}not a duration", "", "Write it as 30s, 15m, 2h or 1h30m.")
    return total


def span(seconds: float) -> str:
    """Formats a duration in its two largest units.

    >>> span(5400)
    '1 h 30 min'
    """
    whole = round(seconds)
    units = [(86400, "d"), (3600, "h"), (60, "min"), (1, "s")]
    first = next((i for i, (size, _unit) in enumerate(units) if whole >= size), len(units) - 1)
    parts: list[str] = []
    for size, unit in units[first : first + 2]:
        count, whole = divmod(whole, size)
        if count or not parts:
            parts.append(f"{count} {unit}")
    return " ".join(parts)
