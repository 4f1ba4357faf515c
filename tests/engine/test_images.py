"""Images that are built, and images from a registry of the tests."""

from __future__ import annotations

import gzip
import shutil
import socket
import subprocess
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.engine.conftest import Shell, eventually, remains

NAME = "t-images"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of Debian's docker-registry, unpacked and started without installing a service."""
    folder = tmp_path_factory.mktemp("registry")
    program = shutil.which("docker-registry") or _unpacked(folder)
    if not program:
        pytest.skip("docker-registry is not installed and cannot be downloaded as a Debian package")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = folder / "config.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\nhttp: {{addr: '{address}'}}\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log)
    try:
        eventually(lambda: _answers(f"http://{address}/v2/"), within=20, what="the registry answers")
        yield address
    finally:
        process.terminate()
        process.wait(timeout=20)


def _unpacked(folder: Path) -> str:
    if not shutil.which("apt-get"):
        return ""
    got = subprocess.run(["apt-get", "download", "docker-registry"], cwd=folder, capture_output=True, timeout=120)
    packages = list(folder.glob("*.deb"))
    if got.returncode or not packages:
        return ""
    subprocess.run(["dpkg-deb", "-x", str(packages[0]), str(folder / "root")], check=True)
    return str(folder / "root/usr/bin/docker-registry")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


@pytest.fixture
def published(registry: str, outer: Shell, node_image: str) -> Iterator[str]:
    """An image reference that the registry has and the engine lacks."""
    ref = f"{registry}/team/swarm-node:1"
    outer.docker("tag", node_image, ref)
    outer.docker("push", "--quiet", ref)
    outer.docker("rmi", "--no-prune", ref)
    try:
        yield ref
    finally:
        outer.docker("rmi", "--no-prune", ref, ok=False)


def test_a_ready_image_is_pulled(outer: Shell, published: str) -> None:
    try:
        outer.minicluster("up", "swarm", "--name", NAME, "--image", f"node={published}", "--size", "agent=1")
        assert outer.docker("inspect", f"{NAME}-master-1", "--format", "{{.Config.Image}}").out.strip() == published
        assert outer.minicluster("status", NAME, "-o", "json").json["phase"] == "ready"
        # What was asked for once stays asked for.
        outer.minicluster("up", "--name", NAME)
        assert outer.docker("inspect", f"{NAME}-agent-1", "--format", "{{.Config.Image}}").out.strip() == published
    finally:
        outer.minicluster("down", NAME, ok=False)
    assert remains(outer, NAME) == {}


def test_an_overlay_on_an_image_that_is_pulled(outer: Shell, published: str, tmp_path: Path) -> None:
    """Like the mesos profile with its agents' image."""
    folder = tmp_path / "outfit"
    (folder / "fit").mkdir(parents=True)
    (folder / "fit" / "Dockerfile").write_text("ARG BASE\nARG IMAGE\nFROM ${IMAGE}\nRUN echo fitted >/what\n")
    platform = outer.docker("version", "--format", "{{.Server.Os}}/{{.Server.Arch}}").out.strip()
    text = (
        "version: 2\nname: outfit\nsummary: one idle node\n"
        f"images: {{node: {{image: '{published}', overlay: fit, platforms: [{platform}]}}}}\n"
        "roles: {idle: {count: 1, image: node, entrypoint: [sleep], command: [infinity]}}\n"
    )
    (folder / "profile.yaml").write_text(text)
    try:
        outer.minicluster("up", str(folder), "--name", NAME)
        assert outer.minicluster("exec", "-c", NAME, "idle-1", "--", "cat", "/what").out == "fitted\n"
        assert outer.minicluster("exec", "-c", NAME, "idle-1", "--", "dockerd", "--version").out
        (folder / "profile.yaml").write_text(text.replace(platform, "linux/none"))
        refused = outer.minicluster("up", str(folder), "--name", f"{NAME}-other", ok=False)
        assert refused.code == 1
        assert f"cannot run on this engine, which is {platform}" in refused.err
    finally:
        outer.minicluster("down", NAME, ok=False)
        outer.minicluster("image", "remove", "outfit", ok=False)
    assert remains(outer, NAME) == {}


