"""scripts/update-parts against a server that answers as registries, projects and Debian do."""

from __future__ import annotations

import importlib.util
import lzma
import shutil
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

from minicluster.parts import download
from minicluster.profile import folders, parts
from minicluster.profile.part_schema import Part
from minicluster.profile.yamldoc import parse
from tests.https_server import serving

ROOT = Path(__file__).parents[2]
AMD64, ARM64 = "a" * 64, "b" * 64

PART = """\
summary: a store
license: MIT
home: https://example.org
default: v2.1.0
supported: v?[12]\\.\\d+\\.\\d+
sources:
  release:
    url: "https://store.example/{version}/store-{arch}.tar.gz"
    checksum: "https://store.example/{version}/SUMS"
    files: {store: usr/local/bin/store}
  go: {module: example.org/Store, programs: {store: .}}
  debian: {packages: [store], programs: [store]}
versions:   # newest first
  v2.2.0:   # not pinned, either
    sources: [release]
    license: MPL-2.0
  v2.1.0: {sources: [release, go], with: {other: v1.0.0}}   # a comment
  1.0.0: {sources: [debian]}
"""
OTHER = """\
summary: another program
license: MIT
home: https://example.org
default: 1.2.0
supported: .*
index: {url: "https://other.example/downloads/", pattern: 'other-{number}\\.tgz'}
sources:
  release: {url: "https://other.example/downloads/other-{version}.tgz", files: {other: usr/bin/other}}
versions:
  1.2.0: {sources: [release], sha256: {amd64: SUM}}
""".replace("SUM", "c" * 64)
PACKAGES = """\
Package: another
Version: 9.9.9-1

Package: store
Architecture: amd64
Version: 1:1.0.1+dfsg1-2+b3
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, on descriptions of its own."""
    for name, text in (("store", PART), ("other", OTHER)):
        (tmp_path / "_parts" / name).mkdir(parents=True)
        (tmp_path / "_parts" / name / "part.yaml").write_text(text)
    monkeypatch.setattr(folders, "bundled_directory", lambda: tmp_path)
    parts.load.cache_clear()
    monkeypatch.setattr(download, "CONNECT_PATIENCE", 5.0)
    loader = SourceFileLoader("update_parts", str(ROOT / "scripts" / "update-parts"))
    spec = importlib.util.spec_from_loader("update_parts", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    monkeypatch.setattr(module, "TRIED", tmp_path / "tried.json")
    return module


@pytest.fixture(autouse=True)
def _clear() -> object:
    yield
    parts.load.cache_clear()


def test_newer_versions_of_registries_projects_and_debian(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(tmp_path) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        monkeypatch.setenv(download.MIRROR, server.url)
        server.answers |= {
            "/proxy.golang.org/example.org/!store/@v/list": b"v2.0.9\nv2.1.0\nv2.1.10\nv2.1.9\n"
            b"v2.3.0-rc.1\nv2.2.0\nv3.0.1\n",
            "/other.example/downloads/": b'<a href="other-1.2.0.tgz">other-1.2.0.tgz</a>  2026\n'
            b'<a href="other-1.2.1.tgz"></a><a href="other-rootless-9.0.0.tgz">\n',
            "/deb.debian.org/debian/dists/trixie/main/binary-amd64/Packages.xz": lzma.compress(PACKAGES.encode()),
        }
        script.newer()
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "other: listed 1.2.0",
        "other: 1.2.1 is there",
        "store: listed v2.2.0, v2.1.0, 1.0.0",
        "store: v2.1.10 is there",
        "store: v3.0.1 is there; `supported` is v?[12]\\.\\d+\\.\\d+",
        "store: 1.0.1 is what Debian has",
    ]
    assert "trixie-security/main/binary-amd64/Packages.xz answered 404" in told.err


def test_pins_are_written_and_everything_else_stays(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "_parts" / "store" / "part.yaml"
    with serving(tmp_path) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        monkeypatch.setenv(download.MIRROR, server.url)
        sums = f"{AMD64}  store-amd64.tar.gz\n{ARM64} *store-arm64.tar.gz\n"
        server.answers["/store.example/v2.1.0/SUMS"] = sums.encode()
        server.answers["/store.example/v2.2.0/SUMS"] = sums.splitlines()[0].encode()  # none for arm64
        script.pins()
        asked = list(server.asked)
        script.pins()
        assert server.asked == asked  # what is pinned is not asked for again
    told = capsys.readouterr()
    assert told.out.splitlines() == ["store v2.2.0: pinned for amd64", "store v2.1.0: pinned for amd64, arm64"]
    assert "store v2.2.0 arm64: " in told.err
    about = parts.load("store")
    assert about.versions["v2.1.0"].sha256 == {"amd64": AMD64, "arm64": ARM64}
    assert about.versions["v2.2.0"].sha256 == {"amd64": AMD64}
    assert about.versions["v2.2.0"].license == "MPL-2.0"
    assert about.versions["v2.1.0"].along == {"other": "v1.0.0"}
    assert (
        path.read_text()
        .replace(
            f"  v2.1.0:   # a comment\n    sources: [release, go]\n    with: {{other: v1.0.0}}\n    sha256:\n"
            f"      amd64: {AMD64}\n      arm64: {ARM64}\n",
            "  v2.1.0: {sources: [release, go], with: {other: v1.0.0}}   # a comment\n",
        )
        .replace(f"    sha256:\n      amd64: {AMD64}\n", "")
        == PART
    )


def test_a_try_for_another_architecture_is_a_line_of_its_own(script: ModuleType) -> None:
    script.TRIED.write_text('{"store": {"v2.1.0": {"go, arm64": {"date": "2026-01-02", "result": "ok"}}}}')
    rows = [line for line in script.table().splitlines() if "| v2.1.0 " in line]
    assert rows == [
        "| store | MIT | v2.1.0 (default) | release |  | not tried |",
        "| store | MIT | v2.1.0 (default) | go |  | not tried |",
        "| store | MIT | v2.1.0 (default) | go, arm64 | 2026-01-02 | ok |",
    ]


@pytest.mark.parametrize("name", parts.names())
def test_each_version_of_the_real_descriptions_can_be_pinned(script: ModuleType, name: str, tmp_path: Path) -> None:
    real = ROOT / "profiles" / "_parts" / name / "part.yaml"
    for version, about in Part.model_validate(parse(real).data).versions.items():
        if "release" in about.sources and not about.sha256:
            text = script.pinned(real.read_text(), version, {"amd64": AMD64})
            shutil.rmtree(tmp_path / "_parts" / name, ignore_errors=True)
            (tmp_path / "_parts" / name).mkdir()
            (tmp_path / "_parts" / name / "part.yaml").write_text(text)
            parts.load.cache_clear()
            changed = parts.load(name).versions[version]
            assert changed == about.model_copy(update={"sha256": {"amd64": AMD64}})
