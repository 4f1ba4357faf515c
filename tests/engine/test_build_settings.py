"""This machine's settings reach builds and compilations on a real engine, and stay in no image's history."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import json
import os
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicluster.engine.protocol import Engine
from minicluster.profile import folders, parts
from tests.engine.conftest import Shell
from tests.engine.test_parts import base, get, spec_of
from tests.unit.samples import LEAST

__all__ = ["base"]  # a fixture

NAME = f"t-settings-{os.getpid()}"
SECRET = "words-that-nobody-may-find"

DOCKERFILE = """\
ARG BASE
FROM ${BASE} AS settings
ARG PIP_INDEX_URL
ARG GOFLAGS
RUN echo "$PIP_INDEX_URL $GOFLAGS" >/told && cp /etc/minicluster/authorities.pem /authorities
FROM ${BASE}
COPY --from=settings /told /authorities /
RUN apt-get update -o Acquire::Retries=0 >/log 2>&1 || true
"""

CHAIN = """\
ARG BASE
ARG ON=first
FROM ${BASE} AS First
ARG A GOFLAGS
RUN echo "flags: $GOFLAGS, proxies: $HTTPS_PROXY, $https_proxy" \\
  # from here on in the history
  >/told
FROM ${ON}
ARG HTTPS_PROXY
RUN true
"""

PART = """
summary: a program of this test
license: MIT
home: https://example.org
default: 1.0.0
supported: .*
sources:
  go: {module: example.org/hello, programs: {hello: .}}
versions:
  1.0.0: {sources: [go]}
"""
MAIN = 'package main\n\nimport "example.org/words"\n\nfunc main() { println(words.Words) }\n'
WORDS = 'package words\n\nconst Words = "words"\n'


class Served:
    """A proxy and a registry of Go modules: what was asked of it, and what it answers by path."""

    def __init__(self, address: str, port: int) -> None:
        self.url = f"http://{address}:{port}"
        self.answers: dict[str, bytes] = {}
        self.asked: list[str] = []


@pytest.fixture
def served(outer: Shell) -> Iterator[Served]:
    gateway = outer.docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}").out.strip()

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            answer = made.answers.get(self.path)
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Length", str(len(answer or b"")))
            self.end_headers()
            self.wfile.write(answer or b"")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer((gateway, 0), Answers)
    made = Served(gateway, server.server_port)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


def checksum(files: dict[str, str]) -> str:
    """As go.sum has it: https://go.dev/ref/mod#go-sum-files"""
    lines = [f"{hashlib.sha256(content.encode()).hexdigest()}  {name}\n" for name, content in sorted(files.items())]
    return f"h1:{base64.b64encode(hashlib.sha256(''.join(lines).encode()).digest()).decode()}"


def known_of(outer: Shell, ref: str) -> str:
    """All that the engine tells of an image."""
    return outer.docker("history", "--no-trunc", ref).out + outer.docker("inspect", ref).out


def test_proxy_mirror_authorities_and_registries_reach_a_build(outer: Shell, served: Served, tmp_path: Path) -> None:
    profile = tmp_path / "profile"
    (profile / "image").mkdir(parents=True)
    text = LEAST.replace("image: example/node", "build: image").replace("name: least", f"name: {NAME}")
    (profile / "profile.yaml").write_text(text)
    (profile / "image" / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "authorities.pem").write_text(f"{SECRET}: authorities\n")
    settings = {
        "http_proxy": f"http://{SECRET}@{served.url.removeprefix('http://')}",
        "no_proxy": f"{SECRET}.example",
        "MINICLUSTER_DEBIAN_MIRROR": "http://mirror.invalid/debian http://mirror.invalid/security",
        "PIP_INDEX_URL": f"https://{SECRET}@index.invalid",
        "GOFLAGS": f"-tags={SECRET}",
        "SSL_CERT_FILE": str(tmp_path / "authorities.pem"),
    }
    shell = Shell(outer.env | settings)
    bases = "images", "minicluster/part-base", "--format", "{{.Repository}}:{{.Tag}}"
    before = set(outer.docker(*bases).out.split())
    (ref,) = shell.minicluster("image", "build", str(profile)).out.split()
    try:
        assert {path for path in served.asked if "InRelease" in path} >= {
            "http://mirror.invalid/debian/dists/trixie/InRelease",
            "http://mirror.invalid/security/dists/trixie-security/InRelease",
        }
        assert all(path.startswith("http://mirror.invalid/") for path in served.asked)
        told = outer.docker("run", "--rm", "--name", NAME, ref, "cat", "/told", "/authorities").out
        assert told == f"https://{SECRET}@index.invalid -tags={SECRET}\n{SECRET}: authorities\n"
        known = known_of(outer, ref)
        assert SECRET not in known
        assert "mirror.invalid" not in known
        assert "apt-get update" in known  # it is the history
    finally:
        outer.docker("rmi", ref)
        for made in set(outer.docker(*bases).out.split()) - before:
            assert "mirror.invalid" not in known_of(outer, made)
            outer.docker("rmi", made)


