"""Engine tests: real clusters on a real engine, used like a user does and checked with the stock docker client."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from minicluster.cluster import Cluster
from minicluster.engine import discover
from minicluster.engine.protocol import Engine
from minicluster.profile import catalog
from minicluster.profile.resolve import built_images
from tests.engine.warm import Warm

#: The prefix of the names of tests' clusters: others are never touched.
PREFIX = "t-"

warm = Warm()


@dataclass(frozen=True)
class Result:
    """The result of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


#: A program to test the profile consul with, in place of Debian's.
CONSUL_SOURCE = "MINICLUSTER_TEST_CONSUL_SOURCE"


def _consul() -> dict[str, str]:
    source = os.environ.get(CONSUL_SOURCE)
    if not source:
        return {"version": "1.8.7"}
    said = subprocess.run([source, "version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+\.\d+[\w.+-]*", said)
    assert found, f"{source} says no version: {said}"
    return {"version": found[0], "consul.source": str(Path(source).resolve())}


#: Settings for profiles whose default version can be had only by a download.
SETTINGS = {"consul": _consul()}
#: The same as options.
VERSION = {
    profile: tuple(word for name, value in settings.items() for word in ("--set", f"{name}={value}"))
    for profile, settings in SETTINGS.items()
}


@dataclass
class Shell:
    """Runs commands with additional environment variables."""

    env: dict[str, str] = field(default_factory=dict)

    def run(self, *argv: str, timeout: float = 180, ok: bool = True, cwd: Path | None = None) -> Result:
        done = subprocess.run(
            argv,
            env=os.environ | self.env,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
        )
        answer = Result(done.returncode, done.stdout, done.stderr)
        said = f"{done.stderr.strip()}\n{done.stdout}"
        assert not ok or done.returncode == 0, f"status {done.returncode}: {said}\nof {argv}"
        return answer

    def minicluster(self, *argv: str, ok: bool = True, timeout: float = 180) -> Result:
        if type(self).run is not Shell.run:  # a subclass runs them elsewhere
            return self.run(*self.command(*argv), ok=ok, timeout=timeout)
        answer = Result(*warm.run(argv, os.environ | self.env, timeout))
        assert not ok or answer.code == 0, f"{argv} ended with {answer.code}:\n{answer.out}\n{answer.err}"
        return answer

    def command(self, *argv: str) -> list[str]:
        return [sys.executable, "-m", "minicluster", *argv]

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """Starts ``minicluster`` in the background, to be interrupted."""
        return subprocess.Popen(
            self.command(*argv),
            env=os.environ | self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def docker(self, *argv: str, ok: bool = True, timeout: float = 120) -> Result:
        return self.run("docker", *argv, ok=ok, timeout=timeout)


def eventually(check: Callable[[], Any], *, within: float = 60.0, what: str = "", pause: float = 0.2) -> Any:
    """Repeats a check until its result is true, and returns that result."""
    end = time.monotonic() + within
    while True:
        answer = check()
        if answer:
            return answer
        assert time.monotonic() < end, f"not true within {within:g} s: {what or check}; the last result was {answer!r}"
        time.sleep(pause)


def hears_signals(process: subprocess.Popen[str]) -> None:
    """Waits until a minicluster process handles SIGTERM: Python takes seconds to start on a busy machine."""

    def handles() -> bool:
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
        return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)

    eventually(handles, what="minicluster handles SIGTERM", pause=0.01)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """While a test that is marked ``alone`` runs, no worker runs another test."""
    alone = item.get_closest_marker("alone") is not None
    with open(Path(tempfile.gettempdir()) / f"minicluster-tests-{os.getuid()}.lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        return (yield)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """The engine of all tests; a private one is started if none runs, and stopped at the end of the suite."""
    found = discover.connect(start_private=True)
    with open(Path(tempfile.gettempdir()) / f"minicluster-tests-{os.getuid()}.engine", "a") as file:
        with contextlib.suppress(BlockingIOError):  # another run has clusters
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _clear(shell_on(found))
        fcntl.flock(file, fcntl.LOCK_SH)
        yield found
    found.close()
    warm.close()


@pytest.fixture(scope="session")
def outer(engine: Engine) -> Shell:
    """The stock client and minicluster, with the engine that runs the nodes."""
    return shell_on(engine)


def shell_on(engine: Engine) -> Shell:
    return Shell({"DOCKER_HOST": engine.info.endpoint} if engine.info.endpoint.startswith("unix:") else {})


def _clear(shell: Shell) -> None:
    """Removes what a killed run has left behind: a test would find a cluster that it is about to create."""
    for cluster in shell.minicluster("ls", "-o", "json").json:
        if cluster["cluster"].startswith(PREFIX):
            shell.minicluster("down", cluster["cluster"], ok=False)
    remove = {"containers": ("rm", "-fv"), "networks": ("network", "rm"), "volumes": ("volume", "rm")}
    for kind, names in remains(shell).items():
        shell.docker(*remove[kind], *names)


def remains(shell: Shell, prefix: str = PREFIX) -> dict[str, list[str]]:
    """Objects of clusters whose names have the prefix, by kind: empty once the clusters are removed."""
    kinds = {
        "containers": ("ps", "-a", "--format", "{{.Names}}"),
        "networks": ("network", "ls", "--format", "{{.Name}}"),
        "volumes": ("volume", "ls", "--format", "{{.Name}}"),
    }
    found = {kind: shell.docker(*argv).out.split() for kind, argv in kinds.items()}
    return {kind: left for kind, names in found.items() if (left := [n for n in names if n.startswith(prefix)])}


def swarm_client(shell: Shell, name: str) -> Shell:
    """The stock docker client of a cluster, with the variables of ``minicluster env``."""
    exports = shell.minicluster("env", name, "-o", "json").json
    return Shell(exports)


def etcd_called(outer: Shell, folder: Path) -> Path:
    """Copies etcd's profile into a new folder, under the folder's name, so that its clusters can be distinguished."""
    outer.minicluster("image", "build", "etcd", timeout=600)
    loaded = catalog.load("etcd")
    shutil.copytree(loaded.directory, folder)
    ref = built_images(loaded)["node"].ref
    text = (folder / "profile.yaml").read_text().replace("name: etcd", f"name: {folder.name}")
    text = text.replace("{build: image, parts: [etcd], overlay: image-overlay}", f"{{image: {ref}}}")
    text = text.replace("main_part: etcd\n", "")
    (folder / "profile.yaml").write_text(text)
    return folder


@pytest.fixture(scope="session")
def node_image(outer: Shell) -> str:
    """The Swarm node's image, built if necessary."""
    return outer.minicluster("image", "build", "swarm", timeout=600).out.split()[-1]


@pytest.fixture
def own_cluster(request: pytest.FixtureRequest, outer: Shell, engine: Engine) -> Iterator[Cluster]:
    """A cluster of the test's own: indirectly parametrized by the arguments of ``up``, the profile first."""
    profile, *options = request.param
    name = f"{request.module.NAME}-{profile}"
    try:
        outer.minicluster("up", profile, "--name", name, *options, timeout=600)
        yield Cluster.open(name, engine=engine)
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}
