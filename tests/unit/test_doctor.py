"""What doctor says, on machines made of files."""

from __future__ import annotations

import dataclasses
import gzip
import os
import platform
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from minicluster import doctor
from minicluster.doctor import Check
from minicluster.engine import privileges
from minicluster.engine.protocol import Engine, EngineInfo
from minicluster.errors import EngineError, NoEngine
from minicluster.host import kernel
from minicluster.model.spec import Spec
from minicluster.operations import status
from minicluster.profile import catalog
from minicluster.profile.folders import bundled_directory

GIB = 1 << 30
SWARM = {"ip_vs": "no ip_vs: no routing mesh", "overlay": "no overlay", "vxlan": "no vxlan"}
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
    for name in ("nf_tables", "sch_htb", "sch_netem"):
        write(tmp_path, f"sys/module/{name}/refcnt", "0")
    for name, limit in kernel.LIMITS.items():
        write(tmp_path, f"proc/sys/{name.replace('.', '/')}", f"{2 * limit.wanted}\n")
    write(tmp_path, "proc/meminfo", "MemTotal: 8388608 kB\nMemAvailable: 6291456 kB\nHugePages_Total: 0\n")
    return tmp_path


@pytest.fixture(autouse=True)
def linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")


def test_all_is_well_on_a_good_machine(machine: Path) -> None:
    checks = doctor.examine(fake(), None, GIB, "image debian:trixie-slim", features=SWARM, root=machine)
    levels = {check.name: check.level for check in checks if check.name != "disk"}  # that is this machine's real one
    assert set(levels.values()) == {"ok"}, checks
    assert {"engine", "version", "capabilities", "ip_vs", "vxlan", "memory", "subnets", "base image"} <= levels.keys()


def test_without_an_engine_its_error_comes_first_and_the_machine_is_checked_all_the_same(machine: Path) -> None:
    error = NoEngine("no container engine answers", "Tried everything.", "Install one.")
    checks = doctor.examine(None, error, 0, None, features=SWARM, root=machine)
    assert checks[0] == Check("engine", "error", "no container engine answers\nTried everything.", "Install one.")
    assert {"apparmor", *SWARM, *kernel.FAULTS, "limits", "memory"} == by_name(checks).keys() - {"engine"}


def test_nothing_is_asked_of_this_machine_for_an_engine_elsewhere(tmp_path: Path) -> None:
    checks = by_name(doctor.examine(fake(changed(local=False)), None, 0, None, features=SWARM, root=tmp_path))
    assert not {*SWARM, *kernel.FAULTS, "limits", "disk"} & checks.keys()
    assert "can only be checked there" in checks["kernel"].text
    assert checks["memory"].text == "8.0 GiB in all"


def test_a_check_that_fails_does_not_hide_the_others(machine: Path) -> None:
    checks = by_name(doctor.examine(fake(subnets=EngineError("it broke")), None, 0, None, features=SWARM, root=machine))
    assert checks["subnets"] == Check("subnets", "warning", "could not be checked: it broke")
    assert checks["ip_vs"].level == "ok"


def test_a_check_that_hangs_does_not_keep_the_others(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TIMEOUT", 0.2)
    start = time.monotonic()
    checks = by_name(doctor.examine(fake(), None, 0, lambda: time.sleep(3) or "", features=SWARM, root=machine))
    assert time.monotonic() - start < 1.5
    assert checks["base image"].text == "could not be checked in time"
    assert checks["ip_vs"].level == "ok"


@pytest.mark.parametrize(
    ("api", "level"), [("1.40", "error"), ("1.41", "ok"), ("1.50", "ok"), ("2.0", "ok"), ("?", "warning")]
)
def test_version(api: str, level: str) -> None:
    assert doctor.check_version(changed(api_version=api)).level == level


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"remaps_users": True}, "userns-remap"),
        ({"runtime": "runsc"}, "default-runtime"),
        ({"forwards": False}, "net.ipv4.ip_forward"),
        ({"file_types": False}, "data-root"),
        ({"authorization": ("opa",)}, "the plugin opa may refuse"),
        ({"warnings": ("WARNING: No memory limit support",)}, "it says: No memory limit support"),
    ],
)
def test_a_configuration_in_which_nodes_cannot_work_is_told(facts: dict[str, Any], said: str) -> None:
    check = doctor.check_configuration(changed(**facts))
    assert check.level == "warning"
    assert said in check.text
    assert "daemon.json" in check.fix


def test_an_ordinary_configuration_is_in_nobodys_way() -> None:
    for facts in {}, {"runtime": "nvidia"}, {"warnings": ("WARNING: bridge-nf-call-iptables is disabled",)}:
        assert doctor.check_configuration(changed(**facts)).level == "ok"


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


# What the kernel offers


@pytest.mark.parametrize(
    ("listing", "line"),
    [
        ("modules.dep", "kernel/net/netfilter/ipvs/ip_vs.ko.xz: kernel/net/netfilter/nf_conntrack.ko.xz\n"),
        ("modules.builtin", "kernel/net/netfilter/ipvs/ip_vs.ko\n"),
    ],
)
def test_a_module_that_can_be_loaded_will_do(tmp_path: Path, listing: str, line: str) -> None:
    assert kernel.has("ip_vs", tmp_path) is None
    folder = f"lib/modules/{platform.release()}"
    write(tmp_path, f"{folder}/{listing}", "kernel/net/netfilter/ipvs/ip_vs_rr.ko: kernel/ipvs/ip_vs.ko\n")
    assert kernel.has("ip_vs", tmp_path) is False  # that is another one
    write(tmp_path, f"{folder}/{listing}", line)
    assert kernel.has("ip_vs", tmp_path) is True


