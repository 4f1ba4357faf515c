"""What runs of upstream's tests keep of results, and what they write of them."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conformance import report, suite
from tests.conformance.suite import Result


def line(name: str, state: str, start: str = "2026-11-29T16:00:00.123456789Z", seconds: float = 2.0) -> str:
    message = "" if state == "passed" else f"{name} said {state}\nmore"
    about = {"name": name, "state": state, "start": start, "seconds": seconds, "message": message, "where": "x.go:1"}
    return json.dumps(about) + "\n"


def test_the_last_result_counts_and_a_line_that_is_being_written_does_not(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(
        line("[sig-a] one", "failed") + line("[sig-b] two", "passed") + line("[sig-a] one", "passed") + '{"na'
    )
    found = suite.read(path)
    assert {name: (result.state, result.attempts) for name, result in found.items()} == {
        "[sig-a] one": ("passed", 2),
        "[sig-b] two": ("passed", 1),
    }


def test_a_name_is_selected_as_it_is() -> None:
    assert suite._literal(r"[sig-a] x (root,0777) 1.2|c\d") == r"\[sig-a\] x \(root,0777\) 1\.2\|c\\d"


def test_nothing_has_a_result_before_the_first_run(tmp_path: Path) -> None:
    assert suite.read(tmp_path / "results.jsonl") == {}


class Recorded(suite.Run):
    """A run whose tests end as they are told to."""

    calls: list[tuple[list[str], int]]

    def go(self, names: list[str], processes: int, say: object) -> None:  # type: ignore[override]
        self.calls.append((names, processes))
        with self.results_file.open("a") as file:
            file.writelines(line(name, "failed" if "bad" in name else "passed") for name in names)


@pytest.fixture
def run(tmp_path: Path) -> Recorded:
    nothing = Path("nothing")
    found = Recorded(suite.Programs("v1.37.2", nothing, nothing, nothing, ()), tmp_path, nothing, 2)
    object.__setattr__(found, "calls", [])
    return found


def test_serial_tests_run_alone_and_failed_ones_once_more(run: Recorded) -> None:
    names = ["[sig-a] one", "[sig-a] bad", "[sig-a] alone [Serial]", "[sig-a] breaks [Disruptive]"]
    suite.phases(run, names, 3, lambda _line: None, again=lambda _result: False)
    assert run.calls == [
        (["[sig-a] one", "[sig-a] bad"], 3),
        (["[sig-a] alone [Serial]", "[sig-a] breaks [Disruptive]"], 1),
        (["[sig-a] bad"], 1),
    ]


def test_what_has_a_result_does_not_run_again(run: Recorded) -> None:
    run.results_file.write_text(line("[sig-a] one", "passed") + line("[sig-a] skips", "skipped"))
    suite.phases(run, ["[sig-a] one", "[sig-a] skips", "[sig-a] two"], 2, lambda _line: None, lambda _result: False)
    assert [names for names, _ in run.calls if names] == [["[sig-a] two"]]


def test_what_failed_runs_again_where_that_is_asked_for(run: Recorded) -> None:
    run.results_file.write_text(line("[sig-a] one", "passed") + line("[sig-a] was", "failed"))
    suite.phases(run, ["[sig-a] one", "[sig-a] was"], 2, lambda _line: None, again=lambda result: result.failed)
    assert [names for names, _ in run.calls if names] == [["[sig-a] was"]]
    assert run.results()["[sig-a] was"].state == "passed"


RESULTS = [
    Result("[sig-apps] one", "passed", "2026-11-29T16:00:00Z", 90.0, "", ""),
    Result("[sig-apps] two | three", "failed", "2026-11-29T16:01:00.5+00:00", 30.0, "\nno \x1banswer\nmore", "x.go:7"),
    Result("[sig-node] four", "skipped", "2026-11-29T17:00:00.123456789Z", 6.0, "needs more", "x.go:8"),
]


def test_the_table_counts_by_group() -> None:
    assert report.rows(RESULTS) == [
        ("sig-apps", "1", "1", "0", "2.0"),
        ("sig-node", "0", "0", "1", "0.1"),
        ("all", "1", "1", "1", "2.1"),
    ]
    assert "failed: [sig-apps] two | three\n  x.go:7\n  no \x1banswer\n" in report.text(RESULTS)


def test_junit_xml_is_valid_whatever_a_test_says() -> None:
    suite = ElementTree.fromstring(report.junit(RESULTS, "Kubernetes v1.37.2"))
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
    failure = suite.find("testcase[@name='[sig-apps] two | three']/failure")
    assert failure is not None
    assert failure.get("message") == "no ?answer"


def test_a_pause_between_two_parts_of_a_run_is_not_its_time() -> None:
    assert report.seconds(RESULTS) == pytest.approx(96.0)


def test_a_section_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n<!-- runs end -->\nMore\n")
    report.write(page, "v1, 1", "## v1\n")
    report.write(page, "v1, 3", "## v1, three\n")
    report.write(page, "v1, 1", "## v1 again\n")
    assert page.read_text() == (
        "# Page\n\n<!-- run: v1, 1 -->\n## v1 again\n<!-- run ends -->\n"
        "\n<!-- run: v1, 3 -->\n## v1, three\n<!-- run ends -->\n"
        "\n<!-- runs end -->\nMore\n"
    )


def test_the_first_line_of_a_failure_is_its_reason() -> None:
    assert report.first_line(RESULTS[1]) == "no \x1banswer"


def test_a_run_is_complete_when_what_failed_has_run_once_more(run: Recorded) -> None:
    names = ["[sig-a] good", "[sig-a] bad"]
    assert not suite.complete(run.results(), names)
    run.go(names, 2, print)
    assert not suite.complete(run.results(), names)
    run.go(names[1:], 1, print)
    assert suite.complete(run.results(), names)
