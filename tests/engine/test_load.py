"""Archives and builds, loaded into nodes whose engine is Docker; and what a bug report needs, exported."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicluster.model.codec import decode
from minicluster.model.labels import SPEC
from tests.engine.conftest import Shell, remains

pytestmark = pytest.mark.long

NAME = "t-load"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(scope="module")
def cluster(outer: Shell) -> Iterator[str]:
    """One master and one agent."""
    try:
        outer.minicluster("up", "swarm", "--name", NAME, "--size", "agent=1", timeout=600)
        yield NAME
    finally:
        outer.minicluster("down", NAME, ok=False)
    assert remains(outer, NAME) == {}


def held(outer: Shell, name: str) -> list[str]:
    """The IDs under which each node knows an image."""
    found = []
    for node in ("master-1", "agent-1"):
        line = ("exec", "-c", NAME, node, "--", "docker", "images", "--no-trunc", "-q", name)
        found.append(outer.minicluster(*line).out.strip())
    return found


def layout(path: Path, name: str) -> str:
    """An OCI archive with one layer, as other builders write it; returns the ID of its image."""
    root = io.BytesIO()
    with tarfile.open(fileobj=root, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("file"), io.BytesIO())
    layer = gzip.compress(root.getvalue(), mtime=0)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(root.getvalue()).hexdigest()}"]},
    }
    blobs: dict[str, bytes] = {}

    def put(content: bytes, kind: str) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        blobs[f"blobs/{digest.replace(':', '/')}"] = content
        return {"mediaType": kind, "digest": digest, "size": len(content)}

    about = put(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json")
    layers = [put(layer, "application/vnd.oci.image.layer.v1.tar+gzip")]
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": about, "layers": layers}
    entry = put(json.dumps(manifest).encode(), MANIFEST)
    entry["annotations"] = {"org.opencontainers.image.ref.name": name}
    files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
    files |= {"index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(), **blobs}
    with tarfile.open(path, "w:gz") as tar:
        for member, content in files.items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return str(about["digest"])


@pytest.mark.parametrize("compressed", [False, True])
def test_an_archive_of_docker_save(cluster: str, outer: Shell, tmp_path: Path, compressed: bool) -> None:
    name = f"t-load-saved:{int(compressed)}"
    (tmp_path / "unlike").write_text(name)
    file = tmp_path / ("x.tgz" if compressed else "x.tar")
    try:
        outer.run("bash", "-c", f"tar -C {tmp_path} -c unlike | docker import - {name}")
        id = outer.docker("image", "inspect", "-f", "{{.Id}}", name).out.strip()
        outer.run("bash", "-c", f"set -o pipefail; docker save {name} {'| gzip' if compressed else ''} >{file}")
    finally:
        outer.docker("rmi", name, ok=False)
    assert outer.minicluster("load", str(file), "-c", NAME).out == f"{name}: loaded into 2 nodes.\n"
    assert held(outer, name) == [id, id]
    assert outer.minicluster("load", str(file), "-c", NAME).out == f"{name}: already there in 2 nodes.\n"
    with file.open("rb") as archive:
        line = outer.command("load", "-", "-c", NAME)
        piped = subprocess.run(line, stdin=archive, capture_output=True, text=True, timeout=120, check=True)
    assert piped.stdout == f"{name}: already there in 2 nodes.\n"


def test_an_oci_archive_on_an_engine_that_reads_none(cluster: str, outer: Shell, tmp_path: Path) -> None:
    id = layout(tmp_path / "oci.tar.gz", "t-load-oci:1")
    for done in ("loaded into", "already there in"):
        answer = outer.minicluster("load", str(tmp_path / "oci.tar.gz"), "-c", NAME)
        assert answer.out == f"t-load-oci:1: {done} 2 nodes.\n"
    assert held(outer, "t-load-oci:1") == [id, id]


def test_a_build_obeys_dockerignore(cluster: str, outer: Shell, tmp_path: Path) -> None:
    for name in ("Dockerfile", "kept", "left.log", "sub/left.log", "sub/kept.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "Dockerfile").write_text('FROM scratch\nCOPY . /\nCMD ["/kept"]\n')
    (tmp_path / ".dockerignore").write_text("**/*.log\n!sub/kept.log\n.dockerignore\nDockerfile\n")
    try:
        done = outer.minicluster("load", "--build", str(tmp_path), "-t", "t-load-built:1", "-c", NAME)
        assert done.out == "t-load-built:1: loaded into 2 nodes.\n"
        outer.docker("create", "--name", "t-load-built", "t-load-built:1")
        listed = outer.run("bash", "-c", "docker export t-load-built | tar -t").out.splitlines()
        assert {"kept", "sub/kept.log"} <= set(listed)
        assert not {"left.log", "sub/left.log", "Dockerfile", ".dockerignore"} & set(listed)
        again = outer.minicluster("load", "--build", str(tmp_path), "-t", "t-load-built:1", "-c", NAME)
        assert again.out == "t-load-built:1: already there in 2 nodes.\n"
        assert held(outer, "t-load-built:1")[0]
    finally:
        outer.docker("rm", "-f", "t-load-built", ok=False)
        outer.docker("rmi", "-f", "t-load-built:1", ok=False)


def test_a_build_that_fails_changes_nothing(cluster: str, outer: Shell, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY nothing /\n")
    failed = outer.minicluster("load", "--build", str(tmp_path), "-t", "t-load-none:1", "-c", NAME, ok=False)
    assert failed.code == 1
    assert "nothing" in failed.err
    assert f"Fix: Correct {tmp_path}/Dockerfile." in failed.err
    assert held(outer, "t-load-none:1") == ["", ""]


PROFILE = """
version: 2
name: talker
summary: A node that prints its secrets
settings: {password: none, upstream: "http://localhost"}
images: {main: {image: "minicluster/base:trixie"}}
roles:
  talker:
    count: 1
    image: main
    authority: true
    entrypoint: [sh, -c, 'cat /etc/secret /etc/minicluster/*; env; echo begun; exec sleep infinity']
    env: {PG_PASSWORD: "{{ settings.password }}", UPSTREAM: "{{ settings.upstream }}"}
    files: {/etc/secret: {source: files/secret.j2, mode: "0600"}}
    stop_timeout: 1
    ready: {exec: [sh, -c, 'kill -0 1']}
