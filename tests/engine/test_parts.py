"""Parts on a real engine: compiled, out of Debian's packages, interrupted and killed."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicluster.engine import base_image
from minicluster.engine.protocol import Cancel, Engine
from minicluster.errors import ImageError, Interrupted
from minicluster.model import labels
from minicluster.model.naming import PART_CACHE
from minicluster.model.spec import PartSpec
from minicluster.parts import jobs
from minicluster.parts.provide import provide
from minicluster.profile import folders, parts
from tests.engine.conftest import Shell, eventually

NAME = "t-part"

PART = """
summary: a program of this test
license: MIT
home: https://example.org
default: 1.0.0
supported: .*
sources:
  go: {module: example.org/hello, programs: {hello: .}, links: {hi: hello}, ldflags: "-X main.version={version}"}
  debian: {packages: [jq], programs: [jq]}
versions:
  1.0.0: {sources: [go]}
  0.0.1: {sources: [debian, go]}
"""

#: It says its version, and takes the compiler some seconds: the library that it uses is big.
HELLO = """package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
)

var version string

func main() {
	fmt.Println(filepath.Base(os.Args[0]), version, http.MethodGet)
}
"""

#: Gets the part, as a process that can be killed.
GET = """
import sys
from minicluster.engine.discover import connect
from minicluster.engine.protocol import Cancel
from minicluster.parts.provide import provide
from minicluster.profile import folders, parts
from pathlib import Path
folders.bundled_directory = lambda: Path(sys.argv[1])
spec = parts.resolve({}, [sys.argv[2]], sys.argv[2], {})[sys.argv[2]]
provide(connect(), [spec], sys.argv[3], print, print, Cancel())
"""


@pytest.fixture(scope="module")
def base(engine: Engine) -> str:
    return base_image.provide(engine, lambda _line: None, lambda _text: None, Cancel())


@pytest.fixture
def hello(engine: Engine, outer: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PartSpec]:
    """A part whose version is compiled, beside the scripts that all parts use."""
    build = folders.bundled_directory() / "_parts" / "_build"
    name = f"{NAME}-{os.getpid()}"
    folder = tmp_path / "_parts" / name
    (folder / "1.0.0").mkdir(parents=True)
    (folder / "0.0.1").mkdir()
    (tmp_path / "_parts" / "_build").symlink_to(build)
    (folder / "part.yaml").write_text(PART)
    (folder / "main.go").write_text(HELLO + f"// {os.urandom(8).hex()}\n")  # never in the compiler's cache
    for version in ("1.0.0", "0.0.1"):
        (folder / version / "go.mod").write_text("module example.org/hello\n\ngo 1.24\n")
    monkeypatch.setattr(folders, "bundled_directory", lambda: tmp_path)
    parts.load.cache_clear()
    yield spec_of(name)
    parts.load.cache_clear()
    for ref in outer.docker("images", f"minicluster/part-{name}", "--format", "{{.Repository}}:{{.Tag}}").out.split():
        outer.docker("rmi", ref)
    assert not containers(outer, name)


def spec_of(name: str, version: str = "", source: str = "") -> PartSpec:
    return parts.resolve({name: (version, source)}, [name], name, {})[name]


def containers(outer: Shell, name: str) -> list[str]:
    return outer.docker("ps", "-a", "--filter", f"name={name}", "--format", "{{.Names}}").out.split()


def running(outer: Shell, name: str) -> list[str]:
    return outer.docker("ps", "--filter", f"name={name}", "--format", "{{.Names}}").out.split()


def get(engine: Engine, spec: PartSpec, base: str, cancel: Cancel | None = None) -> list[str]:
    said: list[str] = []
    provide(engine, [spec], base, said.append, said.append, cancel or Cancel())
    return said


def content(outer: Shell, ref: str) -> dict[str, tarfile.TarInfo]:
    """The files of a part's image."""
    holder = f"{NAME}-holder-{os.getpid()}"
    outer.docker("create", "--name", holder, ref, "/x")
    try:
        out = subprocess.run(
            ["docker", "export", holder], env=os.environ | outer.env, capture_output=True, check=True
        ).stdout
    finally:
        outer.docker("rm", holder)
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        return {entry.name: entry for entry in tar}


