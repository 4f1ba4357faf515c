"""Writing to stdout: JSON, aligned columns, and colour where the stream can show it."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from minicluster.cli.options import Output
    from minicluster.doctor import Check


_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red")}
_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def on_terminal(stream: TextIO) -> bool:
    """Whether a stream is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")


def paint(text: str, *styles: str, stream: TextIO | None = None) -> str:
    """Text in colour where the stream (stdout by default) shows colour and NO_COLOR does not forbid it."""
    if not text or os.environ.get("NO_COLOR") or not on_terminal(stream or sys.stdout):
        return text
    return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"


def plain_data(value: Any) -> Any:
    """Dataclasses, tuples and mappings as JSON types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain_data(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if hasattr(value, "items"):
        return {str(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain_data(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def print_json(value: Any) -> None:
    """Prints one JSON document."""
    import json

    print(json.dumps(plain_data(value), indent=2, ensure_ascii=False))


def answer(value: Any, text: str, output: Output, *, quiet: bool = False) -> None:
    """Prints a command's answer: a value as JSON, or a text unless ``quiet``."""
    if output.value == "json":
        print_json(value)
    elif not quiet:
        print(text)


def print_checks(checks: Iterable[Check]) -> None:
    """Prints checks of a machine, each with its fix unless it is all right."""
    for check in checks:
        mark, colour = _MARKS[check.level]
        text = check.text.replace("\n", "\n    ")
        print(f"{paint(mark, colour)} {check.name}: {text}")
        if check.fix and check.level != "ok":
            print("\n".join(f"    {line}" for line in check.fix.splitlines()))


def columns(rows: Sequence[Sequence[str]], head: Sequence[str] = (), *, indent: str = "") -> str:
    """Rows as aligned columns with two spaces between and no trailing blanks; colour codes have no width.

    >>> print(columns([["a", "1"], ["long", "2"]], ["NAME", "N"]))
    NAME  N
    a     1
    long  2
    """
    table = [list(head), *map(list, rows)] if head else [list(row) for row in rows]
    if not table:
        return ""
    widths = [max(_width(row[i]) for row in table) for i in range(len(table[0]))]
    lines = []
    for row in table:
        cells = (cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True))
        lines.append((indent + "  ".join(cells)).rstrip())
    if head:
        lines[0] = paint(lines[0], "bold")
    return "\n".join(lines)


def _width(cell: str) -> int:
    if "\x1b" not in cell:
        return len(cell)
    import re

    return len(re.sub(r"\x1b\[[0-9;]*m", "", cell))
