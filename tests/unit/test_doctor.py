"""What doctor says, on machines made of files."""

from __future__ import annotations

import dataclasses
import os
import platform
import socket
import time
from pathlib import Path
from typing import Any, cast

import pytest

from minicluster import doctor
from minicluster.doctor import Check
from minicluster.engine import privileges
from minicluster.engine.protocol import Engine, EngineInfo
from minicluster.errors import EngineError, NoEngine

GIB = 1 << 30
INFO = EngineInfo(
    endpoint="tcp://elsewhere:2376",
    source="DOCKER_HOST",
    version="24.0.7",
    api_version="1.43",
    platform="linux/amd64",
    operating_system="Some Linux",
    kernel="6.1.0",
    cgroup_version=2,
    storage_driver="overlay2",
    rootless=False,
    cpus=4,
    memory=8 * GIB,
    data_root="/",
    local=True,
)


class FakeEngine:
    """As much of an engine as doctor asks."""

    def __init__(self, info: EngineInfo, subnets: list[str] | Exception) -> None:
        self.info = info
        self._subnets = subnets

    def subnets(self) -> list[str]:
        if isinstance(self._subnets, Exception):
            raise self._subnets
        return self._subnets


def fake(info: EngineInfo = INFO, subnets: list[str] | Exception | None = None) -> Engine:
    return cast(Engine, FakeEngine(info, [] if subnets is None else subnets))


def changed(**values: Any) -> EngineInfo:
    return dataclasses.replace(INFO, **values)


