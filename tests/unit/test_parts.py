"""Parts of node images: which version, from which source, and what is refused."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from minicluster.engine.protocol import Cancel, Image
from minicluster.errors import ImageError, Interrupted, UsageError
from minicluster.model import labels
from minicluster.model.naming import PART_CACHE
from minicluster.model.spec import PartSpec
from minicluster.parts import download
from minicluster.parts.provide import provide
from minicluster.profile import folders, parts
from tests.fakes import FakeEngine
from tests.https_server import Handler, Server, serving


def program(machine: int = 0x3E) -> bytes:
    """The beginning of an ELF file; by default for amd64."""
    return b"\x7fELF" + bytes(14) + machine.to_bytes(2, "little") + b"the program"


def archive(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"store-2.1.0/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


RELEASE = archive(store=program(), README=b"text")
SUM = hashlib.sha256(RELEASE).hexdigest()

PART = """
summary: a store
license: MIT
home: https://example.org
default: v2.1.0
supported: v2\\.\\d+\\.\\d+
sources:
  release:
    url: "{url}/store-{{version}}-{{arch}}.tar.gz"
    checksum: "{url}/SUMS"
    files: {{"store-{{number}}/store": usr/local/bin/store}}
  go:
    module: example.org/store
    programs: {{store: .}}
    links: {{storectl: store}}
    ldflags: "-X main.v={{version}} {{minor}}"
  debian: {{packages: [store-server], programs: [store]}}
  image: {{ref: "example/store:{{version}}", files: {{/store: usr/local/bin/store}}}}
versions:
  v2.2.3: {{sources: [go]}}
  v2.2.0: {{sources: [go, image]}}
  v2.1.0: {{sources: [release, go], sha256: {{amd64: {sum}}}, with: {{tool: 1.7.0}}}}
  v2.0.9: {{sources: [debian]}}
"""
TOOL = """
summary: a tool
license: MIT
home: https://example.org
default: 2.0.0
supported: .*
sources: {debian: {packages: [tool], programs: [tool]}}
versions: {2.0.0: {sources: [debian]}, 1.7.0: {sources: [debian]}}
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving(tmp_path) as found:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        monkeypatch.setattr(download, "CONNECT_PATIENCE", 0.5)
        yield found


