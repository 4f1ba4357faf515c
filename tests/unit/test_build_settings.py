"""This machine's settings for builds: which are found, and what reaches an image."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from minicluster.engine import base_image, build_settings
from minicluster.engine.protocol import Cancel, ImageBuild
from minicluster.errors import UsageError
from minicluster.model.events import Event
from minicluster.operations import images
from tests.fakes import FakeEngine
from tests.unit.samples import LEAST

Write = Callable[..., Path]

OLD = """\
# deb http://ignored.example/debian trixie main
deb [arch=amd64] http://mirror.example/debian/ trixie main contrib
deb http://mirror.example/security trixie-security main
deb https://other.example/apt trixie stable
"""
NEW = """\
Types: deb deb-src
# a comment
URIs: http://mirror.example/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/security
Suites: trixie-security
Components: main
"""


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration of a machine with Debian 13."""
    folder = tmp_path / "etc"
    (folder / "apt" / "sources.list.d").mkdir(parents=True)
    (folder / "os-release").write_text('ID=debian\nVERSION_CODENAME="trixie"\n')
    monkeypatch.setattr(build_settings, "_ETC", folder)
    return folder


def test_the_machines_mirror_is_that_of_its_release(etc: Path) -> None:
    assert build_settings.debian_mirror() == ("", "")
    (etc / "apt" / "sources.list").write_text(OLD)
    assert build_settings.debian_mirror() == ("http://mirror.example/debian", "http://mirror.example/security")
    (etc / "apt" / "sources.list").unlink()
    (etc / "apt" / "sources.list.d" / "debian.sources").write_text(NEW)
    assert build_settings.debian_mirror() == ("http://mirror.example/debian", "http://mirror.example/security")
    (etc / "os-release").write_text('ID=ubuntu\nVERSION_CODENAME="trixie"\n')
    assert build_settings.debian_mirror() == ("", "")


@pytest.mark.parametrize(
    "text",
    [
        NEW.replace("mirror.example", "deb.debian.org"),
        NEW.replace("Types: deb", "Types: deb-src", 1).replace("deb-src deb-src", "deb-src"),
        "Enabled: no\n" + NEW,
        NEW.replace("http://mirror.example", "file:/srv"),
        NEW.replace("http://mirror.example", "http://me:secret@mirror.example"),
    ],
)
def test_sources_that_are_no_mirror_for_builds(etc: Path, text: str) -> None:
    (etc / "apt" / "sources.list.d" / "debian.sources").write_text(text)
    assert build_settings.debian_mirror()[0] == ""


