"""Finding the engine: the order, what the user named, and what is said when there is none."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minicluster import paths
from minicluster.engine import client_config, discover
from minicluster.engine.address import EngineAddress, Tls
from minicluster.engine.discover import Attempt
from minicluster.engine.http import describe, get_json, ping
from minicluster.engine.private import daemon
from minicluster.errors import NoEngine, UsageError

PONG = b"HTTP/1.0 200 OK\r\nApi-Version: 1.43\r\nOSType: linux\r\n\r\nOK"
Serve = Callable[[Path, bytes], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Engines that answer every request with the same bytes, on Unix sockets; returns their URLs."""
    listeners: list[socket.socket] = []

    def start(path: Path, answer: bytes = PONG) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        listeners.append(listener)

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        threading.Thread(target=run, daemon=True).start()
        return f"unix://{path}"

    yield start
    for listener in listeners:
        listener.close()


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's home, with nothing in it and no engine on the machine. Its path is short, as a socket's must be."""
    with tempfile.TemporaryDirectory(prefix="mc-") as folder:
        path = Path(folder)
        for name in ("HOST", "CONTEXT", "CONFIG", "TLS", "TLS_VERIFY", "CERT_PATH"):
            monkeypatch.delenv(f"DOCKER_{name}", raising=False)
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        monkeypatch.setenv("HOME", str(path))
        monkeypatch.setenv("XDG_DATA_HOME", str(path / "data"))
        monkeypatch.setattr(discover, "default_sockets", lambda: [path / "one.sock", path / "two.sock"])
        monkeypatch.setattr(daemon, "obstacle", lambda: "it must run as root")
        yield path


def write_context(config: Path, name: str, endpoint: dict[str, object]) -> Path:
    key = hashlib.sha256(name.encode()).hexdigest()
    meta = config / "contexts" / "meta" / key / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"Name": name, "Endpoints": {"docker": endpoint}}))
    return config / "contexts" / "tls" / key / "docker"


def test_the_first_default_socket_that_answers_is_used(home: Path, serve: Serve) -> None:
    url = serve(home / "two.sock", PONG)
    assert discover.locate() == EngineAddress(url, "default socket", None, "1.43")


def test_a_stale_socket_is_passed_over(home: Path, serve: Serve) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(home / "one.sock"))
    stale.close()
    serve(home / "two.sock", PONG)
    assert discover.locate().url.endswith("two.sock")


def test_the_private_engine_comes_last(home: Path, serve: Serve) -> None:
    url = serve(home / "data/minicluster/engine/docker.sock", PONG)
    assert discover.locate() == EngineAddress(url, "private engine", None, "1.43")
    serve(home / "one.sock", PONG)
    assert discover.locate().source == "default socket"


def test_docker_host_is_used_or_is_an_error_that_names_it(
    home: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(home / "one.sock", PONG)
    monkeypatch.setenv("DOCKER_HOST", serve(home / "mine.sock", PONG))
    assert discover.locate().source == "DOCKER_HOST"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{home}/gone.sock")
    with pytest.raises(NoEngine) as caught:
        discover.locate()
    assert "DOCKER_HOST" in caught.value.what
    assert "gone.sock: no such socket" in caught.value.why
    assert "unset DOCKER_HOST" in caught.value.fix


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"DOCKER_HOST": "tcp://h:1"}, EngineAddress("tcp://h:1", "DOCKER_HOST")),
        ({"DOCKER_HOST": "h:1"}, EngineAddress("tcp://h:1", "DOCKER_HOST")),
        ({"DOCKER_HOST": "tcp://h:1", "DOCKER_CERT_PATH": "{home}"}, EngineAddress("tcp://h:1", "DOCKER_HOST")),
        (
            {"DOCKER_HOST": "tcp://h:1", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "{home}"},
            EngineAddress(
                "tcp://h:1", "DOCKER_HOST", Tls(Path("{home}/ca.pem"), Path("{home}/cert.pem"), None, verify=True)
            ),
        ),
        (
            {"DOCKER_HOST": "tcp://h:1", "DOCKER_TLS": "1", "DOCKER_CERT_PATH": "{home}/none"},
            EngineAddress("tcp://h:1", "DOCKER_HOST", Tls(verify=False)),
        ),
        ({"DOCKER_HOST": "unix:///s", "DOCKER_TLS_VERIFY": "1"}, EngineAddress("unix:///s", "DOCKER_HOST")),
    ],
)
def test_the_variables_mean_what_they_mean_to_the_docker_client(
    home: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: EngineAddress
) -> None:
    (home / "ca.pem").touch()
    (home / "cert.pem").touch()
    for name, value in environment.items():
        monkeypatch.setenv(name, value.format(home=home))
    seen: list[EngineAddress] = []
    monkeypatch.setattr(discover, "_try", lambda candidate, _timeout: seen.append(candidate) or candidate)
    discover.locate()
    if expected.tls and expected.tls.ca:
        assert seen[0].tls == Tls(home / "ca.pem", home / "cert.pem", None, verify=True)
    else:
        assert seen[0] == expected


def test_ssh_is_left_to_docker(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://somebody@somewhere.invalid")
    assert discover.locate().url == "ssh://somebody@somewhere.invalid"


@pytest.mark.parametrize("by", ["config", "variable"])
def test_the_docker_context_in_use(home: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    serve(home / "one.sock", PONG)
    config = home / "configuration"
    monkeypatch.setenv("DOCKER_CONFIG", str(config))
    write_context(config, "colima", {"Host": serve(home / "colima.sock", PONG)})
    if by == "config":
        (config / "config.json").write_text(json.dumps({"currentContext": "colima"}))
    else:
        (config / "config.json").write_text(json.dumps({"currentContext": "default"}))
        monkeypatch.setenv("DOCKER_CONTEXT", "colima")
    found = discover.locate()
    assert (found.source, found.url) == ("docker context colima", f"unix://{home}/colima.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{home}/one.sock")
    assert discover.locate().source == "DOCKER_HOST"


def test_a_context_that_does_not_answer_is_an_error(home: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(home / "one.sock", PONG)
    write_context(home / ".docker", "desktop-linux", {"Host": f"unix://{home}/desktop.sock"})
    monkeypatch.setenv("DOCKER_CONTEXT", "desktop-linux")
    with pytest.raises(NoEngine, match="docker context desktop-linux") as caught:
        discover.locate()
    assert "docker context use" in caught.value.fix


@pytest.mark.parametrize(("by", "way"), [("variable", "give it in DOCKER_HOST"), ("context", "context update far --")])
def test_an_engine_whose_machine_has_another_address_now(
    home: Path, monkeypatch: pytest.MonkeyPatch, by: str, way: str
) -> None:
    gone = "tcp://127.0.0.1:9"
    if by == "variable":
        monkeypatch.setenv("DOCKER_HOST", gone)
    else:
        write_context(home / ".docker", "far", {"Host": gone})
        monkeypatch.setenv("DOCKER_CONTEXT", "far")
    with pytest.raises(NoEngine) as caught:
        discover.locate()
    assert "another address now" in caught.value.fix
    assert way in caught.value.fix


def test_an_engine_behind_a_clusters_variables_that_does_not_answer(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DOCKER_HOST is the cluster's: to unset it alone, or to change it, would be no way out."""
    folder = paths.clients_directory() / "c"
    folder.mkdir(parents=True)
    (folder / "engine").write_text(EngineAddress("tcp://127.0.0.1:9", "DOCKER_HOST").dump())
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(folder))
    with pytest.raises(NoEngine, match="the engine of DOCKER_HOST does not answer") as caught:
        discover.locate()
    assert 'eval "$(minicluster env --unset)"' in caught.value.fix
    assert "another address now" in caught.value.fix


