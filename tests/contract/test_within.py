"""Within containers: commands, logs, files, events."""

from __future__ import annotations

import io
import tarfile
import threading
import time
from collections.abc import Iterator

import pytest

from minicluster.engine.protocol import Cancel, ExecResult, File, PathStat
from minicluster.errors import EngineError, Interrupted, NodeFailed, NotFound
from minicluster.model.labels import CLUSTER
from tests.contract.conftest import World, wait
from tests.fakes import Hang


def tar(*entries: tuple[str, bytes | None]) -> Iterator[bytes]:
    """A tar of files, and of folders, which have no content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.mode = 0o755
            if content is None:
                entry.type = tarfile.DIRTYPE
            entry.size = len(content or b"")
            archive.addfile(entry, io.BytesIO(content or b""))
    return iter([buffer.getvalue()])


def names(data: bytes) -> dict[str, bytes | None]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        files = {entry.name: archive.extractfile(entry) for entry in archive}
        return {name: file.read() if file else None for name, file in files.items()}


# Commands


def test_what_a_command_returns(world: World) -> None:
    name = world.running()
    result = ExecResult(3, "out\n", "err\n")
    argv = world.command("sh", "-c", "echo out; echo err >&2; exit 3", result=result)
    assert world.engine.exec(name, argv) == result
    assert world.engine.exec(name, world.command("true", result=ExecResult(0, "", "")), timeout=60).exit_code == 0


def test_a_command_that_does_not_end(world: World) -> None:
    name = world.running()
    argv = world.command("sleep", "100", result=Hang())
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        world.engine.exec(name, argv, timeout=0.3)
    assert 0.3 <= time.monotonic() - started < 10
    cancel = Cancel()
    threading.Timer(0.3, cancel.set).start()
    with pytest.raises(Interrupted):
        world.engine.exec(name, argv, timeout=60, cancel=cancel)
    with pytest.raises(Interrupted):
        world.engine.exec(name, world.command("true", result=ExecResult(0, "", "")), cancel=cancel)


def test_a_command_where_none_can_run(world: World) -> None:
    name, true = world.container(), world.command("true", result=ExecResult(0, "", ""))
    with pytest.raises(NodeFailed):
        world.engine.exec(name, true)
    world.engine.start_container(name)
    world.engine.pause_container(name)
    with pytest.raises(NodeFailed):
        world.engine.exec(name, true)
    world.engine.kill_container(name)
    with pytest.raises(NodeFailed):
        world.engine.exec(name, true)
    with pytest.raises(NotFound):
        world.engine.exec(world.name("none"), true)


def test_the_clients_command(world: World) -> None:
    argv, env = world.engine.exec_argv("c", ["sh", "-c", "x"], tty=True, stdin=True)
    assert argv[-4:] == ["c", "sh", "-c", "x"]
    assert all(isinstance(value, str) for value in env.values())


# Logs


def test_logs(world: World) -> None:
    name = world.ended(says="one\ntwo\nthree")
    assert list(world.engine.logs(name)) == [b"one", b"two", b"three"]
    assert list(world.engine.logs(name, tail=2)) == [b"two", b"three"]
    assert list(world.engine.logs(name, tail=0)) == []
    assert list(world.engine.logs(name, follow=True)) == [b"one", b"two", b"three"]


def test_following_a_log_ends_with_the_container(world: World) -> None:
    name = world.running()
    lines: list[bytes] = []
    thread = threading.Thread(target=lambda: lines.extend(world.engine.logs(name, follow=True)), daemon=True)
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    world.engine.kill_container(name)
    thread.join(20)
    assert not thread.is_alive()
    assert lines == []


# Files


@pytest.mark.parametrize("runs", [False, True])
def test_files_are_written_and_read(world: World, runs: bool) -> None:
    engine, name = world.engine, world.running() if runs else world.container()
    engine.put_files(name, [File("/opt/x/y/file", b"one", 0o600), File("/opt/x/empty", b"")])
    engine.put_archive_file(name, "/opt/x/large", iter([b"ab", b"c" * 1000]), 1002)
    assert engine.get_file(name, "/opt/x/y/file") == b"one"
    assert engine.get_file(name, "/opt/x/empty") == b""
    assert engine.get_file(name, "/opt/x/large") == b"ab" + b"c" * 1000
    engine.put_files(name, [File("/opt/x/y/file", b"two")])
    assert engine.get_file(name, "/opt/x/y/file") == b"two"
    assert engine.stat_path(name, "/opt/x/y/file") == PathStat("/opt/x/y/file", "file")
    assert engine.stat_path(name, "/opt/x/y") == PathStat("/opt/x/y", "folder")
    assert engine.stat_path(name, "/opt/x/none") is None


def test_files_that_cannot_be_read(world: World) -> None:
    engine, name = world.engine, world.container()
    engine.put_files(name, [File("/opt/x/file", b"one")])
    for path in ("/opt/none", "/opt/x"):  # a folder is not read as one of its files
        with pytest.raises(NotFound):
            engine.get_file(name, path)
    with pytest.raises(NotFound):
        next(engine.read_archive(name, "/opt/none"))


def test_links_are_followed(world: World) -> None:
    engine, name = world.engine, world.container()
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/opt/x/file"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(link)
    engine.put_files(name, [File("/opt/x/file", b"one")])
    engine.write_archive(name, "/opt/x", iter([buffer.getvalue()]))
    assert engine.stat_path(name, "/opt/x/link") == PathStat("/opt/x/file", "file")
    assert engine.get_file(name, "/opt/x/link") == b"one"


def test_archives(world: World) -> None:
    engine, name = world.engine, world.container()
    engine.put_files(name, [File("/opt/x/file", b"one")])
    engine.write_archive(name, "/opt/x", tar(("sub", None), ("sub/file", b"two")))
    assert names(b"".join(engine.read_archive(name, "/opt/x"))) == {
        "x": None,
        "x/file": b"one",
        "x/sub": None,
        "x/sub/file": b"two",
    }
    assert names(b"".join(engine.read_archive(name, "/opt/x/file"))) == {"file": b"one"}


def test_archives_that_cannot_be_unpacked(world: World) -> None:
    engine, name = world.engine, world.container()
    engine.put_files(name, [File("/opt/x/file", b"one"), File("/opt/x/sub/file", b"two")])
    with pytest.raises(NotFound):
        engine.write_archive(name, "/opt/none", tar(("file", b"")))
    for folder, entry in (
        ("/opt/x/file", ("file", b"")),
        ("/opt/x", ("sub", b"a file where a folder is")),
        ("/opt/x", ("file", None)),
    ):
        with pytest.raises(EngineError) as caught:
            engine.write_archive(name, folder, tar(entry))
        assert not isinstance(caught.value, NotFound)
    assert engine.get_file(name, "/opt/x/file") == b"one"
    assert engine.get_file(name, "/opt/x/sub/file") == b"two"


def test_files_of_a_container_that_does_not_exist(world: World) -> None:
    engine, none = world.engine, world.name("none")
    for call in (
        lambda: engine.put_files(none, [File("/x", b"")]),
        lambda: engine.put_archive_file(none, "/x", iter([b"1"]), 1),
        lambda: engine.get_file(none, "/etc/hosts"),
        lambda: engine.stat_path(none, "/etc"),
        lambda: next(engine.read_archive(none, "/etc")),
        lambda: engine.write_archive(none, "/etc", tar(("x", b""))),
    ):
        with pytest.raises(NotFound):
            call()


# Events


def test_the_events_of_a_cluster(world: World) -> None:
    engine = world.engine
    with world.events() as heard:
        engine.create_volume(world.name("v"), world.labels(x="1"))
        name = world.running(volumes={"/data": world.name("v")}, labels=world.labels(x="2"))
        engine.pause_container(name)
        time.sleep(0.5)  # Docker tells a pause and its end twice where they are milliseconds apart
        engine.start_container(name)
        time.sleep(0.5)
        engine.kill_container(name)
        engine.start_container(name)
        engine.stop_container(name)
        engine.remove_container(name)
        engine.remove_network(world.name("net"))
        engine.remove_volume(world.name("v"))
        heard.wait_for("volume", "destroy")
        heard.wait_for("network", "destroy")
        heard.wait_for("container", "destroy")
        wait(lambda: heard.of("container").count("stop") == 1)
    actions = [action for action in heard.of("container") if action != "kill"]
    assert actions == ["create", "start", "pause", "unpause", "die", "start", "die", "stop", "destroy"]
    assert heard.of("network") == ["create", "connect", "disconnect", "connect", "disconnect", "destroy"]
    assert heard.of("volume") == ["create", "destroy"]
    about = {(e.kind, e.action): e for e in reversed(heard.seen)}
    assert about["container", "kill"].detail == {"signal": "SIGKILL"}
    assert about["container", "die"].detail == {"exit_code": 137}
    assert about["container", "die"].name == name
    assert about["container", "die"].labels.items() >= world.labels(x="2").items()
    assert about["network", "connect"].name == world.name("net")
    assert about["network", "connect"].labels.items() >= world.labels(x="2").items()
    assert about["network", "create"].labels == {}
    assert about["volume", "create"].name == world.name("v")
    assert about["volume", "destroy"].labels == world.labels(x="1")
    assert [e.time for e in heard.seen] == sorted(e.time for e in heard.seen)


def test_events_of_others_are_not_told(world: World) -> None:
    with world.events() as heard:
        engine = world.engine
        engine.create_volume(world.name("o"), {CLUSTER: f"{world.key}-2"})
        engine.create_volume(world.name("v"), world.labels())
        engine.remove_volume(world.name("o"))
        heard.wait_for("volume", "create")
    assert {event.name for event in heard.seen} == {world.name("v")}


def test_events_of_connecting(world: World) -> None:
    engine, name, second = world.engine, world.running(), world.network("second")
    with world.events() as heard:
        engine.connect_network(second, name)
        engine.connect_network(second, name)
        engine.disconnect_network(second, name)
        heard.wait_for("network", "disconnect")
    assert [(e.action, e.name) for e in heard.seen] == [("connect", second), ("disconnect", second)]


def test_events_since(world: World) -> None:
    since = time.time()
    world.engine.create_volume(world.name("v"), world.labels())
    with world.events(since=since) as heard:
        assert heard.wait_for("volume", "create").name == world.name("v")
