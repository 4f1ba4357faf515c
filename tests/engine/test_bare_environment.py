"""Environments with little in them, as in CI: every family of commands, and the pytest plugin, in each of them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from minicluster.engine.protocol import Engine
from tests.engine.conftest import Result, Shell, etcd_called, remains

NAME = "t-bare"
KIND = "t-bare-kind"
UID = 54321  #: of a user that the system does not know

#: Reads every file, as a user may read the source tree who runs tests of it; nothing else that root may do.
NOBODY = (
    "setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups",
    "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search", "--bounding-set=-all,+dac_read_search",
)  # fmt: skip

#: A /tmp of 1 MiB, in which the folder of the test, the first argument, is all the same.
SMALL_TMP = """
mount --bind "$1" /mnt
mount -t tmpfs -o size=1m tmp /tmp
mkdir -p "$1"
mount --bind /mnt "$1"
shift
exec "$@"
"""


@dataclass(frozen=True)
class Bare:
    """An environment: what is in front of a command, behind it, and which variables it has."""

    prefix: tuple[str, ...] = ()
    streams: str = ""
    env: dict[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    user: int = 0


BARE = {
    "a user without a name": Bare(NOBODY, env={"HOME": "{home}"}, user=UID),
    "no HOME": Bare(without=("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "USER", "LOGNAME")),
    "closed streams": Bare(streams="<&- >&- 2>&-"),
    "no standard output": Bare(streams=">&-"),
    "a home that cannot be written": Bare(
        env={"HOME": "/proc/none", "XDG_DATA_HOME": "{home}", "XDG_CACHE_HOME": "{home}/cache"}
    ),
    "an odd locale": Bare(env={"LC_ALL": "xx_YY.bogus", "LANG": "tlh", "PYTHONIOENCODING": "ascii"}),
    "umask 077": Bare(("sh", "-c", 'umask 077; exec "$@"', "sh"), env={"XDG_DATA_HOME": "{home}"}),
    "umask 000": Bare(("sh", "-c", 'umask 000; exec "$@"', "sh"), env={"XDG_DATA_HOME": "{home}"}),
    "nothing on PATH": Bare(env={"PATH": "/nonexistent"}),
    "a small /tmp": Bare(("unshare", "-m", "sh", "-euc", SMALL_TMP, "sh", "{parent}")),
    "no variables at all": Bare(("env", "-i", "{engine}", "{path}")),
}


class Relay:
    """A socket that every user may connect to, and that leads to the engine's."""

    def __init__(self, engine: str, path: Path) -> None:
        self.engine, self.path = engine, path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        path.chmod(0o666)
        self.listener.listen(64)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self.serve, args=(self.listener.accept()[0],), daemon=True).start()

    def serve(self, client: socket.socket) -> None:
        with closing(client), closing(socket.socket(socket.AF_UNIX)) as server, suppress(OSError):
            server.connect(self.engine)
            back = threading.Thread(target=self.copy, args=(server, client), daemon=True)
            back.start()
            self.copy(client, server)
            back.join()

    @staticmethod
    def copy(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@pytest.fixture(params=list(BARE), ids=lambda name: name.replace(" ", "-").replace("/", ""))
def shell(request: pytest.FixtureRequest, engine: Engine, tmp_path: Path) -> Iterator[BareShell]:
    bare = BARE[request.param]
    if bare.prefix and os.geteuid() != 0:
        pytest.skip("needs root, to be another user")
    if bare.prefix and not shutil.which(bare.prefix[0]):
        pytest.skip(f"needs {bare.prefix[0]}")
    scheme, _, path = engine.endpoint.partition("://")
    if scheme != "unix":
        pytest.skip("needs the engine's socket")
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    os.chown(home, bare.user, bare.user)
    relay = Relay(path, tmp_path / "docker.sock")
    yield BareShell({"DOCKER_HOST": f"unix://{relay.path}"}, bare, home)
    relay.listener.close()


@dataclass
class BareShell(Shell):
    """Runs commands in such an environment."""

    bare: Bare = field(default_factory=Bare)
    home: Path = Path()

    def run(self, *argv: str, timeout: float = 180, ok: bool = True, cwd: Path | None = None) -> Result:
        root = str(Path(__file__).parents[2])
        env = {**os.environ, "PYTHONPATH": root, **self.env, **self.bare.env}
        values = {
            "home": str(self.home),
            "parent": str(self.home.parent),
            "engine": f"DOCKER_HOST={env['DOCKER_HOST']}",
            "path": f"PYTHONPATH={root}",
        }
        env = {name: value.format(**values) for name, value in env.items() if name not in self.bare.without}
        prefix = [word.format(**values) if word.startswith("{") else word for word in self.bare.prefix]
        found = [shutil.which(prefix[0]) or prefix[0], *prefix[1:]] if prefix else []
        # A file, since a stream may be closed.
        said = self.home.parent / "said"
        done = subprocess.run(
            ["/bin/sh", "-c", f'"$@" {self.bare.streams}', "sh", *found, *argv],
            env=env,
            stdout=said.open("w"),
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            cwd=cwd,
            check=False,
        )
        text = said.read_text(errors="replace")
        assert "Traceback" not in text, text
        assert not ok or done.returncode == 0, f"status {done.returncode} of {argv}: {text}"
        return Result(done.returncode, text, "")


@pytest.mark.long
def test_every_family_of_commands(shell: BareShell, outer: Shell, tmp_path: Path) -> None:
    (shell.home / "file").write_text("content\n")
    os.chown(shell.home / "file", shell.bare.user, shell.bare.user)
    try:
        shell.minicluster("doctor", ok=False)
        shell.minicluster("profile", "list")
        shell.minicluster("up", "etcd", "--name", NAME, "--size", "kv=1", "--dry-run")
        shell.minicluster("up", "etcd", "--name", NAME, "--size", "kv=1")
        for command in (
            ("ls",), ("status", NAME), ("info", NAME), ("env", NAME), ("logs", NAME), ("top", NAME, "--once"),
            ("exec", "-c", NAME, "kv-1", "--", "true"), ("etcdctl", "-c", NAME, "put", "a", "b"), ("image", "list"),
            ("cp", str(shell.home / "file"), "kv-1:/tmp/file", "-c", NAME), ("stop", NAME), ("start", NAME),
            ("reset", NAME), ("restart", "-c", NAME), ("fault", "list", "-c", NAME), ("registry", "status"),
            ("engine", "status"),
        ):  # fmt: skip
            shell.minicluster(*command)
        # The client's key is nobody else's, whatever the umask.
        keys = [file for file in tmp_path.rglob("key.pem") if NAME in str(file)]
        assert keys or "XDG_DATA_HOME" not in shell.bare.env
        assert [file.stat().st_mode & 0o077 for file in keys] == [0] * len(keys)
        shell.minicluster("down", NAME)
        assert remains(outer, NAME) == {}
    finally:
        outer.minicluster("down", NAME, "-q", ok=False)


TEST = """
import os

def test_it(minicluster):
    cluster = minicluster(os.environ["PROFILE"], size={"kv": 1})
    assert cluster.node("kv-1").exec(["etcdctl", "put", "a", "b"]).stdout == "OK\\n"
"""


@pytest.mark.long
def test_the_plugin(shell: BareShell, outer: Shell, tmp_path: Path) -> None:
    if shell.bare.streams:
        pytest.skip("pytest itself needs its standard output")
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "test_it.py").write_text(TEST)
    profile = etcd_called(outer, tmp_path / KIND)
    try:
        command = (sys.executable, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder))
        shell.run("/usr/bin/env", f"PROFILE={profile}", *command, str(folder / "test_it.py"), cwd=folder)
    finally:
        assert remains(outer, KIND) == {}