def test_the_history_of_a_stage_that_the_last_is_built_on_has_no_settings(outer: Shell, tmp_path: Path) -> None:
    (tmp_path / "image").mkdir()
    text = LEAST.replace("image: example/node", "build: image").replace("name: least", f"name: {NAME}")
    (tmp_path / "profile.yaml").write_text(text)
    (tmp_path / "image" / "Dockerfile").write_text(CHAIN)
    settings = {"https_proxy": f"http://{SECRET}@proxy.invalid", "GOFLAGS": f"-tags={SECRET}"}
    shell = Shell(outer.env | settings)
    built = shell.minicluster("image", "build", str(tmp_path))
    (ref,) = built.out.split()
    try:
        for name in ("GOFLAGS", "HTTPS_PROXY"):
            assert f"{name} is not passed to the build of image node" in built.err
        told = outer.docker("run", "--rm", "--name", NAME, ref, "cat", "/told").out
        assert told == f"flags: , proxies: , http://{SECRET}@proxy.invalid\n"
        known = known_of(outer, ref)
        assert "ARG A GOFLAGS" in known
        assert SECRET not in known
    finally:
        outer.docker("rmi", ref)


def test_a_registry_of_modules_reaches_a_compilation(
    engine: Engine, outer: Shell, served: Served, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "_parts" / NAME
    (folder / "1.0.0").mkdir(parents=True)
    (tmp_path / "_parts" / "_build").symlink_to(folders.bundled_directory() / "_parts" / "_build")
    (folder / "part.yaml").write_text(PART)
    (folder / "main.go").write_text(MAIN)
    version = f"v0.0.{os.getpid()}"  # the compiler's cache keeps modules
    (folder / "1.0.0" / "go.mod").write_text(
        f"module example.org/hello\n\ngo 1.24\n\nrequire example.org/words {version}\n"
    )
    module = io.BytesIO()
    files = {"go.mod": "module example.org/words\n", "words.go": WORDS}
    with zipfile.ZipFile(module, "w") as made:
        for name, content in files.items():
            made.writestr(f"example.org/words@{version}/{name}", content)
    (folder / "1.0.0" / "go.sum").write_text(
        f"example.org/words {version} {checksum({f'example.org/words@{version}/{n}': c for n, c in files.items()})}\n"
        f"example.org/words {version}/go.mod {checksum({'go.mod': files['go.mod']})}\n"
    )
    there = f"/{SECRET}/example.org/words/@v/{version}"
    served.answers |= {
        f"{there}.info": json.dumps({"Version": version}).encode(),
        f"{there}.mod": b"module example.org/words\n",
        f"{there}.zip": module.getvalue(),
    }
    address = served.url.removeprefix("http://")
    for name, value in {
        "GOPROXY": f"{served.url}/{SECRET}",
        "GOFLAGS": "-modcacherw",
        "GONOSUMDB": "example.org",
        "NO_PROXY": address.partition(":")[0],
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(folders, "bundled_directory", lambda: tmp_path)
    parts.load.cache_clear()
    spec = spec_of(NAME)
    try:
        get(engine, spec, base)
        assert f"{there}.zip" in served.asked
        assert outer.docker("run", "--rm", "--name", NAME, spec.ref, "/usr/local/bin/hello").err == "words\n"
        assert SECRET not in known_of(outer, spec.ref)
    finally:
        parts.load.cache_clear()
        outer.docker("rmi", spec.ref, ok=False)
