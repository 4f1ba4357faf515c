"""For all tests: SIGINT is handled, the long tests are divided into shards, and at the end nothing may be left behind.

The last check runs in the process that the suite was started as, after all workers of pytest-xdist have ended.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from minicluster import paths
from minicluster.engine import discover
from minicluster.engine.private import daemon
from tests import shards
from tests.engine.conftest import PREFIX, remains, shell_on

_MARK = "MINICLUSTER_TESTS"  # a variable in the environment of every process that the tests start, and of its children
_PATIENCE = 30.0  # seconds: a lease's reaper checks twice before it ends, and gives up after twenty attempts
_LEFT_BEHIND = 10  # pytest's exit code if something is left behind, even if tests failed too; its own codes end at 5

_had_engine = False
_used_engine = False
_left: list[str] = []
_before: frozenset[Path] = frozenset()  # files that an interrupted run left: that run's fault, not this one's
_took: defaultdict[str, Counter[str]] = defaultdict(Counter)  # file -> core or long -> seconds


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("suite", "the suite of minicluster")
    group.addoption(
        "--shard", metavar="K/N", default="1/1", help="the core, and shard K of N of the tests marked `long`"
    )
    group.addoption("--record", action="store_true", help="write the seconds of each file to tests/seconds.json")


def pytest_configure(config: pytest.Config) -> None:
    global _had_engine, _before
    # A shell that starts the tests in the background makes them, and all that they start, ignore SIGINT.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not _is_worker(config):
        try:
            shards.parse(config.getoption("--shard"))
        except ValueError as error:
            raise pytest.UsageError(f"--shard: {error}") from None
        os.environ[_MARK] = uuid.uuid4().hex
        _had_engine = daemon.status().running
        _before = frozenset(_files())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    seconds = shards.recorded()
    items.sort(key=lambda item: shards.order(_file(item.nodeid), seconds))
    wanted, count = shards.parse(config.getoption("--shard"))
    assigned = shards.assign(shards.files(), count, seconds)
    long = (item for item in items if item.get_closest_marker("long"))
    other = {item for item in long if assigned.get(_file(item.nodeid), wanted) != wanted}
    config.hook.pytest_deselected(items=[*other])
    items[:] = [item for item in items if item not in other]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    global _used_engine
    _used_engine |= "tests/engine/" in report.nodeid or report.nodeid.startswith("examples/")
    _took[_file(report.nodeid)]["long" if "long" in report.keywords else "core"] += report.duration
    _used_engine |= "tests/contract/" in report.nodeid and "real" in report.nodeid and report.when == "call"


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    result = yield
    if not _is_worker(session.config) and _used_engine:
        try:
            _left.extend(_remains())
        finally:
            if not _had_engine and daemon.status().running:
                daemon.stop()
        if _left:
            session.exitstatus = _LEFT_BEHIND
    if not _is_worker(session.config) and session.config.getoption("--record"):
        shards.record(_took)
    return result


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _left:
        terminalreporter.section("left behind", red=True, bold=True)
        for line in _left:
            terminalreporter.line(line)


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _remains() -> list[str]:
    """What the tests left behind, after a grace period for what is being removed."""
    end = time.monotonic() + _PATIENCE
    engine = discover.connect()
    shell = shell_on(engine)
    while True:
        found = [f"{kind}: {', '.join(names)}" for kind, names in remains(shell).items()]
        over = shell.run(*shell.command("gc", "--dry-run", "-o", "json")).json
        found += [f"expired or orphaned, and not removed: {c['cluster']}" for c in over]
        found += [str(path) for path in _files() if path not in _before]
        found += _processes()
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.5)


def _files() -> list[Path]:
    """The files that minicluster keeps about the tests' clusters."""
    folders = (paths.data_home() / name for name in ("clusters", "locks", "hosts"))
    return sorted(
        path for folder in folders if folder.exists() for path in folder.iterdir() if path.name.startswith(PREFIX)
    )


def _processes() -> list[str]:
    """Processes that the tests started, and their descendants, even detached ones; except the private engine's."""
    found, mark = [], f"{_MARK}={os.environ[_MARK]}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            if int(folder.name) == os.getpid() or mark not in variables:
                continue
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue  # it has ended, or belongs to another user
        if command and not any(name in command.split()[0] for name in ("dockerd", "containerd", "docker-proxy")):
            test = next((v.decode(errors="replace") for v in variables if v.startswith(b"PYTEST_CURRENT_TEST=")), "")
            found.append(f"process {folder.name}: {command} {test}")
    return found