def test_a_context_that_is_not_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "typo")
    with pytest.raises(NoEngine, match="docker context typo names no engine"):
        discover.locate()


def test_a_contexts_certificates(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = write_context(home / ".docker", "far", {"Host": "tcp://far:2376", "SkipTLSVerify": False})
    tls.mkdir(parents=True)
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tls / name).touch()
    monkeypatch.setenv("DOCKER_CONTEXT", "far")
    monkeypatch.setattr(discover, "_try", lambda candidate, _timeout: candidate)
    assert discover.locate().tls == Tls(tls / "ca.pem", tls / "cert.pem", tls / "key.pem", verify=True)


def test_a_broken_client_configuration_is_as_good_as_none(home: Path, serve: Serve) -> None:
    serve(home / "one.sock", PONG)
    (home / ".docker").mkdir()
    (home / ".docker/config.json").write_text("{ not json")
    assert discover.locate().source == "default socket"


def test_no_engine_tells_every_place_and_its_answer(home: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    serve(home / "two.sock", b"HTTP/1.0 503 Service Unavailable\r\n\r\n")
    with pytest.raises(NoEngine) as caught:
        discover.locate()
    lines = caught.value.why.splitlines()
    assert lines[0] == f"Tried default socket unix://{home}/one.sock: no such socket."
    assert "two.sock: answers /_ping with HTTP status 503 Service Unavailable." in lines[1]
    assert lines[2].startswith("Tried private engine")
    assert "its service does not answer" in caught.value.fix
    assert "it must run as root" in caught.value.fix


@pytest.mark.parametrize(
    ("platform", "error", "obstacle", "expected"),
    [
        ("linux", PermissionError(13, "Permission denied"), "it must run as root", "usermod -aG docker"),
        ("darwin", PermissionError(13, "Permission denied"), "it must run on Linux", "usermod -aG docker"),
        ("darwin", FileNotFoundError(), "it must run on Linux", "Docker Desktop"),
        ("darwin", FileNotFoundError(), "it must run on Linux", "colima start"),
        ("linux", ConnectionRefusedError(), "it must run as root", "systemctl start docker"),
        ("linux", FileNotFoundError(), "it must run as root", "Install an engine"),
        ("linux", FileNotFoundError(), "", "minicluster engine start"),
    ],
)
def test_the_fix_is_for_this_platform(
    monkeypatch: pytest.MonkeyPatch, platform: str, error: OSError, obstacle: str, expected: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    attempts = [
        Attempt("default socket", "unix:///var/run/docker.sock", error),
        Attempt("private engine", "unix:///x", FileNotFoundError()),
    ]
    assert expected in discover._fix(attempts, obstacle)


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("ID=debian\n", "apt-get install docker.io"),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', "apt-get install docker.io"),
        ("ID=fedora\n", "dnf install"),
        ("ID=alpine\n", "apk add docker"),
        ("ID=unheard-of\n", "Docker Engine"),
    ],
)
def test_how_a_distribution_gets_an_engine(tmp_path: Path, release: str, expected: str) -> None:
    file = tmp_path / "os-release"
    file.write_text(release)
    assert expected in discover._install_command(file)


