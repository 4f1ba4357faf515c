"""For all tests: Ctrl-C is heard, and whatever they did, nothing of it is left: the last check of the suite.

The check is made by the process that the suite was started as, after all workers of pytest-xdist have ended.
"""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from minicluster import paths
from minicluster.engine import discover
from minicluster.engine.private import daemon
from tests.engine.conftest import PREFIX, remains, shell_on

_MARK = "MINICLUSTER_TESTS"  # a variable that every process has which the tests start, and those that these start
_PATIENCE = 15.0  # seconds: a reaper looks twice before it ends
_LEFT_BEHIND = 10  # pytest's exit code where something is left; its own end at 5. What failed beside it matters less

#: Files of tests that take minutes, the longest first: begun late, one would go on alone at the end.
_LONG = (
    "test_kubernetes_life",
    "test_zookeeper",
    "test_kubernetes",
    "test_consul",
    "test_swarm_verbs",
    "test_etcd",
    "test_many",
    "test_kubernetes_masters",
    "test_own_engine",
    "test_survival",
    "test_plugin",
    "test_mesos",
    "test_swarm",
    "test_failing",
    "test_examples",
)

_had_engine = False
_used_engine = False
_left: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    global _had_engine
    # A shell that starts the tests in the background lets them, and all they start, ignore Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not _is_worker(config):
        os.environ[_MARK] = uuid.uuid4().hex
        _had_engine = daemon.status().running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(_LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    global _used_engine
    _used_engine |= "tests/engine/" in report.nodeid or report.nodeid.startswith("examples/")


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
    return result


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _left:
        terminalreporter.section("left behind", red=True, bold=True)
        for line in _left:
            terminalreporter.line(line)


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _remains() -> list[str]:
    """What the tests left, once what is on its way out has had its time."""
    end = time.monotonic() + _PATIENCE
    engine = discover.connect()
    shell = shell_on(engine)
    while True:
        found = [f"{kind}: {', '.join(names)}" for kind, names in remains(shell).items()]
        over = shell.run(*shell.command("gc", "--dry-run", "-o", "json")).json
        found += [f"over, and not removed: {c['cluster']}" for c in over]
        for folder in (paths.data_home() / "clusters", paths.data_home() / "locks"):
            names = [p.name for p in folder.iterdir() if p.name.startswith(PREFIX)] if folder.exists() else []
            found += [f"{folder}: {', '.join(names)}"] if names else []
        found += _processes()
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.5)


def _processes() -> list[str]:
    """Processes that the tests started, or that those started, however detached; but for the private engine."""
    found, mark = [], f"{_MARK}={os.environ[_MARK]}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int(folder.name) == os.getpid() or mark not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue  # it ended meanwhile, or is another user's
        if command and not any(name in command.split()[0] for name in ("dockerd", "containerd", "docker-proxy")):
            found.append(f"process {folder.name}: {command}")
    return found