def test_the_variable_goes_first(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (etc / "apt" / "sources.list").write_text(OLD)
    monkeypatch.setenv("MINICLUSTER_DEBIAN_MIRROR", "https://a.example/debian")
    assert build_settings.debian_mirror() == ("https://a.example/debian", "")
    monkeypatch.setenv("MINICLUSTER_DEBIAN_MIRROR", "https://a.example/debian https://a.example/security")
    assert build_settings.debian_mirror() == ("https://a.example/debian", "https://a.example/security")


@pytest.mark.parametrize(
    "value", ["mirror.example/debian", "ftp://a/b", "http://me:secret@a/debian", "http://a http://b c"]
)
def test_mirrors_that_are_refused(etc: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MINICLUSTER_DEBIAN_MIRROR", value)
    with pytest.raises(UsageError) as refused:
        build_settings.debian_mirror()
    assert "secret" not in str(refused.value)


STAGES = """\
ARG BASE
FROM ${BASE} AS build
ARG PIP_INDEX_URL
arg GOPROXY
RUN pip download --cert /etc/minicluster/authorities.pem it
from ${BASE}
ARG GOFLAGS
COPY --from=build /it /
"""


NO = dict[str, str]()


def test_an_argument_reaches_only_stages_that_leave_no_history(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_INDEX_URL", "GOPROXY", "GOFLAGS", "GOSUMDB"):
        monkeypatch.setenv(name, f"of {name}")
    passed, refused = build_settings.arguments(STAGES, NO)
    assert passed == {"PIP_INDEX_URL": "of PIP_INDEX_URL", "GOPROXY": "of GOPROXY"}
    assert refused == ["GOFLAGS"]
    for text in ("FROM x\n", "ARG GOPROXY\nFROM x\nRUN y\n", "", "ARG GOPROXY\n"):
        assert build_settings.arguments(text, NO) == ({}, [])


@pytest.mark.parametrize(
    "text",
    [
        "FROM x AS build\nARG GOPROXY\nRUN y\nFROM build\nRUN z\n",
        "FROM x AS Build\nARG GOPROXY\nFROM BUILD AS more\nFROM z\nFROM --platform=linux/amd64 more\n",
        "ARG ON=build\nFROM x AS build\nARG GOPROXY\nFROM z\nFROM ${ON}\n",
        "ARG OF=build\nARG ON=$OF\nFROM x AS build\nARG GOPROXY\nFROM $ON\n",
        "FROM x AS build\nARG GOPROXY\nFROM ${ON:-build}\n",  # what that is, is not told
        "FROM x\nARG GOPROXY\nFROM ${ON:-build}\n",
        "FROM x\nARG A GOPROXY\n",
        'FROM x\nARG A="b c" \\\n    # a comment\n\n    GOPROXY=d\n',
        "FROM x\nARG GO\\\nPROXY\n",
        "FROM x\r\nARG GOPROXY \\\r\n",
        "FROM x\nARG GOPROXY\nRUN copy \\\n  from y \\\n  to z\n",
        "FROM x\nRUN copy \\  \n  from y\nARG GOPROXY\n",
    ],
)
def test_what_the_last_stage_is_built_on_counts_as_the_last(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("GOPROXY", "secret")
    assert build_settings.arguments(text, NO) == ({}, ["GOPROXY"])


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("FROM x AS build\nARG A GOPROXY\nFROM build2\n", NO),
        ("ARG ON=build\nFROM x AS build\nARG GOPROXY\nFROM ${ON}\n", {"ON": "debian"}),
        ("ARG BASE\nFROM ${BASE} AS build\nARG GOPROXY\nFROM ${BASE}\n", {"BASE": "debian:trixie-slim"}),
        ("FROM build AS build\nFROM x AS y\nARG GOPROXY\nFROM build\n", NO),
    ],
)
def test_a_stage_that_the_last_is_not_built_on_gets_an_argument(
    monkeypatch: pytest.MonkeyPatch, text: str, given: dict[str, str]
) -> None:
    monkeypatch.setenv("GOPROXY", "secret")
    assert build_settings.arguments(text, given) == ({"GOPROXY": "secret"}, [])


def test_a_proxy_is_kept_from_a_build_that_would_have_it_in_the_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine leaves proxies out of it only while they are not declared."""
    monkeypatch.setenv("https_proxy", "secret")
    both = {"HTTPS_PROXY": "secret", "https_proxy": "secret"}
    assert build_settings.arguments("ARG HTTPS_PROXY\nFROM x\n", NO) == (both, [])
    assert build_settings.arguments("FROM x\nARG HTTPS_PROXY\nFROM y\n", NO) == (both, [])
    last = "FROM x AS build\nARG HTTPS_PROXY\nFROM build\n"
    assert build_settings.arguments(last, NO) == ({"https_proxy": "secret"}, ["HTTPS_PROXY"])


def test_a_build_gets_the_mirror_by_its_base_and_settings_by_arguments(
    engine: FakeEngine, write_profile: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = write_profile(LEAST.replace("image: example/node", "build: image"), {"image/Dockerfile": STAGES})
    engine.every_image = False
    engine.import_image([], base_image.REGISTRY)
    (usual,) = images.build(str(folder), engine=engine)
    engine.remove_image(usual)
    engine.builds.clear()
    (tmp_path / "authorities.pem").write_text("of this firm")
    settings = {
        "MINICLUSTER_DEBIAN_MIRROR": "http://mirror.example/debian",
        "REQUESTS_CA_BUNDLE": str(tmp_path / "authorities.pem"),
        "https_proxy": "http://proxy.example:3128",
        "PIP_INDEX_URL": "https://index.example",
        "GOFLAGS": "-v",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    heard: list[Event] = []
    assert images.build(str(folder), engine=engine, listener=heard.append) == [usual]  # settings are not in its name
    base, node = engine.builds
    assert base[2] == {"BASE": base_image.REGISTRY}
    assert node[2] == {
        "BASE": base[1],
        "PIP_INDEX_URL": "https://index.example",
        "HTTPS_PROXY": "http://proxy.example:3128",
        "https_proxy": "http://proxy.example:3128",
    }
    assert [event.text for event in heard if event.kind == "note"] == [
        "GOFLAGS is not passed to the build of image node: the last stage's history would keep it. "
        "Declare it only in a stage that the last one is not built on."
    ]
    assert engine.contents[base[1]]["etc/minicluster/authorities.pem"] == b"of this firm"
    assert b"http://mirror.example/debian trixie main" in engine.contents[base[1]]["etc/apt/minicluster/debian.list"]
    images.build(str(folder), force=True, engine=engine)
    assert len(engine.builds) == 3  # the base is there


def test_authorities_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(UsageError, match=r"none\.pem cannot be read"):
        build_settings.read_bundle()


def test_files_of_the_base_do_not_have_the_users_umask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINICLUSTER_DEBIAN_MIRROR", "http://mirror.example/debian")
    engine, modes = FakeEngine(), {}

    def build(wanted: ImageBuild, *_more: object) -> None:
        for path in wanted.directory.rglob("etc/**/*"):
            modes[path.name] = path.stat().st_mode & 0o777

    monkeypatch.setattr(engine, "build_image", build)
    engine.every_image = False
    engine.import_image([], base_image.REGISTRY)
    before = os.umask(0o077)
    try:
        base_image.provide(engine, lambda _line: None, lambda _line: None, Cancel())
    finally:
        os.umask(before)
    assert {name: modes[name] for name in ("apt", "minicluster", "debian.list", "00minicluster")} == {
        "apt": 0o755,
        "minicluster": 0o755,
        "debian.list": 0o644,
        "00minicluster": 0o644,
    }
