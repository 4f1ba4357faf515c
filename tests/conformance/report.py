"""What a run of upstream's suite ends with: a table, JUnit XML, and its section of docs/conformance.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

import yaml

from minicluster.engine.protocol import EngineInfo
from tests.conformance.suite import Result

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
REASONS = Path(__file__).parent / "reasons.yaml"
_INVALID = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  #: what XML cannot contain


def rows(results: Iterable[Result]) -> list[tuple[str, str, str, str, str]]:
    """Per special interest group: passed, failed, skipped, and minutes that its tests took; then all."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.group, []).append(result)
    found = [(name, groups[name]) for name in sorted(groups)]
    found.append(("all", [result for _, members in found for result in members]))
    return [
        (
            name,
            str(sum(result.state == "passed" for result in members)),
            str(sum(result.failed for result in members)),
            str(sum(result.state == "skipped" for result in members)),
            f"{sum(result.seconds for result in members) / 60:.1f}",
        )
        for name, members in found
    ]


HEADINGS = ("group", "passed", "failed", "skipped", "minutes")


def text(results: Sequence[Result]) -> str:
    """The table for a terminal, with the failed tests below."""
    table = [HEADINGS, *rows(results)]
    widths = [max(len(row[i]) for row in table) for i in range(len(HEADINGS))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in table
    ]
    for result in results:
        if result.failed:
            lines += ["", f"{result.state}: {result.name}", f"  {result.where}", f"  {first_line(result)}"]
    return "\n".join(lines) + "\n"


def first_line(result: Result) -> str:
    """What a failure is about, in one line."""
    lines = [line.strip() for line in result.message.splitlines() if line.strip()]
    return lines[0][:300] if lines else result.state


def junit(results: Sequence[Result], name: str) -> str:
    """The results as JUnit XML."""
    suite = ElementTree.Element(
        "testsuite",
        name=name,
        tests=str(len(results)),
        failures=str(sum(result.failed for result in results)),
        skipped=str(sum(result.state == "skipped" for result in results)),
        time=f"{sum(result.seconds for result in results):.1f}",
    )
    for result in results:
        case = ElementTree.SubElement(
            suite, "testcase", classname=result.group, name=result.name, time=f"{result.seconds:.1f}"
        )
        about = _INVALID.sub("?", result.message)
        if result.failed:
            failure = ElementTree.SubElement(case, "failure", message=_INVALID.sub("?", first_line(result)))
            failure.text = f"{result.where}\n{about}"
        elif result.state == "skipped":
            ElementTree.SubElement(case, "skipped", message=about)
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def seconds(results: Iterable[Result]) -> float:
    """How long a run took while tests ran: pauses between its parts, of more than five minutes, do not count."""
    spans = sorted((datetime.fromisoformat(_python(r.start)).timestamp(), r.seconds) for r in results)
    total, end = 0.0, 0.0
    for begin, took in spans:
        if begin + took > end:
            total += begin + took - (end if end and begin - end < 300 else begin)
            end = begin + took
    return total


def _python(time: str) -> str:
    """A time as Go writes it, for Python 3.10: with six digits at most, and no Z."""
    return re.sub(r"(\.\d{6})\d*", r"\1", re.sub(r"Z$", "+00:00", re.sub(r"\.\d{1,5}(?=[Z+-])", "", time)))


def section(
    results: Sequence[Result], version: str, masters: int, agents: int, focus: str, processes: int, info: EngineInfo
) -> str:
    """A run's section of the page."""
    tests = f"the tests whose names match `{focus}`" if focus else "all of upstream's conformance.yaml"
    date = max((result.start for result in results), default="")[:10]
    plural = "s" if masters > 1 else ""
    again = [result for result in results if result.attempts > 1 and not result.failed]
    failed = [result for result in results if result.failed]
    lines = [
        f"## {version}, {masters} master{plural}: {f'`{focus}`' if focus else 'conformance'}",
        "",
        f"{date}, {masters} master{plural} and {agents} agents, {tests}, {processes} tests at a time. The machine: "
        f"{info.cpus} processors, {info.memory / (1 << 30):.0f} GiB of memory, Linux {info.kernel}, "
        f"cgroup v{info.cgroup_version}, Docker {info.version}. It ran for {seconds(results) / 60:.0f} minutes.",
        "",
        _row(HEADINGS),
        _row("---" for _ in HEADINGS),
        *(_row(row) for row in rows(results)),
    ]
    if again:
        lines += ["", "Failed first, and passed when run again, alone:", "", *(f"- {r.name}" for r in again)]
    if failed:
        lines += ["", _row(("failed", "reason")), _row(("---", "---"))]
        lines += [_row((result.name, reason(result))) for result in failed]
    skipped = sorted({(reason(r), r.name) for r in results if r.state == "skipped"})
    if skipped:
        lines += ["", _row(("skipped by itself", "what it says")), _row(("---", "---"))]
        lines += [_row((name, why)) for why, name in skipped]
    return "\n".join(lines) + "\n"


def reason(result: Result) -> str:
    """Why a test failed: what is known of it, else its own words."""
    known = yaml.safe_load(REASONS.read_text()) or []
    for entry in known:
        if re.search(entry["test"], result.name):
            return " ".join(str(entry["reason"]).split())
    return first_line(result)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def write(page: Path, key: str, text: str) -> None:
    """Puts a section into the page, in place of the one with its key, else behind all others."""
    begin, end, last = f"<!-- run: {key} -->\n", "<!-- run ends -->\n", "<!-- runs end -->\n"
    before, found, rest = page.read_text().partition(begin)
    if found:
        after = rest.partition(end)[2]
    else:
        before, _, after = before.partition(last)
        after = f"\n{last}{after}"
    page.write_text(f"{before}{begin}{text}{end}{after}")
