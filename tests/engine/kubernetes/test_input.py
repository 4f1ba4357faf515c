"""Input of the Kubernetes profile: a release becomes a cluster, from a file or by a download; input that it cannot use
is refused with one sentence, and nothing is left behind."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import socket
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from minicluster.model.spec import LOCALHOST
from minicluster.profile import parts
from tests.engine.conftest import Result, Shell, remains
from tests.engine.kubernetes.kubelife import Kube, pod
from tests.https_server import Handler, Server, serving

pytestmark = pytest.mark.usefixtures("built")

NAME = "t-kube-input"
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
#: The version in programs built here, and the one in the programs of the releases for clusters, which is not listed.
BUILT, RELEASE = "v1.37.2", "v1.37.9"
UNKNOWN = "v1.37.99"
#: What belongs to BUILT and is there already: nothing but Kubernetes is fetched.
ALONG = tuple(f"{name}.version={version}" for name, version in parts.load("kubernetes").versions[BUILT].along.items())


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


@pytest.fixture(scope="module")
def built(outer: Shell) -> str:
    """The node image of BUILT; its parts are there, so that only what a test asks for is fetched."""
    return outer.minicluster("image", "build", "kubernetes", timeout=3000).out.split()[-1]


@pytest.fixture(scope="module")
def architecture(outer: Shell) -> str:
    return outer.docker("version", "--format", "{{.Server.Arch}}").out.strip()


def options(*settings: str) -> list[str]:
    return [word for setting in (*ALONG, *settings) for word in ("--set", setting)]


def refused(outer: Shell, code: int, *settings: str) -> Result:
    """An ``up`` that fails with this code and a short message, and leaves nothing behind."""
    given = options(*settings)
    before = made_of(outer, "part-kubernetes")
    answer = outer.minicluster("up", "kubernetes", "--name", NAME, "--size", "agent=0", *given, ok=False, timeout=300)
    assert answer.code == code, answer.err
    error = answer.err[answer.err.index("Error: ") :]
    assert len(error.splitlines()) <= 4, error
    assert "Step " not in answer.err
    assert remains(outer, NAME) == {}
    assert NAME not in outer.minicluster("ls").out
    assert made_of(outer, "part-kubernetes") == before
    return answer


def made_of(outer: Shell, *names: str) -> set[str]:
    """Images of minicluster's with these names."""
    listed = outer.docker("images", "--format", "{{.Repository}}:{{.Tag}}").out.split()
    return {ref for ref in listed if ref.startswith(tuple(f"minicluster/{name}:" for name in names))}


# Versions and files


@pytest.mark.parametrize("version", ["v1.34", "1.38.0", "v1.99.1", "latest", "v1.20.2"])
def test_an_invalid_version_is_refused(outer: Shell, version: str) -> None:
    answer = refused(outer, 2, f"version={version}")
    assert f"--set version={version}: kubernetes {version} is not supported" in answer.err
    assert "Known versions: v1.37.2, v1.36.3, v1.35.4." in answer.err


def test_a_missing_file_is_refused(outer: Shell, tmp_path: Path) -> None:
    answer = refused(outer, 2, f"kubernetes.source={tmp_path}/none.tar.gz")
    assert f"cannot read {tmp_path}/none.tar.gz" in answer.err
    assert "No such file." in answer.err


def test_a_file_that_is_no_archive_is_refused(outer: Shell, tmp_path: Path) -> None:
    (tmp_path / "words.tar.gz").write_text("This is no tarball.\n")
    answer = refused(outer, 1, f"kubernetes.source={tmp_path}/words.tar.gz")
    assert f"{tmp_path}/words.tar.gz cannot be unpacked" in answer.err
    # The memory that the nodes need was printed first: one kv and one master.
    assert re.search(r"^memory: \S+ [GM]iB of \S+ GiB free, 600 MiB needed$", answer.err, re.M), answer.err


def test_an_archive_that_is_cut_off_is_refused(outer: Shell, tmp_path: Path) -> None:
    given = server_tarball(tmp_path / "cut.tar.gz", b"x" * 100_000)
    given.write_bytes(given.read_bytes()[:-20])
    answer = refused(outer, 1, f"kubernetes.source={given}")
    assert f"{given} cannot be unpacked" in answer.err


def test_an_archive_of_other_programs_is_refused(outer: Shell, tmp_path: Path) -> None:
    given = server_tarball(tmp_path / "client.tar.gz", b"x", ("kubectl",))
    answer = refused(outer, 1, f"kubernetes.source={given}")
    assert f"{given} is not a release of kubernetes {BUILT}" in answer.err
    assert "It has no file kubernetes/server/bin/kube-apiserver." in answer.err


def test_an_archive_for_another_architecture_is_refused(outer: Shell, architecture: str, tmp_path: Path) -> None:
    given = server_tarball(tmp_path / "other.tar.gz", another())
    answer = refused(outer, 1, f"kubernetes.source={given}")
    assert "kube-apiserver is a program for riscv64" in answer.err
    assert f"the engine's machine is {architecture}" in answer.err