"""


def test_an_export_has_no_secrets(outer: Shell, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "profile.yaml").write_text(PROFILE)
    (tmp_path / "files" / "secret.j2").write_text("{{ secret('word') }}\n{{ secret('pem', 'ec') }}\n")
    name, passwords = "t-talker", ["hunter2secret", "upstreampw"]
    settings = ("--set", f"password={passwords[0]}", "--set", f"upstream=http://me:{passwords[1]}@proxy:3128")
    try:
        plan = outer.minicluster("up", str(tmp_path), "--name", name, *settings, "--dry-run", "-o", "json").out
        outer.minicluster("up", str(tmp_path), "--name", name, *settings)
        log = outer.minicluster("logs", "-c", name).out
        values = outer.minicluster("exec", "-c", name, "talker", "--", "cat", "/etc/secret").out.splitlines()
        private = re.findall(r"BEGIN [A-Z ]*PRIVATE KEY-----\n(.*?)-----END", log, re.DOTALL)
        word, keys = values[0], [line for key in private for line in key.split()]
        assert word in log
        assert len(private) >= 2  # the authority's, and that of secret()
        assert all(password in log for password in passwords)
        done = outer.minicluster("logs", "-c", name, "--export", str(tmp_path / "out"))
        assert done.out == f"Exported 9 files to {tmp_path / 'out'}.\n"
        secrets = [word, *keys, *passwords, "PRIVATE KEY"]
        texts = {path.name: path.read_text() for path in (tmp_path / "out").rglob("*.*")} | {"plan": plan}
        assert [(place, secret) for place, text in texts.items() for secret in secrets if secret in text] == []
        assert "begun" in texts["talker-1.log"]
        kinds = ("container", "network", "volume")
        label = f"label=io.minicluster.cluster={name}"
        for kind in kinds:
            lister = ("ps", "-aq") if kind == "container" else (kind, "ls", "-q")
            for thing in outer.docker(*lister, "--filter", label).out.split():
                about = outer.docker(kind, "inspect", thing).json[0]
                labels = dict(about.get("Config", about)["Labels"])
                if kind == "volume" and labels.get(SPEC):
                    labels[SPEC] = str(decode(labels[SPEC]))
                assert [s for s in (word, *keys) if s in str(labels)] == []
    finally:
        outer.minicluster("down", name, ok=False)
    assert remains(outer, name) == {}