def write(root: Path, path: str, text: str = "") -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine that has everything."""
    write(tmp_path, "proc/net/ip_vs")
    write(tmp_path, "proc/filesystems", "nodev\toverlay\n\text4\n")
    write(tmp_path, "sys/module/vxlan/refcnt", "0")
    write(tmp_path, "proc/sys/fs/inotify/max_user_instances", "1024\n")
    write(tmp_path, "proc/sys/fs/inotify/max_user_watches", "1048576\n")
    write(tmp_path, "proc/meminfo", "MemTotal: 8388608 kB\nMemAvailable: 6291456 kB\nHugePages_Total: 0\n")
    return tmp_path


@pytest.fixture(autouse=True)
def linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")


def test_all_is_well_on_a_good_machine(machine: Path) -> None:
    checks = doctor.examine(fake(), None, GIB, "image debian:trixie-slim", root=machine)
    levels = {check.name: check.level for check in checks if check.name != "disk"}  # that is this machine's real one
    assert set(levels.values()) == {"ok"}, checks
    assert {"engine", "version", "capabilities", "ip_vs", "vxlan", "memory", "subnets", "base image"} <= levels.keys()


def test_without_an_engine_its_error_comes_first_and_the_machine_is_checked_all_the_same(machine: Path) -> None:
    error = NoEngine("no container engine answers", "Tried everything.", "Install one.")
    checks = doctor.examine(None, error, 0, None, root=machine)
    assert checks[0] == Check("engine", "error", "no container engine answers\nTried everything.", "Install one.")
    assert {"apparmor", "ip_vs", "overlay", "vxlan", "inotify", "memory"} == by_name(checks).keys() - {"engine"}


def test_nothing_is_asked_of_this_machine_for_an_engine_elsewhere(tmp_path: Path) -> None:
    checks = by_name(doctor.examine(fake(changed(local=False)), None, 0, None, root=tmp_path))
    assert not {"ip_vs", "overlay", "vxlan", "inotify", "disk"} & checks.keys()
    assert "can only be checked there" in checks["kernel"].text
    assert checks["memory"].text == "8.0 GiB in all"


def test_a_check_that_fails_does_not_hide_the_others(machine: Path) -> None:
    checks = by_name(doctor.examine(fake(subnets=EngineError("it broke")), None, 0, None, root=machine))
    assert checks["subnets"] == Check("subnets", "warning", "could not be checked: it broke")
    assert checks["ip_vs"].level == "ok"


def test_a_check_that_hangs_does_not_keep_the_others(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TIMEOUT", 0.2)
    start = time.monotonic()
    checks = by_name(doctor.examine(fake(), None, 0, lambda: time.sleep(3) or "", root=machine))
    assert time.monotonic() - start < 1.5
    assert checks["base image"].text == "could not be checked in time"
    assert checks["ip_vs"].level == "ok"


@pytest.mark.parametrize(
    ("api", "level"), [("1.40", "error"), ("1.41", "ok"), ("1.50", "ok"), ("2.0", "ok"), ("?", "warning")]
)
def test_version(api: str, level: str) -> None:
    assert doctor.check_version(changed(api_version=api)).level == level


def test_rootless_is_a_warning() -> None:
    assert doctor.check_engine(changed(rootless=True), None).level == "warning"


def test_capabilities_are_those_of_the_process_that_listens(tmp_path: Path) -> None:
    path = tmp_path / "s"
    info = changed(endpoint=f"unix://{path}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        all_but = {name: ~(1 << bit) & (1 << 41) - 1 for name, bit in (("SYS_ADMIN", 21), ("SYS_RESOURCE", 24))}
        write(tmp_path, f"proc/{os.getpid()}/status", f"Name:\tx\nCapBnd:\t{all_but['SYS_RESOURCE']:016x}\n")
        check = doctor.check_capabilities(info, tmp_path)
        assert (check.level, "gets CAP_SYS_RESOURCE," in check.text) == ("ok", True)  # nested nodes do without
        write(tmp_path, f"proc/{os.getpid()}/status", f"Name:\tx\nCapBnd:\t{all_but['SYS_ADMIN']:016x}\n")
        check = doctor.check_capabilities(info, tmp_path)
        assert check.level == "error"
        assert "CAP_SYS_ADMIN:" in check.text
        assert "--cap-add SYS_ADMIN" in check.fix
        write(tmp_path, f"proc/{os.getpid()}/status", "nothing of the kind")
        assert "not known" in doctor.check_capabilities(info, tmp_path).text


def test_every_named_capability_has_a_bit() -> None:
    assert sorted(privileges.ALL.values()) == [*range(41)]
    assert privileges.named(1 << 12 | 1 << 21) == ["NET_ADMIN", "SYS_ADMIN"]
    assert privileges.missing((1 << 41) - 1) == []
    assert set(privileges.NESTED_CAPABILITIES) <= set(privileges.missing(0))


@pytest.mark.parametrize(
    ("listing", "line"),
    [
        ("modules.dep", "kernel/net/netfilter/ipvs/ip_vs.ko.xz: kernel/net/netfilter/nf_conntrack.ko.xz\n"),
        ("modules.builtin", "kernel/net/netfilter/ipvs/ip_vs.ko\n"),
    ],
)
def test_a_module_that_can_be_loaded_will_do(tmp_path: Path, listing: str, line: str) -> None:
    assert doctor.check_ip_vs(tmp_path).level == "warning"
    folder = f"lib/modules/{platform.release()}"
    write(tmp_path, f"{folder}/{listing}", "kernel/net/netfilter/ipvs/ip_vs_rr.ko: kernel/ipvs/ip_vs.ko\n")
    assert doctor.check_ip_vs(tmp_path).level == "warning"  # that is another one
    write(tmp_path, f"{folder}/{listing}", line)
    assert doctor.check_ip_vs(tmp_path).level == "ok"


def test_missing_kernel_features_are_warnings_with_a_fix(tmp_path: Path) -> None:
    for check in (doctor.check_ip_vs(tmp_path), doctor.check_overlay(tmp_path), doctor.check_vxlan(tmp_path)):
        assert check.level == "warning"
        assert check.fix


def test_inotify_says_how_many_nodes_and_the_numbers_to_set(machine: Path) -> None:
    write(machine, "proc/sys/fs/inotify/max_user_instances", "128\n")
    check = doctor.check_inotify(machine)
    assert check.level == "warning"
    assert "about 16 nested nodes" in check.text
    # What is set higher already stays.
    assert "fs.inotify.max_user_instances=512 fs.inotify.max_user_watches=1048576" in check.fix


def test_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def free(size: int, inodes: int = 1000) -> Check:
        facts = (4096, 4096, 0, 0, size // 4096, 2000, 0, inodes, 0, 255)
        monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result(facts))
        return doctor.check_disk("/x")

    assert [free(size * GIB).level for size in (6, 3)] == ["ok", "warning"]
    assert free(GIB // 2).level == "error"
    assert free(6 * GIB, inodes=0).level == "error"
    monkeypatch.undo()
    assert "not known" in doctor.check_disk(str(tmp_path / "none")).text


@pytest.mark.parametrize(("footprint", "level"), [(0, "ok"), (5 * GIB, "ok"), (7 * GIB, "warning"), (9 * GIB, "error")])
def test_memory(machine: Path, footprint: int, level: str) -> None:
    assert doctor.check_memory(footprint, 8 * GIB, machine).level == level


def test_memory_of_an_engine_elsewhere_is_its_own(machine: Path) -> None:
    assert doctor.check_memory(3 * GIB, 2 * GIB, None).level == "error"
    assert doctor.check_memory(GIB, 2 * GIB, None).text == "2.0 GiB in all, 1.0 GiB needed"


@pytest.mark.parametrize(
    ("taken", "level", "text"),
    [
        ([], "ok", "1024 of 1024"),
        (["172.28.0.0/24", "172.28.0.128/25", "10.0.0.0/8", "fd00::/64"], "ok", "1023 of 1024"),
        (["172.28.0.0/15", "172.30.0.0/16", "172.31.0.0/17", "172.31.128.0/18", "172.31.192.0/19", "172.31.224.0/20",
          "172.31.240.0/21", "172.31.248.0/22"], "warning", "4 of 1024"),
        (["172.16.0.0/12"], "error", "in use: 172.16.0.0/12"),
    ],
)  # fmt: skip
def test_subnets(taken: list[str], level: str, text: str) -> None:
    check = doctor.check_subnets(taken)
    assert check.level == level
    assert text in check.text


@pytest.mark.parametrize(
    ("source", "level"),
    [("image debian:trixie-slim", "ok"), ("registry or mmdebstrap", "ok"), ("registry", "warning"), ("", "error")],
)
def test_base_image(source: str, level: str) -> None:
    check = doctor.check_base_image(lambda: source)
    assert check.level == level
    assert ("mmdebstrap" in check.fix) == (level != "ok")


@pytest.mark.skipif(platform.system() != "Linux", reason="looks at this machine")
def test_features_that_a_profile_names(tmp_path: Path) -> None:
    """One that has a check of its own is reported once."""
    (tmp_path / "proc").mkdir()
    table = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t{}\t3\t1\ncpuset\t7\t3\t1\n"
    wanted = {"cgroup_v1_cpu": "no Docker tasks", "ip_vs": "no routing mesh"}
    for hierarchy, level in ((0, "warning"), (1, "ok")):
        (tmp_path / "proc/cgroups").write_text(table.format(hierarchy))
        found = [c for c in doctor.examine(fake(), None, 0, None, kernel=wanted, root=tmp_path) if c.name in wanted]
        assert [c.name for c in found] == ["ip_vs", "cgroup_v1_cpu"]
        assert found[1].level == level
        assert (found[1].text == "no Docker tasks") == (level == "warning")