@pytest.mark.long
def test_a_compiled_program_runs(
    engine: Engine, outer: Shell, base: str, hello: PartSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOPRIVATE", "secret.example.org")  # reaches the compiler, and no image
    said = get(engine, hello, base)
    assert any("package 1 of" in line for line in said)
    for name in ("hello", "hi"):
        argv = ("run", "--rm", "--name", f"{NAME}-run", hello.ref, f"/usr/local/bin/{name}")
        assert outer.docker(*argv).out.split() == [name, "1.0.0", "GET"]
    for argv in (("history", "--no-trunc", hello.ref), ("inspect", hello.ref)):
        assert "secret.example.org" not in outer.docker(*argv).out
    assert set(content(outer, hello.ref)) >= {"usr/local/bin/hello", "usr/local/bin/hi"}
    assert not any(name.startswith(("build", "part", "cache")) for name in content(outer, hello.ref))


def test_programs_of_debian_come_with_their_libraries(engine: Engine, outer: Shell, base: str, hello: PartSpec) -> None:
    wrong = spec_of(hello.name, "0.0.1", "debian")
    with pytest.raises(ImageError) as refused:
        get(engine, wrong, base)
    assert "debian: Debian has jq 1." in refused.value.why
    version = refused.value.why.partition("jq ")[2].partition("-")[0]
    description = folders.bundled_directory() / "_parts" / hello.name / "part.yaml"
    description.write_text(description.read_text().replace("0.0.1", version))
    parts.load.cache_clear()
    right = spec_of(hello.name, version, "debian")
    get(engine, right, base)
    names = set(content(outer, right.ref))
    assert "usr/bin/jq" in names
    assert any("libjq.so" in name for name in names)
    assert not any("libc.so" in name for name in names)  # the base has it


def test_interrupting_a_compilation_leaves_nothing(engine: Engine, outer: Shell, base: str, hello: PartSpec) -> None:
    cancel = Cancel()

    def interrupt() -> None:
        eventually(lambda: containers(outer, hello.name), what="it is being compiled")
        cancel.set()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(Interrupted):
        get(engine, hello, base, cancel)
    thread.join()
    assert not containers(outer, hello.name)
    assert not engine.has_image(hello.ref)


@pytest.mark.long
def test_a_full_disk_ends_a_compilation_and_leaves_nothing(
    engine: Engine, outer: Shell, base: str, hello: PartSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = f"{NAME}-cache-{os.getpid()}"
    options = ("--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=8m")
    outer.docker("volume", "create", "--label", f"{labels.BUILD}=part/cache", *options, small)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(jobs, "PART_CACHE", small)
            with pytest.raises(ImageError, match="cannot be built: the disk is full") as refused:
                get(engine, hello, base)
        assert "no space left on device" in refused.value.why
        assert "minicluster image remove --cache" in refused.value.fix
        assert not containers(outer, hello.name)
        assert not engine.has_image(hello.ref)
    finally:
        outer.docker("volume", "rm", small)
    get(engine, hello, base)  # with the usual cache
    assert engine.has_image(hello.ref)


@pytest.mark.long
def test_a_killed_compilation_ends_by_itself_and_the_next_one_succeeds(
    engine: Engine, outer: Shell, base: str, hello: PartSpec
) -> None:
    root = str(folders.bundled_directory())
    argv = [sys.executable, "-c", GET, root, hello.name, base]
    process = subprocess.Popen(argv, env=os.environ | outer.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    eventually(lambda: running(outer, hello.name), what="it is being compiled")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not engine.has_image(hello.ref)
    eventually(lambda: not containers(outer, hello.name), within=300, what="the container ends by itself")
    assert not engine.has_image(hello.ref)
    assert engine.volume_size(PART_CACHE)
    get(engine, hello, base)
    assert engine.has_image(hello.ref)
