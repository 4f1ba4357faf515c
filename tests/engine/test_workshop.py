"""A workshop of etcd: seats that are real clusters, used from what their users get, by the stock etcdctl."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.conftest import Shell, etcd_called, remains

NAME = "t-work"
SEATS = [f"{NAME}-seat-{number:02}" for number in (1, 2, 3)]

pytestmark = pytest.mark.skipif(not shutil.which("etcdctl"), reason="etcdctl (Debian: etcd-client) is not installed")


def address() -> str:
    """An address of this machine that other machines may reach."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:  # there is no route to other machines
            return "127.0.0.2"
        return str(probe.getsockname()[0])


@pytest.fixture(scope="module")
def place(outer: Shell, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of three seats of one node each, published on an address for others."""
    folder = tmp_path_factory.mktemp("seats")
    profile = etcd_called(outer, tmp_path_factory.mktemp("profiles") / NAME)
    words = ("--seats", "3", "--size", "kv=1", "--bind-address", address(), "--folder", str(folder))
    try:
        found = outer.minicluster("workshop", "up", str(profile), *words, "-o", "json", timeout=600).json
        assert [(seat["cluster"], seat["phase"], seat["ready"]) for seat in found] == [(s, "ready", 1) for s in SEATS]
        yield folder
        done = outer.minicluster("workshop", "down", NAME, "-o", "json").json
        assert [change["cluster"] for change in done] == SEATS
    finally:
        for seat in SEATS:
            outer.minicluster("down", seat, ok=False)
    assert remains(outer, NAME) == {}
    assert not list(folder.iterdir())


def in_folder(outer: Shell, folder: Path, *argv: str) -> str:
    """What a client prints that has only what a seat's folder has, wherever that is."""
    return outer.run("bash", "-euc", f". ./env.sh; exec {' '.join(argv)}", cwd=folder, timeout=30).out


def test_a_copy_of_a_seat_s_folder_reaches_that_seat_by_the_address_for_others(
    outer: Shell, place: Path, tmp_path: Path
) -> None:
    for number in (1, 3):
        laptop = tmp_path / f"laptop {number}"
        shutil.copytree(place / f"seat-{number:02}", laptop)
        in_folder(outer, laptop, "etcdctl", "put", "seat", str(number))
        assert f"https://{address()}:" in (laptop / "env.sh").read_text()
    for number, value in ((1, "1\n"), (2, ""), (3, "3\n")):
        said = in_folder(outer, place / f"seat-{number:02}", "etcdctl", "get", "seat", "--print-value-only")
        assert said == value


def test_one_seat_s_files_do_not_open_another_seat(outer: Shell, place: Path) -> None:
    other = json.loads(outer.minicluster("workshop", "env", SEATS[1], "-o", "json").out)["ETCDCTL_ENDPOINTS"]
    script = f". ./env.sh; ETCDCTL_ENDPOINTS={other} etcdctl get x --command-timeout=2s"
    refused = outer.run("bash", "-euc", script, cwd=place / "seat-01", timeout=30, ok=False)
    assert refused.code != 0
    assert "TransientFailure" in refused.err  # no connection: the other seat's authority is not known here


def test_the_ordinary_verbs_reset_and_remove_a_seat(outer: Shell, place: Path) -> None:
    in_folder(outer, place / "seat-02", "etcdctl", "put", "mine", "1")
    outer.minicluster("reset", SEATS[1])
    assert in_folder(outer, place / "seat-02", "etcdctl", "get", "mine") == ""
    outer.minicluster("stop", SEATS[1])
    rows = {
        line.split()[1]: line.split()[2:4] for line in outer.minicluster("workshop", "status", NAME).out.splitlines()
    }
    assert rows[SEATS[1]] == ["stopped", "0/1"]
    assert rows[SEATS[0]] == ["ready", "1/1"]
    outer.minicluster("start", SEATS[1])
    assert in_folder(outer, place / "seat-02", "etcdctl", "put", "mine", "2") == "OK\n"


@pytest.mark.long
def test_seats_that_are_open_to_all_are_refused_for_others(outer: Shell, place: Path) -> None:
    words = ("--seats", "1", "--bind-address", address())
    for profile in ("zookeeper", "mesos", "consul"):
        refused = outer.minicluster("workshop", "up", profile, *words, ok=False)
        assert refused.code == 2, profile
        assert f"the seats would be open to everyone who reaches {address()}" in refused.err, profile
    assert remains(outer, "zookeeper-seat-") == {}
