"""Workshops: equal clusters for seats, what each seat gets, and what is refused, on an engine in memory."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from minicluster import doctor, workshop
from minicluster.cli.app import app
from minicluster.errors import MiniclusterError, NoCluster, UsageError
from minicluster.operations import hand_out
from tests.fakes import FakeEngine
from tests.unit.samples import TOY

Do = Callable[..., Any]


@pytest.fixture
def do(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Do:
    """Runs a command on the fake engine, in an empty folder."""
    monkeypatch.setattr("minicluster.engine.discover.connect", lambda **_: engine)
    monkeypatch.chdir(tmp_path)

    def run(*words: str, code: int = 0) -> Any:
        done = CliRunner().invoke(app, words)
        assert done.exit_code == code, done.output
        return done

    return run


@pytest.fixture
def open_profile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The toy profile, with an endpoint that needs no login."""
    folder = tmp_path_factory.mktemp("profiles") / "toy"
    shutil.copytree(TOY, folder)
    file = folder / "profile.yaml"
    file.write_text(re.sub(r"api: \{port: 2376, ", 'api: {port: 2376, anyone: "do all", ', file.read_text()))
    return str(folder)


def up(do: Do, *words: str, seats: int = 2, code: int = 0) -> Any:
    return do("workshop", "up", str(TOY), "--seats", str(seats), "--size", "agent=1", *words, code=code)


def test_every_seat_is_an_ordinary_cluster_and_the_table_has_them(do: Do, engine: FakeEngine) -> None:
    lines = up(do, "-q").output
    assert lines == ""
    shown = do("workshop", "status").output.splitlines()
    assert [line.split()[:4] for line in shown] == [
        ["SEAT", "CLUSTER", "PHASE", "READY"],
        ["01", "toy-seat-01", "ready", "2/2"],
        ["02", "toy-seat-02", "ready", "2/2"],
    ]
    assert shown[1].split()[-1] == "toy-workshop/seat-01"
    assert {one.split()[0] for one in do("ls").output.splitlines()[1:]} == {"toy-seat-01", "toy-seat-02"}
    again = json.loads(up(do, "-o", "json", seats=3).stdout)
    assert [seat["cluster"] for seat in again] == ["toy-seat-01", "toy-seat-02", "toy-seat-03"]
    do("stop", "agent-1", "-c", "toy-seat-02")
    assert {seat["number"]: seat["ready"] for seat in json.loads(do("workshop", "status", "-o", "json").stdout)}[2] == 1