@pytest.mark.parametrize(
    ("line", "has"),
    [("CONFIG_INET_ESP=y", True), ("CONFIG_INET_ESP=m", None), ("# CONFIG_INET_ESP is not set", False)],
)
@pytest.mark.parametrize("packed", [True, False])
def test_without_a_list_of_modules_the_configuration_tells(
    tmp_path: Path, line: str, has: bool | None, packed: bool
) -> None:
    text = f"CONFIG_INET_ESPINTCP=y\n{line}\n"
    if packed:
        write(tmp_path, "proc/config.gz")
        (tmp_path / "proc/config.gz").write_bytes(gzip.compress(text.encode()))
    else:
        write(tmp_path, f"boot/config-{platform.release()}", text)
    assert kernel.has("esp4", tmp_path) is has
    assert kernel.has("one_of_a_users_profile", tmp_path) is None


@pytest.mark.parametrize(
    "path", ["proc/net/ip_vs", "sys/module/ip_vs/version", f"lib/modules/{platform.release()}/modules.builtin"]
)
def test_what_is_loaded_is_there(tmp_path: Path, path: str) -> None:
    write(tmp_path, path, "kernel/net/ip-vs.ko\n")
    write(tmp_path, f"boot/config-{platform.release()}", "# CONFIG_IP_VS is not set\n")
    assert kernel.has("ip_vs", tmp_path) is True


def test_a_missing_feature_is_a_warning_with_a_fix(tmp_path: Path) -> None:
    assert doctor.check_feature("esp4", "no ESP: no encryption", tmp_path).level == "ok"
    assert "not known" in doctor.check_feature("esp4", "no ESP: no encryption", tmp_path).text
    write(tmp_path, f"boot/config-{platform.release()}", "CONFIG_X=y\n")
    fix = "Load it (`sudo modprobe esp4`) or boot a kernel with it (CONFIG_INET_ESP)."
    assert doctor.check_feature("esp4", "no ESP: no encryption", tmp_path) == Check(
        "esp4", "warning", "no ESP: no encryption", fix
    )


def test_every_feature_of_a_bundled_profile_is_known_and_says_what_fails_without_it() -> None:
    for profile in sorted(file.parent for file in bundled_directory().glob("[!_]*/profile.yaml")):
        for name, text in catalog.load(str(profile)).profile.kernel.items():
            assert name in kernel.FEATURES or name.startswith("cgroup_v1_"), f"{profile.name}: {name}"
            assert text.startswith("this kernel has"), f"{profile.name}: {name}"
            assert ": " in text, f"{profile.name}: {name}"


def test_limits_say_how_many_nodes_and_the_numbers_to_set(machine: Path) -> None:
    write(machine, "proc/sys/fs/inotify/max_user_instances", "128\n")
    write(machine, "proc/sys/kernel/pid_max", "4096\n")
    check = doctor.check_limits(machine)
    assert check.level == "warning"
    assert "fs.inotify.max_user_instances = 128 is enough for about 16 nested nodes" in check.text
    assert "kernel.pid_max = 4096 is enough for about 13 nested nodes" in check.text
    assert "`sudo sysctl fs.inotify.max_user_instances=512 kernel.pid_max=32768`" in check.fix  # what is higher stays


def test_limits_that_cannot_be_read_are_no_fault(tmp_path: Path) -> None:
    assert "not known" in doctor.check_limits(tmp_path).text


def test_up_and_info_note_what_is_missing_and_limits_that_are_too_low(monkeypatch: pytest.MonkeyPatch) -> None:
    features = {"esp4": "no ESP", "vxlan": "no VXLAN", "odd": "nobody knows"}
    spec, nested = (
        cast(Spec, SimpleNamespace(kernel=features, nodes=[SimpleNamespace(nested=is_nested)] * 2))
        for is_nested in (False, True)
    )
    monkeypatch.setattr(kernel, "has", {"esp4": False, "vxlan": True, "odd": None}.get)
    monkeypatch.setattr(kernel, "limits", lambda: {"kernel.pid_max": 350})
    here, elsewhere = (cast(Engine, SimpleNamespace(local=local)) for local in (True, False))
    assert status.kernel_notes(here, spec) == ["no ESP"]
    assert status.kernel_notes(elsewhere, nested) == []
    missing, low = status.kernel_notes(here, nested)
    assert missing == "no ESP"
    assert low.startswith("kernel.pid_max = 350 is enough for about 1 nested node: ")
    assert low.endswith("`minicluster doctor` has the fix")


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


def test_a_controller_of_cgroup_v1_is_a_feature(tmp_path: Path) -> None:
    write(tmp_path, "proc/cgroups")
    table = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t{}\t3\t1\ncpuset\t7\t3\t1\n"
    for hierarchy, level in ((0, "warning"), (1, "ok")):
        (tmp_path / "proc/cgroups").write_text(table.format(hierarchy))
        features = {"cgroup_v1_cpu": "no Docker tasks"}
        found = by_name(doctor.examine(fake(), None, 0, None, features=features, root=tmp_path))["cgroup_v1_cpu"]
        assert found.level == level
        assert (found.text == "no Docker tasks") == (level == "warning")
