"""The context of a user's build is what docker would send."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from pathlib import Path

import pytest

from minicluster.errors import UsageError
from minicluster.operations import build_context
from minicluster.operations.build_context import ignored, patterns


@pytest.mark.parametrize(
    ("rules", "path", "out"),
    [
        ("out", "out/a/b", True),
        ("/out/", "out", True),
        ("out", "sub/out", False),
        ("*.log", "a.log", True),
        ("*.log", "sub/a.log", False),
        ("**/*.log", "a.log", True),
        ("**/*.log", "a/b/c.log", True),
        ("a/**", "a/b/c", True),
        ("a/**", "a", False),
        ("a/**/z", "a/z", True),
        ("a/**/z", "a/b/c/z", True),
        ("?.txt", "a.txt", True),
        ("?.txt", "ab.txt", False),
        ("[a-c].txt", "b.txt", True),
        ("[^a-c].txt", "b.txt", False),
        (r"\*.txt", "a.txt", False),
        (r"\*.txt", "*.txt", True),
        ("*\n!keep", "keep", False),
        ("*\n!keep/**", "keep/x", False),
        ("!keep\n*", "keep", True),
        ("# out\n\n  out  ", "out", True),
        ("./a/../b", "b", True),
        (".", "a", False),
        ("\ufeffout", "out", True),
        ("a.c", "abc", False),
    ],
)
def test_patterns(rules: str, path: str, out: bool) -> None:
    assert ignored(path, patterns(rules)) is out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "app"
    for name in ("Dockerfile", "a", "node_modules/x", "sub/b.log", "sub/keep.log"):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(name)
    (made / "link").symlink_to("/nowhere")
    return made


def sent(folder: Path, dockerfile: str | None = None) -> tuple[str, dict[str, tarfile.TarInfo], tarfile.TarFile]:
    content = io.BytesIO()
    name = build_context.write(folder, dockerfile, content)
    tar = tarfile.open(fileobj=content)  # noqa: SIM115 (in memory)
    return name, {entry.name: entry for entry in tar}, tar


def test_all_of_a_folder(folder: Path) -> None:
    (folder / "a").chmod(0o755)
    name, entries, _tar = sent(folder)
    assert name == "Dockerfile"
    assert {*entries} == {"Dockerfile", "a", "link", "node_modules", "node_modules/x", *SUB}
    assert (entries["a"].mode & 0o777, entries["a"].uid, entries["a"].uname) == (0o755, 0, "")
    assert entries["link"].linkname == "/nowhere"


SUB = ("sub", "sub/b.log", "sub/keep.log")


def test_what_is_ignored_is_not_read(folder: Path) -> None:
    (folder / ".dockerignore").write_text("node_modules\n**/*.log\n!sub/keep.log\nDockerfile\n")
    os.mkfifo(folder / "node_modules" / "pipe")
    name, entries, tar = sent(folder)
    # The engine reads the Dockerfile and .dockerignore, and leaves them out where the latter says so.
    assert {*entries} == {"Dockerfile", ".dockerignore", "a", "link", "sub", "sub/keep.log"}
    assert name == "Dockerfile"
    assert (tar.extractfile(".dockerignore") or io.BytesIO()).read().decode().splitlines()[-1] == "Dockerfile"


def test_a_dockerfile_elsewhere_is_not_in_the_image(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "Other").write_text("FROM scratch")
    name, entries, tar = sent(folder, str(tmp_path / "Other"))
    assert name.startswith(".dockerfile.")
    assert "Dockerfile" in entries
    assert (tar.extractfile(name) or io.BytesIO()).read() == b"FROM scratch"
    assert (tar.extractfile(".dockerignore") or io.BytesIO()).read().decode() == name


def test_a_dockerfile_may_have_an_ignore_file_of_its_own(folder: Path) -> None:
    (folder / ".dockerignore").write_text("a")
    (folder / "Dev").write_text("FROM scratch")
    (folder / "Dev.dockerignore").write_text("sub")
    name, entries, _tar = sent(folder, str(folder / "Dev"))
    assert name == "Dev"
    assert "a" in entries
    assert "sub" not in entries


@pytest.mark.parametrize(("path", "said"), [("nothing", "does not exist"), ("app/a", "is not a folder")])
def test_no_folder(folder: Path, tmp_path: Path, path: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        sent(tmp_path / path)


def test_no_dockerfile(folder: Path) -> None:
    (folder / "Dockerfile").unlink()
    with pytest.raises(UsageError, match=r"cannot read .*Dockerfile"):
        sent(folder)


def test_a_pattern_that_is_not_valid_is_named(folder: Path) -> None:
    (folder / ".dockerignore").write_text("[z-a]\n")
    with pytest.raises(UsageError, match=r"\.dockerignore: the pattern '\[z-a\]' is not valid"):
        sent(folder)


def test_a_full_disk_is_no_file_that_cannot_be_read(folder: Path) -> None:
    class Full(io.BytesIO):
        def write(self, _content: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UsageError, match="cannot write the build context") as caught:
        build_context.write(folder, None, Full())
    assert "TMPDIR" in caught.value.fix