@pytest.fixture(autouse=True)
def root(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of parts: a store, and a tool that belongs to it."""
    for name in ("_build", "store/v2.1.0", "store/v2.2.0", "store/v2.2.3", "tool"):
        (tmp_path / "_parts" / name).mkdir(parents=True)
    for name in ("job", "go", "debian", "Dockerfile"):
        (tmp_path / "_parts" / "_build" / name).write_text(name)
    write(tmp_path, PART.format(url=server.url, sum=SUM))
    (tmp_path / "_parts" / "tool" / "part.yaml").write_text(TOOL)
    (tmp_path / "_parts" / "store" / "main.go").write_text("package main")
    for version in ("v2.1.0", "v2.2.0", "v2.2.3"):
        (tmp_path / "_parts" / "store" / version / "go.mod").write_text(f"module store // {version}")
    monkeypatch.setattr(folders, "bundled_directory", lambda: tmp_path)
    parts.load.cache_clear()
    yield tmp_path
    parts.load.cache_clear()


def write(root: Path, text: str) -> None:
    (root / "_parts" / "store" / "part.yaml").write_text(text)
    parts.load.cache_clear()


@pytest.fixture
def engine() -> FakeEngine:
    found = FakeEngine()
    found.every_image = False
    found.refs["base"] = Image("base", ("base",), {}, 1, 0)
    return found


def store(version: str = "", source: str = "") -> PartSpec:
    return parts.resolve({"store": (version, source)}, ["store"], "store", {})["store"]


def get(engine: FakeEngine, spec: PartSpec, cancel: Cancel | None = None) -> tuple[str, list[str]]:
    """The origin of a part that is provided, and what was said meanwhile."""
    notes: list[str] = []
    origins = provide(engine, [spec], "base", lambda _line: None, notes.append, cancel or Cancel())
    return origins[spec.name], notes


# Versions


@pytest.mark.parametrize(
    ("wanted", "version"),
    [
        ("", "v2.1.0"),
        ("v2.0.9", "v2.0.9"),
        ("2.0.9", "v2.0.9"),
        ("2.2", "v2.2.3"),
        ("v2", "v2.2.3"),
        ("2.7.1", "v2.7.1"),
    ],
)
def test_the_beginning_of_a_version_chooses_the_newest(wanted: str, version: str) -> None:
    assert store(wanted).version == version


@pytest.mark.parametrize("wanted", ["3.0.0", "2.9", "latest", "v", "2.1.0.1"])
def test_other_versions_are_refused(wanted: str) -> None:
    with pytest.raises(UsageError, match=f"store {wanted} is not supported") as refused:
        store(wanted)
    assert "v2.2.3, v2.2.0, v2.1.0, v2.0.9" in refused.value.why


def test_the_main_part_says_which_versions_belong_to_it() -> None:
    def chosen(**wanted: str) -> dict[str, str]:
        found = parts.resolve({name: (v, "") for name, v in wanted.items()}, ["tool", "store"], "store", {})
        return {name: spec.version for name, spec in found.items()}

    assert chosen() == {"store": "v2.1.0", "tool": "1.7.0"}
    assert chosen(store="2.2") == {"store": "v2.2.3", "tool": "2.0.0"}
    assert chosen(tool="2") == {"store": "v2.1.0", "tool": "2.0.0"}


def test_the_image_is_another_one_only_when_what_the_version_is_made_of_changes(root: Path, server: Server) -> None:
    was = {version: store(version).ref for version in ("v2.1.0", "v2.2.3", "v2.0.9")}
    text = PART.format(url=server.url, sum=SUM)
    write(root, text.replace("versions:\n", "versions:\n  v2.3.0: {sources: [debian]}\n"))
    assert {version: store(version).ref for version in was} == was
    (root / "_parts/store/v2.2.3/go.mod").write_text("module store // another")
    assert [version for version, ref in was.items() if store(version).ref != ref] == ["v2.2.3"]
    write(root, text.replace("[store-server]", "[store]"))
    assert store("v2.0.9").ref != was["v2.0.9"]
    assert store("v2.1.0").ref == was["v2.1.0"]


# Releases


def serve_release(server: Server, content: bytes = RELEASE, version: str = "v2.1.0") -> None:
    server.answers[f"/store-{version}-amd64.tar.gz"] = content


def test_a_release_is_downloaded_and_unpacked(engine: FakeEngine, server: Server) -> None:
    serve_release(server)
    spec = store()
    assert get(engine, spec)[0] == "v2.1.0 (release)"
    assert engine.contents[spec.ref] == {"usr/local/bin/store": program()}
    about = engine.refs[spec.ref].labels
    assert about[labels.SOURCE] == "release"
    assert about[labels.LICENSE] == "MIT"
    assert labels.UNPINNED not in about
    assert server.asked == ["/store-v2.1.0-amd64.tar.gz"]
    get(engine, spec)
    assert len(server.asked) == 1  # it is there


def test_a_changed_release_is_refused(engine: FakeEngine, server: Server) -> None:
    serve_release(server, archive(store=program() + b"changed"))
    with pytest.raises(ImageError, match="is not the file that it should be") as refused:
        get(engine, store())
    assert SUM in refused.value.why
    assert not engine.jobs  # no other source takes its place
    assert store().ref not in engine.refs


def cut_short(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(RELEASE)))
    handler.end_headers()
    handler.wfile.write(RELEASE[:-10])


def silent(_handler: Handler) -> None:
    time.sleep(2)


def to_http(handler: Handler) -> None:
    handler.send_response(302)
    handler.send_header("Location", "http://127.0.0.1:1/store")
    handler.end_headers()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "answered 404"),
        (cut_short, "ended after"),
        (silent, "no answer within 0.5 s"),
        (to_http, "only https is accepted"),
    ],
)
def test_what_a_server_does_not_give_comes_from_the_next_source(
    engine: FakeEngine, server: Server, answer: object, reason: str
) -> None:
    if answer:
        server.answers["/store-v2.1.0-amd64.tar.gz"] = answer  # type: ignore[assignment]
    engine.works = lambda _job: (0, ["package 1 of 2"], {"usr/local/bin/store": b"compiled"})
    assert get(engine, store())[0] == "v2.1.0 (go)"
    with pytest.raises(ImageError, match="is not available from any source") as refused:
        get(engine, store(source="release"))
    assert reason in refused.value.why


def test_a_redirection_is_followed(engine: FakeEngine, server: Server) -> None:
    def elsewhere(handler: Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", f"{server.url}/mirror/store.tar.gz")
        handler.end_headers()

    server.answers["/store-v2.1.0-amd64.tar.gz"] = elsewhere
    server.answers["/mirror/store.tar.gz"] = RELEASE
    assert get(engine, store())[0] == "v2.1.0 (release)"


def test_a_server_that_cannot_be_reached_is_given_up_at_once(engine: FakeEngine, root: Path, server: Server) -> None:
    write(root, PART.format(url="https://127.0.0.1:1", sum=SUM))
    begun = time.monotonic()
    with pytest.raises(ImageError) as refused:
        get(engine, store(source="release"))
    assert "https://127.0.0.1:1/store-v2.1.0-amd64.tar.gz: Connection refused" in refused.value.why
    assert time.monotonic() - begun < 5


def test_a_mirror_takes_the_place_of_every_server(
    engine: FakeEngine, root: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root, PART.format(url="https://downloads.example.org/store", sum=SUM))
    monkeypatch.setenv(download.MIRROR, f"{server.url}/mirror/")
    server.answers["/mirror/downloads.example.org/store/store-v2.1.0-amd64.tar.gz"] = RELEASE
    assert get(engine, store())[0] == "v2.1.0 (release)"


def test_a_mirror_does_not_take_the_place_of_the_users_address(
    engine: FakeEngine, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(download.MIRROR, "https://127.0.0.1:1/mirror")
    server.answers |= {"/mine.tar.gz": RELEASE, "/mine.tar.gz.sha256": SUM.encode()}
    assert get(engine, store(source=f"{server.url}/mine.tar.gz"))[0].startswith("v2.1.0 (https://")
    server.answers["/mine.tar.gz.sha256"] = b"0" * 64
    other = store(source=f"{server.url}/mine.tar.gz?2")
    server.answers |= {"/mine.tar.gz?2": RELEASE, "/mine.tar.gz.sha256?2": b"0" * 64}
    with pytest.raises(ImageError, match=f"{server.url}/mine.tar.gz") as refused:
        get(engine, other)
    assert "mirror" not in str(refused.value) + refused.value.why


@pytest.mark.parametrize(
    "sums",
    [
        SUM,
        f"{SUM}\n",
        f"{'0' * 64}  other.tar.gz\n{SUM}  store-v2.7.1-amd64.tar.gz\n",
        f"{SUM} *./store-v2.7.1-amd64.tar.gz",
    ],
    ids=["alone", "a line", "named among others", "named with a folder"],
)
def test_a_version_that_is_not_listed_takes_the_published_checksum(
    engine: FakeEngine, server: Server, sums: str
) -> None:
    content = archive(store=program())
    sums = sums.replace(SUM, hashlib.sha256(content).hexdigest())
    serve_release(server, content, "v2.7.1")
    server.answers["/SUMS"] = sums.encode()
    write_number(server)
    origin, notes = get(engine, store("2.7.1"))
    assert origin == "v2.7.1 (release, unpinned)"
    assert "The checksum of store-v2.7.1-amd64.tar.gz is the one published beside it: it is not pinned." in notes


def write_number(server: Server) -> None:
    """The archive's folder is of another version: the description names it without one."""
    text = PART.format(url=server.url, sum=SUM).replace("store-{number}/store", "store-*/store")
    write(folders.bundled_directory(), text)


def test_a_release_without_a_checksum_is_not_taken(engine: FakeEngine, server: Server) -> None:
    serve_release(server, RELEASE, "v2.7.1")
    with pytest.raises(ImageError) as refused:
        get(engine, store("2.7.1"))
    assert "SUMS answered 404" in refused.value.why


def test_a_download_is_interrupted(engine: FakeEngine, server: Server) -> None:
    cancel = Cancel()

    def slowly(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(1 << 30))
        handler.end_headers()
        handler.wfile.write(b"x" * (1 << 20))
        cancel.set()
        time.sleep(1)

    server.answers["/store-v2.1.0-amd64.tar.gz"] = slowly
    with pytest.raises(Interrupted):
        get(engine, store(), cancel)
    assert not engine.contents


def test_a_download_that_stalls_is_interrupted_at_once(engine: FakeEngine, server: Server) -> None:
    cancel = Cancel()

    def stalls(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(1 << 30))
        handler.end_headers()
        handler.wfile.write(b"x" * 1000)
        threading.Timer(0.2, cancel.set).start()
        time.sleep(8)

    server.answers["/store-v2.1.0-amd64.tar.gz"] = stalls
    begun = time.monotonic()
    with pytest.raises(Interrupted):
        get(engine, store(), cancel)
    assert time.monotonic() - begun < 5


def test_a_download_that_stalls_is_given_up(
    engine: FakeEngine, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stalls(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(1 << 30))
        handler.end_headers()
        time.sleep(2)

    monkeypatch.setattr(download, "STALL_PATIENCE", 0.7)
    server.answers["/store-v2.1.0-amd64.tar.gz"] = stalls
    with pytest.raises(ImageError) as refused:
        get(engine, store(source="release"))
    assert "no answer within 0.7 s" in refused.value.why


# What the user gives


@pytest.mark.parametrize("kind", ["tar", "zip", "program"])
def test_an_archive_or_a_program_of_the_users(engine: FakeEngine, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "given"
    if kind == "tar":
        file.write_bytes(RELEASE)
    elif kind == "zip":
        with zipfile.ZipFile(file, "w") as made:
            made.writestr("store-2.1.0/store", program())
    else:
        file.write_bytes(program())
    spec = store(source=str(file))
    assert get(engine, spec)[0] == f"v2.1.0 ({file}, unpinned)"
    assert engine.contents[spec.ref] == {"usr/local/bin/store": program()}


@pytest.mark.parametrize(
    ("said", "refused"),
    [
        (["store version v2.1.0 (linux)"], ""),
        (["a library v1", "store v2.1.0-dirty+abc"], ""),
        (["unknown"], ""),
        (["store 2.1.01"], "2.1.01"),
        (["store/v2 v2.2.3"], "2.2.3"),
    ],
)
def test_a_given_program_is_asked_for_its_version(
    engine: FakeEngine, server: Server, root: Path, tmp_path: Path, said: list[str], refused: str
) -> None:
    text = PART.format(url=server.url, sum=SUM).replace("sources:\n", "says: [store, --version]\nsources:\n", 1)
    write(root, text)
    (tmp_path / "given").write_bytes(RELEASE)
    engine.works = lambda _job: (0, said, {})
    spec = store(source=str(tmp_path / "given"))
    if refused:
        with pytest.raises(ImageError, match=f"has store {refused}, not v2.1.0") as error:
            get(engine, spec)
        assert f"--set store.version={refused}" in error.value.fix
        assert not engine.has_image(spec.ref)
    else:
        get(engine, spec)
    (job,) = engine.jobs
    assert job.command == ("/build/job", "/build/program", "--version")
    assert not engine.boxes


def test_a_given_file_may_be_gone_once_nodes_have_it(tmp_path: Path) -> None:
    file = tmp_path / "given"
    file.write_bytes(RELEASE)
    had = store(source=str(file))
    file.write_bytes(RELEASE + b"another")
    assert parts.resolve({"store": ("", str(file))}, ["store"], "store", {"store": had})["store"] != had
    file.unlink()
    assert parts.resolve({"store": ("", str(file))}, ["store"], "store", {"store": had})["store"] == had
    with pytest.raises(UsageError, match="cannot read"):
        store(source=str(file))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (archive(store=program(0xB7)), "store is a program for arm64, and the engine's machine is amd64"),
        (archive(other=program()), "is not a release of store v2.1.0"),
        (b"not an archive", "cannot be unpacked"),
        (RELEASE[:-20], "cannot be unpacked"),
        (RELEASE[:30] + b"\xff\x00\xff" + RELEASE[33:], "cannot be unpacked"),
    ],
    ids=["of another machine", "without the program", "no archive", "cut off", "damaged"],
)
def test_a_file_that_is_no_release_is_refused(engine: FakeEngine, tmp_path: Path, content: bytes, what: str) -> None:
    file = tmp_path / "given"
    file.write_bytes(content)
    with pytest.raises(ImageError, match=what):
        get(engine, store(source=str(file)))
    assert not engine.refs.keys() & {store(source=str(file)).ref}


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("maven", "store has no source maven"),
        ("http://example.org/x", "only https is accepted"),
        ("nosuch", "'nosuch' is not a source of store"),
        ("/nowhere/x.tar.gz", "cannot read /nowhere/x.tar.gz"),
        ("/etc", "cannot read /etc"),
    ],
)
def test_bad_sources_are_refused(source: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        store(source=source)


@pytest.mark.parametrize(
    ("files", "content", "what"),
    [
        ('{"lib/*.jar": usr/share/java/}', program(), "is one program, which store is not"),
        ("{a: usr/bin/a, b: usr/bin/b}", program(), "is one program, which store is not"),
        ('{"": usr/local/bin/store}', RELEASE, "is not a release of store v2.1.0"),
    ],
    ids=["jars", "several programs", "an archive for a program"],
)
def test_what_would_leave_a_part_empty_is_refused(
    engine: FakeEngine, root: Path, server: Server, tmp_path: Path, files: str, content: bytes, what: str
) -> None:
    text = PART.format(url=server.url, sum=SUM)
    write(root, text.replace('{"store-{number}/store": usr/local/bin/store}', files))
    file = tmp_path / "given"
    file.write_bytes(content)
    spec = store(source=str(file))
    with pytest.raises(ImageError, match=what):
        get(engine, spec)
    assert spec.ref not in engine.refs


@pytest.mark.parametrize("version", ["v2.0.9", "2.7.1"])
def test_what_no_module_is_known_of_is_not_compiled(version: str) -> None:
    with pytest.raises(UsageError, match="is not listed with that source") as refused:
        store(version, source="go")
    assert refused.value.why == "What its modules are is known only of v2.2.3, v2.2.0, v2.1.0."


def test_an_address_needs_its_checksum_beside_it(engine: FakeEngine, server: Server) -> None:
    server.answers["/mine.tar.gz"] = RELEASE
    spec = store(source=f"{server.url}/mine.tar.gz")
    with pytest.raises(ImageError, match="cannot be fetched") as refused:
        get(engine, spec)
    assert f"{server.url}/mine.tar.gz.sha256" in refused.value.fix
    server.answers["/mine.tar.gz.sha256"] = SUM.encode()
    assert get(engine, spec)[0].startswith("v2.1.0 (https://")


# Jobs


def test_a_part_is_compiled_in_a_container_with_this_machines_settings(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOPROXY", "https://goproxy.example.org")
    monkeypatch.setenv("HTTPS_PROXY", "http://secret@proxy.example.org")
    engine.works = lambda _job: (0, [], {"usr/local/bin/store": b"compiled"})
    spec = store("2.2.3")
    assert get(engine, spec)[0] == "v2.2.3 (go)"
    (job,) = engine.jobs
    wanted = {"GOPROXY": "https://goproxy.example.org", "HTTPS_PROXY": "http://secret@proxy.example.org"}
    wanted |= {"PROGRAMS": "store=.", "LINKS": "storectl=store", "LDFLAGS": "-X main.v=v2.2.3 2", "CGO_ENABLED": "0"}
    assert wanted.items() <= job.env.items()
    assert {"/part/main.go", "/part/go.mod", "/build/job", "/build/go", "/build/ca.pem"} == {f.path for f in job.files}
    assert job.volumes == {"/cache": PART_CACHE}
    assert engine.contents[spec.ref] == {"usr/local/bin/store": b"compiled"}
    assert "secret" not in str(engine.refs)
    assert not engine.boxes  # its container is gone


def test_a_compilation_that_fails_leaves_nothing_and_says_why(engine: FakeEngine) -> None:
    engine.works = lambda _job: (1, ["main.go:1:1: broken"], {})
    with pytest.raises(ImageError, match="is not available from any source") as refused:
        get(engine, store("2.2.3"))
    assert refused.value.why == "go: main.go:1:1: broken\nended with status 1"
    assert not engine.boxes
    assert store("2.2.3").ref not in engine.refs


def test_a_full_disk_is_no_reason_for_another_source(engine: FakeEngine) -> None:
    engine.works = lambda _job: (1, ["write /cache/x: No space left on device", "exit status 1"], {})
    with pytest.raises(ImageError, match="cannot be built: the disk is full") as refused:
        get(engine, store("2.2.3"))
    assert "write /cache/x" in refused.value.why
    assert len(engine.jobs) == 1


def test_debian_has_another_version(engine: FakeEngine) -> None:
    said = "minicluster-part: Debian has store-server 2.3-1, not v2.0.9"
    engine.works = lambda _job: (3, ["Reading package lists", said], {})
    with pytest.raises(ImageError) as refused:
        get(engine, store("2.0.9"))
    assert refused.value.why == "debian: Debian has store-server 2.3-1, not v2.0.9"


def test_an_image_gives_a_part(engine: FakeEngine) -> None:
    engine.registry.add("example/store:v2.2.0")
    engine.works = lambda _job: (1, ["no compiler"], {})
    with pytest.raises(ImageError) as refused:
        get(engine, store("2.2.0"))
    assert "image: example/store:v2.2.0 has no file /store" in refused.value.why
    assert not engine.boxes
    engine.contents["example/store:v2.2.0"] = {"store": program()}
    spec = store("2.2.0")
    assert get(engine, spec)[0] == "v2.2.0 (image example/store:v2.2.0)"
    assert engine.contents[spec.ref] == {"usr/local/bin/store": program()}
    assert not engine.boxes


def test_parts_are_refused_once_for_all(engine: FakeEngine) -> None:
    """The error of one ends the others."""
    engine.works = lambda job: (1, ["broken"], {}) if "store" in job.name else (0, [], {"usr/bin/tool": b""})
    found = parts.resolve({"store": ("2.2.3", "")}, ["store", "tool"], "store", {})
    with pytest.raises(ImageError, match=r"store v2\.2\.3 is not available"):
        provide(engine, list(found.values()), "base", lambda _line: None, lambda _text: None, Cancel())
    assert not engine.boxes


# Other versions in a cluster that exists


@pytest.mark.parametrize(
    ("upgrade", "allowed"),
    [
        ("any", ["2.1.0", "2.2.0", "2.2.5", "2.3.0", "2.4.0", "3.0.0"]),
        ("newer", ["2.2.0", "2.2.5", "2.3.0", "2.4.0", "3.0.0"]),
        ("next", ["2.2.0", "2.2.5", "2.3.0"]),
        ("none", ["2.2.3"]),
    ],
)
def test_which_versions_the_data_of_one_allows(root: Path, server: Server, upgrade: str, allowed: list[str]) -> None:
    text = PART.format(url=server.url, sum=SUM).replace("sources:\n", f"upgrade: {upgrade}\nsources:\n", 1)
    write(root, text)
    versions = ["2.1.0", "2.2.0", "2.2.3", "2.2.5", "2.3.0", "2.4.0", "3.0.0"]
    found = [version for version in versions if not parts.refused_change("store", "v2.2.3", f"v{version}")]
    assert found == sorted({*allowed, "2.2.3"})


def test_without_a_version_nodes_keep_theirs(root: Path, server: Server) -> None:
    had = store("2.2.0")
    assert parts.resolve({}, ["store"], "store", {"store": had})["store"] == had
    assert store().version == "v2.1.0"
    gone = PartSpec("store", "v0.9.0", "", "x")  # neither listed nor supported
    assert parts.resolve({}, ["store"], "store", {"store": gone})["store"].version == "v2.1.0"