@pytest.mark.long
def test_images_that_are_built_again_under_their_tag_are_used(outer: Shell, node_image: str, tmp_path: Path) -> None:
    """As they are, or built upon. The builds, of two stages, leave no image without a name."""
    folder, tag, word = tmp_path / "outfit", "t-images/dev:1", str(uuid4())
    (folder / "fit").mkdir(parents=True)
    (folder / "fit" / "Dockerfile").write_text(
        f"ARG BASE\nARG IMAGE\nFROM ${{BASE}} AS stage\nRUN echo {word} >/stage\nFROM ${{IMAGE}}\n"
        "COPY --from=stage /stage /stage\n"
    )
    (folder / "profile.yaml").write_text(
        "version: 2\nname: outfit\nsummary: two idle nodes\n"
        f"images: {{plain: {{image: '{tag}'}}, fitted: {{image: '{tag}', overlay: fit}}}}\n"
        "roles:\n  plain: {count: 1, image: plain, entrypoint: [sleep], command: [infinity], stop_timeout: 1}\n"
        "  fitted: {count: 1, image: fitted, entrypoint: [sleep], command: [infinity], stop_timeout: 1}\n"
    )
    (tmp_path / "dev").mkdir()

    def develop(word: str) -> None:
        (tmp_path / "dev" / "Dockerfile").write_text(f"FROM {node_image}\nRUN echo {word} >/word\n")
        outer.docker("build", "--quiet", "--tag", tag, str(tmp_path / "dev"))

    def words() -> list[str]:
        return [
            outer.minicluster("exec", "-c", NAME, f"{role}-1", "--", "cat", "/word").out for role in ("plain", "fitted")
        ]

    def unnamed() -> set[str]:
        return set(outer.docker("images", "--quiet", "--no-trunc", "--filter", "dangling=true").out.split())

    try:
        develop("one")
        before = unnamed()
        outer.minicluster("up", str(folder), "--name", NAME)
        assert words() == ["one\n", "one\n"]
        assert "up to date" in outer.minicluster("up", str(folder), "--name", NAME).out
        develop("two")
        outer.minicluster("up", str(folder), "--name", NAME)
        assert words() == ["two\n", "two\n"]
        assert "up to date" in outer.minicluster("up", str(folder), "--name", NAME).out
        history = "".join(outer.docker("history", "--no-trunc", id, ok=False).out for id in unnamed() - before)
        assert word not in history
    finally:
        outer.minicluster("down", NAME, ok=False)
        outer.minicluster("image", "remove", "outfit", ok=False)
        outer.docker("rmi", "--force", tag, ok=False)
    assert remains(outer, NAME) == {}


def test_a_registry_that_has_no_such_image_is_named_with_what_it_said(outer: Shell, registry: str) -> None:
    answer = outer.minicluster("up", "--name", NAME, "--image", f"node={registry}/team/none:1", ok=False)
    assert answer.code == 1
    assert f"{registry}/team/none:1" in answer.err
    assert "not found" in answer.err or "unknown" in answer.err
    assert remains(outer, NAME) == {}


def test_an_image_is_built_once_and_again_when_its_files_change(outer: Shell, tmp_path: Path) -> None:
    from minicluster.profile import catalog

    folder = tmp_path / "tiny"
    (folder / "image").mkdir(parents=True)
    (folder / "image" / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nRUN echo one >/what\n")
    (folder / "profile.yaml").write_text(
        "version: 2\nname: tiny\nsummary: one idle node\nimages: {node: {build: image}}\n"
        "roles: {node: {count: 1, image: node, command: [sleep, infinity]}}\n".replace("node: {count", "idle: {count")
    )
    assert catalog.validate(str(folder))
    try:
        built = outer.minicluster("image", "build", str(folder))
        first = built.out.split()[-1]
        assert "building" in built.err
        again = outer.minicluster("image", "build", str(folder))
        assert again.out.split()[-1] == first
        assert "building" not in again.err
        (folder / "image" / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nRUN echo two >/what\n")
        second = outer.minicluster("image", "build", str(folder)).out.split()[-1]
        assert second != first
        listed = [i["ref"] for i in outer.minicluster("image", "list", "-o", "json").json]
        assert {first, second} <= set(listed)
        outer.minicluster("up", str(folder), "--name", NAME)
        assert outer.minicluster("exec", "-c", NAME, "idle-1", "--", "cat", "/what").out == "two\n"
        refused = outer.minicluster("image", "remove", second, ok=False)
        assert refused.code == 1
        assert "in use" in refused.err
    finally:
        outer.minicluster("down", NAME, ok=False)
        outer.minicluster("image", "remove", "tiny", ok=False)
    assert not [i for i in outer.minicluster("image", "list", "-o", "json").json if i["profile"] == "tiny"]


def test_an_image_comes_from_a_file(outer: Shell, tmp_path: Path) -> None:
    """It is saved, compressed and removed, and then loaded with the same content."""
    ref, tar = "t-images/tiny:1", tmp_path / "tiny.tar"
    (tmp_path / "what").write_text("here\n")
    with tarfile.open(tmp_path / "root.tar", "w") as root:
        root.add(tmp_path / "what", "what")
    try:
        outer.docker("import", str(tmp_path / "root.tar"), ref)
        id_before = outer.docker("inspect", ref, "--format", "{{.Id}}").out
        outer.docker("save", "--output", str(tar), ref)
        outer.docker("rmi", ref)
        tar.with_suffix(".tar.gz").write_bytes(gzip.compress(tar.read_bytes()))
        answer = outer.minicluster("image", "import", f"{tar}.gz")
        assert answer.out == f"Loaded {ref}\n"
        assert outer.docker("inspect", ref, "--format", "{{.Id}}").out == id_before
        assert outer.minicluster("image", "import", str(tar), "-o", "json").json == [ref]
    finally:
        outer.docker("rmi", ref, ok=False)


def test_a_file_that_is_no_image_is_refused_with_the_engines_message(outer: Shell, tmp_path: Path) -> None:
    (tmp_path / "what").write_text("here\n")
    with tarfile.open(tmp_path / "root.tar", "w") as root:
        root.add(tmp_path / "what", "what")
    answer = outer.minicluster("image", "import", str(tmp_path / "root.tar"), ok=False)
    assert answer.code == 1
    assert "root.tar contains no image that the engine can load" in answer.err
    assert "docker save" in answer.err
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(gzip.compress((tmp_path / "root.tar").read_bytes())[:-30])
    answer = outer.minicluster("image", "import", str(cut), ok=False)
    assert answer.code in (1, 2)
    assert "cut.tar.gz" in answer.err
