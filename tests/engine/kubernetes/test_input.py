"""Input of the Kubernetes profile: the tarball of a release becomes a cluster; input that it cannot use is refused with
one sentence, and nothing is left behind."""

from __future__ import annotations

import hashlib
import io
import ipaddress
import re
import shutil
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from minicluster.engine.protocol import Engine
from tests.engine.conftest import Result, Shell, remains
from tests.engine.kubernetes.kubelife import Kube, pod

NAME = "t-kube-input"
SERVERS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
PROGRAMS = (*SERVERS, "kubectl")
#: The version in programs built here, and the one in the programs of the tarballs for clusters.
BUILT, RELEASE = "v1.20.2", "v1.20.9"

needs_kubectl = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl (Debian: kubernetes-client) is missing")


def server_tarball(path: Path, content: bytes, programs: tuple[str, ...] = PROGRAMS) -> Path:
    """A server tarball whose programs are all the same file."""
    return packed(path, dict.fromkeys(programs, content))


def packed(path: Path, programs: Mapping[str, bytes]) -> Path:
    """A server tarball with the layout of a release."""
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for program, content in programs.items():
            entry = tarfile.TarInfo(f"kubernetes/server/bin/{program}")
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return path


def refused(outer: Shell, code: int, *settings: str) -> Result:
    """An ``up`` that fails with this code and a short message, and leaves nothing behind."""
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
def test_an_invalid_version_is_refused(outer: Shell, version: str) -> None:
    answer = refused(outer, 2, f"version={version}")
    assert "version must be a release from v1.20.0 to v1.35.x" in answer.err


def test_a_missing_tarball_is_refused(outer: Shell, tmp_path: Path) -> None:
    answer = refused(outer, 2, f"tarball={tmp_path}/none.tar.gz")
    assert f"no such file: {tmp_path}/none.tar.gz" in answer.err


def test_a_file_that_is_no_tarball_is_refused(outer: Shell, tmp_path: Path) -> None:
    (tmp_path / "words.tar.gz").write_text("This is no tarball.\n")
    answer = refused(outer, 1, f"tarball={tmp_path}/words.tar.gz")
    assert "the given tarball cannot be unpacked: tar: This does not look like a tar archive" in answer.err
    # The memory that the nodes need was printed first: one kv and one master.
    assert re.search(r"^memory: \S+ [GM]iB of \S+ GiB free, 580 MiB needed$", answer.err, re.M), answer.err


def test_a_tarball_of_other_programs_is_refused(outer: Shell, tmp_path: Path) -> None:
    given = server_tarball(tmp_path / "client.tar.gz", b"x", ("kubectl",))
    answer = refused(outer, 1, f"tarball={given}")
    assert "the given tarball lacks kube-apiserver" in answer.err
    assert "is it a server tarball?" in answer.err


def test_a_tarball_for_another_architecture_is_refused(outer: Shell, tmp_path: Path) -> None:
    given = server_tarball(tmp_path / "other.tar.gz", b"\x7fELF" + bytes(60))
    answer = refused(outer, 1, f"tarball={given}")
    assert "the given tarball is for another architecture" in answer.err


def test_a_tarball_of_another_version_is_refused(outer: Shell, tmp_path: Path) -> None:
    """Its programs are /bin/echo, which runs on this machine and prints its arguments."""
    given = server_tarball(tmp_path / "echo.tar.gz", Path("/bin/echo").read_bytes())
    answer = refused(outer, 1, "version=v1.31.97", f"tarball={given}")
    assert "the given tarball holds kube-apiserver" in answer.err
    assert "not v1.31.97" in answer.err


