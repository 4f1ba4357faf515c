"""Runs tests of upstream's suite and keeps each result as soon as it is there, so that a run may be interrupted."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from minicluster.errors import MiniclusterError, UsageError
from tests.conformance.images import Programs, Say, output

FINAL = ("passed", "skipped")  #: what is not run again
_POLL = 5.0  #: seconds between looks at results
_REMOVED = 300.0  #: seconds until the namespaces of tests before are gone


@dataclass(frozen=True)
class Result:
    """How one test ended."""

    name: str
    state: str  #: passed, skipped, or how it failed, in ginkgo's words
    start: str  #: RFC 3339
    seconds: float
    message: str  #: why it failed, or was skipped
    where: str  #: file and line of the failure
    attempts: int = 1

    @property
    def failed(self) -> bool:
        return self.state not in FINAL

    @property
    def group(self) -> str:
        """The special interest group whose test it is."""
        found = re.match(r"\[(sig-[\w-]+)\]", self.name)
        return found[1] if found else "other"


@dataclass(frozen=True)
class Run:
    """Where a run's results are, and the cluster that it is about."""

    programs: Programs
    folder: Path
    kubeconfig: Path
    agents: int

    @property
    def results_file(self) -> Path:
        return self.folder / "results.jsonl"

    def results(self) -> dict[str, Result]:
        """Test -> its last result, with the number of its attempts."""
        return read(self.results_file)

    def go(self, names: Sequence[str], processes: int, say: Say) -> None:
        """Runs tests.

        Raises:
            MiniclusterError: some of them have no result, since the suite could not start or was aborted.
        """
        if not names:
            return
        self._settle()
        before = len(_lines(self.results_file))
        # Anchored outside of the alternatives: Go tries all of them at every position of every test's name otherwise.
        focus = f"^Kubernetes e2e suite (?:{'|'.join(map(_literal, names))})$"
        command = [
            str(self.programs.ginkgo), f"--procs={processes}", "--timeout=24h", "--no-color", "--silence-skips",
            f"--focus={focus}", str(self.programs.tests), "--",
            f"--kubeconfig={self.kubeconfig}", f"--kubectl-path={self.programs.kubectl}", "--provider=skeleton",
            "--repo-root=", "--disable-log-dump", f"--storage.testdriver={_storage()}",
            "--clean-start", f"--num-nodes={self.agents}",
        ]  # fmt: skip
        log = self.folder / "e2e.log"
        environment = {**os.environ, "E2E_RESULTS": str(self.results_file), "KUBECONFIG": str(self.kubeconfig)}
        with log.open("ab") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=self.folder, start_new_session=True
            )
            try:
                self._watch(process, before, len(names), say)
            finally:
                if process.poll() is None:  # interrupted: its tests' results do not count
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        done = {line["name"] for line in _lines(self.results_file)[before:]}
        if missing := [name for name in names if name not in done]:
            raise MiniclusterError(
                f"{len(missing)} of {len(names)} tests have no result, such as {missing[0]}",
                f"ginkgo ended with status {process.returncode}.",
                f"Read the end of {log}.",
            )

    def _settle(self) -> None:
        """Waits until no namespace is being removed: the suite fails where one disappears while it is removed again."""
        kubectl = (str(self.programs.kubectl), f"--kubeconfig={self.kubeconfig}")
        end = time.monotonic() + _REMOVED
        while "Terminating" in output(*kubectl, "get", "namespaces", "--output=jsonpath={.items[*].status.phase}"):
            if time.monotonic() > end:
                raise MiniclusterError(
                    f"a namespace is still being removed after {_REMOVED:.0f} s",
                    "The suite fails where one disappears while it is removed again.",
                    f"See `kubectl --kubeconfig={self.kubeconfig} describe namespaces`, and run it again.",
                )
            time.sleep(1)

    def _watch(self, process: subprocess.Popen[bytes], before: int, count: int, say: Say) -> None:
        begun, shown = time.monotonic(), -1
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_POLL)
            new = _lines(self.results_file)[before:]
            if len(new) != shown:
                shown = len(new)
                failed = [line["name"] for line in new if line["state"] not in FINAL]
                minutes = (time.monotonic() - begun) / 60
                last = f"; failed last: {failed[-1]}" if failed else ""
                say(f"{shown} of {count} tests, {len(failed)} failed, {minutes:.1f} min{last}")
            if process.poll() is not None:
                return


