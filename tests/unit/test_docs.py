"""The documents say what the code does: examples are real files, references are up to date, links lead somewhere."""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest

from minicluster.cli.app import app
from minicluster.profile import catalog
from minicluster.project import definition
from minicluster.project.load import load

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "examples/README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted(path.parent for path in (ROOT / "docs/examples").glob("*/profile.yaml"))
README = (ROOT / "README.md").read_text()


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {"".join(c for c in h.lower().replace(" ", "-") if c.isalnum() or c in "-_") for h in headings}


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_an_example_is_valid_to_the_last_template(folder: Path) -> None:
    assert catalog.validate(str(folder)).profile.name == folder.name


@pytest.mark.parametrize("path", ["profile.yaml", "image/Dockerfile", "files/redis.conf.j2"])
def test_the_example_in_the_readme_is_the_file(path: str) -> None:
    found = re.search(rf"^`{re.escape(path)}`\n\n```\w+\n(.*?)```$", README, re.MULTILINE | re.DOTALL)
    assert found, f"README.md does not show {path}"
    assert found[1] == (ROOT / "docs/examples/redis" / path).read_text()


def test_the_readme_shows_the_whole_example() -> None:
    shown = {"profile.yaml", "image/Dockerfile", "files/redis.conf.j2"}
    folder = ROOT / "docs/examples/redis"
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == shown


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs/project.md"], ids=lambda page: page.name)
def test_project_files_in_the_docs_are_valid(page: Path, tmp_path: Path) -> None:
    found = [b for b in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL) if "\nclusters:" in b]
    assert found
    for text in found:
        (tmp_path / "minicluster.yaml").write_text(text)
        project = load(tmp_path / "minicluster.yaml", environment={})
        for it in project.clusters.values():
            for path in it.apply:
                Path(path).mkdir(parents=True, exist_ok=True)
            definition.check(project, it.name)


def test_what_is_generated_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/update-docs"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nRun scripts/update-docs."


CLIENTS = ("consul", "docker", "etcdctl", "kubectl", "zkCli")
GROUPS = ("bench", "engine", "fault", "hosts", "image", "mesos", "profile", "workshop")


def test_the_readme_names_every_command() -> None:
    table = README.partition("## Commands")[2].partition("\n## ")[0]
    assert isinstance(app, click.Group)
    shown = app.list_commands(click.Context(app))
    assert {"up", "mesos"} <= set(shown)
    named = [re.findall(r"`([^`]+)`", row.split(" | ")[0]) for row in table.splitlines() if row.startswith("| `")]
    # A row of a group begins with the group's name; its other words are subcommands.
    alone = {words.split()[0] for row in named if row[0].split()[0] not in GROUPS for words in row}
    assert set(shown) <= alone | {row[0].split()[0] for row in named}


def command_lines() -> list[str]:
    """Each line of a shell example that is a minicluster command."""
    blocks = [block for page in PAGES for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)]
    return sorted({line for block in blocks for line in block.splitlines() if line.startswith("minicluster ")})


@pytest.mark.parametrize("line", command_lines())
def test_a_command_line_is_parsed(line: str) -> None:
    words = shlex.split(re.split(r"[>|;&]", line)[0], comments=True)[1:]
    context, command = click.Context(app), app
    if words and words[0] in CLIENTS:
        return  # all arguments are the client's own
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words.pop(0))
        assert found is not None
        command = found
    with contextlib.suppress(click.exceptions.Exit):  # of --help
        command.make_context("x", words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    # Code is no Markdown: what looks like a link there is none.
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        to = page.parent / name if name else page
        assert to.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(to), f"{page.name}: {target}"


def test_the_picture_fetches_nothing() -> None:
    text = (ROOT / "docs/terminal.svg").read_text()
    root = ElementTree.fromstring(text)
    for element in root.iter():
        for name, value in element.attrib.items():
            assert not name.endswith("href"), f"{element.tag} refers to {value}"
    assert "url(" not in text.replace("url(#", "")
    assert "@import" not in text
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)\S+", text) == []


def test_after_quickstart_the_tour_can_be_typed() -> None:
    """Both leave their services on the same Swarm."""
    made = r"docker service create --name (\S+)"
    quickstart = Path(__file__).parents[2] / "quickstart"
    assert not set(re.findall(made, quickstart.read_text())) & set(re.findall(made, README))
