"""profiles/_lib/script.sh, under each of the shells that source it."""

from __future__ import annotations

import shutil
import time

import pytest

from tests.scripts.conftest import Node

SHELLS = [["sh"], ["bash"], *([["busybox", "sh"]] if shutil.which("busybox") else [])]


@pytest.fixture(params=SHELLS, ids=" ".join)
def shell(request: pytest.FixtureRequest, node: Node) -> list[str]:
    """Installs a script "try" and returns how it begins in that shell."""
    return list(request.param)


def script(node: Node, shell: list[str], body: str) -> None:
    path = shutil.which(shell[0])
    line = " ".join([str(path), *shell[1:]])
    node.program("try", f"#!{line}\nset -eu\n. {node.lib}/script.sh\n{body}")


def test_retry_ends_with_the_first_success(node: Node, shell: list[str]) -> None:
    script(node, shell, "n=0\nthird() { n=$((n + 1)); [ $n = 3 ]; }\nretry 5 0.01 third\necho $n\n")
    done = node.run("try")
    assert (done.returncode, done.stdout) == (0, "3\n")


def test_retry_passes_arguments_and_keeps_variables(node: Node, shell: list[str]) -> None:
    script(node, shell, 'copy() { seen="$2|$1"; }\nretry 1 0.01 copy "a b" c\necho "$seen"\n')
    assert node.run("try").stdout == "c|a b\n"


def test_retry_gives_up_after_its_time(node: Node, shell: list[str]) -> None:
    script(node, shell, "no() { error=still; return 1; }\nretry 1 0.05 no || fail $error\n")
    begun = time.monotonic()
    done = node.run("try")
    assert (done.returncode, done.stderr) == (1, "try: still\n")
    assert 0.9 < time.monotonic() - begun < 3


def test_retry_without_time_tries_once(node: Node, shell: list[str]) -> None:
    script(node, shell, "no() { echo tried; return 1; }\nretry 0 1 no || exit 3\n")
    done = node.run("try")
    assert (done.returncode, done.stdout) == (3, "tried\n")


def test_retries_can_be_nested(node: Node, shell: list[str]) -> None:
    body = "n=0\ninner() { n=$((n + 1)); [ $((n % 2)) = 0 ]; }\nouter() { retry 5 0.01 inner; [ $n = 4 ]; }\n"
    script(node, shell, body + "retry 5 0.01 outer\necho $n\n")
    assert node.run("try").stdout == "4\n"


def test_an_error_inside_does_not_end_the_script(node: Node, shell: list[str]) -> None:
    script(node, shell, "n=0\nstep() { n=$((n + 1)); false; [ $n = 2 ]; }\nretry 5 0.01 step\necho $n\n")
    assert node.run("try").stdout == "2\n"


def test_a_probe_says_why_without_its_name(node: Node, shell: list[str]) -> None:
    script(node, shell, "not_ready nothing listens\n")
    done = node.run("try")
    assert (done.returncode, done.stderr) == (1, "nothing listens\n")


WAITS = """single_flight
[ "${1-}" != --cancel ] || exit 0
echo begun
over() { ! superseded || fail "cancelled by a newer run"; [ -e %s/go ]; }
retry 20 0.02 over
echo done
"""


def test_a_newer_run_ends_an_earlier_one(node: Node, shell: list[str]) -> None:
    script(node, shell, WAITS % node.root)
    first = node.start("try")
    assert first.stdout
    assert first.stdout.readline() == "begun\n"
    second = node.start("try")
    out, error = first.communicate(timeout=10)
    assert (first.returncode, out, error) == (1, "", "try: cancelled by a newer run\n")
    assert second.stdout
    assert second.stdout.readline() == "begun\n"
    node.write("go", "")
    assert second.communicate(timeout=10)[0] == "done\n"
    assert second.returncode == 0


def test_cancel_returns_when_the_earlier_run_has_ended(node: Node, shell: list[str]) -> None:
    script(node, shell, WAITS % node.root)
    first = node.start("try")
    assert first.stdout
    assert first.stdout.readline() == "begun\n"
    assert node.run("try", "--cancel").returncode == 0
    assert first.wait(timeout=1) == 1
    first.communicate()


def test_a_script_that_was_called_ends_with_its_caller(node: Node, shell: list[str]) -> None:
    node.program(
        "called",
        f"#!/bin/sh\n. {node.lib}/script.sh\nover() {{ ! superseded || fail over; false; }}\nretry 20 0.02 over\n",
    )
    script(
        node, shell, '[ "${1-}" = --cancel ] || echo begun\nsingle_flight\n[ "${1-}" != --cancel ] || exit 0\ncalled\n'
    )
    first = node.start("try")
    assert first.stdout
    assert first.stdout.readline() == "begun\n"
    deadline = time.monotonic() + 5
    while not (node.root / "run/try.attempt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert node.run("try", "--cancel").returncode == 0
    _out, error = first.communicate(timeout=10)
    assert (first.returncode, error) == (1, "called: over\n")


def test_outside_of_single_flight_nothing_is_superseded(node: Node, shell: list[str]) -> None:
    script(node, shell, "superseded || echo no\n")
    assert node.run("try").stdout == "no\n"