def test_a_seat_has_a_folder_that_only_its_user_can_read_and_that_works_elsewhere(do: Do, tmp_path: Path) -> None:
    up(do)
    folder = tmp_path / "toy-workshop" / "seat-01"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == dict.fromkeys(
        ("README.txt", "env.sh", "ca.pem", "cert.pem", "key.pem"), 0o600
    )
    other = tmp_path / "a laptop's $HOME"
    shutil.copytree(folder, other)
    said = subprocess.run(
        ["bash", "-euc", '. "$1"/env.sh; echo "$TOY_CERTS"; echo "$TOY_URL"; set', "bash", str(other)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert said[0] == str(other)
    assert said[1].startswith("https://127.0.0.1:")
    assert not [line for line in said if line.startswith("minicluster_folder")]
    plain = subprocess.run(
        ["sh", "-euc", '. ./env.sh; echo "$TOY_CERTS"'], cwd=other, capture_output=True, text=True, check=True
    )
    assert plain.stdout.strip() == str(other)
    readme = (folder / "README.txt").read_text()
    for part in ("toy-seat-01", said[1], "ca.pem, cert.pem, key.pem"):
        assert part in readme


def test_env_takes_a_number_or_a_name(do: Do) -> None:
    up(do)
    first = json.loads(do("workshop", "env", "1", "-o", "json").stdout)
    assert first == json.loads(do("env", "toy-seat-01", "-o", "json").stdout)
    assert json.loads(do("workshop", "env", "toy-seat-02", "-o", "json").stdout) != first
    assert do("workshop", "env", "01").output.splitlines()[-1] == '# eval "$(minicluster env toy-seat-01)"'
    missing = do("workshop", "env", "9", code=NoCluster.exit_code)
    assert "no such seat: 9" in missing.stderr
    assert missing.stdout.splitlines()[-1] == "false"  # an eval of it fails


def test_two_workshops_may_have_the_same_seat(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workshop, "names", lambda **_: ["a-seat-01", "b-seat-01", "b-seat-02"])
    with pytest.raises(UsageError, match=r"several workshops have a seat 1"):
        workshop.named("1", engine=engine)
    assert workshop.named("2", engine=engine) == "b-seat-02"


def test_down_removes_the_seats_and_their_folders_but_no_other_cluster(do: Do, tmp_path: Path) -> None:
    do("up", str(TOY), "--name", "toy-seat-1")  # not the name of a seat
    do("up", str(TOY), "--name", "other-seat-01")  # nor that of one of its profile
    up(do, seats=3)
    mine = tmp_path / "toy-workshop" / "seat-02" / "notes"
    mine.write_text("a participant's own")
    do("down", "toy-seat-01")
    assert not (tmp_path / "toy-workshop" / "seat-01").exists()
    assert "cannot be used together" in do("down", "--seats", "--all", code=2).stderr
    assert "cannot be used together" in do("down", "--seats", "toy-seat-01", code=2).stderr
    do("down", "--seats")
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*")] == [
        Path("toy-workshop"),
        Path("toy-workshop/seat-02"),
        Path("toy-workshop/seat-02/notes"),
    ]
    assert [one["cluster"] for one in json.loads(do("ls", "-o", "json").stdout)] == ["other-seat-01", "toy-seat-1"]
    assert "No seats found" in do("down", "--seats").stderr
    assert json.loads(do("workshop", "down", "-o", "json").stdout) == []
    assert "No seats found" in do("workshop", "status").stderr


def test_workshop_down_takes_a_profile(do: Do, engine: FakeEngine) -> None:
    up(do, seats=1)
    do("workshop", "down", "etcd")
    assert workshop.names(engine=engine) == ["toy-seat-01"]
    assert "Removed cluster toy-seat-01" in do("workshop", "down", "toy").output
    assert workshop.names(engine=engine) == []


def test_what_needs_no_login_is_published_on_127_0_0_1_only(do: Do, engine: FakeEngine, open_profile: str) -> None:
    engine.shares_localhost = False  # an address of another machine
    words = ("workshop", "up", open_profile, "--seats", "1", "-q")
    refused = do(*words, "--bind-address", "10.1.2.3", code=2)
    assert "the seats would be open to everyone who reaches 10.1.2.3" in refused.stderr
    assert "do all (api)" in refused.stderr
    assert "--insecure" in refused.stderr
    assert workshop.names(engine=engine) == []
    do(*words, "--bind-address", "127.0.0.2")
    do(*words, "--bind-address", "10.1.2.3", "--insecure")
    assert workshop.names(engine=engine) == ["toy-seat-01"]
    assert "every client that reaches the endpoints can: do all" in Path("toy-workshop/seat-01/README.txt").read_text()


def test_with_a_login_an_address_for_others_is_in_what_a_seat_gets(do: Do, engine: FakeEngine) -> None:
    engine.shares_localhost = False
    up(do, "--bind-address", "10.1.2.3", seats=1)
    assert "export TOY_URL=https://10.1.2.3:" in Path("toy-workshop/seat-01/env.sh").read_text()


def test_all_seats_have_to_fit_into_memory(do: Do, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def capacity(_info: object, footprint: int) -> tuple[doctor.Check, doctor.Check]:
        asked.append(footprint)
        level: Any = "ok" if footprint <= 64 << 20 else "error"
        return doctor.Check("memory", level, "too little", "Buy some."), doctor.Check("disk", "ok", "")

    monkeypatch.setattr(doctor, "capacity", capacity)
    footprint = ("--set", "roles.master.footprint=32MiB")
    refused = up(do, *footprint, seats=3, code=1)
    assert "3 seats more do not fit into memory" in refused.stderr
    assert workshop.names(engine=engine) == []
    up(do, *footprint, seats=2)
    asked.clear()
    up(do, *footprint, seats=2)
    assert asked == []  # nothing is to be started
    up(do, *footprint, "--force", seats=4)
    assert len(workshop.names(engine=engine)) == 4


def test_a_seat_that_fails_leaves_the_others(do: Do, engine: FakeEngine) -> None:
    engine.fail("start_container", MiniclusterError("no luck"), match="toy-seat-02-master-1")
    failed = up(do, seats=3, code=1)
    assert "no luck" in failed.stderr
    rows = {line.split()[1]: line.split()[2] for line in failed.stdout.splitlines()[1:]}
    assert rows == {"toy-seat-01": "ready", "toy-seat-02": "missing", "toy-seat-03": "ready"}
    assert not Path("toy-workshop/seat-02").exists()
    engine.heal()
    assert len(json.loads(up(do, "-o", "json", seats=3).stdout)) == 3


def test_an_owner_has_to_be_a_user_and_gets_the_folder(
    do: Do, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = up(do, "--owner", "nobody-{seat}-here", code=2)
    assert "--owner nobody-01-here: no such user" in refused.stderr
    assert workshop.names(engine=engine) == []
    me = pwd.getpwuid(os.geteuid()).pw_name
    up(do, "--owner", me)
    assert Path("toy-workshop/seat-02/key.pem").stat().st_uid == os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(UsageError, match="only root can give files to another user"):
        hand_out.account("root")


def test_a_file_that_a_user_put_in_the_place_of_ours_is_replaced_and_not_followed(do: Do, tmp_path: Path) -> None:
    up(do, seats=1)
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    env = tmp_path / "toy-workshop" / "seat-01" / "env.sh"
    env.unlink()
    env.symlink_to(victim)
    up(do, seats=1)
    assert not env.is_symlink()
    assert "TOY_URL" in env.read_text()
    env.unlink()
    env.symlink_to(victim)
    do("down", "--seats")
    assert victim.read_text() == "untouched"


def test_a_folder_that_is_a_link_is_refused(do: Do, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "toy-workshop").mkdir()
    (tmp_path / "toy-workshop" / "seat-01").symlink_to(tmp_path / "elsewhere")
    assert "cannot write" in up(do, seats=1, code=1).stderr
    assert not list((tmp_path / "elsewhere").iterdir())


def test_no_key_outlives_the_cluster_whatever_comes_of_handing_it_out(
    do: Do, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    replace = os.replace

    def replaced(source: Any, target: Any, **more: Any) -> None:
        if target == "key.pem":
            raise OSError(28, "No space left on device")
        replace(source, target, **more)

    monkeypatch.setattr(os, "replace", replaced)
    assert "No space left on device" in up(do, seats=1, code=1).stderr
    folder = tmp_path / "toy-workshop" / "seat-01"
    assert {path.name for path in folder.iterdir()} == {"ca.pem", "cert.pem"}  # and no part of the key
    (folder / ".key.pem.0123456789ab").write_text("of a call that was killed")
    do("down", "--seats")
    assert list(tmp_path.rglob("*")) == []


def test_a_seat_whose_folder_cannot_be_written_does_not_cost_the_others_theirs(do: Do, tmp_path: Path) -> None:
    (tmp_path / "toy-workshop").mkdir()
    (tmp_path / "toy-workshop" / "seat-01").write_text("in the way")
    failed = up(do, seats=3, code=1)
    assert "toy-workshop/seat-01" in failed.stderr
    assert [line.split()[2] for line in failed.stdout.splitlines()[1:]] == ["ready"] * 3
    assert (tmp_path / "toy-workshop" / "seat-02" / "key.pem").exists()
    assert (tmp_path / "toy-workshop" / "seat-03" / "key.pem").exists()


@pytest.mark.parametrize("seats", [-1, 0, 100])
def test_python_cannot_ask_for_seats_that_there_cannot_be(seats: int) -> None:
    with pytest.raises(UsageError, match=rf"a workshop cannot have {seats} seats"):
        workshop.Options(seats)
    assert workshop.Options(workshop.MOST).seats == 99


def test_a_seat_whose_address_is_not_reached_is_no_leftover(
    do: Do, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    up(do, seats=1)

    def endpoints(*_: object) -> None:
        raise MiniclusterError("not reached from here")

    monkeypatch.setattr("minicluster.operations.connect.endpoints", endpoints)
    (seat,) = workshop.status(["toy-seat-01"], engine)
    assert (seat.phase, seat.ready, seat.endpoint) == ("ready", 2, "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_a_folder_that_its_owner_cannot_enter_is_noticed() -> None:
    other = next(user.pw_name for user in pwd.getpwall() if user.pw_uid != 0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o711)
        (folder / "closed").mkdir(mode=0o700)
        assert hand_out.unreachable(folder / "seat", other) is None
        assert hand_out.unreachable(folder / "closed" / "seat", other) == folder / "closed"
        assert hand_out.unreachable(folder / "closed" / "seat", "root") is None