@pytest.fixture
def releases(engine: Engine, outer: Shell, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the URL at which a build on the engine finds its files."""
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


def test_an_unknown_release_is_refused(outer: Shell, releases: tuple[Path, str]) -> None:
    answer = refused(outer, 1, "version=v1.31.99", f"download={releases[1]}")
    assert "there is no release v1.31.99 for linux/" in answer.err
    assert f"HTTP 404 for {releases[1]}/v1.31.99/kubernetes-server-linux-" in answer.err


def test_a_download_with_a_wrong_checksum_is_refused(
    outer: Shell, architecture: str, releases: tuple[Path, str]
) -> None:
    folder, url = releases
    tarball = folder / "v1.31.98" / f"kubernetes-server-linux-{architecture}.tar.gz"
    tarball.parent.mkdir()
    server_tarball(tarball, b"x")
    wrong = hashlib.sha512(b"something else").hexdigest()
    tarball.with_name(f"{tarball.name}.sha512").write_text(wrong)
    answer = refused(outer, 1, "version=v1.31.98", f"download={url}")
    found = hashlib.sha512(tarball.read_bytes()).hexdigest()[:16]
    assert f"does not match its .sha512: {found}" in answer.err
    assert wrong[:16] in answer.err


def test_a_download_server_that_does_not_answer(outer: Shell, releases: tuple[Path, str]) -> None:
    closed = f"{releases[1].rpartition(':')[0]}:9"
    answer = refused(outer, 1, "version=v1.31.99", f"download={closed}")
    assert f"cannot fetch {closed}/v1.31.99/" in answer.err


@pytest.fixture(scope="module")
def architecture(outer: Shell) -> str:
    return outer.docker("version", "--format", "{{.Server.Arch}}").out.strip()


@pytest.fixture(scope="module")
def tarball(outer: Shell, architecture: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A release's server tarball: programs built here, with the version RELEASE in them."""
    folder = tmp_path_factory.mktemp("release")
    image = outer.minicluster("image", "build", "kubernetes", "node", timeout=900).out.split()[-1]
    holder = f"{NAME}-programs"
    programs = {}
    try:
        outer.docker("create", "--name", holder, image, "true")
        for file, names in {"kubeall": SERVERS, "kubectl": ("kubectl",)}.items():
            outer.docker("cp", f"{holder}:/usr/local/bin/{file}", str(folder / file))
            content = (folder / file).read_bytes()
            (folder / file).unlink()
            assert BUILT.encode() in content
            programs |= dict.fromkeys(names, content.replace(BUILT.encode(), RELEASE.encode()))
    finally:
        outer.docker("rm", "-fv", holder, ok=False)
    yield packed(folder / f"kubernetes-server-linux-{architecture}.tar.gz", programs)
    shutil.rmtree(folder)  # pytest would keep it


@contextmanager
def released(outer: Shell, *settings: str) -> Iterator[Kube]:
    """A cluster of RELEASE; it and its image are removed afterwards."""
    given = [word for setting in (f"version={RELEASE}", *settings) for word in ("--set", setting)]
    before = images(outer)
    try:
        outer.minicluster("up", "kubernetes", "--name", NAME, "--size", "agent=1", *given, timeout=900)
        yield Kube(outer, NAME)
    finally:
        outer.minicluster("down", NAME, ok=False)
        forget(outer, images(outer) - before)
    assert remains(outer, NAME) == {}


def images(outer: Shell) -> set[str]:
    """The node images of Kubernetes."""
    listed = outer.minicluster("image", "list", "-o", "json").json
    return {image["ref"] for image in listed if "kubernetes-node:" in image["ref"]}


def forget(outer: Shell, made: set[str]) -> None:
    """Removes images of RELEASE, and the build stage with the tarball that the engine keeps."""
    for image in made:
        outer.minicluster("image", "remove", image)
    for stage in outer.docker("images", "-q", "--filter", "dangling=true").out.split():
        commands = outer.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", stage, ok=False).out
        if f"VERSION={RELEASE}" in commands:
            outer.docker("rmi", stage, ok=False)


def works(kube: Kube) -> None:
    """Every program has version RELEASE, and a pod runs."""
    assert kube.kubectl("version", "-o", "json").json["serverVersion"]["gitVersion"] == RELEASE
    (agent,) = kube.get("nodes")
    info = agent["status"]["nodeInfo"]
    assert (info["kubeletVersion"], info["kubeProxyVersion"]) == (RELEASE, RELEASE)
    assert kube.nodes() == {"agent-1": True}
    for program in PROGRAMS:
        asked = ("version", "--client", "--short") if program == "kubectl" else ("--version",)
        assert kube.outer.docker("exec", f"{NAME}-master-1", program, *asked).out.split()[-1] == RELEASE
    kube.apply(pod("first", "agent-1"))
    kube.kubectl("wait", "--for=condition=Ready", "pod/first", "--timeout=30s", timeout=40)


@needs_kubectl
@pytest.mark.long
def test_a_tarball_of_a_release_becomes_a_cluster(outer: Shell, tarball: Path) -> None:
    with released(outer, f"tarball={tarball}") as kube:
        works(kube)


@pytest.mark.long
@needs_kubectl
def test_a_release_that_is_downloaded_becomes_a_cluster(
    outer: Shell, tarball: Path, releases: tuple[Path, str]
) -> None:
    folder, url = releases
    (folder / RELEASE).symlink_to(tarball.parent)
    sum = hashlib.sha512(tarball.read_bytes()).hexdigest()
    (tarball.parent / f"{tarball.name}.sha512").write_text(sum)  # without a newline, like upstream's
    with released(outer, f"download={url}") as kube:
        works(kube)


def test_a_cluster_that_does_not_fit_into_memory_is_refused(outer: Shell) -> None:
    sizes = ("--size", "agent=1", "--set", "roles.agent.footprint=100TiB")
    answer = outer.minicluster("up", "kubernetes", "--name", NAME, *sizes, ok=False)
    assert answer.code == 1
    assert f"Error: cluster {NAME} does not fit into memory: " in answer.err
    assert re.search(r" free, 102400\.\d GiB needed\n", answer.err)
    assert "`--force` starts them anyway." in answer.err
    assert remains(outer, NAME) == {}
