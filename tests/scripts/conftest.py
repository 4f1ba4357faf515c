"""What tests of the profiles' scripts share: a folder laid out as a node, in which they run."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import pytest

PROFILES = Path(__file__).parents[2] / "profiles"
DATA = Path(__file__).parent / "data"

#: Where scripts find their files. In tests the same folders are below the node's.
_FOLDERS = ("/usr/local/lib/", "/run/", "/etc/", "/var/lib/", "/consul/")


class Node:
    """A folder laid out as a node. Scripts of a profile run in it, with its own programs first on their path."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "usr/local/bin"
        self.lib = root / "usr/local/lib/minicluster"
        for folder in (self.bin, self.lib, root / "run"):
            folder.mkdir(parents=True)
        for file in (PROFILES / "_lib").glob("*.*"):
            self._install(file, self.lib / file.name)

    def install(self, profile: str, *names: str) -> None:
        """Scripts of a profile, with every folder that they name moved below this node's."""
        for name in names:
            (source,) = (PROFILES / profile / "files").glob(f"*/{name}")
            self._install(source, self.bin / name)

    def _install(self, source: Path, target: Path) -> None:
        text = source.read_text()
        for folder in _FOLDERS:
            text = text.replace(folder, f"{self.root}{folder}")
        self.program(target.name, text, target.parent)

    def program(self, name: str, text: str, folder: Path | None = None) -> None:
        """A program of the node's own."""
        path = (folder or self.bin) / name
        path.write_text(text)
        path.chmod(0o755)

    def write(self, path: str, text: str) -> None:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        return {"PATH": f"{self.bin}:{os.environ['PATH']}", **env}

    def run(self, *argv: str, timeout: float = 30, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            argv, env=self.environment(env), capture_output=True, text=True, timeout=timeout, check=False
        )

    def start(self, *argv: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            argv, env=self.environment(env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )


@pytest.fixture
def node(tmp_path: Path) -> Node:
    if sys.platform != "linux" or not shutil.which("flock"):
        pytest.skip("the scripts run on Linux alone")
    return Node(tmp_path / "node")


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], ModuleType]:
    """Imports a Python program of a profile."""

    def load(profile: str, name: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(PROFILES / "_lib"))
        folder = PROFILES / profile if profile.startswith("_") else PROFILES / profile / "files"
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        before = set(sys.modules)
        found = [folder / name, *folder.glob(f"*/{name}"), *folder.parent.glob(f"image/*/{name}")]
        path = next(path for path in found if path.exists())
        loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), str(path))
        spec = importlib.util.spec_from_loader(loader.name, loader)
        assert spec
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
        for own in (
            "program",
            "http_api",
            "consul_api",
            "zookeeper_api",
            "kube_api",
            "kube_watch",
        ):  # another test may have another path
            if own not in before:
                sys.modules.pop(own, None)
        return module

    return load