def read(path: Path) -> dict[str, Result]:
    """Test -> its last result. A test that has passed once has passed."""
    found: dict[str, Result] = {}
    for line in _lines(path):
        before = found.get(line["name"])
        if before and not before.failed:
            continue
        found[line["name"]] = Result(**line, attempts=before.attempts + 1 if before else 1)
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    whole = path.read_bytes().rpartition(b"\n")[0]  # what is behind the last newline is being written
    return [json.loads(line) for line in whole.splitlines() if line]


def _literal(text: str) -> str:
    """A regular expression of Go's that matches a text alone."""
    return re.sub(r"[\\.+*?()|\[\]{}^$]", r"\\\g<0>", text)


def _storage() -> Path:
    return Path(__file__).parent / "storage.yaml"


def listed(programs: Programs) -> list[str]:
    """All tests of the suite."""
    said = output(str(programs.tests), "--list-tests", f"--storage.testdriver={_storage()}")
    return sorted(set(re.findall(r"^ +\S+:\d+: (.+)$", said, re.MULTILINE)))


def images(programs: Programs) -> list[str]:
    """The images that tests of the suite use."""
    return output(str(programs.tests), "--list-images").split()


def conformance(programs: Programs) -> list[str]:
    """The tests of upstream's conformance.yaml."""
    described = yaml.load(output(str(programs.tests), "--list-conformance-tests"), yaml.CSafeLoader)
    return sorted({test["codename"] for test in described})


def chosen(programs: Programs, focus: str) -> list[str]:
    """The tests that a regular expression finds; "" is those of conformance.yaml.

    Raises:
        UsageError: there are none, or it is not a regular expression.
        MiniclusterError: the suite lacks a test of conformance.yaml.
    """
    known = listed(programs)
    if not focus:
        wanted = conformance(programs)
        if lacking := set(wanted) - set(known):
            raise MiniclusterError(f"the suite lacks {len(lacking)} tests of conformance.yaml", "\n".join(lacking))
        return wanted
    try:
        found = [name for name in known if re.search(focus, name)]
    except re.error as error:
        raise UsageError(f"--focus {focus}: not a regular expression: {error}") from None
    if not found:
        raise UsageError(f"--focus {focus}: no test has a name like that")
    return found


def complete(results: Mapping[str, Result], wanted: Iterable[str]) -> bool:
    """Whether each test has a result, and each that failed has run once more."""
    return all(name in results and not _is_due(results[name]) for name in wanted)


def _is_due(result: Result) -> bool:
    return result.failed and result.attempts == 1


def phases(run: Run, wanted: Iterable[str], processes: int, say: Say, again: Callable[[Result], bool]) -> None:
    """Runs what has no result yet: what may run beside others, then each ``[Serial]`` test, then failed ones, alone.

    Args:
        again: which results do not count.
    """
    wanted = list(wanted)
    had = run.results()
    todo = [name for name in wanted if name not in had or again(had[name])]
    serial = [name for name in todo if "[Serial]" in name or "[Disruptive]" in name]
    parallel = [name for name in todo if name not in set(serial)]
    say(f"{len(wanted)} tests: {len(wanted) - len(todo)} done, {len(parallel)} to run in parallel, {len(serial)} alone")
    run.go(parallel, processes, say)
    run.go(serial, 1, say)
    results = run.results()
    failed = [name for name in wanted if _is_due(results[name])]
    if failed:
        say(f"{len(failed)} failed: once more, alone")
        run.go(failed, 1, say)
