"""Programs and scripts in nodes: what they import or source is in the same node."""

from __future__ import annotations

import ast
import re

import pytest
import yaml

from minicluster.model.spec import FileSpec
from minicluster.profile import folders
from tests.unit.standing import spec_of

LIBRARY = "/usr/local/lib/minicluster"
MODULES = {file.stem for file in folders.bundled_directory().rglob("*.py")}


def needed(file: FileSpec) -> set[str]:
    """The paths of files that a file imports or sources."""
    if file.content.startswith("#!/usr/bin/python3") or file.path.endswith(".py"):
        imported = re.findall(r"^ *from (\w+) import", file.content, re.MULTILINE)
        return {f"{LIBRARY}/{module}.py" for module in imported if module in MODULES}
    return set(re.findall(r"^\. (/usr/local/lib/\S+)", file.content, re.MULTILINE))


@pytest.mark.parametrize("profile", folders.names())
def test_a_program_has_its_library(profile: str) -> None:
    for node in spec_of(profile).nodes:
        there = {file.path for file in node.files}
        for file in node.files:
            assert needed(file) <= there, f"{file.path} in {node.name}"


@pytest.mark.parametrize("profile", folders.names())
def test_the_image_of_a_program_has_a_python(profile: str) -> None:
    """Debian 13's python3-minimal, which has json."""
    images = yaml.safe_load((folders.bundled_directory() / profile / "profile.yaml").read_text())["images"]
    for node in spec_of(profile).nodes:
        programs = [file.path for file in node.files if re.search(r"^import json$", file.content, re.MULTILINE)]
        build = images[node.image].get("build")
        if programs and build:
            owner, _, folder = build.rpartition(":")
            dockerfile = folders.bundled_directory() / (owner or profile) / folder / "Dockerfile"
            assert "python3-minimal" in dockerfile.read_text(), f"{programs} in {node.name}"


#: What programs have been run with. Debian's python3-minimal has a part of the standard library: no shutil, no http.
STANDARD = {
    "__future__", "binascii", "collections", "contextlib", "hashlib", "ipaddress", "json", "os", "re", "select",
    "signal", "socket", "ssl", "struct", "subprocess", "sys", "threading", "time", "typing",
}  # fmt: skip


def test_programs_import_what_a_minimal_python_has() -> None:
    found = [file for file in folders.bundled_directory().rglob("*") if file.is_file()]
    programs = [f for f in found if f.suffix == ".py" or f.read_bytes().startswith(b"#!/usr/bin/python3")]
    assert len(programs) > 20
    for program in programs:
        nodes = [*ast.walk(ast.parse(program.read_text()))]
        imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
        assert {name.partition(".")[0] for name in imported} <= STANDARD | MODULES, program


def test_some_programs_have_one() -> None:
    kv = next(node for node in spec_of("mesos").nodes if node.role == "kv")
    (members,) = (file for file in kv.files if file.path.endswith("/mesos-members"))
    assert needed(members) == {f"{LIBRARY}/mesos_server.py", f"{LIBRARY}/program.py"}