def test_the_private_engine_is_started_only_when_asked_for(
    home: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = home / "data/minicluster/engine"
    notes: list[str] = []

    def start(_listener: object) -> daemon.Status:
        serve(folder / "docker.sock", PONG)
        return daemon.Status(True, folder, folder / "docker.sock", folder / "data", folder / "log", pid=1)

    monkeypatch.setattr(daemon, "start", start)
    monkeypatch.setattr(daemon, "obstacle", lambda: "")
    with pytest.raises(NoEngine):
        discover.locate()
    found = discover.locate(start_private=True, listener=lambda event: notes.append(event.text))
    assert found.source == "private engine"
    assert "private" in notes[0]


def test_ping_is_patient_but_not_for_ever(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        start = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            ping(f"unix://{tmp_path}/s", timeout=0.1)
        assert time.monotonic() - start < 1
    assert describe(caught.value) == "no answer in time"


@pytest.mark.parametrize(
    ("answer", "expected"), [(b"\x15\x03\x01\x00\x02\x02\x16", "not HTTP"), (b"", "without an answer")]
)
def test_ping_tells_what_is_no_engine(tmp_path: Path, serve: Serve, answer: bytes, expected: str) -> None:
    url = serve(tmp_path / "s", answer)
    with pytest.raises(OSError, match=expected):
        ping(url)


def test_json_that_is_none_is_an_oserror(tmp_path: Path, serve: Serve) -> None:
    with pytest.raises(OSError, match="not JSON"):
        get_json(serve(tmp_path / "s", PONG), "/version")


@pytest.mark.parametrize("url", ["unix://" + "/x" * 60, "carrier-pigeon://coop", "tcp://host:99999"])
def test_urls_that_cannot_be_asked(url: str) -> None:
    with pytest.raises(OSError, match=r"longer|not supported|not a number"):
        ping(url)


def test_finding_costs_milliseconds(home: Path, serve: Serve) -> None:
    serve(home / "two.sock", PONG)
    start = time.monotonic()
    discover.locate()
    assert time.monotonic() - start < 0.2  # some 2 ms; the bound is for a busy machine


def test_a_context_that_cannot_be_used_ends_only_commands_that_name_it(home: Path, serve: Serve) -> None:
    config = home / ".docker"
    write_context(config, "m1", {"Host": serve(home / "m1.sock", PONG)})
    write_context(config, "plain", {"Host": "tcp://192.0.2.1:2375"})
    write_context(config, "bare", {})
    engine = discover.open_hosts(client_config.contexts(), strict=False)
    assert [*engine.hosts] == ["m1"]
    assert engine.gone == {
        "bare": "its docker context has no docker endpoint",
        "plain": "tcp://192.0.2.1:2375 is not protected by TLS",
    }
    with pytest.raises(NoEngine, match="no host answers") as caught:
        discover.open_hosts(["plain"], strict=False)
    assert caught.value.why == "plain: tcp://192.0.2.1:2375 is not protected by TLS"
    for name, words in (
        ("plain", "is not protected by TLS"),
        ("bare", "host bare: its docker context has no docker endpoint"),
        ("m2", "host m2: no docker context has that name"),
    ):
        with pytest.raises(UsageError, match=words):
            discover.open_hosts(["m1", name])
