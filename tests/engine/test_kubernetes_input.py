"""What a Kubernetes profile is given and cannot use: told in one sentence, and nothing is left."""

from __future__ import annotations

import hashlib
import io
import ipaddress
import re
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from minicluster.engine.protocol import Engine
from tests.engine.conftest import Answer, Shell, remains

NAME = "t-kube-input"
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")


def server_tarball(path: Path, content: bytes, programs: tuple[str, ...] = PROGRAMS) -> Path:
    """A server tarball whose programs are all the same file."""
    with tarfile.open(path, "w:gz") as tar:
        for program in programs:
            entry = tarfile.TarInfo(f"kubernetes/server/bin/{program}")
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return path


def refused(outer: Shell, code: int, *settings: str) -> Answer:
    """An ``up`` that fails so, shortly said, and leaves nothing."""
    given = [word for setting in settings for word in ("--set", setting)]
    answer = outer.minicluster("up", "kubernetes", "--name", NAME, "--size", "agent=0", *given, ok=False, timeout=300)
    assert answer.code == code, answer.err
    error = answer.err[answer.err.index("Error: ") :]
    assert len(error.splitlines()) <= 4, error
    assert "Step " not in answer.err
    assert remains(outer, NAME) == {}
    assert NAME not in outer.minicluster("ls").out
    return answer


@pytest.mark.parametrize("version", ["v1.31", "1.31.0", "v1.99.1", "latest", "v1.19.0"])
def test_a_version_that_cannot_be(outer: Shell, version: str) -> None:
    answer = refused(outer, 2, f"version={version}")
    assert f"version cannot be '{version}'" in answer.err


def test_a_tarball_that_is_missing(outer: Shell, tmp_path: Path) -> None:
    answer = refused(outer, 2, f"tarball={tmp_path}/none.tar.gz")
    assert f"there is no file {tmp_path}/none.tar.gz" in answer.err


def test_a_tarball_that_is_none(outer: Shell, tmp_path: Path) -> None:
    (tmp_path / "words.tar.gz").write_text("This is no tarball.\n")
    answer = refused(outer, 1, f"tarball={tmp_path}/words.tar.gz")
    assert "the given tarball cannot be unpacked: tar: This does not look like a tar archive" in answer.err


def test_a_tarball_of_something_else(outer: Shell, tmp_path: Path) -> None:
    given = server_tarball(tmp_path / "client.tar.gz", b"x", ("kubectl",))
    answer = refused(outer, 1, f"tarball={given}")
    assert "the given tarball lacks kube-apiserver" in answer.err
    assert "is it a server tarball?" in answer.err


def test_a_tarball_of_another_architecture(outer: Shell, tmp_path: Path) -> None:
    given = server_tarball(tmp_path / "other.tar.gz", b"\x7fELF" + bytes(60))
    answer = refused(outer, 1, f"tarball={given}")
    assert "the given tarball is for another architecture" in answer.err


def test_a_tarball_of_another_version(outer: Shell, tmp_path: Path) -> None:
    """Its programs run on this machine, and say so: /bin/echo prints what it is asked."""
    given = server_tarball(tmp_path / "echo.tar.gz", Path("/bin/echo").read_bytes())
    answer = refused(outer, 1, "version=v1.31.97", f"tarball={given}")
    assert "the given tarball holds kube-apiserver" in answer.err
    assert "not v1.31.97" in answer.err


@pytest.fixture
def releases(engine: Engine, outer: Shell, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which a build on the engine finds its files."""
    if not engine.info.local:
        pytest.skip("a build on another machine does not reach this one")
    template = "{{(index .IPAM.Config 0).Subnet}}"
    subnet = outer.docker("network", "inspect", "bridge", "--format", template).out.strip()
    address = str(next(ipaddress.IPv4Network(subnet).hosts()))
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer((address, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield tmp_path, f"http://{address}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(10)


def test_a_release_that_there_is_not(outer: Shell, releases: tuple[Path, str]) -> None:
    answer = refused(outer, 1, "version=v1.31.99", f"download={releases[1]}")
    assert "there is no release v1.31.99 for linux/" in answer.err
    assert f"HTTP 404 for {releases[1]}/v1.31.99/kubernetes-server-linux-" in answer.err


def test_a_download_that_differs_from_its_checksum(outer: Shell, releases: tuple[Path, str]) -> None:
    folder, url = releases
    architecture = outer.docker("version", "--format", "{{.Server.Arch}}").out.strip()
    tarball = folder / "v1.31.98" / f"kubernetes-server-linux-{architecture}.tar.gz"
    tarball.parent.mkdir()
    server_tarball(tarball, b"x")
    wrong = hashlib.sha512(b"something else").hexdigest()
    tarball.with_name(f"{tarball.name}.sha512").write_text(wrong)
    answer = refused(outer, 1, "version=v1.31.98", f"download={url}")
    assert (
        f"another checksum than its .sha512 says: {hashlib.sha512(tarball.read_bytes()).hexdigest()[:16]}" in answer.err
    )
    assert wrong[:16] in answer.err


def test_nobody_serves_releases(outer: Shell, releases: tuple[Path, str]) -> None:
    closed = f"{releases[1].rpartition(':')[0]}:9"
    answer = refused(outer, 1, "version=v1.31.99", f"download={closed}")
    assert f"cannot fetch {closed}/v1.31.99/" in answer.err


def test_more_memory_than_there_is(outer: Shell) -> None:
    sizes = ("--size", "agent=1", "--set", "roles.agent.footprint=100TiB")
    answer = outer.minicluster("up", "kubernetes", "--name", NAME, *sizes, ok=False)
    assert answer.code == 1
    assert f"Error: cluster {NAME} does not fit into memory: " in answer.err
    assert re.search(r" free, 102400\.\d GiB needed\n", answer.err)
    assert "`--force` starts them all the same." in answer.err
    assert remains(outer, NAME) == {}