def another() -> bytes:
    """The beginning of a program for an architecture that no engine has here: riscv64."""
    return b"\x7fELF" + bytes(14) + (0xF3).to_bytes(2, "little") + bytes(60)


def test_one_program_is_refused(outer: Shell, tmp_path: Path) -> None:
    (tmp_path / "kubelet").write_bytes(another())
    answer = refused(outer, 1, f"kubernetes.source={tmp_path}/kubelet")
    assert f"{tmp_path}/kubelet is one program, which kubernetes is not" in answer.err


# Downloads, which minicluster makes on this machine


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as found:
        yield found


@pytest.fixture
def trusting(outer: Shell, server: Server, tmp_path: Path, built: str) -> Shell:
    """minicluster with the server's authority as the only one, and without a mirror."""
    return Shell(outer.env | {"SSL_CERT_FILE": str(tmp_path / "ca.pem"), "MINICLUSTER_MIRROR": ""})


@pytest.fixture
def mirrored(trusting: Shell, server: Server) -> Shell:
    """The same with the server as the mirror of all downloads."""
    return Shell(trusting.env | {"MINICLUSTER_MIRROR": server.url})


def address(version: str, architecture: str) -> str:
    """A release's path on a mirror."""
    return f"/dl.k8s.io/release/{version}/kubernetes-server-linux-{architecture}.tar.gz"


def offer(server: Server, path: str, content: bytes) -> bytes:
    """Serves a file and its checksum; upstream's checksums have no newline."""
    server.answers[path] = content
    server.answers[f"{path}.sha256"] = hashlib.sha256(content).hexdigest().encode()
    return content


def unavailable(shell: Shell, reason: str) -> None:
    answer = refused(shell, 1, f"version={UNKNOWN}")
    assert f"kubernetes {UNKNOWN} is not available from any source" in answer.err
    assert reason in answer.err


def test_an_unknown_release_is_refused(mirrored: Shell, server: Server, architecture: str) -> None:
    path = address(UNKNOWN, architecture)
    unavailable(mirrored, f"release: {server.url}{path}.sha256 answered 404")


def test_a_release_without_a_checksum_is_refused(mirrored: Shell, server: Server, architecture: str) -> None:
    server.answers[address(UNKNOWN, architecture)] = b"x"
    unavailable(mirrored, ".sha256 answered 404")
    assert address(UNKNOWN, architecture) not in server.asked


def test_a_changed_download_is_refused(mirrored: Shell, server: Server, architecture: str, tmp_path: Path) -> None:
    path = address(UNKNOWN, architecture)
    right = offer(server, path, server_tarball(tmp_path / "k.tar.gz", b"x").read_bytes())
    server.answers[path] = changed = right + b"more"
    answer = refused(mirrored, 1, f"version={UNKNOWN}")
    assert f"{server.url}{path} is not the file that it should be" in answer.err
    for content in (right, changed):
        assert hashlib.sha256(content).hexdigest() in answer.err


def cut_short(content: bytes, handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 2])


def silent(_content: bytes, _handler: Handler) -> None:
    time.sleep(8)


def to(url: str, handler: Handler) -> None:
    handler.send_response(302)
    handler.send_header("Location", url)
    handler.end_headers()


def insecure(_content: bytes, handler: Handler) -> None:
    to("http://127.0.0.1:1/k.tar.gz", handler)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (cut_short, "ended after "),
        (silent, "no answer within 5 s"),
        (insecure, "only https is accepted"),
    ],
)
def test_a_download_that_does_not_arrive_is_refused(
    mirrored: Shell, server: Server, architecture: str, answers: Callable[[bytes, Handler], None], reason: str
) -> None:
    path = address(UNKNOWN, architecture)
    content = offer(server, path, b"x" * 100_000)
    server.answers[path] = partial(answers, content)
    unavailable(mirrored, reason)


def test_a_download_server_that_does_not_answer(trusting: Shell) -> None:
    with socket.socket() as free:
        free.bind((LOCALHOST, 0))
        closed = f"https://{LOCALHOST}:{free.getsockname()[1]}"
    unavailable(Shell(trusting.env | {"MINICLUSTER_MIRROR": closed}), "Connection refused")


def test_a_download_for_another_architecture_is_refused(
    mirrored: Shell, server: Server, architecture: str, tmp_path: Path
) -> None:
    content = server_tarball(tmp_path / "k.tar.gz", another()).read_bytes()
    offer(server, address(UNKNOWN, architecture), content)
    answer = refused(mirrored, 1, f"version={UNKNOWN}")
    assert f"kube-apiserver is a program for riscv64, and the engine's machine is {architecture}" in answer.err


