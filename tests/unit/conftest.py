"""What unit tests share. Nothing here, nor in the tests, may touch the user's own folders or an engine."""

from __future__ import annotations

import os
import signal
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minicluster.engine import build_settings
from minicluster.executor.signals import SIGNALS
from minicluster.leases import reaper_client
from minicluster.profile.load import load
from minicluster.profile.loaded import Loaded
from tests.fakes import FakeEngine, FakeEtcd, FakeSwarm
from tests.unit.samples import LEAST, TOY


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.delenv("MINICLUSTER", raising=False)
    monkeypatch.delenv("MINICLUSTER_ADDRESS_MODE", raising=False)
    monkeypatch.setattr(build_settings, "_ETC", home)  # whatever mirror of Debian this machine has
    for name in (build_settings.MIRROR, *build_settings.BUNDLES, *build_settings.GO, *build_settings.PIP):
        monkeypatch.delenv(name, raising=False)
    for name in build_settings.PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.delenv("MINICLUSTER_FILE", raising=False)


class _NoReaper:
    """A reaper that watches nothing: it could not reach the engines of these tests, and would outlive them."""

    def __init__(self) -> None:
        self.pid = os.getpid()

    def send(self, **_message: object) -> bool:
        return True


@pytest.fixture(autouse=True)
def _no_reaper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaper_client, "_Reaper", _NoReaper)
    monkeypatch.setattr(reaper_client, "_reaper", None)
    monkeypatch.setattr(reaper_client, "_held", {})


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """A command that is run within this process may ignore Ctrl-C at its end; the next test must not."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def engine() -> FakeEngine:
    """An empty engine whose nodes form swarms, and clusters of etcd."""
    fake = FakeEngine()
    FakeSwarm(fake)
    FakeEtcd(fake)
    return fake


@pytest.fixture
def toy() -> Loaded:
    """The toy profile, as it is."""
    return load(TOY)


@pytest.fixture
def write_profile(tmp_path: Path) -> Callable[..., Path]:
    """Writes a profile's folder: profile.yaml, dedented, and further files by their path in it."""

    def write(text: str = LEAST, files: dict[str, str] | None = None) -> Path:
        folder = tmp_path / "profile"
        for path, content in {"profile.yaml": textwrap.dedent(text), **(files or {})}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content)
        return folder

    return write
