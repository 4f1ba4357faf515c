"""Copying between this machine and nodes, on an engine in memory."""

from __future__ import annotations

import io
import os
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from minicluster.cluster import Cluster
from minicluster.engine.protocol import File, PathStat
from minicluster.errors import EngineError, MiniclusterError, NodeFailed, UsageError
from minicluster.operations import copy_files
from tests.fakes import FakeEngine
from tests.unit.samples import TOY


@pytest.fixture
def cluster(engine: FakeEngine) -> Cluster:
    return Cluster.up(str(TOY), name="toy", engine=engine)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file, a script, a link and an empty folder."""
    made = tmp_path / "made"
    (made / "empty").mkdir(parents=True)
    (made / "a").write_text("aaa")
    (made / "run").write_text("#!/bin/sh\n")
    (made / "run").chmod(0o750)
    (made / "link").symlink_to("a")
    os.utime(made / "a", (1000, 1000))
    return made


def there(engine: FakeEngine, node: str, below: str) -> set[str]:
    box = engine.boxes[f"toy-{node}"]
    return {path for path in {*box.files, *box.folders, *box.links} if path.startswith(below)}


# Into nodes


@pytest.mark.parametrize(
    ("source", "to", "at"),
    [
        ("made", "/root", "/root/made"),  # a folder that is there: into it
        ("made/", "/root/", "/root/made"),
        ("made", "/root/new", "/root/new"),  # none is there: it becomes it
        ("made/.", "/root/new/", "/root/new"),
        ("made/.", "/root", "/root"),  # the content alone
        ("made", "root", "/root/made"),  # a node's paths begin at its root
    ],
)
def test_a_folder_goes_where_docker_cp_has_it(
    engine: FakeEngine, cluster: Cluster, folder: Path, source: str, to: str, at: str
) -> None:
    (copied,) = cluster.copy_to(f"{folder.parent}/{source}", "agent-1", to)
    assert there(engine, "agent-1", "/root") == {"/root", at, *(f"{at}/{n}" for n in ("a", "run", "link", "empty"))}
    assert (copied.node, copied.destination, copied.files, copied.bytes) == ("agent-1", f"agent-1:{at}", 3, 13)


@pytest.mark.parametrize(
    ("to", "at"), [("/root", "/root/a"), ("/root/", "/root/a"), ("/root/b", "/root/b"), ("/etc/old", "/etc/old")]
)
def test_a_file_goes_where_docker_cp_has_it(
    engine: FakeEngine, cluster: Cluster, folder: Path, to: str, at: str
) -> None:
    box = engine.boxes["toy-agent-1"]
    box.files["/etc/old"] = File("/etc/old", b"old")
    cluster.copy_to(folder / "a", "agent-1", to)
    assert box.files[at].content == b"aaa"


def test_modes_and_times_stay_and_the_owner_is_root(engine: FakeEngine, cluster: Cluster, folder: Path) -> None:
    cluster.copy_to(folder, "agent-1", "/root")
    entries = engine.boxes["toy-agent-1"].entries
    assert entries["/root/made/run"].mode == 0o750
    assert entries["/root/made/a"].mtime == 1000
    assert entries["/root/made/link"].linkname == "a"
    assert {(e.uid, e.gid, e.uname) for e in entries.values()} == {(0, 0, "root")}


def test_a_source_that_is_a_link_is_followed_and_so_is_a_destination(
    engine: FakeEngine, cluster: Cluster, folder: Path
) -> None:
    engine.boxes["toy-agent-1"].links["/work"] = "/root"
    cluster.copy_to(folder / "link", "agent-1", "/work")
    assert engine.boxes["toy-agent-1"].files["/root/link"].content == b"aaa"


def test_a_role_is_all_its_nodes(engine: FakeEngine, cluster: Cluster, folder: Path) -> None:
    assert [c.node for c in cluster.copy_to(folder / "a", "agent", "/root")] == ["agent-1", "agent-2"]
    assert "/root/a" in engine.boxes["toy-agent-1"].files
    assert "/root/a" in engine.boxes["toy-agent-2"].files
    assert "/root/a" not in engine.boxes["toy-master-1"].files


def test_what_is_neither_file_nor_folder_is_left_out(cluster: Cluster, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (copied,) = cluster.copy_to(folder, "agent-1", "/root")
    assert copied.left_out == (f"{folder / 'pipe'} (neither a file nor a folder)",)


@pytest.mark.parametrize(
    ("source", "to", "said"),
    [
        ("made/none", "agent-1:/root", "no such file: .*made/none"),
        ("made/a/", "agent-1:/root", "is not a folder"),
        ("made/a", "agent-1:/none/", "no such folder in agent-1: /none/"),
        ("made/a", "agent-1:/none/x", "no such folder in agent-1: /none"),
        ("made", "agent-1:/etc/conf", "/etc/conf of agent-1 is not a folder"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(
    engine: FakeEngine, cluster: Cluster, folder: Path, source: str, to: str, said: str
) -> None:
    engine.boxes["toy-agent-1"].files["/etc/conf"] = File("/etc/conf", b"")
    with pytest.raises(MiniclusterError, match=said):
        cluster.copy_to(folder.parent / source if source[-1] != "/" else f"{folder.parent}/{source}", *to.split(":"))
    assert engine.did("write_archive") == []


def test_one_node_of_a_role_that_cannot_take_it_is_known_before_anything_is_written(
    engine: FakeEngine, cluster: Cluster, folder: Path
) -> None:
    engine.boxes["toy-agent-1"].folders.add("/data")
    with pytest.raises(MiniclusterError, match="no such folder in agent-2: /data/"):
        cluster.copy_to(folder / "a", "agent", "/data/")
    assert engine.did("write_archive") == []


def test_a_node_must_be_there_but_need_not_run(engine: FakeEngine, cluster: Cluster, folder: Path) -> None:
    engine.stop_container("toy-agent-1")
    cluster.copy_to(folder / "a", "agent-1", "/root")
    assert "/root/a" in engine.boxes["toy-agent-1"].files
    engine.remove_container("toy-agent-1")
    with pytest.raises(NodeFailed, match="agent-1 is missing"):
        cluster.copy_to(folder / "a", "agent-1", "/root")
    with pytest.raises(UsageError, match="no node or role 'agend'"):
        cluster.copy_to(folder / "a", "agend", "/root")


# From nodes


@pytest.fixture
def filled(cluster: Cluster, folder: Path) -> Cluster:
    """Its agent-1 has the folder as /root/made."""
    cluster.copy_to(folder, "agent-1", "/root")
    return cluster


@pytest.mark.parametrize(
    ("source", "to", "at"),
    [
        ("/root/made", "out", "out/made"),
        ("/root/made", "out/new", "out/new"),
        ("/root/made/.", "out/new", "out/new"),
        ("/root/made/.", "out", "out"),
    ],
)
def test_a_folder_comes_back_as_it_went(
    filled: Cluster, tmp_path: Path, folder: Path, source: str, to: str, at: str
) -> None:
    (tmp_path / "out").mkdir()
    copied = filled.copy_from("agent-1", source, tmp_path / to)
    back = tmp_path / at
    assert sorted(p.name for p in back.iterdir()) == ["a", "empty", "link", "run"]
    assert (back / "a").read_text() == "aaa"
    assert (back / "a").stat().st_mtime == 1000
    assert (back / "run").stat().st_mode & 0o7777 == 0o750
    assert os.readlink(back / "link") == "a"
    assert (copied.files, copied.bytes, copied.left_out) == (3, 13, ())


def test_a_file_comes_as_it_is_called_or_as_it_is_told(filled: Cluster, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("a file that was there before")
    for to, at in (("", "a"), ("b", "b"), ("old", "old")):
        filled.copy_from("agent-1", "/root/made/a", f"{tmp_path}/{to}")
        assert (tmp_path / at).read_text() == "aaa"


def test_a_folder_is_merged_into_one_of_its_name(filled: Cluster, tmp_path: Path) -> None:
    (tmp_path / "out/made").mkdir(parents=True)
    (tmp_path / "out/made/mine").write_text("mine")
    (tmp_path / "out/made/a").write_text("before")
    filled.copy_from("agent-1", "/root/made", tmp_path / "out")
    assert (tmp_path / "out/made/mine").read_text() == "mine"
    assert (tmp_path / "out/made/a").read_text() == "aaa"
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["made"]


@pytest.mark.parametrize(
    ("source", "to", "said"),
    [
        ("/root/none", "out", "no such file in agent-1: /root/none"),
        ("/root/made/a/", "out", "/root/made/a/ of agent-1 is not a folder"),
        ("/root/made", "file", "is not a folder"),
        ("/root/made/a", "none/x", "no such folder: .*/none"),
        ("/root/made/a", "none/", "no such folder: .*/none/"),
        ("/root/made", "clash", "clash/made/a exists"),
    ],
)
def test_what_cannot_come_changes_nothing(filled: Cluster, tmp_path: Path, source: str, to: str, said: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "file").write_text("file")
    (tmp_path / "clash/made/a").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(MiniclusterError, match=said):
        filled.copy_from("agent-1", source, f"{tmp_path}/{to}")
    assert sorted(tmp_path.rglob("*")) == before


def test_only_one_node_can_be_copied_from(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="role agent has 2 nodes"):
        cluster.copy_from("agent", "/etc", tmp_path)


# A node that means ill


Send = Callable[..., None]


@pytest.fixture
def send(engine: FakeEngine, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Send:
    """Lets agent-1 answer with an archive of (name, kind, where a link leads) entries."""

    def answer(*entries: tuple[str, bytes, str], cut: int = 0) -> None:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, kind, link in entries:
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname, entry.mode = kind, link, 0o6755
                entry.size = 3 if kind == tarfile.REGTYPE else 0
                tar.addfile(entry, io.BytesIO(b"bad"))
        data = buffer.getvalue()[: cut or None]

        def read(container: str, path: str) -> Iterator[bytes]:
            yield data

        engine.boxes["toy-agent-1"].folders.add("/root/x")
        monkeypatch.setattr(engine, "read_archive", read)

    return answer


FOLDER = ("x", tarfile.DIRTYPE, "")


@pytest.mark.parametrize(
    "entries",
    [
        [FOLDER, ("x/../../evil", tarfile.REGTYPE, "")],
        [FOLDER, ("x/../evil", tarfile.DIRTYPE, "")],
        [FOLDER, ("x/l", tarfile.SYMTYPE, "../.."), ("x/l/evil", tarfile.REGTYPE, "")],
        [FOLDER, ("x/l", tarfile.SYMTYPE, "../.."), ("x/l/evil", tarfile.SYMTYPE, "/etc")],
        [FOLDER, ("x/h", tarfile.LNKTYPE, "x/../../../secret")],
        [FOLDER, ("x/a", tarfile.REGTYPE, ""), ("x/a", tarfile.REGTYPE, "")],
    ],
    ids=lambda entries: str(entries[-1][0]),
)
def test_nothing_is_written_outside_of_the_copy(
    cluster: Cluster, tmp_path: Path, send: Send, entries: list[tuple[str, bytes, str]]
) -> None:
    out = tmp_path / "a/b"
    out.mkdir(parents=True)
    (tmp_path / "secret").write_text("s")
    send(*entries)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(MiniclusterError):
        cluster.copy_from("agent-1", "/root/x", out)
    assert sorted(tmp_path.rglob("*")) == before


def test_links_that_lead_out_and_devices_are_left_out(cluster: Cluster, tmp_path: Path, send: Send) -> None:
    send(
        FOLDER,
        ("x/p", tarfile.DIRTYPE, ""),
        ("x/p/up", tarfile.SYMTYPE, ".."),
        ("x/sly", tarfile.SYMTYPE, "p/up/../y"),  # within by its letters, outside once p/up is followed
        ("x/slow", tarfile.SYMTYPE, "sly"),
        ("x/absolute", tarfile.SYMTYPE, "/etc/passwd"),
        ("x/null", tarfile.CHRTYPE, ""),
        ("x/good", tarfile.REGTYPE, ""),
        ("x/hard", tarfile.LNKTYPE, "x/good"),
    )
    copied = cluster.copy_from("agent-1", "/root/x", tmp_path)
    kept = {p.relative_to(tmp_path / "x").as_posix() for p in (tmp_path / "x").rglob("*")}
    assert kept - {"slow"} == {"p", "p/up", "good", "hard"}
    assert not (tmp_path / "x/slow").exists()
    assert {left.split()[0] for left in copied.left_out} - {"slow"} == {"x/null", "absolute", "sly"}
    assert (tmp_path / "x/good").stat().st_mode & 0o7777 == 0o755  # no set-user-ID bit comes along


def test_half_an_archive_leaves_nothing(cluster: Cluster, tmp_path: Path, send: Send) -> None:
    send(FOLDER, ("x/a", tarfile.REGTYPE, ""), ("x/b", tarfile.REGTYPE, ""), cut=1024 + 200)
    with pytest.raises(EngineError, match="cannot read /root/x of agent-1"):
        cluster.copy_from("agent-1", "/root/x", tmp_path / "y")
    assert list(tmp_path.iterdir()) == []


def test_an_error_ends_the_copies_to_all_nodes(
    engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only once everything is copied."""
    (tmp_path / "big").write_bytes(bytes(3 * copy_files._CHUNK))
    sent: list[int] = []
    first = threading.Event()

    def write(container: str, _folder: str, content: Iterator[bytes]) -> None:
        if container == "toy-agent-1":
            first.wait(10)
            raise MiniclusterError("the node is full")
        for piece in content:
            sent.append(len(piece))
            first.set()
            time.sleep(0.1)

    monkeypatch.setattr(engine, "write_archive", write)
    monkeypatch.setattr(engine, "stat_path", lambda *_: PathStat("/srv", "folder"))
    nodes = [("agent-1", "toy-agent-1"), ("agent-2", "toy-agent-2")]
    with pytest.raises(MiniclusterError, match="the node is full"):
        copy_files.to_nodes(engine, nodes, str(tmp_path / "big"), "/srv")
    assert sum(sent) < 3 * copy_files._CHUNK
