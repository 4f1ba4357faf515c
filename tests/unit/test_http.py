"""The engine's API over a socket, against a server that does what engines do, and what they do when they end."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from types import SimpleNamespace
from typing import Any

import pytest

from minicluster.engine import client_config, ssh
from minicluster.engine.address import EngineAddress
from minicluster.engine.docker import errors, images, streams
from minicluster.engine.docker.client_side import proxies
from minicluster.engine.docker.engine import DockerEngine
from minicluster.engine.http import LOGGER, Api, APIError, ConnectionLost
from minicluster.engine.protocol import Cancel
from minicluster.errors import EngineError, ImageError, NodeFailed, NoEngine
from minicluster.model import labels

Response = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answers: dict[str, Response]
    asked: list[str]
    connections: list[Any]

    def setup(self) -> None:
        self.client_address = ("engine", 0)  # a Unix socket has none
        self.connections.append(self.request)
        super().setup()

    def do(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        self.answers[self.path.partition("?")[0]](self)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do

    def say(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., tuple[Api, type[Handler]]]]:
    with contextlib.ExitStack() as stack:

        def start(answers: dict[str, Response]) -> tuple[Api, type[Handler]]:
            kind = type("Kind", (Handler,), {"answers": answers, "asked": [], "connections": []})
            server = stack.enter_context(ThreadingUnixStreamServer(str(tmp_path / "s"), kind))
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
            stack.callback(server.shutdown)
            api = Api(EngineAddress(f"unix://{tmp_path}/s", "test", None, "1.41"))
            stack.callback(api.close)
            return api, kind

        yield start


def test_a_connection_is_kept_for_the_next_call(serve):
    api, server = serve({"/v1.41/version": lambda h: h.say(200, b'{"Version": "1"}')})
    assert [api.request("GET", "/version")["Version"] for _ in range(3)] == ["1"] * 3
    assert len(server.connections) == 1


def test_one_that_the_engine_has_ended_meanwhile_is_not_used_again(serve):
    api, server = serve({"/v1.41/version": lambda h: h.say(200, b"{}")})
    api.request("GET", "/version")
    server.connections[0].shutdown(socket.SHUT_RDWR)
    assert api.request("GET", "/version") == {}
    assert len(server.connections) == 2


def test_what_is_asked(serve):
    api, server = serve({"/v1.41/images/a/b:c/json": lambda h: h.say(204)})
    assert api.request("GET", "/images/a/b:c/json", params={"filters": {"label": ["x"]}, "all": 1}) is None
    assert server.asked == ["GET /v1.41/images/a/b:c/json?filters=%7B%22label%22%3A+%5B%22x%22%5D%7D&all=1"]


def test_a_refusal_is_told_in_the_engines_words_and_leaves_the_connection_out_of_use(serve):
    api, _ = serve({"/v1.41/x": lambda h: h.say(404, b'{"message": "no such thing"}')})
    with pytest.raises(APIError, match="no such thing") as caught:
        api.request("GET", "/x")
    assert caught.value.status == 404


@pytest.mark.parametrize("said", [b"", b"not JSON", b"[]"])
def test_a_refusal_in_other_words(serve, said):
    api, _ = serve({"/v1.41/x": lambda h: h.say(500, said)})
    with pytest.raises(APIError, match=said.decode().replace("[]", r"\[\]") or "HTTP status 500"):
        api.request("GET", "/x")


def test_who_refuses_need_not_listen_to_the_end(serve):
    def refuse(handler: Handler) -> None:
        handler.say(413, b'{"message": "too much"}', Connection="close")
        handler.close_connection = True

    api, _ = serve({"/v1.41/x": refuse})
    chunks = (bytes(1 << 16) for _ in range(1000))
    with pytest.raises(APIError):
        api.request("PUT", "/x", body=chunks)


def test_nodes_ask_each_other_past_a_proxy(monkeypatch):
    about = {"httpsProxy": "http://proxy:3128", "noProxy": "work"}
    monkeypatch.setattr(client_config, "settings", lambda: {"proxies": {"default": about}})
    env = proxies("unix:///x", "172.28.3.4")
    assert env["https_proxy"] == env["HTTPS_PROXY"] == "http://proxy:3128"
    assert env["no_proxy"] == env["NO_PROXY"] == "work,localhost,127.0.0.1,0.0.0.0,172.28.3.0/24"
    monkeypatch.setattr(client_config, "settings", lambda: {"proxies": {"default": {}}})
    assert proxies("unix:///x", "172.28.3.4") == {}


def test_a_network_of_which_the_engine_has_lost_count(serve, tmp_path, monkeypatch):
    said = b'{"message": "error while removing network: network c-net id 9e has active endpoints"}'
    serve({"/v1.41/networks/c-net": lambda h: h.say(403, said)})
    monkeypatch.setattr("minicluster.engine.docker.engine.time.sleep", lambda _: None)
    engine = DockerEngine(EngineAddress(f"unix://{tmp_path}/s", "test", None, "1.41"))
    with pytest.raises(EngineError, match="containers are connected to it") as caught:
        engine.remove_network("c-net")
    assert "own record is wrong" in caught.value.fix


def test_every_call_is_logged_with_its_status_and_time_and_no_secret(serve, caplog):
    api, _ = serve(
        {
            "/v1.41/build": lambda h: (h.rfile.read(int(h.headers["Content-Length"])), h.say(200, b"{}")),
            "/v1.41/x": lambda h: h.say(404, b'{"message": "no"}'),
            "/v1.41/y": lambda h: h.connection.shutdown(socket.SHUT_RDWR),
        }
    )
    with caplog.at_level(logging.DEBUG, LOGGER):
        api.request(
            "POST", "/build", params={"buildargs": {"P": "secret-1"}}, data=["secret-2"], headers={"X-A": "secret-3"}
        )
        with pytest.raises(APIError):
            api.request("GET", "/x")
        with pytest.raises(ConnectionLost):
            api.request("GET", "/y")
    lines = [record.getMessage() for record in caplog.records]
    assert [record.levelname for record in caplog.records] == ["DEBUG"] * 3
    assert re.fullmatch(r"POST /v1.41/build: 200, \d+\.\d ms", lines[0])
    assert re.fullmatch(r"GET /v1.41/x: 404, \d+\.\d ms", lines[1])
    assert re.fullmatch(r"GET /v1.41/y: .+, \d+\.\d ms", lines[2])
    assert "secret" not in " ".join(lines)


def test_chunks_are_sent_as_they_come_and_empty_ones_do_not_end_it(serve):
    heard = []

    def listen(handler: Handler) -> None:
        while length := int(handler.rfile.readline(), 16):
            heard.append(handler.rfile.read(length))
            handler.rfile.readline()
        handler.rfile.readline()
        handler.say(200)

    api, _ = serve({"/v1.41/x": listen})
    api.request("PUT", "/x", body=iter([b"a", b"", b"bc"]))
    assert heard == [b"a", b"bc"]


def test_what_goes_wrong_at_this_end_is_no_fault_of_the_engines(serve):
    def unreadable() -> Iterator[bytes]:
        yield b"a"
        raise PermissionError("a file here")

    api, _ = serve({"/v1.41/x": lambda h: h.say(200)})
    with pytest.raises(PermissionError):
        api.request("PUT", "/x", body=unreadable())


def test_messages_come_one_a_line(serve):
    api, _ = serve({"/v1.41/events": lambda h: h.say(200, b'{"a": 1}\r\n\n{"a": 2}\n')})
    with api.open("GET", "/events") as answer:
        assert [message["a"] for message in answer.messages()] == [1, 2]


def test_an_answer_that_breaks_off(serve):
    api, _ = serve({"/v1.41/x": lambda h: h.say(200, b"{", Content_Length="10", Connection="close")})
    with pytest.raises(ConnectionLost):
        api.request("GET", "/x")


def test_no_engine_there(tmp_path):
    found = EngineAddress(f"unix://{tmp_path}/none", "test", None, "1.41")
    with pytest.raises(ConnectionLost):
        Api(found).request("GET", "/version")
    with pytest.raises(NoEngine, match="list containers"):
        DockerEngine(found).containers()


def test_a_read_is_ended_from_another_thread(serve):
    waits = threading.Event()

    def hang(handler: Handler) -> None:
        handler.say(200, Connection="close", Content_Length="10")
        waits.wait(10)

    api, _ = serve({"/v1.41/x": hang})
    with api.open("GET", "/x", timeout=None) as answer:
        threading.Timer(0.05, answer.abort).start()
        with pytest.raises(ConnectionLost):
            answer.read()
    waits.set()


def test_over_ssh_its_namesake_there_passes_on_what_is_said(serve, tmp_path, monkeypatch):
    _, server = serve({"/_ping": lambda h: h.say(200, Api_Version="1.43"), "/v1.43/x": lambda h: h.say(200, b"{}")})
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport json, os, socket, sys, threading\n"
        f"json.dump(sys.argv[1:], open({str(tmp_path / 'words')!r}, 'w'))\n"
        f"s = socket.socket(socket.AF_UNIX); s.connect({str(tmp_path / 's')!r})\n"
        "def back():\n"
        "    while data := s.recv(65536): os.write(1, data)\n"
        "threading.Thread(target=back, daemon=True).start()\n"
        "while data := os.read(0, 65536): s.sendall(data)\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    api = Api(EngineAddress("ssh://me@there:2222", "test"))
    assert api.request("GET", "/x") == {}
    assert server.asked == ["GET /_ping", "GET /v1.43/x"]
    words = json.loads((tmp_path / "words").read_text())
    assert words[:2] == ["-o", "ConnectTimeout=10"]
    assert words[-7:] == ["-l", "me", "-p", "2222", "--", "there", "docker system dial-stdio"]
    api.close()


def test_connections_by_ssh_share_one_where_its_socket_has_a_place(tmp_path, monkeypatch):
    seen = []

    def started(argv, **_streams):
        seen.append(argv)
        return subprocess.Popen("true")

    monkeypatch.setattr(ssh.processes, "start_detached", started)
    with tempfile.TemporaryDirectory() as short:
        monkeypatch.setenv("XDG_DATA_HOME", short)
        ssh.connect("ssh://there", None).close()
        folder = Path(short) / "minicluster" / "ssh"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert f'ControlPath="{folder}/%C"' in seen[0]
        assert {"ControlMaster=auto", "ControlPersist=60", "ServerAliveInterval=5"} <= {*seen[0]}
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / ("long" * 20)))
    ssh.connect("ssh://there", None).close()
    assert [word for word in seen[1] if "=" in word] == ["ConnectTimeout=10"]


@pytest.mark.parametrize("name", ["a folder", "50%", 'a"b', "a${b}", "a\\b"])
def test_ssh_takes_the_place_of_its_socket_as_it_is(name, monkeypatch):
    with tempfile.TemporaryDirectory() as short:
        monkeypatch.setenv("XDG_DATA_HOME", f"{short}/{name}")
        words = [word for option in ssh._kept() for word in ("-o", option)]
        if shutil.which("ssh"):
            done = subprocess.run(["ssh", "-F", "none", "-T", "-G", *words, "there"], capture_output=True, text=True)
            assert done.stderr == ""
            if words:
                assert f"\ncontrolpath {short}/{name}/minicluster/ssh/" in done.stdout
    assert bool(words) == (name in ("a folder", "50%"))


def test_word_to_a_container_that_has_ended_is_no_error():
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        response = SimpleNamespace(socket=ours, close=ours.close)
        said = streams.Attached(SimpleNamespace(open=lambda *_words, **_more: response), "e-fault.1")
        said.write(b"go\n")


def test_an_engine_that_ssh_does_not_reach_is_named_in_the_words_of_ssh(tmp_path, monkeypatch, capfd):
    program = tmp_path / "ssh"
    program.write_text("#!/bin/sh\necho 'ssh: connect to host there port 22: Connection refused' >&2\nexit 255\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    engine = DockerEngine(EngineAddress("ssh://me@there", "DOCKER_HOST"))
    with pytest.raises(NoEngine) as caught:
        engine.containers()
    assert caught.value.what == "the engine at ssh://me@there cannot be reached"
    assert caught.value.why.startswith("ssh: connect to host there port 22: Connection refused\n")
    assert "`ssh me@there docker version`" in caught.value.fix
    assert "DOCKER_HOST" in caught.value.fix
    assert capfd.readouterr().err == ""  # said once
    with pytest.raises(NoEngine, match="ssh:// cannot be reached"):
        DockerEngine(EngineAddress("ssh://", "DOCKER_HOST")).containers()


def test_an_engine_that_has_answered_once_stopped_answering():
    engine = DockerEngine(EngineAddress("unix:///nowhere", "test", api_version="1.41"))  # as discovery found it
    with pytest.raises(NoEngine, match="the engine stopped answering: list containers"):
        engine.containers()


def test_an_error_in_the_listener_of_a_pull_is_no_failed_pull(serve):
    api, _server = serve({"/v1.41/images/create": lambda h: h.say(200, b'{"status": "Pulling"}')})

    def broken(_text: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        images.pull(api, "some/image:1", broken, None, Cancel())


def test_a_pull_that_the_engine_refuses_says_why(serve):
    refusal = b'{"message": "manifest unknown"}'
    api, _server = serve({"/v1.41/images/create": lambda h: h.say(404, refusal)})
    with pytest.raises(ImageError, match="cannot pull image some/image:1") as caught:
        images.pull(api, "some/image:1", lambda _: None, None, Cancel())
    assert caught.value.why == "manifest unknown"


def test_a_container_whose_network_was_pruned_has_a_way_out() -> None:
    error = errors.refusal("start container c-kv-1", APIError(404, "network 9e not found"))
    assert "its network no longer exists" in error.what
    assert "minicluster up" in error.fix
    assert not errors.refusal("start container c-kv-1", APIError(404, "No such container: c-kv-1")).fix


def test_a_warning_of_ssh_does_not_replace_the_cause(tmp_path, monkeypatch):
    program = tmp_path / "ssh"
    program.write_text(
        f"#!/bin/sh\nif [ -e {tmp_path}/second ]; then exit 255; fi\ntouch {tmp_path}/second\n"
        "echo 'Warning: Permanently added the host' >&2\nexit 255\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    api = Api(EngineAddress("ssh://there", "test", api_version="1.43"))
    said = []
    for _ in range(2):
        with pytest.raises(ConnectionLost) as caught:
            api.request("GET", "/x")
        said.append(str(caught.value).splitlines())
    assert said[0][0] == "Warning: Permanently added the host"
    assert len(said[0]) == 2
    assert len(said[1]) == 1  # the warning is not of this connection
    assert "Warning" not in said[1][0]


@pytest.mark.parametrize(
    ("found", "said"),
    [(b'{"Config": {"Labels": {"%s": "web"}}}' % labels.CLUSTER.encode(), "unpause -c web`"), (b"{}", "unpause`")],
)
def test_the_command_that_resumes_a_paused_node_names_its_cluster(serve, found, said):
    api, _ = serve(
        {
            "/v1.41/containers/web-a-1/exec": lambda h: h.say(409, b'{"message": "Container web-a-1 is paused"}'),
            "/v1.41/containers/web-a-1/json": lambda h: h.say(200, found),
        }
    )
    with pytest.raises(NodeFailed) as caught:
        streams.run(api, "web-a-1", ["true"], 5, Cancel())
    assert said in caught.value.fix