def test_an_address_needs_https_and_a_checksum(trusting: Shell, server: Server) -> None:
    server.answers["/mine.tar.gz"] = b"x"
    answer = refused(trusting, 1, f"kubernetes.source={server.url}/mine.tar.gz")
    assert f"kubernetes cannot be fetched from {server.url}/mine.tar.gz" in answer.err
    assert f"{server.url}/mine.tar.gz.sha256 answered 404" in answer.err
    answer = refused(trusting, 2, f"kubernetes.source=http://{LOCALHOST}/mine.tar.gz")
    assert "only https is accepted" in answer.err


# Clusters


@pytest.fixture(scope="module")
def tarball(outer: Shell, built: str, architecture: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A release's server tarball: programs built here, with the version RELEASE in them."""
    folder = tmp_path_factory.mktemp("release")
    holder = f"{NAME}-programs"
    programs: dict[str, bytes] = {}
    known: dict[str, bytes] = {}  # several names may be links to one program
    try:
        outer.docker("create", "--name", holder, built, "true")
        for name in PROGRAMS:
            outer.docker("cp", "-L", f"{holder}:/usr/local/bin/{name}", str(folder / name))
            content = (folder / name).read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            if digest not in known:
                assert BUILT.encode() in content
                known[digest] = content.replace(BUILT.encode(), RELEASE.encode())
            (folder / name).unlink()
            programs[name] = known[digest]
    finally:
        outer.docker("rm", "-fv", holder, ok=False)
    yield packed(folder / f"kubernetes-server-linux-{architecture}.tar.gz", programs)
    shutil.rmtree(folder)  # pytest would keep it


@contextmanager
def released(shell: Shell, *settings: str) -> Iterator[Kube]:
    """A cluster of RELEASE; it and its images are removed afterwards."""
    names = ("kubernetes-kv", "kubernetes-node", "part-kubernetes")
    before = made_of(shell, *names)
    try:
        given = options(f"version={RELEASE}", *settings)
        shell.minicluster("up", "kubernetes", "--name", NAME, "--size", "agent=1", *given, timeout=900)
        yield Kube(shell, NAME)
    finally:
        shell.minicluster("down", NAME, ok=False)
        for image in made_of(shell, *names) - before:
            shell.docker("rmi", image, ok=False)
    assert remains(shell, NAME) == {}


def works(kube: Kube) -> None:
    """Every program has version RELEASE, and a pod runs."""
    versions = kube.kubectl("version", "-o", "json").json
    assert versions["serverVersion"]["gitVersion"] == RELEASE
    own = kube.outer.minicluster("kubectl", "-c", NAME, "version", "--client", "-o", "json").json
    assert own["clientVersion"]["gitVersion"] == RELEASE
    (agent,) = kube.get("nodes")
    assert agent["status"]["nodeInfo"]["kubeletVersion"] == RELEASE
    assert kube.nodes() == {"agent-1": True}
    for program in PROGRAMS:
        asked = ("version", "--client", "-o", "json") if program == "kubectl" else ("--version",)
        assert RELEASE in kube.outer.docker("exec", f"{NAME}-master-1", program, *asked).out
    kube.apply(pod("first", "agent-1"))
    kube.kubectl("wait", "--for=condition=Ready", "pod/first", "--timeout=30s", timeout=40)


@pytest.mark.long
def test_a_file_of_a_release_becomes_a_cluster(outer: Shell, tarball: Path) -> None:
    with released(outer, f"kubernetes.source={tarball}") as kube:
        works(kube)


@pytest.mark.long
def test_a_release_that_is_downloaded_becomes_a_cluster(
    mirrored: Shell, server: Server, architecture: str, tarball: Path
) -> None:
    path = address(RELEASE, architecture)

    def content(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(tarball.stat().st_size))
        handler.end_headers()
        with tarball.open("rb") as file:
            shutil.copyfileobj(file, handler.wfile, 1 << 20)

    server.answers[f"{path}.sha256"] = hashlib.sha256(tarball.read_bytes()).hexdigest().encode()
    server.answers[path] = partial(to, f"{server.url}/elsewhere.tar.gz")  # as dl.k8s.io redirects
    server.answers["/elsewhere.tar.gz"] = content
    with released(mirrored) as kube:
        works(kube)
    assert server.asked == [f"{path}.sha256", path, "/elsewhere.tar.gz"]


def test_a_cluster_that_does_not_fit_into_memory_is_refused(outer: Shell) -> None:
    sizes = ("--size", "agent=1", "--set", "roles.agent.footprint=100TiB")
    answer = outer.minicluster("up", "kubernetes", "--name", NAME, *sizes, ok=False)
    assert answer.code == 1
    assert f"Error: cluster {NAME} does not fit into memory: " in answer.err
    assert re.search(r" free, 102400\.\d GiB needed\n", answer.err)
    assert "`--force` starts them anyway." in answer.err
    assert remains(outer, NAME) == {}
